/* Sockets: one of the five files that make system calls. Each call is one system call (or a fixed few), restarted on
 * EINTR, never blocking; every descriptor is close-on-exec and non-blocking. Results: a count or descriptor of at least
 * 0, or -errno. -EAGAIN means "not now". */
#ifndef LB_NET_SOCK_H
#define LB_NET_SOCK_H

#include "net/addr.h"

#include <sys/types.h>
#include <sys/uio.h>

/* Binds and listens with SO_REUSEADDR; an IPv6 any-address is dual-stack, and falls back to 0.0.0.0 where the host has
 * no IPv6. TCP_NODELAY is set here, once: accepted sockets inherit it. A stale unix socket file (nobody accepts on it)
 * is replaced; one in use gives -EADDRINUSE. To a unix socket all users may connect (mode 0666, whatever the umask). */
int sock_listen(const struct addr *at, int backlog);

/* The same also where `beside`, a listening socket of ours, has that port: at the same host, or at one that `at`
 * includes or is included in (which Linux refuses else). For all others the port stays taken, unless they set
 * SO_REUSEPORT themselves and are of the same user. Whoever connects meanwhile is accepted by the more specific one. */
int sock_listen_beside(const struct addr *at, int backlog, int beside);

/* Accepts one connection; `*from` is filled. -EAGAIN when none waits; -ECONNABORTED and kin are to be skipped. */
int sock_accept(int listen_fd, struct addr *from);

/* Starts to connect (TCP_NODELAY set). Returns the descriptor with `*in_progress` telling whether completion is still
 * awaited. */
int sock_connect(const struct addr *to, bool *in_progress);

/* 0 when the connect completed, else -errno (SO_ERROR). */
int sock_connect_result(int fd);

ssize_t sock_recv(int fd, void *p, size_t n);
/* `more`: what follows at once may leave in the same packet (MSG_MORE). */
ssize_t sock_send(int fd, const struct iovec *iov, int iovcnt, bool more);

/* Makes a pipe of about `size` bytes, or of the size that the system gives: ends[0] to read from, ends[1] to write to.
 */
int sock_pipe(int ends[2], int size);

/* Moves up to `n` bytes between a pipe and a socket (splice(2)); no SIGPIPE may be raised in the process. */
ssize_t sock_splice(int from, int to, size_t n);

/* Reads `n` bytes that are in the pipe. */
ssize_t sock_read_pipe(int fd, void *p, size_t n);

/* True when nothing waits to be read and the connection was not ended (a look without taking: MSG_PEEK;
 * only a pending error is taken). */
bool sock_is_quiet(int fd);

/* The same look: 1 when a byte waits, 0 at the end, -EAGAIN when neither, else -errno, which is told only once. */
int sock_look(int fd) __attribute__((warn_unused_result));

/* Has the other end not yet acknowledged all that was sent (over a unix socket: not yet received it)? False where that
 * cannot be seen. */
bool sock_has_unacked(int fd);

int sock_shutdown_write(int fd);
void sock_close(int fd);
/* Closes so that the other end sees a reset (SO_LINGER with zero time); a unix socket just closes. */
void sock_reset(int fd);

int sock_local_addr(int fd, struct addr *out);

int sock_remote_addr(int fd, struct addr *out);

/* Two ends of a connection that keeps messages apart (SOCK_SEQPACKET). */
int sock_pair(int ends[2]);
/* Sends one message, with a copy of `fd` where that is not negative: 0, or -errno (-EAGAIN: not now). */
int sock_send_fd(int end, int fd, const void *p, size_t n);
/* Receives one: its bytes, 0 at the end, or -errno; *fd is the descriptor that came with it, or -1. */
ssize_t sock_recv_fd(int end, void *p, size_t n, int *fd);

/* True for a stream socket on which listen() was called. Makes an inherited descriptor close-on-exec and non-blocking,
 * as all others are. */
bool sock_adopt_listener(int fd);
void sock_adopt(int fd);

/* Sends a datagram to the unix socket at `path` ('@' in front: an abstract name), without waiting: 0 or -errno. */
int sock_tell(const char *path, struct str text);

/* Removes the file of a unix listener at `at`; does nothing for other kinds. */
void sock_unlink(const struct addr *at);

/* Which file stands at a unix address. */
struct sock_file {
    bool known; /* else there is none, or it is another kind of address */
    uint64_t device, number;
};
struct sock_file sock_file_at(const struct addr *at);

/* Is it that one still? Yes, too, if nothing was known of it. While its socket lives no other file gets its number. */
bool sock_file_is_at(const struct sock_file *file, const struct addr *at);

/* Are two unix addresses one file's, by whatever names? False for other kinds. */
bool sock_is_same_file(const struct addr *a, const struct addr *b);

/* Raises the soft limit of descriptors to at least `wanted` where the hard limit allows; returns the soft limit then in
 * force. */
uint64_t sock_raise_fd_limit(uint64_t wanted);

/* Resolves a name to at most `max` stream addresses with that port (getaddrinfo; BLOCKS: helper thread only). Returns
 * the number, or -1 with `*why` set. */
int sock_resolve(const char *host, uint16_t port, struct addr *out, int max, const char **why);

#endif
