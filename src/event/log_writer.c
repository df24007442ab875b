/* Brings the log's lines out at the end of each turn: files by way of a helper thread, streams (pipes, terminals,
 * sockets) at once, as far as they take them. Whoever is slow makes lines wait in the log, which bounds them. */
#include "event/log_writer.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "event/worker.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* A file's batches begin at least this long after the last one ended, unless this much is waiting. */
#define FILE_PAUSE   (10 * NS_PER_MS)
#define FILE_PATIENT (64u * 1024u)

#define STREAM_RETRY   (20 * NS_PER_MS) /* where epoll cannot tell when there is room again */
#define STREAM_AT_EXIT (200 * NS_PER_MS)
#define FILE_AT_EXIT   (2 * NS_PER_S) /* a busy disk may take its time; one that hangs may not keep the process */
#define FILE_IN_HASTE  (200 * NS_PER_MS)
#define REOPEN_AGAIN   (1 * NS_PER_S) /* behind one that has failed */

struct log_writer {
    struct loop *loop;
    struct worker *worker; /* for files; NULL for streams */
    char *path;            /* NULL: stdout */
    char *next_path;       /* of the file to go on in, open as next_fd; NULL: none */
    int next_fd;
    size_t before_next; /* bytes of the log that came before that was asked for: they go to the old file */
    struct loop_hook hook;
    struct timer pause; /* until it fires, nothing is written */
    bool is_stream, owns_fd;
    int fd;         /* as `out` and all that says "job": not to be touched while the job is in flight */
    struct buf out; /* lines that were taken from the log */

    struct job job;
    bool in_flight;
    bool reopen_wanted; /* for the next job: asked for, and to be answered for in the log */
    bool reopen_owed;   /* the last one has failed: it is tried again by itself, */
    uint64_t reopen_at; /* from then on; */
    struct timer again; /* which brings a turn about */
    bool job_reopens, job_asked, job_moves, job_ends;
    int job_next;
    char *job_next_path;
    size_t job_before_next;
    int job_reopen_error;
    bool job_tore_line; /* the file ends in the middle of a line */
    struct log_loss job_lost;
    uint64_t job_dropped; /* log_dropped() when it was handed over, */
    uint64_t good_until;  /* and when the log could be written last */
    bool write_failing, reopen_failing;

    uint64_t at_exit;    /* what the last lines of a file may take, */
    uint64_t last_until; /* and how long they are waited for, once that has begun */

    enum file_stream stream; /* how it is written, where it is one */
    struct watch room;       /* registered while a stream that can be watched is full */
};

/* Ends a pause; the hook, which runs in the same turn, does the rest. */
static void on_time(struct timer *t)
{
    (void)t;
}

/* Files. What runs on the helper thread comes first. */

static void add_loss(struct log_writer *lw, struct str lines)
{
    struct log_loss loss = log_loss_of(lines);

    lw->job_lost.lines += loss.lines;
    lw->job_lost.announced += loss.announced;
}

/* Notes what a failed write of the lines left out of the file, in which there were `before` bytes. */
static void note_loss(struct log_writer *lw, struct str lines, int64_t before)
{
    int64_t added = before < 0 ? 0 : file_size(lw->fd) - before;
    size_t whole = added < 0 ? 0 : (size_t)added;

    if (whole > lines.n)
        whole = lines.n;
    if (whole > 0)
        lw->job_tore_line = lines.p[whole - 1] != '\n';
    while (whole > 0 && lines.p[whole - 1] != '\n')
        whole--; /* a line that was torn is lost from its begin */
    add_loss(lw, str_make(lines.p + whole, lines.n - whole));
}

/* Writes the first `n` bytes of what was taken. */
static int write_lines(struct log_writer *lw, size_t n)
{
    struct str lines = str_make(buf_str(&lw->out).p, n);
    int r = lw->job_tore_line ? file_write_all(lw->fd, STR("\n")) : 0;
    if (r == 0)
        lw->job_tore_line = false;
    int64_t before = file_size(lw->fd);
    if (lw->job_tore_line) /* nothing may come out joined to it */
        add_loss(lw, lines);
    else if ((r = file_write_all(lw->fd, lines)) < 0)
        note_loss(lw, lines, before);
    buf_consume(&lw->out, n);
    return r;
}

/* What the log itself cannot say is said on stderr: once when it begins, and once when it is over. That may block, but
 * only this thread. */
