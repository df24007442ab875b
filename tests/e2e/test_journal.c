/* The journal of registered clients, on the real process and a disk that does as it is told (disk_shim.h): how many
 * changes a sync takes, what comes of one that fails, and of lines that were cut off or spoiled. */
#include "disk_shim.h"

#include "harness/world.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* Nothing is saved but at a start, a stop, and where something has failed. */
#define RATE_LIMIT                                                                                                     \
    "\"rate_limit\": {\"default\": {\"capacity\": 1000, \"rate_per_sec\": 1000}, \"save_interval\": \"1h\"}, "         \
    "\"log\": {\"format\": \"json\", \"access\": false}"

#define MANY 50u /* connections that register at once */

static struct disk_shim *disk;

static void preload(const char *dir)
{
    const char *given = getenv("ASAN_OPTIONS");
    struct bytes library = {0}, options = {0};

    bytes_addf(&library, "%s/e2e/disk_shim.so", build_dir());
    /* The library comes before the sanitizer's own, which calls nothing that it replaces. */
    bytes_addf(&options, "%s%sverify_asan_link_order=0", given ? given : "", given ? ":" : "");
    setenv("LD_PRELOAD", library.p, 1);
    setenv("ASAN_OPTIONS", options.p, 1);
    setenv(DISK_SHIM_VARIABLE, dir, 1);
    bytes_free(&library);
    bytes_free(&options);
}

