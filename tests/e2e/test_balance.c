/* Which backend serves a request, and what happens when one cannot. */
#include "harness/util.h"
#include "harness/world.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* How the origins misbehave, by their mode. */
enum { MODE_SERVE, MODE_RESET, MODE_HANG, MODE_CLOSE_AFTER, MODE_CLOSE_ON_SECOND, MODE_UNHEALTHY };

/* Answers to /health since a test set them to 0. */
static atomic_uint well, ill;

static void moody_script(struct origin_conn *c)
{
    for (unsigned served = 0; origin_read(c); served++) {
        int mode = origin_mode(c);

        if (strcmp(c->request.target, "/health") == 0 && mode == MODE_UNHEALTHY)
            ill++;
        else if (strcmp(c->request.target, "/health") == 0)
            well++;
        if (mode == MODE_HANG)
            origin_drain(c);
        if (mode == MODE_RESET || (mode == MODE_CLOSE_ON_SECOND && served == 1))
            origin_reset(c);
        if (mode == MODE_RESET || mode == MODE_HANG || (mode == MODE_CLOSE_ON_SECOND && served == 1))
            return;
        if (mode == MODE_UNHEALTHY && strcmp(c->request.target, "/health") == 0)
            origin_send(c, "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n");
        else if (!origin_answer(c, origin_name(c->origin)) || mode == MODE_CLOSE_AFTER)
            return;
    }
}

static struct origin *moody(struct world *w, const char *extra)
{
    return world_origin(w, moody_script, NULL, extra);
}

/* The number of the backend that served a request: 1 for "b1"; fails unless the answer is a 200. */
static int ask(struct client *c, const char *request_line)
{
    client_sendf(c, "%s HTTP/1.1\r\nHost: h\r\n\r\n", request_line);
    return atoi(client_expect(c, 200)->body.p + 1);
}

/* Requests of that method among all that an origin has seen. */
static unsigned seen(struct origin *o, const char *method)
{
    unsigned count = 0;
    size_t n = strlen(method);
    const char *head;

    for (unsigned i = 0; (head = origin_head(o, i)); i++)
        count += strncmp(head, method, n) == 0 && head[n] == ' ' && !strstr(head, "/health");
    return count;
}

static void test_round_robin_is_exact(void **state)
{
    struct world *w = *state;
    struct client c;
    int counts[4] = {0}, last = 0;

    for (int i = 0; i < 3; i++)
        moody(w, NULL);
    world_start(w, "\"health_check\": {\"interval\": \"100ms\"}");
    client_open(&c, w->port);
    for (int i = 0; i < 300; i++) {
        int b = ask(&c, "GET /");

        counts[b]++;
        assert_true(last == 0 || b == last % 3 + 1);
        last = b;
    }
    assert_int_equal(counts[1], 100);
    assert_int_equal(counts[2], 100);
    assert_int_equal(counts[3], 100);
    client_close(&c);
    world_finish(w);
}

static void test_weights_are_smooth(void **state)
{
    struct world *w = *state;
    struct client c;
    int counts[4] = {0}, in_a_row = 0, last = 0, period[4] = {0};

    moody(w, "\"weight\": 3");
    moody(w, "\"weight\": 2");
    moody(w, "\"weight\": 1");
    world_start(w, NULL);
    client_open(&c, w->port);
    for (int i = 0; i < 300; i++) {
        int b = ask(&c, "GET /");

        counts[b]++;
        period[b]++;
        in_a_row = b == last ? in_a_row + 1 : 1;
        last = b;
        assert_true(in_a_row <= 2);
        if (i % 6 == 5) {
            assert_int_equal(period[1], 3);
            assert_int_equal(period[2], 2);
            assert_int_equal(period[3], 1);
            memset(period, 0, sizeof period);
        }
    }
    assert_int_equal(counts[1], 150);
    assert_int_equal(counts[2], 100);
    assert_int_equal(counts[3], 50);
    client_close(&c);
    world_finish(w);
}

