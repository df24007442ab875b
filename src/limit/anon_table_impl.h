/* The inside of the table of anonymous buckets, shared by anon_table.c (requests), anon_change.c (reloads) and
 * anon_export.c (upgrades). */
#ifndef LB_LIMIT_ANON_TABLE_IMPL_H
#define LB_LIMIT_ANON_TABLE_IMPL_H

#include "limit/anon_table.h"

#include <assert.h>

struct anon_entry {
    struct ip key;
    uint64_t word; /* 0: the place is free. No bucket that was charged has it */
};

struct anon_shard {
    struct anon_entry *v; /* linear probing, always with a free place */
    uint32_t n, cap;
};

/* `least` for so many empty shards, NULL without memory; and what is known when words have become lower: nothing. */
uint64_t *anon_least_new(size_t shards);
void anon_least_forget(struct anon_table *t);

/* How many shards a table of `max` entries has: a power of two. */
size_t anon_shards_for(size_t max);

static inline uint64_t anon_hash(const struct anon_table *t, const struct ip *key)
{
    return hash_bytes(&t->key, key->b, sizeof key->b);
}

/* The upper half of the hash chooses the shard, the lower one the place in it. */
static inline size_t anon_shard_at(const struct anon_table *t, uint64_t hash)
{
    return (hash >> 32) & t->shard_mask;
}

static inline struct anon_shard *anon_shard_of(const struct anon_table *t, uint64_t hash)
{
    return &t->shards[anon_shard_at(t, hash)];
}

/* Where a search begins. */
static inline uint32_t anon_home(const struct anon_shard *s, uint64_t hash)
{
    return (uint32_t)((hash & UINT32_MAX) * s->cap >> 32);
}

/* The entry of `key`, or the free place where it belongs. The shard must have places. */
static inline struct anon_entry *anon_probe(const struct anon_shard *s, uint64_t hash, const struct ip *key)
{
    assert(s->v);
    uint32_t i = anon_home(s, hash);
    while (s->v[i].word != 0 && !ip_eq(&s->v[i].key, key))
        i = i + 1 < s->cap ? i + 1 : 0;
    return &s->v[i];
}

/* Places for `n` entries and some to come: a shard grows again when seven of eight are taken. */
static inline uint32_t anon_places(uint32_t n)
{
    return n + n / 2 + 4;
}

/* Networks that share an overflow bucket: the prefix of IPv4 (as an IPv6 one) and of IPv6. */
#define ANON_OVERFLOW_PREFIX_V4 (96u + 16u)
#define ANON_OVERFLOW_PREFIX    32u

static inline struct ip anon_network_of(const struct ip *key)
{
    return ip_mask(key, ip_is_v4(key) ? ANON_OVERFLOW_PREFIX_V4 : ANON_OVERFLOW_PREFIX);
}

static inline void anon_raise(uint64_t *word, uint64_t to)
{
    if (*word < to)
        *word = to;
}

static inline uint64_t *anon_overflow_of(const struct anon_table *t, const struct ip *key)
{
    struct ip network = anon_network_of(key);
    return &t->overflow[anon_hash(t, &network) % ANON_OVERFLOWS];
}

#endif
