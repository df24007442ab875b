/* A queue of bytes. It moves its content to the block's front only when it must grow, so dropping is cheap. */
#include "bytes.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void reserve(struct bytes *b, size_t more)
{
    if (b->start + b->len + more <= b->cap)
        return;
    if (b->start > 0) {
        memmove(b->block, b->block + b->start, b->len);
        b->start = 0;
    }
    if (b->len + more <= b->cap)
        return;
    b->cap = 2 * (b->len + more);
    b->block = realloc(b->block, b->cap);
    if (!b->block)
        abort();
}

void bytes_add(struct bytes *b, const void *p, size_t n)
{
    if (n == 0)
        return;
    reserve(b, n);
    memcpy(b->block + b->start + b->len, p, n);
    b->len += n;
}

void bytes_add_text(struct bytes *b, const char *fmt, ...)
{
    char text[4096];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (n < 0 || (size_t)n >= sizeof text)
        abort();
    bytes_add(b, text, (size_t)n);
}

char *bytes_at(const struct bytes *b)
{
    static char nothing[1];
    return b->len > 0 ? b->block + b->start : nothing;
}

void bytes_drop(struct bytes *b, size_t n)
{
    assert(n <= b->len);
    b->start += n;
    b->len -= n;
    if (b->len == 0)
        b->start = 0;
}

void bytes_clear(struct bytes *b)
{
    b->start = b->len = 0;
}

void bytes_free(struct bytes *b)
{
    free(b->block);
    *b = (struct bytes){0};
}
