/* Disks that hang: nothing waits for them that need not, and a process that is to end does end. */
#include "harness/world.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/fanotify.h>
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

/* Has that process the file open? */
static bool is_open(pid_t pid, const char *path)
{
    char name[64], target[400];

    for (int fd = 3; fd < 64; fd++) {
        snprintf(name, sizeof name, "/proc/%d/fd/%d", (int)pid, fd);
        ssize_t n = readlink(name, target, sizeof target - 1);
        target[n > 0 ? n : 0] = '\0';
        if (strcmp(target, path) == 0)
            return true;
    }
    return false;
}

static int open_log(const struct world *w, int flags)
{
    int fd = open(world_path(w, "lb.log"), flags | O_NONBLOCK | O_CLOEXEC);

    assert_true(fd >= 0);
    return fd;
}

static void wait_until_reopened(struct world *w)
{
    uint64_t deadline = deadline_in(patience_ms());

    for (; !is_open(w->daemon.pid, world_path(w, "lb.log")); rest())
        CHECK(left_ms(deadline) > 0, "the log is not opened anew");
}

/* Writing it hangs from now on: a FIFO that is full takes the file's place. Returns its reader, who does not read. */
static int hang_log(struct world *w)
{
    static const char filler[4096];

    assert_int_equal(rename(world_path(w, "lb.log"), world_path(w, "lb.log.1")), 0);
    assert_int_equal(mkfifo(world_path(w, "lb.log"), 0600), 0);
    int reader = open_log(w, O_RDONLY), writer = open_log(w, O_WRONLY);
    while (write(writer, filler, sizeof filler) > 0)
        ;
    close(writer);
    daemon_signal(&w->daemon, SIGUSR1);
    wait_until_reopened(w);
    assert_int_equal(http_get(w->port, "/", NULL), 200);
    assert_int_equal(http_get(w->port, "/", NULL), 200);
    return reader;
}

/* ... until now. */
static void free_log(int reader)
{
    char content[4096];

    while (read(reader, content, sizeof content) > 0)
        ;
}

static void test_a_log_that_hangs_holds_up_no_change(void **state)
{
    struct world *w = *state;
    uint64_t begun;

    start(w, LOG_TO_FILE);
    int reader = hang_log(w);
    begun = now_ms();
    assert_int_equal(register_client(w, "user1"), 201);
    assert_in_range(now_ms() - begun, 0, SOON_MS);
    free_log(reader);
    world_stop(w);
    close(reader);
    world_finish(w);
}

static void test_a_log_that_hangs_does_not_keep_the_process(void **state)
{
    struct world *w = *state;
    uint64_t begun;

    start(w, LOG_TO_FILE);
    int reader = hang_log(w);
    begun = now_ms();
    daemon_signal(&w->daemon, SIGTERM);
    assert_int_equal(daemon_wait(&w->daemon), 0);
    assert_in_range(now_ms() - begun, 0, 2000 + SOON_MS);
    daemon_expect_clean_stderr(&w->daemon);
    close(reader);
    world_finish(w);
}

/* The second signal comes while the last lines are waited for. Nothing but these is lost: that is no work cut off. */
static void test_a_second_signal_ends_the_wait_for_the_log(void **state)
{
    struct world *w = *state;
    uint64_t begun;

    start(w, LOG_TO_FILE ", \"rate_limit\": null");
    int reader = hang_log(w);
    daemon_signal(&w->daemon, SIGTERM);
    while (client_can_connect(w->port))
        rest();
    usleep(200 * 1000);
    assert_true(daemon_is_running(&w->daemon));
    begun = now_ms();
    daemon_signal(&w->daemon, SIGINT);
    assert_int_equal(daemon_wait(&w->daemon), 0);
    assert_true(is_instrumented() || now_ms() - begun < 1000u);
    daemon_expect_clean_stderr(&w->daemon);
    close(reader);
    world_finish(w);
}

/* ---- the clients' disk ---- */

#define SAVED_SELDOM "\"rate_limit\": {\"clients_file\": \"data/clients.json\", \"save_interval\": \"1h\"}"

/* Whoever opens a file in the folder hangs until what is returned is closed. Skips the test where that is not
 * permitted. */
static int hang_folder(const char *folder)
{
    int fd = fanotify_init(FAN_CLASS_CONTENT | FAN_CLOEXEC, O_RDONLY);

    if (fd >= 0 && fanotify_mark(fd, FAN_MARK_ADD, FAN_OPEN_PERM | FAN_EVENT_ON_CHILD, AT_FDCWD, folder) == 0)
        return fd;
    print_message("no disk can be made to hang here\n");
    skip();
    return -1;
}

