/* A connection of the demo backend: one state machine that reads a request, takes its content, and answers. Reading is
 * paused while an answer is due or under way, so that pipelined requests wait in the socket. */
#include "base/clock.h"
#include "base/mem.h"
#include "conn_impl.h"
#include "ledger.h"
#include "show.h"

#define IDLE_TIMEOUT    (120 * NS_PER_S)
#define WRITE_TIMEOUT   (60 * NS_PER_S)
#define LINGER_TIME     (2 * NS_PER_S)
#define OUTAGE_BODY_MAX 4096u
#define CUT_AFTER       (20 * NS_PER_MS)

static const struct head_limits head_limits = {
    .head_bytes = 64u * 1024u, .target_bytes = 32u * 1024u, .fields = DEMO_FIELDS_MAX};

struct conn *conn_of_link(struct list *link)
{
    return container_of(link, struct conn, link);
}

static void conn_reclaim(struct dead *d)
{
    struct conn *c = container_of(d, struct conn, dead);

    buf_fini(&c->shown);
    buf_fini(&c->body);
    mem_free(c);
}

/* Lets go of everything; the endpoint has been closed. */
static void conn_end(struct conn *c)
{
    c->io = NULL;
    list_remove(&c->link);
    loop_cancel(c->server->loop, &c->delay);
    loop_unpost(c->server->loop, &c->send_on);
    loop_reclaim(c->server->loop, &c->dead, conn_reclaim);
}

void conn_reset(struct conn *c)
{
    io_abort(c->io);
    conn_end(c);
}

void conn_close_after_answer(struct conn *c)
{
    (void)io_close_lingering(c->io, &(struct io_lingering){.idle_ns = LINGER_TIME, .total_ns = LINGER_TIME});
    conn_end(c);
}

/* Makes reading follow from the state. */
static void conn_update_reading(struct conn *c)
{
    bool read;

    if (!c->io)
        return;
    read = (c->state == CONN_HEAD || c->state == CONN_BODY) && !io_is_full(c->io) && !conn_hangs(c);
    if (read && io_is_paused(c->io))
        io_resume(c->io);
    else if (!read && !io_is_paused(c->io))
        io_pause(c->io);
}

void conn_answered(struct conn *c)
{
    buf_fini(&c->shown);
    buf_fini(&c->body);
    c->state = CONN_HEAD;
    c->scan = (struct head_scan){0};
    c->used = true;
    if (!c->keep_alive)
        conn_close_after_answer(c);
}

void conn_cut(struct conn *c)
{
    c->state = CONN_CUT;
    if (!loop_arm(c->server->loop, &c->delay, loop_now(c->server->loop) + CUT_AFTER))
        conn_reset(c);
}

static void conn_cut_off(struct conn *c)
{
    if (c->server->spoilt++ % 2 == 0)
        conn_reset(c);
    else
        conn_close_after_answer(c);
}

static void on_delay_over(struct timer *t)
{
    struct conn *c = container_of(t, struct conn, delay);

    if (conn_hangs(c))
        return; /* conn_wake() answers */
    if (c->state == CONN_CUT)
        conn_cut_off(c);
    else
        answer(c);
    conn_update_reading(c);
}

static void on_send_on(struct posted *p)
{
    struct conn *c = container_of(p, struct conn, send_on);

    if (c->state == CONN_SEND)
        answer_send_on(c);
    conn_update_reading(c);
}

static void request_done(struct conn *c)
{
    uint64_t delay = c->server->options->delay + (conn_suffers(c, OUTAGE_SLOW) ? DEMO_SLOW : 0);

    if (c->route.kind == ROUTE_ECHO) {
        answer_echo_end(c);
        return;
    }
    c->state = CONN_DELAY;
    if (delay == 0 || c->route.kind == ROUTE_HEALTH || c->route.kind == ROUTE_OUTAGE)
        answer(c);
    else if (!loop_arm(c->server->loop, &c->delay, loop_now(c->server->loop) + delay))
        conn_reset(c);
}

static bool body_take(struct conn *c, struct str content)
{
    c->body_bytes += content.n;
    if (c->route.kind == ROUTE_OUTAGE && c->body_bytes > OUTAGE_BODY_MAX) {
        answer_refuse(c, 413, "the content is too large");
        return false;
    }
    if (c->route.kind == ROUTE_OUTAGE && !buf_append_str(&c->body, content)) {
        conn_reset(c);
        return false;
    }
    if (c->route.kind == ROUTE_ECHO && content.n > 0)
        return answer_piece(c, content, c->framing.kind == FRAMING_CHUNKED);
    return true;
}

