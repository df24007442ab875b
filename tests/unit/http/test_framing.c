/* How long a body is: every kind of ambiguity is an error. */
#include "http/framing.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define FIELDS_MAX 4

/* Fields from pairs of name and value, ended by NULL. */
struct made {
    struct field room[FIELDS_MAX];
    struct headers headers;
};

static const struct headers *make(struct made *m, const char *const *pairs)
{
    m->headers = (struct headers){.v = m->room, .max = FIELDS_MAX};
    for (; pairs[0]; pairs += 2) {
        struct str name = str_of(pairs[0]);
        m->room[m->headers.n++] = (struct field){name, str_of(pairs[1]), field_id_of(name)};
        m->headers.present |= UINT32_C(1) << field_id_of(name);
    }
    return &m->headers;
}

#define FIELDS(...) ((const char *const[]){__VA_ARGS__, NULL})
#define NO_FIELDS   ((const char *const[]){NULL})
#define TE          "Transfer-Encoding"
#define CL          "Content-Length"

static void assert_request(const char *const *pairs, unsigned minor, enum framing_kind kind, uint64_t length)
{
    struct made m;
    struct framing f;

    assert_int_equal(framing_of_request(make(&m, pairs), minor, &f), ERR_OK);
    assert_int_equal(f.kind, kind);
    assert_int_equal(f.length, length);
}

static void assert_request_refused(const char *const *pairs, unsigned minor, enum err e)
{
    struct made m;
    struct framing f;

    assert_string_equal(err_reason(framing_of_request(make(&m, pairs), minor, &f)), err_reason(e));
}

static void assert_response(const char *const *pairs, unsigned status, bool to_head, enum framing_kind kind,
                            uint64_t length)
{
    struct made m;
    struct framing f;

    assert_int_equal(framing_of_response(make(&m, pairs), 1, status, to_head, &f), ERR_OK);
    assert_int_equal(f.kind, kind);
    assert_int_equal(f.length, length);
}

static void assert_response_refused(const char *const *pairs, unsigned minor, unsigned status, bool to_head)
{
    struct made m;
    struct framing f;

    assert_int_equal(framing_of_response(make(&m, pairs), minor, status, to_head, &f), ERR_BAD_RESPONSE);
}

static void a_request_has_the_body_it_declares(void **state)
{
    (void)state;
    assert_request(NO_FIELDS, 1, FRAMING_NONE, 0);
    assert_request(FIELDS("Host", "a"), 0, FRAMING_NONE, 0);
    assert_request(FIELDS(CL, "0"), 1, FRAMING_LENGTH, 0);
    assert_request(FIELDS(CL, "12345"), 0, FRAMING_LENGTH, 12345);
    assert_request(FIELDS(CL, "00000000000000000000000007"), 1, FRAMING_LENGTH, 7);
    assert_request(FIELDS(CL, "9223372036854775807"), 1, FRAMING_LENGTH, INT64_MAX);
    assert_request(FIELDS(TE, "chunked"), 1, FRAMING_CHUNKED, 0);
    assert_request(FIELDS(TE, "CHUnked"), 1, FRAMING_CHUNKED, 0);
}

static void malformed_lengths_are_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {"",
                                      "-1",
                                      "+1",
                                      "1 2",
                                      "1,1",
                                      "1, 1",
                                      "0x10",
                                      "1e3",
                                      "1.0",
                                      "abc",
                                      "12a",
                                      "a12",
                                      ";",
                                      "1;",
                                      "'1'",
                                      "\"1\"",
                                      "9223372036854775808",
                                      "18446744073709551616",
                                      "99999999999999999999999999",
                                      "\xd9\xa1",
                                      "1\t1",
                                      "--1",
                                      "1_000"};

    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_request_refused(FIELDS(CL, bad[i]), 1, ERR_BAD_CONTENT_LENGTH);
    assert_request_refused(FIELDS(CL, "5", CL, "5"), 1, ERR_BAD_CONTENT_LENGTH);
    assert_request_refused(FIELDS(CL, "5", "content-length", "6"), 0, ERR_BAD_CONTENT_LENGTH);
    assert_request_refused(FIELDS(CL, "", CL, "5"), 1, ERR_BAD_CONTENT_LENGTH);
}

static void transfer_codings_but_chunked_are_refused(void **state)
{
    (void)state;
    static const char *const unknown_end[] = {
        "",         "gzip",        "identity",    "chunked, gzip", "chunked, identity", "chunked, chunked", "xchunked",
        "chunkedx", "chunked;a=b", "\"chunked\"", "gzip chunked",  "chunked gzip",      "chunked,\x0b",     ",",
        "chunked;"};

    for (size_t i = 0; i < sizeof unknown_end / sizeof unknown_end[0]; i++)
        assert_request_refused(FIELDS(TE, unknown_end[i]), 1, ERR_BAD_TRANSFER_ENCODING);
    assert_request_refused(FIELDS(TE, "gzip, chunked"), 1, ERR_CODING_NOT_IMPLEMENTED);
    assert_request_refused(FIELDS(TE, "identity,Chunked"), 1, ERR_CODING_NOT_IMPLEMENTED);
    assert_request_refused(FIELDS(TE, "chunked", TE, "chunked"), 1, ERR_BAD_TRANSFER_ENCODING);
    assert_request_refused(FIELDS(TE, "gzip", TE, "chunked"), 1, ERR_BAD_TRANSFER_ENCODING);
    assert_request_refused(FIELDS(TE, "chunked", TE, ""), 1, ERR_BAD_TRANSFER_ENCODING);
}

