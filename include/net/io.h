/* An endpoint of one stream connection: what everything that speaks over a socket speaks through.
 *
 * Reading. One recv() an event into the loop's scratch buffer; the handler is called with IO_READABLE and sees all
 * unread bytes, contiguous and writable, at io_data(). It takes what it can (io_consume()); the rest is kept in a
 * buffer of the endpoint's own and stands in front of the next bytes. The handler is called again when new bytes come,
 * or after io_resume(). What io_data() gives inside the handler's IO_READABLE call is valid to its end: consuming the
 * bytes or closing the endpoint does not take them away before.
 *
 *              io_consume                              io_write
 *   socket -> scratch | kept -> handler      handler ------------> socket
 *                                                  \-> unsent --/   (EPOLLOUT only while something is unsent)
 *
 * Writing. io_write() sends at once what the socket takes; the rest is copied to the unsent buffer and sent when the
 * socket drains, then the handler gets IO_DRAINED. The writer bounds it: it stops its source when io_is_full().
 *
 * Stages. What has been received in a turn is told behind all that is received in it, and what is written by handlers
 * then is sent behind them, if it is short and the endpoint is deferring: see loop_stage().
 *
 * Relaying. What is to be sent on as it comes need not be looked at: direct, the handler hears IO_WAITING while the
 * bytes are still in the socket, and moves them to another endpoint by io_relay().
 *
 * Time. A read deadline and a write deadline, one timer. Progress only notes the time.
 *
 * No setter calls the handler: what must be told is posted to later in the turn. After io_close() the handler is not
 * called again. */
#ifndef LB_NET_IO_H
#define LB_NET_IO_H

#include "base/str.h"
#include "event/loop.h"
#include "net/addr.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

struct io;

enum io_event {
    IO_CONNECTED, /* io_connect() completed */
    IO_READABLE,  /* unread bytes are at io_data() */
    IO_WAITING,   /* io_set_direct(): bytes, or the end, wait in the socket, for io_relay() */
    IO_DRAINED,   /* everything written is with the kernel, after an io_write() that could not send all at once */
    IO_EOF,       /* the other end will send no more; told once, after all its bytes were consumed or while unread bytes
                     remain that the handler left */
    IO_TIMEOUT_READ,  /* the read deadline has passed, or bytes come too slowly; told once, re-arm to be told again */
    IO_TIMEOUT_WRITE, /* nothing unsent could be sent for as long as allowed, or it goes too slowly */
    IO_HANGUP,        /* a hang-up while paused and nothing unsent waits: a reset, or the end of both directions */
    IO_ERROR          /* connection failed or broken: io_errno(); nothing more can be read or written */
};

typedef void io_fn(void *owner, struct io *io, enum io_event event);

#define IO_HIGH_WATER (64u * 1024u) /* io_is_full() from here on */
#define IO_KEPT_MAX                                                                                                    \
    (LOOP_SCRATCH_SIZE + 1024u * 1024u) /* bytes that may be kept unread: reading stops by itself above */

/* An endpoint on a connected descriptor, reading. Takes `fd` (also on failure: closed). NULL when there is no memory or
 * epoll refuses. */
struct io *io_new(struct loop *l, int fd, io_fn *fn, void *owner);

/* The same for one that has been accepted just now, and has sent something already, most likely: that is read later in
 * this turn, without asking epoll first. When epoll refuses, IO_ERROR follows. */
struct io *io_accepted(struct loop *l, int fd, io_fn *fn, void *owner);

/* Starts to connect; IO_CONNECTED or IO_ERROR or IO_TIMEOUT_READ (after `timeout_ns`, 0: none) follows, never from
 * inside this call. IO_CONNECTED takes the read deadline away, also one set since. NULL with `*error` = errno when it
 * fails at once. */
struct io *io_connect(struct loop *l, const struct addr *to, uint64_t timeout_ns, io_fn *fn, void *owner, int *error);

/* Hands the endpoint to another owner. */
void io_set_owner(struct io *io, io_fn *fn, void *owner);

/* Unread bytes. In IO_READABLE all of them, valid to the handler's end; elsewhere those that it has left, or those that
 * have come in this turn and are still to be told, valid until anything is done with the endpoint. NULL, perhaps, where
 * there are none. */
char *io_data(struct io *io, size_t *n);

/* Takes `n` of them, from the front. Those taken stay where they are until the handler returns. A handler that leaves
 * bytes and gets no new ones is called again for them only after io_resume(). */
void io_consume(struct io *io, size_t n);

