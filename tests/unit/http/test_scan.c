/* The scan of raw heads: what is refused and why, and that splitting the bytes changes nothing. */
#include "http/chars.h"
#include "http/parse.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

static const struct head_limits wide = {.head_bytes = 16384, .target_bytes = 8192, .fields = 100};

struct verdict {
    enum scan_status status;
    enum err e;
    size_t skip, at;
};

/* Scans `data` with the first `first` bytes alone in front, then with `step` more each time. */
static struct verdict scan_split(enum head_kind kind, struct str data, const struct head_limits *limits, size_t first,
                                 size_t step)
{
    struct head_scan s = {0};
    struct verdict v = {.status = SCAN_MORE};

    for (size_t n = first; v.status == SCAN_MORE; n = n + step < data.n ? n + step : data.n) {
        v.status = head_scan(&s, kind, str_make(data.p, n), limits, &v.e);
        if (n == data.n)
            break;
    }
    if (v.status == SCAN_DONE) {
        v.skip = s.skip;
        v.at = s.at;
    }
    return v;
}

/* The verdict on `data`, having seen that it is the same however the bytes are split. */
static struct verdict scan_with(enum head_kind kind, struct str data, const struct head_limits *limits)
{
    struct verdict whole = scan_split(kind, data, limits, data.n, 1);

    for (size_t first = 0; first <= data.n; first++) {
        struct verdict split = scan_split(kind, data, limits, first, data.n);
        assert_int_equal(split.status, whole.status);
        assert_int_equal(split.e, whole.e);
        assert_int_equal(split.at, whole.at);
        assert_int_equal(split.skip, whole.skip);
    }
    struct verdict bytes = scan_split(kind, data, limits, 0, 1);
    assert_int_equal(bytes.status, whole.status);
    assert_int_equal(bytes.e, whole.e);
    assert_int_equal(bytes.at, whole.at);
    return whole;
}

#define REQUEST(lit)  scan_with(HEAD_REQUEST, STR(lit), &wide)
#define RESPONSE(lit) scan_with(HEAD_RESPONSE, STR(lit), &wide)

static void assert_refused(struct verdict v, enum err e)
{
    assert_int_equal(v.status, SCAN_BAD);
    assert_string_equal(err_reason(v.e), err_reason(e));
}

#define ASSERT_REQUEST_REFUSED(lit, e)  assert_refused(REQUEST(lit), ERR_##e)
#define ASSERT_RESPONSE_REFUSED(lit, e) assert_refused(RESPONSE(lit), ERR_##e)

static void a_head_ends_with_its_empty_line(void **state)
{
    (void)state;
    struct verdict v = REQUEST("GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /next");
    assert_int_equal(v.status, SCAN_DONE);
    assert_int_equal(v.skip, 0);
    assert_int_equal(v.at, sizeof "GET / HTTP/1.1\r\nHost: a\r\n\r\n" - 1);

    v = RESPONSE("HTTP/1.1 200 OK\r\nA: b\r\n\r\nbody");
    assert_int_equal(v.status, SCAN_DONE);
    assert_int_equal(v.at, sizeof "HTTP/1.1 200 OK\r\nA: b\r\n\r\n" - 1);

    assert_int_equal(REQUEST("GET / HTTP/1.0\r\n\r\n").status, SCAN_DONE);
    assert_int_equal(REQUEST("GET / HTTP/1.1\r\nHost: a\r\n\r").status, SCAN_MORE);
    assert_int_equal(REQUEST("").status, SCAN_MORE);
    assert_int_equal(RESPONSE("HTTP/1.1 20").status, SCAN_MORE);
}

static void empty_lines_before_a_request_are_skipped(void **state)
{
    (void)state;
    struct verdict v = REQUEST("\r\n\r\n\r\n\r\nGET / HTTP/1.1\r\n\r\n");
    assert_int_equal(v.status, SCAN_DONE);
    assert_int_equal(v.skip, 8);
    assert_int_equal(v.at, 8 + 18);
    ASSERT_REQUEST_REFUSED("\r\n\r\n\r\n\r\n\r\nGET / HTTP/1.1\r\n\r\n", BAD_REQUEST_LINE);
    ASSERT_REQUEST_REFUSED("\nGET / HTTP/1.1\r\n\r\n", BAD_LINE_END);
    ASSERT_REQUEST_REFUSED("\r\rGET / HTTP/1.1\r\n\r\n", BAD_LINE_END);
    ASSERT_RESPONSE_REFUSED("\r\nHTTP/1.1 200 OK\r\n\r\n", BAD_RESPONSE);

    struct head_limits tight = wide;
    tight.head_bytes = 18;
    assert_refused(scan_with(HEAD_REQUEST, STR("\r\nGET / HTTP/1.1\r\n\r\n"), &tight), ERR_HEAD_TOO_LARGE);
}

