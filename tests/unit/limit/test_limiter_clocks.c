/* The limiter on clocks of the test's own that do not go together: the wall clock is set, the machine sleeps, while a
 * process runs and between two. What buckets gain is what the true time makes, to the nanosecond. */
#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "limit/clients.h"
#include "limit/limiter.h"

#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#define HOUR (3600 * NS_PER_S)

/* What everything that is linked here takes for the kernel's clocks. */
static uint64_t awake, asleep, wall;

/* How long it takes to read one: the process may be held up before the next. */
static uint64_t reading;

int clock_gettime(clockid_t id, struct timespec *ts)
{
    awake += reading;
    wall += reading;
    uint64_t t = id == CLOCK_REALTIME ? wall : id == CLOCK_BOOTTIME ? awake + asleep : awake;
    ts->tv_sec = (time_t)(t / NS_PER_S);
    ts->tv_nsec = (long)(t % NS_PER_S);
    return 0;
}

/* ---- what happens to the clocks ---- */

static void pass(uint64_t ns)
{
    awake += ns;
    wall += ns;
}

static void sleep_for(uint64_t ns)
{
    asleep += ns;
    wall += ns;
}

static void set_wall(int64_t by)
{
    wall += (uint64_t)by;
}

static void set_forward(void)
{
    set_wall((int64_t)HOUR);
}

static void set_back(void)
{
    set_wall(-(int64_t)HOUR);
}

static void leave_it(void)
{
}

static void (*const steps[])(void) = {set_forward, set_back, leave_it};

#define STEPS (sizeof steps / sizeof *steps)

/* ---- a process ---- */

struct process {
    struct loop *loop;
    struct worker *worker;
    struct config *config;
    struct limiter *lim;
    struct limit_answer answer;
};

static char folder[32];

static void begin(struct process *p, const struct limiter_time *before)
{
    char text[1024], error[256];
    enum store_outcome outcome;
    struct buf errors = BUF_INIT;
    snprintf(text, sizeof text,
             "{\"backends\":[{\"address\":\"127.0.0.1:1\"}],\"rate_limit\":{\"clients_file\":\"%s/clients.json\","
             "\"save_interval\":\"24h\",\"default\":{\"capacity\":5,\"rate_per_sec\":1}}}",
             folder);
    p->config = config_parse(str_of(text), "test", NULL, &errors);
    if (!p->config)
        fail_msg("%.*s", STR_ARG(buf_str(&errors)));
    p->loop = loop_new();
    p->worker = worker_new(p->loop, "test");
    p->lim = limiter_new_behind(p->loop, p->worker, p->config, before, error, sizeof error, &outcome);
    if (!p->lim)
        fail_msg("%s", error);
}

static void start(struct process *p)
{
    begin(p, NULL);
    limiter_recall(p->lim);
    limiter_serves(p->lim);
    worker_drain(p->worker);
}

/* As `kill -9` ends it: nothing is saved. */
static void end(struct process *p)
{
    worker_free(p->worker);
    limiter_free(p->lim);
    loop_free(p->loop);
    config_put(p->config);
}

static void on_done(void *arg, bool ok)
{
    *(bool *)arg = true;
    assert_true(ok);
}

static void stop(struct process *p)
{
    bool done = false;
    limiter_stop(p->lim, on_done, &done);
    while (!done)
        loop_turn(p->loop, TIMER_NEVER);
    end(p);
}

/* Another process is to go on: `text` is what it is told. */
static void leave(struct process *p, struct buf *text)
{
    bool done = false;
    struct limiter_export e = {.buckets.words = true};
    limiter_close(p->lim, on_done, &done);
    while (!done)
        loop_turn(p->loop, TIMER_NEVER);
    limiter_leave(p->lim);
    while (!e.buckets.ended)
        assert_true(limiter_export(p->lim, &e, 1000, text));
    end(p);
}

static void follow(struct process *p, struct buf *text)
{
    struct limiter_time before;
    assert_true(limiter_exported_time(buf_str(text), &before));
    begin(p, &before);
    assert_true(limiter_import(p->lim, buf_str(text)));
    buf_fini(text);
}

