/* Bytes that come in an order that nobody planned for: claims of content where there can be none, responses that run
 * while their requests do not, ends in the middle, silence where an answer was expected first. */
#include "harness/world.h"

#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define GET(target) "GET " target " HTTP/1.1\r\nHost: h\r\n\r\n"
#define POISON      "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"

/* The first request is answered with the text, and when the test says so, by what would be its content. */
static void late_content_script(struct origin_conn *c)
{
    while (origin_read(c)) {
        if (strcmp(c->request.target, "/claim") == 0) {
            origin_send(c, origin_arg(c->origin));
            origin_hold(c);
            origin_send(c, POISON);
        } else {
            origin_answer(c, c->request.target);
        }
    }
}

/* What follows a response that cannot have content, but says that it has, is nobody else's response. */
static void test_claimed_content(void **state)
{
    static char *const answers[] = {
        "HTTP/1.1 204 No Content\r\nContent-Length: 45\r\n\r\n",
        "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 103 Early Hints\r\nContent-Length: 45\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 103 Early Hints\r\nTransfer-Encoding: chunked\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
    };
    struct world *w = *state;

    for (size_t i = 0; i < sizeof answers / sizeof *answers; i++) {
        struct origin *o = world_origin(w, late_content_script, answers[i], NULL);
        struct client a, b;
        world_start(w, NULL);
        client_open(&a, w->port);
        client_open(&b, w->port);
        client_send(&a, GET("/claim"));
        client_expect(&a, 0);
        CHECK(a.response.status < 400, "%s: %d", answers[i], a.response.status);
        client_send(&b, GET("/other"));
        client_expect(&b, 200);
        assert_string_equal(b.response.body.p, "/other");
        assert_int_equal(origin_connections(o), 2);
        origin_release(o);
        client_send(&b, GET("/third"));
        client_expect(&b, 200);
        assert_string_equal(b.response.body.p, "/third");
        client_close(&a);
        client_close(&b);
        world_stop(w);
        origin_stop(o);
        w->origin_count = 0;
        w->backends[0] = '\0';
    }
    world_finish(w);
}

#define TICKS 10

