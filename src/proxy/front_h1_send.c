/* What an exchange asks of the client's HTTP/1.x connection: heads, content, answers of our own, a cut. */
#include "base/metrics.h"
#include "front_h1_impl.h"
#include "http/rules.h"

#include <assert.h>

#define OWN_FIELDS_MAX (LIMIT_FIELDS_MAX + 64)

static struct front_h1 *h1_of(struct front *f)
{
    return container_of(f, struct front_h1, front);
}

/* May the connection outlive this exchange although its content has not been read yet? */
static bool can_discard(const struct front_h1 *f)
{
    return !f->expects && (f->up == FRAMING_CHUNKED || f->up_left <= FRONT_DISCARD_MAX);
}

static void decide_keep_alive(struct front_h1 *f)
{
    bool last = f->eof && !io_has_unread(f->io);
    if (f->px->draining || last || (!f->up_ended && !can_discard(f)))
        f->keep_alive = false;
    io_set_deferring(f->io, f->keep_alive); /* else the response and the end go at once */
}

/* ---- what the exchange asks for ---- */

/* What the reason and the fields of a response need, written anew. */
static size_t fields_room(const struct response *r)
{
    size_t room = r->reason.n;
    for (unsigned i = 0; i < r->headers.n; i++)
        room += r->headers.v[i].name.n + r->headers.v[i].value.n + 4;
    return room;
}

/* Sends what has been written; false, and the exchange has failed, when memory for it ran out. */
static bool send_written(struct front_h1 *f, const struct head_writer *w, bool more)
{
    if (w->full) {
        exchange_fail(f->exchange, ERR_INTERNAL);
        return false;
    }
    exchange_count_out(f->exchange, w->n);
    io_write_str(f->io, head_writer_str(w), more);
    return true;
}

static bool h1_send_interim(struct front *front, const struct response *r)
{
    struct front_h1 *f = h1_of(front);
    if (f->minor == 0 || f->answered)
        return false; /* HTTP/1.0 knows no interim responses (RFC 9110 section 15.2) */
    struct head_writer w = proxy_head_writer(f->px, fields_room(r) + 64);
    rules_write_interim(&w, r);
    if (!send_written(f, &w, false))
        return false;
    if (r->status == 100 && f->expects)
        front_expect_content(f);
    return io_is_full(f->io);
}

static struct framing down_framing(const struct front_h1 *f, const struct response *r)
{
    struct framing down = r->framing;
    if (down.kind == FRAMING_CHUNKED || down.kind == FRAMING_CLOSE)
        down.kind = f->minor == 0 ? FRAMING_CLOSE : FRAMING_CHUNKED;
    return down;
}

/* The balancer's own field lines: `extra`, and the Date that a response without one is given on its way (RFC 9110
 * section 6.6.1). */
static struct str own_fields(struct front_h1 *f, const struct response *r, struct str extra, char room[OWN_FIELDS_MAX])
{
    if (headers_have(&r->headers, FIELD_DATE))
        return extra;
    struct head_writer w = head_writer_on(room, OWN_FIELDS_MAX);
    write_str(&w, extra);
    write_field(&w, STR("Date"), proxy_date(f->px));
    assert(!w.full);
    return head_writer_str(&w);
}

static void h1_send_head(struct front *front, const struct response *r, struct str head, struct str extra, bool more)
{
    struct front_h1 *f = h1_of(front);
    char own[OWN_FIELDS_MAX];
    struct reply reply = {.to_head = f->head_request, .minor = f->minor, .extra = own_fields(f, r, extra, own)};
    reply.framing = down_framing(f, r);
    if (reply.framing.kind == FRAMING_CLOSE)
        f->keep_alive = false;
    decide_keep_alive(f);
    reply.keep_alive = f->keep_alive;
    f->down = (uint8_t)reply.framing.kind;
    f->answered = true;
    f->takes_trailers &= !r->nominates && f->down == FRAMING_CHUNKED;
    reply.trailers = f->takes_trailers;

    struct head_writer w = proxy_head_writer(f->px, rules_response_bound(r, head, &reply));
    rules_write_response(&w, r, &reply);
    (void)send_written(f, &w, more);
}

/* A chunked response without its last chunk is seen to be cut, and so is one of known length that ends before that (RFC
 * 9112 section 8); its end is written with the last byte. Where only the connection's end tells, it must be a reset.
 * Over a unix socket there is none to be had (io_abort()): there a response to HTTP/1.0 that is cut cannot be told from
 * a whole one. */
static bool cut_shows(const struct front_h1 *f)
{
    return f->answered && !f->down_ended && (f->down == FRAMING_CHUNKED || f->down == FRAMING_LENGTH);
}

static void h1_abort(struct front *front)
{
    struct front_h1 *f = h1_of(front);
    if (cut_shows(f)) { /* a reset would take along what is on its way, responses before this one among it */
        front_linger(f, false);
    } else {
        io_abort(f->io);
        front_gone(f);
    }
}

