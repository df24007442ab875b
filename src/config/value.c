/* The types of the schema: how each is read from JSON, checked and stored. A new type is a function here and a line in
 * the table `setters`. */
#include "config/value.h"

#include "config/check.h"
#include "config/config.h"

#include <assert.h>
#include <stdlib.h>

static_assert(sizeof(size_t) == sizeof(uint64_t), "sizes are stored as uint64_t");
static_assert(sizeof(enum balance) == sizeof(unsigned), "words are stored as unsigned");

/* Characters of a string that a message shows. */
#define SHOWN_MAX 60u

typedef enum value_result setter(const struct schema_key *key, const struct value *v, void *base, const char **why);

struct value value_of(const struct json *json)
{
    struct value v = {.json = json};
    if (json_type(json) == JSON_STRING)
        v.text = str_of(json_string(json));
    return v;
}

static bool is(const struct value *v, enum json_type type)
{
    return json_type(v->json) == type;
}

static void *member(const struct schema_key *key, void *base)
{
    return (char *)base + key->offset;
}

static bool in_range(const struct schema_key *key, double n)
{
    return n >= key->min && n <= key->max;
}

/* A whole number in the key's range, whose maximum a double holds exactly. */
static bool read_whole(const struct schema_key *key, const struct value *v, uint64_t *out)
{
    if (!is(v, JSON_NUMBER) || !in_range(key, json_number(v->json)))
        return false;
    *out = (uint64_t)json_number(v->json);
    return (double)*out == json_number(v->json);
}

static enum value_result set_bool(const struct schema_key *key, const struct value *v, void *base, const char **why)
{
    bool *to = member(key, base);
    (void)why;
    if (!is(v, JSON_BOOL))
        return VALUE_BAD;
    *to = json_bool(v->json);
    return VALUE_OK;
}

static enum value_result set_uint(const struct schema_key *key, const struct value *v, void *base, const char **why)
{
    unsigned *to = member(key, base);
    uint64_t n;
    (void)why;
    if (!read_whole(key, v, &n))
        return VALUE_BAD;
    *to = (unsigned)n;
    return VALUE_OK;
}

static enum value_result set_count(const struct schema_key *key, const struct value *v, void *base, const char **why)
{
    uint64_t *to = member(key, base);
    uint64_t n;
    (void)why;
    if (!read_whole(key, v, &n))
        return VALUE_BAD;
    *to = n;
    return VALUE_OK;
}

static enum value_result set_number(const struct schema_key *key, const struct value *v, void *base, const char **why)
{
    double *to = member(key, base);
    (void)why;
    if (!is(v, JSON_NUMBER) || !in_range(key, json_number(v->json)))
        return VALUE_BAD;
    *to = json_number(v->json);
    return VALUE_OK;
}

/* Digits and letters, which are no unit of ours: "10m", "10MB", "64kb". */
static bool has_foreign_unit(struct str s)
{
    size_t digits = 0, end;
    while (digits < s.n && s.p[digits] >= '0' && s.p[digits] <= '9')
        digits++;
    for (end = digits;
         end < s.n && ascii_lower((unsigned char)s.p[end]) >= 'a' && ascii_lower((unsigned char)s.p[end]) <= 'z';)
        end++;
    struct str unit = str_make(s.p + digits, s.n - digits);
    return digits > 0 && unit.n > 0 && end == s.n && !str_eq(unit, STR("KiB")) && !str_eq(unit, STR("MiB")) &&
           !str_eq(unit, STR("GiB"));
}

static enum value_result set_size(const struct schema_key *key, const struct value *v, void *base, const char **why)
{
    uint64_t *to = member(key, base);
    uint64_t n;
    if (is(v, JSON_STRING) && has_foreign_unit(v->text))
        *why = "has a unit other than KiB, MiB and GiB";
    bool read = is(v, JSON_STRING) ? str_parse_size(v->text, &n) && in_range(key, (double)n) : read_whole(key, v, &n);
    if (!read)
        return VALUE_BAD;
    *to = n;
    return VALUE_OK;
}

