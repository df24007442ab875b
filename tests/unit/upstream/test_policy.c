/* The policies: what each chooses, also while backends go and come, and how even it is; the caps of backends and the
 * queue behind them; slow start; the one request at a time of a backend on trial. */
#include "base/clock.h"
#include "base/mem.h"
#include "upstream/backend.h"
#include "upstream/upstream.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define KEYS 20000

struct world {
    struct loop *loop;
    struct config *config;
    struct upstream *upstream;
};

/* As a request that has begun there just now. */
static struct place place_at(const struct backend *be)
{
    return (struct place){
        .epoch = be->passive.epoch, .answers = be->passive.answers, .on_trial = be->passive.on_trial || be->ejected};
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

/* `count` backends with `member` each ("" for none), and `more` members of the config. */
static void open_world(struct world *w, unsigned count, const char *member, const char *more)
{
    struct buf text = BUF_INIT, errors = BUF_INIT;
    assert_true(buf_printf(&text, "{\"health_check\":null,%s\"backends\":[", more));
    for (unsigned i = 0; i < count; i++)
        assert_true(buf_printf(&text, "%s{\"address\":\"127.0.0.1:%u\"%s}", i ? "," : "", i + 1, member));
    assert_true(buf_printf(&text, "]}"));
    w->config = config_parse(buf_str(&text), "test", NULL, &errors);
    if (!w->config)
        fail_msg("%.*s", STR_ARG(buf_str(&errors)));
    buf_fini(&text);
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

static struct backend *at(struct world *w, unsigned i)
{
    return upstream_backend(w->upstream, i);
}

static unsigned index_of(struct world *w, const struct backend *be)
{
    for (unsigned i = 0; i < upstream_count(w->upstream); i++)
        if (at(w, i) == be)
            return i;
    fail_msg("no backend of this world");
    return 0;
}

/* Takes a place, and keeps it. */
static unsigned take(struct world *w, const struct pick *p)
{
    bool full;
    struct place place;
    struct backend *be = upstream_pick(w->upstream, p, &place, &full);
    assert_non_null(be);
    return index_of(w, be);
}

static unsigned choose(struct world *w, const struct pick *p)
{
    unsigned i = take(w, p);
    leave(at(w, i));
    return i;
}

static void leave_all(struct world *w)
{
    for (unsigned i = 0; i < upstream_count(w->upstream); i++)
        while (at(w, i)->active > 0)
            leave(at(w, i));
}

static const struct pick fresh;

/* ---- round robin ---- */

static void a_thousand_take_turns(void **state)
{
    (void)state;
    struct world w;
    open_world(&w, 1000, "", "");
    for (unsigned i = 0; i < 3000; i++)
        assert_int_equal(choose(&w, &fresh), i % 1000);
    close_world(&w);
}

static void the_rest_goes_on_taking_turns(void **state)
{
    (void)state;
    struct world w;
    open_world(&w, 5, "", "");
    for (int round = 0; round < 50; round++) {
        unsigned down = (unsigned)round % 5, got[5] = {0};
        backend_set_up(at(&w, down), false, "test");
        for (int i = 0; i < 40; i++)
            got[choose(&w, &fresh)]++;
        for (unsigned i = 0; i < 5; i++)
            assert_int_equal(got[i], i == down ? 0 : 10);
        backend_set_up(at(&w, down), true, "test");
    }
    close_world(&w);
}

/* ---- least connections ---- */

static void the_least_busy_is_chosen(void **state)
{
    (void)state;
    struct world w;
    open_world(&w, 3, "", "\"balance\":\"least_conn\",");
    for (unsigned i = 0; i < 6; i++)
        assert_int_equal(take(&w, &fresh), i % 3); /* among equals in turn */
    leave(at(&w, 1));
    assert_int_equal(take(&w, &fresh), 1);
    leave(at(&w, 2));
    leave(at(&w, 2));
    assert_int_equal(take(&w, &fresh), 2);
    assert_int_equal(take(&w, &fresh), 2);
    backend_set_up(at(&w, 0), false, "test");
    for (int i = 0; i < 10; i++)
        assert_int_not_equal(take(&w, &fresh), 0);
    assert_int_equal(at(&w, 1)->active, 7);
    assert_int_equal(at(&w, 2)->active, 7);
    leave_all(&w);
    close_world(&w);
}

static void least_conn_goes_by_weight(void **state)
{
    (void)state;
    struct world w;
    struct buf errors = BUF_INIT;
    w.config = config_parse(STR("{\"health_check\":null,\"balance\":\"least_conn\",\"backends\":["
                                "{\"address\":\"127.0.0.1:1\",\"weight\":3},{\"address\":\"127.0.0.1:2\",\"weight\":2},"
                                "{\"address\":\"127.0.0.1:3\"}]}"),
                            "test", NULL, &errors);
    w.loop = loop_new();
    w.upstream = upstream_new(w.loop, w.config);
    for (int i = 0; i < 600; i++)
        take(&w, &fresh);
    assert_in_range(at(&w, 0)->active, 299, 301);
    assert_in_range(at(&w, 1)->active, 199, 201);
    assert_in_range(at(&w, 2)->active, 99, 101);
    leave_all(&w);
    close_world(&w);
}

/* ---- the better of two ---- */

static void random_two_is_even(void **state)
{
    (void)state;
    struct world w;
    unsigned got[4] = {0};
    open_world(&w, 4, "", "\"balance\":\"random_two\",");
    for (int i = 0; i < 40000; i++)
        got[choose(&w, &fresh)]++;
    for (int i = 0; i < 4; i++) /* a standard deviation is 87 */
        assert_in_range(got[i], 9400, 10600);
    for (int i = 0; i < 4000; i++)
        take(&w, &fresh);
    for (unsigned i = 0; i < 4; i++) /* kept places: nobody strays far from the others */
        assert_in_range(at(&w, i)->active, 980, 1020);
    leave_all(&w);
    close_world(&w);
}

/* Also while nobody is busy: the draw itself goes by weight, and who is as busy as the other has no second advantage.
 */
static void random_two_goes_by_weight(void **state)
{
    (void)state;
    struct buf errors = BUF_INIT;
    struct world w = {.loop = loop_new()};
    unsigned got[2] = {0};
    w.config = config_parse(STR("{\"health_check\":null,\"balance\":\"random_two\",\"backends\":["
                                "{\"address\":\"127.0.0.1:1\",\"weight\":3},{\"address\":\"127.0.0.1:2\"}]}"),
                            "test", NULL, &errors);
    w.upstream = upstream_new(w.loop, w.config);
    for (int i = 0; i < 40000; i++)
        got[choose(&w, &fresh)]++;
    assert_in_range(got[1], 9400, 10600); /* a standard deviation is 87 */
    for (int i = 0; i < 400; i++)
        take(&w, &fresh);
    assert_in_range(at(&w, 1)->active, 98, 102);
    leave_all(&w);
    close_world(&w);
}

static void random_two_avoids_the_busiest(void **state)
{
    (void)state;
    struct world w;
    open_world(&w, 3, "", "\"balance\":\"random_two\",");
    for (int i = 0; i < 100; i++)
        at(&w, 1)->active++;
    for (int i = 0; i < 100000; i++) /* one of two different ones is always another */
        assert_int_not_equal(choose(&w, &fresh), 1);
    backend_set_up(at(&w, 0), false, "test");
    backend_set_up(at(&w, 2), false, "test");
    assert_int_equal(choose(&w, &fresh), 1);
    leave_all(&w);
    close_world(&w);
}

/* ---- hash ---- */

static struct pick key_pick(unsigned i)
{
    char text[32];
    int n = snprintf(text, sizeof text, "user-%u", i);
    return (struct pick){.keyed = true, .key = upstream_hash(str_make(text, (size_t)n))};
}

static void map_keys(struct world *w, unsigned *map)
{
    for (unsigned i = 0; i < KEYS; i++) {
        struct pick p = key_pick(i);
        map[i] = choose(w, &p);
    }
}

#define HASHING "\"balance\":\"hash\",\"hash_key\":\"ip\","

static void a_backend_takes_only_its_own_keys_along(void **state)
{
    (void)state;
    static unsigned before[KEYS], after[KEYS], again[KEYS];
    struct world w;
    unsigned got[10] = {0};
    open_world(&w, 10, "", HASHING);
    map_keys(&w, before);
    for (unsigned i = 0; i < KEYS; i++)
        got[before[i]]++;
    for (int b = 0; b < 10; b++) /* a standard deviation is 42 */
        assert_in_range(got[b], 1800, 2200);
    backend_set_up(at(&w, 3), false, "test");
    map_keys(&w, after);
    memset(got, 0, sizeof got);
    for (unsigned i = 0; i < KEYS; i++) {
        if (before[i] == 3)
            got[after[i]]++;
        else
            assert_int_equal(before[i], after[i]);
    }
    assert_int_equal(got[3], 0);
    for (int b = 0; b < 10; b++) /* ... and they go to all others alike; a standard deviation is 14 */
        assert_in_range(b == 3 ? 222 : got[b], 150, 290);
    backend_set_up(at(&w, 3), true, "test");
    map_keys(&w, again);
    assert_memory_equal(before, again, sizeof before);
    close_world(&w);
}

/* The same in a process that knows the backends in another order, and one fewer: by name, not by place. */
static void balancers_agree(void **state)
{
    (void)state;
    static const char *const texts[] = {"{\"health_check\":null," HASHING "\"backends\":[{\"address\":\"127.0.0.1:1\"},"
                                        "{\"address\":\"127.0.0.1:2\"},{\"address\":\"127.0.0.1:3\"}]}",
                                        "{\"health_check\":null," HASHING "\"backends\":[{\"address\":\"127.0.0.1:3\"},"
                                        "{\"address\":\"127.0.0.1:1\"}]}"};
    static unsigned map[2][KEYS];
    for (int i = 0; i < 2; i++) {
        struct buf errors = BUF_INIT;
        struct world w = {.config = config_parse(str_of(texts[i]), "test", NULL, &errors), .loop = loop_new()};
        w.upstream = upstream_new(w.loop, w.config);
        map_keys(&w, map[i]);
        close_world(&w);
    }
    for (unsigned i = 0; i < KEYS; i++)
        if (map[0][i] != 1)
            assert_int_equal(map[1][i], map[0][i] == 2 ? 0 : 1);
}

static void hash_goes_by_weight(void **state)
{
    (void)state;
    static unsigned map[KEYS];
    struct buf errors = BUF_INIT;
    struct world w = {.loop = loop_new()};
    w.config = config_parse(STR("{\"health_check\":null," HASHING "\"backends\":["
                                "{\"address\":\"127.0.0.1:1\",\"weight\":5},{\"address\":\"127.0.0.1:2\",\"weight\":4},"
                                "{\"address\":\"127.0.0.1:3\"}]}"),
                            "test", NULL, &errors);
    w.upstream = upstream_new(w.loop, w.config);
    unsigned got[3] = {0};
    map_keys(&w, map);
    for (unsigned i = 0; i < KEYS; i++)
        got[map[i]]++;
    assert_in_range(got[0], 9600, 10400);
    assert_in_range(got[1], 7600, 8400);
    assert_in_range(got[2], 1800, 2200);
    close_world(&w);
}

static void one_key_does_not_overload_its_backend(void **state)
{
    (void)state;
    struct world w;
    open_world(&w, 4, "", HASHING);
    struct pick p = key_pick(7);
    for (unsigned i = 1; i <= 400; i++) {
        take(&w, &p);
        for (unsigned b = 0; b < 4; b++)
            assert_true(at(&w, b)->active <= (5 * i + 15) / 16); /* 1.25 of a fourth, rounded up */
    }
    leave_all(&w);
    unsigned home = choose(&w, &p);
    for (int i = 0; i < 100; i++)
        assert_int_equal(choose(&w, &p), home); /* idle, it is always the same */
    close_world(&w);
}

static void without_a_key_it_goes_round(void **state)
{
    (void)state;
    struct world w;
    open_world(&w, 3, "", HASHING);
    for (unsigned i = 0; i < 9; i++)
        assert_int_equal(choose(&w, &fresh), i % 3);
    close_world(&w);
}

/* ---- all of them ---- */

static const char *const balances[] = {"\"balance\":\"round_robin\",", "\"balance\":\"least_conn\",",
                                       "\"balance\":\"random_two\",", HASHING};

static void none_chooses_who_has_no_room(void **state)
{
    (void)state;
    for (int k = 0; k < 4; k++) {
        struct world w;
        bool full;
        struct place place;
        open_world(&w, 3, ",\"max_connections\":2", balances[k]);
        struct pick p = key_pick(1);
        for (int i = 0; i < 6; i++)
            take(&w, &p);
        for (unsigned i = 0; i < 3; i++)
            assert_int_equal(at(&w, i)->active, 2);
        assert_null(upstream_pick(w.upstream, &p, &place, &full));
        assert_true(full);
        leave(at(&w, 1));
        assert_int_equal(take(&w, &p), 1);
        for (unsigned i = 0; i < 3; i++)
            backend_set_up(at(&w, i), false, "test");
        assert_null(upstream_pick(w.upstream, &p, &place, &full));
        assert_false(full);
        leave_all(&w);
        close_world(&w);
    }
}

static void none_chooses_who_was_tried(void **state)
{
    (void)state;
    for (int k = 0; k < 4; k++) {
        struct world w;
        open_world(&w, 3, "", balances[k]);
        struct pick p = key_pick(1);
        for (unsigned i = 0; i < 3; i++) {
            unsigned got = choose(&w, &p);
            for (unsigned j = 0; j < p.tried_count; j++)
                assert_ptr_not_equal(p.tried[j], at(&w, got));
            p.tried[p.tried_count++] = at(&w, got);
        }
        choose(&w, &p); /* all were tried: any */
        close_world(&w);
    }
}

/* ---- the queue ---- */

struct request {
    struct waiter waiter;
    struct backend *got;
    enum err e;
    int told, order;
};

static int orders;

static void on_wait_over(struct waiter *waiter, struct backend *be, enum err e)
{
    struct request *r = container_of(waiter, struct request, waiter);
    r->got = be;
    r->e = e;
    r->told++;
    r->order = orders++;
}

static void wait_in(struct world *w, struct request *r)
{
    bool full;
    struct place place;
    memset(r, 0, sizeof *r);
    waiter_init(&r->waiter, &fresh, on_wait_over);
    assert_null(upstream_pick(w->upstream, &fresh, &place, &full));
    assert_true(full);
    assert_true(upstream_wait(w->upstream, &r->waiter));
}

static void first_come_first_served(void **state)
{
    (void)state;
    struct world w;
    struct request r[3];
    open_world(&w, 2, ",\"max_connections\":1", "\"queue\":{\"size\":3},");
    take(&w, &fresh);
    take(&w, &fresh);
    for (int i = 0; i < 3; i++)
        wait_in(&w, &r[i]);
    assert_int_equal(upstream_waiting(w.upstream), 3);
    struct request more = {0};
    waiter_init(&more.waiter, &fresh, on_wait_over);
    assert_false(upstream_wait(w.upstream, &more.waiter)); /* the queue is full */
    orders = 0;
    for (int i = 0; i < 3; i++) {
        leave(at(&w, 1));
        bool full;
        struct place place;
        assert_null(
            upstream_pick(w.upstream, &fresh, &place, &full)); /* who comes now does not get past those who wait */
        assert_int_equal(r[i].told, 0);                        /* never from inside backend_leave() */
        loop_turn(w.loop, 0);
        assert_int_equal(r[i].told, 1);
        assert_int_equal(r[i].order, i);
        assert_ptr_equal(r[i].got, at(&w, 1));
    }
    assert_int_equal(upstream_waiting(w.upstream), 0);
    leave_all(&w);
    close_world(&w);
}

/* The place was left before the time was over, though the turn came late. */
static void a_place_in_time_is_taken(void **state)
{
    (void)state;
    struct world w;
    struct request r[2];
    open_world(&w, 1, ",\"max_connections\":1", "\"queue\":{\"timeout\":\"10ms\"},");
    take(&w, &fresh);
    wait_in(&w, &r[0]);
    wait_in(&w, &r[1]);
    leave(at(&w, 0));
    while (clock_monotonic() <= r[1].waiter.deadline.deadline)
        ;
    while (r[1].told == 0)
        loop_turn(w.loop, NS_PER_MS);
    assert_int_equal(r[0].told, 1);
    assert_ptr_equal(r[0].got, at(&w, 0));
    assert_int_equal(r[1].told, 1);
    assert_null(r[1].got);
    assert_int_equal(upstream_waiting(w.upstream), 0);
    leave_all(&w);
    close_world(&w);
}

static void who_goes_leaves_the_queue(void **state)
{
    (void)state;
    struct world w;
    struct request a, b;
    open_world(&w, 1, ",\"max_connections\":1", "");
    take(&w, &fresh);
    wait_in(&w, &a);
    wait_in(&w, &b);
    upstream_unwait(&a.waiter);
    upstream_unwait(&a.waiter); /* harmless */
    leave(at(&w, 0));
    loop_turn(w.loop, 0);
    assert_int_equal(a.told, 0);
    assert_ptr_equal(b.got, at(&w, 0));
    leave_all(&w);
    close_world(&w);
}

static void waiting_has_an_end(void **state)
{
    (void)state;
    struct world w;
    struct request r;
    open_world(&w, 1, ",\"max_connections\":1", "\"queue\":{\"timeout\":\"20ms\"},");
    take(&w, &fresh);
    uint64_t begin = loop_now(w.loop);
    wait_in(&w, &r);
    while (r.told == 0) {
        assert_true(clock_monotonic() < begin + 5 * NS_PER_S);
        loop_turn(w.loop, 10 * NS_PER_MS);
    }
    assert_true(clock_monotonic() >= begin + 20 * NS_PER_MS);
    assert_null(r.got);
    assert_int_equal(r.e, ERR_QUEUE_TIMEOUT);
    leave_all(&w);
    close_world(&w);
}

static void nobody_waits_for_what_is_down(void **state)
{
    (void)state;
    struct world w;
    struct request r;
    open_world(&w, 2, ",\"max_connections\":1", "");
    backend_set_up(at(&w, 1), false, "test");
    take(&w, &fresh);
    wait_in(&w, &r);
    backend_set_up(at(&w, 1), true, "test"); /* one that returns serves those who wait */
    loop_turn(w.loop, 0);
    assert_ptr_equal(r.got, at(&w, 1));
    wait_in(&w, &r);
    backend_set_up(at(&w, 0), false, "test");
    loop_turn(w.loop, 0);
    assert_int_equal(r.told, 0); /* the other one may still get free */
    backend_set_up(at(&w, 1), false, "test");
    loop_turn(w.loop, 0);
    assert_int_equal(r.told, 1);
    assert_null(r.got);
    assert_int_equal(r.e, ERR_NO_BACKEND);
    leave_all(&w);
    close_world(&w);
}

static void without_a_queue_nobody_waits(void **state)
{
    (void)state;
    struct world w;
    struct waiter waiter;
    open_world(&w, 1, ",\"max_connections\":1", "\"queue\":{\"size\":0},");
    take(&w, &fresh);
    waiter_init(&waiter, &fresh, on_wait_over);
    assert_false(upstream_wait(w.upstream, &waiter));
    leave_all(&w);
    close_world(&w);
}

/* ---- the return of a backend ---- */

static unsigned count_of(struct world *w, unsigned i, int n)
{
    unsigned got = 0;
    while (n-- > 0)
        got += choose(w, &fresh) == i;
    return got;
}

static void a_returning_backend_starts_slowly(void **state)
{
    (void)state;
    struct world w;
    open_world(&w, 2, "", "\"slow_start\":\"300ms\",");
    assert_int_equal(count_of(&w, 0, 100), 50); /* not at the balancer's own start */
    backend_set_up(at(&w, 0), false, "test");
    loop_turn(w.loop, 0);
    uint64_t begin = clock_monotonic();
    backend_set_up(at(&w, 0), true, "test");
    assert_in_range(count_of(&w, 0, 1100), 95, 105); /* 10 % against 100 % */
    for (unsigned before = 100, now; (now = count_of(&w, 0, 1000)) < 500; before = now) {
        assert_true(now + 20 >= before); /* it only grows */
        assert_true(clock_monotonic() < begin + 5 * NS_PER_S);
        loop_turn(w.loop, 10 * NS_PER_MS);
    }
    assert_true(loop_now(w.loop) >= begin + 250 * NS_PER_MS);
    assert_int_equal(count_of(&w, 0, 100), 50);
    close_world(&w);
}

static void one_request_at_a_time_on_trial(void **state)
{
    (void)state;
    struct world w;
    open_world(&w, 2, "", "\"passive_check\":{\"failures\":1,\"ejection\":\"10ms\"},");
    fail_at(at(&w, 0));
    assert_false(backend_is_available(at(&w, 0)));
    for (uint64_t end = clock_monotonic() + 5 * NS_PER_S; !backend_is_available(at(&w, 0));) {
        assert_true(clock_monotonic() < end);
        loop_turn(w.loop, 10 * NS_PER_MS);
    }
    unsigned got = 0;
    for (int i = 0; i < 10; i++)
        got += take(&w, &fresh) == 0;
    assert_int_equal(got, 1); /* the trial, and it is still under way */
    succeed(at(&w, 0));
    got = 0;
    for (int i = 0; i < 10; i++)
        got += take(&w, &fresh) == 0;
    assert_int_equal(got, 5);
    leave_all(&w);
    close_world(&w);
}

static void wait_available(struct world *w, unsigned i)
{
    for (uint64_t end = clock_monotonic() + 5 * NS_PER_S; !backend_is_available(at(w, i));) {
        assert_true(clock_monotonic() < end);
        loop_turn(w->loop, 10 * NS_PER_MS);
    }
}

#define TRYING "\"passive_check\":{\"failures\":1,\"ejection\":\"10ms\",\"max_ejection\":\"1m\"},"

/* A client that goes on sending its request, or stalls in it, must not keep a backend on trial from all others. */
static void a_trial_bars_others_for_its_time(void **state)
{
    (void)state;
    struct world w;
    open_world(&w, 2, "", TRYING "\"timeouts\":{\"connect\":\"50ms\",\"backend_response\":\"150ms\"},");
    fail_at(at(&w, 0));
    wait_available(&w, 0);
    for (int round = 0; round < 2; round++) {
        uint64_t begin = loop_now(w.loop);
        unsigned first = 0;
        for (int i = 0; i < 4; i++)
            first += take(&w, &fresh) == 0;
        assert_int_equal(first, 1);
        do { /* the trial is under way */
            unsigned got = 0;
            for (int i = 0; i < 4; i++)
                got += take(&w, &fresh) == 0;
            assert_int_equal(got, 0);
            loop_turn(w.loop, 10 * NS_PER_MS);
        } while (loop_now(w.loop) < begin + 200 * NS_PER_MS);
    }
    assert_int_equal(at(&w, 0)->passive.trials, 2);
    fail_at(at(&w, 0));
    assert_false(backend_is_available(at(&w, 0)));
    leave_all(&w);
    close_world(&w);
}

/* What has been there since before, a tunnel perhaps, is no trial; and an answer ends one, whatever follows. */
static void only_the_trial_is_one(void **state)
{
    (void)state;
    struct world w;
    struct place place;
    bool full;
    open_world(&w, 2, "", TRYING);
    assert_int_equal(take(&w, &fresh), 0); /* stays */
    fail_at(at(&w, 0));
    wait_available(&w, 0);
    unsigned got = 0;
    for (int i = 0; i < 10; i++)
        got += take(&w, &fresh) == 0;
    assert_int_equal(got, 1);
    leave_all(&w);
    at(&w, 0)->passive.trials = 0;
    struct backend *be = NULL;
    while (be != at(&w, 0))
        be = upstream_pick(w.upstream, &fresh, &place, &full);
    assert_true(place.on_trial);
    backend_answered(be, &place);
    got = 0;
    for (int i = 0; i < 10; i++)
        got += take(&w, &fresh) == 0;
    assert_int_equal(got, 5);
    assert_int_equal(be->passive.in_a_row, 0); /* failures is 1: so is what is forgiven */
    leave_all(&w);
    close_world(&w);
}

/* How a request ends that began before an ejection says nothing about the backend behind it. */
static void the_past_does_not_count(void **state)
{
    (void)state;
    struct world w;
    open_world(&w, 2, "", TRYING);
    struct backend *be = at(&w, 0);
    struct place before = place_at(be);
    fail_at(be);
    wait_available(&w, 0);
    uint64_t ejection = be->passive.ejection;
    backend_failed(be, &before, "an old time-out");
    assert_true(backend_is_available(be));
    backend_answered(be, &before);
    backend_succeeded(be, &before);
    assert_true(be->passive.on_trial);
    assert_int_equal(be->passive.ejection, ejection);
    fail_at(be);
    assert_false(backend_is_available(be));
    assert_int_equal(be->passive.ejection, 2 * ejection);
    close_world(&w);
}

/* What has been answered since a place was taken is known, however the place's own request goes. */
static void answers_are_noticed(void **state)
{
    (void)state;
    struct world w;
    open_world(&w, 2, "", TRYING);
    struct backend *be = at(&w, 0);
    struct place early = place_at(be), late;
    assert_false(backend_has_answered_since(be, &early));
    backend_failed(be, &early, "test");
    assert_false(backend_has_answered_since(be, &early));
    wait_available(&w, 0);
    late = place_at(be);
    backend_succeeded(be, &late);
    assert_true(backend_has_answered_since(be, &early));
    late = place_at(be);
    assert_false(backend_has_answered_since(be, &late));
    passive_heard(be);
    assert_true(backend_has_answered_since(be, &late));
    close_world(&w);
}

/* Those who have tried one already wait for the others; who has not may have what those do not want. */
static void newcomers_pass_those_who_wait_for_others(void **state)
{
    (void)state;
    struct world w;
    struct request r = {0};
    struct place place;
    bool full;
    open_world(&w, 2, ",\"max_connections\":1", "\"queue\":{\"size\":1},");
    struct pick tried = {.tried = {at(&w, 0)}, .tried_count = 1};
    assert_int_equal(take(&w, &tried), 1);
    waiter_init(&r.waiter, &tried, on_wait_over);
    assert_null(upstream_pick(w.upstream, &tried, &place, &full));
    assert_true(upstream_wait(w.upstream, &r.waiter));
    assert_int_equal(choose(&w, &fresh), 0); /* idle, and not wanted by the one who waits */
    leave(at(&w, 1));
    loop_turn(w.loop, 0);
    assert_ptr_equal(r.got, at(&w, 1));
    leave_all(&w);
    close_world(&w);
}

/* A trial that has failed gives its place back during the next one: that is not the next one's. */
static void a_place_of_the_last_trial(void **state)
{
    (void)state;
    struct world w;
    struct place place;
    bool full;
    open_world(&w, 2, "", TRYING);
    struct backend *be = at(&w, 0), *got = NULL;
    fail_at(be);
    wait_available(&w, 0);
    while (got != be)
        got = upstream_pick(w.upstream, &fresh, &place, &full);
    assert_true(place.on_trial);
    backend_failed(be, &place, "test");
    wait_available(&w, 0);
    backend_leave(be, &place);
    unsigned trials = 0;
    for (int i = 0; i < 10; i++)
        trials += take(&w, &fresh) == 0;
    assert_int_equal(trials, 1);
    leave_all(&w);
    close_world(&w);
}

#define EJECTING "\"passive_check\":{\"failures\":1,\"ejection\":\"1m\",\"max_ejection\":\"1h\"},"

static struct backend *pick_place(struct world *w, const struct pick *p, struct place *place)
{
    bool full;
    return upstream_pick(w->upstream, p, place, &full);
}

/* All that are available have failed a request: it goes on to one that is ejected, as a trial ahead of time. */
static void an_ejected_one_is_asked_before_the_same_again(void **state)
{
    (void)state;
    struct world w;
    struct place place, again;
    open_world(&w, 2, "", EJECTING);
    struct backend *be = at(&w, 0);
    struct pick tried = {.tried = {at(&w, 1)}, .tried_count = 1};
    fail_at(be);
    assert_int_equal(choose(&w, &fresh), 1);
    assert_ptr_equal(pick_place(&w, &tried, &place), be);
    assert_ptr_equal(pick_place(&w, &tried, &again), at(&w, 1)); /* one at a time */
    backend_leave(at(&w, 1), &again);
    backend_failed(be, &place, "test");
    backend_leave(be, &place);
    assert_true(be->ejected);
    assert_int_equal(be->passive.ejection, 60 * NS_PER_S); /* no longer for that */
    assert_ptr_equal(pick_place(&w, &tried, &place), be);
    backend_answered(be, &place);
    assert_true(backend_is_available(be));
    assert_int_equal(be->passive.ejection, 60 * NS_PER_S); /* a next one is twice as long */
    backend_succeeded(be, &place);
    assert_int_equal(be->passive.ejection, 0);
    backend_leave(be, &place);
    unsigned got = 0;
    for (int i = 0; i < 10; i++)
        got += choose(&w, &fresh) == 0;
    assert_int_equal(got, 5);
    close_world(&w);
}

/* Not one that is down by its checks, nor one whose place would have to be waited for. */
static void not_every_ejected_one_is_asked(void **state)
{
    (void)state;
    struct world w;
    struct place place;
    open_world(&w, 2, ",\"max_connections\":1", EJECTING);
    struct pick tried = {.tried = {at(&w, 1)}, .tried_count = 1};
    assert_ptr_equal(pick_place(&w, &fresh, &place), at(&w, 0));
    fail_at(at(&w, 0));
    assert_int_equal(choose(&w, &tried), 1);
    backend_leave(at(&w, 0), &place);
    assert_int_equal(choose(&w, &tried), 0);
    backend_set_up(at(&w, 0), false, "test");
    assert_int_equal(choose(&w, &tried), 1);
    close_world(&w);
}

/* The ejection ends meanwhile: it is the one trial still, and counts as that. */
static void a_trial_ahead_of_time_becomes_one(void **state)
{
    (void)state;
    struct world w;
    struct place place;
    open_world(&w, 2, "", TRYING);
    struct backend *be = at(&w, 0);
    struct pick tried = {.tried = {at(&w, 1)}, .tried_count = 1};
    fail_at(be);
    assert_ptr_equal(pick_place(&w, &tried, &place), be);
    wait_available(&w, 0);
    for (int i = 0; i < 10; i++)
        assert_int_equal(choose(&w, &fresh), 1);
    backend_failed(be, &place, "test");
    assert_false(backend_is_available(be));
    assert_int_equal(be->passive.ejection, 20 * NS_PER_MS);
    wait_available(&w, 0);
    backend_leave(be, &place);
    assert_int_equal(be->passive.trials, 0);
    close_world(&w);
}

/* Who has tried one already, and waits for another, does not hold up those who take what there is. */
static void who_waits_for_others_holds_nobody_up(void **state)
{
    (void)state;
    struct world w;
    struct request first = {0}, second;
    struct place place;
    bool full;
    open_world(&w, 2, ",\"max_connections\":1", "");
    struct pick tried = {.tried = {at(&w, 0)}, .tried_count = 1};
    take(&w, &fresh);
    take(&w, &fresh);
    waiter_init(&first.waiter, &tried, on_wait_over);
    assert_null(upstream_pick(w.upstream, &tried, &place, &full));
    assert_true(upstream_wait(w.upstream, &first.waiter));
    wait_in(&w, &second);
    leave(at(&w, 0));
    loop_turn(w.loop, 0);
    assert_ptr_equal(second.got, at(&w, 0));
    assert_int_equal(first.told, 0);
    leave(at(&w, 1));
    loop_turn(w.loop, 0);
    assert_ptr_equal(first.got, at(&w, 1));
    leave_all(&w);
    close_world(&w);
}

/* The backend on trial has room, but for the trial alone; once that has an answer, for those who wait, too. */
static void the_end_of_a_trial_serves_the_queue(void **state)
{
    (void)state;
    for (int success = 0; success < 2; success++) { /* a 101 is one before its place is left */
        struct world w;
        struct request r;
        struct place trial, place;
        bool full;
        open_world(&w, 2, ",\"max_connections\":1", TRYING);
        w.config->backends[0].max_connections = 2;
        fail_at(at(&w, 0));
        wait_available(&w, 0);
        struct backend *be = upstream_pick(w.upstream, &fresh, &trial, &full);
        if (be == at(&w, 0))
            assert_int_equal(take(&w, &fresh), 1);
        else
            assert_ptr_equal(upstream_pick(w.upstream, &fresh, &trial, &full), at(&w, 0));
        assert_null(upstream_pick(w.upstream, &fresh, &place, &full));
        wait_in(&w, &r);
        loop_turn(w.loop, 0);
        assert_int_equal(r.told, 0);
        if (success)
            backend_succeeded(at(&w, 0), &trial);
        else
            backend_answered(at(&w, 0), &trial);
        loop_turn(w.loop, 0);
        assert_ptr_equal(r.got, at(&w, 0));
        leave_all(&w);
        close_world(&w);
    }
}

/* Behind one that waits for the full primary there waits one that has tried it and would take the backup, which is
 * idle: when the first one goes, by itself or because its time is over, the second is served. */
static void who_goes_makes_way(void **state)
{
    (void)state;
    for (int times_out = 0; times_out < 2; times_out++) {
        struct world w;
        struct request first, second = {0};
        struct place place;
        bool full;
        open_world(&w, 2, ",\"max_connections\":1", "");
        w.config->backends[1].backup = true;
        tiers_build(w.upstream, NULL);
        w.config->queue.timeout = times_out ? 10 * NS_PER_MS : NS_PER_S;
        struct pick tried = {.tried = {at(&w, 0)}, .tried_count = 1};
        assert_int_equal(take(&w, &fresh), 0);
        wait_in(&w, &first);
        w.config->queue.timeout = 60 * NS_PER_S;
        waiter_init(&second.waiter, &tried, on_wait_over);
        assert_null(upstream_pick(w.upstream, &tried, &place, &full));
        assert_true(full);
        assert_true(upstream_wait(w.upstream, &second.waiter));
        loop_turn(w.loop, 0);
        assert_int_equal(second.told, 0);
        if (times_out) {
            while (first.told == 0)
                loop_turn(w.loop, NS_PER_MS);
        } else {
            upstream_unwait(&first.waiter);
        }
        loop_turn(w.loop, 0);
        assert_ptr_equal(second.got, at(&w, 1));
        leave_all(&w);
        close_world(&w);
    }
}

/* The last backend falls, and those who wait hear of it later in this turn: until then one more may join them. */
static void a_queue_is_something(void **state)
{
    (void)state;
    struct world w;
    struct request r;
    struct place place;
    bool full;
    open_world(&w, 1, ",\"max_connections\":1", "");
    take(&w, &fresh);
    wait_in(&w, &r);
    backend_set_up(at(&w, 0), false, "test");
    assert_true(upstream_has_any(w.upstream));
    assert_null(upstream_pick(w.upstream, &fresh, &place, &full));
    assert_true(full);
    loop_turn(w.loop, 0);
    assert_int_equal(r.e, ERR_NO_BACKEND);
    assert_false(upstream_has_any(w.upstream));
    leave_all(&w);
    close_world(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_thousand_take_turns),
        cmocka_unit_test(the_rest_goes_on_taking_turns),
        cmocka_unit_test(the_least_busy_is_chosen),
        cmocka_unit_test(least_conn_goes_by_weight),
        cmocka_unit_test(random_two_is_even),
        cmocka_unit_test(random_two_goes_by_weight),
        cmocka_unit_test(random_two_avoids_the_busiest),
        cmocka_unit_test(a_backend_takes_only_its_own_keys_along),
        cmocka_unit_test(balancers_agree),
        cmocka_unit_test(hash_goes_by_weight),
        cmocka_unit_test(one_key_does_not_overload_its_backend),
        cmocka_unit_test(without_a_key_it_goes_round),
        cmocka_unit_test(none_chooses_who_has_no_room),
        cmocka_unit_test(none_chooses_who_was_tried),
        cmocka_unit_test(first_come_first_served),
        cmocka_unit_test(a_place_in_time_is_taken),
        cmocka_unit_test(who_goes_leaves_the_queue),
        cmocka_unit_test(waiting_has_an_end),
        cmocka_unit_test(nobody_waits_for_what_is_down),
        cmocka_unit_test(without_a_queue_nobody_waits),
        cmocka_unit_test(a_returning_backend_starts_slowly),
        cmocka_unit_test(one_request_at_a_time_on_trial),
        cmocka_unit_test(a_trial_bars_others_for_its_time),
        cmocka_unit_test(only_the_trial_is_one),
        cmocka_unit_test(the_past_does_not_count),
        cmocka_unit_test(answers_are_noticed),
        cmocka_unit_test(newcomers_pass_those_who_wait_for_others),
        cmocka_unit_test(a_place_of_the_last_trial),
        cmocka_unit_test(an_ejected_one_is_asked_before_the_same_again),
        cmocka_unit_test(not_every_ejected_one_is_asked),
        cmocka_unit_test(a_trial_ahead_of_time_becomes_one),
        cmocka_unit_test(who_waits_for_others_holds_nobody_up),
        cmocka_unit_test(the_end_of_a_trial_serves_the_queue),
        cmocka_unit_test(who_goes_makes_way),
        cmocka_unit_test(a_queue_is_something),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
