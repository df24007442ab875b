/* Start, arguments, signals, log, and the end. */
#include "harness/world.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static int run(struct world *w, const char *const arguments[])
{
    const char *argv[8] = {"loadbalancer"};

    for (size_t i = 0; arguments[i]; i++)
        argv[i + 1] = arguments[i];
    return daemon_run(&w->daemon, w->dir, "loadbalancer", argv);
}

#define RUN(w, ...) run(w, (const char *const[]){__VA_ARGS__, NULL})

static void expect_stdout(const struct world *w, const char *part)
{
    struct bytes b = daemon_stdout(&w->daemon);

    CHECK(strstr(b.p, part), "stdout has no \"%s\": %s", part, b.p);
    bytes_free(&b);
}

static void expect_stderr(const struct world *w, const char *part)
{
    struct bytes b = daemon_stderr(&w->daemon);

    CHECK(strstr(b.p, part), "stderr has no \"%s\": %s", part, b.p);
    bytes_free(&b);
}

static void test_usage(void **state)
{
    struct world *w = *state;

    assert_int_equal(RUN(w, "-h"), 0);
    expect_stdout(w, "--config");
    assert_int_equal(RUN(w, "--help"), 0);
    assert_int_equal(RUN(w, "-v"), 0);
    expect_stdout(w, "loadbalancer ");
    assert_int_equal(RUN(w, "--version"), 0);
    assert_int_equal(RUN(w, "-x"), 2);
    assert_int_equal(RUN(w, "--nonsense"), 2);
    assert_int_equal(RUN(w, "-c"), 2);
    assert_int_equal(RUN(w, "stray"), 2);
    expect_stderr(w, "stray");
    world_finish(w);
}

/* What nobody could read was not done. */
static void test_output_that_cannot_be_written(void **state)
{
    static const char *const options[] = {"-h", "-v", "-t"};
    struct world *w = *state;
    char command[700];

    world_origin(w, origin_answer_all, NULL, NULL);
    world_config(w, NULL);
    for (size_t i = 0; i < sizeof options / sizeof *options; i++) {
        snprintf(command, sizeof command, "exec '%s/loadbalancer' %s >/dev/full", build_dir(), options[i]);
        assert_int_equal(
            daemon_run(&w->daemon, w->dir, "loadbalancer", (const char *const[]){"/bin/sh", "-c", command, NULL}), 1);
        expect_stderr(w, "No space left on device");
    }
    world_finish(w);
}

static void test_config_check(void **state)
{
    struct world *w = *state;

    assert_int_equal(RUN(w, "-t"), 2); /* no config.json */
    expect_stderr(w, "config.json");
    file_put(world_path(w, "good.json"), "{\"backends\": [{\"address\": \"127.0.0.1:9001\"}]}");
    assert_int_equal(RUN(w, "-t", "-c", "good.json"), 0);
    assert_int_equal(RUN(w, "--test", "--config", "good.json"), 0);
    assert_int_not_equal(access(world_path(w, "clients.json"), F_OK), 0);
    file_put(world_path(w, "bad.json"),
             "{\n  \"backends\": [\n    {\"address\": \"127.0.0.1:9001\"},\n"
             "    {\"address\": \"127.0.0.1:9002\", \"weight\": 0}\n  ],\n  \"blance\": 1\n}\n");
    assert_int_equal(RUN(w, "-t", "-c", "bad.json"), 2);
    expect_stderr(w, "bad.json:4:");
    expect_stderr(w, "backends[1].weight");
    expect_stderr(w, "bad.json:6:");
    expect_stderr(w, "balance");
    assert_int_equal(RUN(w, "-c", "bad.json"), 2);
    assert_int_equal(RUN(w, "-c", "/"), 2);
    world_finish(w);
}

static void test_port_in_use(void **state)
{
    struct world *w = *state;

    world_origin(w, origin_answer_all, NULL, NULL);
    w->port = world_taken_port(w);
    world_config(w, NULL);
    assert_int_equal(RUN(w, "-c", "config.json"), 1);
    expect_stderr(w, "in use");
    world_finish(w);
}

