/* Whose turn it is: smooth weighted round robin, backups, what was tried; and the integer of health. */
#include "base/clock.h"
#include "base/mem.h"
#include "base/metrics.h"
#include "upstream/backend.h"
#include "upstream/health.h"
#include "upstream/upstream.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/resource.h>

#include <cmocka.h>

struct world {
    struct loop *loop;
    struct config *config;
    struct upstream *upstream;
};

/* As a request that has begun there just now. */
static struct place place_at(const struct backend *be)
{
    return (struct place){.epoch = be->passive.epoch, .on_trial = be->passive.on_trial || be->ejected};
}

static void leave(struct backend *be)
{
    struct place p = place_at(be);
    backend_leave(be, &p);
}

static void succeed(struct backend *be)
{
    struct place p = place_at(be);
    backend_succeeded(be, &p);
}

static void fail_at(struct backend *be)
{
    struct place p = place_at(be);
    backend_failed(be, &p, "test");
}

static void open_world(struct world *w, const char *backends)
{
    char text[1024];
    int n = snprintf(text, sizeof text, "{\"backends\":[%s],\"health_check\":null}", backends);
    struct buf errors = BUF_INIT;
    w->config = config_parse(str_make(text, (size_t)n), "test", NULL, &errors);
    assert_non_null(w->config);
    buf_fini(&errors);
    w->loop = loop_new();
    assert_non_null(w->loop);
    w->upstream = upstream_new(w->loop, w->config);
    assert_non_null(w->upstream);
}

static void close_world(struct world *w)
{
    upstream_free(w->upstream);
    loop_free(w->loop);
    config_put(w->config);
}

/* The index of the backend chosen, or -1. */
static int choose(struct world *w, const struct pick *p)
{
    bool full, any = upstream_has_any(w->upstream);
    struct place place;
    struct backend *be = upstream_pick(w->upstream, p, &place, &full);
    assert_int_equal(any, be || full);
    if (be)
        leave(be);
    for (unsigned i = 0; i < upstream_count(w->upstream); i++)
        if (upstream_backend(w->upstream, i) == be)
            return (int)i;
    assert_null(be);
    return -1;
}

static const struct pick fresh;

#define TWO "{\"address\":\"127.0.0.1:1\"},{\"address\":\"127.0.0.1:2\"}"

static void equal_weights_rotate(void **state)
{
    (void)state;
    struct world w;
    open_world(&w, "{\"address\":\"127.0.0.1:1\"},{\"address\":\"127.0.0.1:2\"},{\"address\":\"127.0.0.1:3\"}");
    for (int i = 0; i < 300; i++)
        assert_int_equal(choose(&w, &fresh), i % 3);
    close_world(&w);
}

static void weights_are_smooth(void **state)
{
    (void)state;
    struct world w;
    open_world(&w, "{\"address\":\"127.0.0.1:1\",\"weight\":3},{\"address\":\"127.0.0.1:2\",\"weight\":2},"
                   "{\"address\":\"127.0.0.1:3\",\"weight\":1}");
    static const int round[] = {0, 1, 0, 2, 1, 0};
    for (int i = 0; i < 600; i++)
        assert_int_equal(choose(&w, &fresh), round[i % 6]);
    close_world(&w);
}

/* For many weights: in every window of the weights' sum each backend has exactly its share, and is never further than
 * one from it. */
static void shares_are_exact(void **state)
{
    (void)state;
    struct world w;
    open_world(&w, "{\"address\":\"127.0.0.1:1\",\"weight\":256},{\"address\":\"127.0.0.1:2\",\"weight\":1},"
                   "{\"address\":\"127.0.0.1:3\",\"weight\":17},{\"address\":\"127.0.0.1:4\",\"weight\":100}");
    static const int weights[] = {256, 1, 17, 100};
    const int sum = 374;
    int got[4] = {0};
    for (int i = 1; i <= sum; i++) {
        got[choose(&w, &fresh)]++;
        for (int b = 0; b < 4; b++) {
            int ahead = got[b] * sum - weights[b] * i; /* in units of 1/sum of a request */
            assert_in_range(ahead + 2 * sum, 0, 4 * sum);
        }
    }
    for (int b = 0; b < 4; b++)
        assert_int_equal(got[b], weights[b]);
    close_world(&w);
}

static void down_ones_are_passed_over(void **state)
{
    (void)state;
    struct world w;
    open_world(&w, "{\"address\":\"127.0.0.1:1\"},{\"address\":\"127.0.0.1:2\"},{\"address\":\"127.0.0.1:3\"}");
    backend_set_up(upstream_backend(w.upstream, 1), false, "test");
    int got[3] = {0};
    for (int i = 0; i < 100; i++)
        got[choose(&w, &fresh)]++;
    assert_int_equal(got[0], 50);
    assert_int_equal(got[1], 0);
    assert_int_equal(got[2], 50);
    backend_set_up(upstream_backend(w.upstream, 1), true, "test");
    for (int i = 0; i < 3; i++)
        got[choose(&w, &fresh)]++;
    assert_int_equal(got[1], 1);
    for (unsigned i = 0; i < 3; i++)
        backend_set_up(upstream_backend(w.upstream, i), false, "test");
    assert_int_equal(choose(&w, &fresh), -1);
    close_world(&w);
}

