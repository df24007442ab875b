/* What a call of the client API is given: the parameters in its query, the client in its content. What is not as it
 * must be is refused here. */
#include "clients_asked.h"

#include <stdio.h>
#include <string.h>

#define LIST_LIMIT_MAX     1000u
#define LIST_LIMIT_DEFAULT 100u

/* ---- the query ---- */

static int hex_value(char c)
{
    uint64_t v;
    return str_parse_hex(str_make(&c, 1), &v) ? (int)v : -1;
}

/* Takes the next byte of a percent-encoded text off its front; -1 when it is malformed. A plus is a plus. */
static int next_byte(struct str *s)
{
    char c = s->p[0];
    size_t n = 1;
    int v = (unsigned char)c;
    if (c == '%') {
        int high = s->n >= 3 ? hex_value(s->p[1]) : -1, low = s->n >= 3 ? hex_value(s->p[2]) : -1;
        if (high < 0 || low < 0)
            return -1;
        v = high << 4 | low;
        n = 3;
    }
    *s = str_make(s->p + n, s->n - n);
    return v;
}

#define NO_ID "must be 1 to 128 visible ASCII characters"

/* Decodes `s` into `out` with a zero. NULL, or what is wrong with it, where it is malformed, too long, or has a NUL. */
static const char *percent_decode(struct str s, char *out, size_t size)
{
    size_t n = 0;
    while (s.n > 0) {
        int c = next_byte(&s);
        if (c < 0)
            return "has a malformed percent-encoding";
        if (c == 0 || n + 1 >= size)
            return NO_ID;
        out[n++] = (char)c;
    }
    out[n] = '\0';
    return NULL;
}

enum found { FOUND_NONE, FOUND_ONE, FOUND_TWICE };

/* The value, still encoded, of the query's parameter `name`. */
static enum found find_parameter(struct str query, const char *name, struct str *value)
{
    enum found found = FOUND_NONE;
    while (query.n > 0) {
        size_t end = str_find(query, '&');
        struct str pair = str_make(query.p, end);
        query = end < query.n ? str_make(query.p + end + 1, query.n - end - 1) : STR("");
        size_t equals = str_find(pair, '=');
        char key[16];
        if (percent_decode(str_make(pair.p, equals), key, sizeof key) || strcmp(key, name) != 0)
            continue;
        if (found)
            return FOUND_TWICE;
        found = FOUND_ONE;
        *value = equals < pair.n ? str_make(pair.p + equals + 1, pair.n - equals - 1) : STR("");
    }
    return found;
}

static bool refuse_parameter(const struct asked *a, const char *name, const char *what)
{
    char detail[96];
    snprintf(detail, sizeof detail, "The parameter %s %s.", name, what);
    local_answer_err(a->x, ERR_BAD_API_REQUEST, STR(""), detail);
    return false;
}

bool asked_id(const struct asked *a, const char *name, char id[CLIENT_ID_MAX + 1])
{
    struct str value;
    char text[CLIENT_ID_MAX + 1];
    id[0] = '\0';
    enum found found = find_parameter(a->query, name, &value);
    if (found == FOUND_NONE)
        return true;
    if (found == FOUND_TWICE)
        return refuse_parameter(a, name, "is repeated");
    const char *fault = percent_decode(value, text, sizeof text);
    if (!fault && !client_id_canonical(str_of(text), id))
        fault = NO_ID;
    return !fault || refuse_parameter(a, name, fault);
}

bool asked_need_id(const struct asked *a, char id[CLIENT_ID_MAX + 1])
{
    return asked_id(a, "id", id) && (id[0] != '\0' || refuse_parameter(a, "id", "is missing"));
}

bool asked_start(const struct asked *a, char after[CLIENT_ID_MAX + 1], uint64_t *place)
{
    struct str value;
    *place = 0;
    if (!asked_id(a, "after", after))
        return false;
    enum found found = find_parameter(a->query, "place", &value);
    if (found == FOUND_NONE)
        return true;
    if (found == FOUND_TWICE)
        return refuse_parameter(a, "place", "is repeated");
    if (after[0] != '\0')
        return refuse_parameter(a, "place", "and the parameter after exclude each other");
    return str_parse_u64(value, place) || refuse_parameter(a, "place", "must be a whole number");
}

bool asked_limit(const struct asked *a, uint64_t *limit)
{
    struct str value;
    *limit = LIST_LIMIT_DEFAULT;
    enum found found = find_parameter(a->query, "limit", &value);
    if (found == FOUND_NONE)
        return true;
    if (found == FOUND_TWICE)
        return refuse_parameter(a, "limit", "is repeated");
    return (str_parse_u64(value, limit) && *limit >= 1 && *limit <= LIST_LIMIT_MAX) ||
           refuse_parameter(a, "limit", "must be 1 to 1000");
}

/* ---- the content ---- */

/* What can be wrong with it, with the field that it is in and its place. */
#define CONTENT_FAULT_MAX (JSON_PATH_SIZE + sizeof((struct json_error *)0)->what + 32)

bool asked_refuse_content(const struct asked *a, const char *what)
{
    char detail[CONTENT_FAULT_MAX + 32];
    snprintf(detail, sizeof detail, "The content is not valid: %s.", what);
    local_answer_err(a->x, ERR_BAD_API_REQUEST, STR(""), detail);
    return false;
}

static bool refuse_json(const struct asked *a, const struct json_error *e)
{
    char what[CONTENT_FAULT_MAX];
    if (e->no_memory) {
        local_answer_err(a->x, ERR_INTERNAL, STR(""), NULL);
        return false;
    }
    snprintf(what, sizeof what, "%s%s%s (at byte %zu)", e->path, *e->path ? ": " : "", e->what, e->offset);
    return asked_refuse_content(a, what);
}

bool asked_need_client(const struct asked *a, unsigned needed, unsigned allowed, struct client_fields *f)
{
    struct json_error e;
    struct json_doc *d = json_parse(a->r->body, false, &e);
    if (!d)
        return refuse_json(a, &e);
    struct client_fault fault;
    bool ok = client_fields_read(json_root(d), needed, allowed, f, &fault);
    json_free(d);
    return ok || asked_refuse_content(a, fault.what);
}
