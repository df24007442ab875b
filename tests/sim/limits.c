/* Which limits of unregistered clients may have been in force, and when: reloads change them. What was written is in
 * force at some moment from then on; what was before it no more once the log has told of as many reloads as were asked
 * for, so that none is under way. Whatever is not sure counts as in force, too: the judge errs on the daemon's side. */
#include "world.h"

#include <string.h>

#define TERMS_MAX 32u

struct term {
    double capacity, rate;
    uint64_t from, to;
};

static struct {
    struct term all[TERMS_MAX];
    unsigned count, last;         /* last: written */
    bool written;                 /* since it was last sure what is in force; */
    unsigned asked, done, failed; /* reloads of the present process; `failed` since then */
} seen;

/* What begins is not begun twice. */
static void begin_term(double capacity, double rate)
{
    for (unsigned i = 0; i < seen.count; i++)
        if (seen.all[i].to == UINT64_MAX && seen.all[i].capacity == capacity && seen.all[i].rate == rate) {
            seen.last = i;
            return;
        }
    if (seen.count == TERMS_MAX)
        sim_fail("simulation", "too many changes of the limits");
    seen.last = seen.count++;
    seen.all[seen.last] = (struct term){capacity, rate, sim_now(), UINT64_MAX};
}

static void end_all_but_the_last(void)
{
    for (unsigned i = 0; i < seen.count; i++)
        if (i != seen.last && seen.all[i].to == UINT64_MAX)
            seen.all[i].to = sim_now();
}

static void be_sure(void)
{
    seen.written = false;
    seen.failed = 0;
}

void limits_begin(void)
{
    memset(&seen, 0, sizeof seen);
}

void limits_started(void)
{
    begin_term(world.set.capacity, world.set.rate);
    end_all_but_the_last();
    seen.asked = seen.done = 0;
    be_sure();
}

void limits_written(double capacity, double rate)
{
    begin_term(capacity, rate);
    seen.written = true;
}

void limits_asked(void)
{
    seen.asked++;
}

void limits_reloaded(bool ok)
{
    seen.done++;
    seen.failed += !ok;
    if (seen.done != seen.asked)
        return;
    if (seen.written && seen.failed == 0)
        end_all_but_the_last();
    if (!seen.written || seen.failed == 0) /* a file that holds no limits changes none */
        be_sure();
}

double limits_least_capacity(void)
{
    double least = world.set.capacity;
    for (unsigned i = 0; i < seen.count; i++)
        least = seen.all[i].capacity < least ? seen.all[i].capacity : least;
    return least;
}

double limits_least_rate(void)
{
    double least = world.set.rate;
    for (unsigned i = 0; i < seen.count; i++)
        least = seen.all[i].rate < least ? seen.all[i].rate : least;
    return least;
}

double limits_capacity(uint64_t from, uint64_t to, bool or_first)
{
    double most = or_first ? world.set.capacity : 0;
    for (unsigned i = 0; i < seen.count; i++)
        if (seen.all[i].from <= to && seen.all[i].to >= from && seen.all[i].capacity > most)
            most = seen.all[i].capacity;
    return most;
}

/* The greatest rate at `at`; *until is how long that stays so, if it is before. */
static double rate_at(uint64_t at, bool or_first, uint64_t *until)
{
    double most = or_first ? world.set.rate : 0;
    for (unsigned i = 0; i < seen.count; i++) {
        const struct term *t = &seen.all[i];
        bool now = t->from <= at && at < t->to;
        uint64_t next = now ? t->to : t->from;
        if (now && t->rate > most)
            most = t->rate;
        if (next > at && next < *until)
            *until = next;
    }
    return most;
}

double limits_made(uint64_t until, bool or_first)
{
    double made = 0;
    for (uint64_t at = 0, next; at < until; at = next) {
        next = until;
        double rate = rate_at(at, or_first, &next);
        made += rate * (double)(next - at) / 1e9;
    }
    return made;
}
