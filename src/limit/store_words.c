/* The file of the words while the store is open: it gets a piece more before there is no room left in it, and counts no
 * more once a page of it is lost. */
#include "base/file.h"
#include "store_impl.h"

#include <errno.h>

/* On the helper thread. */
static void extend_work(struct job *j)
{
    struct store *st = container_of(j, struct store, extension.job);
    struct extension *e = &st->extension;
    e->result = words_file_extend(&st->words, &e->slots, &e->n);
}

/* A piece that is mapped, and has no memory to be in the pool, waits for the next time. */
static int add_slots(struct store *st)
{
    struct extension *e = &st->extension;
    if (!words_add(&st->setup.table->words, e->slots, e->n))
        return -ENOMEM;
    e->n = 0;
    return 0;
}

static void extend_done(struct job *j)
{
    struct store *st = container_of(j, struct store, extension.job);
    struct extension *e = &st->extension;
    e->running = false;
    if (e->result == 0)
        e->result = add_slots(st);
    if (e->result == 0)
        return;
    store_log_failure("tokens", e->result);
    e->retry_at = loop_now(st->setup.loop) + RETRY_AFTER;
}

void store_extend_words(struct store *st)
{
    struct extension *e = &st->extension;
    const struct words *words = &st->setup.table->words;
    if (words->unkept && !st->unkept_logged && st->words.installed) {
        store_log_failure("tokens", -ENOSPC); /* some are in memory only */
        st->unkept_logged = true;
    }
    bool enough = words->room >= WORDS_LOW;
    if (enough || e->running || !st->words.installed || loop_now(st->setup.loop) < e->retry_at)
        return;
    if (e->n > 0 && add_slots(st) == 0)
        return;
    e->running = true;
    worker_submit(st->setup.worker, &e->job, extend_work, extend_done);
}

void store_check_words(struct store *st)
{
    if (!file_map_is_lost() || st->lost_logged)
        return;
    store_log_failure("tokens", -EIO);
    words_file_spoil(&st->words); /* what is written to a lost page is not in the file */
    st->lost_logged = true;
}