/* Takes what there is of the content; true when the request is over and the next may be looked at. */
static bool step_body(struct conn *c)
{
    size_t n, content, used;
    char *p = io_data(c->io, &n);
    bool end;

    if (c->framing.kind == FRAMING_CHUNKED) {
        enum chunked_status status = chunked_decode(&c->chunked, &p, n, &content, &used);
        if (status != CHUNKED_MORE && status != CHUNKED_END) {
            answer_refuse(c, 400, err_detail(ERR_BAD_CHUNK));
            return false;
        }
        end = status == CHUNKED_END;
    } else {
        content = used = n < c->body_left ? n : (size_t)c->body_left;
        c->body_left -= used;
        end = c->body_left == 0;
    }
    if (!body_take(c, str_make(p, content)))
        return false;
    io_consume(c->io, used);
    if (end)
        request_done(c);
    return end;
}

static void begin_request(struct conn *c, const struct request *r)
{
    c->route = route_of(r);
    c->to_head = r->method == METHOD_HEAD;
    c->keep_alive = r->keep_alive;
    c->minor = r->minor;
    c->framing = r->framing;
    c->chunked = (struct chunked){0};
    c->body_left = r->framing.kind == FRAMING_LENGTH ? r->framing.length : 0;
    c->body_bytes = 0;
    c->state = CONN_BODY;
    if (c->route.kind == ROUTE_ECHO && c->server->outage != OUTAGE_NONE)
        c->route.kind = ROUTE_SHOW; /* whose answer begins after the content, and so can be spoilt */
    ledger_enter(c->server, r);
    if ((c->used && conn_suffers(c, OUTAGE_REUSE)) || !show_begin(&c->shown, c->server->options->name, r)) {
        conn_reset(c);
        return;
    }
    if (r->expect_continue && (c->body_left > 0 || c->framing.kind == FRAMING_CHUNKED) &&
        !io_write_str(c->io, STR("HTTP/1.1 100 Continue\r\n\r\n"), false))
        return; /* IO_ERROR follows */
    if (c->route.kind == ROUTE_ECHO)
        answer_echo_begin(c);
}

/* Takes a request head, if it is there whole; true when it did. */
static bool step_head(struct conn *c)
{
    struct request r = {.headers = {.v = c->server->fields, .max = DEMO_FIELDS_MAX}};
    size_t n;
    const char *p = io_data(c->io, &n);
    enum err e = ERR_OK;
    enum scan_status scanned = head_scan(&c->scan, HEAD_REQUEST, str_make(p, n), &head_limits, &e);

    if (scanned == SCAN_MORE)
        return false;
    if (scanned == SCAN_DONE)
        e = parse_request(str_make(p + c->scan.skip, c->scan.at - c->scan.skip), &r);
    if (e != ERR_OK) {
        c->to_head = false;
        answer_refuse(c, (unsigned)err_status(e), err_detail(e));
        return false;
    }
    begin_request(c, &r);
    if (c->io)
        io_consume(c->io, c->scan.at);
    return true;
}

static void conn_read(struct conn *c)
{
    bool on = true;

    if (c->server->outage == OUTAGE_RESET) {
        conn_reset(c);
        return;
    }
    while (on && c->io && !conn_hangs(c) && !io_is_full(c->io)) {
        if (c->state == CONN_HEAD)
            on = step_head(c);
        else if (c->state == CONN_BODY)
            on = step_body(c);
        else
            on = false;
    }
}

static void on_io(void *owner, struct io *io, enum io_event event)
{
    struct conn *c = owner;

    switch (event) {
    case IO_READABLE: conn_read(c); break;
    case IO_DRAINED:
        if (c->state == CONN_SEND)
            answer_send_on(c);
        break;
    case IO_EOF:
        /* A request that was whole has been answered by now, or reading would be paused. */
        conn_close_after_answer(c);
        break;
    case IO_CONNECTED:
    case IO_WAITING:
    case IO_HANGUP: break;
    case IO_TIMEOUT_READ:
    case IO_TIMEOUT_WRITE:
    case IO_ERROR:
        io_close(io);
        conn_end(c);
        break;
    }
    conn_update_reading(c);
}

void conn_wake(struct conn *c)
{
    if (!conn_hangs(c) && c->state == CONN_DELAY && !timer_armed(&c->delay))
        answer(c);
    else if (!conn_hangs(c) && c->state == CONN_CUT && !timer_armed(&c->delay))
        conn_cut_off(c);
    else if (c->state == CONN_SEND)
        loop_post(c->server->loop, &c->send_on);
    conn_update_reading(c);
}

void conn_accept(struct demo_server *s, int fd)
{
    struct conn *c = mem_try_alloc(sizeof *c);
    struct io *io = io_new(s->loop, fd, on_io, c);

    if (!c || !io) {
        io_close(io);
        mem_free(c);
        return;
    }
    c->server = s;
    c->io = io;
    list_push_back(&s->conns, &c->link);
    timer_init(&c->delay, on_delay_over);
    posted_init(&c->send_on, on_send_on);
    io_set_read_timeout(io, IO_PROGRESS, IDLE_TIMEOUT);
    io_set_write_timeout(io, WRITE_TIMEOUT);
    conn_update_reading(c);
}
