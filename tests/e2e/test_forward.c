/* What goes through the balancer arrives: methods, targets, fields and content in every framing, both ways, one message
 * after the other. */
#include "harness/world.h"

#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define MIB           (1024u * 1024u)
#define RSS_LIMIT_KIB (16 * 1024)

/* The last request as the origin saw it is put into the answer's content: method, target, content. */
static void show_script(struct origin_conn *c)
{
    while (origin_read(c)) {
        struct bytes shown = {0};

        bytes_addf(&shown, "%s %s %.*s", c->request.method, c->request.target, (int)c->request.body.n,
                   c->request.body.p);
        bool ok = origin_answer(c, shown.p);
        bytes_free(&shown);
        if (!ok)
            return;
    }
}

/* Sends the string it was given, once for each request, and goes on unless it says "Connection: close" or has no
 * framing. */
static void canned_script(struct origin_conn *c)
{
    const char *text = origin_arg(c->origin);

    while (origin_read(c))
        if (!origin_send(c, text) || strstr(text, "Connection: close"))
            return;
}

static bool body_is(const struct message *m, const char *text)
{
    return m->body.n == strlen(text) && memcmp(m->body.p, text, m->body.n) == 0;
}

#define EXPECT_BODY(m, text) CHECK(body_is(m, text), "content is \"%s\", not \"%s\"", (m)->body.p, text)

static void expect_shown(struct client *c, const char *text)
{
    const struct message *r = client_expect(c, 200);

    EXPECT_BODY(r, text);
}

