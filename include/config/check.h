/* What strings of the config may look like. Each returns whether `s` is of that form. Used inside the config layer. */
#ifndef LB_CONFIG_CHECK_H
#define LB_CONFIG_CHECK_H

#include "base/str.h"

#include <stdbool.h>
#include <stdint.h>

/* 1 to 128 visible ASCII characters. */
bool check_backend_name(struct str s);

/* The path of an origin-form target (RFC 9112 section 3.2.1), at most 1024 visible ASCII characters; a query may follow
 * it. */
bool check_target_path(struct str s);

/* host or host:port, of at most 261 bytes. */
bool check_host(struct str s);

/* A path for the file system: 1 to 4000 bytes. */
bool check_file_path(struct str s);

/* A field name (a token, RFC 9110 section 5.6.2) of at most 64 characters. */
bool check_field_name(struct str s);

/* A bearer token: 1 to 1024 visible ASCII characters. */
bool check_token(struct str s);

/* Reads "200", "200-399" or "200,204,300-399", statuses from 100 to 599, into a bit set of 75 bytes. False, and the set
 * untouched, when malformed. */
bool check_statuses(struct str s, uint8_t set[75]) __attribute__((warn_unused_result));

#endif
