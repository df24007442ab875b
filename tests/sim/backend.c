/* The backends: their connections' begin and end, their health, and all of them: begin, calm, who is out of order.
 * See backend_impl.h. */
#include "backend_impl.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

static const char *const health_names[] = {"healthy", "sick", "dead", "silent", "flaky"};

static struct backend backends[BACKENDS_MAX];
static struct rng name_stream;
bool backends_are_calm;

struct sim_addr backend_addr(unsigned i)
{
    char path[32];
    snprintf(path, sizeof path, "/run/b%u.sock", i);
    return world.set.backend[i].unix_socket ? sim_addr_unix(path) : sim_addr_v4(0x0a000001 + i, 9000);
}

unsigned backends_resolve(const char *name, struct sim_addr out[8], uint64_t *delay)
{
    struct rng *r = &name_stream;
    *delay = rng_spread(r, 100 * US, backends_are_calm ? 20 * MS : 800 * MS);
    unsigned i = (unsigned)(name[1] - '0');
    if (name[0] != 'b' || i >= world.set.backends || (!backends_are_calm && !world.gentle && rng_chance(r, 200)))
        return 0;
    out[0] = backend_addr(i);
    out[0].port = 0;
    return 1;
}

/* ---- the end of a connection ---- */

static struct bconn *graveyard;

static void bury_dead(void)
{
    while (graveyard) {
        struct bconn *c = graveyard;
        graveyard = c->next;
        free(c);
    }
}

void backend_conn_free(struct bconn *c)
{
    event_cancel(&c->act);
    side_forget(&c->tunnel);
    message_free(&c->in);
    bytes_free(&c->out);
    c->next->prev = c->prev;
    c->prev->next = c->next;
    c->gone = true;
    c->next = graveyard;
    graveyard = c;
}

void backend_conn_close(struct bconn *c, bool reset)
{
    if (c->tunnel.on) {
        side_leave(&c->tunnel, reset ? LEAVES_BY_RESET : LEAVES_BY_CLOSE);
        return;
    }
    if (c->s && c->s->protocol) /* between its early 101 and the request's end */
        flow_leave(&c->s->down, c->s, c->out.len, reset ? LEAVES_BY_RESET : LEAVES_BY_CLOSE);
    /* Content that ends with the connection must not seem to have ended. Over a unix socket it cannot be helped: what
     * was sent is the whole for all that anybody can tell. */
    if (c->s && c->headed && c->s->framing == FRAME_CLOSE && !c->s->whole) {
        reset = true;
        if (c->be->host.at.family == AF_UNIX) {
            c->s->length = c->written > c->out.len ? c->written - c->out.len : 0;
            c->s->whole = true;
        }
    }
    /* A reset overtakes what was written before it; so does the one that meets what is still to come. */
    if (reset || !c->request_whole || (c->end && end_data(c->end)->len > 0)) {
        if (c->s)
            c->s->doubtful = true;
        if (c->last)
            c->last->doubtful = true;
    }
    if (c->end) {
        struct end *e = c->end;
        c->end = NULL;
        if (reset)
            end_reset(e);
        else
            end_close(e);
    }
    backend_conn_free(c);
}

/* ---- its begin, and what comes ---- */

static void on_act(struct event *event)
{
    struct bconn *c = (struct bconn *)(void *)((char *)event - offsetof(struct bconn, act));
    if (c->busy)
        backend_pump(c);
    else if (c->in.state == MESSAGE_HEAD && end_data(c->end)->len == 0) {
        c->be->closed_kept_at = sim_now(); /* it was idle long enough */
        backend_conn_close(c, false);
    }
}

/* Promise: a kept connection that nobody uses is closed after `backend_idle`, or before where the backend is known to
 * close it itself. */
