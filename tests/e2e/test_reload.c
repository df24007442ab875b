/* SIGHUP: what each group of keys does when it changes under a running balancer, and what happens when it cannot. */
#include "harness/world.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define NO_LIMIT "\"rate_limit\": {\"default\": {\"capacity\": 1000000, \"rate_per_sec\": 1000000}"

static void reload_as_it_is(struct world *w)
{
    size_t mark = daemon_mark(&w->daemon);

    daemon_signal(&w->daemon, SIGHUP);
    daemon_expect_event(&w->daemon, mark, "reload", "config=config.json");
}

static void reload(struct world *w, const char *extra)
{
    world_config(w, extra);
    reload_as_it_is(w);
}

/* Is there a reload_failed from `mark` on that says this, and names the file? */
static bool is_said(struct world *w, size_t mark, const char *cause)
{
    for (size_t i = mark; i < w->daemon.line_count; i++) {
        const char *said = log_field(w->daemon.lines[i], "cause");
        if (said && strstr(said, cause) && strstr(said, "config.json"))
            return true;
    }
    return false;
}

/* The reload fails, and says so in one line for each of these, up to NULL. */
static void expect_refused(struct world *w, const char *extra, const char *const causes[])
{
    size_t mark = daemon_mark(&w->daemon), n = 0;

    world_config(w, extra);
    daemon_signal(&w->daemon, SIGHUP);
    daemon_expect_event(&w->daemon, mark, "reload_failed", NULL);
    rest();
    for (; causes[n]; n++)
        CHECK(is_said(w, mark, causes[n]), "no line says: %s", causes[n]);
    assert_int_equal(daemon_count_events(&w->daemon, mark, "reload_failed", NULL), n);
    assert_int_equal(daemon_count_events(&w->daemon, mark, "reload", NULL), 0);
}

/* The backends are those origins, each with further members of its object. */
static void backend_list(struct world *w, const unsigned *which, unsigned n, const char *extra)
{
    w->backends[0] = '\0';
    for (unsigned i = 0; i < n; i++) {
        char address[32], members[128];
        snprintf(address, sizeof address, "127.0.0.1:%d", origin_port(w->origins[which[i]]));
        snprintf(members, sizeof members, "\"name\": \"b%u\"%s%s", which[i] + 1, extra ? ", " : "", extra ? extra : "");
        world_backend(w, address, members);
    }
}
#define BACKENDS(w, extra, ...)                                                                                        \
    backend_list(w, (const unsigned[]){__VA_ARGS__},                                                                   \
                 (unsigned)(sizeof((const unsigned[]){__VA_ARGS__}) / sizeof(unsigned)), extra)

static int ask(struct client *c, const char *fields)
{
    client_sendf(c, "GET / HTTP/1.1\r\nHost: h\r\n%s\r\n", fields);
    return client_expect(c, 0)->status;
}

/* The number of the backend that answered, of "b1" 1. */
static int served_by(struct client *c)
{
    int status = ask(c, "");

    CHECK(status == 200, "%d instead of 200", status);
    return atoi(c->response.body.p + 1);
}

/* Answers with its name; /held when it is told to, /sick with its mode as the status, where that is not 0. */
static void script(struct origin_conn *c)
{
    while (origin_read(c)) {
        int mode = origin_mode(c);

        if (strcmp(c->request.target, "/held") == 0)
            origin_hold(c);
        if (mode != 0 && strncmp(c->request.target, "/health", 7) == 0) {
            if (!origin_sendf(c, "HTTP/1.1 %d Sick\r\nContent-Length: 0\r\n\r\n", mode))
                return;
        } else if (!origin_answer(c, origin_name(c->origin))) {
            return;
        }
    }
}

static void start(struct world *w, unsigned origins, const char *extra)
{
    for (unsigned i = 0; i < origins; i++)
        world_origin(w, script, NULL, NULL);
    world_start(w, extra);
}

/* ---- backends ---- */

