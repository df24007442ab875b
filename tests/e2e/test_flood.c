/* Floods. A hundred thousand requests in one connection before the first response is read: memory stays what it is,
 * others are served meanwhile, and in the end each has its response, in order. And addresses without end, by the word
 * of a trusted proxy: memory is bounded by max_tracked, and who is registered notices nothing. */
#include "harness/world.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define REQUESTS      100000u
#define FEW           10000u /* under an instrument */
#define RSS_LIMIT_KIB (16 * 1024)

struct flood {
    int fd;
    unsigned requests;
    atomic_size_t sent;
    atomic_bool broken;
};

/* Sends them all, as fast as they are taken. */
static void *send_flood(void *arg)
{
    struct flood *f = arg;

    for (unsigned i = 0; i < f->requests && !f->broken; i++) {
        char text[64];
        int n = snprintf(text, sizeof text, "GET /%u HTTP/1.1\r\nHost: h\r\n\r\n", i);
        if (!send_all(f->fd, text, (size_t)n, 10 * patience_ms()))
            f->broken = true;
        f->sent += (size_t)n;
    }
    return NULL;
}

/* Answers with the target. */
static void target_script(struct origin_conn *c)
{
    while (origin_read(c) && origin_answer(c, c->request.target))
        ;
}

/* Waits until nothing more is taken from the sender. */
static void wait_for_standstill(struct flood *f)
{
    uint64_t deadline = deadline_in(10 * patience_ms()), since = now_ms();

    for (size_t sent = f->sent; now_ms() - since < 500; rest()) {
        CHECK(left_ms(deadline) > 0, "the sender is never stopped");
        if (f->sent != sent) {
            sent = f->sent;
            since = now_ms();
        }
    }
}

static int others_wait(struct world *w)
{
    uint64_t since = now_ms();

    assert_int_equal(http_get(w->port, "/other", NULL), 200);
    return (int)(now_ms() - since);
}

static void test_pipelined_flood(void **state)
{
    struct world *w = *state;
    struct flood f = {.requests = is_instrumented() ? FEW : REQUESTS};
    struct client c;
    pthread_t sender;
    int longest = 0;

    world_origin(w, target_script, NULL, NULL);
    world_start(w, "\"log\": {\"format\": \"json\", \"access\": false}");
    client_open(&c, w->port);
    f.fd = c.in.fd;
    assert_int_equal(pthread_create(&sender, NULL, send_flood, &f), 0);
    wait_for_standstill(&f);
    long peak = proc_kib(w->daemon.pid, "VmHWM");
    CHECK(is_instrumented() || (peak > 0 && peak < RSS_LIMIT_KIB), "the daemon took %ld KiB", peak);
    others_wait(w);
    for (unsigned i = 0; i < f.requests; i++) {
        char target[32];
        snprintf(target, sizeof target, "/%u", i);
        const struct message *m = client_expect(&c, 200);
        CHECK(strcmp(m->body.p, target) == 0, "%s instead of %s", m->body.p, target);
        if (i % 1000 == 0) {
            int waited = others_wait(w);
            longest = waited > longest ? waited : longest;
        }
    }
    CHECK(is_instrumented() || longest < 1000, "somebody else had to wait %d ms", longest);
    assert_int_equal(pthread_join(sender, NULL), 0);
    assert_false(f.broken);
    client_close(&c);
    world_finish(w);
}

/* ---- what the balancer answers itself, and so at once ---- */

#define BURSTS     4u
#define BURST      400u
#define ASK(where) "GET /clients/" where " HTTP/1.1\r\nHost: h\r\n\r\n"

static void send_burst(struct client *c)
{
    struct bytes all = {0};

    for (unsigned i = 0; i < BURST; i++)
        bytes_addf(&all, ASK("burst"));
    client_send_bytes(c, all.p, all.n);
    bytes_free(&all);
    client_half_close(c);
}

/* How many lines of the bursts are in front of the other request's. */
static size_t lines_before(struct daemon *d)
{
    const cJSON *other = daemon_expect_event(d, 0, "request", "target=/clients/other");
    size_t n = 0, at = 0;

    for (; d->lines[at] != other; at++) {
        const char *target = log_field(d->lines[at], "target");
        n += target && strcmp(target, "/clients/burst") == 0;
    }
    return n;
}

/* Bursts that all lie there when the loop comes to them: others have their turn in between, and each burst is answered
 * to its end. */
static void test_bursts_take_turns(void **state)
{
    struct world *w = *state;
    struct client burst[BURSTS], other;

    world_origin(w, target_script, NULL, NULL);
    world_start(w, NULL);
    for (unsigned i = 0; i <= BURSTS; i++) {
        struct client *c = i < BURSTS ? &burst[i] : &other;
        client_open(c, w->port);
        client_send(c, ASK("before"));
        client_expect(c, 404);
    }
    daemon_signal(&w->daemon, SIGSTOP);
    for (unsigned i = 0; i < BURSTS; i++)
        send_burst(&burst[i]);
    client_send(&other, ASK("other"));
    daemon_signal(&w->daemon, SIGCONT);
    client_expect(&other, 404);
    client_close(&other);
    for (unsigned i = 0; i < BURSTS; i++) {
        for (unsigned n = 0; n < BURST; n++)
            client_expect(&burst[i], 404);
        client_expect_end(&burst[i]);
        client_close(&burst[i]);
    }
    size_t before = lines_before(&w->daemon);
    CHECK(before <= BURSTS * 32, "%zu requests were answered first", before);
    world_finish(w);
}

