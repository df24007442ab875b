/* SipHash, and a chained table by linear hashing.
 *
 *      slots   0 ............ s ............ (mask + 1) / 2 .... slots
 *              split in this  |  yet to be   |  where the moved ones of
 *              round          |  split       |  0 to s - 1 are
 *
 * In each round of growth the slots there are get split one after the other: of the chain in slot s those entries whose
 * hash has the next bit set move to the new slot at the end. With the last one split all have one bit more, and a new
 * round begins. An entry is in the slot that the bits of this round say, and where that is not there yet, in the one
 * that the bits of the round before do. So there is one chain to look through, and nothing that is kept twice. Going
 * back is the same backwards. */
#include "base/hash.h"

#include <assert.h>
#include <endian.h>
#include <stdlib.h>
#include <string.h>

/* Chains split by one insert, or joined by one remove: one is enough to keep up with inserts, the second makes good for
 * those that found no memory; removals take 8/7 to leave no more than an eighth of the slots over. */
#define CHAINS_A_CALL 2

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

static inline struct hash_node **slot_at(const struct hash_table *t, size_t i)
{
    return &t->segments[i / HASH_SEGMENT][i % HASH_SEGMENT];
}

static inline struct hash_node **slot_of(const struct hash_table *t, uint32_t hash)
{
    size_t i = hash & t->mask;

    return slot_at(t, i < t->slots ? i : i & t->mask >> 1);
}

void hash_table_clear(struct hash_table *t, void (*fn)(struct hash_node *node))
{
    for (size_t i = 0; i < t->slots; i++)
        for (struct hash_node *e = *slot_at(t, i), *next; e; e = next) {
            next = e->next;
            fn(e);
        }
    hash_table_fini(t);
}

void hash_table_fini(struct hash_table *t)
{
    for (size_t i = 0; i < t->room; i++)
        free(t->segments[i]);
    free(t->segments);
    *t = (struct hash_table){0};
}

struct hash_node *hash_table_find(const struct hash_table *t, uint64_t hash, hash_eq_fn *eq, const void *wanted)
{
    struct hash_node *n = t->slots ? *slot_of(t, (uint32_t)hash) : NULL;

    while (n && !(n->hash == (uint32_t)hash && eq(n, wanted)))
        n = n->next;
    return n;
}

/* Room in the list of segments: a pointer for each 1024 slots, so that of a hundred million entries takes 800 KB, and
 * copying it is no pause. It does not become smaller. */
static bool list_segments(struct hash_table *t, size_t n)
{
    if (n <= t->room)
        return true;
    size_t room = t->room ? 2 * t->room : 4;
    struct hash_node ***segments = realloc(t->segments, room * sizeof *segments);
    if (!segments)
        return false;
    memset(segments + t->room, 0, (room - t->room) * sizeof(struct hash_node **));
    t->segments = segments;
    t->room = room;
    return true;
}

/* Memory for slot `i`, the one behind the last. */
static bool reserve_slot(struct hash_table *t, size_t i)
{
    size_t at = i / HASH_SEGMENT;

    if (!list_segments(t, at + 1))
        return false;
    if (!t->segments[at])
        t->segments[at] = calloc(HASH_SEGMENT, sizeof(struct hash_node *));
    return t->segments[at] != NULL;
}

static bool begin(struct hash_table *t)
{
    if (!reserve_slot(t, 0))
        return false;
    t->slots = HASH_SLOTS_FIRST;
    t->mask = HASH_SLOTS_FIRST - 1;
    return true;
}

/* One slot more: takes its entries out of the chain whose turn it is. False when there is no memory for it, or no bit
 * of the hashes. */
static bool split(struct hash_table *t)
{
    size_t fresh = t->slots, mask = fresh > t->mask ? 2 * t->mask + 1 : t->mask;

    if (mask > UINT32_MAX || !reserve_slot(t, fresh))
        return false;
    struct hash_node **stay = slot_at(t, fresh & mask >> 1), **go = slot_at(t, fresh);
    for (struct hash_node *n = *stay; n; n = n->next) {
        struct hash_node ***end = (n->hash & mask) == fresh ? &go : &stay;
        **end = n;
        *end = &n->next;
    }
    *stay = *go = NULL;
    t->mask = mask;
    t->slots = fresh + 1;
    return true;
}

/* One slot less: its chain goes where it came from. */
static void join(struct hash_table *t)
{
    size_t last = --t->slots;
    struct hash_node **end = slot_at(t, last & t->mask >> 1);

    while (*end)
        end = &(*end)->next;
    *end = *slot_at(t, last);
    *slot_at(t, last) = NULL;
    if (last == (t->mask + 1) / 2)
        t->mask >>= 1;
    if (last % HASH_SEGMENT == 0) {
        free(t->segments[last / HASH_SEGMENT]);
        t->segments[last / HASH_SEGMENT] = NULL;
    }
}

bool hash_table_insert(struct hash_table *t, struct hash_node *node, uint64_t hash)
{
    if (!t->slots && !begin(t))
        return false;
    node->hash = (uint32_t)hash;
    struct hash_node **slot = slot_of(t, node->hash);
    node->next = *slot;
    *slot = node;
    t->count++;
    for (int i = 0; i < CHAINS_A_CALL && t->count > t->slots && split(t); i++)
        ;
    return true;
}

/* More slots than entries by an eighth of the slots: so one that comes and goes does not have the same chain split and
 * joined over and over. */
static bool has_too_many_slots(const struct hash_table *t)
{
    return t->slots > HASH_SLOTS_FIRST && t->count < t->slots - t->slots / 8;
}

void hash_table_remove(struct hash_table *t, struct hash_node *node)
{
    assert(t->slots);
    struct hash_node **link = slot_of(t, node->hash);

    while (*link && *link != node)
        link = &(*link)->next;
    assert(*link);
    *link = node->next;
    node->next = NULL;
    t->count--;
    for (int i = 0; i < CHAINS_A_CALL && has_too_many_slots(t); i++)
        join(t);
}
