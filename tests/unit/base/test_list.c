/* The intrusive list: order, removal while walking, splicing. */
#include "base/list.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>

#include <cmocka.h>

struct item {
    int value;
    struct list link;
};

static int value_of(const struct list *l)
{
    return container_of(l, struct item, link)->value;
}

static void fill(struct list *head, struct item *items, int n)
{
    list_init(head);
    for (int i = 0; i < n; i++) {
        items[i].value = i;
        list_push_back(head, &items[i].link);
    }
}

static void assert_values(struct list *head, const int *values, int n)
{
    int i = 0;

    LIST_EACH (it, head) {
        assert_true(i < n);
        assert_int_equal(value_of(it), values[i]);
        i++;
    }
    assert_int_equal(i, n);
}

static void test_empty(void **state)
{
    struct list head;

    (void)state;
    list_init(&head);
    assert_true(list_empty(&head));
    assert_null(list_pop_front(&head));
    assert_values(&head, NULL, 0);
}

static void test_order(void **state)
{
    struct list head;
    struct item items[3], first = {.value = 9};

    (void)state;
    fill(&head, items, 3);
    list_push_front(&head, &first.link);
    assert_values(&head, (int[]){9, 0, 1, 2}, 4);
    assert_int_equal(value_of(list_pop_front(&head)), 9);
    assert_true(list_empty(&first.link));
    assert_values(&head, (int[]){0, 1, 2}, 3);
}

static void test_remove_twice_is_harmless(void **state)
{
    struct list head;
    struct item items[3];

    (void)state;
    fill(&head, items, 3);
    list_remove(&items[1].link);
    list_remove(&items[1].link);
    assert_values(&head, (int[]){0, 2}, 2);
}

static void test_remove_while_walking(void **state)
{
    struct list head;
    struct item items[5];

    (void)state;
    fill(&head, items, 5);
    LIST_EACH (it, &head)
        if (value_of(it) % 2 == 0)
            list_remove(it);
    assert_values(&head, (int[]){1, 3}, 2);
}

static void test_splice(void **state)
{
    struct list a, b;
    struct item x[2], y[2];

    (void)state;
    fill(&a, x, 2);
    fill(&b, y, 2);
    list_splice_back(&a, &b);
    assert_values(&a, (int[]){0, 1, 0, 1}, 4);
    assert_true(list_empty(&b));
    list_splice_back(&a, &b);
    assert_values(&a, (int[]){0, 1, 0, 1}, 4);
    list_splice_back(&b, &a);
    assert_values(&b, (int[]){0, 1, 0, 1}, 4);
    assert_true(list_empty(&a));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_empty),
        cmocka_unit_test(test_order),
        cmocka_unit_test(test_remove_twice_is_harmless),
        cmocka_unit_test(test_remove_while_walking),
        cmocka_unit_test(test_splice),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
