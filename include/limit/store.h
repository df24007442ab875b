/* The files of the registered clients: clients.json, its journal and its lock. What is told to be on disk is there, and
 * the loop never waits for it: everything but store_open() and store_free() works through the helper thread. */
#ifndef LB_LIMIT_STORE_H
#define LB_LIMIT_STORE_H

#include "base/buf.h"
#include "event/loop.h"
#include "event/worker.h"
#include "limit/client_table.h"
#include "limit/snapshot.h"

struct store;

struct store_setup {
    struct loop *loop;
    struct worker *worker;
    struct client_table *table; /* to be filled, and saved from then on */
    const char *path; /* of clients.json; its journal and lock stand beside it, or beside what it is a link to */
    uint64_t zero;    /* clock_boottime() at the buckets' time 0 */
    const struct instant *dated; /* store_dated() of the store that has left the files to this one; NULL: there is none,
                                    and the files say how old they are */
    uint64_t save_interval; /* ns between saves of what has changed; 0: only at the end, and when the journal is long */
    /* The outcome of store_append(), on the loop. What the lines say is to be in the table when it returns. May append
     * again. */
    void (*appended)(void *arg, bool ok);
    void *arg;
};

enum store_outcome {
    STORE_OPENED,
    STORE_DAMAGED, /* the files are there and hold what none of ours can: they are left as they are */
    STORE_UNUSABLE /* anything else: in use by another process, no permission, no memory */
};

/* Takes the lock, loads the clients, replays the journal and folds it in. NULL on failure, with a message for people in
 * `error` (size `n`), and *outcome says of which kind. */
struct store *store_open(const struct store_setup *setup, char *error, size_t n, enum store_outcome *outcome)
    __attribute__((warn_unused_result));

/* Only reads the files at `path`, beside whoever may be using them, and says in the same way whether store_open() would
 * find them damaged or could not read them; missing ones are in order. STORE_OPENED: nothing is wrong with them. */
enum store_outcome store_check(const char *path, char *error, size_t n);

/* Brings `lines` (taken over, left empty), which are `count` changes, to disk; then appended() is called. One call at a
 * time. */
void store_append(struct store *st, struct buf *lines, size_t count);

/* Another save_interval, from now on. */
void store_set_interval(struct store *st, uint64_t save_interval);

/* Notes that some bucket has changed, so that the next save is due. */
void store_note_tokens(struct store *st);

/* Looks whether clients.json is still as it was loaded or saved last, and logs it if not. It is not loaded again. */
void store_look(struct store *st);

/* This moment, as changes are dated. */
struct instant store_instant(const struct store *st);

/* What the wall clock showed at a moment to which saved_at of clients.json is to be held: that of the last save, or of
 * the load. */
struct instant store_dated(const struct store *st);

/* Saves what is not in clients.json yet, removes the journal, then calls done(arg, ok) on the loop. No append may be
 * under way, or come. */
void store_close(struct store *st, void (*done)(void *arg, bool ok), void *arg);

/* That has failed, as done() was told: nothing is given away, and the store goes on as before. */
void store_reopen(struct store *st);

/* After store_close() has succeeded: gives the lock to whoever waits for the files. Nothing is written any more. */
void store_unlock(struct store *st);

/* Lets go of everything; jobs must have ended (worker_free()). NULL is fine. */
void store_free(struct store *st);

#endif
