/* A listening socket on the loop: batches with a budget, a rest when resources run out, and a close that loses nobody
 * who has connected already. */
#include "net/listener.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/metrics.h"
#include "event/notice.h"
#include "net/sock.h"

#include <errno.h>
#include <string.h>

#define BACKLOG 4096 /* the kernel lowers it to net.core.somaxconn */

struct listener {
    struct watch watch;
    struct timer rest;
    struct dead dead;
    struct loop *loop;
    listener_fn *fn;
    void *arg;
    listener_spare_fn *spare; /* or NULL */
    void *spare_arg;
    struct addr at;
    struct sock_file file; /* a unix socket's, when it began here: another one may be put in its place */
    bool closed, keeps_file, paused;
    int error; /* of the last accept that has failed */
    struct notice rests;
};

enum outcome { ACCEPTED, SKIPPED, NONE_LEFT, EXHAUSTED };

/* Errors of the connection that was to be accepted, not of accepting: Linux hands on what is already pending on the new
 * socket (accept(2)), and a firewall's EPERM. */
static bool is_of_connection(int error)
{
    switch (error) {
    case ECONNABORTED:
    case ENETDOWN:
    case EPROTO:
    case ENOPROTOOPT:
    case EHOSTDOWN:
    case ENONET:
    case EHOSTUNREACH:
    case EOPNOTSUPP:
    case ENETUNREACH:
    case ETIMEDOUT:
    case EPERM: return true;
    default: return false;
    }
}

/* A client is worth more than a descriptor that nobody uses. */
static int accept_fd(struct listener *ls, struct addr *from)
{
    int fd = sock_accept(ls->watch.fd, from);
    if ((fd == -EMFILE || fd == -ENFILE) && ls->spare && ls->spare(ls->spare_arg))
        fd = sock_accept(ls->watch.fd, from);
    return fd;
}

static enum outcome accept_one(struct listener *ls)
{
    struct addr from;
    int fd = accept_fd(ls, &from);
    if (fd == -EAGAIN)
        return NONE_LEFT;
    if (fd < 0) {
        metrics.accept_errors++;
        ls->error = -fd;
        return is_of_connection(-fd) ? SKIPPED : EXHAUSTED;
    }
    struct peer peer = peer_from_addr(&from);
    ls->fn(ls->arg, fd, &peer);
    return ACCEPTED;
}

/* Who wants to connect gets no answer meanwhile, so that the log is the one place to see why: one line a second. */
static void log_rests(struct notice *n, uint64_t times)
{
    struct listener *ls = container_of(n, struct listener, rests);
    log_begin(LOG_WARN, "accept_paused");
    log_z("cause", strerrordesc_np(ls->error));
    log_u64("times", times);
    log_end();
}

/* Stops watching until the timer says otherwise. Whatever an unknown error is, resting keeps it from spinning. Should
 * the timer have no place, watching goes on: better to spin than never to accept again. */
static void rest(struct listener *ls)
{
    if (loop_arm(ls->loop, &ls->rest, loop_now(ls->loop) + LISTENER_PAUSE))
        loop_rewatch(ls->loop, &ls->watch, 0);
}

static void on_rested(struct timer *t)
{
    struct listener *ls = container_of(t, struct listener, rest);
    loop_rewatch(ls->loop, &ls->watch, ls->paused ? 0 : LOOP_READ);
}

static void on_ready(struct watch *w, unsigned ready)
{
    (void)ready;
    struct listener *ls = container_of(w, struct listener, watch);
    enum outcome last = ACCEPTED;
    for (int i = 0; i < LISTENER_BATCH && last <= SKIPPED && !ls->closed && !ls->paused; i++)
        last = accept_one(ls);
    if (last == EXHAUSTED && !ls->closed) {
        notice_count(&ls->rests);
        rest(ls);
    }
}

static void reclaim(struct dead *d)
{
    mem_free(container_of(d, struct listener, dead));
}

