/* Unit tests of limit/client_json.c: what is taken, what is refused and how it is named, what is written. */
#include "limit/client_json.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#define SETTINGS (CLIENT_CAPACITY | CLIENT_RATE)

static bool read_as(const char *text, unsigned needed, unsigned allowed, struct client_fields *f, char what[160])
{
    struct json_error e;
    struct client_fault fault = {0};
    struct json_doc *d = json_parse(str_of(text), false, &e);
    assert_non_null(d);
    bool ok = client_fields_read(json_root(d), needed, allowed, f, &fault);
    if (!ok) {
        assert_non_null(fault.at);
        memcpy(what, fault.what, sizeof fault.what);
    }
    json_free(d);
    return ok;
}

static void whole_client_is_read(void **state)
{
    (void)state;
    struct client_fields f;
    char what[160];
    assert_true(read_as("{\"client_id\":\"2001:DB8::0\",\"capacity\":1.5,\"rate_per_sec\":1e9,\"tokens\":-2}",
                        CLIENT_ID | SETTINGS, CLIENT_TOKENS, &f, what));
    assert_string_equal(f.v.id, "2001:db8::");
    assert_true(f.v.set.capacity == 1.5 && f.v.set.rate == 1e9 && f.v.tokens == -2);
    assert_int_equal(f.given, CLIENT_ID | SETTINGS | CLIENT_TOKENS);
    assert_true(read_as("{\"client_id\":\"a\"}", CLIENT_ID, SETTINGS, &f, what));
    assert_int_equal(f.given, CLIENT_ID);
}

