/* A client's HTTP/1.x connection.
 *
 *              a whole head at once, as mostly
 *    +--------------------------------------------+
 *    |       first bytes          the rest of it  v       response with the client, content read
 *   IDLE ----------------> HEAD ----------------> BUSY -------------------------------------------> IDLE
 *    |                      |  or it is refused    |  must close, other end gone, cut off
 *    +----------------------+----------------------+----------------------------------------------> CLOSED
 *      idle too long, other end gone
 *
 * One exchange at a time: bytes of a next request stay in the endpoint (which stops reading) until the response is with
 * the client, so pipelined requests are answered in order and within bounds. The request's content and the response run
 * side by side. */
#include "proxy/front_h1.h"

#include "base/mem.h"
#include "base/metrics.h"
#include "front_h1_impl.h"
#include "net/sock.h"

#include <assert.h>
#include <errno.h>

static void front_on_io(void *owner, struct io *io, enum io_event event);

struct front_h1 *front_h1_of(struct list *link)
{
    return container_of(link, struct front_h1, link);
}

void front_enter(struct front_h1 *f, enum front_state to)
{
    static const uint8_t legal[] = {
        [FRONT_IDLE] = 1 << FRONT_HEAD | 1 << FRONT_BUSY | 1 << FRONT_CLOSED,
        [FRONT_HEAD] = 1 << FRONT_BUSY | 1 << FRONT_CLOSED,
        [FRONT_BUSY] = 1 << FRONT_IDLE | 1 << FRONT_CLOSED,
        [FRONT_CLOSED] = 0,
    };
    assert(legal[f->state] >> to & 1);
    (void)legal;
    f->state = (uint8_t)to;
}

/* ---- the end of a connection ---- */

static void front_reclaim(struct dead *d)
{
    mem_free(container_of(d, struct front_h1, dead));
}

/* It serves no more. */
static void leave_service(struct front_h1 *f)
{
    front_enter(f, FRONT_CLOSED);
    f->io = NULL;
    list_remove(&f->link);
    struct exchange *x = f->exchange;
    f->exchange = NULL;
    if (x)
        exchange_end(x);
}

void front_gone(struct front_h1 *f)
{
    leave_service(f);
    proxy_connection_ended(f->px, f->group);
    loop_reclaim(f->px->loop, &f->dead, front_reclaim);
}

void front_close(struct front_h1 *f)
{
    io_close(f->io);
    front_gone(f);
}

/* Is somebody waiting for the connections to end? */
static bool is_hurried(const struct proxy *px)
{
    return px->draining || px->pass;
}

static void linger_ended(void *arg)
{
    struct front_h1 *f = arg;
    list_remove(&f->link);
    list_remove(&f->beside);
    proxy_connection_closed(f->px, f->group);
    loop_reclaim(f->px->loop, &f->dead, front_reclaim);
}

void front_linger(struct front_h1 *f, bool whole)
{
    struct proxy *px = f->px;
    bool hurry = !whole || is_hurried(px);
    struct io_lingering how = {
        .idle_ns = hurry ? FRONT_LINGER_SHORT : FRONT_LINGER_IDLE,
        .total_ns = hurry ? FRONT_LINGER_SHORT : FRONT_LINGER_ALL,
        .ended = linger_ended,
        .arg = f,
    };
    struct lingerer *g = io_close_lingering(f->io, &how);
    if (!g) {
        front_gone(f);
        return;
    }
    leave_service(f);
    f->lingerer = g;
    list_init(&f->beside);
    if (f->group)
        list_push_back(&f->group->closing, &f->beside);
    list_push_back(&px->closing, &f->link);
    proxy_connection_closing(px);
}

static void end_closing(struct front_h1 *f)
{
    lingerer_end(f->lingerer);
    linger_ended(f);
}

void front_h1_end_closing(struct list *closing_of_proxy)
{
    end_closing(front_h1_of(closing_of_proxy->next));
}

void front_h1_end_closing_of(struct crowd_group *g)
{
    end_closing(container_of(g->closing.next, struct front_h1, beside));
}

/* Ends a connection whose response has been sent. Closing with unread bytes, or while the client still sends, would
 * make the kernel send a reset that can destroy the response: then it lingers. So it does when it is we who end the
 * connection and the client does not know yet: its next request may be on its way (RFC 9112 section 9.6). Of one that
 * is idle that is no harm, once the client has all responses: it may be slower to take them than the idle time is long.
 */
