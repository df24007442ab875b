/* Appending to the journal and saving clients.json, step by step, through the helper thread.
 *
 *   append:  lines ----> write, fdatasync ----> appended(ok)          one group at a time, others gather in clients.c
 *   save:    a few clients -> write, a few more -> write ... -> fsync, rename, fsync of the folder -> new journal
 *
 * A save walks the table in slices between other work, so the clients in it are not all of one moment. It is made exact
 * by the journal: a save begins only when every line in the journal is in the table too, and what is appended from then
 * on is kept as the new journal. Tokens are written as of the begin, whenever a client's turn comes.
 *
 * Nothing is appended while a save is being put in place, so nothing can fall between the old journal and the new one.
 *
 * When an append fails, its lines are cut off again, the journal counts as broken, and nothing is appended to it any
 * more: the next append waits for a save, which writes all that is known to new files. At most one such attempt is made
 * a second; in between appends fail at once. A save that has failed is tried again each second, too, and no interval
 * makes it be tried sooner. */
#include "limit/store.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/metrics.h"
#include "store_impl.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

/* Lines kept in memory for the journal after a save. */
#define TAIL_MAX (16u * 1024u * 1024u)

/* A journal longer than this, or with more lines than that for each client, is folded in. */
#define JOURNAL_MAX        (64u * 1024u * 1024u)
#define JOURNAL_PER_CLIENT 10u
#define JOURNAL_LINES_MIN  10000u

static void pump(struct store *st);

struct instant store_whole_ms(uint64_t now, uint64_t wall_ns)
{
    uint64_t extra = wall_ns % NS_PER_MS;
    return (struct instant){now > extra ? now - extra : 0, wall_ns - extra};
}

struct instant store_instant(const struct store *st)
{
    uint64_t now = clock_boottime() - st->setup.zero, wall = clock_wall();
    return store_whole_ms(now, wall);
}

struct instant store_dated(const struct store *st)
{
    return st->dated;
}

void store_note_tokens(struct store *st)
{
    st->tokens_moved = true;
}

void store_log_failure(const char *what, int result)
{
    metrics.store_failures++;
    log_begin(LOG_ERROR, "store_failed");
    log_z("what", what);
    log_z("error", result == -EWOULDBLOCK ? "another process has come to use the files" : strerror(-result));
    log_end();
}

/* Puts the next attempt off. It comes by itself, but for the last one of all; without memory for the timer the next
 * append makes it, or the interval. */
static void retry_later(struct store *st)
{
    st->retry_at = loop_now(st->setup.loop) + RETRY_AFTER;
    if (!st->closing)
        (void)!loop_arm(st->setup.loop, &st->retry, st->retry_at);
}

void store_journal_failed(struct store *st, int result)
{
    store_log_failure("journal", result);
    st->broken = true;
    st->failing = true;
    retry_later(st);
}

/* ---- appending ---- */

/* Is the journal still the one that the next start will find, and the lock, so that nobody else writes to it? */
static int journal_is_ours(const struct append *a)
{
    int r = file_still_at(a->journal->fd, a->journal->path);
    return r < 0 ? r : file_still_at(*a->lock, a->lock_path);
}

/* On the helper thread. Both may be taken away at any time, so they are looked at before anything is written, and again
 * before that is called a success, or cut off: the end of the journal may be another process' by then. */
static void append_work(struct job *j)
{
    struct append *a = container_of(j, struct append, job);
    int fd = a->journal->fd;
    a->result = journal_is_ours(a);
    if (a->result < 0)
        return;
    a->result = file_write_all(fd, buf_str(&a->lines));
    if (a->result == 0)
        a->result = file_sync_data(fd);
    int ours = journal_is_ours(a);
    /* What was not acknowledged had better not come back after a crash; if even this fails, it may. */
    if (a->result < 0 && ours == 0)
        (void)!file_truncate(fd, a->good);
    if (a->result == 0)
        a->result = ours;
}

