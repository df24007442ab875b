/* The endpoint over real sockets: each event, in each order in which it can come, and what a peer can do to it.
 *
 * The far end is mostly a plain descriptor, so that a test says exactly what the kernel holds. Some system calls are
 * replaced by functions of this program, which count them and can be told to misbehave. */
#undef _FORTIFY_SOURCE /* its inline functions cannot be replaced */
#include "net/io.h"

#include "base/buf.h"
#include "base/clock.h"
#include "net/sock.h"

#include <errno.h>
#include <limits.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

#define DEADLINE (5 * NS_PER_S)
#define TINY     16384 /* bytes of a socket's buffers */

/* --- the kernel, watched ---------------------------------------------------------------------------------------- */

static struct {
    size_t recvs, sends, controls;
    size_t pieces;  /* of the last send */
    size_t cut;     /* at most so many bytes a call; 0: all */
    int fail_watch; /* epoll_ctl(EPOLL_CTL_ADD) fails with it */
    bool counting;  /* allocations are numbered from here on, and that one fails */
    size_t allocations, fail_allocation;
    size_t blocks; /* allocated and not freed, give or take a constant */
} kernel;

/* What stands behind malloc() and its kin where this program replaces them. */
#ifdef __has_feature
#if __has_feature(address_sanitizer)
#define REAL(name) __interceptor_##name
#endif
#endif
#if !defined(REAL) && defined(__SANITIZE_ADDRESS__)
#define REAL(name) __interceptor_##name
#elif !defined(REAL)
#define REAL(name) __libc_##name
#endif
void *REAL(malloc)(size_t n);
void *REAL(calloc)(size_t n, size_t size);
void *REAL(realloc)(void *p, size_t n);
void REAL(free)(void *p);

static bool memory_fails(void)
{
    return kernel.counting && kernel.allocations++ == kernel.fail_allocation;
}

void *malloc(size_t n)
{
    kernel.blocks++;
    return memory_fails() ? NULL : REAL(malloc)(n);
}

void *calloc(size_t n, size_t size)
{
    kernel.blocks++;
    return memory_fails() ? NULL : REAL(calloc)(n, size);
}

void *reallocarray(void *p, size_t n, size_t size)
{
    kernel.blocks += !p;
    return memory_fails() ? NULL : REAL(realloc)(p, n * size);
}

void free(void *p)
{
    kernel.blocks -= p != NULL;
    REAL(free)(p);
}

ssize_t recv(int fd, void *p, size_t n, int flags)
{
    kernel.recvs++;
    if (kernel.cut && n > kernel.cut)
        n = 1 + (size_t)rand() % kernel.cut;
    return syscall(SYS_recvfrom, fd, p, n, flags, NULL, NULL);
}

ssize_t sendmsg(int fd, const struct msghdr *m, int flags)
{
    kernel.sends++;
    kernel.pieces = m->msg_iovlen;
    if (!kernel.cut)
        return syscall(SYS_sendmsg, fd, m, flags);
    struct iovec first = m->msg_iov[0];
    if (first.iov_len > kernel.cut)
        first.iov_len = 1 + (size_t)rand() % kernel.cut;
    struct msghdr short_one = {.msg_iov = &first, .msg_iovlen = 1};
    return syscall(SYS_sendmsg, fd, &short_one, flags);
}

ssize_t send(int fd, const void *p, size_t n, int flags)
{
    struct iovec piece = {(void *)(uintptr_t)p, n};
    struct msghdr m = {.msg_iov = &piece, .msg_iovlen = 1};
    return sendmsg(fd, &m, flags);
}

int epoll_ctl(int epoll_fd, int op, int fd, struct epoll_event *event)
{
    kernel.controls++;
    if (op == EPOLL_CTL_ADD && kernel.fail_watch) {
        errno = kernel.fail_watch;
        return -1;
    }
    return (int)syscall(SYS_epoll_ctl, epoll_fd, op, fd, event);
}

/* --- an owner that notes what it is told ------------------------------------------------------------------------ */

struct owner {
    struct io *io;
    char told[64]; /* a letter for each event */
    size_t events;
    struct buf got;
    size_t leave;        /* bytes that the handler does not take */
    enum io_event react; /* with that event ... */
    void (*act)(struct owner *o);
    struct loop *loop;
};

static const char letters[] = {[IO_CONNECTED] = 'C',    [IO_READABLE] = 'R',      [IO_DRAINED] = 'D', [IO_EOF] = 'E',
                               [IO_TIMEOUT_READ] = 't', [IO_TIMEOUT_WRITE] = 'w', [IO_HANGUP] = 'H',  [IO_ERROR] = 'X'};

static void take(struct owner *o)
{
    size_t n;
    const char *p = io_data(o->io, &n);
    assert_true(n > 0);
    if (n <= o->leave)
        return;
    assert_true(buf_append(&o->got, p, n - o->leave));
    io_consume(o->io, n - o->leave);
}

static void on_event(void *arg, struct io *io, enum io_event event)
{
    struct owner *o = arg;
    o->io = io;
    assert_true(o->events + 1 < sizeof o->told);
    o->told[o->events++] = letters[event];
    if (event == IO_READABLE)
        take(o);
    if (o->act && event == o->react)
        o->act(o);
}

static void forget(struct owner *o)
{
    memset(o->told, 0, sizeof o->told);
    o->events = 0;
    buf_fini(&o->got);
}

static void turn_until(struct loop *l, const struct owner *o, size_t events)
{
    uint64_t end = clock_monotonic() + DEADLINE;
    while (o->events < events && clock_monotonic() < end)
        loop_turn(l, 10 * NS_PER_MS);
}

/* Waits until exactly these events were told, and sees that no more follow at once. */
static void expect(struct owner *o, const char *events)
{
    turn_until(o->loop, o, strlen(events));
    for (int i = 0; i < 3; i++)
        loop_turn(o->loop, 0);
    assert_string_equal(o->told, events);
}

static void expect_got(struct owner *o, const char *text)
{
    assert_int_equal(o->got.len, strlen(text));
    assert_memory_equal(buf_str(&o->got).p, text, o->got.len);
}

/* Turns in a time in which a loop at rest makes a handful. */
static int turns_at_rest(struct loop *l)
{
    int turns = 0;
    for (uint64_t end = clock_monotonic() + 60 * NS_PER_MS; clock_monotonic() < end; turns++)
        loop_turn(l, 20 * NS_PER_MS);
    return turns;
}

static void assert_at_rest(struct loop *l)
{
    loop_turn(l, 0);
    loop_turn(l, 0);
    assert_true(turns_at_rest(l) < 20);
}

/* --- pairs ------------------------------------------------------------------------------------------------------ */

static void wait_for(int fd, short events)
{
    struct pollfd p = {.fd = fd, .events = events};
    assert_int_equal(poll(&p, 1, (int)(DEADLINE / NS_PER_MS)), 1);
}

static struct addr loopback(void)
{
    struct ip ip;
    assert_true(ip_parse(STR("127.0.0.1"), &ip));
    return addr_of_ip(&ip, 0);
}

static int listen_here(struct addr *bound, int buffer)
{
    struct addr at = loopback();
    int fd = sock_listen(&at, 16);
    assert_true(fd >= 0);
    if (buffer) {
        /* Segments of the loopback's size would not fit, and move only when a timer loses patience. */
        int segment = 1000;
        setsockopt(fd, IPPROTO_TCP, TCP_MAXSEG, &segment, sizeof segment);
        setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &buffer, sizeof buffer);
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &buffer, sizeof buffer);
    }
    assert_int_equal(sock_local_addr(fd, bound), 0);
    return fd;
}

/* A TCP connection: ours, theirs. */
static void tcp_pair(int pair[2], int buffer)
{
    struct addr bound, from;
    int listener = listen_here(&bound, buffer);
    bool in_progress;
    pair[1] = sock_connect(&bound, &in_progress);
    assert_true(pair[1] >= 0);
    wait_for(listener, POLLIN);
    pair[0] = sock_accept(listener, &from);
    assert_true(pair[0] >= 0);
    if (buffer) {
        setsockopt(pair[1], SOL_SOCKET, SO_SNDBUF, &buffer, sizeof buffer);
        setsockopt(pair[1], SOL_SOCKET, SO_RCVBUF, &buffer, sizeof buffer);
    }
    sock_close(listener);
}

struct world {
    struct loop *loop;
    struct owner o;
    int far;
};

static void begin_with(struct world *w, int ours, int theirs)
{
    *w = (struct world){.loop = loop_new(), .far = theirs};
    assert_non_null(w->loop);
    w->o.loop = w->loop;
    w->o.io = io_new(w->loop, ours, on_event, &w->o);
    assert_non_null(w->o.io);
}

static void begin(struct world *w)
{
    int pair[2];
    tcp_pair(pair, 0);
    begin_with(w, pair[0], pair[1]);
}

static void begin_tiny(struct world *w)
{
    int pair[2];
    tcp_pair(pair, TINY);
    begin_with(w, pair[0], pair[1]);
}

static void begin_unix(struct world *w)
{
    int pair[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair), 0);
    begin_with(w, pair[0], pair[1]);
}