/* Stops and restarts reading. Paused, no bytes are received and no IO_READABLE or IO_EOF is told. io_resume() tells
 * IO_READABLE (later in the turn) when unread bytes are kept, or IO_EOF when that was seen. A hang-up that comes while
 * paused is told at once as IO_HANGUP, and what it was, with the bytes before it, after io_resume(). */
void io_pause(struct io *io);
void io_resume(struct io *io);
bool io_is_paused(const struct io *io);

/* In IO_READABLE: it is told again for the bytes that are left, later and behind others, at the latest in the next
 * turn. Nothing is received before, nor is IO_EOF told, and no deadline for reading runs out. */
void io_read_later(struct io *io);

/* For who is going to wait for long: a hang-up is told at once from now on, also one that was told before, and however
 * patient the endpoint is. */
void io_await_hangup(struct io *io);

/* Patient, the owner expects nothing to read for now: what comes all the same may be told as much as LOOP_SOON late. An
 * endpoint that was accepted and is closed before that has been in epoll never. No more patient, it reads at once. */
void io_set_patient(struct io *io, bool on);

/* How many bytes are unread, and whether any are. They may be taken at any time. */
size_t io_unread(const struct io *io);
bool io_has_unread(const struct io *io);

/* Has the other end sent what io_close() would answer by a reset? For a patient endpoint that epoll does not know yet
 * it asks the socket: bytes that nobody has received, or an end. */
bool io_is_sent_to(const struct io *io);

/* Has the other end acknowledged all that the kernel was given for it? Else a reset, which is what bytes that come
 * behind io_close() are answered by, could destroy that. Asks the socket. */
bool io_is_acked(const struct io *io);

/* True when the other end is known to send no more, IO_EOF told or not. */
bool io_is_eof(const struct io *io);

#define IO_PIECES_MAX 8

/* Writes all of iov[0..n), at most IO_PIECES_MAX pieces, of none what `more` has announced. With `more`, the bytes only
 * join the unsent buffer, to leave together with what the next write without `more` (or io_flush()) sends: that must
 * come in the same callback. False when the connection is broken or memory ran out: IO_ERROR follows, after IO_READABLE
 * for what the other end sent before it went (unless reading is paused). Before IO_CONNECTED the bytes wait for it. Not
 * after io_shutdown_write().
 */
bool io_write(struct io *io, const struct iovec *iov, int n, bool more);
bool io_write_str(struct io *io, struct str s, bool more);
bool io_flush(struct io *io);

/* Deferring, a short message is not sent by io_write() but later in the turn, together with those of other endpoints:
 * until then it is unsent, and IO_DRAINED follows. io_flush() and the like send it at once, and so does a longer
 * message behind it; no IO_DRAINED follows where that was all. io_close() loses it. Not where unread bytes wait: who
 * sends one message behind the other is answered as they are handled. */
void io_set_deferring(struct io *io, bool on);

/* Where the loop has a backlog, what this endpoint is told comes before what others are, for the next few times
 * (loop_prefer()); io_connect() does so by itself. */
void io_prefer(struct io *io);

/* From here on in this callback a few bytes only join the unsent buffer, and do not make it full, until io_relay() to
 * it or io_flush(), one of which must come. */
void io_hold(struct io *io);

/* Direct, the handler is asked by IO_WAITING before bytes are received, when none are kept: if it does not io_relay()
 * them, IO_READABLE follows as ever. io_set_owner() ends it. */
void io_set_direct(struct io *io, bool on);

/* In IO_WAITING, or when all unread bytes have been taken: moves what waits in the socket of `from`, at most `max`
 * bytes (> 0), to `to`, another endpoint of the same loop, behind what was written there; they do not pass through this
 * process, but for what the socket of `to` does not take, which joins its unsent bytes. Returns how many; 0 when there
 * were none, which IO_EOF or IO_ERROR of `from` tells, or when they cannot go that way now (`to` waits for its socket
 * or is broken, or no pipe is to be had): then IO_READABLE follows. What io_hold() has held back of `to` leaves with
 * them, or alone. When `to` breaks on it, its IO_ERROR follows. */
size_t io_relay(struct io *from, struct io *to, uint64_t max);

/* What is left of a body from which on relaying is worth it: docs/performance.md has the figures. */
#define IO_RELAY_MIN (32u * 1024u)

/* Receives at most IO_SIP bytes at a time, from now on or no more: enough for most heads, and what follows stays in the
 * socket, for io_relay(). */
#define IO_SIP 4096u
void io_set_sipping(struct io *io, bool on);

/* Bytes not yet with the kernel; is it over the high-water mark. */
size_t io_unsent(const struct io *io);
bool io_is_full(const struct io *io);

