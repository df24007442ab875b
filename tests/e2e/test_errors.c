/* Every answer that the balancer makes itself: its status, its problem document, its reason in the log. */
#include "harness/world.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* The last response is a whole problem document of that status (RFC 9457). */
static void expect_problem(const struct message *r, int status)
{
    cJSON *doc;
    const cJSON *number;

    CHECK(r->status == status, "expected %d, got:\n%s%s", status, r->head, r->body.p);
    CHECK(message_field(r, "Content-Type") && strcmp(message_field(r, "Content-Type"), "application/problem+json") == 0,
          "Content-Type is wrong in:\n%s", r->head);
    CHECK(message_field(r, "Cache-Control") && strcmp(message_field(r, "Cache-Control"), "no-store") == 0,
          "a cache may keep:\n%s", r->head);
    doc = cJSON_Parse(r->body.p);
    CHECK(doc, "no JSON: %s", r->body.p);
    number = cJSON_GetObjectItemCaseSensitive(doc, "status");
    CHECK(cJSON_IsNumber(number) && number->valueint == status, "status is wrong in: %s", r->body.p);
    CHECK(cJSON_IsString(cJSON_GetObjectItemCaseSensitive(doc, "type")), "no type in: %s", r->body.p);
    CHECK(cJSON_IsString(cJSON_GetObjectItemCaseSensitive(doc, "detail")), "no detail in: %s", r->body.p);
    CHECK(strcmp(log_field(doc, "title"), r->reason) == 0, "title is not the reason phrase in: %s", r->body.p);
    cJSON_Delete(doc);
}

/* Sends `text` on a new connection and expects that answer, that reason, and the connection's end. */
static void expect_refused(struct world *w, const char *text, int status, const char *reason)
{
    struct client c;
    char match[100];
    size_t mark = daemon_mark(&w->daemon);

    client_open(&c, w->port);
    client_send(&c, text);
    client_expect(&c, 0);
    CHECK(c.response.status == status, "expected %d to \"%.60s\", got:\n%s%s", status, text, c.response.head,
          c.response.body.p);
    expect_problem(&c.response, status);
    assert_true(message_has_token(&c.response, "Connection", "close"));
    client_expect_end(&c);
    client_close(&c);
    snprintf(match, sizeof match, "status=%d reason=%s", status, reason);
    daemon_expect_event(&w->daemon, mark, "request", match);
}

struct refused {
    const char *text;
    int status;
    const char *reason;
};

