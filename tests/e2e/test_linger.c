/* Connections that the balancer ends although their clients still send: those can finish and read their answer, and
 * nobody can use that to take what others need. */
#include "harness/world.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>

#define MIB         (1024u * 1024u)
#define CONNECTIONS 10
#define FLOOD       40

static void small_script(struct origin_conn *c)
{
    while (origin_read(c) && origin_answer(c, "ok"))
        ;
}

/* As many clients do, it writes all and reads then. */
static void expect_refused(struct world *w, const char *target, int status)
{
    const size_t n = 8 * MIB;
    char *content = calloc(1, n);
    struct client c;

    assert_non_null(content);
    client_open(&c, w->port);
    client_sendf(&c, "POST %s HTTP/1.1\r\nHost: h\r\nContent-Length: %zu\r\n\r\n", target, n);
    client_send_bytes(&c, content, n);
    client_expect(&c, status);
    client_expect_end(&c);
    client_close(&c);
    free(content);
}

static void test_who_writes_first_reads_the_refusal(void **state)
{
    struct world *w = *state;

    world_origin(w, small_script, NULL, NULL);
    world_start(w, "\"limits\": {\"body_bytes\": \"50KiB\"}");
    expect_refused(w, "/", 413);
    expect_refused(w, "/clients/nothing", 404);
    world_finish(w);
}

/* Answers at once, in the way that the target says, and then takes what comes; the mode counts what it got whole. */
static void early_script(struct origin_conn *c)
{
    while (origin_read_head(c)) {
        bool close = strcmp(c->request.target, "/close") == 0;
        if (!origin_send(c, "HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno") || close)
            return;
        if (!origin_read_body(c, NULL, NULL))
            return;
        origin_set_mode(c->origin, origin_mode(c) + 1);
    }
}

/* A backend that answers before the upload has ended gets the rest of it, if it wants that, and the client can write to
 * its end and read then. */
static void test_uploads_go_on_behind_the_answer(void **state)
{
    struct world *w = *state;
    struct origin *o = world_origin(w, early_script, NULL, NULL);
    struct client c;

    world_start(w, NULL);
    expect_refused(w, "/", 401);
    origin_wait_mode(o, 1);
    expect_refused(w, "/close", 401);
    client_open(&c, w->port);
    for (int i = 2; i <= 3;
         i++) { /* small ones, and in chunks: the client's connection stays, the backend's does not */
        client_sendf(&c, "POST / HTTP/1.1\r\nHost: h\r\n%s\r\n\r\n",
                     i == 2 ? "Content-Length: 6" : "Transfer-Encoding: chunked");
        client_expect(&c, 401);
        client_expect_silence(&c, 50);
        client_send(&c, i == 2 ? "abcdef" : "6\r\nabcdef\r\n0\r\n\r\n");
        origin_wait_mode(o, i);
    }
    client_send(&c, "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    client_expect(&c, 401);
    client_close(&c);
    assert_int_equal(origin_connections(o), 5);
    assert_int_equal(daemon_count_events(&w->daemon, 0, "request", "reason=*"), 0);
    world_finish(w);
}

/* What ends an upload behind its answer: the client, by its silence too, and what is too much. */
static void test_uploads_behind_the_answer_end(void **state)
{
    static const char *const more[] = {"", "zz\r\n", "FFFF\r\n"};
    struct world *w = *state;
    struct origin *o = world_origin(w, early_script, NULL, NULL);
    struct client c;

    world_start(w, "\"timeouts\": {\"client_body\": \"300ms\"}, "
                   "\"limits\": {\"body_bytes\": 1000}");
    for (unsigned i = 0; i < 4; i++) {
        char big[2000];
        size_t mark = daemon_mark(&w->daemon);
        client_open(&c, w->port);
        client_send(&c, "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n");
        client_expect(&c, 401);
        if (i < 3)
            client_send(&c, more[i]);
        if (i == 0)
            client_half_close(&c);
        memset(big, 'x', sizeof big);
        if (i == 2)
            client_send_bytes(&c, big, sizeof big);
        origin_wait_closed(o);
        if (i == 2) /* the rest is thrown away, in vain */
            client_half_close(&c);
        client_expect_end(&c);
        client_close(&c);
        daemon_expect_event(&w->daemon, mark, "request", i == 2 ? "status=401 reason=body_too_large" : "status=401");
    }
    assert_int_equal(daemon_count_events(&w->daemon, 0, "request", "reason=*"), 1);
    origin_wait_mode(o, 0);
    world_finish(w);
}

/* Has its answer and the end of the connection, and just does not close it. */
static void open_and_be_refused(struct client *c, int port)
{
    client_open(c, port);
    client_send(c, "nonsense\r\n\r\n");
    client_expect(c, 400);
}

static void close_all(struct client *c, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        client_close(&c[i]);
}

/* They count like any other, and make room for those that are to be served. */
static void test_closing_connections_are_counted(void **state)
{
    static const char *const limits[] = {"\"limits\": {\"connections\": 10}",
                                         "\"limits\": {\"connections\": 1000, \"connections_per_client\": 10}"};
    struct world *w = *state;

    world_origin(w, small_script, NULL, NULL);
    for (unsigned way = 0; way < 2; way++) {
        static struct client closing[FLOOD], idle[CONNECTIONS];
        struct client more;

        world_start(w, limits[way]);
        int fds = proc_fds(w->daemon.pid);
        for (unsigned i = 0; i < FLOOD; i++) {
            open_and_be_refused(&closing[i], w->port);
            int now = proc_fds(w->daemon.pid);
            CHECK(now <= fds + CONNECTIONS, "%d descriptors", now - fds);
        }
        for (unsigned i = 0; i < CONNECTIONS; i++) {
            client_open(&idle[i], w->port);
            client_send(&idle[i], "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
            client_expect(&idle[i], 200);
        }
        client_open(&more, w->port);
        client_expect(&more, 503);
        client_close(&more);
        close_all(idle, CONNECTIONS);
        close_all(closing, FLOOD);
        world_stop(w);
    }
    world_finish(w);
}

/* A stop waits for them a second at most. */
static void test_a_stop_does_not_wait_long(void **state)
{
    struct world *w = *state;
    struct client closing;

    world_origin(w, small_script, NULL, NULL);
    world_start(w, NULL);
    open_and_be_refused(&closing, w->port);
    uint64_t since = now_ms();
    world_stop(w);
    CHECK(is_instrumented() || now_ms() - since < 3000, "it took %d ms", (int)(now_ms() - since));
    client_close(&closing);
    world_finish(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WORLD_TEST(test_who_writes_first_reads_the_refusal), WORLD_TEST(test_uploads_go_on_behind_the_answer),
        WORLD_TEST(test_uploads_behind_the_answer_end),      WORLD_TEST(test_closing_connections_are_counted),
        WORLD_TEST(test_a_stop_does_not_wait_long),
    };

    return cmocka_run_group_tests_name("linger", tests, NULL, NULL);
}
