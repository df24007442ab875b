/* Rate limiting: whose bucket a request is taken from, and what is said when it is empty. */
#include "harness/world.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* `capacity` tokens, so few a second that a test does not see one come back. */
#define SCARCE(capacity) "\"default\": {\"capacity\": " #capacity ", \"rate_per_sec\": 0.01}"

static int register_client(struct world *w, const char *json)
{
    return http_request(w->port, "POST", "/clients/register", "", json, NULL);
}

static int get_from(struct world *w, const char *source_ip, const char *fields)
{
    struct client c;
    int status;

    client_open_from(&c, source_ip, w->port);
    client_sendf(&c, "GET / HTTP/1.1\r\nHost: h\r\n%s\r\n", fields);
    status = client_expect(&c, 0)->status;
    client_close(&c);
    return status;
}

/* Exactly `n` more requests pass. */
static void expect_left(struct world *w, int n, const char *source_ip, const char *fields)
{
    for (int i = 0; i < n; i++) {
        int status = get_from(w, source_ip, fields);

        CHECK(status == 200, "request %d of %d from %s with \"%s\": %d", i + 1, n, source_ip, fields, status);
    }
    int status = get_from(w, source_ip, fields);
    CHECK(status == 429, "request %d from %s with \"%s\": %d instead of 429", n + 1, source_ip, fields, status);
}

static void start(struct world *w, const char *rate_limit, const char *extra)
{
    struct bytes config = {0};

    world_origin(w, origin_answer_all, NULL, NULL);
    bytes_addf(&config, "\"rate_limit\": {%s}%s%s", rate_limit, extra ? ", " : "", extra ? extra : "");
    world_start(w, config.p);
    bytes_free(&config);
}

static void test_each_address_has_a_bucket(void **state)
{
    struct world *w = *state;

    start(w, SCARCE(3), NULL);
    expect_left(w, 3, "127.0.0.1", "");
    expect_left(w, 3, "127.0.0.2", "");
    expect_left(w, 0, "127.0.0.1", "");
    assert_int_equal(origin_requests(w->origins[0]), 6);
    daemon_expect_event(&w->daemon, 0, "request", "client=127.0.0.2 status=429 reason=rate_limited");
    world_finish(w);
}

static void expect_field(const struct message *r, const char *name, const char *value)
{
    const char *found = message_field(r, name);

    CHECK(found && strcmp(found, value) == 0, "%s is not \"%s\" in:\n%s", name, value, r->head);
    assert_int_equal(message_field_count(r, name), 1);
}

