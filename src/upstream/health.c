/* Active health checks. One struct a backend: a timer for the next probe, the probe's connection, and for a name the
 * job that resolves it; each probe runs   (resolve) -> connect -> GET -> status -> count.   */
#include "upstream/health.h"

#include "base/clock.h"
#include "base/mem.h"
#include "base/metrics.h"
#include "http/target.h"
#include "http/write.h"
#include "upstream/back_h1.h"
#include "upstream/resolve.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

void health_score_init(struct health_score *s, unsigned fall, unsigned rise, bool up)
{
    *s = (struct health_score){.value = up ? rise + fall - 1 : 0, .fall = fall, .rise = rise};
}

bool health_score_count(struct health_score *s, bool success)
{
    unsigned top = s->rise + s->fall - 1;
    if (success) {
        if (s->value < top)
            s->value++;
        if (s->value >= s->rise)
            s->value = top;
    } else {
        if (s->value > s->rise && s->probed)
            s->value--;
        else
            s->value = 0;
    }
    s->probed = true;
    return s->value >= s->rise;
}

void health_score_change(struct health_score *s, unsigned fall, unsigned rise)
{
    unsigned failures = s->rise + s->fall - 1 - s->value; /* of one that is up */
    if (s->value >= s->rise)
        s->value = rise + (failures < fall ? fall - 1 - failures : 0);
    else if (s->value >= rise)
        s->value = rise - 1;
    s->fall = fall;
    s->rise = rise;
}

void health_score_set(struct health_score *s, bool up, unsigned in_a_row)
{
    unsigned most = up ? s->fall - 1 : s->rise - 1;
    unsigned n = in_a_row < most ? in_a_row : most;
    s->value = up ? s->rise + s->fall - 1 - n : n;
    s->probed = true;
}

struct health_check {
    struct backend *backend;
    struct timer timer;    /* the next probe */
    struct timer deadline; /* of the one under way */
    uint64_t begun;        /* when that began */
    struct health_score score;
    struct back_conn *conn;
    struct resolve *resolving;
    bool again;                /* the last probe could not be made for want of something of ours */
    bool seen_address;         /* the name has resolved before */
    unsigned unknown_in_a_row; /* answers that there is no such name, since it has */
    char cause[96];            /* what the last one has found */
    char request[2048];
    size_t request_len;
};

static struct loop *loop_of(const struct health_check *h)
{
    return h->backend->upstream->loop;
}

static const struct config *config_of(const struct health_check *h)
{
    return h->backend->snapshot;
}

/* From one check to the next. A backend that has been down for long is asked less often, so that what is wrong with it
 * is found out a tenth of that time late at most; not while it shows signs of recovery, nor while clients wait for
 * anyone to come back. A little less than that by chance, lest all balancers in front of a backend ask it at once. */
static uint64_t pause_of(const struct health_check *h)
{
    const struct backend *be = h->backend;
    uint64_t interval = config_of(h)->health.interval, pause = interval;
    if (!be->up && be->announced && h->score.value == 0 && upstream_has_available(be->upstream)) {
        uint64_t down = loop_now(loop_of(h)) - be->since;
        pause = down / HEALTH_BACKOFF_SHARE > interval ? down / HEALTH_BACKOFF_SHARE : interval;
        pause = pause < HEALTH_BACKOFF_MAX * interval ? pause : HEALTH_BACKOFF_MAX * interval;
    }
    return pause - pause / 1000 * upstream_random(be->upstream, HEALTH_JITTER);
}

static void schedule_at(struct health_check *h, uint64_t when)
{
    if (!loop_arm(loop_of(h), &h->timer, when))
        backend_set_up(h->backend, false, "out of memory: checks have ended");
}

/* Counted from the begin of the last one, so that a backend that hangs is found out as soon as one that refuses. */
static uint64_t next_of(const struct health_check *h)
{
    uint64_t interval = config_of(h)->health.on ? pause_of(h) : HEALTH_RESOLVE_INTERVAL;
    uint64_t now = loop_now(loop_of(h));
    return h->begun + interval > now ? h->begun + interval : now;
}

static void schedule(struct health_check *h)
{
    h->again = false;
    schedule_at(h, next_of(h));
}

