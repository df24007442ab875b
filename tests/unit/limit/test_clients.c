/* Unit tests of limit/clients.c and the store below it: changes, lists, restarts, and disks that fail. */
#include "limit/clients.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/metrics.h"

#include <dirent.h>
#include <errno.h>
#include <ftw.h>
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

/* A mount point cannot be renamed over; and writing to it fails half-way. */
static bool is_mount_point, is_failing;

int rename(const char *from, const char *to)
{
    size_t n = strlen(to);
    if (is_mount_point && n > 13 && strcmp(to + n - 13, "/clients.json") == 0) {
        errno = EBUSY;
        return -1;
    }
    return (int)syscall(SYS_rename, from, to);
}

int ftruncate(int fd, off_t n)
{
    if (is_failing && n > 0) {
        errno = EIO;
        return -1;
    }
    return (int)syscall(SYS_ftruncate, fd, n);
}

/* A disk that is slow. */
static atomic_uint sync_takes_ms;

int fdatasync(int fd)
{
    if (sync_takes_ms > 0)
        usleep(sync_takes_ms * 1000);
    return (int)syscall(SYS_fdatasync, fd);
}

struct world {
    char folder[32], path[64], journal[72];
    const char *save_interval; /* NULL: never in the time of a test */
    char error[256];
    enum store_outcome outcome;
    struct loop *loop;
    struct worker *worker;
    struct config *config;
    struct limiter *lim;
};

static struct config *make_config(const struct world *w)
{
    char text[512];
    struct buf errors = BUF_INIT;
    snprintf(text, sizeof text,
             "{\"backends\":[{\"address\":\"127.0.0.1:1\"}],\"rate_limit\":{\"clients_file\":\"%s\","
             "\"default\":{\"capacity\":2,\"rate_per_sec\":0.0001},\"save_interval\":\"%s\"}}",
             w->path, w->save_interval ? w->save_interval : "1h");
    struct config *config = config_parse(str_of(text), "test", NULL, &errors);
    assert_non_null(config);
    buf_fini(&errors);
    return config;
}

static bool start(struct world *w)
{
    w->config = make_config(w);
    w->loop = loop_new();
    w->worker = worker_new(w->loop, "test");
    w->lim = limiter_new(w->loop, w->worker, w->config, w->error, sizeof w->error, &w->outcome);
    return w->lim != NULL;
}

/* As a crash leaves things: nothing more is written. */
static void crash(struct world *w)
{
    worker_free(w->worker);
    limiter_free(w->lim);
    loop_free(w->loop);
    config_put(w->config);
}

static void must_start(struct world *w)
{
    if (!start(w))
        fail_msg("%s", w->error);
}

static void open_world(struct world *w)
{
    *w = (struct world){0};
    strcpy(w->folder, "/tmp/lb-clients-XXXXXX");
    assert_non_null(mkdtemp(w->folder));
    snprintf(w->path, sizeof w->path, "%s/clients.json", w->folder);
    snprintf(w->journal, sizeof w->journal, "%s.journal", w->path);
    must_start(w);
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
    crash(w);
    nftw(w->folder, remove_one, 8, FTW_DEPTH);
}

struct closing {
    bool ended, ok;
};

static void on_closed(void *arg, bool ok)
{
    struct closing *c = arg;
    assert_false(c->ended);
    *c = (struct closing){true, ok};
}

static void stop(struct world *w)
{
    struct closing c = {0};
    limiter_close(w->lim, on_closed, &c);
    assert_false(c.ended);
    while (!c.ended)
        loop_turn(w->loop, TIMER_NEVER);
    assert_true(c.ok);
    crash(w);
}

/* ---- changes ---- */

struct waiter {
    struct client_change change;
    bool ended;
    enum err e;
};

static void on_ended(struct client_change *c, enum err e)
{
    struct waiter *w = (struct waiter *)(void *)c;
    assert_false(w->ended);
    w->ended = true;
    w->e = e;
}

/* A NaN is not given. */
static struct client_fields fields_of(const char *id, double capacity, double rate)
{
    struct client_fields f = {.given = CLIENT_ID, .v.set = {capacity, rate, CLIENT_ENFORCE}};
    f.given |= (isnan(capacity) ? 0u : CLIENT_CAPACITY) | (isnan(rate) ? 0u : CLIENT_RATE);
    snprintf(f.v.id, sizeof f.v.id, "%s", id);
    return f;
}

static void begin_register(struct world *w, struct waiter *waiter, const char *id, double capacity, double rate)
{
    struct client_fields f = fields_of(id, capacity, rate);
    *waiter = (struct waiter){.change.done = on_ended};
    assert_int_equal(clients_register(w->lim, &f, &waiter->change), ERR_OK);
    assert_false(waiter->ended);
}

static void begin_update(struct world *w, struct waiter *waiter, const char *id, double capacity, double rate)
{
    struct client_fields f = fields_of(id, capacity, rate);
    *waiter = (struct waiter){.change.done = on_ended};
    assert_int_equal(clients_update(w->lim, &f, &waiter->change), ERR_OK);
}

static void begin_delete(struct world *w, struct waiter *waiter, const char *id)
{
    *waiter = (struct waiter){.change.done = on_ended};
    assert_int_equal(clients_delete(w->lim, id, &waiter->change), ERR_OK);
}

static enum err wait_for(struct world *w, struct waiter *waiter)
{
    while (!waiter->ended)
        loop_turn(w->loop, TIMER_NEVER);
    return waiter->e;
}

static enum err do_register(struct world *w, const char *id, double capacity, double rate)
{
    struct waiter waiter;
    begin_register(w, &waiter, id, capacity, rate);
    return wait_for(w, &waiter);
}

static enum err do_update(struct world *w, const char *id, double capacity, double rate)
{
    struct waiter waiter;
    begin_update(w, &waiter, id, capacity, rate);
    return wait_for(w, &waiter);
}

static enum err do_delete(struct world *w, const char *id)
{
    struct waiter waiter;
    begin_delete(w, &waiter, id);
    return wait_for(w, &waiter);
}

static void expect(struct world *w, const char *id, double capacity, double rate, double tokens)
{
    struct client_view v;
    assert_int_equal(clients_get(w->lim, id, &v), ERR_OK);
    assert_string_equal(v.id, id);
    assert_true(v.set.capacity == capacity && v.set.rate == rate);
    if (fabs(v.tokens - tokens) > 0.01)
        fail_msg("%s has %g tokens, not %g", id, v.tokens, tokens);
}

static void expect_none(struct world *w, const char *id)
{
    struct client_view v;
    assert_int_equal(clients_get(w->lim, id, &v), ERR_NO_SUCH_CLIENT);
}

static void use(struct world *w, const char *id, unsigned times)
{
    struct field field = {STR("X-Client-ID"), str_of(id), FIELD_OTHER};
    struct headers h = {.v = &field, .n = 1, .max = 1};
    struct peer peer = {0};
    struct limit_answer a;
    while (times--) {
        limiter_ask(w->lim, &peer, &h, &a);
        assert_int_equal(a.verdict, LIMIT_ALLOW);
    }
}

/* ... from an address, or a unix socket (NULL), which name nobody. */
static void use_from(struct world *w, const char *address, unsigned times)
{
    struct headers none = {0};
    struct peer peer = {.is_unix = !address};
    struct limit_answer a;
    if (address)
        assert_true(ip_parse(str_of(address), &peer.ip));
    while (times--) {
        limiter_ask(w->lim, &peer, &none, &a);
        assert_int_equal(a.verdict, LIMIT_ALLOW);
    }
}

static void the_five_calls(void **state)
{
    (void)state;
    struct world w;
    open_world(&w);
    assert_int_equal(do_register(&w, "a", 10, 0.001), ERR_OK);
    expect(&w, "a", 10, 0.001, 10);
    assert_int_equal(do_register(&w, "a", 5, 1), ERR_CLIENT_EXISTS);
    use(&w, "a", 4);
    expect(&w, "a", 10, 0.001, 6);
    assert_int_equal(do_update(&w, "a", 5, NAN), ERR_OK);
    expect(&w, "a", 5, 0.001, 5);
    assert_int_equal(do_update(&w, "a", 100, 0.002), ERR_OK);
    expect(&w, "a", 100, 0.002, 5);
    assert_int_equal(do_update(&w, "b", 100, 0.002), ERR_NO_SUCH_CLIENT);
    assert_int_equal(do_delete(&w, "b"), ERR_NO_SUCH_CLIENT);
    struct waiter last;
    begin_delete(&w, &last, "a");
    assert_int_equal(wait_for(&w, &last), ERR_OK);
    assert_string_equal(last.change.view.id, "a");
    assert_true(last.change.view.set.capacity == 100);
    expect_none(&w, "a");
    assert_int_equal(clients_total(w.lim), 0);
    close_world(&w);
}

