/* The cheapest origin server that a benchmark can have: bench_backend PORT... listens on 127.0.0.1, and answers each
 * request head with the same 128 bytes of content. One thread, epoll; it understands no request content. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define FDS_MAX      16384
#define PIPELINE_MAX 64
#define BATCH        256

#define TEN            "0123456789"
#define CONTENT        TEN TEN TEN TEN TEN TEN TEN TEN TEN TEN TEN TEN "0123456\n"
#define RESPONSE       "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 128\r\n\r\n" CONTENT
#define RESPONSE_BYTES (sizeof RESPONSE - 1)

_Static_assert(sizeof CONTENT - 1 == 128, "the content is 128 bytes");

static bool is_listener[FDS_MAX];
static uint8_t matched[FDS_MAX]; /* bytes of CR LF CR LF seen at the end of what came so far */

static int add(int epoll_fd, int fd)
{
    struct epoll_event e = {.events = EPOLLIN, .data.fd = fd};

    return epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &e);
}

static int listen_on(int epoll_fd, uint16_t port)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (fd < 0)
        return -1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (bind(fd, (struct sockaddr *)&at, sizeof at) != 0 || listen(fd, 1024) != 0 || add(epoll_fd, fd) != 0)
        return -1;
    is_listener[fd] = true;
    return 0;
}

static void accept_all(int epoll_fd, int listen_fd)
{
    int fd;

    while ((fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK)) >= 0) {
        if (fd >= FDS_MAX || add(epoll_fd, fd) != 0) {
            close(fd);
            continue;
        }
        matched[fd] = 0;
    }
}

/* How many heads end in these bytes. */
static unsigned count_heads(int fd, const char *p, size_t n)
{
    static const char end[] = "\r\n\r\n";
    unsigned heads = 0, at = matched[fd];

    for (size_t i = 0; i < n; i++) {
        at = p[i] == end[at] ? at + 1 : p[i] == '\r' ? 1 : 0;
        if (at == 4) {
            heads++;
            at = 0;
        }
    }
    matched[fd] = (uint8_t)at;
    return heads;
}

static bool serve(int fd)
{
    static char in[65536], out[PIPELINE_MAX * RESPONSE_BYTES];
    ssize_t n = recv(fd, in, sizeof in, 0);
    unsigned heads;

    if (n <= 0)
        return n < 0 && errno == EAGAIN;
    heads = count_heads(fd, in, (size_t)n);
    if (heads > PIPELINE_MAX)
        return false;
    for (unsigned i = 0; i < heads; i++)
        memcpy(out + i * RESPONSE_BYTES, RESPONSE, RESPONSE_BYTES);
    return heads == 0 || send(fd, out, heads * RESPONSE_BYTES, MSG_NOSIGNAL) == (ssize_t)(heads * RESPONSE_BYTES);
}

int main(int argc, char **argv)
{
    static struct epoll_event events[BATCH];
    struct rlimit limit = {FDS_MAX, FDS_MAX};
    int epoll_fd = epoll_create1(EPOLL_CLOEXEC);

    setrlimit(RLIMIT_NOFILE, &limit);
    for (int i = 1; i < argc; i++) {
        if (listen_on(epoll_fd, (uint16_t)atoi(argv[i])) != 0) {
            perror(argv[i]);
            return 1;
        }
    }
    for (;;) {
        int n = epoll_wait(epoll_fd, events, BATCH, -1);

        for (int i = 0; i < n; i++) {
            int fd = events[i].data.fd;

            if (is_listener[fd])
                accept_all(epoll_fd, fd);
            else if (!serve(fd))
                close(fd);
        }
    }
}
