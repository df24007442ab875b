/* The better of two drawn at random. */
#include "upstream/backend.h"

#define DRAWS 8 /* that may fall on who cannot be chosen, or on the same again, before all are looked at */

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

/* The first behind `s` that may be chosen, or NULL when no other may. */
static const struct seat *next_to(const struct choice *c, const struct seat *s)
{
    const struct tier *t = c->tier;
    unsigned at = (unsigned)(s - t->seats);
    for (unsigned i = 1; i < t->count; i++) {
        const struct seat *other = &t->seats[(at + i) % t->count];
        if (choice_allows(c, other))
            return other;
    }
    return NULL;
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
    if (!second)
        second = next_to(c, first);
    return second && seat_compare(second, first) < 0 ? second->backend : first->backend;
}
