/* Inside of the loop, shared by loop.c (descriptors, timers, the turn) and loop_posted.c (what a turn does last). */
#ifndef LB_EVENT_LOOP_IMPL_H
#define LB_EVENT_LOOP_IMPL_H

#include "event/loop.h"

#include <sys/epoll.h>

#define BATCH_SHARE   4    /* times loop_batch: events that a turn fetches of preferred watches, or without a backlog */
#define BACKLOG_TURNS 8    /* so many full batches one behind the other are a backlog */
#define SOON          1024 /* watches that wait to be registered */
#define HELD          4    /* turns that were held up and are remembered */

/* So long behind the last of them it counts as one still: watches are not moved to and fro by every pause. */
#define BACKLOG_FOR (100ull * 1000 * 1000) /* ns */

/* Of the timerfd alone, beside LOOP_READ: told once each time it expires. Else it would keep the place in epoll's queue
 * that it had when it was told of last, before others that were ready earlier. */
#define EDGE 0x80

#define HELD_FOR (60ull * 1000 * 1000 * 1000) /* ns; for so long at least */

struct batch {
    struct epoll_event events[BATCH_SHARE * LOOP_BATCH_MAX];
    int fetched, current; /* events[current .. fetched) have not been told yet */
};

struct loop {
    int epoll_fd;
    struct batch batch;
    bool interrupted; /* the wait was: what is ready is still to be fetched */

    struct watch preferred_watch; /* an epoll of their own, which is watched in the first */
    struct batch preferred;
    size_t preferred_count; /* watches in it */
    bool preferred_left;    /* more may be ready there than the last batch has brought */
    size_t round_left;      /* so many are to be told of still until a round has ended that began at: */
    uint64_t round_begun;
    uint64_t preferred_heard; /* when the last round that has ended began: what was ready there then has been told */
    unsigned full_turns;      /* one behind the other, this one included */
    uint64_t backlog_until;

    struct {
        struct watch *watch; /* NULL: it has been taken out */
        uint64_t due;
    } soon[SOON];
    unsigned soon_first, soon_count; /* a ring */

    uint64_t now;     /* the begin of this turn's work */
    uint64_t ended;   /* the end of the turn before */
    uint64_t went_on; /* when it did last after it had stood still */
    uint64_t heard;   /* up to when all that was ready has been told */
    struct {
        uint64_t begin, end;
    } held[HELD]; /* turns that were held up */
    struct timer_heap timers;
    struct watch timer_watch; /* the timerfd */
    uint64_t timer_set_for;   /* TIMER_NEVER: it is not set */
    uint64_t timer_tells;     /* up to when all that was ready stands before it in epoll's queue, once it is ready */
    bool firing;

    struct list posted, staged, hooks, dead;
    struct list wakeups;
    struct watch wakeup_watch; /* the eventfd */
    bool stopped;
    char *scratch;
    size_t lent; /* the first so many bytes of it */
};

/* So much of the scratch buffer is lent before the passes come that it is returned in. Messages up to then are handled
 * together; what is longer by itself is handled at once, while it is in the caches. */
#define LENT_MAX (16u * 1024u)

/* ---- loop_posted.c ---- */

/* Runs what has been posted up to now; what that posts is left to the next turn. */
void loop_run_posted(struct loop *l);

/* The passes of what is staged. */
void loop_run_stages(struct loop *l);

/* The same where so much has been lent that it should be returned. */
static inline void loop_return_lent(struct loop *l)
{
    if (l->lent >= LENT_MAX)
        loop_run_stages(l);
}

/* Runs the hooks, in the order in which they were added. */
void loop_run_hooks(struct loop *l);

/* Frees what has died, and what dies by that, until nothing is left. */
void loop_reclaim_dead(struct loop *l);

#endif
