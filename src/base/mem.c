/* Zeroed memory. A caller always hears when there is none: nothing here ends the program. */
#include "base/mem.h"

#include <limits.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>

void *mem_try_alloc(size_t size)
{
    return calloc(1, size ? size : 1);
}

void *mem_try_alloc_room(size_t size, size_t zeroed)
{
    void *p = malloc(size);
    return p ? memset(p, 0, zeroed) : NULL;
}

void mem_free(void *p)
{
    free(p);
}

void mem_keep(void)
{
    /* The second, too: to set the first ends glibc's own adjusting of it. */
    mallopt(M_TRIM_THRESHOLD, INT_MAX);
    mallopt(M_MMAP_THRESHOLD, 1024 * 1024);
}

void mem_give_back(void)
{
    malloc_trim(0);
}
