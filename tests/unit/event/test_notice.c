/* What happens often is said at once, then once an interval, and nothing of it is left unsaid. */
#include "event/notice.h"

#include "base/clock.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#define INTERVAL (50 * NS_PER_MS)

static struct loop *loop;
static struct notice notice;
static unsigned lines;
static uint64_t last, last_at;

static void say(struct notice *n, uint64_t count)
{
    assert_ptr_equal(n, &notice);
    lines++;
    last = count;
    last_at = clock_monotonic();
}

static void turn_until_line(unsigned n)
{
    while (lines < n)
        loop_turn(loop, TIMER_NEVER);
}

static int setup(void **state)
{
    (void)state;
    loop = loop_new();
    assert_non_null(loop);
    lines = 0;
    notice_init(&notice, loop, INTERVAL, say);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    notice_fini(&notice);
    loop_free(loop);
    return 0;
}

static void count(unsigned n)
{
    while (n-- > 0)
        notice_count(&notice);
}

static void test_the_first_is_said_at_once(void **state)
{
    (void)state;
    count(1);
    assert_int_equal(lines, 1);
    assert_int_equal(last, 1);
}

static void test_the_tail_is_said_by_the_timer(void **state)
{
    (void)state;
    count(500);
    assert_int_equal(lines, 1);
    uint64_t first_at = last_at;
    turn_until_line(2);
    assert_int_equal(last, 499);
    assert_true(last_at - first_at >= INTERVAL - NS_PER_MS);
    count(3); /* the line that the timer has said begins the next interval */
    assert_int_equal(lines, 2);
    turn_until_line(3);
    assert_int_equal(last, 3);
}

static void test_silence_is_not_said(void **state)
{
    (void)state;
    count(1);
    while (timer_armed(&notice.timer))
        loop_turn(loop, TIMER_NEVER);
    assert_int_equal(lines, 1);
    count(1);
    assert_int_equal(lines, 2);
}

static void test_flush(void **state)
{
    (void)state;
    notice_flush(&notice);
    assert_int_equal(lines, 0);
    count(5);
    notice_flush(&notice);
    assert_int_equal(lines, 2);
    assert_int_equal(last, 4);
    notice_flush(&notice);
    assert_int_equal(lines, 2);
}

static void test_nothing_behind_the_end(void **state)
{
    static struct notice unused;
    (void)state;
    count(2);
    notice_fini(&notice);
    loop_turn(loop, 2 * INTERVAL);
    assert_int_equal(lines, 1);
    notice_fini(&unused);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_the_first_is_said_at_once, setup, teardown),
        cmocka_unit_test_setup_teardown(test_the_tail_is_said_by_the_timer, setup, teardown),
        cmocka_unit_test_setup_teardown(test_silence_is_not_said, setup, teardown),
        cmocka_unit_test_setup_teardown(test_flush, setup, teardown),
        cmocka_unit_test_setup_teardown(test_nothing_behind_the_end, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
