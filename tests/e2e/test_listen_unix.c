/* Where `listen` is a unix socket, and a reload or an upgrade keeps its path or names another: whose file it is, who
 * removes it, and who is served meanwhile. */
#include "harness/world.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

/* Echoes what comes behind an upgrade, which keeps a process busy. */
static void script(struct origin_conn *c)
{
    while (origin_read(c)) {
        if (strcmp(c->request.target, "/tunnel") == 0) {
            origin_send(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n");
            origin_drain(c);
            return;
        }
        if (!origin_answer(c, "ok"))
            return;
    }
}

static void listen_at(struct world *w, const char *name, const char *more)
{
    char extra[500];

    snprintf(extra, sizeof extra, "\"listen\": \"unix:%s\"%s%s", world_path(w, name), more ? ", " : "",
             more ? more : "");
    world_config(w, extra);
}

static void start_at(struct world *w, const char *name)
{
    world_origin(w, script, NULL, NULL);
    listen_at(w, name, NULL);
    world_restart(w);
}

static void open_tunnel(struct world *w, struct client *c, const char *name)
{
    client_open_unix(c, world_path(w, name));
    client_send(c, "GET /tunnel HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n");
    client_expect_head(c, 101);
}

static void ask(struct client *c)
{
    client_send(c, "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    client_expect(c, 200);
}

static void ask_at(struct world *w, const char *name)
{
    struct client c;

    client_open_unix(&c, world_path(w, name));
    ask(&c);
    client_close(&c);
}

/* ---- files ---- */

/* 0: there is none. */
static ino_t file_at(struct world *w, const char *name)
{
    struct stat st;

    return lstat(world_path(w, name), &st) == 0 ? st.st_ino : 0;
}

static unsigned mode_of(struct world *w, const char *name)
{
    struct stat st;

    assert_int_equal(lstat(world_path(w, name), &st), 0);
    return st.st_mode & 0777;
}

static void wait_until_gone(struct world *w, const char *name)
{
    uint64_t deadline = deadline_in(patience_ms());

    for (; file_at(w, name) != 0; rest())
        CHECK(left_ms(deadline) > 0, "%s is still there", name);
}

/* A socket of somebody else's at that path: one that listens, one that does not take connections at all, or (-1) a file
 * that is none. Its descriptor. */
static int occupy(struct world *w, const char *name, int type)
{
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    int fd;

    snprintf(un.sun_path, sizeof un.sun_path, "%s", world_path(w, name));
    if (type < 0) {
        fd = open(un.sun_path, O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        assert_true(fd >= 0);
        return fd;
    }
    fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&un, sizeof un), 0);
    if (type == SOCK_STREAM)
        assert_int_equal(listen(fd, 64), 0);
    return fd;
}

/* What a process leaves that ends without removing it. */
static void leave_stale(struct world *w, const char *name)
{
    close(occupy(w, name, SOCK_STREAM));
    assert_true(file_at(w, name) != 0);
}

/* ---- reloads ---- */

static void reload(struct world *w, const char *name)
{
    size_t mark = daemon_mark(&w->daemon);

    listen_at(w, name, NULL);
    daemon_signal(&w->daemon, SIGHUP);
    daemon_expect_event(&w->daemon, mark, "reload", NULL);
}

static void reload_is_refused(struct world *w, const char *name)
{
    size_t mark = daemon_mark(&w->daemon);

    listen_at(w, name, NULL);
    daemon_signal(&w->daemon, SIGHUP);
    const char *cause = log_field(daemon_expect_event(&w->daemon, mark, "reload_failed", NULL), "cause");
    CHECK(strstr(cause, "listen: cannot listen on unix:") && strstr(cause, "Address already in use"), "%s", cause);
    assert_int_equal(daemon_count_events(&w->daemon, mark, "reload", NULL), 0);
}

static void test_reload_to_another_path_and_back(void **state)
{
    struct world *w = *state;
    struct client c;
    char address[300];

    start_at(w, "a");
    client_open_unix(&c, world_path(w, "a"));
    ask(&c);
    for (int i = 0; i < 4; i++) {
        const char *from = i % 2 ? "b" : "a", *to = i % 2 ? "a" : "b";
        size_t mark = daemon_mark(&w->daemon);
        reload(w, to);
        snprintf(address, sizeof address, "address=unix:%s", world_path(w, to));
        daemon_expect_event(&w->daemon, mark, "listening", address);
        wait_until_gone(w, from);
        ask_at(w, to);
        ask(&c); /* who is connected stays so */
    }
    client_close(&c);
    world_stop(w);
    assert_int_equal(file_at(w, "a"), 0);
    w->finished = true;
}

static void test_reload_keeps_the_path(void **state)
{
    struct world *w = *state;

    start_at(w, "a");
    ino_t file = file_at(w, "a");
    size_t mark = daemon_mark(&w->daemon);
    listen_at(w, "a", "\"timeouts\": {\"connect\": \"1s\"}");
    daemon_signal(&w->daemon, SIGHUP);
    daemon_expect_event(&w->daemon, mark, "reload", NULL);
    ask_at(w, "a");
    assert_int_equal(file_at(w, "a"), file);
    assert_int_equal(daemon_count_events(&w->daemon, mark, "listening", NULL), 0);
    world_finish(w);
}

/* The same file by another name is the same path; what is said of it last is what is removed at the end. */
static void test_reload_to_another_name_of_it(void **state)
{
    static const char *const names[] = {"./a", "folder/../a", "link/a", "a"};
    struct world *w = *state;

    start_at(w, "a");
    assert_int_equal(mkdir(world_path(w, "folder"), 0700), 0);
    assert_int_equal(symlink(".", world_path(w, "link")), 0);
    ino_t file = file_at(w, "a");
    size_t mark = daemon_mark(&w->daemon);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        reload(w, names[i]);
        ask_at(w, "a");
        assert_int_equal(file_at(w, "a"), file);
    }
    assert_int_equal(daemon_count_events(&w->daemon, mark, "listening", NULL), 0);
    world_stop(w);
    assert_int_equal(file_at(w, "a"), 0);
    w->finished = true;
}

