/* The judge: what was asked, who got it, what was answered, and what the log says of it; and from that, whether the
 * promises were kept. Most are judged when something happens, some when the run is over. */
#include "world.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- the requests ---- */

static struct request **requests;
static uint32_t count, cap;

struct request *request_new(unsigned client)
{
    if (count == cap) {
        cap = cap ? 2 * cap : 256;
        requests = realloc(requests, cap * sizeof *requests);
        if (!requests)
            abort();
    }
    struct request *r = calloc(1, sizeof *r);
    if (!r)
        abort();
    requests[count++] = r;
    r->id = count;
    r->client = client;
    return r;
}

struct request *request_find(uint32_t id)
{
    return id >= 1 && id <= count ? requests[id - 1] : NULL;
}

uint32_t request_count(void)
{
    return count;
}

bool request_was_cut(const struct request *r)
{
    for (unsigned i = 0; i < r->served_count; i++)
        if (r->served[i].doubtful || (r->served[i].begun && !r->served[i].whole))
            return true;
    return false;
}

/* ---- the log ---- */

/* What the log says of a backend, as of the end of a turn. */
struct known {
    bool available;
    uint64_t turn; /* since that turn's end */
    bool before;   /* what was known until then */
};

static struct {
    struct bytes line;
    struct known backends[BACKENDS_MAX];
    uint64_t dropped;
    bool lagging; /* lines have waited: the log does not tell in time what the daemon knows */
    uint64_t retry_at[4096];
    unsigned retries;
    uint64_t stop_cut;
    unsigned reasons[600], own_answers[600]; /* by status: log lines with a reason, answers of the daemon's own */
    bool stopped;
} seen;

/* The value of a field in a line of JSON, as text; false when it is not there. */
static bool field(const char *line, const char *key, char *out, size_t size)
{
    char name[64];
    snprintf(name, sizeof name, "\"%s\":", key);
    const char *p = strstr(line, name);
    if (!p)
        return false;
    p += strlen(name);
    char stop = *p == '"' ? '"' : ',';
    p += stop == '"';
    size_t n = 0;
    for (; *p && *p != stop && *p != '}' && n + 1 < size; p++)
        out[n++] = *p;
    out[n] = '\0';
    return true;
}

static uint64_t number(const char *line, const char *key)
{
    char text[32];
    return field(line, key, text, sizeof text) ? strtoull(text, NULL, 10) : 0;
}

static unsigned backend_of(const char *line)
{
    char name[32] = "";
    field(line, "backend", name, sizeof name);
    unsigned i = name[0] == 'b' ? (unsigned)(name[1] - '0') : BACKENDS_MAX;
    if (i >= world.set.backends)
        sim_fail("log", "a line speaks of an unknown backend: %s", line);
    return i;
}

static void set_known(unsigned backend, bool available)
{
    struct known *k = &seen.backends[backend];
    if (k->turn != process.turns)
        k->before = k->available;
    k->available = available;
    k->turn = process.turns;
}

/* Promise: retries are at most a share of the requests begun in ten seconds, and three a second besides. */
static void on_retry(const char *line)
{
    char next[32];
    field(line, "next", next, sizeof next);
    if (strcmp(next, "another backend") != 0)
        return;
    tally.retries++;
    if (seen.retries == sizeof seen.retry_at / sizeof seen.retry_at[0])
        return;
    seen.retry_at[seen.retries++] = sim_now();
    unsigned in_window = 0, begun = 0;
    uint64_t window = 10 * S;
    for (unsigned i = seen.retries; i-- > 0 && seen.retry_at[i] + window > sim_now();)
        in_window++;
    for (uint32_t i = count; i-- > 0;)
        begun += requests[i]->sent_at + window > sim_now();
    /* The daemon counts by whole seconds of its own: one more at each side, and a process that begins anew counts anew.
     */
    unsigned always = 3 * 12 * (1 + world.deaths);
    if (in_window > always + begun * world.set.budget_percent / 100 + 1)
        sim_fail("retries", "%u retries in ten seconds in which %u requests were begun", in_window, begun);
}

