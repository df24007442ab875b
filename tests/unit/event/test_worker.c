/* The helper thread: order, callbacks on the loop's thread, draining, ending and abandoning. */
#include "event/worker.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <time.h>

static struct loop *loop;
static struct worker *worker;
static pthread_t loop_thread;

static int setup(void **state)
{
    (void)state;
    loop_thread = pthread_self();
    loop = loop_new();
    worker = loop ? worker_new(loop, "helper") : NULL;
    return worker ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    worker_free(worker);
    loop_free(loop);
    return 0;
}

struct task {
    struct job job;
    int number, square; /* in, and out of the helper thread */
    bool elsewhere;     /* it worked on another thread */
    bool all_blocked;   /* with every signal blocked */
    char name[16];
    sem_t *wait; /* before it works */
    int done;
    struct task *next; /* handed over by done() */
};

static int finished; /* tasks that are done, in their order */
static int last_number;

static bool all_signals_blocked(void)
{
    static const int some[] = {SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2, SIGCHLD, SIGALRM};
    sigset_t mask;

    pthread_sigmask(SIG_SETMASK, NULL, &mask);
    for (size_t i = 0; i < sizeof(some) / sizeof(some[0]); i++)
        if (!sigismember(&mask, some[i]))
            return false;
    return true;
}

static void task_work(struct job *j)
{
    struct task *t = container_of(j, struct task, job);

    if (t->wait)
        while (sem_wait(t->wait) != 0)
            ;
    t->elsewhere = !pthread_equal(pthread_self(), loop_thread);
    t->all_blocked = all_signals_blocked();
    pthread_getname_np(pthread_self(), t->name, sizeof(t->name));
    t->square = t->number * t->number;
}

static void task_done(struct job *j)
{
    struct task *t = container_of(j, struct task, job);

    assert_true(pthread_equal(pthread_self(), loop_thread));
    t->done++;
    finished++;
    last_number = t->number;
    if (t->next)
        worker_submit(worker, &t->next->job, task_work, task_done);
}

static void submit(struct task *t, int number)
{
    *t = (struct task){.number = number, .wait = t->wait, .next = t->next};
    worker_submit(worker, &t->job, task_work, task_done);
}

static void run_until_finished(int n)
{
    while (finished < n)
        loop_turn(loop, TIMER_NEVER);
}

static void test_a_job_there_and_back(void **state)
{
    struct task t = {0};

    (void)state;
    finished = 0;
    submit(&t, 7);
    assert_int_equal(worker_pending(worker), 1);
    run_until_finished(1);
    assert_int_equal(t.square, 49);
    assert_true(t.elsewhere);
    assert_true(t.all_blocked);
    assert_string_equal(t.name, "helper");
    assert_int_equal(t.done, 1);
    assert_int_equal(worker_pending(worker), 0);
}

static void test_first_in_first_out(void **state)
{
    enum { N = 500 };
    static struct task tasks[N];

    (void)state;
    finished = 0;
    for (int i = 0; i < N; i++)
        submit(&tasks[i], i);
    for (int i = 0; i < N; i++) {
        run_until_finished(i + 1);
        assert_int_equal(tasks[finished - 1].done, 1);
        assert_int_equal(last_number, finished - 1);
    }
    for (int i = 0; i < N; i++)
        assert_int_equal(tasks[i].square, i * i);
}

static void test_the_loop_does_not_wait(void **state)
{
    sem_t gate;
    struct task t = {.wait = &gate};

    (void)state;
    finished = 0;
    assert_int_equal(sem_init(&gate, 0, 0), 0);
    submit(&t, 3);
    for (int i = 0; i < 10; i++)
        loop_turn(loop, 0);
    assert_int_equal(finished, 0);
    sem_post(&gate);
    run_until_finished(1);
    assert_int_equal(t.square, 9);
    sem_destroy(&gate);
}

static void test_free_finishes_what_is_queued_and_what_that_hands_over(void **state)
{
    struct task tail = {.number = 12}, head = {.next = &tail}, other = {0};

    (void)state;
    finished = 0;
    submit(&head, 2);
    submit(&other, 3);
    worker_free(worker);
    assert_int_equal(finished, 3);
    assert_int_equal(tail.square, 144);
    worker = worker_new(loop, "helper");
    assert_non_null(worker);
}

