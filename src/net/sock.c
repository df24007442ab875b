/* Sockets: the system calls, restarted on EINTR, with errno turned into a negative result. No policy lives here but
 * what every socket of the daemon shares: non-blocking, close-on-exec, no Nagle delay, no SIGPIPE. */
#include "net/sock.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define PORT_TEXT_SIZE 6
#define UNIX_MODE      0666 /* of the file: who is to be kept out is kept out by its folder */

static int new_socket(int family)
{
    int fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    return fd < 0 ? -errno : fd;
}

static int set_option(int fd, int level, int option, int value)
{
    return setsockopt(fd, level, option, &value, sizeof value) < 0 ? -errno : 0;
}

/* Closes `fd` and hands on the error that made it useless. */
static int close_with(int fd, int error)
{
    sock_close(fd);
    return error;
}

static bool is_v6_any(const struct addr *a)
{
    struct sockaddr_in6 in6;
    if (a->sa.sa_family != AF_INET6)
        return false;
    memcpy(&in6, &a->ss, sizeof in6);
    return IN6_IS_ADDR_UNSPECIFIED(&in6.sin6_addr);
}

static struct addr v4_any(const struct addr *at)
{
    struct peer peer = peer_from_addr(at);
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(peer.port)};
    struct addr a = {.len = sizeof in};
    memcpy(&a.ss, &in, sizeof in);
    return a;
}

/* Without a bound the kernel takes megabytes of unsent bytes, and says that there is room again only when a third of
 * them has gone: whoever reads slowly then seems to take nothing for minutes. */
#define NOT_SENT_MAX (128 * 1024)

static int prepare_tcp(int fd)
{
    int rc = set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    return rc < 0 ? rc : set_option(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, NOT_SENT_MAX);
}

/* What is accepted inherits what prepare_tcp() sets. */
static int prepare_tcp_listener(int fd, const struct addr *at)
{
    int rc = set_option(fd, SOL_SOCKET, SO_REUSEADDR, 1);
    if (rc == 0)
        rc = prepare_tcp(fd);
    if (rc == 0 && is_v6_any(at))
        rc = set_option(fd, IPPROTO_IPV6, IPV6_V6ONLY, 0);
    return rc;
}

/* True when the file at a unix address is a socket on which nobody accepts. A connect to a plain file is refused just
 * the same, and that file is not ours to remove. */
static bool is_stale(const struct addr *at)
{
    struct stat st;
    if (lstat(at->un.sun_path, &st) < 0 || !S_ISSOCK(st.st_mode))
        return false;
    bool in_progress;
    int fd = sock_connect(at, &in_progress);
    if (fd >= 0)
        sock_close(fd);
    return fd == -ECONNREFUSED;
}

static int bind_at(int fd, const struct addr *at)
{
    if (bind(fd, &at->sa, at->len) == 0)
        return 0;
    if (errno != EADDRINUSE || at->sa.sa_family != AF_UNIX)
        return -errno;
    if (!is_stale(at))
        return -EADDRINUSE;
    sock_unlink(at);
    return bind(fd, &at->sa, at->len) < 0 ? -errno : 0;
}

/* To connect to a unix socket one has to be allowed to write to its file, and the umask takes that away. Before it
 * listens nobody can connect anyway. No link is followed, lest somebody who may write to the folder opens another file
 * to all. Without /proc libc cannot do that (EOPNOTSUPP): the mode stays as it is. */
static int bind_to(int fd, const struct addr *at)
{
    int rc = bind_at(fd, at);
    if (rc < 0 || at->sa.sa_family != AF_UNIX)
        return rc;
    if (fchmodat(AT_FDCWD, at->un.sun_path, UNIX_MODE, AT_SYMLINK_NOFOLLOW) == 0 || errno == EOPNOTSUPP)
        return 0;
    rc = -errno;
    sock_unlink(at);
    return rc;
}

