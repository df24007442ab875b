/* Listeners on a loop: batches, resting without descriptors, and a close that delivers who has connected already. */
#undef _FORTIFY_SOURCE /* its inline functions cannot be replaced */
#include "net/listener.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/metrics.h"
#include "net/sock.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

#define CONNECTIONS 100
#define DEADLINE    (5 * NS_PER_S)

/* The kernel, made to misbehave. */
static struct {
    int fail_watch;       /* epoll_ctl(EPOLL_CTL_ADD) fails with it */
    int fail_accept;      /* accept4() fails with it ... */
    size_t accept_errors; /* ... that many times */
} kernel;

int epoll_ctl(int epoll_fd, int op, int fd, struct epoll_event *event)
{
    if (op == EPOLL_CTL_ADD && kernel.fail_watch) {
        errno = kernel.fail_watch;
        return -1;
    }
    return (int)syscall(SYS_epoll_ctl, epoll_fd, op, fd, event);
}

int accept4(int fd, __SOCKADDR_ARG from, socklen_t *len, int flags)
{
    if (kernel.accept_errors > 0) {
        kernel.accept_errors--;
        errno = kernel.fail_accept;
        return -1;
    }
    return (int)syscall(SYS_accept4, fd, from.__sockaddr__, len, flags);
}

struct world {
    struct loop *loop;
    struct listener *ls;
    size_t accepted;
    struct peer last;
    size_t close_at; /* the callback closes the listener with that connection */
};

static struct addr addr_of(const char *text)
{
    struct endpoint e;
    const char *why;
    assert_true(endpoint_parse(str_of(text), true, &e, &why));
    return e.addr;
}

static void on_connection(void *arg, int fd, const struct peer *peer)
{
    struct world *w = arg;
    w->last = *peer;
    sock_close(fd);
    if (++w->accepted == w->close_at)
        listener_close(w->ls);
}

static void begin(struct world *w, const char *at)
{
    struct addr a = addr_of(at);
    int error = 0;
    *w = (struct world){.loop = loop_new()};
    assert_non_null(w->loop);
    w->ls = listener_new(w->loop, &a, on_connection, w, &error);
    assert_non_null(w->ls);
}

static void finish(struct world *w)
{
    listener_close(w->ls);
    loop_free(w->loop);
}

static int client_of(const struct world *w)
{
    bool in_progress;
    int fd = sock_connect(listener_addr(w->ls), &in_progress);
    assert_true(fd >= 0);
    return fd;
}

static void connect_many(const struct world *w, int *fds, size_t n)
{
    for (size_t i = 0; i < n; i++)
        fds[i] = client_of(w);
}

static void close_many(const int *fds, size_t n)
{
    for (size_t i = 0; i < n; i++)
        sock_close(fds[i]);
}

static void turn_until_accepted(struct world *w, size_t wanted)
{
    uint64_t end = clock_monotonic() + DEADLINE;
    while (w->accepted < wanted && clock_monotonic() < end)
        loop_turn(w->loop, 10 * NS_PER_MS);
    assert_int_equal(w->accepted, wanted);
}

static void test_accepts(void **state)
{
    (void)state;
    struct world w;
    struct addr local;
    begin(&w, "127.0.0.1:0");
    assert_int_not_equal(peer_from_addr(listener_addr(w.ls)).port, 0);
    int fd = client_of(&w);
    turn_until_accepted(&w, 1);
    assert_int_equal(sock_local_addr(fd, &local), 0);
    struct peer self = peer_from_addr(&local);
    assert_true(ip_eq(&self.ip, &w.last.ip));
    assert_int_equal(self.port, w.last.port);
    sock_close(fd);
    finish(&w);
}

static void test_batches(void **state)
{
    (void)state;
    struct world w;
    int fds[CONNECTIONS];
    begin(&w, "127.0.0.1:0");
    connect_many(&w, fds, CONNECTIONS);
    loop_turn(w.loop, DEADLINE);
    assert_int_equal(w.accepted, LISTENER_BATCH);
    turn_until_accepted(&w, CONNECTIONS);
    close_many(fds, CONNECTIONS);
    finish(&w);
}

