/* The simulation's own parser: what it takes and refuses, at once and one byte at a time with equal outcome, and the
 * pattern that content is made of. */
#include "message.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* ---- feeding ---- */

/* A stream on its way through the parser. */
struct feed {
    struct message m;
    struct bytes in, content;
    size_t head; /* bytes taken when the head was there; 0 before */
    size_t taken;
    bool to_head;
    bool head_was_all; /* whole as soon as the head was there */
};

static void keep(void *arg, const char *p, size_t n)
{
    struct feed *f = arg;
    assert_true(n > 0);
    assert_ptr_equal(p, bytes_at(&f->in)); /* passed through, not copied */
    assert_int_not_equal(f->head, 0);
    bytes_add(&f->content, p, n);
}

static void feed_open(struct feed *f, enum message_kind kind)
{
    *f = (struct feed){0};
    message_init(&f->m, kind);
}

static void feed_close(struct feed *f)
{
    message_free(&f->m);
    bytes_free(&f->in);
    bytes_free(&f->content);
}

/* Takes until nothing happens any more. Holds message_take() to what it says of the head and of its result. */
static void drain(struct feed *f)
{
    for (;;) {
        enum message_state before = f->m.state;
        size_t len = f->in.len, content = f->content.len;
        bool more = message_take(&f->m, &f->in, f->to_head, keep, f);
        f->taken += len - f->in.len;
        assert_int_equal(more, f->m.state != before || f->in.len != len);
        if (before == MESSAGE_HEAD && (f->m.state == MESSAGE_CONTENT || f->m.state == MESSAGE_WHOLE)) {
            f->head = f->taken;
            f->head_was_all = f->m.state == MESSAGE_WHOLE;
            assert_int_equal(f->content.len, content);
        }
        if (before == MESSAGE_WHOLE || before == MESSAGE_BROKEN)
            assert_false(more);
        if (!more)
            return;
    }
}

static void feed_bytes(struct feed *f, const char *p, size_t n, size_t step)
{
    for (size_t part; n > 0; p += part, n -= part) {
        part = n < step ? n : step;
        bytes_add(&f->in, p, part);
        drain(f);
    }
}

static void assert_same_text(const char *a, const char *b)
{
    assert_int_equal(a == NULL, b == NULL);
    if (a)
        assert_string_equal(a, b);
}

static void assert_same(const struct feed *a, const struct feed *b)
{
    assert_int_equal(a->m.state, b->m.state);
    assert_same_text(a->m.broken, b->m.broken);
    assert_same_text(a->m.method, b->m.method);
    assert_same_text(a->m.target, b->m.target);
    assert_int_equal(a->m.status, b->m.status);
    assert_int_equal(a->m.minor, b->m.minor);
    assert_int_equal(a->m.framing, b->m.framing);
    assert_int_equal(a->m.length, b->m.length);
    assert_int_equal(a->m.received, b->m.received);
    assert_int_equal(a->m.field_count, b->m.field_count);
    for (unsigned i = 0; i < a->m.field_count; i++) {
        assert_string_equal(a->m.fields[i].name, b->m.fields[i].name);
        assert_string_equal(a->m.fields[i].value, b->m.fields[i].value);
    }
    assert_int_equal(a->head, b->head);
    assert_int_equal(a->head_was_all, b->head_was_all);
    assert_int_equal(a->taken, b->taken);
    assert_int_equal(a->content.len, b->content.len);
    assert_memory_equal(bytes_at(&a->content), bytes_at(&b->content), a->content.len);
    assert_int_equal(a->m.received, a->content.len);
}

/* Opens `f` and feeds it the whole; the same in steps must come to the same. */
static void feed_whole(struct feed *f, enum message_kind kind, bool to_head, const char *p, size_t n)
{
    static const size_t steps[] = {1, 2, 3, 7, 64};
    feed_open(f, kind);
    f->to_head = to_head;
    feed_bytes(f, p, n, n);
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        struct feed g;
        feed_open(&g, kind);
        g.to_head = to_head;
        feed_bytes(&g, p, n, steps[i]);
        assert_same(f, &g);
        feed_close(&g);
    }
}

#define ARRAY_END(a) ((a) + sizeof(a) / sizeof *(a))
#define LIT(s)       s, sizeof(s) - 1

/* ---- good messages ---- */

struct good {
    enum message_kind kind;
    bool to_head;
    const char *head, *rest; /* `rest`: framed content */
    enum message_framing framing;
    const char *content;
};

