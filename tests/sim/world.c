/* A run of the simulation: settings by the seed, an operator who lets faults, signals, kills and power cuts befall the
 * daemon, and the phases from chaos to a graceful stop.
 *
 *   CHAOS --faults end--> CALM --all is well, time to notice--> VERIFY --60 requests, every id--> TIMING --time-outs-->
 *   QUIET --nothing is left--> STOP                                                                                */
#include "world.h"

#include "disk.h"
#include "event/loop.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LOOK (50 * MS)

struct world world;
struct tally tally;

static struct rng operator_stream;
static unsigned base_fds;
static bool base_is_unsure;
static size_t base_heap;
static uint64_t phase_since, busy_until;
static bool started_well;

/* ---- faults ---- */

#define SHOWN_KINDS 8u
#define ON_DISK     (SHOWN_DISK | SHOWN_SYNC)

static struct {
    unsigned counted;
    uint64_t at; /* when it had grown */
} shown[SHOWN_KINDS];

void faults_look(void)
{
    const struct fault_counts *k = &kernel.shown;
    const unsigned now[SHOWN_KINDS] = {k->heap, k->descriptors, k->epoll, k->connect,
                                       k->disk, k->sync,        k->start, k->stall};
    for (unsigned i = 0; i < SHOWN_KINDS; i++)
        if (now[i] != shown[i].counted) {
            shown[i].counted = now[i];
            shown[i].at = sim_now();
        }
}

bool fault_since(unsigned kinds, uint64_t since)
{
    faults_look();
    if ((kinds & SHOWN_DISK) && world.disk_full)
        return true;
    for (unsigned i = 0; i < SHOWN_KINDS; i++)
        if ((kinds & 1u << i) && shown[i].counted > 0 && shown[i].at >= since)
            return true;
    return false;
}

/* ---- what the operator does ---- */

static struct event restart_event, phase_event, deadline_event, early_kill_event, early_cut_event;

static void on_early_kill(struct event *e)
{
    (void)e;
    if (!process_alive() || world.phase != PHASE_CHAOS)
        return;
    world.kills++;
    tally.kills++;
    trace_text("kill -9, soon after the start");
    world.cut_next_start = rng_chance(&operator_stream, 500);
    process_kill();
}

/* What a killed process has left half done, and the next has not finished, is lost now. */
static void on_early_cut(struct event *e)
{
    (void)e;
    if (process_alive() && world.phase == PHASE_CHAOS)
        operator_cut_power();
}

static void start_process(void)
{
    if (process_alive())
        return;
    settings_write();
    world.draining = world.log_stalled = started_well = false;
    base_fds = 0;
    tally.starts++;
    trace_text("the daemon is started");
    judge_start();
    backends_new_process();
    process_start();
    loop_batch = world.set.batch; /* only now: a start puts the daemon's globals back */
    if (world.kill_next_start)
        event_set_in(&early_kill_event, rng_spread(&operator_stream, 1, 8 * MS));
    world.kill_next_start = false;
    if (world.cut_next_start)
        event_set_in(&early_cut_event, rng_spread(&operator_stream, 5 * MS, 300 * MS));
    world.cut_next_start = false;
}

static void on_restart(struct event *e)
{
    (void)e;
    start_process();
}

/* With slow disks a save has five seconds, what its threads are still at likewise, the log two; and the loop's thread
 * makes some calls of its own. */
static uint64_t drain_allowance(bool slow)
{
    return world.set.shutdown + (slow ? 20 * S : 3 * S);
}

static void on_deadline(struct event *e)
{
    /* The disk may have become slow since, and quick again. */
    bool was_slow = kernel.slow_at > world.drain_begun && sim_now() < kernel.slow_at + 3 * S;
    bool slow = kernel.faults.slow_disk || was_slow;
    if (slow && sim_now() - world.drain_begun < drain_allowance(slow)) {
        event_set_in(e, S);
        return;
    }
    if (process_alive() && world.draining)
        sim_fail("drain", "%" PRIu64 " ms after SIGTERM the daemon still runs; timeouts.shutdown is %" PRIu64 " ms",
                 (sim_now() - world.drain_begun) / MS, world.set.shutdown / MS);
}

void world_stop_daemon(void)
{
    if (!process_alive() || !process.serving)
        return;
    if (!world.draining) {
        world.draining = true;
        world.stops++;
        world.drain_begun = sim_now();
        event_set_in(&deadline_event, drain_allowance(kernel.faults.slow_disk));
    } else {
        world.double_signals++;
    }
    judge_drain(world.double_signals > 0);
    process_signal(rng_chance(&operator_stream, 500) ? SIGTERM : SIGINT);
}

