/* What a gateway passes on, drops and writes anew. */
#include "http/rules.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#define FIELDS_MAX 100

static struct field fields[FIELDS_MAX];
static char room[8192];

static const struct forward direct = {
    .client_ip = {"10.0.0.1", 8}, .trusted = false, .request_id = {"id-1", 4}, .client_id_name = {"X-Client-ID", 11}};
static const struct forward trusted = {
    .client_ip = {"10.0.0.1", 8}, .trusted = true, .request_id = {"id-1", 4}, .client_id_name = {"X-Client-ID", 11}};

static struct request parse(struct str head)
{
    struct request r = {.headers = {.v = fields, .max = FIELDS_MAX}};
    enum err e = parse_request(head, &r);

    if (e != ERR_OK)
        fail_msg("%s: %.*s", err_reason(e), STR_ARG(head));
    return r;
}

static struct response parse_answer(struct str head, bool to_head)
{
    struct response r = {.headers = {.v = fields, .max = FIELDS_MAX}};

    if (parse_response(head, to_head, false, &r) != ERR_OK)
        fail_msg("bad response: %.*s", STR_ARG(head));
    return r;
}

static void assert_text(struct str s, const char *wanted)
{
    if (!str_eq(s, str_of(wanted)))
        fail_msg("got:\n%.*s\nwanted:\n%s", STR_ARG(s), wanted);
}

/* Writes into exactly as much room as the bound says. */
static struct str forward(struct str head, const struct forward *f)
{
    struct request r = parse(head);
    size_t bound = rules_request_bound(&r, head, f);
    struct head_writer w = head_writer_on(room, bound);

    assert_true(bound <= sizeof room);
    rules_write_request(&w, &r, f);
    assert_false(w.full);
    return head_writer_str(&w);
}

static struct str reply(struct str head, const struct reply *how)
{
    struct response r = parse_answer(head, how->to_head);
    size_t bound = rules_response_bound(&r, head, how);
    struct head_writer w = head_writer_on(room, bound);

    assert_true(bound <= sizeof room);
    rules_write_response(&w, &r, how);
    assert_false(w.full);
    return head_writer_str(&w);
}

#define FORWARD(lit, f) forward(STR(lit), f)
#define REPLY(lit, how) reply(STR(lit), how)

/* What stands in a forwarded request between Host and Via when the client sent nothing of the kind. */
#define ADDED                                                                                                          \
    "X-Forwarded-For: 10.0.0.1\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: h\r\nX-Request-ID: id-1\r\n"            \
    "Via: 1.1 loadbalancer\r\n"

static void fields_go_on_in_order_and_spelling(void **state)
{
    (void)state;
    assert_text(FORWARD("GET /a?b HTTP/1.1\r\nuser-AGENT:x\r\nHost: h\r\nCookie: a\r\nX-A:\t1 \r\nX-A: 2\r\nB:\r\n\r\n",
                        &direct),
                "GET /a?b HTTP/1.1\r\nHost: h\r\nuser-AGENT: x\r\nCookie: a\r\nX-A: 1\r\nX-A: 2\r\nB: \r\n" ADDED
                "\r\n");
}

static void framing_is_written_anew(void **state)
{
    (void)state;
    assert_text(FORWARD("POST / HTTP/1.1\r\nContent-Length: 0042\r\nHost: h\r\n\r\n", &direct),
                "POST / HTTP/1.1\r\nHost: h\r\n" ADDED "Content-Length: 42\r\n\r\n");
    assert_text(FORWARD("POST / HTTP/1.1\r\nTransfer-Encoding: CHUNKED\r\nHost: h\r\n\r\n", &direct),
                "POST / HTTP/1.1\r\nHost: h\r\n" ADDED "Transfer-Encoding: chunked\r\n\r\n");
    assert_text(FORWARD("PUT / HTTP/1.1\r\nHost: h\r\nExpect: 100-Continue\r\nContent-Length: 1\r\n\r\n", &direct),
                "PUT / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\n" ADDED "Content-Length: 1\r\n\r\n");
}