static void on_request(const char *line)
{
    char target[64] = "", reason[64] = "";
    unsigned id = 0;
    uint64_t status = number(line, "status");
    bool has_reason = field(line, "reason", reason, sizeof reason) && reason[0];
    if (status < 600 && has_reason)
        seen.reasons[status]++;
    field(line, "target", target, sizeof target);
    struct request *r = sscanf(target, "/r/%u", &id) == 1 ? request_find(id) : NULL;
    if (!r)
        return;
    r->logged++;
    r->logged_status = (unsigned)status;
    r->logged_reason |= has_reason;
    if (r->logged > 1)
        sim_fail("log", "request %u has two lines in the log", id);
    uint64_t attempts = number(line, "attempts");
    if (attempts > world.set.attempts + 1)
        sim_fail("retries", "request %u had %" PRIu64 " attempts", id, attempts);
}

static void on_line(const char *line)
{
    char event[48] = "";
    trace_text("log: %s", line);
    /* What a failed write leaves of a line is ended by the next one. */
    if (world.set.log_to_file && kernel.shown.disk > 0 && line[strlen(line) - 1] != '}')
        return;
    if (line[0] != '{' || line[strlen(line) - 1] != '}' || !field(line, "event", event, sizeof event))
        sim_fail("log", "a line that is no whole JSON object: %s", line);
    if (strcmp(event, "request") == 0)
        on_request(line);
    else if (strcmp(event, "backend_down") == 0)
        set_known(backend_of(line), false);
    else if (strcmp(event, "backend_up") == 0)
        set_known(backend_of(line), true);
    else if (strcmp(event, "retry") == 0)
        on_retry(line);
    else if (strcmp(event, "log_dropped") == 0)
        seen.dropped += number(line, "lines");
    else if (strcmp(event, "stop") == 0) {
        seen.stop_cut = number(line, "cut");
        seen.stopped = true;
    }
}

void judge_log(const char *p, size_t n)
{
    while (n > 0) {
        const char *end = memchr(p, '\n', n);
        size_t take = end ? (size_t)(end - p) : n;
        bytes_add(&seen.line, p, take);
        if (!end)
            return;
        bytes_add(&seen.line, "", 1);
        if (seen.line.len > 1)
            on_line(bytes_at(&seen.line));
        bytes_clear(&seen.line);
        p += take + 1;
        n -= take + 1;
    }
}

bool judge_log_complete(void)
{
    return seen.dropped == 0 && !seen.lagging;
}

void judge_turn(void)
{
}

void judge_note_lag(void)
{
    seen.lagging = true;
}

static void forget_known(void)
{
    for (unsigned i = 0; i < BACKENDS_MAX; i++)
        seen.backends[i] =
            (struct known){.available = !world.set.backend[i].named, .before = !world.set.backend[i].named};
}

bool judge_available(unsigned backend)
{
    return seen.backends[backend].available;
}

void judge_death(void)
{
    bytes_clear(&seen.line);
    forget_known();
    seen.lagging = world.set.log_to_file;
}

/* ---- deliveries ---- */

/* Was the backend unavailable both before and after that turn? */
static bool surely(unsigned backend, uint64_t turn, bool available)
{
    const struct known *k = &seen.backends[backend];
    if (k->turn < turn)
        return k->available == available;
    return k->turn == turn && k->available == available && k->before == available;
}

/* Promise: no request goes to a backend that is known to be down while another is available. */
static void check_choice(const struct request *r, unsigned backend, uint64_t turn)
{
    /* Where memory is short, a line may be missing. */
    if (turn >= process.turns) /* or what was known in that turn has not been told yet */
        return;
    if (seen.lagging || kernel.shown.heap > 0 || world.set.log_to_file || !surely(backend, turn, false))
        return;
    for (unsigned i = 0; i < world.set.backends; i++)
        if (surely(i, turn, true))
            sim_fail("choice", "request %u was sent to backend %u, known to be down, while backend %u was available",
                     r->id, backend, i);
}

