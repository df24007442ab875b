/* A backend that sends content behind a response that has none. */
#include "harness/world.h"

#include <signal.h>
#include <string.h>

/* Answers HEAD, and once it may, sends the content, too. GET is answered as it should be. */
static void script(struct origin_conn *c)
{
    while (origin_read(c)) {
        bool head = strcmp(c->request.method, "HEAD") == 0;

        if (!origin_answer(c, "content"))
            return;
        if (!head)
            continue;
        origin_hold(c);
        origin_send(c, "content");
    }
}

static void ask(struct client *c, const char *method)
{
    client_sendf(c, "%s / HTTP/1.1\r\nHost: h\r\n\r\n", method);
    if (strcmp(method, "HEAD") == 0)
        client_expect_head_response(c, 200);
    else
        client_expect(c, 200);
}

/* It is told of, and from then on nothing is kept that it may come on, but all else is. */
static void test_content_behind_head(void **state)
{
    struct world *w = *state;
    struct client c;

    struct origin *o = world_origin(w, script, NULL, NULL);
    world_start(w, NULL);
    client_open(&c, w->port);
    ask(&c, "HEAD");
    assert_int_equal(daemon_count_events(&w->daemon, 0, "backend_stray_bytes", NULL), 0);
    origin_release(o);
    daemon_expect_event(&w->daemon, 0, "backend_stray_bytes", "level=warn backend=b1 connections=1");
    for (unsigned i = 0; i < 3; i++) {
        ask(&c, "HEAD");
        assert_int_equal(origin_connections(o), 2 + i);
    }
    for (unsigned i = 0; i < 3; i++) {
        ask(&c, "GET");
        assert_int_equal(origin_connections(o), 5);
    }
    client_close(&c);
    world_finish(w);
}

/* Every response has a byte too many. */
static void generous_script(struct origin_conn *c)
{
    while (origin_read(c) && origin_send(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok!"))
        ;
}

/* What is still to be told at the stop comes before the last line, and before the backend's totals. */
static void test_told_before_stop(void **state)
{
    struct world *w = *state;
    struct client c;

    world_origin(w, generous_script, NULL, NULL);
    world_start(w, NULL);
    client_open(&c, w->port);
    for (int i = 0; i < 3; i++)
        ask(&c, "GET");
    client_close(&c);
    daemon_signal(&w->daemon, SIGTERM);
    assert_int_equal(daemon_wait(&w->daemon), 0);
    daemon_expect_event(&w->daemon, 0, "stop", NULL);
    size_t n = daemon_mark(&w->daemon);
    assert_string_equal(log_field(w->daemon.lines[n - 1], "event"), "stop");
    assert_string_equal(log_field(w->daemon.lines[n - 4], "event"), "backend_stray_bytes");
    assert_string_equal(log_field(w->daemon.lines[n - 4], "connections"), "2");
    world_finish(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WORLD_TEST(test_content_behind_head),
        WORLD_TEST(test_told_before_stop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
