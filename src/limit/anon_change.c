/* The anonymous buckets under other settings: a reload. */
#include "anon_table_impl.h"
#include "base/mem.h"

/* More entries than this are not moved to a larger number of shards: each stays where it is, and the shards get longer,
 * which costs less than a long stop now. */
#define MOVE_MAX 65536u

static bool same_policy(const struct bucket_policy *a, const struct bucket_policy *b)
{
    return a->capacity == b->capacity && a->rate == b->rate;
}

/* Room in each shard for the entries that will come to it. */
static bool reserve_shards(const struct anon_table *t, struct anon_table *fresh)
{
    for (size_t i = 0; i <= t->shard_mask; i++) {
        const struct anon_shard *s = &t->shards[i];
        for (uint32_t j = 0; j < s->cap; j++)
            if (s->v[j].word != 0)
                anon_shard_of(fresh, anon_hash(fresh, &s->v[j].key))->n++;
    }
    for (size_t i = 0; i <= fresh->shard_mask; i++) {
        struct anon_shard *s = &fresh->shards[i];
        uint32_t n = s->n;
        s->n = 0;
        if (n > 0 && !(s->v = mem_try_alloc(anon_places(n) * sizeof *s->v)))
            return false;
        s->cap = n > 0 ? anon_places(n) : 0;
    }
    return true;
}

bool anon_table_stage(const struct anon_table *t, const struct bucket_policy *policy, size_t max, unsigned ipv6_prefix,
                      struct anon_table *fresh)
{
    *fresh = (struct anon_table){.key = t->key, .policy = *policy, .ipv6_prefix = ipv6_prefix, .max = max};
    size_t shards = anon_shards_for(max);
    if (shards <= t->shard_mask + 1 || t->count > MOVE_MAX)
        return true; /* the shards stay */
    fresh->shards = mem_try_alloc(shards * sizeof *fresh->shards);
    fresh->shard_mask = shards - 1;
    fresh->least = anon_least_new(shards);
    if (fresh->shards && fresh->least && reserve_shards(t, fresh))
        return true;
    anon_table_fini(fresh);
    return false;
}

static void move_shards(struct anon_table *t, struct anon_table *fresh)
{
    for (size_t i = 0; i <= t->shard_mask; i++) {
        struct anon_shard *s = &t->shards[i];
        for (uint32_t j = 0; j < s->cap; j++) {
            if (s->v[j].word == 0)
                continue;
            uint64_t hash = anon_hash(fresh, &s->v[j].key);
            struct anon_shard *to = anon_shard_of(fresh, hash);
            *anon_probe(to, hash, &s->v[j].key) = s->v[j];
            to->n++;
        }
        mem_free(s->v);
    }
    mem_free(t->shards);
    mem_free(t->least);
    t->shards = fresh->shards;
    t->least = fresh->least;
    t->shard_mask = fresh->shard_mask;
    t->sweep_at = 0;
    anon_least_forget(t);
    fresh->shards = NULL;
    fresh->least = NULL;
}

/* A word of 0 marks a free place; 1 is a full bucket, too. */
static uint64_t converted(const struct anon_table *t, const struct bucket_policy *to, uint64_t word, uint64_t now)
{
    uint64_t w = bucket_converted(&t->policy, to, word, now);
    return w > 0 ? w : 1;
}

static void convert_all(struct anon_table *t, const struct bucket_policy *to, uint64_t now)
{
    for (size_t i = 0; i <= t->shard_mask; i++)
        for (uint32_t j = 0; j < t->shards[i].cap; j++)
            if (t->shards[i].v[j].word != 0)
                t->shards[i].v[j].word = converted(t, to, t->shards[i].v[j].word, now);
    for (size_t i = 0; i < ANON_OVERFLOWS; i++)
        t->overflow[i] = converted(t, to, t->overflow[i], now);
    t->policy = *to;
    anon_least_forget(t);
}

/* An old network's key may be a new one's: it has what every newcomer begins with. Keys that are nobody's any more go
 * when they are full. */
static void level_networks(struct anon_table *t)
{
    for (size_t i = 0; i <= t->shard_mask; i++)
        for (uint32_t j = 0; j < t->shards[i].cap; j++)
            if (t->shards[i].v[j].word != 0 && !ip_is_v4(&t->shards[i].v[j].key))
                t->shards[i].v[j].word = *anon_overflow_of(t, &t->shards[i].v[j].key);
    anon_least_forget(t);
}

/* Networks of another size are other clients. What an address was charged for is in the bucket of its old network or in
 * that one's overflow bucket; from now on it begins with its overflow bucket, so that has to have the higher word. A
 * network larger than those that share an overflow bucket, old or new, has members in many of them. */
static void merge_networks(struct anon_table *t, unsigned ipv6_prefix)
{
    bool wide = anon_prefix_is_wide(t->ipv6_prefix) || anon_prefix_is_wide(ipv6_prefix);
    uint64_t highest = 0;
    for (size_t i = 0; i < ANON_OVERFLOWS; i++)
        anon_raise(&highest, t->overflow[i]);
    for (size_t i = 0; i <= t->shard_mask; i++) {
        for (uint32_t j = 0; j < t->shards[i].cap; j++) {
            struct anon_entry *e = &t->shards[i].v[j];
            if (e->word == 0 || ip_is_v4(&e->key))
                continue;
            anon_raise(anon_overflow_of(t, &e->key), e->word);
            anon_raise(&highest, e->word);
        }
    }
    for (size_t i = 0; wide && i < ANON_OVERFLOWS; i++)
        t->overflow[i] = highest;
    t->ipv6_prefix = ipv6_prefix;
    level_networks(t);
}

void anon_table_replace(struct anon_table *t, struct anon_table *fresh, uint64_t now)
{
    if (fresh->shards)
        move_shards(t, fresh);
    if (!same_policy(&t->policy, &fresh->policy))
        convert_all(t, &fresh->policy, now);
    if (t->ipv6_prefix != fresh->ipv6_prefix)
        merge_networks(t, fresh->ipv6_prefix);
    t->max = fresh->max;
    *fresh = (struct anon_table){0};
}
