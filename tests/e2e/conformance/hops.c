/* Cases: what a gateway takes out of a request, what it leaves, and what it adds. */
#include "conformance/tables.h"

#define GET     "GET /a HTTP/1.1\r\nHost: h\r\n"
#define OK      .line = "GET /a HTTP/1.1"
#define POST    "POST /a HTTP/1.1\r\nHost: h\r\n"
#define HELLO   .line = "POST /a HTTP/1.1", .content = T("hello")
#define HOP     "RFC 9110 7.6.1"
#define VIA     "RFC 9110 7.6.3"
#define OURS    "Via: 1.1 loadbalancer\r\n"
#define NOTED   "nominations that are ignored"
#define FORWARD "X-Forwarded-* written anew"

static const struct conformance hops_cases[] = {
    PASSES("connection-is-not-passed-on", HOP, GET "Connection: keep-alive\r\n\r\n", OK, .lacks = {"Connection"}),
    PASSES("connection-nominates", HOP, GET "Connection: X-A\r\nX-A: v\r\nX-B: w\r\n\r\n", OK, .has = {"X-B: w"},
           .lacks = {"Connection", "X-A"}),
    PASSES("connection-nominates-what-came-before", HOP, GET "X-A: v\r\nConnection: x-a\r\n\r\n", OK,
           .lacks = {"Connection", "X-A"}),
    PASSES("connection-nominates-a-list", HOP, GET "Connection: X-A ,\tX-B,,X-C\r\nX-A: 1\r\nX-B: 2\r\nX-C: 3\r\n\r\n",
           OK, .lacks = {"X-A", "X-B", "X-C"}),
    PASSES("connection-nominates-in-two-fields", HOP,
           GET "Connection: X-A\r\nX-A: 1\r\nConnection: keep-alive, X-B\r\nX-B: 2\r\n\r\n", OK,
           .lacks = {"X-A", "X-B"}),
    PASSES("connection-nominates-all-duplicates", HOP, GET "Connection: X-A\r\nX-A: 1\r\nx-a: 2\r\n\r\n", OK,
           .lacks = {"X-A"}),
    PASSES("connection-nominates-no-prefix", HOP, GET "Connection: X\r\nX-A: v\r\n\r\n", OK, .has = {"X-A: v"}),
    REFUSED("connection-of-65-options", "limits: 64 options", 431, GET "Connection: {{a, *65}}\r\n\r\n"),
    PASSES("connection-empty", HOP, GET "Connection:\r\nX-A: v\r\n\r\n", OK, .has = {"X-A: v"},
           .lacks = {"Connection"}),
    PASSES("connection-close", "RFC 9112 9.6", GET "Connection: close\r\n\r\n", OK, .lacks = {"Connection"},
           .reply_has = {"Connection: close"}, .end = CLOSES),
    PASSES("connection-close-in-mixed-case", "RFC 9112 9.6", GET "Connection: Close\r\n\r\n", OK,
           .lacks = {"Connection"}, .end = CLOSES),
    PASSES("connection-close-in-a-list", "RFC 9112 9.6", GET "Connection: keep-alive, X-A, close\r\nX-A: v\r\n\r\n", OK,
           .lacks = {"Connection", "X-A"}, .end = CLOSES),
    PASSES("connection-close-in-the-second", "RFC 9112 9.6", GET "Connection: keep-alive\r\nConnection: close\r\n\r\n",
           OK, .end = CLOSES),
    PASSES("keep-alive-field", HOP, GET "Keep-Alive: timeout=5\r\n\r\n", OK, .lacks = {"Keep-Alive"}),
    PASSES("proxy-connection-field", "RFC 9112 C.2.2", GET "Proxy-Connection: keep-alive\r\n\r\n", OK,
           .lacks = {"Proxy-Connection"}),
    PASSES("proxy-connection-close-means-nothing", "RFC 9112 C.2.2", GET "Proxy-Connection: close\r\n\r\n", OK,
           .lacks = {"Proxy-Connection"}),
    PASSES("proxy-authorization-field", "RFC 9110 11.7.2", GET "Proxy-Authorization: Basic eA==\r\n\r\n", OK,
           .lacks = {"Proxy-Authorization"}),
    PASSES("te-field", "RFC 9110 10.1.4", GET "TE: gzip;q=0.5\r\nConnection: TE\r\n\r\n", OK, .lacks = {"TE"}),
    PASSES("upgrade-h2c", "RFC 9110 7.8",
           GET "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n", OK,
           .lacks = {"Upgrade", "HTTP2-Settings", "Connection"}),
    PASSES("upgrade-not-nominated", "RFC 9110 7.8", GET "Upgrade: websocket\r\n\r\n", OK, .lacks = {"Upgrade"}),

    /* What Connection may not take away. */
    PASSES("nominates-host", NOTED, GET "Connection: Host\r\n\r\n", OK, .has = {"Host: h"}),
    PASSES("nominates-content-length", NOTED, POST "Connection: Content-Length\r\nContent-Length: 5\r\n\r\nhello",
           HELLO, .has = {"Content-Length: 5"}),
    PASSES("nominates-transfer-encoding", NOTED,
           POST "Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", HELLO,
           .has = {"Transfer-Encoding: chunked"}),
    PASSES("nominates-authorization", NOTED, GET "Connection: Authorization\r\nAuthorization: Bearer x\r\n\r\n", OK,
           .has = {"Authorization: Bearer x"}),
    PASSES("nominates-cookie", NOTED, GET "Connection: cookie\r\nCookie: a=b\r\n\r\n", OK, .has = {"Cookie: a=b"}),
    PASSES("nominates-via", NOTED, GET "Connection: Via\r\nVia: 1.1 a\r\n\r\n", OK,
           .has = {"Via: 1.1 a | 1.1 loadbalancer"}),
    PASSES("nominates-x-forwarded", NOTED,
           GET "Connection: X-Forwarded-For, X-Forwarded-Host, X-Forwarded-Proto, Forwarded\r\n\r\n", OK,
           .has = {"X-Forwarded-For: 127.0.0.1", "X-Forwarded-Host: h", "X-Forwarded-Proto: http"}),
    PASSES("nominates-x-request-id", NOTED, GET "Connection: X-Request-ID\r\nX-Request-ID: id.1\r\n\r\n", OK,
           .has = {"X-Request-ID: id.1"}),
    PASSES("nominates-what-a-proxy-adds", NOTED,
           GET "Connection: X-Real-IP, X-SSL-Client-Verify\r\nX-Real-IP: 192.0.2.1\r\nX-SSL-Client-Verify: 0\r\n\r\n",
           OK, .has = {"X-Real-IP: 192.0.2.1", "X-SSL-Client-Verify: 0"}),
    PASSES("nominates-client-id", NOTED, GET "Connection: X-Client-ID\r\nX-Client-ID: me\r\n\r\n", OK,
           .has = {"X-Client-ID: me"}),

    /* Forwarding fields. */
    PASSES("x-forwarded-added", FORWARD, GET "\r\n", OK,
           .has = {"X-Forwarded-For: 127.0.0.1", "X-Forwarded-Host: h", "X-Forwarded-Proto: http"}),
    PASSES("x-forwarded-forged", FORWARD,
           GET "X-Forwarded-For: 9.9.9.9\r\nX-Forwarded-Host: evil\r\nX-Forwarded-Proto: https\r\n"
               "X-Forwarded-Port: 1\r\nForwarded: for=9.9.9.9\r\n\r\n",
           OK, .has = {"X-Forwarded-For: 127.0.0.1", "X-Forwarded-Host: h", "X-Forwarded-Proto: http"},
           .lacks = {"X-Forwarded-Port", "Forwarded"}),
    PASSES("x-forwarded-forged-twice", FORWARD, GET "X-Forwarded-For: 9.9.9.9\r\nX-Forwarded-For: 8.8.8.8\r\n\r\n", OK,
           .has = {"X-Forwarded-For: 127.0.0.1"}),
    PASSES("x-forwarded-forged-with-underscores", FORWARD, GET "X_Forwarded_For: 9.9.9.9\r\n\r\n", OK,
           .has = {"X-Forwarded-For: 127.0.0.1"}, .lacks = {"X_Forwarded_For"}),
    PASSES("x-forwarded-host-of-absolute-form", FORWARD, "GET http://real/a HTTP/1.1\r\nHost: forged\r\n\r\n", OK,
           .has = {"Host: real", "X-Forwarded-Host: real"}),
    PASSES("x-request-id-made", "X-Request-ID on every request", GET "\r\n", OK, .has = {"X-Request-ID: *"}),
    PASSES("x-request-id-not-sane", "X-Request-ID kept if sane", GET "X-Request-ID: a b\r\n\r\n", OK,
           .has = {"X-Request-ID: *"}),
    {"client-id-twice", "X-Client-ID twice is a 400", T(GET "X-Client-ID: a\r\nX-Client-ID: b\r\n\r\n"), .refused = 400,
     .survives = false},

    /* Via, and loops. */
    PASSES("via-added", VIA, GET "\r\n", OK, .has = {"Via: 1.1 loadbalancer"}, .reply_has = {"Via: 1.1 loadbalancer"}),
    PASSES("via-of-1.0", VIA, "GET /a HTTP/1.0\r\nHost: h\r\n\r\n", OK, .has = {"Via: 1.0 loadbalancer"},
           .end = CLOSES),
    PASSES("via-appended", VIA, GET "Via: 1.0 a, 1.1 b (c)\r\nVia: 1.1 d\r\n\r\n", OK,
           .has = {"Via: 1.0 a, 1.1 b (c) | 1.1 d | 1.1 loadbalancer"}),
    PASSES("loop-of-five", "RFC 9110 7.6.3, loops", GET OURS OURS OURS OURS OURS "\r\n", OK),
    {"loop-of-six", "RFC 9110 7.6.3, loops", T(GET OURS OURS OURS OURS OURS OURS "\r\n"), .refused = 508,
     .survives = true},
    {"loop-of-six-in-one-field", "RFC 9110 7.6.3, loops", T(GET "Via: {{1.1 loadbalancer (x), *6}}1.1 a\r\n\r\n"),
     .refused = 508, .survives = true},
    {"loop-by-tabs", "RFC 9110 7.6.3, loops", T(GET "Via: {{1.1\tloadbalancer\t(x), *6}}1.1 a\r\n\r\n"), .refused = 508,
     .survives = true},
    PASSES("loop-of-others", "RFC 9110 7.6.3, loops", GET "Via: {{1.1 other, *9}}1.1 loadbalancers\r\n\r\n", OK),

    /* End-to-end fields stay. */
    PASSES("end-to-end-fields", "RFC 9110 7.6.1",
           GET "Accept: */*\r\nAuthorization: Basic eA==\r\nCookie: a=b\r\nRange: bytes=0-1\r\nIf-None-Match: \"e\"\r\n"
               "Cache-Control: no-cache\r\nOrigin: http://o\r\n\r\n",
           OK,
           .has = {"Accept: */*", "Authorization: Basic eA==", "Cookie: a=b", "Range: bytes=0-1",
                   "If-None-Match: \"e\"", "Cache-Control: no-cache", "Origin: http://o"}),
    PASSES("content-fields", "RFC 9110 8",
           POST "Content-Type: text/plain\r\nContent-Encoding: gzip\r\nContent-Length: 5\r\n\r\nhello", HELLO,
           .has = {"Content-Type: text/plain", "Content-Encoding: gzip"}),
};

TABLE(hops);
