/* The limiter: whose request is this, may it pass, what do its RateLimit fields say.
 *
 *   request --> identity --> exempt? ---------------------------------------> ALLOW, no fields
 *                  |
 *                  +-- id field names a registered client --+
 *                  +-- address is a registered client ------+-> its bucket -> ALLOW or DENY, policy "client"
 *                  +-- else -> unknown_clients: allow, reject (DENY 403), or
 *                              limit -> anonymous bucket --------> ALLOW or DENY, policy "default"
 *
 * The promise. Over any interval T, a client passes at most capacity + rate x T requests. Why it holds:
 *
 * 1. One bucket. A bucket is a word W, the reading of its policy's clock v at which it is full. A request passes when
 *    max(W, v) + 1 <= v + capacity, and then W = max(W, v) + 1. From one passed request to the next W grows by at least
 *    1, and after each it is at most v + capacity: so n requests in T need capacity + (v's growth over T) >= n. v grows
 *    by the rate (bucket.h says how exactly).
 *
 * 2. Call the word that a client would have, had each of its passed requests been charged to a bucket of its own, its
 *    true word. The promise holds as long as each decision is made on a word that is at least the true one, both taken
 *    as at least v (a full bucket is a full bucket, since whenever). Every move below keeps that:
 *
 *    - Forgetting. An anonymous bucket is dropped only when its W <= v. Then the true word is, too, and whatever bucket
 *      decides next is at least as high.
 *    - Overflow. When the table is full of buckets in use, a newcomer is decided on the overflow bucket of its network,
 *      and charged there. Others can only raise that word.
 *    - Coming back. A newcomer that does get a bucket of its own begins with the word of its overflow bucket, not with
 *      a full one: it may have been charged there. Neighbours that were charged there make it begin with less than it
 *      had; never with more.
 *    - Registering an address takes the anonymous word along (of its own bucket, or the overflow bucket's), converted
 *      to the new policy without adding a token, unless that bucket is full: deleting takes it back, and where a bucket
 *      is there already the higher word stays. Names begin full; only users of the client API can make names.
 *      They can also delete an address and register it anew, which may give it the new capacity: in between its bucket
 *      is one of the default policy, and forgotten where its tokens fill that.
 *    - Updating converts the word: the tokens stay, capped to the new capacity. The bound is then the old settings' up
 *      to the change and the new rate's from it on.
 *    - A reload of the default policy converts every anonymous word, the overflow buckets' too, so that who has none
 *      yet begins with what it would have had. Networks of another size begin with the highest word that any part of
 *      them was charged on (anon_change.c).
 *    - An update, like any change, is in force only once it is on disk; one that failed never was (clients.c).
 *    - Restarting. clients.json holds tokens as of saved_at; they refill for the time since then, by the buckets' own
 *      clock in the same boot of the machine, else by the wall clock, none if that has stepped back. After kill -9 the
 *      words themselves are found. Those of anonymous buckets are, after a graceful stop (docs/limiter.md has both).
 *
 * 3. A client that asks no faster than its rate is never refused, whatever v was rounded to: readings are floors of a
 *    straight line whose slope is at least the rate, so in the time of n tokens v grows by at least n. */
#include "limit/limiter.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/metrics.h"
#include "http/write.h"
#include "limiter_impl.h"

#include <assert.h>
#include <stdio.h>

#define SWEEP_INTERVAL  (100 * NS_PER_MS)
#define NOTICE_INTERVAL (60 * NS_PER_S)

#define CLIENT_POLICY  STR("\"client\"")
#define DEFAULT_POLICY STR("\"default\"")

/* ---- fields ---- */

/* RateLimit-Policy, and RateLimit up to the tokens: what depends on the policy alone. */
static void write_policy(struct head_writer *w, struct str name, const struct bucket_policy *p)
{
    write_str(w, STR("RateLimit-Policy: "));
    write_str(w, name);
    write_str(w, STR(";q="));
    write_u64(w, (uint64_t)p->capacity);
    write_str(w, STR(";w="));
    write_u64(w, bucket_fill_seconds(p));
    write_str(w, STR("\r\nRateLimit: "));
    write_str(w, name);
    write_str(w, STR(";r="));
}

/* Which of the texts is for policies of those numbers: theirs are mixed by multiplying with the golden ratio. */
static size_t text_place(const struct bucket_policy *p)
{
    const uint64_t golden = UINT64_C(0x9e3779b97f4a7c15);
    uint64_t capacity, rate;
    memcpy(&capacity, &p->capacity, sizeof capacity);
    memcpy(&rate, &p->rate, sizeof rate);
    return ((capacity * golden ^ rate) * golden) >> (64 - POLICY_TEXT_BITS);
}