static void check_idle_time(const struct bconn *c)
{
    uint64_t idle = sim_now() - c->idle_since;
    if (!c->busy && !c->tunnel.on && c->idle_since > 0 && idle > world.set.backend_idle + network_slack())
        sim_fail("timing", "a connection to backend %u was kept for %" PRIu64 " ms instead of %" PRIu64, c->be->index,
                 idle / MS, world.set.backend_idle / MS);
}

static void on_end(void *owner, struct end *e, enum end_event event)
{
    struct bconn *c = owner;
    (void)e;
    switch (event) {
    case END_READABLE: backend_take(c); break;
    case END_ROOM:
        if (c->answered && c->out.len > 0 && backend_flush(c))
            backend_settle(c);
        else
            backend_pump(c);
        break;
    case END_FIN:
        check_idle_time(c);
        if (c->tunnel.on)
            side_event(&c->tunnel, END_FIN);
        else
            backend_conn_close(c, false);
        break;
    case END_RESET:
        c->end = NULL;
        backend_conn_free(c);
        break;
    default: break;
    }
}

static void on_accept(void *owner, struct end *e)
{
    struct backend *be = owner;
    struct bconn *c = calloc(1, sizeof *c);
    if (!c)
        abort();
    bury_dead();
    c->be = be;
    c->end = e;
    c->rng = rng_of("bconn", (uint64_t)be->index << 32 | be->conn_count++);
    message_init(&c->in, MESSAGE_REQUEST);
    event_init(&c->act, on_act);
    c->next = be->conns.next;
    c->prev = &be->conns;
    be->conns.next->prev = c;
    be->conns.next = c;
    end_own(e, on_end, c);
    if (be->health == SILENT)
        end_set_window(e, 0); /* accepted by its kernel, read by nobody */
    else if (rng_chance(&c->rng, 30))
        end_set_window(e, rng_spread(&c->rng, 9000, 30000)); /* reads little at a time, but whole heads */
}

/* ---- better and worse ---- */

static void close_all(struct backend *be)
{
    be->broken = true;
    be->unwell_at = sim_now();
    while (be->conns.next != &be->conns) {
        struct bconn *c = be->conns.next;
        backend_conn_close(c, rng_chance(&be->rng, 500));
    }
}

static void set_health(struct backend *be, enum health h)
{
    trace("health backend state", be->index, h, 0);
    trace_text("backend %u is %s", be->index, health_names[h]);
    if (be->health != HEALTHY)
        be->unwell_at = sim_now(); /* it was, until now */
    be->health = h;
    be->broken |= h == DEAD || h == SILENT;
    if (h == DEAD || (h == HEALTHY && be->host.mode == HOST_ACCEPTS && rng_chance(&be->rng, 200)))
        close_all(be);
    be->host.mode = h == DEAD     ? (rng_chance(&be->rng, 800) ? HOST_REFUSES : HOST_UNREACHABLE)
                    : h == SILENT ? (rng_chance(&be->rng, 500) ? HOST_SILENT : HOST_ACCEPTS)
                                  : HOST_ACCEPTS;
    for (struct bconn *c = be->conns.next; c != &be->conns; c = c->next)
        end_set_window(c->end, h == SILENT ? 0 : 65536);
    be->host.slow = h != HEALTHY && rng_chance(&be->rng, 200) ? rng_spread(&be->rng, MS, 2 * S) : 0;
    be->broken |= be->host.slow > 0;
}

static void on_change(struct event *e)
{
    struct backend *be = (struct backend *)(void *)((char *)e - offsetof(struct backend, change));
    if (backends_are_calm)
        return;
    set_health(be, be->health != HEALTHY || rng_chance(&be->rng, 300) ? HEALTHY
                                                                      : (enum health)rng_below(&be->rng, HEALTHS));
    event_set_in(&be->change, rng_spread(&be->rng, 50 * MS, 2 * S));
}

/* ---- all of them ---- */

