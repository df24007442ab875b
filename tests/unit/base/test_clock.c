/* Clocks, and dates in both forms against the C library's own arithmetic. */
#include "base/clock.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

static void test_monotonic(void **state)
{
    uint64_t last = clock_monotonic();

    (void)state;
    assert_true(last > 0);
    for (int i = 0; i < 1000; i++) {
        uint64_t now = clock_monotonic();
        assert_true(now >= last);
        last = now;
    }
}

static void test_wall_is_this_century(void **state)
{
    (void)state;
    assert_true(clock_wall() > UINT64_C(1700000000) * NS_PER_S);
}

static void test_random_differs(void **state)
{
    unsigned char a[1000] = {0}, b[1000] = {0};

    (void)state;
    clock_random(a, sizeof(a));
    clock_random(b, sizeof(b));
    assert_memory_not_equal(a, b, sizeof(a));
    clock_random(NULL, 0);
}

static void test_formats(void **state)
{
    const uint64_t t = UINT64_C(1769862896789) * NS_PER_MS + 999999;
    char stamp[CLOCK_RFC3339_SIZE], date[CLOCK_HTTP_DATE_SIZE];

    (void)state;
    clock_format_rfc3339(t, stamp);
    assert_string_equal(stamp, "2026-01-31T12:34:56.789Z");
    clock_format_http_date(t, date);
    assert_string_equal(date, "Sat, 31 Jan 2026 12:34:56 GMT");
    clock_format_rfc3339(0, stamp);
    assert_string_equal(stamp, "1970-01-01T00:00:00.000Z");
    clock_format_http_date(UINT64_C(784111777) * NS_PER_S, date);
    assert_string_equal(date, "Sun, 06 Nov 1994 08:49:37 GMT"); /* RFC 9110 section 5.6.7 */
}

static void test_formats_like_strftime(void **state)
{
    (void)state;
    for (uint64_t s = 3; s < UINT64_C(16000000000); s += 7654321) {
        char got[CLOCK_HTTP_DATE_SIZE], want[64];
        time_t t = (time_t)s;
        clock_format_http_date(s * NS_PER_S, got);
        strftime(want, sizeof(want), "%a, %d %b %Y %H:%M:%S GMT", gmtime(&t));
        assert_string_equal(got, want);
    }
}

static void test_parse_reads_back(void **state)
{
    (void)state;
    for (uint64_t ms = 1; ms < UINT64_C(16000000000000); ms += UINT64_C(7654321987)) {
        char stamp[CLOCK_RFC3339_SIZE];
        uint64_t back;
        clock_format_rfc3339(ms * NS_PER_MS, stamp);
        assert_int_equal(clock_parse_rfc3339(stamp, strlen(stamp), &back), 0);
        assert_int_equal(back, ms * NS_PER_MS);
    }
}

static void assert_parsed(const char *text, uint64_t want)
{
    uint64_t got = 0;

    if (clock_parse_rfc3339(text, strlen(text), &got) != 0)
        fail_msg("refused: \"%s\"", text);
    assert_int_equal(got, want);
}

static void test_parse_fractions(void **state)
{
    (void)state;
    assert_parsed("1970-01-01T00:00:01Z", NS_PER_S);
    assert_parsed("1970-01-01T00:00:01.5Z", NS_PER_S + 500 * NS_PER_MS);
    assert_parsed("1970-01-01T00:00:01.000000001Z", NS_PER_S + 1);
    assert_parsed("2024-02-29T00:00:00Z", UINT64_C(1709164800) * NS_PER_S);
    assert_parsed("2016-12-31T23:59:60Z", UINT64_C(1483228800) * NS_PER_S);
}

static void test_parse_refuses(void **state)
{
    static const char *const bad[] = {"",
                                      "Z",
                                      "2026-01-31T12:34:56",
                                      "2026-01-31T12:34:56.Z",
                                      "2026-01-31T12:34:56.1234567890Z",
                                      "2026-01-31T12:34:56.12a4Z",
                                      "2026-01-31T12:34:56,5Z",
                                      "2026-01-31T12:34:56.5Z ",
                                      "2026-01-31T12:34:56+00:00",
                                      "2026-01-31t12:34:56Z",
                                      "2026-01-31 12:34:56Z",
                                      "2026-1-31T12:34:56Z",
                                      "2026-13-31T12:34:56Z",
                                      "2026-00-31T12:34:56Z",
                                      "2026-04-31T12:34:56Z",
                                      "2026-01-00T12:34:56Z",
                                      "2025-02-29T12:34:56Z",
                                      "2100-02-29T12:34:56Z",
                                      "2026-01-31T24:34:56Z",
                                      "2026-01-31T12:60:56Z",
                                      "2026-01-31T12:34:61Z",
                                      "1969-12-31T23:59:59Z",
                                      "9999-01-01T00:00:00Z",
                                      "2026-01-31T12:34:-1Z"};
    uint64_t untouched = 4711;

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        if (clock_parse_rfc3339(bad[i], strlen(bad[i]), &untouched) == 0)
            fail_msg("taken: \"%s\"", bad[i]);
    assert_int_equal(untouched, 4711);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_monotonic),
        cmocka_unit_test(test_wall_is_this_century),
        cmocka_unit_test(test_random_differs),
        cmocka_unit_test(test_formats),
        cmocka_unit_test(test_formats_like_strftime),
        cmocka_unit_test(test_parse_reads_back),
        cmocka_unit_test(test_parse_fractions),
        cmocka_unit_test(test_parse_refuses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
