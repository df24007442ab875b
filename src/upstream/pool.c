/* Idle connections to a backend, the newest used first so that the surplus grows old and is closed.
 * An idle connection is watched: whatever happens on it (bytes nobody asked for, its end, its age) closes it.
 *
 * A backend that closes idle connections may do so at the moment in which one is used again: that request would have to
 * be sent anew, or, if it must not be, fail. So it is learned how long the backend keeps them, from its closing two
 * that were idle for the same time, one after the other, and ours are closed a little earlier. (A backend that ends
 * closes them all at once.) A backend may close connections for other reasons, too, such as a number of requests that
 * each may bring: it is no time-out where others stand, or have been used, that were idle for longer.
 *
 * Where bytes come that nobody has asked for they are told of in the log, and for a while connections behind responses
 * that have no content are not kept: a backend that sends some all the same may do so after the next request.
 *
 * And as long as connections have been found closed at their reuse lately, for whatever reason, what must not be sent
 * twice is given none.
 *
 * Each backend has its own peak, and together they may come to more than there are descriptors for. So those of all
 * backends stand in one list, too, the longest idle first: while connections to backends, in use or idle, are more than
 * clients' may be, that one is closed; and where descriptors run out all the same. */
#include "back_conn.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/metrics.h"

#include <assert.h>
#include <string.h>

/* One that has waited for longer than this is looked at before it is used: what the backend says while it closes an
 * idle connection (some send a 408) had better not become the answer to a request that it has not seen. */
#define LOOK_AFTER NS_PER_S

#define SHY_FOR     (10 * NS_PER_S)   /* after a reuse that has failed */
#define BARE_FOR    (10 * NS_PER_S)   /* after stray bytes */
#define STRAY_LINES (60 * NS_PER_S)   /* a line of the log in that time */
#define LEARNED_FOR (600 * NS_PER_S)  /* then it is forgotten: the backend may have been given another setting */
#define LEARN_LEAST (100 * NS_PER_MS) /* idle for less, it was no time-out that has ended it */
#define AGREE_SHARE 8u                /* two times agree that differ by less than an eighth */

static bool is_longer(uint64_t a, uint64_t b)
{
    return a > b && a - b > b / AGREE_SHARE;
}

static bool agree(uint64_t a, uint64_t b)
{
    return (a > b ? a - b : b - a) < b / AGREE_SHARE;
}

/* Is it known that the backend keeps connections for longer than that? */
static bool is_outlived(const struct backend *be, uint64_t idle, uint64_t now)
{
    if (now - be->keep.held_at <= LEARNED_FOR && is_longer(be->keep.held, idle))
        return true;
    return !list_empty(&be->idle) && is_longer(now - container_of(be->idle.prev, struct back_conn, link)->begun, idle);
}

void pool_learn(struct backend *be, uint64_t idle)
{
    uint64_t now = loop_now(be->upstream->loop), seen = be->keep.seen, apart = now - be->keep.seen_at;
    if (idle < LEARN_LEAST || is_outlived(be, idle, now))
        return;
    be->keep.seen = idle;
    be->keep.seen_at = now;
    if (seen == 0 || apart < LEARN_LEAST || !agree(idle, seen)) /* what ends at once ends for another reason */
        return;
    uint64_t least = idle < seen ? idle : seen;
    be->keep.bound = least - least / AGREE_SHARE;
    be->keep.since = now;
}

void pool_held(struct backend *be, uint64_t idle)
{
    uint64_t now = loop_now(be->upstream->loop);
    if (idle <= be->keep.held && now - be->keep.held_at <= LEARNED_FOR)
        return;
    be->keep.held = idle;
    be->keep.held_at = now;
    if (is_longer(idle, be->keep.bound))
        be->keep.bound = 0;
}

void pool_warn(struct backend *be, uint64_t idle)
{
    pool_learn(be, idle);
    be->keep.shy_until = loop_now(be->upstream->loop) + SHY_FOR;
}

void pool_forget(struct backend *be)
{
    be->keep.bound = be->keep.seen = be->keep.held = 0;
}

static void log_stray(struct notice *n, uint64_t count)
{
    const struct backend *be = container_of(n, struct backend, keep.stray);
    log_begin(LOG_WARN, "backend_stray_bytes");
    log_str("backend", backend_name(be));
    log_u64("connections", count);
    log_end();
}

void pool_init(struct backend *be)
{
    notice_init(&be->keep.stray, be->upstream->loop, STRAY_LINES, log_stray);
}

void pool_fini(struct backend *be)
{
    notice_fini(&be->keep.stray);
}

void pool_stray_bytes(struct backend *be)
{
    be->keep.bare_until = loop_now(be->upstream->loop) + BARE_FOR;
    notice_count(&be->keep.stray);
}

static bool is_known(const struct backend *be)
{
    return be->keep.bound > 0 && loop_now(be->upstream->loop) - be->keep.since <= LEARNED_FOR;
}

bool pool_tell(const struct backend *be, struct pool_known *out)
{
    *out = (struct pool_known){be->keep.bound, loop_now(be->upstream->loop) - be->keep.since};
    return is_known(be);
}

