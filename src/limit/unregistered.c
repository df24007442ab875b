/* clients.json.unregistered: the buckets of unregistered clients between a graceful stop and the next start.
 *
 *   stopped 17 5000 17645    the boot; the moment of the stop, in the buckets' time and on the wall clock
 *   time 31 ...              an export with words, see export.c
 *   ...
 *   end 1                    the file is whole
 *
 * It is written when nobody asks any more, and read before anybody does. From then on it says what is past, so it is
 * removed; but only when the process serves, for a start that has failed has changed nothing. */
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "limiter_impl.h"
#include "store_impl.h"

#include <errno.h>
#include <string.h>

#define PIECE    65536u
#define TEXT_MAX ((size_t)1 << 36)

typedef unsigned long long ull;

bool kept_init(struct kept *k, const struct store *st)
{
    *k = (struct kept){.store = st,
                       .path = file_path_with(st->path, ".unregistered"),
                       .temp = file_path_with(st->path, ".unregistered.tmp"),
                       .fd = -1};
    return k->path && k->temp;
}

void kept_fini(struct kept *k)
{
    file_close(k->fd); /* of a stop that was not waited for: the temporary stays */
    k->fd = -1;
    buf_fini(&k->piece);
    mem_free(k->path);
    mem_free(k->temp);
}

/* ---- the stop ---- */

/* Nothing is touched beside a process that has come to use the files meanwhile. */
static int is_ours(const struct kept *k)
{
    return file_still_at(k->store->lock, k->store->lock_path);
}

static void abandon(struct kept *k)
{
    if (is_ours(k) == 0)
        file_replace_abort(k->path, k->fd);
    else
        file_close(k->fd); /* a temporary of that name is perhaps another process' by now */
}

/* On the helper thread. */
static void write_piece(struct job *j)
{
    struct kept *k = container_of(j, struct kept, job);
    k->result = is_ours(k);
    if (k->result == 0 && k->fd < 0)
        k->fd = k->result = file_replace_begin_with(k->path, k->store->path);
    if (k->result >= 0)
        k->result = file_write_all(k->fd, buf_str(&k->piece));
    if (k->result == 0 && k->last) {
        k->result = file_replace_commit(k->path, k->fd);
        k->fd = -1;
    }
    if (k->result < 0 && k->fd >= 0) {
        abandon(k);
        k->fd = -1;
    }
}

static void remove_file(struct job *j)
{
    struct kept *k = container_of(j, struct kept, job);
    k->result = is_ours(k);
    if (k->result == 0)
        k->result = file_remove(k->path);
    if (k->result == 0)
        k->result = file_remove(k->temp);
}

static void end(struct limiter *lim, int result)
{
    buf_fini(&lim->kept.piece);
    if (result < 0)
        store_log_failure("unregistered", result);
    lim->stopped(lim->stopped_arg, result == 0 && lim->closed_well);
}

static void next_piece(struct limiter *lim);

static void piece_done(struct job *j)
{
    struct limiter *lim = container_of(j, struct limiter, kept.job);
    if (lim->kept.result < 0 || lim->kept.last)
        end(lim, lim->kept.result);
    else
        next_piece(lim);
}

static bool fill_piece(struct limiter *lim)
{
    struct kept *k = &lim->kept;
    ull boot = k->store->clock.boot, now = limiter_now(lim), wall = clock_wall(); /* in that order everywhere */
    buf_consume(&k->piece, k->piece.len);
    if (!k->at.begun && !buf_printf(&k->piece, "stopped %llu %llu %llu\n", boot, now, wall))
        return false;
    if (!limiter_export(lim, &k->at, PIECE, &k->piece))
        return false;
    k->last = k->at.buckets.ended;
    return !k->last || buf_append_str(&k->piece, STR("end 1\n"));
}

static void next_piece(struct limiter *lim)
{
    struct kept *k = &lim->kept;
    if (!fill_piece(lim))
        end(lim, -ENOMEM);
    else /* where all are full there is nothing to keep, and what was kept before is past */
        worker_submit(lim->worker, &k->job, k->last && !k->at.told ? remove_file : write_piece, piece_done);
}

static void closed(void *arg, bool ok)
{
    struct limiter *lim = arg;
    lim->closed_well = ok;
    loop_cancel(lim->loop, &lim->sweep); /* what it moves could be passed over */
    lim->kept.at = (struct limiter_export){.buckets.words = true};
    next_piece(lim);
}

void limiter_stop(struct limiter *lim, void (*done)(void *arg, bool ok), void *arg)
{
    lim->stopped = done;
    lim->stopped_arg = arg;
    limiter_close(lim, closed, lim);
}

/* ---- the start ---- */

static void log_ignored(const struct kept *k, const char *reason)
{
    log_begin(LOG_WARN, "tokens_ignored");
    log_z("file", k->path);
    log_z("reason", reason);
    log_end();
}

void limiter_recall(struct limiter *lim)
{
    struct kept *k = &lim->kept;
    struct buf text = BUF_INIT;
    int r = file_read(k->path, TEXT_MAX, &text);
    k->found = r != -ENOENT || file_exists(k->temp);
    const char *fault = r == 0 ? limiter_import_kept(lim, buf_str(&text)) : r != -ENOENT ? file_why(r) : NULL;
    if (fault)
        log_ignored(k, fault);
    buf_fini(&text);
}

static void removed(struct job *j)
{
    const struct kept *k = container_of(j, struct kept, job);
    if (k->result < 0)
        store_log_failure("unregistered", k->result);
}

void limiter_serves(struct limiter *lim)
{
    if (lim->kept.found)
        worker_submit(lim->worker, &lim->kept.job, remove_file, removed);
    lim->kept.found = false;
}
