/* What io_relay() moves, and what becomes of it where it cannot: over real sockets, between two endpoints whose far
 * ends are plain descriptors. The calls that a kernel may refuse are replaced by functions of this program. */
#undef _FORTIFY_SOURCE /* its inline functions cannot be replaced */
#include "net/io.h"

#include "base/buf.h"
#include "base/clock.h"
#include "net/sock.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

#define DEADLINE (5 * NS_PER_S)
#define LARGE    (1024u * 1024u)

/* --- the kernel, watched ---------------------------------------------------------------------------------------- */

static struct {
    int fail_pipe, fail_splice; /* errno */
    size_t cut;                 /* at most so many bytes into a socket */
    size_t pipes, splices;
} kernel;

int pipe2(int fds[2], int flags)
{
    if (kernel.fail_pipe) {
        errno = kernel.fail_pipe;
        return -1;
    }
    kernel.pipes++;
    return (int)syscall(SYS_pipe2, fds, flags);
}

static bool is_pipe(int fd)
{
    return fcntl(fd, F_GETPIPE_SZ) > 0;
}

ssize_t splice(int from, off_t *from_at, int to, off_t *to_at, size_t n, unsigned flags)
{
    if (kernel.fail_splice) {
        errno = kernel.fail_splice;
        return -1;
    }
    kernel.splices++;
    if (kernel.cut && n > kernel.cut && is_pipe(from))
        n = kernel.cut;
    return syscall(SYS_splice, from, from_at, to, to_at, n, flags);
}

/* --- two endpoints ---------------------------------------------------------------------------------------------- */

struct side {
    struct io *io;
    int far;
    char told[64];
    size_t events;
    struct buf got; /* by IO_READABLE */
};

static struct {
    struct loop *loop;
    struct side from, to;
    uint64_t left, moved;
    bool copies; /* what is received is written on */
} w;

static const char letters[] = {
    [IO_CONNECTED] = 'C',    [IO_READABLE] = 'R',      [IO_WAITING] = 'W', [IO_DRAINED] = 'D', [IO_EOF] = 'E',
    [IO_TIMEOUT_READ] = 't', [IO_TIMEOUT_WRITE] = 'w', [IO_HANGUP] = 'H',  [IO_ERROR] = 'X'};

static void note(struct side *s, enum io_event event)
{
    if (s->events + 1 < sizeof s->told)
        s->told[s->events++] = letters[event];
}

static void take(struct side *s)
{
    size_t n;
    const char *p = io_data(s->io, &n);
    if (w.copies)
        assert_true(io_write_str(w.to.io, str_make(p, n), false));
    else
        assert_true(buf_append(&s->got, p, n));
    io_consume(s->io, n);
    if (io_is_full(w.to.io))
        io_pause(s->io);
}

/* As an owner does that bounds what is unsent. */
static void move(void)
{
    size_t n = w.left > 0 ? io_relay(w.from.io, w.to.io, w.left) : 0;
    w.left -= n;
    w.moved += n;
    if (io_is_full(w.to.io))
        io_pause(w.from.io);
}

static void on_event(void *owner, struct io *io, enum io_event event)
{
    struct side *s = owner;
    (void)io;
    note(s, event);
    if (event == IO_READABLE)
        take(s);
    if (event == IO_WAITING)
        move();
    if (event == IO_DRAINED && s == &w.to && io_is_paused(w.from.io))
        io_resume(w.from.io);
}

static void unix_pair(struct side *s)
{
    int pair[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair), 0);
    s->io = io_new(w.loop, pair[0], on_event, s);
    s->far = pair[1];
}

static void tcp_pair(struct side *s)
{
    struct ip ip;
    struct addr at, from;
    bool in_progress;
    assert_true(ip_parse(STR("127.0.0.1"), &ip));
    at = addr_of_ip(&ip, 0);
    int listener = sock_listen(&at, 4);
    assert_int_equal(sock_local_addr(listener, &at), 0);
    s->far = sock_connect(&at, &in_progress);
    struct pollfd p = {.fd = listener, .events = POLLIN};
    assert_int_equal(poll(&p, 1, 5000), 1);
    s->io = io_new(w.loop, sock_accept(listener, &from), on_event, s);
    sock_close(listener);
}

static void begin_with(void (*pair)(struct side *s))
{
    memset(&kernel, 0, sizeof kernel);
    memset(&w, 0, sizeof w);
    w.loop = loop_new();
    w.left = UINT64_MAX;
    pair(&w.from);
    pair(&w.to);
    assert_true(w.from.io && w.to.io);
    io_set_direct(w.from.io, true);
}

static void begin(void)
{
    begin_with(tcp_pair);
}

static int descriptors(void)
{
    int n = 0;
    DIR *d = opendir("/proc/self/fd");
    while (readdir(d))
        n++;
    closedir(d);
    return n;
}

static void finish(void)
{
    sock_close(w.from.far);
    sock_close(w.to.far);
    io_close(w.from.io);
    io_close(w.to.io);
    assert_int_equal(io_count(), 0);
    loop_free(w.loop);
    buf_fini(&w.from.got);
    buf_fini(&w.to.got);
}

