/* The judge: what was asked, who got it, what was answered, and what the log says of it; and from that, whether the
 * promises were kept. Most are judged when something happens, some when the run is over. */
#include "world.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

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

static bool is_cut(const struct served *s)
{
    return s->doubtful || (s->begun && !s->whole);
}

bool request_was_cut(const struct request *r, const struct served *from)
{
    if (from)
        return is_cut(from);
    for (unsigned i = 0; i < r->served_count; i++)
        if (is_cut(&r->served[i]))
            return true;
    return false;
}

/* ---- the log ---- */

/* More than ten seconds can have. */
#define RETRIES_KEPT 8192u

/* What the log says of a backend, as of the end of a turn. */
struct known {
    bool available;
    uint64_t turn; /* since that turn's end */
    bool before;   /* what was known until then */
    bool flapped;  /* in that turn it changed more than once */
};

/* So long an idle connection stays open for one more request once SIGTERM has come. */
#define LAST_CALL S

/* One process, from its start to its end, and what its log and its clients say of it. */
#define STATUS_MAX 600u
struct life {
    enum { LIFE_RUNS, LIFE_EXITED, LIFE_KILLED } end;
    bool lossy;     /* its log may lack lines that are not counted */
    bool powerless; /* the power was cut when it was there or after: what it left to the kernel is gone */
    uint64_t drain_begun;
    bool hurried;   /* by a second signal */
    int status;     /* of its exit */
    bool said_stop; /* its log has the `stop` line, and by that */
    uint64_t cut;   /* so many exchanges were cut off, */
    bool unsaved;   /* the clients are not saved */
    uint64_t dropped /* lines, it says */;
    unsigned reasons[STATUS_MAX], own[STATUS_MAX]; /* by status: lines with a reason, answers of its own */
};
static struct life *lives;
static unsigned life_count;

static struct life *life(unsigned i)
{
    if (i < life_count)
        return &lives[i];
    lives = realloc(lives, (i + 1) * sizeof *lives);
    if (!lives)
        abort();
    memset(lives + life_count, 0, (i + 1 - life_count) * sizeof *lives);
    life_count = i + 1;
    return &lives[i];
}

static struct life *present(void)
{
    return life(world.deaths);
}