static void far_closes(struct world *w)
{
    if (w->far >= 0)
        sock_close(w->far);
    w->far = -1;
}

/* Ends the world; the owner's io unless it is gone already (NULL). */
static void finish(struct world *w)
{
    io_close(w->o.io);
    assert_int_equal(io_count(), 0);
    far_closes(w);
    loop_free(w->loop);
    buf_fini(&w->o.got);
}

static void far_says(struct world *w, const char *text)
{
    struct iovec iov = {(char *)text, strlen(text)};
    assert_int_equal(sock_send(w->far, &iov, 1, false), strlen(text));
}

/* Reads what the far end has, up to `n` bytes, while the loop goes on. */
static size_t far_reads(struct world *w, char *p, size_t n)
{
    size_t got = 0;
    uint64_t end = clock_monotonic() + DEADLINE;
    while (got < n && clock_monotonic() < end) {
        ssize_t r = sock_recv(w->far, p + got, n - got);
        if (r > 0)
            got += (size_t)r;
        else if (r != -EAGAIN)
            break;
        loop_turn(w->loop, r > 0 ? 0 : NS_PER_MS);
    }
    return got;
}

static void expect_far(struct world *w, const char *text)
{
    char got[256] = "";
    assert_int_equal(far_reads(w, got, strlen(text)), strlen(text));
    assert_string_equal(got, text);
}

/* What the far end's recv() says next. */
static ssize_t far_result(struct world *w)
{
    char byte;
    ssize_t n = -EAGAIN;
    for (uint64_t end = clock_monotonic() + DEADLINE; n == -EAGAIN && clock_monotonic() < end;) {
        n = sock_recv(w->far, &byte, 1);
        loop_turn(w->loop, NS_PER_MS);
    }
    return n;
}

static char *pattern(size_t n)
{
    char *p = malloc(n);
    assert_non_null(p);
    for (size_t i = 0; i < n; i++)
        p[i] = (char)(i * 31 + i / 251);
    return p;
}

static bool write_all(struct io *io, const char *p, size_t n)
{
    return io_write_str(io, str_make(p, n), false);
}

/* --- reading ---------------------------------------------------------------------------------------------------- */

static void test_readable(void **state)
{
    (void)state;
    struct world w;
    begin(&w);
    far_says(&w, "hello");
    expect(&w.o, "R");
    expect_got(&w.o, "hello");
    assert_false(io_has_unread(w.o.io));
    finish(&w);
}

static void test_unread_is_kept(void **state)
{
    (void)state;
    struct world w;
    begin(&w);
    w.o.leave = 2;
    far_says(&w, "abcd");
    expect(&w.o, "R");
    expect_got(&w.o, "ab");
    assert_int_equal(io_unread(w.o.io), 2);
    assert_at_rest(w.loop); /* not told again for what it left */

    far_says(&w, "ef");
    expect(&w.o, "RR");
    expect_got(&w.o, "abcd");
    w.o.leave = 0;
    io_resume(w.o.io);
    assert_int_equal(w.o.events, 2); /* not from inside the call */
    expect(&w.o, "RRR");
    expect_got(&w.o, "abcdef");
    assert_false(io_has_unread(w.o.io));
    io_resume(w.o.io);
    expect(&w.o, "RRR");
    finish(&w);
}

static void test_pause(void **state)
{
    (void)state;
    struct world w;
    begin(&w);
    io_pause(w.o.io);
    assert_true(io_is_paused(w.o.io));
    far_says(&w, "later");
    assert_at_rest(w.loop);
    expect(&w.o, "");
    io_resume(w.o.io);
    assert_false(io_is_paused(w.o.io));
    expect(&w.o, "R");
    expect_got(&w.o, "later");
    finish(&w);
}

static void pause_it(struct owner *o)
{
    io_pause(o->io);
}

static void test_pause_with_kept(void **state)
{
    (void)state;
    struct world w;
    begin(&w);
    w.o.leave = 3;
    w.o.react = IO_READABLE;
    w.o.act = pause_it;
    far_says(&w, "abcdef");
    expect(&w.o, "R");
    far_says(&w, "ghi");
    expect(&w.o, "R");
    io_resume(w.o.io);
    io_pause(w.o.io); /* before it could be told */
    expect(&w.o, "R");
    w.o.leave = 0;
    w.o.act = NULL;
    io_resume(w.o.io);
    /* First what is kept, and nothing joins it: else it would grow with each pause of one who takes little at a time.
     */
    loop_turn(w.loop, DEADLINE);
    assert_string_equal(w.o.told, "RR");
    expect_got(&w.o, "abcdef");
    expect(&w.o, "RRR");
    expect_got(&w.o, "abcdefghi");
    finish(&w);
}

static void take_one(struct owner *o)
{
    size_t left = io_unread(o->io);
    o->leave = left > 0 ? left - 1 : 0;
    if (left > 0)
        io_read_later(o->io);
}

/* A handler that takes a part at a time: once a turn, its end behind all of it, and no deadline runs out before. */
static void test_read_later(void **state)
{
    (void)state;
    struct world w;
    begin(&w);
    w.o.leave = 3;
    w.o.react = IO_READABLE;
    w.o.act = take_one;
    far_says(&w, "abcd");
    assert_int_equal(sock_shutdown_write(w.far), 0);
    loop_turn(w.loop, DEADLINE);
    assert_string_equal(w.o.told, "RR"); /* as it came, and behind the handlers of that turn */
    io_set_read_timeout(w.o.io, IO_BY, NS_PER_MS);
    for (unsigned i = 3; i <= 4; i++) {
        usleep(2000);
        loop_turn(w.loop, DEADLINE);
        assert_int_equal(w.o.events, i);
    }
    assert_string_equal(w.o.told, "RRRR");
    w.o.act = NULL;
    expect(&w.o, "RRRREt");
    expect_got(&w.o, "abcd");
    finish(&w);
}

static void test_short_pause_is_free(void **state)
{
    (void)state;
    struct world w;
    begin(&w);
    size_t before = kernel.controls;
    io_pause(w.o.io);
    loop_turn(w.loop, 0);
    io_resume(w.o.io);
    loop_turn(w.loop, 0);
    assert_int_equal(kernel.controls, before);
    finish(&w);
}

/* Goes on sending until nobody takes more; returns what was taken. */
static size_t far_floods(struct world *w)
{
    static char block[65536];
    struct iovec iov = {block, sizeof block};
    size_t sent = 0;
    for (int idle = 0; idle < 20;) {
        ssize_t n = sock_send(w->far, &iov, 1, false);
        sent += n > 0 ? (size_t)n : 0;
        idle = n > 0 ? 0 : idle + 1;
        loop_turn(w->loop, NS_PER_MS);
        w->o.events = 0;
    }
    return sent;
}

static void test_kept_is_bounded(void **state)
{
    (void)state;
    struct world w;
    begin_unix(&w);
    w.o.leave = SIZE_MAX;
    size_t sent = far_floods(&w);
    size_t kept = io_unread(w.o.io);
    assert_true(kept > IO_KEPT_MAX && kept <= IO_KEPT_MAX + LOOP_SCRATCH_SIZE);
    assert_at_rest(w.loop);

    /* Taken and resumed, it reads the rest. */
    forget(&w.o);
    w.o.leave = 0;
    io_resume(w.o.io);
    uint64_t end = clock_monotonic() + DEADLINE;
    while (w.o.got.len < sent && clock_monotonic() < end) {
        loop_turn(w.loop, NS_PER_MS);
        w.o.events = 0;
    }
    assert_int_equal(w.o.got.len, sent);
    finish(&w);
}

static void test_consume_outside(void **state)
{
    (void)state;
    struct world w;
    begin(&w);
    w.o.leave = SIZE_MAX;
    far_says(&w, "abc");
    expect(&w.o, "R");
    io_consume(w.o.io, 3);
    w.o.leave = 0;
    io_resume(w.o.io);
    expect(&w.o, "R");
    far_says(&w, "def");
    expect(&w.o, "RR");
    expect_got(&w.o, "def");
    finish(&w);
}

static void test_quiet(void **state)
{
    (void)state;
    struct world w;
    begin(&w);
    assert_true(io_is_quiet(w.o.io));
    far_says(&w, "x");
    wait_for(w.far, POLLOUT);
    assert_false(io_is_quiet(w.o.io));
    w.o.leave = SIZE_MAX;
    expect(&w.o, "R");
    assert_false(io_is_quiet(w.o.io));
    io_consume(w.o.io, 1);
    assert_true(io_is_quiet(w.o.io));
    far_closes(&w);
    assert_false(io_is_quiet(w.o.io));
    expect(&w.o, "RE");
    assert_false(io_is_quiet(w.o.io));
    finish(&w);
}

/* --- the end of the connection ---------------------------------------------------------------------------------- */

static void test_eof(void **state)
{
    (void)state;
    struct world w;
    begin(&w);
    far_says(&w, "last");
    assert_int_equal(sock_shutdown_write(w.far), 0);
    expect(&w.o, "RE");
    expect_got(&w.o, "last");
    assert_true(io_is_eof(w.o.io));
    assert_at_rest(w.loop);
    io_resume(w.o.io);
    expect(&w.o, "RE");                          /* once */
    assert_true(write_all(w.o.io, "answer", 6)); /* the other direction stands */
    expect_far(&w, "answer");
    finish(&w);
}