/* A path that somebody has, whatever he does there, is his; all stays as it was. */
static void test_reload_to_a_path_that_is_taken(void **state)
{
    static const int types[] = {SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET, -1};
    struct world *w = *state;

    start_at(w, "a");
    ino_t file = file_at(w, "a");
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        int fd = occupy(w, "b", types[i]);
        ino_t theirs = file_at(w, "b");
        reload_is_refused(w, "b");
        assert_int_equal(file_at(w, "b"), theirs);
        assert_int_equal(file_at(w, "a"), file);
        ask_at(w, "a");
        close(fd);
        unlink(world_path(w, "b"));
    }
    reload(w, "b"); /* it is free now */
    ask_at(w, "b");
    world_finish(w);
}

static void test_reload_to_a_path_that_was_left(void **state)
{
    struct world *w = *state;

    start_at(w, "a");
    leave_stale(w, "b");
    reload(w, "b");
    wait_until_gone(w, "a");
    ask_at(w, "b");
    world_stop(w);
    assert_int_equal(file_at(w, "b"), 0);
    w->finished = true;
}

/* Who waits at the old path is served. */
static void test_reload_serves_the_backlog(void **state)
{
    struct world *w = *state;
    struct client c[20];

    start_at(w, "a");
    listen_at(w, "b", NULL);
    kill(w->daemon.pid, SIGSTOP);
    daemon_signal(&w->daemon, SIGHUP);
    for (int i = 0; i < 20; i++) {
        client_open_unix(&c[i], world_path(w, "a"));
        client_send(&c[i], "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    }
    kill(w->daemon.pid, SIGCONT);
    for (int i = 0; i < 20; i++) {
        client_expect(&c[i], 200);
        client_close(&c[i]);
    }
    daemon_expect_event(&w->daemon, 0, "reload", NULL);
    wait_until_gone(w, "a");
    ask_at(w, "b");
    world_finish(w);
}

/* A reload that fails for another reason leaves no file behind. */
static void test_reload_that_fails_leaves_nothing(void **state)
{
    struct world *w = *state;

    start_at(w, "a");
    size_t mark = daemon_mark(&w->daemon);
    listen_at(w, "b", "\"log\": {\"format\": \"json\", \"file\": \"/nowhere/log\"}");
    daemon_signal(&w->daemon, SIGHUP);
    daemon_expect_event(&w->daemon, mark, "reload_failed", NULL);
    ask_at(w, "a");
    assert_int_equal(file_at(w, "b"), 0);
    world_finish(w);
}

/* Whoever has removed the file and made another has it: it is not removed when the path is left, nor at the stop. */
static void test_a_file_of_somebody_else_stays(void **state)
{
    struct world *w = *state;

    start_at(w, "a");
    assert_int_equal(unlink(world_path(w, "a")), 0);
    int first = occupy(w, "a", SOCK_STREAM);
    ino_t theirs = file_at(w, "a");
    reload(w, "b");
    ask_at(w, "b");
    assert_int_equal(file_at(w, "a"), theirs);
    assert_int_equal(unlink(world_path(w, "b")), 0);
    int second = occupy(w, "b", SOCK_STREAM);
    theirs = file_at(w, "b");
    world_stop(w);
    assert_int_equal(file_at(w, "b"), theirs);
    close(first);
    close(second);
    w->finished = true;
}

/* ---- upgrades ---- */

/* The new process serves; returns its pid. The one before is w->daemon still. */
static pid_t upgrade(struct world *w)
{
    size_t mark = daemon_mark(&w->daemon);

    daemon_signal(&w->daemon, SIGUSR2);
    return (pid_t)log_number(daemon_expect_event(&w->daemon, mark, "upgrade", "duration_ms=*"), "pid");
}

/* The one before ends, and well; the new one is our child then, for we are its subreaper. */
static void go_on_with(struct world *w, pid_t pid)
{
    int status = daemon_wait(&w->daemon);

    CHECK(status == 0, "the process before ended with %d", status);
    w->daemon.pid = pid;
}

static void upgrade_is_refused(struct world *w, const char *name)
{
    size_t mark = daemon_mark(&w->daemon);

    listen_at(w, name, NULL);
    daemon_signal(&w->daemon, SIGUSR2);
    daemon_expect_event(&w->daemon, mark, "upgrade_failed", NULL);
    assert_int_equal(daemon_count_events(&w->daemon, mark, "upgrade", NULL), 0);
}

static void forget_stderr(struct world *w)
{
    assert_int_equal(truncate(w->daemon.err, 0), 0);
}

/* The file is the same one all the time, and the last process removes it where a reload leaves it. */
static void test_upgrade_keeps_the_path(void **state)
{
    struct world *w = *state;
    struct client tunnel;

    start_at(w, "a");
    ino_t file = file_at(w, "a");
    open_tunnel(w, &tunnel, "a");
    pid_t fresh = upgrade(w);
    ask_at(w, "a");
    client_close(&tunnel);
    go_on_with(w, fresh);
    assert_int_equal(file_at(w, "a"), file);
    go_on_with(w, upgrade(w));
    ask_at(w, "a");
    assert_int_equal(file_at(w, "a"), file);
    reload(w, "b");
    wait_until_gone(w, "a");
    ask_at(w, "b");
    world_finish(w);
}

static void test_upgrade_to_another_name_of_it(void **state)
{
    struct world *w = *state;

    start_at(w, "a");
    ino_t file = file_at(w, "a");
    listen_at(w, "./a", NULL);
    go_on_with(w, upgrade(w));
    ask_at(w, "a");
    assert_int_equal(file_at(w, "a"), file);
    reload(w, "b");
    wait_until_gone(w, "a");
    ask_at(w, "b");
    world_finish(w);
}

/* The old file is removed as soon as the new process serves, however long the old one lives; its end removes nothing.
 */
static void test_upgrade_to_another_path(void **state)
{
    struct world *w = *state;
    struct client tunnel;

    start_at(w, "a");
    open_tunnel(w, &tunnel, "a");
    listen_at(w, "b", NULL);
    pid_t fresh = upgrade(w);
    wait_until_gone(w, "a");
    ino_t file = file_at(w, "b");
    ask_at(w, "b");
    assert_true(daemon_is_running(&w->daemon));
    client_close(&tunnel);
    go_on_with(w, fresh);
    assert_int_equal(file_at(w, "b"), file);
    ask_at(w, "b");
    world_stop(w);
    assert_int_equal(file_at(w, "b"), 0);
    w->finished = true;
}

/* To another path and back, while the first process and the second have something under way: what they were is over,
 * the file at the first path is the third's. */
static void test_upgrade_there_and_back(void **state)
{
    struct world *w = *state;
    struct client tunnels[2];
    pid_t fresh[2];

    start_at(w, "a");
    open_tunnel(w, &tunnels[0], "a");
    listen_at(w, "b", NULL);
    fresh[0] = upgrade(w);
    wait_until_gone(w, "a");
    open_tunnel(w, &tunnels[1], "b");
    listen_at(w, "a", NULL);
    size_t mark = daemon_mark(&w->daemon);
    assert_int_equal(kill(fresh[0], SIGUSR2), 0);
    fresh[1] = (pid_t)log_number(daemon_expect_event(&w->daemon, mark, "upgrade", NULL), "pid");
    wait_until_gone(w, "b");
    ino_t file = file_at(w, "a");
    ask_at(w, "a");
    client_close(&tunnels[0]);
    client_close(&tunnels[1]);
    go_on_with(w, fresh[0]);
    go_on_with(w, fresh[1]);
    assert_int_equal(file_at(w, "a"), file);
    ask_at(w, "a");
    world_finish(w);
}

static void test_upgrade_to_a_path_that_is_taken(void **state)
{
    struct world *w = *state;

    start_at(w, "a");
    ino_t file = file_at(w, "a");
    int fd = occupy(w, "b", SOCK_STREAM);
    ino_t theirs = file_at(w, "b");
    upgrade_is_refused(w, "b");
    struct bytes said = daemon_stderr(&w->daemon);
    CHECK(strstr(said.p, "cannot listen on unix:") && strstr(said.p, "Address already in use"), "%s", said.p);
    bytes_free(&said);
    forget_stderr(w);
    assert_int_equal(file_at(w, "b"), theirs);
    assert_int_equal(file_at(w, "a"), file);
    ask_at(w, "a");
    close(fd); /* and what it leaves is no hindrance */
    go_on_with(w, upgrade(w));
    wait_until_gone(w, "a");
    ask_at(w, "b");
    world_stop(w);
    assert_int_equal(file_at(w, "b"), 0);
    w->finished = true;
}

/* What is somebody else's before an upgrade is so behind it. */
static void test_upgrade_leaves_somebody_elses_file(void **state)
{
    struct world *w = *state;

    start_at(w, "a");
    assert_int_equal(unlink(world_path(w, "a")), 0);
    int fd = occupy(w, "a", SOCK_STREAM);
    ino_t theirs = file_at(w, "a");
    go_on_with(w, upgrade(w));
    listen_at(w, "b", NULL);
    size_t mark = daemon_mark(&w->daemon);
    go_on_with(w, upgrade(w));
    daemon_expect_event(&w->daemon, mark, "taken_over", NULL);
    ask_at(w, "b");
    assert_int_equal(file_at(w, "a"), theirs);
    close(fd);
    world_finish(w);
}

/* Whoever may reach the file may connect; a mode that somebody has given it meanwhile stays, also behind an upgrade. */
static void test_everybody_may_connect(void **state)
{
    struct world *w = *state;

    mode_t before = umask(0077);
    start_at(w, "a");
    umask(before);
    assert_int_equal(mode_of(w, "a"), 0666);
    assert_int_equal(chmod(world_path(w, "a"), 0600), 0);
    go_on_with(w, upgrade(w));
    ask_at(w, "a");
    assert_int_equal(mode_of(w, "a"), 0600);
    reload(w, "b");
    assert_int_equal(mode_of(w, "b"), 0666);
    ask_at(w, "b");
    world_finish(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WORLD_TEST(test_reload_to_another_path_and_back), WORLD_TEST(test_reload_keeps_the_path),
        WORLD_TEST(test_reload_to_another_name_of_it),    WORLD_TEST(test_upgrade_to_another_name_of_it),
        WORLD_TEST(test_reload_to_a_path_that_is_taken),  WORLD_TEST(test_reload_to_a_path_that_was_left),
        WORLD_TEST(test_reload_serves_the_backlog),       WORLD_TEST(test_reload_that_fails_leaves_nothing),
        WORLD_TEST(test_a_file_of_somebody_else_stays),   WORLD_TEST(test_upgrade_keeps_the_path),
        WORLD_TEST(test_upgrade_to_another_path),         WORLD_TEST(test_upgrade_there_and_back),
        WORLD_TEST(test_upgrade_to_a_path_that_is_taken), WORLD_TEST(test_upgrade_leaves_somebody_elses_file),
        WORLD_TEST(test_everybody_may_connect),
    };
    prctl(PR_SET_CHILD_SUBREAPER, 1); /* a process whose parent has ended is ours then */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
