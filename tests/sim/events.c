/* What the loop waits with: epoll, timerfd, eventfd, signalfd; and clocks, signals, randomness, limits. */
#include "calls.h"
#include "kernel.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>

static struct rng order_of(void)
{
    return (struct rng){call_draw(UINT64_MAX)};
}

/* ---- epoll ---- */

struct epoll;
struct epoll_item {
    struct epoll *ep;
    struct file *file;
    int fd;
    struct epoll_event wanted;
    struct epoll_item *next_of_file, *next;
};

struct epoll {
    struct file file;
    struct epoll_item *items;
    unsigned count;
    struct thread *waiter;
};

static uint32_t item_ready(const struct epoll_item *i)
{
    return i->file->ops->ready(i->file) & (i->wanted.events | EPOLLERR | EPOLLHUP);
}

/* An epoll that is watched by another one has changed with what it watches. */
void file_changed(struct file *f)
{
    for (struct epoll_item *i = f->items; i; i = i->next_of_file) {
        if (!item_ready(i))
            continue;
        if (i->ep->waiter)
            thread_wake(i->ep->waiter);
        file_changed(&i->ep->file);
    }
}

static struct epoll_item **find_item(struct epoll *ep, const struct file *f, int fd)
{
    struct epoll_item **i = &ep->items;
    while (*i && !((*i)->file == f && (*i)->fd == fd))
        i = &(*i)->next;
    return i;
}

static void remove_item(struct epoll_item **at)
{
    struct epoll_item *i = *at, **of_file = &i->file->items;
    while (*of_file != i)
        of_file = &(*of_file)->next_of_file;
    *of_file = i->next_of_file;
    *at = i->next;
    i->ep->count--;
    free(i);
}

void epoll_forget(struct file *f)
{
    while (f->items)
        remove_item(find_item(f->items->ep, f, f->items->fd));
}

static uint32_t epoll_ready(struct file *f)
{
    for (const struct epoll_item *i = ((struct epoll *)f)->items; i; i = i->next)
        if (item_ready(i))
            return EPOLLIN;
    return 0;
}

static ssize_t no_read(struct file *f, void *p, size_t n)
{
    (void)f;
    (void)p;
    (void)n;
    return -EINVAL;
}

static ssize_t no_write(struct file *f, const void *p, size_t n)
{
    (void)f;
    (void)p;
    (void)n;
    return -EINVAL;
}

static void epoll_close(struct file *f)
{
    struct epoll *ep = (struct epoll *)f;
    while (ep->items)
        remove_item(&ep->items);
    free(ep);
}

static const struct file_ops epoll_ops = {"epoll", epoll_ready, no_read, no_write, epoll_close};

int sim_epoll_create1(int flags)
{
    syscall_begin("epoll_create1", flags, 0);
    fd_check_flags("epoll_create1", flags);
    int e = fd_fault();
    if (e)
        return (int)syscall_end("epoll_create1", e);
    struct epoll *ep = zalloc(sizeof *ep);
    file_init(&ep->file, &epoll_ops, 0);
    return (int)syscall_end("epoll_create1", fd_install(&ep->file));
}

static int epoll_add(struct epoll *ep, struct file *f, int fd, const struct epoll_event *e)
{
    if (!f->ops->ready)
        return -EPERM;
    if (fault_rarely_at_start(&kernel.faults.epoll_enomem, 8)) {
        kernel.shown.epoll += process.serving;
        kernel.shown.start += !process.serving;
        return call_draw(2) ? -ENOMEM : -ENOSPC;
    }
    struct epoll_item *i = zalloc(sizeof *i);
    *i = (struct epoll_item){ep, f, fd, *e, f->items, ep->items};
    f->items = ep->items = i;
    ep->count++;
    return 0;
}

static const struct file_ops timerfd_ops;

static int control(struct epoll *ep, int op, int fd, const struct epoll_event *e)
{
    struct file *f = fd_need(fd, "epoll_ctl");
    struct epoll_item **i = find_item(ep, f, fd);
    /* Who reads it each time sees no difference between the edge of a timerfd and its level. */
    uint32_t known = EPOLLIN | EPOLLOUT | EPOLLRDHUP | (f->ops == &timerfd_ops ? EPOLLET : 0);
    if (op != EPOLL_CTL_DEL && (e->events & ~known))
        sim_fail("kernel", "epoll_ctl with events %#x, of which not all are simulated", e->events);
    if (op == EPOLL_CTL_ADD)
        return *i ? -EEXIST : epoll_add(ep, f, fd, e);
    if (!*i)
        return -ENOENT;
    if (op == EPOLL_CTL_DEL)
        remove_item(i);
    else
        (*i)->wanted = *e;
    return 0;
}

