/* Unit tests of limit/client_table.c: ids, order, cursors. */
#include "limit/client_table.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static const struct hash_key key = {1, 2};

static const struct client_settings settings = {10, 1, CLIENT_ENFORCE};

static struct client *add(struct client_table *t, const char *id)
{
    struct client *c = client_table_add(t, str_of(id), &settings);
    assert_non_null(c);
    client_table_show(t, c);
    return c;
}

static struct client *add_number(struct client_table *t, unsigned n)
{
    char id[16];
    snprintf(id, sizeof id, "c%u", n);
    return add(t, id);
}

static void drop(struct client_table *t, const char *id)
{
    struct client *c = client_table_find(t, str_of(id));
    assert_non_null(c);
    client_table_remove(t, c);
}

static void ids_are_canonical(void **state)
{
    (void)state;
    static const struct {
        const char *given, *want;
    } cases[] = {{"user1", "user1"},
                 {"~!\"#", "~!\"#"},
                 {"10.0.0.1", "10.0.0.1"},
                 {"::ffff:10.0.0.1", "10.0.0.1"},
                 {"2001:DB8:0:0::1", "2001:db8::1"},
                 {"010.0.0.1", "010.0.0.1"},
                 {"unix:", "unix:"},
                 {"", NULL},
                 {"a b", NULL},
                 {"a\tb", NULL},
                 {"\x7f", NULL},
                 {"\xc3\xa9", NULL}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char out[CLIENT_ID_MAX + 1];
        assert_int_equal(client_id_canonical(str_of(cases[i].given), out), cases[i].want != NULL);
        if (cases[i].want)
            assert_string_equal(out, cases[i].want);
    }
    char longest[CLIENT_ID_MAX + 1], out[CLIENT_ID_MAX + 1];
    memset(longest, 'x', sizeof longest);
    assert_true(client_id_canonical(str_make(longest, CLIENT_ID_MAX), out));
    assert_false(client_id_canonical(str_make(longest, CLIENT_ID_MAX + 1), out));
}

static void table_finds_what_was_added(void **state)
{
    (void)state;
    struct client_table t;
    client_table_init(&t, &key);
    assert_null(client_table_find(&t, STR("a")));
    for (unsigned i = 0; i < 5000; i++)
        add_number(&t, i);
    assert_int_equal(t.shown, 5000);
    for (unsigned i = 0; i < 5000; i++) {
        char id[16];
        snprintf(id, sizeof id, "c%u", i);
        struct client *c = client_table_find(&t, str_of(id));
        assert_non_null(c);
        assert_true(str_eq(client_id(c), str_of(id)));
        assert_true(c->policy.capacity == 10);
    }
    assert_null(client_table_find(&t, STR("c5000")));
    assert_null(client_table_find(&t, STR("c")));
    client_table_fini(&t);
}

static void addresses_are_counted(void **state)
{
    (void)state;
    struct client_table t;
    client_table_init(&t, &key);
    assert_true(add(&t, "10.0.0.1")->is_address);
    assert_true(add(&t, "::1")->is_address);
    assert_false(add(&t, "user")->is_address);
    assert_int_equal(t.addresses, 2);
    drop(&t, "::1");
    assert_int_equal(t.addresses, 1);
    client_table_fini(&t);
}

static void hidden_clients_are_not_walked(void **state)
{
    (void)state;
    struct client_table t;
    client_table_init(&t, &key);
    add(&t, "a");
    struct client *hidden = client_table_add(&t, STR("b"), &settings);
    add(&t, "c");
    assert_ptr_equal(client_table_find(&t, STR("b")), hidden);
    assert_int_equal(t.shown, 2);
    struct client *c = client_table_after(&t, 0);
    assert_true(str_eq(client_id(c), STR("a")));
    c = client_table_next(c);
    assert_true(str_eq(client_id(c), STR("c")));
    assert_null(client_table_next(c));
    assert_int_equal(client_table_place(&t, STR("b")), 0);
    client_table_remove(&t, hidden);
    assert_int_equal(t.shown, 2);
    client_table_fini(&t);
}