static void test_close_drains(void **state)
{
    (void)state;
    struct world w;
    int fds[CONNECTIONS];
    begin(&w, "127.0.0.1:0");
    struct addr at = *listener_addr(w.ls);
    connect_many(&w, fds, CONNECTIONS);
    listener_close(w.ls);
    assert_int_equal(w.accepted, CONNECTIONS);
    listener_close(w.ls); /* still there until the end of the iteration */
    loop_turn(w.loop, 0);
    assert_int_equal(w.accepted, CONNECTIONS);

    int again = sock_listen(&at, 1); /* the port is free */
    assert_true(again >= 0);
    sock_close(again);
    close_many(fds, CONNECTIONS);
    loop_free(w.loop);
    listener_close(NULL);
}

static void test_close_in_callback(void **state)
{
    (void)state;
    struct world w;
    int fds[10];
    begin(&w, "127.0.0.1:0");
    w.close_at = 3;
    connect_many(&w, fds, 10);
    loop_turn(w.loop, DEADLINE);
    assert_int_equal(w.accepted, 10);
    close_many(fds, 10);
    loop_free(w.loop);
}

static void test_unix(void **state)
{
    (void)state;
    struct world w;
    char path[64];
    snprintf(path, sizeof path, "unix:/tmp/test_listener.%d", (int)getpid());
    begin(&w, path);
    assert_int_equal(access(path + 5, F_OK), 0);
    int fd = client_of(&w);
    turn_until_accepted(&w, 1);
    assert_true(w.last.is_unix);
    sock_close(fd);
    finish(&w);
    assert_int_equal(access(path + 5, F_OK), -1);
}

static void test_in_use(void **state)
{
    (void)state;
    struct world w;
    int error = 0;
    begin(&w, "127.0.0.1:0");
    assert_null(listener_new(w.loop, listener_addr(w.ls), on_connection, &w, &error));
    assert_int_equal(error, EADDRINUSE);
    finish(&w);
}

/* Turns of the loop in the time of a few pauses: many if it spins. */
static int turns_while_resting(struct world *w)
{
    int turns = 0;
    for (uint64_t end = clock_monotonic() + 3 * LISTENER_PAUSE; clock_monotonic() < end; turns++)
        loop_turn(w->loop, LISTENER_PAUSE);
    return turns;
}

static void test_out_of_descriptors(void **state)
{
    (void)state;
    struct world w;
    struct rlimit old;
    int fds[3];
    begin(&w, "127.0.0.1:0");
    connect_many(&w, fds, 3);
    int lowest = dup(0);
    assert_true(lowest > 0);
    close(lowest);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
    struct rlimit none_left = {.rlim_cur = (rlim_t)lowest, .rlim_max = old.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none_left), 0);

    uint64_t errors = metrics.accept_errors;
    assert_true(turns_while_resting(&w) < 20);
    assert_int_equal(w.accepted, 0);
    assert_true(metrics.accept_errors > errors);

    assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
    turn_until_accepted(&w, 3);
    close_many(fds, 3);
    finish(&w);
}

/* One that is paused while it rests is not watched again when the rest is over: who waits there would wake it at once,
 * and again. */
static void test_a_pause_outlasts_a_rest(void **state)
{
    (void)state;
    struct world w;
    begin(&w, "127.0.0.1:0");
    int fd = client_of(&w);
    kernel.fail_accept = EMFILE;
    kernel.accept_errors = 1;
    while (kernel.accept_errors > 0)
        loop_turn(w.loop, DEADLINE);
    listener_pause(w.ls);
    assert_true(turns_while_resting(&w) < 20);
    assert_int_equal(w.accepted, 0);
    listener_resume(w.ls);
    turn_until_accepted(&w, 1);
    sock_close(fd);
    finish(&w);
}

static bool spare_one(void *arg)
{
    unsigned *left = arg;
    return *left > 0 && (*left)--;
}

/* What is asked for a descriptor has one to spare, and nobody waits; then it has none. */
static void test_a_spared_descriptor(void **state)
{
    (void)state;
    static const int errors[] = {EMFILE, ENFILE};
    struct world w;
    unsigned left = 2;
    begin(&w, "127.0.0.1:0");
    listener_set_spare(w.ls, spare_one, &left);
    for (size_t i = 0; i < 2; i++) {
        uint64_t failed = metrics.accept_errors;
        int fd = client_of(&w);
        kernel.fail_accept = errors[i];
        kernel.accept_errors = 1;
        loop_turn(w.loop, DEADLINE);
        assert_int_equal(w.accepted, i + 1);
        assert_int_equal(left, 1 - i);
        assert_int_equal(metrics.accept_errors, failed);
        sock_close(fd);
    }
    int fd = client_of(&w);
    kernel.accept_errors = 1;
    loop_turn(w.loop, DEADLINE);
    assert_int_equal(w.accepted, 2);
    turn_until_accepted(&w, 3); /* after a rest */
    sock_close(fd);
    fd = client_of(&w);
    left = 1;
    kernel.fail_accept = ENOBUFS; /* which closing an idle connection does not help */
    kernel.accept_errors = 1;
    loop_turn(w.loop, DEADLINE);
    assert_int_equal(w.accepted, 3);
    assert_int_equal(left, 1);
    sock_close(fd);
    finish(&w);
}

