/* JSON: what is taken and what is refused, where things stand, and what is written. */
#include "base/json.h"

#include <float.h>
#include <limits.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static struct json_doc *parse(const char *text)
{
    struct json_error e;
    struct json_doc *d = json_parse(str_of(text), false, &e);
    if (!d)
        fail_msg("%s: %s", text, e.what);
    return d;
}

static void test_types(void **state)
{
    (void)state;
    struct json_doc *d = parse(" {\"o\":{},\"a\":[],\"s\":\"\\u00e9\\ud83d\\ude00\\n\",\"n\":-1.5e2,\"t\":true,\"f\":"
                               "false,\"z\":null}\r\n\t ");
    static const enum json_type types[] = {JSON_OBJECT, JSON_ARRAY, JSON_STRING, JSON_NUMBER,
                                           JSON_BOOL,   JSON_BOOL,  JSON_NULL};
    static const char *const keys[] = {"o", "a", "s", "n", "t", "f", "z"};
    size_t i = 0;
    assert_int_equal(json_type(json_root(d)), JSON_OBJECT);
    for (const struct json *v = json_first(json_root(d)); v; v = json_next(v), i++) {
        assert_int_equal(json_type(v), types[i]);
        assert_string_equal(json_key(v), keys[i]);
        assert_ptr_equal(json_get(json_root(d), keys[i]), v);
    }
    assert_int_equal(i, 7);
    assert_null(json_get(json_root(d), "O"));
    assert_null(json_first(json_get(json_root(d), "o")));
    assert_null(json_first(json_get(json_root(d), "a")));
    assert_string_equal(json_string(json_get(json_root(d), "s")), "\xc3\xa9\xf0\x9f\x98\x80\n");
    assert_true(json_number(json_get(json_root(d), "n")) == -150);
    assert_true(json_bool(json_get(json_root(d), "t")));
    assert_false(json_bool(json_get(json_root(d), "f")));
    json_free(d);
    json_free(NULL);
}

static void test_single_values(void **state)
{
    (void)state;
    static const char *const good[] = {
        "0",
        "-0",
        "1",
        "10",
        "0.5",
        "1e5",
        "1E+5",
        "1e-5",
        "-12.25e-3",
        "\"\"",
        "true",
        "false",
        "null",
        "[]",
        "{}",
        "[1,2]",
        "[[],[{}]]",
        "{\"\":\"\"}",
        "\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"",
        "\"\x7f\"",
        "\"\xf4\x8f\xbf\xbf\"",
        "\"\xed\x9f\xbf\xee\x80\x80\"",
        "1.7976931348623157e308",
        "5e-324",
        "1e-999",
    };
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
        json_free(parse(good[i]));
}

struct bad {
    const char *text;
    size_t offset;
    const char *what, *path;
};

static void check_bad(struct str text, const struct bad *b)
{
    struct json_error e;
    struct json_doc *d = json_parse(text, false, &e);
    if (d)
        fail_msg("taken: %s", b->text);
    if (strcmp(e.what, b->what) != 0 || e.offset != b->offset || strcmp(e.path, b->path) != 0)
        fail_msg("%s: at %zu, \"%s\", path \"%s\"", b->text, e.offset, e.what, e.path);
}

