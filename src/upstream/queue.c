/* The queue: requests for which no backend has a place, first come, first served. Whoever leaves a place
 * or waits no longer, and every change of what is available, has it looked at once more in this turn. */
#include "base/metrics.h"
#include "upstream/backend.h"

static void dequeue(struct waiter *w)
{
    struct upstream *u = w->upstream;
    list_remove(&w->link);
    loop_cancel(u->loop, &w->deadline);
    w->upstream = NULL;
    u->waiting--;
    u->waiting_fresh -= w->pick->tried_count == 0;
}

/* It waits no longer, unserved: it may have held up some behind it who take what it did not. */
static void give_up(struct waiter *w)
{
    struct upstream *u = w->upstream;
    dequeue(w);
    queue_look(u);
}

static void serve(struct posted *p);

/* Who waits for a place that has been left in this turn, or behind others for one, had it in time. */
static void on_deadline(struct timer *t)
{
    struct waiter *w = container_of(t, struct waiter, deadline);
    struct upstream *u = w->upstream;
    if (!list_empty(&u->serve.link)) {
        loop_unpost(u->loop, &u->serve);
        serve(&u->serve);
        if (list_empty(&w->link)) /* it has been served */
            return;
    }
    give_up(w);
    metrics.queue_timeouts++;
    w->fn(w, NULL, ERR_QUEUE_TIMEOUT);
}

void waiter_init(struct waiter *w, const struct pick *p, waiter_fn *fn)
{
    list_init(&w->link);
    timer_init(&w->deadline, on_deadline);
    w->upstream = NULL;
    w->pick = p;
    w->fn = fn;
}

/* Those who have tried some backends already wait for others than the rest do: they do not hold it up. */
static void serve(struct posted *p)
{
    struct upstream *u = container_of(p, struct upstream, serve);
    LIST_EACH (it, &u->queue) {
        struct waiter *w = container_of(it, struct waiter, link);
        bool full = false;
        struct backend *be = upstream_choose(u, w->pick, &w->place, &full);
        if (!be && full && w->pick->tried_count == 0)
            return;
        if (!be && full)
            continue;
        dequeue(w);
        w->fn(w, be, ERR_NO_BACKEND);
    }
}

void queue_init(struct upstream *u)
{
    list_init(&u->queue);
    posted_init(&u->serve, serve);
}

void queue_fini(struct upstream *u)
{
    loop_unpost(u->loop, &u->serve);
}

void queue_look(struct upstream *u)
{
    if (u->waiting > 0)
        loop_post(u->loop, &u->serve);
}

bool upstream_wait(struct upstream *u, struct waiter *w)
{
    uint64_t timeout = u->config->queue.timeout;
    if (u->waiting >= u->config->queue.size || !loop_arm(u->loop, &w->deadline, loop_now(u->loop) + timeout)) {
        metrics.queue_full++;
        return false;
    }
    w->upstream = u;
    list_push_back(&u->queue, &w->link);
    u->waiting++;
    u->waiting_fresh += w->pick->tried_count == 0;
    w->since = loop_now(u->loop);
    metrics.queued++;
    queue_look(u); /* it may be waiting behind others for what is free already */
    return true;
}

void upstream_unwait(struct waiter *w)
{
    if (w->upstream)
        give_up(w);
}

unsigned upstream_waiting(const struct upstream *u)
{
    return u->waiting;
}
