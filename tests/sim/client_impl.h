/* Inside of the clients: shared by client.c (what one does next, and all of them), client_send.c (requests) and
 * client_receive.c (answers).
 *
 * They are keep-alive, pipelining, uploading, slow, half-closing, vanishing, sending garbage, stalling. Each opens one
 * connection after another, sends a batch of requests on each, and judges byte by byte what comes back.
 *
 *   REST --> DIAL --> TALK: requests out, up to `depth` ahead of the answers in --> REST ... --> DONE               */
#ifndef LB_SIM_CLIENT_IMPL_H
#define LB_SIM_CLIENT_IMPL_H

#include "world.h"

#define PENDING_MAX 16u

enum kind {
    PLAIN,
    SLOW_READER,
    SLOW_SENDER,
    VANISHING,    /* closes or resets when it likes */
    HALF_CLOSING, /* FIN behind its last request; the answers must come all the same, unless it may have to queue */
    GARBAGE_SENDER,
    OLD,     /* HTTP/1.0 */
    STALLER, /* stops in mid-request: it must be told, and in time */
    IDLER,   /* opens a connection and says nothing */
    KINDS
};

struct client {
    unsigned index;
    enum kind kind;
    struct rng rng;
    struct sim_addr addr;
    char name[16]; /* what it is registered as, "" when it is not */
    bool polite;   /* asks no faster than its rate */
    bool verifier; /* in the end: all of its requests must succeed */

    unsigned batches, left, depth;
    struct end *e;
    bool connected, fin_sent, closing, want_close; /* closing: the last answer said that the connection ends */
    unsigned deaths, life;                         /* world.deaths when it was begun, and when it was there */
    uint64_t opened, last_move, may_ask, quiet_since, last_answer;
    uint64_t last_sent, fed_at; /* when it last wrote, and the daemon did, as of the last event; */
    uint64_t fed, taken;        /* so many bytes had that written by then, and so many are received */
    uint64_t stalled_at;
    unsigned conn_count, sent_on_conn;

    struct bytes out;
    struct request *pending[PENDING_MAX];
    unsigned pending_count;
    struct request *upload; /* the one whose content is being sent */
    uint64_t uploaded;
    bool held; /* waits for 100 (Continue) */
    bool stop; /* sends no more on this connection */

    struct message in;
    struct served *source; /* of the answer being received; NULL: the daemon's own */
    bool own, closed_by_it;
    struct bytes own_body;
    /* A connection over the limit is refused unread, with content whatever the method; it was a HEAD, so what follows
     * the head is not looked at. */
    bool deaf;
    bool after_early; /* the last answer came before all of a large content: the daemon need not read the rest */
    struct side tunnel;

    struct event act;
    bool done;
    unsigned verified;
};

/* Nobody is slow or dawdles any more: clients_calm() has been called. */
extern bool clients_are_calm;

/* Its connection is gone, which `how` says for the trace: judges what was not answered, and rests before the next.
 * `fault`: its own doing may be why. */
void client_conn_ended(struct client *c, const char *how, bool fault);
/* An answer has come, or the connection has ended: one that is polite asks no more before its rate allows it. */
void client_wait_politely(struct client *c);

/* Writes what there is to say now, and draws new requests as far as it may. When the connection takes no more, or the
 * client is slow, END_ROOM or its `act` goes on with it. */
void client_send_out(struct client *c);

/* Takes all that has arrived, and judges it. It may become a tunnel over that: c->tunnel.on. */
void client_receive(struct client *c);
/* The message in c->in is whole, perhaps by the connection's end: judges it, and goes on to the next. */
void client_on_whole(struct client *c);

#endif
