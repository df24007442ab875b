/* The endpoint of one stream connection. What it promises is in io.h; this is how it keeps it. Life, failure, what the
 * watch waits for and what the handler is told are in this file, the rest in io_read.c, io_write.c and io_time.c.
 *
 *        the kernel                        struct io                                the owner
 *
 *                   recv      scratch (the loop's, lent)  \
 *      receive  ----------->                               >--in-->  IO_READABLE, io_data, io_consume
 *       buffer                kept (own block)            /               |
 *                                ^---------- what was not consumed -------+
 *
 *                   send
 *      send     <-----------  unsent (own block)  <-- what the kernel refused --  io_write
 *       buffer       \--------------------------- straight from the caller ------/
 *
 * The cheap path. A request comes and goes with one recv() and one send() and nothing else: no epoll_ctl(), no clock.
 * The bytes lie in the loop's scratch buffer, which `in` borrows until the handler has looked at them; an endpoint that
 * waits owns no block at all. A block exists only for what a handler left, for a short message until its pass comes,
 * and for what the kernel refused, and goes as soon as it is empty.
 *
 * Stages (loop.c says what for). on_ready() only receives, and puts the endpoint into the next pass; run_stage() does
 * the one thing that is due there, and puts it into the next one where more is. So an exchange goes
 *
 *      on_ready: recv | pass 1: IO_READABLE, io_write | pass 2: send | pass 3: IO_DRAINED
 *
 * with all others that are as far beside it. In between anything may happen to the endpoint by another's handler: it is
 * closed (then it is in no pass), paused (then its bytes are kept), given to another owner, or written to.
 *
 * What the watch waits for. io_needs() says what the endpoint could use now. What it needs more is asked of epoll at
 * once (io_ask()), what it needs no more only when epoll tells it unasked (on_ready()): most pauses end before that,
 * and so cost nothing. A hang-up cannot be asked not to be told, so a watch that needs nothing and is told of one is
 * taken out of epoll until it needs something again, and then epoll tells it anew. Thus nothing can spin: each event
 * either leads to a recv() or send(), or removes its own cause.
 *
 * Who calls the handler. Three events come straight from the socket's readiness: CONNECTED, READABLE and DRAINED; two
 * from the timer. All the rest, whatever a setter brought about included, is noted in flags and told by tell_due() from
 * one posted callback. So the owner never finds itself called back from inside its own call, and the order is always
 * the same: bytes, then EOF, then ERROR. After each call of the handler the endpoint may have been closed: `closed` is
 * asked before anything else is touched. (The memory stays until the end of the iteration.)
 *
 * Failure. io_fail() is the one way into it: `broken` is set, epoll and timer are left, ERROR is due. When it was
 * sending that failed, the other end may have said why before it went (a backend that refuses an upload answers early
 * and closes): what it sent still lies in the receive buffer, and is delivered first (io_salvage()).
 *
 * Time. Two deadlines share a timer. Progress stores the time and leaves the timer as it is; a timer that comes up
 * early finds the true deadline and sets itself to it. So bytes move no timers. That is also where time is added that
 * the loop was held up in the turn in which they moved: to the other end it was no silence. */
#include "base/mem.h"
#include "io_impl.h"
#include "net/sock.h"

#include <assert.h>
#include <errno.h>

/* For io_count(): one process, one loop, and the question is about the whole process. */
static size_t count;

/* --- what the watch waits for ----------------------------------------------------------------------------------- */

static bool needs_read(const struct io *io)
{
    return !io->connecting && !io->paused && !io->eof && !io->broken && io->in.len <= IO_KEPT_MAX;
}

unsigned io_needs(const struct io *io)
{
    bool write = (io->connecting || io->blocked) && !io->broken;
    return (needs_read(io) ? (unsigned)LOOP_READ : 0) | (write ? (unsigned)LOOP_WRITE : 0);
}

/* False, with errno, when the kernel has no room. */
static bool watch_first(struct io *io, unsigned wanted)
{
    if (io->patient && wanted == LOOP_READ)
        return loop_watch_soon(io->loop, &io->watch, wanted);
    return loop_watch(io->loop, &io->watch, wanted);
}

void io_ask(struct io *io)
{
    unsigned wanted = io_needs(io), asked = io->watch.registered ? io->watch.wanted : 0;
    if ((wanted & ~asked) == 0)
        return;
    if (io->watch.registered)
        loop_rewatch(io->loop, &io->watch, wanted);
    else if (!watch_first(io, wanted))
        io_fail(io, errno);
}

/* --- failure ---------------------------------------------------------------------------------------------------- */

