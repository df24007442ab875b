/* Unit tests of limit/limiter.c: who is asked for what, and what the answer says. Rates are so small that the time the
 * test takes does not count. */
#include "base/metrics.h"
#include "limit/check.h"
#include "limit/clients.h"
#include "limit/limiter.h"

#include <ftw.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#define SCARCE "\"default\":{\"capacity\":2,\"rate_per_sec\":0.0001}"

struct world {
    char folder[32];
    struct loop *loop;
    struct worker *worker;
    struct config *config;
    struct limiter *lim;
    struct limit_answer answer;
};

static struct config *make_config(const struct world *w, const char *settings)
{
    char text[1024];
    struct buf errors = BUF_INIT;
    snprintf(text, sizeof text,
             "{\"backends\":[{\"address\":\"127.0.0.1:1\"}],\"trusted_proxies\":[\"10.0.0.0/8\"],"
             "\"rate_limit\":{\"clients_file\":\"%s/clients.json\",%s}}",
             w->folder, settings);
    struct config *config = config_parse(str_of(text), "test", NULL, &errors);
    if (!config)
        fail_msg("%.*s", STR_ARG(buf_str(&errors)));
    buf_fini(&errors);
    return config;
}

static void open_world(struct world *w, const char *settings)
{
    char error[256];
    enum store_outcome outcome;
    strcpy(w->folder, "/tmp/lb-limiter-XXXXXX");
    assert_non_null(mkdtemp(w->folder));
    w->config = make_config(w, settings);
    w->loop = loop_new();
    w->worker = worker_new(w->loop, "test");
    w->lim = limiter_new(w->loop, w->worker, w->config, error, sizeof error, &outcome);
    if (!w->lim)
        fail_msg("%s", error);
}

static void reload(struct world *w, const char *settings)
{
    struct config *fresh = make_config(w, settings);
    struct limiter_change *c = limiter_stage(w->lim, fresh);
    assert_non_null(c);
    limiter_commit(c);
    config_put(fresh);
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *ftw)
{
    (void)st;
    (void)kind;
    (void)ftw;
    return remove(path);
}

static void close_world(struct world *w)
{
    worker_free(w->worker);
    limiter_free(w->lim);
    loop_free(w->loop);
    config_put(w->config);
    nftw(w->folder, remove_one, 8, FTW_DEPTH);
}

struct waiter {
    struct client_change change;
    bool ended;
    enum err e;
};

static void on_ended(struct client_change *c, enum err e)
{
    struct waiter *w = (struct waiter *)(void *)c;
    w->ended = true;
    w->e = e;
}

static void wait_for(struct world *w, struct waiter *waiter)
{
    while (!waiter->ended)
        loop_turn(w->loop, TIMER_NEVER);
    assert_int_equal(waiter->e, ERR_OK);
}

static void register_in_mode(struct world *w, const char *id, double capacity, enum client_mode mode)
{
    struct waiter waiter = {.change.done = on_ended};
    struct client_fields f = {.v.set = {capacity, 0.0001, mode}};
    snprintf(f.v.id, sizeof f.v.id, "%s", id);
    assert_int_equal(clients_register(w->lim, &f, &waiter.change), ERR_OK);
    wait_for(w, &waiter);
}

static void register_client(struct world *w, const char *id, double capacity)
{
    register_in_mode(w, id, capacity, CLIENT_ENFORCE);
}

static void delete_client(struct world *w, const char *id)
{
    struct waiter waiter = {.change.done = on_ended};
    assert_int_equal(clients_delete(w->lim, id, &waiter.change), ERR_OK);
    wait_for(w, &waiter);
}

/* Asks for a request from `from` (NULL: a unix peer) with that X-Client-ID (NULL: none), given `times` times. */
static enum err ask_with(struct world *w, const char *from, const char *name, unsigned times)
{
    struct field fields[4];
    struct headers h = {.v = fields, .n = name ? times : 0, .max = 4};
    struct peer peer = {.is_unix = !from};
    for (unsigned i = 0; i < h.n; i++)
        fields[i] = (struct field){STR("x-CLIENT-id"), str_of(name), FIELD_OTHER};
    if (from)
        assert_true(ip_parse(str_of(from), &peer.ip));
    limiter_ask(w->lim, &peer, &h, &w->answer);
    assert_int_equal(w->answer.verdict, w->answer.error ? LIMIT_DENY : LIMIT_ALLOW);
    return w->answer.error;
}

