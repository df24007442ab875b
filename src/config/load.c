/* From config.json to the snapshot: walks the JSON by the schema, reports every fault with its place, and hands out the
 * snapshot only when there is none. What concerns more than one key is checked behind the walk, in cross.c. */
#include "base/file.h"
#include "config/loader.h"
#include "config/snapshot.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

/* The value with its references expanded into `room`. False when a fault was reported. */
static bool expand_value(struct loader *l, const struct entry *e, struct buf *room, struct value *v)
{
    char name[ENV_NAME_MAX + 1] = "";
    *v = value_of(e->json);
    if (str_find(v->text, '$') == v->text.n)
        return true;
    enum env_result r = env_expand(v->text, l->get, room, name);
    if (r != ENV_OK) {
        fault_reference(l, e, r, name);
        return false;
    }
    v->text = buf_str(room);
    v->expanded = true;
    return true;
}

/* Strings are looked into for references only where the key takes one. */
static bool takes_strings(enum schema_type type)
{
    return type != SCHEMA_BOOL && type != SCHEMA_UINT && type != SCHEMA_COUNT && type != SCHEMA_NUMBER;
}

/* Checks and stores a value; reports what is wrong with it. */
static bool load_value(struct loader *l, const struct entry *e, const struct scope *scope)
{
    struct buf room = BUF_INIT;
    struct value v = value_of(e->json);
    const char *why = NULL;
    enum value_result r = VALUE_BAD;
    if (takes_strings(e->key->type) && !expand_value(l, e, &room, &v))
        goto out;
    r = value_store(e->key, &v, scope->base, &why);
    if (!takes_strings(e->key->type) && str_find(v.text, '$') < v.text.n)
        why = "stays a string: the environment makes strings only";
    if (r == VALUE_BAD)
        fault_unfit(l, e, &v, why);
    else if (r == VALUE_NO_MEMORY)
        l->faults.no_memory = true;
out:
    buf_fini(&room);
    return r == VALUE_OK;
}

static bool load_object(struct loader *l, const struct json *object, const struct scope *scope);

static size_t count_elements(const struct json *array)
{
    size_t n = 0;
    for (const struct json *v = json_first(array); v; v = json_next(v))
        n++;
    return n;
}

static bool load_networks(struct loader *l, const struct entry *e, const struct scope *scope)
{
    bool good = true;
    size_t i = 0;
    if (json_type(e->json) != JSON_ARRAY) {
        fault_type(l, e);
        return false;
    }
    if (count_elements(e->json) > CONFIG_NETWORKS_MAX) {
        struct value all = value_of(e->json);
        fault_value(l, e, &all, " of over 10000", "");
        return false;
    }
    value_clear(e->key, scope->base);
    for (const struct json *v = json_first(e->json); v; v = json_next(v)) {
        char shown[LOADER_PATH_SIZE];
        struct entry element = {e->key, shown, SCHEMA_NETWORK_FORM, v};
        snprintf(shown, sizeof(shown), "%.200s[%zu]", e->shown, i++);
        good = load_value(l, &element, scope) && good;
    }
    return good;
}

static bool load_backend(struct loader *l, const struct entry *e, struct config_backend *b)
{
    struct scope scope = {"backends[]", e->shown, b};
    *b = l->backend_defaults;
    if (json_type(e->json) == JSON_OBJECT)
        return load_object(l, e->json, &scope);
    fault_type(l, e);
    return false;
}

static bool load_backends(struct loader *l, const struct entry *e)
{
    struct config *c = l->config;
    bool good = true;
    size_t n = json_type(e->json) == JSON_ARRAY ? count_elements(e->json) : 0;
    if (n < 1 || n > CONFIG_BACKENDS_MAX) {
        struct value v = value_of(e->json);
        fault_value(l, e, &v, json_type(e->json) != JSON_ARRAY ? "" : n ? " of more than 1024" : " of none", "");
        return false;
    }
    c->backends = calloc(n, sizeof(*c->backends));
    if (!c->backends) {
        l->faults.no_memory = true;
        return false;
    }
    for (const struct json *v = json_first(e->json); v; v = json_next(v)) {
        char shown[LOADER_PATH_SIZE];
        struct entry element = {e->key, shown, "an object", v};
        snprintf(shown, sizeof(shown), "backends[%u]", c->backend_count);
        good = load_backend(l, &element, &c->backends[c->backend_count++]) && good;
    }
    return good;
}

/* An object that is a member of the config: its own members are stored in the same base. */
static bool load_nested(struct loader *l, const struct entry *e, const struct scope *outer)
{
    struct scope scope = {e->key->path, e->shown, outer->base};
    bool nullable = e->key->flags & SCHEMA_NULLABLE;
    bool *on = nullable ? (bool *)((char *)outer->base + e->key->offset) : NULL;
    if (json_type(e->json) == JSON_OBJECT)
        return load_object(l, e->json, &scope);
    if (json_type(e->json) != JSON_NULL || !nullable) {
        fault_type(l, e);
        return false;
    }
    *on = false;
    return true;
}