/* Random additions, removals and moves against a plain array. */
static void order_agrees_with_an_array(void **state)
{
    (void)state;
    enum { IDS = 300 };
    struct client_table t;
    unsigned order[IDS], n = 0, rng = 12345;
    client_table_init(&t, &key);
    for (unsigned step = 0; step < 20000; step++) {
        rng = rng * 1103515245 + 12345;
        unsigned id = (rng >> 8) % IDS, at = 0;
        char text[16];
        snprintf(text, sizeof text, "c%u", id);
        while (at < n && order[at] != id)
            at++;
        struct client *c = client_table_find(&t, str_of(text));
        assert_int_equal(c != NULL, at < n);
        if (c && rng >> 30 == 0) {
            client_table_move(&t, c, 0);
            memmove(order + at, order + at + 1, (n - at - 1) * sizeof order[0]);
            order[n - 1] = id;
        } else if (c) {
            client_table_remove(&t, c);
            memmove(order + at, order + at + 1, (n - at - 1) * sizeof order[0]);
            n--;
        } else {
            add(&t, text);
            order[n++] = id;
        }
        if (step % 50)
            continue;
        c = client_table_after(&t, 0);
        for (unsigned i = 0; i < n; i++, c = client_table_next(c)) {
            snprintf(text, sizeof text, "c%u", order[i]);
            assert_non_null(c);
            assert_true(str_eq(client_id(c), str_of(text)));
            assert_ptr_equal(client_table_after(&t, c->seq - 1), c);
        }
        assert_null(c);
    }
    client_table_fini(&t);
}

static void cursors_outlive_their_clients(void **state)
{
    (void)state;
    struct client_table t;
    client_table_init(&t, &key);
    for (unsigned i = 1; i <= 10; i++)
        add_number(&t, i);
    assert_int_equal(client_table_place(&t, STR("c5")), 5);
    drop(&t, "c5");
    drop(&t, "c6");
    assert_int_equal(client_table_place(&t, STR("c5")), 5);
    assert_true(str_eq(client_id(client_table_after(&t, 5)), STR("c7")));
    assert_int_equal(client_table_place(&t, STR("never")), 0);
    client_table_fini(&t);
}

/* An id that came back stands for its old place until it was handed out as a cursor at the new one. */
static void cursor_of_an_id_that_came_back(void **state)
{
    (void)state;
    struct client_table t;
    client_table_init(&t, &key);
    for (unsigned i = 1; i <= 3; i++)
        add_number(&t, i);
    drop(&t, "c1");
    add(&t, "c1");
    assert_int_equal(client_table_place(&t, STR("c1")), 1);
    client_table_forget_gone(&t, STR("c1"));
    assert_int_equal(client_table_place(&t, STR("c1")), 4);
    client_table_forget_gone(&t, STR("c1"));
    client_table_fini(&t);
}

/* Each client has settings of its own, and what it has counted outlives them. */
static void other_settings_are_put_in_force(void **state)
{
    (void)state;
    struct client_table t;
    struct settling to;
    client_table_init(&t, &key);
    struct client *a = add(&t, "a"), *b = add(&t, "b");
    a->allowed = 5;
    a->policy.rest = 7;
    assert_true(client_table_prepare(&t, &(struct client_settings){20, 0.5, CLIENT_SHADOW}, &to));
    client_table_settle(&t, a, &to, 9);
    assert_int_equal(to.slot, 0);
    client_table_unprepare(&t, &to); /* nothing is held any more */
    assert_true(a->policy.capacity == 20 && a->policy.rate == 0.5 && b->policy.capacity == 10);
    assert_int_equal(a->mode, CLIENT_SHADOW);
    assert_int_equal(*client_word(&t, a), 9);
    assert_int_equal(*client_word(&t, b), 0);
    assert_int_equal(a->allowed, 5);
    assert_int_equal(client_limited(a), 7);
    assert_true(str_eq(client_id(a), STR("a")));
    client_table_fini(&t);
}

