/* The registered clients: a keyed hash table for the ids, and a skip list for the order of registration.
 * A client is one block: the struct, its links of the skip list, its id without a zero. */
#include "limit/client_table.h"

#include "base/mem.h"
#include "http/chars.h"
#include "net/addr.h"

#include <assert.h>

/* The place of a deleted client. Its id is not kept: 64 bits of keyed hash stand for it. */
struct gone {
    struct hash_node node; /* with the high half of the hash */
    struct list order;
    uint64_t seq;
};

static struct client *client_of(struct hash_node *n)
{
    return n ? container_of(n, struct client, node) : NULL;
}

static struct client **links(struct client *c)
{
    return (struct client **)(void *)(c + 1);
}

static struct client *link_at(const struct client *c, unsigned level)
{
    return ((struct client *const *)(const void *)(c + 1))[level];
}

struct str client_id(const struct client *c)
{
    const char *p = (const char *)(c + 1) + c->levels * sizeof(struct client *);
    return str_make(p, c->id_len);
}

bool client_id_canonical(struct str id, char out[CLIENT_ID_MAX + 1])
{
    if (id.n == 0 || id.n > CLIENT_ID_MAX || chars_run(id.p, id.n, CHAR_VISIBLE) < id.n)
        return false;
    struct ip ip;
    if (ip_parse(id, &ip)) {
        ip_format(&ip, out);
        return true;
    }
    memcpy(out, id.p, id.n);
    out[id.n] = '\0';
    return true;
}

void client_table_init(struct client_table *t, const struct hash_key *key)
{
    *t = (struct client_table){.key = *key};
    hash_table_init(&t->by_id);
    hash_table_init(&t->gone);
    list_init(&t->gone_order);
    /* The words' key stands in their file, so it is another one. */
    struct hash_key words = {hash_siphash24(key, "words 0", 7), hash_siphash24(key, "words 1", 7)};
    words_init(&t->words, &words);
}

void client_table_fini(struct client_table *t)
{
    for (struct client *c = t->first[0], *next; c; c = next) {
        next = link_at(c, 0);
        mem_free(c);
    }
    LIST_EACH (it, &t->gone_order) {
        mem_free(container_of(it, struct gone, order));
    }
    hash_table_fini(&t->by_id);
    hash_table_fini(&t->gone);
    words_fini(&t->words);
}

static uint64_t hash_id(const struct client_table *t, struct str id)
{
    return hash_bytes(&t->key, id.p, id.n);
}

static bool has_id(const struct hash_node *node, const void *wanted)
{
    const struct client *c = (const struct client *)(const void *)node;
    return str_eq(client_id(c), *(const struct str *)wanted);
}

struct client *client_table_find(const struct client_table *t, struct str id)
{
    _Static_assert(offsetof(struct client, node) == 0, "has_id() takes a node for its client");
    return client_of(hash_table_find(&t->by_id, hash_id(t, id), has_id, &id));
}

/* ---- the order ---- */

/* Levels come from bits of the keyed hash that the slots do not use: nobody outside can choose them. */
static unsigned levels_of(uint64_t hash)
{
    unsigned n = 1;
    for (uint64_t bits = hash >> 40; n < CLIENT_LEVELS && (bits & 3) == 0; bits >>= 2)
        n++;
    return n;
}

static void set_place(struct client *c, uint64_t seq)
{
    assert(seq >> CLIENT_PLACE_BITS == 0);
    c->seq = seq & ((UINT64_C(1) << CLIENT_PLACE_BITS) - 1);
}

static void order_append(struct client_table *t, struct client *c, uint64_t seq)
{
    assert(seq > t->last_seq);
    set_place(c, seq);
    t->last_seq = seq;
    for (unsigned i = 0; i < c->levels; i++) {
        links(c)[i] = NULL;
        if (t->last[i])
            links(t->last[i])[i] = c;
        else
            t->first[i] = c;
        t->last[i] = c;
    }
}

/* The last client of each level whose seq is at most `seq`, NULL where there is none. */
static void find_up_to(const struct client_table *t, uint64_t seq, struct client *found[CLIENT_LEVELS])
{
    struct client *c = NULL;
    for (unsigned i = CLIENT_LEVELS; i-- > 0;) {
        struct client *next;
        while ((next = c ? link_at(c, i) : t->first[i]) && next->seq <= seq)
            c = next;
        found[i] = c;
    }
}

static void order_remove(struct client_table *t, struct client *c)
{
    struct client *before[CLIENT_LEVELS];
    find_up_to(t, c->seq - 1, before);
    for (unsigned i = 0; i < c->levels; i++) {
        if (before[i])
            links(before[i])[i] = link_at(c, i);
        else
            t->first[i] = link_at(c, i);
        if (t->last[i] == c)
            t->last[i] = before[i];
    }
}

/* 0, or where another one is, is the end. */
static void order_put(struct client_table *t, struct client *c, uint64_t seq)
{
    struct client *before[CLIENT_LEVELS];
    if (seq == 0 || seq > t->last_seq) {
        order_append(t, c, seq > 0 ? seq : t->last_seq + 1);
        return;
    }
    find_up_to(t, seq, before);
    if (before[0] && before[0]->seq == seq) {
        order_append(t, c, t->last_seq + 1);
        return;
    }
    set_place(c, seq);
    for (unsigned i = 0; i < c->levels; i++) {
        struct client **link = before[i] ? &links(before[i])[i] : &t->first[i];
        links(c)[i] = *link;
        *link = c;
        if (!links(c)[i])
            t->last[i] = c;
    }
}

static struct client *first_shown(struct client *c)
{
    while (c && !c->shown)
        c = link_at(c, 0);
    return c;
}