/* A registered client that has had three of its ten tokens, and a disk that hangs at the next save. */
static int start_and_hang(struct world *w, const char *extra)
{
    char config[300];

    assert_int_equal(mkdir(world_path(w, "data"), 0755), 0);
    int probe = hang_folder(world_path(w, "data"));
    close(probe);
    snprintf(config, sizeof config, "%s, %s", SAVED_SELDOM, extra);
    world_origin(w, origin_answer_all, NULL, NULL);
    world_start(w, config);
    assert_int_equal(register_client(w, "user1"), 201);
    for (int i = 0; i < 3; i++)
        assert_int_equal(http_request(w->port, "GET", "/", "X-Client-ID: user1\r\n", NULL, NULL), 200);
    return hang_folder(world_path(w, "data"));
}

/* Nothing that was acknowledged has been lost. */
static void expect_all_there(struct world *w)
{
    struct bytes body = {0};

    world_restart(w);
    assert_int_equal(http_request(w->port, "GET", "/clients/get?id=user1", "", NULL, &body), 200);
    CHECK(strstr(body.p, "\"tokens\":7"), "it has not seven tokens: %s", body.p);
    bytes_free(&body);
    world_finish(w);
}

static void end_a_save_that_hangs(struct world *w, int signals, unsigned least, unsigned most)
{
    int hang = start_and_hang(w, "\"timeouts\": {\"shutdown\": \"1m\"}");

    daemon_signal(&w->daemon, SIGTERM);
    daemon_expect_event(&w->daemon, 0, "drain", NULL);
    usleep(1500 * 1000); /* idle connections have a second */
    assert_true(daemon_is_running(&w->daemon));
    uint64_t begun = now_ms();
    for (int i = 0; i < signals; i++)
        daemon_signal(&w->daemon, i == 0 ? SIGTERM : SIGINT);
    assert_int_equal(daemon_wait(&w->daemon), 3);
    assert_true(now_ms() - begun >= least);
    assert_true(is_instrumented() || now_ms() - begun < most);
    daemon_expect_event(&w->daemon, 0, "stop", "cut=0 saved=no");
    daemon_expect_clean_stderr(&w->daemon);
    close(hang);
    expect_all_there(w);
}

static void test_a_second_signal_leaves_the_save_a_second(void **state)
{
    end_a_save_that_hangs(*state, 1, 950, 1000 + SOON_MS);
}

static void test_a_third_signal_ends_the_save(void **state)
{
    end_a_save_that_hangs(*state, 2, 0, 900);
}

static void test_a_save_that_hangs_has_a_deadline(void **state)
{
    struct world *w = *state;
    int hang = start_and_hang(w, "\"timeouts\": {\"shutdown\": \"500ms\"}");
    uint64_t begun = now_ms();

    daemon_signal(&w->daemon, SIGTERM);
    assert_int_equal(daemon_wait_for(&w->daemon, 5500 + SOON_MS), 3);
    assert_true(now_ms() - begun >= 4900u);
    daemon_expect_event(&w->daemon, 0, "stop", "cut=0 saved=no");
    close(hang);
    expect_all_there(w);
}

/* ... and no signal puts that off: here the second comes when it has just passed, as the process did not run. Returns
 * how long it takes to end then. */
static uint64_t end_behind_the_deadline(struct world *w)
{
    daemon_signal(&w->daemon, SIGTERM);
    daemon_expect_event(&w->daemon, 0, "drain", NULL);
    usleep(500 * 1000); /* it is saving by now */
    daemon_signal(&w->daemon, SIGSTOP);
    usleep(5000 * 1000);
    daemon_signal(&w->daemon, SIGINT);
    uint64_t begun = now_ms();
    daemon_signal(&w->daemon, SIGCONT);
    assert_int_equal(daemon_wait(&w->daemon), 3);
    return now_ms() - begun;
}

static void test_a_second_signal_does_not_put_the_deadline_off(void **state)
{
    struct world *w = *state;
    int hang = start_and_hang(w, "\"timeouts\": {\"shutdown\": \"500ms\"}");

    /* A second, if it did; a busy machine may take as long once, but hardly each time. */
    for (int tries = 1; end_behind_the_deadline(w) >= 900; tries++) {
        CHECK(tries < 3, "it goes on for another second");
        close(hang);
        world_restart(w);
        hang = hang_folder(world_path(w, "data"));
    }
    close(hang);
    expect_all_there(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WORLD_TEST(test_a_log_that_hangs_holds_up_no_change),
        WORLD_TEST(test_a_log_that_hangs_does_not_keep_the_process),
        WORLD_TEST(test_a_second_signal_ends_the_wait_for_the_log),
        WORLD_TEST(test_a_second_signal_leaves_the_save_a_second),
        WORLD_TEST(test_a_third_signal_ends_the_save),
        WORLD_TEST(test_a_save_that_hangs_has_a_deadline),
        WORLD_TEST(test_a_second_signal_does_not_put_the_deadline_off),
    };

    return cmocka_run_group_tests_name("hangs", tests, NULL, NULL);
}
