/* Signals as events: blocked, and read from a signalfd like any other input.
 * Threads that are started later inherit the mask. */
#include "event/signals.h"

#include "base/mem.h"
#include "base/process.h"

#include <errno.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <unistd.h>

#define BATCH 8

struct signals {
    struct loop *loop;
    struct watch watch;
    signals_fn *fn;
    void *arg;
};

static sigset_t handled(void)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    sigaddset(&set, SIGUSR1);
    sigaddset(&set, SIGUSR2);
    return set;
}

static void on_signalfd(struct watch *w, unsigned ready)
{
    struct signals *s = container_of(w, struct signals, watch);
    struct signalfd_siginfo info[BATCH];
    ssize_t got = read(w->fd, info, sizeof(info));

    (void)ready;
    /* Whatever kept the read from succeeding, the descriptor stays readable as long as there is something in it. */
    for (ssize_t i = 0; got > 0 && i < got / (ssize_t)sizeof(info[0]); i++)
        s->fn(s->arg, (int)info[i].ssi_signo);
}

/* The first process of a container gets the children of those that end before them (a `docker exec` leaves some), and
 * is to let them go. It has none of its own whose exit status it would ask for: such a one begins no upgrade. */
static bool let_orphans_go(void)
{
    return !process_is_first() || signal(SIGCHLD, SIG_IGN) != SIG_ERR;
}

static bool start(struct signals *s)
{
    sigset_t set = handled();

    if (signal(SIGPIPE, SIG_IGN) == SIG_ERR || !let_orphans_go() || sigprocmask(SIG_BLOCK, &set, NULL) != 0)
        return false;
    watch_init(&s->watch, signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC), on_signalfd);
    return s->watch.fd >= 0 && loop_watch(s->loop, &s->watch, LOOP_READ);
}

struct signals *signals_new(struct loop *l, signals_fn *fn, void *arg)
{
    struct signals *s = mem_try_alloc(sizeof(*s));

    if (!s)
        return NULL;
    *s = (struct signals){.loop = l, .watch.fd = -1, .fn = fn, .arg = arg};
    if (start(s))
        return s;
    int saved = errno;
    signals_free(s);
    errno = saved;
    return NULL;
}

void signals_free(struct signals *s)
{
    if (!s)
        return;
    loop_unwatch(s->loop, &s->watch);
    if (s->watch.fd >= 0)
        close(s->watch.fd);
    mem_free(s);
}
