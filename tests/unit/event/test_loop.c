/* The loop over real descriptors: the order of a turn, the rules for what ends inside it, waiting and waking. */
#include "event/loop.h"

#include "base/clock.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <pthread.h>
#include <sys/socket.h>
#include <unistd.h>

static struct loop *loop;
static char order[512]; /* what ran, one letter each */

static void note(char c)
{
    size_t n = strlen(order);

    assert_true(n + 1 < sizeof(order));
    order[n] = c;
    order[n + 1] = '\0';
}

static int setup(void **state)
{
    (void)state;
    order[0] = '\0';
    loop = loop_new();
    return loop ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    loop_free(loop);
    return 0;
}

static void turn(void)
{
    loop_turn(loop, 0);
}

struct end { /* one end of a socket pair, watched */
    struct watch watch;
    int far;
    char letter;
    unsigned told;
    struct end *kills;
    struct end *revives;
};

static void end_ready(struct watch *w, unsigned ready)
{
    struct end *e = container_of(w, struct end, watch);

    note(e->letter);
    e->told = ready;
    if (e->kills)
        loop_unwatch(loop, &e->kills->watch);
    if (e->revives)
        assert_true(loop_watch(loop, &e->revives->watch, LOOP_READ));
}

static void end_open(struct end *e, char letter, unsigned wanted)
{
    int fds[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
    *e = (struct end){.far = fds[1], .letter = letter};
    watch_init(&e->watch, fds[0], end_ready);
    assert_true(loop_watch(loop, &e->watch, wanted));
}

static void end_close(struct end *e)
{
    loop_unwatch(loop, &e->watch);
    close(e->watch.fd);
    if (e->far >= 0)
        close(e->far);
}

static void make_readable(const struct end *e)
{
    assert_int_equal(write(e->far, "x", 1), 1);
}

static void test_readiness(void **state)
{
    struct end e;

    (void)state;
    end_open(&e, 'e', LOOP_READ);
    turn();
    assert_string_equal(order, "");
    make_readable(&e);
    turn();
    assert_int_equal(e.told, LOOP_READ);
    loop_rewatch(loop, &e.watch, LOOP_READ | LOOP_WRITE);
    turn();
    assert_int_equal(e.told, LOOP_READ | LOOP_WRITE);
    loop_rewatch(loop, &e.watch, 0);
    turn();
    assert_string_equal(order, "ee");
    close(e.far);
    e.far = -1;
    turn();
    assert_int_equal(e.told, LOOP_HANGUP);
    end_close(&e);
    turn();
    assert_string_equal(order, "eee");
}

static void test_watch_of_a_bad_descriptor(void **state)
{
    struct watch w;

    (void)state;
    watch_init(&w, -1, end_ready);
    assert_false(loop_watch(loop, &w, LOOP_READ));
    assert_false(w.registered);
    loop_unwatch(loop, &w);
}

/* One end that is to be registered soon. */
static void end_open_soon(struct end *e, char letter)
{
    end_open(e, letter, LOOP_READ);
    loop_unwatch(loop, &e->watch);
    assert_true(loop_watch_soon(loop, &e->watch, LOOP_READ));
}

static void test_registered_soon(void **state)
{
    struct end a, b, c;

    (void)state;
    turn();
    uint64_t begin = loop_now(loop);
    end_open_soon(&a, 'a');
    end_open_soon(&b, 'b');
    end_open_soon(&c, 'c');
    make_readable(&a);
    make_readable(&b);
    make_readable(&c);
    loop_unwatch(loop, &b.watch);
    assert_true(loop_watch(loop, &c.watch, LOOP_READ)); /* it waits no more */
    turn();
    if (loop_now(loop) - begin < LOOP_SOON)
        assert_string_equal(order, "c");
    loop_unwatch(loop, &c.watch);
    while (!a.watch.registered)
        loop_turn(loop, TIMER_NEVER); /* it comes back by itself */
    assert_true(loop_now(loop) - begin >= LOOP_SOON);
    assert_string_equal(order, "ca");
    assert_true(loop_watch_soon(loop, &b.watch, LOOP_READ)); /* the ring is empty again */
    end_close(&a);
    end_close(&b);
    end_close(&c);
}

/* Those for whom there is no place are registered at once; places come back. */
static void test_too_many_to_register_soon(void **state)
{
    enum { PLACES = 1024 };
    static struct watch w[PLACES];
    struct end late;

    (void)state;
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < PLACES; i++) {
            watch_init(&w[i], -1, end_ready);
            assert_true(loop_watch_soon(loop, &w[i], LOOP_READ));
        }
        end_open_soon(&late, 'l');
        assert_true(late.watch.registered);
        make_readable(&late);
        turn();
        assert_int_equal(late.told, LOOP_READ);
        end_close(&late);
        for (int i = 0; i < PLACES; i++)
            loop_unwatch(loop, &w[i]);
        turn();
    }
}

