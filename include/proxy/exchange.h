/* One request and its response, whoever carries it. See the essay in exchange.c. */
#ifndef LB_PROXY_EXCHANGE_H
#define LB_PROXY_EXCHANGE_H

#include "base/buf.h"
#include "base/err.h"
#include "proxy/front.h"
#include "proxy/proxy.h"

struct exchange;

/* Content kept to be sent again at another backend. */
#define EXCHANGE_KEPT_MAX (64u * 1024u)

/* A new exchange for the request that has begun to arrive at `begun` (monotonic ns). NULL when memory runs out. */
struct exchange *exchange_new(struct proxy *px, struct front *f, uint64_t begun) __attribute__((warn_unused_result));

/* The request's head is there: decides whether it is answered here or forwarded. `head` is the text `r` points into;
 * neither is kept. `more`: exchange_upload() follows in this callback. The response may be sent, and the exchange
 * ended, from inside this call. */
void exchange_begin(struct exchange *x, const struct request *r, struct str head, bool more);

/* The request cannot be served: answers with `e` and closes the connection. `r` is what is known of the request, or
 * NULL. */
void exchange_refuse(struct exchange *x, const struct request *r, enum err e);

/* Content of the request (perhaps no bytes); `end` with the last of it. `p` NULL: the `n` bytes have gone to
 * exchange_sink() already. */
void exchange_upload(struct exchange *x, const char *p, size_t n, bool end);

/* Where content of known length may be moved to (io_relay()) instead; NULL when it must be told. */
struct io *exchange_sink(struct exchange *x);

/* Where the carrier puts the content's trailer section (struct chunked) before it tells the end; valid as long as the
 * exchange. */
struct buf *exchange_trailers(struct exchange *x);

/* Of a tunnel into which nothing has come for a while: how many ns there are until it has been too long, 0 when it has.
 * What is still unsent has a time-out of its own, which begins anew whenever some of it goes. */
uint64_t exchange_tunnel_left(const struct exchange *x);

/* The carrier has room again after send_body() said full. */
void exchange_drained(struct exchange *x);

/* The exchange cannot go on, whoever's fault it is: gives the backend up, and answers with `e` if nothing has been
 * answered yet, else cuts off. */
void exchange_fail(struct exchange *x, enum err e);

/* The client has gone (or does not take its response): stops everything. The carrier ends the exchange itself. */
void exchange_abandon(struct exchange *x, enum err e);

/* The carrier is done with the exchange: logs the request and gives everything back (memory at the end of the
 * iteration). */
void exchange_end(struct exchange *x);

/* Does it wait for a backend to have a place for it? */
bool exchange_is_queued(const struct exchange *x);

/* For the log: bytes of this exchange on the client's connection. */
void exchange_count_in(struct exchange *x, uint64_t n);
void exchange_count_out(struct exchange *x, uint64_t n);

#endif
