/* The event loop.
 *
 * Everything that the program does on its data path happens inside loop_turn(), on one thread. A turn goes round once:
 *
 *        +----------------------------------------------------------------------------------+
 *        v                                                                                  |
 *     wait in epoll -> read the clock -> handlers -> timers -> posted -> hooks -> reclaim --+
 *        ^   ^   ^                       (stages)        |     (stages)    |         |
 *        |   |   |                         |  ^         |         |        |         |
 *        |   |   |                         |  |         |         |        |         v
 *        |   |   +-- sockets, signalfd ----+  |         |         |        |      free(object)
 *        |   +------ eventfd <- other threads: loop_wake()        |        +- the log's lines are taken
 *        +---------- timerfd <- the heap's earliest deadline      +- what a setter must not call itself
 *
 * What each of them may rely on:
 *
 * - Time stands still within a turn. The clock is read right after the wait, and loop_now() is that moment; so two
 *   decisions of one turn never contradict each other, and nobody pays for reading the clock. It is read once more at
 *   the turn's end, to know of one that was held up: what it noted as of its begin was later (loop_noted()).
 *
 * - What came before a deadline is told before it, however late the turn is, because the process was stopped or much
 *   was ready. So timers come behind the handlers, and fire by the time up to which all has been told (loop_heard()):
 *   that is the time for which the timerfd was set, when it is told of, since epoll tells of what was ready before it
 *   first; or the end of the turn before, when there was room for more than was ready. While turn upon turn some
 *   preferred ones (see below) are left, it is at most the begin of the last round in which each of them had its turn.
 *
 * - The timerfd stands for the heap of timers. It is set only when the earliest deadline is earlier than what it is set
 *   to already, or after it fired. A time-out that is put off or cancelled, as happens with nearly all of them, costs
 *   no system call: at worst the timerfd fires for nothing and is set anew.
 *
 * - A handler may end any object, its own included. The object is unwatched and handed to loop_reclaim(), and its
 * memory stays until the end of the turn. Events that were fetched for it in the same batch are struck out when it is
 *   unwatched: neither it nor whoever gets its descriptor's number next will see them. They are struck out by hand,
 *   since asking the watch whether it is registered is not enough: it may be so again, for another descriptor.
 *
 * - A watch that is to be registered soon stands in a ring, in the order of time, until LOOP_SOON has passed. Whoever
 *   ends before, as most connections do that bring one request, is in epoll never: two system calls less.
 *
 * - What is posted runs after the handlers and timers of this turn, on an empty stack. What is posted from there on
 * runs in the next turn, which does not wait. So no chain of posts can keep the loop from its descriptors.
 *
 * - Stages. Behind the handlers, and once more behind what is posted, come the passes of what is staged: what all
 *   endpoints have received is told, then what all have answered is sent, then all are told that it has been. One
 *   request at a time, the code of each step would have been driven out of the processor's caches by the other steps,
 *   the kernel's among them, until the next request comes to it. The scratch buffer bounds how many go together: it is
 *   lent to those whose bytes have not been told yet, and when much of it is, their passes come at once.
 *
 * - Who ends things comes before who begins them, where there is a backlog: where turn upon turn as much is ready as
 *   may be fetched. From then on, a turn fetches less, until that is not ready: so a load at the border does not move
 *   watches to and fro. Else, with a thousand clients ready, a thousand requests would be begun before the first
 *   response is even looked at, since epoll's queue is one for all, and what each of them needs would have left the
 *   processor's caches meanwhile. So preferred watches are registered in an epoll of their own, which is watched in
 *   the first one, and asked in the same turn; what it tells of is handled first. Being in a second epoll costs each
 *   event something: without a backlog nothing is in it, and what is preferred moves there, and back, when it is
 *   waited for anew. It also moves back when it has been told a few times: what goes on and on, as a stream does,
 *   would keep all others waiting, and ends nothing.
 *
 * - A timer that is armed by a timer's own callback for a time that has come already fires in the next turn, for the
 * same reason.
 *
 * - Reclaiming is last, and goes on until nothing is left: to reclaim an object may be what lets go of the next one.
 */
#include "event/loop.h"

#include "base/clock.h"
#include "base/mem.h"
#include "loop_impl.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