int sim_epoll_ctl(int epfd, int op, int fd, struct epoll_event *e)
{
    syscall_begin("epoll_ctl", op, fd);
    struct file *ep = fd_need(epfd, "epoll_ctl");
    int r = control((struct epoll *)ep, op, fd, e);
    if (r == 0 && op != EPOLL_CTL_DEL)
        file_changed(fd_need(fd, "epoll_ctl"));
    return (int)syscall_end("epoll_ctl", r);
}

/* Now and then something that is not ready is called readable: a packet that turned out bad. */
static uint32_t spurious(const struct epoll_item *i)
{
    return fault(kernel.faults.spurious) ? i->wanted.events & EPOLLIN : 0;
}

/* The order of events is nobody's right: it begins somewhere. */
static int collect(struct epoll *ep, struct epoll_event *events, int max)
{
    struct rng r = order_of();
    bool any_true = false;
    int n = 0;
    uint64_t skip = ep->count ? rng_below(&r, ep->count) : 0;
    if (rng_chance(&r, 100))
        max = (int)rng_between(&r, 1, (uint64_t)max);
    for (int round = 0; round < 2; round++) {
        uint64_t at = 0;
        for (struct epoll_item *i = ep->items; i && n < max; i = i->next, at++) {
            if ((at < skip) != (round == 1))
                continue;
            uint32_t ready = item_ready(i);
            any_true |= ready != 0;
            if (!ready)
                ready = spurious(i);
            if (!ready)
                continue;
            events[n++] = (struct epoll_event){.events = ready, .data = i->wanted.data};
            trace("ready fd events", i->fd, ready, 0);
        }
    }
    if (n > 0 && !any_true)
        syscall_turn_for_nothing();
    return n;
}

/* When a sleep ends that would last until `end`: what is ready for nothing may also wake who sleeps. */
static uint64_t spurious_wakeup(uint64_t end)
{
    uint64_t at = fault(kernel.faults.spurious) ? sim_now() + 1 + call_draw(100 * MS) : end;
    return at < end ? at : end;
}

static int wait_for_events(struct epoll *ep, struct epoll_event *events, int max, int timeout)
{
    uint64_t end = timeout < 0 ? TIME_NEVER : sim_now() + (uint64_t)timeout * MS;
    for (;;) {
        if (fault(kernel.faults.eintr))
            return -EINTR;
        syscall_give_way(); /* even though something is ready */
        int n = collect(ep, events, max);
        if (n > 0 || sim_now() >= end)
            return n;
        ep->waiter = thread_self();
        ep->file.users++;
        thread_block(spurious_wakeup(end));
        ep->file.users--;
        ep->waiter = NULL;
        thread_spend(500 + call_draw(20000)); /* until it is on a processor again */
    }
}

int sim_epoll_wait(int epfd, struct epoll_event *events, int max, int timeout)
{
    syscall_begin("epoll_wait", max, timeout);
    process.serving = true;
    if (process.on_turn)
        process.on_turn();
    syscall_turn();
    struct epoll *ep = (struct epoll *)fd_need(epfd, "epoll_wait");
    uint64_t before = sim_now();
    int n = wait_for_events(ep, events, max, timeout);
    if (sim_now() - before > MS) /* it has slept: that is no spin */
        syscall_progress();
    return (int)syscall_end("epoll_wait", n);
}

/* ---- eventfd ---- */

struct eventfd_file {
    struct file file;
    uint64_t count;
};

static uint32_t eventfd_ready(struct file *f)
{
    return (((struct eventfd_file *)f)->count ? (uint32_t)EPOLLIN : 0) | EPOLLOUT;
}

/* What a read returns that finds nothing. */
static ssize_t nothing_yet(const struct file *f)
{
    if (!(f->flags & O_NONBLOCK))
        sim_fail("blocking", "%s reads from a %s that has nothing, and would wait", thread_name(thread_self()),
                 f->ops->name);
    return -EAGAIN;
}

static ssize_t counter_take(const struct file *f, uint64_t *count, void *p, size_t n)
{
    if (n < sizeof *count)
        return -EINVAL;
    if (*count == 0)
        return nothing_yet(f);
    memcpy(p, count, sizeof *count);
    *count = 0;
    return sizeof *count;
}

static ssize_t take_count(struct file *f, void *p, size_t n)
{
    return counter_take(f, &((struct eventfd_file *)f)->count, p, n);
}

static ssize_t add_count(struct file *f, const void *p, size_t n)
{
    uint64_t more;
    if (n < sizeof more)
        return -EINVAL;
    memcpy(&more, p, sizeof more);
    ((struct eventfd_file *)f)->count += more;
    file_changed(f);
    return sizeof more;
}

