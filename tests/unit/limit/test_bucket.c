/* Unit tests of limit/bucket.c: the arithmetic against an exact model, and its edges. */
#include "limit/bucket.h"

#include "base/clock.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

__extension__ typedef __int128 i128;

/* xorshift64*: the tests are the same at each run. */
static uint64_t next_random(uint64_t *state)
{
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * UINT64_C(2685821657736338717);
}

/* From 0 to below 1. */
static double fraction(uint64_t *state)
{
    return (double)(next_random(state) >> 11) * 0x1p-53;
}

/* The exact bucket of the doubles that were given, counted in units of 2^-bits / 10^9 tokens, in which the
 * capacity, a token, and what the rate makes in a nanosecond are whole. It shares no rounding with the code: only how
 * fine that counts is taken from there, to say how far the two may be apart. */
struct model {
    i128 per_ns, token, burst, grain, full_at;
    uint64_t since; /* it was full then */
};

/* v = *mantissa x 2^result */
static int exact_parts(double v, i128 *mantissa)
{
    int e;
    *mantissa = (i128)ldexp(frexp(v, &e), 53);
    return e - 53;
}

static void model_init(struct model *m, const struct bucket_policy *p)
{
    i128 rate, capacity;
    int of_rate = exact_parts(p->rate, &rate), of_capacity = exact_parts(p->capacity, &capacity);
    int bits = of_rate < of_capacity ? -of_rate : -of_capacity;
    assert_true(bits >= p->frac);
    m->per_ns = rate << (bits + of_rate);
    m->token = (i128)NS_PER_S << bits;
    m->burst = capacity * (i128)NS_PER_S << (bits + of_capacity);
    m->grain = m->token >> p->frac;
    m->full_at = 0;
    m->since = 0;
}

static i128 model_missing(const struct model *m, uint64_t now)
{
    i128 missing = m->full_at - (i128)now * m->per_ns;
    return missing > 0 ? missing : 0;
}

static void model_charge(struct model *m, uint64_t now)
{
    i128 missing = model_missing(m, now);
    if (missing == 0)
        m->since = now;
    m->full_at = (i128)now * m->per_ns + missing + m->token;
}

/* Does the exact bucket hold a token, with its capacity in whole grains of the code's? */
static bool model_passes(const struct model *m, uint64_t now)
{
    return model_missing(m, now) <= m->burst - m->burst % m->grain - m->token;
}

/* At least 2^-63 grains for each of that many nanoseconds, as exact as there is room for. */
static i128 slope_excess(const struct model *m, uint64_t ns)
{
    return (i128)((ns >> 31) + 1) * ((m->grain >> 32) + 1);
}

/* Has no more passed since it was last full than capacity + rate x T x (1 + 2^-52), what the slope's last bit makes in
 * T, and a grain? */
static bool model_allows(const struct model *m, uint64_t now)
{
    i128 made = (i128)(now - m->since) * m->per_ns;
    return model_missing(m, now) <= m->burst + m->grain + (made >> 52) + 1 + slope_excess(m, now - m->since);
}

/* Random arrivals around the rate: what the exact bucket would pass is never refused, and what is passed never exceeds
 * the exact bucket by more than bucket.h says, however long it goes on. */
static void run_against_model(double capacity, double rate, uint64_t seed, unsigned steps)
{
    struct bucket_policy p;
    bucket_policy_init(&p, capacity, rate);
    struct model m;
    model_init(&m, &p);
    uint64_t now = seed % NS_PER_S, word = 0, state = seed;
    double period = 1e9 / rate;
    for (unsigned i = 0; i < steps; i++) {
        unsigned kind = next_random(&state) % 8;
        double span = kind == 0 ? 0 : kind == 1 ? period * fmin(capacity * 2, 20) : kind < 5 ? period : period * 2;
        now += kind == 7 ? (uint64_t)ceil(period) : (uint64_t)(span * fraction(&state));
        bool exact = model_passes(&m, now), passed = bucket_take(&p, &word, now);
        assert_true(passed || !exact);
        if (!passed)
            continue;
        model_charge(&m, now);
        assert_true(model_allows(&m, now));
    }
}

