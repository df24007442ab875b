/* The stages of endpoints: all that is ready is received before any of it is told, all of it is told before any answer
 * is sent, and all answers are sent before anybody hears that they are. */
#include "base/clock.h"
#include "net/io.h"
#include "net/sock.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#define SIDES_MAX 100

/* What happened, in its order: r and s for a call of the kernel, R and so on for what the owner is told. */
static char happened[4096];
static size_t events;

static void note(char c)
{
    assert_true(events + 1 < sizeof happened);
    happened[events++] = c;
    happened[events] = '\0';
}

static void forget(void)
{
    events = 0;
    happened[0] = '\0';
}

ssize_t recv(int fd, void *p, size_t n, int flags)
{
    note('r');
    return syscall(SYS_recvfrom, fd, p, n, flags, NULL, NULL);
}

ssize_t send(int fd, const void *p, size_t n, int flags)
{
    note('s');
    return syscall(SYS_sendto, fd, p, n, flags, NULL, 0);
}

struct side {
    struct io *io;
    int far;
    const char *answer;          /* to what comes */
    size_t leave;                /* bytes that are not taken */
    void (*act)(struct side *p); /* instead of an answer */
    struct side *other;          /* for that */
    char got[64];
    size_t n;
};

static struct loop *loop;
static struct side sides[SIDES_MAX];

static void take(struct side *p)
{
    size_t n;
    const char *data = io_data(p->io, &n);
    assert_true(n > p->leave && p->n + n - p->leave < sizeof p->got);
    memcpy(p->got + p->n, data, n - p->leave);
    p->n += n - p->leave;
    io_consume(p->io, n - p->leave);
}

static void on_event(void *owner, struct io *io, enum io_event event)
{
    static const char letters[] = {
        [IO_CONNECTED] = 'C', [IO_READABLE] = 'R', [IO_DRAINED] = 'D', [IO_EOF] = 'E', [IO_ERROR] = 'X'};
    struct side *p = owner;
    assert_ptr_equal(io, p->io);
    assert_true(event < sizeof letters && letters[event]);
    note(letters[event]);
    if (event != IO_READABLE)
        return;
    take(p);
    if (p->act)
        p->act(p);
    else if (p->answer)
        assert_true(io_write_str(io, str_of(p->answer), false));
}

static void begin_with(unsigned n, struct io *make(struct loop *l, int fd, io_fn *fn, void *owner))
{
    loop = loop_new();
    assert_non_null(loop);
    for (unsigned i = 0; i < n; i++) {
        int pair[2];
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair), 0);
        sides[i] = (struct side){.far = pair[1], .answer = "pong"};
        sides[i].io = make(loop, pair[0], on_event, &sides[i]);
        assert_non_null(sides[i].io);
        io_set_deferring(sides[i].io, true);
    }
    forget();
}

static void begin(unsigned n)
{
    begin_with(n, io_new);
}

static void finish(unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        io_close(sides[i].io);
        if (sides[i].far >= 0)
            sock_close(sides[i].far);
    }
    assert_int_equal(io_count(), 0);
    loop_free(loop);
}

static void far_says(unsigned i, const char *text)
{
    assert_int_equal(write(sides[i].far, text, strlen(text)), strlen(text));
}

static void expect_far(unsigned i, const char *text)
{
    char got[64];
    ssize_t n = read(sides[i].far, got, sizeof got);
    assert_int_equal(n, *text ? (ssize_t)strlen(text) : -1);
    assert_memory_equal(got, text, strlen(text));
}

static void turn(const char *expected)
{
    loop_turn(loop, 0);
    assert_string_equal(happened, expected);
    forget();
}

static void test_one_thing_for_all_at_a_time(void **state)
{
    (void)state;
    begin(3);
    for (unsigned i = 0; i < 3; i++)
        far_says(i, "ping");
    turn("rrrRRRsssDDD");
    for (unsigned i = 0; i < 3; i++)
        expect_far(i, "pong");
    turn("");
    finish(3);
}

