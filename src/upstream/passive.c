/* Passive checks: a backend at which real requests fail one after another is ejected for a while, long before `fall`
 * probes have failed.
 *
 *   failure, failure, ... (`failures` in a row) -> ejected for `ejection` -> back, on trial: one request at a time,
 * until one is answered; one failure -> ejected for twice as long, one success -> as if nothing had been
 *
 * A request that goes to an ejected one, because all that are available have failed it or none is, is a trial ahead of
 * time: its answer ends the ejection. Its failure changes nothing, lest retries make ejections longer.
 * A success is a whole response, or one whose client has left. */
#include "base/clock.h"
#include "base/log.h"
#include "base/metrics.h"
#include "upstream/backend.h"

#include <stdio.h>

static const struct config *config_of(const struct backend *be)
{
    return be->snapshot;
}

/* It is over, and one failure brings the next one. */
static void end_ejection(struct backend *be, bool on_trial, const char *cause)
{
    loop_cancel(be->upstream->loop, &be->passive.timer);
    be->ejected = false;
    be->passive.on_trial = on_trial;
    be->passive.in_a_row = config_of(be)->passive.failures - 1;
    backend_update(be, cause);
}

static void on_ejection_over(struct timer *t)
{
    end_ejection(container_of(t, struct backend, passive.timer), true, "ejection over, on trial");
}

void passive_init(struct backend *be)
{
    timer_init(&be->passive.timer, on_ejection_over);
}

void passive_fini(struct backend *be)
{
    loop_cancel(be->upstream->loop, &be->passive.timer);
}

/* More than one at a time may go there again: those who wait, perhaps, though nobody has left a place. */
static void end_trial(struct backend *be)
{
    if (!be->passive.on_trial)
        return;
    be->passive.on_trial = false;
    queue_look(be->upstream);
}

static void forgive(struct backend *be)
{
    be->passive.in_a_row = 0;
    be->passive.ejection = 0;
    end_trial(be);
}

void passive_change(struct backend *be)
{
    struct passive_check *p = &be->passive;
    const struct config *config = config_of(be);
    if (p->on_trial)
        p->in_a_row = config->passive.failures - 1;
    if (config->passive.on)
        return; /* an ejection that has begun ends when it was to end */
    passive_fini(be);
    forgive(be);
    if (be->ejected) {
        be->ejected = false;
        backend_update(be, "passive checks are off");
    }
}

bool passive_tell(const struct backend *be, struct passive_known *out)
{
    const struct passive_check *p = &be->passive;
    uint64_t now = loop_now(be->upstream->loop), end = be->ejected ? p->timer.deadline : now;
    *out = (struct passive_known){
        .in_a_row = p->in_a_row, .on_trial = p->on_trial, .ejection = p->ejection, .left = end > now ? end - now : 0};
    return config_of(be)->passive.on;
}

void passive_take(struct backend *be, const struct passive_known *k, bool ejected)
{
    struct passive_check *p = &be->passive;
    const struct config *config = config_of(be);
    uint64_t longest = config->passive.max_ejection, left = k->left < longest ? k->left : longest;
    if (!config->passive.on)
        return;
    p->ejection = k->ejection < longest ? k->ejection : longest;
    p->on_trial = k->on_trial && !ejected;
    p->in_a_row = k->in_a_row < config->passive.failures && !p->on_trial ? k->in_a_row : config->passive.failures - 1;
    if (!ejected || !loop_arm(be->upstream->loop, &p->timer, loop_now(be->upstream->loop) + left))
        return; /* without an end, no ejection */
    be->ejected = true;
    backend_update(be, "ejected before the upgrade");
}

static bool is_last(const struct backend *be)
{
    const struct upstream *u = be->upstream;
    for (unsigned i = 0; i < u->count; i++)
        if (u->backends[i] != be && u->backends[i]->available)
            return false;
    return true;
}

static void eject(struct backend *be, const char *cause)
{
    struct passive_check *p = &be->passive;
    uint64_t longest = config_of(be)->passive.max_ejection;
    uint64_t ejection = p->ejection ? 2 * p->ejection : config_of(be)->passive.ejection;
    ejection = ejection < longest ? ejection : longest;
    if (!loop_arm(be->upstream->loop, &p->timer, loop_now(be->upstream->loop) + ejection))
        return; /* without an end, no ejection */
    p->ejection = ejection;
    be->ejected = true;
    p->on_trial = false;
    p->trials = 0;
    p->epoch++;
    metrics.ejections++;
    char text[160];
    snprintf(text, sizeof text, "ejected for %llu ms: %s", (unsigned long long)(ejection / NS_PER_MS), cause);
    backend_update(be, text);
}

/* Requests that began before an ejection say nothing about what is after it. */
static bool is_of_the_past(const struct backend *be, const struct place *p)
{
    return p->epoch != be->passive.epoch || be->removed;
}

void passive_place(struct backend *be, struct place *p)
{
    *p = (struct place){
        .epoch = be->passive.epoch, .answers = be->passive.answers, .on_trial = be->passive.on_trial || be->ejected};
    be->passive.trials += p->on_trial;
    if (p->on_trial)
        be->passive.trial_at = loop_now(be->upstream->loop);
}

void passive_leave(struct backend *be, const struct place *p)
{
    if (p->on_trial && p->epoch == be->passive.epoch)
        be->passive.trials--;
}

void passive_heard(struct backend *be)
{
    be->passive.answers++;
}

bool backend_has_answered_since(const struct backend *be, const struct place *p)
{
    return be->passive.answers != p->answers;
}

void backend_answered(struct backend *be, const struct place *p)
{
    passive_heard(be);
    if (is_of_the_past(be, p))
        return;
    if (be->ejected)
        end_ejection(be, false, "answered while ejected");
    end_trial(be);
}

void backend_succeeded(struct backend *be, const struct place *p)
{
    backend_answered(be, p); /* a 101 has not been told as that */
    if (!is_of_the_past(be, p))
        forgive(be);
}

void backend_failed(struct backend *be, const struct place *p, const char *cause)
{
    backend_count_failure(be);
    if (!config_of(be)->passive.on || is_of_the_past(be, p) || be->ejected)
        return;
    if (be->passive.in_a_row < config_of(be)->passive.failures)
        be->passive.in_a_row++;
    if (be->passive.in_a_row >= config_of(be)->passive.failures && be->available && !is_last(be))
        eject(be, cause);
}
