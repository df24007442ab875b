/* The anonymous buckets on their way to another process. */
#include "anon_table_impl.h"

static uint64_t tokens_of(const struct anon_table *t, uint64_t word, uint64_t now)
{
    double tokens = bucket_tokens(&t->policy, word, now) * (double)(1u << ANON_TOKEN_BITS);
    return tokens > 0 ? (uint64_t)tokens : 0;
}

static bool export_shard(const struct anon_table *t, const struct anon_shard *s, uint64_t now, struct buf *out)
{
    char text[IP_TEXT_SIZE];
    for (uint32_t i = 0; i < s->cap; i++) {
        const struct anon_entry *e = &s->v[i];
        if (e->word == 0 || bucket_is_full(&t->policy, e->word, now))
            continue;
        size_t n = ip_format(&e->key, text);
        if (!buf_printf(out, "%.*s %llu\n", (int)n, text, (unsigned long long)tokens_of(t, e->word, now)))
            return false;
    }
    return true;
}

bool anon_table_export(const struct anon_table *t, uint64_t now, size_t *at, size_t most, struct buf *out,
                       bool *no_memory)
{
    size_t before = out->len;
    *no_memory = false;
    while (*at <= t->shard_mask && out->len - before < most) {
        *no_memory = !export_shard(t, &t->shards[*at], now, out);
        if (*no_memory)
            return false;
        ++*at;
    }
    return *at <= t->shard_mask;
}

uint64_t anon_table_overflow_tokens(const struct anon_table *t, uint64_t now)
{
    uint64_t highest = 0;
    for (size_t i = 0; i < ANON_OVERFLOWS; i++)
        if (t->overflow[i] > highest)
            highest = t->overflow[i];
    return bucket_is_full(&t->policy, highest, now) ? UINT64_MAX : tokens_of(t, highest, now);
}

void anon_table_limit_overflow(struct anon_table *t, uint64_t tokens, uint64_t now)
{
    uint64_t word = bucket_word(&t->policy, (double)tokens / (double)(1u << ANON_TOKEN_BITS), now);
    for (size_t i = 0; i < ANON_OVERFLOWS; i++)
        if (t->overflow[i] < word)
            t->overflow[i] = word;
}
