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

/* Slots that were given back: a stack in blocks, so that however many there are, none is ever copied elsewhere. */
#define GIVEN_BLOCK 1000u
struct words_given {
    struct words_given *below; /* full; NULL: there is none */
    uint32_t n;                /* at least one */
    uint32_t slots[GIVEN_BLOCK];
};

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
    for (struct words_given *g = w->given, *below; g; g = below) {
        below = g->below;
        mem_free(g);
    }
    *w = (struct words){.key = w->key};
}

/* Room in the list of chunks for one more. */
static bool reserve_chunk(struct words *w)
{
    if (w->last + 1 < w->chunk_cap)
        return true;
    size_t cap = w->chunk_cap ? 2 * w->chunk_cap : 64;
    struct word_chunk *fresh = mem_try_alloc(cap * sizeof *fresh);
    if (!fresh)
        return false;
    if (w->chunks)
        memcpy(fresh, w->chunks, (w->last + 1) * sizeof *fresh);
    mem_free(w->chunks);
    w->chunks = fresh;
    w->chunk_cap = cap;
    return true;
}

static bool push_chunk(struct words *w, struct word_slot *slots, size_t n, bool own)
{
    assert(n > 0 && n <= WORDS_CHUNK);
    if (w->last == WORDS_CHUNKS || !reserve_chunk(w))
        return false;
    w->chunks[++w->last] = (struct word_chunk){slots, w->open, 0, (uint32_t)n, own};
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

static uint32_t given_slot(struct words *w)
{
    struct words_given *g = w->given;
    uint32_t slot = g->slots[--g->n];
    if (g->n == 0) {
        w->given = g->below;
        mem_free(g);
    }
    return slot;
}

uint32_t words_take(struct words *w)
{
    bool extended = w->room == 0 && w->extend && w->extend(w->extend_arg);
    if (!extended && w->room == 0 && !add_own(w))
        return 0;
    uint32_t slot = w->given ? given_slot(w) : fresh_slot(w);
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
    struct words_given *g = w->given;
    if (!g || g->n == GIVEN_BLOCK) {
        g = mem_try_alloc_room(sizeof *g, offsetof(struct words_given, slots));
        if (!g)
            return;
        g->below = w->given;
        w->given = g;
    }
    g->slots[g->n++] = slot;
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
