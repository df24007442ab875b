/* sim: runs seeds, in parallel or one alone with its history; and makes a failing one small. Each worker is a process
 * of its own, so that a crash costs one seed and is a finding like any other. */
#include "world.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define WORKERS_MAX  64
#define SEED_SECONDS 120u /* of real time that a seed may take, for loops without a call; see also engine.c */

static const char usage[] =
    "usage: sim [--seed N [--trace] [--shrink] [--without PART,...]] [--seeds A-B] [--jobs J] [--first] "
    "[--all-faults]\n"
    "\n"
    "  --seeds A-B      run these seeds (default 1-2000)\n"
    "  --jobs J         so many at once (default: as many as there are processors)\n"
    "  --first          stop at the first finding\n"
    "  --all-faults     fail when a kind of fault has never happened, or nothing was ever sent again\n"
    "  --twice K        run each K-th seed twice and compare the histories (default 16; 0: none)\n"
    "  --seed N         run this one\n"
    "  --trace          ... and print its history on stderr\n"
    "  --shrink         ... and drop clients, backends and faults one by one while the finding stays\n"
    "  --without LIST   ... without these parts\n";

/* Shared between the processes. */
struct shared {
    uint64_t next, last, every;
    uint64_t runs, sim_ns, findings;
    uint64_t stop_at; /* seeds beyond it need not be run any more */
    uint64_t history; /* the sum of all histories, which does not depend on their order */
    struct tally tally;
    uint64_t kinds[FAULT_KINDS];
    struct {
        uint64_t seed;
        bool has_text;
        char invariant[32], text[2048];
    } worker[WORKERS_MAX];
};
static struct shared *shared;
static int worker_index;

static void on_fail(const char *invariant, const char *text)
{
    snprintf(shared->worker[worker_index].invariant, sizeof shared->worker[0].invariant, "%s", invariant);
    snprintf(shared->worker[worker_index].text, sizeof shared->worker[0].text, "%s", text);
    shared->worker[worker_index].has_text = true;
    fflush(NULL);
    _exit(1);
}

static void add_up(void)
{
    uint64_t *to = (uint64_t *)(void *)&shared->tally;
    const uint64_t *from = (const uint64_t *)(const void *)&tally;
    for (size_t i = 0; i < sizeof tally / sizeof *from; i++)
        __atomic_add_fetch(&to[i], from[i], __ATOMIC_RELAXED);
    tally = (struct tally){0};
    for (unsigned i = 0; i < FAULT_KINDS; i++)
        __atomic_add_fetch(&shared->kinds[i], kernel.kinds[i], __ATOMIC_RELAXED);
}

static void run_once(uint64_t seed)
{
    alarm(SEED_SECONDS);
    world_run(seed);
    alarm(0);
}

static void run_seed(uint64_t seed, bool twice)
{
    run_once(seed);
    if (twice) {
        uint64_t hash = trace_hash();
        run_once(seed);
        if (trace_hash() != hash)
            sim_fail("determinism", "two runs have different histories: %016" PRIx64 " and %016" PRIx64, hash,
                     trace_hash());
    }
    __atomic_add_fetch(&shared->history, trace_hash(), __ATOMIC_RELAXED);
    add_up();
}

static void work(void)
{
    for (;;) {
        uint64_t seed = __atomic_fetch_add(&shared->next, 1, __ATOMIC_RELAXED);
        if (seed > shared->last || seed > __atomic_load_n(&shared->stop_at, __ATOMIC_RELAXED))
            _exit(0);
        shared->worker[worker_index].seed = seed;
        run_seed(seed, shared->every && seed % shared->every == 0);
        __atomic_add_fetch(&shared->runs, 1, __ATOMIC_RELAXED);
    }
}

static pid_t start_worker(int i)
{
    shared->worker[i].has_text = false;
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        worker_index = i;
        work();
    }
    if (pid < 0) {
        perror("fork");
        exit(2);
    }
    return pid;
}

struct finding {
    uint64_t seed;
    char text[2200];
};

/* What worker `i` has found, which has ended with `status`. */
static struct finding finding_of(int i, int status)
{
    struct finding f = {.seed = shared->worker[i].seed};
    int signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
    if (shared->worker[i].has_text)
        snprintf(f.text, sizeof f.text, "%s: %s", shared->worker[i].invariant, shared->worker[i].text);
    else if (signal == SIGALRM)
        snprintf(f.text, sizeof f.text, "hang: it has not ended after %u s", SEED_SECONDS);
    else
        snprintf(f.text, sizeof f.text, "crash: %s %d", signal ? "signal" : "exit status",
                 signal ? signal : WEXITSTATUS(status));
    return f;
}

static void report(const struct finding *f)
{
    shared->findings++;
    printf("seed %" PRIu64 ": %s\n", f->seed, f->text);
    fflush(stdout);
}

