/* The timer heap, by cases and against a plain array of deadlines. */
#include "event/timer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

static void must_arm(struct timer_heap *h, struct timer *t, uint64_t deadline)
{
    assert_true(timer_heap_arm(h, t, deadline));
    assert_true(timer_armed(t));
}

static void test_empty(void **state)
{
    struct timer_heap h;

    (void)state;
    timer_heap_init(&h);
    assert_true(timer_heap_next(&h) == TIMER_NEVER);
    assert_null(timer_heap_pop_due(&h, TIMER_NEVER));
    timer_heap_fini(&h);
}

static void test_reserve(void **state)
{
    static struct timer timers[200];
    struct timer_heap h;

    (void)state;
    timer_heap_init(&h);
    for (int i = 0; i < 200; i++)
        timer_init(&timers[i], NULL);
    must_arm(&h, &timers[0], 7);
    assert_true(timer_heap_reserve(&h, 199));
    struct timer **slots = h.slots;
    for (unsigned i = 1; i < 200; i++)
        must_arm(&h, &timers[i], i);
    assert_ptr_equal(h.slots, slots);
    assert_int_equal(timer_heap_next(&h), 1);
    timer_heap_fini(&h);
}

static void test_order_and_due(void **state)
{
    static const uint64_t deadlines[] = {50, 10, 40, 20, 30, 10};
    struct timer timers[6];
    struct timer_heap h;
    uint64_t last = 0;

    (void)state;
    timer_heap_init(&h);
    for (int i = 0; i < 6; i++) {
        timer_init(&timers[i], NULL);
        must_arm(&h, &timers[i], deadlines[i]);
    }
    assert_int_equal(timer_heap_next(&h), 10);
    assert_null(timer_heap_pop_due(&h, 9));
    for (int i = 0; i < 6; i++) {
        struct timer *t = timer_heap_pop_due(&h, 50);
        assert_non_null(t);
        assert_false(timer_armed(t));
        assert_true(t->deadline >= last);
        last = t->deadline;
    }
    assert_null(timer_heap_pop_due(&h, 50));
    timer_heap_fini(&h);
}

static void test_later_costs_nothing_until_it_comes_up(void **state)
{
    struct timer_heap h;
    struct timer t;

    (void)state;
    timer_heap_init(&h);
    timer_init(&t, NULL);
    must_arm(&h, &t, 10);
    must_arm(&h, &t, 30);
    assert_int_equal(timer_heap_next(&h), 10);
    assert_null(timer_heap_pop_due(&h, 20));
    assert_int_equal(timer_heap_next(&h), 30);
    assert_ptr_equal(timer_heap_pop_due(&h, 30), &t);
    timer_heap_fini(&h);
}

static void test_earlier(void **state)
{
    struct timer_heap h;
    struct timer a, b;

    (void)state;
    timer_heap_init(&h);
    timer_init(&a, NULL);
    timer_init(&b, NULL);
    must_arm(&h, &a, 10);
    must_arm(&h, &b, 30);
    must_arm(&h, &b, 5);
    assert_int_equal(timer_heap_next(&h), 5);
    assert_ptr_equal(timer_heap_pop_due(&h, 20), &b);
    assert_ptr_equal(timer_heap_pop_due(&h, 20), &a);
    timer_heap_fini(&h);
}

static void test_cancel(void **state)
{
    struct timer_heap h;
    struct timer a, b;

    (void)state;
    timer_heap_init(&h);
    timer_init(&a, NULL);
    timer_init(&b, NULL);
    timer_heap_cancel(&h, &a);
    must_arm(&h, &a, 10);
    must_arm(&h, &b, 20);
    timer_heap_cancel(&h, &a);
    timer_heap_cancel(&h, &a);
    assert_false(timer_armed(&a));
    assert_int_equal(timer_heap_next(&h), 20);
    timer_heap_fini(&h);
    assert_false(timer_armed(&b));
}

enum { N = 300 };

struct model {
    struct timer timers[N];
    uint64_t deadline[N]; /* TIMER_NEVER: unarmed */
    struct timer_heap heap;
};

static void arm_both(struct model *m, int i, uint64_t deadline)
{
    must_arm(&m->heap, &m->timers[i], deadline);
    m->deadline[i] = deadline;
}

static void cancel_both(struct model *m, int i)
{
    timer_heap_cancel(&m->heap, &m->timers[i]);
    m->deadline[i] = TIMER_NEVER;
}

static uint64_t earliest(const struct model *m)
{
    uint64_t min = TIMER_NEVER;

    for (int i = 0; i < N; i++)
        min = m->deadline[i] < min ? m->deadline[i] : min;
    return min;
}

/* What comes up must be exactly what is due, in the order of its deadlines. */
static void pop_and_compare(struct model *m, uint64_t now)
{
    struct timer *t;

    assert_true(timer_heap_next(&m->heap) <= earliest(m));
    while ((t = timer_heap_pop_due(&m->heap, now))) {
        assert_true(t->deadline <= now);
        assert_true(t->deadline == earliest(m));
        assert_true(m->deadline[t - m->timers] == t->deadline);
        m->deadline[t - m->timers] = TIMER_NEVER;
    }
    assert_true(earliest(m) > now);
}

static void test_like_the_model(void **state)
{
    static struct model m;
    uint64_t now = 0;

    (void)state;
    srandom(31);
    timer_heap_init(&m.heap);
    for (int i = 0; i < N; i++) {
        timer_init(&m.timers[i], NULL);
        m.deadline[i] = TIMER_NEVER;
    }
    for (int step = 0; step < 30000; step++) {
        int i = (int)(random() % N);
        if (random() % 4 == 0)
            cancel_both(&m, i);
        else
            arm_both(&m, i, now + (uint64_t)(random() % 1000));
        if (random() % 8 == 0)
            pop_and_compare(&m, now += (uint64_t)(random() % 50));
    }
    pop_and_compare(&m, now + 1000);
    assert_int_equal(m.heap.count, 0);
    timer_heap_fini(&m.heap);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_empty),          cmocka_unit_test(test_reserve),
        cmocka_unit_test(test_order_and_due),  cmocka_unit_test(test_later_costs_nothing_until_it_comes_up),
        cmocka_unit_test(test_earlier),        cmocka_unit_test(test_cancel),
        cmocka_unit_test(test_like_the_model),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
