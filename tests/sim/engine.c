/* The engine: what happens next.
 *
 *      threads of the process (fibers)                    events (a heap by time)
 *        loop     disk     names                            packet arrives, timer fires, disk is done,
 *          |        |        |                              client acts, backend dies, power goes
 *          v        v        v                                  |
 *      +--------------------------- engine_run ----------------v---------------------------------+
 *      | a runnable thread, drawn by the seed, runs until it sleeps or blocks; when none can     |
 *      | run, the clock jumps to the next event                                                  |
 *      +-----------------------------------------------------------------------------------------+
 *
 * One OS thread does all of it, so there are no races but those that the seed makes. A system call of the simulated
 * process costs time (thread_spend): events that fall due in that time happen before the call is done, on the caller's
 * own stack. So the world moves between any two system calls, as it does under a real kernel, and nowhere else.
 *
 * A fiber is entered with setcontext() once and from then on with _setjmp() and _longjmp(), which, unlike
 * swapcontext(), make no system call.
 *
 * Killing the process drops its threads where they stand. When it is a thread itself that runs the event which kills,
 * the event goes on on that thread's stack, and thread_spend() does not return to the dead. */
#include "engine.h"

#include "asan.h"

#include <errno.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

#define STACK_SIZE  (256u * 1024u)
#define THREADS_MAX 16u
#define STEPS_MAX   20000000u /* 500 seeds had 1.2 million at most */

struct thread {
    const char *name;
    void (*entry)(void *arg);
    void *arg;
    struct event wake;
    bool started, runnable, ended, dropped;
    bool blocking, woken; /* a wake-up that comes while it does not block is kept */
    char *stack;
    void *fake_stack; /* the address sanitizer's */
    int saved_errno;
    ucontext_t begin;
    jmp_buf env;
};

static struct {
    uint64_t seed, now, order, hash, steps;
    struct event **heap;
    size_t count, cap;
    struct thread *threads[THREADS_MAX];
    unsigned thread_count;
    struct thread *self;
    bool stopped;
    struct rng schedule;
    jmp_buf scheduler;
    const void *scheduler_stack;
    size_t scheduler_stack_size;
    void *scheduler_fake;
    char *stacks[THREADS_MAX]; /* not in use */
    unsigned stack_count;
} sim;

bool trace_on;
void (*sim_on_fail)(const char *invariant, const char *text);

/* ---- randomness: splitmix64 (Steele, Lea and Flood 2014) ---- */

