/* A byte queue: bytes are appended at the end and consumed from the front, and stand contiguously. It grows on demand
 * up to what its user allows and owns its block. A buffer that is BUF_INIT, or buf_fini()ed, owns no memory. */
#ifndef LB_BASE_BUF_H
#define LB_BASE_BUF_H

#include "base/str.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>

struct buf {
    char *block;
    size_t start, len, cap; /* the bytes are block[start .. start+len) */
};

#define BUF_INIT ((struct buf){0})

static inline struct str buf_str(const struct buf *b)
{
    return (struct str){b->block ? b->block + b->start : "", b->len};
}

static inline char *buf_bytes(struct buf *b)
{
    return b->block + b->start;
}

/* Frees the block and leaves an empty buffer that may be used again. */
void buf_fini(struct buf *b);

/* Makes room for `more` bytes behind the content; the room is at buf_tail(). False when there is no memory (content
 * untouched). */
bool buf_reserve(struct buf *b, size_t more) __attribute__((warn_unused_result));

/* The bytes that fit behind the content without anything being moved. */
static inline size_t buf_room(const struct buf *b)
{
    return b->cap - b->start - b->len;
}

static inline char *buf_tail(struct buf *b)
{
    return b->block + b->start + b->len;
}

/* Says that `n` bytes were written at buf_tail() after a buf_reserve() of at least as many. */
static inline void buf_added(struct buf *b, size_t n)
{
    b->len += n;
}

bool buf_append(struct buf *b, const void *p, size_t n) __attribute__((warn_unused_result));
bool buf_append_str(struct buf *b, struct str s) __attribute__((warn_unused_result));
bool buf_printf(struct buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3), warn_unused_result));

/* Drops `n` bytes (at most the content) from the front; an empty buffer keeps its block for the next use. */
void buf_consume(struct buf *b, size_t n);

/* Moves the block of `from` to `to`; `to` must own none. */
void buf_move(struct buf *to, struct buf *from);

#endif
