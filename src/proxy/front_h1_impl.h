/* Inside of a client's connection, shared by front_h1.c (states, events, begin and end), front_h1_request.c (what is
 * read) and front_h1_send.c (responses). */
#ifndef LB_PROXY_FRONT_H1_IMPL_H
#define LB_PROXY_FRONT_H1_IMPL_H

#include "http/chunked.h"
#include "http/parse.h"
#include "net/io.h"
#include "proxy/exchange.h"
#include "proxy/front_h1.h"
#include "proxy_impl.h"

#include <assert.h>

#define FRONT_HEADS_MAX 16 /* requests that are begun in a row; the rest waits for another turn of the loop */

enum front_state { FRONT_IDLE, FRONT_HEAD, FRONT_BUSY, FRONT_CLOSED };

struct front_h1 {
    struct front front; /* first: the exchange knows only this */
    struct proxy *px;
    struct crowd_group *group; /* the address that it counts for, or NULL */
    struct io *io;
    union {
        struct list link;
        struct dead dead; /* out of every list */
    };
    struct exchange *exchange;

    union {
        struct head_scan scan;  /* IDLE, HEAD */
        struct chunked chunked; /* BUSY: the request's content, if that is its framing */
        struct {                /* CLOSED, while it lingers: then `link` is in the proxy's list of those */
            struct list beside; /* ... and this in that of its group */
            struct lingerer *lingerer;
        };
    };
    union {
        uint64_t begun;   /* HEAD: when its first byte came */
        uint64_t up_left; /* BUSY: content of a known length, what is to come of it */
    };
    uint32_t discarded; /* of the content, after the answer; one read more than FRONT_DISCARD_MAX at most */

    uint8_t up, down; /* enum framing_kind: how the request's content comes, and how the response's is sent */
    uint8_t state;
    uint8_t minor;
    bool first; /* no request has been seen yet */
    bool head_request;
    bool expects;    /* the client waits for 100 before it sends content */
    bool keep_alive; /* another request may follow this one */
    bool up_ended;   /* the request's content has been read whole */
    bool answered;   /* a final head has been sent */
    bool down_ended; /* the response has been written whole */
    bool said_last;  /* the client has said that it is its last request */
    bool eof;        /* the client sends no more */
    bool upload_paused;
    bool takes_trailers; /* the client has said so */
    bool tunnel;         /* both sides have switched to another protocol */
};

static_assert(sizeof(struct front_h1) <= 152, "an idle connection should stay cheap");

/* ---- front_h1.c ---- */

/* The one way from state to state. */
void front_enter(struct front_h1 *f, enum front_state to);

/* The endpoint has been closed or aborted by the caller. */
void front_gone(struct front_h1 *f);

/* Leaves the endpoint to itself: what is unsent goes, then FIN, then what comes is thrown away. `whole`: the client has
 * an answer to read behind what it sends; else it sends to nobody, and is to notice soon. */
void front_linger(struct front_h1 *f, bool whole);

/* Closes the connection at once: no response is under way. */
void front_close(struct front_h1 *f);

/* Ends a connection whose response has been sent so that the client can still read it. */
void front_close_politely(struct front_h1 *f);

/* The connection is free for the next request, which may be there already, or has seen its last: then it is closed. */
void front_idle(struct front_h1 *f);

/* The response has been written whole: once the client has it and its request has been read, the connection is free for
 * the next. */
void front_settle(struct front_h1 *f);

/* The client has said, perhaps before there was a tunnel, that it sends no more, and the backend has all of it. */
void front_tunnel_eof(struct front_h1 *f);

/* One direction of a tunnel has ended: once both have, and the client has it all, so has the connection. */
void front_tunnel_settle(struct front_h1 *f);

/* ---- front_h1_request.c ---- */

/* Looks for a head at the front of the `n` unread bytes at `data`, between requests; a whole one begins an exchange, a
 * bad one is refused. False when more bytes are needed. The connection may be closed after it. */
bool front_read_head(struct front_h1 *f, char *data, size_t n);

/* The rest of a head does not come: refuses it. */
void front_head_timeout(struct front_h1 *f);

/* The client has been told to send its content, or does so by itself: from now on its time runs. */
void front_expect_content(struct front_h1 *f);

/* Takes what is content of the `n` unread bytes at `data` and hands it to the exchange, or throws it away behind its
 * end. The connection may be closed after it. */
void front_read_content(struct front_h1 *f, char *data, size_t n);

/* Content waits in the socket: what may go past us does. */
void front_relay_content(struct front_h1 *f);

/* The rest of a request's content does not come, or too slowly. */
void front_content_timeout(struct front_h1 *f);

/* ---- front_h1_send.c ---- */

/* What an exchange asks of its carrier. */
extern const struct front_ops front_h1_ops;

#endif
