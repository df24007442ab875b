/* The client API: every call and status, and what is on disk when an answer has been given. */
#include "harness/world.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

/* Few tokens, and none that come back while a test looks. */
#define RATE_LIMIT "\"rate_limit\": {\"default\": {\"capacity\": 5, \"rate_per_sec\": 0.01}}"

static void start(struct world *w)
{
    world_origin(w, origin_answer_all, NULL, NULL);
    world_start(w, RATE_LIMIT);
}

static cJSON *call(struct world *w, const char *method, const char *target, const char *content, int status)
{
    struct bytes body = {0};
    int got = http_request(w->port, method, target, "", content, &body);
    cJSON *doc = cJSON_Parse(body.p);

    CHECK(got == status, "%s %s %s: %d instead of %d: %s", method, target, content ? content : "", got, status, body.p);
    CHECK(doc, "%s %s: no JSON: %s", method, target, body.p);
    bytes_free(&body);
    return doc;
}

static void expect(struct world *w, const char *method, const char *target, const char *content, int status)
{
    cJSON_Delete(call(w, method, target, content, status));
}

static void put_client(struct world *w, const char *id, double capacity, double rate)
{
    char json[300];

    snprintf(json, sizeof json, "{\"client_id\":\"%s\",\"capacity\":%g,\"rate_per_sec\":%g}", id, capacity, rate);
    expect(w, "POST", "/clients/register", json, 201);
}

static void expect_client(const cJSON *doc, const char *id, double capacity, double rate, double tokens)
{
    assert_string_equal(log_field(doc, "client_id"), id);
    assert_float_equal(log_number(doc, "capacity"), capacity, 1e-9);
    assert_float_equal(log_number(doc, "rate_per_sec"), rate, 1e-9);
    assert_float_equal(log_number(doc, "tokens"), tokens, 0.9);
}

static void expect_stored(struct world *w, const char *id, double capacity, double rate, double tokens)
{
    char target[300];
    cJSON *doc;

    snprintf(target, sizeof target, "/clients/get?id=%s", id);
    doc = call(w, "GET", target, NULL, 200);
    expect_client(doc, id, capacity, rate, tokens);
    cJSON_Delete(doc);
}

static int request_as(struct world *w, const char *id)
{
    char field[200];

    snprintf(field, sizeof field, "X-Client-ID: %s\r\n", id);
    return http_request(w->port, "GET", "/", field, NULL, NULL);
}

static void test_life_of_a_client(void **state)
{
    struct world *w = *state;
    cJSON *doc;

    start(w);
    doc = call(w, "POST", "/clients/register", "{\"client_id\":\"user1\",\"capacity\":10,\"rate_per_sec\":0.01}", 201);
    expect_client(doc, "user1", 10, 0.01, 10);
    cJSON_Delete(doc);
    for (int i = 0; i < 4; i++)
        assert_int_equal(request_as(w, "user1"), 200);
    expect_stored(w, "user1", 10, 0.01, 6);
    doc = call(w, "PUT", "/clients/update", "{\"client_id\":\"user1\",\"capacity\":20}", 200);
    expect_client(doc, "user1", 20, 0.01, 6);
    cJSON_Delete(doc);
    doc = call(w, "PUT", "/clients/update", "{\"client_id\":\"user1\",\"capacity\":2,\"rate_per_sec\":0.02}", 200);
    expect_client(doc, "user1", 2, 0.02, 2);
    cJSON_Delete(doc);
    doc = call(w, "DELETE", "/clients/delete?id=user1", NULL, 200);
    expect_client(doc, "user1", 2, 0.02, 2);
    cJSON_Delete(doc);
    expect(w, "GET", "/clients/get?id=user1", NULL, 404);
    daemon_expect_event(&w->daemon, 0, "client_registered", "client_id=user1");
    const cJSON *line = daemon_expect_event(&w->daemon, 0, "client_updated", "client_id=user1 capacity=2");
    assert_float_equal(log_number(line, "capacity"), 2, 0);
    assert_float_equal(log_number(line, "rate_per_sec"), 0.02, 0);
    daemon_expect_event(&w->daemon, 0, "client_deleted", "client_id=user1");
    assert_int_equal(origin_requests(w->origins[0]), 4);
    world_finish(w);
}