/* Written once for many requests. */
static void write_client_policy(struct limiter *lim, struct head_writer *w, const struct bucket_policy *p)
{
    struct policy_text *t = &lim->texts[text_place(p)];
    if (t->capacity != p->capacity || t->rate != p->rate) {
        struct head_writer own = head_writer_on(t->text, sizeof t->text);
        write_policy(&own, CLIENT_POLICY, p);
        assert(!own.full);
        t->capacity = p->capacity;
        t->rate = p->rate;
        t->n = own.n;
    }
    write_str(w, str_make(t->text, t->n));
}

static void write_state(struct head_writer *w, const struct bucket_policy *p, uint64_t word, uint64_t now)
{
    uint64_t left = bucket_whole_tokens(p, word, now);
    write_u64(w, left);
    write_str(w, STR(";t="));
    write_u64(w, left > 0 ? bucket_seconds_to_full(p, word, now) : bucket_seconds_to_token(p, word, now));
    write_str(w, STR("\r\n"));
}

static bool fields_wanted(const struct limiter *lim, bool passed)
{
    enum ratelimit_headers mode = lim->config->rate_limit.headers;
    return mode == RATELIMIT_ALWAYS || (mode == RATELIMIT_LIMITED && !passed);
}

/* ---- what goes on for long is logged once a minute ---- */

static void log_requests(const char *event, uint64_t count)
{
    log_begin(LOG_WARN, event);
    log_u64("requests", count);
    log_end();
}

static void log_overflow(struct notice *n, uint64_t count)
{
    (void)n;
    log_requests("limit_overflow", count);
}

static void log_shadow(struct notice *n, uint64_t count)
{
    (void)n;
    log_requests("limit_shadow", count);
}

/* ---- decisions ---- */

static void deny(struct limit_answer *out, enum err e)
{
    out->verdict = LIMIT_DENY;
    out->error = e;
}

/* The outcome of a bucket whose word is `word` after it decided, at `now`. */
static void answer_from_bucket(struct limiter *lim, const struct bucket_policy *p, uint64_t word, bool passed,
                               uint64_t now, struct limit_answer *out)
{
    if (!passed) {
        deny(out, ERR_RATE_LIMITED);
        out->retry_after_s = limiter_retry_after(p, word, now);
    }
    if (!fields_wanted(lim, passed))
        return;
    struct head_writer w = head_writer_on(out->fields, sizeof out->fields);
    if (out->registered)
        write_client_policy(lim, &w, p);
    else
        write_str(&w, str_make(lim->default_fields, lim->default_fields_len));
    write_state(&w, p, word, now);
    out->fields_len = w.n;
}

uint64_t limiter_retry_after(const struct bucket_policy *p, uint64_t word, uint64_t now)
{
    uint64_t wait = bucket_seconds_to_token(p, word, now);
    return wait > 0 ? wait : 1;
}

static void ask_registered(struct limiter *lim, struct client *c, struct limit_answer *out)
{
    bool off = c->mode == CLIENT_OFF, shadow = c->mode == CLIENT_SHADOW;
    uint64_t now = limiter_now(lim), *word = client_word(&lim->clients, c);
    bool passed = off || bucket_take(&c->policy, word, now);
    if (passed && !off)
        store_note_tokens(lim->store);
    if (passed || shadow)
        c->allowed++;
    if (!passed)
        c->policy.rest++;
    out->client_id = client_id(c);
    out->registered = true;
    if (shadow && !passed) {
        out->shadow_limited = true;
        metrics.shadow_limited++;
        notice_count(&lim->shadow_limited);
    }
    /* A client whose limit is not kept is not told to keep it. */
    if (!off && !shadow)
        answer_from_bucket(lim, &c->policy, *word, passed, now, out);
}

/* The sweep runs only while there is something to sweep. */
static void want_sweep(struct limiter *lim)
{
    /* Without memory for the timer the next request tries again. */
    if (!timer_armed(&lim->sweep) && lim->anon.count > 0)
        (void)!loop_arm(lim->loop, &lim->sweep, loop_now(lim->loop) + SWEEP_INTERVAL);
}

static void on_sweep(struct timer *t)
{
    struct limiter *lim = container_of(t, struct limiter, sweep);
    anon_table_sweep(&lim->anon, limiter_now(lim));
    want_sweep(lim);
}

static void ask_anonymous(struct limiter *lim, const struct ip *ip, struct limit_answer *out)
{
    uint64_t word, now = limiter_now(lim);
    bool passed, shared = false;
    if (ip) {
        passed = anon_table_take(&lim->anon, ip, now, &word, &shared);
        want_sweep(lim);
    } else {
        passed = bucket_take(&lim->anon.policy, &lim->unix_word, now);
        word = lim->unix_word;
    }
    if (shared) {
        metrics.overflow_shared++;
        notice_count(&lim->overflow_shared);
    }
    answer_from_bucket(lim, &lim->anon.policy, word, passed, now, out);
}

