/* Inside of an endpoint, shared by io.c (life and events), io_read.c, io_write.c and io_time.c (what goes through this
 * process, and by when), and relay.c (what goes past it). */
#ifndef LB_NET_IO_IMPL_H
#define LB_NET_IO_IMPL_H

#include "base/buf.h"
#include "net/io.h"

#include <assert.h>

/* A span of time that runs from `since`; a span of 0 never ends. */
struct deadline {
    uint64_t since, span;
};

/* Bytes since a point in time, in tenths of a second. */
struct pace {
    uint16_t since, moved;
};

struct io {
    struct watch watch;
    struct timer timer;
    union { /* nothing is posted any more once it is dead */
        struct posted posted;
        struct dead dead;
    };
    struct loop *loop;
    io_fn *fn;
    void *owner;
    struct buf in;     /* unread: lent by the loop's scratch buffer, or kept */
    struct buf unsent; /* waits for the kernel, or for the write that `more` announced */
    struct deadline read, write;
    uint64_t bytes_out;
    struct pace read_pace, write_pace; /* the latter runs while blocked */
    int error;                         /* why it is broken */
    bool connecting : 1;               /* the connect has not completed */
    bool paused : 1;                   /* by the owner */
    bool staged : 1;                   /* run_stage() comes */
    bool received : 1;                 /* IO_READABLE is due, in the first pass, for what has just come */
    bool defers : 1;                   /* short messages */
    bool deferred : 1;                 /* what is unsent is to be sent in the next pass, not by LOOP_WRITE */
    bool drained : 1;                  /* ... and has been: IO_DRAINED is due, in the pass behind that */
    bool lent : 1;                     /* `in` is the loop's scratch buffer, not a block of ours */
    bool reread : 1;                   /* IO_READABLE is due for what is kept */
    bool eof : 1;                      /* FIN received */
    bool eof_told : 1;                 /* ... and the owner knows */
    bool blocked : 1;                  /* unsent bytes wait for LOOP_WRITE; IO_DRAINED is due after them */
    bool fin : 1;                      /* to be sent behind the unsent bytes, or sent */
    bool broken : 1;                   /* IO_ERROR is due or told; only what was received before can still be read */
    bool broken_told : 1;              /* ... and the owner knows */
    bool salvage : 1;                  /* broken by sending: the receive buffer may still hold something */
    bool read_progress : 1;            /* the read deadline is of kind IO_PROGRESS */
    bool paced : 1;                    /* bytes must keep IO_RATE_MIN */
    bool late : 1;                     /* those that have just come do not */
    bool direct : 1;                   /* IO_WAITING comes first */
    bool relayed : 1;                  /* ... and the owner has moved what was waiting */
    bool held : 1;                     /* what is written waits for io_relay() or io_flush() */
    bool sips : 1;                     /* IO_SIP at a time */
    bool fresh : 1;                    /* accepted in this turn, and not read yet */
    bool patient : 1;                  /* may be registered with epoll later */
    bool closed : 1;                   /* by the owner: the handler is not called again */
};

static_assert(sizeof(struct io) <= 216, "an idle connection should stay cheap");

/* ---- io.c ---- */

/* What the watch is to wait for: a set of enum loop_ready. */
unsigned io_needs(const struct io *io);

/* Asks epoll for what is needed and not yet asked for; may io_fail(). */
void io_ask(struct io *io);

/* The one way into failure; with the second, what the other end sent before is still delivered. */
void io_fail(struct io *io, int error);
void io_fail_sending(struct io *io, int error);

/* run_stage() comes, in the next pass of the loop's. */
void io_stage(struct io *io);

/* ---- io_read.c ---- */

/* What waits in the socket may be received: calls the handler, which may close. */
void io_on_readable(struct io *io);

/* Calls the handler for what is unread, and keeps what it leaves. */
void io_tell_readable(struct io *io);

/* The same for what io_on_readable() has received. */
void io_tell_received(struct io *io);

/* Delivers what came before the connection broke by sending. */
void io_salvage(struct io *io);

/* `n` bytes have come: for the read deadline and the pace. */
void io_note_received(struct io *io, size_t n);

/* A receiving call has brought no bytes: it returned 0 at the end, or -errno. */
void io_note_nothing(struct io *io, ssize_t result);

/* ---- io_write.c ---- */

/* The socket may take more: sends what is unsent, and tells the handler when that was all or it goes too slowly. */
void io_on_writable(struct io *io);

/* Sends what waits for this pass, as far as the kernel takes it. */
void io_send_deferred(struct io *io);

/* Sends FIN at once: nothing is unsent. */
void io_send_fin(struct io *io);

/* Sends what is unsent, of which more follows at once. False when the connection broke; it may be blocked then. */
bool io_send_unsent(struct io *io);

/* From now on unsent bytes wait for the kernel, and the write deadline runs. */
void io_block(struct io *io);

/* ---- io_time.c ---- */

/* The timer's callback. */
void io_on_timer(struct timer *t);

/* Sees to it that the timer fires at the next deadline or before; may io_fail(). */
void io_set_timer(struct io *io);

/* What is kept is to be told, or behind that the end of what comes, and can be now: no deadline for reading runs out
 * before. */
bool io_reread_is_due(const struct io *io);
bool io_eof_is_due(const struct io *io);

/* `p` begins anew, as of now. */
void io_start_pace(const struct io *io, struct pace *p);

/* `n` bytes have moved, `rest` ns behind those before, for which there is a time-out between bytes of `progress` ns.
 * False when they, and those before, have been too slow. */
bool io_keep_pace(const struct io *io, struct pace *p, uint64_t progress, uint64_t rest, size_t n);

/* ---- relay.c ---- */

/* No endpoint is left: gives the pipe back. */
void relay_close_pipe(void);

#endif
