/* Load generators, in short bounded runs: every request is answered, every answer is right, and the balancer's log has
 * all of them. */
#include "harness/software.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* The number behind `label` in what a program printed. */
static long number_behind(const char *text, const char *label)
{
    const char *at = strstr(text, label);

    CHECK(at, "no \"%s\" in:\n%s", label, text);
    return strtol(at + strlen(label), NULL, 10);
}

static void expect_text(const char *text, const char *wanted)
{
    CHECK(strstr(text, wanted), "no \"%s\" in:\n%s", wanted, text);
}

static void expect_no_text(const char *text, const char *unwanted)
{
    CHECK(!strstr(text, unwanted), "\"%s\" in:\n%s", unwanted, text);
}

/* `n` requests more are in the log, and all were answered with 200 at the first attempt. */
static void expect_logged(struct world *w, size_t mark, size_t n)
{
    uint64_t deadline = deadline_in(patience_ms());
    size_t all;

    while ((all = daemon_count_events(&w->daemon, mark, "request", NULL)) < n && left_ms(deadline) > 0)
        rest();
    assert_int_equal(all, n);
    assert_int_equal(daemon_count_events(&w->daemon, mark, "request", "status=200 attempts=1"), n);
    assert_int_equal(daemon_count_events(&w->daemon, mark, "log_dropped", NULL), 0);
}

static const char *count_text(unsigned n)
{
    static char text[4][16];
    static unsigned next;
    char *out = text[next++ % 4];

    snprintf(out, sizeof text[0], "%u", is_instrumented() ? n / 4 : n);
    return out;
}

/* ---- ab ---- */

static void expect_ab(struct world *w, unsigned requests, unsigned length, const char *const options[2])
{
    const char *n = count_text(requests);
    size_t mark = daemon_mark(&w->daemon);
    char path[32];
    struct bytes out;

    snprintf(path, sizeof path, "/bytes/%u", length);
    RUN(w, &out, AB, "-q", "-n", n, "-c", "20", options[0], options[1], url(w, path));
    expect_text(out.p, "Failed requests:        0\n");
    expect_no_text(out.p, "Non-2xx");
    assert_int_equal(number_behind(out.p, "Complete requests:"), atol(n));
    assert_int_equal(number_behind(out.p, "Document Length:"), length);
    assert_int_equal(number_behind(out.p, "HTML transferred:"), atol(n) * length);
    if (strcmp(options[0], "-k") == 0)
        assert_int_equal(number_behind(out.p, "Keep-Alive requests:"), atol(n));
    bytes_free(&out);
    expect_logged(w, mark, (size_t)atol(n));
}

/* ab speaks HTTP/1.0, and with -k asks for connections to be kept. */
static void test_ab(void **state)
{
    struct world *w = *state;
    int ports[3];

    need_program(AB);
    three_demos(w, ports);
    world_start(w, NULL);
    expect_ab(w, 2000, 100, (const char *const[]){"-S", "-d"});
    expect_ab(w, 6000, 100, (const char *const[]){"-k", "-d"});
    expect_ab(w, 400, 100000, (const char *const[]){"-k", "-d"});
    world_finish(w);
}

static void test_ab_posts(void **state)
{
    struct world *w = *state;
    const char *n = count_text(2000);
    struct bytes out;
    int ports[3];

    need_program(AB);
    three_demos(w, ports);
    world_start(w, NULL);
    make_file(w, "content", 3000);
    RUN(w, &out, AB, "-q", "-k", "-n", n, "-c", "20", "-p", "content", url(w, "/echo"));
    expect_text(out.p, "Failed requests:        0\n");
    expect_no_text(out.p, "Non-2xx");
    assert_int_equal(number_behind(out.p, "Document Length:"), 3000);
    assert_int_equal(number_behind(out.p, "HTML transferred:"), atol(n) * 3000);
    bytes_free(&out);
    expect_logged(w, 0, (size_t)atol(n));
    world_finish(w);
}

/* ---- h2load ---- */

/* h2load checks how each answer is framed; -m is how many requests it has under way on a connection: pipelined. */
static void expect_h2load(struct world *w, const char *n, const char *pipelined, const char *path, long length)
{
    size_t mark = daemon_mark(&w->daemon);
    char counts[120];
    struct bytes out;

    RUN(w, &out, H2LOAD, "--h1", "-n", n, "-c", "10", "-m", pipelined, url(w, path));
    snprintf(counts, sizeof counts,
             "requests: %s total, %s started, %s done, %s succeeded, 0 failed, 0 errored, 0 timeout", n, n, n, n);
    expect_text(out.p, counts);
    snprintf(counts, sizeof counts, "status codes: %s 2xx, 0 3xx, 0 4xx, 0 5xx", n);
    expect_text(out.p, counts);
    snprintf(counts, sizeof counts, "(%ld) data", atol(n) * length);
    expect_text(out.p, counts);
    bytes_free(&out);
    expect_logged(w, mark, (size_t)atol(n));
}

static void test_h2load(void **state)
{
    struct world *w = *state;
    int ports[3];

    need_program(H2LOAD);
    three_demos(w, ports);
    world_start(w, NULL);
    expect_h2load(w, count_text(5000), "1", "/bytes/100", 100);
    expect_h2load(w, count_text(5000), "16", "/bytes/100", 100);
    expect_h2load(w, count_text(1000), "4", "/chunked/20000", 20000);
    world_finish(w);
}