static void test_success_is_one_line_of_json(void **state)
{
    struct world *w = *state;
    struct client c;
    const struct message *r;

    start(w);
    client_open(&c, w->port);
    client_send(&c, "POST /clients/register HTTP/1.1\r\nHost: h\r\nContent-Type: application/x-www-form-urlencoded\r\n"
                    "Content-Length: 52\r\n\r\n{\"client_id\":\"user1\",\"capacity\":10,\"rate_per_sec\":1}");
    r = client_expect(&c, 201);
    assert_string_equal(message_field(r, "Content-Type"), "application/json");
    assert_string_equal(message_field(r, "Cache-Control"), "no-store");
    assert_string_equal(r->body.p, "{\"client_id\":\"user1\",\"capacity\":10,\"rate_per_sec\":1,\"tokens\":10,"
                                   "\"mode\":\"enforce\",\"allowed\":0,\"limited\":0}\n");
    client_send(&c, "GET /clients/list HTTP/1.1\r\nHost: h\r\n\r\n");
    r = client_expect(&c, 200);
    assert_string_equal(message_field(r, "Content-Type"), "application/json");
    assert_string_equal(
        r->body.p, "{\"clients\":[{\"client_id\":\"user1\",\"capacity\":10,\"rate_per_sec\":1,"
                   "\"tokens\":10,\"mode\":\"enforce\",\"allowed\":0,\"limited\":0}],\"total\":1,\"next\":null}\n");
    client_close(&c);
    world_finish(w);
}

static void test_chunked_and_bytewise_content(void **state)
{
    struct world *w = *state;
    struct client c;

    start(w);
    client_open(&c, w->port);
    client_send_bytewise(&c, "POST /clients/register HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
                             "10\r\n{\"client_id\":\"a\"\r\n1f\r\n,\"capacity\":1,\"rate_per_sec\":1}\r\n0\r\n\r\n");
    client_expect(&c, 201);
    client_send(&c, "POST /clients/register HTTP/1.1\r\nHost: h\r\nContent-Length: 48\r\nExpect: 100-continue\r\n\r\n");
    uint64_t deadline = deadline_in(patience_ms());
    while (!strstr(c.in.in.p, "HTTP/1.1 100 "))
        assert_int_equal(stream_fill(&c.in, deadline), READ_OK);
    client_send(&c, "{\"client_id\":\"b\",\"capacity\":10,\"rate_per_sec\":1}");
    client_expect(&c, 201);
    client_close(&c);
    world_finish(w);
}

static void test_bad_registrations(void **state)
{
    static const char *const bodies[] = {
        "",
        "[",
        "[]",
        "null",
        "{}",
        "{\"client_id\":\"a\",\"capacity\":1,\"rate_per_sec\":1}x",
        "{\"client_id\":\"a\",\"capacity\":1}",
        "{\"client_id\":\"a\",\"rate_per_sec\":1}",
        "{\"capacity\":1,\"rate_per_sec\":1}",
        "{\"client_id\":1,\"capacity\":1,\"rate_per_sec\":1}",
        "{\"client_id\":\"\",\"capacity\":1,\"rate_per_sec\":1}",
        "{\"client_id\":\"a b\",\"capacity\":1,\"rate_per_sec\":1}",
        "{\"client_id\":\"\xc3\xa4\",\"capacity\":1,\"rate_per_sec\":1}",
        "{\"client_id\":\"a\\u0000\",\"capacity\":1,\"rate_per_sec\":1}",
        "{\"client_id\":\"a\",\"capacity\":0.5,\"rate_per_sec\":1}",
        "{\"client_id\":\"a\",\"capacity\":0,\"rate_per_sec\":1}",
        "{\"client_id\":\"a\",\"capacity\":-1,\"rate_per_sec\":1}",
        "{\"client_id\":\"a\",\"capacity\":1000000001,\"rate_per_sec\":1}",
        "{\"client_id\":\"a\",\"capacity\":1e400,\"rate_per_sec\":1}",
        "{\"client_id\":\"a\",\"capacity\":\"1\",\"rate_per_sec\":1}",
        "{\"client_id\":\"a\",\"capacity\":1,\"rate_per_sec\":0}",
        "{\"client_id\":\"a\",\"capacity\":1,\"rate_per_sec\":-1}",
        "{\"client_id\":\"a\",\"capacity\":1,\"rate_per_sec\":1e10}",
        "{\"client_id\":\"a\",\"capacity\":1,\"rate_per_sec\":null}",
        "{\"client_id\":\"a\",\"capacity\":1,\"rate_per_sec\":1,\"tokens\":1}",
        "{\"client_id\":\"a\",\"capacity\":1,\"capacity\":2,\"rate_per_sec\":1}",
        "{\"client_id\":\"a\",\"capacity\":1,\"rate_per_sec\":NaN}",
        "{'client_id':'a','capacity':1,'rate_per_sec':1}",
    };
    struct world *w = *state;
    struct bytes body;
    char long_id[200];

    start(w);
    for (size_t i = 0; i < sizeof bodies / sizeof *bodies; i++)
        expect(w, "POST", "/clients/register", bodies[i], 400);
    snprintf(long_id, sizeof long_id, "{\"client_id\":\"%0129d\",\"capacity\":1,\"rate_per_sec\":1}", 1);
    expect(w, "POST", "/clients/register", long_id, 400);
    snprintf(long_id, sizeof long_id, "{\"client_id\":\"%0128d\",\"capacity\":1,\"rate_per_sec\":1}", 1);
    expect(w, "POST", "/clients/register", long_id, 201);
    /* the field concerned is named */
    http_request(w->port, "POST", "/clients/register", "",
                 "{\"client_id\":\"a\",\"capacity\":1,\"rate_per_sec\":1,\"wrong\":1}", &body);
    assert_non_null(strstr(body.p, "wrong"));
    bytes_free(&body);
    cJSON *list = call(w, "GET", "/clients/list", NULL, 200);
    assert_string_equal(log_field(list, "total"), "1");
    cJSON_Delete(list);
    world_finish(w);
}

