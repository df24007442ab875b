/* Responses that are cut off, as their clients see it: what came before the cut is theirs, and the cut is no end. */
#include "harness/world.h"

#include <string.h>

#define WHOLE 60000u
#define PART  50000u

static bool send_zeros(struct origin_conn *c, size_t n)
{
    static const char zeros[WHOLE];

    return origin_send_bytes(c, zeros, n);
}

/* Whole responses of WHOLE bytes; of that to /cut only PART, and then the connection's end. */
static void script(struct origin_conn *c)
{
    while (origin_read(c)) {
        bool cut = strcmp(c->request.target, "/cut") == 0;

        if (!origin_send(c, "HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n") || !send_zeros(c, cut ? PART : WHOLE) ||
            cut)
            return;
    }
}

static void count(void *arg, const void *p, size_t n)
{
    size_t *sum = arg;

    (void)p;
    *sum += n;
}

/* Pipelined, and not read before all is over: the responses before the cut are there, whole, and so is what came of the
 * one that was cut. The end is none for a response of known length (RFC 9112 section 8). */
static void test_a_cut_destroys_nothing(void **state)
{
    struct world *w = *state;
    struct client c;
    size_t came = 0;

    world_origin(w, script, NULL, NULL);
    world_start(w, NULL);
    client_open(&c, w->port);
    for (unsigned i = 0; i < 3; i++)
        client_send(&c, "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    client_send(&c, "GET /cut HTTP/1.1\r\nHost: h\r\n\r\n");
    daemon_expect_event(&w->daemon, 0, "request", "target=/cut status=200 reason=backend_cut cause=*");
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(client_expect(&c, 200)->body_bytes, WHOLE);
    client_expect_head(&c, 200);
    enum read_result r = client_read_body(&c, count, &came);
    CHECK(r == READ_CUT, "%s", read_result_name(r));
    assert_int_equal(came, PART);
    client_close(&c);
    world_finish(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WORLD_TEST(test_a_cut_destroys_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
