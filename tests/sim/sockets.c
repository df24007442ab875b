/* The daemon's sockets: the system calls on them, with Linux's answers (socket(7), tcp(7), unix(7)). */
#include "net_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

static bool is_writable(const struct end *e)
{
    if (e->conn->local) /* unix_writable() of Linux */
        return end_room(e) >= e->tx_room - e->tx_room / 4;
    return e->reset_in || e->fin_sent || (end_room(e) > 0 && end_room(e) >= e->tx_room / 3);
}

static uint32_t stream_ready(const struct sock *s)
{
    const struct end *e = s->end;
    uint32_t ready = 0;
    if (s->state == SOCK_CONNECTING)
        return 0;
    if (e->rx.len > 0 || e->fin_in || e->reset_in || e->error)
        ready |= EPOLLIN;
    if (is_writable(e))
        ready |= EPOLLOUT;
    if (e->error)
        ready |= EPOLLERR;
    if (e->fin_in || e->reset_in)
        ready |= EPOLLRDHUP;
    if (e->reset_in || e->peer_closed || (e->fin_in && e->fin_sent))
        ready |= EPOLLHUP;
    return ready;
}

static uint32_t sock_ready(struct file *f)
{
    const struct sock *s = (const struct sock *)f;
    switch (s->state) {
    case SOCK_NEW: return EPOLLHUP | EPOLLOUT;
    case SOCK_LISTENS: return s->queue.count > 0 ? (uint32_t)EPOLLIN : 0;
    default: return stream_ready(s);
    }
}

static void stop_listening(struct sock *s)
{
    struct sock **at = &net.listeners;
    while (*at != s)
        at = &(*at)->next;
    *at = s->next;
    for (unsigned i = 0; i < s->queue.count; i++) {
        s->queue.conns[i]->left = true;
        close_end(&s->queue.conns[i]->end[1], true);
    }
}

static void sock_close_file(struct file *f)
{
    struct sock *s = (struct sock *)f;
    if (s->state == SOCK_LISTENS)
        stop_listening(s);
    if (s->end) {
        syscall_progress();
        if (s->accepted)
            net.accepted_open--;
        else
            net.made_open--;
        s->end->sock = NULL;
        close_end(s->end, s->linger_reset && can_reset(s->end));
    }
    free(s);
}

static ssize_t sock_read(struct file *f, void *p, size_t n)
{
    (void)f;
    (void)p;
    (void)n;
    sim_fail("kernel", "read() of a socket is not simulated");
}

static ssize_t sock_write(struct file *f, const void *p, size_t n)
{
    (void)f;
    (void)p;
    (void)n;
    sim_fail("kernel", "write() to a socket is not simulated");
}

static const struct file_ops sock_ops = {"socket", sock_ready, sock_read, sock_write, sock_close_file};

static struct sock *need_sock(int fd, const char *call)
{
    struct file *f = fd_need(fd, call);
    if (f->ops != &sock_ops)
        sim_fail("kernel", "%s on %d, which is a %s", call, fd, f->ops->name);
    return (struct sock *)f;
}

static int descriptor_fault(void)
{
    int e = fd_fault();
    if (e || !fault_rarely_at_start(&kernel.faults.enobufs, 8))
        return e;
    kernel.shown.descriptors++;
    return call_draw(2) ? -ENOBUFS : -ENOMEM;
}

static int sock_new(struct sock **out)
{
    struct sock *s = zalloc(sizeof *s);
    file_init(&s->file, &sock_ops, O_RDWR | O_NONBLOCK);
    int fd = fd_install(&s->file);
    *out = fd < 0 ? NULL : s;
    return fd;
}

int sim_socket(int family, int type, int protocol)
{
    (void)protocol;
    syscall_begin("socket", family, type);
    if (!(type & SOCK_NONBLOCK) || !(type & SOCK_CLOEXEC))
        sim_fail("blocking", "a socket is made that blocks or is inherited");
    struct sock *s;
    int e = descriptor_fault(), fd = e ? e : sock_new(&s);
    return (int)syscall_end("socket", fd);
}

bool unix_file_exists(const char *path)
{
    for (unsigned i = 0; i < 8; i++)
        if (strcmp(net.unix_files[i], path) == 0 && *path)
            return true;
    return false;
}

bool unix_file_remove(const char *path)
{
    for (unsigned i = 0; i < 8; i++)
        if (strcmp(net.unix_files[i], path) == 0 && *path) {
            net.unix_files[i][0] = '\0';
            return true;
        }
    return false;
}

unsigned unix_files(void)
{
    unsigned n = 0;
    for (unsigned i = 0; i < 8; i++)
        n += net.unix_files[i][0] != '\0';
    return n;
}

