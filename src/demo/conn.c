/* A connection of the demo backend: one state machine that reads a request, takes its content, and answers. Reading is
 * paused while an answer is due or under way, so that pipelined requests wait in the socket. */
#include "conn.h"

#include "base/buf.h"
#include "base/clock.h"
#include "base/json.h"
#include "base/mem.h"
#include "http/chunked.h"
#include "http/write.h"
#include "ledger.h"
#include "net/io.h"
#include "route.h"
#include "show.h"

#include <stdio.h>

#define IDLE_TIMEOUT    (120 * NS_PER_S)
#define WRITE_TIMEOUT   (60 * NS_PER_S)
#define LINGER_TIME     (2 * NS_PER_S)
#define LINGER_BYTES    (16u * 1024u * 1024u)
#define OUTAGE_BODY_MAX 4096u
#define PIECES_A_TURN   16
#define HEAD_MAX        1024u
#define CUT_AFTER       (20 * NS_PER_MS)

static const struct head_limits head_limits = {
    .head_bytes = 64u * 1024u, .target_bytes = 32u * 1024u, .fields = DEMO_FIELDS_MAX};

enum conn_state {
    CONN_HEAD,  /* waits for a request head */
    CONN_BODY,  /* takes the request's content */
    CONN_DELAY, /* the request is whole, its answer is due after the delay */
    CONN_SEND,  /* sends a long answer */
    CONN_CUT    /* has sent half an answer, which is to be all */
};

struct conn {
    struct demo_server *server;
    struct io *io; /* NULL once the connection has ended */
    struct list link;
    struct dead dead;
    struct timer delay;
    struct posted send_on;
    enum conn_state state;

    struct head_scan scan;
    struct route route;
    bool to_head, keep_alive;
    bool used; /* it has had a request before */
    unsigned minor;
    struct framing framing; /* of the request */
    struct chunked chunked;
    uint64_t body_left, body_bytes;
    uint64_t sent, send_left; /* of a long answer */
    struct buf shown;         /* the answer's JSON as far as it is known from the head */
    struct buf body;          /* content of POST /_outage */
};

struct conn *conn_of_link(struct list *link)
{
    return container_of(link, struct conn, link);
}

static bool hangs(const struct conn *c)
{
    return c->server->outage == OUTAGE_HANG;
}

/* Does this outage concern the answer to this request? /_outage is always served. */
static bool suffers(const struct conn *c, enum outage_mode mode)
{
    if (c->server->outage != mode || c->route.kind == ROUTE_OUTAGE)
        return false;
    return c->route.kind != ROUTE_HEALTH || !c->server->health_ok;
}

