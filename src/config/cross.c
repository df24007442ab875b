/* The checks that concern more than one key of the config: what goes only with what, and names and addresses that are
 * there twice. */
#include "config/loader.h"

#include <stdio.h>

/* The key's value in the file, as an entry of a message; only for keys that were given. */
static struct entry entry_of(struct loader *l, const char *path)
{
    const struct schema_key *key = schema_find(path);
    return (struct entry){key, key->path, key->allowed, loader_seen(l, key)->value};
}

static bool is_given(struct loader *l, const char *path)
{
    return loader_seen(l, schema_find(path))->value != NULL;
}

static bool is_good(struct loader *l, const char *path)
{
    return !is_given(l, path) || loader_seen(l, schema_find(path))->good;
}

static void check_hash_key(struct loader *l)
{
    bool hashing = l->config->balance == BALANCE_HASH;
    if (!is_good(l, "balance") || !is_good(l, "hash_key") || hashing == is_given(l, "hash_key"))
        return;
    struct entry e = entry_of(l, hashing ? "balance" : "hash_key");
    if (hashing) {
        report_add(&l->faults, json_offset(l->doc, e.json),
                   "hash_key: found nothing, with \"balance\": \"hash\"; allowed: %s",
                   schema_find("hash_key")->allowed);
        return;
    }
    struct value v = value_of(e.json);
    e.allowed = "no hash_key";
    fault_value(l, &e, &v, ", without \"balance\": \"hash\"", "");
}

static void check_target_bytes(struct loader *l)
{
    struct config *c = l->config;
    if (!is_good(l, "limits.header_bytes") || !is_good(l, "limits.target_bytes") ||
        c->limits.target_bytes <= c->limits.header_bytes)
        return;
    if (!is_given(l, "limits.target_bytes")) {
        c->limits.target_bytes = c->limits.header_bytes;
        return;
    }
    struct entry e = entry_of(l, "limits.target_bytes");
    struct value v = value_of(e.json);
    char extra[64];
    snprintf(extra, sizeof(extra), " (%zu bytes, of a head of %zu)", c->limits.target_bytes, c->limits.header_bytes);
    fault_value(l, &e, &v, extra, "");
}

bool config_same_endpoint(const struct endpoint *a, const struct endpoint *b)
{
    if (a->kind != b->kind || a->port != b->port || !str_eq_nocase(str_of(a->host), str_of(b->host)))
        return false;
    return a->kind != ENDPOINT_UNIX ||
           (a->addr.len == b->addr.len && memcmp(&a->addr.un, &b->addr.un, a->addr.len) == 0);
}

static bool same_text(const char *a, const char *b)
{
    return a && b && strcmp(a, b) == 0;
}

/* Reports member `name` of backend `i`. */
static void fault_backend(struct loader *l, const struct json *backend, const char *name, size_t i, const char *extra,
                          const char *allowed)
{
    char shown[64];
    const struct config_backend *b = &l->config->backends[i];
    struct entry e = {schema_member("backends[]", name), shown, allowed, json_get(backend, name)};
    struct value v = value_of(e.json);
    struct str text = str_of(strcmp(name, "name") == 0 ? b->name : b->address);
    v.expanded = !str_eq(text, v.text);
    v.text = text;
    snprintf(shown, sizeof(shown), "backends[%zu].%s", i, name);
    fault_value(l, &e, &v, extra, "");
}

/* ... which backend `j` has too. */
static void fault_duplicate(struct loader *l, const struct json *backend, const char *name, size_t i, size_t j)
{
    char extra[64];
    snprintf(extra, sizeof(extra), ", which backends[%zu] has too", j);
    fault_backend(l, backend, name, i, extra, "names and addresses that no other backend has");
}

static void check_backend(struct loader *l, const struct json *json, size_t i)
{
    const struct config_backend *all = l->config->backends, *b = &all[i];
    for (size_t j = 0; j < i && b->address; j++) {
        if (all[j].address && config_same_endpoint(&all[j].endpoint, &b->endpoint)) {
            fault_duplicate(l, json, "address", i, j);
            break;
        }
    }
    for (size_t j = 0; j < l->config->backend_count && b->name; j++) {
        if (j != i && (same_text(all[j].address, b->name) || (j < i && same_text(all[j].name, b->name)))) {
            fault_duplicate(l, json, "name", i, j);
            break;
        }
    }
}

/* Each request would come back until it is refused as a loop. Only what is certain is a fault: where `listen` is any
 * address, or the backend's host a name, it may be a network of its own in which that is right. */
static void check_loop(struct loader *l, const struct json *json, size_t i)
{
    const struct config_backend *b = &l->config->backends[i];
    if (is_good(l, "listen") && b->address && config_same_endpoint(&l->config->listen, &b->endpoint))
        fault_backend(l, json, "address", i, ", where the balancer itself listens",
                      "another address than that of listen");
}

static void check_backends(struct loader *l)
{
    size_t i = 0;
    if (l->config->backend_count == 0)
        return;
    for (const struct json *v = json_first(entry_of(l, "backends").json); v; v = json_next(v)) {
        check_loop(l, v, i);
        check_backend(l, v, i++);
    }
}

/* ---- what a reload cannot change ---- */

static bool is_null(const struct schema_key *key, const struct config *c)
{
    const char *member = (const char *)c + key->offset;
    return key->type == SCHEMA_OBJECT ? !*(const bool *)member : !*(char *const *)member;
}

/* Would a reload change what it cannot? */
static bool is_beyond(const struct schema_key *key, const struct config *running, const struct config *fresh)
{
    if (key->flags & SCHEMA_FIXED_NULL)
        return is_null(key, running) != is_null(key, fresh);
    return key->flags & SCHEMA_FIXED && value_differs(key, running, fresh);
}

static void fault_fixed(struct loader *l, const struct schema_key *key)
{
    const struct json *value = loader_seen(l, key)->value;
    const char *now = is_null(key, l->running) ? "null" : key->type == SCHEMA_OBJECT ? "an object" : "a path";
    char allowed[REPORT_MESSAGE_MAX / 2];
    if (key->flags & SCHEMA_FIXED && key->type == SCHEMA_STRING)
        now = *(char *const *)((const char *)l->running + key->offset);
    snprintf(allowed, sizeof(allowed), "%s, as it is now; only a restart can change that", now);
    if (!value) {
        report_add(&l->faults, json_offset(l->doc, json_root(l->doc)), "%s: found nothing; allowed: %s", key->path,
                   allowed);
        return;
    }
    struct entry e = {key, key->path, allowed, value};
    struct value v = value_of(value);
    fault_value(l, &e, &v, "", "");
}

/* What is inside an object that is null, or was, cannot differ: that it is null can. */
static void check_fixed(struct loader *l)
{
    const struct config *running = l->running, *fresh = l->config;
    for (size_t i = 0; running && i < schema_count; i++) {
        const struct schema_key *key = &schema[i];
        bool inside = key->type != SCHEMA_OBJECT && schema_is_member(key, "rate_limit");
        if (inside && (!running->rate_limit.on || !fresh->rate_limit.on))
            continue;
        if (is_good(l, key->path) && is_beyond(key, running, fresh))
            fault_fixed(l, key);
    }
}

void loader_cross_check(struct loader *l)
{
    check_fixed(l);
    check_hash_key(l);
    check_target_bytes(l);
    check_backends(l);
}
