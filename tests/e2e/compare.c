/* compare [NAME...]: runs the cases of the conformance suite (those whose names begin so) against any proxy: the one on
 * 127.0.0.1:COMPARE_PROXY_PORT, which must have 127.0.0.1:COMPARE_ORIGIN_PORT as its only backend. Prints a line for
 * each case: name, section, "pass" or "FAIL", what was seen; a FAIL says whether what was to be refused has reached the
 * origin. COMPARE_PATIENCE ms (700) is how long an answer may take; with COMPARE_WHY=1 what differed goes to stderr.
 * Exit status 0 when all cases were run. */
#include "conformance/judge.h"
#include "conformance/tables.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

/* Arguments are beginnings of names of cases; none means all. */
static bool is_wanted(const struct conformance *c, char *const names[])
{
    if (!names[1])
        return true;
    for (size_t i = 1; names[i]; i++)
        if (strncmp(c->name, names[i], strlen(names[i])) == 0)
            return true;
    return false;
}

static void compare_table(const struct conformance_table *t, char *const names[])
{
    for (size_t i = 0; i < t->count; i++)
        if (is_wanted(&t->cases[i], names))
            compare_case(&t->cases[i]);
}

int main(int argc, char *argv[])
{
    int origin = number_of("COMPARE_ORIGIN_PORT", 0), proxy = number_of("COMPARE_PROXY_PORT", 0);

    (void)argc;
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
        compare_table(conformance_tables[t], argv);
    stage_close(&stage);
    return 0;
}
