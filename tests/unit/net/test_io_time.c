/* The pace of an endpoint on a clock of the test's own, which only the test moves: time-outs of hours. */
#include "base/clock.h"
#include "net/io.h"

#include <setjmp.h>
#include <stdarg.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

/* What everything that is linked here takes for the kernel's clocks. */
static uint64_t now;

int clock_gettime(clockid_t id, struct timespec *ts)
{
    (void)id;
    ts->tv_sec = (time_t)(now / NS_PER_S);
    ts->tv_nsec = (long)(now % NS_PER_S);
    return 0;
}

struct world {
    struct loop *loop;
    struct io *io;
    int far;
    bool late;
};

static void on_io(void *owner, struct io *io, enum io_event event)
{
    struct world *w = owner;

    if (event == IO_READABLE) {
        size_t n;
        io_data(io, &n);
        io_consume(io, n);
    } else {
        assert_int_equal(event, IO_TIMEOUT_READ);
        w->late = true;
    }
}

static void open_world(struct world *w, unsigned timeout_s)
{
    int ends[2];

    now = 1000 * NS_PER_S;
    *w = (struct world){.loop = loop_new()};
    assert_non_null(w->loop);
    loop_turn(w->loop, 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends), 0);
    w->io = io_new(w->loop, ends[0], on_io, w);
    assert_non_null(w->io);
    w->far = ends[1];
    io_set_min_rate(w->io, true);
    io_set_read_timeout(w->io, IO_PROGRESS, timeout_s * NS_PER_S);
}

static void close_world(struct world *w)
{
    io_close(w->io);
    loop_turn(w->loop, 0);
    loop_free(w->loop);
    close(w->far);
}

/* So many bytes come `later_s` behind the last ones. */
static void come(struct world *w, unsigned later_s, unsigned n)
{
    static const char bytes[4096];

    now += later_s * NS_PER_S;
    for (unsigned left = n; left > 0;) {
        unsigned piece = left < sizeof bytes ? left : (unsigned)sizeof bytes;
        assert_int_equal(write(w->far, bytes, piece), piece);
        loop_turn(w->loop, 0);
        left -= piece;
    }
    loop_turn(w->loop, 0);
}

/* After how many seconds who sends so many bytes in each is found too slow; `within` when that is not before. */
static unsigned found_after(unsigned timeout_s, unsigned rate, unsigned within)
{
    struct world w;
    unsigned s = 0;

    open_world(&w, timeout_s);
    while (s < within && !w.late) {
        come(&w, 1, rate);
        s++;
    }
    close_world(&w);
    return s;
}

static void test_the_pace_is_the_same_for_all_timeouts(void **state)
{
    static const struct {
        unsigned timeout_s, after_s;
    } cases[] = {
        {1, IO_RATE_SPAN},
        {10, IO_RATE_SPAN},
        {30, 30},
        {600, 600},
        {655, 655},
        {656, IO_RATE_SPAN_MAX},
        {660, IO_RATE_SPAN_MAX},
        {1800, IO_RATE_SPAN_MAX},
        {86400, IO_RATE_SPAN_MAX},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        unsigned timeout_s = cases[i].timeout_s, after_s = cases[i].after_s;
        assert_int_equal(found_after(timeout_s, IO_RATE_MIN - 1, 3 * after_s), after_s);
        assert_int_equal(found_after(timeout_s, 10, 3 * after_s), after_s);
        assert_int_equal(found_after(timeout_s, IO_RATE_MIN, 3 * after_s), 3 * after_s);
    }
}

/* Whose deadline allows rests of longer than the pace is taken over may make them, and must keep it in between. */
static void test_long_rests(void **state)
{
    struct world w;

    (void)state;
    open_world(&w, 3600);
    come(&w, 1, 1000);
    for (int i = 0; i < 5; i++) {
        come(&w, i < 3 ? 3000 : 656, 500);
        assert_false(w.late);
        come(&w, 3, 500);
        assert_false(w.late);
    }
    for (unsigned s = 3; s < IO_RATE_SPAN_MAX; s++) {
        assert_false(w.late);
        come(&w, 1, 10);
    }
    assert_true(w.late);
    close_world(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_pace_is_the_same_for_all_timeouts),
        cmocka_unit_test(test_long_rests),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
