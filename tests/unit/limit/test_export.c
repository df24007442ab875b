/* Unit tests of limit/export.c: another process goes on with the limiter's files and buckets. Nobody has a token more,
 * nobody who asks no faster than its rate is refused, and nobody pays for others. The clocks are the test's own. */
#include "base/clock.h"
#include "base/log.h"
#include "limit/clients.h"
#include "limit/limiter.h"

#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

/* What everything that is linked here takes for the kernel's clocks. */
static uint64_t now, wall;

int clock_gettime(clockid_t id, struct timespec *ts)
{
    uint64_t t = id == CLOCK_REALTIME ? wall : now;
    ts->tv_sec = (time_t)(t / NS_PER_S);
    ts->tv_nsec = (long)(t % NS_PER_S);
    return 0;
}

/* Networks find their overflow buckets by a key, so that two of these tests' could find the same one. */
ssize_t getrandom(void *p, size_t n, unsigned flags)
{
    static uint8_t last;
    (void)flags;
    for (size_t i = 0; i < n; i++)
        ((uint8_t *)p)[i] = last++;
    return (ssize_t)n;
}

static void pass(uint64_t ns)
{
    now += ns;
    wall += ns;
}

struct process {
    struct loop *loop;
    struct worker *worker;
    struct config *config;
    struct limiter *lim;
    struct limit_answer answer;
};

static char folder[32];

static void begin_process(struct process *p, const char *settings)
{
    char text[1024];
    struct buf errors = BUF_INIT;
    snprintf(text, sizeof text,
             "{\"backends\":[{\"address\":\"127.0.0.1:1\"}],"
             "\"rate_limit\":{\"clients_file\":\"%s/clients.json\",\"save_interval\":\"1h\",%s}}",
             folder, settings);
    p->config = config_parse(str_of(text), "test", NULL, &errors);
    if (!p->config)
        fail_msg("%.*s", STR_ARG(buf_str(&errors)));
    p->loop = loop_new();
    p->worker = worker_new(p->loop, "test");
}

static struct limiter *load(struct process *p, const struct limiter_time *before)
{
    char error[256];
    int status;
    struct limiter *lim = limiter_new_behind(p->loop, p->worker, p->config, before, error, sizeof error, &status);
    if (!lim)
        fail_msg("%s", error);
    return lim;
}

static void open_process(struct process *p, const char *settings)
{
    now = 1000 * NS_PER_S;
    wall = 1700000000 * NS_PER_S;
    strcpy(folder, "/tmp/lb-export-XXXXXX");
    assert_non_null(mkdtemp(folder));
    begin_process(p, settings);
    p->lim = load(p, NULL);
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *ftw)
{
    (void)st;
    (void)kind;
    (void)ftw;
    return remove(path);
}

static void end_process(struct process *p)
{
    worker_free(p->worker);
    limiter_free(p->lim);
    loop_free(p->loop);
    config_put(p->config);
}

static void close_process(struct process *p)
{
    end_process(p);
    log_fini();
    nftw(folder, remove_one, 8, FTW_DEPTH);
}

static void on_closed(void *arg, bool ok)
{
    *(bool *)arg = true;
    assert_true(ok);
}

static void leave(struct process *p)
{
    bool closed = false;
    limiter_close(p->lim, on_closed, &closed);
    while (!closed)
        loop_turn(p->loop, TIMER_NEVER);
    limiter_leave(p->lim);
}

static bool ask(struct process *p, const char *from, const char *name)
{
    struct field field = {STR("X-Client-ID"), str_of(name ? name : ""), FIELD_OTHER};
    struct headers h = {.v = &field, .n = name != NULL, .max = 1};
    struct peer peer = {.is_unix = !from};
    if (from)
        assert_true(ip_parse(str_of(from), &peer.ip));
    limiter_ask(p->lim, &peer, &h, &p->answer);
    return p->answer.error == ERR_OK;
}

static unsigned passing(struct process *p, const char *from)
{
    unsigned n = 0;
    while (ask(p, from, NULL))
        assert_in_range(++n, 1, 100);
    return n;
}

static bool registered;

static void on_registered(struct client_change *c, enum err e)
{
    (void)c;
    assert_int_equal(e, ERR_OK);
    registered = true;
}

static void register_client(struct process *p, const char *id, double capacity, double rate)
{
    struct client_change change = {.done = on_registered};
    struct client_fields f = {.v.set = {capacity, rate, CLIENT_ENFORCE}};
    snprintf(f.v.id, sizeof f.v.id, "%s", id);
    registered = false;
    assert_int_equal(clients_register(p->lim, &f, &change), ERR_OK);
    while (!registered)
        loop_turn(p->loop, TIMER_NEVER);
}

#define SLOW "\"default\":{\"capacity\":5,\"rate_per_sec\":0.01}"

#define FULL SLOW ",\"max_tracked\":3"

/* Three have buckets, and 10.0.1.0 shares one with its /16. */
static void fill(struct process *p)
{
    open_process(p, FULL);
    for (unsigned i = 1; i <= 3; i++) {
        char ip[32];
        snprintf(ip, sizeof ip, "10.0.0.%u", i);
        assert_true(ask(p, ip, NULL));
    }
    assert_int_equal(passing(p, "10.0.1.1"), 5);
    assert_true(ask(p, NULL, NULL));
}

/* ---- the process goes on itself ---- */

static void expect_totals(struct process *p, const char *id, uint64_t allowed, uint64_t limited)
{
    struct client_view v;
    assert_int_equal(clients_get(p->lim, id, &v), ERR_OK);
    assert_int_equal(v.allowed, allowed);
    assert_int_equal(v.limited, limited);
}

static void nobody_went_on(void **state)
{
    (void)state;
    struct process p;
    fill(&p);
    register_client(&p, "u", 2, 0.01);
    assert_true(ask(&p, "10.0.0.1", "u"));
    assert_true(ask(&p, "10.0.0.1", "u"));
    assert_false(ask(&p, "10.0.0.1", "u"));
    leave(&p);
    pass(NS_PER_S);
    wall += 3600 * NS_PER_S;
    struct limiter_time time = limiter_time(p.lim);
    struct limiter *before = p.lim;
    p.lim = load(&p, &time);
    limiter_inherit(p.lim, before);
    limiter_free(before);
    expect_totals(&p, "u", 2, 1);
    assert_false(ask(&p, "10.0.0.1", "u"));
    expect_totals(&p, "u", 2, 2);
    assert_int_equal(passing(&p, "10.0.0.1"), 4);
    assert_int_equal(passing(&p, "10.0.1.1"), 0);
    assert_int_equal(passing(&p, NULL), 4);
    assert_int_equal(passing(&p, "203.0.113.7"), 5);
    register_client(&p, "v", 2, 0.01);
    close_process(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nobody_went_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