/* ---- the process's end ---- */

/* Is this exit of a start that failed as it should be? */
static void check_failed_start(const char *said, int n)
{
    bool may = fault_since(ON_DISK | SHOWN_HEAP | SHOWN_DESCRIPTORS | SHOWN_EPOLL | SHOWN_START, process.begun);
    bool unreadable = process.status == 2 && memmem(said, (size_t)n, "cannot be read", 14);
    if (!may || (process.status != 1 && !unreadable) || n == 0)
        sim_fail("start", "the daemon did not start: exit status %d: %.*s", process.status, n, said);
}

/* Promise: a process that does not wait for its threads any longer has been kept waiting by the disk, or been told
 * twice to end, while one of them was at the disk; and says that something was cut off. */
static void check_abrupt_end(void)
{
    bool asked = kernel.slow_at > world.drain_begun || world.double_signals > 0;
    if (!process.on_disk || !asked || process.status == 0)
        sim_fail("exit", "the daemon ended by _exit() with status %d%s%s", process.status,
                 process.on_disk ? "" : ", with no thread at the disk", asked ? "" : ", and nothing had made it hurry");
}

/* Is this exit as it should be? */
static void check_exit(void)
{
    const char *said = process.stderr_text.len ? bytes_at(&process.stderr_text) : "";
    int n = (int)process.stderr_text.len;
    if (!started_well) {
        check_failed_start(said, n);
        return;
    }
    if (!world.draining)
        sim_fail("exit", "the daemon ended by itself with exit status %d: %.*s", process.status, n, said);
    /* 1: the clients could not be saved. */
    if (process.status == 1 && fault_since(ON_DISK | SHOWN_HEAP, world.drain_begun))
        return;
    /* 3: cut off something, at the deadline or by a second signal. */
    uint64_t took = sim_now() - world.drain_begun;
    if (process.status == 3 && (took + 10 * MS >= world.set.shutdown || world.double_signals ||
                                fault_since(SHOWN_HEAP | SHOWN_STALL, world.drain_begun)))
        return;
    if (process.status != 0)
        sim_fail("exit", "after SIGTERM and %" PRIu64 " ms the exit status is %d", took / MS, process.status);
    callers_check_files();
}

static void restart_later(void)
{
    uint64_t later = rng_spread(&operator_stream, MS, 400 * MS);
    event_set_in(&restart_event, later);
    operator_turns_clocks(later);
}

static void on_process_end(void)
{
    /* One that does not wait for its threads any longer goes as if it were killed, with a status. */
    bool killed = process.end == PROCESS_KILLED || process.abrupt;
    trace("process-ends how status", process.end, process.status, 0);
    trace_text("the daemon has ended: %s, status %d", killed ? "killed" : "exit", process.status);
    if (process.end != PROCESS_KILLED)
        check_exit();
    if (process.abrupt)
        check_abrupt_end();
    world.kills += process.abrupt;
    judge_end_of_life(killed, process.status);
    world.deaths++;
    callers_crashed();
    event_cancel(&deadline_event);
    event_cancel(&early_kill_event);
    event_cancel(&early_cut_event);
    /* One whose last save has failed; when something was cut off besides, the status says that. */
    bool cut = process.status == 3 && fault_since(ON_DISK | SHOWN_HEAP, world.drain_begun);
    world.lossy_stops += !killed && (process.status == 1 || cut);
    world.clean_stops += !killed && process.status == 0;
    world.unsure_starts += judge_start_is_unsure();
    world.draining = false;
    world.double_signals = 0;
    if (world.phase == PHASE_STOP)
        engine_stop();
    else
        restart_later();
}

/* ---- bounds, looked at in each turn ---- */

/* What architecture.md allows: for each connection the buffers at their high-water marks, with what one turn can add,
 * doubled as buffers grow; and the log's lines where their reader is slow. */
static size_t heap_bound(void)
{
    size_t connections = net_accepted_open() + net_made_open();
    size_t log = world.set.log_to_file || world.log_stalled ? 5 * 512 * 1024 : 0;
    return base_heap + 512 * 1024 + log + connections * 256 * 1024;
}

static void on_turn(void)
{
    faults_look();
    if (base_fds == 0 && net_listens(&world.listen)) { /* else it has not started, and ends */
        base_fds = process.open_fds;
        base_is_unsure = judge_start_is_unsure();
        base_heap = process.heap_bytes;
        started_well = true;
    }
    if (started_well && process.heap_bytes > heap_bound())
        sim_fail("memory", "%zu bytes are allocated for %u and %u connections", process.heap_bytes - base_heap,
                 net_accepted_open(), net_made_open());
}

