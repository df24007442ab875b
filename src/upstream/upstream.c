/* The set of backends: built from the config, chosen from for each request, torn down at the end.
 * What a backend is to its connections stands in back_connect.c, back_h1.c and pool.c, what it is to its checks in
 * health.c. */
#include "upstream/upstream.h"

#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/metrics.h"
#include "upstream/back_h1.h"
#include "upstream/backend.h"
#include "upstream/health.h"
#include "upstream/names.h"

#include <assert.h>
#include <errno.h>

/* ---- what is said at its end ---- */

static void log_totals(struct backend *be)
{
    notice_flush(&be->keep.stray); /* behind the totals nothing is told of it any more */
    log_begin(LOG_INFO, "backend_totals");
    log_str("backend", backend_name(be));
    log_u64("attempts", be->totals.attempts);
    log_u64("failures", be->totals.failures);
    log_u64("gateway_errors", be->totals.gateway_errors);
    log_end();
}

static void forget_ending(struct backend *be)
{
    loop_unpost(be->upstream->loop, &be->ended);
    list_remove(&be->ending);
    backend_put(be);
}

static void on_ended(struct posted *p)
{
    struct backend *be = container_of(p, struct backend, ended);
    log_totals(be);
    forget_ending(be);
}

void backend_log_totals_at_end(struct backend *be)
{
    if (be->active == 0) {
        log_totals(be);
        return;
    }
    list_push_back(&be->upstream->ending, &backend_get(be)->ending);
}

void upstream_log_totals(struct upstream *u)
{
    for (unsigned i = 0; i < u->count; i++)
        log_totals(u->backends[i]);
    while (!list_empty(&u->ending)) {
        struct backend *be = container_of(u->ending.next, struct backend, ending);
        log_totals(be);
        forget_ending(be);
    }
}

/* ---- a backend's life ---- */

struct backend *backend_new(struct upstream *u, struct config *snapshot, const struct config_backend *config)
{
    struct backend *be = mem_try_alloc(sizeof *be);
    if (!be)
        return NULL;
    be->refs = 1;
    be->upstream = u;
    be->snapshot = config_get(snapshot);
    be->config = config;
    be->since = loop_now(u->loop);
    be->identity = upstream_hash(str_of(config->name));
    list_init(&be->idle);
    list_init(&be->ending);
    posted_init(&be->ended, on_ended);
    passive_init(be);
    pool_init(be);
    if (config->endpoint.kind != ENDPOINT_NAME) {
        be->addrs[0] = config->endpoint.addr;
        be->addr_count = 1;
        be->up = be->available = be->announced = true;
        be->said = SAID_UP;
    }
    return be;
}

struct backend *backend_get(struct backend *be)
{
    be->refs++;
    return be;
}

void backend_put(struct backend *be)
{
    if (!be || --be->refs > 0)
        return;
    assert(be->active == 0 && be->open_count == 0);
    pool_fini(be);
    config_put(be->snapshot);
    mem_free(be);
}

void backend_quit(struct backend *be)
{
    health_stop(be);
    passive_fini(be);
    pool_flush(be);
    notice_flush(&be->keep.stray);
    backend_put(be);
}

struct str backend_name(const struct backend *be)
{
    return str_of(be->config->name);
}

bool backend_is_available(const struct backend *be)
{
    return be->available;
}

void backend_count_attempt(struct backend *be)
{
    be->totals.attempts++;
}

void backend_count_failure(struct backend *be)
{
    be->totals.failures++;
}

void backend_count_gateway_error(struct backend *be)
{
    be->totals.gateway_errors++;
    metrics.gateway_errors++;
}

void backend_say(struct backend *be, const char *cause)
{
    enum said now_said = be->available ? SAID_UP : SAID_DOWN;
    uint64_t now = loop_now(be->upstream->loop);
    if (be->said == now_said)
        return;
    log_begin(be->available ? LOG_INFO : LOG_WARN, be->available ? "backend_up" : "backend_down");
    log_str("backend", backend_name(be));
    log_z("cause", cause);
    log_ms(be->available ? "down_ms" : "up_ms", now - be->since);
    log_end();
    be->said = now_said;
    be->since = now;
}

void backend_update(struct backend *be, const char *cause)
{
    struct upstream *u = be->upstream;
    bool available = be->up && !be->ejected, returns = available && !be->available && be->announced;
    if (be->available == available && be->announced) {
        tiers_build(u, NULL); /* an ejected one may have come up or gone down */
        queue_look(u);
        return;
    }
    be->available = available;
    be->announced = true;
    be->warm = returns && u->config->slow_start > 0 ? loop_now(u->loop) : 0;
    if (!u->importing)
        backend_say(be, cause);
    tiers_build(u, be);
    queue_look(u);
    pool_forget(be); /* it may come back as another */
    if (!available)
        pool_flush(be);
    if (!u->importing && !upstream_has_available(u))
        for (unsigned i = 0; i < u->count; i++)
            health_hurry(u->backends[i]);
}

void backend_set_up(struct backend *be, bool up, const char *cause)
{
    bool same = be->up == up && be->announced;
    be->up = up;
    if (!same)
        backend_update(be, cause);
}

/* ---- the set ---- */

unsigned upstream_names_in(const struct config *config)
{
    unsigned names = 0;
    for (unsigned i = 0; i < config->backend_count; i++)
        names += config->backends[i].endpoint.kind == ENDPOINT_NAME;
    return names;
}

bool upstream_start_names(struct upstream *u, unsigned names)
{
    if (names > 0 && !u->names)
        u->names = names_new(u->loop);
    return u->names ? names_start(u->names, names) : names == 0;
}

