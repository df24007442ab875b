/* curl's uploads: by length and in chunks, with Expect: 100-continue, and answered before they have begun. */
#include "harness/software.h"

#include <stdio.h>
#include <string.h>

#define UPLOAD (8u << 20)

/* ---- uploads that are taken ---- */

/* Sends back what it gets. */
static void echo(struct origin_conn *c)
{
    while (origin_read(c)) {
        const struct bytes *body = &c->request.body;

        if (!origin_sendf(c, "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\n\r\n", body->n) ||
            !origin_send_bytes(c, body->p, body->n))
            return;
    }
}

static void test_upload_with_length(void **state)
{
    struct world *w = *state;
    struct origin *o;

    need_program(CURL);
    o = world_origin(w, echo, NULL, NULL);
    world_start(w, NULL);
    make_file(w, "up", UPLOAD);
    RUN_PRINTS(w, "200 8388608", CURL, "-sSf", "-T", "up", "-H", "Expect:", "-o", "down", "-w",
               "%{http_code} %{size_upload}", url(w, "/put"));
    expect_same_files(w, "up", "down");
    expect_in_head(o, 0, "PUT /put HTTP/1.1\r\n", true);
    expect_in_head(o, 0, "\r\nContent-Length: 8388608\r\n", true);
    expect_in_head(o, 0, "\r\nTransfer-Encoding:", false);
    RUN(w, NULL, CURL, "-sSf0", "-T", "up", "-o", "down-1.0", url(w, "/put"));
    expect_same_files(w, "up", "down-1.0");
    world_finish(w);
}

/* From a pipe curl does not know the length, so it sends chunks; the proxy frames them anew. */
static void test_upload_from_a_pipe(void **state)
{
    struct world *w = *state;
    struct origin *o;
    char command[300];

    need_program(CURL);
    o = world_origin(w, echo, NULL, NULL);
    world_start(w, NULL);
    make_file(w, "up", UPLOAD);
    snprintf(command, sizeof command, "cat up | exec %s -sSf -H Expect: -T - -o down %s", CURL, url(w, "/piped"));
    RUN(w, NULL, SH, "-c", command);
    expect_same_files(w, "up", "down");
    expect_in_head(o, 0, "\r\nTransfer-Encoding: chunked\r\n", true);
    expect_in_head(o, 0, "\r\nContent-Length:", false);
    RUN(w, NULL, CURL, "-sSf", "-H", "Transfer-Encoding: chunked", "-H", "Expect:", "--data-binary", "@up", "-o",
        "down-2", url(w, "/post"));
    expect_same_files(w, "up", "down-2");
    expect_in_head(o, 1, "POST /post HTTP/1.1\r\n", true);
    expect_in_head(o, 1, "\r\nTransfer-Encoding: chunked\r\n", true);
    world_finish(w);
}