/* ---- the phases ---- */

static void enter(enum phase p)
{
    static const char *const names[] = {"chaos", "calm", "verify", "timing", "quiet", "stop"};
    trace_text("---- %s ----", names[p]);
    trace("phase number", p, 0, 0);
    world.phase = p;
    phase_since = sim_now();
}

static void be_calm(void)
{
    enter(PHASE_CALM);
    kernel.shown.disk += world.disk_full; /* until now */
    kernel.faults = (struct faults){0};
    world.disk_full = false;
    disk_set_room(UINT64_MAX);
    pipe_stall(false);
    tunnels_calm();
    backends_calm();
    clients_calm();
    callers_calm();
}

/* How long it may take the daemon to notice that everything is well. */
static uint64_t time_to_notice(void)
{
    const struct settings *s = &world.set;
    uint64_t checks =
        (s->rise + 2 + 5) * (s->interval + s->check_timeout); /* those of one long down are up to 5 apart */
    bool named = false;
    for (unsigned i = 0; i < s->backends; i++)
        named |= s->backend[i].named;
    /* Without checks a name is asked for every ten seconds. */
    /* A store that a fault has broken is mended after a second; a disk call under way may take another. */
    return checks + s->max_ejection + s->connect + s->slow_start + 3 * S + (named && !s->checks_on ? 11 * S : 0);
}

/* Promise: after an outage the backends get their shares again. By chance or by key they are only about that, and 60
 * requests are few; what stays is that no backup gets any. */
static void check_shares(void)
{
    unsigned weights = 0, slack = world.set.by_turn ? 2 : 60;
    for (unsigned i = 0; i < world.set.backends; i++)
        weights += world.set.backend[i].backup ? 0 : world.set.backend[i].weight;
    for (unsigned i = 0; i < world.set.backends; i++) {
        double share = world.set.backend[i].backup ? 0 : 60.0 * world.set.backend[i].weight / weights;
        double got = backend_counted(i);
        if (got < share - slack || got > share + slack || (share == 0 && got > 2))
            sim_fail("recovery", "of 60 requests backend %u got %.0f instead of %.1f", i, got, share);
    }
}

static void check_quiet(void)
{
    /* Probes come and go; no other connection is left. */
    uint64_t probe = world.set.checks_on ? world.set.check_timeout + S : 0;
    /* The relay may keep its pipe as long as they do. */
    unsigned relay = pipe_ends_open() == 2 ? 2 : 0, expected = base_fds + net_made_open() + relay;
    /* A start on a disk that fails goes without its journal, and a save brings it. */
    bool all = process.open_fds == expected || (base_is_unsure && process.open_fds == expected + 1);
    bool quiet = all && net_accepted_open() == 0 && net_oldest_made() <= probe;
    if (quiet) {
        if (process.heap_bytes > base_heap + 700 * 1024)
            sim_fail("leaks", "all is quiet, and %zu bytes more than at the start are allocated",
                     process.heap_bytes - base_heap);
        enter(PHASE_STOP);
        world_stop_daemon();
        return;
    }
    /* What is being closed may linger for 5 s without bytes. */
    uint64_t patience = world.set.backend_idle + world.set.client_idle + world.set.client_body + 8 * S +
                        (world.set.tunnel_short ? world.set.tunnel : 0);
    if (sim_now() - phase_since > patience) {
        struct bytes left = {0};
        process_describe_leaks(&left);
        sim_fail("leaks", "all is quiet, and %u descriptors instead of %u are open, %u and %u connections: %s",
                 process.open_fds, base_fds, net_accepted_open(), net_made_open(), bytes_at(&left));
    }
}

static _Noreturn void fail_stuck(void)
{
    struct bytes who = {0}, callers = {0};
    clients_describe(&who);
    timing_describe(&who);
    bytes_add(&who, "", 1);
    callers_describe(&callers);
    sim_fail("stuck", "phase %d does not end; the daemon is %s; not done:%s%s", world.phase,
             !process_alive() ? "dead"
             : world.draining ? "draining"
             : !started_well  ? "starting"
                              : "up",
             bytes_at(&who), bytes_at(&callers));
}

/* A process that was begun since has the settings already: then this changes nothing. */
static void restore(void)
{
    world.restored = true;
    if (!world.varied)
        return;
    settings_write();
    operator_reload();
    busy_until = sim_now();
}

