/* The schema of config.json: one table that drives defaults, checks and messages, in the order of the README. Used
 * inside the config layer; others see config.h. */
#ifndef LB_CONFIG_SCHEMA_H
#define LB_CONFIG_SCHEMA_H

#include "base/str.h"

#include <stdbool.h>
#include <stddef.h>

enum schema_type {
    SCHEMA_BOOL,     /* bool */
    SCHEMA_UINT,     /* unsigned */
    SCHEMA_COUNT,    /* uint64_t */
    SCHEMA_NUMBER,   /* double */
    SCHEMA_SIZE,     /* uint64_t, bytes */
    SCHEMA_DURATION, /* uint64_t, nanoseconds */
    SCHEMA_WORD,     /* an enum of int's size, numbered as `words` */
    SCHEMA_STRING,   /* char *, accepted by `check` */
    SCHEMA_LISTEN,   /* char * and struct endpoint of the config */
    SCHEMA_BACKEND,  /* char * and struct endpoint of a backend */
    SCHEMA_HASH_KEY, /* hash_key and hash_key_name of the config */
    SCHEMA_STATUSES, /* the bit set of expected statuses */
    SCHEMA_NETWORKS, /* struct cidr_set, from an array of strings */
    SCHEMA_OBJECT,   /* members have entries of their own; where nullable, a bool that says whether it is not null */
    SCHEMA_BACKENDS, /* the array of backends; members have entries under "backends[]" */
};

enum schema_flag {
    SCHEMA_REQUIRED = 1,
    SCHEMA_NULLABLE = 2,
    SCHEMA_FIXED = 4,      /* a reload cannot change it; of an object: whether it is null */
    SCHEMA_SECRET = 8,     /* never shown in messages */
    SCHEMA_FIXED_NULL = 16 /* a reload cannot change whether it is null */
};

struct schema_key {
    const char *path; /* "health_check.interval", "backends[].weight" */
    enum schema_type type;
    unsigned flags;           /* of enum schema_flag */
    size_t offset;            /* in struct config, or in struct config_backend under "backends[]" */
    double min, max;          /* of numbers, sizes (bytes), durations (nanoseconds) */
    const char *fallback;     /* the default as JSON, or NULL where there is none */
    const char *allowed;      /* for messages: "a whole number from 1 to 100" */
    const char *const *words; /* of SCHEMA_WORD, ended by NULL */
    bool (*check)(struct str s);
    const char *doc; /* for whoever reads the table */
};

/* What an element of SCHEMA_NETWORKS may be. */
#define SCHEMA_NETWORK_FORM                                                                                            \
    "an IP address, a network such as \"10.0.0.0/8\" with no bit set behind its prefix, or \"unix\""

/* At least as many as the table has rows. */
#define SCHEMA_KEYS_MAX 80u

extern const struct schema_key schema[];
extern const size_t schema_count;

/* The entry of that path; it must exist. */
const struct schema_key *schema_find(const char *path);

/* True when `key` is a member of the object or array element at `parent` ("" for the top, "health_check",
 * "backends[]"). */
bool schema_is_member(const struct schema_key *key, const char *parent);

/* The last part of its path. */
const char *schema_name(const struct schema_key *key);

/* The member of `parent` that is called `name`, or NULL. */
const struct schema_key *schema_member(const char *parent, const char *name);

/* What was probably meant by an unknown key: the member of `parent` whose name is nearest, else the one that others
 * call so, else a key of that very name further in or further out, else NULL. */
const struct schema_key *schema_nearest(const char *parent, const char *name);

/* The word of the list nearest to `s`, be its case as it may, or NULL when none is near. */
const char *schema_nearest_word(const char *const *words, struct str s);

#endif
