/* Bump allocation in chunks, the newest of which has the free room.
 * A piece that does not fit gets a new chunk, large enough for it. */
#include "base/arena.h"

#include <stdalign.h>
#include <stdint.h>
#include <stdlib.h>

#define ALIGNMENT alignof(max_align_t)

struct arena_chunk {
    struct arena_chunk *older;
    alignas(max_align_t) char room[];
};

/* With malloc's own overhead a chunk takes one page. */
#define CHUNK_ROOM (4096u - 2 * sizeof(void *) - sizeof(struct arena_chunk))

static size_t round_up(size_t n)
{
    return (n + ALIGNMENT - 1) & ~(ALIGNMENT - 1);
}

void arena_init(struct arena *a, void *first, size_t n)
{
    size_t skip = first ? round_up((uintptr_t)first) - (uintptr_t)first : 0;

    *a = (struct arena){0};
    if (!first || n < skip)
        return;
    a->at = (char *)first + skip;
    a->end = (char *)first + n;
}

void arena_fini(struct arena *a)
{
    while (a->chunks) {
        struct arena_chunk *c = a->chunks;
        a->chunks = c->older;
        free(c);
    }
    *a = (struct arena){0};
}

static bool add_chunk(struct arena *a, size_t room)
{
    struct arena_chunk *c = malloc(sizeof(*c) + room);

    if (!c)
        return false;
    c->older = a->chunks;
    a->chunks = c;
    a->at = c->room;
    a->end = c->room + room;
    return true;
}

void *arena_alloc(struct arena *a, size_t n)
{
    if (n > PTRDIFF_MAX - sizeof(struct arena_chunk) - ALIGNMENT)
        return NULL;
    /* An empty piece takes room too, so that each has an address of its own. */
    n = round_up(n ? n : 1);
    if (n > (size_t)(a->end - a->at) && !add_chunk(a, n > CHUNK_ROOM ? n : CHUNK_ROOM))
        return NULL;
    char *p = a->at;
    a->at += n;
    return p;
}

bool arena_copy(struct arena *a, struct str s, struct str *out)
{
    char *p = arena_alloc(a, s.n);

    if (!p)
        return false;
    if (s.n)
        memcpy(p, s.p, s.n);
    *out = str_make(p, s.n);
    return true;
}
