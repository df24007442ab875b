/* One try at one backend: chosen, leased or connected to, sent to, and, when it fails before its answer, perhaps
 * another. May it be sent again? Only what certainly never left, or what an idempotent method says may arrive twice
 * (RFC 9110 section 9.2.2), and only while all its content is still at hand. */
#include "base/log.h"
#include "base/metrics.h"
#include "exchange_impl.h"
#include "http/rules.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

static const struct back_events events;

static void attempt_start(struct exchange *x, bool fresh, bool more);
static void attempt_failed(struct exchange *x, const struct back_failure *f);

/* The place that the request has got at `be` is this attempt's. */
static void take_place(struct attempt *a, struct backend *be, const struct place *p)
{
    backend_put(a->backend);
    a->backend = backend_get(be);
    a->placed = true;
    a->place = *p;
    a->count++;
    backend_count_attempt(be);
    a->stale_replaced = false;
    if (a->pick.tried_count < UPSTREAM_TRIED_MAX)
        a->pick.tried[a->pick.tried_count++] = backend_get(be);
}

static void leave_place(struct attempt *a)
{
    if (!a->placed)
        return;
    a->placed = false;
    backend_leave(a->backend, &a->place);
}

/* Content for the backend's connection; with its end the trailers that may go on. True when it is full. */
static bool send_content(struct exchange *x, struct str content, bool end)
{
    struct str trailers = STR("");
    if (end && x->trailers.len > 0 && !x->nominates) {
        if (!proxy_write_trailers(x->px, buf_str(&x->trailers), true, &trailers)) {
            exchange_fail(x, ERR_INTERNAL);
            return false;
        }
    }
    return back_send_body(x->attempt.conn, content.p, content.n, end, trailers);
}

/* From here on it cannot be sent again, and so nothing is kept for that. */
static void give_up_sending_again(struct exchange *x)
{
    x->replayable = false;
    buf_fini(&x->kept);
}

/* What may not be sent twice is not sent again once a byte of it has left. */
static void note_sent(struct exchange *x)
{
    if (x->replayable && x->attempt.ready && !method_is_idempotent(x->method) && back_has_sent(x->attempt.conn))
        give_up_sending_again(x);
}

/* The connection takes the request: its head, then what content has come. */
static void send_request(struct exchange *x, bool more)
{
    struct attempt *a = &x->attempt;
    if (x->state == EXCHANGE_PICK)
        exchange_enter(x, EXCHANGE_RELAY);
    a->ready = true;
    struct str kept = buf_str(&x->kept);
    bool now = framing_has_content(&x->framing) && (kept.n > 0 || x->up_ended);
    struct back_request r = {.head = x->head,
                             .method = x->method,
                             .framing = x->framing,
                             .upgrade = x->upgrade.n > 0,
                             .takes_trailers = x->takes_trailers,
                             .names_user = x->names_user,
                             .expects = x->expects_continue && x->received == 0};
    back_send_head(a->conn, &r, now || more);
    bool full = now && send_content(x, kept, x->up_ended);
    note_sent(x);
    if (!full && !more && x->state == EXCHANGE_RELAY)
        x->front->ops->resume_upload(x->front);
}

static void attempt_start(struct exchange *x, bool fresh, bool more)
{
    struct attempt *a = &x->attempt;
    struct backend *be = a->backend;
    a->ready = false;
    metrics.attempts++;
    /* What may not be sent twice goes only where a look shows that the connection stands. */
    bool sure = !method_is_idempotent(x->method);
    a->conn = fresh ? NULL : pool_get(be, sure, &events, x);
    if (a->conn) {
        send_request(x, more);
        return;
    }
    a->conn = back_open(be, x->px->config->timeouts.connect, &events, x);
    if (a->conn)
        return;
    struct back_failure f = {.error = ERR_CONNECT_FAILED, .sys_errno = errno, .cause = back_error_text(errno)};
    attempt_failed(x, &f); /* at most retry.attempts deep */
}

static void attempt_at(struct exchange *x, struct backend *be, const struct place *p, bool more)
{
    take_place(&x->attempt, be, p);
    attempt_start(x, false, more);
}

static void on_wait_over(struct waiter *w, struct backend *be, enum err e)
{
    struct exchange *x = container_of(w, struct exchange, attempt.waiter);
    x->attempt.waited += loop_now(x->px->loop) - w->since;
    if (be)
        attempt_at(x, be, &w->place, false);
    else
        exchange_fail(x, e);
}

/* No backend has a place for it: it waits, and its content is kept or not read, as while one is being connected to. */
static void wait_for_place(struct exchange *x)
{
    waiter_init(&x->attempt.waiter, &x->attempt.pick, on_wait_over);
    if (upstream_wait(x->px->upstream, &x->attempt.waiter))
        x->front->ops->queued(x->front);
    else
        exchange_fail(x, ERR_QUEUE_FULL);
}

