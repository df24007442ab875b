/* Both ends of a proxy in one thread. */
#include "conformance/stage.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static struct sockaddr_in loopback(int port)
{
    return (struct sockaddr_in){
        .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

static void set_nodelay(int fd)
{
    int on = 1;

    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

bool stage_open(struct stage *s, int origin_port, int proxy_port, int patience)
{
    struct sockaddr_in at = loopback(origin_port);
    int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    *s = (struct stage){.listen_fd = fd, .proxy_port = proxy_port, .patience = patience, .random = 1};
    s->client.fd = -1;
    if (fd < 0)
        return false;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    return bind(fd, (struct sockaddr *)&at, sizeof at) == 0 && listen(fd, 128) == 0;
}

static void conn_end(struct stage_conn *c)
{
    if (c->fd >= 0)
        close(c->fd);
    c->fd = -1;
    c->ended = true;
}

static void conn_free(struct stage_conn *c)
{
    conn_end(c);
    bytes_free(&c->in);
    script_free(&c->out);
}

static void records_free(struct stage *s)
{
    for (unsigned i = 0; i < s->record_count; i++) {
        wire_free(&s->records[i].m);
        bytes_free(&s->records[i].raw);
    }
    s->record_count = 0;
}

void stage_reset(struct stage *s)
{
    for (unsigned i = 0; i < s->conn_count; i++)
        conn_free(&s->conns[i]);
    s->conn_count = 0;
}

void stage_close(struct stage *s)
{
    stage_client_free(&s->client);
    stage_reset(s);
    records_free(s);
    close(s->listen_fd);
}

void stage_begin(struct stage *s, const struct conformance *now, enum split answer_split)
{
    unsigned kept = 0;

    records_free(s);
    for (unsigned i = 0; i < s->conn_count; i++) {
        struct stage_conn *c = &s->conns[i];

        if (c->ended) {
            conn_free(c);
            continue;
        }
        bytes_drop(&c->in, c->parsed);
        c->parsed = 0;
        c->case_request = false;
        s->conns[kept++] = *c;
    }
    s->conn_count = kept;
    s->now = now;
    s->answer_split = answer_split;
    stage_client_free(&s->client);
}

/* ---- the client ---- */

bool stage_client_open(struct stage *s, enum split split)
{
    struct sockaddr_in to = loopback(s->proxy_port);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    stage_client_free(&s->client);
    s->client = (struct stage_client){.fd = fd, .split = split};
    bytes_add(&s->client.got, "", 0);
    set_nodelay(fd);
    return connect(fd, (struct sockaddr *)&to, sizeof to) == 0;
}

void stage_client_close(struct stage *s)
{
    if (s->client.fd >= 0)
        close(s->client.fd);
    s->client.fd = -1;
}

void stage_client_free(struct stage_client *c)
{
    if (c->fd >= 0)
        close(c->fd);
    c->fd = -1;
    bytes_free(&c->got);
    script_free(&c->out);
}

static void client_receive(struct stage *s)
{
    struct stage_client *c = &s->client;
    char piece[65536];
    ssize_t n = recv(c->fd, piece, sizeof piece, MSG_DONTWAIT);

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    s->news = s->moved = true;
    if (n > 0) {
        bytes_add(&c->got, piece, (size_t)n);
        return;
    }
    c->ended = true;
    c->reset = n < 0;
    stage_client_close(s);
}

/* ---- the origin ---- */

static void origin_accept(struct stage *s)
{
    int fd = accept4(s->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

    if (fd < 0)
        return;
    if (s->conn_count == STAGE_CONNS) {
        close(fd);
        return;
    }
    set_nodelay(fd);
    s->conns[s->conn_count] = (struct stage_conn){.fd = fd, .index = s->conn_total++};
    bytes_add(&s->conns[s->conn_count++].in, "", 0);
}

static bool is_default(const struct stage *s, const struct wire_message *m)
{
    return !s->now || !s->now->answer.p || text_is(m->target, "/behind") || text_is(m->target, "/fence");
}

static void answer(struct stage *s, struct stage_conn *c, const struct wire_message *m)
{
    struct bytes text = {0};

    script_free(&c->out);
    c->then = ORIGIN_KEEPS;
    if (!is_default(s, m)) {
        script_add(&c->out, s->now->answer);
        c->then = s->now->then;
        c->split = s->answer_split;
        c->tunnel = text_has(s->now->answer, "HTTP/1.1 101 ");
        return;
    }
    bytes_addf(&text, "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\n\r\n", m->target.n);
    if (m->line.n < 5 || memcmp(m->line.p, "HEAD ", 5) != 0)
        bytes_add(&text, m->target.p, m->target.n);
    script_add(&c->out, (struct text){text.p, text.n});
    c->split = SPLIT_NOT;
    bytes_free(&text);
}

static void keep_record(struct stage *s, const struct stage_conn *c, size_t n)
{
    struct stage_record *r = &s->records[s->record_count];

    if (s->record_count == STAGE_RECORDS)
        return;
    s->record_count++;
    *r = (struct stage_record){.conn = c->index};
    bytes_add(&r->raw, c->in.p + c->parsed, n);
    if (wire_read(&r->m, (struct text){r->raw.p, r->raw.n}, WIRE_REQUEST, false, false) != WIRE_OK)
        abort();
}

/* Takes what has come apart, one request after the other; each waits for its forerunner's answer. */
static void origin_parse(struct stage *s, struct stage_conn *c)
{
    if (c->tunnel)
        c->parsed = c->in.n;
    while (!c->tunnel && !c->fault && c->in.n > c->parsed && (script_is_over(&c->out) || c->answered)) {
        static struct wire_message m;
        struct text in = {c->in.p + c->parsed, c->in.n - c->parsed};
        enum wire_result r = wire_read(&m, in, WIRE_REQUEST, false, false);
        bool early = m.head_whole && !is_default(s, &m) && s->now->early;

        if (r == WIRE_BAD) {
            c->fault = m.fault;
            shutdown(c->fd, SHUT_WR);
        }
        if (m.head_whole && !text_is(m.target, "/fence") && !text_is(m.target, "/behind"))
            c->case_request = true;
        if (!c->answered && (r == WIRE_OK || (r == WIRE_MORE && early))) {
            answer(s, c, &m);
            c->answered = true;
        }
        if (r == WIRE_OK) {
            keep_record(s, c, m.used);
            c->parsed = c->tunnel ? c->in.n : c->parsed + m.used;
            c->answered = false;
        }
        wire_free(&m);
        if (r != WIRE_OK)
            return;
    }
}

static void conn_receive(struct stage *s, struct stage_conn *c)
{
    char piece[65536];
    ssize_t n = recv(c->fd, piece, sizeof piece, MSG_DONTWAIT);

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    s->news = s->moved = true;
    if (n == 0 && c->tunnel && !script_is_over(&c->out))
        c->heard_out = true;
    else if (n <= 0)
        conn_end(c);
    else
        bytes_add(&c->in, piece, (size_t)n);
}

/* The answer has gone out whole. */
static void conn_said(struct stage *s, struct stage_conn *c)
{
    s->news = true;
    if (c->then == ORIGIN_RESETS) {
        setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &(struct linger){1, 0}, sizeof(struct linger));
        conn_end(c);
    } else if (c->then == ORIGIN_CLOSES) {
        shutdown(c->fd, SHUT_WR);
        if (c->heard_out)
            conn_end(c);
    }
}

/* ---- moving both ---- */

static bool origin_has(const struct stage *s, const struct bytes *b)
{
    for (unsigned i = 0; i < s->conn_count; i++)
        if (memmem(s->conns[i].in.p, s->conns[i].in.n, b->p, b->n))
            return true;
    return false;
}

/* Passes waits that are over; true when there is something to be sent. */
static bool wants_to_send(const struct stage *s, struct script *out)
{
    const struct step *w;

    while ((w = script_awaits(out))) {
        bool there = w->kind == STEP_AWAIT_ORIGIN
                         ? origin_has(s, &w->bytes)
                         : memmem(s->client.got.p, s->client.got.n, w->bytes.p, w->bytes.n) != NULL;
        if (!there)
            return false;
        script_go_on(out);
    }
    return !script_is_over(out);
}

/* Sends the next piece; false when the connection takes no more for good. */
static bool send_piece(struct stage *s, int fd, struct script *out, enum split split)
{
    struct text t = script_piece(out, split, &s->random);
    ssize_t n = send(fd, t.p, t.n, MSG_NOSIGNAL | MSG_DONTWAIT);

    if (n < 0)
        return errno == EAGAIN || errno == EINTR;
    s->moved = true;
    script_sent(out, (size_t)n);
    if (split != SPLIT_NOT)
        sched_yield(); /* the proxy may look at this piece alone */
    return true;
}

static void client_send_turn(struct stage *s)
{
    struct stage_client *c = &s->client;

    if (!send_piece(s, c->fd, &c->out, c->split))
        c->out.step = c->out.count; /* it has closed; what it has said is read */
    if (script_is_over(&c->out))
        s->news = true;
}

static short events_of(const struct stage *s, struct script *out)
{
    return wants_to_send(s, out) ? POLLIN | POLLOUT : POLLIN;
}

static void client_fin(struct stage *s)
{
    struct stage_client *c = &s->client;

    if (c->fd < 0 || !c->half_close || c->fin_sent || !script_is_over(&c->out))
        return;
    c->fin_sent = true;
    shutdown(c->fd, SHUT_WR);
}

static void conn_turn(struct stage *s, struct stage_conn *c, short revents)
{
    if (c->fd >= 0 && revents & POLLOUT && wants_to_send(s, &c->out)) {
        if (!send_piece(s, c->fd, &c->out, c->split))
            conn_end(c);
        else if (script_is_over(&c->out))
            conn_said(s, c);
    }
    if (c->fd >= 0)
        origin_parse(s, c);
}

/* One turn: everything that can be read is read before anything is answered. */
static void stage_turn(struct stage *s, int timeout)
{
    struct pollfd p[STAGE_CONNS + 2] = {{.fd = s->listen_fd, .events = POLLIN}, {.fd = s->client.fd}};
    unsigned conns = s->conn_count;

    client_fin(s);
    if (s->client.fd >= 0)
        p[1].events = events_of(s, &s->client.out);
    for (unsigned i = 0; i < conns; i++) {
        p[2 + i] = (struct pollfd){.fd = s->conns[i].fd, .events = events_of(s, &s->conns[i].out)};
        if (s->conns[i].heard_out)
            p[2 + i].events &= ~POLLIN;
    }
    if (poll(p, 2 + conns, timeout) <= 0)
        return;
    for (unsigned i = 0; i < conns; i++)
        if (p[2 + i].revents & (POLLIN | POLLHUP | POLLERR))
            conn_receive(s, &s->conns[i]);
    for (unsigned i = 0; i < conns; i++)
        conn_turn(s, &s->conns[i], p[2 + i].revents);
    if (p[0].revents)
        origin_accept(s);
    if (s->client.fd >= 0 && p[1].revents & POLLOUT && wants_to_send(s, &s->client.out))
        client_send_turn(s);
    if (s->client.fd >= 0 && p[1].revents & (POLLIN | POLLHUP | POLLERR))
        client_receive(s);
}

bool stage_run(struct stage *s, stage_done *done, const void *arg)
{
    uint64_t deadline = deadline_in(s->patience);

    s->news = true;
    for (;;) {
        if (s->news && done(s, arg))
            return true;
        if (s->moved)
            deadline = deadline_in(s->patience);
        s->news = s->moved = false;
        if (left_ms(deadline) == 0)
            return false;
        stage_turn(s, left_ms(deadline));
    }
}

const struct stage_conn *stage_leftover(const struct stage *s)
{
    for (unsigned i = 0; i < s->conn_count; i++)
        if (s->conns[i].fault || s->conns[i].in.n > s->conns[i].parsed)
            return &s->conns[i];
    return NULL;
}

const struct stage_conn *stage_kept(const struct stage *s)
{
    for (unsigned i = 0; i < s->conn_count; i++)
        if (s->conns[i].case_request && !s->conns[i].ended)
            return &s->conns[i];
    return NULL;
}
