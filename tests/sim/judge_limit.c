/* The judge of the limiter: nobody gets more than a bucket gives, and nobody is refused who has a token left. See
 * judge_impl.h. */
#include "judge_impl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- one refusal ---- */

/* Do the two share a bucket? */
static bool is_same_client(const struct request *a, const struct request *b)
{
    const char *name = client_identity(a->client), *other = client_identity(b->client);
    return *name || *other ? strcmp(name, other) == 0 : world.set.unix_listen || a->client == b->client;
}

static int by_time(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

/* When, at the latest and not after `until`, each request of r's client but r took its token, in order; a copy. That of
 * a client which has gone may be read much later. */
static uint64_t *tokens_taken(const struct request *r, uint64_t until, size_t *n)
{
    uint64_t *at = calloc(request_count(), sizeof *at);
    if (!at)
        abort();
    *n = 0;
    for (uint32_t id = 1; id <= request_count(); id++) {
        const struct request *o = request_find(id);
        bool refused = o->outcome == OUTCOME_ANSWERED && o->own_answer && o->status == 429;
        if (o != r && o->sent_at > 0 && !refused && is_same_client(r, o))
            at[(*n)++] = o->outcome != OUTCOME_ANSWERED || o->ended_at > until ? until : o->ended_at;
    }
    qsort(at, *n, sizeof *at, by_time);
    return at;
}

/* Capacity and tokens a nanosecond: the least that the client can have had. */
static void least_terms(unsigned client, double *capacity, double *rate)
{
    const struct settings *s = &world.set;
    const char *name = client_identity(client);
    unsigned named = *name ? (unsigned)(name[5] - '0') : 0;
    bool address = !*name && client == s->registered;
    *capacity = *name ? s->named_capacity[named] : address ? s->registered_capacity : limits_least_capacity();
    *rate = (*name ? s->named_rate[named] : address ? s->registered_rate : limits_least_rate()) / 1e9;
}

/* Only in another boot of the machine is it asked how long nobody decided, or where a start had no descriptor to read
 * which boot it is. */
static bool wall_clock_counts(void)
{
    return world.wall_steps > 0 && (world.power_cuts > 0 || fault_since(SHOWN_DESCRIPTORS, 0));
}

/* Promise: a bucket begins full, and fills at its rate. Was there surely a token for the request? One is the least that
 * there can have been, with each of the others taken as late as may be. Nothing is said where clients may have to share
 * a bucket, or a clock was not right. */
static bool has_tokens_left(const struct request *r)
{
    const char *name = client_identity(r->client);
    double capacity, rate;
    least_terms(r->client, &capacity, &rate);
    double level = capacity;
    uint64_t until = r->sent_at > 10 * MS ? r->sent_at - 10 * MS : 0, last = 0;
    if (!*name && world.set.max_tracked < 100)
        return false;
    if (wall_clock_counts() || stalled_since(r->sent_at))
        rate = 0;
    size_t n;
    uint64_t *at = tokens_taken(r, until, &n);
    for (size_t i = 0; i < n; last = at[i++]) {
        level += rate * (double)(at[i] - last);
        level = (level < capacity ? level : capacity) - 1;
        level = level > 0 || rate == 0 ? level : 0;
    }
    free(at);
    return level + rate * (double)(until - last) >= 1.001;
}

/* Without memory for buckets of their own addresses share one, which a graceful stop keeps and a kill does not. */
static bool may_share(const struct request *r)
{
    bool anew = world.deaths > 0 && judge_was_killed(world.deaths - 1);
    return !*client_identity(r->client) && fault_since(SHOWN_HEAP, anew ? process.begun : 0);
}

bool judge_may_refuse(const struct request *r)
{
    return world.set.limiter_on && (!has_tokens_left(r) || may_share(r));
}

/* ---- all that has passed ---- */

struct pass {
    uint64_t low, high; /* it was decided between these times */
};

static int by_low(const void *a, const void *b)
{
    const struct pass *x = a, *y = b;
    return x->low < y->low ? -1 : x->low > y->low;
}

/* What a client may: one policy throughout, or those of the unregistered as reloads have changed them. */
struct allowance {
    double capacity, rate;
    bool by_default;
    bool or_first;     /* a caller registers it now and then, with the numbers of world.set */
    unsigned restarts; /* that may have filled its bucket */
};

static double made_until(const struct allowance *a, uint64_t at)
{
    return a->by_default ? limits_made(at, a->or_first) : a->rate * (double)at / 1e9;
}

static double capacity_in(const struct allowance *a, const struct pass *p)
{
    return a->by_default ? limits_capacity(p->low, p->high, a->or_first) : a->capacity;
}

/* Promise: capacity + rate x T. For passes i..j in order, T is at most high(j) - low(i). Over a change it is the
 * capacity of before, and each rate for as long as it is in force. */
static void check_bound(const char *who, struct pass *p, unsigned n, const struct allowance *a)
{
    double best = 0;
    qsort(p, n, sizeof *p, by_low);
    uint64_t high = 0;
    for (unsigned j = 0; j < n; j++) {
        if (p[j].high > high)
            high = p[j].high;
        double before = (double)j + capacity_in(a, &p[j]) - made_until(a, p[j].low);
        if (j == 0 || before < best)
            best = before;
        double excess = (double)(j + 1) - made_until(a, high) - best - a->capacity * a->restarts;
        if (excess > 0.01)
            sim_fail("limit", "%s: %.3f requests more have passed than capacity %g and rate %g%s allow (%u restarts)",
                     who, excess, a->capacity, a->rate, a->by_default && world.varied ? ", or others," : "",
                     a->restarts);
    }
}

/* Did the request pass the limiter, as far as can be told from outside? */
static bool has_passed(const struct request *r)
{
    return r->deliveries > 0;
}

static void check_identity(const char *name, unsigned client, const struct allowance *a)
{
    struct pass *passes = calloc(request_count() + 1, sizeof *passes);
    unsigned n = 0;
    if (!passes)
        abort();
    for (uint32_t id = 1; id <= request_count(); id++) {
        const struct request *r = request_find(id);
        bool mine =
            name ? strcmp(client_identity(r->client), name) == 0 : r->client == client && !*client_identity(client);
        if (mine && has_passed(r))
            passes[n++] = (struct pass){r->head_sent_at, r->first_delivery};
    }
    check_bound(name ? name : "an address", passes, n, a);
    free(passes);
}

bool judge_start_is_unsure(void)
{
    return fault_since(SHOWN_DISK | SHOWN_HEAP | SHOWN_DESCRIPTORS | SHOWN_SYNC, process.begun);
}

/* The buckets of the unregistered go with their process, if that does not end gracefully. What a start cannot read of
 * them is lost, too. */
static unsigned lost_buckets(void)
{
    unsigned steps = wall_clock_counts() ? world.power_cuts : 0;
    return world.deaths - world.clean_stops + steps + world.unsure_starts + judge_start_is_unsure();
}

static void check_address(unsigned client, unsigned crashes)
{
    const struct settings *s = &world.set;
    struct allowance registered = {s->registered_capacity, s->registered_rate, .restarts = crashes};
    struct allowance unregistered = {s->capacity, s->rate, .by_default = true, .or_first = callers_register(client),
                                     .restarts = lost_buckets()};
    check_identity(NULL, client, client == s->registered ? &registered : &unregistered);
}

void judge_check_limits(void)
{
    if (!world.set.limiter_on)
        return;
    /* What a power cut may give back: tokens of a snapshot that is save_interval old; and a kill, where a call for the
     * file that they are in has failed. */
    unsigned crashes = world.power_cuts + world.lossy_stops;
    if (fault_since(SHOWN_DISK | SHOWN_HEAP | SHOWN_DESCRIPTORS | SHOWN_SYNC, 0))
        crashes += world.kills;
    for (unsigned i = 0; i < NAMED_MAX; i++) {
        struct allowance a = {world.set.named_capacity[i], world.set.named_rate[i], .restarts = crashes};
        char name[16];
        snprintf(name, sizeof name, "named%u", i);
        check_identity(name, 0, &a);
    }
    for (unsigned i = 0; i < CLIENTS_MAX && !world.set.unix_listen; i++)
        if (!client_is_exempt(i))
            check_address(i, crashes);
    for (uint32_t id = 1; id <= request_count(); id++)
        if (request_find(id)->status == 429 && client_is_polite(request_find(id)->client) && crashes == 0)
            sim_fail("limit", "request %u was refused, though its client asks more slowly than its rate", id);
}
