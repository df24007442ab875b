/* A byte queue in one block that grows by doubling.
 * Room is first won back from what was consumed at the front, when moving the content is paid for by that. */
#include "base/buf.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#define BUF_MIN_CAP 256u

void buf_fini(struct buf *b)
{
    free(b->block);
    *b = BUF_INIT;
}

/* The next capacity that holds `need` bytes, or 0 when there is no such number. */
static size_t grown_cap(size_t cap, size_t need)
{
    if (cap < BUF_MIN_CAP)
        cap = BUF_MIN_CAP;
    while (cap < need) {
        if (cap > SIZE_MAX / 2)
            return 0;
        cap *= 2;
    }
    return cap;
}

static bool move_to_new_block(struct buf *b, size_t cap)
{
    char *block = cap ? malloc(cap) : NULL;

    if (!block)
        return false;
    if (b->block)
        memcpy(block, b->block + b->start, b->len);
    free(b->block);
    *b = (struct buf){.block = block, .len = b->len, .cap = cap};
    return true;
}

bool buf_reserve(struct buf *b, size_t more)
{
    size_t need;

    if (b->block && more <= buf_room(b))
        return true;
    if (__builtin_add_overflow(b->len, more, &need))
        return false;
    /* A move of fewer bytes than were consumed since the last one keeps appending linear. */
    if (b->block && need <= b->cap && b->start >= b->len) {
        memmove(b->block, b->block + b->start, b->len);
        b->start = 0;
        return true;
    }
    return move_to_new_block(b, grown_cap(b->cap, need));
}

bool buf_append(struct buf *b, const void *p, size_t n)
{
    if (n == 0)
        return true;
    if (!buf_reserve(b, n))
        return false;
    memcpy(buf_tail(b), p, n);
    b->len += n;
    return true;
}

bool buf_append_str(struct buf *b, struct str s)
{
    return buf_append(b, s.p, s.n);
}

static int print_at_tail(struct buf *b, const char *fmt, va_list args) __attribute__((format(printf, 2, 0)));

/* What vsnprintf() says: the length that the text has, whether or not it found room. */
static int print_at_tail(struct buf *b, const char *fmt, va_list args)
{
    size_t room = b->cap - b->start - b->len;
    return vsnprintf(room ? buf_tail(b) : NULL, room, fmt, args);
}

bool buf_printf(struct buf *b, const char *fmt, ...)
{
    va_list args, again;
    int n;

    va_start(args, fmt);
    va_copy(again, args);
    n = print_at_tail(b, fmt, args);
    /* vsnprintf() wants room for its zero, which is not kept. */
    if (n >= 0 && (size_t)n >= b->cap - b->start - b->len)
        n = buf_reserve(b, (size_t)n + 1) ? print_at_tail(b, fmt, again) : -1;
    va_end(again);
    va_end(args);
    if (n < 0)
        return false;
    b->len += (size_t)n;
    return true;
}

void buf_consume(struct buf *b, size_t n)
{
    assert(n <= b->len);
    b->start += n;
    b->len -= n;
    if (b->len == 0)
        b->start = 0;
}

void buf_move(struct buf *to, struct buf *from)
{
    assert(!to->block);
    *to = *from;
    *from = BUF_INIT;
}