static void test_methods_and_targets(void **state)
{
    static const char *const methods[] = {"GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "PROPFIND"};
    static const char *const targets[] = {"/",        "/a//b/../c;d=e", "/?q=%20+&r",     "/%63lients/list",
                                          "/clients", "/clientsX",      "//clients/list", "/~!$&'()*,=:@"};
    struct world *w = *state;
    struct client c;
    char expected[200];

    world_origin(w, show_script, NULL, NULL);
    world_start(w, NULL);
    client_open(&c, w->port);
    for (size_t i = 0; i < sizeof methods / sizeof *methods; i++) {
        client_sendf(&c, "%s /m HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc", methods[i]);
        snprintf(expected, sizeof expected, "%s /m abc", methods[i]);
        expect_shown(&c, expected);
    }
    for (size_t i = 0; i < sizeof targets / sizeof *targets; i++) {
        client_sendf(&c, "GET %s HTTP/1.1\r\nHost: h\r\n\r\n", targets[i]);
        snprintf(expected, sizeof expected, "GET %s ", targets[i]);
        expect_shown(&c, expected);
    }
    client_send(&c, "OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n");
    expect_shown(&c, "OPTIONS * ");
    client_close(&c);
    world_finish(w);
}

static void test_absolute_form(void **state)
{
    struct world *w = *state;
    struct origin *o = world_origin(w, show_script, NULL, NULL);
    struct client c;

    world_start(w, NULL);
    client_open(&c, w->port);
    client_send(&c, "GET http://other.example:81/x?y HTTP/1.1\r\nHost: h\r\n\r\n");
    expect_shown(&c, "GET /x?y ");
    assert_non_null(strstr(origin_head(o, 0), "\r\nHost: other.example:81\r\n"));
    client_send(&c, "GET http://other.example HTTP/1.1\r\nHost: h\r\n\r\n");
    expect_shown(&c, "GET / ");
    client_close(&c);
    world_finish(w);
}

static void test_request_content(void **state)
{
    struct world *w = *state;
    struct origin *o = world_origin(w, show_script, NULL, NULL);
    struct client c;

    world_start(w, NULL);
    client_open(&c, w->port);
    client_send(&c, "POST /l HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello");
    expect_shown(&c, "POST /l hello");
    client_send(&c, "POST /0 HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n");
    expect_shown(&c, "POST /0 ");
    client_send(&c, "POST /c HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
                    "5\r\nhello\r\n0007;ext=\"a b\"\r\n, world\r\n0\r\nX-Trailer: t\r\n\r\n");
    expect_shown(&c, "POST /c hello, world");
    client_send(&c, "POST /e HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n");
    expect_shown(&c, "POST /e ");
    assert_non_null(strstr(origin_head(o, 0), "\r\nContent-Length: 5\r\n"));
    assert_non_null(strstr(origin_head(o, 1), "\r\nContent-Length: 0\r\n"));
    assert_non_null(strstr(origin_head(o, 2), "\r\nTransfer-Encoding: chunked\r\n"));
    assert_null(strstr(origin_head(o, 2), "Content-Length"));
    client_close(&c);
    world_finish(w);
}

/* The trailers of a request, and, when it is asked for, some with the answer. */
static void trailers_script(struct origin_conn *c)
{
    while (origin_read(c)) {
        bool wanted = message_has_token(&c->request, "TE", "trailers");
        bool ok =
            origin_sendf(c,
                         "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\nX-TE: %d\r\n\r\n%zx\r\n"
                         "-%s\r\n0\r\nX-Sum:1\r\nContent-Length: 7\r\nX_Y: 2\r\nSet-Cookie: a\r\n\r\n",
                         wanted, c->request.trailers.n + 1, c->request.trailers.n ? c->request.trailers.p : "");
        if (!ok)
            return;
    }
}

static void test_trailers(void **state)
{
    struct world *w = *state;
    struct origin *o = world_origin(w, trailers_script, NULL, NULL);
    struct client c;

    world_start(w, NULL);
    client_open(&c, w->port);
    client_send(&c, "POST / HTTP/1.1\r\nHost: h\r\nTE: trailers\r\nConnection: TE\r\nTrailer: A\r\n"
                    "Transfer-Encoding: chunked\r\n\r\n"
                    "2\r\nhi\r\n0\r\nA:\t1 \r\nHost: evil\r\nX-Forwarded-For: 9.9.9.9\r\nb: 2\r\nC_D: 3\r\n\r\n");
    const struct message *m = client_expect(&c, 200);
    EXPECT_BODY(m, "-A: 1\r\nb: 2\r\n");
    assert_string_equal(m->trailers.p, "X-Sum: 1\r\nX_Y: 2\r\n");
    assert_string_equal(message_field(m, "Trailer"), "X-Sum");
    assert_string_equal(message_field(m, "X-TE"), "1");
    assert_non_null(strstr(origin_head(o, 0), "\r\nTrailer: A\r\n"));

    /* Where Connection names fields, they may be among them. */
    client_send(&c, "POST / HTTP/1.1\r\nHost: h\r\nConnection: A\r\nTransfer-Encoding: chunked\r\n\r\n"
                    "2\r\nhi\r\n0\r\nA: 1\r\n\r\n");
    EXPECT_BODY(client_expect(&c, 200), "-");

    /* Who has not said that it takes them gets none. */
    client_send(&c, "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    m = client_expect(&c, 200);
    EXPECT_BODY(m, "-");
    assert_int_equal(m->trailers.n, 0);
    assert_null(message_field(m, "Trailer"));
    assert_string_equal(message_field(m, "X-TE"), "0");
    client_send(&c, "GET / HTTP/1.0\r\nTE: trailers\r\n\r\n");
    m = client_expect(&c, 200);
    EXPECT_BODY(m, "-");
    assert_string_equal(message_field(m, "X-TE"), "0");
    client_expect_end(&c);
    client_close(&c);
    world_finish(w);
}

/* What is sent again is sent with its trailers. */
static void reset_first_script(struct origin_conn *c)
{
    if (!origin_read(c))
        return;
    if (c->index == 0 && strcmp(origin_name(c->origin), "b1") == 0)
        origin_reset(c);
    else
        origin_answer(c, c->request.trailers.n ? c->request.trailers.p : "none");
}

static void test_trailers_are_sent_again(void **state)
{
    struct world *w = *state;
    struct client c;

    world_origin(w, reset_first_script, NULL, NULL);
    world_origin(w, reset_first_script, NULL, NULL);
    world_start(w, NULL);
    client_open(&c, w->port);
    client_send(&c, "PUT / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nA: 1\r\n\r\n");
    const struct message *m = client_expect(&c, 200);
    EXPECT_BODY(m, "A: 1\r\n");
    daemon_expect_event(&w->daemon, 0, "retry", NULL);
    client_close(&c);
    world_finish(w);
}

static void test_bytewise(void **state)
{
    struct world *w = *state;
    struct client c;

    world_origin(w, show_script, NULL, NULL);
    world_start(w, NULL);
    client_open(&c, w->port);
    client_send_bytewise(&c, "\r\nPOST /slow HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
                             "3\r\nabc\r\nA\r\n0123456789\r\n0\r\n\r\n"
                             "GET /next HTTP/1.1\r\nHost: h\r\n\r\n");
    expect_shown(&c, "POST /slow abc0123456789");
    expect_shown(&c, "GET /next ");
    client_close(&c);
    world_finish(w);
}

static void slow_script(struct origin_conn *c)
{
    while (origin_read(c))
        if (!origin_send_slowly(c,
                                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-A: b\r\n\r\n"
                                "5\r\nhello\r\n1;x=y\r\n!\r\n0\r\nT: r\r\n\r\n",
                                1, 0))
            return;
}

static void test_response_bytewise(void **state)
{
    struct world *w = *state;
    struct origin *o = world_origin(w, slow_script, NULL, NULL);
    struct client c;

    world_start(w, NULL);
    client_open(&c, w->port);
    for (int i = 0; i < 3; i++) {
        client_send(&c, "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
        const struct message *r = client_expect(&c, 200);
        EXPECT_BODY(r, "hello!");
        assert_int_equal(r->body_kind, BODY_CHUNKED);
        assert_string_equal(message_field(r, "X-A"), "b");
    }
    assert_int_equal(origin_connections(o), 1);
    client_close(&c);
    world_finish(w);
}

static void test_keep_alive_reuses_the_backend_connection(void **state)
{
    struct world *w = *state;
    struct origin *o = world_origin(w, show_script, NULL, NULL);
    struct client c;

    world_start(w, NULL);
    client_open(&c, w->port);
    for (int i = 0; i < 100; i++) {
        client_sendf(&c, "GET /%d HTTP/1.1\r\nHost: h\r\n\r\n", i);
        char expected[32];
        snprintf(expected, sizeof expected, "GET /%d ", i);
        expect_shown(&c, expected);
    }
    client_close(&c);
    assert_int_equal(http_get(w->port, "/another", NULL), 200);
    assert_int_equal(origin_connections(o), 1);
    world_finish(w);
}

static void test_pipelining(void **state)
{
    struct world *w = *state;
    struct bytes all = {0};
    struct client c;

    for (int i = 0; i < 3; i++)
        world_origin(w, show_script, NULL, NULL);
    world_start(w, NULL);
    for (int i = 0; i < 50; i++) {
        if (i % 3 == 0)
            bytes_addf(&all, "POST /%d HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nxy", i);
        else if (i % 3 == 1)
            bytes_addf(&all, "POST /%d HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nxy\r\n0\r\n\r\n",
                       i);
        else
            bytes_addf(&all, "GET /%d HTTP/1.1\r\nHost: h\r\n\r\n", i);
    }
    client_open(&c, w->port);
    client_send_bytes(&c, all.p, all.n);
    for (int i = 0; i < 50; i++) {
        char expected[32];
        snprintf(expected, sizeof expected, i % 3 == 2 ? "GET /%d " : "POST /%d xy", i);
        expect_shown(&c, expected);
    }
    bytes_free(&all);
    client_close(&c);
    world_finish(w);
}

static void test_half_closed_client_gets_its_responses(void **state)
{
    struct world *w = *state;
    struct client c;

    world_origin(w, show_script, NULL, NULL);
    world_start(w, NULL);
    client_open(&c, w->port);
    client_send(&c, "GET /1 HTTP/1.1\r\nHost: h\r\n\r\nGET /2 HTTP/1.1\r\nHost: h\r\n\r\n");
    client_half_close(&c);
    expect_shown(&c, "GET /1 ");
    expect_shown(&c, "GET /2 ");
    client_expect_end(&c);
    client_close(&c);
    world_finish(w);
}

static void test_connection_close_of_the_client(void **state)
{
    struct world *w = *state;
    struct client c;

    world_origin(w, show_script, NULL, NULL);
    world_start(w, NULL);
    client_open(&c, w->port);
    client_send(&c, "GET /1 HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    expect_shown(&c, "GET /1 ");
    assert_true(message_has_token(&c.response, "Connection", "close"));
    client_expect_end(&c);
    client_close(&c);
    world_finish(w);
}

static void test_http_1_0(void **state)
{
    struct world *w = *state;
    struct client c;

    world_origin(w, canned_script,
                 (void *)(uintptr_t) "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
                 NULL);
    world_start(w, NULL);
    client_open(&c, w->port);
    client_send(&c, "GET / HTTP/1.0\r\n\r\n");
    const struct message *r = client_expect(&c, 200);
    EXPECT_BODY(r, "hello");
    assert_int_equal(r->body_kind, BODY_CLOSE);
    client_close(&c);

    client_open(&c, w->port);
    client_send(&c, "POST / HTTP/1.0\r\nHost: h\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\nab");
    r = client_expect(&c, 200); /* no length is known, so it cannot stay open */
    EXPECT_BODY(r, "hello");
    client_close(&c);
    world_finish(w);
}

static void test_http_1_0_keep_alive(void **state)
{
    struct world *w = *state;
    struct origin *o = world_origin(w, show_script, NULL, NULL);
    struct client c;

    world_start(w, NULL);
    client_open(&c, w->port);
    for (int i = 0; i < 3; i++) {
        client_send(&c, "GET /k HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n");
        expect_shown(&c, "GET /k ");
        assert_true(message_has_token(&c.response, "Connection", "keep-alive"));
    }
    client_send(&c, "GET /end HTTP/1.0\r\n\r\n");
    expect_shown(&c, "GET /end ");
    client_expect_end(&c);
    assert_non_null(strstr(origin_head(o, 0), " HTTP/1.1\r\n"));
    client_close(&c);
    world_finish(w);
}

static void head_script(struct origin_conn *c)
{
    while (origin_read(c)) {
        const char *t = c->request.target;
        const char *text = strcmp(t, "/204") == 0 ? "HTTP/1.1 204 No Content\r\nX: 1\r\n\r\n"
                           : strcmp(t, "/304") == 0
                               ? "HTTP/1.1 304 Not Modified\r\nETag: \"e\"\r\nContent-Length: 9\r\n\r\n"
                           : strcmp(c->request.method, "HEAD") == 0 ? "HTTP/1.1 200 OK\r\nContent-Length: 12345\r\n\r\n"
                                                                    : "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
        if (!origin_send(c, text))
            return;
    }
}

static void test_responses_without_content(void **state)
{
    struct world *w = *state;
    struct origin *o = world_origin(w, head_script, NULL, NULL);
    struct client c;

    world_start(w, NULL);
    client_open(&c, w->port);
    client_send(&c, "HEAD / HTTP/1.1\r\nHost: h\r\n\r\n");
    const struct message *r = client_expect_head_response(&c, 200);
    assert_string_equal(message_field(r, "Content-Length"), "12345");
    client_send(&c, "GET /204 HTTP/1.1\r\nHost: h\r\n\r\n");
    r = client_expect(&c, 204);
    assert_null(message_field(r, "Content-Length"));
    client_send(&c, "GET /304 HTTP/1.1\r\nHost: h\r\n\r\n");
    r = client_expect(&c, 304);
    assert_string_equal(message_field(r, "ETag"), "\"e\"");
    client_send(&c, "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    EXPECT_BODY(client_expect(&c, 200), "ok");
    assert_int_equal(origin_connections(o), 1);
    client_close(&c);
    world_finish(w);
}

static void until_close_script(struct origin_conn *c)
{
    if (origin_read(c) && origin_send(c, "HTTP/1.1 200 OK\r\n\r\n"))
        origin_send_slowly(c, "to the very end", 4, 5);
}

static void test_content_that_ends_with_the_connection(void **state)
{
    struct world *w = *state;
    struct client c;

    world_origin(w, until_close_script, NULL, NULL);
    world_start(w, NULL);
    client_open(&c, w->port);
    for (int i = 0; i < 3; i++) {
        client_send(&c, "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
        const struct message *r = client_expect(&c, 200);
        EXPECT_BODY(r, "to the very end");
        assert_int_equal(r->body_kind, BODY_CHUNKED);
    }
    client_close(&c);
    world_finish(w);
}

static void cut_script(struct origin_conn *c)
{
    const char *t;

    if (!origin_read(c))
        return;
    t = c->request.target;
    if (strcmp(t, "/length") == 0)
        origin_send(c, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf");
    else if (strcmp(t, "/chunked") == 0)
        origin_send(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n");
    else if (strcmp(t, "/bad-chunk") == 0)
        origin_send(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\nzz\r\n");
    else
        origin_send(c, "HTTP/1.1 200 OK\r\n\r\nhalf");
    origin_pause(c, 20);
    if (strcmp(t, "/reset") == 0)
        origin_reset(c);
}

/* A response that its backend cut off is never passed off as whole. */
static void test_a_cut_response_is_cut_to_the_client(void **state)
{
    static const char *const targets[] = {"/length", "/chunked", "/bad-chunk", "/reset"};
    struct world *w = *state;
    struct client c;

    world_origin(w, cut_script, NULL, NULL);
    world_start(w, NULL);
    for (size_t i = 0; i < sizeof targets / sizeof *targets; i++) {
        client_open(&c, w->port);
        client_sendf(&c, "GET %s HTTP/1.1\r\nHost: h\r\n\r\n", targets[i]);
        client_expect_head(&c, 200);
        enum read_result r = client_read_body(&c, NULL, NULL);
        CHECK(r == READ_CUT || r == READ_RESET, "%s: %s", targets[i], read_result_name(r));
        client_close(&c);
    }
    daemon_expect_event(&w->daemon, 0, "request", "target=/length status=200 reason=backend_cut cause=*");
    world_finish(w);
}

static void continue_script(struct origin_conn *c)
{
    while (origin_read_head(c)) {
        if (strcmp(c->request.target, "/no") == 0) {
            origin_send(c, "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno");
            return;
        }
        if (!origin_send(c, "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n") ||
            !origin_read_body(c, NULL, NULL) || !origin_answer(c, c->request.body.p))
            return;
    }
}

static void test_expect_continue(void **state)
{
    struct world *w = *state;
    struct origin *o = world_origin(w, continue_script, NULL, NULL);
    struct client c;

    world_start(w, NULL);
    client_open(&c, w->port);
    client_send(&c, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n");
    uint64_t deadline = deadline_in(patience_ms());
    while (!strstr(c.in.in.p, "HTTP/1.1 100 "))
        assert_int_equal(stream_fill(&c.in, deadline), READ_OK);
    client_send(&c, "hello");
    const struct message *r = client_expect(&c, 200);
    EXPECT_BODY(r, "hello");
    assert_int_equal(r->interim_count, 2);
    assert_int_equal(r->interim[0], 103);
    assert_int_equal(r->interim[1], 100);
    assert_non_null(strstr(origin_head(o, 0), "\r\nExpect: 100-continue\r\n"));
    client_close(&c);

    client_open(&c, w->port);
    client_send(&c, "POST /no HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n");
    r = client_expect(&c, 403);
    EXPECT_BODY(r, "no");
    assert_int_equal(r->interim_count, 0);
    client_close(&c);
    world_finish(w);
}

static void test_interim_responses_are_not_for_http_1_0(void **state)
{
    struct world *w = *state;
    struct client c;

    world_origin(w, continue_script, NULL, NULL);
    world_start(w, NULL);
    client_open(&c, w->port);
    client_send(&c, "POST / HTTP/1.0\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello");
    const struct message *r = client_expect(&c, 200);
    EXPECT_BODY(r, "hello");
    assert_int_equal(r->interim_count, 0);
    client_close(&c);
    world_finish(w);
}

#define HAS(head, line)     CHECK(strstr(head, "\r\n" line "\r\n"), "\"%s\" is missing in:\n%s", line, head)
#define HAS_NOT(head, part) CHECK(!strstr(head, part), "\"%s\" stands in:\n%s", part, head)

static void test_request_fields(void **state)
{
    struct world *w = *state;
    struct origin *o = world_origin(w, show_script, NULL, NULL);
    struct client c;
    const char *head;

    world_start(w, NULL);
    client_open(&c, w->port);
    client_send(&c,
                "GET / HTTP/1.1\r\nHost: example.org:8080\r\nUser-Agent: test\r\nx-Odd-CASE:  v1 , v2  \r\n"
                "Accept: a\r\nAccept: b\r\nX-Empty:\r\nCookie: a=b; c=d\r\nAuthorization: Bearer x\r\n"
                "Connection: keep-alive, X-Nominated, Host, Authorization, Content-Length\r\nX-Nominated: 1\r\n"
                "Keep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nProxy-Authorization: Basic eA==\r\n"
                "TE: gzip\r\nUpgrade: h2c\r\nX_Under_Score: 1\r\n"
                "X-Forwarded-For: 9.9.9.9\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: evil\r\n"
                "X-Forwarded-Port: 1\r\nForwarded: for=9.9.9.9\r\nVia: 1.0 someone\r\nX-Request-ID: my-id.1\r\n\r\n");
    client_expect(&c, 200);
    head = origin_head(o, 0);
    assert_true(strncmp(head, "GET / HTTP/1.1\r\nHost: example.org:8080\r\n", 40) == 0);
    HAS(head, "User-Agent: test\r\nx-Odd-CASE: v1 , v2\r\nAccept: a\r\nAccept: b");
    HAS(head, "Cookie: a=b; c=d");
    HAS(head, "Authorization: Bearer x");
    CHECK(strstr(head, "\r\nX-Empty:"), "X-Empty is gone in:\n%s", head);
    HAS_NOT(head, "Nominated");
    HAS_NOT(head, "Keep-Alive");
    HAS_NOT(head, "Proxy-");
    HAS_NOT(head, "\r\nTE:");
    HAS_NOT(head, "Upgrade");
    HAS_NOT(head, "Under_Score");
    HAS_NOT(head, "9.9.9.9");
    HAS_NOT(head, "evil");
    HAS_NOT(head, "X-Forwarded-Port");
    HAS_NOT(head, "\r\nForwarded:");
    HAS(head, "X-Forwarded-For: 127.0.0.1");
    HAS(head, "X-Forwarded-Proto: http");
    HAS(head, "X-Forwarded-Host: example.org:8080");
    HAS(head, "X-Request-ID: my-id.1");
    CHECK(strstr(head, "Via: 1.0 someone, 1.1 loadbalancer\r\n") ||
              strstr(strstr(head, "Via: 1.0 someone\r\n"), "Via: 1.1 loadbalancer\r\n"),
          "Via is wrong in:\n%s", head);
    HAS_NOT(head, "Transfer-Encoding");
    daemon_expect_event(&w->daemon, 0, "request",
                        "request_id=my-id.1 status=200 backend=b1 attempts=1 method=GET target=/");
    client_close(&c);
    world_finish(w);
}

static const char *field_of_head(const char *head, const char *name, char out[200])
{
    char wanted[64];
    const char *at;

    snprintf(wanted, sizeof wanted, "\r\n%s: ", name);
    at = strstr(head, wanted);
    CHECK(at, "no %s in:\n%s", name, head);
    snprintf(out, 200, "%.*s", (int)strcspn(at + strlen(wanted), "\r"), at + strlen(wanted));
    return out;
}

static void test_request_ids(void **state)
{
    struct world *w = *state;
    struct origin *o = world_origin(w, show_script, NULL, NULL);
    struct client c;
    char first[200], second[200], third[200];

    world_start(w, NULL);
    client_open(&c, w->port);
    client_send(&c, "GET /1 HTTP/1.1\r\nHost: h\r\n\r\n");
    client_expect(&c, 200);
    client_send(&c, "GET /2 HTTP/1.1\r\nHost: h\r\nX-Request-ID: not sane\r\n\r\n");
    client_expect(&c, 200);
    client_send(&c, "GET /3 HTTP/1.1\r\nHost: h\r\nX-Request-ID: a\r\nX-Request-ID: b\r\n\r\n");
    client_expect(&c, 200);
    field_of_head(origin_head(o, 0), "X-Request-ID", first);
    field_of_head(origin_head(o, 1), "X-Request-ID", second);
    field_of_head(origin_head(o, 2), "X-Request-ID", third);
    assert_string_not_equal(first, second);
    assert_string_not_equal(second, "not sane");
    assert_string_not_equal(third, "a");
    assert_string_not_equal(third, "b");
    assert_int_equal(message_field_count(&c.response, "X-Request-ID"), 0);
    client_close(&c);
    world_finish(w);
}

static void test_trusted_proxy(void **state)
{
    struct world *w = *state;
    struct origin *o = world_origin(w, show_script, NULL, NULL);
    struct client c;
    const char *head;

    world_start(w, "\"trusted_proxies\": [\"127.0.0.0/8\"]");
    client_open(&c, w->port);
    client_send(&c, "GET / HTTP/1.1\r\nHost: inner\r\nX-Forwarded-For: 9.9.9.9\r\nX-Forwarded-Proto: https\r\n"
                    "X-Forwarded-Host: outer\r\nForwarded: for=9.9.9.9\r\n\r\n");
    client_expect(&c, 200);
    head = origin_head(o, 0);
    CHECK(strstr(head, "X-Forwarded-For: 9.9.9.9, 127.0.0.1\r\n") ||
              strstr(head, "X-Forwarded-For: 9.9.9.9\r\nX-Forwarded-For: 127.0.0.1\r\n"),
          "X-Forwarded-For is wrong in:\n%s", head);
    HAS(head, "X-Forwarded-Proto: https");
    HAS(head, "X-Forwarded-Host: outer");
    HAS(head, "Forwarded: for=9.9.9.9");
    daemon_expect_event(&w->daemon, 0, "request", "client=9.9.9.9");
    client_close(&c);
    world_finish(w);
}

static void test_response_fields(void **state)
{
    struct world *w = *state;
    struct client c;

    world_origin(w, canned_script,
                 (void *)(uintptr_t) "HTTP/1.1 201 Made It\r\nServer: origin\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n"
                                     "Connection: X-Secret\r\nX-Secret: s\r\nKeep-Alive: timeout=5\r\n"
                                     "Proxy-Authenticate: Basic\r\nRateLimit: \"theirs\";r=1\r\nVia: 1.1 deeper\r\n"
                                     "Content-Length: 2\r\n\r\nok",
                 NULL);
    world_start(w, NULL);
    client_open(&c, w->port);
    client_send(&c, "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    const struct message *r = client_expect(&c, 201);
    assert_string_equal(r->reason, "Made It");
    assert_int_equal(message_field_count(r, "Set-Cookie"), 2);
    assert_string_equal(message_field(r, "Server"), "origin");
    assert_null(message_field(r, "X-Secret"));
    assert_null(message_field(r, "Keep-Alive"));
    assert_int_equal(message_field_count(r, "RateLimit"), 2);
    assert_non_null(message_field(r, "RateLimit-Policy"));
    HAS(r->head, "RateLimit: \"theirs\";r=1");
    assert_non_null(strstr(r->head, "1.1 deeper"));
    assert_non_null(strstr(r->head, "1.1 loadbalancer"));
    client_close(&c);
    world_finish(w);
}

/* Large content. */

struct sum {
    struct digest *digest;
    uint64_t n;
};

static void sum_add(void *arg, const void *p, size_t n)
{
    struct sum *s = arg;

    digest_add(s->digest, p, n);
    s->n += n;
}

static uint64_t big_size(void)
{
    return is_big_run() ? 1024u * (uint64_t)MIB : 64u * (uint64_t)MIB;
}

static void pattern_digest(uint64_t size, char out[DIGEST_TEXT])
{
    struct digest *d = digest_new();
    static char piece[65536];

    for (uint64_t at = 0; at < size; at += sizeof piece) {
        pattern_fill(piece, sizeof piece, at);
        digest_add(d, piece, sizeof piece);
    }
    digest_end(d, out);
}

/* Takes content of any size and answers with its length and sum; or sends that much: /up, /down/length, /down/chunked,
 * /down/close. */
static void big_script(struct origin_conn *c)
{
    static _Thread_local char piece[40000];
    uint64_t size = big_size();

    while (origin_read_head(c)) {
        const char *t = c->request.target;
        bool chunked = strcmp(t, "/down/chunked") == 0;

        if (strcmp(t, "/up") == 0) {
            struct sum sum = {digest_new(), 0};
            char text[DIGEST_TEXT];
            bool ok = origin_read_body(c, sum_add, &sum);

            digest_end(sum.digest, text);
            if (!ok || !origin_answer(c, text))
                return;
            continue;
        }
        if (strcmp(t, "/down/length") == 0)
            origin_sendf(c, "HTTP/1.1 200 OK\r\nContent-Length: %llu\r\n\r\n", (unsigned long long)size);
        else
            origin_send(c,
                        chunked ? "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" : "HTTP/1.1 200 OK\r\n\r\n");
        for (uint64_t at = 0; at < size;) {
            size_t n = size - at < sizeof piece ? (size_t)(size - at) : sizeof piece;

            pattern_fill(piece, n, at);
            at += n;
            if ((chunked && !origin_sendf(c, "%zx\r\n", n)) || !origin_send_bytes(c, piece, n) ||
                (chunked && !origin_send(c, "\r\n")))
                return;
        }
        if (strcmp(t, "/down/close") == 0 || (chunked && !origin_send(c, "0\r\n\r\n")))
            return;
    }
}

static void expect_small(struct world *w)
{
    long peak = proc_kib(w->daemon.pid, "VmHWM");

    CHECK(is_instrumented() || (peak > 0 && peak < RSS_LIMIT_KIB), "the daemon took %ld KiB", peak);
}

static void upload(struct client *c, bool chunked)
{
    static char piece[50000];
    uint64_t size = big_size();
    char sent[DIGEST_TEXT];

    if (chunked)
        client_send(c, "POST /up HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n");
    else
        client_sendf(c, "POST /up HTTP/1.1\r\nHost: h\r\nContent-Length: %llu\r\n\r\n", (unsigned long long)size);
    for (uint64_t at = 0; at < size;) {
        size_t n = size - at < sizeof piece ? (size_t)(size - at) : sizeof piece;

        pattern_fill(piece, n, at);
        at += n;
        if (chunked)
            client_sendf(c, "%zx\r\n", n);
        client_send_bytes(c, piece, n);
        if (chunked)
            client_send(c, "\r\n");
    }
    if (chunked)
        client_send(c, "0\r\n\r\n");
    pattern_digest(size, sent);
    expect_shown(c, sent);
}

static void test_large_uploads(void **state)
{
    struct world *w = *state;
    struct client c;

    world_origin(w, big_script, NULL, NULL);
    world_start(w, NULL);
    client_open(&c, w->port);
    upload(&c, false);
    expect_small(w);
    upload(&c, true);
    expect_small(w);
    client_close(&c);
    world_finish(w);
}

static void download(struct client *c, const char *target, enum body_kind kind)
{
    struct sum sum = {digest_new(), 0};
    char received[DIGEST_TEXT], expected[DIGEST_TEXT];

    client_sendf(c, "GET %s HTTP/1.1\r\nHost: h\r\n\r\n", target);
    const struct message *r = client_expect_into(c, 200, sum_add, &sum);
    digest_end(sum.digest, received);
    pattern_digest(big_size(), expected);
    assert_int_equal(r->body_kind, kind);
    assert_true(sum.n == big_size());
    assert_string_equal(received, expected);
}

static void test_large_downloads(void **state)
{
    struct world *w = *state;
    struct client c;

    world_origin(w, big_script, NULL, NULL);
    world_start(w, NULL);
    client_open(&c, w->port);
    download(&c, "/down/length", BODY_LENGTH);
    download(&c, "/down/chunked", BODY_CHUNKED);
    download(&c, "/down/close", BODY_CHUNKED);
    expect_small(w);
    client_close(&c);
    world_finish(w);
}

/* The client reads nothing for a while: the backend is not read either, and nothing piles up in between. */
static void test_slow_reader(void **state)
{
    struct world *w = *state;
    struct client slow[4];

    world_origin(w, big_script, NULL, NULL);
    world_start(w, NULL);
    for (int i = 0; i < 4; i++) {
        client_open(&slow[i], w->port);
        client_sendf(&slow[i], "GET /down/%s HTTP/1.1\r\nHost: h\r\n\r\n", i % 2 ? "chunked" : "length");
        client_expect_head(&slow[i], 200);
    }
    origin_wait_requests(w->origins[0], 4);
    usleep(300000); /* gives bytes the time to pile up, if they do */
    expect_small(w);
    for (int i = 0; i < 4; i++) {
        struct sum sum = {digest_new(), 0};
        char received[DIGEST_TEXT], expected[DIGEST_TEXT];

        assert_int_equal(client_read_body(&slow[i], sum_add, &sum), READ_OK);
        digest_end(sum.digest, received);
        pattern_digest(big_size(), expected);
        assert_string_equal(received, expected);
        client_close(&slow[i]);
    }
    expect_small(w);
    world_finish(w);
}

static atomic_uint flood_pieces;
#define FLOOD_PIECES_MAX 8192u /* of 8 KiB */

static void flood_script(struct origin_conn *c)
{
    static char piece[8192];

    memset(piece, 'a', sizeof piece);
    memcpy(piece, "HTTP/1.1 103 Early Hints\r\nLink: ", 32);
    memcpy(piece + sizeof piece - 4, "\r\n\r\n", 4);
    if (!origin_read_head(c))
        return;
    while (flood_pieces < FLOOD_PIECES_MAX && origin_send_bytes(c, piece, sizeof piece))
        flood_pieces++;
}

/* Interim responses that the client does not read are held back like content. */
static void test_flood_of_interim_responses(void **state)
{
    struct world *w = *state;
    struct client c;
    unsigned before;

    flood_pieces = 0;
    world_origin(w, flood_script, NULL, NULL);
    world_start(w, NULL);
    client_open(&c, w->port);
    client_send(&c, "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    origin_wait_requests(w->origins[0], 1);
    do {
        before = flood_pieces;
        usleep(300000); /* until the flood has come to a stop */
    } while (flood_pieces != before);
    CHECK(before < FLOOD_PIECES_MAX, "%s", "the whole flood was taken");
    expect_small(w);
    client_close(&c);
    world_finish(w);
}

static void slow_taker_script(struct origin_conn *c)
{
    if (!origin_read_head(c))
        return;
    origin_hold(c);
    if (origin_read_body(c, NULL, NULL))
        origin_sendf(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Got: %llu\r\n\r\nok",
                     (unsigned long long)c->request.body_bytes);
}

/* The backend reads nothing for a while: the client cannot send more than the sockets and bounded buffers hold. */
static void test_slow_backend(void **state)
{
    static char piece[65536];
    struct world *w = *state;
    struct client c;
    uint64_t size = 64u * (uint64_t)MIB, sent = 0;
    char expected[32];

    world_origin(w, slow_taker_script, NULL, NULL);
    world_start(w, NULL);
    client_open(&c, w->port);
    client_sendf(&c, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: %llu\r\n\r\n", (unsigned long long)size);
    while (sent < size && send_all(c.in.fd, piece, 1024, 300))
        sent += 1024;
    CHECK(sent < size, "%s", "the whole content was taken though its backend read none of it");
    expect_small(w);
    origin_release(w->origins[0]);
    while (sent < size) {
        size_t n = size - sent < sizeof piece ? (size_t)(size - sent) : sizeof piece;

        client_send_bytes(&c, piece, n);
        sent += n;
    }
    const struct message *r = client_expect(&c, 200);
    snprintf(expected, sizeof expected, "%llu", (unsigned long long)size);
    assert_string_equal(message_field(r, "X-Got"), expected);
    expect_small(w);
    client_close(&c);
    world_finish(w);
}

static void early_script(struct origin_conn *c)
{
    if (origin_read_head(c) &&
        origin_send(c, "HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig"))
        origin_drain(c);
}

/* The backend answers before it has the whole content: its answer reaches the client. */
static void test_early_response(void **state)
{
    struct world *w = *state;
    struct client c;

    world_origin(w, early_script, NULL, NULL);
    world_start(w, NULL);
    client_open(&c, w->port);
    client_send(&c, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n\r\nsome");
    EXPECT_BODY(client_expect(&c, 413), "big");
    client_close(&c);
    world_finish(w);
}

static void slow_early_script(struct origin_conn *c)
{
    if (origin_read_head(c) && origin_send(c, "HTTP/1.1 404 Not Found\r\nContent-Length: 30\r\n\r\n") &&
        origin_send_slowly(c, "012345678901234567890123456789", 1, 40))
        origin_drain(c);
}

/* Whoever has its answer need not send the rest of its content: to wait for that does not cut the answer. */
static void test_early_response_outlasts_the_wait_for_content(void **state)
{
    struct world *w = *state;
    struct client c;

    world_origin(w, slow_early_script, NULL, NULL);
    world_start(w, "\"timeouts\": {\"client_body\": \"300ms\"}");
    client_open(&c, w->port);
    client_send(&c, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1000\r\n\r\nsome");
    EXPECT_BODY(client_expect(&c, 404), "012345678901234567890123456789");
    client_expect_end(&c); /* then nobody waits for it any longer than that */
    client_close(&c);
    client_open(&c, w->port);
    client_send(&c, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1000\r\nExpect: 100-continue\r\n\r\n");
    EXPECT_BODY(client_expect(&c, 404), "012345678901234567890123456789");
    client_expect_end(&c);
    client_close(&c);
    assert_int_equal(daemon_count_events(&w->daemon, 0, "request", "reason=*"), 0);
    world_finish(w);
}

static void slow_continue_script(struct origin_conn *c)
{
    if (!origin_read_head(c))
        return;
    origin_pause(c, 700);
    if (origin_mode(c) == 0 && origin_send(c, "HTTP/1.1 100 Continue\r\n\r\n") && origin_read_body(c, NULL, NULL))
        origin_answer(c, "thanks");
    origin_drain(c);
}

/* A client that waits for 100 is not late as long as that has not come: its backend is. */
static void test_a_slow_100(void **state)
{
    struct world *w = *state;
    struct origin *o = world_origin(w, slow_continue_script, NULL, NULL);
    struct client c;

    world_start(w, "\"timeouts\": {\"client_body\": \"300ms\", \"backend_response\": \"1500ms\"}");
    client_open(&c, w->port);
    client_send(&c, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n");
    while (!strstr(c.in.in.n ? c.in.in.p : "", "100 Continue\r\n\r\n"))
        assert_int_equal(stream_fill(&c.in, deadline_in(patience_ms())), READ_OK);
    client_send(&c, "hello");
    EXPECT_BODY(client_expect(&c, 200), "thanks");
    client_close(&c);
    origin_set_mode(o, 1);
    client_open(&c, w->port);
    client_send(&c, "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n");
    client_expect(&c, 504);
    client_expect_end(&c);
    client_close(&c);
    /* Who has begun to send nevertheless is waited for as anybody. */
    client_open(&c, w->port);
    client_send(&c, "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n1\r\n");
    client_expect(&c, 408);
    client_close(&c);
    world_finish(w);
}

static void begins_early_script(struct origin_conn *c)
{
    while (origin_read_head(c)) {
        if (c->request.body_kind == BODY_NONE) {
            if (!origin_answer(c, c->index == 0 ? "the first" : "another"))
                return;
            continue;
        }
        if (!origin_send(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no") || !origin_read_body(c, NULL, NULL) ||
            !origin_send(c, "k"))
            return;
    }
}

/* A response that began before its request was whole is relayed, and its connection is not used again. */
static void test_a_connection_that_answered_early_is_not_used_again(void **state)
{
    struct world *w = *state;
    struct client c;

    world_origin(w, begins_early_script, NULL, NULL);
    world_start(w, NULL);
    client_open(&c, w->port);
    client_send(&c, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 6\r\n\r\nabc");
    client_expect_head(&c, 200);
    client_send(&c, "def");
    assert_int_equal(client_read_body(&c, NULL, NULL), READ_OK);
    EXPECT_BODY(&c.response, "ok");
    client_send(&c, "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    EXPECT_BODY(client_expect(&c, 200), "another");
    client_close(&c);
    world_finish(w);
}

static void steady_script(struct origin_conn *c)
{
    static char piece[1 << 16];

    if (origin_read(c) && origin_send(c, "HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n"))
        for (unsigned i = 0; i < 1525 && origin_send_bytes(c, piece, sizeof piece); i++)
            ;
}

/* One who reads slowly but steadily makes progress, whatever the kernel keeps in between. */
static void test_steady_slow_reader(void **state)
{
    struct world *w = *state;
    struct client c;
    char piece[40000];

    world_origin(w, steady_script, NULL, NULL);
    world_start(w, "\"timeouts\": {\"client_write\": \"1500ms\"}");
    client_open(&c, w->port);
    client_send(&c, "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    for (int i = 0; i < 40; i++) { /* 400 kB/s, for four seconds */
        uint64_t next = now_ms() + 100;
        ssize_t n = recv(c.in.fd, piece, sizeof piece, MSG_WAITALL);
        CHECK(n == (ssize_t)sizeof piece, "cut off after %d pieces", i);
        for (int left; (left = left_ms(next)) > 0;)
            usleep((unsigned)left * 1000);
    }
    assert_int_equal(daemon_count_events(&w->daemon, 0, "request", "reason=client_write_timeout"), 0);
    client_reset(&c);
    world_finish(w);
}

static void late_junk_script(struct origin_conn *c)
{
    while (origin_read(c)) {
        if (!origin_answer(c, c->index == 0 ? "first" : "second"))
            return;
        if (c->index == 0) {
            origin_hold(c);
            origin_send(c, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil");
            origin_set_mode(c->origin, 1);
            origin_drain(c);
        }
    }
}

static void stop_and_wait(const struct daemon *d)
{
    char path[64];

    snprintf(path, sizeof path, "/proc/%d/status", (int)d->pid);
    daemon_signal(d, SIGSTOP);
    for (uint64_t deadline = deadline_in(patience_ms());; rest()) {
        struct bytes status = file_content(path);
        bool stopped = strstr(status.p, "State:\tT") != NULL;
        bytes_free(&status);
        if (stopped)
            return;
        CHECK(left_ms(deadline) > 0, "the daemon does not stop: %s", path);
    }
}

/* What lay on a kept connection before it was taken is no answer, even if it is seen only then. */
static void test_junk_on_a_kept_connection(void **state)
{
    struct world *w = *state;
    struct origin *o = world_origin(w, late_junk_script, NULL, NULL);
    struct client c;

    world_start(w, NULL);
    client_open(&c, w->port);
    client_send(&c, "GET /1 HTTP/1.1\r\nHost: h\r\n\r\n");
    EXPECT_BODY(client_expect(&c, 200), "first");
    stop_and_wait(&w->daemon);
    client_send(&c, "GET /2 HTTP/1.1\r\nHost: h\r\n\r\n");
    origin_release(o);
    origin_wait_mode(o, 1);
    daemon_signal(&w->daemon, SIGCONT);
    EXPECT_BODY(client_expect(&c, 200), "second");
    client_close(&c);
    world_finish(w);
}

static void test_unix_listener(void **state)
{
    struct world *w = *state;
    struct origin *o = world_origin(w, show_script, NULL, NULL);
    struct client c;
    char listen[400];

    snprintf(listen, sizeof listen, "\"listen\": \"unix:%s\"", world_path(w, "front.sock"));
    world_start(w, listen);
    client_open_unix(&c, world_path(w, "front.sock"));
    client_send(&c, "GET /u HTTP/1.1\r\nHost: h\r\n\r\n");
    expect_shown(&c, "GET /u ");
    HAS_NOT(origin_head(o, 0), "127.0.0.1");
    client_close(&c);
    world_finish(w);
    assert_int_equal(access(world_path(w, "front.sock"), F_OK), -1);
}

static void test_unix_backend(void **state)
{
    struct world *w = *state;
    char address[300];
    const char *const argv[] = {"demo-backend", "--listen", address, NULL};

    snprintf(address, sizeof address, "unix:%s", world_path(w, "back.sock"));
    world_helper(w, argv);
    world_backend(w, address, "\"name\": \"unix\"");
    uint64_t deadline = deadline_in(patience_ms());
    while (access(world_path(w, "back.sock"), F_OK) != 0 && left_ms(deadline) > 0)
        rest();
    world_start(w, NULL);
    assert_int_equal(http_get(w->port, "/", NULL), 200);
    daemon_expect_event(&w->daemon, 0, "request", "backend=unix status=200");
    world_finish(w);
}

static void test_any_address_serves_both_families(void **state)
{
    struct world *w = *state;
    char listen[64];

    world_origin(w, show_script, NULL, NULL);
    snprintf(listen, sizeof listen, "\"listen\": \":%d\"", w->port);
    world_start(w, listen);
    assert_int_equal(http_get(w->port, "/", NULL), 200);
    daemon_expect_event(&w->daemon, 0, "request", "client=127.0.0.1");
    world_finish(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WORLD_TEST(test_methods_and_targets),
        WORLD_TEST(test_absolute_form),
        WORLD_TEST(test_request_content),
        WORLD_TEST(test_trailers),
        WORLD_TEST(test_trailers_are_sent_again),
        WORLD_TEST(test_bytewise),
        WORLD_TEST(test_response_bytewise),
        WORLD_TEST(test_keep_alive_reuses_the_backend_connection),
        WORLD_TEST(test_pipelining),
        WORLD_TEST(test_half_closed_client_gets_its_responses),
        WORLD_TEST(test_connection_close_of_the_client),
        WORLD_TEST(test_http_1_0),
        WORLD_TEST(test_http_1_0_keep_alive),
        WORLD_TEST(test_responses_without_content),
        WORLD_TEST(test_content_that_ends_with_the_connection),
        WORLD_TEST(test_a_cut_response_is_cut_to_the_client),
        WORLD_TEST(test_expect_continue),
        WORLD_TEST(test_interim_responses_are_not_for_http_1_0),
        WORLD_TEST(test_request_fields),
        WORLD_TEST(test_request_ids),
        WORLD_TEST(test_trusted_proxy),
        WORLD_TEST(test_response_fields),
        WORLD_TEST(test_large_uploads),
        WORLD_TEST(test_large_downloads),
        WORLD_TEST(test_slow_reader),
        WORLD_TEST(test_flood_of_interim_responses),
        WORLD_TEST(test_slow_backend),
        WORLD_TEST(test_early_response),
        WORLD_TEST(test_early_response_outlasts_the_wait_for_content),
        WORLD_TEST(test_a_slow_100),
        WORLD_TEST(test_a_connection_that_answered_early_is_not_used_again),
        WORLD_TEST(test_steady_slow_reader),
        WORLD_TEST(test_junk_on_a_kept_connection),
        WORLD_TEST(test_unix_listener),
        WORLD_TEST(test_unix_backend),
        WORLD_TEST(test_any_address_serves_both_families),
    };

    return cmocka_run_group_tests_name("forward", tests, NULL, NULL);
}