/* What a save that is under way has perhaps not seen any more belongs to the next journal. */
static void keep_for_tail(struct save *s, const struct append *a)
{
    if (s->state == SAVE_NONE || s->tail_lost)
        return;
    s->tail_count += a->count;
    if (s->tail.len + a->lines.len <= TAIL_MAX && buf_append_str(&s->tail, buf_str(&a->lines)))
        return;
    s->tail_lost = true;
    buf_fini(&s->tail);
}

/* ---- the end of an append ---- */

static bool journal_is_long(const struct store *st)
{
    size_t enough = st->setup.table->shown * JOURNAL_PER_CLIENT + JOURNAL_LINES_MIN;
    return st->journal_length > JOURNAL_MAX || st->journal_lines > enough;
}

static void end_append(struct store *st, bool ok)
{
    struct append *a = &st->append;
    if (ok) {
        st->journal_length += a->lines.len;
        st->journal_lines += a->count;
        metrics.store_syncs++;
        keep_for_tail(&st->save, a);
        st->save_wanted |= journal_is_long(st);
    }
    buf_fini(&a->lines);
    a->state = APPEND_NONE;
    store_extend_words(st);
    st->setup.appended(st->setup.arg, ok);
}

static void append_done(struct job *j)
{
    struct store *st = container_of(j, struct store, append.job);
    int result = st->append.result;
    if (result < 0)
        store_journal_failed(st, result);
    end_append(st, result == 0);
    pump(st);
}

void store_append(struct store *st, struct buf *lines, size_t count)
{
    struct append *a = &st->append;
    assert(a->state == APPEND_NONE && !st->closing);
    buf_move(&a->lines, lines);
    a->count = count;
    a->state = APPEND_WAITING;
    pump(st);
}

static void append_start(struct store *st)
{
    st->append.state = APPEND_RUNNING;
    st->append.good = st->journal_length;
    worker_submit(st->setup.worker, &st->append.job, append_work, append_done);
}

/* ---- saving ---- */

static void save_reset(struct store *st)
{
    store_save_release(&st->save);
    st->save.state = SAVE_NONE;
}

static void close_end(struct store *st, bool ok)
{
    st->closed(st->closed_arg, ok);
}

void store_save_failed(struct store *st, int result)
{
    store_log_failure(result == -EWOULDBLOCK ? "lock" : "clients_file", result);
    st->tokens_moved = true;
    st->failing = true;
    retry_later(st);
}

static void save_aborted(struct job *j)
{
    struct store *st = container_of(j, struct store, save.job);
    bool final = st->save.final;
    save_reset(st);
    st->tokens_moved = true; /* nothing of it is saved */
    if (final)
        close_end(st, false);
    else
        pump(st);
}

/* Gives the save up; result 0: only because a newer one is wanted. */
static void save_abort(struct store *st, int result)
{
    st->save.state = SAVE_ABORTING;
    if (result < 0)
        store_save_failed(st, result);
    worker_submit(st->setup.worker, &st->save.job, store_save_abort, save_aborted);
}

static void save_step(struct store *st);

static void save_go_on(struct store *st)
{
    bool many = st->save.tail.len > TAIL_MAX / 4;
    bool haste = st->broken || st->save.final || many;
    if (many)
        store_save_hasten(&st->save);
    /* Without memory for the timer there is no pause. */
    if (haste || !loop_arm(st->setup.loop, &st->pace, loop_now(st->setup.loop) + SAVE_PACE))
        save_step(st);
}

static void on_pace(struct timer *t)
{
    save_step(container_of(t, struct store, pace));
}

static void save_written(struct job *j)
{
    struct store *st = container_of(j, struct store, save.job);
    if (st->save.result < 0)
        save_abort(st, st->save.result);
    else if (st->closing && !st->save.final)
        save_abort(st, 0);
    else if (!st->save.last_piece)
        save_go_on(st);
    else
        st->save.state = SAVE_READY;
    pump(st);
}

