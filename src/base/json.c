/* JSON: behind the strict scan cJSON builds the tree. A node's `valueint` holds its ordinal in document order, the
 * index of its positions; only `valuedouble` is read for numbers. */
#include "base/json.h"

#include "base/json_scan.h"

#include <assert.h>
#include <cjson/cJSON.h>
#include <math.h>
#include <stdlib.h>

struct json_doc {
    cJSON *root;
    struct json_positions positions;
};

/* Numbers the nodes in document order, as the scan numbered their positions, and refuses what no double can hold. */
static bool number_nodes(struct json_scan *s, cJSON *node, size_t *ordinal)
{
    for (; node; node = node->next) {
        const struct json_position *pos = &s->positions->v[*ordinal];
        assert(*ordinal < s->positions->count);
        node->valueint = (int)(*ordinal)++;
        if (cJSON_IsNumber(node) && !isfinite(node->valuedouble))
            return json_scan_fail(s, pos->value, "a number is too large");
        if (!number_nodes(s, node->child, ordinal))
            return false;
    }
    return true;
}

static int compare_keys(const void *a, const void *b)
{
    const cJSON *const *x = a, *const *y = b;
    int order = strcmp((*x)->string, (*y)->string);
    return order ? order : (*x)->valueint - (*y)->valueint;
}

/* The member that first repeats an earlier one's key, or NULL; `members` is sorted on the way. */
static const cJSON *find_repeat(const cJSON **members, size_t n)
{
    const cJSON *first = NULL;
    qsort(members, n, sizeof(const cJSON *), compare_keys);
    for (size_t i = 1; i < n; i++)
        if (strcmp(members[i - 1]->string, members[i]->string) == 0)
            if (!first || members[i]->valueint < first->valueint)
                first = members[i];
    return first;
}

static bool fail_repeat(struct json_scan *s, const cJSON *member)
{
    const struct json_position *at = &s->positions->v[member->valueint];
    char name[64];
    json_printable(name, sizeof(name), str_of(member->string));
    (void)json_scan_fail(s, at->key, "a key is repeated: \"%s\"", name);
    json_path_at(s->text, at->value, s->e->path);
    return false;
}

/* Objects of so many members are checked without a block. */
#define MEMBERS_INLINE 16u

/* Sorting keeps an object of many keys from costing their square. */
static bool check_members(struct json_scan *s, const cJSON *object)
{
    const cJSON *small[MEMBERS_INLINE], **members;
    size_t n = 0, i = 0;
    for (const cJSON *m = object->child; m; m = m->next)
        n++;
    if (n < 2)
        return true;
    members = n > MEMBERS_INLINE ? calloc(n, sizeof(const cJSON *)) : small;
    if (!members)
        return json_scan_no_memory(s);
    for (const cJSON *m = object->child; m; m = m->next)
        members[i++] = m;
    const cJSON *repeat = find_repeat(members, n);
    if (members != small)
        free(members);
    return !repeat || fail_repeat(s, repeat);
}

static bool check_repeats(struct json_scan *s, const cJSON *node)
{
    if (cJSON_IsObject(node) && !check_members(s, node))
        return false;
    for (const cJSON *c = node->child; c; c = c->next)
        if (c->child && !check_repeats(s, c))
            return false;
    return true;
}

static bool build(struct json_scan *s, struct json_doc *d, bool allow_repeats)
{
    size_t ordinal = 0;
    d->root = cJSON_ParseWithLength(s->text.p, s->text.n);
    if (!d->root)
        return json_scan_no_memory(s);
    if (!number_nodes(s, d->root, &ordinal))
        return false;
    assert(ordinal == d->positions.count);
    return allow_repeats || check_repeats(s, d->root);
}

struct json_doc *json_parse(struct str text, bool allow_repeats, struct json_error *e)
{
    struct json_doc *d = malloc(sizeof(*d));
    struct json_scan s = {.text = text, .positions = d ? &d->positions : NULL, .e = e};
    *e = (struct json_error){0};
    if (!d) {
        (void)json_scan_no_memory(&s);
        return NULL;
    }
    d->root = NULL;
    json_positions_init(&d->positions);
    if (json_scan(&s) && build(&s, d, allow_repeats))
        return d;
    json_free(d);
    return NULL;
}

void json_free(struct json_doc *d)
{
    if (!d)
        return;
    cJSON_Delete(d->root);
    json_positions_fini(&d->positions);
    free(d);
}

/* `struct json` is cJSON's node under a name of our own. */
static const cJSON *node_of(const struct json *v)
{
    return (const cJSON *)(const void *)v;
}

static const struct json *json_of(const cJSON *node)
{
    return (const struct json *)(const void *)node;
}

const struct json *json_root(const struct json_doc *d)
{
    return json_of(d->root);
}

enum json_type json_type(const struct json *v)
{
    const cJSON *n = node_of(v);
    if (cJSON_IsObject(n))
        return JSON_OBJECT;
    if (cJSON_IsArray(n))
        return JSON_ARRAY;
    if (cJSON_IsString(n))
        return JSON_STRING;
    if (cJSON_IsNumber(n))
        return JSON_NUMBER;
    return cJSON_IsBool(n) ? JSON_BOOL : JSON_NULL;
}

const char *json_type_name(enum json_type t)
{
    static const char *const names[] = {
        [JSON_NULL] = "null",       [JSON_BOOL] = "a boolean", [JSON_NUMBER] = "a number",
        [JSON_STRING] = "a string", [JSON_ARRAY] = "an array", [JSON_OBJECT] = "an object",
    };
    return names[t];
}

bool json_bool(const struct json *v)
{
    assert(json_type(v) == JSON_BOOL);
    return cJSON_IsTrue(node_of(v));
}

double json_number(const struct json *v)
{
    assert(json_type(v) == JSON_NUMBER);
    return node_of(v)->valuedouble;
}

const char *json_string(const struct json *v)
{
    assert(json_type(v) == JSON_STRING);
    return node_of(v)->valuestring;
}

const struct json *json_first(const struct json *v)
{
    return json_of(node_of(v)->child);
}

const struct json *json_next(const struct json *v)
{
    return json_of(node_of(v)->next);
}

const char *json_key(const struct json *v)
{
    return node_of(v)->string;
}

const struct json *json_get(const struct json *object, const char *key)
{
    return json_of(cJSON_GetObjectItemCaseSensitive(node_of(object), key));
}

size_t json_offset(const struct json_doc *d, const struct json *v)
{
    return d->positions.v[node_of(v)->valueint].value;
}

size_t json_key_offset(const struct json_doc *d, const struct json *v)
{
    return d->positions.v[node_of(v)->valueint].key;
}

void json_line_column(struct str text, size_t offset, unsigned *line, unsigned *column)
{
    *line = *column = 1;
    for (size_t i = 0; i < offset && i < text.n; i++) {
        if (text.p[i] == '\n') {
            ++*line;
            *column = 0;
        }
        /* A character counts where it begins: continuation bytes do not. */
        if (((unsigned char)text.p[i] & 0xc0) != 0x80)
            ++*column;
    }
}