/* Behind the largest place that a file can give, the order goes on. */
static void largest_place_is_not_the_last(void **state)
{
    (void)state;
    struct client_table t;
    client_table_init(&t, &key);
    struct client *a = client_table_add_at(&t, STR("a"), &settings, CLIENT_PLACE_MAX);
    assert_non_null(a);
    client_table_show(&t, a);
    struct client *b = add(&t, "b");
    assert_true(a->seq == CLIENT_PLACE_MAX && b->seq == CLIENT_PLACE_MAX + 1);
    assert_ptr_equal(client_table_after(&t, CLIENT_PLACE_MAX), b);
    client_table_remove(&t, a);
    assert_ptr_equal(client_table_after(&t, 0), b);
    client_table_fini(&t);
}

/* One that went again, without having been handed out in between, stands for where it was first. */
static void cursor_of_an_id_that_went_twice(void **state)
{
    (void)state;
    struct client_table t;
    client_table_init(&t, &key);
    for (unsigned i = 1; i <= 3; i++)
        add_number(&t, i);
    for (unsigned i = 0; i < 3; i++) {
        drop(&t, "c1");
        assert_int_equal(client_table_place(&t, STR("c1")), 1);
        add(&t, "c1");
    }
    client_table_forget_gone(&t, STR("c1"));
    drop(&t, "c1");
    assert_int_equal(client_table_place(&t, STR("c1")), 6);
    client_table_fini(&t);
}

/* The table's nodes hold the low half of a hash; a place that is remembered is found by all of it. */
static void cursors_of_equal_half_hashes(void **state)
{
    (void)state;
    struct client_table t;
    const char *a = "c18858", *b = "c351563";
    assert_int_equal((uint32_t)hash_bytes(&key, a, strlen(a)), (uint32_t)hash_bytes(&key, b, strlen(b)));
    client_table_init(&t, &key);
    add(&t, a);
    drop(&t, a);
    assert_int_equal(client_table_place(&t, str_of(a)), 1);
    assert_int_equal(client_table_place(&t, str_of(b)), 0);
    add(&t, b);
    assert_int_equal(client_table_place(&t, str_of(b)), 2);
    assert_null(client_table_find(&t, str_of(a)));
    drop(&t, b);
    assert_int_equal(client_table_place(&t, str_of(a)), 1);
    assert_int_equal(client_table_place(&t, str_of(b)), 2);
    client_table_fini(&t);
}

static void memory_of_the_gone_is_bounded(void **state)
{
    (void)state;
    struct client_table t;
    client_table_init(&t, &key);
    for (unsigned i = 0; i < CLIENTS_GONE_MAX + 10; i++)
        client_table_remove(&t, add_number(&t, i));
    assert_int_equal(t.gone.count, CLIENTS_GONE_MAX);
    assert_int_equal(client_table_place(&t, STR("c9")), 0);
    assert_int_equal(client_table_place(&t, STR("c10")), 11);
    client_table_fini(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ids_are_canonical),
        cmocka_unit_test(table_finds_what_was_added),
        cmocka_unit_test(addresses_are_counted),
        cmocka_unit_test(hidden_clients_are_not_walked),
        cmocka_unit_test(order_agrees_with_an_array),
        cmocka_unit_test(cursors_outlive_their_clients),
        cmocka_unit_test(cursor_of_an_id_that_came_back),
        cmocka_unit_test(cursor_of_an_id_that_went_twice),
        cmocka_unit_test(other_settings_are_put_in_force),
        cmocka_unit_test(largest_place_is_not_the_last),
        cmocka_unit_test(cursors_of_equal_half_hashes),
        cmocka_unit_test(memory_of_the_gone_is_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
