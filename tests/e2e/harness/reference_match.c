/* What of a request a backend has to get, and whether it got that: RFC 9110 section 7.6 and the contract. */
#include "reference_impl.h"

#include <stdio.h>
#include <string.h>

enum fate {
    FATE_STAYS,
    FATE_MAY_STAY, /* in its place, or not at all */
    FATE_GOES,     /* or is written anew, elsewhere in the head */
};

/* About one connection, or somebody else's business: nothing of them gets through. */
static const char *const ended_here[] = {"Keep-Alive", "Proxy-Connection", "Proxy-Authenticate", "Proxy-Authorization",
                                         "Forwarded"};

/* What a backend gets is the proxy's own: looked at one by one. */
static const char *const written_anew[] = {"Connection", "TE",     "Trailer",        "Transfer-Encoding", "Upgrade",
                                           "Host",       "Expect", "Content-Length", "X-Request-ID"};

/* What Connection may not name away, beside those. */
static const char *const kept_against_connection[] = {"Authorization", "Cookie", "Via", "Date"};

static bool is_in(struct span name, const char *const *list, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (span_is_nocase(name, list[i]))
            return true;
    return false;
}

#define IS_IN(name, list) is_in(name, list, sizeof(list) / sizeof *(list))

static bool is_ended(struct span name)
{
    return IS_IN(name, ended_here) || IS_IN(name, written_anew);
}

static bool is_forwarding(struct span name)
{
    return name.n >= 12 && span_is_nocase((struct span){name.p, 12}, "X-Forwarded-");
}

static bool is_nominated(const struct reference *r, struct span name)
{
    for (unsigned i = 0; i < r->option_count; i++)
        if (span_eq_nocase(r->options[i], name))
            return true;
    return false;
}

static enum fate fate_of(const struct reference *sent, struct span name)
{
    if (is_ended(name) || is_forwarding(name) || memchr(name.p, '_', name.n))
        return FATE_GOES;
    if (IS_IN(name, kept_against_connection) || !is_nominated(sent, name) ||
        (sent->client_id && span_is_nocase(name, sent->client_id)))
        return FATE_STAYS;
    /* The contract keeps it, the RFC would let it go. */
    return span_is_nocase(name, "Content-Type") ? FATE_MAY_STAY : FATE_GOES;
}

/* ---- what the proxy writes ---- */

static const char *check_one(const struct reference *got, const char *name, const char *value, const char *fault)
{
    struct span s;

    return reference_find(got, name, &s) == 1 && span_is(s, value) ? NULL : fault;
}

static bool is_sane_id(struct span s)
{
    for (size_t i = 0; i < s.n; i++)
        if (!is_alpha(s.p[i]) && !is_digit(s.p[i]) && (s.p[i] == '\0' || !strchr("._-:=+/", s.p[i])))
            return false;
    return s.n > 0 && s.n <= 128;
}

static const char *check_request_id(const struct reference *sent, const struct reference *got)
{
    struct span id, own;

    if (reference_find(got, "X-Request-ID", &id) != 1)
        return "there is not one X-Request-ID";
    if (reference_find(sent, "X-Request-ID", &own) == 1 && is_sane_id(own))
        return span_eq(id, own) ? NULL : "X-Request-ID is not the client's";
    if (id.n != 32)
        return "X-Request-ID is not 32 digits";
    for (size_t i = 0; i < id.n; i++)
        if (!is_hex(id.p[i]))
            return "X-Request-ID is not hexadecimal";
    return NULL;
}

static const char *check_host(const struct reference *sent, const struct reference *got)
{
    struct span host, forwarded;
    /* For who does not say whom he speaks to, as HTTP/1.0 allows, a name is put in (RFC 9112 section 3.3). */
    bool own = sent->minor == 0 && sent->host.n == 0;

    if (reference_find(got, "Host", &host) != 1 || (own ? host.n == 0 : !span_eq(host, sent->host)))
        return "Host is not the request's";
    if (reference_find(got, "X-Forwarded-Host", &forwarded) != 1 || !span_eq(forwarded, host))
        return "X-Forwarded-Host is not the request's host";
    return NULL;
}

