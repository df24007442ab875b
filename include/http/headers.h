/* Header fields as slices into a message head, with the names that a proxy acts on told apart once, at parsing. */
#ifndef LB_HTTP_HEADERS_H
#define LB_HTTP_HEADERS_H

#include "base/str.h"

#include <stdbool.h>
#include <stdint.h>

/* clang-format off */
#define FIELD_CATALOGUE(X) \
    X(AUTHORIZATION,       "authorization") \
    X(CONNECTION,          "connection") \
    X(CONTENT_LENGTH,      "content-length") \
    X(CONTENT_TYPE,        "content-type") \
    X(COOKIE,              "cookie") \
    X(DATE,                "date") \
    X(EXPECT,              "expect") \
    X(FORWARDED,           "forwarded") \
    X(HOST,                "host") \
    X(KEEP_ALIVE,          "keep-alive") \
    X(MAX_FORWARDS,        "max-forwards") \
    X(PROXY_AUTHENTICATE,  "proxy-authenticate") \
    X(PROXY_AUTHENTICATION_INFO, "proxy-authentication-info") \
    X(PROXY_AUTHORIZATION, "proxy-authorization") \
    X(PROXY_CONNECTION,    "proxy-connection") \
    X(TE,                  "te") \
    X(TRAILER,             "trailer") \
    X(TRANSFER_ENCODING,   "transfer-encoding") \
    X(UPGRADE,             "upgrade") \
    X(VIA,                 "via") \
    X(WWW_AUTHENTICATE,    "www-authenticate") \
    X(X_FORWARDED_FOR,     "x-forwarded-for") \
    X(X_FORWARDED_OTHER,   "") /* X-Forwarded-* but For, Proto and Host */ \
    X(X_FORWARDED_HOST,    "x-forwarded-host") \
    X(X_FORWARDED_PROTO,   "x-forwarded-proto") \
    X(X_REQUEST_ID,        "x-request-id")
/* clang-format on */

enum field_id {
    FIELD_OTHER,
#define X(id, name) FIELD_##id,
    FIELD_CATALOGUE(X)
#undef X
        FIELD_ID_COUNT
};
_Static_assert(FIELD_ID_COUNT <= 32, "sets of fields are words of 32 bits");

struct field {
    struct str name;  /* as received */
    struct str value; /* as received, without the white space around it */
    enum field_id id;
};

/* The fields of one head, in order. The array is the caller's. */
struct headers {
    struct field *v;
    unsigned n, max;
    uint32_t present; /* bit (1 << field_id) for each id that occurs */
};

/* Is there a field with that id, of the catalogue? */
static inline bool headers_have(const struct headers *h, enum field_id id)
{
    return h->present >> id & 1;
}

/* The id of a field name, by comparison without regard to case; FIELD_OTHER when it is none of the catalogue. */
enum field_id field_id_of(struct str name);

/* The first field with that id or that name; NULL when there is none. `*count`, if given, is how many there are. */
const struct field *headers_find(const struct headers *h, enum field_id id, unsigned *count);
const struct field *headers_find_name(const struct headers *h, struct str name, unsigned *count);

/* True when the comma-separated lists in all fields `id` together hold `token` (without regard to case). */
bool headers_has_token(const struct headers *h, enum field_id id, struct str token);

/* Does Authorization or WWW-Authenticate name NTLM or Negotiate? Against RFC 9110 section 11, they say who sends on
 * this connection, not only this request: whatever else is sent there later is served as that user's. */
bool headers_name_user_of_connection(const struct headers *h);

/* The protocols that all Upgrade fields together offer or name (RFC 9110 section 7.8), in their order: those that are
 * well formed, and without h2c, whose requests the balancer could not see (RFC 9113 section 3.1 has taken it back,
 * too). At most PROTOCOLS_MAX; what is beyond is left out. Returns how many. */
#define PROTOCOLS_MAX 8u
unsigned protocols_read(const struct headers *h, struct str out[PROTOCOLS_MAX]);

#endif
