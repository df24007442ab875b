/* Weighted rendezvous hashing with bounded loads. Each backend has a score for each key; the best one that is not too
 * busy has it. No table, no ring: who is not there has no score, and all others' keys stay where they are. */
#include "upstream/backend.h"

/* Nobody has more than 5/4 of its share of what is under way. */
#define LOAD_MAX  5u
#define LOAD_UNIT 4u

/* The finalizer of MurmurHash3 (Appleby): every bit of the key and of the backend counts. */
static uint64_t mix(uint64_t key, uint64_t identity)
{
    uint64_t z = key ^ identity;
    z = (z ^ (z >> 33)) * 0xff51afd7ed558ccdu;
    z = (z ^ (z >> 33)) * 0xc4ceb9fe1a85ec53u;
    return z ^ (z >> 33);
}

/* The binary logarithm of v > 0, to about 1e-6: of the mantissa m in [1, 2) by the series of atanh((m - 1) / (m + 1)).
 * Arithmetic alone, so that every machine has the same scores. */
static double log2_of(uint64_t v)
{
    int exponent = 63 - __builtin_clzll(v);
    double m = (double)v / (double)((uint64_t)1 << exponent), z = (m - 1) / (m + 1), q = z * z;
    return exponent + 2.885390081777927 * z * (1 + q * (1.0 / 3 + q * (1.0 / 5 + q * (1.0 / 7 + q * (1.0 / 9)))));
}

/* The larger the better. With u in (0, 1) drawn by the hash, -log(u) / weight is the exponentially distributed time of
 * a clock that runs at `weight`: the first to ring is one of them with a probability of its share. */
static double score(const struct seat *s, uint64_t key, bool even)
{
    uint64_t u = (mix(key, s->backend->identity) >> 11) | 1;
    return even ? (double)u : (log2_of(u) - 53) / s->weight;
}

static bool is_overloaded(const struct tier *t, const struct seat *s, uint64_t active)
{
    uint64_t scale = (uint64_t)LOAD_UNIT * (uint64_t)t->total;
    uint64_t bound = (LOAD_MAX * (active + 1) * (uint64_t)s->weight + scale - 1) / scale;
    return s->backend->active + 1 > bound;
}

struct backend *consistent_hash(const struct choice *c)
{
    const struct tier *t = c->tier;
    const struct seat *best = NULL, *second = NULL; /* the best of those that are overloaded, too */
    double best_score = 0, second_score = 0;
    uint64_t active = 0;
    if (!c->pick->keyed)
        return round_robin(c);
    for (unsigned i = 0; i < t->count; i++)
        active += t->seats[i].backend->active;
    for (const struct seat *s = t->seats; s < t->seats + t->count; s++) {
        double d = score(s, c->pick->key, t->even);
        bool candidate = !best || d > best_score, fallback = !second || d > second_score;
        if ((!candidate && !fallback) || !choice_allows(c, s))
            continue;
        if (candidate && !is_overloaded(t, s, active))
            best = s, best_score = d;
        if (fallback)
            second = s, second_score = d;
    }
    if (!best)
        best = second; /* who is below the bound has been tried, or has no room */
    return best ? best->backend : NULL;
}
