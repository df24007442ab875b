/* Token buckets in integer arithmetic (the generic cell rate algorithm, ITU-T I.371). `now` is a parameter everywhere:
 * nanoseconds since a zero of the user's choice, the same for all buckets that are compared or converted.
 *
 * A policy has a clock of its own, which counts the tokens that its rate has made since time zero, in units of
 * 2^-frac tokens: clock(now) = floor(now x rate x 2^frac / 10^9). A bucket is one word: the reading of that clock at
 * which it will be full. It is full when the clock is past the word, and holds `capacity` less the distance otherwise;
 * a request adds one token, 2^frac units, to the word. Rounding happens in the clock only, which is a function of the
 * time and not of what was decided before, so no error adds up, however many requests there are.
 *
 * The slope of the clock is rounded up by at most 2^-52 of itself (not at all where the rate is a round binary number)
 * and 2^-63 units a nanosecond, which make less than half a unit in 100 years, and its reading down; the capacity
 * counts in whole units, rounded down. Hence a request that comes when the exact bucket of so many units would hold a
 * token is never refused, and what passes in an interval T is at most capacity + rate x T x (1 + 2^-52), and less than
 * two units. A unit is less than 3 ns of the rate, or at most 2^-60 of a capacity that the rate takes longer to make
 * than that. */
#ifndef LB_LIMIT_BUCKET_H
#define LB_LIMIT_BUCKET_H

#include <stdbool.h>
#include <stdint.h>

/* Settings of clients: capacity 1 to BUCKET_SETTING_MAX, rate above 0 up to it. */
#define BUCKET_SETTING_MAX 1e9

/* Seconds shown to clients are capped at this (an Integer of RFC 9651 has 15 digits). */
#define BUCKET_SECONDS_MAX UINT64_C(999999999999999)

/* A reading's steps for each nanosecond are counted in 2^-63 units: they are at most 1.45, see bucket_policy_init(). */
#define BUCKET_SLOPE_BITS 63

struct bucket_policy {
    double capacity, rate; /* tokens, tokens a second: as the user gave them */
    uint64_t mult;         /* the clock is (now x mult) >> BUCKET_SLOPE_BITS */
    uint64_t frac : 8;     /* bits of a token's fraction: as many as 100 years leave room for */
    uint64_t rest : 56;    /* of whoever keeps the policy, for there would be a hole here; bucket.c leaves it alone */
};

bool bucket_capacity_is_valid(double capacity);
bool bucket_rate_is_valid(double rate);

/* Makes the policy of valid settings. */
void bucket_policy_init(struct bucket_policy *p, double capacity, double rate);

/* The policy's clock at `now`; stands still after about 100 years. */
uint64_t bucket_clock(const struct bucket_policy *p, uint64_t now);

static inline bool bucket_is_full(const struct bucket_policy *p, uint64_t word, uint64_t now)
{
    return word <= bucket_clock(p, now);
}

/* Takes one token; false, and nothing taken, when less than one is there. A word of 0 is a full bucket. */
bool bucket_take(const struct bucket_policy *p, uint64_t *word, uint64_t now) __attribute__((warn_unused_result));

/* Tokens at `now`, at most the capacity. Negative when the word was last charged later than `now`. */
double bucket_tokens(const struct bucket_policy *p, uint64_t word, uint64_t now);

/* Whole tokens at `now`. */
uint64_t bucket_whole_tokens(const struct bucket_policy *p, uint64_t word, uint64_t now);

/* The word of a bucket that holds `tokens` (finite, may be negative; over the capacity: full), rounded to less. */
uint64_t bucket_word(const struct bucket_policy *p, double tokens, uint64_t now);

/* The word after `ns` more nanoseconds have passed than the clock has seen (time the process was not running). */
uint64_t bucket_refilled(const struct bucket_policy *p, uint64_t word, uint64_t now, uint64_t ns);

/* The word on another time line, on which it is `now` when on the word's own it is `then`: the same tokens, rounded to
 * less. */
uint64_t bucket_carried(const struct bucket_policy *p, uint64_t word, uint64_t then, uint64_t now);

/* The word that bucket_take() can have left by `now`, or an emptier one within a token, for what rounding has added: a
 * word that is higher is damaged, and comes out as that of an empty bucket. */
uint64_t bucket_credible(const struct bucket_policy *p, uint64_t word, uint64_t now);

/* The word under policy `to` of a bucket of policy `from`: tokens kept, capped to the new capacity, rounded to less. */
uint64_t bucket_converted(const struct bucket_policy *from, const struct bucket_policy *to, uint64_t word,
                          uint64_t now);

/* Whole seconds, rounded up and capped, until a token is there (0 when one is), until the bucket is full, and that an
 * empty one takes to fill. */
uint64_t bucket_seconds_to_token(const struct bucket_policy *p, uint64_t word, uint64_t now);
uint64_t bucket_seconds_to_full(const struct bucket_policy *p, uint64_t word, uint64_t now);
uint64_t bucket_fill_seconds(const struct bucket_policy *p);

#endif
