/* A client's HTTP/1.x connection: takes requests off it one after another, carries each one's exchange, and keeps the
 * order. */
#ifndef LB_PROXY_FRONT_H1_H
#define LB_PROXY_FRONT_H1_H

#include "base/clock.h"
#include "base/list.h"
#include "net/addr.h"
#include "proxy/crowd.h"
#include "proxy/proxy.h"

struct front_h1;

/* A connection that is being closed is read from as long as bytes come, so that a client that writes first can still
 * read its answer: between them, and in all. Until it ends it counts like any other. */
#define FRONT_LINGER_IDLE (5 * NS_PER_S)
#define FRONT_LINGER_ALL  (30 * NS_PER_S)
/* In the drain, for those that were cut off, and those that are refused and counted nowhere. */
#define FRONT_LINGER_SHORT (1 * NS_PER_S)
/* Unread content up to which the connection is kept for the next request: by its length, or, chunked, as it comes; it
 * has FRONT_LINGER_IDLE to come. */
#define FRONT_DISCARD_MAX (64u * 1024u)

/* The connection that stands at `link` in the proxy's list of connections. */
struct front_h1 *front_h1_of(struct list *link);

/* Serves `fd`, which it takes, until the connection ends; then leaves `group`, which may be NULL. */
void front_h1_accept(struct proxy *px, int fd, const struct peer *peer, struct crowd_group *group);

/* The same for a connection on which another process has served requests; `bytes` were read from it already. */
void front_h1_take_over(struct proxy *px, int fd, const struct peer *peer, struct crowd_group *group, struct str bytes);

/* Between two requests, or in a head: reads no more. And reads again. */
void front_h1_freeze(struct front_h1 *f);
void front_h1_thaw(struct front_h1 *f);

/* Gives it to px->pass if it is frozen and its client has all that was written. False when that takes no more now. */
bool front_h1_pass(struct front_h1 *f) __attribute__((warn_unused_result));

/* Answers 503 without reading and closes: over limits.connections, or, where
 * `one_client`, over limits.connections_per_client. */
void front_h1_refuse(struct proxy *px, int fd, bool one_client);

/* Last call: see proxy_drain(). */
void front_h1_drain(struct front_h1 *f);

/* What is left of a request's content that nobody needs is not waited for any longer than FRONT_LINGER_SHORT. */
void front_h1_hurry(struct front_h1 *f);

/* Ends the connection that is first in a list of closing ones, the proxy's or a group's, at once. */
void front_h1_end_closing(struct list *closing_of_proxy);
void front_h1_end_closing_of(struct crowd_group *g);

/* Ends the connection at once, cutting off what is under way. True when that was an exchange. */
bool front_h1_cut(struct front_h1 *f);

#endif
