/* Cases: exchanges: Expect, interim and early responses, HTTP/1.0, pipelining. */
#include "conformance/tables.h"

#define GET      "GET /a HTTP/1.1\r\nHost: h\r\n"
#define GET_OLD  "GET /a HTTP/1.0\r\nHost: h\r\n"
#define POST     "POST /a HTTP/1.1\r\nHost: h\r\n"
#define OK       .line = "GET /a HTTP/1.1"
#define HELLO    .line = "POST /a HTTP/1.1", .content = T("hello")
#define EXPECT   "RFC 9110 10.1.1"
#define INTERIM  "RFC 9110 15.2"
#define PERSIST  "RFC 9112 9.3"
#define PIPELINE "RFC 9112 9.3.2"
#define EARLY    "RFC 9112 7.5, early responses"
#define DONE     "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone"

static const struct conformance exchange_cases[] = {
    /* Expect. */
    PASSES("expect-continue", EXPECT, POST "Content-Length: 5\r\nExpect: 100-continue\r\n\r\n{{client: 100 }}hello",
           HELLO, .has = {"Expect: 100-continue"}, .answer = T("HTTP/1.1 100 Continue\r\n\r\n{{origin:hello}}" DONE),
           .early = true, .interim = "100", .reply = T("done")),
    PASSES("expect-continue-chunked", EXPECT,
           POST "Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n{{client: 100 }}5\r\nhello\r\n0\r\n\r\n",
           HELLO, .answer = T("HTTP/1.1 100 Continue\r\n\r\n{{origin:hello}}" DONE), .early = true, .interim = "100",
           .reply = T("done")),
    PASSES("expect-in-mixed-case", EXPECT, POST "Content-Length: 5\r\nexpect: 100-Continue\r\n\r\nhello", HELLO,
           .has = {"Expect: 100-continue"}),
    PASSES("expect-and-content-at-once", EXPECT, POST "Content-Length: 5\r\nExpect: 100-continue\r\n\r\nhello", HELLO),
    PASSES("expect-continue-before-any-100", EXPECT,
           POST "Content-Length: 5\r\nExpect: 100-continue\r\n\r\n{{origin:100-continue}}hello", HELLO,
           .answer = T("{{origin:hello}}HTTP/1.1 100 Continue\r\n\r\n" DONE), .early = true, .interim = "100",
           .reply = T("done")),
    PASSES("expect-final-answer-instead", EXPECT,
           POST "Content-Length: 20\r\nExpect: 100-continue\r\n\r\n{{client:no}}", .line = "POST /a HTTP/1.1",
           .incomplete = true, .early = true, .end = CLOSES, .status = 403, .reply = T("no"),
           .answer = T("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")),
    PASSES("expect-withheld-content-is-no-request", EXPECT,
           POST "Content-Length: 40\r\nExpect: 100-continue\r\n\r\n{{client:no}}", .line = "POST /a HTTP/1.1",
           .incomplete = true, .early = true, .end = CLOSES, .status = 401, .reply = T("no"),
           .answer = T("HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno")),
    PASSES("expect-withheld-chunked", EXPECT,
           POST "Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n{{client:no}}", .line = "POST /a HTTP/1.1",
           .incomplete = true, .early = true, .end = CLOSES, .status = 403, .reply = T("no"),
           .answer = T("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")),
    PASSES("expect-without-content", EXPECT, GET "Expect: 100-continue\r\n\r\n", OK),
    PASSES("expect-in-1.0-is-ignored", EXPECT,
           "POST /a HTTP/1.0\r\nHost: h\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nhello", HELLO,
           .lacks = {"Expect"}, .end = CLOSES),
    REFUSED("expect-unknown", EXPECT, 417, GET "Expect: a-miracle\r\n\r\n"),
    REFUSED("expect-unknown-in-a-list", EXPECT, 417, POST "Expect: 100-continue, x\r\nContent-Length: 5\r\n\r\nhello"),
    REFUSED("expect-unknown-in-the-second", EXPECT, 417,
            POST "Expect: 100-continue\r\nExpect: y=z\r\nContent-Length: 5\r\n\r\nhello"),
    REFUSED("expect-with-parameter", EXPECT, 417, POST "Expect: 100-continue;x=y\r\nContent-Length: 5\r\n\r\nhello"),

    /* Interim responses. */
    PASSES("interim-100-unasked", INTERIM, GET "\r\n", OK, .answer = T("HTTP/1.1 100 Continue\r\n\r\n" DONE),
           .interim = "100", .reply = T("done")),
    PASSES("interim-102", "RFC 2518 10.1", GET "\r\n", OK, .answer = T("HTTP/1.1 102 Processing\r\n\r\n" DONE),
           .interim = "102", .reply = T("done")),
    PASSES("interim-103-with-fields", "RFC 8297 2", GET "\r\n", OK,
           .answer = T("HTTP/1.1 103 Early Hints\r\nLink: </s.css>; rel=preload\r\n\r\n" DONE), .interim = "103",
           .reply = T("done")),
    PASSES("interim-repeated", INTERIM, GET "\r\n", OK,
           .answer = T("HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\n"
                       "HTTP/1.1 100 Continue\r\n\r\n" DONE),
           .interim = "102 103 103 100", .reply = T("done")),
    PASSES("interim-unknown", INTERIM, GET "\r\n", OK, .answer = T("HTTP/1.1 199 Soon\r\n\r\n" DONE), .interim = "199",
           .reply = T("done")),
    PASSES("interim-not-for-1.0", INTERIM, GET_OLD "\r\n", OK,
           .answer = T("HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n" DONE), .end = CLOSES,
           .reply = T("done")),
    PASSES("interim-claims-a-length", "RFC 9110 8.6", GET "\r\n", OK,
           .answer = T("HTTP/1.1 103 Early Hints\r\nContent-Length: 20\r\n\r\n" DONE), .interim = "103",
           .reply = T("done"), .origin_closed = true),
    PASSES("interim-claims-a-coding", "RFC 9112 6.1", GET "\r\n", OK,
           .answer = T("HTTP/1.1 102 Processing\r\nTransfer-Encoding: chunked\r\n\r\n" DONE), .interim = "102",
           .reply = T("done"), .origin_closed = true),
    PASSES("interim-then-no-content", INTERIM, GET "\r\n", OK,
           .answer = T("HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n"), .interim = "103",
           .status = 204),
    PASSES("interim-to-head", INTERIM, "HEAD /a HTTP/1.1\r\nHost: h\r\n\r\n", .line = "HEAD /a HTTP/1.1",
           .answer = T("HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n"),
           .interim = "103"),

    /* Final responses before the request has come whole. */
    PASSES("early-response-to-length", EARLY, POST "Content-Length: 10\r\n\r\nhello{{client:done}}world",
           .line = "POST /a HTTP/1.1", .answer = T(DONE), .early = true, .incomplete = true, .reply = T("done"),
           .origin_closed = true),
    PASSES("early-response-to-chunked", EARLY,
           POST "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n{{client:done}}5\r\nworld\r\n0\r\n\r\n",
           .line = "POST /a HTTP/1.1", .answer = T(DONE), .early = true, .incomplete = true, .reply = T("done"),
           .origin_closed = true),
    PASSES("early-413-and-close", EARLY, POST "Content-Length: 50000\r\n\r\nhello{{client:large}}{{x*49995}}",
           .line = "POST /a HTTP/1.1", .early = true, .then = ORIGIN_CLOSES, .incomplete = true, .status = 413,
           .answer = T("HTTP/1.1 413 Content Too Large\r\nConnection: close\r\nContent-Length: 5\r\n\r\nlarge"),
           .reply = T("large")),
    PASSES("early-413-to-a-long-upload", EARLY, POST "Content-Length: 400000\r\n\r\nhello{{client:large}}{{x*399995}}",
           .line = "POST /a HTTP/1.1", .early = true, .then = ORIGIN_CLOSES, .incomplete = true, .status = 413,
           .answer = T("HTTP/1.1 413 Content Too Large\r\nConnection: close\r\nContent-Length: 5\r\n\r\nlarge"),
           .reply = T("large"), .reply_has = {"Connection: close"}, .end = CLOSES),
    PASSES("early-413-to-a-long-upload-in-chunks", EARLY,
           POST "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n{{client:large}}61a80\r\n{{x*400000}}\r\n0\r\n\r\n",
           .line = "POST /a HTTP/1.1", .early = true, .then = ORIGIN_CLOSES, .incomplete = true, .status = 413,
           .answer = T("HTTP/1.1 413 Content Too Large\r\nConnection: close\r\nContent-Length: 5\r\n\r\nlarge"),
           .reply = T("large"), .end = CLOSES),
    PASSES("early-response-while-content-goes-on", EARLY,
           POST "Content-Length: 10\r\n\r\nhello{{client:HTTP/1.1 200}}world", .line = "POST /a HTTP/1.1",
           .content = T("helloworld"), .early = true,
           .answer = T("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nfirst{{origin:world}}last"),
           .reply = T("firstlast")),

    /* HTTP/1.0, and connections that persist. */
    PASSES("1.0-closes", PERSIST, GET_OLD "\r\n", OK, .end = CLOSES, .lacks = {"Connection"}),
    PASSES("1.0-keep-alive", PERSIST, GET_OLD "Connection: keep-alive\r\n\r\n", OK,
           .reply_has = {"Connection: keep-alive"}, .lacks = {"Connection"}),
    PASSES("1.0-keep-alive-in-mixed-case", PERSIST, GET_OLD "Connection: Keep-Alive\r\n\r\n", OK,
           .reply_has = {"Connection: keep-alive"}),
    PASSES("1.0-keep-alive-and-close", PERSIST, GET_OLD "Connection: keep-alive, close\r\n\r\n", OK, .end = CLOSES),
    PASSES("1.0-content", "RFC 9112 6.2", "POST /a HTTP/1.0\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello", HELLO,
           .end = CLOSES),
    PASSES("1.0-content-keep-alive", PERSIST,
           "POST /a HTTP/1.0\r\nHost: h\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\nhello", HELLO),
    PASSES("1.0-gets-no-chunks", "RFC 9112 6.1", GET_OLD "\r\n", OK,
           .answer = T("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\ndone\r\n0\r\n\r\n"), .end = CLOSES,
           .framing = 'E', .reply = T("done"), .reply_lacks = {"Transfer-Encoding"}),
    PASSES("1.0-keep-alive-ends-with-unknown-length", "RFC 9112 6.1", GET_OLD "Connection: keep-alive\r\n\r\n", OK,
           .answer = T("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\ndone\r\n0\r\n\r\n"), .end = CLOSES,
           .framing = 'E', .reply = T("done")),
    PASSES("1.0-status-line-is-1.1", "RFC 9110 6.2", GET_OLD "\r\n", OK, .end = CLOSES,
           .reply_raw = "HTTP/1.1 200 OK\r\n"),
    PASSES("1.1-half-closed-client", "RFC 9112 9.6", GET "\r\n", OK, .half_close = true, .end = CLOSES),
    PASSES("1.1-half-closed-with-content", "RFC 9112 9.6", POST "Content-Length: 5\r\n\r\nhello", HELLO,
           .half_close = true, .end = CLOSES),

    /* Pipelined requests: in order, and no further than the last. */
    PASSES("pipeline-of-five", PIPELINE,
           "GET /1 HTTP/1.1\r\nHost: h\r\n\r\nGET /2 HTTP/1.1\r\nHost: h\r\n\r\nGET /3 HTTP/1.1\r\nHost: h\r\n\r\n"
           "GET /4 HTTP/1.1\r\nHost: h\r\n\r\nGET /5 HTTP/1.1\r\nHost: h\r\n\r\n",
           .line = "GET /1 HTTP/1.1",
           .more = {"GET /2 HTTP/1.1", "GET /3 HTTP/1.1", "GET /4 HTTP/1.1", "GET /5 HTTP/1.1"}),
    PASSES("pipeline-of-all-framings", PIPELINE,
           "POST /1 HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhelloGET /2 HTTP/1.1\r\nHost: h\r\n\r\n"
           "POST /3 HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
           "HEAD /4 HTTP/1.1\r\nHost: h\r\n\r\nPUT /5 HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n",
           .line = "POST /1 HTTP/1.1", .content = T("hello"),
           .more = {"GET /2 HTTP/1.1", "POST /3 HTTP/1.1", "HEAD /4 HTTP/1.1", "PUT /5 HTTP/1.1"}),
    PASSES("pipeline-empty-lines-between", "RFC 9112 2.2",
           "POST /1 HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello\r\nGET /2 HTTP/1.1\r\nHost: h\r\n\r\n",
           .line = "POST /1 HTTP/1.1", .content = T("hello"), .more = {"GET /2 HTTP/1.1"}),
    PASSES("pipeline-ends-at-close", "RFC 9112 9.6",
           "GET /1 HTTP/1.1\r\nHost: h\r\n\r\nGET /2 HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
           "GET /3 HTTP/1.1\r\nHost: h\r\n\r\n",
           .line = "GET /1 HTTP/1.1", .more = {"GET /2 HTTP/1.1"}, .end = CLOSES),
    PASSES("pipeline-ends-at-1.0", PERSIST,
           "GET /1 HTTP/1.1\r\nHost: h\r\n\r\nGET /2 HTTP/1.0\r\nHost: h\r\n\r\nGET /3 HTTP/1.1\r\nHost: h\r\n\r\n",
           .line = "GET /1 HTTP/1.1", .more = {"GET /2 HTTP/1.1"}, .end = CLOSES),
    PASSES("pipeline-of-posts-without-content", "RFC 9112 6.3",
           "POST /1 HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\nPOST /2 HTTP/1.1\r\nHost: h\r\n\r\n",
           .line = "POST /1 HTTP/1.1", .more = {"POST /2 HTTP/1.1"}),
};

TABLE(exchange);
