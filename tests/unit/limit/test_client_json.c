/* Unit tests of limit/client_json.c: what is taken, what is refused and how it is named, what is written. */
#include "limit/client_json.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
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

/* Where the short way says anything, it says what the long one does; 0: it says nothing. */
static size_t expect_as_parsed(const char *text)
{
    struct client_fields is, wanted;
    struct json_error e;
    struct client_fault fault;
    size_t n = client_stored_read(str_of(text), &is);
    if (n == 0)
        return 0;
    struct json_doc *d = json_parse(str_make(text, n), false, &e);
    assert_non_null(d);
    assert_true(client_fields_read(json_root(d), CLIENT_ID | SETTINGS, CLIENT_TOKENS | CLIENT_MODE | CLIENT_PLACE,
                                   &wanted, &fault));
    json_free(d);
    assert_int_equal(is.given, wanted.given);
    assert_string_equal(is.v.id, wanted.v.id);
    assert_memory_equal(&is.v.set.capacity, &wanted.v.set.capacity, sizeof(double));
    assert_memory_equal(&is.v.set.rate, &wanted.v.set.rate, sizeof(double));
    assert_memory_equal(&is.v.tokens, &wanted.v.tokens, sizeof(double));
    assert_int_equal(is.v.set.mode, wanted.v.set.mode);
    assert_true(is.v.place == wanted.v.place);
    return n;
}

#define STORED(id, capacity, rate, tokens, rest)                                                                       \
    "{\"client_id\":\"" id "\",\"capacity\":" capacity ",\"rate_per_sec\":" rate ",\"tokens\":" tokens rest

static void stored_clients_are_read_the_short_way(void **state)
{
    (void)state;
    static const char *const short_way[] = {
        STORED("a", "1", "1", "0", "}"),
        STORED("192.0.2.1", "10", "0.5", "9.999999", "}"),
        STORED("2001:DB8::0", "1000000000", "1000000000", "123456789.123456", "}"),
        STORED("a", "1.000000000000", "0.00000000000001", "1", "}"),
        STORED("a", "1", "1", "0.1", ",\"mode\":\"shadow\"}"),
        STORED("a", "1", "1", "0.3", ",\"mode\":\"off\"}"),
        STORED("a", "1", "1", "123456789012345", ",\"mode\":\"enforce\"}"),
        STORED("a", "1", "1", "1", ",\"place\":7}"),
        STORED("a", "1", "1", "1", ",\"mode\":\"off\",\"place\":999999999999999}"),
        STORED("a", "1", "1", "1", "}}} and whatever follows"),
    };
    static const char *const long_way[] = {
        "",
        "{}",
        " " STORED("a", "1", "1", "1", "}"),
        STORED("a", "1", "1", "1", " }"),
        STORED("a", "1", "1", "1", ""),
        STORED("a", "1", "1", "1", ",\"mode\":\"OFF\"}"),
        STORED("a", "1", "1", "1", ",\"mode\":\"offf\"}"),
        STORED("a", "1", "1", "1", ",\"mode\":\"off\",\"mode\":\"off\"}"),
        STORED("a", "1", "1", "1", ",\"other\":1}"),
        STORED("a", "1", "1", "1", ",\"place\":0}"),
        STORED("a", "1", "1", "1", ",\"place\":1.5}"),
        STORED("a", "1", "1", "1", ",\"place\":-1}"),
        STORED("a", "1", "1", "1", ",\"place\":1234567890123456}"),
        STORED("a", "1", "1", "1", ",\"place\":7,\"mode\":\"off\"}"),
        STORED("", "1", "1", "1", "}"),
        STORED("a b", "1", "1", "1", "}"),
        STORED("a\\u0062", "1", "1", "1", "}"),
        STORED("a\\\"", "1", "1", "1", "}"),
        STORED("a", "0", "1", "1", "}"),
        STORED("a", "1", "0", "1", "}"),
        STORED("a", "1000000001", "1", "1", "}"),
        STORED("a", "01", "1", "1", "}"),
        STORED("a", "1.", "1", "1", "}"),
        STORED("a", ".5", "1", "1", "}"),
        STORED("a", "1e3", "1", "1", "}"),
        STORED("a", "1", "1", "-1", "}"),
        STORED("a", "1", "1", "1234567890123456", "}"),
        STORED("a", "1", "1", "0.1234567890123456", "}"),
        STORED("a", "1", "1", "12345678901234567890", "}"),
        STORED("a", "", "1", "1", "}"),
        "{\"client_id\":\"a\",\"rate_per_sec\":1,\"capacity\":1,\"tokens\":1}",
        "{\"client_id\":\"a\",\"capacity\":1,\"rate_per_sec\":1}",
    };
    for (size_t i = 0; i < sizeof short_way / sizeof short_way[0]; i++)
        assert_int_equal(expect_as_parsed(short_way[i]), strchr(short_way[i], '}') + 1 - short_way[i]);
    for (size_t i = 0; i < sizeof long_way / sizeof long_way[0]; i++)
        assert_int_equal(expect_as_parsed(long_way[i]), 0);
}

