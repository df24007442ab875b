/* What a head means: method, target, Host, framing, connection (RFC 9110 sections 7 to 10, RFC 9112 sections 3, 6, 9).
 */
#include "reference_impl.h"

#include <string.h>

/* Methods that are passed on: the registry's, as far as they are known to the proxy. */
static const char *const methods[] = {
    "GET",    "HEAD",   "POST",       "PUT",       "DELETE",   "OPTIONS",   "PATCH",  "ACL",
    "BIND",   "COPY",   "CHECKOUT",   "LINK",      "LOCK",     "M-SEARCH",  "MERGE",  "MKACTIVITY",
    "MKCOL",  "MOVE",   "MKCALENDAR", "NOTIFY",    "PROPFIND", "PROPPATCH", "PURGE",  "REBIND",
    "REPORT", "SEARCH", "SOURCE",     "SUBSCRIBE", "UNBIND",   "UNLINK",    "UNLOCK", "UNSUBSCRIBE",
};

static void read_method(struct reference *r)
{
    if (!reference_is_token(r->method)) {
        reference_fault(r, REFERENCE_400, "the method is no token");
        return;
    }
    if (span_is(r->method, "TRACE")) {
        reference_fault(r, REFERENCE_405, "TRACE");
        return;
    }
    for (size_t i = 0; i < sizeof methods / sizeof *methods; i++)
        if (span_is(r->method, methods[i]))
            return;
    reference_fault(r, REFERENCE_501, "the method is not known");
}

/* ---- hosts: RFC 3986 section 3.2 ---- */

/* dec-octet, without leading zeros. */
static bool is_octet(struct span s)
{
    unsigned value = 0;

    for (size_t i = 0; i < s.n; i++) {
        if (!is_digit(s.p[i]))
            return false;
        value = value * 10 + (unsigned)(s.p[i] - '0');
    }
    return s.n > 0 && s.n <= 3 && value <= 255 && (s.n == 1 || s.p[0] != '0');
}

static bool is_ipv4(struct span s)
{
    for (int dots = 0; dots < 3; dots++) {
        const char *dot = s.n > 0 ? memchr(s.p, '.', s.n) : NULL;

        if (!dot || !is_octet((struct span){s.p, (size_t)(dot - s.p)}))
            return false;
        s = span_from(s, (size_t)(dot - s.p) + 1);
    }
    return is_octet(s);
}

/* Counts the 16-bit groups in a run of them without "::"; -1 when it is none. Only the last run may end in IPv4. */
static int count_groups(struct span s, bool last)
{
    int groups = 0;

    while (s.n > 0) {
        const char *colon = memchr(s.p, ':', s.n);
        size_t n = colon ? (size_t)(colon - s.p) : s.n;

        if (last && !colon && is_ipv4(s))
            return groups + 2;
        if (n == 0 || n > 4 || (colon && n + 1 == s.n))
            return -1;
        for (size_t i = 0; i < n; i++)
            if (!is_hex(s.p[i]))
                return -1;
        groups++;
        s = span_from(s, colon ? n + 1 : n);
    }
    return groups;
}

static bool is_ipv6(struct span s)
{
    for (size_t i = 0; i + 1 < s.n; i++) {
        if (s.p[i] != ':' || s.p[i + 1] != ':')
            continue;
        int before = count_groups((struct span){s.p, i}, false), behind = count_groups(span_from(s, i + 2), true);
        return before >= 0 && behind >= 0 && before + behind <= 7;
    }
    return s.n > 0 && count_groups(s, true) == 8;
}

/* *digits up to 65535. More digits than that needs are well formed by the RFC, and nobody's: `*odd`. */
static bool is_port(struct span s, bool *odd)
{
    unsigned value = 0;

    for (size_t i = 0; i < s.n; i++) {
        if (!is_digit(s.p[i]))
            return false;
        value = value * 10 + (unsigned)(s.p[i] - '0');
        if (value > 65535)
            return false;
    }
    *odd |= s.n > 5;
    return true;
}

