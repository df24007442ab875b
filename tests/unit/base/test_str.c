/* Slices: comparing, splitting, and the parsing of numbers at its edges. */
#include "base/str.h"

#include "base/clock.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#define UNTOUCHED UINT64_C(4711)

typedef bool parse_fn(struct str s, uint64_t *out);

static void assert_parses(parse_fn *parse, const char *text, uint64_t want)
{
    uint64_t got = UNTOUCHED;

    if (!parse(str_of(text), &got))
        fail_msg("refused: \"%s\"", text);
    assert_int_equal(got, want);
}

static void assert_refused(parse_fn *parse, const char *text)
{
    uint64_t got = UNTOUCHED;

    if (parse(str_of(text), &got))
        fail_msg("taken: \"%s\"", text);
    assert_int_equal(got, UNTOUCHED);
}

static void test_equality(void **state)
{
    (void)state;
    assert_true(str_eq(STR("abc"), str_of("abc")));
    assert_false(str_eq(STR("abc"), STR("abd")));
    assert_false(str_eq(STR("abc"), STR("ab")));
    assert_true(str_eq(str_of(NULL), STR("")));
    assert_true(str_eq(str_make(NULL, 0), STR("")));
    assert_true(str_eq_nocase(STR("Content-LENGTH"), STR("content-length")));
    assert_false(str_eq_nocase(STR("a"), STR("ab")));
    /* '@' and '`', '[' and '{' differ by the bit that letters' cases differ by. */
    assert_false(str_eq_nocase(STR("@["), STR("`{")));
    assert_false(str_eq_nocase(STR("\xc4"), STR("\xe4")));
}

static void test_starts_with_and_find(void **state)
{
    (void)state;
    assert_true(str_starts_with(STR("/clients/x"), STR("/clients/")));
    assert_true(str_starts_with(STR("x"), STR("")));
    assert_false(str_starts_with(STR("/client"), STR("/clients/")));
    assert_int_equal(str_find(STR("a:b:c"), ':'), 1);
    assert_int_equal(str_find(STR("abc"), ':'), 3);
    assert_int_equal(str_find(str_make(NULL, 0), ':'), 0);
}

static void test_trim(void **state)
{
    (void)state;
    assert_true(str_eq(str_trim_ows(STR(" \t a b\t ")), STR("a b")));
    assert_true(str_eq(str_trim_ows(STR(" \t")), STR("")));
    assert_true(str_eq(str_trim_ows(STR("\r\na")), STR("\r\na")));
}

static void test_list_of_elements(void **state)
{
    struct str list = STR(" a ,,\tb b\t, ,c"), e;

    (void)state;
    assert_true(str_next_element(&list, &e));
    assert_true(str_eq(e, STR("a")));
    assert_true(str_next_element(&list, &e));
    assert_true(str_eq(e, STR("b b")));
    assert_true(str_next_element(&list, &e));
    assert_true(str_eq(e, STR("c")));
    assert_false(str_next_element(&list, &e));
    list = STR(" , ,");
    assert_false(str_next_element(&list, &e));
}

