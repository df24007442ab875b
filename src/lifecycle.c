/* From the first SIGTERM to the end.
 *
 *   RUNNING --signal--> DRAINING --no connection left, or deadline, or second signal--> SAVING --saved, or deadline, or
 *                                                                                               third signal--> STOPPED
 *
 * A drain that an upgrade began was no signal's: the first that comes then changes nothing, and the next is the second.
 *
 * A second signal may come a millisecond behind the first without anybody's haste: a terminal sends Ctrl-C to all of
 * its processes, and whoever started the balancer may pass it on besides. So it costs no save. */
#include "lifecycle.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/metrics.h"
#include "net/io.h"
#include "notify.h"

#include <assert.h>

/* What the save may take, though timeouts.shutdown is over before; and from the second signal on. A disk that works
 * needs no more; what one that hangs leaves undone is in the journal and in the tokens' file. */
#define SAVE_PATIENCE (5 * NS_PER_S)
#define SAVE_IN_HASTE (1 * NS_PER_S)

#define LINGER_LOOK (5 * NS_PER_MS) /* how often it is looked whether closing connections have closed */

static void lifecycle_enter(struct lifecycle *lc, enum lifecycle_state to)
{
    static const uint8_t legal[] = {
        [LIFECYCLE_RUNNING] = 1 << LIFECYCLE_DRAINING,
        [LIFECYCLE_DRAINING] = 1 << LIFECYCLE_SAVING,
        [LIFECYCLE_SAVING] = 1 << LIFECYCLE_STOPPED,
        [LIFECYCLE_STOPPED] = 0,
    };
    assert(legal[lc->state] >> to & 1);
    (void)legal;
    lc->state = to;
}

static void log_counter(void *arg, const char *name, const char *help, uint64_t value)
{
    (void)arg, (void)help;
    if (value > 0)
        log_u64(name, value);
}

static void log_totals(void)
{
    log_begin(LOG_INFO, "totals");
    metrics_each(log_counter, NULL);
    log_end();
}

static void stopped(void *arg, bool saved)
{
    struct lifecycle *lc = arg;
    if (lc->state == LIFECYCLE_STOPPED)
        return;
    lifecycle_enter(lc, LIFECYCLE_STOPPED);
    loop_cancel(lc->loop, &lc->deadline);
    upstream_log_totals(lc->upstream);
    log_totals();
    size_t cut = lc->cut + lc->cut_sending;
    bool short_of_time = !lc->given_up && (cut > 0 || lc->save_cut);
    lc->status = short_of_time ? EXIT_CUT : saved ? EXIT_DONE : EXIT_RUNTIME;
    log_begin(lc->status == EXIT_DONE ? LOG_INFO : LOG_ERROR, "stop");
    /* Those of cut_sending were over, mostly before the drain began: they are none of these. */
    log_u64("finished", proxy_finished(lc->proxy) - lc->finished_before - lc->cut);
    log_u64("cut", cut);
    log_z("saved", saved ? "yes" : "no");
    log_ms("duration_ms", clock_monotonic() - lc->began);
    log_end();
    loop_stop(lc->loop);
}

static uint64_t save_deadline(const struct lifecycle *lc)
{
    uint64_t now = clock_monotonic(), whole = lc->began + lc->shutdown_timeout;
    if (lc->hurried)
        return now + SAVE_IN_HASTE;
    return whole > now + SAVE_PATIENCE ? whole : now + SAVE_PATIENCE;
}

static void save(struct lifecycle *lc)
{
    lifecycle_enter(lc, LIFECYCLE_SAVING);
    loop_cancel(lc->loop, &lc->linger);
    if (!lc->limiter) {
        stopped(lc, true);
        return;
    }
    /* Without memory for the timer a signal still ends it. */
    (void)!loop_arm(lc->loop, &lc->deadline, save_deadline(lc));
    limiter_stop(lc->limiter, stopped, lc);
}

static void cut_clients(struct lifecycle *lc)
{
    lc->cut += proxy_cut(lc->proxy);
    lc->cut_sending += io_end_lingering(lc->loop);
}

/* Nothing is waited for any longer, but that the clients are saved; and then not for that. */
static void cut_off(struct lifecycle *lc)
{
    if (lc->state == LIFECYCLE_DRAINING) {
        cut_clients(lc);
        save(lc);
    } else if (lc->state == LIFECYCLE_SAVING) {
        lc->save_cut = true;
        stopped(lc, false);
    }
}

static void hurry_save(struct lifecycle *lc)
{
    uint64_t by = clock_monotonic() + SAVE_IN_HASTE;
    if ((!timer_armed(&lc->deadline) || by < lc->deadline.deadline) && !loop_arm(lc->loop, &lc->deadline, by))
        cut_off(lc);
}