static void test_bounds_are_inclusive(void **state)
{
    struct world *w = *state;

    start(w);
    expect(w, "POST", "/clients/register", "{\"client_id\":\"min\",\"capacity\":1,\"rate_per_sec\":1e-9}", 201);
    expect(w, "POST", "/clients/register", "{\"client_id\":\"max\",\"capacity\":1e9,\"rate_per_sec\":1000000000}", 201);
    assert_int_equal(request_as(w, "min"), 200);
    assert_int_equal(request_as(w, "min"), 429);
    assert_int_equal(request_as(w, "max"), 200);
    world_finish(w);
}

static void test_conflicts_and_absences(void **state)
{
    struct world *w = *state;

    start(w);
    put_client(w, "user1", 10, 1);
    expect(w, "POST", "/clients/register", "{\"client_id\":\"user1\",\"capacity\":1,\"rate_per_sec\":1}", 409);
    expect_stored(w, "user1", 10, 1, 10);
    expect(w, "PUT", "/clients/update", "{\"client_id\":\"nobody\",\"capacity\":1}", 404);
    expect(w, "PUT", "/clients/update", "{\"client_id\":\"user1\"}", 400);
    expect(w, "PUT", "/clients/update", "{\"capacity\":1}", 400);
    expect(w, "PUT", "/clients/update", "{\"client_id\":\"user1\",\"capacity\":0}", 400);
    expect(w, "PUT", "/clients/update", "{\"client_id\":\"user1\",\"capacity\":1,\"more\":1}", 400);
    expect(w, "GET", "/clients/get?id=nobody", NULL, 404);
    expect(w, "GET", "/clients/get", NULL, 400);
    expect(w, "GET", "/clients/get?id=", NULL, 400);
    expect(w, "GET", "/clients/get?id=a&id=b", NULL, 400);
    expect(w, "GET", "/clients/get?other=1&id=user1", NULL, 200);
    expect(w, "GET", "/clients/get?id=user%31", NULL, 200);
    expect(w, "GET", "/clients/get?id=user%3", NULL, 400);
    expect(w, "DELETE", "/clients/delete", NULL, 400);
    expect(w, "DELETE", "/clients/delete?id=nobody", NULL, 404);
    expect(w, "DELETE", "/clients/delete?id=user1", NULL, 200);
    expect(w, "DELETE", "/clients/delete?id=user1", NULL, 404);
    world_finish(w);
}