/* What is long is handled at once, while it is in the caches, and with it what has been received before. */
static void test_much_is_handled_at_once(void **state)
{
    (void)state;
    static char much[20000];
    begin(3);
    for (unsigned i = 0; i < 3; i++)
        sides[i].leave = sizeof much - 4;
    sides[0].leave = 0;
    far_says(0, "ping");
    assert_int_equal(write(sides[1].far, much, sizeof much), sizeof much);
    assert_int_equal(write(sides[2].far, much, sizeof much), sizeof much);
    sides[1].answer = sides[2].answer = NULL;
    turn("rrRRsDrR");
    assert_int_equal(io_unread(sides[1].io), sizeof much - 4);
    assert_int_equal(io_unread(sides[2].io), sizeof much - 4);
    finish(3);
}

/* Many are handled in groups, each with the bytes that are its own. */
static void test_many(void **state)
{
    (void)state;
    begin(SIDES_MAX);
    for (int round = 0; round < 3; round++) {
        for (unsigned i = 0; i < SIDES_MAX; i++) {
            char text[16];
            snprintf(text, sizeof text, "%d.%u,", round, i);
            far_says(i, text);
        }
        for (int told = 0; told < SIDES_MAX; told += loop_batch)
            loop_turn(loop, 0);
        forget();
        for (unsigned i = 0; i < SIDES_MAX; i++)
            expect_far(i, "pong");
    }
    for (unsigned i = 0; i < SIDES_MAX; i++) {
        char all[64];
        int n = snprintf(all, sizeof all, "0.%u,1.%u,2.%u,", i, i, i);
        assert_int_equal(sides[i].n, n);
        assert_memory_equal(sides[i].got, all, (size_t)n);
    }
    finish(SIDES_MAX);
}

static void test_unsent_until_its_pass(void **state)
{
    (void)state;
    begin(1);
    assert_true(io_write_str(sides[0].io, STR("one"), false));
    assert_int_equal(io_unsent(sides[0].io), 3);
    assert_int_equal(io_bytes_out(sides[0].io), 0);
    assert_true(io_write_str(sides[0].io, STR("two"), false));
    expect_far(0, "");
    turn("sD");
    assert_int_equal(io_unsent(sides[0].io), 0);
    assert_int_equal(io_bytes_out(sides[0].io), 6);
    expect_far(0, "onetwo");
    finish(1);
}

/* What is longer is sent at once, behind what waits; then nobody is told, as ever. */
static void test_long_ones_do_not_wait(void **state)
{
    (void)state;
    static char block[8000];
    begin(1);
    assert_true(io_write_str(sides[0].io, STR("one"), false));
    assert_true(io_write_str(sides[0].io, str_make(block, sizeof block), false));
    assert_int_equal(io_unsent(sides[0].io), 0);
    assert_int_equal(io_bytes_out(sides[0].io), 3 + sizeof block);
    forget();
    turn("");
    assert_true(io_write_str(sides[0].io, STR(""), false));
    turn("");
    assert_true(io_write_str(sides[0].io, STR("one"), false));
    assert_true(io_flush(sides[0].io));
    assert_int_equal(io_unsent(sides[0].io), 0);
    turn("s");
    finish(1);
}

/* Who sends one request behind the other is answered as they are handled. */
static void test_not_where_more_waits(void **state)
{
    (void)state;
    begin(1);
    sides[0].leave = 4;
    far_says(0, "pingping");
    turn("rRs");
    expect_far(0, "pong");
    finish(1);
}

static void test_end_behind_what_waits(void **state)
{
    (void)state;
    char c;
    begin(1);
    assert_true(io_write_str(sides[0].io, STR("bye"), false));
    io_shutdown_write(sides[0].io);
    expect_far(0, "bye");
    assert_int_equal(read(sides[0].far, &c, 1), 0);
    turn("s");
    finish(1);
}

