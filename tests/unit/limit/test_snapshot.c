/* Unit tests of limit/snapshot.c: clients.json there and back, by hand, and damaged in every way. */
#include "limit/snapshot.h"

#include "base/clock.h"
#include "limit/client_json.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const struct hash_key key = {5, 6};

/* 2026-01-31T12:00:00Z, ten seconds after the buckets' time 0. */
static const struct instant now = {10 * NS_PER_S, UINT64_C(1769860800) * NS_PER_S};

/* The machine had run for 50 s at time 0. */
static const struct boot_clock boot = {4711, 50 * NS_PER_S};

/* A text that comes in pieces of `piece` bytes, and fails with `error`, where that is set, instead of its end. */
struct pieces {
    struct str rest;
    size_t piece;
    int error;
};

static ssize_t read_piece(void *arg, char *p, size_t n)
{
    struct pieces *from = arg;
    if (from->rest.n == 0)
        return from->error;
    n = n < from->piece ? n : from->piece;
    n = n < from->rest.n ? n : from->rest.n;
    memcpy(p, from->rest.p, n);
    from->rest = str_make(from->rest.p + n, from->rest.n - n);
    return (ssize_t)n;
}

static bool read_in_pieces(struct str text, size_t piece, int error, struct client_table *t, uint64_t *saved,
                           struct text_fault *fault)
{
    struct pieces from = {text, piece, error};
    client_table_init(t, &key);
    return snapshot_read(&(struct snapshot_source){read_piece, &from}, t, &now, &boot, saved, fault);
}

static void expect_same_clients(const struct client_table *a, const struct client_table *b)
{
    const struct client *x = client_table_after(a, 0), *y = client_table_after(b, 0);
    for (; x && y; x = client_table_next(x), y = client_table_next(y)) {
        assert_true(str_eq(client_id(x), client_id(y)) && *client_word(a, x) == *client_word(b, y));
        assert_true(x->policy.capacity == y->policy.capacity && x->policy.rate == y->policy.rate);
        assert_int_equal(x->mode, y->mode);
    }
    assert_true(!x && !y);
}

/* However it comes, it is the same text: the same clients, or the same fault in the same place. */
static void expect_same_in_pieces(struct str text, const struct client_table *t, bool taken, uint64_t saved,
                                  const struct text_fault *fault)
{
    static const size_t pieces[] = {1, 2, 3, 7, 64, 500};
    for (size_t i = 0; i < sizeof pieces / sizeof pieces[0]; i++) {
        struct client_table again;
        struct text_fault now_fault;
        uint64_t now_saved = 0;
        assert_int_equal(read_in_pieces(text, pieces[i], 0, &again, &now_saved, &now_fault), taken);
        if (!taken) {
            assert_string_equal(now_fault.what, fault->what);
            assert_int_equal(now_fault.offset, fault->offset);
        } else {
            assert_int_equal(now_saved, saved);
        }
        expect_same_clients(t, &again);
        client_table_fini(&again);
    }
}

static bool parse(struct str text, struct client_table *t, struct text_fault *fault)
{
    uint64_t saved = 0;
    client_table_init(t, &key);
    bool taken = snapshot_parse(text, t, &now, &boot, &saved, fault);
    expect_same_in_pieces(text, t, taken, saved, fault);
    return taken;
}

static double tokens_of(const struct client_table *t, const char *id)
{
    struct client_view v;
    const struct client *c = client_table_find(t, str_of(id));
    assert_non_null(c);
    assert_true(c->shown);
    client_view_of(t, c, now.now, &v);
    return v.tokens;
}

static struct client *add(struct client_table *t, const char *id, double capacity, double tokens)
{
    struct client *c = client_table_add(t, str_of(id), &(struct client_settings){capacity, 1, CLIENT_ENFORCE});
    assert_non_null(c);
    client_table_show(t, c);
    *client_word(t, c) = bucket_word(&c->policy, tokens, now.now);
    return c;
}

