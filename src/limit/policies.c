/* Policies by their settings: found again by both numbers, freed when the last client has left. */
#include "limit/policies.h"

#include "base/list.h"
#include "base/mem.h"

#include <assert.h>
#include <stddef.h>

struct shared_policy {
    struct hash_node node;
    size_t users;
    struct bucket_policy policy;
};

struct settings {
    double capacity, rate;
};

void policies_init(struct policies *ps, const struct hash_key *key)
{
    ps->key = *key;
    hash_table_init(&ps->by_settings);
}

static void free_policy(struct hash_node *n)
{
    mem_free(container_of(n, struct shared_policy, node));
}

void policies_fini(struct policies *ps)
{
    hash_table_clear(&ps->by_settings, free_policy);
}

static bool has_settings(const struct hash_node *node, const void *wanted)
{
    _Static_assert(offsetof(struct shared_policy, node) == 0, "a node is its policy");
    const struct bucket_policy *p = &((const struct shared_policy *)(const void *)node)->policy;
    const struct settings *s = wanted;
    return p->capacity == s->capacity && p->rate == s->rate;
}

const struct bucket_policy *policies_get(struct policies *ps, double capacity, double rate)
{
    struct settings wanted = {capacity, rate};
    uint64_t hash = hash_bytes(&ps->key, &wanted, sizeof wanted);
    struct hash_node *n = hash_table_find(&ps->by_settings, hash, has_settings, &wanted);
    struct shared_policy *s = n ? container_of(n, struct shared_policy, node) : mem_try_alloc(sizeof *s);
    if (!n && (!s || !hash_table_insert(&ps->by_settings, &s->node, hash))) {
        mem_free(s);
        return NULL;
    }
    if (!n)
        bucket_policy_init(&s->policy, capacity, rate);
    s->users++;
    return &s->policy;
}

void policies_put(struct policies *ps, const struct bucket_policy *p)
{
    if (!p)
        return;
    struct shared_policy *s = container_of((struct bucket_policy *)p, struct shared_policy, policy);
    assert(s->users > 0);
    if (--s->users > 0)
        return;
    hash_table_remove(&ps->by_settings, &s->node);
    mem_free(s);
}
