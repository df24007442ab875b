/* A ring of ten seconds, summed. */
#include "proxy/budget.h"

#include "base/clock.h"

/* Empties the slots of the seconds that have begun since the last call; returns the present one's. */
static unsigned advance(struct retry_budget *b, uint64_t now)
{
    uint64_t second = now / NS_PER_S, steps = second - b->second;
    b->second = second;
    if (steps > BUDGET_SECONDS)
        steps = BUDGET_SECONDS;
    for (uint64_t i = 0; i < steps; i++) {
        unsigned slot = (unsigned)((second - i) % BUDGET_SECONDS);
        b->begun_sum -= b->begun[slot];
        b->retries_sum -= b->retries[slot];
        b->begun[slot] = b->retries[slot] = 0;
    }
    return (unsigned)(second % BUDGET_SECONDS);
}

void budget_count(struct retry_budget *b, uint64_t now)
{
    b->begun[advance(b, now)]++;
    b->begun_sum++;
}

bool budget_allows(struct retry_budget *b, uint64_t now, unsigned percent)
{
    unsigned slot = advance(b, now);
    bool always = b->retries[slot] < BUDGET_ALWAYS || b->retries_sum < BUDGET_SECONDS * BUDGET_ALWAYS;
    return always || (b->retries_sum + 1) * 100 <= b->begun_sum * percent;
}

void budget_spend(struct retry_budget *b, uint64_t now)
{
    b->retries[advance(b, now)]++;
    b->retries_sum++;
}