/* /health is spared: a check does not read that far. */
static bool is_cut_off(const struct conn *c)
{
    return suffers(c, OUTAGE_CUT) && c->route.kind != ROUTE_HEALTH && !c->to_head;
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

static void conn_close_after_answer(struct conn *c)
{
    io_close_lingering(c->io, LINGER_TIME, LINGER_BYTES);
    conn_end(c);
}

/* Makes reading follow from the state. */
static void conn_update_reading(struct conn *c)
{
    bool read;

    if (!c->io)
        return;
    read = (c->state == CONN_HEAD || c->state == CONN_BODY) && !io_is_full(c->io) && !hangs(c);
    if (read && io_is_paused(c->io))
        io_resume(c->io);
    else if (!read && !io_is_paused(c->io))
        io_pause(c->io);
}

/* The answer is complete: the next request, or the end. */
static void conn_answered(struct conn *c)
{
    buf_fini(&c->shown);
    buf_fini(&c->body);
    c->state = CONN_HEAD;
    c->scan = (struct head_scan){0};
    c->used = true;
    if (!c->keep_alive)
        conn_close_after_answer(c);
}

/* Half the answer is out; a moment for it to be passed on, then the end. */
static void conn_cut(struct conn *c)
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

static void write_answer_head(struct head_writer *w, const struct conn *c, unsigned status)
{
    char date[CLOCK_HTTP_DATE_SIZE];

    clock_format_http_date(clock_wall(), date);
    write_status_line(w, status, STR(""));
    write_field(w, STR("Date"), str_of(date));
    write_field(w, STR("X-Backend"), str_of(c->server->options->name));
    if (!c->keep_alive)
        write_field(w, STR("Connection"), STR("close"));
    else if (c->minor == 0)
        write_field(w, STR("Connection"), STR("keep-alive"));
}

/* An answer that fits in memory; `json` is not sent with a 204, a 304 or to a HEAD. */
static void conn_answer(struct conn *c, unsigned status, struct str json)
{
    char room[HEAD_MAX];
    struct head_writer w = head_writer_on(room, sizeof room);
    bool no_body = status == 204 || status == 304;

    write_answer_head(&w, c, status);
    if (!no_body) {
        write_field(&w, STR("Content-Type"), STR("application/json"));
        write_field_u64(&w, STR("Content-Length"), json.n);
    }
    write_end(&w);
    if (is_cut_off(c))
        json.n /= 2;
    if (!io_write_str(c->io, head_writer_str(&w), !no_body && !c->to_head) ||
        (!no_body && !c->to_head && !io_write_str(c->io, json, false)))
        return; /* IO_ERROR follows */
    if (is_cut_off(c))
        conn_cut(c);
    else
        conn_answered(c);
}

/* Answers a request that cannot be served, and closes. */
static void conn_refuse(struct conn *c, unsigned status, const char *why)
{
    struct buf json = BUF_INIT;

    c->keep_alive = false;
    if (buf_append_str(&json, STR("{\"error\":")) && json_append_string(&json, str_of(why)) &&
        buf_append_str(&json, STR("}\n")))
        conn_answer(c, status, buf_str(&json));
    else
        conn_reset(c);
    buf_fini(&json);
}

static void answer_show(struct conn *c, unsigned status)
{
    if (show_end(&c->shown, c->body_bytes, c->server->served))
        conn_answer(c, status, buf_str(&c->shown));
    else
        conn_reset(c);
}

/* The outage is on when its answer arrives; the connection is taken from the list, so that it does not end that too. */
static void answer_outage(struct conn *c)
{
    struct outage o;
    const char *why;
    char json[64];
    int n;

    if (!route_parse_outage(buf_str(&c->body), &o, &why)) {
        conn_refuse(c, 400, why);
        return;
    }
    n = snprintf(json, sizeof json, "{\"outage\":\"%s\",\"for_ms\":%llu}\n", outage_mode_name(o.mode),
                 (unsigned long long)(o.ns / NS_PER_MS));
    c->keep_alive = false;
    list_remove(&c->link);
    demo_server_outage(c->server, &o);
    conn_answer(c, 200, str_make(json, (size_t)n));
}

static void answer_health(struct conn *c)
{
    if (suffers(c, OUTAGE_500) || suffers(c, OUTAGE_SICK))
        conn_answer(c, 503, STR("{\"status\":\"failing\"}\n"));
    else
        conn_answer(c, 200, STR("{\"status\":\"ok\"}\n"));
}

static bool write_piece(struct conn *c, struct str piece, bool chunked)
{
    char line[CHUNK_LINE_MAX];

    if (!chunked)
        return io_write_str(c->io, piece, false);
    return io_write_str(c->io, str_make(line, chunked_line(piece.n, line)), true) && io_write_str(c->io, piece, true) &&
           io_write_str(c->io, STR("\r\n"), false);
}

/* A client of HTTP/1.0 knows no chunks: its answer ends with the connection. */
static bool sends_chunks(const struct conn *c)
{
    return c->route.kind == ROUTE_CHUNKED && c->minor > 0;
}

static void send_on(struct conn *c)
{
    for (int pieces = 0; c->send_left > 0; pieces++) {
        struct str piece = route_bytes(c->sent, c->send_left);

        if (io_is_full(c->io) || hangs(c))
            return; /* goes on when drained or woken */
        if (pieces == PIECES_A_TURN) {
            loop_post(c->server->loop, &c->send_on);
            return;
        }
        c->sent += piece.n;
        c->send_left -= piece.n;
        if (!write_piece(c, piece, sends_chunks(c)))
            return; /* IO_ERROR follows */
    }
    if (is_cut_off(c)) {
        conn_cut(c);
        return;
    }
    if (sends_chunks(c) && !c->to_head && !io_write_str(c->io, CHUNKED_LAST, false))
        return;
    conn_answered(c);
}

static void answer_bytes(struct conn *c)
{
    char room[HEAD_MAX];
    struct head_writer w = head_writer_on(room, sizeof room);

    if (c->route.kind == ROUTE_CHUNKED && c->minor == 0)
        c->keep_alive = false;
    write_answer_head(&w, c, 200);
    write_field(&w, STR("Content-Type"), STR("application/octet-stream"));
    if (sends_chunks(c))
        write_field(&w, STR("Transfer-Encoding"), STR("chunked"));
    else if (c->route.kind == ROUTE_BYTES)
        write_field_u64(&w, STR("Content-Length"), c->route.number);
    write_end(&w);
    c->state = CONN_SEND;
    c->sent = 0;
    c->send_left = c->to_head ? 0 : is_cut_off(c) ? c->route.number / 2 : c->route.number;
    if (io_write_str(c->io, head_writer_str(&w), false))
        send_on(c);
}

/* What OUTAGE_BAD says: no HTTP at all, lines that are none, a status that is none, and a content that is two. */
static void answer_badly(struct conn *c)
{
    static const char *const bad[] = {
        "what is this?\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length 2\r\n\r\nok",
        "HTTP/1.1 2000 OK\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
    };

    if (io_write_str(c->io, str_of(bad[c->server->spoilt++ % (sizeof bad / sizeof *bad)]), false))
        conn_close_after_answer(c);
}

static void answer(struct conn *c)
{
    if (suffers(c, OUTAGE_DROP)) {
        conn_reset(c);
        return;
    }
    if (suffers(c, OUTAGE_BAD)) {
        answer_badly(c);
        return;
    }
    if (c->route.kind == ROUTE_HEALTH) {
        answer_health(c);
        return;
    }
    if (c->route.kind == ROUTE_OUTAGE) {
        answer_outage(c);
        return;
    }
    c->server->served++;
    if (c->server->outage == OUTAGE_500)
        answer_show(c, 500);
    else if (c->route.kind == ROUTE_BYTES || c->route.kind == ROUTE_CHUNKED)
        answer_bytes(c);
    else
        answer_show(c, c->route.kind == ROUTE_STATUS ? (unsigned)c->route.number : 200);
}

static void on_delay_over(struct timer *t)
{
    struct conn *c = container_of(t, struct conn, delay);

    if (hangs(c))
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
        send_on(c);
    conn_update_reading(c);
}

static void begin_echo(struct conn *c)
{
    char room[HEAD_MAX];
    struct head_writer w = head_writer_on(room, sizeof room);

    write_answer_head(&w, c, 200);
    if (c->framing.kind == FRAMING_CHUNKED)
        write_field(&w, STR("Transfer-Encoding"), STR("chunked"));
    else
        write_field_u64(&w, STR("Content-Length"), c->body_left);
    write_end(&w);
    if (!io_write_str(c->io, head_writer_str(&w), false))
        c->route.kind = ROUTE_SHOW; /* IO_ERROR follows and ends it */
}

static void end_echo(struct conn *c)
{
    c->server->served++;
    if (c->framing.kind == FRAMING_CHUNKED && !io_write_str(c->io, CHUNKED_LAST, false))
        return;
    conn_answered(c);
}

static void request_done(struct conn *c)
{
    uint64_t delay = c->server->options->delay + (suffers(c, OUTAGE_SLOW) ? DEMO_SLOW : 0);

    if (c->route.kind == ROUTE_ECHO) {
        end_echo(c);
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
        conn_refuse(c, 413, "the content is too large");
        return false;
    }
    if (c->route.kind == ROUTE_OUTAGE && !buf_append_str(&c->body, content)) {
        conn_reset(c);
        return false;
    }
    if (c->route.kind == ROUTE_ECHO && content.n > 0)
        return write_piece(c, content, c->framing.kind == FRAMING_CHUNKED);
    return true;
}

/* Takes what there is of the content; true when the request is over and the next may be looked at. */
static bool step_body(struct conn *c)
{
    size_t n, content, used;
    char *p = io_data(c->io, &n);
    bool end;

    if (c->framing.kind == FRAMING_CHUNKED) {
        enum chunked_status status = chunked_decode(&c->chunked, p, n, &content, &used);
        if (status == CHUNKED_BAD) {
            conn_refuse(c, 400, err_detail(ERR_BAD_CHUNK));
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
    if (!show_begin(&c->shown, c->server->options->name, r)) {
        conn_reset(c);
        return;
    }
    if (r->expect_continue && (c->body_left > 0 || c->framing.kind == FRAMING_CHUNKED) &&
        !io_write_str(c->io, STR("HTTP/1.1 100 Continue\r\n\r\n"), false))
        return; /* IO_ERROR follows */
    if (c->route.kind == ROUTE_ECHO)
        begin_echo(c);
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
        conn_refuse(c, (unsigned)err_status(e), err_detail(e));
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

    if (c->server->outage == OUTAGE_RESET || (c->server->outage == OUTAGE_REUSE && c->used && c->state == CONN_HEAD)) {
        conn_reset(c);
        return;
    }
    while (on && c->io && !hangs(c) && !io_is_full(c->io)) {
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
            send_on(c);
        break;
    case IO_EOF:
        /* A request that was whole has been answered by now, or reading would be paused. */
        conn_close_after_answer(c);
        break;
    case IO_CONNECTED:
    case IO_WAITING: break;
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
    if (!hangs(c) && c->state == CONN_DELAY && !timer_armed(&c->delay))
        answer(c);
    else if (!hangs(c) && c->state == CONN_CUT && !timer_armed(&c->delay))
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
