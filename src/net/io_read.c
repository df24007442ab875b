/* How an endpoint reads: one recv() an event into the loop's scratch buffer, which the handler sees; what it leaves is
 * kept. */
#include "io_impl.h"
#include "net/sock.h"

#include <assert.h>
#include <errno.h>

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

void io_tell_readable(struct io *io)
{
    io->reread = false;
    io->fn(io->owner, io, IO_READABLE);
    if (io->closed)
        return;
    keep_rest(io);
    io_ask(io);
}

void io_note_received(struct io *io, size_t n)
{
    if (!io->read_progress)
        return;
    uint64_t rest = loop_now(io->loop) - io->read.since;
    io->read.since = loop_now(io->loop);
    io->late = !io_keep_pace(io, &io->read_pace, io->read.span, rest, n) && io->read.span > 0;
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

/* After the handler has had the bytes: with them, what it waited for may be complete, and then it has set another
 * deadline. */
static void tell_late(struct io *io)
{
    if (!io->late || io->closed)
        return;
    io->late = false;
    io->read.span = 0;
    io->fn(io->owner, io, IO_TIMEOUT_READ);
}

/* One recv(). Returns what it did. */
static ssize_t receive(struct io *io)
{
    char *scratch = loop_scratch(io->loop);
    ssize_t n = sock_recv(io->watch.fd, scratch, io->sips ? IO_SIP : LOOP_SCRATCH_SIZE);
    if (n > 0 && !take_in(io, scratch, (size_t)n))
        io_fail(io, ENOMEM);
    return n;
}

void io_tell_received(struct io *io)
{
    io->received = false;
    if (io->in.len > 0 && !io->paused) {
        io_tell_readable(io);
        tell_late(io);
    } else {
        keep_rest(io);
    }
}

/* Asks the owner first whether it moves what is waiting. True when it has, or has closed. */
static bool is_moved(struct io *io)
{
    if (!io->direct || io->in.len > 0)
        return false;
    io->relayed = false;
    io->fn(io->owner, io, IO_WAITING);
    tell_late(io);
    return io->relayed || io->closed;
}

/* The handler is called in the next pass: until then its own memory can come into the caches, while the kernel is busy
 * with others' bytes. With 1,000 connections and more most of it is in none of them. */
static void fetch_owner(const struct io *io)
{
    const size_t line = 64, lines = 4;
    for (size_t i = 0; i < lines; i++)
        __builtin_prefetch((const char *)io->owner + i * line);
}

void io_on_readable(struct io *io)
{
    if (is_moved(io))
        return;
    ssize_t n = receive(io);
    if (n <= 0) {
        io_note_nothing(io, n);
        return;
    }
    if (io->lent)
        loop_lend(io->loop, (size_t)n);
    fetch_owner(io);
    io->received = true;
    io_stage(io);
}

/* The other end can add nothing, so the receive buffer bounds it. */
void io_salvage(struct io *io)
{
    while (io->salvage && !io->closed && !io->paused && !io->eof && io->in.len <= IO_KEPT_MAX && receive(io) > 0)
        io_tell_received(io);
}

/* --- what the owner takes, sets and asks ------------------------------------------------------------------------ */

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
        io_start_pace(io, &io->read_pace);
    }
    io->paused = false;
    io->reread = io->in.len > 0;
    if (io->reread || (io->eof && !io->eof_told))
        loop_post(io->loop, &io->posted);
    io_ask(io);
    io_set_timer(io);
}

void io_read_later(struct io *io)
{
    assert(!io->paused && io->in.len > 0);
    io->reread = true;
    loop_post(io->loop, &io->posted);
}

bool io_is_paused(const struct io *io)
{
    return io->paused;
}

size_t io_unread(const struct io *io)
{
    return io->in.len;
}

bool io_has_unread(const struct io *io)
{
    return io->in.len > 0;
}

bool io_is_eof(const struct io *io)
{
    return io->eof;
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
