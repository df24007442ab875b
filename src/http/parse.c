/* Heads taken apart: the start line by hand, strictly; the fields by http-parser, which has to agree on where the
 * target and the head end. What it lets pass and the contract refuses is caught here. */
#include "http/parse.h"

#include "http/chars.h"

#include <http_parser.h>

#define VERSION_LENGTH 8u /* "HTTP/1.1" */

/* Of the value in a line that is longer, http-parser is given the first byte, and what follows behind its last. */
#define LINE_FED_MAX 48u

/* What http-parser's callbacks find. */
struct tokens {
    struct headers *headers;
    struct str target;
    const char *fed_to, *resumed_at; /* a long value is fed up to here, and goes on up to there */
    bool value_due;                  /* a name has been seen that has no value yet */
    bool complete;
};

static bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

static int on_url(http_parser *hp, const char *p, size_t n)
{
    struct tokens *t = hp->data;

    t->target = str_make(p, n);
    return 0;
}

static int on_name(http_parser *hp, const char *p, size_t n)
{
    struct tokens *t = hp->data;
    struct headers *h = t->headers;

    if (t->value_due || h->n == h->max)
        return 1;
    struct field *f = &h->v[h->n];
    f->name = str_make(p, n);
    f->id = field_id_of(f->name);
    t->value_due = true;
    return 0;
}

static int on_value(http_parser *hp, const char *p, size_t n)
{
    struct tokens *t = hp->data;
    struct headers *h = t->headers;

    if (!t->value_due)
        return n > 0; /* an empty rest follows where feed() cuts a value */
    if (p + n == t->fed_to)
        n = (size_t)(t->resumed_at - p);

    /* http-parser trims in front only. */
    while (n > 0 && is_blank(p[n - 1]))
        n--;
    struct field *f = &h->v[h->n++];
    f->value = str_make(p, n);
    h->present |= UINT32_C(1) << f->id;
    t->value_due = false;
    return 0;
}

static int on_head_end(http_parser *hp)
{
    struct tokens *t = hp->data;

    t->complete = true;
    http_parser_pause(hp, 1);
    return 0;
}

static const http_parser_settings settings = {
    .on_url = on_url, .on_header_field = on_name, .on_header_value = on_value, .on_headers_complete = on_head_end};

/* Why http-parser stopped, in our terms: of what it finds wrong before the end of a head that was scanned. */
static enum err fault_of(enum http_errno fault, const struct headers *h)
{
    switch (fault) {
    case HPE_CB_header_field: return h->n == h->max ? ERR_HEAD_TOO_LARGE : ERR_BAD_FIELD;
    case HPE_INVALID_CONTENT_LENGTH: return ERR_BAD_CONTENT_LENGTH;
    case HPE_UNEXPECTED_CONTENT_LENGTH:
        return headers_have(h, FIELD_TRANSFER_ENCODING) ? ERR_BAD_TRANSFER_ENCODING : ERR_BAD_CONTENT_LENGTH;
    case HPE_INVALID_URL: return ERR_BAD_TARGET;
    default: return ERR_BAD_FIELD;
    }
}

static void start(http_parser *hp, enum http_parser_type type, struct tokens *t)
{
    *t = (struct tokens){.headers = t->headers, .target = STR("")};
    t->headers->n = 0;
    t->headers->present = 0;
    http_parser_init(hp, type);
    hp->data = t;
    /* It takes a field whose name only begins with "Transfer-Encoding" for that one, and refuses it beside a
     * Content-Length. Lenient, it leaves that to framing.c, and what a value may hold to head_scan(). */
    hp->lenient_http_headers = 1;
}

/* Does http-parser look at what a value says, not only for its end? */
static bool acts_on(struct str name)
{
    switch (field_id_of(name)) {
    case FIELD_CONNECTION:
    case FIELD_CONTENT_LENGTH:
    case FIELD_PROXY_CONNECTION:
    case FIELD_TRANSFER_ENCODING:
    case FIELD_UPGRADE: return true;
    default: return false;
    }
}

/* The value of a long field line, without the white space in front; empty where http-parser is to see all of it. */
static struct str long_value(struct str line)
{
    size_t at = str_find(line, ':');
    bool whole = acts_on(str_make(line.p, at));

    do
        at++;
    while (at < line.n && is_blank(line.p[at]));
    return whole || at > line.n ? STR("") : str_make(line.p + at, line.n - at);
}

