/* Token buckets in integer arithmetic: see bucket.h for the method. Pure functions; the bound is argued in
 * limiter.c. */
#include "limit/bucket.h"

#include "base/clock.h"

#include <assert.h>
#include <math.h>

__extension__ typedef unsigned __int128 u128;
__extension__ typedef __int128 i128;

/* The clocks run for this long; every reading and every word then stays below 2^63. */
#define SPAN_S  3200000000.0
#define SPAN_NS UINT64_C(3200000000000000000)

/* Readings, and the capacity in units, are below 2^READING_BITS, and what rounding adds. */
#define READING_BITS 62
#define FRAC_MAX     60

/* A debt larger than this is as good as this: neither is paid off in the span of the clock. */
#define UNITS_MAX (INT64_C(1) << READING_BITS)

bool bucket_capacity_is_valid(double capacity)
{
    return capacity >= 1 && capacity <= BUCKET_SETTING_MAX;
}

bool bucket_rate_is_valid(double rate)
{
    return rate > 0 && rate <= BUCKET_SETTING_MAX;
}

/* A rate that uses these last bits of a double stands for a decimal fraction close by, such as 0.3, which is a little
 * more than the double that was read for it: the next double is taken, so that 3 requests every 10 s stay allowed. */
#define DECIMAL_BITS UINT64_C(0x3ff)

/* v x 2^n, rounded up; not 0. */
static u128 shift_up(uint64_t v, int n)
{
    if (n >= 0)
        return (u128)v << n;
    return n <= -64 ? 1 : ((v - 1) >> -n) + 1;
}

void bucket_policy_init(struct bucket_policy *p, double capacity, double rate)
{
    assert(bucket_capacity_is_valid(capacity) && bucket_rate_is_valid(rate));
    double made = rate * SPAN_S;
    int largest, exponent;
    frexp(capacity > made ? capacity : made, &largest);
    int frac = READING_BITS - largest;
    if (frac > FRAC_MAX)
        frac = FRAC_MAX;

    /* rate = mantissa x 2^(exponent - 53), and mult = rate x 2^frac x 2^63 / 10^9, rounded up. It is below 2^64, since
     * rate x 2^frac x SPAN_S is below 2^62. */
    uint64_t mantissa = (uint64_t)ldexp(frexp(rate, &exponent), 53);
    if (mantissa & DECIMAL_BITS)
        mantissa++;
    u128 scaled = shift_up(mantissa, exponent - 53 + frac + BUCKET_SLOPE_BITS);
    *p = (struct bucket_policy){.capacity = capacity,
                                .rate = rate,
                                .mult = (uint64_t)((scaled + NS_PER_S - 1) / NS_PER_S),
                                .frac = (uint8_t)frac};
}

uint64_t bucket_clock(const struct bucket_policy *p, uint64_t now)
{
    if (now > SPAN_NS)
        now = SPAN_NS;
    return (uint64_t)((u128)now * p->mult >> BUCKET_SLOPE_BITS);
}

static uint64_t one_token(const struct bucket_policy *p)
{
    return UINT64_C(1) << p->frac;
}

/* The capacity in units. */
static uint64_t burst_of(const struct bucket_policy *p)
{
    return (uint64_t)(p->capacity * (double)one_token(p));
}

/* Units missing to a full bucket. */
static uint64_t missing_at(uint64_t word, uint64_t clock)
{
    return word > clock ? word - clock : 0;
}

bool bucket_take(const struct bucket_policy *p, uint64_t *word, uint64_t now)
{
    uint64_t clock = bucket_clock(p, now), missing = missing_at(*word, clock);
    if (missing > burst_of(p) - one_token(p))
        return false;
    *word = clock + missing + one_token(p);
    return true;
}

double bucket_tokens(const struct bucket_policy *p, uint64_t word, uint64_t now)
{
    uint64_t missing = missing_at(word, bucket_clock(p, now));
    if (missing == 0)
        return p->capacity;
    return (double)((int64_t)burst_of(p) - (int64_t)missing) / (double)one_token(p);
}

uint64_t bucket_whole_tokens(const struct bucket_policy *p, uint64_t word, uint64_t now)
{
    uint64_t missing = missing_at(word, bucket_clock(p, now)), burst = burst_of(p);
    return missing >= burst ? 0 : (burst - missing) >> p->frac;
}

