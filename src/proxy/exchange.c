/* One request and its response.
 *
 *   front (client's side)                                             attempt (backend's side)
 *
 *   exchange_begin ----> ADMIT --allowed--> PICK --connected--> RELAY --response ended--> DONE
 *                          |                 |  ^                 |                        ^
 *                          |                 |  |                 +--101--> TUNNEL --------+  (both sides have ended)
 *                          |                 |  +---sent again----+  (only before the response's head)
 *                          +---refused,------+------------failed--+
 *                              ours          v
 *                                          LOCAL --answer sent--> DONE
 *
 *   exchange_upload --- content --->  kept, up to 64 KiB  --- content --->  back_send_body
 *   front->send_*  <--- response ------------------------------------------ on_head, on_body
 *
 * Two directions run side by side: `up` ends when the content has been read whole (up_ended), `down` when the response
 * has been written whole. Neither waits for the other: a backend may answer early. The carrier decides when the
 * exchange is over (exchange_end), for it alone knows when the client has it all.
 *
 * Back-pressure: when a backend takes no more, or is not there yet and 64 KiB are kept, the carrier stops reading
 * content; when the carrier is full, the backend's connection stops being read. So at most 64 KiB of kept content and
 * what one more read brings (64 KiB), 8 KiB of trailers each way, and on each of the two connections the high-water
 * mark (64 KiB) and what one turn can add to it (64 KiB) are held for an exchange, whatever either side does: 400 KiB
 * with the exchange itself and its head.
 *
 * Sending again: as long as no response head has been passed on and `kept` holds all the content so far, attempt.c may
 * begin anew at another backend. So nothing is kept once that cannot be any more: behind the first byte that has left
 * of a request that may not be sent twice, and behind 64 KiB of any other. */
#include "proxy/exchange.h"

#include "base/log.h"
#include "base/mem.h"
#include "base/metrics.h"
#include "exchange_impl.h"
#include "http/rules.h"

#include <assert.h>

#define ALLOWED_METHODS                                                                                                \
    "GET, HEAD, POST, PUT, DELETE, OPTIONS, PATCH" /* those that RFC 9110 and 5789 define, but CONNECT and TRACE */

void exchange_enter(struct exchange *x, enum exchange_state to)
{
    static const char *const names[] = {"ADMIT", "PICK", "RELAY", "TUNNEL", "LOCAL", "DONE"};
    static const uint8_t legal[] = {
        [EXCHANGE_ADMIT] = 1 << EXCHANGE_PICK | 1 << EXCHANGE_LOCAL | 1 << EXCHANGE_DONE,
        [EXCHANGE_PICK] = 1 << EXCHANGE_PICK | 1 << EXCHANGE_RELAY | 1 << EXCHANGE_LOCAL | 1 << EXCHANGE_DONE,
        [EXCHANGE_RELAY] = 1 << EXCHANGE_PICK | 1 << EXCHANGE_TUNNEL | 1 << EXCHANGE_LOCAL | 1 << EXCHANGE_DONE,
        [EXCHANGE_TUNNEL] = 1 << EXCHANGE_DONE,
        [EXCHANGE_LOCAL] = 1 << EXCHANGE_DONE,
        [EXCHANGE_DONE] = 0,
    };
    assert(legal[x->state] >> to & 1);
    (void)legal;
    if (log_enabled(LOG_DEBUG)) {
        log_begin(LOG_DEBUG, "exchange_state");
        log_str("request_id", x->request_id);
        log_z("from", names[x->state]);
        log_z("to", names[to]);
        log_end();
    }
    x->state = to;
}

struct exchange *exchange_new(struct proxy *px, struct front *f, uint64_t begun)
{
    struct exchange *x = mem_try_alloc_room(sizeof *x, offsetof(struct exchange, room));
    if (!x)
        return NULL;
    x->px = px;
    x->front = f;
    x->begun = begun;
    x->replayable = true;
    x->reason = "";
    arena_init(&x->arena, x->room, sizeof x->room);
    px->exchanges++;
    metrics.requests++;
    return x;
}

bool exchange_is_queued(const struct exchange *x)
{
    return x->attempt.waiter.upstream != NULL;
}

void exchange_count_in(struct exchange *x, uint64_t n)
{
    x->bytes_in += n;
    metrics.bytes_in += n;
}

void exchange_count_out(struct exchange *x, uint64_t n)
{
    x->bytes_out += n;
    metrics.bytes_out += n;
}

/* ---- admission ---- */

/* Copies for the log what is known of a request, which may be little. */
static bool note_request(struct exchange *x, const struct request *r)
{
    x->method = r->method;
    x->client_known = identity_address(x->px->config, &x->front->peer, &r->headers, &x->client);
    return arena_copy(&x->arena, r->method_text, &x->method_text) && arena_copy(&x->arena, r->target, &x->target);
}