void health_hurry(struct backend *be)
{
    struct health_check *h = be->health;
    if (!h || h->conn || h->again || !be->snapshot->health.on || !timer_armed(&h->timer))
        return;
    if (h->timer.deadline <= loop_now(loop_of(h)))
        return; /* due already: it is not to be put off */
    loop_cancel(loop_of(h), &h->timer);
    schedule(h);
}

/* ---- the end of a probe ---- */

static void drop_probe(struct health_check *h)
{
    loop_cancel(loop_of(h), &h->deadline);
    back_release(h->conn);
    h->conn = NULL;
}

static void probe_ended(struct health_check *h, bool success, const char *cause)
{
    drop_probe(h);
    if (success)
        passive_heard(h->backend);
    else
        metrics.health_failures++;
    if (cause != h->cause)
        snprintf(h->cause, sizeof h->cause, "%s", cause);
    backend_set_up(h->backend, health_score_count(&h->score, success), h->cause);
    schedule(h);
}

/* For want of memory or descriptors of our own: it says nothing about the backend, and so is made up for soon; not by
 * all backends' at once, for they have failed together, perhaps. */
static void probe_failed_here(struct health_check *h)
{
    uint64_t pause = config_of(h)->health.interval / HEALTH_AGAIN_SHARE;
    pause = pause < HEALTH_AGAIN_MAX ? pause : HEALTH_AGAIN_MAX;
    drop_probe(h);
    h->again = true;
    schedule_at(h, loop_now(loop_of(h)) + pause - pause / 1000 * upstream_random(h->backend->upstream, 500));
}

static void on_head(void *arg, const struct response *r, struct str head, bool more)
{
    (void)head;
    (void)more;
    struct health_check *h = arg;
    snprintf(h->cause, sizeof h->cause, "status %u", r->status);
    probe_ended(h, config_status_expected(config_of(h), r->status), h->cause);
}

static void on_fail(void *arg, const struct back_failure *f)
{
    struct health_check *h = arg;
    h->conn = NULL; /* gone already */
    if (back_error_is_ours(h->backend, f->sys_errno))
        probe_failed_here(h);
    else
        probe_ended(h, false, f->cause);
}

static void on_deadline(struct timer *t)
{
    struct health_check *h = container_of(t, struct health_check, deadline);
    uint64_t ms = config_of(h)->health.timeout / NS_PER_MS;
    bool whole = ms % 1000 == 0;
    snprintf(h->cause, sizeof h->cause, "timeout after %llu%s", (unsigned long long)(whole ? ms / 1000 : ms),
             whole ? "s" : "ms");
    probe_ended(h, false, h->cause);
}

/* ---- its begin ---- */

static void on_ready(void *arg)
{
    struct health_check *h = arg;
    struct back_request r = {
        .head = str_make(h->request, h->request_len), .method = METHOD_GET, .framing = {FRAMING_NONE, 0}};
    back_send_head(h->conn, &r, false);
}

static void on_interim(void *arg, const struct response *r)
{
    (void)arg;
    (void)r;
}

static void on_body(void *arg, char *p, size_t n, bool end, struct str trailers)
{
    (void)arg;
    (void)p;
    (void)n;
    (void)trailers;
    (void)end; /* never told: the connection is released at the head */
}

static void on_drained(void *arg)
{
    (void)arg;
}

static const struct back_events probe_events = {.on_ready = on_ready,
                                                .on_interim = on_interim,
                                                .on_head = on_head,
                                                .on_body = on_body,
                                                .on_drained = on_drained,
                                                .on_fail = on_fail,
                                                .yields = true};

static void probe(struct health_check *h)
{
    if (h->conn)
        return; /* a reload wants one at once, and the first answer about the name has just let one go out */
    if (!config_of(h)->health.on) {
        schedule(h);
        return;
    }
    metrics.health_probes++;
    uint64_t timeout = config_of(h)->health.timeout;
    h->conn = back_open(h->backend, timeout, &probe_events, h);
    if (!h->conn) {
        if (back_error_is_ours(h->backend, errno))
            probe_failed_here(h);
        else
            probe_ended(h, false, back_error_text(errno));
        return;
    }
    if (!loop_arm(loop_of(h), &h->deadline, loop_now(loop_of(h)) + timeout))
        probe_failed_here(h);
}

/* ---- names ---- */

