/* Memory: one pair of calls for start-up, where running out ends the program with a message, and one for the data path,
 * where it costs one connection. Both zero the block. */
#ifndef LB_BASE_MEM_H
#define LB_BASE_MEM_H

#include <stddef.h>

/* `size` zeroed bytes, never NULL: prints a message and aborts when there is no memory. For start-up only. */
void *mem_must_alloc(size_t size) __attribute__((returns_nonnull, malloc));

/* A copy of `n` bytes with a zero behind them; never NULL. For start-up only. */
char *mem_must_copy(const char *p, size_t n) __attribute__((returns_nonnull));

/* `size` zeroed bytes, or NULL. */
void *mem_try_alloc(size_t size) __attribute__((malloc, warn_unused_result));

/* Frees either kind; NULL is fine. */
void mem_free(void *p);

#endif
