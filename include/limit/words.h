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

struct word_chunk;

struct words {
    struct hash_key key;      /* of the tags */
    struct word_slot **given; /* slots given back */
    size_t given_count, given_cap;
    struct word_chunk *chunks; /* the first has room, or none has */
    size_t room;               /* slots that can be taken without a chunk more */
    bool unkept;               /* a slot was taken that no file holds */
    bool (*extend)(void *arg); /* called before that, to add slots instead; NULL: no such way */
    void *extend_arg;
};

void words_init(struct words *w, const struct hash_key *key);
/* Frees what is the pool's own; what was added is only let go of. */
void words_fini(struct words *w);

/* Adds `n` slots of zeros that somebody else owns. False when there is no memory. */
bool words_add(struct words *w, struct word_slot *slots, size_t n) __attribute__((warn_unused_result));

/* A slot without a tag, whose word is that of a full bucket. Once the pool has none, it makes a chunk of its own
 * memory, and notes that in `unkept`. NULL when there is no memory. */
struct word_slot *words_take(struct words *w) __attribute__((warn_unused_result));

/* The slot holds the word of that client under those settings from now on. A process that is killed meanwhile leaves a
 * slot without a tag, or all of it. */
void words_set(const struct words *w, struct word_slot *s, struct str id, const struct bucket_policy *p, uint64_t word);

/* Takes a slot back. Without memory to remember it, it is lost to the pool. */
void words_give(struct words *w, struct word_slot *s);

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
