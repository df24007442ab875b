/* The process's counters, and the walk over them.
 * The catalogue is in the header. */
#include "base/metrics.h"

struct metrics metrics;

void metrics_each(void (*fn)(void *arg, const char *name, const char *help, uint64_t value), void *arg)
{
#define X(name, help) fn(arg, #name, help, metrics.name);
    METRICS_CATALOGUE(X)
#undef X
}
