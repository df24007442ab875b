/* The tokens of registered clients outlive kill -9, to the last one: however often the daemon is killed, and whenever,
 * no more requests pass than the bucket held. */
#include "harness/world.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define ASK "GET / HTTP/1.1\r\nHost: h\r\nX-Client-ID: u1\r\n\r\n"

/* No refill to speak of, and no save that could help. */
#define SLOW    "\"capacity\":200,\"rate_per_sec\":0.000001}"
#define NO_SAVE "\"rate_limit\": {\"save_interval\": \"1m\"}"

static void add_client(struct world *w, const char *id, const char *settings)
{
    char body[200];

    snprintf(body, sizeof body, "{\"client_id\":\"%s\",%s", id, settings);
    assert_int_equal(http_request(w->port, "POST", "/clients/register", "", body, NULL), 201);
}

/* The client's tokens, as the daemon has them now. */
static double tokens_of(struct world *w, const char *id)
{
    struct bytes body = {0};
    char target[100];

    snprintf(target, sizeof target, "/clients/get?id=%s", id);
    assert_int_equal(http_get(w->port, target, &body), 200);
    cJSON *client = cJSON_Parse(body.p);
    double tokens = log_number(client, "tokens");
    cJSON_Delete(client);
    bytes_free(&body);
    return tokens;
}

/* Asks `n` times on one connection; how many passed. */
static unsigned ask(struct world *w, unsigned n)
{
    struct client c;
    unsigned passed = 0;

    client_open(&c, w->port);
    for (unsigned i = 0; i < n; i++) {
        client_send(&c, ASK);
        passed += client_expect(&c, 0)->status == 200;
    }
    client_close(&c);
    return passed;
}

static void test_to_the_last_token(void **state)
{
    struct world *w = *state;

    world_origin(w, origin_answer_all, NULL, NULL);
    world_start(w, NO_SAVE);
    add_client(w, "u1", SLOW);
    for (unsigned i = 0; i < 6; i++) {
        assert_int_equal(ask(w, 30), 30);
        daemon_kill(&w->daemon);
        world_restart(w);
        double tokens = tokens_of(w, "u1"), left = 200 - 30 * (i + 1);
        CHECK(tokens <= left + 0.001 && tokens > left - 0.001, "%f tokens instead of %f", tokens, left);
    }
    assert_int_equal(ask(w, 30), 20);
    daemon_kill(&w->daemon);
    world_restart(w);
    assert_int_equal(ask(w, 5), 0);
    assert_int_equal(access(world_path(w, "clients.json.tokens"), F_OK), 0);
    world_stop(w);
    /* After a graceful stop clients.json alone holds everything. */
    assert_int_equal(access(world_path(w, "clients.json.tokens"), F_OK), -1);
    assert_int_equal(access(world_path(w, "clients.json.journal"), F_OK), -1);
    world_restart(w);
    assert_int_equal(ask(w, 5), 0);
    world_finish(w);
}

/* Killed in the middle of traffic and of changes: what has reached the backend never exceeds the capacity, and what the
 * client has left is that less, but for what was under way. */
static void test_killed_under_load(void **state)
{
    struct world *w = *state;
    unsigned kills = getenv("LB_E2E_BIG") ? 200 : 25, answered = 0;

    struct origin *o = world_origin(w, origin_answer_all, NULL, NULL);
    world_start(w, NO_SAVE ", \"log\": {\"format\": \"json\", \"access\": false}");
    add_client(w, "u1", "\"capacity\":3000,\"rate_per_sec\":0.000001}");
    for (unsigned k = 0; k < kills; k++) {
        struct client c, api;
        unsigned n = 5 + k * 7 % 40; /* another moment each time */
        client_open(&c, w->port);
        client_open(&api, w->port);
        for (unsigned i = 0; i < n; i++) {
            client_send(&c, ASK);
            answered += client_expect(&c, 0)->status == 200;
        }
        /* Settings change and change back, and so does the word's place; then requests that nobody waits for. */
        const char *body = "{\"client_id\":\"u1\",\"rate_per_sec\":0.000002}";
        client_sendf(&api, "PUT /clients/update HTTP/1.1\r\nHost: h\r\nContent-Length: %zu\r\n\r\n%s", strlen(body),
                     body);
        if (k % 2)
            client_expect(&api, 200);
        client_send(&c, ASK ASK ASK);
        daemon_kill(&w->daemon);
        client_close(&c);
        client_close(&api);
        world_restart(w);
    }
    unsigned delivered = origin_requests(o);
    double left = tokens_of(w, "u1");
    CHECK(delivered >= answered, "%u answers of %u requests", answered, delivered);
    CHECK(left <= 3000.01 - delivered, "%f tokens are left, and %u requests have passed", left, delivered);
    CHECK(left >= 3000 - delivered - 3.0 * kills, "only %f tokens are left behind %u requests", left, delivered);
    world_finish(w);
}