static void test_backends_come_and_go(void **state)
{
    struct world *w = *state;
    struct client c, held;
    int got[4] = {0};

    start(w, 3, NULL);
    BACKENDS(w, NULL, 0, 1);
    reload(w, NULL);
    daemon_expect_event(&w->daemon, 0, "reload", "added=0 removed=1 kept=2");
    client_open(&c, w->port);
    for (int i = 0; i < 10; i++)
        got[served_by(&c)]++;
    assert_int_equal(got[1], 5);
    assert_int_equal(got[2], 5);
    origin_wait_closed(w->origins[2]);

    /* A request that is under way at a backend that goes ends there. */
    origin_block(w->origins[1]);
    unsigned before = origin_requests(w->origins[1]);
    for (int i = 0; i < 2 && origin_requests(w->origins[1]) == before; i++) {
        client_open(&held, w->port);
        client_send(&held, "GET /held HTTP/1.1\r\nHost: h\r\n\r\n");
        origin_release(w->origins[0]);
        uint64_t patience = deadline_in(200);
        while (origin_requests(w->origins[1]) == before && left_ms(patience) > 0)
            rest();
        if (origin_requests(w->origins[1]) == before)
            client_close(&held);
    }
    origin_wait_requests(w->origins[1], before + 1);
    BACKENDS(w, NULL, 0, 2);
    size_t mark = daemon_mark(&w->daemon);
    reload(w, NULL);
    before = origin_requests(w->origins[1]);
    memset(got, 0, sizeof got);
    for (int i = 0; i < 10; i++)
        got[served_by(&c)]++;
    assert_int_equal(got[1], 5);
    assert_int_equal(got[3], 5);
    assert_int_equal(origin_requests(w->origins[1]), before);
    client_expect_silence(&held, 50);
    assert_int_equal(daemon_count_events(&w->daemon, mark, "backend_totals", NULL), 0); /* not all is counted yet */
    origin_release(w->origins[1]);
    assert_string_equal(client_expect(&held, 200)->body.p, "b2");
    daemon_expect_event(&w->daemon, mark, "backend_totals", "backend=b2 failures=0 gateway_errors=0");
    origin_wait_closed(w->origins[1]); /* its connection is not kept */
    daemon_expect_event(&w->daemon, 0, "request", "target=/held status=200 backend=b2");
    client_close(&held);
    client_close(&c);
    world_finish(w);
}

static void test_weights_names_and_backups(void **state)
{
    struct world *w = *state;
    struct client c;
    int got[4] = {0};

    start(w, 2, NULL);
    client_open(&c, w->port);
    w->backends[0] = '\0';
    char address[32];
    snprintf(address, sizeof address, "127.0.0.1:%d", origin_port(w->origins[0]));
    world_backend(w, address, "\"name\": \"first\", \"weight\": 3");
    snprintf(address, sizeof address, "127.0.0.1:%d", origin_port(w->origins[1]));
    world_backend(w, address, "\"name\": \"second\"");
    reload(w, NULL);
    for (int i = 0; i < 40; i++)
        got[served_by(&c)]++;
    assert_int_equal(got[1], 30);
    assert_int_equal(got[2], 10);
    daemon_expect_event(&w->daemon, 0, "request", "backend=first");
    BACKENDS(w, "\"backup\": true", 1);
    snprintf(address, sizeof address, "127.0.0.1:%d", origin_port(w->origins[0]));
    world_backend(w, address, NULL);
    reload(w, NULL);
    for (int i = 0; i < 10; i++)
        assert_int_equal(served_by(&c), 1);
    client_close(&c);
    world_finish(w);
}

/* The turn goes on where it was, and idle connections are kept. */
static void test_turn_and_pool_stay(void **state)
{
    struct world *w = *state;
    struct client c;
    int last = 0;

    start(w, 3, NULL);
    client_open(&c, w->port);
    for (int i = 0; i < 20; i++) {
        int b = served_by(&c);
        assert_true(last == 0 || b == last % 3 + 1);
        last = b;
        if (i % 4 == 3)
            reload_as_it_is(w);
    }
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(origin_connections(w->origins[i]), 1);
    client_close(&c);
    world_finish(w);
}

static void test_a_name_is_added(void **state)
{
    struct world *w = *state;
    struct client c;
    char address[32];

    start(w, 2, NULL);
    BACKENDS(w, NULL, 0);
    snprintf(address, sizeof address, "localhost:%d", origin_port(w->origins[1]));
    world_backend(w, address, "\"name\": \"named\"");
    reload(w, NULL);
    daemon_expect_event(&w->daemon, 0, "backend_up", "backend=named");
    client_open(&c, w->port);
    assert_int_equal(served_by(&c) + served_by(&c), 3);
    BACKENDS(w, NULL, 0);
    reload(w, NULL);
    assert_int_equal(served_by(&c), 1);
    assert_int_equal(served_by(&c), 1);
    client_close(&c);
    world_finish(w);
}

/* ---- checks ---- */

