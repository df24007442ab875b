/* Builds the world from the bottom up, runs the loop, takes it down from the top. A half-built world is taken down the
 * same way. */
#include "server.h"

#include "admin/clients_api.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/process.h"
#include "descriptors.h"
#include "event/log_writer.h"
#include "event/loop.h"
#include "event/signals.h"
#include "event/worker.h"
#include "inherited.h"
#include "lifecycle.h"
#include "limit/limiter.h"
#include "net/io.h"
#include "net/listener.h"
#include "notify.h"
#include "proxy/proxy.h"
#include "reload.h"
#include "successor.h"
#include "upgrade.h"
#include "upstream/upstream.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define UPKEEP_INTERVAL (2 * NS_PER_S)
#define DISK_PATIENCE   (5 * NS_PER_S)
#define DISK_IN_HASTE   (1 * NS_PER_S)
#define TRIM_PEAK       256 /* connections whose memory is worth giving back */

struct server {
    struct config *config;
    struct loop *loop;
    struct signals *signals;
    struct worker *disk;
    struct log_writer *log_writer;
    struct limiter *limiter;
    struct upstream *upstream;
    struct clients_api *api;
    struct proxy *proxy;
    struct lifecycle lifecycle;
    struct reload *reload;
    struct upgrade *upgrade;
    struct inherited inherited;
    struct successor *successor; /* this process is to take another's place; else NULL */
    struct watchdog watchdog;
    char *const *argv;
    char path[4096];                        /* of the program */
    bool serving, stopped, hurried, ending; /* stopped, hurried: by a first and a second signal */
    int status;                             /* of the exit, when it is ending */
    struct timer upkeep;
    size_t peak; /* connections since memory was last given back */
};

