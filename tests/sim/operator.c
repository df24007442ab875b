/* The operator, and fate: kills, power cuts, signals, steps of the wall clock, a log reader that stalls, a disk that is
 * full, and windows of time in which calls fail. All of it is planned at the begin, and is over when the chaos ends. */
#include "disk.h"
#include "world.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>

struct deed {
    struct event event;
    void (*run)(struct deed *d);
    unsigned *fault; /* of a window of faults: which one, */
    unsigned rate;   /* and how often */
    bool on;
};
#define DEEDS_MAX 80u
static struct deed deeds[DEEDS_MAX];
static unsigned deed_count;
static struct rng stream;

static void do_kill(struct deed *d)
{
    (void)d;
    if (!process_alive())
        return;
    trace_text("kill -9");
    world.kills++;
    tally.kills++;
    process_kill();
}

/* ... and once more soon after the next start. */
static void do_kill_start(struct deed *d)
{
    world.kill_next_start = true;
    do_kill(d);
}

/* ... and one between the making of a name and the sync of its folder, with a power cut soon after the next start:
 * whatever that start acknowledges hangs on that name. */
static struct event name_kill;
static struct rng name_stream;
static unsigned names_left;

static void on_name_kill(struct event *e)
{
    (void)e;
    if (world.phase != PHASE_CHAOS || !process_alive())
        return;
    world.cut_next_start = true;
    do_kill(NULL);
}

static void on_named(void)
{
    if (--names_left > 0)
        return;
    kernel.named = NULL;
    event_set_in(&name_kill, rng_spread(&name_stream, 1, 300 * US));
}

static void do_kill_name(struct deed *d)
{
    (void)d;
    names_left = (unsigned)rng_between(&name_stream, 1, 4);
    kernel.named = on_named;
}

void operator_boot(void)
{
    char id[64];
    int n = snprintf(id, sizeof id, "00000000-0000-4000-8000-%012" PRIx64 "\n", sim_now() & UINT64_C(0xffffffffffff));
    kernel.boot = sim_now();
    kernel.slept = 0;
    disk_put("proc/sys/kernel/random/boot_id", id, (size_t)n);
}

void operator_cut_power(void)
{
    trace_text("the power is cut");
    world.power_cuts++;
    tally.power_cuts++;
    judge_power_cut();
    net_power_cut();
    process_kill();
    disk_power_cut();
    operator_boot();
}

static void do_power_cut(struct deed *d)
{
    (void)d;
    operator_cut_power();
}

static void do_stop(struct deed *d)
{
    (void)d;
    world_stop_daemon();
}

void operator_reload(void)
{
    process_signal(SIGHUP);
    limits_asked();
}

static void do_hup(struct deed *d)
{
    (void)d;
    static const char bad[] = "{ \"backends\": [ {\"adress\": 7 } ";
    if (!process.serving)
        return; /* it could be reading the file: that is another matter than a reload */
    if (rng_chance(&stream, 500))
        disk_put("config.json", bad, sizeof bad - 1);
    else
        settings_write_changed(&stream);
    operator_reload();
    if (rng_chance(&stream, 200))
        operator_reload(); /* once more while the first is at it */
}

static void do_rotate(struct deed *d)
{
    (void)d;
    if (world.set.log_to_file && disk_exists("lb.log"))
        disk_rename("lb.log", "lb.log.1");
    if (process.serving)
        process_signal(SIGUSR1);
}

static void step_wall_clock(struct rng *r)
{
    int64_t by = (int64_t)rng_spread(r, 1, 7200 * S);
    kernel.wall_offset += rng_chance(r, 500) ? by : -by;
    world.wall_steps++;
    trace("wall-clock-steps ns", by, 0, 0);
}

static void do_wall_step(struct deed *d)
{
    (void)d;
    step_wall_clock(&stream);
}