static void test_eof_behind_kept(void **state)
{
    (void)state;
    struct world w;
    begin(&w);
    w.o.leave = 2;
    far_says(&w, "abcd");
    assert_int_equal(sock_shutdown_write(w.far), 0);
    expect(&w.o, "RE");
    w.o.leave = 0;
    io_resume(w.o.io);
    expect(&w.o, "RER");
    expect_got(&w.o, "abcd");
    finish(&w);
}

static void test_eof_waits_for_resume(void **state)
{
    (void)state;
    struct world w;
    begin(&w);
    w.o.leave = 2;
    w.o.react = IO_READABLE;
    w.o.act = pause_it;
    far_says(&w, "abcd");
    assert_int_equal(sock_shutdown_write(w.far), 0);
    expect(&w.o, "R");
    assert_at_rest(w.loop);
    expect(&w.o, "R");
    w.o.leave = 0;
    w.o.act = NULL;
    io_resume(w.o.io);
    expect(&w.o, "RRE");
    finish(&w);
}

static void test_hangup_while_paused(void **state)
{
    (void)state;
    struct world w;
    for (int tcp = 0; tcp < 2; tcp++) {
        if (tcp)
            begin(&w);
        else
            begin_unix(&w);
        io_pause(w.o.io);
        far_says(&w, "before");
        if (tcp)
            io_shutdown_write(w.o.io); /* both directions closed: a hang-up for TCP too */
        far_closes(&w);
        assert_at_rest(w.loop);
        expect(&w.o, "H");
        io_resume(w.o.io);
        expect(&w.o, "HRE");
        expect_got(&w.o, "before");
        assert_at_rest(w.loop);
        finish(&w);
    }
}

static void test_reset_while_paused(void **state)
{
    (void)state;
    struct world w;
    begin(&w);
    io_pause(w.o.io);
    far_says(&w, "before");
    sock_reset(w.far);
    w.far = -1;
    assert_at_rest(w.loop);
    expect(&w.o, "H");
    io_resume(w.o.io);
    expect(&w.o, "HRX");
    expect_got(&w.o, "before");
    assert_int_equal(io_errno(w.o.io), ECONNRESET);
    assert_false(write_all(w.o.io, "x", 1));
    assert_false(io_flush(w.o.io));
    io_resume(w.o.io);
    expect(&w.o, "HRX");
    finish(&w);
}

static void test_reset_keeps_order(void **state)
{
    (void)state;
    struct world w;
    begin(&w);
    far_says(&w, "before");
    sock_reset(w.far);
    w.far = -1;
    expect(&w.o, "RX");
    expect_got(&w.o, "before");
    assert_at_rest(w.loop);
    finish(&w);
}

/* The far end answers early, and closes with our bytes unread: its kernel resets the connection. */
static void answer_and_go(struct world *w)
{
    assert_true(write_all(w->o.io, "upload", 6));
    wait_for(w->far, POLLIN);
    far_says(w, "413");
    far_closes(w);
}

static void test_early_answer(void **state)
{
    (void)state;
    struct world w;
    begin(&w);
    answer_and_go(&w);
    /* The write meets the reset before the loop has read the answer. */
    assert_false(write_all(w.o.io, "more of it", 10));
    assert_int_equal(w.o.events, 0);
    expect(&w.o, "RX");
    expect_got(&w.o, "413");
    assert_true(io_errno(w.o.io) == EPIPE || io_errno(w.o.io) == ECONNRESET);
    assert_at_rest(w.loop);
    finish(&w);
}

static void test_early_answer_while_paused(void **state)
{
    (void)state;
    struct world w;
    begin(&w);
    io_pause(w.o.io);
    answer_and_go(&w);
    assert_false(write_all(w.o.io, "more of it", 10));
    expect(&w.o, "X");
    io_resume(w.o.io);
    expect(&w.o, "X");
    finish(&w);
}

static void test_early_answer_while_blocked(void **state)
{
    (void)state;
    struct world w;
    char *block = pattern(1 << 20);
    begin_tiny(&w);
    assert_true(write_all(w.o.io, block, 1 << 20));
    assert_true(io_unsent(w.o.io) > 0);
    io_pause(w.o.io); /* the failure comes to light by sending */
    wait_for(w.far, POLLIN);
    far_says(&w, "413");
    far_closes(&w);
    expect(&w.o, "X");
    assert_at_rest(w.loop);
    finish(&w);
    free(block);
}

static void close_it(struct owner *o)
{
    io_close(o->io);
    o->io = NULL;
}

static void test_close_during_salvage(void **state)
{
    (void)state;
    struct world w;
    begin(&w);
    w.o.react = IO_READABLE;
    w.o.act = close_it;
    answer_and_go(&w);
    assert_false(write_all(w.o.io, "more of it", 10));
    expect(&w.o, "R");
    finish(&w);
}

static void test_abort(void **state)
{
    (void)state;
    struct world w;
    begin(&w);
    io_abort(w.o.io);
    w.o.io = NULL;
    assert_int_equal(far_result(&w), -ECONNRESET);
    io_abort(NULL);
    finish(&w);
}

static void test_watch_refused(void **state)
{
    (void)state;
    struct world w;
    int pair[2];
    begin_unix(&w);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair), 0);
    kernel.fail_watch = ENOSPC;
    assert_null(io_new(w.loop, pair[0], on_event, &w.o));
    assert_int_equal(errno, ENOSPC);
    assert_int_equal(sock_connect_result(pair[0]), -EBADF); /* it was closed */
    sock_close(pair[1]);

    /* A hang-up takes the paused one out of epoll; now it cannot come back. */
    kernel.fail_watch = 0;
    io_pause(w.o.io);
    far_closes(&w);
    assert_at_rest(w.loop);
    kernel.fail_watch = ENOMEM;
    io_resume(w.o.io);
    expect(&w.o, "HX");
    assert_int_equal(io_errno(w.o.io), ENOMEM);
    kernel.fail_watch = 0;
    finish(&w);
}

/* --- an accepted one -------------------------------------------------------------------------------------------- */

static void begin_accepted(struct world *w, const char *sent)
{
    int pair[2];
    struct iovec piece = {(char *)sent, strlen(sent)};
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair), 0);
    if (piece.iov_len > 0)
        assert_int_equal(sock_send(pair[1], &piece, 1, false), (ssize_t)piece.iov_len);
    *w = (struct world){.loop = loop_new(), .far = pair[1]};
    assert_non_null(w->loop);
    w->o.loop = w->loop;
    kernel.controls = 0;
    w->o.io = io_accepted(w->loop, pair[0], on_event, &w->o);
    assert_non_null(w->o.io);
    assert_int_equal(w->o.events, 0); /* never from inside of the call */
}

/* What has come with it is read without epoll; and patient until it is closed, it never meets epoll. */
static void test_accepted(void **state)
{
    (void)state;
    struct world w;
    begin_accepted(&w, "hello");
    io_set_patient(w.o.io, true);
    loop_turn(w.loop, 0);
    assert_string_equal(w.o.told, "R");
    assert_memory_equal(buf_bytes(&w.o.got), "hello", 5);
    assert_true(io_write_str(w.o.io, STR("answer"), false));
    io_close(w.o.io);
    assert_int_equal(kernel.controls, 0);
    finish(&w);
}

/* What somebody else has read is told, whether more waits or not; and where the handler takes a part at a time, once a
 * turn. */
static void test_accepted_and_fed(void **state)
{
    (void)state;
    struct world w;
    for (int more = 0; more < 2; more++) {
        begin_accepted(&w, more ? "more" : "");
        assert_true(io_feed(w.o.io, STR("fed")));
        loop_turn(w.loop, 0);
        assert_string_equal(w.o.told, "R");
        expect_got(&w.o, more ? "fedmore" : "fed");
        finish(&w);
    }
    begin_accepted(&w, "");
    assert_true(io_feed(w.o.io, STR("abc")));
    w.o.leave = 2;
    w.o.react = IO_READABLE;
    w.o.act = take_one;
    for (unsigned i = 1; i <= 3; i++) {
        loop_turn(w.loop, 0);
        assert_int_equal(w.o.events, i);
    }
    expect_got(&w.o, "abc");
    finish(&w);
}

/* A handler that takes a part at a time takes no more than one of them in the turn in which the connection comes. */
static void test_accepted_and_read_later(void **state)
{
    (void)state;
    struct world w;
    begin_accepted(&w, "abc");
    w.o.leave = 2;
    w.o.react = IO_READABLE;
    w.o.act = take_one;
    for (unsigned i = 1; i <= 3; i++) {
        loop_turn(w.loop, 0);
        assert_int_equal(w.o.events, i);
    }
    expect_got(&w.o, "abc");
    finish(&w);
}

static void test_accepted_with_nothing(void **state)
{
    (void)state;
    struct world w;
    begin_accepted(&w, "");
    loop_turn(w.loop, 0);
    assert_int_equal(kernel.controls, 1);
    far_says(&w, "late");
    expect(&w.o, "R");
    far_closes(&w);
    expect(&w.o, "RE");
    finish(&w);
}