static void what_concerns_one_connection_ends_here(void **state)
{
    (void)state;
    assert_text(FORWARD("GET / HTTP/1.1\r\nHost: h\r\nConnection: keep-alive, X-Mine ,x-other\r\nKeep-Alive: 5\r\n"
                        "X-Mine: 1\r\nX-Minor: 2\r\nX-OTHER: 3\r\nProxy-Connection: close\r\nTE: gzip\r\n"
                        "Trailer: a\r\nUpgrade: h2c\r\nProxy-Authorization: x\r\nProxy-Authenticate: y\r\n"
                        "Connection: x-late\r\nX-Late: 4\r\n\r\n",
                        &direct),
                "GET / HTTP/1.1\r\nHost: h\r\nX-Minor: 2\r\n" ADDED "\r\n");
}

static void what_matters_cannot_be_nominated_away(void **state)
{
    (void)state;
    assert_text(
        FORWARD("POST / HTTP/1.1\r\nHost: h\r\nConnection: host, content-length, transfer-encoding, authorization, "
                "cookie, via, forwarded, x-forwarded-for, x-forwarded-foo, x-request-id, content-type, expect, "
                "x-client-id, x-gone\r\nAuthorization: a\r\nCookie: c\r\nVia: 1.0 x\r\nForwarded: for=y\r\n"
                "X-Forwarded-For: 1.1.1.1\r\nX-Forwarded-Foo: f\r\nContent-Type: t\r\nX-Client-ID: me\r\n"
                "X-Gone: 1\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n",
                &trusted),
        "POST / HTTP/1.1\r\nHost: h\r\nAuthorization: a\r\nCookie: c\r\nVia: 1.0 x\r\nForwarded: for=y\r\n"
        "X-Forwarded-Foo: f\r\nContent-Type: t\r\nX-Client-ID: me\r\nExpect: 100-continue\r\n"
        "X-Forwarded-For: 1.1.1.1, 10.0.0.1\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: h\r\n"
        "X-Request-ID: id-1\r\nVia: 1.1 loadbalancer\r\nContent-Length: 3\r\n\r\n");
}

/* Else a client could take away what a proxy in front of us has said about it. */
static void what_proxies_in_front_add_cannot_be_nominated_away(void **state)
{
    (void)state;
    assert_text(FORWARD("GET / HTTP/1.1\r\nHost: h\r\nConnection: x-real-ip, X-Client-IP, true-client-ip, "
                        "CF-Connecting-IP, x-remote-user, X-Auth-User, x-ssl-client-verify, x-client-cert, x-really\r\n"
                        "X-Real-IP: 1\r\nX-Client-IP: 2\r\nTrue-Client-IP: 3\r\nCF-Connecting-IP: 4\r\n"
                        "X-Remote-User: 5\r\nx-auth-user: 6\r\nX-SSL-Client-Verify: 7\r\nX-Client-Cert: 8\r\n"
                        "X-Really: 9\r\n\r\n",
                        &direct),
                "GET / HTTP/1.1\r\nHost: h\r\nX-Real-IP: 1\r\nX-Client-IP: 2\r\nTrue-Client-IP: 3\r\n"
                "CF-Connecting-IP: 4\r\nX-Remote-User: 5\r\nx-auth-user: 6\r\nX-SSL-Client-Verify: 7\r\n"
                "X-Client-Cert: 8\r\n" ADDED "\r\n");
}

static void strangers_do_not_say_where_they_come_from(void **state)
{
    (void)state;
    assert_text(FORWARD("GET / HTTP/1.1\r\nHost: h\r\nForwarded: for=y\r\nX-Forwarded-For: 1.1.1.1\r\n"
                        "X-Forwarded-Proto: https\r\nX-Forwarded-Host: evil\r\nX-Forwarded-Port: 1\r\n"
                        "X_Forwarded_For: 2.2.2.2\r\nX-Request-ID: theirs\r\nA_b: c\r\n\r\n",
                        &direct),
                "GET / HTTP/1.1\r\nHost: h\r\n" ADDED "\r\n");
}