/* The bytes that a reg-name begins with. unreserved, sub-delims but the comma, and %XX. */
static size_t reg_name_length(struct span s)
{
    size_t n = 0;

    while (n < s.n) {
        char c = s.p[n];

        if (is_alpha(c) || is_digit(c) || (c != '\0' && strchr("-._~!$&'()*+;=", c)))
            n++;
        else if (c == '%' && s.n - n >= 3 && is_hex(s.p[n + 1]) && is_hex(s.p[n + 2]))
            n += 3;
        else
            break;
    }
    return n;
}

/* host [ ":" port ], the host not empty. */
static bool is_authority(struct span s, bool *odd)
{
    size_t host = reg_name_length(s);
    const char *close = s.n > 0 ? memchr(s.p, ']', s.n) : NULL;

    if (s.n > 0 && s.p[0] == '[') {
        if (!close || !is_ipv6((struct span){s.p + 1, (size_t)(close - s.p) - 1}))
            return false;
        host = (size_t)(close - s.p) + 1;
    }
    if (host == 0)
        return false;
    s = span_from(s, host);
    return s.n == 0 || (s.p[0] == ':' && is_port(span_from(s, 1), odd));
}

static void read_host(struct reference *r, struct span authority)
{
    bool odd = false;
    unsigned count = reference_find(r, "Host", &r->host);

    if (count > 1)
        reference_fault(r, REFERENCE_400, "there is more than one Host");
    if (count == 0 && r->minor > 0)
        reference_fault(r, REFERENCE_400, "there is no Host");
    if (count > 0 && r->host.n > 0 && !is_authority(r->host, &odd))
        reference_fault(r, REFERENCE_400, "Host is malformed");
    if (authority.n > 0) /* RFC 9112 section 3.2.2 */
        r->host = authority;
    if (odd)
        r->may_refuse |= REFERENCE_400;
}

/* ---- targets: RFC 9112 section 3.2 ---- */

static bool is_visible(struct span s)
{
    for (size_t i = 0; i < s.n; i++)
        if ((unsigned char)s.p[i] <= 0x20 || (unsigned char)s.p[i] > 0x7e)
            return false;
    return true;
}

static size_t scheme_length(struct span s)
{
    static const char *const schemes[] = {"http://", "https://"};

    for (size_t i = 0; i < 2; i++) {
        size_t n = strlen(schemes[i]);

        if (s.n >= n && span_is_nocase((struct span){s.p, n}, schemes[i]))
            return n;
    }
    return 0;
}

static struct span read_absolute(struct reference *r, struct span s, bool options)
{
    struct span rest = span_from(s, scheme_length(s)), authority = rest;
    bool odd = false;

    if (rest.n == s.n) {
        reference_fault(r, REFERENCE_400, "the target has no form");
        return rest;
    }
    while (rest.n > 0 && rest.p[0] != '/' && rest.p[0] != '?')
        rest = span_from(rest, 1);
    authority.n -= rest.n;
    if (!is_authority(authority, &odd))
        reference_fault(r, REFERENCE_400, "the target's authority is malformed");
    if (odd)
        r->may_refuse |= REFERENCE_400;
    r->target = rest;
    if (rest.n == 0)
        r->target = options ? (struct span){"*", 1} : (struct span){"/", 1};
    else if (rest.p[0] == '?')
        r->prefix = (struct span){"/", 1};
    return authority;
}

/* Returns the authority of an absolute-form. */
static struct span read_target(struct reference *r, struct span s)
{
    struct span none = {"", 0};
    bool options = span_is(r->method, "OPTIONS");

    r->target = s;
    if (s.n == 0 || !is_visible(s) || memchr(s.p, '#', s.n)) {
        reference_fault(r, REFERENCE_400, "the target is malformed");
        return none;
    }
    if (s.p[0] == '/' || (options && span_is(s, "*")))
        return none;
    if (span_is(r->method, "CONNECT")) /* refused, whatever its authority-form is */
        return none;
    return read_absolute(r, s, options);
}

/* ---- framing: RFC 9112 section 6 ---- */

static void read_length(struct reference *r, unsigned count, struct span s)
{
    bool over = false;

    r->framing = REFERENCE_LENGTH;
    for (size_t i = 0; i < s.n; i++) {
        uint64_t digit = (uint64_t)(s.p[i] - '0');

        if (!is_digit(s.p[i])) {
            reference_fault(r, REFERENCE_400, "Content-Length is no number");
            return;
        }
        over |= r->length > ((uint64_t)INT64_MAX - digit) / 10;
        r->length = r->length * 10 + digit;
    }
    if (count > 1 || s.n == 0 || over)
        reference_fault(r, REFERENCE_400, "Content-Length is repeated, empty or too large");
}

