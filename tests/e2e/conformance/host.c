/* Cases: the Host field. */
#include "conformance/tables.h"

#define HOST   "RFC 9112 3.2"
#define SYNTAX "RFC 9110 7.2"
#define GET    "GET /a HTTP/1.1\r\n"
#define OK     "GET /a HTTP/1.1"

static const struct conformance host_cases[] = {
    PASSES("host-name", SYNTAX, GET "Host: example.org\r\n\r\n", .line = OK, .has = {"Host: example.org"}),
    PASSES("host-name-and-port", SYNTAX, GET "Host: example.org:8080\r\n\r\n", .line = OK,
           .has = {"Host: example.org:8080"}),
    PASSES("host-spelling-kept", SYNTAX, GET "hOsT: Example.ORG\r\n\r\n", .line = OK, .has = {"Host: Example.ORG"}),
    PASSES("host-ipv4", SYNTAX, GET "Host: 127.0.0.1\r\n\r\n", .line = OK, .has = {"Host: 127.0.0.1"}),
    PASSES("host-ipv6", SYNTAX, GET "Host: [2001:db8::1]\r\n\r\n", .line = OK, .has = {"Host: [2001:db8::1]"}),
    PASSES("host-ipv6-and-port", SYNTAX, GET "Host: [::1]:80\r\n\r\n", .line = OK, .has = {"Host: [::1]:80"}),
    PASSES("host-empty-port", "RFC 3986 3.2.3", GET "Host: h:\r\n\r\n", .line = OK, .has = {"Host: h:"}),
    PASSES("host-empty", HOST, GET "Host:\r\n\r\n", .line = OK, .has = {"Host: "}),
    PASSES("host-with-underscore", "RFC 3986 3.2.2", GET "Host: a_b.example\r\n\r\n", .line = OK,
           .has = {"Host: a_b.example"}),
    PASSES("host-percent-encoded", "RFC 3986 3.2.2", GET "Host: a%41b\r\n\r\n", .line = OK, .has = {"Host: a%41b"}),
    PASSES("host-space-around", "RFC 9112 5.1", GET "Host: \t h \t\r\n\r\n", .line = OK, .has = {"Host: h"}),
    PASSES("host-behind-other-fields", HOST, GET "A: b\r\nHost: h\r\n\r\n", .line = OK, .has = {"Host: h", "A: b"}),
    PASSES("host-missing-in-1.0", "RFC 9112 3.3", "GET /a HTTP/1.0\r\n\r\n", .line = OK, .has = {"Host: *"},
           .end = CLOSES),
    REFUSED("host-missing", HOST, 400, GET "\r\n"),
    REFUSED("host-missing-in-1.2", HOST, 400, "GET /a HTTP/1.2\r\n\r\n"),
    REFUSED("host-twice", HOST, 400, GET "Host: h\r\nHost: h\r\n\r\n"),
    REFUSED("host-twice-different", HOST, 400, GET "Host: h\r\nHost: i\r\n\r\n"),
    REFUSED("host-twice-apart", HOST, 400, GET "Host: h\r\nA: b\r\nhost: h\r\n\r\n"),
    REFUSED("host-twice-once-empty", HOST, 400, GET "Host: h\r\nHost:\r\n\r\n"),
    REFUSED("host-twice-in-1.0", HOST, 400, "GET /a HTTP/1.0\r\nHost: h\r\nHost: i\r\n\r\n"),
    REFUSED("host-with-space", HOST, 400, GET "Host: a b\r\n\r\n"),
    REFUSED("host-with-tab", HOST, 400, GET "Host: a\tb\r\n\r\n"),
    REFUSED("host-list", HOST, 400, GET "Host: a, b\r\n\r\n"),
    REFUSED("host-with-comma", HOST, 400, GET "Host: a,b\r\n\r\n"),
    REFUSED("host-with-userinfo", HOST, 400, GET "Host: user@h\r\n\r\n"),
    REFUSED("host-with-password", HOST, 400, GET "Host: user:pw@h\r\n\r\n"),
    REFUSED("host-with-path", HOST, 400, GET "Host: h/path\r\n\r\n"),
    REFUSED("host-with-query", HOST, 400, GET "Host: h?q\r\n\r\n"),
    REFUSED("host-with-fragment", HOST, 400, GET "Host: h#f\r\n\r\n"),
    REFUSED("host-with-backslash", HOST, 400, GET "Host: h\\x\r\n\r\n"),
    REFUSED("host-with-quotes", HOST, 400, GET "Host: \"h\"\r\n\r\n"),
    REFUSED("host-with-brace", HOST, 400, GET "Host: a{b\r\n\r\n"),
    REFUSED("host-is-a-url", HOST, 400, GET "Host: http://h/\r\n\r\n"),
    REFUSED("host-two-ports", HOST, 400, GET "Host: h:80:80\r\n\r\n"),
    REFUSED("host-port-is-a-word", HOST, 400, GET "Host: h:http\r\n\r\n"),
    REFUSED("host-port-negative", HOST, 400, GET "Host: h:-1\r\n\r\n"),
    REFUSED("host-port-65536", HOST, 400, GET "Host: h:65536\r\n\r\n"),
    REFUSED("host-port-overflows", HOST, 400, GET "Host: h:18446744073709551696\r\n\r\n"),
    REFUSED("host-port-alone", HOST, 400, GET "Host: :80\r\n\r\n"),
    REFUSED("host-ipv6-unclosed", HOST, 400, GET "Host: [::1\r\n\r\n"),
    REFUSED("host-ipv6-without-brackets", HOST, 400, GET "Host: ::1\r\n\r\n"),
    REFUSED("host-ipv6-and-letters", HOST, 400, GET "Host: [::1]x\r\n\r\n"),
    REFUSED("host-ipv6-malformed", HOST, 400, GET "Host: [1:2:3]\r\n\r\n"),
    REFUSED("host-half-percent", HOST, 400, GET "Host: a%4\r\n\r\n"),
    REFUSED("host-with-control-byte", HOST, 400, GET "Host: h\x01\r\n\r\n"),
    REFUSED("host-with-nul", HOST, 400, GET "Host: h\0i\r\n\r\n"),
    REFUSED("host-with-8-bit-byte", HOST, 400, GET "Host: h\xe4\r\n\r\n"),
    REFUSED("host-folded", "RFC 9112 5.2", 400, GET "Host: h\r\n i\r\n\r\n"),
    REFUSED("host-space-before-colon", "RFC 9112 5.1", 400, GET "Host : h\r\n\r\n"),
};

TABLE(host);