#define REQ(head, rest, framing, content)         MESSAGE_REQUEST, false, head "\r\n\r\n", rest, framing, content
#define RES(head, rest, framing, content)         MESSAGE_RESPONSE, false, head "\r\n\r\n", rest, framing, content
#define RES_TO_HEAD(head, rest, framing, content) MESSAGE_RESPONSE, true, head "\r\n\r\n", rest, framing, content
#define CHUNKED                                   "\r\nTransfer-Encoding: chunked"

static const struct good good[] = {
    {REQ("GET / HTTP/1.1", "", FRAME_NONE, "")},
    {REQ("GET / HTTP/1.0", "", FRAME_NONE, "")},
    {REQ("M-SEARCH!#$%&'*+.^_`|~09 * HTTP/1.1", "", FRAME_NONE, "")},
    {REQ("POST /a?b=c HTTP/1.1\r\nContent-Length: 5", "hello", FRAME_LENGTH, "hello")},
    {REQ("POST / HTTP/1.0\r\ncontent-length:5", "hello", FRAME_LENGTH, "hello")},
    {REQ("POST / HTTP/1.1\r\nContent-Length: 0", "", FRAME_LENGTH, "")},
    {REQ("POST / HTTP/1.1\r\nContent-Length: \t 0005 \t ", "he\r\n\r", FRAME_LENGTH, "he\r\n\r")},
    {REQ("POST / HTTP/1.1" CHUNKED, "0\r\n\r\n", FRAME_CHUNKED, "")},
    {REQ("POST / HTTP/1.1" CHUNKED, "5\r\nhello\r\n0\r\n\r\n", FRAME_CHUNKED, "hello")},
    {REQ("POST / HTTP/1.1\r\nTRANSFER-ENCODING:\tCHUNKED", "1\r\na\r\n2\r\n\r\n\r\n000\r\n\r\n", FRAME_CHUNKED,
         "a\r\n")},
    {REQ("POST / HTTP/1.1" CHUNKED, "00000000000000aB\r\n", FRAME_CHUNKED, NULL)},
    {RES("HTTP/1.1 200 OK\r\nContent-Length: 2", "hi", FRAME_LENGTH, "hi")},
    {RES("HTTP/1.1 200 \r\nContent-Length: 0", "", FRAME_LENGTH, "")},
    {RES("HTTP/1.1 200 Very\tw\xc3\xa9ll" CHUNKED, "A\r\n0123456789\r\n0\r\n\r\n", FRAME_CHUNKED, "0123456789")},
    {RES("HTTP/1.1 100 Continue", "", FRAME_NONE, "")},
    {RES("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x", "", FRAME_NONE, "")},
    {RES("HTTP/1.1 103 Early Hints\r\nLink: </a>", "", FRAME_NONE, "")},
    {RES("HTTP/1.1 204 No Content", "", FRAME_NONE, "")},
    {RES("HTTP/1.1 304 Not Modified\r\nContent-Length: 7", "", FRAME_NONE, "")},
    {RES("HTTP/1.1 304 Not Modified" CHUNKED, "", FRAME_NONE, "")},
    {RES_TO_HEAD("HTTP/1.1 200 OK\r\nContent-Length: 7", "", FRAME_NONE, "")},
    {RES_TO_HEAD("HTTP/1.1 200 OK" CHUNKED, "", FRAME_NONE, "")},
    {RES_TO_HEAD("HTTP/1.1 200 OK", "", FRAME_NONE, "")},
};

/* Each with the begin of something behind it, which must stay. */
static void test_good(void **state)
{
    (void)state;
    static const char behind[] = "\r\nGET /x";
    for (const struct good *g = good; g < ARRAY_END(good); g++) {
        struct bytes stream = {0};
        struct feed f;
        bool whole = g->content != NULL;
        bytes_add_text(&stream, "%s%s%s", g->head, g->rest, whole ? behind : "");
        feed_whole(&f, g->kind, g->to_head, bytes_at(&stream), stream.len);
        if (f.m.state != (whole ? MESSAGE_WHOLE : MESSAGE_CONTENT))
            fail_msg("%s%s: state %d, %s", g->head, g->rest, f.m.state, f.m.broken ? f.m.broken : "not broken");
        assert_null(f.m.broken);
        assert_int_equal(f.m.framing, g->framing);
        assert_int_equal(f.head, strlen(g->head));
        assert_int_equal(f.head_was_all, *g->rest == '\0');
        assert_int_equal(f.taken, strlen(g->head) + strlen(g->rest));
        if (whole) {
            assert_int_equal(f.content.len, strlen(g->content));
            assert_memory_equal(bytes_at(&f.content), g->content, f.content.len);
            assert_int_equal(f.in.len, sizeof behind - 1);
            assert_memory_equal(bytes_at(&f.in), behind, sizeof behind - 1);
        }
        assert_int_equal(message_end(&f.m, &f.in), whole);
        assert_int_equal(f.m.length, g->framing == FRAME_LENGTH ? strlen(g->content) : 0);
        feed_close(&f);
        bytes_free(&stream);
    }
}

