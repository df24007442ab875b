/* The answer that shows the request. */
#ifndef LB_DEMO_SHOW_H
#define LB_DEMO_SHOW_H

#include "base/buf.h"
#include "http/parse.h"

/* Appends the JSON up to where the size of the content stands: the head is gone when that is known. False without
 * memory. */
bool show_begin(struct buf *out, const char *name, const struct request *r) __attribute__((warn_unused_result));

/* Appends the rest. */
bool show_end(struct buf *out, uint64_t body_bytes, uint64_t served) __attribute__((warn_unused_result));

#endif
