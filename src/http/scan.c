/* The strict scan of a raw head: it alone decides what a line is.
 * One pass over the bytes in their order, so the verdict does not depend on how they were split. */
#include "http/chars.h"
#include "http/parse.h"

#include <string.h>

#define EMPTY_LINES_MAX 4u
#define METHOD_MAX      32u /* longer than any method there is */

/* What the next byte belongs to; kept in head_scan.part. */
enum part {
    PART_START, /* nothing but empty lines so far */
    PART_EMPTY_LINE_LF,
    PART_METHOD,
    PART_TARGET,
    PART_VERSION,
    PART_STATUS, /* version and status code */
    PART_REASON,
    PART_LINE_LF,
    PART_LINE, /* the first byte of a field line or of the empty line */
    PART_NAME,
    PART_VALUE,
    PART_LAST_LF,
    PART_DONE
};

bool head_has_begun(const struct head_scan *s)
{
    return s->part > PART_EMPTY_LINE_LF;
}

/* The bytes at hand and where the scan stands in them. */
struct cursor {
    struct head_scan *s;
    const char *p;
    size_t end; /* of the bytes that may be looked at */
    const struct head_limits *limits;
};

static enum err unless_line_end(char c, enum err fault)
{
    return c == '\n' ? ERR_BAD_LINE_END : fault;
}

/* Consumes the byte at hand; the part that follows begins behind it. */
static enum err enter(struct cursor *c, enum part part)
{
    c->s->at++;
    c->s->mark = c->s->at;
    c->s->part = (unsigned char)part;
    return ERR_OK;
}

/* Consumes bytes of `class` up to `end`; true when there is one behind them to be judged. The scan may be past `end`
 * already, where a limit has become smaller on the way. */
__attribute__((always_inline)) static inline bool run(struct cursor *c, enum char_class class, size_t end)
{
    if (c->s->at >= end)
        return false;
    c->s->at += chars_run(c->p + c->s->at, end - c->s->at, class);
    return c->s->at < end;
}

static enum err scan_start(struct cursor *c, enum head_kind kind)
{
    struct head_scan *s = c->s;

    if (kind == HEAD_REQUEST && c->p[s->at] == '\r') {
        if (s->skip == 2 * EMPTY_LINES_MAX)
            return ERR_BAD_REQUEST_LINE;
        return enter(c, PART_EMPTY_LINE_LF);
    }
    s->part = kind == HEAD_REQUEST ? PART_METHOD : PART_STATUS;
    return ERR_OK;
}

static enum err scan_lf(struct cursor *c, enum part next)
{
    return c->p[c->s->at] == '\n' ? enter(c, next) : ERR_BAD_LINE_END;
}

static enum err scan_empty_line_lf(struct cursor *c)
{
    enum err e = scan_lf(c, PART_START);
    c->s->skip = c->s->at;
    return e;
}

static enum err scan_method(struct cursor *c)
{
    size_t most = c->s->mark + METHOD_MAX + 1;
    bool judged = run(c, CHAR_TOKEN, most < c->end ? most : c->end);

    if (c->s->at - c->s->mark > METHOD_MAX)
        return ERR_NOT_IMPLEMENTED; /* RFC 9112 section 3 */
    if (!judged)
        return ERR_OK;
    if (c->p[c->s->at] == ' ' && c->s->at > c->s->mark)
        return enter(c, PART_TARGET);
    return unless_line_end(c->p[c->s->at], ERR_BAD_REQUEST_LINE);
}

static enum err scan_target(struct cursor *c)
{
    size_t left = c->end - c->s->mark, most = c->limits->target_bytes;
    bool judged = run(c, CHAR_VISIBLE, left > most ? c->s->mark + most + 1 : c->end);

    if (c->s->at - c->s->mark > most)
        return ERR_TARGET_TOO_LONG;
    if (!judged)
        return ERR_OK;
    char byte = c->p[c->s->at];
    if (byte == ' ')
        return c->s->at > c->s->mark ? enter(c, PART_VERSION) : ERR_BAD_REQUEST_LINE;
    return unless_line_end(byte, byte == '\r' ? ERR_BAD_REQUEST_LINE : ERR_BAD_TARGET);
}

/* Consumes what agrees with `pattern`, in which a zero stands for any digit. False at a byte that does not. */
static bool scan_pattern(struct cursor *c, struct str pattern)
{
    static const char usual[] = {'H', 'T', 'T', 'P', '/', '1', '.', '1'};
    struct head_scan *s = c->s;

    /* What nearly every start line says agrees with both patterns, and is one comparison. */
    if (s->at == s->mark && c->end - s->at >= sizeof usual && memcmp(c->p + s->at, usual, sizeof usual) == 0)
        s->at += sizeof usual;
    for (; s->at < c->end && s->at - s->mark < pattern.n; s->at++) {
        char wanted = pattern.p[s->at - s->mark];
        if (wanted == '0' ? !char_is(c->p[s->at], CHAR_DIGIT) : c->p[s->at] != wanted)
            return false;
    }
    return true;
}

static enum err scan_version(struct cursor *c)
{
    struct head_scan *s = c->s;
    struct str pattern = STR("HTTP/0.0");

