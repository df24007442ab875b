/* What requests cost where it can be counted: system calls, under strace, and memory. Times are the benchmark's. */
#include "harness/software.h"

#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define STRACE      "/usr/bin/strace"
#define CONNECTIONS 64
#define ROUNDS      60
#define IDLE        2000
#define UPLOADS     100
#define UPLOAD      60000

static void script(struct origin_conn *c)
{
    while (origin_read(c) && origin_answer(c, "small"))
        ;
}

/* The calls in the table that `strace -c` writes, all of them together. */
static long calls_in(const char *path)
{
    struct bytes table = file_content(path);
    const char *line = strstr(table.p, "total");
    long calls = 0;

    assert_non_null(line);
    while (line > table.p && line[-1] != '\n')
        line--;
    /* 100.00 seconds usecs/call calls errors total, some of which may be missing: the calls are the first whole number
     * behind the seconds that is not usecs/call, which the last line has, too. */
    assert_int_equal(sscanf(line, "%*f %*f %*d %ld", &calls), 1);
    bytes_free(&table);
    return calls;
}

/* All connections ask at once, and then all answers are read: so the daemon has much to do in each turn. */
static void load(struct world *w, struct client *c, unsigned rounds)
{
    (void)w;
    for (unsigned r = 0; r < rounds; r++) {
        for (unsigned i = 0; i < CONNECTIONS; i++)
            client_send(&c[i], "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
        for (unsigned i = 0; i < CONNECTIONS; i++)
            client_expect(&c[i], 200);
    }
}

/* The same on connections of their own. */
static void load_anew(struct world *w, struct client *c, unsigned rounds)
{
    for (unsigned r = 0; r < rounds; r++) {
        for (unsigned i = 0; i < CONNECTIONS; i++) {
            client_open(&c[i], w->port);
            client_send(&c[i], "GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
        }
        for (unsigned i = 0; i < CONNECTIONS; i++) {
            client_expect(&c[i], 200);
            client_expect_end(&c[i]);
            client_close(&c[i]);
        }
    }
}

static void begin_world(struct world *w)
{
    need_program(STRACE);
    world_origin(w, script, NULL, NULL);
    world_start(w, "\"log\": {\"format\": \"json\", \"access\": false}");
}

/* System calls of the daemon for each exchange while `fn` goes on. */
static double calls_each(struct world *w, struct client *c, void (*fn)(struct world *, struct client *, unsigned))
{
    struct daemon strace = {0};
    char pid[16];

    snprintf(pid, sizeof pid, "%d", (int)w->daemon.pid);
    daemon_start(&strace, w->dir, "strace", (const char *const[]){STRACE, "-c", "-f", "-o", "calls", "-p", pid, NULL});
    for (uint64_t end = deadline_in(patience_ms()); proc_kib(w->daemon.pid, "TracerPid") == 0; rest())
        if (left_ms(end) == 0)
            skip(); /* it may not trace here */
    fn(w, c, ROUNDS);
    daemon_signal(&strace, SIGINT);
    daemon_wait(&strace);
    daemon_fini(&strace);
    return (double)calls_in(world_path(w, "calls")) / (ROUNDS * CONNECTIONS);
}

/* Four calls move the bytes of an exchange; the rest is its share of epoll_wait(). */
static void test_system_calls_of_a_keep_alive_exchange(void **state)
{
    static struct client c[CONNECTIONS];
    struct world *w = *state;

    begin_world(w);
    for (unsigned i = 0; i < CONNECTIONS; i++)
        client_open(&c[i], w->port);
    load(w, c, 3);
    double each = calls_each(w, c, load);
    print_message("%.3f system calls an exchange\n", each);
    CHECK(each > 3.9 && each <= 4.2, "an exchange takes %.3f system calls", each);
    for (unsigned i = 0; i < CONNECTIONS; i++)
        client_close(&c[i]);
    world_finish(w);
}

/* The same four, one to accept, one to look whether the client has sent more, and one to close the connection: epoll
 * does not hear of it. */
static void test_system_calls_of_a_connection_for_one_exchange(void **state)
{
    static struct client c[CONNECTIONS];
    struct world *w = *state;

    begin_world(w);
    load_anew(w, c, 3);
    double each = calls_each(w, c, load_anew);
    print_message("%.3f system calls a connection\n", each);
    CHECK(each > 6.9 && each <= 7.5, "a connection takes %.3f system calls", each);
    world_finish(w);
}

static int log_reader;

/* One exchange at a time, each with a turn, and a line of the log, of its own. */
static void load_and_read_log(struct world *w, struct client *c, unsigned rounds)
{
    char lines[65536];

    (void)w;
    for (unsigned n = 0; n < rounds * CONNECTIONS; n++) {
        client_send(c, "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
        client_expect(c, 200);
        if (n % CONNECTIONS == 0)
            while (read(log_reader, lines, sizeof lines) > 0)
                ;
    }
}

/* The same four, two to wait for them, and one to write the line. */
static void test_system_calls_of_an_exchange_that_is_logged_to_a_pipe(void **state)
{
    struct world *w = *state;
    struct client c;

    need_program(STRACE);
    world_origin(w, script, NULL, NULL);
    assert_int_equal(mkfifo(world_path(w, "lb.log"), 0600), 0);
    log_reader = open(world_path(w, "lb.log"), O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    assert_true(log_reader >= 0);
    world_config(w, "\"log\": {\"format\": \"json\", \"file\": \"lb.log\"}");
    daemon_start(&w->daemon, w->dir, "loadbalancer", (const char *const[]){"loadbalancer", NULL});
    wait_for_port(w->port);
    client_open(&c, w->port);
    load_and_read_log(w, &c, 1);
    double each = calls_each(w, &c, load_and_read_log);
    print_message("%.3f system calls an exchange that is logged to a pipe\n", each);
    CHECK(each > 6.5 && each <= 7.5, "a logged exchange takes %.3f system calls", each);
    client_close(&c);
    world_stop(w);
    close(log_reader);
    world_finish(w);
}

static long memory_of(const struct world *w)
{
    return proc_kib(w->daemon.pid, "RssAnon");
}

/* 400 bytes for a connection that waits, and what the allocator and its pages add to that. */
static void test_memory_of_an_idle_connection(void **state)
{
    static struct client c[IDLE];
    struct world *w = *state;

    if (is_instrumented())
        skip();
    raise_fd_limit(2 * IDLE + 200);
    world_origin(w, script, NULL, NULL);
    world_start(w, "\"log\": {\"format\": \"json\", \"access\": false}");
    client_open(&c[0], w->port);
    client_send(&c[0], "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    client_expect(&c[0], 200);
    long before = memory_of(w);
    for (unsigned i = 1; i < IDLE; i++) {
        client_open(&c[i], w->port);
        client_send(&c[i], "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
        client_expect(&c[i], 200);
    }
    double each = (double)(memory_of(w) - before) * 1024 / (IDLE - 1);
    print_message("%.0f bytes for an idle connection\n", each);
    CHECK(each > 100 && each <= 400, "an idle connection takes %.0f bytes", each);
    for (unsigned i = 0; i < IDLE; i++)
        client_close(&c[i]);
    world_finish(w);
}

static atomic_uint uploads_read;

static void read_and_wait(struct origin_conn *c)
{
    if (!origin_read(c))
        return;
    atomic_fetch_add(&uploads_read, 1);
    origin_hold(c);
    origin_answer(c, "small");
}

static void upload(struct world *w, struct client *c, unsigned before)
{
    static char content[UPLOAD];
    uint64_t end = deadline_in(patience_ms());

    client_open(c, w->port);
    client_sendf(c, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n", UPLOAD);
    client_send_bytes(c, content, sizeof content);
    while (atomic_load(&uploads_read) == before) {
        CHECK(left_ms(end) > 0, "upload %u does not arrive", before + 1);
        rest();
    }
}

/* What will not be sent again is not kept while its answer is waited for. */
static void test_memory_of_a_post_that_waits(void **state)
{
    static struct client c[UPLOADS];
    struct world *w = *state;

    if (is_instrumented())
        skip();
    struct origin *o = world_origin(w, read_and_wait, NULL, NULL);
    world_start(w, "\"log\": {\"format\": \"json\", \"access\": false}");
    atomic_store(&uploads_read, 0);
    upload(w, &c[0], 0);
    long before = memory_of(w);
    for (unsigned i = 1; i < UPLOADS; i++)
        upload(w, &c[i], i);
    double each = (double)(memory_of(w) - before) / (UPLOADS - 1);
    print_message("%.1f KiB for a POST that waits\n", each);
    CHECK(each <= 10, "a POST that waits takes %.1f KiB", each);
    origin_release(o);
    for (unsigned i = 0; i < UPLOADS; i++) {
        client_expect(&c[i], 200);
        client_close(&c[i]);
    }
    world_finish(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WORLD_TEST(test_system_calls_of_a_keep_alive_exchange),
        WORLD_TEST(test_system_calls_of_a_connection_for_one_exchange),
        WORLD_TEST(test_system_calls_of_an_exchange_that_is_logged_to_a_pipe),
        WORLD_TEST(test_memory_of_an_idle_connection),
        WORLD_TEST(test_memory_of_a_post_that_waits),
    };

    return cmocka_run_group_tests_name("cost", tests, NULL, NULL);
}
