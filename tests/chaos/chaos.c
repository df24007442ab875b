/* chaos [--short] [--ours] [--only NAME,...] [--skip NAME,...] [--table FILE] [--keep] [--verbose]
 *
 * Plays the scenarios against the load balancer and, unless --ours or --short, against HAProxy and nginx where they are
 * installed, and judges each against its promises. Exit status 0 when ours has kept all of them, 1 when not, 2 for bad
 * usage. --table writes the table; --keep keeps configs and logs of what was broken; --verbose
 * prints the promises that were kept, too.
 *
 *   director (this thread): scenario -> outages, signals, kills        judge <- records, ledger, log
 *                                |                                       |
 *   load (load.c) ==HTTP==> proxy ==HTTP==> demo-backend b1, b2, b3 -----+ */
#include "report.h"

#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const struct pace full_pace = {
    .interval_ms = 500, .timeout_ms = 250, .response_ms = 1000, .rate = 200, .warm = 400, .even = 300, .reloads = 20};
static const struct pace short_pace = {
    .interval_ms = 250, .timeout_ms = 200, .response_ms = 500, .rate = 200, .warm = 200, .even = 150, .reloads = 8};

struct options {
    bool brief, ours, keep, verbose;
    const char *only, *skip, *table;
};

/* Is `name` one of a list, separated by commas? */
static bool is_in(const char *list, const char *name)
{
    size_t n = strlen(name);

    for (const char *at = list; at && *at; at += strcspn(at, ","), at += *at == ',')
        if (strcspn(at, ",") == n && memcmp(at, name, n) == 0)
            return true;
    return false;
}

static bool names_exist(const char *list)
{
    for (const char *at = list; at && *at; at += strcspn(at, ","), at += *at == ',') {
        bool found = false;

        for (unsigned i = 0; i < scenario_count; i++)
            found |=
                strlen(scenarios[i].name) == strcspn(at, ",") && memcmp(at, scenarios[i].name, strcspn(at, ",")) == 0;
        if (!found) {
            fprintf(stderr, "chaos: no scenario %.*s\n", (int)strcspn(at, ","), at);
            return false;
        }
    }
    return true;
}

static bool is_wanted(const struct options *o, const struct scenario *c)
{
    if (is_in(o->skip, c->name))
        return false;
    return o->only ? is_in(o->only, c->name) : !o->brief || c->brief;
}

static bool parse_options(int argc, char *argv[], struct options *o)
{
    static const struct option known[] = {
        {"short", no_argument, NULL, 's'},       {"ours", no_argument, NULL, 'u'},
        {"keep", no_argument, NULL, 'k'},        {"verbose", no_argument, NULL, 'v'},
        {"only", required_argument, NULL, 'o'},  {"skip", required_argument, NULL, 'x'},
        {"table", required_argument, NULL, 't'}, {NULL, 0, NULL, 0},
    };

    for (int id; (id = getopt_long(argc, argv, "", known, NULL)) != -1;) {
        switch (id) {
        case 's': o->brief = o->ours = true; break;
        case 'u': o->ours = true; break;
        case 'k': o->keep = true; break;
        case 'v': o->verbose = true; break;
        case 'o': o->only = *optarg ? optarg : NULL; break;
        case 'x': o->skip = optarg; break;
        case 't': o->table = optarg; break;
        default: return false;
        }
    }
    return optind == argc && names_exist(o->only) && names_exist(o->skip);
}

/* One scenario with one proxy; false when a promise was broken. */
static bool play(struct bytes *table, const struct scenario *c, const struct proxy *p, const struct options *o,
                 const int *ports)
{
    static struct stage s;
    struct counts n;
    bool played = stage_open(&s, p, o->brief ? &short_pace : &full_pace, c->name, ports) && c->play(&s, c), kept;

    if (s.load)
        load_stop(s.load);
    if (played) {
        judge(&s, c, &n);
        kept = report_add(table, &s, &n, o->verbose);
    } else {
        report_failed(table, &s);
        kept = false;
    }
    stage_close(&s, !kept && o->keep);
    return kept;
}

/* All wanted scenarios; the number of those in which ours broke a promise. */
static unsigned play_all(struct bytes *table, const struct options *o)
{
    unsigned broken = 0;
    int ports[BACKENDS + 1];

    for (int i = 0; i <= BACKENDS; i++)
        ports[i] = port_reserve();
    for (unsigned k = 0; k < scenario_count; k++) {
        for (unsigned i = 0; i < proxy_count && is_wanted(o, &scenarios[k]); i++) {
            const struct proxy *p = &proxies[i];

            if (!proxy_is_ours(p) && (o->ours || access(p->program, X_OK) != 0))
                continue;
            if (!play(table, &scenarios[k], p, o, ports) && proxy_is_ours(p))
                broken++;
        }
    }
    return broken;
}

static void on_signal(int signo)
{
    process_kill_all();
    _exit(128 + signo);
}

int main(int argc, char *argv[])
{
    struct options o = {0};
    struct bytes table = {0};
    unsigned broken;

    if (!parse_options(argc, argv, &o)) {
        fprintf(stderr, "usage: chaos [--short] [--ours] [--only NAME,...] [--skip NAME,...] [--table FILE] [--keep] "
                        "[--verbose]\n");
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    signal(SIGINT, on_signal);
    signal(SIGTERM, on_signal);
    atexit(process_kill_all);
    report_head(&table);
    broken = play_all(&table, &o);
    if (o.table)
        file_put(o.table, table.p);
    printf("%s", broken == 0 ? "All promises were kept.\n" : "");
    if (broken > 0)
        printf("%u scenario%s with broken promises.\n", broken, broken == 1 ? "" : "s");
    bytes_free(&table);
    return broken > 0;
}
