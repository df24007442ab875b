/* What a decision of the limiter costs with a million clients, and what its tables take with any number of them.
 *
 *   bench_limit FOLDER     FOLDER is empty, and stays so but for its clients.json and what goes with it
 *
 * `warm`: the same thousand clients over and over, so that all of theirs is in the caches. `cold`: any of the million.
 * Names and addresses are made ready a thousand at a time, outside what is timed; a request's own are in the cache,
 * too. A thousand are on more pages than processors know the places of, so there is `warm` for a hundred as well.
 *
 * The longest single step is the time of one call, the kernel's work on its pages included, while a table fills. All
 * that fills one is done three times over, in processes that do just the same, and of each step the shortest time
 * counts: where the machine was busy with something else, it was so at another step each time.
 *
 * Where a client takes more than it may, or a step more than a millisecond, the bench fails in the end. Sizes are
 * looked at while a table fills, at every 50,000 clients, for what grows in steps takes most behind one. The rest are
 * the machine's times, and only told. */
#include "base/clock.h"
#include "base/mem.h"
#include "limit/anon_table.h"
#include "limit/clients.h"
#include "limit/limiter.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define CLIENTS 1000000u
#define BATCH   1000u
#define BATCHES 3000u
#define STEP_MS 1
#define RUNS    3 /* of what has steps */

/* Bytes that a client may take, with an id of 16, when there are SIZE_EVERY of them, or any multiple of that. */
#define REGISTERED_MAX 128
#define ANONYMOUS_MAX  48
#define SIZE_EVERY     50000u

/* The numbers of clients whose size is told; the last one is the largest that is looked at. */
static const unsigned told[] = {100000, 300000, 600000, CLIENTS, 1100000};
#define TOLD    (sizeof told / sizeof told[0])
#define AT_MOST 1100000u

#define FLOOD_SECONDS  60u
#define FLOOD_A_SECOND 200000u

static void die(const char *what)
{
    fprintf(stderr, "bench_limit: %s\n", what);
    exit(1);
}

static bool failed;

static void check_size(uint64_t bytes, unsigned n, unsigned most)
{
    if (bytes <= (uint64_t)most * n)
        return;
    fprintf(stderr, "bench_limit: %.1f bytes for each of %u clients, and it may be %u\n", (double)bytes / n, n, most);
    failed = true;
}