void front_close_politely(struct front_h1 *f)
{
    bool expected = f->said_last || f->eof || (f->state == FRONT_IDLE && io_is_acked(f->io));
    if (expected && f->up_ended && io_unsent(f->io) == 0 && !io_is_sent_to(f->io))
        front_close(f);
    else
        front_linger(f, true);
}

/* Has the client been given a part of a response, and no more than that? */
static bool front_response_is_cut(const struct front_h1 *f)
{
    return f->state == FRONT_BUSY && f->answered && !(f->down_ended && io_unsent(f->io) == 0);
}

/* The client has gone, or does not take its response, or cannot be given it. Whoever is still there must not take a
 * part of a response for the whole. */
static void front_abandon(struct front_h1 *f, enum err e)
{
    bool cut = front_response_is_cut(f);
    if (f->exchange)
        exchange_abandon(f->exchange, e);
    if (e == ERR_CLIENT_GONE && !cut)
        io_close(f->io);
    else
        io_abort(f->io);
    front_gone(f);
}

/* The connection has broken, or memory for what is to be sent has run out. */
static void front_broken(struct front_h1 *f)
{
    int error = io_errno(f->io);
    bool memory = error == ENOMEM || error == ENOSPC; /* the latter is epoll's, see max_user_watches */
    metrics.out_of_memory += memory;
    front_abandon(f, memory ? ERR_INTERNAL : ERR_CLIENT_GONE);
}

/* ---- between exchanges ---- */

void front_idle(struct front_h1 *f)
{
    const struct config *config = f->px->config;
    front_enter(f, FRONT_IDLE);
    f->scan = (struct head_scan){0};
    if (f->eof && !io_has_unread(f->io)) {
        front_close_politely(f);
        return;
    }
    /* Draining, only a connection whose response promised to stay open comes here: it gets its last call. */
    io_set_read_timeout(f->io, IO_BY, f->px->draining ? PROXY_LAST_CALL : config->timeouts.client_idle);
    io_set_patient(f->io, false);
    if (f->px->frozen)
        front_h1_freeze(f);
    else if (io_is_paused(f->io))
        io_resume(f->io);
}

void front_settle(struct front_h1 *f)
{
    if (io_unsent(f->io) > 0 || io_errno(f->io) != 0)
        return; /* IO_DRAINED comes back here; where memory for the rest ran out, IO_ERROR ends it */
    struct exchange *x = f->exchange;
    f->exchange = NULL;
    f->chunked.trailers = NULL;
    if (x)
        exchange_end(x);
    if (!f->keep_alive) {
        front_close_politely(f);
    } else if (f->up_ended) {
        front_idle(f);
    } else { /* what is left of the content is thrown away */
        io_set_read_timeout(f->io, IO_BY, is_hurried(f->px) ? FRONT_LINGER_SHORT : FRONT_LINGER_IDLE);
        if (f->upload_paused)
            io_resume(f->io);
        f->upload_paused = false;
    }
}

/* ---- a tunnel ---- */

void front_tunnel_settle(struct front_h1 *f)
{
    if (!f->up_ended || !f->down_ended || io_unsent(f->io) > 0 || io_errno(f->io) != 0)
        return;
    io_close(f->io);
    front_gone(f);
}

void front_tunnel_eof(struct front_h1 *f)
{
    f->up_ended = true;
    exchange_upload(f->exchange, NULL, 0, true);
    if (f->state != FRONT_CLOSED)
        front_tunnel_settle(f);
}

static void read_tunnel(struct front_h1 *f, const char *data, size_t n)
{
    io_consume(f->io, n);
    exchange_count_in(f->exchange, n);
    exchange_upload(f->exchange, data, n, false);
    if (f->eof && f->state != FRONT_CLOSED)
        front_tunnel_eof(f);
}

/* The time without bytes from the client may be over; that without any may not. */
static void tunnel_timeout(struct front_h1 *f)
{
    uint64_t left = io_unsent(f->io) > 0 ? f->px->config->timeouts.tunnel : exchange_tunnel_left(f->exchange);
    if (left > 0)
        io_set_read_timeout(f->io, IO_BY, left);
    else
        exchange_fail(f->exchange, ERR_TUNNEL_TIMEOUT);
}