static bool h1_send_body(struct front *front, const char *p, size_t n, bool end, struct str section)
{
    struct front_h1 *f = h1_of(front);
    char line[CHUNK_LINE_MAX];
    struct iovec iov[CHUNKED_PIECES];
    struct str trailers = STR("");
    int k = 0;
    if (f->down == FRAMING_CHUNKED) {
        if (section.n > 0 && f->takes_trailers && !proxy_write_trailers(f->px, section, false, &trailers)) {
            metrics.out_of_memory++;
            exchange_abandon(f->exchange, ERR_INTERNAL);
            h1_abort(front);
            return false;
        }
        k = chunked_pieces(iov, line, str_make(p, n), end, trailers);
    } else if (p && n > 0) {
        iov[k++] = (struct iovec){(void *)(uintptr_t)p, n};
    }
    size_t wire = p ? 0 : n;
    for (int i = 0; i < k; i++)
        wire += iov[i].iov_len;
    exchange_count_out(f->exchange, wire);
    io_write(f->io, iov, k, false);
    if (end && f->tunnel) {
        f->down_ended = true;
        io_shutdown_write(f->io);
        front_tunnel_settle(f);
        return false;
    }
    if (end) {
        f->down_ended = true;
        front_settle(f);
        return false;
    }
    return io_is_full(f->io);
}

static struct io *h1_sink(struct front *front)
{
    struct front_h1 *f = h1_of(front);
    return f->down == FRAMING_LENGTH ? f->io : NULL;
}

static void h1_send_switch(struct front *front, const struct response *r, struct str extra)
{
    struct front_h1 *f = h1_of(front);
    char own[OWN_FIELDS_MAX];
    struct str fields = own_fields(f, r, extra, own);
    struct head_writer w = proxy_head_writer(f->px, fields_room(r) + fields.n + 256);
    rules_write_switch(&w, r, fields);
    f->tunnel = f->answered = true;
    io_set_patient(f->io, false);
    f->keep_alive = f->up_ended = f->expects = false;
    f->down = FRAMING_CLOSE;
    if (!send_written(f, &w, false))
        return;
    io_set_read_timeout(f->io, IO_BY, f->px->config->timeouts.tunnel);
    io_set_write_timeout(f->io, f->px->config->timeouts.tunnel);
    io_set_min_rate(f->io, false);
    if (f->eof && !io_has_unread(f->io))
        front_tunnel_eof(f);
    else if (io_is_paused(f->io)) /* what the client has sent already waits to be read */
        io_resume(f->io);
}

static void write_local_head(struct head_writer *w, const struct front_h1 *f, const struct local_answer *a,
                             struct str extra)
{
    write_status_line(w, a->status, STR(""));
    write_field(w, STR("Date"), proxy_date(f->px));
    if (a->content_type.n > 0) {
        write_field(w, STR("Content-Type"), a->content_type);
        /* A cache may otherwise keep a 404, 405, 414 or 501 as it sees fit (RFC 9110 section 15.1). */
        write_field(w, STR("Cache-Control"), STR("no-store"));
    }
    write_field_u64(w, STR("Content-Length"), a->body.n);
    write_str(w, a->fields);
    write_str(w, extra);
    if (!f->keep_alive)
        write_field(w, STR("Connection"), STR("close"));
    else if (f->minor == 0)
        write_field(w, STR("Connection"), STR("keep-alive"));
    write_end(w);
}

static void h1_send_local(struct front *front, const struct local_answer *a, struct str extra, bool close)
{
    struct front_h1 *f = h1_of(front);
    if (close)
        f->keep_alive = false;
    decide_keep_alive(f);
    f->answered = f->down_ended = true;
    struct str body = f->head_request ? STR("") : a->body;

    struct head_writer w = proxy_head_writer(f->px, 256 + a->content_type.n + a->fields.n + extra.n);
    write_local_head(&w, f, a, extra);
    if (w.full) {
        metrics.out_of_memory++;
        f->front.ops->abort(front);
        return;
    }
    struct iovec iov[2] = {{w.p, w.n}, {(void *)(uintptr_t)body.p, body.n}};
    exchange_count_out(f->exchange, w.n + body.n);
    io_write(f->io, iov, body.n > 0 ? 2 : 1, false);
    front_settle(f);
}

static void h1_end_tunnel(struct front *front)
{
    front_linger(h1_of(front), false);
}

static void h1_queued(struct front *front)
{
    io_await_hangup(h1_of(front)->io);
}

static void h1_pause_upload(struct front *front)
{
    struct front_h1 *f = h1_of(front);
    if (f->up_ended || f->upload_paused)
        return;
    f->upload_paused = true;
    io_pause(f->io);
}

static void h1_resume_upload(struct front *front)
{
    struct front_h1 *f = h1_of(front);
    if (!f->upload_paused)
        return;
    f->upload_paused = false;
    io_resume(f->io);
}

const struct front_ops front_h1_ops = {
    .send_interim = h1_send_interim,
    .send_head = h1_send_head,
    .send_body = h1_send_body,
    .sink = h1_sink,
    .send_switch = h1_send_switch,
    .send_local = h1_send_local,
    .queued = h1_queued,
    .pause_upload = h1_pause_upload,
    .resume_upload = h1_resume_upload,
    .end_tunnel = h1_end_tunnel,
    .abort = h1_abort,
};
