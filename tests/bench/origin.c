/* The cheapest origin server that a benchmark can have. */
#include "origin.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define FDS_MAX     65536
#define BATCH       256
#define CONTENT_MAX (1024u * 1024u)
#define SHORT       128u
#define HEAD_MAX    256u /* of a request's and of a response's */
#define CHUNK       16384u

struct conn {
    bool listens;
    uint8_t matched;                     /* bytes of CR LF CR LF seen at the end of what came so far */
    uint32_t unread;                     /* content still to come */
    uint32_t head_len;                   /* of the request's, as far as it is kept */
    uint32_t out_len, out_sent, content; /* the response: its head with small content, and what follows behind it */
    char head[HEAD_MAX], out[HEAD_MAX + SHORT];
};

static struct conn *conns;
static int epoll_fd;
static char content[CONTENT_MAX], chunked[CONTENT_MAX + CONTENT_MAX / 1024];

static int watch(int op, int fd, uint32_t events)
{
    struct epoll_event e = {.events = events, .data.fd = fd};
    return epoll_ctl(epoll_fd, op, fd, &e);
}

int origin_listen(uint16_t port)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (fd < 0)
        return -1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (bind(fd, (struct sockaddr *)&at, sizeof at) != 0 || listen(fd, 4096) != 0)
        return -1;
    conns[fd].listens = true;
    return watch(EPOLL_CTL_ADD, fd, EPOLLIN);
}

static void accept_all(int listen_fd)
{
    int fd;

    while ((fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK)) >= 0) {
        if (fd >= FDS_MAX || watch(EPOLL_CTL_ADD, fd, EPOLLIN) != 0) {
            close(fd);
            continue;
        }
        conns[fd] = (struct conn){0};
    }
}

/* The body of a chunked response of `n` bytes of content, made when it is first asked for. */
static uint32_t chunked_body(uint32_t n)
{
    static uint32_t made_for, len;
    size_t at = 0;

    if (made_for == n && len > 0)
        return len;
    for (uint32_t done = 0; done < n;) {
        uint32_t piece = n - done < CHUNK ? n - done : CHUNK;

        at += (size_t)sprintf(chunked + at, "%x\r\n", piece);
        memcpy(chunked + at, content + done, piece);
        memcpy(chunked + at + piece, "\r\n", 2);
        at += piece + 2;
        done += piece;
    }
    memcpy(chunked + at, "0\r\n\r\n", 5);
    made_for = n;
    len = (uint32_t)at + 5;
    return len;
}

static const char *body_of(const struct conn *c)
{
    return strstr(c->out, "chunked") ? chunked : content;
}

/* The request's head is whole: makes its answer ready. */
static void answer(struct conn *c)
{
    const char *length = strcasestr(c->head, "\r\ncontent-length:"), *path = strchr(c->head, ' ');
    uint32_t n = SHORT;
    int head;

    c->unread = length ? (uint32_t)strtoul(length + 17, NULL, 10) : 0;
    if (c->head[0] == 'P')
        n = 2;
    else if (path && strncmp(path, " /chunked/", 10) == 0)
        n = (uint32_t)strtoul(path + 10, NULL, 10);
    else if (path && path[2] >= '0' && path[2] <= '9')
        n = (uint32_t)strtoul(path + 2, NULL, 10);
    n = n < CONTENT_MAX ? n : CONTENT_MAX;
    if (path && strncmp(path, " /chunked/", 10) == 0) {
        head = sprintf(c->out, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        c->content = chunked_body(n);
    } else {
        head = sprintf(c->out, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %u\r\n\r\n", n);
        c->content = n;
    }
    c->out_len = (uint32_t)head;
    c->out_sent = 0;
}

/* Sends what is ready. False when the connection is of no use any more. */
static bool flush(int fd, struct conn *c)
{
    while (c->out_sent < c->out_len + c->content) {
        uint32_t at = c->out_sent > c->out_len ? c->out_sent - c->out_len : 0;
        struct iovec iov[2] = {{c->out, c->out_len}, {(char *)(uintptr_t)body_of(c) + at, c->content - at}};
        struct msghdr m = {.msg_iov = iov, .msg_iovlen = 2};

        if (c->out_sent >= c->out_len)
            m = (struct msghdr){.msg_iov = iov + 1, .msg_iovlen = 1};
        else if (c->out_sent > 0)
            iov[0] = (struct iovec){c->out + c->out_sent, c->out_len - c->out_sent};
        ssize_t n = sendmsg(fd, &m, MSG_NOSIGNAL);
        if (n < 0 && errno == EAGAIN)
            return watch(EPOLL_CTL_MOD, fd, EPOLLIN | EPOLLOUT) == 0;
        if (n < 0)
            return false;
        c->out_sent += (uint32_t)n;
    }
    c->out_len = c->out_sent = c->content = 0;
    return true;
}

/* Takes what has come, to the end of a request. */
static bool take(int fd, struct conn *c, const char *p, size_t n)
{
    static const char end[] = "\r\n\r\n";

    for (size_t i = 0; i < n;) {
        if (c->unread > 0) {
            uint32_t skip = n - i < c->unread ? (uint32_t)(n - i) : c->unread;
            i += skip;
            c->unread -= skip;
        } else {
            if (c->head_len < HEAD_MAX - 1)
                c->head[c->head_len++] = p[i];
            c->matched = (uint8_t)(p[i] == end[c->matched] ? c->matched + 1 : p[i] == '\r' ? 1 : 0);
            i++;
            if (c->matched < 4)
                continue;
            c->head[c->head_len] = '\0';
            c->matched = 0;
            c->head_len = 0;
            answer(c);
        }
        if (c->unread == 0 && !flush(fd, c))
            return false;
    }
    return true;
}

static bool serve_conn(int fd, uint32_t ready)
{
    static char in[65536];
    struct conn *c = &conns[fd];

    if ((ready & EPOLLOUT) && (!flush(fd, c) || watch(EPOLL_CTL_MOD, fd, EPOLLIN) != 0))
        return false;
    if (!(ready & EPOLLIN))
        return true;
    ssize_t n = recv(fd, in, sizeof in, 0);
    return n > 0 ? take(fd, c, in, (size_t)n) : n < 0 && errno == EAGAIN;
}

bool origin_start(void)
{
    struct rlimit limit;

    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max < FDS_MAX ? limit.rlim_max : FDS_MAX;
    setrlimit(RLIMIT_NOFILE, &limit);
    conns = calloc(FDS_MAX, sizeof *conns);
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    memset(content, 'x', sizeof content);
    return conns && epoll_fd >= 0;
}

int origin_fd(void)
{
    return epoll_fd;
}

void origin_serve(int timeout)
{
    static struct epoll_event events[BATCH];
    int n = epoll_wait(epoll_fd, events, BATCH, timeout);

    for (int i = 0; i < n; i++) {
        int fd = events[i].data.fd;

        if (conns[fd].listens)
            accept_all(fd);
        else if (!serve_conn(fd, events[i].events))
            close(fd);
    }
}