void judge_delivery(struct request *r, unsigned backend, uint64_t turn)
{
    r->deliveries++;
    tally.deliveries++;
    trace("deliver id backend times", r->id, backend, r->deliveries);
    if (r->deliveries == 1)
        r->first_delivery = sim_now();
    if (r->deliveries > 1 && !r->idempotent)
        sim_fail("twice", "%s request %u was delivered twice, now to backend %u", r->method, r->id, backend);
    /* Each attempt may have had a stale connection to replace. */
    if (r->deliveries > 2 * (world.set.attempts + 1))
        sim_fail("retries", "request %u was delivered %u times", r->id, r->deliveries);
    check_choice(r, backend, turn);
}

/* ---- answers ---- */

/* May the daemon have said this of its own, as things are? */
static bool is_excused(const struct request *r, unsigned status)
{
    bool memory = kernel.shown.heap > 0, descriptors = kernel.shown.descriptors + kernel.shown.epoll > 0;
    switch (status) {
    case 429: return world.set.limiter_on;
    case 408: return r->may_stall || !world.gentle;
    case 500: return memory;
    case 502:
    case 504: return world.faulty_backends || descriptors || memory || kernel.shown.connect > 0 || !world.gentle;
    case 503: return world.faulty_backends || descriptors || memory || kernel.shown.connect > 0 || !world.gentle;
    default: return false;
    }
}

void judge_answer(struct request *r, unsigned status, bool own)
{
    if (r->outcome != OUTCOME_OPEN)
        sim_fail("responses", "request %u got a second answer", r->id);
    r->outcome = OUTCOME_ANSWERED;
    r->status = status;
    r->own_answer = own;
    tally.answered++;
    *(own ? &tally.own : &tally.forwarded) += 1;
    if (own && status < 600)
        seen.own_answers[status]++;
    if (own && !is_excused(r, status))
        sim_fail("answers", "%s request %u got %u, and there was no reason for it", r->method, r->id, status);
}

void judge_cut(struct request *r, bool own_fault, const char *how)
{
    if (r->outcome != OUTCOME_OPEN)
        return;
    r->outcome = OUTCOME_CUT;
    tally.cut++;
    /* Who is served when SIGTERM comes is served to the end, or to the deadline. */
    bool late = sim_now() + 10 * MS >= world.drain_begun + world.set.shutdown || world.double_signals;
    bool died = r->deaths != world.deaths, drained = world.draining && (late || r->deliveries == 0);
    bool memory = kernel.shown.heap + kernel.shown.descriptors + kernel.shown.epoll > 0;
    if (own_fault || died || drained || memory || request_was_cut(r) || r->may_stall)
        return;
    /* Whoever is late may find the connection closed for idleness or out of time. */
    if (!world.gentle && r->served_count == 0)
        return;
    sim_fail("cut", "%s request %u: the connection was ended (%s) without its answer", r->method, r->id, how);
}

/* ---- the limit ---- */

struct pass {
    uint64_t low, high; /* it was decided between these times */
};

static int by_low(const void *a, const void *b)
{
    const struct pass *x = a, *y = b;
    return x->low < y->low ? -1 : x->low > y->low;
}

/* Promise: capacity + rate x T. For passes i..j in order, T is at most high(j) - low(i). */
static void check_bound(const char *who, struct pass *p, unsigned n, double capacity, double rate, unsigned restarts)
{
    double allowed = capacity * (1 + restarts), best = 0;
    qsort(p, n, sizeof *p, by_low);
    uint64_t high = 0;
    for (unsigned j = 0; j < n; j++) {
        if (p[j].high > high)
            high = p[j].high;
        double before = (double)j - rate * (double)p[j].low / 1e9;
        if (j == 0 || before < best)
            best = before;
        double excess = (double)(j + 1) - rate * (double)high / 1e9 - best - allowed;
        if (excess > 0.01)
            sim_fail("limit", "%s: %.3f requests more have passed than capacity %g and rate %g allow (%u restarts)",
                     who, excess, capacity, rate, restarts);
    }
}

