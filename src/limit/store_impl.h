/* What store.c (appending and saving), store_save.c (what a save writes), store_words.c (room for the words) and
 * store_load.c (start) share; unregistered.c, which keeps another file under the same lock, looks at path and lock. */
#ifndef LB_LIMIT_STORE_IMPL_H
#define LB_LIMIT_STORE_IMPL_H

#include "base/clock.h"
#include "base/file.h"
#include "event/timer.h"
#include "limit/store.h"
#include "limit/words_file.h"

/* The journal's descriptor: the helper thread's, while jobs run. */
struct journal_file {
    const char *path;
    int fd; /* -1: closed, because it could not be opened anew */
};

enum append_state { APPEND_NONE, APPEND_WAITING, APPEND_RUNNING };

struct append {
    struct job job;
    enum append_state state;
    struct journal_file *journal;
    const char *lock_path;
    const int *lock;
    struct buf lines;
    size_t count;
    uint64_t good; /* the journal's length before */
    int result;
};

/* NONE -> WRITING -> READY -> COMMITTING -> NONE, or WRITING -> ABORTING -> NONE, or NONE -> COMMITTING for the removal
 * of a journal that nothing is in. */
enum save_state { SAVE_NONE, SAVE_WRITING, SAVE_READY, SAVE_COMMITTING, SAVE_ABORTING };

/* The pause between two slices of a save, which leaves the loop and the disk to others. */
#define SAVE_PACE NS_PER_MS

struct save {
    struct job job;
    enum save_state state;
    const char *path;
    struct journal_file *journal;
    struct words_file *words;
    const char *lock_path;
    int *lock;
    int fd;           /* of the temporary, -1 before the first piece */
    size_t unsynced;  /* bytes of it that the disk has not been asked for yet */
    struct buf notes; /* of the clients that come next, */
    struct buf piece; /* and their text, made by the helper thread */
    int result, journal_result, words_result;
    bool last_piece, final; /* final: the journal is removed */
    bool words_gone;        /* somebody has removed their file, */
    bool relocked;          /* and that of the lock */
    bool some;              /* there are clients */
    struct file_mark mark;  /* of clients.json as it was loaded, or as the last save has left it, */
    bool marked;            /* if that could be seen */
    const char *foreign;    /* NULL, or what somebody else has done to it since */
    unsigned slice;         /* clients that are noted in one turn of the loop */

    struct instant at;
    const struct boot_clock *clock;
    uint64_t walked, walk_end; /* seq of the last client noted, and of the last one to be */
    uint64_t written;          /* seq of the last one written; 0: nothing is */

    struct buf tail; /* lines that were appended since the save began: they stay in the journal */
    size_t tail_count;
    bool tail_lost; /* there were too many: the journal stays as it is */
};

/* After a failure the next attempt waits for so long. */
#define RETRY_AFTER NS_PER_S

/* With fewer slots than this left the words' file gets a piece more: enough for the registrations until it is there. */
#define WORDS_LOW 2048u

/* One piece more for the words, before there is none left. */
struct extension {
    struct job job;
    bool running;
    int result;
    struct word_slot *slots;
    size_t n;          /* slots that are not in the pool yet */
    uint64_t retry_at; /* after a failure: not before */
};

/* Has somebody else changed clients.json? */
struct look {
    struct job job;
    bool running;
    const char *foreign;
};

struct store {
    struct store_setup setup;
    struct boot_clock clock; /* the buckets' time is on */
    char *path, *journal_path, *lock_path;
    int lock;
    struct journal_file journal;
    uint64_t journal_length, journal_lines; /* as far as it is on disk */
    bool broken;                            /* the journal cannot be relied on until a save has replaced it */
    bool failing;                           /* the log has said so, of a save or the journal, and nothing better yet */
    bool tokens_moved, save_wanted;
    bool lost_logged;     /* that words are gone from their mapping, */
    bool unkept_logged;   /* that some are in no file, */
    bool gone_logged;     /* and that their file is gone */
    uint64_t retry_at;    /* no save before that: one has failed */
    struct instant dated; /* see store_dated() */
    struct append append;
    struct save save;
    struct words_file words;
    struct extension extension;
    struct look look;
    struct timer interval, retry, pace;
    bool closing;
    void (*closed)(void *arg, bool ok);
    void *closed_arg;
};

/* ---- store.c ---- */

/* An instant to the millisecond of the wall clock; it is the moment of which that is the exact time. */
struct instant store_whole_ms(uint64_t now, uint64_t wall_ns);

/* Counts a failure and logs it: `what` has failed, with -errno. */
void store_log_failure(const char *what, int result);

/* A save has failed: it is logged, and tried again later. */
void store_save_failed(struct store *st, int result);

/* The journal has: it is not to be relied on until a save has succeeded. */
void store_journal_failed(struct store *st, int result);

/* Starts the timers. */
void store_start(struct store *st);

/* ---- store_save.c ---- */

/* Starts a save as of now: its instant, its walk, its buffers. */
void store_save_prepare(struct store *st);

/* Notes the next clients for store_save_write(); sets last_piece with the last of them. 0 or -ENOMEM. */
int store_save_fill(struct store *st) __attribute__((warn_unused_result));

/* Makes the slices that are still to come as large as those of a last save. */
void store_save_hasten(struct save *s);

/* Frees the buffers of a save that has ended. */
void store_save_release(struct save *s);

/* Notes clients.json as it is: what stands there later, and is another, is somebody else's doing. */
void store_save_mark(struct save *s);

/* Logs what somebody else had done to the file that the save has replaced, or left, if so. */
void store_log_foreign(struct save *s, bool replaced);

/* Jobs of the save, as run by the helper thread, and by the load itself at start. */
void store_save_write(struct job *j);
void store_save_commit(struct job *j);
void store_save_abort(struct job *j);

/* ---- store_words.c ---- */

/* Has a piece added to the words' file by the helper thread, when there is little room left in it. */
void store_extend_words(struct store *st);

/* Sees whether a page of the words' file has been lost. */
void store_check_words(struct store *st);

#endif