static enum err ask(struct world *w, const char *from, const char *name)
{
    return ask_with(w, from, name, 1);
}

static unsigned ask_until_denied(struct world *w, const char *from, const char *name)
{
    unsigned n = 0;
    while (n < 1000 && ask(w, from, name) == ERR_OK)
        n++;
    return n;
}

static void expect_client(const struct world *w, const char *id)
{
    if (!str_eq(w->answer.client_id, str_of(id)))
        fail_msg("client \"%.*s\", not \"%s\"", STR_ARG(w->answer.client_id), id);
}

static void expect_fields(const struct world *w, const char *fields)
{
    if (!str_eq(str_make(w->answer.fields, w->answer.fields_len), str_of(fields)))
        fail_msg("fields %.*s", (int)w->answer.fields_len, w->answer.fields);
}

static void expect_asked(const struct world *w, const char *id, enum check_reason reason, double tokens)
{
    struct client_check c;
    for (unsigned again = 0; again < 2; again++) { /* it takes nothing */
        assert_int_equal(clients_check(w->lim, id, &c), ERR_OK);
        if (c.reason != reason || fabs(c.tokens - tokens) > 0.01)
            fail_msg("%s: reason %d, %g tokens", id, (int)c.reason, c.tokens);
    }
}

static void anonymous_clients_are_limited(void **state)
{
    (void)state;
    struct world w;
    open_world(&w, SCARCE);
    assert_int_equal(ask(&w, "1.2.3.4", NULL), ERR_OK);
    expect_client(&w, "1.2.3.4");
    assert_false(w.answer.registered);
    expect_fields(&w, "RateLimit-Policy: \"default\";q=2;w=20000\r\nRateLimit: \"default\";r=1;t=10000\r\n");
    assert_int_equal(ask(&w, "1.2.3.4", NULL), ERR_OK);
    expect_fields(&w, "RateLimit-Policy: \"default\";q=2;w=20000\r\nRateLimit: \"default\";r=0;t=10000\r\n");
    assert_int_equal(ask(&w, "1.2.3.4", NULL), ERR_RATE_LIMITED);
    assert_int_equal(w.answer.retry_after_s, 10000);
    expect_fields(&w, "RateLimit-Policy: \"default\";q=2;w=20000\r\nRateLimit: \"default\";r=0;t=10000\r\n");
    assert_int_equal(ask(&w, "::ffff:1.2.3.4", NULL), ERR_RATE_LIMITED);
    expect_client(&w, "1.2.3.4");
    assert_int_equal(ask(&w, "1.2.3.5", NULL), ERR_OK);
    close_world(&w);
}

static void ipv6_clients_are_networks(void **state)
{
    (void)state;
    struct world w;
    open_world(&w, SCARCE ",\"ipv6_prefix\":48");
    assert_int_equal(ask_until_denied(&w, "2001:db8:1:2::3", NULL), 2);
    expect_client(&w, "2001:db8:1::/48");
    assert_int_equal(ask(&w, "2001:db8:1:ffff::3", NULL), ERR_RATE_LIMITED);
    assert_int_equal(ask(&w, "2001:db8:2::3", NULL), ERR_OK);
    close_world(&w);
    open_world(&w, SCARCE ",\"ipv6_prefix\":128");
    assert_int_equal(ask(&w, "2001:db8:1:2::3", NULL), ERR_OK);
    expect_client(&w, "2001:db8:1:2::3");
    close_world(&w);
}

static void unix_peers_are_one_client(void **state)
{
    (void)state;
    struct world w;
    open_world(&w, SCARCE);
    assert_int_equal(ask_until_denied(&w, NULL, NULL), 2);
    expect_client(&w, "unix:");
    close_world(&w);
}