/* Patient, it is told late; no more patient, at once; and the end of the patience is no news for epoll twice. */
static void test_patience(void **state)
{
    (void)state;
    struct world w;
    begin_accepted(&w, "1");
    io_set_patient(w.o.io, true);
    loop_turn(w.loop, 0);
    assert_string_equal(w.o.told, "R");
    uint64_t begin = loop_now(w.loop);
    far_says(&w, "2");
    expect(&w.o, "RR");
    assert_true(loop_now(w.loop) - begin >= LOOP_SOON);
    assert_int_equal(kernel.controls, 1);
    io_set_patient(w.o.io, false);
    assert_int_equal(kernel.controls, 1);
    finish(&w);

    begin_accepted(&w, "1");
    io_set_patient(w.o.io, true);
    loop_turn(w.loop, 0);
    io_set_patient(w.o.io, false);
    assert_int_equal(kernel.controls, 1);
    far_says(&w, "2");
    loop_turn(w.loop, 0);
    assert_string_equal(w.o.told, "RR");
    finish(&w);
}

/* What must wait for the socket to take it does not wait for epoll besides. */
static void test_patient_and_blocked(void **state)
{
    (void)state;
    struct world w;
    begin_accepted(&w, "1");
    io_set_patient(w.o.io, true);
    loop_turn(w.loop, 0);
    kernel.cut = 1;
    assert_true(io_write_str(w.o.io, STR("answer"), false));
    kernel.cut = 0;
    assert_int_equal(kernel.controls, 1);
    expect(&w.o, "RD");
    finish(&w);
}

static void test_accepted_and_refused_by_epoll(void **state)
{
    (void)state;
    struct world w;
    begin_accepted(&w, "");
    kernel.fail_watch = ENOSPC;
    expect(&w.o, "X");
    assert_int_equal(io_errno(w.o.io), ENOSPC);
    finish(&w);

    kernel.fail_watch = 0;
    begin_accepted(&w, "1");
    io_set_patient(w.o.io, true);
    loop_turn(w.loop, 0);
    kernel.fail_watch = ENOMEM;
    expect(&w.o, "RX");
    assert_int_equal(io_errno(w.o.io), ENOMEM);
    kernel.fail_watch = 0;
    finish(&w);
}

/* --- writing ---------------------------------------------------------------------------------------------------- */

static void test_write(void **state)
{
    (void)state;
    struct world w;
    begin(&w);
    struct iovec iov[] = {{"he", 2}, {"", 0}, {"llo", 3}};
    size_t before = kernel.sends;
    assert_true(io_write(w.o.io, iov, 3, false));
    assert_int_equal(kernel.sends, before + 1);
    assert_int_equal(io_unsent(w.o.io), 0);
    assert_int_equal(io_bytes_out(w.o.io), 5);
    expect_far(&w, "hello");
    assert_true(io_write(w.o.io, iov, 0, false));
    assert_true(io_write_str(w.o.io, STR(""), false));
    assert_true(io_flush(w.o.io));
    assert_int_equal(kernel.sends, before + 1); /* nothing to send, nothing sent */
    expect(&w.o, "");                           /* no DRAINED where nothing waited */
    finish(&w);
}

static void test_more(void **state)
{
    (void)state;
    struct world w;
    begin(&w);
    size_t before = kernel.sends;
    assert_true(io_write_str(w.o.io, STR("head "), true));
    assert_true(io_write_str(w.o.io, STR("field "), true));
    assert_int_equal(io_unsent(w.o.io), 11);
    assert_int_equal(io_bytes_out(w.o.io), 0);
    assert_true(io_write_str(w.o.io, STR("body "), false));
    assert_int_equal(kernel.sends, before + 1);
    assert_int_equal(io_unsent(w.o.io), 0);

    assert_true(io_write_str(w.o.io, STR("flushed"), true));
    assert_true(io_flush(w.o.io));
    assert_int_equal(kernel.sends, before + 2);
    expect_far(&w, "head field body flushed");
    expect(&w.o, "");
    finish(&w);
}

/* What stands behind something unsent, of any length: copied there or not, it goes in one call, in order. */
static void test_behind_unsent(void **state)
{
    (void)state;
    struct world w;
    char *sent = pattern(4096), *got = malloc(4096);
    assert_non_null(got);
    begin(&w);
    for (size_t n = 1; n < 3000; n = n * 3 / 2 + 1)
        for (size_t first = 0; first <= n; first += n / 2 + 1) {
            struct iovec iov[] = {{sent + 10, first}, {sent + 10 + first, n - first}};
            size_t sends = kernel.sends;
            assert_true(io_write_str(w.o.io, str_make(sent, 10), true));
            assert_true(io_write(w.o.io, iov, 2, false));
            assert_int_equal(kernel.sends, sends + 1);
            assert_int_equal(io_unsent(w.o.io), 0);
            assert_int_equal(far_reads(&w, got, 10 + n), 10 + n);
            assert_memory_equal(got, sent, 10 + n);
        }
    finish(&w);
    free(sent);
    free(got);
}

/* Up to a kilobyte in all leaves as one piece, unsent or not, and not one byte more. */
static void test_short_pieces_leave_as_one(void **state)
{
    (void)state;
    struct world w;
    char *sent = pattern(2048), got[2048];
    begin(&w);
    for (size_t n = 1023; n <= 1025; n++) {
        struct iovec iov[] = {{sent, 300}, {sent + 300, n - 300}};
        assert_true(io_write(w.o.io, iov, 2, false));
        assert_int_equal(kernel.pieces, n <= 1024 ? 1 : 2);
        assert_int_equal(far_reads(&w, got, n), n);
        assert_memory_equal(got, sent, n);
        struct iovec rest[] = {{sent + 10, 300}, {sent + 310, n - 310}};
        assert_true(io_write_str(w.o.io, str_make(sent, 10), true));
        assert_true(io_write(w.o.io, rest, 2, false));
        assert_int_equal(kernel.pieces, n <= 1024 ? 1 : 3);
        assert_int_equal(far_reads(&w, got, n), n);
        assert_memory_equal(got, sent, n);
    }
    finish(&w);
    free(sent);
}

static void test_backpressure(void **state)
{
    (void)state;
    struct world w;
    size_t n = 3u << 20;
    char *sent = pattern(n), *got = malloc(n);
    assert_non_null(got);
    begin_tiny(&w);
    /* Whole pieces beyond what the socket takes: the unsent ones stand behind each other in order. */
    struct iovec iov[] = {{sent, 10}, {sent + 10, n / 2}, {sent + 10 + n / 2, n / 4}};
    assert_true(io_write(w.o.io, iov, 3, false));
    size_t written = 10 + n / 2 + n / 4;
    assert_true(io_is_full(w.o.io));
    assert_int_equal(io_unsent(w.o.io) + io_bytes_out(w.o.io), written);
    assert_at_rest(w.loop);

    size_t before = kernel.sends;
    assert_true(write_all(w.o.io, sent + written, n - written));
    assert_true(io_flush(w.o.io));
    assert_int_equal(kernel.sends, before); /* the kernel is not asked what it has refused */
    assert_int_equal(far_reads(&w, got, n), n);
    assert_memory_equal(got, sent, n);
    expect(&w.o, "D");
    assert_int_equal(io_unsent(w.o.io), 0);
    assert_false(io_is_full(w.o.io));
    assert_int_equal(io_bytes_out(w.o.io), n);
    assert_at_rest(w.loop);
    finish(&w);
    free(sent);
    free(got);
}

static void test_blocks_are_given_back(void **state)
{
    (void)state;
    struct world w;
    static char block[1 << 20], got[1 << 20];
    begin_tiny(&w);
    assert_true(buf_reserve(&w.o.got, 100));
    loop_turn(w.loop, 0);
    size_t at_rest = kernel.blocks;
    far_says(&w, "abc");
    expect(&w.o, "R");
    assert_int_equal(kernel.blocks, at_rest); /* nothing left, nothing kept */
    w.o.leave = 2;
    far_says(&w, "abc");
    expect(&w.o, "RR");
    assert_int_equal(kernel.blocks, at_rest + 1);
    w.o.leave = 0;
    io_resume(w.o.io);
    expect(&w.o, "RRR");
    assert_int_equal(kernel.blocks, at_rest);

    assert_true(write_all(w.o.io, block, sizeof block));
    assert_int_equal(kernel.blocks, at_rest + 1);
    assert_int_equal(far_reads(&w, got, sizeof got), sizeof got);
    expect(&w.o, "RRRD");
    assert_int_equal(kernel.blocks, at_rest);
    finish(&w);
}

static void test_short_sends(void **state)
{
    (void)state;
    struct world w;
    begin(&w);
    kernel.cut = 3;
    struct iovec iov[] = {{"one ", 4}, {"two ", 4}, {"three", 5}};
    assert_true(io_write_str(w.o.io, STR("zero "), true));
    assert_true(io_write(w.o.io, iov, 3, false));
    expect_far(&w, "zero one two three");
    kernel.cut = 0;
    expect(&w.o, "D");
    finish(&w);
}