static void test_methods_and_paths(void **state)
{
    static const char *const calls[][3] = {{"/clients/register", "GET", "POST"},
                                           {"/clients/update", "POST", "PUT"},
                                           {"/clients/delete?id=a", "GET", "DELETE"},
                                           {"/clients/get?id=a", "POST", "GET"},
                                           {"/clients/list", "DELETE", "GET"}};
    static const char *const absent[] = {"/clients/",      "/clients/x",     "/clients/../x",
                                         "/clients//list", "/clients/list/", "/clients/LIST"};
    struct world *w = *state;
    struct client c;

    start(w);
    client_open(&c, w->port);
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
        client_sendf(&c, "%s %s HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n", calls[i][1], calls[i][0]);
        client_expect(&c, 405);
        assert_true(message_has_token(&c.response, "Allow", calls[i][2]));
        assert_false(message_has_token(&c.response, "Allow", calls[i][1]));
    }
    client_close(&c);
    for (size_t i = 0; i < sizeof absent / sizeof *absent; i++)
        expect(w, "GET", absent[i], NULL, 404);
    assert_int_equal(origin_requests(w->origins[0]), 0);
    client_open(&c, w->port);
    client_send(&c, "GET http://anything/clients/list HTTP/1.1\r\nHost: h\r\n\r\n");
    client_expect(&c, 200);
    assert_non_null(strstr(c.response.body.p, "\"total\":0"));
    client_close(&c);
    world_finish(w);
}

static void test_content_too_large(void **state)
{
    struct world *w = *state;
    struct client c;
    struct bytes body = {0};

    start(w);
    bytes_addf(&body, "{\"client_id\":\"a\",\"capacity\":1,%65536s\"rate_per_sec\":1}", "");
    client_open(&c, w->port);
    client_sendf(&c, "POST /clients/register HTTP/1.1\r\nHost: h\r\nContent-Length: %zu\r\n\r\n", body.n);
    client_try_send(&c, body.p, body.n);
    client_expect(&c, 413);
    client_close(&c);
    client_open(&c, w->port);
    client_sendf(&c, "POST /clients/register HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n%zx\r\n", body.n);
    client_try_send(&c, body.p, body.n);
    client_expect(&c, 413);
    client_close(&c);
    bytes_free(&body);
    expect(w, "GET", "/clients/get?id=a", NULL, 404);
    world_finish(w);
}

/* An address has one canonical spelling, whichever is used. */
static void test_addresses_as_ids(void **state)
{
    struct world *w = *state;
    cJSON *doc;

    start(w);
    doc = call(w, "POST", "/clients/register",
               "{\"client_id\":\"::ffff:127.0.0.1\",\"capacity\":2,\"rate_per_sec\":0.01}", 201);
    assert_string_equal(log_field(doc, "client_id"), "127.0.0.1");
    cJSON_Delete(doc);
    expect(w, "POST", "/clients/register", "{\"client_id\":\"127.0.0.1\",\"capacity\":2,\"rate_per_sec\":1}", 409);
    doc = call(w, "POST", "/clients/register", "{\"client_id\":\"2001:DB8:0:0::1\",\"capacity\":2,\"rate_per_sec\":1}",
               201);
    assert_string_equal(log_field(doc, "client_id"), "2001:db8::1");
    cJSON_Delete(doc);
    expect(w, "GET", "/clients/get?id=2001:db8:0::1", NULL, 200);
    assert_int_equal(http_get(w->port, "/", NULL), 200);
    assert_int_equal(http_get(w->port, "/", NULL), 200);
    assert_int_equal(http_get(w->port, "/", NULL), 429);
    world_finish(w);
}

static void expect_page(struct world *w, const char *target, int from, int count, const char *next)
{
    cJSON *doc = call(w, "GET", target, NULL, 200);
    const cJSON *clients = cJSON_GetObjectItemCaseSensitive(doc, "clients");
    const char *found = log_field(doc, "next");

    assert_int_equal(cJSON_GetArraySize(clients), count);
    for (int i = 0; i < count; i++) {
        char id[32];

        snprintf(id, sizeof id, "user%d", from + i);
        assert_string_equal(log_field(cJSON_GetArrayItem(clients, i), "client_id"), id);
    }
    CHECK(next ? found && strcmp(found, next) == 0 : cJSON_IsNull(cJSON_GetObjectItemCaseSensitive(doc, "next")),
          "next is %s instead of %s", found ? found : "null", next ? next : "null");
    cJSON_Delete(doc);
}

