/* Requests to switch to another protocol: what is offered, what a 101 must be, and the tunnel that follows it: bytes
 * both ways, back-pressure, half-close, time without traffic, the end of the daemon. */
#include "harness/world.h"

#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#define MIB           (1024u * 1024u)
#define RSS_LIMIT_KIB (16 * 1024)

#define ASK      "GET /t HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: echo/1\r\n\r\n"
#define SWITCHED "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo/1\r\nX: y\r\n\r\n"

/* Hands everything that has come to the caller, who frees it; false at the end of the stream. */
static bool take(struct stream *s, struct bytes *out)
{
    *out = (struct bytes){0};
    if (s->in.n == 0 && stream_fill(s, deadline_in(patience_ms())) != READ_OK)
        return false;
    bytes_add(out, s->in.p, s->in.n);
    bytes_drop(&s->in, s->in.n);
    return true;
}

static void echo(struct origin_conn *c)
{
    struct bytes b;

    while (take(&c->in, &b)) {
        bool ok = origin_send_bytes(c, b.p, b.n);
        bytes_free(&b);
        if (!ok)
            return;
    }
}

/* Switches, says something at once, and echoes. */
static void echo_script(struct origin_conn *c)
{
    if (origin_read(c) && origin_send(c, SWITCHED "early,"))
        echo(c);
}

static void expect_switched(struct client *c)
{
    const struct message *m = client_expect_head(c, 101);

    CHECK(message_has_token(m, "Connection", "upgrade"), "Connection: %s", message_field(m, "Connection"));
    assert_string_equal(message_field(m, "Upgrade"), "echo/1");
    assert_string_equal(message_field(m, "X"), "y");
    assert_null(message_field(m, "Content-Length"));
    assert_null(message_field(m, "Transfer-Encoding"));
}

/* Exactly these bytes come next. */
static void expect_bytes(struct client *c, const char *text)
{
    size_t n = strlen(text);
    uint64_t deadline = deadline_in(patience_ms());

    while (c->in.in.n < n) {
        enum read_result r = stream_fill(&c->in, deadline);
        CHECK(r == READ_OK, "%s, with \"%s\" instead of \"%s\"", read_result_name(r), c->in.in.p, text);
    }
    CHECK(memcmp(c->in.in.p, text, n) == 0, "\"%s\" instead of \"%s\"", c->in.in.p, text);
    bytes_drop(&c->in.in, n);
}

static void test_bytes_go_both_ways(void **state)
{
    struct world *w = *state;
    struct origin *o = world_origin(w, echo_script, NULL, NULL);
    struct client c;

    world_start(w, NULL);
    client_open(&c, w->port);
    client_send(&c, ASK "first,"); /* before the switch, too: they wait for it */
    expect_switched(&c);
    expect_bytes(&c, "early,first,");
    for (int i = 0; i < 1000; i++) {
        char text[32];
        snprintf(text, sizeof text, "GET /%d HTTP/1.1\r\n\r\n", i);
        client_send(&c, text);
        expect_bytes(&c, text);
    }
    client_half_close(&c);
    client_expect_end(&c);
    const cJSON *line = daemon_expect_event(&w->daemon, 0, "request", "status=101 target=/t backend=b1");
    assert_null(log_field(line, "reason"));
    assert_true(log_number(line, "bytes_in") > 1000 * 18);
    assert_true(log_number(line, "bytes_out") > 1000 * 18);
    assert_non_null(strstr(origin_head(o, 0), "\r\nConnection: upgrade\r\nUpgrade: echo/1\r\n"));
    assert_int_equal(origin_requests(o), 1);
    origin_wait_closed(o);
    client_close(&c);
    world_finish(w);
}

static void show_head_script(struct origin_conn *c)
{
    while (origin_read(c) && origin_answer(c, c->request.head))
        ;
}

/* What is no offer is an ordinary request, and the connection serves on. */
static void test_what_is_no_offer(void **state)
{
    static const char *const fields[] = {
        "Connection: upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQ\r\n",
        "Upgrade: echo/1\r\n",
        "Connection: upgrade\r\n",
        "Connection: upgrade\r\nUpgrade: H2C\r\nUpgrade: \"x\"\r\n",
    };
    struct world *w = *state;
    struct client c;

    world_origin(w, show_head_script, NULL, NULL);
    world_start(w, NULL);
    client_open(&c, w->port);
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        client_sendf(&c, "GET / HTTP/1.1\r\nHost: h\r\n%s\r\n", fields[i]);
        const struct message *m = client_expect(&c, 200);
        CHECK(!strstr(m->body.p, "pgrade") && !strstr(m->body.p, "Settings"), "it was sent on: %s", m->body.p);
    }
    client_send(&c, "GET / HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: h2c, echo/1\r\n\r\n");
    const struct message *m = client_expect(&c, 200); /* declined */
    assert_non_null(strstr(m->body.p, "\r\nConnection: upgrade\r\nUpgrade: echo/1\r\n"));
    client_send(&c, "GET / HTTP/1.0\r\nConnection: upgrade, keep-alive\r\nUpgrade: echo/1\r\n\r\n");
    m = client_expect(&c, 200);
    assert_null(strstr(m->body.p, "pgrade"));
    client_close(&c);
    world_finish(w);
}

