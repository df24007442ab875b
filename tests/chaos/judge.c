/* The judge. */
#include "judge.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- counting ---- */

/* Was it under way while failing is excused? */
static bool is_excused(const struct stage *s, const struct record *r)
{
    return s->excused_from != 0 && r->begun <= s->excused_until && r->ended >= s->excused_from;
}

static void count_failure(struct counts *n, const struct stage *s, const struct record *r)
{
    bool post = !call_is_idempotent(r->kind), excused = is_excused(s, r);

    if (excused)
        n->excused[post]++;
    else
        n->failed[post]++;
    if (!post && !excused && r->outcome == CALL_CUT)
        n->cut_safe++;
    if (!excused && r->outcome == CALL_503)
        n->unasked_503++;
}

static void count_record(struct counts *n, const struct stage *s, const struct record *r)
{
    n->requests++;
    n->outcomes[r->outcome]++;
    if (r->outcome == CALL_OK && r->ended - r->begun > n->worst_wait)
        n->worst_wait = r->ended - r->begun;
    if (r->outcome != CALL_OK)
        count_failure(n, s, r);
    else if (r->kind == CALL_POST)
        n->posts++;
    if (r->outcome == CALL_OK && s->even_from != 0 && r->begun >= s->even_from && r->backend >= 0 &&
        r->backend < BACKENDS) {
        n->shares[r->backend]++;
        n->shared++;
    }
}

static int by_time(const void *a, const void *b)
{
    const uint64_t *x = a, *y = b;

    return *x < *y ? -1 : *x > *y;
}

static uint64_t worst_gap(const struct record *records, size_t count)
{
    uint64_t *times = malloc((count + 1) * sizeof *times), worst = 0;
    size_t n = 0;

    if (!times)
        abort();
    for (size_t i = 0; i < count; i++)
        if (records[i].outcome == CALL_OK)
            times[n++] = records[i].ended;
    qsort(times, n, sizeof *times, by_time);
    for (size_t i = 1; i < n; i++)
        if (times[i] - times[i - 1] > worst)
            worst = times[i] - times[i - 1];
    free(times);
    return worst;
}

/* A line for each POST that has arrived anywhere: "chaos-SERIAL". */
static void read_ledger(struct counts *n, const struct stage *s)
{
    char path[300];
    struct bytes text;
    bool *seen = calloc(n->requests + 1, sizeof *seen);

    snprintf(path, sizeof path, "%s/ledger", s->dir);
    text = file_content(path);
    if (!seen)
        abort();
    for (const char *at = text.p; (at = strstr(at, "chaos-")); at++) {
        unsigned long serial = strtoul(at + strlen("chaos-"), NULL, 10);

        if (serial >= n->requests)
            continue;
        if (seen[serial])
            n->twice++;
        else
            n->delivered++;
        seen[serial] = true;
    }
    free(seen);
    bytes_free(&text);
}

static void count(struct counts *n, const struct stage *s)
{
    size_t count;
    const struct record *records = load_lock(s->load, &count);

    *n = (struct counts){0};
    for (size_t i = 0; i < count; i++)
        count_record(n, s, &records[i]);
    n->worst_gap = worst_gap(records, count);
    load_unlock(s->load);
    read_ledger(n, s);
}

/* ---- judging ---- */

/* "502 2, late 1": how requests ended that did not go well, excused ones included. */
static void list_failures(char *out, size_t size, const struct counts *n)
{
    size_t at = 0;

    snprintf(out, size, "all went well");
    for (int o = CALL_OK + 1; o < CALL_OUTCOMES && at + 1 < size; o++)
        if (n->outcomes[o] > 0)
            at += (size_t)snprintf(out + at, size - at, "%s%s %u", at ? ", " : "", outcome_name((enum outcome)o),
                                   n->outcomes[o]);
}

static void judge_failures(struct stage *s, const struct scenario *c, const struct counts *n)
{
    char list[100];
    unsigned safe = n->failed[0] - (c->promises & PROMISE_CUT ? n->cut_safe : 0);

    list_failures(list, sizeof list, n);
    if (c->promises & PROMISE_SAFE)
        stage_promise(s, "no idempotent request fails", safe == 0, "%u failed (in all: %s)", safe, list);
    if (c->promises & PROMISE_ALL)
        stage_promise(s, "no request fails", n->failed[0] + n->failed[1] == 0, "%u failed (in all: %s)",
                      n->failed[0] + n->failed[1], list);
    if (c->promises & PROMISE_CUT)
        stage_promise(s, "what is cut is seen as cut", n->outcomes[CALL_CUT] > 0 && n->outcomes[CALL_WRONG] == 0,
                      "%u seen as cut, %u passed off as whole", n->outcomes[CALL_CUT], n->outcomes[CALL_WRONG]);
}

static void judge_time(struct stage *s, const char *name, uint64_t us, uint64_t bound)
{
    uint64_t slack = stage_slack(s);

    if (us == 0)
        stage_promise(s, name, false, "never seen");
    else
        stage_promise(s, name, us <= bound + slack, "%.2f s, promised %.2f s (measuring slack %.3f s)", (double)us / S,
                      (double)bound / S, (double)slack / S);
}

static void judge_times(struct stage *s, const struct scenario *c)
{
    if (c->promises & PROMISE_DOWN)
        judge_time(s, "out in time", s->down_us, stage_fall_bound(s));
    if (c->promises & PROMISE_BACK)
        judge_time(s, "back in time", s->back_us, stage_rise_bound(s));
    if (c->promises & PROMISE_BACK_EJECTED)
        judge_time(s, "back in time", s->back_us, EJECTION_MOST * s->pace->interval_ms * (uint64_t)MS);
}

/* Who hangs costs a request its time-out, each once. */
static void judge_wait(struct stage *s, const struct scenario *c, const struct counts *n)
{
    unsigned answers = c->hurt == 2 ? 3 : 2;

    judge_time(s, "answered in time", n->worst_wait, (uint64_t)answers * s->pace->response_ms * MS);
}

static void judge_shares(struct stage *s, const struct counts *n)
{
    double worst = n->shared == 0 ? 100 : 0, fair = 100.0 / BACKENDS;

    for (int i = 0; n->shared > 0 && i < BACKENDS; i++)
        worst = fmax(worst, fabs(100.0 * n->shares[i] / n->shared - fair));
    stage_promise(s, "even after it", worst <= EVEN_TOLERANCE,
                  "%u, %u, %u of %u: %.1f points off at worst, promised %.1f", n->shares[0], n->shares[1], n->shares[2],
                  n->shared, worst, EVEN_TOLERANCE);
}

static void judge_everybody(struct stage *s, const struct counts *n)
{
    bool lives = process_is_running(&s->balancer);

    stage_promise(s, "no POST twice", n->twice == 0 && n->delivered >= n->posts,
                  "%u delivered (%u were answered), %u of them again", n->delivered, n->posts, n->twice);
    stage_promise(s, "503 only while none is eligible", n->unasked_503 == 0, "%u", n->unasked_503);
    stage_promise(s, "whole and right", n->outcomes[CALL_WRONG] == 0, "%u were not", n->outcomes[CALL_WRONG]);
    stage_promise(s, "the balancer lives", lives, "%s", lives ? "it runs" : "it has ended");
}

void judge(struct stage *s, const struct scenario *c, struct counts *n)
{
    count(n, s);
    judge_failures(s, c, n);
    judge_times(s, c);
    judge_wait(s, c, n);
    if (c->promises & PROMISE_EVEN)
        judge_shares(s, n);
    judge_everybody(s, n);
}