static void unix_peers_may_be_registered(void **state)
{
    (void)state;
    struct world w;
    open_world(&w, SCARCE);
    assert_int_equal(ask(&w, NULL, NULL), ERR_OK);
    register_client(&w, "unix:", 5); /* with the token that is left */
    expect_asked(&w, "unix:", CHECK_WITHIN_LIMIT, 1);
    assert_int_equal(ask_until_denied(&w, NULL, NULL), 1);
    assert_true(w.answer.registered);
    expect_client(&w, "unix:");
    expect_asked(&w, "unix:", CHECK_RATE_LIMITED, 0);
    delete_client(&w, "unix:"); /* and goes back with none */
    assert_int_equal(ask(&w, NULL, NULL), ERR_RATE_LIMITED);
    assert_false(w.answer.registered);
    close_world(&w);

    open_world(&w, SCARCE);
    register_client(&w, "unix:", 5);
    assert_int_equal(ask_until_denied(&w, NULL, NULL), 5);
    assert_int_equal(ask(&w, "1.2.3.4", NULL), ERR_OK);
    close_world(&w);

    open_world(&w, SCARCE ",\"exempt\":[\"unix\"]");
    register_client(&w, "unix:", 5);
    expect_asked(&w, "unix:", CHECK_EXEMPT, 0);
    assert_int_equal(ask_until_denied(&w, NULL, NULL), 1000);
    close_world(&w);
}

static void registered_names(void **state)
{
    (void)state;
    struct world w;
    open_world(&w, SCARCE);
    register_client(&w, "user1", 5);
    assert_int_equal(ask(&w, "1.2.3.4", "user1"), ERR_OK);
    expect_client(&w, "user1");
    assert_true(w.answer.registered);
    expect_fields(&w, "RateLimit-Policy: \"client\";q=5;w=50000\r\nRateLimit: \"client\";r=4;t=10000\r\n");
    assert_int_equal(ask_until_denied(&w, "9.9.9.9", "user1"), 4);
    assert_true(w.answer.registered);
    /* names that nobody registered count for nothing */
    assert_int_equal(ask(&w, "1.2.3.4", "user2"), ERR_OK);
    expect_client(&w, "1.2.3.4");
    assert_int_equal(ask_until_denied(&w, "1.2.3.4", ""), 1);
    assert_int_equal(ask(&w, "1.2.3.4", "a b"), ERR_RATE_LIMITED);
    assert_int_equal(ask_with(&w, "1.2.3.4", "user1", 2), ERR_BAD_CLIENT_ID);
    close_world(&w);
}

static void registered_addresses(void **state)
{
    (void)state;
    struct world w;
    open_world(&w, SCARCE);
    register_client(&w, "1.2.3.4", 5);
    register_client(&w, "2001:db8::1", 4);
    assert_int_equal(ask_until_denied(&w, "1.2.3.4", NULL), 5);
    expect_client(&w, "1.2.3.4");
    assert_int_equal(ask_until_denied(&w, "2001:db8::1", NULL), 4);
    expect_client(&w, "2001:db8::1");
    assert_int_equal(ask_until_denied(&w, "2001:db8::2", NULL), 2);
    /* the field may name an address in any spelling */
    assert_int_equal(ask(&w, "9.9.9.9", "2001:DB8:0::1"), ERR_RATE_LIMITED);
    expect_client(&w, "2001:db8::1");
    close_world(&w);
}

static void addresses_take_their_tokens_along(void **state)
{
    (void)state;
    struct world w;
    open_world(&w, SCARCE);
    assert_int_equal(ask(&w, "1.2.3.4", NULL), ERR_OK);
    register_client(&w, "1.2.3.4", 100);
    assert_int_equal(ask_until_denied(&w, "1.2.3.4", NULL), 1);
    delete_client(&w, "1.2.3.4");
    assert_int_equal(ask_until_denied(&w, "1.2.3.4", NULL), 0);

    register_client(&w, "5.5.5.5", 100);
    assert_int_equal(ask(&w, "5.5.5.5", NULL), ERR_OK);
    delete_client(&w, "5.5.5.5");
    assert_int_equal(ask_until_denied(&w, "5.5.5.5", NULL), 2);
    close_world(&w);
}

