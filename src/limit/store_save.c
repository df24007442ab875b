/* One save of clients.json: what goes into its pieces, and the jobs that write them. store.c makes a save between other
 * work, store_load.c one at the start. */
#include "base/file.h"
#include "base/log.h"
#include "store_impl.h"

#include <errno.h>
#include <stdio.h>

/* Clients noted in one turn of the loop, some hundredths of a millisecond, between two pauses. The helper thread has a
 * quarter of a millisecond of work with them: what shares a processor with it waits no longer than that for it. A
 * million take 5 s so, half of the default save_interval; with larger slices requests wait, docs/performance.md. A last
 * save, one that changes wait for, and the rest of one during which many come, is made without pauses. */
#define SLICE       300u
#define SLICE_FINAL 4096u

/* Behind a sync that changes wait for. That takes several milliseconds on most disks, in which the thread has nothing
 * to do; with small slices a save would last as long as thousands of syncs. */
#define SLICE_BEHIND 1200u

/* Bytes between two of file_start_sync(). */
#define SYNC_EVERY (1u << 20)

/* ---- on the helper thread ---- */

/* Where the lock has gone with its folder, it is taken anew: nothing is written beside a process that has come to use
 * the files meanwhile. */
static int keep_lock(struct save *s)
{
    int holder, r = file_still_at(*s->lock, s->lock_path);
    if (r != -ENOENT && r != -ESTALE)
        return r;
    int fd = file_lock(s->lock_path, &holder);
    if (fd < 0)
        return fd;
    file_close(*s->lock);
    *s->lock = fd;
    s->relocked = true;
    return 0;
}

/* Makes text of the notes: the next piece of the file. */
static bool make_piece(struct save *s)
{
    s->piece.len = 0;
    if (s->written == 0 && !buf_append_str(&s->piece, SNAPSHOT_BEGIN))
        return false;
    if (!snapshot_append_clients(&s->piece, buf_str(&s->notes), &s->written))
        return false;
    return !s->last_piece || snapshot_append_end(&s->piece, &s->at, s->clock);
}

/* Else the sync at the end has all of it to do. */
static void begin_sync(struct save *s)
{
    s->unsynced += s->piece.len;
    if (s->unsynced < SYNC_EVERY)
        return;
    file_start_sync(s->fd);
    s->unsynced = 0;
}

void store_save_write(struct job *j)
{
    struct save *s = container_of(j, struct save, job);
    s->result = s->fd < 0 ? keep_lock(s) : 0;
    if (s->result == 0 && !make_piece(s))
        s->result = -ENOMEM;
    if (s->result == 0 && s->fd < 0)
        s->fd = s->result = file_replace_begin(s->path);
    if (s->result >= 0)
        s->result = file_write_all(s->fd, buf_str(&s->piece));
    if (s->result >= 0)
        begin_sync(s);
}

void store_save_abort(struct job *j)
{
    struct save *s = container_of(j, struct save, job);
    if (s->fd >= 0 && file_still_at(*s->lock, s->lock_path) == 0)
        file_replace_abort(s->path, s->fd);
    else
        file_close(s->fd); /* a temporary of that name is perhaps another process' by now */
    s->fd = -1;
}

/* Puts a new journal, which holds the tail alone, in the old one's place. */
static int renew_journal(const struct save *s)
{
    struct journal_file *journal = s->journal;
    file_close(journal->fd);
    journal->fd = -1;
    if (s->final)
        return file_remove(journal->path);
    int r = file_replace_with(journal->path, s->path, buf_str(&s->tail));
    if (r < 0)
        return r;
    journal->fd = file_open_append_with(journal->path, s->path);
    return journal->fd < 0 ? journal->fd : 0;
}

void store_save_mark(struct save *s)
{
    s->marked = file_mark(s->path, &s->mark) == 0;
}

/* Whoever has changed clients.json under the running process had better know that this is lost; or a backup has been
 * put there, for the next start. The journal and the clients in memory are newer, so it is replaced all the same. */
static const char *foreign_deed(const struct save *s)
{
    static const struct file_mark nothing;
    struct file_mark now;
    if (!s->marked || file_mark(s->path, &now) < 0 || file_mark_eq(&now, &s->mark))
        return NULL;
    return file_mark_eq(&now, &nothing) ? "removed" : "changed";
}