static void test_parts_of_request(void **state)
{
    (void)state;
    struct feed f;
    unsigned count;
    feed_whole(&f, MESSAGE_REQUEST, false,
               LIT("PUT http://a/b?c HTTP/1.0\r\nHost:a\r\nX: \t one \xff\ttwo\t\r\nEmpty:\r\nBlank:  \r\n"
                   "x: 2:3\r\n\r\n"));
    assert_int_equal(f.m.state, MESSAGE_WHOLE);
    assert_string_equal(f.m.method, "PUT");
    assert_string_equal(f.m.target, "http://a/b?c");
    assert_int_equal(f.m.minor, 0);
    assert_int_equal(f.m.field_count, 5);
    assert_string_equal(f.m.fields[4].name, "x");
    assert_string_equal(f.m.fields[4].value, "2:3");
    assert_string_equal(message_field(&f.m, "HOST", &count), "a");
    assert_int_equal(count, 1);
    assert_string_equal(message_field(&f.m, "x", &count), "one \xff\ttwo");
    assert_int_equal(count, 2);
    assert_string_equal(message_field(&f.m, "empty", NULL), "");
    assert_string_equal(message_field(&f.m, "Blank", NULL), "");
    assert_null(message_field(&f.m, "Hos", &count));
    assert_int_equal(count, 0);
    feed_close(&f);
}

static void test_parts_of_response(void **state)
{
    (void)state;
    struct feed f;
    feed_whole(&f, MESSAGE_RESPONSE, false, LIT("HTTP/1.1 503  oh dear \r\nRetry-After: 1\r\n\r\n"));
    assert_int_equal(f.m.state, MESSAGE_CONTENT);
    assert_int_equal(f.m.framing, FRAME_CLOSE);
    assert_int_equal(f.m.status, 503);
    assert_int_equal(f.m.minor, 1);
    assert_null(f.m.method);
    assert_string_equal(message_field(&f.m, "retry-after", NULL), "1");
    feed_close(&f);
}

/* The largest sizes that are allowed; their content never comes. */
static void test_largest_sizes(void **state)
{
    (void)state;
    struct feed f;
    feed_whole(&f, MESSAGE_REQUEST, false, LIT("POST / HTTP/1.1\r\nContent-Length: 9223372036854775807\r\n\r\nab"));
    assert_int_equal(f.m.state, MESSAGE_CONTENT);
    assert_int_equal(f.m.length, INT64_MAX);
    assert_int_equal(f.m.received, 2);
    feed_close(&f);
    feed_whole(&f, MESSAGE_REQUEST, false, LIT("POST / HTTP/1.1" CHUNKED "\r\n\r\n7fffFFFFffffffff\r\nabc"));
    assert_int_equal(f.m.state, MESSAGE_CONTENT);
    assert_int_equal(f.m.received, 3);
    feed_close(&f);
}

/* ---- bad messages ---- */

struct bad {
    enum message_kind kind;
    const char *p;
    size_t n;
    const char *why; /* a part of it */
};

#define BAD_REQ(s, why)   MESSAGE_REQUEST, s, sizeof(s) - 1, why
#define BAD_RES(s, why)   MESSAGE_RESPONSE, s, sizeof(s) - 1, why
#define BAD_FIELD(s, why) BAD_REQ("GET / HTTP/1.1\r\n" s "\r\n\r\n", why)
#define BAD_CHUNK(s, why) BAD_RES("HTTP/1.1 200 OK" CHUNKED "\r\n\r\n" s, why)

