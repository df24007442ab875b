/* A new connection to a backend: its addresses are tried one after another, until one answers or the time for all of
 * them is over. */
#include "back_conn.h"
#include "base/mem.h"
#include "base/metrics.h"

#include <errno.h>
#include <string.h>

bool back_error_is_ours(int e)
{
    return e == EMFILE || e == ENFILE || e == ENOBUFS || e == ENOMEM || e == EADDRNOTAVAIL ||
           e == EAGAIN; /* a unix socket's backlog is full: it is busy, that is no fault */
}

const char *back_error_text(int sys_errno)
{
    return sys_errno == ECONNREFUSED ? "connect refused" : strerrordesc_np(sys_errno);
}

static bool connect_next(struct back_conn *c, int *error)
{
    struct backend *be = c->backend;
    *error = EHOSTUNREACH;
    while (c->addrs_tried < be->addr_count) {
        uint64_t now = loop_now(be->upstream->loop);
        if (now >= c->connect_deadline) {
            *error = ETIMEDOUT;
            return false;
        }
        /* One that does not answer must leave time for the others. */
        uint64_t share = (c->connect_deadline - now) / (uint64_t)(be->addr_count - c->addrs_tried);
        c->addr_at = (be->addr_at + c->addrs_tried++) % be->addr_count;
        c->io = io_connect(be->upstream->loop, &be->addrs[c->addr_at], share > 0 ? share : 1, back_on_io, c, error);
        if (c->io)
            return true;
    }
    return false;
}

struct back_conn *back_open(struct backend *be, uint64_t timeout_ns, const struct back_events *ev, void *arg)
{
    struct back_conn *c = mem_try_alloc(sizeof *c);
    if (!c)
        return NULL;
    c->backend = be;
    c->state = BACK_CONNECTING;
    c->events = ev;
    c->arg = arg;
    c->connect_deadline = loop_now(be->upstream->loop) + timeout_ns;
    list_init(&c->link);
    int error;
    if (!connect_next(c, &error)) {
        mem_free(c);
        errno = error;
        return NULL;
    }
    backend_get(be);
    be->open_count++;
    metrics.backend_connects++;
    return c;
}

void back_connected(struct back_conn *c)
{
    c->backend->addr_at = c->addr_at;
    back_begin(c, c->events, c->arg);
    c->events->on_ready(c->arg);
}

void back_connect_failed(struct back_conn *c, enum err e, int sys_errno)
{
    int error;
    struct io *failed = c->io;
    if (connect_next(c, &error)) {
        io_close(failed);
        return;
    }
    c->io = failed; /* back_fail() closes it */
    back_fail(c, e, sys_errno);
}