static void step_phase(void)
{
    clients_check_stuck();
    if (world.phase != PHASE_CHAOS && sim_now() - phase_since > 120 * S)
        fail_stuck();
    if (world.phase == PHASE_CALM && !world.restored && process_alive() && process.serving && !world.draining)
        restore();
    bool up = process_alive() && started_well && net_listens(&world.listen) && !world.draining;
    /* A request from before may still end badly, and eject a backend. */
    if (!clients_done())
        busy_until = sim_now();
    uint64_t well_since = process.begun > world.chaos_end ? process.begun : world.chaos_end;
    well_since = busy_until > well_since ? busy_until : well_since;
    switch (world.phase) {
    case PHASE_CHAOS:
        if (sim_now() >= world.chaos_end)
            be_calm();
        break;
    case PHASE_CALM:
        if (up && world.restored && clients_done() && sim_now() >= well_since + time_to_notice()) {
            enter(PHASE_VERIFY);
            backends_count_from_here();
            clients_verify();
            callers_verify();
        }
        break;
    case PHASE_VERIFY:
        if (clients_verified() && callers_done()) {
            check_shares();
            enter(PHASE_TIMING);
            timing_begin();
        }
        break;
    case PHASE_TIMING:
        if (timing_done())
            enter(PHASE_QUIET);
        break;
    case PHASE_QUIET: check_quiet(); break;
    case PHASE_STOP: break;
    }
}

static void on_phase(struct event *e)
{
    step_phase();
    /* Out of step with whatever the daemon does at intervals. */
    event_set_in(e, LOOK / 2 + rng_below(&operator_stream, LOOK));
}

/* ---- a run ---- */

static void sum_up(void)
{
    tally.runs++;
    tally.sim_ns += sim_now();
    tally.faults += kernel.shown.heap + kernel.shown.descriptors + kernel.shown.epoll + kernel.shown.connect +
                    kernel.shown.disk + kernel.shown.sync;
}

static void set_up(uint64_t seed)
{
    engine_begin(seed);
    world_forget_parts();
    world = (struct world){.phase = PHASE_CHAOS};
    kernel_begin();
    net_begin();
    disk_begin(rng_of("disk", 0));
    busy_until = 0;
    memset(shown, 0, sizeof shown);
    operator_stream = rng_of("operator", 0);
    settings_draw();
    net_watch_crowd(world.set.connections);
    world.chaos_end = rng_spread(&operator_stream, S, 5 * S);
    kernel.wall_offset = (int64_t)(UINT64_C(1798761600) * S);
    kernel.fd_hard_limit = 3000;
    log_sink = judge_log;
    name_resolver = backends_resolve;
    process.on_end = on_process_end;
    process.on_turn = on_turn;

    operator_boot();
    disk_make_folder("run");
    world.mounted = rng_chance(&operator_stream, 80);
    if (world.mounted)
        disk_mount("clients.json");
    struct bytes first = {0};
    callers_first_file(&first);
    /* After the settings, which it shows. */
    event_init(&restart_event, on_restart);
    event_init(&phase_event, on_phase);
    event_init(&deadline_event, on_deadline);
    event_init(&early_kill_event, on_early_kill);
    event_init(&early_cut_event, on_early_cut);
    world.cut_next_start = false;
    judge_begin();
    if (world.set.limiter_on)
        disk_put("clients.json", bytes_at(&first), first.len);
    bytes_free(&first);
    tunnels_begin();
    backends_begin();
    clients_begin();
    callers_begin();
    operator_plan();
    event_set(&restart_event, 0);
    event_set(&phase_event, LOOK);
}

void world_learn(uint64_t seed)
{
    set_up(seed);
}

void world_run(uint64_t seed)
{
    set_up(seed);
    engine_run();
    if (world.phase != PHASE_STOP)
        sim_fail("stuck", "nothing happens any more");
    judge_sum_up();
    sum_up();

    callers_end();
    timing_end();
    clients_end();
    judge_end();
    kernel_end();
    backends_end();
    net_end();
    disk_end();
    engine_end();
}

void world_summary(struct bytes *out)
{
    bytes_add_text(out,
                   "%" PRIu64 " requests, %" PRIu64 " answered (%" PRIu64 " by a backend, %" PRIu64
                   " by the daemon), %" PRIu64 " cut; %" PRIu64 " deliveries, %" PRIu64 " retries, %" PRIu64
                   " tunnels, %" PRIu64 " messages with trailers; %" PRIu64 " API calls, %" PRIu64 " changes; %" PRIu64
                   " starts, %" PRIu64 " kill -9, %" PRIu64 " power cuts, %" PRIu64 " failing calls",
                   tally.requests, tally.answered, tally.forwarded, tally.own, tally.cut, tally.deliveries,
                   tally.retries, tally.tunnels, tally.trailers, tally.api_calls, tally.api_changes, tally.starts,
                   tally.kills, tally.power_cuts, tally.faults);
}