static void test_list_in_pages(void **state)
{
    static const char *const bad[] = {
        "/clients/list?limit=0", "/clients/list?limit=1001",  "/clients/list?limit=x",        "/clients/list?limit=-1",
        "/clients/list?limit=",  "/clients/list?after=a%20b", "/clients/list?limit=1&limit=2"};
    struct world *w = *state;

    start(w);
    expect_page(w, "/clients/list", 0, 0, NULL);
    for (int i = 0; i < 105; i++) {
        char id[32];

        snprintf(id, sizeof id, "user%d", i);
        put_client(w, id, 10, 1);
    }
    expect_page(w, "/clients/list", 0, 100, "user99");
    expect_page(w, "/clients/list?after=user99", 100, 5, NULL);
    expect_page(w, "/clients/list?limit=1000", 0, 105, NULL);
    expect_page(w, "/clients/list?limit=10&after=user9", 10, 10, "user19");
    expect_page(w, "/clients/list?limit=5&after=user99", 100, 5, NULL);
    expect_page(w, "/clients/list?unknown=1&limit=2", 0, 2, "user1");
    expect(w, "DELETE", "/clients/delete?id=user50", NULL, 200);
    expect_page(w, "/clients/list?limit=5&after=user50", 51, 5, "user55");
    cJSON_Delete(call(w, "GET", "/clients/list?after=never-seen", NULL, 200));
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        expect(w, "GET", bad[i], NULL, 400);
    world_finish(w);
}

/* A walk goes on from where it was, though the client at that place is registered anew meanwhile, and others list. */
static void test_walk_beside_a_list(void **state)
{
    struct world *w = *state;

    start(w);
    for (int i = 0; i < 8; i++) {
        char id[32];

        snprintf(id, sizeof id, "user%d", i);
        put_client(w, id, 10, 1);
    }
    expect_page(w, "/clients/list?limit=4", 0, 4, "user3");
    expect(w, "DELETE", "/clients/delete?id=user3", NULL, 200);
    put_client(w, "user3", 10, 1);
    cJSON *doc = call(w, "GET", "/clients/list", NULL, 200);
    assert_true(cJSON_IsNull(cJSON_GetObjectItemCaseSensitive(doc, "next")));
    cJSON_Delete(doc);
    expect_page(w, "/clients/list?limit=4&after=user3", 4, 4, "user7");
    world_finish(w);
}

static void come_back(struct world *w, const char *id)
{
    char target[64];

    snprintf(target, sizeof target, "/clients/delete?id=%s", id);
    expect(w, "DELETE", target, NULL, 200);
    put_client(w, id, 10, 1);
}

/* A page of a walk: counts who is on it, and leaves the target that its link gives, "" where there is none. */
static void walk_on(struct world *w, char target[100], unsigned seen[20])
{
    struct client c;
    char request[200];
    cJSON *doc;
    const cJSON *one;

    client_open(&c, w->port);
    snprintf(request, sizeof request, "GET %s HTTP/1.1\r\nHost: h\r\n\r\n", target);
    client_send(&c, request);
    const struct message *r = client_expect(&c, 200);
    const char *link = message_field(r, "Link");
    target[0] = '\0';
    if (link)
        assert_int_equal(sscanf(link, "<%99[^>]>; rel=\"next\"", target), 1);
    doc = cJSON_Parse(r->body.p);
    assert_true(cJSON_IsNull(cJSON_GetObjectItemCaseSensitive(doc, "next")) == !link);
    cJSON_ArrayForEach(one, cJSON_GetObjectItemCaseSensitive(doc, "clients"))
    {
        unsigned number;

        assert_int_equal(sscanf(log_field(one, "client_id"), "user%u", &number), 1);
        seen[number]++;
    }
    cJSON_Delete(doc);
    client_close(&c);
}

/* Two walks by their links, over deletions, registrations anew, a kill, a stop and an upgrade: each meets everybody who
 * stays exactly once. */
static void test_walks_over_every_end(void **state)
{
    struct world *w = *state;
    char one[100] = "/clients/list?limit=3", two[100] = "/clients/list?limit=2";
    unsigned by_one[20] = {0}, by_two[20] = {0};

    start(w);
    for (int i = 0; i < 20; i++) {
        char id[32];

        snprintf(id, sizeof id, "user%d", i);
        put_client(w, id, 10, 1);
    }
    for (int step = 0; one[0] || two[0]; step++) {
        if (one[0])
            walk_on(w, one, by_one);
        if (two[0] && step > 0)
            walk_on(w, two, by_two);
        if (step == 0) {
            come_back(w, "user2");
            expect(w, "DELETE", "/clients/delete?id=user0", NULL, 200);
            daemon_kill(&w->daemon);
            world_restart(w);
        } else if (step == 1) {
            come_back(w, "user1");
            come_back(w, "user5");
            world_stop(w);
            world_restart(w);
        } else if (step == 2) {
            expect(w, "DELETE", "/clients/delete?id=user3", NULL, 200);
            expect(w, "DELETE", "/clients/delete?id=user8", NULL, 200);
            come_back(w, "user2");
        }
        assert_true(step < 20);
    }
    for (int i = 0; i < 20; i++) {
        bool stays = i != 0 && i != 1 && i != 2 && i != 3 && i != 5 && i != 8;

        if (stays && (by_one[i] != 1 || by_two[i] != 1))
            fail_msg("user%d was met %u and %u times", i, by_one[i], by_two[i]);
    }
    world_finish(w);
}

