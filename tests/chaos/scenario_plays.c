/* The scenarios that are more than one fault of one backend. */
#include "scenario.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- all die ---- */

static bool all_are_down(const struct stage *s)
{
    bool all = true;

    for (int i = 0; i < BACKENDS; i++)
        all &= s->watch.is_down[i];
    return all;
}

static void kill_all(struct stage *s)
{
    s->fault_at = s->excused_from = now_us();
    for (int i = 0; i < BACKENDS; i++) {
        process_kill(&s->backends[i]);
        s->label[i] = "killed";
    }
    AWAIT(s, fault_us(s), all_are_down(s));
    if (all_are_down(s))
        s->down_us = now_us() - s->fault_at;
    AWAIT(s, s->fault_at + fault_us(s) - now_us(), false);
}

bool play_all_die(struct stage *s, const struct scenario *c)
{
    uint64_t first = 0;
    bool all = true;

    (void)c;
    kill_all(s);
    for (int i = 0; i < BACKENDS; i++)
        if (!stage_start_backend(s, i))
            return false;
    s->fault_end = now_us();
    /* The first one may be found before the last has been started. */
    AWAIT(s, LIMIT, (first = load_first_answer(s->load, -1, s->fault_at + fault_us(s) / 2)) != 0);
    s->excused_until = first != 0 ? first : now_us();
    for (int i = 0; i < BACKENDS; i++)
        all &= play_return(s, i);
    if (all)
        play_even(s);
    return true;
}

/* ---- flaps ---- */

#define FLAPS 6

bool play_flaps(struct stage *s, const struct scenario *c)
{
    unsigned down_ms = s->pace->interval_ms * 4 / 5;

    (void)c;
    s->fault_at = now_us();
    for (int i = 0; i < FLAPS; i++) {
        if (!stage_outage(s, 0, "refuse", down_ms, false))
            return false;
        AWAIT(s, down_ms * (uint64_t)MS, false);
        s->label[0] = "";
        AWAIT(s, s->pace->interval_ms * (uint64_t)MS, false);
    }
    s->fault_end = now_us();
    if (play_return(s, 0))
        play_even(s);
    return true;
}

/* ---- the balancer itself ---- */

#define LIMITS_CAPACITY 50
#define LIMITS_SPENT    20
#define LIMITS_CLIENT   "X-Client-ID: chaos\r\n"

/* The client's tokens, or -1. */
static double tokens_of(const struct stage *s)
{
    struct bytes body = {0};
    const char *at;
    double tokens = -1;

    if (stage_ask(s, "GET", "/clients/get?id=chaos", "", "", &body) == 200 && (at = strstr(body.p, "\"tokens\":")))
        tokens = strtod(at + strlen("\"tokens\":"), NULL);
    bytes_free(&body);
    return tokens;
}

/* Registers a client and lets it spend some of its tokens; it gains one in a thousand seconds. */
static bool limits_begin(const struct stage *s)
{
    bool ok = stage_ask(s, "POST", "/clients/register", "",
                        "{\"client_id\":\"chaos\",\"capacity\":50,\"rate_per_sec\":0.001}", NULL) == 201;

    for (int i = 0; i < LIMITS_SPENT; i++)
        ok &= stage_ask(s, "GET", "/", LIMITS_CLIENT, "", NULL) == 200;
    return ok;
}

/* After the restart the rest is there, and not one token more. */
static void limits_judge(struct stage *s, double before)
{
    double after = tokens_of(s);
    int passed = 0;

    while (passed <= LIMITS_CAPACITY && stage_ask(s, "GET", "/", LIMITS_CLIENT, "", NULL) == 200)
        passed++;
    stage_promise(s, "limits survive",
                  before >= 0 && after >= before && after < before + 0.5 && passed == LIMITS_CAPACITY - LIMITS_SPENT,
                  "%.3f tokens before, %.3f after, of which %d could be spent", before, after, passed);
}

bool play_balancer_killed(struct stage *s, const struct scenario *c)
{
    bool ours = proxy_is_ours(s->proxy), ready = false;
    double tokens = -1;

    (void)c;
    if (ours && limits_begin(s))
        tokens = tokens_of(s);
    s->fault_at = s->excused_from = now_us();
    process_kill(&s->balancer);
    if (!stage_start_balancer(s))
        return false;
    s->fault_end = s->fault_at;
    AWAIT(s, LIMIT, (ready = stage_ask(s, "GET", "/", "", "", NULL) == 200));
    s->excused_until = now_us();
    if (ours)
        limits_judge(s, tokens);
    if (play_return(s, -1))
        play_even(s);
    return ready;
}

/* ---- rolling restart ---- */

/* A backend that wants to go lets its health fail; who has checks leaves it alone then. */
static void leave(struct stage *s, int i)
{
    uint64_t begun = now_us(), quiet = 300 * MS;

    if (!stage_outage(s, i, "sick", 60000, false))
        return;
    AWAIT(s, stage_fall_bound(s) + stage_slack(s), watch_down_since(&s->watch, i, begun) != 0);
    AWAIT(s, 2 * S, now_us() > load_last_answer(s->load, i) + quiet);
}

static bool restart(struct stage *s, int i)
{
    leave(s, i);
    s->label[i] = "restarts";
    if (!process_stop(&s->backends[i], 5000) || !stage_start_backend(s, i))
        return false;
    s->fault_end = now_us();
    return play_return(s, i);
}

bool play_rolling(struct stage *s, const struct scenario *c)
{
    (void)c;
    s->fault_at = now_us();
    for (int i = 0; i < BACKENDS; i++)
        if (!restart(s, i))
            return false;
    play_even(s);
    return true;
}
