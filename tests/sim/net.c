/* The network between the daemon and the actors: stream sockets of TCP and unix kind.
 *
 *     end 0                                                end 1
 *     tx: taken by its kernel  --deliver, after a delay-->  rx: arrived, not read yet
 *     rx  <--deliver--------------------------------------- tx
 *
 * The one who calls connect() is end 0. Each end belongs to a socket of the daemon or to an actor. What is in tx moves
 * in pieces, as the seed cuts them, while there is room in rx (the window). Behind the bytes comes FIN; a reset
 * overtakes them. Closing an end while bytes are unread, or with SO_LINGER 0, resets, and so do bytes that arrive where
 * nobody is any more (RFC 9293 sections 3.5.2 and 3.6).
 *
 * Over a unix socket there is no network between the ends: a close is seen at once on the other side, behind all that
 * was written before it, and nothing can be written there any more. SO_LINGER has no effect; but who closes with bytes
 * unread leaves ECONNRESET behind what it has written (unix(7); Linux 6.18, measured). */
#include "net_impl.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

struct net net;

/* ---- addresses ---- */

void copy_path(char out[64], const char *path)
{
    if (strlen(path) >= 64)
        sim_fail("kernel", "the path of a unix socket is too long");
    strcpy(out, path);
}

struct sim_addr sim_addr_v4(uint32_t ip, uint16_t port)
{
    struct sim_addr a = {.family = AF_INET, .port = port};
    for (unsigned i = 0; i < 4; i++)
        a.ip[i] = (uint8_t)(ip >> (24 - 8 * i));
    return a;
}

struct sim_addr sim_addr_unix(const char *path)
{
    struct sim_addr a = {.family = AF_UNIX};
    copy_path(a.path, path);
    return a;
}

bool sim_addr_eq(const struct sim_addr *a, const struct sim_addr *b)
{
    return a->family == b->family && a->port == b->port && memcmp(a->ip, b->ip, sizeof a->ip) == 0 &&
           strcmp(a->path, b->path) == 0;
}

struct sim_addr from_kernel(const struct sockaddr *sa)
{
    struct sim_addr a = {.family = sa->sa_family};
    if (sa->sa_family == AF_INET) {
        struct sockaddr_in in;
        memcpy(&in, sa, sizeof in);
        memcpy(a.ip, &in.sin_addr, 4);
        a.port = ntohs(in.sin_port);
    } else if (sa->sa_family == AF_INET6) {
        struct sockaddr_in6 in6;
        memcpy(&in6, sa, sizeof in6);
        memcpy(a.ip, &in6.sin6_addr, 16);
        a.port = ntohs(in6.sin6_port);
    } else {
        copy_path(a.path, ((const struct sockaddr_un *)(const void *)sa)->sun_path);
    }
    return a;
}

void to_kernel(const struct sim_addr *a, struct sockaddr *sa, socklen_t *n)
{
    if (a->family == AF_INET) {
        struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(a->port)};
        memcpy(&in.sin_addr, a->ip, 4);
        memcpy(sa, &in, sizeof in);
        *n = sizeof in;
    } else if (a->family == AF_INET6) {
        struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_port = htons(a->port)};
        memcpy(&in6.sin6_addr, a->ip, 16);
        memcpy(sa, &in6, sizeof in6);
        *n = sizeof in6;
    } else {
        struct sockaddr_un un = {.sun_family = AF_UNIX};
        memcpy(un.sun_path, a->path, sizeof a->path);
        *n = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(a->path) + 1);
        memcpy(sa, &un, *n);
    }
}

/* ---- telling actors: never from inside their own calls ---- */

void want_tell(struct end *e)
{
    if (!e->closed && e->fn && !event_pending(&e->tell))
        event_set_in(&e->tell, 0);
}

static void tell_one(struct end *e, bool *due, enum end_event event)
{
    if (!*due || e->closed)
        return;
    *due = false;
    trace("tell conn what", (int64_t)e->conn->id, event, 0);
    e->fn(e->owner, e, event);
}

static void on_tell(struct event *event)
{
    struct end *e = (struct end *)(void *)((char *)event - offsetof(struct end, tell));
    struct conn *c = e->conn;
    c->in_use = true;
    tell_one(e, &e->tell_connected, END_CONNECTED);
    if (!e->reset_in)
        tell_one(e, &e->tell_readable, END_READABLE);
    if (e->tell_fin && !e->fin_told && !e->closed && !e->reset_in) {
        e->fin_told = true;
        tell_one(e, &e->tell_fin, END_FIN);
    }
    if (!e->reset_in)
        tell_one(e, &e->tell_room, END_ROOM);
    if (!e->closed && (e->tell_refused || e->tell_reset)) {
        enum end_event why = e->tell_refused ? END_REFUSED : END_RESET;
        e->closed = true;
        trace("tell conn what", (int64_t)e->conn->id, why, 0);
        e->fn(e->owner, e, why);
    }
    c->in_use = false;
    conn_free_if_done(c);
}

