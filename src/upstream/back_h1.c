/* One HTTP/1.1 exchange on a connection to a backend: sends what it is given, takes the response apart strictly, and
 * decides whether the connection may serve again. It trusts the backend no more than a client is trusted. */
#include "upstream/back_h1.h"

#include "back_conn.h"
#include "base/mem.h"
#include "base/metrics.h"

#include <assert.h>
#include <errno.h>

#define SHORT_BELOW  (32u * 1024u) /* bytes behind a head that may be all of its content */
#define OWED_AFTER   NS_PER_S      /* a client that sends or takes nothing for so long has stalled */
#define AT_WORK_SPAN 10u           /* times backend_response: so long interim responses put the final one off */

static uint64_t now_of(const struct back_conn *c)
{
    return loop_now(c->backend->upstream->loop);
}

static const struct config *config_of(const struct back_conn *c)
{
    return c->backend->snapshot;
}

static void back_reclaim(struct dead *d)
{
    struct back_conn *c = container_of(d, struct back_conn, dead);
    backend_put(c->backend);
    mem_free(c);
}

/* The endpoint has been closed, aborted or left to itself by the caller. */
static void back_gone(struct back_conn *c)
{
    struct backend *be = c->backend;
    assert(c->state != BACK_CLOSED);
    if (c->state != BACK_CONNECTING) {
        be->standing--;
        be->stood_at = now_of(c);
    }
    c->state = BACK_CLOSED;
    c->events = NULL;
    be->open_count--;
    be->upstream->open_count--;
    c->io = NULL;
    buf_fini(&c->trailers);
    loop_reclaim(c->backend->upstream->loop, &c->dead, back_reclaim);
}

void back_close(struct back_conn *c)
{
    io_close(c->io);
    back_gone(c);
}

void back_begin(struct back_conn *c, const struct back_events *ev, void *arg)
{
    c->events = ev;
    c->arg = arg;
    c->state = BACK_LEASED;
    c->response = RESPONSE_HEAD;
    c->answered = c->sending = c->keep_alive = c->unsound = c->expecting = c->held_up = false;
    c->scan = (struct head_scan){0};
    c->sent_before = io_bytes_out(c->io);
    c->begun = now_of(c);
    c->at_work = 0;
    /* Until the request has been sent whole, nothing is awaited from the backend. */
    io_set_read_timeout(c->io, IO_BY, 0);
    io_set_write_timeout(c->io, config_of(c)->timeouts.backend_response);
    io_set_sipping(c->io, c->large);
}

static bool in_tunnel(const struct back_conn *c)
{
    return c->response >= RESPONSE_TUNNEL;
}

/* ---- failure ---- */

/* Is it the client who is waited for? All that has come of the request has been sent, and it is not whole. */
static bool is_owed(const struct back_conn *c)
{
    return c->sending && !c->expecting && !in_tunnel(c) && io_unsent(c->io) == 0;
}

static bool is_held_up(const struct back_conn *c)
{
    return c->held_up || (io_is_paused(c->io) && now_of(c) - c->paused_at >= OWED_AFTER);
}

/* A backend that gives up a client that does not go on may well be in order: it has a patience of its own. Not so one
 * whose response is malformed, which is a cut, too, but ends no connection. */
static bool has_given_up(const struct back_conn *c, enum err e)
{
    bool ended = io_is_eof(c->io) || io_errno(c->io) != 0;
    return (e == ERR_BACKEND_RESET || e == ERR_BACKEND_CUT) && ended &&
           (is_held_up(c) || (is_owed(c) && now_of(c) - c->sent_at >= OWED_AFTER));
}

static const char *cause_of(enum err e, int sys_errno)
{
    if (sys_errno)
        return back_error_text(sys_errno);
    switch (e) {
    case ERR_CONNECT_TIMEOUT: return "connect timeout";
    case ERR_RESPONSE_TIMEOUT: return "response timeout";
    case ERR_BACKEND_RESET: return "connection closed before the response";
    case ERR_BACKEND_CUT: return "response cut off";
    case ERR_BACKEND_STALLED: return "response stalled";
    case ERR_BODY_TIMEOUT: return "request stalled";
    case ERR_TUNNEL_TIMEOUT: return "tunnel timeout";
    case ERR_RESPONSE_HEAD_TOO_LARGE: return "response head too large";
    default: return "malformed response";
    }
}

