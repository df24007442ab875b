/* What a gateway does to the messages it passes on.
 * Fields are judged by their ids, in sets of bits; only names outside the catalogue are ever compared as text. */
#include "http/rules.h"

#define BIT(id) (UINT32_C(1) << FIELD_##id)

/* About one connection only (RFC 9110 sections 7.6.1 and 11.7, RFC 9112 section 6.1): never passed on. */
#define HOP_BY_HOP                                                                                                     \
    (BIT(CONNECTION) | BIT(KEEP_ALIVE) | BIT(PROXY_CONNECTION) | BIT(PROXY_AUTHENTICATE) |                             \
     BIT(PROXY_AUTHENTICATION_INFO) | BIT(PROXY_AUTHORIZATION) | BIT(TE) | BIT(TRAILER) | BIT(TRANSFER_ENCODING) |     \
     BIT(UPGRADE))

#define X_FORWARDED (BIT(X_FORWARDED_FOR) | BIT(X_FORWARDED_OTHER) | BIT(X_FORWARDED_HOST) | BIT(X_FORWARDED_PROTO))

/* What Connection may not nominate: routing, framing and identity depend on it. */
#define NOT_NOMINABLE                                                                                                  \
    (HOP_BY_HOP | X_FORWARDED | BIT(HOST) | BIT(CONTENT_LENGTH) | BIT(AUTHORIZATION) | BIT(COOKIE) | BIT(VIA) |        \
     BIT(FORWARDED) | BIT(X_REQUEST_ID) | BIT(CONTENT_TYPE) | BIT(EXPECT) | BIT(DATE))

/* Bytes of what is written beside the message's own, its values apart: 240 in the worst case. */
#define BOUND_ADDED 320u

static bool in_set(uint32_t set, enum field_id id)
{
    return set >> id & 1;
}

/* Does the name begin like one of those in which proxies in front of us tell who the client is? It is the client who
 * writes Connection, and it must not be able to take them away. */
static bool tells_of_client(struct str name)
{
    static const struct str beginnings[] = {
        STR_INIT("cf-connecting-ip"), STR_INIT("true-client-ip"), STR_INIT("x-auth-"), STR_INIT("x-client-"),
        STR_INIT("x-real-ip"),        STR_INIT("x-remote-user"),  STR_INIT("x-ssl-"),
    };

    for (size_t i = 0; i < sizeof beginnings / sizeof beginnings[0]; i++)
        if (name.n >= beginnings[i].n && str_eq_nocase(str_make(name.p, beginnings[i].n), beginnings[i]))
            return true;
    return false;
}

/* The fields that Connection names and that end here for it. */
struct nominations {
    struct str v[CONNECTION_OPTIONS_MAX];
    unsigned n;
};

static bool is_nominable(struct str name, bool to_backend, struct str kept)
{
    return !in_set(NOT_NOMINABLE, field_id_of(name)) && !str_eq_nocase(name, kept) &&
           !(to_backend && tells_of_client(name));
}

static void nominate(struct nominations *to, struct str list, bool to_backend, struct str kept)
{
    struct str option;

    while (to->n < CONNECTION_OPTIONS_MAX && str_next_element(&list, &option))
        if (is_nominable(option, to_backend, kept))
            to->v[to->n++] = option;
}

/* `kept` is one more name that may not be nominated. */
static void nominations_read(struct nominations *to, const struct headers *h, bool to_backend, struct str kept)
{
    to->n = 0;
    for (unsigned i = 0; i < h->n && headers_have(h, FIELD_CONNECTION); i++)
        if (h->v[i].id == FIELD_CONNECTION)
            nominate(to, h->v[i].value, to_backend, kept);
}

static bool is_nominated(const struct nominations *of, const struct field *f)
{
    for (unsigned i = 0; i < of->n; i++)
        if (of->v[i].n == f->name.n && str_eq_nocase(of->v[i], f->name))
            return true;
    return false;
}

/* Writes the fields that are neither in `dropped` nor nominated; to a backend, nor have '_' in their names. */
static void write_fields(struct head_writer *w, const struct headers *h, uint32_t dropped, bool to_backend,
                         struct str kept)
{
    struct nominations nominated;

