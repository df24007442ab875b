/* Bytes that go from one endpoint to another past this process: splice(2) moves them from socket to pipe and from pipe
 * to socket, and what is moved are references to the kernel's pages.
 *
 *      from's socket --splice--> pipe --splice--> to's socket
 *                                 \-----read----> to's unsent bytes, where the socket takes no more
 *
 * The pipe is empty between two calls: so one is enough for all endpoints of the process, a receiver that stalls holds
 * none, and all that io.c says about unsent bytes holds for these, too. It is made when it is first needed, and closed
 * with the last endpoint. Where none can be had, bytes are received and written as ever. */
#include "io_impl.h"
#include "net/sock.h"

#include <errno.h>

#define RELAY_PIECE (IO_HIGH_WATER + LOOP_SCRATCH_SIZE) /* moved at a time: so much may join the unsent bytes */

/* Each piece of a page takes a place in it, and a network's packets are smaller than pages. */
#define PIPE_SIZE (2 * RELAY_PIECE)

static int ends[2] = {-1, -1}; /* of the pipe: to read from, to write to */
static bool unfit;             /* this system moves nothing this way */

void relay_close_pipe(void)
{
    for (unsigned i = 0; i < 2; i++) {
        if (ends[i] >= 0)
            sock_close(ends[i]);
        ends[i] = -1;
    }
}

static bool open_pipe(void)
{
    return ends[0] >= 0 || (!unfit && sock_pipe(ends, PIPE_SIZE) == 0);
}

/* What comes now must be next in line, and the socket must take some of it, as far as is known. */
static bool takes_more(const struct io *to)
{
    return !to->connecting && !to->blocked && !to->broken;
}

/* Puts the `n` bytes that are still in the pipe to the unsent ones. */
static void keep_rest(struct io *to, size_t n)
{
    if (!buf_reserve(&to->unsent, n) || sock_read_pipe(ends[0], buf_tail(&to->unsent), n) != (ssize_t)n) {
        relay_close_pipe();
        io_fail(to, ENOMEM);
        return;
    }
    buf_added(&to->unsent, n);
    io_block(to);
}

static void forward(struct io *to, size_t n)
{
    if (to->unsent.len > 0 && !io_send_unsent(to)) {
        relay_close_pipe();
        return;
    }
    if (to->blocked) {
        keep_rest(to, n);
        return;
    }
    ssize_t sent = sock_splice(ends[0], to->watch.fd, n);
    if (sent == -EAGAIN)
        sent = 0;
    if (sent < 0) {
        relay_close_pipe(); /* and what is in it */
        io_fail_sending(to, (int)-sent);
        return;
    }
    to->bytes_out += (uint64_t)sent;
    if ((size_t)sent < n)
        keep_rest(to, n - (size_t)sent);
}

/* From `from` into the pipe; 0 when there is nothing or it cannot be. */
static size_t fill(struct io *from, uint64_t max)
{
    ssize_t n = sock_splice(from->watch.fd, ends[1], max < RELAY_PIECE ? (size_t)max : RELAY_PIECE);
    if (n == -EINVAL || n == -ENOSYS || n == -EPERM) { /* no such call, or not of such sockets */
        unfit = true;
        relay_close_pipe();
        return 0;
    }
    from->relayed = true;
    if (n <= 0) {
        io_note_nothing(from, n);
        return 0;
    }
    io_note_received(from, (size_t)n);
    return (size_t)n;
}

size_t io_relay(struct io *from, struct io *to, uint64_t max)
{
    assert(from->direct && from->in.len == 0 && !from->closed && !to->closed && !to->fin && max > 0);
    size_t n = takes_more(to) && open_pipe() ? fill(from, max) : 0;
    to->held = false;
    if (n > 0)
        forward(to, n);
    else
        (void)io_flush(to); /* broken, it tells so itself */
    return n;
}