static void test_refused_later(void **state)
{
    struct end e = {.letter = 'e', .far = -1};

    (void)state;
    watch_init(&e.watch, -1, end_ready);
    assert_true(loop_watch_soon(loop, &e.watch, LOOP_READ));
    while (e.told == 0)
        loop_turn(loop, NS_PER_MS);
    assert_int_equal(e.told, LOOP_REFUSED);
    assert_false(e.watch.registered);
    turn();
    assert_string_equal(order, "e");
}

static void test_unwatched_in_the_same_batch(void **state)
{
    struct end a, b;

    (void)state;
    end_open(&a, 'a', LOOP_READ);
    end_open(&b, 'b', LOOP_READ);
    a.kills = &b;
    b.kills = &a;
    make_readable(&a);
    make_readable(&b);
    turn();
    assert_int_equal(strlen(order), 1);
    end_close(&a);
    end_close(&b);
}

/* The one that is met first ends the watch of the second and registers it anew: what was fetched for the second before
 * that must not reach it, and what epoll says about it from then on must. */
static void test_registered_anew_in_the_same_batch(void **state)
{
    struct end a, b;

    (void)state;
    end_open(&a, 'a', LOOP_READ);
    end_open(&b, 'b', LOOP_READ);
    a.kills = a.revives = &b;
    b.kills = b.revives = &a;
    make_readable(&a);
    make_readable(&b);
    turn();
    assert_int_equal(strlen(order), 1);
    turn();
    assert_int_equal(strlen(order), 2);
    end_close(&a);
    end_close(&b);
}

struct swapper { /* told of the trigger, closes the old end and opens a new one on the same descriptor numbers */
    struct end trigger, old, new;
};

static void swap_ready(struct watch *w, unsigned ready)
{
    struct swapper *s = container_of(w, struct swapper, trigger.watch);
    int number = s->old.watch.fd;

    (void)ready;
    note('t');
    loop_unwatch(loop, w);
    end_close(&s->old);
    end_open(&s->new, 'n', LOOP_READ);
    assert_int_equal(s->new.watch.fd, number);
}

static void test_reused_descriptor(void **state)
{
    struct swapper s;

    (void)state;
    end_open(&s.trigger, 't', LOOP_READ);
    s.trigger.watch.on_ready = swap_ready;
    end_open(&s.old, 'o', LOOP_READ);
    make_readable(&s.trigger); /* epoll tells first what became ready first */
    make_readable(&s.old);
    turn();
    assert_string_equal(order, "t");
    turn();
    assert_string_equal(order, "t");
    make_readable(&s.new);
    turn();
    assert_string_equal(order, "tn");
    end_close(&s.new);
    end_close(&s.trigger);
}

struct parts { /* one of everything that a turn runs */
    struct end end;
    struct timer timer;
    struct posted posted;
    struct loop_hook hook;
    struct dead dead;
    int reclaimed;
    bool again;
};

static void parts_reclaim(struct dead *d)
{
    struct parts *p = container_of(d, struct parts, dead);

    note('d');
    p->reclaimed++;
    if (p->again) {
        p->again = false;
        loop_post(loop, &p->posted);
        loop_reclaim(loop, d, parts_reclaim);
    }
}

static void parts_hook(struct loop_hook *h)
{
    note('h');
    loop_remove_hook(loop, h);
}

static void parts_posted(struct posted *p)
{
    (void)p;
    note('p');
}

static void parts_timer(struct timer *t)
{
    (void)t;
    note('t');
}

static void parts_ready(struct watch *w, unsigned ready)
{
    struct parts *p = container_of(w, struct parts, end.watch);

    (void)ready;
    note('e');
    loop_reclaim(loop, &p->dead, parts_reclaim);
    loop_post(loop, &p->posted);
    loop_post(loop, &p->posted);
    assert_true(loop_arm(loop, &p->timer, loop_heard(loop)));
    loop_unwatch(loop, w);
}

