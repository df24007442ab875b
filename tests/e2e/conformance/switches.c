/* What goes on beside the messages themselves: trailers, how often one may be forwarded, another protocol. */
#include "conformance/tables.h"

#define GET     "GET /a HTTP/1.1\r\nHost: h\r\n"
#define OK      .line = "GET /a HTTP/1.1"
#define CODED   "POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n"
#define HELLO   .line = "POST /a HTTP/1.1", .content = T("hello")
#define TRAILER "RFC 9110 6.5"
#define UPGRADE "RFC 9110 7.8"
#define SWITCH  "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
#define WS      GET "Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
#define ANSWER  "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n"

static const struct conformance switches_cases[] = {
    /* Trailers. */
    PASSES("trailer-passed-on", TRAILER, CODED "X-T: v\r\n\r\n", HELLO, .trailers = {"X-T: v"}, .lacks = {"X-T"}),
    PASSES("trailers-passed-on-in-order", TRAILER, CODED "X-T: v\r\nX-U:w \r\nX-T: x\r\n\r\n", HELLO,
           .trailers = {"X-T: v | x", "X-U: w"}),
    PASSES("trailers-forbidden-left-out", "RFC 9110 6.5.1",
           CODED "Content-Length: 9\r\nX-T: v\r\nHost: i\r\nAuthorization: x\r\nX-Forwarded-For: 9.9.9.9\r\n"
                 "X_T: w\r\n\r\n",
           HELLO, .trailers = {"X-T: v"}),
    PASSES("answer-trailers-with-te", TRAILER, GET "Connection: TE\r\nTE: trailers\r\n\r\n", OK,
           .has = {"TE: trailers"}, .answer = T(ANSWER "X-T: v\r\n\r\n"), .reply = T("hello"),
           .reply_trailers = {"X-T: v"}),
    PASSES("answer-trailers-with-te-in-a-list", "RFC 9110 10.1.4", GET "TE: gzip;q=0.5, trailers\r\n\r\n", OK,
           .has = {"TE: trailers"}, .answer = T(ANSWER "X-T: v\r\n\r\n"), .reply = T("hello"),
           .reply_trailers = {"X-T: v"}),
    PASSES("answer-trailers-forbidden-left-out", "RFC 9110 6.5.1", GET "Connection: TE\r\nTE: trailers\r\n\r\n", OK,
           .answer = T(ANSWER "Content-Length: 9\r\nX-T: v\r\nTransfer-Encoding: x\r\n\r\n"), .reply = T("hello"),
           .reply_trailers = {"X-T: v"}),
    PASSES("answer-trailers-not-for-1.0", TRAILER,
           "GET /a HTTP/1.0\r\nHost: h\r\nConnection: TE\r\nTE: trailers\r\n\r\n", OK,
           .answer = T(ANSWER "X-T: v\r\n\r\n"), .reply = T("hello"), .framing = 'E', .end = CLOSES),

    /* Max-Forwards: 0 is not forwarded, more is counted down. */
    {"max-forwards-0", "RFC 9110 7.6.2", T("OPTIONS /a HTTP/1.1\r\nHost: h\r\nMax-Forwards: 0\r\n\r\n"), .refused = 200,
     .or_refused = 204, .survives = true},
    {"max-forwards-0-of-1.0-kept-alive", "RFC 9112 9.3",
     T("OPTIONS /a HTTP/1.0\r\nHost: h\r\nConnection: keep-alive\r\nMax-Forwards: 0\r\n\r\n"), .refused = 200,
     .or_refused = 204, .survives = true, .reply_has = {"Connection: keep-alive"}},
    PASSES("max-forwards-counted-down", "RFC 9110 7.6.2", "OPTIONS /a HTTP/1.1\r\nHost: h\r\nMax-Forwards: 3\r\n\r\n",
           .line = "OPTIONS /a HTTP/1.1", .has = {"Max-Forwards: 2"}),

    /* Upgrade. */
    PASSES("upgrade-reaches-the-origin", UPGRADE, WS, OK, .has = {"Upgrade: websocket", "Connection: upgrade"}),
    PASSES("upgrade-not-switched-is-an-ordinary-exchange", UPGRADE, WS, OK,
           .answer = T("HTTP/1.1 400 Bad Request\r\nContent-Length: 2\r\n\r\nno"), .status = 400, .reply = T("no")),
    PASSES("upgrade-tunnel", UPGRADE, WS "{{client: 101 }}ping", OK, .alone = true,
           .answer = T(SWITCH "{{origin:ping}}pong"), .then = ORIGIN_CLOSES, .status = 101, .reply = T("pong"),
           .reply_has = {"Upgrade: websocket", "Connection: upgrade"}, .end = CLOSES),
    PASSES("upgrade-early-bytes-of-the-client", UPGRADE, WS "ping", OK, .alone = true,
           .answer = T(SWITCH "{{origin:ping}}pong"), .then = ORIGIN_CLOSES, .status = 101, .reply = T("pong"),
           .end = CLOSES),
    PASSES("upgrade-early-bytes-of-the-origin", UPGRADE, WS "{{client:hello}}ping", OK, .alone = true,
           .answer = T(SWITCH "hello{{origin:ping}}pong"), .then = ORIGIN_CLOSES, .status = 101,
           .reply = T("hellopong"), .end = CLOSES),
    PASSES("upgrade-half-closed-by-the-client", UPGRADE, WS "{{client: 101 }}ping", OK, .half_close = true,
           .answer = T(SWITCH "{{origin:ping}}pong"), .then = ORIGIN_CLOSES, .status = 101, .reply = T("pong"),
           .end = CLOSES),
    PASSES("upgrade-h2c-removed-from-a-list", UPGRADE, GET "Connection: upgrade\r\nUpgrade: h2c, websocket\r\n\r\n", OK,
           .has = {"Upgrade: websocket"}),
};

TABLE(switches);