/* Did the request pass the limiter, as far as can be told from outside? */
static bool has_passed(const struct request *r)
{
    return r->deliveries > 0;
}

static void check_identity(const char *name, unsigned client, double capacity, double rate, unsigned restarts)
{
    struct pass *passes = calloc(count + 1, sizeof *passes);
    unsigned n = 0;
    if (!passes)
        abort();
    for (uint32_t i = 0; i < count; i++) {
        const struct request *r = requests[i];
        bool mine =
            name ? strcmp(client_identity(r->client), name) == 0 : r->client == client && !*client_identity(client);
        if (mine && has_passed(r))
            passes[n++] = (struct pass){r->head_sent_at, r->first_delivery};
    }
    check_bound(name ? name : "an address", passes, n, capacity, rate, restarts);
    free(passes);
}

static void check_limits(void)
{
    if (!world.set.limiter_on)
        return;
    /* What a crash may give back: tokens of a snapshot that is save_interval old, and all of the unregistered. */
    unsigned crashes = world.kills + world.power_cuts + world.wall_steps + world.lossy_stops;
    for (unsigned i = 0; i < NAMED_MAX; i++) {
        char name[16];
        snprintf(name, sizeof name, "named%u", i);
        check_identity(name, 0, world.set.named_capacity[i], world.set.named_rate[i], crashes);
    }
    for (unsigned i = 0; i < CLIENTS_MAX && !world.set.unix_listen; i++)
        if (!client_is_exempt(i))
            check_identity(NULL, i, world.set.capacity, world.set.rate, world.deaths);
    for (uint32_t i = 0; i < count; i++)
        if (requests[i]->status == 429 && client_is_polite(requests[i]->client) && crashes == 0)
            sim_fail("limit", "request %u was refused, though its client asks more slowly than its rate",
                     requests[i]->id);
}

/* ---- the end ---- */

/* Promise: each error answer has its reason in the log. */
static void check_log(void)
{
    if (seen.dropped > 0 || world.deaths > 1 || kernel.kinds[FAULT_PIPE_BROKEN] > 0)
        return;
    for (uint32_t i = 0; i < count; i++) {
        const struct request *r = requests[i];
        /* One that stopped in mid-head has no target in the log. */
        if (r->outcome != OUTCOME_ANSWERED || (r->may_stall && r->status == 408))
            continue;
        /* A connection over the limit is refused unread: that is an event of its own. */
        if (r->logged == 0 && r->own_answer && r->status == 503 && world.set.connections < 100)
            continue;
        if (r->logged == 0)
            sim_fail("log", "request %u was answered with %u, and the log does not say so", r->id, r->status);
        if (r->logged_status != r->status)
            sim_fail("log", "request %u was answered with %u; the log says %u", r->id, r->status, r->logged_status);
        if (r->own_answer && !r->logged_reason)
            sim_fail("log", "request %u was answered with %u, and the log has no reason", r->id, r->status);
    }
}

void judge_sum_up(void)
{
    check_limits();
    if (kernel.shown.disk == 0 && kernel.shown.heap == 0)
        check_log();
    for (uint32_t i = 0; i < count; i++)
        if (requests[i]->outcome == OUTCOME_OPEN && requests[i]->sent_at > 0)
            sim_fail("answers", "request %u has neither been answered nor cut", requests[i]->id);
}

void judge_begin(void)
{
    struct bytes line = seen.line;
    bytes_clear(&line);
    memset(&seen, 0, sizeof seen);
    seen.line = line;
    count = 0;
    judge_death();
}

void judge_end(void)
{
    for (uint32_t i = 0; i < count; i++)
        free(requests[i]);
    count = 0;
}