static void parts_init(struct parts *p)
{
    memset(p, 0, sizeof(*p));
    end_open(&p->end, 'e', LOOP_READ);
    p->end.watch.on_ready = parts_ready;
    timer_init(&p->timer, parts_timer);
    posted_init(&p->posted, parts_posted);
    loop_add_hook(loop, &p->hook, parts_hook);
}

static void test_order_of_a_turn(void **state)
{
    struct parts p;

    (void)state;
    parts_init(&p);
    make_readable(&p.end);
    turn();
    assert_string_equal(order, "etphd");
    turn();
    assert_string_equal(order, "etphd");
    end_close(&p.end);
}

static void test_reclaiming_may_post_and_reclaim(void **state)
{
    struct parts p;

    (void)state;
    parts_init(&p);
    p.again = true;
    loop_reclaim(loop, &p.dead, parts_reclaim);
    turn();
    assert_string_equal(order, "hdd");
    loop_turn(loop, TIMER_NEVER); /* does not wait, since something is posted */
    assert_string_equal(order, "hddp");
    end_close(&p.end);
}

static void test_free_reclaims(void **state)
{
    static struct parts p;

    (void)state;
    p = (struct parts){0};
    loop_reclaim(loop, &p.dead, parts_reclaim);
    loop_free(loop);
    assert_int_equal(p.reclaimed, 1);
    loop_free(NULL);
    loop = loop_new();
    assert_non_null(loop);
}

struct chain {
    struct posted posted;
    int runs, limit;
    struct step *staged;
};

static void chain_run(struct posted *p)
{
    struct chain *c = container_of(p, struct chain, posted);

    if (++c->runs < c->limit)
        loop_post(loop, p);
}

static void test_posting_from_posted_waits_for_the_next_turn(void **state)
{
    struct chain c = {.limit = 3};

    (void)state;
    posted_init(&c.posted, chain_run);
    loop_post(loop, &c.posted);
    for (int i = 1; i <= 3; i++) {
        loop_turn(loop, TIMER_NEVER);
        assert_int_equal(c.runs, i);
    }
    turn();
    assert_int_equal(c.runs, 3);
}

/* ---- stages ---- */

struct step {
    struct posted posted;
    int runs, limit;
    struct step *other; /* staged by it */
};

static int ran[64], steps;

static void step_run(struct posted *p)
{
    struct step *s = container_of(p, struct step, posted);

    assert_true(steps < 64);
    ran[steps++] = s->limit;
    if (++s->runs < s->limit)
        loop_stage(loop, p);
    if (s->other)
        loop_stage(loop, &s->other->posted);
    s->other = NULL;
}

static void step_init(struct step *s, int limit)
{
    *s = (struct step){.limit = limit};
    posted_init(&s->posted, step_run);
}

/* Each pass runs what was staged before it; what is left behind the last one is run in the next turn, which does not
 * wait. */
static void test_stages_run_in_passes(void **state)
{
    struct step a, b, c;
    static const int passes[] = {9, 2, 9, 3, 2, 9, 3};

    (void)state;
    steps = 0;
    step_init(&a, 9);
    step_init(&b, 2);
    step_init(&c, 3);
    a.other = &c;
    loop_stage(loop, &a.posted);
    loop_stage(loop, &b.posted);
    loop_turn(loop, TIMER_NEVER);
    /* The passes behind the handlers, of which there are three; behind the posted callbacks there are three more. */
    assert_memory_equal(ran, passes, sizeof passes);
    assert_int_equal(a.runs, 2 * LOOP_PASSES);
    loop_turn(loop, TIMER_NEVER);
    assert_int_equal(a.runs, 9);
    assert_int_equal(b.runs, 2);
    assert_int_equal(c.runs, 3);
    turn();
    assert_int_equal(steps, 14);
}

static void chain_stages(struct posted *p)
{
    struct step *s = container_of(p, struct chain, posted)->staged;

    loop_stage(loop, &s->posted);
}