/* The fields of the `accept_paused` line that is waiting in the log, which is emptied; "" when there is none, and no
 * more than one at a time. */
static const char *line_of_pause(void)
{
    static char fields[200];
    struct buf lines = BUF_INIT;
    log_take(&lines);
    assert_true(buf_append(&lines, "", 1));
    const char *line = strstr(buf_bytes(&lines), "accept_paused ");
    snprintf(fields, sizeof fields, "%.*s", line ? (int)strcspn(line, "\n") : 0, line ? line : "");
    assert_null(line ? strstr(line + 1, "accept_paused ") : NULL);
    buf_fini(&lines);
    return fields;
}

/* How many pauses the lines in the log, which is emptied, speak of. */
static unsigned logged_pauses(void)
{
    unsigned sum = 0;
    struct buf lines = BUF_INIT;
    log_take(&lines);
    assert_true(buf_append(&lines, "", 1));
    for (const char *p = buf_bytes(&lines); (p = strstr(p, " times=")) != NULL; p++)
        sum += (unsigned)strtoul(p + 7, NULL, 10);
    buf_fini(&lines);
    return sum;
}

static void test_pauses_are_logged(void **state)
{
    (void)state;
    struct world w;
    unsigned long times = 0, pauses;
    begin(&w, "127.0.0.1:0");
    int fd = client_of(&w);
    (void)logged_pauses();
    kernel.fail_accept = EMFILE;
    kernel.accept_errors = SIZE_MAX;
    loop_turn(w.loop, DEADLINE);
    assert_string_equal(line_of_pause(), "accept_paused cause=\"Too many open files\" times=1");
    uint64_t begun = loop_now(w.loop), errors = metrics.accept_errors;
    const char *line = "";
    while (!*line && loop_now(w.loop) < begun + DEADLINE) {
        loop_turn(w.loop, LISTENER_PAUSE);
        line = line_of_pause();
    }
    pauses = (unsigned long)(metrics.accept_errors - errors);
    assert_int_equal(sscanf(line, "accept_paused cause=\"Too many open files\" times=%lu", &times), 1);
    assert_true(loop_now(w.loop) >= begun + NS_PER_S);
    assert_int_equal(times, pauses);
    assert_true(times > 1);
    kernel.accept_errors = 0;
    turn_until_accepted(&w, 1);
    assert_string_equal(line_of_pause(), "");
    sock_close(fd);
    finish(&w);
}

/* Three pauses, until a client is accepted. */
static int client_after_pauses(struct world *w, unsigned accepted)
{
    int fd = client_of(w);
    kernel.fail_accept = EMFILE;
    kernel.accept_errors = 3;
    turn_until_accepted(w, accepted);
    return fd;
}

/* What came behind a line is said without a further pause: by the timer, or when the listener ends. */
static void test_the_last_pauses_are_logged(void **state)
{
    (void)state;
    struct world w;
    unsigned sum;
    begin(&w, "127.0.0.1:0");
    (void)logged_pauses();
    sock_close(client_after_pauses(&w, 1));
    sum = logged_pauses();
    for (uint64_t end = loop_now(w.loop) + DEADLINE; sum < 3 && loop_now(w.loop) < end; sum += logged_pauses())
        loop_turn(w.loop, LISTENER_PAUSE);
    assert_int_equal(sum, 3);
    sock_close(client_after_pauses(&w, 2));
    finish(&w);
    assert_int_equal(logged_pauses(), 3);
}

static void test_close_while_resting(void **state)
{
    (void)state;
    struct world w;
    struct rlimit old;
    begin(&w, "127.0.0.1:0");
    int fd = client_of(&w), lowest = dup(0);
    assert_true(lowest > 0);
    close(lowest);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
    struct rlimit none_left = {.rlim_cur = (rlim_t)lowest, .rlim_max = old.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none_left), 0);
    loop_turn(w.loop, DEADLINE);
    listener_close(w.ls);
    assert_int_equal(w.accepted, 0);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
    loop_turn(w.loop, 0);
    sock_close(fd);
    loop_free(w.loop);
}

