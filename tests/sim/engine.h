/* The engine of the simulation: one clock, one heap of events, threads that are run one at a time, random streams, and
 * the trace. Everything that happens is decided by one 64-bit seed. See the essay in engine.c. */
#ifndef LB_SIM_ENGINE_H
#define LB_SIM_ENGINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define US UINT64_C(1000)
#define MS UINT64_C(1000000)
#define S  UINT64_C(1000000000)

/* ---- randomness ---- */

/* A stream of its own for each actor and each kind of decision: what one draws shifts nothing that another draws, so an
 * actor can be left out while all others keep their plans. (How the world's answers fall may shift all the same: the
 * faults, and the kernel's own draws, come from streams that all calls of the process share.) */
struct rng {
    uint64_t state;
};

/* The stream of the thing called `label`, number `index`, in the present run. */
struct rng rng_of(const char *label, uint64_t index);
uint64_t rng_next(struct rng *r);
/* 0 to n-1; n at least 1. */
uint64_t rng_below(struct rng *r, uint64_t n);
/* low to high, both included. */
uint64_t rng_between(struct rng *r, uint64_t low, uint64_t high);
/* True in `per_mille` of 1000 cases. */
bool rng_chance(struct rng *r, unsigned per_mille);
/* Between low and high, small values as likely as large ones (by powers of two). */
uint64_t rng_spread(struct rng *r, uint64_t low, uint64_t high);

/* ---- time and events ---- */

struct event;
typedef void event_fn(struct event *e);
struct event { /* embedded; set up by event_init() */
    uint64_t at, order;
    size_t index; /* in the heap; SIZE_MAX when not pending */
    event_fn *run;
};

/* Nanoseconds since the run's begin: the true time, which no fault touches. */
uint64_t sim_now(void);

void event_init(struct event *e, event_fn *run);
/* Runs e->run at `at` (at once when that has passed, after events set before); moves an event that is pending. */
void event_set(struct event *e, uint64_t at);
void event_set_in(struct event *e, uint64_t delay);
void event_cancel(struct event *e);
bool event_pending(const struct event *e);

/* ---- threads ---- */

struct thread;

/* A thread of the simulated process; it runs when engine_run() comes to it. */
struct thread *thread_start(const char *name, void (*entry)(void *arg), void *arg);
/* The thread that is running; NULL in events and outside. */
struct thread *thread_self(void);
const char *thread_name(const struct thread *t);

/* For the running thread: time passes, meanwhile events happen and other threads may run. */
void thread_sleep(uint64_t ns);
/* Until thread_wake() (one that came since the last block is not lost) or `at`, TIME_NEVER for no end. */
#define TIME_NEVER UINT64_MAX
void thread_block(uint64_t at);
void thread_wake(struct thread *t);
/* Is there a thread beside the running one that could run? */
bool thread_rivalled(void);
/* Lets another thread run, when the seed draws it. */
void thread_yield(void);
/* Lets time pass without giving way: what falls due meanwhile happens now. Afterwards the process may be dead, then
 * this does not return. */
void thread_spend(uint64_t ns);
/* Never comes back. */
_Noreturn void thread_exit(void);
/* Drops all threads where they stand: the process was killed. One that is running, and whose time in a call has brought
 * the kill about, is left when thread_spend() comes back to it. */
void threads_drop(void);

/* ---- a run ---- */

void engine_begin(uint64_t seed);
/* Runs threads and events until engine_stop(); or until nothing is left to happen. */
void engine_run(void);
void engine_stop(void);
void engine_end(void);

/* The history's text goes to stderr. */
extern bool trace_on;
/* A step of history: hashed always, printed when trace_on. `what` is a word and the names of its arguments ("arrive
 * conn end bytes"); one without names is not printed, whoever passes it prints it better. Never pass addresses. */
void trace(const char *what, int64_t a, int64_t b, int64_t c);
/* Text for the printed trace only. */
void trace_text(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* Bytes into the hash. */
void trace_bytes(const void *p, size_t n);
uint64_t trace_hash(void);

/* ---- findings ---- */

/* A promise was broken: reports `invariant` with the seed, and ends this OS process. */
_Noreturn void sim_fail(const char *invariant, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Where sim_fail() goes; must not return. Set by the runner. */
extern void (*sim_on_fail)(const char *invariant, const char *text);

#endif