static void test_log_file_that_cannot_be_opened(void **state)
{
    struct world *w = *state;

    world_origin(w, origin_answer_all, NULL, NULL);
    world_config(w, "\"log\": {\"file\": \"no/such/folder/log\"}");
    assert_int_equal(RUN(w, "-c", "config.json"), 1);
    expect_stderr(w, "no/such/folder/log");
    world_finish(w);
}

/* Where no line can be written, stderr says so, once. */
static void test_log_file_that_cannot_be_written(void **state)
{
    struct world *w = *state;

    world_origin(w, origin_answer_all, NULL, NULL);
    world_config(w, "\"log\": {\"file\": \"/dev/full\"}");
    daemon_start(&w->daemon, w->dir, "loadbalancer", (const char *const[]){"loadbalancer", NULL});
    wait_for_port(w->port);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(http_get(w->port, "/", NULL), 200);
        usleep(30 * 1000);
    }
    daemon_signal(&w->daemon, SIGTERM);
    assert_int_equal(daemon_wait(&w->daemon), 0);
    struct bytes b = daemon_stderr(&w->daemon);
    assert_string_equal(b.p, "/dev/full: the log cannot be written: No space left on device; lines are lost\n");
    bytes_free(&b);
    world_finish(w);
}

static void test_too_many_connections_asked_for(void **state)
{
    struct world *w = *state;

    world_origin(w, origin_answer_all, NULL, NULL);
    world_config(w, "\"limits\": {\"connections\": 100000000}");
    int status = RUN(w, "-c", "config.json");
    assert_true(status == 1 || status == 2);
    expect_stderr(w, "limits.connections");
    world_finish(w);
}

/* With fewer descriptors than all connections may come to need, but enough for them alone, it starts, and says so;
 * a reload says so where it asks for another number. */
static void test_descriptors_for_some(void **state)
{
    struct world *w = *state;
    char program[300];

    snprintf(program, sizeof program, "%s/loadbalancer", build_dir());
    world_origin(w, origin_answer_all, NULL, NULL);
    world_config(w, "\"limits\": {\"connections\": 200}");
    daemon_start(&w->daemon, w->dir, "loadbalancer",
                 (const char *const[]){"/bin/sh", "-c", "ulimit -n 300 && exec \"$0\"", program, NULL});
    daemon_expect_event(&w->daemon, 0, "descriptors_short", "level=warn possible=300 wanted=464");
    daemon_expect_event(&w->daemon, 0, "listening", NULL);
    for (unsigned connections = 140; connections <= 220; connections += 40) {
        char limits[64], match[64];
        snprintf(limits, sizeof limits, "\"limits\": {\"connections\": %u}", connections);
        world_config(w, limits);
        for (int i = 0; i < 2; i++) {
            size_t mark = daemon_mark(&w->daemon);
            daemon_signal(&w->daemon, SIGHUP);
            daemon_expect_event(&w->daemon, mark, "reload", NULL);
            snprintf(match, sizeof match, "wanted=%u", 2 * connections + 64);
            assert_int_equal(daemon_count_events(&w->daemon, mark, "descriptors_short", match),
                             connections > 150 && i == 0);
        }
    }
    /* And more than there can be descriptors for is refused, as it is at the start. */
    world_config(w, "\"limits\": {\"connections\": 400}");
    size_t mark = daemon_mark(&w->daemon);
    daemon_signal(&w->daemon, SIGHUP);
    const char *cause = log_field(daemon_expect_event(&w->daemon, mark, "reload_failed", NULL), "cause");
    CHECK(strstr(cause, "limits.connections"), "the cause is \"%s\"", cause);
    assert_int_equal(daemon_count_events(&w->daemon, mark, "reload", NULL), 0);
    world_finish(w);
}

