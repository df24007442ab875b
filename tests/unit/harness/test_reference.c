/* The reference reader by itself, on fixed examples: what is right is written down here, by hand. */
#include "harness/reference.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct reference_limits limits = {400, 100, 6, "X-Client-ID", false};

struct example {
    const char *text;
    enum reference_verdict verdict;
    int status; /* that must be acceptable, of a refusal */
};

#define HOST "Host: h\r\n"
#define END  "\r\n"
#define GOOD REFERENCE_FORWARD, 0
#define BAD  REFERENCE_REFUSE
#define MORE REFERENCE_INCOMPLETE, 0

static void check(const struct example *e)
{
    struct reference r;

    reference_read(&r, e->text, strlen(e->text), &limits);
    if (r.verdict != e->verdict || (e->status && !reference_accepts(&r, e->status)))
        print_error("verdict %d (%s), statuses 0x%x on:\n%s\n", (int)r.verdict, r.why, r.statuses, e->text);
    assert_int_equal(r.verdict, e->verdict);
    assert_true(e->status == 0 || reference_accepts(&r, e->status));
    assert_false(reference_accepts(&r, 200));
    if (e->verdict == REFERENCE_FORWARD)
        assert_string_equal(r.why, "");
    if (e->verdict == REFERENCE_REFUSE)
        assert_string_not_equal(r.why, "");
    reference_free(&r);
}

#define CHECK_ALL(examples)                                                                                            \
    for (size_t i = 0; i < sizeof(examples) / sizeof *(examples); i++)                                                 \
    check(&(examples)[i])