static void bucket_agrees_with_the_exact_model(void **state)
{
    (void)state;
    static const double spans[] = {0, 1, 10, 100, 1000, 1e6}; /* capacities are any doubles from 1 to so much more */
    static const double rates[] = {0.001, 0.1, 0.3, 1, 1 + 0x1p-52, 3, 7.7, 50, 1000.1, 1e6, 123456789.125, 1e9};
    uint64_t seed = 1;
    for (size_t c = 0; c < sizeof spans / sizeof spans[0]; c++)
        for (size_t r = 0; r < sizeof rates / sizeof rates[0]; r++, seed++) {
            uint64_t drawn = seed * 104729;
            run_against_model(1 + spans[c] * fraction(&drawn), rates[r], seed * 7919, 150000); /* ten millions in all */
        }
}

/* Each reading is the exact one rounded down to a unit, but for the slope's rounding, over the hundred years. */
static void bucket_clock_follows_the_rate(void **state)
{
    (void)state;
    static const double rates[] = {0.001, 0.1, 0.3, 0.7, 1, 1 + 0x1p-52, 1.5, 3, 7.7, 50, 1000.1, 1e6};
    uint64_t seed = 77;
    for (size_t r = 0; r < sizeof rates / sizeof rates[0]; r++) {
        struct bucket_policy p;
        struct model m;
        bucket_policy_init(&p, 1, rates[r]);
        model_init(&m, &p);
        for (unsigned i = 0; i < 100000; i++) {
            uint64_t now = next_random(&seed) % UINT64_C(3200000000000000000) >> next_random(&seed) % 62;
            if (rates[r] > 100)
                now >>= 16; /* or the model has no room */
            i128 exact = now * m.per_ns, shown = bucket_clock(&p, now) * m.grain;
            assert_true(shown > exact - m.grain);
            assert_true(shown <= exact + (exact >> 52) + 1 + slope_excess(&m, now));
        }
    }
}

static void bucket_at_its_rate_is_never_refused(void **state)
{
    (void)state;
    static const double rates[] = {0.7, 0.3, 0.1, 1, 3, 50, 333, 1e6};
    for (size_t r = 0; r < sizeof rates / sizeof rates[0]; r++) {
        struct bucket_policy p;
        bucket_policy_init(&p, 1, rates[r]);
        uint64_t word = 0;
        for (uint64_t i = 0; i < 200000; i++)
            assert_true(bucket_take(&p, &word, 12345 + i * (uint64_t)ceil(1e9 / rates[r])));
    }
}

/* Tenths are no binary fractions: whoever asks n times every 10 s at a rate of n/10 is not refused, at no time. */
static void bucket_takes_decimal_rates_at_their_word(void **state)
{
    (void)state;
    for (unsigned n = 1; n <= 50; n++) {
        struct bucket_policy p;
        bucket_policy_init(&p, n, n / 10.0);
        uint64_t word = 0, passed = 0;
        for (uint64_t i = 0; i < 20000; i++)
            for (unsigned k = 0; k < n; k++)
                passed += bucket_take(&p, &word, 5 + i * 10 * NS_PER_S);
        assert_int_equal(passed, 20000 * n);
        assert_false(bucket_take(&p, &word, 5 + 19999 * 10 * NS_PER_S));
    }
}

static void bucket_saturated_passes_capacity_and_rate(void **state)
{
    (void)state;
    struct bucket_policy p;
    bucket_policy_init(&p, 100, 50);
    uint64_t word = 0, passed = 0;
    for (uint64_t now = 0; now <= 30 * NS_PER_S; now += 100000)
        passed += bucket_take(&p, &word, now);
    assert_int_equal(passed, 100 + 50 * 30);
}

static void bucket_shows_its_tokens(void **state)
{
    (void)state;
    struct bucket_policy p;
    bucket_policy_init(&p, 10, 1);
    uint64_t word = 0, now = 5 * NS_PER_S;
    assert_true(bucket_tokens(&p, word, now) == 10);
    assert_int_equal(bucket_seconds_to_full(&p, word, now), 0);
    assert_true(bucket_take(&p, &word, now));
    assert_true(bucket_tokens(&p, word, now) == 9);
    assert_int_equal(bucket_whole_tokens(&p, word, now), 9);
    assert_int_equal(bucket_seconds_to_full(&p, word, now), 1);
    assert_int_equal(bucket_seconds_to_token(&p, word, now), 0);
    assert_true(bucket_tokens(&p, word, now + NS_PER_S / 2) == 9.5);
    assert_true(bucket_is_full(&p, word, now + NS_PER_S));
    assert_false(bucket_is_full(&p, word, now + NS_PER_S - 1));
    assert_true(bucket_tokens(&p, word, now - NS_PER_S) == 8);
}