static void trusted_proxies_do(void **state)
{
    (void)state;
    assert_text(
        FORWARD("GET / HTTP/1.1\r\nHost: h\r\nForwarded: for=y\r\nX-Forwarded-For: 1.1.1.1, 2.2.2.2\r\n"
                "X-Forwarded-Proto: https\r\nX-Forwarded-For:\r\nX-Forwarded-Host: front\r\n"
                "x-forwarded-for: 3.3.3.3\r\nX-Forwarded-Port: 1\r\n\r\n",
                &trusted),
        "GET / HTTP/1.1\r\nHost: h\r\nForwarded: for=y\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: front\r\n"
        "X-Forwarded-Port: 1\r\nX-Forwarded-For: 1.1.1.1, 2.2.2.2, 3.3.3.3, 10.0.0.1\r\nX-Request-ID: id-1\r\n"
        "Via: 1.1 loadbalancer\r\n\r\n");
    assert_text(FORWARD("GET / HTTP/1.1\r\nHost: h\r\n\r\n", &trusted), "GET / HTTP/1.1\r\nHost: h\r\n" ADDED "\r\n");
}

static void peers_without_an_address(void **state)
{
    (void)state;
    struct forward f = trusted;
    f.client_ip = STR("");
    struct str written = FORWARD("GET / HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 1.1.1.1\r\n"
                                 "X-Forwarded-For: 2.2.2.2\r\n\r\n",
                                 &f);
    assert_non_null(memmem(written.p, written.n, "X-Forwarded-For: 1.1.1.1, 2.2.2.2\r\n", 35));
    written = FORWARD("GET / HTTP/1.1\r\nHost: h\r\n\r\n", &f);
    assert_non_null(memmem(written.p, written.n, "X-Forwarded-For: unknown\r\n", 26));
    f.trusted = false;
    written = FORWARD("GET / HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 1.1.1.1\r\n\r\n", &f);
    assert_non_null(memmem(written.p, written.n, "X-Forwarded-For: unknown\r\n", 26));
}

