/* Smooth weighted round robin: of weights 3, 2, 1 it makes a b a c b a, never a burst.
 * With equal weights it is the plain rotation. */
#include "upstream/backend.h"

struct backend *round_robin_pick(struct upstream *u, bool (*eligible)(const struct backend *be, const struct pick *p),
                                 const struct pick *p)
{
    struct backend *best = NULL;
    int total = 0;
    for (unsigned i = 0; i < u->count; i++) {
        struct backend *be = &u->backends[i];
        if (!eligible(be, p))
            continue;
        int weight = (int)be->config->weight;
        be->turn += weight;
        total += weight;
        if (!best || be->turn > best->turn)
            best = be;
    }
    if (best)
        best->turn -= total;
    return best;
}