/* The client's own id if it is sane, else 128 bits in hexadecimal that nobody can guess. */
static bool note_request_id(struct exchange *x, const struct headers *h)
{
    unsigned count = 0;
    const struct field *own = headers_find(h, FIELD_X_REQUEST_ID, &count);
    if (count == 1 && rules_request_id_is_sane(own->value))
        return arena_copy(&x->arena, own->value, &x->request_id);
    char *p = arena_alloc(&x->arena, 32);
    if (!p)
        return false;
    uint64_t seed[2] = {x->px->id_counter++, 0};
    for (int half = 0; half < 2; half++) {
        seed[1] = (uint64_t)half;
        str_write_hex(hash_bytes(&x->px->id_key, seed, sizeof seed), p + (size_t)half * 16);
    }
    x->request_id = str_make(p, 32);
    return true;
}

/* Asks the limiter. False when the request has been answered here. */
static bool admit(struct exchange *x, const struct request *r)
{
    struct limit_answer a;
    limiter_ask(x->px->limiter, &x->front->peer, &r->headers, &a);
    if (!arena_copy(&x->arena, a.client_id, &x->client_id) ||
        !arena_copy(&x->arena, str_make(a.fields, a.fields_len), &x->extra)) {
        exchange_fail(x, ERR_INTERNAL);
        return false;
    }
    x->shadow_limited = a.shadow_limited;
    if (a.verdict == LIMIT_ALLOW)
        return true;
    if (a.error == ERR_RATE_LIMITED)
        local_rate_limited(x, a.registered, a.retry_after_s);
    else
        exchange_fail(x, a.error);
    return false;
}

/* Copies what protocols the client would switch to: they are sent on, and a 101 must name one of them. */
static bool note_upgrade(struct exchange *x, const struct request *r, struct str head)
{
    if (!r->upgrade)
        return true;
    struct head_writer w = proxy_head_writer(x->px, head.n + 2 * PROTOCOLS_MAX);
    rules_write_protocols(&w, &r->headers);
    return !w.full && arena_copy(&x->arena, head_writer_str(&w), &x->upgrade);
}

static bool write_head(struct exchange *x, const struct request *r, struct str head)
{
    const struct config *config = x->px->config;
    char ip[IP_TEXT_SIZE];
    const struct peer *peer = &x->front->peer;
    struct forward f = {
        .client_ip = peer->is_unix ? STR("") : str_make(ip, ip_format(&peer->ip, ip)),
        .trusted = cidr_set_contains_peer(&config->trusted_proxies, peer),
        .request_id = x->request_id,
        .client_id_name = config->rate_limit.on ? str_of(config->rate_limit.client_id_header) : STR(""),
        .upgrade = x->upgrade,
    };
    struct head_writer w = proxy_head_writer(x->px, rules_request_bound(r, head, &f));
    rules_write_request(&w, r, &f);
    return !w.full && arena_copy(&x->arena, head_writer_str(&w), &x->head);
}

/* Checks that need no state of the limiter's or the backends'. */
static enum err check_request(const struct exchange *x, const struct request *r)
{
    uint64_t max = x->px->config->limits.body_bytes;
    if (max > 0 && r->framing.kind == FRAMING_LENGTH && r->framing.length > max)
        return ERR_BODY_TOO_LARGE;
    return rules_check_loop(r);
}

void exchange_begin(struct exchange *x, const struct request *r, struct str head, bool more)
{
    x->framing = r->framing;
    x->up_ended = !framing_has_content(&r->framing);
    x->expects_continue = r->expect_continue;
    x->nominates = r->nominates;
    x->takes_trailers = r->takes_trailers;
    x->names_user = r->names_user;
    if (!note_request(x, r) || !note_request_id(x, &r->headers)) {
        exchange_fail(x, ERR_INTERNAL);
        return;
    }
    if (x->px->local && x->px->local->is_mine(x->px->local->arg, r)) {
        local_begin(x, r);
        return;
    }
    enum err e = check_request(x, r);
    if (e != ERR_OK) {
        exchange_fail(x, e);
        return;
    }
    if (x->px->limiter && !admit(x, r))
        return;
    uint64_t forwards;
    if (rules_max_forwards(r, &forwards) && forwards == 0) {
        local_options(x, STR("Allow: " ALLOWED_METHODS "\r\n"));
        return;
    }
    if (!note_upgrade(x, r, head) || !write_head(x, r, head)) {
        exchange_fail(x, ERR_INTERNAL);
        return;
    }
    hash_key_note(x, r);
    attempt_begin(x, more);
}

void exchange_refuse(struct exchange *x, const struct request *r, enum err e)
{
    static const struct headers none;
    x->client_known = identity_address(x->px->config, &x->front->peer, &none, &x->client);
    if ((r && !note_request(x, r)) || !note_request_id(x, r ? &r->headers : &none))
        metrics.out_of_memory++; /* only the log line is poorer for it */
    exchange_fail(x, e);
}

/* ---- content of the request ---- */

void exchange_upload(struct exchange *x, const char *p, size_t n, bool end)
{
    if (x->state == EXCHANGE_DONE)
        return; /* answered already: what still comes is thrown away */
    x->received += n;
    x->up_ended = end;
    x->moved = loop_now(x->px->loop);
    uint64_t max = x->px->config->limits.body_bytes;
    if (x->state == EXCHANGE_LOCAL) {
        local_upload(x, p, n, end);
        return;
    }
    if (max > 0 && x->received > max && x->state != EXCHANGE_TUNNEL) {
        if (x->down_begun) /* the response goes on, without what would be too much */
            x->front->ops->pause_upload(x->front);
        else
            exchange_fail(x, ERR_BODY_TOO_LARGE);
        return;
    }
    if (attempt_upload(x, p, n, end) && x->state != EXCHANGE_DONE)
        x->front->ops->pause_upload(x->front);
}