static void say(const struct side *s, const char *text)
{
    assert_int_equal(write(s->far, text, strlen(text)), strlen(text));
}

static void turn_until_told(const struct side *s, const char *events)
{
    for (uint64_t end = clock_monotonic() + DEADLINE; s->events < strlen(events) && clock_monotonic() < end;)
        loop_turn(w.loop, 10 * NS_PER_MS);
    for (int i = 0; i < 3; i++)
        loop_turn(w.loop, 0);
    assert_string_equal(s->told, events);
}

/* What has come to the far end of `s`, which is waited for. */
static void expect_far(const struct side *s, const char *text)
{
    char got[256] = "";
    size_t n = 0;
    for (uint64_t end = clock_monotonic() + DEADLINE; n < strlen(text) && clock_monotonic() < end;) {
        ssize_t r = sock_recv(s->far, got + n, sizeof got - 1 - n);
        n += r > 0 ? (size_t)r : 0;
        loop_turn(w.loop, NS_PER_MS);
    }
    assert_string_equal(got, text);
}

static void expect_got(const struct side *s, const char *text)
{
    assert_int_equal(s->got.len, strlen(text));
    assert_memory_equal(buf_str(&s->got).p, text, s->got.len);
}

/* --- tests ------------------------------------------------------------------------------------------------------ */

static void test_moves_what_waits(void **state)
{
    (void)state;
    begin();
    say(&w.from, "hello");
    turn_until_told(&w.from, "W");
    expect_far(&w.to, "hello");
    assert_int_equal(w.moved, 5);
    assert_int_equal(io_bytes_out(w.to.io), 5);
    assert_int_equal(kernel.splices, 2);
    assert_string_equal(w.to.told, "");
    finish();
}

static void test_unix_sockets(void **state)
{
    (void)state;
    begin_with(unix_pair);
    say(&w.from, "hello");
    turn_until_told(&w.from, "W");
    expect_far(&w.to, "hello");
    finish();
}

/* What lies behind it is nobody else's yet: it is told as ever. */
static void test_moves_no_more_than_asked(void **state)
{
    (void)state;
    begin();
    w.left = 3;
    say(&w.from, "abcdef");
    turn_until_told(&w.from, "WWR");
    expect_far(&w.to, "abc");
    expect_got(&w.from, "def");
    finish();
}

static void expect_copied(void)
{
    say(&w.from, "hello");
    turn_until_told(&w.from, "WR");
    expect_got(&w.from, "hello");
    assert_int_equal(w.moved, 0);
}

static void test_without_a_pipe_bytes_are_received(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        begin();
        kernel.fail_pipe = i ? ENFILE : EMFILE;
        expect_copied();
        kernel.fail_pipe = 0; /* and once there is one again: */
        say(&w.from, "again");
        turn_until_told(&w.from, "WRW");
        expect_far(&w.to, "again");
        finish();
    }
}

static void test_what_was_held_back_leaves_first(void **state)
{
    (void)state;
    begin();
    io_hold(w.to.io);
    assert_true(io_write_str(w.to.io, STR("first "), false));
    assert_int_equal(io_unsent(w.to.io), 6);
    say(&w.from, "hello");
    turn_until_told(&w.from, "W");
    expect_far(&w.to, "first hello");
    finish();
}

/* Nothing comes, or it cannot be moved: what was held back waits no longer. */
static void test_what_was_held_back_leaves_alone(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        begin();
        kernel.fail_pipe = i ? EMFILE : 0;
        io_hold(w.to.io);
        assert_true(io_write_str(w.to.io, STR("first"), false));
        assert_int_equal(io_relay(w.from.io, w.to.io, 10), 0);
        expect_far(&w.to, "first");
        finish();
    }
}

static void test_kept_bytes_come_first(void **state)
{
    (void)state;
    begin();
    io_set_direct(w.from.io, false);
    say(&w.from, "x");
    turn_until_told(&w.from, "R");
    io_set_direct(w.from.io, true);
    say(&w.from, "y");
    turn_until_told(&w.from, "RW");
    expect_far(&w.to, "y");
    finish();
}

static void test_end_is_told(void **state)
{
    (void)state;
    begin();
    say(&w.from, "hello");
    shutdown(w.from.far, SHUT_WR);
    turn_until_told(&w.from, "WWE");
    expect_far(&w.to, "hello");
    finish();
}

static void test_reset_is_told(void **state)
{
    (void)state;
    begin();
    sock_reset(w.from.far);
    w.from.far = open("/dev/null", O_RDONLY | O_CLOEXEC);
    turn_until_told(&w.from, "WX");
    assert_int_equal(io_errno(w.from.io), ECONNRESET);
    assert_int_equal(io_errno(w.to.io), 0);
    finish();
}

