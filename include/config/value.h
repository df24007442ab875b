/* One value of the config: checked against its row of the schema, stored in the snapshot, described in messages. Used
 * inside the config layer. */
#ifndef LB_CONFIG_VALUE_H
#define LB_CONFIG_VALUE_H

#include "base/buf.h"
#include "base/json.h"
#include "config/schema.h"

#include <stdbool.h>

struct value {
    const struct json *json; /* as written */
    struct str text;         /* of a string: what it stands for, after expansion */
    bool expanded;           /* `text` is not what is written */
};

/* The value of `json` as it is written. */
struct value value_of(const struct json *json);

enum value_result { VALUE_OK, VALUE_BAD, VALUE_NO_MEMORY };

/* Checks `v` and stores it in the member that `key` has in `base` (struct config, or struct config_backend), releasing
 * what was there; of SCHEMA_NETWORKS one element, which is added. At VALUE_BAD nothing is changed, and *why may say
 * more, as the end of a sentence ("has no port"), else it is untouched. Not for objects and arrays. */
enum value_result value_store(const struct schema_key *key, const struct value *v, void *base, const char **why)
    __attribute__((warn_unused_result));

/* Releases what the member owns and empties it; nothing for types that own nothing. */
void value_clear(const struct schema_key *key, void *base);

/* True when the member differs between two bases; for strings and nullable objects (whether they are null): a key of
 * another type that only a restart can change needs a case here. */
bool value_differs(const struct schema_key *key, const void *a, const void *b);

/* Appends what was found, for a message: `the string "abc"`, `true`, `an array`. Long strings are cut, secret ones not
 * shown. */
bool value_describe(const struct value *v, bool secret, struct buf *out) __attribute__((warn_unused_result));

#endif