/* Feeds the whole head but for what is inside of long values: head_scan() has seen to it that no line ends there, and
 * http-parser, which goes through them byte by byte, would look for nothing else. Returns how much it took. */
static size_t feed_head(http_parser *hp, struct tokens *t, struct str head)
{
    size_t fed = 0, line = str_find(head, '\n') + 1;

    while (line < head.n) {
        struct str rest = str_make(head.p + line, head.n - line);
        size_t n = str_find(rest, '\r'), end = line + n;
        line = end + 2;
        if (n <= LINE_FED_MAX)
            continue;
        struct str value = long_value(str_make(rest.p, n));
        if (value.n == 0)
            continue;
        t->fed_to = value.p + 1;
        t->resumed_at = head.p + end;
        size_t piece = (size_t)(t->fed_to - head.p) - fed;
        size_t taken = http_parser_execute(hp, &settings, head.p + fed, piece);
        if (taken != piece)
            return fed + taken;
        fed = end;
    }
    return fed + http_parser_execute(hp, &settings, head.p + fed, head.n - fed);
}

/* The same, whatever white space stands behind a Content-Length. */
static size_t feed(http_parser *hp, enum http_parser_type type, struct tokens *t, struct str head)
{
    start(hp, type, t);
    size_t n = feed_head(hp, t, head), end = n;
    if (HTTP_PARSER_ERRNO(hp) != HPE_INVALID_CONTENT_LENGTH)
        return n;

    /* It takes no HTAB there, which is white space like any other: then once more without that. */
    while (end < head.n && is_blank(head.p[end]))
        end++;
    if (end == n || end == head.n || head.p[end] != '\r')
        return n;
    start(hp, type, t);
    (void)http_parser_execute(hp, &settings, head.p, n);
    return end + http_parser_execute(hp, &settings, head.p + end, head.n - end);
}

/* Fills `h` from the whole head. `target` is what the start line holds by our own reading ("" of a response). */
static enum err read_fields(struct str head, enum http_parser_type type, struct str target, struct headers *h)
{
    struct tokens t = {.headers = h};
    http_parser hp;

    http_parser_set_max_header_size(UINT32_MAX); /* head_scan() has measured it already */
    size_t taken = feed(&hp, type, &t, head);
    if (!t.complete)
        return fault_of(HTTP_PARSER_ERRNO(&hp), h);
    /* Paused at the end of the fields, it has not taken the last LF. */
    if (t.value_due || taken != head.n - 1 || !str_eq(t.target, target))
        return ERR_BAD_FIELD;
    return ERR_OK;
}

static struct headers without_fields(const struct headers *h)
{
    return (struct headers){.v = h->v, .max = h->max};
}

/* The digits of "HTTP/n.m"; 1.2 to 1.9 count as 1.1 (RFC 9110 section 2.5). */
static bool read_version(const char *p, unsigned *major, unsigned *minor)
{
    if (memcmp(p, "HTTP/", 5) != 0 || !char_is(p[5], CHAR_DIGIT) || p[6] != '.' || !char_is(p[7], CHAR_DIGIT))
        return false;
    *major = (unsigned)(p[5] - '0');
    *minor = p[7] > '0';
    return true;
}

/* Takes what stands before the first space off the front of `*s`, and the space. */
static bool take_word(struct str *s, struct str *word)
{
    size_t n = str_find(*s, ' ');

    if (n == 0 || n == s->n)
        return false;
    *word = str_make(s->p, n);
    *s = str_make(s->p + n + 1, s->n - n - 1);
    return true;
}

static enum err read_request_line(struct str head, struct request *out)
{
    unsigned major;

    if (!take_word(&head, &out->method_text) || !is_token(out->method_text) || !take_word(&head, &out->target))
        return ERR_BAD_REQUEST_LINE;
    if (head.n < VERSION_LENGTH + 2 || !read_version(head.p, &major, &out->minor) ||
        memcmp(head.p + VERSION_LENGTH, "\r\n", 2) != 0)
        return ERR_BAD_REQUEST_LINE;
    return major == 1 ? ERR_OK : ERR_VERSION_NOT_SUPPORTED;
}

/* The methods that http-parser knows, in its order, and those of them that have rules here. */
static const struct str method_names[] = {
#define X(number, name, text) [number] = {#text, sizeof(#text) - 1},
    HTTP_METHOD_MAP(X)
#undef X
};