static int replace_clients(struct save *s)
{
    int r = file_replace_commit(s->path, s->fd);
    store_save_mark(s); /* also after a failure: it may stand there all the same */
    return r;
}

void store_save_commit(struct job *j)
{
    struct save *s = container_of(j, struct save, job);
    s->journal_result = s->words_result = 0;
    s->result = keep_lock(s);
    s->foreign = s->result == 0 ? foreign_deed(s) : NULL;
    s->words_gone = s->words->installed && file_still_at(s->words->fd, s->words->path) < 0;
    bool replaces = s->fd >= 0;
    if (replaces && s->result == 0)
        s->result = replace_clients(s);
    else
        file_close(s->fd);
    s->fd = -1;
    /* What was clean is not, when somebody has taken the files away. */
    if (!replaces && s->result == 0 && (s->relocked || (s->some && !file_exists(s->path))))
        s->result = -ESTALE;
    if (s->result == 0 && !s->tail_lost)
        s->journal_result = renew_journal(s);
    if (s->words->installed)
        file_narrow(s->words->fd, s->path);
    /* Last: as long as it is there, it goes with what has just been saved. */
    if (s->final && s->result == 0 && s->journal_result == 0)
        s->words_result = words_file_remove(s->words);
}

/* ---- on the loop ---- */

/* What somebody has done to the file (NULL: nothing), and what comes of it. */
static void log_foreign(const char *file, const char *deed, const char *outcome)
{
    char reason[96];
    if (!deed)
        return;
    snprintf(reason, sizeof reason, "%s; %s", deed, outcome);
    log_begin(LOG_WARN, "store_file_changed");
    log_z("file", file);
    log_z("reason", reason);
    log_end();
}

void store_log_foreign(struct save *s, bool replaced)
{
    log_foreign(s->path, s->foreign,
                replaced ? "what is known takes its place" : "it is left as it is for the next start");
    s->foreign = NULL;
}

/* On the helper thread, which the mark belongs to. */
static void look_work(struct job *j)
{
    struct store *st = container_of(j, struct store, look.job);
    st->look.foreign = foreign_deed(&st->save);
}

static void look_done(struct job *j)
{
    struct store *st = container_of(j, struct store, look.job);
    st->look.running = false;
    log_foreign(st->path, st->look.foreign, "it is not loaded, and the next save puts what is known in its place");
}

void store_look(struct store *st)
{
    if (st->look.running || st->closing)
        return;
    st->look.running = true;
    worker_submit(st->setup.worker, &st->look.job, look_work, look_done);
}

void store_save_prepare(struct store *st)
{
    struct save *s = &st->save;
    s->at = store_instant(st);
    s->walked = 0;
    s->walk_end = st->setup.table->last_seq;
    s->written = 0;
    s->last_piece = false;
    s->tail_lost = false;
    s->tail_count = 0;
    s->final = st->closing;
    s->relocked = false;
    s->some = st->setup.table->shown > 0;
    s->slice = s->final ? SLICE_FINAL : SLICE;
    s->fd = -1;
    s->unsynced = 0;
    st->save_wanted = false;
    st->tokens_moved = false;
}

static unsigned slice_now(const struct store *st)
{
    unsigned n = st->save.slice;
    return st->append.state == APPEND_RUNNING && n < SLICE_BEHIND ? SLICE_BEHIND : n;
}

int store_save_fill(struct store *st)
{
    struct save *s = &st->save;
    s->notes.len = 0;
    const struct client_table *t = st->setup.table;
    const struct client *c = client_table_after(t, s->walked);
    for (unsigned left = slice_now(st); left > 0 && c && c->seq <= s->walk_end; left--, c = client_table_next(c)) {
        if (!snapshot_note_client(&s->notes, t, c, &s->at))
            return -ENOMEM;
        s->walked = c->seq;
    }
    s->last_piece = !c || c->seq > s->walk_end;
    return 0;
}

void store_save_hasten(struct save *s)
{
    s->slice = SLICE_FINAL;
}

void store_save_release(struct save *s)
{
    buf_fini(&s->notes);
    buf_fini(&s->piece);
    buf_fini(&s->tail);
}
