/* A client's HTTP/1.x connection.
 *
 *            first byte           head complete            response with the client, content read
 *   IDLE ----------------> HEAD ----------------> BUSY -------------------------------------------> IDLE
 *                           |  malformed, late      |  must close, other end gone, cut off
 *                           +----------------------> +--------------------------------------------> CLOSED
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

static void front_enter(struct front_h1 *f, enum front_state to)
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

void front_gone(struct front_h1 *f)
{
    front_enter(f, FRONT_CLOSED);
    f->io = NULL;
    list_remove(&f->link);
    struct exchange *x = f->exchange;
    f->exchange = NULL;
    if (x)
        exchange_end(x);
    proxy_connection_ended(f->px, f->group);
    loop_reclaim(f->px->loop, &f->dead, front_reclaim);
}

static void front_close(struct front_h1 *f)
{
    io_close(f->io);
    front_gone(f);
}

/* Ends a connection whose response has been sent. Closing with unread bytes, or while the client still sends, would
 * make the kernel send a reset that can destroy the response: then it lingers. So it does when it is we who end the
 * connection and the client does not know yet: its next request may be on its way (RFC 9112 section 9.6). */
static void front_close_politely(struct front_h1 *f)
{
    bool expected = f->said_last || f->eof || f->state == FRONT_IDLE;
    if (expected && f->up_ended && io_unsent(f->io) == 0 && !io_is_sent_to(f->io))
        io_close(f->io);
    else
        io_close_lingering(f->io, FRONT_LINGER, FRONT_LINGER_BYTES);
    front_gone(f);
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

static void front_idle(struct front_h1 *f)
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
        io_set_read_timeout(f->io, IO_BY, FRONT_LINGER);
        if (f->upload_paused)
            io_resume(f->io);
        f->upload_paused = false;
    }
}

/* ---- requests ---- */

static bool new_exchange(struct front_h1 *f, uint64_t begun)
{
    f->exchange = exchange_new(f->px, &f->front, begun);
    if (f->exchange)
        return true;
    metrics.out_of_memory++;
    front_close(f);
    return false;
}

/* Sets up for a request; a bad one leaves what is safe: HTTP/1.1, closing. */
static void set_request(struct front_h1 *f, const struct request *r)
{
    f->up = r ? (uint8_t)r->framing.kind : FRAMING_NONE;
    f->up_left = f->up == FRAMING_LENGTH ? r->framing.length : 0;
    f->up_ended = r && (f->up == FRAMING_NONE || (f->up == FRAMING_LENGTH && f->up_left == 0));
    f->chunked = (struct chunked){0};
    f->takes_trailers = r && r->takes_trailers;
    f->discarded = 0;
    f->minor = r ? (uint8_t)r->minor : 1;
    f->head_request = r && r->method == METHOD_HEAD;
    f->expects = r && r->expect_continue;
    f->keep_alive = r && r->keep_alive;
    f->said_last = r && !r->keep_alive;
    f->answered = f->down_ended = f->upload_paused = false;
    f->down = FRAMING_NONE;
}

/* `seen`: bytes of the request, for the log. */
static void refuse_request(struct front_h1 *f, const struct request *r, enum err e, size_t seen)
{
    if (f->state != FRONT_BUSY)
        front_enter(f, FRONT_BUSY);
    uint64_t begun = f->begun;
    set_request(f, NULL);
    f->head_request = r && r->method == METHOD_HEAD;
    io_set_read_timeout(f->io, IO_BY, 0);
    if (!new_exchange(f, begun))
        return;
    exchange_count_in(f->exchange, seen);
    exchange_refuse(f->exchange, r, e);
}

/* Whom a client speaks to that does not say so, as HTTP/1.0 allows: RFC 9112 section 3.3 asks for a default name, and
 * the address that it has connected to is one that it must know. */
static struct str own_host(const struct front_h1 *f, char room[ADDR_TEXT_SIZE])
{
    struct addr at;
    if (io_local_addr(f->io, &at) < 0 || at.sa.sa_family == AF_UNIX)
        return STR("localhost");
    return str_make(room, addr_format(&at, room));
}

/* The scan has refused a head: what it has seen of the request line is for the answer and the log. */
static void refuse_head(struct front_h1 *f, struct str data, enum err e)
{
    struct request r = {.method_text = STR_INIT(""), .target = STR_INIT("")};
    parse_refused(&f->scan, data, &r);
    refuse_request(f, &r, e, f->scan.at);
}

