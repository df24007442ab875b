/* The limiter on a clock of the test's own, which stands still but when the test moves it: what is logged once a
 * minute, fields to the second, and a flood of addresses that nobody could send in the time of a test. */
#include "base/clock.h"
#include "base/log.h"
#include "base/metrics.h"
#include "limit/clients.h"
#include "limit/limiter.h"

#include <ftw.h>
#include <malloc.h>
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
    enum store_outcome outcome;
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
    w->lim = limiter_new(w->loop, w->worker, w->config, error, sizeof error, &outcome);
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

/* The second turn has heard of all that the first one found. */
static void pass(struct world *w, uint64_t ns)
{
    now += ns;
    loop_turn(w->loop, 0);
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
    struct peer peer = {.ip = {.b = {[10] = 0xff,
                                     [11] = 0xff,
                                     (uint8_t)(address >> 24),
                                     (uint8_t)(address >> 16),
                                     (uint8_t)(address >> 8),
                                     (uint8_t)address}}};
    limiter_ask(w->lim, &peer, &h, &w->answer);
    return w->answer.error;
}

/* ---- a turn of the loop that is held up ---- */

/* So many requests that come at this moment pass. */
static unsigned passing(struct world *w, const char *name)
{
    unsigned n = 0;
    while (ask(w, 0x0a000001, name) == ERR_OK)
        assert_in_range(++n, 1, 100);
    return n;
}

/* A request that came while the turn was held up has not come at its begin: what the bucket gains in between counts
 * once. */
static void a_long_turn_gives_nothing(void **state)
{
    static const char *const names[] = {"named", NULL};
    struct world w;
    (void)state;
    open_world(&w, "\"default\":{\"capacity\":3,\"rate_per_sec\":50}");
    register_client(&w, "named", &(struct client_settings){.capacity = 3, .rate = 50});
    for (unsigned i = 0; i < 2; i++) {
        pass(&w, MINUTE);
        now += 40 * NS_PER_MS; /* no turn begins */
        assert_int_equal(ask(&w, 0x0a000001, names[i]), ERR_OK);
        pass(&w, 0);
        assert_int_equal(passing(&w, names[i]), 2);
        now += 40 * NS_PER_MS;
        assert_int_equal(passing(&w, names[i]), 2); /* and what it gains is not lost either */
    }
    close_world(&w);
}

/* ---- what the fields say, to the second ---- */

#define TENTH ",\"rate_per_sec\":0.1}" /* a token in 10 s */

/* A policy's clock moves on once in 3 ns at least: so close to an edge its two sides can be told apart. */
#define JUST 3

/* Another client for each row: registered, or of an address. */
static enum err ask_of(struct world *w, unsigned row, bool by_name)
{
    char name[16];
    snprintf(name, sizeof name, "row%u", row);
    enum err e = ask(w, 0x0a000000 + row, by_name ? name : NULL);
    assert_int_equal(w->answer.registered, by_name);
    return e;
}

static void expect_text(struct world *w, unsigned fill_seconds, unsigned left, unsigned seconds)
{
    char wanted[LIMIT_FIELDS_MAX];
    const char *policy = w->answer.registered ? "client" : "default";
    snprintf(wanted, sizeof wanted, "RateLimit-Policy: \"%s\";q=%u;w=%u\r\nRateLimit: \"%s\";r=%u;t=%u\r\n", policy,
             fill_seconds / 10, fill_seconds, policy, left, seconds);
    if (!str_eq(str_make(w->answer.fields, w->answer.fields_len), str_of(wanted)))
        fail_msg("not %s but %.*s", wanted, (int)w->answer.fields_len, w->answer.fields);
}

/* Time until the next token, where there is none. */
static void an_empty_bucket_counts_down(void **state)
{
    static const struct {
        uint64_t ns; /* since it was emptied */
        unsigned seconds;
    } rows[] = {{0, 10},
                {1, 10},
                {NS_PER_S - JUST, 10},
                {NS_PER_S, 9},
                {NS_PER_S + JUST, 9},
                {2 * NS_PER_S - JUST, 9},
                {2 * NS_PER_S, 8},
                {9 * NS_PER_S - JUST, 2},
                {9 * NS_PER_S, 1},
                {9 * NS_PER_S + JUST, 1},
                {10 * NS_PER_S - JUST, 1}};
    struct world w;
    (void)state;
    open_world(&w, "\"default\":{\"capacity\":2" TENTH);
    for (unsigned i = 0; i < 2 * sizeof rows / sizeof *rows; i++) {
        const bool by_name = i % 2;
        char name[16];
        snprintf(name, sizeof name, "row%u", i);
        register_client(&w, name, &(struct client_settings){.capacity = 2, .rate = 0.1});
        now += 123456789; /* seconds of the clock's are no one's */
        uint64_t emptied = now;
        assert_int_equal(ask_of(&w, i, by_name), ERR_OK);
        expect_text(&w, 20, 1, 10);
        assert_int_equal(ask_of(&w, i, by_name), ERR_OK);
        expect_text(&w, 20, 0, 10);
        now = emptied + rows[i / 2].ns;
        assert_int_equal(ask_of(&w, i, by_name), ERR_RATE_LIMITED);
        expect_text(&w, 20, 0, rows[i / 2].seconds);
        assert_int_equal(w.answer.retry_after_s, rows[i / 2].seconds);
        now = emptied + 10 * NS_PER_S;
        assert_int_equal(ask_of(&w, i, by_name), ERR_OK);
        expect_text(&w, 20, 0, 10);
    }
    close_world(&w);
}