static void canned_script(struct origin_conn *c)
{
    if (origin_read_head(c))
        origin_send(c, origin_arg(c->origin));
    origin_drain(c);
}

/* A 101 that may not be is a malformed response. */
static void test_a_switch_that_may_not_be(void **state)
{
    static const struct {
        const char *request, *answer;
    } cases[] = {
        {"GET / HTTP/1.1\r\nHost: h\r\n\r\n", SWITCHED},
        {"GET / HTTP/1.0\r\nConnection: upgrade\r\nUpgrade: echo/1\r\n\r\n", SWITCHED},
        {ASK, "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: other\r\n\r\n"},
        {ASK, "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo/1, other\r\n\r\n"},
        {ASK, "HTTP/1.1 101 Switching Protocols\r\n\r\n"},
        {ASK, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo/1\r\n\r\n"},
        {"POST / HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: echo/1\r\nContent-Length: 5\r\n\r\nab",
         SWITCHED},
    };
    struct world *w = *state;

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct client c;
        w->backends[0] = '\0';
        w->origin_count = 0;
        struct origin *o = world_origin(w, canned_script, (void *)(uintptr_t)cases[i].answer, NULL);
        world_start(w, "\"retry\": {\"attempts\": 0}");
        client_open(&c, w->port);
        client_send(&c, cases[i].request);
        client_expect(&c, 502);
        daemon_expect_event(&w->daemon, 0, "request", "status=502 reason=bad_response");
        origin_wait_closed(o);
        client_close(&c);
        world_stop(w);
        origin_stop(o);
        w->origins[0] = NULL;
        w->origin_count = 0;
    }
    world_finish(w);
}

/* Each side may say that it sends no more, and still gets what the other has to say. */
static void half_close_script(struct origin_conn *c)
{
    struct bytes b;

    if (!origin_read(c) || !origin_send(c, SWITCHED))
        return;
    if (origin_mode(c) == 1) {
        origin_send(c, "no more from here");
        shutdown(c->in.fd, SHUT_WR);
        origin_drain(c);
        return;
    }
    while (take(&c->in, &b))
        bytes_free(&b);
    origin_send(c, "heard you out");
}

static void test_half_close(void **state)
{
    struct world *w = *state;
    struct origin *o = world_origin(w, half_close_script, NULL, NULL);
    struct client c;

    world_start(w, NULL);
    client_open(&c, w->port);
    client_send(&c, ASK);
    expect_switched(&c);
    client_send(&c, "that was all");
    client_half_close(&c);
    expect_bytes(&c, "heard you out");
    client_expect_end(&c);
    client_close(&c);

    /* The same, with all of it sent before the switch. */
    client_open(&c, w->port);
    client_send(&c, ASK "that was all");
    client_half_close(&c);
    expect_switched(&c);
    expect_bytes(&c, "heard you out");
    client_expect_end(&c);
    client_close(&c);

    client_open(&c, w->port);
    client_send(&c, ASK);
    client_half_close(&c);
    expect_switched(&c);
    expect_bytes(&c, "heard you out");
    client_expect_end(&c);
    client_close(&c);

    origin_set_mode(o, 1);
    client_open(&c, w->port);
    client_send(&c, ASK);
    expect_switched(&c);
    expect_bytes(&c, "no more from here");
    client_expect_end(&c);
    client_send(&c, "but from here");
    client_half_close(&c);
    origin_wait_closed(o);
    for (unsigned i = 0; i < 2; i++) {
        struct bytes got = origin_received(o, i);
        assert_non_null(strstr(got.p, "\r\n\r\nthat was all"));
        bytes_free(&got);
    }
    struct bytes got = origin_received(o, 3);
    assert_non_null(strstr(got.p, "\r\n\r\nbut from here"));
    bytes_free(&got);
    daemon_expect_event(&w->daemon, 0, "request", "status=101");
    assert_int_equal(daemon_count_events(&w->daemon, 0, "request", "status=101 reason=*"), 0);
    client_close(&c);
    world_finish(w);
}

static void hold_script(struct origin_conn *c)
{
    if (!origin_read(c) || !origin_send(c, SWITCHED))
        return;
    origin_hold(c);
    echo(c);
}

