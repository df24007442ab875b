/* A reload of the set: what stays is untouched, what goes drains, and what cannot be had changes nothing. */
#include "base/clock.h"
#include "base/mem.h"
#include "upstream/backend.h"
#include "upstream/health.h"
#include "upstream/upstream.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

struct world {
    struct loop *loop;
    struct upstream *upstream;
};

/* As a request that has begun there just now. */
static struct place place_at(const struct backend *be)
{
    return (struct place){.epoch = be->passive.epoch, .on_trial = be->passive.on_trial};
}

static void leave(struct backend *be)
{
    struct place p = place_at(be);
    backend_leave(be, &p);
}

static void fail_at(struct backend *be)
{
    struct place p = place_at(be);
    backend_failed(be, &p, "test");
}

#define A "{\"address\":\"127.0.0.1:1\"}"
#define B "{\"address\":\"127.0.0.1:2\"}"
#define C "{\"address\":\"127.0.0.1:3\"}"

static struct config *config_of(const char *backends, const char *more)
{
    char text[1024];
    int n = snprintf(text, sizeof text, "{\"backends\":[%s],%s}", backends, more ? more : "\"health_check\":null");
    struct buf errors = BUF_INIT;
    struct config *c = config_parse(str_make(text, (size_t)n), "test", NULL, &errors);
    assert_non_null(c);
    buf_fini(&errors);
    return c;
}

