/* Names that a reload brings: where they lead is known before the new set is in force. */
#include "base/clock.h"
#include "upstream/backend.h"
#include "upstream/resolve.h"
#include "upstream/upstream.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#define A    "{\"address\":\"127.0.0.1:1\"}"
#define NAME "{\"address\":\"localhost:2\"}"
#define NEXT "{\"address\":\"LOCALHOST:3\"}"

struct world {
    struct loop *loop;
    struct upstream *upstream;
    unsigned told;
};

static struct config *config_of(const char *backends, bool checked)
{
    char text[512];
    int n = snprintf(text, sizeof text, "{\"backends\":[%s],\"health_check\":%s}", backends,
                     checked ? "{\"interval\":\"1h\",\"timeout\":\"1h\"}" : "null");
    struct buf errors = BUF_INIT;
    struct config *c = config_parse(str_make(text, (size_t)n), "test", NULL, &errors);
    assert_non_null(c);
    buf_fini(&errors);
    return c;
}

static void open_world(struct world *w, const char *backends)
{
    struct config *config = config_of(backends, false);
    *w = (struct world){.loop = loop_new()};
    assert_non_null(w->loop);
    w->upstream = upstream_new(w->loop, config);
    assert_non_null(w->upstream);
    config_put(config);
}

static void close_world(struct world *w)
{
    upstream_free(w->upstream);
    loop_free(w->loop);
}

static void on_over(void *arg)
{
    struct world *w = arg;
    w->told++;
}

static struct upstream_lookup *look_up(struct world *w, const struct config *fresh)
{
    struct upstream_lookup *l = upstream_look_up(w->upstream, fresh, on_over, w);
    assert_non_null(l);
    return l;
}

static void turn_until_told(struct world *w)
{
    uint64_t deadline = clock_monotonic() + 10 * NS_PER_S;
    while (w->told == 0) {
        assert_true(clock_monotonic() < deadline);
        loop_turn(w->loop, NS_PER_MS);
    }
}

static void change(struct world *w, struct config *fresh, struct upstream_lookup *l)
{
    struct upstream_change *c = upstream_stage(w->upstream, fresh, l);
    assert_non_null(c);
    upstream_commit(c);
    upstream_lookup_free(l);
    config_put(fresh);
}

static unsigned port_of(const struct backend *be, int i)
{
    return peer_from_addr(&be->addrs[i]).port;
}

/* It begins like an address: in the turn in which those that it replaces go. With checks or without, what follows is
 * what follows for any name. */
static void what_was_found_is_up_at_once(void **state)
{
    (void)state;
    for (int checked = 0; checked < 2; checked++) {
        struct world w;
        open_world(&w, A);
        struct config *fresh = config_of(A "," NAME, checked);
        struct upstream_lookup *l = look_up(&w, fresh);
        assert_false(upstream_lookup_is_over(l));
        turn_until_told(&w);
        assert_true(upstream_lookup_is_over(l));
        change(&w, fresh, l);
        struct backend *be = upstream_backend(w.upstream, 1);
        assert_true(backend_is_available(be));
        assert_true(be->addr_count > 0);
        assert_int_equal(port_of(be, 0), 2);
        assert_int_equal(w.upstream->tiers[TIER_PRIMARY].count, 2);
        loop_turn(w.loop, 0);
        assert_int_equal(w.told, 1);
        close_world(&w);
    }
}

/* Only the port is another one: nobody needs to be asked, nor waited for. */
static void another_port_of_a_known_host(void **state)
{
    (void)state;
    struct world w;
    open_world(&w, NAME);
    struct backend *be = upstream_backend(w.upstream, 0);
    uint64_t deadline = clock_monotonic() + 10 * NS_PER_S;
    for (; !backend_is_available(be); loop_turn(w.loop, NS_PER_MS))
        assert_true(clock_monotonic() < deadline);
    int count = be->addr_count;
    struct config *fresh = config_of(NEXT, false);
    struct upstream_lookup *l = look_up(&w, fresh);
    assert_true(upstream_lookup_is_over(l));
    change(&w, fresh, l);
    be = upstream_backend(w.upstream, 0);
    assert_true(backend_is_available(be));
    assert_int_equal(be->addr_count, count);
    for (int i = 0; i < count; i++)
        assert_int_equal(port_of(be, i), 3);
    assert_int_equal(w.told, 0);
    close_world(&w);
}

/* The reload goes on, and it is a backend that is down, as at the start. */
static void what_was_not_found_is_down(void **state)
{
    (void)state;
    struct world w;
    open_world(&w, A);
    struct config *fresh = config_of(A "," NAME, false);
    snprintf(fresh->backends[1].endpoint.host, sizeof fresh->backends[1].endpoint.host, "no..such..name");
    struct upstream_lookup *l = look_up(&w, fresh);
    turn_until_told(&w);
    change(&w, fresh, l);
    assert_true(backend_is_available(upstream_backend(w.upstream, 0)));
    assert_false(backend_is_available(upstream_backend(w.upstream, 1)));
    close_world(&w);
}

/* One that nobody waits for any more, and a set that goes first thing after. */
static void given_up(void **state)
{
    (void)state;
    struct world w;
    open_world(&w, A);
    struct config *fresh = config_of(NAME "," NEXT, false);
    upstream_lookup_free(look_up(&w, fresh));
    upstream_lookup_free(NULL);
    struct upstream_lookup *l = look_up(&w, fresh);
    loop_turn(w.loop, 0);
    upstream_lookup_free(l);
    config_put(fresh);
    fresh = config_of(A, false);
    l = look_up(&w, fresh);
    assert_true(upstream_lookup_is_over(l));
    upstream_lookup_free(l);
    config_put(fresh);
    close_world(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_found_is_up_at_once),
        cmocka_unit_test(another_port_of_a_known_host),
        cmocka_unit_test(what_was_not_found_is_down),
        cmocka_unit_test(given_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
