/* Connections by client address. An address that has none is not remembered. */
#include "proxy/crowd.h"

#include "base/clock.h"
#include "base/list.h"
#include "base/mem.h"

static struct crowd_group *group_of(struct hash_node *node)
{
    return container_of(node, struct crowd_group, node);
}

static bool is_of(const struct hash_node *node, const void *wanted)
{
    return ip_eq(&container_of(node, const struct crowd_group, node)->ip, wanted);
}

void crowd_init(struct crowd *c)
{
    hash_table_init(&c->groups);
    clock_random(&c->key, sizeof c->key);
}

static void forget(struct hash_node *node)
{
    mem_free(group_of(node));
}

void crowd_fini(struct crowd *c)
{
    hash_table_clear(&c->groups, forget);
}

static struct crowd_group *new_group(struct crowd *c, const struct ip *ip, uint64_t hash)
{
    struct crowd_group *g = mem_try_alloc(sizeof *g);
    if (!g)
        return NULL;
    g->ip = *ip;
    list_init(&g->closing);
    if (hash_table_insert(&c->groups, &g->node, hash))
        return g;
    mem_free(g);
    return NULL;
}

bool crowd_enter(struct crowd *c, const struct ip *ip, unsigned max, struct crowd_group **group)
{
    uint64_t hash = hash_bytes(&c->key, ip, sizeof *ip);
    struct hash_node *node = hash_table_find(&c->groups, hash, is_of, ip);
    struct crowd_group *g = node ? group_of(node) : new_group(c, ip, hash);
    *group = g;
    if (g && g->count >= max)
        return false;
    if (g)
        g->count++;
    return true;
}

void crowd_leave(struct crowd *c, struct crowd_group *g)
{
    if (!g || --g->count > 0)
        return;
    hash_table_remove(&c->groups, &g->node);
    mem_free(g);
}
