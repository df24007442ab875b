/* Active health checks: a GET of health_check.path on a connection of its own, every interval (or a little less, by
 * chance), over within the timeout.
 *
 * Health is one integer, as in HAProxy: 0 .. rise-1 is down, rise .. rise+fall-1 is up. A success counts up and jumps
 * to the top when it reaches `rise`; a failure counts down and drops to 0 below `rise`. The first probe's failure drops
 * to 0 at once. A backend given by name is resolved anew with each probe, on a thread for names; a probe does not
 * wait for that, but uses the addresses known. `fall` answers in a row that there is no such name take it down. */
#ifndef LB_UPSTREAM_HEALTH_H
#define LB_UPSTREAM_HEALTH_H

#include "base/clock.h"
#include "upstream/backend.h"

#define HEALTH_RESOLVE_INTERVAL (10 * NS_PER_S) /* how often a name is asked for when checks are off */
#define HEALTH_BACKOFF_SHARE    10u             /* a backend that is down is asked each tenth of that time ... */
#define HEALTH_BACKOFF_MAX      5u              /* ... but at least each so many intervals */
#define HEALTH_JITTER           100u            /* up to so many thousandths of a pause are left out, by chance */
#define HEALTH_AGAIN_SHARE      10u      /* what we lacked a descriptor for is tried again after that share of an */
#define HEALTH_AGAIN_MAX        NS_PER_S /* interval, at most so long; up to half of that is left out, by chance */

/* The integer's rule, by itself. */
struct health_score {
    unsigned value, fall, rise;
    bool probed; /* a probe has ended */
};
void health_score_init(struct health_score *s, unsigned fall, unsigned rise, bool up);
/* Counts one result; returns whether the backend is up now. */
bool health_score_count(struct health_score *s, bool success);

/* Other settings: what is up stays up with the failures that it has, at most one less than take it down; what is down
 * stays down with its successes. */
void health_score_change(struct health_score *s, unsigned fall, unsigned rise);

/* Sets it to what another process knows: up, with so many failures in a row, or down, with so many successes. */
void health_score_set(struct health_score *s, bool up, unsigned in_a_row);

/* Starts checking `be` at once. False when memory runs out. */
bool health_start(struct backend *be) __attribute__((warn_unused_result));
void health_stop(struct backend *be);

/* Nobody is available any more: a check that has been put off goes out as if it had not been. */
void health_hurry(struct backend *be);

/* What checks know, on its way to another process. */
struct health_known {
    bool up;
    unsigned in_a_row; /* checks that spoke against that */
};
/* False: there are none. */
bool health_tell(const struct backend *be, struct health_known *out) __attribute__((warn_unused_result));
/* Another process knew that the name of `be` leads to these `count` addresses, at least 1: unless it has been resolved
 * here, it goes on with them, until the next answer says otherwise. They come first, what that one's checks knew after
 * them. */
void health_take_addresses(struct backend *be, const struct addr *told, int count);
/* Another process knew that: it counts, and after it what the first probe of our own has found, if that is over. */
void health_take(struct backend *be, const struct health_known *k);
/* What the last probe has found, or why there is none, for the log. */
const char *health_cause(const struct backend *be);

/* A reload of a backend that stays, in two steps. The first makes what it will need under `fresh` and does not have
 * (*staged, perhaps NULL); false when memory runs out. */
bool health_stage(struct backend *be, const struct config *fresh, struct health_check **staged)
    __attribute__((warn_unused_result));
void health_discard(struct health_check *staged);
/* The second, once be->snapshot is the new one: takes `staged` over. The check goes on with the new settings; where
 * something else is asked of the backend, with a probe at once. Without checks the backend is up. Needs room for one
 * timer, see loop_reserve(). */
void health_change(struct backend *be, const struct config *old, struct health_check *staged);

#endif