static bool build(struct upstream *u)
{
    u->count = u->config->backend_count;
    u->backends = mem_try_alloc(u->count * sizeof(struct backend *));
    u->field_room = u->config->limits.header_fields;
    u->fields = mem_try_alloc(u->field_room * sizeof *u->fields);
    if (!u->backends || !u->fields || !tiers_init(u->tiers, u->count))
        return false;
    for (unsigned i = 0; i < u->count; i++) {
        u->backends[i] = backend_new(u, u->config, &u->config->backends[i]);
        if (!u->backends[i])
            return false;
    }
    tiers_build(u, NULL);
    if (!upstream_start_names(u, upstream_names_in(u->config)))
        return false;
    for (unsigned i = 0; i < u->count; i++)
        if (!health_start(u->backends[i]))
            return false;
    return true;
}

struct upstream *upstream_new(struct loop *l, struct config *config)
{
    struct upstream *u = mem_try_alloc(sizeof *u);
    if (!u)
        return NULL;
    u->loop = l;
    u->config = config_get(config);
    list_init(&u->ending);
    list_init(&u->idle);
    queue_init(u);
    clock_random(&u->random, sizeof u->random);
    errno = 0;
    if (build(u))
        return u;
    int e = errno ? errno : ENOMEM;
    upstream_free(u);
    errno = e;
    return NULL;
}

void upstream_free(struct upstream *u)
{
    if (!u)
        return;
    queue_fini(u);
    while (!list_empty(&u->ending))
        forget_ending(container_of(u->ending.next, struct backend, ending));
    for (unsigned i = 0; u->backends && i < u->count; i++)
        if (u->backends[i])
            backend_quit(u->backends[i]);
    names_free(u->names);
    config_put(u->config);
    tiers_fini(u->tiers);
    mem_free(u->backends);
    mem_free(u->fields);
    mem_free(u);
}

unsigned upstream_count(const struct upstream *u)
{
    return u->count;
}

struct backend *upstream_find(const struct upstream *u, const struct endpoint *at, unsigned guess)
{
    for (unsigned i = 0; i < u->count; i++) {
        struct backend *be = u->backends[(guess + i) % u->count];
        if (config_same_endpoint(&be->config->endpoint, at))
            return be;
    }
    return NULL;
}

struct backend *upstream_backend(struct upstream *u, unsigned i)
{
    return u->backends[i];
}

/* SplitMix64 (Steele, Lea and Flood 2014), from a seed of the kernel's. */
uint32_t upstream_random(struct upstream *u, uint32_t n)
{
    uint64_t z = u->random += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    z ^= z >> 31;
    return (uint32_t)((z >> 32) * n >> 32);
}

bool upstream_has_available(const struct upstream *u)
{
    return u->tiers[TIER_PRIMARY].count > 0 || u->tiers[TIER_BACKUP].count > 0;
}

bool upstream_names_are_known(const struct upstream *u)
{
    for (unsigned i = 0; i < u->count; i++)
        if (!u->backends[i]->announced)
            return false;
    return true;
}

/* ---- a choice ---- */

uint64_t upstream_hash(struct str key)
{
    /* Not secret: the balancers beside this one must come to the same. Who aims keys at one backend meets the bound. */
    static const struct hash_key common = {0x6c6f616462616c61, 0x6e6365722d6b6579};
    return hash_bytes(&common, key.p, key.n);
}

static struct backend *choose_from(const struct choice *c, bool *full)
{
    const struct tier *t = c->tier;
    if (t->count == 0)
        return NULL;
    struct backend *be = policy_of(c->upstream->config->balance)(c);
    for (unsigned i = 0; i < t->count && !be && !*full; i++)
        *full = choice_wants(c, &t->seats[i]);
    return be;
}

/* One that is ejected may be well again, when all that are available have just failed; but nobody waits for its place
 * while others are. */
static struct backend *choose_ejected(const struct choice *c)
{
    bool full = false;
    return c->strict && c->pick->tried_count > 0 ? choose_from(c, &full) : NULL;
}

/* First those that were not tried, the best tier first. When all were, any of the best tier that there is. */
struct backend *upstream_choose(struct upstream *u, const struct pick *p, struct place *place, bool *full)
{
    struct choice c = {.upstream = u, .pick = p};
    struct backend *be = NULL;
    *full = false;
    tiers_warm(u);
    for (int strict = 1; strict >= 0; strict--) {
        for (int t = 0; t < TIER_COUNT && !be && !*full; t++) {
            c.strict = strict;
            c.tier = &u->tiers[t];
            be = t == TIER_LAST && upstream_has_available(u) ? choose_ejected(&c) : choose_from(&c, full);
        }
    }
    if (be) {
        be->active++;
        passive_place(be, place);
    }
    return be;
}

struct backend *upstream_pick(struct upstream *u, const struct pick *p, struct place *place, bool *full)
{
    if (u->waiting_fresh == 0) /* those who have tried some already wait for others */
        return upstream_choose(u, p, place, full);
    *full = true; /* those who wait come first */
    return NULL;
}

/* Without regard to those tried, for where all were, any is as good. */
bool upstream_has_any(const struct upstream *u)
{
    return u->waiting_fresh > 0 || upstream_has_available(u) || u->tiers[TIER_LAST].count > 0;
}

void backend_leave(struct backend *be, const struct place *p)
{
    assert(be->active > 0);
    be->active--;
    passive_leave(be, p);
    if (be->active == 0 && !list_empty(&be->ending))
        loop_post(be->upstream->loop, &be->ended);
    queue_look(be->upstream);
}
