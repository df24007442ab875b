/* The life of a snapshot: born with the defaults, counted, released member by member: the schema says what each owns
 * and what it is at first. */
#include "config/snapshot.h"

#include "base/json.h"
#include "config/schema.h"
#include "config/value.h"

#include <assert.h>
#include <stdlib.h>

/* Stores a default, which the table has as JSON and which is always good. */
static bool store_default(const struct schema_key *key, void *base)
{
    struct json_error e;
    const char *why;
    struct json_doc *doc = json_parse(str_of(key->fallback), false, &e);
    if (!doc)
        return false;
    const struct json *root = json_root(doc), *v = json_type(root) == JSON_ARRAY ? json_first(root) : root;
    enum value_result r = VALUE_OK;
    for (; v && r == VALUE_OK; v = json_next(v)) {
        struct value value = value_of(v);
        r = value_store(key, &value, base, &why);
    }
    assert(r != VALUE_BAD);
    json_free(doc);
    return r == VALUE_OK;
}

static bool is_of_backend(const struct schema_key *key)
{
    return schema_is_member(key, "backends[]");
}

bool snapshot_set_defaults(void *base, bool of_backend)
{
    for (size_t i = 0; i < schema_count; i++) {
        const struct schema_key *key = &schema[i];
        if (is_of_backend(key) != of_backend)
            continue;
        if (key->type == SCHEMA_OBJECT && key->flags & SCHEMA_NULLABLE)
            *(bool *)((char *)base + key->offset) = true;
        if (key->fallback && !store_default(key, base))
            return false;
    }
    return true;
}

static void clear_members(void *base, bool of_backend)
{
    for (size_t i = 0; i < schema_count; i++)
        if (is_of_backend(&schema[i]) == of_backend)
            value_clear(&schema[i], base);
}

static void destroy(struct config *c)
{
    for (unsigned i = 0; i < c->backend_count; i++)
        clear_members(&c->backends[i], true);
    free(c->backends);
    clear_members(c, false);
    free(c->path);
    free(c);
}

struct config *snapshot_new(const char *name)
{
    struct config *c = calloc(1, sizeof(*c));
    if (!c)
        return NULL;
    c->refs = 1;
    c->path = strdup(name);
    if (c->path && snapshot_set_defaults(c, false))
        return c;
    destroy(c);
    return NULL;
}

struct config *config_get(struct config *c)
{
    c->refs++;
    return c;
}

void config_put(struct config *c)
{
    if (c && --c->refs == 0)
        destroy(c);
}