static void modes_come_and_go(void **state)
{
    (void)state;
    struct world w;
    struct waiter waiter;
    struct client_view v;
    open_world(&w);
    assert_int_equal(do_register(&w, "a", 2, 0.001), ERR_OK);
    use(&w, "a", 2);
    struct client_fields f = {.given = CLIENT_ID | CLIENT_MODE, .v = {.id = "a", .set.mode = CLIENT_SHADOW}};
    waiter = (struct waiter){.change.done = on_ended};
    assert_int_equal(clients_update(w.lim, &f, &waiter.change), ERR_OK);
    assert_int_equal(wait_for(&w, &waiter), ERR_OK);
    assert_int_equal(waiter.change.view.set.mode, CLIENT_SHADOW);
    use(&w, "a", 3); /* the bucket is empty */
    assert_int_equal(clients_get(w.lim, "a", &v), ERR_OK);
    assert_int_equal(v.allowed, 5);
    assert_int_equal(v.limited, 3);
    assert_int_equal(do_update(&w, "a", 3, NAN), ERR_OK);   /* the mode stays when it is not given */
    for (unsigned graceful = 0; graceful < 2; graceful++) { /* from the journal, and from clients.json */
        if (graceful)
            stop(&w);
        else
            crash(&w);
        must_start(&w);
        assert_int_equal(clients_get(w.lim, "a", &v), ERR_OK);
        assert_int_equal(v.set.mode, CLIENT_SHADOW);
        assert_true(v.set.capacity == 3 && v.set.rate == 0.001);
        assert_int_equal(v.allowed + v.limited, 0); /* since the start */
    }
    close_world(&w);
}

/* Nothing shows before it is on disk. */
static void changes_show_when_they_are_durable(void **state)
{
    (void)state;
    struct world w;
    struct waiter waiter;
    open_world(&w);
    begin_register(&w, &waiter, "a", 10, 0.001);
    expect_none(&w, "a");
    assert_int_equal(wait_for(&w, &waiter), ERR_OK);
    begin_update(&w, &waiter, "a", 20, NAN);
    expect(&w, "a", 10, 0.001, 10);
    assert_int_equal(wait_for(&w, &waiter), ERR_OK);
    begin_delete(&w, &waiter, "a");
    expect(&w, "a", 20, 0.001, 10);
    assert_int_equal(wait_for(&w, &waiter), ERR_OK);
    close_world(&w);
}

static void many_changes_share_a_sync(void **state)
{
    (void)state;
    enum { N = 200 };
    struct world w;
    static struct waiter waiters[N];
    open_world(&w);
    uint64_t before = metrics.store_syncs;
    for (unsigned i = 0; i < N; i++) {
        char id[16];
        snprintf(id, sizeof id, "c%u", i);
        begin_register(&w, &waiters[i], id, 10, 1);
    }
    for (unsigned i = 0; i < N; i++)
        assert_int_equal(wait_for(&w, &waiters[i]), ERR_OK);
    assert_in_range(metrics.store_syncs - before, 1, 2);
    close_world(&w);
}

static void one_id_by_many_is_registered_once(void **state)
{
    (void)state;
    enum { N = 50 };
    struct world w;
    struct waiter waiters[N];
    unsigned ok = 0;
    open_world(&w);
    for (unsigned i = 0; i < N; i++)
        begin_register(&w, &waiters[i], "same", 10 + i, 1);
    for (unsigned i = 0; i < N; i++) {
        enum err e = wait_for(&w, &waiters[i]);
        assert_true(e == ERR_OK || e == ERR_CLIENT_EXISTS);
        ok += e == ERR_OK;
    }
    assert_int_equal(ok, 1);
    expect(&w, "same", 10, 1, 10);
    close_world(&w);
}

static void changes_of_one_id_keep_their_order(void **state)
{
    (void)state;
    struct world w;
    struct waiter s[6];
    open_world(&w);
    begin_update(&w, &s[0], "a", 5, 1);
    begin_register(&w, &s[1], "a", 10, 1);
    begin_update(&w, &s[2], "a", 20, NAN);
    begin_delete(&w, &s[3], "a");
    begin_register(&w, &s[4], "a", 30, 1);
    begin_delete(&w, &s[5], "b");
    static const enum err want[] = {ERR_NO_SUCH_CLIENT, ERR_OK, ERR_OK, ERR_OK, ERR_OK, ERR_NO_SUCH_CLIENT};
    for (unsigned i = 0; i < 6; i++)
        assert_int_equal(wait_for(&w, &s[i]), want[i]);
    expect(&w, "a", 30, 1, 30);
    close_world(&w);
}

static void cancelled_changes_go_on(void **state)
{
    (void)state;
    struct world w;
    struct waiter gone, last;
    open_world(&w);
    begin_register(&w, &gone, "a", 10, 1);
    clients_cancel(w.lim, &gone.change);
    begin_register(&w, &last, "b", 10, 1);
    assert_int_equal(wait_for(&w, &last), ERR_OK);
    assert_false(gone.ended);
    expect(&w, "a", 10, 1, 10);
    close_world(&w);
}

static void too_many_waiting_are_refused(void **state)
{
    (void)state;
    struct world w;
    struct client_change c = {0};
    open_world(&w);
    for (unsigned i = 0; i < CLIENT_CHANGES_MAX; i++) {
        assert_int_equal(clients_delete(w.lim, "a", &c), ERR_OK);
        clients_cancel(w.lim, &c);
    }
    assert_int_equal(clients_delete(w.lim, "a", &c), ERR_STORE_FAILED);
    loop_turn(w.loop, 0);
    assert_int_equal(do_register(&w, "a", 1, 1), ERR_OK);
    close_world(&w);
}

/* ---- lists ---- */

struct seen {
    unsigned n;
    char last[CLIENT_ID_MAX + 1];
    unsigned times[3000];
};

static void see(void *arg, const struct client_view *v)
{
    struct seen *s = arg;
    unsigned number;
    s->n++;
    if (sscanf(v->id, "c%u", &number) == 1)
        s->times[number]++;
    memcpy(s->last, v->id, sizeof s->last);
}

/* A page, as the client API makes one. */
static size_t list(struct world *w, const char *after, size_t limit, struct seen *seen, bool *more)
{
    uint64_t place = clients_place(w->lim, after);
    size_t n = clients_list(w->lim, &place, limit, see, seen, more);
    if (n > 0)
        clients_hand_out(w->lim, seen->last);
    return n;
}

/* Clients come, go and come back between the pages: each that stayed is seen exactly once. */
static void pages_miss_nobody_who_stays(void **state)
{
    (void)state;
    enum { N = 1000 };
    struct world w;
    static struct waiter waiters[N];
    static struct seen seen;
    char id[16], cursor[CLIENT_ID_MAX + 1] = "";
    bool more = true;
    open_world(&w);
    for (unsigned i = 0; i < N; i++) {
        snprintf(id, sizeof id, "c%u", i);
        begin_register(&w, &waiters[i], id, 10, 1);
    }
    for (unsigned i = 0; i < N; i++)
        assert_int_equal(wait_for(&w, &waiters[i]), ERR_OK);
    for (unsigned page = 0; more; page++) {
        size_t n = list(&w, cursor[0] ? cursor : NULL, 50, &seen, &more);
        assert_true(n == 50 || !more);
        memcpy(cursor, seen.last, sizeof cursor);
        assert_int_equal(do_delete(&w, cursor), ERR_OK);
        if (page % 2)
            assert_int_equal(do_register(&w, cursor, 1, 1), ERR_OK);
        snprintf(id, sizeof id, "d%u", page);
        assert_int_equal(do_register(&w, id, 1, 1), ERR_OK);
        assert_true(page < 40);
    }
    for (unsigned i = 0; i < N; i++)
        if (i % 50 != 49)
            assert_int_equal(seen.times[i], 1);
    close_world(&w);
}

static void lists_and_cursors(void **state)
{
    (void)state;
    struct world w;
    struct seen seen = {0};
    bool more;
    open_world(&w);
    assert_int_equal(list(&w, NULL, 10, &seen, &more), 0);
    assert_false(more);
    for (const char *const *id = (const char *const[]){"a", "b", "c", NULL}; *id; id++)
        assert_int_equal(do_register(&w, *id, 1, 1), ERR_OK);
    assert_int_equal(list(&w, NULL, 3, &seen, &more), 3);
    assert_false(more);
    assert_int_equal(list(&w, "a", 1, &seen, &more), 1);
    assert_true(more);
    assert_string_equal(seen.last, "b");
    assert_int_equal(list(&w, "c", 1, &seen, &more), 0);
    assert_int_equal(list(&w, "never", 9, &seen, &more), 3);
    assert_int_equal(clients_total(w.lim), 3);
    close_world(&w);
}

/* ---- restarts ---- */

static bool exists(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0;
}

static void crash_loses_nothing_acknowledged(void **state)
{
    (void)state;
    struct world w;
    open_world(&w);
    assert_int_equal(do_register(&w, "a", 10, 0.001), ERR_OK);
    assert_int_equal(do_register(&w, "2001:db8::1", 20, 0.001), ERR_OK);
    assert_int_equal(do_register(&w, "c", 30, 0.001), ERR_OK);
    assert_int_equal(do_update(&w, "a", 11, NAN), ERR_OK);
    assert_int_equal(do_delete(&w, "c"), ERR_OK);
    for (int round = 0; round < 3; round++) {
        crash(&w);
        must_start(&w);
        assert_int_equal(clients_total(w.lim), 2);
        expect(&w, "a", 11, 0.001, 10);
        expect(&w, "2001:db8::1", 20, 0.001, 20);
    }
    close_world(&w);
}

