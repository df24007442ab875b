/* One request of the load. Answers are read by the harness's second reader of HTTP. */
#include "call.h"

#include "harness/reference.h"

#include <stdio.h>
#include <string.h>

#define BODY_TEXT "some content that has to arrive once and whole"

const char *outcome_name(enum outcome o)
{
    static const char *const names[CALL_OUTCOMES] = {
        [CALL_PENDING] = "pending", [CALL_OK] = "ok",
        [CALL_502] = "502",         [CALL_503] = "503",
        [CALL_504] = "504",         [CALL_OTHER] = "other status",
        [CALL_REFUSED] = "refused", [CALL_NO_ANSWER] = "no answer",
        [CALL_CUT] = "cut",         [CALL_LATE] = "late",
        [CALL_WRONG] = "wrong",
    };

    return names[o];
}

bool call_is_idempotent(enum call_kind kind)
{
    return kind != CALL_POST;
}

void call_write(struct bytes *out, enum call_kind kind, unsigned serial, bool close)
{
    static const char *const lines[] = {
        [CALL_SHOW] = "GET /", [CALL_BYTES] = "GET /bytes/", [CALL_CHUNKED] = "GET /chunked/",
        [CALL_PUT] = "PUT /",  [CALL_POST] = "POST /",
    };
    bool sized = kind == CALL_BYTES || kind == CALL_CHUNKED, bodied = kind == CALL_PUT || kind == CALL_POST;

    bytes_addf(out, "%s", lines[kind]);
    if (sized)
        bytes_addf(out, "%u", CALL_CONTENT);
    bytes_addf(out, " HTTP/1.1\r\nHost: chaos\r\nX-Request-ID: chaos-%u\r\n", serial);
    if (close)
        bytes_addf(out, "Connection: close\r\n");
    if (bodied)
        bytes_addf(out, "Content-Length: %zu\r\n", strlen(BODY_TEXT));
    bytes_addf(out, "\r\n%s", bodied ? BODY_TEXT : "");
}

/* The demo backend's bytes: byte i is '!' + i % 89. */
static bool is_pattern(const char *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (p[i] != (char)('!' + i % 89))
            return false;
    return n == CALL_CONTENT;
}

static bool is_shown(enum call_kind kind, const char *p, size_t n)
{
    char body[48];

    snprintf(body, sizeof body, "],\"body_bytes\":%zu,\"", kind == CALL_SHOW ? (size_t)0 : strlen(BODY_TEXT));
    return n > 14 && memcmp(p, "{\"backend\":\"b", 13) == 0 && memcmp(p + n - 2, "}\n", 2) == 0 &&
           memmem(p, n, body, strlen(body)) != NULL;
}

static bool is_right(enum call_kind kind, const struct reference *r)
{
    if (kind == CALL_BYTES || kind == CALL_CHUNKED)
        return is_pattern(r->content, r->content_n);
    return is_shown(kind, r->content, r->content_n);
}

static enum outcome outcome_of(enum call_kind kind, const struct reference *r)
{
    switch (r->status) {
    case 200: return is_right(kind, r) ? CALL_OK : CALL_WRONG;
    case 502: return CALL_502;
    case 503: return CALL_503;
    case 504: return CALL_504;
    default: return CALL_OTHER;
    }
}

static int backend_of(const struct reference *r)
{
    for (unsigned i = 0; i < r->field_count; i++) {
        struct span v = r->fields[i].value;

        if (span_is_nocase(r->fields[i].name, "X-Backend") && v.n == 2 && v.p[0] == 'b' && v.p[1] >= '1')
            return v.p[1] - '1';
    }
    return -1;
}

struct answer call_judge(enum call_kind kind, const struct bytes *in, bool ended, bool reset)
{
    static const struct reference_limits limits = {.head_bytes = 65536, .target_bytes = 8192, .fields = 100};
    struct answer a = {.outcome = CALL_PENDING, .backend = -1};
    struct reference r;

    if (in->n == 0) {
        a.outcome = ended ? CALL_NO_ANSWER : CALL_PENDING;
        return a;
    }
    reference_read_response(&r, in->p, in->n, false, ended && !reset, &limits);
    a.backend = backend_of(&r);
    a.last = r.last || r.used < in->n;
    if (r.verdict == REFERENCE_FORWARD)
        a.outcome = outcome_of(kind, &r);
    else if (r.verdict == REFERENCE_REFUSE)
        a.outcome = CALL_WRONG;
    else if (ended)
        a.outcome = r.head_whole ? CALL_CUT : CALL_NO_ANSWER;
    reference_free(&r);
    return a;
}