static void unix_file_make(const char *path)
{
    for (unsigned i = 0; i < 8; i++)
        if (!net.unix_files[i][0]) {
            copy_path(net.unix_files[i], path);
            return;
        }
    sim_fail("kernel", "more files of unix sockets than are simulated");
}

int sim_bind(int fd, const struct sockaddr *a, socklen_t n)
{
    (void)n;
    syscall_begin("bind", fd, a->sa_family);
    struct sock *s = need_sock(fd, "bind");
    if (start_fault())
        return (int)syscall_end("bind", call_draw(2) ? -EACCES : -EADDRNOTAVAIL);
    s->at = from_kernel(a);
    const struct sock *there = find_listener(&s->at);
    if (s->at.family == AF_UNIX ? unix_file_exists(s->at.path) : there && !(there->reuse_port && s->reuse_port))
        return (int)syscall_end("bind", -EADDRINUSE);
    if (s->at.family == AF_UNIX)
        unix_file_make(s->at.path);
    return (int)syscall_end("bind", 0);
}

/* Of a unix socket's file, before it listens. */
int sim_fchmodat(int at, const char *path, mode_t mode, int flags)
{
    syscall_begin("fchmodat", at, mode);
    if (at != AT_FDCWD || flags != AT_SYMLINK_NOFOLLOW || !unix_file_exists(path))
        sim_fail("kernel", "a use of fchmodat that is not simulated");
    return (int)syscall_end("fchmodat", start_fault() ? -EPERM : 0);
}

int sim_listen(int fd, int backlog)
{
    syscall_begin("listen", fd, backlog);
    struct sock *s = need_sock(fd, "listen");
    if (start_fault())
        return (int)syscall_end("listen", -EADDRINUSE);
    s->queue.backlog = (unsigned)backlog < net.somaxconn ? (unsigned)backlog : net.somaxconn;
    s->state = SOCK_LISTENS;
    s->next = net.listeners;
    net.listeners = s;
    return (int)syscall_end("listen", 0);
}

static struct conn *take_first(struct sock *s)
{
    struct conn *c = s->queue.conns[0];
    memmove(s->queue.conns, s->queue.conns + 1, --s->queue.count * sizeof(struct conn *));
    return c;
}

/* What accept() may say although a connection waits: a firewall forbids it, or something has happened to it
 * (accept(2)), and then it is gone. */
static int accept_error(struct sock *s)
{
    static const int errors[] = {EPERM, ECONNABORTED, EPROTO, EHOSTUNREACH, ETIMEDOUT};
    int e = errors[call_draw(sizeof errors / sizeof errors[0])];
    kernel.shown.descriptors++;
    if (e == EPERM)
        return -EPERM;
    close_end(&take_first(s)->end[1], true);
    syscall_progress();
    return -e;
}

static int accept_conn(struct sock *s, struct sockaddr *a, socklen_t *n)
{
    struct sock *accepted;
    int fd = sock_new(&accepted);
    if (fd < 0)
        return fd;
    struct conn *c = take_first(s);
    struct end *e = &c->end[1];
    struct sim_addr from = c->from;
    if (from.family == AF_UNIX) {
        a->sa_family = AF_UNIX;
        *n = sizeof(sa_family_t);
    } else {
        to_kernel(&from, a, n);
    }
    accepted->state = SOCK_STREAM_OPEN;
    accepted->accepted = true;
    accepted->end = e;
    e->sock = accepted;
    trace_text("conn %llu is fd %d", (unsigned long long)c->id, fd);
    net.accepted_open++;
    if (net.accepted_open > net.crowd)
        net.crowded_at = sim_now();
    return fd;
}

/* Linux looks for a descriptor first, and for a connection after that. */
static int accept_now(struct sock *s, struct sockaddr *a, socklen_t *n)
{
    int e = process.open_fds >= fd_get_limit() ? -EMFILE : descriptor_fault();
    if (e)
        return e;
    if (s->queue.count == 0)
        return -EAGAIN;
    return fault(kernel.faults.accept_error) ? accept_error(s) : accept_conn(s, a, n);
}

int sim_accept4(int fd, struct sockaddr *a, socklen_t *n, int flags)
{
    syscall_begin("accept4", fd, flags);
    if (!(flags & SOCK_NONBLOCK) || !(flags & SOCK_CLOEXEC))
        sim_fail("blocking", "a socket is accepted that blocks or is inherited");
    struct sock *s = need_sock(fd, "accept4");
    if (fault(kernel.faults.eintr))
        return (int)syscall_end("accept4", -EINTR);
    int r = accept_now(s, a, n);
    if (r >= 0)
        syscall_progress();
    return (int)syscall_end("accept4", r);
}

/* ---- the daemon connects ---- */

static void connected(struct conn *c)
{
    struct end *e = &c->end[0];
    c->connected = true;
    e->sock->state = SOCK_STREAM_OPEN;
    syscall_progress();
    trace("connected conn", (int64_t)c->id, 0, 0);
    end_changed(e);
}

