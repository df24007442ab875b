/* Unit tests of limit/anon_change.c: whatever a reload changes, nobody gets a token too many. */
#include "base/clock.h"
#include "limit/anon_table.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

static const struct hash_key key = {3, 4};

static void init(struct anon_table *t, double capacity, double rate, size_t max, unsigned prefix)
{
    struct bucket_policy p;
    bucket_policy_init(&p, capacity, rate);
    assert_true(anon_table_init(t, &key, &p, max, prefix));
}

static void change(struct anon_table *t, double capacity, double rate, size_t max, unsigned prefix, uint64_t now)
{
    struct bucket_policy p;
    struct anon_table fresh;
    bucket_policy_init(&p, capacity, rate);
    assert_true(anon_table_stage(t, &p, max, prefix, &fresh));
    anon_table_replace(t, &fresh, now);
}

static struct ip v4(unsigned n)
{
    return (struct ip){{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, (uint8_t)(n >> 24), (uint8_t)(n >> 16),
                        (uint8_t)(n >> 8), (uint8_t)n}};
}

static struct ip ip_of(const char *text)
{
    struct ip ip;
    assert_true(ip_parse(str_of(text), &ip));
    return ip;
}

static bool take(struct anon_table *t, struct ip ip, uint64_t now)
{
    uint64_t word;
    bool shared;
    return anon_table_take(t, &ip, now, &word, &shared);
}

static unsigned take_all(struct anon_table *t, struct ip ip, uint64_t now)
{
    unsigned n = 0;
    while (take(t, ip, now))
        n++;
    return n;
}

static void tokens_stay_and_are_capped(void **state)
{
    (void)state;
    struct anon_table t;
    init(&t, 10, 1, 1000, 64);
    for (int i = 0; i < 4; i++)
        assert_true(take(&t, v4(1), 0));
    change(&t, 100, 1, 1000, 64, 0);
    assert_int_equal(take_all(&t, v4(1), 0), 6);
    assert_int_equal(take_all(&t, v4(2), 0), 10); /* it had the old capacity, though nothing was known of it */
    assert_int_equal(take_all(&t, v4(3), 20 * NS_PER_S), 30);
    assert_int_equal(take_all(&t, v4(4), 500 * NS_PER_S), 100);
    change(&t, 5, 1, 1000, 64, 500 * NS_PER_S);
    assert_int_equal(take_all(&t, v4(5), 500 * NS_PER_S), 5);
    assert_int_equal(take_all(&t, v4(4), 500 * NS_PER_S), 0);
    assert_int_equal(take_all(&t, v4(1), 500 * NS_PER_S), 5);
    anon_table_fini(&t);
}

/* Addresses as they come, policies and sizes as they come: against a bucket for each that is never forgotten. */
static void nobody_gets_more(void **state)
{
    (void)state;
    enum { PEOPLE = 300 };
    static const double capacities[] = {1, 3, 10, 50}, rates[] = {0.5, 1, 7};
    static const size_t sizes[] = {1, 20, 1000, 100000};
    double capacity = 10, rate = 1, tokens[PEOPLE];
    struct anon_table t;
    uint64_t seed = 7, now = NS_PER_S;
    unsigned passed = 0;
    init(&t, capacity, rate, 1000, 64);
    for (int i = 0; i < PEOPLE; i++)
        tokens[i] = capacity;
    for (int step = 0; step < 200000; step++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        unsigned r = (unsigned)(seed >> 33), who = r % PEOPLE;
        uint64_t passes = r / PEOPLE % 3 * 10 * NS_PER_MS;
        now += passes;
        for (int i = 0; i < PEOPLE && passes > 0; i++) {
            tokens[i] += rate * (double)passes / NS_PER_S;
            tokens[i] = tokens[i] < capacity ? tokens[i] : capacity;
        }
        if (take(&t, v4(who << 12), now)) {
            passed++;
            tokens[who] -= 1;
            assert_true(tokens[who] > -1e-6);
        }
        if (step % 16 == 0)
            anon_table_sweep(&t, now);
        if (step % 1000 != 999)
            continue;
        capacity = capacities[r % 4];
        rate = rates[r / 4 % 3];
        change(&t, capacity, rate, sizes[r / 12 % 4], 64, now);
        for (int i = 0; i < PEOPLE; i++)
            tokens[i] = tokens[i] < capacity ? tokens[i] : capacity;
    }
    assert_in_range(passed, 10000, 190000);
    anon_table_fini(&t);
}

