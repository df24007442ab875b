/* What one test stands in: a folder of its own, origins, and the daemon between them and the test's clients. A test
 * gets it as its state, starts what it needs and ends with world_finish(); a test that fails before leaves the daemon's
 * output on the screen. */
#ifndef HARNESS_WORLD_H
#define HARNESS_WORLD_H

#include "harness/check.h"
#include "harness/client.h"
#include "harness/daemon.h"
#include "harness/origin.h"

#define WORLD_BACKENDS 8
#define WORLD_HELPERS  8

struct world {
    char dir[200];
    int port;                               /* where the daemon listens on 127.0.0.1 */
    struct origin *origins[WORLD_BACKENDS]; /* those made by world_origin() */
    unsigned origin_count;
    char backends[8192]; /* the config's list so far */
    struct daemon daemon;
    struct daemon helpers[WORLD_HELPERS]; /* other programs: demo backends, nginx */
    unsigned helper_count;
    bool finished;
};

/* For cmocka: group tests are listed as WORLD_TEST(test_function). */
int world_setup(void **state);
int world_teardown(void **state);
#define WORLD_TEST(f) cmocka_unit_test_setup_teardown(f, world_setup, world_teardown)

/* Adds a backend of that script, named "b1", "b2", ... in their order. `extra` are further members of its config object
 * ("\"weight\": 3"), or NULL. */
struct origin *world_origin(struct world *w, origin_script *script, void *arg, const char *extra);
/* A port of 127.0.0.1 that somebody listens on, who is no backend. */
int world_taken_port(struct world *w);
/* Adds a backend by its address. */
void world_backend(struct world *w, const char *address, const char *extra);

/* Writes config.json: the listen address and the backends so far, then `extra`, members of the top object separated by
 * commas, or NULL. Where `extra` does not have them: JSON log, no health or passive checks, a rate limit too high to be
 * met, and an access log. */
void world_config(struct world *w, const char *extra);
/* The same, and starts the daemon on it and waits until it listens. */
void world_start(struct world *w, const char *extra);
/* Starts the daemon on the config.json that is there, and waits until it listens. */
void world_restart(struct world *w);
/* Starts another program of the build folder or the system in the test's folder. */
struct daemon *world_helper(struct world *w, const char *const argv[]);
/* Starts a demo-backend on a port of its own (returned), named `name`, with further options up to NULL; not added to
 * the backends. */
int world_demo(struct world *w, const char *name, const char *const options[]);
/* Runs another program to its end (at most `seconds`) and gives its exit status; its stdout in *out, to be freed,
 * where that is not NULL. */
int world_run(struct world *w, const char *const argv[], int seconds, struct bytes *out);
/* Skips the test when the system has no such program. */
void need_program(const char *path);
/* Waits until somebody listens on a port of 127.0.0.1. */
void wait_for_port(int port);

/* Ends the daemon by SIGTERM and checks that it exits with 0 and has written nothing to stderr. */
void world_stop(struct world *w);
/* Waits until the daemon has `n` descriptors open. */
void world_wait_fds(struct world *w, int n);
/* world_stop() if it runs; the test has passed. */
void world_finish(struct world *w);

/* The path of a file in the test's folder; valid until the eighth call after it. */
const char *world_path(const struct world *w, const char *name);

#endif