    nominations_read(&nominated, h, to_backend, kept);
    for (unsigned i = 0; i < h->n; i++) {
        const struct field *f = &h->v[i];
        if (in_set(dropped, f->id) || is_nominated(&nominated, f) || (to_backend && memchr(f->name.p, '_', f->name.n)))
            continue;
        write_field(w, f->name, f->value);
    }
}

static void write_via(struct head_writer *w, unsigned minor)
{
    write_str(w, minor > 0 ? STR("Via: 1.1 " RULES_VIA_PSEUDONYM "\r\n") : STR("Via: 1.0 " RULES_VIA_PSEUDONYM "\r\n"));
}

/* What this connection is asked for, and what it is told (RFC 9110 sections 7.6.1, 7.8 and 10.1.4). */
static void write_connection(struct head_writer *w, struct str upgrade, bool trailers)
{
    if (upgrade.n > 0) {
        write_str(w, trailers ? STR("Connection: upgrade, TE\r\n") : STR("Connection: upgrade\r\n"));
        write_field(w, STR("Upgrade"), upgrade);
    } else if (trailers) {
        write_str(w, STR("Connection: TE\r\n"));
    }
    if (trailers)
        write_str(w, STR("TE: trailers\r\n"));
}

static void write_framing(struct head_writer *w, const struct framing *f)
{
    if (f->kind == FRAMING_LENGTH)
        write_field_u64(w, STR("Content-Length"), f->length);
    else if (f->kind == FRAMING_CHUNKED)
        write_str(w, STR("Transfer-Encoding: chunked\r\n"));
}

bool rules_request_id_is_sane(struct str value)
{
    if (value.n == 0 || value.n > 128)
        return false;
    for (size_t i = 0; i < value.n; i++) {
        unsigned char c = (unsigned char)value.p[i], lower = ascii_lower(c);
        if (!(lower >= 'a' && lower <= 'z') && !(c >= '0' && c <= '9') && !(c && strchr("._-:=+/", c)))
            return false;
    }
    return true;
}

/* Is this element of Via ours: protocol, white space, our pseudonym, and maybe a comment? */
static bool via_is_ours(struct str element)
{
    size_t space = 0, end = 0;
    while (space < element.n && element.p[space] != ' ' && element.p[space] != '\t')
        space++;
    struct str by = str_trim_ows(str_make(element.p + space, element.n - space));

    while (end < by.n && by.p[end] != ' ' && by.p[end] != '\t' && by.p[end] != '(')
        end++;
    return str_eq_nocase(str_make(by.p, end), STR(RULES_VIA_PSEUDONYM));
}

enum err rules_check_loop(const struct request *r)
{
    const struct headers *h = &r->headers;
    unsigned ours = 0;

    for (unsigned i = 0; i < h->n && headers_have(h, FIELD_VIA); i++) {
        if (h->v[i].id != FIELD_VIA)
            continue;
        struct str list = h->v[i].value, element;
        while (str_next_element(&list, &element))
            ours += via_is_ours(element);
    }
    return ours > RULES_MAX_LOOPS ? ERR_LOOP_DETECTED : ERR_OK;
}

bool rules_max_forwards(const struct request *r, uint64_t *left)
{
    unsigned count;
    const struct field *f = headers_find(&r->headers, FIELD_MAX_FORWARDS, &count);

    return r->method == METHOD_OPTIONS && count == 1 && str_parse_u64(f->value, left);
}

size_t rules_request_bound(const struct request *r, struct str head, const struct forward *f)
{
    /* A field may have come without the space behind its colon. */
    return head.n + r->headers.n + 2 * r->host.n + f->client_ip.n + f->request_id.n + f->upgrade.n + BOUND_ADDED;
}

/* Every X-Forwarded-For of a trusted peer, and its address, in one field. */
static void write_forwarded_for(struct head_writer *w, const struct headers *h, const struct forward *f)
{
    bool some = false;

    write_str(w, STR("X-Forwarded-For: "));
    for (unsigned i = 0; i < h->n && f->trusted && headers_have(h, FIELD_X_FORWARDED_FOR); i++) {
        if (h->v[i].id != FIELD_X_FORWARDED_FOR || h->v[i].value.n == 0)
            continue;
        write_str(w, some ? STR(", ") : STR(""));
        write_str(w, h->v[i].value);
        some = true;
    }
    /* What a trusted peer says stands by itself where the peer has no address to be added. */
    if (!some || f->client_ip.n > 0) {
        write_str(w, some ? STR(", ") : STR(""));
        write_str(w, f->client_ip.n > 0 ? f->client_ip : STR("unknown"));
    }
    write_str(w, STR("\r\n"));
}

