/* How a backend is chosen by the other policies, what happens when none has a place, and how many connections one
 * address may have. */
#include "harness/world.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

/* Answers /now at once; everything else when the test lets it. */
static void holding_script(struct origin_conn *c)
{
    while (origin_read(c)) {
        if (strcmp(c->request.target, "/now") != 0)
            origin_hold(c);
        if (!origin_answer(c, origin_name(c->origin)))
            return;
    }
}

static void send_get(struct client *c, const char *target)
{
    client_sendf(c, "GET %s HTTP/1.1\r\nHost: h\r\n\r\n", target);
}

/* The number of the backend that answered: 1 for "b1". */
static int served_by(struct client *c)
{
    return atoi(client_expect(c, 200)->body.p + 1);
}

static void test_a_cap_makes_requests_wait(void **state)
{
    struct world *w = *state;
    struct client c[5];
    struct origin *o = world_origin(w, holding_script, NULL, "\"max_connections\": 1");

    world_start(w, "\"queue\": {\"size\": 3, \"timeout\": \"20s\"}");
    for (int i = 0; i < 5; i++)
        client_open(&c[i], w->port);
    send_get(&c[0], "/held");
    origin_wait_requests(o, 1);
    for (int i = 1; i < 4; i++) {
        client_sendf(&c[i], "POST /%d HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nbody", i);
        client_expect_silence(&c[i], 50); /* in the queue, in this order */
    }
    send_get(&c[4], "/too/many");
    const struct message *m = client_expect(&c[4], 503);
    assert_string_equal(message_field(m, "Retry-After"), "1");
    assert_non_null(strstr(m->body.p, "Too many requests are waiting for a backend."));
    daemon_expect_event(&w->daemon, 0, "request", "reason=queue_full");
    assert_int_equal(origin_requests(o), 1); /* never more at once */
    origin_release(o);
    for (int i = 0; i < 4; i++)
        assert_int_equal(served_by(&c[i]), 1);
    for (int i = 1; i < 4; i++) {
        char line[32];
        snprintf(line, sizeof line, "POST /%d ", i);
        assert_non_null(strstr(origin_head(o, (unsigned)i), line));
    }
    for (int i = 0; i < 5; i++)
        client_close(&c[i]);
    world_finish(w);
}

static void test_waiting_has_an_end(void **state)
{
    struct world *w = *state;
    struct client a, b;
    struct origin *o = world_origin(w, holding_script, NULL, "\"max_connections\": 1");

    world_start(w, "\"queue\": {\"timeout\": \"100ms\"}");
    client_open(&a, w->port);
    client_open(&b, w->port);
    send_get(&a, "/held");
    origin_wait_requests(o, 1);
    send_get(&b, "/late");
    assert_non_null(strstr(client_expect(&b, 503)->body.p, "No backend became free in time."));
    origin_release(o);
    assert_int_equal(served_by(&a), 1);
    send_get(&b, "/now"); /* the connection is as good as before */
    assert_int_equal(served_by(&b), 1);
    client_close(&a);
    client_close(&b);
    world_finish(w);
}

/* Who has gone takes nobody's place, neither in the queue nor at the backend. */
static void test_who_goes_leaves_the_queue(void **state)
{
    struct world *w = *state;
    struct client a, b, c;
    struct origin *o = world_origin(w, holding_script, NULL, "\"max_connections\": 1");

    world_start(w, "\"queue\": {\"size\": 1, \"timeout\": \"20s\"}");
    client_open(&a, w->port);
    client_open(&b, w->port);
    client_open(&c, w->port);
    send_get(&a, "/held");
    origin_wait_requests(o, 1);
    send_get(&b, "/gone");
    client_expect_silence(&b, 50);
    client_reset(&b);
    daemon_expect_event(&w->daemon, 0, "request", "reason=client_gone");
    send_get(&c, "/now");
    client_expect_silence(&c, 50);
    client_reset(&a); /* its place goes to the next, though the backend still works on it */
    assert_int_equal(served_by(&c), 1);
    for (unsigned i = 0; i < origin_requests(o); i++)
        assert_null(strstr(origin_head(o, i), "/gone"));
    origin_release(o);
    client_close(&c);
    world_finish(w);
}