static void names_come_back_full(void **state)
{
    (void)state;
    struct world w;
    open_world(&w, SCARCE);
    register_client(&w, "user1", 3);
    assert_int_equal(ask_until_denied(&w, "1.2.3.4", "user1"), 3);
    delete_client(&w, "user1");
    register_client(&w, "user1", 3);
    assert_int_equal(ask_until_denied(&w, "1.2.3.4", "user1"), 3);
    close_world(&w);
}

static void exempt_wins(void **state)
{
    (void)state;
    struct world w;
    open_world(&w, SCARCE ",\"exempt\":[\"1.2.3.0/24\"]");
    register_client(&w, "1.2.3.4", 1);
    register_client(&w, "user1", 1);
    assert_int_equal(ask_until_denied(&w, "1.2.3.4", NULL), 1000);
    expect_client(&w, "");
    assert_int_equal(w.answer.fields_len, 0);
    assert_int_equal(ask_until_denied(&w, "1.2.3.4", "user1"), 1000);
    assert_int_equal(ask_until_denied(&w, "9.9.9.9", "user1"), 1);
    close_world(&w);
}

static void limits_that_are_only_watched(void **state)
{
    (void)state;
    struct world w;
    struct client_view v;
    open_world(&w, SCARCE);
    register_in_mode(&w, "shadow1", 2, CLIENT_SHADOW);
    register_in_mode(&w, "off1", 2, CLIENT_OFF);
    uint64_t before = metrics.shadow_limited;
    assert_int_equal(ask(&w, "1.2.3.4", "shadow1"), ERR_OK);
    assert_false(w.answer.shadow_limited);
    assert_int_equal(ask_until_denied(&w, "1.2.3.4", "shadow1"), 1000);
    assert_true(w.answer.shadow_limited);
    expect_client(&w, "shadow1");
    assert_int_equal(w.answer.fields_len, 0);
    assert_int_equal(clients_get(w.lim, "shadow1", &v), ERR_OK);
    assert_int_equal(v.allowed, 1001);
    assert_int_equal(v.limited, 999);
    assert_int_equal(metrics.shadow_limited - before, 999);
    assert_int_equal(ask_until_denied(&w, "1.2.3.4", "off1"), 1000);
    assert_int_equal(w.answer.fields_len, 0);
    assert_int_equal(clients_get(w.lim, "off1", &v), ERR_OK);
    assert_true(v.tokens == 2);
    assert_int_equal(v.allowed, 1000);
    assert_int_equal(v.limited, 0);
    close_world(&w);
}

static void totals_are_counted(void **state)
{
    (void)state;
    struct world w;
    struct client_view v;
    open_world(&w, SCARCE);
    register_client(&w, "user1", 3);
    assert_int_equal(ask_until_denied(&w, "1.2.3.4", "user1"), 3);
    assert_int_equal(ask(&w, "1.2.3.4", "user1"), ERR_RATE_LIMITED);
    assert_int_equal(clients_get(w.lim, "user1", &v), ERR_OK);
    assert_int_equal(v.allowed, 3);
    assert_int_equal(v.limited, 2);
    close_world(&w);
}

static const char *json_text(struct buf *json)
{
    assert_true(buf_append(json, "", 1));
    return buf_str(json).p;
}