static void plain_close(struct file *f)
{
    free(f);
}

static const struct file_ops eventfd_ops = {"eventfd", eventfd_ready, take_count, add_count, plain_close};

int sim_eventfd(unsigned count, int flags)
{
    syscall_begin("eventfd", count, flags);
    fd_check_flags("eventfd", flags);
    if (flags & EFD_SEMAPHORE)
        sim_fail("kernel", "a use of eventfd that is not simulated");
    int e = fd_fault();
    if (e)
        return (int)syscall_end("eventfd", e);
    struct eventfd_file *f = zalloc(sizeof *f);
    file_init(&f->file, &eventfd_ops, O_RDWR | flags);
    f->count = count;
    return (int)syscall_end("eventfd", fd_install(&f->file));
}

/* ---- timerfd ---- */

struct timerfd_file {
    struct file file;
    struct event event;
    uint64_t expired;
    bool waits; /* it was set for a time that had not come yet */
};

static uint32_t timerfd_ready(struct file *f)
{
    return ((struct timerfd_file *)f)->expired ? (uint32_t)EPOLLIN : 0;
}

static ssize_t timerfd_read(struct file *f, void *p, size_t n)
{
    return counter_take(f, &((struct timerfd_file *)f)->expired, p, n);
}

static void timerfd_close(struct file *f)
{
    event_cancel(&((struct timerfd_file *)f)->event);
    free(f);
}

static const struct file_ops timerfd_ops = {"timerfd", timerfd_ready, timerfd_read, no_write, timerfd_close};

static void on_timer(struct event *e)
{
    struct timerfd_file *t = (struct timerfd_file *)(void *)((char *)e - offsetof(struct timerfd_file, event));
    t->expired++;
    if (t->waits)
        syscall_progress();
    trace("timerfd-expires", 0, 0, 0);
    file_changed(&t->file);
}

int sim_timerfd_create(int clock, int flags)
{
    syscall_begin("timerfd_create", clock, flags);
    fd_check_flags("timerfd_create", flags);
    if (clock != CLOCK_MONOTONIC)
        sim_fail("kernel", "timerfd_create with clock %d, which is not simulated", clock);
    int e = fd_fault();
    if (e)
        return (int)syscall_end("timerfd_create", e);
    struct timerfd_file *t = zalloc(sizeof *t);
    file_init(&t->file, &timerfd_ops, O_RDWR | flags);
    event_init(&t->event, on_timer);
    return (int)syscall_end("timerfd_create", fd_install(&t->file));
}

int sim_timerfd_settime(int fd, int flags, const struct itimerspec *spec, struct itimerspec *old)
{
    (void)old;
    uint64_t at = (uint64_t)spec->it_value.tv_sec * S + (uint64_t)spec->it_value.tv_nsec;
    syscall_begin("timerfd_settime", fd, (int64_t)at);
    struct timerfd_file *t = (struct timerfd_file *)fd_need(fd, "timerfd_settime");
    if (t->file.ops != &timerfd_ops || flags != TFD_TIMER_ABSTIME || spec->it_interval.tv_sec ||
        spec->it_interval.tv_nsec)
        sim_fail("kernel", "a use of timerfd that is not simulated");
    t->expired = 0;
    event_cancel(&t->event);
    uint64_t zero = kernel.boot + kernel.slept;
    if (at > 0)
        event_set(&t->event, at + zero > 1000 * S ? at + zero - 1000 * S : 0);
    t->waits = at > 0 && t->event.at > sim_now();
    return (int)syscall_end("timerfd_settime", 0);
}

/* ---- signals ---- */

static struct {
    uint64_t blocked, pending, ignored; /* bit n-1 for signal n */
    struct file *fd;
    uint64_t fd_mask;
} signals;

static uint64_t bits_of(const sigset_t *set)
{
    uint64_t bits = 0;
    for (int s = 1; s < 64; s++)
        bits |= (uint64_t)(sigismember(set, s) == 1) << (s - 1);
    return bits;
}

void signals_reset(void)
{
    signals.blocked = signals.pending = signals.ignored = signals.fd_mask = 0;
    signals.fd = NULL;
}

bool signals_ignored(int signo)
{
    return signals.ignored >> (signo - 1) & 1;
}

bool signals_blocked(int signo)
{
    return signals.blocked >> (signo - 1) & 1;
}

void signal_arrived(int signo)
{
    signals.pending |= UINT64_C(1) << (signo - 1);
    if (signals.fd)
        file_changed(signals.fd);
}

