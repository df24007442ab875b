/* How an exchange speaks to whoever carries it to the client: an HTTP/1.1 connection now, an HTTP/2 stream later. A
 * carrier embeds struct front and calls the exchange (exchange.h); the exchange calls back through these. */
#ifndef LB_PROXY_FRONT_H
#define LB_PROXY_FRONT_H

#include "http/parse.h"
#include "net/addr.h"
#include "proxy/local.h"

#include <stdbool.h>
#include <stddef.h>

struct front;
struct io;

struct front_ops {
    /* An interim response. True when the carrier is full, as for send_body(). */
    bool (*send_interim)(struct front *f, const struct response *r);
    /* The final response's head: `head` is the raw text `r` points into, `extra` field lines to add. `more`:
     * send_body() follows in this callback. */
    void (*send_head)(struct front *f, const struct response *r, struct str head, struct str extra, bool more);
    /* Content (`p` NULL: it has gone to sink() already); `end` with the last of it, and with it the trailer section as
     * it came (struct chunked), or an empty one. True when the carrier is full: stop until exchange_drained(). With
     * `end` the carrier ends the exchange as soon as the client has it all. */
    bool (*send_body)(struct front *f, const char *p, size_t n, bool end, struct str trailers);
    /* Where content may be moved to (io_relay()) as it is, instead; NULL when it must be framed. */
    struct io *(*sink)(struct front *f);
    /* The 101 in answer to a request that asked to switch protocols. From now on the carrier is a tunnel:
     * what the client sends is told by exchange_upload() as it is, with `end` when it will send no more; send_body()
     * sends likewise; when both have ended and the client has it all, the carrier ends the exchange. */
    void (*send_switch)(struct front *f, const struct response *r, struct str extra);
    /* A whole response of our own; `close`: the connection ends with it. Ends the exchange likewise. */
    void (*send_local)(struct front *f, const struct local_answer *a, struct str extra, bool close);
    /* The request waits in the queue: the client's going should be told while it does (exchange_abandon()). */
    void (*queued)(struct front *f);
    /* Stops and restarts the request's content. */
    void (*pause_upload)(struct front *f);
    void (*resume_upload)(struct front *f);
    /* The backend has ended its direction of a tunnel, and then broken: the client gets all that was said, and then its
     * connection ends, for what it sends goes nowhere. */
    void (*end_tunnel)(struct front *f);
    /* Cuts the response off so that the client cannot take it for whole, and ends the exchange. */
    void (*abort)(struct front *f);
};

struct front {
    const struct front_ops *ops;
    struct peer peer;
};

#endif