/* The total since the beginning, for "did any of it leave". */
uint64_t io_bytes_out(const struct io *io);

/* Read deadline: `ns` from now, absolute (IO_BY) or restarted by each byte received (IO_PROGRESS); ns 0 takes it away.
 * While paused, a progress deadline does not run (it starts anew at io_resume()); an absolute one does. */
enum io_deadline { IO_BY, IO_PROGRESS };
void io_set_read_timeout(struct io *io, enum io_deadline kind, uint64_t ns);

/* Write deadline: runs only while bytes are unsent, restarted by each byte sent; ns 0 takes it away. Told once, like
 * the read deadline. */
void io_set_write_timeout(struct io *io, uint64_t ns);

/* Watches the pace, too, from now on or no more: bytes that come under a read deadline of kind IO_PROGRESS, and unsent
 * ones that go, must make IO_RATE_MIN bytes a second, taken over IO_RATE_SPAN or that direction's deadline, whichever
 * is longer, but no more than IO_RATE_SPAN_MAX: it begins anew behind a rest that was longer, which its deadline must
 * have allowed. Who moves nothing at all is left to the deadlines: the pace is
 * looked at when bytes move, and told of (IO_TIMEOUT_READ) behind them, unless the handler has set another read
 * deadline, for they were all that was awaited. While paused, no time runs. */
#define IO_RATE_MIN      100u
#define IO_RATE_SPAN     10u  /* s */
#define IO_RATE_SPAN_MAX 655u /* s */
void io_set_min_rate(struct io *io, bool on);

/* Sends FIN once everything written has been sent. Reading goes on. */
void io_shutdown_write(struct io *io);

/* Closes now; unsent bytes are lost. The endpoint is reclaimed at the end of the iteration. NULL is fine. */
void io_close(struct io *io);

/* Closes with a reset, so that the other end cannot take what it has for the whole; what waits only for its pass, for
 * the endpoint is deferring, leaves before. Over a unix socket the other end sees no more than an end: Linux ignores
 * SO_LINGER there, and gives ECONNRESET only where bytes from the other end were left unread. */
void io_abort(struct io *io);

/* Leaves the endpoint to itself: what is unsent is still sent, then FIN, then whatever comes is read and thrown away
 * until the other end closes, or nothing has come for `idle_ns`, or `total_ns` have passed since the FIN; then it
 * closes. (Closing at once with bytes unread would make the kernel send a reset, which can destroy the response before
 * the client has read it: RFC 9112 section 9.6.) The write timeout set before holds on; where there is none, only the
 * other end bounds the sending. */
struct io_lingering {
    uint64_t idle_ns, total_ns;
    void (*ended)(void *arg); /* told when it has ended, by itself or by io_end_lingering(); may be NULL */
    void *arg;
};
struct lingerer;

/* Returns a handle, valid until it has ended; NULL when it has already, and then nothing is told: there is nothing to
 * wait for, the connection is broken, or there is no memory. */
struct lingerer *io_close_lingering(struct io *io, const struct io_lingering *how);

/* Ends it at once; `ended` is not told. */
void lingerer_end(struct lingerer *g);

/* The errno of IO_ERROR, 0 as long as nothing has failed. */
int io_errno(const struct io *io);

/* True when nothing waits in the socket and the connection stands, by a look at the socket (one system call). */
bool io_is_quiet(const struct io *io);

/* True when nothing is unread and the other end has ended the connection in order, by a look at the socket where that
 * has not been seen yet (one system call). Where the look finds it broken, IO_ERROR follows. */
bool io_is_at_end(struct io *io);

/* Its own end's address; 0 or -errno. One system call. */
int io_local_addr(const struct io *io, struct addr *out) __attribute__((warn_unused_result));

/* Its descriptor, to be handed to another process; the endpoint keeps it. */
int io_descriptor(const struct io *io);

/* Puts bytes in front of what comes: as if they had just been received. For what another process has read already;
 * before anything was received here. False when there is no memory. */
bool io_feed(struct io *io, struct str bytes) __attribute__((warn_unused_result));

/* The loop it was made on. */
struct loop *io_loop(const struct io *io);

/* Endpoints that exist, those left to themselves by io_close_lingering() included; for tests. */
size_t io_count(void);
/* Ends all lingering endpoints of the loop at once (at the shutdown deadline), and tells so from inside of this call.
 * Returns how many still had unsent bytes. */
size_t io_end_lingering(struct loop *l);
size_t io_lingering(const struct loop *l);
/* From now on those that linger do so for `ns` at most, from now or, where that is still to come, from their FIN. */
void io_hurry_lingering(struct loop *l, uint64_t ns);

#endif
