/* Zeroed memory. A caller always hears when there is none: nothing here ends the program. */
#include "base/mem.h"

#include <stdlib.h>

void *mem_try_alloc(size_t size)
{
    return calloc(1, size ? size : 1);
}

void mem_free(void *p)
{
    free(p);
}