int loop_batch = LOOP_BATCH_MAX;

/* What epoll says and what a watch is told. */

static uint32_t to_epoll(unsigned wanted)
{
    return (wanted & LOOP_READ ? (uint32_t)EPOLLIN : 0) | (wanted & LOOP_WRITE ? (uint32_t)EPOLLOUT : 0) |
           (wanted & EDGE ? EPOLLET : 0);
}

static unsigned from_epoll(uint32_t events)
{
    return (events & EPOLLIN ? (unsigned)LOOP_READ : 0) | (events & EPOLLOUT ? (unsigned)LOOP_WRITE : 0) |
           (events & (EPOLLERR | EPOLLHUP) ? (unsigned)LOOP_HANGUP : 0);
}

static int epoll_of(const struct loop *l, bool preferred)
{
    return preferred ? l->preferred_watch.fd : l->epoll_fd;
}

static int control(int epoll_fd, int op, struct watch *w)
{
    struct epoll_event e = {.events = to_epoll(w->wanted), .data.ptr = w};
    return epoll_ctl(epoll_fd, op, w->fd, &e);
}

void watch_init(struct watch *w, int fd, watch_fn *on_ready)
{
    *w = (struct watch){.fd = fd, .on_ready = on_ready};
}

static bool put_in(struct loop *l, bool preferred, struct watch *w)
{
    if (control(epoll_of(l, preferred), EPOLL_CTL_ADD, w) != 0)
        return false;
    l->preferred_count += preferred;
    return true;
}

static void take_out(struct loop *l, struct watch *w)
{
    int rc = control(epoll_of(l, w->preferred), EPOLL_CTL_DEL, w);
    assert(rc == 0);
    (void)rc;
    l->preferred_count -= w->preferred;
}

static void wait_no_more(struct loop *l, struct watch *w)
{
    if (w->soon)
        l->soon[w->soon - 1].watch = NULL;
    w->soon = 0;
}

bool loop_watch(struct loop *l, struct watch *w, unsigned wanted)
{
    assert(!w->registered);
    wait_no_more(l, w);
    w->wanted = (uint8_t)wanted;
    w->registered = put_in(l, w->preferred, w);
    return w->registered;
}

static bool has_backlog(const struct loop *l)
{
    return l->now < l->backlog_until;
}

static void move(struct loop *l, struct watch *w, bool preferred)
{
    if (w->preferred == preferred)
        return;
    if (w->registered) {
        if (!put_in(l, preferred, w))
            return;
        take_out(l, w);
    }
    w->preferred = preferred;
}

void loop_prefer(struct loop *l, struct watch *w)
{
    w->told = 0;
    move(l, w, has_backlog(l));
}

/* To be called before a preferred watch is told. */
static void count_told(struct loop *l, struct watch *w)
{
    if (w->told < LOOP_PREFERRED)
        w->told++;
    if (w->told == LOOP_PREFERRED)
        move(l, w, false);
}

bool loop_watch_soon(struct loop *l, struct watch *w, unsigned wanted)
{
    if (w->soon)
        return true;
    if (l->soon_count == SOON)
        return loop_watch(l, w, wanted);
    assert(!w->registered);
    unsigned place = (l->soon_first + l->soon_count++) % SOON;
    l->soon[place].watch = w;
    l->soon[place].due = l->now + LOOP_SOON;
    w->wanted = (uint8_t)wanted;
    w->soon = (uint16_t)(place + 1);
    return true;
}

/* Registers those whose time has come. */
static void register_due(struct loop *l)
{
    while (l->soon_count > 0) {
        struct watch *w = l->soon[l->soon_first].watch;
        if (w && l->soon[l->soon_first].due > l->now)
            return;
        l->soon_first = (l->soon_first + 1) % SOON;
        l->soon_count--;
        if (w && !loop_watch(l, w, w->wanted))
            w->on_ready(w, LOOP_REFUSED);
    }
}

void loop_rewatch(struct loop *l, struct watch *w, unsigned wanted)
{
    assert(w->registered);
    if (w->wanted == wanted)
        return;
    w->wanted = (uint8_t)wanted;
    int rc = control(epoll_of(l, w->preferred), EPOLL_CTL_MOD, w);
    assert(rc == 0);
    (void)rc;
}