static void open_world(struct world *w, const char *backends, const char *more)
{
    struct config *config = config_of(backends, more);
    w->loop = loop_new();
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

static struct upstream_tally change(struct world *w, const char *backends, const char *more)
{
    struct config *config = config_of(backends, more);
    struct upstream_change *c = upstream_stage(w->upstream, config, NULL);
    assert_non_null(c);
    config_put(config);
    return upstream_commit(c);
}

static const struct pick nobody_tried;

static struct backend *take(struct world *w, const struct pick *p)
{
    bool full;
    struct place place;
    return upstream_pick(w->upstream, p, &place, &full);
}

/* The port of the backend whose turn it is. */
static int next(struct world *w)
{
    struct backend *be = take(w, &nobody_tried);
    if (!be)
        return 0;
    int port = be->config->endpoint.port;
    leave(be);
    return port;
}

static void tallies(void **state)
{
    (void)state;
    struct world w;
    open_world(&w, A "," B, NULL);
    struct upstream_tally t = change(&w, B "," C, NULL);
    assert_int_equal(t.added, 1);
    assert_int_equal(t.removed, 1);
    assert_int_equal(t.kept, 1);
    assert_int_equal(upstream_count(w.upstream), 2);
    close_world(&w);
}

static void rotation_goes_on(void **state)
{
    (void)state;
    struct world w;
    open_world(&w, A "," B "," C, NULL);
    for (int i = 0; i < 30; i++) {
        assert_int_equal(next(&w), i % 3 + 1);
        change(&w, A "," B "," C, i % 2 ? "\"health_check\":null,\"slow_start\":\"1s\"" : NULL);
    }
    /* The next one is removed: its successor's turn. */
    change(&w, B "," C, NULL);
    assert_int_equal(next(&w), 2);
    assert_int_equal(next(&w), 3);
    close_world(&w);
}

static void smooth_turns_go_on(void **state)
{
    (void)state;
#define WEIGHTED                                                                                                       \
    "{\"address\":\"127.0.0.1:1\",\"weight\":3},{\"address\":\"127.0.0.1:2\",\"weight\":2},"                           \
    "{\"address\":\"127.0.0.1:3\",\"weight\":1}"
    struct world w;
    static const int round[] = {1, 2, 1, 3, 2, 1};
    open_world(&w, WEIGHTED, NULL);
    for (int i = 0; i < 60; i++) {
        assert_int_equal(next(&w), round[i % 6]);
        change(&w, WEIGHTED, NULL);
    }
    close_world(&w);
}

/* Who has just had a turn among great weights does not owe as much among small ones, whether they are small because a
 * reload made them so or because the great one is down or removed. */
static void no_debt_outlasts_its_weights(void **state)
{
    (void)state;
#define OF_TWO "{\"address\":\"127.0.0.1:2\",\"weight\":2}," C
#define GREAT  "{\"address\":\"127.0.0.1:1\",\"weight\":250}," OF_TWO
    for (int how = 0; how < 3; how++) {
        struct world w;
        int got[4] = {0};
        open_world(&w, GREAT, NULL);
        while (next(&w) != 2)
            ;
        if (how == 0)
            change(&w, A "," OF_TWO, NULL);
        else if (how == 1)
            change(&w, OF_TWO, NULL);
        else
            backend_set_up(upstream_backend(w.upstream, 0), false, "test");
        for (int i = 0; i < 12; i++)
            got[next(&w)]++;
        assert_in_range(got[2], how == 0 ? 5 : 7, how == 0 ? 7 : 9);
        assert_in_range(got[3], how == 0 ? 2 : 3, how == 0 ? 4 : 5);
        close_world(&w);
    }
}

static void weight_and_room_act_at_once(void **state)
{
    (void)state;
    struct world w;
    int got[3] = {0};
    bool full;
    struct place place;
    open_world(&w, A "," B, NULL);
    change(&w, "{\"address\":\"127.0.0.1:1\",\"weight\":9}," B, NULL);
    for (int i = 0; i < 100; i++)
        got[next(&w)]++;
    assert_int_equal(got[1], 90);
    change(&w, "{\"address\":\"127.0.0.1:1\",\"max_connections\":1}", NULL);
    struct backend *be = take(&w, &nobody_tried);
    assert_null(upstream_pick(w.upstream, &nobody_tried, &place, &full));
    assert_true(full);
    change(&w, "{\"address\":\"127.0.0.1:1\",\"max_connections\":2}", NULL);
    assert_ptr_equal(take(&w, &nobody_tried), be);
    assert_int_equal(be->active, 2);
    leave(be);
    leave(be);
    close_world(&w);
}

static void keep_time_stays(void **state)
{
    (void)state;
    struct world w;
    open_world(&w, A "," B, NULL);
    struct backend *be = upstream_backend(w.upstream, 0);
    be->keep.bound = 5 * NS_PER_S;
    be->keep.since = loop_now(w.loop);
    change(&w, B ",{\"address\":\"127.0.0.1:1\",\"weight\":9}", "\"timeouts\":{\"backend_idle\":\"7s\"}");
    assert_ptr_equal(upstream_backend(w.upstream, 1), be);
    assert_int_equal(be->keep.bound, 5 * NS_PER_S);
    close_world(&w);
}

/* What comes back may be another server at the same address. */
static void keep_time_ends_with_an_outage(void **state)
{
    (void)state;
    struct world w;
    struct pool_known known = {.bound = 5 * NS_PER_S};
    open_world(&w, A "," B, NULL);
    struct backend *be = upstream_backend(w.upstream, 0);
    pool_take(be, &known);
    assert_true(pool_tell(be, &known));
    backend_set_up(be, false, "test");
    backend_set_up(be, true, "test");
    assert_false(pool_tell(be, &known));
    close_world(&w);
}

/* For hashing a backend is its name: who is renamed hands its keys over with it. */
static void keys_follow_the_name(void **state)
{
    (void)state;
#define NAMED(a, b) "{\"address\":\"127.0.0.1:1\",\"name\":\"" a "\"},{\"address\":\"127.0.0.1:2\",\"name\":\"" b "\"}"
#define HASHING     "\"health_check\":null,\"balance\":\"hash\",\"hash_key\":\"ip\""
    struct world w;
    int before[20], got[3] = {0};
    open_world(&w, NAMED("x", "y"), HASHING);
    for (int after = 0; after < 2; after++) {
        for (unsigned i = 0; i < 20; i++) {
            struct pick p = {.keyed = true, .key = upstream_hash(str_make((const char *)&i, sizeof i))};
            struct backend *be = take(&w, &p);
            int port = be->config->endpoint.port;
            leave(be);
            if (after)
                assert_int_equal(port, 3 - before[i]);
            else
                got[before[i] = port]++;
        }
        change(&w, NAMED("y", "x"), HASHING);
    }
    assert_true(got[1] > 0 && got[2] > 0);
    close_world(&w);
}

/* Responses may have as many fields as the new limit says. */
static void room_for_fields_grows(void **state)
{
    (void)state;
    struct world w;
    open_world(&w, A, NULL);
    assert_int_equal(w.upstream->field_room, 100);
    change(&w, A, "\"health_check\":null,\"limits\":{\"header_fields\":500}");
    assert_int_equal(w.upstream->field_room, 500);
    close_world(&w);
}

/* The next step of a slow start is due by the new one, not when it would have been by the old. */
static void a_slow_start_is_hastened(void **state)
{
    (void)state;
    struct world w;
    int got[3] = {0};
    open_world(&w, A "," B, "\"health_check\":null,\"slow_start\":\"1h\"");
    backend_set_up(upstream_backend(w.upstream, 0), false, "test");
    loop_turn(w.loop, 0);
    backend_set_up(upstream_backend(w.upstream, 0), true, "test");
    for (int i = 0; i < 11; i++)
        got[next(&w)]++;
    assert_int_equal(got[1], 1);
    change(&w, A "," B, "\"health_check\":null,\"slow_start\":\"300ms\"");
    for (uint64_t end = loop_now(w.loop) + 310 * NS_PER_MS; loop_now(w.loop) < end;)
        loop_turn(w.loop, 10 * NS_PER_MS);
    got[1] = got[2] = 0;
    for (int i = 0; i < 20; i++)
        got[next(&w)]++;
    assert_int_equal(got[1], 10);
    close_world(&w);
}

static void removed_ones_drain(void **state)
{
    (void)state;
    struct world w;
    open_world(&w, A "," B, NULL);
    struct backend *be = backend_get(take(&w, &nobody_tried));
    change(&w, B, NULL);
    assert_true(be->removed);
    for (int i = 0; i < 4; i++)
        assert_int_equal(next(&w), 2);
    for (int i = 0; i < 20; i++)
        fail_at(be); /* must not begin anything */
    assert_false(be->ejected);
    assert_int_equal(be->config->endpoint.port, 1);
    assert_int_equal(be->active, 1);

    /* The same address again is another backend, with nothing of the old one's. */
    change(&w, A "," B, NULL);
    assert_ptr_not_equal(upstream_backend(w.upstream, 0), be);
    assert_int_equal(upstream_backend(w.upstream, 0)->active, 0);
    leave(be);
    backend_put(be);
    close_world(&w);
}

/* What is to be said at the end of one that is removed waits for its last request, or for the stop; here the loop or
 * the set ends at each point of that. */
static void the_end_of_removed_ones(void **state)
{
    (void)state;
    for (int i = 0; i < 4; i++) {
        struct world w;
        open_world(&w, A "," B, NULL);
        struct backend *be = backend_get(take(&w, &nobody_tried));
        change(&w, B, NULL);
        assert_false(list_empty(&w.upstream->ending));
        if (i == 1)
            upstream_log_totals(w.upstream);
        assert_int_equal(list_empty(&w.upstream->ending), i == 1);
        leave(be);
        backend_put(be);
        if (i == 2)
            loop_turn(w.loop, 0);
        if (i == 3)
            upstream_log_totals(w.upstream);
        assert_int_equal(list_empty(&w.upstream->ending), i > 0);
        if (i > 0)
            loop_turn(w.loop, 0);
        close_world(&w);
    }
}

/* A request remembers whom it has tried: somebody new is never taken for a removed one. */
static void a_new_one_was_not_tried(void **state)
{
    (void)state;
    struct world w;
    open_world(&w, A "," B, NULL);
    for (int i = 0; i < 100; i++) {
        struct pick p = {0};
        p.tried[p.tried_count++] = backend_get(upstream_backend(w.upstream, 0));
        change(&w, i % 2 ? A "," B : C "," B, NULL);
        struct backend *be = upstream_backend(w.upstream, 0);
        assert_ptr_not_equal(p.tried[0], be);
        p.tried[p.tried_count++] = backend_get(upstream_backend(w.upstream, 1));
        assert_ptr_equal(take(&w, &p), be);
        leave(be);
        while (p.tried_count > 0)
            backend_put(p.tried[--p.tried_count]);
    }
    close_world(&w);
}

static void health_is_kept(void **state)
{
    (void)state;
    struct world w;
    open_world(&w, A "," B, "\"health_check\":{\"interval\":\"1h\"}");
    backend_set_up(upstream_backend(w.upstream, 0), false, "test");
    change(&w, B "," A, "\"health_check\":{\"interval\":\"2h\",\"fall\":9}");
    assert_false(backend_is_available(upstream_backend(w.upstream, 1)));
    assert_true(backend_is_available(upstream_backend(w.upstream, 0)));
    change(&w, A "," B, NULL);
    assert_true(backend_is_available(upstream_backend(w.upstream, 0)));
    change(&w, A "," B, "\"health_check\":{\"interval\":\"1h\"}");
    assert_non_null(upstream_backend(w.upstream, 0)->health);
    close_world(&w);
}

static void ejections_are_kept(void **state)
{
    (void)state;
#define PASSIVE "\"health_check\":null,\"passive_check\":{\"failures\":2,\"ejection\":\"1h\",\"max_ejection\":\"1h\"}"
    struct world w;
    open_world(&w, A "," B, PASSIVE);
    struct backend *a = upstream_backend(w.upstream, 0);
    fail_at(a);
    change(&w, A "," B, PASSIVE);
    fail_at(a);
    assert_false(backend_is_available(a));
    change(&w, A "," B, PASSIVE);
    assert_false(backend_is_available(a));
    change(&w, A "," B, "\"health_check\":null,\"passive_check\":null");
    assert_true(backend_is_available(a));
    close_world(&w);
}

static void rolling_back_changes_nothing(void **state)
{
    (void)state;
    struct world w;
    open_world(&w, A "," B, NULL);
    assert_int_equal(next(&w), 1);
    struct config *config = config_of(C, "\"limits\":{\"header_fields\":500}");
    struct upstream_change *c = upstream_stage(w.upstream, config, NULL);
    assert_non_null(c);
    config_put(config);
    upstream_rollback(c);
    assert_int_equal(upstream_count(w.upstream), 2);
    assert_int_equal(next(&w), 2);
    assert_int_equal(next(&w), 1);
    loop_turn(w.loop, 0);
    close_world(&w);
}

static void scores_are_carried_over(void **state)
{
    (void)state;
    struct health_score s;
    health_score_init(&s, 3, 2, true);
    health_score_count(&s, true);
    health_score_count(&s, false);
    health_score_change(&s, 5, 4); /* one failure of five */
    for (int i = 0; i < 3; i++)
        assert_true(health_score_count(&s, false));
    assert_false(health_score_count(&s, false));
    health_score_count(&s, true);
    health_score_change(&s, 1, 2);
    assert_true(health_score_count(&s, true));
    health_score_change(&s, 4, 1);
    for (int i = 0; i < 3; i++)
        assert_true(health_score_count(&s, false));
    health_score_change(&s, 2, 1); /* three failures are more than take it down: the next one does */
    assert_false(health_score_count(&s, false));
    health_score_change(&s, 1, 5);
    health_score_change(&s, 1, 1);
    assert_true(health_score_count(&s, true));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tallies),
        cmocka_unit_test(rotation_goes_on),
        cmocka_unit_test(smooth_turns_go_on),
        cmocka_unit_test(no_debt_outlasts_its_weights),
        cmocka_unit_test(weight_and_room_act_at_once),
        cmocka_unit_test(keep_time_stays),
        cmocka_unit_test(keep_time_ends_with_an_outage),
        cmocka_unit_test(keys_follow_the_name),
        cmocka_unit_test(room_for_fields_grows),
        cmocka_unit_test(a_slow_start_is_hastened),
        cmocka_unit_test(removed_ones_drain),
        cmocka_unit_test(the_end_of_removed_ones),
        cmocka_unit_test(a_new_one_was_not_tried),
        cmocka_unit_test(health_is_kept),
        cmocka_unit_test(ejections_are_kept),
        cmocka_unit_test(rolling_back_changes_nothing),
        cmocka_unit_test(scores_are_carried_over),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
