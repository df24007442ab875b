/* Cases: responses that must not be passed on as they are. The connection that they came over is not used again. */
#include "conformance/tables.h"

#define GET     "GET /a HTTP/1.1\r\nHost: h\r\n\r\n"
#define GET_OLD "GET /a HTTP/1.0\r\nHost: h\r\n\r\n"
#define HEAD    "HEAD /a HTTP/1.1\r\nHost: h\r\n\r\n"
#define OK      .line = "GET /a HTTP/1.1"
#define L200    "HTTP/1.1 200 OK\r\n"
#define HELLO   "\r\n\r\nhello"
#define CHUNKS  "\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
#define CODED   L200 "Transfer-Encoding: chunked\r\n\r\n"
#define LENGTH  "RFC 9112 6.3"
#define CODING  "RFC 9112 6.1"
#define STATUS  "RFC 9112 4"
#define CHUNKED "RFC 9112 7.1"
#define BEHIND  "RFC 9112 9.2, junk behind a response"
#define POISON  "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"

/* A 502 in its place; to the client the connection is as good as before. */
#define BAD(name, section, bytes)                                                                                      \
    {                                                                                                                  \
        name, section, T(GET), OK, .answer = T(bytes), .status = 502, .origin_closed = true                            \
    }
/* The head was good: a 502 or a part. */
#define CUT_OFF(name, section, bytes, ...)                                                                             \
    {                                                                                                                  \
        name, section, T(GET), OK, .answer = T(bytes), .end = CUT, .origin_closed = true, __VA_ARGS__                  \
    }