static void transfer_encoding_stands_alone_and_in_1_1_only(void **state)
{
    (void)state;
    assert_request_refused(FIELDS(TE, "chunked"), 0, ERR_BAD_TRANSFER_ENCODING);
    assert_request_refused(FIELDS(TE, "chunked", CL, "5"), 1, ERR_BAD_TRANSFER_ENCODING);
    assert_request_refused(FIELDS(CL, "5", TE, "chunked"), 1, ERR_BAD_TRANSFER_ENCODING);
    assert_request_refused(FIELDS(CL, "5", TE, "gzip"), 1, ERR_BAD_TRANSFER_ENCODING);
    assert_request_refused(FIELDS(CL, "0", TE, "identity"), 1, ERR_BAD_TRANSFER_ENCODING);
}

static void a_response_has_the_body_it_declares(void **state)
{
    (void)state;
    assert_response(NO_FIELDS, 200, false, FRAMING_CLOSE, 0);
    assert_response(FIELDS(CL, "10"), 200, false, FRAMING_LENGTH, 10);
    assert_response(FIELDS(TE, "chunked"), 500, false, FRAMING_CHUNKED, 0);
    assert_response(FIELDS(CL, "0"), 205, false, FRAMING_LENGTH, 0);
    assert_response(FIELDS(TE, "chunked"), 205, false, FRAMING_CHUNKED, 0);
}

static void some_responses_have_none_whatever_they_say(void **state)
{
    (void)state;
    static const unsigned statuses[] = {100, 101, 102, 103, 199, 204, 304};

    for (size_t i = 0; i < sizeof statuses / sizeof statuses[0]; i++) {
        assert_response(NO_FIELDS, statuses[i], false, FRAMING_NONE, 0);
        assert_response(FIELDS(CL, "10"), statuses[i], false, FRAMING_NONE, 0);
        assert_response(FIELDS(TE, "chunked"), statuses[i], false, FRAMING_NONE, 0);
        assert_response_refused(FIELDS(TE, "chunked", CL, "1"), 1, statuses[i], false);
        assert_response_refused(FIELDS(CL, "x"), 1, statuses[i], false);
    }
    assert_response(FIELDS(CL, "10"), 200, true, FRAMING_NONE, 0);
    assert_response(NO_FIELDS, 404, true, FRAMING_NONE, 0);
    assert_response_refused(FIELDS(CL, "10", CL, "10"), 1, 200, true);
}

static void faults_of_a_response_are_all_one(void **state)
{
    (void)state;
    assert_response_refused(FIELDS(CL, "5", CL, "5"), 1, 200, false);
    assert_response_refused(FIELDS(CL, "5, 5"), 1, 200, false);
    assert_response_refused(FIELDS(CL, "-5"), 1, 200, false);
    assert_response_refused(FIELDS(TE, "chunked", CL, "5"), 1, 200, false);
    assert_response_refused(FIELDS(TE, "chunked"), 0, 200, false);
    assert_response_refused(FIELDS(TE, "gzip"), 1, 200, false);
    assert_response_refused(FIELDS(TE, "gzip, chunked"), 1, 200, false);
    assert_response_refused(FIELDS(TE, "chunked", TE, "chunked"), 1, 200, false);
}

static void what_follows_a_head(void **state)
{
    (void)state;
    assert_false(framing_has_content(&(struct framing){FRAMING_NONE, 0}));
    assert_false(framing_has_content(&(struct framing){FRAMING_LENGTH, 0}));
    assert_true(framing_has_content(&(struct framing){FRAMING_LENGTH, 1}));
    assert_true(framing_has_content(&(struct framing){FRAMING_CHUNKED, 0}));
    assert_true(framing_has_content(&(struct framing){FRAMING_CLOSE, 0}));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_request_has_the_body_it_declares),
        cmocka_unit_test(malformed_lengths_are_refused),
        cmocka_unit_test(transfer_codings_but_chunked_are_refused),
        cmocka_unit_test(transfer_encoding_stands_alone_and_in_1_1_only),
        cmocka_unit_test(a_response_has_the_body_it_declares),
        cmocka_unit_test(some_responses_have_none_whatever_they_say),
        cmocka_unit_test(faults_of_a_response_are_all_one),
        cmocka_unit_test(what_follows_a_head),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
