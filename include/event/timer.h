/* Timers: intrusive, in a binary heap. A timer that moves later while armed costs nothing: it stays where it is and is
 * moved when it comes up early. Pure data structure: the loop owns the clock. */
#ifndef LB_EVENT_TIMER_H
#define LB_EVENT_TIMER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TIMER_NEVER UINT64_MAX

struct timer;
typedef void timer_fn(struct timer *t);

struct timer {
    uint64_t deadline; /* when it is due, monotonic ns; what the user asked for */
    uint64_t key;      /* where it stands in the heap: at most `deadline` */
    size_t index;      /* place in the heap, TIMER_UNARMED when it is in none */
    timer_fn *fire;
};

#define TIMER_UNARMED SIZE_MAX

struct timer_heap {
    struct timer **slots;
    size_t count, cap;
};

void timer_init(struct timer *t, timer_fn *fire);
static inline bool timer_armed(const struct timer *t)
{
    return t->index != TIMER_UNARMED;
}

void timer_heap_init(struct timer_heap *h);
/* Frees the heap; timers still in it become unarmed. */
void timer_heap_fini(struct timer_heap *h);

/* Arms `t` for `deadline`, or moves it there. False when there is no memory (only when it was not armed before): it
 * then stays unarmed. */
bool timer_heap_arm(struct timer_heap *h, struct timer *t, uint64_t deadline) __attribute__((warn_unused_result));

/* Makes room for `n` more timers than are armed: that many can be armed then without memory. */
bool timer_heap_reserve(struct timer_heap *h, size_t n) __attribute__((warn_unused_result));

/* Takes `t` out; harmless when it is not armed. */
void timer_heap_cancel(struct timer_heap *h, struct timer *t);

/* The next time at which the heap wants to be looked at, TIMER_NEVER when it is empty. */
uint64_t timer_heap_next(const struct timer_heap *h);

/* Takes out and returns a timer whose deadline is at most `now`, or NULL when there is none. Timers met early are moved
 * to their deadline. */
struct timer *timer_heap_pop_due(struct timer_heap *h, uint64_t now);

#endif
