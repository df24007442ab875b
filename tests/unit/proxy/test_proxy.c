/* The proxy's own answers, on a wall clock of the test's own, and on a limiter's. */
#include "proxy/proxy.h"

#include "base/clock.h"
#include "base/log.h"

#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

/* What everything that is linked here takes for the kernel's wall clock, and for that of the buckets. */
static time_t wall;
static uint64_t boottime = 1000 * NS_PER_S;

int clock_gettime(clockid_t id, struct timespec *ts)
{
    if (id == CLOCK_REALTIME)
        *ts = (struct timespec){.tv_sec = wall};
    else if (id == CLOCK_BOOTTIME)
        *ts = (struct timespec){(time_t)(boottime / NS_PER_S), (long)(boottime % NS_PER_S)};
    else
        return (int)syscall(SYS_clock_gettime, id, ts);
    return 0;
}

struct world {
    struct loop *loop;
    struct config *config;
    struct upstream *upstream;
    struct worker *worker;
    struct limiter *limiter; /* NULL: none */
    struct proxy *proxy;
    char folder[32];
};

static void open_limiter(struct world *w)
{
    char error[256];
    enum store_outcome outcome;
    w->worker = worker_new(w->loop, "test");
    w->limiter = limiter_new(w->loop, w->worker, w->config, error, sizeof error, &outcome);
    if (!w->limiter)
        fail_msg("%s", error);
}

/* With those settings of `rate_limit`, behind its file's; NULL: null. */
static void open_world(struct world *w, const char *limit)
{
    char text[512];
    struct buf errors = BUF_INIT;
    *w = (struct world){.folder = "/tmp/lb-proxy-XXXXXX"};
    assert_non_null(mkdtemp(w->folder));
    int n = snprintf(text, sizeof text,
                     "{\"backends\":[{\"address\":\"127.0.0.1:1\"}],\"health_check\":null,"
                     "\"log\":{\"access\":false},\"rate_limit\":");
    if (limit)
        snprintf(text + n, sizeof text - (size_t)n, "{\"clients_file\":\"%s/clients.json\",%s}}", w->folder, limit);
    else
        snprintf(text + n, sizeof text - (size_t)n, "null}");
    w->config = config_parse(str_of(text), "test", NULL, &errors);
    assert_non_null(w->config);
    w->loop = loop_new();
    assert_non_null(w->loop);
    if (limit)
        open_limiter(w);
    w->upstream = upstream_new(w->loop, w->config);
    assert_non_null(w->upstream);
    struct proxy_setup setup = {.loop = w->loop, .config = w->config, .upstream = w->upstream, .limiter = w->limiter};
    w->proxy = proxy_new(&setup);
    assert_non_null(w->proxy);
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *ftw)
{
    (void)st;
    (void)kind;
    (void)ftw;
    return remove(path);
}

static void close_world(struct world *w)
{
    struct buf lines = BUF_INIT;
    proxy_cut(w->proxy);
    loop_turn(w->loop, 0);
    proxy_free(w->proxy);
    upstream_free(w->upstream);
    worker_free(w->worker);
    limiter_free(w->limiter);
    loop_free(w->loop);
    config_put(w->config);
    nftw(w->folder, remove_one, 8, FTW_DEPTH);
    log_take(&lines);
    buf_fini(&lines);
}

#define NO_REQUEST STR("GET\r\n\r\n")

/* A client sends that, and gets an answer at once, which has that in it. */
static void expect_in_answer(struct world *w, struct str request, const char *text)
{
    struct peer peer = {0};
    char answer[2048];
    int fds[2];
    ssize_t n = -1;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
    assert_int_equal(write(fds[0], request.p, request.n), request.n);
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
    open_world(&w, NULL);
    for (size_t i = 0; i < sizeof times / sizeof *times; i++) {
        wall = times[i].wall;
        expect_in_answer(&w, NO_REQUEST, times[i].date);
    }
    close_world(&w);
}

/* Just before a second's edge (a policy's clock moves on once in 3 ns at least), and behind it, wherever the wall clock
 * has gone. */
static void a_refusal_counts_down(void **state)
{
    (void)state;
    static const struct {
        uint64_t ns; /* since the bucket was emptied */
        const char *field, *words;
    } rows[] = {{0, "\r\nRetry-After: 10\r\n", " may pass in 10 seconds.\""},
                {NS_PER_S - 3, "\r\nRetry-After: 10\r\n", " may pass in 10 seconds.\""},
                {NS_PER_S, "\r\nRetry-After: 9\r\n", " may pass in 9 seconds.\""},
                {NS_PER_S + 3, "\r\nRetry-After: 9\r\n", " may pass in 9 seconds.\""},
                {9 * NS_PER_S - 3, "\r\nRetry-After: 2\r\n", " may pass in 2 seconds.\""},
                {9 * NS_PER_S, "\r\nRetry-After: 1\r\n", " may pass in 1 second.\""},
                {10 * NS_PER_S - 3, "\r\nRetry-After: 1\r\n", " may pass in 1 second.\""}};
    const struct str request = STR("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    const struct peer peer = {0};
    const struct headers none = {0};
    struct limit_answer answer;
    struct world w;
    open_world(&w, "\"default\":{\"capacity\":1,\"rate_per_sec\":0.1}");
    limiter_ask(w.limiter, &peer, &none, &answer);
    assert_int_equal(answer.verdict, LIMIT_ALLOW);
    uint64_t emptied = boottime;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        boottime = emptied + rows[i].ns;
        wall += i % 2 ? 3600 : -3600;
        expect_in_answer(&w, request, rows[i].field);
        expect_in_answer(&w, request, rows[i].words);
    }
    close_world(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_date_follows_the_clock),
        cmocka_unit_test(a_refusal_counts_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