static double seconds(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

/* With `first` only the lowest seed is reported that has found something: seeds are begun in their order, and those
 * that were under way are brought to their end. */
static void run_all(int jobs, bool first)
{
    pid_t pids[WORKERS_MAX] = {0};
    struct finding lowest = {.seed = UINT64_MAX};
    int running = 0;
    shared->stop_at = UINT64_MAX;
    for (int i = 0; i < jobs; i++, running++)
        pids[i] = start_worker(i);
    while (running > 0) {
        int status = 0;
        pid_t pid = wait(&status);
        int i = 0;
        while (i < jobs && pids[i] != pid)
            i++;
        running--;
        if (i == jobs || (WIFEXITED(status) && WEXITSTATUS(status) == 0))
            continue;
        struct finding f = finding_of(i, status);
        shared->runs++;
        if (f.seed < lowest.seed)
            lowest = f;
        if (first) {
            shared->stop_at = lowest.seed;
            continue;
        }
        report(&f);
        pids[i] = start_worker(i);
        running++;
    }
    if (first && lowest.seed < UINT64_MAX)
        report(&lowest);
}

/* ---- one seed ---- */

/* Runs it in a process of its own; true when the finding is of kind `invariant` (NULL: any). */
static bool still_fails(uint64_t seed, const char *list, const char *invariant)
{
    shared->worker[0].has_text = false;
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        world_without(list);
        run_once(seed);
        _exit(0);
    }
    int status = 0;
    waitpid(pid, &status, 0);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return false;
    if (!shared->worker[0].has_text)
        snprintf(shared->worker[0].invariant, sizeof shared->worker[0].invariant, "crash");
    return !invariant || strcmp(invariant, shared->worker[0].invariant) == 0;
}

struct parts {
    char names[256][40];
    unsigned count;
};

static void add_part(void *arg, const char *name)
{
    struct parts *p = arg;
    if (p->count < 256)
        snprintf(p->names[p->count++], sizeof p->names[0], "%s", name);
}

/* A run asks for its parts before anything happens, so one that ends in a finding has told them all the same. */
static void learn_parts(uint64_t seed, struct parts *parts)
{
    struct parts *out = mmap(NULL, sizeof *out, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        world_learn(seed);
        world_each_part(add_part, out);
        _exit(0);
    }
    waitpid(pid, NULL, 0);
    *parts = *out;
}

#define LIST_MAX 4096u

static bool is_listed(const char *list, const char *name)
{
    char wanted[64], all[LIST_MAX + 2];
    snprintf(wanted, sizeof wanted, ",%s,", name);
    snprintf(all, sizeof all, ",%s,", list);
    return strstr(all, wanted);
}

/* Tries to do without each of the parts that are left; true when something was dropped. */
static bool drop_parts(uint64_t seed, const struct parts *parts, char list[LIST_MAX], const char *invariant)
{
    bool dropped = false;
    for (unsigned i = 0; i < parts->count; i++) {
        char longer[LIST_MAX + 64];
        if (is_listed(list, parts->names[i]))
            continue;
        snprintf(longer, sizeof longer, "%s%s%s", list, *list ? "," : "", parts->names[i]);
        if (strlen(longer) >= LIST_MAX || !still_fails(seed, longer, invariant))
            continue;
        strcpy(list, longer);
        dropped = true;
    }
    return dropped;
}

static int shrink(uint64_t seed)
{
    struct parts parts = {.count = 0};
    char list[LIST_MAX] = "", invariant[32];
    if (!still_fails(seed, "", NULL)) {
        printf("seed %" PRIu64 ": no finding\n", seed);
        return 0;
    }
    snprintf(invariant, sizeof invariant, "%s", shared->worker[0].invariant);
    learn_parts(seed, &parts);
    while (drop_parts(seed, &parts, list, invariant))
        ; /* what was needed together with another may be of no use now */
    still_fails(seed, list, invariant);
    printf("seed %" PRIu64 ": %s: %s\n", seed, invariant, shared->worker[0].text);
    printf("left:");
    for (unsigned i = 0; i < parts.count; i++)
        if (!is_listed(list, parts.names[i]))
            printf(" %s", parts.names[i]);
    printf("\nagain: sim --seed %" PRIu64 " --trace --without %s\n", seed, *list ? list : "none");
    return 1;
}