static uint64_t mix(uint64_t z)
{
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

uint64_t rng_next(struct rng *r)
{
    r->state += UINT64_C(0x9e3779b97f4a7c15);
    return mix(r->state);
}

struct rng rng_of(const char *label, uint64_t index)
{
    uint64_t h = UINT64_C(0xcbf29ce484222325);
    for (; *label; label++)
        h = (h ^ (unsigned char)*label) * UINT64_C(0x100000001b3);
    return (struct rng){
        mix(mix(sim.seed + UINT64_C(0x5851f42d4c957f2d)) ^ mix(h + index * UINT64_C(0x2545f4914f6cdd1d)))};
}

uint64_t rng_below(struct rng *r, uint64_t n)
{
    return rng_next(r) % n; /* what is uneven about it is far below what any test could see */
}

uint64_t rng_between(struct rng *r, uint64_t low, uint64_t high)
{
    return low + rng_below(r, high - low + 1);
}

bool rng_chance(struct rng *r, unsigned per_mille)
{
    return rng_below(r, 1000) < per_mille;
}

static unsigned width_of(uint64_t v)
{
    return v ? 64u - (unsigned)__builtin_clzll(v) : 0;
}

uint64_t rng_spread(struct rng *r, uint64_t low, uint64_t high)
{
    unsigned width = (unsigned)rng_between(r, width_of(low), width_of(high));
    uint64_t least = width ? UINT64_C(1) << (width - 1) : 0, most = width ? least * 2 - 1 : 0;
    least = least < low ? low : least;
    most = most > high ? high : most;
    return rng_between(r, least, most);
}

/* ---- the trace ---- */

static void hash_in(uint64_t v)
{
    sim.hash = (sim.hash ^ v) * UINT64_C(0x9fb21c651e98df25);
    sim.hash ^= sim.hash >> 32;
}

static void print_stamp(void)
{
    fprintf(stderr, "%4" PRIu64 ".%09" PRIu64 " %-6s ", sim.now / S, sim.now % S, sim.self ? sim.self->name : "-");
}

static void print_step(const char *what, const int64_t *args)
{
    char words[64], *save = NULL;
    snprintf(words, sizeof words, "%s", what);
    print_stamp();
    fputs(strtok_r(words, " ", &save), stderr);
    const char *name;
    for (unsigned i = 0; i < 3 && (name = strtok_r(NULL, " ", &save)); i++)
        fprintf(stderr, " %s=%" PRId64, name, args[i]);
    fputc('\n', stderr);
}

void trace(const char *what, int64_t a, int64_t b, int64_t c)
{
    uint64_t name = 0;
    for (const char *p = what; *p; p++)
        name = name * 31 + (unsigned char)*p;
    hash_in(sim.now ^ name << 32);
    hash_in((uint64_t)a);
    hash_in((uint64_t)b);
    hash_in((uint64_t)c);
    if (trace_on && (strchr(what, ' ') || strchr(what, '-')))
        print_step(what, (const int64_t[]){a, b, c});
}

void trace_text(const char *fmt, ...)
{
    if (!trace_on)
        return;
    va_list ap;
    print_stamp();
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fputc('\n', stderr);
}

void trace_bytes(const void *p, size_t n)
{
    const unsigned char *at = p;
    uint64_t word;
    for (; n >= sizeof word; at += sizeof word, n -= sizeof word) {
        memcpy(&word, at, sizeof word);
        hash_in(word);
    }
    word = 0;
    memcpy(&word, at, n);
    hash_in(word | (uint64_t)n << 56); /* at most seven bytes, and their number */
}

uint64_t trace_hash(void)
{
    return sim.hash;
}

_Noreturn void sim_fail(const char *invariant, const char *fmt, ...)
{
    char text[2048];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    trace_text("FINDING %s: %s", invariant, text);
    sim_on_fail(invariant, text);
    abort();
}

/* ---- events: a binary heap by (time, order of being set) ---- */

static bool before(const struct event *a, const struct event *b)
{
    return a->at < b->at || (a->at == b->at && a->order < b->order);
}

static void place(size_t i, struct event *e)
{
    sim.heap[i] = e;
    e->index = i;
}

static void sift_up(struct event *e)
{
    size_t i = e->index;
    for (; i > 0 && before(e, sim.heap[(i - 1) / 2]); i = (i - 1) / 2)
        place(i, sim.heap[(i - 1) / 2]);
    place(i, e);
}

static void sift_down(struct event *e)
{
    size_t i = e->index, child;
    while ((child = 2 * i + 1) < sim.count) {
        if (child + 1 < sim.count && before(sim.heap[child + 1], sim.heap[child]))
            child++;
        if (!before(sim.heap[child], e))
            break;
        place(i, sim.heap[child]);
        i = child;
    }
    place(i, e);
}

uint64_t sim_now(void)
{
    return sim.now;
}

void event_init(struct event *e, event_fn *run)
{
    *e = (struct event){.index = SIZE_MAX, .run = run};
}

bool event_pending(const struct event *e)
{
    return e->index != SIZE_MAX;
}

void event_cancel(struct event *e)
{
    size_t hole = e->index;
    if (!event_pending(e))
        return;
    e->index = SIZE_MAX;
    struct event *last = sim.heap[--sim.count];
    if (last == e)
        return;
    place(hole, last);
    sift_up(last);
    sift_down(last);
}

void event_set(struct event *e, uint64_t at)
{
    event_cancel(e);
    if (sim.count == sim.cap) {
        sim.cap = sim.cap ? 2 * sim.cap : 256;
        sim.heap = realloc(sim.heap, sim.cap * sizeof(struct event *));
        if (!sim.heap)
            abort();
    }
    e->at = at > sim.now ? at : sim.now;
    e->order = sim.order++;
    place(sim.count, e);
    sim.count++;
    sift_up(e);
}

void event_set_in(struct event *e, uint64_t delay)
{
    event_set(e, sim.now + delay);
}

/* Something happens: an event, or a call of the process. A run that goes on and on shows here, on any machine alike. */
static void count_step(void)
{
    if (++sim.steps > STEPS_MAX)
        sim_fail("hang", "the run has not ended after %u steps and %" PRIu64 " simulated seconds", STEPS_MAX,
                 sim.now / S);
}

static void run_next_event(void)
{
    struct event *e = sim.heap[0];
    count_step();
    event_cancel(e);
    if (e->at > sim.now)
        sim.now = e->at;
    e->run(e);
}

/* ---- fibers ---- */

static char *take_stack(void)
{
    if (sim.stack_count > 0)
        return sim.stacks[--sim.stack_count];
    /* Below it a page that nobody may touch. */
    char *p = mmap(NULL, STACK_SIZE + 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
    if (p == MAP_FAILED || mprotect(p, 4096, PROT_NONE) != 0)
        abort();
    return p + 4096;
}

static void give_stack(char *stack)
{
    ASAN_UNPOISON_MEMORY_REGION(stack, STACK_SIZE);
    sim.stacks[sim.stack_count++] = stack;
}

static void arrive_in_fiber(struct thread *t)
{
#ifdef WITH_ASAN
    __sanitizer_finish_switch_fiber(t->fake_stack, &sim.scheduler_stack, &sim.scheduler_stack_size);
#endif
    errno = t->saved_errno;
}

/* From the running fiber to the scheduler. */
static void leave_fiber(bool for_good)
{
    struct thread *t = sim.self;
    t->saved_errno = errno;
#ifdef WITH_ASAN
    __sanitizer_start_switch_fiber(for_good ? NULL : &t->fake_stack, sim.scheduler_stack, sim.scheduler_stack_size);
#endif
    (void)for_good;
    if (_setjmp(t->env) == 0)
        _longjmp(sim.scheduler, 1);
    arrive_in_fiber(t);
}

static void fiber_main(void)
{
    struct thread *t = sim.self;
    arrive_in_fiber(t);
    t->entry(t->arg);
    thread_exit();
}

/* From the scheduler into a fiber, until that leaves. */
static void enter_fiber(struct thread *t)
{
    sim.self = t;
    t->runnable = false;
#ifdef WITH_ASAN
    __sanitizer_start_switch_fiber(&sim.scheduler_fake, t->stack, STACK_SIZE);
#endif
    if (_setjmp(sim.scheduler) == 0) {
        if (t->started)
            _longjmp(t->env, 1);
        t->started = true;
        setcontext(&t->begin);
    }
#ifdef WITH_ASAN
    __sanitizer_finish_switch_fiber(sim.scheduler_fake, NULL, NULL);
#endif
    sim.self = NULL;
}

static void on_wake(struct event *e)
{
    struct thread *t = (struct thread *)(void *)((char *)e - offsetof(struct thread, wake));
    t->runnable = true;
}

struct thread *thread_start(const char *name, void (*entry)(void *arg), void *arg)
{
    struct thread *t = calloc(1, sizeof *t);
    if (!t || sim.thread_count == THREADS_MAX)
        abort();
    t->name = name;
    t->entry = entry;
    t->arg = arg;
    t->runnable = true;
    event_init(&t->wake, on_wake);
    t->stack = take_stack();
    getcontext(&t->begin);
    t->begin.uc_stack.ss_sp = t->stack;
    t->begin.uc_stack.ss_size = STACK_SIZE;
    makecontext(&t->begin, fiber_main, 0);
    sim.threads[sim.thread_count++] = t;
    return t;
}

struct thread *thread_self(void)
{
    return sim.self;
}

const char *thread_name(const struct thread *t)
{
    return t->name;
}

_Noreturn void thread_exit(void)
{
    sim.self->ended = true;
    event_cancel(&sim.self->wake);
    leave_fiber(true);
    abort();
}

static void give_way(void)
{
    leave_fiber(false);
    if (sim.self->dropped)
        thread_exit();
}

void thread_sleep(uint64_t ns)
{
    event_set_in(&sim.self->wake, ns);
    give_way();
}

bool thread_rivalled(void)
{
    for (unsigned i = 0; i < sim.thread_count; i++)
        if (sim.threads[i]->runnable) /* the running one is not marked so */
            return true;
    return false;
}

void thread_yield(void)
{
    sim.self->runnable = true;
    give_way();
}

void thread_block(uint64_t at)
{
    struct thread *t = sim.self;
    if (!t->woken) {
        t->blocking = true;
        if (at != TIME_NEVER)
            event_set(&t->wake, at);
        give_way();
        event_cancel(&t->wake);
        t->blocking = false;
    }
    t->woken = false;
}

void thread_wake(struct thread *t)
{
    if (t->blocking)
        t->runnable = true;
    else
        t->woken = true;
}

void thread_spend(uint64_t ns)
{
    struct thread *t = sim.self;
    uint64_t until = sim.now + ns;
    count_step();
    sim.self = NULL; /* events are nobody's */
    while (sim.count > 0 && sim.heap[0]->at <= until && !sim.stopped && !t->dropped)
        run_next_event();
    sim.self = t;
    if (t->dropped || sim.stopped)
        thread_exit();
    if (sim.now < until)
        sim.now = until;
}

void threads_drop(void)
{
    for (unsigned i = 0; i < sim.thread_count; i++) {
        sim.threads[i]->dropped = true;
        event_cancel(&sim.threads[i]->wake);
    }
}

/* ---- the run ---- */

static void bury(void)
{
    unsigned kept = 0;
    for (unsigned i = 0; i < sim.thread_count; i++) {
        struct thread *t = sim.threads[i];
        if (!t->ended && !t->dropped) {
            sim.threads[kept++] = t;
            continue;
        }
        event_cancel(&t->wake);
        give_stack(t->stack);
        free(t);
    }
    sim.thread_count = kept;
}

static struct thread *draw_runnable(void)
{
    struct thread *drawn = NULL;
    unsigned n = 0;
    for (unsigned i = 0; i < sim.thread_count; i++)
        if (sim.threads[i]->runnable && rng_below(&sim.schedule, ++n) == 0)
            drawn = sim.threads[i];
    return drawn;
}

void engine_run(void)
{
    while (!sim.stopped) {
        bury();
        struct thread *t = draw_runnable();
        if (t)
            enter_fiber(t);
        else if (sim.count > 0)
            run_next_event();
        else
            break;
    }
}

void engine_stop(void)
{
    sim.stopped = true;
}

void engine_begin(uint64_t seed)
{
    sim.seed = seed;
    sim.now = sim.order = sim.steps = 0;
    sim.hash = mix(seed);
    sim.stopped = false;
    sim.schedule = rng_of("schedule", 0);
}

void engine_end(void)
{
    threads_drop();
    bury();
    while (sim.count > 0)
        event_cancel(sim.heap[0]);
}