static void expect_next(void *arg, const struct client_view *v)
{
    const char **expected = arg;
    char found[160];
    snprintf(found, sizeof found, "%s %llu", v->id, (unsigned long long)v->place);
    assert_non_null(*expected);
    assert_memory_equal(found, *expected, strlen(found));
    *expected += strlen(found) + 1;
}

/* A place in the order is the same number behind every end of the process, whoever has gone before it. */
static void places_outlive_the_process(void **state)
{
    (void)state;
    struct world w;
    open_world(&w);
    for (const char *id = "abcdef"; *id; id++)
        assert_int_equal(do_register(&w, (char[]){*id, '\0'}, 1, 1), ERR_OK);
    assert_int_equal(do_delete(&w, "a"), ERR_OK);
    assert_int_equal(do_delete(&w, "c"), ERR_OK);
    assert_int_equal(do_register(&w, "c", 1, 1), ERR_OK);
    assert_int_equal(do_update(&w, "d", 2, NAN), ERR_OK);
    for (int round = 0; round < 6; round++) {
        if (round % 3 == 2)
            stop(&w);
        else
            crash(&w);
        must_start(&w);
        const char *expected = "b 2\0d 4\0e 5\0f 6\0c 7\0";
        uint64_t place = 0;
        bool more;
        assert_int_equal(clients_list(w.lim, &place, 9, expect_next, &expected, &more), 5);
    }
    close_world(&w);
}

struct order {
    unsigned n;
    struct {
        char id[8];
        uint64_t place;
    } at[320];
};

static void note_place(void *arg, const struct client_view *v)
{
    struct order *o = arg;
    assert_true(o->n < sizeof o->at / sizeof o->at[0] && strlen(v->id) < sizeof o->at[0].id);
    memcpy(o->at[o->n].id, v->id, strlen(v->id));
    o->at[o->n++].place = v->place;
}

static void note_order(const struct world *w, struct order *o)
{
    uint64_t place = 0;
    bool more;
    *o = (struct order){0};
    (void)!clients_list(w->lim, &place, 320, note_place, o, &more);
    assert_false(more);
}

/* Changes at random, several at once and in the middle of saves: whenever the process ends, and however, the next one
 * has all in the same places. */
static void the_order_outlives_the_process(void **state)
{
    (void)state;
    enum { IDS = 20, AT_ONCE = 4, OTHERS = 300 /* so that a save has three slices */ };
    struct world w;
    static struct order before, behind;
    static struct waiter others[OTHERS];
    unsigned rng = 11;
    open_world(&w);
    w.save_interval = "20ms";
    for (unsigned i = 0; i < OTHERS; i++) {
        char id[8];
        snprintf(id, sizeof id, "o%u", i);
        begin_register(&w, &others[i], id, 10, 1);
    }
    for (unsigned i = 0; i < OTHERS; i++)
        assert_int_equal(wait_for(&w, &others[i]), ERR_OK);
    for (unsigned round = 0; round < 20; round++) {
        stop(&w);
        must_start(&w);
        for (unsigned step = 0; step < 15; step++) {
            struct waiter waiters[AT_ONCE];
            for (unsigned i = 0; i < AT_ONCE; i++) {
                char id[8];
                rng = rng * 1664525 + 1013904223;
                snprintf(id, sizeof id, "c%u", (rng >> 9) % IDS);
                if (rng >> 31)
                    begin_register(&w, &waiters[i], id, 10, 1);
                else if (rng >> 30)
                    begin_update(&w, &waiters[i], id, 20, NAN);
                else
                    begin_delete(&w, &waiters[i], id);
            }
            for (unsigned i = 0; i < AT_ONCE; i++)
                (void)wait_for(&w, &waiters[i]);
        }
        note_order(&w, &before);
        if (rng >> 29 & 1)
            crash(&w);
        else
            stop(&w);
        must_start(&w);
        note_order(&w, &behind);
        assert_memory_equal(&before, &behind, sizeof before);
    }
    close_world(&w);
}

static void words_name(const struct world *w, char out[80])
{
    snprintf(out, 80, "%s.tokens", w->path);
}

/* A word that no bucket can have had says nothing: the tokens of clients.json do, and the log says so, once. */
static void damaged_words_do_not_count(void **state)
{
    (void)state;
    struct world w;
    char words[80];
    struct buf text = BUF_INIT, lines = BUF_INIT;
    open_world(&w);
    for (const char *id = "abc"; *id; id++)
        assert_int_equal(do_register(&w, (char[]){*id, '\0'}, 10, 0.0001), ERR_OK);
    for (const char *id = "abc"; *id; id++)
        use(&w, (char[]){*id, '\0'}, 3);
    stop(&w);
    must_start(&w);
    for (const char *id = "abc"; *id; id++)
        use(&w, (char[]){*id, '\0'}, 2);
    crash(&w);
    words_name(&w, words);
    assert_int_equal(file_read(words, 1 << 20, &text), 0);
    struct word_slot *slots = (struct word_slot *)(void *)buf_bytes(&text);
    size_t damaged = 0;
    for (size_t i = text.len / sizeof *slots; i-- > 0 && damaged < 2;)
        if (slots[i].tag) {
            slots[i].word |= UINT64_C(1) << 60;
            damaged++;
        }
    assert_int_equal(file_replace(words, buf_str(&text)), 0);
    log_take(&lines);
    buf_consume(&lines, lines.len);
    must_start(&w);
    log_take(&lines);
    assert_true(buf_append(&lines, "", 1));
    char *said = strstr(buf_bytes(&lines), "tokens_ignored");
    assert_non_null(said);
    assert_null(strstr(said + 1, "tokens_ignored"));
    expect(&w, "a", 10, 0.0001, 5);
    expect(&w, "b", 10, 0.0001, 7);
    expect(&w, "c", 10, 0.0001, 7);
    buf_fini(&text);
    buf_fini(&lines);
    close_world(&w);
}

/* The line of a registration has the tokens that the client takes along, for after a power cut nothing else has. */
static void registrations_are_written_with_their_tokens(void **state)
{
    (void)state;
    static const char *const ids[] = {"1.2.3.4", "unix:", "2001:db8::1", "name"};
    static const double tokens[] = {1, 0, 10, 10};
    struct world w;
    char words[80];
    open_world(&w);
    use_from(&w, "1.2.3.4", 1);
    use_from(&w, NULL, 2);
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(do_register(&w, ids[i], 10, 0.0001), ERR_OK);
    crash(&w);
    words_name(&w, words);
    assert_int_equal(unlink(words), 0); /* it would count for nothing after the cut */
    must_start(&w);
    for (unsigned i = 0; i < 4; i++)
        expect(&w, ids[i], 10, 0.0001, tokens[i]);
    close_world(&w);
}

/* Where there can be no new file of the words, the old one, in which nothing moves any more, goes once it is saved. */
static void words_that_are_not_kept_leave_no_file(void **state)
{
    (void)state;
    struct world w;
    char words[80], in_the_way[96];
    open_world(&w);
    assert_int_equal(do_register(&w, "a", 10, 0.0001), ERR_OK);
    use(&w, "a", 4);
    crash(&w);
    words_name(&w, words);
    snprintf(in_the_way, sizeof in_the_way, "%s.tmp", words);
    assert_true(exists(words));
    assert_int_equal(mkdir(in_the_way, 0700), 0);
    must_start(&w);
    expect(&w, "a", 10, 0.0001, 6);
    assert_false(exists(words));
    use(&w, "a", 1);
    crash(&w);
    assert_int_equal(rmdir(in_the_way), 0);
    must_start(&w);
    expect(&w, "a", 10, 0.0001, 6); /* those of the last save */
    close_world(&w);
}

static void graceful_stop_keeps_tokens_in_one_file(void **state)
{
    (void)state;
    struct world w;
    open_world(&w);
    assert_int_equal(do_register(&w, "a", 10, 0.001), ERR_OK);
    use(&w, "a", 7);
    stop(&w);
    assert_true(exists(w.path));
    assert_false(exists(w.journal));
    must_start(&w);
    expect(&w, "a", 10, 0.001, 3);
    use(&w, "a", 1);
    stop(&w);
    must_start(&w);
    expect(&w, "a", 10, 0.001, 2);
    stop(&w); /* nothing to save */
    must_start(&w);
    expect(&w, "a", 10, 0.001, 2);
    close_world(&w);
}

/* Without a stop, tokens are saved every now and then. */
static void tokens_are_saved_at_intervals(void **state)
{
    (void)state;
    struct world w;
    open_world(&w);
    assert_int_equal(do_register(&w, "a", 10, 0.001), ERR_OK);
    crash(&w);
    w.save_interval = "20ms";
    must_start(&w);
    uint64_t saves = metrics.store_saves;
    use(&w, "a", 7);
    while (metrics.store_saves == saves)
        loop_turn(w.loop, TIMER_NEVER);
    crash(&w);
    must_start(&w);
    expect(&w, "a", 10, 0.001, 3);
    close_world(&w);
}