static const char *check_forwarding(const struct reference *got, const char *client_ip)
{
    unsigned forwarding = 0;

    for (unsigned i = 0; i < got->field_count; i++)
        forwarding += is_forwarding(got->fields[i].name);
    if (forwarding != 3)
        return "a forwarding field of the client's got through";
    if (!client_ip)
        return NULL;
    return check_one(got, "X-Forwarded-For", client_ip, "X-Forwarded-For is not the client's address");
}

/* Does a list in any of the fields of that name hold the element? */
static bool lists(const struct reference *r, const char *name, struct span wanted)
{
    for (unsigned i = 0; i < r->field_count; i++) {
        struct span list = r->fields[i].value, element;

        while (span_is_nocase(r->fields[i].name, name) && reference_element(&list, &element))
            if (span_eq_nocase(element, wanted))
                return true;
    }
    return false;
}

static bool asks_to_upgrade(const struct reference *r)
{
    return r->minor > 0 && reference_find(r, "Upgrade", NULL) > 0 && is_nominated(r, (struct span){"upgrade", 7});
}

/* h2c is never asked of a backend; other protocols may be, by a client of 1.1, and then Connection says so. */
static const char *check_upgrade(const struct reference *sent, const struct reference *got)
{
    unsigned count = reference_find(got, "Upgrade", NULL);

    if (count == 0)
        return is_nominated(got, (struct span){"upgrade", 7}) ? "Connection names an Upgrade that is not there" : NULL;
    if (!asks_to_upgrade(sent) || !asks_to_upgrade(got) || count > reference_find(sent, "Upgrade", NULL))
        return "an Upgrade that was not asked for";
    for (unsigned i = 0; i < got->field_count; i++) {
        struct span list = got->fields[i].value, protocol;

        while (span_is_nocase(got->fields[i].name, "Upgrade") && reference_element(&list, &protocol))
            if (span_is_nocase(protocol, "h2c") || !lists(sent, "Upgrade", protocol))
                return "a protocol that was not asked for, or h2c";
    }
    return NULL;
}

static const char *check_connection(const struct reference *got)
{
    struct span te;
    unsigned count = reference_find(got, "TE", &te);

    for (unsigned i = 0; i < got->option_count; i++)
        if (!span_is_nocase(got->options[i], "upgrade") && !span_is_nocase(got->options[i], "te"))
            return "an option of the client's connection got through";
    if (count > 1 || (count == 1 && !span_is_nocase(te, "trailers")))
        return "TE got through";
    return NULL;
}

/* It goes with the trailers, or with the connection. */
static const char *check_trailer(const struct reference *sent, const struct reference *got)
{
    struct span own, value;
    unsigned count = reference_find(got, "Trailer", &value);

    if (count == 0 || (count <= reference_find(sent, "Trailer", &own) && span_eq(own, value)))
        return NULL;
    return "a Trailer that was not sent";
}

/* The last Via is the proxy's own. */
static const char *check_via(const struct reference *sent, const struct reference *got)
{
    struct span via = {"", 0};

    for (unsigned i = 0; i < got->field_count; i++)
        if (span_is_nocase(got->fields[i].name, "Via"))
            via = got->fields[i].value;
    return span_is(via, sent->minor == 0 ? "1.0 loadbalancer" : "1.1 loadbalancer") ? NULL : "Via is not signed";
}

/* ---- what stays ---- */

/* Is that field of `got` to be looked for among the client's? */
static bool is_of_client(const struct reference *got, unsigned at)
{
    struct span name = got->fields[at].name;

    if (IS_IN(name, written_anew) || is_forwarding(name))
        return false;
    if (!span_is_nocase(name, "Via"))
        return true;
    for (unsigned i = at + 1; i < got->field_count; i++)
        if (span_is_nocase(got->fields[i].name, "Via"))
            return true;
    return false;
}

static bool is_same_field(const struct reference_field *a, const struct reference_field *b)
{
    return span_eq(a->name, b->name) && span_eq(a->value, b->value);
}

