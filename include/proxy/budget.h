/* The retry budget: over the last 10 seconds retries may be at most a share of the requests begun, and 3 a second
 * always may be made. What of these has not been used is saved up, up to 30, for failures come in bursts (so it is in
 * Finagle's RetryBudget). Without it, retries multiply the load on backends that are failing because of load. */
#ifndef LB_PROXY_BUDGET_H
#define LB_PROXY_BUDGET_H

#include <stdbool.h>
#include <stdint.h>

#define BUDGET_SECONDS 10u
#define BUDGET_ALWAYS  3u /* retries a second that are always allowed */

struct retry_budget {
    uint64_t second; /* the newest slot's */
    uint32_t begun[BUDGET_SECONDS], retries[BUDGET_SECONDS];
    uint64_t begun_sum, retries_sum;
};

/* Each call moves the ring to its `now` (monotonic ns, never before an earlier call's), and so forgets what is too old.
 */

/* Counts a request begun at `now`. */
void budget_count(struct retry_budget *b, uint64_t now);

/* May a retry be made at `now`, under `percent`? Counts nothing. */
bool budget_allows(struct retry_budget *b, uint64_t now, unsigned percent) __attribute__((warn_unused_result));

/* One that was allowed at `now` is made: counts it. */
void budget_spend(struct retry_budget *b, uint64_t now);

#endif