/* A reload's save_interval counts from the reload on. */
static void another_interval_acts_at_once(void **state)
{
    (void)state;
    struct world w;
    open_world(&w);
    assert_int_equal(do_register(&w, "a", 10, 0.001), ERR_OK);
    use(&w, "a", 7);
    w.save_interval = "20ms";
    struct config *fresh = make_config(&w);
    struct limiter_change *change = limiter_stage(w.lim, fresh);
    assert_non_null(change);
    limiter_commit(change);
    config_put(fresh);
    uint64_t saves = metrics.store_saves;
    for (uint64_t end = loop_now(w.loop) + 10 * NS_PER_S; metrics.store_saves == saves && loop_now(w.loop) < end;)
        loop_turn(w.loop, 100 * NS_PER_MS);
    assert_true(metrics.store_saves > saves);
    close_world(&w);
}

static void closing_finishes_what_was_begun(void **state)
{
    (void)state;
    struct world w;
    struct waiter a, b, late = {.change.done = on_ended};
    struct closing c = {0};
    open_world(&w);
    begin_register(&w, &a, "a", 10, 0.001);
    begin_update(&w, &b, "a", 20, NAN);
    limiter_close(w.lim, on_closed, &c);
    struct client_fields f = fields_of("late", 1, 1);
    assert_int_equal(clients_register(w.lim, &f, &late.change), ERR_STORE_FAILED);
    while (!c.ended)
        loop_turn(w.loop, TIMER_NEVER);
    assert_true(c.ok && a.ended && b.ended);
    assert_int_equal(a.e, ERR_OK);
    assert_int_equal(b.e, ERR_OK);
    crash(&w);
    must_start(&w);
    expect(&w, "a", 20, 0.001, 10);
    close_world(&w);
}

static void put_file(const char *path, const char *text)
{
    assert_int_equal(file_replace(path, str_of(text)), 0);
}

static void expect_refusal(struct world *w, enum store_outcome outcome, const char *what)
{
    assert_false(start(w));
    assert_int_equal(w->outcome, outcome);
    if (!strstr(w->error, what))
        fail_msg("\"%s\" does not say \"%s\"", w->error, what);
    crash(w);
}

static void expect_content(const char *path, const char *text)
{
    struct buf is = BUF_INIT;
    assert_int_equal(file_read(path, 1 << 20, &is), 0);
    assert_true(str_eq(buf_str(&is), str_of(text)));
    buf_fini(&is);
}

static void damage_stops_the_start_and_stays(void **state)
{
    (void)state;
    struct world w;
    open_world(&w);
    crash(&w);
    put_file(w.path, "");
    expect_refusal(&w, STORE_DAMAGED, "clients.json:1:1: the file is empty");
    put_file(w.path, "{\"clients\":[\n{\"client_id\":\"a\",\"capacity\":0,\"rate_per_sec\":1}\n]}");
    expect_refusal(&w, STORE_DAMAGED, "clients.json:2:29: capacity is 0");
    expect_content(w.path, "{\"clients\":[\n{\"client_id\":\"a\",\"capacity\":0,\"rate_per_sec\":1}\n]}");
    put_file(w.path, "{\"clients\":[]}");
    put_file(w.journal, "{}\n{}\n");
    expect_refusal(&w, STORE_DAMAGED, "clients.json.journal:1:1: the checksum");
    expect_content(w.journal, "{}\n{}\n");
    put_file(w.journal, "");
    must_start(&w);
    close_world(&w);
}

static void torn_journal_is_cut(void **state)
{
    (void)state;
    struct world w;
    struct buf text = BUF_INIT;
    open_world(&w);
    assert_int_equal(do_register(&w, "a", 10, 1), ERR_OK);
    assert_int_equal(do_register(&w, "b", 10, 1), ERR_OK);
    crash(&w);
    assert_int_equal(file_read(w.journal, 1 << 20, &text), 0);
    assert_int_equal(file_replace(w.journal, str_make(buf_str(&text).p, text.len - 20)), 0);
    must_start(&w);
    expect(&w, "a", 10, 1, 10);
    expect_none(&w, "b");
    assert_int_equal(do_register(&w, "c", 10, 1), ERR_OK);
    crash(&w);
    must_start(&w);
    assert_int_equal(clients_total(w.lim), 2);
    buf_fini(&text);
    close_world(&w);
}

/* Waits until the journal is folded in. */
static void wait_for_fold(struct world *w)
{
    struct buf text = BUF_INIT;
    do {
        loop_turn(w->loop, clock_monotonic() + 10 * NS_PER_MS);
        buf_consume(&text, text.len);
        assert_int_equal(file_read(w->journal, 1 << 20, &text), 0);
    } while (text.len > 0);
    buf_fini(&text);
}

/* A disk that takes no new file keeps nobody from what can be read: the journal goes on, behind its whole lines, and
 * the save is made when it can be. */
static void start_without_a_save(void **state)
{
    (void)state;
    struct world w;
    struct buf text = BUF_INIT;
    char in_the_way[80];
    open_world(&w);
    for (const char *id = "abc"; *id; id++)
        assert_int_equal(do_register(&w, (char[]){*id, '\0'}, 10, 0.0001), ERR_OK);
    use(&w, "a", 4);
    crash(&w);
    snprintf(in_the_way, sizeof in_the_way, "%s.tmp", w.path);
    assert_int_equal(mkdir(in_the_way, 0700), 0);
    assert_int_equal(file_read(w.journal, 1 << 20, &text), 0);
    assert_int_equal(truncate(w.journal, (off_t)text.len - 20), 0);
    buf_fini(&text);
    must_start(&w);
    assert_int_equal(do_register(&w, "d", 10, 0.0001), ERR_OK);
    assert_int_equal(do_update(&w, "b", 20, 0.0001), ERR_OK);
    use(&w, "a", 1);
    use(&w, "b", 2);
    crash(&w);
    for (unsigned starts = 0; starts < 2; starts++) {
        must_start(&w);
        assert_int_equal(clients_total(w.lim), 3);
        expect(&w, "a", 10, 0.0001, 5);
        expect(&w, "b", 20, 0.0001, 8);
        expect_none(&w, "c");
        expect(&w, "d", 10, 0.0001, 10);
        if (starts == 0)
            crash(&w);
    }
    assert_int_equal(rmdir(in_the_way), 0);
    wait_for_fold(&w);
    stop(&w);
    must_start(&w);
    expect(&w, "a", 10, 0.0001, 5);
    expect(&w, "d", 10, 0.0001, 10);
    close_world(&w);
}

/* Changes that wait together go to disk together, and a power cut may take any sector of them. */
static void torn_group_is_cut(void **state)
{
    (void)state;
    struct world w;
    struct buf text = BUF_INIT;
    struct waiter waiters[12];
    open_world(&w);
    assert_int_equal(do_register(&w, "a", 10, 1), ERR_OK);
    for (unsigned i = 0; i < 12; i++) {
        char id[8];
        snprintf(id, sizeof id, "c%02u", i);
        begin_register(&w, &waiters[i], id, 10, 1);
    }
    for (unsigned i = 0; i < 12; i++)
        assert_int_equal(wait_for(&w, &waiters[i]), ERR_OK);
    crash(&w);
    assert_int_equal(file_read(w.journal, 1 << 20, &text), 0);
    assert_true(text.len > 1536);
    memset(buf_bytes(&text) + 512, 0, 512);
    assert_int_equal(file_replace(w.journal, buf_str(&text)), 0);
    must_start(&w);
    expect(&w, "c00", 10, 1, 10);
    expect_none(&w, "c06");
    expect_none(&w, "c11");
    assert_int_equal(do_register(&w, "c11", 10, 1), ERR_OK);
    crash(&w);
    must_start(&w);
    expect(&w, "c11", 10, 1, 10);
    expect_none(&w, "c06");
    buf_fini(&text);
    close_world(&w);
}

/* What cannot be read now may be whole: a start that fails must not speak of damage. */
static void unreadable_copy_is_no_damage(void **state)
{
    (void)state;
    struct world w;
    char copy[80];
    open_world(&w);
    crash(&w);
    put_file(w.path, "{\"clients\":[");
    snprintf(copy, sizeof copy, "%s.rescue", w.path);
    assert_int_equal(mkdir(copy, 0700), 0);
    expect_refusal(&w, STORE_UNUSABLE, "clients.json.rescue: Is a directory");
    expect_content(w.path, "{\"clients\":[");
    assert_int_equal(rmdir(copy), 0);
    expect_refusal(&w, STORE_DAMAGED, "clients.json:1:13: ");
    put_file(w.path, "{\"clients\":[]}");
    must_start(&w);
    close_world(&w);
}

static void second_process_is_refused(void **state)
{
    (void)state;
    struct world w, second;
    char want[64];
    open_world(&w);
    second = w;
    snprintf(want, sizeof want, "in use by process %d", (int)getpid());
    expect_refusal(&second, STORE_UNUSABLE, want);
    close_world(&w);
}

