/* The catalogue of errors is consistent in itself. */
#include "base/err.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void test_ok_is_nothing(void **state)
{
    (void)state;
    assert_int_equal(ERR_OK, 0);
    assert_int_equal(err_status(ERR_OK), 0);
    assert_string_equal(err_reason(ERR_OK), "");
    assert_string_equal(err_detail(ERR_OK), "");
}

static void test_some_statuses(void **state)
{
    (void)state;
    assert_int_equal(err_status(ERR_BAD_HOST), 400);
    assert_int_equal(err_status(ERR_RATE_LIMITED), 429);
    assert_int_equal(err_status(ERR_NO_BACKEND), 503);
    assert_int_equal(err_status(ERR_RESPONSE_TIMEOUT), 504);
    assert_int_equal(err_status(ERR_CLIENT_GONE), 0);
    assert_string_equal(err_reason(ERR_CONNECT_FAILED), "connect_failed");
}

static void test_which_close(void **state)
{
    (void)state;
    for (int e = 0; e < ERR_COUNT; e++) { /* by status, but for a call of the client API, which has been read whole */
        int s = err_status((enum err)e);
        bool closes = s == 400 || s == 408 || s == 413 || s == 414 || s == 417 || s == 431 || s == 501 || s == 505;
        assert_int_equal(err_closes((enum err)e), closes && e != ERR_BAD_API_REQUEST);
    }
}

static void test_each_is_an_error_status_or_none(void **state)
{
    (void)state;
    for (int e = 1; e < ERR_COUNT; e++) {
        int status = err_status((enum err)e);
        assert_true(status == 0 || (status >= 400 && status <= 599));
    }
}

static void test_reasons_are_distinct_words(void **state)
{
    (void)state;
    for (int e = 1; e < ERR_COUNT; e++) {
        const char *reason = err_reason((enum err)e);
        assert_true(*reason);
        assert_int_equal(strspn(reason, "abcdefghijklmnopqrstuvwxyz_"), strlen(reason));
        for (int other = 1; other < e; other++)
            assert_string_not_equal(reason, err_reason((enum err)other));
    }
}

static void test_details_are_sentences(void **state)
{
    (void)state;
    for (int e = 1; e < ERR_COUNT; e++) {
        const char *detail = err_detail((enum err)e);
        assert_true(detail[0] >= 'A' && detail[0] <= 'Z');
        assert_int_equal(detail[strlen(detail) - 1], '.');
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ok_is_nothing),
        cmocka_unit_test(test_some_statuses),
        cmocka_unit_test(test_which_close),
        cmocka_unit_test(test_each_is_an_error_status_or_none),
        cmocka_unit_test(test_reasons_are_distinct_words),
        cmocka_unit_test(test_details_are_sentences),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
