/* The `request` event: one line for each request, when its exchange is over. */
#include "base/log.h"
#include "exchange_impl.h"

#include <string.h>

static void log_client(const struct exchange *x)
{
    char text[IP_TEXT_SIZE];
    if (x->client_known)
        log_str("client", str_make(text, ip_format(&x->client, text)));
    else
        log_z("client", "unix:");
}

/* Whom admin.allow was asked about, where that is somebody else: a trusted proxy. */
static void log_peer(const struct exchange *x)
{
    const struct peer *peer = &x->front->peer;
    char text[IP_TEXT_SIZE];
    if (peer->is_unix && x->client_known)
        log_z("peer", "unix:");
    else if (!peer->is_unix && !(x->client_known && ip_eq(&peer->ip, &x->client)))
        log_str("peer", str_make(text, ip_format(&peer->ip, text)));
}

void access_log_request(const struct exchange *x)
{
    if (!x->px->config->log.access || !log_enabled(LOG_INFO))
        return;
    log_begin(LOG_INFO, "request");
    log_client(x);
    if (x->client_id.n > 0)
        log_str("client_id", x->client_id);
    log_str("method", x->method_text);
    log_str("target", x->target);
    log_u64("status", x->status);
    log_u64("bytes_in", x->bytes_in);
    log_u64("bytes_out", x->bytes_out);
    log_ms("duration_ms", loop_now(x->px->loop) - x->begun);
    if (x->attempt.waited > 0)
        log_ms("queued_ms", x->attempt.waited);
    if (x->attempt.backend)
        log_str("backend", backend_name(x->attempt.backend));
    log_u64("attempts", x->attempt.count);
    log_str("request_id", x->request_id);
    if (*x->reason)
        log_z("reason", x->reason);
    if (strcmp(x->reason, err_reason(ERR_FORBIDDEN)) == 0)
        log_peer(x);
    if (*x->reason && x->attempt.cause)
        log_z("cause", x->attempt.cause);
    if (x->attempt.over_budget)
        log_z("retry", "over_budget");
    if (x->shadow_limited)
        log_z("shadow", "rate_limited");
    log_end();
}
