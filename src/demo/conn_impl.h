/* A connection of the demo backend, as its two files see it: conn.c reads requests and knows when a connection ends,
 * answer.c writes answers. */
#ifndef LB_DEMO_CONN_IMPL_H
#define LB_DEMO_CONN_IMPL_H

#include "base/buf.h"
#include "conn.h"
#include "http/chunked.h"
#include "net/io.h"
#include "route.h"

enum conn_state {
    CONN_HEAD,  /* waits for a request head */
    CONN_BODY,  /* takes the request's content */
    CONN_DELAY, /* the request is whole, its answer is due after the delay */
    CONN_SEND,  /* sends a long answer */
    CONN_CUT    /* has sent half an answer, which is to be all */
};

struct conn {
    struct demo_server *server;
    struct io *io; /* NULL once the connection has ended */
    struct list link;
    struct dead dead;
    struct timer delay;
    struct posted send_on;
    enum conn_state state;

    struct head_scan scan;
    struct route route;
    bool to_head, keep_alive;
    bool used; /* it has had a request before */
    unsigned minor;
    struct framing framing; /* of the request */
    struct chunked chunked;
    uint64_t body_left, body_bytes;
    uint64_t sent, send_left; /* of a long answer */
    struct buf shown;         /* the answer's JSON as far as it is known from the head */
    struct buf body;          /* content of POST /_outage */
};

static inline bool conn_hangs(const struct conn *c)
{
    return c->server->outage == OUTAGE_HANG;
}

/* ---- conn.c ---- */

/* The answer is complete: the next request, or the end. */
void conn_answered(struct conn *c);
/* Half the answer is out; a moment for it to be passed on, then the end. */
void conn_cut(struct conn *c);
/* Closes once what was written has been sent. */
void conn_close_after_answer(struct conn *c);

/* ---- answer.c ---- */

/* Does this outage concern the answer to this request? /_outage is always served. */
bool conn_suffers(const struct conn *c, enum outage_mode mode);
/* Answers the request, whose content is in. */
void answer(struct conn *c);
/* Answers a request that cannot be served, and closes. */
void answer_refuse(struct conn *c, unsigned status, const char *why);
/* Goes on with a long answer. */
void answer_send_on(struct conn *c);
/* The echo begins with the content and ends with it; in between go its pieces. */
void answer_echo_begin(struct conn *c);
bool answer_piece(struct conn *c, struct str piece, bool chunked);
void answer_echo_end(struct conn *c);

#endif