/* An id of 128 bytes is the longest; of the text nothing behind its end is looked at. */
static void stored_clients_end_where_they_end(void **state)
{
    (void)state;
    char text[300];
    struct client_fields f;
    for (int n = 129; n >= 127; n--) {
        snprintf(text, sizeof text, "{\"client_id\":\"%0*d\",\"capacity\":1,\"rate_per_sec\":1,\"tokens\":1}", n, 7);
        assert_int_equal(expect_as_parsed(text), n <= 128 ? strlen(text) : 0);
    }
    for (size_t cut = 0, n = strlen(text) - 1; cut <= n; cut++) {
        char *exact = malloc(cut + 1); /* a sanitizer sees a byte too many */
        assert_non_null(exact);
        memcpy(exact, text, cut);
        assert_int_equal(client_stored_read(str_make(exact, cut), &f), 0);
        free(exact);
    }
}

static uint64_t next_random(uint64_t *random)
{
    *random = *random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return *random >> 20;
}

/* Whatever is written comes back, by one way or the other; and so it does with a byte changed. */
static void both_ways_agree(void **state)
{
    (void)state;
    static const char other[] = "0123456789.,eE+-\"\\{}: amx";
    uint64_t random = 1;
    unsigned shorts = 0;
    for (unsigned i = 0; i < 20000; i++) {
        struct client_view v = {.set = {1 + (double)(next_random(&random) % 1000000000), 0, CLIENT_ENFORCE}};
        struct buf text = BUF_INIT;
        v.set.rate = (double)(1 + next_random(&random) % 1000000000) / (i % 4 ? 1e6 : 3e6);
        v.set.mode = (enum client_mode)(i % CLIENT_MODES);
        v.tokens = client_tokens_shown((double)next_random(&random) / 1e6 - (i % 7 ? 0 : 1e5));
        v.place = i % 3 ? 0 : 1 + next_random(&random) % 1000000;
        snprintf(v.id, sizeof v.id, "client-%u", i);
        assert_true(client_stored_json(&text, &v) && buf_append(&text, "", 1));
        char *bytes = buf_bytes(&text);
        shorts += expect_as_parsed(bytes) == text.len - 1;
        bytes[next_random(&random) % (text.len - 1)] = other[next_random(&random) % (sizeof other - 1)];
        (void)expect_as_parsed(bytes);
        buf_fini(&text);
    }
    assert_true(shorts > 1000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whole_client_is_read),
        cmocka_unit_test(faults_name_the_field),
        cmocka_unit_test(clients_are_written),
        cmocka_unit_test(tokens_are_shown_rounded_down),
        cmocka_unit_test(numbers_are_written_as_ever),
        cmocka_unit_test(stored_clients_are_read_the_short_way),
        cmocka_unit_test(stored_clients_end_where_they_end),
        cmocka_unit_test(both_ways_agree),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