static void test_health_is_kept(void **state)
{
    struct world *w = *state;
    struct client c;

    for (int i = 0; i < 2; i++)
        world_origin(w, script, NULL, NULL);
    origin_set_mode(w->origins[1], 500);
    world_start(w, "\"health_check\": {\"interval\": \"10m\"}");
    daemon_expect_event(&w->daemon, 0, "backend_down", "backend=b2");
    client_open(&c, w->port);
    unsigned probes = origin_requests(w->origins[1]);
    reload(w, "\"health_check\": {\"interval\": \"11m\", \"fall\": 5, \"rise\": 4}, \"queue\": {\"size\": 7}");
    for (int i = 0; i < 6; i++)
        assert_int_equal(served_by(&c), 1);
    assert_int_equal(origin_requests(w->origins[1]), probes);

    /* Another interval counts from the last probe: it is long past. */
    origin_set_mode(w->origins[1], 0);
    reload(w, "\"health_check\": {\"interval\": \"50ms\", \"rise\": 3}");
    daemon_expect_event(&w->daemon, 0, "backend_up", "backend=b2");
    assert_true(origin_requests(w->origins[1]) >= probes + 3);

    /* Another path is asked for at once. */
    size_t mark = daemon_mark(&w->daemon);
    reload(w, "\"health_check\": {\"interval\": \"10m\", \"path\": \"/healthier\"}");
    origin_set_mode(w->origins[1], 503);
    reload(w, "\"health_check\": {\"interval\": \"10m\", \"path\": \"/healthiest\", \"fall\": 1}");
    daemon_expect_event(&w->daemon, mark, "backend_down", "backend=b2");
    client_close(&c);
    world_finish(w);
}

static void test_checks_go_off_and_on(void **state)
{
    struct world *w = *state;
    struct client c;

    for (int i = 0; i < 2; i++)
        world_origin(w, script, NULL, NULL);
    origin_set_mode(w->origins[1], 500);
    world_start(w, "\"health_check\": {\"interval\": \"20ms\"}");
    daemon_expect_event(&w->daemon, 0, "backend_down", "backend=b2");
    reload(w, "\"health_check\": null");
    daemon_expect_event(&w->daemon, 0, "backend_up", "backend=b2");
    client_open(&c, w->port);
    assert_int_equal(served_by(&c) + served_by(&c), 3);
    size_t mark = daemon_mark(&w->daemon);
    reload(w, "\"health_check\": {\"interval\": \"20ms\"}");
    daemon_expect_event(&w->daemon, mark, "backend_down", "backend=b2");
    client_close(&c);
    world_finish(w);
}

static void test_ejections_are_kept(void **state)
{
    struct world *w = *state;
    struct client c;

    start(w, 2, "\"passive_check\": {\"failures\": 1, \"ejection\": \"10m\", \"max_ejection\": \"10m\"}");
    origin_refuse(w->origins[1]);
    client_open(&c, w->port);
    for (int i = 0; i < 4; i++)
        assert_int_equal(served_by(&c), 1);
    daemon_expect_event(&w->daemon, 0, "backend_down", "backend=b2");
    origin_accept_again(w->origins[1]);
    reload(w, "\"passive_check\": {\"failures\": 2, \"ejection\": \"20m\", \"max_ejection\": \"20m\"}");
    for (int i = 0; i < 4; i++)
        assert_int_equal(served_by(&c), 1);
    reload(w, "\"passive_check\": null");
    daemon_expect_event(&w->daemon, 0, "backend_up", "backend=b2");
    assert_int_equal(served_by(&c) + served_by(&c), 3);
    client_close(&c);
    world_finish(w);
}

/* ---- how a backend is chosen ---- */