static void held_script(struct origin_conn *c)
{
    while (origin_read(c)) {
        if (strcmp(c->request.target, "/held") == 0)
            origin_hold(c);
        if (strcmp(c->request.target, "/body") == 0) {
            if (!origin_send(c, "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf"))
                return;
            origin_hold(c);
            if (!origin_send(c, "half"))
                return;
        } else if (!origin_answer(c, "whole")) {
            return;
        }
    }
}

static void test_sigterm_without_connections(void **state)
{
    struct world *w = *state;
    uint64_t begun;

    world_origin(w, held_script, NULL, NULL);
    world_start(w, "\"health_check\": {\"interval\": \"50ms\"}");
    assert_int_equal(http_get(w->port, "/", NULL), 200);
    begun = now_ms();
    daemon_signal(&w->daemon, SIGTERM);
    assert_int_equal(daemon_wait(&w->daemon), 0);
    assert_true(is_instrumented() || now_ms() - begun < 900u);
    daemon_expect_event(&w->daemon, 0, "drain", NULL);
    daemon_expect_event(&w->daemon, 0, "stop", NULL);
    daemon_expect_clean_stderr(&w->daemon);
    world_finish(w);
}

/* Exchanges in flight finish, in whatever stage the signal finds them, and no new connection is taken. */
static void test_drain(void **state)
{
    struct world *w = *state;
    struct client held, body, pipelined;

    world_origin(w, held_script, NULL, NULL);
    world_start(w, NULL);
    client_open(&held, w->port);
    client_send(&held, "GET /held HTTP/1.1\r\nHost: h\r\n\r\n");
    client_open(&body, w->port);
    client_send(&body, "GET /body HTTP/1.1\r\nHost: h\r\n\r\n");
    client_expect_head(&body, 200);
    client_open(&pipelined, w->port);
    client_send(&pipelined, "GET /held HTTP/1.1\r\nHost: h\r\n\r\n");
    origin_wait_requests(w->origins[0], 3);
    daemon_signal(&w->daemon, SIGTERM);
    daemon_expect_event(&w->daemon, 0, "drain", NULL);
    assert_false(client_can_connect(w->port));
    origin_release(w->origins[0]);
    client_expect(&held, 200);
    assert_true(message_has_token(&held.response, "Connection", "close"));
    client_expect_end(&held);
    assert_int_equal(client_read_body(&body, NULL, NULL), READ_OK);
    assert_string_equal(body.response.body.p, "halfhalf");
    client_expect(&pipelined, 200);
    client_close(&held);
    client_close(&body);
    client_close(&pipelined);
    assert_int_equal(daemon_wait(&w->daemon), 0);
    daemon_expect_event(&w->daemon, 0, "stop", "finished=3 cut=0");
    /* What was counted, and nothing that was not, is the last word but one. */
    const cJSON *totals = w->daemon.lines[w->daemon.line_count - 2];
    assert_string_equal(log_field(totals, "event"), "totals");
    assert_int_equal(log_number(totals, "requests"), 3);
    assert_int_equal(log_number(totals, "attempts"), 3);
    assert_null(log_field(totals, "retries"));
    daemon_expect_clean_stderr(&w->daemon);
    world_finish(w);
}