static void request_lines_have_one_form(void **state)
{
    (void)state;
    assert_int_equal(REQUEST("M-SEARCH /a|{b}?c=\"d\" HTTP/9.7\r\n\r\n").status, SCAN_DONE);
    ASSERT_REQUEST_REFUSED("GET  / HTTP/1.1\r\n\r\n", BAD_REQUEST_LINE);
    ASSERT_REQUEST_REFUSED("GET /  HTTP/1.1\r\n\r\n", BAD_REQUEST_LINE);
    ASSERT_REQUEST_REFUSED("GET / HTTP/1.1 \r\n\r\n", BAD_REQUEST_LINE);
    ASSERT_REQUEST_REFUSED(" GET / HTTP/1.1\r\n\r\n", BAD_REQUEST_LINE);
    ASSERT_REQUEST_REFUSED("GET / a HTTP/1.1\r\n\r\n", BAD_REQUEST_LINE);
    ASSERT_REQUEST_REFUSED("GET\t/ HTTP/1.1\r\n\r\n", BAD_REQUEST_LINE);
    ASSERT_REQUEST_REFUSED("GET /\tHTTP/1.1\r\n\r\n", BAD_TARGET);
    ASSERT_REQUEST_REFUSED("GET /a\x01 HTTP/1.1\r\n\r\n", BAD_TARGET);
    ASSERT_REQUEST_REFUSED("GET /\0 HTTP/1.1\r\n\r\n", BAD_TARGET);
    ASSERT_REQUEST_REFUSED("GET /\x7f HTTP/1.1\r\n\r\n", BAD_TARGET);
    ASSERT_REQUEST_REFUSED("GET /\xc3\xa9 HTTP/1.1\r\n\r\n", BAD_TARGET);
    ASSERT_REQUEST_REFUSED("GET /\r\n\r\n", BAD_REQUEST_LINE);
    ASSERT_REQUEST_REFUSED("GET / \r\n\r\n", BAD_REQUEST_LINE);
    ASSERT_REQUEST_REFUSED("GET\r\n\r\n", BAD_REQUEST_LINE);
    ASSERT_REQUEST_REFUSED("GET / http/1.1\r\n\r\n", BAD_REQUEST_LINE);
    ASSERT_REQUEST_REFUSED("GET / HTTP/1.10\r\n\r\n", BAD_REQUEST_LINE);
    ASSERT_REQUEST_REFUSED("GET / HTTP/1\r\n\r\n", BAD_REQUEST_LINE);
    ASSERT_REQUEST_REFUSED("GET / HTTP/11.1\r\n\r\n", BAD_REQUEST_LINE);
    ASSERT_REQUEST_REFUSED("GET / HTTPS/1.1\r\n\r\n", BAD_REQUEST_LINE);
    ASSERT_REQUEST_REFUSED("G@T / HTTP/1.1\r\n\r\n", BAD_REQUEST_LINE);
    ASSERT_REQUEST_REFUSED("(GET) / HTTP/1.1\r\n\r\n", BAD_REQUEST_LINE);
    ASSERT_REQUEST_REFUSED("GET / HTTP/1.1\n\n", BAD_LINE_END);
    ASSERT_REQUEST_REFUSED("GET /\n", BAD_LINE_END);
    ASSERT_REQUEST_REFUSED("GET / HTTP/1.1\rX: y\r\n\r\n", BAD_LINE_END);
}

static void what_cannot_be_http_is_refused_at_once(void **state)
{
    (void)state;
    ASSERT_REQUEST_REFUSED("\x16", BAD_REQUEST_LINE);       /* TLS */
    ASSERT_REQUEST_REFUSED("{", BAD_REQUEST_LINE);          /* JSON */
    ASSERT_REQUEST_REFUSED("\0", BAD_REQUEST_LINE);         /* frames */
    ASSERT_REQUEST_REFUSED("\r\n\r\n\0", BAD_REQUEST_LINE); /* PROXY protocol 2 */
    ASSERT_REQUEST_REFUSED("GET / F", BAD_REQUEST_LINE);
    ASSERT_RESPONSE_REFUSED("220 smtp", BAD_RESPONSE);
    ASSERT_RESPONSE_REFUSED("HTTP/1.1 2x", BAD_RESPONSE);
    assert_int_equal(REQUEST("ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEF").status, SCAN_MORE);
    ASSERT_REQUEST_REFUSED("ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEFG", NOT_IMPLEMENTED);
    assert_int_equal(REQUEST("ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEF /").status, SCAN_MORE);
}