static void asking_takes_nothing(void **state)
{
    (void)state;
    struct world w;
    struct client_check c;
    open_world(&w, SCARCE ",\"exempt\":[\"7.0.0.0/8\"]");
    register_client(&w, "user1", 3);
    register_in_mode(&w, "shadow1", 1, CLIENT_SHADOW);
    register_in_mode(&w, "off1", 1, CLIENT_OFF);
    register_client(&w, "7.7.7.7", 3);
    expect_asked(&w, "user1", CHECK_WITHIN_LIMIT, 3);
    assert_int_equal(ask_until_denied(&w, "1.2.3.4", "user1"), 3);
    expect_asked(&w, "user1", CHECK_RATE_LIMITED, 0);
    assert_int_equal(ask_until_denied(&w, "1.2.3.4", "shadow1"), 1000);
    expect_asked(&w, "shadow1", CHECK_SHADOW_LIMITED, 0);
    expect_asked(&w, "off1", CHECK_OFF, 1);
    expect_asked(&w, "7.7.7.7", CHECK_EXEMPT, 0);
    expect_asked(&w, "7.7.7.8", CHECK_EXEMPT, 0);
    expect_asked(&w, "9.9.9.9", CHECK_WITHIN_LIMIT, 2);
    assert_int_equal(ask(&w, "9.9.9.9", NULL), ERR_OK);
    expect_asked(&w, "9.9.9.9", CHECK_WITHIN_LIMIT, 1);
    assert_int_equal(ask(&w, "2001:db8::1", NULL), ERR_OK);
    assert_int_equal(clients_check(w.lim, "2001:db8::2", &c), ERR_OK);
    assert_string_equal(c.id, "2001:db8::/64");
    assert_true(fabs(c.tokens - 1) < 0.01);
    assert_int_equal(ask_until_denied(&w, NULL, NULL), 2);
    expect_asked(&w, "unix:", CHECK_RATE_LIMITED, 0);
    assert_int_equal(clients_check(w.lim, "user2", &c), ERR_NO_SUCH_CLIENT);

    assert_int_equal(clients_check(w.lim, "user1", &c), ERR_OK);
    assert_int_equal(ask(&w, "1.2.3.4", "user1"), ERR_RATE_LIMITED);
    assert_int_equal(c.retry_after_s, w.answer.retry_after_s);
    assert_true(fabs(c.full_in_s - 30000) < 5);
    struct buf json = BUF_INIT;
    assert_true(client_check_json(&json, &c));
    assert_true(str_starts_with(buf_str(&json), STR("{\"client_id\":\"user1\",\"registered\":true,\"verdict\":\"deny\","
                                                    "\"status\":429,\"reason\":\"rate_limited\"")));
    buf_fini(&json);
    close_world(&w);
}

/* What takes longer than numbers can tell is cut short. */
static void asking_about_the_slowest(void **state)
{
    (void)state;
    static const double rates[] = {1e-308, 5e-324, 1e-290, 1e-12};
    struct world w;
    struct client_check c;
    open_world(&w, SCARCE);
    for (size_t i = 0; i < sizeof rates / sizeof rates[0]; i++) {
        struct waiter waiter = {.change.done = on_ended};
        struct client_fields f = {.v.set = {1e9, rates[i], CLIENT_ENFORCE}};
        struct buf json = BUF_INIT;
        snprintf(f.v.id, sizeof f.v.id, "slow%zu", i);
        assert_int_equal(clients_register(w.lim, &f, &waiter.change), ERR_OK);
        wait_for(&w, &waiter);
        assert_int_equal(ask(&w, "1.2.3.4", f.v.id), ERR_OK);
        assert_int_equal(clients_check(w.lim, f.v.id, &c), ERR_OK);
        assert_true(c.full_in_s > 1e11 && c.full_in_s <= 999999999999999);
        assert_true(client_check_json(&json, &c));
        assert_non_null(strstr(json_text(&json), "\"full_at\":null"));
        buf_fini(&json);
    }
    close_world(&w);
}

static void asking_where_the_unknown_are_refused(void **state)
{
    (void)state;
    struct world w;
    open_world(&w, SCARCE ",\"unknown_clients\":\"reject\"");
    expect_asked(&w, "9.9.9.9", CHECK_UNKNOWN_CLIENT, 0);
    close_world(&w);
    open_world(&w, SCARCE ",\"unknown_clients\":\"allow\"");
    expect_asked(&w, "9.9.9.9", CHECK_UNLIMITED, 0);
    close_world(&w);
}

static void unknown_clients_as_configured(void **state)
{
    (void)state;
    struct world w;
    open_world(&w, SCARCE ",\"unknown_clients\":\"allow\"");
    register_client(&w, "user1", 1);
    assert_int_equal(ask_until_denied(&w, "1.2.3.4", NULL), 1000);
    expect_client(&w, "1.2.3.4");
    assert_int_equal(w.answer.fields_len, 0);
    assert_int_equal(ask_until_denied(&w, "1.2.3.4", "user1"), 1);
    close_world(&w);
    open_world(&w, SCARCE ",\"unknown_clients\":\"reject\"");
    register_client(&w, "user1", 1);
    assert_int_equal(ask(&w, "1.2.3.4", NULL), ERR_UNKNOWN_CLIENT);
    assert_int_equal(w.answer.fields_len, 0);
    assert_int_equal(ask_until_denied(&w, "1.2.3.4", "user1"), 1);
    close_world(&w);
}