/* ---- whose request ---- */

/* The registered client that the id field names, or NULL. False when the field is repeated. */
static bool find_named(const struct limiter *lim, const struct headers *h, struct client **named)
{
    unsigned count = 0;
    char id[CLIENT_ID_MAX + 1];
    *named = NULL;
    if (lim->id_header.n == 0)
        return true;
    const struct field *f = headers_find_name(h, lim->id_header, &count);
    if (count > 1)
        return false;
    if (f && lim->clients.shown > 0 && client_id_canonical(f->value, id))
        *named = client_table_find(&lim->clients, str_of(id));
    if (*named && !(*named)->shown)
        *named = NULL;
    return true;
}

/* The registered client of that address (NULL: a unix socket), or NULL. Leaves what it is called in the answer. */
static struct client *find_by_address(const struct limiter *lim, const struct ip *ip, struct limit_answer *out)
{
    _Static_assert(sizeof out->id_text >= IP_TEXT_SIZE + sizeof "/128", "a network fits");
    out->client_id = ip ? str_make(out->id_text, ip_format(ip, out->id_text)) : UNIX_CLIENT;
    if (ip ? lim->clients.addresses == 0 : lim->clients.shown == 0)
        return NULL;
    struct client *c = client_table_find(&lim->clients, out->client_id);
    return c && c->shown ? c : NULL;
}

size_t limiter_network_text(const struct limiter *lim, const struct ip *ip, char *out, size_t size)
{
    struct ip network = anon_table_key(&lim->anon, ip);
    size_t n = ip_format(&network, out);
    if (ip_is_v4(ip) || lim->anon.ipv6_prefix == 128)
        return n;
    struct head_writer w = head_writer_on(out + n, size - n);
    write_str(&w, STR("/"));
    write_u64(&w, lim->anon.ipv6_prefix);
    out[n + w.n] = '\0';
    return n + w.n;
}

bool limiter_is_exempt(const struct limiter *lim, const struct ip *ip)
{
    const struct cidr_set *exempt = &lim->config->rate_limit.exempt;
    return ip ? cidr_set_contains_ip(exempt, ip) : exempt->unix_peers;
}

static void ask_unknown(struct limiter *lim, const struct ip *ip, struct limit_answer *out)
{
    if (ip && !ip_is_v4(ip))
        out->client_id = str_make(out->id_text, limiter_network_text(lim, ip, out->id_text, sizeof out->id_text));
    switch (lim->config->rate_limit.unknown) {
    case UNKNOWN_LIMIT: ask_anonymous(lim, ip, out); break;
    case UNKNOWN_REJECT: deny(out, ERR_UNKNOWN_CLIENT); break;
    case UNKNOWN_ALLOW: break;
    }
}

void limiter_ask(struct limiter *lim, const struct peer *peer, const struct headers *h, struct limit_answer *out)
{
    struct ip address;
    struct client *c;
    out->verdict = LIMIT_ALLOW;
    out->error = ERR_OK;
    out->client_id = STR("");
    out->registered = false;
    out->shadow_limited = false;
    out->retry_after_s = 0;
    out->fields_len = 0;
    if (!find_named(lim, h, &c)) {
        deny(out, ERR_BAD_CLIENT_ID);
        return;
    }
    const struct ip *ip = identity_address(lim->config, peer, h, &address) ? &address : NULL;
    if (limiter_is_exempt(lim, ip))
        return;
    if (!c)
        c = find_by_address(lim, ip, out);
    if (c)
        ask_registered(lim, c, out);
    else
        ask_unknown(lim, ip, out);
}

/* ---- begin and end ---- */

static void write_default_fields(struct limiter *lim, const struct bucket_policy *p)
{
    struct head_writer w = head_writer_on(lim->default_fields, sizeof lim->default_fields);
    write_policy(&w, DEFAULT_POLICY, p);
    assert(!w.full);
    lim->default_fields_len = w.n;
}

static bool init_tables(struct limiter *lim)
{
    const struct config *config = lim->config;
    struct hash_key keys[2];
    struct bucket_policy p;
    clock_random(keys, sizeof keys);
    bucket_policy_init(&p, config->rate_limit.default_capacity, config->rate_limit.default_rate);
    write_default_fields(lim, &p);
    client_table_init(&lim->clients, &keys[0]);
    return anon_table_init(&lim->anon, &keys[1], &p, config->rate_limit.max_tracked, config->rate_limit.ipv6_prefix);
}

struct limiter_time limiter_time(const struct limiter *lim)
{
    return (struct limiter_time){lim->zero, store_dated(lim->store)};
}

struct limiter *limiter_new(struct loop *l, struct worker *w, struct config *config, char *error, size_t n,
                            enum store_outcome *outcome)
{
    return limiter_new_behind(l, w, config, NULL, error, n, outcome);
}