static int setup(void **state)
{
    int r = world_setup(state);
    struct world *w = *state;
    const char *path = world_path(w, "disk");
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

    if (r != 0 || fd < 0 || ftruncate(fd, sizeof *disk) != 0)
        return -1;
    disk = mmap(NULL, sizeof *disk, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (disk == MAP_FAILED)
        return -1;
    preload(path);
    return 0;
}

static int teardown(void **state)
{
    unsetenv("LD_PRELOAD");
    munmap(disk, sizeof *disk);
    return world_teardown(state);
}

static void start(struct world *w)
{
    world_origin(w, origin_answer_all, NULL, NULL);
    world_start(w, RATE_LIMIT);
}

/* ---- calls ---- */

static void send_registration(struct client *c, const char *id, unsigned capacity)
{
    char json[200];

    snprintf(json, sizeof json, "{\"client_id\":\"%s\",\"capacity\":%u,\"rate_per_sec\":1}", id, capacity);
    client_sendf(c, "POST /clients/register HTTP/1.1\r\nHost: h\r\nContent-Length: %zu\r\n\r\n%s", strlen(json), json);
}

static const char *numbered(unsigned n)
{
    static char id[32];

    snprintf(id, sizeof id, "user%u", n);
    return id;
}

/* Registers user`n` with a capacity of 10 + n; the status. */
static int register_one(struct world *w, unsigned n)
{
    struct client c;

    client_open(&c, w->port);
    send_registration(&c, numbered(n), 10 + n);
    int status = client_expect(&c, 0)->status;
    client_close(&c);
    return status;
}

/* The capacity of a client, or 0 where there is none of that id. */
static unsigned capacity_of(struct world *w, const char *id)
{
    char target[100];
    struct bytes body = {0};

    snprintf(target, sizeof target, "/clients/get?id=%s", id);
    int status = http_get(w->port, target, &body);
    cJSON *doc = cJSON_Parse(body.p);
    CHECK(status == 200 || status == 404, "%s: %d %s", id, status, body.p);
    unsigned capacity = status == 200 ? (unsigned)log_number(doc, "capacity") : 0;
    cJSON_Delete(doc);
    bytes_free(&body);
    return capacity;
}

static unsigned total(struct world *w)
{
    struct bytes body = {0};

    assert_int_equal(http_get(w->port, "/clients/list?limit=1", &body), 200);
    cJSON *doc = cJSON_Parse(body.p);
    unsigned n = (unsigned)log_number(doc, "total");
    cJSON_Delete(doc);
    bytes_free(&body);
    return n;
}

/* user0 to user(n - 1) are there, each as it was registered, and nobody else. */
static void expect_exactly(struct world *w, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        CHECK(capacity_of(w, numbered(i)) == 10 + i, "user%u has capacity %u", i, capacity_of(w, numbered(i)));
    assert_int_equal(total(w), n);
}

static void open_many(struct world *w, struct client c[MANY])
{
    for (unsigned i = 0; i < MANY; i++)
        client_open(&c[i], w->port);
}

static void close_many(struct client c[MANY])
{
    for (unsigned i = 0; i < MANY; i++)
        client_close(&c[i]);
}

/* ---- many changes in one sync ---- */

#define SYNC_MS 20u /* what a sync takes: much more than all else that a change costs */
#define ALONE   (is_instrumented() ? 5u : 20u)
#define ROUNDS  (is_instrumented() ? 3u : 10u)
#define RATIO   20u
#define TRIES   3u /* the best counts: who sends late, because the machine is busy, misses a sync */

struct rate {
    unsigned changes, syncs, ms;
};

/* One registers after the other: each change is synced before it is answered. */
static struct rate register_alone(struct world *w, unsigned *next)
{
    unsigned syncs = atomic_load(&disk->journal_syncs);
    uint64_t begun = now_ms();
    struct client c;

    client_open(&c, w->port);
    for (unsigned i = 0; i < ALONE; i++) {
        send_registration(&c, numbered((*next)++), 10);
        client_expect(&c, 201);
    }
    client_close(&c);
    return (struct rate){ALONE, atomic_load(&disk->journal_syncs) - syncs, (unsigned)(now_ms() - begun)};
}

static struct rate register_at_once(struct world *w, unsigned *next)
{
    static struct client c[MANY];
    unsigned syncs = atomic_load(&disk->journal_syncs);

    open_many(w, c);
    uint64_t begun = now_ms();
    for (unsigned round = 0; round < ROUNDS; round++) {
        for (unsigned i = 0; i < MANY; i++)
            send_registration(&c[i], numbered((*next)++), 10);
        for (unsigned i = 0; i < MANY; i++)
            client_expect(&c[i], 201);
    }
    unsigned ms = (unsigned)(now_ms() - begun);
    close_many(c);
    return (struct rate){ROUNDS * MANY, atomic_load(&disk->journal_syncs) - syncs, ms};
}

/* Compares both: true when fifty make twenty times as many changes a second, and a sync takes twenty. */
static bool is_shared(struct world *w, unsigned *next)
{
    struct rate alone = register_alone(w, next), many = register_at_once(w, next);
    double ratio = (double)many.changes / many.ms / ((double)alone.changes / alone.ms);

    print_message("alone: %u changes, %u syncs, %u ms; %u at once: %u changes, %u syncs, %u ms: %.1f times the rate\n",
                  alone.changes, alone.syncs, alone.ms, MANY, many.changes, many.syncs, many.ms, ratio);
    assert_int_equal(alone.syncs, alone.changes);
    return many.syncs * RATIO <= many.changes && (is_instrumented() || ratio >= RATIO);
}

static void test_changes_share_a_sync(void **state)
{
    struct world *w = *state;
    unsigned next = 0, tries = 0;

    start(w);
    atomic_store(&disk->slow_ms, SYNC_MS);
    while (!is_shared(w, &next))
        CHECK(++tries < TRIES, "%u at once are not %u times as fast as one alone", MANY, RATIO);
    atomic_store(&disk->slow_ms, 0);
    daemon_kill(&w->daemon);
    world_restart(w);
    assert_int_equal(total(w), next);
    world_finish(w);
}

/* ---- the same client, registered by all ---- */

/* All register the same id at once, each with a capacity of its own; that of the one who has succeeded, or 0. */
static unsigned register_same(struct client c[MANY], const char *id, int otherwise)
{
    unsigned winner = 0;

    for (unsigned i = 0; i < MANY; i++)
        send_registration(&c[i], id, 10 + i);
    for (unsigned i = 0; i < MANY; i++) {
        int status = client_expect(&c[i], 0)->status;
        CHECK(status == otherwise || (status == 201 && winner == 0), "%s is answered %d, after a success: %s", id,
              status, winner > 0 ? "yes" : "no");
        if (status == 201)
            winner = 10 + i;
    }
    return winner;
}

static void test_one_registers_what_all_register(void **state)
{
    static struct client c[MANY];
    static const unsigned slow[] = {0, 2, 20};
    unsigned winners[12], n = sizeof winners / sizeof winners[0];
    struct world *w = *state;

    start(w);
    open_many(w, c);
    for (unsigned i = 0; i < n; i++) {
        atomic_store(&disk->slow_ms, slow[i % 3]);
        winners[i] = register_same(c, numbered(i), 409);
        assert_true(winners[i] > 0);
    }
    close_many(c);
    for (unsigned lives = 0; lives < 2; lives++) {
        for (unsigned i = 0; i < n; i++)
            assert_int_equal(capacity_of(w, numbered(i)), winners[i]);
        assert_int_equal(total(w), n);
        daemon_kill(&w->daemon);
        world_restart(w);
    }
    world_finish(w);
}

/* ---- the syncs of a start ---- */

/* On a slow disk each takes its time before anything is served. What there was is synced; what is new is nothing but
 * the journal's name. */
static void test_syncs_of_a_start(void **state)
{
    struct world *w = *state;

    start(w);
    assert_int_equal(atomic_load(&disk->syncs), 1);
    assert_int_equal(register_one(w, 0), 201);
    assert_int_equal(atomic_load(&disk->syncs), 2);
    daemon_kill(&w->daemon);
    atomic_store(&disk->journal_syncs, 0);
    world_restart(w);
    assert_true(atomic_load(&disk->journal_syncs) >= 1);
    daemon_signal(&w->daemon, SIGTERM);
    daemon_wait(&w->daemon);
    atomic_store(&disk->syncs, 0);
    world_restart(w); /* the stop has left no journal */
    assert_int_equal(atomic_load(&disk->syncs), 1);
    expect_exactly(w, 1);
    world_finish(w);
}

/* ---- a sync that fails ---- */

static void expect_refused(struct world *w, const char *method, const char *target, const char *content)
{
    struct client c;

    client_open(&c, w->port);
    client_sendf(&c, "%s %s HTTP/1.1\r\nHost: h\r\nContent-Length: %zu\r\n\r\n%s", method, target, strlen(content),
                 content);
    const struct message *r = client_expect(&c, 503);
    assert_string_equal(message_field(r, "Content-Type"), "application/problem+json");
    cJSON *doc = cJSON_Parse(r->body.p);
    CHECK(doc && log_number(doc, "status") == 503, "%s", r->body.p);
    cJSON_Delete(doc);
    client_close(&c);
}

/* No change comes about, by whatever way it is asked for, and traffic goes on. */
static void expect_no_change(struct world *w, unsigned n)
{
    static struct client c[MANY];

    expect_refused(w, "POST", "/clients/register", "{\"client_id\":\"refused\",\"capacity\":1,\"rate_per_sec\":1}");
    expect_refused(w, "PUT", "/clients/update", "{\"client_id\":\"user0\",\"capacity\":5}");
    expect_refused(w, "DELETE", "/clients/delete?id=user0", "");
    open_many(w, c);
    assert_int_equal(register_same(c, "same", 503), 0);
    close_many(c);
    assert_int_equal(capacity_of(w, "refused"), 0);
    assert_int_equal(capacity_of(w, "same"), 0);
    expect_exactly(w, n);
    assert_int_equal(http_get(w->port, "/", NULL), 200);
    assert_int_equal(http_request(w->port, "GET", "/", "X-Client-ID: user0\r\n", NULL, NULL), 200);
}

static void expect_failure(struct world *w, const char *match)
{
    const cJSON *line = daemon_expect_event(&w->daemon, 0, "store_failed", match);

    assert_string_equal(log_field(line, "error"), strerror(EIO));
}

/* Changes are taken again, by themselves. */
static void register_when_well(struct world *w, unsigned n)
{
    uint64_t deadline = deadline_in(patience_ms());
    int status;

    while ((status = register_one(w, n)) != 201) {
        CHECK(status == 503 && left_ms(deadline) > 0, "it is not well again: %d", status);
        rest();
    }
}

static void expect_after_kill(struct world *w, unsigned n)
{
    daemon_kill(&w->daemon);
    world_restart(w);
    expect_exactly(w, n);
    assert_int_equal(capacity_of(w, "refused"), 0);
    assert_int_equal(capacity_of(w, "same"), 0);
}

/* A start ends with that status, and says that. */
static void expect_no_start(struct world *w, int status, const char *said)
{
    int is = daemon_run(&w->daemon, w->dir, "loadbalancer", (const char *const[]){"loadbalancer", NULL});
    struct bytes message = daemon_stderr(&w->daemon);

    CHECK(is == status && strstr(message.p, said), "it ends with %d and says \"%s\" instead of %d and \"%s\"", is,
          message.p, status, said);
    bytes_free(&message);
}

/* Only the journal's own syncs fail: the saves that are to mend it succeed, and the next change finds it as before. */
static void test_sync_of_the_journal_fails(void **state)
{
    struct world *w = *state;

    start(w);
    assert_int_equal(register_one(w, 0), 201);
    assert_int_equal(register_one(w, 1), 201);
    atomic_store(&disk->journal_fails, true);
    expect_no_change(w, 2);
    expect_failure(w, "what=journal");
    daemon_expect_event(&w->daemon, 0, "store_recovered", NULL);
    expect_no_change(w, 2);
    atomic_store(&disk->journal_fails, false);
    register_when_well(w, 2);
    expect_after_kill(w, 3);
    expect_after_kill(w, 3);
    world_finish(w);
}

/* No sync succeeds: nothing is well before the disk is. */
static void test_all_syncs_fail(void **state)
{
    struct world *w = *state;

    start(w);
    assert_int_equal(register_one(w, 0), 201);
    atomic_store(&disk->all_fails, true);
    expect_no_change(w, 1);
    expect_failure(w, "what=journal");
    expect_failure(w, "what=clients_file");
    expect_no_change(w, 1);
    assert_int_equal(daemon_count_events(&w->daemon, 0, "store_recovered", NULL), 0);
    atomic_store(&disk->all_fails, false);
    daemon_expect_event(&w->daemon, 0, "store_recovered", NULL); /* without being asked for anything */
    assert_int_equal(register_one(w, 1), 201);
    expect_exactly(w, 2);
    expect_after_kill(w, 2);

    /* Killed in the middle of it. What the next one shows must be on disk, so there is none as long as that fails. */
    atomic_store(&disk->all_fails, true);
    expect_no_change(w, 2);
    daemon_kill(&w->daemon);
    expect_no_start(w, 1, "clients.json.journal: Input/output error\n");
    atomic_store(&disk->all_fails, false);
    world_restart(w);
    expect_exactly(w, 2);
    world_finish(w);
}

/* ---- lines that are torn ---- */

#define LINES 5u

/* The journal of so many registrations, as a killed process has left it. */
static struct bytes make_journal(struct world *w)
{
    start(w);
    for (unsigned i = 0; i < LINES; i++)
        assert_int_equal(register_one(w, i), 201);
    daemon_kill(&w->daemon);
    return file_content(world_path(w, "clients.json.journal"));
}

static size_t begin_of_line(const struct bytes *b, unsigned n)
{
    const char *at = b->p;

    while (n-- > 0)
        at = strchr(at, '\n') + 1;
    return (size_t)(at - b->p);
}

/* A journal with nothing but that, and no other file of the clients. */
static void put_journal(struct world *w, const char *p, size_t n)
{
    static const char *const others[] = {"clients.json", "clients.json.tokens"};
    struct bytes text = {0};

    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        (void)unlink(world_path(w, others[i]));
    bytes_add(&text, p, n);
    file_put(world_path(w, "clients.json.journal"), text.p);
    bytes_free(&text);
}

static size_t journal_size(struct world *w)
{
    struct stat st;

    assert_int_equal(stat(world_path(w, "clients.json.journal"), &st), 0);
    return (size_t)st.st_size;
}

/* The process that is just there has cut so many bytes off; the client that they told of is unknown, the others are
 * not; and what is registered now is there after a kill. */
static void expect_torn(struct world *w, size_t dropped)
{
    const cJSON *line = daemon_expect_event(&w->daemon, 0, "journal_torn", "level=warn");

    assert_non_null(strstr(log_field(line, "file"), "clients.json.journal"));
    CHECK((size_t)log_number(line, "bytes_dropped") == dropped, "%.0f bytes dropped instead of %zu",
          log_number(line, "bytes_dropped"), dropped);
    expect_exactly(w, LINES - 1);
    assert_int_equal(register_one(w, LINES - 1), 201);
    daemon_kill(&w->daemon);
    world_restart(w);
    assert_int_equal(daemon_count_events(&w->daemon, 0, "journal_torn", NULL), 0);
    expect_exactly(w, LINES);
}

static void test_last_line_is_torn(void **state)
{
    struct world *w = *state;
    struct bytes whole = make_journal(w);
    size_t last = begin_of_line(&whole, LINES - 1), n = whole.n - last;
    const size_t kept[] = {1, 10, n / 2, n - 20, n - 2, n - 1};

    for (size_t i = 0; i < sizeof kept / sizeof *kept; i++) {
        put_journal(w, whole.p, last + kept[i]);
        world_restart(w);
        assert_int_equal(journal_size(w), 0); /* it has been folded in */
        expect_torn(w, kept[i]);
        world_stop(w);
    }
    bytes_free(&whole);
    world_finish(w);
}

/* Where it cannot be folded in, the end is cut off all the same: what comes next stands behind a whole line. */
static void test_torn_where_nothing_can_be_saved(void **state)
{
    struct world *w = *state;
    struct bytes whole = make_journal(w);
    size_t last = begin_of_line(&whole, LINES - 1), n = whole.n - last;
    const size_t kept[] = {1, n / 2, n - 1};

    for (size_t i = 0; i < sizeof kept / sizeof *kept; i++) {
        put_journal(w, whole.p, last + kept[i]);
        atomic_store(&disk->temporaries_fail, true);
        world_restart(w);
        expect_failure(w, "what=clients_file");
        assert_int_equal(journal_size(w), last);
        expect_torn(w, kept[i]);
        atomic_store(&disk->temporaries_fail, false);
        world_stop(w);
    }
    bytes_free(&whole);
    world_finish(w);
}

/* What is wrong anywhere else is no torn end: the start says where, and leaves all as it is. */
static void test_bad_line_before_the_last(void **state)
{
    struct world *w = *state;
    struct bytes whole = make_journal(w);

    for (unsigned line = 0; line < LINES; line++) {
        struct bytes spoiled = {0};
        char said[100];
        bytes_add(&spoiled, whole.p, whole.n);
        *strstr(spoiled.p + begin_of_line(&whole, line), "capacity") = 'K';
        put_journal(w, spoiled.p, spoiled.n);
        snprintf(said, sizeof said, "clients.json.journal:%u:1: the checksum of this line is wrong\n", line + 1);
        expect_no_start(w, 2, said);
        struct bytes left = file_content(world_path(w, "clients.json.journal"));
        assert_string_equal(left.p, spoiled.p);
        assert_int_equal(daemon_count_events(&w->daemon, 0, "journal_torn", NULL), 0);
        bytes_free(&left);
        bytes_free(&spoiled);
    }
    bytes_free(&whole);
    world_finish(w);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_syncs_of_a_start),
        TEST(test_changes_share_a_sync),
        TEST(test_one_registers_what_all_register),
        TEST(test_sync_of_the_journal_fails),
        TEST(test_all_syncs_fail),
        TEST(test_last_line_is_torn),
        TEST(test_torn_where_nothing_can_be_saved),
        TEST(test_bad_line_before_the_last),
    };

    return cmocka_run_group_tests_name("journal", tests, NULL, NULL);
}
