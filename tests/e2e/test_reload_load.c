/* Reloads under load: nothing fails, whatever is under way, and nothing grows. */
#include "harness/world.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#define RELOADS 100
#define CLIENTS 16
#define UPLOAD  (4u * RELOADS * 1000u)

static void count(void *arg, const void *p, size_t n)
{
    (void)p;
    *(uint64_t *)arg += n;
}

static void echo(struct origin_conn *c)
{
    for (;;) {
        if (c->in.in.n > 0) {
            bool ok = origin_send_bytes(c, c->in.in.p, c->in.in.n);
            bytes_drop(&c->in.in, c->in.in.n);
            if (!ok)
                return;
        } else if (stream_fill(&c->in, deadline_in(patience_ms())) != READ_OK) {
            return;
        }
    }
}

/* Answers with its name after up to 3 ms; an upload with its size; echoes behind an upgrade. */
static void script(struct origin_conn *c)
{
    while (origin_read_head(c)) {
        uint64_t size = 0;

        if (strcmp(c->request.target, "/tunnel") == 0) {
            if (origin_send(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n"))
                echo(c);
            return;
        }
        if (!origin_read_body(c, count, &size))
            return;
        if (size == 0)
            origin_pause(c, (int)(origin_requests(c->origin) % 4));
        char text[64];
        if (size)
            snprintf(text, sizeof text, "%llu", (unsigned long long)size);
        else
            snprintf(text, sizeof text, "%s", origin_name(c->origin));
        if (!origin_answer(c, text))
            return;
    }
}

/* A client that asks all the time on one connection. */
struct asker {
    pthread_t thread;
    int port;
    unsigned answered, failed;
    char what[64];
    atomic_bool *stop;
};

static void *ask_all_the_time(void *arg)
{
    struct asker *a = arg;
    struct client c = {0};
    static const char request[] = "GET / HTTP/1.1\r\nHost: h\r\n\r\n";

    if (!client_try_open(&c, a->port)) {
        a->failed++;
        return NULL;
    }
    while (!*a->stop && !a->failed) {
        enum read_result r = READ_CUT;
        if (client_try_send(&c, request, sizeof request - 1))
            r = client_read(&c, false);
        bool ok = r == READ_OK && c.response.status == 200;
        a->answered += ok;
        a->failed += !ok;
        if (!ok)
            snprintf(a->what, sizeof a->what, "%s, status %d", read_result_name(r), c.response.status);
    }
    client_close(&c);
    return NULL;
}

/* What is different from one reload to the next. */
static void write_config(struct world *w, int i)
{
    char extra[512];
    unsigned present = i % 3 == 2 ? 2 : 3;

    w->backends[0] = '\0';
    for (unsigned b = 0; b < present; b++) {
        unsigned which = i % 2 ? present - 1 - b : b;
        char address[32], members[64];
        snprintf(address, sizeof address, "127.0.0.1:%d", origin_port(w->origins[which]));
        snprintf(members, sizeof members, "\"name\": \"b%u\", \"weight\": %u", which + 1, 1 + ((unsigned)i + b) % 3);
        world_backend(w, address, members);
    }
    snprintf(extra, sizeof extra,
             "\"balance\": \"%s\", \"timeouts\": {\"client_idle\": \"%ds\", \"backend_idle\": \"%ds\"}, "
             "\"limits\": {\"header_fields\": %d}, \"queue\": {\"size\": %d}, "
             "\"rate_limit\": {\"default\": {\"capacity\": %d, \"rate_per_sec\": 1000000}}, "
             "\"log\": {\"format\": \"json\", \"access\": false}",
             i % 4 == 3 ? "least_conn" : "round_robin", 50 + i % 7, 50 + i % 5, 50 + 10 * (i % 5), 10 + i, 900000 + i);
    world_config(w, extra);
}

static void reload(struct world *w, int i)
{
    size_t mark = daemon_mark(&w->daemon);

    write_config(w, i);
    daemon_signal(&w->daemon, SIGHUP);
    daemon_expect_event(&w->daemon, mark, "reload", NULL);
}

static void ping(struct client *tunnel, int i)
{
    char text[32];
    int n = snprintf(text, sizeof text, "<%d>", i);

    client_send_bytes(tunnel, text, (size_t)n);
    while (tunnel->in.in.n < (size_t)n)
        CHECK(stream_fill(&tunnel->in, deadline_in(patience_ms())) == READ_OK, "the tunnel is cut");
    assert_memory_equal(tunnel->in.in.p, text, (size_t)n);
    bytes_drop(&tunnel->in.in, (size_t)n);
}

static void test_nothing_fails(void **state)
{
    struct world *w = *state;
    struct asker askers[CLIENTS];
    struct client upload, tunnel;
    atomic_bool stop = false;
    char piece[UPLOAD / RELOADS], text[32];
    unsigned answered = 0;

    memset(piece, 'x', sizeof piece);
    for (int i = 0; i < 3; i++)
        world_origin(w, script, NULL, NULL);
    write_config(w, 0);
    world_restart(w);
    client_open(&tunnel, w->port);
    client_send(&tunnel, "GET /tunnel HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n");
    client_expect_head(&tunnel, 101);
    client_open(&upload, w->port);
    client_sendf(&upload, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: %u\r\n\r\n", UPLOAD);
    for (int i = 0; i < CLIENTS; i++) {
        askers[i] = (struct asker){.port = w->port, .stop = &stop};
        assert_int_equal(pthread_create(&askers[i].thread, NULL, ask_all_the_time, &askers[i]), 0);
    }
    for (int i = 1; i <= RELOADS; i++) {
        reload(w, i);
        client_send_bytes(&upload, piece, sizeof piece);
        ping(&tunnel, i);
    }
    stop = true;
    for (int i = 0; i < CLIENTS; i++) {
        pthread_join(askers[i].thread, NULL);
        CHECK(askers[i].failed == 0, "client %d after %u answers: %s", i, askers[i].answered, askers[i].what);
        answered += askers[i].answered;
    }
    snprintf(text, sizeof text, "%u", UPLOAD);
    assert_string_equal(client_expect(&upload, 200)->body.p, text);
    assert_int_equal(daemon_count_events(&w->daemon, 0, "retry", NULL), 0);
    print_message("%u requests were answered during %d reloads\n", answered, RELOADS);
    client_close(&upload);
    client_close(&tunnel);
    world_finish(w);
}

static void some_requests(struct world *w)
{
    struct client c;

    client_open(&c, w->port);
    for (int i = 0; i < 6; i++) {
        client_send(&c, "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
        client_expect(&c, 200);
    }
    client_close(&c);
}

static void test_nothing_grows(void **state)
{
    struct world *w = *state;
    int reloads = is_instrumented() ? 200 : 1000;

    for (int i = 0; i < 3; i++)
        world_origin(w, script, NULL, NULL);
    write_config(w, 0);
    world_restart(w);
    for (int i = 1; i <= 60; i++) {
        reload(w, i);
        some_requests(w);
    }
    long before = proc_kib(w->daemon.pid, "VmRSS");
    int fds = 0;
    for (int i = 61; i <= 60 + reloads; i++) {
        reload(w, i);
        if (i % 20 == 0)
            some_requests(w);
        if (i == 120)
            fds = proc_fds(w->daemon.pid);
    }
    some_requests(w);
    long after = proc_kib(w->daemon.pid, "VmRSS");
    print_message("%d reloads: %ld KiB before, %ld KiB after\n", reloads, before, after);
    CHECK(is_instrumented() || after - before < 512, "from %ld KiB to %ld KiB", before, after);
    /* At most a connection to each backend more or less. */
    CHECK(abs(proc_fds(w->daemon.pid) - fds) <= 3, "%d descriptors, then %d", fds, proc_fds(w->daemon.pid));
    world_finish(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WORLD_TEST(test_nothing_fails),
        WORLD_TEST(test_nothing_grows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