static const unsigned char method_ids[sizeof method_names / sizeof method_names[0]] = {
    [HTTP_GET] = METHOD_GET,     [HTTP_HEAD] = METHOD_HEAD,     [HTTP_POST] = METHOD_POST,
    [HTTP_PUT] = METHOD_PUT,     [HTTP_DELETE] = METHOD_DELETE, [HTTP_OPTIONS] = METHOD_OPTIONS,
    [HTTP_PATCH] = METHOD_PATCH, [HTTP_TRACE] = METHOD_TRACE,   [HTTP_CONNECT] = METHOD_CONNECT};

static enum err read_method(struct request *out)
{
    size_t i = 0, n = sizeof method_names / sizeof method_names[0];

    while (i < n && !str_eq(method_names[i], out->method_text))
        i++;
    if (i == n)
        return ERR_NOT_IMPLEMENTED;
    out->method = method_ids[i];
    if (out->method == METHOD_CONNECT)
        return ERR_NOT_IMPLEMENTED;
    return out->method == METHOD_TRACE ? ERR_METHOD_NOT_ALLOWED : ERR_OK;
}

void parse_refused(const struct head_scan *s, struct str data, struct request *out)
{
    struct str seen = str_make(data.p + s->skip, s->at - s->skip);

    if (!take_word(&seen, &out->method_text))
        return;
    (void)read_method(out); /* whether it may be served is no question any more */
    if (!take_word(&seen, &out->target))
        out->target = str_make(seen.p, str_find(seen, '\r'));
}

static enum err read_host(struct str authority, struct request *out)
{
    unsigned count;
    const struct field *f = headers_find(&out->headers, FIELD_HOST, &count);

    if (count > 1 || (count == 0 && out->minor > 0))
        return ERR_BAD_HOST;
    if (f)
        out->host = f->value;
    if (!host_is_valid(out->host))
        return ERR_BAD_HOST;
    if (authority.n > 0) /* RFC 9112 section 3.2.2 */
        out->host = authority;
    return ERR_OK;
}

/* What Connection asks of the connection. */
struct connection {
    bool keep_alive, upgrade, nominates;
};

/* Counts the options in Connection and tells what they ask. False when they are too many. */
static bool read_connection(const struct headers *h, unsigned minor, struct connection *out)
{
    bool asked = false, close = false;
    unsigned options = 0;

    out->upgrade = out->nominates = false;

    for (unsigned i = 0; i < h->n && headers_have(h, FIELD_CONNECTION); i++) {
        if (h->v[i].id != FIELD_CONNECTION)
            continue;
        struct str list = h->v[i].value, option;
        while (str_next_element(&list, &option)) {
            options++;
            if (str_eq_nocase(option, STR("keep-alive")))
                asked = true;
            else if (str_eq_nocase(option, STR("close")))
                close = true;
            else if (str_eq_nocase(option, STR("upgrade")))
                out->upgrade = true;
            else if (!str_eq_nocase(option, STR("te")))
                out->nominates = true;
        }
    }
    out->keep_alive = !close && (minor > 0 || asked);
    return options <= CONNECTION_OPTIONS_MAX;
}

static enum err read_expect(struct request *out)
{
    const struct headers *h = &out->headers;

    if (out->minor == 0) /* RFC 9110 section 10.1.1 */
        return ERR_OK;
    for (unsigned i = 0; i < h->n && headers_have(h, FIELD_EXPECT); i++) {
        if (h->v[i].id != FIELD_EXPECT)
            continue;
        struct str list = h->v[i].value, expectation;
        while (str_next_element(&list, &expectation)) {
            if (!str_eq_nocase(expectation, STR("100-continue")))
                return ERR_EXPECTATION_FAILED;
            out->expect_continue = true;
        }
    }
    return ERR_OK;
}

/* What is asked for beside the response itself; not by HTTP/1.0, whose intermediaries pass on what is meant for them.
 */
static void read_wishes(const struct connection *c, struct request *out)
{
    const struct headers *h = &out->headers;
    struct str protocols[PROTOCOLS_MAX];

    out->keep_alive = c->keep_alive;
    out->nominates = c->nominates;
    out->names_user = headers_name_user_of_connection(h);
    out->takes_trailers = out->minor > 0 && headers_has_token(h, FIELD_TE, STR("trailers"));
    out->upgrade = out->minor > 0 && c->upgrade && protocols_read(h, protocols) > 0;
}

