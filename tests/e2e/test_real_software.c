/* With the programs that people use: curl, nginx, wrk, ab. A test is skipped where its program is missing. */
#include "harness/world.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define CURL  "/usr/bin/curl"
#define NGINX "/usr/sbin/nginx"
#define WRK   "/usr/bin/wrk"
#define AB    "/usr/bin/ab"

static void three_demos(struct world *w, int ports[3])
{
    for (int i = 0; i < 3; i++) {
        char name[24], address[32], member[40];

        snprintf(name, sizeof name, "backend-%d", i + 1);
        ports[i] = world_demo(w, name, NULL);
        snprintf(address, sizeof address, "127.0.0.1:%d", ports[i]);
        snprintf(member, sizeof member, "\"name\": \"%s\"", name);
        world_backend(w, address, member);
    }
}

static const char *url(const struct world *w, const char *path)
{
    static char text[4][200];
    static unsigned next;
    char *out = text[next++ % 4];

    snprintf(out, sizeof text[0], "http://127.0.0.1:%d%s", w->port, path);
    return out;
}

static void run_ok(struct world *w, const char *const argv[], int seconds, struct bytes *out)
{
    int status = world_run(w, argv, seconds, out);

    CHECK(status == 0, "%s ended with %d", argv[0], status);
}

#define RUN(w, out, ...) run_ok(w, (const char *const[]){__VA_ARGS__, NULL}, 60, out)

static void make_file(const char *path, size_t size)
{
    FILE *f = fopen(path, "we");
    static char piece[65536];

    CHECK(f, "cannot write %s", path);
    for (size_t at = 0; at < size; at += sizeof piece) {
        pattern_fill(piece, sizeof piece, at);
        fwrite(piece, 1, sizeof piece, f);
    }
    assert_int_equal(fclose(f), 0);
}

static void expect_same_files(const char *a, const char *b)
{
    struct bytes first = file_content(a), second = file_content(b);

    assert_true(first.n > 0);
    assert_int_equal(first.n, second.n);
    assert_memory_equal(first.p, second.p, first.n);
    bytes_free(&first);
    bytes_free(&second);
}

static void test_curl(void **state)
{
    struct world *w = *state;
    struct bytes out;
    char data[300];
    int ports[3];

    need_program(CURL);
    three_demos(w, ports);
    world_start(w, NULL);
    make_file(world_path(w, "up"), 8u << 20);
    snprintf(data, sizeof data, "@%s", world_path(w, "up"));
    RUN(w, &out, CURL, "-sf", url(w, "/hello"));
    assert_non_null(strstr(out.p, "\"target\":\"/hello\""));
    bytes_free(&out);
    RUN(w, &out, CURL, "-sfI", url(w, "/hello"));
    assert_true(strncmp(out.p, "HTTP/1.1 200 OK\r\n", 17) == 0);
    bytes_free(&out);
    RUN(w, NULL, CURL, "-sf", "--data-binary", data, "-o", "down", url(w, "/echo"));
    expect_same_files(world_path(w, "up"), world_path(w, "down"));
    RUN(w, NULL, CURL, "-sf", "-H", "Transfer-Encoding: chunked", "--data-binary", data, "-o", "down2",
        url(w, "/echo"));
    expect_same_files(world_path(w, "up"), world_path(w, "down2"));
    RUN(w, NULL, CURL, "-sf", "--http1.0", "-o", "down3", url(w, "/chunked/1000000"));
    RUN(w, NULL, CURL, "-sf", "-o", "down4", url(w, "/bytes/1000000"));
    expect_same_files(world_path(w, "down3"), world_path(w, "down4"));
    RUN(w, NULL, CURL, "-sf", "-Z", "-o", "p1", "-o", "p2", "-o", "p3", url(w, "/bytes/100000"),
        url(w, "/chunked/100000"), url(w, "/bytes/100000"));
    expect_same_files(world_path(w, "p1"), world_path(w, "p2"));
    expect_same_files(world_path(w, "p1"), world_path(w, "p3"));
    world_finish(w);
}

static void start_nginx(struct world *w)
{
    int port = port_reserve();
    char text[1200], address[32], conf[250];
    const char *const argv[] = {NGINX, "-p", w->dir, "-c", conf, "-e", "nginx-error.log", NULL};

    snprintf(conf, sizeof conf, "%s", world_path(w, "nginx.conf"));
    snprintf(text, sizeof text,
             "daemon off; master_process off; pid nginx.pid; worker_processes 1;\n"
             "events { worker_connections 1024; }\n"
             "http { access_log off; root %s; client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path f;\n"
             "uwsgi_temp_path u; scgi_temp_path s; gzip on; gzip_min_length 1; gzip_types text/plain; default_type "
             "text/plain;\n"
             "server { listen 127.0.0.1:%d; location = /health { return 200; } } }\n",
             w->dir, port);
    file_put(conf, text);
    world_helper(w, argv);
    wait_for_port(port);
    snprintf(address, sizeof address, "127.0.0.1:%d", port);
    world_backend(w, address, "\"name\": \"nginx\"");
}

static void test_nginx_as_a_backend(void **state)
{
    struct world *w = *state;
    struct bytes out;

    need_program(CURL);
    need_program(NGINX);
    make_file(world_path(w, "large"), 4u << 20);
    file_put(world_path(w, "page.txt"), "what nginx serves, what nginx serves, what nginx serves\n");
    start_nginx(w);
    world_start(w, "\"health_check\": {\"interval\": \"100ms\"}");
    RUN(w, NULL, CURL, "-sf", "-o", "got", url(w, "/large"));
    expect_same_files(world_path(w, "large"), world_path(w, "got"));
    RUN(w, NULL, CURL, "-sf", "--compressed", "-o", "got.txt", url(w, "/page.txt")); /* chunked, by nginx' gzip */
    expect_same_files(world_path(w, "page.txt"), world_path(w, "got.txt"));
    RUN(w, &out, CURL, "-sf", "-r", "100-199", "-o", "/dev/null", "-w", "%{http_code} %{size_download}",
        url(w, "/large"));
    assert_string_equal(out.p, "206 100");
    bytes_free(&out);
    RUN(w, &out, CURL, "-s", "-o", "/dev/null", "-w", "%{http_code}", url(w, "/absent"));
    assert_string_equal(out.p, "404");
    bytes_free(&out);
    assert_int_equal(daemon_count_events(&w->daemon, 0, "backend_down", NULL), 0);
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

static void expect_ab(struct world *w, const char *const argv[])
{
    struct bytes out;

    run_ok(w, argv, 60, &out);
    CHECK(strstr(out.p, "Failed requests:        0\n"), "%s", out.p);
    CHECK(!strstr(out.p, "Non-2xx"), "%s", out.p);
    bytes_free(&out);
}

static void test_ab(void **state)
{
    struct world *w = *state;
    int ports[3];

    need_program(AB);
    three_demos(w, ports);
    world_start(w, NULL);
    expect_ab(w, (const char *const[]){AB, "-q", "-n", "2000", "-c", "20", url(w, "/bytes/100"), NULL});
    expect_ab(w, (const char *const[]){AB, "-q", "-k", "-n", "5000", "-c", "20", url(w, "/bytes/100"), NULL});
    world_finish(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WORLD_TEST(test_curl),
        WORLD_TEST(test_nginx_as_a_backend),
        WORLD_TEST(test_wrk_while_backends_fall),
        WORLD_TEST(test_ab),
    };

    return cmocka_run_group_tests_name("real_software", tests, NULL, NULL);
}
