/* Inside of the network: shared by net.c (connections) and sockets.c (the daemon's calls). */
#ifndef LB_SIM_NET_IMPL_H
#define LB_SIM_NET_IMPL_H

#include "calls.h"
#include "kernel.h"

#include <stdlib.h>

#define WRITES_KEPT 64u

struct conn;
struct sock;

struct end {
    struct conn *conn;
    struct bytes rx, tx;
    size_t window, tx_room;
    bool fin_sent, fin_gone; /* asked for; on the other side */
    bool fin_in, reset_out, reset_in, closed;
    bool vanished;    /* its machine is gone, or has forgotten it */
    bool probing;     /* it looks whether the other side is still there */
    bool giving_up;   /* nobody has answered for a while */
    bool peer_closed; /* over a unix socket: what is written now goes nowhere */
    int error;        /* SO_ERROR */
    struct event deliver;

    struct sock *sock; /* the daemon's, once it has accepted */
    end_fn *fn;        /* an actor's: */
    void *owner;
    struct event tell;
    bool tell_connected, tell_refused, tell_readable, tell_room, tell_fin, fin_told, tell_reset;

    uint64_t sent, sent_at; /* bytes written so far, and when last */
    struct {
        uint64_t upto, turn, at; /* at: of the first in that turn */
    } writes[WRITES_KEPT];       /* in which turns of the loop the last of them were */
    unsigned write_count;
};

struct conn {
    struct conn *next, *prev;
    struct end end[2];
    struct rng rng;
    uint64_t id, latency, begun, begun_turn, queued; /* queued: when the listener got it */
    struct sim_addr to, from;
    bool local;         /* over a unix socket */
    bool connected;     /* both ends know */
    bool in_use;        /* an actor is being told: it is freed after that */
    bool left;          /* the listener has gone before anyone accepted it */
    bool waits;         /* there was no room in the listener's queue: it comes again, for the tries-th time */
    uint64_t taken_for; /* the begin of the process that its caller takes itself for connected to */
    unsigned tries;
};

#define SOMAXCONN_MOST 128u
struct listener_queue {
    struct conn *conns[SOMAXCONN_MOST + 1];
    unsigned count, backlog; /* Linux lets one more in than the backlog */
};

enum sock_state { SOCK_NEW, SOCK_LISTENS, SOCK_CONNECTING, SOCK_STREAM_OPEN };

struct sock {
    struct file file;
    enum sock_state state;
    struct sim_addr at;
    bool linger_reset, accepted, reuse_port;
    struct listener_queue queue;
    struct end *end;
    struct sock *next; /* of the listeners */
};

extern struct net {
    struct conn conns; /* the list's head */
    struct sock *listeners;
    struct host *hosts;
    uint64_t next_id;
    struct rng rng;
    unsigned somaxconn;
    bool down; /* the daemon's machine has no power */
    unsigned accepted_open, made_open;
    unsigned crowd;      /* when more connections than that */
    uint64_t crowded_at; /* were open at an accept */
    char unix_files[8][64];
} net;

static inline struct end *other(const struct end *e)
{
    return &e->conn->end[e == &e->conn->end[0]];
}

/* The daemon's machine does not answer. */
static inline bool machine_is_down(void)
{
    net.down = net.down && !process_alive();
    return net.down;
}

void copy_path(char out[64], const char *path);
struct sim_addr from_kernel(const struct sockaddr *sa);
void to_kernel(const struct sim_addr *a, struct sockaddr *sa, socklen_t *n);
struct host *find_host(const struct sim_addr *at);
/* The daemon's listener that a connection to `at` comes to; a unix one must still have its file. */
struct sock *find_listener(const struct sim_addr *at);

struct conn *conn_new(struct rng r, bool local);
void conn_free_if_done(struct conn *c);
/* What comes of sending to an end that has vanished; the run of `deliver`. */
void meet_nobody(struct end *e);
/* The connection is over for that end. */
void break_end(struct end *e, int error);
uint64_t delay_of(struct conn *c);
void want_delivery(struct end *e);
/* Calls the actor of that end soon, if it is an actor's. */
void want_tell(struct end *e);
/* Moves what an end has written to the other one; the run of `deliver`. */
void on_deliver(struct event *event);

/* What either kind of owner does with an end. */
void close_end(struct end *e, bool reset);
/* Does SO_LINGER 0 make a close of it a reset? Not over a unix socket. */
bool can_reset(const struct end *e);
/* How many more bytes may be written. */
size_t end_unacked(const struct end *e);
size_t end_room(const struct end *e);
void finish_end(struct end *e);
size_t write_end(struct end *e, const void *p, size_t n);
void read_from(struct end *e); /* after bytes were taken */
/* The daemon's socket of that end may be ready for something else now. */
void end_changed(struct end *e);

#endif
