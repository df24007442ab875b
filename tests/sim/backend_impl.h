/* Inside of the backends: shared by backend.c (their connections and their health, and all of them), backend_answer.c
 * (answers) and backend_receive.c (requests).
 *
 * They are origin servers that are right, slow, dying, hanging, that reset in mid-body, close idle connections, frame
 * wrongly, and whose health goes up and down.
 *
 *   HEALTHY --(by the seed)--> SICK: /health says 503 | DEAD: connections are refused or die | SILENT: nobody answers
 *      ^                       FLAKY: healthy, but requests go wrong more often
 *      +----------------------- after a while, and for good when the calm begins                                  */
#ifndef LB_SIM_BACKEND_IMPL_H
#define LB_SIM_BACKEND_IMPL_H

#include "world.h"

enum health { HEALTHY, SICK, DEAD, SILENT, FLAKY, HEALTHS };

/* How one answer goes. */
enum misdeed {
    RIGHT,
    NO_ANSWER,      /* the connection is closed instead */
    RESET_INSTEAD,  /* ... or reset */
    HANGS,          /* nothing comes, until somebody gives up */
    GARBAGE,        /* no HTTP */
    DOUBLE_FRAMING, /* Content-Length and Transfer-Encoding, or two lengths */
    HUGE_HEAD,
    CUT_FIN, /* in the middle of the content */
    CUT_RESET,
    STALLS,    /* in the middle of the content, for good */
    BAD_CHUNK, /* in the middle */
    JUNK_BEHIND,
    SWITCH_AMISS, /* 101 to what was not offered, or to nothing, or where nobody asked */
    SWITCH_EARLY, /* 101 to what was offered, before the request is whole */
    MISDEEDS
};

struct plan {
    enum misdeed misdeed;
    unsigned status, interims;
    enum message_framing framing;
    uint64_t length, cut_at, delay;
    uint64_t piece, pause; /* content is written in such pieces, so long apart */
    unsigned trailers;     /* behind chunked content */
    const char *protocol;  /* what it switches to; NULL: it does not */
    bool early;            /* before the request's content has come */
    bool close;
    bool old; /* HTTP/1.0 */
};

struct backend;
struct bconn { /* a connection from the daemon */
    struct bconn *next, *prev;
    struct backend *be;
    struct end *end;
    struct message in;
    uint64_t idle_since;   /* when nothing was left to answer; 0: for its time to be judged, too much is going on */
    uint64_t taken;        /* bytes of the stream so far */
    uint64_t head_at;      /* where the present message began */
    unsigned served_count; /* messages taken before the present one */
    struct request *r;
    struct served *s, *last; /* the answer under way, and the one before */
    struct plan plan;
    struct bytes out;
    uint64_t written; /* content of the response so far */
    bool probe, busy, headed, answered, request_whole, finishing, poisoned;
    bool gone;   /* closed: its memory stays until nobody up the stack can be looking at it */
    bool barred; /* after a 101 amiss: no tunnel may come of it */
    struct side tunnel;
    struct event act;
    struct rng rng;
};

struct backend {
    unsigned index;
    struct host host;
    struct rng rng;
    enum health health;
    struct event change;
    struct bconn conns;
    unsigned counted;
    uint64_t conn_count;
    uint64_t idle_patience;  /* it closes idle connections after that; 0: never */
    uint64_t closed_kept_at; /* when it last did so */
    bool misbehaves;         /* now and then */
    uint64_t unwell_at;      /* when it was last out of order */
    /* Answers to probes in a row; broken: something else than an answer may have befallen a probe since the last good
     * one. */
    unsigned good_probes, bad_probes, probes_in_life;
    bool broken;
    uint64_t answered_at, turned_at; /* the last one, and the last before those in a row */
    uint64_t probed_at;              /* when the last probe came; 0: likewise */
};

/* Nothing goes wrong any more: backends_calm() has been called. */
extern bool backends_are_calm;

/* Ends it as the actor does, by a reset or by FIN, and notes whose answers that may take along. A tunnel leaves. */
void backend_conn_close(struct bconn *c, bool reset);
/* Without a word to its end, which is gone already or goes with the run. The memory stays until the next connection
 * comes: c->gone. */
void backend_conn_free(struct bconn *c);

/* Draws how c->r is answered, from the stream of this answer. */
void backend_draw_plan(struct bconn *c);
/* Does the answer that is planned have content? */
bool backend_has_content(const struct bconn *c);
/* Writes as much of the answer as may be written now. The connection may be gone afterwards. */
void backend_pump(struct bconn *c);
/* Writes out what is in c->out. True when all of it is with the kernel. */
bool backend_flush(struct bconn *c);
/* The response has left: closes, or goes on to the next request. The connection may be gone afterwards. */
void backend_settle(struct bconn *c);
/* The 101 is written, and the request is whole: from now on the end is the tunnel's. */
void backend_begin_tunnel(struct bconn *c);

/* Takes what has arrived, up to the end of a request, judges it, and answers. The connection may be gone afterwards. */
void backend_take(struct bconn *c);

#endif
