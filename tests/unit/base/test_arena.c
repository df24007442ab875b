/* The arena: alignment, separate pieces, giving back, and its first block. */
#include "base/arena.h"

#include <setjmp.h>
#include <stdalign.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

static void assert_aligned(const void *p)
{
    assert_non_null(p);
    assert_int_equal((uintptr_t)p % alignof(max_align_t), 0);
}

static void test_pieces_are_aligned_and_apart(void **state)
{
    enum { N = 2000 };
    static unsigned char *pieces[N];
    static size_t sizes[N];
    struct arena a;

    (void)state;
    srandom(7);
    arena_init(&a, NULL, 0);
    for (int i = 0; i < N; i++) {
        sizes[i] = (size_t)random() % (i % 50 == 0 ? 20000 : 200);
        pieces[i] = arena_alloc(&a, sizes[i]);
        assert_aligned(pieces[i]);
        memset(pieces[i], i & 0xff, sizes[i]);
    }
    for (int i = 0; i < N; i++)
        for (size_t j = 0; j < sizes[i]; j++)
            assert_int_equal(pieces[i][j], i & 0xff);
    arena_fini(&a);
}

static void test_first_block_is_used_first(void **state)
{
    alignas(max_align_t) char first[256];
    struct arena a;

    (void)state;
    arena_init(&a, first, sizeof(first));
    char *p = arena_alloc(&a, 100);
    char *q = arena_alloc(&a, 100);
    assert_ptr_equal(p, first);
    assert_in_range((uintptr_t)q, (uintptr_t)first + 100, (uintptr_t)first + sizeof(first) - 100);
    assert_null(a.chunks);
    assert_non_null(arena_alloc(&a, 100));
    assert_non_null(a.chunks);
    arena_fini(&a);
}

static void test_crooked_or_tiny_first_block(void **state)
{
    alignas(max_align_t) char first[64];
    struct arena a;

    (void)state;
    arena_init(&a, first + 1, sizeof(first) - 1);
    assert_aligned(arena_alloc(&a, 10));
    arena_fini(&a);
    arena_init(&a, first + 1, 3);
    assert_aligned(arena_alloc(&a, 10));
    arena_fini(&a);
}

static void test_copy(void **state)
{
    char text[] = "abc";
    struct arena a;
    struct str copy, empty;

    (void)state;
    arena_init(&a, NULL, 0);
    assert_true(arena_copy(&a, str_of(text), &copy));
    text[0] = 'X';
    assert_true(str_eq(copy, STR("abc")));
    assert_true(arena_copy(&a, str_make(NULL, 0), &empty));
    assert_int_equal(empty.n, 0);
    arena_fini(&a);
}

static void test_impossible_size(void **state)
{
    struct arena a;

    (void)state;
    arena_init(&a, NULL, 0);
    assert_null(arena_alloc(&a, SIZE_MAX));
    assert_null(arena_alloc(&a, SIZE_MAX - 20));
    assert_non_null(arena_alloc(&a, 1));
    arena_fini(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pieces_are_aligned_and_apart),
        cmocka_unit_test(test_first_block_is_used_first),
        cmocka_unit_test(test_crooked_or_tiny_first_block),
        cmocka_unit_test(test_copy),
        cmocka_unit_test(test_impossible_size),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