/* What has been posted may be staged: then it runs once, in its pass. What has been staged may be taken back. */
static void test_posted_and_staged(void **state)
{
    struct step a, b;
    struct chain c = {.staged = &b};

    (void)state;
    steps = 0;
    step_init(&a, 1);
    step_init(&b, 1);
    loop_post(loop, &a.posted);
    loop_stage(loop, &a.posted);
    turn();
    assert_int_equal(a.runs, 1);
    posted_init(&c.posted, chain_stages);
    loop_post(loop, &c.posted);
    turn();
    assert_int_equal(b.runs, 1); /* behind the posted callbacks of the same turn */
    loop_stage(loop, &a.posted);
    loop_unpost(loop, &a.posted);
    turn();
    assert_int_equal(a.runs, 1);
}

/* What is lent of the scratch buffer is not given again before a pass. */
static void test_lent(void **state)
{
    struct step a;
    char *first = loop_scratch(loop);

    (void)state;
    step_init(&a, 1);
    loop_lend(loop, 100);
    assert_true(loop_scratch(loop) >= first + 100);
    memset(loop_scratch(loop), 'x', LOOP_SCRATCH_SIZE);
    loop_stage(loop, &a.posted);
    turn();
    assert_ptr_equal(loop_scratch(loop), first);
    loop_lend(loop, 1); /* whoever had it has gone */
    turn();
    assert_ptr_equal(loop_scratch(loop), first);
}

struct remover {
    struct posted posted;
    struct posted *victim;
};

static void remover_run(struct posted *p)
{
    loop_unpost(loop, container_of(p, struct remover, posted)->victim);
}

static void test_unpost(void **state)
{
    struct chain c = {.limit = 1};
    struct remover r = {.victim = &c.posted};

    (void)state;
    posted_init(&c.posted, chain_run);
    posted_init(&r.posted, remover_run);
    loop_unpost(loop, &c.posted);
    loop_post(loop, &c.posted);
    loop_unpost(loop, &c.posted);
    turn();
    /* One that stands in the batch that is being run is taken back all the same. */
    loop_post(loop, &r.posted);
    loop_post(loop, &c.posted);
    turn();
    turn();
    assert_int_equal(c.runs, 0);
}

struct stopper {
    struct timer timer;
    uint64_t fired_at;
    int left;
};

static void stopper_fire(struct timer *t)
{
    struct stopper *s = container_of(t, struct stopper, timer);

    s->fired_at = loop_now(loop);
    if (--s->left > 0)
        assert_true(loop_arm(loop, t, 0));
    else
        loop_stop(loop);
}

static void test_timer_wakes_the_loop(void **state)
{
    struct stopper s = {.left = 1};

    (void)state;
    timer_init(&s.timer, stopper_fire);
    uint64_t deadline = loop_now(loop) + 3 * NS_PER_MS;
    assert_true(loop_arm(loop, &s.timer, deadline + NS_PER_S));
    assert_true(loop_arm(loop, &s.timer, deadline));
    loop_run(loop);
    assert_true(s.fired_at >= deadline);
    assert_true(s.fired_at < deadline + NS_PER_S / 2);
    assert_false(timer_armed(&s.timer));
}

static void test_timer_put_off_is_not_lost(void **state)
{
    struct stopper s = {.left = 1};

    (void)state;
    timer_init(&s.timer, stopper_fire);
    uint64_t start = loop_now(loop);
    assert_true(loop_arm(loop, &s.timer, start + 2 * NS_PER_MS));
    turn();
    assert_true(loop_arm(loop, &s.timer, start + 6 * NS_PER_MS));
    loop_run(loop);
    assert_true(s.fired_at >= start + 6 * NS_PER_MS);
}

static void test_cancelled_timer_does_not_fire(void **state)
{
    struct stopper s = {.left = 1}, end = {.left = 1};

    (void)state;
    timer_init(&s.timer, stopper_fire);
    timer_init(&end.timer, stopper_fire);
    /* Far enough away that a machine which stands still for a moment does not let it fire before it is cancelled. */
    assert_true(loop_arm(loop, &s.timer, loop_now(loop) + 200 * NS_PER_MS));
    assert_true(loop_arm(loop, &end.timer, loop_now(loop) + 210 * NS_PER_MS));
    turn();
    loop_cancel(loop, &s.timer);
    loop_run(loop);
    assert_int_equal(s.fired_at, 0);
    assert_true(end.fired_at > 0);
}

