/* A hundred thousand requests in one connection before the first response is read: memory stays what it is, others are
 * served meanwhile, and in the end each has its response, in order. */
#include "harness/world.h"

#include <pthread.h>
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

int main(void)
{
    const struct CMUnitTest tests[] = {WORLD_TEST(test_pipelined_flood)};

    return cmocka_run_group_tests_name("flood", tests, NULL, NULL);
}