/* Killed right behind the answer, every change is there after the restart. */
static void test_changes_survive_kill_9(void **state)
{
    struct world *w = *state;

    start(w);
    for (int round = 0; round < 5; round++) {
        char id[32];

        snprintf(id, sizeof id, "user%d", round);
        put_client(w, id, 10 + round, 0.01);
        daemon_kill(&w->daemon);
        world_restart(w);
        expect_stored(w, id, 10 + round, 0.01, 10 + round);
    }
    expect(w, "PUT", "/clients/update", "{\"client_id\":\"user0\",\"capacity\":99}", 200);
    daemon_kill(&w->daemon);
    world_restart(w);
    expect_stored(w, "user0", 99, 0.01, 10);
    expect(w, "DELETE", "/clients/delete?id=user1", NULL, 200);
    daemon_kill(&w->daemon);
    world_restart(w);
    expect(w, "GET", "/clients/get?id=user1", NULL, 404);
    cJSON *doc = call(w, "GET", "/clients/list", NULL, 200);
    assert_string_equal(log_field(doc, "total"), "4");
    cJSON_Delete(doc);
    world_finish(w);
}

static void test_tokens_survive_a_graceful_restart(void **state)
{
    struct world *w = *state;
    struct bytes file;

    start(w);
    put_client(w, "user1", 10, 0.001);
    for (int i = 0; i < 7; i++)
        assert_int_equal(request_as(w, "user1"), 200);
    world_stop(w);
    file = file_content(world_path(w, "clients.json"));
    assert_non_null(strstr(file.p, "\"saved_at\""));
    assert_non_null(strstr(file.p, "\"client_id\":\"user1\""));
    bytes_free(&file);
    world_restart(w);
    expect_stored(w, "user1", 10, 0.001, 3);
    for (int i = 0; i < 3; i++)
        assert_int_equal(request_as(w, "user1"), 200);
    assert_int_equal(request_as(w, "user1"), 429);
    world_finish(w);
}

/* Those of clients that are not registered, too; what is kept for that is gone once it is read. */
static void test_unregistered_ones_survive_it_too(void **state)
{
    struct world *w = *state;

    start(w);
    for (int i = 0; i < 3; i++)
        assert_int_equal(http_request(w->port, "GET", "/", "", NULL, NULL), 200);
    world_stop(w);
    assert_int_equal(access(world_path(w, "clients.json.unregistered"), F_OK), 0);
    world_restart(w);
    for (int i = 0; i < 2; i++)
        assert_int_equal(http_request(w->port, "GET", "/", "", NULL, NULL), 200);
    assert_int_equal(http_request(w->port, "GET", "/", "", NULL, NULL), 429);
    uint64_t deadline = deadline_in(5000);
    while (access(world_path(w, "clients.json.unregistered"), F_OK) == 0 && left_ms(deadline) > 0)
        usleep(1000);
    assert_int_equal(access(world_path(w, "clients.json.unregistered"), F_OK), -1);
    world_finish(w);
}

/* Tokens come back for the time that the balancer was down. */
static void test_tokens_refill_while_down(void **state)
{
    struct world *w = *state;

    start(w);
    put_client(w, "user1", 1000, 100);
    for (int i = 0; i < 20; i++)
        assert_int_equal(request_as(w, "user1"), 200);
    world_stop(w);
    usleep(300000);
    world_restart(w);
    expect_stored(w, "user1", 1000, 100, 1000);
    world_finish(w);
}

static int start_on(struct world *w)
{
    return daemon_run(&w->daemon, w->dir, "loadbalancer", (const char *const[]){"loadbalancer", NULL});
}

