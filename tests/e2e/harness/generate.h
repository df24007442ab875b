/* Requests made from a grammar, sound ones and unsound ones, and mutated: the same for the same seed on every machine.
 */
#ifndef HARNESS_GENERATE_H
#define HARNESS_GENERATE_H

#include "harness/util.h"

/* A source of numbers: splitmix64. */
struct rng {
    uint64_t state;
};
struct rng rng_of(uint64_t seed, uint64_t index);
/* One of 0 .. n-1. */
unsigned rng_below(struct rng *g, unsigned n);
/* True in `percent` of 100 cases. */
bool rng_chance(struct rng *g, unsigned percent);

/* Appends what one client might send: a request, sometimes a few of them one behind the other. */
void generate_requests(struct rng *g, struct bytes *out);

/* Damages `b` once: a byte or a piece deleted, doubled, changed or inserted, lines swapped, doubled or deleted, or its
 * end replaced by the end of `other`. */
void mutate(struct rng *g, struct bytes *b, const struct bytes *other);

/* Appends requests, mutated in half of the cases. */
void generate(struct rng *g, struct bytes *out);

#endif