/* Nothing of a request has left when a connection is refused: whatever its method, it goes on to another backend. */
static void test_refused_connections_go_elsewhere(void **state)
{
    struct world *w = *state;
    struct client c;

    for (int i = 0; i < 3; i++)
        moody(w, NULL);
    origin_refuse(w->origins[1]);
    world_start(w, "\"retry\": {\"budget_percent\": 100}");
    client_open(&c, w->port);
    for (int i = 0; i < 30; i++) {
        assert_int_not_equal(ask(&c, "GET /"), 2);
        client_send(&c, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\ndata");
        client_expect(&c, 200);
    }
    client_close(&c);
    const cJSON *retry = daemon_expect_event(&w->daemon, 0, "retry", "backend=b2");
    assert_string_equal(log_field(retry, "next"), "another backend");
    daemon_expect_event(&w->daemon, 0, "request", "status=200 attempts=2 method=POST");
    assert_int_equal(seen(w->origins[0], "POST") + seen(w->origins[2], "POST"), 30);
    world_finish(w);
}

/* Where there is no other backend, the same one is asked again, and the log says so. */
static void test_only_backend_is_asked_again(void **state)
{
    struct world *w = *state;
    struct client c;

    moody(w, NULL);
    origin_refuse(w->origins[0]);
    world_start(w, NULL);
    client_open(&c, w->port);
    client_send(&c, "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    client_expect(&c, 502);
    client_close(&c);
    daemon_expect_event(&w->daemon, 0, "request", "status=502 attempts=3");
    const cJSON *retry = daemon_expect_event(&w->daemon, 0, "retry", "backend=b1 attempt=2");
    assert_string_equal(log_field(retry, "next"), "same backend");
    world_finish(w);
}

/* Long before the checks have found out, a backend that fails is passed over: of 100 requests 5 need another attempt.
 */
static void test_failures_eject(void **state)
{
    struct world *w = *state;
    struct client c;
    size_t mark;

    moody(w, NULL);
    moody(w, NULL);
    origin_refuse(w->origins[1]);
    world_start(w,
                "\"passive_check\": {\"failures\": 5, \"ejection\": \"400ms\"}, \"retry\": {\"budget_percent\": 100}");
    client_open(&c, w->port);
    for (int i = 0; i < 100; i++)
        assert_int_equal(ask(&c, "GET /"), 1);
    daemon_expect_event(&w->daemon, 0, "backend_down", "backend=b2");
    assert_int_equal(daemon_count_events(&w->daemon, 0, "retry", "backend=b2"), 5);
    daemon_expect_event(&w->daemon, 0, "backend_up", "backend=b2");
    mark = w->daemon.line_count;
    for (int i = 0; i < 20; i++) /* on probation: one more failure is enough */
        assert_int_equal(ask(&c, "GET /"), 1);
    daemon_expect_event(&w->daemon, mark, "backend_down", "backend=b2");
    assert_int_equal(daemon_count_events(&w->daemon, 0, "retry", "backend=b2"), 6);
    client_close(&c);
    world_finish(w);
}

/* The one that is left fails in its turn: requests go on to the ejected one, which is well again. */
static void test_the_ejected_one_is_tried(void **state)
{
    struct world *w = *state;
    struct client c;

    moody(w, NULL);
    moody(w, NULL);
    origin_set_mode(w->origins[0], MODE_RESET);
    world_start(w, "\"passive_check\": {\"failures\": 2, \"ejection\": \"1h\", \"max_ejection\": \"1h\"}");
    client_open(&c, w->port);
    for (int i = 0; i < 4; i++)
        assert_int_equal(ask(&c, "GET /"), 2);
    daemon_expect_event(&w->daemon, 0, "backend_down", "backend=b1");
    origin_set_mode(w->origins[0], MODE_SERVE);
    origin_set_mode(w->origins[1], MODE_RESET);
    for (int i = 0; i < 10; i++)
        assert_int_equal(ask(&c, "GET /"), 1);
    daemon_expect_event(&w->daemon, 0, "backend_up", "backend=b1");
    daemon_expect_event(&w->daemon, 0, "backend_down", "backend=b2");
    client_close(&c);
    world_finish(w);
}

/* Says what it is asked to say: /503; /cut is not answered at all. */
static void saying_script(struct origin_conn *c)
{
    while (origin_read(c) && strcmp(c->request.target, "/cut") != 0)
        if (!origin_sendf(c, "HTTP/1.1 %s X\r\nContent-Length: 0\r\n\r\n", c->request.target + 1))
            return;
}

/* Failures are counted for each backend, and apart from them answers that say that something behind it has failed. */
static void test_totals(void **state)
{
    static const char *const targets[] = {"/200", "/500", "/501", "/502", "/503", "/504", "/505", "/cut"};
    struct world *w = *state;

    world_origin(w, saying_script, NULL, NULL);
    world_origin(w, origin_answer_all, NULL, "\"backup\": true");
    world_start(w, NULL);
    for (size_t i = 0; i < sizeof targets / sizeof *targets; i++) {
        int status = http_get(w->port, targets[i], NULL);
        assert_int_equal(status, targets[i][1] == 'c' ? 200 : atoi(targets[i] + 1));
    }
    daemon_signal(&w->daemon, SIGTERM);
    assert_int_equal(daemon_wait(&w->daemon), 0);
    daemon_expect_event(&w->daemon, 0, "backend_totals", "backend=b1 attempts=8 failures=1 gateway_errors=3");
    daemon_expect_event(&w->daemon, 0, "backend_totals", "backend=b2 attempts=1 failures=0 gateway_errors=0");
    w->finished = true;
}

static void test_reset_requests(void **state)
{
    struct world *w = *state;
    struct client c;
    int failed = 0;

    for (int i = 0; i < 3; i++)
        moody(w, NULL);
    origin_set_mode(w->origins[0], MODE_RESET);
    world_start(w, "\"retry\": {\"budget_percent\": 100}");
    client_open(&c, w->port);
    for (int i = 0; i < 15; i++)
        assert_int_not_equal(ask(&c, "GET /"), 1);
    for (int i = 0; i < 15; i++)
        assert_int_not_equal(ask(&c, "DELETE /"), 1);
    for (int i = 0; i < 15; i++) {
        client_send(&c, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\ndata");
        client_expect(&c, 0);
        assert_true(c.response.status == 200 || c.response.status == 502);
        failed += c.response.status == 502;
    }
    assert_true(failed >= 4);
    assert_int_equal(seen(w->origins[0], "POST"), failed);
    assert_int_equal(seen(w->origins[0], "POST") + seen(w->origins[1], "POST") + seen(w->origins[2], "POST"), 15);
    daemon_expect_event(&w->daemon, 0, "request", "method=POST status=502 reason=backend_reset attempts=1 backend=b1");
    client_close(&c);
    world_finish(w);
}

static void test_hanging_backend(void **state)
{
    struct world *w = *state;
    struct client c;

    moody(w, NULL);
    moody(w, NULL);
    origin_set_mode(w->origins[0], MODE_HANG);
    world_start(w, "\"retry\": {\"budget_percent\": 100}, \"timeouts\": {\"backend_response\": \"600ms\"}");
    client_open(&c, w->port);
    assert_int_equal(ask(&c, "GET /"), 2);
    const cJSON *line = daemon_expect_event(&w->daemon, 0, "request", "method=GET status=200 attempts=2 backend=b2");
    assert_null(log_field(line, "cause")); /* that is the first attempt's, which has its own line */
    for (int i = 0; i < 2; i++) {
        client_send(&c, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\ndata");
        client_expect(&c, 0);
        assert_true(c.response.status == 200 || c.response.status == 504);
    }
    daemon_expect_event(&w->daemon, 0, "request", "method=POST status=504 reason=response_timeout attempts=1");
    assert_int_equal(seen(w->origins[0], "POST") + seen(w->origins[1], "POST"), 2);
    client_close(&c);
    world_finish(w);
}

/* Clients that do not wait for the answer do not forgive what others have found out. */
static void test_impatient_clients_forgive_nothing(void **state)
{
    struct world *w = *state;
    struct client c;
    size_t mark;

    origin_set_mode(moody(w, NULL), MODE_HANG);
    moody(w, "\"backup\": true");
    world_start(w, "\"passive_check\": {\"failures\": 2, \"ejection\": \"1m\"}, \"retry\": {\"attempts\": 0}, "
                   "\"timeouts\": {\"backend_response\": \"300ms\"}");
    assert_int_equal(http_get(w->port, "/", NULL), 504);
    mark = daemon_mark(&w->daemon);
    client_open(&c, w->port);
    client_send(&c, "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    origin_wait_requests(w->origins[0], 2);
    client_reset(&c);
    daemon_expect_event(&w->daemon, mark, "request", "reason=client_gone");
    assert_int_equal(http_get(w->port, "/", NULL), 504);
    daemon_expect_event(&w->daemon, 0, "backend_down", "backend=b1");
    assert_int_equal(http_get(w->port, "/", NULL), 200);
    world_finish(w);
}

static void echo_script(struct origin_conn *c)
{
    while (origin_read(c))
        if (!origin_answer(c, c->request.body.p))
            return;
}

static void reset_after_request_script(struct origin_conn *c)
{
    if (origin_read(c))
        origin_reset(c);
}

/* Content that is kept goes to the second backend again; what is larger than is kept, does not. */
static void test_content_is_sent_again(void **state)
{
    struct world *w = *state;
    struct client c;
    struct bytes content = {0};

    world_origin(w, reset_after_request_script, NULL, NULL);
    world_origin(w, echo_script, NULL, NULL);
    world_start(w, "\"retry\": {\"budget_percent\": 100}");
    for (int i = 0; i < 3000; i++)
        bytes_addf(&content, "line %d\n", i);
    assert_true(content.n < 64u * 1024u);
    client_open(&c, w->port);
    client_sendf(&c, "PUT /kept HTTP/1.1\r\nHost: h\r\nContent-Length: %zu\r\n\r\n%s", content.n, content.p);
    assert_string_equal(client_expect(&c, 200)->body.p, content.p);
    daemon_expect_event(&w->daemon, 0, "request", "target=/kept attempts=2 status=200 backend=b2");
    client_sendf(&c, "PUT /chunked HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n%zx\r\n%s\r\n0\r\n\r\n",
                 content.n, content.p);
    assert_string_equal(client_expect(&c, 200)->body.p, content.p);
    client_close(&c);
    bytes_free(&content);
    world_finish(w);
}

static void test_large_content_is_not_sent_again(void **state)
{
    static char content[300000];
    struct world *w = *state;
    struct client c;

    world_origin(w, reset_after_request_script, NULL, NULL);
    world_origin(w, origin_answer_all, NULL, NULL);
    world_start(w, "\"retry\": {\"budget_percent\": 100}");
    client_open(&c, w->port);
    client_sendf(&c, "PUT /big HTTP/1.1\r\nHost: h\r\nContent-Length: %zu\r\n\r\n", sizeof content);
    client_send_bytes(&c, content, sizeof content);
    client_expect(&c, 502);
    daemon_expect_event(&w->daemon, 0, "request", "target=/big attempts=1 status=502 backend=b1");
    assert_int_equal(origin_requests(w->origins[1]), 0);
    client_close(&c);
    world_finish(w);
}

static void test_attempts_are_bounded(void **state)
{
    struct world *w = *state;

    for (int i = 0; i < 4; i++)
        origin_refuse(moody(w, NULL));
    world_start(w, "\"retry\": {\"attempts\": 1, \"budget_percent\": 100}");
    assert_int_equal(http_get(w->port, "/", NULL), 502);
    daemon_expect_event(&w->daemon, 0, "request", "status=502 attempts=2");
    world_finish(w);
}

/* Thirty retries are always there for ten seconds; behind them a share of the requests, of which there are few here. */
static void test_the_budget_bounds_retries(void **state)
{
    struct world *w = *state;
    size_t denied, made;
    uint64_t deadline = deadline_in(patience_ms());

    for (int i = 0; i < 2; i++)
        origin_refuse(moody(w, NULL));
    world_start(w, "\"retry\": {\"attempts\": 1}");
    for (int i = 0; i < 50; i++)
        assert_int_equal(http_get(w->port, "/", NULL), 502);
    while (daemon_count_events(&w->daemon, 0, "request", NULL) < 50) {
        assert_true(left_ms(deadline) > 0);
        rest();
    }
    made = daemon_count_events(&w->daemon, 0, "retry", NULL);
    denied = daemon_count_events(&w->daemon, 0, "request", "attempts=1 retry=over_budget");
    assert_in_range(made, 30, 36); /* three more in each further second */
    assert_int_equal(made + denied, 50);
    world_finish(w);
}

/* Once the budget is spent, a retry that it refuses leaves the turn with the backend that would have had it: of two,
 * the one that refuses gets half of the requests, not all. (A retry that is made takes a turn.) */
static void test_a_refused_retry_takes_no_turn(void **state)
{
    struct world *w = *state;
    unsigned failed = 0;

    origin_refuse(moody(w, NULL));
    moody(w, NULL);
    world_start(w, "\"retry\": {\"attempts\": 1, \"budget_percent\": 0}");
    for (int i = 0; i < 100; i++) /* more than enough for the thirty that are always allowed */
        http_get(w->port, "/", NULL);
    for (int i = 0; i < 200; i++)
        failed += http_get(w->port, "/", NULL) == 502;
    assert_in_range(failed, 0, 101);
    world_finish(w);
}

/* A unix socket whose backlog is full is a failed connect, and another backend has the request. A burst fills it, too,
 * so that alone ejects nobody. */
static void test_a_full_backlog(void **state)
{
    struct world *w = *state;
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    char address[200];
    int listener = socket(AF_UNIX, SOCK_STREAM, 0), waiting[8], count = 0;

    snprintf(at.sun_path, sizeof at.sun_path, "%s", world_path(w, "full.sock"));
    assert_int_equal(bind(listener, (struct sockaddr *)&at, sizeof at), 0);
    assert_int_equal(listen(listener, 1), 0);
    do {
        assert_true(count < 8);
        waiting[count] = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
    } while (connect(waiting[count++], (struct sockaddr *)&at, sizeof at) == 0);
    assert_int_equal(errno, EAGAIN);
    snprintf(address, sizeof address, "unix:%s", at.sun_path);
    world_backend(w, address, "\"name\": \"full\"");
    moody(w, NULL);
    world_start(w, "\"passive_check\": {\"failures\": 3, \"ejection\": \"1m\"}");
    for (int i = 0; i < 20; i++)
        assert_int_equal(http_get(w->port, "/", NULL), 200);
    const cJSON *retry = daemon_expect_event(&w->daemon, 0, "retry", "backend=full");
    assert_string_equal(log_field(retry, "cause"), "backlog full");
    while (count > 0)
        close(waiting[--count]);
    close(listener);
    world_stop(w);
    assert_int_equal(daemon_count_events(&w->daemon, 0, "retry", "backend=full"), 20);
    assert_int_equal(daemon_count_events(&w->daemon, 0, "backend_down", "backend=full"), 0);
    daemon_expect_event(&w->daemon, 0, "backend_totals", "backend=full attempts=20 failures=20");
    world_finish(w);
}

/* A backend that closes its connections after each response without saying so costs nobody a request. */
static void test_backend_that_closes_silently(void **state)
{
    struct world *w = *state;
    struct client c;

    origin_set_mode(moody(w, NULL), MODE_CLOSE_AFTER);
    world_start(w, NULL);
    client_open(&c, w->port);
    for (int i = 0; i < 20; i++) {
        ask(&c, "GET /");
        origin_wait_closed(w->origins[0]);
        client_send(&c, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\ndata");
        client_expect(&c, 200);
        origin_wait_closed(w->origins[0]);
    }
    assert_int_equal(seen(w->origins[0], "POST"), 20);
    client_close(&c);
    world_finish(w);
}

/* A connection that breaks on its reuse: the first request that may be sent again gets a fresh one to the same backend,
 * and that is no attempt; a POST fails, for it may have arrived. */
static void test_stale_connections(void **state)
{
    struct world *w = *state;
    struct client c;

    origin_set_mode(moody(w, NULL), MODE_CLOSE_ON_SECOND);
    world_start(w, "\"retry\": {\"attempts\": 0}");
    client_open(&c, w->port);
    ask(&c, "GET /1");
    ask(&c, "GET /2");
    daemon_expect_event(&w->daemon, 0, "request", "target=/2 attempts=1 status=200");
    /* Warned by that, it gives what may not be sent twice a fresh connection for a while. */
    client_send(&c, "POST /3 HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\ndata");
    client_expect(&c, 200);
    assert_int_equal(seen(w->origins[0], "POST"), 1);
    client_close(&c);
    world_finish(w);
}

static void test_stale_connection_at_a_post(void **state)
{
    struct world *w = *state;
    struct client c;

    origin_set_mode(moody(w, NULL), MODE_CLOSE_ON_SECOND);
    world_start(w, NULL);
    client_open(&c, w->port);
    ask(&c, "GET /1");
    client_send(&c, "POST /2 HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\ndata");
    client_expect(&c, 502); /* it has arrived, and may have acted */
    assert_int_equal(seen(w->origins[0], "POST"), 1);
    client_close(&c);
    world_finish(w);
}

/* Each backend that a request comes to may have a stale connection for it: at each a fresh one takes its place. */
static void test_stale_connections_at_both_backends(void **state)
{
    struct world *w = *state;
    struct client c;

    for (int i = 0; i < 2; i++)
        origin_set_mode(moody(w, NULL), MODE_CLOSE_ON_SECOND);
    world_start(w, "\"retry\": {\"attempts\": 1, \"budget_percent\": 100}");
    client_open(&c, w->port);
    assert_int_equal(ask(&c, "GET /"), 1);
    assert_int_equal(ask(&c, "GET /"), 2);
    origin_set_mode(w->origins[0], MODE_RESET); /* the fresh one fails, too */
    assert_int_equal(ask(&c, "GET /both"), 2);
    daemon_expect_event(&w->daemon, 0, "request", "target=/both attempts=2 status=200 backend=b2");
    const cJSON *line = daemon_expect_event(&w->daemon, 0, "retry", "target=/both backend=b2");
    assert_string_equal(log_field(line, "next"), "fresh connection");
    client_close(&c);
    world_finish(w);
}

/* Answers; the end of the answer to /slow when the test lets it. */
static void slow_script(struct origin_conn *c)
{
    const char *name = origin_name(c->origin);

    while (origin_read(c)) {
        if (origin_mode(c) == MODE_RESET) {
            origin_reset(c);
            return;
        }
        if (!origin_sendf(c, "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\n\r\n", strlen(name)))
            return;
        if (strcmp(c->request.target, "/slow") == 0)
            origin_hold(c);
        if (!origin_send(c, name))
            return;
    }
}

/* The one request of a backend on trial is answered with its head: others may go there then, however long the rest. */
static void test_a_trial_ends_with_the_answers_head(void **state)
{
    struct world *w = *state;
    struct client slow[2], c;
    unsigned first = 0;

    for (int i = 0; i < 2; i++)
        world_origin(w, slow_script, NULL, NULL);
    origin_set_mode(w->origins[0], MODE_RESET);
    world_start(w, "\"passive_check\": {\"failures\": 1, \"ejection\": \"200ms\"}");
    client_open(&c, w->port);
    assert_int_equal(ask(&c, "GET /"), 2);
    origin_set_mode(w->origins[0], MODE_SERVE);
    daemon_expect_event(&w->daemon, 0, "backend_up", "backend=b1");
    for (int i = 0; i < 2; i++) { /* one at each */
        client_open(&slow[i], w->port);
        client_send(&slow[i], "GET /slow HTTP/1.1\r\nHost: h\r\n\r\n");
        client_expect_head(&slow[i], 200);
    }
    for (int i = 0; i < 4; i++)
        first += ask(&c, "GET /") == 1;
    assert_int_equal(first, 2);
    for (int i = 0; i < 2; i++) {
        origin_release(w->origins[i]);
        client_close(&slow[i]);
    }
    client_close(&c);
    world_finish(w);
}

static void test_first_probe_takes_a_backend_down(void **state)
{
    struct world *w = *state;
    struct client c;

    moody(w, NULL);
    origin_refuse(moody(w, NULL));
    world_start(w, "\"health_check\": {\"interval\": \"60s\", \"fall\": 3}");
    daemon_expect_event(&w->daemon, 0, "backend_down", "backend=b2");
    client_open(&c, w->port);
    for (int i = 0; i < 10; i++)
        assert_int_equal(ask(&c, "GET /"), 1);
    client_close(&c);
    assert_int_equal(daemon_count_events(&w->daemon, 0, "retry", NULL), 0);
    assert_int_equal(daemon_count_events(&w->daemon, 0, "backend_down", "backend=b1"), 0);
    world_finish(w);
}

static void test_fall_and_rise(void **state)
{
    struct world *w = *state;
    struct client c;
    struct origin *sick;
    int counts[3] = {0};

    world_origin(w, origin_answer_all, NULL, NULL);
    sick = moody(w, NULL);
    ill = 0;
    world_start(w, "\"health_check\": {\"interval\": \"100ms\", \"timeout\": \"1s\", \"fall\": 3, \"rise\": 2}");
    origin_wait_requests(sick, 2);
    assert_int_equal(daemon_count_events(&w->daemon, 0, "backend_down", NULL), 0);
    origin_set_mode(sick, MODE_UNHEALTHY);
    daemon_expect_event(&w->daemon, 0, "backend_down", "backend=b2");
    assert_true(ill >= 3);
    client_open(&c, w->port);
    for (int i = 0; i < 6; i++)
        assert_int_equal(ask(&c, "GET /"), 1);
    well = 0;
    origin_set_mode(sick, MODE_SERVE);
    daemon_expect_event(&w->daemon, 0, "backend_up", "backend=b2");
    assert_true(well >= 2);
    for (int i = 0; i < 6; i++)
        counts[ask(&c, "GET /") - 1]++;
    assert_int_equal(counts[0], 3);
    assert_int_equal(counts[1], 3);
    client_close(&c);
    world_finish(w);
}

/* A backend that accepts and says nothing is as down as one that refuses. */
static void test_probe_timeout(void **state)
{
    struct world *w = *state;

    moody(w, NULL);
    origin_set_mode(moody(w, NULL), MODE_HANG);
    world_start(w, "\"health_check\": {\"interval\": \"100ms\", \"timeout\": \"100ms\"}");
    daemon_expect_event(&w->daemon, 0, "backend_down", "backend=b2");
    origin_set_mode(w->origins[1], MODE_SERVE);
    daemon_expect_event(&w->daemon, 0, "backend_up", "backend=b2");
    world_finish(w);
}

static void picky_script(struct origin_conn *c)
{
    while (origin_read(c)) {
        bool probe = strcmp(c->request.target, "/alive?deep=1") == 0;

        if (!origin_sendf(c, "HTTP/1.1 %s\r\nContent-Length: 0\r\n\r\n", probe ? "418 I'm a teapot" : "404 Not Found"))
            return;
    }
}

static void test_probe_path_and_status(void **state)
{
    struct world *w = *state;

    world_origin(w, picky_script, NULL, NULL);
    world_start(
        w, "\"health_check\": {\"path\": \"/alive?deep=1\", \"expect_status\": \"204,418\", \"interval\": \"100ms\"}");
    origin_wait_requests(w->origins[0], 4);
    assert_int_equal(daemon_count_events(&w->daemon, 0, "backend_down", NULL), 0);
    assert_int_equal(http_get(w->port, "/", NULL), 404);
    world_finish(w);
}

static void test_probe_host(void **state)
{
    struct world *w = *state;
    struct origin *o = world_origin(w, origin_answer_all, NULL, NULL);
    char own[64];

    world_start(w, "\"health_check\": {\"interval\": \"50ms\"}");
    origin_wait_requests(o, 1);
    snprintf(own, sizeof own, "\r\nHost: %s\r\n", origin_name(o));
    assert_non_null(strstr(origin_head(o, 0), own));
    world_stop(w);
    unsigned before = origin_requests(o);
    world_config(w, "\"health_check\": {\"interval\": \"50ms\", \"host\": \"shop.example:81\"}");
    world_restart(w);
    origin_wait_requests(o, before + 1);
    assert_non_null(strstr(origin_head(o, before), "\r\nHost: shop.example:81\r\n"));
    world_finish(w);
}

/* One that is down for long is asked less often, down to each fifth interval; its first success has it asked at the
 * usual pace again. */
static void test_checks_back_off(void **state)
{
    struct world *w = *state;
    struct origin *sound, *sick;
    unsigned seen = 0, before = 0, widest = 0;

    sound = world_origin(w, origin_answer_all, NULL, NULL);
    sick = moody(w, NULL);
    origin_set_mode(sick, MODE_UNHEALTHY);
    ill = 0;
    world_start(w, "\"health_check\": {\"interval\": \"40ms\", \"rise\": 20}");
    /* The checks of the other one are the clock: a busy machine holds up both. */
    for (uint64_t deadline = deadline_in(patience_ms()); seen <= 10 || widest < 4; usleep(1000)) {
        assert_true(left_ms(deadline) > 0);
        if (ill == seen)
            continue;
        unsigned now = origin_requests(sound);
        seen = ill;
        widest = now - before > widest ? now - before : widest;
        before = now;
        if (seen <= 10) /* at first, at the same pace; at the slowest it would be some 40 */
            assert_in_range(now, 0, 25);
    }
    before = origin_requests(sound);
    origin_set_mode(sick, MODE_SERVE);
    daemon_expect_event(&w->daemon, 0, "backend_up", "backend=b2");
    assert_in_range(origin_requests(sound) - before, 1, 60); /* some 25; at the slowest, 100 */
    world_finish(w);
}

static void test_backup(void **state)
{
    struct world *w = *state;
    struct client c;

    moody(w, NULL);
    moody(w, "\"backup\": true");
    world_start(w, "\"health_check\": {\"interval\": \"100ms\", \"timeout\": \"1s\", \"fall\": 1, \"rise\": 1}");
    client_open(&c, w->port);
    for (int i = 0; i < 10; i++)
        assert_int_equal(ask(&c, "GET /"), 1);
    size_t mark = daemon_mark(&w->daemon);
    origin_refuse(w->origins[0]);
    origin_reset_all(w->origins[0]);
    daemon_expect_event(&w->daemon, mark, "backend_down", "backend=b1");
    for (int i = 0; i < 10; i++)
        assert_int_equal(ask(&c, "GET /"), 2);
    mark = daemon_mark(&w->daemon);
    origin_accept_again(w->origins[0]);
    daemon_expect_event(&w->daemon, mark, "backend_up", "backend=b1");
    for (int i = 0; i < 10; i++)
        assert_int_equal(ask(&c, "GET /"), 1);
    client_close(&c);
    world_finish(w);
}

/* A retry may go to the backup when no other is left. */
static void test_retry_at_the_backup(void **state)
{
    struct world *w = *state;

    origin_refuse(moody(w, NULL));
    moody(w, "\"backup\": true");
    world_start(w, NULL);
    assert_int_equal(http_get(w->port, "/", NULL), 200);
    daemon_expect_event(&w->daemon, 0, "request", "status=200 backend=b2 attempts=2");
    world_finish(w);
}

static void test_backend_by_name(void **state)
{
    struct world *w = *state;
    struct origin *o = origin_start("named", origin_answer_all, NULL);
    char address[64];

    w->origins[w->origin_count++] = o;
    snprintf(address, sizeof address, "localhost:%d", origin_port(o));
    world_backend(w, address, "\"name\": \"by-name\"");
    world_start(w, NULL);
    uint64_t deadline = deadline_in(patience_ms());
    while (http_get(w->port, "/", NULL) != 200 && left_ms(deadline) > 0)
        rest(); /* a name is down until it resolves */
    assert_int_equal(http_get(w->port, "/", NULL), 200);
    daemon_expect_event(&w->daemon, 0, "request", "backend=by-name status=200");
    world_finish(w);
}

/* A view of the mounts of our own, where we may change them: it goes with this process and those it starts. */
static bool mounts_allowed;

static void leave_the_others(void)
{
    mounts_allowed = unshare(CLONE_NEWNS) == 0 && mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0;
}

/* Answers to /health at once; everything else is held, and then reset. */
static void held_script(struct origin_conn *c)
{
    while (origin_read(c) && strcmp(c->request.target, "/health") == 0)
        if (!origin_answer(c, "well"))
            return;
    origin_hold(c);
    origin_reset(c);
}

/* Its name has moved to another address: that a request fails which is still under way at the old one is counted, but
 * does not eject it. */
static void test_a_failure_where_a_name_was(void **state)
{
    struct world *w = *state;
    struct origin *o = origin_start("named", held_script, NULL);
    const char *hosts = world_path(w, "hosts");
    char address[64];
    struct client c;

    w->origins[w->origin_count++] = o;
    file_put(hosts, "127.0.0.1 moving.test\n");
    if (!mounts_allowed || mount(hosts, "/etc/hosts", NULL, MS_BIND, NULL) != 0) {
        print_message("mounting is not permitted here\n");
        w->finished = true;
        skip();
    }
    snprintf(address, sizeof address, "moving.test:%d", origin_port(o));
    world_backend(w, address, "\"name\": \"by-name\"");
    moody(w, "\"backup\": true");
    world_start(w, "\"passive_check\": {\"failures\": 1}, \"retry\": {\"attempts\": 0}, "
                   "\"health_check\": {\"interval\": \"200ms\", \"fall\": 100}");
    daemon_expect_event(&w->daemon, 0, "backend_up", "backend=by-name");
    client_open(&c, w->port);
    client_send(&c, "GET /held HTTP/1.1\r\nHost: h\r\n\r\n");
    while (seen(o, "GET") == 0)
        rest();
    int fd = open("/etc/hosts", O_WRONLY); /* the mount is of the file, which must stay the same one */
    assert_int_equal(pwrite(fd, "127.0.0.9", 9, 0), 9);
    close(fd);
    daemon_expect_event(&w->daemon, 0, "backend_address", "backend=by-name");
    origin_release(o);
    client_expect(&c, 502);
    client_close(&c);
    umount2("/etc/hosts", MNT_DETACH);
    world_stop(w);
    assert_int_equal(daemon_count_events(&w->daemon, 0, "backend_down", NULL), 0);
    daemon_expect_event(&w->daemon, 0, "backend_totals", "backend=by-name attempts=1 failures=1");
    world_finish(w);
}

static void test_idle_backend_connections_end(void **state)
{
    struct world *w = *state;

    moody(w, NULL);
    world_start(w, "\"timeouts\": {\"backend_idle\": \"200ms\"}");
    assert_int_equal(http_get(w->port, "/", NULL), 200);
    origin_wait_closed(w->origins[0]);
    assert_int_equal(http_get(w->port, "/", NULL), 200);
    assert_int_equal(origin_connections(w->origins[0]), 2);
    world_finish(w);
}

/* Closes each connection that has been idle for 1600 ms. */
static void closing_script(struct origin_conn *c)
{
    struct pollfd p = {.fd = c->in.fd, .events = POLLIN};

    while (poll(&p, 1, 1600) == 1 && origin_read(c))
        if (!origin_answer(c, "here"))
            return;
}

/* Twice it is seen when the backend closes; from then on our connections are closed before that could race with a
 * request: one that comes a little earlier than the backend's time finds a fresh one. */
static void test_keep_time_is_learned(void **state)
{
    struct world *w = *state;
    struct client c;
    struct origin *o = world_origin(w, closing_script, NULL, NULL);

    world_start(w, "\"health_check\": null");
    client_open(&c, w->port);
    uint64_t took = UINT64_MAX;
    unsigned rounds = 0;
    int fds = 0;
    while (took >= 1595) { /* a busy machine may need some more that agree */
        assert_true(++rounds <= 8);
        client_sendf(&c, "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
        client_expect(&c, 200);
        assert_int_equal(origin_connections(o), rounds);
        uint64_t begin = now_ms(), deadline = deadline_in(patience_ms());
        if (rounds == 1)
            fds = proc_fds(w->daemon.pid);
        origin_wait_closed(o); /* by the script, and once it is known, by the daemon */
        took = now_ms() - begin;
        while (proc_fds(w->daemon.pid) >= fds) { /* it has seen that: the next request does not come before */
            assert_true(left_ms(deadline) > 0);
            usleep(1000);
        }
    }
    assert_true(rounds >= 3 && took >= 1000);
    client_close(&c);
    world_finish(w);
}

static void talkative_script(struct origin_conn *c)
{
    while (origin_read(c))
        if (!origin_send(
                c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"))
            return;
}

/* Bytes behind a response's end are no response to the next request. */
static void test_bytes_behind_a_response(void **state)
{
    struct world *w = *state;
    struct client c;

    world_origin(w, talkative_script, NULL, NULL);
    world_start(w, NULL);
    client_open(&c, w->port);
    for (int i = 0; i < 10; i++) {
        client_send(&c, "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
        assert_string_equal(client_expect(&c, 200)->body.p, "ok");
    }
    assert_int_equal(origin_connections(w->origins[0]), 10);
    client_close(&c);
    world_finish(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WORLD_TEST(test_round_robin_is_exact),
        WORLD_TEST(test_weights_are_smooth),
        WORLD_TEST(test_refused_connections_go_elsewhere),
        WORLD_TEST(test_only_backend_is_asked_again),
        WORLD_TEST(test_failures_eject),
        WORLD_TEST(test_the_ejected_one_is_tried),
        WORLD_TEST(test_totals),
        WORLD_TEST(test_reset_requests),
        WORLD_TEST(test_hanging_backend),
        WORLD_TEST(test_impatient_clients_forgive_nothing),
        WORLD_TEST(test_content_is_sent_again),
        WORLD_TEST(test_large_content_is_not_sent_again),
        WORLD_TEST(test_attempts_are_bounded),
        WORLD_TEST(test_the_budget_bounds_retries),
        WORLD_TEST(test_a_refused_retry_takes_no_turn),
        WORLD_TEST(test_a_full_backlog),
        WORLD_TEST(test_backend_that_closes_silently),
        WORLD_TEST(test_stale_connections),
        WORLD_TEST(test_stale_connection_at_a_post),
        WORLD_TEST(test_stale_connections_at_both_backends),
        WORLD_TEST(test_a_trial_ends_with_the_answers_head),
        WORLD_TEST(test_first_probe_takes_a_backend_down),
        WORLD_TEST(test_fall_and_rise),
        WORLD_TEST(test_probe_timeout),
        WORLD_TEST(test_probe_path_and_status),
        WORLD_TEST(test_probe_host),
        WORLD_TEST(test_checks_back_off),
        WORLD_TEST(test_backup),
        WORLD_TEST(test_retry_at_the_backup),
        WORLD_TEST(test_backend_by_name),
        WORLD_TEST(test_a_failure_where_a_name_was),
        WORLD_TEST(test_idle_backend_connections_end),
        WORLD_TEST(test_bytes_behind_a_response),
        WORLD_TEST(test_keep_time_is_learned),
    };

    leave_the_others();
    return cmocka_run_group_tests_name("balance", tests, NULL, NULL);
}
