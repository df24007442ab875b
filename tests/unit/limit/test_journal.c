/* Unit tests of limit/journal.c: lines written and replayed, torn and damaged ones told apart. */
#include "limit/journal.h"

#include "base/clock.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static const struct hash_key key = {7, 8};

static const struct instant now = {100 * NS_PER_S, UINT64_C(1769860800) * NS_PER_S};

static void placed_line(struct buf *out, enum journal_op op, const char *id, double capacity, double tokens,
                        uint64_t ago_s, uint64_t place)
{
    struct client_view v = {.set = {capacity, 1, CLIENT_ENFORCE}, .tokens = tokens, .place = place};
    memcpy(v.id, id, strlen(id) + 1);
    assert_true(journal_append(out, op, &v, now.wall_ns - ago_s * NS_PER_S));
}

/* As they were before places were in them. */
static void line(struct buf *out, enum journal_op op, const char *id, double capacity, double tokens, uint64_t ago_s)
{
    placed_line(out, op, id, capacity, tokens, ago_s, 0);
}

static void expect_order(const struct client_table *t, const char *const ids[], unsigned n)
{
    const struct client *c = client_table_after(t, 0);
    for (unsigned i = 0; i < n; i++, c = client_table_next(c)) {
        assert_non_null(c);
        assert_true(str_eq(client_id(c), str_of(ids[i])));
    }
    assert_null(c);
}

static double tokens_of(const struct client_table *t, const char *id)
{
    struct client_view v;
    client_view_of(t, client_table_find(t, str_of(id)), now.now, &v);
    return v.tokens;
}

static enum journal_end replay(struct str text, struct client_table *t, uint64_t saved_ago_s, size_t *good)
{
    struct text_fault fault;
    return journal_replay(text, t, &now, now.wall_ns - saved_ago_s * NS_PER_S, good, &fault);
}

static void changes_are_made_again(void **state)
{
    (void)state;
    struct buf text = BUF_INIT;
    struct client_table t;
    size_t good;
    line(&text, JOURNAL_REGISTER, "a", 10, 10, 30);
    line(&text, JOURNAL_REGISTER, "b", 10, 0, 5);
    line(&text, JOURNAL_REGISTER, "c", 10, 10, 5);
    line(&text, JOURNAL_UPDATE, "a", 20, 3, 4);
    line(&text, JOURNAL_DELETE, "c", 0, 0, 3);
    client_table_init(&t, &key);
    assert_int_equal(replay(buf_str(&text), &t, 100, &good), JOURNAL_WHOLE);
    assert_int_equal(good, text.len);
    expect_order(&t, (const char *[]){"a", "b"}, 2);
    assert_true(tokens_of(&t, "a") == 7);
    assert_true(tokens_of(&t, "b") == 5);

    /* a second time nothing changes but what the order of registration repeats */
    assert_int_equal(replay(buf_str(&text), &t, 100, &good), JOURNAL_WHOLE);
    expect_order(&t, (const char *[]){"a", "b"}, 2);
    assert_true(tokens_of(&t, "a") == 7);
    client_table_fini(&t);
    buf_fini(&text);
}

/* A snapshot that was begun before the lines, and saw some of them, comes out the same. */
static void order_over_a_later_snapshot(void **state)
{
    (void)state;
    struct buf text = BUF_INIT, all = BUF_INIT;
    struct client_table t;
    size_t good;
    line(&all, JOURNAL_REGISTER, "old", 10, 10, 9);
    line(&all, JOURNAL_REGISTER, "c", 10, 10, 9);
    line(&text, JOURNAL_DELETE, "b", 0, 0, 5);
    line(&text, JOURNAL_REGISTER, "b", 10, 10, 5);
    line(&text, JOURNAL_REGISTER, "c", 10, 10, 5);
    client_table_init(&t, &key);
    assert_int_equal(replay(buf_str(&all), &t, 100, &good), JOURNAL_WHOLE);
    assert_int_equal(replay(buf_str(&text), &t, 100, &good), JOURNAL_WHOLE);
    expect_order(&t, (const char *[]){"old", "b", "c"}, 3);
    client_table_fini(&t);
    buf_fini(&text);
    buf_fini(&all);
}

