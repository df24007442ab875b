/* POSIX threads of the simulated process, on the engine's: who may run is the seed's choice, so a lost wake-up, or a
 * lock that is missing around a call, shows as a deadlock or a wrong order that can be run again. */
#include "calls.h"
#include "kernel.h"

#include <errno.h>
#include <string.h>

struct helper {
    struct thread *thread;
    void *(*fn)(void *arg);
    void *arg;
    const char *name;
    bool ended, detached, on_disk;
    struct thread *joiner;
};
#define HELPERS_MAX 8u
static struct helper helpers[HELPERS_MAX];
static unsigned helper_count;

/* Who waits for a mutex or a condition, in order of coming. */
struct waiter {
    struct thread *thread;
    const void *on;
};
#define WAITERS_MAX 16u
static struct waiter waiters[WAITERS_MAX];
static unsigned waiter_count;

static void join_queue(const void *what)
{
    waiters[waiter_count++] = (struct waiter){thread_self(), what};
}

static bool is_queued(const struct thread *t)
{
    for (unsigned i = 0; i < waiter_count; i++)
        if (waiters[i].thread == t)
            return true;
    return false;
}

/* Until somebody has taken it out of the queue. */
static void wait_in_queue(void)
{
    while (is_queued(thread_self()))
        thread_block(TIME_NEVER);
}

/* Lets the first that waits for `what` go. */
static bool wake_one(const void *what)
{
    for (unsigned i = 0; i < waiter_count; i++) {
        if (waiters[i].on != what)
            continue;
        struct thread *t = waiters[i].thread;
        memmove(&waiters[i], &waiters[i + 1], (waiter_count - i - 1) * sizeof waiters[0]);
        waiter_count--;
        thread_wake(t);
        return true;
    }
    return false;
}

static void run_helper(void *arg)
{
    struct helper *h = arg;
    h->fn(h->arg);
    h->ended = true;
    if (h->joiner)
        thread_wake(h->joiner);
}

int sim_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*fn)(void *), void *arg)
{
    (void)attr;
    syscall_begin("pthread_create", 0, 0);
    if (helper_count == HELPERS_MAX || start_fault())
        return EAGAIN;
    struct helper *h = &helpers[helper_count++];
    *h = (struct helper){.fn = fn, .arg = arg};
    h->thread = thread_start(helper_count == 1 ? "disk" : "helper", run_helper, h);
    *thread = helper_count;
    return 0;
}

int sim_pthread_join(pthread_t thread, void **result)
{
    (void)result;
    struct helper *h = &helpers[thread - 1];
    h->joiner = thread_self();
    while (!h->ended)
        thread_block(TIME_NEVER);
    return 0;
}

int sim_pthread_detach(pthread_t thread)
{
    helpers[thread - 1].detached = true;
    return 0;
}

int sim_pthread_setname_np(pthread_t thread, const char *name)
{
    helpers[thread - 1].name = name;
    return 0;
}

struct mutex { /* in the place of a pthread_mutex_t */
    struct thread *owner;
};
_Static_assert(sizeof(struct mutex) <= sizeof(pthread_mutex_t), "ours fits into theirs");

static struct mutex *mutex_of(pthread_mutex_t *m)
{
    return (struct mutex *)(void *)m;
}

int sim_pthread_mutex_init(pthread_mutex_t *m, const pthread_mutexattr_t *attr)
{
    (void)attr;
    mutex_of(m)->owner = NULL;
    return 0;
}

int sim_pthread_mutex_destroy(pthread_mutex_t *m)
{
    if (mutex_of(m)->owner)
        sim_fail("threads", "a mutex is destroyed while it is locked");
    return 0;
}

int sim_pthread_mutex_lock(pthread_mutex_t *m)
{
    thread_spend(50);
    syscall_give_way();
    if (mutex_of(m)->owner == thread_self())
        sim_fail("threads", "a mutex is locked twice by %s", thread_name(thread_self()));
    while (mutex_of(m)->owner) {
        join_queue(m);
        wait_in_queue();
    }
    mutex_of(m)->owner = thread_self();
    return 0;
}

int sim_pthread_mutex_unlock(pthread_mutex_t *m)
{
    if (mutex_of(m)->owner != thread_self())
        sim_fail("threads", "a mutex is unlocked that is not one's own");
    mutex_of(m)->owner = NULL;
    wake_one(m);
    /* The moment at which another thread may get ahead. */
    if (call_draw(4) == 0)
        thread_sleep(call_draw(20) * US);
    return 0;
}

int sim_pthread_cond_init(pthread_cond_t *c, const pthread_condattr_t *attr)
{
    (void)c;
    (void)attr;
    return 0;
}

int sim_pthread_cond_destroy(pthread_cond_t *c)
{
    for (unsigned i = 0; i < waiter_count; i++)
        if (waiters[i].on == c)
            sim_fail("threads", "a condition is destroyed that is waited for");
    return 0;
}

int sim_pthread_cond_wait(pthread_cond_t *c, pthread_mutex_t *m)
{
    /* In the queue before the mutex is free: who signals from then on finds it there. */
    bool spurious = fault(kernel.faults.spurious);
    if (!spurious)
        join_queue(c);
    sim_pthread_mutex_unlock(m);
    wait_in_queue();
    return sim_pthread_mutex_lock(m);
}

int sim_pthread_cond_signal(pthread_cond_t *c)
{
    if (wake_one(c))
        syscall_progress(); /* a job is taken, or done */
    return 0;
}

int sim_pthread_attr_init(pthread_attr_t *attr)
{
    (void)attr;
    return 0;
}

int sim_pthread_attr_destroy(pthread_attr_t *attr)
{
    (void)attr;
    return 0;
}

int sim_pthread_attr_setstacksize(pthread_attr_t *attr, size_t n)
{
    (void)attr;
    (void)n;
    return 0;
}

/* ---- for the process's end ---- */

void helpers_forget(void)
{
    waiter_count = helper_count = 0;
}

void helper_enters_disk(bool enters)
{
    for (unsigned i = 0; i < helper_count; i++)
        if (helpers[i].thread == thread_self())
            helpers[i].on_disk = enters;
}

bool helpers_on_disk(void)
{
    for (unsigned i = 0; i < helper_count; i++)
        if (helpers[i].on_disk)
            return true;
    return false;
}

bool helper_abandoned(const char *name)
{
    for (unsigned i = 0; i < helper_count; i++)
        if (helpers[i].detached && helpers[i].name && strcmp(helpers[i].name, name) == 0)
            return true;
    return false;
}