static void open_process(struct process *p)
{
    awake = 1000 * NS_PER_S;
    asleep = 0;
    wall = 1700000000 * NS_PER_S;
    strcpy(folder, "/tmp/lb-clocks-XXXXXX");
    assert_non_null(mkdtemp(folder));
    start(p);
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *ftw)
{
    (void)st;
    (void)kind;
    (void)ftw;
    return remove(path);
}

static void close_process(struct process *p)
{
    end(p);
    log_fini();
    nftw(folder, remove_one, 8, FTW_DEPTH);
}

/* ---- its clients ---- */

static bool changed;

static void on_changed(struct client_change *c, enum err e)
{
    (void)c;
    assert_int_equal(e, ERR_OK);
    changed = true;
}

typedef enum err change_fn(struct limiter *lim, const struct client_fields *f, struct client_change *c);

static void change(struct process *p, change_fn *how, const char *id, double capacity, double rate)
{
    struct client_change c = {.done = on_changed};
    struct client_fields f = {.given = CLIENT_ID | CLIENT_CAPACITY | CLIENT_RATE,
                              .v.set = {capacity, rate, CLIENT_ENFORCE}};
    snprintf(f.v.id, sizeof f.v.id, "%s", id);
    changed = false;
    assert_int_equal(how(p->lim, &f, &c), ERR_OK);
    while (!changed)
        loop_turn(p->loop, TIMER_NEVER);
}

/* Whose request: a registered one's, an address', or one over a unix socket. */
enum who { NAMED, ADDRESS, UNIX, WHOS };

static bool ask(struct process *p, enum who who)
{
    struct field field = {STR("X-Client-ID"), STR("named"), FIELD_OTHER};
    struct headers h = {.v = &field, .n = who == NAMED, .max = 1};
    struct peer peer = {.is_unix = who == UNIX, .ip = {.b = {[10] = 0xff, [11] = 0xff, 10, 0, 0, 1}}};
    limiter_ask(p->lim, &peer, &h, &p->answer);
    assert_int_equal(p->answer.registered, who == NAMED);
    return p->answer.error == ERR_OK;
}

static unsigned passing(struct process *p, enum who who)
{
    unsigned n = 0;
    while (ask(p, who))
        assert_in_range(++n, 1, 100);
    return n;
}

static void expect_passing(struct process *p, unsigned n)
{
    for (enum who who = 0; who < WHOS; who++)
        if (passing(p, who) != n)
            fail_msg("client %d: not %u", who, n);
}

static void register_named(struct process *p)
{
    change(p, clients_register, "named", 5, 1);
}

/* ---- while a process runs ---- */

/* Nobody gains by it, nobody waits for it, and nobody is told something else. */
static void the_wall_clock_is_set(void **state)
{
    (void)state;
    struct process p;
    open_process(&p);
    register_named(&p);
    expect_passing(&p, 5);
    for (unsigned i = 0; i < STEPS; i++) {
        steps[i]();
        loop_turn(p.loop, 0);
        expect_passing(&p, 0);
        pass(NS_PER_S - 1);
        expect_passing(&p, 0);
        assert_int_equal(p.answer.retry_after_s, 1);
        pass(1);
        expect_passing(&p, 1);
        for (unsigned n = 0; n < 10; n++) { /* at its rate, with steps in between */
            pass(400 * NS_PER_MS);
            steps[n % STEPS]();
            pass(600 * NS_PER_MS);
            for (enum who who = 0; who < WHOS; who++)
                assert_true(ask(&p, who));
        }
        expect_passing(&p, 0);
    }
    close_process(&p);
}

/* What is saved, and written to the journal, is dated by the wall clock, whatever that shows; and what is killed then
 * has left its buckets. */
static void changes_and_kills_while_the_wall_clock_is_set(void **state)
{
    (void)state;
    struct process p;
    open_process(&p);
    register_named(&p);
    expect_passing(&p, 5);
    for (unsigned i = 0; i < 2 * STEPS; i++) {
        steps[i % STEPS]();
        change(&p, clients_update, "named", 5, i % 2 ? 1 : 2);
        steps[(i + 1) % STEPS]();
        assert_int_equal(passing(&p, NAMED), 0);
        end(&p);
        steps[i / STEPS]();
        start(&p);
        assert_int_equal(passing(&p, NAMED), 0);
        pass(NS_PER_S + NS_PER_MS);
        assert_int_equal(passing(&p, NAMED), i % 2 ? 1 : 2);
    }
    close_process(&p);
}