struct limiter *limiter_new_behind(struct loop *l, struct worker *w, struct config *config,
                                   const struct limiter_time *before, char *error, size_t n,
                                   enum store_outcome *outcome)
{
    struct limiter *lim = mem_try_alloc(sizeof *lim);
    if (!lim) {
        snprintf(error, n, "out of memory");
        *outcome = STORE_UNUSABLE;
        return NULL;
    }
    lim->loop = l;
    lim->worker = w;
    lim->kept.fd = -1;
    lim->config = config_get(config);
    /* Time 0 lies a little back, so that moments just before now have a number. */
    uint64_t now = clock_boottime();
    lim->zero = before ? before->zero : now - (now > NS_PER_S ? NS_PER_S : 0);
    lim->id_header = str_of(config->rate_limit.client_id_header);
    timer_init(&lim->sweep, on_sweep);
    notice_init(&lim->overflow_shared, l, NOTICE_INTERVAL, log_overflow);
    notice_init(&lim->shadow_limited, l, NOTICE_INTERVAL, log_shadow);
    changes_init(lim);
    if (!init_tables(lim)) {
        snprintf(error, n, "out of memory for rate_limit.max_tracked");
        *outcome = STORE_UNUSABLE;
        limiter_free(lim);
        return NULL;
    }
    struct store_setup setup = {.loop = l,
                                .worker = w,
                                .table = &lim->clients,
                                .path = config->rate_limit.clients_file,
                                .zero = lim->zero,
                                .dated = before ? &before->dated : NULL,
                                .save_interval = config->rate_limit.save_interval,
                                .appended = changes_appended,
                                .arg = lim};
    lim->store = store_open(&setup, error, n, outcome);
    if (lim->store && kept_init(&lim->kept, lim->store))
        return lim;
    if (lim->store) {
        snprintf(error, n, "out of memory");
        *outcome = STORE_UNUSABLE;
    }
    limiter_free(lim);
    return NULL;
}

/* ---- a reload ---- */

struct limiter_change {
    struct limiter *limiter;
    struct config *fresh;
    struct anon_table anon;
};

struct limiter_change *limiter_stage(struct limiter *lim, struct config *fresh)
{
    struct limiter_change *c = mem_try_alloc(sizeof *c);
    struct bucket_policy p;
    if (!c)
        return NULL;
    c->limiter = lim;
    c->fresh = config_get(fresh);
    bucket_policy_init(&p, fresh->rate_limit.default_capacity, fresh->rate_limit.default_rate);
    if (anon_table_stage(&lim->anon, &p, fresh->rate_limit.max_tracked, fresh->rate_limit.ipv6_prefix, &c->anon) &&
        loop_reserve(lim->loop, 1))
        return c;
    limiter_rollback(c);
    return NULL;
}

void limiter_rollback(struct limiter_change *c)
{
    if (!c)
        return;
    anon_table_fini(&c->anon);
    config_put(c->fresh);
    mem_free(c);
}

void limiter_commit(struct limiter_change *c)
{
    struct limiter *lim = c->limiter;
    struct config *old = lim->config;
    uint64_t now = limiter_now(lim);
    lim->unix_word = bucket_converted(&lim->anon.policy, &c->anon.policy, lim->unix_word, now);
    anon_table_replace(&lim->anon, &c->anon, now);
    write_default_fields(lim, &lim->anon.policy);
    lim->config = config_get(c->fresh);
    lim->id_header = str_of(lim->config->rate_limit.client_id_header);
    store_set_interval(lim->store, lim->config->rate_limit.save_interval);
    config_put(old);
    limiter_rollback(c);
}

void limiter_look(struct limiter *lim)
{
    store_look(lim->store);
}

void limiter_close(struct limiter *lim, void (*done)(void *arg, bool ok), void *arg)
{
    notice_flush(&lim->overflow_shared);
    notice_flush(&lim->shadow_limited);
    changes_close(lim, done, arg);
}

void limiter_reopen(struct limiter *lim)
{
    changes_reopen(lim);
    store_reopen(lim->store);
}

void limiter_leave(struct limiter *lim)
{
    loop_cancel(lim->loop, &lim->sweep); /* an export may end in the middle of what it would move */
    store_unlock(lim->store);
}

void limiter_free(struct limiter *lim)
{
    if (!lim)
        return;
    loop_cancel(lim->loop, &lim->sweep);
    notice_fini(&lim->overflow_shared);
    notice_fini(&lim->shadow_limited);
    kept_fini(&lim->kept);
    store_free(lim->store);
    changes_fini(lim);
    client_table_fini(&lim->clients);
    anon_table_fini(&lim->anon);
    config_put(lim->config);
    mem_free(lim);
}
