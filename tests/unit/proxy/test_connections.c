/* Unit tests of proxy/proxy.c: connections that count for one client, with peers that no socket of a test could have.
 */
#include "proxy/proxy.h"

#include "base/clock.h"
#include "base/metrics.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#define CONNECTIONS 16

struct world {
    struct loop *loop;
    struct config *config;
    struct upstream *upstream;
    struct proxy *px;
    int clients[CONNECTIONS];
    size_t n;
};

static bool is_nobodys(void *arg, const struct request *r)
{
    (void)arg, (void)r;
    return false;
}

static void open_world_for(struct world *w, const char *settings, const struct local_handler *local)
{
    char text[512];
    struct buf errors = BUF_INIT;
    *w = (struct world){0};
    snprintf(text, sizeof text,
             "{\"backends\":[{\"address\":\"127.0.0.1:1\"}],\"health_check\":null,\"log\":{\"level\":\"error\"},%s}",
             settings);
    w->config = config_parse(str_of(text), "test", NULL, &errors);
    if (!w->config)
        fail_msg("%.*s", STR_ARG(buf_str(&errors)));
    buf_fini(&errors);
    w->loop = loop_new();
    assert_non_null(w->loop);
    w->upstream = upstream_new(w->loop, w->config);
    assert_non_null(w->upstream);
    w->px =
        proxy_new(&(struct proxy_setup){.loop = w->loop, .config = w->config, .upstream = w->upstream, .local = local});
    assert_non_null(w->px);
}

static void open_world(struct world *w, const char *settings)
{
    static const struct local_handler none = {.is_mine = is_nobodys};
    open_world_for(w, settings, &none);
}

static void close_world(struct world *w)
{
    (void)proxy_cut(w->px);
    for (size_t i = 0; i < w->n; i++)
        close(w->clients[i]);
    while (proxy_connections(w->px) > 0)
        loop_turn(w->loop, TIMER_NEVER);
    loop_turn(w->loop, 0);
    proxy_free(w->px);
    upstream_free(w->upstream);
    loop_free(w->loop);
    config_put(w->config);
}

/* A connection from there; is it served? */
static bool connects(struct world *w, const char *from, bool taken_over)
{
    int pair[2];
    struct peer peer = {.port = 1};
    size_t before = proxy_connections(w->px);
    assert_true(w->n < CONNECTIONS);
    assert_true(ip_parse(str_of(from), &peer.ip));
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair), 0);
    w->clients[w->n++] = pair[1];
    if (taken_over)
        proxy_take_over(w->px, pair[0], &peer, STR(""));
    else
        proxy_accept(w->px, pair[0], &peer);
    return proxy_connections(w->px) > before;
}

/* An IPv6 address counts for its network, as wide as the limiter has it: whoever has one has all of its addresses. */
static void a_network_is_one_client(void **state)
{
    (void)state;
    struct world w;
    open_world(&w, "\"limits\":{\"connections_per_client\":2}");
    assert_true(connects(&w, "2001:db8:0:1::1", false));
    assert_true(connects(&w, "2001:db8:0:1::2", false));
    assert_false(connects(&w, "2001:db8:0:1:ffff::3", false));
    assert_true(connects(&w, "2001:db8:0:2::1", false));
    for (int i = 0; i < 2; i++) { /* of IPv4 each by itself */
        assert_true(connects(&w, "10.0.0.1", false));
        assert_true(connects(&w, "10.0.0.2", false));
    }
    assert_false(connects(&w, "10.0.0.1", false));
    close_world(&w);
    open_world(&w, "\"limits\":{\"connections_per_client\":1},\"rate_limit\":{\"ipv6_prefix\":128}");
    assert_true(connects(&w, "2001:db8:0:1::1", false));
    assert_true(connects(&w, "2001:db8:0:1::2", false));
    assert_false(connects(&w, "2001:db8:0:1::2", false));
    close_world(&w);
}

/* What another process has begun counts as what is accepted, but is served though it is one too many. */
static void what_is_taken_over_counts(void **state)
{
    (void)state;
    struct world w;
    open_world(&w, "\"limits\":{\"connections_per_client\":2}");
    for (int i = 0; i < 3; i++)
        assert_true(connects(&w, "10.0.0.1", true));
    assert_false(connects(&w, "10.0.0.1", false));
    assert_true(connects(&w, "10.0.0.2", false));
    close_world(&w);
}

/* ---- the local handler's answers ---- */

static bool is_ours(void *arg, const struct request *r)
{
    (void)arg, (void)r;
    return true;
}

static enum err takes_all(void *arg, const struct local_request *r, struct str *fields, const char **detail)
{
    (void)arg, (void)r, (void)fields, (void)detail;
    return ERR_OK;
}

static void has_no_memory(void *arg, const struct local_request *r, struct local_exchange *x, void **state)
{
    (void)arg, (void)r, (void)state;
    local_answer_err(x, ERR_INTERNAL, STR(""), NULL);
}

/* Whoever has run out of memory for it: the request was lost for that. */
static void an_answer_for_want_of_memory_is_counted(void **state)
{
    (void)state;
    static const struct local_handler poor = {.is_mine = is_ours, .admit = takes_all, .start = has_no_memory};
    static const char request[] = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    struct world w;
    char answer[16] = "";
    uint64_t before = metrics.out_of_memory;
    open_world_for(&w, "\"rate_limit\":null", &poor);
    assert_true(connects(&w, "10.0.0.1", false));
    assert_int_equal(write(w.clients[0], request, sizeof request - 1), sizeof request - 1);
    while (read(w.clients[0], answer, sizeof answer - 1) <= 0)
        loop_turn(w.loop, 5 * NS_PER_S);
    assert_string_equal(answer, "HTTP/1.1 500 In");
    assert_int_equal(metrics.out_of_memory, before + 1);
    close_world(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_network_is_one_client),
        cmocka_unit_test(what_is_taken_over_counts),
        cmocka_unit_test(an_answer_for_want_of_memory_is_counted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