void attempt_begin(struct exchange *x, bool more)
{
    exchange_enter(x, EXCHANGE_PICK);
    budget_count(&x->px->budget, loop_now(x->px->loop));
    bool full;
    struct place place;
    struct backend *be = upstream_pick(x->px->upstream, &x->attempt.pick, &place, &full);
    if (be)
        attempt_at(x, be, &place, more);
    else if (full)
        wait_for_place(x);
    else
        exchange_fail(x, ERR_NO_BACKEND);
}

void attempt_drop(struct exchange *x)
{
    struct attempt *a = &x->attempt;
    struct back_conn *c = a->conn;
    if (c && x->down_begun) /* whoever gives a response up, it is not the backend that has failed */
        backend_succeeded(a->backend, &a->place);
    a->conn = NULL;
    a->ready = false;
    back_release(c);
    leave_place(a);
    if (a->waiter.upstream)
        a->waited += loop_now(x->px->loop) - a->waiter.since;
    upstream_unwait(&a->waiter);
}

void attempt_fini(struct exchange *x)
{
    backend_put(x->attempt.backend);
    x->attempt.backend = NULL;
    struct pick *p = &x->attempt.pick;
    while (p->tried_count > 0)
        backend_put(p->tried[--p->tried_count]);
}

/* ---- content ---- */

/* Keeps a copy for another attempt while it is small enough; false, and the exchange has failed, when there is no
 * memory. */
static bool keep(struct exchange *x, const char *p, size_t n)
{
    if (!x->replayable)
        return true;
    if (x->attempt.ready && x->kept.len + n > EXCHANGE_KEPT_MAX) {
        give_up_sending_again(x);
        return true;
    }
    if (buf_append(&x->kept, p, n))
        return true;
    if (x->attempt.ready) { /* it has been sent, and the backend may have it all */
        metrics.out_of_memory++;
        give_up_sending_again(x);
        return true;
    }
    exchange_fail(x, ERR_INTERNAL);
    return false;
}

bool attempt_upload(struct exchange *x, const char *p, size_t n, bool end)
{
    if (!x->attempt.ready)
        return keep(x, p, n) && x->kept.len >= EXCHANGE_KEPT_MAX;
    /* Sent first, for most often that is the end of sending it again, and no copy is made. */
    bool full = send_content(x, str_make(p, n), end);
    note_sent(x);
    return (!x->attempt.ready || keep(x, p, n)) && full;
}

/* ---- what the backend says ---- */

static void on_ready(void *arg)
{
    send_request(arg, false);
}

static void on_interim(void *arg, const struct response *r)
{
    exchange_on_interim(arg, r);
}

static void on_head(void *arg, const struct response *r, struct str head, bool more)
{
    struct exchange *x = arg;
    backend_answered(x->attempt.backend, &x->attempt.place);
    exchange_on_head(x, r, head, more);
}

static void on_switch(void *arg, const struct response *r)
{
    struct exchange *x = arg;
    if (!rules_is_offered(&r->headers, x->upgrade)) {
        struct back_failure f = {.error = ERR_BAD_RESPONSE, .sent = true, .answered = true, .cause = "101 unasked for"};
        f.moved = back_has_moved(x->attempt.conn);
        attempt_drop(x);
        attempt_failed(x, &f);
        return;
    }
    backend_succeeded(x->attempt.backend, &x->attempt.place);
    exchange_on_switch(x, r);
}

static void on_body(void *arg, char *p, size_t n, bool end, struct str trailers)
{
    struct exchange *x = arg;
    if (end && x->state != EXCHANGE_TUNNEL) { /* the connection is no longer ours */
        backend_succeeded(x->attempt.backend, &x->attempt.place);
        x->attempt.conn = NULL;
        x->attempt.ready = false;
        leave_place(&x->attempt);
    }
    exchange_on_body(x, p, n, end, trailers);
}

static struct io *sink(void *arg)
{
    struct exchange *x = arg;
    return x->state == EXCHANGE_RELAY ? x->front->ops->sink(x->front) : NULL;
}

static void on_drained(void *arg)
{
    struct exchange *x = arg;
    x->moved = loop_now(x->px->loop);
    note_sent(x);
    x->front->ops->resume_upload(x->front);
}

/* ---- failure ---- */

static void log_retry(const struct exchange *x, const struct back_failure *f, const char *what)
{
    log_begin(LOG_INFO, "retry");
    log_str("backend", backend_name(x->attempt.backend));
    log_z("reason", err_reason(f->error));
    log_z("cause", f->cause);
    log_u64("attempt", x->attempt.count);
    log_z("next", what);
    log_str("method", x->method_text);
    log_str("target", x->target);
    log_str("request_id", x->request_id);
    log_end();
}