static void take_addresses(struct health_check *h, const struct addr *told, int count)
{
    struct backend *be = h->backend;
    backend_take_addresses(be, told, count);
    if (h->seen_address && config_of(h)->health.on)
        return; /* the probe that follows counts */
    /* Known for the first time: it begins like one that was given by address. Without checks, an address is all there
     * is to know. */
    h->seen_address = true;
    health_score_init(&h->score, config_of(h)->health.fall, config_of(h)->health.rise, true);
    snprintf(h->cause, sizeof h->cause, "name resolved");
    backend_set_up(be, true, h->cause);
}

static void not_resolved(struct health_check *h, const char *why)
{
    snprintf(h->cause, sizeof h->cause, "name does not resolve: %s", why);
    backend_set_up(h->backend, false, h->cause);
    schedule(h);
}

/* Whoever has taken it away wants nothing to be sent there any more, be the server there or not. */
static void name_is_gone(struct health_check *h, const char *why)
{
    drop_probe(h);
    backend_drop_addresses(h->backend);
    health_score_set(&h->score, false, 0);
    not_resolved(h, why);
}

static void on_resolved(void *arg, const struct resolve *r)
{
    struct health_check *h = arg;
    bool first = h->backend->addr_count == 0;
    h->resolving = NULL;
    h->backend->unheard = resolve_is_unheard(r);
    if (r->count > 0) {
        h->unknown_in_a_row = 0;
        take_addresses(h, r->addrs, r->count);
        if (first)
            probe(h);
    } else if (first) {
        not_resolved(h, r->why);
    } else if (resolve_says_no_such_name(r) && ++h->unknown_in_a_row >= config_of(h)->health.fall) {
        name_is_gone(h, r->why);
    }
    /* Else the addresses of before stand, and the probes tell whether it does. */
}

static bool resolve(struct health_check *h)
{
    struct backend *be = h->backend;
    h->resolving = resolve_begin(be->upstream->names, &be->config->endpoint, be->unheard, on_resolved, h);
    return h->resolving != NULL;
}

static void on_timer(struct timer *t)
{
    struct health_check *h = container_of(t, struct health_check, timer);
    h->begun = loop_now(loop_of(h));
    bool named = h->backend->config->endpoint.kind == ENDPOINT_NAME;
    bool asked = h->again && h->backend->addr_count > 0; /* the last time, which was just now */
    bool asking = !named || asked || h->resolving || resolve(h);
    h->again = false;
    /* A probe does not wait for the name: its name server may be slow, or others' that hold the threads for names. */
    if (h->backend->addr_count > 0)
        probe(h);
    else if (!asking)
        schedule(h);
}

/* ---- start and stop ---- */

/* Its name, if that can be a host's. */
static struct str host_of(const struct health_check *h)
{
    const struct config_backend *b = h->backend->config;
    if (config_of(h)->health.host)
        return str_of(config_of(h)->health.host);
    if (host_is_valid(str_of(b->name)))
        return str_of(b->name);
    return b->endpoint.kind == ENDPOINT_UNIX ? STR("localhost") : str_of(b->address);
}

static void write_request(struct health_check *h)
{
    struct head_writer w = head_writer_on(h->request, sizeof h->request);
    write_request_line(&w, STR("GET"), str_of(config_of(h)->health.path));
    write_field(&w, STR("Host"), host_of(h));
    write_field(&w, STR("User-Agent"), STR("loadbalancer/" LB_VERSION " (health check)"));
    write_field(&w, STR("Connection"), STR("close"));
    write_end(&w);
    assert(!w.full); /* the config bounds its path and its host to less */
    h->request_len = w.n;
}

static bool is_needed(const struct config *config, const struct config_backend *b)
{
    return config->health.on || b->endpoint.kind == ENDPOINT_NAME;
}

static struct health_check *check_new(struct backend *be)
{
    struct health_check *h = mem_try_alloc(sizeof *h);
    if (!h)
        return NULL;
    h->backend = be;
    h->seen_address = be->addr_count > 0;
    snprintf(h->cause, sizeof h->cause, "not checked yet");
    timer_init(&h->timer, on_timer);
    timer_init(&h->deadline, on_deadline);
    return h;
}

/* As the snapshot has it. */
static void prepare(struct health_check *h, bool up)
{
    const struct config *config = config_of(h);
    health_score_init(&h->score, config->health.fall, config->health.rise, up);
    if (config->health.on)
        write_request(h);
}