static const struct conformance bad_answers_cases[] = {
    BAD("bad-answer-garbage", STATUS, "hello, world\r\n\r\n"),
    BAD("bad-answer-is-a-request", STATUS, "GET / HTTP/1.1\r\nHost: h\r\n\r\n"),
    BAD("bad-answer-empty-line-first", STATUS, "\r\n" L200 "Content-Length: 5" HELLO),
    BAD("bad-answer-space-first", STATUS, " " L200 "Content-Length: 5" HELLO),
    BAD("bad-answer-nul-first", STATUS, "\0" L200 "Content-Length: 5" HELLO),
    BAD("bad-answer-version-2.0", STATUS, "HTTP/2.0 200 OK\r\nContent-Length: 5" HELLO),
    BAD("bad-answer-version-0.9", STATUS, "HTTP/0.9 200 OK\r\nContent-Length: 5" HELLO),
    BAD("bad-answer-version-in-lower-case", STATUS, "http/1.1 200 OK\r\nContent-Length: 5" HELLO),
    BAD("bad-answer-version-1.10", STATUS, "HTTP/1.10 200 OK\r\nContent-Length: 5" HELLO),
    BAD("bad-answer-icy", STATUS, "ICY 200 OK\r\nContent-Length: 5" HELLO),
    BAD("bad-answer-no-status", STATUS, "HTTP/1.1\r\nContent-Length: 5" HELLO),
    BAD("bad-answer-status-99", "RFC 9110 15", "HTTP/1.1 99 Odd\r\nContent-Length: 5" HELLO),
    BAD("bad-answer-status-099", "RFC 9110 15", "HTTP/1.1 099 Odd\r\nContent-Length: 5" HELLO),
    BAD("bad-answer-status-000", "RFC 9110 15", "HTTP/1.1 000 Odd\r\nContent-Length: 5" HELLO),
    BAD("bad-answer-status-600", "RFC 9110 15", "HTTP/1.1 600 Odd\r\nContent-Length: 5" HELLO),
    BAD("bad-answer-status-999", "RFC 9110 15", "HTTP/1.1 999 Odd\r\nContent-Length: 5" HELLO),
    BAD("bad-answer-status-of-4-digits", "RFC 9110 15", "HTTP/1.1 2000 OK\r\nContent-Length: 5" HELLO),
    BAD("bad-answer-status-of-2-digits", "RFC 9110 15", "HTTP/1.1 20 OK\r\nContent-Length: 5" HELLO),
    BAD("bad-answer-status-signed", "RFC 9110 15", "HTTP/1.1 +20 OK\r\nContent-Length: 5" HELLO),
    BAD("bad-answer-status-a-word", "RFC 9110 15", "HTTP/1.1 two OK\r\nContent-Length: 5" HELLO),
    BAD("bad-answer-two-spaces", STATUS, "HTTP/1.1  200 OK\r\nContent-Length: 5" HELLO),
    BAD("bad-answer-tab-before-status", STATUS, "HTTP/1.1\t200 OK\r\nContent-Length: 5" HELLO),
    BAD("bad-answer-reason-at-once", STATUS, "HTTP/1.1 200OK\r\nContent-Length: 5" HELLO),
    BAD("bad-answer-control-byte-in-reason", STATUS, "HTTP/1.1 200 O\x01K\r\nContent-Length: 5" HELLO),
    BAD("bad-answer-bare-cr-in-reason", "RFC 9112 2.2", "HTTP/1.1 200 O\rK\r\nContent-Length: 5" HELLO),
    BAD("bad-answer-lf-lines", "RFC 9112 2.2", "HTTP/1.1 200 OK\nContent-Length: 5\n\nhello"),
    BAD("bad-answer-head-ends-in-lf", "RFC 9112 2.2", L200 "Content-Length: 5\r\n\nhello"),
    BAD("bad-answer-bare-cr", "RFC 9112 2.2", L200 "X-A: a\rb\r\nContent-Length: 5" HELLO),
    BAD("bad-answer-folded", "RFC 9112 5.2", L200 "X-A: a\r\n b\r\nContent-Length: 5" HELLO),
    BAD("bad-answer-space-before-colon", "RFC 9112 5.1", L200 "X-A : v\r\nContent-Length: 5" HELLO),
    BAD("bad-answer-space-before-the-first-field", "RFC 9112 5.2", L200 " X-A: v\r\nContent-Length: 5" HELLO),
    BAD("bad-answer-no-colon", "RFC 9112 5", L200 "X-A\r\nContent-Length: 5" HELLO),
    BAD("bad-answer-no-name", "RFC 9112 5", L200 ": v\r\nContent-Length: 5" HELLO),
    BAD("bad-answer-nul-in-value", "RFC 9110 5.5", L200 "X-A: \0\r\nContent-Length: 5" HELLO),
    BAD("bad-answer-control-byte-in-value", "RFC 9110 5.5", L200 "X-A: \x02\r\nContent-Length: 5" HELLO),
    BAD("bad-answer-space-in-name", "RFC 9110 5.1", L200 "X A: v\r\nContent-Length: 5" HELLO),
    BAD("bad-answer-length-twice", LENGTH, L200 "Content-Length: 5\r\nContent-Length: 6" HELLO),
    BAD("bad-answer-length-twice-equal", LENGTH, L200 "Content-Length: 5\r\nContent-Length: 5" HELLO),
    BAD("bad-answer-length-list", LENGTH, L200 "Content-Length: 5, 5" HELLO),
    BAD("bad-answer-length-plus", "RFC 9110 8.6", L200 "Content-Length: +5" HELLO),
    BAD("bad-answer-length-minus", "RFC 9110 8.6", L200 "Content-Length: -5" HELLO),
    BAD("bad-answer-length-hexadecimal", "RFC 9110 8.6", L200 "Content-Length: 0x5" HELLO),
    BAD("bad-answer-length-empty", "RFC 9110 8.6", L200 "Content-Length:" HELLO),
    BAD("bad-answer-length-of-2^63", "RFC 9110 8.6", L200 "Content-Length: 9223372036854775808" HELLO),
    BAD("bad-answer-length-of-2^64+5", "RFC 9110 8.6", L200 "Content-Length: 18446744073709551621" HELLO),
    BAD("bad-answer-length-and-coding", LENGTH, L200 "Content-Length: 5\r\nTransfer-Encoding: chunked" CHUNKS),
    BAD("bad-answer-coding-and-length", LENGTH, L200 "Transfer-Encoding: chunked\r\nContent-Length: 5" CHUNKS),
    BAD("bad-answer-coding-xchunked", CODING, L200 "Transfer-Encoding: xchunked" CHUNKS),
    BAD("bad-answer-coding-gzip-chunked", CODING, L200 "Transfer-Encoding: gzip, chunked" CHUNKS),
    BAD("bad-answer-coding-chunked-twice", CODING, L200 "Transfer-Encoding: chunked, chunked" CHUNKS),
    BAD("bad-answer-coding-identity", CODING, L200 "Transfer-Encoding: identity" HELLO),
    BAD("bad-answer-coding-empty", CODING, L200 "Transfer-Encoding:" CHUNKS),
    BAD("bad-answer-coding-two-fields", CODING, L200 "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked" CHUNKS),
    BAD("bad-answer-coding-behind-vertical-tab", CODING,
        L200 "Transfer-Encoding: \x0b"
             "chunked" CHUNKS),
    BAD("bad-answer-coding-in-1.0", CODING, "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked" CHUNKS),
    BAD("bad-answer-204-bad-length", "RFC 9110 8.6", "HTTP/1.1 204 No Content\r\nContent-Length: x\r\n\r\n"),
    BAD("bad-answer-304-framed-twice", LENGTH,
        "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"),
    BAD("bad-answer-101-unasked", "RFC 9110 15.2.2",
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"),
    BAD("bad-answer-101-and-a-response", "RFC 9110 15.2.2",
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n" POISON),
    BAD("bad-answer-head-too-large", "limits.header_bytes", L200 "X-A: {{a*17000}}\r\nContent-Length: 5" HELLO),
    BAD("bad-answer-too-many-fields", "limits.header_fields", L200 "{{X-A: v\r\n*101}}\r\n"),
    BAD("bad-answer-line-that-never-ends", STATUS, "HTTP/1.1 200 {{a*20000}}"),
    {"bad-answer-bad-head-to-head", STATUS, T(HEAD), .line = "HEAD /a HTTP/1.1",
     .answer = T(L200 "Content-Length: 5, 5\r\n\r\n"), .status = 502, .origin_closed = true},
    {"bad-answer-closes-in-its-head", "RFC 9112 8", T("POST /a HTTP/1.1\r\nHost: h\r\n\r\n"),
     .line = "POST /a HTTP/1.1", .answer = T(L200 "Content-Le"), .then = ORIGIN_CLOSES, .status = 502},
    {"bad-answer-resets-in-its-head", "RFC 9112 8", T("POST /a HTTP/1.1\r\nHost: h\r\n\r\n"),
     .line = "POST /a HTTP/1.1", .answer = T(L200 "Content-Le"), .then = ORIGIN_RESETS, .status = 502},
    {"bad-answer-closes-behind-interim", "RFC 9110 15.2", T("POST /a HTTP/1.1\r\nHost: h\r\n\r\n"),
     .line = "POST /a HTTP/1.1", .answer = T("HTTP/1.1 103 Early Hints\r\n\r\n"), .then = ORIGIN_CLOSES,
     .interim = "103", .status = 502},
    {"bad-answer-interim-malformed", "RFC 9112 4", T(GET), OK,
     .answer = T("HTTP/1.1 103 Early Hints\r\nX A: b\r\n\r\n" POISON), .status = 502, .origin_closed = true},

    /* Cut off. */
    CUT_OFF("cut-answer-short-of-its-length", "RFC 9112 8", L200 "Content-Length: 10" HELLO, .then = ORIGIN_CLOSES),
    CUT_OFF("cut-answer-reset", "RFC 9112 8", L200 "Content-Length: 10" HELLO, .then = ORIGIN_RESETS),
    CUT_OFF("cut-answer-nothing-of-its-content", "RFC 9112 8", L200 "Content-Length: 10\r\n\r\n",
            .then = ORIGIN_CLOSES),
    CUT_OFF("cut-answer-without-last-chunk", "RFC 9112 8", CODED "5\r\nhello\r\n", .then = ORIGIN_CLOSES),
    CUT_OFF("cut-answer-in-a-chunk", "RFC 9112 8", CODED "9\r\nhello", .then = ORIGIN_CLOSES),
    CUT_OFF("cut-answer-in-a-size", "RFC 9112 8", CODED "5\r\nhello\r\n1", .then = ORIGIN_CLOSES),
    CUT_OFF("cut-answer-behind-last-size", "RFC 9112 8", CODED "5\r\nhello\r\n0\r\n", .then = ORIGIN_CLOSES),
    CUT_OFF("cut-answer-chunked-reset", "RFC 9112 8", CODED "5\r\nhello\r\n", .then = ORIGIN_RESETS),
    CUT_OFF("cut-answer-to-the-end-reset", "RFC 9112 8", L200 HELLO, .then = ORIGIN_RESETS),
    {"cut-answer-chunked-for-1.0", "RFC 9112 8", T(GET_OLD), OK, .answer = T(CODED "5\r\nhello\r\n"),
     .then = ORIGIN_CLOSES, .end = CUT, .origin_closed = true, .reset = true},

    /* Chunks that are none. */
    CUT_OFF("bad-chunk-no-hex-digit", CHUNKED, CODED "5\r\nhello\r\nx\r\n", .early = false),
    CUT_OFF("bad-chunk-size-missing", CHUNKED, CODED "\r\nhello\r\n0\r\n\r\n", .early = false),
    CUT_OFF("bad-chunk-size-0x", CHUNKED, CODED "0x5\r\nhello\r\n0\r\n\r\n", .early = false),
    CUT_OFF("bad-chunk-size-minus", CHUNKED, CODED "-5\r\nhello\r\n0\r\n\r\n", .early = false),
    CUT_OFF("bad-chunk-size-space-behind", CHUNKED, CODED "5 \r\nhello\r\n0\r\n\r\n", .early = false),
    CUT_OFF("bad-chunk-size-of-2^63", CHUNKED, CODED "8000000000000000\r\nhello\r\n0\r\n\r\n", .early = false),
    CUT_OFF("bad-chunk-size-of-17-digits", CHUNKED, CODED "00000000000000005\r\nhello\r\n0\r\n\r\n", .early = false),
    CUT_OFF("bad-chunk-lf-lines", CHUNKED, CODED "5\nhello\n0\n\n", .early = false),
    CUT_OFF("bad-chunk-longer-than-its-size", CHUNKED, CODED "4\r\nhello\r\n0\r\n\r\n", .early = false),
    CUT_OFF("bad-chunk-without-line-end", CHUNKED, CODED "5\r\nhello0\r\n\r\n", .early = false),
    CUT_OFF("bad-chunk-lf-in-extension", "RFC 9112 7.1.1", CODED "5;a\nhello\r\n0\r\n\r\n", .early = false),
    CUT_OFF("bad-chunk-extension-too-long", "RFC 9112 7.1.1", CODED "5;{{a*20000}}\r\nhello\r\n0\r\n\r\n",
            .early = false),
    CUT_OFF("bad-chunk-trailer-without-colon", "RFC 9112 7.1.2", CODED "5\r\nhello\r\n0\r\nX\r\n\r\n", .early = false),
    CUT_OFF("bad-chunk-end-in-lf", CHUNKED, CODED "5\r\nhello\r\n0\r\n\n", .early = false),

    /* More than the response: it is never taken for the next one. */
    {"junk-behind-length", BEHIND, T(GET), OK, .answer = T(L200 "Content-Length: 5" HELLO POISON), .in_one = true,
     .reply = T("hello"), .origin_closed = true},
    {"junk-behind-chunks", BEHIND, T(GET), OK, .answer = T(CODED "5\r\nhello\r\n0\r\n\r\n" POISON), .in_one = true,
     .reply = T("hello"), .origin_closed = true},
    {"junk-behind-length-of-0", BEHIND, T(GET), OK, .answer = T(L200 "Content-Length: 0\r\n\r\n" POISON),
     .in_one = true, .origin_closed = true},
    {"junk-behind-204", BEHIND, T(GET), OK, .answer = T("HTTP/1.1 204 No Content\r\n\r\n" POISON), .in_one = true,
     .status = 204, .origin_closed = true},
    {"junk-behind-304", BEHIND, T(GET), OK, .answer = T("HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\nhello"),
     .in_one = true, .status = 304, .origin_closed = true},
    {"junk-behind-answer-to-head", BEHIND, T(HEAD), .line = "HEAD /a HTTP/1.1",
     .answer = T(L200 "Content-Length: 5" HELLO), .in_one = true, .origin_closed = true},
    {"junk-of-one-line-end", BEHIND, T(GET), OK, .answer = T(L200 "Content-Length: 5" HELLO "\r\n"), .in_one = true,
     .reply = T("hello"), .origin_closed = true},
};

TABLE(bad_answers);
