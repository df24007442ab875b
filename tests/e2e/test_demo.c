/* The demo backend on its own: what it shows, and its outages. */
#include "harness/world.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

static int start(struct world *w, const char *const options[])
{
    return world_demo(w, "backend-1", options);
}

/* Ends it as a container would. */
static void finish(struct world *w)
{
    daemon_signal(&w->helpers[0], SIGTERM);
    assert_int_equal(daemon_wait(&w->helpers[0]), 0);
    daemon_expect_clean_stderr(&w->helpers[0]);
    world_finish(w);
}

static void test_shows_requests(void **state)
{
    struct world *w = *state;
    struct client c;
    int port = start(w, NULL);

    client_open(&c, port);
    client_send(&c, "PUT /a?b=\"c\" HTTP/1.1\r\nHost: h\r\nX-A:  1\r\nx-a: \"2\"\r\nContent-Length: 3\r\n\r\nabc");
    client_expect(&c, 200);
    assert_string_equal(c.response.body.p,
                        "{\"backend\":\"backend-1\",\"method\":\"PUT\",\"target\":\"/a?b=\\\"c\\\"\","
                        "\"fields\":[\"Host: h\",\"X-A: 1\",\"x-a: \\\"2\\\"\",\"Content-Length: 3\"],"
                        "\"body_bytes\":3,\"served\":1}\n");
    client_send(&c, "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
                    "GET /health HTTP/1.1\r\nHost: h\r\n\r\nHEAD / HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_non_null(strstr(client_expect(&c, 200)->body.p, "\"body_bytes\":5,\"served\":2}"));
    assert_string_equal(client_expect(&c, 200)->body.p, "{\"status\":\"ok\"}\n");
    client_expect_head_response(&c, 200);
    client_send(&c, "GET /status/404 HTTP/1.1\r\nHost: h\r\n\r\n");
    client_expect(&c, 404);
    client_send(&c, "bad\r\n\r\n");
    client_expect(&c, 400);
    client_expect_end(&c);
    client_close(&c);
    finish(w);
}

static void test_expect_continue(void **state)
{
    struct world *w = *state;
    struct client c;

    client_open(&c, start(w, NULL));
    client_send(&c, "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n");
    uint64_t deadline = deadline_in(patience_ms());
    while (!strstr(c.in.in.p, "\r\n\r\n"))
        assert_int_equal(stream_fill(&c.in, deadline), READ_OK);
    client_send(&c, "hello");
    assert_string_equal(client_expect(&c, 200)->body.p, "hello");
    assert_int_equal(c.response.interim_count, 1);
    client_close(&c);
    finish(w);
}

static void test_serves_bytes(void **state)
{
    struct world *w = *state;
    struct client c;

    client_open(&c, start(w, NULL));
    client_send(&c, "GET /bytes/1000000 HTTP/1.1\r\nHost: h\r\n\r\nGET /chunked/1000000 HTTP/1.1\r\nHost: h\r\n\r\n");
    for (int i = 0; i < 2; i++) {
        const struct message *r = client_expect(&c, 200);

        assert_int_equal(r->body_kind, i == 0 ? BODY_LENGTH : BODY_CHUNKED);
        assert_int_equal(r->body.n, 1000000);
        for (size_t k = 0; k < r->body.n; k++)
            assert_true(r->body.p[k] == (char)('!' + k % 89));
    }
    client_close(&c);
    finish(w);
}

static void test_delay(void **state)
{
    struct world *w = *state;
    int port = start(w, (const char *const[]){"--delay", "100ms", NULL});
    uint64_t begun = now_ms();

    assert_int_equal(http_get(port, "/", NULL), 200);
    assert_true(now_ms() - begun >= 99u);
    finish(w);
}

static void begin_outage(int port, const char *mode, const char *ms)
{
    char json[100];

    snprintf(json, sizeof json, "{\"mode\":\"%s\",\"for\":\"%s\"}", mode, ms);
    assert_int_equal(http_request(port, "POST", "/_outage", "", json, NULL), 200);
}