static void field_lines_have_one_form(void **state)
{
    (void)state;
    assert_int_equal(REQUEST("GET / HTTP/1.1\r\nA:\r\nB: \t \r\nC:d\r\n!#$%&'*+-.^_`|~9z: \x80\xff\t\"\r\n\r\n").status,
                     SCAN_DONE);
    ASSERT_REQUEST_REFUSED("GET / HTTP/1.1\r\n Host: a\r\n\r\n", BAD_FIELD);
    ASSERT_REQUEST_REFUSED("GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n", BAD_FIELD);
    ASSERT_REQUEST_REFUSED("GET / HTTP/1.1\r\nA: b\r\n\tc\r\n\r\n", BAD_FIELD);
    ASSERT_REQUEST_REFUSED("GET / HTTP/1.1\r\nA : b\r\n\r\n", BAD_FIELD);
    ASSERT_REQUEST_REFUSED("GET / HTTP/1.1\r\nA\t: b\r\n\r\n", BAD_FIELD);
    ASSERT_REQUEST_REFUSED("GET / HTTP/1.1\r\nA b: c\r\n\r\n", BAD_FIELD);
    ASSERT_REQUEST_REFUSED("GET / HTTP/1.1\r\n: c\r\n\r\n", BAD_FIELD);
    ASSERT_REQUEST_REFUSED("GET / HTTP/1.1\r\nA\r\n\r\n", BAD_FIELD);
    ASSERT_REQUEST_REFUSED("GET / HTTP/1.1\r\nA(b): c\r\n\r\n", BAD_FIELD);
    ASSERT_REQUEST_REFUSED("GET / HTTP/1.1\r\nA\xe9: c\r\n\r\n", BAD_FIELD);
    ASSERT_REQUEST_REFUSED("GET / HTTP/1.1\r\nA: b\0c\r\n\r\n", BAD_FIELD);
    ASSERT_REQUEST_REFUSED("GET / HTTP/1.1\r\nA: b\x1b\r\n\r\n", BAD_FIELD);
    ASSERT_REQUEST_REFUSED("GET / HTTP/1.1\r\nA: b\x7f\r\n\r\n", BAD_FIELD);
    ASSERT_REQUEST_REFUSED("GET / HTTP/1.1\r\nA: b\nC: d\r\n\r\n", BAD_LINE_END);
    ASSERT_REQUEST_REFUSED("GET / HTTP/1.1\r\nA: b\rC: d\r\n\r\n", BAD_LINE_END);
    ASSERT_REQUEST_REFUSED("GET / HTTP/1.1\r\nA\n", BAD_LINE_END);
    ASSERT_REQUEST_REFUSED("GET / HTTP/1.1\r\nA: b\r\n\n", BAD_LINE_END);
    ASSERT_REQUEST_REFUSED("GET / HTTP/1.1\r\nA: b\r\n\rX", BAD_LINE_END);
    ASSERT_RESPONSE_REFUSED("HTTP/1.1 200 OK\r\nA: b\n\r\n", BAD_RESPONSE);
    ASSERT_RESPONSE_REFUSED("HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n", BAD_RESPONSE);
    ASSERT_RESPONSE_REFUSED("HTTP/1.1 200 OK\r\nA : b\r\n\r\n", BAD_RESPONSE);
}

static void every_byte_is_judged_in_names_and_values(void **state)
{
    (void)state;
    const char *marks = "!#$%&'*+-.^_`|~";

    for (unsigned c = 0; c < 256; c++) {
        char name[] = "GET / HTTP/1.1\r\na?b: c\r\n\r\n", value[] = "GET / HTTP/1.1\r\na: b?c\r\n\r\n";
        *strchr(name, '?') = (char)c;
        *strchr(value, '?') = (char)c;
        bool alnum = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
        bool token = alnum || (c && strchr(marks, (int)c));
        bool text = c == '\t' || (c >= ' ' && c != 0x7f);
        assert_int_equal(char_is((char)c, CHAR_TOKEN), token);
        assert_int_equal(scan_with(HEAD_REQUEST, str_make(name, sizeof name - 1), &wide).status,
                         token || c == ':' ? SCAN_DONE : SCAN_BAD);
        assert_int_equal(scan_with(HEAD_REQUEST, str_make(value, sizeof value - 1), &wide).status,
                         text ? SCAN_DONE : SCAN_BAD);
    }
    assert_false(is_token(STR("")));
    assert_true(is_token(STR("a-B.9")));
    assert_false(is_token(STR("a b")));
}