static void networks_of_another_size_have_no_more(void **state)
{
    (void)state;
    static const unsigned sizes[] = {64, 56, 64, 48, 128, 16, 64, 24, 128};
    for (unsigned i = 0; i + 1 < sizeof sizes / sizeof *sizes; i++) {
        struct anon_table t;
        init(&t, 10, 0.001, 1000, sizes[i]);
        assert_int_equal(take_all(&t, ip_of("2001:db8:1:2::3"), 0), 10);
        assert_int_equal(take_all(&t, v4(9), 0), 10);
        change(&t, 10, 0.001, 1000, sizes[i + 1], 0);
        assert_int_equal(take_all(&t, ip_of("2001:db8:1:2::3"), 0), 0);
        assert_int_equal(take_all(&t, ip_of("2001:db8:1:2::4"), 0), 0);
        bool wide = sizes[i] < 32 || sizes[i + 1] < 32;
        if (wide)
            assert_int_equal(take_all(&t, ip_of("2001:dead::1"), 0), 0); /* it may have been of that network */
        else
            assert_int_equal(take_all(&t, v4(8), 0), 10);
        assert_int_equal(take_all(&t, v4(9), 0), 0);
        anon_table_fini(&t);
    }
}

/* More room: entries move to more shards, or stay where they are when there are many. */
static void all_are_found_again(void **state)
{
    (void)state;
    for (unsigned many = 1000; many <= 100000; many *= 100) {
        struct anon_table t;
        init(&t, 2, 0.001, many, 64);
        for (unsigned i = 0; i < many; i++)
            assert_true(take(&t, v4(i << 4), 0));
        change(&t, 2, 0.001, 10000000, 64, 0);
        assert_int_equal(t.count, many);
        for (unsigned i = 0; i < many; i++)
            assert_int_equal(take_all(&t, v4(i << 4), 0), 1);
        change(&t, 2, 0.001, 10, 64, 0);
        for (unsigned i = 0; i < many; i++)
            assert_false(take(&t, v4(i << 4), 0));
        anon_table_fini(&t);
    }
}

/* What is full under the new settings leaves, and makes room, in whatever shards it stands by now. */
static void who_is_full_then_makes_room(void **state)
{
    (void)state;
    static const size_t rooms[] = {1000, 4096, 20000};
    for (unsigned i = 0; i < sizeof rooms / sizeof *rooms; i++) {
        struct anon_table t;
        struct ip newcomer = v4(1u << 31);
        uint64_t word;
        bool shared;
        init(&t, 10, 0.001, 1000, 64);
        for (unsigned n = 0; n < 1000; n++)
            assert_true(take(&t, v4(n), 0));
        change(&t, 10, 1000, rooms[i], 64, 0);
        change(&t, 10, 1000, 1000, 64, 0);
        assert_int_equal(t.count, 1000);
        assert_true(anon_table_take(&t, &newcomer, NS_PER_S, &word, &shared) && !shared);
        for (unsigned turn = 0; turn < 64; turn++)
            anon_table_sweep(&t, NS_PER_S);
        assert_int_equal(t.count, 1);
        anon_table_fini(&t);
    }
}

