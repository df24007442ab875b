/* Unit tests of limit/export.c: another process goes on with the limiter's files and buckets. Nobody has a token more,
 * nobody who asks no faster than its rate is refused, and nobody pays for others. The clocks are the test's own. */
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
#include <sys/random.h>
#include <sys/stat.h>
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
    enum store_outcome outcome;
    struct limiter *lim = limiter_new_behind(p->loop, p->worker, p->config, before, error, sizeof error, &outcome);
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

static void tell(struct process *p, bool words, struct buf *out)
{
    struct limiter_export e = {.buckets.words = words};
    while (!e.buckets.ended)
        assert_true(limiter_export(p->lim, &e, 1000, out));
}

static int64_t wall_step; /* ns by which the wall clock is set when nobody has the files */

/* Another process goes on, after `ns`, under those settings. */
static void hand_over(struct process *p, const char *settings, bool words, uint64_t ns)
{
    struct buf text = BUF_INIT;
    struct limiter_time before;
    leave(p);
    tell(p, words, &text);
    end_process(p);
    pass(ns);
    wall += (uint64_t)wall_step;
    begin_process(p, settings);
    assert_int_equal(limiter_exported_time(buf_str(&text), &before), words);
    p->lim = load(p, words ? &before : NULL);
    assert_true(limiter_import(p->lim, buf_str(&text)));
    buf_fini(&text);
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

/* ---- who pays ---- */

/* Networks of another size begin with what those had that they overlap; nobody else does. */
static void networks_of_another_size(void **state)
{
    (void)state;
    for (unsigned words = 0; words < 2; words++) {
        struct process p;
        open_process(&p, SLOW ",\"ipv6_prefix\":64");
        assert_int_equal(passing(&p, "2001:db8:1:2::9"), 5);
        assert_true(ask(&p, "192.0.2.1", NULL));
        hand_over(&p, SLOW ",\"ipv6_prefix\":56", words, NS_PER_MS);
        assert_int_equal(passing(&p, "2001:db8:1:2::9"), 0);
        assert_int_equal(passing(&p, "2001:db8:1:ff::1"), 0);
        assert_int_equal(passing(&p, "2001:db8:2:2::1"), 0); /* of the same /32 */
        assert_int_equal(passing(&p, "192.0.2.1"), 4);
        assert_int_equal(passing(&p, "203.0.113.7"), 5);
        assert_int_equal(passing(&p, "2a00:1450::1"), 5);
        close_process(&p);
    }
}

/* Those of a network larger than a /32 may be charged in many overflow buckets. */
static void wide_networks(void **state)
{
    (void)state;
    static const char *const settings[] = {SLOW ",\"ipv6_prefix\":24", SLOW ",\"ipv6_prefix\":64"};
    for (unsigned i = 0; i < 4; i++) {
        struct process p;
        open_process(&p, settings[i % 2]);
        assert_int_equal(passing(&p, "2001:db8:1:2::9"), 5);
        hand_over(&p, settings[1 - i % 2], i / 2, NS_PER_MS);
        assert_int_equal(passing(&p, "2001:db8:1:2::9"), 0);
        assert_int_equal(passing(&p, "2001:dff::1"), 0);
        close_process(&p);
    }
}

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

/* An overflow bucket in use is its networks', there as here; who has a bucket keeps it. */
static void overflow_buckets(void **state)
{
    (void)state;
    struct process p;
    fill(&p);
    for (unsigned i = 0; i < 3; i++) {
        hand_over(&p, i < 2 ? FULL : SLOW, true, NS_PER_MS);
        assert_int_equal(passing(&p, "10.0.1.1"), 0);
    }
    assert_int_equal(passing(&p, "10.0.0.1"), 4);
    assert_int_equal(passing(&p, NULL), 4);
    assert_int_equal(passing(&p, "10.0.9.9"), 0);
    assert_int_equal(passing(&p, "10.1.1.1"), 5);
    assert_int_equal(passing(&p, "203.0.113.7"), 5);
    assert_int_equal(passing(&p, "2a00:1450::1"), 5);
    close_process(&p);
}

/* Where it is not known whose they are, everybody begins with no more than the emptiest holds. */
static void overflow_buckets_of_unknown_places(void **state)
{
    (void)state;
    struct process p;
    fill(&p);
    hand_over(&p, SLOW, false, NS_PER_MS);
    assert_int_equal(passing(&p, "10.0.1.1"), 0);
    assert_int_equal(passing(&p, "203.0.113.7"), 0);
    assert_int_equal(passing(&p, "10.0.0.1"), 4);
    close_process(&p);

    for (unsigned i = 0; i < 2; i++) { /* another number of them, another hash */
        struct buf text = BUF_INIT;
        struct limiter_time before;
        fill(&p);
        leave(&p);
        tell(&p, true, &text);
        end_process(&p);
        char *number = memmem(buf_bytes(&text), text.len, " 65536 ", 7);
        assert_non_null(number);
        number[i == 0 ? 1 : 7] ^= 1;
        begin_process(&p, SLOW);
        assert_true(limiter_exported_time(buf_str(&text), &before));
        p.lim = load(&p, &before);
        assert_true(limiter_import(p.lim, buf_str(&text)));
        buf_fini(&text);
        assert_int_equal(passing(&p, "10.0.1.1"), 0);
        assert_int_equal(passing(&p, "203.0.113.7"), 0);
        assert_int_equal(passing(&p, "10.0.0.1"), 4);
        close_process(&p);
    }
}

/* With room for fewer, those that have none share what the emptiest of them had. */
static void less_room(void **state)
{
    (void)state;
    struct process p;
    open_process(&p, SLOW);
    for (unsigned i = 1; i <= 3; i++) {
        char ip[32];
        snprintf(ip, sizeof ip, "10.0.0.%u", i);
        assert_int_equal(passing(&p, ip), 5);
    }
    hand_over(&p, SLOW ",\"max_tracked\":1", true, NS_PER_MS);
    for (unsigned i = 1; i <= 4; i++) {
        char ip[32];
        snprintf(ip, sizeof ip, "10.0.0.%u", i);
        assert_int_equal(passing(&p, ip), 0);
    }
    close_process(&p);
}

static void another_default(void **state)
{
    (void)state;
    struct process p;
    open_process(&p, SLOW);
    assert_true(ask(&p, "10.0.0.1", NULL));
    assert_int_equal(passing(&p, "10.0.0.2"), 5);
    hand_over(&p, "\"default\":{\"capacity\":50,\"rate_per_sec\":100}", true, NS_PER_MS);
    assert_int_equal(passing(&p, "10.0.0.1"), 4);
    assert_int_equal(passing(&p, "10.0.0.2"), 0);
    pass(500 * NS_PER_MS);
    assert_int_equal(passing(&p, "10.0.0.2"), 50);
    hand_over(&p, "\"default\":{\"capacity\":2,\"rate_per_sec\":0.01}", true, 0);
    assert_int_equal(passing(&p, "10.0.0.2"), 0);
    assert_int_equal(passing(&p, "10.0.0.1"), 2);
    close_process(&p);
}

/* ---- time ---- */

/* What passes between two processes counts, to the nanosecond: a client that asks at its rate is not refused, and one
 * that asks sooner is. */
static void time_between_two_counts(void **state)
{
    (void)state;
    struct process p;
    open_process(&p, "\"default\":{\"capacity\":1,\"rate_per_sec\":1}");
    for (unsigned i = 0; i < 20; i++) {
        assert_true(ask(&p, "10.0.0.1", NULL));
        assert_true(ask(&p, NULL, NULL));
        pass(123456789 + i);
        hand_over(&p, "\"default\":{\"capacity\":1,\"rate_per_sec\":1}", true, 500 * NS_PER_MS);
        pass(NS_PER_S - 500 * NS_PER_MS - 123456789 - i - 10);
        assert_false(ask(&p, "10.0.0.1", NULL));
        assert_false(ask(&p, NULL, NULL));
        pass(10);
    }
    close_process(&p);
}

/* Older versions tell no time: nothing is gained then. */
static void without_a_time_nothing_is_gained(void **state)
{
    (void)state;
    struct process p;
    open_process(&p, "\"default\":{\"capacity\":1,\"rate_per_sec\":1}");
    assert_true(ask(&p, "10.0.0.1", NULL));
    hand_over(&p, "\"default\":{\"capacity\":1,\"rate_per_sec\":1}", false, 500 * NS_PER_MS);
    pass(NS_PER_S - 1 * NS_PER_MS);
    assert_false(ask(&p, "10.0.0.1", NULL));
    pass(1 * NS_PER_MS);
    assert_true(ask(&p, "10.0.0.1", NULL));
    close_process(&p);
}

/* The wall clock is set while no process has the files: registered clients have what the true time has made. */
static void the_wall_clock_is_set(void **state)
{
    (void)state;
    static const int64_t steps_s[] = {3600, -3600, 0};
    struct process p;
    open_process(&p, SLOW);
    register_client(&p, "u", 5, 0.01);
    for (unsigned i = 0; i < 5; i++)
        assert_true(ask(&p, "10.0.0.1", "u"));
    for (unsigned i = 0; i < 6; i++) {
        wall_step = steps_s[i % 3] * (int64_t)NS_PER_S;
        hand_over(&p, SLOW, true, 32 * NS_PER_S); /* in the second half nothing has moved, and nothing is saved */
        assert_false(ask(&p, "10.0.0.1", "u"));
        if (i >= 3)
            continue;
        pass(69 * NS_PER_S);
        assert_true(ask(&p, "10.0.0.1", "u"));
        assert_false(ask(&p, "10.0.0.1", "u"));
    }
    wall_step = 0;
    pass(2 * NS_PER_S);
    assert_true(ask(&p, "10.0.0.1", "u"));
    close_process(&p);
}

/* ---- a stop, and a start ---- */

static const char *kept_path(void)
{
    static char path[64];
    snprintf(path, sizeof path, "%s/clients.json.unregistered", folder);
    return path;
}

static void stop(struct process *p)
{
    bool stopped = false;
    limiter_stop(p->lim, on_closed, &stopped);
    while (!stopped)
        loop_turn(p->loop, TIMER_NEVER);
    end_process(p);
}

static void start(struct process *p, const char *settings)
{
    begin_process(p, settings);
    p->lim = load(p, NULL);
    limiter_recall(p->lim);
}

static void restart(struct process *p, const char *settings, uint64_t ns)
{
    stop(p);
    pass(ns);
    start(p, settings);
}

static void serve(struct process *p)
{
    limiter_serves(p->lim);
    worker_drain(p->worker);
}

/* Rewrites what is kept with those bits set in the word of that address. */
static void put_word(const char *address, uint64_t bits)
{
    struct buf text = BUF_INIT, changed = BUF_INIT;
    char name[32];
    assert_int_equal(file_read(kept_path(), 1 << 20, &text), 0);
    assert_true(buf_append(&text, "", 1));
    snprintf(name, sizeof name, "\n%s ", address);
    char *at = strstr(buf_bytes(&text), name), *rest;
    assert_non_null(at);
    at += strlen(name);
    uint64_t word = strtoull(at, &rest, 10);
    assert_true(buf_printf(&changed, "%.*s%llu%s", (int)(at - buf_bytes(&text)), buf_bytes(&text),
                           (unsigned long long)(word | bits), rest));
    assert_int_equal(file_replace(kept_path(), buf_str(&changed)), 0);
    buf_fini(&text);
    buf_fini(&changed);
}

#define EACH_SECOND "\"default\":{\"capacity\":5,\"rate_per_sec\":1}"

/* A word that no bucket can have had is that of an empty one, and nobody waits for years. */
static void damaged_words_are_of_empty_buckets(void **state)
{
    (void)state;
    struct process p;
    struct buf lines = BUF_INIT;
    open_process(&p, EACH_SECOND);
    pass(100 * NS_PER_S);
    assert_int_equal(passing(&p, "10.0.0.2"), 5);
    assert_true(ask(&p, "10.0.0.1", NULL));
    stop(&p);
    put_word("10.0.0.1", UINT64_C(1) << 60);
    log_take(&lines);
    buf_consume(&lines, lines.len);
    start(&p, EACH_SECOND);
    log_take(&lines);
    assert_true(buf_append(&lines, "", 1));
    assert_non_null(strstr(buf_bytes(&lines), "tokens_ignored"));
    assert_non_null(strstr(buf_bytes(&lines), "some of the words in it are damaged"));
    assert_int_equal(passing(&p, "10.0.0.1"), 0);
    pass(2 * NS_PER_S + NS_PER_MS);
    assert_int_equal(passing(&p, "10.0.0.1"), 2);
    assert_int_equal(passing(&p, "10.0.0.2"), 2);
    buf_fini(&lines);
    close_process(&p);
}

/* In the same boot the wall clock says nothing. (What is kept is rounded to less, by two nanoseconds of the rate.) */
static void stop_and_start(void **state)
{
    (void)state;
    struct process p;
    open_process(&p, EACH_SECOND);
    for (int i = -1; i <= 1; i++) {
        pass(100 * NS_PER_S);
        assert_int_equal(passing(&p, "10.0.0.1"), 5);
        assert_int_equal(passing(&p, "2001:db8::1"), 5);
        assert_int_equal(passing(&p, NULL), 5);
        wall += (uint64_t)((int64_t)i * 3600 * (int64_t)NS_PER_S);
        restart(&p, EACH_SECOND, 2 * NS_PER_S - NS_PER_MS);
        assert_int_equal(access(kept_path(), F_OK), 0);
        serve(&p);
        assert_int_equal(access(kept_path(), F_OK), -1);
        assert_int_equal(passing(&p, "10.0.0.1"), 1);
        assert_int_equal(passing(&p, "2001:db8::2"), 1); /* the same network */
        assert_int_equal(passing(&p, NULL), 1);
        pass(2 * NS_PER_MS);
        assert_int_equal(passing(&p, "10.0.0.1"), 1);
        assert_int_equal(passing(&p, NULL), 1);
        assert_int_equal(passing(&p, "2001:db8::1"), 1);
        assert_int_equal(passing(&p, "10.0.0.2"), 5);
    }
    close_process(&p);
}

/* Overflow buckets, another default, and a table that has become too small: as when a process hands over. */
static void stop_and_another_start(void **state)
{
    (void)state;
    struct process p;
    fill(&p);
    restart(&p, FULL, NS_PER_MS);
    assert_int_equal(passing(&p, "10.0.1.1"), 0);
    assert_int_equal(passing(&p, "10.2.1.1"), 5);
    assert_true(ask(&p, "10.0.0.2", NULL));
    restart(&p, "\"default\":{\"capacity\":50,\"rate_per_sec\":0.01}", NS_PER_MS);
    assert_int_equal(passing(&p, "10.0.0.1"), 4);
    assert_int_equal(passing(&p, "10.0.0.2"), 3);
    assert_int_equal(passing(&p, "10.2.1.1"), 0);
    assert_int_equal(passing(&p, "10.3.1.1"), 50);
    assert_int_equal(passing(&p, NULL), 4);
    restart(&p, SLOW ",\"max_tracked\":1", NS_PER_MS);
    assert_int_equal(passing(&p, "10.0.0.2"), 0);
    assert_int_equal(passing(&p, "10.0.0.1"), 0);
    assert_int_equal(passing(&p, NULL), 0);
    close_process(&p);
}

/* Full buckets are not kept, and what was kept before is past. A start that fails leaves it to the next. */
static void kept_as_long_as_it_counts(void **state)
{
    (void)state;
    struct process p;
    open_process(&p, EACH_SECOND);
    assert_int_equal(passing(&p, "10.0.0.1"), 5);
    restart(&p, EACH_SECOND, NS_PER_S);
    end_process(&p); /* killed, say, before it served */
    pass(NS_PER_S + NS_PER_MS);
    start(&p, EACH_SECOND);
    assert_int_equal(passing(&p, "10.0.0.1"), 2);
    restart(&p, EACH_SECOND, 0);
    assert_int_equal(access(kept_path(), F_OK), 0);
    pass(5 * NS_PER_S);
    restart(&p, EACH_SECOND, 0);
    assert_int_equal(access(kept_path(), F_OK), -1);
    assert_int_equal(passing(&p, "10.0.0.1"), 5);
    close_process(&p);
}

static void on_ended(void *arg, bool ok)
{
    *(int *)arg = ok;
}

/* Nobody says that all is saved when it is not. */
static void what_cannot_be_kept_is_told(void **state)
{
    (void)state;
    struct process p;
    struct buf lines = BUF_INIT;
    int ok = -1;
    open_process(&p, SLOW);
    assert_int_equal(passing(&p, "10.0.0.1"), 5);
    assert_int_equal(mkdir(kept_path(), 0700), 0);
    log_take(&lines);
    buf_consume(&lines, lines.len);
    limiter_stop(p.lim, on_ended, &ok);
    while (ok < 0)
        loop_turn(p.loop, TIMER_NEVER);
    assert_int_equal(ok, false);
    log_take(&lines);
    assert_true(buf_append(&lines, "", 1));
    assert_non_null(strstr(buf_bytes(&lines), "store_failed what=unregistered"));
    buf_fini(&lines);
    end_process(&p);
    assert_int_equal(rmdir(kept_path()), 0);
    char temp[80];
    snprintf(temp, sizeof temp, "%s.tmp", kept_path());
    assert_int_equal(access(temp, F_OK), -1);
    start(&p, SLOW);
    assert_int_equal(passing(&p, "10.0.0.1"), 5);
    close_process(&p);
}

static void write_kept(struct str text)
{
    FILE *f = fopen(kept_path(), "w");
    assert_non_null(f);
    assert_int_equal(fwrite(text.p, 1, text.n, f), text.n);
    assert_int_equal(fclose(f), 0);
}

static void read_kept(struct buf *out)
{
    FILE *f = fopen(kept_path(), "r");
    int c;
    assert_non_null(f);
    while ((c = fgetc(f)) != EOF)
        assert_true(buf_append(out, &(char){(char)c}, 1));
    fclose(f);
}

/* In another one the wall clock is all there is; what it has stepped back by counts as no time. */
static void start_in_another_boot(void **state)
{
    (void)state;
    static const struct {
        int64_t step_s;
        unsigned passing;
    } cases[] = {{3, 3}, {-3, 0}, {0, 0}, {1000, 5}};
    for (unsigned i = 0; i < 4; i++) {
        struct process p;
        struct buf text = BUF_INIT, other = BUF_INIT;
        open_process(&p, EACH_SECOND);
        assert_int_equal(passing(&p, "10.0.0.1"), 5);
        stop(&p);
        read_kept(&text);
        size_t boot = sizeof "stopped " - 1, end = str_find(str_make(text.block + boot, text.len - boot), ' ');
        assert_true(buf_printf(&other, "stopped 4711%.*s", (int)(text.len - boot - end), text.block + boot + end));
        write_kept(buf_str(&other));
        now = 20 * NS_PER_S;
        wall += (uint64_t)(cases[i].step_s * (int64_t)NS_PER_S + (int64_t)NS_PER_MS);
        start(&p, EACH_SECOND);
        assert_int_equal(passing(&p, "10.0.0.1"), cases[i].passing);
        pass(NS_PER_S + NS_PER_MS);
        assert_int_equal(passing(&p, "10.0.0.1"), 1);
        buf_fini(&text);
        buf_fini(&other);
        close_process(&p);
    }
}

/* Whatever is there, the process starts, and nobody has more than a full bucket. */
static void damaged(void **state)
{
    (void)state;
    struct process p;
    struct buf text = BUF_INIT;
    open_process(&p, SLOW);
    assert_int_equal(passing(&p, "10.0.0.1"), 5);
    stop(&p);
    read_kept(&text);
    assert_true(buf_append(&text, "", 1));
    const char *line = strstr(buf_bytes(&text), "\n10.0.0.1 ");
    assert_non_null(line);
    size_t read = (size_t)(strchr(line + 1, '\n') + 1 - buf_bytes(&text));
    text.len--;
    for (size_t n = 0; n < text.len; n++) {
        write_kept(str_make(text.block, n));
        start(&p, SLOW);
        assert_int_equal(passing(&p, "10.0.0.1"), n < read ? 5 : 0);
        serve(&p);
        assert_int_equal(access(kept_path(), F_OK), -1);
        end_process(&p);
    }
    assert_true(buf_append_str(&text, STR("10.0.0.2 1\n"))); /* behind its end */
    write_kept(buf_str(&text));
    start(&p, SLOW);
    assert_int_equal(passing(&p, "10.0.0.2"), 5);
    buf_fini(&text);
    close_process(&p);
}

/* ---- what nobody says ---- */

static void malformed(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "prefix 64",
        "prefix\n",
        "prefix 0\n",
        "prefix 129\n",
        "prefix 64 1\n",
        "192.0.2.1 x\n",
        "192.0.2.1 1 2\n",
        "192.0.2 1\n",
        "what 1\n",
        "stopped 1 2 3\n",
        "end 1\n",
        "* 1 2\n",
        "time 1 2 3\n",
        "time 1 2\n",
        "policy 1 2\n",
        "hash 1 2 3\n",
        "unix 1 2 3 4 5\n",
        "unix 18446744073709551615\n",
        "\n",
    };
    struct process p;
    struct limiter_time t;
    open_process(&p, SLOW);
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        if (limiter_import(p.lim, str_of(texts[i])))
            fail_msg("\"%s\" is taken", texts[i]);
    assert_true(limiter_import(p.lim, STR("")));
    assert_false(limiter_exported_time(STR(""), &t));
    assert_false(limiter_exported_time(STR("time 1 2\n"), &t));
    assert_false(limiter_exported_time(STR("time 1000000000001 0 1\n"), &t)); /* later than now */
    assert_false(limiter_exported_time(STR("time 999999999999 2 1\n"), &t));
    assert_true(limiter_exported_time(STR("time 999999999999 1 1\n"), &t));
    close_process(&p);
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

/* A loop that has other things to do between two parts finds nobody to be swept: a shard is half told perhaps. */
static void nothing_is_swept_meanwhile(void **state)
{
    (void)state;
    static const char settings[] = "\"default\":{\"capacity\":5,\"rate_per_sec\":1},\"max_tracked\":400";
    struct process p;
    struct limiter_export e = {.buckets.words = true};
    struct limiter_time before;
    struct buf text = BUF_INIT;
    char ip[32];
    open_process(&p, settings);
    for (unsigned i = 0; i < 20; i++) { /* soon full */
        snprintf(ip, sizeof ip, "10.0.1.%u", i);
        assert_true(ask(&p, ip, NULL));
    }
    for (unsigned i = 0; i < 50; i++) {
        snprintf(ip, sizeof ip, "10.0.2.%u", i);
        assert_int_equal(passing(&p, ip), 5);
    }
    leave(&p);
    pass(900 * NS_PER_MS);
    assert_true(limiter_export(p.lim, &e, 900, &text));
    assert_false(e.buckets.ended);
    pass(200 * NS_PER_MS); /* the sweep's timer is due */
    loop_turn(p.loop, 0);
    while (!e.buckets.ended)
        assert_true(limiter_export(p.lim, &e, 900, &text));
    end_process(&p);
    begin_process(&p, settings);
    assert_true(limiter_exported_time(buf_str(&text), &before));
    p.lim = load(&p, &before);
    assert_true(limiter_import(p.lim, buf_str(&text)));
    for (unsigned i = 0; i < 50; i++) {
        snprintf(ip, sizeof ip, "10.0.2.%u", i);
        assert_in_range(passing(&p, ip), 0, 1);
    }
    buf_fini(&text);
    close_process(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_is_swept_meanwhile),
        cmocka_unit_test(networks_of_another_size),
        cmocka_unit_test(wide_networks),
        cmocka_unit_test(overflow_buckets),
        cmocka_unit_test(overflow_buckets_of_unknown_places),
        cmocka_unit_test(less_room),
        cmocka_unit_test(another_default),
        cmocka_unit_test(time_between_two_counts),
        cmocka_unit_test(without_a_time_nothing_is_gained),
        cmocka_unit_test(the_wall_clock_is_set),
        cmocka_unit_test(stop_and_start),
        cmocka_unit_test(damaged_words_are_of_empty_buckets),
        cmocka_unit_test(stop_and_another_start),
        cmocka_unit_test(kept_as_long_as_it_counts),
        cmocka_unit_test(start_in_another_boot),
        cmocka_unit_test(what_cannot_be_kept_is_told),
        cmocka_unit_test(damaged),
        cmocka_unit_test(malformed),
        cmocka_unit_test(nobody_went_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
