/* Field names told apart without a search: length and first letter leave one candidate.
 * Questions about the fields of a head. */
#include "http/headers.h"

#include "http/chars.h"

static const struct str names[FIELD_ID_COUNT] = {{"", 0},
#define X(id, name) {name, sizeof(name) - 1},
                                                 FIELD_CATALOGUE(X)
#undef X
};

/* The only field of the catalogue that a name of length `n` beginning with `first` (in lower case) can be. */
static enum field_id candidate(size_t n, unsigned char first)
{
    switch (n) {
    case 2: return FIELD_TE;
    case 3: return FIELD_VIA;
    case 4: return first == 'h' ? FIELD_HOST : FIELD_DATE;
    case 6: return first == 'c' ? FIELD_COOKIE : FIELD_EXPECT;
    case 7: return first == 'u' ? FIELD_UPGRADE : FIELD_TRAILER;
    case 9: return FIELD_FORWARDED;
    case 10: return first == 'c' ? FIELD_CONNECTION : FIELD_KEEP_ALIVE;
    case 12: return first == 'c' ? FIELD_CONTENT_TYPE : first == 'm' ? FIELD_MAX_FORWARDS : FIELD_X_REQUEST_ID;
    case 13: return FIELD_AUTHORIZATION;
    case 14: return FIELD_CONTENT_LENGTH;
    case 15: return FIELD_X_FORWARDED_FOR;
    case 16:
        return first == 'x' ? FIELD_X_FORWARDED_HOST : first == 'w' ? FIELD_WWW_AUTHENTICATE : FIELD_PROXY_CONNECTION;
    case 17: return first == 'x' ? FIELD_X_FORWARDED_PROTO : FIELD_TRANSFER_ENCODING;
    case 18: return FIELD_PROXY_AUTHENTICATE;
    case 19: return FIELD_PROXY_AUTHORIZATION;
    case 25: return FIELD_PROXY_AUTHENTICATION_INFO;
    default: return FIELD_OTHER;
    }
}

/* `lower` has `n` bytes, letters in lower case. */
static bool begins_nocase(const char *p, const char *lower, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (ascii_lower((unsigned char)p[i]) != (unsigned char)lower[i])
            return false;
    return true;
}

enum field_id field_id_of(struct str name)
{
    if (name.n == 0)
        return FIELD_OTHER;
    unsigned char first = ascii_lower((unsigned char)name.p[0]);
    enum field_id id = candidate(name.n, first);
    if (id != FIELD_OTHER && begins_nocase(name.p, names[id].p, name.n))
        return id;
    struct str prefix = STR("x-forwarded-");
    if (first == 'x' && name.n >= prefix.n && begins_nocase(name.p, prefix.p, prefix.n))
        return FIELD_X_FORWARDED_OTHER;
    return FIELD_OTHER;
}

const struct field *headers_find(const struct headers *h, enum field_id id, unsigned *count)
{
    const struct field *first = NULL;
    unsigned found = 0;

    if (headers_have(h, id)) {
        for (unsigned i = 0; i < h->n; i++) {
            if (h->v[i].id != id)
                continue;
            if (found++ == 0)
                first = &h->v[i];
        }
    }
    if (count)
        *count = found;
    return first;
}

const struct field *headers_find_name(const struct headers *h, struct str name, unsigned *count)
{
    const struct field *first = NULL;
    unsigned found = 0;

    for (unsigned i = 0; i < h->n; i++) {
        if (!str_eq_nocase(h->v[i].name, name))
            continue;
        if (found++ == 0)
            first = &h->v[i];
    }
    if (count)
        *count = found;
    return first;
}

bool headers_has_token(const struct headers *h, enum field_id id, struct str token)
{
    if (!headers_have(h, id))
        return false;
    for (unsigned i = 0; i < h->n; i++) {
        if (h->v[i].id != id)
            continue;
        struct str list = h->v[i].value, element;
        while (str_next_element(&list, &element))
            if (str_eq_nocase(element, token))
                return true;
    }
    return false;
}

/* Does an element of the list begin with such a scheme? A challenge's parameters are elements, too; what stands in
 * their quotes may be taken for one, which costs no more than a connection. */
static bool names_user(struct str list)
{
    struct str element;

    while (str_next_element(&list, &element)) {
        size_t blank = str_find(element, ' '), tab = str_find(element, '\t'); /* some servers take either */
        struct str scheme = str_make(element.p, blank < tab ? blank : tab);
        if (str_eq_nocase(scheme, STR("negotiate")) || str_eq_nocase(scheme, STR("ntlm")))
            return true;
    }
    return false;
}

bool headers_name_user_of_connection(const struct headers *h)
{
    if (!headers_have(h, FIELD_AUTHORIZATION) && !headers_have(h, FIELD_WWW_AUTHENTICATE))
        return false;
    for (unsigned i = 0; i < h->n; i++) {
        const struct field *f = &h->v[i];
        if ((f->id == FIELD_AUTHORIZATION || f->id == FIELD_WWW_AUTHENTICATE) && names_user(f->value))
            return true;
    }
    return false;
}

/* protocol-name ["/" protocol-version], both tokens. */
static bool is_protocol(struct str s)
{
    size_t slash = str_find(s, '/');
    struct str name = str_make(s.p, slash), version = slash < s.n ? str_make(s.p + slash + 1, s.n - slash - 1) : name;

    return is_token(name) && is_token(version) && !str_eq_nocase(name, STR("h2c"));
}

unsigned protocols_read(const struct headers *h, struct str out[PROTOCOLS_MAX])
{
    unsigned n = 0;

    for (unsigned i = 0; i < h->n && headers_have(h, FIELD_UPGRADE); i++) {
        if (h->v[i].id != FIELD_UPGRADE)
            continue;
        struct str list = h->v[i].value, protocol;
        while (n < PROTOCOLS_MAX && str_next_element(&list, &protocol))
            if (is_protocol(protocol))
                out[n++] = protocol;
    }
    return n;
}
