/* The helper thread: a queue of jobs in, a list of finished ones out, both under one lock.
 * The loop's thread holds the lock only to move list elements, so it never waits for a job. */
#include "event/worker.h"

#include "base/mem.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>

/* Name resolution loads modules and has large buffers on the stack. */
#define STACK_SIZE (512u * 1024u)

struct worker {
    pthread_t thread;
    struct loop_wakeup wakeup;
    size_t pending; /* the loop's thread only */

    pthread_mutex_t lock; /* for all below */
    pthread_cond_t submitted, finished;
    struct list queue, done;
    bool stopping, abandoned;
};

static void drop(struct job *j)
{
    if (j->dropped)
        j->dropped(j);
}

static void drop_all(struct list *jobs)
{
    for (struct list *e; (e = list_pop_front(jobs));)
        drop(container_of(e, struct job, link));
}

static void destroy(struct worker *w)
{
    drop_all(&w->queue);
    drop_all(&w->done);
    pthread_cond_destroy(&w->submitted);
    pthread_cond_destroy(&w->finished);
    pthread_mutex_destroy(&w->lock);
    mem_free(w);
}

/* The next job, or NULL when the thread is to end. With the lock held. */
static struct job *next_job(struct worker *w)
{
    while (list_empty(&w->queue) && !w->stopping && !w->abandoned)
        pthread_cond_wait(&w->submitted, &w->lock);
    if (w->abandoned || list_empty(&w->queue))
        return NULL;
    return container_of(list_pop_front(&w->queue), struct job, link);
}

/* With the lock held, so that nobody abandons the worker, and frees the loop, meanwhile. */
static void hand_back(struct worker *w, struct job *j)
{
    if (w->abandoned) {
        drop(j);
        return;
    }
    list_push_back(&w->done, &j->link);
    pthread_cond_signal(&w->finished);
    loop_wake(&w->wakeup);
}

static void *run_thread(void *arg)
{
    struct worker *w = arg;
    struct job *j;

    pthread_mutex_lock(&w->lock);
    while ((j = next_job(w))) {
        pthread_mutex_unlock(&w->lock);
        j->work(j);
        pthread_mutex_lock(&w->lock);
        hand_back(w, j);
    }
    bool abandoned = w->abandoned;
    pthread_mutex_unlock(&w->lock);
    if (abandoned)
        destroy(w);
    return NULL;
}

/* Takes the finished jobs over under the lock, and calls them back without it. */
static void call_back(struct worker *w)
{
    struct list done, *e;

    list_init(&done);
    pthread_mutex_lock(&w->lock);
    list_splice_back(&done, &w->done);
    pthread_mutex_unlock(&w->lock);
    while ((e = list_pop_front(&done))) {
        struct job *j = container_of(e, struct job, link);
        w->pending--;
        j->done(j);
    }
}

static void on_wakeup(struct loop_wakeup *wakeup)
{
    call_back(container_of(wakeup, struct worker, wakeup));
}

/* Starts the thread with every signal blocked: it takes its mask from the thread that makes it. */
static int start_thread(struct worker *w, const pthread_attr_t *attr)
{
    sigset_t all, before;
    int rc;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    rc = pthread_create(&w->thread, attr, run_thread, w);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return rc;
}

static int start(struct worker *w, const char *name)
{
    pthread_attr_t attr;
    int rc = pthread_attr_init(&attr);

    if (rc != 0)
        return rc;
    rc = pthread_attr_setstacksize(&attr, STACK_SIZE);
    if (rc == 0)
        rc = start_thread(w, &attr);
    pthread_attr_destroy(&attr);
    /* Only what tools show depends on the name. */
    if (rc == 0)
        pthread_setname_np(w->thread, name);
    return rc;
}

struct worker *worker_new(struct loop *l, const char *name)
{
    struct worker *w = mem_try_alloc(sizeof(*w));

    assert(strlen(name) <= 15);
    if (!w)
        return NULL;
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->submitted, NULL);
    pthread_cond_init(&w->finished, NULL);
    list_init(&w->queue);
    list_init(&w->done);
    loop_add_wakeup(l, &w->wakeup, on_wakeup);
    int rc = start(w, name);
    if (rc == 0)
        return w;
    loop_remove_wakeup(&w->wakeup);
    destroy(w);
    errno = rc;
    return NULL;
}

void worker_submit(struct worker *w, struct job *j, job_fn *work, job_fn *done)
{
    worker_submit_own(w, j, work, done, NULL);
}

void worker_submit_own(struct worker *w, struct job *j, job_fn *work, job_fn *done, job_fn *dropped)
{
    j->work = work;
    j->done = done;
    j->dropped = dropped;
    w->pending++;
    pthread_mutex_lock(&w->lock);
    list_push_back(&w->queue, &j->link);
    pthread_mutex_unlock(&w->lock);
    /* Behind the lock, or else who is woken would have to wait for it. The worker stands: it goes in this thread only.
     */
    pthread_cond_signal(&w->submitted);
}

size_t worker_pending(const struct worker *w)
{
    return w->pending;
}

static void wait_for_finished(struct worker *w)
{
    pthread_mutex_lock(&w->lock);
    while (list_empty(&w->done))
        pthread_cond_wait(&w->finished, &w->lock);
    pthread_mutex_unlock(&w->lock);
}

void worker_drain(struct worker *w)
{
    /* A job's done() may hand over the next one. */
    while (w->pending) {
        wait_for_finished(w);
        call_back(w);
    }
}

void worker_free(struct worker *w)
{
    if (!w)
        return;
    worker_drain(w);
    pthread_mutex_lock(&w->lock);
    w->stopping = true;
    pthread_mutex_unlock(&w->lock);
    pthread_cond_signal(&w->submitted);
    pthread_join(w->thread, NULL);
    loop_remove_wakeup(&w->wakeup);
    destroy(w);
}

void worker_abandon(struct worker *w)
{
    if (!w)
        return;
    loop_remove_wakeup(&w->wakeup);
    pthread_detach(w->thread);
    pthread_mutex_lock(&w->lock);
    w->abandoned = true;
    pthread_cond_signal(&w->submitted); /* with the lock held: from then on the thread may destroy the worker */
    pthread_mutex_unlock(&w->lock);
}
