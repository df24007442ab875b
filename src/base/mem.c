/* Zeroed memory: calls that end the program when there is none, and calls that say so.
 * The first kind is for start-up only. */
#include "base/mem.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void *mem_try_alloc(size_t size)
{
    return calloc(1, size ? size : 1);
}

void *mem_must_alloc(size_t size)
{
    void *p = mem_try_alloc(size);
    if (!p) {
        fputs("loadbalancer: out of memory\n", stderr);
        abort();
    }
    return p;
}

char *mem_must_copy(const char *p, size_t n)
{
    char *copy = mem_must_alloc(n + 1);
    if (n)
        memcpy(copy, p, n);
    return copy;
}

void mem_free(void *p)
{
    free(p);
}