static void test_closed_before_its_pass(void **state)
{
    (void)state;
    begin(1);
    assert_true(io_write_str(sides[0].io, STR("lost"), false));
    io_close(sides[0].io);
    sides[0].io = NULL;
    turn("");
    char c;
    assert_int_equal(read(sides[0].far, &c, 1), 0);
    finish(1);
}

/* A reset tells that there would have been more, not that what was written before it is worth nothing. */
static void test_reset_behind_what_waits(void **state)
{
    (void)state;
    char c;
    begin(1);
    assert_true(io_write_str(sides[0].io, STR("last words"), false));
    io_abort(sides[0].io);
    sides[0].io = NULL;
    expect_far(0, "last words");
    assert_int_equal(read(sides[0].far, &c, 1), 0);
    turn("s");
    finish(1);
}

/* The kernel takes a part: the rest waits for it, as ever. */
static void test_blocked_in_its_pass(void **state)
{
    (void)state;
    static char block[1 << 20];
    begin(1);
    while (io_unsent(sides[0].io) == 0)
        assert_true(io_write_str(sides[0].io, str_make(block, sizeof block), false));
    forget();
    size_t unsent = io_unsent(sides[0].io), got = 0, all = (size_t)io_bytes_out(sides[0].io) + unsent;
    assert_true(io_write_str(sides[0].io, STR("behind"), false));
    turn("");
    assert_int_equal(io_unsent(sides[0].io), unsent + 6);
    for (uint64_t end = clock_monotonic() + 5 * NS_PER_S; got < all + 6 && clock_monotonic() < end;) {
        ssize_t n = read(sides[0].far, block, sizeof block);
        got += n > 0 ? (size_t)n : 0;
        loop_turn(loop, NS_PER_MS);
    }
    assert_int_equal(got, all + 6);
    assert_true(strchr(happened, 'D') && !strchr(strchr(happened, 'D') + 1, 'D'));
    finish(1);
}

static void test_broken_in_its_pass(void **state)
{
    (void)state;
    begin(1);
    far_says(0, "last words");
    sock_close(sides[0].far);
    sides[0].far = -1;
    sides[0].answer = NULL;
    assert_true(io_write_str(sides[0].io, STR("too late"), false));
    loop_turn(loop, 0);
    assert_int_equal(io_bytes_out(sides[0].io), 0);
    assert_memory_equal(sides[0].got, "last words", 10);
    assert_non_null(strchr(happened, 'X')); /* and no D */
    assert_null(strchr(happened, 'D'));
    finish(1);
}

static void pause_other(struct side *p)
{
    io_pause(p->other->io);
}

/* Bytes that were received for one whom another stops then are kept for it. */
static void test_paused_between(void **state)
{
    (void)state;
    begin(2);
    sides[0].act = pause_other;
    sides[0].other = &sides[1];
    far_says(0, "ping");
    far_says(1, "kept");
    turn("rrR");
    assert_int_equal(io_unread(sides[1].io), 4);
    sides[0].act = NULL;
    far_says(0, "over"); /* where the kept ones would be */
    turn("rRsD");
    io_resume(sides[1].io);
    loop_turn(loop, 0);
    assert_memory_equal(sides[1].got, "kept", 4);
    finish(2);
}

static void close_other(struct side *p)
{
    io_close(p->other->io);
    p->other->io = NULL;
}

static void test_closed_between(void **state)
{
    (void)state;
    begin(2);
    sides[0].act = close_other;
    sides[0].other = &sides[1];
    far_says(0, "ping");
    far_says(1, "lost");
    turn("rrR");
    turn("");
    finish(2);
}

static void hand_over_other(struct side *p)
{
    io_set_owner(p->other->io, on_event, p);
    p->io = p->other->io;
}

