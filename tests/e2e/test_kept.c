/* Kept connections to backends, where the daemon has few descriptors: those that are idle never cost a request or a
 * client one. */
#include "harness/world.h"

#include <stdio.h>
#include <string.h>

#define POST "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\ndata"

/* Closes a connection on its second request, if that is for /stale. */
static void stale_script(struct origin_conn *c)
{
    for (unsigned n = 0; origin_read(c) && (n == 0 || strcmp(c->request.target, "/stale") != 0); n++)
        if (!origin_answer(c, "ok"))
            return;
}

/* Starts the daemon with so many descriptors. */
static void start_with(struct world *w, unsigned descriptors, const char *extra)
{
    char program[300], command[64];

    snprintf(program, sizeof program, "%s/loadbalancer", build_dir());
    snprintf(command, sizeof command, "ulimit -n %u && exec \"$0\"", descriptors);
    world_config(w, extra);
    daemon_start(&w->daemon, w->dir, "loadbalancer", (const char *const[]){"/bin/sh", "-c", command, program, NULL});
    daemon_expect_event(&w->daemon, 0, "listening", NULL);
}

/* One stale connection, and for a while no POST goes on a kept one: as many are kept as before all the same. */
static void test_posts_behind_a_stale_connection(void **state)
{
    struct world *w = *state;
    struct client c;
    struct origin *o = world_origin(w, stale_script, NULL, NULL);

    start_with(w, 200, "\"limits\": {\"connections\": 100}");
    client_open(&c, w->port);
    for (unsigned i = 0; i < 2; i++) {
        client_send(&c, "GET /stale HTTP/1.1\r\nHost: h\r\n\r\n");
        client_expect(&c, 200);
    }
    int fds = proc_fds(w->daemon.pid);
    for (unsigned i = 0; i < 200; i++) {
        client_send(&c, POST);
        client_expect(&c, 200);
    }
    CHECK(proc_fds(w->daemon.pid) <= fds + 5, "%d descriptors, then %d", fds, proc_fds(w->daemon.pid));
    CHECK(origin_connections(o) > 200, "%u connections: the test has not shown anything", origin_connections(o));
    client_close(&c);
    world_finish(w);
}

/* Answers /held when the test lets it, with its name. */
static void held_script(struct origin_conn *c)
{
    while (origin_read(c)) {
        if (strcmp(c->request.target, "/held") == 0)
            origin_hold(c);
        if (!origin_answer(c, origin_name(c->origin)))
            return;
    }
}

#define BACKENDS    3u
#define CLIENTS_MAX 100u

struct crowd {
    struct client clients[CLIENTS_MAX];
    unsigned count;
    unsigned turn; /* round robin: the backend that the next request goes to */
};

static void send_get(struct crowd *crowd, struct client *c, const char *target)
{
    client_sendf(c, "GET %s HTTP/1.1\r\nHost: h\r\n\r\n", target);
    crowd->turn = (crowd->turn + 1) % BACKENDS;
}

static void ask(struct crowd *crowd, struct client *c)
{
    char name[] = {'b', (char)('1' + crowd->turn), 0};

    send_get(crowd, c, "/");
    assert_string_equal(client_expect(c, 200)->body.p, name);
}

static void join(struct world *w, struct crowd *crowd, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        struct client *c = &crowd->clients[crowd->count++];
        client_open(c, w->port);
        ask(crowd, c);
    }
}

/* One backend has a request of each client under way at once. */
static void ask_at_once(struct world *w, struct crowd *crowd, unsigned backend)
{
    struct origin *o = w->origins[backend];

    origin_block(o);
    for (unsigned i = 0; i < crowd->count; i++) {
        while (crowd->turn != backend)
            ask(crowd, &crowd->clients[i]);
        unsigned before = origin_requests(o);
        send_get(crowd, &crowd->clients[i], "/held");
        origin_wait_requests(o, before + 1);
    }
    origin_release(o);
    for (unsigned i = 0; i < crowd->count; i++)
        client_expect(&crowd->clients[i], 200);
}

/* Each backend in turn has requests of `n` clients at once; then come `more` clients. Every one is served, on at most
 * `most` connections to backends. */
static void each_backend_has_its_peak(struct world *w, unsigned n, unsigned more, unsigned most)
{
    struct crowd crowd = {.count = 0};
    int before = proc_fds(w->daemon.pid);

    join(w, &crowd, n);
    for (unsigned i = 0; i < BACKENDS; i++)
        ask_at_once(w, &crowd, i);
    join(w, &crowd, more);
    for (unsigned i = 0; i < crowd.count; i++)
        ask(&crowd, &crowd.clients[i]);
    int connections = proc_fds(w->daemon.pid) - before - (int)crowd.count;
    CHECK(connections <= (int)most + 3, "%d connections to backends", connections);
    assert_int_equal(daemon_count_events(&w->daemon, 0, "accept_paused", NULL), 0);
    assert_int_equal(daemon_count_events(&w->daemon, 0, "retry", NULL), 0);
    for (unsigned i = 0; i < crowd.count; i++)
        client_close(&crowd.clients[i]);
}

/* With as many descriptors as the README asks for, twice the connections and 64, connections to backends never need
 * more than their half. */
static void test_peaks_one_after_another(void **state)
{
    struct world *w = *state;

    for (unsigned i = 0; i < BACKENDS; i++)
        world_origin(w, held_script, NULL, NULL);
    start_with(w, 164, "\"limits\": {\"connections\": 50}");
    assert_int_equal(daemon_count_events(&w->daemon, 0, "descriptors_short", NULL), 0);
    each_backend_has_its_peak(w, 45, 4, 50);
    world_finish(w);
}

/* With fewer, who needs one gets an idle connection's. */
static void test_peaks_where_descriptors_are_short(void **state)
{
    struct world *w = *state;

    for (unsigned i = 0; i < BACKENDS; i++)
        world_origin(w, held_script, NULL, NULL);
    start_with(w, 164, "\"limits\": {\"connections\": 100}");
    daemon_expect_event(&w->daemon, 0, "descriptors_short", "possible=164 wanted=264");
    each_backend_has_its_peak(w, 60, 30, 100);
    world_finish(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WORLD_TEST(test_posts_behind_a_stale_connection),
        WORLD_TEST(test_peaks_one_after_another),
        WORLD_TEST(test_peaks_where_descriptors_are_short),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