/* Watches `fd`, which is closed on failure. */
static struct listener *make(struct loop *l, int fd, listener_fn *fn, void *arg, int *error)
{
    struct listener *ls = mem_try_alloc(sizeof *ls);
    int rc = ls ? sock_local_addr(fd, &ls->at) : -ENOMEM;
    if (rc < 0)
        goto fail;
    ls->loop = l;
    ls->file = sock_file_at(&ls->at);
    ls->fn = fn;
    ls->arg = arg;
    timer_init(&ls->rest, on_rested);
    notice_init(&ls->rests, l, NS_PER_S, log_rests);
    watch_init(&ls->watch, fd, on_ready);
    if (loop_watch(l, &ls->watch, LOOP_READ))
        return ls;
    rc = -errno;
fail:
    sock_close(fd);
    mem_free(ls);
    *error = -rc;
    return NULL;
}

/* What sock_listen() has made of `at`. */
static struct listener *watch_at(struct loop *l, const struct addr *at, int fd, listener_fn *fn, void *arg, int *error)
{
    if (fd < 0) {
        *error = -fd;
        return NULL;
    }
    struct listener *ls = make(l, fd, fn, arg, error);
    if (!ls)
        sock_unlink(at);
    return ls;
}

struct listener *listener_new(struct loop *l, const struct addr *at, listener_fn *fn, void *arg, int *error)
{
    return watch_at(l, at, sock_listen(at, BACKLOG), fn, arg, error);
}

struct listener *listener_new_beside(struct loop *l, const struct addr *at, int beside, listener_fn *fn, void *arg,
                                     int *error)
{
    return watch_at(l, at, sock_listen_beside(at, BACKLOG, beside), fn, arg, error);
}

struct listener *listener_adopt(struct loop *l, int fd, bool keep_file, listener_fn *fn, void *arg, int *error)
{
    if (!sock_adopt_listener(fd)) {
        sock_close(fd);
        *error = EINVAL;
        return NULL;
    }
    struct listener *ls = make(l, fd, fn, arg, error);
    if (ls)
        ls->keeps_file = keep_file;
    return ls;
}

void listener_set_spare(struct listener *ls, listener_spare_fn *fn, void *arg)
{
    ls->spare = fn;
    ls->spare_arg = arg;
}

void listener_pause(struct listener *ls)
{
    ls->paused = true;
    loop_rewatch(ls->loop, &ls->watch, 0);
}

void listener_resume(struct listener *ls)
{
    ls->paused = false;
    loop_rewatch(ls->loop, &ls->watch, LOOP_READ);
}

int listener_descriptor(const struct listener *ls)
{
    return ls->watch.fd;
}

bool listener_owns_file(const struct listener *ls)
{
    return !ls->keeps_file && sock_file_is_at(&ls->file, &ls->at);
}

static void let_go(struct listener *ls)
{
    loop_cancel(ls->loop, &ls->rest);
    notice_flush(&ls->rests);
    notice_fini(&ls->rests);
    loop_unwatch(ls->loop, &ls->watch);
    sock_close(ls->watch.fd);
    loop_reclaim(ls->loop, &ls->dead, reclaim);
}

void listener_leave(struct listener *ls)
{
    if (!ls || ls->closed)
        return;
    ls->closed = true;
    let_go(ls);
}

bool listener_has_file_at(const struct listener *ls, const struct addr *at)
{
    return ls->file.known && sock_file_is_at(&ls->file, at);
}

const struct addr *listener_addr(const struct listener *ls)
{
    return &ls->at;
}

/* Delivers what waits in the backlog; bounded, because clients may come faster than they are accepted. */
static void drain(struct listener *ls)
{
    enum outcome last = ACCEPTED;
    for (int i = 0; i < BACKLOG && last <= SKIPPED; i++)
        last = accept_one(ls);
}

void listener_close(struct listener *ls)
{
    if (!ls || ls->closed)
        return;
    ls->closed = true; /* first: the callback may come back here while the backlog is drained */
    if (listener_owns_file(ls))
        sock_unlink(&ls->at);
    drain(ls);
    let_go(ls);
}
