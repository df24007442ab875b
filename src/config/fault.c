/* What the loader says of a fault, always in the same form: where it stands, the key's path, what was found and what is
 * allowed; for names that are not known, the nearest one that is. */
#include "config/loader.h"

#include <stdio.h>

/* Bytes shown of a key that the schema does not know. */
#define UNKNOWN_SHOWN_MAX 64u

void fault_path(char out[LOADER_PATH_SIZE], const char *parent, const char *name)
{
    int at = snprintf(out, LOADER_PATH_SIZE, "%.100s%s", parent, *parent ? "." : "");
    size_t n = strlen(name);
    if (n > UNKNOWN_SHOWN_MAX)
        for (n = UNKNOWN_SHOWN_MAX; ((unsigned char)name[n] & 0xc0) == 0x80;)
            n--; /* to the end of a character */
    for (size_t i = 0; i < n; i++)
        out[at++] = (unsigned char)name[i] < 0x20 || name[i] == 0x7f ? '?' : name[i];
    out[at] = '\0';
}

void fault_value(struct loader *l, const struct entry *e, const struct value *v, const char *extra, const char *hint)
{
    struct buf found = BUF_INIT;
    if (!value_describe(v, e->key->flags & SCHEMA_SECRET, &found))
        l->faults.no_memory = true;
    report_add(&l->faults, json_offset(l->doc, e->json), "%s: found %.*s%s; allowed: %s%s", e->shown,
               STR_ARG(buf_str(&found)), extra, e->allowed, hint);
    buf_fini(&found);
}

void fault_unfit(struct loader *l, const struct entry *e, const struct value *v, const char *why)
{
    char extra[128] = "", hint[64] = "";
    const char *near = e->key->words && v->text.n > 0 ? schema_nearest_word(e->key->words, v->text) : NULL;
    if (why)
        snprintf(extra, sizeof(extra), ", which %s", why);
    if (near)
        snprintf(hint, sizeof(hint), "; did you mean \"%s\"?", near);
    fault_value(l, e, v, extra, hint);
}

void fault_type(struct loader *l, const struct entry *e)
{
    struct value v = value_of(e->json);
    fault_value(l, e, &v, "", "");
}

void fault_missing(struct loader *l, const struct schema_key *key, const struct scope *scope, size_t offset)
{
    char shown[LOADER_PATH_SIZE];
    fault_path(shown, scope->shown, schema_name(key));
    report_add(&l->faults, offset, "%s: found nothing; allowed: %s", shown, key->allowed);
}

void fault_repeated(struct loader *l, const struct entry *e)
{
    report_add(&l->faults, json_key_offset(l->doc, e->json), "%s: found the key again; allowed: once in an object",
               e->shown);
}

/* The names of all members of `parent`, for people. */
static void list_members(const char *parent, char *out, size_t size)
{
    size_t n = 0;
    for (size_t i = 0; i < schema_count && n < size; i++)
        if (schema_is_member(&schema[i], parent))
            n += (size_t)snprintf(out + n, size - n, "%s%s", n ? ", " : "", schema_name(&schema[i]));
}

void fault_unknown(struct loader *l, const struct scope *scope, const struct json *m, const char *shown)
{
    char members[256], hint[96] = "";
    const struct schema_key *near = schema_nearest(scope->parent, json_key(m));
    list_members(scope->parent, members, sizeof(members));
    if (near)
        snprintf(hint, sizeof(hint), "; did you mean \"%s\"?",
                 schema_is_member(near, scope->parent) ? schema_name(near) : near->path);
    report_add(&l->faults, json_key_offset(l->doc, m), "%s: found an unknown key; allowed: %s%s", shown, members, hint);
}

void fault_reference(struct loader *l, const struct entry *e, enum env_result r, const char *name)
{
    char extra[ENV_NAME_MAX + 64], allowed[ENV_NAME_MAX + 64];
    struct value written = value_of(e->json);
    struct entry reference = *e;
    if (r == ENV_NO_MEMORY) {
        l->faults.no_memory = true;
        return;
    }
    if (r == ENV_UNSET) {
        snprintf(extra, sizeof(extra), ", whose variable %s is not set", name);
        snprintf(allowed, sizeof(allowed), "a variable that is set, or ${%s:-default}", name);
        reference.allowed = allowed;
    } else if (r == ENV_MALFORMED) {
        snprintf(extra, sizeof(extra), ", with a \"$\" that begins no reference");
        reference.allowed = "${NAME}, ${NAME:-default}, or $$ for a dollar";
    } else {
        snprintf(extra, sizeof(extra), ", which expands to over %u bytes", ENV_EXPANDED_MAX);
    }
    fault_value(l, &reference, &written, extra, "");
}