/* A new owner is not told of what its predecessor has written, if that is gone, and is if it is not. */
static void test_another_owner_between(void **state)
{
    (void)state;
    begin(2);
    struct io *first = sides[0].io;
    far_says(0, "ping");
    sides[0].act = hand_over_other;
    sides[0].other = &sides[1];
    assert_true(io_write_str(sides[1].io, STR("pong"), false));
    assert_true(io_flush(sides[1].io));
    turn("srR");
    assert_true(io_write_str(sides[1].io, STR("pong"), false));
    io_set_owner(sides[1].io, on_event, &sides[1]);
    turn("sD");
    io_close(first);
    sides[0].io = NULL;
    finish(2);
}

/* Who speaks first to a connection that has just been accepted still hears what it has brought along. */
static void test_accepted_and_written_to(void **state)
{
    (void)state;
    begin_with(1, io_accepted);
    far_says(0, "ping");
    assert_true(io_write_str(sides[0].io, STR("hello,"), false));
    for (int i = 0; i < 3; i++)
        loop_turn(loop, 0);
    expect_far(0, "hello,pong");
    assert_memory_equal(sides[0].got, "ping", 4);
    far_says(0, "more");
    loop_turn(loop, 0);
    expect_far(0, "pong");
    finish(1);
}

static void test_end_is_told_behind_all(void **state)
{
    (void)state;
    begin(1);
    far_says(0, "ping");
    assert_int_equal(shutdown(sides[0].far, SHUT_WR), 0);
    loop_turn(loop, 0);
    loop_turn(loop, 0);
    assert_string_equal(happened, "rRsDrE");
    expect_far(0, "pong");
    finish(1);
}

static void nothing(struct watch *w, unsigned ready)
{
    (void)w;
    (void)ready;
}

/* With a backlog in the loop, who is preferred is told first, and so is who connects. */
static void test_preferred(void **state)
{
    enum { CROWD = 5 * LOOP_BATCH_MAX };
    static struct watch crowd[CROWD];
    (void)state;
    begin(2);
    int always[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, always), 0);
    assert_int_equal(write(always[1], "x", 1), 1);
    for (int i = 0; i < CROWD; i++) {
        watch_init(&crowd[i], dup(always[0]), nothing);
        assert_true(loop_watch(loop, &crowd[i], LOOP_READ));
    }
    for (int i = 0; i < 10; i++)
        loop_turn(loop, 0);
    io_prefer(sides[0].io);
    far_says(0, "ping");
    far_says(1, "ping");
    turn("rRsD");
    expect_far(0, "pong");
    expect_far(1, "");

    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), failed;
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct addr to = {.len = sizeof at};
    assert_int_equal(bind(fd, (const struct sockaddr *)&at, sizeof at), 0);
    assert_int_equal(listen(fd, 1), 0);
    assert_int_equal(getsockname(fd, &to.sa, &to.len), 0);
    struct side client = {.far = -1};
    client.io = io_connect(loop, &to, NS_PER_S, on_event, &client, &failed);
    assert_non_null(client.io);
    turn("C");
    io_close(client.io);
    sock_close(fd);

    for (int i = 0; i < CROWD; i++) {
        loop_unwatch(loop, &crowd[i]);
        sock_close(crowd[i].fd);
    }
    sock_close(always[0]);
    sock_close(always[1]);
    finish(2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_thing_for_all_at_a_time),
        cmocka_unit_test(test_much_is_handled_at_once),
        cmocka_unit_test(test_many),
        cmocka_unit_test(test_unsent_until_its_pass),
        cmocka_unit_test(test_long_ones_do_not_wait),
        cmocka_unit_test(test_not_where_more_waits),
        cmocka_unit_test(test_end_behind_what_waits),
        cmocka_unit_test(test_closed_before_its_pass),
        cmocka_unit_test(test_reset_behind_what_waits),
        cmocka_unit_test(test_blocked_in_its_pass),
        cmocka_unit_test(test_broken_in_its_pass),
        cmocka_unit_test(test_paused_between),
        cmocka_unit_test(test_closed_between),
        cmocka_unit_test(test_another_owner_between),
        cmocka_unit_test(test_preferred),
        cmocka_unit_test(test_accepted_and_written_to),
        cmocka_unit_test(test_end_is_told_behind_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
