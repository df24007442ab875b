/* The better of two drawn at random. */
#include "upstream/backend.h"

#define DRAWS 8 /* that may fall on who cannot be chosen, before all are looked at */

/* The seat in which that part of the whole weight lies. */
static const struct seat *seat_at(const struct tier *t, int part)
{
    unsigned low = 0, high = t->count - 1;
    while (low < high) {
        unsigned middle = (low + high) / 2;
        if (part < t->seats[middle].until)
            high = middle;
        else
            low = middle + 1;
    }
    return &t->seats[low];
}

static const struct seat *draw(const struct choice *c)
{
    return seat_at(c->tier, (int)upstream_random(c->upstream, (uint32_t)c->tier->total));
}

static bool is_less_busy(const struct seat *a, const struct seat *b)
{
    return (uint64_t)(a->backend->active + 1) * (uint64_t)b->weight <
           (uint64_t)(b->backend->active + 1) * (uint64_t)a->weight;
}

struct backend *random_two(const struct choice *c)
{
    const struct seat *first = NULL, *second = NULL;
    for (int i = 0; i < DRAWS && !second; i++) {
        const struct seat *s = draw(c);
        if (s == first || !choice_allows(c, s))
            continue;
        if (!first)
            first = s;
        else
            second = s;
    }
    if (!first)
        return least_conn(c);
    return second && is_less_busy(second, first) ? second->backend : first->backend;
}