/* The machine sleeps, by which one of its clocks stands still, and somebody sets another one. */
void operator_turns_clocks(uint64_t ns)
{
    struct rng r = rng_of("clocks", world.deaths);
    if (world.gentle || world.phase != PHASE_CHAOS)
        return;
    if (rng_chance(&r, 500))
        kernel.slept += rng_below(&r, ns);
    if (rng_chance(&r, 200))
        step_wall_clock(&r);
}

static void do_stall_log(struct deed *d)
{
    d->on = !d->on;
    pipe_stall(d->on);
    world.log_stalled = true;
    judge_note_lag();
    trace_text("the log's reader %s", d->on ? "stalls" : "reads again");
    if (d->on)
        event_set_in(&d->event, rng_spread(&stream, MS, 2 * S));
}

static void do_break_log(struct deed *d)
{
    (void)d;
    if (!process_alive())
        return;
    trace_text("the log's reader is gone");
    pipe_break();
    world.log_stalled = true;
    judge_note_lag();
}

static void do_fill_disk(struct deed *d)
{
    d->on = !d->on;
    trace_text("the disk is %s", d->on ? "full" : "empty again");
    world.disk_full = d->on;
    disk_set_room(!d->on ? UINT64_MAX : rng_chance(&stream, 500) ? 0 : rng_spread(&stream, 1, 4000));
    kernel.shown.disk++;
    if (d->on)
        event_set_in(&d->event, rng_spread(&stream, 10 * MS, 2 * S));
}

static void do_faults(struct deed *d)
{
    d->on = !d->on;
    *d->fault = d->on ? d->rate : 0;
    trace("faults deed per-mille", (int64_t)(d - deeds), *d->fault, 0);
    if (d->on)
        event_set_in(&d->event, rng_spread(&stream, 10 * MS, 3 * S));
}

/* Memory is short in the whole machine: the process gets none, and its sockets hardly room for a piece. */
static void do_shortage(struct deed *d)
{
    d->on = !d->on;
    kernel.faults.heap_enomem = d->on ? d->rate : 0;
    kernel.faults.short_write = d->on ? 800 : 0;
    trace("short-of-memory deed per-mille", (int64_t)(d - deeds), kernel.faults.heap_enomem, 0);
    if (d->on)
        event_set_in(&d->event, rng_spread(&stream, 10 * MS, S));
}

static void on_deed(struct event *e)
{
    struct deed *d = (struct deed *)(void *)e;
    if (world.phase == PHASE_CHAOS)
        d->run(d);
}

/* In gentle runs only what the daemon's clients must not notice. */
static bool is_noticeable(const unsigned *fault)
{
    const struct faults *f = &kernel.faults;
    return fault != &f->short_read && fault != &f->short_write && fault != &f->eintr && fault != &f->eagain &&
           fault != &f->spurious && fault != &f->delay;
}

static struct deed *plan(const char *name, unsigned index, unsigned per_mille, void (*run)(struct deed *d),
                         unsigned *fault)
{
    struct rng r = rng_of(name, index);
    uint64_t at = rng_spread(&r, 20 * MS, world.chaos_end - 1);
    if (world.gentle && (!fault || is_noticeable(fault)))
        return NULL;
    if (!rng_chance(&r, per_mille) || !world_has(name, index) || deed_count == DEEDS_MAX)
        return NULL;
    struct deed *d = &deeds[deed_count++];
    *d = (struct deed){.run = run};
    event_init(&d->event, on_deed);
    event_set(&d->event, at);
    trace_text("planned: %s%u at %" PRIu64 " ms", name, index, at / MS);
    return d;
}

static void plan_shortage(void)
{
    for (unsigned i = 0; i < 2; i++) {
        struct rng r = rng_of("shortage", 100 + i);
        struct deed *d = plan("shortage", i, 60, do_shortage, &kernel.faults.heap_enomem);
        if (d)
            d->rate = (unsigned)rng_spread(&r, 100, 800);
    }
}

