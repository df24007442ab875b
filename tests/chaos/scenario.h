/* The scenarios: what is done to a stage, and what is promised about it. */
#ifndef CHAOS_SCENARIO_H
#define CHAOS_SCENARIO_H

#include "stage.h"

/* What a scenario promises beside what all do (see judge.h). */
enum {
    PROMISE_SAFE = 1,          /* no idempotent request fails, but those whose answer was cut */
    PROMISE_ALL = 2,           /* no request fails */
    PROMISE_CUT = 4,           /* there are cut answers, and they can be seen to be */
    PROMISE_DOWN = 8,          /* the backend is out within fall x interval + timeout */
    PROMISE_BACK = 16,         /* it is back within rise x interval */
    PROMISE_BACK_EJECTED = 32, /* its checks pass throughout: it is back within max_ejection */
    PROMISE_EVEN = 64          /* then all have equal shares */
};

struct scenario {
    const char *name, *what;
    /* Plays it. False when it could not be played. */
    bool (*play)(struct stage *s, const struct scenario *c);
    const char *mode; /* the outage of fault(); NULL: kill -9 */
    bool health_ok;
    int hurt;   /* how many backends have it; 0: one. Where all do, requests may fail meanwhile */
    bool brief; /* in the short form, too */
    unsigned promises;
};

extern const struct scenario scenarios[];
extern const unsigned scenario_count;

/* From scenario_plays.c: those that are more than one fault of one backend. */
bool play_all_die(struct stage *s, const struct scenario *c);
bool play_flaps(struct stage *s, const struct scenario *c);
bool play_balancer_killed(struct stage *s, const struct scenario *c);
bool play_rolling(struct stage *s, const struct scenario *c);
/* From scenario_reload.c. */
bool play_reload(struct stage *s, const struct scenario *c);

/* Waits until the backend answers again, and writes down how long that took since `fault_end`. */
bool play_return(struct stage *s, int backend);
/* Lets the requests go by over which shares are counted. */
void play_even(struct stage *s);

/* A fault lasts that many intervals: longer than the checks take to find it and than two ejections. */
#define FAULT_INTERVALS 8
static inline uint64_t fault_us(const struct stage *s)
{
    return (uint64_t)FAULT_INTERVALS * s->pace->interval_ms * MS;
}

#define LIMIT (20 * S) /* for what ought to happen soon */

#endif