/* Armed by its own callback for the past, a timer fires once a turn: it must not hold the turn for ever. */
static void test_timer_armed_for_the_past_by_itself(void **state)
{
    struct stopper s = {.left = 3};
    int turns = 0;

    (void)state;
    timer_init(&s.timer, stopper_fire);
    assert_true(loop_arm(loop, &s.timer, 0));
    while (s.left > 0) {
        int left = s.left;
        loop_turn(loop, TIMER_NEVER);
        assert_true(s.left >= left - 1);
        turns++;
    }
    assert_true(turns >= 3);
}

static void test_waiting_is_bounded(void **state)
{
    (void)state;
    uint64_t start = clock_monotonic();
    loop_turn(loop, 2 * NS_PER_MS + 1);
    assert_true(clock_monotonic() - start >= 2 * NS_PER_MS);
}

/* A loop with nothing to do sleeps: waiting for a timer takes a handful of turns, not thousands. */
static void test_waiting_does_not_spin(void **state)
{
    struct stopper s = {.left = 1};
    int turns = 0;

    (void)state;
    timer_init(&s.timer, stopper_fire);
    assert_true(loop_arm(loop, &s.timer, loop_now(loop) + 30 * NS_PER_MS));
    while (s.left > 0) {
        loop_turn(loop, TIMER_NEVER);
        turns++;
    }
    assert_true(turns <= 3);
}

static void test_clock_stands_still_within_a_turn(void **state)
{
    uint64_t before = loop_now(loop);

    (void)state;
    assert_true(before > 0);
    assert_true(loop_now(loop) == before);
    loop_turn(loop, NS_PER_MS);
    assert_true(loop_now(loop) > before);
}

static void test_more_events_than_a_batch(void **state)
{
    enum { N = 300 };
    static struct end ends[N];
    int told = 0;

    (void)state;
    for (int i = 0; i < N; i++) {
        end_open(&ends[i], 'x', LOOP_READ);
        make_readable(&ends[i]);
    }
    for (int t = 0; t * loop_batch < N; t++) {
        turn();
        order[0] = '\0';
    }
    for (int i = 0; i < N; i++) {
        told += ends[i].told == LOOP_READ;
        end_close(&ends[i]);
    }
    assert_int_equal(told, N);
}

/* So many are ready for ever that no turn fetches all of them. */
#define CROWD 300

static struct end crowd[CROWD];

static void crowd_open(void)
{
    for (int i = 0; i < CROWD; i++) {
        end_open(&crowd[i], 'x', LOOP_READ);
        make_readable(&crowd[i]);
    }
}

static void crowd_close(void)
{
    for (int i = 0; i < CROWD; i++)
        end_close(&crowd[i]);
}

static const char *told_in_a_turn(void)
{
    order[0] = '\0';
    turn();
    return order;
}

static void make_backlog(void)
{
    for (int t = 0; t < 10; t++)
        told_in_a_turn();
}

/* Time passes without a full batch. */
static void end_backlog(void)
{
    uint64_t until = loop_now(loop) + 200 * NS_PER_MS;
    while (loop_now(loop) < until) {
        order[0] = '\0';
        loop_turn(loop, until - loop_now(loop));
    }
}

/* With a backlog, who was preferred is told of first in each turn; without, or where it was not, it waits for those
 * that were ready before it. */
static void test_preferred_with_a_backlog(void **state)
{
    struct end p;

    (void)state;
    end_open(&p, 'p', LOOP_READ);
    loop_prefer(loop, &p.watch);
    crowd_open();
    make_readable(&p);
    assert_null(strchr(told_in_a_turn(), 'p'));
    assert_non_null(strchr(told_in_a_turn(), 'p'));
    make_backlog();
    assert_int_equal(told_in_a_turn()[0], 'x');
    loop_prefer(loop, &p.watch);
    for (int t = 0; t < 3; t++) {
        assert_int_equal(told_in_a_turn()[0], 'p');
        assert_int_equal(strlen(order), 1 + loop_batch);
    }
    loop_rewatch(loop, &p.watch, 0);
    assert_null(strchr(told_in_a_turn(), 'p'));
    loop_rewatch(loop, &p.watch, LOOP_READ);
    assert_int_equal(told_in_a_turn()[0], 'p');
    crowd_close();

    /* The backlog is over: it is told of still, and is one of all again when it is to be preferred the next time. */
    loop_rewatch(loop, &p.watch, 0);
    end_backlog();
    loop_rewatch(loop, &p.watch, LOOP_READ);
    order[0] = '\0';
    loop_turn(loop, TIMER_NEVER);
    assert_int_equal(order[0], 'p');
    loop_prefer(loop, &p.watch);
    crowd_open();
    make_backlog();
    int turns = 0;
    while (told_in_a_turn()[0] != 'p' && turns < 10)
        turns++;
    assert_in_range(turns, 1, 10); /* now and then it is the first of a turn, and not of the first one */
    crowd_close();
    end_close(&p);
}