/* Linux compares the options of the sockets whenever one of them binds or listens: so both have to have it then, and
 * nobody can join them later. */
static int share_port(int fd, int beside, bool on)
{
    int rc = set_option(beside, SOL_SOCKET, SO_REUSEPORT, on);
    return rc < 0 ? rc : set_option(fd, SOL_SOCKET, SO_REUSEPORT, on);
}

static int listen_at(const struct addr *at, int backlog, int beside)
{
    int fd = new_socket(at->sa.sa_family);
    if (fd < 0)
        return fd;
    int rc = at->sa.sa_family == AF_UNIX ? 0 : prepare_tcp_listener(fd, at);
    if (rc == 0 && beside >= 0)
        rc = share_port(fd, beside, true);
    if (rc == 0)
        rc = bind_to(fd, at);
    if (rc == 0 && listen(fd, backlog) < 0) {
        rc = -errno;
        sock_unlink(at); /* the file that bind() made */
    }
    if (beside >= 0)
        (void)share_port(fd, beside, false); /* taking it off cannot fail where putting it on did not */
    return rc < 0 ? close_with(fd, rc) : fd;
}

static int listen_at_any(const struct addr *at, int backlog, int beside)
{
    int fd = listen_at(at, backlog, beside);
    /* Without IPv6 in the kernel the first is said, with IPv6 switched off on the host the second. */
    if ((fd == -EAFNOSUPPORT || fd == -EADDRNOTAVAIL) && is_v6_any(at)) {
        struct addr v4 = v4_any(at);
        fd = listen_at(&v4, backlog, beside);
    }
    return fd;
}

int sock_listen(const struct addr *at, int backlog)
{
    return listen_at_any(at, backlog, -1);
}

static bool same_port(int fd, const struct addr *at)
{
    struct addr bound;
    if (sock_local_addr(fd, &bound) < 0)
        return false;
    struct peer a = peer_from_addr(&bound), b = peer_from_addr(at);
    return !a.is_unix && !b.is_unix && a.port == b.port;
}

int sock_listen_beside(const struct addr *at, int backlog, int beside)
{
    int fd = listen_at_any(at, backlog, -1);
    return fd == -EADDRINUSE && same_port(beside, at) ? listen_at_any(at, backlog, beside) : fd;
}

int sock_accept(int listen_fd, struct addr *from)
{
    for (;;) {
        from->len = sizeof from->ss;
        int fd = accept4(listen_fd, &from->sa, &from->len, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0)
            return fd;
        if (errno != EINTR)
            return -errno;
    }
}

int sock_connect(const struct addr *to, bool *in_progress)
{
    int fd = new_socket(to->sa.sa_family);
    if (fd < 0)
        return fd;
    int rc = to->sa.sa_family == AF_UNIX ? 0 : prepare_tcp(fd);
    if (rc < 0)
        return close_with(fd, rc);
    *in_progress = false;
    if (connect(fd, &to->sa, to->len) == 0)
        return fd;
    /* An interrupted connect goes on by itself; a second call would only be told EALREADY. */
    *in_progress = errno == EINPROGRESS || errno == EINTR;
    return *in_progress ? fd : close_with(fd, -errno);
}

int sock_connect_result(int fd)
{
    int error = 0;
    socklen_t len = sizeof error;
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len) < 0)
        return -errno;
    return -error;
}

ssize_t sock_recv(int fd, void *p, size_t n)
{
    for (;;) {
        ssize_t got = recv(fd, p, n, 0);
        if (got >= 0)
            return got;
        if (errno != EINTR)
            return -errno;
    }
}

ssize_t sock_send(int fd, const struct iovec *iov, int iovcnt, bool more)
{
    /* sendmsg() never writes through msg_iov; its type is older than const. */
    struct msghdr m = {.msg_iov = (struct iovec *)iov, .msg_iovlen = (size_t)iovcnt};
    int flags = MSG_NOSIGNAL | (more ? MSG_MORE : 0);
    for (;;) {
        /* The kernel is done with one piece 0.15 us sooner when it need not fetch a header that says so. */
        ssize_t sent = iovcnt == 1 ? send(fd, iov->iov_base, iov->iov_len, flags) : sendmsg(fd, &m, flags);
        if (sent >= 0)
            return sent;
        if (errno != EINTR)
            return -errno;
    }
}