void back_fail(struct back_conn *c, enum err e, int sys_errno)
{
    const struct back_events *ev = c->events;
    void *arg = c->arg;
    struct back_failure f = {
        .error = e,
        .sys_errno = sys_errno,
        .sent = back_has_sent(c),
        .answered = c->answered,
        .reused = c->reused,
        .at_work = c->at_work > 0,
        .expecting = c->expecting,
        .moved = back_has_moved(c),
        .given_up = has_given_up(c, e),
        .heard_out = c->response == RESPONSE_TUNNEL_ENDED,
        .cause = cause_of(e, sys_errno),
    };
    if (c->reused && !c->answered && e == ERR_BACKEND_RESET)
        pool_warn(c->backend, c->idled);
    if (in_tunnel(c))
        io_abort(c->io); /* a FIN would pass off as whole what the backend has got */
    else
        io_close(c->io);
    back_gone(c);
    ev->on_fail(arg, &f);
}

/* The connection has ended or broken before the response was complete. */
static void back_fail_cut(struct back_conn *c, int sys_errno)
{
    back_fail(c, c->response == RESPONSE_HEAD ? ERR_BACKEND_RESET : ERR_BACKEND_CUT, sys_errno);
}

/* ---- sending ---- */

/* From the request's end to the response's head, then between bytes of its content. While the request has not been sent
 * whole, the backend may be waiting for the client, which has a time of its own for that; and as long as some of it
 * goes, the time begins anew. */
static void await_response(struct back_conn *c)
{
    uint64_t ns = config_of(c)->timeouts.backend_response;
    c->sent_seen = io_bytes_out(c->io);
    if (c->response == RESPONSE_HEAD) {
        io_set_read_timeout(c->io, IO_BY, c->sending && !c->expecting ? 0 : ns);
    } else if (c->response == RESPONSE_BODY) {
        if (c->sending)
            ns += config_of(c)->timeouts.client_body;
        io_set_read_timeout(c->io, IO_PROGRESS, framing_has_content(&c->down) ? ns : 0);
    }
}

/* What is not with the kernel yet has still gone on, in part: on_drained() tells only when all of it has. */
static bool is_still_sent(const struct back_conn *c)
{
    return io_unsent(c->io) > 0 && io_bytes_out(c->io) > c->sent_seen;
}

static void request_sent(struct back_conn *c)
{
    c->sending = false;
    await_response(c);
}

/* The body comes: from now on it is the client's time that runs, until it has been sent. */
static void stop_expecting(struct back_conn *c)
{
    c->expecting = false;
    if (c->response == RESPONSE_HEAD)
        await_response(c);
}

void back_send_head(struct back_conn *c, const struct back_request *r, bool more)
{
    c->head_request = r->method == METHOD_HEAD;
    c->upgrade = r->upgrade;
    c->takes_trailers = r->takes_trailers;
    c->unsound = r->names_user;
    c->up = r->framing;
    c->sending = framing_has_content(&c->up);
    c->sent_at = now_of(c);
    io_write_str(c->io, r->head, more && c->sending);
    c->expecting = c->sending && r->expects;
    await_response(c);
}

bool back_send_body(struct back_conn *c, const char *p, size_t n, bool end, struct str trailers)
{
    char line[CHUNK_LINE_MAX];
    struct iovec iov[CHUNKED_PIECES];
    int k = 0;
    if (c->expecting)
        stop_expecting(c);
    c->sent_at = now_of(c);
    if (c->up.kind == FRAMING_CHUNKED)
        k = chunked_pieces(iov, line, str_make(p, n), end, trailers);
    else if (p && n > 0)
        iov[k++] = (struct iovec){(void *)(uintptr_t)p, n};
    io_write(c->io, iov, k, false);
    if (end && in_tunnel(c)) {
        c->sending = false;
        io_shutdown_write(c->io);
    } else if (end) {
        request_sent(c);
    } else if (c->response == RESPONSE_BODY) {
        await_response(c);
    }
    return io_is_full(c->io);
}