static struct {
    struct bytes line;
    struct known backends[BACKENDS_MAX];
    uint64_t gone_at;    /* when a reload has removed the backend that comes and goes; 0: it is there */
    bool lagging;        /* lines have waited: the log does not tell in time what the daemon knows */
    uint64_t none_until; /* no backend was known to be available until then; UINT64_MAX: none is now */
    uint64_t retry_at[RETRIES_KEPT];
    unsigned retries;
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

/* Does it come and go by reloads? Then the log's lines do not say what is known of it. */
static bool wanders(unsigned backend)
{
    return world.varied && backend == settings_wanderer();
}

static void note_availability(void)
{
    bool any = false;
    for (unsigned i = 0; i < world.set.backends; i++)
        any |= seen.backends[i].available && !wanders(i);
    if (any && seen.none_until == UINT64_MAX)
        seen.none_until = sim_now();
    if (!any && seen.none_until != UINT64_MAX)
        seen.none_until = UINT64_MAX;
}

static void set_known(unsigned backend, bool available)
{
    struct known *k = &seen.backends[backend];
    k->flapped = k->turn == process.turns;
    if (!k->flapped)
        k->before = k->available;
    k->available = available;
    k->turn = process.turns;
    note_availability();
}

/* Promise: `fall` failures in a row take a backend down, `rise` successes bring it back. Judged where the cause is a
 * status, for those the backend itself can count. */
static void on_health(unsigned backend, bool up, const char *line)
{
    char cause[64] = "";
    field(line, "cause", cause, sizeof cause);
    set_known(backend, up);
    if (strncmp(cause, "status ", 7) == 0 && !seen.lagging && !wanders(backend))
        backend_check_count(backend, up);
}

static void on_reload(const char *line)
{
    limits_reloaded(true);
    if (number(line, "removed") > 0)
        seen.gone_at = sim_now();
    if (number(line, "added") > 0)
        seen.gone_at = 0;
    note_availability();
}

static unsigned retries_since(uint64_t since)
{
    unsigned n = 0;
    for (unsigned i = seen.retries; i-- > 0 && seen.retry_at[i] > since;)
        n++;
    return n;
}

/* Promise: retries are at most a share of the requests begun in ten seconds, and three a second besides, of
 * which thirty can be saved up. The daemon counts by whole seconds of its own, so one more at each side; a process that
 * begins anew counts anew. */
static void on_retry(const char *line)
{
    static const uint64_t windows[] = {1, 3, 10};
    char next[32];
    field(line, "next", next, sizeof next);
    if (strcmp(next, "fresh connection") == 0) {
        tally.stale_replaced++;
        return;
    }
    tally.retries++;
    if (seen.retries == RETRIES_KEPT) {
        memmove(seen.retry_at, seen.retry_at + RETRIES_KEPT / 2, sizeof seen.retry_at / 2);
        seen.retries /= 2;
    }
    seen.retry_at[seen.retries++] = sim_now();
    unsigned begun = 0;
    for (uint32_t i = count; i-- > 0;)
        begun += requests[i]->sent_at + 11 * S > sim_now();
    for (unsigned i = 0; i < sizeof windows / sizeof windows[0]; i++) {
        uint64_t length = windows[i] * S, since = sim_now() > length ? sim_now() - length : 0;
        uint64_t always = 30 + 3 * (windows[i] + 2);
        if (process.begun > since) /* some were the one before's */
            always *= 1 + world.deaths;
        unsigned n = retries_since(since);
        if (n > always + begun * world.set.budget_percent / 100 + 1)
            sim_fail("retries", "%u retries in %" PRIu64 " s, with %u requests begun in ten", n, windows[i], begun);
    }
}

static void check_reason(const struct request *r);

static void on_request(const char *line)
{
    char target[64] = "", reason[sizeof((struct request *)0)->reason] = "";
    unsigned id = 0;
    uint64_t status = number(line, "status");
    bool has_reason = field(line, "reason", reason, sizeof reason) && reason[0];
    if (status < STATUS_MAX && has_reason)
        present()->reasons[status]++;
    field(line, "target", target, sizeof target);
    struct request *r = sscanf(target, "/r/%u", &id) == 1 ? request_find(id) : NULL;
    if (!r)
        return;
    r->logged++;
    r->logged_status = (unsigned)status;
    r->logged_reason |= has_reason;
    memcpy(r->reason, reason, sizeof reason);
    if (r->logged > 1)
        sim_fail("log", "request %u has two lines in the log", id);
    char retry[32] = "";
    r->over_budget = field(line, "retry", retry, sizeof retry) && strcmp(retry, "over_budget") == 0;
    r->logged_backend = field(line, "backend", retry, sizeof retry) ? backend_of(line) : BACKENDS_MAX;
    r->attempts = (unsigned)number(line, "attempts");
    r->queued_ms = number(line, "queued_ms");
    if (r->attempts > world.set.attempts + 1)
        sim_fail("retries", "request %u had %u attempts", id, r->attempts);
    check_reason(r);
}

/* Braces and quotes go in pairs, and the first brace ends with the line: so no line is joined to another's begin. */
static bool is_whole_object(const char *line)
{
    unsigned depth = 0;
    bool in_string = false;
    if (*line != '{')
        return false;
    for (const char *c = line; *c; c++) {
        if (in_string && *c == '\\' && c[1])
            c++;
        else if (*c == '"')
            in_string = !in_string;
        else if (!in_string && *c == '{')
            depth++;
        else if (!in_string && *c == '}' && --depth == 0)
            return c[1] == '\0';
    }
    return false;
}

/* Does the line say that it was written just now? */
static bool is_fresh(const char *line)
{
    char text[48] = "";
    struct tm tm = {0};
    unsigned ms;
    if (!field(line, "ts", text, sizeof text) || sscanf(text, "%d-%d-%dT%d:%d:%d.%u", &tm.tm_year, &tm.tm_mon,
                                                        &tm.tm_mday, &tm.tm_hour, &tm.tm_min, &tm.tm_sec, &ms) != 7)
        return false;
    tm.tm_year -= 1900;
    tm.tm_mon -= 1;
    int64_t age = (int64_t)sim_now() + kernel.wall_offset - ((int64_t)timegm(&tm) * 1000 + ms) * (int64_t)MS;
    return age >= 0 && age < (int64_t)(2 * MS);
}

/* Lines come in order: when one that is not old has come, no other waits, unless it has been dropped. */
static void look_at_lag(const char *line)
{
    bool may_lack = world.set.log_to_file || pipe_is_stalled() || present()->dropped > 0;
    if (seen.lagging && !may_lack && is_fresh(line))
        seen.lagging = false;
}

static void on_line(const char *line)
{
    char event[48] = "";
    trace_text("log: %s", line);
    /* What a failed write leaves of a line is ended by the next one. */
    if (world.set.log_to_file && kernel.shown.disk > 0 && line[strlen(line) - 1] != '}')
        return;
    if (!is_whole_object(line) || !field(line, "event", event, sizeof event))
        sim_fail("log", "a line that is no whole JSON object: %s", line);
    look_at_lag(line);
    if (strcmp(event, "request") == 0)
        on_request(line);
    else if (strcmp(event, "backend_down") == 0)
        on_health(backend_of(line), false, line);
    else if (strcmp(event, "backend_up") == 0)
        on_health(backend_of(line), true, line);
    else if (strcmp(event, "reload") == 0)
        on_reload(line);
    else if (strcmp(event, "reload_failed") == 0)
        limits_reloaded(false);
    else if (strcmp(event, "retry") == 0)
        on_retry(line);
    else if (strcmp(event, "log_dropped") == 0)
        present()->dropped += number(line, "lines");
    else if (strcmp(event, "stop") == 0) {
        char saved[8] = "";
        present()->cut = number(line, "cut");
        present()->unsaved = field(line, "saved", saved, sizeof saved) && strcmp(saved, "no") == 0;
        present()->said_stop = true;
    }
}

void judge_log(const char *p, size_t n)
{
    if (!p)
        bytes_clear(&seen.line); /* what a full disk has torn is the last line of its file */
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

void judge_note_lag(void)
{
    seen.lagging = true;
}

static void forget_known(void)
{
    for (unsigned i = 0; i < BACKENDS_MAX; i++)
        seen.backends[i] =
            (struct known){.available = !world.set.backend[i].named, .before = !world.set.backend[i].named};
    note_availability();
}

void judge_start(void)
{
    bytes_clear(&seen.line);
    forget_known();
    seen.gone_at = 0;
    seen.lagging = world.set.log_to_file;
    limits_started();
}

void judge_drain(bool hurried)
{
    present()->hurried |= hurried;
    if (!hurried)
        present()->drain_begun = sim_now();
}

void judge_end_of_life(bool killed, int status)
{
    struct life *l = present();
    l->end = killed ? LIFE_KILLED : LIFE_EXITED;
    l->status = status;
    /* With the disk full to the end there is no place left to say that lines were lost. */
    l->lossy |= kernel.kinds[FAULT_PIPE_BROKEN] > 0 || pipe_is_stalled();
    l->lossy |= process.log_cut;
    l->lossy |= world.set.log_to_file && fault_since(SHOWN_DISK, sim_now() > 3 * S ? sim_now() - 3 * S : 0);
    if (killed || !l->said_stop || l->dropped > 0 || l->lossy)
        return;
    /* Promise: 3 when something was cut off, an exchange or the save, else not; but for one that had to give up, with
     * 1, which saves nothing. */
    bool gave_up = status == 1 && l->unsaved;
    if ((status == 3 && l->cut == 0 && !l->unsaved) || (status != 3 && l->cut > 0 && !gave_up))
        sim_fail("exit", "the exit status is %d, and the log says that %" PRIu64 " exchanges were cut off", status,
                 l->cut);
}

/* ---- deliveries ---- */

/* Was the backend unavailable both before and after that turn? */
static bool surely(unsigned backend, uint64_t turn, bool available)
{
    const struct known *k = &seen.backends[backend];
    if (wanders(backend))
        return false;
    if (k->turn < turn)
        return k->available == available;
    return k->turn == turn && !k->flapped && k->available == available && k->before == available;
}

/* Promise: no request goes to a backend that is known to be down while another is available. */
static void check_choice(const struct request *r, unsigned backend, uint64_t turn)
{
    /* Where memory is short, a line may be missing. */
    if (turn >= process.turns) /* or what was known in that turn has not been told yet */
        return;
    if (seen.lagging || fault_since(SHOWN_HEAP, process.begun) || !surely(backend, turn, false))
        return;
    for (unsigned i = 0; i < world.set.backends; i++)
        if (surely(i, turn, true))
            sim_fail("choice", "request %u was sent to backend %u, known to be down, while backend %u was available",
                     r->id, backend, i);
}

/* Promise: a backend that a reload has removed gets no request that came after it. */
static void check_gone(const struct request *r, unsigned backend)
{
    if (backend == settings_wanderer() && seen.gone_at > 0 && r->sent_at > seen.gone_at && !seen.lagging &&
        !fault_since(SHOWN_HEAP, process.begun))
        sim_fail("reload", "request %u was sent to backend %u, which is not in the config any more", r->id, backend);
}

void judge_delivery(struct request *r, unsigned backend, uint64_t turn, uint64_t at)
{
    r->deliveries++;
    tally.deliveries++;
    trace("deliver id backend times", r->id, backend, r->deliveries);
    if (r->deliveries == 1)
        r->first_delivery = sim_now();
    r->last_attempt_at = at > r->last_attempt_at ? at : r->last_attempt_at;
    if (r->deliveries > 1 && !r->idempotent)
        sim_fail("twice", "%s request %u was delivered twice, now to backend %u", r->method, r->id, backend);
    /* Each attempt may have had a stale connection to replace. */
    if (r->deliveries > 2 * (world.set.attempts + 1))
        sim_fail("retries", "request %u was delivered %u times", r->id, r->deliveries);
    check_choice(r, backend, turn);
    check_gone(r, backend);
}

/* ---- answers ---- */

/* Has anything been wrong, while the request was under way, that a backend could not be reached for? */
static bool was_in_trouble(const struct request *r)
{
    if (fault_since(SHOWN_HEAP | SHOWN_DESCRIPTORS | SHOWN_EPOLL | SHOWN_CONNECT, r->sent_at))
        return true;
    for (unsigned i = 0; i < r->served_count; i++)
        if (!r->served[i].whole || r->served[i].doubtful)
            return true;
    return backends_unwell_since(r->sent_at);
}

/* Has it lost its connection, perhaps, to a backend (BACKENDS_MAX: any) that closed it at that moment? What may be sent
 * twice is given a fresh one then. */
static bool met_close(const struct request *r, unsigned backend)
{
    return !r->idempotent && backend_closed_kept_since(backend, r->sent_at);
}

/* Has the loop stood still in mid-turn, longer than a time-out can be? Some 200 ms before `since` counts, too: the turn
 * that it stood still in was to go on. */
static bool stalled_since(uint64_t since)
{
    return fault_since(SHOWN_STALL, since > 200 * MS ? since - 200 * MS : 0);
}

/* Do the two share a bucket? */
static bool is_same_client(const struct request *a, const struct request *b)
{
    const char *name = client_identity(a->client), *other = client_identity(b->client);
    return *name || *other ? strcmp(name, other) == 0 : world.set.unix_listen || a->client == b->client;
}

static int by_time(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

/* When, at the latest and not after `until`, each request of r's client but r took its token, in order; a copy. That of
 * a client which has gone may be read much later. */
static uint64_t *tokens_taken(const struct request *r, uint64_t until, size_t *n)
{
    uint64_t *at = calloc(count, sizeof *at);
    if (!at)
        abort();
    *n = 0;
    for (uint32_t i = 0; i < count; i++) {
        const struct request *o = requests[i];
        bool refused = o->outcome == OUTCOME_ANSWERED && o->own_answer && o->status == 429;
        if (o != r && o->sent_at > 0 && !refused && is_same_client(r, o))
            at[(*n)++] = o->outcome != OUTCOME_ANSWERED || o->ended_at > until ? until : o->ended_at;
    }
    qsort(at, *n, sizeof *at, by_time);
    return at;
}

/* Capacity and tokens a nanosecond: the least that the client can have had. */
static void least_terms(unsigned client, double *capacity, double *rate)
{
    const struct settings *s = &world.set;
    const char *name = client_identity(client);
    unsigned named = *name ? (unsigned)(name[5] - '0') : 0;
    bool address = !*name && client == s->registered;
    *capacity = *name ? s->named_capacity[named] : address ? s->registered_capacity : limits_least_capacity();
    *rate = (*name ? s->named_rate[named] : address ? s->registered_rate : limits_least_rate()) / 1e9;
}

/* Promise: a bucket begins full, and fills at its rate. Was there surely a token for the request? One is the least that
 * there can have been, with each of the others taken as late as may be. Nothing is said where clients may have to share
 * a bucket, or a clock was not right. */
static bool has_tokens_left(const struct request *r)
{
    const char *name = client_identity(r->client);
    double capacity, rate;
    least_terms(r->client, &capacity, &rate);
    double level = capacity;
    uint64_t until = r->sent_at > 10 * MS ? r->sent_at - 10 * MS : 0, last = 0;
    if (!*name && world.set.max_tracked < 100)
        return false;
    if (world.wall_steps > 0 || stalled_since(r->sent_at))
        rate = 0;
    size_t n;
    uint64_t *at = tokens_taken(r, until, &n);
    for (size_t i = 0; i < n; last = at[i++]) {
        level += rate * (double)(at[i] - last);
        level = (level < capacity ? level : capacity) - 1;
        level = level > 0 || rate == 0 ? level : 0;
    }
    free(at);
    return level + rate * (double)(until - last) >= 1.001;
}

/* Was there a moment, while it was under way, in which no backend was known to be available? For want of memory the log
 * may have lost the line that says so. */
static bool none_was_available(const struct request *r)
{
    return seen.none_until >= r->sent_at || seen.lagging || fault_since(SHOWN_HEAP, process.begun);
}

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* Has it taken longer to come than a time-out of the client's, or than there was in a drain? A first head's time runs
 * from the connection's begin. (What begins in a turn of the loop that stands still is not ended early by that: for
 * connections the loop remembers such turns.) */
static bool was_slow(const struct request *r)
{
    const struct settings *s = &world.set;
    const struct life *l = life(r->life);
    bool whole = r->sent_whole && r->whole_at > 0;
    uint64_t arrived = whole ? least(sim_now(), r->whole_at + network_slack()) : sim_now();
    bool drained = l->drain_begun > 0 && arrived >= l->drain_begun + LAST_CALL;
    bool late = arrived >= r->quiet_from + s->client_header || arrived >= r->head_sent_at + s->client_body ||
                (r->trickles && arrived >= r->sent_at + PACE_SPAN - S);
    return (drained || late) && (!whole || !world.gentle);
}

/* Has its last attempt that is known of waited for an answer as long as backend_response has it? The daemon's clock is
 * that of its turn's begin. */
static bool was_unanswered(const struct request *r)
{
    uint64_t since = r->last_attempt_at > r->sent_at ? r->last_attempt_at : r->sent_at;
    return (sim_now() + 10 * MS >= since + world.set.backend_response && !world.gentle) || stalled_since(since);
}

/* Were there more connections than there may be when its connection was taken, so that it was refused unread? */
static bool was_crowded(const struct request *r)
{
    return r->deliveries == 0 && net_crowded_at() >= r->quiet_from && net_crowded_at() > 0;
}

/* Without memory for buckets of their own addresses share one. */
static bool may_share(const struct request *r)
{
    return !*client_identity(r->client) && fault_since(SHOWN_HEAP, process.begun);
}

/* May the daemon have said this of its own, as things are? */
static bool is_excused(const struct request *r, unsigned status)
{
    const struct settings *s = &world.set;
    switch (status) {
    case 429: return s->limiter_on && (!has_tokens_left(r) || may_share(r));
    case 408: return was_slow(r);
    case 500: return fault_since(SHOWN_HEAP, r->sent_at);
    case 502: return was_in_trouble(r) || stalled_since(r->sent_at) || met_close(r, BACKENDS_MAX);
    case 504: return was_unanswered(r);
    case 503: return s->capped || none_was_available(r) || was_crowded(r) || was_in_trouble(r);
    default: return false;
    }
}

/* What is kept of a request's content for another attempt, and no more. */
#define KEPT_MAX 65536u

/* Promise: what may be sent again is, to its last attempt, while some backend is available and the budget allows it. Of
 * heads over the limit two are enough. */
static bool was_given_up_early(const struct request *r)
{
    unsigned huge = 0;
    for (unsigned i = 0; i < r->served_count; i++)
        huge += r->served[i].huge_head;
    return r->idempotent && r->length <= KEPT_MAX && r->attempts < world.set.attempts + 1 && !r->over_budget &&
           huge < 2 && !r->then.none && !r->then.hindered;
}

/* How many requests besides that one may have waited while it was under way? The daemon may learn late, or not at all,
 * that a client has gone. */
static unsigned open_beside(const struct request *r)
{
    unsigned n = 0;
    for (uint32_t i = 0; i < count; i++) {
        const struct request *o = requests[i];
        uint64_t until = o->outcome == OUTCOME_OPEN       ? UINT64_MAX
                         : o->outcome == OUTCOME_ANSWERED ? o->ended_at
                                                          : o->ended_at + world.set.queue_timeout + network_slack();
        n += o != r && o->sent_at > 0 && o->life == r->life && until >= r->sent_at;
    }
    return n;
}

/* Was there a cause for the reason that the log has for its 503? */
static bool is_refused_rightly(const struct request *r)
{
    const struct settings *s = &world.set;
    if (strcmp(r->reason, "queue_timeout") == 0)
        return s->capped && (r->queued_ms + 1) * MS >= s->queue_timeout;
    if (strcmp(r->reason, "queue_full") == 0)
        return s->capped && (r->then.open >= s->queue_size || r->then.hindered);
    return strcmp(r->reason, "no_backend") == 0 && r->then.none;
}

/* The same once more, when both the answer has come and the log's line: does what that says fit? */
static void check_reason(const struct request *r)
{
    if (r->outcome != OUTCOME_ANSWERED || !r->own_answer || r->logged == 0 || r->logged_status != r->status)
        return;
    if (r->status == 502 && !r->then.trouble && !met_close(r, r->logged_backend))
        sim_fail("answers", "%s request %u got 502, and backend %u was well", r->method, r->id, r->logged_backend);
    if (r->status == 503 && !is_refused_rightly(r))
        sim_fail("answers", "%s request %u got 503 for %s, and there was no cause for that", r->method, r->id,
                 r->reason);
    if (r->status == 502 && was_given_up_early(r))
        sim_fail("retries", "%s request %u got 502 after %u attempts of %u, and there was no reason for it", r->method,
                 r->id, r->attempts, world.set.attempts + 1);
}

bool judge_was_killed(unsigned in_life)
{
    return life(in_life)->end == LIFE_KILLED;
}

void judge_power_cut(void)
{
    for (unsigned i = 0; i <= world.deaths; i++)
        life(i)->powerless = true;
}

/* Has its process, or the kernel that was still to bring what a process had written, come to a sudden end? */
static bool was_killed(const struct request *r)
{
    const struct life *l = life(r->life);
    return r->deaths != r->life || l->end == LIFE_KILLED || l->powerless;
}

void judge_own_answer(unsigned in_life, unsigned status)
{
    if (status < STATUS_MAX)
        life(in_life)->own[status]++;
}

void judge_answer(struct request *r, unsigned status, bool own)
{
    if (r->outcome != OUTCOME_OPEN)
        sim_fail("responses", "request %u got a second answer", r->id);
    r->outcome = OUTCOME_ANSWERED;
    r->ended_at = sim_now();
    r->status = status;
    r->own_answer = own;
    tally.answered++;
    if (own)
        tally.own++;
    else
        tally.forwarded++;
    if (own && !is_excused(r, status))
        sim_fail("answers", "%s request %u got %u, and there was no reason for it", r->method, r->id, status);
    r->then.crowded = was_crowded(r);
    r->then.open = status == 503 ? open_beside(r) : 0;
    r->then.none = none_was_available(r);
    r->then.trouble = was_in_trouble(r) || stalled_since(r->sent_at);
    r->then.hindered = fault_since(SHOWN_HEAP | SHOWN_DESCRIPTORS | SHOWN_EPOLL | SHOWN_CONNECT, r->sent_at);
    check_reason(r);
}

/* Did it perhaps come too late for a process that was told to end? A connection has a second for a last request. */
static bool missed_last_call(const struct request *r)
{
    return r->deliveries == 0 &&
           (r->may_stall || r->head_sent_at + network_slack() > life(r->life)->drain_begun + LAST_CALL);
}

/* Was its process told to end, so that it may have been cut off? Whoever is served when SIGTERM comes, or asks in time
 * behind it, is served to the end, or to the deadline. */
static bool drain_excuses(struct request *r)
{
    const struct life *l = life(r->life);
    if (l->drain_begun == 0)
        return false;
    if (missed_last_call(r))
        return true;
    if (sim_now() + 10 * MS < l->drain_begun + world.set.shutdown && !l->hurried && !stalled_since(l->drain_begun))
        return false;
    r->cut_up = true;
    return true;
}

/* May the daemon have lost patience with a client that is not always in time: because it took nothing of its answer, or
 * sent nothing more of its request, for as long as the time-outs have it, or went below the pace? */
static bool was_waited_for(const struct request *r)
{
    const struct settings *s = &world.set;
    uint64_t by = sim_now() + network_slack(), write = s->client_write;
    for (unsigned i = 0; i < r->served_count; i++)
        if (r->served[i].protocol) /* a tunnel already, to all but the client */
            write = least(write, s->tunnel);
    bool untaken = r->fed_at >= r->sent_at && by >= r->fed_at + write;
    bool unsent = !r->sent_whole && by >= r->last_sent + s->client_body;
    uint64_t longest = s->client_write > s->client_body ? s->client_write : s->client_body;
    bool slow = by >= r->sent_at + (longest > PACE_SPAN ? longest : PACE_SPAN);
    return r->may_stall && (untaken || unsent || slow || stalled_since(r->sent_at));
}

void judge_cut(struct request *r, const struct served *from, bool own_fault, const char *how)
{
    if (r->outcome != OUTCOME_OPEN)
        return;
    r->outcome = OUTCOME_CUT;
    r->ended_at = sim_now();
    tally.cut++;
    uint64_t on_its_way = 10 * MS + 30 * kernel.latency; /* what it heard last, in pieces */
    /* The connection may have been given up when the answer before this one had just been written. */
    uint64_t since = r->quiet_from > on_its_way ? r->quiet_from - on_its_way : 0;
    if (own_fault || request_was_cut(r, from) || was_waited_for(r) || was_killed(r) ||
        fault_since(SHOWN_HEAP | SHOWN_DESCRIPTORS | SHOWN_EPOLL, since) || drain_excuses(r))
        return;
    /* Whoever is late may find the connection closed for idleness or out of time, or be one too many. */
    const struct settings *s = &world.set;
    uint64_t patience = least(s->client_idle, least(s->client_header, s->client_body));
    if (r->served_count == 0 && (sim_now() - r->quiet_from + on_its_way >= patience || s->connections < 100))
        return;
    sim_fail("cut", "%s request %u: the connection was ended (%s) without its answer", r->method, r->id, how);
}

/* ---- tunnels ---- */

uint64_t network_slack(void)
{
    return 100 * MS + 30 * kernel.latency;
}

/* When the daemon last wrote of it. */
static uint64_t fed_at(const struct flow *f)
{
    return f->sink ? end_fed_at(f->sink) : f->fed_at;
}

/* Has the daemon perhaps been unable to write more of it, for as long as it tries? */
static bool is_untaken(const struct flow *f)
{
    return f->sent > f->received && sim_now() + MS >= fed_at(f) + world.set.tunnel;
}

/* May the daemon have cut the tunnel, as things are? */
static bool tunnel_is_excused(struct request *r, const struct served *s)
{
    uint64_t up = fed_at(&r->up), down = fed_at(&s->down), moved = up > down ? up : down;
    if (r->up.left || s->down.left || was_killed(r) ||
        fault_since(SHOWN_HEAP | SHOWN_DESCRIPTORS | SHOWN_EPOLL, r->sent_at))
        return true;
    /* The daemon's clock is that of its turn's begin, a little before it wrote. */
    bool out_of_time = sim_now() + MS >= moved + world.set.tunnel;
    return out_of_time || is_untaken(&r->up) || is_untaken(&s->down) || stalled_since(moved) || drain_excuses(r);
}

/* Promise: a tunnel is open until both sides have ended it, each having got all that the other sent; what is cut has a
 * cause, and is seen to be cut: by a reset, where there are resets. */
void judge_tunnel_cut(struct request *r, struct served *s, bool client, const char *how)
{
    const struct flow *in = client ? &s->down : &r->up;
    bool local = client ? world.set.unix_listen : world.set.backend[s->backend].unix_socket;
    bool killed = was_killed(r);
    /* A backend's 101 may come too late, when nobody waits for it any more. If the client gets it all the same, its own
     * end will be judged. */
    if (!client && r->switched != s) {
        s->tunnel_cut = true;
        return;
    }
    r->tunnel_cut = true;
    if (strcmp(how, "FIN") == 0 && !local && !killed)
        sim_fail("tunnel", "request %u: its %s gets FIN behind %" PRIu64 " of %" PRIu64 " bytes%s", r->id,
                 client ? "client" : "backend", in->received, in->sent,
                 in->ended ? "" : ", and the other side has not ended");
    if (!tunnel_is_excused(r, s))
        sim_fail("tunnel", "request %u: its %s's end of the tunnel was cut (%s), and there was no reason for it", r->id,
                 client ? "client" : "backend", how);
}

/* Have both sides ended it in order? */
static bool tunnel_is_whole(const struct request *r)
{
    return r->switched && r->up.ended && r->switched->down.ended && !r->up.left && !r->switched->down.left;
}

static void check_tunnel(const struct request *r)
{
    bool killed = was_killed(r);
    if (tunnel_is_whole(r) && !r->tunnel_cut && !killed && !(r->up.seen && r->switched->down.seen))
        sim_fail("tunnel", "request %u: both sides have ended its tunnel, and one does not know", r->id);
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

/* What a client may: one policy throughout, or those of the unregistered as reloads have changed them. */
struct allowance {
    double capacity, rate;
    bool by_default;
    bool or_first;     /* a caller registers it now and then, with the numbers of world.set */
    unsigned restarts; /* that may have filled its bucket */
};

static double made_until(const struct allowance *a, uint64_t at)
{
    return a->by_default ? limits_made(at, a->or_first) : a->rate * (double)at / 1e9;
}

static double capacity_in(const struct allowance *a, const struct pass *p)
{
    return a->by_default ? limits_capacity(p->low, p->high, a->or_first) : a->capacity;
}

/* Promise: capacity + rate x T. For passes i..j in order, T is at most high(j) - low(i). Over a change it is the
 * capacity of before, and each rate for as long as it is in force. */
static void check_bound(const char *who, struct pass *p, unsigned n, const struct allowance *a)
{
    double best = 0;
    qsort(p, n, sizeof *p, by_low);
    uint64_t high = 0;
    for (unsigned j = 0; j < n; j++) {
        if (p[j].high > high)
            high = p[j].high;
        double before = (double)j + capacity_in(a, &p[j]) - made_until(a, p[j].low);
        if (j == 0 || before < best)
            best = before;
        double excess = (double)(j + 1) - made_until(a, high) - best - a->capacity * a->restarts;
        if (excess > 0.01)
            sim_fail("limit", "%s: %.3f requests more have passed than capacity %g and rate %g%s allow (%u restarts)",
                     who, excess, a->capacity, a->rate, a->by_default && world.varied ? ", or others," : "",
                     a->restarts);
    }
}

/* Did the request pass the limiter, as far as can be told from outside? */
static bool has_passed(const struct request *r)
{
    return r->deliveries > 0;
}

static void check_identity(const char *name, unsigned client, const struct allowance *a)
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
    check_bound(name ? name : "an address", passes, n, a);
    free(passes);
}

/* All buckets of the unregistered go with their process. */
static void check_address(unsigned client, unsigned crashes)
{
    const struct settings *s = &world.set;
    struct allowance registered = {s->registered_capacity, s->registered_rate, .restarts = crashes};
    struct allowance unregistered = {s->capacity, s->rate, .by_default = true, .or_first = callers_register(client),
                                     .restarts = world.deaths};
    check_identity(NULL, client, client == s->registered ? &registered : &unregistered);
}

static void check_limits(void)
{
    if (!world.set.limiter_on)
        return;
    /* What a power cut may give back: tokens of a snapshot that is save_interval old; and a kill, where a call for the
     * file that they are in has failed. */
    unsigned crashes = world.power_cuts + world.wall_steps + world.lossy_stops;
    if (fault_since(SHOWN_DISK | SHOWN_HEAP | SHOWN_DESCRIPTORS | SHOWN_SYNC, 0))
        crashes += world.kills;
    for (unsigned i = 0; i < NAMED_MAX; i++) {
        struct allowance a = {world.set.named_capacity[i], world.set.named_rate[i], .restarts = crashes};
        char name[16];
        snprintf(name, sizeof name, "named%u", i);
        check_identity(name, 0, &a);
    }
    for (unsigned i = 0; i < CLIENTS_MAX && !world.set.unix_listen; i++)
        if (!client_is_exempt(i))
            check_address(i, crashes);
    for (uint32_t i = 0; i < count; i++)
        if (requests[i]->status == 429 && client_is_polite(requests[i]->client) && crashes == 0)
            sim_fail("limit", "request %u was refused, though its client asks more slowly than its rate",
                     requests[i]->id);
}

/* ---- the end ---- */

static bool may_lack_line(const struct request *r)
{
    /* One that stopped in mid-head has no target in the log; a connection over the limit is refused unread, which is
     * an event of its own. */
    return (r->own_answer && r->status == 408) || (r->own_answer && r->status == 503 && r->then.crowded);
}

static void check_line(const struct request *r)
{
    if (r->logged_status != r->status)
        sim_fail("log", "request %u was answered with %u; the log says %u", r->id, r->status, r->logged_status);
    if (r->own_answer && !r->logged_reason)
        sim_fail("log", "request %u was answered with %u, and the log has no reason", r->id, r->status);
    if (!r->switched)
        return;
    /* On unix sockets there are no resets: what was cut at the deadline, with nothing left to say but the end, looks as
     * if it had ended in order. */
    bool local = world.set.unix_listen || world.set.backend[r->switched->backend].unix_socket;
    bool unseen = local && life(r->life)->drain_begun > 0;
    if (r->logged_reason && !unseen && tunnel_is_whole(r) && r->up.seen && r->switched->down.seen)
        sim_fail("log", "the tunnel of request %u was ended in order, and the log has a reason", r->id);
    if (!r->logged_reason && r->tunnel_cut && !tunnel_is_whole(r) && !r->up.left && !r->switched->down.left)
        sim_fail("log", "the tunnel of request %u was cut, and the log has no reason", r->id);
}

/* Promise: each answer has its line in the log, each error answer its reason; what was dropped has been counted. */
static void check_log(unsigned index)
{
    const struct life *l = life(index);
    uint64_t missing = 0;
    if (l->end == LIFE_KILLED || l->lossy)
        return;
    for (uint32_t i = 0; i < count; i++) {
        const struct request *r = requests[i];
        if (r->outcome != OUTCOME_ANSWERED || r->life != index || may_lack_line(r))
            continue;
        if (r->logged > 0)
            check_line(r);
        else if (++missing > l->dropped)
            sim_fail("log", "request %u was answered with %u, and the log does not say so", r->id, r->status);
    }
    for (unsigned status = 400; status < STATUS_MAX; status++) {
        bool unread = status == 503 && world.set.connections < 100;
        if (!unread && l->own[status] > l->reasons[status] + l->dropped)
            sim_fail("log", "%u answers %u of the daemon's own, %u lines with a reason in its log, %" PRIu64 " dropped",
                     l->own[status], status, l->reasons[status], l->dropped);
    }
}

/* Promise: the exit status says whether a request was cut off. One whose line has no reason, and whose answer is all
 * with the kernel, is not: to close the connection can still take from the client what is on its way (RFC 9112 9.6). */
static void check_exit(unsigned index)
{
    const struct life *l = life(index);
    if (l->end != LIFE_EXITED || l->status != 0 || l->lossy || l->dropped > 0)
        return;
    for (uint32_t i = 0; i < count; i++) {
        const struct request *r = requests[i];
        bool written = r->logged > 0 && !r->logged_reason && !r->unwritten;
        if (r->life == index && r->cut_up && !written)
            sim_fail("exit", "request %u was cut off at the deadline, and the exit status is 0", r->id);
    }
}

void judge_sum_up(void)
{
    check_limits();
    for (unsigned i = 0; i < life_count; i++) {
        check_log(i);
        check_exit(i);
    }
    for (uint32_t i = 0; i < count; i++) {
        if (requests[i]->outcome == OUTCOME_OPEN && requests[i]->sent_at > 0)
            sim_fail("answers", "request %u has neither been answered nor cut", requests[i]->id);
        check_tunnel(requests[i]);
    }
}

void judge_begin(void)
{
    struct bytes line = seen.line;
    bytes_clear(&line);
    memset(&seen, 0, sizeof seen);
    seen.line = line;
    count = life_count = 0;
    limits_begin();
    judge_start();
}

void judge_end(void)
{
    for (uint32_t i = 0; i < count; i++)
        free(requests[i]);
    count = 0;
}
