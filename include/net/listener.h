/* A listening socket on the loop. Accepts in batches with a budget, so that a flood of connections does not starve
 * those that are served. Out of descriptors (EMFILE, ENFILE) or buffers (ENOBUFS, ENOMEM): accepting pauses and tries
 * again by itself, without spinning, and the log says so (`accept_paused`, at most once a second, each pause counted).
 */
#ifndef LB_NET_LISTENER_H
#define LB_NET_LISTENER_H

#include "event/loop.h"
#include "net/addr.h"

struct listener;

/* A new connection: `fd` is the callee's to close. */
typedef void listener_fn(void *arg, int fd, const struct peer *peer);

#define LISTENER_BATCH 64                /* connections accepted in one event */
#define LISTENER_PAUSE (100 * NS_PER_MS) /* how long accepting rests after running out of descriptors */

/* Opens `at` and calls fn(arg, ...) for each connection. NULL, with `*error` = errno, when it cannot listen. */
struct listener *listener_new(struct loop *l, const struct addr *at, listener_fn *fn, void *arg, int *error);

/* The same where `beside`, a listening socket of ours, may have that port (sock_listen_beside()). */
struct listener *listener_new_beside(struct loop *l, const struct addr *at, int beside, listener_fn *fn, void *arg,
                                     int *error);

/* The same on a socket that listens already, which it takes (also on failure: closed): from a service manager, or from
 * the process before. `keep_file`: the file of a unix socket is somebody else's to remove. */
struct listener *listener_adopt(struct loop *l, int fd, bool keep_file, listener_fn *fn, void *arg, int *error);

/* Closes a descriptor that can be spared. False: there is none. */
typedef bool listener_spare_fn(void *arg);

/* Out of descriptors (EMFILE, ENFILE) it calls fn(arg), and where that has closed one tries once more, before it
 * pauses. */
void listener_set_spare(struct listener *ls, listener_spare_fn *fn, void *arg);

/* Accepts nothing from now on, and again; what comes waits in the backlog. */
void listener_pause(struct listener *ls);
void listener_resume(struct listener *ls);

/* Its descriptor, for another process that is to listen on it, and whether the file of a unix socket is ours, and not
 * one that somebody has put in its place meanwhile. */
int listener_descriptor(const struct listener *ls);
bool listener_owns_file(const struct listener *ls);

/* Is the file of its unix socket, as it was when it began here, what is at `at` now, by whatever name? */
bool listener_has_file_at(const struct listener *ls, const struct addr *at);

/* Another process listens on the socket now: closes our descriptor of it, and nothing else. */
void listener_leave(struct listener *ls);

/* The address it really listens on (port 0 resolved). */
const struct addr *listener_addr(const struct listener *ls);

/* Closes the socket, unlinks a unix socket's file if that is ours, and reclaims the listener at the end of the
 * iteration. Connections that wait in its backlog are accepted and delivered first. NULL is fine. */
void listener_close(struct listener *ls);

#endif