static void test_what_a_429_says(void **state)
{
    struct world *w = *state;
    struct client c;
    const struct message *r;
    cJSON *doc;

    start(w, "\"default\": {\"capacity\": 3.5, \"rate_per_sec\": 0.05}", NULL);
    client_open(&c, w->port);
    client_send(&c, "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    r = client_expect(&c, 200);
    expect_field(r, "RateLimit-Policy", "\"default\";q=3;w=70");
    expect_field(r, "RateLimit", "\"default\";r=2;t=20");
    client_send(&c, "GET / HTTP/1.1\r\nHost: h\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n");
    client_expect(&c, 200);
    r = client_expect(&c, 200);
    expect_field(r, "RateLimit", "\"default\";r=0;t=10");
    client_send(&c, "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    r = client_expect(&c, 429);
    expect_field(r, "RateLimit-Policy", "\"default\";q=3;w=70");
    expect_field(r, "RateLimit", "\"default\";r=0;t=10");
    expect_field(r, "Retry-After", "10");
    expect_field(r, "Content-Type", "application/problem+json");
    doc = cJSON_Parse(r->body.p);
    CHECK(doc, "no JSON: %s", r->body.p);
    assert_string_equal(log_field(doc, "type"), "https://iana.org/assignments/http-problem-types#quota-exceeded");
    assert_string_equal(log_field(doc, "title"), "Too Many Requests");
    assert_string_equal(log_field(doc, "status"), "429");
    assert_non_null(log_field(doc, "detail"));
    const cJSON *policies = cJSON_GetObjectItemCaseSensitive(doc, "violated-policies");
    assert_int_equal(cJSON_GetArraySize(policies), 1);
    assert_string_equal(cJSON_GetArrayItem(policies, 0)->valuestring, "default");
    cJSON_Delete(doc);
    client_close(&c);
    world_finish(w);
}

/* The connection stays usable behind a 429, content or not. */
static void test_the_connection_survives_a_429(void **state)
{
    struct world *w = *state;
    struct client c;

    start(w, SCARCE(1), NULL);
    assert_int_equal(register_client(w, "{\"client_id\":\"rich\",\"capacity\":1000,\"rate_per_sec\":1}"), 201);
    assert_int_equal(get_from(w, "127.0.0.1", ""), 200);
    client_open(&c, w->port);
    client_send(&c, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello"
                    "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
                    "GET / HTTP/1.1\r\nHost: h\r\nX-Client-ID: rich\r\n\r\n");
    client_expect(&c, 429);
    client_expect(&c, 429);
    client_expect(&c, 200);
    client_close(&c);
    world_finish(w);
}

/* What is read in vain is counted for each request by itself. */
static void test_the_connection_survives_many_refused_uploads(void **state)
{
    struct world *w = *state;
    struct client c;
    static char content[10 << 10];

    start(w, SCARCE(1), NULL);
    assert_int_equal(get_from(w, "127.0.0.1", ""), 200);
    client_open(&c, w->port);
    for (int i = 0; i < 20; i++) {
        client_sendf(&c, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: %zu\r\n\r\n", sizeof content);
        client_send_bytes(&c, content, sizeof content);
        client_expect(&c, 429);
    }
    client_close(&c);
    assert_int_equal(origin_requests(w->origins[0]), 1);
    world_finish(w);
}

static void test_registered_client(void **state)
{
    struct world *w = *state;
    struct client c;
    const struct message *r;

    start(w, SCARCE(3), NULL);
    assert_int_equal(register_client(w, "{\"client_id\":\"user1\",\"capacity\":5,\"rate_per_sec\":0.01}"), 201);
    client_open(&c, w->port);
    client_send(&c, "GET / HTTP/1.1\r\nHost: h\r\nX-Client-ID: user1\r\n\r\n");
    r = client_expect(&c, 200);
    expect_field(r, "RateLimit-Policy", "\"client\";q=5;w=500");
    expect_field(r, "RateLimit", "\"client\";r=4;t=100");
    daemon_expect_event(&w->daemon, 0, "request", "client_id=user1 client=127.0.0.1");
    for (int i = 0; i < 4; i++) { /* the name counts, wherever it comes from */
        assert_int_equal(get_from(w, i % 2 ? "127.0.0.3" : "127.0.0.4", "x-client-id: user1\r\n"), 200);
    }
    client_send(&c, "GET / HTTP/1.1\r\nHost: h\r\nX-Client-ID: user1\r\n\r\n");
    r = client_expect(&c, 429);
    CHECK(strstr(r->body.p, "\"violated-policies\":[\"client\"]"), "policies are wrong in: %s", r->body.p);
    client_close(&c);
    /* the address' own bucket is untouched */
    expect_left(w, 3, "127.0.0.1", "");
    world_finish(w);
}

/* Inventing names gives no fresh buckets. */
static void test_unregistered_names_count_for_nothing(void **state)
{
    struct world *w = *state;

    start(w, SCARCE(3), NULL);
    for (int i = 0; i < 3; i++) {
        char field[64];

        snprintf(field, sizeof field, "X-Client-ID: nobody-%d\r\n", i);
        assert_int_equal(get_from(w, "127.0.0.1", field), 200);
    }
    assert_int_equal(get_from(w, "127.0.0.1", "X-Client-ID: nobody-9\r\n"), 429);
    assert_int_equal(get_from(w, "127.0.0.1", ""), 429);
    world_finish(w);
}

static void test_other_id_header(void **state)
{
    struct world *w = *state;

    start(w, SCARCE(1) ", \"client_id_header\": \"X-Api-Key\"", NULL);
    assert_int_equal(register_client(w, "{\"client_id\":\"k\",\"capacity\":2,\"rate_per_sec\":0.01}"), 201);
    expect_left(w, 2, "127.0.0.1", "X-Api-Key: k\r\n");
    expect_left(w, 1, "127.0.0.1", "X-Client-ID: k\r\n");
    world_finish(w);
}

static void test_registered_address(void **state)
{
    struct world *w = *state;

    start(w, SCARCE(2), NULL);
    assert_int_equal(register_client(w, "{\"client_id\":\"127.0.0.5\",\"capacity\":4,\"rate_per_sec\":0.01}"), 201);
    expect_left(w, 4, "127.0.0.5", "");
    expect_left(w, 2, "127.0.0.6", "");
    world_finish(w);
}

/* An address that was seen before keeps what its bucket held when it is registered. */
static void test_registration_takes_over_the_tokens(void **state)
{
    struct world *w = *state;

    start(w, SCARCE(5), NULL);
    for (int i = 0; i < 3; i++)
        assert_int_equal(get_from(w, "127.0.0.5", ""), 200);
    assert_int_equal(register_client(w, "{\"client_id\":\"127.0.0.5\",\"capacity\":100,\"rate_per_sec\":0.01}"), 201);
    expect_left(w, 2, "127.0.0.5", "");
    world_finish(w);
}

static void test_exempt(void **state)
{
    struct world *w = *state;
    struct client c;

    start(w, SCARCE(1) ", \"exempt\": [\"127.0.0.8/29\"]", NULL);
    assert_int_equal(register_client(w, "{\"client_id\":\"127.0.0.9\",\"capacity\":1,\"rate_per_sec\":0.01}"), 201);
    for (int i = 0; i < 10; i++)
        assert_int_equal(get_from(w, "127.0.0.9", ""), 200);
    expect_left(w, 1, "127.0.0.7", "");
    client_open_from(&c, "127.0.0.10", w->port);
    client_send(&c, "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_null(message_field(client_expect(&c, 200), "RateLimit"));
    client_close(&c);
    world_finish(w);
}

/* In shadow mode all passes; the log has what would not, each in its line, and together once a minute. */
static void test_shadow_and_off(void **state)
{
    struct world *w = *state;

    start(w, SCARCE(1), NULL);
    assert_int_equal(
        register_client(w, "{\"client_id\":\"s\",\"capacity\":2,\"rate_per_sec\":0.01,\"mode\":\"shadow\"}"), 201);
    assert_int_equal(register_client(w, "{\"client_id\":\"o\",\"capacity\":2,\"rate_per_sec\":0.01,\"mode\":\"off\"}"),
                     201);
    for (int i = 0; i < 5; i++) {
        assert_int_equal(get_from(w, "127.0.0.1", "X-Client-ID: s\r\n"), 200);
        assert_int_equal(get_from(w, "127.0.0.1", "X-Client-ID: o\r\n"), 200);
    }
    daemon_expect_event(&w->daemon, 0, "request", "client_id=s status=200 shadow=rate_limited");
    daemon_expect_event(&w->daemon, 0, "limit_shadow", "requests=1");
    assert_int_equal(daemon_count_events(&w->daemon, 0, "limit_shadow", NULL), 1);
    world_finish(w);
}

/* Whoever finds no room for a bucket of its own shares one, and the log says so. */
static void test_overflow_is_logged(void **state)
{
    struct world *w = *state;

    start(w, SCARCE(3) ", \"max_tracked\": 1", NULL);
    expect_left(w, 3, "127.0.0.1", "");
    assert_int_equal(get_from(w, "127.0.0.2", ""), 200);
    expect_left(w, 2, "127.0.0.3", "");
    daemon_expect_event(&w->daemon, 0, "limit_overflow", "requests=1");
    assert_int_equal(daemon_count_events(&w->daemon, 0, "limit_overflow", NULL), 1);
    world_finish(w);
}

static void test_unknown_clients_allowed(void **state)
{
    struct world *w = *state;

    start(w, SCARCE(1) ", \"unknown_clients\": \"allow\"", NULL);
    assert_int_equal(register_client(w, "{\"client_id\":\"user1\",\"capacity\":2,\"rate_per_sec\":0.01}"), 201);
    for (int i = 0; i < 10; i++)
        assert_int_equal(get_from(w, "127.0.0.1", ""), 200);
    expect_left(w, 2, "127.0.0.1", "X-Client-ID: user1\r\n");
    world_finish(w);
}

static void test_unknown_clients_rejected(void **state)
{
    struct world *w = *state;

    start(w, SCARCE(1) ", \"unknown_clients\": \"reject\"", NULL);
    assert_int_equal(register_client(w, "{\"client_id\":\"user1\",\"capacity\":2,\"rate_per_sec\":0.01}"), 201);
    assert_int_equal(get_from(w, "127.0.0.1", ""), 403);
    assert_int_equal(get_from(w, "127.0.0.1", "X-Client-ID: nobody\r\n"), 403);
    expect_left(w, 2, "127.0.0.1", "X-Client-ID: user1\r\n");
    daemon_expect_event(&w->daemon, 0, "request", "status=403 reason=unknown_client");
    world_finish(w);
}

static void test_headers_only_when_limited(void **state)
{
    struct world *w = *state;
    struct client c;

    start(w, SCARCE(1) ", \"headers\": \"limited\"", NULL);
    client_open(&c, w->port);
    client_send(&c, "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_null(message_field(client_expect(&c, 200), "RateLimit"));
    client_send(&c, "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_non_null(message_field(client_expect(&c, 429), "RateLimit"));
    assert_non_null(message_field(&c.response, "RateLimit-Policy"));
    client_close(&c);
    world_finish(w);
}

static void test_headers_off(void **state)
{
    struct world *w = *state;
    struct client c;

    start(w, SCARCE(1) ", \"headers\": \"off\"", NULL);
    client_open(&c, w->port);
    client_send(&c, "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_null(message_field(client_expect(&c, 200), "RateLimit"));
    client_send(&c, "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_null(message_field(client_expect(&c, 429), "RateLimit"));
    assert_non_null(message_field(&c.response, "Retry-After"));
    client_close(&c);
    world_finish(w);
}

/* From a trusted proxy the client is the right-most untrusted address; from others the field counts for nothing. */
static void test_trusted_proxies(void **state)
{
    struct world *w = *state;

    start(w, SCARCE(2), "\"trusted_proxies\": [\"127.0.0.2\", \"10.0.0.0/8\"]");
    expect_left(w, 2, "127.0.0.2", "X-Forwarded-For: 192.0.2.1\r\n");
    expect_left(w, 2, "127.0.0.2", "X-Forwarded-For: 192.0.2.2\r\n");
    /* what the client wrote itself stands left of what its proxy saw */
    expect_left(w, 0, "127.0.0.2", "X-Forwarded-For: 192.0.2.77, 192.0.2.1\r\n");
    expect_left(w, 0, "127.0.0.2", "X-Forwarded-For: 192.0.2.77\r\nX-Forwarded-For: 192.0.2.1, 10.1.1.1\r\n");
    expect_left(w, 0, "127.0.0.2", "X-Forwarded-For: 192.0.2.1:4711\r\n");
    expect_left(w, 0, "127.0.0.2", "X-Forwarded-For: ::ffff:192.0.2.1\r\n");
    expect_left(w, 0, "127.0.0.2", "X-Forwarded-For: [::ffff:192.0.2.1]:80\r\n");
    /* an entry that is no address ends the walk: the last good one is the client */
    expect_left(w, 2, "127.0.0.2", "X-Forwarded-For: unknown, 10.2.2.2\r\n");
    expect_left(w, 0, "127.0.0.2", "X-Forwarded-For: 192.0.2.99, 010.1.1.1, 10.2.2.2\r\n");
    /* from a peer that is not trusted */
    expect_left(w, 2, "127.0.0.3", "X-Forwarded-For: 192.0.2.3\r\n");
    expect_left(w, 0, "127.0.0.3", "X-Forwarded-For: 192.0.2.4\r\n");
    daemon_expect_event(&w->daemon, 0, "request", "client=192.0.2.1 status=429");
    daemon_expect_event(&w->daemon, 0, "request", "client=127.0.0.3 status=429");
    world_finish(w);
}

static void test_limiting_off(void **state)
{
    struct world *w = *state;

    world_origin(w, origin_answer_all, NULL, NULL);
    world_start(w, "\"rate_limit\": null");
    for (int i = 0; i < 300; i++)
        if (i % 10 == 0)
            assert_int_equal(get_from(w, "127.0.0.1", ""), 200);
    assert_int_equal(http_get(w->port, "/clients/list", NULL), 404);
    assert_int_equal(register_client(w, "{\"client_id\":\"user1\",\"capacity\":2,\"rate_per_sec\":1}"), 404);
    world_finish(w);
}

static void test_api_calls_take_no_token(void **state)
{
    struct world *w = *state;

    start(w, SCARCE(2), NULL);
    for (int i = 0; i < 10; i++)
        assert_int_equal(http_get(w->port, "/clients/list", NULL), 200);
    expect_left(w, 2, "127.0.0.1", "");
    assert_int_equal(http_get(w->port, "/clients/list", NULL), 200);
    world_finish(w);
}

/* Over any time T a client gets at most capacity + rate x T, and a steady one gets all of that. */
static void test_tokens_come_back_at_the_rate(void **state)
{
    struct world *w = *state;
    struct client c;
    int passed = 0;
    uint64_t begun;
    double seconds;

    start(w, "\"default\": {\"capacity\": 10, \"rate_per_sec\": 50}", NULL);
    client_open(&c, w->port);
    begun = now_ms();
    while (now_ms() - begun < 1500u) {
        client_send(&c, "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
        client_expect(&c, 0);
        passed += c.response.status == 200;
        usleep(2000);
    }
    seconds = (double)(now_ms() - begun) / 1000.0;
    CHECK(passed <= 10 + 50 * seconds + 1, "%d requests passed in %.3f s", passed, seconds);
    CHECK(is_instrumented() || passed >= 10 + 50 * seconds - 6, "only %d requests passed in %.3f s", passed, seconds);
    client_close(&c);
    world_finish(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WORLD_TEST(test_each_address_has_a_bucket),
        WORLD_TEST(test_what_a_429_says),
        WORLD_TEST(test_the_connection_survives_a_429),
        WORLD_TEST(test_the_connection_survives_many_refused_uploads),
        WORLD_TEST(test_registered_client),
        WORLD_TEST(test_unregistered_names_count_for_nothing),
        WORLD_TEST(test_other_id_header),
        WORLD_TEST(test_registered_address),
        WORLD_TEST(test_registration_takes_over_the_tokens),
        WORLD_TEST(test_exempt),
        WORLD_TEST(test_shadow_and_off),
        WORLD_TEST(test_overflow_is_logged),
        WORLD_TEST(test_unknown_clients_allowed),
        WORLD_TEST(test_unknown_clients_rejected),
        WORLD_TEST(test_headers_only_when_limited),
        WORLD_TEST(test_headers_off),
        WORLD_TEST(test_trusted_proxies),
        WORLD_TEST(test_limiting_off),
        WORLD_TEST(test_api_calls_take_no_token),
        WORLD_TEST(test_tokens_come_back_at_the_rate),
    };

    return cmocka_run_group_tests_name("limit", tests, NULL, NULL);
}
