/* HTTP/1.1 towards a backend: one exchange at a time on a connection that is leased, used, and given back to the pool
 * by itself when nothing stands against it. Traffic and health checks use it alike.
 *
 *   back_open ---> CONNECTING --on_ready--> LEASED --response ended, both sides clean--> IDLE (pool.c)
 *   pool_get  ------------------------------^  |                                          |
 *                                              +--failure, release, unclean end--> closed <+-- ended, expired
 */
#ifndef LB_UPSTREAM_BACK_H1_H
#define LB_UPSTREAM_BACK_H1_H

#include "base/err.h"
#include "http/parse.h"
#include "upstream/upstream.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct back_conn;
struct io;

/* How an exchange failed. The connection is gone when this is told. */
struct back_failure {
    enum err error;
    int sys_errno;     /* 0 when it was none of the system's */
    bool sent;         /* a byte of the request may have reached the backend */
    bool answered;     /* a byte of the response has arrived */
    bool reused;       /* the connection came out of the pool */
    bool at_work;      /* an interim response has told that the request is being served: one other than 100 */
    bool expecting;    /* the content waits for a 100 (back_request.expects), none of it has come */
    bool moved;        /* the backend's name has left the address that the connection went to */
    bool given_up;     /* it has ended behind a client that had long not sent its request, or taken its response */
    bool heard_out;    /* a tunnel: the backend had ended its direction in order, and only takes no more */
    const char *cause; /* for the log: "connect refused" */
};

/* What the lessee is told. Nothing follows on_fail, nor on_body with `end` (but see on_switch), nor back_release(). */
struct back_events {
    /* Connected: the request can be sent. Not told for a pooled connection, which is ready at once. */
    void (*on_ready)(void *arg);
    /* An interim response (1xx but 101). */
    void (*on_interim)(void *arg, const struct response *r);
    /* The final response's head; `head` is its raw text. `more`: an on_body() follows within this call. */
    void (*on_head)(void *arg, const struct response *r, struct str head, bool more);
    /* The 101 of a request that asked to switch (RFC 9110 section 7.8). From now on the connection is a tunnel: what
     * comes is told by on_body() as it is, `end` says that the backend sends no more and leaves the connection with the
     * lessee; what is sent goes out as it is, `end` shuts that direction; back_release() ends it. NULL for a lessee
     * that never asks. */
    void (*on_switch)(void *arg, const struct response *r);
    /* Content, decoded; valid in the call. `end`: with these (perhaps no) bytes the response is complete, and the
     * connection is no longer the lessee's; `trailers` are its trailer section's field lines then (struct chunked),
     * else empty. `p` NULL: the `n` bytes have gone to sink() already. */
    void (*on_body)(void *arg, char *p, size_t n, bool end, struct str trailers);
    /* Where content of known length that goes on unchanged may go by itself (io_relay()); NULL when it must be told.
     * NULL for a lessee that wants to see it all. */
    struct io *(*sink)(void *arg);
    /* What was sent is with the kernel: more may be sent after back_send_body() said full. */
    void (*on_drained)(void *arg);
    void (*on_fail)(void *arg, const struct back_failure *f);
    bool yields; /* rather does without a connection than with the last idle one's descriptor: a check */
};

/* Opens a fresh connection, trying the backend's addresses in turn within `timeout_ns` altogether, each getting an
 * equal share of the time left. on_ready or on_fail follows, never from inside this call. NULL, with errno, when memory
 * or descriptors have run out, or connecting failed at once. */
struct back_conn *back_open(struct backend *be, uint64_t timeout_ns, const struct back_events *ev, void *arg)
    __attribute__((warn_unused_result));

/* True for an errno of back_open() or of a failure at `be` that says something about this process or host (no
 * descriptors, no memory, no ports) and nothing about the backend. */
bool back_error_is_ours(const struct backend *be, int sys_errno);

/* True for an errno of back_open() or of a failure at `be` that says no more than that it takes no further connection
 * just now: a unix socket's backlog is full. Checks, which come one at a time, find out whether that lasts. */
bool back_error_is_passing(const struct backend *be, int sys_errno);

/* What the log says of an errno of back_open() or of a failure: a phrase such as "connect refused". */
const char *back_error_text(int sys_errno);

/* Does it go to an address that the backend's name has left? Then it says nothing about the backend of now. */
bool back_has_moved(const struct back_conn *c);

/* Leases a pooled connection, ready at once; NULL when there is none. With `sure`, for a request that may not be sent
 * twice, it is looked at first (one system call); so it is when it has waited for more than a second. What is written
 * then is sent at once, right behind the look, not behind what others have to do in this turn. While a reuse has failed
 * lately, `sure` gets NULL, and the longest idle one is closed: the fresh one that follows takes its place. */
struct back_conn *pool_get(struct backend *be, bool sure, const struct back_events *ev, void *arg)
    __attribute__((warn_unused_result));

/* A request as it is sent. */
struct back_request {
    struct str head; /* whole */
    enum method method;
    struct framing framing; /* how its body follows: chunks are framed here */
    bool upgrade;           /* it asks to switch protocols: 101 may answer it */
    bool takes_trailers;    /* the response's go on: else they are passed over */
    bool expects;           /* its body waits for a 100: until then it is the backend's time that runs */
    bool names_user; /* ... of the connection, which is closed behind it: nobody else may be taken for that one */
};

/* Sends its head. `more`: a back_send_body() follows in this callback, and both leave together. */
void back_send_head(struct back_conn *c, const struct back_request *r, bool more);

/* Sends content; `end` with the last of it (exactly framing.length bytes in all; must be called with `end` unless there
 * is no body), and with it, where the body is chunked, `trailers`: field lines, whole, as they are sent, or none. `p`
 * NULL: the `n` bytes have gone to back_sink() already. True when the connection is full: stop until on_drained. */
bool back_send_body(struct back_conn *c, const char *p, size_t n, bool end, struct str trailers);

/* Where the request's content may be moved to (io_relay()) instead; NULL when it may not. */
struct io *back_sink(const struct back_conn *c);

/* Has a byte of the request left? It may have reached the backend then (struct back_failure). */
bool back_has_sent(const struct back_conn *c);

/* Bytes that wait for the kernel. */
size_t back_unsent(const struct back_conn *c);

/* Stops and restarts the response. */
void back_pause(struct back_conn *c);
void back_resume(struct back_conn *c);

/* Gives the connection up in the middle of an exchange: closes it; a tunnel with a reset, unless the
 * direction to the backend has ended: then what is unsent is still sent. on_fail is not called. NULL is fine. */
void back_release(struct back_conn *c);

/* Closes the pooled connections of a backend. (What the pool has learned of how long it keeps them: backend.h.) */
void pool_flush(struct backend *be);

#endif