static void test_drain_leaves_it_usable(void **state)
{
    struct task t = {0};

    (void)state;
    finished = 0;
    worker_drain(worker);
    submit(&t, 4);
    worker_drain(worker);
    assert_int_equal(t.square, 16);
    loop_turn(loop, 0);
    assert_int_equal(finished, 1);
    submit(&t, 5);
    run_until_finished(2);
    assert_int_equal(t.square, 25);
}

static void test_abandoned_while_idle(void **state)
{
    (void)state;
    worker_abandon(worker);
    worker_abandon(NULL);
    worker_free(NULL);
    loop_turn(loop, 0);
    worker = worker_new(loop, "helper");
    assert_non_null(worker);
}

struct gates {
    sem_t begun, go;
};

struct stuck {
    struct job job;
    struct gates *gates;
};

static void stuck_work(struct job *j)
{
    struct gates *g = container_of(j, struct stuck, job)->gates;

    sem_post(&g->begun);
    while (sem_wait(&g->go) != 0)
        ;
}

static void never_done(struct job *j)
{
    (void)j;
    fail_msg("called back after it was abandoned");
}

/* The job in hand ends after the loop is gone; neither it nor the queued one is called back. */
static void test_abandoned_with_a_job_in_hand(void **state)
{
    static struct gates gates;
    static struct stuck in_hand = {.gates = &gates};
    static struct task queued;

    (void)state;
    sem_init(&gates.begun, 0, 0);
    sem_init(&gates.go, 0, 0);
    worker_submit(worker, &in_hand.job, stuck_work, never_done);
    worker_submit(worker, &queued.job, task_work, never_done);
    while (sem_wait(&gates.begun) != 0)
        ;
    worker_abandon(worker);
    loop_turn(loop, 0);
    loop_free(loop);
    sem_post(&gates.go);
    assert_int_equal(setup(NULL), 0);
    assert_int_equal(queued.square, 0);
}

/* What nobody else knows is let go of, in hand, queued, or done and not called back. */
static sem_t dropped;

static void on_dropped(struct job *j)
{
    (void)j;
    sem_post(&dropped);
}

static bool wait_10_s(sem_t *s)
{
    struct timespec by;
    int rc;

    clock_gettime(CLOCK_REALTIME, &by);
    by.tv_sec += 10;
    do
        rc = sem_timedwait(s, &by);
    while (rc != 0 && errno == EINTR);
    return rc == 0;
}

static void test_abandoned_jobs_of_its_own(void **state)
{
    static struct gates gates;
    static struct stuck in_hand = {.gates = &gates};
    static struct task over, queued;

    (void)state;
    sem_init(&gates.begun, 0, 0);
    sem_init(&gates.go, 0, 0);
    sem_init(&dropped, 0, 0);
    worker_submit_own(worker, &over.job, task_work, never_done, on_dropped);
    worker_submit_own(worker, &in_hand.job, stuck_work, never_done, on_dropped);
    worker_submit_own(worker, &queued.job, task_work, never_done, on_dropped);
    while (sem_wait(&gates.begun) != 0)
        ;
    worker_abandon(worker);
    loop_free(loop);
    sem_post(&gates.go);
    for (int i = 0; i < 3; i++)
        if (!wait_10_s(&dropped))
            fail_msg("%d of 3 jobs have been dropped", i);
    assert_int_equal(setup(NULL), 0);
}

#define WORKER_TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WORKER_TEST(test_a_job_there_and_back),
        WORKER_TEST(test_first_in_first_out),
        WORKER_TEST(test_the_loop_does_not_wait),
        WORKER_TEST(test_free_finishes_what_is_queued_and_what_that_hands_over),
        WORKER_TEST(test_drain_leaves_it_usable),
        WORKER_TEST(test_abandoned_while_idle),
        WORKER_TEST(test_abandoned_with_a_job_in_hand),
        WORKER_TEST(test_abandoned_jobs_of_its_own),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
