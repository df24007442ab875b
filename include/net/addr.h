/* Addresses: IP addresses in one canonical 16-byte form, networks in CIDR form, and socket addresses as users write
 * them. */
#ifndef LB_NET_ADDR_H
#define LB_NET_ADDR_H

#include "base/str.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/un.h>

/* An IP address. IPv4 stands as IPv4-mapped IPv6 (::ffff:a.b.c.d), so equal addresses have equal bytes. */
struct ip {
    uint8_t b[16];
};

/* Strict spellings only: dotted quad without leading zeros; IPv6 as in RFC 4291 section 2.2 (inet_pton), no zone, no
 * brackets.
 * "::ffff:1.2.3.4" is 1.2.3.4. False when `s` is no address. */
bool ip_parse(struct str s, struct ip *out) __attribute__((warn_unused_result));

/* Canonical text (RFC 5952; IPv4 as a dotted quad) with a zero; returns its length. */
#define IP_TEXT_SIZE 46
size_t ip_format(const struct ip *ip, char out[IP_TEXT_SIZE]);

bool ip_is_v4(const struct ip *ip);
bool ip_is_loopback(const struct ip *ip); /* 127.0.0.0/8 or ::1 */
bool ip_eq(const struct ip *a, const struct ip *b);

/* Keeps the first `bits` (0 to 128) of the 128-bit form and zeroes the rest. */
struct ip ip_mask(const struct ip *ip, unsigned bits);

/* A network. `bits` counts in the 128-bit form (an IPv4 /8 is 104). */
struct cidr {
    struct ip net;
    unsigned bits;
};

/* "10.0.0.0/8", "::1/128", or an address alone (all its bits). Bits set behind the prefix are an error. The prefix
 * counts in the form the address is spelled in: "::ffff:10.0.0.0/104" is 10.0.0.0/8, and "::/0" covers IPv4 too. */
bool cidr_parse(struct str s, struct cidr *out) __attribute__((warn_unused_result));
bool cidr_contains(const struct cidr *c, const struct ip *ip);

/* A set of networks, and whether peers on unix sockets are in it (the entry "unix"). */
struct cidr_set {
    struct cidr *v;
    size_t n;
    bool unix_peers;
};

/* Who is at the other end of a client connection. */
struct peer {
    struct ip ip;
    uint16_t port;
    bool is_unix; /* then ip and port are zero */
};

bool cidr_set_contains_ip(const struct cidr_set *set, const struct ip *ip);
bool cidr_set_contains_peer(const struct cidr_set *set, const struct peer *peer);

/* A socket address ready for the kernel. */
struct addr {
    union {
        struct sockaddr sa;
        struct sockaddr_storage ss;
        struct sockaddr_un un;
    };
    socklen_t len; /* 0: not known yet */
};

/* The socket address of an IP address and port: AF_INET for IPv4. */
struct addr addr_of_ip(const struct ip *ip, uint16_t port);

/* The same IP address with another port. */
struct addr addr_with_port(const struct addr *a, uint16_t port);

/* An address as written in the config. */
enum endpoint_kind { ENDPOINT_IP, ENDPOINT_NAME, ENDPOINT_UNIX, ENDPOINT_ANY };
struct endpoint {
    enum endpoint_kind kind;
    char host[256]; /* the name, or the IP address' canonical text; "" for ENDPOINT_ANY and ENDPOINT_UNIX */
    uint16_t port;
    struct addr addr; /* filled for IP, UNIX and ANY ([::]:port) */
};

/* "host:port", ":port", "[v6]:port", "unix:/path"; port 1 to 65535, or 0 where `allow_port_0`. On failure returns false
 * and `*why` says what is wrong, as the end of a sentence ("has no port"). */
bool endpoint_parse(struct str s, bool allow_port_0, struct endpoint *out, const char **why)
    __attribute__((warn_unused_result));

struct peer peer_from_addr(const struct addr *a);

/* "1.2.3.4:80", "[::1]:80" or "unix:/path" with a zero; returns the length. */
#define ADDR_TEXT_SIZE 128
size_t addr_format(const struct addr *a, char out[ADDR_TEXT_SIZE]);

#endif