static void bucket_seconds_are_exact(void **state)
{
    (void)state;
    struct bucket_policy p;
    bucket_policy_init(&p, 10, 1);
    uint64_t word = 0, now = 777;
    for (int i = 0; i < 10; i++)
        assert_true(bucket_take(&p, &word, now));
    assert_false(bucket_take(&p, &word, now));
    assert_int_equal(bucket_whole_tokens(&p, word, now), 0);
    assert_int_equal(bucket_seconds_to_token(&p, word, now), 1);
    assert_int_equal(bucket_seconds_to_token(&p, word, now + NS_PER_S - 1), 1);
    assert_int_equal(bucket_seconds_to_token(&p, word, now + NS_PER_S), 0);
    assert_int_equal(bucket_seconds_to_full(&p, word, now), 10);
    assert_int_equal(bucket_seconds_to_full(&p, word, now + NS_PER_S), 9);
    assert_int_equal(bucket_seconds_to_full(&p, word, now + 10 * NS_PER_S), 0);
}

/* For many states: after so many seconds the token is there, a second earlier it is not. */
static void bucket_seconds_keep_their_promise(void **state)
{
    (void)state;
    static const double rates[] = {1e-6, 0.001, 0.03, 0.7, 1, 1.1, 3, 50};
    uint64_t seed = 99;
    for (unsigned i = 0; i < 200000; i++) {
        struct bucket_policy p;
        bucket_policy_init(&p, 1 + (double)(next_random(&seed) % 20), rates[i % 8]);
        uint64_t now = next_random(&seed) % (1000 * NS_PER_S);
        double tokens = fraction(&seed) * 3 - 1;
        uint64_t word = bucket_word(&p, tokens, now), s = bucket_seconds_to_token(&p, word, now);
        uint64_t copy = word;
        assert_true(bucket_take(&p, &copy, now + s * NS_PER_S));
        copy = word;
        if (s > 0)
            assert_false(bucket_take(&p, &copy, now + (s - 1) * NS_PER_S));
    }
}

static void bucket_fill_seconds_round_as_people_do(void **state)
{
    (void)state;
    static const struct {
        double capacity, rate;
        uint64_t want;
    } cases[] = {{10, 1, 10},
                 {100, 50, 2},
                 {4.2, 0.6, 7},
                 {10, 0.1, 100},
                 {1, 1e9, 1},
                 {10, 3, 4},
                 {1, 0.001, 1000},
                 {1e9, 1e-9, BUCKET_SECONDS_MAX},
                 {1, 5e-324, BUCKET_SECONDS_MAX},
                 {1.5, 0.5, 3}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct bucket_policy p;
        bucket_policy_init(&p, cases[i].capacity, cases[i].rate);
        assert_int_equal(bucket_fill_seconds(&p), cases[i].want);
    }
}

static void bucket_extremes_hold(void **state)
{
    (void)state;
    static const double capacities[] = {1, 1.000001, 1e9, 999999999.5};
    static const double rates[] = {5e-324, 1e-300, 1e-9, 0.5, 1e9, 999999999.9};
    const uint64_t century = UINT64_C(3155760000) * NS_PER_S;
    for (size_t c = 0; c < 4; c++)
        for (size_t r = 0; r < 6; r++) {
            struct bucket_policy p;
            bucket_policy_init(&p, capacities[c], rates[r]);
            uint64_t word = 0;
            assert_true(bucket_take(&p, &word, century));
            assert_true(bucket_tokens(&p, word, century) <= capacities[c] - 1);
            assert_true(bucket_tokens(&p, word, UINT64_MAX) <= capacities[c]);
            assert_true(bucket_seconds_to_full(&p, word, century) >= 1);
            assert_true(bucket_seconds_to_full(&p, word, 0) <= BUCKET_SECONDS_MAX);
            assert_true(bucket_clock(&p, century) < UINT64_C(1) << 62);
            word = bucket_word(&p, -1e300, century);
            assert_false(bucket_take(&p, &word, century));
            assert_true(bucket_seconds_to_token(&p, word, century) >= 1);
            assert_true(bucket_word(&p, capacities[c], century) == 0);
        }
}