/* Time until it is full, where there is one: a token is taken, and another one later. */
static void a_bucket_that_fills_counts_down(void **state)
{
    static const struct {
        uint64_t ns; /* since the first one */
        unsigned left, seconds;
    } rows[] = {{0, 1, 20},
                {NS_PER_S - JUST, 1, 20},
                {NS_PER_S, 1, 19},
                {NS_PER_S + JUST, 1, 19},
                {9 * NS_PER_S - JUST, 1, 12},
                {9 * NS_PER_S, 1, 11},
                {10 * NS_PER_S - JUST, 1, 11},
                {10 * NS_PER_S, 2, 10},
                {60 * NS_PER_S, 2, 10}};
    struct world w;
    (void)state;
    open_world(&w, "\"default\":{\"capacity\":3" TENTH);
    for (unsigned i = 0; i < 2 * sizeof rows / sizeof *rows; i++) {
        const bool by_name = i % 2;
        char name[16];
        snprintf(name, sizeof name, "row%u", i);
        register_client(&w, name, &(struct client_settings){.capacity = 3, .rate = 0.1});
        now += 123456789;
        assert_int_equal(ask_of(&w, i, by_name), ERR_OK);
        expect_text(&w, 30, 2, 10);
        now += rows[i / 2].ns;
        assert_int_equal(ask_of(&w, i, by_name), ERR_OK);
        expect_text(&w, 30, rows[i / 2].left, rows[i / 2].seconds);
    }
    close_world(&w);
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

/* ---- a flood ---- */

#define FLOOD_A_SECOND 200000u /* addresses never seen before, by the word of a trusted proxy */
#define TURN_MS        5u
#define FLOOD_A_TURN   (FLOOD_A_SECOND * TURN_MS / 1000)
#define REGULARS       6u
#define BYTES_FOR_ONE  48u         /* docs/limiter.md has what an unregistered client takes */
#define BESIDES        (64 * 1024) /* shards that grow round up; the log's buffer */

#if defined(__SANITIZE_ADDRESS__)
#define WITH_ASAN
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define WITH_ASAN
#endif
#endif

/* Under AddressSanitizer the C library's own count is not kept; and it all takes longer. */
#ifdef WITH_ASAN
size_t __sanitizer_get_current_allocated_bytes(void);
#define ALLOCATED()   __sanitizer_get_current_allocated_bytes()
#define FLOOD_SECONDS 20u
#else
#define ALLOCATED()   (mallinfo2().uordblks + mallinfo2().hblkhd)
#define FLOOD_SECONDS 30u
#endif

static char *put_number(char *at, unsigned v)
{
    if (v >= 100)
        *at++ = (char)('0' + v / 100);
    if (v >= 10)
        *at++ = (char)('0' + v / 10 % 10);
    *at++ = (char)('0' + v % 10);
    return at;
}

static char *put_address(char *at, unsigned address)
{
    for (unsigned i = 4; i-- > 0;) {
        at = put_number(at, address >> 8 * i & 0xff);
        *at++ = i > 0 ? '.' : '\0';
    }
    return at - 1;
}

static void ask_spoofed(struct world *w, unsigned n)
{
    char text[16];
    /* No two are the same, for the factor is odd. */
    char *end = put_address(text, n * 2654435761u);
    struct field field = {STR("X-Forwarded-For"), str_make(text, (size_t)(end - text)), FIELD_X_FORWARDED_FOR};
    struct headers h = {.v = &field, .n = 1, .max = 1, .present = 1u << FIELD_X_FORWARDED_FOR};
    struct peer peer = {.ip = {.b = {[10] = 0xff, [11] = 0xff, 127, 0, 0, 1}}};
    limiter_ask(w->lim, &peer, &h, &w->answer);
    assert_true(str_eq(w->answer.client_id, field.value));
}

/* Registered clients, of any size; the last one by its address. */
static void register_regulars(struct world *w)
{
    static const struct client_settings settings[REGULARS] = {
        {1, 1, CLIENT_ENFORCE},   {10, 0.3, CLIENT_ENFORCE}, {100, 50, CLIENT_ENFORCE},
        {2.5, 7, CLIENT_ENFORCE}, {3, 2, CLIENT_SHADOW},     {20, 11, CLIENT_ENFORCE},
    };
    static const char *const ids[REGULARS] = {"a", "b", "c", "d", "e", "10.9.9.9"};
    for (unsigned i = 0; i < REGULARS; i++)
        register_client(w, ids[i], &settings[i]);
}

/* Asks for them in this turn, for one more often than for the other, and adds all that is answered to `digest`. */
static uint64_t ask_regulars(struct world *w, unsigned turn, uint64_t digest)
{
    static const char *const ids[REGULARS] = {"a", "b", "c", "d", "e", NULL};
    static const struct hash_key key = {5, 6};
    for (unsigned i = 0; i < REGULARS; i++) {
        if (turn * 7919 % (7 + 3 * i) != 0)
            continue;
        enum err e = ask(w, 0x0a090909, ids[i]);
        assert_true(w->answer.registered);
        uint64_t all[] = {digest, e, w->answer.retry_after_s, hash_bytes(&key, w->answer.fields, w->answer.fields_len)};
        digest = hash_bytes(&key, all, sizeof all);
    }
    return digest;
}

struct flood {
    uint64_t digest;     /* of what registered clients were answered */
    int64_t early, late; /* bytes allocated at most above those at the begin, in the first half and in the second */
    uint64_t shared;     /* requests that were decided on overflow buckets */
    size_t log_bytes;
};

static void flood(const char *settings, unsigned a_turn, int64_t bound, struct flood *f)
{
    struct world w;
    unsigned sent = 0, turns = FLOOD_SECONDS * 1000 / TURN_MS;
    *f = (struct flood){0};
    open_world(&w, settings);
    register_regulars(&w);
    uint64_t shared = metrics.overflow_shared;
    int64_t before = (int64_t)ALLOCATED();
    for (unsigned turn = 0; turn < turns; turn++) {
        pass(&w, TURN_MS * NS_PER_MS);
        for (unsigned i = 0; i < a_turn; i++)
            ask_spoofed(&w, sent++);
        f->digest = ask_regulars(&w, turn, f->digest);
        int64_t more = (int64_t)ALLOCATED() - before, *most = turn < turns / 2 ? &f->early : &f->late;
        *most = more > *most ? more : *most;
        assert_true(more <= bound);
    }
    f->shared = metrics.overflow_shared - shared;
    f->log_bytes = log_pending();
    close_world(&w);
}

/* Memory is bounded and stays what it is, and those who are registered notice nothing. */
static void expect_bounded(const char *settings, int64_t max_tracked, uint64_t shared)
{
    struct flood calm, wild;
    flood(settings, 0, BESIDES, &calm);
    flood(settings, FLOOD_A_TURN, max_tracked * BYTES_FOR_ONE + BESIDES, &wild);
    print_message("%s: %lld KiB, then %lld KiB\n", settings, (long long)wild.early / 1024, (long long)wild.late / 1024);
    assert_true(calm.digest == wild.digest);
    assert_int_equal(calm.shared, 0);
    assert_int_equal(wild.shared, shared);
    assert_true(wild.early > max_tracked); /* it has been counted */
    assert_true(wild.late <= wild.early + wild.early / 50 + BESIDES);
    assert_true(wild.log_bytes < 4096);
}

#define ALL  (FLOOD_SECONDS * FLOOD_A_SECOND)
#define SLOW ",\"default\":{\"capacity\":10,\"rate_per_sec\":0.001}"

/* Buckets that are full again in 20 ms: each newcomer gets one of its own, for others are swept in time. max_tracked is
 * the default. */
static void flood_with_short_memory(void **state)
{
    (void)state;
    expect_bounded("\"max_tracked\":1000000", 1000000, 0);
}

static void flood_of_a_small_table(void **state)
{
    (void)state;
    expect_bounded("\"max_tracked\":1000" SLOW, 1000, ALL - 1000);
}

/* No bucket is full again as long as the flood lasts. */
static void flood_with_long_memory(void **state)
{
    (void)state;
    expect_bounded("\"max_tracked\":1000000" SLOW, 1000000, ALL - 1000000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_long_turn_gives_nothing),    cmocka_unit_test(overflow_is_told_once_a_minute),
        cmocka_unit_test(shadow_is_told_once_a_minute), cmocka_unit_test(the_stop_tells_the_rest),
        cmocka_unit_test(an_empty_bucket_counts_down),  cmocka_unit_test(a_bucket_that_fills_counts_down),
        cmocka_unit_test(flood_with_short_memory),      cmocka_unit_test(flood_of_a_small_table),
        cmocka_unit_test(flood_with_long_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