/* So many of the crowd wait for what is ready, and are told for longer than a backlog lasts that is none any more. */
static bool prefers_with(struct end *p, int n)
{
    for (int i = 0; i < CROWD; i++)
        loop_rewatch(loop, &crowd[i].watch, i < n ? LOOP_READ : 0);
    make_backlog();
    end_backlog();
    loop_prefer(loop, &p->watch);
    return p->watch.preferred;
}

/* It takes more to be a backlog than to stay one: else a load at the border would move watches to and fro. */
static void test_backlog_at_the_border(void **state)
{
    struct end p;

    (void)state;
    end_open(&p, 'p', LOOP_READ);
    crowd_open();
    assert_false(prefers_with(&p, loop_batch));
    assert_false(prefers_with(&p, 3 * loop_batch));
    assert_true(prefers_with(&p, CROWD));
    assert_true(prefers_with(&p, 3 * loop_batch));
    assert_false(prefers_with(&p, loop_batch - 1));
    assert_false(prefers_with(&p, 3 * loop_batch));
    crowd_close();
    end_close(&p);
}

/* Who goes on and on is soon one among all again, and is told no more often than others, until it is to be preferred
 * for something new. */
static void test_preferred_for_a_while(void **state)
{
    struct end p;

    (void)state;
    end_open(&p, 'p', LOOP_READ);
    make_readable(&p);
    crowd_open();
    make_backlog();
    for (int round = 0; round < 2; round++) {
        loop_prefer(loop, &p.watch);
        for (int t = 0; t < LOOP_PREFERRED; t++)
            assert_int_equal(told_in_a_turn()[0], 'p');
        int first = 0, told = 0;
        for (int t = 0; t < 20; t++) {
            first += told_in_a_turn()[0] == 'p';
            told += strchr(order, 'p') != NULL;
        }
        assert_in_range(told, 3, 8); /* one of 301, of which 64 are told in each turn */
        assert_true(first < told);
    }
    crowd_close();
    end_close(&p);
}

static void end_clears_the_crowd(struct watch *w, unsigned ready)
{
    end_ready(w, ready);
    for (int i = 0; i < CROWD; i++)
        loop_unwatch(loop, &crowd[i].watch);
}

/* A watch that is not registered yet will be a preferred one; and one that is ended by another is told nothing, in
 * whichever of the two it was fetched. */
static void test_preferred_unwatched_in_the_same_batch(void **state)
{
    struct end p, q;

    (void)state;
    crowd_open();
    make_backlog();
    end_open(&p, 'p', LOOP_READ);
    end_open(&q, 'q', LOOP_READ);
    loop_prefer(loop, &p.watch);
    loop_unwatch(loop, &q.watch);
    loop_prefer(loop, &q.watch);
    assert_true(loop_watch(loop, &q.watch, LOOP_READ));
    p.kills = &q;
    q.kills = &p;
    make_readable(&p);
    make_readable(&q);
    told_in_a_turn();
    assert_int_equal(strlen(order), 1 + loop_batch);
    assert_true((order[0] == 'p' || order[0] == 'q') && order[1] == 'x');
    struct end *alive = order[0] == 'p' ? &p : &q;
    alive->watch.on_ready = end_clears_the_crowd;
    told_in_a_turn();
    assert_int_equal(strlen(order), 1);
    crowd_close();
    end_close(&p);
    end_close(&q);
}

static void end_says_once(struct watch *w, unsigned ready)
{
    container_of(w, struct end, watch)->told = ready;
    loop_unwatch(loop, w);
}

