/* Least connections: where there are the fewest requests, for the backend's weight. Among equals, and so always while
 * nobody is busy, by smooth weighted round robin (as nginx's least_conn). */
#include "upstream/backend.h"

#include <assert.h>

static struct seat *find_least(const struct choice *c)
{
    struct tier *t = c->tier;
    struct seat *best = NULL;
    for (unsigned i = 0; i < t->count; i++) { /* from behind the last one on */
        unsigned at = t->at + i < t->count ? t->at + i : t->at + i - t->count;
        struct seat *s = &t->seats[at];
        if ((!best || seat_compare(s, best) < 0) && choice_allows(c, s))
            best = s;
    }
    return best;
}

/* Whose turn it is among those that are as busy as `least`. */
static struct seat *take_turns(const struct choice *c, const struct seat *least)
{
    struct tier *t = c->tier;
    struct seat *best = NULL;
    int total = 0;
    for (struct seat *s = t->seats; s < t->seats + t->count; s++) {
        if (seat_compare(s, least) != 0 || !choice_allows(c, s))
            continue;
        s->turn += s->weight;
        total += s->weight;
        if (!best || s->turn > best->turn)
            best = s;
    }
    assert(best); /* `least` is one of them */
    best->turn -= total;
    return best;
}

struct backend *least_conn(const struct choice *c)
{
    struct tier *t = c->tier;
    struct seat *s = find_least(c);
    if (!s)
        return NULL;
    if (!t->even)
        return take_turns(c, s)->backend;
    unsigned next = (unsigned)(s - t->seats) + 1;
    t->at = next < t->count ? next : 0;
    return s->backend;
}