static void test_decimal(void **state)
{
    (void)state;
    assert_parses(str_parse_u64, "0", 0);
    assert_parses(str_parse_u64, "007", 7);
    assert_parses(str_parse_u64, "18446744073709551615", UINT64_MAX);
    assert_parses(str_parse_u64, "000000000000000000000000001", 1);
    static const char *const bad[] = {"",
                                      "18446744073709551616",
                                      "18446744073709551620",
                                      "99999999999999999999",
                                      "-1",
                                      "+1",
                                      " 1",
                                      "1 ",
                                      "1\n",
                                      "0x1",
                                      "1e3",
                                      "1.0",
                                      "\xb2",
                                      ":",
                                      "/"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_refused(str_parse_u64, bad[i]);
}

static void test_decimal_reads_what_printf_writes(void **state)
{
    uint64_t v = 1;

    (void)state;
    for (int i = 0; i < 2000; i++) {
        char text[32];
        uint64_t part = v >> (v % 64);
        snprintf(text, sizeof(text), "%llu", (unsigned long long)part);
        assert_parses(str_parse_u64, text, part);
        v = v * UINT64_C(6364136223846793005) + 1442695040888963407u;
    }
}

static void test_hex(void **state)
{
    (void)state;
    assert_parses(str_parse_hex, "0", 0);
    assert_parses(str_parse_hex, "fF", 255);
    assert_parses(str_parse_hex, "ffffffffffffffff", UINT64_MAX);
    assert_parses(str_parse_hex, "0123456789abcDEF", UINT64_C(0x0123456789abcdef));
    for (unsigned i = 0; i < 64; i++) {
        uint64_t v = UINT64_C(0x0123456789abcdef) << i | UINT64_C(0xf0e1d2c3b4a59687) >> (63 - i);
        char digits[17] = "", wanted[17];
        str_write_hex(v, digits);
        snprintf(wanted, sizeof wanted, "%016llx", (unsigned long long)v);
        assert_string_equal(digits, wanted);
    }
    static const char *const bad[] = {"", "00000000000000000", "g", "@", "`", "-1", "0x1", " 1", "1;", "G"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_refused(str_parse_hex, bad[i]);
}

static void test_duration(void **state)
{
    (void)state;
    assert_parses(str_parse_duration, "250ms", 250 * NS_PER_MS);
    assert_parses(str_parse_duration, "2s", 2 * NS_PER_S);
    assert_parses(str_parse_duration, "1m", 60 * NS_PER_S);
    assert_parses(str_parse_duration, "1h", 3600 * NS_PER_S);
    assert_parses(str_parse_duration, "0s", 0);
    assert_parses(str_parse_duration, "9223372036s", UINT64_C(9223372036) * NS_PER_S);
    static const char *const bad[] = {"",     "s",   "5",  "5 s", "5S",          "-5s",
                                      "1.5s", "5us", "5d", "5ss", "9223372037s", "18446744073709551615h"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_refused(str_parse_duration, bad[i]);
}

static void test_size(void **state)
{
    (void)state;
    assert_parses(str_parse_size, "512", 512);
    assert_parses(str_parse_size, "64KiB", 65536);
    assert_parses(str_parse_size, "1MiB", 1048576);
    assert_parses(str_parse_size, "2GiB", UINT64_C(2) << 30);
    assert_parses(str_parse_size, "9223372036854775807", INT64_MAX);
    static const char *const bad[] = {"", "KiB", "1KB", "1kib", "1 KiB", "1K", "9223372036854775808", "8589934592GiB"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_refused(str_parse_size, bad[i]);
}

static void test_distance(void **state)
{
    char longest[65];

    (void)state;
    assert_int_equal(str_distance(STR(""), STR("")), 0);
    assert_int_equal(str_distance(STR(""), STR("abc")), 3);
    assert_int_equal(str_distance(STR("abc"), STR("")), 3);
    assert_int_equal(str_distance(STR("weight"), STR("weight")), 0);
    assert_int_equal(str_distance(STR("wieght"), STR("weight")), 1);
    assert_int_equal(str_distance(STR("backend"), STR("backends")), 1);
    assert_int_equal(str_distance(STR("kitten"), STR("sitting")), 3);
    assert_int_equal(str_distance(STR("ca"), STR("abc")), 3); /* restricted: 3, not 2 */
    memset(longest, 'x', sizeof(longest));
    assert_int_equal(str_distance(str_make(longest, 64), STR("")), 64);
    assert_true(str_distance(str_make(longest, 65), STR("")) == SIZE_MAX);
    assert_true(str_distance(STR(""), str_make(longest, 65)) == SIZE_MAX);
}

static void test_constant_time_equality(void **state)
{
    (void)state;
    assert_true(str_eq_constant_time(STR("secret"), STR("secret")));
    assert_true(str_eq_constant_time(STR(""), STR("")));
    assert_false(str_eq_constant_time(STR("secret"), STR("secres")));
    assert_false(str_eq_constant_time(STR("Xecret"), STR("secret")));
    assert_false(str_eq_constant_time(STR("secret"), STR("secret1")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_equality),
        cmocka_unit_test(test_starts_with_and_find),
        cmocka_unit_test(test_trim),
        cmocka_unit_test(test_list_of_elements),
        cmocka_unit_test(test_decimal),
        cmocka_unit_test(test_decimal_reads_what_printf_writes),
        cmocka_unit_test(test_hex),
        cmocka_unit_test(test_duration),
        cmocka_unit_test(test_size),
        cmocka_unit_test(test_distance),
        cmocka_unit_test(test_constant_time_equality),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
