/* SipHash, and a chained table whose growth is spread over the calls that follow it.
 * While it grows, an entry is in the old slots if its chain there has not been moved yet, else in the new ones. */
#include "base/hash.h"

#include <assert.h>
#include <endian.h>
#include <stdlib.h>
#include <string.h>

#define SLOTS_FIRST 16u
/* Old chains moved by each insert and remove. A table of n slots starts to grow at n entries and would have to again
 * at 2n: one chain for each insert would be enough already. */
#define CHAINS_A_CALL 4

static inline uint64_t rotate(uint64_t v, unsigned bits)
{
    return v << bits | v >> (64 - bits);
}

__attribute__((always_inline)) static inline void sip_rounds(uint64_t v[4], unsigned rounds)
{
    while (rounds--) {
        v[0] += v[1];
        v[2] += v[3];
        v[1] = rotate(v[1], 13) ^ v[0];
        v[3] = rotate(v[3], 16) ^ v[2];
        v[0] = rotate(v[0], 32);
        v[2] += v[1];
        v[0] += v[3];
        v[1] = rotate(v[1], 17) ^ v[2];
        v[3] = rotate(v[3], 21) ^ v[0];
        v[2] = rotate(v[2], 32);
    }
}

/* What is left, less than 8 bytes, as a little-endian number. */
static inline uint64_t sip_word(const unsigned char *p, size_t n)
{
    uint64_t word = 0;

    for (size_t i = 0; i < n; i++)
        word |= (uint64_t)p[i] << (8 * i);
    return word;
}

static inline uint64_t sip_whole_word(const unsigned char *p)
{
    uint64_t word;

    memcpy(&word, p, sizeof word);
    return le64toh(word);
}

/* In place, with the rounds known: half the time of one function for both. */
__attribute__((always_inline)) static inline uint64_t sip(const struct hash_key *key, const unsigned char *p, size_t n,
                                                          unsigned c, unsigned d)
{
    uint64_t v[4] = {key->k0 ^ UINT64_C(0x736f6d6570736575), key->k1 ^ UINT64_C(0x646f72616e646f6d),
                     key->k0 ^ UINT64_C(0x6c7967656e657261), key->k1 ^ UINT64_C(0x7465646279746573)};
    uint64_t length = (uint64_t)n << 56;

    for (; n >= 8; p += 8, n -= 8) {
        uint64_t word = sip_whole_word(p);
        v[3] ^= word;
        sip_rounds(v, c);
        v[0] ^= word;
    }
    uint64_t last = length | sip_word(p, n);
    v[3] ^= last;
    sip_rounds(v, c);
    v[0] ^= last;
    v[2] ^= 0xff;
    sip_rounds(v, d);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}

uint64_t hash_siphash24(const struct hash_key *key, const void *p, size_t n)
{
    return sip(key, p, n, 2, 4);
}

uint64_t hash_bytes(const struct hash_key *key, const void *p, size_t n)
{
    return sip(key, p, n, 1, 3);
}

void hash_table_init(struct hash_table *t)
{
    *t = (struct hash_table){0};
}

static void clear_slots(struct hash_node **slots, size_t n, void (*fn)(struct hash_node *node))
{
    for (size_t i = 0; slots && i < n; i++)
        for (struct hash_node *e = slots[i], *next; e; e = next) {
            next = e->next;
            fn(e);
        }
}

void hash_table_clear(struct hash_table *t, void (*fn)(struct hash_node *node))
{
    clear_slots(t->slots, t->mask + 1, fn);
    clear_slots(t->old_slots, t->old_mask + 1, fn);
    hash_table_fini(t);
}

void hash_table_fini(struct hash_table *t)
{
    free(t->slots);
    free(t->old_slots);
    *t = (struct hash_table){0};
}

static struct hash_node *find_in_chain(struct hash_node *n, uint64_t hash, hash_eq_fn *eq, const void *wanted)
{
    while (n && !(n->hash == (uint32_t)hash && eq(n, wanted)))
        n = n->next;
    return n;
}

struct hash_node *hash_table_find(const struct hash_table *t, uint64_t hash, hash_eq_fn *eq, const void *wanted)
{
    struct hash_node *n = NULL;

    if (t->slots)
        n = find_in_chain(t->slots[hash & t->mask], hash, eq, wanted);
    if (!n && t->old_slots)
        n = find_in_chain(t->old_slots[hash & t->old_mask], hash, eq, wanted);
    return n;
}

static void push(struct hash_table *t, struct hash_node *n)
{
    struct hash_node **slot = &t->slots[n->hash & t->mask];

    n->next = *slot;
    *slot = n;
}

static void move_chain(struct hash_table *t, struct hash_node **old_slot)
{
    struct hash_node *n = *old_slot;

    *old_slot = NULL;
    while (n) {
        struct hash_node *next = n->next;
        push(t, n);
        n = next;
    }
}

/* Moves the next few chains of a table that is growing. */
static void grow_further(struct hash_table *t)
{
    for (int i = 0; i < CHAINS_A_CALL && t->old_slots; i++) {
        move_chain(t, &t->old_slots[t->moved++]);
        if (t->moved > t->old_mask) {
            free(t->old_slots);
            t->old_slots = NULL;
        }
    }
}

/* calloc() of a large block takes fresh pages, which the kernel zeroes when they are first touched: no pause here. */
static void begin_growth(struct hash_table *t)
{
    size_t n = t->slots ? 2 * (t->mask + 1) : SLOTS_FIRST;
    struct hash_node **slots = n - 1 <= UINT32_MAX ? calloc(n, sizeof(struct hash_node *)) : NULL;

    if (!slots)
        return;
    t->old_slots = t->slots;
    t->old_mask = t->mask;
    t->moved = 0;
    t->slots = slots;
    t->mask = n - 1;
}

bool hash_table_insert(struct hash_table *t, struct hash_node *node, uint64_t hash)
{
    grow_further(t);
    if (!t->slots || (t->count > t->mask && !t->old_slots))
        begin_growth(t);
    /* Without more slots, be it for want of memory, the chains just become longer. */
    if (!t->slots)
        return false;
    node->hash = (uint32_t)hash;
    push(t, node);
    t->count++;
    return true;
}

static bool remove_from_chain(struct hash_node **link, struct hash_node *node)
{
    while (*link && *link != node)
        link = &(*link)->next;
    if (!*link)
        return false;
    *link = node->next;
    node->next = NULL;
    return true;
}

void hash_table_remove(struct hash_table *t, struct hash_node *node)
{
    bool found = remove_from_chain(&t->slots[node->hash & t->mask], node);

    if (!found && t->old_slots)
        found = remove_from_chain(&t->old_slots[node->hash & t->old_mask], node);
    assert(found);
    t->count--;
    grow_further(t);
}
