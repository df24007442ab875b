/* Heads taken apart: request lines, targets, Host, Connection, Expect, status lines. */
#include "http/parse.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#define FIELDS_MAX 100

static const struct head_limits wide = {.head_bytes = 262144, .target_bytes = 131072, .fields = FIELDS_MAX};
static struct field fields[FIELDS_MAX];

/* Scans `head`, which must pass and be the whole of it, and parses it. */
static enum err parse_str(struct str head, struct request *r)
{
    struct head_scan s = {0};
    enum err e = ERR_OK;

    if (head_scan(&s, HEAD_REQUEST, head, &wide, &e) != SCAN_DONE || s.at != head.n)
        fail_msg("not a head (%s): %.*s", err_reason(e), STR_ARG(head));
    r->headers = (struct headers){.v = fields, .max = FIELDS_MAX};
    return parse_request(head, r);
}

#define PARSE(lit, r) parse_str(STR(lit), r)

static void assert_str(struct str s, const char *text)
{
    if (!str_eq(s, str_of(text)))
        fail_msg("\"%.*s\" is not \"%s\"", STR_ARG(s), text);
}

static void assert_err(enum err got, enum err wanted)
{
    assert_string_equal(err_reason(got), err_reason(wanted));
}

static void assert_refused(struct str head, enum err e)
{
    struct request r;

    assert_err(parse_str(head, &r), e);
}

#define ASSERT_REFUSED(lit, e) assert_refused(STR(lit), ERR_##e)

/* What is known of the request of a head that the scan refuses, whatever the fault was. */
static void assert_known(const char *text, const struct head_limits *limits, enum method method, const char *name,
                         const char *target)
{
    struct head_scan s = {0};
    struct request r = {.method_text = STR_INIT(""), .target = STR_INIT("")};
    enum err e = ERR_OK;

    if (head_scan(&s, HEAD_REQUEST, str_of(text), limits, &e) != SCAN_BAD)
        fail_msg("not refused: %s", text);
    parse_refused(&s, str_of(text), &r);
    assert_int_equal(r.method, method);
    assert_str(r.method_text, name);
    assert_str(r.target, target);
}

static void a_refused_head_is_known_by_its_first_line(void **state)
{
    (void)state;
    static const struct head_limits narrow = {.head_bytes = 60, .target_bytes = 8, .fields = 1};

    assert_known("HEAD /a HTTP/1.1\r\nA: 1\r\nB: 2\r\n\r\n", &narrow, METHOD_HEAD, "HEAD", "/a");
    assert_known("\r\nPUT /a HTTP/1.1\r\nA B: 1\r\n", &wide, METHOD_PUT, "PUT", "/a");
    assert_known("GET /a HTTP/1.1\nA: 1\r\n", &wide, METHOD_GET, "GET", "/a");
    assert_known("GET /a b HTTP/1.1\r\n", &wide, METHOD_GET, "GET", "/a");
    assert_known("GET /34567890 HTTP/1.1\r\n", &narrow, METHOD_GET, "GET", "/34567890");
    assert_known("GET /3\x80 HTTP/1.1\r\n", &wide, METHOD_GET, "GET", "/3");
    assert_known("NONE /a\r\n", &wide, METHOD_OTHER, "NONE", "/a");
    assert_known("GET  /a HTTP/1.1\r\n", &wide, METHOD_GET, "GET", "");
    assert_known("GET\r\n", &wide, METHOD_OTHER, "", "");
    assert_known("\x16\x03\x01 / HTTP/1.1", &wide, METHOD_OTHER, "", "");
}