static void test_balance_and_queue(void **state)
{
    struct world *w = *state;
    struct client c, waits, busy;

    start(w, 2, NULL);
    client_open(&c, w->port);
    reload(w, "\"balance\": \"hash\", \"hash_key\": \"header:K\"");
    ask(&c, "K: one\r\n");
    int one = atoi(c.response.body.p + 1);
    for (int i = 0; i < 10; i++) {
        ask(&c, "K: one\r\n");
        assert_int_equal(atoi(c.response.body.p + 1), one);
    }
    BACKENDS(w, "\"max_connections\": 1", 0);
    reload(w, "\"balance\": \"least_conn\", \"queue\": {\"timeout\": \"10m\"}");
    origin_block(w->origins[0]);
    client_open(&busy, w->port);
    client_send(&busy, "GET /held HTTP/1.1\r\nHost: h\r\n\r\n");
    origin_wait_requests(w->origins[0], 1);
    client_open(&waits, w->port);
    client_send(&waits, "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    client_expect_silence(&waits, 100);
    BACKENDS(w, "\"max_connections\": 2", 0);
    reload(w, "\"queue\": {\"size\": 0}"); /* who waits already goes on waiting, and there is room now */
    client_expect(&waits, 200);
    client_send(&waits, "GET /held HTTP/1.1\r\nHost: h\r\n\r\n");
    origin_wait_requests(w->origins[0], 2);
    rest();
    uint64_t deadline = deadline_in(patience_ms());
    while (ask(&c, "") != 503)
        CHECK(left_ms(deadline) > 0, "a third request finds a place");
    origin_release(w->origins[0]);
    client_expect(&busy, 200);
    client_expect(&waits, 200);
    client_close(&busy);
    client_close(&waits);
    client_close(&c);
    world_finish(w);
}

static void test_retries(void **state)
{
    struct world *w = *state;
    struct client c;

    start(w, 2, NULL);
    origin_refuse(w->origins[1]);
    client_open(&c, w->port);
    assert_int_equal(ask(&c, "") + ask(&c, ""), 400);
    reload(w, "\"retry\": {\"attempts\": 0}");
    assert_int_equal(ask(&c, "") + ask(&c, ""), 702);
    client_close(&c);
    world_finish(w);
}

/* ---- listening ---- */

static void test_another_address(void **state)
{
    struct world *w = *state;
    struct client old, fresh;
    char extra[128];
    int before = w->port;

    start(w, 1, NULL);
    client_open(&old, before);
    assert_int_equal(ask(&old, ""), 200);
    w->port = port_reserve();
    reload(w, NULL);
    snprintf(extra, sizeof extra, "address=127.0.0.1:%d", w->port);
    daemon_expect_event(&w->daemon, 0, "listening", extra);
    client_open(&fresh, w->port);
    assert_int_equal(ask(&fresh, ""), 200);
    assert_int_equal(ask(&old, ""), 200); /* who is connected stays so */
    assert_false(client_can_connect(before));
    client_close(&old);
    client_close(&fresh);

    /* One that is taken changes nothing, not even what else is new. */
    snprintf(extra, sizeof extra, "\"listen\": \"127.0.0.1:%d\", \"log\": {\"access\": false, \"format\": \"json\"}",
             world_taken_port(w));
    expect_refused(w, extra, (const char *const[]){"listen: cannot listen on", NULL});
    size_t mark = daemon_mark(&w->daemon);
    assert_int_equal(http_get(w->port, "/still", NULL), 200);
    daemon_expect_event(&w->daemon, mark, "request", "target=/still");
    world_finish(w);
}

/* To all hosts, and back to one, without another port; others still find that port taken. */
static void test_another_host(void **state)
{
    struct world *w = *state;
    struct client old, fresh;
    struct daemon second = {0};
    char command[400];
    static const char *const hosts[] = {"", "127.0.0.1", "0.0.0.0", "[::]", "127.0.0.1"};

    start(w, 1, NULL);
    client_open(&old, w->port);
    snprintf(command, sizeof command, "mkdir -p second && cp config.json second && cd second && exec %s/loadbalancer",
             build_dir());
    for (size_t i = 0; i < sizeof hosts / sizeof *hosts; i++) {
        char extra[128], address[64];
        snprintf(extra, sizeof extra, "\"listen\": \"%s:%d\"", hosts[i], w->port);
        snprintf(address, sizeof address, "address=%s:%d", hosts[i][0] ? hosts[i] : "[::]", w->port);
        size_t mark = daemon_mark(&w->daemon);
        reload(w, extra);
        daemon_expect_event(&w->daemon, mark, "listening", address);
        client_open(&fresh, w->port);
        assert_int_equal(ask(&fresh, ""), 200);
        assert_int_equal(ask(&old, ""), 200); /* who is connected stays so */
        client_close(&fresh);
        assert_int_equal(daemon_run(&second, w->dir, "second", (const char *const[]){"/bin/sh", "-c", command, NULL}),
                         1);
        struct bytes said = daemon_stderr(&second);
        assert_non_null(strstr(said.p, "Address already in use"));
        bytes_free(&said);
        daemon_fini(&second);
    }
    client_close(&old);
    world_finish(w);
}

/* Connections that nobody has accepted yet are served all the same. */
static void test_backlog_is_served(void **state)
{
    struct world *w = *state;
    struct client c[20];
    int before = w->port;

    start(w, 1, NULL);
    w->port = port_reserve();
    world_config(w, NULL);
    kill(w->daemon.pid, SIGSTOP);
    daemon_signal(&w->daemon, SIGHUP);
    for (int i = 0; i < 20; i++) {
        client_open(&c[i], before);
        client_send(&c[i], "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    }
    kill(w->daemon.pid, SIGCONT);
    for (int i = 0; i < 20; i++) {
        client_expect(&c[i], 200);
        client_close(&c[i]);
    }
    daemon_expect_event(&w->daemon, 0, "reload", NULL);
    assert_int_equal(http_get(w->port, "/", NULL), 200);
    world_finish(w);
}

/* ---- time-outs and limits ---- */

static void test_timeouts(void **state)
{
    struct world *w = *state;
    struct client c;

    start(w, 1, NULL);
    origin_block(w->origins[0]);
    client_open(&c, w->port);
    assert_int_equal(ask(&c, ""), 200);
    reload(w, "\"timeouts\": {\"backend_response\": \"100ms\", \"client_idle\": \"100ms\", \"shutdown\": \"1s\"}");
    client_send(&c, "GET /held HTTP/1.1\r\nHost: h\r\n\r\n");
    client_expect(&c, 504);
    client_expect_end(&c); /* idle for too long */
    client_close(&c);
    origin_release(w->origins[0]);
    world_finish(w);
}

/* ... and the longest that a stop may take, for one that comes after it. */
static void test_shutdown_time(void **state)
{
    struct world *w = *state;
    struct client c;

    start(w, 1, NULL);
    client_open(&c, w->port);
    client_send(&c, "GET /held HTTP/1.1\r\nHost: h\r\n\r\n");
    origin_wait_requests(w->origins[0], 1);
    reload(w, "\"timeouts\": {\"shutdown\": \"200ms\"}");
    daemon_signal(&w->daemon, SIGTERM);
    daemon_expect_event(&w->daemon, 0, "stop", "cut=1");
    assert_int_equal(daemon_wait(&w->daemon), 3);
    client_close(&c);
    w->finished = true;
}

static void many_fields(struct client *c, unsigned n)
{
    struct bytes b = {0};

    bytes_addf(&b, "GET / HTTP/1.1\r\nHost: h\r\n");
    for (unsigned i = 0; i < n; i++)
        bytes_addf(&b, "F%u: v\r\n", i);
    bytes_addf(&b, "\r\n");
    client_send_bytes(c, b.p, b.n);
    bytes_free(&b);
}

static void test_limits(void **state)
{
    struct world *w = *state;
    struct client c, second;

    start(w, 1, NULL);
    client_open(&c, w->port);
    many_fields(&c, 150);
    client_expect(&c, 431);
    client_close(&c);
    reload(w, "\"limits\": {\"header_fields\": 200, \"body_bytes\": 10}");
    client_open(&c, w->port);
    many_fields(&c, 150);
    client_expect(&c, 200);
    client_send(&c, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 11\r\n\r\n01234567890");
    client_expect(&c, 413);
    client_close(&c);
    reload(w, "\"limits\": {\"header_fields\": 20, \"connections\": 1}");
    client_open(&c, w->port);
    many_fields(&c, 10);
    client_expect(&c, 200);
    client_open(&second, w->port);
    client_expect(&second, 503);
    client_close(&second);
    many_fields(&c, 30);
    client_expect(&c, 431);
    client_close(&c);
    expect_refused(w, "\"limits\": {\"connections\": 1000000000}",
                   (const char *const[]){"limits.connections: found 1000000000", NULL});
    world_finish(w);
}

/* Answers with as many fields as the target says. */
static void fields_script(struct origin_conn *c)
{
    while (origin_read(c)) {
        struct bytes b = {0};
        int count = atoi(c->request.target + 1);

        bytes_addf(&b, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n");
        for (int i = 1; i < count; i++)
            bytes_addf(&b, "F%d: v\r\n", i);
        bytes_addf(&b, "\r\n");
        bool ok = origin_send_bytes(c, b.p, b.n);
        bytes_free(&b);
        if (!ok)
            return;
    }
}

static void test_fields_of_responses(void **state)
{
    struct world *w = *state;

    world_origin(w, fields_script, NULL, NULL);
    world_start(w, NULL);
    assert_int_equal(http_get(w->port, "/100", NULL), 200);
    assert_int_equal(http_get(w->port, "/101", NULL), 502);
    reload(w, "\"limits\": {\"header_fields\": 200}");
    assert_int_equal(http_get(w->port, "/200", NULL), 200);
    assert_int_equal(http_get(w->port, "/201", NULL), 502);
    reload(w, "\"limits\": {\"header_fields\": 20}");
    assert_int_equal(http_get(w->port, "/20", NULL), 200);
    assert_int_equal(http_get(w->port, "/21", NULL), 502);
    world_finish(w);
}

/* ---- the limiter ---- */

#define BUCKET(capacity, more)                                                                                         \
    "\"rate_limit\": {\"default\": {\"capacity\": " #capacity ", \"rate_per_sec\": 0.001}" more "}"

static int pass(struct world *w, const char *fields, int most)
{
    struct client c;
    int n = 0;

    client_open(&c, w->port);
    while (n < most && ask(&c, fields) == 200)
        n++;
    client_close(&c);
    return n;
}

static void test_tokens_are_kept(void **state)
{
    struct world *w = *state;

    start(w, 1, BUCKET(10, ""));
    assert_int_equal(http_request(w->port, "POST", "/clients/register", "",
                                  "{\"client_id\":\"u\",\"capacity\":9,\"rate_per_sec\":0.001}", NULL),
                     201);
    assert_int_equal(pass(w, "", 4), 4);
    assert_int_equal(pass(w, "X-Client-ID: u\r\n", 4), 4);
    reload(w, BUCKET(1000, ", \"save_interval\": \"1s\""));
    assert_int_equal(pass(w, "X-Client-ID: u\r\n", 100), 5);
    assert_int_equal(pass(w, "", 3), 3);
    reload(w, BUCKET(2, ""));
    assert_int_equal(pass(w, "", 100), 2); /* three were left: capped */
    reload(w, BUCKET(1000, ", \"max_tracked\": 100000000"));
    assert_int_equal(pass(w, "", 100), 0);
    reload(w, BUCKET(1000, ", \"exempt\": [\"127.0.0.1\"]"));
    assert_int_equal(pass(w, "", 100), 100);
    reload(w, BUCKET(1000, ", \"unknown_clients\": \"reject\""));
    assert_int_equal(pass(w, "", 100), 0);
    reload(w, BUCKET(1000, ", \"unknown_clients\": \"allow\", \"client_id_header\": \"Who\""));
    assert_int_equal(pass(w, "X-Client-ID: u\r\n", 100), 100);
    assert_int_equal(pass(w, "Who: u\r\n", 100), 0);
    world_finish(w);
}

/* Clients are not a part of the config. Whoever edits their file and reloads hears of it, and at the stop again. */
static void test_edited_clients_are_told_of(void **state)
{
    struct world *w = *state;

    start(w, 1, BUCKET(10, ""));
    reload_as_it_is(w);
    file_put(world_path(w, "clients.json"),
             "{\"clients\":[\n{\"client_id\":\"u\",\"capacity\":9,\"rate_per_sec\":1}\n]}");
    reload_as_it_is(w);
    daemon_expect_event(&w->daemon, 0, "store_file_changed", "level=warn file=* reason=*");
    assert_int_equal(daemon_count_events(&w->daemon, 0, "store_file_changed", NULL), 1);
    assert_int_equal(http_get(w->port, "/clients/get?id=u", NULL), 404);
    world_stop(w);
    daemon_expect_event(&w->daemon, 0, "stop", NULL);
    assert_int_equal(daemon_count_events(&w->daemon, 0, "store_file_changed", NULL), 2);
    world_restart(w);
    assert_int_equal(http_get(w->port, "/clients/get?id=u", NULL), 200);
    world_finish(w);
}

static void test_fields_follow(void **state)
{
    struct world *w = *state;
    struct client c;

    start(w, 1, BUCKET(10, ""));
    client_open(&c, w->port);
    ask(&c, "");
    assert_non_null(strstr(message_field(&c.response, "RateLimit-Policy"), "q=10;"));
    reload(w, BUCKET(20, ""));
    ask(&c, "");
    assert_non_null(strstr(message_field(&c.response, "RateLimit-Policy"), "q=20;"));
    assert_non_null(strstr(message_field(&c.response, "RateLimit"), "r=8;"));
    reload(w, BUCKET(20, ", \"headers\": \"off\""));
    ask(&c, "");
    assert_null(message_field(&c.response, "RateLimit-Policy"));
    client_close(&c);
    world_finish(w);
}

/* ---- who is trusted, and the log ---- */

static void test_admin_and_proxies(void **state)
{
    struct world *w = *state;

    start(w, 1, BUCKET(1, ""));
    assert_int_equal(http_get(w->port, "/clients/list", NULL), 200);
    reload(w, "\"admin\": {\"token\": \"secret\"}, " BUCKET(1, ""));
    assert_int_equal(http_get(w->port, "/clients/list", NULL), 401);
    assert_int_equal(http_request(w->port, "GET", "/clients/list", "Authorization: Bearer secret\r\n", NULL, NULL),
                     200);
    reload(w, "\"admin\": {\"allow\": []}, \"trusted_proxies\": [\"127.0.0.1\"], " BUCKET(1, ""));
    assert_int_equal(http_get(w->port, "/clients/list", NULL), 403);
    assert_int_equal(pass(w, "X-Forwarded-For: 192.0.2.1\r\n", 9), 1);
    assert_int_equal(pass(w, "X-Forwarded-For: 192.0.2.2\r\n", 9), 1);
    world_finish(w);
}

static bool holds(struct world *w, const char *file, const char *text)
{
    struct bytes b = file_content(world_path(w, file));
    bool found = b.p && strstr(b.p, text);

    bytes_free(&b);
    return found;
}

static void wait_for_text(struct world *w, const char *file, const char *text)
{
    uint64_t deadline = deadline_in(patience_ms());

    while (!holds(w, file, text)) {
        CHECK(left_ms(deadline) > 0, "%s does not come to hold \"%s\"", file, text);
        rest();
    }
}

static void test_log(void **state)
{
    struct world *w = *state;

    world_origin(w, script, NULL, NULL);
    world_config(w, "\"log\": {\"file\": \"one.log\", \"format\": \"json\"}");
    daemon_start(&w->daemon, w->dir, "loadbalancer", (const char *const[]){"loadbalancer", NULL});
    wait_for_port(w->port);
    assert_int_equal(http_get(w->port, "/first", NULL), 200);
    world_config(w, "\"log\": {\"file\": \"two.log\", \"format\": \"text\"}");
    daemon_signal(&w->daemon, SIGHUP);
    wait_for_text(w, "two.log", "reload config=config.json");
    assert_int_equal(http_get(w->port, "/second", NULL), 200);
    wait_for_text(w, "two.log", "target=/second");
    assert_true(holds(w, "one.log", "/first"));
    assert_false(holds(w, "one.log", "/second"));
    assert_false(holds(w, "one.log", " info ")); /* each file is of one form to its end */
    assert_false(holds(w, "two.log", "{"));
    rename(world_path(w, "two.log"), world_path(w, "two.log.1"));
    daemon_signal(&w->daemon, SIGUSR1);
    world_config(w, "\"log\": {\"file\": \"two.log\", \"level\": \"info\", \"access\": false}");
    while (access(world_path(w, "two.log"), F_OK) != 0)
        rest();
    daemon_signal(&w->daemon, SIGHUP);
    wait_for_text(w, "two.log", "reload config=config.json");
    world_config(w, "\"log\": {\"file\": \"no/such/folder/log\"}");
    daemon_signal(&w->daemon, SIGHUP);
    wait_for_text(w, "two.log", "log.file: no/such/folder/log cannot be opened");
    assert_int_equal(http_get(w->port, "/third", NULL), 200);
    world_stop(w);
    assert_false(holds(w, "two.log", "/third"));
    w->finished = true;
}

/* ---- what cannot be ---- */

static void test_bad_files_change_nothing(void **state)
{
    struct world *w = *state;
    struct client c;

    start(w, 2, NULL);
    client_open(&c, w->port);
    assert_int_equal(ask(&c, ""), 200);
    expect_refused(w, "\"balance\": \"fair\", \"retry\": {\"attempts\": -1}, \"qeue\": {}",
                   (const char *const[]){"balance: found", "retry.attempts: found", "did you mean", NULL});
    expect_refused(w, "\"log\": {\"file\": \"new.log\"}, \"slow_start\": \"1s\"",
                   (const char *const[]){"log.file: found the string", NULL});
    expect_refused(w, "\"rate_limit\": null", (const char *const[]){"rate_limit: found null", NULL});
    expect_refused(w, NO_LIMIT ", \"clients_file\": \"other.json\"}",
                   (const char *const[]){"rate_limit.clients_file: found the string", NULL});
    file_put(world_path(w, "config.json"), "{");
    size_t mark = daemon_mark(&w->daemon);
    daemon_signal(&w->daemon, SIGHUP);
    daemon_expect_event(&w->daemon, mark, "reload_failed", NULL);
    unlink(world_path(w, "config.json"));
    mark = daemon_mark(&w->daemon);
    daemon_signal(&w->daemon, SIGHUP);
    daemon_expect_event(&w->daemon, mark, "reload_failed", NULL);
    assert_true(is_said(w, mark, "cannot be read: No such file or directory"));
    assert_int_equal(served_by(&c) + served_by(&c), 3);
    assert_int_not_equal(access(world_path(w, "new.log"), F_OK), 0);
    client_close(&c);
    world_finish(w);
}

/* ---- signals that meet a reload ---- */

/* The file is a pipe: reading it takes until somebody writes. */
static void slow_file(struct world *w)
{
    unlink(world_path(w, "config.json"));
    assert_int_equal(mkfifo(world_path(w, "config.json"), 0600), 0);
}

static void let_read(struct world *w, const struct bytes *content)
{
    int fd = open(world_path(w, "config.json"), O_WRONLY);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, content->p, content->n), content->n);
    close(fd);
}

static void test_a_second_one_follows(void **state)
{
    struct world *w = *state;

    start(w, 2, NULL);
    struct bytes good = file_content(world_path(w, "config.json"));
    slow_file(w);
    daemon_signal(&w->daemon, SIGHUP);
    rest();
    for (int i = 0; i < 3; i++) /* as many as come while one is read are one */
        daemon_signal(&w->daemon, SIGHUP);
    assert_int_equal(http_get(w->port, "/", NULL), 200);
    let_read(w, &good);
    daemon_expect_event(&w->daemon, 0, "reload", NULL);
    size_t mark = daemon_mark(&w->daemon);
    let_read(w, &good);
    daemon_expect_event(&w->daemon, mark, "reload", NULL);
    assert_int_equal(daemon_count_events(&w->daemon, 0, "reload", NULL), 2);
    bytes_free(&good);
    world_finish(w);
}

/* A socket that a service manager listens on, whose service the next daemon is. */
static int manage(struct world *w)
{
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    snprintf(un.sun_path, sizeof un.sun_path, "%s", world_path(w, "notify"));
    assert_int_equal(bind(fd, (struct sockaddr *)&un, sizeof un), 0);
    setenv("NOTIFY_SOCKET", un.sun_path, 1);
    return fd;
}

static void expect_notice(int fd, const char *begin)
{
    char got[256] = "";
    uint64_t deadline = deadline_in(patience_ms());

    while (recv(fd, got, sizeof got - 1, 0) < 0) {
        CHECK(left_ms(deadline) > 0, "\"%s\" is not told", begin);
        rest();
    }
    CHECK(strncmp(got, begin, strlen(begin)) == 0, "told is \"%s\" instead of \"%s\"", got, begin);
}

/* The reload that hangs is given up; what its thread reads in the end counts for nothing. */
static void test_a_file_that_hangs_is_given_up(void **state)
{
    struct world *w = *state;
    const char *hung = world_path(w, "hung.json");
    int notices = manage(w);

    start(w, 1, NULL);
    unsetenv("NOTIFY_SOCKET");
    expect_notice(notices, "READY=1");
    struct bytes good = file_content(world_path(w, "config.json"));
    slow_file(w);
    daemon_signal(&w->daemon, SIGHUP);
    usleep(9000 * 1000); /* so long it has in any case */
    assert_int_equal(daemon_count_events(&w->daemon, 0, "reload_failed", NULL), 0);
    daemon_expect_event(&w->daemon, 0, "reload_failed", NULL);
    assert_true(is_said(w, 0, "config.json: it has not been read yet after 10 s"));
    expect_notice(notices, "RELOADING=1");
    expect_notice(notices, "READY=1");
    assert_int_equal(rename(world_path(w, "config.json"), hung), 0);
    file_put(world_path(w, "config.json"), good.p);
    for (int i = 0; i < 2; i++) {
        size_t mark = daemon_mark(&w->daemon);
        daemon_signal(&w->daemon, SIGHUP);
        daemon_expect_event(&w->daemon, mark, "reload", "added=0 removed=0");
        if (i > 0)
            break;
        int fd = open(hung, O_WRONLY); /* somebody reads there still */
        assert_true(fd >= 0);
        assert_int_equal(write(fd, good.p, good.n), good.n);
        close(fd);
    }
    assert_int_equal(daemon_count_events(&w->daemon, 0, "reload", NULL), 2);
    assert_int_equal(daemon_count_events(&w->daemon, 0, "reload_failed", NULL), 1);
    close(notices);
    bytes_free(&good);
    world_finish(w);
}

static void test_stop_meets_reload(void **state)
{
    struct world *w = *state;

    start(w, 2, NULL);
    slow_file(w);
    daemon_signal(&w->daemon, SIGHUP);
    rest();
    daemon_signal(&w->daemon, SIGTERM);
    daemon_expect_event(&w->daemon, 0, "drain", NULL);
    assert_int_equal(daemon_wait(&w->daemon), 0); /* it is not waited for */
    assert_int_equal(daemon_count_events(&w->daemon, 0, "reload", NULL), 0);
    daemon_expect_clean_stderr(&w->daemon);
    w->finished = true;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WORLD_TEST(test_backends_come_and_go),
        WORLD_TEST(test_weights_names_and_backups),
        WORLD_TEST(test_turn_and_pool_stay),
        WORLD_TEST(test_a_name_is_added),
        WORLD_TEST(test_health_is_kept),
        WORLD_TEST(test_checks_go_off_and_on),
        WORLD_TEST(test_ejections_are_kept),
        WORLD_TEST(test_balance_and_queue),
        WORLD_TEST(test_retries),
        WORLD_TEST(test_another_address),
        WORLD_TEST(test_another_host),
        WORLD_TEST(test_backlog_is_served),
        WORLD_TEST(test_timeouts),
        WORLD_TEST(test_shutdown_time),
        WORLD_TEST(test_limits),
        WORLD_TEST(test_fields_of_responses),
        WORLD_TEST(test_tokens_are_kept),
        WORLD_TEST(test_edited_clients_are_told_of),
        WORLD_TEST(test_fields_follow),
        WORLD_TEST(test_admin_and_proxies),
        WORLD_TEST(test_log),
        WORLD_TEST(test_bad_files_change_nothing),
        WORLD_TEST(test_a_second_one_follows),
        WORLD_TEST(test_a_file_that_hangs_is_given_up),
        WORLD_TEST(test_stop_meets_reload),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
