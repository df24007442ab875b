/* Keyed hashing, so that nobody outside can aim at one bucket of a table (SipHash, Aumasson and Bernstein 2012), and an
 * intrusive chained table that grows by one slot at a time (linear hashing; Larson, "Dynamic hash tables", CACM 31(4),
 * 1988): at any number of entries it has about as many slots, and no single call moves more than a few chains. */
#ifndef LB_BASE_HASH_H
#define LB_BASE_HASH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct hash_key {
    uint64_t k0, k1;
};

/* SipHash-2-4 of `n` bytes under `key`. */
uint64_t hash_siphash24(const struct hash_key *key, const void *p, size_t n);

/* SipHash-1-3, the faster variant used by tables. */
uint64_t hash_bytes(const struct hash_key *key, const void *p, size_t n);

struct hash_node { /* embedded in an entry */
    struct hash_node *next;
    uint32_t hash; /* the low half: no table has more slots than that tells apart */
    uint32_t rest; /* the entry's own, for there would be a hole here; the table leaves it alone */
};

/* Slots that are allocated at once, and those that a table begins with, and has at least. */
#define HASH_SEGMENT     1024u
#define HASH_SLOTS_FIRST 16u

struct hash_table {
    struct hash_node ***segments; /* as many as the slots take, then NULL up to `room` */
    size_t slots;                 /* in use: the first so many */
    size_t mask;                  /* the power of two that is enough for them, less one */
    size_t count;
    size_t room; /* for segments in the list of them */
};

typedef bool hash_eq_fn(const struct hash_node *node, const void *wanted);

/* An empty table owns no memory until its first insert. */
void hash_table_init(struct hash_table *t);

/* Gives each entry to fn(), which may free it, and leaves an empty table that owns nothing. */
void hash_table_clear(struct hash_table *t, void (*fn)(struct hash_node *node));

/* Frees the slots; the entries are their owner's. */
void hash_table_fini(struct hash_table *t);

/* The entry with that hash for which eq(entry, wanted) holds, or NULL. Never allocates. */
struct hash_node *hash_table_find(const struct hash_table *t, uint64_t hash, hash_eq_fn *eq, const void *wanted);

/* Puts `node` in under that hash; the caller has seen that no equal one is there. False when there is no memory for
 * the first slots; without memory for more of them chains become longer. */
bool hash_table_insert(struct hash_table *t, struct hash_node *node, uint64_t hash) __attribute__((warn_unused_result));

/* Takes out `node`, which must be in the table. */
void hash_table_remove(struct hash_table *t, struct hash_node *node);

#endif
