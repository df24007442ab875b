/* Content: RFC 9112 sections 6 and 7.1. */
#include "reference_impl.h"

#include <stdlib.h>
#include <string.h>

static void keep(struct reference *r, const char *p, size_t n)
{
    if (n == 0)
        return;
    if (r->content_cap - r->content_n < n) {
        r->content_cap = (r->content_n + n) * 2;
        r->content = realloc(r->content, r->content_cap);
        if (!r->content)
            abort();
    }
    memcpy(r->content + r->content_n, p, n);
    r->content_n += n;
}

static void refuse(struct reference *r, unsigned statuses, const char *why)
{
    reference_fault(r, statuses, why);
    r->verdict = REFERENCE_REFUSE;
}

/* Takes `n` bytes of data. False when they are not all there. */
static bool take_data(struct reference *r, struct reader *in, uint64_t n)
{
    size_t there = in->n - in->at;

    if (there > n)
        there = (size_t)n;
    keep(r, in->p + in->at, there);
    in->at += there;
    if (there == n)
        return true;
    r->verdict = REFERENCE_INCOMPLETE;
    return false;
}

/* ---- chunk extensions: *( BWS ";" BWS name [ BWS "=" BWS ( token / quoted-string ) ] ) ---- */

static void skip_blanks(struct span *s)
{
    while (s->n > 0 && (s->p[0] == ' ' || s->p[0] == '\t'))
        *s = span_from(*s, 1);
}

static bool take_token(struct span *s)
{
    size_t n = 0;

    while (n < s->n && reference_is_tchar(s->p[n]))
        n++;
    *s = span_from(*s, n);
    return n > 0;
}

/* A quoted string (RFC 9110 section 5.6.4); the line holds no controls but HTAB. */
static bool take_quoted(struct span *s)
{
    for (size_t i = 1; i < s->n; i++) {
        if (s->p[i] == '"') {
            *s = span_from(*s, i + 1);
            return true;
        }
        if (s->p[i] == '\\')
            i++;
    }
    return false;
}

static bool take_value(struct span *s)
{
    return s->n > 0 && s->p[0] == '"' ? take_quoted(s) : take_token(s);
}

static bool are_extensions(struct span s)
{
    while (s.n > 0) {
        skip_blanks(&s);
        if (s.n == 0 || s.p[0] != ';')
            return false;
        s = span_from(s, 1);
        skip_blanks(&s);
        if (!take_token(&s))
            return false;

        struct span behind = s;
        skip_blanks(&behind);
        if (behind.n == 0 || behind.p[0] != '=')
            continue;
        s = span_from(behind, 1);
        skip_blanks(&s);
        if (!take_value(&s))
            return false;
    }
    return true;
}

/* ---- chunks ---- */

/* chunk-size [ chunk-ext ]. */
static bool read_size(struct span line, uint64_t *size, size_t *extensions)
{
    size_t digits = 0;

    *size = 0;
    while (digits < line.n && is_hex(line.p[digits])) {
        char c = line.p[digits++];
        uint64_t digit = is_digit(c) ? (uint64_t)(c - '0') : (uint64_t)((c | 0x20) - 'a') + 10;

        if (digits > 16 || *size > ((uint64_t)INT64_MAX - digit) / 16)
            return false;
        *size = *size * 16 + digit;
    }
    line = span_from(line, digits);
    *extensions += line.n;
    return digits > 0 && are_extensions(line);
}

static void read_trailers(struct reference *r, struct reader *in)
{
    size_t begin = in->at;
    struct span line;

    for (;;) {
        enum line_result how = reference_line(in, &line);

        if ((how == LINE_WHOLE ? in->at : in->n) - begin > REFERENCE_TRAILER_MAX)
            refuse(r, REFERENCE_400 | REFERENCE_431, "the trailers are too long");
        else if (how == LINE_BAD)
            refuse(r, REFERENCE_400, REFERENCE_LINE_UNKNOWN);
        else if (how == LINE_MORE)
            r->verdict = REFERENCE_INCOMPLETE;
        else if (line.n == 0)
            r->verdict = REFERENCE_FORWARD;
        else if (r->trailer_count == REFERENCE_FIELDS_MAX)
            refuse(r, REFERENCE_400 | REFERENCE_431, "there are too many trailers");
        else if (!reference_field_line(line, &r->trailers[r->trailer_count]))
            refuse(r, REFERENCE_400, "a trailer is no field line");
        else {
            r->trailer_count++;
            continue;
        }
        return;
    }
}

/* CRLF behind the data of a chunk. */
static bool take_crlf(struct reference *r, struct reader *in)
{
    size_t there = in->n - in->at;

    if (memcmp(in->p + in->at, "\r\n", there < 2 ? there : 2) != 0) {
        refuse(r, REFERENCE_400, "no CRLF behind the data of a chunk");
        return false;
    }
    in->at += there < 2 ? there : 2;
    if (there < 2)
        r->verdict = REFERENCE_INCOMPLETE;
    return there >= 2;
}

static void read_chunks(struct reference *r, struct reader *in)
{
    size_t extensions = 0;
    uint64_t size;
    struct span line;

    do {
        enum line_result how = reference_line(in, &line);

        if (how == LINE_MORE) {
            r->verdict = REFERENCE_INCOMPLETE;
            return;
        }
        if (how == LINE_BAD || !read_size(line, &size, &extensions) || extensions > REFERENCE_EXTENSIONS) {
            refuse(r, REFERENCE_400, how == LINE_BAD ? REFERENCE_LINE_UNKNOWN : "a chunk's line is malformed");
            return;
        }
        if (extensions < 16 || (extensions - 16) / 2 < size)
            extensions = 0;
        else
            extensions -= 16 + 2 * (size_t)size;
        if (size > 0 && (!take_data(r, in, size) || !take_crlf(r, in)))
            return;
    } while (size > 0);
    read_trailers(r, in);
}

void reference_content(struct reference *r, struct reader *in)
{
    r->verdict = REFERENCE_FORWARD;
    if (r->framing == REFERENCE_LENGTH)
        take_data(r, in, r->length);
    else if (r->framing == REFERENCE_CHUNKED)
        read_chunks(r, in);
    else if (r->framing == REFERENCE_CLOSE)
        take_data(r, in, in->n - in->at);
}
