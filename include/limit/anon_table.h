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
    uint64_t *least; /* for each shard what no word in it is below, under a tree of minima: anon_table.c */
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

/* ---- to another process ---- */

#define ANON_TOKEN_BITS 20

/* How far an export is: all zero at first, but for `words`. */
struct anon_export {
    bool words; /* buckets are told as words, else as tokens in units of 2^-ANON_TOKEN_BITS, rounded down */
    bool ended; /* all is told */
    size_t shard, place;
};

/* Appends the next lines, about `most` bytes: "ADDRESS NUMBER" for each bucket that is not full, then for the overflow
 * buckets that are not full "* PLACE WORD" each, or "* TOKENS" for the emptiest of them. False without memory. */
bool anon_table_export(const struct anon_table *t, uint64_t now, struct anon_export *e, size_t most, struct buf *out)
    __attribute__((warn_unused_result));

/* Which network has which overflow bucket: the key, how many there are, and a sample of where networks come to be. */
struct anon_places {
    struct hash_key key;
    uint64_t count, sample;
};
struct anon_places anon_table_places(const struct anon_table *t);
/* Has networks find their overflow buckets at those places from now on. The table is empty. False, and nothing is
 * changed, where other places come of that key here. */
bool anon_table_adopt_places(struct anon_table *t, const struct anon_places *places)
    __attribute__((warn_unused_result));

/* Gives an address the bucket that it had. Where there is no room for it, its overflow bucket holds no more. */
void anon_table_restore(struct anon_table *t, const struct ip *ip, uint64_t word, uint64_t now);
/* From now on these hold no more: that overflow bucket (place < ANON_OVERFLOWS), the one of that address, all. */
void anon_table_raise_place(struct anon_table *t, size_t place, uint64_t word);
void anon_table_raise_network(struct anon_table *t, const struct ip *ip, uint64_t word);
void anon_table_raise_all(struct anon_table *t, uint64_t word);

/* Have networks of this size members in more than one overflow bucket? */
bool anon_prefix_is_wide(unsigned ipv6_prefix);

/* Forgets full buckets in the next slice of the table; bounded in time. To be called regularly. */
void anon_table_sweep(struct anon_table *t, uint64_t now);

#endif