static void strike_out(struct batch *b, const struct watch *w)
{
    for (int i = b->current; i < b->fetched; i++)
        if (b->events[i].data.ptr == w)
            b->events[i].data.ptr = NULL;
}

/* Also for a descriptor that is closed next: that takes it out of epoll only when nobody else has the open file, and
 * who reads /proc/PID/fd has it for a moment. */
void loop_unwatch(struct loop *l, struct watch *w)
{
    wait_no_more(l, w);
    if (!w->registered)
        return;
    w->registered = false;
    take_out(l, w);
    strike_out(&l->batch, w);
    strike_out(&l->preferred, w);
}

/* Timers. */

static void set_timerfd(struct loop *l, uint64_t deadline)
{
    /* All zeros would switch it off. */
    uint64_t at = deadline ? deadline : 1;
    struct itimerspec spec = {.it_value = {.tv_sec = (time_t)(at / NS_PER_S), .tv_nsec = (long)(at % NS_PER_S)}};
    int rc = timerfd_settime(l->timer_watch.fd, TFD_TIMER_ABSTIME, &spec, NULL);

    assert(rc == 0);
    (void)rc;
    /* One that may have expired already keeps its place in epoll's queue. */
    if (l->timer_set_for > l->ended)
        l->timer_tells = deadline > l->ended ? deadline : l->ended;
    l->timer_set_for = deadline;
}

/* Empties a timerfd or eventfd. False when there was nothing in it, which is fine, too. */
static bool read_counter(int fd)
{
    uint64_t count;
    ssize_t got;

    do
        got = read(fd, &count, sizeof(count));
    while (got < 0 && errno == EINTR);
    return got > 0;
}

/* Never later than it is, or a timer that is armed anew would fire again and again. */
static void hear(struct loop *l, uint64_t up_to)
{
    if (l->preferred_left && up_to > l->preferred_heard)
        up_to = l->preferred_heard;
    if (up_to > l->now)
        up_to = l->now;
    if (up_to > l->heard)
        l->heard = up_to;
}

static void on_timerfd(struct watch *w, unsigned ready)
{
    struct loop *l = container_of(w, struct loop, timer_watch);

    (void)ready;
    if (read_counter(w->fd))
        hear(l, l->timer_tells);
    l->timer_set_for = TIMER_NEVER;
}

bool loop_arm(struct loop *l, struct timer *t, uint64_t deadline)
{
    if (l->firing && deadline <= l->now)
        deadline = l->now + 1;
    return timer_heap_arm(&l->timers, t, deadline);
}

bool loop_reserve(struct loop *l, size_t n)
{
    return timer_heap_reserve(&l->timers, n);
}

void loop_cancel(struct loop *l, struct timer *t)
{
    timer_heap_cancel(&l->timers, t);
}

/* Wake-ups from other threads. */

static void on_eventfd(struct watch *watch, unsigned ready)
{
    struct loop *l = container_of(watch, struct loop, wakeup_watch);

    (void)ready;
    /* Before the flags are looked at: a wake after that makes the eventfd readable again. */
    (void)read_counter(watch->fd);
    LIST_EACH (it, &l->wakeups) {
        struct loop_wakeup *w = container_of(it, struct loop_wakeup, link);
        if (__atomic_exchange_n(&w->pending, 0, __ATOMIC_ACQ_REL))
            w->run(w);
    }
}

void loop_add_wakeup(struct loop *l, struct loop_wakeup *w, loop_wakeup_fn *run)
{
    *w = (struct loop_wakeup){.loop = l, .run = run};
    list_push_back(&l->wakeups, &w->link);
}

void loop_remove_wakeup(struct loop_wakeup *w)
{
    list_remove(&w->link);
}

void loop_wake(struct loop_wakeup *w)
{
    const uint64_t one = 1;
    ssize_t n;

    if (__atomic_exchange_n(&w->pending, 1, __ATOMIC_ACQ_REL))
        return;
    do
        n = write(w->loop->wakeup_watch.fd, &one, sizeof(one));
    while (n < 0 && errno == EINTR);
}

/* The parts of a turn, in their order. */

