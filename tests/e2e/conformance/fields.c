/* Cases: field lines. */
#include "conformance/tables.h"

#define GET    "GET /a HTTP/1.1\r\nHost: h\r\n"
#define OK     "GET /a HTTP/1.1"
#define SYNTAX "RFC 9112 5"
#define SPACE  "RFC 9112 5.1"
#define FOLD   "RFC 9112 5.2"
#define NAMES  "RFC 9110 5.1"
#define VALUES "RFC 9110 5.5"
#define ENDS   "RFC 9112 2.2"

static const struct conformance fields_cases[] = {
    PASSES("field-plain", SYNTAX, GET "X-A: v\r\n\r\n", .line = OK, .has = {"X-A: v"}),
    PASSES("field-without-space", SPACE, GET "X-A:v\r\n\r\n", .line = OK, .has = {"X-A: v"}),
    PASSES("field-space-trimmed", SPACE, GET "X-A: \t  v w \t \r\n\r\n", .line = OK, .has = {"X-A: v w"}),
    PASSES("field-empty", VALUES, GET "X-A:\r\n\r\n", .line = OK, .has = {"X-A: "}),
    PASSES("field-of-white-space", VALUES, GET "X-A: \t \r\n\r\n", .line = OK, .has = {"X-A: "}),
    PASSES("field-inner-space-kept", VALUES, GET "X-A: a  b\tc\r\n\r\n", .line = OK, .has = {"X-A: a  b\tc"}),
    PASSES("field-8-bit-value", VALUES, GET "X-A: \x80\xe4\xff\r\n\r\n", .line = OK, .has = {"X-A: \x80\xe4\xff"}),
    PASSES("field-colons-in-value", VALUES, GET "X-A: :b:c:\r\n\r\n", .line = OK, .raw = "\r\nX-A: :b:c:\r\n"),
    PASSES("field-quotes-in-value", VALUES, GET "X-A: \"a\\\", b\r\n\r\n", .line = OK, .has = {"X-A: \"a\\\", b"}),
    PASSES("field-spelling-kept", NAMES, GET "x-OdD-CaSe: v\r\n\r\n", .line = OK, .raw = "\r\nx-OdD-CaSe: v\r\n"),
    PASSES("field-name-of-all-token-bytes", NAMES, GET "!#$%&'*+-.^`|~09aZ: v\r\n\r\n", .line = OK,
           .raw = "\r\n!#$%&'*+-.^`|~09aZ: v\r\n"),
    PASSES("field-order-and-duplicates-kept", "RFC 9110 5.3", GET "A: 1\r\nB: 2\r\nA: 3\r\na: 1\r\n\r\n", .line = OK,
           .has = {"A: 1 | 3 | 1", "B: 2"}, .raw = "\r\nA: 1\r\nB: 2\r\nA: 3\r\na: 1\r\n"),
    PASSES("field-cookies-not-joined", "RFC 6265 5.4", GET "Cookie: a=b\r\nCookie: c=d\r\n\r\n", .line = OK,
           .has = {"Cookie: a=b | c=d"}),
    PASSES("field-name-with-underscore", "names with _ dropped", GET "X_A: v\r\nX-B: w\r\n\r\n", .line = OK,
           .has = {"X-B: w"}, .lacks = {"X_A", "X-A"}),
    PASSES("field-name-begins-with-underscore", "names with _ dropped", GET "_: v\r\n_x: w\r\n\r\n", .line = OK,
           .lacks = {"_", "_x"}),
    PASSES("field-content-underscore-length", "names with _ dropped", GET "Content_Length: 5\r\n\r\n", .line = OK,
           .lacks = {"Content_Length", "Content-Length"}),
    PASSES("field-transfer-underscore-encoding", "names with _ dropped",
           "POST /a HTTP/1.1\r\nHost: h\r\nTransfer_Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
           .line = "POST /a HTTP/1.1", .has = {"Content-Length: 5"}, .lacks = {"Transfer_Encoding"},
           .content = T("0\r\n\r\n")),

    REFUSED("field-space-before-colon", SPACE, 400, GET "X-A : v\r\n\r\n"),
    REFUSED("field-tab-before-colon", SPACE, 400, GET "X-A\t: v\r\n\r\n"),
    REFUSED("field-space-before-the-first", ENDS, 400, "GET /a HTTP/1.1\r\n X-A: v\r\nHost: h\r\n\r\n"),
    REFUSED("field-tab-before-the-first", ENDS, 400, "GET /a HTTP/1.1\r\n\tX-A: v\r\nHost: h\r\n\r\n"),
    REFUSED("field-folded-by-space", FOLD, 400, GET "X-A: v\r\n w\r\n\r\n"),
    REFUSED("field-folded-by-tab", FOLD, 400, GET "X-A: v\r\n\tw\r\n\r\n"),
    REFUSED("field-folded-to-nothing", FOLD, 400, GET "X-A: v\r\n \r\n\r\n"),
    REFUSED("field-folded-behind-colon", FOLD, 400, GET "X-A:\r\n v\r\n\r\n"),
    REFUSED("field-folded-that-looks-like-a-field", FOLD, 400, GET "X-A: v\r\n Content-Length: 5\r\n\r\n"),
    REFUSED("field-line-of-white-space", SYNTAX, 400, "GET /a HTTP/1.1\r\n \r\nHost: h\r\n\r\n"),
    REFUSED("field-without-colon", SYNTAX, 400, GET "X-A\r\n\r\n"),
    REFUSED("field-without-name", SYNTAX, 400, GET ": v\r\n\r\n"),
    REFUSED("field-bare-cr-in-value", ENDS, 400, GET "X-A: a\rb\r\n\r\n"),
    REFUSED("field-bare-cr-hides-a-field", ENDS, 400, GET "X-A: a\rContent-Length: 5\r\n\r\n"),
    REFUSED("field-two-crs", ENDS, 400, GET "X-A: v\r\r\n\r\n"),
    REFUSED("field-ends-in-lf", ENDS, 400, GET "X-A: v\nX-B: w\r\n\r\n"),
    REFUSED("field-lf-hides-a-field", ENDS, 400, GET "X-A: v\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    REFUSED("field-lf-in-name", ENDS, 400, GET "X-\nA: v\r\n\r\n"),
    REFUSED("head-ends-in-lf", ENDS, 400, GET "\n"),
    REFUSED("head-ends-in-lf-lf", ENDS, 400, "GET /a HTTP/1.1\r\nHost: h\n\n"),
    REFUSED("head-ends-in-cr", ENDS, 400, GET "\rX-A: v\r\n\r\n"),
    REFUSED("head-of-lf-alone", ENDS, 400, "GET /a HTTP/1.1\nHost: h\n\n"),
    REFUSED("field-nul-in-value", VALUES, 400, GET "X-A: a\0b\r\n\r\n"),
    REFUSED("field-nul-at-end", VALUES, 400, GET "X-A: v\0\r\n\r\n"),
    REFUSED("field-soh-in-value", VALUES, 400,
            GET "X-A: a\x01"
                "b\r\n\r\n"),
    REFUSED("field-vertical-tab-in-value", VALUES, 400,
            GET "X-A: a\x0b"
                "b\r\n\r\n"),
    REFUSED("field-form-feed-in-value", VALUES, 400, GET "X-A: \x0cv\r\n\r\n"),
    REFUSED("field-escape-in-value", VALUES, 400, GET "X-A: \x1b[0m\r\n\r\n"),
    REFUSED("field-del-in-value", VALUES, 400, GET "X-A: a\x7f\r\n\r\n"),
    REFUSED("field-nul-in-name", NAMES, 400, GET "X-\0A: v\r\n\r\n"),
    REFUSED("field-space-in-name", NAMES, 400, GET "X A: v\r\n\r\n"),
    REFUSED("field-8-bit-name", NAMES, 400, GET "X-\xc3\xa9: v\r\n\r\n"),
    REFUSED("field-parenthesis-in-name", NAMES, 400, GET "X(A): v\r\n\r\n"),
    REFUSED("field-slash-in-name", NAMES, 400, GET "X/A: v\r\n\r\n"),
    REFUSED("field-at-in-name", NAMES, 400, GET "X@A: v\r\n\r\n"),
    REFUSED("field-equals-in-name", NAMES, 400, GET "X=A: v\r\n\r\n"),
    REFUSED("field-comma-in-name", NAMES, 400, GET "X,A: v\r\n\r\n"),
    REFUSED("field-quote-in-name", NAMES, 400, GET "\"X\": v\r\n\r\n"),
    REFUSED("field-brace-in-name", NAMES, 400, GET "X{A: v\r\n\r\n"),
    REFUSED("field-bracket-in-name", NAMES, 400, GET "[X]: v\r\n\r\n"),
    REFUSED("field-control-byte-in-name", NAMES, 400, GET "X\x08: v\r\n\r\n"),

    /* Limits: 100 fields, 16 KiB. */
    PASSES("field-count-at-its-limit", "RFC 6585 5", GET "{{X: v\r\n*99}}\r\n", .line = OK),
    REFUSED("field-count-over-its-limit", "RFC 6585 5", 431, GET "{{X: v\r\n*100}}\r\n"),
    PASSES("head-at-its-limit", "RFC 6585 5", "GET / HTTP/1.1\r\nHost: h\r\nX-A: {{a*16350}}\r\n\r\n",
           .line = "GET / HTTP/1.1", .has = {"X-A: *"}),
    REFUSED("head-over-its-limit", "RFC 6585 5", 431, "GET / HTTP/1.1\r\nHost: h\r\nX-A: {{a*16351}}\r\n\r\n"),
    REFUSED("field-name-that-never-ends", "RFC 6585 5", 431, GET "{{a*20000}}"),
    REFUSED("field-value-that-never-ends", "RFC 6585 5", 431, GET "X-A: {{a*20000}}"),
};

TABLE(fields);