void io_fail(struct io *io, int error)
{
    io->salvage = false;
    if (io->broken)
        return;
    io->broken = true;
    io->error = error;
    loop_unwatch(io->loop, &io->watch);
    loop_cancel(io->loop, &io->timer);
    loop_post(io->loop, &io->posted);
}

void io_fail_sending(struct io *io, int error)
{
    io_fail(io, error);
    io->salvage = true;
}

/* --- events ----------------------------------------------------------------------------------------------------- */

static void on_connect(struct io *io)
{
    int rc = sock_connect_result(io->watch.fd);
    if (rc < 0) {
        io_fail(io, -rc);
        return;
    }
    io->connecting = false;
    io->read.span = 0;
    if (io->fin && !io->blocked)
        io_send_fin(io);
    io->fn(io->owner, io, IO_CONNECTED);
    /* What was written before now leaves together with what the handler has just written. */
    if (!io->closed && !io->broken && io->blocked)
        io_on_writable(io);
    if (!io->closed && !io->broken)
        loop_rewatch(io->loop, &io->watch, io_needs(io));
}

static void on_ready(struct watch *w, unsigned ready)
{
    struct io *io = container_of(w, struct io, watch);
    unsigned needed = io_needs(io);
    if (ready & LOOP_REFUSED) {
        io_fail(io, errno);
        return;
    }
    if (ready & LOOP_HANGUP)
        ready |= needed; /* the call that is needed will tell what has happened */
    if (io->connecting) {
        on_connect(io);
        return;
    }
    if (needed == 0 && (ready & LOOP_HANGUP)) {
        loop_unwatch(io->loop, w);
        if (io->paused)
            io->fn(io->owner, io, IO_HANGUP);
        return;
    }
    if (ready & ~needed & (LOOP_READ | LOOP_WRITE))
        loop_rewatch(io->loop, w, needed);
    if (ready & needed & LOOP_WRITE)
        io_on_writable(io);
    /* What is kept comes first: else it would grow with each pause of a handler that takes little at a time. */
    bool kept_first = io->reread && io->in.len > 0;
    if ((ready & LOOP_READ) && !io->closed && needs_read(io) && !kept_first)
        io_on_readable(io);
}

void io_stage(struct io *io)
{
    if (io->staged)
        return;
    io->staged = true;
    loop_stage(io->loop, &io->posted);
}

/* One step of an exchange, of all endpoints that are as far in this turn: the bytes that have come, or the sending of
 * those that were written, or that they are gone. */
static void run_stage(struct io *io)
{
    if (io->drained) {
        io->drained = false;
        io->fn(io->owner, io, IO_DRAINED);
        if (io->closed)
            return;
    }
    if (io->received)
        io_tell_received(io);
    else if (io->deferred)
        io_send_deferred(io);
    if (io->closed)
        return;
    if (io->deferred || io->drained)
        io_stage(io);
    else if (io->fresh || io->reread || (io->eof && !io->eof_told) || (io->broken && !io->broken_told))
        loop_post(io->loop, &io->posted); /* it was, perhaps, before it was staged */
}

/* What an accepted connection has brought along; only then is it known what epoll is to be asked for. */
static void read_first(struct io *io)
{
    io->fresh = false;
    if (needs_read(io))
        io_on_readable(io);
    if (!io->closed && !io->received)
        io_ask(io);
}

/* Tells what has been noted, in the order in which the owner must hear it. */
static void run_posted(struct posted *p)
{
    struct io *io = container_of(p, struct io, posted);
    if (io->staged) {
        io->staged = false;
        run_stage(io);
        return;
    }
    if (io->fresh) {
        read_first(io);
        if (io->closed || io->staged || !list_empty(&io->posted.link))
            return; /* the rest has its turn */
    }
    if (io_reread_is_due(io) && !io->broken_told) {
        io_tell_readable(io);
        if (!io->closed)
            io_set_timer(io);
    }
    if (!io->closed && io_eof_is_due(io) && !io->broken_told) {
        io->eof_told = true;
        io_set_timer(io);
        io->fn(io->owner, io, IO_EOF);
    }
    if (!io->closed && io->broken && !io->broken_told) {
        io_salvage(io);
        if (io->closed)
            return;
        io->broken_told = true;
        io->fn(io->owner, io, IO_ERROR);
    }
}

/* --- life ------------------------------------------------------------------------------------------------------- */

static struct io *new_io(struct loop *l, int fd, io_fn *fn, void *owner)
{
    struct io *io = mem_try_alloc(sizeof *io);
    if (!io)
        return NULL;
    io->loop = l;
    io->fn = fn;
    io->owner = owner;
    watch_init(&io->watch, fd, on_ready);
    timer_init(&io->timer, io_on_timer);
    posted_init(&io->posted, run_posted);
    return io;
}