/* A caller whose time is up closes: that is no reset, and what it has asked for is not done behind its back. */
static void test_who_closes_leaves_the_queue(void **state)
{
    struct world *w = *state;
    struct client a, b;
    struct origin *o = world_origin(w, holding_script, NULL, "\"max_connections\": 1");

    world_start(w, "\"queue\": {\"size\": 1, \"timeout\": \"20s\"}");
    client_open(&a, w->port);
    client_open(&b, w->port);
    send_get(&a, "/held");
    origin_wait_requests(o, 1);
    client_send(&b, "POST /gone HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nbody");
    client_expect_silence(&b, 50);
    client_close(&b);
    daemon_expect_event(&w->daemon, 0, "request", "target=/gone reason=client_gone attempts=0 queued_ms=*");
    origin_release(o);
    assert_int_equal(served_by(&a), 1);
    send_get(&a, "/now");
    assert_int_equal(served_by(&a), 1);
    for (unsigned i = 0; i < origin_requests(o); i++)
        assert_null(strstr(origin_head(o, i), "/gone"));
    client_close(&a);
    world_finish(w);
}

/* Another request behind the one that waits: the client's end of sending is not looked for behind that, since it may
 * well wait for both answers; a reset is noticed all the same. */
static void test_pipelined_requests_in_the_queue(void **state)
{
    struct world *w = *state;
    struct client a, b, c;
    struct origin *o = world_origin(w, holding_script, NULL, "\"max_connections\": 1");

    world_start(w, "\"queue\": {\"timeout\": \"20s\"}");
    client_open(&a, w->port);
    client_open(&b, w->port);
    client_open(&c, w->port);
    send_get(&a, "/held");
    origin_wait_requests(o, 1);
    client_send(&b, "GET /gone HTTP/1.1\r\nHost: h\r\n\r\nGET /behind HTTP/1.1\r\nHost: h\r\n\r\n");
    client_send(&c, "GET /now HTTP/1.1\r\nHost: h\r\n\r\nGET /now HTTP/1.1\r\nHost: h\r\n\r\n");
    client_expect_silence(&b, 50);
    client_half_close(&c);
    client_reset(&b);
    daemon_expect_event(&w->daemon, 0, "request", "target=/gone reason=client_gone attempts=0 queued_ms=*");
    origin_release(o);
    assert_int_equal(served_by(&a), 1);
    assert_int_equal(served_by(&c), 1);
    assert_int_equal(served_by(&c), 1);
    client_expect_end(&c);
    for (unsigned i = 0; i < origin_requests(o); i++)
        assert_null(strstr(origin_head(o, i), "/gone"));
    client_close(&a);
    client_close(&c);
    world_finish(w);
}

/* The same for a connection on which all has come at once, so that nothing is expected on it for now. */
static void test_a_first_pair_in_the_queue(void **state)
{
    struct world *w = *state;
    struct client a, b;
    struct origin *o = world_origin(w, holding_script, NULL, "\"max_connections\": 1");

    world_start(w, "\"queue\": {\"timeout\": \"20s\"}");
    client_open(&a, w->port);
    send_get(&a, "/held");
    origin_wait_requests(o, 1);
    daemon_signal(&w->daemon, SIGSTOP);
    client_open(&b, w->port);
    client_send(&b, "GET /gone HTTP/1.1\r\nHost: h\r\n\r\nGET /behind HTTP/1.1\r\nHost: h\r\n\r\n");
    daemon_signal(&w->daemon, SIGCONT);
    client_expect_silence(&b, 50);
    client_reset(&b);
    daemon_expect_event(&w->daemon, 0, "request", "target=/gone reason=client_gone attempts=0 queued_ms=*");
    origin_release(o);
    assert_int_equal(served_by(&a), 1);
    for (unsigned i = 0; i < origin_requests(o); i++)
        assert_null(strstr(origin_head(o, i), "/gone"));
    client_close(&a);
    world_finish(w);
}

