/* How an endpoint writes: straight to the kernel; what that refuses is kept in order, and sent when the socket drains,
 * the end behind it. */
#include "io_impl.h"
#include "net/sock.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#define JOINED_MAX   1024u
#define DEFERRED_MAX 4096u

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
    io_start_pace(io, &io->write_pace);
    io_ask(io);
    io_set_timer(io);
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

/* Copies the pieces one behind the other. */
static struct iovec join(const struct iovec *v, int n, char *room)
{
    char *at = room;
    for (int i = 0; i < n; i++) {
        memcpy(at, v[i].iov_base, v[i].iov_len);
        at += v[i].iov_len;
    }
    return (struct iovec){.iov_base = room, .iov_len = (size_t)(at - room)};
}

/* Sends what is unsent, and the pieces behind it, in one call. */
static bool transmit(struct io *io, const struct iovec *iov, int n, bool more)
{
    char room[JOINED_MAX];
    struct iovec one, all_pieces[IO_PIECES_MAX + 1];
    const struct iovec *v = iov;
    size_t all = io->unsent.len + total(iov, n);
    int pieces = n;
    if (io->unsent.len > 0) {
        all_pieces[0] = (struct iovec){.iov_base = buf_bytes(&io->unsent), .iov_len = io->unsent.len};
        for (int i = 0; i < n; i++)
            all_pieces[i + 1] = iov[i];
        v = all_pieces;
        pieces = n + 1;
    }
    /* To copy short pieces together costs less than to have the kernel fetch more than one. A small response goes so:
     * its head is unsent, its content comes behind. */
    if (pieces > 1 && all <= sizeof room) {
        one = join(v, pieces, room);
        v = &one;
        pieces = 1;
    }
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
    io->deferred = false;
    return true;
}

bool io_send_unsent(struct io *io)
{
    return transmit(io, NULL, 0, true);
}

void io_send_fin(struct io *io)
{
    /* Its failure says that the connection is gone: reading tells that. */
    (void)sock_shutdown_write(io->watch.fd);
}

void io_on_writable(struct io *io)
{
    uint64_t before = io->bytes_out, rest = loop_now(io->loop) - io->write.since;
    if (!transmit(io, NULL, 0, false))
        return;
    if (io->unsent.len > 0) {
        size_t n = (size_t)(io->bytes_out - before);
        if (n > 0 && !io_keep_pace(io, &io->write_pace, io->write.span, rest, n) && io->write.span > 0) {
            io->write.span = 0;
            io->fn(io->owner, io, IO_TIMEOUT_WRITE);
        }
        return;
    }
    io->blocked = false;
    loop_rewatch(io->loop, &io->watch, io_needs(io));
    if (io->fin)
        io_send_fin(io);
    io->fn(io->owner, io, IO_DRAINED);
}

void io_send_deferred(struct io *io)
{
    io->deferred = false;
    if (io->broken || io->blocked)
        return;
    io->drained = transmit(io, NULL, 0, false) && !io->blocked;
}

static bool may_defer(const struct io *io, const struct iovec *iov, int n)
{
    size_t all = io->unsent.len + total(iov, n);
    return io->defers && io->in.len == 0 && all > 0 && all <= DEFERRED_MAX;
}

/* --- what the owner writes and asks ----------------------------------------------------------------------------- */

bool io_write(struct io *io, const struct iovec *iov, int n, bool more)
{
    assert(n <= IO_PIECES_MAX && !io->closed && !io->fin);
    if (io->broken)
        return false;
    more |= io->held;
    io->drained = false; /* of what was written before: it is this, now, that the owner waits for, if for any */
    if (more || io->connecting || io->blocked)
        return queue(io, iov, n, 0) && (more || io_flush(io));
    if (!may_defer(io, iov, n))
        return transmit(io, iov, n, false);
    if (!queue(io, iov, n, 0))
        return false;
    io->deferred = true;
    io_stage(io);
    return true;
}

bool io_write_str(struct io *io, struct str s, bool more)
{
    struct iovec one = {.iov_base = (char *)s.p, .iov_len = s.n};
    return io_write(io, &one, 1, more);
}

void io_set_deferring(struct io *io, bool on)
{
    io->defers = on;
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
        io_send_fin(io);
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
