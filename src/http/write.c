/* Pieces of message heads, copied into measured room.
 * Each call checks its room once. */
#include "http/write.h"

/* Room for `n` bytes more, or NULL. */
static char *room(struct head_writer *w, size_t n)
{
    if (w->full || w->cap - w->n < n) {
        w->full = true;
        return NULL;
    }
    char *p = w->p + w->n;
    w->n += n;
    return p;
}

static char *put(char *p, struct str s)
{
    if (s.n > 0)
        memcpy(p, s.p, s.n);
    return p + s.n;
}

#define U64_DIGITS 20u

/* The digits of `v` at the end of `text`. */
static struct str decimal(uint64_t v, char text[U64_DIGITS])
{
    size_t at = U64_DIGITS;

    do
        text[--at] = (char)('0' + v % 10);
    while (v /= 10);
    return str_make(text + at, U64_DIGITS - at);
}

void write_u64(struct head_writer *w, uint64_t v)
{
    char text[U64_DIGITS];

    write_str(w, decimal(v, text));
}

void write_field(struct head_writer *w, struct str name, struct str value)
{
    char *p = room(w, name.n + value.n + 4);

    if (!p)
        return;
    p = put(p, name);
    p = put(p, STR(": "));
    p = put(p, value);
    put(p, STR("\r\n"));
}

void write_field_u64(struct head_writer *w, struct str name, uint64_t value)
{
    char text[U64_DIGITS];

    write_field(w, name, decimal(value, text));
}

void write_status_line(struct head_writer *w, unsigned status, struct str reason)
{
    write_str(w, STR("HTTP/1.1 "));
    write_u64(w, status);
    write_str(w, STR(" "));
    write_str(w, reason.n > 0 ? reason : status_reason(status));
    write_str(w, STR("\r\n"));
}

void write_request_line(struct head_writer *w, struct str method, struct str target)
{
    write_str(w, method);
    write_str(w, STR(" "));
    write_str(w, target);
    write_str(w, STR(" HTTP/1.1\r\n"));
}

void write_end(struct head_writer *w)
{
    write_str(w, STR("\r\n"));
}

/* clang-format off */
#define STATUS_CATALOGUE(X) \
    X(100, "Continue") \
    X(101, "Switching Protocols") \
    X(102, "Processing") \
    X(103, "Early Hints") \
    X(200, "OK") \
    X(201, "Created") \
    X(202, "Accepted") \
    X(203, "Non-Authoritative Information") \
    X(204, "No Content") \
    X(205, "Reset Content") \
    X(206, "Partial Content") \
    X(207, "Multi-Status") \
    X(208, "Already Reported") \
    X(226, "IM Used") \
    X(300, "Multiple Choices") \
    X(301, "Moved Permanently") \
    X(302, "Found") \
    X(303, "See Other") \
    X(304, "Not Modified") \
    X(305, "Use Proxy") \
    X(307, "Temporary Redirect") \
    X(308, "Permanent Redirect") \
    X(400, "Bad Request") \
    X(401, "Unauthorized") \
    X(402, "Payment Required") \
    X(403, "Forbidden") \
    X(404, "Not Found") \
    X(405, "Method Not Allowed") \
    X(406, "Not Acceptable") \
    X(407, "Proxy Authentication Required") \
    X(408, "Request Timeout") \
    X(409, "Conflict") \
    X(410, "Gone") \
    X(411, "Length Required") \
    X(412, "Precondition Failed") \
    X(413, "Content Too Large") \
    X(414, "URI Too Long") \
    X(415, "Unsupported Media Type") \
    X(416, "Range Not Satisfiable") \
    X(417, "Expectation Failed") \
    X(421, "Misdirected Request") \
    X(422, "Unprocessable Content") \
    X(423, "Locked") \
    X(424, "Failed Dependency") \
    X(425, "Too Early") \
    X(426, "Upgrade Required") \
    X(428, "Precondition Required") \
    X(429, "Too Many Requests") \
    X(431, "Request Header Fields Too Large") \
    X(451, "Unavailable For Legal Reasons") \
    X(500, "Internal Server Error") \
    X(501, "Not Implemented") \
    X(502, "Bad Gateway") \
    X(503, "Service Unavailable") \
    X(504, "Gateway Timeout") \
    X(505, "HTTP Version Not Supported") \
    X(506, "Variant Also Negotiates") \
    X(507, "Insufficient Storage") \
    X(508, "Loop Detected") \
    X(511, "Network Authentication Required")
/* clang-format on */

struct str status_reason(unsigned status)
{
    switch (status) {
#define X(code, reason)                                                                                                \
    case code: return STR(reason);
        STATUS_CATALOGUE(X)
#undef X
    default: return STR("Unknown");
    }
}
