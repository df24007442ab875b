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

int main(void)
{
    const struct CMUnitTest tests[] = {
        WORLD_TEST(test_posts_behind_a_stale_connection),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