static int run_one(uint64_t seed)
{
    double begin = seconds();
    bool fails = false;
    pid_t pid = fork();
    if (pid == 0) {
        run_seed(seed, false);
        printf("seed %" PRIu64 ": no finding; history %016" PRIx64 "\n", seed, trace_hash());
        fflush(stdout);
        _exit(0);
    }
    int status = 0;
    waitpid(pid, &status, 0);
    fails = !(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    shared->worker[0].seed = seed;
    if (fails) {
        struct finding f = finding_of(0, status);
        report(&f);
    }
    struct bytes summary = {0};
    tally = shared->tally;
    world_summary(&summary);
    printf("%.*s\nran 1 seeds in %.1f s, %d findings\n", (int)summary.len, bytes_at(&summary), seconds() - begin,
           fails);
    return fails;
}

/* One line: each kind of fault, and how often it has happened. Returns how many have not. */
static unsigned print_kinds(void)
{
    unsigned never = 0;
    printf("faults:");
    for (unsigned i = 0; i < FAULT_KINDS; i++) {
        printf(" %s %" PRIu64 "%s", fault_name(i), shared->kinds[i], i + 1 < FAULT_KINDS ? "," : "\n");
        never += shared->kinds[i] == 0;
    }
    return never;
}

static int run_range(int jobs, bool first, bool all_kinds)
{
    double begin = seconds();
    run_all(jobs, first);
    double took = seconds() - begin;
    struct bytes summary = {0};
    tally = shared->tally;
    world_summary(&summary);
    printf("%.*s\n", (int)summary.len, bytes_at(&summary));
    unsigned never = print_kinds();
    if (all_kinds && never > 0)
        printf("of %u kinds of faults not one has happened\n", never);
    bool tried = tally.retries > 0 && tally.stale_replaced > 0;
    if (all_kinds && !tried)
        printf("%s\n", tally.retries > 0 ? "not one stale connection was replaced" : "not one request was sent again");
    printf("%.0f seeds a minute, %.0f simulated seconds a second\n", (double)shared->runs / took * 60,
           (double)shared->tally.sim_ns / 1e9 / took);
    printf("all histories: %016" PRIx64 "\n", shared->history);
    printf("ran %" PRIu64 " seeds in %.1f s, %" PRIu64 " findings\n", shared->runs, took, shared->findings);
    bytes_free(&summary);
    return shared->findings > 0 || (all_kinds && (never > 0 || !tried));
}

static int usage_error(void)
{
    fputs(usage, stderr);
    return 2;
}

/* What the command line asks for. */
struct asked {
    uint64_t seed, from, to, every;
    uint64_t jobs;
    bool one, shrinking, first, all_kinds;
};

static bool read_number(const char *text, uint64_t *n)
{
    char *end;
    errno = 0;
    *n = strtoull(text, &end, 10);
    return text[0] >= '0' && text[0] <= '9' && *end == '\0' && errno == 0;
}

static bool read_range(const char *text, uint64_t *from, uint64_t *to)
{
    char first[24];
    size_t n = strcspn(text, "-");
    if (text[n] != '-' || n >= sizeof first)
        return false;
    memcpy(first, text, n);
    first[n] = '\0';
    return read_number(first, from) && read_number(text + n + 1, to) && *from <= *to && *to < UINT64_MAX;
}

static bool read_option(int option, struct asked *a)
{
    switch (option) {
    case 's': a->one = true; return read_number(optarg, &a->seed);
    case 'r': return read_range(optarg, &a->from, &a->to);
    case 'j': return read_number(optarg, &a->jobs) && a->jobs >= 1 && a->jobs <= WORKERS_MAX;
    case 'w': world_without(optarg); return true;
    case '2': return read_number(optarg, &a->every);
    case 't': trace_on = true; return true;
    case 'k': a->shrinking = true; return true;
    case 'f': a->first = true; return true;
    case 'a': a->all_kinds = true; return true;
    default: return false;
    }
}

/* Processors there are, as far as there is a place for them. */
static uint64_t processors(void)
{
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n < 1 ? 1 : n > (long)WORKERS_MAX ? WORKERS_MAX : (uint64_t)n;
}

int main(int argc, char **argv)
{
    static const struct option longs[] = {
        {"seed", required_argument, NULL, 's'},
        {"seeds", required_argument, NULL, 'r'},
        {"jobs", required_argument, NULL, 'j'},
        {"without", required_argument, NULL, 'w'},
        {"twice", required_argument, NULL, '2'},
        {"trace", no_argument, NULL, 't'},
        {"shrink", no_argument, NULL, 'k'},
        {"first", no_argument, NULL, 'f'},
        {"help", no_argument, NULL, 'h'},
        {"all-faults", no_argument, NULL, 'a'},
        {NULL, 0, NULL, 0},
    };
    struct asked a = {.from = 1, .to = 2000, .every = 16, .jobs = processors()};
    world_without("");
    for (int c; (c = getopt_long(argc, argv, "", longs, NULL)) != -1;) {
        if (c == 'h') {
            fputs(usage, stdout);
            return 0;
        }
        if (!read_option(c, &a))
            return usage_error();
    }
    if (optind != argc || ((trace_on || a.shrinking) && !a.one))
        return usage_error();
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED) {
        perror("sim: mmap");
        return 2;
    }
    sim_on_fail = on_fail;
    shared->next = a.from;
    shared->last = a.to;
    shared->every = a.every;
    if (!a.one)
        return run_range((int)a.jobs, a.first, a.all_kinds);
    return a.shrinking ? shrink(a.seed) : run_one(a.seed);
}
