/* How many connections each client address has, so that none has them all. */
#ifndef LB_PROXY_CROWD_H
#define LB_PROXY_CROWD_H

#include "base/hash.h"
#include "base/list.h"
#include "net/addr.h"

#include <stdbool.h>

/* The connections of one address; it exists while there are any. */
struct crowd_group {
    struct hash_node node;
    struct ip ip;
    unsigned count;
    struct list closing; /* those of them that are only being closed, as the owner of the connections links them */
};

struct crowd {
    struct hash_table groups;
    struct hash_key key; /* addresses are the clients' choice: nobody is to aim at one chain */
};

void crowd_init(struct crowd *c);
void crowd_fini(struct crowd *c);

/* Counts one connection more for `ip`: `*group` is to be left at its end. False when it has `max` already; `*group`
 * then is the one that is full. Without memory the connection goes uncounted, and `*group` is NULL. */
bool crowd_enter(struct crowd *c, const struct ip *ip, unsigned max, struct crowd_group **group)
    __attribute__((warn_unused_result));

/* One connection less. NULL is fine. */
void crowd_leave(struct crowd *c, struct crowd_group *g);

#endif