int sock_pipe(int ends[2], int size)
{
    if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) < 0)
        return -errno;
    (void)fcntl(ends[1], F_SETPIPE_SZ, size); /* refused, it stays as it is */
    return 0;
}

ssize_t sock_splice(int from, int to, size_t n)
{
    for (;;) {
        ssize_t moved = splice(from, NULL, to, NULL, n, SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
        if (moved >= 0)
            return moved;
        if (errno != EINTR)
            return -errno;
    }
}

ssize_t sock_read_pipe(int fd, void *p, size_t n)
{
    size_t done = 0;
    while (done < n) {
        ssize_t got = read(fd, (char *)p + done, n - done);
        if (got > 0)
            done += (size_t)got;
        else if (got == 0 || errno != EINTR)
            return got < 0 ? -errno : (ssize_t)done;
    }
    return (ssize_t)done;
}

int sock_look(int fd)
{
    char byte;
    ssize_t n;
    do
        n = recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : (int)n;
}

bool sock_is_quiet(int fd)
{
    return sock_look(fd) == -EAGAIN;
}

bool sock_has_unacked(int fd)
{
    int bytes = 0;
    return ioctl(fd, SIOCOUTQ, &bytes) == 0 && bytes > 0;
}

int sock_shutdown_write(int fd)
{
    return shutdown(fd, SHUT_WR) < 0 ? -errno : 0;
}

void sock_close(int fd)
{
    /* Linux has freed the descriptor even when close() says EINTR: to repeat it could close somebody else's. */
    close(fd);
}

void sock_reset(int fd)
{
    struct linger at_once = {.l_onoff = 1, .l_linger = 0};
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    sock_close(fd);
}

int sock_local_addr(int fd, struct addr *out)
{
    out->len = sizeof out->ss;
    return getsockname(fd, &out->sa, &out->len) < 0 ? -errno : 0;
}

int sock_remote_addr(int fd, struct addr *out)
{
    out->len = sizeof out->ss;
    return getpeername(fd, &out->sa, &out->len) < 0 ? -errno : 0;
}

int sock_pair(int ends[2])
{
    return socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) < 0 ? -errno : 0;
}

/* Room for one descriptor, as recvmsg(2) and sendmsg(2) want it. */
union fd_room {
    struct cmsghdr align;
    char room[CMSG_SPACE(sizeof(int))];
};

int sock_send_fd(int end, int fd, const void *p, size_t n)
{
    struct iovec iov = {.iov_base = (void *)p, .iov_len = n}; /* is only read */
    union fd_room control = {0};
    struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};
    if (fd >= 0) {
        m.msg_control = &control;
        m.msg_controllen = sizeof control.room;
        struct cmsghdr *c = CMSG_FIRSTHDR(&m);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof fd);
        memcpy(CMSG_DATA(c), &fd, sizeof fd);
    }
    for (;;) {
        if (sendmsg(end, &m, MSG_NOSIGNAL) >= 0)
            return 0;
        if (errno != EINTR)
            return -errno;
    }
}

ssize_t sock_recv_fd(int end, void *p, size_t n, int *fd)
{
    struct iovec iov = {.iov_base = p, .iov_len = n};
    union fd_room control;
    struct msghdr m = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control.room};
    ssize_t got;
    *fd = -1;
    do
        got = recvmsg(end, &m, MSG_CMSG_CLOEXEC);
    while (got < 0 && errno == EINTR);
    if (got < 0)
        return -errno;
    struct cmsghdr *c = CMSG_FIRSTHDR(&m);
    if (c && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS)
        memcpy(fd, CMSG_DATA(c), sizeof *fd);
    return got;
}

