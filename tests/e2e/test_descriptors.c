/* Descriptors for many checks at once: of backends that all hang. */
#include "harness/world.h"

#include <arpa/inet.h>
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#define HANGING 120u
#define CHECKED "\"health_check\": {\"interval\": \"1m\", \"timeout\": \"1m\"}, \"limits\": {\"connections\": 10}"

/* All its connections are the kernel's: nobody accepts them. On each address of the loopback device. */
static int hang_on(int port)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&at, sizeof at), 0);
    assert_int_equal(listen(fd, 1024), 0);
    return fd;
}

static void add_hanging(struct world *w, int port)
{
    char address[32];

    for (unsigned i = 0; i < HANGING; i++) {
        snprintf(address, sizeof address, "127.0.%u.1:%d", i + 1, port);
        world_backend(w, address, "\"backup\": true");
    }
}

static void start_with(struct world *w, const char *limit)
{
    char program[300], command[64];

    snprintf(program, sizeof program, "%s/loadbalancer", build_dir());
    snprintf(command, sizeof command, "ulimit %s && exec \"$0\"", limit);
    daemon_start(&w->daemon, w->dir, "loadbalancer", (const char *const[]){"/bin/sh", "-c", command, program, NULL});
    daemon_expect_event(&w->daemon, 0, "listening", NULL);
}

static void wait_for_probes(struct world *w)
{
    uint64_t deadline = deadline_in(patience_ms());

    while (proc_fds(w->daemon.pid) < (int)HANGING) {
        CHECK(left_ms(deadline) > 0, "%d descriptors", proc_fds(w->daemon.pid));
        rest();
    }
}

static void expect_enough(struct world *w)
{
    wait_for_probes(w);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(http_get(w->port, "/", NULL), 200);
    assert_int_equal(daemon_count_events(&w->daemon, 0, "descriptors_short", NULL), 0);
}

/* Each check has a descriptor, and each client. */
static void test_each_check_has_one(void **state)
{
    struct world *w = *state;
    int port = port_reserve(), fd = hang_on(port);

    world_origin(w, origin_answer_all, NULL, NULL);
    add_hanging(w, port);
    world_config(w, CHECKED);
    start_with(w, "-S -n 84");
    expect_enough(w);
    close(fd);
    world_finish(w);
}

static void test_each_check_has_one_after_a_reload(void **state)
{
    struct world *w = *state;
    int port = port_reserve(), fd = hang_on(port);

    world_origin(w, origin_answer_all, NULL, NULL);
    world_config(w, CHECKED);
    start_with(w, "-S -n 84");
    add_hanging(w, port);
    world_config(w, CHECKED);
    daemon_signal(&w->daemon, SIGHUP);
    expect_enough(w);
    close(fd);
    world_finish(w);
}

/* Where there cannot be so many, it says so; again after a reload that wants another number. */
static void test_too_few_for_checks(void **state)
{
    struct world *w = *state;
    int port = port_reserve(), fd = hang_on(port);

    world_origin(w, origin_answer_all, NULL, NULL);
    world_config(w, CHECKED);
    start_with(w, "-n 100");
    assert_int_equal(daemon_count_events(&w->daemon, 0, "descriptors_short", NULL), 0);
    add_hanging(w, port);
    world_config(w, CHECKED);
    daemon_signal(&w->daemon, SIGHUP);
    daemon_expect_event(&w->daemon, 0, "reload", NULL);
    daemon_expect_event(&w->daemon, 0, "descriptors_short", "possible=100 wanted=205");
    close(fd);
    world_finish(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WORLD_TEST(test_each_check_has_one),
        WORLD_TEST(test_each_check_has_one_after_a_reload),
        WORLD_TEST(test_too_few_for_checks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