/* What one side does not take is not taken from the other; nothing is lost when it goes on. */
static void test_back_pressure(void **state)
{
    static char piece[64 * 1024], got[sizeof piece];
    struct world *w = *state;
    struct origin *o = world_origin(w, hold_script, NULL, NULL);
    struct client c;
    size_t sent = 0;

    world_start(w, NULL);
    client_open(&c, w->port);
    client_send(&c, ASK);
    expect_switched(&c);
    /* Until the kernel's buffers and ours are full. */
    for (struct pollfd p = {c.in.fd, POLLOUT, 0}; poll(&p, 1, 300) == 1;) {
        CHECK(sent < 64 * MIB, "nothing stops the sender");
        pattern_fill(piece, sizeof piece, sent);
        ssize_t n = send(c.in.fd, piece, sizeof piece, MSG_DONTWAIT | MSG_NOSIGNAL);
        sent += n > 0 ? (size_t)n : 0;
    }
    long peak = proc_kib(w->daemon.pid, "VmHWM");
    CHECK(is_instrumented() || (peak > 0 && peak < RSS_LIMIT_KIB), "the daemon took %ld KiB", peak);
    origin_release(o);
    for (size_t at = 0; at < sent;) {
        size_t want = sent - at < sizeof got ? sent - at : sizeof got;
        while (c.in.in.n < want)
            assert_int_equal(stream_fill(&c.in, deadline_in(patience_ms())), READ_OK);
        pattern_fill(got, want, at);
        assert_memory_equal(c.in.in.p, got, want);
        bytes_drop(&c.in.in, want);
        at += want;
    }
    client_half_close(&c);
    client_expect_end(&c);
    client_close(&c);
    world_finish(w);
}

#define LAST_WORDS 50000u

static void last_words_script(struct origin_conn *c)
{
    static char words[LAST_WORDS];
    struct bytes b;

    if (!origin_read(c) || !origin_send(c, SWITCHED))
        return;
    if (origin_mode(c) == 1) { /* hears out */
        uint64_t at = 0;
        origin_hold(c);
        for (bool same = true; same && take(&c->in, &b); bytes_free(&b))
            for (size_t i = 0; i < b.n && same; i++, at++)
                same = b.p[i] == 'w';
        origin_set_mode(c->origin, at == LAST_WORDS ? 2 : 3);
        return;
    }
    memset(words, 'w', sizeof words);
    origin_send_bytes(c, words, sizeof words);
} /* closes: what the client says now is answered with a reset */

/* Who has said all gets through, though the one who spoke is gone by then and what comes for it meets a reset. */
static void test_last_words(void **state)
{
    static char words[LAST_WORDS];
    struct world *w = *state;
    struct origin *o = world_origin(w, last_words_script, NULL, NULL);
    struct client c;

    memset(words, 'w', sizeof words);
    world_start(w, NULL);
    client_open(&c, w->port);
    client_send(&c, ASK);
    expect_switched(&c);
    origin_wait_closed(o);
    client_send(&c, "x");
    client_send(&c, "y");
    for (size_t at = 0; at < LAST_WORDS;) {
        while (c.in.in.n == 0)
            assert_int_equal(stream_fill(&c.in, deadline_in(patience_ms())), READ_OK);
        at += c.in.in.n;
        bytes_drop(&c.in.in, c.in.in.n);
    }
    client_expect_end(&c);
    client_close(&c);
    daemon_expect_event(&w->daemon, 0, "request", "status=101");
    /* That nobody got "x" and "y" is said, if it shows before the client has gone. */
    assert_int_equal(daemon_count_events(&w->daemon, 0, "request", "reason=*"),
                     daemon_count_events(&w->daemon, 0, "request", "reason=backend_cut"));

    origin_set_mode(o, 1);
    client_open(&c, w->port);
    client_send(&c, ASK);
    expect_switched(&c);
    client_send_bytes(&c, words, sizeof words);
    client_close(&c);
    origin_release(o);
    origin_wait_closed(o);
    struct bytes got = origin_received(o, 1);
    size_t heard = 0;
    for (size_t i = 0; i < got.n; i++)
        heard += got.p[i] == 'w';
    CHECK(heard >= LAST_WORDS, "the backend has heard %zu of them", heard);
    bytes_free(&got);
    world_finish(w);
}

static void ticking_script(struct origin_conn *c)
{
    if (!origin_read(c) || !origin_send(c, SWITCHED))
        return;
    for (int i = 0; i < 20 && origin_send(c, "."); i++)
        origin_pause(c, 50);
    origin_drain(c);
}