/* A rate of 2^-k makes 2^(frac - k) units a second: its slope, in 2^-63 units a nanosecond, is that rounded up. */
static void bucket_slope_is_rounded_up_once(void **state)
{
    (void)state;
    static const int ks[] = {0, 10, 50, 69, 75, 93, 94, 123, 200, 1000};
    for (size_t i = 0; i < sizeof ks / sizeof ks[0]; i++) {
        struct bucket_policy p;
        bucket_policy_init(&p, 1, ldexp(1, -ks[i]));
        int bits = p.frac + 63 - ks[i];
        i128 scaled = bits >= 0 ? (i128)1 << bits : 1; /* less than one is rounded up, too */
        assert_true(p.mult == (uint64_t)((scaled + NS_PER_S - 1) / NS_PER_S));
    }
}

/* The clock never runs back, nor by more than its rate; at 10^9 a second it counts nanoseconds. */
static void bucket_clock_is_monotone(void **state)
{
    (void)state;
    struct bucket_policy p;
    bucket_policy_init(&p, 1, 1e9);
    assert_int_equal(bucket_clock(&p, 123456789012345), 123456789012345);
    bucket_policy_init(&p, 3, 7.3);
    uint64_t last = 0, seed = 5, now = 0;
    for (unsigned i = 0; i < 100000; i++) {
        now += next_random(&seed) % 1000000;
        uint64_t v = bucket_clock(&p, now);
        assert_true(v >= last);
        last = v;
    }
}

static void bucket_set_and_shown_agree(void **state)
{
    (void)state;
    static const double tokens[] = {-3.5, 0, 0.25, 1, 9.5, 10};
    struct bucket_policy p;
    bucket_policy_init(&p, 10, 0.1);
    for (size_t i = 0; i < 6; i++)
        assert_true(bucket_tokens(&p, bucket_word(&p, tokens[i], NS_PER_S), NS_PER_S) == tokens[i]);
    assert_true(bucket_tokens(&p, bucket_word(&p, 11, NS_PER_S), NS_PER_S) == 10);
}

static void bucket_refill_counts_time_not_seen(void **state)
{
    (void)state;
    struct bucket_policy p;
    bucket_policy_init(&p, 10, 1);
    uint64_t now = 3 * NS_PER_S, word = bucket_word(&p, 2, now);
    assert_true(bucket_tokens(&p, bucket_refilled(&p, word, now, 3 * NS_PER_S), now) == 5);
    assert_true(bucket_tokens(&p, bucket_refilled(&p, word, now, 0), now) == 2);
    assert_true(bucket_tokens(&p, bucket_refilled(&p, word, now, UINT64_MAX), now) == 10);
    assert_true(bucket_tokens(&p, bucket_refilled(&p, bucket_word(&p, -1, now), now, NS_PER_S), now) == 0);
}

static void bucket_conversion_keeps_tokens(void **state)
{
    (void)state;
    static const double capacities[] = {1, 5, 10, 1e9}, rates[] = {1e-9, 0.5, 50, 1e9};
    const uint64_t now = 1000 * NS_PER_S;
    for (size_t a = 0; a < 16; a++)
        for (size_t b = 0; b < 16; b++) {
            struct bucket_policy from, to;
            bucket_policy_init(&from, capacities[a / 4], rates[a % 4]);
            bucket_policy_init(&to, capacities[b / 4], rates[b % 4]);
            for (double tokens = -2; tokens <= from.capacity; tokens += tokens < 12 ? 1 : from.capacity / 3) {
                uint64_t word = bucket_converted(&from, &to, bucket_word(&from, tokens, now), now);
                double want = tokens < to.capacity ? tokens : to.capacity, got = bucket_tokens(&to, word, now);
                assert_true(got <= want && got >= want - 1);
            }
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bucket_agrees_with_the_exact_model),
        cmocka_unit_test(bucket_clock_follows_the_rate),
        cmocka_unit_test(bucket_at_its_rate_is_never_refused),
        cmocka_unit_test(bucket_takes_decimal_rates_at_their_word),
        cmocka_unit_test(bucket_saturated_passes_capacity_and_rate),
        cmocka_unit_test(bucket_shows_its_tokens),
        cmocka_unit_test(bucket_seconds_are_exact),
        cmocka_unit_test(bucket_seconds_keep_their_promise),
        cmocka_unit_test(bucket_fill_seconds_round_as_people_do),
        cmocka_unit_test(bucket_extremes_hold),
        cmocka_unit_test(bucket_slope_is_rounded_up_once),
        cmocka_unit_test(bucket_clock_is_monotone),
        cmocka_unit_test(bucket_set_and_shown_agree),
        cmocka_unit_test(bucket_refill_counts_time_not_seen),
        cmocka_unit_test(bucket_conversion_keeps_tokens),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
