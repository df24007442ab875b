/* The endpoint of one stream connection. What it promises is in io.h; this is how it keeps it.
 *
 *        the kernel                        struct io                                the owner
 *
 *                   recv      scratch (the loop's, lent)  \
 *      receive  ----------->                               >--in-->  IO_READABLE, io_data, io_consume
 *       buffer                kept (own block)            /               |
 *                                ^---------- what was not consumed -------+
 *
 *                   sendmsg
 *      send     <-----------  unsent (own block)  <-- what the kernel refused --  io_write
 *       buffer       \--------------------------- straight from the caller ------/
 *
 * The cheap path. A request comes and goes with one recv() and one sendmsg() and nothing else: no epoll_ctl(), no
 * clock, no allocation, no copy. The bytes lie in the loop's scratch buffer, which `in` borrows while the handler looks
 * at them; an endpoint that waits owns no block at all. A block exists only for what a handler left or the kernel
 * refused, and goes as soon as it is empty.
 *
 * What the watch waits for. needs() says what the endpoint could use now. What it needs more is asked of epoll at once
 * (ask()), what it needs no more only when epoll tells it unasked (on_ready()): most pauses end before that, and so
 * cost nothing. A hang-up cannot be asked not to be told, so a watch that needs nothing and is told of one is taken out
 * of epoll until it needs something again, and then epoll tells it anew. Thus nothing can spin: each event either
 * leads to a recv() or sendmsg(), or removes its own cause.
 *
 * Who calls the handler. Three events come straight from the socket's readiness: CONNECTED, READABLE and DRAINED; two
 * from the timer. All the rest, whatever a setter brought about included, is noted in flags and told by tell_due() from
 * one posted callback. So the owner never finds itself called back from inside its own call, and the order is always
 * the same: bytes, then EOF, then ERROR. After each call of the handler the endpoint may have been closed: `closed` is
 * asked before anything else is touched. (The memory stays until the end of the iteration.)
 *
 * Failure. io_fail() is the one way into it: `broken` is set, epoll and timer are left, ERROR is due. When it was
 * sending that failed, the other end may have said why before it went (a backend that refuses an upload answers early
 * and closes): what it sent still lies in the receive buffer, and is delivered first (salvage()).
 *
 * Time. Two deadlines share a timer. Progress stores the time and leaves the timer as it is; a timer that comes up
 * early finds the true deadline and sets itself to it. So bytes move no timers. That is also where time is added that
 * the loop was held up in the turn in which they moved: to the other end it was no silence. */
#include "base/clock.h"
#include "base/mem.h"
#include "io_impl.h"
#include "net/sock.h"

#include <assert.h>
#include <errno.h>

/* For io_count(): one process, one loop, and the question is about the whole process. */
static size_t count;

/* --- deadlines -------------------------------------------------------------------------------------------------- */

static uint64_t due(const struct deadline *d)
{
    return d->span == 0 || d->span > TIMER_NEVER - d->since ? TIMER_NEVER : d->since + d->span;
}

/* What a late turn finds beside a deadline came before it was over, or may have: it is told first. */
static bool eof_is_due(const struct io *io)
{
    return io->eof && !io->eof_told && !io->paused;
}

static uint64_t read_due(const struct io *io)
{
    if (eof_is_due(io))
        return TIMER_NEVER;
    return io->read_progress && io->paused ? TIMER_NEVER : due(&io->read);
}

static uint64_t write_due(const struct io *io)
{
    return io->blocked ? due(&io->write) : TIMER_NEVER;
}

/* The tenths of a second wrap around; they are compared by their difference. */
static uint16_t tenths(const struct io *io)
{
    return (uint16_t)(loop_now(io->loop) / (NS_PER_S / 10));
}

static void start_pace(const struct io *io, struct pace *p)
{
    *p = (struct pace){.since = tenths(io)};
}

/* `n` bytes have moved. False when they, and those before, have been too slow. */
static bool keep_pace(const struct io *io, struct pace *p, size_t n)
{
    unsigned span = (uint16_t)(tenths(io) - p->since);

    p->moved = n < (size_t)(UINT16_MAX - p->moved) ? (uint16_t)(p->moved + n) : UINT16_MAX;
    if (span < IO_RATE_SPAN * 10)
        return true;
    bool kept = p->moved >= span * IO_RATE_MIN / 10 || p->moved == UINT16_MAX;
    start_pace(io, p);
    return kept || !io->paced;
}

