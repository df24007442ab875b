/* Cases: the request line, its target, and the method. */
#include "conformance/tables.h"

#define END       "\r\nHost: h\r\n\r\n"
#define LINE      "RFC 9112 3"
#define VERSION   "RFC 9112 2.3"
#define TARGET    "RFC 9112 3.2"
#define ORIGIN    "RFC 9112 3.2.1"
#define ABSOLUTE  "RFC 9112 3.2.2"
#define AUTHORITY "RFC 9112 3.2.3"
#define ASTERISK  "RFC 9112 3.2.4"
#define LIMITS    "RFC 9112 3, limits"
#define ALLOW                                                                                                          \
    {                                                                                                                  \
        "Allow: *"                                                                                                     \
    }

static const struct conformance request_line_cases[] = {
    PASSES("plain-get", LINE, "GET /a HTTP/1.1" END, .line = "GET /a HTTP/1.1", .has = {"Host: h"}),
    REFUSED("two-spaces-before-target", LINE, 400, "GET  / HTTP/1.1" END),
    REFUSED("two-spaces-before-version", LINE, 400, "GET /  HTTP/1.1" END),
    REFUSED("space-behind-version", LINE, 400, "GET / HTTP/1.1 " END),
    REFUSED("tab-behind-version", LINE, 400, "GET / HTTP/1.1\t" END),
    REFUSED("space-before-method", LINE, 400, " GET / HTTP/1.1" END),
    REFUSED("tab-before-target", LINE, 400, "GET\t/ HTTP/1.1" END),
    REFUSED("tab-before-version", LINE, 400, "GET /\tHTTP/1.1" END),
    REFUSED("vertical-tab-before-version", LINE, 400, "GET /\x0bHTTP/1.1" END),
    REFUSED("no-target", LINE, 400, "GET HTTP/1.1" END),
    REFUSED("empty-target", LINE, 400, "GET  HTTP/1.1" END),
    REFUSED("four-words", LINE, 400, "GET / HTTP/1.1 x" END),
    REFUSED("second-version", LINE, 400, "GET / HTTP/1.1 HTTP/1.1" END),
    REFUSED("space-in-target", TARGET, 400, "GET /a b HTTP/1.1" END),
    REFUSED("space-in-query", TARGET, 400, "GET /?a=b c HTTP/1.1" END),
    REFUSED("line-ends-in-lf", "RFC 9112 2.2", 400, "GET / HTTP/1.1\nHost: h\r\n\r\n"),
    REFUSED("line-ends-in-cr", "RFC 9112 2.2", 400, "GET / HTTP/1.1\rHost: h\r\n\r\n"),
    REFUSED("line-ends-in-cr-cr-lf", "RFC 9112 2.2", 400, "GET / HTTP/1.1\r\r\nHost: h\r\n\r\n"),
    REFUSED("cr-in-target", "RFC 9112 2.2", 400, "GET /\rx HTTP/1.1" END),
    REFUSED("lf-behind-method", "RFC 9112 2.2", 400, "GET\n/ HTTP/1.1" END),
    REFUSED("tls-hello", LINE, 400, "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"),
    REFUSED("status-line", LINE, 400, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),

    /* Empty lines in front: a few. */
    PASSES("one-empty-line", "RFC 9112 2.2", "\r\nGET /a HTTP/1.1" END, .line = "GET /a HTTP/1.1"),
    PASSES("two-empty-lines", "RFC 9112 2.2", "\r\n\r\nGET /a HTTP/1.1" END, .line = "GET /a HTTP/1.1"),
    REFUSED("many-empty-lines", "RFC 9112 2.2", 400, "{{\r\n*20}}GET /a HTTP/1.1" END),
    REFUSED("empty-line-of-lf", "RFC 9112 2.2", 400, "\nGET / HTTP/1.1" END),
    REFUSED("empty-line-of-cr", "RFC 9112 2.2", 400, "\rGET / HTTP/1.1" END),
    REFUSED("empty-line-of-space", "RFC 9112 2.2", 400, " \r\nGET / HTTP/1.1" END),

    /* Versions. */
    REFUSED("no-version", VERSION, 400, "GET /\r\n\r\n"),
    REFUSED("no-version-but-space", VERSION, 400, "GET / \r\nHost: h\r\n\r\n"),
    REFUSED("version-0.9", VERSION, 505, "GET / HTTP/0.9" END),
    REFUSED("version-in-lower-case", VERSION, 400, "GET / http/1.1" END),
    REFUSED("version-1.10", VERSION, 400, "GET / HTTP/1.10" END),
    REFUSED("version-01.1", VERSION, 400, "GET / HTTP/01.1" END),
    REFUSED("version-1", VERSION, 400, "GET / HTTP/1" END),
    REFUSED("version-1.", VERSION, 400, "GET / HTTP/1." END),
    REFUSED("version-.1", VERSION, 400, "GET / HTTP/.1" END),
    REFUSED("version-with-comma", VERSION, 400, "GET / HTTP/1,1" END),
    REFUSED("version-signed", VERSION, 400, "GET / HTTP/+1.1" END),
    REFUSED("version-1.x", VERSION, 400, "GET / HTTP/1.x" END),
    REFUSED("version-with-space", VERSION, 400, "GET / HTTP/ 1.1" END),
    REFUSED("version-of-another-name", VERSION, 400, "GET / HTTPS/1.1" END),
    REFUSED("version-prefixed", VERSION, 400, "GET / XHTTP/1.1" END),
    REFUSED("version-behind-nul", VERSION, 400, "GET / \0HTTP/1.1" END),
    REFUSED("version-2.0", VERSION, 505, "GET / HTTP/2.0" END),
    REFUSED("version-3.0", VERSION, 505, "GET / HTTP/3.0" END),
    REFUSED("version-9.9", VERSION, 505, "GET / HTTP/9.9" END),
    REFUSED("http2-preface", "RFC 9113 3.4", 505, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    PASSES("version-1.2", VERSION, "GET /a HTTP/1.2" END, .line = "GET /a HTTP/1.1"),
    PASSES("version-1.9", VERSION, "GET /a HTTP/1.9" END, .line = "GET /a HTTP/1.1"),

    /* Methods. */
    REFUSED("connect", "RFC 9110 9.3.6", 501, "CONNECT h:443 HTTP/1.1\r\nHost: h:443\r\n\r\n"),
    REFUSED("connect-with-a-path", "RFC 9110 9.3.6", 501, "CONNECT / HTTP/1.1" END),
    {"trace", "RFC 9110 9.3.8", T("TRACE / HTTP/1.1" END), .refused = 405, .reply_has = ALLOW},
    REFUSED("method-unknown", "RFC 9110 9.1", 501, "BREW / HTTP/1.1" END),
    REFUSED("method-in-lower-case", "RFC 9110 9.1", 501, "get / HTTP/1.1" END),
    REFUSED("method-with-odd-token-bytes", "RFC 9110 9.1", 501, "G!#$%&'*+-.^`|~T / HTTP/1.1" END),
    REFUSED("method-too-long", LINE, 501, "{{A*300}} / HTTP/1.1" END),
    REFUSED("method-no-token", "RFC 9110 9.1", 400, "GE(T / HTTP/1.1" END),
    REFUSED("method-with-slash", "RFC 9110 9.1", 400, "G/T / HTTP/1.1" END),
    REFUSED("method-with-colon", "RFC 9110 9.1", 400, "GET: / HTTP/1.1" END),
    REFUSED("method-with-8-bit-byte", "RFC 9110 9.1", 400, "G\x80T / HTTP/1.1" END),
    REFUSED("method-with-nul", "RFC 9110 9.1", 400, "G\0T / HTTP/1.1" END),
    PASSES("delete", "RFC 9110 9.3.5", "DELETE /a HTTP/1.1" END, .line = "DELETE /a HTTP/1.1"),
    PASSES("patch", "RFC 5789 2", "PATCH /a HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nab",
           .line = "PATCH /a HTTP/1.1", .content = T("ab")),
    PASSES("propfind", "RFC 4918 9.1", "PROPFIND /a HTTP/1.1" END, .line = "PROPFIND /a HTTP/1.1"),

    /* Targets. */
    PASSES("target-kept-as-it-is", ORIGIN, "GET /a//b/../%7e/%2E;p?q=%20+&r=/?|~ HTTP/1.1" END,
           .line = "GET /a//b/../%7e/%2E;p?q=%20+&r=/?|~ HTTP/1.1"),
    PASSES("target-of-two-slashes", ORIGIN, "GET //h/x HTTP/1.1" END, .line = "GET //h/x HTTP/1.1"),
    PASSES("target-with-encoded-nul", ORIGIN, "GET /%00 HTTP/1.1" END, .line = "GET /%00 HTTP/1.1"),
    REFUSED("target-without-slash", ORIGIN, 400, "GET index.html HTTP/1.1" END),
    REFUSED("target-of-query-alone", ORIGIN, 400, "GET ?q HTTP/1.1" END),
    REFUSED("target-with-fragment", TARGET, 400, "GET /#f HTTP/1.1" END),
    REFUSED("target-with-control-byte", TARGET, 400, "GET /\x01 HTTP/1.1" END),
    REFUSED("target-with-del", TARGET, 400, "GET /\x7f HTTP/1.1" END),
    REFUSED("target-with-nul", TARGET, 400, "GET /\0 HTTP/1.1" END),
    REFUSED("target-with-8-bit-bytes", TARGET, 400, "GET /\xc3\xa9 HTTP/1.1" END),
    REFUSED("target-in-authority-form", AUTHORITY, 400, "GET h:80 HTTP/1.1" END),
    REFUSED("target-asterisk-for-get", ASTERISK, 400, "GET * HTTP/1.1" END),
    REFUSED("target-asterisk-and-more", ASTERISK, 400, "OPTIONS *x HTTP/1.1" END),
    PASSES("target-asterisk", ASTERISK, "OPTIONS * HTTP/1.1" END, .line = "OPTIONS * HTTP/1.1"),
    PASSES("options-of-a-path", "RFC 9110 9.3.7", "OPTIONS /a HTTP/1.1" END, .line = "OPTIONS /a HTTP/1.1"),
    PASSES("absolute-form", ABSOLUTE, "GET http://h/x?y HTTP/1.1" END, .line = "GET /x?y HTTP/1.1", .has = {"Host: h"}),
    PASSES("absolute-form-overrides-host", ABSOLUTE, "GET http://other.example:81/x HTTP/1.1" END,
           .line = "GET /x HTTP/1.1", .has = {"Host: other.example:81"}),
    PASSES("absolute-form-without-path", ABSOLUTE, "GET http://h HTTP/1.1" END, .line = "GET / HTTP/1.1"),
    PASSES("absolute-form-with-query-alone", ABSOLUTE, "GET http://h?q HTTP/1.1" END, .line = "GET /?q HTTP/1.1"),
    PASSES("absolute-form-scheme-in-upper-case", "RFC 3986 3.1", "GET HTTP://h/x HTTP/1.1" END,
           .line = "GET /x HTTP/1.1"),
    PASSES("absolute-form-of-options", ASTERISK, "OPTIONS http://h HTTP/1.1" END, .line = "OPTIONS * HTTP/1.1"),
    PASSES("absolute-form-ipv6", ABSOLUTE, "GET http://[::1]:8080/x HTTP/1.1" END, .line = "GET /x HTTP/1.1",
           .has = {"Host: [::1]:8080"}),
    PASSES("absolute-form-in-1.0-without-host", ABSOLUTE, "GET http://h/x HTTP/1.0\r\n\r\n", .line = "GET /x HTTP/1.1",
           .has = {"Host: h"}, .end = CLOSES),
    REFUSED("absolute-form-without-host", TARGET, 400, "GET http://h/x HTTP/1.1\r\n\r\n"),
    REFUSED("absolute-form-with-bad-host", TARGET, 400, "GET http://h/x HTTP/1.1\r\nHost: a b\r\n\r\n"),
    REFUSED("absolute-form-other-scheme", ABSOLUTE, 400, "GET ftp://h/x HTTP/1.1" END),
    REFUSED("absolute-form-with-userinfo", "RFC 9110 4.2.4", 400, "GET http://u@h/x HTTP/1.1" END),
    REFUSED("absolute-form-empty-host", "RFC 9110 4.2.1", 400, "GET http:///x HTTP/1.1" END),
    REFUSED("absolute-form-port-alone", "RFC 9110 4.2.1", 400, "GET http://:80/x HTTP/1.1" END),
    REFUSED("absolute-form-bad-port", "RFC 3986 3.2.3", 400, "GET http://h:99999/x HTTP/1.1" END),
    REFUSED("absolute-form-with-fragment", "RFC 9110 7.1", 400, "GET http://h/x#f HTTP/1.1" END),
    REFUSED("absolute-form-one-slash", ABSOLUTE, 400, "GET http:/h/x HTTP/1.1" END),

    /* Limits: 8 KiB for the target. */
    PASSES("target-at-its-limit", LIMITS, "GET /{{a*8191}} HTTP/1.1" END, .line = "GET /{{a*8191}} HTTP/1.1"),
    REFUSED("target-over-its-limit", LIMITS, 414, "GET /{{a*8192}} HTTP/1.1" END),
    REFUSED("target-that-never-ends", LIMITS, 414, "GET /{{a*20000}}"),
};

TABLE(request_line);