/* Answers at once, a chunk at a time, and never reads what the request still has. */
static void ticking_script(struct origin_conn *c)
{
    if (!origin_read_head(c) || !origin_send(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"))
        return;
    for (int i = 0; i < TICKS; i++) {
        if (!origin_send(c, "1\r\nt\r\n"))
            return;
        origin_pause(c, 60);
    }
    origin_send(c, "0\r\n\r\n");
}

/* A response goes on although its backend takes no more of the request: for longer than backend_response, as long as
 * bytes of it come. */
static void test_response_without_reading(void **state)
{
    static char block[1024 * 1024];
    struct world *w = *state;
    struct client c;

    world_origin(w, ticking_script, NULL, NULL);
    world_start(w, "\"timeouts\": {\"backend_response\": \"250ms\"}");
    client_open(&c, w->port);
    client_send(&c, "POST /t HTTP/1.1\r\nHost: h\r\nContent-Length: 100000000\r\n\r\n");
    client_expect_head(&c, 200);
    /* Far more than the sockets between can hold. */
    for (int i = 0; i < 40; i++)
        (void)send(c.in.fd, block, sizeof block, MSG_DONTWAIT | MSG_NOSIGNAL);
    CHECK(client_read_body(&c, NULL, NULL) == READ_OK, "the response was cut");
    assert_int_equal(c.response.body.n, TICKS);
    client_close(&c);
    const cJSON *line = daemon_expect_event(&w->daemon, 0, "request", "status=200");
    assert_null(log_field(line, "reason"));
    world_finish(w);
}

/* Answers before the content has come, the second half of it when the test says so. */
static void early_script(struct origin_conn *c)
{
    if (!origin_read_head(c) || !origin_send(c, "HTTP/1.1 413 No\r\nContent-Length: 10\r\n\r\nfirst"))
        return;
    origin_hold(c);
    origin_send(c, "-half");
    origin_drain(c);
}

/* Nothing more than the answer's first half comes for so long: no end, no reset. */
static void expect_quiet(struct client *c, int ms)
{
    struct pollfd p = {.fd = c->in.fd, .events = POLLIN};

    while (c->in.in.n < strlen("first"))
        assert_int_equal(stream_fill(&c->in, deadline_in(patience_ms())), READ_OK);
    assert_int_equal(poll(&p, 1, ms), 0);
}

/* Whatever becomes of the content then, the client gets its answer. */
static void test_early_answer_survives(void **state)
{
    static const char *const rest[] = {"", "zz\r\nbad chunk"};
    struct world *w = *state;

    struct origin *o = world_origin(w, early_script, NULL, NULL);
    world_start(w, NULL);
    for (int i = 0; i < 2; i++) {
        struct client c;
        size_t mark = daemon_mark(&w->daemon);
        client_open(&c, w->port);
        client_send(&c, "POST /e HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n");
        client_expect_head(&c, 413);
        client_send(&c, rest[i]);
        if (i == 0)
            client_half_close(&c);
        expect_quiet(&c, 100);
        origin_release(o);
        CHECK(client_read_body(&c, NULL, NULL) == READ_OK, "the answer was cut");
        assert_string_equal(c.response.body.p, "first-half");
        client_expect_end(&c);
        client_close(&c);
        origin_block(o);
        const cJSON *line = daemon_expect_event(&w->daemon, mark, "request", "status=413");
        assert_null(log_field(line, "reason"));
    }
    origin_release(o);
    world_finish(w);
}

/* Ends its direction, and breaks when the test says so. */
static void breaking_script(struct origin_conn *c)
{
    if (!origin_read(c) ||
        !origin_send(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo/1\r\n\r\nbye"))
        return;
    shutdown(c->in.fd, SHUT_WR);
    origin_hold(c);
    origin_reset(c);
}

/* A backend that has said all and then breaks: its client is told, and does not talk to nobody for ever. */
static void test_tunnel_to_nobody(void **state)
{
    static char block[64 * 1024];
    struct world *w = *state;
    struct client c;

    struct origin *o = world_origin(w, breaking_script, NULL, NULL);
    world_start(w, NULL);
    client_open(&c, w->port);
    client_send(&c, "GET /t HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: echo/1\r\n\r\n");
    client_expect_head(&c, 101);
    origin_release(o);
    origin_wait_closed(o);
    uint64_t deadline = deadline_in(patience_ms());
    while (client_try_send(&c, block, sizeof block))
        CHECK(now_ms() < deadline, "what is sent to nobody is still taken");
    daemon_expect_event(&w->daemon, 0, "request", "status=101 reason=*");
    assert_memory_equal(c.in.in.p, "bye", c.in.in.n < 3 ? c.in.in.n : 3);
    client_close(&c);
    world_finish(w);
}

static void large_script(struct origin_conn *c)
{
    static char block[250000];

    if (!origin_read_head(c) || !origin_send(c, "HTTP/1.1 200 OK\r\nContent-Length: 250000\r\n\r\n"))
        return;
    memset(block, 'x', sizeof block);
    origin_send_bytes(c, block, sizeof block);
    origin_drain(c);
}

/* What is sent behind an answer that the client takes its time to read is not read in vain without end. */
static void test_content_behind_the_answer(void **state)
{
    static char block[64 * 1024];
    struct world *w = *state;
    struct client c;
    int small = 4096;
    size_t sent = 0;

    world_origin(w, large_script, NULL, NULL);
    world_start(w, "\"limits\": {\"body_bytes\": 0}");
    client_open(&c, w->port);
    assert_int_equal(setsockopt(c.in.fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small), 0);
    client_send(&c, "POST /l HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n10000000\r\n");
    client_expect_head(&c, 200);
    /* Nothing is read: after a while nothing is taken either. The kernel's buffers hold some MiB. */
    for (;;) {
        struct pollfd p = {.fd = c.in.fd, .events = POLLOUT};
        if (poll(&p, 1, 500) <= 0 || (p.revents & (POLLERR | POLLHUP)))
            break;
        ssize_t n = send(c.in.fd, block, sizeof block, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n < 0)
            continue;
        sent += (size_t)n;
        CHECK(sent < 64u * 1024 * 1024, "%zu bytes were taken", sent);
    }
    client_close(&c);
    world_finish(w);
}

/* Answers at once, and then waits for the content, which it sends back. */
static void echoing_script(struct origin_conn *c)
{
    if (!origin_read_head(c) || !origin_send(c, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345"))
        return;
    if (origin_read_body(c, NULL, NULL) && origin_send(c, "67890"))
        origin_drain(c);
}

/* A client that rests in the middle of its content has client_body for that; the backend, whose response has begun and
 * waits for the rest, is not blamed for it. Once it has the whole request, its own time runs again. */
static void test_the_rest_is_the_clients(void **state)
{
    struct world *w = *state;
    struct client c;

    world_origin(w, echoing_script, NULL, NULL);
    world_start(w, "\"timeouts\": {\"backend_response\": \"300ms\", \"client_body\": \"30s\"}");
    client_open(&c, w->port);
    client_send(&c, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 20\r\n\r\n0123456789");
    client_expect_head(&c, 200);
    usleep(700000); /* the rest itself is what is tested */
    client_send(&c, "0123456789");
    assert_int_equal(client_read_body(&c, NULL, NULL), READ_OK);
    assert_int_equal(daemon_count_events(&w->daemon, 0, "request", "reason=*"), 0);
    client_close(&c);
    world_finish(w);
}

static void silent_script(struct origin_conn *c)
{
    while (origin_read_head(c))
        origin_hold(c);
}

/* A backend that does not even say whether it wants the content has failed, and the next one is asked. */
static void test_expect_and_silence(void **state)
{
    struct world *w = *state;
    struct client c;

    struct origin *silent = world_origin(w, silent_script, NULL, NULL);
    world_origin(w, origin_answer_all, NULL, NULL);
    world_start(w, "\"timeouts\": {\"backend_response\": \"200ms\"}, \"retry\": {\"attempts\": 1},"
                   "\"passive_check\": {\"failures\": 1, \"ejection\": \"60s\"}");
    for (int i = 0; i < 2; i++) {
        client_open(&c, w->port);
        client_send(&c, "PUT /e HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n");
        /* origin_answer_all() reads the content first, and so never says 100: the client goes on by itself. */
        origin_wait_requests(w->origins[1], (unsigned)i + 1);
        client_send(&c, "hello");
        client_expect(&c, 200);
        client_close(&c);
    }
    assert_int_equal(origin_requests(silent), 1);
    daemon_expect_event(&w->daemon, 0, "retry", "reason=response_timeout backend=b1");
    daemon_expect_event(&w->daemon, 0, "backend_down", "backend=b1");
    origin_release(silent);
    world_finish(w);
}

#define STALLED "POST /%s HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nhello"

static void waiting_script(struct origin_conn *c)
{
    if (origin_read_head(c) && origin_send(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n"))
        origin_drain(c);
}

/* The response ends before its content does. */
static void expect_cut(struct client *c)
{
    enum read_result r = client_read_body(c, NULL, NULL);
    CHECK(r == READ_CUT || r == READ_RESET, "%s", read_result_name(r));
    client_close(c);
}

/* A backend that has begun to answer waits for the rest of the request: that it does not come is the client's fault. */
static void test_a_client_that_stalls_behind_an_early_answer(void **state)
{
    struct world *w = *state;
    struct client c;

    world_origin(w, waiting_script, NULL, NULL);
    world_origin(w, waiting_script, NULL, NULL);
    world_start(w, "\"timeouts\": {\"client_body\": \"100ms\", \"backend_response\": \"200ms\"},"
                   "\"passive_check\": {\"failures\": 1, \"ejection\": \"60s\"}");
    for (int i = 0; i < 2; i++) {
        client_open(&c, w->port);
        client_sendf(&c, STALLED, "e");
        client_expect_head(&c, 200);
        expect_cut(&c);
        daemon_expect_event(&w->daemon, 0, "request", "status=200 reason=client_body_timeout");
    }
    assert_int_equal(daemon_count_events(&w->daemon, 0, "backend_down", NULL), 0);
    world_finish(w);
}

/* With its own patience for the rest of a request, or none. */
static void impatient_script(struct origin_conn *c)
{
    if (origin_read_head(c) && strstr(c->request.head, "/late "))
        origin_pause(c, 1500);
}

/* A backend that gives up a request that does not go on is well; one that ends in the middle of one that does is not.
 */
static void test_a_stalled_upload_that_the_backend_gives_up(void **state)
{
    struct world *w = *state;
    struct client c;

    world_origin(w, impatient_script, NULL, NULL);
    world_origin(w, impatient_script, NULL, NULL);
    world_start(w, "\"passive_check\": {\"failures\": 1, \"ejection\": \"60s\"}");
    for (int i = 0; i < 2; i++) {
        client_open(&c, w->port);
        client_sendf(&c, STALLED, "late");
        client_expect(&c, 502);
        client_close(&c);
        daemon_expect_event(&w->daemon, 0, "request", "target=/late status=502 reason=backend_reset");
    }
    assert_int_equal(daemon_count_events(&w->daemon, 0, "backend_down", NULL), 0);
    client_open(&c, w->port);
    client_sendf(&c, STALLED, "soon");
    client_expect(&c, 502);
    client_close(&c);
    daemon_expect_event(&w->daemon, 0, "backend_down", NULL);
    world_finish(w);
}

static void babbling_script(struct origin_conn *c)
{
    if (!origin_read_head(c) || !origin_send(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n"))
        return;
    origin_pause(c, 1500);
    origin_send(c, "zz\r\n");
    origin_drain(c);
}

/* Nor is one that answers nonsense: no patience ends that way. */
static void test_nonsense_behind_a_stalled_upload(void **state)
{
    struct world *w = *state;
    struct client c;

    world_origin(w, babbling_script, NULL, NULL);
    world_origin(w, babbling_script, NULL, NULL);
    world_start(w, "\"passive_check\": {\"failures\": 1, \"ejection\": \"60s\"}");
    client_open(&c, w->port);
    client_sendf(&c, STALLED, "e");
    client_expect_head(&c, 200);
    expect_cut(&c);
    daemon_expect_event(&w->daemon, 0, "backend_down", NULL);
    world_finish(w);
}

/* Sends for as long as anything is taken, and gives up when nothing has been for a while. */
static void send_impatiently(struct origin_conn *c)
{
    static const char content[64 << 10];
    int idle = 0;

    if (!origin_read_head(c) || !origin_send(c, "HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n"))
        return;
    for (; idle < 15; idle++) {
        while (send(c->in.fd, content, sizeof content, MSG_DONTWAIT | MSG_NOSIGNAL) > 0)
            idle = 0;
        origin_pause(c, 100);
    }
    origin_set_mode(c->origin, 1);
}

/* One that gives up a response that is not taken is well, too. */
static void test_a_response_that_stalls_and_is_given_up(void **state)
{
    struct world *w = *state;
    struct client c;

    struct origin *o = world_origin(w, send_impatiently, NULL, NULL);
    world_origin(w, send_impatiently, NULL, NULL);
    world_start(w, "\"passive_check\": {\"failures\": 1, \"ejection\": \"60s\"}");
    client_open_narrow(&c, w->port, 4096);
    client_send(&c, GET("/"));
    client_expect_head(&c, 200);
    origin_wait_mode(o, 1);
    expect_cut(&c);
    daemon_expect_event(&w->daemon, 0, "request", "status=200 reason=backend_cut");
    assert_int_equal(daemon_count_events(&w->daemon, 0, "backend_down", NULL), 0);
    world_finish(w);
}

/* Requests whose content waits for a 100 that never comes, six at each of two backends that are otherwise well. */
static void expect_silence_ejects_nobody(struct world *w, bool asks_meanwhile)
{
    struct client waiting[12], c;
    enum { N = sizeof waiting / sizeof *waiting };

    for (unsigned i = 0; i < N; i++) {
        client_open(&waiting[i], w->port);
        client_send(&waiting[i], "POST /e HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n");
    }
    client_open(&c, w->port);
    if (asks_meanwhile) {
        origin_wait_requests(w->origins[0], N / 2);
        origin_wait_requests(w->origins[1], N / 2);
        for (int i = 0; i < 2; i++) {
            client_send(&c, GET("/meanwhile"));
            client_expect(&c, 200);
        }
    }
    for (unsigned i = 0; i < N; i++) {
        client_expect(&waiting[i], 504);
        client_close(&waiting[i]);
    }
    for (int i = 0; i < 4; i++) {
        size_t mark = daemon_mark(&w->daemon);
        client_send(&c, GET("/then"));
        client_expect(&c, 200);
        daemon_expect_event(&w->daemon, mark, "request", "target=/then");
    }
    client_close(&c);
    assert_int_equal(daemon_count_events(&w->daemon, 0, "request", "target=/then backend=b1"), 2);
    assert_int_equal(daemon_count_events(&w->daemon, 0, "backend_down", NULL), 0);
    world_stop(w);
    daemon_expect_event(&w->daemon, 0, "backend_totals", "backend=b1 failures=6");
    daemon_expect_event(&w->daemon, 0, "backend_totals", "backend=b2 failures=6");
}

/* Many servers never say 100 (PHP's, WEBrick), and it is for the client to go on without it. Whoever does not must not
 * have them ejected: they have answered others meanwhile. */
static void test_expect_ejects_nobody_who_answers(void **state)
{
    struct world *w = *state;

    world_origin(w, origin_answer_all, NULL, NULL);
    world_origin(w, origin_answer_all, NULL, NULL);
    world_start(w, "\"timeouts\": {\"backend_response\": \"1s\"}, \"passive_check\": {\"failures\": 2}");
    expect_silence_ejects_nobody(w, true);
    world_finish(w);
}

/* ... or passed a check. */
static void test_expect_ejects_nobody_who_is_checked(void **state)
{
    struct world *w = *state;

    world_origin(w, origin_answer_all, NULL, NULL);
    world_origin(w, origin_answer_all, NULL, NULL);
    world_start(w, "\"timeouts\": {\"backend_response\": \"1s\"}, \"passive_check\": {\"failures\": 2}, "
                   "\"health_check\": {\"interval\": \"50ms\", \"timeout\": \"30s\"}");
    expect_silence_ejects_nobody(w, false);
    world_finish(w);
}

/* A line end too many behind a request does not begin the next one. */
static void test_stray_line_end(void **state)
{
    struct world *w = *state;
    struct client c;

    world_origin(w, origin_answer_all, NULL, NULL);
    world_start(w, "\"timeouts\": {\"client_header\": \"200ms\", \"client_idle\": \"700ms\"}");
    client_open(&c, w->port);
    client_send(&c, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nab\r\n");
    client_expect(&c, 200);
    client_expect_silence(&c, 400);
    client_send(&c, GET("/"));
    client_expect(&c, 200);
    client_send(&c, "\r\n");
    client_expect_end(&c); /* idle, and so without a word */
    client_close(&c);

    client_open(&c, w->port);
    client_send(&c, GET("/") "\r\n");
    client_expect(&c, 200);
    client_half_close(&c);
    client_expect_end(&c);
    client_close(&c);
    world_finish(w);
}

#define LAST_SIZE (60u * 1024u)

static void last_script(struct origin_conn *c)
{
    static char content[LAST_SIZE + 1];

    memset(content, 'x', LAST_SIZE);
    while (origin_read(c)) {
        origin_hold(c);
        origin_answer(c, content);
    }
}

/* A client that takes its time has said that its request is the last, and then sends an empty line all the same, as old
 * ones do behind a POST. To close with that unread would be a reset, which takes back what has been sent. */
static void test_bytes_behind_the_last_request(void **state)
{
    struct world *w = *state;
    struct origin *o = world_origin(w, last_script, NULL, NULL);
    struct client c;

    world_start(w, NULL);
    for (unsigned i = 0; i < 5; i++) {
        size_t mark = daemon_mark(&w->daemon);
        client_open_narrow(&c, w->port, 16 * 1024);
        client_send(&c, "GET /last HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
        origin_wait_requests(o, i + 1);
        client_send(&c, "\r\n");
        origin_release(o);
        daemon_expect_event(&w->daemon, mark, "request", "target=/last status=200");
        assert_int_equal(client_expect(&c, 200)->body.n, LAST_SIZE);
        client_expect_end(&c);
        client_close(&c);
        origin_block(o);
    }
    world_finish(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WORLD_TEST(test_claimed_content),
        WORLD_TEST(test_response_without_reading),
        WORLD_TEST(test_early_answer_survives),
        WORLD_TEST(test_tunnel_to_nobody),
        WORLD_TEST(test_content_behind_the_answer),
        WORLD_TEST(test_the_rest_is_the_clients),
        WORLD_TEST(test_expect_and_silence),
        WORLD_TEST(test_a_client_that_stalls_behind_an_early_answer),
        WORLD_TEST(test_a_stalled_upload_that_the_backend_gives_up),
        WORLD_TEST(test_nonsense_behind_a_stalled_upload),
        WORLD_TEST(test_a_response_that_stalls_and_is_given_up),
        WORLD_TEST(test_expect_ejects_nobody_who_answers),
        WORLD_TEST(test_expect_ejects_nobody_who_is_checked),
        WORLD_TEST(test_stray_line_end),
        WORLD_TEST(test_bytes_behind_the_last_request),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
