/* Unit tests of limit/store.c and store_words.c: when a long journal is folded in, and words whose file loses a page.
 */
#include "limit/store.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/metrics.h"
#include "limit/words_file.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

#define MIB (1024u * 1024u)

/* What is at least so long is taken for written: a journal of many MiB that costs no disk. */
#define PRETENDED MIB

ssize_t write(int fd, const void *p, size_t n)
{
    return n >= PRETENDED ? (ssize_t)n : syscall(SYS_write, fd, p, n);
}

/* No file takes another's place while it is set. */
static atomic_bool renaming_fails;

int rename(const char *from, const char *to)
{
    if (renaming_fails) {
        errno = EIO;
        return -1;
    }
    return (int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
}

struct world {
    char folder[32], path[64], tokens[80];
    struct loop *loop;
    struct worker *worker;
    struct client_table table;
    struct store *store;
    unsigned appended, closed;
    bool closed_well;
};

static void on_appended(void *arg, bool ok)
{
    struct world *w = arg;
    assert_true(ok);
    w->appended++;
}

static void open_world(struct world *w, uint64_t save_interval)
{
    static const struct hash_key key = {3, 4};
    char error[256];
    enum store_outcome outcome;
    *w = (struct world){0};
    strcpy(w->folder, "/tmp/lb-store-XXXXXX");
    assert_non_null(mkdtemp(w->folder));
    snprintf(w->path, sizeof w->path, "%s/clients.json", w->folder);
    snprintf(w->tokens, sizeof w->tokens, "%s.tokens", w->path);
    w->loop = loop_new();
    w->worker = worker_new(w->loop, "test");
    client_table_init(&w->table, &key);
    struct store_setup setup = {.loop = w->loop,
                                .worker = w->worker,
                                .table = &w->table,
                                .path = w->path,
                                .zero = clock_boottime() - NS_PER_S,
                                .save_interval = save_interval,
                                .appended = on_appended,
                                .arg = w};
    w->store = store_open(&setup, error, sizeof error, &outcome);
    if (!w->store)
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
    store_free(w->store);
    client_table_fini(&w->table);
    loop_free(w->loop);
    log_fini();
    nftw(w->folder, remove_one, 8, FTW_DEPTH);
}

/* Appends so many changes that take `n` bytes, and waits until they are on disk. */
static void append_changes(struct world *w, size_t count, size_t n)
{
    struct buf line = BUF_INIT;
    unsigned before = w->appended;
    assert_true(buf_reserve(&line, n));
    memset(buf_tail(&line), ' ', n);
    buf_added(&line, n);
    store_append(w->store, &line, count);
    while (w->appended == before)
        loop_turn(w->loop, TIMER_NEVER);
}

static void append(struct world *w, size_t n)
{
    append_changes(w, 1, n);
}

static struct client *add_client(struct world *w, unsigned number)
{
    char id[16];
    snprintf(id, sizeof id, "c%u", number);
    struct client *c = client_table_add(&w->table, str_of(id), &(struct client_settings){10, 1, CLIENT_ENFORCE});
    assert_non_null(c);
    client_table_show(&w->table, c);
    return c;
}

#define CLIENTS 600u /* with words in three pages of 4 KiB */
#define PAGE    4096

/* First, for the file of the words takes SIGBUS once for the whole process, and cmocka at each test. */
static void a_lost_page_spoils_the_file(void **state)
{
    (void)state;
    struct world w;
    struct words_file f;
    struct past_words past;
    int error;
    struct client *c = NULL;
    if (sysconf(_SC_PAGESIZE) != PAGE) {
        print_message("pages of another size: the header cannot stay alone\n");
        skip();
    }
    open_world(&w, 20 * NS_PER_MS);
    for (unsigned i = 0; i < CLIENTS; i++)
        c = add_client(&w, i);
    assert_true(words_file_init(&f, w.path));
    assert_int_equal(words_file_read(&f, clock_boottime(), &past, &error), WORDS_FOUND);
    assert_int_equal(past.n, CLIENTS);
    past_words_fini(&past);

    /* Somebody cuts all but the first page off, and gives room back: the header is as it was, the rest is not. */
    uint64_t failures = metrics.store_failures;
    assert_int_equal(truncate(w.tokens, PAGE), 0);
    *client_word(&w.table, c) = 1;
    assert_int_equal(truncate(w.tokens, WORDS_PIECE), 0);
    assert_true(file_map_is_lost());
    for (uint64_t end = loop_now(w.loop) + 10 * NS_PER_S; loop_now(w.loop) < end && metrics.store_failures == failures;)
        loop_turn(w.loop, 10 * NS_PER_MS);
    assert_int_equal(metrics.store_failures, failures + 1);
    enum words_fate fate = words_file_read(&f, clock_boottime(), &past, &error);
    if (fate == WORDS_FOUND)
        past_words_fini(&past);
    assert_int_equal(fate, WORDS_DAMAGED);
    words_file_fini(&f);
    close_world(&w);
}

/* Goes on until something is saved, or for so long. */
static bool is_saved(struct world *w, uint64_t within)
{
    uint64_t saves = metrics.store_saves;
    for (uint64_t end = loop_now(w->loop) + within; loop_now(w->loop) < end && metrics.store_saves == saves;)
        loop_turn(w->loop, 10 * NS_PER_MS);
    return metrics.store_saves != saves;
}

/* A journal is folded in when it is longer than 64 MiB, however few its lines are and however far the interval. */
static void a_long_journal_is_folded_in(void **state)
{
    (void)state;
    struct world w;
    open_world(&w, 3600 * NS_PER_S);
    for (unsigned round = 0; round < 2; round++) { /* it counts from the save on */
        for (unsigned i = 0; i < 16; i++)
            append(&w, 4 * MIB);
        assert_false(is_saved(&w, 50 * NS_PER_MS));
        append(&w, 1);
        assert_true(is_saved(&w, 10 * NS_PER_S));
    }
    close_world(&w);
}

/* And when it has ten lines for each client and ten thousand besides, and no sooner: short as they are, and though
 * there is but a client or two. */
static void a_journal_of_many_lines_is_folded_in(void **state)
{
    (void)state;
    struct world w;
    open_world(&w, 3600 * NS_PER_S);
    for (unsigned clients = 0; clients <= 500; clients += 250) {
        while (w.table.shown < clients)
            add_client(&w, (unsigned)w.table.shown);
        append_changes(&w, 1, 100);
        append_changes(&w, 10000 + 10 * clients - 1, 100);
        assert_false(is_saved(&w, 50 * NS_PER_MS));
        append_changes(&w, 1, 100);
        assert_true(is_saved(&w, 10 * NS_PER_S));
    }
    close_world(&w);
}

static void on_closed(void *arg, bool ok)
{
    struct world *w = arg;
    w->closed++;
    w->closed_well = ok;
}

static bool closes_well(struct world *w)
{
    unsigned before = w->closed;
    store_close(w->store, on_closed, w);
    while (w->closed == before)
        loop_turn(w->loop, TIMER_NEVER);
    return w->closed_well;
}

/* Tokens that a save has not brought to disk are still to be saved at the end, and who is told so can rely on it. */
static void a_failed_save_leaves_it_to_do(void **state)
{
    (void)state;
    struct world w;
    open_world(&w, 20 * NS_PER_MS);
    uint64_t failures = metrics.store_failures, saves = metrics.store_saves;
    renaming_fails = true;
    store_note_tokens(w.store);
    while (metrics.store_failures == failures)
        loop_turn(w.loop, TIMER_NEVER);
    assert_false(closes_well(&w));
    store_reopen(w.store);
    renaming_fails = false;
    assert_true(closes_well(&w));
    assert_int_equal(metrics.store_saves, saves + 1);
    close_world(&w);
}

/* However short the interval: a save that fails is tried, and told of, once a second. */
static void a_failed_save_waits_a_second(void **state)
{
    (void)state;
    struct world w;
    uint64_t failures = metrics.store_failures;
    open_world(&w, 2 * NS_PER_MS);
    while (file_map_is_lost() && metrics.store_failures == failures) /* the page of the test above */
        loop_turn(w.loop, TIMER_NEVER);
    renaming_fails = true;
    for (unsigned round = 0; round < 2; round++) {
        failures = metrics.store_failures;
        store_note_tokens(w.store);
        while (metrics.store_failures == failures)
            loop_turn(w.loop, TIMER_NEVER);
        for (uint64_t end = loop_now(w.loop) + 800 * NS_PER_MS; loop_now(w.loop) < end;) {
            store_note_tokens(w.store);
            loop_turn(w.loop, NS_PER_MS);
        }
        assert_int_equal(metrics.store_failures, failures + 1);
    }
    renaming_fails = false;
    assert_true(is_saved(&w, 10 * NS_PER_S));
    close_world(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_lost_page_spoils_the_file),          cmocka_unit_test(a_long_journal_is_folded_in),
        cmocka_unit_test(a_journal_of_many_lines_is_folded_in), cmocka_unit_test(a_failed_save_leaves_it_to_do),
        cmocka_unit_test(a_failed_save_waits_a_second),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
