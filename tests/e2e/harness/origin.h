/* A scripted origin server inside the test program: each connection is served by a thread of its own that runs a
 * function of the test's, the script, on a blocking socket. Every byte received is recorded. Scripts must not use
 * cmocka's assertions (they run in threads): they do what they do, and the test looks at the records. */
#ifndef HARNESS_ORIGIN_H
#define HARNESS_ORIGIN_H

#include "harness/message.h"

#include <stdatomic.h>

struct origin;

struct origin_conn {
    struct origin *origin;
    unsigned index; /* 0 for the first connection */
    struct stream in;
    struct message request; /* the last one read */
};

typedef void origin_script(struct origin_conn *c);

/* Listens on a port of its own; `name` (at most 31 bytes) shows in the answers of origin_answer_all(). */
struct origin *origin_start(const char *name, origin_script *script, void *arg);
/* Ends all connections and threads. */
void origin_stop(struct origin *o);

int origin_port(const struct origin *o);
const char *origin_name(const struct origin *o);
void *origin_arg(const struct origin *o);
/* Connections so far, requests whose head was read so far, connections that are open now. */
unsigned origin_connections(struct origin *o);
unsigned origin_requests(struct origin *o);
unsigned origin_open(struct origin *o);
/* Waits until there were at least `n`; fails the test otherwise. */
void origin_wait_requests(struct origin *o, unsigned n);
void origin_wait_connections(struct origin *o, unsigned n);
/* Waits until no connection is open. */
void origin_wait_closed(struct origin *o);
/* What connection `index` has received so far (at most 1 MiB of it); to be freed. */
struct bytes origin_received(struct origin *o, unsigned index);
/* The raw head of request `n` (0 for the first) in the order of arrival over all connections, or NULL. */
const char *origin_head(struct origin *o, unsigned n);

/* From now on connections are refused; and accepted again. */
void origin_refuse(struct origin *o);
void origin_accept_again(struct origin *o);
/* Resets all open connections. */
void origin_reset_all(struct origin *o);
/* A number that a script may look at, 0 at first; and waits until it is that one, for scripts may set it, too. */
void origin_set_mode(struct origin *o, int mode);
void origin_wait_mode(struct origin *o, int mode);

/* For scripts. */

int origin_mode(const struct origin_conn *c);
/* Reads the next request: its head; its head and content. */
bool origin_read_head(struct origin_conn *c);
bool origin_read(struct origin_conn *c);
bool origin_read_body(struct origin_conn *c, sink_fn *sink, void *arg);
bool origin_send(struct origin_conn *c, const char *text);
bool origin_send_bytes(struct origin_conn *c, const void *p, size_t n);
bool origin_sendf(struct origin_conn *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* `piece` bytes at a time, `ms` between them. */
bool origin_send_slowly(struct origin_conn *c, const char *text, size_t piece, int ms);
/* A 200 with that content; nothing behind the head of the answer to a HEAD. */
bool origin_answer(struct origin_conn *c, const char *content);
/* Waits for the other end to close, and throws away what comes. */
void origin_drain(struct origin_conn *c);
/* Waits until the test calls origin_release() (once for all, until origin_block()), or the origin is stopped. */
void origin_hold(struct origin_conn *c);
void origin_release(struct origin *o);
void origin_block(struct origin *o);
/* Waits; less when the origin is stopped. */
void origin_pause(struct origin_conn *c, int ms);
/* Makes the close that follows a reset. */
void origin_reset(struct origin_conn *c);

/* A ready-made script: answers every request, /health too, with 200 and the origin's name, keep-alive. */
void origin_answer_all(struct origin_conn *c);

#endif
