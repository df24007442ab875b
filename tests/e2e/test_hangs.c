/* Disks that hang: nothing waits for them that need not, and a process that is to end does end. */
#include "harness/world.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

/* Two calls of a disk that hangs take for ever; all else is a matter of milliseconds, on a slow machine of seconds. */
#define SOON_MS (is_instrumented() ? 10000 : 3000)

static int register_client(struct world *w, const char *id)
{
    char json[100];

    snprintf(json, sizeof json, "{\"client_id\":\"%s\",\"capacity\":10,\"rate_per_sec\":1e-6}", id);
    return http_request(w->port, "POST", "/clients/register", "", json, NULL);
}

static void start(struct world *w, const char *extra)
{
    world_origin(w, origin_answer_all, NULL, NULL);
    world_config(w, extra);
    daemon_start(&w->daemon, w->dir, "loadbalancer", (const char *const[]){"loadbalancer", NULL});
    wait_for_port(w->port);
}

#define LOG_TO_FILE "\"log\": {\"format\": \"json\", \"file\": \"lb.log\"}"

/* Opening it anew hangs from now on: a FIFO without a reader takes the file's place. */
static void hang_log(struct world *w)
{
    assert_int_equal(rename(world_path(w, "lb.log"), world_path(w, "lb.log.1")), 0);
    assert_int_equal(mkfifo(world_path(w, "lb.log"), 0600), 0);
    daemon_signal(&w->daemon, SIGUSR1);
    assert_int_equal(http_get(w->port, "/", NULL), 200);
    assert_int_equal(http_get(w->port, "/", NULL), 200);
}

/* Until this reader comes, which is returned. */
static int free_log(struct world *w)
{
    int fd = open(world_path(w, "lb.log"), O_RDONLY | O_NONBLOCK | O_CLOEXEC);

    assert_true(fd >= 0);
    return fd;
}

static void test_a_log_that_hangs_holds_up_no_change(void **state)
{
    struct world *w = *state;
    uint64_t begun;

    start(w, LOG_TO_FILE);
    hang_log(w);
    begun = now_ms();
    assert_int_equal(register_client(w, "user1"), 201);
    assert_in_range(now_ms() - begun, 0, SOON_MS);
    int reader = free_log(w);
    world_stop(w);
    close(reader);
    world_finish(w);
}

static void test_a_log_that_hangs_does_not_keep_the_process(void **state)
{
    struct world *w = *state;
    uint64_t begun;

    start(w, LOG_TO_FILE);
    hang_log(w);
    begun = now_ms();
    daemon_signal(&w->daemon, SIGTERM);
    assert_int_equal(daemon_wait(&w->daemon), 0);
    assert_in_range(now_ms() - begun, 0, 2000 + SOON_MS);
    daemon_expect_clean_stderr(&w->daemon);
    world_finish(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WORLD_TEST(test_a_log_that_hangs_holds_up_no_change),
        WORLD_TEST(test_a_log_that_hangs_does_not_keep_the_process),
    };

    return cmocka_run_group_tests_name("hangs", tests, NULL, NULL);
}
