/* The life of the daemon after its start: RUNNING, DRAINING, SAVING, STOPPED. */
#ifndef LB_LIFECYCLE_H
#define LB_LIFECYCLE_H

#include "event/loop.h"
#include "limit/limiter.h"
#include "net/listener.h"
#include "proxy/proxy.h"
#include "upstream/upstream.h"

#include <stdbool.h>
#include <stdint.h>

enum exit_status {
    EXIT_DONE = 0,
    EXIT_RUNTIME = 1, /* run-time failure */
    EXIT_USAGE = 2,   /* bad usage, bad config, damaged data */
    EXIT_CUT = 3      /* stopped with work cut off */
};

enum lifecycle_state { LIFECYCLE_RUNNING, LIFECYCLE_DRAINING, LIFECYCLE_SAVING, LIFECYCLE_STOPPED };

struct lifecycle {
    struct loop *loop;
    struct proxy *proxy;
    struct upstream *upstream;
    struct limiter *limiter;   /* may be NULL */
    struct listener *listener; /* owned; see lifecycle_listen() */
    struct listener *before;   /* owned; of the process before, where this one listens elsewhere; or NULL */
    uint64_t shutdown_timeout;

    enum lifecycle_state state;
    enum exit_status status; /* valid when STOPPED */
    struct timer deadline, linger;
    uint64_t finished_before, began;
    size_t cut;         /* exchanges */
    size_t cut_sending; /* connections that were only being closed, and had something to send yet */
    bool follows;       /* the process before goes on beside this one: a drain waits for its end, too */
    bool asked;         /* to stop, by a signal */
    bool hurried;       /* by a second one */
    bool save_cut;      /* the save was not waited for: a job of it may hang */
    bool given_up;      /* by lifecycle_give_up() */
};

/* Sets the fields after the ones given by the caller (loop, proxy, upstream, limiter, before, shutdown_timeout; no
 * listener yet).
 */
void lifecycle_init(struct lifecycle *lc);

/* Takes over a listener, which stands in the place of the one before from now on: that is closed, and what waits in its
 * backlog served. Logs `listening`. */
void lifecycle_listen(struct lifecycle *lc, struct listener *fresh);

/* Serves what waits at the address of the process before, and closes it: that one has let go of it, or need not be
 * waited for any longer. */
void lifecycle_close_before(struct lifecycle *lc);

/* Another process goes on: DRAINING without closing to the clients. The listening socket is left to it, `pass` gets the
 * connections as their requests end (see proxy_pass_on()), and there is nothing to save any more. */
void lifecycle_hand_over(struct lifecycle *lc, proxy_pass_fn *pass, void *arg);

/* It takes more connections now. */
void lifecycle_pass_more(struct lifecycle *lc, proxy_pass_fn *pass, void *arg);

/* Nothing can be served any more, for want of the clients: cuts everything off and stops, with EXIT_RUNTIME
 * whatever that was: it is no want of time. */
void lifecycle_give_up(struct lifecycle *lc);

/* SIGTERM or SIGINT: the first begins the drain, or, where lifecycle_hand_over() has begun it, lets it go on; the
 * second ends it at once, and gives the save, be it under way or not, a second; the third ends that. The loop is
 * stopped when all is done. `name` is for the log. */
void lifecycle_stop(struct lifecycle *lc, const char *name);

#endif