static const struct bad bad[] = {
    {BAD_REQ("\r\nGET / HTTP/1.1\r\n\r\n", "empty line")},
    {BAD_REQ("\r\n", "empty line")},
    {BAD_REQ("\n", "LF alone")},
    {BAD_REQ("GET / HTTP/1.1\n", "LF alone")},
    {BAD_REQ("GET / HTTP/1.1\r\nA: b\n\r\n", "LF alone")},
    {BAD_REQ("GET / HTTP/1.1\r\nA: b\r\n\n", "LF alone")},
    {BAD_REQ("GET / HTTP/1.1\r\r\n\r\n", "version")},
    {BAD_REQ("GET /\r\n\r\n", "three parts")},
    {BAD_REQ("GET\r\n\r\n", "three parts")},
    {BAD_REQ("GET\t/\tHTTP/1.1\r\n\r\n", "three parts")},
    {BAD_REQ(" GET / HTTP/1.1\r\n\r\n", "method")},
    {BAD_REQ("GE\x00T / HTTP/1.1\r\n\r\n", "method")},
    {BAD_REQ("G(T / HTTP/1.1\r\n\r\n", "method")},
    {BAD_REQ("G\xc9T / HTTP/1.1\r\n\r\n", "method")},
    {BAD_REQ("GET  / HTTP/1.1\r\n\r\n", "target")},
    {BAD_REQ("GET /\x7f HTTP/1.1\r\n\r\n", "target")},
    {BAD_REQ("GET /\x1f HTTP/1.1\r\n\r\n", "target")},
    {BAD_REQ("GET /\x00 HTTP/1.1\r\n\r\n", "target")},
    {BAD_REQ("GET /\xc3\xa9 HTTP/1.1\r\n\r\n", "target")},
    {BAD_REQ("GET /\ra HTTP/1.1\r\n\r\n", "target")},
    {BAD_REQ("GET /  HTTP/1.1\r\n\r\n", "version")},
    {BAD_REQ("GET / x HTTP/1.1\r\n\r\n", "version")},
    {BAD_REQ("GET / HTTP/1.1 \r\n\r\n", "version")},
    {BAD_REQ("GET / HTTP/1.2\r\n\r\n", "version")},
    {BAD_REQ("GET / http/1.1\r\n\r\n", "version")},
    {BAD_REQ("GET / HTTP/1\r\n\r\n", "version")},
    {BAD_REQ("GET / HTTP/1.10\r\n\r\n", "version")},
    {BAD_REQ("PRI * HTTP/2.0\r\n\r\n", "version")},
    {BAD_REQ("HTTP/1.1 200 OK\r\n\r\n", "method")},
    {BAD_RES("GET / HTTP/1.1\r\n\r\n", "status line")},
    {BAD_RES("\r\nHTTP/1.1 200 OK\r\n\r\n", "empty line")},
    {BAD_RES("HTTP/1.1 200\r\n\r\n", "status line")},
    {BAD_RES("HTTP/1.1  200 OK\r\n\r\n", "status line")},
    {BAD_RES("HTTP/1.1 20 OKAY\r\n\r\n", "status line")},
    {BAD_RES("HTTP/1.1 2000 OK\r\n\r\n", "status line")},
    {BAD_RES("HTTP/1.1\t200 OK\r\n\r\n", "status line")},
    {BAD_RES("HTTP/1.1 2x0 OK\r\n\r\n", "three digits")},
    {BAD_RES("HTTP/1.1 +20 OK\r\n\r\n", "three digits")},
    {BAD_RES("HTTP/2.0 200 OK\r\n\r\n", "version")},
    {BAD_RES("Http/1.1 200 OK\r\n\r\n", "version")},
    {BAD_RES("HTTP/1.1 200 O\x00K\r\n\r\n", "reason")},
    {BAD_RES("HTTP/1.1 200 OK\r\r\n\r\n", "reason")},
    {BAD_RES("HTTP/1.1 200 OK\n\n", "LF alone")},
    {BAD_FIELD(" A: b", "folded")},
    {BAD_FIELD("A: b\r\n c", "folded")},
    {BAD_FIELD("A: b\r\n\tc: d", "folded")},
    {BAD_FIELD("A", "without a colon")},
    {BAD_FIELD("A: b\r\n\r", "without a colon")},
    {BAD_FIELD("A : b", "before the colon")},
    {BAD_FIELD("A\t: b", "before the colon")},
    {BAD_FIELD(": b", "field name")},
    {BAD_FIELD("A B: c", "field name")},
    {BAD_FIELD("A\x00: b", "field name")},
    {BAD_FIELD("(A): b", "field name")},
    {BAD_FIELD("\xc3\xa9: b", "field name")},
    {BAD_FIELD("A: \x00", "field value")},
    {BAD_FIELD("A: b\x01", "field value")},
    {BAD_FIELD("A: b\x1f", "field value")},
    {BAD_FIELD("A: b\x7f", "field value")},
    {BAD_FIELD("A: b\rc", "field value")},
    {BAD_FIELD("A: b\r", "field value")},
    {BAD_FIELD("Content-Length:", "not a number")},
    {BAD_FIELD("Content-Length: +1", "not a number")},
    {BAD_FIELD("Content-Length: -1", "not a number")},
    {BAD_FIELD("Content-Length: 1 1", "not a number")},
    {BAD_FIELD("Content-Length: 1, 1", "not a number")},
    {BAD_FIELD("Content-Length: 0x1", "not a number")},
    {BAD_FIELD("Content-Length: 9223372036854775808", "too large")},
    {BAD_FIELD("Content-Length: 18446744073709551617", "too large")},
    {BAD_FIELD("Content-Length: 1\r\ncontent-length: 1", "more than one Content-Length")},
    {BAD_FIELD("Content-Length: 1" CHUNKED, "both")},
    {BAD_FIELD("Transfer-Encoding: chunked\r\nContent-Length: 0", "both")},
    {BAD_FIELD("Transfer-Encoding: chunked" CHUNKED, "more than one Transfer-Encoding")},
    {BAD_FIELD("Transfer-Encoding: gzip", "not just chunked")},
    {BAD_FIELD("Transfer-Encoding: gzip, chunked", "not just chunked")},
    {BAD_FIELD("Transfer-Encoding: chunked, ", "not just chunked")},
    {BAD_FIELD("Transfer-Encoding: chunked;q=1", "not just chunked")},
    {BAD_FIELD("Transfer-Encoding:", "not just chunked")},
    {BAD_FIELD("Transfer-Encoding: identity", "not just chunked")},
    {BAD_REQ("POST / HTTP/1.0" CHUNKED "\r\n\r\n0\r\n\r\n", "HTTP/1.0")},
    {BAD_RES("HTTP/1.0 200 OK" CHUNKED "\r\n\r\n0\r\n\r\n", "HTTP/1.0")},
    {BAD_RES("HTTP/1.1 304 Not Modified\r\nContent-Length: x\r\n\r\n", "not a number")},
    {BAD_RES("HTTP/1.1 304 Not Modified\r\nContent-Length: 1" CHUNKED "\r\n\r\n", "both")},
    {BAD_CHUNK("\r\n", "without a size")},
    {BAD_CHUNK("x", "without a size")},
    {BAD_CHUNK(" 5\r\nhello\r\n", "without a size")},
    {BAD_CHUNK("-5\r\n", "without a size")},
    {BAD_CHUNK("0x5\r\nhello\r\n", "not hexadecimal")},
    {BAD_CHUNK("5\nhello\r\n", "end with CRLF")},
    {BAD_CHUNK("5\rhello\r\n", "without LF")},
    {BAD_CHUNK("5;a=b\r\nhello\r\n", "extension")},
    {BAD_CHUNK("0;a\r\n\r\n", "extension")},
    {BAD_CHUNK("5 \r\nhello\r\n", "extension")},
    {BAD_CHUNK("5\t;a\r\nhello\r\n", "extension")},
    {BAD_CHUNK("8000000000000000\r\n", "too large")},
    {BAD_CHUNK("10000000000000000\r\n", "too large")},
    {BAD_CHUNK("00000000000000005\r\nhello\r\n", "too many digits")},
    {BAD_CHUNK("5\r\nhello!\r\n", "longer than its size")},
    {BAD_CHUNK("5\r\nhello\n0\r\n", "longer than its size")},
    {BAD_CHUNK("5\r\nhello\rx", "without LF")},
    {BAD_CHUNK("5\r\nhello\r\n\r\n", "without a size")},
    {BAD_CHUNK("0\r\nA : b\r\n\r\n", "before the colon")},
    {BAD_CHUNK("0\r\nA: b\r\n c\r\n\r\n", "folded")},
    {BAD_CHUNK("0\r\nA\r\n\r\n", "without a colon")},
    {BAD_CHUNK("0\r\nA: b\n\r\n", "LF alone")},
    {BAD_CHUNK("0\r\n\n", "LF alone")},
    {BAD_CHUNK("0\r\n\rx", "without LF")},
};