/* Where no word is converted either, but only moved. */
static void who_is_full_when_moved_makes_room(void **state)
{
    (void)state;
    struct anon_table t;
    init(&t, 10, 1, 1000, 64);
    for (unsigned n = 0; n < 1000; n++)
        assert_true(take(&t, v4(n), 0));
    change(&t, 10, 1, 20000, 64, 0);
    for (unsigned turn = 0; turn < 64; turn++)
        anon_table_sweep(&t, NS_PER_S);
    assert_int_equal(t.count, 0);
    anon_table_fini(&t);
}

static void who_goes_no_further_has_changed_nothing(void **state)
{
    (void)state;
    struct bucket_policy p;
    struct anon_table t, fresh;
    init(&t, 3, 1, 1000, 64);
    assert_int_equal(take_all(&t, v4(1), 0), 3);
    bucket_policy_init(&p, 9, 9);
    assert_true(anon_table_stage(&t, &p, 1000000, 64, &fresh));
    anon_table_fini(&fresh);
    assert_int_equal(take_all(&t, v4(1), 0), 0);
    assert_int_equal(take_all(&t, v4(2), 0), 3);
    anon_table_fini(&t);
}

/* All that is told, as a string. */
static const char *exported(const struct anon_table *t, uint64_t now, bool words, struct buf *all)
{
    struct anon_export e = {.words = words};
    while (!e.ended) {
        size_t before = all->len;
        assert_true(anon_table_export(t, now, &e, 500, all));
        assert_true(all->len - before < 600);
    }
    assert_true(buf_append(all, "", 1));
    return buf_str(all).p;
}

/* Each bucket that is not full, once, and none with a token more than it has. */
static void buckets_are_told(void **state)
{
    (void)state;
    struct anon_table t;
    struct buf all = BUF_INIT;
    init(&t, 3, 1, 10000, 64);
    for (unsigned i = 0; i < 3000; i++)
        for (unsigned j = 0; j <= i % 3; j++)
            assert_true(take(&t, v4(i), 0));
    const char *text = exported(&t, NS_PER_S, false, &all);
    unsigned lines = 0;
    for (const char *p = text; (p = strchr(p, '\n')); p++)
        lines++;
    assert_int_equal(lines, 2000); /* those that gave one token have it back */
    assert_non_null(strstr(text, "0.0.0.2 1048576\n"));
    assert_non_null(strstr(text, "0.0.0.1 2097152\n"));
    assert_null(strchr(text, '*'));
    buf_fini(&all);
    anon_table_fini(&t);
}

/* ... and overflow buckets one by one to who knows them apart, else the emptiest. */
static void overflow_buckets_are_told(void **state)
{
    (void)state;
    struct anon_table t;
    struct buf all = BUF_INIT;
    struct ip ip = v4(0x0a000001);
    init(&t, 3, 1, 10000, 64);
    anon_table_raise_network(&t, &ip, bucket_word(&t.policy, 2, NS_PER_S));
    anon_table_raise_place(&t, 7, bucket_word(&t.policy, 1.5, NS_PER_S));
    assert_non_null(strstr(exported(&t, NS_PER_S, false, &all), "* 1572864\n"));
    buf_fini(&all);
    const char *text = exported(&t, NS_PER_S, true, &all), *first = strstr(text, "* ");
    assert_non_null(strstr(text, "* 7 "));
    assert_non_null(strstr(first + 1, "* "));
    assert_int_equal(take_all(&t, v4(0x0a00ffff), NS_PER_S), 2);
    assert_int_equal(take_all(&t, v4(0x0b000001), NS_PER_S), 3);
    buf_fini(&all);
    anon_table_fini(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tokens_stay_and_are_capped),
        cmocka_unit_test(nobody_gets_more),
        cmocka_unit_test(networks_of_another_size_have_no_more),
        cmocka_unit_test(all_are_found_again),
        cmocka_unit_test(buckets_are_told),
        cmocka_unit_test(overflow_buckets_are_told),
        cmocka_unit_test(who_is_full_then_makes_room),
        cmocka_unit_test(who_is_full_when_moved_makes_room),
        cmocka_unit_test(who_goes_no_further_has_changed_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