static int fail(int status, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static int fail(int status, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    fputs("loadbalancer: ", stderr);
    vfprintf(stderr, fmt, ap);
    fputc('\n', stderr);
    va_end(ap);
    return status;
}

/* ---- signals ---- */

static void hurry_end(struct server *s)
{
    if (s->log_writer)
        log_writer_hurry(s->log_writer);
}

/* The third signal, where there is no lifecycle to hear it, waits for nothing any more; before there is anything to
 * save, the second. */
static void stop(struct server *s, const char *name)
{
    bool second = s->stopped, third = s->hurried;
    s->stopped = true; /* if it is still waiting for its turn */
    s->hurried = second;
    if (!s->serving && second)
        process_exit(EXIT_RUNTIME);
    else if (s->serving && !s->ending && !upgrade_stop(s->upgrade, name))
        lifecycle_stop(&s->lifecycle, name);
    else if (third)
        process_exit(EXIT_CUT);
    else if (s->ending && second)
        hurry_end(s);
}

static void on_signal(void *arg, int signo)
{
    struct server *s = arg;
    if (s->ending && signo != SIGTERM && signo != SIGINT) /* what they would act on is gone */
        return;
    switch (signo) {
    case SIGTERM: stop(s, "SIGTERM"); break;
    case SIGINT: stop(s, "SIGINT"); break;
    case SIGUSR1: log_writer_reopen(s->log_writer); break;
    case SIGHUP:
        if (s->serving)
            reload_begin(s->reload);
        break;
    case SIGUSR2:
        if (s->serving)
            upgrade_begin(s->upgrade);
        break;
    default: break;
    }
}

/* ---- upkeep ---- */

/* After a flood of connections the allocator holds their memory: gives it back once most have gone. */
static void give_memory_back(struct server *s)
{
    size_t now = proxy_connections(s->proxy), peak = proxy_take_peak(s->proxy);
    if (peak > s->peak)
        s->peak = peak;
    if (s->peak < TRIM_PEAK || now > s->peak / 4)
        return;
    mem_give_back();
    s->peak = now;
}

static void on_upkeep(struct timer *t)
{
    struct server *s = container_of(t, struct server, upkeep);
    give_memory_back(s);
    /* The timer has just left the heap, so there is room for it. */
    if (!loop_arm(s->loop, t, loop_now(s->loop) + UPKEEP_INTERVAL))
        s->peak = 0;
}

/* ---- start ---- */

static void log_start(const struct server *s)
{
    log_begin(LOG_INFO, "start");
    log_z("version", LB_VERSION);
    log_z("config", s->config->path);
    log_u64("backends", s->config->backend_count);
    log_end();
}

static int start_base(struct server *s)
{
    s->loop = loop_new();
    if (!s->loop)
        return fail(EXIT_RUNTIME, "cannot make an event loop: %s", strerrordesc_np(errno));
    s->signals = signals_new(s->loop, on_signal, s); /* before any thread, which inherits the mask */
    s->disk = s->signals ? worker_new(s->loop, "disk") : NULL;
    if (!s->disk)
        return fail(EXIT_RUNTIME, "cannot start the helper thread: %s", strerrordesc_np(errno));
    log_configure(s->config->log.level, s->config->log.format);
    s->log_writer = log_writer_new(s->loop, s->config->log.file);
    if (!s->log_writer)
        return fail(EXIT_RUNTIME, "cannot write the log to %s: %s",
                    s->config->log.file ? s->config->log.file : "stdout", file_why(-errno));
    log_start(s);
    return EXIT_DONE;
}

static int start_limiter(struct server *s)
{
    if (!s->config->rate_limit.on)
        return EXIT_DONE;
    char why[1024];
    enum store_outcome outcome;
    struct str told = s->successor ? successor_buckets(s->successor) : STR("");
    struct limiter_time before;
    bool timed = limiter_exported_time(told, &before);
    s->limiter = limiter_new_behind(s->loop, s->disk, s->config, timed ? &before : NULL, why, sizeof why, &outcome);
    if (!s->limiter)
        return fail(outcome == STORE_DAMAGED ? EXIT_USAGE : EXIT_RUNTIME, "%s", why);
    if (!s->successor)
        limiter_recall(s->limiter);
    else if (!limiter_import(s->limiter, told))
        return fail(EXIT_RUNTIME, "what the process before says of its buckets is malformed");
    mem_give_back(); /* what it took to read them */
    return EXIT_DONE;
}

static int start_upstream(struct server *s)
{
    s->upstream = upstream_new(s->loop, s->config);
    return s->upstream ? EXIT_DONE : fail(EXIT_RUNTIME, "cannot set the backends up: %s", strerrordesc_np(errno));
}

/* The backends are checked meanwhile. */
static int wait_for_turn(struct server *s)
{
    if (s->inherited.control < 0)
        return EXIT_DONE;
    s->successor = successor_new(s->loop, s->inherited.control);
    if (!s->successor)
        return fail(EXIT_RUNTIME, "cannot speak to the process before: %s", strerrordesc_np(errno));
    upstream_await(s->upstream);
    if (!successor_wait(s->successor, s->upstream, &s->stopped))
        return EXIT_RUNTIME;
    upstream_import(s->upstream, successor_health(s->successor));
    return EXIT_DONE;
}

static int start_proxy(struct server *s)
{
    s->api = clients_api_new(s->loop, s->config, s->limiter);
    if (!s->api)
        return fail(EXIT_RUNTIME, "cannot set the client API up: %s", strerrordesc_np(ENOMEM));
    struct proxy_setup setup = {s->loop, s->config, s->upstream, s->limiter, clients_api_handler(s->api)};
    s->proxy = proxy_new(&setup);
    return s->proxy ? EXIT_DONE : fail(EXIT_RUNTIME, "cannot set the proxy up: %s", strerrordesc_np(ENOMEM));
}

static struct listener *adopt(struct server *s, int fd, int *error)
{
    return listener_adopt(s->loop, fd, !s->inherited.owns_file, proxy_accept, s->proxy, error);
}

/* The config has another address than the process before has: at its own, those are served that it has not accepted. */
static struct listener *open_beside(struct server *s, int *error)
{
    s->lifecycle.before = adopt(s, s->inherited.listeners, error);
    if (!s->lifecycle.before)
        return NULL;
    listener_set_spare(s->lifecycle.before, upstream_spare, s->upstream);
    return listener_new_beside(s->loop, &s->config->listen.addr, listener_descriptor(s->lifecycle.before), proxy_accept,
                               s->proxy, error);
}

/* NULL with *error = 0: what was handed over is elsewhere. */
static struct listener *open_listener(struct server *s, int *error)
{
    bool given = s->inherited.count > 0;
    int fd = given ? inherited_listener(&s->inherited, s->config) : -1;
    if (fd >= 0)
        return adopt(s, fd, error);
    if (given)
        return s->successor ? open_beside(s, error) : NULL;
    return listener_new(s->loop, &s->config->listen.addr, proxy_accept, s->proxy, error);
}

static int start_listening(struct server *s)
{
    int error = 0;
    struct listener *listener = open_listener(s, &error);
    if (!listener && error == 0)
        return fail(EXIT_RUNTIME, "none of the sockets in LISTEN_FDS listens on %s", s->config->listen_text);
    if (!listener)
        return fail(EXIT_RUNTIME, "cannot listen on %s: %s", s->config->listen_text, strerrordesc_np(error));
    s->lifecycle = (struct lifecycle){
        .loop = s->loop,
        .proxy = s->proxy,
        .upstream = s->upstream,
        .limiter = s->limiter,
        .before = s->lifecycle.before,
        .shutdown_timeout = s->config->timeouts.shutdown,
    };
    lifecycle_init(&s->lifecycle);
    lifecycle_listen(&s->lifecycle, listener);
    timer_init(&s->upkeep, on_upkeep);
    if (!loop_arm(s->loop, &s->upkeep, loop_now(s->loop) + UPKEEP_INTERVAL))
        return fail(EXIT_RUNTIME, "cannot arm a timer: %s", strerrordesc_np(ENOMEM));
    return EXIT_DONE;
}

static int start_reloads(struct server *s)
{
    struct reload_setup setup = {.loop = s->loop,
                                 .log_writer = s->log_writer,
                                 .upstream = s->upstream,
                                 .limiter = s->limiter,
                                 .api = s->api,
                                 .proxy = s->proxy,
                                 .lifecycle = &s->lifecycle};
    s->reload = reload_new(&setup, s->config);
    return s->reload ? EXIT_DONE : fail(EXIT_RUNTIME, "cannot set reloads up: %s", strerrordesc_np(ENOMEM));
}

static void log_upgrade_failed(const char *cause)
{
    log_begin(LOG_ERROR, "upgrade_failed");
    log_z("cause", cause);
    log_end();
}

/* The files were given away, and are ours again. What is in them by now is for them to say, so they are loaded anew. */
static bool restart_limiter(void *arg)
{
    struct server *s = arg;
    char why[1024];
    enum store_outcome outcome;
    struct limiter *before = s->limiter;
    struct limiter_time time = limiter_time(before);
    s->limiter = limiter_new_behind(s->loop, s->disk, reload_config(s->reload), &time, why, sizeof why, &outcome);
    if (s->limiter)
        limiter_inherit(s->limiter, before);
    s->lifecycle.limiter = s->limiter;
    proxy_set_limiter(s->proxy, s->limiter);
    clients_api_set_limiter(s->api, s->limiter);
    reload_set_limiter(s->reload, s->limiter);
    limiter_free(before);
    if (!s->limiter)
        log_upgrade_failed(why);
    return s->limiter != NULL;
}

static int start_upgrades(struct server *s)
{
    struct upgrade_setup setup = {.loop = s->loop,
                                  .lifecycle = &s->lifecycle,
                                  .proxy = s->proxy,
                                  .upstream = s->upstream,
                                  .reload = s->reload,
                                  .path = s->path,
                                  .argv = s->argv,
                                  .restart_limiter = restart_limiter,
                                  .arg = s};
    s->upgrade = upgrade_new(&setup);
    return s->upgrade ? EXIT_DONE : fail(EXIT_RUNTIME, "cannot set upgrades up: %s", strerrordesc_np(ENOMEM));
}

static void serve(struct server *s)
{
    s->serving = true;
    if (s->successor)
        successor_serve(s->successor, &s->lifecycle);
    if (s->limiter)
        limiter_serves(s->limiter);
    watchdog_start(&s->watchdog, s->loop, s->successor != NULL);
    notify_ready();
}

/* In the place of another process: all that can be had beside it comes first, so that its clients wait no longer than
 * need be. */
static int start(struct server *s)
{
    typedef int step(struct server * s);
    static step *const steps[] = {start_base,  start_upstream,  wait_for_turn, start_limiter,
                                  start_proxy, start_listening, start_reloads, start_upgrades};
    char why[512];
    if (!descriptors_raise(s->config, why, sizeof why))
        return fail(EXIT_RUNTIME, "%s", why);
    if (!inherited_find(&s->inherited))
        return fail(EXIT_USAGE, "LISTEN_PID, LISTEN_FDS or " INHERITED_SETTING " in the environment is malformed");
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        int status = steps[i](s);
        if (status != EXIT_DONE)
            return status;
    }
    serve(s);
    return EXIT_DONE;
}