static void test_fin_behind_unsent(void **state)
{
    (void)state;
    struct world w;
    size_t n = 1u << 20;
    char *sent = pattern(n), *got = malloc(n);
    assert_non_null(got);
    begin_tiny(&w);
    assert_true(write_all(w.o.io, sent, n));
    io_shutdown_write(w.o.io);
    io_shutdown_write(w.o.io);
    assert_int_equal(far_reads(&w, got, n), n);
    assert_memory_equal(got, sent, n);
    assert_int_equal(far_result(&w), 0);
    far_says(&w, "reading goes on");
    expect(&w.o, "DR");
    finish(&w);
    free(sent);
    free(got);
}

static void test_fin_sends_more(void **state)
{
    (void)state;
    struct world w;
    begin(&w);
    assert_true(io_write_str(w.o.io, STR("tail"), true));
    io_shutdown_write(w.o.io);
    expect_far(&w, "tail");
    assert_int_equal(far_result(&w), 0);
    finish(&w);
}

/* One request and its answer: a recv(), a send(), nothing else. */
static void answer(struct owner *o)
{
    struct iovec iov[] = {{"head", 4}, {"body", 4}};
    assert_true(io_write(o->io, iov, 2, false));
    io_set_read_timeout(o->io, IO_BY, 10 * NS_PER_S);
}

static void test_cheap_path(void **state)
{
    (void)state;
    struct world w;
    begin(&w);
    w.o.react = IO_READABLE;
    w.o.act = answer;
    io_set_read_timeout(w.o.io, IO_PROGRESS, 10 * NS_PER_S);
    io_set_write_timeout(w.o.io, 10 * NS_PER_S);
    loop_turn(w.loop, 0);
    for (int i = 0; i < 10; i++) {
        far_says(&w, "request");
        size_t recvs = kernel.recvs, sends = kernel.sends, controls = kernel.controls;
        turn_until(w.loop, &w.o, (size_t)i + 1);
        assert_int_equal(kernel.recvs, recvs + 1);
        assert_int_equal(kernel.sends, sends + 1);
        assert_int_equal(kernel.controls, controls);
        expect_far(&w, "headbody");
    }
    finish(&w);
}

/* --- connecting ------------------------------------------------------------------------------------------------- */

static void begin_connecting(struct world *w, const struct addr *to, uint64_t timeout_ns)
{
    int error = 0;
    *w = (struct world){.loop = loop_new(), .far = -1};
    w->o.loop = w->loop;
    w->o.io = io_connect(w->loop, to, timeout_ns, on_event, &w->o, &error);
    assert_non_null(w->o.io);
    assert_int_equal(w->o.events, 0);
}

static void far_accepts(struct world *w, int listener)
{
    struct addr from;
    wait_for(listener, POLLIN);
    w->far = sock_accept(listener, &from);
    assert_true(w->far >= 0);
}

static void test_connect(void **state)
{
    (void)state;
    struct world w;
    struct addr at;
    int listener = listen_here(&at, 0);
    begin_connecting(&w, &at, 50 * NS_PER_MS);
    far_accepts(&w, listener);
    expect(&w.o, "C");
    far_says(&w, "welcome");
    expect(&w.o, "CR");
    assert_at_rest(w.loop); /* the time-out was for the connect */
    expect(&w.o, "CR");
    assert_true(write_all(w.o.io, "thanks", 6));
    expect_far(&w, "thanks");
    finish(&w);
    sock_close(listener);
}

static void write_it(struct owner *o)
{
    assert_true(io_write_str(o->io, STR("two"), false));
}

static void test_write_before_connected(void **state)
{
    (void)state;
    struct world w;
    struct addr at;
    int listener = listen_here(&at, 0);
    begin_connecting(&w, &at, 0);
    assert_true(io_write_str(w.o.io, STR("one "), false));
    w.o.react = IO_CONNECTED;
    w.o.act = write_it;
    size_t sends = kernel.sends;
    expect(&w.o, "CD");
    assert_int_equal(kernel.sends, sends + 1);
    far_accepts(&w, listener);
    expect_far(&w, "one two");
    far_says(&w, "ok");
    expect(&w.o, "CDR");
    finish(&w);

    begin_connecting(&w, &at, 0);
    assert_true(io_write_str(w.o.io, STR("all"), true));
    io_shutdown_write(w.o.io);
    expect(&w.o, "CD");
    far_accepts(&w, listener);
    expect_far(&w, "all");
    assert_int_equal(far_result(&w), 0);
    finish(&w);

    begin_connecting(&w, &at, 0);
    io_shutdown_write(w.o.io);
    io_pause(w.o.io);
    expect(&w.o, "C");
    far_accepts(&w, listener);
    assert_int_equal(far_result(&w), 0);
    far_says(&w, "unseen");
    expect(&w.o, "C");
    finish(&w);
    sock_close(listener);
}

static void test_connect_refused(void **state)
{
    (void)state;
    struct world w;
    struct addr at;
    sock_close(listen_here(&at, 0));
    begin_connecting(&w, &at, 0);
    assert_true(io_write_str(w.o.io, STR("never"), false));
    expect(&w.o, "X");
    assert_int_equal(io_errno(w.o.io), ECONNREFUSED);
    assert_int_equal(io_bytes_out(w.o.io), 0);
    finish(&w);
}

static void test_connect_unix(void **state)
{
    (void)state;
    struct world w;
    struct endpoint e;
    const char *why;
    char text[64];
    int error = 0;
    snprintf(text, sizeof text, "unix:/tmp/test_io.%d", (int)getpid());
    assert_true(endpoint_parse(str_of(text), false, &e, &why));
    int listener = sock_listen(&e.addr, 16);
    assert_true(listener >= 0);
    begin_connecting(&w, &e.addr, 0);
    expect(&w.o, "C");
    far_accepts(&w, listener);
    far_says(&w, "hello");
    far_closes(&w);
    expect(&w.o, "CRE");
    sock_close(listener);
    sock_unlink(&e.addr);
    assert_null(io_connect(w.loop, &e.addr, 0, on_event, &w.o, &error));
    assert_int_equal(error, ENOENT);
    finish(&w);
}

static void test_connect_timeout(void **state)
{
    (void)state;
    struct world w;
    struct addr at = loopback();
    int listener = sock_listen(&at, 0), fillers[4];
    bool in_progress;
    assert_true(listener >= 0);
    assert_int_equal(sock_local_addr(listener, &at), 0);
    /* A backlog that is full: the kernel drops what comes, and the connect hangs. */
    for (size_t i = 0; i < 4; i++)
        fillers[i] = sock_connect(&at, &in_progress);
    begin_connecting(&w, &at, 30 * NS_PER_MS);
    expect(&w.o, "t");
    finish(&w);
    for (size_t i = 0; i < 4; i++)
        sock_close(fillers[i]);
    sock_close(listener);
}

/* --- time ------------------------------------------------------------------------------------------------------- */

static void test_read_deadline(void **state)
{
    (void)state;
    struct world w;
    begin(&w);
    uint64_t start = loop_now(w.loop); /* it counts from the turn's begin */
    io_set_read_timeout(w.o.io, IO_BY, 20 * NS_PER_MS);
    far_says(&w, "x");
    expect(&w.o, "Rt"); /* bytes do not put it off */
    assert_true(clock_monotonic() - start >= 20 * NS_PER_MS);
    assert_at_rest(w.loop);
    expect(&w.o, "Rt"); /* told once */
    io_set_read_timeout(w.o.io, IO_BY, 10 * NS_PER_MS);
    expect(&w.o, "Rtt");
    io_set_read_timeout(w.o.io, IO_BY, 10 * NS_PER_MS);
    io_set_read_timeout(w.o.io, IO_BY, 0);
    assert_at_rest(w.loop);
    expect(&w.o, "Rtt");
    finish(&w);
}

/* A turn that comes late finds both: what the other end has said before our patience ended is no silence. */
static void test_eof_before_deadline(void **state)
{
    (void)state;
    struct world w;
    for (int by = 0; by < 2; by++) {
        begin(&w);
        io_set_read_timeout(w.o.io, by ? IO_BY : IO_PROGRESS, 100 * NS_PER_MS);
        uint64_t late = clock_monotonic() + 120 * NS_PER_MS;
        far_says(&w, "last");
        loop_turn(w.loop, 0);
        assert_string_equal(w.o.told, "R");
        assert_int_equal(sock_shutdown_write(w.far), 0);
        while (clock_monotonic() < late)
            ;
        loop_turn(w.loop, 0);
        assert_string_equal(w.o.told, "RE");
        expect(&w.o, "REt"); /* the deadline stands for what its owner may still wait for */
        finish(&w);
    }
}

/* What moved in a turn that was held up has not been silent for as long. */
static void stall(struct owner *owner)
{
    (void)owner;
    uint64_t end = clock_monotonic() + 400 * NS_PER_MS;
    while (clock_monotonic() < end)
        ;
}

static void test_held_up(void **state)
{
    (void)state;
    struct world w;
    begin(&w);
    w.o.react = IO_READABLE;
    w.o.act = stall;
    io_set_read_timeout(w.o.io, IO_PROGRESS, 300 * NS_PER_MS);
    far_says(&w, "x");
    loop_turn(w.loop, 0);
    assert_string_equal(w.o.told, "R");
    loop_turn(w.loop, 0);
    assert_string_equal(w.o.told, "R");
    uint64_t begun = clock_monotonic();
    expect(&w.o, "Rt");
    assert_true(clock_monotonic() - begun >= 200 * NS_PER_MS);
    finish(&w);
}

