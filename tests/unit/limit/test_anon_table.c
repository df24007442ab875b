/* Unit tests of limit/anon_table.c: bounded, and never a token too many for anybody. */
#include "limit/anon_table.h"

#include "base/clock.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

static const struct hash_key key = {3, 4};

static void init(struct anon_table *t, double capacity, double rate, size_t max)
{
    struct bucket_policy p;
    bucket_policy_init(&p, capacity, rate);
    assert_true(anon_table_init(t, &key, &p, max, 64));
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

static void each_address_has_its_bucket(void **state)
{
    (void)state;
    struct anon_table t;
    init(&t, 3, 1, 1000);
    assert_int_equal(take_all(&t, v4(1), 0), 3);
    assert_int_equal(take_all(&t, v4(2), 0), 3);
    assert_int_equal(take_all(&t, v4(1), 0), 0);
    assert_int_equal(take_all(&t, v4(1), 2 * NS_PER_S), 2);
    assert_int_equal(t.count, 2);
    anon_table_fini(&t);
}

static void ipv6_counts_by_prefix(void **state)
{
    (void)state;
    struct anon_table t;
    init(&t, 3, 1, 1000);
    assert_int_equal(take_all(&t, ip_of("2001:db8::1"), 0), 3);
    assert_int_equal(take_all(&t, ip_of("2001:db8::ffff:1"), 0), 0);
    assert_int_equal(take_all(&t, ip_of("2001:db8:0:1::1"), 0), 3);
    anon_table_fini(&t);
}

static void many_addresses_grow_and_are_swept(void **state)
{
    (void)state;
    struct anon_table t;
    init(&t, 2, 1, 100000);
    for (unsigned i = 0; i < 50000; i++)
        assert_true(take(&t, v4(i * 977), 0));
    assert_int_equal(t.count, 50000);
    for (unsigned i = 0; i < 50000; i += 100)
        assert_int_equal(take_all(&t, v4(i * 977), 0), 1);
    for (unsigned i = 0; i < 1000; i++)
        anon_table_sweep(&t, NS_PER_S / 2);
    assert_int_equal(t.count, 50000);
    for (unsigned i = 0; i < 1000; i++)
        anon_table_sweep(&t, NS_PER_S);
    assert_int_equal(t.count, 500); /* those that took two */
    for (unsigned i = 0; i < 50000; i += 100)
        assert_int_equal(take_all(&t, v4(i * 977), NS_PER_S), 1);
    anon_table_fini(&t);
}

static void full_table_shares_by_network(void **state)
{
    (void)state;
    struct anon_table t;
    uint64_t word;
    bool shared;
    struct ip a = ip_of("10.1.0.1"), b = ip_of("10.1.9.9"), c = ip_of("10.2.0.1");
    init(&t, 3, 1, 2);
    assert_true(take(&t, v4(1), 0));
    assert_true(take(&t, v4(2), 0));
    assert_true(anon_table_take(&t, &a, 0, &word, &shared) && shared);
    assert_int_equal(take_all(&t, b, 0), 2);
    assert_false(anon_table_take(&t, &a, 0, &word, &shared));
    assert_true(shared);
    assert_int_equal(take_all(&t, c, 0), 3);
    assert_int_equal(t.count, 2);
    anon_table_fini(&t);
}

/* Takes a token for a newcomer; false when it had to share. */
static bool gets_its_own(struct anon_table *t, unsigned n, uint64_t now)
{
    struct ip ip = v4(n);
    uint64_t word;
    bool shared;
    assert_true(anon_table_take(t, &ip, now, &word, &shared));
    return !shared;
}

/* Of sixteen shards one has a full bucket, wherever that is: nobody shares before it has been given away. */
static void newcomers_share_only_when_all_are_busy(void **state)
{
    (void)state;
    enum { MAX = 4096 };
    struct anon_table t;
    for (unsigned idle = 0; idle < MAX; idle += 97) {
        init(&t, 10, 1, MAX);
        assert_true(take(&t, v4(idle), 0));
        for (unsigned i = 0; i < MAX; i++)
            if (i != idle)
                assert_true(take(&t, v4(i), NS_PER_S));
        assert_int_equal(t.count, MAX);
        assert_false(gets_its_own(&t, 1u << 31, NS_PER_S / 2));
        assert_true(gets_its_own(&t, 2u << 24, NS_PER_S + NS_PER_S / 2));
        assert_false(gets_its_own(&t, 3u << 24, NS_PER_S + NS_PER_S / 2));
        assert_int_equal(t.count, MAX);
        anon_table_fini(&t);
    }
}

/* So it is where they all were thought to be full by now, and have been used since. */
static void used_again_is_busy_again(void **state)
{
    (void)state;
    enum { MAX = 4096 };
    struct anon_table t;
    for (unsigned idle = 0; idle < MAX; idle += 97) {
        init(&t, 10, 1, MAX);
        for (unsigned i = 0; i < MAX; i++)
            assert_true(take(&t, v4(i), 0));
        for (unsigned i = 0; i < MAX; i++)
            if (i != idle)
                assert_true(take(&t, v4(i), NS_PER_S / 2));
        assert_true(gets_its_own(&t, 2u << 24, NS_PER_S));
        assert_false(gets_its_own(&t, 3u << 24, NS_PER_S));
        anon_table_fini(&t);
    }
}

/* An address that is registered leaves a place, and one that is put back is no earlier full than it was. */
static void those_who_leave_make_room(void **state)
{
    (void)state;
    enum { MAX = 4096 };
    struct anon_table t;
    struct ip ip = v4(77);
    init(&t, 10, 0.001, MAX);
    for (unsigned i = 0; i < MAX; i++)
        assert_true(take(&t, v4(i), NS_PER_S));
    assert_false(gets_its_own(&t, 2u << 24, NS_PER_S));
    uint64_t word = anon_table_leave(&t, &ip);
    assert_true(gets_its_own(&t, 3u << 24, NS_PER_S));
    assert_false(gets_its_own(&t, 4u << 24, NS_PER_S));
    anon_table_join(&t, &ip, word, NS_PER_S);
    assert_int_equal(t.count, MAX);
    anon_table_fini(&t);
}

/* When all are busy, a flood of new addresses costs no sweep. */
static void a_flood_does_not_sweep(void **state)
{
    (void)state;
    enum { MAX = 4096, FLOOD = 2000 };
    struct anon_table t;
    init(&t, 10, 1, MAX);
    for (unsigned i = 0; i < MAX; i++)
        assert_true(take(&t, v4(i), NS_PER_S));
    size_t at = t.sweep_at;
    for (unsigned i = 0; i < FLOOD; i++) {
        assert_false(gets_its_own(&t, (2 + i) << 16, NS_PER_S));
        assert_int_equal(t.sweep_at, at);
    }
    anon_table_fini(&t);
}

/* Behind an overflow bucket that is empty, as a stop leaves it, a newcomer waits for one token, whoever else comes; and
 * then no more, at its rate. */
static void empty_overflow_costs_one_token(void **state)
{
    (void)state;
    struct anon_table t;
    struct ip ip = v4(1);
    uint64_t now = 100 * NS_PER_S;
    init(&t, 10, 1, 4096);
    anon_table_raise_network(&t, &ip, bucket_clock(&t.policy, now) + bucket_clock(&t.policy, 10 * NS_PER_S));
    for (unsigned i = 1; i <= 100; i++)
        assert_false(take(&t, v4(i), now));
    for (unsigned turn = 1; turn <= 20; turn++)
        for (unsigned i = 1; i <= 100; i++)
            assert_true(take(&t, v4(i), now + turn * (NS_PER_S + 10)));
    anon_table_fini(&t);
}

static void expect_all_found(const struct anon_table *t, uint64_t now)
{
    struct anon_export e = {.words = true};
    struct buf text = BUF_INIT;
    assert_true(anon_table_export(t, now, &e, SIZE_MAX, &text));
    struct str rest = buf_str(&text);
    while (rest.n > 0 && rest.p[0] != '*') {
        struct ip ip;
        uint64_t word;
        size_t blank = str_find(rest, ' '), end = str_find(rest, '\n');
        assert_true(ip_parse(str_make(rest.p, blank), &ip));
        assert_true(str_parse_u64(str_make(rest.p + blank + 1, end - blank - 1), &word));
        assert_true(anon_table_peek(t, &ip) == word);
        rest = str_make(rest.p + end + 1, rest.n - end - 1);
    }
    buf_fini(&text);
}

/* Buckets that are given away one at a time, in whatever order, leave all others to be found. */
static void nobody_is_lost(void **state)
{
    (void)state;
    enum { MAX = 900, STEPS = 60000 };
    struct anon_table t;
    unsigned rng = 3;
    uint64_t now = 0;
    init(&t, 1000, 10, MAX);
    for (unsigned i = 0; i < STEPS; i++) {
        rng = rng * 1664525 + 1013904223;
        for (unsigned n = rng >> 28; n > 0; n--)
            (void)!take(&t, v4((rng >> 10) % 20000), now);
        now += (rng >> 20) * 1000 * (i / 20000); /* all at one moment first, then slowly, then faster */
        if (i % 500 == 0)
            expect_all_found(&t, now);
        assert_true(t.count <= MAX);
    }
    anon_table_fini(&t);
}

/* A bucket of its own begins with what the overflow bucket held. */
static void coming_back_from_overflow_gives_nothing(void **state)
{
    (void)state;
    struct anon_table t;
    struct ip a = ip_of("10.1.0.1");
    init(&t, 3, 1, 1);
    assert_true(take(&t, v4(1), 0));
    assert_int_equal(take_all(&t, a, 0), 3);
    /* after a second the first bucket is full, and leaves its place to the newcomer */
    assert_int_equal(take_all(&t, a, NS_PER_S), 1);
    assert_int_equal(t.count, 1);
    assert_int_equal(take_all(&t, a, 3 * NS_PER_S), 2);
    anon_table_fini(&t);
}

/* Random traffic of many addresses through a table far too small: each address by itself keeps the bound. */
static void bound_holds_under_eviction(void **state)
{
    (void)state;
    enum { ADDRESSES = 200, STEPS = 200000 };
    struct anon_table t;
    struct bucket_policy p;
    static uint64_t ideal[ADDRESSES];
    unsigned rng = 7;
    uint64_t now = 0;
    init(&t, 5, 2, 20);
    bucket_policy_init(&p, 5, 2);
    for (unsigned i = 0; i < STEPS; i++) {
        rng = rng * 1664525 + 1013904223;
        unsigned who = (rng >> 10) % ADDRESSES;
        now += rng >> 10 & 0x3ffffff;
        if (take(&t, v4(who << 12), now))
            assert_true(bucket_take(&p, &ideal[who], now)); /* a bucket of its own would have passed it too */
        if (i % 100 == 0)
            anon_table_sweep(&t, now);
        assert_true(t.count <= 20);
    }
    anon_table_fini(&t);
}

static void leaving_and_joining(void **state)
{
    (void)state;
    struct anon_table t;
    struct ip a = ip_of("10.0.0.1"), b = ip_of("2001:db8::1");
    init(&t, 3, 1, 1000);
    assert_true(take(&t, a, 0));
    uint64_t word = anon_table_leave(&t, &a);
    assert_int_equal(bucket_whole_tokens(&t.policy, word, 0), 2);
    anon_table_join(&t, &a, bucket_word(&t.policy, 1, 0), 0);
    assert_int_equal(take_all(&t, a, 0), 1);

    /* neighbours of an IPv6 address keep the prefix's bucket */
    assert_true(take(&t, b, 0));
    assert_int_equal(bucket_whole_tokens(&t.policy, anon_table_leave(&t, &b), 0), 2);
    assert_int_equal(take_all(&t, ip_of("2001:db8::2"), 0), 2);
    anon_table_join(&t, &b, bucket_word(&t.policy, 2, 0), 0);
    assert_int_equal(take_all(&t, b, 0), 0);

    /* a full bucket needs no place */
    size_t before = t.count;
    anon_table_join(&t, &(struct ip){{9}}, 0, NS_PER_S);
    assert_int_equal(t.count, before);
    anon_table_fini(&t);
}

static void joining_a_full_table_charges_the_network(void **state)
{
    (void)state;
    struct anon_table t;
    struct ip a = ip_of("10.1.0.1");
    init(&t, 3, 1, 1);
    assert_true(take(&t, v4(1), 0));
    anon_table_join(&t, &a, bucket_word(&t.policy, 1, 0), 0);
    assert_int_equal(take_all(&t, a, 0), 1);
    anon_table_fini(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_address_has_its_bucket),
        cmocka_unit_test(ipv6_counts_by_prefix),
        cmocka_unit_test(many_addresses_grow_and_are_swept),
        cmocka_unit_test(full_table_shares_by_network),
        cmocka_unit_test(newcomers_share_only_when_all_are_busy),
        cmocka_unit_test(used_again_is_busy_again),
        cmocka_unit_test(those_who_leave_make_room),
        cmocka_unit_test(a_flood_does_not_sweep),
        cmocka_unit_test(empty_overflow_costs_one_token),
        cmocka_unit_test(nobody_is_lost),
        cmocka_unit_test(coming_back_from_overflow_gives_nothing),
        cmocka_unit_test(bound_holds_under_eviction),
        cmocka_unit_test(leaving_and_joining),
        cmocka_unit_test(joining_a_full_table_charges_the_network),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
