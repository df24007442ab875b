/* What actors do with the network: they listen (struct host), connect, and use their ends of connections. */
#include "net_impl.h"

#include <string.h>

/* ---- who listens ---- */

void host_add(struct host *h)
{
    h->next = net.hosts;
    net.hosts = h;
}

struct host *find_host(const struct sim_addr *at)
{
    for (struct host *h = net.hosts; h; h = h->next)
        if (sim_addr_eq(&h->at, at))
            return h;
    return NULL;
}

/* Who listens there; on TCP each listener listens on all addresses, of both families. */
struct sock *find_listener(const struct sim_addr *at)
{
    for (struct sock *s = net.listeners; s; s = s->next) {
        bool is_unix = s->at.family == AF_UNIX;
        if (is_unix != (at->family == AF_UNIX))
            continue;
        if (is_unix ? strcmp(s->at.path, at->path) == 0 && unix_file_exists(at->path) : s->at.port == at->port)
            return s;
    }
    return NULL;
}

bool net_listens(const struct sim_addr *at)
{
    return find_listener(at) != NULL;
}

/* ---- connections from actors ---- */

static void on_syn(struct event *event);

struct end *end_connect(const struct sim_addr *to, const struct sim_addr *from, struct rng r, end_fn *fn, void *owner)
{
    struct conn *c = conn_new(r, to->family == AF_UNIX);
    struct end *e = &c->end[0];
    e->fn = fn;
    e->owner = owner;
    trace("dial conn port from", (int64_t)c->id, to->port, from->ip[3]);
    c->to = *to;
    c->from = *from;
    event_init(&e->deliver, on_syn);
    event_set_in(&e->deliver, delay_of(c));
    return e;
}

/* Nobody listens, or nobody does any more. */
static void turn_away(struct conn *c)
{
    struct end *e = &c->end[0];
    c->end[1].closed = true;
    if (c->connected)
        e->tell_reset = true;
    else
        e->tell_refused = true;
    want_tell(e);
    conn_free_if_done(c);
}

/* The queue is full, or the machine is down. Linux drops the request, which comes again after 1, 2, 4 ... seconds. Or
 * it drops the last of the three packets of the handshake: then the caller takes itself for connected, and speaks, and
 * is not heard until there is room. Over a unix socket connect() waits. */
static void wait_for_room(struct conn *c)
{
    struct end *e = &c->end[0];
    c->waits = true;
    if (c->tries == 0 && !c->local && !net.down && rng_chance(&c->rng, 400)) {
        c->connected = e->tell_connected = true;
        c->taken_for = process.begun;
        want_tell(e);
    }
    uint64_t pause = c->local ? 200 * US : c->connected ? 200 * MS : S;
    event_init(&e->deliver, on_syn);
    event_set_in(&e->deliver, pause << (c->local ? 0 : c->tries));
    c->tries += c->tries < 6;
    trace("syn-waits conn times", (int64_t)c->id, c->tries, 0);
}

static void enter_queue(struct conn *c, struct sock *s)
{
    struct end *e = &c->end[0];
    s->queue.conns[s->queue.count++] = c;
    c->queued = sim_now();
    e->tell_connected |= !c->connected;
    c->connected = true;
    c->waits = false;
    want_tell(e);
    file_changed(&s->file);
    if (e->tx.len > 0 || e->fin_sent || e->reset_out)
        want_delivery(e);
}

/* An actor's connection request arrives at the daemon's machine. */
static void on_syn(struct event *event)
{
    struct end *e = (struct end *)(void *)((char *)event - offsetof(struct end, deliver));
    struct conn *c = e->conn;
    event_init(&e->deliver, on_deliver);
    struct sock *s = find_listener(&c->to);
    bool silent = !c->local && machine_is_down();
    if (c->connected && c->taken_for != process.begun)
        s = NULL; /* whoever listens there now knows nothing of it */
    if (e->closed || (!s && !silent))
        turn_away(c);
    else if (silent || s->queue.count > s->queue.backlog)
        wait_for_room(c);
    else
        enter_queue(c, s);
}

/* ---- what they do with an end ---- */

void end_own(struct end *e, end_fn *fn, void *owner)
{
    e->fn = fn;
    e->owner = owner;
    want_tell(e);
}

struct bytes *end_data(struct end *e)
{
    return &e->rx;
}

void end_took(struct end *e)
{
    read_from(e);
}

size_t end_write(struct end *e, const void *p, size_t n)
{
    return e->closed || e->fin_sent || e->reset_in || e->peer_closed || !e->conn->connected ? 0 : write_end(e, p, n);
}

void end_finish(struct end *e)
{
    finish_end(e);
}

void end_close(struct end *e)
{
    close_end(e, false);
}

void end_reset(struct end *e)
{
    close_end(e, can_reset(e));
}

void end_set_window(struct end *e, size_t bytes)
{
    e->window = bytes;
    read_from(e);
}

bool end_is_cut(const struct end *e)
{
    return e->peer_closed;
}

bool end_is_alone(const struct end *e)
{
    return other(e)->closed;
}

bool end_waits(const struct end *e)
{
    return e->conn->waits;
}

bool end_was_left(const struct end *e, uint64_t since)
{
    return e->conn->left && e->conn->queued >= since;
}

uint64_t end_id(const struct end *e)
{
    return e->conn->id;
}

uint64_t end_fed_at(const struct end *e)
{
    return other(e)->sent_at;
}

uint64_t end_fed(const struct end *e)
{
    return other(e)->sent;
}

uint64_t end_taken(const struct end *e)
{
    return other(e)->sent - other(e)->tx.len - e->rx.len;
}

uint64_t end_begun(const struct end *e)
{
    return e->conn->begun;
}

uint64_t end_begun_turn(const struct end *e)
{
    return e->conn->begun_turn;
}

/* The place in `writes` of the write that byte number `offset` was in; WRITES_KEPT when that is not known any more. */
static unsigned find_write(const struct end *o, uint64_t offset)
{
    unsigned kept = o->write_count < WRITES_KEPT ? o->write_count : WRITES_KEPT, first = o->write_count - kept;
    for (unsigned i = first; i < o->write_count; i++)
        if (o->writes[i % WRITES_KEPT].upto > offset) /* the oldest kept may stand for older ones, too */
            return i == first && first > 0 ? WRITES_KEPT : i % WRITES_KEPT;
    return WRITES_KEPT;
}

uint64_t end_turn_of(const struct end *e, uint64_t offset)
{
    unsigned i = find_write(other(e), offset);
    return i == WRITES_KEPT ? UINT64_MAX : other(e)->writes[i].turn;
}

uint64_t end_time_of(const struct end *e, uint64_t offset)
{
    unsigned i = find_write(other(e), offset);
    return i == WRITES_KEPT ? 0 : other(e)->writes[i].at;
}

/* ---- for the judge ---- */

unsigned net_accepted_open(void)
{
    return net.accepted_open;
}

void net_watch_crowd(unsigned connections)
{
    net.crowd = connections;
}

uint64_t net_crowded_at(void)
{
    return net.crowded_at;
}

unsigned net_made_open(void)
{
    return net.made_open;
}

uint64_t net_oldest_made(void)
{
    uint64_t oldest = 0;
    for (const struct conn *c = net.conns.next; c != &net.conns; c = c->next)
        if (c->end[0].sock && sim_now() - c->begun > oldest)
            oldest = sim_now() - c->begun;
    return oldest;
}
