/* The retry budget against its words: a share of the requests of the last ten seconds, and three a second always. */
#include "base/clock.h"
#include "proxy/budget.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static bool take(struct retry_budget *b, uint64_t now, unsigned percent)
{
    bool allowed = budget_allows(b, now, percent);
    if (allowed)
        budget_spend(b, now);
    return allowed;
}

static unsigned take_all(struct retry_budget *b, uint64_t now, unsigned percent)
{
    unsigned n = 0;
    while (n < 100000 && take(b, now, percent))
        n++;
    return n;
}

static void three_a_second_always(void **state)
{
    (void)state;
    struct retry_budget b = {0};
    assert_int_equal(take_all(&b, 999 * NS_PER_S, 20), 30); /* what was saved up */
    for (uint64_t s = 1000; s < 1009; s++)
        assert_int_equal(take_all(&b, s * NS_PER_S, 20), 3);
    assert_int_equal(take_all(&b, 1009 * NS_PER_S, 20), 3); /* the burst has left the window, with 27 since */
    assert_int_equal(take_all(&b, 2000 * NS_PER_S, 0), 30);
}

/* The first failures of a backend that has died, before anything is known of it, at a balancer with little to do. */
static void a_burst_at_little_load(void **state)
{
    (void)state;
    struct retry_budget b = {0};
    for (int i = 0; i < 15; i++)
        budget_count(&b, 1000 * NS_PER_S);
    for (int i = 0; i < 15; i++)
        assert_true(take(&b, 1000 * NS_PER_S, 20));
}

static void a_share_of_the_requests(void **state)
{
    (void)state;
    struct retry_budget b = {0};
    uint64_t now = 5000 * NS_PER_S;
    for (int i = 0; i < 1000; i++)
        budget_count(&b, now);
    assert_int_equal(take_all(&b, now, 20), 200);
    assert_int_equal(take_all(&b, now + NS_PER_S, 20), 3);
}

static void the_window_slides(void **state)
{
    (void)state;
    struct retry_budget b = {0};
    uint64_t now = 5000 * NS_PER_S;
    for (int i = 0; i < 1000; i++)
        budget_count(&b, now);
    assert_int_equal(take_all(&b, now + 9 * NS_PER_S, 20), 200); /* still in the window */
    b = (struct retry_budget){0};
    for (int i = 0; i < 1000; i++)
        budget_count(&b, now);
    assert_int_equal(take_all(&b, now + 10 * NS_PER_S, 20), 30); /* out of it */
    assert_int_equal(take_all(&b, now + 3600 * NS_PER_S, 20), 30);
}

/* What is asked for and not made leaves all as it was. */
static void asking_takes_nothing(void **state)
{
    (void)state;
    struct retry_budget b = {0};
    for (int i = 0; i < 100; i++)
        assert_true(budget_allows(&b, 1000 * NS_PER_S, 0));
    assert_int_equal(take_all(&b, 1000 * NS_PER_S, 0), 30);
    assert_false(budget_allows(&b, 1000 * NS_PER_S, 0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(three_a_second_always),   cmocka_unit_test(a_burst_at_little_load),
        cmocka_unit_test(a_share_of_the_requests), cmocka_unit_test(the_window_slides),
        cmocka_unit_test(asking_takes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
