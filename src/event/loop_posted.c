/* What a turn of the loop does behind the handlers and timers, on an empty stack: posted callbacks, hooks, and freeing
 * what has died. */
#include "loop_impl.h"

void posted_init(struct posted *p, posted_fn *run)
{
    list_init(&p->link);
    p->run = run;
}

void loop_post(struct loop *l, struct posted *p)
{
    if (list_empty(&p->link))
        list_push_back(&l->posted, &p->link);
}

void loop_unpost(struct loop *l, struct posted *p)
{
    (void)l;
    list_remove(&p->link);
}

void loop_run_posted(struct loop *l)
{
    struct list batch, *e;

    list_init(&batch);
    list_splice_back(&batch, &l->posted);
    while ((e = list_pop_front(&batch))) {
        struct posted *p = container_of(e, struct posted, link);
        p->run(p);
        loop_return_lent(l);
    }
}

void loop_stage(struct loop *l, struct posted *p)
{
    list_remove(&p->link);
    list_push_back(&l->staged, &p->link);
}

static void run_pass(struct loop *l)
{
    struct list batch, *e;

    list_init(&batch);
    list_splice_back(&batch, &l->staged);
    while ((e = list_pop_front(&batch))) {
        struct posted *p = container_of(e, struct posted, link);
        p->run(p);
    }
    l->lent = 0;
}

void loop_run_stages(struct loop *l)
{
    for (int i = 0; i < LOOP_PASSES && (!list_empty(&l->staged) || l->lent > 0); i++)
        run_pass(l);
}

void loop_add_hook(struct loop *l, struct loop_hook *h, loop_hook_fn *run)
{
    h->run = run;
    list_push_back(&l->hooks, &h->link);
}

void loop_remove_hook(struct loop *l, struct loop_hook *h)
{
    (void)l;
    list_remove(&h->link);
}

void loop_run_hooks(struct loop *l)
{
    LIST_EACH (it, &l->hooks) {
        struct loop_hook *h = container_of(it, struct loop_hook, link);
        h->run(h);
    }
}

void loop_reclaim(struct loop *l, struct dead *d, dead_fn *reclaim)
{
    d->reclaim = reclaim;
    list_push_back(&l->dead, &d->link);
}

void loop_reclaim_dead(struct loop *l)
{
    struct list *e;

    while ((e = list_pop_front(&l->dead))) {
        struct dead *d = container_of(e, struct dead, link);
        d->reclaim(d);
    }
}