static void write_all(struct buf *out, const struct client_table *t)
{
    uint64_t last = 0;
    assert_true(buf_append_str(out, SNAPSHOT_BEGIN));
    /* Two at a time, the last perhaps alone. */
    for (struct client *c = client_table_after(t, 0); c;) {
        struct buf notes = BUF_INIT;
        for (int i = 0; i < 2 && c; i++, c = client_table_next(c))
            assert_true(snapshot_note_client(&notes, t, c, &now));
        assert_true(snapshot_append_clients(out, buf_str(&notes), &last));
        buf_fini(&notes);
    }
    assert_true(snapshot_append_end(out, &now, &boot));
}

static void there_and_back(void **state)
{
    (void)state;
    struct client_table t, back;
    struct buf text = BUF_INIT;
    struct text_fault fault;
    client_table_init(&t, &key);
    add(&t, "full", 10, 10);
    add(&t, "some", 10, 2.5);
    add(&t, "debt", 10, -1.5);
    add(&t, "10.0.0.1", 1e9, 0);
    write_all(&text, &t);
    assert_true(parse(buf_str(&text), &back, &fault));
    assert_int_equal(back.shown, 4);
    assert_true(tokens_of(&back, "full") == 10);
    assert_true(tokens_of(&back, "some") == 2.5);
    assert_true(tokens_of(&back, "debt") == -1.5);
    assert_true(tokens_of(&back, "10.0.0.1") == 0);
    struct client *c = client_table_after(&back, 0);
    assert_true(str_eq(client_id(c), STR("full")));
    buf_fini(&text);
    client_table_fini(&t);
    client_table_fini(&back);
}

static void expect_places(const struct client_table *t, const char *ids, const uint64_t places[])
{
    const struct client *c = client_table_after(t, 0);
    for (size_t i = 0; ids[i]; i++, c = client_table_next(c)) {
        assert_non_null(c);
        assert_int_equal(client_id(c).p[0], ids[i]);
        assert_int_equal(c->seq, places[i]);
    }
    assert_null(c);
}

/* Places are said where they do not follow from the order alone, and are the same behind a load. */
static void places_come_back(void **state)
{
    (void)state;
    struct client_table t, back;
    struct buf text = BUF_INIT;
    struct text_fault fault;
    client_table_init(&t, &key);
    for (const char *id = "abcdefgh"; *id; id++)
        add(&t, (char[]){*id, '\0'}, 1, 1);
    write_all(&text, &t);
    assert_true(buf_append(&text, "", 1));
    assert_null(strstr(buf_str(&text).p, "place"));
    for (const char *id = "adeh"; *id; id++)
        client_table_remove(&t, client_table_find(&t, str_make(id, 1)));
    buf_fini(&text);
    write_all(&text, &t);
    assert_true(buf_append(&text, "", 1));
    assert_non_null(strstr(buf_str(&text).p, "\"client_id\":\"b\",\"capacity\":1,\"rate_per_sec\":1,\"tokens\":1,"
                                             "\"place\":2},\n"));
    assert_non_null(strstr(buf_str(&text).p, "\"client_id\":\"c\",\"capacity\":1,\"rate_per_sec\":1,\"tokens\":1},\n"));
    text.len--;
    assert_true(parse(buf_str(&text), &back, &fault));
    expect_places(&back, "bcfg", (uint64_t[]){2, 3, 6, 7});
    assert_int_equal(add(&back, "i", 1, 1)->seq, 8);
    buf_fini(&text);
    client_table_fini(&t);
    client_table_fini(&back);
}

#define PLACED(id, place) "{\"client_id\":\"" id "\",\"capacity\":1,\"rate_per_sec\":1,\"place\":" place "}"

/* The order of a file that somebody has edited counts, not what it says of places. */
static void places_by_hand(void **state)
{
    (void)state;
    struct client_table t;
    struct text_fault fault;
    assert_true(parse(STR("{\"clients\":[" PLACED("a", "9") "," PLACED("b", "9") "," PLACED("c", "2") "," PLACED(
                          "d", "9007199254740992") "," PLACED("e", "20") "]}"),
                      &t, &fault));
    expect_places(&t, "abcde", (uint64_t[]){9, 10, 11, 12, 20});
    client_table_fini(&t);
    static const char *const bad[] = {"0", "-1", "1.5", "9007199254740994", "1e300", "\"1\"", "null"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        char text[160];
        snprintf(text, sizeof text, "{\"clients\":[" PLACED("a", "%s") "]}", bad[i]);
        assert_false(parse(str_of(text), &t, &fault));
        assert_non_null(strstr(fault.what, "place"));
        client_table_fini(&t);
    }
}

