/* Runs the cases of the conformance suite against any proxy on this machine: the one on 127.0.0.1:COMPARE_PROXY_PORT,
 * which must have 127.0.0.1:COMPARE_ORIGIN_PORT as its only backend. Prints a line for each case: name, section,
 * "pass" or "FAIL", what was seen; a FAIL says whether what was to be refused has reached the origin. COMPARE_PATIENCE
 * ms (700) is how long an answer may take; with COMPARE_WHY=1 what differed goes to stderr. Exit status 0 when all
 * cases were run. */
#include "conformance/judge.h"
#include "conformance/tables.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

static struct stage stage;

static int number_of(const char *variable, int otherwise)
{
    const char *value = getenv(variable);

    return value ? (int)strtol(value, NULL, 10) : otherwise;
}

/* A proxy that has just been started may need a moment. */
static bool wait_for_proxy(void)
{
    uint64_t deadline = deadline_in(10000);

    while (!judge_is_alive(&stage)) {
        if (left_ms(deadline) == 0)
            return false;
        stage_reset(&stage);
        rest();
    }
    return true;
}

static const char *mark_of(const struct verdict *v)
{
    if (v->pass)
        return "pass";
    return v->let_through ? "FAIL (let through)" : v->refused_otherwise ? "FAIL (refused otherwise)" : "FAIL";
}

/* The case in all ways, until one fails. */
static void compare_case(const struct conformance *c)
{
    struct verdict v = {0};
    int split = 0;

    do {
        verdict_free(&v);
        v = judge_case(&stage, c, (enum split)split);
    } while (v.pass && ++split < SPLITS);
    printf("%s\t%s\t%s\t%s%s%s\n", c->name, c->section, mark_of(&v), v.seen.p, v.pass || split == 0 ? "" : ", ",
           v.pass || split == 0 ? "" : split_names[split]);
    if (!v.pass && getenv("COMPARE_WHY"))
        fprintf(stderr, "%s (%s), %s: %s\n", c->name, c->section, split_names[split], v.why.p);
    verdict_free(&v);
}

int main(void)
{
    int origin = number_of("COMPARE_ORIGIN_PORT", 0), proxy = number_of("COMPARE_PROXY_PORT", 0);

    signal(SIGPIPE, SIG_IGN);
    if (!stage_open(&stage, origin, proxy, number_of("COMPARE_PATIENCE", 700))) {
        perror("compare: listening");
        return 1;
    }
    if (!wait_for_proxy()) {
        fprintf(stderr, "compare: no proxy on port %d that forwards to port %d\n", proxy, origin);
        return 1;
    }
    for (size_t t = 0; conformance_tables[t]; t++)
        for (size_t i = 0; i < conformance_tables[t]->count; i++)
            compare_case(&conformance_tables[t]->cases[i]);
#ifdef PENDING
    for (size_t i = 0; i < pending_table.count; i++)
        compare_case(&pending_table.cases[i]);
#endif
    stage_close(&stage);
    return 0;
}