/* ---- wrk ---- */

/* The number before " requests in " in what wrk printed. */
static long wrk_count(const char *text)
{
    const char *at = strstr(text, " requests in ");

    CHECK(at, "no count in:\n%s", text);
    while (at > text && at[-1] >= '0' && at[-1] <= '9')
        at--;
    return strtol(at, NULL, 10);
}

static long run_wrk(struct world *w, const char *connections, const char *path)
{
    struct bytes out;
    long count;

    RUN(w, &out, WRK, "-t1", "-c", connections, "-d1s", url(w, path));
    expect_no_text(out.p, "Socket errors");
    expect_no_text(out.p, "Non-2xx");
    count = wrk_count(out.p);
    assert_true(count > 0);
    bytes_free(&out);
    return count;
}

/* wrk leaves with a request under way on each connection, which it does not count and the log does. */
static void test_wrk(void **state)
{
    struct world *w = *state;
    long counted, good, all;

    need_program(WRK);
    need_program(NGINX);
    make_file(w, "small", 200);
    make_file(w, "medium", 100000);
    nginx_backend(w, NULL);
    world_start(w, NULL);
    counted = run_wrk(w, "30", "/small");
    counted += run_wrk(w, "10", "/medium");
    world_stop(w);
    all = (long)daemon_count_events(&w->daemon, 0, "request", NULL);
    good = (long)daemon_count_events(&w->daemon, 0, "request", "status=200 attempts=1");
    CHECK(good >= counted && all <= counted + 40, "wrk counted %ld, the log has %ld, %ld of them good", counted, all,
          good);
    assert_int_equal(daemon_count_events(&w->daemon, 0, "log_dropped", NULL), 0);
    world_finish(w);
}

/* One outage, from its begin until the balancer has seen its end. */
static void break_backend(struct world *w, int port, int number, const char *mode)
{
    size_t mark = daemon_mark(&w->daemon);
    char json[64], match[64];

    snprintf(json, sizeof json, "{\"mode\":\"%s\",\"for\":\"700ms\"}", mode);
    snprintf(match, sizeof match, "backend=backend-%d", number);
    assert_int_equal(http_request(port, "POST", "/_outage", "", json, NULL), 200);
    daemon_expect_event(&w->daemon, mark, "backend_down", match);
    daemon_expect_event(&w->daemon, mark, "backend_up", match);
}

/* Backends fall in turn, refusing and resetting, and return under load: no client sees anything of it. */
static void test_wrk_while_backends_fall(void **state)
{
    struct world *w = *state;
    struct daemon *wrk;
    struct bytes out;
    int ports[3], outages = 0;

    need_program(WRK);
    three_demos(w, ports);
    world_start(w, "\"health_check\": {\"interval\": \"200ms\", \"timeout\": \"1s\", \"fall\": 2, \"rise\": 1}, "
                   "\"log\": {\"format\": \"json\", \"access\": false}");
    wrk =
        world_helper(w, (const char *const[]){WRK, "-t1", "-c32", is_big_run() ? "-d60s" : "-d7s", url(w, "/"), NULL});
    usleep(1000000); /* the retry budget is a share of the requests that there were */
    for (; daemon_is_running(wrk); outages++)
        break_backend(w, ports[outages % 3], outages % 3 + 1, outages % 2 ? "reset" : "refuse");
    assert_int_equal(daemon_wait(wrk), 0);
    out = daemon_stdout(wrk);
    print_message("%d outages\n%s", outages, out.p);
    assert_true(outages >= 3);
    assert_non_null(strstr(out.p, "Requests/sec"));
    assert_null(strstr(out.p, "Socket errors"));
    assert_null(strstr(out.p, "Non-2xx"));
    bytes_free(&out);
    world_finish(w);
}

/* One client on 64 connections at full speed: capacity + rate x T pass, no more, and hardly less. */
static void test_the_bound_under_load(void **state)
{
    struct world *w = *state;
    struct bytes out;
    bool big = is_big_run();

    need_program(WRK);
    world_origin(w, origin_answer_all, NULL, NULL);
    world_start(w, "\"rate_limit\": {\"default\": {\"capacity\": 100, \"rate_per_sec\": 50}}, "
                   "\"log\": {\"format\": \"json\", \"access\": false}");
    uint64_t begun = deadline_in(0);
    RUN(w, &out, WRK, "-t1", "-c64", big ? "-d30s" : "-d4s", url(w, "/"));
    double seconds = (double)(deadline_in(0) - begun) / 1000, passed = origin_requests(w->origins[0]);
    double most = 100 + 50 * (seconds + 0.001), least = 0.99 * (100 + 50 * (big ? 30 : 4));
    print_message("%g passed in %g s\n%s", passed, seconds, out.p);
    CHECK(passed <= most, "%g requests passed in %g s, %g are allowed", passed, seconds, most);
    CHECK(passed >= least, "%g requests passed, not %g", passed, least);
    bytes_free(&out);
    world_finish(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WORLD_TEST(test_ab),
        WORLD_TEST(test_ab_posts),
        WORLD_TEST(test_h2load),
        WORLD_TEST(test_wrk),
        WORLD_TEST(test_wrk_while_backends_fall),
        WORLD_TEST(test_the_bound_under_load),
    };

    software_environment();
    return cmocka_run_group_tests_name("real_load", tests, NULL, NULL);
}
