/* The registered clients as the client API sees them: changes that are answered once they are on disk, and pages of the
 * list. */
#ifndef LB_LIMIT_CLIENTS_H
#define LB_LIMIT_CLIENTS_H

#include "base/buf.h"
#include "base/err.h"
#include "limit/client_json.h"
#include "limit/limiter.h"

/* Changes that may wait for the disk at once. */
#define CLIENT_CHANGES_MAX 16384u

struct change;

/* Waits for a change. Embedded in whoever waits; `done` is called once on the loop, never from inside the call that
 * began the change, with
 *   ERR_OK                 it is on disk and in force; `view` shows the client (a deleted one as it was)
 *   ERR_CLIENT_EXISTS, ERR_NO_SUCH_CLIENT, ERR_STORE_FAILED, ERR_INTERNAL    nothing was changed */
struct client_change {
    void (*done)(struct client_change *c, enum err e);
    struct client_view view;
    struct change *change; /* the limiter's; NULL when none is under way */
};

/* Each begins a change and returns ERR_OK, or why it cannot (done() is not called): ERR_STORE_FAILED when too many wait
 * or the limiter is closing, ERR_INTERNAL without memory. Ids are canonical, settings valid; an update leaves those
 * that are not given as they are. Changes of one id are made in the order in which they were begun, each upon what the
 * one before it left; until then the old limits are in force. */
enum err clients_register(struct limiter *lim, const struct client_fields *f, struct client_change *c)
    __attribute__((warn_unused_result));
enum err clients_update(struct limiter *lim, const struct client_fields *f, struct client_change *c)
    __attribute__((warn_unused_result));
enum err clients_delete(struct limiter *lim, const char *id, struct client_change *c)
    __attribute__((warn_unused_result));

/* Forgets a waiter whose connection has gone: the change itself goes on, done() is not called. */
void clients_cancel(struct limiter *lim, struct client_change *c);

/* ERR_OK with *out filled, or ERR_NO_SUCH_CLIENT. */
enum err clients_get(struct limiter *lim, const char *id, struct client_view *out) __attribute__((warn_unused_result));

/* The place in the order of registration that an id stands for as a cursor: behind it a walk goes on (NULL: at the
 * start). It works on for an id deleted since (the last 65,536 are remembered), also where that is registered anew: it
 * stands for the first of its places, until it is handed out for another. One that was never seen, or is not
 * remembered, begins at the start: nobody is missed. */
uint64_t clients_place(const struct limiter *lim, const char *after);
/* Calls fn for at most `limit` clients behind *place, and moves that on to the last of them. Places stand for the same
 * whoever comes and goes, behind a restart, too: whoever walks on from the place of the last client of a page meets
 * each that stays registered exactly once. Returns how many; *more tells whether clients follow. */
size_t clients_list(const struct limiter *lim, uint64_t *place, size_t limit,
                    void (*fn)(void *arg, const struct client_view *v), void *arg, bool *more);
/* The id of a client goes out as the cursor for its place, and stands no longer for that of one deleted under it: a
 * walk that has got it for that place misses those between. Only where there is no id that stands for one place alone.
 */
void clients_hand_out(struct limiter *lim, const char *id);
size_t clients_total(const struct limiter *lim);

#endif
