/* Addresses: text to bytes and back. inet_pton() and inet_ntop() do the spelling; this file does the strictness, the
 * IPv4-mapped form, and everything around a bare address: prefixes, ports, names, paths. */
#include "net/addr.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>

#define MAPPED_SIZE    12u /* bytes of the prefix ::ffff:0:0/96 */
#define NAME_MAX_SIZE  253u
#define LABEL_MAX_SIZE 63u

static const uint8_t mapped_prefix[MAPPED_SIZE] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

/* The first byte behind the hexadecimal digits that `s` begins with: in an address that is '.' or ':', in most names
 * something else. */
static char behind_digits(struct str s)
{
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i], lower = (char)(c | 0x20);
        if (!(c >= '0' && c <= '9') && !(lower >= 'a' && lower <= 'f'))
            return c;
    }
    return '\0';
}

bool ip_parse(struct str s, struct ip *out)
{
    char text[IP_TEXT_SIZE], mark = behind_digits(s);
    if ((mark != '.' && mark != ':') || s.n >= sizeof text || memchr(s.p, '\0', s.n))
        return false;
    bool v6 = mark == ':';
    memcpy(text, s.p, s.n);
    text[s.n] = '\0';

    struct ip ip;
    if (v6) {
        if (inet_pton(AF_INET6, text, ip.b) != 1)
            return false;
    } else {
        memcpy(ip.b, mapped_prefix, MAPPED_SIZE);
        if (inet_pton(AF_INET, text, ip.b + MAPPED_SIZE) != 1)
            return false;
    }
    *out = ip;
    return true;
}

/* Each number of a byte as text, worked out by the compiler, and its length behind it. */
struct octet {
    char digits[3];
    uint8_t n;
};

/* clang-format off */
#define DIGIT(v)  (char)('0' + (v) % 10)
#define OCTET(v)  {{DIGIT((v) >= 100 ? (v) / 100 : (v) >= 10 ? (v) / 10 : (v)), DIGIT((v) >= 100 ? (v) / 10 : (v)), DIGIT(v)}, \
                   (v) >= 100 ? 3 : (v) >= 10 ? 2 : 1}
#define FOUR(v)   OCTET(v), OCTET((v) + 1), OCTET((v) + 2), OCTET((v) + 3)
#define ROW(v)    FOUR(v), FOUR((v) + 4), FOUR((v) + 8), FOUR((v) + 12)
/* clang-format on */

static const struct octet octets[256] = {ROW(0),   ROW(16),  ROW(32),  ROW(48),  ROW(64),  ROW(80),
                                         ROW(96),  ROW(112), ROW(128), ROW(144), ROW(160), ROW(176),
                                         ROW(192), ROW(208), ROW(224), ROW(240)};

/* By hand, because every request asks for it and inet_ntop() goes through snprintf(): 3 ns instead of 250. Three bytes
 * are copied of every number; what is too many is written over. */
static size_t format_v4(const uint8_t b[4], char out[IP_TEXT_SIZE])
{
    char *p = out;
    for (int i = 0; i < 4; i++) {
        const struct octet *o = &octets[b[i]];
        memcpy(p, o->digits, sizeof o->digits);
        p += o->n;
        *p++ = '.';
    }
    *--p = '\0';
    return (size_t)(p - out);
}

size_t ip_format(const struct ip *ip, char out[IP_TEXT_SIZE])
{
    if (ip_is_v4(ip))
        return format_v4(ip->b + MAPPED_SIZE, out);
    inet_ntop(AF_INET6, ip->b, out, IP_TEXT_SIZE);
    return strlen(out);
}

bool ip_is_v4(const struct ip *ip)
{
    return memcmp(ip->b, mapped_prefix, MAPPED_SIZE) == 0;
}

bool ip_is_loopback(const struct ip *ip)
{
    static const struct ip one = {{[15] = 1}};
    return ip_is_v4(ip) ? ip->b[12] == 127 : ip_eq(ip, &one);
}

bool ip_eq(const struct ip *a, const struct ip *b)
{
    return memcmp(a->b, b->b, sizeof a->b) == 0;
}

struct ip ip_mask(const struct ip *ip, unsigned bits)
{
    struct ip masked = {{0}};
    size_t whole = bits / 8;
    memcpy(masked.b, ip->b, whole);
    if (bits % 8 != 0)
        masked.b[whole] = (uint8_t)(ip->b[whole] & (0xff00u >> bits % 8));
    return masked;
}

/* A decimal number up to `max`, without leading zeros. */
static bool parse_small(struct str s, unsigned max, unsigned *out)
{
    uint64_t v;
    if (!str_parse_u64(s, &v) || v > max || (s.n > 1 && s.p[0] == '0'))
        return false;
    *out = (unsigned)v;
    return true;
}

