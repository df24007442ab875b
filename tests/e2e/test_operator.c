/* What whoever runs the daemon does by hand or by script: how it is started, what it is asked while something is amiss,
 * and what the test of a config finds. */
#include "harness/world.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- versions ---- */

/* Makes DIR/NAME, a copy of the daemon's program. */
static void install(struct world *w, const char *name)
{
    char from[300];

    snprintf(from, sizeof from, "%s/loadbalancer", build_dir());
    assert_int_equal(mkdir(world_path(w, name), 0755), 0);
    assert_int_equal(world_run(w, (const char *const[]){"/bin/cp", from, name, NULL}, 10, NULL), 0);
}

static void point_to(struct world *w, const char *link, const char *target)
{
    assert_int_equal(symlink(target, world_path(w, "link.new")), 0);
    assert_int_equal(rename(world_path(w, "link.new"), world_path(w, link)), 0);
}

static void expect_program(const struct world *w, pid_t pid, const char *name)
{
    char link[64], target[400] = "", real[4200];

    snprintf(link, sizeof link, "/proc/%d/exe", (int)pid);
    assert_true(readlink(link, target, sizeof target - 1) > 0);
    assert_non_null(realpath(world_path(w, name), real));
    assert_string_equal(target, real);
}

/* Goes over to the binary that is there now; the new process is w->daemon's then. */
static void upgrade_to(struct world *w, const char *expected, const char *path)
{
    size_t mark = daemon_mark(&w->daemon);

    daemon_signal(&w->daemon, SIGUSR2);
    const cJSON *line = daemon_expect_event(&w->daemon, mark, "upgrade", NULL);
    pid_t pid = (pid_t)log_number(line, "pid");
    assert_string_equal(log_field(line, "program"), path);
    assert_int_equal(daemon_wait(&w->daemon), 0);
    w->daemon.pid = pid;
    expect_program(w, pid, expected);
}

/* The way versions are kept side by side: found by its name in PATH, through a link that is turned. */
static void test_an_upgrade_follows_the_link_in_path(void **state)
{
    struct world *w = *state;
    char path[300];

    world_origin(w, origin_answer_all, NULL, NULL);
    world_config(w, NULL);
    install(w, "v1");
    install(w, "v2");
    point_to(w, "current", "v1");
    snprintf(path, sizeof path, "%s", world_path(w, "current/loadbalancer"));
    const char *const argv[] = {"/bin/sh", "-c", "PATH=$PWD/current:$PATH; exec loadbalancer -c config.json", NULL};
    daemon_start(&w->daemon, w->dir, "loadbalancer", argv);
    daemon_expect_event(&w->daemon, 0, "listening", NULL);
    expect_program(w, w->daemon.pid, "v1/loadbalancer");
    point_to(w, "current", "v2");
    upgrade_to(w, "v2/loadbalancer", path);
    point_to(w, "current", "v1");
    upgrade_to(w, "v1/loadbalancer", path);
    world_finish(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WORLD_TEST(test_an_upgrade_follows_the_link_in_path),
    };
    prctl(PR_SET_CHILD_SUBREAPER, 1); /* a process whose parent has ended is ours then */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
