/* Inside of an exchange, shared by exchange.c, attempt.c, hash_key.c, local.c and access_log.c. */
#ifndef LB_PROXY_EXCHANGE_IMPL_H
#define LB_PROXY_EXCHANGE_IMPL_H

#include "base/arena.h"
#include "base/buf.h"
#include "event/loop.h"
#include "http/parse.h"
#include "proxy/exchange.h"
#include "proxy/local.h"
#include "proxy_impl.h"
#include "upstream/back_h1.h"
#include "upstream/upstream.h"

enum exchange_state {
    EXCHANGE_ADMIT,  /* may it pass? */
    EXCHANGE_PICK,   /* a backend is being chosen or connected to */
    EXCHANGE_RELAY,  /* the request is with a backend */
    EXCHANGE_TUNNEL, /* both sides have switched to another protocol */
    EXCHANGE_LOCAL,  /* answered here */
    EXCHANGE_DONE    /* nothing more happens */
};

/* What hangs on a backend: one try at a time. */
struct attempt {
    struct backend *backend; /* the last one, for the log too */
    struct back_conn *conn;
    bool placed; /* it has a place there */
    struct place place;
    uint64_t waited;      /* for one, ns */
    bool ready;           /* the connection takes content */
    bool stale_replaced;  /* the one fresh connection for a stale one has been spent */
    unsigned large_heads; /* how many responses' heads have been over our limit */
    bool over_budget;     /* another one was not made because of the retry budget */
    const char *cause;    /* of the last one, when its failure is what ended the exchange; for the log */
    unsigned count;       /* tries so far */
    struct pick pick;     /* where */
    struct waiter waiter; /* for a place */
};

/* A call of the local handler. */
struct local_exchange {
    bool started; /* the handler has the request */
    bool answered;
    void *state; /* the handler's own */
};

struct exchange {
    struct proxy *px;
    struct front *front;
    struct dead dead;
    enum exchange_state state;

    /* the request */
    enum method method;
    struct framing framing; /* of its content */
    uint64_t received;      /* content so far */
    bool up_ended;          /* content is here whole */
    bool down_begun;        /* a final head has been sent to the client */
    bool expects_continue;
    struct str head; /* as it goes to a backend */
    struct str method_text, target, request_id, client_id;
    struct str extra;    /* RateLimit field lines for the response */
    bool shadow_limited; /* it would have been refused, were its client's mode not shadow */
    struct str upgrade;  /* the protocols that the client would switch to, "" for none */
    struct buf kept;     /* content that may have to be sent (again) */
    struct buf trailers; /* behind it, as they came */
    bool nominates;      /* Connection names fields, which may be among those: then none of them goes on */
    bool takes_trailers; /* the client has said so */
    bool names_user;     /* who is authenticated for all that follows on the backend's connection */
    bool replayable;     /* `kept` is all the content so far */
    uint64_t moved;      /* when bytes last went through the tunnel */

    struct attempt attempt;
    struct local_exchange local;

    /* for the log */
    uint64_t begun, bytes_in, bytes_out;
    unsigned status;
    const char *reason;
    struct ip client;
    bool client_known;

    struct arena arena;
    char room[1536]; /* the arena's first piece */
};

/* The one function that changes the state. */
void exchange_enter(struct exchange *x, enum exchange_state to);

/* ---- attempt.c ---- */

/* Chooses a backend and begins; an answer of our own when there is none. `more`: content follows in this callback. */
void attempt_begin(struct exchange *x, bool more);
/* Content for the backend. True when it is full or not there yet. */
bool attempt_upload(struct exchange *x, const char *p, size_t n, bool end);
/* Gives the backend, or the wait for one, up. */
void attempt_drop(struct exchange *x);
/* Lets go of the backends that were tried, the last one, which the log has named by then, included. Behind
 * attempt_drop(). */
void attempt_fini(struct exchange *x);

/* What comes from the backend: told by attempt.c, done by exchange.c. */
void exchange_on_interim(struct exchange *x, const struct response *r);
void exchange_on_head(struct exchange *x, const struct response *r, struct str head, bool more);
void exchange_on_body(struct exchange *x, char *p, size_t n, bool end, struct str trailers);
void exchange_on_switch(struct exchange *x, const struct response *r);

/* ---- hash_key.c ---- */

/* Notes the key by which `balance: hash` chooses, if the request has it. */
void hash_key_note(struct exchange *x, const struct request *r);

/* ---- local.c ---- */

/* Answers with the problem document of `e`, with the field lines `fields`, `detail` NULL for the catalogue's. */
void local_problem(struct exchange *x, enum err e, struct str fields, const char *detail);
/* The 429 as the README's section on RateLimit fields has it: a problem of its own type, with Retry-After. */
void local_rate_limited(struct exchange *x, bool registered, uint64_t retry_after_s);
/* The answer to an OPTIONS that is to be forwarded no more. */
void local_options(struct exchange *x, struct str allowed);
/* The request is the local handler's: takes it over. */
void local_begin(struct exchange *x, const struct request *r);
void local_upload(struct exchange *x, const char *p, size_t n, bool end);
void local_drop(struct exchange *x);

/* ---- access_log.c ---- */
void access_log_request(const struct exchange *x);

#endif