static const struct refused malformed[] = {
    {"GET /\r\n\r\n", 400, "bad_request_line"},
    {"GET  / HTTP/1.1\r\nHost: h\r\n\r\n", 400, "bad_request_line"},
    {"GET / HTTP/1.1 \r\nHost: h\r\n\r\n", 400, "bad_request_line"},
    {"GET / HTTP/1.1\nHost: h\r\n\r\n", 400, "bad_line_end"},
    {"GET / HTTP/1.1\r\nHost: h\n\n", 400, "bad_line_end"},
    {"GET / HTTP/1.1\r\nHost: h\r\nA: b\rc\r\n\r\n", 400, "bad_line_end"},
    {"GET / HTTP/1.1\r\nHost: h\r\nA : b\r\n\r\n", 400, "bad_field"},
    {"GET / HTTP/1.1\r\nHost: h\r\nA\r\n\r\n", 400, "bad_field"},
    {"GET / HTTP/1.1\r\nHost: h\r\n: b\r\n\r\n", 400, "bad_field"},
    {"GET / HTTP/1.1\r\nHost: h\r\nA: b\r\n folded\r\n\r\n", 400, "bad_field"},
    {"GET / HTTP/1.1\r\nHost: h\r\nA: b\x01\r\n\r\n", 400, "bad_field"},
    {"GET / HTTP/1.1\r\nHost: h\r\nA(b): c\r\n\r\n", 400, "bad_field"},
    {"GET / HTTP/1.1\r\n\r\n", 400, "bad_host"},
    {"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400, "bad_host"},
    {"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400, "bad_host"},
    {"GET / HTTP/1.1\r\nHost: user@a\r\n\r\n", 400, "bad_host"},
    {"GET x HTTP/1.1\r\nHost: h\r\n\r\n", 400, "bad_target"},
    {"GET /#f HTTP/1.1\r\nHost: h\r\n\r\n", 400, "bad_target"},
    {"GET * HTTP/1.1\r\nHost: h\r\n\r\n", 400, "bad_target"},
    {"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: +1\r\n\r\nx", 400, "bad_content_length"},
    {"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1, 1\r\n\r\nx", 400, "bad_content_length"},
    {"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx", 400, "bad_content_length"},
    {"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 99999999999999999999\r\n\r\nx", 400, "bad_content_length"},
    {"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\nx", 400,
     "bad_transfer_encoding"},
    {"POST / HTTP/1.0\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, "bad_transfer_encoding"},
    {"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", 400,
     "bad_transfer_encoding"},
    {"GET / HTTP/1.1\r\nHost: h\r\nX-Client-ID: a\r\nX-Client-ID: b\r\n\r\n", 400, "bad_client_id"},
    {"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501, "coding_not_implemented"},
    {"FROBNICATE / HTTP/1.1\r\nHost: h\r\n\r\n", 501, "not_implemented"},
    {"CONNECT h:80 HTTP/1.1\r\nHost: h:80\r\n\r\n", 501, "not_implemented"},
    {"GET / HTTP/2.0\r\nHost: h\r\n\r\n", 505, "version_not_supported"},
    {"GET / HTTP/0.9\r\nHost: h\r\n\r\n", 505, "version_not_supported"},
    {"\x16\x03\x01\x02", 400, "bad_request_line"},
};

static void test_malformed_requests(void **state)
{
    struct world *w = *state;
    struct origin *o = world_origin(w, origin_answer_all, NULL, NULL);

    world_start(w, NULL);
    for (size_t i = 0; i < sizeof malformed / sizeof *malformed; i++)
        expect_refused(w, malformed[i].text, malformed[i].status, malformed[i].reason);
    assert_int_equal(origin_requests(o), 0);
    world_finish(w);
}

/* A coding behind chunked: refused, whichever of the two faults is named. */
static void test_chunked_not_last(void **state)
{
    struct world *w = *state;
    struct client c;

    world_origin(w, origin_answer_all, NULL, NULL);
    world_start(w, NULL);
    client_open(&c, w->port);
    client_send(&c, "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked, gzip\r\n\r\n");
    client_expect(&c, 0);
    assert_true(c.response.status == 400 || c.response.status == 501);
    client_expect_end(&c);
    client_close(&c);
    assert_int_equal(origin_requests(w->origins[0]), 0);
    world_finish(w);
}

/* What stands behind a malformed request is never taken for a request. */
static void test_nothing_behind_a_400_is_served(void **state)
{
    struct world *w = *state;
    struct client c;

    world_origin(w, origin_answer_all, NULL, NULL);
    world_start(w, NULL);
    client_open(&c, w->port);
    client_send(&c, "GET / HTTP/1.1\r\nHost: h\r\nBad Field: x\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n");
    client_expect(&c, 400);
    client_expect_end_or_reset(&c);
    client_close(&c);
    assert_int_equal(origin_requests(w->origins[0]), 0);
    world_finish(w);
}

static void test_bad_chunks(void **state)
{
    static const char *const bodies[] = {"x\r\n",           "5\nhello\r\n0\r\n\r\n", "5\r\nhelloX",          "-1\r\n",
                                         " 5\r\nhello\r\n", "10000000000000000\r\n", "5;a=\x01\r\nhello\r\n"};
    struct world *w = *state;

    world_origin(w, origin_answer_all, NULL, NULL);
    world_start(w, NULL);
    for (size_t i = 0; i < sizeof bodies / sizeof *bodies; i++) {
        char text[200];

        snprintf(text, sizeof text, "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n%s", bodies[i]);
        expect_refused(w, text, 400, "bad_chunk");
    }
    world_finish(w);
}

static void test_trace_is_not_allowed(void **state)
{
    struct world *w = *state;
    struct client c;

    world_origin(w, origin_answer_all, NULL, NULL);
    world_start(w, NULL);
    client_open(&c, w->port);
    client_send(&c, "TRACE / HTTP/1.1\r\nHost: h\r\n\r\n");
    expect_problem(client_expect(&c, 405), 405);
    CHECK(message_field(&c.response, "Allow"), "no Allow in:\n%s", c.response.head);
    client_close(&c);
    daemon_expect_event(&w->daemon, 0, "request", "status=405 reason=method_not_allowed");
    client_open(&c, w->port);
    client_send(&c, "TRACE /clients/register?x HTTP/1.1\r\nHost: h\r\n\r\n");
    expect_problem(client_expect(&c, 405), 405);
    assert_string_equal(message_field(&c.response, "Allow"), "POST");
    client_close(&c);
    world_finish(w);
}

static void test_expectation_failed(void **state)
{
    struct world *w = *state;
    struct client c;

    world_origin(w, origin_answer_all, NULL, NULL);
    world_start(w, NULL);
    client_open(&c, w->port);
    client_send(&c, "GET / HTTP/1.1\r\nHost: h\r\nExpect: a-miracle\r\n\r\n");
    expect_problem(client_expect(&c, 417), 417);
    client_close(&c);
    world_finish(w);
}

static void test_loop_detected(void **state)
{
    struct world *w = *state;
    struct client c;
    struct bytes text = {0};

    world_origin(w, origin_answer_all, NULL, NULL);
    world_start(w, NULL);
    bytes_addf(&text, "GET / HTTP/1.1\r\nHost: h\r\n");
    for (int i = 0; i < 6; i++)
        bytes_addf(&text, "Via: 1.1 loadbalancer\r\n");
    bytes_addf(&text, "\r\n");
    client_open(&c, w->port);
    client_send(&c, text.p);
    expect_problem(client_expect(&c, 508), 508);
    client_close(&c);
    bytes_free(&text);
    daemon_expect_event(&w->daemon, 0, "request", "status=508 reason=loop_detected");
    world_finish(w);
}

/* A response to HEAD has no content (RFC 9110 section 9.3.2), not even where the rest of its head is malformed or
 * names another version. */
static void test_malformed_head_request(void **state)
{
    struct world *w = *state;
    struct client c;

    world_origin(w, origin_answer_all, NULL, NULL);
    world_start(w, NULL);
    client_open(&c, w->port);
    client_send(&c, "HEAD /a HTTP/1.1\r\nHost: h\r\nNot a field\r\n\r\n");
    client_expect_head_response(&c, 400);
    client_expect_end(&c);
    client_close(&c);
    daemon_expect_event(&w->daemon, 0, "request", "status=400 method=HEAD target=/a reason=bad_field");
    client_open(&c, w->port);
    client_send(&c, "HEAD /a HTTP/2.0\r\nHost: h\r\n\r\n");
    client_expect_head_response(&c, 505);
    client_expect_end(&c);
    client_close(&c);
    world_finish(w);
}

static void test_request_too_large(void **state)
{
    struct world *w = *state;
    struct bytes text = {0};
    char path[1200];

    world_origin(w, origin_answer_all, NULL, NULL);
    world_start(w, "\"limits\": {\"header_bytes\": 4096, \"header_fields\": 20, \"target_bytes\": 1000, "
                   "\"body_bytes\": 1000}");
    memset(path, 'a', sizeof path);
    bytes_addf(&text, "GET /%.1100s HTTP/1.1\r\nHost: h\r\n\r\n", path);
    expect_refused(w, text.p, 414, "target_too_long");
    bytes_free(&text);

    bytes_addf(&text, "GET / HTTP/1.1\r\nHost: h\r\n");
    for (int i = 0; i < 5; i++)
        bytes_addf(&text, "X-%d: %.1000s\r\n", i, path);
    bytes_addf(&text, "\r\n");
    expect_refused(w, text.p, 431, "head_too_large");
    bytes_free(&text);

    bytes_addf(&text, "GET / HTTP/1.1\r\nHost: h\r\n");
    for (int i = 0; i < 20; i++)
        bytes_addf(&text, "X-%d: x\r\n", i);
    bytes_addf(&text, "\r\n");
    expect_refused(w, text.p, 431, "head_too_large");
    bytes_free(&text);

    /* The log says which they were. */
    assert_int_equal(daemon_count_events(&w->daemon, 0, "request", "status=431 method=GET target=/"), 2);
    bytes_addf(&text, "method=GET target=/%.1000s", path);
    daemon_expect_event(&w->daemon, 0, "request", text.p);
    bytes_free(&text);

    expect_refused(w, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1001\r\n\r\n", 413, "body_too_large");
    expect_refused(w, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1001\r\nExpect: 100-continue\r\n\r\n", 413,
                   "body_too_large");
    bytes_addf(&text,
               "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n258\r\n%.600s\r\n258\r\n%.600s\r\n",
               path, path);
    expect_refused(w, text.p, 413, "body_too_large");
    bytes_free(&text);

    assert_int_equal(http_request(w->port, "POST", "/", "", "fits", NULL), 200);
    world_finish(w);
}

/* Up to the limits everything is served. */
static void test_limits_are_inclusive(void **state)
{
    struct world *w = *state;
    struct bytes text = {0};
    struct client c;
    char a[1200];

    world_origin(w, origin_answer_all, NULL, NULL);
    world_start(w, "\"limits\": {\"header_fields\": 20, \"target_bytes\": 1000, \"body_bytes\": 1000}");
    memset(a, 'a', sizeof a);
    bytes_addf(&text, "POST /%.999s HTTP/1.1\r\nHost: h\r\nContent-Length: 1000\r\n", a);
    for (int i = 0; i < 18; i++)
        bytes_addf(&text, "X-%d: x\r\n", i);
    bytes_addf(&text, "\r\n%.1000s", a);
    client_open(&c, w->port);
    client_send(&c, text.p);
    client_expect(&c, 200);
    client_close(&c);
    bytes_free(&text);
    world_finish(w);
}

static void test_request_timeouts(void **state)
{
    struct world *w = *state;
    struct client c;

    world_origin(w, origin_answer_all, NULL, NULL);
    world_start(w,
                "\"timeouts\": {\"client_header\": \"300ms\", \"client_body\": \"300ms\", \"client_idle\": \"400ms\"}");
    expect_refused(w, "GET / HTTP/1.1\r\nHo", 408, "client_header_timeout");
    client_open(&c, w->port); /* what has come of the head counts for the answer, and for the log */
    client_send(&c, "HEAD /half HTTP/1.1\r\nHost: h\r\nA: b");
    client_expect_head_response(&c, 408);
    client_expect_end(&c);
    client_close(&c);
    daemon_expect_event(&w->daemon, 0, "request", "method=HEAD target=/half status=408");
    expect_refused(w, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nabc", 408, "client_body_timeout");

    client_open(&c, w->port); /* an idle connection just ends */
    client_send(&c, "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    client_expect(&c, 200);
    client_expect_end(&c);
    client_close(&c);
    world_finish(w);
}

/* Bytes that trickle in do not put the end of the head off. */
static void test_slow_head(void **state)
{
    struct world *w = *state;
    struct client c;
    uint64_t begun = now_ms();

    world_origin(w, origin_answer_all, NULL, NULL);
    world_start(w, "\"timeouts\": {\"client_header\": \"400ms\"}");
    client_open(&c, w->port);
    client_send(&c, "GET / HTTP/1.1\r\nHost: h\r\n");
    for (int i = 0; i < 200 && stream_fill(&c.in, deadline_in(50)) == READ_TIMEOUT; i++)
        if (!client_try_send(&c, "X-A: b\r\n", 8))
            break;
    CHECK(now_ms() - begun < 5000u || is_instrumented(), "%s", "the head could go on for ever");
    client_expect(&c, 408);
    client_expect_end_or_reset(&c);
    client_close(&c);
    world_finish(w);
}

static void test_admin_from_outside(void **state)
{
    struct world *w = *state;
    struct bytes body;

    world_origin(w, origin_answer_all, NULL, NULL);
    world_start(w, "\"admin\": {\"allow\": [\"10.0.0.0/8\"]}, \"trusted_proxies\": [\"127.0.0.1\"]");
    assert_int_equal(http_get(w->port, "/clients/list", &body), 403);
    CHECK(strstr(body.p, "\"127.0.0.1 is not in admin.allow"), "it does not say who is meant: %s", body.p);
    bytes_free(&body);
    const cJSON *line = daemon_expect_event(&w->daemon, 0, "request", "client=127.0.0.1 status=403 reason=forbidden");
    assert_null(log_field(line, "peer"));
    /* never by a header */
    assert_int_equal(http_request(w->port, "GET", "/clients/list", "X-Forwarded-For: 10.0.0.1\r\n", NULL, NULL), 403);
    daemon_expect_event(&w->daemon, 0, "request", "client=10.0.0.1 peer=127.0.0.1 status=403 reason=forbidden");
    assert_int_equal(http_get(w->port, "/", NULL), 200);
    world_finish(w);
}

static void test_admin_token(void **state)
{
    struct world *w = *state;
    struct client c;

    world_origin(w, origin_answer_all, NULL, NULL);
    world_start(w, "\"admin\": {\"token\": \"secret\"}");
    client_open(&c, w->port);
    client_send(&c, "GET /clients/list HTTP/1.1\r\nHost: h\r\n\r\n");
    expect_problem(client_expect(&c, 401), 401);
    CHECK(strncmp(message_field(&c.response, "WWW-Authenticate"), "Bearer", 6) == 0, "WWW-Authenticate is wrong in\n%s",
          c.response.head);
    client_send(&c, "GET /clients/list HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer secreT\r\n\r\n");
    client_expect(&c, 401);
    client_send(&c, "GET /clients/list HTTP/1.1\r\nHost: h\r\nAuthorization: Basic secret\r\n\r\n");
    client_expect(&c, 401);
    client_send(&c, "GET /clients/list HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer secret\r\n\r\n");
    client_expect(&c, 200);
    client_close(&c);
    world_finish(w);
}

/* Backends that fail. */

static void broken_script(struct origin_conn *c)
{
    static const char *const answers[][2] = {
        {"/garbage", "hello\r\n\r\n"},
        {"/two-lengths", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"},
        {"/both", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n"},
        {"/bare-lf", "HTTP/1.1 200 OK\nContent-Length: 1\n\na"},
        {"/status", "HTTP/1.1 99 Odd\r\nContent-Length: 0\r\n\r\n"},
        {"/switch", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"},
        {"/half-head", "HTTP/1.1 200 OK\r\nContent-Le"},
        {"/nothing", ""},
    };

    while (origin_read(c)) {
        if (strcmp(c->request.target, "/ok") == 0) {
            if (!origin_answer(c, "ok"))
                return;
            continue;
        }
        if (strcmp(c->request.target, "/hang") == 0)
            origin_drain(c);
        if (strcmp(c->request.target, "/large-head") == 0) {
            origin_send(c, "HTTP/1.1 200 OK\r\n");
            while (origin_send(c, "X-More: 0123456789012345678901234567890123456789\r\n"))
                ;
        }
        for (size_t i = 0; i < sizeof answers / sizeof *answers; i++)
            if (strcmp(c->request.target, answers[i][0]) == 0)
                origin_send(c, answers[i][1]);
        return;
    }
}

/* The client's connection survives its backend's faults. */
static void test_bad_responses(void **state)
{
    static const struct refused cases[] = {
        {"/garbage", 502, "bad_response"},
        {"/two-lengths", 502, "bad_response"},
        {"/both", 502, "bad_response"},
        {"/bare-lf", 502, "bad_response"},
        {"/status", 502, "bad_response"},
        {"/switch", 502, "bad_response"},
        {"/half-head", 502, "backend_reset"},
        {"/nothing", 502, "backend_reset"},
        {"/large-head", 502, "response_head_too_large"},
    };
    struct world *w = *state;
    struct client c;

    world_origin(w, broken_script, NULL, NULL);
    world_start(w, "\"retry\": {\"attempts\": 0}");
    client_open(&c, w->port);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char match[100];

        client_sendf(&c, "GET %s HTTP/1.1\r\nHost: h\r\n\r\n", cases[i].text);
        expect_problem(client_expect(&c, 0), cases[i].status);
        snprintf(match, sizeof match, "target=%s status=%d reason=%s cause=* backend=b1", cases[i].text,
                 cases[i].status, cases[i].reason);
        daemon_expect_event(&w->daemon, 0, "request", match);
        client_send(&c, "GET /ok HTTP/1.1\r\nHost: h\r\n\r\n");
        client_expect(&c, 200);
    }
    client_close(&c);
    world_finish(w);
}

/* A head over our limit may be one backend's alone, or the answer to that request wherever it goes: tried once more,
 * and nobody's fault. */
static void test_large_heads_eject_nobody(void **state)
{
    struct world *w = *state;
    struct client c;

    for (int i = 0; i < 2; i++)
        world_origin(w, broken_script, NULL, NULL);
    world_start(w, "\"passive_check\": {\"failures\": 2, \"ejection\": \"1m\"}, \"retry\": {\"attempts\": 3}");
    client_open(&c, w->port);
    for (int i = 0; i < 8; i++) {
        client_send(&c, "GET /large-head HTTP/1.1\r\nHost: h\r\n\r\n");
        expect_problem(client_expect(&c, 0), 502);
    }
    client_close(&c);
    client_open(&c, w->port);
    for (int i = 0; i < 8; i++) {
        size_t mark = daemon_mark(&w->daemon);
        client_send(&c, "GET /ok HTTP/1.1\r\nHost: h\r\n\r\n");
        client_expect(&c, 200);
        daemon_expect_event(&w->daemon, mark, "request", "target=/ok");
    }
    client_close(&c);
    assert_int_equal(daemon_count_events(&w->daemon, 0, "request", "target=/ok status=200 backend=b1"), 4);
    assert_int_equal(daemon_count_events(&w->daemon, 0, "request", "target=/ok status=200 backend=b2"), 4);
    assert_int_equal(daemon_count_events(&w->daemon, 0, "request", "target=/large-head attempts=2"), 8);
    world_stop(w);
    daemon_expect_event(&w->daemon, 0, "backend_totals", "backend=b1 attempts=12 failures=8");
    daemon_expect_event(&w->daemon, 0, "backend_totals", "backend=b2 attempts=12 failures=8");
    world_finish(w);
}

/* Where one backend alone sends such heads, another one answers; but never to a POST, which has arrived. */
static void test_large_heads_of_one_backend(void **state)
{
    struct world *w = *state;
    struct client c;
    unsigned failed = 0;

    world_origin(w, broken_script, NULL, NULL);
    world_origin(w, origin_answer_all, NULL, NULL);
    world_start(w, "\"passive_check\": {\"failures\": 2, \"ejection\": \"1m\"}, \"retry\": {\"attempts\": 1}");
    client_open(&c, w->port);
    for (int i = 0; i < 8; i++) {
        client_send(&c, "GET /large-head HTTP/1.1\r\nHost: h\r\n\r\n");
        client_expect(&c, 200);
    }
    for (int i = 0; i < 8; i++) {
        client_send(&c, "POST /large-head HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n");
        failed += client_expect(&c, 0)->status == 502;
    }
    client_close(&c);
    assert_int_equal(failed, 4);
    world_stop(w);
    assert_int_equal(daemon_count_events(&w->daemon, 0, "backend_down", "backend=b1"), 0);
    daemon_expect_event(&w->daemon, 0, "backend_totals", "backend=b1 attempts=12 failures=12");
    world_finish(w);
}

static void test_connect_refused(void **state)
{
    struct world *w = *state;
    struct client c;
    char address[32];

    snprintf(address, sizeof address, "127.0.0.1:%d", port_reserve());
    world_backend(w, address, "\"name\": \"dead\"");
    world_start(w, NULL);
    client_open(&c, w->port);
    client_send(&c, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nab");
    expect_problem(client_expect(&c, 502), 502);
    client_close(&c);
    const cJSON *line = daemon_expect_event(&w->daemon, 0, "request", "status=502 reason=connect_failed cause=*");
    assert_string_equal(log_field(line, "cause"), "connect refused");
    world_finish(w);
}

static void test_response_timeout(void **state)
{
    struct world *w = *state;
    struct client c;

    world_origin(w, broken_script, NULL, NULL);
    world_start(
        w,
        "\"timeouts\": {\"backend_response\": \"300ms\", \"backend_idle\": \"100ms\"}, \"retry\": {\"attempts\": 0}");
    client_open(&c, w->port);
    client_send(&c, "GET /hang HTTP/1.1\r\nHost: h\r\n\r\n");
    expect_problem(client_expect(&c, 504), 504);
    client_send(&c, "GET /ok HTTP/1.1\r\nHost: h\r\n\r\n");
    client_expect(&c, 200);
    client_close(&c);
    daemon_expect_event(&w->daemon, 0, "request", "target=/hang status=504 reason=response_timeout cause=*");
    origin_wait_closed(w->origins[0]);
    world_finish(w);
}

/* A listener whose queue is full takes no more connections: they neither succeed nor fail. */
struct full_listener {
    int fd, fillers[16], n, port;
};

static void full_listener_open(struct full_listener *f)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};

    f->port = port_reserve();
    at.sin_port = htons((uint16_t)f->port);
    f->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(f->fd, (struct sockaddr *)&at, sizeof at), 0);
    assert_int_equal(listen(f->fd, 0), 0);
    for (f->n = 0; f->n < 16; f->n++) {
        f->fillers[f->n] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        connect(f->fillers[f->n], (struct sockaddr *)&at, sizeof at);
    }
}

static void full_listener_close(struct full_listener *f)
{
    for (int i = 0; i < f->n; i++)
        close(f->fillers[i]);
    close(f->fd);
}

static void test_connect_timeout(void **state)
{
    struct world *w = *state;
    struct full_listener full;
    struct client c;
    char address[32];

    full_listener_open(&full);
    snprintf(address, sizeof address, "127.0.0.1:%d", full.port);
    world_backend(w, address, NULL);
    world_start(w, "\"timeouts\": {\"connect\": \"300ms\"}, \"retry\": {\"attempts\": 0}");
    client_open(&c, w->port);
    client_send(&c, "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    expect_problem(client_expect(&c, 502), 502);
    client_close(&c);
    daemon_expect_event(&w->daemon, 0, "request", "status=502 reason=connect_timeout cause=*");
    world_finish(w);
    full_listener_close(&full);
}

static void test_no_healthy_backend(void **state)
{
    struct world *w = *state;
    struct client c;
    char address[32];

    snprintf(address, sizeof address, "127.0.0.1:%d", port_reserve());
    world_backend(w, address, "\"name\": \"dead\"");
    world_start(w, "\"health_check\": {\"interval\": \"1500ms\"}");
    daemon_expect_event(&w->daemon, 0, "backend_down", "backend=dead");
    client_open(&c, w->port);
    client_send(&c, "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    expect_problem(client_expect(&c, 503), 503);
    assert_string_equal(message_field(&c.response, "Retry-After"), "2"); /* rounded up: it is worth it then */
    client_close(&c);
    const cJSON *line = daemon_expect_event(&w->daemon, 0, "request", "status=503 reason=no_backend");
    assert_null(log_field(line, "cause")); /* there was no attempt */
    world_finish(w);
}

static void test_name_that_does_not_resolve(void **state)
{
    struct world *w = *state;

    world_backend(w, "no-such-host.invalid:80", "\"name\": \"nowhere\"");
    world_start(w, NULL);
    assert_int_equal(http_get(w->port, "/", NULL), 503);
    world_finish(w);
}

static void test_too_many_connections(void **state)
{
    struct world *w = *state;
    struct client first, second;

    world_origin(w, origin_answer_all, NULL, NULL);
    world_start(w, "\"limits\": {\"connections\": 1}");
    client_open(&first, w->port);
    client_send(&first, "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    client_expect(&first, 200);
    client_open(&second, w->port); /* sends nothing: it is answered all the same */
    expect_problem(client_expect(&second, 503), 503);
    assert_non_null(message_field(&second.response, "Retry-After"));
    client_expect_end(&second);
    client_close(&second);
    daemon_expect_event(&w->daemon, 0, "limit_connections", NULL);
    client_send(&first, "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    client_expect(&first, 200);
    client_close(&first);
    uint64_t deadline = deadline_in(patience_ms());
    while (http_get(w->port, "/", NULL) != 200 && left_ms(deadline) > 0)
        rest();
    assert_int_equal(http_get(w->port, "/", NULL), 200);
    world_finish(w);
}

/* One refused after the other, and each is told: those that have gone make room for politeness to the next. */
static void test_each_of_many_refused_is_told(void **state)
{
    struct world *w = *state;
    struct client served[4], refused;

    world_origin(w, origin_answer_all, NULL, NULL);
    world_start(w, "\"limits\": {\"connections\": 4}");
    for (int i = 0; i < 4; i++) {
        client_open(&served[i], w->port);
        client_send(&served[i], "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
        client_expect(&served[i], 200);
    }
    int fds = proc_fds(w->daemon.pid);
    for (int i = 0; i < 100; i++) {
        client_open(&refused, w->port);
        client_expect(&refused, 503);
        client_expect_end(&refused);
        client_close(&refused);
        world_wait_fds(w, fds); /* it has noticed that this one is gone */
    }
    for (int i = 0; i < 4; i++)
        client_close(&served[i]);
    world_finish(w);
}

/* A problem document has no content in answer to a HEAD, and a connection stays open where nothing was wrong with it.
 */
static void test_error_to_head(void **state)
{
    struct world *w = *state;
    struct client c;
    char address[32];

    snprintf(address, sizeof address, "127.0.0.1:%d", port_reserve());
    world_backend(w, address, NULL);
    world_start(w, NULL);
    client_open(&c, w->port);
    client_send(&c, "HEAD / HTTP/1.1\r\nHost: h\r\n\r\n");
    client_expect_head_response(&c, 502);
    client_send(&c, "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    expect_problem(client_expect(&c, 502), 502);
    client_close(&c);
    world_finish(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WORLD_TEST(test_malformed_requests),
        WORLD_TEST(test_chunked_not_last),
        WORLD_TEST(test_nothing_behind_a_400_is_served),
        WORLD_TEST(test_bad_chunks),
        WORLD_TEST(test_trace_is_not_allowed),
        WORLD_TEST(test_expectation_failed),
        WORLD_TEST(test_loop_detected),
        WORLD_TEST(test_malformed_head_request),
        WORLD_TEST(test_request_too_large),
        WORLD_TEST(test_limits_are_inclusive),
        WORLD_TEST(test_request_timeouts),
        WORLD_TEST(test_slow_head),
        WORLD_TEST(test_admin_from_outside),
        WORLD_TEST(test_admin_token),
        WORLD_TEST(test_bad_responses),
        WORLD_TEST(test_large_heads_eject_nobody),
        WORLD_TEST(test_large_heads_of_one_backend),
        WORLD_TEST(test_connect_refused),
        WORLD_TEST(test_response_timeout),
        WORLD_TEST(test_connect_timeout),
        WORLD_TEST(test_no_healthy_backend),
        WORLD_TEST(test_name_that_does_not_resolve),
        WORLD_TEST(test_too_many_connections),
        WORLD_TEST(test_each_of_many_refused_is_told),
        WORLD_TEST(test_error_to_head),
    };

    return cmocka_run_group_tests_name("errors", tests, NULL, NULL);
}
