/* Both ends of a proxy in one thread: a client that sends a script, and an origin that records every byte, takes
 * requests apart and answers them. One poll loop moves both, so nothing is ever waited for by sleeping, and what has
 * reached the origin before a later answer was made is known when that answer is read.
 *
 *   client --script--> proxy --> origin connections --record--> records[]
 *          <--got-----       <--answer---------------- */
#ifndef CONFORMANCE_STAGE_H
#define CONFORMANCE_STAGE_H

#include "conformance/script.h"
#include "conformance/wire.h"

#define STAGE_CONNS   64
#define STAGE_RECORDS 32

struct stage_client {
    int fd; /* -1 when closed */
    struct bytes got;
    bool ended, reset;
    struct script out;
    enum split split;
    bool half_close, fin_sent;
};

struct stage_conn {
    int fd;
    unsigned index; /* counted over the stage's life */
    struct bytes in;
    size_t parsed;     /* of `in`: whole requests */
    bool answered;     /* the request being read has its answer already */
    bool ended;        /* by the proxy, or both */
    bool case_request; /* has carried a request of this case: neither "/behind" nor "/fence" */
    bool tunnel;       /* a 101 has been sent: no requests any more */
    bool heard_out;    /* ... and the proxy has shut its direction, while this one goes on */
    const char *fault; /* it sent what is no request */
    struct script out;
    enum split split;
    enum origin_end then; /* once `out` is over */
};

/* A request that came whole. */
struct stage_record {
    unsigned conn;
    struct bytes raw;
    struct wire_message m; /* slices into `raw` */
};

struct stage {
    int listen_fd, proxy_port, patience;
    uint32_t random;
    struct stage_client client;
    struct stage_conn conns[STAGE_CONNS];
    unsigned conn_count, conn_total;
    struct stage_record records[STAGE_RECORDS];
    unsigned record_count;
    bool news;  /* something has happened since the condition was last looked at */
    bool moved; /* bytes have, so patience begins anew */

    /* What the origin answers in this case to anything but "/behind" and "/fence": empty for the default. */
    const struct conformance *now;
    enum split answer_split;
};

/* Listens on 127.0.0.1:origin_port; false with errno when it cannot. The proxy on `proxy_port` is to have that as its
 * backend. `patience`: ms in which nothing
 * moves, after which nothing is waited for any longer. */
bool stage_open(struct stage *s, int origin_port, int proxy_port, int patience);
void stage_close(struct stage *s);

/* Forgets what was recorded; open connections of the origin stay. */
void stage_begin(struct stage *s, const struct conformance *now, enum split answer_split);
/* Closes all connections of the origin: after a case that went wrong. */
void stage_reset(struct stage *s);

/* Connects the client, with nothing to send yet; false when the proxy does not accept. */
bool stage_client_open(struct stage *s, enum split split);
/* Keeps `got`. */
void stage_client_close(struct stage *s);
void stage_client_free(struct stage_client *c);

/* Moves everything until `done` says so; false when nothing moves any more. */
typedef bool stage_done(struct stage *s, const void *arg);
bool stage_run(struct stage *s, stage_done *done, const void *arg);

/* Bytes on any connection of the origin that belong to no whole request, or what is no request. */
const struct stage_conn *stage_leftover(const struct stage *s);
/* A connection that carried a request of this case and is still open. */
const struct stage_conn *stage_kept(const struct stage *s);

#endif