static void test_request_lines(void **state)
{
    static const struct example examples[] = {
        {"GET / HTTP/1.1\r\n" HOST END, GOOD},
        {"\r\n\r\n\r\n\r\nGET / HTTP/1.1\r\n" HOST END, GOOD},
        {"\r\n\r\n\r\n\r\n\r\nGET / HTTP/1.1\r\n" HOST END, BAD, 400},
        {"GET  / HTTP/1.1\r\n" HOST END, BAD, 400},
        {"GET /  HTTP/1.1\r\n" HOST END, BAD, 400},
        {"GET / HTTP/1.1 \r\n" HOST END, BAD, 400},
        {" GET / HTTP/1.1\r\n" HOST END, BAD, 400},
        {"GET\t/\tHTTP/1.1\r\n" HOST END, BAD, 400},
        {"GET /\r\n" HOST END, BAD, 400},
        {"GET / http/1.1\r\n" HOST END, BAD, 400},
        {"GET / HTTP/1.10\r\n" HOST END, BAD, 400},
        {"GET / HTTP/1.9\r\n" HOST END, GOOD},
        {"GET / HTTP/0.9\r\n" HOST END, BAD, 505},
        {"GET / HTTP/2.0\r\n" HOST END, BAD, 505},
        {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", BAD, 505},
        {"CONNECT h:443 HTTP/1.1\r\n" HOST END, BAD, 501},
        {"TRACE / HTTP/1.1\r\n" HOST END, BAD, 405},
        {"FOO / HTTP/1.1\r\n" HOST END, BAD, 501},
        {"get / HTTP/1.1\r\n" HOST END, BAD, 501},
        {"G(T / HTTP/1.1\r\n" HOST END, BAD, 400},
        {"GET / HTTP/1.1\n" HOST END, BAD, 400},
        {"GET / HTTP/1.1\rHost: h\r\n\r\n", BAD, 400},
        {"GET / HTTP/1.1\r\n" HOST, MORE},
        {"GET / HTTP/1.1\r\n" HOST "\r", MORE},
        {"GET / HT", MORE},
        {"\r\n", MORE},
        {"", MORE},
    };

    (void)state;
    CHECK_ALL(examples);
}

static void test_targets(void **state)
{
    static const struct example examples[] = {
        {"OPTIONS * HTTP/1.1\r\n" HOST END, GOOD},           {"GET * HTTP/1.1\r\n" HOST END, BAD, 400},
        {"GET a HTTP/1.1\r\n" HOST END, BAD, 400},           {"GET ?a HTTP/1.1\r\n" HOST END, BAD, 400},
        {"GET /a#b HTTP/1.1\r\n" HOST END, BAD, 400},        {"GET /\xc3\xa9 HTTP/1.1\r\n" HOST END, BAD, 400},
        {"GET /\x7f HTTP/1.1\r\n" HOST END, BAD, 400},       {"GET /a\"<>|^` HTTP/1.1\r\n" HOST END, GOOD},
        {"GET HTTP://h/ HTTP/1.1\r\n" HOST END, GOOD},       {"GET https://h HTTP/1.1\r\n" HOST END, GOOD},
        {"GET ftp://h/ HTTP/1.1\r\n" HOST END, BAD, 400},    {"GET http:///x HTTP/1.1\r\n" HOST END, BAD, 400},
        {"GET http://u@h/ HTTP/1.1\r\n" HOST END, BAD, 400}, {"GET http://h/ HTTP/1.1\r\n\r\n", BAD, 400},
        {"GET h:443 HTTP/1.1\r\n" HOST END, BAD, 400},
    };

    (void)state;
    CHECK_ALL(examples);
}

static bool host_is_good(const char *host)
{
    struct reference r;
    char text[200];

    snprintf(text, sizeof text, "GET / HTTP/1.1\r\nHost: %s\r\n\r\n", host);
    reference_read(&r, text, strlen(text), &limits);
    return r.verdict == REFERENCE_FORWARD && r.may_refuse == 0 && span_is(r.host, host);
}

static void test_hosts(void **state)
{
    static const char *const good[] = {"",
                                       "h",
                                       "a.b-c_d~",
                                       "h:",
                                       "h:0",
                                       "h:65535",
                                       "%41",
                                       "1.2.3.4",
                                       "1.2.3.4:80",
                                       "999.1.1.1",
                                       "!$&'()*+;=",
                                       "[::]",
                                       "[::1]:8",
                                       "[1::]",
                                       "[1:2:3:4:5:6:7:8]",
                                       "[1:2:3::6:7:8]",
                                       "[::ffff:1.2.3.4]",
                                       "[1:2:3:4:5:6:1.2.3.4]",
                                       "[1:2:3:4:5:6:7::]"};
    static const char *const bad[] = {":80",
                                      "h:65536",
                                      "h:x",
                                      "h:1:2",
                                      "a b",
                                      "u@h",
                                      "a,b",
                                      "h/x",
                                      "h?",
                                      "%4",
                                      "%4g",
                                      "h\xff",
                                      "[::1",
                                      "::1]",
                                      "[]",
                                      "[1]",
                                      "[:::]",
                                      "[1::2::3]",
                                      "[12345::]",
                                      "[::1]x",
                                      "[::g]",
                                      "[1:2:3:4:5:6:7:8:9]",
                                      "[1:2:3:4:5:6:7:8::]",
                                      "[::1.2.3]",
                                      "[::1.2.3.256]",
                                      "[::01.2.3.4]",
                                      "[1.2.3.4]",
                                      "[1:2:3:4:5:6:7:1.2.3.4]",
                                      "[::1%25lo]",
                                      "[v1.x]",
                                      "[:1::2]",
                                      "[1::2:]"};

    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        if (!host_is_good(good[i]))
            fail_msg("%s is good", good[i]);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (host_is_good(bad[i]))
            fail_msg("%s is bad", bad[i]);
}

static void test_fields(void **state)
{
    static const struct example examples[] = {
        {"GET / HTTP/1.0\r\n\r\n", GOOD},
        {"GET / HTTP/1.1\r\n\r\n", BAD, 400},
        {"GET / HTTP/1.1\r\n" HOST HOST END, BAD, 400},
        {"GET / HTTP/1.0\r\n" HOST HOST END, BAD, 400},
        {"GET / HTTP/1.1\r\n" HOST "X : 1\r\n\r\n", BAD, 400},
        {"GET / HTTP/1.1\r\n" HOST " X: 1\r\n\r\n", BAD, 400},
        {"GET / HTTP/1.1\r\n X: 1\r\n" HOST END, BAD, 400},
        {"GET / HTTP/1.1\r\n" HOST ": 1\r\n\r\n", BAD, 400},
        {"GET / HTTP/1.1\r\n" HOST "X\r\n\r\n", BAD, 400},
        {"GET / HTTP/1.1\r\n" HOST "X: a\x01\r\n\r\n", BAD, 400},
        {"GET / HTTP/1.1\r\n" HOST "X: a\nY: b\r\n\r\n", BAD, 400},
        {"GET / HTTP/1.1\r\n" HOST "X: a\rb\r\n\r\n", BAD, 400},
        {"GET / HTTP/1.1\r\n" HOST "X:\t\xff \r\nY:\r\n\r\n", GOOD},
        {"GET / HTTP/1.1\r\n" HOST "1:\r\n2:\r\n3:\r\n4:\r\n5:\r\n\r\n", GOOD},
        {"GET / HTTP/1.1\r\n" HOST "1:\r\n2:\r\n3:\r\n4:\r\n5:\r\n6:\r\n\r\n", BAD, 431},
        {"GET / HTTP/1.1\r\n" HOST "Expect: 100-Continue\r\n\r\n", GOOD},
        {"GET / HTTP/1.1\r\n" HOST "Expect: 101\r\n\r\n", BAD, 417},
        {"GET / HTTP/1.0\r\n" HOST "Expect: 101\r\n\r\n", GOOD},
        {"GET / HTTP/1.1\r\n" HOST "X-Client-ID: a\r\nx-client-id: a\r\n\r\n", BAD, 400},
        {"GET / HTTP/1.1\r\n" HOST "Via: 1 loadbalancer,1 Loadbalancer (x), 1 loadbalancer,1 b,,1.1 loadbalancer\r\n"
         "via: 1 loadbalancer\r\n\r\n",
         GOOD},
        {"GET / HTTP/1.1\r\n" HOST "Via: 1 loadbalancer,1 Loadbalancer (x), 1 loadbalancer,1 loadbalancer,,1.1 "
         "loadbalancer\r\nvia: 1 loadbalancer\r\n\r\n",
         BAD, 508},
    };

    (void)state;
    CHECK_ALL(examples);
}

/* A request in a loop is answered with an error, but it is sound: where it ends is known. */
static void test_loop(void **state)
{
    static const char text[] =
        "PUT / HTTP/1.1\r\nHost: h\r\nVia: 1 loadbalancer, 1 loadbalancer, 1 loadbalancer\r\n"
        "Via: 1 loadbalancer, 1 loadbalancer, 1 loadbalancer\r\nContent-Length: 3\r\n\r\nabcnext";
    struct reference r;

    (void)state;
    reference_read(&r, text, sizeof text - 1, &limits);
    assert_int_equal(r.verdict, REFERENCE_REFUSE);
    assert_int_equal(r.statuses, REFERENCE_508);
    assert_int_equal(r.used, sizeof text - 1 - 4);
    reference_free(&r);
}

#define POST "POST / HTTP/1.1\r\n" HOST

static void test_framing(void **state)
{
    static const struct example examples[] = {
        {POST "Content-Length: 3\r\n\r\nabc", GOOD},
        {POST "Content-Length: 0003\r\n\r\nabc", GOOD},
        {POST "Content-Length: 3\r\n\r\nab", MORE},
        {POST "Content-Length: 9223372036854775807\r\n\r\nab", MORE},
        {POST "Content-Length: 9223372036854775808\r\n\r\n", BAD, 400},
        {POST "Content-Length: 18446744073709551619\r\n\r\nabc", BAD, 400},
        {POST "Content-Length: +3\r\n\r\nabc", BAD, 400},
        {POST "Content-Length: 3, 3\r\n\r\nabc", BAD, 400},
        {POST "Content-Length:\r\n\r\n", BAD, 400},
        {POST "Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc", BAD, 400},
        {POST "Transfer-Encoding: ChunkeD\t\r\n\r\n0\r\n\r\n", GOOD},
        {POST "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", BAD, 501},
        {POST "Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", BAD, 400},
        {POST "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", BAD, 400},
        {POST "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", BAD, 400},
        {"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", BAD, 400},
    };

    (void)state;
    CHECK_ALL(examples);
}

#define CHUNKED POST "Transfer-Encoding: chunked\r\n\r\n"

static void test_chunks(void **state)
{
    static const struct example examples[] = {
        {CHUNKED "3\r\nabc\r\n00A\r\n0123456789\r\n0\r\n\r\n", GOOD},
        {CHUNKED "0000000000000003\r\nabc\r\n0\r\n\r\n", GOOD},
        {CHUNKED "00000000000000003\r\nabc\r\n0\r\n\r\n", BAD, 400},
        {CHUNKED "7fffffffffffffff\r\nabc", MORE},
        {CHUNKED "8000000000000000\r\nabc", BAD, 400},
        {CHUNKED "0x3\r\nabc\r\n0\r\n\r\n", BAD, 400},
        {CHUNKED " 3\r\nabc\r\n0\r\n\r\n", BAD, 400},
        {CHUNKED "\r\n", BAD, 400},
        {CHUNKED "3 \r\nabc\r\n0\r\n\r\n", BAD, 400},
        {CHUNKED "3\nabc\r\n0\r\n\r\n", BAD, 400},
        {CHUNKED "3\r\nabcX\r\n0\r\n\r\n", BAD, 400},
        {CHUNKED "3\r\nabc\n0\r\n\r\n", BAD, 400},
        {CHUNKED "3;a;b = c\t; d=\"\\\";\"\r\nabc\r\n0\r\n\r\n", GOOD},
        {CHUNKED "3;\r\nabc\r\n0\r\n\r\n", BAD, 400},
        {CHUNKED "3;a=\r\nabc\r\n0\r\n\r\n", BAD, 400},
        {CHUNKED "3;a=\"b\r\nabc\r\n0\r\n\r\n", BAD, 400},
        {CHUNKED "3;a=\"b\\\"\r\nabc\r\n0\r\n\r\n", BAD, 400},
        {CHUNKED "3;a=b \r\nabc\r\n0\r\n\r\n", BAD, 400},
        {CHUNKED "3;a\nb\r\nabc\r\n0\r\n\r\n", BAD, 400},
        {CHUNKED "0\r\nT: 1\r\nU:\r\n\r\n", GOOD},
        {CHUNKED "0\r\nT: 1\r\n U\r\n\r\n", BAD, 400},
        {CHUNKED "0\r\nT : 1\r\n\r\n", BAD, 400},
        {CHUNKED "0\r\nT: \x01\r\n\r\n", BAD, 400},
        {CHUNKED "0\r\n", MORE},
        {CHUNKED "0\r\n\r", MORE},
        {CHUNKED "3\r\nabc\r", MORE},
        {CHUNKED "3", MORE},
    };

    (void)state;
    CHECK_ALL(examples);
}

static void read_filled(struct reference *r, const char *before, size_t fill, const char *behind)
{
    static char text[20000];
    int n = snprintf(text, sizeof text, "%s%0*d%s", before, (int)fill, 7, behind);

    reference_read(r, text, (size_t)n, &limits);
}

static void test_limits(void **state)
{
    static const char *const head_end = "\r\n" HOST "\r\n";
    size_t lines = strlen("GET / HTTP/1.1\r\nX: ") + strlen(head_end);
    struct reference r;

    (void)state;
    read_filled(&r, "GET /", 99, " HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_int_equal(r.verdict, REFERENCE_FORWARD);
    read_filled(&r, "GET /", 100, " HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_true(r.verdict == REFERENCE_REFUSE && reference_accepts(&r, 414));
    read_filled(&r, "GET / HTTP/1.1\r\nX: ", 400 - lines, head_end);
    assert_true(r.verdict == REFERENCE_FORWARD && r.used == 400);
    read_filled(&r, "GET / HTTP/1.1\r\nX: ", 401 - lines, head_end);
    assert_true(r.verdict == REFERENCE_REFUSE && reference_accepts(&r, 431));
    read_filled(&r, "", 401, "\n");
    assert_true(r.verdict == REFERENCE_REFUSE && reference_accepts(&r, 501));
    read_filled(&r, "GET / HTTP/1.1\r\nX: ", 400, "");
    assert_true(r.verdict == REFERENCE_REFUSE && reference_accepts(&r, 431));
    read_filled(&r, CHUNKED "0;", REFERENCE_EXTENSIONS - 1, "\r\n\r\n");
    assert_int_equal(r.verdict, REFERENCE_FORWARD);
    read_filled(&r, CHUNKED "0;", REFERENCE_EXTENSIONS, "\r\n\r\n");
    assert_true(r.verdict == REFERENCE_REFUSE && r.head_whole);
    read_filled(&r, CHUNKED "0\r\nT:", REFERENCE_TRAILER_MAX, "\r\n\r\n");
    assert_true(r.verdict == REFERENCE_REFUSE && r.head_whole);
}

static void test_what_is_read(void **state)
{
    static const char text[] =
        "\r\nPUT http://Other:81?q HTTP/1.1\r\nhost:h\r\nConnection: X-A ,, close\r\n"
        "Transfer-Encoding:chunked\r\nX-A: \t v w \t\r\n\r\n2\r\nab\r\n1;x\r\nc\r\n0\r\nT: u\r\n\r\nnext";
    struct reference r;

    (void)state;
    reference_read(&r, text, sizeof text - 1, &limits);
    assert_int_equal(r.verdict, REFERENCE_FORWARD);
    assert_int_equal(r.used, sizeof text - 1 - 4);
    assert_true(span_is(r.method, "PUT") && span_is(r.prefix, "/") && span_is(r.target, "?q"));
    assert_true(span_is(r.host, "Other:81"));
    assert_int_equal(r.field_count, 4);
    assert_true(span_is(r.fields[3].name, "X-A") && span_is(r.fields[3].value, "v w"));
    assert_int_equal(r.option_count, 2);
    assert_true(span_is(r.options[0], "X-A") && span_is(r.options[1], "close") && r.last);
    assert_int_equal(r.content_n, 3);
    assert_memory_equal(r.content, "abc", 3);
    assert_int_equal(r.trailer_count, 1);
    assert_true(span_is(r.trailers[0].name, "T") && span_is(r.trailers[0].value, "u"));
    reference_free(&r);
}

static bool is_last(const char *version, const char *connection)
{
    struct reference r;
    char text[200];

    snprintf(text, sizeof text, "GET / HTTP/%s\r\nHost: h\r\n%s\r\n", version, connection);
    reference_read(&r, text, strlen(text), &limits);
    assert_int_equal(r.verdict, REFERENCE_FORWARD);
    return r.last;
}

static void test_persistence(void **state)
{
    (void)state;
    assert_false(is_last("1.1", ""));
    assert_true(is_last("1.1", "Connection: a, Close\r\n"));
    assert_true(is_last("1.0", ""));
    assert_false(is_last("1.0", "connection:keep-alive\r\n"));
    assert_true(is_last("1.0", "Connection: keep-alive\r\nConnection: close\r\n"));
    assert_false(is_last("1.1", "Proxy-Connection: close\r\n"));
}

/* ---- responses ---- */

static enum reference_verdict response(const char *text, bool to_head, bool ended, const char *content)
{
    struct reference r;

    reference_read_response(&r, text, strlen(text), to_head, ended, &limits);
    enum reference_verdict verdict = r.verdict;
    if (verdict == REFERENCE_FORWARD) {
        assert_int_equal(r.content_n, strlen(content));
        assert_true(r.content_n == 0 || memcmp(r.content, content, r.content_n) == 0);
    }
    reference_free(&r);
    return verdict;
}

static void test_responses(void **state)
{
    static const char *const bad[] = {"HTTP/1.1 20 OK\r\n\r\n",
                                      "HTTP/1.1  200 OK\r\n\r\n",
                                      "HTTP/2.0 200 OK\r\n\r\n",
                                      "http/1.1 200 OK\r\n\r\n",
                                      "HTTP/1.1 099 OK\r\n\r\n",
                                      "HTTP/1.1 600 OK\r\n\r\n",
                                      "HTTP/1.1 200OK\r\n\r\n",
                                      "\r\nHTTP/1.1 200 OK\r\n\r\n",
                                      "HTTP/1.1 200 OK\n\r\n\r\n",
                                      "HTTP/1.1 200 OK\r\nA : b\r\n\r\n",
                                      "HTTP/1.1 204 OK\r\nContent-Length: x\r\n\r\n",
                                      "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na",
                                      "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\na",
                                      "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"};
    static const char length[] = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc";
    static const char open[] = "HTTP/1.1 200\r\n\r\nabc";

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(response(bad[i], false, true, ""), REFERENCE_REFUSE);
    assert_int_equal(response(length, false, false, "abc"), REFERENCE_FORWARD);
    assert_int_equal(response(length, true, false, ""), REFERENCE_FORWARD);
    assert_int_equal(response("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab", false, true, ""), REFERENCE_INCOMPLETE);
    assert_int_equal(response("HTTP/1.1 304 \r\nContent-Length: 3\r\n\r\n", false, false, ""), REFERENCE_FORWARD);
    assert_int_equal(response("HTTP/1.1 103 H\r\n\r\n", false, false, ""), REFERENCE_FORWARD);
    assert_int_equal(response(open, false, false, ""), REFERENCE_INCOMPLETE);
    assert_int_equal(response(open, false, true, "abc"), REFERENCE_FORWARD);
    assert_int_equal(
        response("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n", false, false, "a"),
        REFERENCE_FORWARD);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_request_lines), cmocka_unit_test(test_targets),      cmocka_unit_test(test_hosts),
        cmocka_unit_test(test_fields),        cmocka_unit_test(test_framing),      cmocka_unit_test(test_chunks),
        cmocka_unit_test(test_limits),        cmocka_unit_test(test_what_is_read), cmocka_unit_test(test_persistence),
        cmocka_unit_test(test_loop),          cmocka_unit_test(test_responses),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