/* The buckets fill while the machine sleeps, and no further than they do. */
static void the_machine_sleeps(void **state)
{
    (void)state;
    struct process p;
    open_process(&p);
    register_named(&p);
    expect_passing(&p, 5);
    sleep_for(HOUR);
    expect_passing(&p, 5); /* in the first turn behind it, before any timer */
    sleep_for(2 * NS_PER_S - 1);
    expect_passing(&p, 1);
    assert_int_equal(p.answer.retry_after_s, 1);
    pass(1);
    expect_passing(&p, 1);
    pass(HOUR);
    sleep_for(HOUR);
    expect_passing(&p, 5);
    for (unsigned n = 0; n < 10; n++) { /* at its rate by the true time */
        sleep_for(NS_PER_S - 100 * NS_PER_MS - n);
        pass(100 * NS_PER_MS + n - 1);
        expect_passing(&p, 0);
        pass(1);
        expect_passing(&p, 1);
    }
    close_process(&p);
}

/* ---- between two ---- */

/* What is kept over a stop is rounded to less, by two nanoseconds of the rate: 2 s less a millisecond are one token. */
static void expect_tokens_of_two_seconds(struct process *p)
{
    expect_passing(p, 1);
    pass(2 * NS_PER_MS);
    expect_passing(p, 1);
}

/* In the same boot the wall clock says nothing, of registered clients neither: be it set while nobody runs, or before,
 * when nothing is saved any more. */
static void a_start_behind_a_step(void **state)
{
    (void)state;
    struct process p;
    open_process(&p);
    register_named(&p);
    for (unsigned i = 0; i < STEPS * STEPS; i++) {
        pass(10 * NS_PER_S);
        steps[i / STEPS]();
        expect_passing(&p, 5);
        stop(&p);
        pass(NS_PER_S - NS_PER_MS);
        start(&p);
        steps[i % STEPS]();
        stop(&p); /* nothing has moved */
        steps[i / STEPS]();
        pass(NS_PER_S);
        start(&p);
        expect_tokens_of_two_seconds(&p);
    }
    close_process(&p);
}

/* What stands behind the clients in their file. */
static void rewrite_end(const char *with)
{
    char path[64];
    struct buf text = BUF_INIT;
    snprintf(path, sizeof path, "%s/clients.json", folder);
    assert_int_equal(file_read(path, 1 << 20, &text), 0);
    assert_true(buf_append(&text, "", 1));
    const char *end = strstr(buf_bytes(&text), ",\"boot\":\"");
    assert_non_null(end);
    text.len = (size_t)(end - buf_bytes(&text));
    assert_true(buf_append_str(&text, str_of(with)));
    assert_int_equal(file_replace(path, buf_str(&text)), 0);
    buf_fini(&text);
}

/* In another one, or where the file does not say in which it was saved (it has been written by hand, or by a system
 * that tells no boots apart), there is nothing else. */
static void where_the_wall_clock_is_all_there_is(void **state)
{
    (void)state;
    static const char *const ends[] = {",\"boot\":\"4711 1000000000000\"}\n", "}\n"};
    static const struct {
        int64_t step_s;
        unsigned passing;
    } cases[] = {{3, 3}, {-3, 0}, {0, 0}, {1000, 5}};
    struct process p;
    open_process(&p);
    register_named(&p);
    for (unsigned i = 0; i < 8; i++) {
        pass(10 * NS_PER_S);
        assert_int_equal(passing(&p, NAMED), 5);
        stop(&p);
        rewrite_end(ends[i / 4]);
        set_wall(cases[i % 4].step_s * (int64_t)NS_PER_S + (int64_t)NS_PER_MS);
        start(&p);
        assert_int_equal(passing(&p, NAMED), cases[i % 4].passing);
    }
    close_process(&p);
}

