/* A line of the log for many events: the timer runs from a line on, and what has been counted when it fires is the next
 * one. */
#include "event/notice.h"

static void say(struct notice *n)
{
    uint64_t count = n->count;
    n->count = 0;
    n->say(n, count);
    /* Without memory for the timer the next one is said at once. */
    (void)!loop_arm(n->loop, &n->timer, loop_now(n->loop) + n->interval);
}

void notice_flush(struct notice *n)
{
    if (n->count > 0)
        say(n);
}

static void on_timer(struct timer *t)
{
    notice_flush(container_of(t, struct notice, timer));
}

void notice_init(struct notice *n, struct loop *l, uint64_t interval, notice_fn *fn)
{
    n->loop = l;
    n->say = fn;
    n->interval = interval;
    n->count = 0;
    timer_init(&n->timer, on_timer);
}

void notice_count(struct notice *n)
{
    n->count++;
    if (!timer_armed(&n->timer))
        say(n);
}

void notice_fini(struct notice *n)
{
    if (n->loop)
        loop_cancel(n->loop, &n->timer);
}