static void a_request_is_taken_apart(void **state)
{
    (void)state;
    struct request r;

    assert_err(PARSE("POST /a/b?c=d%20e HTTP/1.1\r\nHost: Example.com:8080\r\nX-A: \t one two \t\r\nX-B:\r\nx-a:3\r\n"
                     "Content-Length: 007\r\nX-C:   \r\n\r\n",
                     &r),
               ERR_OK);
    assert_int_equal(r.method, METHOD_POST);
    assert_str(r.method_text, "POST");
    assert_str(r.target, "/a/b?c=d%20e");
    assert_str(r.target_prefix, "");
    assert_str(r.host, "Example.com:8080");
    assert_int_equal(r.minor, 1);
    assert_true(r.keep_alive);
    assert_false(r.expect_continue);
    assert_int_equal(r.framing.kind, FRAMING_LENGTH);
    assert_int_equal(r.framing.length, 7);

    static const char *const names[] = {"Host", "X-A", "X-B", "x-a", "Content-Length", "X-C"};
    static const char *const values[] = {"Example.com:8080", "one two", "", "3", "007", ""};
    assert_int_equal(r.headers.n, 6);
    for (unsigned i = 0; i < 6; i++) {
        assert_str(r.headers.v[i].name, names[i]);
        assert_str(r.headers.v[i].value, values[i]);
    }
    assert_int_equal(r.headers.present, 1u << FIELD_HOST | 1u << FIELD_CONTENT_LENGTH | 1u << FIELD_OTHER);
}

static void methods_are_told_apart(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        enum method method;
        enum err e;
        bool idempotent;
    } cases[] = {
        {"GET", METHOD_GET, ERR_OK, true},
        {"HEAD", METHOD_HEAD, ERR_OK, true},
        {"POST", METHOD_POST, ERR_OK, false},
        {"PUT", METHOD_PUT, ERR_OK, true},
        {"DELETE", METHOD_DELETE, ERR_OK, true},
        {"OPTIONS", METHOD_OPTIONS, ERR_OK, true},
        {"PATCH", METHOD_PATCH, ERR_OK, false},
        {"PROPFIND", METHOD_OTHER, ERR_OK, false},
        {"M-SEARCH", METHOD_OTHER, ERR_OK, false},
        {"TRACE", METHOD_TRACE, ERR_METHOD_NOT_ALLOWED, true},
        {"CONNECT", METHOD_CONNECT, ERR_NOT_IMPLEMENTED, false},
        {"get", METHOD_OTHER, ERR_NOT_IMPLEMENTED, false},
        {"GETS", METHOD_OTHER, ERR_NOT_IMPLEMENTED, false},
        {"GE", METHOD_OTHER, ERR_NOT_IMPLEMENTED, false},
        {"MSEARCH", METHOD_OTHER, ERR_NOT_IMPLEMENTED, false},
        {"!#$%&'*+-.^_`|~", METHOD_OTHER, ERR_NOT_IMPLEMENTED, false},
    };

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char head[128];
        struct request r;
        int n = snprintf(head, sizeof head, "%s /x HTTP/1.1\r\nHost: a\r\n\r\n", cases[i].text);
        assert_err(parse_str(str_make(head, (size_t)n), &r), cases[i].e);
        assert_int_equal(r.method, cases[i].method);
        assert_str(r.method_text, cases[i].text);
        assert_str(r.target, "/x");
        assert_int_equal(method_is_idempotent(cases[i].method), cases[i].idempotent);
    }
}

static void versions_are_1_0_to_1_9(void **state)
{
    (void)state;
    struct request r;

    assert_err(PARSE("GET / HTTP/1.0\r\nHost: a\r\n\r\n", &r), ERR_OK);
    assert_int_equal(r.minor, 0);
    assert_err(PARSE("GET / HTTP/1.2\r\nHost: a\r\n\r\n", &r), ERR_OK);
    assert_int_equal(r.minor, 1);
    assert_err(PARSE("GET / HTTP/1.9\r\nHost: a\r\n\r\n", &r), ERR_OK);
    assert_int_equal(r.minor, 1);
    ASSERT_REFUSED("GET / HTTP/0.9\r\nHost: a\r\n\r\n", VERSION_NOT_SUPPORTED);
    ASSERT_REFUSED("GET / HTTP/2.0\r\nHost: a\r\n\r\n", VERSION_NOT_SUPPORTED);
    ASSERT_REFUSED("GET / HTTP/3.1\r\nHost: a\r\n\r\n", VERSION_NOT_SUPPORTED);
    ASSERT_REFUSED("PRI * HTTP/2.0\r\n\r\n", VERSION_NOT_SUPPORTED);
    /* The answer to a HEAD has no content, whatever it is. */
    assert_err(PARSE("HEAD / HTTP/2.0\r\nHost: a\r\n\r\n", &r), ERR_VERSION_NOT_SUPPORTED);
    assert_int_equal(r.method, METHOD_HEAD);
}