#define NOBODY 65534

/* The rights of a file do not bind root, so that another's are taken for a while; file_user() says whose. */
static void as_nobody(bool on)
{
    if (getuid() == 0)
        assert_int_equal(seteuid(on ? NOBODY : 0), 0);
}

/* In a container the folder is often another's. The message says which, and who may not write there. */
static void folder_of_another_is_refused(void **state)
{
    (void)state;
    struct world w;
    char here[200], want[256];
    open_world(&w);
    crash(&w);
    assert_int_equal(nftw(w.folder, remove_one, 8, FTW_DEPTH | FTW_PHYS), 0);
    assert_int_equal(mkdir(w.folder, 0555), 0);
    assert_non_null(getcwd(here, sizeof here));
    assert_int_equal(chdir("/tmp"), 0);
    char whole[64];
    strcpy(whole, w.path);
    memmove(w.path, whole + strlen("/tmp/"), strlen(whole + strlen("/tmp/")) + 1);
    as_nobody(true);
    snprintf(want, sizeof want, "%s.lock: cannot be written by user %u: Permission denied", whole, geteuid());
    expect_refusal(&w, STORE_UNUSABLE, want);
    as_nobody(false);
    assert_int_equal(chdir(here), 0);
    assert_int_equal(nftw(w.folder, remove_one, 8, FTW_DEPTH | FTW_PHYS), 0);
}

/* All that a start needs can be written, but no save will come about. */
static void saves_that_will_fail_are_foretold(void **state)
{
    (void)state;
    static const char *const suffixes[] = {"", ".lock", ".journal"};
    struct world w;
    struct buf lines = BUF_INIT;
    open_world(&w);
    crash(&w);
    for (unsigned i = 0; i < 3; i++) {
        char name[80];
        snprintf(name, sizeof name, "%s%s", w.path, suffixes[i]);
        put_file(name, i == 0 ? "{\"clients\":[]}" : "");
        assert_int_equal(chmod(name, 0666), 0);
    }
    log_take(&lines);
    buf_consume(&lines, lines.len);
    for (int folder_is_closed = 0; folder_is_closed < 2; folder_is_closed++) {
        char words[80];
        snprintf(words, sizeof words, "%s.tokens", w.path);
        (void)!unlink(words); /* of the turn before, which could not be removed by a start */
        assert_int_equal(chmod(w.folder, folder_is_closed ? 0555 : 0777), 0);
        as_nobody(true);
        must_start(&w);
        crash(&w);
        as_nobody(false);
        log_take(&lines);
        assert_true(buf_append(&lines, "", 1));
        const char *line = strstr(buf_bytes(&lines), "store_not_writable file=");
        assert_int_equal(!!line, folder_is_closed);
        if (line)
            assert_non_null(strstr(line, "reason=\"Permission denied\""));
        buf_consume(&lines, lines.len);
    }
    buf_fini(&lines);
    assert_int_equal(nftw(w.folder, remove_one, 8, FTW_DEPTH | FTW_PHYS), 0);
}

static void missing_folder_is_refused(void **state)
{
    (void)state;
    struct world w = {.path = "/nonexistent-folder/clients.json"};
    expect_refusal(&w, STORE_UNUSABLE,
                   "/nonexistent-folder/clients.json: the folder /nonexistent-folder does not exist");
}

/* ---- symbolic links ---- */

/* The world's files are reached by a link from another folder. */
static void open_linked_world(struct world *w, char real[64], char link[64])
{
    char target[64];
    open_world(w);
    crash(w);
    strcpy(real, w->path);
    snprintf(link, 64, "%s/link", w->folder);
    assert_int_equal(mkdir(link, 0755), 0);
    snprintf(link, 64, "%s/link/clients", w->folder);
    snprintf(target, sizeof target, "../%s", strrchr(real, '/') + 1);
    assert_int_equal(symlink(target, link), 0);
}

/* By whichever name, it is one file, with one journal and one lock. */
static void names_of_one_file_share_all(void **state)
{
    (void)state;
    struct world w, second;
    char real[64], link[64], want[64];
    open_linked_world(&w, real, link);
    snprintf(want, sizeof want, "in use by process %d", (int)getpid());
    for (unsigned i = 0; i < 4; i++) {
        char id[8];
        snprintf(id, sizeof id, "c%u", i);
        strcpy(w.path, i % 2 ? real : link);
        must_start(&w);
        assert_int_equal(clients_total(w.lim), i);
        assert_int_equal(do_register(&w, id, 10, 0.001), ERR_OK);
        use(&w, id, i);
        second = w;
        strcpy(second.path, i % 2 ? link : real);
        expect_refusal(&second, STORE_UNUSABLE, want);
        crash(&w);
    }
    must_start(&w);
    for (unsigned i = 0; i < 4; i++) {
        char id[8];
        snprintf(id, sizeof id, "c%u", i);
        expect(&w, id, 10, 0.001, 10 - i);
    }
    close_world(&w);
}

/* The first save makes the file where the link leads. */
static void a_link_to_nothing_yet(void **state)
{
    (void)state;
    struct world w;
    struct stat st;
    char real[64], link[64];
    open_linked_world(&w, real, link);
    assert_true(!exists(real) || unlink(real) == 0);
    strcpy(w.path, link);
    must_start(&w);
    assert_int_equal(do_register(&w, "a", 10, 0.001), ERR_OK);
    stop(&w);
    assert_int_equal(lstat(link, &st), 0);
    assert_true(S_ISLNK(st.st_mode));
    strcpy(w.path, real);
    must_start(&w);
    expect(&w, "a", 10, 0.001, 10);
    close_world(&w);
}

static void a_link_without_an_end_is_refused(void **state)
{
    (void)state;
    struct world w;
    char link[64];
    open_world(&w);
    crash(&w);
    snprintf(link, sizeof link, "%s/far", w.folder);
    assert_int_equal(symlink("nowhere/clients.json", link), 0);
    strcpy(w.path, link);
    expect_refusal(&w, STORE_UNUSABLE, "/far: a symbolic link to /tmp/");
    expect_refusal(&w, STORE_UNUSABLE, "/nowhere/clients.json, whose folder does not exist");
    assert_int_equal(unlink(link), 0);
    assert_int_equal(symlink("far", link), 0);
    expect_refusal(&w, STORE_UNUSABLE, "/far: Too many levels of symbolic links");
    assert_int_equal(unlink(link), 0);
    must_start(&w);
    close_world(&w);
}

/* A mount point behind a link is rewritten in place, with its copy beside it. */
static void a_link_to_a_mount_point(void **state)
{
    (void)state;
    struct world w;
    struct stat before, after;
    char real[64], link[64], copy[80];
    open_linked_world(&w, real, link);
    put_file(real, "{\"clients\":[]}");
    assert_int_equal(stat(real, &before), 0);
    snprintf(copy, sizeof copy, "%s.rescue", real);
    strcpy(w.path, link);
    is_mount_point = true;
    must_start(&w);
    assert_int_equal(do_register(&w, "a", 10, 0.001), ERR_OK);
    stop(&w);
    assert_int_equal(stat(real, &after), 0);
    assert_int_equal(before.st_ino, after.st_ino);
    assert_false(exists(copy));
    put_file(copy, "{\"clients\":[\n{\"client_id\":\"b\",\"capacity\":7,\"rate_per_sec\":1}\n]}");
    must_start(&w);
    expect(&w, "b", 7, 1, 7);
    expect_none(&w, "a");
    assert_false(exists(copy));
    is_mount_point = false;
    close_world(&w);
}

/* ---- modes ---- */

static void expect_modes(const struct world *w, mode_t clients, mode_t others)
{
    struct stat st;
    char tokens[80];
    snprintf(tokens, sizeof tokens, "%s.tokens", w->path);
    assert_int_equal(stat(w->path, &st), 0);
    assert_int_equal(st.st_mode & 07777, clients);
    assert_int_equal(stat(w->journal, &st), 0);
    assert_int_equal(st.st_mode & 07777, others);
    assert_int_equal(stat(tokens, &st), 0);
    assert_int_equal(st.st_mode & 07777, others);
}

static void wait_for_save(struct world *w)
{
    uint64_t saves = metrics.store_saves;
    use(w, "a", 1);
    while (metrics.store_saves == saves)
        loop_turn(w->loop, TIMER_NEVER);
}

static uint64_t wait_for_failure(struct world *w)
{
    uint64_t failures = metrics.store_failures;
    while (metrics.store_failures == failures)
        loop_turn(w->loop, TIMER_NEVER);
    return loop_now(w->loop);
}

