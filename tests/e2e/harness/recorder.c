/* An origin server without a thread. */
#include "harness/recorder.h"

#include "harness/check.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define OPEN_MAX 64

static const struct reference_limits wide = {1u << 20, 1u << 20, REFERENCE_FIELDS_MAX, NULL, true};

struct recorder_conn {
    int fd;
    struct bytes in;
};

struct recorder {
    struct recorder_events events;
    int port, listen_fd;
    struct recorder_conn conns[OPEN_MAX];
    unsigned open, connections, messages;
    struct reference got;
};

struct recorder *recorder_start(const struct recorder_events *events)
{
    struct recorder *r = calloc(1, sizeof *r);
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int on = 1;

    CHECK(r, "out of memory");
    r->events = *events;
    r->port = port_reserve();
    at.sin_port = htons((uint16_t)r->port);
    r->listen_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    setsockopt(r->listen_fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    setsockopt(r->listen_fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    CHECK(bind(r->listen_fd, (struct sockaddr *)&at, sizeof at) == 0 && listen(r->listen_fd, 128) == 0,
          "listening on port %d: %s", r->port, strerror(errno));
    return r;
}

static void conn_end(struct recorder *r, unsigned i)
{
    close(r->conns[i].fd);
    bytes_free(&r->conns[i].in);
    r->conns[i] = r->conns[--r->open];
}

void recorder_stop(struct recorder *r)
{
    while (r->open > 0)
        conn_end(r, 0);
    close(r->listen_fd);
    free(r);
}

int recorder_port(const struct recorder *r)
{
    return r->port;
}

unsigned recorder_open(const struct recorder *r)
{
    return r->open;
}

unsigned recorder_connections(const struct recorder *r)
{
    return r->connections;
}

static void accept_all(struct recorder *r)
{
    int fd;

    while ((fd = accept4(r->listen_fd, NULL, NULL, SOCK_CLOEXEC)) >= 0) {
        CHECK(r->open < OPEN_MAX, "the proxy has more than %d connections open for one client", OPEN_MAX);
        r->conns[r->open] = (struct recorder_conn){.fd = fd};
        bytes_add(&r->conns[r->open].in, "", 0);
        r->open++;
        r->connections++;
    }
}

static void answer(struct recorder *r, int fd)
{
    char text[96];
    int n = snprintf(text, sizeof text, "HTTP/1.1 200 OK\r\nX-Number: %u\r\nContent-Length: 0\r\n\r\n", r->messages);

    /* Where the proxy has gone meanwhile, its client will show it. */
    (void)!send(fd, text, (size_t)n, MSG_NOSIGNAL);
}

/* Tells of what has come whole. */
static void take_messages(struct recorder *r, struct recorder_conn *c)
{
    while (c->in.n > 0) {
        reference_read(&r->got, c->in.p, c->in.n, &wide);
        size_t used = r->got.used;
        if (r->got.verdict == REFERENCE_FORWARD) {
            r->events.on_message(r->events.arg, &r->got, c->in.p, used, ++r->messages);
            answer(r, c->fd);
            bytes_drop(&c->in, used);
        } else if (r->got.verdict == REFERENCE_REFUSE) {
            r->events.on_rest(r->events.arg, &r->got, c->in.p, c->in.n);
        }
        reference_free(&r->got);
        if (used == 0)
            return;
    }
}

static void take_end(struct recorder *r, unsigned i)
{
    struct recorder_conn *c = &r->conns[i];

    if (c->in.n > 0) {
        reference_read(&r->got, c->in.p, c->in.n, &wide);
        r->events.on_rest(r->events.arg, &r->got, c->in.p, c->in.n);
        reference_free(&r->got);
    }
    conn_end(r, i);
}

static void conn_read(struct recorder *r, unsigned i)
{
    char piece[16384];
    ssize_t n = recv(r->conns[i].fd, piece, sizeof piece, MSG_DONTWAIT);

    if (n < 0 && errno == EAGAIN)
        return;
    if (n <= 0) {
        take_end(r, i);
        return;
    }
    bytes_add(&r->conns[i].in, piece, (size_t)n);
    take_messages(r, &r->conns[i]);
}

bool recorder_serve(struct recorder *r, int fd, int ms)
{
    struct pollfd p[OPEN_MAX + 2] = {{.fd = fd, .events = POLLIN}, {.fd = r->listen_fd, .events = POLLIN}};
    unsigned n = r->open;

    for (unsigned i = 0; i < n; i++)
        p[i + 2] = (struct pollfd){.fd = r->conns[i].fd, .events = POLLIN};
    if (poll(p, n + 2, ms) <= 0)
        return false;
    /* Backwards: the one that ends gives its place to the last, which has been served. */
    for (unsigned i = n; i-- > 0;)
        if (p[i + 2].revents)
            conn_read(r, i);
    if (p[1].revents)
        accept_all(r);
    return p[0].revents != 0;
}
