/* Cases: how long a request's content is: Content-Length, Transfer-Encoding, and both. */
#include "conformance/tables.h"

#define POST   "POST /a HTTP/1.1\r\nHost: h\r\n"
#define LINE   "POST /a HTTP/1.1"
#define LENGTH "RFC 9112 6.2"
#define DIGITS "RFC 9110 8.6"
#define TWICE  "RFC 9112 6.3"
#define CODING "RFC 9112 6.1"
#define BODY   "\r\n\r\nhello"
#define NAMES  "RFC 9110 5.1"
#define CHUNKS "\r\n\r\n5\r\nhello\r\n0\r\n\r\n"

static const struct conformance length_cases[] = {
    PASSES("length-plain", LENGTH, POST "Content-Length: 5" BODY, .line = LINE, .has = {"Content-Length: 5"},
           .lacks = {"Transfer-Encoding"}, .content = T("hello")),
    PASSES("length-zero", LENGTH, POST "Content-Length: 0\r\n\r\n", .line = LINE, .has = {"Content-Length: 0"}),
    PASSES("length-missing", TWICE, POST "\r\n", .line = LINE, .lacks = {"Transfer-Encoding"}),
    PASSES("length-in-lower-case", NAMES, POST "content-length:5" BODY, .line = LINE, .content = T("hello")),
    PASSES("length-space-around", DIGITS, POST "Content-Length: \t 5 \t" BODY, .line = LINE,
           .has = {"Content-Length: 5"}, .content = T("hello")),
    PASSES("length-leading-zeros", DIGITS, POST "Content-Length: 0005" BODY, .line = LINE, .has = {"Content-Length: 5"},
           .content = T("hello")),
    PASSES("length-many-leading-zeros", DIGITS, POST "Content-Length: {{0*40}}5" BODY, .line = LINE,
           .has = {"Content-Length: 5"}, .content = T("hello")),
    PASSES("length-of-get", "RFC 9110 9.3.1", "GET /a HTTP/1.1\r\nHost: h\r\nContent-Length: 5" BODY,
           .line = "GET /a HTTP/1.1", .content = T("hello")),
    PASSES("length-of-head", "RFC 9110 9.3.2", "HEAD /a HTTP/1.1\r\nHost: h\r\nContent-Length: 5" BODY,
           .line = "HEAD /a HTTP/1.1", .content = T("hello")),
    PASSES("length-of-options", "RFC 9110 9.3.7", "OPTIONS /a HTTP/1.1\r\nHost: h\r\nContent-Length: 5" BODY,
           .line = "OPTIONS /a HTTP/1.1", .content = T("hello")),
    PASSES("length-of-4000", LENGTH, POST "Content-Length: 4000\r\n\r\n{{0123456789*400}}", .line = LINE,
           .content = T("{{0123456789*400}}")),
    PASSES("length-content-looks-like-a-request", LENGTH,
           POST "Content-Length: 40\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: behind\r\n\r\n", .line = LINE,
           .content = T("GET /smuggled HTTP/1.1\r\nHost: behind\r\n\r\n")),
    PASSES("length-binary-content", LENGTH, POST "Content-Length: 5\r\n\r\n\0\xff\r\n\0", .line = LINE,
           .content = T("\0\xff\r\n\0")),
    REFUSED("length-plus", DIGITS, 400, POST "Content-Length: +5" BODY),
    REFUSED("length-minus", DIGITS, 400, POST "Content-Length: -5" BODY),
    REFUSED("length-minus-zero", DIGITS, 400, POST "Content-Length: -0\r\n\r\n"),
    REFUSED("length-hexadecimal", DIGITS, 400, POST "Content-Length: 0x5" BODY),
    REFUSED("length-hex-digit", DIGITS, 400, POST "Content-Length: a" BODY),
    REFUSED("length-fraction", DIGITS, 400, POST "Content-Length: 5.0" BODY),
    REFUSED("length-exponent", DIGITS, 400, POST "Content-Length: 5e0" BODY),
    REFUSED("length-word", DIGITS, 400, POST "Content-Length: five" BODY),
    REFUSED("length-empty", DIGITS, 400, POST "Content-Length:" BODY),
    REFUSED("length-of-white-space", DIGITS, 400, POST "Content-Length: \t" BODY),
    REFUSED("length-inner-space", DIGITS, 400, POST "Content-Length: 1 5" BODY),
    REFUSED("length-underscore", DIGITS, 400, POST "Content-Length: 0_5" BODY),
    REFUSED("length-semicolon", DIGITS, 400, POST "Content-Length: 5;" BODY),
    REFUSED("length-quoted", DIGITS, 400, POST "Content-Length: \"5\"" BODY),
    REFUSED("length-vertical-tab", DIGITS, 400,
            POST "Content-Length: \x0b"
                 "5" BODY),
    REFUSED("length-nul", DIGITS, 400, POST "Content-Length: 5\0" BODY),
    REFUSED("length-8-bit-digit", DIGITS, 400, POST "Content-Length: \xd9\xa5" BODY),
    REFUSED("length-no-break-space", DIGITS, 400,
            POST "Content-Length: \xa0"
                 "5" BODY),
    REFUSED("length-list-of-equals", TWICE, 400, POST "Content-Length: 5, 5" BODY),
    REFUSED("length-list-without-space", TWICE, 400, POST "Content-Length: 5,5" BODY),
    REFUSED("length-list-of-different", TWICE, 400, POST "Content-Length: 5, 6" BODY),
    REFUSED("length-list-with-empty-element", TWICE, 400, POST "Content-Length: ,5" BODY),
    REFUSED("length-twice-equal", TWICE, 400, POST "Content-Length: 5\r\nContent-Length: 5" BODY),
    REFUSED("length-twice-different", TWICE, 400, POST "Content-Length: 5\r\nContent-Length: 0" BODY),
    REFUSED("length-twice-apart", TWICE, 400, POST "Content-Length: 0\r\nX-A: v\r\ncontent-length: 5" BODY),
    REFUSED("length-twice-once-empty", TWICE, 400, POST "Content-Length: 5\r\nContent-Length:" BODY),
    REFUSED("length-of-2^63", DIGITS, 400, POST "Content-Length: 9223372036854775808" BODY),
    REFUSED("length-of-2^64+5", DIGITS, 400, POST "Content-Length: 18446744073709551621" BODY),
    REFUSED("length-of-many-digits", DIGITS, 400, POST "Content-Length: {{9*100}}" BODY),
    REFUSED("length-space-before-colon", "RFC 9112 5.1", 400, POST "Content-Length : 5" BODY),
    REFUSED("length-folded", "RFC 9112 5.2", 400, POST "Content-Length:\r\n 5" BODY),
    REFUSED("length-folded-digits", "RFC 9112 5.2", 400, POST "Content-Length: 1\r\n 5" BODY),
    REFUSED("length-of-trace", "RFC 9110 9.3.8", 405, "TRACE /a HTTP/1.1\r\nHost: h\r\nContent-Length: 5" BODY),
    PASSES("length-cut-short", "RFC 9112 8", POST "Content-Length: 10" BODY, .half_close = true, .incomplete = true),
    PASSES("length-of-2^63-1-cut-short", "RFC 9112 8", POST "Content-Length: 9223372036854775807" BODY,
           .half_close = true, .incomplete = true),
};

