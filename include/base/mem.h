/* Memory: running out costs the connection that needed it, or ends a start with a message.
 *
 * Objects come from here, zeroed, so that a member that is added begins as 0 wherever one is made. In base/ and config/
 * stand libc's own calls beside these: for blocks that are written before they are read, those that grow (realloc()),
 * tables so large that the kernel's zeroed pages count, and the strings and arrays of a snapshot of the config. It
 * makes no difference to whoever frees: mem_free() is free(). */
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

/* From now on the process keeps what is freed, for what is allocated next, but for blocks of a megabyte and more. By
 * itself glibc gives back what lies at the end of the heap as soon as that is 128 KiB, and when the last of many small
 * blocks goes, that can be all of it, in one free(): some 0.4 us a page, 3.6 ms for the limiter's million buckets. */
void mem_keep(void);

/* Gives back, all at once, what is free. */
void mem_give_back(void);

#endif