void sock_adopt(int fd)
{
    int flags = fcntl(fd, F_GETFL);
    fcntl(fd, F_SETFD, FD_CLOEXEC);
    if (flags >= 0)
        fcntl(fd, F_SETFL, flags | O_NONBLOCK);
}

bool sock_adopt_listener(int fd)
{
    int listens = 0;
    socklen_t len = sizeof listens;
    if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &len) < 0 || !listens)
        return false;
    sock_adopt(fd);
    (void)!prepare_tcp(fd); /* a unix socket has no use for it */
    return true;
}

int sock_tell(const char *path, struct str text)
{
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    size_t n = strlen(path);
    if (n == 0 || n >= sizeof un.sun_path)
        return -EINVAL;
    memcpy(un.sun_path, path, n);
    if (un.sun_path[0] == '@')
        un.sun_path[0] = '\0';
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    socklen_t len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n + (un.sun_path[0] != '\0'));
    int rc = connect(fd, (const struct sockaddr *)&un, len) < 0 ? -errno : sock_send_fd(fd, -1, text.p, text.n);
    return close_with(fd, rc);
}

void sock_unlink(const struct addr *at)
{
    if (at->sa.sa_family == AF_UNIX)
        unlink(at->un.sun_path);
}

struct sock_file sock_file_at(const struct addr *at)
{
    struct stat st;
    if (at->sa.sa_family != AF_UNIX || lstat(at->un.sun_path, &st) < 0)
        return (struct sock_file){0};
    return (struct sock_file){.known = true, .device = st.st_dev, .number = st.st_ino};
}

bool sock_file_is_at(const struct sock_file *file, const struct addr *at)
{
    if (!file->known)
        return true;
    struct sock_file now = sock_file_at(at);
    return now.known && now.device == file->device && now.number == file->number;
}

bool sock_is_same_file(const struct addr *a, const struct addr *b)
{
    if (a->sa.sa_family != AF_UNIX || b->sa.sa_family != AF_UNIX)
        return false;
    struct sock_file file = sock_file_at(a);
    return strcmp(a->un.sun_path, b->un.sun_path) == 0 || (file.known && sock_file_is_at(&file, b));
}

uint64_t sock_raise_fd_limit(uint64_t wanted)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        return 0;
    if (limit.rlim_cur >= wanted)
        return limit.rlim_cur;
    struct rlimit raised = limit;
    raised.rlim_cur = wanted < limit.rlim_max ? wanted : limit.rlim_max;
    return setrlimit(RLIMIT_NOFILE, &raised) < 0 ? limit.rlim_cur : raised.rlim_cur;
}

static int take_results(const struct addrinfo *results, struct addr *out, int max)
{
    int n = 0;
    for (const struct addrinfo *r = results; r && n < max; r = r->ai_next) {
        if (r->ai_family != AF_INET && r->ai_family != AF_INET6)
            continue;
        out[n] = (struct addr){.len = r->ai_addrlen};
        memcpy(&out[n].ss, r->ai_addr, r->ai_addrlen);
        n++;
    }
    return n;
}

int sock_resolve(const char *host, uint16_t port, struct addr *out, int max, const char **why)
{
    struct addrinfo hints = {.ai_flags = AI_ADDRCONFIG | AI_NUMERICSERV, .ai_socktype = SOCK_STREAM};
    struct addrinfo *results = NULL;
    char service[PORT_TEXT_SIZE];
    snprintf(service, sizeof service, "%u", (unsigned)port);
    int rc = getaddrinfo(host, service, &hints, &results);
    if (rc != 0) {
        *why = rc == EAI_SYSTEM ? strerrordesc_np(errno) : gai_strerror(rc);
        return -1;
    }
    int n = take_results(results, out, max);
    freeaddrinfo(results);
    if (n == 0)
        *why = "the name has no address";
    return n > 0 ? n : -1;
}