TABLE(length);

static const struct conformance coding_cases[] = {
    PASSES("coding-chunked", CODING, POST "Transfer-Encoding: chunked" CHUNKS, .line = LINE,
           .has = {"Transfer-Encoding: chunked"}, .lacks = {"Content-Length"}, .content = T("hello")),
    PASSES("coding-in-upper-case", "RFC 9112 7", POST "TRANSFER-ENCODING: CHUNKED" CHUNKS, .line = LINE,
           .has = {"Transfer-Encoding: chunked"}, .content = T("hello")),
    PASSES("coding-in-mixed-case", "RFC 9112 7", POST "Transfer-Encoding: ChuNked" CHUNKS, .line = LINE,
           .has = {"Transfer-Encoding: chunked"}, .content = T("hello")),
    PASSES("coding-space-around", CODING, POST "Transfer-Encoding: \tchunked \t" CHUNKS, .line = LINE,
           .has = {"Transfer-Encoding: chunked"}, .content = T("hello")),
    PASSES("coding-without-space", CODING, POST "Transfer-Encoding:chunked" CHUNKS, .line = LINE,
           .content = T("hello")),
    PASSES("coding-of-get", "RFC 9110 9.3.1", "GET /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked" CHUNKS,
           .line = "GET /a HTTP/1.1", .content = T("hello")),
    REFUSED("coding-and-length", TWICE, 400, POST "Transfer-Encoding: chunked\r\nContent-Length: 5" CHUNKS),
    REFUSED("length-and-coding", TWICE, 400, POST "Content-Length: 5\r\nTransfer-Encoding: chunked" CHUNKS),
    REFUSED("length-zero-and-coding", TWICE, 400, POST "Content-Length: 0\r\nTransfer-Encoding: chunked" CHUNKS),
    REFUSED("length-and-unknown-coding", TWICE, 400, POST "Content-Length: 5\r\nTransfer-Encoding: x" CHUNKS),
    REFUSED("length-and-identity", TWICE, 400, POST "Content-Length: 5\r\nTransfer-Encoding: identity" BODY),
    REFUSED("coding-and-bad-length", TWICE, 400, POST "Transfer-Encoding: chunked\r\nContent-Length: x" CHUNKS),
    REFUSED("coding-in-1.0", CODING, 400, "POST /a HTTP/1.0\r\nHost: h\r\nTransfer-Encoding: chunked" CHUNKS),
    REFUSED("coding-in-1.0-keep-alive", CODING, 400,
            "POST /a HTTP/1.0\r\nHost: h\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked" CHUNKS),
    REFUSED("coding-and-length-in-1.0", CODING, 400,
            "POST /a HTTP/1.0\r\nHost: h\r\nContent-Length: 5\r\nTransfer-Encoding: chunked" CHUNKS),
    REFUSED("coding-gzip-then-chunked", CODING, 501, POST "Transfer-Encoding: gzip, chunked" CHUNKS),
    REFUSED("coding-chunked-twice", CODING, 400, POST "Transfer-Encoding: chunked, chunked" CHUNKS),
    REFUSED("coding-space-before-colon", "RFC 9112 5.1", 400, POST "Transfer-Encoding : chunked" CHUNKS),
    REFUSED("coding-tab-before-colon", "RFC 9112 5.1", 400, POST "Transfer-Encoding\t: chunked" CHUNKS),
    REFUSED("coding-folded", "RFC 9112 5.2", 400, POST "Transfer-Encoding:\r\n chunked" CHUNKS),
    REFUSED("coding-folded-behind", "RFC 9112 5.2", 400, POST "Transfer-Encoding: chunked\r\n , identity" CHUNKS),
    REFUSED("coding-behind-bare-lf", "RFC 9112 2.2", 400, POST "X: y\nTransfer-Encoding: chunked" CHUNKS),
    REFUSED("coding-behind-bare-cr", "RFC 9112 2.2", 400, POST "X: y\rTransfer-Encoding: chunked" CHUNKS),
    REFUSED("coding-behind-vertical-tab", "RFC 9110 5.5", 400,
            POST "Transfer-Encoding: \x0b"
                 "chunked" CHUNKS),
    REFUSED("coding-behind-form-feed", "RFC 9110 5.5", 400,
            POST "Transfer-Encoding: \x0c"
                 "chunked" CHUNKS),
    REFUSED("coding-before-vertical-tab", "RFC 9110 5.5", 400, POST "Transfer-Encoding: chunked\x0b" CHUNKS),
    REFUSED("coding-before-nul", "RFC 9110 5.5", 400, POST "Transfer-Encoding: chunked\0" CHUNKS),
    REFUSED("coding-name-with-nul", "RFC 9110 5.1", 400, POST "Transfer-Encoding\0: chunked" CHUNKS),
    REFUSED("coding-name-behind-space", "RFC 9112 5.2", 400, POST " Transfer-Encoding: chunked" CHUNKS),

/* Section 6.1 would have 501 for a coding that is not known, section 6.3 wants 400 where chunked is not the last. */
#define NEITHER(name, bytes)                                                                                           \
    {                                                                                                                  \
        name, TWICE, T(bytes), .refused = 400, .or_refused = 501                                                       \
    }
    NEITHER("coding-xchunked", POST "Transfer-Encoding: xchunked" CHUNKS),
    NEITHER("coding-chunkedx", POST "Transfer-Encoding: chunkedx" CHUNKS),
    NEITHER("coding-chunke", POST "Transfer-Encoding: chunke" CHUNKS),
    NEITHER("coding-chun-ked", POST "Transfer-Encoding: chun ked" CHUNKS),
    NEITHER("coding-quoted", POST "Transfer-Encoding: \"chunked\"" CHUNKS),
    NEITHER("coding-in-apostrophes", POST "Transfer-Encoding: 'chunked'" CHUNKS),
    NEITHER("coding-with-parameter", POST "Transfer-Encoding: chunked;q=1" CHUNKS),
    NEITHER("coding-with-semicolon", POST "Transfer-Encoding: chunked;" CHUNKS),
    NEITHER("coding-8-bit", POST "Transfer-Encoding: \xffxchunked" CHUNKS),
    NEITHER("coding-no-break-space", POST "Transfer-Encoding: \xa0"
                                          "chunked" CHUNKS),
    NEITHER("coding-empty", POST "Transfer-Encoding:" CHUNKS),
    NEITHER("coding-of-commas", POST "Transfer-Encoding: ,," CHUNKS),
    NEITHER("coding-comma-chunked", POST "Transfer-Encoding: , chunked" CHUNKS),
    NEITHER("coding-chunked-comma", POST "Transfer-Encoding: chunked," CHUNKS),
    NEITHER("coding-identity", POST "Transfer-Encoding: identity" BODY),
    NEITHER("coding-gzip", POST "Transfer-Encoding: gzip" BODY),
    NEITHER("coding-chunked-then-gzip", POST "Transfer-Encoding: chunked, gzip" CHUNKS),
    NEITHER("coding-chunked-then-identity", POST "Transfer-Encoding: chunked, identity" CHUNKS),
    NEITHER("coding-identity-then-chunked", POST "Transfer-Encoding: identity, chunked" CHUNKS),
    NEITHER("coding-x-then-chunked", POST "Transfer-Encoding: x, chunked" CHUNKS),
    NEITHER("coding-name-as-value", POST "Transfer-Encoding: Transfer-Encoding: chunked" CHUNKS),
    NEITHER("coding-two-fields", POST "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked" CHUNKS),
    NEITHER("coding-two-fields-identity", POST "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity" CHUNKS),
    NEITHER("coding-two-fields-x-first", POST "Transfer-Encoding: x\r\nTransfer-encoding: chunked" CHUNKS),
    NEITHER("coding-two-fields-once-empty", POST "Transfer-Encoding:\r\nTransfer-Encoding: chunked" CHUNKS),
    NEITHER("coding-two-fields-gzip-and-chunked", POST "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked" CHUNKS),
};

TABLE(coding);