static void no_clients(void **state)
{
    (void)state;
    struct client_table t;
    struct buf text = BUF_INIT;
    struct text_fault fault;
    client_table_init(&t, &key);
    write_all(&text, &t);
    assert_true(str_eq(buf_str(&text), STR("{\"clients\":[\n],\"saved_at\":\"2026-01-31T12:00:00.000Z\","
                                           "\"boot\":\"4711 60000000000\"}\n")));
    assert_true(parse(buf_str(&text), &t, &fault));
    assert_int_equal(t.shown, 0);
    buf_consume(&text, text.len);
    assert_true(snapshot_append_end(&text, &now, &(struct boot_clock){0, 50 * NS_PER_S})); /* nobody knows which */
    assert_true(str_eq(buf_str(&text), STR("\n],\"saved_at\":\"2026-01-31T12:00:00.000Z\"}\n")));
    buf_fini(&text);
    client_table_fini(&t);
}

static void time_away_refills(void **state)
{
    (void)state;
    static const struct {
        const char *saved_at;
        double tokens;
    } cases[] = {{"2026-01-31T12:00:00Z", 2},
                 {"2026-01-31T11:59:57.500Z", 4.5},
                 {"2026-01-31T11:00:00Z", 10},
                 {"2026-01-31T13:00:00Z", 2},
                 {"1970-01-01T00:00:00Z", 10}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char text[160];
        struct client_table t;
        struct text_fault fault;
        snprintf(text, sizeof text,
                 "{\"clients\":[{\"client_id\":\"a\",\"capacity\":10,\"rate_per_sec\":1,\"tokens\":2}],"
                 "\"saved_at\":\"%s\"}",
                 cases[i].saved_at);
        assert_true(parse(str_of(text), &t, &fault));
        assert_true(tokens_of(&t, "a") == cases[i].tokens);
        client_table_fini(&t);
    }
}