/* The client's fields in their order and spelling, and no others. */
static const char *check_fields(const struct reference *sent, const struct reference *got)
{
    unsigned at = 0;

    for (unsigned i = 0; i < got->field_count; i++) {
        if (!is_of_client(got, i))
            continue;
        for (;; at++) {
            if (at == sent->field_count)
                return "a field that was not sent, or not there";
            enum fate fate = fate_of(sent, sent->fields[at].name);
            bool same = is_same_field(&sent->fields[at], &got->fields[i]);
            if (fate == FATE_STAYS && !same)
                return "a field is missing or changed";
            if (fate != FATE_GOES && same)
                break;
        }
        at++;
    }
    for (; at < sent->field_count; at++)
        if (fate_of(sent, sent->fields[at].name) == FATE_STAYS)
            return "a field is missing";
    return NULL;
}

/* ---- content ---- */

static const char *check_framing(const struct reference *sent, const struct reference *got)
{
    struct span value;
    char length[32];

    if (got->framing != sent->framing)
        return "the content is framed in another way";
    if (got->framing != REFERENCE_LENGTH)
        return NULL;
    snprintf(length, sizeof length, "%llu", (unsigned long long)sent->length);
    reference_find(got, "Content-Length", &value);
    return span_is(value, length) ? NULL : "Content-Length is another, or not in its canonical form";
}

static const char *check_content(const struct reference *sent, const struct reference *got, bool cut)
{
    if (got->content_n > sent->content_n || (!cut && got->content_n < sent->content_n))
        return "the content is of another length";
    return got->content_n == 0 || memcmp(sent->content, got->content, got->content_n) == 0 ? NULL
                                                                                           : "the content differs";
}

/* Those that frame, route, authenticate or tell of forwarding. */
static bool is_forbidden_trailer(struct span name)
{
    static const char *const others[] = {"Authorization",    "Cookie", "Set-Cookie",
                                         "WWW-Authenticate", "Via",    "X-Client-ID"};

    return is_ended(name) || IS_IN(name, others) || is_forwarding(name) || memchr(name.p, '_', name.n);
}

/* Trailers may be dropped; what comes is the client's, in its order, and nothing that a trailer may not say. */
static const char *check_trailers(const struct reference *sent, const struct reference *got)
{
    unsigned at = 0;

    for (unsigned i = 0; i < got->trailer_count; i++, at++) {
        if (is_forbidden_trailer(got->trailers[i].name))
            return "a forbidden trailer got through";
        while (at < sent->trailer_count && !is_same_field(&sent->trailers[at], &got->trailers[i]))
            at++;
        if (at == sent->trailer_count)
            return "a trailer that was not sent";
    }
    return NULL;
}

static const char *check_start(const struct reference *sent, const struct reference *got)
{
    struct span rest = got->target;

    if (!span_eq(sent->method, got->method))
        return "the method is another";
    if (got->prefix.n > 0 || rest.n < sent->prefix.n || !span_eq((struct span){rest.p, sent->prefix.n}, sent->prefix) ||
        !span_eq(span_from(rest, sent->prefix.n), sent->target))
        return "the target is another";
    return got->minor == 1 ? NULL : "the version is not 1.1";
}

static const char *check_expect(const struct reference *sent, const struct reference *got)
{
    struct span value;
    unsigned count = reference_find(got, "Expect", &value);

    if (!sent->expects)
        return sent->minor > 0 && count > 0 && value.n > 0 ? "an expectation that was not sent" : NULL;
    return count == 1 && span_is_nocase(value, "100-continue") ? NULL : "the expectation is not there once";
}

const char *reference_compare(const struct reference *sent, const struct reference *got, const char *client_ip,
                              bool cut)
{
    const char *fault = check_start(sent, got);

    if (!fault)
        fault = check_host(sent, got);
    if (!fault)
        fault = check_forwarding(got, client_ip);
    if (!fault)
        fault = check_one(got, "X-Forwarded-Proto", "http", "X-Forwarded-Proto is not http");
    if (!fault)
        fault = check_request_id(sent, got);
    if (!fault)
        fault = check_upgrade(sent, got);
    if (!fault)
        fault = check_connection(got);
    if (!fault)
        fault = check_trailer(sent, got);
    if (!fault)
        fault = check_via(sent, got);
    if (!fault)
        fault = check_expect(sent, got);
    if (!fault)
        fault = check_fields(sent, got);
    if (!fault)
        fault = check_framing(sent, got);
    if (!fault)
        fault = check_content(sent, got, cut);
    return fault ? fault : check_trailers(sent, got);
}
