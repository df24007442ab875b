/* Connections that the balancer ends although their clients still send: those can finish and read their answer, and
 * nobody can use that to take what others need. */
#include "harness/world.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

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

/* ---- idle, for all that the balancer knows ---- */

#define LARGE   20000u /* fits into the kernel's buffer, not into the client's */
#define IDLE_MS 100

static void large_script(struct origin_conn *c)
{
    char *content = malloc(LARGE + 1);
    assert_non_null(content);
    memset(content, 'x', LARGE);
    content[LARGE] = '\0';
    while (origin_read(c) && origin_answer(c, content))
        ;
    free(content);
}

/* A client that is slow to take its response for longer than a connection may be idle, and asks once more: what it has
 * asked comes too late, but does not destroy the response that it is reading. */
static void test_idle_is_not_who_still_takes_its_response(void **state)
{
    struct world *w = *state;
    struct client c;

    world_origin(w, large_script, NULL, NULL);
    world_start(w, "\"timeouts\": {\"client_idle\": \"100ms\"}, \"log\": {\"format\": \"json\"}");
    client_open_narrow(&c, w->port, 2048);
    client_send(&c, "GET /first HTTP/1.1\r\nHost: h\r\n\r\n");
    daemon_expect_event(&w->daemon, 0, "request", "target=/first status=200");
    usleep(3 * IDLE_MS * 1000); /* the time that is over then is what this is about */
    client_send(&c, "GET /second HTTP/1.1\r\nHost: h\r\n\r\n");
    client_expect(&c, 200);
    assert_int_equal(c.response.body.n, LARGE);
    client_expect_end(&c);
    client_close(&c);
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

/* Content that nobody wants, on a connection that stays, has five seconds in all, though it comes steadily, and faster
 * than what is too slow anywhere. */
static void test_steady_content_behind_an_answer_is_ended(void **state)
{
    static char bytes[50];
    struct world *w = *state;
    struct client c;
    bool ended = false;

    world_origin(w, small_script, NULL, NULL);
    world_start(w, NULL);
    client_open(&c, w->port);
    client_send(&c, "POST /clients/nothing HTTP/1.1\r\nHost: h\r\nContent-Length: 60000\r\n\r\n");
    client_expect(&c, 404);
    for (int tick = 0; tick < 250 && !ended; tick++) {
        ended = !client_try_send(&c, bytes, sizeof bytes) || stream_fill(&c.in, now_ms()) != READ_TIMEOUT;
        usleep(100 * 1000);
    }
    CHECK(ended, "it is still waited for");
    client_close(&c);
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

/* Answers before the content has come, the second half when it is told to. */
static void early_script(struct origin_conn *c)
{
    if (!origin_read_head(c) || !origin_send(c, "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf"))
        return;
    origin_hold(c);
    origin_send(c, "half");
    origin_drain(c);
}

/* Nor for the content that is still owed on a connection that was told to stay. */
static void test_a_stop_does_not_wait_long_for_content(void **state)
{
    struct world *w = *state;
    struct client c;

    world_origin(w, early_script, NULL, NULL);
    world_start(w, NULL);
    client_open(&c, w->port);
    client_send(&c, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1000\r\n\r\n0123456789");
    assert_false(message_has_token(client_expect_head(&c, 200), "Connection", "close"));
    daemon_signal(&w->daemon, SIGTERM);
    daemon_expect_event(&w->daemon, 0, "drain", NULL);
    origin_release(w->origins[0]);
    assert_int_equal(client_read_body(&c, NULL, NULL), READ_OK);
    client_expect_end(&c);
    assert_int_equal(daemon_wait(&w->daemon), 0);
    double took = log_number(daemon_expect_event(&w->daemon, 0, "stop", "finished=1 cut=0"), "duration_ms");
    CHECK(took < 5000, "it took %g ms: as long as one that is not hurried", took);
    client_close(&c);
    world_finish(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WORLD_TEST(test_who_writes_first_reads_the_refusal),
        WORLD_TEST(test_idle_is_not_who_still_takes_its_response),
        WORLD_TEST(test_closing_connections_are_counted),
        WORLD_TEST(test_steady_content_behind_an_answer_is_ended),
        WORLD_TEST(test_a_stop_does_not_wait_long_for_content),
        WORLD_TEST(test_a_stop_does_not_wait_long),
    };

    return cmocka_run_group_tests_name("linger", tests, NULL, NULL);
}
