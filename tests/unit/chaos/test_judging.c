/* What the load of tests/chaos takes for an answer, and what its watch reads from logs. */
#include "call.h"
#include "harness/check.h"
#include "watch.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

static struct answer judge_text(enum call_kind kind, const char *text, bool ended, bool reset)
{
    struct bytes in = {0};
    struct answer a;

    bytes_add(&in, text, strlen(text));
    a = call_judge(kind, &in, ended, reset);
    bytes_free(&in);
    return a;
}

#define SHOWN "{\"backend\":\"b2\",\"method\":\"GET\",\"target\":\"/\",\"fields\":[],\"body_bytes\":0,\"served\":1}\n"
#define HEAD  "HTTP/1.1 200 OK\r\nX-Backend: b2\r\n"

static void test_whole(void **state)
{
    char text[300];
    struct answer a;

    (void)state;
    snprintf(text, sizeof text, HEAD "Content-Length: %zu\r\n\r\n" SHOWN, strlen(SHOWN));
    a = judge_text(CALL_SHOW, text, false, false);
    assert_int_equal(a.outcome, CALL_OK);
    assert_int_equal(a.backend, 1);
    assert_false(a.last);
    /* The right answer to another question. */
    assert_int_equal(judge_text(CALL_PUT, text, false, false).outcome, CALL_WRONG);
    assert_int_equal(judge_text(CALL_BYTES, text, false, false).outcome, CALL_WRONG);
    /* Bytes behind the end: the connection is not used again. */
    strcat(text, "x");
    assert_true(judge_text(CALL_SHOW, text, false, false).last);
}

static void test_cut(void **state)
{
    const char *sized = HEAD "Content-Length: 99\r\n\r\n{\"backend\":\"b2\"";
    const char *chunked = HEAD "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";

    (void)state;
    assert_int_equal(judge_text(CALL_SHOW, sized, false, false).outcome, CALL_PENDING);
    assert_int_equal(judge_text(CALL_SHOW, sized, true, false).outcome, CALL_CUT);
    assert_int_equal(judge_text(CALL_SHOW, sized, true, true).outcome, CALL_CUT);
    assert_int_equal(judge_text(CALL_CHUNKED, chunked, true, false).outcome, CALL_CUT);
    /* Half of it, but framed as if it were all. */
    assert_int_equal(
        judge_text(CALL_CHUNKED, HEAD "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", false, false)
            .outcome,
        CALL_WRONG);
    assert_int_equal(judge_text(CALL_SHOW, HEAD "\r\n{\"backend\":\"b2\"", true, false).outcome, CALL_WRONG);
    assert_int_equal(judge_text(CALL_SHOW, HEAD "\r\n{\"backend\":\"b2\"", true, true).outcome, CALL_CUT);
}

static void test_none(void **state)
{
    (void)state;
    assert_int_equal(judge_text(CALL_SHOW, "", false, false).outcome, CALL_PENDING);
    assert_int_equal(judge_text(CALL_SHOW, "", true, false).outcome, CALL_NO_ANSWER);
    assert_int_equal(judge_text(CALL_SHOW, "HTTP/1.1 200 O", true, true).outcome, CALL_NO_ANSWER);
    assert_int_equal(judge_text(CALL_SHOW, "what is this?\r\n\r\n", true, false).outcome, CALL_WRONG);
    assert_int_equal(judge_text(CALL_SHOW, "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n", false, false).outcome,
                     CALL_503);
    assert_int_equal(judge_text(CALL_SHOW, "HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n", false, false).outcome,
                     CALL_OTHER);
}

/* Lines are taken once, and only when they are whole. */
static void test_watch(void **state)
{
    static const struct watch_words words = {.down = "is DOWN", .up = "is UP", .who = "backends/b@ "};
    static const int ports[BACKENDS] = {1, 2, 3};
    char dir[200], path[256];
    struct watch w;

    (void)state;
    dir_make(dir, sizeof dir);
    snprintf(path, sizeof path, "%s/log", dir);
    watch_init(&w, path, &words, ports);
    watch_poll(&w);
    file_put(path, "Server backends/b2 is DOWN, reason\nServer backends/b1 is");
    watch_poll(&w);
    watch_poll(&w);
    assert_int_equal(w.count, 1);
    assert_true(w.is_down[1] && !w.is_down[0]);
    assert_int_not_equal(watch_down_since(&w, 1, 0), 0);
    assert_int_equal(watch_down_since(&w, 0, 0), 0);
    file_put(path, "Server backends/b2 is DOWN, reason\nServer backends/b1 is DOWN\nServer backends/b2 is UP\n");
    watch_poll(&w);
    assert_int_equal(w.count, 3);
    assert_true(w.is_down[0] && !w.is_down[1]);
    dir_remove(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_whole),
        cmocka_unit_test(test_cut),
        cmocka_unit_test(test_none),
        cmocka_unit_test(test_watch),
    };

    return cmocka_run_group_tests_name("judging", tests, NULL, NULL);
}