/* Traffic in one direction keeps a tunnel; without any it ends. */
static void test_time_without_traffic(void **state)
{
    struct world *w = *state;
    struct client c;

    world_origin(w, ticking_script, NULL, NULL);
    world_start(w, "\"timeouts\": {\"tunnel\": \"400ms\"}");
    client_open(&c, w->port);
    client_send(&c, ASK);
    expect_switched(&c);
    for (int i = 0; i < 20; i++)
        expect_bytes(&c, ".");
    uint64_t since = now_ms();
    client_expect_end_or_reset(&c);
    CHECK(is_instrumented() || now_ms() - since < 2000, "it took %d ms", (int)(now_ms() - since));
    daemon_expect_event(&w->daemon, 0, "request", "status=101 reason=tunnel_timeout");
    client_close(&c);
    world_finish(w);
}

static void reset_script(struct origin_conn *c)
{
    if (!origin_read(c) || !origin_send(c, SWITCHED "x"))
        return;
    origin_hold(c);
    origin_reset(c);
}

/* What breaks on one side breaks on the other, and says nothing against the backend. */
static void test_a_broken_tunnel(void **state)
{
    struct world *w = *state;
    struct origin *o = world_origin(w, reset_script, NULL, NULL);
    struct client c;

    world_start(w, "\"passive_check\": {\"failures\": 1}");
    client_open(&c, w->port);
    client_send(&c, ASK);
    expect_switched(&c);
    expect_bytes(&c, "x");
    origin_release(o);
    client_expect_end_or_reset(&c);
    client_close(&c);
    daemon_expect_event(&w->daemon, 0, "request", "status=101 reason=backend_cut cause=*");
    assert_int_equal(daemon_count_events(&w->daemon, 0, "backend_down", NULL), 0);

    origin_block(o);
    client_open(&c, w->port);
    client_send(&c, ASK);
    expect_switched(&c);
    expect_bytes(&c, "x");
    client_reset(&c);
    daemon_expect_event(&w->daemon, 0, "request", "status=101 reason=client_gone");
    origin_release(o);
    origin_wait_closed(o);
    world_finish(w);
}

/* Switches; what does not ask for that is reset. */
static void only_echo_script(struct origin_conn *c)
{
    if (!origin_read(c))
        return;
    if (strcmp(c->request.target, "/t") != 0)
        origin_reset(c);
    else if (origin_send(c, SWITCHED))
        echo(c);
}

/* A 101 is a success: the failures before it are no longer in a row with those behind it. */
static void test_a_switch_is_a_success(void **state)
{
    struct world *w = *state;
    struct client c;

    world_origin(w, only_echo_script, NULL, NULL);
    world_origin(w, origin_answer_all, NULL, "\"backup\": true");
    world_start(w, "\"passive_check\": {\"failures\": 2}, \"retry\": {\"attempts\": 0}");
    assert_int_equal(http_get(w->port, "/", NULL), 502);
    client_open(&c, w->port);
    client_send(&c, ASK);
    expect_switched(&c);
    assert_int_equal(http_get(w->port, "/", NULL), 502);
    client_close(&c);
    world_stop(w);
    assert_int_equal(daemon_count_events(&w->daemon, 0, "backend_down", NULL), 0);
    daemon_expect_event(&w->daemon, 0, "backend_totals", "backend=b1 attempts=3 failures=2");
    world_finish(w);
}

/* A tunnel lives on in a drain, to its own end or to the deadline. */
static void test_drain(void **state)
{
    struct world *w = *state;
    struct client c;

    world_origin(w, echo_script, NULL, NULL);
    world_start(w, NULL);
    client_open(&c, w->port);
    client_send(&c, ASK);
    expect_switched(&c);
    expect_bytes(&c, "early,");
    daemon_signal(&w->daemon, SIGTERM);
    daemon_expect_event(&w->daemon, 0, "drain", "exchanges=1");
    client_send(&c, "still here");
    expect_bytes(&c, "still here");
    client_half_close(&c);
    client_expect_end(&c);
    assert_int_equal(daemon_wait(&w->daemon), 0);
    client_close(&c);

    world_start(w, "\"timeouts\": {\"shutdown\": \"300ms\"}");
    client_open(&c, w->port);
    client_send(&c, ASK);
    expect_switched(&c);
    expect_bytes(&c, "early,");
    daemon_signal(&w->daemon, SIGTERM);
    assert_int_equal(daemon_wait(&w->daemon), 3);
    client_expect_end_or_reset(&c);
    daemon_expect_event(&w->daemon, 0, "stop", "cut=1");
    client_close(&c);
    world_finish(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WORLD_TEST(test_bytes_go_both_ways),
        WORLD_TEST(test_what_is_no_offer),
        WORLD_TEST(test_a_switch_that_may_not_be),
        WORLD_TEST(test_half_close),
        WORLD_TEST(test_back_pressure),
        WORLD_TEST(test_time_without_traffic),
        WORLD_TEST(test_a_broken_tunnel),
        WORLD_TEST(test_a_switch_is_a_success),
        WORLD_TEST(test_drain),
        WORLD_TEST(test_last_words),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
