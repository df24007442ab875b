/* HTTP/1.1 messages taken apart from bytes at hand. */
#include "conformance/wire.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

bool text_is(struct text t, const char *s)
{
    return t.n == strlen(s) && memcmp(t.p, s, t.n) == 0;
}

bool text_is_nocase(struct text t, const char *s, size_t n)
{
    return t.n == n && strncasecmp(t.p, s, n) == 0;
}

bool text_has(struct text t, const char *s)
{
    return t.n > 0 && memmem(t.p, t.n, s, strlen(s));
}

static struct text text_of(const char *p, size_t n)
{
    return (struct text){p, n};
}

static enum wire_result bad(struct wire_message *m, const char *fault)
{
    m->fault = fault;
    return WIRE_BAD;
}

static bool is_tchar(char c)
{
    return isalnum((unsigned char)c) || (c && strchr("!#$%&'*+-.^_`|~", c));
}

static bool is_token(struct text t)
{
    for (size_t i = 0; i < t.n; i++)
        if (!is_tchar(t.p[i]))
            return false;
    return t.n > 0;
}

/* One line off the front of *in: up to CRLF, with no other control byte but HTAB in it. */
static enum wire_result take_line(struct wire_message *m, struct text *in, struct text *line)
{
    for (size_t i = 0; i < in->n; i++) {
        unsigned char c = (unsigned char)in->p[i];

        if (c == '\r' && i + 1 == in->n)
            return WIRE_MORE;
        if (c == '\r' && in->p[i + 1] == '\n') {
            *line = text_of(in->p, i);
            *in = text_of(in->p + i + 2, in->n - i - 2);
            return WIRE_OK;
        }
        if (c == 127 || (c < 32 && c != '\t'))
            return bad(m, "a control byte in a line");
    }
    return WIRE_MORE;
}

static struct text trim(struct text t)
{
    while (t.n > 0 && (*t.p == ' ' || *t.p == '\t'))
        t = text_of(t.p + 1, t.n - 1);
    while (t.n > 0 && (t.p[t.n - 1] == ' ' || t.p[t.n - 1] == '\t'))
        t.n--;
    return t;
}

/* Field lines up to and with the empty line. */
static enum wire_result take_fields(struct wire_message *m, struct text *in, struct wire_fields *f)
{
    struct text line;
    enum wire_result r;

    while ((r = take_line(m, in, &line)) == WIRE_OK && line.n > 0) {
        const char *colon = memchr(line.p, ':', line.n);
        size_t n = colon ? (size_t)(colon - line.p) : 0;

        if (!colon || !is_token(text_of(line.p, n)))
            return bad(m, "a field line without a name that is a token");
        if (f->n == WIRE_FIELDS_MAX)
            return bad(m, "too many fields");
        f->v[f->n].name = text_of(line.p, n);
        f->v[f->n++].value = trim(text_of(colon + 1, line.n - n - 1));
    }
    return r;
}

unsigned wire_count(const struct wire_fields *f, const char *name, size_t n)
{
    unsigned count = 0;

    for (unsigned i = 0; i < f->n; i++)
        count += text_is_nocase(f->v[i].name, name, n);
    return count;
}

static const struct wire_field *find(const struct wire_fields *f, const char *name)
{
    for (unsigned i = 0; i < f->n; i++)
        if (text_is_nocase(f->v[i].name, name, strlen(name)))
            return &f->v[i];
    return NULL;
}

/* Connection's options are the only values here in which case means nothing. */
static bool value_is(struct text value, const char *wanted, size_t n, bool nocase)
{
    return value.n == n && (nocase ? strncasecmp(value.p, wanted, n) : memcmp(value.p, wanted, n)) == 0;
}

