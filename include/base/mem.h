/* Memory: running out costs the connection that needed it, or ends a start with a message. The block is zeroed. */
#ifndef LB_BASE_MEM_H
#define LB_BASE_MEM_H

#include <stddef.h>

/* `size` zeroed bytes, or NULL. */
void *mem_try_alloc(size_t size) __attribute__((malloc, warn_unused_result));

/* The same, but of its `size` bytes only the first `zeroed` are: what follows is room that is written before it is
 * read.
 */
void *mem_try_alloc_room(size_t size, size_t zeroed) __attribute__((warn_unused_result));

/* NULL is fine. */
void mem_free(void *p);

#endif