/* Sees to it that the timer fires at the next deadline or before. */
static void set_timer(struct io *io)
{
    uint64_t r = read_due(io), w = write_due(io), next = r < w ? r : w;
    if (io->broken || next == TIMER_NEVER || (timer_armed(&io->timer) && io->timer.deadline <= next))
        return;
    if (!loop_arm(io->loop, &io->timer, next))
        io_fail(io, ENOMEM);
}

static void on_timer(struct timer *t)
{
    struct io *io = container_of(t, struct io, timer);
    uint64_t now = loop_heard(io->loop);
    io->read.since = loop_noted(io->loop, io->read.since);
    io->write.since = loop_noted(io->loop, io->write.since);
    bool read_expired = read_due(io) <= now, write_expired = !read_expired && write_due(io) <= now;
    if (read_expired)
        io->read.span = 0;
    if (write_expired)
        io->write.span = 0;
    set_timer(io);
    if (read_expired)
        io->fn(io->owner, io, IO_TIMEOUT_READ);
    else if (write_expired)
        io->fn(io->owner, io, IO_TIMEOUT_WRITE);
}

/* --- what the watch waits for ----------------------------------------------------------------------------------- */

static bool needs_read(const struct io *io)
{
    return !io->connecting && !io->paused && !io->eof && !io->broken && io->in.len <= IO_KEPT_MAX;
}

static unsigned needs(const struct io *io)
{
    bool write = (io->connecting || io->blocked) && !io->broken;
    return (needs_read(io) ? (unsigned)LOOP_READ : 0) | (write ? (unsigned)LOOP_WRITE : 0);
}

