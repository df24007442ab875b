/* A scripted origin server. */
#include "harness/origin.h"

#include "harness/check.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define RECORD_MAX      (1024u * 1024u)
#define CONNECTIONS_MAX 4096u
#define HEADS_MAX       8192u
#define THREAD_STACK    (256u * 1024u)
/* Scripts wait as long as their test lasts: its end wakes them. */
#define ORIGIN_PATIENCE_MS 600000

struct record {
    struct origin_conn conn;
    pthread_t thread;
    struct bytes received;
    bool open, reset;
};

struct origin {
    char name[32];
    origin_script *script;
    void *arg;
    int port;
    atomic_int mode;
    pthread_t acceptor;
    pthread_mutex_t lock; /* over everything below */
    pthread_cond_t changed;
    int listen_fd; /* -1 while refusing */
    int wake[2];   /* a byte in it makes the acceptor look again */
    bool stopping, released;
    struct record *records[CONNECTIONS_MAX];
    unsigned connections, requests, open;
    char *heads[HEADS_MAX];
};

static int listen_on(int port)
{
    struct sockaddr_in at = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (fd < 0)
        return -1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (bind(fd, (struct sockaddr *)&at, sizeof at) == 0 && listen(fd, 1024) == 0)
        return fd;
    close(fd);
    return -1;
}

static void record_bytes(void *arg, const void *p, size_t n)
{
    struct record *r = arg;
    struct origin *o = r->conn.origin;

    pthread_mutex_lock(&o->lock);
    if (r->received.n + n <= RECORD_MAX)
        bytes_add(&r->received, p, n);
    pthread_mutex_unlock(&o->lock);
}

static void connection_end(struct record *r)
{
    struct origin *o = r->conn.origin;

    pthread_mutex_lock(&o->lock);
    if (r->reset)
        setsockopt(r->conn.in.fd, SOL_SOCKET, SO_LINGER, &(struct linger){1, 0}, sizeof(struct linger));
    close(r->conn.in.fd);
    r->open = false;
    o->open--;
    pthread_cond_broadcast(&o->changed);
    pthread_mutex_unlock(&o->lock);
}

static void *connection_main(void *arg)
{
    struct record *r = arg;

    r->conn.origin->script(&r->conn);
    connection_end(r);
    return NULL;
}

static void accept_one(struct origin *o, int fd)
{
    struct record *r = calloc(1, sizeof *r);
    pthread_attr_t attr;

    if (!r || o->connections == CONNECTIONS_MAX) {
        close(fd);
        free(r);
        return;
    }
    r->conn.origin = o;
    r->conn.index = o->connections;
    stream_init(&r->conn.in, fd);
    r->conn.in.on_bytes = record_bytes;
    r->conn.in.arg = r;
    r->open = true;
    bytes_add(&r->received, "", 0);
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, THREAD_STACK);
    if (pthread_create(&r->thread, &attr, connection_main, r) != 0)
        abort();
    pthread_attr_destroy(&attr);
    o->records[o->connections++] = r;
    o->open++;
    pthread_cond_broadcast(&o->changed);
}

static void *acceptor_main(void *arg)
{
    struct origin *o = arg;

    for (;;) {
        struct pollfd p[2] = {{.fd = o->wake[0], .events = POLLIN}, {.events = POLLIN}};
        char byte;
        int fd;

        pthread_mutex_lock(&o->lock);
        p[1].fd = o->listen_fd;
        pthread_mutex_unlock(&o->lock);
        poll(p, 2, -1);
        if (p[0].revents && read(o->wake[0], &byte, 1) != 1)
            abort();
        pthread_mutex_lock(&o->lock);
        if (o->stopping) {
            pthread_mutex_unlock(&o->lock);
            return NULL;
        }
        fd = o->listen_fd >= 0 ? accept4(o->listen_fd, NULL, NULL, SOCK_CLOEXEC) : -1;
        if (fd >= 0)
            accept_one(o, fd);
        pthread_mutex_unlock(&o->lock);
    }
}

static void wake_acceptor(struct origin *o)
{
    if (write(o->wake[1], "", 1) != 1)
        abort();
}

struct origin *origin_start(const char *name, origin_script *script, void *arg)
{
    struct origin *o = calloc(1, sizeof *o);
    pthread_condattr_t attr;

    if (!o)
        abort();
    snprintf(o->name, sizeof o->name, "%s", name);
    o->script = script;
    o->arg = arg;
    o->port = port_reserve();
    o->listen_fd = listen_on(o->port);
    CHECK(o->listen_fd >= 0, "listening on port %d: %s", o->port, strerror(errno));
    CHECK(pipe(o->wake) == 0, "pipe: %s", strerror(errno));
    pthread_mutex_init(&o->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&o->changed, &attr);
    pthread_condattr_destroy(&attr);
    CHECK(pthread_create(&o->acceptor, NULL, acceptor_main, o) == 0, "pthread_create failed");
    return o;
}

