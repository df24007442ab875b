/* Unit tests of limit/policies.c: one for all clients that have it, and gone with the last. */
#include "limit/policies.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static const struct hash_key key = {3, 4};

static void equal_settings_share_one(void **state)
{
    (void)state;
    struct policies ps;
    policies_init(&ps, &key);
    const struct bucket_policy *a = policies_get(&ps, 10, 1), *b = policies_get(&ps, 10, 1.5);
    assert_non_null(a);
    assert_non_null(b);
    assert_ptr_not_equal(a, b);
    assert_ptr_equal(policies_get(&ps, 10, 1), a);
    assert_true(a->capacity == 10 && a->rate == 1 && b->rate == 1.5);
    assert_int_equal(ps.by_settings.count, 2);
    policies_put(&ps, a);
    assert_int_equal(ps.by_settings.count, 2);
    policies_put(&ps, a);
    assert_int_equal(ps.by_settings.count, 1);
    policies_put(&ps, b);
    policies_put(&ps, NULL);
    assert_int_equal(ps.by_settings.count, 0);
    policies_fini(&ps);
}

static void many_stay_where_they_are(void **state)
{
    (void)state;
    struct policies ps;
    const struct bucket_policy *p[1000];
    policies_init(&ps, &key);
    for (unsigned i = 0; i < 1000; i++)
        assert_non_null(p[i] = policies_get(&ps, 1 + i, 0.5));
    for (unsigned i = 0; i < 1000; i++) {
        assert_true(p[i]->capacity == 1 + i);
        assert_ptr_equal(policies_get(&ps, 1 + i, 0.5), p[i]);
    }
    policies_fini(&ps); /* with all of them held */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equal_settings_share_one),
        cmocka_unit_test(many_stay_where_they_are),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