static uint32_t signalfd_ready(struct file *f)
{
    (void)f;
    return signals.pending & signals.fd_mask ? (uint32_t)EPOLLIN : 0;
}

static ssize_t signalfd_read(struct file *f, void *p, size_t n)
{
    size_t done = 0;
    for (unsigned s = 1; s < 64 && done + sizeof(struct signalfd_siginfo) <= n; s++) {
        uint64_t bit = UINT64_C(1) << (s - 1);
        if (!(signals.pending & signals.fd_mask & bit))
            continue;
        signals.pending &= ~bit;
        struct signalfd_siginfo info = {.ssi_signo = s};
        memcpy((char *)p + done, &info, sizeof info);
        done += sizeof info;
        syscall_progress();
    }
    return done ? (ssize_t)done : nothing_yet(f);
}

static void signalfd_close(struct file *f)
{
    signals.fd = NULL;
    free(f);
}

static const struct file_ops signalfd_ops = {"signalfd", signalfd_ready, signalfd_read, no_write, signalfd_close};

int sim_signalfd(int fd, const sigset_t *mask, int flags)
{
    syscall_begin("signalfd", fd, flags);
    fd_check_flags("signalfd", flags);
    if (fd != -1)
        sim_fail("kernel", "a use of signalfd that is not simulated");
    int e = fd_fault();
    if (e)
        return (int)syscall_end("signalfd", e);
    struct file *f = zalloc(sizeof *f);
    file_init(f, &signalfd_ops, O_RDWR | flags);
    signals.fd = f;
    signals.fd_mask = bits_of(mask);
    return (int)syscall_end("signalfd", fd_install(f));
}

int sim_sigprocmask(int how, const sigset_t *set, sigset_t *old)
{
    (void)old;
    if (how == SIG_BLOCK)
        signals.blocked |= bits_of(set);
    else
        sim_fail("kernel", "a use of sigprocmask that is not simulated");
    return 0;
}

/* Threads have no masks of their own here: signals go to the process. */
int sim_pthread_sigmask(int how, const sigset_t *set, sigset_t *old)
{
    (void)how;
    (void)set;
    (void)old;
    return 0;
}

__sighandler_t sim_signal(int signo, __sighandler_t handler)
{
    if (handler != SIG_IGN)
        sim_fail("kernel", "a use of signal that is not simulated");
    bool before = signals_ignored(signo);
    signals.ignored |= UINT64_C(1) << (signo - 1);
    return before ? SIG_IGN : SIG_DFL;
}

/* ---- clocks, randomness, limits ---- */

int sim_clock_gettime(clockid_t id, struct timespec *ts)
{
    thread_spend(30);
    if (id != CLOCK_REALTIME && id != CLOCK_MONOTONIC && id != CLOCK_BOOTTIME)
        sim_fail("kernel", "clock_gettime with clock %d, which is not simulated", id);
    uint64_t now = sim_now() - kernel.boot + 1000 * S;
    if (id == CLOCK_REALTIME)
        now = (uint64_t)((int64_t)sim_now() + kernel.wall_offset);
    else if (id == CLOCK_MONOTONIC)
        now -= kernel.slept;
    *ts = (struct timespec){.tv_sec = (time_t)(now / S), .tv_nsec = (long)(now % S)};
    return 0;
}

ssize_t sim_getrandom(void *p, size_t n, unsigned flags)
{
    syscall_begin("getrandom", (int64_t)n, flags);
    if (fault(kernel.faults.eintr))
        return syscall_end("getrandom", -EINTR);
    size_t take = n > 1 && fault(kernel.faults.short_read) ? n / 2 : n;
    for (size_t i = 0; i < take; i++)
        ((unsigned char *)p)[i] = (unsigned char)call_draw(256);
    return syscall_end("getrandom", (ssize_t)take);
}

int sim_getrlimit(int what, struct rlimit *limit)
{
    if (what != RLIMIT_NOFILE)
        sim_fail("kernel", "a use of getrlimit that is not simulated");
    *limit = (struct rlimit){fd_get_limit(), kernel.fd_hard_limit};
    return 0;
}

int sim_setrlimit(int what, const struct rlimit *limit)
{
    if (what != RLIMIT_NOFILE || limit->rlim_max != kernel.fd_hard_limit)
        sim_fail("kernel", "a use of setrlimit that is not simulated");
    syscall_begin("setrlimit", (int64_t)limit->rlim_cur, 0);
    bool fits = limit->rlim_cur <= limit->rlim_max;
    if (fits)
        fd_set_limit(limit->rlim_cur);
    return (int)syscall_end("setrlimit", fits ? 0 : -EINVAL);
}