static void shut_all(struct origin *o)
{
    for (unsigned i = 0; i < o->connections; i++)
        if (o->records[i]->open)
            shutdown(o->records[i]->conn.in.fd, SHUT_RDWR);
}

static void record_free(struct record *r)
{
    pthread_join(r->thread, NULL);
    stream_fini(&r->conn.in);
    message_free(&r->conn.request);
    bytes_free(&r->received);
    free(r);
}

void origin_stop(struct origin *o)
{
    pthread_mutex_lock(&o->lock);
    o->stopping = true;
    shut_all(o);
    pthread_cond_broadcast(&o->changed);
    pthread_mutex_unlock(&o->lock);
    wake_acceptor(o);
    pthread_join(o->acceptor, NULL);
    for (unsigned i = 0; i < o->connections; i++)
        record_free(o->records[i]);
    for (unsigned i = 0; i < HEADS_MAX && o->heads[i]; i++)
        free(o->heads[i]);
    if (o->listen_fd >= 0)
        close(o->listen_fd);
    close(o->wake[0]);
    close(o->wake[1]);
    pthread_cond_destroy(&o->changed);
    pthread_mutex_destroy(&o->lock);
    free(o);
}

int origin_port(const struct origin *o)
{
    return o->port;
}

const char *origin_name(const struct origin *o)
{
    return o->name;
}

void *origin_arg(const struct origin *o)
{
    return o->arg;
}

static unsigned look(struct origin *o, const unsigned *counter)
{
    unsigned n;

    pthread_mutex_lock(&o->lock);
    n = *counter;
    pthread_mutex_unlock(&o->lock);
    return n;
}

unsigned origin_connections(struct origin *o)
{
    return look(o, &o->connections);
}

unsigned origin_requests(struct origin *o)
{
    return look(o, &o->requests);
}

unsigned origin_open(struct origin *o)
{
    return look(o, &o->open);
}

/* Waits for a change, at most until the deadline. Lock held. */
static bool wait_change(struct origin *o, uint64_t deadline)
{
    struct timespec at = {.tv_sec = (time_t)(deadline / 1000u), .tv_nsec = (long)(deadline % 1000u) * 1000000};

    return pthread_cond_timedwait(&o->changed, &o->lock, &at) == 0;
}

static unsigned wait_at_least(struct origin *o, const unsigned *counter, unsigned n)
{
    uint64_t deadline = deadline_in(patience_ms());
    unsigned seen;

    pthread_mutex_lock(&o->lock);
    while (*counter < n && wait_change(o, deadline))
        ;
    seen = *counter;
    pthread_mutex_unlock(&o->lock);
    return seen;
}

void origin_wait_requests(struct origin *o, unsigned n)
{
    unsigned seen = wait_at_least(o, &o->requests, n);

    CHECK(seen >= n, "%s: %u requests came, %u were awaited", o->name, seen, n);
}

void origin_wait_connections(struct origin *o, unsigned n)
{
    unsigned seen = wait_at_least(o, &o->connections, n);

    CHECK(seen >= n, "%s: %u connections came, %u were awaited", o->name, seen, n);
}

void origin_wait_closed(struct origin *o)
{
    uint64_t deadline = deadline_in(patience_ms());
    unsigned open;

    pthread_mutex_lock(&o->lock);
    while (o->open > 0 && wait_change(o, deadline))
        ;
    open = o->open;
    pthread_mutex_unlock(&o->lock);
    CHECK(open == 0, "%s: %u connections are still open", o->name, open);
}

struct bytes origin_received(struct origin *o, unsigned index)
{
    struct bytes copy = {0};

    bytes_add(&copy, "", 0);
    pthread_mutex_lock(&o->lock);
    if (index < o->connections)
        bytes_add(&copy, o->records[index]->received.p, o->records[index]->received.n);
    pthread_mutex_unlock(&o->lock);
    return copy;
}

const char *origin_head(struct origin *o, unsigned n)
{
    const char *head;

    pthread_mutex_lock(&o->lock);
    head = n < HEADS_MAX ? o->heads[n] : NULL;
    pthread_mutex_unlock(&o->lock);
    return head;
}

void origin_refuse(struct origin *o)
{
    pthread_mutex_lock(&o->lock);
    close(o->listen_fd);
    o->listen_fd = -1;
    pthread_mutex_unlock(&o->lock);
    wake_acceptor(o);
}

void origin_accept_again(struct origin *o)
{
    int fd = listen_on(o->port);

    CHECK(fd >= 0, "listening on port %d again: %s", o->port, strerror(errno));
    pthread_mutex_lock(&o->lock);
    o->listen_fd = fd;
    pthread_mutex_unlock(&o->lock);
    wake_acceptor(o);
}