/* Takes `fd`, watched as the endpoint needs it, or closes it and returns NULL with errno. */
static struct io *open_io(struct loop *l, int fd, bool connecting, io_fn *fn, void *owner)
{
    struct io *io = new_io(l, fd, fn, owner);
    int error = ENOMEM;
    if (io) {
        io->connecting = connecting;
        if (connecting)
            loop_prefer(l, &io->watch);
        if (loop_watch(l, &io->watch, io_needs(io))) {
            count++;
            return io;
        }
        error = errno;
        mem_free(io);
    }
    sock_close(fd);
    errno = error;
    return NULL;
}

struct io *io_new(struct loop *l, int fd, io_fn *fn, void *owner)
{
    return open_io(l, fd, false, fn, owner);
}

struct io *io_accepted(struct loop *l, int fd, io_fn *fn, void *owner)
{
    struct io *io = new_io(l, fd, fn, owner);
    if (!io) {
        sock_close(fd);
        return NULL;
    }
    io->fresh = true;
    loop_post(l, &io->posted);
    count++;
    return io;
}

struct io *io_connect(struct loop *l, const struct addr *to, uint64_t timeout_ns, io_fn *fn, void *owner, int *error)
{
    bool in_progress; /* either way the socket becomes writable, and that event tells */
    int fd = sock_connect(to, &in_progress);
    if (fd < 0) {
        *error = -fd;
        return NULL;
    }
    struct io *io = open_io(l, fd, true, fn, owner);
    if (!io) {
        *error = errno;
        return NULL;
    }
    io_set_read_timeout(io, IO_BY, timeout_ns);
    return io;
}

static void reclaim(struct dead *d)
{
    struct io *io = container_of(d, struct io, dead);
    /* Only now: the handler that closed may still be looking at io_data(). */
    if (!io->lent)
        buf_fini(&io->in);
    mem_free(io);
}

static void end(struct io *io, void (*close_fd)(int fd))
{
    if (!io || io->closed)
        return;
    io->closed = true;
    loop_unwatch(io->loop, &io->watch);
    loop_cancel(io->loop, &io->timer);
    loop_unpost(io->loop, &io->posted);
    close_fd(io->watch.fd);
    buf_fini(&io->unsent);
    io->staged = io->received = io->deferred = io->drained = false;
    if (--count == 0)
        relay_close_pipe();
    loop_reclaim(io->loop, &io->dead, reclaim);
}

void io_close(struct io *io)
{
    end(io, sock_close);
}

void io_abort(struct io *io)
{
    if (io && io->deferred)
        (void)io_flush(io); /* broken, it could not have gone before either */
    end(io, sock_reset);
}

/* --- what the owner sets and asks ------------------------------------------------------------------------------- */

void io_set_owner(struct io *io, io_fn *fn, void *owner)
{
    io->fn = fn;
    io->owner = owner;
    io->direct = false;
    /* Nobody who has begun since waits for that. */
    io->drained = false;
    io->deferred &= io->unsent.len > 0;
    io_set_patient(io, false);
}

void io_await_hangup(struct io *io)
{
    if (!io->watch.registered && !io->broken && !loop_watch(io->loop, &io->watch, io_needs(io)))
        io_fail(io, errno);
}

void io_set_patient(struct io *io, bool on)
{
    io->patient = on;
    if (!on && !io->fresh && !io->watch.registered)
        io_ask(io);
}

void io_prefer(struct io *io)
{
    loop_prefer(io->loop, &io->watch);
}

bool io_is_sent_to(const struct io *io)
{
    bool unseen = !io->watch.registered && !io->paused && !io->eof && !io->broken;
    return io->in.len > 0 || (unseen && !sock_is_quiet(io->watch.fd));
}

bool io_is_acked(const struct io *io)
{
    return !sock_has_unacked(io->watch.fd);
}

int io_errno(const struct io *io)
{
    return io->error;
}

bool io_is_quiet(const struct io *io)
{
    return !io->broken && !io->eof && io->in.len == 0 && sock_is_quiet(io->watch.fd);
}

bool io_is_at_end(struct io *io)
{
    if (io->broken || io->eof || io->in.len > 0)
        return io->eof && io->in.len == 0;
    int found = sock_look(io->watch.fd);
    if (found < 0 && found != -EAGAIN)
        io_fail(io, -found); /* the look has taken the error: without it, an end would seem to follow */
    return found == 0;
}

int io_local_addr(const struct io *io, struct addr *out)
{
    return sock_local_addr(io->watch.fd, out);
}

int io_descriptor(const struct io *io)
{
    return io->watch.fd;
}

struct loop *io_loop(const struct io *io)
{
    return io->loop;
}

size_t io_count(void)
{
    return count;
}