bool wire_agrees(const struct wire_fields *f, const char *wanted)
{
    size_t n = strcspn(wanted, ":");
    const char *value = wanted + n + strspn(wanted + n, ": ");

    for (unsigned i = 0; i < f->n; i++) {
        size_t piece;

        if (!text_is_nocase(f->v[i].name, wanted, n))
            continue;
        if (!value)
            return false; /* more of them than wanted */
        const char *bar = strstr(value, " | ");
        piece = bar ? (size_t)(bar - value) : strlen(value);
        if (!(piece == 1 && *value == '*') &&
            !value_is(f->v[i].value, value, piece, text_is_nocase((struct text){wanted, n}, "Connection", 10)))
            return false;
        value = bar ? bar + 3 : NULL;
    }
    return !value;
}

bool wire_has_token(const struct wire_fields *f, const char *name, const char *token)
{
    for (unsigned i = 0; i < f->n; i++) {
        struct text v = f->v[i].value;

        if (!text_is_nocase(f->v[i].name, name, strlen(name)))
            continue;
        while (v.n > 0) {
            const char *comma = memchr(v.p, ',', v.n);
            size_t n = comma ? (size_t)(comma - v.p) : v.n;

            if (text_is_nocase(trim(text_of(v.p, n)), token, strlen(token)))
                return true;
            n += comma != NULL;
            v = text_of(v.p + n, v.n - n);
        }
    }
    return false;
}

static bool take_number(struct text t, unsigned base, uint64_t *out)
{
    *out = 0;
    for (size_t i = 0; i < t.n; i++) {
        int c = tolower((unsigned char)t.p[i]);
        unsigned digit = c <= '9' ? (unsigned)(c - '0') : (unsigned)(c - 'a') + 10u;

        if (!(base == 16 ? isxdigit(c) : isdigit(c)) || *out > (UINT64_MAX - digit) / base)
            return false;
        *out = *out * base + digit;
    }
    return t.n > 0;
}

/* Length and coding as the fields have them; `otherwise` when they say nothing. */
static enum wire_result take_framing(struct wire_message *m, char otherwise, uint64_t *length)
{
    const struct wire_field *l = find(&m->fields, "Content-Length"), *t = find(&m->fields, "Transfer-Encoding");

    m->framing = otherwise;
    if (wire_count(&m->fields, "Content-Length", 14) + wire_count(&m->fields, "Transfer-Encoding", 17) > 1)
        return bad(m, "framed twice");
    if (t && !text_is_nocase(t->value, "chunked", 7))
        return bad(m, "a transfer coding that is not chunked");
    if (l && !take_number(l->value, 10, length))
        return bad(m, "a bad Content-Length");
    if (l || t)
        m->framing = l ? 'L' : 'C';
    return WIRE_OK;
}

static bool version_is_known(const char *p)
{
    return strncmp(p, "HTTP/1.1", 8) == 0 || strncmp(p, "HTTP/1.0", 8) == 0;
}

static enum wire_result take_request_line(struct wire_message *m)
{
    const char *first = memchr(m->line.p, ' ', m->line.n), *end = m->line.p + m->line.n;
    const char *second = first ? memchr(first + 1, ' ', (size_t)(end - first) - 1) : NULL;

    if (!second || second == first + 1 || end - second != 9 || !version_is_known(second + 1) ||
        !is_token(text_of(m->line.p, (size_t)(first - m->line.p))))
        return bad(m, "a bad request line");
    m->target = text_of(first + 1, (size_t)(second - first) - 1);
    for (size_t i = 0; i < m->target.n; i++)
        if (m->target.p[i] < 33)
            return bad(m, "a bad request target");
    return WIRE_OK;
}

static enum wire_result take_status_line(struct wire_message *m)
{
    const char *p = m->line.p;

    if (m->line.n < 13 || !version_is_known(p) || p[8] != ' ' || p[12] != ' ')
        return bad(m, "a bad status line");
    for (int i = 9; i < 12; i++) {
        if (!isdigit((unsigned char)p[i]))
            return bad(m, "a bad status");
        m->status = m->status * 10 + (unsigned)(p[i] - '0');
    }
    return WIRE_OK;
}