static void targets_have_three_forms(void **state)
{
    (void)state;
    static const struct {
        const char *method, *target, *prefix, *rest, *host;
    } cases[] = {
        {"GET", "/", "", "/", "h"},
        {"GET", "//x", "", "//x", "h"},
        {"GET", "/a|b{c}\"<>\\^`%zz?d?e", "", "/a|b{c}\"<>\\^`%zz?d?e", "h"},
        {"GET", "/http://other/", "", "/http://other/", "h"},
        {"OPTIONS", "*", "", "*", "h"},
        {"GET", "http://other/a?b", "", "/a?b", "other"},
        {"GET", "HTTP://other:80/", "", "/", "other:80"},
        {"GET", "hTTps://[::1]:443/a", "", "/a", "[::1]:443"},
        {"GET", "http://other", "", "/", "other"},
        {"GET", "http://other:", "", "/", "other:"},
        {"GET", "http://other?q=/x", "/", "?q=/x", "other"},
        {"GET", "http://other//x", "", "//x", "other"},
        {"OPTIONS", "http://other", "", "*", "other"},
        {"OPTIONS", "http://other/", "", "/", "other"},
        {"OPTIONS", "http://other?q", "/", "?q", "other"},
    };

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char head[256];
        struct request r;
        int n = snprintf(head, sizeof head, "%s %s HTTP/1.1\r\nHost: h\r\n\r\n", cases[i].method, cases[i].target);
        assert_err(parse_str(str_make(head, (size_t)n), &r), ERR_OK);
        assert_str(r.target, cases[i].rest);
        assert_str(r.target_prefix, cases[i].prefix);
        assert_str(r.host, cases[i].host);
    }
}

static void other_targets_are_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {"*",           "a",
                                      "?q",          "h:80",
                                      "/a#b",        "#",
                                      "http://",     "http:///a",
                                      "http://?q",   "http:/h/",
                                      "http:h",      "ftp://h/",
                                      "http://u@h/", "http://u:p@h/",
                                      "http://h:x/", "http://:80/",
                                      "http://h,i/", "http://[::1/",
                                      "http://h/#f", "http://h:65536/",
                                      "ws://h/",     "HTTP",
                                      "\\a",         "http://h\\i/",
                                      "https//h",    "http://[::1]x/",
                                      "**",          "http://%zz/"};

    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        char head[256];
        int n = snprintf(head, sizeof head, "GET %s HTTP/1.1\r\nHost: h\r\n\r\n", bad[i]);
        assert_refused(str_make(head, (size_t)n), ERR_BAD_TARGET);
    }
    ASSERT_REFUSED("OPTIONS ** HTTP/1.1\r\nHost: h\r\n\r\n", BAD_TARGET);
    ASSERT_REFUSED("OPTIONS *?q HTTP/1.1\r\nHost: h\r\n\r\n", BAD_TARGET);
}

