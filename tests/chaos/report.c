/* The table. */
#include "report.h"

#include "picture.h"

#include <stdio.h>

void report_head(struct bytes *table)
{
    bytes_addf(table, "| scenario | proxy | requests | failed, idempotent | failed, POST | cut | 503 | worst gap, ms | "
                      "load late, ms | out "
                      "after, s | back after, s | POST twice | shares after, %% | promises |\n"
                      "|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|---|---|\n");
}

/* "12", or "0 (+40)" where 40 more failed while that was excused. */
static void add_failed(struct bytes *t, const struct counts *n, int post)
{
    bytes_addf(t, " %u", n->failed[post]);
    if (n->excused[post] > 0)
        bytes_addf(t, " (+%u)", n->excused[post]);
    bytes_addf(t, " |");
}

static void add_time(struct bytes *t, uint64_t us)
{
    if (us == 0)
        bytes_addf(t, " – |");
    else
        bytes_addf(t, " %.2f |", (double)us / S);
}

static void add_shares(struct bytes *t, const struct counts *n)
{
    if (n->shared == 0) {
        bytes_addf(t, " – |");
        return;
    }
    for (int i = 0; i < BACKENDS; i++)
        bytes_addf(t, "%s%.1f", i == 0 ? " " : " / ", 100.0 * n->shares[i] / n->shared);
    bytes_addf(t, " |");
}

static unsigned add_promises(struct bytes *t, const struct stage *s)
{
    unsigned broken = 0;

    for (unsigned i = 0; i < s->promise_count; i++)
        if (!s->promises[i].kept)
            bytes_addf(t, "%s%s", broken++ == 0 ? " **broken:** " : "; ", s->promises[i].name);
    bytes_addf(t, broken == 0 ? " kept |\n" : " |\n");
    return broken;
}

static unsigned add_row(struct bytes *t, const struct stage *s, const struct counts *n)
{
    bytes_addf(t, "| %s | %s | %u |", s->scenario, s->proxy->name, n->requests);
    add_failed(t, n, 0);
    add_failed(t, n, 1);
    bytes_addf(t, " %u | %u | %.0f | %.0f |", n->outcomes[CALL_CUT], n->outcomes[CALL_503], (double)n->worst_gap / MS,
               (double)load_lateness(s->load) / MS);
    add_time(t, s->down_us);
    add_time(t, s->back_us);
    bytes_addf(t, " %u |", n->twice);
    add_shares(t, n);
    return add_promises(t, s);
}

static void print_promises(const struct stage *s, bool all)
{
    for (unsigned i = 0; i < s->promise_count; i++)
        if (all || !s->promises[i].kept)
            printf("    %-7s %s: %s\n", s->promises[i].kept ? "kept" : "BROKEN", s->promises[i].name,
                   s->promises[i].found);
}

static void print_time(const char *what, uint64_t us)
{
    if (us != 0)
        printf(", %s %.2f s", what, (double)us / S);
}

static void print_line(const struct stage *s, const struct counts *n, bool kept)
{
    printf("%-16s %-13s %-7s %u requests, failed %u and %u POST", s->scenario, s->proxy->name, kept ? "kept" : "BROKEN",
           n->requests, n->failed[0], n->failed[1]);
    if (n->excused[0] + n->excused[1] > 0)
        printf(" (and %u excused)", n->excused[0] + n->excused[1]);
    printf(", worst gap %.0f ms (load late %.0f ms)", (double)n->worst_gap / MS, (double)load_lateness(s->load) / MS);
    print_time("out after", s->down_us);
    print_time("back after", s->back_us);
    printf("\n");
}

bool report_add(struct bytes *table, const struct stage *s, const struct counts *n, bool verbose)
{
    bool kept = add_row(table, s, n) == 0;

    picture_clear();
    print_line(s, n, kept);
    print_promises(s, verbose);
    fflush(stdout);
    return kept;
}

void report_failed(struct bytes *table, const struct stage *s)
{
    picture_clear();
    printf("%-16s %-13s could not be played\n", s->scenario, s->proxy->name);
    fflush(stdout);
    bytes_addf(table, "| %s | %s | | | | | | | | | | | | could not be played |\n", s->scenario, s->proxy->name);
}