static void save_step(struct store *st)
{
    int result = store_save_fill(st);
    if (result < 0)
        save_abort(st, result);
    else
        worker_submit(st->setup.worker, &st->save.job, store_save_write, save_written);
}

static void save_begin(struct store *st)
{
    loop_cancel(st->setup.loop, &st->retry); /* this is it */
    store_save_prepare(st);
    st->save.state = SAVE_WRITING;
    save_step(st);
}

/* The journal that goes with what has been saved. */
static void journal_renewed(struct store *st, const struct save *s)
{
    if (s->journal_result < 0) {
        store_journal_failed(st, s->journal_result);
        return;
    }
    if (s->tail_lost)
        return;
    st->journal_length = s->tail.len;
    st->journal_lines = s->tail_count;
    if (st->failing) {
        log_begin(LOG_INFO, "store_recovered");
        log_end();
    }
    st->broken = false;
    st->failing = false;
    loop_cancel(st->setup.loop, &st->retry);
}

static void save_committed(struct job *j)
{
    struct store *st = container_of(j, struct store, save.job);
    const struct save *s = &st->save;
    bool final = s->final, ok = s->result == 0 && s->journal_result == 0 && s->words_result == 0;
    store_log_foreign(&st->save, true);
    if (s->result < 0) {
        store_save_failed(st, s->result);
    } else {
        metrics.store_saves++;
        st->dated = s->at;
        words_file_note(&st->words, s->at.wall_ns, true);
        journal_renewed(st, s);
    }
    if (s->words_result < 0)
        store_log_failure("tokens", s->words_result);
    if (s->words_gone && !st->gone_logged) {
        store_log_failure("tokens", -ENOENT); /* after a kill they will be those of the last save */
        st->gone_logged = true;
    }
    save_reset(st);
    if (final)
        close_end(st, ok);
    else
        pump(st);
}

static void save_commit(struct store *st)
{
    st->save.state = SAVE_COMMITTING;
    words_file_note(&st->words, st->save.at.wall_ns, false);
    worker_submit(st->setup.worker, &st->save.job, store_save_commit, save_committed);
}

/* ---- what is next ---- */

static bool is_clean(const struct store *st)
{
    return !st->tokens_moved && st->journal_length == 0 && !st->broken;
}

static void journal_removed(struct job *j)
{
    struct store *st = container_of(j, struct store, save.job);
    const struct save *s = &st->save;
    if (s->result == -ESTALE) {
        st->tokens_moved = true; /* all is to be saved */
        save_reset(st);
        pump(st);
        return;
    }
    store_log_foreign(&st->save, false);
    int journal = s->result < 0 ? s->result : s->journal_result;
    bool ok = journal == 0 && s->words_result == 0;
    if (!ok)
        store_log_failure(journal < 0 ? "journal" : "tokens", journal < 0 ? journal : s->words_result);
    save_reset(st);
    close_end(st, ok);
}

static void close_step(struct store *st)
{
    if (st->save.state != SAVE_NONE)
        return;
    if (!is_clean(st)) {
        save_begin(st);
        return;
    }
    store_save_prepare(st);
    st->save.state = SAVE_COMMITTING;
    worker_submit(st->setup.worker, &st->save.job, store_save_commit, journal_removed);
}

/* An append that waits while the journal is broken: for the save under way, or for one that is due; else it fails. */
static void append_to_broken(struct store *st)
{
    if (st->save.state != SAVE_NONE)
        return;
    if (loop_now(st->setup.loop) >= st->retry_at)
        save_begin(st);
    else
        end_append(st, false);
}

/* A save that has failed is not wanted again before its time, whoever wants it. */
static bool save_is_due(const struct store *st)
{
    return st->save_wanted && st->save.state == SAVE_NONE && loop_now(st->setup.loop) >= st->retry_at;
}