/* Of a file that is not the clients.json's that it stands beside, nothing is taken; nor from one that is damaged. */
static void test_what_does_not_fit(void **state)
{
    struct world *w = *state;

    world_origin(w, origin_answer_all, NULL, NULL);
    world_start(w, NO_SAVE);
    add_client(w, "u1", SLOW);
    world_stop(w); /* clients.json: 200 tokens */
    world_restart(w);
    assert_int_equal(ask(w, 50), 50);
    daemon_kill(&w->daemon);
    const char *old = "{\"clients\":[\n{\"client_id\":\"u1\"," SLOW "\n],\"saved_at\":\"2026-01-01T00:00:00.000Z\"}\n";
    FILE *f = fopen(world_path(w, "clients.json"), "w");
    assert_non_null(f);
    assert_true(fputs(old, f) >= 0);
    assert_int_equal(fclose(f), 0);
    world_restart(w);
    const cJSON *line = daemon_expect_event(&w->daemon, 0, "tokens_ignored", NULL);
    assert_string_equal(log_field(line, "reason"), "another clients.json");
    assert_true(tokens_of(w, "u1") > 199.9);
    assert_int_equal(ask(w, 50), 50);
    daemon_kill(&w->daemon);
    assert_int_equal(truncate(world_path(w, "clients.json.tokens"), 100), 0);
    world_restart(w);
    daemon_expect_event(&w->daemon, 0, "tokens_ignored", "reason=damaged");
    assert_true(tokens_of(w, "u1") > 199.9);
    world_finish(w);
}

/* Where there can be no such file, the rest goes on, and says so. */
static void test_no_place_for_it(void **state)
{
    struct world *w = *state;

    world_origin(w, origin_answer_all, NULL, NULL);
    assert_int_equal(mkdir(world_path(w, "clients.json.tokens.tmp"), 0755), 0);
    world_start(w, NULL);
    daemon_expect_event(&w->daemon, 0, "tokens_not_kept", "file=clients.json.tokens reason=*");
    add_client(w, "u1", SLOW);
    assert_int_equal(ask(w, 10), 10);
    world_stop(w);
    world_restart(w);
    assert_true(tokens_of(w, "u1") < 190.1);
    world_finish(w);
    assert_int_equal(rmdir(world_path(w, "clients.json.tokens.tmp")), 0);
}

/* Somebody cuts the file short under the running daemon: that is said, and nothing else happens. */
static void test_the_file_is_cut_short(void **state)
{
    struct world *w = *state;

    world_origin(w, origin_answer_all, NULL, NULL);
    world_start(w, "\"rate_limit\": {\"save_interval\": \"100ms\"}");
    add_client(w, "u1", SLOW);
    assert_int_equal(ask(w, 10), 10);
    assert_int_equal(truncate(world_path(w, "clients.json.tokens"), 0), 0);
    assert_int_equal(ask(w, 10), 10);
    daemon_expect_event(&w->daemon, 0, "store_failed", "what=tokens");
    add_client(w, "u2", SLOW);
    assert_int_equal(ask(w, 10), 10);
    world_finish(w);
}

/* More clients than one piece of the file has room for. */
static void test_many_clients(void **state)
{
    struct world *w = *state;
    struct client c;
    enum { MANY = 6000 };

    world_origin(w, origin_answer_all, NULL, NULL);
    world_start(w, NO_SAVE ", \"log\": {\"format\": \"json\", \"access\": false}");
    client_open(&c, w->port);
    for (int i = 0; i < MANY; i++) {
        char body[100];
        snprintf(body, sizeof body, "{\"client_id\":\"c%d\",\"capacity\":10,\"rate_per_sec\":0.000001}", i);
        client_sendf(&c, "POST /clients/register HTTP/1.1\r\nHost: h\r\nContent-Length: %zu\r\n\r\n%s", strlen(body),
                     body);
        if (i % 16 == 15)
            for (int k = 0; k < 16; k++)
                client_expect(&c, 201);
    }
    client_sendf(&c,
                 "GET / HTTP/1.1\r\nHost: h\r\nX-Client-ID: c0\r\n\r\n"
                 "GET / HTTP/1.1\r\nHost: h\r\nX-Client-ID: c%d\r\n\r\n",
                 MANY - 1);
    client_expect(&c, 200);
    client_expect(&c, 200);
    client_close(&c);
    daemon_kill(&w->daemon);
    world_restart(w);
    char last[16];
    snprintf(last, sizeof last, "c%d", MANY - 1);
    assert_true(tokens_of(w, "c0") < 9.01 && tokens_of(w, last) < 9.01 && tokens_of(w, "c1") > 9.99);
    world_finish(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WORLD_TEST(test_to_the_last_token), WORLD_TEST(test_killed_under_load),     WORLD_TEST(test_what_does_not_fit),
        WORLD_TEST(test_no_place_for_it),   WORLD_TEST(test_the_file_is_cut_short), WORLD_TEST(test_many_clients),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
