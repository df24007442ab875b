/* The judge: counts what the load and the ledger have seen, and holds it against the promises of the scenario. These
 * are everybody's, in every scenario:
 *   - no POST is delivered twice
 *   - 503 only while no backend is eligible
 *   - an answer that claims to be whole is whole and right
 *   - the balancer lives */
#ifndef CHAOS_JUDGE_H
#define CHAOS_JUDGE_H

#include "scenario.h"

/* A share may be off its third by that many points of a hundred. */
#define EVEN_TOLERANCE 3.0

struct counts {
    unsigned requests;
    unsigned failed[2], excused[2]; /* [0]: idempotent, [1]: POST; outside of the time that is excused, and in it */
    unsigned outcomes[CALL_OUTCOMES];
    unsigned cut_safe;    /* idempotent ones that were cut; they count as failed, too */
    unsigned unasked_503; /* 503s while a backend was eligible */
    uint64_t worst_gap;   /* us between two successes */
    uint64_t worst_wait;  /* us for one */
    unsigned shares[BACKENDS], shared;
    unsigned posts, delivered, twice; /* answered well; in the ledger, and how many of these again */
};

/* The load has been stopped. */
void judge(struct stage *s, const struct scenario *c, struct counts *n);

#endif
