/* Routes of the demo backend: pure functions of a request. */
#include "route.h"

#include "base/json.h"

#define PATTERN_PERIOD 89u

static bool number_behind(struct str path, struct str prefix, uint64_t *out)
{
    if (!str_starts_with(path, prefix))
        return false;
    return str_parse_u64(str_make(path.p + prefix.n, path.n - prefix.n), out) && *out <= INT64_MAX;
}

struct route route_of(const struct request *r)
{
    struct str path = str_make(r->target.p, str_find(r->target, '?'));
    struct route route = {ROUTE_SHOW, 0};
    uint64_t number;

    if (str_eq(path, STR("/health")))
        route.kind = ROUTE_HEALTH;
    else if (str_eq(path, STR("/_outage")) && r->method == METHOD_POST)
        route.kind = ROUTE_OUTAGE;
    else if (str_eq(path, STR("/echo")) && r->method == METHOD_POST)
        route.kind = ROUTE_ECHO;
    else if (number_behind(path, STR("/bytes/"), &number))
        route = (struct route){ROUTE_BYTES, number};
    else if (number_behind(path, STR("/chunked/"), &number))
        route = (struct route){ROUTE_CHUNKED, number};
    else if (number_behind(path, STR("/status/"), &number) && number >= 200 && number <= 599)
        route = (struct route){ROUTE_STATUS, number};
    return route;
}

static bool member_str(const struct json *object, const char *key, struct str *out)
{
    const struct json *v = json_get(object, key);

    if (!v || json_type(v) != JSON_STRING)
        return false;
    *out = str_of(json_string(v));
    return true;
}

static bool read_outage(const struct json *root, struct outage *o, const char **why)
{
    struct str text;

    *o = (struct outage){.mode = OUTAGE_NONE};
    *why = "the content is no object";
    if (json_type(root) != JSON_OBJECT)
        return false;
    *why = "mode must be one of refuse, hang, 500, reset, drop, cut, bad, reuse, slow, sick, none";
    if (!member_str(root, "mode", &text))
        return false;
    if (str_eq(text, STR("none")))
        return true;
    if (!outage_mode_parse(text, &o->mode))
        return false;
    *why = "health must be ok";
    o->health_ok = json_get(root, "health") != NULL;
    if (o->health_ok && (!member_str(root, "health", &text) || !str_eq(text, STR("ok"))))
        return false;
    *why = "for must be a duration such as 10s";
    return member_str(root, "for", &text) && str_parse_duration(text, &o->ns) && o->ns > 0;
}

bool route_parse_outage(struct str body, struct outage *o, const char **why)
{
    struct json_error error;
    struct json_doc *doc = json_parse(body, false, &error);
    bool ok;

    if (!doc) {
        *why = "the content is no JSON";
        return false;
    }
    ok = read_outage(json_root(doc), o, why);
    json_free(doc);
    return ok;
}

struct str route_bytes(uint64_t at, uint64_t left)
{
    static char pattern[PATTERN_PERIOD + ROUTE_PIECE];

    if (!pattern[0])
        for (size_t i = 0; i < sizeof pattern; i++)
            pattern[i] = (char)('!' + i % PATTERN_PERIOD);
    return str_make(pattern + at % PATTERN_PERIOD, left < ROUTE_PIECE ? (size_t)left : ROUTE_PIECE);
}
