/* The byte queue, by cases and against a plain model of it. */
#include "base/buf.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

static void assert_content(const struct buf *b, const char *want)
{
    assert_true(str_eq(buf_str(b), str_of(want)));
}

static void test_empty_owns_nothing(void **state)
{
    struct buf b = BUF_INIT;

    (void)state;
    assert_content(&b, "");
    assert_true(buf_append(&b, NULL, 0));
    assert_null(b.block);
    buf_consume(&b, 0);
    buf_fini(&b);
    assert_null(b.block);
}

static void test_append_and_consume(void **state)
{
    struct buf b = BUF_INIT;

    (void)state;
    assert_true(buf_append(&b, "hello ", 6));
    assert_true(buf_append_str(&b, STR("world")));
    assert_content(&b, "hello world");
    buf_consume(&b, 6);
    assert_content(&b, "world");
    buf_consume(&b, 5);
    assert_content(&b, "");
    assert_int_equal(b.start, 0);
    assert_non_null(b.block);
    buf_fini(&b);
}

static void test_reserve_and_write_in_place(void **state)
{
    struct buf b = BUF_INIT;

    (void)state;
    assert_true(buf_reserve(&b, 5));
    memcpy(buf_tail(&b), "abcde", 5);
    buf_added(&b, 5);
    assert_content(&b, "abcde");
    assert_memory_equal(buf_bytes(&b), "abcde", 5);
    buf_fini(&b);
}

static void test_impossible_sizes_are_refused(void **state)
{
    struct buf b = BUF_INIT;

    (void)state;
    assert_true(buf_append(&b, "x", 1));
    assert_false(buf_reserve(&b, SIZE_MAX));
    assert_false(buf_reserve(&b, SIZE_MAX / 2 + 2));
    assert_content(&b, "x");
    buf_fini(&b);
}

static void test_printf(void **state)
{
    struct buf b = BUF_INIT;
    char want[1001];

    (void)state;
    assert_true(buf_printf(&b, "%d-%s", 12, "x"));
    assert_content(&b, "12-x");
    buf_consume(&b, 4);
    assert_true(buf_printf(&b, "%0*d", 1000, 7));
    memset(want, '0', 999);
    memcpy(want + 999, "7", 2);
    assert_content(&b, want);
    buf_fini(&b);
}

/* Every length around the room that is left: printf's own zero must neither be kept nor cut the text. */
static void test_printf_at_the_edge_of_the_room(void **state)
{
    (void)state;
    for (int n = 250; n < 260; n++) {
        struct buf b = BUF_INIT;
        assert_true(buf_reserve(&b, 1));
        assert_true(buf_printf(&b, "%*s", n, "end"));
        assert_int_equal(b.len, n);
        assert_memory_equal(buf_bytes(&b) + n - 3, "end", 3);
        buf_fini(&b);
    }
}

static void test_move(void **state)
{
    struct buf a = BUF_INIT, b = BUF_INIT;

    (void)state;
    assert_true(buf_append(&a, "xyz", 3));
    buf_consume(&a, 1);
    buf_move(&b, &a);
    assert_content(&b, "yz");
    assert_null(a.block);
    assert_content(&a, "");
    buf_fini(&b);
}

/* A queue that stays short must not grow, however much goes through it. */
static void test_room_is_won_back(void **state)
{
    struct buf b = BUF_INIT;

    (void)state;
    for (int i = 0; i < 10000; i++) {
        assert_true(buf_append(&b, "0123456789", 10));
        if (i >= 10)
            buf_consume(&b, 10);
    }
    assert_true(b.cap <= 512);
    assert_int_equal(b.len, 100);
    buf_fini(&b);
}

static void test_like_the_model(void **state)
{
    static char model[1 << 20];
    size_t from = 0, to = 0;
    struct buf b = BUF_INIT;

    (void)state;
    srandom(20260131);
    while (to < sizeof(model) - 600) {
        size_t n = (size_t)random() % 600;
        for (size_t i = 0; i < n; i++)
            model[to + i] = (char)random();
        assert_true(buf_append(&b, model + to, n));
        to += n;
        n = (size_t)random() % (to - from + 1);
        if (random() % 3 == 0) {
            buf_consume(&b, n);
            from += n;
        }
        assert_int_equal(b.len, to - from);
        assert_memory_equal(buf_str(&b).p, model + from, to - from);
    }
    buf_fini(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_empty_owns_nothing),
        cmocka_unit_test(test_append_and_consume),
        cmocka_unit_test(test_reserve_and_write_in_place),
        cmocka_unit_test(test_impossible_sizes_are_refused),
        cmocka_unit_test(test_printf),
        cmocka_unit_test(test_printf_at_the_edge_of_the_room),
        cmocka_unit_test(test_move),
        cmocka_unit_test(test_room_is_won_back),
        cmocka_unit_test(test_like_the_model),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
