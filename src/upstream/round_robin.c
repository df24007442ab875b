/* Smooth weighted round robin: of weights 3, 2, 1 it makes a b a c b a, never a burst.
 * With equal weights it is the plain rotation, which costs the same with a thousand backends as with one. */
#include "upstream/backend.h"

static struct backend *rotate(const struct choice *c)
{
    struct tier *t = c->tier;
    for (unsigned i = 0; i < t->count; i++) {
        const struct seat *s = &t->seats[t->at];
        t->at = t->at + 1 < t->count ? t->at + 1 : 0;
        if (choice_allows(c, s))
            return s->backend;
    }
    return NULL;
}

struct backend *round_robin(const struct choice *c)
{
    struct tier *t = c->tier;
    struct seat *best = NULL;
    int total = 0;
    if (t->even)
        return rotate(c);
    for (struct seat *s = t->seats; s < t->seats + t->count; s++) {
        if (!choice_allows(c, s))
            continue;
        s->turn += s->weight;
        total += s->weight;
        if (!best || s->turn > best->turn)
            best = s;
    }
    if (!best)
        return NULL;
    best->turn -= total;
    return best->backend;
}