static bool load_entry(struct loader *l, const struct entry *e, const struct scope *scope)
{
    switch (e->key->type) {
    case SCHEMA_OBJECT: return load_nested(l, e, scope);
    case SCHEMA_BACKENDS: return load_backends(l, e);
    case SCHEMA_NETWORKS: return load_networks(l, e, scope);
    default: return load_value(l, e, scope);
    }
}

static bool load_member(struct loader *l, const struct json *m, const struct scope *scope)
{
    char shown[LOADER_PATH_SIZE];
    const struct schema_key *key = schema_member(scope->parent, json_key(m));
    fault_path(shown, scope->shown, json_key(m));
    if (!key) {
        fault_unknown(l, scope, m, shown);
        return false;
    }
    struct entry e = {key, shown, key->allowed, m};
    struct seen *seen = loader_seen(l, key);
    if (seen->value) {
        fault_repeated(l, &e);
        return false;
    }
    seen->value = m;
    seen->good = load_entry(l, &e, scope);
    return seen->good;
}

static bool load_object(struct loader *l, const struct json *object, const struct scope *scope)
{
    bool good = true;
    for (size_t i = 0; i < schema_count; i++)
        if (schema_is_member(&schema[i], scope->parent))
            *loader_seen(l, &schema[i]) = (struct seen){0};
    for (const struct json *m = json_first(object); m; m = json_next(m))
        good = load_member(l, m, scope) && good;
    for (size_t i = 0; i < schema_count; i++) {
        const struct schema_key *key = &schema[i];
        if (!(key->flags & SCHEMA_REQUIRED) || !schema_is_member(key, scope->parent) || loader_seen(l, key)->value)
            continue;
        fault_missing(l, key, scope, json_offset(l->doc, object));
        good = false;
    }
    return good;
}

/* A backend without a name is called by its address. */
static void name_backends(struct loader *l)
{
    for (unsigned i = 0; i < l->config->backend_count; i++) {
        struct config_backend *b = &l->config->backends[i];
        if (!b->name && !(b->name = strdup(b->address)))
            l->faults.no_memory = true;
    }
}

static void load_root(struct loader *l)
{
    const struct json *root = json_root(l->doc);
    struct scope scope = {"", "", l->config};
    if (json_type(root) != JSON_OBJECT) {
        report_add(&l->faults, json_offset(l->doc, root), "found %s; allowed: an object",
                   json_type_name(json_type(root)));
        return;
    }
    (void)load_object(l, root, &scope);
    loader_cross_check(l);
    if (report_empty(&l->faults))
        name_backends(l);
}

static void report_syntax(struct report *r, const struct json_error *e)
{
    if (*e->path)
        report_add(r, e->offset, "%s: not valid JSON: %s", e->path, e->what);
    else
        report_add(r, e->offset, "not valid JSON: %s", e->what);
}

static void load_text(struct loader *l, struct str text, const char *name)
{
    struct json_error e;
    struct json_doc *doc = json_parse(text, true, &e);
    if (!doc) {
        if (e.no_memory)
            l->faults.no_memory = true;
        else
            report_syntax(&l->faults, &e);
        return;
    }
    l->doc = doc;
    l->config = snapshot_new(name);
    if (l->config && snapshot_set_defaults(&l->backend_defaults, true))
        load_root(l);
    else
        l->faults.no_memory = true;
    json_free(doc);
}

static const char *get_from_process(const char *name)
{
    return getenv(name);
}

static struct config *parse(struct loader *l, struct str text, const char *name, struct buf *errors, bool *no_memory)
{
    load_text(l, text, name);
    bool good = report_empty(&l->faults);
    *no_memory = l->faults.no_memory;
    report_write(&l->faults, name, text, errors);
    report_fini(&l->faults);
    if (good)
        return l->config;
    config_put(l->config);
    return NULL;
}

struct config *config_parse(struct str text, const char *name, env_get_fn *getenv_fn, struct buf *errors)
{
    bool no_memory;
    struct loader l = {.get = getenv_fn ? getenv_fn : get_from_process};
    return parse(&l, text, name, errors, &no_memory);
}

struct config *config_load(const char *path, struct buf *errors, bool *no_memory)
{
    return config_load_over(path, NULL, errors, no_memory);
}

struct config *config_load_over(const char *path, const struct config *running, struct buf *errors, bool *no_memory)
{
    struct loader l = {.get = get_from_process, .running = running};
    struct config *c = NULL;
    struct buf text = BUF_INIT;
    int r = file_read_stream(path, CONFIG_FILE_MAX, &text);
    *no_memory = r == -ENOMEM;
    if (r == 0)
        c = parse(&l, buf_str(&text), path, errors, no_memory);
    else if (r == -EFBIG)
        (void)!buf_printf(errors, "%s: is larger than %u MiB\n", path, CONFIG_FILE_MAX >> 20);
    else
        (void)!buf_printf(errors, "%s: cannot be read: %s\n", path, strerror(-r));
    buf_fini(&text);
    return c;
}