/* `n` watches, preferred, with a backlog of which nothing is left. */
static void open_preferred(struct end *ends, int n)
{
    crowd_open();
    make_backlog();
    crowd_close();
    for (int i = 0; i < n; i++) {
        end_open(&ends[i], 'p', LOOP_READ);
        loop_prefer(loop, &ends[i].watch);
    }
}

static void arm_soon(struct stopper *s)
{
    timer_init(&s->timer, stopper_fire);
    assert_true(loop_arm(loop, &s->timer, clock_monotonic() + NS_PER_MS));
}

static void pass_deadline(const struct stopper *s)
{
    while (clock_monotonic() <= s->timer.deadline)
        ;
}

/* A deadline waits for preferred ones that came before it, too, also where more are ready than a turn fetches. */
static void test_timer_waits_for_preferred(void **state)
{
    enum { N = 512 }; /* the second batch is full, too, and leaves none */
    static struct end ends[N];
    struct stopper s = {.left = 1};
    int told = 0;

    (void)state;
    open_preferred(ends, N);
    for (int i = 0; i < N; i++)
        ends[i].watch.on_ready = end_says_once;
    arm_soon(&s);
    for (int i = 0; i < N; i++)
        make_readable(&ends[i]);
    pass_deadline(&s);
    for (int t = 0; s.left > 0; t++) {
        assert_true(t < 20);
        told_in_a_turn();
    }
    for (int i = 0; i < N; i++) {
        told += ends[i].told == LOOP_READ;
        end_close(&ends[i]);
    }
    assert_int_equal(told, N);
}

/* However many preferred ones stay ready for ever, so that no turn fetches all of them, a deadline comes soon behind
 * what was ready before it. */
static void test_timer_fires_beside_preferred(void **state)
{
    enum { N = 600 };
    static struct end ends[N];
    struct stopper s = {.left = 1};
    int turns = 0;

    (void)state;
    open_preferred(ends, N);
    for (int i = 0; i < N; i++)
        make_readable(&ends[i]);
    arm_soon(&s);
    pass_deadline(&s);
    for (int i = 0; i < N; i++)
        ends[i].told = 0;
    for (; s.left > 0; turns++) {
        assert_true(turns < 10);
        told_in_a_turn();
    }
    for (int i = 0; i < N; i++) {
        assert_int_equal(ends[i].told, LOOP_READ);
        end_close(&ends[i]);
    }
    assert_true(turns >= 3);
}

/* What has come by a deadline is told before it, also where it takes more than one batch, whether those that were told
 * stay ready for ever or are watched no more; and however many others are watched, it fires soon behind them. */
static void test_timer_waits_for_all_batches(void **state)
{
    enum { N = 600, IDLE = 200 };
    static struct end ends[N], idle[IDLE];

    (void)state;
    for (int once = 0; once < 2; once++) {
        struct stopper s = {.left = 1};
        int turns = 0, told = 0;
        for (int i = 0; i < N; i++) {
            end_open(&ends[i], 'x', LOOP_READ);
            if (once)
                ends[i].watch.on_ready = end_says_once;
            make_readable(&ends[i]);
        }
        for (int i = 0; i < IDLE; i++)
            end_open(&idle[i], 'i', LOOP_READ);
        arm_soon(&s);
        pass_deadline(&s);
        while (s.left > 0) {
            order[0] = '\0';
            turn();
            turns++;
        }
        for (int i = 0; i < N; i++) {
            told += ends[i].told == LOOP_READ;
            end_close(&ends[i]);
        }
        for (int i = 0; i < IDLE; i++)
            end_close(&idle[i]);
        assert_int_equal(told, N);
        assert_in_range(turns, 3, 5);
    }
}

static void hold_up(struct watch *w, unsigned ready)
{
    (void)ready;
    loop_unwatch(loop, w);
    uint64_t end = clock_monotonic() + LOOP_HELD_UP + NS_PER_MS;
    while (clock_monotonic() < end)
        ;
}

static void test_turn_that_is_held_up(void **state)
{
    struct end e;

    (void)state;
    turn();
    uint64_t quick = loop_now(loop);
    turn();
    assert_true(loop_noted(loop, quick) == quick);
    uint64_t noted[2];
    for (int i = 0; i < 2; i++) {
        end_open(&e, 'x', LOOP_READ);
        e.watch.on_ready = hold_up;
        make_readable(&e);
        turn();
        noted[i] = loop_now(loop);
        end_close(&e);
    }
    for (int i = 0; i < 2; i++)
        assert_in_range(loop_noted(loop, noted[i]), noted[i] + LOOP_HELD_UP, clock_monotonic());
    assert_true(loop_noted(loop, noted[0]) <= noted[1]);
    assert_true(loop_noted(loop, quick) == quick);
}