static void late_refusing_script(struct origin_conn *c)
{
    if (!origin_read(c))
        return;
    origin_hold(c);
    origin_reset(c);
}

/* Who has gone before its request comes to wait, while it was with a backend that then failed it. */
static void test_who_went_before_queueing(void **state)
{
    struct world *w = *state;
    struct client a, b, c;
    struct origin *failing = world_origin(w, late_refusing_script, NULL, NULL);
    struct origin *o = world_origin(w, holding_script, NULL, "\"max_connections\": 1");

    world_start(w, "\"retry\": {\"attempts\": 1}, \"queue\": {\"timeout\": \"20s\"}, \"balance\": \"round_robin\"");
    client_open(&a, w->port);
    client_open(&b, w->port);
    client_open(&c, w->port);
    send_get(&a, "/fails");
    origin_wait_requests(failing, 1);
    send_get(&c, "/held");
    origin_wait_requests(o, 1);
    client_send(&b, "GET /gone HTTP/1.1\r\nHost: h\r\n\r\nGET /behind HTTP/1.1\r\nHost: h\r\n\r\n");
    origin_wait_requests(failing, 2);
    client_reset(&b);
    client_expect_silence(&a, 50);
    origin_release(failing);
    daemon_expect_event(&w->daemon, 0, "request", "target=/gone reason=client_gone attempts=1");
    origin_release(o);
    assert_int_equal(served_by(&c), 2);
    assert_int_equal(served_by(&a), 2);
    for (unsigned i = 0; i < origin_requests(o); i++)
        assert_null(strstr(origin_head(o, i), "/gone"));
    client_close(&a);
    client_close(&c);
    world_finish(w);
}

/* A request that is sent again waits like any other, and not for the backend that has failed it. */
static void refusing_script(struct origin_conn *c)
{
    if (origin_read(c))
        origin_reset(c);
}

static void test_a_retry_waits_too(void **state)
{
    struct world *w = *state;
    struct client a, b;
    world_origin(w, refusing_script, NULL, NULL);
    struct origin *o = world_origin(w, holding_script, NULL, "\"max_connections\": 1");

    world_start(w, "\"retry\": {\"attempts\": 1}, \"balance\": \"round_robin\"");
    client_open(&a, w->port);
    client_open(&b, w->port);
    send_get(&a, "/held"); /* b1 resets it, b2 holds it */
    origin_wait_requests(o, 1);
    send_get(&b, "/now"); /* the turn is b1's or b2's: by b1 it is reset, and waits for b2 */
    client_expect_silence(&b, 50);
    daemon_expect_event(&w->daemon, 0, "retry", "backend=b1 target=/now");
    origin_release(o);
    assert_int_equal(served_by(&a), 2);
    assert_int_equal(served_by(&b), 2);
    daemon_expect_event(&w->daemon, 0, "request", "target=/now attempts=2 queued_ms=*");
    client_close(&a);
    client_close(&b);
    world_finish(w);
}

/* The backend that has failed it has room, but is not asked again: not at the end of the wait either, nor where there
 * is no room in the queue. */
