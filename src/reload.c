/* A reload: a new snapshot takes the place of the one in force, and nothing that goes on is touched by it.
 *
 *   SIGHUP -> read, check, open the log file (thread `reload`) -> new names -> stage: all that can fail -> commit
 *                     |                                                          |
 *                     +-- any fault: reload_failed <--------- roll back ---------+
 *
 * The file is read on a helper thread because it may take its time (a network's, a pipe), and checked there because a
 * long one does, too; on one of its own, for no fsync and no log line is to wait for it. One that hangs is given up
 * after a while, with its thread, so that the next reload has its chance. Names that the file brings are asked for
 * then, or else backends that are up would be replaced by some that are not yet. Staging and commit are one turn of the
 * loop: no request sees half of a config. */
#include "reload.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "descriptors.h"
#include "inherited.h"
#include "net/listener.h"
#include "notify.h"

#include <assert.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

/* What a reading may take; it is not waited for any longer. */
#define READ_PATIENCE_S 10u

/* Readings that were given up on, and still hang: each keeps a thread. One that has hung before need not hang again. */
#define HANGING_MAX 8u
static atomic_uint hanging;

struct reload {
    struct reload_setup parts;
    struct config *config; /* in force */
    struct worker *reader; /* from the first reload on */
    struct reading *reading;
    struct timer patience; /* with it */
    bool again;            /* asked for meanwhile */
    const char *forbidden; /* why; NULL: it is not */
};

/* What the helper thread works on. It may outlive the reload, and the time that it is given, but is not reported then.
 */
struct reading {
    struct job job;
    struct reload *reload;
    struct config *running; /* only read there */
    struct config *fresh;   /* NULL: `errors` says why */
    struct buf errors;
    bool no_memory;
    int log_fd; /* of a changed log.file, else -1 */
    uint64_t begun;
    struct upstream_lookup *lookup; /* the loop's: where its names lead; NULL until it has been read */
};

/* ---- what is said ---- */

static void log_failed(struct str cause)
{
    log_begin(LOG_ERROR, "reload_failed");
    log_str("cause", cause);
    log_end();
}

static void log_failed_lines(struct str lines)
{
    while (lines.n > 0) {
        size_t end = str_find(lines, '\n'), next = end < lines.n ? end + 1 : end;
        log_failed(str_make(lines.p, end));
        lines = str_make(lines.p + next, lines.n - next);
    }
}

static void log_done(const struct reading *rd, const struct upstream_tally *t)
{
    log_begin(LOG_INFO, "reload");
    log_z("config", rd->fresh->path);
    log_u64("added", t->added);
    log_u64("removed", t->removed);
    log_u64("kept", t->kept);
    log_ms("duration_ms", clock_monotonic() - rd->begun);
    log_end();
}

/* ---- on the helper thread ---- */

static bool log_file_changes(const struct config *running, const struct config *fresh)
{
    return running->log.file && fresh->log.file && strcmp(running->log.file, fresh->log.file) != 0;
}

static bool open_log(struct reading *rd)
{
    const char *path = rd->fresh->log.file;
    rd->log_fd = file_open_append(path);
    if (rd->log_fd < 0) {
        (void)!buf_printf(&rd->errors, "%s: log.file: %s cannot be opened: %s\n", rd->fresh->path, path,
                          file_why(rd->log_fd));
        return false;
    }
    enum file_kind kind = file_kind(rd->log_fd);
    if (kind == FILE_REGULAR || kind == FILE_OTHER)
        return true;
    (void)!buf_printf(&rd->errors, "%s: log.file: %s is no regular file: only a restart can change to it\n",
                      rd->fresh->path, path);
    return false;
}

static void read_config(struct job *j)
{
    struct reading *rd = container_of(j, struct reading, job);
    rd->fresh = config_load_over(rd->running->path, rd->running, &rd->errors, &rd->no_memory);
    if (!rd->fresh || !log_file_changes(rd->running, rd->fresh) || open_log(rd))
        return;
    config_put(rd->fresh); /* nobody else has it yet */
    rd->fresh = NULL;
}

/* ---- staging ---- */

struct staged {
    struct listener *listener; /* NULL: the address is the same */
    bool taken_back;           /* that is the process before's, which is still open here */
    struct upstream_change *upstream;
    struct limiter_change *limiter;
};

static bool say(struct buf *errors, const struct config *config, const char *what, int error)
{
    (void)!buf_printf(errors, "%s: %s: %s\n", config->path, what, strerrordesc_np(error));
    return false;
}

static struct listener *listen_beside(struct reload *r, const struct addr *at, const struct listener *ls, int *error)
{
    return listener_new_beside(r->parts.loop, at, listener_descriptor(ls), proxy_accept, r->parts.proxy, error);
}

