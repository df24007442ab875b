/* Buckets of unregistered clients: open addressing in many small shards, each of which grows and shrinks by itself, so
 * that no single step touches more than one shard. */
#include "anon_table_impl.h"
#include "base/mem.h"

#include <assert.h>
#include <string.h>

/* Entries that a shard holds when the table is full, about; shards swept in one slice, and slices for the table. */
#define SHARD_ENTRIES 256u
#define SWEEP_SHARDS  64u
#define SWEEP_SLICES  64u

size_t anon_shards_for(size_t max)
{
    size_t shards = 1;
    while (shards * SHARD_ENTRIES * 2 <= max)
        shards *= 2;
    return shards;
}

bool anon_table_init(struct anon_table *t, const struct hash_key *key, const struct bucket_policy *policy, size_t max,
                     unsigned ipv6_prefix)
{
    size_t shards = anon_shards_for(max);
    *t = (struct anon_table){
        .key = *key, .policy = *policy, .ipv6_prefix = ipv6_prefix, .shard_mask = shards - 1, .max = max};
    t->shards = mem_try_alloc(shards * sizeof *t->shards);
    t->overflow = mem_try_alloc(ANON_OVERFLOWS * sizeof *t->overflow);
    if (t->shards && t->overflow)
        return true;
    anon_table_fini(t);
    return false;
}

void anon_table_fini(struct anon_table *t)
{
    for (size_t i = 0; t->shards && i <= t->shard_mask; i++)
        mem_free(t->shards[i].v);
    mem_free(t->shards);
    mem_free(t->overflow);
    t->shards = NULL;
    t->overflow = NULL;
}

struct ip anon_table_key(const struct anon_table *t, const struct ip *ip)
{
    return ip_is_v4(ip) ? *ip : ip_mask(ip, t->ipv6_prefix);
}

/* ---- one shard ---- */

static struct anon_entry *find(const struct anon_table *t, uint64_t hash, const struct ip *key)
{
    const struct anon_shard *s = anon_shard_of(t, hash);
    if (s->n == 0)
        return NULL;
    struct anon_entry *e = anon_probe(s, hash, key);
    return e->word != 0 ? e : NULL;
}

/* Moves the entries whose word is over `clock` to `cap` new places, and forgets the others. False without memory. */
static bool rebuild(struct anon_table *t, struct anon_shard *s, uint32_t cap, uint64_t clock)
{
    struct anon_shard fresh = {.cap = cap};
    fresh.v = cap ? mem_try_alloc(cap * sizeof *fresh.v) : NULL;
    if (cap && !fresh.v)
        return false;
    for (uint32_t i = 0; i < s->cap; i++) {
        if (s->v[i].word <= clock)
            continue;
        *anon_probe(&fresh, anon_hash(t, &s->v[i].key), &s->v[i].key) = s->v[i];
        fresh.n++;
    }
    t->count -= s->n - fresh.n;
    mem_free(s->v);
    *s = fresh;
    return true;
}

static bool make_room(struct anon_table *t, struct anon_shard *s)
{
    if (s->cap && s->n + 1 <= s->cap - s->cap / 8 - 1)
        return true;
    /* Without memory the last places are used up, but for the one that ends every search. */
    return rebuild(t, s, anon_places(s->n + 1), 0) || s->n + 1 < s->cap;
}

static void sweep_shard(struct anon_table *t, struct anon_shard *s, uint64_t clock)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < s->cap; i++)
        kept += s->v[i].word > clock;
    /* Without memory for the smaller shard the full buckets stay until the next time. */
    if (kept < s->n)
        (void)!rebuild(t, s, kept ? anon_places(kept) : 0, clock);
}

static void sweep_next(struct anon_table *t, uint64_t clock)
{
    t->sweep_at = (t->sweep_at + 1) & t->shard_mask;
    sweep_shard(t, &t->shards[t->sweep_at], clock);
}

void anon_table_sweep(struct anon_table *t, uint64_t now)
{
    uint64_t clock = bucket_clock(&t->policy, now);
    size_t shards = t->shard_mask / SWEEP_SLICES + 1;
    if (shards > SWEEP_SHARDS)
        shards = SWEEP_SHARDS;
    while (shards--)
        sweep_next(t, clock);
}

/* Gives `key` an entry. False when the table is full of buckets in use, or there is no memory. */
static bool insert(struct anon_table *t, uint64_t hash, const struct ip *key, uint64_t word, uint64_t now)
{
    assert(word != 0);
    if (t->count >= t->max)
        sweep_next(t, bucket_clock(&t->policy, now));
    struct anon_shard *s = anon_shard_of(t, hash);
    if (t->count >= t->max || !make_room(t, s))
        return false;
    *anon_probe(s, hash, key) = (struct anon_entry){*key, word};
    s->n++;
    t->count++;
    return true;
}

/* ---- buckets ---- */

bool anon_table_take(struct anon_table *t, const struct ip *ip, uint64_t now, uint64_t *word, bool *shared)
{
    struct ip key = anon_table_key(t, ip);
    uint64_t hash = anon_hash(t, &key);
    struct anon_entry *e = find(t, hash, &key);
    *shared = false;
    if (e) {
        bool passed = bucket_take(&t->policy, &e->word, now);
        *word = e->word;
        return passed;
    }
    /* A newcomer may have used the overflow bucket: it starts from what that holds (see limiter.c). */
    uint64_t *overflow = anon_overflow_of(t, &key);
    *word = *overflow;
    bool passed = bucket_take(&t->policy, word, now);
    if (passed && insert(t, hash, &key, *word, now))
        return true;
    *shared = true;
    *overflow = *word;
    return passed;
}

uint64_t anon_table_peek(const struct anon_table *t, const struct ip *ip)
{
    struct ip key = anon_table_key(t, ip);
    const struct anon_entry *e = find(t, anon_hash(t, &key), &key);
    return e ? e->word : *anon_overflow_of(t, &key);
}

uint64_t anon_table_leave(struct anon_table *t, const struct ip *ip)
{
    struct ip key = anon_table_key(t, ip);
    struct anon_entry *e = find(t, anon_hash(t, &key), &key);
    if (!e)
        return *anon_overflow_of(t, &key);
    uint64_t word = e->word;
    /* A word long past is a full bucket: the next sweep forgets it. */
    if (ip_eq(&key, ip) && (ip_is_v4(ip) || t->ipv6_prefix == 128))
        e->word = 1;
    return word;
}

void anon_table_join(struct anon_table *t, const struct ip *ip, uint64_t word, uint64_t now)
{
    struct ip key = anon_table_key(t, ip);
    uint64_t hash = anon_hash(t, &key);
    struct anon_entry *e = find(t, hash, &key);
    if (bucket_is_full(&t->policy, word, now))
        return;
    uint64_t *overflow = anon_overflow_of(t, &key);
    if (!e && *overflow < word && insert(t, hash, &key, word, now))
        return;
    anon_raise(e ? &e->word : overflow, word);
}

void anon_table_restore(struct anon_table *t, const struct ip *ip, uint64_t word, uint64_t now)
{
    struct ip key = anon_table_key(t, ip);
    uint64_t hash = anon_hash(t, &key);
    struct anon_entry *e = find(t, hash, &key);
    if (bucket_is_full(&t->policy, word, now) || (!e && insert(t, hash, &key, word, now)))
        return;
    anon_raise(e ? &e->word : anon_overflow_of(t, &key), word);
}
