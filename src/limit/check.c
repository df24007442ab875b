/* Asking a bucket without taking from it. */
#include "limit/check.h"

#include "base/clock.h"
#include "base/json.h"
#include "limit/client_json.h"
#include "limiter_impl.h"

#include <inttypes.h>
#include <stdio.h>

/* The last second of the year 2500: nanoseconds since 1970 are 64 bits. */
#define WALL_MAX UINT64_C(16756761599000000000)

#define MS_PER_S 1000.0

static void ask_bucket(const struct limiter *lim, const struct bucket_policy *p, uint64_t word, struct client_check *c)
{
    uint64_t now = limiter_now(lim), after = word, wall = clock_wall();
    bool passed = bucket_take(p, &after, now);
    c->policy = p;
    c->tokens = client_tokens_shown(bucket_tokens(p, word, now));
    c->reason = passed ? CHECK_WITHIN_LIMIT : CHECK_RATE_LIMITED;
    if (!passed)
        c->retry_after_s = limiter_retry_after(p, word, now);
    double missing = p->capacity - bucket_tokens(p, word, now);
    double wait = missing > 0 ? missing / p->rate : 0;
    if (!(wait < (double)BUCKET_SECONDS_MAX)) /* infinite, for the smallest of rates */
        wait = (double)BUCKET_SECONDS_MAX;
    uint64_t ms = (uint64_t)(wait * MS_PER_S);
    ms += (double)ms < wait * MS_PER_S; /* rounded up */
    c->full_in_s = (double)ms / MS_PER_S;
    c->full_wall_ns = c->full_in_s * (double)NS_PER_S < (double)(WALL_MAX - wall)
                          ? wall + (uint64_t)(c->full_in_s * (double)NS_PER_S)
                          : 0;
}

static void check_registered(const struct limiter *lim, const struct client *client, struct client_check *c)
{
    c->registered = true;
    c->mode = (enum client_mode)client->mode;
    ask_bucket(lim, &client->policy, *client_word(&lim->clients, client), c);
    if (c->mode == CLIENT_OFF)
        c->reason = CHECK_OFF;
    else if (c->mode == CLIENT_SHADOW && c->reason == CHECK_RATE_LIMITED)
        c->reason = CHECK_SHADOW_LIMITED;
    if (c->reason != CHECK_RATE_LIMITED)
        c->retry_after_s = 0;
}

static void check_unknown(const struct limiter *lim, const struct ip *ip, struct client_check *c)
{
    switch (lim->config->rate_limit.unknown) {
    case UNKNOWN_LIMIT:
        ask_bucket(lim, &lim->anon.policy, ip ? anon_table_peek(&lim->anon, ip) : lim->unix_word, c);
        break;
    case UNKNOWN_REJECT: c->reason = CHECK_UNKNOWN_CLIENT; break;
    case UNKNOWN_ALLOW: c->reason = CHECK_UNLIMITED; break;
    }
}

enum err clients_check(const struct limiter *lim, const char *id, struct client_check *out)
{
    struct ip ip;
    const struct client *client = client_table_find(&lim->clients, str_of(id));
    bool is_address = ip_parse(str_of(id), &ip), is_unix = str_eq(str_of(id), UNIX_CLIENT);
    *out = (struct client_check){.reason = CHECK_EXEMPT};
    snprintf(out->id, sizeof out->id, "%s", id);
    if (client && !client->shown)
        client = NULL;
    if (!client && !is_address && !is_unix)
        return ERR_NO_SUCH_CLIENT;
    if ((is_address || is_unix) && limiter_is_exempt(lim, is_address ? &ip : NULL)) {
        out->registered = client != NULL;
        out->mode = client ? (enum client_mode)client->mode : CLIENT_ENFORCE;
    } else if (client) {
        check_registered(lim, client, out);
    } else {
        if (is_address)
            limiter_network_text(lim, &ip, out->id, sizeof out->id);
        check_unknown(lim, is_address ? &ip : NULL, out);
    }
    return ERR_OK;
}

/* ---- as JSON ---- */

static const struct {
    const char *name;
    unsigned status; /* 0: it passes */
} reasons[] = {
    [CHECK_WITHIN_LIMIT] = {"within_limit", 0},
    [CHECK_RATE_LIMITED] = {"rate_limited", 429},
    [CHECK_SHADOW_LIMITED] = {"shadow_limited", 0},
    [CHECK_OFF] = {"off", 0},
    [CHECK_EXEMPT] = {"exempt", 0},
    [CHECK_UNLIMITED] = {"unlimited", 0},
    [CHECK_UNKNOWN_CLIENT] = {"unknown_client", 403},
};

static bool verdict_json(struct buf *out, const struct client_check *c)
{
    unsigned status = reasons[c->reason].status;
    bool ok = buf_append_str(out, STR("{\"client_id\":")) && json_append_string(out, str_of(c->id)) &&
              buf_printf(out, ",\"registered\":%s,\"verdict\":\"%s\"", c->registered ? "true" : "false",
                         status ? "deny" : "allow");
    ok = ok && (status ? buf_printf(out, ",\"status\":%u", status) : buf_append_str(out, STR(",\"status\":null")));
    ok = ok && buf_printf(out, ",\"reason\":\"%s\"", reasons[c->reason].name);
    return ok && (c->registered ? buf_printf(out, ",\"mode\":\"%s\"", client_mode_name(c->mode))
                                : buf_append_str(out, STR(",\"mode\":null")));
}

static bool full_json(struct buf *out, const struct client_check *c)
{
    char when[CLOCK_RFC3339_SIZE];
    bool ok = buf_append_str(out, STR(",\"full_in\":")) && client_number_json(out, c->full_in_s);
    if (c->full_wall_ns == 0)
        return ok && buf_append_str(out, STR(",\"full_at\":null"));
    clock_format_rfc3339(c->full_wall_ns, when);
    return ok && buf_printf(out, ",\"full_at\":\"%s\"", when);
}

static bool bucket_json(struct buf *out, const struct client_check *c)
{
    if (!c->policy)
        return buf_append_str(out, STR(",\"capacity\":null,\"rate_per_sec\":null,\"tokens\":null,\"retry_after\":null,"
                                       "\"full_in\":null,\"full_at\":null"));
    bool ok = buf_append_str(out, STR(",\"capacity\":")) && client_number_json(out, c->policy->capacity) &&
              buf_append_str(out, STR(",\"rate_per_sec\":")) && client_number_json(out, c->policy->rate) &&
              buf_append_str(out, STR(",\"tokens\":")) && client_number_json(out, c->tokens);
    ok = ok && (c->retry_after_s ? buf_printf(out, ",\"retry_after\":%" PRIu64, c->retry_after_s)
                                 : buf_append_str(out, STR(",\"retry_after\":null")));
    return ok && full_json(out, c);
}

bool client_check_json(struct buf *out, const struct client_check *c)
{
    return verdict_json(out, c) && bucket_json(out, c) && buf_append_str(out, STR("}"));
}
