/* The proxy's own answers, on a wall clock of the test's own. */
#include "proxy/proxy.h"

#include "base/clock.h"
#include "base/log.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

/* What everything that is linked here takes for the kernel's wall clock. */
static time_t wall;

int clock_gettime(clockid_t id, struct timespec *ts)
{
    if (id != CLOCK_REALTIME)
        return (int)syscall(SYS_clock_gettime, id, ts);
    *ts = (struct timespec){.tv_sec = wall};
    return 0;
}

struct world {
    struct loop *loop;
    struct config *config;
    struct upstream *upstream;
    struct proxy *proxy;
};

static void open_world(struct world *w)
{
    static const char text[] = "{\"backends\":[{\"address\":\"127.0.0.1:1\"}],\"health_check\":null,"
                               "\"rate_limit\":null,\"log\":{\"access\":false}}";
    struct buf errors = BUF_INIT;
    w->config = config_parse(STR(text), "test", NULL, &errors);
    assert_non_null(w->config);
    w->loop = loop_new();
    assert_non_null(w->loop);
    w->upstream = upstream_new(w->loop, w->config);
    assert_non_null(w->upstream);
    struct proxy_setup setup = {.loop = w->loop, .config = w->config, .upstream = w->upstream};
    w->proxy = proxy_new(&setup);
    assert_non_null(w->proxy);
}

static void close_world(struct world *w)
{
    struct buf lines = BUF_INIT;
    proxy_cut(w->proxy);
    loop_turn(w->loop, 0);
    proxy_free(w->proxy);
    upstream_free(w->upstream);
    loop_free(w->loop);
    config_put(w->config);
    log_take(&lines);
    buf_fini(&lines);
}

/* A client sends what is no request, and gets an answer, which has that in it. */
static void expect_in_answer(struct world *w, const char *text)
{
    static const char request[] = "GET\r\n\r\n";
    struct peer peer = {0};
    char answer[2048];
    int fds[2];
    ssize_t n = -1;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
    assert_int_equal(write(fds[0], request, sizeof request - 1), sizeof request - 1);
    proxy_accept(w->proxy, fds[1], &peer);
    for (uint64_t end = clock_monotonic() + 5 * NS_PER_S; n < 0;) {
        assert_true(clock_monotonic() < end);
        loop_turn(w->loop, NS_PER_MS);
        n = read(fds[0], answer, sizeof answer - 1);
    }
    answer[n] = 0;
    if (!strstr(answer, text))
        fail_msg("\"%s\" without \"%s\"", answer, text);
    close(fds[0]);
}

/* It is the clock's, also where that is set back. */
static void the_date_follows_the_clock(void **state)
{
    (void)state;
    static const struct {
        time_t wall;
        const char *date;
    } times[] = {{784111777, "\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n"},
                 {784111777, "\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n"},
                 {784111778, "\r\nDate: Sun, 06 Nov 1994 08:49:38 GMT\r\n"},
                 {784108177, "\r\nDate: Sun, 06 Nov 1994 07:49:37 GMT\r\n"},
                 {784111779, "\r\nDate: Sun, 06 Nov 1994 08:49:39 GMT\r\n"}};
    struct world w;
    open_world(&w);
    for (size_t i = 0; i < sizeof times / sizeof *times; i++) {
        wall = times[i].wall;
        expect_in_answer(&w, times[i].date);
    }
    close_world(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_date_follows_the_clock),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
