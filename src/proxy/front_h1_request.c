/* How a client's HTTP/1.x requests are read: heads, which become exchanges, and content. What is no request, or does
 * not come, is refused here. */
#include "base/metrics.h"
#include "front_h1_impl.h"

/* ---- heads ---- */

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
    f->up_ended = r && !framing_has_content(&r->framing);
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

/* A part of a request line tells nothing: its target may be another's beginning. */
void front_head_timeout(struct front_h1 *f)
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

bool front_read_head(struct front_h1 *f, char *data, size_t n)
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

/* ---- content ---- */

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

void front_read_content(struct front_h1 *f, char *data, size_t n)
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
    enum chunked_status status = chunked_decode(&f->chunked, &data, n, &decoded, &consumed);
    io_consume(f->io, consumed);
    if (status == CHUNKED_MORE || status == CHUNKED_END) {
        upload(f, data, decoded, consumed, status == CHUNKED_END);
        return;
    }
    bool no_memory = status == CHUNKED_NO_MEMORY;
    f->keep_alive = false;
    if (f->exchange && !f->answered) {
        exchange_fail(f->exchange, no_memory ? ERR_INTERNAL : ERR_BAD_CHUNK);
        return;
    }
    metrics.out_of_memory += no_memory;
    if (f->exchange)
        stop_upload(f);
    else
        front_close_politely(f); /* answered already: what follows cannot be told apart */
}

void front_relay_content(struct front_h1 *f)
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

void front_content_timeout(struct front_h1 *f)
{
    if (f->exchange && f->answered)
        return; /* its response goes on; behind that, front_settle() waits for the rest once more */
    f->keep_alive = false;
    if (f->exchange)
        exchange_fail(f->exchange, ERR_BODY_TIMEOUT);
    else
        front_close_politely(f);
}
