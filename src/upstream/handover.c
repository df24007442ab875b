/* What is known of the backends goes over to another process as lines of JSON, one a backend:
 *
 *   {"address":"app.example:9001",
 *    "addresses":["10.0.0.1","2001:db8::1"],                 where the name leads: the one in use comes first
 *    "available":false,"available_ms":1200,                  what the log has said of it last, and how long ago
 *    "up":false,"checks_in_a_row":1,                         with active checks
 *    "failures":4,"ejection_ms":20000,"ejected_ms":1300,     with passive ones: what is left of an ejection,
 *    "on_trial":true,                                        ... or what follows it
 *    "warm_ms":30,                                           how far a slow start is
 *    "keeps_idle_ms":1400,"keeps_idle_known_ms":5000}        how long connections may be idle, known for how long
 *
 * Members that are missing count as nothing known, others are ignored: the other side may be another version. */
#include "base/clock.h"
#include "base/json.h"
#include "base/log.h"
#include "upstream/backend.h"
#include "upstream/health.h"

#include <string.h>

#define MS_MAX ((double)(UINT64_C(1) << 43)) /* whole, and no overflow in nanoseconds */

static uint64_t ms_since(const struct backend *be, uint64_t when)
{
    return (loop_now(be->upstream->loop) - when) / NS_PER_MS;
}

static bool tell_said(const struct backend *be, struct buf *out)
{
    return be->said == SAID_NOTHING || buf_printf(out, ",\"available\":%s", be->said == SAID_UP ? "true" : "false");
}

/* It reads back as the same: one with a scope (RFC 4007) does not. */
static bool can_be_told(const struct addr *a, const struct peer *p)
{
    struct addr read_back = addr_of_ip(&p->ip, p->port);
    return read_back.len == a->len && memcmp(&read_back.ss, &a->ss, a->len) == 0;
}

static bool tell_addresses(const struct backend *be, struct buf *out)
{
    unsigned told = 0;
    if (be->config->endpoint.kind != ENDPOINT_NAME)
        return true;
    for (int i = 0; i < be->addr_count; i++) {
        const struct addr *a = &be->addrs[(be->addr_at + i) % be->addr_count];
        struct peer p = peer_from_addr(a);
        char text[IP_TEXT_SIZE];
        if (!can_be_told(a, &p))
            continue;
        ip_format(&p.ip, text);
        if (!buf_printf(out, "%s\"%s\"", told++ > 0 ? "," : ",\"addresses\":[", text))
            return false;
    }
    return told == 0 || buf_append(out, "]", 1);
}

static bool tell_checks(const struct backend *be, struct buf *out)
{
    struct health_known k;
    return !health_tell(be, &k) ||
           buf_printf(out, ",\"up\":%s,\"checks_in_a_row\":%u", k.up ? "true" : "false", k.in_a_row);
}

static bool tell_passive(const struct backend *be, struct buf *out)
{
    struct passive_known k;
    if (!passive_tell(be, &k))
        return true;
    return buf_printf(out, ",\"failures\":%u,\"ejection_ms\":%llu", k.in_a_row,
                      (unsigned long long)(k.ejection / NS_PER_MS)) &&
           (!be->ejected || buf_printf(out, ",\"ejected_ms\":%llu", (unsigned long long)(k.left / NS_PER_MS))) &&
           (!k.on_trial || buf_printf(out, ",\"on_trial\":true"));
}

static bool tell_keep_time(const struct backend *be, struct buf *out)
{
    struct pool_known k;
    return !pool_tell(be, &k) ||
           buf_printf(out, ",\"keeps_idle_ms\":%llu,\"keeps_idle_known_ms\":%llu",
                      (unsigned long long)(k.bound / NS_PER_MS), (unsigned long long)(k.age / NS_PER_MS));
}

static bool tell(const struct backend *be, struct buf *out)
{
    return buf_printf(out, "{\"address\":") && json_append_string(out, str_of(be->config->address)) &&
           tell_addresses(be, out) && tell_said(be, out) &&
           buf_printf(out, ",\"available_ms\":%llu", (unsigned long long)ms_since(be, be->since)) &&
           tell_checks(be, out) && tell_passive(be, out) &&
           (be->warm == 0 || buf_printf(out, ",\"warm_ms\":%llu", (unsigned long long)ms_since(be, be->warm))) &&
           tell_keep_time(be, out) && buf_printf(out, "}\n");
}

bool upstream_export(const struct upstream *u, unsigned *at, size_t most, struct buf *out)
{
    size_t before = out->len;
    for (; *at < u->count && out->len - before < most; ++*at)
        if (!tell(u->backends[*at], out))
            return false;
    return true;
}

/* ---- the other side ---- */

struct known {
    struct endpoint at;
    bool said, available; /* an older one does not say what it has said */
    bool has_checks, has_passive, ejected, warm;
    uint64_t available_for, warm_for;
    struct addr addrs[BACKEND_ADDRS_MAX]; /* an older one tells none, as one that knows none */
    int addr_count;
    struct health_known checks;
    struct passive_known passive;
    struct pool_known pool;
};

/* False when it is there and no such thing. *has, which may be NULL: it is there. */
static bool read_number(const struct json *o, const char *key, double most, uint64_t *out, bool *has)
{
    const struct json *v = json_get(o, key);
    if (has)
        *has = v != NULL;
    if (!v)
        return true;
    if (json_type(v) != JSON_NUMBER || json_number(v) < 0)
        return false;
    *out = (uint64_t)(json_number(v) < most ? json_number(v) : most);
    return true;
}

