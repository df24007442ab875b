/* How the next backend is chosen: a policy is one function over the seats of a tier. Used inside the upstream layer.
 *
 *   tier PRIMARY   available, no backup       the first that has a seat is used: primaries while there is one, backups
 *   tier BACKUP    available backups          when there is none, and when nothing else is up those that passive
 *   tier LAST      up, but ejected            checks have ejected, which is better than nothing; and by a request
 *                                             that all available ones have failed, before one gets it again
 *
 * Seats are rebuilt when a backend becomes available or ceases to be, on a reload, and step by step during a slow
 * start; so that a choice need not look at those that cannot be chosen. */
#ifndef LB_UPSTREAM_POLICY_H
#define LB_UPSTREAM_POLICY_H

#include "upstream/upstream.h"

#include <stdbool.h>

enum { TIER_PRIMARY, TIER_BACKUP, TIER_LAST, TIER_COUNT };

/* A weight of 1 in the config is this in a seat, so that a slow start has steps. */
#define SEAT_WEIGHT 100

struct seat {
    struct backend *backend;
    int weight; /* in hundredths */
    int turn;   /* round_robin: the current weight */
    int until;  /* the sum of the weights up to and with this one */
};

struct tier {
    struct seat *seats; /* room for all backends */
    unsigned count;
    unsigned at; /* whose turn it is where all weights are the same */
    bool even;   /* they are */
    int total;   /* the sum of the weights */
};

struct choice {
    struct upstream *upstream;
    struct tier *tier; /* not empty */
    const struct pick *pick;
    bool strict; /* only those that were not tried, and not those whose trial is under way */
};

/* May it be chosen: it has room, and strictly taken nothing speaks against it. */
bool choice_allows(const struct choice *c, const struct seat *s);

/* The same but for the room. */
bool choice_wants(const struct choice *c, const struct seat *s);

/* Below 0, 0 or above 0: is `a` less busy for its weight than `b`, as busy, or busier? */
int seat_compare(const struct seat *a, const struct seat *b);

/* Each returns the backend chosen, or NULL when the choice allows none. */
typedef struct backend *policy_fn(const struct choice *c);

/* Smooth weighted round robin (the method of nginx's ngx_http_upstream_round_robin.c): each backend's turn grows by its
 * weight, the largest is chosen and pays the sum. */
policy_fn round_robin;

/* The fewest requests under way for its weight; among equals, by smooth weighted round robin. */
policy_fn least_conn;

/* The less busy of two drawn by weight (Mitzenmacher, "The Power of Two Choices", 2001): nearly as even as least_conn,
 * and several balancers in front of the same backends do not all run to the one that happens to be idle. */
policy_fn random_two;

/* Weighted rendezvous hashing (Thaler and Ravishankar 1998; weights as in Schindelhauer and Schomaker 2005): the key's
 * backend is the one with the best score for it, so that a backend that goes takes only its own keys along. With
 * bounded loads (Mirrokni, Thorup and Zadimoghaddam 2016): who has more than 1.25 of its share of the requests under
 * way is passed over. A request without a key goes round robin. */
policy_fn consistent_hash;

/* The policy of a `balance`. */
policy_fn *policy_of(enum balance balance);

/* Sets the seats anew; `fresh`, which may be NULL, has no turn from before: it starts level with the others. Does
 * nothing in the middle of upstream_import(), which does so at its end. */
void tiers_build(struct upstream *u, struct backend *fresh);

/* Room for `count` backends. False when there is no memory. */
bool tiers_init(struct tier tiers[TIER_COUNT], unsigned count) __attribute__((warn_unused_result));
void tiers_fini(struct tier tiers[TIER_COUNT]);

/* Lets weights grow that are in their slow start, when that is due. */
void tiers_warm(struct upstream *u);

#endif