#define ONE   "{\"client_id\":\"a\",\"capacity\":1,\"rate_per_sec\":1}"
#define TWICE "{\"clients\":[" ONE "," ONE "]}"

/* A damaged file stops the start with a message that says where, and is left alone. */
static void test_damaged_file(void **state)
{
    static const char *const contents[] = {
        "",
        "{",
        "[]",
        "{\"clients\":[\n{\"client_id\":\"a\",\"capacity\":1,\"rate_per_sec\":1}\n",
        "{\"clients\":[{\"client_id\":\"a\",\"capacity\":0,\"rate_per_sec\":1,\"tokens\":1}]}",
        "{\"clients\":[{\"client_id\":\"a\",\"capacity\":1,\"rate_per_sec\":1,\"tokens\":\"x\"}]}",
        "{\"clients\":[{\"client_id\":\"a\",\"capacity\":1,\"rate_per_sec\":1,\"tokens\":1,\"odd\":1}]}",
        TWICE,
        "{\"clients\":[]} trailing",
    };
    struct world *w = *state;

    world_origin(w, origin_answer_all, NULL, NULL);
    world_config(w, RATE_LIMIT);
    for (size_t i = 0; i < sizeof contents / sizeof *contents; i++) {
        struct bytes after, message;
        int status;

        file_put(world_path(w, "clients.json"), contents[i]);
        status = start_on(w);
        CHECK(status == 2, "%d instead of 2 for %s", status, contents[i]);
        message = daemon_stderr(&w->daemon);
        CHECK(strstr(message.p, "clients.json"), "the message does not name the file: %s", message.p);
        after = file_content(world_path(w, "clients.json"));
        assert_string_equal(after.p, contents[i]);
        bytes_free(&after);
        bytes_free(&message);
    }
    world_finish(w);
}

static void test_file_of_before(void **state)
{
    struct world *w = *state;

    world_origin(w, origin_answer_all, NULL, NULL);
    file_put(world_path(w, "clients.json"),
             "{\"clients\":[\n"
             "{\"client_id\":\"user1\",\"capacity\":10,\"rate_per_sec\":1,\"tokens\":50}\n"
             "]}\n");
    world_start(w, RATE_LIMIT);
    expect_stored(w, "user1", 10, 1, 10);
    world_finish(w);
}

static void test_second_daemon_on_the_same_files(void **state)
{
    struct world *w = *state;
    struct daemon second = {0};
    struct bytes config = {0}, message;

    start(w);
    bytes_addf(&config, "{\"listen\": \"127.0.0.1:%d\", \"backends\": [%s]}", port_reserve(), w->backends);
    file_put(world_path(w, "second.json"), config.p);
    bytes_free(&config);
    assert_int_equal(
        daemon_run(&second, w->dir, "second", (const char *const[]){"loadbalancer", "-c", "second.json", NULL}), 1);
    message = daemon_stderr(&second);
    CHECK(strstr(message.p, "clients.json"), "the message does not name the file: %s", message.p);
    bytes_free(&message);
    daemon_fini(&second);
    put_client(w, "still-works", 1, 1);
    world_finish(w);
}

static void limit_file_size(const struct world *w, rlim_t size)
{
    struct rlimit limit = {size, RLIM_INFINITY};

    assert_int_equal(prlimit(w->daemon.pid, RLIMIT_FSIZE, &limit, NULL), 0);
}

/* A change that cannot be written is not made. */
static void test_store_failure(void **state)
{
    struct world *w = *state;

    signal(SIGXFSZ, SIG_IGN); /* the daemon inherits it: its writes fail with EFBIG */
    start(w);
    put_client(w, "before", 1, 1);
    limit_file_size(w, 0);
    expect(w, "POST", "/clients/register", ONE, 503);
    expect(w, "PUT", "/clients/update", "{\"client_id\":\"before\",\"capacity\":5}", 503);
    expect(w, "DELETE", "/clients/delete?id=before", NULL, 503);
    limit_file_size(w, RLIM_INFINITY);
    expect(w, "GET", "/clients/get?id=a", NULL, 404);
    expect_stored(w, "before", 1, 1, 1);
    uint64_t deadline = deadline_in(patience_ms()); /* it may take a moment to see that the disk is well again */
    while (http_request(w->port, "POST", "/clients/register", "", ONE, NULL) != 201 && left_ms(deadline) > 0)
        rest();
    daemon_kill(&w->daemon);
    world_restart(w);
    expect_stored(w, "before", 1, 1, 1);
    expect_stored(w, "a", 1, 1, 1);
    world_finish(w);
}