/* An address that the process before has not left yet is not free to listen on, but is at hand. */
static struct listener *open_listener(struct reload *r, const struct endpoint *at, bool *taken_back, int *error)
{
    struct lifecycle *lc = r->parts.lifecycle;
    *taken_back = lc->before && inherited_is_at(listener_addr(lc->before), at);
    if (*taken_back)
        return lc->before;
    struct listener *ls = listen_beside(r, &at->addr, lc->listener, error);
    return ls || *error != EADDRINUSE || !lc->before ? ls : listen_beside(r, &at->addr, lc->before, error);
}

static bool listens_there(const struct reload *r, const struct endpoint *at)
{
    return config_same_endpoint(&r->config->listen, at) ||
           (at->kind == ENDPOINT_UNIX && listener_has_file_at(r->parts.lifecycle->listener, &at->addr));
}

static bool stage_listener(struct reload *r, struct reading *rd, struct staged *s)
{
    int error = 0;
    if (listens_there(r, &rd->fresh->listen))
        return true;
    s->listener = open_listener(r, &rd->fresh->listen, &s->taken_back, &error);
    if (s->listener)
        return true;
    (void)!buf_printf(&rd->errors, "%s: listen: cannot listen on %s: %s\n", rd->fresh->path, rd->fresh->listen_text,
                      strerrordesc_np(error));
    return false;
}

static bool stage_log(struct reload *r, struct reading *rd)
{
    int fd = rd->log_fd;
    if (fd < 0)
        return true;
    rd->log_fd = -1;
    if (log_writer_can_move(r->parts.log_writer))
        return log_writer_move(r->parts.log_writer, fd, rd->fresh->log.file) ||
               say(&rd->errors, rd->fresh, "log.file", ENOMEM);
    file_close(fd);
    (void)!buf_printf(&rd->errors, "%s: log.file: %s is no regular file: only a restart can change from it\n",
                      rd->fresh->path, r->config->log.file);
    return false;
}

static void roll_back(struct staged *s)
{
    if (!s->taken_back)
        listener_close(s->listener);
    upstream_rollback(s->upstream);
    limiter_rollback(s->limiter);
}

/* The log comes last: once it has another file, nothing can fail any more. Lines from there on are in that, so the form
 * that commit() gives them is that of the new file from its first line on. */
static bool stage(struct reload *r, struct reading *rd, struct staged *s)
{
    const struct reload_setup *p = &r->parts;
    char why[512];
    *s = (struct staged){0};
    if (!descriptors_raise(rd->fresh, why, sizeof why)) {
        (void)!buf_printf(&rd->errors, "%s\n", why);
        return false;
    }
    s->upstream = upstream_stage(p->upstream, rd->fresh, rd->lookup);
    if (!s->upstream)
        return say(&rd->errors, rd->fresh, "backends", errno);
    s->limiter = p->limiter ? limiter_stage(p->limiter, rd->fresh) : NULL;
    if (p->limiter && !s->limiter)
        return say(&rd->errors, rd->fresh, "rate_limit", ENOMEM);
    if (!proxy_stage(p->proxy, rd->fresh))
        return say(&rd->errors, rd->fresh, "limits.header_fields", ENOMEM);
    return stage_listener(r, rd, s) && stage_log(r, rd);
}

/* ---- putting it in force ---- */

static void commit(struct reload *r, struct reading *rd, struct staged *s)
{
    const struct reload_setup *p = &r->parts;
    struct config *old = r->config;
    r->config = config_get(rd->fresh);
    log_configure(r->config->log.level, r->config->log.format);
    if (!descriptors_wanted_alike(r->config, old))
        descriptors_report(r->config);
    proxy_commit(p->proxy, r->config);
    clients_api_set_config(p->api, r->config);
    if (s->limiter)
        limiter_commit(s->limiter);
    struct upstream_tally tally = upstream_commit(s->upstream);
    p->lifecycle->shutdown_timeout = r->config->timeouts.shutdown;
    log_done(rd, &tally);
    if (s->taken_back)
        p->lifecycle->before = NULL;
    if (s->listener)
        lifecycle_listen(p->lifecycle, s->listener);
    config_put(old);
}

/* ---- begin and end ---- */

static void reading_free(struct reading *rd)
{
    if (!rd)
        return;
    if (rd->log_fd >= 0)
        file_close(rd->log_fd);
    upstream_lookup_free(rd->lookup);
    config_put(rd->fresh);
    config_put(rd->running);
    buf_fini(&rd->errors);
    mem_free(rd);
}

static void finish(struct reload *r, struct reading *rd)
{
    struct staged s;
    if (r->parts.lifecycle->state != LIFECYCLE_RUNNING) {
        log_failed(STR("the balancer is stopping"));
        return;
    }
    if (rd->fresh && stage(r, rd, &s)) {
        commit(r, rd, &s);
        return;
    }
    if (rd->fresh)
        roll_back(&s);
    if (rd->errors.len > 0)
        log_failed_lines(buf_str(&rd->errors));
    else
        log_failed(STR("out of memory"));
}

