/* Idle connections to a backend, the newest used first so that the surplus grows old and is closed.
 * An idle connection is watched: whatever happens on it (bytes nobody asked for, its end, its age) closes it. */
#include "back_conn.h"
#include "base/clock.h"
#include "base/metrics.h"

#include <assert.h>

/* One that has waited for longer than this is looked at before it is used: what the backend says while it closes an
 * idle connection (some send a 408) had better not become the answer to a request that it has not seen. */
#define LOOK_AFTER NS_PER_S

static void pool_close(struct back_conn *c)
{
    list_remove(&c->link);
    c->backend->idle_count--;
    back_close(c);
}

static void on_idle_io(void *owner, struct io *io, enum io_event event)
{
    (void)io;
    (void)event;
    pool_close(owner);
}

void pool_put(struct back_conn *c)
{
    struct backend *be = c->backend;
    assert(!io_is_paused(c->io)); /* it is watched */
    if (!be->available || be->removed) {
        back_close(c);
        return;
    }
    c->state = BACK_IDLE;
    c->events = NULL;
    c->begun = loop_now(be->upstream->loop);
    io_set_owner(c->io, on_idle_io, c);
    io_set_write_timeout(c->io, 0);
    io_set_read_timeout(c->io, IO_BY, be->snapshot->timeouts.backend_idle);
    list_push_front(&be->idle, &c->link);
    be->idle_count++;
}

struct back_conn *pool_get(struct backend *be, bool sure, const struct back_events *ev, void *arg)
{
    while (!list_empty(&be->idle)) {
        struct back_conn *c = container_of(be->idle.next, struct back_conn, link);
        bool look = sure || loop_now(be->upstream->loop) - c->begun > LOOK_AFTER;
        if (look && !io_is_quiet(c->io)) {
            pool_close(c);
            continue;
        }
        list_remove(&c->link);
        be->idle_count--;
        io_set_owner(c->io, back_on_io, c);
        c->reused = true;
        back_begin(c, ev, arg);
        c->looked_at = look;
        metrics.backend_reuses++;
        return c;
    }
    return NULL;
}

void pool_flush(struct backend *be)
{
    while (!list_empty(&be->idle))
        pool_close(container_of(be->idle.next, struct back_conn, link));
}