struct io *back_sink(const struct back_conn *c)
{
    return c->state == BACK_LEASED && c->up.kind == FRAMING_LENGTH && !c->expecting ? c->io : NULL;
}

/* ---- receiving ---- */

/* The response is complete: tells so, and keeps the connection if nothing stands against it. */
static void response_ended(struct back_conn *c, char *p, size_t n, bool clean)
{
    const struct back_events *ev = c->events;
    void *arg = c->arg;
    struct buf trailers = BUF_INIT;
    buf_move(&trailers, &c->trailers);
    c->response = RESPONSE_ENDED;
    if (clean && c->keep_alive && !c->sending && io_unsent(c->io) == 0)
        pool_put(c);
    else
        back_close(c);
    ev->on_body(arg, p, n, true, buf_str(&trailers));
    buf_fini(&trailers);
}

static enum err parse_head(struct back_conn *c, struct str head, struct response *r)
{
    struct upstream *u = c->backend->upstream;
    r->headers.v = u->fields;
    r->headers.max = u->field_room;
    return parse_response(head, c->head_request, c->upgrade, r);
}

static void final_head(struct back_conn *c, const struct response *r, struct str head, bool bytes_follow)
{
    c->down = r->framing;
    c->left = r->framing.kind == FRAMING_LENGTH ? r->framing.length : 0;
    c->large = c->left >= IO_SIP + IO_RELAY_MIN;
    c->relays = false;
    io_set_sipping(c->io, false);
    c->keep_alive = r->keep_alive && !c->unsound && !c->sending && io_unsent(c->io) == 0; /* else it began too early */
    c->takes_trailers &= !r->nominates;
    c->chunked = (struct chunked){.trailers = c->takes_trailers ? &c->trailers : NULL};
    c->response = RESPONSE_BODY;
    await_response(c);
    /* Who has answered need not read the rest of the request: that its response goes on is all that is asked of it. */
    io_set_write_timeout(c->io, 0);
    c->events->on_head(c->arg, r, head, bytes_follow || !framing_has_content(&c->down));
}

/* Both sides speak another protocol from here on, once the request has been sent whole (RFC 9110 section 7.8). */
static void switch_protocols(struct back_conn *c, const struct response *r)
{
    if (c->sending) {
        back_fail(c, ERR_BAD_RESPONSE, 0);
        return;
    }
    c->response = RESPONSE_TUNNEL;
    c->up = c->down = (struct framing){FRAMING_CLOSE, 0};
    c->sending = true;
    io_set_read_timeout(c->io, IO_BY, 0);
    io_set_write_timeout(c->io, config_of(c)->timeouts.tunnel);
    c->events->on_switch(c->arg, r);
}

/* Who says that it is at work (RFC 2518 section 10.1, RFC 8297) has its time anew, but not without end. */
static void at_work(struct back_conn *c)
{
    uint64_t now = now_of(c);
    if (c->at_work == 0)
        c->at_work = now;
    if (now - c->at_work < AT_WORK_SPAN * config_of(c)->timeouts.backend_response)
        await_response(c);
}

static void interim_head(struct back_conn *c, const struct response *r)
{
    c->unsound |= !r->keep_alive;
    if (r->status != 100)
        at_work(c);
    else if (c->expecting)
        stop_expecting(c);
    c->events->on_interim(c->arg, r);
}

/* Takes one head off the front of the unread bytes. False when there is no whole one yet or the connection has gone. */
static bool take_head(struct back_conn *c, char *data, size_t n)
{
    const struct config *config = config_of(c);
    struct head_limits limits = {config->limits.header_bytes, config->limits.target_bytes,
                                 config->limits.header_fields};
    enum err e = ERR_OK;
    enum scan_status status = head_scan(&c->scan, HEAD_RESPONSE, str_make(data, n), &limits, &e);
    if (status == SCAN_MORE)
        return false;
    if (status == SCAN_BAD) {
        back_fail(c, e, 0);
        return false;
    }
    struct str head = str_make(data + c->scan.skip, c->scan.at - c->scan.skip);
    size_t used = c->scan.at;
    c->scan = (struct head_scan){0};
    struct response r = {0};
    e = parse_head(c, head, &r);
    if (e != ERR_OK) {
        back_fail(c, e, 0);
        return false;
    }
    io_consume(c->io, used);
    if (r.status == 101)
        switch_protocols(c, &r);
    else if (r.status < 200)
        interim_head(c, &r);
    else
        final_head(c, &r, head, n > used);
    return c->state == BACK_LEASED;
}