/* What breaks the message stays to be looked at, and nothing is taken any more. */
static void test_bad(void **state)
{
    (void)state;
    for (const struct bad *b = bad; b < ARRAY_END(bad); b++) {
        struct feed f;
        feed_whole(&f, b->kind, false, b->p, b->n);
        if (f.m.state != MESSAGE_BROKEN)
            fail_msg("taken: %s", b->p);
        if (!strstr(f.m.broken, b->why))
            fail_msg("%s: \"%s\", not \"%s\"", b->p, f.m.broken, b->why);
        assert_true(f.in.len > 0);
        assert_false(message_end(&f.m, &f.in));
        message_next(&f.m);
        assert_int_equal(f.m.state, MESSAGE_HEAD);
        assert_null(f.m.broken);
        feed_close(&f);
    }
}

/* Lines of the trailer section are fields like others; the next message has none of them. */
static void test_trailers(void **state)
{
    (void)state;
    static const char text[] = "HTTP/1.1 200 OK" CHUNKED "\r\n\r\n1\r\na\r\n0\r\nA: b \r\nX-C:\r\n\r\n";
    for (size_t step = 1; step < sizeof text; step++) {
        struct feed f;
        feed_open(&f, MESSAGE_RESPONSE);
        feed_bytes(&f, text, sizeof text - 1, step);
        assert_int_equal(f.m.state, MESSAGE_WHOLE);
        assert_int_equal(f.in.len, 0);
        assert_int_equal(f.m.trailer_count, 2);
        assert_string_equal(f.m.trailers[0].name, "A");
        assert_string_equal(f.m.trailers[0].value, "b");
        assert_string_equal(f.m.trailers[1].name, "X-C");
        assert_string_equal(f.m.trailers[1].value, "");
        assert_null(message_field(&f.m, "A", NULL));
        message_next(&f.m);
        assert_int_equal(f.m.trailer_count, 0);
        feed_close(&f);
    }
}

