/* Request targets and hosts: what parse_request() needs of RFC 3986 and RFC 9112 section 3.2. */
#ifndef LB_HTTP_TARGET_H
#define LB_HTTP_TARGET_H

#include "base/err.h"
#include "base/str.h"

#include <stdbool.h>

/* A request target taken apart. */
struct target {
    struct str prefix;    /* what `rest` lacks in front to be origin-form: "/" or "" */
    struct str rest;      /* origin-form, or "*" */
    struct str authority; /* of absolute-form; "" of another form */
};

/* Takes `s` apart, which holds visible ASCII only. ERR_BAD_TARGET when it is none of origin-form, absolute-form with
 * scheme http or https and a valid authority, and, where `asterisk` allows it (OPTIONS), asterisk-form; or when it
 * holds a '#'. An absolute-form without path and query is "/", or "*" where `asterisk` (RFC 9112 section 3.2.4). */
enum err target_split(struct str s, bool asterisk, struct target *out) __attribute__((warn_unused_result));

/* Is `s` a well-formed host[:port] (RFC 3986 section 3.2.2: reg-name but with no comma, IPv4, [IPv6]; no userinfo; port
 * 0 to 65535 or nothing behind the colon)? May be empty, for Host (RFC 9112 section 3.2); a port alone is malformed. */
bool host_is_valid(struct str s);

#endif
