/* Making a snapshot before anything is known of the file. Used inside the config layer; its life goes on in config.h.
 */
#ifndef LB_CONFIG_SNAPSHOT_H
#define LB_CONFIG_SNAPSHOT_H

#include "config/config.h"

#include <stdbool.h>

/* A snapshot of the defaults, without backends, for the file `name`; NULL when there is no memory. */
struct config *snapshot_new(const char *name) __attribute__((warn_unused_result));

/* Sets the defaults in `base`: a struct config_backend where `of_backend`, else a struct config. False when there is no
 * memory. */
bool snapshot_set_defaults(void *base, bool of_backend) __attribute__((warn_unused_result));

#endif
