/* The policies of the registered clients, each kept once however many clients have it: a million clients have a few
 * plans between them. */
#ifndef LB_LIMIT_POLICIES_H
#define LB_LIMIT_POLICIES_H

#include "base/hash.h"
#include "limit/bucket.h"

struct policies {
    struct hash_key key;
    struct hash_table by_settings;
};

void policies_init(struct policies *ps, const struct hash_key *key);
/* Frees them all, whoever still has one. */
void policies_fini(struct policies *ps);

/* The policy of those settings (valid ones), counted: to be given back by policies_put(). It stays where it is until
 * then. NULL when there is no memory. */
const struct bucket_policy *policies_get(struct policies *ps, double capacity, double rate)
    __attribute__((warn_unused_result));
/* NULL is fine. */
void policies_put(struct policies *ps, const struct bucket_policy *p);

#endif