/* RFC 9110 section 15.5.22. */
static void a_426_says_what_to_upgrade_to(void **state)
{
    (void)state;
    struct reply how = {.keep_alive = true, .minor = 1, .framing = {.kind = FRAMING_LENGTH}};
    assert_text(REPLY("HTTP/1.1 426 Upgrade Required\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                      "Content-Length: 0\r\n\r\n",
                      &how),
                "HTTP/1.1 426 Upgrade Required\r\nVia: 1.1 loadbalancer\r\nContent-Length: 0\r\n"
                "Upgrade: websocket\r\nConnection: upgrade\r\n\r\n");
    how.keep_alive = false;
    assert_text(REPLY("HTTP/1.1 426 Upgrade Required\r\nUpgrade: TLS/1.3\r\nContent-Length: 0\r\n\r\n", &how),
                "HTTP/1.1 426 Upgrade Required\r\nVia: 1.1 loadbalancer\r\nContent-Length: 0\r\n"
                "Upgrade: TLS/1.3\r\nConnection: close, upgrade\r\n\r\n");
    assert_text(REPLY("HTTP/1.1 400 Bad Request\r\nUpgrade: x\r\nContent-Length: 0\r\n\r\n", &how),
                "HTTP/1.1 400 Bad Request\r\nVia: 1.1 loadbalancer\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
}

static void absolute_form_becomes_origin_form(void **state)
{
    (void)state;
    assert_text(FORWARD("GET http://other:81/a HTTP/1.1\r\nHost: h\r\n\r\n", &direct),
                "GET /a HTTP/1.1\r\nHost: other:81\r\nX-Forwarded-For: 10.0.0.1\r\nX-Forwarded-Proto: http\r\n"
                "X-Forwarded-Host: other:81\r\nX-Request-ID: id-1\r\nVia: 1.1 loadbalancer\r\n\r\n");
    assert_text(FORWARD("GET http://h?q HTTP/1.1\r\nHost: h\r\n\r\n", &direct),
                "GET /?q HTTP/1.1\r\nHost: h\r\n" ADDED "\r\n");
    assert_text(FORWARD("OPTIONS http://h HTTP/1.1\r\nHost: h\r\n\r\n", &direct),
                "OPTIONS * HTTP/1.1\r\nHost: h\r\n" ADDED "\r\n");
}

static void old_requests_become_1_1(void **state)
{
    (void)state;
    assert_text(FORWARD("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", &direct),
                "GET / HTTP/1.1\r\nHost: \r\nX-Forwarded-For: 10.0.0.1\r\nX-Forwarded-Proto: http\r\n"
                "X-Forwarded-Host: \r\nX-Request-ID: id-1\r\nVia: 1.0 loadbalancer\r\n\r\n");
}

static void request_ids_are_kept_when_sane(void **state)
{
    (void)state;
    char longest[129];

    memset(longest, 'a', sizeof longest);
    assert_true(rules_request_id_is_sane(STR("aZ09._-:=+/")));
    assert_true(rules_request_id_is_sane(str_make(longest, 128)));
    assert_false(rules_request_id_is_sane(str_make(longest, 129)));
    assert_false(rules_request_id_is_sane(STR("")));
    assert_false(rules_request_id_is_sane(STR("a b")));
    assert_false(rules_request_id_is_sane(STR("a\0b")));
    assert_false(rules_request_id_is_sane(STR("a,b")));
    assert_false(rules_request_id_is_sane(STR("\xe9")));
    assert_false(rules_request_id_is_sane(STR("@[`{")));
}

static enum err loop_of(const char *via)
{
    char head[1024];
    int n = snprintf(head, sizeof head, "GET / HTTP/1.1\r\nHost: h\r\n%s\r\n", via);
    struct request r = parse(str_make(head, (size_t)n));

    return rules_check_loop(&r);
}

static void a_request_that_comes_by_too_often_is_a_loop(void **state)
{
    (void)state;
    assert_int_equal(loop_of(""), ERR_OK);
    assert_int_equal(
        loop_of("Via: 1.1 loadbalancer, 1.1 LoadBalancer (x), 1.0 loadbalancer\r\nVia: HTTP/1.1 loadbalancer\r\n"
                "Via: 1.1  loadbalancer\r\n"),
        ERR_OK);
    assert_int_equal(loop_of("Via: 1.1 loadbalancer, 1.1 loadbalancer, 1.0 loadbalancer\r\nVia: 1.1 loadbalancer\r\n"
                             "Via: 1.1 loadbalancer (x)\r\nVia: 1.1 loadbalancer\r\n"),
                     ERR_LOOP_DETECTED);
    assert_int_equal(
        loop_of("Via: 1.1 a, 1.1 b, 1.1 c, 1.1 d, 1.1 e, 1.1 f, 1.1 g, loadbalancer, 1.1, 1.1 loadbalancers\r\n"),
        ERR_OK);
}

static void responses_are_passed_on(void **state)
{
    (void)state;
    struct reply how = {
        .minor = 1, .keep_alive = true, .framing = {FRAMING_LENGTH, 5}, .extra = STR("RateLimit: x\r\n")};

    assert_text(
        REPLY("HTTP/1.1 200 Fine\r\nServer:s\r\nSet-Cookie: a\r\nA_b: c\r\nset-cookie: b\r\nContent-Length: 05\r\n"
              "Connection: X-Own\r\nX-Own: 1\r\nKeep-Alive: 5\r\nRateLimit: y\r\nUpgrade: h2\r\n\r\n",
              &how),
        "HTTP/1.1 200 Fine\r\nServer: s\r\nSet-Cookie: a\r\nA_b: c\r\nset-cookie: b\r\nRateLimit: y\r\n"
        "Via: 1.1 loadbalancer\r\nContent-Length: 5\r\nRateLimit: x\r\n\r\n");
    how = (struct reply){.minor = 1, .keep_alive = false, .framing = {FRAMING_CHUNKED, 0}};
    assert_text(REPLY("HTTP/1.0 200\r\n\r\n", &how),
                "HTTP/1.1 200 OK\r\nVia: 1.0 loadbalancer\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n");
    how = (struct reply){.minor = 0, .keep_alive = false, .framing = {FRAMING_CLOSE, 0}};
    assert_text(REPLY("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", &how),
                "HTTP/1.1 200 OK\r\nVia: 1.1 loadbalancer\r\nConnection: close\r\n\r\n");
    how = (struct reply){.minor = 0, .keep_alive = true, .framing = {FRAMING_LENGTH, 0}};
    assert_text(REPLY("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", &how),
                "HTTP/1.1 200 OK\r\nVia: 1.1 loadbalancer\r\nContent-Length: 0\r\nConnection: keep-alive\r\n\r\n");
}

static void the_length_of_an_absent_body_stays(void **state)
{
    (void)state;
    struct reply how = {.to_head = true, .minor = 1, .keep_alive = true, .framing = {FRAMING_NONE, 0}};

    assert_text(REPLY("HTTP/1.1 200 OK\r\nContent-Length: 0123\r\n\r\n", &how),
                "HTTP/1.1 200 OK\r\nVia: 1.1 loadbalancer\r\nContent-Length: 123\r\n\r\n");
    assert_text(REPLY("HTTP/1.1 200 OK\r\n\r\n", &how), "HTTP/1.1 200 OK\r\nVia: 1.1 loadbalancer\r\n\r\n");
    assert_text(REPLY("HTTP/1.1 204 No Content\r\nContent-Length: 1\r\n\r\n", &how),
                "HTTP/1.1 204 No Content\r\nVia: 1.1 loadbalancer\r\n\r\n");
    how.to_head = false;
    assert_text(REPLY("HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", &how),
                "HTTP/1.1 304 Not Modified\r\nVia: 1.1 loadbalancer\r\nContent-Length: 9\r\n\r\n");
    assert_text(REPLY("HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", &how),
                "HTTP/1.1 204 No Content\r\nVia: 1.1 loadbalancer\r\n\r\n");
}

static void interim_responses_are_passed_on(void **state)
{
    (void)state;
    struct str head =
        STR("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nContent-Length: 5\r\nConnection: x-a\r\nX-A: 1\r\n\r\n");
    struct response r = parse_answer(head, false);
    struct head_writer w = head_writer_on(room, sizeof room);

    rules_write_interim(&w, &r);
    assert_text(head_writer_str(&w), "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n");
}

/* Field lines of one byte each way gain the most when they are written anew. */
static void bounds_hold_for_the_tersest_heads(void **state)
{
    (void)state;
    static char head[2048];
    size_t n = (size_t)snprintf(head, sizeof head, "M-SEARCH http://h?q HTTP/1.0\r\nExpect:100-continue\r\n");

    for (unsigned i = 1; i < FIELDS_MAX; i++, n += 4)
        memcpy(head + n, "a:\r\n", 4);
    memcpy(head + n, "\r\n", 2);
    n += 2;
    forward(str_make(head, n), &direct);
    forward(str_make(head, n), &trusted);

    n = (size_t)snprintf(head, sizeof head, "HTTP/1.0 511\r\nContent-Length:9223372036854775807\r\n");
    for (unsigned i = 1; i < FIELDS_MAX; i++, n += 4)
        memcpy(head + n, "a:\r\n", 4);
    memcpy(head + n, "\r\n", 2);
    n += 2;
    struct reply how = {
        .minor = 0, .keep_alive = true, .framing = {FRAMING_LENGTH, UINT64_MAX}, .extra = STR("A: b\r\n")};
    reply(str_make(head, n), &how);
}

static void trailers_are_asked_for_and_announced(void **state)
{
    (void)state;
    assert_text(FORWARD("GET / HTTP/1.1\r\nHost: h\r\nTE: gzip;q=0.5, trailers\r\nConnection: te\r\n\r\n", &direct),
                "GET / HTTP/1.1\r\nHost: h\r\nConnection: TE\r\nTE: trailers\r\n" ADDED "\r\n");
    assert_text(FORWARD("POST / HTTP/1.1\r\nHost: h\r\nTrailer: A\r\nTransfer-Encoding: chunked\r\n\r\n", &direct),
                "POST / HTTP/1.1\r\nHost: h\r\nTrailer: A\r\n" ADDED "Transfer-Encoding: chunked\r\n\r\n");
    assert_text(FORWARD("POST / HTTP/1.1\r\nHost: h\r\nTrailer: A\r\nContent-Length: 1\r\n\r\n", &direct),
                "POST / HTTP/1.1\r\nHost: h\r\n" ADDED "Content-Length: 1\r\n\r\n");
    assert_false(parse(STR("GET / HTTP/1.0\r\nTE: trailers\r\n\r\n")).takes_trailers);

    struct reply how = {.minor = 1, .keep_alive = true, .framing = {FRAMING_CHUNKED, 0}};
    assert_text(REPLY("HTTP/1.1 200 OK\r\nTrailer: A\r\nTransfer-Encoding: chunked\r\n\r\n", &how),
                "HTTP/1.1 200 OK\r\nVia: 1.1 loadbalancer\r\nTransfer-Encoding: chunked\r\n\r\n");
    how.trailers = true;
    assert_text(REPLY("HTTP/1.1 200 OK\r\nTrailer: A\r\nTransfer-Encoding: chunked\r\n\r\n", &how),
                "HTTP/1.1 200 OK\r\nTrailer: A\r\nVia: 1.1 loadbalancer\r\nTransfer-Encoding: chunked\r\n\r\n");
}

static struct str trailers_of(struct str section, bool to_backend)
{
    struct head_writer w = head_writer_on(room, 2 * section.n);

    rules_write_trailers(&w, section, to_backend, STR("X-Client-ID"));
    assert_false(w.full);
    return head_writer_str(&w);
}

static void trailers_that_decide_nothing_go_on(void **state)
{
    (void)state;
    assert_text(trailers_of(STR("a:b\r\nGrpc-Status:\t0 \r\nC:\r\nETag: \"x\"\r\n"), true),
                "a: b\r\nGrpc-Status: 0\r\nC: \r\nETag: \"x\"\r\n");
    assert_text(trailers_of(STR("Content-Length: 5\r\ntransfer-encoding: chunked\r\nHost: x\r\nA: 1\r\n"
                                "Authorization: x\r\nX-Forwarded-For: 1.1.1.1\r\nX-FORWARDED-any: 1\r\nForwarded: x\r\n"
                                "Connection: close\r\nTE: trailers\r\nTrailer: A\r\nCookie: a\r\nSet-Cookie: b\r\n"
                                "Content-Type: x\r\ncontent-encoding: gzip\r\nMax-Forwards: 0\r\nx-client-id: me\r\n"
                                "X-Request-ID: i\r\nVia: 1.1 x\r\nUpgrade: x\r\nExpect: 100-continue\r\nB: 2\r\n"
                                "If-Match: x\r\nCache-Control: no-store\r\nProxy-Authorization: x\r\n"),
                            true),
                "A: 1\r\nB: 2\r\n");
    assert_text(trailers_of(STR("A_B: 1\r\n"), true), "");
    assert_text(trailers_of(STR("A_B: 1\r\n"), false), "A_B: 1\r\n");
    assert_text(trailers_of(STR(""), true), "");
}

/* Each by its name, in either direction: what a recipient has to know before the content, or decides by. */
static void trailers_that_decide_are_dropped(void **state)
{
    (void)state;
    static const char *const names[] = {
        "Accept-Encoding",
        "Age",
        "Authentication-Info",
        "Authorization",
        "Cache-Control",
        "CDN-Loop",
        "Clear-Site-Data",
        "Connection",
        "Content-Disposition",
        "Content-Encoding",
        "Content-Language",
        "Content-Length",
        "Content-Location",
        "Content-Range",
        "Content-Security-Policy",
        "Content-Type",
        "Cookie",
        "Date",
        "Early-Data",
        "Expect",
        "Expires",
        "Forwarded",
        "Host",
        "HTTP2-Settings",
        "If-Match",
        "If-Modified-Since",
        "If-None-Match",
        "If-Range",
        "If-Unmodified-Since",
        "Keep-Alive",
        "Location",
        "Max-Forwards",
        "Origin",
        "Pragma",
        "Priority",
        "Proxy-Authenticate",
        "Proxy-Authentication-Info",
        "Proxy-Authorization",
        "Proxy-Connection",
        "Range",
        "Retry-After",
        "Set-Cookie",
        "Strict-Transport-Security",
        "TE",
        "Trailer",
        "Transfer-Encoding",
        "Upgrade",
        "Vary",
        "Via",
        "WWW-Authenticate",
        "X-Client-ID",
        "X-Client-IP",
        "X-Forwarded-Any",
        "X-Forwarded-For",
        "X-Forwarded-Host",
        "X-Forwarded-Proto",
        "X-HTTP-Method-Override",
        "X-Original-URL",
        "X-Real-IP",
        "X-Request-ID",
        "X-Rewrite-URL",
    };
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        for (int to_backend = 0; to_backend < 2; to_backend++) {
            char section[64];
            snprintf(section, sizeof section, "%s: 1\r\n", names[i]);
            if (trailers_of(str_of(section), to_backend).n != 0)
                fail_msg("%s goes on to a %s", names[i], to_backend ? "backend" : "client");
        }
    }
}

