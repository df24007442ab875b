/* Signals arrive on the loop, each of those that are handled; a broken pipe ends nobody. */
#include "event/signals.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include <errno.h>
#include <signal.h>
#include <unistd.h>

static int seen[65];

static void on_signal(void *arg, int signo)
{
    assert_ptr_equal(arg, seen);
    seen[signo]++;
}

static void test_each_signal_is_told_once(void **state)
{
    static const int handled[] = {SIGTERM, SIGINT, SIGHUP, SIGUSR1};
    struct loop *l = loop_new();
    struct signals *s;

    (void)state;
    assert_non_null(l);
    s = signals_new(l, on_signal, seen);
    assert_non_null(s);
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(kill(getpid(), handled[i]), 0);
    loop_turn(l, 0);
    loop_turn(l, 0);
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(seen[handled[i]], 1);
    assert_int_equal(kill(getpid(), SIGTERM), 0);
    loop_turn(l, 0);
    assert_int_equal(seen[SIGTERM], 2);
    signals_free(s);
    signals_free(NULL);
    loop_free(l);
}

static void test_late_signals_do_not_end_the_process(void **state)
{
    struct loop *l = loop_new();
    struct signals *s;

    (void)state;
    assert_non_null(l);
    s = signals_new(l, on_signal, seen);
    assert_non_null(s);
    signals_free(s);
    seen[SIGINT] = 0;
    assert_int_equal(kill(getpid(), SIGINT), 0);
    loop_turn(l, 0);
    assert_int_equal(seen[SIGINT], 0);
    loop_free(l);
}

static void test_a_broken_pipe_is_an_error_and_no_more(void **state)
{
    int fds[2];

    (void)state;
    assert_int_equal(pipe(fds), 0);
    close(fds[0]);
    assert_int_equal(write(fds[1], "x", 1), -1);
    assert_int_equal(errno, EPIPE);
    close(fds[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_signal_is_told_once),
        cmocka_unit_test(test_late_signals_do_not_end_the_process),
        cmocka_unit_test(test_a_broken_pipe_is_an_error_and_no_more),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
