/* One HTTP/1.1 exchange with a scripted backend over a unix socket: what the lessee is told, whether the connection is
 * used again, and that neither depends on how the bytes are cut. */
#include "base/clock.h"
#include "base/log.h"
#include "http/chunked.h"
#include "net/sock.h"
#include "upstream/back_h1.h"
#include "upstream/backend.h"
#include "upstream/resolve.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

struct world {
    struct loop *loop;
    struct config *config;
    struct upstream *upstream;
    struct backend *backend;
    char path[64], endpoint[80];
    struct addr addr;
    int listen_fd, fd; /* the backend's side */

    struct back_conn *conn;
    bool ready, ended, failed;
    unsigned status, interim, heads, pieces;
    struct buf body, trailers;
    bool switched;
    struct back_failure failure;
};

static void on_ready(void *arg)
{
    ((struct world *)arg)->ready = true;
}

static void on_interim(void *arg, const struct response *r)
{
    assert_in_range(r->status, 100, 199);
    ((struct world *)arg)->interim++;
}

static void on_head(void *arg, const struct response *r, struct str head, bool more)
{
    (void)more;
    struct world *w = arg;
    assert_true(head.n > 0);
    w->status = r->status;
    w->heads++;
}

static void on_body(void *arg, char *p, size_t n, bool end, struct str trailers)
{

    struct world *w = arg;
    assert_false(w->ended);
    w->pieces++;
    assert_int_equal(w->heads + w->switched, 1);
    assert_true(trailers.n == 0 || end);
    assert_true(buf_append_str(&w->trailers, trailers));
    if (n > 0)
        assert_true(buf_append(&w->body, p, n));
    w->ended = end;
    if (end && !w->switched)
        w->conn = NULL;
}

static void on_switch(void *arg, const struct response *r)
{
    struct world *w = arg;
    assert_int_equal(r->status, 101);
    assert_false(w->switched);
    w->switched = true;
}

static void on_drained(void *arg)
{
    (void)arg;
}

static void on_fail(void *arg, const struct back_failure *f)
{
    struct world *w = arg;
    assert_false(w->failed || w->ended);
    w->failed = true;
    w->failure = *f;
    w->conn = NULL;
}

static const struct back_events events = {.on_ready = on_ready,
                                          .on_interim = on_interim,
                                          .on_head = on_head,
                                          .on_switch = on_switch,
                                          .on_body = on_body,
                                          .on_drained = on_drained,
                                          .on_fail = on_fail};

static void turn_until(struct world *w, const bool *flag)
{
    uint64_t end = clock_monotonic() + 5 * NS_PER_S;
    while (!*flag && !w->failed) {
        assert_true(clock_monotonic() < end);
        loop_turn(w->loop, 20 * NS_PER_MS);
    }
}

static int setup(void **state)
{
    struct world *w = calloc(1, sizeof *w);
    assert_non_null(w);
    snprintf(w->path, sizeof w->path, "/tmp/test_back_h1.%d", (int)getpid());
    snprintf(w->endpoint, sizeof w->endpoint, "unix:%s", w->path);
    char text[512];
    int n = snprintf(text, sizeof text,
                     "{\"backends\":[{\"address\":\"%s\"}],\"health_check\":null,"
                     "\"timeouts\":{\"backend_response\":\"600ms\",\"client_body\":\"300ms\"},\"limits\":{\"header_"
                     "bytes\":\"1KiB\",\"target_"
                     "bytes\":\"1KiB\"}}",
                     w->endpoint);
    struct buf errors = BUF_INIT;
    w->config = config_parse(str_make(text, (size_t)n), "test", NULL, &errors);
    assert_non_null(w->config);
    buf_fini(&errors);
    w->loop = loop_new();
    w->upstream = upstream_new(w->loop, w->config);
    assert_non_null(w->upstream);
    w->backend = upstream_backend(w->upstream, 0);
    w->addr = w->config->backends[0].endpoint.addr;
    w->listen_fd = sock_listen(&w->addr, 8);
    assert_true(w->listen_fd >= 0);
    w->fd = -1;
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;
    back_release(w->conn);
    if (w->fd >= 0)
        sock_close(w->fd);
    sock_close(w->listen_fd);
    sock_unlink(&w->addr);
    upstream_free(w->upstream);
    loop_free(w->loop);
    config_put(w->config);
    buf_fini(&w->body);
    buf_fini(&w->trailers);
    free(w);
    return 0;
}

static void forget(struct world *w)
{
    w->ready = w->ended = w->failed = false;
    w->status = w->interim = w->heads = 0;
    w->switched = false;
    buf_fini(&w->trailers);
    buf_fini(&w->body);
}

/* Opens a fresh connection and accepts it on the backend's side. */
static void open_connection(struct world *w)
{
    forget(w);
    w->conn = back_open(w->backend, NS_PER_S, &events, w);
    assert_non_null(w->conn);
    turn_until(w, &w->ready);
    struct addr from;
    w->fd = sock_accept(w->listen_fd, &from);
    assert_true(w->fd >= 0);
}

