/* A million registered clients: what they cost at the start, in memory and at the stop, and that each of them is there,
 * once, for whoever asks for the list page by page. Where the daemon is instrumented there are fewer, and only the
 * latter counts. */
#include "harness/world.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

#define PAGES   1000u
#define WALKERS 20u /* connections that ask for pages at once */
#define MOVED   10u /* clients that have had a request in each life */

/* What is promised. */
#define LOAD_CPU_MS    3000u
#define STOP_CPU_MS    2000u
#define STOP_MS        5000u         /* a save at the stop has as long, whatever the disk */
#define MEMORY_MAX_KIB (128L * 1024) /* at the start, too */
#define PAGES_MAX_KIB  (6L * 1024)   /* what the pages on their way may take */
#define LIVES          3u            /* the best of so many counts, where it is about time */

#define PATIENCE_MS (is_instrumented() ? 120000 : 60000)

static size_t page_size(void)
{
    return is_instrumented() ? 20 : 1000;
}

static size_t clients_count(void)
{
    return PAGES * page_size();
}

/* The best so far. */
struct times {
    unsigned load_cpu, stop_cpu, stop;
};

static unsigned least(unsigned a, unsigned b)
{
    return a < b ? a : b;
}

static bool in_time(const struct times *t)
{
    return is_instrumented() || (t->load_cpu <= LOAD_CPU_MS && t->stop_cpu <= STOP_CPU_MS && t->stop <= STOP_MS);
}

/* ---- begin and end of a process ---- */

static void write_clients(struct world *w)
{
    const char *path = world_path(w, "clients.json");
    FILE *f = fopen(path, "we");
    size_t n = clients_count();

    CHECK(f, "%s: %s", path, strerror(errno));
    fputs("{\"clients\":[", f);
    for (size_t i = 0; i < n; i++)
        fprintf(f, "%s\n{\"client_id\":\"client-%09zu\",\"capacity\":100,\"rate_per_sec\":0.0001,\"tokens\":50}",
                i > 0 ? "," : "", i);
    fputs("\n]}\n", f);
    CHECK(fclose(f) == 0, "%s: %s", path, strerror(errno));
}

/* Starts, and returns the CPU time that has been taken when a first question has been answered. */
static unsigned start(struct world *w)
{
    struct client c;
    uint64_t deadline = deadline_in(PATIENCE_MS);

    daemon_start(&w->daemon, w->dir, "loadbalancer", (const char *const[]){"loadbalancer", NULL});
    while (!client_try_open(&c, w->port)) {
        CHECK(daemon_is_running(&w->daemon), "it has ended");
        CHECK(left_ms(deadline) > 0, "it does not listen after %d ms", PATIENCE_MS);
        rest();
    }
    client_send(&c, "GET /clients/get?id=client-000000000 HTTP/1.1\r\nHost: h\r\n\r\n");
    client_expect(&c, 0);
    client_close(&c);
    return proc_cpu_ms(w->daemon.pid);
}