static void expect_places(const struct client_table *t, const char *const ids[], const uint64_t places[], unsigned n)
{
    expect_order(t, ids, n);
    for (unsigned i = 0; i < n; i++)
        assert_int_equal(client_table_find(t, str_of(ids[i]))->seq, places[i]);
}

/* Places are those of the process that wrote the lines, where a number was left out, too; and over a snapshot that saw
 * some of the lines, or all of them. */
static void places_are_replayed(void **state)
{
    (void)state;
    struct buf text = BUF_INIT;
    struct client_table t;
    size_t good;
    placed_line(&text, JOURNAL_REGISTER, "a", 10, 10, 9, 1);
    placed_line(&text, JOURNAL_REGISTER, "b", 10, 10, 9, 2);
    placed_line(&text, JOURNAL_REGISTER, "c", 10, 10, 9, 5);
    placed_line(&text, JOURNAL_DELETE, "b", 0, 0, 8, 0);
    placed_line(&text, JOURNAL_REGISTER, "b", 10, 10, 7, 6);
    placed_line(&text, JOURNAL_REGISTER, "d", 10, 10, 7, 9);
    client_table_init(&t, &key);
    for (unsigned times = 0; times < 3; times++) {
        assert_int_equal(replay(buf_str(&text), &t, 100, &good), JOURNAL_WHOLE);
        expect_places(&t, (const char *[]){"a", "c", "b", "d"}, (uint64_t[]){1, 5, 6, 9}, 4);
        assert_int_equal(t.last_seq, 9);
    }
    client_table_fini(&t);
    buf_fini(&text);
}

/* A client that a save has found deleted, though it was changed and deleted while the save went on, takes nobody's
 * place for the time between. */
static void change_of_a_deleted_client_takes_no_place(void **state)
{
    (void)state;
    struct buf text = BUF_INIT, snapshot = BUF_INIT;
    struct client_table t;
    size_t good;
    placed_line(&snapshot, JOURNAL_REGISTER, "b", 10, 10, 9, 2);
    placed_line(&text, JOURNAL_UPDATE, "a", 20, 10, 8, 1);
    placed_line(&text, JOURNAL_REGISTER, "c", 10, 10, 7, 3);
    placed_line(&text, JOURNAL_DELETE, "a", 0, 0, 6, 0);
    client_table_init(&t, &key);
    assert_int_equal(replay(buf_str(&snapshot), &t, 100, &good), JOURNAL_WHOLE);
    assert_int_equal(replay(buf_str(&text), &t, 100, &good), JOURNAL_WHOLE);
    expect_places(&t, (const char *[]){"b", "c"}, (uint64_t[]){2, 3}, 2);
    client_table_fini(&t);
    buf_fini(&text);
    buf_fini(&snapshot);
}

/* A place that another client has is none: the end is. */
static void place_that_is_taken(void **state)
{
    (void)state;
    struct buf text = BUF_INIT;
    struct client_table t;
    size_t good;
    placed_line(&text, JOURNAL_REGISTER, "a", 10, 10, 9, 3);
    placed_line(&text, JOURNAL_REGISTER, "b", 10, 10, 9, 3);
    placed_line(&text, JOURNAL_REGISTER, "c", 10, 10, 9, 2);
    client_table_init(&t, &key);
    assert_int_equal(replay(buf_str(&text), &t, 100, &good), JOURNAL_WHOLE);
    expect_places(&t, (const char *[]){"c", "a", "b"}, (uint64_t[]){2, 3, 4}, 3);
    client_table_fini(&t);
    buf_fini(&text);
}

