/* Inside of a connection to a backend: shared by back_connect.c (connecting), back_h1.c (leased) and pool.c (idle). */
#ifndef LB_UPSTREAM_BACK_CONN_H
#define LB_UPSTREAM_BACK_CONN_H

#include "http/chunked.h"
#include "net/io.h"
#include "upstream/back_h1.h"
#include "upstream/backend.h"

enum back_state { BACK_CONNECTING, BACK_LEASED, BACK_IDLE, BACK_CLOSED };

/* Where the response stands. */
enum back_response { RESPONSE_HEAD, RESPONSE_BODY, RESPONSE_ENDED, RESPONSE_TUNNEL, RESPONSE_TUNNEL_ENDED };

struct back_conn {
    struct io *io;
    struct backend *backend;
    const struct back_events *events; /* the lessee; NULL while idle */
    void *arg;
    struct list link; /* in backend->idle */
    struct list aged; /* in upstream->idle */
    struct dead dead;

    enum back_state state;
    enum back_response response;
    bool reused;       /* came out of the pool */
    bool looked_at;    /* ... and nothing lay there then */
    bool answered;     /* a byte of the present response has arrived */
    bool sending;      /* the request's body has not been sent whole */
    bool head_request; /* that was a HEAD */
    bool upgrade;      /* the request asks to switch protocols */
    bool takes_trailers;
    bool keep_alive; /* as far as the response's head tells */
    bool unsound;    /* an interim response, or the request, speaks against that */
    bool relays;     /* what is left of the response may go past us */
    bool large;      /* the last response was one to relay: so may be the next */
    bool held_up;    /* the client has not taken the response for so long that the backend may lose patience */
    bool expecting;  /* the backend is to say first whether it wants the body */

    struct framing up, down; /* of the request and of the response */
    uint64_t left;           /* of a response body of known length */
    struct head_scan scan;
    struct chunked chunked;
    struct buf trailers;  /* of the response */
    uint64_t sent_at;     /* when some of the request was sent last */
    uint64_t paused_at;   /* since when the response is not read, while it is not */
    uint64_t sent_before; /* io_bytes_out() when the lease began */
    uint64_t sent_seen;   /* ... and when the time for the response began anew */
    uint64_t begun;       /* when that was; while idle, since when it is */
    uint64_t idled;       /* how long it was idle before that */
    uint64_t at_work;     /* since when the backend is known to serve the request, 0: it is not */

    uint64_t connect_deadline;
    int addr_first, addrs_tried; /* of the backend's addresses, in a round from that one on */
    unsigned addr_changes;       /* the backend's, when that began */
    unsigned addr_id;            /* which of the backend's addresses it goes to */
};

/* The handler of a connection's events, while it is connecting or leased. */
void back_on_io(void *owner, struct io *io, enum io_event event);

/* Sets a connection up for a new exchange. */
void back_begin(struct back_conn *c, const struct back_events *ev, void *arg);

/* The exchange has failed, or there is no connection to be had for it: closes the socket, has the connection reclaimed,
 * and tells the lessee, who may do anything. `sys_errno`: 0 when it was none of the system's. */
void back_fail(struct back_conn *c, enum err e, int sys_errno);

/* Closes the socket and has the connection reclaimed. */
void back_close(struct back_conn *c);

/* ---- back_connect.c ---- */

/* The address that was tried has answered: the lease begins, and the lessee is told. */
void back_connected(struct back_conn *c);

/* It has not: tries the next; where that was the last, or no time is left, back_fail(). */
void back_connect_failed(struct back_conn *c, enum err e, int sys_errno);

/* ---- pool.c ---- */

/* Puts a clean connection into its backend's pool, or closes it. */
void pool_put(struct back_conn *c);

#endif