/* ---- limits ---- */

static void test_field_count(void **state)
{
    (void)state;
    for (unsigned n = MESSAGE_FIELDS_MAX; n <= MESSAGE_FIELDS_MAX + 1; n++) {
        struct bytes stream = {0};
        struct feed f;
        bytes_add_text(&stream, "GET / HTTP/1.1\r\n");
        for (unsigned i = 0; i < n; i++)
            bytes_add_text(&stream, "Field-%u: %u\r\n", i, i);
        bytes_add_text(&stream, "\r\n");
        feed_whole(&f, MESSAGE_REQUEST, false, bytes_at(&stream), stream.len);
        assert_int_equal(f.m.state, n == MESSAGE_FIELDS_MAX ? MESSAGE_WHOLE : MESSAGE_BROKEN);
        assert_int_equal(f.m.field_count, MESSAGE_FIELDS_MAX);
        feed_close(&f);
        bytes_free(&stream);
    }
}

/* A head of `n` bytes or, when `whole` is false, that many bytes of one that does not end. */
static enum message_state head_of_size(size_t n, bool whole)
{
    struct bytes stream = {0};
    struct feed f;
    bytes_add_text(&stream, "GET / HTTP/1.1\r\nA: ");
    while (stream.len < n - 4)
        bytes_add(&stream, "x", 1);
    bytes_add_text(&stream, whole ? "\r\n\r\n" : "xxxx");
    feed_whole(&f, MESSAGE_REQUEST, false, bytes_at(&stream), stream.len);
    enum message_state came_to = f.m.state;
    feed_close(&f);
    bytes_free(&stream);
    return came_to;
}

/* 64 KiB with the empty line pass, one byte more does not; what cannot pass any more is not waited for. */
static void test_head_size(void **state)
{
    (void)state;
    assert_int_equal(head_of_size(65536, true), MESSAGE_WHOLE);
    assert_int_equal(head_of_size(65537, true), MESSAGE_BROKEN);
    assert_int_equal(head_of_size(65535, false), MESSAGE_HEAD);
    assert_int_equal(head_of_size(65536, false), MESSAGE_BROKEN);
}

/* ---- streams of messages ---- */

static void expect_next(struct feed *f, enum message_kind kind, const char *content)
{
    assert_int_equal(f->m.state, MESSAGE_WHOLE);
    assert_int_equal(f->m.kind, kind);
    assert_int_equal(f->content.len, strlen(content));
    assert_memory_equal(bytes_at(&f->content), content, f->content.len);
    bytes_clear(&f->content);
    f->head = 0;
    message_next(&f->m);
    assert_int_equal(f->m.state, MESSAGE_HEAD);
    assert_int_equal(f->m.kind, kind);
    assert_int_equal(f->m.received, 0);
    assert_int_equal(f->m.field_count, 0);
    assert_null(f->m.text);
}