/* Whatever has come of it. */
static void end_reading(struct reload *r)
{
    notify_ready();
    if (r->again)
        reload_begin(r);
}

static void on_names_known(void *arg)
{
    struct reading *rd = arg;
    struct reload *r = rd->reload;
    r->reading = NULL;
    finish(r, rd);
    reading_free(rd);
    end_reading(r);
}

/* Without memory for it names are not looked up: whether that matters, staging will say. */
static void on_read(struct job *j)
{
    struct reading *rd = container_of(j, struct reading, job);
    const struct reload_setup *p = &rd->reload->parts;
    loop_cancel(p->loop, &rd->reload->patience);
    if (rd->fresh && p->lifecycle->state == LIFECYCLE_RUNNING)
        rd->lookup = upstream_look_up(p->upstream, rd->fresh, on_names_known, rd);
    if (!rd->lookup || upstream_lookup_is_over(rd->lookup))
        on_names_known(rd);
}

/* On the helper thread, when nobody waits for it any more. */
static void on_dropped(struct job *j)
{
    atomic_fetch_sub(&hanging, 1);
    reading_free(container_of(j, struct reading, job));
}

static void give_up(struct reload *r)
{
    atomic_fetch_add(&hanging, 1);
    r->reading = NULL;
    worker_abandon(r->reader);
    r->reader = NULL;
}

static void on_patience_over(struct timer *t)
{
    struct reload *r = container_of(t, struct reload, patience);
    char cause[FILE_NAME_MAX + 128];
    snprintf(cause, sizeof cause,
             "%s: it has not been read yet after %u s, nor a log file that it may name been opened", r->config->path,
             READ_PATIENCE_S);
    log_failed(str_of(cause));
    give_up(r);
    end_reading(r);
}

/* NULL when all that it takes cannot be had; *why says what. */
static struct reading *reading_new(struct reload *r, const char **why)
{
    *why = "too many threads hang in reading it";
    if (atomic_load(&hanging) >= HANGING_MAX)
        return NULL;
    *why = "the thread that reads the file cannot be started";
    if (!r->reader && !(r->reader = worker_new(r->parts.loop, "reload")))
        return NULL;
    *why = "out of memory";
    if (!loop_arm(r->parts.loop, &r->patience, loop_now(r->parts.loop) + READ_PATIENCE_S * NS_PER_S))
        return NULL;
    struct reading *rd = mem_try_alloc(sizeof *rd);
    if (!rd)
        loop_cancel(r->parts.loop, &r->patience);
    return rd;
}

static void read_it(struct reload *r)
{
    const char *why;
    struct reading *rd = reading_new(r, &why);
    if (!rd) {
        log_failed(str_of(why));
        return;
    }
    rd->reload = r;
    rd->running = config_get(r->config);
    rd->log_fd = -1;
    rd->begun = clock_monotonic();
    r->reading = rd;
    notify_reloading();
    if (r->parts.limiter) /* whoever has edited its file may take this for the way to have that loaded */
        limiter_look(r->parts.limiter);
    worker_submit_own(r->reader, &rd->job, read_config, on_read, on_dropped);
}

void reload_begin(struct reload *r)
{
    r->again = r->reading != NULL;
    if (r->again)
        return;
    if (r->parts.lifecycle->state != LIFECYCLE_RUNNING || r->forbidden) {
        log_failed(str_of(r->forbidden ? r->forbidden : "the balancer is stopping"));
        return;
    }
    read_it(r);
}

bool reload_under_way(const struct reload *r)
{
    return r->reading != NULL;
}

struct config *reload_config(const struct reload *r)
{
    return r->config;
}

void reload_set_limiter(struct reload *r, struct limiter *limiter)
{
    r->parts.limiter = limiter;
}

void reload_forbid(struct reload *r, const char *why)
{
    r->forbidden = why;
}

struct reload *reload_new(const struct reload_setup *setup, struct config *config)
{
    struct reload *r = mem_try_alloc(sizeof *r);
    if (!r)
        return NULL;
    r->parts = *setup;
    r->config = config_get(config);
    timer_init(&r->patience, on_patience_over);
    descriptors_report(config);
    return r;
}

void reload_free(struct reload *r)
{
    if (!r)
        return;
    loop_cancel(r->parts.loop, &r->patience);
    if (r->reading && !r->reading->lookup)
        give_up(r); /* it may never be over */
    worker_free(r->reader);
    if (r->reading)
        reading_free(r->reading);
    config_put(r->config);
    mem_free(r);
}