/* Takes what can be taken now: heads, content, the next head, until bytes run out or must wait. Requests that are
 * answered here are over at once: after some of them others have their turn first. */
static void front_read(struct front_h1 *f)
{
    for (unsigned heads = 0; f->state != FRONT_CLOSED && !io_is_paused(f->io);) {
        size_t n;
        char *data = io_data(f->io, &n);
        if (n == 0)
            return;
        if (f->state != FRONT_BUSY) {
            if (heads == FRONT_HEADS_MAX) {
                io_read_later(f->io);
                return;
            }
            if (front_read_head(f, data, n)) {
                heads++;
                continue;
            }
            if (f->eof)
                front_abandon(f, ERR_CLIENT_GONE);
            return;
        }
        if (f->tunnel) {
            read_tunnel(f, data, n);
        } else if (!f->up_ended && !(f->down_ended && !f->keep_alive)) {
            front_read_content(f, data, n);
        } else {
            io_pause(f->io); /* the next request waits for its turn */
        }
    }
}

/* The client sends no more. It may still wait for responses: only what can never be completed is given up. */
static void front_eof(struct front_h1 *f)
{
    f->eof = true;
    if (f->tunnel) {
        front_tunnel_eof(f);
        return;
    }
    if (f->exchange && f->answered && !f->up_ended) {
        f->keep_alive = false; /* what is missing of its content does not matter any more */
        return;
    }
    /* What is unseen is a request, perhaps, and not just empty lines. */
    bool waiting = f->state == FRONT_BUSY ? f->up_ended : f->state == FRONT_IDLE && f->scan.at < io_unread(f->io);
    /* Whoever ends while queueing has gone, most likely (a caller's time-out); nothing has been done for it yet. */
    if (!waiting || (f->exchange && exchange_is_queued(f->exchange)))
        front_abandon(f, ERR_CLIENT_GONE);
}

/* A hang-up while nothing is read. Who waits in the queue need not wait, and an upload that is held back and has been
 * reset is given up: what lies there may be all the rest of it, but is not, most likely, and nobody waits for the
 * answer; it is not the backend that is late then. (Over a unix socket a close in order looks the same.) All others are
 * found out soon enough, when something is sent. */
static void front_hangup(struct front_h1 *f)
{
    bool cut = !f->up_ended && !f->tunnel && !f->front.peer.is_unix;
    if (f->exchange && (cut || exchange_is_queued(f->exchange)))
        front_abandon(f, ERR_CLIENT_GONE);
}

static void front_read_timeout(struct front_h1 *f)
{
    if (f->state == FRONT_HEAD)
        front_head_timeout(f);
    else if (f->state != FRONT_BUSY)
        front_close_politely(f);
    else if (f->tunnel)
        tunnel_timeout(f);
    else
        front_content_timeout(f);
}

static void front_on_io(void *owner, struct io *io, enum io_event event)
{
    (void)io;
    struct front_h1 *f = owner;
    switch (event) {
    case IO_READABLE: front_read(f); break;
    case IO_WAITING: front_relay_content(f); break;
    case IO_DRAINED:
        if (f->tunnel) {
            exchange_drained(f->exchange);
            front_tunnel_settle(f);
        } else if (f->down_ended) {
            front_settle(f);
        } else if (f->exchange) {
            exchange_drained(f->exchange);
        }
        break;
    case IO_EOF: front_eof(f); break;
    case IO_HANGUP: front_hangup(f); break;
    case IO_TIMEOUT_READ: front_read_timeout(f); break;
    case IO_TIMEOUT_WRITE: front_abandon(f, f->tunnel ? ERR_TUNNEL_TIMEOUT : ERR_CLIENT_WRITE_TIMEOUT); break;
    case IO_ERROR: front_broken(f); break;
    case IO_CONNECTED: break; /* never told: the connection was accepted */
    }
}

/* ---- begin, last call, end ---- */

