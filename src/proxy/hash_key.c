/* What `balance: hash` hashes of a request: its client's address, its target, or the value of a field or a cookie. */
#include "exchange_impl.h"

/* The value of cookie `name` in one Cookie field (RFC 6265 section 4.2): pairs parted by "; ". */
static bool find_cookie(struct str list, struct str name, struct str *value)
{
    while (list.n > 0) {
        size_t end = str_find(list, ';'), next = end < list.n ? end + 1 : end;
        struct str pair = str_trim_ows(str_make(list.p, end));
        size_t eq = str_find(pair, '=');
        if (eq < pair.n && str_eq(str_make(pair.p, eq), name)) {
            *value = str_make(pair.p + eq + 1, pair.n - eq - 1);
            return true;
        }
        list = str_make(list.p + next, list.n - next);
    }
    return false;
}

static bool find_in_cookies(const struct headers *h, struct str name, struct str *value)
{
    for (unsigned i = 0; i < h->n; i++)
        if (h->v[i].id == FIELD_COOKIE && find_cookie(h->v[i].value, name, value))
            return true;
    return false;
}

static bool find_key(const struct exchange *x, const struct request *r, char ip[IP_TEXT_SIZE], struct str *key)
{
    const struct config *config = x->px->config;
    const struct field *f;
    switch (config->hash_key) {
    case HASH_KEY_NONE: return false;
    case HASH_KEY_IP: *key = str_make(ip, ip_format(&x->client, ip)); return x->client_known;
    case HASH_KEY_TARGET: *key = x->target; return true;
    case HASH_KEY_COOKIE: return find_in_cookies(&r->headers, str_of(config->hash_key_name), key);
    case HASH_KEY_HEADER:
        f = headers_find_name(&r->headers, str_of(config->hash_key_name), NULL);
        if (f)
            *key = f->value;
        return f && f->value.n > 0;
    }
    return false;
}

void hash_key_note(struct exchange *x, const struct request *r)
{
    char ip[IP_TEXT_SIZE];
    struct str key;
    struct pick *p = &x->attempt.pick;
    if (x->px->config->balance != BALANCE_HASH)
        return;
    p->keyed = find_key(x, r, ip, &key);
    if (p->keyed)
        p->key = upstream_hash(key);
}
