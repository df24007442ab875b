/* The start of the store: lock, load, replay, fold the journal in. Blocking: the loop does not run yet. A disk that
 * takes no save is no reason not to start: the journal goes on as it is. */
#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "limit/journal.h"
#include "store_impl.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* A file larger than this is none of ours. */
#define FILE_MAX ((size_t)1 << 36)

/* file_replace() leaves these beside a file: what a save that was cut off had written; and, where the file is a mount
 * point and is rewritten in place, a whole copy, which counts as long as it is there. */
#define TEMP_SUFFIX   ".tmp"
#define RESCUE_SUFFIX ".rescue"

struct load {
    struct store *st;
    struct instant at;
    uint64_t saved_wall_ns;
    uint64_t snapshot; /* clients.json's saved_at, 0 where there is none */
    bool rescued;
    bool missing; /* there is no clients.json, nor a copy of it */
    bool unsaved; /* the save has failed: it is made later, and copies stay until then */
    bool torn;    /* behind journal_length there is what is to be cut off */
    bool journal; /* there was one */
    struct past_words past;
    char *error;
    size_t error_size;
    enum store_outcome *outcome;
};

static bool fail(struct load *l, enum store_outcome outcome, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

static bool fail(struct load *l, enum store_outcome outcome, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    vsnprintf(l->error, l->error_size, fmt, args);
    va_end(args);
    *l->outcome = outcome;
    return false;
}

/* The text is damaged, or memory to take it in has run out. */
static bool not_loaded(struct load *l, const char *path, struct str text, const struct text_fault *fault)
{
    unsigned line, column;
    if (fault->no_memory)
        return fail(l, STORE_UNUSABLE, "%s: out of memory", path);
    json_line_column(text, fault->offset, &line, &column);
    return fail(l, STORE_DAMAGED, "%s:%u:%u: %s", path, line, column, fault->what);
}

/* Says whose rights it is that are missing: in a container neither the user nor the folder is what one thinks of. */
static bool not_written(struct load *l, const char *path, int result)
{
    char name[FILE_NAME_MAX];
    file_absolute(path, name);
    if (result == -EACCES || result == -EPERM)
        return fail(l, STORE_UNUSABLE, "%s: cannot be written by user %u: %s", name, file_user(), strerror(-result));
    return fail(l, STORE_UNUSABLE, "%s: %s", name, strerror(-result));
}

static bool no_folder(struct load *l)
{
    const char *given = l->st->setup.path;
    char name[FILE_NAME_MAX];
    if (strcmp(given, l->st->path) != 0)
        return fail(l, STORE_UNUSABLE, "%s: a symbolic link to %s, whose folder does not exist", given, l->st->path);
    file_absolute(given, name);
    *strrchr(name, '/') = '\0';
    return fail(l, STORE_UNUSABLE, "%s: the folder %s does not exist", given, name);
}

static bool take_lock(struct load *l)
{
    int holder = 0, fd = file_lock(l->st->lock_path, &holder);
    if (fd >= 0) {
        l->st->lock = fd;
        return true;
    }
    if (fd == -ENOENT)
        return no_folder(l);
    if (fd != -EWOULDBLOCK)
        return not_written(l, l->st->lock_path, fd);
    return holder > 0 ? fail(l, STORE_UNUSABLE, "%s is in use by process %d", l->st->path, holder)
                      : fail(l, STORE_UNUSABLE, "%s is in use by another process", l->st->path);
}

/* ---- clients.json ---- */

struct source {
    int fd;
    size_t total;
};

static ssize_t read_more(void *arg, char *p, size_t n)
{
    struct source *f = arg;
    ssize_t got = file_read_some(f->fd, p, n);
    f->total += got > 0 ? (size_t)got : 0;
    return f->total > FILE_MAX ? -EFBIG : got;
}

/* Where in the file that is can be said only by reading it again. */
static bool clients_not_loaded(struct load *l, const char *path, const struct text_fault *fault)
{
    if (fault->unreadable < 0)
        return fail(l, STORE_UNUSABLE, "%s: %s", path, file_why(fault->unreadable));
    struct buf text = BUF_INIT;
    int r = fault->no_memory ? 0 : file_read(path, FILE_MAX, &text);
    if (r == 0)
        not_loaded(l, path, buf_str(&text), fault);
    else
        fail(l, STORE_DAMAGED, "%s: at byte %zu: %s", path, fault->offset, fault->what);
    buf_fini(&text);
    return false;
}

/* Loads one of the files, if it is there: *there says so. One that cannot be read now may be whole all the same. */
static bool load_file(struct load *l, const char *path, bool *there)
{
    struct source f = {.fd = file_open_to_read(path)};
    struct text_fault fault;
    *there = f.fd != -ENOENT;
    if (f.fd < 0)
        return f.fd == -ENOENT || fail(l, STORE_UNUSABLE, "%s: %s", path, file_why(f.fd));
    bool ok = snapshot_read(&(struct snapshot_source){read_more, &f}, l->st->setup.table, &l->at, &l->st->clock,
                            &l->snapshot, &fault);
    file_close(f.fd);
    l->saved_wall_ns = l->snapshot ? l->snapshot : l->at.wall_ns;
    return ok || clients_not_loaded(l, path, &fault);
}

static bool load_clients(struct load *l)
{
    bool there = true;
    char rescue[FILE_NAME_MAX];
    int r = file_name_beside(l->st->path, RESCUE_SUFFIX, rescue);
    if (r < 0)
        return fail(l, STORE_UNUSABLE, "%s: %s", l->st->path, strerror(-r));
    store_save_mark(&l->st->save);
    bool ok = load_file(l, rescue, &l->rescued);
    if (ok && l->rescued) {
        log_begin(LOG_WARN, "store_copy_used");
        log_z("file", rescue);
        log_end();
    }
    ok = ok && (l->rescued || load_file(l, l->st->path, &there));
    l->missing = !there;
    return ok;
}

/* ---- the words ---- */

static void log_words(const struct load *l, const char *event, const char *reason)
{
    log_begin(LOG_WARN, event);
    log_z("file", l->st->words.path);
    log_z("reason", reason);
    log_end();
}

/* What the process before has left, if it was killed. Without it the tokens of clients.json and its journal count. */
static void read_past(struct load *l)
{
    int error;
    switch (words_file_read(&l->st->words, l->at.now + l->st->setup.zero, &l->past, &error)) {
    case WORDS_FOUND:
    case WORDS_NONE: break;
    case WORDS_UNREADABLE: log_words(l, "tokens_ignored", file_why(error)); break;
    case WORDS_DAMAGED: log_words(l, "tokens_ignored", "damaged"); break;
    case WORDS_OTHER_BOOT: log_words(l, "tokens_ignored", "the machine was restarted"); break;
    }
}

static bool add_piece(void *arg)
{
    struct store *st = arg;
    struct word_slot *slots;
    size_t n;
    return words_file_extend(&st->words, &slots, &n) == 0 && words_add(&st->setup.table->words, slots, n);
}

/* The words of the clients that are loaded go into the new file. Where there can be none, they are not kept, and the
 * tokens after a kill are those of the last save. */
static bool begin_words(struct load *l)
{
    struct store *st = l->st;
    struct words *words = &st->setup.table->words;
    struct word_slot *slots;
    size_t n;
    int r = words_file_begin(&st->words, &words->key, st->setup.zero, &slots, &n);
    if (r < 0) {
        log_words(l, "tokens_not_kept", strerror(-r));
        return true;
    }
    words->extend = add_piece;
    words->extend_arg = st;
    return words_add(words, slots, n) || fail(l, STORE_UNUSABLE, "%s: out of memory", st->path);
}

static bool goes_with(const struct past_words *past, uint64_t snapshot)
{
    for (unsigned i = 0; i < WORDS_SNAPSHOTS; i++)
        if (past->snapshots[i] == snapshot)
            return true;
    return false;
}

/* The words that go with this clients.json are newer than the tokens in it. */
static void recall_words(struct load *l)
{
    struct client_table *t = l->st->setup.table;
    struct past_words *past = &l->past;
    if (past->n == 0)
        return;
    if (!goes_with(past, l->snapshot)) {
        log_words(l, "tokens_ignored", "another clients.json");
        return;
    }
    t->past = past;
    t->past_now = l->at.now + l->st->setup.zero - past->zero;
    for (struct client *c = client_table_after(t, 0); c; c = client_table_next(c)) {
        c->exact = client_table_recall(t, c, &c->policy, l->at.now, client_word(t, c));
        l->st->tokens_moved |= c->exact;
    }
}

/* From here on the new file counts, beside the clients.json as it was loaded: there is no moment at which the words do
 * not. */
static void install_words(struct load *l)
{
    struct store *st = l->st;
    struct words *words = &st->setup.table->words;
    while (st->words.fd >= 0 && words->room < WORDS_LOW && add_piece(st))
        ;
    words->extend = NULL;
    if (st->words.fd < 0)
        return;
    int r = words_file_install(&st->words, l->snapshot);
    if (r < 0)
        log_words(l, "tokens_not_kept", strerror(-r));
    else if (words->unkept)
        log_words(l, "tokens_not_kept", "there is no room for all of them");
}

/* Where there is no new file, an old one must not stay either, once its words are saved: nothing in it moves any more,
 * and the next start would take it for the last word. */
static bool remove_old_words(struct load *l)
{
    struct store *st = l->st;
    bool unsaved = st->tokens_moved; /* the save has failed: then its words are better than none */
    int r = st->words.installed || unsaved ? 0 : words_file_remove(&st->words);
    return r == 0 || fail(l, STORE_UNUSABLE, "%s: it cannot be removed: %s", st->words.path, strerror(-r));
}

/* ---- the journal ---- */

static bool replay(struct load *l, struct str text)
{
    struct store *st = l->st;
    struct text_fault fault;
    size_t good;
    enum journal_end end = journal_replay(text, st->setup.table, &l->at, l->saved_wall_ns, &good, &fault);
    if (end == JOURNAL_BAD)
        return not_loaded(l, st->journal_path, text, &fault);
    st->journal_length = good;
    l->torn = end == JOURNAL_TORN;
    if (l->torn) {
        log_begin(LOG_WARN, "journal_torn");
        log_z("file", st->journal_path);
        log_u64("bytes_dropped", text.n - good);
        log_end();
    }
    return true;
}

static bool load_journal(struct load *l)
{
    struct store *st = l->st;
    struct buf text = BUF_INIT;
    int r = file_read(st->journal_path, FILE_MAX, &text);
    bool ok = r == -ENOENT || (r == 0 && replay(l, buf_str(&text)));
    l->journal = r != -ENOENT;
    buf_fini(&text);
    if (r < 0 && r != -ENOENT)
        return fail(l, STORE_UNUSABLE, "%s: %s", st->journal_path, file_why(r));
    return ok;
}

/* Opened before anything is served: what may not be written is known at once. A new one is synced with its folder by
 * that. One that has been read is synced although it is there: a process that was killed may have created the file, or
 * renamed it into its place, and not lived to sync that; or it has cut off a group that could not be synced, which the
 * disk may still hold: what is shown as gone from here on must not come back with the next power cut. */
static bool open_journal(struct load *l)
{
    struct store *st = l->st;
    int r = st->journal.fd = file_open_append_with(st->journal_path, st->path);
    if (r >= 0 && l->journal)
        r = file_sync_data(st->journal.fd);
    if (r >= 0 && l->journal)
        r = file_sync_folder(st->journal_path);
    return r >= 0 || not_written(l, st->journal_path, r);
}

/* ---- folding in ---- */

/* Saves by the steps of a save in operation, one right after the other. */
static int save_now(struct store *st)
{
    struct save *s = &st->save;
    int r = 0;
    store_save_prepare(st);
    while (r == 0 && !s->last_piece) {
        r = store_save_fill(st);
        if (r == 0)
            store_save_write(&s->job);
        r = r < 0 ? r : s->result;
    }
    if (r < 0) {
        store_save_abort(&s->job);
    } else {
        words_file_note(&st->words, s->at.wall_ns, false);
        store_save_commit(&s->job);
    }
    store_log_foreign(s, true);
    store_save_release(s);
    if (r == 0)
        r = s->result;
    if (r == 0) {
        words_file_note(&st->words, s->at.wall_ns, true);
        st->dated = s->at;
    }
    return r;
}

/* What is appended from here on must not stand behind half a line. */
static int cut_journal(struct load *l)
{
    struct store *st = l->st;
    int r = l->torn ? file_truncate(st->journal.fd, st->journal_length) : 0;
    return r == 0 && l->torn ? file_sync_data(st->journal.fd) : r;
}

/* All that could be read counts, and is on disk as it was: a disk that is full now keeps nobody from being served. The
 * journal is appended to as if the process before went on, and the save is tried again each second. */
static void go_on_unsaved(struct load *l, int result)
{
    int r = cut_journal(l);
    l->unsaved = true;
    store_save_failed(l->st, result);
    if (r < 0)
        store_journal_failed(l->st, r);
}

/* Without files that are ours alone, or memory, there is nothing to go on with. */
static bool is_hopeless(int result)
{
    return result == -EWOULDBLOCK || result == -ENOMEM;
}

static bool fold_in(struct load *l)
{
    struct store *st = l->st;
    bool needed = st->journal_length > 0 || l->torn || l->rescued;
    /* Words that will be in no file, or not all of them, are saved while they are known. */
    bool wanted = st->tokens_moved && (!st->words.installed || st->setup.table->words.unkept);
    if (!needed && !wanted)
        return true;
    int r = save_now(st), journal = st->save.journal_result;
    if (is_hopeless(r))
        return not_written(l, st->path, r);
    if (r < 0)
        go_on_unsaved(l, r);
    else if (journal < 0)
        store_journal_failed(st, journal);
    else
        st->journal_length = 0;
    return true;
}

/* Beside a clients.json that is whole they are of no use, and would be misleading later. Where it may not be whole, the
 * next save sees to them. */
static bool remove_copies(struct load *l)
{
    static const char *const suffixes[] = {TEMP_SUFFIX, RESCUE_SUFFIX};
    char name[FILE_NAME_MAX];
    int r = 0;
    for (unsigned i = 0; i < 2 && r == 0 && !l->unsaved; i++) {
        r = file_name_beside(l->st->path, suffixes[i], name);
        if (r == 0)
            r = file_remove(name);
    }
    return r == 0 || fail(l, STORE_UNUSABLE, "%s: its copy cannot be removed: %s", l->st->path, strerror(-r));
}

/* Changes are in the journal all the same, and that grows; better known now than at the first save. */
static void warn_of_saves(const struct load *l)
{
    char name[FILE_NAME_MAX];
    int r = file_may_replace(l->st->path);
    if (r == 0)
        return;
    file_absolute(l->st->path, name);
    log_begin(LOG_WARN, "store_not_writable");
    log_z("file", name);
    log_u64("user", file_user());
    log_z("reason", strerror(-r));
    log_end();
}

/* A missing file is an empty one; started in another folder, a process that knows nobody would otherwise look well. */
static void log_loaded(const struct load *l)
{
    char name[FILE_NAME_MAX];
    file_absolute(l->st->path, name);
    log_begin(LOG_INFO, "clients_loaded");
    log_z("file", name);
    log_u64("clients", l->st->setup.table->shown);
    if (l->missing)
        log_z("missing", "yes");
    log_end();
}

/* `path`: of the file itself, links followed. */
static struct store *store_new(const struct store_setup *setup, const char *path)
{
    struct store *st = mem_try_alloc(sizeof *st);
    if (!st)
        return NULL;
    st->setup = *setup;
    st->lock = st->journal.fd = st->save.fd = -1;
    st->path = file_path_with(path, "");
    st->journal_path = file_path_with(path, ".journal");
    st->lock_path = file_path_with(path, ".lock");
    st->journal.path = st->journal_path;
    st->append.journal = st->save.journal = &st->journal;
    st->save.path = st->path;
    st->save.clock = &st->clock;
    st->save.words = &st->words;
    st->save.lock_path = st->lock_path;
    st->save.lock = &st->lock;
    st->append.lock_path = st->lock_path;
    st->append.lock = &st->lock;
    store_start(st);
    if (words_file_init(&st->words, path) && st->path && st->journal_path && st->lock_path)
        return st;
    store_free(st);
    return NULL;
}

static bool load(struct load *l)
{
    read_past(l);
    if (!begin_words(l) || !load_clients(l))
        return false;
    recall_words(l);
    if (!load_journal(l) || !open_journal(l))
        return false;
    if (l->past.damaged)
        log_words(l, "tokens_ignored", "some of the words in it are damaged");
    install_words(l);
    if (!fold_in(l) || !remove_copies(l) || !remove_old_words(l))
        return false;
    log_loaded(l);
    warn_of_saves(l);
    return true;
}

/* The one lock, journal and words' file of a clients.json stand beside it, by whichever name it is reached. */
static bool make_store(struct load *l, const struct store_setup *setup)
{
    char path[FILE_NAME_MAX];
    int r = file_resolve(setup->path, path);
    if (r < 0)
        return fail(l, STORE_UNUSABLE, "%s: %s", setup->path, strerror(-r));
    l->st = store_new(setup, path);
    return l->st || fail(l, STORE_UNUSABLE, "%s: out of memory", setup->path);
}

/* Behind another process in the same boot, the wall clock is taken to have gone on from where that one has read it, as
 * the buckets' has: it may have been set meanwhile. */
static struct instant load_instant(const struct store *st)
{
    const struct instant *dated = st->setup.dated;
    if (!dated) { /* in this order: what passes between is not what a bucket has gained before and gains behind, too */
        uint64_t wall = clock_wall();
        return store_whole_ms(clock_boottime() - st->setup.zero, wall);
    }
    uint64_t now = clock_boottime() - st->setup.zero;
    return now > dated->now ? store_whole_ms(now, dated->wall_ns + (now - dated->now)) : *dated;
}

struct store *store_open(const struct store_setup *setup, char *error, size_t n, enum store_outcome *outcome)
{
    static const struct hash_key any;
    struct load l = {.error = error, .error_size = n, .outcome = outcome};
    *outcome = STORE_OPENED;
    if (!make_store(&l, setup))
        return NULL;
    l.st->clock = (struct boot_clock){words_boot(&any), setup->zero};
    l.at = l.st->dated = load_instant(l.st);
    l.st->setup.dated = NULL;
    bool ok = take_lock(&l) && load(&l);
    setup->table->past = NULL;
    setup->table->words.extend = NULL;
    past_words_fini(&l.past);
    if (ok)
        return l.st;
    store_free(l.st);
    return NULL;
}

/* ---- a look ---- */

/* The steps of a start that change nothing. */
static enum store_outcome look(const struct store_setup *setup, char *error, size_t n)
{
    enum store_outcome outcome = STORE_OPENED;
    struct load l = {.error = error, .error_size = n, .outcome = &outcome};
    if (!make_store(&l, setup))
        return outcome;
    l.at = load_instant(l.st);
    if (load_clients(&l) && load_journal(&l) && file_may_replace(l.st->path) == -ENOENT)
        (void)no_folder(&l); /* a failure is in the outcome */
    store_free(l.st);
    return outcome;
}

/* A clients.json that is rewritten in place meanwhile, because it is a mount point, may look damaged. */
#define LOOKS_MAX 3u

static bool has_changed(const char *path, const struct file_mark *before)
{
    struct file_mark now;
    return file_mark(path, &now) == 0 && !file_mark_eq(before, &now);
}

enum store_outcome store_check(const char *path, char *error, size_t n)
{
    static const struct hash_key any;
    struct client_table table;
    struct store_setup setup = {.loop = loop_new(), .table = &table, .path = path};
    enum store_outcome outcome = STORE_UNUSABLE;
    struct file_mark mark;
    snprintf(error, n, "%s: out of memory", path);
    if (!setup.loop)
        return outcome;
    for (unsigned looks = 0; looks < LOOKS_MAX; looks++) {
        bool marked = file_mark(path, &mark) == 0;
        client_table_init(&table, &any);
        outcome = look(&setup, error, n);
        client_table_fini(&table);
        if (outcome != STORE_DAMAGED || !marked || !has_changed(path, &mark))
            break;
    }
    loop_free(setup.loop);
    return outcome;
}