/* Lines older than the snapshot know the settings, but not the tokens. */
static void older_lines_leave_the_tokens(void **state)
{
    (void)state;
    struct buf first = BUF_INIT, text = BUF_INIT;
    struct client_table t;
    size_t good;
    line(&first, JOURNAL_REGISTER, "a", 10, 1, 0);
    line(&text, JOURNAL_REGISTER, "a", 10, 10, 50);
    line(&text, JOURNAL_UPDATE, "a", 5, 5, 40);
    client_table_init(&t, &key);
    assert_int_equal(replay(buf_str(&first), &t, 100, &good), JOURNAL_WHOLE);
    assert_int_equal(replay(buf_str(&text), &t, 20, &good), JOURNAL_WHOLE);
    assert_true(tokens_of(&t, "a") == 1);
    assert_true(client_table_find(&t, STR("a"))->policy.capacity == 5);
    client_table_fini(&t);
    buf_fini(&first);
    buf_fini(&text);
}

/* Cut anywhere, the lines before are good, and the rest is a torn one, or nothing. */
static void every_cut_leaves_whole_lines(void **state)
{
    (void)state;
    struct buf text = BUF_INIT;
    line(&text, JOURNAL_REGISTER, "a", 10, 10, 3);
    size_t first = text.len;
    line(&text, JOURNAL_REGISTER, "b", 10, 10, 3);
    for (size_t n = 0; n <= text.len; n++) {
        struct client_table t;
        size_t good;
        client_table_init(&t, &key);
        enum journal_end end = replay(str_make(buf_str(&text).p, n), &t, 100, &good);
        assert_int_equal(end, n == 0 || n == first || n == text.len ? JOURNAL_WHOLE : JOURNAL_TORN);
        assert_int_equal(good, n < first ? 0 : n < text.len ? first : text.len);
        assert_int_equal(t.shown, n < first ? 0 : n < text.len ? 1 : 2);
        client_table_fini(&t);
    }
    buf_fini(&text);
}

/* A group of `n` clients: c00, c01 ... Appends it to the text, and notes where each line begins. */
static void group_of(struct buf *text, unsigned n, size_t starts[])
{
    struct buf group = BUF_INIT;
    for (unsigned i = 0; i < n; i++) {
        char id[16];
        snprintf(id, sizeof id, "c%02u", i);
        starts[i] = text->len + group.len;
        line(&group, JOURNAL_REGISTER, id, 10, 10, 3);
    }
    assert_true(buf_append_str(text, buf_str(&group)));
    buf_fini(&group);
}

#define SECTOR 512u

/* After a power cut any sector of what was not synced may be missing, not only the last: zero bytes stand in its place.
 * Nothing of a group has been acknowledged before all of it was synced, so in the last one that is a torn end. */
static void holes_in_the_last_group_are_torn(void **state)
{
    (void)state;
    struct buf text = BUF_INIT;
    size_t starts[12];
    line(&text, JOURNAL_REGISTER, "a", 10, 10, 9);
    group_of(&text, 12, starts);
    assert_true(text.len > 3 * SECTOR);
    for (size_t from = starts[0]; from < text.len; from++)
        for (size_t to = (from / SECTOR + 1) * SECTOR, last = 0; !last; to += SECTOR) {
            struct buf holed = BUF_INIT;
            struct client_table t;
            size_t good, whole = 0;
            last = to >= text.len;
            while (whole < 11 && starts[whole + 1] <= from)
                whole++;
            assert_true(buf_append_str(&holed, buf_str(&text)));
            memset(buf_bytes(&holed) + from, 0, (last ? text.len : to) - from);
            client_table_init(&t, &key);
            assert_int_equal(replay(buf_str(&holed), &t, 100, &good), JOURNAL_TORN);
            assert_int_equal(good, starts[whole]);
            assert_int_equal(t.shown, 1 + whole);
            client_table_fini(&t);
            buf_fini(&holed);
        }
    buf_fini(&text);
}

static enum journal_end replay_holed(struct buf *text, size_t from, size_t to, size_t *good, struct text_fault *fault)
{
    struct client_table t;
    struct buf holed = BUF_INIT;
    assert_true(buf_append_str(&holed, buf_str(text)));
    memset(buf_bytes(&holed) + from, 0, to - from);
    client_table_init(&t, &key);
    enum journal_end end = journal_replay(buf_str(&holed), &t, &now, 0, good, fault);
    client_table_fini(&t);
    buf_fini(&holed);
    return end;
}

