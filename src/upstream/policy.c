/* The table of policies, and the seats that they choose from. */
#include "upstream/policy.h"

#include "base/clock.h"
#include "base/mem.h"
#include "upstream/backend.h"

#define WARM_FROM  10 /* percent of its weight with which a slow start begins */
#define WARM_STEPS 90 /* of a percent each */

policy_fn *policy_of(enum balance balance)
{
    static policy_fn *const policies[] = {
        [BALANCE_ROUND_ROBIN] = round_robin,
        [BALANCE_LEAST_CONN] = least_conn,
        [BALANCE_RANDOM_TWO] = random_two,
        [BALANCE_HASH] = consistent_hash,
    };
    return policies[balance];
}

static bool was_tried(const struct backend *be, const struct pick *p)
{
    for (unsigned i = 0; i < p->tried_count; i++)
        if (p->tried[i] == be)
            return true;
    return false;
}

static bool has_room(const struct backend *be)
{
    unsigned max = be->config->max_connections;
    return max == 0 || be->active < max;
}

/* No longer than a backend may take: behind that it is the trial's client who takes its time to send the request, and
 * that may be without end. */
static bool bars_others(const struct backend *be)
{
    const struct config *config = be->snapshot;
    uint64_t span = config->timeouts.connect + config->timeouts.backend_response;
    return be->passive.trials > 0 && loop_now(be->upstream->loop) - be->passive.trial_at < span;
}

/* An ejected one that is asked because those that are available have failed is so by one request at a time, too. */
static bool has_trial(const struct backend *be)
{
    return bars_others(be) && (be->passive.on_trial || (be->ejected && upstream_has_available(be->upstream)));
}

bool choice_wants(const struct choice *c, const struct seat *s)
{
    return !c->strict || (!was_tried(s->backend, c->pick) && !has_trial(s->backend));
}

bool choice_allows(const struct choice *c, const struct seat *s)
{
    return has_room(s->backend) && choice_wants(c, s);
}

int seat_compare(const struct seat *a, const struct seat *b)
{
    uint64_t left = (uint64_t)a->backend->active * (uint64_t)b->weight;
    uint64_t right = (uint64_t)b->backend->active * (uint64_t)a->weight;
    return left < right ? -1 : left > right;
}

/* ---- seats ---- */

bool tiers_init(struct tier tiers[TIER_COUNT], unsigned count)
{
    bool good = true;
    for (int t = 0; t < TIER_COUNT; t++) {
        tiers[t] = (struct tier){.seats = mem_try_alloc(count * sizeof *tiers[t].seats)};
        good &= tiers[t].seats != NULL;
    }
    return good;
}

void tiers_fini(struct tier tiers[TIER_COUNT])
{
    for (int t = 0; t < TIER_COUNT; t++)
        mem_free(tiers[t].seats);
}

/* A returning backend's weight grows in a straight line (as nginx's and HAProxy's do), so that cold caches and
 * connections yet to be made are not met by its full share at once. */
static int weight_of(struct backend *be, uint64_t now)
{
    int weight = (int)be->config->weight;
    uint64_t whole = be->snapshot->slow_start, passed = now - be->warm;
    if (be->warm == 0)
        return weight * SEAT_WEIGHT;
    if (passed >= whole) {
        be->warm = 0;
        return weight * SEAT_WEIGHT;
    }
    return weight * (WARM_FROM + (int)(WARM_STEPS * passed / whole)) * SEAT_WEIGHT / 100;
}

static struct tier *tier_of(struct upstream *u, const struct backend *be)
{
    if (!be->up)
        return NULL;
    return &u->tiers[!be->available ? TIER_LAST : be->config->backup ? TIER_BACKUP : TIER_PRIMARY];
}

static void sit_down(struct upstream *u, struct tier *t, struct backend *be)
{
    int weight = weight_of(be, loop_now(u->loop));
    t->total += weight;
    t->even &= t->count == 0 || weight == t->seats[0].weight;
    t->seats[t->count++] = (struct seat){be, weight, be->turn, t->total};
    u->warming |= be->warm != 0;
}

/* Smooth turns lie between minus and plus the sum of the weights. Left from greater weights, because a reload has made
 * them smaller or their backend has gone, they would keep some away from their share for as many requests. */
static void bound_turns(struct tier *t)
{
    for (unsigned i = 0; i < t->count; i++) {
        int *turn = &t->seats[i].turn;
        *turn = *turn > t->total ? t->total : *turn < -t->total ? -t->total : *turn;
    }
}

void tiers_build(struct upstream *u, struct backend *fresh)
{
    if (u->importing)
        return;
    for (int t = 0; t < TIER_COUNT; t++) {
        for (unsigned i = 0; i < u->tiers[t].count; i++)
            u->tiers[t].seats[i].backend->turn = u->tiers[t].seats[i].turn;
        u->tiers[t].count = 0;
        u->tiers[t].total = 0;
        u->tiers[t].even = true;
    }
    if (fresh)
        fresh->turn = 0;
    u->warming = false;
    for (unsigned i = 0; i < u->count; i++) {
        struct tier *t = tier_of(u, u->backends[i]);
        if (t)
            sit_down(u, t, u->backends[i]);
    }
    for (int t = 0; t < TIER_COUNT; t++) {
        bound_turns(&u->tiers[t]);
        if (u->tiers[t].at >= u->tiers[t].count)
            u->tiers[t].at = 0;
    }
}

void tiers_warm(struct upstream *u)
{
    uint64_t now = loop_now(u->loop);
    if (!u->warming || now < u->warm_next)
        return;
    u->warm_next = now + u->config->slow_start / WARM_STEPS;
    tiers_build(u, NULL);
}