bool health_start(struct backend *be)
{
    if (!is_needed(be->snapshot, be->config))
        return true;
    struct health_check *h = check_new(be);
    if (!h)
        return false;
    be->health = h;
    prepare(h, be->up);
    return loop_arm(be->upstream->loop, &h->timer, loop_now(be->upstream->loop));
}

/* ---- a reload ---- */

bool health_stage(struct backend *be, const struct config *fresh, struct health_check **staged)
{
    *staged = NULL;
    if (be->health || !is_needed(fresh, be->config))
        return true;
    *staged = check_new(be);
    return *staged != NULL;
}

void health_discard(struct health_check *staged)
{
    mem_free(staged);
}

/* The next probe is due at once. There is room for its timer: whoever reloads has made it. */
static void probe_soon(struct health_check *h)
{
    h->begun = loop_now(loop_of(h));
    if (!loop_arm(loop_of(h), &h->timer, h->begun))
        schedule(h);
}

static void switch_off(struct backend *be)
{
    struct health_check *h = be->health;
    if (is_needed(be->snapshot, be->config)) {
        drop_probe(h);
        schedule(h);
    } else {
        health_stop(be);
    }
    if (be->addr_count > 0)
        backend_set_up(be, true, "health checks are off");
}

static bool asks_the_same(const struct config *a, const struct config *b)
{
    bool host = str_eq(str_of(a->health.host ? a->health.host : ""), str_of(b->health.host ? b->health.host : ""));
    return host && strcmp(a->health.path, b->health.path) == 0 &&
           memcmp(a->health.expect, b->health.expect, sizeof a->health.expect) == 0;
}

static void switch_over(struct health_check *h, const struct config *old)
{
    const struct config *config = config_of(h);
    health_score_change(&h->score, config->health.fall, config->health.rise);
    write_request(h);
    if (!asks_the_same(old, config)) {
        drop_probe(h); /* what was asked before says nothing about what is asked now */
        probe_soon(h);
    } else if (!h->conn && timer_armed(&h->timer) && old->health.interval != config->health.interval) {
        loop_cancel(loop_of(h), &h->timer);
        schedule(h);
    }
}

void health_change(struct backend *be, const struct config *old, struct health_check *staged)
{
    bool on = be->snapshot->health.on, was_on = old->health.on;
    if (staged)
        be->health = staged;
    if (!be->health)
        return;
    if (on && was_on) {
        switch_over(be->health, old);
    } else if (on) {
        prepare(be->health, be->up);
        probe_soon(be->health);
    } else if (was_on) {
        switch_off(be);
    }
}

/* ---- an upgrade ---- */

bool health_tell(const struct backend *be, struct health_known *out)
{
    const struct health_check *h = be->health;
    if (!h || !config_of(h)->health.on)
        return false;
    const struct health_score *s = &h->score;
    *out = (struct health_known){.up = be->up, .in_a_row = be->up ? s->rise + s->fall - 1 - s->value : s->value};
    return be->announced;
}

void health_take_addresses(struct backend *be, const struct addr *told, int count)
{
    struct health_check *h = be->health;
    if (!h || be->addr_count > 0)
        return; /* what has been found out here is newer */
    take_addresses(h, told, count);
    probe_soon(h);
}

void health_take(struct backend *be, const struct health_known *k)
{
    struct health_check *h = be->health;
    if (!h || !config_of(h)->health.on || (be->addr_count == 0 && k->up))
        return; /* up it is when its name has resolved */
    bool up = k->up, probed = h->score.probed, passed = h->score.value >= h->score.rise;
    health_score_set(&h->score, k->up, k->in_a_row);
    h->seen_address = true;
    if (probed)
        up = health_score_count(&h->score, passed);
    backend_set_up(be, up, h->cause);
}

const char *health_cause(const struct backend *be)
{
    return be->health ? be->health->cause : "health checks are off";
}

void health_stop(struct backend *be)
{
    struct health_check *h = be->health;
    if (!h)
        return;
    be->health = NULL;
    loop_cancel(be->upstream->loop, &h->timer);
    loop_cancel(be->upstream->loop, &h->deadline);
    back_release(h->conn);
    resolve_forget(h->resolving);
    mem_free(h);
}
