/* Interim responses that say that the backend has the request and works on it. */
#include "harness/world.h"

#include <string.h>

#define PUT "PUT %s HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nx"

/* Answers /slow after as many 102 as it takes, /silent never behind the first, /endless never, with no end of them. */
static void script(struct origin_conn *c)
{
    while (origin_read(c)) {
        const char *t = c->request.target;
        unsigned n = strcmp(t, "/slow") == 0 ? 6 : strcmp(t, "/silent") == 0 ? 1 : UINT32_MAX;

        for (unsigned i = 0; i < n; i++) {
            if (!origin_send(c, i % 2 ? "HTTP/1.1 103 Early Hints\r\n\r\n" : "HTTP/1.1 102 Processing\r\n\r\n"))
                return;
            origin_pause(c, n == 6 ? 250 : 20);
        }
        if (n == 1)
            origin_drain(c);
        else if (!origin_answer(c, "done"))
            return;
    }
}

static void test_work_that_goes_on(void **state)
{
    struct world *w = *state;
    struct client c;

    struct origin *o = world_origin(w, script, NULL, NULL);
    world_start(w, "\"timeouts\": {\"backend_response\": \"1s\"}");
    client_open(&c, w->port);
    client_sendf(&c, PUT, "/slow");
    assert_string_equal(client_expect(&c, 200)->body.p, "done");
    assert_int_equal(c.response.interim_count, 6);
    assert_int_equal(origin_requests(o), 1);
    client_close(&c);
    world_finish(w);
}

/* Behind one of them it is known that the request is being served: it is not sent anew because that takes long. */
static void test_work_that_has_begun_is_not_begun_again(void **state)
{
    struct world *w = *state;
    struct client c;

    struct origin *o = world_origin(w, script, NULL, NULL);
    world_start(w, "\"timeouts\": {\"backend_response\": \"300ms\"}");
    client_open(&c, w->port);
    client_sendf(&c, PUT, "/silent");
    client_expect(&c, 504);
    assert_int_equal(origin_requests(o), 1);
    daemon_expect_event(&w->daemon, 0, "request", "status=504 reason=response_timeout attempts=1");
    client_close(&c);
    world_finish(w);
}

/* It is not waited for without end. */
static void test_work_without_end(void **state)
{
    struct world *w = *state;
    struct client c;

    world_origin(w, script, NULL, NULL);
    world_start(w, "\"timeouts\": {\"backend_response\": \"100ms\"}");
    client_open(&c, w->port);
    client_sendf(&c, PUT, "/endless");
    daemon_expect_event(&w->daemon, 0, "request", "status=504 reason=response_timeout attempts=1");
    client_close(&c);
    world_finish(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WORLD_TEST(test_work_that_goes_on),
        WORLD_TEST(test_work_that_has_begun_is_not_begun_again),
        WORLD_TEST(test_work_without_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