static void send_get(struct world *w, enum method m)
{
    struct back_request r = {.head = STR("GET / HTTP/1.1\r\nHost: a\r\n\r\n"), .method = m};
    back_send_head(w->conn, &r, false);
    loop_turn(w->loop, 0); /* short messages leave in its passes */
}

/* Answers with `p`, in pieces of `piece` bytes, each seen by the loop before the next. */
static void answer(struct world *w, const char *p, size_t piece)
{
    size_t n = strlen(p);
    for (size_t at = 0; at < n && !w->failed && !w->ended; at += piece) {
        size_t len = n - at < piece ? n - at : piece;
        assert_int_equal(write(w->fd, p + at, len), (ssize_t)len);
        loop_turn(w->loop, 20 * NS_PER_MS);
    }
}

/* Ends the connection in order: with the request unread, it would be a reset. */
static void finish(struct world *w)
{
    char request[4096];
    assert_true(sock_recv(w->fd, request, sizeof request) > 0);
    sock_close(w->fd);
    w->fd = -1;
    turn_until(w, &w->ended);
}

struct answer_case {
    const char *text; /* what the backend sends before it closes or waits */
    const char *body; /* what must arrive; NULL: the exchange fails */
    enum method method;
    bool pooled;    /* the connection must be kept */
    bool close;     /* the backend closes behind it */
    enum err error; /* of a failure */
    unsigned status, interim;
};

