/* Pipes of the daemon's own, and splice() between them and its sockets. */
#include "calls.h"
#include "kernel.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#define ROOM      65536u
#define ROOM_MOST (1024u * 1024u)

struct pipe {
    struct bytes data;
    size_t room;
    bool closed[2];
};

struct pipe_end {
    struct file file;
    struct pipe *pipe;
    bool writes;
};

/* Of the run: this kernel has no splice(), or not for such sockets; it gives no larger pipes. */
static bool no_splice, no_large;

void pipes_begin(void)
{
    struct rng r = rng_of("pipes", 0);
    no_splice = rng_chance(&r, 60);
    no_large = rng_chance(&r, 300);
}

static uint32_t end_ready(struct file *f)
{
    const struct pipe_end *e = (const struct pipe_end *)f;
    const struct pipe *p = e->pipe;
    if (e->writes)
        return (p->data.len < p->room ? (uint32_t)EPOLLOUT : 0) | (p->closed[0] ? (uint32_t)EPOLLERR : 0);
    return (p->data.len > 0 ? (uint32_t)EPOLLIN : 0) | (p->closed[1] ? (uint32_t)EPOLLHUP : 0);
}

static size_t some_of(size_t n)
{
    return n > 1 && fault(kernel.faults.short_read) ? 1 + call_draw(n - 1) : n;
}

static ssize_t end_read(struct file *f, void *p, size_t n)
{
    const struct pipe_end *e = (const struct pipe_end *)f;
    struct bytes *data = &e->pipe->data;
    if (e->writes)
        return -EBADF;
    if (data->len == 0 && e->pipe->closed[1])
        return 0;
    if (data->len == 0 && !(f->flags & O_NONBLOCK))
        sim_fail("blocking", "a read of an empty pipe that would wait");
    if (data->len == 0)
        return -EAGAIN;
    size_t take = some_of(n < data->len ? n : data->len);
    memcpy(p, bytes_at(data), take);
    bytes_drop(data, take);
    return (ssize_t)take;
}

static ssize_t end_refuse(struct file *f, const void *p, size_t n)
{
    (void)f;
    (void)p;
    (void)n;
    sim_fail("kernel", "write() to a pipe of the daemon's own is not simulated");
}

static void end_close_file(struct file *f)
{
    struct pipe_end *e = (struct pipe_end *)f;
    e->pipe->closed[e->writes] = true;
    if (e->pipe->closed[0] && e->pipe->closed[1]) {
        bytes_free(&e->pipe->data);
        free(e->pipe);
    }
    free(e);
}

static const struct file_ops end_ops = {"own pipe", end_ready, end_read, end_refuse, end_close_file};

static int end_install(struct pipe *p, bool writes, int flags)
{
    struct pipe_end *e = zalloc(sizeof *e);
    e->pipe = p;
    e->writes = writes;
    file_init(&e->file, &end_ops, (writes ? O_WRONLY : O_RDONLY) | flags);
    return fd_install(&e->file);
}

unsigned pipe_ends_open(void)
{
    unsigned n = 0;
    for (int fd = 0; fd < FDS_MAX; fd++) {
        const struct file *f = fd_file(fd);
        n += f && f->ops == &end_ops;
    }
    return n;
}

static int make_pipe(int fds[2], int flags)
{
    struct pipe *p = zalloc(sizeof *p);
    p->room = ROOM;
    fds[0] = end_install(p, false, flags);
    if (fds[0] < 0) {
        free(p);
        return -EMFILE;
    }
    fds[1] = end_install(p, true, flags);
    if (fds[1] >= 0)
        return 0;
    fd_close(fds[0]);
    return -EMFILE;
}

int sim_pipe2(int fds[2], int flags)
{
    syscall_begin("pipe2", flags, 0);
    fd_check_flags("pipe2", flags);
    int e = fd_fault(), made[2] = {-1, -1};
    if (e == 0)
        e = make_pipe(made, flags);
    if (e == 0)
        memcpy(fds, made, sizeof made);
    return (int)syscall_end("pipe2", e);
}

static struct pipe_end *end_of(int fd)
{
    struct file *f = fd_need(fd, "splice");
    return f->ops == &end_ops ? (struct pipe_end *)f : NULL;
}

int pipe_set_size(int fd, int size)
{
    struct pipe_end *e = end_of(fd);
    if (!e)
        return -EBADF;
    if (no_large || size < 0 || (unsigned)size > ROOM_MOST)
        return -EPERM;
    e->pipe->room = (size_t)size;
    return size;
}

/* From a socket; the pipe's room counts. */
static ssize_t fill(struct pipe_end *to, int from, size_t n)
{
    static char piece[ROOM_MOST];
    struct pipe *p = to->pipe;
    size_t room = p->room - p->data.len;
    n = n < room ? n : room;
    if (n == 0)
        return -EAGAIN;
    ssize_t got = stream_receive(from, piece, n);
    if (got > 0)
        bytes_add(&p->data, piece, (size_t)got);
    return got;
}

static ssize_t empty(const struct pipe_end *from, int to, size_t n)
{
    struct bytes *data = &from->pipe->data;
    n = n < data->len ? n : data->len;
    if (n == 0)
        return -EAGAIN;
    ssize_t sent = stream_send(to, bytes_at(data), n);
    if (sent == -EPIPE && !signals_ignored(SIGPIPE))
        sim_fail("signals", "a splice() to a socket that is closed, and SIGPIPE kills the process");
    if (sent > 0)
        bytes_drop(data, (size_t)sent);
    return sent;
}

ssize_t sim_splice(int from, off_t *from_at, int to, off_t *to_at, size_t n, unsigned flags)
{
    syscall_begin("splice", from, to);
    const struct pipe_end *out = end_of(from);
    struct pipe_end *in = end_of(to);
    if (from_at || to_at || !(flags & SPLICE_F_NONBLOCK) || !out == !in || n == 0)
        sim_fail("kernel", "a use of splice that is not simulated");
    ssize_t r = no_splice                    ? (call_draw(2) ? -EINVAL : -ENOSYS)
                : fault(kernel.faults.eintr) ? -EINTR
                : in                         ? fill(in, from, n)
                                             : empty(out, to, n);
    if (r > 0 || (r < 0 && r != -EAGAIN && r != -EINTR))
        syscall_progress();
    return syscall_end("splice", r);
}
