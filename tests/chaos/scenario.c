/* The table of scenarios, and those in which one backend has one fault. */
#include "scenario.h"

#include <string.h>

bool play_return(struct stage *s, int backend)
{
    uint64_t at = 0;

    AWAIT(s, LIMIT, (at = load_first_answer(s->load, backend, s->fault_end)) != 0);
    if (at != 0 && at - s->fault_end > s->back_us)
        s->back_us = at - s->fault_end;
    return at != 0;
}

void play_even(struct stage *s)
{
    s->even_from = now_us();
    AWAIT(s, LIMIT, load_ended_since(s->load, s->even_from) >= s->pace->even);
}

/* Who hangs cannot be told to stop: it does so by itself. Others are told. */
static bool ends_by_itself(const struct scenario *c)
{
    return strcmp(c->mode, "hang") == 0;
}

static bool fault_begin(struct stage *s, const struct scenario *c, int backend)
{
    unsigned ms = (unsigned)(fault_us(s) / MS);

    if (c->mode)
        return stage_outage(s, backend, c->mode, ends_by_itself(c) ? ms : 10 * ms, c->health_ok);
    process_kill(&s->backends[backend]);
    s->label[backend] = "killed";
    return true;
}

static bool fault_end(struct stage *s, const struct scenario *c, int backend)
{
    bool ok = true;

    if (!c->mode)
        ok = stage_start_backend(s, backend);
    else if (!ends_by_itself(c))
        ok = stage_outage(s, backend, "none", 1, false);
    s->label[backend] = "";
    return ok;
}

/* The first backend has the fault, or the first ones; the time of the first to be out is taken, and of the last to be
 * back. */
static bool fault(struct stage *s, const struct scenario *c)
{
    int hurt = c->hurt ? c->hurt : 1;
    uint64_t down;
    bool ok = true, back = true;

    s->fault_at = now_us();
    for (int i = 0; i < hurt; i++)
        ok = ok && fault_begin(s, c, i);
    AWAIT(s, fault_us(s), !ok);
    for (int i = 0; i < hurt; i++)
        ok = ok && fault_end(s, c, i);
    s->fault_end = now_us();
    if (hurt == BACKENDS) {
        s->excused_from = s->fault_at;
        s->excused_until = s->fault_end;
    }
    if ((down = watch_down_since(&s->watch, 0, s->fault_at)) != 0)
        s->down_us = down - s->fault_at;
    for (int i = 0; i < hurt; i++)
        back = back && ok && play_return(s, i);
    if (back)
        play_even(s);
    return ok;
}

#define EVEN_AFTER (PROMISE_DOWN | PROMISE_BACK | PROMISE_EVEN)

const struct scenario scenarios[] = {
    {.name = "dies",
     .what = "kill -9 of a backend, and its return",
     .play = fault,
     .brief = true,
     .promises = PROMISE_SAFE | EVEN_AFTER},
    {.name = "two-die",
     .what = "kill -9 of two backends at once, and their return",
     .play = fault,
     .hurt = 2,
     .promises = PROMISE_SAFE | EVEN_AFTER},
    {.name = "all-die",
     .what = "kill -9 of all backends at once, and their return",
     .play = play_all_die,
     .brief = true,
     .promises = PROMISE_SAFE | EVEN_AFTER},
    {.name = "hangs",
     .what = "a backend accepts, and never answers",
     .play = fault,
     .mode = "hang",
     .brief = true,
     .promises = PROMISE_SAFE | EVEN_AFTER},
    {.name = "two-hang",
     .what = "two backends at once do that",
     .play = fault,
     .mode = "hang",
     .hurt = 2,
     .promises = PROMISE_SAFE | EVEN_AFTER},
    {.name = "slow",
     .what = "a backend answers half a second later",
     .play = fault,
     .mode = "slow",
     .promises = PROMISE_ALL | PROMISE_EVEN},
    {.name = "flaps",
     .what = "a backend closes its port and resets all, six times, too short for its checks to agree",
     .play = play_flaps,
     .promises = PROMISE_SAFE | PROMISE_EVEN},
    {.name = "cut",
     .what = "a backend stops in the middle of its answers, by a reset or an orderly end",
     .play = fault,
     .mode = "cut",
     .brief = true,
     .promises = PROMISE_SAFE | PROMISE_CUT | PROMISE_DOWN | PROMISE_BACK_EJECTED | PROMISE_EVEN},
    {.name = "all-cut",
     .what = "all backends do that: not one answer of theirs can be whole",
     .play = fault,
     .mode = "cut",
     .hurt = BACKENDS,
     .brief = true,
     .promises = PROMISE_SAFE | PROMISE_CUT | PROMISE_BACK_EJECTED | PROMISE_EVEN},
    {.name = "reuse",
     .what = "a backend resets kept connections when the next request has arrived on them",
     .play = fault,
     .mode = "reuse",
     .brief = true,
     .promises = PROMISE_SAFE | PROMISE_EVEN},
    {.name = "wrong",
     .what = "a backend answers with malformed heads, to checks, too",
     .play = fault,
     .mode = "bad",
     .brief = true,
     .promises = PROMISE_SAFE | EVEN_AFTER},
    {.name = "lies-well",
     .what = "a backend's health says 200, and each request is taken and its connection reset",
     .play = fault,
     .mode = "drop",
     .health_ok = true,
     .brief = true,
     .promises = PROMISE_SAFE | PROMISE_DOWN | PROMISE_BACK_EJECTED | PROMISE_EVEN},
    {.name = "all-lie",
     .what = "all backends do that: each request that may be sent again is, each POST arrives once",
     .play = fault,
     .mode = "drop",
     .health_ok = true,
     .hurt = BACKENDS,
     .brief = true,
     .promises = PROMISE_SAFE | PROMISE_BACK_EJECTED | PROMISE_EVEN},
    {.name = "lies-ill",
     .what = "a backend's health fails, and its requests go well",
     .play = fault,
     .mode = "sick",
     .promises = PROMISE_ALL | EVEN_AFTER},
    {.name = "balancer-killed",
     .what = "kill -9 of the balancer itself, and its restart",
     .play = play_balancer_killed,
     .brief = true,
     .promises = PROMISE_SAFE | PROMISE_EVEN},
    {.name = "rolling",
     .what = "each backend in turn lets its health fail, waits to be left alone, ends and starts anew",
     .play = play_rolling,
     .brief = true,
     .promises = PROMISE_ALL | PROMISE_EVEN},
    {.name = "reload",
     .what = "SIGHUP under load, time and again, one backend leaving the config and returning to it",
     .play = play_reload,
     .brief = true,
     .promises = PROMISE_ALL | PROMISE_EVEN},
};
const unsigned scenario_count = sizeof scenarios / sizeof *scenarios;