static void a_host_is_one_and_well_formed(void **state)
{
    (void)state;
    static const char *const good[] = {
        "",        "a",     "a.b-c_d~e", "1.2.3.4",           "a:80", "a:",     "a:0",
        "a:65535", "[::1]", "[::1]:80",  "[::ffff:1.2.3.4]:", "a.b.", "%41%2c", "!$&'()*+;="};
    static const char *const bad[] = {":80",
                                      ":",
                                      "a b",
                                      "a,b",
                                      "u@a",
                                      "a/b",
                                      "a:80:90",
                                      "a:x",
                                      "a:-1",
                                      "a:65536",
                                      "a:000080",
                                      "[::1",
                                      "::1",
                                      "[]",
                                      "[::1]a",
                                      "[::1]:x",
                                      "[v1.a]",
                                      "[::1%25eth0]",
                                      "[1.2.3.4]",
                                      "[::12345]",
                                      "a%",
                                      "a%4",
                                      "a%4g",
                                      "a?b",
                                      "a#b",
                                      "a\\b",
                                      "\xc3\xa9",
                                      "a\tb",
                                      "<a>",
                                      "\"a\"",
                                      "a[::1]",
                                      "http://a",
                                      "[::1]]",
                                      "a|b",
                                      "[0000:0000:0000:0000:0000:0000:0000:0000:0000:0000:0000]"};

    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++)
        if (!host_is_valid(str_of(good[i])))
            fail_msg("refused: %s", good[i]);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        if (host_is_valid(str_of(bad[i])))
            fail_msg("taken: %s", bad[i]);
    assert_false(host_is_valid(str_make("[::1\0]", 6)));

    struct request r;
    assert_err(PARSE("GET / HTTP/1.1\r\nHost:\r\n\r\n", &r), ERR_OK);
    assert_str(r.host, "");
    assert_err(PARSE("GET / HTTP/1.0\r\n\r\n", &r), ERR_OK);
    assert_str(r.host, "");
    ASSERT_REFUSED("GET / HTTP/1.1\r\n\r\n", BAD_HOST);
    ASSERT_REFUSED("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", BAD_HOST);
    ASSERT_REFUSED("GET / HTTP/1.1\r\nHost: a\r\nhost:\r\n\r\n", BAD_HOST);
    ASSERT_REFUSED("GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", BAD_HOST);
    ASSERT_REFUSED("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", BAD_HOST);
    /* An absolute-form does not do without Host, nor excuse a bad one. */
    ASSERT_REFUSED("GET http://a/ HTTP/1.1\r\n\r\n", BAD_HOST);
    ASSERT_REFUSED("GET http://a/ HTTP/1.1\r\nHost: b, c\r\n\r\n", BAD_HOST);
}

/* http-parser takes any field whose name begins like Transfer-Encoding for that. */
static void a_name_that_only_begins_alike_is_another(void **state)
{
    (void)state;
    struct request r = {.headers = {.v = fields, .max = FIELDS_MAX}};
    struct response a = {.headers = {.v = fields, .max = FIELDS_MAX}};

    assert_int_equal(parse_request(STR("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding-Note: chunked\r\n"
                                       "Content-Length: 5\r\n\r\n"),
                                   &r),
                     ERR_OK);
    assert_int_equal(r.framing.kind, FRAMING_LENGTH);
    assert_int_equal(r.framing.length, 5);
    assert_int_equal(
        parse_response(STR("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encodings: x\r\n\r\n"), false, false, &a),
        ERR_OK);
    assert_int_equal(a.framing.kind, FRAMING_LENGTH);
}

static void framing_faults_are_told(void **state)
{
    (void)state;
    struct request r;

    ASSERT_REFUSED("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n", BAD_CONTENT_LENGTH);
    ASSERT_REFUSED("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\n", BAD_CONTENT_LENGTH);
    ASSERT_REFUSED("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\n", BAD_CONTENT_LENGTH);
    ASSERT_REFUSED("POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n", BAD_CONTENT_LENGTH);
    ASSERT_REFUSED("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9223372036854775808\r\n\r\n", BAD_CONTENT_LENGTH);
    ASSERT_REFUSED("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999999\r\n\r\n", BAD_CONTENT_LENGTH);
    ASSERT_REFUSED("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
                   BAD_TRANSFER_ENCODING);
    ASSERT_REFUSED("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n",
                   BAD_TRANSFER_ENCODING);
    ASSERT_REFUSED("POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", BAD_TRANSFER_ENCODING);
    ASSERT_REFUSED("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, gzip\r\n\r\n", BAD_TRANSFER_ENCODING);
    ASSERT_REFUSED("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", CODING_NOT_IMPLEMENTED);
    assert_err(PARSE("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \tChunked \t \r\n\r\n", &r), ERR_OK);
    assert_int_equal(r.framing.kind, FRAMING_CHUNKED);
    assert_err(PARSE("POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\t 5 \r\n\r\n", &r), ERR_OK);
    assert_int_equal(r.framing.length, 5);
    assert_err(PARSE("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\t \r\nX: y\r\n\r\n", &r), ERR_OK);
    assert_int_equal(r.framing.length, 5);
    assert_int_equal(r.headers.n, 3);
    assert_str(r.headers.v[2].value, "y");
}

