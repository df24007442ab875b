/* The reference's word on what a backend has to get of a request, on examples written by hand. */
#include "harness/reference.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ADDED                                                                                                          \
    "X-Forwarded-For: 1.2.3.4\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: h\r\n"                                   \
    "X-Request-ID: 0123456789abcdef0123456789abcdef\r\nVia: 1.1 loadbalancer\r\n"

static const char *compare(const char *sent, const char *got)
{
    static const struct reference_limits wide = {10000, 10000, 100, NULL, true};
    struct reference a, b;

    reference_read(&a, sent, strlen(sent), &wide);
    reference_read(&b, got, strlen(got), &wide);
    assert_int_equal(a.verdict, REFERENCE_FORWARD);
    assert_int_equal(b.verdict, REFERENCE_FORWARD);
    const char *fault = reference_compare(&a, &b, "1.2.3.4", false);
    reference_free(&a);
    reference_free(&b);
    return fault;
}

static void test_same_message(void **state)
{
    static const char sent[] =
        "POST http://h/x HTTP/1.1\r\nA: 1\r\nHost: o\r\na: 2 \r\nB_: 3\r\nConnection: C, Cookie\r\n"
        "C: 4\r\nCookie: 5\r\nTE: trailers\r\nContent-Length: 03\r\nVia: 1.0 f\r\n\r\nabc";
#define GOT(fields, content) "POST /x HTTP/1.1\r\nHost: h\r\n" fields ADDED content
#define KEPT                 "A: 1\r\na: 2\r\nCookie: 5\r\nVia: 1.0 f\r\n"
#define ABC                  "Content-Length: 3\r\n\r\nabc"

    (void)state;
    assert_null(compare(sent, GOT(KEPT, ABC)));
    assert_null(compare(sent, GOT(KEPT "Connection: TE\r\nTE: trailers\r\n", ABC)));
    assert_non_null(compare(sent, GOT("a: 2\r\nA: 1\r\nCookie: 5\r\nVia: 1.0 f\r\n", ABC)));
    assert_non_null(compare(sent, GOT("A: 1\r\nCookie: 5\r\nVia: 1.0 f\r\n", ABC)));
    assert_non_null(compare(sent, GOT("A: 1\r\nA: 2\r\nCookie: 5\r\nVia: 1.0 f\r\n", ABC)));
    assert_non_null(compare(sent, GOT("A: 1\r\na: 2\r\nVia: 1.0 f\r\n", ABC)));
    assert_non_null(compare(sent, GOT("A: 1\r\na: 2\r\nCookie: 5\r\n", ABC)));
    assert_non_null(compare(sent, GOT(KEPT "C: 4\r\n", ABC)));
    assert_non_null(compare(sent, GOT(KEPT "B_: 3\r\n", ABC)));
    assert_non_null(compare(sent, GOT(KEPT "New: 1\r\n", ABC)));
    assert_non_null(compare(sent, GOT(KEPT "Connection: C\r\n", ABC)));
    assert_non_null(compare(sent, GOT(KEPT "Upgrade: x\r\nConnection: upgrade\r\n", ABC)));
    assert_non_null(compare(sent, GOT(KEPT "X-Forwarded-Port: 1\r\n", ABC)));
    assert_non_null(compare(sent, GOT(KEPT "TE: gzip\r\n", ABC)));
    assert_non_null(compare(sent, GOT(KEPT "Trailer: X\r\n", ABC)));
    assert_non_null(compare(sent, GOT(KEPT, "Content-Length: 03\r\n\r\nabc")));
    assert_non_null(compare(sent, GOT(KEPT, "Content-Length: 3\r\n\r\nabd")));
    assert_non_null(compare(sent, GOT(KEPT, "Content-Length: 2\r\n\r\nab")));
    assert_non_null(compare(sent, GOT(KEPT, "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")));
    assert_non_null(compare(sent, "POST /x HTTP/1.1\r\nHost: o\r\n" KEPT ADDED ABC));
    assert_non_null(compare(sent, "PUT /x HTTP/1.1\r\nHost: h\r\n" KEPT ADDED ABC));
    assert_non_null(compare(sent, "POST /X HTTP/1.1\r\nHost: h\r\n" KEPT ADDED ABC));
    assert_non_null(compare(sent, "POST /x HTTP/1.0\r\nHost: h\r\n" KEPT ADDED ABC));
}

static void test_what_ends_here(void **state)
{
    static const char *const names[] = {"Keep-Alive", "Proxy-Connection", "Proxy-Authenticate", "Proxy-Authorization",
                                        "Forwarded",  "X-Forwarded-Port", "X-Forwarded-For",    "A_B",
                                        "tE"};
    char sent[300], got[500];

    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        snprintf(sent, sizeof sent, "GET / HTTP/1.1\r\nHost: h\r\n%s: v\r\n\r\n", names[i]);
        snprintf(got, sizeof got, "GET / HTTP/1.1\r\nHost: h\r\n%s: v\r\n" ADDED "\r\n", names[i]);
        if (!compare(sent, got))
            fail_msg("%s got through unseen", names[i]);
        assert_null(compare(sent, "GET / HTTP/1.1\r\nHost: h\r\n" ADDED "\r\n"));
    }
}

static void test_upgrade_and_trailers(void **state)
{
    static const char up[] = "GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    static const char h2c[] = "GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n";
    static const char chunks[] = "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
                                 "0\r\nT: 1\r\nHost: x\r\nU: 2\r\n\r\n";
#define GET_HEAD  "GET / HTTP/1.1\r\nHost: h\r\n" ADDED
#define POST_HEAD "POST / HTTP/1.1\r\nHost: h\r\n" ADDED "Transfer-Encoding: chunked\r\n\r\n"

    (void)state;
    assert_null(compare(up, GET_HEAD "\r\n"));
    assert_null(compare(up, GET_HEAD "Connection: upgrade\r\nUpgrade: websocket\r\n\r\n"));
    assert_non_null(compare(up, GET_HEAD "Upgrade: websocket\r\n\r\n"));
    assert_non_null(compare(up, GET_HEAD "Connection: upgrade\r\n\r\n"));
    assert_non_null(compare(up, GET_HEAD "Connection: upgrade\r\nUpgrade: other\r\n\r\n"));
    assert_null(compare(h2c, GET_HEAD "\r\n"));
    assert_non_null(compare(h2c, GET_HEAD "Connection: upgrade\r\nUpgrade: h2c\r\n\r\n"));
    assert_null(compare(chunks, POST_HEAD "0\r\n\r\n"));
    assert_null(compare(chunks, POST_HEAD "0\r\nT: 1\r\nU: 2\r\n\r\n"));
    assert_non_null(compare(chunks, POST_HEAD "0\r\nU: 2\r\nT: 1\r\n\r\n"));
    assert_non_null(compare(chunks, POST_HEAD "0\r\nHost: x\r\n\r\n"));
    assert_non_null(compare(chunks, POST_HEAD "0\r\nV: 1\r\n\r\n"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_message),
        cmocka_unit_test(test_what_ends_here),
        cmocka_unit_test(test_upgrade_and_trailers),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