static void fields_as_configured(void **state)
{
    (void)state;
    struct world w;
    open_world(&w, SCARCE ",\"headers\":\"limited\"");
    assert_int_equal(ask(&w, "1.2.3.4", NULL), ERR_OK);
    assert_int_equal(w.answer.fields_len, 0);
    assert_int_equal(ask_until_denied(&w, "1.2.3.4", NULL), 1);
    assert_int_not_equal(w.answer.fields_len, 0);
    close_world(&w);
    open_world(&w, SCARCE ",\"headers\":\"off\"");
    assert_int_equal(ask_until_denied(&w, "1.2.3.4", NULL), 2);
    assert_int_equal(w.answer.fields_len, 0);
    assert_int_equal(w.answer.retry_after_s, 10000);
    close_world(&w);
}

static void set_rate(struct world *w, const char *id, double rate)
{
    struct waiter waiter = {.change.done = on_ended};
    struct client_fields f = {.given = CLIENT_RATE, .v.set.rate = rate};
    snprintf(f.v.id, sizeof f.v.id, "%s", id);
    assert_int_equal(clients_update(w->lim, &f, &waiter.change), ERR_OK);
    wait_for(w, &waiter);
}

/* The fields are those of the policy that counts now, though it may stand where one of the same capacity stood. */
static void fields_follow_the_rate(void **state)
{
    (void)state;
    static const struct {
        double rate;
        unsigned seconds;
    } rates[] = {{0.0002, 50000}, {0.0005, 20000}, {0.0004, 25000}, {0.0008, 12500}, {0.0001, 100000}};
    struct world w;
    open_world(&w, SCARCE);
    register_client(&w, "user1", 10);
    assert_int_equal(ask(&w, "1.2.3.4", "user1"), ERR_OK);
    for (unsigned i = 0; i < sizeof rates / sizeof rates[0]; i++) {
        char begin[64];
        set_rate(&w, "user1", rates[i].rate);
        assert_int_equal(ask(&w, "1.2.3.4", "user1"), ERR_OK);
        snprintf(begin, sizeof begin, "RateLimit-Policy: \"client\";q=10;w=%u\r\n", rates[i].seconds);
        if (!str_starts_with(str_make(w.answer.fields, w.answer.fields_len), str_of(begin)))
            fail_msg("not %s but %.*s", begin, (int)w.answer.fields_len, w.answer.fields);
    }
    close_world(&w);
}

static void id_field_may_be_another_or_none(void **state)
{
    (void)state;
    struct world w;
    open_world(&w, SCARCE ",\"client_id_header\":null");
    register_client(&w, "user1", 10);
    assert_int_equal(ask(&w, "1.2.3.4", "user1"), ERR_OK);
    expect_client(&w, "1.2.3.4");
    assert_int_equal(ask_with(&w, "1.2.3.4", "user1", 2), ERR_OK);
    close_world(&w);
}

static void longest_fields_fit(void **state)
{
    (void)state;
    struct world w;
    open_world(&w, "\"default\":{\"capacity\":1000000000,\"rate_per_sec\":1e-300}");
    assert_int_equal(ask(&w, "1.2.3.4", NULL), ERR_OK);
    expect_fields(&w, "RateLimit-Policy: \"default\";q=1000000000;w=999999999999999\r\n"
                      "RateLimit: \"default\";r=999999999;t=999999999999999\r\n");
    close_world(&w);
}

/* ---- another default policy, another process ---- */