static void assert_protocols(struct str head, bool upgrade, const char *wanted)
{
    struct request r = parse(head);
    struct head_writer w = head_writer_on(room, sizeof room);

    assert_int_equal(r.upgrade, upgrade);
    rules_write_protocols(&w, &r.headers);
    assert_text(head_writer_str(&w), wanted);
}

#define ASKS(fields, upgrade, wanted)                                                                                  \
    assert_protocols(STR("GET / HTTP/1.1\r\nHost: h\r\n" fields "\r\n"), upgrade, wanted)

static void protocols_are_offered_but_h2c(void **state)
{
    (void)state;
    ASKS("Connection: Upgrade\r\nUpgrade: websocket\r\n", true, "websocket");
    ASKS("Connection: keep-alive, upgrade\r\nUpgrade: h2c, a/1 ,b\r\nUpgrade: H2C, c/2.0\r\n", true, "a/1, b, c/2.0");
    ASKS("Connection: upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\n", false, "");
    ASKS("Connection: upgrade\r\nUpgrade: h2c/1, a b, \"c\", /d, e/\r\n", false, "");
    ASKS("Upgrade: websocket\r\n", false, "websocket");
    ASKS("Connection: upgrade\r\n", false, "");
    assert_protocols(STR("GET / HTTP/1.0\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"), false, "websocket");
    struct forward f = direct;
    f.upgrade = STR("websocket");
    assert_text(FORWARD("GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: upgrade, X\r\nX: 1\r\n"
                        "TE: trailers\r\nSec-WebSocket-Key: k\r\n\r\n",
                        &f),
                "GET / HTTP/1.1\r\nHost: h\r\nSec-WebSocket-Key: k\r\nConnection: upgrade, TE\r\nUpgrade: websocket\r\n"
                "TE: trailers\r\n" ADDED "\r\n");
}

