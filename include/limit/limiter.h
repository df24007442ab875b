/* The limiter: whose request is this, may it pass, and what do the RateLimit fields say. Owns the registered clients,
 * the anonymous buckets and their store. (The essay on the bound stands in limiter.c.) */
#ifndef LB_LIMIT_LIMITER_H
#define LB_LIMIT_LIMITER_H

#include "base/buf.h"
#include "base/err.h"
#include "base/str.h"
#include "config/config.h"
#include "event/loop.h"
#include "event/worker.h"
#include "http/headers.h"
#include "limit/anon_table.h"
#include "limit/snapshot.h"
#include "limit/store.h"
#include "net/addr.h"

#include <stdbool.h>
#include <stdint.h>

struct limiter;

enum limit_verdict {
    LIMIT_ALLOW, /* forward it; a token was taken if it is limited */
    LIMIT_DENY   /* answer with `error`: ERR_RATE_LIMITED, ERR_UNKNOWN_CLIENT or ERR_BAD_CLIENT_ID */
};

#define LIMIT_FIELDS_MAX 256u

struct limit_answer {
    enum limit_verdict verdict;
    enum err error;         /* of LIMIT_DENY */
    struct str client_id;   /* whom it was counted for: a registered id, an address or network, "unix:"; "" when exempt.
                               Points into the answer or the limiter: valid until the next turn */
    char id_text[160];      /* room for client_id */
    bool registered;        /* violated policy is "client", else "default" */
    bool shadow_limited;    /* it passes only because the client's mode is shadow */
    uint64_t retry_after_s; /* of ERR_RATE_LIMITED: at least 1 */
    char fields[LIMIT_FIELDS_MAX]; /* "RateLimit-Policy: ...\r\nRateLimit: ...\r\n", or none */
    size_t fields_len;
};

/* Builds the limiter and loads its store; config->rate_limit.on is true. NULL on failure, with a message for people in
 * `error` (size `n`), and *outcome says of which kind (STORE_UNUSABLE for want of memory, too). `w` writes the store.
 * The limiter keeps a reference to the config. */
struct limiter *limiter_new(struct loop *l, struct worker *w, struct config *config, char *error, size_t n,
                            enum store_outcome *outcome) __attribute__((warn_unused_result));

/* The time line of a limiter's buckets, for one that is to go on with them in the same boot of the machine. */
struct limiter_time {
    uint64_t zero;        /* clock_boottime() at the buckets' time 0 */
    struct instant dated; /* tells what saved_at of its clients.json means in the buckets' time */
};

struct limiter_time limiter_time(const struct limiter *lim);

/* limiter_new() on the time line of the one that has left the files to this one: clients.json is as old as that says,
 * whatever the wall clock has done since. NULL: there was none. */
struct limiter *limiter_new_behind(struct loop *l, struct worker *w, struct config *config,
                                   const struct limiter_time *before, char *error, size_t n,
                                   enum store_outcome *outcome) __attribute__((warn_unused_result));

/* Decides one request at the clock's time, which the loop's may be behind (docs/limiter.md): identity
 * (rate_limit.client_id_header, trusted_proxies with X-Forwarded-For, exempt), bucket, fields. */
void limiter_ask(struct limiter *lim, const struct peer *peer, const struct headers *h, struct limit_answer *out);

/* A reload, in two steps of one turn. The first makes ready what can fail; NULL when memory runs out. The second puts
 * `fresh` (a reference is kept; its rate_limit.on and clients_file are those of before) in force: registered clients
 * are untouched, unregistered ones keep their tokens (anon_table.h says how). */
struct limiter_change;
struct limiter_change *limiter_stage(struct limiter *lim, struct config *fresh) __attribute__((warn_unused_result));
void limiter_commit(struct limiter_change *c);
/* NULL is fine. */
void limiter_rollback(struct limiter_change *c);

/* Has somebody else changed clients.json? If so the log says it, and what comes of it: nothing of it is loaded. */
void limiter_look(struct limiter *lim);

/* The client address of a request as the README defines it (Whose request it is): the peer's, or from a trusted proxy
 * the right-most untrusted one of X-Forwarded-For. Usable without a limiter. Returns false for a unix peer of which
 * nothing more is known. */
bool identity_address(const struct config *config, const struct peer *peer, const struct headers *h, struct ip *out);

/* Begins the last save (a whole snapshot with tokens). done(arg, ok) is called on the loop when it is on disk or has
 * failed. API changes are refused from now on. */
void limiter_close(struct limiter *lim, void (*done)(void *arg, bool ok), void *arg);

/* That has failed: the limiter goes on as before. To be called when done() is, or later. */
void limiter_reopen(struct limiter *lim);

/* limiter_close() of a process that nobody follows; keeps the buckets of unregistered clients, too, in a file beside
 * the clients', for limiter_recall() of the next. Nobody may be asking any more. */
void limiter_stop(struct limiter *lim, void (*done)(void *arg, bool ok), void *arg);

/* At the start of a process that follows none, before anybody asks: unregistered clients have the tokens that they had
 * at the last graceful stop, and what has come since. What cannot be read is logged, and counts as never written.
 * Blocks. */
void limiter_recall(struct limiter *lim);

/* The process serves: what limiter_recall() has read is of no use to another any more. */
void limiter_serves(struct limiter *lim);

/* ---- another process goes on ---- */

/* How far an export is: all zero at first, but for buckets.words where the process that goes on takes them. Without,
 * every version understands it, and some clients lose tokens. */
struct limiter_export {
    bool begun;
    bool told;                  /* some bucket that is not full */
    struct anon_export buckets; /* .ended: all is told */
};

/* The unregistered clients' buckets as lines of text (see export.c), a part at a time: appends about `most` bytes to
 * `out`. False without memory. Behind limiter_leave(), and nobody may be asking meanwhile. What it says is nobody
 * else's to know. */
bool limiter_export(const struct limiter *lim, struct limiter_export *e, size_t most, struct buf *out)
    __attribute__((warn_unused_result));

/* The time line that an exported text is on. False where it says none, or none that can be. */
bool limiter_exported_time(struct str text, struct limiter_time *out) __attribute__((warn_unused_result));

/* Takes over what another process has exported, into a limiter that has not been asked yet, on the time line that the
 * text is on, if it says one. No client has more than it had there. False when it is malformed. */
bool limiter_import(struct limiter *lim, struct str text) __attribute__((warn_unused_result));

/* Takes over from a limiter of this process, on the same time line and under the same config, what is in memory only:
 * the unregistered clients' buckets, and the totals of the others. That one has left its files, and is to be freed. */
void limiter_inherit(struct limiter *lim, struct limiter *from);

/* After limiter_close() is done: leaves the files to another process. */
void limiter_leave(struct limiter *lim);

/* Frees everything; a save that has not finished is not waited for (worker_free() does that before). NULL is fine. */
void limiter_free(struct limiter *lim);

#endif
