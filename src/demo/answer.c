/* What the demo backend answers, and how an outage spoils it. */
#include "base/clock.h"
#include "base/json.h"
#include "conn_impl.h"
#include "http/write.h"
#include "show.h"

#include <stdio.h>

#define PIECES_A_TURN 16
#define HEAD_MAX      1024u

bool conn_suffers(const struct conn *c, enum outage_mode mode)
{
    if (c->server->outage != mode || c->route.kind == ROUTE_OUTAGE)
        return false;
    return c->route.kind != ROUTE_HEALTH || !c->server->health_ok;
}

/* /health is spared: a check does not read that far. */
static bool is_cut_off(const struct conn *c)
{
    return conn_suffers(c, OUTAGE_CUT) && c->route.kind != ROUTE_HEALTH && !c->to_head;
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

void answer_refuse(struct conn *c, unsigned status, const char *why)
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
        answer_refuse(c, 400, why);
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
    if (conn_suffers(c, OUTAGE_500) || conn_suffers(c, OUTAGE_SICK))
        conn_answer(c, 503, STR("{\"status\":\"failing\"}\n"));
    else
        conn_answer(c, 200, STR("{\"status\":\"ok\"}\n"));
}

bool answer_piece(struct conn *c, struct str piece, bool chunked)
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

void answer_send_on(struct conn *c)
{
    for (int pieces = 0; c->send_left > 0; pieces++) {
        struct str piece = route_bytes(c->sent, c->send_left);

        if (io_is_full(c->io) || conn_hangs(c))
            return; /* goes on when drained or woken */
        if (pieces == PIECES_A_TURN) {
            loop_post(c->server->loop, &c->send_on);
            return;
        }
        c->sent += piece.n;
        c->send_left -= piece.n;
        if (!answer_piece(c, piece, sends_chunks(c)))
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
        answer_send_on(c);
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

void answer(struct conn *c)
{
    if (conn_suffers(c, OUTAGE_DROP)) {
        conn_reset(c);
        return;
    }
    if (conn_suffers(c, OUTAGE_BAD)) {
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

void answer_echo_begin(struct conn *c)
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

void answer_echo_end(struct conn *c)
{
    c->server->served++;
    if (c->framing.kind == FRAMING_CHUNKED && !io_write_str(c->io, CHUNKED_LAST, false))
        return;
    conn_answered(c);
}