static struct response parse_switch(struct str head)
{
    struct response r = {.headers = {.v = fields, .max = FIELDS_MAX}};

    assert_int_equal(parse_response(head, false, true, &r), ERR_OK);
    return r;
}

static void a_switch_is_to_what_was_offered(void **state)
{
    (void)state;
#define SWITCH(named)                                                                                                  \
    "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade, x\r\n" named "X: 1\r\nContent-Length: 3\r\nY: 2\r\n\r\n"
    struct response r = parse_switch(STR(SWITCH("Upgrade: WebSocket\r\n")));
    assert_true(rules_is_offered(&r.headers, STR("a/1, websocket")));
    assert_false(rules_is_offered(&r.headers, STR("a/1")));
    assert_false(rules_is_offered(&r.headers, STR("")));
    struct head_writer w = head_writer_on(room, sizeof room);
    rules_write_switch(&w, &r, STR("E: f\r\n"));
    assert_text(head_writer_str(&w), "HTTP/1.1 101 Switching Protocols\r\nY: 2\r\nVia: 1.1 loadbalancer\r\n"
                                     "Connection: upgrade\r\nUpgrade: WebSocket\r\nE: f\r\n\r\n");
    r = parse_switch(STR(SWITCH("Upgrade: a/1, b\r\n")));
    assert_true(rules_is_offered(&r.headers, STR("b, c, a/1")));
    assert_false(rules_is_offered(&r.headers, STR("b, c")));
    r = parse_switch(STR(SWITCH("Upgrade: b, evil\r\n")));
    assert_false(rules_is_offered(&r.headers, STR("b, b"))); /* names are counted, not pairs */
    r = parse_switch(STR(SWITCH("")));
    assert_false(rules_is_offered(&r.headers, STR("a/1, websocket")));
#undef SWITCH
}