/* ---- addresses without end ---- */

#define TRACKED       10000
#define TRACKED_BYTES 48            /* docs/limiter.md has what an unregistered client takes */
#define BESIDES       (1024 * 1024) /* overflow buckets that are touched for the first time; buffers */
#define PIPELINED     100u
#define FLOOD_MS      3000u

/* The registered client: a token in more years than there are. */
#define TOKENS  1000000
#define TOKEN_S 100000000ll
#define REGULAR "{\"client_id\":\"regular\",\"capacity\":1000000,\"rate_per_sec\":1e-8}"

/* The next few requests, each from an address of its own, somewhere in 10.0.0.0/8; no two are the same, for the factor
 * is odd. */
static void send_spoofed(struct client *c, unsigned first)
{
    struct bytes all = {0};

    for (unsigned i = 0; i < PIPELINED; i++) {
        unsigned a = (first + i) * 2654435761u & 0xffffff;
        bytes_addf(&all, "GET / HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 10.%u.%u.%u\r\n\r\n", a >> 16, a >> 8 & 255,
                   a & 255);
    }
    client_send_bytes(c, all.p, all.n);
    bytes_free(&all);
}

static unsigned read_spoofed(struct client *c)
{
    unsigned passed = 0;

    for (unsigned i = 0; i < PIPELINED; i++) {
        int status = client_expect(c, 0)->status;
        CHECK(status == 200 || status == 429, "%d in the flood", status);
        passed += status == 200;
    }
    return passed;
}

/* The `n`th request of the registered client, the first of which was at `begun`: one token less than the one before,
 * and to the second as long to a full bucket as if nobody else were there. */
static void ask_regular(struct client *c, long long n, uint64_t begun)
{
    long long left, seconds, latest = n * TOKEN_S;

    client_send(c, "GET / HTTP/1.1\r\nHost: h\r\nX-Client-ID: regular\r\n\r\n");
    const struct message *m = client_expect(c, 200);
    long long earliest = latest - (long long)(now_ms() - begun) / 1000 - 1;
    assert_string_equal(message_field(m, "RateLimit-Policy"), "\"client\";q=1000000;w=100000000000000");
    assert_int_equal(sscanf(message_field(m, "RateLimit"), "\"client\";r=%lld;t=%lld", &left, &seconds), 2);
    CHECK(left == TOKENS - n && seconds >= earliest && seconds <= latest, "request %lld: %s", n,
          message_field(m, "RateLimit"));
}

static void test_spoofed_addresses(void **state)
{
    struct world *w = *state;
    struct client flood, regular;
    unsigned sent = 0, passed = 0, least = is_instrumented() ? 2 * TRACKED : 10 * TRACKED;
    long long asked = 0;

    world_origin(w, target_script, NULL, NULL);
    world_start(w, "\"log\": {\"format\": \"json\", \"access\": false}, \"trusted_proxies\": [\"127.0.0.1\"], "
                   "\"rate_limit\": {\"max_tracked\": 10000, \"default\": {\"capacity\": 2, \"rate_per_sec\": 1e-6}}");
    assert_int_equal(http_request(w->port, "POST", "/clients/register", "", REGULAR, NULL), 201);
    client_open(&flood, w->port);
    client_open(&regular, w->port);
    uint64_t begun = now_ms();
    send_spoofed(&flood, sent);
    passed += read_spoofed(&flood);
    sent += PIPELINED;
    ask_regular(&regular, ++asked, begun);
    long before = proc_kib(w->daemon.pid, "RssAnon");
    while (sent < least || now_ms() - begun < FLOOD_MS) {
        send_spoofed(&flood, sent);
        ask_regular(&regular, ++asked, begun);
        passed += read_spoofed(&flood);
        sent += PIPELINED;
    }
    long grown = proc_kib(w->daemon.pid, "RssAnon") - before;
    print_message("%u addresses, %u requests passed, %ld KiB more\n", sent, passed, grown);
    CHECK(is_instrumented() || grown <= (TRACKED * TRACKED_BYTES + BESIDES) / 1024, "the daemon took %ld KiB", grown);
    /* each that is tracked has its own bucket, and each /16 of the others one between them */
    CHECK(passed >= TRACKED && passed <= TRACKED + 2 * 256, "%u requests passed", passed);
    daemon_expect_event(&w->daemon, 0, "limit_overflow", "requests=1");
    size_t lines = daemon_count_events(&w->daemon, 0, "limit_overflow", NULL);
    CHECK(lines <= 1 + (now_ms() - begun) / 60000, "%zu lines of the log", lines);
    client_close(&flood);
    client_close(&regular);
    world_finish(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WORLD_TEST(test_pipelined_flood),
        WORLD_TEST(test_bursts_take_turns),
        WORLD_TEST(test_spoofed_addresses),
    };

    return cmocka_run_group_tests_name("flood", tests, NULL, NULL);
}