static enum wire_result take_chunked(struct wire_message *m, struct text *in)
{
    for (;;) {
        struct text line;
        uint64_t size;
        enum wire_result r = take_line(m, in, &line);

        if (r != WIRE_OK)
            return r;
        const char *semicolon = memchr(line.p, ';', line.n);
        if (semicolon)
            m->extensions = true;
        if (!take_number(text_of(line.p, semicolon ? (size_t)(semicolon - line.p) : line.n), 16, &size))
            return bad(m, "a bad chunk size");
        if (size == 0)
            return take_fields(m, in, &m->trailers);
        if (in->n < size + 2) {
            bytes_add(&m->content, in->p, in->n < size ? in->n : (size_t)size);
            return WIRE_MORE;
        }
        bytes_add(&m->content, in->p, (size_t)size);
        if (memcmp(in->p + size, "\r\n", 2) != 0)
            return bad(m, "a chunk that is longer than its size");
        *in = text_of(in->p + size + 2, in->n - (size_t)size - 2);
    }
}

static enum wire_result take_content(struct wire_message *m, struct text *in, uint64_t length, bool ended)
{
    size_t n = in->n;

    switch (m->framing) {
    case 'C': return take_chunked(m, in);
    case 'L': n = n < length ? n : (size_t)length; break;
    case 'N': n = 0; break;
    default: break;
    }
    bytes_add(&m->content, in->p, n);
    *in = text_of(in->p + n, in->n - n);
    if (m->framing == 'L')
        return n == length ? WIRE_OK : WIRE_MORE;
    return m->framing == 'N' || ended ? WIRE_OK : WIRE_MORE;
}

static enum wire_result take_head(struct wire_message *m, struct text *in, enum wire_kind kind)
{
    enum wire_result r = take_line(m, in, &m->line);

    if (r == WIRE_OK)
        r = kind == WIRE_REQUEST ? take_request_line(m) : take_status_line(m);
    return r == WIRE_OK ? take_fields(m, in, &m->fields) : r;
}

enum wire_result wire_read(struct wire_message *m, struct text in, enum wire_kind kind, bool to_head, bool ended)
{
    struct text rest = in;
    uint64_t length = 0;

    wire_free(m);
    bytes_add(&m->content, "", 0);
    enum wire_result r = take_head(m, &rest, kind);
    if (r == WIRE_OK)
        r = take_framing(m, kind == WIRE_REQUEST ? 'N' : 'E', &length);
    if (r != WIRE_OK)
        return r;
    m->head_whole = true;
    m->head_size = in.n - rest.n;
    m->head = text_of(in.p, m->head_size);
    if (kind == WIRE_RESPONSE && (m->status < 200 || m->status == 204 || m->status == 304 || to_head)) {
        if (!to_head && m->status != 304 && m->framing != 'E')
            return bad(m, "framing where no content can be");
        m->framing = m->status == 101 ? 'E' : 'N';
    }
    r = take_content(m, &rest, length, ended);
    m->used = in.n - rest.n;
    return r;
}

void wire_free(struct wire_message *m)
{
    bytes_free(&m->content);
    *m = (struct wire_message){0};
}

void bytes_add_escaped(struct bytes *b, struct text t, size_t max)
{
    bytes_add(b, "", 0);
    for (size_t i = 0; i < t.n && i < max; i++) {
        unsigned char c = (unsigned char)t.p[i];

        if (c == '\r')
            bytes_add(b, "\\r", 2);
        else if (c == '\n')
            bytes_add(b, "\\n", 2);
        else if (c < 32 || c > 126)
            bytes_addf(b, "\\x%02x", c);
        else
            bytes_add(b, t.p + i, 1);
    }
    if (t.n > max)
        bytes_addf(b, "... (%zu bytes)", t.n);
}