void pool_take(struct backend *be, const struct pool_known *k)
{
    uint64_t now = loop_now(be->upstream->loop);
    if (k->bound == 0 || k->age > LEARNED_FOR || k->age > now)
        return;
    be->keep.bound = k->bound;
    be->keep.since = now - k->age;
}

/* How long a connection is kept idle. */
static uint64_t keep_time(struct backend *be)
{
    uint64_t ours = be->snapshot->timeouts.backend_idle;
    if (be->keep.bound > 0 && !is_known(be))
        pool_forget(be);
    return be->keep.bound > 0 && be->keep.bound < ours ? be->keep.bound : ours;
}

/* It is idle no longer. */
static void take_out(struct back_conn *c)
{
    list_remove(&c->link);
    list_remove(&c->aged);
    c->backend->idle_count--;
}

static void pool_close(struct back_conn *c)
{
    take_out(c);
    back_close(c);
}

bool pool_close_oldest(struct upstream *u)
{
    if (list_empty(&u->idle))
        return false;
    pool_close(container_of(u->idle.next, struct back_conn, aged));
    metrics.backend_evictions++;
    return true;
}

void pool_trim(struct upstream *u)
{
    while (u->open_count > u->config->limits.connections && pool_close_oldest(u))
        ;
}

bool upstream_spare(void *upstream)
{
    struct upstream *u = upstream;
    return u->idle.next != u->idle.prev && pool_close_oldest(u);
}

/* Some servers say so when they close an idle connection (RFC 9110 section 15.5.9). */
static bool is_farewell(struct io *io)
{
    size_t n;
    const char *p = io_data(io, &n);
    size_t version = strlen("HTTP/1.1");
    return n > version && str_starts_with(str_make(p + version, n - version), STR(" 408 "));
}

static void on_idle_io(void *owner, struct io *io, enum io_event event)
{
    struct back_conn *c = owner;
    struct backend *be = c->backend;
    if (event == IO_EOF)
        pool_learn(be, loop_now(be->upstream->loop) - c->begun);
    else if (event == IO_READABLE && !is_farewell(io))
        pool_stray_bytes(be);
    pool_close(c);
}

/* What comes behind a response without content (to HEAD, a 204, a 304) is content all the same, most likely. It need
 * not have come yet, and would be the next request's response. */
static bool may_bring_more(const struct back_conn *c)
{
    return c->down.kind == FRAMING_NONE && loop_now(c->backend->upstream->loop) < c->backend->keep.bare_until;
}

void pool_put(struct back_conn *c)
{
    struct backend *be = c->backend;
    assert(!io_is_paused(c->io)); /* it is watched */
    if (!be->available || be->removed || back_has_moved(c) || may_bring_more(c)) {
        back_close(c);
        return;
    }
    c->state = BACK_IDLE;
    c->events = NULL;
    c->begun = loop_now(be->upstream->loop);
    io_set_owner(c->io, on_idle_io, c);
    io_set_write_timeout(c->io, 0);
    io_set_read_timeout(c->io, IO_BY, keep_time(be));
    list_push_front(&be->idle, &c->link);
    list_push_back(&be->upstream->idle, &c->aged);
    be->idle_count++;
    pool_trim(be->upstream); /* perhaps this very one */
}

/* It has ended, or said something: that is told later in this turn, and what it was is learnt then. */
static bool is_stirring(const struct back_conn *c)
{
    return io_has_unread(c->io) || io_is_eof(c->io) || io_errno(c->io) != 0;
}

struct back_conn *pool_get(struct backend *be, bool sure, const struct back_events *ev, void *arg)
{
    if (sure && loop_now(be->upstream->loop) < be->keep.shy_until) {
        if (!list_empty(&be->idle)) /* the new one takes its place: else each such request would leave one more */
            pool_close(container_of(be->idle.prev, struct back_conn, link));
        return NULL;
    }
    LIST_EACH (it, &be->idle) {
        struct back_conn *c = container_of(it, struct back_conn, link);
        if (is_stirring(c))
            continue;
        bool look = sure || loop_now(be->upstream->loop) - c->begun > LOOK_AFTER;
        if (look && !io_is_quiet(c->io)) {
            pool_close(c);
            continue;
        }
        take_out(c);
        io_set_owner(c->io, back_on_io, c);
        io_prefer(c->io);
        io_set_deferring(c->io, !look); /* the look says nothing of what comes behind it */
        c->reused = true;
        c->idled = loop_now(be->upstream->loop) - c->begun;
        back_begin(c, ev, arg);
        c->looked_at = look;
        metrics.backend_reuses++;
        return c;
    }
    return NULL;
}

void pool_flush_strays(struct backend *be)
{
    LIST_EACH (it, &be->idle) {
        struct back_conn *c = container_of(it, struct back_conn, link);
        if (back_has_moved(c))
            pool_close(c);
    }
}

void pool_flush(struct backend *be)
{
    while (!list_empty(&be->idle))
        pool_close(container_of(be->idle.next, struct back_conn, link));
}