static void tell_writing(struct log_writer *lw, const char *path, int result)
{
    const char *name = path ? path : "stdout";

    if (lw->write_failing == (result < 0))
        return;
    lw->write_failing = result < 0;
    if (result < 0)
        fprintf(stderr, "%s: the log cannot be written: %s; lines are lost\n", name, strerrordesc_np(-result));
    else
        fprintf(stderr, "%s: the log is written again; %" PRIu64 " lines were lost\n", name,
                lw->job_dropped + lw->job_lost.lines - lw->good_until);
}

static void tell_reopening(struct log_writer *lw)
{
    int error = lw->job_reopen_error;

    if (lw->reopen_failing == (error != 0))
        return;
    lw->reopen_failing = error != 0;
    if (error)
        fprintf(stderr, "%s: the log cannot be opened anew: %s; the old file stays in use\n", lw->path,
                file_why(-error));
    else
        fprintf(stderr, "%s: the log has been opened anew\n", lw->path);
}

static void reopen_file(struct log_writer *lw)
{
    int fd = file_open_append(lw->path);

    lw->job_reopen_error = fd < 0 ? -fd : 0;
    tell_reopening(lw);
    if (fd < 0)
        return;
    file_close(lw->fd);
    lw->fd = fd;
    lw->job_tore_line = false;
}

static void write_first(struct log_writer *lw, const char *path, size_t n)
{
    if (n > 0)
        tell_writing(lw, path, write_lines(lw, n));
}

static void move_on(struct log_writer *lw)
{
    write_first(lw, lw->path, lw->job_before_next);
    file_close(lw->fd);
    lw->fd = lw->job_next;
    lw->job_tore_line = lw->reopen_failing = false;
}

static void run_job(struct job *j)
{
    struct log_writer *lw = container_of(j, struct log_writer, job);

    if (!lw->write_failing)
        lw->good_until = lw->job_dropped;
    if (lw->job_moves)
        move_on(lw);
    write_first(lw, lw->job_moves ? lw->job_next_path : lw->path, lw->out.len);
    if (lw->job_reopens)
        reopen_file(lw);
    if (lw->job_ends && lw->owns_fd) {
        file_close(lw->fd);
        lw->fd = -1;
    }
}

static void report_reopen_failure(const struct log_writer *lw)
{
    log_begin(LOG_ERROR, "log_reopen_failed");
    log_z("file", lw->path);
    log_z("cause", file_why(-lw->job_reopen_error));
    log_end();
}

static void report_reopened(const struct log_writer *lw)
{
    log_begin(LOG_INFO, "log_reopened");
    log_z("file", lw->path);
    log_end();
}

/* Whoever rotates logs asks once, and deletes the old file some day: one that fails is not left at that. */
static void end_reopening(struct log_writer *lw)
{
    bool failed = lw->job_reopen_error != 0;

    if (failed && lw->job_asked)
        report_reopen_failure(lw);
    else if (!failed && lw->reopen_owed)
        report_reopened(lw);
    lw->reopen_owed = failed;
    if (!failed)
        return;
    lw->reopen_at = loop_now(lw->loop) + REOPEN_AGAIN;
    /* Should it fail to be armed, the next turn that comes for another reason will do. */
    (void)!loop_arm(lw->loop, &lw->again, lw->reopen_at);
}

static void on_job_done(struct job *j)
{
    struct log_writer *lw = container_of(j, struct log_writer, job);

    lw->in_flight = false;
    if (lw->job_moves) {
        mem_free(lw->path);
        lw->path = lw->job_next_path;
        lw->reopen_owed = false; /* this one has just been opened */
    }
    log_set_backlog(0);
    log_count_loss(lw->job_lost);
    if (lw->job_reopens)
        end_reopening(lw);
    /* Without the pause each turn would cost a change of threads. Should it fail to be armed, just that happens. */
    (void)!loop_arm(lw->loop, &lw->pause, loop_now(lw->loop) + FILE_PAUSE);
}

/* The job goes on in the next file, and has the old one's name until then. */
static void take_next(struct log_writer *lw)
{
    lw->job_next_path = lw->next_path;
    lw->next_path = NULL;
    lw->job_next = lw->next_fd;
    lw->job_before_next = lw->before_next;
}

static bool reopening_is_due(const struct log_writer *lw)
{
    return lw->reopen_wanted || (lw->reopen_owed && loop_now(lw->loop) >= lw->reopen_at);
}