/* The rest of a head does not come. A part of a request line tells nothing: its target may be another's beginning. */
static void head_timeout(struct front_h1 *f)
{
    size_t n;
    const char *p = io_data(f->io, &n);
    struct str seen = str_make(p + f->scan.skip, f->scan.at - f->scan.skip);
    if (str_find(seen, '\r') < seen.n)
        refuse_head(f, str_make(p, n), ERR_HEAD_TIMEOUT);
    else
        refuse_request(f, NULL, ERR_HEAD_TIMEOUT, f->scan.at);
}

static void take_request(struct front_h1 *f, struct str head, size_t used, bool bytes_follow)
{
    struct request r = {.headers = {.v = f->px->fields, .max = f->px->config->limits.header_fields}};
    enum err e = parse_request(head, &r);
    io_consume(f->io, used);
    f->first = false;
    if (e != ERR_OK) {
        refuse_request(f, &r, e, head.n);
        return;
    }
    char host[ADDR_TEXT_SIZE];
    if (r.minor == 0 && r.host.n == 0)
        r.host = own_host(f, host);
    front_enter(f, FRONT_BUSY);
    uint64_t begun = f->begun;
    set_request(f, &r);
    if (f->up_ended || f->expects) /* it is for the backend to say that it may come, and that has a time of its own */
        io_set_read_timeout(f->io, IO_BY, 0);
    else
        io_set_read_timeout(f->io, IO_PROGRESS, f->px->config->timeouts.client_body);
    if (!new_exchange(f, begun))
        return;
    f->chunked.trailers = exchange_trailers(f->exchange);
    io_set_patient(f->io, f->up_ended); /* till the response is there it may only end, or ask for more */
    exchange_count_in(f->exchange, head.n);
    exchange_begin(f->exchange, &r, head, bytes_follow && !f->up_ended);
}

/* Looks for a head at the front of the unread bytes. False when more bytes are needed. */
static bool read_head(struct front_h1 *f, char *data, size_t n)
{
    const struct config *config = f->px->config;
    struct head_limits limits = {config->limits.header_bytes, config->limits.target_bytes,
                                 config->limits.header_fields};
    if (f->state == FRONT_IDLE)
        f->begun = loop_now(f->px->loop);
    enum err e = ERR_OK;
    switch (head_scan(&f->scan, HEAD_REQUEST, str_make(data, n), &limits, &e)) {
    case SCAN_MORE:
        if (f->state == FRONT_IDLE && head_has_begun(&f->scan)) {
            front_enter(f, FRONT_HEAD);
            if (!f->first || f->px->draining) /* the first head's time runs since the connection was accepted */
                io_set_read_timeout(f->io, IO_BY, config->timeouts.client_header);
        }
        return false;
    case SCAN_BAD: refuse_head(f, str_make(data, n), e); return true;
    case SCAN_DONE: break;
    }
    size_t used = f->scan.at;
    take_request(f, str_make(data + f->scan.skip, used - f->scan.skip), used, n > used);
    return true;
}

void front_expect_content(struct front_h1 *f)
{
    f->expects = false;
    if (!f->up_ended)
        io_set_read_timeout(f->io, IO_PROGRESS, f->px->config->timeouts.client_body);
}

/* No more of the request's content is read; its response, which has begun, goes on, and the connection ends with it. */
static void stop_upload(struct front_h1 *f)
{
    f->keep_alive = false;
    f->upload_paused = true;
    io_pause(f->io);
}

/* `wire`: bytes that content of `n` has taken. */
static void upload(struct front_h1 *f, const char *p, size_t n, size_t wire, bool end)
{
    if (end) {
        f->up_ended = true;
        io_set_read_timeout(f->io, IO_BY, 0);
    }
    if (f->exchange) {
        exchange_count_in(f->exchange, wire);
        exchange_upload(f->exchange, p, n, end);
        if (!f->down_ended || f->state != FRONT_BUSY)
            return;
    }
    /* The answer was written before the content had come: whether the client has it already or not, no more than that
     * is read in vain. */
    f->discarded += (uint32_t)wire;
    if (f->discarded > FRONT_DISCARD_MAX && f->exchange)
        stop_upload(f);
    else if (f->discarded > FRONT_DISCARD_MAX)
        front_close_politely(f);
    else if (end && !f->exchange)
        front_idle(f);
}

