/* A ring of ten seconds, summed. */
#include "proxy/budget.h"

#include "base/clock.h"

static void advance(struct retry_budget *b, uint64_t second)
{
    uint64_t steps = second - b->second;
    b->second = second;
    if (steps > BUDGET_SECONDS)
        steps = BUDGET_SECONDS;
    for (uint64_t i = 0; i < steps; i++) {
        unsigned slot = (unsigned)((second - i) % BUDGET_SECONDS);
        b->begun_sum -= b->begun[slot];
        b->retries_sum -= b->retries[slot];
        b->begun[slot] = b->retries[slot] = 0;
    }
}

void budget_count(struct retry_budget *b, uint64_t now)
{
    uint64_t second = now / NS_PER_S;
    if (second != b->second)
        advance(b, second);
    b->begun[second % BUDGET_SECONDS]++;
    b->begun_sum++;
}

bool budget_allows(struct retry_budget *b, uint64_t now, unsigned percent)
{
    uint64_t second = now / NS_PER_S;
    if (second != b->second)
        advance(b, second);
    unsigned slot = (unsigned)(second % BUDGET_SECONDS);
    bool always = b->retries[slot] < BUDGET_ALWAYS || b->retries_sum < BUDGET_SECONDS * BUDGET_ALWAYS;
    return always || (b->retries_sum + 1) * 100 <= b->begun_sum * percent;
}

void budget_spend(struct retry_budget *b, uint64_t now)
{
    uint64_t second = now / NS_PER_S;
    if (second != b->second)
        advance(b, second);
    b->retries[second % BUDGET_SECONDS]++;
    b->retries_sum++;
}