/* What waits goes past us: a look at the end, instead of at the bytes, tells whether more lies behind the response. */
static void relay_to(struct back_conn *c, struct io *to)
{
    size_t n = to ? io_relay(c->io, to, c->left) : 0;
    c->left -= n;
    if (c->left == 0)
        response_ended(c, NULL, n, io_is_quiet(c->io));
    else if (n > 0)
        c->events->on_body(c->arg, NULL, n, false, STR(""));
}

/* The head and the first bytes leave together with what waits behind them: one packet wakes the client once. */
static void begin_relay(struct back_conn *c, char *p, size_t n)
{
    struct io *to = c->events->sink(c->arg);
    c->relays = true;
    io_set_direct(c->io, true);
    bool holds = to && n <= IO_SIP;
    if (holds)
        io_hold(to);
    if (n > 0)
        c->events->on_body(c->arg, p, n, false, STR(""));
    if (c->state == BACK_LEASED && !io_is_paused(c->io))
        relay_to(c, to);
    else if (holds)
        (void)io_flush(to); /* where it is gone, so are its bytes */
}

/* Of the `n` bytes that came, `used` were the response's: are there others? */
static bool is_clean(struct back_conn *c, size_t n, size_t used)
{
    if (n > used && c->keep_alive)
        pool_stray_bytes(c->backend);
    return n == used;
}

static void take_length(struct back_conn *c, char *p, size_t n)
{
    size_t take = n < c->left ? n : (size_t)c->left;
    c->left -= take;
    io_consume(c->io, take);
    if (c->left == 0)
        response_ended(c, p, take, is_clean(c, n, take));
    else if (!c->relays && c->events->sink && c->left >= IO_RELAY_MIN)
        begin_relay(c, p, take);
    else if (take > 0)
        c->events->on_body(c->arg, p, take, false, STR(""));
}

static void take_chunked(struct back_conn *c, char *p, size_t n)
{
    size_t decoded, consumed;
    enum chunked_status status = chunked_decode(&c->chunked, &p, n, &decoded, &consumed);
    io_consume(c->io, consumed);
    if (status == CHUNKED_END) {
        response_ended(c, p, decoded, is_clean(c, n, consumed));
        return;
    }
    if (status == CHUNKED_CONTENT_END && !c->takes_trailers) { /* who is given none misses nothing */
        response_ended(c, p, decoded, false);
        return;
    }
    if (n > 0) /* also without content: on_head() was told that this follows */
        c->events->on_body(c->arg, p, decoded, false, STR(""));
    if (status != CHUNKED_MORE && c->state == BACK_LEASED)
        back_fail(c, ERR_BACKEND_CUT, status == CHUNKED_NO_MEMORY ? ENOMEM : 0);
}

/* `behind_head`: in the bytes that brought the head. Behind those the end is there, too, when the response is short and
 * its backend near: then it need not be waited for, and the client gets both in one piece. It is not looked for behind
 * what is long, nor behind each later piece. */
static void take_to_end(struct back_conn *c, char *p, size_t n, bool behind_head)
{
    bool may_be_all = n > 0 && n < SHORT_BELOW && behind_head && c->response == RESPONSE_BODY;
    io_consume(c->io, n);
    if (may_be_all && io_is_at_end(c->io))
        response_ended(c, p, n, false);
    else if (n > 0)
        c->events->on_body(c->arg, p, n, false, STR(""));
}

static void take_body(struct back_conn *c, char *p, size_t n, bool behind_head)
{
    switch (c->down.kind) {
    case FRAMING_NONE: /* of which nothing is left, as of length 0 */
    case FRAMING_LENGTH: take_length(c, p, n); break;
    case FRAMING_CHUNKED: take_chunked(c, p, n); break;
    case FRAMING_CLOSE: take_to_end(c, p, n, behind_head); break;
    }
}