static void test_deadline_moves_earlier(void **state)
{
    (void)state;
    struct world w;
    begin(&w);
    io_set_read_timeout(w.o.io, IO_BY, UINT64_MAX);
    io_set_read_timeout(w.o.io, IO_BY, 3600 * NS_PER_S);
    loop_turn(w.loop, 0);
    io_set_read_timeout(w.o.io, IO_BY, 10 * NS_PER_MS);
    expect(&w.o, "t");
    finish(&w);
}

static void test_progress(void **state)
{
    (void)state;
    struct world w;
    begin(&w);
    io_set_read_timeout(w.o.io, IO_PROGRESS, 200 * NS_PER_MS);
    uint64_t start = clock_monotonic(), last = start;
    /* Bytes more often than the time allowed, for longer than it. */
    while (last - start < 400 * NS_PER_MS) {
        far_says(&w, ".");
        last = clock_monotonic();
        loop_turn(w.loop, 20 * NS_PER_MS);
        assert_null(strchr(w.o.told, 't'));
        forget(&w.o);
        loop_turn(w.loop, 10 * NS_PER_MS);
    }
    turn_until(w.loop, &w.o, 1);
    while (!strchr(w.o.told, 't') && clock_monotonic() - last < DEADLINE)
        loop_turn(w.loop, 10 * NS_PER_MS);
    assert_non_null(strchr(w.o.told, 't'));
    assert_true(clock_monotonic() - last >= 180 * NS_PER_MS);
    finish(&w);
}

static void test_progress_rests_in_pause(void **state)
{
    (void)state;
    struct world w;
    begin(&w);
    io_set_read_timeout(w.o.io, IO_PROGRESS, 20 * NS_PER_MS);
    io_pause(w.o.io);
    assert_at_rest(w.loop); /* longer than that */
    expect(&w.o, "");
    uint64_t start = clock_monotonic();
    loop_turn(w.loop, 0);
    io_resume(w.o.io);
    expect(&w.o, "t");
    assert_true(clock_monotonic() - start >= 20 * NS_PER_MS);

    forget(&w.o);
    io_set_read_timeout(w.o.io, IO_BY, 20 * NS_PER_MS);
    io_pause(w.o.io);
    expect(&w.o, "t");
    finish(&w);
}

static void test_write_deadline(void **state)
{
    (void)state;
    struct world w;
    size_t n = 1u << 20;
    char *sent = pattern(n), *got = malloc(n);
    assert_non_null(got);
    begin_tiny(&w);
    io_set_write_timeout(w.o.io, 20 * NS_PER_MS);
    assert_at_rest(w.loop);
    expect(&w.o, ""); /* nothing is unsent: it does not run */
    assert_true(write_all(w.o.io, sent, n));
    expect(&w.o, "w");
    assert_at_rest(w.loop);
    expect(&w.o, "w");
    io_set_read_timeout(w.o.io, IO_BY, NS_PER_MS);
    io_set_write_timeout(w.o.io, NS_PER_MS);
    turn_until(w.loop, &w.o, 3);
    assert_string_equal(w.o.told, "wtw"); /* both due at once: one after the other */
    assert_int_equal(far_reads(&w, got, n), n);
    assert_memory_equal(got, sent, n);
    finish(&w);
    free(sent);
    free(got);
}

static void test_write_progress(void **state)
{
    (void)state;
    struct world w;
    static char block[1 << 20], got[4096];
    int pair[2], small = sizeof got;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair), 0);
    setsockopt(pair[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof small);
    begin_with(&w, pair[0], pair[1]);
    io_set_write_timeout(w.o.io, 200 * NS_PER_MS);
    loop_turn(w.loop, 0);
    assert_true(write_all(w.o.io, block, sizeof block));
    /* Some is taken more often than the time allowed, for longer than it. */
    for (uint64_t end = clock_monotonic() + 400 * NS_PER_MS; clock_monotonic() < end;) {
        assert_true(sock_recv(w.far, got, sizeof got) > 0);
        loop_turn(w.loop, 0);
        loop_turn(w.loop, 10 * NS_PER_MS);
        assert_true(io_unsent(w.o.io) > 0);
        assert_string_equal(w.o.told, "");
    }
    expect(&w.o, "w");
    finish(&w);
}

/* --- owners that act inside their handler ----------------------------------------------------------------------- */

static void test_close_in_every_handler(void **state)
{
    (void)state;
    struct world w;
    struct addr at;
    int listener = listen_here(&at, 0);
    static const enum io_event events[] = {IO_READABLE, IO_EOF,     IO_TIMEOUT_READ,
                                           IO_ERROR,    IO_DRAINED, IO_TIMEOUT_WRITE};
    char *block = pattern(1 << 20);
    for (size_t i = 0; i < sizeof events / sizeof *events; i++) {
        begin_tiny(&w);
        w.o.react = events[i];
        w.o.act = close_it;
        if (events[i] == IO_TIMEOUT_READ)
            io_set_read_timeout(w.o.io, IO_BY, NS_PER_MS);
        io_set_write_timeout(w.o.io, events[i] == IO_TIMEOUT_WRITE ? NS_PER_MS : 0);
        if (events[i] >= IO_TIMEOUT_WRITE || events[i] == IO_DRAINED)
            assert_true(write_all(w.o.io, block, 1 << 20));
        if (events[i] == IO_READABLE || events[i] == IO_EOF) {
            far_says(&w, "bye");
            far_closes(&w);
        } else if (events[i] == IO_ERROR) {
            sock_reset(w.far);
            w.far = -1;
        } else if (events[i] == IO_DRAINED) {
            char *got = malloc(1 << 20);
            assert_non_null(got);
            far_reads(&w, got, 1 << 20);
            free(got);
        }
        for (uint64_t end = clock_monotonic() + DEADLINE; w.o.io && clock_monotonic() < end;)
            loop_turn(w.loop, 10 * NS_PER_MS);
        assert_null(w.o.io);
        size_t told = w.o.events;
        loop_turn(w.loop, 0);
        loop_turn(w.loop, 0);
        assert_int_equal(w.o.events, told); /* nothing more is told */
        finish(&w);
    }
    free(block);

    begin_connecting(&w, &at, NS_PER_S);
    w.o.react = IO_CONNECTED;
    w.o.act = close_it;
    expect(&w.o, "C");
    finish(&w);
    sock_close(listener);
}

static struct owner second;

static void hand_over(struct owner *o)
{
    second = (struct owner){.io = o->io, .loop = o->loop};
    io_set_owner(o->io, on_event, &second);
    io_resume(o->io); /* the new owner is to see what is left */
}

static void test_new_owner(void **state)
{
    (void)state;
    struct world w;
    begin(&w);
    w.o.react = IO_READABLE;
    w.o.act = hand_over;
    w.o.leave = 4;
    far_says(&w, "mineyour");
    expect(&w.o, "R");
    expect(&second, "R");
    expect_got(&w.o, "mine");
    expect_got(&second, "your");
    far_closes(&w);
    expect(&second, "RE");
    expect(&w.o, "R");
    finish(&w);
    buf_fini(&second.got);
}

static void test_two_on_one_scratch(void **state)
{
    (void)state;
    struct world a, b;
    int pair[2];
    begin(&a);
    tcp_pair(pair, 0);
    b = (struct world){.loop = a.loop, .far = pair[1], .o.loop = a.loop, .o.leave = 3};
    b.o.io = io_new(a.loop, pair[0], on_event, &b.o);
    a.o.leave = 3;
    far_says(&a, "a1a2a3");
    far_says(&b, "b1b2b3");
    expect(&a.o, "R");
    expect(&b.o, "R");
    a.o.leave = b.o.leave = 0;
    far_says(&a, "a4");
    far_says(&b, "b4");
    expect(&a.o, "RR");
    expect(&b.o, "RR");
    expect_got(&a.o, "a1a2a3a4");
    expect_got(&b.o, "b1b2b3b4");
    io_close(b.o.io);
    far_closes(&b);
    buf_fini(&b.o.got);
    finish(&a);
}

static void test_close_with_event_pending(void **state)
{
    (void)state;
    struct world w;
    begin(&w);
    w.o.leave = SIZE_MAX;
    far_says(&w, "x");
    expect(&w.o, "R");
    io_resume(w.o.io);
    io_close(w.o.io);
    io_close(w.o.io); /* still there, and closed already */
    loop_turn(w.loop, 0);
    assert_string_equal(w.o.told, "R");
    w.o.io = NULL;
    io_close(NULL);
    finish(&w);
}

/* --- lingering -------------------------------------------------------------------------------------------------- */

static void note_ended(void *arg)
{
    ++*(unsigned *)arg;
}

static unsigned ended; /* how many have told so */