static void test_broken_receiver_is_told(void **state)
{
    (void)state;
    begin_with(unix_pair);
    io_pause(w.to.io);
    sock_close(w.to.far);
    w.to.far = open("/dev/null", O_RDONLY | O_CLOEXEC);
    say(&w.from, "lost");
    turn_until_told(&w.from, "W");
    assert_string_equal(w.to.told, "HX");
    assert_int_equal(io_errno(w.from.io), 0);
    /* The pipe that held them went with them: what others move is their own. */
    struct side other = {0};
    io_close(w.to.io);
    sock_close(w.to.far);
    w.to = other;
    unix_pair(&w.to);
    say(&w.from, "fresh");
    turn_until_told(&w.from, "WW");
    expect_far(&w.to, "fresh");
    finish();
}

static char pattern_at(size_t i)
{
    return (char)(i * 7 + i / 251);
}

/* Feeds LARGE bytes to the one far end, and takes them at the other, in steps; both go as they can. */
static void pump_large(size_t step)
{
    char *piece = malloc(LARGE);
    size_t fed = 0, taken = 0;
    for (size_t i = 0; i < LARGE; i++)
        piece[i] = pattern_at(i);
    for (uint64_t end = clock_monotonic() + DEADLINE; taken < LARGE && clock_monotonic() < end;) {
        char got[65536];
        ssize_t n = fed < LARGE ? write(w.from.far, piece + fed, LARGE - fed) : 0;
        fed += n > 0 ? (size_t)n : 0;
        loop_turn(w.loop, 0);
        n = sock_recv(w.to.far, got, step);
        for (ssize_t i = 0; i < n; i++)
            assert_int_equal(got[i], pattern_at(taken + (size_t)i));
        taken += n > 0 ? (size_t)n : 0;
        assert_true(io_unsent(w.to.io) <= IO_HIGH_WATER + LOOP_SCRATCH_SIZE);
    }
    assert_int_equal(taken, LARGE);
    free(piece);
}

static void test_much_through_a_reader_that_sips(void **state)
{
    (void)state;
    begin();
    w.copies = true;
    pump_large(9000);
    assert_true(w.moved > LARGE / 4);
    finish();
}

static void test_what_the_receiver_does_not_take_is_unsent(void **state)
{
    (void)state;
    begin();
    kernel.cut = 3;
    io_set_write_timeout(w.to.io, NS_PER_S);
    say(&w.from, "hello");
    turn_until_told(&w.from, "W");
    expect_far(&w.to, "hello");
    assert_int_equal(w.moved, 5);
    assert_string_equal(w.to.told, "D");
    finish();
}

/* A deadline between bytes starts anew with each that is moved, as with each that is received. */
static void test_progress_deadline_runs(void **state)
{
    (void)state;
    begin();
    io_set_read_timeout(w.from.io, IO_PROGRESS, 60 * NS_PER_MS);
    for (int i = 0; i < 4; i++) {
        usleep(30000);
        say(&w.from, "x");
        loop_turn(w.loop, 10 * NS_PER_MS);
    }
    assert_string_equal(w.from.told, "WWWW");
    turn_until_told(&w.from, "WWWWt");
    finish();
}

static void test_another_owner_is_not_asked(void **state)
{
    (void)state;
    begin();
    io_set_owner(w.from.io, on_event, &w.from);
    say(&w.from, "hello");
    turn_until_told(&w.from, "R");
    finish();
}

static void test_pipe_goes_with_the_last_endpoint(void **state)
{
    (void)state;
    int before = descriptors();
    begin();
    say(&w.from, "hello");
    turn_until_told(&w.from, "W");
    assert_int_equal(kernel.pipes, 1);
    finish();
    assert_int_equal(descriptors(), before);
}

/* Last: it is remembered for the whole process. */
static void test_a_system_that_cannot_is_asked_once(void **state)
{
    (void)state;
    begin();
    kernel.fail_splice = EINVAL;
    expect_copied();
    kernel.fail_splice = 0;
    say(&w.from, "again");
    turn_until_told(&w.from, "WRWR");
    expect_got(&w.from, "helloagain");
    assert_int_equal(kernel.splices, 0);
    assert_int_equal(kernel.pipes, 1);
    finish();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_moves_what_waits),
        cmocka_unit_test(test_unix_sockets),
        cmocka_unit_test(test_moves_no_more_than_asked),
        cmocka_unit_test(test_without_a_pipe_bytes_are_received),
        cmocka_unit_test(test_what_was_held_back_leaves_first),
        cmocka_unit_test(test_what_was_held_back_leaves_alone),
        cmocka_unit_test(test_kept_bytes_come_first),
        cmocka_unit_test(test_end_is_told),
        cmocka_unit_test(test_reset_is_told),
        cmocka_unit_test(test_broken_receiver_is_told),
        cmocka_unit_test(test_much_through_a_reader_that_sips),
        cmocka_unit_test(test_what_the_receiver_does_not_take_is_unsent),
        cmocka_unit_test(test_progress_deadline_runs),
        cmocka_unit_test(test_another_owner_is_not_asked),
        cmocka_unit_test(test_pipe_goes_with_the_last_endpoint),
        cmocka_unit_test(test_a_system_that_cannot_is_asked_once),
    };

    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests_name("relay", tests, NULL, NULL);
}
