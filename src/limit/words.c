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

struct word_chunk {
    struct word_chunk *next;
    struct word_slot *slots;
    size_t used, n;
    struct word_slot own[]; /* where nobody else owns them */
};

void words_init(struct words *w, const struct hash_key *key)
{
    *w = (struct words){.key = *key};
}

void words_fini(struct words *w)
{
    while (w->chunks) {
        struct word_chunk *c = w->chunks;
        w->chunks = c->next;
        mem_free(c);
    }
    mem_free(w->given);
    *w = (struct words){.key = w->key};
}

static void push_chunk(struct words *w, struct word_chunk *c, size_t n)
{
    c->n = n;
    c->next = w->chunks;
    w->chunks = c;
    w->room += n;
}

bool words_add(struct words *w, struct word_slot *slots, size_t n)
{
    struct word_chunk *c = mem_try_alloc(sizeof *c);
    if (!c)
        return false;
    c->slots = slots;
    push_chunk(w, c, n);
    return true;
}

static bool add_own(struct words *w)
{
    struct word_chunk *c = mem_try_alloc(sizeof *c + OWN_CHUNK * sizeof(struct word_slot));
    if (!c)
        return false;
    c->slots = c->own;
    push_chunk(w, c, OWN_CHUNK);
    w->unkept = true;
    return true;
}

/* A chunk that has been used up goes behind those that have room. */
static struct word_slot *fresh_slot(struct words *w)
{
    struct word_chunk *c = w->chunks;
    assert(c && c->used < c->n);
    struct word_slot *s = &c->slots[c->used++];
    if (c->used == c->n && c->next && c->next->used < c->next->n) {
        struct word_chunk **end = &c->next;
        w->chunks = c->next;
        while (*end)
            end = &(*end)->next;
        *end = c;
        c->next = NULL;
    }
    return s;
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

struct word_slot *words_take(struct words *w)
{
    bool extended = w->room == 0 && w->extend && w->extend(w->extend_arg);
    if (!extended && w->room == 0 && !add_own(w))
        return NULL;
    struct word_slot *s = w->given_count > 0 ? w->given[--w->given_count] : fresh_slot(w);
    w->room--;
    s->word = 0;
    return s;
}

void words_set(const struct words *w, struct word_slot *s, struct str id, const struct bucket_policy *p, uint64_t word)
{
    /* The process may be killed between any two instructions: the order of the stores is all that counts. */
    s->tag = 0;
    atomic_signal_fence(memory_order_seq_cst);
    s->word = word;
    atomic_signal_fence(memory_order_seq_cst);
    s->tag = words_tag(&w->key, id, p);
    atomic_signal_fence(memory_order_seq_cst);
}

static bool reserve_given(struct words *w)
{
    if (w->given_count < w->given_cap)
        return true;
    size_t cap = w->given_cap ? 2 * w->given_cap : 64;
    struct word_slot **more = mem_try_alloc(cap * sizeof(struct word_slot *));
    if (!more)
        return false;
    if (w->given_count > 0)
        memcpy(more, w->given, w->given_count * sizeof(struct word_slot *));
    mem_free(w->given);
    w->given = more;
    w->given_cap = cap;
    return true;
}

void words_give(struct words *w, struct word_slot *s)
{
    s->tag = 0;
    if (!reserve_given(w))
        return;
    w->given[w->given_count++] = s;
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
