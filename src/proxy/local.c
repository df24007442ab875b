/* Answers made here: problem documents (RFC 9457), and requests that belong to the local handler, whose content is
 * gathered first. */
#include "proxy/local.h"

#include "base/clock.h"
#include "base/json.h"
#include "base/metrics.h"
#include "exchange_impl.h"
#include "http/write.h"

#include <assert.h>

static struct exchange *exchange_of(struct local_exchange *l)
{
    return container_of(l, struct exchange, local);
}

static void answer(struct exchange *x, const struct local_answer *a, bool close)
{
    assert(x->state != EXCHANGE_DONE);
    if (x->state != EXCHANGE_LOCAL)
        exchange_enter(x, EXCHANGE_LOCAL);
    exchange_enter(x, EXCHANGE_DONE);
    x->local.answered = true;
    x->down_begun = true;
    x->status = a->status;
    x->reason = a->reason;
    metrics.responses_own++;
    x->front->ops->send_local(x->front, a, x->extra, close);
}

/* ---- problem documents ---- */

static bool write_problem(struct buf *out, enum err e, const char *detail)
{
    unsigned status = (unsigned)err_status(e);
    return buf_printf(out,
                      "{\"type\":\"about:blank\",\"title\":\"%s\",\"status\":%u,\"detail\":", status_reason(status).p,
                      status) &&
           json_append_string(out, str_of(detail ? detail : err_detail(e))) && buf_append_str(out, STR("}\n"));
}

/* A 503 says when it may be worth to try again: after the next health check. */
static uint64_t retry_after_s(const struct exchange *x)
{
    const struct config *config = x->px->config;
    uint64_t s = config->health.on ? (config->health.interval + NS_PER_S - 1) / NS_PER_S : 1;
    return s > 0 ? s : 1;
}

static void send_problem(struct exchange *x, enum err e, struct str fields, struct str body, bool close)
{
    char more[64];
    unsigned status = (unsigned)err_status(e);
    struct head_writer w = head_writer_on(more, sizeof more);
    if (status == 503 && fields.n == 0) {
        write_field_u64(&w, STR("Retry-After"), retry_after_s(x));
        fields = head_writer_str(&w);
    }
    if (e == ERR_RATE_LIMITED)
        metrics.rate_limited++;
    if (e == ERR_INTERNAL)
        metrics.out_of_memory++;
    struct local_answer a = {
        .status = status,
        .content_type = STR("application/problem+json"),
        .fields = fields,
        .body = body,
        .reason = err_reason(e),
    };
    answer(x, &a, close);
}

void local_problem(struct exchange *x, enum err e, struct str fields, const char *detail)
{
    struct buf body = BUF_INIT;
    if (!write_problem(&body, e, detail)) {
        metrics.out_of_memory++;
        buf_fini(&body);
    }
    bool api = x->local.started; /* a call that was taken whole leaves the connection in step */
    send_problem(x, e, fields, buf_str(&body), !api && err_closes(e));
    buf_fini(&body);
}

void local_rate_limited(struct exchange *x, bool registered, uint64_t retry_after)
{
    char fields[64], body[512];
    struct head_writer f = head_writer_on(fields, sizeof fields), b = head_writer_on(body, sizeof body);
    write_field_u64(&f, STR("Retry-After"), retry_after);
    write_str(&b, STR("{\"type\":\"https://iana.org/assignments/http-problem-types#quota-exceeded\","
                      "\"title\":\"Too Many Requests\",\"status\":429,"
                      "\"detail\":\"The client's rate limit is exhausted; the next request may pass in "));
    write_u64(&b, retry_after);
    write_str(&b, retry_after == 1 ? STR(" second.\",\"violated-policies\":[\"")
                                   : STR(" seconds.\",\"violated-policies\":[\""));
    write_str(&b, registered ? STR("client\"]}\n") : STR("default\"]}\n"));
    assert(!f.full && !b.full);
    send_problem(x, ERR_RATE_LIMITED, head_writer_str(&f), head_writer_str(&b), false);
}

void local_options(struct exchange *x, struct str allowed)
{
    struct local_answer a = {.status = 200, .content_type = STR(""), .fields = allowed, .body = STR(""), .reason = ""};
    answer(x, &a, false);
}

#define PROBLEM(detail)                                                                                                \
    "{\"type\":\"about:blank\",\"title\":\"Service Unavailable\",\"status\":503,\"detail\":\"" detail "\"}\n"
#define REFUSAL(length, detail)                                                                                        \
    STR("HTTP/1.1 503 Service Unavailable\r\n"                                                                         \
        "Content-Type: application/problem+json\r\n"                                                                   \
        "Cache-Control: no-store\r\n"                                                                                  \
        "Content-Length: " length "\r\n"                                                                               \
        "Retry-After: 1\r\n"                                                                                           \
        "Connection: close\r\n"                                                                                        \
        "\r\n" PROBLEM(detail))
#define ALL_HAVE   "The load balancer has as many connections as it may have."
#define CLIENT_HAS "This address has as many connections as it may have."

struct str local_refusal(bool one_client)
{
    static_assert(sizeof PROBLEM(ALL_HAVE) - 1 == 135, "the Content-Length below is wrong");
    static_assert(sizeof PROBLEM(CLIENT_HAS) - 1 == 130, "the Content-Length below is wrong");
    return one_client ? REFUSAL("130", CLIENT_HAS) : REFUSAL("135", ALL_HAVE);
}

/* ---- the local handler ---- */

static void start(struct exchange *x)
{
    const struct local_handler *h = x->px->local;
    struct local_request r = {
        .peer = &x->front->peer,
        .target = x->target,
        .body = buf_str(&x->kept),
        .method = x->method,
    };
    x->local.started = true;
    h->start(h->arg, &r, &x->local, &x->local.state);
}

void local_begin(struct exchange *x, const struct request *r)
{
    const struct local_handler *h = x->px->local;
    exchange_enter(x, EXCHANGE_LOCAL);
    struct str fields = STR("");
    const char *detail = NULL;
    struct local_request lr = {
        .peer = &x->front->peer, .request = r, .target = x->target, .body = STR(""), .method = x->method};
    enum err e = h->admit(h->arg, &lr, &fields, &detail);
    if (e == ERR_OK && r->framing.kind == FRAMING_LENGTH && r->framing.length > LOCAL_BODY_MAX)
        e = ERR_BODY_TOO_LARGE;
    if (e != ERR_OK) {
        local_problem(x, e, fields, detail);
        return;
    }
    if (x->up_ended) {
        start(x);
        return;
    }
    if (x->expects_continue) {
        struct response go_on = {.status = 100, .minor = 1};
        x->front->ops->send_interim(x->front, &go_on);
    }
}

void local_upload(struct exchange *x, const char *p, size_t n, bool end)
{
    if (x->kept.len + n > LOCAL_BODY_MAX) {
        exchange_fail(x, ERR_BODY_TOO_LARGE);
        return;
    }
    if (!buf_append(&x->kept, p, n)) {
        exchange_fail(x, ERR_INTERNAL);
        return;
    }
    if (end)
        start(x);
}

void local_drop(struct exchange *x)
{
    const struct local_handler *h = x->px->local;
    if (!x->local.started || x->local.answered)
        return;
    x->local.answered = true; /* nobody is to answer any more */
    h->cancel(h->arg, x->local.state);
}

void local_answer(struct local_exchange *l, const struct local_answer *a)
{
    answer(exchange_of(l), a, false);
}

void local_answer_err(struct local_exchange *l, enum err e, struct str fields, const char *detail)
{
    local_problem(exchange_of(l), e, fields, detail);
}