static void write_forwarding(struct head_writer *w, const struct request *r, const struct forward *f)
{
    uint32_t kept = f->trusted ? r->headers.present : 0;

    write_forwarded_for(w, &r->headers, f);
    if (!in_set(kept, FIELD_X_FORWARDED_PROTO))
        write_str(w, STR("X-Forwarded-Proto: http\r\n"));
    if (!in_set(kept, FIELD_X_FORWARDED_HOST))
        write_field(w, STR("X-Forwarded-Host"), r->host);
    write_field(w, STR("X-Request-ID"), f->request_id);
}

void rules_write_request(struct head_writer *w, const struct request *r, const struct forward *f)
{
    uint32_t dropped =
        HOP_BY_HOP | BIT(HOST) | BIT(CONTENT_LENGTH) | BIT(EXPECT) | BIT(X_REQUEST_ID) | BIT(X_FORWARDED_FOR);
    if (!f->trusted)
        dropped |= X_FORWARDED | BIT(FORWARDED);
    if (r->framing.kind == FRAMING_CHUNKED)
        dropped &= ~BIT(TRAILER);
    uint64_t left;
    bool counted = rules_max_forwards(r, &left) && left > 0;
    if (counted)
        dropped |= BIT(MAX_FORWARDS);

    write_str(w, r->method_text);
    write_str(w, STR(" "));
    write_str(w, r->target_prefix);
    write_str(w, r->target);
    write_str(w, STR(" HTTP/1.1\r\n"));
    write_field(w, STR("Host"), r->host);
    write_fields(w, &r->headers, dropped, true, f->client_id_name);
    if (counted)
        write_field_u64(w, STR("Max-Forwards"), left - 1);
    write_connection(w, f->upgrade, r->takes_trailers);
    if (r->expect_continue)
        write_str(w, STR("Expect: 100-continue\r\n"));
    write_forwarding(w, r, f);
    write_via(w, r->minor);
    write_framing(w, &r->framing);
    write_end(w);
}

size_t rules_response_bound(const struct response *r, struct str head, const struct reply *reply)
{
    return head.n + r->headers.n + reply->extra.n + BOUND_ADDED;
}

/* The length that a body would have had: of a response to HEAD, and of a 304 (RFC 9110 section 8.6). */
static void write_absent_length(struct head_writer *w, const struct response *r, const struct reply *reply)
{
    const struct field *f = headers_find(&r->headers, FIELD_CONTENT_LENGTH, NULL);
    uint64_t length;

    if (f && (reply->to_head || r->status == 304) && r->status != 204 && str_parse_u64(f->value, &length))
        write_field_u64(w, STR("Content-Length"), length);
}

/* Which protocols a 426 asks for: it has to say so (RFC 9110 section 15.5.22). */
static void write_upgrade(struct head_writer *w, const struct headers *h)
{
    for (unsigned i = 0; i < h->n; i++)
        if (h->v[i].id == FIELD_UPGRADE)
            write_field(w, STR("Upgrade"), h->v[i].value);
}

void rules_write_response(struct head_writer *w, const struct response *r, const struct reply *reply)
{
    uint32_t dropped = HOP_BY_HOP | BIT(CONTENT_LENGTH);
    if (reply->trailers)
        dropped &= ~BIT(TRAILER);

    write_status_line(w, r->status, r->reason);
    write_fields(w, &r->headers, dropped, false, STR(""));
    write_via(w, r->minor);
    if (reply->framing.kind == FRAMING_NONE)
        write_absent_length(w, r, reply);
    else
        write_framing(w, &reply->framing);
    write_str(w, reply->extra);
    bool demands = r->status == 426 && headers_have(&r->headers, FIELD_UPGRADE);
    if (demands)
        write_upgrade(w, &r->headers);
    if (!reply->keep_alive)
        write_str(w, demands ? STR("Connection: close, upgrade\r\n") : STR("Connection: close\r\n"));
    else if (reply->minor == 0)
        write_str(w, demands ? STR("Connection: keep-alive, upgrade\r\n") : STR("Connection: keep-alive\r\n"));
    else if (demands)
        write_str(w, STR("Connection: upgrade\r\n"));
    write_end(w);
}