/* Whoever is not registered keeps what is left, capped to the new capacity: an address and the unix peers alike. */
static void a_reload_keeps_the_tokens(void **state)
{
    (void)state;
    static const char *const peers[] = {"1.2.3.4", NULL};
    for (unsigned i = 0; i < 2; i++) {
        struct world w;
        open_world(&w, "\"default\":{\"capacity\":5,\"rate_per_sec\":0.0001}");
        assert_int_equal(ask(&w, peers[i], NULL), ERR_OK);
        reload(&w, "\"default\":{\"capacity\":100,\"rate_per_sec\":0.001}");
        expect_asked(&w, peers[i] ? peers[i] : "unix:", CHECK_WITHIN_LIMIT, 4);
        reload(&w, "\"default\":{\"capacity\":3,\"rate_per_sec\":0.0005}");
        assert_int_equal(ask(&w, peers[i], NULL), ERR_OK);
        expect_fields(&w, "RateLimit-Policy: \"default\";q=3;w=6000\r\nRateLimit: \"default\";r=2;t=2000\r\n");
        assert_int_equal(ask_until_denied(&w, peers[i], NULL), 2);
        close_world(&w);
    }
}

/* What one process tells of its unregistered clients is what the other knows of them. */
static void hand_over(const struct world *from, struct world *to)
{
    struct buf text = BUF_INIT;
    struct limiter_export e = {0}; /* as every version understands it */
    while (!e.buckets.ended)
        assert_true(limiter_export(from->lim, &e, 1000, &text));
    assert_true(limiter_import(to->lim, buf_str(&text)));
    buf_fini(&text);
}

static void another_process_knows_the_tokens(void **state)
{
    (void)state;
    struct world a, b;
    open_world(&a, SCARCE);
    open_world(&b, SCARCE);
    assert_int_equal(ask(&a, "1.2.3.4", NULL), ERR_OK);
    assert_int_equal(ask(&a, NULL, NULL), ERR_OK);
    hand_over(&a, &b);
    expect_asked(&b, "1.2.3.4", CHECK_WITHIN_LIMIT, 1);
    expect_asked(&b, "unix:", CHECK_WITHIN_LIMIT, 1);
    expect_asked(&b, "5.6.7.8", CHECK_WITHIN_LIMIT, 2);
    assert_int_equal(ask_until_denied(&b, NULL, NULL), 1);
    close_world(&b);
    close_world(&a);
}

/* Where networks are larger or smaller there, nobody gets a token by it: each part of what was one network here, and
 * what is one with others there, has at most what was left. */
static void another_process_with_other_networks(void **state)
{
    (void)state;
    static const char *const prefixes[] = {"48", "65", "128"};
    for (unsigned i = 0; i < 3; i++) {
        struct world a, b;
        char settings[128];
        snprintf(settings, sizeof settings, SCARCE ",\"ipv6_prefix\":%s", prefixes[i]);
        open_world(&a, SCARCE);
        open_world(&b, settings);
        assert_int_equal(ask_until_denied(&a, "2001:db8:1:2::3", NULL), 2);
        hand_over(&a, &b);
        assert_int_equal(ask(&b, "2001:db8:1:2::3", NULL), ERR_RATE_LIMITED);
        assert_int_equal(ask(&b, "2001:db8:1:2::4", NULL), ERR_RATE_LIMITED);
        assert_int_equal(ask(&b, "2001:db8:1:2:8000::4", NULL), ERR_RATE_LIMITED);
        close_world(&b);
        close_world(&a);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(anonymous_clients_are_limited),
        cmocka_unit_test(ipv6_clients_are_networks),
        cmocka_unit_test(unix_peers_are_one_client),
        cmocka_unit_test(unix_peers_may_be_registered),
        cmocka_unit_test(registered_names),
        cmocka_unit_test(registered_addresses),
        cmocka_unit_test(addresses_take_their_tokens_along),
        cmocka_unit_test(names_come_back_full),
        cmocka_unit_test(exempt_wins),
        cmocka_unit_test(limits_that_are_only_watched),
        cmocka_unit_test(totals_are_counted),
        cmocka_unit_test(asking_takes_nothing),
        cmocka_unit_test(asking_about_the_slowest),
        cmocka_unit_test(asking_where_the_unknown_are_refused),
        cmocka_unit_test(unknown_clients_as_configured),
        cmocka_unit_test(fields_as_configured),
        cmocka_unit_test(fields_follow_the_rate),
        cmocka_unit_test(id_field_may_be_another_or_none),
        cmocka_unit_test(longest_fields_fit),
        cmocka_unit_test(a_reload_keeps_the_tokens),
        cmocka_unit_test(another_process_knows_the_tokens),
        cmocka_unit_test(another_process_with_other_networks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