static unsigned cpu_of_ended_ms(void)
{
    struct rusage u;

    getrusage(RUSAGE_CHILDREN, &u);
    return (unsigned)((u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1000 +
                      (u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1000);
}

static void stop(struct world *w, struct times *best)
{
    unsigned cpu_before = proc_cpu_ms(w->daemon.pid), ended_before = cpu_of_ended_ms();
    uint64_t begun = now_ms();

    daemon_signal(&w->daemon, SIGTERM);
    assert_int_equal(daemon_wait_for(&w->daemon, PATIENCE_MS), 0);
    unsigned took = (unsigned)(now_ms() - begun), cpu = cpu_of_ended_ms() - ended_before,
             more = cpu - least(cpu, cpu_before);
    daemon_expect_clean_stderr(&w->daemon);
    daemon_expect_event(&w->daemon, 0, "stop", "saved=yes cut=0");
    print_message("stop: %u ms, %u ms of CPU\n", took, more);
    best->stop = least(best->stop, took);
    best->stop_cpu = least(best->stop_cpu, more);
}

/* ---- the pages ---- */

/* One of those that walk: it has the clients from `next` on up to `end` still to come. */
struct walker {
    struct client client;
    size_t next, end;
};

static void ask_for_page(struct walker *k)
{
    char after[40] = "";

    if (k->next > 0)
        snprintf(after, sizeof after, "&after=client-%09zu", k->next - 1);
    client_sendf(&k->client, "GET /clients/list?limit=%zu%s HTTP/1.1\r\nHost: h\r\n\r\n", page_size(), after);
}

/* Goes over `text`, which must stand at the place. */
static const char *over(const char *at, const char *text)
{
    size_t n = strlen(text);

    CHECK(strncmp(at, text, n) == 0, "there is \"%.100s\" instead of \"%s\"", at, text);
    return at + n;
}

/* Those that had requests have so many tokens fewer; the others have all that they had. */
static const char *over_client(const char *at, size_t number, unsigned lives)
{
    char begin[100];
    char *end;
    double tokens, expected = number < MOVED ? 50.0 - lives : 50.0;

    snprintf(begin, sizeof begin,
             "{\"client_id\":\"client-%09zu\",\"capacity\":100,\"rate_per_sec\":0.0001,\"tokens\":", number);
    at = over(at, begin);
    tokens = strtod(at, &end);
    CHECK(tokens >= expected - 1e-3 && tokens < expected + 0.5, "client %zu has %f tokens instead of %f", number,
          tokens, expected);
    return over(end, ",\"mode\":\"enforce\",\"allowed\":0,\"limited\":0}");
}

/* The clients come in the order in which they were registered, none twice and none left out. */
static void read_page(struct walker *k, unsigned lives)
{
    const char *at = over(client_expect(&k->client, 200)->body.p, "{\"clients\":[");
    char end[100], next[40] = "null";
    size_t page_end = k->next + page_size();

    for (; k->next < page_end; k->next++) {
        at = over_client(at, k->next, lives);
        at = over(at, k->next + 1 < page_end ? "," : "]");
    }
    if (k->next < clients_count())
        snprintf(next, sizeof next, "\"client-%09zu\"", k->next - 1);
    snprintf(end, sizeof end, ",\"total\":%zu,\"next\":%s}\n", clients_count(), next);
    assert_string_equal(at, end);
}

/* Each page is asked for once, by one of twenty that walk through a part of the list each; where one ends, the next has
 * begun. They ask at once, and read one after the other. */
static void walk(struct world *w, unsigned lives)
{
    static struct walker walkers[WALKERS];
    size_t share = clients_count() / WALKERS;
    long before = proc_kib(w->daemon.pid, "VmRSS"), peak;
    bool exact = proc_forget_peak(w->daemon.pid);

    for (size_t i = 0; i < WALKERS; i++) {
        client_open(&walkers[i].client, w->port);
        walkers[i].next = i * share;
        walkers[i].end = (i + 1) * share;
    }
    for (unsigned pages = 0; pages < PAGES / WALKERS; pages++) {
        for (unsigned i = 0; i < WALKERS; i++)
            ask_for_page(&walkers[i]);
        for (unsigned i = 0; i < WALKERS; i++)
            read_page(&walkers[i], lives);
    }
    for (unsigned i = 0; i < WALKERS; i++) {
        assert_int_equal(walkers[i].next, walkers[i].end);
        client_close(&walkers[i].client);
    }
    peak = proc_kib(w->daemon.pid, exact ? "VmHWM" : "VmRSS");
    print_message("%u pages: %ld KiB more%s\n", PAGES, peak - before, exact ? "" : " at their end");
    CHECK(is_instrumented() || peak - before <= PAGES_MAX_KIB, "the pages took %ld KiB", peak - before);
}

/* ---- a life ---- */

static void move_tokens(struct world *w)
{
    char field[64];

    for (unsigned i = 0; i < MOVED; i++) {
        snprintf(field, sizeof field, "X-Client-ID: client-%09u\r\n", i);
        assert_int_equal(http_request(w->port, "GET", "/", field, NULL, NULL), 200);
    }
}

static void live(struct world *w, unsigned lives, long empty_kib, struct times *best)
{
    unsigned load_cpu = start(w);
    long peak = proc_kib(w->daemon.pid, "VmHWM") - empty_kib, kept = proc_kib(w->daemon.pid, "VmRSS") - empty_kib;

    print_message("load: %u ms of CPU; memory: %ld KiB more, %ld KiB meanwhile\n", load_cpu, kept, peak);
    CHECK(is_instrumented() || kept <= MEMORY_MAX_KIB, "%zu clients take %ld KiB", clients_count(), kept);
    CHECK(is_instrumented() || peak <= MEMORY_MAX_KIB, "to load %zu clients takes %ld KiB", clients_count(), peak);
    best->load_cpu = least(best->load_cpu, load_cpu);
    walk(w, lives);
    move_tokens(w);
    stop(w, best);
}

static void test_a_million_clients(void **state)
{
    struct world *w = *state;
    struct times best = {UINT32_MAX, UINT32_MAX, UINT32_MAX};

    world_origin(w, origin_answer_all, NULL, NULL);
    world_config(w, "\"log\": {\"format\": \"json\", \"access\": false}");
    start(w);
    long empty_kib = proc_kib(w->daemon.pid, "VmRSS");
    world_stop(w);
    write_clients(w);
    for (unsigned lives = 0; lives < 2 || (lives < LIVES && !in_time(&best)); lives++)
        live(w, lives, empty_kib, &best);
    CHECK(in_time(&best), "at best the load took %u ms of CPU, the stop %u, and %u ms", best.load_cpu, best.stop_cpu,
          best.stop);
    world_finish(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {WORLD_TEST(test_a_million_clients)};

    return cmocka_run_group_tests_name("million", tests, NULL, NULL);
}