static enum value_result set_duration(const struct schema_key *key, const struct value *v, void *base, const char **why)
{
    uint64_t *to = member(key, base);
    uint64_t ns;
    if (is(v, JSON_NUMBER))
        *why = "has no unit";
    if (!is(v, JSON_STRING) || !str_parse_duration(v->text, &ns) || !in_range(key, (double)ns))
        return VALUE_BAD;
    *to = ns;
    return VALUE_OK;
}

static enum value_result set_word(const struct schema_key *key, const struct value *v, void *base, const char **why)
{
    unsigned *to = member(key, base);
    (void)why;
    for (unsigned i = 0; is(v, JSON_STRING) && key->words[i]; i++) {
        if (str_eq(v->text, str_of(key->words[i]))) {
            *to = i;
            return VALUE_OK;
        }
    }
    return VALUE_BAD;
}

static enum value_result replace_string(char **to, struct str s)
{
    char *copy = malloc(s.n + 1);
    if (!copy)
        return VALUE_NO_MEMORY;
    memcpy(copy, s.p, s.n);
    copy[s.n] = '\0';
    free(*to);
    *to = copy;
    return VALUE_OK;
}

static enum value_result set_string(const struct schema_key *key, const struct value *v, void *base, const char **why)
{
    char **to = member(key, base);
    (void)why;
    if (is(v, JSON_NULL) && key->flags & SCHEMA_NULLABLE) {
        value_clear(key, base);
        return VALUE_OK;
    }
    if (!is(v, JSON_STRING) || !key->check(v->text))
        return VALUE_BAD;
    return replace_string(to, v->text);
}

static enum value_result set_listen(const struct schema_key *key, const struct value *v, void *base, const char **why)
{
    struct config *c = base;
    struct endpoint endpoint;
    (void)key;
    if (!is(v, JSON_STRING) || !endpoint_parse(v->text, true, &endpoint, why))
        return VALUE_BAD;
    if (endpoint.kind == ENDPOINT_NAME) {
        *why = "has a host that is no IP address";
        return VALUE_BAD;
    }
    c->listen = endpoint;
    return replace_string(&c->listen_text, v->text);
}

static enum value_result set_backend(const struct schema_key *key, const struct value *v, void *base, const char **why)
{
    struct config_backend *b = base;
    struct endpoint endpoint;
    (void)key;
    if (!is(v, JSON_STRING) || !endpoint_parse(v->text, false, &endpoint, why))
        return VALUE_BAD;
    if (endpoint.kind == ENDPOINT_ANY) {
        *why = "has no host";
        return VALUE_BAD;
    }
    b->endpoint = endpoint;
    return replace_string(&b->address, v->text);
}

/* The kind that `text` begins with; its name, where it has one, is left in *name. */
static enum hash_key_kind read_hash_key(struct str text, struct str *name)
{
    size_t colon = str_find(text, ':');
    struct str kind = str_make(text.p, colon);
    *name = str_make(text.p + colon, 0);
    if (colon == text.n)
        return str_eq(kind, STR("ip")) ? HASH_KEY_IP : str_eq(kind, STR("target")) ? HASH_KEY_TARGET : HASH_KEY_NONE;
    *name = str_make(text.p + colon + 1, text.n - colon - 1);
    if (!check_field_name(*name))
        return HASH_KEY_NONE;
    return str_eq(kind, STR("header"))   ? HASH_KEY_HEADER
           : str_eq(kind, STR("cookie")) ? HASH_KEY_COOKIE
                                         : HASH_KEY_NONE;
}

static enum value_result set_hash_key(const struct schema_key *key, const struct value *v, void *base, const char **why)
{
    struct config *c = base;
    struct str name;
    (void)key, (void)why;
    enum hash_key_kind kind = is(v, JSON_STRING) ? read_hash_key(v->text, &name) : HASH_KEY_NONE;
    if (kind == HASH_KEY_NONE)
        return VALUE_BAD;
    c->hash_key = kind;
    return name.n > 0 ? replace_string(&c->hash_key_name, name) : VALUE_OK;
}

static enum value_result set_statuses(const struct schema_key *key, const struct value *v, void *base, const char **why)
{
    (void)why;
    return is(v, JSON_STRING) && check_statuses(v->text, member(key, base)) ? VALUE_OK : VALUE_BAD;
}