/* Feeds in steps and goes from message to message; returns how many came. */
static unsigned walk(const char *p, size_t n, size_t step, enum message_kind kind, const char *const *contents)
{
    struct feed f;
    unsigned count = 0;
    feed_open(&f, kind);
    for (size_t part; n > 0; p += part, n -= part) {
        part = n < step ? n : step;
        feed_bytes(&f, p, part, part);
        while (f.m.state == MESSAGE_WHOLE) {
            expect_next(&f, kind, contents[count++]);
            drain(&f);
        }
    }
    assert_int_equal(f.m.state, MESSAGE_HEAD);
    assert_int_equal(f.in.len, 0);
    assert_true(message_end(&f.m, &f.in));
    feed_close(&f);
    return count;
}

static void test_pipelined(void **state)
{
    (void)state;
    static const char requests[] =
        "GET /1 HTTP/1.1\r\nHost: a\r\n\r\n"
        "POST /2 HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc"
        "POST /3 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nde\r\n1\r\nf\r\n0\r\n\r\n"
        "POST /4 HTTP/1.1\r\nContent-Length: 0\r\n\r\n"
        "POST /5 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
        "GET /6 HTTP/1.1\r\n\r\n";
    static const char *const request_contents[] = {"", "abc", "def", "", "", ""};
    static const char responses[] = "HTTP/1.1 100 Continue\r\n\r\n"
                                    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n"
                                    "HTTP/1.1 204 No Content\r\n\r\n"
                                    "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nb";
    static const char *const response_contents[] = {"", "a", "", "b"};
    for (size_t step = 1; step <= sizeof requests; step++)
        assert_int_equal(walk(requests, sizeof requests - 1, step, MESSAGE_REQUEST, request_contents), 6);
    for (size_t step = 1; step <= sizeof responses; step++)
        assert_int_equal(walk(responses, sizeof responses - 1, step, MESSAGE_RESPONSE, response_contents), 4);
}

/* Content until the stream ends, which must have been taken before. */
static void test_close(void **state)
{
    (void)state;
    struct feed f;
    feed_whole(&f, MESSAGE_RESPONSE, false, LIT("HTTP/1.0 200 OK\r\n\r\nHTTP/1.1 200 OK\r\n\r\n"));
    assert_int_equal(f.m.state, MESSAGE_CONTENT);
    assert_int_equal(f.m.framing, FRAME_CLOSE);
    assert_int_equal(f.m.received, 19);
    bytes_add(&f.in, "!", 1);
    assert_false(message_end(&f.m, &f.in));
    assert_int_equal(f.m.state, MESSAGE_CONTENT);
    drain(&f);
    assert_true(message_end(&f.m, &f.in));
    assert_int_equal(f.m.state, MESSAGE_WHOLE);
    assert_int_equal(f.m.received, 20);
    feed_close(&f);

    feed_whole(&f, MESSAGE_RESPONSE, false, LIT("HTTP/1.1 200 OK\r\n\r\n"));
    assert_int_equal(f.m.state, MESSAGE_CONTENT);
    assert_true(message_end(&f.m, &f.in));
    feed_close(&f);
}

/* Whatever is missing at its end, a message is not whole, and not malformed either. */
static void test_cut_short(void **state)
{
    (void)state;
    static const char chunked[] = "POST / HTTP/1.1" CHUNKED "\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    static const char length[] = "POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc";
    for (size_t n = 0; n < sizeof chunked; n++) {
        struct feed f;
        feed_whole(&f, MESSAGE_REQUEST, false, chunked, n);
        assert_int_equal(message_end(&f.m, &f.in), n == 0 || n == sizeof chunked - 1);
        assert_int_not_equal(f.m.state, MESSAGE_BROKEN);
        feed_close(&f);
    }
    for (size_t n = 0; n < sizeof length; n++) {
        struct feed f;
        feed_whole(&f, MESSAGE_REQUEST, false, length, n);
        assert_int_equal(message_end(&f.m, &f.in), n == 0 || n == sizeof length - 1);
        assert_int_not_equal(f.m.state, MESSAGE_BROKEN);
        feed_close(&f);
    }
}

