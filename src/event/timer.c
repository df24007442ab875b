/* The timer heap, a binary one ordered by `key`.
 * A timer that was put off keeps its key until it comes up, and only then moves to its deadline. */
#include "event/timer.h"

#include <stdlib.h>

#define HEAP_FIRST 64u

void timer_init(struct timer *t, timer_fn *fire)
{
    *t = (struct timer){.index = TIMER_UNARMED, .fire = fire};
}

void timer_heap_init(struct timer_heap *h)
{
    *h = (struct timer_heap){0};
}

void timer_heap_fini(struct timer_heap *h)
{
    for (size_t i = 0; i < h->count; i++)
        h->slots[i]->index = TIMER_UNARMED;
    free(h->slots);
    *h = (struct timer_heap){0};
}

static void place(struct timer_heap *h, struct timer *t, size_t i)
{
    h->slots[i] = t;
    t->index = i;
}

/* Both sifts take `t` as standing at t->index, whose slot they may overwrite, and leave it in its right place. */
static void sift_up(struct timer_heap *h, struct timer *t)
{
    size_t i = t->index;

    while (i > 0) {
        struct timer *parent = h->slots[(i - 1) / 2];
        if (parent->key <= t->key)
            break;
        place(h, parent, i);
        i = (i - 1) / 2;
    }
    place(h, t, i);
}

static void sift_down(struct timer_heap *h, struct timer *t)
{
    size_t i = t->index, child;

    while ((child = 2 * i + 1) < h->count) {
        if (child + 1 < h->count && h->slots[child + 1]->key < h->slots[child]->key)
            child++;
        if (t->key <= h->slots[child]->key)
            break;
        place(h, h->slots[child], i);
        i = child;
    }
    place(h, t, i);
}

static bool grow_to(struct timer_heap *h, size_t cap)
{
    struct timer **slots = reallocarray(h->slots, cap, sizeof(struct timer *));

    if (!slots)
        return false;
    h->slots = slots;
    h->cap = cap;
    return true;
}

static bool grow(struct timer_heap *h)
{
    return grow_to(h, h->cap ? 2 * h->cap : HEAP_FIRST);
}

bool timer_heap_reserve(struct timer_heap *h, size_t n)
{
    return h->cap - h->count >= n || grow_to(h, h->count + n);
}

static void move_armed(struct timer_heap *h, struct timer *t, uint64_t deadline)
{
    t->deadline = deadline;
    if (deadline >= t->key)
        return;
    t->key = deadline;
    sift_up(h, t);
}

bool timer_heap_arm(struct timer_heap *h, struct timer *t, uint64_t deadline)
{
    if (timer_armed(t)) {
        move_armed(h, t, deadline);
        return true;
    }
    if (h->count == h->cap && !grow(h))
        return false;
    t->deadline = t->key = deadline;
    t->index = h->count++;
    sift_up(h, t);
    return true;
}

void timer_heap_cancel(struct timer_heap *h, struct timer *t)
{
    size_t hole = t->index;

    if (!timer_armed(t))
        return;
    t->index = TIMER_UNARMED;
    struct timer *last = h->slots[--h->count];
    if (last == t)
        return;
    /* The last one comes from another branch: it may belong above the hole as well as below. */
    place(h, last, hole);
    sift_up(h, last);
    sift_down(h, last);
}

uint64_t timer_heap_next(const struct timer_heap *h)
{
    return h->count ? h->slots[0]->key : TIMER_NEVER;
}

struct timer *timer_heap_pop_due(struct timer_heap *h, uint64_t now)
{
    while (h->count && h->slots[0]->key <= now) {
        struct timer *t = h->slots[0];
        if (t->key == t->deadline) {
            timer_heap_cancel(h, t);
            return t;
        }
        t->key = t->deadline;
        sift_down(h, t);
    }
    return NULL;
}