void end_changed(struct end *e)
{
    if (e->sock)
        file_changed(&e->sock->file);
}

/* ---- delivery ---- */

uint64_t delay_of(struct conn *c)
{
    return c->local ? 1 + rng_below(&c->rng, 5 * US) : c->latency / 2 + rng_below(&c->rng, c->latency);
}

void want_delivery(struct end *e)
{
    bool probing = e->probing;
    e->probing = false;
    if (!event_pending(&e->deliver) || probing)
        event_set_in(&e->deliver, delay_of(e->conn));
}

void break_end(struct end *e, int error)
{
    e->reset_in = true;
    e->error = error;
    bytes_clear(&e->tx);
    e->tell_reset = true;
    want_tell(e);
    end_changed(e);
}

/* tcp_reset() of Linux: behind a FIN it says EPIPE, and once both FINs have come through nothing is left to reset. */
static void receive_reset(struct end *e)
{
    if (e->reset_in || (e->fin_in && e->fin_gone))
        return;
    trace("reset-arrives conn end", (int64_t)e->conn->id, e == &e->conn->end[1], 0);
    /* An actor may be of another make: there a reset takes the bytes along that were not read yet. */
    if (e->fn && rng_chance(&e->conn->rng, 500))
        bytes_clear(&e->rx);
    break_end(e, e->fin_in && !e->fin_sent ? EPIPE : ECONNRESET);
}

/* How much of `n` bytes arrives at once. A long stream is not cut into crumbs to its end. */
static size_t cut(struct end *e, size_t n)
{
    struct conn *c = e->conn;
    if (n < 2 || kernel.chunk == 0)
        return n;
    if (kernel.chunk == 2 && e->sent - e->tx.len < 5000)
        return rng_between(&c->rng, 1, n < 7 ? n : 7);
    return rng_chance(&c->rng, 500) ? n : rng_between(&c->rng, 1, n);
}

static void put_across(struct end *e, struct end *o, size_t n)
{
    bytes_add(&o->rx, bytes_at(&e->tx), n);
    bytes_drop(&e->tx, n);
    trace("arrive conn end bytes", (int64_t)e->conn->id, o == &e->conn->end[1], (int64_t)n);
    o->tell_readable = true;
    want_tell(o);
    end_changed(o);
}

/* Moves a piece of tx to the other side. */
static void move_piece(struct end *e, struct end *o)
{
    size_t room = o->window > o->rx.len ? o->window - o->rx.len : 0;
    size_t n = e->tx.len < room ? e->tx.len : room;
    if (n == 0)
        return;
    n = cut(e, n);
    put_across(e, o, n);
    e->tell_room = true;
    want_tell(e);
    end_changed(e);
    if (e->tx.len > 0 && n < room)
        event_set_in(&e->deliver, 1 + rng_below(&e->conn->rng, e->conn->local ? US : 50 * US));
}

void on_deliver(struct event *event)
{
    struct end *e = (struct end *)(void *)((char *)event - offsetof(struct end, deliver)), *o = other(e);
    if (o->vanished) {
        meet_nobody(e);
        return;
    }
    if (e->reset_out) {
        receive_reset(o);
    } else if (o->closed && e->tx.len > 0) {
        receive_reset(e); /* nobody is there any more */
    } else if (!o->closed) {
        move_piece(e, o);
        if (e->tx.len == 0 && e->fin_sent && !e->fin_gone) {
            e->fin_gone = true;
            o->fin_in = o->tell_fin = true;
            trace("fin-arrives conn end", (int64_t)e->conn->id, o == &e->conn->end[1], 0);
            want_tell(o);
            end_changed(o);
        }
    } else if (e->fin_sent) {
        e->fin_gone = true;
    }
    conn_free_if_done(e->conn);
}

/* After bytes were read at `e`: the other side may send on. */
void read_from(struct end *e)
{
    struct end *o = other(e);
    if (o->tx.len > 0 && !o->reset_in)
        want_delivery(o);
    if (e->conn->local && !o->closed) {
        o->tell_room = true;
        want_tell(o);
        end_changed(o);
    }
}

/* ---- connections ---- */

static void end_init(struct end *e, struct conn *c)
{
    e->conn = c;
    e->window = rng_spread(&c->rng, 2048, 256 * 1024);
    e->tx_room = rng_spread(&c->rng, 4096, 256 * 1024);
    event_init(&e->deliver, on_deliver);
    event_init(&e->tell, on_tell);
}

