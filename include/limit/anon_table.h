/* The buckets of clients that are not registered, all under one policy: one for each address or network seen, at most
 * `max` of them, and a fixed number of overflow buckets that newcomers share when there is no room. A bucket is
 * forgotten only when it is full again, for then it holds no information. */
#ifndef LB_LIMIT_ANON_TABLE_H
#define LB_LIMIT_ANON_TABLE_H

#include "base/buf.h"
#include "base/hash.h"
#include "limit/bucket.h"
#include "net/addr.h"

#include <stddef.h>

/* Overflow buckets: one for each keyed hash of a network, /16 of IPv4 and /32 of IPv6. */
#define ANON_OVERFLOWS 65536u

struct anon_shard;

struct anon_table {
    struct hash_key key;
    struct bucket_policy policy;
    unsigned ipv6_prefix; /* IPv6 addresses count by networks of this size */
    struct anon_shard *shards;
    size_t shard_mask, sweep_at;
    size_t count, max;
    uint64_t *overflow;
};

/* An empty table that owns little. False when there is no memory. */
bool anon_table_init(struct anon_table *t, const struct hash_key *key, const struct bucket_policy *policy, size_t max,
                     unsigned ipv6_prefix) __attribute__((warn_unused_result));
void anon_table_fini(struct anon_table *t);

/* The address or network that `ip` counts for: IPv4 whole, IPv6 by its prefix. */
struct ip anon_table_key(const struct anon_table *t, const struct ip *ip);

/* How a request of `ip` fares: takes a token when one is there. *word is the state of the bucket that decided, after
 * the decision; *shared tells that it was an overflow bucket. */
bool anon_table_take(struct anon_table *t, const struct ip *ip, uint64_t now, uint64_t *word, bool *shared)
    __attribute__((warn_unused_result));

/* The word of the bucket that a request of `ip` would be decided on. */
uint64_t anon_table_peek(const struct anon_table *t, const struct ip *ip);

/* Takes the bucket of an address that is registered now out of the table and returns its word. Where neighbours share
 * it, they keep it. */
uint64_t anon_table_leave(struct anon_table *t, const struct ip *ip);

/* Puts a bucket back for an address that is registered no longer. Where there is one already, the emptier counts. */
void anon_table_join(struct anon_table *t, const struct ip *ip, uint64_t word, uint64_t now);

/* A reload, in two steps. The first makes an empty table that will take this one's place under other settings; false
 * when there is no memory; who goes no further gives it to anon_table_fini(). The second moves everything over at `now`
 * and frees what is left of the old one; nothing can fail in it. No client has more than before: tokens are kept,
 * capped to the new capacity, those of full buckets and of addresses never seen, too: they had the old capacity. Where
 * networks get another size, IPv6 addresses go on from the emptiest bucket of their /32. Takes time in proportion to
 * the buckets. */
bool anon_table_stage(const struct anon_table *t, const struct bucket_policy *policy, size_t max, unsigned ipv6_prefix,
                      struct anon_table *fresh) __attribute__((warn_unused_result));
void anon_table_replace(struct anon_table *t, struct anon_table *fresh, uint64_t now);

/* The shards from *at on: a line "address tokens" for each bucket that is not full, about `most` bytes of them; tokens
 * in units of 2^-ANON_TOKEN_BITS, rounded down. False when there are no more shards, or *no_memory. */
#define ANON_TOKEN_BITS 20
bool anon_table_export(const struct anon_table *t, uint64_t now, size_t *at, size_t most, struct buf *out,
                       bool *no_memory) __attribute__((warn_unused_result));
/* What the emptiest overflow bucket holds, in the same units; UINT64_MAX when all are full. */
uint64_t anon_table_overflow_tokens(const struct anon_table *t, uint64_t now);
/* From now on no overflow bucket holds more: newcomers begin with that. */
void anon_table_limit_overflow(struct anon_table *t, uint64_t tokens, uint64_t now);

/* Forgets full buckets in the next slice of the table; bounded in time. To be called regularly. */
void anon_table_sweep(struct anon_table *t, uint64_t now);

#endif