static void plan_faults(const char *name, unsigned per_mille, unsigned *fault, unsigned low, unsigned high)
{
    for (unsigned i = 0; i < 2; i++) {
        struct deed *d = plan(name, i, per_mille, do_faults, fault);
        struct rng r = rng_of(name, 100 + i);
        if (!d)
            continue;
        d->fault = fault;
        /* Now and then at every call, as long as the window lasts: what has run out stays so for a while. */
        d->rate = low >= 5 && fault != &kernel.faults.few_fds && is_noticeable(fault) && rng_chance(&r, 150)
                      ? 1000
                      : (unsigned)rng_spread(&r, low, high);
        world.delays |= fault == &kernel.faults.delay;
        if (i == 0 && rng_chance(&r, 400))
            event_set(&d->event, 0); /* from the start on */
    }
}

void operator_plan(void)
{
    struct faults *f = &kernel.faults;
    /* A disk that is full shows most where the log is on it; trouble at a save most where it is made in place, and when
     * the power goes soon after it; at a start where listening leaves a file. */
    const bool mounted = world.mounted;
    const unsigned full = world.set.log_to_file || mounted ? 300 : 100;
    deed_count = 0;
    event_init(&name_kill, on_name_kill);
    name_stream = rng_of("name-kill", 0);
    stream = rng_of("deeds", 0);
    for (unsigned i = 0; i < 3; i++) {
        plan("kill", i, 120, do_kill, NULL);
        plan("power-cut", i, mounted ? 300 : 120, do_power_cut, NULL);
        plan("stop", i, 120, do_stop, NULL);
    }
    plan("kill-start", 0, 100, do_kill_start, NULL);
    for (unsigned i = 0; i < 2; i++)
        plan("kill-name", i, 100, do_kill_name, NULL);
    for (unsigned i = 0; i < 2; i++) {
        plan("hup", i, 100, do_hup, NULL);
        plan("rotate", i, 100, do_rotate, NULL);
        plan("wall-step", i, 100, do_wall_step, NULL);
        plan("full-disk", i, world.set.log_to_file ? 300 : 80, do_fill_disk, NULL);
    }
    if (!world.set.log_to_file)
        plan("log-stall", 0, 150, do_stall_log, NULL);
    if (!world.set.log_to_file)
        plan("log-break", 0, 60, do_break_log, NULL);
    plan_faults("short-read", 250, &f->short_read, 5, 900);
    plan_faults("short-write", 250, &f->short_write, 5, 900);
    plan_faults("eintr", 250, &f->eintr, 2, 300);
    plan_faults("eagain", 200, &f->eagain, 5, 300);
    plan_faults("spurious", 200, &f->spurious, 2, 100);
    plan_faults("delay", 150, &f->delay, 1, 4);
    plan_faults("emfile", 100, &f->emfile, 5, 600);
    plan_faults("enfile", 60, &f->enfile, 5, 300);
    plan_faults("enobufs", 60, &f->enobufs, 5, 300);
    plan_faults("accept-error", 60, &f->accept_error, 5, 300);
    plan_faults("connect-fail", 100, &f->connect_fail, 5, 300);
    plan_faults("epoll-enomem", 60, &f->epoll_enomem, 2, 100);
    plan_faults("heap-enomem", 80, &f->heap_enomem, 1, 60);
    plan_shortage();
    plan_faults("disk-full", full, &f->disk_full, 20, 600);
    plan_faults("disk-error", mounted ? 250 : 80, &f->disk_error, 10, 300);
    plan_faults("sync-error", mounted ? 400 : 100, &f->sync_error, 50, 900);
    plan_faults("slow-disk", 80, &f->slow_disk, 10, 300);
    plan_faults("start", world.set.unix_listen ? 400 : 80, &f->start, 20, 300);
    plan_faults("few-fds", 60, &f->few_fds, 10, 60); /* not how often, but how many */
}
