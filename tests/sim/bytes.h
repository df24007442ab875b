/* A growing queue of bytes for the simulation's own use. */
#ifndef LB_SIM_BYTES_H
#define LB_SIM_BYTES_H

#include <stddef.h>

struct bytes {
    char *block;
    size_t start, len, cap; /* the bytes are block[start .. start+len) */
};

void bytes_add(struct bytes *b, const void *p, size_t n);
void bytes_add_text(struct bytes *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
char *bytes_at(const struct bytes *b); /* the first one; "" when empty */
void bytes_drop(struct bytes *b, size_t n);
void bytes_clear(struct bytes *b);
void bytes_free(struct bytes *b);

#endif
