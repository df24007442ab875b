/* Starting another program: what it gets, and how its end is heard of. */
#include "base/process.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <time.h>

static pid_t start(const char *command, const int *fds, int n)
{
    char *argv[] = {"sh", "-c", (char *)command, NULL};
    return process_start("/bin/sh", argv, fds, n, "LB_TEST=new");
}

static int wait_for(pid_t pid)
{
    static const struct timespec rest = {.tv_nsec = 1000 * 1000};
    int status = -1;
    for (int i = 0; i < 10000; i++) {
        if (process_has_ended(pid, &status))
            return status;
        nanosleep(&rest, NULL);
    }
    fail_msg("it does not end");
    return -1;
}

static void its_end_is_heard_of(void **state)
{
    (void)state;
    assert_int_equal(wait_for(start("exit 7", NULL, 0)), 7);
    pid_t pid = start("exec sleep 100", NULL, 0);
    int status;
    assert_true(pid > 0);
    assert_false(process_has_ended(pid, &status));
    process_kill(pid);
    assert_int_equal(wait_for(pid), 128 + 9);
    assert_true(process_has_ended(pid, &status)); /* and still has */
}

static void it_gets_descriptors_and_a_setting(void **state)
{
    (void)state;
    int pipes[2];
    char got[64] = "";
    setenv("LB_TEST", "old", 1);
    setenv("LISTEN_FDS", "3", 1);
    assert_int_equal(pipe2(pipes, O_CLOEXEC), 0);
    /* The one that is to be 3 may be 4 here, and the other way round. */
    int fds[] = {pipes[1], pipes[0]};
    pid_t pid = start("echo \"$LB_TEST,$LISTEN_FDS,$LB_OTHER\" >&3; [ -r /proc/self/fd/4 ]", fds, 2);
    assert_int_equal(wait_for(pid), 0);
    assert_int_equal(read(pipes[0], got, sizeof got - 1), strlen("new,,kept\n"));
    assert_string_equal(got, "new,,kept\n");
    close(pipes[0]);
    close(pipes[1]);
}

static void what_cannot_be_started(void **state)
{
    (void)state;
    char *argv[] = {"x", NULL};
    int bad[] = {-1};
    assert_int_equal(process_start("/no/such/program", argv, NULL, 0, "A=b"), -ENOENT);
    assert_int_equal(process_start("/bin/sh", argv, bad, 1, "A=b"), -EBADF);
}

static void where_it_is(void **state)
{
    (void)state;
    char path[4096], tiny[4];
    assert_true(process_path(path, sizeof path));
    assert_non_null(strstr(path, "test_process"));
    assert_false(process_path(tiny, sizeof tiny));
    assert_int_equal(process_self(), getpid());
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(its_end_is_heard_of),
        cmocka_unit_test(it_gets_descriptors_and_a_setting),
        cmocka_unit_test(what_cannot_be_started),
        cmocka_unit_test(where_it_is),
    };
    setenv("LB_OTHER", "kept", 1);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