static struct lingerer *let_linger(struct world *w, uint64_t idle_ns, uint64_t total_ns)
{
    struct io_lingering how = {.idle_ns = idle_ns, .total_ns = total_ns, .ended = note_ended, .arg = &ended};
    ended = 0;
    struct lingerer *g = io_close_lingering(w->o.io, &how);
    w->o.io = NULL;
    return g;
}

static void turn_until_none_lingers(struct world *w)
{
    for (uint64_t end = clock_monotonic() + DEADLINE; io_lingering(w->loop) > 0 && clock_monotonic() < end;)
        loop_turn(w->loop, 10 * NS_PER_MS);
    assert_int_equal(io_lingering(w->loop), 0);
    assert_int_equal(io_count(), 0);
}

static void test_linger(void **state)
{
    (void)state;
    struct world w;
    begin(&w);
    w.o.leave = SIZE_MAX;
    far_says(&w, "too much");
    expect(&w.o, "R");
    assert_true(write_all(w.o.io, "413", 3));
    assert_non_null(let_linger(&w, DEADLINE, DEADLINE));
    assert_int_equal(io_lingering(w.loop), 1);
    assert_int_equal(io_count(), 1);
    expect_far(&w, "413");
    assert_int_equal(far_result(&w), 0); /* FIN, no reset */
    far_says(&w, "still coming");
    loop_turn(w.loop, DEADLINE);
    assert_int_equal(io_lingering(w.loop), 1);
    assert_int_equal(sock_shutdown_write(w.far), 0);
    turn_until_none_lingers(&w);
    expect(&w.o, "R"); /* the old owner hears nothing */
    finish(&w);
}

static void test_linger_sends_first(void **state)
{
    (void)state;
    struct world w;
    size_t n = 1u << 20;
    char *sent = pattern(n), *got = malloc(n);
    assert_non_null(got);
    for (int round = 0; round < 4; round++) {
        begin_tiny(&w);
        assert_true(write_all(w.o.io, sent, n));
        if (round == 1)
            io_shutdown_write(w.o.io);
        io_set_read_timeout(w.o.io, IO_BY, NS_PER_MS); /* the owner's, which goes with it */
        far_says(&w, "unread");
        w.o.leave = SIZE_MAX;
        if (round == 0)
            turn_until(w.loop, &w.o, 1);
        if (round == 2)
            assert_int_equal(sock_shutdown_write(w.far), 0);
        /* Also where no time is given everything is sent. */
        assert_non_null(let_linger(&w, round == 3 ? 0 : DEADLINE, round == 3 ? 0 : DEADLINE));
        assert_at_rest(w.loop);
        assert_int_equal(io_lingering(w.loop), 1);
        assert_int_equal(far_reads(&w, got, n), n);
        assert_memory_equal(got, sent, n);
        far_closes(&w);
        turn_until_none_lingers(&w);
        finish(&w);
    }
    free(sent);
    free(got);
}

static void test_linger_ends(void **state)
{
    (void)state;
    struct world w;
    char *block = pattern(1 << 20);
    begin(&w); /* by time without bytes */
    let_linger(&w, 20 * NS_PER_MS, 3600 * NS_PER_S);
    turn_until_none_lingers(&w);
    assert_int_equal(ended, 1);
    finish(&w);

    begin(&w); /* by time in all: bytes put off the end only up to that */
    let_linger(&w, 100 * NS_PER_MS, 400 * NS_PER_MS);
    uint64_t since = clock_monotonic(), took = 0;
    while (io_lingering(w.loop) > 0) {
        struct iovec more = {block, 1000};
        (void)!sock_send(w.far, &more, 1, false);
        loop_turn(w.loop, 10 * NS_PER_MS);
        usleep(5000);
        took = clock_monotonic() - since;
    }
    assert_true(took >= 400 * NS_PER_MS && took < DEADLINE);
    finish(&w);

    begin(&w); /* by a reset */
    let_linger(&w, 3600 * NS_PER_S, 3600 * NS_PER_S);
    sock_reset(w.far);
    w.far = -1;
    turn_until_none_lingers(&w);
    finish(&w);

    begin(&w); /* at once: the other end has closed before */
    assert_int_equal(sock_shutdown_write(w.far), 0);
    expect(&w.o, "E");
    assert_null(let_linger(&w, 3600 * NS_PER_S, 3600 * NS_PER_S));
    assert_int_equal(io_lingering(w.loop), 0);
    assert_int_equal(ended, 0);
    finish(&w);

    begin_tiny(&w); /* by the write time-out that the owner has set */
    io_set_write_timeout(w.o.io, 20 * NS_PER_MS);
    assert_true(write_all(w.o.io, block, 1 << 20));
    let_linger(&w, 3600 * NS_PER_S, 3600 * NS_PER_S);
    turn_until_none_lingers(&w);
    finish(&w);

    begin(&w); /* at once: it is broken, and its owner knows */
    sock_reset(w.far);
    w.far = -1;
    expect(&w.o, "X");
    let_linger(&w, 3600 * NS_PER_S, 3600 * NS_PER_S);
    assert_int_equal(io_lingering(w.loop), 0);
    finish(&w);
    free(block);
}

/* Those that linger can be ended, one by one, or told to be quick. */
static void test_linger_no_longer(void **state)
{
    (void)state;
    struct world w;
    begin(&w);
    lingerer_end(let_linger(&w, DEADLINE, DEADLINE));
    assert_int_equal(io_lingering(w.loop) + ended, 0);
    finish(&w);

    char *block = pattern(1 << 20), *got = malloc(1 << 20);
    for (int sending = 0; sending < 2; sending++) {
        begin_tiny(&w);
        if (sending)
            assert_true(write_all(w.o.io, block, 1 << 20));
        let_linger(&w, 3600 * NS_PER_S, 3600 * NS_PER_S);
        io_hurry_lingering(w.loop, 20 * NS_PER_MS);
        io_hurry_lingering(w.loop, 3600 * NS_PER_S);
        if (sending)
            assert_int_equal(far_reads(&w, got, 1 << 20), 1 << 20);
        turn_until_none_lingers(&w);
        assert_int_equal(ended, 1);
        finish(&w);
    }
    free(block);
    free(got);
}

static void test_linger_in_handler(void **state)
{
    (void)state;
    struct world w;
    begin(&w);
    w.o.leave = SIZE_MAX;
    w.o.react = IO_READABLE;
    w.o.act = pause_it;
    far_says(&w, "abc");
    expect(&w.o, "R");
    far_says(&w, "def");
    let_linger(&w, 3600 * NS_PER_S, 3600 * NS_PER_S); /* paused before */
    far_closes(&w);
    turn_until_none_lingers(&w);
    finish(&w);
}

static void test_linger_while_connecting(void **state)
{
    (void)state;
    struct world w;
    struct addr at;
    int listener = listen_here(&at, 0);
    begin_connecting(&w, &at, NS_PER_S);
    let_linger(&w, 20 * NS_PER_MS, 20 * NS_PER_MS);
    turn_until_none_lingers(&w);
    finish(&w);
    sock_close(listener);
}

static void test_end_lingering(void **state)
{
    (void)state;
    struct world w;
    char *block = pattern(1 << 20);
    begin_tiny(&w);
    struct loop *unrelated = loop_new();
    assert_true(write_all(w.o.io, block, 1 << 20));
    let_linger(&w, 3600 * NS_PER_S, 3600 * NS_PER_S);
    int pair[2];
    tcp_pair(pair, 0);
    w.o.io = io_new(w.loop, pair[0], on_event, &w.o);
    let_linger(&w, 3600 * NS_PER_S, 3600 * NS_PER_S);
    assert_int_equal(io_lingering(w.loop), 2);
    assert_int_equal(io_lingering(unrelated), 0);
    assert_int_equal(io_end_lingering(unrelated), 0);
    assert_int_equal(io_end_lingering(w.loop), 1);
    assert_int_equal(io_lingering(w.loop), 0);
    assert_int_equal(ended, 2);
    loop_free(unrelated);
    sock_close(pair[1]);
    finish(&w);
    free(block);
}

/* --- memory runs out -------------------------------------------------------------------------------------------- */

struct scarce {
    struct io *io;
    bool failed;
};

/* Leaves half of what it sees, and allocates nothing itself. */
static void on_scarce(void *arg, struct io *io, enum io_event event)
{
    struct scarce *s = arg;
    size_t n;
    assert_false(s->failed);
    if (event == IO_READABLE) {
        io_data(io, &n);
        io_consume(io, n / 2);
    } else if (event == IO_ERROR) {
        assert_true(io_errno(io) == ENOMEM || io_errno(io) == EPIPE);
        s->failed = true;
    }
}

static void use_scarce(struct world *w, struct scarce *s, struct str block)
{
    struct iovec some = {(char *)block.p, 1000};
    io_set_read_timeout(s->io, IO_BY, 3600 * NS_PER_S);
    io_set_write_timeout(s->io, 3600 * NS_PER_S);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(sock_send(w->far, &some, 1, false), some.iov_len);
        loop_turn(w->loop, 0);
        io_resume(s->io);
        loop_turn(w->loop, 0);
    }
    bool taken = io_write_str(s->io, STR("head"), true) && io_write_str(s->io, block, false);
    loop_turn(w->loop, 0);
    assert_int_equal(taken, !s->failed);
}