/* epoll's time-out: milliseconds, rounded up so that a short wait does not become a spin. */
static int wait_ms(const struct loop *l, uint64_t max_wait_ns)
{
    if (!list_empty(&l->posted) || !list_empty(&l->staged))
        return 0;
    if (l->soon_count > 0) {
        uint64_t due = l->soon[l->soon_first].due - l->now;
        if (due < max_wait_ns)
            max_wait_ns = due;
    }
    if (max_wait_ns == TIMER_NEVER)
        return -1;
    uint64_t ms = max_wait_ns / NS_PER_MS + (max_wait_ns % NS_PER_MS != 0);
    return ms < INT_MAX ? (int)ms : INT_MAX;
}

/* False when the wait was interrupted by going on after a stop: no other signal is let through. */
static bool fetch(int epoll_fd, struct batch *b, int max, int timeout_ms)
{
    b->current = 0;
    b->fetched = epoll_wait(epoll_fd, b->events, max, timeout_ms);
    if (b->fetched >= 0)
        return true;
    assert(errno == EINTR);
    b->fetched = 0;
    return false;
}

static bool is_told(const struct batch *b, const struct watch *w)
{
    for (int i = 0; i < b->fetched; i++)
        if (b->events[i].data.ptr == w)
            return true;
    return false;
}

/* Some may stay ready for ever, so that there are always some left. But epoll tells of them in turn: when it has told
 * as often as there were watches when a round began, it has told of all that were ready then. */
static void fetch_preferred(struct loop *l)
{
    int max = BATCH_SHARE * loop_batch;
    if (l->round_left == 0) {
        l->round_left = l->preferred_count;
        l->round_begun = l->ended;
    }
    bool done = fetch(l->preferred_watch.fd, &l->preferred, max, 0);
    l->preferred_left = !done || l->preferred.fetched == max;
    size_t told = (size_t)l->preferred.fetched;
    l->round_left = l->preferred_left && told < l->round_left ? l->round_left - told : 0;
    if (l->round_left == 0)
        l->preferred_heard = l->round_begun;
}

static void on_preferred(struct watch *w, unsigned ready)
{
    (void)w; /* what it tells of has been fetched in this very turn */
    (void)ready;
}

static void fetch_events(struct loop *l, uint64_t max_wait_ns)
{
    register_due(l);
    uint64_t next = timer_heap_next(&l->timers);
    if (next < l->timer_set_for)
        set_timerfd(l, next);
    int max = has_backlog(l) ? loop_batch : BATCH_SHARE * loop_batch;
    l->interrupted = !fetch(l->epoll_fd, &l->batch, max, wait_ms(l, max_wait_ns));
    l->full_turns = l->batch.fetched == max ? l->full_turns + 1 : 0;
    /* Behind the first wait: with what it has told of, all is fetched that was ready before. */
    bool more = l->full_turns > 0 || is_told(&l->batch, &l->preferred_watch);
    if (l->preferred_left || (more && l->preferred_count > 0))
        fetch_preferred(l);
}

/* A wait that has brought less than there is room for has brought all that was ready when it began. */
static void note_heard(struct loop *l)
{
    if (!l->interrupted && l->full_turns == 0)
        hear(l, l->ended);
}

static void note_backlog(struct loop *l)
{
    if (l->full_turns >= BACKLOG_TURNS)
        l->backlog_until = l->now + BACKLOG_FOR;
}

static void tell(struct loop *l, struct batch *b)
{
    while (b->current < b->fetched) {
        const struct epoll_event *e = &b->events[b->current++];
        struct watch *w = e->data.ptr;
        if (w) {
            if (w->preferred)
                count_told(l, w);
            w->on_ready(w, from_epoll(e->events));
        }
        loop_return_lent(l);
    }
}

static void run_handlers(struct loop *l)
{
    tell(l, &l->preferred);
    tell(l, &l->batch);
    loop_run_stages(l);
}

static void run_timers(struct loop *l)
{
    struct timer *t;

    l->firing = true;
    while ((t = timer_heap_pop_due(&l->timers, l->heard)))
        t->fire(t);
    l->firing = false;
}

/* How long a turn that is remembered was held up; what was noted in it long ago has been looked at since. */
static uint64_t weight_of(const struct loop *l, int i)
{
    return l->ended - l->held[i].end < HELD_FOR ? l->held[i].end - l->held[i].begin : 0;
}