static void test_a_retry_waits_in_vain(void **state)
{
    struct world *w = *state;
    struct client a, b;
    struct origin *failing = world_origin(w, refusing_script, NULL, NULL);
    struct origin *o = world_origin(w, holding_script, NULL, "\"max_connections\": 1");

    world_start(w, "\"retry\": {\"attempts\": 5}, \"queue\": {\"size\": 1, \"timeout\": \"100ms\"}");
    client_open(&a, w->port);
    client_open(&b, w->port);
    send_get(&a, "/held");
    origin_wait_requests(o, 1);
    unsigned failed = origin_requests(failing);
    send_get(&b, "/late");
    assert_non_null(strstr(client_expect(&b, 503)->body.p, "No backend became free in time."));
    daemon_expect_event(&w->daemon, 0, "request", "target=/late reason=queue_timeout attempts=1");
    assert_int_equal(origin_requests(failing), failed + 1);
    world_config(w, "\"retry\": {\"attempts\": 5}, \"queue\": {\"size\": 0}");
    daemon_signal(&w->daemon, SIGHUP);
    daemon_expect_event(&w->daemon, 0, "reload", NULL);
    send_get(&b, "/nowhere");
    assert_non_null(strstr(client_expect(&b, 503)->body.p, "Too many requests are waiting for a backend."));
    daemon_expect_event(&w->daemon, 0, "request", "target=/nowhere reason=queue_full attempts=1");
    assert_int_equal(origin_requests(failing), failed + 2);
    origin_release(o);
    assert_int_equal(served_by(&a), 2);
    client_close(&a);
    client_close(&b);
    world_finish(w);
}

static void test_least_conn(void **state)
{
    struct world *w = *state;
    struct client held[2], c;
    struct origin *o[3];

    for (int i = 0; i < 3; i++)
        o[i] = world_origin(w, holding_script, NULL, NULL);
    world_start(w, "\"balance\": \"least_conn\"");
    client_open(&c, w->port);
    for (int i = 0; i < 2; i++) {
        client_open(&held[i], w->port);
        send_get(&held[i], "/held");
        origin_wait_requests(o[i], 1);
    }
    for (int i = 0; i < 20; i++) {
        send_get(&c, "/now");
        assert_int_equal(served_by(&c), 3); /* the only idle one */
    }
    for (int i = 0; i < 2; i++) {
        origin_release(o[i]);
        assert_int_equal(served_by(&held[i]), i + 1);
        client_close(&held[i]);
    }
    int counts[4] = {0};
    for (int i = 0; i < 30; i++) {
        send_get(&c, "/now");
        counts[served_by(&c)]++;
    }
    for (int b = 1; b <= 3; b++)
        assert_int_equal(counts[b], 10);
    client_close(&c);
    world_finish(w);
}

static int ask_with(struct client *c, const char *fields, const char *target)
{
    client_sendf(c, "GET %s HTTP/1.1\r\nHost: h\r\n%s\r\n", target, fields);
    return served_by(c);
}

/* Each way to name the key: the same key finds the same backend, and many keys find all. */
static void test_hash(void **state)
{
    static const struct {
        const char *config, *before, *behind;
    } kinds[] = {
        {"target", "X: ", "\r\n"},
        {"header:X-User", "x-user: ", "\r\n"},
        {"cookie:session", "Cookie: sessions=1; sess=2; session=", "; sessions=3\r\n"},
        {"ip", "X-Forwarded-For: 10.0.0.", "\r\n"},
    };
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
        void *fresh = NULL;
        if (k > 0)
            assert_int_equal(world_setup(&fresh), 0);
        struct world *w = k > 0 ? fresh : *state;
        struct client c;
        char text[160], fields[100], target[60];
        int first[40], counts[4] = {0};

        for (int i = 0; i < 3; i++)
            world_origin(w, origin_answer_all, NULL, NULL);
        snprintf(text, sizeof text, "\"balance\": \"hash\", \"hash_key\": \"%s\", \"trusted_proxies\": [\"127.0.0.1\"]",
                 kinds[k].config);
        world_start(w, text);
        client_open(&c, w->port);
        for (int i = 0; i < 120; i++) {
            int key = i % 40;
            snprintf(fields, sizeof fields, "%s%d%s", kinds[k].before, key, kinds[k].behind);
            snprintf(target, sizeof target, "/now?user=%d", k == 0 ? key : i);
            int b = ask_with(&c, fields, target);
            if (i < 40)
                first[key] = b;
            assert_int_equal(b, first[key]);
            counts[b]++;
        }
        for (int b = 1; b <= 3; b++)
            assert_true(counts[b] >= 9);
        for (int i = 0; i < 3 && k > 0 && k < 3; i++) /* without a key it goes round */
            assert_int_equal(ask_with(&c, "", "/"), i + 1);
        client_close(&c);
        world_finish(w);
        if (k > 0)
            assert_int_equal(world_teardown(&fresh), 0);
    }
}