/* The socket is shut down, which wakes its thread; that closes it, with a reset. */
void origin_reset_all(struct origin *o)
{
    pthread_mutex_lock(&o->lock);
    for (unsigned i = 0; i < o->connections; i++) {
        struct record *r = o->records[i];

        if (!r->open)
            continue;
        r->reset = true;
        shutdown(r->conn.in.fd, SHUT_RD);
    }
    pthread_mutex_unlock(&o->lock);
}

void origin_wait_mode(struct origin *o, int mode)
{
    for (uint64_t deadline = deadline_in(patience_ms()); atomic_load(&o->mode) != mode; rest())
        CHECK(left_ms(deadline) > 0, "the origin is never in mode %d", mode);
}

void origin_set_mode(struct origin *o, int mode)
{
    atomic_store(&o->mode, mode);
}

int origin_mode(const struct origin_conn *c)
{
    return atomic_load(&c->origin->mode);
}

static void note_request(struct origin_conn *c)
{
    struct origin *o = c->origin;

    pthread_mutex_lock(&o->lock);
    if (o->requests < HEADS_MAX)
        o->heads[o->requests] = strdup(c->request.head);
    o->requests++;
    pthread_cond_broadcast(&o->changed);
    pthread_mutex_unlock(&o->lock);
}

bool origin_read_head(struct origin_conn *c)
{
    if (message_read_request_head(&c->in, &c->request, deadline_in(ORIGIN_PATIENCE_MS)) != READ_OK)
        return false;
    note_request(c);
    return true;
}

bool origin_read_body(struct origin_conn *c, sink_fn *sink, void *arg)
{
    return message_read_body(&c->in, &c->request, sink, arg, ORIGIN_PATIENCE_MS) == READ_OK;
}

bool origin_read(struct origin_conn *c)
{
    return origin_read_head(c) && origin_read_body(c, NULL, NULL);
}

bool origin_send_bytes(struct origin_conn *c, const void *p, size_t n)
{
    return send_all(c->in.fd, p, n, ORIGIN_PATIENCE_MS);
}

bool origin_send(struct origin_conn *c, const char *text)
{
    return origin_send_bytes(c, text, strlen(text));
}

bool origin_sendf(struct origin_conn *c, const char *fmt, ...)
{
    va_list args;
    char *text;
    int n;
    bool ok;

    va_start(args, fmt);
    n = vasprintf(&text, fmt, args);
    va_end(args);
    if (n < 0)
        abort();
    ok = origin_send_bytes(c, text, (size_t)n);
    free(text);
    return ok;
}

bool origin_send_slowly(struct origin_conn *c, const char *text, size_t piece, int ms)
{
    for (size_t n = strlen(text); n > 0;) {
        size_t now = n < piece ? n : piece;

        if (!origin_send_bytes(c, text, now))
            return false;
        text += now;
        n -= now;
        origin_pause(c, ms);
    }
    return true;
}

bool origin_answer(struct origin_conn *c, const char *content)
{
    bool to_head = strcmp(c->request.method, "HEAD") == 0;

    return origin_sendf(c, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %zu\r\n\r\n%s",
                        strlen(content), to_head ? "" : content);
}

void origin_drain(struct origin_conn *c)
{
    do
        bytes_drop(&c->in.in, c->in.in.n);
    while (stream_fill(&c->in, deadline_in(ORIGIN_PATIENCE_MS)) == READ_OK);
}

void origin_hold(struct origin_conn *c)
{
    struct origin *o = c->origin;

    pthread_mutex_lock(&o->lock);
    while (!o->released && !o->stopping)
        pthread_cond_wait(&o->changed, &o->lock);
    pthread_mutex_unlock(&o->lock);
}

static void set_released(struct origin *o, bool released)
{
    pthread_mutex_lock(&o->lock);
    o->released = released;
    pthread_cond_broadcast(&o->changed);
    pthread_mutex_unlock(&o->lock);
}

void origin_release(struct origin *o)
{
    set_released(o, true);
}

void origin_block(struct origin *o)
{
    set_released(o, false);
}

void origin_pause(struct origin_conn *c, int ms)
{
    struct origin *o = c->origin;
    uint64_t deadline = deadline_in(ms);

    pthread_mutex_lock(&o->lock);
    while (!o->stopping && left_ms(deadline) > 0)
        wait_change(o, deadline);
    pthread_mutex_unlock(&o->lock);
}

void origin_reset(struct origin_conn *c)
{
    struct origin *o = c->origin;

    pthread_mutex_lock(&o->lock);
    o->records[c->index]->reset = true;
    pthread_mutex_unlock(&o->lock);
}

void origin_answer_all(struct origin_conn *c)
{
    while (origin_read(c))
        if (!origin_answer(c, c->origin->name))
            return;
}