static void note_end(struct loop *l)
{
    l->ended = clock_monotonic();
    if (l->ended - l->now < LOOP_HELD_UP)
        return;
    if (l->ended - l->now >= LOOP_STOOD_STILL)
        l->went_on = l->ended;
    int least = 0;
    for (int i = 1; i < HELD; i++)
        if (weight_of(l, i) < weight_of(l, least))
            least = i;
    if (l->ended - l->now < weight_of(l, least))
        return;
    l->held[least].begin = l->now;
    l->held[least].end = l->ended;
}

void loop_turn(struct loop *l, uint64_t max_wait_ns)
{
    fetch_events(l, max_wait_ns);
    l->now = clock_monotonic();
    if (l->interrupted)
        l->went_on = l->now;
    note_heard(l);
    note_backlog(l);
    run_handlers(l);
    run_timers(l);
    loop_run_posted(l);
    loop_run_stages(l);
    loop_run_hooks(l);
    loop_reclaim_dead(l);
    note_end(l);
}

void loop_run(struct loop *l)
{
    while (!l->stopped)
        loop_turn(l, TIMER_NEVER);
    l->stopped = false;
}

void loop_stop(struct loop *l)
{
    l->stopped = true;
}

uint64_t loop_now(const struct loop *l)
{
    return l->now;
}

uint64_t loop_heard(const struct loop *l)
{
    return l->heard;
}

uint64_t loop_went_on(const struct loop *l)
{
    return l->went_on;
}

uint64_t loop_noted(const struct loop *l, uint64_t noted)
{
    for (int i = 0; i < HELD; i++)
        if (l->held[i].begin == noted)
            return l->held[i].end;
    return noted;
}

char *loop_scratch(struct loop *l)
{
    return l->scratch + l->lent;
}

void loop_lend(struct loop *l, size_t n)
{
    const size_t line = 64; /* of the processor's cache: two messages share none */

    l->lent += (n + line - 1) / line * line;
    assert(l->lent < LENT_MAX + LOOP_SCRATCH_SIZE);
}

/* Birth and death. */

static bool watch_own_fd(struct loop *l, struct watch *w, int fd, unsigned wanted, watch_fn *on_ready)
{
    watch_init(w, fd, on_ready);
    return fd >= 0 && loop_watch(l, w, wanted);
}

static bool open_descriptors(struct loop *l)
{
    l->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    return l->epoll_fd >= 0 &&
           watch_own_fd(l, &l->preferred_watch, epoll_create1(EPOLL_CLOEXEC), LOOP_READ, on_preferred) &&
           watch_own_fd(l, &l->timer_watch, timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC),
                        LOOP_READ | EDGE, on_timerfd) &&
           watch_own_fd(l, &l->wakeup_watch, eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC), LOOP_READ, on_eventfd);
}

struct loop *loop_new(void)
{
    struct loop *l = mem_try_alloc(sizeof(*l));

    if (!l)
        return NULL;
    l->epoll_fd = l->preferred_watch.fd = l->timer_watch.fd = l->wakeup_watch.fd = -1;
    l->timer_set_for = TIMER_NEVER;
    timer_heap_init(&l->timers);
    list_init(&l->posted);
    list_init(&l->staged);
    list_init(&l->hooks);
    list_init(&l->dead);
    list_init(&l->wakeups);
    l->now = l->ended = clock_monotonic();
    l->scratch = mem_try_alloc(LENT_MAX + LOOP_SCRATCH_SIZE);
    if (l->scratch && open_descriptors(l))
        return l;
    int saved = errno;
    loop_free(l);
    errno = saved;
    return NULL;
}

static void close_own_fd(struct loop *l, struct watch *w)
{
    loop_unwatch(l, w);
    if (w->fd >= 0)
        close(w->fd);
}

void loop_free(struct loop *l)
{
    if (!l)
        return;
    loop_reclaim_dead(l);
    timer_heap_fini(&l->timers);
    close_own_fd(l, &l->timer_watch);
    close_own_fd(l, &l->wakeup_watch);
    close_own_fd(l, &l->preferred_watch);
    if (l->epoll_fd >= 0)
        close(l->epoll_fd);
    mem_free(l->scratch);
    mem_free(l);
}
