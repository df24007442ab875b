/* Least connections: where a request would find the fewest others, for the backend's weight. */
#include "upstream/backend.h"

/* Would a request at `a` have less beside it than at `b`? */
static bool is_less(const struct seat *a, const struct seat *b)
{
    return (uint64_t)(a->backend->active + 1) * (uint64_t)b->weight <
           (uint64_t)(b->backend->active + 1) * (uint64_t)a->weight;
}

struct backend *least_conn(const struct choice *c)
{
    struct tier *t = c->tier;
    const struct seat *best = NULL;
    for (unsigned i = 0; i < t->count; i++) { /* from behind the last one on: among equals it goes round */
        unsigned at = t->at + i < t->count ? t->at + i : t->at + i - t->count;
        const struct seat *s = &t->seats[at];
        if ((!best || is_less(s, best)) && choice_allows(c, s))
            best = s;
    }
    if (!best)
        return NULL;
    unsigned next = (unsigned)(best - t->seats) + 1;
    t->at = next < t->count ? next : 0;
    return best->backend;
}