void backends_begin(void)
{
    backends_are_calm = false;
    name_stream = rng_of("names", 0);
    for (unsigned i = 0; i < world.set.backends; i++) {
        struct backend *be = &backends[i];
        *be = (struct backend){.index = i, .rng = rng_of("backend", i)};
        be->conns.next = be->conns.prev = &be->conns;
        be->host = (struct host){.at = backend_addr(i), .mode = HOST_ACCEPTS, .on_accept = on_accept, .owner = be};
        be->idle_patience = rng_chance(&be->rng, 400) && !world.gentle ? rng_spread(&be->rng, 20 * MS, 3 * S) : 0;
        host_add(&be->host);
        event_init(&be->change, on_change);
        if (world.faulty_backends && world_has("backend", i))
            event_set_in(&be->change, rng_spread(&be->rng, 10 * MS, S));
        be->misbehaves = world.faulty_backends && world_has("misdeeds", i);
        if (be->idle_patience > 0 && !world_has("idle-close", i))
            be->idle_patience = 0;
    }
}

void backends_calm(void)
{
    backends_are_calm = true;
    for (unsigned i = 0; i < world.set.backends; i++) {
        event_cancel(&backends[i].change);
        if (backends[i].health != HEALTHY)
            set_health(&backends[i], HEALTHY);
        backends[i].host.slow = 0;
        /* One that closes at once could close under the very request that must succeed. */
        backends[i].idle_patience = 0;
        for (struct bconn *c = backends[i].conns.next; c != &backends[i].conns; c = c->next) {
            if (!c->busy)
                event_cancel(&c->act);
            if (c->tunnel.on)
                side_calm(&c->tunnel);
        }
    }
}

/* What happened at `at` (0: never) may have been on its way to the daemon until later. */
static bool is_heard_since(uint64_t at, uint64_t since)
{
    return at > 0 && at + 50 * MS + 30 * kernel.latency >= since;
}

bool backends_unwell_since(uint64_t since)
{
    for (unsigned i = 0; i < world.set.backends; i++) {
        const struct backend *be = &backends[i];
        if (be->health != HEALTHY || is_heard_since(be->unwell_at, since))
            return true;
    }
    return false;
}

bool backend_closed_kept_since(unsigned i, uint64_t since)
{
    if (i < BACKENDS_MAX)
        return is_heard_since(backends[i].closed_kept_at, since);
    for (i = 0; i < world.set.backends; i++)
        if (is_heard_since(backends[i].closed_kept_at, since))
            return true;
    return false;
}

void backend_check_count(unsigned i, bool up)
{
    const struct backend *be = &backends[i];
    unsigned n = up ? be->good_probes : be->bad_probes, least = up ? world.set.rise : world.set.fall;
    /* The first one of a process decides at once. Whatever was between the last of the other kind and now may have kept
     * the daemon from hearing that one; and where threads are held up an answer may come too late. */
    if (be->broken || world.delays ||
        fault_since(SHOWN_HEAP | SHOWN_DESCRIPTORS | SHOWN_EPOLL | SHOWN_CONNECT, be->turned_at) ||
        world.set.backend[i].named || be->probes_in_life <= least || n >= least)
        return;
    sim_fail("health", "backend %u is %s after %u probes in a row; it takes %u", i, up ? "up" : "down", n, least);
}

void backends_new_process(void)
{
    for (unsigned i = 0; i < world.set.backends; i++) {
        struct backend *be = &backends[i];
        be->good_probes = be->bad_probes = be->probes_in_life = 0;
        be->probed_at = be->answered_at = be->turned_at = 0;
        be->broken = true; /* until the first good one */
    }
}

void backends_count_from_here(void)
{
    for (unsigned i = 0; i < world.set.backends; i++)
        backends[i].counted = 0;
}

unsigned backend_counted(unsigned i)
{
    return backends[i].counted;
}

void backends_end(void)
{
    for (unsigned i = 0; i < world.set.backends; i++)
        while (backends[i].conns.next != &backends[i].conns)
            backend_conn_free(backends[i].conns.next);
    bury_dead();
}