/* The socket is then as one that was reset: the error is told once, and it stays hung up for ever. */
static void connect_failed(struct conn *c, int error)
{
    c->end[1].closed = true;
    c->end[0].error = error;
    c->end[0].reset_in = true;
    c->end[0].sock->state = SOCK_STREAM_OPEN;
    trace("connect-fails conn errno", (int64_t)c->id, error, 0);
    end_changed(&c->end[0]);
}

/* The daemon's connection request arrives. */
static void on_daemon_syn(struct event *event)
{
    struct end *e = (struct end *)(void *)((char *)event - offsetof(struct end, deliver));
    struct conn *c = e->conn;
    event_init(&e->deliver, on_deliver);
    struct host *h = find_host(&c->to);
    if (e->closed) {
        c->end[1].closed = true;
        conn_free_if_done(c);
    } else if (!h || h->mode == HOST_REFUSES) {
        connect_failed(c, ECONNREFUSED);
    } else if (h->mode == HOST_UNREACHABLE) {
        connect_failed(c, EHOSTUNREACH);
    } else if (h->mode == HOST_ACCEPTS) {
        connected(c);
        h->on_accept(h->owner, &c->end[1]);
    } else {
        c->end[1].closed = true; /* it stays in the air until the daemon gives it up */
    }
}

static int begin_connect(struct sock *s, const struct sim_addr *to)
{
    if (to->family != AF_UNIX && fault(kernel.faults.connect_fail)) {
        kernel.shown.connect++;
        return call_draw(2) ? -ENETUNREACH : -EADDRNOTAVAIL;
    }
    struct host *h = find_host(to);
    if (to->family == AF_UNIX && (!h || h->mode != HOST_ACCEPTS))
        return h && h->mode == HOST_SILENT ? -EAGAIN : unix_file_exists(to->path) || h ? -ECONNREFUSED : -ENOENT;
    struct conn *c = conn_new((struct rng){call_draw(UINT64_MAX)}, to->family == AF_UNIX);
    s->end = &c->end[0];
    s->end->sock = s;
    net.made_open++;
    s->state = SOCK_CONNECTING;
    trace("connecting conn port", (int64_t)c->id, to->port, 0);
    if (to->family == AF_UNIX) {
        connected(c);
        h->on_accept(h->owner, &c->end[1]);
        return 0;
    }
    c->to = *to;
    event_init(&s->end->deliver, on_daemon_syn);
    event_set_in(&s->end->deliver, delay_of(c) + (h ? h->slow : 0));
    return fault(kernel.faults.eintr) ? -EINTR : -EINPROGRESS;
}

int sim_connect(int fd, const struct sockaddr *a, socklen_t n)
{
    (void)n;
    syscall_begin("connect", fd, 0);
    struct sim_addr to = from_kernel(a);
    struct sock *s = need_sock(fd, "connect");
    if (s->state != SOCK_NEW)
        sim_fail("kernel", "a second connect() of a socket");
    return (int)syscall_end("connect", begin_connect(s, &to));
}

/* ---- the daemon reads and writes ---- */

static ssize_t pending_error(struct end *e)
{
    int error = e->error;
    e->error = 0;
    return -error;
}

/* Over TCP a FIN that has been received hides whatever comes behind it (SOCK_DONE of Linux). */
static ssize_t nothing_to_read(struct end *e)
{
    if (e->fin_in && !e->conn->local)
        return 0;
    if (e->error)
        return pending_error(e);
    return e->fin_in || e->reset_in ? 0 : -EAGAIN;
}

static ssize_t recv_now(struct sock *s, void *p, size_t n, int flags)
{
    struct end *e = s->end;
    if (s->state != SOCK_STREAM_OPEN)
        return s->state == SOCK_CONNECTING ? -EAGAIN : -ENOTCONN;
    if (e->rx.len == 0)
        return nothing_to_read(e);
    if (!(flags & MSG_PEEK) && fault(kernel.faults.eagain))
        return -EAGAIN;
    size_t take = n < e->rx.len ? n : e->rx.len;
    if (take > 1 && fault(kernel.faults.short_read))
        take = 1 + call_draw(take - 1);
    memcpy(p, bytes_at(&e->rx), take);
    if (flags & MSG_PEEK)
        return (ssize_t)take;
    bytes_drop(&e->rx, take);
    read_from(e);
    return (ssize_t)take;
}

ssize_t sim_recv(int fd, void *p, size_t n, int flags)
{
    syscall_begin("recv", fd, (int64_t)n);
    struct sock *s = need_sock(fd, "recv");
    ssize_t r = fault(kernel.faults.eintr) ? -EINTR : recv_now(s, p, n, flags);
    if (r > 0 && !(flags & MSG_PEEK))
        syscall_progress();
    return syscall_end("recv", r);
}

