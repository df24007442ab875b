/* The event loop: one thread, level-triggered epoll, one timerfd, one eventfd. An iteration waits, caches the clock,
 * runs the handlers of what is ready, then expired timers, then posted callbacks, then the end-of-iteration hooks, and
 * last reclaims the dead. What is staged has its passes behind the handlers, and behind the posted callbacks.
 *
 * Nothing is freed inside a callback: an object that ends is unwatched, its timers cancelled, and handed to
 * loop_reclaim(); its memory stays valid until the end of the iteration, so an event for it that was already fetched
 * finds it unwatched and is dropped. */
#ifndef LB_EVENT_LOOP_H
#define LB_EVENT_LOOP_H

#include "base/list.h"
#include "event/timer.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct loop;

/* What a watch waits for and is told: a set of these. LOOP_HANGUP (error or hang-up) is told unasked, and so is
 * LOOP_REFUSED: the kernel had no room for a watch that was to be registered soon; errno says why. */
enum loop_ready { LOOP_READ = 1, LOOP_WRITE = 2, LOOP_HANGUP = 4, LOOP_REFUSED = 8 };

struct watch;
typedef void watch_fn(struct watch *w, unsigned ready);

struct watch { /* embedded; set up by watch_init() */
    int fd;
    uint8_t wanted; /* LOOP_READ | LOOP_WRITE as registered */
    bool registered : 1;
    bool preferred : 1; /* by loop_prefer() */
    uint8_t told : 4;   /* so often since then */
    uint16_t soon;      /* its place among those that are to be registered soon; 0: it is none of them */
    watch_fn *on_ready;
};

struct posted; /* a callback to be run once, later in this iteration or in the next */
typedef void posted_fn(struct posted *p);
struct posted { /* embedded */
    struct list link;
    posted_fn *run;
};

struct dead; /* an object to be freed at the end of the iteration */
typedef void dead_fn(struct dead *d);
struct dead { /* embedded */
    struct list link;
    dead_fn *reclaim;
};

struct loop_hook; /* runs at the end of each iteration (log output and the like) */
typedef void loop_hook_fn(struct loop_hook *h);
struct loop_hook { /* embedded */
    struct list link;
    loop_hook_fn *run;
};

/* NULL, with errno, when the kernel refuses a descriptor or there is no memory. */
struct loop *loop_new(void);

/* Reclaims what is dead and frees the loop; watches must be gone. NULL is fine. */
void loop_free(struct loop *l);

/* Runs until loop_stop(). */
void loop_run(struct loop *l);

/* How many events a turn fetches at most where there is a backlog (loop_prefer()); four times as many where there is
 * none, and of preferred watches. Not more than LOOP_BATCH_MAX, which it is; the simulation, which has few connections,
 * makes it less. */
#define LOOP_BATCH_MAX 64
extern int loop_batch;

/* Runs one iteration, waiting at most `max_wait_ns` for something to do (0: only what is ready; TIMER_NEVER: as long as
 * it takes). */
void loop_turn(struct loop *l, uint64_t max_wait_ns);

/* Makes loop_run() return at the end of the iteration. */
void loop_stop(struct loop *l);

/* Monotonic time in ns as of the begin of this iteration's work. */
uint64_t loop_now(const struct loop *l);

/* A time up to which all that had become ready has been told; not after loop_now(). Timers fire by it, and who compares
 * a deadline by himself does so, too: what came before a deadline is heard before it is over. */
uint64_t loop_heard(const struct loop *l);

/* What loop_now() was when something was noted, and it is later now: the end of that iteration, where it was held up
 * for LOOP_HELD_UP or more (by a call that took long, or a process that was stopped) and is remembered, as the longest
 * few are, so that what was noted in it is not taken for as much older; else `noted` itself. */
uint64_t loop_noted(const struct loop *l, uint64_t noted);

/* When the loop last went on after it had stood still for LOOP_STOOD_STILL or more, or after a stop of the process; 0:
 * never. Rates that are measured across it say nothing. */
uint64_t loop_went_on(const struct loop *l);

#define LOOP_STOOD_STILL (1000ull * 1000 * 1000) /* ns */

#define LOOP_HELD_UP (50ull * 1000 * 1000) /* ns */

void watch_init(struct watch *w, int fd, watch_fn *on_ready);

/* Registers the watch for `wanted` (may be 0: hang-ups only). False, with errno, when the kernel has no room. */
bool loop_watch(struct loop *l, struct watch *w, unsigned wanted) __attribute__((warn_unused_result));