static enum value_result add_network(const struct schema_key *key, const struct value *v, void *base, const char **why)
{
    struct cidr_set *set = member(key, base);
    struct cidr network;
    (void)why;
    if (is(v, JSON_STRING) && str_eq(v->text, STR("unix"))) {
        set->unix_peers = true;
        return VALUE_OK;
    }
    if (!is(v, JSON_STRING) || !cidr_parse(v->text, &network))
        return VALUE_BAD;
    struct cidr *grown = realloc(set->v, (set->n + 1) * sizeof(*grown));
    if (!grown)
        return VALUE_NO_MEMORY;
    set->v = grown;
    set->v[set->n++] = network;
    return VALUE_OK;
}

static setter *const setters[] = {
    [SCHEMA_BOOL] = set_bool,        [SCHEMA_UINT] = set_uint,         [SCHEMA_COUNT] = set_count,
    [SCHEMA_NUMBER] = set_number,    [SCHEMA_SIZE] = set_size,         [SCHEMA_DURATION] = set_duration,
    [SCHEMA_WORD] = set_word,        [SCHEMA_STRING] = set_string,     [SCHEMA_LISTEN] = set_listen,
    [SCHEMA_BACKEND] = set_backend,  [SCHEMA_HASH_KEY] = set_hash_key, [SCHEMA_STATUSES] = set_statuses,
    [SCHEMA_NETWORKS] = add_network,
};

enum value_result value_store(const struct schema_key *key, const struct value *v, void *base, const char **why)
{
    assert(key->type < sizeof(setters) / sizeof(setters[0]));
    return setters[key->type](key, v, base, why);
}

static void clear_string(char **s)
{
    free(*s);
    *s = NULL;
}

static void clear_networks(struct cidr_set *set)
{
    free(set->v);
    *set = (struct cidr_set){0};
}

void value_clear(const struct schema_key *key, void *base)
{
    switch (key->type) {
    case SCHEMA_STRING:
    case SCHEMA_LISTEN:
    case SCHEMA_BACKEND: clear_string(member(key, base)); break;
    case SCHEMA_HASH_KEY: clear_string(&((struct config *)base)->hash_key_name); break;
    case SCHEMA_NETWORKS: clear_networks(member(key, base)); break;
    default: break;
    }
}

static bool strings_differ(const char *a, const char *b)
{
    return a && b ? strcmp(a, b) != 0 : a != b;
}

bool value_differs(const struct schema_key *key, const void *a, const void *b)
{
    const char *left = (const char *)a + key->offset, *right = (const char *)b + key->offset;
    if (key->type == SCHEMA_STRING)
        return strings_differ(*(char *const *)left, *(char *const *)right);
    assert(key->type == SCHEMA_OBJECT);
    return *(const bool *)left != *(const bool *)right;
}

/* A quoted string, cut where it is long, at the end of a character. */
static bool describe_text(struct str s, struct buf *out)
{
    char shown[SHOWN_MAX + 3];
    size_t n = SHOWN_MAX;
    if (s.n <= SHOWN_MAX)
        return json_append_string(out, s);
    while (n > 0 && ((unsigned char)s.p[n] & 0xc0) == 0x80)
        n--;
    memcpy(shown, s.p, n);
    memcpy(shown + n, "...", 3);
    return json_append_string(out, str_make(shown, n + 3));
}

static bool describe_string(const struct value *v, struct buf *out)
{
    if (!buf_append_str(out, STR("the string ")) || !describe_text(str_of(json_string(v->json)), out))
        return false;
    return !v->expanded ||
           (buf_append_str(out, STR(" (here ")) && describe_text(v->text, out) && buf_append(out, ")", 1));
}

bool value_describe(const struct value *v, bool secret, struct buf *out)
{
    enum json_type type = json_type(v->json);
    if (type == JSON_STRING)
        return secret ? buf_append_str(out, STR("a string (not shown)")) : describe_string(v, out);
    if (type == JSON_NUMBER && secret) /* its quotes were forgotten */
        return buf_append_str(out, STR("a number (not shown)"));
    if (type == JSON_NUMBER)
        return json_append_number(out, json_number(v->json));
    if (type == JSON_BOOL)
        return buf_append_str(out, json_bool(v->json) ? STR("true") : STR("false"));
    return buf_append_str(out, str_of(json_type_name(type)));
}