struct conn *conn_new(struct rng r, bool local)
{
    struct conn *c = zalloc(sizeof *c);
    c->rng = r;
    c->id = ++net.next_id;
    c->local = local;
    c->latency = kernel.latency / 2 + rng_below(&c->rng, kernel.latency + 1);
    c->begun = sim_now();
    c->begun_turn = process.turns;
    end_init(&c->end[0], c);
    end_init(&c->end[1], c);
    c->next = net.conns.next;
    c->prev = &net.conns;
    net.conns.next->prev = c;
    net.conns.next = c;
    return c;
}

static void conn_free(struct conn *c)
{
    for (unsigned i = 0; i < 2; i++) {
        event_cancel(&c->end[i].deliver);
        event_cancel(&c->end[i].tell);
        bytes_free(&c->end[i].rx);
        bytes_free(&c->end[i].tx);
    }
    c->next->prev = c->prev;
    c->prev->next = c->next;
    free(c);
}

void conn_free_if_done(struct conn *c)
{
    struct end *a = &c->end[0], *b = &c->end[1];
    bool pending = event_pending(&a->deliver) || event_pending(&b->deliver);
    if (a->closed && b->closed && !pending && !c->in_use)
        conn_free(c);
}

bool can_reset(const struct end *e)
{
    return !e->conn->local;
}

/* The other side of a unix socket learns of the close. */
static void leave_local(struct end *e, bool reset)
{
    struct end *o = other(e);
    if (o->closed)
        return;
    if (e->tx.len > 0)
        put_across(e, o, e->tx.len);
    o->fin_in = o->peer_closed = true;
    if (reset) {
        o->error = ECONNRESET;
        o->tell_reset = true;
    } else {
        o->tell_fin = true;
    }
    want_tell(o);
    end_changed(o);
}

static void close_local(struct end *e, bool reset)
{
    struct end *o = other(e);
    reset |= e->rx.len > 0 || o->tx.len > 0;
    e->closed = true;
    e->sock = NULL;
    event_cancel(&e->tell);
    trace("close conn end reset", (int64_t)e->conn->id, e == &e->conn->end[1], reset);
    leave_local(e, reset);
    bytes_clear(&e->rx);
    bytes_clear(&e->tx);
    bytes_clear(&o->tx);
    event_cancel(&e->deliver);
    event_cancel(&o->deliver);
    conn_free_if_done(e->conn);
}

void close_end(struct end *e, bool reset)
{
    if (e->closed)
        return;
    if (e->conn->local && e->conn->connected) {
        close_local(e, reset);
        return;
    }
    e->closed = true;
    e->sock = NULL;
    event_cancel(&e->tell);
    trace("close conn end reset", (int64_t)e->conn->id, e == &e->conn->end[1], reset || e->rx.len > 0);
    if (reset || e->rx.len > 0) {
        e->reset_out = true;
        bytes_clear(&e->tx);
        bytes_clear(&e->rx);
    } else {
        e->fin_sent = true;
    }
    if (e->reset_in)
        e->reset_out = false; /* it is over on both sides */
    if (!e->reset_in)
        want_delivery(e);
    if (other(e)->tx.len > 0 && !other(e)->reset_in)
        want_delivery(other(e));
    conn_free_if_done(e->conn);
}

void finish_end(struct end *e)
{
    if (e->fin_sent)
        return;
    e->fin_sent = true;
    want_delivery(e);
}

/* Over a unix socket the sender pays for what the other side has not read yet. */
size_t end_unacked(const struct end *e)
{
    return e->tx.len + (e->conn->local ? other(e)->rx.len : 0);
}

size_t end_room(const struct end *e)
{
    size_t used = end_unacked(e);
    return e->tx_room > used ? e->tx_room - used : 0;
}

size_t write_end(struct end *e, const void *p, size_t n)
{
    size_t room = end_room(e);
    if (n > room)
        n = room;
    if (n == 0)
        return 0;
    bytes_add(&e->tx, p, n);
    trace_bytes(p, n);
    e->sent += n;
    e->sent_at = sim_now();
    bool first = e->write_count == 0 || e->writes[(e->write_count - 1) % WRITES_KEPT].turn != process.turns;
    e->write_count += first;
    unsigned last = (e->write_count - 1) % WRITES_KEPT;
    if (first)
        e->writes[last].at = e->sent_at;
    e->writes[last].upto = e->sent;
    e->writes[last].turn = process.turns;
    want_delivery(e);
    return n;
}

/* ---- a run ---- */

void net_begin(void)
{
    memset(&net, 0, sizeof net);
    net.rng = rng_of("network", 0);
    net.somaxconn = (unsigned)rng_spread(&net.rng, 2, SOMAXCONN_MOST);
    net.conns.next = net.conns.prev = &net.conns;
}

void net_end(void)
{
    while (net.conns.next != &net.conns)
        conn_free(net.conns.next);
    net_begin();
}