static void status_lines_have_one_form(void **state)
{
    (void)state;
    assert_int_equal(RESPONSE("HTTP/1.1 200\r\n\r\n").status, SCAN_DONE);
    assert_int_equal(RESPONSE("HTTP/1.1 200 \r\n\r\n").status, SCAN_DONE);
    assert_int_equal(RESPONSE("HTTP/1.0 404 Nicht\tgefunden \xfc\r\n\r\n").status, SCAN_DONE);
    ASSERT_RESPONSE_REFUSED("HTTP/1.1 2000\r\n\r\n", BAD_RESPONSE);
    ASSERT_RESPONSE_REFUSED("HTTP/1.1 20 OK\r\n\r\n", BAD_RESPONSE);
    ASSERT_RESPONSE_REFUSED("HTTP/1.1  200 OK\r\n\r\n", BAD_RESPONSE);
    ASSERT_RESPONSE_REFUSED("HTTP/1.1\t200 OK\r\n\r\n", BAD_RESPONSE);
    ASSERT_RESPONSE_REFUSED("HTTP/1.10 200 OK\r\n\r\n", BAD_RESPONSE);
    ASSERT_RESPONSE_REFUSED("http/1.1 200 OK\r\n\r\n", BAD_RESPONSE);
    ASSERT_RESPONSE_REFUSED("HTTP/1.1 200 O\x01K\r\n\r\n", BAD_RESPONSE);
    ASSERT_RESPONSE_REFUSED("HTTP/1.1 200 OK\n\n", BAD_RESPONSE);
    ASSERT_RESPONSE_REFUSED("HTTP/1.1 -20 OK\r\n\r\n", BAD_RESPONSE);
}

static void limits_are_exact(void **state)
{
    (void)state;
    struct str head = STR("GET /abc HTTP/1.1\r\nA: b\r\nC: d\r\n\r\n");
    struct head_limits l = {.head_bytes = head.n, .target_bytes = 4, .fields = 2};

    assert_int_equal(scan_with(HEAD_REQUEST, head, &l).status, SCAN_DONE);
    l.head_bytes--;
    assert_refused(scan_with(HEAD_REQUEST, head, &l), ERR_HEAD_TOO_LARGE);
    l.head_bytes = 16384;
    l.target_bytes = 3;
    assert_refused(scan_with(HEAD_REQUEST, head, &l), ERR_TARGET_TOO_LONG);
    l.target_bytes = SIZE_MAX;
    l.fields = 1;
    assert_refused(scan_with(HEAD_REQUEST, head, &l), ERR_HEAD_TOO_LARGE);

    struct str response = STR("HTTP/1.1 200 OK\r\nA: b\r\nC: d\r\n\r\n");
    l.fields = 2;
    assert_int_equal(scan_with(HEAD_RESPONSE, response, &l).status, SCAN_DONE);
    l.fields = 1;
    assert_refused(scan_with(HEAD_RESPONSE, response, &l), ERR_RESPONSE_HEAD_TOO_LARGE);
    l.fields = 2;
    l.head_bytes = response.n - 1;
    assert_refused(scan_with(HEAD_RESPONSE, response, &l), ERR_RESPONSE_HEAD_TOO_LARGE);
}

static void limits_act_as_soon_as_they_are_passed(void **state)
{
    (void)state;
    struct head_limits l = {.head_bytes = 20, .target_bytes = 6, .fields = 9};

    assert_int_equal(scan_with(HEAD_REQUEST, STR("GET /abcde"), &l).status, SCAN_MORE);
    assert_refused(scan_with(HEAD_REQUEST, STR("GET /abcdef"), &l), ERR_TARGET_TOO_LONG);
    assert_int_equal(scan_with(HEAD_REQUEST, STR("GET / HTTP/1.1\r\nA: "), &l).status, SCAN_MORE);
    assert_refused(scan_with(HEAD_REQUEST, STR("GET / HTTP/1.1\r\nA: b"), &l), ERR_HEAD_TOO_LARGE);
    l.target_bytes = 100; /* the target is what makes the head too large */
    assert_refused(scan_with(HEAD_REQUEST, STR("GET /abcdefghijklmnopqrstuvwxyz"), &l), ERR_TARGET_TOO_LONG);
}