/* One life of an endpoint in which allocation number `fail` fails. False when there are not so many. */
static bool live_with_failure(size_t fail, struct str block, bool linger, bool deferring)
{
    struct world w;
    struct scarce s = {0};
    int pair[2], small = 4096;
    w.loop = loop_new();
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair), 0);
    setsockopt(pair[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof small);
    w.far = pair[1];
    kernel.allocations = 0;
    kernel.fail_allocation = fail;
    kernel.counting = true;
    s.io = io_new(w.loop, pair[0], on_scarce, &s);
    if (s.io) {
        io_set_deferring(s.io, deferring);
        use_scarce(&w, &s, block);
    }
    if (s.io && linger)
        (void)io_close_lingering(s.io, &(struct io_lingering){.idle_ns = NS_PER_S, .total_ns = NS_PER_S});
    else if (s.io && !s.failed)
        far_says(&w, "last words");
    far_closes(&w);
    if (s.io && !linger)
        (void)io_write_str(s.io, STR("too late"), false);
    for (int i = 0; i < 4; i++)
        loop_turn(w.loop, 0);
    kernel.counting = false;
    if (!linger)
        io_close(s.io);
    assert_int_equal(io_count(), 0);
    loop_free(w.loop);
    return kernel.allocations > fail;
}

static void test_out_of_memory(void **state)
{
    (void)state;
    static char bytes[256 * 1024];
    for (int kind = 0; kind < 4; kind++) {
        size_t fail = 0;
        while (live_with_failure(fail, str_make(bytes, sizeof bytes), kind % 2, kind / 2))
            fail++;
        assert_true(fail >= 5); /* the endpoint, the timer, what is kept, twice what is unsent */
    }
}

/* What cannot be left to itself is not passed off as whole: with bytes unsent the end is a reset. */
static void test_lingering_without_memory(void **state)
{
    (void)state;
    static char bytes[1024 * 1024];
    char got[4096];
    struct world w;
    ssize_t n;
    begin_tiny(&w);
    assert_true(io_write_str(w.o.io, str_make(bytes, sizeof bytes), false));
    assert_true(io_unsent(w.o.io) > 0);
    kernel.allocations = kernel.fail_allocation = 0;
    kernel.counting = true;
    assert_null(let_linger(&w, NS_PER_S, NS_PER_S));
    kernel.counting = false;
    do {
        wait_for(w.far, POLLIN);
        n = sock_recv(w.far, got, sizeof got);
    } while (n > 0);
    assert_int_equal(n, -ECONNRESET);
    finish(&w);
}

/* --- a property: whatever the sizes, pauses and partial reads, the bytes arrive as they were written ------------- */

#define STREAM (4u << 20)

struct stream {
    struct io *from, *to;
    const char *data;
    size_t written, read;
    bool drained, ended;
};

static void stream_write(struct stream *s)
{
    while (s->written < STREAM && !io_is_full(s->from)) {
        struct iovec iov[IO_PIECES_MAX];
        int pieces = 1 + rand() % IO_PIECES_MAX;
        for (int i = 0; i < pieces; i++) {
            size_t n = (size_t)rand() % (rand() % 8 ? 3000 : 60000), left = STREAM - s->written;
            iov[i] = (struct iovec){(char *)s->data + s->written, n < left ? n : left};
            s->written += iov[i].iov_len;
        }
        assert_true(io_write(s->from, iov, pieces, rand() % 4 == 0));
    }
    assert_true(io_flush(s->from));
    if (s->written == STREAM)
        io_shutdown_write(s->from);
}

static void on_source(void *arg, struct io *io, enum io_event event)
{
    (void)io;
    assert_int_equal(event, IO_DRAINED);
    stream_write(arg);
}

static void on_sink(void *arg, struct io *io, enum io_event event)
{
    struct stream *s = arg;
    size_t n;
    if (event == IO_EOF) {
        s->ended = true;
        return;
    }
    assert_int_equal(event, IO_READABLE);
    const char *p = io_data(io, &n);
    if (rand() % 3 == 0)
        n = (size_t)rand() % (n + 1);
    assert_true(s->read + n <= STREAM);
    assert_memory_equal(p, s->data + s->read, n);
    io_consume(io, n);
    s->read += n;
    if (rand() % 3 == 0)
        io_pause(io);
}

static void run_stream(unsigned seed, bool tcp, int buffer, size_t cut)
{
    int pair[2];
    char *data = pattern(STREAM);
    struct loop *l = loop_new();
    srand(seed);
    if (tcp)
        tcp_pair(pair, buffer);
    else
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair), 0);
    struct stream s = {.data = data};
    s.from = io_new(l, pair[0], on_source, &s);
    io_set_deferring(s.from, seed % 2);
    s.to = io_new(l, pair[1], on_sink, &s);
    kernel.cut = cut;
    stream_write(&s);
    for (uint64_t end = clock_monotonic() + 12 * DEADLINE; !(s.ended && s.read == STREAM) && clock_monotonic() < end;) {
        loop_turn(l, NS_PER_MS);
        if (io_is_paused(s.to) || io_has_unread(s.to))
            io_resume(s.to);
        /* What waits for the kernel has a writer that waits for it. */
        if (s.written < STREAM && !io_is_full(s.from) && io_unsent(s.from) == 0)
            stream_write(&s);
    }
    kernel.cut = 0;
    assert_int_equal(s.read, STREAM);
    assert_true(s.ended);
    assert_int_equal(io_bytes_out(s.from), STREAM);
    io_close(s.from);
    io_close(s.to);
    assert_int_equal(io_count(), 0);
    loop_free(l);
    free(data);
}

static void test_streams(void **state)
{
    (void)state;
    run_stream(1, true, 0, 0);
    run_stream(2, true, TINY, 0);
    run_stream(3, false, 0, 0);
    run_stream(4, true, 0, 5000);
    run_stream(5, false, 0, 20000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_readable),
        cmocka_unit_test(test_unread_is_kept),
        cmocka_unit_test(test_pause),
        cmocka_unit_test(test_pause_with_kept),
        cmocka_unit_test(test_read_later),
        cmocka_unit_test(test_short_pause_is_free),
        cmocka_unit_test(test_kept_is_bounded),
        cmocka_unit_test(test_consume_outside),
        cmocka_unit_test(test_quiet),
        cmocka_unit_test(test_eof),
        cmocka_unit_test(test_eof_behind_kept),
        cmocka_unit_test(test_eof_waits_for_resume),
        cmocka_unit_test(test_hangup_while_paused),
        cmocka_unit_test(test_reset_while_paused),
        cmocka_unit_test(test_reset_keeps_order),
        cmocka_unit_test(test_early_answer),
        cmocka_unit_test(test_early_answer_while_paused),
        cmocka_unit_test(test_early_answer_while_blocked),
        cmocka_unit_test(test_close_during_salvage),
        cmocka_unit_test(test_abort),
        cmocka_unit_test(test_watch_refused),
        cmocka_unit_test(test_accepted),
        cmocka_unit_test(test_accepted_and_fed),
        cmocka_unit_test(test_accepted_and_read_later),
        cmocka_unit_test(test_accepted_with_nothing),
        cmocka_unit_test(test_patience),
        cmocka_unit_test(test_patient_and_blocked),
        cmocka_unit_test(test_accepted_and_refused_by_epoll),
        cmocka_unit_test(test_write),
        cmocka_unit_test(test_more),
        cmocka_unit_test(test_behind_unsent),
        cmocka_unit_test(test_short_pieces_leave_as_one),
        cmocka_unit_test(test_backpressure),
        cmocka_unit_test(test_blocks_are_given_back),
        cmocka_unit_test(test_short_sends),
        cmocka_unit_test(test_fin_behind_unsent),
        cmocka_unit_test(test_fin_sends_more),
        cmocka_unit_test(test_cheap_path),
        cmocka_unit_test(test_connect),
        cmocka_unit_test(test_write_before_connected),
        cmocka_unit_test(test_connect_refused),
        cmocka_unit_test(test_connect_unix),
        cmocka_unit_test(test_connect_timeout),
        cmocka_unit_test(test_read_deadline),
        cmocka_unit_test(test_eof_before_deadline),
        cmocka_unit_test(test_held_up),
        cmocka_unit_test(test_deadline_moves_earlier),
        cmocka_unit_test(test_progress),
        cmocka_unit_test(test_progress_rests_in_pause),
        cmocka_unit_test(test_write_deadline),
        cmocka_unit_test(test_write_progress),
        cmocka_unit_test(test_close_in_every_handler),
        cmocka_unit_test(test_new_owner),
        cmocka_unit_test(test_two_on_one_scratch),
        cmocka_unit_test(test_close_with_event_pending),
        cmocka_unit_test(test_linger),
        cmocka_unit_test(test_linger_sends_first),
        cmocka_unit_test(test_linger_ends),
        cmocka_unit_test(test_linger_no_longer),
        cmocka_unit_test(test_linger_in_handler),
        cmocka_unit_test(test_linger_while_connecting),
        cmocka_unit_test(test_end_lingering),
        cmocka_unit_test(test_out_of_memory),
        cmocka_unit_test(test_lingering_without_memory),
        cmocka_unit_test(test_streams),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