/* Registers the watch about LOOP_SOON from now, or at once when too many wait for that already. One that is unwatched
 * before has cost no system call. Nothing is told of it meanwhile; loop_watch() ends the waiting. False as there. Does
 * nothing for a watch that waits already. */
#define LOOP_SOON (20ull * 1000 * 1000) /* ns */
bool loop_watch_soon(struct loop *l, struct watch *w, unsigned wanted) __attribute__((warn_unused_result));

/* Changes what a registered watch waits for; does nothing when it is the same. */
void loop_rewatch(struct loop *l, struct watch *w, unsigned wanted);

/* For what ends things that others begin. Where the loop has a backlog, because its last turns fetched as much as they
 * might, `w` becomes one of those that are told first in each turn; else one among all, if it was one of those. So
 * the call is due whenever something new is waited for. Of what has been told LOOP_PREFERRED times since, no end is
 * near: it is one among all again, or whoever begins things would wait behind all that goes on and on. It costs two
 * system calls where it changes something that is registered, and changes nothing where the kernel has no room. */
#define LOOP_PREFERRED 8
void loop_prefer(struct loop *l, struct watch *w);

/* Ends the registration, or the waiting for it; to be called before its descriptor is closed. Harmless when there is
 * none. */
void loop_unwatch(struct loop *l, struct watch *w);

/* Arms or moves a timer (see timer.h). False when there is no memory for it, and it stays unarmed. That cannot be where
 * it is armed already, nor where it has just fired and its callback arms nothing else before: the room that it had in
 * the heap is still there. Armed by a callback for a time that is over, it fires in the next turn at the earliest. */
bool loop_arm(struct loop *l, struct timer *t, uint64_t deadline) __attribute__((warn_unused_result));
/* Makes room for `n` timers more than are armed: so many can be armed for certain in this turn, as long as nobody else
 * arms one in between. False when there is no memory. */
bool loop_reserve(struct loop *l, size_t n) __attribute__((warn_unused_result));
void loop_cancel(struct loop *l, struct timer *t);

void posted_init(struct posted *p, posted_fn *run);
/* Runs p->run once after the handlers of this turn; posting what is posted or staged already does nothing. What a
 * posted callback posts runs in the next iteration, which then does not wait. */
void loop_post(struct loop *l, struct posted *p);
/* Takes a posted or staged callback back; harmless when it is neither. */
void loop_unpost(struct loop *l, struct posted *p);

/* Stages: what a turn does for many is done for all of them, one after the other, before the next thing is done for
 * any, so that the code of each is still in the processor's caches when it runs again (Larus and Parkes, "Using Cohort
 * Scheduling to Enhance Server Performance", USENIX 2002). Behind the handlers, and behind the posted callbacks, there
 * are up to LOOP_PASSES passes; each runs what has been staged before it began. What is left then, is left to the next
 * ones, and the loop does not wait before. Takes `p` out of where it was posted; it must not be staged. */
#define LOOP_PASSES 3
void loop_stage(struct loop *l, struct posted *p);

/* Frees an object at the end of this iteration, by d->reclaim(d), which may post and reclaim, but logs nothing: the
 * log's hook has run. Once for each object. */
void loop_reclaim(struct loop *l, struct dead *d, dead_fn *reclaim);

/* A hook may take out itself, and no other one. */
void loop_add_hook(struct loop *l, struct loop_hook *h, loop_hook_fn *run);
void loop_remove_hook(struct loop *l, struct loop_hook *h);

/* Room for LOOP_SCRATCH_SIZE bytes that is the loop's. What is written there stays until the end of the callback, and
 * what of it is lent (the first `n` bytes) until the end of the next pass of stages, which comes soon when
 * much has been lent. */
#define LOOP_SCRATCH_SIZE (64u * 1024u)
char *loop_scratch(struct loop *l);
void loop_lend(struct loop *l, size_t n);

/* Callable from any thread: runs `run` on the loop's thread once, soon. Used by the helper threads, through a slot for
 * each: struct loop_wakeup is embedded, and several wakes before the call count as one. Adding and removing is for the
 * loop's thread; nobody may wake what is removed. `run` may remove its own. */
struct loop_wakeup;
typedef void loop_wakeup_fn(struct loop_wakeup *w);
struct loop_wakeup { /* embedded */
    struct list link;
    struct loop *loop;
    loop_wakeup_fn *run;
    int pending; /* atomic */
};
void loop_add_wakeup(struct loop *l, struct loop_wakeup *w, loop_wakeup_fn *run);
void loop_remove_wakeup(struct loop_wakeup *w);
void loop_wake(struct loop_wakeup *w);

#endif