/* NULL when there is no memory: the connection is closed then. */
static struct front_h1 *front_new(struct proxy *px, int fd, const struct peer *peer, struct crowd_group *group)
{
    struct front_h1 *f = mem_try_alloc(sizeof *f);
    if (!f) {
        metrics.out_of_memory++;
        crowd_leave(&px->crowd, group);
        sock_close(fd);
        return NULL;
    }
    f->front.ops = &front_h1_ops;
    f->front.peer = *peer;
    f->px = px;
    f->group = group;
    f->first = f->up_ended = true;
    f->io = io_accepted(px->loop, fd, front_on_io, f);
    if (!f->io) {
        metrics.out_of_memory++;
        crowd_leave(&px->crowd, group);
        mem_free(f);
        return NULL;
    }
    list_push_back(&px->fronts, &f->link);
    px->connections++;
    io_set_read_timeout(f->io, IO_BY, px->draining ? PROXY_LAST_CALL : px->config->timeouts.client_header);
    io_set_write_timeout(f->io, px->config->timeouts.client_write);
    io_set_min_rate(f->io, true);
    io_set_deferring(f->io, true);
    return f;
}

void front_h1_accept(struct proxy *px, int fd, const struct peer *peer, struct crowd_group *group)
{
    (void)!front_new(px, fd, peer, group);
}

void front_h1_take_over(struct proxy *px, int fd, const struct peer *peer, struct crowd_group *group, struct str bytes)
{
    struct front_h1 *f = front_new(px, fd, peer, group);
    if (!f)
        return;
    f->first = false;
    io_set_read_timeout(f->io, IO_BY, px->draining ? PROXY_LAST_CALL : px->config->timeouts.client_idle);
    if (!io_feed(f->io, bytes)) {
        metrics.out_of_memory++;
        front_abandon(f, ERR_INTERNAL);
    } else if (px->frozen) { /* this process is giving its connections to yet another */
        front_h1_freeze(f);
    }
}

static bool is_between(const struct front_h1 *f)
{
    return f->state == FRONT_IDLE || f->state == FRONT_HEAD;
}

void front_h1_freeze(struct front_h1 *f)
{
    if (!is_between(f))
        return;
    io_pause(f->io);
    if (f->px->pass)
        loop_post(f->px->loop, &f->px->pass_post);
}

void front_h1_thaw(struct front_h1 *f)
{
    if (is_between(f) && io_is_paused(f->io))
        io_resume(f->io);
}

bool front_h1_pass(struct front_h1 *f)
{
    size_t n;
    if (!is_between(f) || io_unsent(f->io) > 0 || io_errno(f->io) != 0)
        return true;
    const char *p = io_data(f->io, &n); /* kept, or lent still: it came in this turn, and has not been told */
    if (!f->px->pass(f->px->pass_arg, io_descriptor(f->io), str_make(p, n)))
        return false;
    io_close(f->io); /* the other process's copy keeps the connection */
    front_gone(f);
    return true;
}

static void ignore_io(void *owner, struct io *io, enum io_event event)
{
    (void)owner;
    (void)event;
    io_close(io);
}

static void refusal_ended(void *arg)
{
    struct proxy *px = arg;
    px->refusing--;
}

void front_h1_refuse(struct proxy *px, int fd, bool one_client)
{
    /* A flood must not hold descriptors for the sake of politeness. */
    if (px->refusing > px->config->limits.connections / 8 + 64) {
        sock_close(fd);
        return;
    }
    struct io *io = io_new(px->loop, fd, ignore_io, NULL);
    if (!io)
        return;
    io_set_write_timeout(io, px->config->timeouts.client_write);
    io_write_str(io, local_refusal(one_client), false);
    struct io_lingering how = {
        .idle_ns = FRONT_LINGER_SHORT, .total_ns = FRONT_LINGER_SHORT, .ended = refusal_ended, .arg = px};
    px->refusing += io_close_lingering(io, &how) != NULL;
}

void front_h1_drain(struct front_h1 *f)
{
    if (f->state == FRONT_IDLE)
        io_set_read_timeout(f->io, IO_BY, PROXY_LAST_CALL);
    front_h1_hurry(f);
}

void front_h1_hurry(struct front_h1 *f)
{
    if (f->state == FRONT_BUSY && !f->exchange)
        io_set_read_timeout(f->io, IO_BY, FRONT_LINGER_SHORT);
}

bool front_h1_cut(struct front_h1 *f)
{
    bool busy = f->exchange != NULL;
    front_abandon(f, ERR_SHUTDOWN);
    return busy;
}
