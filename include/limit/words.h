/* The words of the registered clients' buckets: a pool of slots, in memory that outlives a killed process where
 * words_file.h has added some, else in memory of our own. A slot says by its tag whose word it holds, under which
 * settings, so that whoever finds it after a crash can tell whether it still means anything. */
#ifndef LB_LIMIT_WORDS_H
#define LB_LIMIT_WORDS_H

#include "base/hash.h"
#include "base/str.h"
#include "limit/bucket.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct word_slot {
    uint64_t tag; /* 0: nobody's */
    uint64_t word;
};

/* A slot is known by its number: the chunk that it is in, counted from 1, and its place there. 0 is no slot's. A number
 * takes half of what a pointer does, and each client has one. */
#define WORDS_CHUNK  4096u
#define WORDS_CHUNKS (UINT32_MAX / WORDS_CHUNK)

struct word_chunk {
    struct word_slot *slots;
    uint32_t below; /* the chunk with room that was added before it; 0: there is none */
    uint32_t used, n;
    bool own; /* nobody else's memory */
};

struct words_given;

struct words {
    struct hash_key key;       /* of the tags */
    struct word_chunk *chunks; /* the first is none */
    uint32_t last;             /* of the chunks */
    uint32_t open;             /* of those with room the one added last; 0: there is none */
    size_t chunk_cap;
    struct words_given *given; /* slots given back; NULL: there are none */
    size_t room;               /* slots that can be taken without a chunk more */
    bool unkept;               /* a slot was taken that no file holds */
    bool (*extend)(void *arg); /* called before that, to add slots instead; NULL: no such way */
    void *extend_arg;
};

void words_init(struct words *w, const struct hash_key *key);
/* Frees what is the pool's own; what was added is only let go of. */
void words_fini(struct words *w);

/* Adds `n` slots of zeros (1 to WORDS_CHUNK) that somebody else owns. False when there is no memory, or no number. */
bool words_add(struct words *w, struct word_slot *slots, size_t n) __attribute__((warn_unused_result));

/* The number of a slot without a tag, whose word is that of a full bucket. Once the pool has none, it makes a chunk of
 * its own memory, and notes that in `unkept`. 0 when there is no memory. */
uint32_t words_take(struct words *w) __attribute__((warn_unused_result));

/* Where a slot is; it stays there. */
static inline struct word_slot *words_at(const struct words *w, uint32_t slot)
{
    return &w->chunks[slot / WORDS_CHUNK].slots[slot % WORDS_CHUNK];
}

/* The slot holds the word of that client under those settings from now on. A process that is killed meanwhile leaves a
 * slot without a tag, or all of it. */
void words_set(const struct words *w, uint32_t slot, struct str id, const struct bucket_policy *p, uint64_t word);

/* Takes a slot back. Without memory to remember it, it is lost to the pool. */
void words_give(struct words *w, uint32_t slot);

/* What a slot of that client under those settings is tagged with; never 0. */
uint64_t words_tag(const struct hash_key *key, struct str id, const struct bucket_policy *p);

/* ---- what a process that was killed has left ---- */

#define WORDS_SNAPSHOTS 8u

struct past_words {
    struct hash_key key;
    struct word_slot *slots; /* in the order of their tags */
    size_t n;
    uint64_t zero;                       /* clock_boottime() at the words' time 0 */
    uint64_t snapshots[WORDS_SNAPSHOTS]; /* which clients.json they go with, see words_file.h */
    bool damaged;                        /* a word was looked for and found that no bucket can have had */
};

/* Takes over `slots` (of malloc()), of which there are `n`: leaves out those without a tag, and sorts the others. */
void past_words_init(struct past_words *past, struct word_slot *slots, size_t n);
void past_words_fini(struct past_words *past);

/* The word of that client under those settings, as it stood `then` (to the ms) on the past's time line, carried over to
 * `now` on ours: no token more than it had. False when the past has none, or a damaged one; NULL has none at all. */
bool past_words_find(struct past_words *past, struct str id, const struct bucket_policy *p, uint64_t then, uint64_t now,
                     uint64_t *word) __attribute__((warn_unused_result));

#endif