static bool read_count(const struct json *o, const char *key, unsigned *out, bool *has)
{
    uint64_t n = 0;
    if (!read_number(o, key, UINT16_MAX, &n, has))
        return false;
    *out = (unsigned)n;
    return true;
}

static bool read_ns(const struct json *o, const char *key, uint64_t *out, bool *has)
{
    if (!read_number(o, key, MS_MAX, out, has))
        return false;
    *out *= NS_PER_MS;
    return true;
}

static bool read_bool(const struct json *o, const char *key, bool *out, bool *has)
{
    const struct json *v = json_get(o, key);
    if (has)
        *has = v != NULL;
    if (v && json_type(v) != JSON_BOOL)
        return false;
    *out = v && json_bool(v);
    return true;
}

static bool read_addresses(const struct json *o, struct known *k)
{
    const struct json *list = json_get(o, "addresses");
    if (list && json_type(list) != JSON_ARRAY)
        return false;
    for (const struct json *v = list ? json_first(list) : NULL; v && k->addr_count < BACKEND_ADDRS_MAX;
         v = json_next(v)) {
        struct ip ip;
        if (json_type(v) != JSON_STRING || !ip_parse(str_of(json_string(v)), &ip))
            return false;
        k->addrs[k->addr_count++] = addr_of_ip(&ip, k->at.port);
    }
    return true;
}

static bool read_known(const struct json *o, struct known *k)
{
    const char *why;
    *k = (struct known){0};
    const struct json *address = json_type(o) == JSON_OBJECT ? json_get(o, "address") : NULL;
    return address && json_type(address) == JSON_STRING &&
           endpoint_parse(str_of(json_string(address)), false, &k->at, &why) && read_addresses(o, k) &&
           read_bool(o, "available", &k->available, &k->said) && read_ns(o, "available_ms", &k->available_for, NULL) &&
           read_bool(o, "up", &k->checks.up, &k->has_checks) &&
           read_count(o, "checks_in_a_row", &k->checks.in_a_row, NULL) &&
           read_count(o, "failures", &k->passive.in_a_row, &k->has_passive) &&
           read_ns(o, "ejection_ms", &k->passive.ejection, NULL) &&
           read_ns(o, "ejected_ms", &k->passive.left, &k->ejected) &&
           read_bool(o, "on_trial", &k->passive.on_trial, NULL) && read_ns(o, "warm_ms", &k->warm_for, &k->warm) &&
           read_ns(o, "keeps_idle_ms", &k->pool.bound, NULL) && read_ns(o, "keeps_idle_known_ms", &k->pool.age, NULL);
}

static uint64_t ago(const struct backend *be, uint64_t ns)
{
    uint64_t now = loop_now(be->upstream->loop);
    return ns < now ? now - ns : 1;
}

/* One that was not available, and is by a check of our own, or because the config asks for no checks, returns now. */
static uint64_t warm_since(const struct backend *be, const struct known *k, bool was_available)
{
    if (be->available && !was_available)
        return be->snapshot->slow_start > 0 ? loop_now(be->upstream->loop) : 0;
    return k->warm ? ago(be, k->warm_for) : 0;
}

/* The log is to say what has changed since the other process has said how it is. A name that is yet to resolve says so
 * itself when it does not. */
static void say_change(struct backend *be, const struct known *k, bool was_available)
{
    bool is_name = be->config->endpoint.kind == ENDPOINT_NAME, by_checks = k->has_checks && !k->checks.up;
    if (!k->said && !k->has_checks && is_name)
        return;
    be->said = was_available ? SAID_UP : SAID_DOWN;
    be->since = ago(be, k->available_for);
    if (be->announced)
        backend_say(be, k->ejected && !by_checks ? "passive checks are off" : health_cause(be));
}

static void take(struct backend *be, const struct known *k)
{
    bool available = k->said ? k->available : (!k->has_checks || k->checks.up) && !k->ejected;
    if (k->addr_count > 0)
        health_take_addresses(be, k->addrs, k->addr_count);
    if (k->has_checks)
        health_take(be, &k->checks);
    if (k->has_passive)
        passive_take(be, &k->passive, k->ejected);
    say_change(be, k, available);
    be->warm = warm_since(be, k, available);
    if (be->available == available) /* else it may have come back as another */
        pool_take(be, &k->pool);
}

static void log_ignored(const char *reason)
{
    log_begin(LOG_WARN, "health_ignored");
    log_z("reason", reason);
    log_end();
}

/* `i` is the line's number: that of the backend, too, unless the config has changed. */
static void take_line(struct upstream *u, struct str line, unsigned i)
{
    struct json_error e;
    struct known k;
    struct json_doc *d = json_parse(line, true, &e);
    if (!d) {
        log_ignored(e.what);
        return;
    }
    if (!read_known(json_root(d), &k)) {
        log_ignored("a line says no such thing");
    } else {
        struct backend *be = upstream_find(u, &k.at, i);
        if (be)
            take(be, &k);
    }
    json_free(d);
}

void upstream_await(struct upstream *u)
{
    u->importing = true;
}

void upstream_import(struct upstream *u, struct str text)
{
    u->importing = true;
    for (unsigned i = 0; text.n > 0; i++) {
        size_t end = str_find(text, '\n'), next = end < text.n ? end + 1 : end;
        take_line(u, str_make(text.p, end), i);
        text = str_make(text.p + next, text.n - next);
    }
    u->importing = false;
    tiers_build(u, NULL);
    for (unsigned i = 0; i < u->count; i++) {
        if (u->backends[i]->announced)
            backend_say(u->backends[i], health_cause(u->backends[i])); /* nothing was told of it */
        health_hurry(u->backends[i]); /* how long it has been down says when it is checked next */
    }
}