struct waker {
    struct loop_wakeup wakeup;
    int runs;
};

static void waker_run(struct loop_wakeup *w)
{
    container_of(w, struct waker, wakeup)->runs++;
    loop_stop(loop);
}

static void test_wakes_count_as_one(void **state)
{
    struct waker a = {0}, b = {0};

    (void)state;
    loop_add_wakeup(loop, &a.wakeup, waker_run);
    loop_add_wakeup(loop, &b.wakeup, waker_run);
    loop_wake(&a.wakeup);
    loop_wake(&a.wakeup);
    turn();
    turn();
    assert_int_equal(a.runs, 1);
    assert_int_equal(b.runs, 0);
    loop_wake(&a.wakeup);
    loop_wake(&b.wakeup);
    turn();
    assert_int_equal(a.runs, 2);
    assert_int_equal(b.runs, 1);
    loop_remove_wakeup(&a.wakeup);
    loop_remove_wakeup(&b.wakeup);
}

static void *wake_from_thread(void *arg)
{
    struct waker *w = arg;

    loop_wake(&w->wakeup);
    return NULL;
}

static void test_wake_from_a_thread(void **state)
{
    struct waker w = {0};
    pthread_t thread;

    (void)state;
    loop_add_wakeup(loop, &w.wakeup, waker_run);
    assert_int_equal(pthread_create(&thread, NULL, wake_from_thread, &w), 0);
    loop_run(loop);
    assert_int_equal(w.runs, 1);
    pthread_join(thread, NULL);
    loop_remove_wakeup(&w.wakeup);
}

static void test_scratch(void **state)
{
    (void)state;
    memset(loop_scratch(loop), 'x', LOOP_SCRATCH_SIZE);
    assert_int_equal(loop_scratch(loop)[LOOP_SCRATCH_SIZE - 1], 'x');
}

#define LOOP_TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        LOOP_TEST(test_readiness),
        LOOP_TEST(test_watch_of_a_bad_descriptor),
        LOOP_TEST(test_registered_soon),
        LOOP_TEST(test_too_many_to_register_soon),
        LOOP_TEST(test_refused_later),
        LOOP_TEST(test_unwatched_in_the_same_batch),
        LOOP_TEST(test_registered_anew_in_the_same_batch),
        LOOP_TEST(test_reused_descriptor),
        LOOP_TEST(test_order_of_a_turn),
        LOOP_TEST(test_reclaiming_may_post_and_reclaim),
        LOOP_TEST(test_free_reclaims),
        LOOP_TEST(test_posting_from_posted_waits_for_the_next_turn),
        LOOP_TEST(test_unpost),
        LOOP_TEST(test_stages_run_in_passes),
        LOOP_TEST(test_posted_and_staged),
        LOOP_TEST(test_lent),
        LOOP_TEST(test_timer_wakes_the_loop),
        LOOP_TEST(test_timer_put_off_is_not_lost),
        LOOP_TEST(test_cancelled_timer_does_not_fire),
        LOOP_TEST(test_timer_armed_for_the_past_by_itself),
        LOOP_TEST(test_waiting_is_bounded),
        LOOP_TEST(test_waiting_does_not_spin),
        LOOP_TEST(test_clock_stands_still_within_a_turn),
        LOOP_TEST(test_more_events_than_a_batch),
        LOOP_TEST(test_preferred_with_a_backlog),
        LOOP_TEST(test_backlog_at_the_border),
        LOOP_TEST(test_preferred_for_a_while),
        LOOP_TEST(test_preferred_unwatched_in_the_same_batch),
        LOOP_TEST(test_timer_waits_for_preferred),
        LOOP_TEST(test_timer_fires_beside_preferred),
        LOOP_TEST(test_timer_waits_for_all_batches),
        LOOP_TEST(test_turn_that_is_held_up),
        LOOP_TEST(test_wakes_count_as_one),
        LOOP_TEST(test_wake_from_a_thread),
        LOOP_TEST(test_scratch),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
