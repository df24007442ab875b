/* The words of the registered clients' buckets: a pool of slots, and what a killed process has left of its own. */
#include "limit/words.h"

#include "base/clock.h"
#include "base/mem.h"

#include <assert.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define OWN_CHUNK 1024u
#define ID_MAX    128u

void words_init(struct words *w, const struct hash_key *key)
{
    *w = (struct words){.key = *key};
}

void words_fini(struct words *w)
{
    for (uint32_t i = 1; i <= w->last; i++)
        if (w->chunks[i].own)
            mem_free(w->chunks[i].slots);
    mem_free(w->chunks);
    mem_free(w->given);
    *w = (struct words){.key = w->key};
}

/* An array of `*cap` members, `n` of them in use, with room for one more: the same one, perhaps elsewhere, or NULL. */
static void *reserve(void *array, size_t n, size_t *cap, size_t size)
{
    if (n < *cap)
        return array;
    size_t more = *cap ? 2 * *cap : 64;
    void *fresh = mem_try_alloc(more * size);
    if (!fresh)
        return NULL;
    if (array)
        memcpy(fresh, array, n * size);
    mem_free(array);
    *cap = more;
    return fresh;
}

static bool push_chunk(struct words *w, struct word_slot *slots, size_t n, bool own)
{
    assert(n > 0 && n <= WORDS_CHUNK);
    if (w->last == WORDS_CHUNKS)
        return false;
    struct word_chunk *chunks = reserve(w->chunks, w->last + 1, &w->chunk_cap, sizeof *chunks);
    if (!chunks)
        return false;
    w->chunks = chunks;
    chunks[++w->last] = (struct word_chunk){slots, w->open, 0, (uint32_t)n, own};
    w->open = w->last;
    w->room += n;
    return true;
}

bool words_add(struct words *w, struct word_slot *slots, size_t n)
{
    return push_chunk(w, slots, n, false);
}

static bool add_own(struct words *w)
{
    struct word_slot *slots = mem_try_alloc(OWN_CHUNK * sizeof *slots);
    if (!slots || !push_chunk(w, slots, OWN_CHUNK, true)) {
        mem_free(slots);
        return false;
    }
    w->unkept = true;
    return true;
}

/* Of the chunk that was added last: so slots of a file that could be made longer again come before our own. */
static uint32_t fresh_slot(struct words *w)
{
    uint32_t at = w->open;
    assert(at > 0);
    struct word_chunk *c = &w->chunks[at];
    uint32_t slot = at * WORDS_CHUNK + c->used++;
    if (c->used == c->n)
        w->open = c->below;
    return slot;
}

uint64_t words_tag(const struct hash_key *key, struct str id, const struct bucket_policy *p)
{
    char all[ID_MAX + 2 * sizeof(double)];
    assert(id.n <= ID_MAX);
    memcpy(all, &p->capacity, sizeof(double));
    memcpy(all + sizeof(double), &p->rate, sizeof(double));
    memcpy(all + 2 * sizeof(double), id.p, id.n);
    uint64_t tag = hash_siphash24(key, all, 2 * sizeof(double) + id.n);
    return tag ? tag : 1;
}

uint32_t words_take(struct words *w)
{
    bool extended = w->room == 0 && w->extend && w->extend(w->extend_arg);
    if (!extended && w->room == 0 && !add_own(w))
        return 0;
    uint32_t slot = w->given_count > 0 ? w->given[--w->given_count] : fresh_slot(w);
    w->room--;
    words_at(w, slot)->word = 0;
    return slot;
}

void words_set(const struct words *w, uint32_t slot, struct str id, const struct bucket_policy *p, uint64_t word)
{
    struct word_slot *s = words_at(w, slot);
    /* The process may be killed between any two instructions: the order of the stores is all that counts. */
    s->tag = 0;
    atomic_signal_fence(memory_order_seq_cst);
    s->word = word;
    atomic_signal_fence(memory_order_seq_cst);
    s->tag = words_tag(&w->key, id, p);
    atomic_signal_fence(memory_order_seq_cst);
}

void words_give(struct words *w, uint32_t slot)
{
    words_at(w, slot)->tag = 0;
    uint32_t *given = reserve(w->given, w->given_count, &w->given_cap, sizeof *given);
    if (!given)
        return;
    w->given = given;
    given[w->given_count++] = slot;
    w->room++;
}

/* ---- what a process that was killed has left ---- */

/* Of two slots with the same tag the emptier bucket comes first. */
static int by_tag(const void *a, const void *b)
{
    const struct word_slot *x = a, *y = b;
    if (x->tag != y->tag)
        return x->tag < y->tag ? -1 : 1;
    return x->word == y->word ? 0 : x->word > y->word ? -1 : 1;
}

void past_words_init(struct past_words *past, struct word_slot *slots, size_t n)
{
    size_t kept = 0;
    for (size_t i = 0; i < n; i++)
        if (slots[i].tag != 0)
            slots[kept++] = slots[i];
    past->slots = slots;
    past->n = kept;
    if (kept > 0)
        qsort(slots, kept, sizeof *slots, by_tag);
}

void past_words_fini(struct past_words *past)
{
    mem_free(past->slots);
    *past = (struct past_words){0};
}

/* The first slot whose tag is at least that. */
static size_t find_tag(const struct past_words *past, uint64_t tag)
{
    size_t low = 0, high = past->n;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (past->slots[middle].tag < tag)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

bool past_words_find(struct past_words *past, struct str id, const struct bucket_policy *p, uint64_t then, uint64_t now,
                     uint64_t *word)
{
    if (!past || past->n == 0)
        return false;
    uint64_t tag = words_tag(&past->key, id, p);
    for (size_t i = find_tag(past, tag); i < past->n && past->slots[i].tag == tag; i++) {
        uint64_t found = past->slots[i].word;
        if (bucket_credible(p, found, then + NS_PER_MS) == found) {
            *word = bucket_carried(p, found, then, now);
            return true;
        }
        past->damaged = true; /* taken for a debt, it would keep the client out for years */
    }
    return false;
}