static void hand_to_worker(struct log_writer *lw)
{
    log_take(&lw->out);
    log_set_backlog(lw->out.len);
    lw->job_lost = (struct log_loss){0};
    lw->job_dropped = log_dropped();
    lw->job_moves = lw->next_path != NULL;
    lw->job_reopens = reopening_is_due(lw) && !lw->job_moves; /* the new one has just been opened */
    lw->job_asked = lw->reopen_wanted;
    lw->reopen_wanted = false;
    if (lw->job_moves)
        take_next(lw);
    lw->in_flight = true;
    worker_submit(lw->worker, &lw->job, run_job, on_job_done);
}

static void file_hook(struct loop_hook *h)
{
    struct log_writer *lw = container_of(h, struct log_writer, hook);
    bool patient = timer_armed(&lw->pause) && log_pending() < FILE_PATIENT;

    if (lw->in_flight || (!reopening_is_due(lw) && !lw->next_path && (patient || log_pending() == 0)))
        return;
    hand_to_worker(lw);
}

/* Streams. */

static void on_room(struct watch *w, unsigned ready)
{
    struct log_writer *lw = container_of(w, struct log_writer, room);

    (void)ready;
    loop_unwatch(lw->loop, w);
}

/* Writes what the stream takes. Where it takes nothing any more, as without a reader, the lines are lost. */
static void write_out(struct log_writer *lw)
{
    ssize_t n = file_write_now(lw->fd, lw->stream, buf_str(&lw->out));

    if (n < 0) {
        log_count_loss(log_loss_of(buf_str(&lw->out)));
        n = (ssize_t)lw->out.len;
    }
    buf_consume(&lw->out, (size_t)n);
}

/* Writes all that is waiting; false when the stream is full. */
static bool write_stream(struct log_writer *lw)
{
    do {
        if (lw->out.len == 0)
            log_take(&lw->out);
        if (lw->out.len)
            write_out(lw);
    } while (lw->out.len == 0 && log_pending());
    log_set_backlog(lw->out.len);
    return lw->out.len == 0;
}

static void wait_for_room(struct log_writer *lw)
{
    bool watchable = lw->stream != FILE_STREAM_SHARED;

    if (watchable && loop_watch(lw->loop, &lw->room, LOOP_WRITE))
        return;
    /* Should the timer fail to be armed, the next turn tries anew. */
    (void)!loop_arm(lw->loop, &lw->pause, loop_now(lw->loop) + STREAM_RETRY);
}

static void stream_hook(struct loop_hook *h)
{
    struct log_writer *lw = container_of(h, struct log_writer, hook);

    if (lw->room.registered || timer_armed(&lw->pause))
        return;
    if ((log_pending() || lw->out.len) && !write_stream(lw))
        wait_for_room(lw);
}

/* A description of our own may be made non-blocking, and watched, without others who share the stream noticing. */
static void take_own_description(struct log_writer *lw)
{
    int fd = file_reopen_nonblocking(lw->fd);

    if (fd < 0)
        return;
    if (lw->owns_fd)
        file_close(lw->fd);
    lw->fd = fd;
    lw->owns_fd = true;
    lw->stream = FILE_STREAM_OWN;
}

/* Birth and death. */

static void attach(struct log_writer *lw, struct loop *l)
{
    lw->loop = l;
    loop_add_hook(l, &lw->hook, lw->is_stream ? stream_hook : file_hook);
}

static void cancel_timers(struct log_writer *lw)
{
    loop_cancel(lw->loop, &lw->pause);
    loop_cancel(lw->loop, &lw->again);
}

static void detach(struct log_writer *lw)
{
    loop_remove_hook(lw->loop, &lw->hook);
    loop_unwatch(lw->loop, &lw->room);
    cancel_timers(lw);
}

static void prepare(struct log_writer *lw)
{
    enum file_kind kind = file_kind(lw->fd);

    lw->is_stream = kind == FILE_PIPE || kind == FILE_TERMINAL || kind == FILE_SOCKET;
    lw->stream = kind == FILE_SOCKET ? FILE_STREAM_SOCKET : FILE_STREAM_SHARED;
    if (kind == FILE_PIPE || kind == FILE_TERMINAL)
        take_own_description(lw);
    timer_init(&lw->pause, on_time);
    timer_init(&lw->again, on_time);
    watch_init(&lw->room, lw->fd, on_room);
}