static void connection_says_whether_it_persists(void **state)
{
    (void)state;
    static const struct {
        const char *fields;
        bool in_1_0, in_1_1;
    } cases[] = {
        {"", false, true},
        {"Connection: close\r\n", false, false},
        {"Connection: Close\r\n", false, false},
        {"Connection: keep-alive\r\n", true, true},
        {"Connection: foo, Keep-Alive\r\n", true, true},
        {"Connection: keep-alive, close\r\n", false, false},
        {"Connection: close\r\nConnection: keep-alive\r\n", false, false},
        {"Connection: closed\r\n", false, true},
        {"Keep-Alive: timeout=5\r\n", false, true},
        {"Proxy-Connection: keep-alive\r\n", false, true},
    };

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        for (unsigned minor = 0; minor < 2; minor++) {
            char head[256];
            struct request r;
            int n = snprintf(head, sizeof head, "GET / HTTP/1.%u\r\nHost: h\r\n%s\r\n", minor, cases[i].fields);
            assert_err(parse_str(str_make(head, (size_t)n), &r), ERR_OK);
            assert_int_equal(r.keep_alive, minor ? cases[i].in_1_1 : cases[i].in_1_0);
        }
    }
}

static void connection_options_are_bounded(void **state)
{
    (void)state;
    char head[1024] = "GET / HTTP/1.1\r\nHost: h\r\nConnection: a";
    size_t n = strlen(head);

    for (unsigned i = 1; i < CONNECTION_OPTIONS_MAX; i++, n += 2)
        memcpy(head + n, ",a", 2);
    memcpy(head + n, "\r\n\r\n", 5);
    struct request r;
    assert_err(parse_str(str_of(head), &r), ERR_OK);
    memcpy(head + n, "\r\nConnection: b\r\n\r\n", 20);
    assert_refused(str_of(head), ERR_HEAD_TOO_LARGE);
}

static void expectations_but_100_continue_fail(void **state)
{
    (void)state;
    struct request r;

    assert_err(PARSE("PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-Continue\r\nContent-Length: 1\r\n\r\n", &r), ERR_OK);
    assert_true(r.expect_continue);
    assert_err(PARSE("PUT / HTTP/1.1\r\nHost: a\r\nExpect:\r\n\r\n", &r), ERR_OK);
    assert_false(r.expect_continue);
    ASSERT_REFUSED("PUT / HTTP/1.1\r\nHost: a\r\nExpect: 200-ok\r\n\r\n", EXPECTATION_FAILED);
    ASSERT_REFUSED("PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue, x\r\n\r\n", EXPECTATION_FAILED);
    ASSERT_REFUSED("PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue;x\r\n\r\n", EXPECTATION_FAILED);
    ASSERT_REFUSED("PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nExpect: x\r\n\r\n", EXPECTATION_FAILED);
    assert_err(PARSE("PUT / HTTP/1.0\r\nHost: a\r\nExpect: 100-continue\r\n\r\n", &r), ERR_OK);
    assert_false(r.expect_continue);
    assert_err(PARSE("PUT / HTTP/1.0\r\nHost: a\r\nExpect: x\r\n\r\n", &r), ERR_OK);
}