static void count_parts(struct origin_conn *c)
{
    while (origin_read(c)) {
        const char *type = message_field(&c->request, "Content-Type");
        const char *boundary = type ? strstr(type, "boundary=") : NULL;
        unsigned parts = 0;

        for (const char *at = c->request.body.p; boundary && (at = strstr(at, boundary + 9)); at++)
            parts++;
        if (!origin_sendf(c, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n%u", parts))
            return;
    }
}

static void test_form(void **state)
{
    struct world *w = *state;

    need_program(CURL);
    world_origin(w, count_parts, NULL, NULL);
    world_start(w, NULL);
    file_put(world_path(w, "note"), "what is in the file\n");
    /* Two parts and the end. */
    RUN_PRINTS(w, "3", CURL, "-sSf", "-F", "name=value", "-F", "file=@note", url(w, "/form"));
    world_finish(w);
}

/* ---- Expect: 100-continue ---- */

static void continue_then_echo(struct origin_conn *c)
{
    while (origin_read_head(c)) {
        const char *expect = message_field(&c->request, "Expect");
        const struct bytes *body = &c->request.body;

        if (expect && !origin_send(c, "HTTP/1.1 100 Continue\r\n\r\n"))
            return;
        if (!origin_read_body(c, NULL, NULL) ||
            !origin_sendf(c, "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\n\r\n", body->n) ||
            !origin_send_bytes(c, body->p, body->n))
            return;
    }
}

/* Longer than a test lasts: curl would wait so long for a 100 that does not come. */
#define EXPECT "-sSf", "-H", "Expect: 100-continue", "--expect100-timeout", "600"

static void test_expect_continue(void **state)
{
    struct world *w = *state;
    struct origin *o;
    char command[300];

    need_program(CURL);
    o = world_origin(w, continue_then_echo, NULL, NULL);
    world_start(w, NULL);
    make_file(w, "up", UPLOAD);
    RUN(w, NULL, CURL, EXPECT, "-T", "up", "-o", "down", url(w, "/length"));
    expect_same_files(w, "up", "down");
    expect_in_head(o, 0, "\r\nExpect: 100-continue\r\n", true);
    snprintf(command, sizeof command,
             "cat up | exec %s -sSf -H 'Expect: 100-continue' --expect100-timeout 600 -T - -o down-2 %s", CURL,
             url(w, "/chunks"));
    RUN(w, NULL, SH, "-c", command);
    expect_same_files(w, "up", "down-2");
    expect_in_head(o, 1, "\r\nExpect: 100-continue\r\n", true);
    /* Several on one connection. */
    RUN_PRINTS(w, "200 1\n200 0\n200 0\n", CURL, EXPECT, "-d", "small", "-o", "d1", "-o", "d2", "-o", "d3", "-w",
               "%{http_code} %{num_connects}\n", url(w, "/1"), url(w, "/2"), url(w, "/3"));
    world_finish(w);
}

static void refuse_unread(struct origin_conn *c)
{
    if (origin_read_head(c))
        origin_send(c, "HTTP/1.1 413 Content Too Large\r\nContent-Length: 9\r\nConnection: close\r\n\r\ntoo large");
    origin_drain(c);
}

/* The backend refuses by the head alone: curl sends nothing of the content, and the backend gets nothing of it. */
static void test_expect_refused(void **state)
{
    struct world *w = *state;
    struct bytes received;
    struct origin *o;

    need_program(CURL);
    o = world_origin(w, refuse_unread, NULL, NULL);
    world_start(w, NULL);
    make_file(w, "up", UPLOAD);
    RUN_PRINTS(w, "too large 413 0", CURL, "-sS", "-H", "Expect: 100-continue", "--expect100-timeout", "600", "-T",
               "up", "-w", " %{http_code} %{size_upload}", url(w, "/put"));
    origin_wait_requests(o, 1);
    received = origin_received(o, 0);
    assert_string_equal(strstr(received.p, "\r\n\r\n"), "\r\n\r\n");
    bytes_free(&received);
    world_finish(w);
}

/* ---- answers before the upload is over ---- */

/* Answers by the head alone, then takes the content. */
static void answer_first(struct origin_conn *c)
{
    while (origin_read_head(c) && origin_answer(c, "early") && origin_read_body(c, NULL, NULL))
        ;
}

/* An early answer that is no refusal: curl may go on sending, and what it sends is never taken for a request. */
static void test_answer_before_the_content(void **state)
{
    struct world *w = *state;
    struct origin *o;

    need_program(CURL);
    o = world_origin(w, answer_first, NULL, NULL);
    world_start(w, NULL);
    make_file(w, "up", 200000);
    RUN_PRINTS(w, "early 200\nearly 200\nearly 200\n", CURL, "-sSf", "-H", "Expect:", "-w", " %{http_code}\n", "-T",
               "up", url(w, "/1"), "-T", "up", url(w, "/2"), "-T", "up", url(w, "/3"));
    RUN_PRINTS(w, "early 200\nearly 200\n", CURL, "-sSf", "-H", "Expect:", "-H", "Transfer-Encoding: chunked", "-w",
               " %{http_code}\n", "-T", "up", url(w, "/4"), "-T", "up", url(w, "/5"));
    assert_int_equal(origin_requests(o), 5);
    world_stop(w); /* then its log is complete */
    assert_int_equal(daemon_count_events(&w->daemon, 0, "request", "status=200 attempts=1"), 5);
    assert_int_equal(daemon_count_events(&w->daemon, 0, "request", NULL), 5);
    world_finish(w);
}

/* The balancer's own limit, by the length alone: curl learns of it before it has sent anything. */
static void test_limit_of_content(void **state)
{
    struct world *w = *state;

    need_program(CURL);
    world_origin(w, echo, NULL, NULL);
    world_start(w, "\"limits\": {\"body_bytes\": \"1MiB\"}");
    make_file(w, "up", (1u << 20) + 1);
    make_file(w, "fits", 1u << 20);
    RUN_PRINTS(w, "413 0", CURL, "-sS", "-T", "up", "-H", "Expect: 100-continue", "--expect100-timeout", "600", "-o",
               "/dev/null", "-w", "%{http_code} %{size_upload}", url(w, "/put"));
    RUN(w, NULL, CURL, "-sSf", "-T", "fits", "-o", "down", url(w, "/put"));
    expect_same_files(w, "fits", "down");
    world_finish(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WORLD_TEST(test_upload_with_length),
        WORLD_TEST(test_upload_from_a_pipe),
        WORLD_TEST(test_form),
        WORLD_TEST(test_expect_continue),
        WORLD_TEST(test_expect_refused),
        WORLD_TEST(test_answer_before_the_content),
        WORLD_TEST(test_limit_of_content),
    };

    software_environment();
    return cmocka_run_group_tests_name("real_uploads", tests, NULL, NULL);
}