/* Each slice of a save stands in the helper thread's queue behind a sync, as long as changes come without a break: that
 * makes the save long, and what comes meanwhile could outgrow the tail, save after save, so that no journal ever became
 * shorter. So changes wait for the rest of the save when the tail is half full; the other half has room for all that
 * can wait. */
static bool tail_is_filling(const struct store *st)
{
    return st->save.state == SAVE_WRITING && st->save.tail.len > TAIL_MAX / 2;
}

/* Starts what can be started now. A save begins and ends only between appends. */
static void pump(struct store *st)
{
    enum save_state s = st->save.state;
    if (st->append.state == APPEND_RUNNING || s == SAVE_COMMITTING || s == SAVE_ABORTING)
        return;
    if (s == SAVE_READY)
        save_commit(st);
    else if (st->closing)
        close_step(st);
    else if (save_is_due(st))
        save_begin(st);
    if (st->append.state != APPEND_WAITING || st->save.state == SAVE_COMMITTING || st->save.state == SAVE_ABORTING)
        return;
    if (st->broken)
        append_to_broken(st);
    else if (!tail_is_filling(st))
        append_start(st);
}

static void on_retry(struct timer *t)
{
    struct store *st = container_of(t, struct store, retry);
    st->save_wanted = true;
    pump(st);
}

static void arm_interval(struct store *st)
{
    uint64_t every = st->setup.save_interval;
    if (every > 0)
        (void)!loop_arm(st->setup.loop, &st->interval, loop_now(st->setup.loop) + every / 2);
}

static void on_interval(struct timer *t)
{
    struct store *st = container_of(t, struct store, interval);
    arm_interval(st);
    store_check_words(st);
    st->save_wanted |= st->tokens_moved || st->journal_length > 0;
    pump(st);
}

/* ---- begin and end ---- */

void store_start(struct store *st)
{
    timer_init(&st->interval, on_interval);
    timer_init(&st->retry, on_retry);
    timer_init(&st->pace, on_pace);
    arm_interval(st);
}

void store_set_interval(struct store *st, uint64_t save_interval)
{
    if (st->closing || st->setup.save_interval == save_interval)
        return;
    st->setup.save_interval = save_interval;
    /* Without a timer a failure to arm leaves it to the next reload; where one is armed there is room. */
    arm_interval(st);
}

void store_close(struct store *st, void (*done)(void *arg, bool ok), void *arg)
{
    assert(st->append.state == APPEND_NONE && !st->closing);
    st->closing = true;
    st->closed = done;
    st->closed_arg = arg;
    loop_cancel(st->setup.loop, &st->interval);
    loop_cancel(st->setup.loop, &st->retry);
    if (timer_armed(&st->pace)) { /* a save in its pause: what is saved at the end is newer */
        loop_cancel(st->setup.loop, &st->pace);
        save_abort(st, 0);
    }
    pump(st);
}

void store_reopen(struct store *st)
{
    assert(st->closing && st->save.state == SAVE_NONE);
    st->closing = false;
    if (st->journal.fd < 0)
        st->broken = true; /* it was let go of, and is made anew by the next save */
    retry_later(st);
    arm_interval(st);
}

void store_unlock(struct store *st)
{
    assert(st->closing);
    file_close(st->lock);
    st->lock = -1;
}

void store_free(struct store *st)
{
    if (!st)
        return;
    loop_cancel(st->setup.loop, &st->interval);
    loop_cancel(st->setup.loop, &st->retry);
    loop_cancel(st->setup.loop, &st->pace);
    store_save_abort(&st->save.job);
    store_save_release(&st->save);
    buf_fini(&st->append.lines);
    file_close(st->journal.fd);
    words_file_fini(&st->words);
    file_close(st->lock); /* from here on the files are another's */
    mem_free(st->path);
    mem_free(st->journal_path);
    mem_free(st->lock_path);
    mem_free(st);
}