static void test_a_returning_backend_starts_slowly(void **state)
{
    struct world *w = *state;
    struct client c;
    int counts[3] = {0};

    world_origin(w, origin_answer_all, NULL, NULL);
    struct origin *o = world_origin(w, origin_answer_all, NULL, NULL);
    world_start(w, "\"slow_start\": \"20s\", \"health_check\": {\"interval\": \"50ms\", \"fall\": 1, \"rise\": 1}");
    client_open(&c, w->port);
    origin_refuse(o);
    origin_reset_all(o);
    daemon_expect_event(&w->daemon, 0, "backend_down", "backend=b2");
    origin_accept_again(o);
    daemon_expect_event(&w->daemon, 0, "backend_up", "backend=b2");
    for (int i = 0; i < 110; i++)
        counts[ask_with(&c, "", "/")]++;
    assert_in_range(counts[2], 8, 40); /* a tenth at first; how far it has grown by now is the machine's */
    client_close(&c);
    world_finish(w);
}

/* ---- connections ---- */

static void test_connections_of_one_address(void **state)
{
    struct world *w = *state;
    struct client c[3], more, other;

    world_origin(w, origin_answer_all, NULL, NULL);
    world_start(w, "\"limits\": {\"connections_per_client\": 3}");
    for (int i = 0; i < 3; i++) {
        client_open(&c[i], w->port);
        assert_int_equal(ask_with(&c[i], "", "/"), 1);
    }
    client_open(&more, w->port);
    const struct message *m = client_expect(&more, 503);
    assert_string_equal(message_field(m, "Retry-After"), "1");
    assert_non_null(strstr(m->body.p, "This address has as many connections as it may have."));
    client_close(&more);
    daemon_expect_event(&w->daemon, 0, "limit_connections", "client=127.0.0.1");
    client_open_from(&other, "127.0.0.2", w->port); /* others have their own */
    assert_int_equal(ask_with(&other, "", "/"), 1);
    client_close(&other);
    client_close(&c[1]); /* one goes, one may come */
    for (int tries = 0, status = 503; status != 200; tries++) {
        assert_true(tries < 1000);
        struct client next;
        client_open(&next, w->port);
        client_sendf(&next, "GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
        status = client_read(&next, false) == READ_OK ? next.response.status : 0;
        client_close(&next);
    }
    client_close(&c[0]);
    client_close(&c[2]);
    world_finish(w);
}

/* One connection too many, from that address. */
static void be_refused(struct world *w, const char *from)
{
    struct client c;

    client_open_from(&c, from, w->port);
    client_expect(&c, 503);
    client_close(&c);
}

struct refusals {
    double own[4], others, all; /* own[n]: of 127.0.0.n; all: over limits.connections */
};

static struct refusals logged_refusals(struct world *w)
{
    struct refusals sum = {0};
    (void)daemon_mark(&w->daemon);
    for (size_t i = 0; i < w->daemon.line_count; i++) {
        const cJSON *line = w->daemon.lines[i];
        if (strcmp(log_field(line, "event"), "limit_connections") != 0)
            continue;
        const char *client = log_field(line, "client");
        *(client ? &sum.own[client[strlen(client) - 1] - '0'] : &sum.all) += log_number(line, "refused");
        sum.others += log_field(line, "others") ? log_number(line, "others") : 0;
    }
    return sum;
}

/* Each is counted, though no further one follows; to the address that is named, or to others; and those that all
 * together were too many for are nobody's. */
static void test_every_refusal_is_logged(void **state)
{
    struct world *w = *state;
    struct client c[3];
    struct refusals r;
    uint64_t deadline;

    world_origin(w, origin_answer_all, NULL, NULL);
    world_start(w, "\"limits\": {\"connections\": 3, \"connections_per_client\": 1}");
    for (int i = 0; i < 2; i++) {
        char from[32];
        snprintf(from, sizeof from, "127.0.0.%d", i + 1);
        client_open_from(&c[i], from, w->port);
        assert_int_equal(ask_with(&c[i], "", "/"), 1);
    }
    for (int i = 0; i < 50; i++)
        be_refused(w, i % 5 < 3 ? "127.0.0.1" : "127.0.0.2");
    deadline = deadline_in(patience_ms());
    do {
        rest();
        r = logged_refusals(w);
    } while (r.own[1] + r.own[2] + r.others < 50 && left_ms(deadline) > 0);
    assert_int_equal(r.own[1] + r.own[2] + r.others, 50);
    assert_true(r.own[1] <= 30 && r.own[2] <= 20);
    client_open_from(&c[2], "127.0.0.3", w->port);
    assert_int_equal(ask_with(&c[2], "", "/"), 1);
    for (int i = 0; i < 7; i++)
        be_refused(w, "127.0.0.9");
    for (int i = 0; i < 3; i++)
        client_close(&c[i]);
    world_stop(w);
    r = logged_refusals(w);
    assert_int_equal(r.all, 7);
    assert_int_equal(r.own[1] + r.own[2] + r.own[3] + r.others, 50);
    w->finished = true;
}

/* Unless it is set, those on the same machine are not counted: a proxy in front brings everybody's connections. */
static void test_local_and_trusted_peers_are_many(void **state)
{
    struct world *w = *state;
    struct client c[20];

    world_origin(w, origin_answer_all, NULL, NULL);
    world_start(w, "\"limits\": {\"connections\": 20}");
    for (int i = 0; i < 20; i++) {
        client_open(&c[i], w->port);
        assert_int_equal(ask_with(&c[i], "", "/"), 1);
    }
    for (int i = 0; i < 20; i++)
        client_close(&c[i]);
    world_stop(w);
    world_config(w, "\"limits\": {\"connections_per_client\": 1}, \"trusted_proxies\": [\"127.0.0.1\"]");
    world_restart(w);
    for (int i = 0; i < 20; i++) {
        client_open(&c[i], w->port);
        assert_int_equal(ask_with(&c[i], "", "/"), 1);
    }
    for (int i = 0; i < 20; i++)
        client_close(&c[i]);
    world_finish(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WORLD_TEST(test_a_cap_makes_requests_wait),
        WORLD_TEST(test_waiting_has_an_end),
        WORLD_TEST(test_who_goes_leaves_the_queue),
        WORLD_TEST(test_who_closes_leaves_the_queue),
        WORLD_TEST(test_pipelined_requests_in_the_queue),
        WORLD_TEST(test_a_first_pair_in_the_queue),
        WORLD_TEST(test_who_went_before_queueing),
        WORLD_TEST(test_a_retry_waits_too),
        WORLD_TEST(test_a_retry_waits_in_vain),
        WORLD_TEST(test_least_conn),
        WORLD_TEST(test_hash),
        WORLD_TEST(test_a_returning_backend_starts_slowly),
        WORLD_TEST(test_connections_of_one_address),
        WORLD_TEST(test_every_refusal_is_logged),
        WORLD_TEST(test_local_and_trusted_peers_are_many),
    };
    return cmocka_run_group_tests_name("queue", tests, NULL, NULL);
}