static void what_was_read_before_a_fault_can_be_logged(void **state)
{
    (void)state;
    struct request r;

    assert_err(PARSE("GET /x HTTP/1.1\r\nX-A: b\r\nHost: a b\r\n\r\n", &r), ERR_BAD_HOST);
    assert_str(r.method_text, "GET");
    assert_str(r.target, "/x");
    assert_int_equal(r.headers.n, 2);
    assert_err(PARSE("GET x HTTP/1.1\r\nHost: a\r\n\r\n", &r), ERR_BAD_TARGET);
    assert_str(r.target, "x");
    assert_int_equal(r.headers.n, 0);
}

/* What stands in a long value must not matter, and where it ends must not change. */
static void assert_value_read(const char *name, size_t n, const char *before, const char *behind)
{
    char value[160], head[512];
    struct request r;

    for (size_t i = 0; i < n; i++)
        value[i] = ":, \t=\"\x80"[i % 7];
    if (n > 0)
        value[0] = value[n - 1] = 'x';
    int len = snprintf(head, sizeof head, "GET /a HTTP/1.1\r\nHost: a\r\nA: 1\r\n%s:%s%.*s%s\r\nB:%s2%s\r\n\r\n", name,
                       before, (int)n, value, behind, before, behind);
    assert_err(parse_str(str_make(head, (size_t)len), &r), ERR_OK);
    assert_int_equal(r.headers.n, 4);
    assert_str(r.headers.v[1].value, "1");
    assert_str(r.headers.v[2].name, name);
    assert_true(str_eq(r.headers.v[2].value, str_make(value, n)));
    assert_str(r.headers.v[3].name, "B");
    assert_str(r.headers.v[3].value, "2");
}

static void values_of_any_length_are_read_whole(void **state)
{
    (void)state;
    static const char *const blanks[] = {"", " ", "\t", " \t ", "                                        "};

    for (size_t n = 0; n <= 150; n++) {
        for (size_t i = 0; i < 25; i++) {
            assert_value_read("Cookie", n, blanks[i / 5], blanks[i % 5]);
            assert_value_read("transfer-encodings", n, blanks[i / 5], blanks[i % 5]);
            assert_value_read("X-A-Name-That-Is-Itself-Longer-Than-Thirty-Two", n, blanks[i / 5], blanks[i % 5]);
        }
    }
}

static void two_long_values_and_those_between_are_told_apart(void **state)
{
    (void)state;
    struct request r;

    assert_err(PARSE("GET /a HTTP/1.1\r\nUser-Agent: 0123456789012345678901234567890123456789\r\n"
                     "Cookie: a=0123456789012345678901234567890123456789\r\nHost: a\r\nContent-Length: 5\t \r\n"
                     "Referer: http://0123456789012345678901234567890123456789/\t\r\n\r\n",
                     &r),
               ERR_OK);
    assert_int_equal(r.headers.n, 5);
    assert_str(r.headers.v[0].value, "0123456789012345678901234567890123456789");
    assert_str(r.headers.v[1].value, "a=0123456789012345678901234567890123456789");
    assert_str(r.headers.v[2].value, "a");
    assert_str(r.headers.v[3].value, "5");
    assert_str(r.headers.v[4].value, "http://0123456789012345678901234567890123456789/");
}

/* http-parser judges these itself, however long they are. */
static void long_values_that_frame_are_judged_whole(void **state)
{
    (void)state;

    ASSERT_REFUSED(
        "GET /a HTTP/1.1\r\nHost: a\r\nContent-Length: 000000000000000000000000000000000000000000000x\r\n\r\n",
        BAD_CONTENT_LENGTH);
    ASSERT_REFUSED("GET /a HTTP/1.1\r\nHost: a\r\nCookie: 0123456789012345678901234567890123456789\r\n"
                   "Content-Length: 1 0\r\n\r\n",
                   BAD_CONTENT_LENGTH);
    ASSERT_REFUSED("GET /a HTTP/1.1\r\nHost: a\r\n"
                   "Transfer-Encoding: gzip, gzip, gzip, gzip, gzip, gzip, gzip, chunked, gzip\r\n\r\n",
                   BAD_TRANSFER_ENCODING);
}