/* All hold the clients' ids: who may not read clients.json may not read the others. */
static void modes_go_with_clients_json(void **state)
{
    (void)state;
    struct world w;
    mode_t before = umask(077);
    open_world(&w);
    crash(&w);
    w.save_interval = "20ms";
    must_start(&w);
    assert_int_equal(do_register(&w, "a", 100, 0.001), ERR_OK);
    wait_for_save(&w);
    expect_modes(&w, 0600, 0600);
    umask(022);
    wait_for_save(&w);
    expect_modes(&w, 0600, 0600);
    crash(&w);
    assert_int_equal(chmod(w.journal, 0644), 0); /* of an older version */
    must_start(&w);
    expect_modes(&w, 0600, 0600);
    assert_int_equal(chmod(w.path, 0644), 0); /* what was made stays closed */
    wait_for_save(&w);
    expect_modes(&w, 0644, 0600);
    stop(&w);
    must_start(&w);
    expect_modes(&w, 0644, 0640);
    assert_int_equal(chmod(w.path, 0604), 0);
    wait_for_save(&w);
    expect_modes(&w, 0604, 0600);
    umask(before);
    close_world(&w);
}

/* ---- what somebody else does to clients.json ---- */

static void expect_logged(const char *part, unsigned times)
{
    struct buf log = BUF_INIT;
    unsigned n = 0;
    log_take(&log);
    assert_true(buf_append(&log, "", 1));
    for (const char *at = strstr(buf_bytes(&log), part); at; at = strstr(at + 1, part))
        n++;
    if (n != times)
        fail_msg("\"%s\" is in the log %u times, not %u: %s", part, n, times, buf_bytes(&log));
    buf_fini(&log);
}

#define FOREIGN "store_file_changed"

/* As an editor does that writes into the file. */
static void write_into(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
}

/* Goes on until nothing is saved any more. */
static void calm_down(struct world *w)
{
    uint64_t saves;
    do {
        saves = metrics.store_saves;
        for (uint64_t end = loop_now(w->loop) + 50 * NS_PER_MS; loop_now(w->loop) < end;)
            loop_turn(w->loop, 10 * NS_PER_MS);
    } while (metrics.store_saves != saves);
}

static void save_and_calm_down(struct world *w)
{
    wait_for_save(w);
    calm_down(w);
}

/* It is replaced, for what it held is known; but not without a word. */
static void foreign_file_is_replaced_with_a_warning(void **state)
{
    (void)state;
    struct world w;
    open_world(&w);
    crash(&w);
    w.save_interval = "20ms";
    for (unsigned i = 0; i < 2; i++) { /* by renaming, and in place */
        is_mount_point = i == 1;
        write_into(w.path, "{\"clients\":[]}");
        must_start(&w);
        assert_int_equal(do_register(&w, "a", 100, 0.001), ERR_OK);
        save_and_calm_down(&w);
        save_and_calm_down(&w);
        expect_logged(FOREIGN, 0);
        write_into(w.path, "{\"clients\":[] }");
        save_and_calm_down(&w);
        expect_logged("clients.json reason=\"changed; what is known takes its place\"", 1);
        save_and_calm_down(&w);
        expect_logged(FOREIGN, 0);
        assert_int_equal(unlink(w.path), 0);
        is_mount_point = false; /* where there is nothing, nothing is mounted */
        save_and_calm_down(&w);
        expect_logged("clients.json reason=\"removed; what is known takes its place\"", 1);
        save_and_calm_down(&w);
        expect_logged(FOREIGN, 0);
        stop(&w);
        assert_int_equal(unlink(w.path), 0);
    }
    must_start(&w);
    close_world(&w);
}

/* Whoever has put a file there for the next start finds it loaded then, and whoever has not hears of it. */
static void foreign_file_is_left_by_a_clean_stop(void **state)
{
    (void)state;
    static const char *const content = "{\"clients\":[\n{\"client_id\":\"b\",\"capacity\":7,\"rate_per_sec\":1}\n]}";
    struct world w;
    open_world(&w);
    assert_int_equal(do_register(&w, "a", 100, 0.001), ERR_OK);
    stop(&w);
    must_start(&w);
    expect_logged(FOREIGN, 0);
    write_into(w.path, content);
    stop(&w);
    expect_logged("clients.json reason=\"changed; it is left as it is for the next start\"", 1);
    expect_content(w.path, content);
    must_start(&w);
    expect(&w, "b", 7, 1, 7);
    stop(&w);
    must_start(&w);
    stop(&w);
    expect_logged(FOREIGN, 0);
    must_start(&w);
    assert_int_equal(unlink(w.path), 0);
    stop(&w);
    expect_logged("clients.json reason=\"removed; what is known takes its place\"", 1);
    must_start(&w);
    expect(&w, "b", 7, 1, 7);
    close_world(&w);
}

static void look(struct world *w)
{
    limiter_look(w->lim);
    limiter_look(w->lim); /* one at a time */
    worker_drain(w->worker);
}

/* Asked, as at a reload: a file is told of that is not the one that was loaded or saved last. */
static void foreign_file_is_told_of(void **state)
{
    (void)state;
    struct world w;
    open_world(&w);
    look(&w);
    expect_logged(FOREIGN, 0);
    write_into(w.path, "{\"clients\":[]}");
    for (unsigned i = 0; i < 2; i++) {
        look(&w);
        expect_logged(
            "clients.json reason=\"changed; it is not loaded, and the next save puts what is known in its place\"", 1);
    }
    assert_int_equal(do_register(&w, "a", 100, 0.001), ERR_OK);
    stop(&w);
    must_start(&w);
    expect_logged(FOREIGN, 1); /* the save's */
    look(&w);
    expect_logged(FOREIGN, 0);
    assert_int_equal(unlink(w.path), 0);
    look(&w);
    expect_logged("reason=\"removed; ", 1);
    close_world(&w);
}

/* Who is known is told of, for a file that is missing, perhaps because one is in another folder, is an empty one. */
static void a_start_tells_of_its_clients(void **state)
{
    (void)state;
    struct world w;
    char line[160];
    open_world(&w);
    snprintf(line, sizeof line, "clients_loaded file=%s clients=0 missing=yes\n", w.path);
    expect_logged(line, 1);
    assert_int_equal(do_register(&w, "a", 10, 1), ERR_OK);
    crash(&w);
    must_start(&w); /* the journal is there, and folded in */
    snprintf(line, sizeof line, "clients_loaded file=%s clients=1 missing=yes\n", w.path);
    expect_logged(line, 1);
    stop(&w);
    must_start(&w);
    snprintf(line, sizeof line, "clients_loaded file=%s clients=1\n", w.path);
    expect_logged(line, 1);
    close_world(&w);
}

/* A file that comes where there was none; and a save whose outcome is not known. */
static void file_from_nowhere_is_foreign(void **state)
{
    (void)state;
    struct world w;
    open_world(&w);
    crash(&w);
    w.save_interval = "20ms";
    must_start(&w);
    write_into(w.path, "{\"clients\":[]}");
    assert_int_equal(do_register(&w, "a", 100, 0.001), ERR_OK);
    save_and_calm_down(&w);
    expect_logged("clients.json reason=\"changed; what is known takes its place\"", 1);
    is_mount_point = is_failing = true;
    use(&w, "a", 1);
    wait_for_failure(&w);
    is_mount_point = is_failing = false;
    expect_logged("store_failed", 1);
    save_and_calm_down(&w);
    expect_logged(FOREIGN, 0);
    close_world(&w);
}

/* A crash while clients.json was rewritten in place leaves a copy, which is whole, and counts: what stands in the file
 * itself may be neither the old nor the new, and yet look whole. */
static void copy_of_a_rewriting_counts(void **state)
{
    (void)state;
    static const char *const torn[] = {
        "{\"clients\":[\n{\"client_id\":\"a\",\"capa",
        "{\"clients\":[\n{\"client_id\":\"a\",\"capacity\":77,\"rate_per_sec\":1}\n]}",
    };
    struct world w;
    char copy[80], temp[80];
    open_world(&w);
    snprintf(copy, sizeof copy, "%s.rescue", w.path);
    snprintf(temp, sizeof temp, "%s.tmp", w.path);
    for (unsigned i = 0; i < 2; i++) {
        crash(&w);
        put_file(w.path, torn[i]);
        put_file(temp, "{\"clients\":[\n{\"client_id\":\"b\"");
        put_file(copy, "{\"clients\":[\n{\"client_id\":\"a\",\"capacity\":7,\"rate_per_sec\":1}\n]}");
        must_start(&w);
        expect(&w, "a", 7, 1, 7);
        crash(&w);
        assert_false(exists(copy) || exists(temp));
        must_start(&w);
        expect(&w, "a", 7, 1, 7);
    }
    close_world(&w);
}

/* A start may go on although it could not save the tokens. The copy that the attempt has left counts until there is a
 * save: what it has begun to write over may be lost by a power cut. */
static void copy_of_a_failed_start_stays(void **state)
{
    (void)state;
    struct world w;
    char copy[80], words[88], content[512];
    open_world(&w);
    snprintf(copy, sizeof copy, "%s.rescue", w.path);
    snprintf(words, sizeof words, "%s.tokens.tmp", w.path);
    assert_int_equal(do_register(&w, "a", 7, 0.001), ERR_OK);
    crash(&w);
    must_start(&w);
    use(&w, "a", 3);
    crash(&w);
    assert_int_equal(mkdir(words, 0700), 0); /* no file for the words, so they are to be saved */
    snprintf(content, sizeof content, "%s/in-the-way", words);
    put_file(content, "");
    is_mount_point = is_failing = true;
    must_start(&w);
    assert_true(exists(copy));
    expect(&w, "a", 7, 0.001, 4);
    crash(&w);
    is_failing = false;
    assert_int_equal(truncate(w.path, 40), 0); /* the power cut */
    must_start(&w);
    expect(&w, "a", 7, 0.001, 4);
    assert_false(exists(copy));
    is_mount_point = false;
    assert_int_equal(remove(content), 0);
    close_world(&w);
}

