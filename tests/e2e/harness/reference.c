/* Lines, and from them a request: RFC 9112 sections 2 to 5. */
#include "harness/reference.h"

#include "reference_impl.h"

#include <stdlib.h>
#include <string.h>

static const int statuses[] = {400, 405, 408, 414, 417, 431, 501, 505, 508};

bool reference_accepts(const struct reference *r, int status)
{
    unsigned set = r->verdict == REFERENCE_FORWARD ? r->may_refuse : r->statuses;

    for (size_t i = 0; i < sizeof statuses / sizeof *statuses; i++)
        if (statuses[i] == status)
            return set >> i & 1;
    return false;
}

void reference_fault(struct reference *r, unsigned set, const char *why)
{
    r->statuses |= set;
    if (!*r->why)
        r->why = why;
}

/* ---- spans ---- */

static char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c + ('a' - 'A')) : c;
}

bool span_eq(struct span a, struct span b)
{
    return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

bool span_eq_nocase(struct span a, struct span b)
{
    size_t same = 0;

    while (same < a.n && same < b.n && lower(a.p[same]) == lower(b.p[same]))
        same++;
    return same == a.n && same == b.n;
}

bool span_is(struct span s, const char *text)
{
    return span_eq(s, (struct span){text, strlen(text)});
}

bool span_is_nocase(struct span s, const char *text)
{
    return span_eq_nocase(s, (struct span){text, strlen(text)});
}

struct span reference_trim(struct span s)
{
    while (s.n > 0 && (s.p[0] == ' ' || s.p[0] == '\t'))
        s = span_from(s, 1);
    while (s.n > 0 && (s.p[s.n - 1] == ' ' || s.p[s.n - 1] == '\t'))
        s.n--;
    return s;
}

bool reference_element(struct span *list, struct span *element)
{
    while (list->n > 0) {
        const char *comma = memchr(list->p, ',', list->n);
        size_t n = comma ? (size_t)(comma - list->p) : list->n;

        *element = reference_trim((struct span){list->p, n});
        *list = span_from(*list, comma ? n + 1 : n);
        if (element->n > 0)
            return true;
    }
    return false;
}

unsigned reference_find(const struct reference *r, const char *name, struct span *value)
{
    unsigned count = 0;

    for (unsigned i = 0; i < r->field_count; i++) {
        if (!span_is_nocase(r->fields[i].name, name))
            continue;
        if (count++ == 0 && value)
            *value = r->fields[i].value;
    }
    return count;
}

/* RFC 9110 section 5.6.2. */
bool reference_is_tchar(char c)
{
    return is_digit(c) || is_alpha(c) || (c != '\0' && strchr("!#$%&'*+-.^_`|~", c));
}

bool reference_is_token(struct span s)
{
    for (size_t i = 0; i < s.n; i++)
        if (!reference_is_tchar(s.p[i]))
            return false;
    return s.n > 0;
}

/* ---- lines ---- */

enum line_result reference_line(struct reader *in, struct span *line)
{
    for (size_t at = in->at; at < in->n; at++) {
        unsigned char c = (unsigned char)in->p[at];

        if (c == '\r' && at + 1 == in->n)
            return LINE_MORE;
        if (c == '\r' && in->p[at + 1] == '\n') {
            *line = (struct span){in->p + in->at, at - in->at};
            in->at = at + 2;
            return LINE_WHOLE;
        }
        if (c == 0x7f || (c < 0x20 && c != '\t'))
            return LINE_BAD;
    }
    return LINE_MORE;
}

/* field-line = field-name ":" OWS field-value OWS (RFC 9112 section 5); the bytes of the value are the line's. */
bool reference_field_line(struct span line, struct reference_field *out)
{
    const char *colon = line.n > 0 ? memchr(line.p, ':', line.n) : NULL;

    if (!colon)
        return false;
    out->name = (struct span){line.p, (size_t)(colon - line.p)};
    out->value = reference_trim(span_from(line, out->name.n + 1));
    return reference_is_token(out->name);
}

/* HTTP-version = "HTTP" "/" DIGIT "." DIGIT, in upper case (RFC 9112 section 2.3). */
static void read_version(struct reference *r, struct span s)
{
    if (s.n != 8 || memcmp(s.p, "HTTP/", 5) != 0 || !is_digit(s.p[5]) || s.p[6] != '.' || !is_digit(s.p[7])) {
        reference_fault(r, REFERENCE_400, "the version is none");
        return;
    }
    r->minor = s.p[7] != '0';
    if (s.p[5] != '1')
        reference_fault(r, s.p[5] == '0' ? REFERENCE_400 | REFERENCE_505 : REFERENCE_505, "the version is another");
}

/* method SP request-target SP HTTP-version. */
static struct span read_request_line(struct reference *r, struct span line, const struct reference_limits *limits)
{
    struct span none = {"", 0}, target;
    const char *space = line.n > 0 ? memchr(line.p, ' ', line.n) : NULL;

    r->method = (struct span){line.p, space ? (size_t)(space - line.p) : line.n};
    if (r->method.n > REFERENCE_METHOD_MAX)
        reference_fault(r, REFERENCE_501, "the method is too long to be one");
    if (!space) {
        reference_fault(r, REFERENCE_400, "the request line has no space");
        return none;
    }
    target = span_from(line, r->method.n + 1);
    space = target.n > 0 ? memchr(target.p, ' ', target.n) : NULL;
    if (!space) {
        if (target.n > limits->target_bytes)
            reference_fault(r, REFERENCE_414, "the target is too long");
        reference_fault(r, REFERENCE_400, "the request line has one space");
        return none;
    }
    read_version(r, span_from(target, (size_t)(space - target.p) + 1));
    target.n = (size_t)(space - target.p);
    if (target.n > limits->target_bytes)
        reference_fault(r, REFERENCE_414, "the target is too long");
    return target;
}

/* HTTP-version SP status-code SP [ reason-phrase ]; servers leave the last space out, too (RFC 9112 section 4). */
static void read_status_line(struct reference *r, struct span line)
{
    bool sound = line.n >= 12 && line.p[8] == ' ' && (line.n == 12 || line.p[12] == ' ');

    r->status = 0;
    read_version(r, (struct span){line.p, line.n < 8 ? line.n : 8});
    for (size_t i = 9; i < 12 && sound; i++) {
        sound = is_digit(line.p[i]);
        r->status = r->status * 10 + (line.p[i] - '0');
    }
    if (!sound || r->status < 100 || r->status > 599)
        reference_fault(r, REFERENCE_400, "the status line is malformed");
}

/* A first line that nobody needs to see the end of: its method is longer than any. */
static bool begins_too_long(const struct reader *in)
{
    size_t n = REFERENCE_METHOD_MAX + 1;

    return in->n - in->at >= n && reference_is_token((struct span){in->p + in->at, n});
}

/* Where the bytes run out or cannot be told apart inside a head. */
static void end_inside_head(struct reference *r, const struct reader *in, enum line_result how, bool first_line,
                            const struct reference_limits *limits)
{
    bool refused = how == LINE_BAD || in->n >= limits->head_bytes;
    const char *space = first_line && in->at < in->n ? memchr(in->p + in->at, ' ', in->n - in->at) : NULL;

    if (space) /* what is behind a whole method may be unreadable, and the answer be one to that method */
        r->method = (struct span){in->p + in->at, (size_t)(space - (in->p + in->at))};
    if (refused && first_line && begins_too_long(in))
        reference_fault(r, REFERENCE_501, "the method is too long to be one");
    if (in->n >= limits->head_bytes)
        reference_fault(r, REFERENCE_431 | (first_line ? REFERENCE_414 : 0u), "the head is too long");
    if (first_line && in->n - in->at > limits->target_bytes)
        reference_fault(r, REFERENCE_414, "the target is too long");
    if (r->field_count == limits->fields)
        reference_fault(r, REFERENCE_431, "there are too many fields"); /* the bytes at hand begin one more */
    if (how == LINE_BAD)
        reference_fault(r, REFERENCE_400, REFERENCE_LINE_UNKNOWN);
    r->verdict = refused ? REFERENCE_REFUSE : REFERENCE_INCOMPLETE;
}

static void take_field(struct reference *r, struct span line, const struct reference_limits *limits)
{
    struct reference_field field;

    if (r->field_count == limits->fields || r->field_count == REFERENCE_FIELDS_MAX)
        reference_fault(r, REFERENCE_431, "there are too many fields");
    else if (!reference_field_line(line, &field))
        reference_fault(r, REFERENCE_400, "a field line is none");
    else
        r->fields[r->field_count++] = field;
}

static enum line_result skip_empty_lines(struct reference *r, struct reader *in, struct span *line)
{
    enum line_result how = reference_line(in, line);

    for (int skipped = 0; how == LINE_WHOLE && line->n == 0; skipped++) {
        if (skipped == REFERENCE_EMPTY_LINES)
            reference_fault(r, REFERENCE_400, "there are too many empty lines");
        how = reference_line(in, line);
    }
    return how;
}

/* Reads the lines of the head; a request's target goes to *target. False when there is no end to them. */
static bool read_lines(struct reference *r, struct reader *in, struct span *target,
                       const struct reference_limits *limits)
{
    struct span line = {"", 0};
    enum line_result how = target ? skip_empty_lines(r, in, &line) : reference_line(in, &line);

    if (how != LINE_WHOLE) {
        end_inside_head(r, in, how, true, limits);
        return false;
    }
    if (target)
        *target = read_request_line(r, line, limits);
    else
        read_status_line(r, line);
    while ((how = reference_line(in, &line)) == LINE_WHOLE && line.n > 0)
        take_field(r, line, limits);
    if (how == LINE_WHOLE)
        return true;
    end_inside_head(r, in, how, false, limits);
    return false;
}

static void begin(struct reference *r)
{
    struct span none = {"", 0};

    r->verdict = REFERENCE_REFUSE;
    r->statuses = r->may_refuse = 0;
    r->why = "";
    r->head_whole = r->last = r->expects = false;
    r->used = 0;
    r->method = r->prefix = r->target = r->host = none;
    r->minor = 1;
    r->status = 0;
    r->field_count = r->option_count = r->trailer_count = 0;
    r->framing = REFERENCE_NO_CONTENT;
    r->length = 0;
    r->content = NULL;
    r->content_n = r->content_cap = 0;
}

void reference_read(struct reference *r, const char *p, size_t n, const struct reference_limits *limits)
{
    struct reader in = {p, n, 0};
    struct span target;

    begin(r);
    r->client_id = limits->client_id;
    r->behind = limits->behind;
    if (!read_lines(r, &in, &target, limits))
        return;
    if (in.at > limits->head_bytes)
        reference_fault(r, REFERENCE_431 | REFERENCE_414, "the head is too long");
    reference_head(r, target);
    if (r->statuses == REFERENCE_508) {
        reference_content(r, &in);
        r->used = r->verdict == REFERENCE_FORWARD ? in.at : 0;
        r->verdict = REFERENCE_REFUSE;
    }
    if (r->statuses != 0)
        return;
    r->head_whole = true;
    reference_content(r, &in);
    r->used = r->verdict == REFERENCE_FORWARD ? in.at : 0;
}

void reference_read_response(struct reference *r, const char *p, size_t n, bool to_head, bool ended,
                             const struct reference_limits *limits)
{
    struct reader in = {p, n, 0};

    begin(r);
    r->client_id = limits->client_id;
    r->behind = limits->behind;
    if (!read_lines(r, &in, NULL, limits))
        return;
    if (in.at > limits->head_bytes)
        reference_fault(r, REFERENCE_431, "the head is too long");
    reference_response_head(r, to_head);
    if (r->statuses != 0)
        return;
    r->head_whole = true;
    reference_content(r, &in);
    if (r->framing == REFERENCE_CLOSE && !ended)
        r->verdict = REFERENCE_INCOMPLETE;
    r->used = r->verdict == REFERENCE_FORWARD ? in.at : 0;
}

void reference_free(struct reference *r)
{
    free(r->content);
    r->content = NULL;
}