/* A connection that is idle when the signal comes may bring one more request within a second. */
static void test_drain_gives_idle_connections_a_second(void **state)
{
    struct world *w = *state;
    struct client used, idle;
    uint64_t begun;

    world_origin(w, held_script, NULL, NULL);
    world_start(w, NULL);
    client_open(&used, w->port);
    client_send(&used, "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    client_expect(&used, 200);
    client_open(&idle, w->port);
    client_send(&idle, "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    client_expect(&idle, 200);
    begun = now_ms();
    daemon_signal(&w->daemon, SIGTERM);
    daemon_expect_event(&w->daemon, 0, "drain", NULL);
    client_send(&used, "GET /last HTTP/1.1\r\nHost: h\r\n\r\n");
    client_expect(&used, 200);
    assert_true(message_has_token(&used.response, "Connection", "close"));
    client_expect_end(&used);
    client_expect_end(&idle);
    assert_true(now_ms() - begun >= 900u);
    assert_true(is_instrumented() || now_ms() - begun < 3000u);
    client_close(&used);
    client_close(&idle);
    assert_int_equal(daemon_wait(&w->daemon), 0);
    daemon_expect_event(&w->daemon, 0, "stop", "finished=1 cut=0"); /* those before it began do not count */
    world_finish(w);
}

static void test_shutdown_deadline(void **state)
{
    struct world *w = *state;
    struct client c;
    uint64_t begun;

    world_origin(w, held_script, NULL, NULL);
    world_start(w, "\"timeouts\": {\"shutdown\": \"500ms\"}");
    client_open(&c, w->port);
    client_send(&c, "GET /held HTTP/1.1\r\nHost: h\r\n\r\n");
    origin_wait_requests(w->origins[0], 1);
    begun = now_ms();
    daemon_signal(&w->daemon, SIGTERM);
    assert_int_equal(daemon_wait(&w->daemon), 3);
    assert_true(now_ms() - begun >= 450u);
    daemon_expect_event(&w->daemon, 0, "stop", "cut=1");
    client_expect_end_or_reset(&c);
    client_close(&c);
    daemon_expect_clean_stderr(&w->daemon);
    world_finish(w);
}

static void test_second_signal(void **state)
{
    struct world *w = *state;
    struct client c;

    world_origin(w, held_script, NULL, NULL);
    world_start(w, NULL);
    client_open(&c, w->port);
    client_send(&c, "GET /held HTTP/1.1\r\nHost: h\r\n\r\n");
    origin_wait_requests(w->origins[0], 1);
    daemon_signal(&w->daemon, SIGINT);
    daemon_expect_event(&w->daemon, 0, "drain", NULL);
    daemon_signal(&w->daemon, SIGTERM);
    assert_int_equal(daemon_wait(&w->daemon), 3);
    daemon_expect_event(&w->daemon, 0, "stop", "cut=1 saved=yes");
    client_close(&c);
    world_finish(w);
}

/* Clients whose save takes a while. */
/* So many bytes of content without an end, and then the end of the connection. */
static void cut_script(struct origin_conn *c)
{
    char piece[4096];
    unsigned long left;

    memset(piece, 'x', sizeof piece);
    if (!origin_read(c) || !origin_send(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"))
        return;
    for (left = strtoul(c->request.target + 1, NULL, 10); left >= sizeof piece; left -= sizeof piece)
        if (!origin_send(c, "1000\r\n") || !origin_send_bytes(c, piece, sizeof piece) || !origin_send(c, "\r\n"))
            return;
}

static bool comes_to_lines(struct world *w, size_t n)
{
    uint64_t deadline = now_ms() + 3000;

    while (daemon_count_events(&w->daemon, 0, "request", "reason=backend_cut") < n && now_ms() < deadline)
        rest();
    return now_ms() < deadline;
}

/* Responses that their backend has cut off are over, while what came of them is still being sent. Of which sizes that
 * is so depends on what the kernel keeps: smaller ones are sent, and the first that is larger is still under way. */
static void test_cut_while_only_sending(void **state)
{
    enum { CLIENTS = 128, STEP = 32 * 1024 };
    struct world *w = *state;
    struct client clients[CLIENTS];
    unsigned n = 0;

    world_origin(w, cut_script, NULL, NULL);
    world_start(w, NULL);
    do {
        assert_true(n < CLIENTS);
        client_open_narrow(&clients[n], w->port, 4096);
        client_sendf(&clients[n], "GET /%u HTTP/1.1\r\nHost: h\r\n\r\n", (n + 1) * STEP);
    } while (comes_to_lines(w, ++n));
    daemon_signal(&w->daemon, SIGTERM);
    daemon_expect_event(&w->daemon, 0, "drain", "exchanges=1");
    daemon_signal(&w->daemon, SIGTERM);
    assert_int_equal(daemon_wait(&w->daemon), 3);
    const cJSON *stop = daemon_expect_event(&w->daemon, 0, "stop", "finished=0");
    CHECK(log_number(stop, "cut") > 1, "no response was only being sent");
    while (n > 0)
        client_close(&clients[--n]);
    world_finish(w);
}

static void put_clients(const struct world *w, const char *name, unsigned count)
{
    FILE *f = fopen(world_path(w, name), "w");

    assert_non_null(f);
    fprintf(f, "{\"clients\":[\n");
    for (unsigned i = 0; i < count; i++)
        fprintf(f, "{\"client_id\":\"u%u\",\"capacity\":10,\"rate_per_sec\":1,\"tokens\":5}%s\n", i,
                i + 1 < count ? "," : "");
    fprintf(f, "],\"saved_at\":\"2026-01-01T00:00:00.000Z\"}\n");
    assert_int_equal(fclose(f), 0);
}

/* Of Ctrl-C in a terminal the balancer hears, and whoever started it may pass it on: where nothing is under way, that
 * is a graceful stop, wherever in it the second signal comes. */
static void test_two_signals_in_a_row(void **state)
{
    static const unsigned apart_ms[] = {0, 1, 2, 5, 10, 20, 50};
    struct world *w = *state;

    world_origin(w, held_script, NULL, NULL);
    world_config(w, "\"rate_limit\": {\"clients_file\": \"many.json\"}");
    put_clients(w, "many.json", 20000);
    for (size_t i = 0; i < sizeof apart_ms / sizeof *apart_ms; i++) {
        daemon_start(&w->daemon, w->dir, "loadbalancer", (const char *const[]){"loadbalancer", NULL});
        daemon_expect_event(&w->daemon, 0, "listening", NULL); /* there is no connection to wait for */
        daemon_signal(&w->daemon, SIGINT);
        usleep(apart_ms[i] * 1000);
        daemon_signal(&w->daemon, SIGTERM);
        int status = daemon_wait(&w->daemon);
        CHECK(status == 0, "exit status %d with the signals %u ms apart", status, apart_ms[i]);
        daemon_expect_event(&w->daemon, 0, "stop", "cut=0 saved=yes");
        daemon_expect_clean_stderr(&w->daemon);
    }
    world_finish(w);
}

/* Load that does not stop for the signal: each request that was taken is answered. */
struct loader {
    int port;
    unsigned answered, failed;
    enum read_result last;
};

/* Requests on one connection until it is to be closed. */
static void load_connection(struct loader *l, struct client *c)
{
    static const char request[] = "GET / HTTP/1.1\r\nHost: h\r\n\r\n";

    for (unsigned n = 0;; n++) {
        enum read_result r = READ_RESET;

        if (send_all(c->in.fd, request, sizeof request - 1, patience_ms()))
            r = client_read(c, false);
        /* A connection that the kernel took and nobody accepted any more is reset when the listener closes. */
        if (n == 0 && r == READ_RESET)
            return;
        if (r != READ_OK || c->response.status != 200) {
            l->failed++;
            l->last = r;
            return;
        }
        l->answered++;
        if (message_has_token(&c->response, "Connection", "close"))
            return;
    }
}

static void *load(void *arg)
{
    struct loader *l = arg;

    for (struct client c; client_try_open(&c, l->port); client_close(&c)) /* until nobody listens any more */
        load_connection(l, &c);
    return NULL;
}

static void test_sigterm_under_load(void **state)
{
    enum { THREADS = 8 };
    struct world *w = *state;
    struct loader loaders[THREADS] = {0};
    pthread_t threads[THREADS];

    for (int i = 0; i < 3; i++)
        world_origin(w, origin_answer_all, NULL, NULL);
    world_start(w, NULL);
    for (int i = 0; i < THREADS; i++) {
        loaders[i].port = w->port;
        pthread_create(&threads[i], NULL, load, &loaders[i]);
    }
    for (int i = 0; i < 3; i++)
        origin_wait_requests(w->origins[i], 100);
    daemon_signal(&w->daemon, SIGTERM);
    assert_int_equal(daemon_wait(&w->daemon), 0);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    for (int i = 0; i < THREADS; i++)
        CHECK(loaders[i].failed == 0, "%u requests failed, the last one: %s", loaders[i].failed,
              read_result_name(loaders[i].last));
    daemon_expect_event(&w->daemon, 0, "stop", "cut=0");
    world_finish(w);
}

static void test_log_file_is_reopened(void **state)
{
    struct world *w = *state;
    struct bytes before, after;
    uint64_t deadline = deadline_in(patience_ms());

    world_origin(w, origin_answer_all, NULL, NULL);
    world_config(w, "\"log\": {\"format\": \"json\", \"file\": \"lb.log\"}");
    daemon_start(&w->daemon, w->dir, "loadbalancer", (const char *const[]){"loadbalancer", NULL});
    wait_for_port(w->port);
    assert_int_equal(http_get(w->port, "/one", NULL), 200);
    for (before = file_content(world_path(w, "lb.log")); !strstr(before.p, "/one") && left_ms(deadline) > 0;) {
        rest();
        bytes_free(&before);
        before = file_content(world_path(w, "lb.log"));
    }
    assert_non_null(strstr(before.p, "/one"));
    bytes_free(&before);
    assert_int_equal(rename(world_path(w, "lb.log"), world_path(w, "lb.log.1")), 0);
    daemon_signal(&w->daemon, SIGUSR1);
    while (access(world_path(w, "lb.log"), F_OK) != 0 && left_ms(deadline) > 0)
        rest();
    assert_int_equal(http_get(w->port, "/two", NULL), 200);
    world_stop(w);
    before = file_content(world_path(w, "lb.log.1"));
    after = file_content(world_path(w, "lb.log"));
    assert_non_null(strstr(before.p, "/one"));
    assert_null(strstr(before.p, "/two"));
    assert_non_null(strstr(after.p, "/two"));
    assert_non_null(strstr(after.p, "\"stop\""));
    bytes_free(&before);
    bytes_free(&after);
    world_finish(w);
}

/* Where one of its descriptors leads; valid until the next call. */
static const char *behind(const struct world *w, int fd)
{
    static char target[200];
    char link[64];

    snprintf(link, sizeof link, "/proc/%d/fd/%d", (int)w->daemon.pid, fd);
    ssize_t n = readlink(link, target, sizeof target - 1);
    target[n > 0 ? n : 0] = '\0';
    return target;
}

/* Nothing that the daemon opens may take the place of a stdout or stderr that it was started without. */
static void test_standard_descriptors_that_are_closed(void **state)
{
    struct world *w = *state;
    char command[700];

    world_origin(w, origin_answer_all, NULL, NULL);
    world_config(w, NULL);
    snprintf(command, sizeof command, "exec '%s/loadbalancer' <&- >&- 2>&-", build_dir());
    daemon_start(&w->daemon, w->dir, "loadbalancer", (const char *const[]){"/bin/sh", "-c", command, NULL});
    wait_for_port(w->port);
    assert_int_equal(http_get(w->port, "/", NULL), 200);
    for (int fd = 0; fd <= 2; fd++)
        assert_string_equal(behind(w, fd), "/dev/null");
    world_stop(w);
    world_finish(w);
}

static bool is_timestamp(const char *s)
{
    static const char form[] = "dddd-dd-ddTdd:dd:dd.dddZ";

    for (size_t i = 0; form[i]; i++)
        if (form[i] == 'd' ? s[i] < '0' || s[i] > '9' : s[i] != form[i])
            return false;
    return true;
}

static void test_json_log(void **state)
{
    struct world *w = *state;
    struct client c;
    const cJSON *line;

    world_origin(w, origin_answer_all, NULL, NULL);
    world_start(w, NULL);
    client_open(&c, w->port);
    client_send(&c, "POST /a%22b?c=\"d\" HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc");
    client_expect(&c, 200);
    client_close(&c);
    line =
        daemon_expect_event(&w->daemon, 0, "request", "method=POST status=200 client=127.0.0.1 attempts=1 backend=b1");
    assert_string_equal(log_field(line, "target"), "/a%22b?c=\"d\"");
    assert_string_equal(log_field(line, "level"), "info");
    assert_true(is_timestamp(log_field(line, "ts")));
    assert_true(log_number(line, "duration_ms") >= 0);
    assert_true(log_number(line, "bytes_in") >= 3);
    assert_true(log_number(line, "bytes_out") >= 2);
    assert_non_null(log_field(line, "request_id"));
    daemon_expect_event(&w->daemon, 0, "start", NULL);
    world_stop(w);
    struct bytes out = daemon_stdout(&w->daemon);
    size_t lines = 0;
    for (size_t i = 0; i < out.n; i++)
        lines += out.p[i] == '\n';
    assert_int_equal(lines, daemon_mark(&w->daemon)); /* every line is JSON */
    bytes_free(&out);
    world_finish(w);
}

static void test_text_log(void **state)
{
    struct world *w = *state;
    struct bytes out;
    const char *line;

    world_origin(w, origin_answer_all, NULL, NULL);
    world_config(w, "\"log\": {\"format\": \"text\"}");
    daemon_start(&w->daemon, w->dir, "loadbalancer", (const char *const[]){"loadbalancer", NULL});
    wait_for_port(w->port);
    assert_int_equal(http_get(w->port, "/x", NULL), 200);
    world_stop(w);
    out = daemon_stdout(&w->daemon);
    assert_true(is_timestamp(out.p));
    line = strstr(out.p, " request ");
    CHECK(line, "no request line in: %s", out.p);
    CHECK(strstr(line, "client=127.0.0.1 ") && strstr(line, "method=GET target=/x status=200"), "odd line: %s", line);
    bytes_free(&out);
    world_finish(w);
}

static void test_log_levels(void **state)
{
    struct world *w = *state;
    struct bytes out;

    world_origin(w, origin_answer_all, NULL, NULL);
    world_config(w, "\"log\": {\"level\": \"error\", \"format\": \"json\"}");
    daemon_start(&w->daemon, w->dir, "loadbalancer", (const char *const[]){"loadbalancer", NULL});
    wait_for_port(w->port);
    assert_int_equal(http_get(w->port, "/x", NULL), 200);
    world_stop(w);
    out = daemon_stdout(&w->daemon);
    assert_string_equal(out.p, "");
    bytes_free(&out);
    world_start(w, "\"log\": {\"access\": false, \"format\": \"json\"}");
    assert_int_equal(http_get(w->port, "/x", NULL), 200);
    world_stop(w);
    assert_int_equal(daemon_count_events(&w->daemon, 0, "request", NULL), 0);
    world_finish(w);
}

/* Starts the daemon with a pipe as stdout that nobody reads. */
static int start_with_unread_stdout(struct world *w)
{
    int ends[2];
    char program[300];

    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    snprintf(program, sizeof program, "%s/loadbalancer", build_dir());
    w->daemon.pid = fork();
    if (w->daemon.pid == 0) {
        if (dup2(ends[1], STDOUT_FILENO) >= 0 && chdir(w->dir) == 0)
            execl(program, program, (char *)NULL);
        _exit(127);
    }
    close(ends[1]);
    return ends[0];
}

/* A log reader that stalls never stalls the loop: lines are dropped instead. */
static void test_stalled_log_reader(void **state)
{
    struct world *w = *state;
    struct client c;
    int unread;

    world_origin(w, origin_answer_all, NULL, NULL);
    world_config(w, NULL);
    unread = start_with_unread_stdout(w);
    wait_for_port(w->port);
    client_open(&c, w->port);
    for (int i = 0; i < 8000; i++) {
        client_sendf(&c, "GET /%0200d HTTP/1.1\r\nHost: h\r\n\r\n", i);
        client_expect(&c, 200);
    }
    client_close(&c);
    assert_true(is_instrumented() || proc_kib(w->daemon.pid, "VmHWM") < 16 * 1024);
    daemon_signal(&w->daemon, SIGTERM);
    assert_int_equal(daemon_wait(&w->daemon), 0);
    close(unread);
    world_finish(w);
}

static void test_many_connections(void **state)
{
    struct world *w = *state;
    long allowed = raise_fd_limit(6000);
    int count = allowed >= 5200 ? 5000 : (int)allowed - 200;
    struct client *c = calloc((size_t)count, sizeof *c);
    int fds;
    long rss, peak;
    uint64_t deadline;

    world_origin(w, origin_answer_all, NULL, NULL);
    world_start(w, "\"log\": {\"format\": \"json\", \"access\": false}");
    fds = proc_fds(w->daemon.pid) + 1; /* the pooled connection to the backend */
    assert_int_equal(http_get(w->port, "/", NULL), 200);
    world_wait_fds(w, fds);
    rss = proc_kib(w->daemon.pid, "VmRSS");
    for (int i = 0; i < count; i++) {
        client_open(&c[i], w->port);
        client_send(&c[i], "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
        client_expect(&c[i], 200);
    }
    assert_int_equal(proc_fds(w->daemon.pid), fds + count);
    peak = proc_kib(w->daemon.pid, "VmRSS");
    print_message("%d connections: %ld KiB more than without\n", count, peak - rss);
    assert_true(is_instrumented() || (peak - rss) * 1024 / count < 4096);
    for (int i = 0; i < count; i++) { /* each still works */
        client_send(&c[i], "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
        client_expect(&c[i], 200);
    }
    for (int i = 0; i < count; i++)
        client_close(&c[i]);
    free(c);
    world_wait_fds(w, fds);
    deadline = deadline_in(15000);
    while (!is_instrumented() && proc_kib(w->daemon.pid, "VmRSS") > rss + 1024) {
        CHECK(left_ms(deadline) > 0, "%ld KiB are still held, %ld were before", proc_kib(w->daemon.pid, "VmRSS"), rss);
        rest();
    }
    world_finish(w);
}

static void test_stale_unix_socket(void **state)
{
    struct world *w = *state;
    struct client c;
    char listen[400];

    world_origin(w, origin_answer_all, NULL, NULL);
    snprintf(listen, sizeof listen, "\"listen\": \"unix:%s\"", world_path(w, "lb.sock"));
    world_start(w, listen);
    daemon_kill(&w->daemon);
    assert_int_equal(access(world_path(w, "lb.sock"), F_OK), 0);
    world_restart(w);
    client_open_unix(&c, world_path(w, "lb.sock"));
    client_send(&c, "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    client_expect(&c, 200);
    client_close(&c);
    world_finish(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WORLD_TEST(test_usage),
        WORLD_TEST(test_output_that_cannot_be_written),
        WORLD_TEST(test_config_check),
        WORLD_TEST(test_port_in_use),
        WORLD_TEST(test_log_file_that_cannot_be_opened),
        WORLD_TEST(test_log_file_that_cannot_be_written),
        WORLD_TEST(test_too_many_connections_asked_for),
        WORLD_TEST(test_descriptors_for_some),
        WORLD_TEST(test_sigterm_without_connections),
        WORLD_TEST(test_drain),
        WORLD_TEST(test_drain_gives_idle_connections_a_second),
        WORLD_TEST(test_shutdown_deadline),
        WORLD_TEST(test_second_signal),
        WORLD_TEST(test_cut_while_only_sending),
        WORLD_TEST(test_two_signals_in_a_row),
        WORLD_TEST(test_sigterm_under_load),
        WORLD_TEST(test_log_file_is_reopened),
        WORLD_TEST(test_standard_descriptors_that_are_closed),
        WORLD_TEST(test_json_log),
        WORLD_TEST(test_text_log),
        WORLD_TEST(test_log_levels),
        WORLD_TEST(test_stalled_log_reader),
        WORLD_TEST(test_many_connections),
        WORLD_TEST(test_stale_unix_socket),
    };

    return cmocka_run_group_tests_name("lifecycle", tests, NULL, NULL);
}
