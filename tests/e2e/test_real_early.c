/* curl in the middle of an upload that is refused: it sends as fast as it can, and still sees the answer. Each case
 * many times, for what destroys an answer is a reset, which comes before or after curl has looked. */
#include "harness/software.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define TIMES 40

/* The first 64 KiB tell that the rest is not wanted. */
static void refuse_early(struct origin_conn *c)
{
    size_t seen = 0;

    if (!origin_read_head(c))
        return;
    while (seen < 65536 && stream_fill(&c->in, deadline_in(10000)) == READ_OK) {
        seen += c->in.in.n;
        bytes_drop(&c->in.in, c->in.in.n);
    }
    origin_send(c, "HTTP/1.1 413 Content Too Large\r\nContent-Length: 9\r\nConnection: close\r\n\r\ntoo large");
    origin_drain(c);
}

static void take_all(struct origin_conn *c)
{
    while (origin_read(c) && origin_answer(c, "whole"))
        ;
}

/* Each curl must end with 0, and have seen 413 and what is in its content. */
static void expect_refused(struct world *w, const char *command, const char *content)
{
    unsigned seen = 0, broken = 0;

    for (int i = 0; i < TIMES; i++) {
        struct bytes out = {0};
        int status = world_run(w, (const char *const[]){SH, "-c", command, NULL}, 60, &out);

        seen += status == 0 && strstr(out.p, content) && strcmp(strrchr(out.p, '\n'), "\n413") == 0;
        broken += status != 0;
        if (status != 0) { /* its place in the world is free for the next */
            daemon_fini(&w->helpers[w->helper_count - 1]);
            w->helper_count--;
        }
        bytes_free(&out);
    }
    CHECK(seen == TIMES, "of %d uploads, %u saw the answer, %u ended in an error of curl's", TIMES, seen, broken);
}

/* The upload cannot end: what feeds it goes on until nobody reads it any more. */
static void expect_endless_refused(struct world *w, const char *content)
{
    char command[400];

    snprintf(command, sizeof command, "yes 'never ending' 2>&- | %s -sS -H Expect: -T - -w '\n%%{http_code}' %s", CURL,
             url(w, "/put"));
    expect_refused(w, command, content);
}

static void expect_long_refused(struct world *w, const char *content)
{
    char command[400];

    make_file(w, "up", 32u << 20);
    snprintf(command, sizeof command, "%s -sS -H Expect: -T up -w '\n%%{http_code}' %s", CURL, url(w, "/put"));
    expect_refused(w, command, content);
}

static void test_backend_refuses_chunks(void **state)
{
    struct world *w = *state;
    struct origin *o;

    need_program(CURL);
    o = world_origin(w, refuse_early, NULL, NULL);
    world_start(w, NULL);
    expect_endless_refused(w, "too large");
    origin_wait_closed(o);
    daemon_expect_event(&w->daemon, 0, "request", "status=413 backend=b1");
    world_finish(w);
}

static void test_backend_refuses_a_length(void **state)
{
    struct world *w = *state;
    struct origin *o;

    need_program(CURL);
    o = world_origin(w, refuse_early, NULL, NULL);
    world_start(w, NULL);
    expect_long_refused(w, "too large");
    origin_wait_closed(o);
    world_finish(w);
}

/* nginx refuses a length by the head alone, and chunks once there are too many; it lingers, too. */
static void test_nginx_refuses(void **state)
{
    struct world *w = *state;

    need_program(CURL);
    need_program(NGINX);
    nginx_backend(w, "client_max_body_size 1m; dav_methods PUT;");
    world_start(w, NULL);
    expect_long_refused(w, "<h1>413 ");
    expect_endless_refused(w, "<h1>413 ");
    world_finish(w);
}

/* The balancer's own limit, hit in the middle. */
static void test_limit_refuses_chunks(void **state)
{
    struct world *w = *state;

    need_program(CURL);
    world_origin(w, take_all, NULL, NULL);
    world_start(w, "\"limits\": {\"body_bytes\": \"1MiB\"}");
    expect_endless_refused(w, "\"status\":413");
    daemon_expect_event(&w->daemon, 0, "request", "status=413 reason=body_too_large");
    world_finish(w);
}

/* The same by the head alone, while curl sends already. */
static void test_limit_refuses_a_length(void **state)
{
    struct world *w = *state;

    need_program(CURL);
    world_origin(w, take_all, NULL, NULL);
    world_start(w, "\"limits\": {\"body_bytes\": \"1MiB\"}");
    expect_long_refused(w, "\"status\":413");
    world_finish(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WORLD_TEST(test_backend_refuses_chunks), WORLD_TEST(test_backend_refuses_a_length),
        WORLD_TEST(test_nginx_refuses),          WORLD_TEST(test_limit_refuses_chunks),
        WORLD_TEST(test_limit_refuses_a_length),
    };

    software_environment();
    return cmocka_run_group_tests_name("real_early", tests, NULL, NULL);
}
