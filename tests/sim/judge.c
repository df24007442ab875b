/* The judge: what was asked, who got it, and what the log says of it; and from that, whether the promises were kept.
 * Most are judged when something happens, some when the run is over. See judge_impl.h. */
#include "judge_impl.h"

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

uint32_t request_count(void)
{
    return count;
}

/* ---- the log ---- */

/* More than ten seconds can have. */
#define RETRIES_KEPT 8192u

/* What the log says of a backend, as of the end of a turn. */
struct known {
    bool available;
    uint64_t turn;          /* since that turn's end */
    bool before;            /* what was known until then */
    bool flapped;           /* in that turn it changed more than once */
    uint64_t unavailable;   /* until then; UINT64_MAX: it is so now */
    uint64_t ejected_until; /* 0: not by failed requests */
    bool on_trial;          /* it has come back from that, on trial at first */
    uint64_t untold_trial;  /* since then it may be so again, or still, without a line that says it; 0: not */
    uint64_t trial_until;   /* when the last one was over, by a line or untold */
};

static bool is_on_trial(const struct known *k)
{
    return k->on_trial || k->untold_trial > 0;
}

static struct life *lives;
static unsigned life_count;

struct life *judge_life(unsigned i)
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
    return judge_life(world.deaths);
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

/* A trial outlives that the checks take the backend down and let it come back, and begins without a line where the
 * ejection is over in between. */
static void note_trial(struct known *k, bool available, const char *cause)
{
    bool ejected = strncmp(cause, "ejected", 7) == 0, answered = strncmp(cause, "answered", 8) == 0;
    bool before = is_on_trial(k);
    if (ejected || answered)
        k->untold_trial = 0;
    else if (k->on_trial || (available && k->ejected_until > 0))
        k->untold_trial = sim_now();
    k->on_trial = strncmp(cause, "ejection over", 13) == 0;
    if (before && !is_on_trial(k))
        k->trial_until = sim_now();
}

void judge_backend_answered(unsigned backend, uint64_t delivered_at)
{
    struct known *k = &seen.backends[backend];
    if (k->untold_trial == 0 || delivered_at <= k->untold_trial)
        return;
    k->untold_trial = 0;
    if (!k->on_trial)
        k->trial_until = sim_now();
}

static void set_known(unsigned backend, bool available, const char *cause)
{
    struct known *k = &seen.backends[backend];
    unsigned ms = 0;
    note_trial(k, available, cause);
    k->ejected_until = sscanf(cause, "ejected for %u ms", &ms) == 1 ? sim_now() + ms * MS : 0;
    k->flapped = k->turn == process.turns;
    if (!k->flapped)
        k->before = k->available;
    if (!available)
        k->unavailable = UINT64_MAX;
    else if (!k->available)
        k->unavailable = sim_now();
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
    set_known(backend, up, cause);
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
    char next[32], target[64] = "";
    unsigned id = 0;
    field(line, "next", next, sizeof next);
    if (strcmp(next, "fresh connection") == 0) {
        tally.stale_replaced++;
        return;
    }
    field(line, "target", target, sizeof target);
    struct request *r = sscanf(target, "/r/%u", &id) == 1 ? request_find(id) : NULL;
    if (r)
        r->failed_at |= 1u << backend_of(line);
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
    r->logged_in_drain |= judge_life(r->life)->drain_begun > 0;
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
    judge_check_reason(r);
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
    if (strcmp(event, "log_dropped") == 0)
        present()->dropped += number(line, "lines");
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

bool judge_was_killed(unsigned in_life)
{
    return judge_life(in_life)->end == LIFE_KILLED;
}

void judge_power_cut(void)
{
    for (unsigned i = 0; i <= world.deaths; i++)
        judge_life(i)->powerless = true;
}

bool judge_is_killed(const struct request *r)
{
    const struct life *l = judge_life(r->life);
    return r->deaths != r->life || l->end == LIFE_KILLED || l->powerless;
}

void judge_own_answer(unsigned in_life, unsigned status)
{
    if (status < STATUS_MAX)
        judge_life(in_life)->own[status]++;
}

/* For want of memory the log may have lost the line that says so. */
bool judge_none_available(const struct request *r)
{
    return seen.none_until >= r->sent_at || seen.lagging || fault_since(SHOWN_HEAP, process.begun);
}

bool judge_was_unavailable(unsigned backend, uint64_t since)
{
    for (unsigned i = 0; i < BACKENDS_MAX; i++)
        if ((backend == i || backend == BACKENDS_MAX) && seen.backends[i].unavailable >= since)
            return true;
    return false;
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

/* One that is ejected, and not known to be down by its checks, may get a request that has failed at the available ones;
 * such as are on trial may have another's just then. */
static bool may_try_ejected(const struct request *r, unsigned backend, unsigned available)
{
    const struct known *k = &seen.backends[available];
    bool tried = r->failed_at & 1u << available;
    uint64_t chosen_by = r->last_attempt_at, before = world.set.connect + network_slack(); /* at most that */
    bool on_trial = is_on_trial(k) || chosen_by <= k->trial_until + before;
    return chosen_by <= seen.backends[backend].ejected_until + before && r->failed_at > 0 && (tried || on_trial);
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
        if (surely(i, turn, true) && !may_try_ejected(r, backend, i))
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
    bool unseen = local && judge_life(r->life)->drain_begun > 0;
    if (r->logged_reason && !unseen && judge_tunnel_is_whole(r) && r->up.seen && r->switched->down.seen)
        sim_fail("log", "the tunnel of request %u was ended in order, and the log has a reason", r->id);
    if (!r->logged_reason && r->tunnel_cut && !judge_tunnel_is_whole(r) && !r->up.left && !r->switched->down.left)
        sim_fail("log", "the tunnel of request %u was cut, and the log has no reason", r->id);
}

/* Promise: each answer has its line in the log, each error answer its reason; what was dropped has been counted. */
static void check_log(unsigned index)
{
    const struct life *l = judge_life(index);
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

/* Promise: the exit status says whether a request was cut off. One whose line has no reason, or came before the drain,
 * and whose answer is all with the kernel, is not: to close the connection can still take from the client what is on
 * its way (RFC 9112 9.6). */
static void check_exit(unsigned index)
{
    const struct life *l = judge_life(index);
    if (l->end != LIFE_EXITED || l->status != 0 || l->lossy || l->dropped > 0)
        return;
    for (uint32_t i = 0; i < count; i++) {
        const struct request *r = requests[i];
        bool written = r->logged > 0 && (!r->logged_reason || !r->logged_in_drain) && !r->unwritten;
        if (r->life == index && r->cut_up && !written)
            sim_fail("exit", "request %u was cut off at the deadline, and the exit status is 0", r->id);
    }
}

void judge_sum_up(void)
{
    judge_check_limits();
    for (unsigned i = 0; i < life_count; i++) {
        check_log(i);
        check_exit(i);
    }
    for (uint32_t i = 0; i < count; i++) {
        if (requests[i]->outcome == OUTCOME_OPEN && requests[i]->sent_at > 0)
            sim_fail("answers", "request %u has neither been answered nor cut", requests[i]->id);
        judge_check_tunnel(requests[i]);
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
