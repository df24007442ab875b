/* The proxy as a whole: the connections of clients, and what their exchanges share. */
#ifndef LB_PROXY_PROXY_H
#define LB_PROXY_PROXY_H

#include "config/config.h"
#include "event/loop.h"
#include "limit/limiter.h"
#include "proxy/local.h"
#include "upstream/upstream.h"

#include <stddef.h>
#include <stdint.h>

struct proxy;

struct proxy_setup {
    struct loop *loop;
    struct config *config;
    struct upstream *upstream;
    struct limiter *limiter;           /* NULL: limiting is off */
    const struct local_handler *local; /* who answers what is not forwarded; NULL: nobody */
};

/* NULL when memory runs out. Everything in `setup` must outlive the proxy. */
struct proxy *proxy_new(const struct proxy_setup *setup) __attribute__((warn_unused_result));

/* Connections must be gone. NULL is fine. */
void proxy_free(struct proxy *px);

/* A reload, in two steps of one turn. The first gets the memory that `fresh` needs; false when there is none. The
 * second puts it in force (a reference is kept): for connections and exchanges under way, too, but a time-out that is
 * running stays as it was set. Nothing needs to be undone after the first alone. */
bool proxy_stage(struct proxy *px, const struct config *fresh) __attribute__((warn_unused_result));
void proxy_commit(struct proxy *px, struct config *fresh);

/* Takes a client's connection; fits listener_fn with the proxy as its argument. */
void proxy_accept(void *px, int fd, const struct peer *peer);

/* From now on responses say Connection: close, idle connections get PROXY_LAST_CALL for one last request, and `drained`
 * is called (posted) once no connection is served any more, and again where one has been taken over since: those that
 * are only being closed (io_close_lingering()) are not waited for. */
#define PROXY_LAST_CALL (1 * NS_PER_S)
void proxy_drain(struct proxy *px, void (*drained)(void *arg), void *arg);

/* ---- another process takes over ---- */

/* No further request is begun: connections that are between two requests, or in the middle of a head, are not read any
 * more. What is under way goes on. And: as before. */
void proxy_freeze(struct proxy *px);
void proxy_thaw(struct proxy *px);

/* Takes a connection over: a copy of `fd` and the bytes read from it that no request has used. False: not now, call
 * proxy_pass_on() again later. */
typedef bool proxy_pass_fn(void *arg, int fd, struct str bytes);

/* Gives every frozen connection to `pass`, now or as soon as its request is over; our end of it is closed then without
 * its client noticing. `drained` is called (posted) when none is left, as by proxy_drain(). To be called once, and
 * again (with the same arguments) when `pass` takes more. */
void proxy_pass_on(struct proxy *px, proxy_pass_fn *pass, void *pass_arg, void (*drained)(void *arg), void *arg);

/* Serves a connection that another process has begun: takes `fd`, and begins with `bytes`. */
void proxy_take_over(struct proxy *px, int fd, const struct peer *peer, struct str bytes);

/* Another limiter in the place of the one that was given; no request may be waiting for an answer of the old one. */
void proxy_set_limiter(struct proxy *px, struct limiter *limiter);

/* Cuts every connection off. Returns how many exchanges were under way. */
size_t proxy_cut(struct proxy *px);

/* Connections that are served now: without those that are only being closed. */
size_t proxy_connections(const struct proxy *px);

/* The most connections that were open at once, those that are only being closed included, since the last call, which
 * starts the count anew. */
size_t proxy_take_peak(struct proxy *px);

/* Exchanges under way now, and finished so far. */
size_t proxy_exchanges(const struct proxy *px);
uint64_t proxy_finished(const struct proxy *px);

#endif
