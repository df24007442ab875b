/* The floor of what a proxy on epoll can cost: bench_relay PORT BACKEND_PORT... takes connections on 127.0.0.1, opens
 * one to the next backend for each, and moves bytes between the two, without looking at them: recv() and send() each
 * way, and its share of epoll_wait(). It is no proxy: it cannot share a backend's connections, and knows no request. */
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

#define FDS_MAX 65536
#define BATCH   256
#define PIECE   65536u

struct side {
    int other;
    uint32_t unsent, sent; /* of what the other side has sent: held here until this socket takes it */
    char *held;
};

static struct side *sides;
static int epoll_fd;
static struct sockaddr_in backends[64];
static unsigned backend_count, next_backend;

static struct sockaddr_in local(const char *port)
{
    return (struct sockaddr_in){
        .sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port)), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

static bool watch(int op, int fd, uint32_t events)
{
    struct epoll_event e = {.events = events, .data.fd = fd};
    return epoll_ctl(epoll_fd, op, fd, &e) == 0;
}

static int new_socket(void)
{
    int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    return fd;
}

static void accept_one(int listen_fd)
{
    int fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK), to;

    if (fd < 0)
        return;
    to = new_socket();
    connect(to, (const struct sockaddr *)&backends[next_backend++ % backend_count], sizeof backends[0]);
    if (to < 0 || to >= FDS_MAX || fd >= FDS_MAX || !watch(EPOLL_CTL_ADD, fd, EPOLLIN) ||
        !watch(EPOLL_CTL_ADD, to, EPOLLIN)) {
        close(fd);
        close(to);
        return;
    }
    sides[fd].other = to;
    sides[to].other = fd;
}

static void end(int fd)
{
    int fds[2] = {fd, sides[fd].other};

    for (unsigned i = 0; i < 2; i++) {
        free(sides[fds[i]].held);
        sides[fds[i]] = (struct side){0};
        close(fds[i]);
    }
}

/* Keeps what the socket did not take, and reads no more from the other side until it has. */
static bool hold(int fd, const char *p, size_t n)
{
    struct side *s = &sides[fd];

    s->held = malloc(n);
    if (!s->held)
        return false;
    memcpy(s->held, p, n);
    s->unsent = (uint32_t)n;
    s->sent = 0;
    return watch(EPOLL_CTL_MOD, fd, EPOLLIN | EPOLLOUT) && watch(EPOLL_CTL_MOD, s->other, 0);
}

static bool let_go(int fd)
{
    struct side *s = &sides[fd];
    ssize_t n = send(fd, s->held + s->sent, s->unsent - s->sent, MSG_NOSIGNAL);

    if (n < 0)
        return errno == EAGAIN;
    s->sent += (uint32_t)n;
    if (s->sent < s->unsent)
        return true;
    free(s->held);
    s->held = NULL;
    s->unsent = 0;
    return watch(EPOLL_CTL_MOD, fd, EPOLLIN) && watch(EPOLL_CTL_MOD, s->other, EPOLLIN);
}

static bool move(int fd)
{
    static char piece[PIECE];
    int to = sides[fd].other;
    ssize_t n = recv(fd, piece, sizeof piece, 0), sent;

    if (n <= 0)
        return n < 0 && errno == EAGAIN;
    sent = send(to, piece, (size_t)n, MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN)
        return false;
    sent = sent < 0 ? 0 : sent;
    return sent == n || hold(to, piece + sent, (size_t)(n - sent));
}

static void on_event(int fd, uint32_t ready)
{
    bool alive = true;

    if (sides[fd].other == 0)
        return; /* it ended in this batch */
    if ((ready & EPOLLOUT) && sides[fd].unsent > 0)
        alive = let_go(fd);
    if (alive && (ready & (EPOLLIN | EPOLLHUP | EPOLLERR)) && sides[sides[fd].other].unsent == 0)
        alive = move(fd);
    if (!alive)
        end(fd);
}

int main(int argc, char **argv)
{
    static struct epoll_event events[BATCH];
    struct rlimit limit;
    struct sockaddr_in at;
    int listen_fd = new_socket();

    if (argc < 3 || argc > 66)
        return 2;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max < FDS_MAX ? limit.rlim_max : FDS_MAX;
    setrlimit(RLIMIT_NOFILE, &limit);
    sides = calloc(FDS_MAX, sizeof *sides);
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    at = local(argv[1]);
    for (int i = 2; i < argc; i++)
        backends[backend_count++] = local(argv[i]);
    if (!sides || bind(listen_fd, (struct sockaddr *)&at, sizeof at) != 0 || listen(listen_fd, 4096) != 0 ||
        !watch(EPOLL_CTL_ADD, listen_fd, EPOLLIN)) {
        perror("bench_relay");
        return 1;
    }
    for (;;) {
        int n = epoll_wait(epoll_fd, events, BATCH, -1);

        for (int i = 0; i < n; i++) {
            if (events[i].data.fd == listen_fd)
                accept_one(listen_fd);
            else
                on_event(events[i].data.fd, events[i].events);
        }
    }
}
