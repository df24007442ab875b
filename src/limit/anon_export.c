/* The anonymous buckets on their way to another process. */
#include "anon_table_impl.h"

#include <string.h>

/* ---- the side that tells ---- */

static unsigned long long tokens_of(const struct anon_table *t, uint64_t word, uint64_t now)
{
    double tokens = bucket_tokens(&t->policy, word, now) * (double)(1u << ANON_TOKEN_BITS);
    return tokens > 0 ? (unsigned long long)tokens : 0;
}

static bool export_entry(const struct anon_table *t, const struct anon_entry *e, uint64_t now, bool words,
                         struct buf *out)
{
    char text[IP_TEXT_SIZE];
    if (e->word == 0 || bucket_is_full(&t->policy, e->word, now))
        return true;
    size_t n = ip_format(&e->key, text);
    return buf_printf(out, "%.*s %llu\n", (int)n, text,
                      words ? (unsigned long long)e->word : tokens_of(t, e->word, now));
}

static bool export_place(const struct anon_table *t, size_t i, uint64_t now, struct buf *out)
{
    return bucket_is_full(&t->policy, t->overflow[i], now) ||
           buf_printf(out, "* %zu %llu\n", i, (unsigned long long)t->overflow[i]);
}

/* Who does not know whose overflow bucket is which can only take the emptiest for each. */
static bool export_emptiest(const struct anon_table *t, uint64_t now, struct buf *out)
{
    uint64_t highest = 0;
    for (size_t i = 0; i < ANON_OVERFLOWS; i++)
        anon_raise(&highest, t->overflow[i]);
    return bucket_is_full(&t->policy, highest, now) || buf_printf(out, "* %llu\n", tokens_of(t, highest, now));
}

/* The next line, if the bucket at that place has one. Behind the last shard are the overflow buckets. */
static bool export_next(const struct anon_table *t, uint64_t now, struct anon_export *e, struct buf *out)
{
    bool overflow = e->shard > t->shard_mask;
    size_t places = overflow ? ANON_OVERFLOWS : t->shards[e->shard].cap;
    if (overflow && !e->words) {
        e->ended = true;
        return export_emptiest(t, now, out);
    }
    if (e->place >= places) {
        e->ended = overflow;
        e->shard++;
        e->place = 0;
        return true;
    }
    size_t i = e->place++;
    return overflow ? export_place(t, i, now, out) : export_entry(t, &t->shards[e->shard].v[i], now, e->words, out);
}

bool anon_table_export(const struct anon_table *t, uint64_t now, struct anon_export *e, size_t most, struct buf *out)
{
    size_t before = out->len;
    while (!e->ended && out->len - before < most)
        if (!export_next(t, now, e, out))
            return false;
    return true;
}

/* ---- whose overflow bucket is which ---- */

/* It hangs on the key, on the hash, and on which networks share one: where two networks, one of each kind, come to be
 * says whether all that is the same in another version. */
static uint64_t sample_places(const struct hash_key *key)
{
    const struct anon_table t = {.key = *key};
    struct ip highest[2];
    memset(highest, 0xff, sizeof highest);
    memset(highest[0].b, 0, 10); /* 255.255.255.255 */
    uint64_t hashes[2];
    for (unsigned i = 0; i < 2; i++) {
        struct ip network = anon_network_of(&highest[i]);
        hashes[i] = anon_hash(&t, &network);
    }
    return hashes[0] ^ hashes[1];
}

struct anon_places anon_table_places(const struct anon_table *t)
{
    return (struct anon_places){t->key, ANON_OVERFLOWS, sample_places(&t->key)};
}

bool anon_table_adopt_places(struct anon_table *t, const struct anon_places *places)
{
    assert(t->count == 0);
    if (places->count != ANON_OVERFLOWS || places->sample != sample_places(&places->key))
        return false;
    t->key = places->key;
    return true;
}

/* ---- the side that is told ---- */

void anon_table_raise_place(struct anon_table *t, size_t place, uint64_t word)
{
    assert(place < ANON_OVERFLOWS);
    anon_raise(&t->overflow[place], word);
}

void anon_table_raise_network(struct anon_table *t, const struct ip *ip, uint64_t word)
{
    anon_raise(anon_overflow_of(t, ip), word);
}

void anon_table_raise_all(struct anon_table *t, uint64_t word)
{
    for (size_t i = 0; i < ANON_OVERFLOWS; i++)
        anon_raise(&t->overflow[i], word);
}

bool anon_prefix_is_wide(unsigned ipv6_prefix)
{
    return ipv6_prefix < ANON_OVERFLOW_PREFIX;
}