static void fields_beyond_the_array_are_refused(void **state)
{
    (void)state;
    struct field two[2];
    struct request r = {.headers = {.v = two, .max = 2}};

    assert_err(parse_request(STR("GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n\r\n"), &r), ERR_OK);
    r.headers = (struct headers){.v = two, .max = 2};
    assert_err(parse_request(STR("GET / HTTP/1.1\r\nHost: a\r\nX: y\r\nZ: z\r\n\r\n"), &r), ERR_HEAD_TOO_LARGE);
    assert_int_equal(r.headers.n, 2);
}

/* http-parser has a limit of its own (80 KiB), and its own idea of a token: neither may show. */
static void http_parser_adds_no_limits(void **state)
{
    (void)state;
    static char head[200000];
    int n = snprintf(head, sizeof head, "GET /%0*d HTTP/1.1\r\nHost: a\r\n!#$%%&'*+-.^_`|~: %0*d\r\n\r\n", 90000, 1,
                     90000, 1);
    struct request r;

    assert_err(parse_str(str_make(head, (size_t)n), &r), ERR_OK);
    assert_int_equal(r.target.n, 90001);
    assert_int_equal(r.headers.v[1].value.n, 90000);
    for (unsigned c = 0x21; c < 0x7f; c++) {
        if (c == '#' || c == ' ')
            continue;
        n = snprintf(head, sizeof head, "GET /a%cb?c%cd HTTP/1.1\r\nHost: a\r\nX: a%cb\r\n\r\n", (int)c, (int)c,
                     (int)c);
        assert_err(parse_str(str_make(head, (size_t)n), &r), ERR_OK);
        assert_int_equal(r.target.n, 8);
    }
}

static enum err parse_answer(struct str head, bool to_head, bool to_upgrade, struct response *r)
{
    struct head_scan s = {0};
    enum err e = ERR_OK;

    if (head_scan(&s, HEAD_RESPONSE, head, &wide, &e) != SCAN_DONE || s.at != head.n)
        fail_msg("not a head (%s): %.*s", err_reason(e), STR_ARG(head));
    r->headers = (struct headers){.v = fields, .max = FIELDS_MAX};
    return parse_response(head, to_head, to_upgrade, r);
}

#define ANSWER(lit, r) parse_answer(STR(lit), false, false, r)

static void a_response_is_taken_apart(void **state)
{
    (void)state;
    struct response r;

    assert_err(
        ANSWER("HTTP/1.1 404 Not  Found \xfc\r\nSet-Cookie: a\r\nSet-Cookie: b\r\nContent-Length: 3\r\n\r\n", &r),
        ERR_OK);
    assert_int_equal(r.status, 404);
    assert_str(r.reason, "Not  Found \xfc");
    assert_int_equal(r.minor, 1);
    assert_int_equal(r.headers.n, 3);
    assert_str(r.headers.v[1].value, "b");
    assert_int_equal(r.framing.kind, FRAMING_LENGTH);
    assert_int_equal(r.framing.length, 3);
    assert_true(r.keep_alive);

    assert_err(ANSWER("HTTP/1.7 200\r\nTransfer-Encoding: chunked\r\n\r\n", &r), ERR_OK);
    assert_str(r.reason, "");
    assert_int_equal(r.minor, 1);
    assert_int_equal(r.framing.kind, FRAMING_CHUNKED);
    assert_err(ANSWER("HTTP/1.0 200 \r\n\r\n", &r), ERR_OK);
    assert_str(r.reason, "");
    assert_int_equal(r.minor, 0);
    assert_int_equal(r.framing.kind, FRAMING_CLOSE);
    assert_false(r.keep_alive);
}

