/* A reload of the set of backends: everything that can fail is staged, then the new set is put in the old one's place
 * in one go. Nothing here touches a connection but the idle ones of backends that are removed. */
#include "base/mem.h"
#include "upstream/backend.h"
#include "upstream/health.h"
#include "upstream/resolve.h"

#include <errno.h>

struct upstream_change {
    struct upstream *upstream;
    struct config *fresh;
    struct staged {
        struct backend *backend;
        struct health_check *check; /* of one that stays: what it needs from now on */
        bool is_new;
    } * staged; /* in the order of `fresh` */
    struct backend **backends;
    struct tier tiers[TIER_COUNT];
    struct field *fields; /* NULL: there is room enough */
};

/* ---- staging ---- */

/* Like one that is given by address, if it is known where its name leads. That this is so is said when it is in force.
 */
static void begin_there(struct backend *be, const struct addr *at, int count)
{
    be->unheard = count < 0;
    if (count <= 0)
        return;
    backend_take_addresses(be, at, count);
    be->up = be->available = be->announced = true;
}

static bool stage_new(struct upstream_change *c, unsigned i, const struct upstream_lookup *found)
{
    const struct config_backend *b = &c->fresh->backends[i];
    struct staged *s = &c->staged[i];
    struct addr at[BACKEND_ADDRS_MAX];
    s->is_new = true;
    s->backend = backend_new(c->upstream, c->fresh, b);
    if (!s->backend)
        return false;
    if (b->endpoint.kind == ENDPOINT_NAME)
        begin_there(s->backend, at, upstream_found(c->upstream, found, i, &b->endpoint, at));
    return health_start(s->backend);
}

static bool stage_one(struct upstream_change *c, unsigned i, const struct upstream_lookup *found)
{
    const struct config_backend *b = &c->fresh->backends[i];
    struct staged *s = &c->staged[i];
    s->backend = upstream_find(c->upstream, &b->endpoint, i);
    return s->backend ? health_stage(s->backend, c->fresh, &s->check) : stage_new(c, i, found);
}

static bool stage(struct upstream_change *c, const struct upstream_lookup *found)
{
    struct upstream *u = c->upstream;
    unsigned count = c->fresh->backend_count, room = c->fresh->limits.header_fields;
    c->staged = mem_try_alloc(count * sizeof *c->staged);
    c->backends = mem_try_alloc(count * sizeof(struct backend *));
    c->fields = room > u->field_room ? mem_try_alloc(room * sizeof *c->fields) : NULL;
    if (!tiers_init(c->tiers, count) || !c->staged || !c->backends || (room > u->field_room && !c->fields))
        return false;
    for (unsigned i = 0; i < count; i++)
        if (!stage_one(c, i, found))
            return false;
    return upstream_start_names(u, upstream_names_in(c->fresh)) && loop_reserve(u->loop, count);
}

static void change_free(struct upstream_change *c)
{
    config_put(c->fresh);
    tiers_fini(c->tiers);
    mem_free(c->staged);
    mem_free(c->backends);
    mem_free(c->fields);
    mem_free(c);
}

void upstream_rollback(struct upstream_change *c)
{
    if (!c)
        return;
    for (unsigned i = 0; c->staged && i < c->fresh->backend_count; i++) {
        struct staged *s = &c->staged[i];
        health_discard(s->check);
        if (s->is_new && s->backend)
            backend_quit(s->backend);
    }
    change_free(c);
}

struct upstream_change *upstream_stage(struct upstream *u, struct config *fresh, const struct upstream_lookup *found)
{
    struct upstream_change *c = mem_try_alloc(sizeof *c);
    if (!c)
        return NULL;
    c->upstream = u;
    c->fresh = config_get(fresh);
    errno = 0;
    if (stage(c, found))
        return c;
    int e = errno ? errno : ENOMEM;
    upstream_rollback(c);
    errno = e;
    return NULL;
}

/* ---- whose turn it is ---- */

/* Takes the seats out of use, each backend keeping its turn. Whose turn it was in the plain rotation is left in `next`:
 * the first from there on that stays, or NULL. */
static struct backend *leave_seats(const struct tier *t)
{
    struct backend *next = NULL;
    for (unsigned i = 0; i < t->count; i++) {
        const struct seat *s = &t->seats[(t->at + i) % t->count];
        s->backend->turn = s->turn;
        if (!next && !s->backend->removed)
            next = s->backend;
    }
    return next;
}

static void resume_rotation(struct tier *t, const struct backend *next)
{
    for (unsigned i = 0; i < t->count; i++)
        if (t->seats[i].backend == next)
            t->at = i;
}

/* ---- putting it in force ---- */

static void mark_removed(struct upstream_change *c, struct upstream_tally *tally)
{
    struct upstream *u = c->upstream;
    for (unsigned i = 0; i < u->count; i++)
        u->backends[i]->removed = true;
    for (unsigned i = 0; i < c->fresh->backend_count; i++) {
        c->staged[i].backend->removed = false;
        tally->added += c->staged[i].is_new;
        tally->kept += !c->staged[i].is_new;
    }
    tally->removed = u->count - tally->kept;
}

static void swap_sets(struct upstream_change *c)
{
    struct upstream *u = c->upstream;
    struct backend **old = u->backends;
    for (unsigned i = 0; i < c->fresh->backend_count; i++)
        c->backends[i] = c->staged[i].backend;
    u->backends = c->backends;
    c->backends = old;
    u->count = c->fresh->backend_count;
    for (int t = 0; t < TIER_COUNT; t++) {
        struct seat *seats = u->tiers[t].seats;
        u->tiers[t] = c->tiers[t];
        c->tiers[t].seats = seats;
    }
    struct config *config = u->config;
    u->config = c->fresh;
    c->fresh = config;
    if (!c->fields)
        return;
    mem_free(u->fields);
    u->fields = c->fields;
    u->field_room = u->config->limits.header_fields;
    c->fields = NULL;
}

/* A backend that stays takes on what the new config says about it. */
static void change_one(struct upstream *u, struct staged *s, const struct config_backend *b)
{
    struct backend *be = s->backend;
    struct config *old = be->snapshot;
    be->snapshot = config_get(u->config);
    be->config = b;
    be->identity = upstream_hash(str_of(b->name));
    health_change(be, old, s->check);
    passive_change(be);
    config_put(old);
}

struct upstream_tally upstream_commit(struct upstream_change *c)
{
    struct upstream *u = c->upstream;
    struct upstream_tally tally = {0};
    struct backend *next[TIER_COUNT];
    unsigned old_count = u->count;
    mark_removed(c, &tally);
    for (int t = 0; t < TIER_COUNT; t++)
        next[t] = leave_seats(&u->tiers[t]);
    swap_sets(c);
    for (unsigned i = 0; i < u->count; i++)
        if (!c->staged[i].is_new)
            change_one(u, &c->staged[i], &u->config->backends[i]);
        else if (u->backends[i]->announced)
            backend_say(u->backends[i], "name resolved"); /* of an address there is nothing to be said */
    u->warm_next = 0;
    tiers_build(u, NULL);
    for (int t = 0; t < TIER_COUNT; t++)
        resume_rotation(&u->tiers[t], next[t]);
    for (unsigned i = 0; i < old_count; i++)
        if (c->backends[i]->removed) {
            backend_log_totals_at_end(c->backends[i]);
            backend_quit(c->backends[i]);
        }
    queue_look(u);
    change_free(c);
    pool_trim(u); /* limits.connections may be less now */
    return tally;
}