struct io *exchange_sink(struct exchange *x)
{
    /* What may have to be sent again is kept. */
    bool direct = x->state == EXCHANGE_RELAY && x->attempt.ready && !x->replayable;
    return direct ? back_sink(x->attempt.conn) : NULL;
}

struct buf *exchange_trailers(struct exchange *x)
{
    return &x->trailers;
}

/* ---- the response ---- */

void exchange_on_interim(struct exchange *x, const struct response *r)
{
    bool full = x->front->ops->send_interim(x->front, r);
    if (full && x->attempt.conn)
        back_pause(x->attempt.conn);
}

void exchange_on_head(struct exchange *x, const struct response *r, struct str head, bool more)
{
    x->down_begun = true;
    x->status = r->status;
    if (r->status >= 502 && r->status <= 504)
        backend_count_gateway_error(x->attempt.backend);
    x->replayable = false; /* what has been answered is not sent again */
    buf_fini(&x->kept);
    x->front->ops->send_head(x->front, r, head, x->extra, more);
}

void exchange_on_body(struct exchange *x, char *p, size_t n, bool end, struct str trailers)
{
    if (x->state != EXCHANGE_RELAY && x->state != EXCHANGE_TUNNEL)
        return; /* the carrier failed at the head */
    if (end && x->state == EXCHANGE_RELAY)
        exchange_enter(x, EXCHANGE_DONE);
    x->moved = loop_now(x->px->loop);
    bool full = x->front->ops->send_body(x->front, p, n, end, trailers);
    if (full && x->attempt.conn)
        back_pause(x->attempt.conn);
}

/* ---- a tunnel ---- */

void exchange_on_switch(struct exchange *x, const struct response *r)
{
    x->down_begun = true;
    x->status = r->status;
    x->replayable = false;
    x->up_ended = false;
    x->moved = loop_now(x->px->loop);
    buf_fini(&x->kept);
    buf_fini(&x->trailers);
    metrics.tunnels++;
    exchange_enter(x, EXCHANGE_TUNNEL);
    x->front->ops->send_switch(x->front, r, x->extra);
}

uint64_t exchange_tunnel_left(const struct exchange *x)
{
    struct loop *l = x->px->loop;
    uint64_t span = x->px->config->timeouts.tunnel, end = loop_noted(l, x->moved) + span, now = loop_heard(l);
    if (x->attempt.conn && back_unsent(x->attempt.conn) > 0)
        return span;
    return end > now ? end - now : 0;
}

void exchange_drained(struct exchange *x)
{
    x->moved = loop_now(x->px->loop);
    if (x->attempt.conn && x->attempt.ready)
        back_resume(x->attempt.conn);
}

/* ---- failure ---- */

/* RFC 9110 section 10.2.1: of the target, which may be the local handler's. */
static struct str allowed_methods(const struct exchange *x)
{
    const struct local_handler *h = x->px->local;
    struct str own = h ? h->allowed(h->arg, x->target) : STR("");
    return own.n > 0 ? own : STR("Allow: " ALLOWED_METHODS "\r\n");
}

void exchange_fail(struct exchange *x, enum err e)
{
    if (x->state == EXCHANGE_DONE)
        return;
    x->reason = err_reason(e);
    attempt_drop(x);
    local_drop(x);
    if (!x->down_begun && err_status(e) != 0) {
        struct str allow = e == ERR_METHOD_NOT_ALLOWED ? allowed_methods(x) : STR("");
        local_problem(x, e, allow, NULL);
        return;
    }
    metrics.exchanges_cut++;
    metrics.out_of_memory += e == ERR_INTERNAL; /* an answer is counted where it is made */
    exchange_enter(x, EXCHANGE_DONE);
    x->front->ops->abort(x->front);
}

void exchange_abandon(struct exchange *x, enum err e)
{
    if (x->state == EXCHANGE_DONE && *x->reason)
        return;
    x->reason = err_reason(e);
    metrics.exchanges_cut++;
    attempt_drop(x);
    local_drop(x);
    if (x->state != EXCHANGE_DONE)
        exchange_enter(x, EXCHANGE_DONE);
}

static void exchange_reclaim(struct dead *d)
{
    mem_free(container_of(d, struct exchange, dead));
}

void exchange_end(struct exchange *x)
{
    attempt_drop(x);
    local_drop(x);
    if (x->state != EXCHANGE_DONE)
        exchange_enter(x, EXCHANGE_DONE);
    x->px->exchanges--;
    x->px->finished++;
    access_log_request(x);
    attempt_fini(x);
    buf_fini(&x->kept);
    buf_fini(&x->trailers);
    arena_fini(&x->arena);
    loop_reclaim(x->px->loop, &x->dead, exchange_reclaim);
}