static uint64_t resident_now(void)
{
    unsigned long pages = 0, total = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    if (!f || fscanf(f, "%lu %lu", &total, &pages) != 2)
        die("/proc/self/statm cannot be read");
    fclose(f);
    return (uint64_t)pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

/* To ask takes memory, too, the first time. */
static uint64_t resident(void)
{
    (void)resident_now();
    return resident_now();
}

/* Numbers that follow no order that a prefetcher could see (splitmix64). */
static uint64_t scattered(uint64_t i)
{
    uint64_t z = (i + 1) * UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

static void name_of(unsigned i, char out[17])
{
    snprintf(out, 17, "client-%09u", i);
}

static struct ip address_of(unsigned i)
{
    struct ip ip = {.b = {[10] = 0xff, [11] = 0xff, 20, (uint8_t)(i >> 16), (uint8_t)(i >> 8), (uint8_t)i}};
    return ip;
}

/* Few plans for all, as usual, or other numbers for each, of which none is like another's. */
enum plans { SHARED, OWN };

static struct client_settings settings_of(unsigned i, enum plans plans)
{
    if (plans == OWN)
        return (struct client_settings){1000000 + i, 1 + i / 7.0, CLIENT_ENFORCE};
    return (struct client_settings){1000000, 1 + i % 3, CLIENT_ENFORCE};
}

static void write_clients(const char *folder, unsigned n, enum plans plans)
{
    char path[512];
    snprintf(path, sizeof path, "%s/clients.json", folder);
    FILE *f = fopen(path, "w");
    if (!f)
        die("clients.json cannot be written");
    fputs("{\"clients\":[\n", f);
    for (unsigned i = 0; i < n; i++) {
        char name[17];
        struct client_settings s = settings_of(i, plans);
        name_of(i, name);
        fprintf(f, "%s{\"client_id\":\"%s\",\"capacity\":%.17g,\"rate_per_sec\":%.17g,\"tokens\":1000000}\n",
                i ? "," : "", name, s.capacity, s.rate);
    }
    if (fputs("]}\n", f) < 0 || fclose(f) != 0)
        die("clients.json cannot be written");
}

struct bench {
    struct loop *loop;
    struct worker *worker;
    struct config *config;
    struct limiter *lim;
};

static void open_bench(struct bench *b, const char *folder, const char *headers)
{
    char text[1024], error[512];
    enum store_outcome outcome;
    struct buf errors = BUF_INIT;
    snprintf(text, sizeof text,
             "{\"backends\":[{\"address\":\"127.0.0.1:1\"}],\"rate_limit\":{\"clients_file\":\"%s/clients.json\","
             "\"headers\":\"%s\",\"default\":{\"capacity\":1000000,\"rate_per_sec\":1}}}",
             folder, headers);
    b->config = config_parse(str_of(text), "bench", NULL, &errors);
    if (!b->config)
        die("the config is not valid");
    b->loop = loop_new();
    b->worker = worker_new(b->loop, "bench");
    b->lim = limiter_new(b->loop, b->worker, b->config, error, sizeof error, &outcome);
    if (!b->lim)
        die(error);
}

enum who { BY_NAME, BY_ADDRESS };

/* Nanoseconds a decision, on `among` of the clients: identity, table, bucket; and, where `headers` are on, the fields
 * of the response. */
static double decision_ns(const struct bench *b, enum who who, unsigned among)
{
    static char names[BATCH][17];
    static struct peer peers[BATCH];
    static struct limit_answer answer;
    uint64_t spent = 0;
    for (unsigned batch = 0; batch < BATCHES; batch++) {
        for (unsigned i = 0; i < BATCH; i++) {
            uint64_t n = scattered(((uint64_t)batch * BATCH + i) % among) % CLIENTS;
            name_of((unsigned)n, names[i]);
            peers[i].ip = address_of(who == BY_NAME ? 0 : (unsigned)n);
        }
        uint64_t begun = clock_monotonic();
        for (unsigned i = 0; i < BATCH; i++) {
            struct field field = {STR("X-Client-ID"), str_make(names[i], 16), FIELD_OTHER};
            struct headers h = {.v = &field, .n = who == BY_NAME, .max = 1};
            limiter_ask(b->lim, &peers[i], &h, &answer);
            if (answer.verdict != LIMIT_ALLOW || answer.registered != (who == BY_NAME))
                die("a request was not decided as it must be");
        }
        spent += clock_monotonic() - begun;
    }
    return (double)spent / ((double)BATCHES * BATCH);
}

/* The shortest times of steps, ns, that all runs of a part share. */
#define STEPS_MAX (FLOOD_SECONDS * FLOOD_A_SECOND)
static uint32_t *shortest;
static size_t steps_taken; /* by the part, up to now */
static bool last_run;      /* that tells */

static void map_steps(void)
{
    shortest = mmap(NULL, STEPS_MAX * sizeof *shortest, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shortest == MAP_FAILED)
        die("no memory");
}

/* What a process has of it counts as its memory: so it has all from the begin. */
static void touch_steps(void)
{
    volatile uint32_t *at = shortest;
    for (size_t i = 0; i < STEPS_MAX; i += 1024)
        (void)at[i];
}

static void note_step(uint64_t ns)
{
    uint32_t t = ns < UINT32_MAX ? (uint32_t)ns : UINT32_MAX;
    if (steps_taken == STEPS_MAX)
        die("more steps than expected");
    if (t < shortest[steps_taken])
        shortest[steps_taken] = t;
    steps_taken++;
}

/* Of the steps from `first` on. */
static double longest_us(size_t first, unsigned *over)
{
    uint32_t longest = 0;
    *over = 0;
    for (size_t i = first; i < steps_taken; i++) {
        longest = shortest[i] > longest ? shortest[i] : longest;
        *over += shortest[i] > STEP_MS * NS_PER_MS;
    }
    if (last_run && *over > 0) {
        fprintf(stderr, "bench_limit: a step took %.1f us in each of %d runs\n", longest / 1e3, RUNS);
        failed = true;
    }
    return longest / 1e3;
}

/* What a table takes while it fills. */
struct sizes {
    uint64_t before;
    unsigned most; /* bytes a client may take */
    double each[TOLD], largest;
    unsigned largest_at;
};

static void note_size(struct sizes *s, unsigned n)
{
    if (n % SIZE_EVERY != 0)
        return;
    uint64_t bytes = resident() - s->before;
    double each = (double)bytes / n;
    for (size_t i = 0; i < TOLD; i++)
        if (told[i] == n)
            s->each[i] = each;
    if (each > s->largest) {
        s->largest = each;
        s->largest_at = n;
    }
    check_size(bytes, n, s->most);
}

static void say_sizes(const char *what, const struct sizes *s)
{
    if (!last_run)
        return;
    printf("%-34s", what);
    for (size_t i = 0; i < TOLD; i++)
        if (s->each[i] > 0)
            printf(" %5.1f", s->each[i]);
        else
            printf("     -");
    printf("  bytes each; at most %.1f, at %u\n", s->largest, s->largest_at);
}

static void say_steps(const char *what, size_t first)
{
    unsigned over;
    double longest = longest_us(first, &over);
    if (last_run)
        printf("%-34s longest step %7.1f us, %u over %d ms\n", what, longest, over, STEP_MS);
}

static struct client_table registered;
static const struct hash_key key = {1, 2};

static void name_numbers(void)
{
    printf("%-34s", "with so many thousand clients:");
    for (size_t i = 0; i < TOLD; i++)
        printf(" %5u", told[i] / 1000);
    printf("\n");
}

static void add_client(unsigned i, enum plans plans)
{
    char name[17];
    struct client_settings s = settings_of(i, plans);
    name_of(i, name);
    struct client *c = client_table_add(&registered, str_of(name), &s);
    if (!c)
        die("no memory");
    client_table_show(&registered, c);
}

static void remove_client(unsigned i)
{
    char name[17];
    name_of(i, name);
    struct client *c = client_table_find(&registered, str_of(name));
    if (!c)
        die("a client is not there");
    client_table_remove(&registered, c);
}

static void fill_clients(const char *what, enum plans plans)
{
    client_table_init(&registered, &key);
    add_client(0, plans); /* so that the pages of the program itself are there, which a fork leaves behind */
    remove_client(0);
    struct sizes sizes = {.before = resident(), .most = REGISTERED_MAX};
    for (unsigned i = 0; i < AT_MOST; i++) {
        uint64_t begun = clock_monotonic();
        add_client(i, plans);
        note_step(clock_monotonic() - begun);
        note_size(&sizes, i + 1);
    }
    say_sizes(what, &sizes);
    say_steps("... while they come", 0);
    for (unsigned i = 0; i < AT_MOST; i++) {
        uint64_t begun = clock_monotonic();
        remove_client(i);
        note_step(clock_monotonic() - begun);
    }
    say_steps("... while they go", AT_MOST);
    client_table_fini(&registered);
}

static void fill_few_plans(const char *folder)
{
    (void)folder;
    fill_clients("registered, 16-byte id, in memory", SHARED);
}

static void fill_own_settings(const char *folder)
{
    (void)folder;
    fill_clients("... each with its own settings", OWN);
}

/* As many as the table is for. */
static void fill_anonymous(const char *folder)
{
    (void)folder;
    static struct anon_table t;
    struct bucket_policy p;
    uint64_t word;
    bool shared;
    struct ip none = {0};
    bucket_policy_init(&p, 10, 0.001);
    if (!anon_table_init(&t, &key, &p, 1, 64) || !anon_table_take(&t, &none, NS_PER_S, &word, &shared))
        die("no memory"); /* the pages of the program itself, as above */
    anon_table_fini(&t);
    struct sizes sizes = {.before = resident(), .most = ANONYMOUS_MAX};
    if (!anon_table_init(&t, &key, &p, CLIENTS, 64))
        die("no memory");
    for (unsigned i = 0; i < CLIENTS; i++) {
        struct ip ip = address_of(i);
        uint64_t begun = clock_monotonic();
        if (!anon_table_take(&t, &ip, NS_PER_S, &word, &shared) || shared)
            die("a request was not decided as it must be");
        note_step(clock_monotonic() - begun);
        note_size(&sizes, i + 1);
    }
    say_sizes("unregistered", &sizes);
    say_steps("... while they come", 0);
    while (t.count > 0) {
        uint64_t begun = clock_monotonic();
        anon_table_sweep(&t, NS_PER_S * 1000000);
        note_step(clock_monotonic() - begun);
    }
    say_steps("... all of them full, and swept", CLIENTS);
    anon_table_fini(&t);
}

/* 200,000 new addresses a second for a minute of the table's time, swept as the limiter does. */
static void flood_table(const char *what, size_t max, double capacity, double rate)
{
    struct anon_table t;
    struct bucket_policy p;
    uint64_t before = resident(), most = before, shared = 0, word;
    bool is_shared;
    bucket_policy_init(&p, capacity, rate);
    if (!anon_table_init(&t, &key, &p, max, 64))
        die("no memory");
    for (unsigned i = 0; i < FLOOD_SECONDS * FLOOD_A_SECOND; i++) {
        uint64_t now = NS_PER_S + i * (NS_PER_S / FLOOD_A_SECOND), step = clock_monotonic();
        struct ip ip = address_of(0);
        uint32_t n = i * 2654435761u;
        memcpy(ip.b + 12, &n, sizeof n);
        if (i % (FLOOD_A_SECOND / 10) == 0)
            anon_table_sweep(&t, now);
        (void)!anon_table_take(&t, &ip, now, &word, &is_shared);
        note_step(clock_monotonic() - step);
        shared += is_shared;
        if (i % FLOOD_A_SECOND == 0 && resident() > most)
            most = resident();
    }
    unsigned over;
    double longest = longest_us(0, &over);
    if (last_run)
        printf("%-34s %5.1f MiB at most; longest step %7.1f us, %u over %d ms; %.0f %% shared\n", what,
               (double)(most - before) / (1 << 20), longest, over, STEP_MS,
               100.0 * (double)shared / (FLOOD_SECONDS * FLOOD_A_SECOND));
    anon_table_fini(&t);
}

static void flood_default(const char *folder)
{
    (void)folder;
    flood_table("flood, full again in 20 ms", 1000000, 100, 50);
}

static void flood_slow(const char *folder)
{
    (void)folder;
    flood_table("flood, not full again", 1000000, 10, 0.001);
}

static void flood_small(const char *folder)
{
    (void)folder;
    flood_table("flood, not full again, 1000 places", 1000, 10, 0.001);
}

static void load(const char *folder, unsigned n, const char *what, enum plans plans)
{
    struct bench b;
    write_clients(folder, n, plans);
    uint64_t before = resident(), begun = clock_monotonic();
    open_bench(&b, folder, "off");
    mem_give_back(); /* as the daemon does */
    uint64_t bytes = resident() - before;
    printf("%-34s %5.1f bytes each of %u; loaded in %.2f s\n", what, (double)bytes / n, n,
           (double)(clock_monotonic() - begun) / 1e9);
    check_size(bytes, n, REGISTERED_MAX);
}

static void load_own_settings(const char *folder)
{
    load(folder, CLIENTS, "... each with its own settings", OWN);
}

static void load_300000(const char *folder)
{
    load(folder, 300000, "registered, with all that is theirs", SHARED);
}

static void load_600000(const char *folder)
{
    load(folder, 600000, "...", SHARED);
}

static void load_1100000(const char *folder)
{
    load(folder, 1100000, "...", SHARED);
}

/* What it leaves is what decisions are made on. */
static void load_few_plans(const char *folder)
{
    load(folder, CLIENTS, "...", SHARED);
}

/* What a cold decision cannot be faster than: memory as large as the million clients take, of which each place says
 * where the next one is. */
static void chase(const char *folder)
{
    struct place {
        uint32_t next;
        char rest[124];
    };
    (void)folder;
    struct place *p = calloc(CLIENTS, sizeof *p);
    uint32_t *order = calloc(CLIENTS, sizeof *order), at = 0;
    if (!p || !order)
        die("no memory");
    for (uint32_t i = 1; i < CLIENTS; i++) { /* one round through all, in no order (Fisher-Yates) */
        uint32_t j = (uint32_t)(scattered(i) % (i + 1));
        order[i] = order[j];
        order[j] = i;
    }
    for (uint32_t i = 0; i < CLIENTS; i++)
        p[order[i]].next = order[(i + 1) % CLIENTS];
    uint64_t begun = clock_monotonic();
    for (unsigned i = 0; i < BATCH * BATCHES; i++)
        at = p[at].next;
    uint64_t spent = clock_monotonic() - begun;
    printf("%-34s %5.1f ns%s\n", "one place of memory, not in a cache", (double)spent / ((double)BATCHES * BATCH),
           at < CLIENTS ? "" : "?");
    free(order);
    free(p);
}

static void decide(const char *folder, const char *headers)
{
    static const char *const whose[] = {"registered", "unregistered"};
    struct bench b;
    open_bench(&b, folder, headers);
    for (unsigned i = 0; i < CLIENTS; i++) { /* each address has a bucket */
        static struct limit_answer answer;
        struct peer peer = {.ip = address_of(i)};
        struct headers none = {0};
        limiter_ask(b.lim, &peer, &none, &answer);
    }
    for (int who = BY_NAME; who <= BY_ADDRESS; who++)
        printf("decision%-20s %-12s %6.1f ns warm (of a hundred), %6.1f ns warm, %6.1f ns cold\n",
               strcmp(headers, "off") == 0 ? "" : ", and its fields", whose[who], decision_ns(&b, (enum who)who, 100),
               decision_ns(&b, (enum who)who, 1000), decision_ns(&b, (enum who)who, BATCH * BATCHES));
}

static void decide_bare(const char *folder)
{
    decide(folder, "off");
}

static void decide_with_fields(const char *folder)
{
    decide(folder, "always");
}

#define FAILED 3

/* In a process of its own, so that none finds the memory of the one before. */
static void run(void (*fn)(const char *folder), const char *folder)
{
    int status;
    fflush(stdout);
    pid_t pid = fork();
    if (pid < 0)
        die("no process");
    if (pid == 0) {
        touch_steps();
        fn(folder);
        fflush(stdout);
        _exit(failed ? FAILED : 0);
    }
    if (waitpid(pid, &status, 0) != pid || !WIFEXITED(status) || (WEXITSTATUS(status) && WEXITSTATUS(status) != FAILED))
        die("a part has failed");
    failed |= WEXITSTATUS(status) == FAILED;
}

static void run_for_steps(void (*fn)(const char *folder), const char *folder)
{
    memset(shortest, 0xff, STEPS_MAX * sizeof *shortest);
    for (int i = 1; i <= RUNS; i++) {
        last_run = i == RUNS;
        run(fn, folder);
    }
}

int main(int argc, char **argv)
{
    typedef void part_fn(const char *folder);
    static part_fn *const with_steps[] = {fill_few_plans, fill_own_settings, fill_anonymous,
                                          flood_default,  flood_slow,        flood_small};
    static part_fn *const parts[] = {load_300000,    load_600000, load_1100000, load_own_settings,
                                     load_few_plans, chase,       decide_bare,  decide_with_fields};
    if (argc != 2)
        die("usage: bench_limit FOLDER");
    mem_keep(); /* as the daemon does */
    map_steps();
    name_numbers();
    for (size_t i = 0; i < sizeof with_steps / sizeof with_steps[0]; i++)
        run_for_steps(with_steps[i], argv[1]);
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++)
        run(parts[i], argv[1]);
    return failed ? 1 : 0;
}