/* Who does not want the content need not look at it. */
static void test_no_content_fn(void **state)
{
    (void)state;
    struct message m;
    struct bytes in = {0};
    message_init(&m, MESSAGE_REQUEST);
    bytes_add_text(&in, "POST / HTTP/1.1" CHUNKED "\r\n\r\n3\r\nabc\r\n0\r\n\r\nG");
    assert_true(message_take(&m, &in, false, NULL, NULL));
    assert_int_equal(m.state, MESSAGE_CONTENT);
    assert_true(message_take(&m, &in, false, NULL, NULL));
    assert_int_equal(m.state, MESSAGE_WHOLE);
    assert_int_equal(m.received, 3);
    assert_false(message_take(&m, &in, false, NULL, NULL));
    assert_int_equal(in.len, 1);
    message_free(&m);
    message_free(&m); /* twice is harmless */
    bytes_free(&in);
}

/* ---- the pattern ---- */

static const uint64_t starts[] = {0, 1, 7, 8, 2041, 2047, 2048, 2049, UINT64_C(0xffffffff), UINT64_C(1) << 62};

/* Made and compared at any place and length, it is made of pattern_byte(). */
static void test_pattern_unaligned(void **state)
{
    (void)state;
    static const size_t lengths[] = {0, 1, 5, 7, 8, 9, 100, 2040, 2048, 2049, 6000};
    for (const uint64_t *at = starts; at < ARRAY_END(starts); at++) {
        for (const size_t *n = lengths; n < ARRAY_END(lengths); n++) {
            struct bytes out = {0};
            bytes_add(&out, "abc", 3);
            pattern_add(&out, 42, *at, *n);
            assert_int_equal(out.len, 3 + *n);
            assert_memory_equal(bytes_at(&out), "abc", 3);
            for (size_t i = 0; i < *n; i++)
                assert_int_equal(bytes_at(&out)[3 + i], pattern_byte(42, *at + i));
            assert_true(pattern_matches(42, *at, bytes_at(&out) + 3, *n));
            bytes_free(&out);
        }
    }
}

/* Any byte that is wrong is found, wherever a comparison begins and ends. */
static void test_pattern_mismatch(void **state)
{
    (void)state;
    enum { LENGTH = 2100 };
    for (uint64_t at = 0; at < 9; at++) {
        struct bytes out = {0};
        pattern_add(&out, 7, at, LENGTH);
        char *p = bytes_at(&out);
        for (size_t i = 0; i < LENGTH; i++) {
            p[i] ^= 1;
            assert_false(pattern_matches(7, at, p, LENGTH));
            assert_false(pattern_matches(7, at, p, i + 1));
            assert_false(pattern_matches(7, at + i, p + i, 1));
            assert_true(pattern_matches(7, at, p, i));
            assert_true(pattern_matches(7, at + i + 1, p + i + 1, LENGTH - i - 1));
            p[i] ^= 1;
        }
        assert_true(pattern_matches(7, at, p, LENGTH));
        bytes_free(&out);
    }
}

/* How many of the first 64 bytes of two contents are equal: chance makes it one in 256. */
static unsigned equal_bytes(uint64_t key_a, uint64_t at_a, uint64_t key_b, uint64_t at_b)
{
    unsigned equal = 0;
    for (uint64_t i = 0; i < 64; i++)
        equal += pattern_byte(key_a, at_a + i) == pattern_byte(key_b, at_b + i);
    return equal;
}

static void test_pattern_differs(void **state)
{
    (void)state;
    for (uint64_t key = 0; key < 64; key++) {
        for (uint64_t other = key + 1; other < 64; other++)
            assert_true(equal_bytes(key, 0, other, 0) < 8);
        assert_true(equal_bytes(key, 0, key | UINT64_C(1) << 63, 0) < 8);
        for (uint64_t at = 1; at < 100; at++)
            assert_true(equal_bytes(key, 0, key, at) < 8);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good),
        cmocka_unit_test(test_parts_of_request),
        cmocka_unit_test(test_parts_of_response),
        cmocka_unit_test(test_largest_sizes),
        cmocka_unit_test(test_bad),
        cmocka_unit_test(test_trailers),
        cmocka_unit_test(test_field_count),
        cmocka_unit_test(test_head_size),
        cmocka_unit_test(test_pipelined),
        cmocka_unit_test(test_close),
        cmocka_unit_test(test_cut_short),
        cmocka_unit_test(test_no_content_fn),
        cmocka_unit_test(test_pattern_unaligned),
        cmocka_unit_test(test_pattern_mismatch),
        cmocka_unit_test(test_pattern_differs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