/* ---- disks that fail ---- */

/* From here on no file of this process may grow beyond `bytes`. */
static void limit_files(rlim_t bytes)
{
    struct rlimit r;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &r), 0);
    r.rlim_cur = bytes;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &r), 0);
}

static void full_disk_changes_nothing_and_recovers(void **state)
{
    (void)state;
    struct world w;
    open_world(&w);
    assert_int_equal(do_register(&w, "a", 10, 0.001), ERR_OK);
    uint64_t failures = metrics.store_failures;
    limit_files(200);
    assert_int_equal(do_register(&w, "b", 10, 1), ERR_STORE_FAILED);
    assert_true(metrics.store_failures > failures);
    assert_int_equal(do_update(&w, "a", 20, NAN), ERR_STORE_FAILED);
    assert_int_equal(do_delete(&w, "a"), ERR_STORE_FAILED);
    expect_none(&w, "b");
    expect(&w, "a", 10, 0.001, 10);
    use(&w, "a", 2);
    limit_files(RLIM_INFINITY);
    enum err e;
    while ((e = do_register(&w, "b", 10, 1)) == ERR_STORE_FAILED)
        loop_turn(w.loop, TIMER_NEVER);
    assert_int_equal(e, ERR_OK);
    assert_int_equal(do_update(&w, "a", 20, NAN), ERR_OK);
    crash(&w);
    must_start(&w);
    assert_int_equal(clients_total(w.lim), 2);
    expect(&w, "a", 20, 0.001, 8);
    close_world(&w);
}

/* What was refused does not come back, nor does what was acknowledged go, when the process dies on the full disk. */
static void crash_on_a_full_disk(void **state)
{
    (void)state;
    struct world w;
    open_world(&w);
    assert_int_equal(do_register(&w, "a", 10, 1), ERR_OK);
    limit_files(200);
    assert_int_equal(do_register(&w, "b", 10, 1), ERR_STORE_FAILED);
    crash(&w);
    limit_files(RLIM_INFINITY);
    must_start(&w);
    assert_int_equal(clients_total(w.lim), 1);
    expect(&w, "a", 10, 1, 10);
    close_world(&w);
}

/* Also where only the save has failed, and the journal is well. */
static void failed_save_is_tried_again_each_second(void **state)
{
    (void)state;
    struct world w;
    char in_the_way[80];
    open_world(&w);
    crash(&w);
    w.save_interval = "4s"; /* begins a save after two */
    must_start(&w);
    snprintf(in_the_way, sizeof in_the_way, "%s.tmp", w.path);
    assert_int_equal(do_register(&w, "a", 10, 0.001), ERR_OK);
    assert_int_equal(mkdir(in_the_way, 0700), 0);
    uint64_t first = wait_for_failure(&w), second = wait_for_failure(&w);
    assert_in_range(second - first, NS_PER_S, NS_PER_S * 19 / 10);
    assert_int_equal(do_register(&w, "b", 10, 0.001), ERR_OK);
    assert_int_equal(rmdir(in_the_way), 0);
    uint64_t saves = metrics.store_saves;
    while (metrics.store_saves == saves)
        loop_turn(w.loop, TIMER_NEVER);
    assert_true(loop_now(w.loop) - second < NS_PER_S * 19 / 10);
    close_world(&w);
}

/* A journal that has failed waits for its save as long, however short the interval; and when that is good, it is the
 * only one. */
static void good_save_ends_the_trying(void **state)
{
    (void)state;
    struct world w;
    open_world(&w);
    crash(&w);
    w.save_interval = "100ms"; /* begins a save after a half of it */
    must_start(&w);
    assert_int_equal(do_register(&w, "a", 10, 0.001), ERR_OK);
    wait_for_save(&w);
    limit_files(20);
    assert_int_equal(do_register(&w, "b", 10, 1), ERR_STORE_FAILED);
    limit_files(RLIM_INFINITY);
    uint64_t failed = loop_now(w.loop), saves = metrics.store_saves;
    use(&w, "a", 1);
    while (metrics.store_saves == saves)
        loop_turn(w.loop, TIMER_NEVER);
    assert_in_range(loop_now(w.loop) - failed, NS_PER_S * 9 / 10, NS_PER_S * 19 / 10);
    while (loop_now(w.loop) < failed + 5 * NS_PER_S / 2)
        loop_turn(w.loop, NS_PER_S / 10);
    assert_int_equal(metrics.store_saves, saves + 1);
    close_world(&w);
}

/* After the last save has failed, the process goes on, or waits for its end: neither is a time for another last one. */
static void failed_save_at_stop_is_not_tried_again(void **state)
{
    (void)state;
    struct world w;
    struct closing c = {0};
    char in_the_way[80];
    open_world(&w);
    snprintf(in_the_way, sizeof in_the_way, "%s.tmp", w.path);
    assert_int_equal(do_register(&w, "a", 10, 0.001), ERR_OK);
    assert_int_equal(mkdir(in_the_way, 0700), 0);
    limiter_close(w.lim, on_closed, &c);
    while (!c.ended)
        loop_turn(w.loop, TIMER_NEVER);
    assert_false(c.ok);
    for (uint64_t end = loop_now(w.loop) + NS_PER_S * 3 / 2; loop_now(w.loop) < end;)
        loop_turn(w.loop, NS_PER_S / 10);
    assert_int_equal(rmdir(in_the_way), 0);
    close_world(&w);
}

static void failed_save_at_stop_is_reported(void **state)
{
    (void)state;
    struct world w;
    struct closing c = {0};
    open_world(&w);
    assert_int_equal(do_register(&w, "a", 10, 1), ERR_OK);
    limit_files(10);
    limiter_close(w.lim, on_closed, &c);
    while (!c.ended)
        loop_turn(w.loop, TIMER_NEVER);
    assert_false(c.ok);
    limit_files(RLIM_INFINITY);
    crash(&w);
    must_start(&w);
    expect(&w, "a", 10, 1, 10);
    close_world(&w);
}

static unsigned open_descriptors(void)
{
    unsigned n = 0;
    DIR *folder = opendir("/proc/self/fd");
    assert_non_null(folder);
    while (readdir(folder))
        n++;
    closedir(folder);
    return n;
}

/* A save of many clients makes pauses, however short the interval; the stop does not wait for it, and what is then
 * saved is newer. */
static void a_save_with_pauses(void **state)
{
    (void)state;
    enum { CLIENTS = 6000 };
    struct world w;
    struct buf text = BUF_INIT;
    char temp[80];
    open_world(&w);
    crash(&w);
    w.save_interval = "1ms";
    snprintf(temp, sizeof temp, "%s.tmp", w.path);
    assert_true(buf_append_str(&text, STR("{\"clients\":[")));
    for (unsigned i = 0; i < CLIENTS; i++)
        assert_true(
            buf_printf(&text, "%s\n{\"client_id\":\"c%u\",\"capacity\":10,\"rate_per_sec\":0.001}", i ? "," : "", i));
    assert_true(buf_append(&text, "\n]}\n", 5)); /* with its zero */
    put_file(w.path, buf_str(&text).p);
    buf_fini(&text);

    unsigned stopped = open_descriptors();
    for (unsigned whole = 0; whole < 2; whole++) {
        must_start(&w);
        unsigned started = open_descriptors();
        uint64_t saves = metrics.store_saves, begun;
        use(&w, "c5999", 3);
        while (access(temp, F_OK) != 0) /* until the first slice is written */
            loop_turn(w.loop, TIMER_NEVER);
        assert_int_equal(metrics.store_saves, saves);
        begun = clock_monotonic();
        while (whole && metrics.store_saves == saves)
            loop_turn(w.loop, TIMER_NEVER);
        assert_true(!whole || clock_monotonic() - begun >= 15 * NS_PER_MS); /* twenty slices */
        assert_true(!whole || open_descriptors() == started);
        stop(&w);
        assert_int_equal(open_descriptors(), stopped);
        must_start(&w);
        assert_int_equal(clients_total(w.lim), CLIENTS);
        expect(&w, "c5999", 10, 0.001, whole ? 4 : 7);
        stop(&w);
    }
    must_start(&w);
    close_world(&w);
}

static struct buf many_clients(unsigned n)
{
    struct buf text = BUF_INIT;
    assert_true(buf_append_str(&text, STR("{\"clients\":[")));
    for (unsigned i = 0; i < n; i++)
        assert_true(
            buf_printf(&text, "%s\n{\"client_id\":\"%0128u\",\"capacity\":10,\"rate_per_sec\":1}", i ? "," : "", i));
    assert_true(buf_append(&text, "\n]}\n", 5)); /* with its zero */
    return text;
}