/* ---- end ---- */

/* One that did not get to serve in another's place leaves that one's socket, its file, and who waits there alone. */
static void leave_listeners(struct server *s)
{
    if (s->serving || !s->successor)
        listener_close(s->lifecycle.listener);
    else
        listener_leave(s->lifecycle.listener);
    listener_leave(s->lifecycle.before);
}

static uint64_t disk_patience(const struct server *s)
{
    return s->lifecycle.save_cut ? 0 : s->hurried ? DISK_IN_HASTE : DISK_PATIENCE;
}

/* Jobs that are left hang, or nearly: a thread in one cannot be ended, nor what it works with be freed. The process
 * goes as by kill -9, which what has been acknowledged survives. */
static void wait_for_disk(const struct server *s)
{
    uint64_t begun = clock_monotonic();
    for (uint64_t now = begun, deadline; worker_pending(s->disk) > 0; now = clock_monotonic()) {
        deadline = begun + disk_patience(s);
        if (now >= deadline)
            break;
        loop_turn(s->loop, deadline - now);
    }
    if (worker_pending(s->disk) > 0)
        process_exit(s->status == EXIT_DONE ? EXIT_CUT : s->status);
}

static void destroy(struct server *s)
{
    s->ending = true;
    leave_listeners(s);
    successor_free(s->successor);
    watchdog_stop(&s->watchdog);
    reload_free(s->reload);
    if (s->loop)
        loop_cancel(s->loop, &s->upkeep);
    if (s->proxy) {
        proxy_cut(s->proxy);
        io_end_lingering(s->loop);
    }
    proxy_free(s->proxy);
    clients_api_free(s->api);
    upstream_free(s->upstream);
    if (s->hurried || s->lifecycle.hurried)
        hurry_end(s);
    log_writer_free(s->log_writer);
    s->log_writer = NULL;
    upgrade_free(s->upgrade); /* by that the process that has taken over knows that all is said and done */
    if (s->disk)
        wait_for_disk(s);
    worker_free(s->disk);
    limiter_free(s->limiter);
    signals_free(s->signals);
    loop_free(s->loop);
    log_fini();
}

/* As it was called, if that is a path, else where it was found by its name. Links are left as they are: they may have
 * been set anew by the time of an upgrade. */
static void note_path(struct server *s)
{
    if (strchr(s->argv[0], '/') || !process_path(s->path, sizeof s->path))
        snprintf(s->path, sizeof s->path, "%s", s->argv[0]);
}

int server_run(struct config *config, char *const argv[])
{
    struct server s = {.config = config, .argv = argv, .inherited.control = -1};
    int r = file_hold_standard();
    if (r < 0)
        return fail(EXIT_RUNTIME, "/dev/null: %s", strerror(-r));
    mem_keep();
    note_path(&s);
    timer_init(&s.upkeep, on_upkeep);
    s.status = start(&s);
    if (s.status == EXIT_DONE) {
        loop_turn(s.loop, 0); /* the log's first lines leave before the first wait */
        loop_run(s.loop);
        s.status = (int)s.lifecycle.status;
    }
    destroy(&s);
    return s.status;
}