/* The folder of the clients' files is taken away and comes back empty: what cannot be found by the next start is not
 * answered with a success, traffic goes on, and all is well again by itself. */
static void test_vanished_folder(void **state)
{
    struct world *w = *state;

    assert_int_equal(mkdir(world_path(w, "data"), 0755), 0);
    world_origin(w, origin_answer_all, NULL, NULL);
    world_start(w, "\"rate_limit\": {\"default\": {\"capacity\": 5, \"rate_per_sec\": 0.01}, \"clients_file\": "
                   "\"data/clients.json\"}");
    put_client(w, "before", 3, 1);
    assert_int_equal(rename(world_path(w, "data"), world_path(w, "away")), 0);
    expect(w, "POST", "/clients/register", ONE, 503);
    expect(w, "PUT", "/clients/update", "{\"client_id\":\"before\",\"capacity\":5}", 503);
    expect(w, "DELETE", "/clients/delete?id=before", NULL, 503);
    expect(w, "GET", "/clients/get?id=a", NULL, 404);
    expect_stored(w, "before", 3, 1, 3);
    assert_int_equal(request_as(w, "before"), 200);
    daemon_expect_event(&w->daemon, 0, "store_failed", "what=journal");
    assert_int_equal(mkdir(world_path(w, "data"), 0755), 0);
    daemon_expect_event(&w->daemon, 0, "store_recovered", NULL);
    put_client(w, "after", 2, 1);
    assert_int_equal(access(world_path(w, "data/clients.json.lock"), F_OK), 0); /* and is still ours alone */
    daemon_kill(&w->daemon);
    world_restart(w);
    expect_stored(w, "before", 3, 1, 3);
    expect_stored(w, "after", 2, 1, 2);
    expect(w, "GET", "/clients/get?id=a", NULL, 404);
    world_finish(w);
}

/* Many clients at once, each answered only when its own change is on disk. */
static void test_many_registrations_at_once(void **state)
{
    enum { CLIENTS = 100 };
    static struct client c[CLIENTS];
    struct world *w = *state;
    cJSON *doc;

    start(w);
    for (int i = 0; i < CLIENTS; i++)
        client_open(&c[i], w->port);
    for (int i = 0; i < CLIENTS; i++) {
        char json[100];

        snprintf(json, sizeof json, "{\"client_id\":\"c%d\",\"capacity\":3,\"rate_per_sec\":1}", i);
        client_sendf(&c[i], "POST /clients/register HTTP/1.1\r\nHost: h\r\nContent-Length: %zu\r\n\r\n%s", strlen(json),
                     json);
    }
    for (int i = 0; i < CLIENTS; i++) {
        client_expect(&c[i], 201);
        client_close(&c[i]);
    }
    daemon_kill(&w->daemon);
    world_restart(w);
    doc = call(w, "GET", "/clients/list?limit=1000", NULL, 200);
    assert_string_equal(log_field(doc, "total"), "100");
    cJSON_Delete(doc);
    world_finish(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WORLD_TEST(test_life_of_a_client),
        WORLD_TEST(test_success_is_one_line_of_json),
        WORLD_TEST(test_chunked_and_bytewise_content),
        WORLD_TEST(test_bad_registrations),
        WORLD_TEST(test_bounds_are_inclusive),
        WORLD_TEST(test_conflicts_and_absences),
        WORLD_TEST(test_methods_and_paths),
        WORLD_TEST(test_content_too_large),
        WORLD_TEST(test_addresses_as_ids),
        WORLD_TEST(test_list_in_pages),
        WORLD_TEST(test_walk_beside_a_list),
        WORLD_TEST(test_walks_over_every_end),
        WORLD_TEST(test_changes_survive_kill_9),
        WORLD_TEST(test_tokens_survive_a_graceful_restart),
        WORLD_TEST(test_unregistered_ones_survive_it_too),
        WORLD_TEST(test_tokens_refill_while_down),
        WORLD_TEST(test_damaged_file),
        WORLD_TEST(test_file_of_before),
        WORLD_TEST(test_second_daemon_on_the_same_files),
        WORLD_TEST(test_store_failure),
        WORLD_TEST(test_vanished_folder),
        WORLD_TEST(test_many_registrations_at_once),
    };

    return cmocka_run_group_tests_name("clients_api", tests, NULL, NULL);
}
