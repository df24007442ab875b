/* A helper thread for what can block (fsync, file writes, name resolution), handed jobs through a queue, first in first
 * out, answering on the loop's thread. The loop never waits for it except at the very end (worker_free). */
#ifndef LB_EVENT_WORKER_H
#define LB_EVENT_WORKER_H

#include "base/list.h"
#include "event/loop.h"

struct worker;

struct job;
typedef void job_fn(struct job *j);

struct job { /* embedded */
    struct list link;
    job_fn *work;    /* on the helper thread: touches only the job's own data */
    job_fn *done;    /* on the loop's thread, after work() */
    job_fn *dropped; /* in the place of done(), see worker_submit_own(); may be NULL */
};

/* Starts a thread named `name` (at most 15 bytes) with all signals blocked. NULL, with errno, on failure. */
struct worker *worker_new(struct loop *l, const char *name);

/* Hands a job over; it is the worker's until done() is called, or, where the worker is abandoned before, to the end of
 * the process: the helper thread may still look at it then, so it must stay in memory. Loop thread only. */
void worker_submit(struct worker *w, struct job *j, job_fn *work, job_fn *done);

/* The same for a job that nobody else knows: when the worker is abandoned first, dropped() is called in the place of
 * done(), on the helper thread, when nothing is done with the job any more: it may be freed then. */
void worker_submit_own(struct worker *w, struct job *j, job_fn *work, job_fn *done, job_fn *dropped);

/* Jobs handed over whose done() has not been called. */
size_t worker_pending(const struct worker *w);

/* Waits until no job is pending, calling their done() here. Blocks: for the very end only. */
void worker_drain(struct worker *w);

/* Drains, and ends the thread. NULL is fine. */
void worker_free(struct worker *w);

/* Ends the thread's claim on the process without waiting: no job is called back any more, those that are queued are not
 * begun, and one in hand may go on to the end of the process; dropped() is called for those of worker_submit_own(). For
 * a resolver that hangs at exit, or a file that cannot be read. The worker must not be used afterwards. Neither this
 * nor worker_free() may be called by done() of one of its jobs. NULL is fine. */
void worker_abandon(struct worker *w);

#endif