static void read_framing(struct reference *r)
{
    struct span coding, length;
    unsigned codings = reference_find(r, "Transfer-Encoding", &coding);
    unsigned lengths = reference_find(r, "Content-Length", &length);

    if (lengths > 0)
        read_length(r, lengths, length);
    if (codings == 0)
        return;
    r->framing = REFERENCE_CHUNKED;
    if (lengths > 0 || codings > 1 || r->minor == 0)
        reference_fault(r, REFERENCE_400, "Transfer-Encoding where it may not be");
    if (!span_is_nocase(coding, "chunked"))
        reference_fault(r, REFERENCE_400 | REFERENCE_501, "a transfer coding other than chunked");
}

/* ---- the rest ---- */

static void read_connection(struct reference *r)
{
    bool keep_alive = false, close = false;

    for (unsigned i = 0; i < r->field_count; i++) {
        struct span list = r->fields[i].value, option;

        while (span_is_nocase(r->fields[i].name, "Connection") && reference_element(&list, &option)) {
            keep_alive |= span_is_nocase(option, "keep-alive");
            close |= span_is_nocase(option, "close");
            if (r->option_count < REFERENCE_OPTIONS_MAX)
                r->options[r->option_count++] = option;
            else
                reference_fault(r, REFERENCE_431 | REFERENCE_400, "Connection has too many options");
        }
    }
    r->last = close || (r->minor == 0 && !keep_alive); /* RFC 9112 section 9.3 */
}

/* RFC 9112 section 6.3. What the fields say must be sound also where no content follows. */
void reference_response_head(struct reference *r, bool to_head)
{
    r->framing = REFERENCE_CLOSE;
    read_framing(r);
    read_connection(r);
    if (to_head || r->status < 200 || r->status == 204 || r->status == 304)
        r->framing = REFERENCE_NO_CONTENT;
    r->last |= r->framing == REFERENCE_CLOSE;
}

/* RFC 9110 section 10.1.1; HTTP/1.0 knows no expectations. */
static void read_expect(struct reference *r)
{
    for (unsigned i = 0; i < r->field_count && r->minor > 0; i++) {
        struct span list = r->fields[i].value, expectation;

        while (span_is_nocase(r->fields[i].name, "Expect") && reference_element(&list, &expectation)) {
            r->expects = true;
            if (!span_is_nocase(expectation, "100-continue"))
                reference_fault(r, REFERENCE_417, "an expectation that is not known");
        }
    }
}

/* received-protocol RWS received-by [ RWS comment ], received by us (RFC 9110 section 7.6.3). The contract does not ask
 * for the white space before the comment. */
static bool is_our_via(struct span entry)
{
    while (entry.n > 0 && entry.p[0] != ' ' && entry.p[0] != '\t')
        entry = span_from(entry, 1);
    entry = reference_trim(entry);
    for (size_t i = 0; i < entry.n; i++)
        if (entry.p[i] == ' ' || entry.p[i] == '\t' || entry.p[i] == '(')
            entry.n = i;
    return span_is_nocase(entry, "loadbalancer");
}

static void read_via(struct reference *r)
{
    unsigned ours = 0;

    for (unsigned i = 0; i < r->field_count; i++) {
        struct span list = r->fields[i].value, entry;

        while (span_is_nocase(r->fields[i].name, "Via") && reference_element(&list, &entry))
            ours += is_our_via(entry);
    }
    if (ours > (r->behind ? 6 : 5))
        reference_fault(r, REFERENCE_508, "it has come by too often");
}

void reference_head(struct reference *r, struct span target)
{
    struct span authority;

    read_method(r);
    authority = read_target(r, target);
    read_host(r, authority);
    read_framing(r);
    read_connection(r);
    read_expect(r);
    read_via(r);
    if (r->client_id && reference_find(r, r->client_id, NULL) > 1)
        reference_fault(r, REFERENCE_400, "the client id is repeated");
}