/* The machine has slept before, sleeps between a stop and a start, and sleeps again: what it slept counts once. */
static void a_start_behind_a_sleep(void **state)
{
    (void)state;
    struct process p;
    open_process(&p);
    register_named(&p);
    sleep_for(HOUR);
    expect_passing(&p, 5);
    stop(&p);
    sleep_for(2 * NS_PER_S - NS_PER_MS);
    start(&p);
    expect_tokens_of_two_seconds(&p);
    sleep_for(HOUR);
    expect_passing(&p, 5);
    stop(&p);
    pass(NS_PER_S);
    sleep_for(NS_PER_S - NS_PER_MS);
    start(&p);
    expect_tokens_of_two_seconds(&p);
    close_process(&p);
}

/* Of those that are not registered a kill leaves nothing. */
static void a_kill_and_a_sleep(void **state)
{
    (void)state;
    struct process p;
    open_process(&p);
    register_named(&p);
    for (unsigned i = 0; i < 3; i++) {
        sleep_for(i * HOUR);
        (void)passing(&p, NAMED);
        end(&p);
        pass(NS_PER_MS);
        sleep_for(2 * NS_PER_S - 2 * NS_PER_MS);
        start(&p);
        assert_int_equal(passing(&p, NAMED), 1);
        pass(2 * NS_PER_MS);
        assert_int_equal(passing(&p, NAMED), 1);
    }
    close_process(&p);
}

static void an_upgrade_and_a_sleep(void **state)
{
    (void)state;
    struct process p;
    open_process(&p);
    register_named(&p);
    for (unsigned i = 0; i < 3; i++) {
        struct buf text = BUF_INIT;
        sleep_for(i * HOUR);
        pass(10 * NS_PER_S);
        expect_passing(&p, 5);
        leave(&p, &text);
        pass(NS_PER_MS);
        sleep_for(2 * NS_PER_S - 2 * NS_PER_MS);
        follow(&p, &text);
        expect_tokens_of_two_seconds(&p);
    }
    close_process(&p);
}

/* The boot in which the file of unregistered clients was written is another one. */
static void change_boot_of_unregistered(void)
{
    char path[80];
    struct buf text = BUF_INIT, other = BUF_INIT;
    snprintf(path, sizeof path, "%s/clients.json.unregistered", folder);
    assert_int_equal(file_read(path, 1 << 20, &text), 0);
    assert_true(buf_append(&text, "", 1));
    char *boot = strstr(buf_bytes(&text), "stopped ");
    assert_non_null(boot);
    boot += strlen("stopped ");
    assert_true(buf_append(&other, buf_bytes(&text), (size_t)(boot - buf_bytes(&text))));
    assert_true(buf_append_str(&other, STR("4711")) && buf_append_str(&other, str_of(strchr(boot, ' '))));
    assert_int_equal(file_replace(path, buf_str(&other)), 0);
    buf_fini(&other);
    buf_fini(&text);
}

/* In another boot, or of a file without one, the wall clock says how old the tokens are. What passes between its
 * reading and that of the buckets' clock is not counted twice. */
static void a_start_held_up_between_two_readings(void **state)
{
    (void)state;
    struct process p;
    open_process(&p);
    register_named(&p);
    expect_passing(&p, 5);
    uint64_t emptied = awake;
    stop(&p);
    rewrite_end("}\n");
    change_boot_of_unregistered();
    reading = 20 * NS_PER_MS;
    start(&p);
    reading = 0;
    uint64_t since = awake - emptied, seconds = since / NS_PER_S;
    assert_in_range(seconds, 0, 4);
    pass((seconds + 1) * NS_PER_S - since - NS_PER_MS); /* a thousandth of a second before the next token */
    expect_passing(&p, (unsigned)seconds);
    close_process(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_wall_clock_is_set),
        cmocka_unit_test(changes_and_kills_while_the_wall_clock_is_set),
        cmocka_unit_test(the_machine_sleeps),
        cmocka_unit_test(a_start_behind_a_step),
        cmocka_unit_test(where_the_wall_clock_is_all_there_is),
        cmocka_unit_test(a_start_held_up_between_two_readings),
        cmocka_unit_test(a_start_behind_a_sleep),
        cmocka_unit_test(a_kill_and_a_sleep),
        cmocka_unit_test(an_upgrade_and_a_sleep),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