struct client *client_table_after(const struct client_table *t, uint64_t seq)
{
    struct client *before[CLIENT_LEVELS];
    find_up_to(t, seq, before);
    return first_shown(before[0] ? link_at(before[0], 0) : t->first[0]);
}

struct client *client_table_next(const struct client *c)
{
    return first_shown(link_at(c, 0));
}

/* ---- coming and going ---- */

bool client_table_prepare(struct client_table *t, const struct client_settings *s, struct settling *out)
{
    *out = (struct settling){.slot = words_take(&t->words), .mode = s->mode};
    bucket_policy_init(&out->policy, s->capacity, s->rate);
    return out->slot > 0;
}

void client_table_unprepare(struct client_table *t, struct settling *ch)
{
    if (ch->slot > 0)
        words_give(&t->words, ch->slot);
    *ch = (struct settling){0};
}

static struct client *client_new(struct client_table *t, struct str id, uint64_t hash)
{
    unsigned levels = levels_of(hash);
    struct client *c = mem_try_alloc(sizeof *c + levels * sizeof(struct client *) + id.n);
    if (!c || !hash_table_insert(&t->by_id, &c->node, hash)) {
        mem_free(c);
        return NULL;
    }
    assert(id.n <= CLIENT_ID_MAX);
    _Static_assert(CLIENT_LEVELS < 16 && CLIENT_ID_MAX < 256, "they fit into their bits");
    c->levels = levels & 15u;
    c->id_len = id.n & 255u;
    memcpy(links(c) + levels, id.p, id.n);
    return c;
}

/* What the client has counted stays. */
static void take_over(struct client *c, struct settling *ch)
{
    ch->policy.rest = c->policy.rest;
    c->policy = ch->policy;
    c->node.rest = ch->slot;
    c->mode = ch->mode & 3u;
    *ch = (struct settling){0};
}

struct client *client_table_add(struct client_table *t, struct str id, const struct client_settings *s)
{
    return client_table_add_at(t, id, s, 0);
}

struct client *client_table_add_at(struct client_table *t, struct str id, const struct client_settings *s,
                                   uint64_t place)
{
    struct settling first;
    struct ip ip;
    if (!client_table_prepare(t, s, &first))
        return NULL;
    struct client *c = client_new(t, id, hash_id(t, id));
    if (!c) {
        client_table_unprepare(t, &first);
        return NULL;
    }
    take_over(c, &first);
    c->is_address = ip_parse(id, &ip);
    t->addresses += c->is_address;
    order_put(t, c, place);
    return c;
}

void client_table_show(struct client_table *t, struct client *c)
{
    assert(!c->shown);
    c->shown = true;
    t->shown++;
    words_set(&t->words, c->node.rest, client_id(c), &c->policy, *client_word(t, c));
}

void client_table_settle(struct client_table *t, struct client *c, struct settling *ch, uint64_t word)
{
    assert(c->shown);
    words_set(&t->words, ch->slot, client_id(c), &ch->policy, word);
    words_give(&t->words, c->node.rest);
    take_over(c, ch);
}

bool client_table_recall(const struct client_table *t, const struct client *c, const struct bucket_policy *p,
                         uint64_t now, uint64_t *word)
{
    return past_words_find(t->past, client_id(c), p, t->past_now, now, word);
}

void client_table_move(struct client_table *t, struct client *c, uint64_t place)
{
    order_remove(t, c);
    order_put(t, c, place);
}

static bool has_hash(const struct hash_node *node, const void *wanted)
{
    return node->rest == *(const uint64_t *)wanted >> 32;
}

static struct gone *find_gone(const struct client_table *t, struct str id)
{
    uint64_t hash = hash_id(t, id);
    struct hash_node *n = hash_table_find(&t->gone, hash, has_hash, &hash);
    return n ? container_of(n, struct gone, node) : NULL;
}

static void free_gone(struct client_table *t, struct gone *g)
{
    hash_table_remove(&t->gone, &g->node);
    list_remove(&g->order);
    mem_free(g);
}

void client_table_forget_gone(struct client_table *t, struct str id)
{
    struct gone *g = find_gone(t, id);
    if (g)
        free_gone(t, g);
}

/* Where one of this id has gone before, that place counts on: an id that has been handed out since is forgotten there.
 * Without memory the place is not remembered: a cursor there starts anew, and misses nobody. */
static void remember_gone(struct client_table *t, const struct client *c)
{
    struct gone *before = find_gone(t, client_id(c));
    if (before) {
        list_remove(&before->order);
        list_push_back(&t->gone_order, &before->order);
        return;
    }
    if (t->gone.count >= CLIENTS_GONE_MAX)
        free_gone(t, container_of(t->gone_order.next, struct gone, order));
    struct gone *g = mem_try_alloc(sizeof *g);
    uint64_t hash = hash_id(t, client_id(c));
    if (!g || !hash_table_insert(&t->gone, &g->node, hash)) {
        mem_free(g);
        return;
    }
    g->node.rest = (uint32_t)(hash >> 32);
    g->seq = c->seq;
    list_push_back(&t->gone_order, &g->order);
}

void client_table_remove(struct client_table *t, struct client *c)
{
    if (c->shown) {
        remember_gone(t, c);
        t->shown--;
    }
    t->addresses -= c->is_address;
    order_remove(t, c);
    hash_table_remove(&t->by_id, &c->node);
    words_give(&t->words, c->node.rest);
    mem_free(c);
}

uint64_t client_table_place(const struct client_table *t, struct str id)
{
    const struct gone *g = find_gone(t, id);
    if (g)
        return g->seq;
    const struct client *c = client_table_find(t, id);
    return c && c->shown ? c->seq : 0;
}