static bool may_send_again(const struct exchange *x, const struct back_failure *f)
{
    /* That it takes long where it is known to be served is no reason to have it served twice. */
    if (f->error == ERR_RESPONSE_TIMEOUT && f->at_work)
        return false;
    return !x->down_begun && x->replayable && (!f->sent || method_is_idempotent(x->method));
}

/* A pooled connection that was closed at its reuse says nothing about the backend: once, a fresh one takes its place.
 * Not when the backend has been found down meanwhile (its pool was closed because of that, perhaps): then it is an
 * attempt that has failed, and that counts, for all that were under way there come at the same moment. */
static bool replace_stale(struct exchange *x, const struct back_failure *f)
{
    struct attempt *a = &x->attempt;
    if (!f->reused || a->stale_replaced || f->answered || f->error != ERR_BACKEND_RESET ||
        !backend_is_available(a->backend))
        return false;
    a->stale_replaced = true;
    metrics.stale_replaced++;
    log_retry(x, f, "fresh connection");
    exchange_enter(x, EXCHANGE_PICK);
    attempt_start(x, true, false);
    return true;
}

static bool another_attempt(struct exchange *x, const struct back_failure *f)
{
    const struct config *config = x->px->config;
    struct attempt *a = &x->attempt;
    if (a->count > config->retry.attempts)
        return false;
    if (!upstream_has_any(x->px->upstream))
        return false;
    /* Before anybody is chosen, for a choice moves the turn: of two backends the one that fails would have every
     * request's first attempt, if the other one's turns went to retries that are not made. */
    uint64_t now = loop_now(x->px->loop);
    if (!budget_allows(&x->px->budget, now, config->retry.budget_percent)) {
        metrics.retries_denied++;
        a->over_budget = true;
        return false;
    }
    bool full;
    struct place place;
    struct backend *be = upstream_pick(x->px->upstream, &a->pick, &place, &full);
    assert(be || full);
    budget_spend(&x->px->budget, now);
    metrics.retries++;
    log_retry(x, f, !be ? "queue" : be == a->backend ? "same backend" : "another backend");
    exchange_enter(x, EXCHANGE_PICK);
    if (be)
        attempt_at(x, be, &place, false);
    else
        wait_for_place(x);
    return true;
}

/* No 100 came, and the client did not go on without it. Many servers never send one, and whoever waits for it without
 * end must not have backends ejected: only one that has answered nobody meanwhile is to blame. */
static bool is_clients_wait(const struct attempt *a, const struct back_failure *f)
{
    return f->expecting && f->error == ERR_RESPONSE_TIMEOUT && backend_has_answered_since(a->backend, &a->place);
}

/* What says nothing about this backend counts for nothing; what says nothing about its next requests ejects nobody:
 * whoever can ask for a head over our limit, or stall, must not have backends ejected. */
static void count_failure(struct attempt *a, const struct back_failure *f)
{
    if (f->error == ERR_BODY_TIMEOUT)
        return; /* the client's fault */
    bool large = f->error == ERR_RESPONSE_HEAD_TOO_LARGE;
    a->large_heads += large;
    metrics.backend_failures++;
    if (back_error_is_ours(a->backend, f->sys_errno))
        return;
    bool passing = back_error_is_passing(a->backend, f->sys_errno);
    if (large || f->moved || f->given_up || passing || is_clients_wait(a, f))
        backend_count_failure(a->backend);
    else
        backend_failed(a->backend, &a->place, f->cause);
}

static void attempt_failed(struct exchange *x, const struct back_failure *f)
{
    bool again = may_send_again(x, f);
    if (again && replace_stale(x, f))
        return;
    leave_place(&x->attempt);
    count_failure(&x->attempt, f);
    /* A head over our limit may be that backend's alone, or the answer to that request wherever it goes: one more
     * attempt finds out. */
    if (again && x->attempt.large_heads < 2 && another_attempt(x, f))
        return;
    x->attempt.cause = f->cause;
    exchange_fail(x, f->error);
}

static void on_fail(void *arg, const struct back_failure *f)
{
    struct exchange *x = arg;
    x->attempt.conn = NULL; /* gone already */
    x->attempt.ready = false;
    if (x->state != EXCHANGE_TUNNEL) {
        attempt_failed(x, f);
        return;
    }
    /* How another protocol ends says nothing about the backend. */
    x->attempt.cause = f->cause;
    if (!f->heard_out) {
        exchange_fail(x, f->error);
    } else if (!x->up_ended) {
        exchange_abandon(x, f->error);
        x->front->ops->end_tunnel(x->front);
    } /* else both sides have said their last, and the carrier, which knows, ends the exchange when the client has it */
}

static const struct back_events events = {
    .on_ready = on_ready,
    .on_interim = on_interim,
    .on_head = on_head,
    .on_switch = on_switch,
    .on_body = on_body,
    .sink = sink,
    .on_drained = on_drained,
    .on_fail = on_fail,
};