static void test_refuse(void **state)
{
    struct world *w = *state;
    struct client c;
    int port = start(w, NULL);

    client_open(&c, port);
    client_send(&c, "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    client_expect(&c, 200);
    begin_outage(port, "refuse", "300ms");
    assert_false(client_can_connect(port));
    assert_int_equal(stream_fill(&c.in, deadline_in(patience_ms())), READ_RESET);
    client_close(&c);
    wait_for_port(port);
    assert_int_equal(http_get(port, "/", NULL), 200);
    finish(w);
}

static void test_500(void **state)
{
    struct world *w = *state;
    int port = start(w, NULL);

    begin_outage(port, "500", "60s");
    assert_int_equal(http_get(port, "/health", NULL), 503);
    assert_int_equal(http_get(port, "/", NULL), 500);
    assert_int_equal(http_request(port, "POST", "/_outage", "", "{\"mode\":\"none\"}", NULL), 200);
    assert_int_equal(http_get(port, "/health", NULL), 200);
    finish(w);
}

static void test_hang(void **state)
{
    struct world *w = *state;
    struct client c;
    int port = start(w, NULL);

    begin_outage(port, "hang", "400ms");
    client_open(&c, port);
    client_send(&c, "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    client_expect_silence(&c, 100);
    client_expect(&c, 200); /* when it is over, it goes on */
    client_close(&c);
    finish(w);
}

static void test_reset(void **state)
{
    struct world *w = *state;
    struct client c;
    int port = start(w, NULL);

    begin_outage(port, "reset", "300ms");
    client_open(&c, port);
    client_send(&c, "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_int_equal(stream_fill(&c.in, deadline_in(patience_ms())), READ_RESET);
    client_close(&c);
    finish(w);
}

/* A request whole, its connection reset instead of an answer; /health too, unless it is to be spared. */
static void test_drop(void **state)
{
    struct world *w = *state;
    struct client c;
    int port = start(w, NULL);

    begin_outage(port, "drop", "60s");
    client_open(&c, port);
    client_send(&c, "GET /health HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_int_equal(client_read(&c, false), READ_RESET);
    client_close(&c);
    assert_int_equal(
        http_request(port, "POST", "/_outage", "", "{\"mode\":\"drop\",\"for\":\"60s\",\"health\":\"ok\"}", NULL), 200);
    assert_int_equal(http_get(port, "/health", NULL), 200);
    client_open(&c, port);
    client_send(&c, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nx");
    assert_int_equal(client_read(&c, false), READ_RESET);
    client_close(&c);
    finish(w);
}

static void test_cut(void **state)
{
    static const char *const targets[] = {"/", "/bytes/1000", "/chunked/1000", "/bytes/1000"};
    struct world *w = *state;
    struct client c;
    int port = start(w, NULL);

    begin_outage(port, "cut", "60s");
    for (size_t i = 0; i < 4; i++) {
        client_open(&c, port);
        client_sendf(&c, "GET %s HTTP/1.1\r\nHost: h\r\n\r\n", targets[i]);
        assert_int_equal(client_read(&c, false), i % 2 == 0 ? READ_RESET : READ_CUT);
        assert_int_equal(c.response.status, 200);
        client_close(&c);
    }
    assert_int_equal(http_get(port, "/health", NULL), 200);
    finish(w);
}

static void test_bad(void **state)
{
    struct world *w = *state;
    struct client c;
    int port = start(w, NULL);

    begin_outage(port, "bad", "60s");
    for (size_t i = 0; i < 4; i++) {
        client_open(&c, port);
        client_send(&c, "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
        assert_int_equal(client_read(&c, false), READ_MALFORMED);
        client_close(&c);
    }
    finish(w);
}

static void test_reuse(void **state)
{
    struct world *w = *state;
    struct client c;
    int port = start(w, NULL);

    begin_outage(port, "reuse", "60s");
    client_open(&c, port);
    client_send(&c, "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    client_expect(&c, 200);
    client_expect_silence(&c, 20);
    client_send(&c, "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_int_equal(client_read(&c, false), READ_RESET);
    client_close(&c);
    finish(w);
}

static void test_slow_and_sick(void **state)
{
    struct world *w = *state;
    uint64_t begun;
    int port = start(w, NULL);

    begin_outage(port, "slow", "60s");
    begun = now_ms();
    assert_int_equal(http_get(port, "/", NULL), 200);
    assert_true(now_ms() - begun >= 499u);
    begin_outage(port, "sick", "60s");
    assert_int_equal(http_get(port, "/", NULL), 200);
    assert_int_equal(http_get(port, "/health", NULL), 503);
    finish(w);
}

static void test_ledger(void **state)
{
    struct world *w = *state;
    int port = start(w, (const char *const[]){"--ledger", "posts", NULL});
    struct bytes lines;

    assert_int_equal(http_request(port, "POST", "/", "X-Request-ID: a-1\r\n", "x", NULL), 200);
    assert_int_equal(http_request(port, "PUT", "/", "X-Request-ID: a-2\r\n", "x", NULL), 200);
    assert_int_equal(http_request(port, "POST", "/echo", "X-Request-ID: a-3\r\n", "x", NULL), 200);
    daemon_kill(&w->helpers[0]);
    lines = file_content(world_path(w, "posts"));
    assert_string_equal(lines.p, "a-1\na-3\n");
    bytes_free(&lines);
    world_finish(w);
}

static void test_scheduled_outages(void **state)
{
    struct world *w = *state;
    uint64_t deadline = deadline_in(patience_ms());
    int port = start(w, (const char *const[]){"--outage-every", "400ms", "--outage-for", "200ms", "--outage-mode",
                                              "500", "--outage-offset", "100ms", NULL});

    for (int want = 503; want != 0; want = want == 503 ? 200 : 0)
        while (http_get(port, "/health", NULL) != want && left_ms(deadline) > 0)
            rest();
    while (http_get(port, "/health", NULL) != 503 && left_ms(deadline) > 0)
        rest();
    assert_true(left_ms(deadline) > 0);
    finish(w);
}

static void test_bad_outage_requests(void **state)
{
    static const char *const bodies[] = {"",
                                         "x",
                                         "[]",
                                         "{}",
                                         "{\"mode\":\"refuse\"}",
                                         "{\"mode\":\"odd\",\"for\":\"1s\"}",
                                         "{\"mode\":\"hang\",\"for\":\"1\"}",
                                         "{\"mode\":\"drop\",\"for\":\"1s\",\"health\":\"bad\"}",
                                         "{\"mode\":\"hang\",\"for\":\"0s\"}"};
    struct world *w = *state;
    int port = start(w, NULL);

    for (size_t i = 0; i < sizeof bodies / sizeof *bodies; i++)
        assert_int_equal(http_request(port, "POST", "/_outage", "", bodies[i], NULL), 400);
    assert_int_equal(http_get(port, "/health", NULL), 200);
    finish(w);
}

#define USAGE(w, ...)                                                                                                  \
    daemon_run(&(w)->daemon, (w)->dir, "usage", (const char *const[]){"demo-backend", __VA_ARGS__, NULL})

static void test_usage(void **state)
{
    struct world *w = *state;
    char taken[32];

    assert_int_equal(USAGE(w, "-h"), 0);
    assert_int_equal(USAGE(w, "--name", "x"), 2);
    assert_int_equal(USAGE(w, "--listen", "nonsense"), 2);
    assert_int_equal(USAGE(w, "--listen", ":9001", "--delay", "5"), 2);
    assert_int_equal(USAGE(w, "--listen", ":9001", "--outage-mode", "odd"), 2);
    assert_int_equal(USAGE(w, "--listen", ":9001", "--outage-for", "1s"), 2);
    assert_int_equal(USAGE(w, "--listen", ":9001", "--outage-every", "1s", "--outage-for", "1s"), 2);
    assert_int_equal(USAGE(w, "--listen", ":9001", "--name", "a b"), 2);
    assert_int_equal(USAGE(w, "--listen", ":9001", "stray"), 2);
    assert_int_equal(USAGE(w, "--unknown"), 2);
    snprintf(taken, sizeof taken, "127.0.0.1:%d", start(w, NULL));
    assert_int_equal(USAGE(w, "--listen", taken), 1);
    finish(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WORLD_TEST(test_shows_requests),
        WORLD_TEST(test_expect_continue),
        WORLD_TEST(test_serves_bytes),
        WORLD_TEST(test_delay),
        WORLD_TEST(test_refuse),
        WORLD_TEST(test_500),
        WORLD_TEST(test_hang),
        WORLD_TEST(test_reset),
        WORLD_TEST(test_drop),
        WORLD_TEST(test_cut),
        WORLD_TEST(test_bad),
        WORLD_TEST(test_reuse),
        WORLD_TEST(test_slow_and_sick),
        WORLD_TEST(test_ledger),
        WORLD_TEST(test_scheduled_outages),
        WORLD_TEST(test_bad_outage_requests),
        WORLD_TEST(test_usage),
    };

    return cmocka_run_group_tests_name("demo", tests, NULL, NULL);
}