/* `tokens`, at most the capacity, in whole units, rounded down. */
static int64_t units_of(const struct bucket_policy *p, double tokens)
{
    double units = tokens * (double)one_token(p);
    if (units <= -(double)UNITS_MAX)
        return -UNITS_MAX;
    int64_t whole = (int64_t)units;
    return (double)whole > units ? whole - 1 : whole;
}

/* The word of a bucket with that many units in it, which may be a debt. */
static uint64_t word_with(const struct bucket_policy *p, i128 units, uint64_t now)
{
    i128 missing = (i128)burst_of(p) - units;
    if (missing <= 0)
        return 0;
    return bucket_clock(p, now) + (uint64_t)(missing < UNITS_MAX ? missing : UNITS_MAX);
}

uint64_t bucket_word(const struct bucket_policy *p, double tokens, uint64_t now)
{
    return tokens >= p->capacity ? 0 : word_with(p, units_of(p, tokens), now);
}

uint64_t bucket_refilled(const struct bucket_policy *p, uint64_t word, uint64_t now, uint64_t ns)
{
    uint64_t clock = bucket_clock(p, now);
    uint64_t missing = missing_at(word, clock), made = bucket_clock(p, ns);
    return missing > made ? clock + missing - made : 0;
}

uint64_t bucket_carried(const struct bucket_policy *p, uint64_t word, uint64_t then, uint64_t now)
{
    uint64_t missing = missing_at(word, bucket_clock(p, then));
    if (missing == 0)
        return 0;
    /* Each of the two clocks was rounded down, so that what is missing may come out as much as a unit too small. */
    return bucket_clock(p, now) + (missing < (uint64_t)UNITS_MAX ? missing : (uint64_t)UNITS_MAX) + 1;
}

uint64_t bucket_credible(const struct bucket_policy *p, uint64_t word, uint64_t now)
{
    uint64_t clock = bucket_clock(p, now), burst = burst_of(p);
    return missing_at(word, clock) <= burst + one_token(p) ? word : clock + burst;
}

uint64_t bucket_converted(const struct bucket_policy *from, const struct bucket_policy *to, uint64_t word, uint64_t now)
{
    i128 left = (i128)burst_of(from) - (i128)missing_at(word, bucket_clock(from, now));
    int up = to->frac - from->frac;
    i128 kept = up >= 0 ? left * ((i128)1 << up) : left >> -up;
    return word_with(to, kept, now);
}

/* Has the clock reached `reading` n seconds from now? Only asked within the clock's span. */
static bool reached(const struct bucket_policy *p, uint64_t reading, uint64_t now, uint64_t n)
{
    return bucket_clock(p, now + n * NS_PER_S) >= reading;
}

/* Whole seconds until the clock shows `reading`, which it has not reached yet: an estimate in floating point, set right
 * by asking the clock; it is less than one off where a unit takes less than a second, and a unit off where not. */
static uint64_t seconds_to(const struct bucket_policy *p, uint64_t reading, uint64_t now)
{
    double units = (double)(reading - bucket_clock(p, now)), per_s = p->rate * (double)one_token(p);
    if (units >= per_s * (double)BUCKET_SECONDS_MAX)
        return BUCKET_SECONDS_MAX;
    uint64_t n = (uint64_t)(units / per_s) + 1;
    if (now >= SPAN_NS || n >= (SPAN_NS - now) / NS_PER_S)
        return n < BUCKET_SECONDS_MAX ? n : BUCKET_SECONDS_MAX;
    if (reached(p, reading, now, n - 1))
        return n - 1;
    return reached(p, reading, now, n) ? n : n + 1;
}

uint64_t bucket_seconds_to_token(const struct bucket_policy *p, uint64_t word, uint64_t now)
{
    uint64_t spare = burst_of(p) - one_token(p), clock = bucket_clock(p, now);
    return missing_at(word, clock) <= spare ? 0 : seconds_to(p, word - spare, now);
}

uint64_t bucket_seconds_to_full(const struct bucket_policy *p, uint64_t word, uint64_t now)
{
    return bucket_is_full(p, word, now) ? 0 : seconds_to(p, word, now);
}

uint64_t bucket_fill_seconds(const struct bucket_policy *p)
{
    /* 4.2 / 0.6 is 7 to a person and 7.000000000000001 to the machine. */
    double s = p->capacity / p->rate * (1 - 1e-15);
    if (s >= (double)BUCKET_SECONDS_MAX)
        return BUCKET_SECONDS_MAX;
    uint64_t whole = (uint64_t)s;
    return (double)whole < s ? whole + 1 : whole;
}