static void open_with_many(struct world *w, unsigned n)
{
    struct buf text = many_clients(n);
    open_world(w);
    crash(w);
    w->save_interval = "1ms";
    put_file(w->path, buf_str(&text).p);
    buf_fini(&text);
    must_start(w);
}

/* However many changes come during a save, it ends, and what is left of the journal is not more than the tail. */
static void a_save_among_changes(void **state)
{
    (void)state;
    enum { CLIENTS = 150000, CHANGES = 1000, TAIL_MAX = 16 << 20 };
    struct world w;
    static struct waiter waiters[CHANGES];
    struct stat st;
    open_with_many(&w, CLIENTS);

    double capacity = 11;
    for (unsigned i = 0; i < CHANGES; i++)
        waiters[i].ended = true;
    for (uint64_t saves = metrics.store_saves; metrics.store_saves == saves; capacity++) {
        for (unsigned i = 0; i < CHANGES; i++) {
            char id[136];
            snprintf(id, sizeof id, "%0128u", i);
            if (waiters[i].ended)
                begin_update(&w, &waiters[i], id, capacity, 1);
        }
        loop_turn(w.loop, TIMER_NEVER);
    }
    assert_int_equal(stat(w.journal, &st), 0);
    assert_true(st.st_size <= TAIL_MAX);
    for (unsigned i = 0; i < CHANGES; i++)
        assert_int_equal(wait_for(&w, &waiters[i]), ERR_OK);
    close_world(&w);
}

/* Where a sync takes long, and one follows the other, a save does not stand behind each of them with a small slice. */
static void a_save_among_syncs(void **state)
{
    (void)state;
    enum { CLIENTS = 30000 };
    struct world w;
    struct waiter waiter = {.ended = true};
    open_with_many(&w, CLIENTS);

    uint64_t saves = metrics.store_saves, syncs = metrics.store_syncs;
    sync_takes_ms = 5;
    for (double capacity = 11; metrics.store_saves == saves; capacity++) {
        char id[136];
        snprintf(id, sizeof id, "%0128u", 7u);
        if (waiter.ended)
            begin_update(&w, &waiter, id, capacity, 1);
        loop_turn(w.loop, TIMER_NEVER);
    }
    sync_takes_ms = 0;
    assert_in_range(metrics.store_syncs - syncs, 1, CLIENTS / 600);
    assert_int_equal(wait_for(&w, &waiter), ERR_OK);
    close_world(&w);
}

/* Nothing is to be saved, it seems; but somebody has taken the files away. */
static void the_stop_saves_what_has_gone(void **state)
{
    (void)state;
    struct world w;
    char lock[80];
    open_world(&w);
    snprintf(lock, sizeof lock, "%s.lock", w.path);
    assert_int_equal(do_register(&w, "a", 10, 0.001), ERR_OK);
    stop(&w);
    for (unsigned i = 0; i < 2; i++) {
        must_start(&w);
        assert_int_equal(unlink(w.path), 0);
        if (i == 1)
            assert_int_equal(unlink(lock), 0);
        stop(&w);
        must_start(&w);
        expect(&w, "a", 10, 0.001, 10);
        stop(&w);
    }
    must_start(&w);
    close_world(&w);
}

/* Whoever has the lock has the files: a process whose lock was taken away changes nothing any more. */
static void without_the_lock_nothing_is_written(void **state)
{
    (void)state;
    struct world first, second;
    char lock[80];
    open_world(&first);
    second = first;
    snprintf(lock, sizeof lock, "%s.lock", first.path);
    assert_int_equal(do_register(&first, "a", 10, 0.001), ERR_OK);
    stop(&first);
    must_start(&first);
    assert_int_equal(unlink(lock), 0);
    must_start(&second); /* it finds the journal empty, and goes on with the same */
    assert_int_equal(do_register(&second, "c", 10, 0.001), ERR_OK);
    assert_int_equal(do_register(&first, "b", 10, 0.001), ERR_STORE_FAILED);
    assert_int_equal(do_register(&first, "b", 10, 0.001), ERR_STORE_FAILED);
    crash(&first);
    crash(&second);
    must_start(&second);
    expect(&second, "a", 10, 0.001, 10);
    expect_none(&second, "b");
    expect(&second, "c", 10, 0.001, 10);
    close_world(&second);
}

/* Long journals are folded in while changes go on; nothing is lost or out of order at any moment. */
static void saves_while_changes_go_on(void **state)
{
    (void)state;
    enum { CLIENTS = 600, ROUNDS = 40 };
    struct world w;
    static struct waiter waiters[CLIENTS];
    char id[16];
    open_world(&w);
    uint64_t saves = metrics.store_saves;
    for (unsigned round = 0; round < ROUNDS; round++) {
        for (unsigned i = 0; i < CLIENTS; i++) {
            snprintf(id, sizeof id, "c%u", i);
            if (round == 0)
                begin_register(&w, &waiters[i], id, 10, 0.001);
            else
                begin_update(&w, &waiters[i], id, 10 + round, NAN);
        }
        for (unsigned i = 0; i < CLIENTS; i++)
            assert_int_equal(wait_for(&w, &waiters[i]), ERR_OK);
        if (round % 30 == 29) { /* the journal was folded in meanwhile */
            assert_true(metrics.store_saves > saves);
            crash(&w);
            must_start(&w);
            assert_int_equal(clients_total(w.lim), CLIENTS);
            expect(&w, "c599", 10 + round, 0.001, 10);
        }
    }
    for (unsigned i = 0; i < CLIENTS; i++) {
        snprintf(id, sizeof id, "c%u", i);
        expect(&w, id, 10 + ROUNDS - 1, 0.001, 10);
    }
    close_world(&w);
}

int main(void)
{
    signal(SIGXFSZ, SIG_IGN);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_five_calls),
        cmocka_unit_test(modes_come_and_go),
        cmocka_unit_test(changes_show_when_they_are_durable),
        cmocka_unit_test(many_changes_share_a_sync),
        cmocka_unit_test(one_id_by_many_is_registered_once),
        cmocka_unit_test(changes_of_one_id_keep_their_order),
        cmocka_unit_test(cancelled_changes_go_on),
        cmocka_unit_test(too_many_waiting_are_refused),
        cmocka_unit_test(pages_miss_nobody_who_stays),
        cmocka_unit_test(lists_and_cursors),
        cmocka_unit_test(crash_loses_nothing_acknowledged),
        cmocka_unit_test(places_outlive_the_process),
        cmocka_unit_test(the_order_outlives_the_process),
        cmocka_unit_test(registrations_are_written_with_their_tokens),
        cmocka_unit_test(damaged_words_do_not_count),
        cmocka_unit_test(words_that_are_not_kept_leave_no_file),
        cmocka_unit_test(graceful_stop_keeps_tokens_in_one_file),
        cmocka_unit_test(tokens_are_saved_at_intervals),
        cmocka_unit_test(another_interval_acts_at_once),
        cmocka_unit_test(closing_finishes_what_was_begun),
        cmocka_unit_test(damage_stops_the_start_and_stays),
        cmocka_unit_test(torn_journal_is_cut),
        cmocka_unit_test(torn_group_is_cut),
        cmocka_unit_test(start_without_a_save),
        cmocka_unit_test(unreadable_copy_is_no_damage),
        cmocka_unit_test(second_process_is_refused),
        cmocka_unit_test(folder_of_another_is_refused),
        cmocka_unit_test(saves_that_will_fail_are_foretold),
        cmocka_unit_test(missing_folder_is_refused),
        cmocka_unit_test(names_of_one_file_share_all),
        cmocka_unit_test(a_link_to_nothing_yet),
        cmocka_unit_test(a_link_without_an_end_is_refused),
        cmocka_unit_test(a_link_to_a_mount_point),
        cmocka_unit_test(modes_go_with_clients_json),
        cmocka_unit_test(foreign_file_is_replaced_with_a_warning),
        cmocka_unit_test(foreign_file_is_left_by_a_clean_stop),
        cmocka_unit_test(foreign_file_is_told_of),
        cmocka_unit_test(a_start_tells_of_its_clients),
        cmocka_unit_test(file_from_nowhere_is_foreign),
        cmocka_unit_test(copy_of_a_rewriting_counts),
        cmocka_unit_test(copy_of_a_failed_start_stays),
        cmocka_unit_test(full_disk_changes_nothing_and_recovers),
        cmocka_unit_test(crash_on_a_full_disk),
        cmocka_unit_test(failed_save_is_tried_again_each_second),
        cmocka_unit_test(good_save_ends_the_trying),
        cmocka_unit_test(failed_save_at_stop_is_not_tried_again),
        cmocka_unit_test(failed_save_at_stop_is_reported),
        cmocka_unit_test(a_save_with_pauses),
        cmocka_unit_test(a_save_among_changes),
        cmocka_unit_test(a_save_among_syncs),
        cmocka_unit_test(the_stop_saves_what_has_gone),
        cmocka_unit_test(without_the_lock_nothing_is_written),
        cmocka_unit_test(saves_while_changes_go_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