static const struct answer_case cases[] = {
    {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "hello", METHOD_GET, true, false, ERR_OK, 200, 0},
    {"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "", METHOD_GET, true, false, ERR_OK, 200, 0},
    {"HTTP/1.1 204 No Content\r\n\r\n", "", METHOD_GET, true, false, ERR_OK, 204, 0},
    {"HTTP/1.1 304 Not Modified\r\nContent-Length: 100\r\n\r\n", "", METHOD_GET, true, false, ERR_OK, 304, 0},
    {"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n", "", METHOD_HEAD, true, false, ERR_OK, 200, 0},
    {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n1;x=y\r\n!\r\n0\r\nA: b\r\n\r\n", "hello!",
     METHOD_GET, true, false, ERR_OK, 200, 0},
    {"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi", "hi", METHOD_GET, false, false, ERR_OK, 200,
     0},
    {"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi", "hi", METHOD_GET, false, false, ERR_OK, 200, 0},
    {"HTTP/1.1 200 OK\r\n\r\nuntil the end", "until the end", METHOD_GET, false, true, ERR_OK, 200, 0},
    {"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: "
     "2\r\n\r\nhi",
     "hi", METHOD_GET, true, false, ERR_OK, 200, 2},
    /* cut off */
    {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel", NULL, METHOD_GET, false, true, ERR_BACKEND_CUT, 200, 0},
    {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", NULL, METHOD_GET, false, true,
     ERR_BACKEND_CUT, 200, 0},
    {"HTTP/1.1 200 OK\r\nContent-Le", NULL, METHOD_GET, false, true, ERR_BACKEND_RESET, 0, 0},
    {"", NULL, METHOD_GET, false, true, ERR_BACKEND_RESET, 0, 0},
    /* malformed */
    {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloX\r\n", NULL, METHOD_GET, false, true,
     ERR_BACKEND_CUT, 200, 0},
    {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello", NULL, METHOD_GET, false, false,
     ERR_BAD_RESPONSE, 0, 0},
    {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", NULL, METHOD_GET, false,
     false, ERR_BAD_RESPONSE, 0, 0},
    {"HTTP/1.1 2000 OK\r\n\r\n", NULL, METHOD_GET, false, false, ERR_BAD_RESPONSE, 0, 0},
    {"HTTP/1.1 200 OK\nContent-Length: 0\r\n\r\n", NULL, METHOD_GET, false, false, ERR_BAD_RESPONSE, 0, 0},
    {"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", NULL, METHOD_GET, false, false, ERR_BAD_RESPONSE, 0, 0},
    {"SSH-2.0-OpenSSH\r\n\r\n", NULL, METHOD_GET, false, false, ERR_BAD_RESPONSE, 0, 0},
};

static void run_case(struct world *w, const struct answer_case *c, size_t piece)
{
    open_connection(w);
    send_get(w, c->method);
    answer(w, c->text, piece);
    if (c->close)
        finish(w);
    else
        turn_until(w, &w->ended);
    assert_int_equal(w->failed, c->body == NULL);
    assert_int_equal(w->status, c->status);
    assert_int_equal(w->interim, c->interim);
    if (c->body)
        assert_true(str_eq(buf_str(&w->body), str_of(c->body)));
    else
        assert_int_equal(w->failure.error, c->error);
    assert_int_equal(w->backend->idle_count, c->pooled);
    pool_flush(w->backend);
    loop_turn(w->loop, 0);
    assert_int_equal(w->backend->open_count, 0);
    if (w->fd >= 0)
        sock_close(w->fd);
    w->fd = -1;
}

static void every_answer_however_it_is_cut(void **state)
{
    static const size_t pieces[] = {1, 2, 7, 100000};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (size_t k = 0; k < sizeof pieces / sizeof *pieces; k++)
            run_case(*state, &cases[i], pieces[k]);
}

/* Who has the end with the content can send both on in one piece. */
static void an_end_that_is_there_is_told_with_the_content(void **state)
{
    struct world *w = *state;
    const char text[] = "HTTP/1.1 200 OK\r\n\r\nto the end";
    char request[4096];
    open_connection(w);
    send_get(w, METHOD_GET);
    assert_true(sock_recv(w->fd, request, sizeof request) > 0);
    assert_int_equal(write(w->fd, text, sizeof text - 1), (ssize_t)sizeof text - 1);
    sock_close(w->fd);
    w->fd = -1;
    turn_until(w, &w->ended);
    assert_true(str_eq(buf_str(&w->body), STR("to the end")));
    assert_int_equal(w->pieces, 1);
    loop_turn(w->loop, 0);
    assert_int_equal(w->backend->open_count, 0);
}

/* A reset behind the content is no end. */
static void a_reset_that_is_there_cuts_the_content_off(void **state)
{
    struct world *w = *state;
    const char text[] = "HTTP/1.1 200 OK\r\n\r\nto the end";
    open_connection(w);
    send_get(w, METHOD_GET);
    assert_int_equal(write(w->fd, text, sizeof text - 1), (ssize_t)sizeof text - 1);
    sock_close(w->fd); /* with the request unread */
    w->fd = -1;
    turn_until(w, &w->failed);
    assert_false(w->ended);
    assert_int_equal(w->pieces, 1);
    assert_int_equal(w->failure.error, ERR_BACKEND_CUT);
}

static void a_clean_connection_serves_again(void **state)
{
    struct world *w = *state;
    open_connection(w);
    for (int i = 0; i < 5; i++) {
        send_get(w, METHOD_GET);
        answer(w, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", 1000);
        turn_until(w, &w->ended);
        assert_false(w->failed);
        forget(w);
        w->conn = pool_get(w->backend, i % 2, &events, w);
        assert_non_null(w->conn);
    }
    assert_int_equal(w->backend->open_count, 1);
}

/* Takes the log: it has one line with that, or with NULL none. */
static void assert_logged(const char *expected)
{
    struct buf lines = BUF_INIT;
    log_take(&lines);
    assert_true(buf_append(&lines, "", 1));
    const char *text = buf_bytes(&lines), *first_end = strchr(text, '\n');
    if (expected ? !first_end || first_end[1] || !strstr(text, expected) : first_end != NULL)
        fail_msg("the log is \"%s\" instead of \"%s\"", text, expected ? expected : "");
    buf_fini(&lines);
}

static void bytes_behind_the_end_close_it(void **state)
{
    struct world *w = *state;
    open_connection(w);
    send_get(w, METHOD_GET);
    answer(w, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhiHTTP/1.1 200 OK\r\n", 1000);
    turn_until(w, &w->ended);
    assert_false(w->failed);
    assert_true(str_eq(buf_str(&w->body), STR("hi")));
    assert_int_equal(w->backend->idle_count, 0);
    assert_int_equal(w->backend->open_count, 0);
    assert_logged("warn  backend_stray_bytes");
}

static void an_idle_connection_that_stirs_is_closed(void **state)
{
    struct world *w = *state;
    static const char *const stray[] = {"x", "HTTP/1.0 408 Request Time-out\r\nConnection: close\r\n\r\n", NULL};
    for (int i = 0; i < 3; i++) {
        open_connection(w);
        send_get(w, METHOD_GET);
        answer(w, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", 1000);
        turn_until(w, &w->ended);
        assert_int_equal(w->backend->idle_count, 1);
        if (stray[i])
            assert_int_equal(write(w->fd, stray[i], strlen(stray[i])), strlen(stray[i]));
        else
            finish(w);
        loop_turn(w->loop, 100 * NS_PER_MS);
        assert_int_equal(w->backend->idle_count, 0);
        assert_null(pool_get(w->backend, false, &events, w));
        assert_logged(i == 0 ? "warn  backend_stray_bytes" : NULL); /* the others are what an end may be like */
        if (w->fd >= 0)
            sock_close(w->fd);
    }
    w->fd = -1;
}

/* With `sure`, a connection that has ended is found out even before the loop has seen it. */
static void a_look_finds_a_dead_connection(void **state)
{
    struct world *w = *state;
    open_connection(w);
    send_get(w, METHOD_GET);
    answer(w, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", 1000);
    turn_until(w, &w->ended);
    assert_int_equal(w->backend->idle_count, 1);
    sock_close(w->fd);
    w->fd = -1;
    assert_null(pool_get(w->backend, true, &events, w));
}

/* Without, one that has been idle for over a second is looked at all the same: what lies there is no answer to what is
 * to be sent. */
static void what_was_idle_for_long_is_looked_at(void **state)
{
    struct world *w = *state;
    open_connection(w);
    send_get(w, METHOD_GET);
    answer(w, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", 1000);
    turn_until(w, &w->ended);
    assert_int_equal(w->backend->idle_count, 1);
    for (uint64_t end = loop_now(w->loop) + 1010 * NS_PER_MS; loop_now(w->loop) < end;)
        loop_turn(w->loop, 20 * NS_PER_MS);
    assert_int_equal(write(w->fd, "HTTP/1.1 408 Request Timeout\r\n\r\n", 32), 32);
    assert_null(pool_get(w->backend, false, &events, w));
    assert_int_equal(w->backend->open_count, 0);
}

static void silence_is_a_timeout(void **state)
{
    struct world *w = *state;
    open_connection(w);
    send_get(w, METHOD_GET);
    turn_until(w, &w->ended);
    assert_true(w->failed);
    assert_int_equal(w->failure.error, ERR_RESPONSE_TIMEOUT);
    assert_true(w->failure.sent);
    assert_false(w->failure.answered);
}

static void a_stalled_body_is_a_timeout(void **state)
{
    struct world *w = *state;
    open_connection(w);
    send_get(w, METHOD_GET);
    answer(w, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel", 1000);
    turn_until(w, &w->ended);
    assert_int_equal(w->failure.error, ERR_BACKEND_STALLED);
}

static void turn_for(struct world *w, uint64_t ns)
{
    for (uint64_t end = clock_monotonic() + ns; clock_monotonic() < end && !w->failed;)
        loop_turn(w->loop, 10 * NS_PER_MS);
}

static void begin_post(struct world *w, uint64_t length)
{
    open_connection(w);
    struct back_request r = {.head = STR("POST / HTTP/1.1\r\n\r\n"), /* whatever it says */
                             .method = METHOD_POST,
                             .framing = {FRAMING_LENGTH, length}};
    back_send_head(w->conn, &r, false);
}

/* The response has begun, and its content follows once the request is whole, which comes slowly but steadily. */
static void a_response_waits_for_a_request_that_goes_on(void **state)
{
    struct world *w = *state;
    begin_post(w, 300);
    answer(w, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", 1000);
    for (unsigned i = 1; i <= 30; i++) {
        turn_for(w, 50 * NS_PER_MS);
        assert_false(w->failed);
        (void)!back_send_body(w->conn, "0123456789", 10, i == 30, STR(""));
    }
    answer(w, "ok", 2);
    turn_until(w, &w->ended);
    assert_true(w->ended);
}

static void a_response_does_not_wait_for_a_request_that_rests(void **state)
{
    struct world *w = *state;
    begin_post(w, 80);
    answer(w, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", 1000);
    turn_until(w, &w->ended);
    assert_int_equal(w->failure.error, ERR_BODY_TIMEOUT); /* it may be that the backend waits for it, too */
}

/* All of it has been handed over, and the backend takes it slowly: that is no silence of its own. */
static void the_response_is_awaited_from_the_requests_end(void **state)
{
    static const char content[4 << 20];
    struct world *w = *state;
    for (int answered = 0; answered < 2; answered++) {
        static char taken[64 << 10];
        size_t got = 0, wanted = sizeof content + strlen("POST / HTTP/1.1\r\n\r\n");
        begin_post(w, sizeof content);
        if (answered)
            answer(w, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", 1000);
        assert_true(back_send_body(w->conn, content, sizeof content, true, STR("")));
        for (unsigned pause = 0; got < wanted; pause++) {
            ssize_t n = sock_recv(w->fd, taken, sizeof taken);
            got += n > 0 ? (size_t)n : 0;
            turn_for(w, pause < 20 ? 50 * NS_PER_MS : 0);
            loop_turn(w->loop, 0);
            assert_false(w->failed);
        }
        answer(w, answered ? "ok" : "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 1000);
        turn_until(w, &w->ended);
        assert_true(w->ended);
        sock_close(w->fd);
        w->fd = -1;
        loop_turn(w->loop, 20 * NS_PER_MS);
    }
}

static void refused_before_anything_is_sent(void **state)
{
    struct world *w = *state;
    sock_close(w->listen_fd);
    sock_unlink(&w->addr);
    errno = 0;
    w->conn = back_open(w->backend, NS_PER_S, &events, w);
    if (w->conn) { /* told later, as over TCP */
        turn_until(w, &w->ended);
        assert_int_equal(w->failure.error, ERR_CONNECT_FAILED);
        assert_false(w->failure.sent);
    } else {
        assert_int_not_equal(errno, 0);
    }
    w->listen_fd = sock_listen(&w->addr, 8);
}

/* The backend receives exactly that next. */
static void expect_sent(struct world *w, const char *text)
{
    char got[200];
    size_t n = 0, wanted = strlen(text);
    uint64_t end = clock_monotonic() + 5 * NS_PER_S;
    while (n < wanted) {
        assert_true(clock_monotonic() < end);
        loop_turn(w->loop, 0);
        ssize_t more = sock_recv(w->fd, got + n, wanted - n);
        if (more > 0)
            n += (size_t)more;
        else
            assert_int_equal(more, -EAGAIN);
    }
    assert_memory_equal(got, text, wanted);
}

static void chunks_are_framed_here(void **state)
{
    struct world *w = *state;
    open_connection(w);
    struct back_request r = {
        .head = STR("POST / HTTP/1.1\r\n\r\n"), .method = METHOD_POST, .framing = {FRAMING_CHUNKED, 0}};
    back_send_head(w->conn, &r, true);
    back_send_body(w->conn, "hello", 5, false, STR(""));
    back_send_body(w->conn, "", 0, false, STR(""));
    back_send_body(w->conn, "0123456789abcdef", 16, true, STR("A: b\r\n"));
    expect_sent(w, "POST / HTTP/1.1\r\n\r\n5\r\nhello\r\n10\r\n0123456789abcdef\r\n0\r\nA: b\r\n\r\n");
}

/* Asks, and says whether trailers go on. */
static void ask_for_trailers(struct world *w, bool takes)
{
    open_connection(w);
    struct back_request r = {.head = STR("GET / HTTP/1.1\r\nHost: a\r\n\r\n"), .method = METHOD_GET};
    r.takes_trailers = takes;
    back_send_head(w->conn, &r, false);
    expect_sent(w, r.head.p);
}

static void end_exchange(struct world *w)
{
    pool_flush(w->backend);
    sock_close(w->fd);
    w->fd = -1;
    forget(w);
}

static void trailers_are_told_with_the_end(void **state)
{
    struct world *w = *state;
    static const char text[] =
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nA: b\r\nC:d\r\n\r\n";
    for (size_t piece = 1; piece < sizeof text; piece += 9) {
        bool takes = piece % 2;
        ask_for_trailers(w, takes);
        answer(w, text, piece);
        turn_until(w, &w->ended);
        assert_true(str_eq(buf_str(&w->body), STR("ok")));
        assert_true(str_eq(buf_str(&w->trailers), takes ? STR("A: b\r\nC:d\r\n") : STR("")));
        assert_int_equal(w->backend->idle_count, 1);
        end_exchange(w);
    }
}

/* Trailers that are too many are missed by who is to get them, and by nobody else. */
static void too_many_trailers_cut_who_takes_them(void **state)
{
    struct world *w = *state;
    static char text[CHUNKED_TRAILER_MAX + 100];
    size_t n =
        (size_t)snprintf(text, sizeof text, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nA:");
    memset(text + n, 'b', CHUNKED_TRAILER_MAX);

    ask_for_trailers(w, false);
    answer(w, text, sizeof text);
    turn_until(w, &w->ended);
    assert_true(str_eq(buf_str(&w->body), STR("ok")));
    assert_true(str_eq(buf_str(&w->trailers), STR("")));
    assert_int_equal(w->backend->idle_count, 0);
    end_exchange(w);

    ask_for_trailers(w, true);
    answer(w, text, sizeof text);
    turn_until(w, &w->failed);
    assert_int_equal(w->failure.error, ERR_BACKEND_CUT);
    end_exchange(w);
}

/* Asks to switch to another protocol, and is answered. */
static void ask_to_switch(struct world *w, const char *text)
{
    struct back_request r = {.head = STR("GET / HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n"),
                             .method = METHOD_GET,
                             .upgrade = true};
    back_send_head(w->conn, &r, false);
    loop_turn(w->loop, 0);
    char got[200];
    assert_true(sock_recv(w->fd, got, sizeof got) > 0);
    answer(w, text, 1000);
}

#define SWITCHED "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n"

static void a_switch_makes_a_tunnel(void **state)
{
    struct world *w = *state;
    open_connection(w);
    ask_to_switch(w, SWITCHED "early");
    turn_until(w, &w->switched);
    assert_true(str_eq(buf_str(&w->body), STR("early")));
    assert_int_equal(w->heads, 0);
    back_send_body(w->conn, "raw", 3, false, STR(""));
    back_send_body(w->conn, " bytes", 6, true, STR(""));
    expect_sent(w, "raw bytes");
    char c;
    assert_int_equal(sock_recv(w->fd, &c, 1), 0); /* the direction has been shut */
    answer(w, "late", 1000);
    assert_false(w->ended);
    sock_close(w->fd);
    w->fd = -1;
    turn_until(w, &w->ended);
    assert_true(str_eq(buf_str(&w->body), STR("earlylate")));
    assert_non_null(w->conn); /* it stays the lessee's */
    assert_int_equal(w->backend->open_count, 1);
    back_release(w->conn);
    w->conn = NULL;
    assert_int_equal(w->backend->open_count, 0);
    assert_int_equal(w->backend->idle_count, 0);
}

static void an_offer_may_be_declined(void **state)
{
    struct world *w = *state;
    open_connection(w);
    ask_to_switch(w, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno");
    turn_until(w, &w->ended);
    assert_int_equal(w->status, 200);
    assert_false(w->switched);
    assert_int_equal(w->backend->idle_count, 1);
}

static void no_switch_before_the_request_is_whole(void **state)
{
    struct world *w = *state;
    open_connection(w);
    struct back_request r = {.head = STR("POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\n"),
                             .method = METHOD_POST,
                             .framing = {FRAMING_LENGTH, 9},
                             .upgrade = true};
    back_send_head(w->conn, &r, false);
    answer(w, SWITCHED, 1000);
    turn_until(w, &w->failed);
    assert_int_equal(w->failure.error, ERR_BAD_RESPONSE);
}

/* An answer before the request is whole is passed on, and that connection is not used again. */
static void an_early_answer_ends_the_connection(void **state)
{
    struct world *w = *state;
    open_connection(w);
    struct back_request r = {.head = STR("POST / HTTP/1.1\r\nContent-Length: 100\r\n\r\n"),
                             .method = METHOD_POST,
                             .framing = {FRAMING_LENGTH, 100}};
    back_send_head(w->conn, &r, false);
    answer(w, "HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\n\r\nno", 1000);
    turn_until(w, &w->ended);
    assert_int_equal(w->status, 413);
    assert_int_equal(w->backend->idle_count, 0);
    assert_int_equal(w->backend->open_count, 0);
}

/* What says nothing about the backend; and one errno that may, and may not. */
static void whose_error_it_is(void **state)
{
    struct world *w = *state;
    struct backend *be = w->backend;
    assert_true(back_error_is_ours(be, EMFILE) && back_error_is_ours(be, ENFILE));
    assert_true(back_error_is_ours(be, ENOBUFS) && back_error_is_ours(be, ENOMEM));
    assert_false(back_error_is_ours(be, 0) || back_error_is_ours(be, ECONNREFUSED) || back_error_is_ours(be, EAGAIN));
    /* With no connection there, ports cannot have run out. */
    assert_false(back_error_is_ours(be, EADDRNOTAVAIL));
    open_connection(w);
    assert_true(back_error_is_ours(be, EADDRNOTAVAIL));
    be->stood_at -= 61 * NS_PER_S;
    assert_true(back_error_is_ours(be, EADDRNOTAVAIL)); /* it stands */
    back_release(w->conn);
    w->conn = NULL;
    assert_true(back_error_is_ours(be, EADDRNOTAVAIL)); /* its port is held */
    be->stood_at -= 61 * NS_PER_S;
    assert_false(back_error_is_ours(be, EADDRNOTAVAIL));
}

/* A full backlog, of a unix socket: the backend's, but no failing of it. */
static void a_backlog_that_is_full(void **state)
{
    struct world *w = *state;
    struct config_backend elsewhere = {.endpoint = {.kind = ENDPOINT_IP}};
    assert_true(back_error_is_passing(w->backend, EAGAIN));
    assert_false(back_error_is_passing(w->backend, 0) || back_error_is_passing(w->backend, ECONNREFUSED));
    const struct config_backend *config = w->backend->config;
    w->backend->config = &elsewhere;
    assert_false(back_error_is_passing(w->backend, EAGAIN));
    w->backend->config = config;
}

static void exchange(struct world *w)
{
    send_get(w, METHOD_GET);
    answer(w, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", 1000);
    turn_until(w, &w->ended);
    assert_false(w->failed);
}

/* A name's addresses. What leads to one that has gone is not used again: idle it is closed at once, else when its
 * response has ended. */
static void a_name_moves(void **state)
{
    struct world *w = *state;
    struct backend *be = w->backend;
    struct addr at[3] = {w->addr};
    struct ip ip;
    assert_true(ip_parse(STR("192.0.2.1"), &ip));
    at[1] = addr_of_ip(&ip, 81);
    assert_true(ip_parse(STR("2001:db8::2"), &ip));
    at[2] = addr_of_ip(&ip, 82);
    assert_logged(NULL);
    be->addr_count = 0; /* as of one that has not been resolved yet */
    backend_take_addresses(be, at, 1);
    assert_logged(NULL); /* that it has some now, backend_up says */
    open_connection(w);
    exchange(w);
    assert_int_equal(be->idle_count, 1);
    struct addr turned[] = {at[1], at[0]};
    backend_take_addresses(be, turned, 2);
    assert_logged(",192.0.2.1:81\n");
    turned[0] = at[0], turned[1] = at[1];
    backend_take_addresses(be, turned, 2); /* another order */
    assert_logged(NULL);
    assert_int_equal(be->idle_count, 1);
    w->conn = pool_get(be, true, &events, w);
    assert_non_null(w->conn);
    forget(w);
    exchange(w);

    assert_int_equal(be->idle_count, 1);
    backend_take_addresses(be, at + 1, 2);
    assert_logged("backend_address backend=");
    assert_int_equal(be->idle_count, 0);
    assert_int_equal(be->open_count, 0);
    sock_close(w->fd);

    backend_take_addresses(be, at, 1);
    assert_logged("addresses=unix:");
    open_connection(w);
    backend_take_addresses(be, at + 1, 1); /* ... under the request */
    assert_logged("addresses=192.0.2.1:81\n");
    exchange(w);
    assert_int_equal(be->idle_count, 0);
    assert_int_equal(be->open_count, 0);
}

/* The `n`-th place of this computer where nobody listens. */
static struct addr nowhere(unsigned n)
{
    struct ip ip;
    char text[32];
    int len = snprintf(text, sizeof text, "127.0.0.%u", n + 1);
    assert_true(ip_parse(str_make(text, (size_t)len), &ip));
    return addr_of_ip(&ip, 1);
}

/* How long idle connections are kept is known of the address in use, and not of the one that comes in its place. */
static void the_keep_time_is_an_address_s(void **state)
{
    struct world *w = *state;
    struct backend *be = w->backend;
    struct addr at[] = {w->addr, nowhere(1), nowhere(2)};
    struct pool_known known = {.bound = 5 * NS_PER_S};
    be->addr_count = 0;
    backend_take_addresses(be, at, 2);
    pool_take(be, &known);
    at[1] = at[2];
    backend_take_addresses(be, at, 2); /* one that is not in use goes */
    assert_true(pool_tell(be, &known));
    assert_int_equal(known.bound, 5 * NS_PER_S);
    backend_take_addresses(be, at + 1, 1);
    assert_false(pool_tell(be, &known));
    log_take(&w->body);
}

static void assert_failed(struct world *w, bool moved)
{
    turn_until(w, &w->failed);
    assert_true(w->failed);
    assert_int_equal(w->failure.moved, moved);
}

/* What fails at an address that its backend's name has left says nothing about the backend. */
static void a_failure_at_an_address_that_is_gone(void **state)
{
    struct world *w = *state;
    struct backend *be = w->backend;
    struct addr at[] = {w->addr, nowhere(1)};
    be->addr_count = 0;
    backend_take_addresses(be, at, 1);
    open_connection(w);
    backend_take_addresses(be, at, 2); /* it is still one of them */
    assert_false(back_has_moved(w->conn));
    sock_close(w->fd);
    assert_failed(w, false);
    open_connection(w);
    backend_take_addresses(be, at + 1, 1);
    assert_true(back_has_moved(w->conn));
    sock_close(w->fd);
    w->fd = -1;
    assert_failed(w, true);

    forget(w);
    w->conn = back_open(be, NS_PER_S, &events, w); /* to where nobody is */
    assert_non_null(w->conn);
    backend_drop_addresses(be);
    assert_failed(w, true);
    log_take(&w->body);
}

/* Under a connect the addresses change: all that there are now are tried, whichever and how many were before. */
static void a_connect_goes_on_at_new_addresses(void **state)
{
    struct world *w = *state;
    struct backend *be = w->backend;
    struct addr before[] = {nowhere(1), nowhere(2)}, after[] = {w->addr, nowhere(3)}, from;
    be->addr_count = 0;
    backend_take_addresses(be, before, 2);
    forget(w);
    w->conn = back_open(be, NS_PER_S, &events, w);
    assert_non_null(w->conn);
    backend_take_addresses(be, after, 2);
    turn_until(w, &w->ready);
    assert_true(w->ready);
    w->fd = sock_accept(w->listen_fd, &from);
    assert_true(w->fd >= 0);
    log_take(&w->body);
}

/* ... and so it is when another connection has found out meanwhile which one answers. */
static void a_connect_goes_round(void **state)
{
    struct world *w = *state;
    struct backend *be = w->backend;
    struct addr at[] = {nowhere(1), w->addr}, from;
    be->addr_count = 0;
    backend_take_addresses(be, at, 2);
    forget(w);
    w->conn = back_open(be, NS_PER_S, &events, w);
    assert_non_null(w->conn);
    be->addr_at = 1;
    turn_until(w, &w->ready);
    assert_true(w->ready);
    w->fd = sock_accept(w->listen_fd, &from);
    assert_true(w->fd >= 0);
}

/* Listens at a port of its own. */
static int listen_at_some(struct addr *at, int backlog)
{
    struct ip ip;
    assert_true(ip_parse(STR("127.0.0.2"), &ip));
    *at = addr_of_ip(&ip, 0);
    int fd = sock_listen(at, backlog);
    assert_true(fd >= 0);
    assert_int_equal(sock_local_addr(fd, at), 0);
    return fd;
}

/* The address that has answered is the one to begin with the next time, whoever listens at the others by then. */
static void a_connect_begins_where_one_answered(void **state)
{
    struct world *w = *state;
    struct backend *be = w->backend;
    struct addr at[2] = {[1] = w->addr};
    int other = listen_at_some(&at[0], 8);
    sock_close(other);
    be->addr_count = 0;
    backend_take_addresses(be, at, 2);
    open_connection(w);
    sock_close(w->fd);
    back_release(w->conn);
    other = sock_listen(&at[0], 8);
    assert_true(other >= 0);
    open_connection(w);
    sock_close(other);
}

/* An address that says nothing, for its listener's backlog is full, leaves its share of the time to the next one. */
static void a_silent_address_leaves_time_for_the_next(void **state)
{
    struct world *w = *state;
    struct backend *be = w->backend;
    struct addr at[2] = {[1] = w->addr}, from;
    bool in_progress;
    int silent = listen_at_some(&at[0], 0), waiting[2];
    for (int i = 0; i < 2; i++) {
        waiting[i] = sock_connect(&at[0], &in_progress);
        assert_true(waiting[i] >= 0);
    }
    be->addr_count = 0;
    backend_take_addresses(be, at, 2);
    forget(w);
    uint64_t begin = loop_now(w->loop); /* time-outs count from the turn's begin, which is a little ago */
    w->conn = back_open(be, 300 * NS_PER_MS, &events, w);
    assert_non_null(w->conn);
    turn_until(w, &w->ready);
    assert_true(w->ready);
    assert_true(clock_monotonic() - begin >= 150 * NS_PER_MS);
    w->fd = sock_accept(w->listen_fd, &from);
    assert_true(w->fd >= 0);
    for (int i = 0; i < 2; i++)
        sock_close(waiting[i]);
    sock_close(silent);
}

/* Of more addresses than there is room for, those that it has stay as long as they are told. */
static void a_long_list_that_turns(void **state)
{
    struct world *w = *state;
    struct backend *be = w->backend;
    struct addr at[2 * BACKEND_ADDRS_MAX];
    const int n = 2 * BACKEND_ADDRS_MAX;
    for (int i = 0; i < n; i++) {
        struct ip ip;
        assert_true(ip_parse(STR("192.0.2.1"), &ip));
        at[i] = addr_of_ip(&ip, (uint16_t)(80 + i));
    }
    be->addr_count = 0;
    backend_take_addresses(be, at, n);
    assert_logged(NULL);
    be->addr_at = 3;
    for (int turn = 1; turn < n; turn++) {
        struct addr first = at[0];
        memmove(at, at + 1, sizeof at - sizeof *at);
        at[n - 1] = first;
        backend_take_addresses(be, at, n);
        assert_logged(NULL);
        assert_int_equal(peer_from_addr(&be->addrs[be->addr_at]).port, 83);
    }
    backend_take_addresses(be, at, 1); /* by now that of port 95 */
    assert_logged("addresses=192.0.2.1:95\n");
    assert_int_equal(be->addr_count, 1);
    assert_int_equal(be->addr_at, 0);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(every_answer_however_it_is_cut),
        T(an_end_that_is_there_is_told_with_the_content),
        T(a_reset_that_is_there_cuts_the_content_off),
        T(a_clean_connection_serves_again),
        T(bytes_behind_the_end_close_it),
        T(an_idle_connection_that_stirs_is_closed),
        T(a_look_finds_a_dead_connection),
        T(what_was_idle_for_long_is_looked_at),
        T(silence_is_a_timeout),
        T(a_stalled_body_is_a_timeout),
        T(refused_before_anything_is_sent),
        T(chunks_are_framed_here),
        T(an_early_answer_ends_the_connection),
        T(trailers_are_told_with_the_end),
        T(too_many_trailers_cut_who_takes_them),
        T(a_switch_makes_a_tunnel),
        T(an_offer_may_be_declined),
        T(no_switch_before_the_request_is_whole),
        T(whose_error_it_is),
        T(a_backlog_that_is_full),
        T(a_name_moves),
        T(the_keep_time_is_an_address_s),
        T(a_failure_at_an_address_that_is_gone),
        T(a_connect_goes_on_at_new_addresses),
        T(a_connect_goes_round),
        T(a_connect_begins_where_one_answered),
        T(a_silent_address_leaves_time_for_the_next),
        T(a_long_list_that_turns),
        T(a_response_waits_for_a_request_that_goes_on),
        T(a_response_does_not_wait_for_a_request_that_rests),
        T(the_response_is_awaited_from_the_requests_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