static ssize_t send_now(struct sock *s, const struct iovec *iov, size_t count, size_t all)
{
    struct end *e = s->end;
    size_t done = 0, limit = SIZE_MAX;
    if (s->state != SOCK_STREAM_OPEN)
        return s->state == SOCK_CONNECTING ? -EAGAIN : -EPIPE;
    if (e->error && !e->conn->local)
        return pending_error(e);
    if (e->reset_in || e->fin_sent || e->peer_closed)
        return -EPIPE;
    if (fault(kernel.faults.short_write))
        limit = rng_chance(&e->conn->rng, 300) ? 0 : 1 + call_draw(300);
    for (size_t i = 0; i < count && done < limit; i++) {
        size_t n = iov[i].iov_len < limit - done ? iov[i].iov_len : limit - done;
        size_t took = write_end(e, iov[i].iov_base, n);
        done += took;
        if (took < iov[i].iov_len)
            break;
    }
    return done || all == 0 ? (ssize_t)done : -EAGAIN;
}

ssize_t sim_sendmsg(int fd, const struct msghdr *m, int flags)
{
    size_t all = 0;
    for (size_t i = 0; i < m->msg_iovlen; i++)
        all += m->msg_iov[i].iov_len;
    syscall_begin("sendmsg", fd, (int64_t)all);
    if (!(flags & MSG_NOSIGNAL))
        sim_fail("signals", "a send that may raise SIGPIPE");
    struct sock *s = need_sock(fd, "sendmsg");
    ssize_t r = fault(kernel.faults.eintr) ? -EINTR : send_now(s, m->msg_iov, m->msg_iovlen, all);
    if (r > 0 || (r < 0 && r != -EAGAIN && r != -EINTR))
        syscall_progress();
    return syscall_end("sendmsg", r);
}

ssize_t sim_send(int fd, const void *p, size_t n, int flags)
{
    struct iovec iov = {(void *)(uintptr_t)p, n};
    struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};
    return sim_sendmsg(fd, &m, flags);
}

ssize_t stream_receive(int fd, void *p, size_t n)
{
    return recv_now(need_sock(fd, "splice"), p, n, 0);
}

ssize_t stream_send(int fd, const void *p, size_t n)
{
    struct iovec iov = {(void *)(uintptr_t)p, n};
    return send_now(need_sock(fd, "splice"), &iov, 1, n);
}

int sim_shutdown(int fd, int how)
{
    syscall_begin("shutdown", fd, how);
    struct sock *s = need_sock(fd, "shutdown");
    const struct end *e = s->end;
    bool over = e && (e->reset_in || (e->fin_in && e->fin_gone)) && !e->conn->local;
    if (!e || s->state != SOCK_STREAM_OPEN || over)
        return (int)syscall_end("shutdown", -ENOTCONN);
    finish_end(s->end);
    end_changed(s->end);
    return (int)syscall_end("shutdown", 0);
}

int sim_setsockopt(int fd, int level, int option, const void *value, socklen_t n)
{
    syscall_begin("setsockopt", fd, option);
    struct sock *s = need_sock(fd, "setsockopt");
    struct linger l;
    if (level == SOL_SOCKET && option == SO_LINGER && n == sizeof l) {
        memcpy(&l, value, sizeof l);
        s->linger_reset = l.l_onoff && l.l_linger == 0;
    } else if (level == SOL_SOCKET && option == SO_REUSEPORT) {
        s->reuse_port = *(const int *)value != 0;
    }
    return (int)syscall_end("setsockopt", 0);
}

int sim_ioctl(int fd, unsigned long request, ...)
{
    syscall_begin("ioctl", fd, (int)request);
    struct sock *s = need_sock(fd, "ioctl");
    if (request != SIOCOUTQ || !s->end)
        sim_fail("kernel", "a use of ioctl that is not simulated");
    va_list ap;
    va_start(ap, request);
    *va_arg(ap, int *) = (int)end_unacked(s->end);
    va_end(ap);
    return (int)syscall_end("ioctl", 0);
}

int sim_getsockopt(int fd, int level, int option, void *value, socklen_t *n)
{
    syscall_begin("getsockopt", fd, option);
    struct sock *s = need_sock(fd, "getsockopt");
    if (level != SOL_SOCKET || option != SO_ERROR || !s->end)
        sim_fail("kernel", "a use of getsockopt that is not simulated");
    int error = s->end->error;
    s->end->error = 0;
    memcpy(value, &error, sizeof error);
    *n = sizeof error;
    return (int)syscall_end("getsockopt", 0);
}

int sim_getsockname(int fd, struct sockaddr *a, socklen_t *n)
{
    syscall_begin("getsockname", fd, 0);
    to_kernel(&need_sock(fd, "getsockname")->at, a, n);
    return (int)syscall_end("getsockname", 0);
}
