/* A config on its way from JSON to the snapshot: what the walk (load.c), the checks behind it (cross.c) and the
 * messages (fault.c) share. Used inside the config layer. */
#ifndef LB_CONFIG_LOADER_H
#define LB_CONFIG_LOADER_H

#include "base/json.h"
#include "config/config.h"
#include "config/env.h"
#include "config/report.h"
#include "config/schema.h"
#include "config/value.h"

#include <stdbool.h>
#include <stddef.h>

/* A key's path as messages show it: "backends[1].weight". */
#define LOADER_PATH_SIZE 256u

struct loader {
    const struct json_doc *doc;
    env_get_fn *get;
    struct report faults;
    struct config *config;
    const struct config *running; /* of a reload: what is in force; else NULL */
    struct config_backend backend_defaults;
    struct seen {
        const struct json *value; /* the key's first value, NULL: not given */
        bool good;
    } seen[SCHEMA_KEYS_MAX]; /* by row of the schema; rows of backends[] hold for the backend being read */
};

/* The object that is being read. */
struct scope {
    const char *parent; /* its path in the schema */
    const char *shown;  /* its path in messages */
    void *base;         /* where its members are stored */
};

/* A value with its row, its path in messages, and what it may be. */
struct entry {
    const struct schema_key *key;
    const char *shown, *allowed;
    const struct json *json;
};

static inline struct seen *loader_seen(struct loader *l, const struct schema_key *key)
{
    return &l->seen[key - schema];
}

/* Checks what concerns more than one key, once all keys have been read; only good values are looked at. */
void loader_cross_check(struct loader *l);

/* Writes the path of a member of `parent` ("" at the top); of an unknown key at most 64 bytes, control
 * characters as '?'. */
void fault_path(char out[LOADER_PATH_SIZE], const char *parent, const char *name);

/* Reports a value: `extra` follows what was found, `hint` what is allowed. */
void fault_value(struct loader *l, const struct entry *e, const struct value *v, const char *extra, const char *hint);

/* Reports a value that its key refused; `why`, if not NULL, is the end of a sentence about it. */
void fault_unfit(struct loader *l, const struct entry *e, const struct value *v, const char *why);

/* Reports a value of a type that its key does not take. */
void fault_type(struct loader *l, const struct entry *e);

/* Reports that `scope`, which begins at `offset`, lacks a key. */
void fault_missing(struct loader *l, const struct schema_key *key, const struct scope *scope, size_t offset);

void fault_repeated(struct loader *l, const struct entry *e);

/* Reports member `m` of `scope`, which the schema does not know, with the nearest key that it knows. */
void fault_unknown(struct loader *l, const struct scope *scope, const struct json *m, const char *shown);

/* Reports a reference that could not be expanded; `name` is the variable's. */
void fault_reference(struct loader *l, const struct entry *e, enum env_result r, const char *name);

#endif