static void faults_name_the_field(void **state)
{
    (void)state;
    static const struct {
        const char *text, *what;
    } cases[] = {
        {"[]", "a client must be an object, not an array"},
        {"{\"capacity\":1,\"rate_per_sec\":1}", "client_id is missing"},
        {"{\"client_id\":\"a\",\"rate_per_sec\":1}", "capacity is missing"},
        {"{\"client_id\":\"a\",\"capacity\":1}", "rate_per_sec is missing"},
        {"{\"client_id\":7,\"capacity\":1,\"rate_per_sec\":1}", "client_id is a number"},
        {"{\"client_id\":\"\",\"capacity\":1,\"rate_per_sec\":1}", "client_id is \"\"; it must be"},
        {"{\"client_id\":\"a b\",\"capacity\":1,\"rate_per_sec\":1}", "client_id is \"a b\"; it must be"},
        {"{\"client_id\":\"a\",\"capacity\":\"1\",\"rate_per_sec\":1}", "capacity is a string"},
        {"{\"client_id\":\"a\",\"capacity\":null,\"rate_per_sec\":1}", "capacity is null"},
        {"{\"client_id\":\"a\",\"capacity\":0.5,\"rate_per_sec\":1}", "capacity is 0.5; it must be a number from 1"},
        {"{\"client_id\":\"a\",\"capacity\":1000000001,\"rate_per_sec\":1}", "capacity is 1000000001"},
        {"{\"client_id\":\"a\",\"capacity\":1,\"rate_per_sec\":0}", "rate_per_sec is 0; it must be a number above 0"},
        {"{\"client_id\":\"a\",\"capacity\":1,\"rate_per_sec\":-1}", "rate_per_sec is -1"},
        {"{\"client_id\":\"a\",\"capacity\":1,\"rate_per_sec\":1,\"tokens\":1}", "the field \"tokens\" is not known"},
        {"{\"client_id\":\"a\",\"capacity\":1,\"rate_per_sec\":1,\"mode\":\"OFF\"}",
         "mode is \"OFF\"; it must be \"enforce\", \"shadow\" or \"off\""},
        {"{\"client_id\":\"a\",\"capacity\":1,\"rate_per_sec\":1,\"mode\":\"01234567890123456789012345678\\u00e9\"}",
         "mode is \"01234567890123456789012345678??\"; it must be"},
        {"{\"client_id\":\"a\",\"capacity\":1,\"rate_per_sec\":1,\"mode\":\"012345678901234567890123456789012\"}",
         "mode is \"0123456789012345678901234567890...\"; it must be"},
        {"{\"client_id\":\"a\",\"capacity\":1,\"rate_per_sec\":1,\"mode\":true}", "mode is a boolean"},
        {"{\"client_id\":\"a\",\"capacity\":1,\"rate_per_sec\":1,\"x\\n\":1}", "the field \"x?\" is not known"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct client_fields f;
        char what[160];
        assert_false(read_as(cases[i].text, CLIENT_ID | SETTINGS, CLIENT_MODE, &f, what));
        assert_memory_equal(what, cases[i].what, strlen(cases[i].what));
    }
}

static void clients_are_written(void **state)
{
    (void)state;
    struct buf out = BUF_INIT;
    struct client_view v = {"a\"\\<", {1e9, 0.25, CLIENT_ENFORCE}, 9.5, 7, UINT64_MAX, 0};
    assert_true(client_stored_json(&out, &v));
    assert_true(str_eq(buf_str(&out), STR("{\"client_id\":\"a\\\"\\\\<\",\"capacity\":1000000000,"
                                          "\"rate_per_sec\":0.25,\"tokens\":9.5}")));
    out.len = 0;
    assert_true(client_view_json(&out, &v));
    assert_true(str_eq(buf_str(&out), STR("{\"client_id\":\"a\\\"\\\\<\",\"capacity\":1000000000,"
                                          "\"rate_per_sec\":0.25,\"tokens\":9.5,\"mode\":\"enforce\","
                                          "\"allowed\":7,\"limited\":18446744073709551615}")));
    out.len = 0;
    v.set.mode = CLIENT_SHADOW;
    assert_true(client_stored_json(&out, &v));
    assert_true(str_eq(buf_str(&out), STR("{\"client_id\":\"a\\\"\\\\<\",\"capacity\":1000000000,"
                                          "\"rate_per_sec\":0.25,\"tokens\":9.5,\"mode\":\"shadow\"}")));
    out.len = 0;
    v.place = UINT64_C(9007199254740992);
    assert_true(client_stored_json(&out, &v));
    assert_true(str_eq(buf_str(&out), STR("{\"client_id\":\"a\\\"\\\\<\",\"capacity\":1000000000,"
                                          "\"rate_per_sec\":0.25,\"tokens\":9.5,\"mode\":\"shadow\","
                                          "\"place\":9007199254740992}")));
    buf_fini(&out);
}

static void tokens_are_shown_rounded_down(void **state)
{
    (void)state;
    static const double cases[][2] = {
        {9.5, 9.5}, {10, 10},   {0.1234567, 0.123456}, {0.9999999, 0.999999}, {-0.0000001, -0.000001},
        {0, 0},     {1e9, 1e9}, {-1e300, -1e300}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        assert_true(client_tokens_shown(cases[i][0]) == cases[i][1]);
}

/* The short way must say what the long one does, to the byte. */
static void expect_number(double v)
{
    struct buf is = BUF_INIT, wanted = BUF_INIT;
    assert_true(client_number_json(&is, v));
    assert_true(json_append_number(&wanted, v));
    assert_true(str_eq(buf_str(&is), buf_str(&wanted)));
    buf_fini(&is);
    buf_fini(&wanted);
}

static void numbers_are_written_as_ever(void **state)
{
    (void)state;
    static const double cases[] = {0,         1,         10,        100000,  0.5,       0.000001,         0.00001,
                                   0.0001,    0.000101,  0.99,      1.1,     0.1 + 0.2, 1.0 / 3,          0.1234567,
                                   1e9,       1e9 + 0.5, 999999999, 1e9 / 3, 5e-324,    999999999.999999, 1e-300,
                                   -0.25,     -7,        -1e-6,     1e15,    1e15 - 1,  1e16 + 2,         1e308,
                                   12.000001, 0.999999,  1.000001};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        expect_number(cases[i]);
    uint64_t random = 1;
    for (unsigned i = 0; i < 200000; i++) {
        random = random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        double v = (double)(random >> (14 + i % 40));
        expect_number(v / 1e6);
        expect_number(v / 1e7);
        expect_number(v / 1000);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whole_client_is_read),        cmocka_unit_test(faults_name_the_field),
        cmocka_unit_test(clients_are_written),         cmocka_unit_test(tokens_are_shown_rounded_down),
        cmocka_unit_test(numbers_are_written_as_ever),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