/* What the fields of a request mean to us. */
static enum err read_meaning(struct str authority, struct request *out)
{
    struct connection c;
    enum err e = read_host(authority, out);

    if (e == ERR_OK)
        e = framing_of_request(&out->headers, out->minor, &out->framing);
    if (e == ERR_OK && !read_connection(&out->headers, out->minor, &c))
        e = ERR_HEAD_TOO_LARGE;
    if (e != ERR_OK)
        return e;
    read_wishes(&c, out);
    return read_expect(out);
}

enum err parse_request(struct str head, struct request *out)
{
    struct str none = STR("");
    struct target target;

    *out = (struct request){.method_text = none,
                            .target = none,
                            .target_prefix = none,
                            .host = none,
                            .headers = without_fields(&out->headers)};
    enum err e = read_request_line(head, out);
    if (e == ERR_OK)
        e = read_method(out);
    else if (e == ERR_VERSION_NOT_SUPPORTED)
        (void)read_method(out); /* it says whether the answer may have content */
    if (e == ERR_OK)
        e = target_split(out->target, out->method == METHOD_OPTIONS, &target);
    if (e == ERR_OK)
        e = read_fields(head, HTTP_REQUEST, out->target, &out->headers);
    if (e != ERR_OK)
        return e;
    out->target = target.rest;
    out->target_prefix = target.prefix;
    return read_meaning(target.authority, out);
}

/* "HTTP/1.1 200 OK", also without the reason, and without the space in front of that. */
static bool read_status_line(struct str head, struct response *out)
{
    const size_t code = VERSION_LENGTH + 1, reason = code + 3;
    size_t n = str_find(head, '\r');
    unsigned major;

    if (n < reason || n == head.n || !read_version(head.p, &major, &out->minor) || major != 1)
        return false;
    for (size_t i = code; i < reason; i++) {
        if (!char_is(head.p[i], CHAR_DIGIT))
            return false;
        out->status = out->status * 10 + (unsigned)(head.p[i] - '0');
    }
    if (head.p[VERSION_LENGTH] != ' ' || (n > reason && head.p[reason] != ' '))
        return false;
    if (n > reason)
        out->reason = str_make(head.p + reason + 1, n - reason - 1);
    return out->status >= 100 && out->status <= 599;
}

/* Does a response that cannot have content say that it has some? It is over all the same (RFC 9112 section 6.3), but
 * whoever has sent it may think otherwise, and send what would be taken for the next one. A 304 may give the length of
 * what it stands for (RFC 9110 section 8.6). */
static bool claims_content(const struct response *r)
{
    const struct headers *h = &r->headers;
    struct framing claimed;
    bool none = r->status < 200 || r->status == 204;
    if (!none && r->status != 304)
        return false;
    if (headers_have(h, FIELD_TRANSFER_ENCODING))
        return true;
    return none && headers_have(h, FIELD_CONTENT_LENGTH) &&
           (framing_of_response(h, r->minor, 200, false, &claimed) != ERR_OK || claimed.length > 0);
}

enum err parse_response(struct str head, bool to_head, bool to_upgrade, struct response *out)
{
    *out = (struct response){.reason = STR(""), .headers = without_fields(&out->headers)};
    if (!read_status_line(head, out) || (out->status == 101 && !to_upgrade))
        return ERR_BAD_RESPONSE;
    struct connection c;
    if (read_fields(head, HTTP_RESPONSE, STR(""), &out->headers) != ERR_OK ||
        framing_of_response(&out->headers, out->minor, out->status, to_head, &out->framing) != ERR_OK ||
        !read_connection(&out->headers, out->minor, &c))
        return ERR_BAD_RESPONSE;
    if (out->status == 101 && !c.upgrade)
        return ERR_BAD_RESPONSE;
    out->nominates = c.nominates;
    out->keep_alive = c.keep_alive && out->framing.kind != FRAMING_CLOSE && !claims_content(out) &&
                      !headers_name_user_of_connection(&out->headers);
    return ERR_OK;
}

bool method_is_idempotent(enum method m)
{
    switch (m) {
    case METHOD_GET:
    case METHOD_HEAD:
    case METHOD_PUT:
    case METHOD_DELETE:
    case METHOD_OPTIONS:
    case METHOD_TRACE: return true;
    default: return false;
    }
}
