/* How many descriptors the process may have open, and what the config asks of that. */
#ifndef LB_DESCRIPTORS_H
#define LB_DESCRIPTORS_H

#include "config/config.h"

#include <stdbool.h>
#include <stddef.h>

/* Raises RLIMIT_NOFILE to what limits.connections needs, two for each, and one for each backend that is checked, where
 * that can be. False when there is not even one for each connection, with a message for people in `why` (size `n`) that
 * says which number is possible. */
bool descriptors_raise(const struct config *config, char *why, size_t n) __attribute__((warn_unused_result));

/* Logs `descriptors_short` where the limit leaves some of limits.connections without a second descriptor, towards a
 * backend, or some backend without one for its check. */
void descriptors_report(const struct config *config);

/* Do the two want the same number? */
bool descriptors_wanted_alike(const struct config *a, const struct config *b);

#endif