bool cidr_parse(struct str s, struct cidr *out)
{
    size_t slash = str_find(s, '/');
    struct str address = str_make(s.p, slash);
    struct cidr c = {.bits = 128};
    if (!ip_parse(address, &c.net))
        return false;
    if (slash < s.n) {
        /* The prefix counts in the form the address is spelled in, not in the form it has. */
        unsigned width = str_find(address, ':') < address.n ? 128 : 32, bits;
        if (!parse_small(str_make(s.p + slash + 1, s.n - slash - 1), width, &bits))
            return false;
        c.bits = 128 - width + bits;
    }
    struct ip masked = ip_mask(&c.net, c.bits);
    if (!ip_eq(&masked, &c.net))
        return false;
    *out = c;
    return true;
}

bool cidr_contains(const struct cidr *c, const struct ip *ip)
{
    struct ip masked = ip_mask(ip, c->bits);
    return ip_eq(&masked, &c->net);
}

bool cidr_set_contains_ip(const struct cidr_set *set, const struct ip *ip)
{
    for (size_t i = 0; i < set->n; i++) {
        if (cidr_contains(&set->v[i], ip))
            return true;
    }
    return false;
}

bool cidr_set_contains_peer(const struct cidr_set *set, const struct peer *peer)
{
    return peer->is_unix ? set->unix_peers : cidr_set_contains_ip(set, &peer->ip);
}

static struct addr addr_of_v6(const struct in6_addr *ip, uint16_t port)
{
    struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_port = htons(port), .sin6_addr = *ip};
    struct addr a = {.len = sizeof in6};
    memcpy(&a.ss, &in6, sizeof in6);
    return a;
}

struct addr addr_of_ip(const struct ip *ip, uint16_t port)
{
    if (!ip_is_v4(ip)) {
        struct in6_addr v6;
        memcpy(&v6, ip->b, sizeof v6);
        return addr_of_v6(&v6, port);
    }
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(port)};
    memcpy(&in.sin_addr, ip->b + MAPPED_SIZE, sizeof in.sin_addr);
    struct addr a = {.len = sizeof in};
    memcpy(&a.ss, &in, sizeof in);
    return a;
}

struct addr addr_with_port(const struct addr *a, uint16_t port)
{
    struct addr with = *a;
    if (a->sa.sa_family == AF_INET) {
        struct sockaddr_in in;
        memcpy(&in, &a->ss, sizeof in);
        in.sin_port = htons(port);
        memcpy(&with.ss, &in, sizeof in);
    } else {
        struct sockaddr_in6 in6;
        memcpy(&in6, &a->ss, sizeof in6);
        in6.sin6_port = htons(port);
        memcpy(&with.ss, &in6, sizeof in6);
    }
    return with;
}

struct peer peer_from_addr(const struct addr *a)
{
    struct peer peer = {.is_unix = a->sa.sa_family == AF_UNIX};
    if (a->sa.sa_family == AF_INET) {
        struct sockaddr_in in;
        memcpy(&in, &a->ss, sizeof in);
        memcpy(peer.ip.b, mapped_prefix, MAPPED_SIZE);
        memcpy(peer.ip.b + MAPPED_SIZE, &in.sin_addr, sizeof in.sin_addr);
        peer.port = ntohs(in.sin_port);
    } else if (a->sa.sa_family == AF_INET6) {
        struct sockaddr_in6 in6;
        memcpy(&in6, &a->ss, sizeof in6);
        memcpy(peer.ip.b, &in6.sin6_addr, sizeof peer.ip.b);
        peer.port = ntohs(in6.sin6_port);
    }
    return peer;
}

/* The path of a unix address as the kernel gave it: it need not be terminated, and is empty for an unnamed socket. */
static struct str unix_path(const struct addr *a)
{
    size_t before = offsetof(struct sockaddr_un, sun_path);
    size_t room = a->len > before ? a->len - before : 0;
    return str_make(a->un.sun_path, strnlen(a->un.sun_path, room));
}

size_t addr_format(const struct addr *a, char out[ADDR_TEXT_SIZE])
{
    if (a->sa.sa_family == AF_UNIX)
        return (size_t)snprintf(out, ADDR_TEXT_SIZE, "unix:%.*s", STR_ARG(unix_path(a)));
    struct peer peer = peer_from_addr(a);
    char ip[IP_TEXT_SIZE];
    ip_format(&peer.ip, ip);
    bool v4 = ip_is_v4(&peer.ip);
    return (size_t)snprintf(out, ADDR_TEXT_SIZE, "%s%s%s:%u", v4 ? "" : "[", ip, v4 ? "" : "]", (unsigned)peer.port);
}