/* Heads of random pieces: whatever they are, how they are split does not matter (scan_with() looks). */
static void verdicts_on_random_heads_do_not_depend_on_splits(void **state)
{
    (void)state;
    static const char *const pieces[] = {
        "GET ", "/",  " ",  "HTTP/1.1", "\r\n", "\r\n",  "Host: a",         "A",        ":",
        "\r",   "\n", "\t", "\x7f",     "b",    "\r\n ", "HTTP/1.1 200 OK", "x: y\r\n", "\r\n\r\n"};
    uint64_t seed = 20240229;
    struct head_limits l = {.head_bytes = 60, .target_bytes = 8, .fields = 3};

    for (unsigned round = 0; round < 4000; round++) {
        char text[256];
        size_t n = 0;
        for (unsigned i = 0; i < 10; i++) {
            seed = seed * 6364136223846793005u + 1442695040888963407u;
            const char *piece = pieces[(seed >> 33) % (sizeof pieces / sizeof pieces[0])];
            memcpy(text + n, piece, strlen(piece));
            n += strlen(piece);
        }
        struct verdict v = scan_with(round & 1 ? HEAD_RESPONSE : HEAD_REQUEST, str_make(text, n), &l);
        assert_true(v.status != SCAN_DONE || v.at <= n);
    }
}

/* Is the head, which has 20 bytes "a" from `from` on, taken with `byte` in the place of one of them? */
static bool is_taken(enum head_kind kind, struct str head, size_t from, size_t at, unsigned byte)
{
    char text[64];

    assert_true(head.n <= sizeof text);
    memcpy(text, head.p, head.n);
    text[from + at] = (char)byte;
    return scan_with(kind, str_make(text, head.n), &wide).status == SCAN_DONE;
}

/* Eight bytes are looked at at once where there are so many: so each byte, at each place among them. */
static void every_byte_is_judged_at_every_place(void **state)
{
    (void)state;
    struct str request = STR("GET aaaaaaaaaaaaaaaaaaaa HTTP/1.1\r\n\r\n"),
               response = STR("HTTP/1.1 200 aaaaaaaaaaaaaaaaaaaa\r\n\r\n");

    for (unsigned byte = 0; byte < 256; byte++)
        for (size_t at = 0; at < 20; at++) {
            bool visible = byte > 0x20 && byte < 0x7f, field = visible || byte == ' ' || byte == '\t' || byte >= 0x80;
            assert_int_equal(is_taken(HEAD_REQUEST, request, 4, at, byte), visible);
            assert_int_equal(is_taken(HEAD_RESPONSE, response, 13, at, byte), field);
        }
}

/* A reload may lower the limits under a head that has come in part. What is looked at is a block of its own, so that
 * sanitizers see a byte too many. */
static void limits_may_shrink_on_the_way(void **state)
{
    (void)state;
    static const struct head_limits narrow = {.head_bytes = 1000, .target_bytes = 100, .fields = 3};
    for (size_t n = 90; n < 600; n += 17) {
        char *text = malloc(n);
        struct head_scan s = {0};
        enum err e = ERR_OK;
        assert_non_null(text);
        memset(text, 'a', n);
        memcpy(text, "GET /", 5);
        assert_int_equal(head_scan(&s, HEAD_REQUEST, str_make(text, n - 3), &wide, &e), SCAN_MORE);
        bool over = n - 4 > narrow.target_bytes;
        assert_int_equal(head_scan(&s, HEAD_REQUEST, str_make(text, n), &narrow, &e), over ? SCAN_BAD : SCAN_MORE);
        assert_int_equal(e, over ? ERR_TARGET_TOO_LONG : ERR_OK);
        assert_true(s.at <= n);
        free(text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_head_ends_with_its_empty_line),
        cmocka_unit_test(empty_lines_before_a_request_are_skipped),
        cmocka_unit_test(request_lines_have_one_form),
        cmocka_unit_test(what_cannot_be_http_is_refused_at_once),
        cmocka_unit_test(field_lines_have_one_form),
        cmocka_unit_test(every_byte_is_judged_in_names_and_values),
        cmocka_unit_test(status_lines_have_one_form),
        cmocka_unit_test(limits_are_exact),
        cmocka_unit_test(limits_act_as_soon_as_they_are_passed),
        cmocka_unit_test(verdicts_on_random_heads_do_not_depend_on_splits),
        cmocka_unit_test(every_byte_is_judged_at_every_place),
        cmocka_unit_test(limits_may_shrink_on_the_way),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
