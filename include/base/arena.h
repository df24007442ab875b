/* Bump allocation for what lives as long as one exchange: many small pieces, one release. Chunks come from malloc. */
#ifndef LB_BASE_ARENA_H
#define LB_BASE_ARENA_H

#include "base/str.h"

#include <stdbool.h>
#include <stddef.h>

struct arena_chunk;

struct arena {
    char *at, *end;             /* free room of the current chunk */
    struct arena_chunk *chunks; /* owned chunks, newest first */
};

/* Starts an arena on `first`, `n` bytes that the caller owns and that outlive the arena (may be NULL, 0). */
void arena_init(struct arena *a, void *first, size_t n);

/* Releases every chunk; pieces are invalid afterwards. */
void arena_fini(struct arena *a);

/* `n` bytes aligned for any type, not zeroed; NULL when there is no memory. */
void *arena_alloc(struct arena *a, size_t n) __attribute__((warn_unused_result));

/* A copy of `s` in the arena. False when there is no memory. */
bool arena_copy(struct arena *a, struct str s, struct str *out) __attribute__((warn_unused_result));

#endif