static bool start_thread(struct log_writer *lw, struct loop *l)
{
    lw->worker = lw->is_stream ? NULL : worker_new(l, "log");
    return lw->is_stream || lw->worker;
}

static void let_go(struct log_writer *lw)
{
    worker_free(lw->worker);
    if (lw->owns_fd)
        file_close(lw->fd);
    buf_fini(&lw->out);
    mem_free(lw->path);
    mem_free(lw);
}

struct log_writer *log_writer_new(struct loop *l, const char *path)
{
    struct log_writer *lw = mem_try_alloc(sizeof(*lw));
    char *own = lw && path ? file_path_with(path, "") : NULL;
    int fd = !lw || (path && !own) ? -ENOMEM : path ? file_open_append(path) : STDOUT_FILENO;

    if (fd < 0) {
        mem_free(lw);
        mem_free(own);
        errno = -fd;
        return NULL;
    }
    *lw = (struct log_writer){.path = own, .fd = fd, .owns_fd = path != NULL, .at_exit = FILE_AT_EXIT};
    prepare(lw);
    if (!start_thread(lw, l)) {
        int error = errno;
        let_go(lw);
        errno = error;
        return NULL;
    }
    attach(lw, l);
    return lw;
}

bool log_writer_is_idle(const struct log_writer *lw)
{
    return log_pending() == 0 && !lw->in_flight && (!lw->is_stream || lw->out.len == 0);
}

void log_writer_reopen(struct log_writer *lw)
{
    if (lw->path && !lw->is_stream)
        lw->reopen_wanted = true;
}

bool log_writer_can_move(const struct log_writer *lw)
{
    return lw->path && !lw->is_stream;
}

static void forget_next(struct log_writer *lw)
{
    if (!lw->next_path)
        return;
    file_close(lw->next_fd);
    mem_free(lw->next_path);
    lw->next_path = NULL;
}

bool log_writer_move(struct log_writer *lw, int fd, const char *path)
{
    char *own = file_path_with(path, "");

    if (!own) {
        file_close(fd);
        return false;
    }
    forget_next(lw);
    lw->next_path = own;
    lw->next_fd = fd;
    lw->before_next = log_pending();
    return true;
}

/* False when it is not waited for any longer. */
static bool wait_for_job(struct log_writer *lw)
{
    for (uint64_t now = clock_monotonic(); lw->in_flight && now < lw->last_until; now = clock_monotonic())
        loop_turn(lw->loop, lw->last_until - now);
    cancel_timers(lw); /* its end may have armed them */
    return !lw->in_flight;
}

/* False when the thread hangs in the file, and all that its job needs stays its. */
static bool finish_file(struct log_writer *lw)
{
    lw->last_until = clock_monotonic() + lw->at_exit;
    detach(lw);
    if (!wait_for_job(lw)) {
        forget_next(lw);
        return false;
    }
    log_announce(); /* what that job has lost, too */
    lw->reopen_wanted = lw->reopen_owed = false;
    lw->job_ends = true;
    hand_to_worker(lw);
    return wait_for_job(lw);
}

/* Waits on a loop of its own, so that nothing else runs meanwhile. */
static void finish_stream_slowly(struct log_writer *lw)
{
    uint64_t now = clock_monotonic(), deadline = now + STREAM_AT_EXIT;
    struct loop *own = loop_new();

    if (!own)
        return;
    attach(lw, own);
    wait_for_room(lw);
    for (; lw->out.len && now < deadline; now = clock_monotonic())
        loop_turn(own, deadline - now);
    detach(lw);
    loop_free(own);
}

static void finish_stream(struct log_writer *lw)
{
    detach(lw);
    log_announce();
    if (!write_stream(lw))
        finish_stream_slowly(lw);
}

void log_writer_hurry(struct log_writer *lw)
{
    uint64_t by = clock_monotonic() + FILE_IN_HASTE;

    lw->at_exit = FILE_IN_HASTE;
    if (by < lw->last_until)
        lw->last_until = by;
}

void log_writer_free(struct log_writer *lw)
{
    if (!lw)
        return;
    bool finished = true;

    if (lw->is_stream)
        finish_stream(lw);
    else
        finished = finish_file(lw);
    log_set_backlog(0);
    if (finished)
        let_go(lw);
    else
        worker_abandon(lw->worker); /* which has the rest */
}