static void on_deadline(struct timer *t)
{
    cut_off(container_of(t, struct lifecycle, deadline));
}

/* Closed connections may still be bringing their last response to the client, and the process before may have requests
 * under way, which it would lose where the service manager ends what is left behind this one's end. */
static void wait_for_linger(struct lifecycle *lc)
{
    if (proxy_connections(lc->proxy) > 0)
        return; /* taken over meanwhile: drained() is told again */
    if (io_lingering(lc->loop) == 0 && !lc->follows)
        save(lc);
    else if (!loop_arm(lc->loop, &lc->linger, loop_now(lc->loop) + LINGER_LOOK))
        cut_off(lc);
}

static void on_linger(struct timer *t)
{
    wait_for_linger(container_of(t, struct lifecycle, linger));
}

static void drained(void *arg)
{
    struct lifecycle *lc = arg;
    if (lc->state == LIFECYCLE_DRAINING)
        wait_for_linger(lc);
}

static void begin_drain(struct lifecycle *lc)
{
    lifecycle_enter(lc, LIFECYCLE_DRAINING);
    lc->began = clock_monotonic(); /* a turn that has taken long is not the clients' loss */
    lc->finished_before = proxy_finished(lc->proxy);
}

static void log_drain(const struct lifecycle *lc, const char *signal_name)
{
    log_begin(LOG_INFO, "drain");
    log_z("signal", signal_name);
    log_u64("connections", proxy_connections(lc->proxy));
    log_u64("exchanges", proxy_exchanges(lc->proxy));
    log_end();
}

static void arm_deadline(struct lifecycle *lc)
{
    if (!loop_arm(lc->loop, &lc->deadline, lc->began + lc->shutdown_timeout))
        cut_off(lc);
}

void lifecycle_close_before(struct lifecycle *lc)
{
    struct listener *before = lc->before;
    lc->before = NULL;
    listener_close(before);
}

static void drain(struct lifecycle *lc, const char *signal_name)
{
    begin_drain(lc);
    lifecycle_close_before(lc);
    listener_close(lc->listener); /* what waits in its backlog is still accepted */
    lc->listener = NULL;
    log_drain(lc, signal_name);
    notify_stopping();
    proxy_drain(lc->proxy, drained, lc);
    arm_deadline(lc);
}

void lifecycle_init(struct lifecycle *lc)
{
    lc->state = LIFECYCLE_RUNNING;
    timer_init(&lc->deadline, on_deadline);
    timer_init(&lc->linger, on_linger);
    lc->cut = lc->cut_sending = 0;
    lc->follows = lc->asked = lc->hurried = lc->save_cut = lc->given_up = false;
}

void lifecycle_listen(struct lifecycle *lc, struct listener *fresh)
{
    char text[ADDR_TEXT_SIZE];
    struct listener *before = lc->listener;
    lc->listener = fresh;
    listener_set_spare(fresh, upstream_spare, lc->upstream);
    log_begin(LOG_INFO, "listening");
    log_str("address", str_make(text, addr_format(listener_addr(fresh), text)));
    log_end();
    listener_close(before);
}

void lifecycle_hand_over(struct lifecycle *lc, proxy_pass_fn *pass, void *arg)
{
    begin_drain(lc);
    listener_leave(lc->listener);
    lc->listener = NULL;
    lc->limiter = NULL;
    log_drain(lc, "SIGUSR2");
    proxy_pass_on(lc->proxy, pass, arg, drained, lc);
    arm_deadline(lc);
}

void lifecycle_pass_more(struct lifecycle *lc, proxy_pass_fn *pass, void *arg)
{
    if (lc->state == LIFECYCLE_DRAINING)
        proxy_pass_on(lc->proxy, pass, arg, drained, lc);
}

void lifecycle_give_up(struct lifecycle *lc)
{
    begin_drain(lc);
    lc->given_up = true;
    listener_leave(lc->listener);
    lc->listener = NULL;
    cut_clients(lc);
    lifecycle_enter(lc, LIFECYCLE_SAVING);
    stopped(lc, false);
}

void lifecycle_stop(struct lifecycle *lc, const char *name)
{
    bool saving = lc->state == LIFECYCLE_SAVING, first = !lc->asked, third = lc->hurried;
    lc->asked = true;
    lc->hurried = !first;
    if (lc->state == LIFECYCLE_RUNNING)
        drain(lc, name);
    else if (first && lc->state == LIFECYCLE_DRAINING)
        log_drain(lc, name); /* it is under way, behind an upgrade */
    else if (saving && !third)
        hurry_save(lc);
    else
        cut_off(lc);
}