    if (!scan_pattern(c, pattern))
        return unless_line_end(c->p[s->at], ERR_BAD_REQUEST_LINE);
    if (s->at - s->mark < pattern.n || s->at == c->end)
        return ERR_OK;
    if (c->p[s->at] == '\r')
        return enter(c, PART_LINE_LF);
    return unless_line_end(c->p[s->at], ERR_BAD_REQUEST_LINE);
}

static enum err scan_status(struct cursor *c)
{
    struct head_scan *s = c->s;
    struct str pattern = STR("HTTP/0.0 000");

    if (!scan_pattern(c, pattern))
        return ERR_BAD_RESPONSE;
    if (s->at - s->mark < pattern.n || s->at == c->end)
        return ERR_OK;
    if (c->p[s->at] == '\r') /* servers leave the space before an empty reason out */
        return enter(c, PART_LINE_LF);
    return c->p[s->at] == ' ' ? enter(c, PART_REASON) : ERR_BAD_RESPONSE;
}

/* Consumes field lines that are at hand whole, as nearly all are, and well formed. All others are left to be judged
 * part by part, from their first byte on. */
static void scan_whole_lines(struct cursor *c)
{
    const char *p = c->p;
    size_t at = c->s->at, end = c->end;

    while (c->s->lines <= c->limits->fields) {
        size_t name = chars_run(p + at, end - at, CHAR_TOKEN);
        at += name;
        if (name == 0 || at == end || p[at] != ':')
            return;
        at++;
        at += chars_run(p + at, end - at, CHAR_FIELD);
        if (end - at < 2 || p[at] != '\r' || p[at + 1] != '\n')
            return;
        at += 2;
        c->s->at = c->s->mark = at;
        c->s->lines++;
    }
}

/* The first byte of a line behind the start line. */
static enum err scan_line(struct cursor *c)
{
    scan_whole_lines(c);
    if (c->s->at == c->end)
        return ERR_OK;
    char byte = c->p[c->s->at];

    if (byte == '\r')
        return enter(c, PART_LAST_LF);
    if (c->s->lines > c->limits->fields)
        return ERR_HEAD_TOO_LARGE;
    if (!char_is(byte, CHAR_TOKEN)) /* white space is obs-fold, or stands before the first field */
        return unless_line_end(byte, ERR_BAD_FIELD);
    return enter(c, PART_NAME);
}

static enum err scan_name(struct cursor *c)
{
    if (!run(c, CHAR_TOKEN, c->end))
        return ERR_OK;
    char byte = c->p[c->s->at];
    return byte == ':' ? enter(c, PART_VALUE) : unless_line_end(byte, ERR_BAD_FIELD);
}

/* A field's value, or a reason phrase. */
static enum err scan_value(struct cursor *c)
{
    if (!run(c, CHAR_FIELD, c->end))
        return ERR_OK;
    char byte = c->p[c->s->at];
    return byte == '\r' ? enter(c, PART_LINE_LF) : unless_line_end(byte, ERR_BAD_FIELD);
}

static enum err scan_line_lf(struct cursor *c)
{
    c->s->lines++;
    return scan_lf(c, PART_LINE);
}

static enum err scan_part(struct cursor *c, enum head_kind kind)
{
    switch ((enum part)c->s->part) {
    case PART_START: return scan_start(c, kind);
    case PART_EMPTY_LINE_LF: return scan_empty_line_lf(c);
    case PART_METHOD: return scan_method(c);
    case PART_TARGET: return scan_target(c);
    case PART_VERSION: return scan_version(c);
    case PART_STATUS: return scan_status(c);
    case PART_LINE_LF: return scan_line_lf(c);
    case PART_LINE: return scan_line(c);
    case PART_NAME: return scan_name(c);
    case PART_REASON:
    case PART_VALUE: return scan_value(c);
    case PART_LAST_LF: return scan_lf(c, PART_DONE);
    case PART_DONE: break;
    }
    return ERR_OK;
}

static enum scan_status refuse(enum head_kind kind, enum err fault, enum err *e)
{
    if (kind == HEAD_RESPONSE)
        fault = fault == ERR_HEAD_TOO_LARGE ? ERR_RESPONSE_HEAD_TOO_LARGE : ERR_BAD_RESPONSE;
    *e = fault;
    return SCAN_BAD;
}

enum scan_status head_scan(struct head_scan *s, enum head_kind kind, struct str data, const struct head_limits *limits,
                           enum err *e)
{
    struct cursor c = {s, data.p, data.n < limits->head_bytes ? data.n : limits->head_bytes, limits};

    while (s->at < c.end && s->part != PART_DONE) {
        enum err fault = scan_part(&c, kind);
        if (fault != ERR_OK)
            return refuse(kind, fault, e);
    }
    if (s->part == PART_DONE)
        return SCAN_DONE;
    if (s->at >= limits->head_bytes) /* the end is still to come, so it can only be over the limit */
        return refuse(kind, s->part == PART_TARGET ? ERR_TARGET_TOO_LONG : ERR_HEAD_TOO_LARGE, e);
    return SCAN_MORE;
}
