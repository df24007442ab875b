/* The address that a request counts for: the peer's, or what its trusted proxies say. */
#include "limit/limiter.h"

/* Cuts the last element off a comma-separated list. False when there is none. */
static bool last_element(struct str *list, struct str *element)
{
    if (list->n == 0)
        return false;
    size_t begin = list->n;
    while (begin > 0 && list->p[begin - 1] != ',')
        begin--;
    *element = str_trim_ows(str_make(list->p + begin, list->n - begin));
    list->n = begin > 0 ? begin - 1 : 0;
    return true;
}

static bool is_port(struct str s)
{
    uint64_t port;
    return str_parse_u64(s, &port) && port <= UINT16_MAX;
}

/* An address as proxies write it: with or without brackets, a port behind them or behind an IPv4 address. */
static bool parse_hop(struct str s, struct ip *out)
{
    size_t end;
    if (s.n > 0 && s.p[0] == '[') {
        end = str_find(s, ']');
        bool ends =
            end + 1 == s.n || (end + 1 < s.n && s.p[end + 1] == ':' && is_port(str_make(s.p + end + 2, s.n - end - 2)));
        return ends && str_find(str_make(s.p + 1, end - 1), ':') < end - 1 && ip_parse(str_make(s.p + 1, end - 1), out);
    }
    if (ip_parse(s, out))
        return true;
    end = str_find(s, ':');
    return end < s.n && is_port(str_make(s.p + end + 1, s.n - end - 1)) && ip_parse(str_make(s.p, end), out);
}

/* Goes back through one field line while its entries are trusted. False when the walk has ended in it. */
static bool walk_line(const struct config *config, struct str line, struct ip *client, bool *known)
{
    struct str element;
    while (last_element(&line, &element)) {
        struct ip hop;
        if (element.n == 0) /* an empty element of a list counts for nothing (RFC 9110 section 5.6.1) */
            continue;
        if (!parse_hop(element, &hop))
            return false;
        *client = hop;
        *known = true;
        if (!cidr_set_contains_ip(&config->trusted_proxies, &hop))
            return false;
    }
    return true;
}

bool identity_address(const struct config *config, const struct peer *peer, const struct headers *h, struct ip *out)
{
    bool known = !peer->is_unix;
    *out = peer->ip;
    if (!headers_have(h, FIELD_X_FORWARDED_FOR) || !cidr_set_contains_peer(&config->trusted_proxies, peer))
        return known;
    for (unsigned i = h->n; i-- > 0;)
        if (h->v[i].id == FIELD_X_FORWARDED_FOR && !walk_line(config, h->v[i].value, out, &known))
            break;
    return known;
}