static bool parse_unix(struct str path, struct endpoint *e, const char **why)
{
    if (str_find(path, '/') == path.n || memchr(path.p, '\0', path.n)) {
        *why = "names no path (write unix:/path)";
        return false;
    }
    if (path.n >= sizeof e->addr.un.sun_path) {
        *why = "has a path that is too long for a unix socket (107 bytes)";
        return false;
    }
    e->kind = ENDPOINT_UNIX;
    e->addr.un.sun_family = AF_UNIX;
    memcpy(e->addr.un.sun_path, path.p, path.n);
    e->addr.len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + path.n + 1);
    return true;
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_label_char(char c)
{
    unsigned char lower = ascii_lower((unsigned char)c);
    return (lower >= 'a' && lower <= 'z') || is_digit(c) || c == '-' || c == '_';
}

/* A label of a host name: letters, digits and hyphens (RFC 1123 section 2.1), and the underscore, which container
 * networks use. */
static bool is_label(struct str s)
{
    if (s.n == 0 || s.n > LABEL_MAX_SIZE || s.p[0] == '-' || s.p[s.n - 1] == '-')
        return false;
    for (size_t i = 0; i < s.n; i++) {
        if (!is_label_char(s.p[i]))
            return false;
    }
    return true;
}

/* No top-level domain looks like a number; what ends in one ("127.1", "0x7f000001") is an address that the resolver
 * would read in a way that its writer may not have meant. */
static bool is_number_like(struct str label)
{
    uint64_t v;
    if (label.n > 2 && label.p[0] == '0' && ascii_lower((unsigned char)label.p[1]) == 'x')
        return str_parse_hex(str_make(label.p + 2, label.n - 2), &v);
    for (size_t i = 0; i < label.n; i++) {
        if (!is_digit(label.p[i]))
            return false;
    }
    return true;
}

static bool check_name(struct str name, const char **why)
{
    if (name.n > 1 && name.p[name.n - 1] == '.')
        name.n--;
    bool good = name.n <= NAME_MAX_SIZE;
    struct str label = {0};
    for (size_t at = 0; good && at <= name.n; at += label.n + 1) {
        label = str_make(name.p + at, name.n - at);
        label.n = str_find(label, '.');
        good = is_label(label);
    }
    if (!good)
        *why = "has a host that is neither an IP address nor a valid name";
    else if (is_number_like(label))
        *why = "has a malformed IPv4 address";
    return good && !is_number_like(label);
}

static bool parse_bracketed(struct str host, struct endpoint *e, const char **why)
{
    struct ip ip;
    if (str_find(host, ':') == host.n || !ip_parse(host, &ip)) {
        *why = "has no valid IPv6 address in its brackets";
        return false;
    }
    e->kind = ENDPOINT_IP;
    e->addr = addr_of_ip(&ip, e->port);
    ip_format(&ip, e->host);
    return true;
}

static bool parse_host(struct str host, struct endpoint *e, const char **why)
{
    struct ip ip;
    if (host.n == 0) {
        e->kind = ENDPOINT_ANY;
        e->addr = addr_of_v6(&in6addr_any, e->port);
        return true;
    }
    if (host.p[0] == '[' && host.p[host.n - 1] == ']')
        return parse_bracketed(str_make(host.p + 1, host.n - 2), e, why);
    if (str_find(host, ':') < host.n) {
        *why = "has an IPv6 address without brackets (write [::1]:8080)";
        return false;
    }
    if (ip_parse(host, &ip)) {
        e->kind = ENDPOINT_IP;
        e->addr = addr_of_ip(&ip, e->port);
        ip_format(&ip, e->host);
        return true;
    }
    if (!check_name(host, why))
        return false;
    e->kind = ENDPOINT_NAME;
    memcpy(e->host, host.p, host.n);
    return true;
}

/* Splits "host:port" at its last colon; a colon inside brackets is the host's. */
static bool split_port(struct str s, bool allow_port_0, struct str *host, uint16_t *port, const char **why)
{
    size_t colon = s.n;
    while (colon > 0 && s.p[colon - 1] != ':' && s.p[colon - 1] != ']')
        colon--;
    if (colon == 0 || s.p[colon - 1] == ']') {
        *why = "has no port";
        return false;
    }
    unsigned number;
    if (!parse_small(str_make(s.p + colon, s.n - colon), UINT16_MAX, &number) || (number == 0 && !allow_port_0)) {
        *why = allow_port_0 ? "has a port that is not a number from 0 to 65535"
                            : "has a port that is not a number from 1 to 65535";
        return false;
    }
    *host = str_make(s.p, colon - 1);
    *port = (uint16_t)number;
    return true;
}

bool endpoint_parse(struct str s, bool allow_port_0, struct endpoint *out, const char **why)
{
    struct str host;
    *out = (struct endpoint){.kind = ENDPOINT_IP};
    if (str_starts_with(s, STR("unix:")))
        return parse_unix(str_make(s.p + 5, s.n - 5), out, why);
    if (memmem(s.p, s.n, "://", 3)) {
        *why = "is a URL (write host:port alone)";
        return false;
    }
    return split_port(s, allow_port_0, &host, &out->port, why) && parse_host(host, out, why);
}
