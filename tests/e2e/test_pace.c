/* Content that trickles is not waited for, whatever the time-outs between bytes; what is slow, or rests, is. All of it
 * at once, for it takes as long as it takes. */
#include "harness/world.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define TICK_MS 100
#define TICKS   165 /* of 100 ms: some seconds more than the span that the pace is taken over */
#define HALF    1000

static void length_script(struct origin_conn *c)
{
    while (origin_read(c)) {
        char text[32];
        snprintf(text, sizeof text, "%zu", c->request.body.n);
        if (!origin_answer(c, text))
            return;
    }
}

static void begin(struct client *c, const struct world *w, unsigned length)
{
    client_open(c, w->port);
    client_sendf(c, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: %u\r\n\r\n", length);
}

static void expect_content(struct client *c, const char *text)
{
    const struct message *m = client_expect(c, 200);

    assert_string_equal(m->body.p, text);
    client_close(c);
}

static void test_trickling_uploads_are_ended(void **state)
{
    static char bytes[HALF];
    struct world *w = *state;
    struct client trickle, chunked, slow, rest, pieces;
    bool ended = false, chunked_ended = false;

    memset(bytes, 'x', sizeof bytes);
    world_origin(w, length_script, NULL, NULL);
    world_start(w, "\"timeouts\": {\"client_body\": \"12s\"}");
    begin(&trickle, w, 1000);
    begin(&pieces, w, 30);
    begin(&slow, w, TICKS * 30); /* 300 bytes a second */
    begin(&rest, w, 2 * HALF);
    client_open(&chunked, w->port);
    client_send(&chunked, "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n");
    client_send_bytes(&rest, bytes, HALF);
    uint64_t since = now_ms(), took = 0;
    for (unsigned tick = 0; tick < TICKS; tick++) {
        if (tick % 80 == 0)
            client_send_bytes(&pieces, bytes, 10); /* at 0, 8 and 16 s: with the last the content is complete */
        if (tick == 110)
            client_send_bytes(&rest, bytes, HALF);
        if (!ended)
            ended = !client_try_send(&trickle, bytes, 1) || stream_fill(&trickle.in, now_ms()) != READ_TIMEOUT;
        if (!chunked_ended)
            chunked_ended =
                !client_try_send(&chunked, "1\r\nx\r\n", 6) || stream_fill(&chunked.in, now_ms()) != READ_TIMEOUT;
        if (ended && took == 0)
            took = now_ms() - since;
        client_send_bytes(&slow, bytes, 30);
        uint64_t next = since + (tick + 1) * TICK_MS;
        for (int left; (left = left_ms(next)) > 0;)
            usleep((unsigned)left * 1000);
    }
    assert_true(ended && chunked_ended);
    CHECK(took > 11000 && took < 14500, "ended after %d ms", (int)took);
    client_expect(&trickle, 408);
    client_expect_end_or_reset(&trickle);
    client_expect(&chunked, 408);
    client_close(&trickle);
    client_close(&chunked);
    expect_content(&slow, "4950");
    expect_content(&rest, "2000");
    expect_content(&pieces, "30");
    daemon_expect_event(&w->daemon, 0, "request", "status=408 reason=client_body_timeout");
    world_finish(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {WORLD_TEST(test_trickling_uploads_are_ended)};

    return cmocka_run_group_tests_name("pace", tests, NULL, NULL);
}