static void forwards_are_counted_down(void **state)
{
    (void)state;
    uint64_t left;
    assert_text(FORWARD("OPTIONS * HTTP/1.1\r\nHost: h\r\nMax-Forwards: 10\r\nA: b\r\n\r\n", &direct),
                "OPTIONS * HTTP/1.1\r\nHost: h\r\nA: b\r\nMax-Forwards: 9\r\n" ADDED "\r\n");
    assert_text(FORWARD("GET / HTTP/1.1\r\nHost: h\r\nMax-Forwards: 10\r\n\r\n", &direct),
                "GET / HTTP/1.1\r\nHost: h\r\nMax-Forwards: 10\r\n" ADDED "\r\n");
    struct request r = parse(STR("OPTIONS / HTTP/1.1\r\nHost: h\r\nMax-Forwards: 0\r\n\r\n"));
    assert_true(rules_max_forwards(&r, &left) && left == 0);
    r = parse(STR("OPTIONS / HTTP/1.1\r\nHost: h\r\nMax-Forwards: 0\r\nMax-Forwards: 0\r\n\r\n"));
    assert_false(rules_max_forwards(&r, &left));
    r = parse(STR("OPTIONS / HTTP/1.1\r\nHost: h\r\nMax-Forwards: -1\r\n\r\n"));
    assert_false(rules_max_forwards(&r, &left));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fields_go_on_in_order_and_spelling),
        cmocka_unit_test(framing_is_written_anew),
        cmocka_unit_test(what_concerns_one_connection_ends_here),
        cmocka_unit_test(what_matters_cannot_be_nominated_away),
        cmocka_unit_test(what_proxies_in_front_add_cannot_be_nominated_away),
        cmocka_unit_test(strangers_do_not_say_where_they_come_from),
        cmocka_unit_test(trusted_proxies_do),
        cmocka_unit_test(peers_without_an_address),
        cmocka_unit_test(a_426_says_what_to_upgrade_to),
        cmocka_unit_test(absolute_form_becomes_origin_form),
        cmocka_unit_test(old_requests_become_1_1),
        cmocka_unit_test(request_ids_are_kept_when_sane),
        cmocka_unit_test(a_request_that_comes_by_too_often_is_a_loop),
        cmocka_unit_test(responses_are_passed_on),
        cmocka_unit_test(the_length_of_an_absent_body_stays),
        cmocka_unit_test(interim_responses_are_passed_on),
        cmocka_unit_test(forwards_are_counted_down),
        cmocka_unit_test(trailers_are_asked_for_and_announced),
        cmocka_unit_test(trailers_that_decide_nothing_go_on),
        cmocka_unit_test(trailers_that_decide_are_dropped),
        cmocka_unit_test(protocols_are_offered_but_h2c),
        cmocka_unit_test(a_switch_is_to_what_was_offered),
        cmocka_unit_test(bounds_hold_for_the_tersest_heads),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
