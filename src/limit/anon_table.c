/* Buckets of unregistered clients: open addressing in many small shards, each of which grows and shrinks by itself, so
 * that no single step touches more than a few.
 *
 * When the table is full, a newcomer gets the place of a bucket that is full again, wherever that is. Which shards can
 * have one says a tree: its leaf for a shard is no more than the least word in it, each node above is the lower one of
 * the two below. Words only grow while they are in the table, so a leaf becomes too low, never too high, and a sweep
 * sets it right. One look at the root says that all are busy, which is all that a flood of newcomers costs then. A
 * sweep that finds nothing to forget is paid for by a request: the one that charged the least word since. */
#include "anon_table_impl.h"
#include "base/mem.h"

#include <assert.h>
#include <string.h>

/* Entries that a shard holds when the table is full, about; shards swept in one slice, and slices for the table. */
#define SHARD_ENTRIES 256u
#define SWEEP_SHARDS  64u
#define SWEEP_SLICES  64u

/* Shards swept for one newcomer to a full table; the next one goes on behind them. */
#define SWEEPS_FOR_ONE 16u

/* So few buckets are taken out one by one, without moving the others. */
#define TAKEN_OUT_MAX 8u

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
    t->least = anon_least_new(shards);
    if (t->shards && t->overflow && t->least)
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
    mem_free(t->least);
    t->shards = NULL;
    t->overflow = NULL;
    t->least = NULL;
}

struct ip anon_table_key(const struct anon_table *t, const struct ip *ip)
{
    return ip_is_v4(ip) ? *ip : ip_mask(ip, t->ipv6_prefix);
}

/* ---- the least words ---- */

/* The root is least[1]; below least[k] are least[2k] and least[2k + 1]; the leaves come last. */
static size_t leaf_of(const struct anon_table *t, size_t shard)
{
    return t->shard_mask + 1 + shard;
}

uint64_t *anon_least_new(size_t shards)
{
    size_t size = 2 * shards * sizeof(uint64_t);
    uint64_t *least = mem_try_alloc(size);
    if (least)
        memset(least, 0xff, size);
    return least;
}

void anon_least_forget(struct anon_table *t)
{
    memset(t->least, 0, 2 * (t->shard_mask + 1) * sizeof *t->least);
}

static void lower_least(struct anon_table *t, size_t shard, uint64_t word)
{
    for (size_t k = leaf_of(t, shard); k > 0 && t->least[k] > word; k /= 2)
        t->least[k] = word;
}

static void set_least(struct anon_table *t, size_t shard, uint64_t word)
{
    size_t k = leaf_of(t, shard);
    t->least[k] = word;
    while (k > 1) {
        k /= 2;
        uint64_t left = t->least[2 * k], right = t->least[2 * k + 1];
        t->least[k] = left < right ? left : right;
    }
}

/* The first shard from `from` on that can have a word of at most `clock`; behind the last one when there is none. */
static size_t next_full(const struct anon_table *t, size_t from, uint64_t clock)
{
    size_t shards = t->shard_mask + 1, k = leaf_of(t, from);
    /* Up, until such a one lies to the right, and then down to the first. */
    while (t->least[k] > clock) {
        while (k & 1)
            k /= 2;
        if (k == 0)
            return shards;
        k++;
    }
    while (k < shards)
        k = t->least[2 * k] <= clock ? 2 * k : 2 * k + 1;
    return k - shards;
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

/* Frees a place, and moves up those behind it that could not stand where they belong. */
static void take_out(struct anon_table *t, struct anon_shard *s, uint32_t hole)
{
    for (uint32_t i = hole + 1 < s->cap ? hole + 1 : 0; s->v[i].word != 0; i = i + 1 < s->cap ? i + 1 : 0) {
        uint32_t home = anon_home(s, anon_hash(t, &s->v[i].key));
        uint32_t from_home = i >= home ? i - home : i + s->cap - home;
        uint32_t from_hole = i >= hole ? i - hole : i + s->cap - hole;
        if (from_home < from_hole)
            continue;
        s->v[hole] = s->v[i];
        hole = i;
    }
    s->v[hole] = (struct anon_entry){0};
    s->n--;
    t->count--;
}

static void take_out_full(struct anon_table *t, struct anon_shard *s, uint64_t clock)
{
    for (uint32_t i = 0; i < s->cap;) {
        if (s->v[i].word != 0 && s->v[i].word <= clock)
            take_out(t, s, i); /* another may stand there now */
        else
            i++;
    }
}

static void sweep_shard(struct anon_table *t, size_t at, uint64_t clock)
{
    struct anon_shard *s = &t->shards[at];
    uint64_t least = UINT64_MAX;
    uint32_t kept = 0;
    if (t->least[leaf_of(t, at)] > clock)
        return;
    for (uint32_t i = 0; i < s->cap; i++) {
        if (s->v[i].word <= clock)
            continue;
        kept++;
        least = s->v[i].word < least ? s->v[i].word : least;
    }
    bool few = s->n - kept <= TAKEN_OUT_MAX && kept > s->cap / 2;
    if (kept < s->n && few)
        take_out_full(t, s, clock);
    /* Without memory for the smaller shard the full buckets stay until the next time. */
    if (kept < s->n && !few && !rebuild(t, s, kept ? anon_places(kept) : 0, clock))
        return;
    set_least(t, at, least);
}

void anon_table_sweep(struct anon_table *t, uint64_t now)
{
    uint64_t clock = bucket_clock(&t->policy, now);
    size_t shards = t->shard_mask / SWEEP_SLICES + 1;
    if (shards > SWEEP_SHARDS)
        shards = SWEEP_SHARDS;
    while (shards--) {
        t->sweep_at = (t->sweep_at + 1) & t->shard_mask;
        sweep_shard(t, t->sweep_at, clock);
    }
}

/* Forgets full buckets until there is a place for one more. False when all are in use, as far as it has looked. */
static bool make_place(struct anon_table *t, uint64_t clock)
{
    for (unsigned sweeps = 0; t->count >= t->max && sweeps < SWEEPS_FOR_ONE; sweeps++) {
        size_t at = next_full(t, (t->sweep_at + 1) & t->shard_mask, clock);
        if (at > t->shard_mask)
            at = next_full(t, 0, clock);
        if (at > t->shard_mask)
            return false;
        t->sweep_at = at;
        sweep_shard(t, at, clock);
    }
    return t->count < t->max;
}

/* Gives `key` an entry. False when the table is full of buckets in use, or there is no memory. */
static bool insert(struct anon_table *t, uint64_t hash, const struct ip *key, uint64_t word, uint64_t now)
{
    assert(word != 0);
    if (t->count >= t->max && !make_place(t, bucket_clock(&t->policy, now)))
        return false;
    struct anon_shard *s = anon_shard_of(t, hash);
    if (!make_room(t, s))
        return false;
    *anon_probe(s, hash, key) = (struct anon_entry){*key, word};
    s->n++;
    t->count++;
    lower_least(t, anon_shard_at(t, hash), word);
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
    uint64_t hash = anon_hash(t, &key);
    struct anon_entry *e = find(t, hash, &key);
    if (!e)
        return *anon_overflow_of(t, &key);
    uint64_t word = e->word;
    /* A word long past is a full bucket: the next sweep forgets it. */
    if (ip_eq(&key, ip) && (ip_is_v4(ip) || t->ipv6_prefix == 128)) {
        e->word = 1;
        lower_least(t, anon_shard_at(t, hash), 1);
    }
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