/* Did these bytes lie there when the kept connection was taken? In the turn of that nothing of what it has brought
 * about can have been told yet; but epoll may have told of nothing at all. */
static bool is_stale(const struct back_conn *c)
{
    return c->reused && !c->looked_at && !c->answered && c->begun == now_of(c);
}

static void on_readable(struct back_conn *c)
{
    size_t n;
    char *p = io_data(c->io, &n);
    if (is_stale(c)) {
        back_fail(c, ERR_BACKEND_RESET, 0);
        return;
    }
    if (c->reused && !c->answered)
        pool_held(c->backend, c->idled);
    c->answered = true;
    bool behind_head = c->response == RESPONSE_HEAD;
    while (c->response == RESPONSE_HEAD) {
        if (!take_head(c, p, n) || io_is_paused(c->io))
            return; /* paused, the rest comes again with back_resume() */
        p = io_data(c->io, &n);
        if (c->response == RESPONSE_HEAD && n == 0)
            return;
    }
    take_body(c, p, n, behind_head);
}

static void on_eof(struct back_conn *c)
{
    if (c->response == RESPONSE_TUNNEL) {
        c->response = RESPONSE_TUNNEL_ENDED;
        c->events->on_body(c->arg, NULL, 0, true, STR(""));
    } else if (c->response == RESPONSE_BODY && c->down.kind == FRAMING_CLOSE) {
        response_ended(c, NULL, 0, false);
    } else {
        back_fail_cut(c, 0);
    }
}

/* Who has begun to answer while the request still comes may be waiting for the rest of it. */
static enum err late_in_response(const struct back_conn *c)
{
    if (c->response == RESPONSE_HEAD)
        return ERR_RESPONSE_TIMEOUT;
    return is_owed(c) ? ERR_BODY_TIMEOUT : ERR_BACKEND_STALLED;
}

static void on_timeout(struct back_conn *c)
{
    if (c->state == BACK_CONNECTING)
        back_connect_failed(c, ERR_CONNECT_TIMEOUT, 0);
    else
        back_fail(c, in_tunnel(c) ? ERR_TUNNEL_TIMEOUT : late_in_response(c), 0);
}

static void on_drained(struct back_conn *c)
{
    c->sent_at = now_of(c);
    await_response(c);
    c->events->on_drained(c->arg);
}

static void on_read_timeout(struct back_conn *c)
{
    if (c->state == BACK_LEASED && is_still_sent(c))
        await_response(c);
    else
        on_timeout(c);
}

void back_on_io(void *owner, struct io *io, enum io_event event)
{
    struct back_conn *c = owner;
    switch (event) {
    case IO_CONNECTED: back_connected(c); break;
    case IO_READABLE: on_readable(c); break;
    case IO_WAITING: relay_to(c, c->events->sink(c->arg)); break;
    case IO_DRAINED: on_drained(c); break;
    case IO_EOF: on_eof(c); break;
    case IO_HANGUP: break; /* what came before it is read first */
    case IO_TIMEOUT_READ: on_read_timeout(c); break;
    case IO_TIMEOUT_WRITE: on_timeout(c); break;
    case IO_ERROR:
        if (c->state == BACK_CONNECTING)
            back_connect_failed(c, ERR_CONNECT_FAILED, io_errno(io));
        else
            back_fail_cut(c, io_errno(io));
        break;
    }
}

/* ---- the lessee's other calls ---- */

bool back_has_sent(const struct back_conn *c)
{
    return io_bytes_out(c->io) > c->sent_before;
}

size_t back_unsent(const struct back_conn *c)
{
    return io_unsent(c->io);
}

void back_pause(struct back_conn *c)
{
    if (!io_is_paused(c->io))
        c->paused_at = now_of(c);
    io_pause(c->io);
}

void back_resume(struct back_conn *c)
{
    c->held_up = is_held_up(c);
    io_resume(c->io);
}

void back_release(struct back_conn *c)
{
    if (!c)
        return;
    if (in_tunnel(c) && c->sending)
        io_abort(c->io);
    else if (in_tunnel(c))
        (void)io_close_lingering(c->io, &(struct io_lingering){0}); /* the rest goes, and then it closes */
    else
        io_close(c->io);
    back_gone(c);
}
