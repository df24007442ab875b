/* Which names are asked for when there are more than threads. What is asserted is what is handed out before the loop is
 * turned, so nothing depends on how long an answer takes. */
#include "base/clock.h"
#include "upstream/names.h"
#include "upstream/resolve.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

struct world {
    struct loop *loop;
    struct names *names;
    struct endpoint at;
    unsigned told;
};

static void open_world(struct world *w, unsigned names)
{
    const char *why;
    *w = (struct world){.loop = loop_new()};
    assert_non_null(w->loop);
    w->names = names_new(w->loop);
    assert_non_null(w->names);
    assert_true(names_start(w->names, names));
    assert_true(endpoint_parse(STR("localhost:1"), false, &w->at, &why));
}

static void close_world(struct world *w)
{
    names_free(w->names);
    loop_free(w->loop);
}

static void on_told(void *arg, const struct resolve *r)
{
    struct world *w = arg;
    assert_true(r->count > 0);
    w->told++;
}

static struct resolve *ask(struct world *w, bool unheard)
{
    struct resolve *r = resolve_begin(w->names, &w->at, unheard, on_told, w);
    assert_non_null(r);
    return r;
}

static unsigned busy(const struct world *w)
{
    unsigned n = 0;
    for (unsigned i = 0; i < w->names->count; i++)
        n += worker_pending(w->names->workers[i]) > 0;
    return n;
}

static void turn_until_told(struct world *w, unsigned told)
{
    uint64_t deadline = clock_monotonic() + 10 * NS_PER_S;
    while (w->told < told) {
        assert_true(clock_monotonic() < deadline);
        loop_turn(w->loop, NS_PER_MS);
    }
}

static void as_many_threads_as_names(void **state)
{
    (void)state;
    struct world w;
    open_world(&w, 0);
    assert_int_equal(w.names->count, 0);
    assert_true(names_start(w.names, 2));
    assert_int_equal(w.names->count, 2);
    assert_true(names_start(w.names, 1));
    assert_int_equal(w.names->count, 2);
    assert_true(names_start(w.names, 1000));
    assert_int_equal(w.names->count, NAMES_THREADS);
    close_world(&w);
}

/* However many names are not answered, one thread is there for the others. */
static void silence_leaves_a_thread(void **state)
{
    (void)state;
    struct world w;
    open_world(&w, NAMES_THREADS + 1);
    for (unsigned i = 0; i < 2 * NAMES_THREADS; i++)
        ask(&w, true);
    assert_int_equal(busy(&w), NAMES_THREADS - 1);
    ask(&w, false);
    assert_int_equal(busy(&w), NAMES_THREADS);
    assert_int_equal(w.names->unheard_asked, NAMES_THREADS - 1);
    turn_until_told(&w, 2 * NAMES_THREADS + 1);
    assert_int_equal(busy(&w), 0);
    assert_int_equal(w.names->unheard_asked, 0);
    close_world(&w);
}

/* What has been given up holds its thread, and counts as unheard: the others have one all the same. */
static void the_forgotten_leave_a_thread(void **state)
{
    (void)state;
    struct world w;
    open_world(&w, NAMES_THREADS);
    resolve_forget(ask(&w, false));
    resolve_forget(ask(&w, true));
    assert_int_equal(w.names->unheard_asked, 2);
    for (unsigned i = 0; i < 2; i++)
        ask(&w, true);
    assert_int_equal(busy(&w), NAMES_THREADS - 1);
    ask(&w, false);
    assert_int_equal(busy(&w), NAMES_THREADS);
    turn_until_told(&w, 3);
    while (busy(&w) > 0)
        loop_turn(w.loop, NS_PER_MS);
    assert_int_equal(w.names->unheard_asked + w.names->forgotten, 0);
    close_world(&w);
}

/* Where each name has a thread there is nobody to leave one to. */
static void each_has_its_thread(void **state)
{
    (void)state;
    for (unsigned names = 1; names <= NAMES_THREADS; names++) {
        struct world w;
        open_world(&w, names);
        for (unsigned i = 0; i < names; i++)
            ask(&w, true);
        assert_int_equal(busy(&w), names);
        turn_until_told(&w, names);
        close_world(&w);
    }
}

/* The others go first, but for one, whose turn would else never come. */
static void who_waits_goes_in_turn(void **state)
{
    (void)state;
    struct world w;
    open_world(&w, NAMES_THREADS);
    for (unsigned i = 0; i < NAMES_THREADS + 2; i++)
        ask(&w, false);
    ask(&w, true);
    ask(&w, true);
    assert_int_equal(busy(&w), NAMES_THREADS);
    assert_int_equal(w.names->unheard_asked, 0);
    while (w.told == 0)
        loop_turn(w.loop, NS_PER_MS);
    assert_ptr_equal(w.names->unheard.next, w.names->unheard.prev); /* one at most waits still */
    turn_until_told(&w, NAMES_THREADS + 4);
    close_world(&w);
}

/* With one thread there is none to leave. */
static void one_thread_is_for_all(void **state)
{
    (void)state;
    struct world w;
    open_world(&w, 1);
    ask(&w, true);
    ask(&w, false);
    ask(&w, true);
    assert_int_equal(busy(&w), 1);
    turn_until_told(&w, 3);
    close_world(&w);
}

/* What nobody waits for any more waits for no thread, and what is under way is not told. */
static void forgotten_questions(void **state)
{
    (void)state;
    struct world w;
    open_world(&w, 1);
    struct resolve *first = ask(&w, false), *second = ask(&w, false), *third = ask(&w, true);
    resolve_forget(first);
    resolve_forget(second);
    resolve_forget(third);
    assert_true(list_empty(&w.names->waiting) && list_empty(&w.names->unheard));
    ask(&w, false);
    turn_until_told(&w, 1);
    assert_int_equal(w.told, 1);
    resolve_forget(ask(&w, false)); /* and at the end */
    ask(&w, false);
    close_world(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(as_many_threads_as_names),     cmocka_unit_test(silence_leaves_a_thread),
        cmocka_unit_test(who_waits_goes_in_turn),       cmocka_unit_test(one_thread_is_for_all),
        cmocka_unit_test(forgotten_questions),          cmocka_unit_test(each_has_its_thread),
        cmocka_unit_test(the_forgotten_leave_a_thread),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