static void responses_tell_whether_the_connection_persists(void **state)
{
    (void)state;
    struct response r;

    assert_err(ANSWER("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", &r), ERR_OK);
    assert_false(r.keep_alive);
    assert_err(ANSWER("HTTP/1.1 200 OK\r\nConnection: keep-alive\r\n\r\n", &r), ERR_OK);
    assert_false(r.keep_alive);
    assert_err(ANSWER("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n", &r), ERR_OK);
    assert_true(r.keep_alive);
    assert_err(ANSWER("HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", &r), ERR_OK);
    assert_false(r.keep_alive);
    assert_err(ANSWER("HTTP/1.1 304 Not Modified\r\n\r\n", &r), ERR_OK);
    assert_true(r.keep_alive);
    assert_err(parse_answer(STR("HTTP/1.1 200 OK\r\n\r\n"), true, false, &r), ERR_OK);
    assert_true(r.keep_alive);
    assert_err(ANSWER("HTTP/1.1 401 No\r\nWWW-Authenticate: Basic\r\nContent-Length: 0\r\n\r\n", &r), ERR_OK);
    assert_true(r.keep_alive);
    assert_err(ANSWER("HTTP/1.1 401 No\r\nWWW-Authenticate: NTLM\r\nContent-Length: 0\r\n\r\n", &r), ERR_OK);
    assert_false(r.keep_alive);
}

static void faulty_responses_are_refused(void **state)
{
    (void)state;
    struct response r;

    assert_err(ANSWER("HTTP/2.0 200 OK\r\n\r\n", &r), ERR_BAD_RESPONSE);
    assert_err(ANSWER("HTTP/0.9 200 OK\r\n\r\n", &r), ERR_BAD_RESPONSE);
    assert_err(ANSWER("HTTP/1.1 099 OK\r\n\r\n", &r), ERR_BAD_RESPONSE);
    assert_err(ANSWER("HTTP/1.1 000 OK\r\n\r\n", &r), ERR_BAD_RESPONSE);
    assert_err(ANSWER("HTTP/1.1 600 OK\r\n\r\n", &r), ERR_BAD_RESPONSE);
    assert_err(ANSWER("HTTP/1.1 999 OK\r\n\r\n", &r), ERR_BAD_RESPONSE);
    assert_err(ANSWER("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", &r), ERR_BAD_RESPONSE);
    assert_err(ANSWER("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", &r),
               ERR_BAD_RESPONSE);
    assert_err(ANSWER("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", &r), ERR_BAD_RESPONSE);
    assert_err(ANSWER("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", &r), ERR_BAD_RESPONSE);
    assert_err(ANSWER("HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", &r), ERR_BAD_RESPONSE);
    assert_err(
        parse_answer(STR("HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"), false, true, &r),
        ERR_OK);
    assert_err(ANSWER("HTTP/1.1 599 Odd\r\n\r\n", &r), ERR_OK);
    assert_err(ANSWER("HTTP/1.1 100 Continue\r\n\r\n", &r), ERR_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_refused_head_is_known_by_its_first_line),
        cmocka_unit_test(a_request_is_taken_apart),
        cmocka_unit_test(methods_are_told_apart),
        cmocka_unit_test(versions_are_1_0_to_1_9),
        cmocka_unit_test(targets_have_three_forms),
        cmocka_unit_test(other_targets_are_refused),
        cmocka_unit_test(a_host_is_one_and_well_formed),
        cmocka_unit_test(a_name_that_only_begins_alike_is_another),
        cmocka_unit_test(framing_faults_are_told),
        cmocka_unit_test(connection_says_whether_it_persists),
        cmocka_unit_test(connection_options_are_bounded),
        cmocka_unit_test(expectations_but_100_continue_fail),
        cmocka_unit_test(what_was_read_before_a_fault_can_be_logged),
        cmocka_unit_test(values_of_any_length_are_read_whole),
        cmocka_unit_test(two_long_values_and_those_between_are_told_apart),
        cmocka_unit_test(long_values_that_frame_are_judged_whole),
        cmocka_unit_test(fields_beyond_the_array_are_refused),
        cmocka_unit_test(http_parser_adds_no_limits),
        cmocka_unit_test(a_response_is_taken_apart),
        cmocka_unit_test(responses_tell_whether_the_connection_persists),
        cmocka_unit_test(faulty_responses_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
