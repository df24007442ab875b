/* A new connection to a backend: its addresses are tried one after another, until one answers or the time for all of
 * them is over. */
#include "back_conn.h"
#include "base/clock.h"
#include "base/mem.h"
#include "base/metrics.h"
#include "upstream/upstream.h"

#include <errno.h>
#include <string.h>

#define PORT_HELD_FOR (60 * NS_PER_S) /* TIME_WAIT: the kernel's, not to be set */

/* May it be local ports that have run out? Linux says EADDRNOTAVAIL then, and as well where there is no local address
 * to connect from, as with an IPv6 backend where IPv6 is switched off. A port is taken only for one place: they run out
 * by connections to that very backend that stand, or stood less than a minute ago. Where none did, it is the address.
 * (Those of another process, such as the one before an upgrade, are not seen: the backend may be found down then, which
 * for us it is, until a port is free. And where IPv6 is switched off under connections, that is found out a minute
 * after the last of them.) */
static bool ports_may_have_run_out(const struct backend *be)
{
    uint64_t now = loop_now(be->upstream->loop);
    return be->standing > 0 || (be->stood_at > 0 && now - be->stood_at <= PORT_HELD_FOR);
}

/* EAGAIN is not: a unix socket's backlog is full, for its server takes no more just now. */
bool back_error_is_ours(const struct backend *be, int e)
{
    if (e == EADDRNOTAVAIL)
        return ports_may_have_run_out(be);
    return e == EMFILE || e == ENFILE || e == ENOBUFS || e == ENOMEM;
}

/* A burst fills the backlog of a server that is well: more connects within a turn than it has room for. */
bool back_error_is_passing(const struct backend *be, int e)
{
    return e == EAGAIN && be->config->endpoint.kind == ENDPOINT_UNIX;
}

const char *back_error_text(int sys_errno)
{
    switch (sys_errno) {
    case ECONNREFUSED: return "connect refused";
    case EAGAIN: return "backlog full";
    case EADDRNOTAVAIL: return "no local address or port to connect from";
    default: return strerrordesc_np(sys_errno);
    }
}

bool back_has_moved(const struct back_conn *c)
{
    return backend_address_at(c->backend, c->addr_id) < 0;
}

/* Begins with the address that answered last; anew where others have come, or some have gone, since it began. */
static void begin_round(struct back_conn *c)
{
    const struct backend *be = c->backend;
    c->addr_changes = be->addr_changes;
    c->addr_first = be->addr_at;
    c->addrs_tried = 0;
}

/* An idle connection's descriptor is better used for this. */
static bool make_room(struct back_conn *c)
{
    struct upstream *u = c->backend->upstream;
    return c->events->yields ? upstream_spare(u) : pool_close_oldest(u);
}

static struct io *connect_to(struct back_conn *c, const struct addr *to, uint64_t timeout_ns, int *error)
{
    struct upstream *u = c->backend->upstream;
    struct io *io = io_connect(u->loop, to, timeout_ns, back_on_io, c, error);
    if (!io && (*error == EMFILE || *error == ENFILE) && make_room(c))
        io = io_connect(u->loop, to, timeout_ns, back_on_io, c, error);
    return io;
}

static bool connect_next(struct back_conn *c, int *error)
{
    struct backend *be = c->backend;
    *error = EHOSTUNREACH;
    if (c->addr_changes != be->addr_changes)
        begin_round(c);
    while (c->addrs_tried < be->addr_count) {
        uint64_t now = loop_now(be->upstream->loop);
        if (now >= c->connect_deadline) {
            *error = ETIMEDOUT;
            return false;
        }
        /* One that does not answer must leave time for the others. */
        uint64_t share = (c->connect_deadline - now) / (uint64_t)(be->addr_count - c->addrs_tried);
        int at = (c->addr_first + c->addrs_tried++) % be->addr_count;
        c->addr_id = be->addr_ids[at];
        c->io = connect_to(c, &be->addrs[at], share > 0 ? share : 1, error);
        if (c->io) {
            io_set_deferring(c->io, true);
            return true;
        }
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
    list_init(&c->aged);
    begin_round(c);
    int error;
    if (!connect_next(c, &error)) {
        mem_free(c);
        errno = error;
        return NULL;
    }
    backend_get(be);
    be->open_count++;
    be->upstream->open_count++;
    pool_trim(be->upstream);
    metrics.backend_connects++;
    return c;
}

void back_connected(struct back_conn *c)
{
    struct backend *be = c->backend;
    int at = backend_address_at(be, c->addr_id);
    if (at >= 0)
        be->addr_at = at;
    be->standing++;
    be->stood_at = loop_now(be->upstream->loop);
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