static void test_errors_of_connections(void **state)
{
    (void)state;
    static const int errors[] = {ECONNABORTED, EPROTO, ENETUNREACH, ETIMEDOUT, EPERM};
    struct world w;
    begin(&w, "127.0.0.1:0");
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++) {
        uint64_t before = metrics.accept_errors;
        int fd = client_of(&w);
        kernel.fail_accept = errors[i];
        kernel.accept_errors = 3;
        loop_turn(w.loop, DEADLINE);
        assert_int_equal(w.accepted, i + 1); /* the next in line is not made to wait */
        assert_int_equal(metrics.accept_errors, before + 3);
        sock_close(fd);
    }
    finish(&w);
}

static void test_lasting_errors(void **state)
{
    (void)state;
    static const int errors[] = {EMFILE, ENFILE, ENOBUFS, ENOMEM, EINVAL};
    struct world w;
    begin(&w, "127.0.0.1:0");
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++) {
        uint64_t before = metrics.accept_errors;
        int fd = client_of(&w);
        kernel.fail_accept = errors[i];
        kernel.accept_errors = 1;
        loop_turn(w.loop, DEADLINE);
        loop_turn(w.loop, 0);
        assert_int_equal(w.accepted, i); /* not asked again at once */
        assert_int_equal(metrics.accept_errors, before + 1);
        turn_until_accepted(&w, i + 1);
        sock_close(fd);
    }
    finish(&w);
}

static void test_watch_refused(void **state)
{
    (void)state;
    struct world w;
    int error = 0;
    begin(&w, "127.0.0.1:0");
    struct addr at = *listener_addr(w.ls);
    listener_close(w.ls);
    kernel.fail_watch = ENOSPC;
    assert_null(listener_new(w.loop, &at, on_connection, &w, &error));
    assert_int_equal(error, ENOSPC);
    kernel.fail_watch = 0;
    w.ls = listener_new(w.loop, &at, on_connection, &w, &error); /* it has let go of the port */
    assert_non_null(w.ls);
    finish(&w);
}

/* Paused, who connects waits; another listener on a copy of the socket goes on where the first one leaves. */
static void test_goes_over(void **state)
{
    (void)state;
    struct world w;
    int error = 0;
    begin(&w, "unix:/tmp/lb-test-goes-over.sock");
    assert_true(listener_owns_file(w.ls));
    listener_pause(w.ls);
    int fd = client_of(&w);
    for (int i = 0; i < 3; i++)
        loop_turn(w.loop, 0);
    assert_int_equal(w.accepted, 0);
    listener_resume(w.ls);
    turn_until_accepted(&w, 1);
    listener_pause(w.ls);
    sock_close(fd);
    fd = client_of(&w);
    int copy = dup(listener_descriptor(w.ls));
    listener_leave(w.ls);
    loop_turn(w.loop, 0);
    assert_int_equal(w.accepted, 1);
    w.ls = listener_adopt(w.loop, copy, true, on_connection, &w, &error);
    assert_non_null(w.ls);
    assert_false(listener_owns_file(w.ls));
    turn_until_accepted(&w, 2);
    sock_close(fd);
    finish(&w);
    assert_int_equal(unlink("/tmp/lb-test-goes-over.sock"), 0); /* it was not its to remove */
    begin(&w, "127.0.0.1:0");
    assert_null(listener_adopt(w.loop, dup(STDIN_FILENO), false, on_connection, &w, &error));
    assert_int_equal(error, EINVAL);
    finish(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_goes_over),
        cmocka_unit_test(test_accepts),
        cmocka_unit_test(test_batches),
        cmocka_unit_test(test_close_drains),
        cmocka_unit_test(test_close_in_callback),
        cmocka_unit_test(test_unix),
        cmocka_unit_test(test_in_use),
        cmocka_unit_test(test_out_of_descriptors),
        cmocka_unit_test(test_a_pause_outlasts_a_rest),
        cmocka_unit_test(test_pauses_are_logged),
        cmocka_unit_test(test_the_last_pauses_are_logged),
        cmocka_unit_test(test_a_spared_descriptor),
        cmocka_unit_test(test_close_while_resting),
        cmocka_unit_test(test_errors_of_connections),
        cmocka_unit_test(test_lasting_errors),
        cmocka_unit_test(test_watch_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