void rules_write_interim(struct head_writer *w, const struct response *r)
{
    write_status_line(w, r->status, r->reason);
    write_fields(w, &r->headers, HOP_BY_HOP | BIT(CONTENT_LENGTH), false, STR(""));
    write_end(w);
}

void rules_write_protocols(struct head_writer *w, const struct headers *h)
{
    struct str protocols[PROTOCOLS_MAX];
    unsigned n = protocols_read(h, protocols);

    for (unsigned i = 0; i < n; i++) {
        write_str(w, i > 0 ? STR(", ") : STR(""));
        write_str(w, protocols[i]);
    }
}

void rules_write_switch(struct head_writer *w, const struct response *r, struct str extra)
{
    write_status_line(w, r->status, r->reason);
    write_fields(w, &r->headers, HOP_BY_HOP | BIT(CONTENT_LENGTH), false, STR(""));
    write_via(w, r->minor);
    write_str(w, STR("Connection: upgrade\r\nUpgrade: "));
    rules_write_protocols(w, &r->headers);
    write_str(w, STR("\r\n"));
    write_str(w, extra);
    write_end(w);
}

bool rules_is_offered(const struct headers *h, struct str offer)
{
    struct str named[PROTOCOLS_MAX], offered;
    unsigned n = protocols_read(h, named);

    for (unsigned i = 0; i < n; i++) {
        struct str left = offer;
        bool found = false;
        while (!found && str_next_element(&left, &offered))
            found = str_eq_nocase(named[i], offered);
        if (!found)
            return false;
    }
    return n > 0;
}

/* ---- trailers ---- */

/* Fields that a recipient would have to know before the content, or that decide what may be done: framing, routing,
 * authentication, forwarding, request modifiers, response control, description of the content (RFC 9110 section 6.5.1).
 * Those of the catalogue are all of that kind. */
static bool is_forbidden_trailer(struct str name)
{
    static const struct str names[] = {
        STR_INIT("accept-encoding"),
        STR_INIT("age"),
        STR_INIT("authentication-info"),
        STR_INIT("cache-control"),
        STR_INIT("cdn-loop"),
        STR_INIT("clear-site-data"),
        STR_INIT("content-disposition"),
        STR_INIT("content-encoding"),
        STR_INIT("content-language"),
        STR_INIT("content-location"),
        STR_INIT("content-range"),
        STR_INIT("content-security-policy"),
        STR_INIT("early-data"),
        STR_INIT("expires"),
        STR_INIT("http2-settings"),
        STR_INIT("if-match"),
        STR_INIT("if-modified-since"),
        STR_INIT("if-none-match"),
        STR_INIT("if-range"),
        STR_INIT("if-unmodified-since"),
        STR_INIT("location"),
        STR_INIT("origin"),
        STR_INIT("pragma"),
        STR_INIT("priority"),
        STR_INIT("range"),
        STR_INIT("retry-after"),
        STR_INIT("set-cookie"),
        STR_INIT("strict-transport-security"),
        STR_INIT("vary"),
        STR_INIT("x-client-ip"),
        STR_INIT("x-http-method-override"),
        STR_INIT("x-real-ip"),
        STR_INIT("x-original-url"),
        STR_INIT("x-rewrite-url"),
    };

    if (field_id_of(name) != FIELD_OTHER)
        return true;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (str_eq_nocase(name, names[i]))
            return true;
    return false;
}

void rules_write_trailers(struct head_writer *w, struct str section, bool to_backend, struct str client_id_name)
{
    while (section.n > 0) {
        size_t line = str_find(section, '\r'), colon = str_find(section, ':');
        struct str name = str_make(section.p, colon);
        struct str value = str_trim_ows(str_make(section.p + colon + 1, line - colon - 1));
        bool doubtful = to_backend && memchr(name.p, '_', name.n);
        if (!doubtful && !is_forbidden_trailer(name) && !str_eq_nocase(name, client_id_name))
            write_field(w, name, value);
        section = str_make(section.p + line + 2, section.n - line - 2);
    }
}