static void backup_only_when_no_other(void **state)
{
    (void)state;
    struct world w;
    open_world(&w, "{\"address\":\"127.0.0.1:1\"},{\"address\":\"127.0.0.1:2\",\"backup\":true}");
    for (int i = 0; i < 10; i++)
        assert_int_equal(choose(&w, &fresh), 0);
    backend_set_up(upstream_backend(w.upstream, 0), false, "test");
    for (int i = 0; i < 10; i++)
        assert_int_equal(choose(&w, &fresh), 1);
    backend_set_up(upstream_backend(w.upstream, 0), true, "test");
    assert_int_equal(choose(&w, &fresh), 0);
    close_world(&w);
}

static void tried_ones_come_last(void **state)
{
    (void)state;
    struct world w;
    open_world(
        &w,
        "{\"address\":\"127.0.0.1:1\"},{\"address\":\"127.0.0.1:2\"},{\"address\":\"127.0.0.1:3\",\"backup\":true}");
    struct pick p = {0};
    p.tried[p.tried_count++] = upstream_backend(w.upstream, 0);
    assert_int_equal(choose(&w, &p), 1);
    p.tried[p.tried_count++] = upstream_backend(w.upstream, 1);
    assert_int_equal(choose(&w, &p), 2); /* even a backup rather than one that was tried */
    p.tried[p.tried_count++] = upstream_backend(w.upstream, 2);
    assert_int_not_equal(choose(&w, &p), -1); /* all tried: any that is up */
    close_world(&w);
}

/* ---- passive checks ---- */

static void fail_times(struct world *w, unsigned i, int times)
{
    for (int k = 0; k < times; k++)
        fail_at(upstream_backend(w->upstream, i));
}

static void wait_available(struct world *w, unsigned i)
{
    uint64_t end = clock_monotonic() + 5 * NS_PER_S;
    while (!backend_is_available(upstream_backend(w->upstream, i))) {
        assert_true(clock_monotonic() < end);
        loop_turn(w->loop, 10 * NS_PER_MS);
    }
}

static void failures_in_a_row_eject(void **state)
{
    (void)state;
    struct world w;
    open_world(&w, TWO);
    struct backend *be = upstream_backend(w.upstream, 0);
    fail_times(&w, 0, 4);
    succeed(be);
    fail_times(&w, 0, 4);
    assert_true(backend_is_available(be));
    fail_times(&w, 0, 1);
    assert_false(backend_is_available(be));
    for (int i = 0; i < 4; i++)
        assert_int_equal(choose(&w, &fresh), 1);
    backend_set_up(be, true, "test"); /* an active success does not end it early */
    assert_false(backend_is_available(be));
    close_world(&w);
}

static void ejections_double_and_end(void **state)
{
    (void)state;
    struct world w;
    open_world(
        &w, TWO
        "],\"passive_check\":{\"failures\":2,\"ejection\":\"20ms\",\"max_ejection\":\"50ms\"},\"trusted_proxies\":[");
    struct backend *be = upstream_backend(w.upstream, 0);
    static const uint64_t wanted[] = {20, 40, 50, 50};
    for (int i = 0; i < 4; i++) {
        fail_times(&w, 0, i == 0 ? 2 : 1); /* back on probation, one is enough */
        assert_false(backend_is_available(be));
        assert_int_equal(be->passive.ejection, wanted[i] * NS_PER_MS);
        wait_available(&w, 0);
    }
    succeed(be);
    fail_times(&w, 0, 1);
    assert_true(backend_is_available(be));
    fail_times(&w, 0, 1);
    assert_int_equal(be->passive.ejection, 20 * NS_PER_MS);
    close_world(&w);
}

static void the_last_one_is_never_ejected(void **state)
{
    (void)state;
    struct world w;
    open_world(&w, TWO);
    fail_times(&w, 0, 5);
    fail_times(&w, 1, 50);
    assert_false(backend_is_available(upstream_backend(w.upstream, 0)));
    assert_int_equal(choose(&w, &fresh), 1);
    backend_set_up(upstream_backend(w.upstream, 1), false, "test"); /* an ejected one is better than none */
    assert_int_equal(choose(&w, &fresh), 0);
    close_world(&w);
}

/* ---- health ---- */