/* A hole before the last group is in what was acknowledged. So is one that does not go on to the end of a sector. */
static void other_holes_are_damage(void **state)
{
    (void)state;
    struct buf text = BUF_INIT;
    struct text_fault fault;
    size_t starts[12], second[2], good;
    group_of(&text, 12, starts);
    group_of(&text, 2, second);
    for (size_t to = SECTOR; to < second[0]; to += SECTOR)
        for (size_t from = to - SECTOR; from < to; from++) {
            assert_int_equal(replay_holed(&text, from, to, &good, &fault), JOURNAL_BAD);
            assert_int_equal(fault.offset, good);
            assert_string_equal(fault.what, "the checksum of this line is wrong");
            /* ... also when the last group is torn itself */
            struct buf cut = BUF_INIT;
            assert_true(buf_append(&cut, buf_bytes(&text), text.len - 5));
            assert_int_equal(replay_holed(&cut, from, to, &good, &fault), JOURNAL_BAD);
            buf_fini(&cut);
        }
    for (size_t from = second[0]; from + 1 < text.len; from++)
        if ((from + 1) % SECTOR != 0)
            assert_int_equal(replay_holed(&text, from, from + 1, &good, &fault), JOURNAL_BAD);
    /* A wrong byte behind a hole that was in order. */
    size_t middle = (second[0] / SECTOR + 1) * SECTOR;
    assert_true(middle < text.len);
    assert_int_equal(replay_holed(&text, middle - 10, middle, &good, &fault), JOURNAL_TORN);
    buf_bytes(&text)[text.len - 30] ^= 1;
    assert_int_equal(replay_holed(&text, middle - 10, middle, &good, &fault), JOURNAL_BAD);
    assert_true(fault.offset > good);
    buf_fini(&text);
}

/* Any changed byte of a line that others follow is damage; so is one of the last, whole line. */
static void every_flipped_byte_is_damage(void **state)
{
    (void)state;
    struct buf text = BUF_INIT;
    line(&text, JOURNAL_REGISTER, "a", 10, 10, 3);
    size_t first = text.len;
    line(&text, JOURNAL_REGISTER, "b", 10, 10, 3);
    for (size_t i = 0; i + 1 < text.len; i++) {
        struct client_table t;
        struct text_fault fault = {0};
        size_t good;
        client_table_init(&t, &key);
        buf_bytes(&text)[i] ^= 1;
        enum journal_end end = journal_replay(buf_str(&text), &t, &now, 0, &good, &fault);
        assert_int_equal(end, JOURNAL_BAD);
        assert_in_range(fault.offset, i < first ? 0 : first, i < first ? first : text.len);
        buf_bytes(&text)[i] ^= 1;
        client_table_fini(&t);
    }
    buf_fini(&text);
}

static void lines_that_say_nothing_are_damage(void **state)
{
    (void)state;
    static const char *const texts[] = {"\n", "{}\n", "x\n{}\n", "{\"op\":\"register\"}\n"};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        struct client_table t;
        size_t good;
        client_table_init(&t, &key);
        assert_int_equal(replay(str_of(texts[i]), &t, 100, &good), JOURNAL_BAD);
        client_table_fini(&t);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(changes_are_made_again),
        cmocka_unit_test(order_over_a_later_snapshot),
        cmocka_unit_test(places_are_replayed),
        cmocka_unit_test(change_of_a_deleted_client_takes_no_place),
        cmocka_unit_test(place_that_is_taken),
        cmocka_unit_test(older_lines_leave_the_tokens),
        cmocka_unit_test(every_cut_leaves_whole_lines),
        cmocka_unit_test(every_flipped_byte_is_damage),
        cmocka_unit_test(lines_that_say_nothing_are_damage),
        cmocka_unit_test(holes_in_the_last_group_are_torn),
        cmocka_unit_test(other_holes_are_damage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