/* In the same boot its clock counts, and else the wall clock. */
static void time_away_in_the_same_boot(void **state)
{
    (void)state;
    static const struct {
        const char *saved, *boot;
        double tokens;
    } cases[] = {{"2026-01-31T12:00:00Z", "4711 57500000000", 4.5},
                 {"2026-01-31T11:00:00Z", "4711 57500000000", 4.5},
                 {"2026-01-31T13:00:00Z", "4711 57500000000", 4.5},
                 {"2026-01-31T11:59:57.500Z", "4711 60000000000", 2},
                 {"2026-01-31T11:59:57.500Z", "4711 0", 10},
                 {"2026-01-31T11:59:57.500Z", "4711 60000000001", 4.5}, /* it has not shown that yet */
                 {"2026-01-31T11:59:57.500Z", "4712 60000000000", 4.5},
                 {"2026-01-31T11:59:57.500Z", "0 60000000000", 4.5}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        for (unsigned known = 0; known < 2; known++) {
            char text[200];
            struct client_table t;
            struct text_fault fault;
            uint64_t saved;
            struct boot_clock none = {0, boot.zero};
            client_table_init(&t, &key);
            snprintf(text, sizeof text,
                     "{\"clients\":[{\"client_id\":\"a\",\"capacity\":10,\"rate_per_sec\":1,\"tokens\":2}],"
                     "\"boot\":\"%s\",\"saved_at\":\"%s\"}",
                     cases[i].boot, cases[i].saved);
            assert_true(snapshot_parse(str_of(text), &t, &now, known ? &boot : &none, &saved, &fault));
            if (known)
                assert_true(tokens_of(&t, "a") == cases[i].tokens);
            else if (i >= 3)
                assert_true(tokens_of(&t, "a") == 4.5);
            client_table_fini(&t);
        }
}

static void written_by_hand(void **state)
{
    (void)state;
    struct client_table t;
    struct text_fault fault;
    assert_true(
        parse(STR("\n { \"saved_at\" : \"2026-01-31T12:00:00Z\" ,\r\n\t\"clients\":[ { \"client_id\":\"{a\\\"}\" "
                  ",\"rate_per_sec\":0.5,\"capacity\":2}\n\n,{\"capacity\":5,\"client_id\":\"::FFFF:1.2.3.4\","
                  "\"rate_per_sec\":1,\"tokens\":99}] } \n"),
              &t, &fault));
    assert_true(tokens_of(&t, "{a\"}") == 2);
    assert_true(tokens_of(&t, "1.2.3.4") == 5);
    client_table_fini(&t);
    assert_true(parse(STR("{\"clients\":[]}"), &t, &fault));
    client_table_fini(&t);
}

#define ONE "{\"client_id\":\"a\",\"capacity\":1,\"rate_per_sec\":1}"

static void damage_is_found_and_placed(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        size_t offset;
    } cases[] = {
        {"", 0},
        {"  \n", 3},
        {"[]", 0},
        {"{", 1},
        {"{}", 1},
        {"{\"clients\"", 10},
        {"{\"clients\":{}}", 11},
        {"{\"clients\":[" ONE, 59},
        {"{\"clients\":[" ONE "}", 59},
        {"{\"clients\":[" ONE ",]}", 60},
        {"{\"clients\":[7]}", 12},
        {"{\"clients\":[" ONE "],}", 61},
        {"{\"clients\":[" ONE "]} x", 62},
        {"{\"clients\":[" ONE "]}{", 61},
        {"{\"clients\":[" ONE "," ONE "]}", 60},
        {"{\"clients\":[],\"clients\":[]}", 14},
        {"{\"clients\":[],\"other\":1}", 14},
        {"{\"saved_at\":\"2026-01-31T12:00:00Z\"}", 35},
        {"{\"clients\":[],\"saved_at\":\"yesterday\"}", 25},
        {"{\"clients\":[],\"saved_at\":7}", 25},
        {"{\"clients\":[],\"saved_at\":\"2026-01-31T12:00:00Z}", 25},
        {"{\"clients\":[],\"boot\":7}", 21},
        {"{\"clients\":[],\"boot\":\"\"}", 21},
        {"{\"clients\":[],\"boot\":\"7\"}", 21},
        {"{\"clients\":[],\"boot\":\"7 \"}", 21},
        {"{\"clients\":[],\"boot\":\" 7\"}", 21},
        {"{\"clients\":[],\"boot\":\"7 8 9\"}", 21},
        {"{\"clients\":[],\"boot\":\"7 -8\"}", 21},
        {"{\"clients\":[],\"boot\":\"7 18446744073709551616\"}", 21},
        {"{\"clients\":[],\"boot\":\"7 8\",\"boot\":\"7 8\"}", 27},
        {"{\"clients\":[{\"client_id\":\"a\",\"capacity\":1,\"rate_per_sec\":1", 12},
        {"{\"clients\":[{\"client_id\":\"a\",\"capacity\":1,\"capacity\":1,\"rate_per_sec\":1}]}", 42},
        {"{\"clients\":[{\"client_id\":\"a\",\"capacity\":0,\"rate_per_sec\":1}]}", 40},
        {"{\"clients\":[{\"client_id\":\"a\",\"capacity\":1,\"rate_per_sec\":1,\"tokens\":1e999}]}", 68},
        {"{\"clients\":[{\"client_id\":\"a\",\"capacity\":1,\"rate_per_sec\":1,\"tokens\":null}]}", 68},
        {"{\"clients\":[{\"client_id\":\"a\",\"capacity\":1,\"rate_per_sec\":1,\"mode\":1}]}", 66},
        {"{\"clients\":[{\"client_id\":\"a\",\"capacity\":1,\"rate_per_sec\":{\"x\":{}}}]}", 57},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct client_table t;
        struct text_fault fault = {0};
        if (parse(str_of(cases[i].text), &t, &fault))
            fail_msg("taken: %s", cases[i].text);
        if (fault.offset != cases[i].offset)
            fail_msg("%s: at %zu, not %zu: %s", cases[i].text, fault.offset, cases[i].offset, fault.what);
        assert_int_not_equal(strlen(fault.what), 0);
        client_table_fini(&t);
    }
}

