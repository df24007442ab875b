/* References to the environment in strings of the config. Used inside the config layer. */
#ifndef LB_CONFIG_ENV_H
#define LB_CONFIG_ENV_H

#include "base/buf.h"
#include "base/str.h"

/* Bytes a string may have after expansion. */
#define ENV_EXPANDED_MAX (64u * 1024u)

#define ENV_NAME_MAX 255u

enum env_result { ENV_OK, ENV_UNSET, ENV_MALFORMED, ENV_TOO_LONG, ENV_NO_MEMORY };

typedef const char *env_get_fn(const char *name);

/* Appends `text` to `out` with ${NAME} and ${NAME:-default} replaced by what `get` says, and $$ by a dollar. The
 * default is taken as it stands, up to the first '}', when NAME is unset or empty. At ENV_UNSET `name` holds the
 * variable's. NAME is of letters, digits and '_', and begins with no digit. */
enum env_result env_expand(struct str text, env_get_fn *get, struct buf *out, char name[ENV_NAME_MAX + 1])
    __attribute__((warn_unused_result));

#endif