/* Out of our own descriptors, a probe cannot be made: that says nothing about the backend. */
static void our_own_want_is_no_failure(void **state)
{
    (void)state;
    static const char text[] =
        "{\"backends\":[{\"address\":\"127.0.0.1:1\"}],\"health_check\":{\"interval\":\"10ms\"}}";
    struct world w;
    struct rlimit limit, none;
    struct buf errors = BUF_INIT;
    w.config = config_parse(STR(text), "test", NULL, &errors);
    assert_non_null(w.config);
    w.loop = loop_new();
    w.upstream = upstream_new(w.loop, w.config);
    assert_non_null(w.upstream);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    none = (struct rlimit){0, limit.rlim_max};
    uint64_t probes = metrics.health_probes;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    while (metrics.health_probes < probes + 3)
        loop_turn(w.loop, 20 * NS_PER_MS);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
    assert_true(backend_is_available(upstream_backend(w.upstream, 0)));
    probes = metrics.health_failures;
    while (metrics.health_failures == probes)
        loop_turn(w.loop, 20 * NS_PER_MS);
    assert_false(backend_is_available(upstream_backend(w.upstream, 0))); /* nobody listens there */
    close_world(&w);
}

/* ... and is made up for soon: nothing is known of the backend meanwhile. */
static void a_probe_that_could_not_be_made_is_made_up_for(void **state)
{
    (void)state;
    static const char text[] = "{\"backends\":[{\"address\":\"127.0.0.1:1\"}],\"health_check\":{\"interval\":\"1m\"}}";
    struct world w;
    struct rlimit limit, none;
    struct buf errors = BUF_INIT;
    w.config = config_parse(STR(text), "test", NULL, &errors);
    assert_non_null(w.config);
    w.loop = loop_new();
    w.upstream = upstream_new(w.loop, w.config);
    assert_non_null(w.upstream);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    none = (struct rlimit){0, limit.rlim_max};
    uint64_t probes = metrics.health_probes, end = clock_monotonic() + 10 * NS_PER_S;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    while (metrics.health_probes == probes)
        loop_turn(w.loop, 20 * NS_PER_MS);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
    while (backend_is_available(upstream_backend(w.upstream, 0))) { /* nobody listens there */
        assert_true(clock_monotonic() < end);
        loop_turn(w.loop, 20 * NS_PER_MS);
    }
    close_world(&w);
}

static void first_probe_decides(void **state)
{
    (void)state;
    struct health_score s;
    health_score_init(&s, 3, 2, true);
    assert_false(health_score_count(&s, false));
    assert_false(health_score_count(&s, true));
    assert_true(health_score_count(&s, true));
}

static void fall_and_rise_in_a_row(void **state)
{
    (void)state;
    struct health_score s;
    health_score_init(&s, 3, 2, true);
    assert_true(health_score_count(&s, true));
    assert_true(health_score_count(&s, false));
    assert_true(health_score_count(&s, false));
    assert_true(health_score_count(&s, true)); /* the row is broken */
    assert_true(health_score_count(&s, false));
    assert_true(health_score_count(&s, false));
    assert_false(health_score_count(&s, false));
    assert_false(health_score_count(&s, true));
    assert_false(health_score_count(&s, false));
    assert_false(health_score_count(&s, true));
    assert_true(health_score_count(&s, true));
}

/* Against a model that counts the rows. */
static void health_follows_its_model(void **state)
{
    (void)state;
    uint64_t seed = 42;
    for (unsigned fall = 1; fall <= 4; fall++) {
        for (unsigned rise = 1; rise <= 4; rise++) {
            struct health_score s;
            health_score_init(&s, fall, rise, true);
            bool up = true, first = true;
            unsigned row = 0, last = 2;
            for (int i = 0; i < 2000; i++) {
                seed = seed * 6364136223846793005u + 1442695040888963407u;
                unsigned ok = (unsigned)(seed >> 63);
                row = ok == last ? row + 1 : 1;
                last = ok;
                if (up && !ok && (first || row >= fall))
                    up = false;
                else if (!up && ok && row >= rise)
                    up = true;
                first = false;
                assert_int_equal(health_score_count(&s, ok), up);
            }
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equal_weights_rotate),
        cmocka_unit_test(weights_are_smooth),
        cmocka_unit_test(shares_are_exact),
        cmocka_unit_test(down_ones_are_passed_over),
        cmocka_unit_test(backup_only_when_no_other),
        cmocka_unit_test(tried_ones_come_last),
        cmocka_unit_test(failures_in_a_row_eject),
        cmocka_unit_test(ejections_double_and_end),
        cmocka_unit_test(the_last_one_is_never_ejected),
        cmocka_unit_test(our_own_want_is_no_failure),
        cmocka_unit_test(a_probe_that_could_not_be_made_is_made_up_for),
        cmocka_unit_test(first_probe_decides),
        cmocka_unit_test(fall_and_rise_in_a_row),
        cmocka_unit_test(health_follows_its_model),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