static void read_content(struct front_h1 *f, char *data, size_t n)
{
    if (f->expects)
        front_expect_content(f); /* it does not wait for the 100 */
    if (f->up == FRAMING_LENGTH) {
        size_t take = n < f->up_left ? n : (size_t)f->up_left;
        f->up_left -= take;
        io_consume(f->io, take);
        io_set_direct(f->io, f->up_left >= IO_RELAY_MIN);
        upload(f, data, take, take, f->up_left == 0);
        return;
    }
    size_t decoded, consumed;
    enum chunked_status status = chunked_decode(&f->chunked, data, n, &decoded, &consumed);
    io_consume(f->io, consumed);
    if (status == CHUNKED_MORE || status == CHUNKED_END) {
        upload(f, data, decoded, consumed, status == CHUNKED_END);
        return;
    }
    f->keep_alive = false;
    metrics.out_of_memory += status == CHUNKED_NO_MEMORY;
    if (f->exchange && f->answered)
        stop_upload(f);
    else if (f->exchange)
        exchange_fail(f->exchange, status == CHUNKED_BAD ? ERR_BAD_CHUNK : ERR_INTERNAL);
    else
        front_close_politely(f); /* answered already: what follows cannot be told apart */
}

/* Content waits that may go past us. */
static void relay_content(struct front_h1 *f)
{
    struct io *to = f->exchange ? exchange_sink(f->exchange) : NULL;
    size_t n = to ? io_relay(f->io, to, f->up_left) : 0;
    if (n == 0)
        return;
    f->up_left -= n;
    if (f->up_left == 0)
        io_set_direct(f->io, false);
    upload(f, NULL, n, n, f->up_left == 0);
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

/* Takes what can be taken now: heads, content, the next head, until bytes run out or must wait. */
static void front_read(struct front_h1 *f)
{
    while (f->state != FRONT_CLOSED && !io_is_paused(f->io)) {
        size_t n;
        char *data = io_data(f->io, &n);
        if (n == 0)
            return;
        if (f->state != FRONT_BUSY) {
            if (read_head(f, data, n))
                continue;
            if (f->eof)
                front_abandon(f, ERR_CLIENT_GONE);
            return;
        }
        if (f->tunnel) {
            read_tunnel(f, data, n);
        } else if (!f->up_ended && !(f->down_ended && !f->keep_alive)) {
            read_content(f, data, n);
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

/* The rest of a request's content does not come, or too slowly. */
static void content_timeout(struct front_h1 *f)
{
    if (f->exchange && f->answered)
        return; /* its response goes on; behind that, front_settle() waits for the rest once more */
    f->keep_alive = false;
    if (f->exchange)
        exchange_fail(f->exchange, ERR_BODY_TIMEOUT);
    else
        front_close_politely(f);
}

static void front_read_timeout(struct front_h1 *f)
{
    if (f->state == FRONT_HEAD)
        head_timeout(f);
    else if (f->state != FRONT_BUSY)
        front_close_politely(f);
    else if (f->tunnel)
        tunnel_timeout(f);
    else
        content_timeout(f);
}

static void front_on_io(void *owner, struct io *io, enum io_event event)
{
    (void)io;
    struct front_h1 *f = owner;
    switch (event) {
    case IO_READABLE: front_read(f); break;
    case IO_WAITING: relay_content(f); break;
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
    case IO_HANGUP:
        if (f->exchange && exchange_is_queued(f->exchange))
            front_abandon(f, ERR_CLIENT_GONE);
        break; /* else it is found out soon enough, when something is sent */
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
    io_set_read_timeout(f->io, IO_BY, px->config->timeouts.client_idle);
    if (!io_feed(f->io, bytes)) {
        metrics.out_of_memory++;
        front_abandon(f, ERR_INTERNAL);
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
    const char *p = io_data(f->io, &n); /* kept: nothing is lent outside of a handler */
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

void front_h1_refuse(struct proxy *px, int fd, bool one_client)
{
    /* A flood must not hold descriptors for the sake of politeness. */
    if (io_lingering(px->loop) > px->config->limits.connections / 8 + 64) {
        sock_close(fd);
        return;
    }
    struct io *io = io_new(px->loop, fd, ignore_io, NULL);
    if (!io)
        return;
    io_set_write_timeout(io, px->config->timeouts.client_write);
    io_write_str(io, local_refusal(one_client), false);
    io_close_lingering(io, FRONT_LINGER, FRONT_LINGER_BYTES);
}

void front_h1_drain(struct front_h1 *f)
{
    if (f->state == FRONT_IDLE)
        io_set_read_timeout(f->io, IO_BY, PROXY_LAST_CALL);
}

bool front_h1_cut(struct front_h1 *f)
{
    bool busy = f->exchange != NULL;
    front_abandon(f, ERR_SHUTDOWN);
    return busy;
}