/* Asks epoll for what is needed and not yet asked for. */
static void ask(struct io *io)
{
    unsigned wanted = needs(io), asked = io->watch.registered ? io->watch.wanted : 0;
    if ((wanted & ~asked) == 0)
        return;
    if (io->watch.registered)
        loop_rewatch(io->loop, &io->watch, wanted);
    else if (!(io->patient && wanted == LOOP_READ ? loop_watch_soon : loop_watch)(io->loop, &io->watch, wanted))
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

/* --- reading ---------------------------------------------------------------------------------------------------- */

/* After the handler: what is left of a lent buffer becomes kept, and a kept one that is empty gives its block back. */
static void keep_rest(struct io *io)
{
    struct buf left = io->in;
    if (!io->lent) {
        if (left.len == 0)
            buf_fini(&io->in);
        return;
    }
    io->in = BUF_INIT;
    io->lent = false;
    if (left.len > 0 && !buf_append_str(&io->in, buf_str(&left)))
        io_fail(io, ENOMEM);
}

static void tell_readable(struct io *io)
{
    io->reread = false;
    io->fn(io->owner, io, IO_READABLE);
    if (io->closed)
        return;
    keep_rest(io);
    ask(io);
}

void io_note_received(struct io *io, size_t n)
{
    if (!io->read_progress)
        return;
    io->read.since = loop_now(io->loop);
    io->late = !keep_pace(io, &io->read_pace, n) && io->read.span > 0;
}

void io_note_nothing(struct io *io, ssize_t result)
{
    if (result == 0) {
        io->eof = true;
        loop_post(io->loop, &io->posted);
    } else if (result != -EAGAIN) {
        io_fail(io, (int)-result);
    }
}

/* Puts `n` bytes of the scratch buffer behind what is kept, or lends them when nothing is. */
static bool take_in(struct io *io, char *scratch, size_t n)
{
    io_note_received(io, n);
    if (io->in.len > 0)
        return buf_append(&io->in, scratch, n);
    if (io->in.block)
        buf_fini(&io->in);
    io->in = (struct buf){.block = scratch, .len = n};
    io->lent = true;
    return true;
}

static void tell_late(struct io *io)
{
    if (!io->late)
        return;
    io->late = false;
    io->read.span = 0;
    io->fn(io->owner, io, IO_TIMEOUT_READ);
}

/* One recv(), and the handler when it brought bytes. Returns what recv() did. */
static ssize_t receive(struct io *io)
{
    char *scratch = loop_scratch(io->loop);
    ssize_t n = sock_recv(io->watch.fd, scratch, io->sips ? IO_SIP : LOOP_SCRATCH_SIZE);
    if (n <= 0)
        return n;
    if (!take_in(io, scratch, (size_t)n)) {
        io_fail(io, ENOMEM);
        return n;
    }
    tell_late(io);
    if (!io->closed)
        tell_readable(io);
    return n;
}

/* Asks the owner first whether it moves what is waiting. True when it has, or has closed. */
static bool is_moved(struct io *io)
{
    if (!io->direct || io->in.len > 0)
        return false;
    io->relayed = false;
    io->fn(io->owner, io, IO_WAITING);
    if (!io->closed)
        tell_late(io);
    return io->relayed || io->closed;
}

static void on_readable(struct io *io)
{
    if (is_moved(io))
        return;
    ssize_t n = receive(io);
    if (n <= 0)
        io_note_nothing(io, n);
}

/* What an accepted connection has brought along; only then is it known what epoll is to be asked for. */
static void read_first(struct io *io)
{
    io->fresh = false;
    if (needs_read(io))
        on_readable(io);
    if (!io->closed)
        ask(io);
}

/* Delivers what came before the connection broke. The other end can add nothing, so the receive buffer bounds it. */
static void salvage(struct io *io)
{
    while (io->salvage && !io->closed && !io->paused && !io->eof && io->in.len <= IO_KEPT_MAX && receive(io) > 0)
        ;
}

/* Tells what has been noted, in the order in which the owner must hear it. */
static void tell_due(struct posted *p)
{
    struct io *io = container_of(p, struct io, posted);
    if (io->fresh) {
        read_first(io);
        if (io->closed)
            return;
    }
    if (io->reread && !io->paused && io->in.len > 0 && !io->broken_told)
        tell_readable(io);
    if (!io->closed && eof_is_due(io) && !io->broken_told) {
        io->eof_told = true;
        set_timer(io);
        io->fn(io->owner, io, IO_EOF);
    }
    if (!io->closed && io->broken && !io->broken_told) {
        salvage(io);
        if (io->closed)
            return;
        io->broken_told = true;
        io->fn(io->owner, io, IO_ERROR);
    }
}

/* --- writing ---------------------------------------------------------------------------------------------------- */

static size_t total(const struct iovec *iov, int n)
{
    size_t sum = 0;
    for (int i = 0; i < n; i++)
        sum += iov[i].iov_len;
    return sum;
}

/* Appends the pieces, without their first `skip` bytes, to what is unsent. */
static bool queue(struct io *io, const struct iovec *iov, int n, size_t skip)
{
    if (!buf_reserve(&io->unsent, total(iov, n) - skip)) {
        io_fail(io, ENOMEM);
        return false;
    }
    for (int i = 0; i < n; i++) {
        size_t passed = skip < iov[i].iov_len ? skip : iov[i].iov_len, left = iov[i].iov_len - passed;
        skip -= passed;
        if (left > 0)
            memcpy(buf_tail(&io->unsent), (const char *)iov[i].iov_base + passed, left);
        buf_added(&io->unsent, left);
    }
    return true;
}

void io_block(struct io *io)
{
    if (io->blocked)
        return;
    io->blocked = true;
    io->write.since = loop_now(io->loop);
    start_pace(io, &io->write_pace);
    ask(io);
    set_timer(io);
}

/* After the kernel took `sent` bytes, less than all: keeps the rest in order. */
static bool keep_unsent(struct io *io, const struct iovec *iov, int n, size_t sent)
{
    size_t from_unsent = sent < io->unsent.len ? sent : io->unsent.len;
    buf_consume(&io->unsent, from_unsent);
    if (!queue(io, iov, n, sent - from_unsent))
        return false;
    if (sent > 0)
        io->write.since = loop_now(io->loop);
    io_block(io);
    return !io->broken;
}

/* One sendmsg() of what is unsent and of the pieces behind it. */
static bool transmit(struct io *io, const struct iovec *iov, int n, bool more)
{
    struct iovec joined[IO_PIECES_MAX + 1];
    const struct iovec *v = iov;
    int pieces = n;
    if (io->unsent.len > 0) {
        joined[0] = (struct iovec){.iov_base = buf_bytes(&io->unsent), .iov_len = io->unsent.len};
        for (int i = 0; i < n; i++)
            joined[i + 1] = iov[i];
        v = joined;
        pieces = n + 1;
    }
    size_t all = total(v, pieces);
    ssize_t sent = all > 0 ? sock_send(io->watch.fd, v, pieces, more) : 0;
    if (sent == -EAGAIN)
        sent = 0;
    if (sent < 0) {
        io_fail_sending(io, (int)-sent);
        return false;
    }
    io->bytes_out += (uint64_t)sent;
    if ((size_t)sent < all)
        return keep_unsent(io, iov, n, (size_t)sent);
    if (io->unsent.len > 0)
        buf_fini(&io->unsent);
    return true;
}

bool io_send_unsent(struct io *io)
{
    return transmit(io, NULL, 0, true);
}

static void send_fin(struct io *io)
{
    /* Its failure says that the connection is gone: reading tells that. */
    (void)sock_shutdown_write(io->watch.fd);
}

static void on_writable(struct io *io)
{
    uint64_t before = io->bytes_out;
    if (!transmit(io, NULL, 0, false))
        return;
    if (io->unsent.len > 0) {
        size_t n = (size_t)(io->bytes_out - before);
        if (n > 0 && !keep_pace(io, &io->write_pace, n) && io->write.span > 0) {
            io->write.span = 0;
            io->fn(io->owner, io, IO_TIMEOUT_WRITE);
        }
        return;
    }
    io->blocked = false;
    loop_rewatch(io->loop, &io->watch, needs(io));
    if (io->fin)
        send_fin(io);
    io->fn(io->owner, io, IO_DRAINED);
}

bool io_write(struct io *io, const struct iovec *iov, int n, bool more)
{
    assert(n <= IO_PIECES_MAX && !io->closed && !io->fin);
    if (io->broken)
        return false;
    more |= io->held;
    if (!more && !io->connecting && !io->blocked)
        return transmit(io, iov, n, false);
    return queue(io, iov, n, 0) && (more || io_flush(io));
}

bool io_write_str(struct io *io, struct str s, bool more)
{
    struct iovec one = {.iov_base = (char *)s.p, .iov_len = s.n};
    return io_write(io, &one, 1, more);
}

void io_hold(struct io *io)
{
    io->held = true;
}

bool io_flush(struct io *io)
{
    io->held = false;
    if (io->closed || io->broken || io->blocked || io->unsent.len == 0)
        return !io->broken;
    if (!io->connecting)
        return transmit(io, NULL, 0, false);
    io_block(io);
    return !io->broken;
}

void io_shutdown_write(struct io *io)
{
    if (io->fin || !io_flush(io))
        return;
    io->fin = true;
    if (io->unsent.len == 0 && !io->connecting)
        send_fin(io);
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
        send_fin(io);
    io->fn(io->owner, io, IO_CONNECTED);
    /* What was written before now leaves together with what the handler has just written. */
    if (!io->closed && !io->broken && io->blocked)
        on_writable(io);
    if (!io->closed && !io->broken)
        loop_rewatch(io->loop, &io->watch, needs(io));
}

static void on_ready(struct watch *w, unsigned ready)
{
    struct io *io = container_of(w, struct io, watch);
    unsigned needed = needs(io);
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
        on_writable(io);
    /* What is kept comes first: else it would grow with each pause of a handler that takes little at a time. */
    bool kept_first = io->reread && io->in.len > 0;
    if ((ready & LOOP_READ) && !io->closed && needs_read(io) && !kept_first)
        on_readable(io);
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
    timer_init(&io->timer, on_timer);
    posted_init(&io->posted, tell_due);
    return io;
}

/* Takes `fd`, watched as the endpoint needs it, or closes it and returns NULL with errno. */
static struct io *open_io(struct loop *l, int fd, bool connecting, io_fn *fn, void *owner)
{
    struct io *io = new_io(l, fd, fn, owner);
    int error = ENOMEM;
    if (io) {
        io->connecting = connecting;
        if (loop_watch(l, &io->watch, needs(io))) {
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
    end(io, sock_reset);
}

/* --- what the owner sets and asks ------------------------------------------------------------------------------- */

void io_set_owner(struct io *io, io_fn *fn, void *owner)
{
    io->fn = fn;
    io->owner = owner;
    io->direct = false;
    io_set_patient(io, false);
}

void io_set_sipping(struct io *io, bool on)
{
    io->sips = on;
}

void io_set_direct(struct io *io, bool on)
{
    io->direct = on;
}

char *io_data(struct io *io, size_t *n)
{
    *n = io->in.len;
    return buf_bytes(&io->in);
}

void io_consume(struct io *io, size_t n)
{
    assert(n <= io->in.len);
    buf_consume(&io->in, n);
}

void io_pause(struct io *io)
{
    io->paused = true;
}

void io_resume(struct io *io)
{
    if (io->paused && io->read_progress) {
        io->read.since = loop_now(io->loop);
        start_pace(io, &io->read_pace);
    }
    io->paused = false;
    io->reread = io->in.len > 0;
    if (io->reread || (io->eof && !io->eof_told))
        loop_post(io->loop, &io->posted);
    ask(io);
    set_timer(io);
}

bool io_is_paused(const struct io *io)
{
    return io->paused;
}

void io_await_hangup(struct io *io)
{
    if (!io->watch.registered && !io->broken && !loop_watch(io->loop, &io->watch, needs(io)))
        io_fail(io, errno);
}

void io_set_patient(struct io *io, bool on)
{
    io->patient = on;
    if (!on && !io->fresh && !io->watch.registered)
        ask(io);
}

size_t io_unread(const struct io *io)
{
    return io->in.len;
}

bool io_has_unread(const struct io *io)
{
    return io->in.len > 0;
}

bool io_is_sent_to(const struct io *io)
{
    bool unseen = !io->watch.registered && !io->paused && !io->eof && !io->broken;
    return io->in.len > 0 || (unseen && !sock_is_quiet(io->watch.fd));
}

bool io_is_eof(const struct io *io)
{
    return io->eof;
}

size_t io_unsent(const struct io *io)
{
    return io->unsent.len;
}

bool io_is_full(const struct io *io)
{
    return io->unsent.len >= IO_HIGH_WATER && !io->held;
}

uint64_t io_bytes_out(const struct io *io)
{
    return io->bytes_out;
}

void io_set_read_timeout(struct io *io, enum io_deadline kind, uint64_t ns)
{
    io->read = (struct deadline){.since = loop_now(io->loop), .span = ns};
    io->read_progress = kind == IO_PROGRESS;
    start_pace(io, &io->read_pace);
    (void)keep_pace(io, &io->read_pace, io->in.len); /* what is here already, has come */
    set_timer(io);
}

void io_set_write_timeout(struct io *io, uint64_t ns)
{
    io->write = (struct deadline){.since = loop_now(io->loop), .span = ns};
    set_timer(io);
}

void io_set_min_rate(struct io *io, bool on)
{
    io->paced = on;
    start_pace(io, &io->read_pace);
    start_pace(io, &io->write_pace);
}

int io_errno(const struct io *io)
{
    return io->error;
}

bool io_is_quiet(const struct io *io)
{
    return !io->broken && !io->eof && io->in.len == 0 && sock_is_quiet(io->watch.fd);
}

int io_local_addr(const struct io *io, struct addr *out)
{
    return sock_local_addr(io->watch.fd, out);
}

int io_descriptor(const struct io *io)
{
    return io->watch.fd;
}

bool io_feed(struct io *io, struct str bytes)
{
    if (!buf_append_str(&io->in, bytes))
        return false;
    io->reread = io->in.len > 0;
    if (io->reread)
        loop_post(io->loop, &io->posted);
    return true;
}

struct loop *io_loop(const struct io *io)
{
    return io->loop;
}

size_t io_count(void)
{
    return count;
}
