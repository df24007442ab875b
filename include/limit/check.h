/* What a request of a client would get right now, without its being made: GET /clients/check. */
#ifndef LB_LIMIT_CHECK_H
#define LB_LIMIT_CHECK_H

#include "base/buf.h"
#include "base/err.h"
#include "limit/client_table.h"
#include "limit/limiter.h"

enum check_reason {
    CHECK_WITHIN_LIMIT,   /* passes: a token is there */
    CHECK_RATE_LIMITED,   /* 429 */
    CHECK_SHADOW_LIMITED, /* passes, although no token is there: the client's mode is shadow */
    CHECK_OFF,            /* passes: the client's mode is off */
    CHECK_EXEMPT,         /* passes: rate_limit.exempt has the address */
    CHECK_UNLIMITED,      /* passes: not registered, and rate_limit.unknown_clients is allow */
    CHECK_UNKNOWN_CLIENT  /* 403: not registered, and rate_limit.unknown_clients is reject */
};

struct client_check {
    char id[CLIENT_ID_MAX + 1]; /* whom a request would be counted for: for an address that is not registered, its
                                   network by rate_limit.ipv6_prefix */
    bool registered;
    enum client_mode mode; /* of a registered one */
    enum check_reason reason;
    const struct bucket_policy *policy; /* of the bucket that is asked, NULL when none is; valid for this turn */
    double tokens;
    uint64_t retry_after_s; /* of CHECK_RATE_LIMITED, as the field Retry-After has it */
    double full_in_s;       /* seconds until the bucket is full, 0 when it is; capped at BUCKET_SECONDS_MAX */
    uint64_t full_wall_ns;  /* when that is, 0 when it is too far away to say (beyond the year 2500) */
};

/* `id` is canonical; an address need not be registered, and "unix:" stands for the peers on unix sockets. Takes nothing
 * from any bucket. ERR_OK, or ERR_NO_SUCH_CLIENT for a name that nobody has: requests that give it count for their
 * addresses. */
enum err clients_check(const struct limiter *lim, const char *id, struct client_check *out)
    __attribute__((warn_unused_result));

/* Appends {"client_id":...,"registered":...,"verdict":"allow" or "deny","status":null, 429 or 403,"reason":...,
 * "mode":...,"capacity":...,"rate_per_sec":...,"tokens":...,"retry_after":...,"full_in":...,"full_at":...}, with null
 * for what there is not. */
bool client_check_json(struct buf *out, const struct client_check *c) __attribute__((warn_unused_result));

#endif