static void test_refused(void **state)
{
    (void)state;
    static const struct bad bad[] = {
        {"", 0, "the text is empty", ""},
        {" \n", 0, "the text is empty", ""},
        {"1 2", 2, "found '2' where the end of the text belongs", ""},
        {"{} x", 3, "found 'x' where the end of the text belongs", ""},
        {"\xef\xbb\xbf{}", 0, "the text begins with a byte order mark", ""},
        {"\xc3\xa9", 0, "found '\xc3\xa9' where a value belongs", ""},
        {"\xff", 0, "found the byte 0xff where a value belongs", ""},
        {"\x01", 0, "found the byte 0x01 where a value belongs", ""},
        {"\x0b{}", 0, "found the byte 0x0b where a value belongs", ""},
        {"True", 0, "found 'T' where a value belongs", ""},
        {"tru", 0, "found 't' where a value belongs", ""},
        {"nulls", 4, "found 's' where the end of the text belongs", ""},
        {"NaN", 0, "found 'N' where a value belongs", ""},
        {"Infinity", 0, "found 'I' where a value belongs", ""},
        {"'a'", 0, "found ''' where a value belongs", ""},
        {"// c\n1", 0, "found '/' where a value belongs", ""},
        {"+1", 0, "found '+' where a value belongs", ""},
        {".5", 0, "found '.' where a value belongs", ""},
        {"-", 1, "the text ends where a digit belongs", ""},
        {"-a", 1, "found 'a' where a digit belongs", ""},
        {"01", 0, "a number has a leading zero", ""},
        {"-00", 0, "a number has a leading zero", ""},
        {"1.", 2, "the text ends where a digit belongs", ""},
        {"1.e1", 2, "found 'e' where a digit belongs", ""},
        {"1e", 2, "the text ends where a digit belongs", ""},
        {"1e+", 3, "the text ends where a digit belongs", ""},
        {"0x10", 1, "found 'x' where the end of the text belongs", ""},
        {"1e999", 0, "a number is too large", ""},
        {"{\"a\":{\"b\":[0,-1e400]}}", 13, "a number is too large", "a.b[1]"},
        {"{\"a\":[{\"b\":1},1e999]}", 14, "a number is too large", "a[1]"},
        {"[", 1, "the text ends where a value belongs", "[0]"},
        {"[1", 2, "the text ends where ',' or ']' belongs", "[0]"},
        {"[1,]", 3, "found ']' where a value belongs", "[1]"},
        {"[1 2]", 3, "found '2' where ',' or ']' belongs", "[0]"},
        {"[1}", 2, "found '}' where ',' or ']' belongs", "[0]"},
        {"{", 1, "the text ends where a key in double quotes belongs", ""},
        {"{a:1}", 1, "found 'a' where a key in double quotes belongs", ""},
        {"{1:1}", 1, "found '1' where a key in double quotes belongs", ""},
        {"{\"a\"}", 4, "found '}' where ':' belongs", "a"},
        {"{\"a\":}", 5, "found '}' where a value belongs", "a"},
        {"{\"a\":1,}", 7, "found '}' where a key in double quotes belongs", ""},
        {"{\"a\":1 \"b\":2}", 7, "found '\"' where ',' or '}' belongs", "a"},
        {"{\"a\":{\"b\":01}}", 10, "a number has a leading zero", "a.b"},
        {"{\"a\":{\"b\":1},\"c\" 1}", 17, "found '1' where ':' belongs", "c"},
        {"{\"a\":[[],{\"b\\\"]\":[1,[2,x]]}]}", 23, "found 'x' where a value belongs", "a[1].b\\\"][1][1]"},
        {"{\"a\":{\"b\":1};", 12, "found ';' where ',' or '}' belongs", "a"},
        {"\"abc", 0, "the text ends inside a string", ""},
        {"\"abc\\", 4, "the text ends inside a string", ""},
        {"\"a\nb\"", 2, "a string holds the raw control character 0x0a", ""},
        {"\"\x1f\"", 1, "a string holds the raw control character 0x1f", ""},
        {"\"\\x41\"", 1, "a string holds an escape that JSON does not know", ""},
        {"\"\\u12\"", 1, "a \\u escape has no four hexadecimal digits", ""},
        {"\"\\u12g4\"", 1, "a \\u escape has no four hexadecimal digits", ""},
        {"\"\\u\"", 1, "a \\u escape has no four hexadecimal digits", ""},
        {"\"a\\u0000\"", 2, "a string holds \\u0000", ""},
        {"\"\\ud800\"", 1, "a \\u escape is half of a surrogate pair", ""},
        {"\"\\ud800\\ud800\"", 1, "a \\u escape is half of a surrogate pair", ""},
        {"\"\\udc00\\ud800\"", 1, "a \\u escape is half of a surrogate pair", ""},
        {"\"\\ud800\\n\"", 1, "a \\u escape is half of a surrogate pair", ""},
        {"\"\x80\"", 1, "a string holds invalid UTF-8", ""},
        {"\"\xc0\x80\"", 1, "a string holds invalid UTF-8", ""},
        {"\"\xc1\xbf\"", 1, "a string holds invalid UTF-8", ""},
        {"\"\xe0\x9f\xbf\"", 1, "a string holds invalid UTF-8", ""},
        {"\"\xed\xa0\x80\"", 1, "a string holds invalid UTF-8", ""},
        {"\"\xf0\x8f\xbf\xbf\"", 1, "a string holds invalid UTF-8", ""},
        {"\"\xf4\x90\x80\x80\"", 1, "a string holds invalid UTF-8", ""},
        {"\"\xf5\x80\x80\x80\"", 1, "a string holds invalid UTF-8", ""},
        {"\"\xe2\x82\"", 1, "a string holds invalid UTF-8", ""},
        {"\"\xe2\x82", 1, "a string holds invalid UTF-8", ""},
        {"{\"a\":1,\"b\":2,\"a\":3}", 13, "a key is repeated: \"a\"", "a"},
        {"{\"a\":1,\"\\u0061\":3}", 7, "a key is repeated: \"a\"", "\\u0061"},
        {"[{\"x\":1},{\"y\":{\"k\":1,\"l\":2,\"l\":3,\"k\":4}}]", 27, "a key is repeated: \"l\"", "[1].y.l"},
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        check_bad(str_of(bad[i].text), &bad[i]);
    static const struct bad zero = {"1<NUL>", 1, "found the byte 0x00 where the end of the text belongs", ""};
    check_bad(STR("1\0"), &zero);
    static const struct bad inside = {"\"<NUL>\"", 1, "a string holds the raw control character 0x00", ""};
    check_bad(STR("\"\0\""), &inside);
}

/* Nothing behind the text is read: every cut of a good text is refused, or read in a block of its very size. */
static void test_every_prefix(void **state)
{
    (void)state;
    static const char whole[] = "{\"a\":[1.5e3,\"\\ud83d\\ude00\xc3\xa9\",{\"b\":null,\"c\":true}],\"d\":{}}";
    for (size_t n = 0; n < sizeof(whole) - 1; n++) {
        struct json_error e;
        char *cut = malloc(n ? n : 1);
        memcpy(cut, whole, n);
        assert_null(json_parse(str_make(cut, n), false, &e));
        assert_true(e.offset <= n);
        assert_true(*e.what);
        free(cut);
    }
    static const char *const unterminated[] = {"12", "true", "null", "\"a\"", "[]", "{}", "[1]", "1e5"};
    for (size_t i = 0; i < sizeof(unterminated) / sizeof(unterminated[0]); i++) {
        struct json_error e;
        size_t n = strlen(unterminated[i]);
        char *exact = malloc(n);
        memcpy(exact, unterminated[i], n);
        struct json_doc *d = json_parse(str_make(exact, n), false, &e);
        assert_non_null(d);
        json_free(d);
        free(exact);
    }
}

static void nest(struct buf *out, unsigned depth)
{
    for (unsigned i = 0; i < depth; i++)
        assert_true(buf_append(out, "[", 1));
    for (unsigned i = 0; i < depth; i++)
        assert_true(buf_append(out, "]", 1));
}

static void test_depth(void **state)
{
    (void)state;
    struct buf text = BUF_INIT;
    struct json_error e;
    nest(&text, JSON_DEPTH_MAX);
    struct json_doc *d = json_parse(buf_str(&text), false, &e);
    assert_non_null(d);
    json_free(d);
    buf_fini(&text);
    nest(&text, JSON_DEPTH_MAX + 1);
    assert_null(json_parse(buf_str(&text), false, &e));
    assert_string_equal(e.what, "values are nested deeper than 32");
    assert_int_equal(e.offset, JSON_DEPTH_MAX);
    buf_fini(&text);
    nest(&text, 1000000);
    assert_null(json_parse(buf_str(&text), false, &e));
    buf_fini(&text);
}

static void test_long_numbers(void **state)
{
    (void)state;
    char text[80];
    struct json_error e;
    memset(text, '1', sizeof(text));
    struct json_doc *d = json_parse(str_make(text, 63), false, &e);
    assert_non_null(d);
    assert_true(fabs(json_number(json_root(d)) - 1.1111111111111112e62) < 1e47);
    json_free(d);
    assert_null(json_parse(str_make(text, 64), false, &e));
    assert_string_equal(e.what, "a number has over 63 characters");
}

/* Long paths are cut at the end of a character. */
static void test_error_path(void **state)
{
    (void)state;
    struct json_error e;
    char text[256] = "{\"";
    for (size_t i = 0; i < 80; i++)
        strcat(text, "\xc3\xa9");
    strcat(text, "\":x}");
    assert_null(json_parse(str_of(text), false, &e));
    assert_int_equal(strlen(e.path), JSON_PATH_SIZE - 2);
    assert_null(json_parse(STR("{\"a\\\"b\":x}"), false, &e));
    assert_string_equal(e.path, "a\\\"b");
    /* Where there should be a key, that of the member before is no place. */
    assert_null(json_parse(STR("{\"a\":[{\"b\":1,}]}"), false, &e));
    assert_string_equal(e.path, "a[0]");
    assert_null(json_parse(STR("{\"a\":1,\"b\\u0000\":2}"), false, &e));
    assert_string_equal(e.path, "");
}

static void test_repeats(void **state)
{
    (void)state;
    struct json_error e;
    struct json_doc *d = json_parse(STR("{\"a\":1,\"a\":2}"), true, &e);
    assert_non_null(d);
    assert_true(json_number(json_get(json_root(d), "a")) == 1);
    assert_int_equal(json_key_offset(d, json_next(json_first(json_root(d)))), 7);
    json_free(d);
    /* names that differ in case only are different */
    json_free(parse("{\"a\":1,\"A\":2}"));
    /* the same name in different objects is no repeat */
    json_free(parse("{\"a\":{\"a\":{\"a\":1}},\"b\":[{\"a\":1},{\"a\":2}]}"));
}

static void test_many_keys(void **state)
{
    (void)state;
    struct buf text = BUF_INIT;
    struct json_error e;
    assert_true(buf_printf(&text, "{"));
    for (unsigned i = 0; i < 100000; i++)
        assert_true(buf_printf(&text, "\"k%u\":%u,", i, i));
    size_t at = text.len;
    assert_true(buf_printf(&text, "\"k77\":0}"));
    assert_null(json_parse(buf_str(&text), false, &e));
    assert_int_equal(e.offset, at);
    assert_string_equal(e.path, "k77");
    struct json_doc *d = json_parse(buf_str(&text), true, &e);
    assert_non_null(d);
    json_free(d);
    buf_fini(&text);
}

static void test_positions(void **state)
{
    (void)state;
    static const char text[] = " {\"a\" : 1 ,\n\t\"b\":[ true,{ \"c\" :\"x\"} ],\"d\":2}";
    struct json_doc *d = parse(text);
    const struct json *a = json_get(json_root(d), "a"), *b = json_get(json_root(d), "b");
    const struct json *element = json_next(json_first(b)), *c = json_get(element, "c");
    const struct json *last = json_get(json_root(d), "d");
    assert_int_equal(json_offset(d, json_root(d)), 1);
    assert_int_equal(json_key_offset(d, a), 2);
    assert_int_equal(json_offset(d, a), 8);
    assert_memory_equal(text + json_key_offset(d, b), "\"b\"", 3);
    assert_memory_equal(text + json_offset(d, b), "[ true", 6);
    assert_memory_equal(text + json_offset(d, json_first(b)), "true", 4);
    assert_memory_equal(text + json_offset(d, element), "{ \"c\"", 5);
    assert_memory_equal(text + json_key_offset(d, c), "\"c\" :", 5);
    assert_memory_equal(text + json_offset(d, c), "\"x\"", 3);
    assert_memory_equal(text + json_key_offset(d, last), "\"d\"", 3);
    assert_memory_equal(text + json_offset(d, last), "2}", 2);
    json_free(d);
}

/* More values than a small document's array holds. */
static void test_many_positions(void **state)
{
    (void)state;
    struct buf text = BUF_INIT;
    struct json_error e;
    size_t i = 0;
    assert_true(buf_printf(&text, "[0"));
    for (unsigned n = 1; n < 1000; n++)
        assert_true(buf_printf(&text, ",%3u", n));
    assert_true(buf_printf(&text, "]"));
    struct json_doc *d = json_parse(buf_str(&text), false, &e);
    assert_non_null(d);
    for (const struct json *v = json_first(json_root(d)); v; v = json_next(v), i++) {
        assert_true(json_number(v) == (double)i);
        assert_int_equal(strtoul(buf_str(&text).p + json_offset(d, v), NULL, 10), i);
    }
    assert_int_equal(i, 1000);
    json_free(d);
    buf_fini(&text);
}

static void assert_line_column(const char *text, size_t offset, unsigned line, unsigned column)
{
    unsigned l, c;
    json_line_column(str_of(text), offset, &l, &c);
    assert_int_equal(l, line);
    assert_int_equal(c, column);
}

static void test_line_column(void **state)
{
    (void)state;
    assert_line_column("", 0, 1, 1);
    assert_line_column("abc", 2, 1, 3);
    assert_line_column("abc", 99, 1, 4);
    assert_line_column("a\nb", 1, 1, 2);
    assert_line_column("a\nb", 2, 2, 1);
    assert_line_column("a\r\nb", 3, 2, 1);
    assert_line_column("\n\n\tx", 3, 3, 2);
    assert_line_column("\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80x", 9, 1, 4);
}

static void assert_written(struct str s, const char *wanted)
{
    struct buf out = BUF_INIT;
    assert_true(json_append_string(&out, s));
    assert_true(str_eq(buf_str(&out), str_of(wanted)));
    buf_fini(&out);
}

static void test_append_string(void **state)
{
    (void)state;
    assert_written(STR(""), "\"\"");
    assert_written(STR("plain"), "\"plain\"");
    assert_written(STR("a\"b\\c/"), "\"a\\\"b\\\\c/\"");
    assert_written(STR("\b\f\n\r\t\x01\x1f"), "\"\\b\\f\\n\\r\\t\\u0001\\u001f\"");
    assert_written(STR("\0"), "\"\\u0000\"");
    assert_written(STR("\x7f\xc3\xa9\xf0\x9f\x98\x80"), "\"\x7f\xc3\xa9\xf0\x9f\x98\x80\"");
    assert_written(STR("a\xff\xc3"), "\"a\xef\xbf\xbd\xef\xbf\xbd\"");
    assert_written(STR("\xed\xa0\x80"), "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\"");
}

static uint64_t random_next(uint64_t *seed)
{
    *seed = *seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return *seed ^ *seed >> 29;
}

/* Any bytes give a string that is read back; valid ones unchanged. */
static void test_string_round_trip(void **state)
{
    (void)state;
    uint64_t seed = 7;
    for (unsigned round = 0; round < 20000; round++) {
        char bytes[24];
        struct buf out = BUF_INIT;
        struct json_error e;
        size_t n = random_next(&seed) % sizeof(bytes);
        bool ascii = round % 2;
        for (size_t i = 0; i < n; i++)
            bytes[i] = (char)(ascii ? 1 + random_next(&seed) % 127 : 1 + random_next(&seed) % 255);
        assert_true(json_append_string(&out, str_make(bytes, n)));
        struct json_doc *d = json_parse(buf_str(&out), false, &e);
        assert_non_null(d);
        if (ascii)
            assert_true(str_eq(str_of(json_string(json_root(d))), str_make(bytes, n)));
        json_free(d);
        buf_fini(&out);
    }
}

static void assert_number(double v, const char *wanted)
{
    struct buf out = BUF_INIT;
    assert_true(json_append_number(&out, v));
    if (!str_eq(buf_str(&out), str_of(wanted)))
        fail_msg("%.*s, not %s", STR_ARG(buf_str(&out)), wanted);
    buf_fini(&out);
}

static void test_append_number(void **state)
{
    (void)state;
    assert_number(0, "0");
    assert_number(10, "10");
    assert_number(-10, "-10");
    assert_number(0.5, "0.5");
    assert_number(0.1, "0.1");
    assert_number(9.95, "9.95");
    assert_number(0.1 + 0.2, "0.30000000000000004");
    assert_number(1e9, "1000000000");
    assert_number(1e21, "1e+21");
    assert_number(1.0 / 3, "0.3333333333333333");
    assert_number(123456789012345680.0, "1.2345678901234568e+17");
    assert_number(DBL_MAX, "1.7976931348623157e+308");
    assert_number(DBL_MIN, "2.2250738585072014e-308");
    assert_number(DBL_TRUE_MIN, "5e-324");
}

static void test_number_round_trip(void **state)
{
    (void)state;
    uint64_t seed = 11;
    for (unsigned round = 0; round < 50000; round++) {
        double v;
        uint64_t bits = random_next(&seed);
        struct buf out = BUF_INIT;
        struct json_error e;
        memcpy(&v, &bits, sizeof(v));
        if (!isfinite(v))
            continue;
        assert_true(json_append_number(&out, v));
        struct json_doc *d = json_parse(buf_str(&out), false, &e);
        assert_non_null(d);
        assert_true(json_number(json_root(d)) == v);
        json_free(d);
        buf_fini(&out);
    }
}

static void test_type_names(void **state)
{
    (void)state;
    assert_string_equal(json_type_name(JSON_NULL), "null");
    assert_string_equal(json_type_name(JSON_OBJECT), "an object");
    assert_string_equal(json_type_name(JSON_ARRAY), "an array");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_types),          cmocka_unit_test(test_single_values),
        cmocka_unit_test(test_refused),        cmocka_unit_test(test_every_prefix),
        cmocka_unit_test(test_depth),          cmocka_unit_test(test_long_numbers),
        cmocka_unit_test(test_error_path),     cmocka_unit_test(test_repeats),
        cmocka_unit_test(test_many_keys),      cmocka_unit_test(test_positions),
        cmocka_unit_test(test_many_positions), cmocka_unit_test(test_line_column),
        cmocka_unit_test(test_append_string),  cmocka_unit_test(test_string_round_trip),
        cmocka_unit_test(test_append_number),  cmocka_unit_test(test_number_round_trip),
        cmocka_unit_test(test_type_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