/* What editors and people leave is called by its name. */
static void slips_are_named(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"\xef\xbb\xbf{\"clients\":[]}", "the file begins with a byte order mark"},
        {"{\"clients\":[" ONE ",\n]}", "no client follows the comma before this"},
        {"{\"clients\":[,]}", "a client must be an object"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct client_table t;
        struct text_fault fault = {0};
        assert_false(parse(str_of(cases[i][0]), &t, &fault));
        assert_string_equal(fault.what, cases[i][1]);
        client_table_fini(&t);
    }
}

/* Cut off anywhere, the file is damaged. */
static void every_prefix_is_damaged(void **state)
{
    (void)state;
    struct str text = STR("{\"clients\":[\n" ONE "\n],\"saved_at\":\"2026-01-31T12:00:00.000Z\",\"boot\":\"7 8\"}");
    for (size_t n = 0; n < text.n; n++) {
        struct client_table t;
        struct text_fault fault;
        assert_false(parse(str_make(text.p, n), &t, &fault));
        assert_true(fault.offset <= n);
        if (n > 0 && !strstr(fault.what, "it is cut off") && !strstr(fault.what, "the file is cut off"))
            fail_msg("of the first %zu bytes: %s", n, fault.what);
        client_table_fini(&t);
    }
}

/* More clients than a piece holds, in the form that is written and in others. */
static void longer_than_a_piece(void **state)
{
    (void)state;
    struct client_table t;
    struct text_fault fault;
    struct buf text = BUF_INIT;
    assert_true(buf_append_str(&text, SNAPSHOT_BEGIN));
    for (unsigned i = 0; i < 20000; i++)
        assert_true(
            buf_printf(&text, "%s{\"client_id\":\"client-%05u\",%s\"capacity\":%u,\"rate_per_sec\":0.5,\"tokens\":1%s}",
                       i ? ",\n" : "\n", i, i % 5 ? "" : " ", 1 + i % 7, i % 3 ? "" : ",\"mode\":\"off\""));
    assert_true(snapshot_append_end(&text, &now, &boot));
    assert_true(parse(buf_str(&text), &t, &fault));
    assert_int_equal(t.shown, 20000);
    client_table_fini(&t);
    buf_fini(&text);
}

/* What cannot be read is no damage, wherever it ends. */
static void unreadable_is_not_damaged(void **state)
{
    (void)state;
    struct str text = STR("{\"clients\":[\n" ONE "\n],\"saved_at\":\"2026-01-31T12:00:00.000Z\"}\n");
    for (size_t n = 0; n <= text.n; n++) {
        struct client_table t;
        struct text_fault fault;
        uint64_t saved;
        assert_false(read_in_pieces(str_make(text.p, n), 10, -EIO, &t, &saved, &fault));
        assert_int_equal(fault.unreadable, -EIO);
        client_table_fini(&t);
        assert_int_equal(read_in_pieces(str_make(text.p, n), 10, 0, &t, &saved, &fault), n >= text.n - 1);
        assert_int_equal(fault.unreadable, 0);
        client_table_fini(&t);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(there_and_back),      cmocka_unit_test(places_come_back),
        cmocka_unit_test(places_by_hand),      cmocka_unit_test(no_clients),
        cmocka_unit_test(time_away_refills),   cmocka_unit_test(time_away_in_the_same_boot),
        cmocka_unit_test(written_by_hand),     cmocka_unit_test(damage_is_found_and_placed),
        cmocka_unit_test(slips_are_named),     cmocka_unit_test(every_prefix_is_damaged),
        cmocka_unit_test(longer_than_a_piece), cmocka_unit_test(unreadable_is_not_damaged),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
