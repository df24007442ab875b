/* The limiter on a clock of the test's own, which stands still but when the test moves it: what is logged once a
 * minute, fields to the second, and a flood of addresses that nobody could send in the time of a test. */
#include "base/clock.h"
#include "base/log.h"
#include "limit/clients.h"
#include "limit/limiter.h"

#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#define MINUTE (60 * NS_PER_S)

/* What everything that is linked here takes for the kernel's clocks. */
static uint64_t now;

int clock_gettime(clockid_t id, struct timespec *ts)
{
    (void)id;
    ts->tv_sec = (time_t)(now / NS_PER_S);
    ts->tv_nsec = (long)(now % NS_PER_S);
    return 0;
}

struct world {
    char folder[32];
    struct loop *loop;
    struct worker *worker;
    struct config *config;
    struct limiter *lim;
    struct limit_answer answer;
};

static void open_world(struct world *w, const char *settings)
{
    char text[1024], error[256];
    int status;
    struct buf errors = BUF_INIT;
    now = 1000 * NS_PER_S;
    strcpy(w->folder, "/tmp/lb-time-XXXXXX");
    assert_non_null(mkdtemp(w->folder));
    snprintf(text, sizeof text,
             "{\"backends\":[{\"address\":\"127.0.0.1:1\"}],\"trusted_proxies\":[\"127.0.0.1\"],"
             "\"rate_limit\":{\"clients_file\":\"%s/clients.json\",\"save_interval\":\"1h\",%s}}",
             w->folder, settings);
    w->config = config_parse(str_of(text), "test", NULL, &errors);
    if (!w->config)
        fail_msg("%.*s", STR_ARG(buf_str(&errors)));
    w->loop = loop_new();
    w->worker = worker_new(w->loop, "test");
    w->lim = limiter_new(w->loop, w->worker, w->config, error, sizeof error, &status);
    if (!w->lim)
        fail_msg("%s", error);
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
    worker_free(w->worker);
    limiter_free(w->lim);
    loop_free(w->loop);
    config_put(w->config);
    log_fini();
    nftw(w->folder, remove_one, 8, FTW_DEPTH);
}

static void pass(struct world *w, uint64_t ns)
{
    now += ns;
    loop_turn(w->loop, 0);
}

static bool registered;

static void on_registered(struct client_change *c, enum err e)
{
    (void)c;
    assert_int_equal(e, ERR_OK);
    registered = true;
}

static void register_client(struct world *w, const char *id, const struct client_settings *s)
{
    struct client_change change = {.done = on_registered};
    struct client_fields f = {.v.set = *s};
    snprintf(f.v.id, sizeof f.v.id, "%s", id);
    registered = false;
    assert_int_equal(clients_register(w->lim, &f, &change), ERR_OK);
    while (!registered)
        loop_turn(w->loop, TIMER_NEVER);
}

/* A request of that address (host byte order), with that X-Client-ID (NULL: none). */
static enum err ask(struct world *w, unsigned address, const char *name)
{
    struct field field = {STR("X-Client-ID"), str_of(name ? name : ""), FIELD_OTHER};
    struct headers h = {.v = &field, .n = name != NULL, .max = 1};
    struct peer peer = {.ip = {.b = {[10] = 0xff, [11] = 0xff, (uint8_t)(address >> 24), (uint8_t)(address >> 16),
                                     (uint8_t)(address >> 8), (uint8_t)address}}};
    limiter_ask(w->lim, &peer, &h, &w->answer);
    return w->answer.error;
}

/* ---- once a minute ---- */

/* The log has exactly one line of that event since the last call, about so many requests; none for 0. */
static void expect_line(const char *event, unsigned requests)
{
    struct buf lines = BUF_INIT;
    char text[4096], wanted[64];
    log_take(&lines);
    assert_true(lines.len < sizeof text);
    snprintf(text, sizeof text, "%.*s", STR_ARG(buf_str(&lines)));
    buf_fini(&lines);
    snprintf(wanted, sizeof wanted, "%s requests=%u\n", event, requests);
    const char *found = strstr(text, event);
    if (requests == 0 ? found != NULL : !found || strncmp(found, wanted, strlen(wanted)) != 0)
        fail_msg("not \"%s %u\" but: %s", event, requests, text);
    if (found && strstr(found + 1, event))
        fail_msg("more than one line of %s: %s", event, text);
}

/* `some` makes the event happen that often: the first time at once, then a line each minute in which it did. */
static void expect_once_a_minute(struct world *w, const char *event, void (*some)(struct world *w, unsigned times))
{
    some(w, 1);
    expect_line(event, 1);
    some(w, 7);
    pass(w, MINUTE - 1);
    expect_line(event, 0);
    some(w, 2);
    pass(w, 1);
    expect_line(event, 9);
    some(w, 3);
    pass(w, MINUTE - 1);
    expect_line(event, 0);
    pass(w, 1);
    expect_line(event, 3);
    pass(w, MINUTE); /* in which nothing happens, so that the next one is news again */
    expect_line(event, 0);
    some(w, 1);
    expect_line(event, 1);
}

static void share_an_overflow_bucket(struct world *w, unsigned times)
{
    while (times--)
        assert_int_equal(ask(w, 0x0a000002, NULL), ERR_RATE_LIMITED);
}

static void overflow_is_told_once_a_minute(void **state)
{
    (void)state;
    struct world w;
    open_world(&w, "\"max_tracked\":1,\"default\":{\"capacity\":1,\"rate_per_sec\":1e-9}");
    assert_int_equal(ask(&w, 0x0a000001, NULL), ERR_OK);
    assert_int_equal(ask(&w, 0x0a000003, NULL), ERR_OK);
    expect_line("limit_overflow", 1);
    pass(&w, MINUTE);
    expect_once_a_minute(&w, "limit_overflow", share_an_overflow_bucket);
    close_world(&w);
}

static void be_limited_in_shadow(struct world *w, unsigned times)
{
    while (times--) {
        assert_int_equal(ask(w, 0x0a000001, "s"), ERR_OK);
        assert_true(w->answer.shadow_limited);
    }
}

static void shadow_is_told_once_a_minute(void **state)
{
    (void)state;
    struct world w;
    open_world(&w, "\"max_tracked\":1");
    register_client(&w, "s", &(struct client_settings){1, 1e-9, CLIENT_SHADOW});
    assert_int_equal(ask(&w, 0x0a000001, "s"), ERR_OK);
    expect_once_a_minute(&w, "limit_shadow", be_limited_in_shadow);
    close_world(&w);
}

static void on_closed(void *arg, bool ok)
{
    *(bool *)arg = true;
    assert_true(ok);
}

/* What has been counted since the last line is not lost with the process. */
static void the_stop_tells_the_rest(void **state)
{
    (void)state;
    struct world w;
    bool closed = false;
    open_world(&w, "\"max_tracked\":1");
    register_client(&w, "s", &(struct client_settings){1, 1e-9, CLIENT_SHADOW});
    assert_int_equal(ask(&w, 0x0a000001, "s"), ERR_OK);
    be_limited_in_shadow(&w, 1);
    expect_line("limit_shadow", 1);
    be_limited_in_shadow(&w, 5);
    limiter_close(w.lim, on_closed, &closed);
    expect_line("limit_shadow", 5);
    while (!closed)
        loop_turn(w.loop, TIMER_NEVER);
    close_world(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(overflow_is_told_once_a_minute),
        cmocka_unit_test(shadow_is_told_once_a_minute),
        cmocka_unit_test(the_stop_tells_the_rest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
