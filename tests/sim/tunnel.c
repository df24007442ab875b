/* One end of a tunnel, a client's or a backend's. Each sends its own pattern and holds what comes against the other's.
 *
 *   sends: pieces, rests ----> FIN, when all is sent (or the other's has come) --+
 *                                                                               +--> closes, in order
 *   reads, stops for a while ----> the other's FIN, behind all that it has sent -+
 *
 * or leaves in the middle, or is cut: then there must be a reason (judge_tunnel_cut()). */
#include "world.h"

#include <inttypes.h>

#define LOOK (500 * MS)

static bool calm;

static const char *name_of(const struct side *t)
{
    return t->client ? "client" : "backend";
}

uint64_t tunnel_length(struct rng *g)
{
    return rng_chance(g, 8)    ? rng_between(g, 1500000, 5000000)
           : rng_chance(g, 90) ? rng_spread(g, 50000, 500000)
                               : rng_spread(g, 0, 20000);
}

/* When its ends last gave or took something. */
static uint64_t last_move(const struct request *r, const struct served *s)
{
    const uint64_t at[] = {r->up.sent_at, r->up.taken_at, s->down.sent_at, s->down.taken_at};
    uint64_t last = 0;
    for (unsigned i = 0; i < sizeof at / sizeof at[0]; i++)
        last = at[i] > last ? at[i] : last;
    return last;
}

/* ---- the end ---- */

void side_forget(struct side *t)
{
    if (!t->on)
        return;
    t->on = false;
    event_cancel(&t->write_act);
    event_cancel(&t->read_act);
    event_cancel(&t->look);
}

static void over(struct side *t, const char *how)
{
    trace("tunnel-ends id client in", t->r->id, t->client, (int64_t)t->in->received);
    trace_text("request %u: its %s's end of the tunnel: %s, %" PRIu64 " bytes sent, %" PRIu64 " got", t->r->id,
               name_of(t), how, t->out->sent, t->in->received);
    side_forget(t);
    t->done(t, how);
}

/* The end is about to go. */
static struct end *let_go(struct side *t)
{
    struct end *e = t->e;
    t->in->fed_at = end_fed_at(e);
    t->in->fed = end_fed(e) - t->in->before;
    t->in->sink = t->e = NULL;
    return e;
}

void flow_leave(struct flow *f, const struct served *s, size_t unsent, enum leaving how)
{
    f->left = true;
    f->left_at = sim_now();
    /* To the other side a close is an end like any other, unless something comes for who is no more. */
    f->sent -= unsent < f->sent ? unsent : f->sent;
    f->ended |= how == LEAVES_BY_CLOSE || world.set.unix_listen || world.set.backend[s->backend].unix_socket;
}

void side_leave(struct side *t, enum leaving how)
{
    struct end *e = let_go(t);
    flow_leave(t->out, t->s, t->unsent->len, how);
    if (!t->client)
        t->s->doubtful = true;
    if (how == LEAVES_BY_VANISHING)
        end_vanish(e);
    else if (how == LEAVES_BY_RESET)
        end_reset(e);
    else
        end_close(e);
    over(t, "left in the middle");
}

static void cut(struct side *t, const char *how)
{
    judge_tunnel_cut(t->r, t->s, t->client, how);
    over(t, how);
}

/* Over a unix socket that was closed at the other side, behind a FIN perhaps that has been told. */
static void lose(struct side *t)
{
    end_close(let_go(t));
    cut(t, "closed");
}

/* ---- reading ---- */

/* Promise: each byte is the one that the other side sent, and none comes before it was sent. */
static void check(struct side *t, const char *p, size_t n)
{
    struct flow *f = t->in;
    if (f->received + n > f->sent || !pattern_matches(f->key, f->received, p, n))
        sim_fail("tunnel", "request %u: its %s gets what was not sent, at or behind byte %" PRIu64, t->r->id,
                 name_of(t), f->received);
    if (!t->client && t->r->taker && t->r->taker != t->s)
        sim_fail("tunnel", "request %u: two backends get bytes of one tunnel", t->r->id);
    if (!t->client)
        t->r->taker = t->s;
    f->received += n;
    f->taken_at = sim_now();
}

static void take(struct side *t)
{
    struct bytes *in = end_data(t->e);
    while (in->len > 0 && !event_pending(&t->read_act)) {
        bool stops = t->stop > 0 && t->in->received + in->len >= t->stop_at && t->in->received <= t->stop_at;
        size_t n = stops ? (size_t)(t->stop_at - t->in->received) : in->len;
        bool sips = t->sip > 0 && sim_now() < t->slow_until;
        if (sips && n > t->sip) {
            n = (size_t)t->sip;
            stops = false;
        }
        if (n > 0)
            check(t, bytes_at(in), n);
        bytes_drop(in, n);
        if (stops)
            event_set_in(&t->read_act, t->stop);
        else if (sips)
            event_set_in(&t->read_act, t->sip_pause);
        if (stops)
            t->stop = 0;
    }
    end_took(t->e);
}

/* The other's FIN, behind all that was read. Promise: that is all that it has sent. */
static void see_fin(struct side *t)
{
    struct flow *f = t->in;
    if (!f->ended || f->received != f->sent) {
        end_close(let_go(t));
        cut(t, "FIN");
        return;
    }
    f->seen = true;
}

/* ---- writing ---- */

static bool flush(struct side *t)
{
    while (t->unsent->len > 0) {
        size_t n = end_write(t->e, bytes_at(t->unsent), t->unsent->len);
        if (n == 0)
            return false;
        t->out->sent_at = sim_now();
        bytes_drop(t->unsent, n);
    }
    return true;
}

static void write_piece(struct side *t)
{
    struct flow *f = t->out;
    uint64_t left = f->length - f->sent, n = left < t->piece ? left : t->piece;
    if (t->rest > 0 && f->sent < t->rest_at && f->sent + n > t->rest_at)
        n = t->rest_at - f->sent;
    if (t->leaves != LEAVES_NOT && f->sent < t->leaves_at && f->sent + n > t->leaves_at)
        n = t->leaves_at - f->sent;
    if (t->ticks > 0)
        n = 1;
    pattern_add(t->unsent, f->key, f->sent, (size_t)n);
    f->sent += n;
    uint64_t wait = t->pause;
    if (t->ticks > 0)
        t->ticks--;
    if (t->rest > 0 && f->sent >= t->rest_at) {
        wait = t->rest;
        t->rest = 0;
    }
    if (wait > 0)
        event_set_in(&t->write_act, wait);
}

/* False when it has left. */
static bool give(struct side *t)
{
    struct flow *f = t->out;
    while (flush(t) && !event_pending(&t->write_act)) {
        if (t->leaves != LEAVES_NOT && f->sent >= t->leaves_at) {
            side_leave(t, t->leaves);
            return false;
        }
        if (f->sent == f->length)
            break;
        write_piece(t);
    }
    if (t->unsent->len > 0 && end_is_cut(t->e)) {
        lose(t);
        return false;
    }
    bool waits = (t->ends_last || t->silent) && !t->in->seen;
    if (!f->ended && f->sent == f->length && t->unsent->len == 0 && !event_pending(&t->write_act) && !waits) {
        f->ended = true;
        end_finish(t->e);
    }
    return true;
}

/* ---- what happens ---- */

static void step(struct side *t)
{
    take(t);
    if (t->fin && !t->in->seen && end_data(t->e)->len == 0)
        see_fin(t);
    if (!t->on || !give(t))
        return;
    if (!t->out->ended || !t->in->seen)
        return;
    end_close(let_go(t));
    over(t, "ended in order");
}

void side_event(struct side *t, enum end_event event)
{
    t->fin |= event == END_FIN;
    if (event == END_RESET) {
        let_go(t);
        cut(t, "reset");
        return;
    }
    step(t);
}

static void on_end(void *owner, struct end *e, enum end_event event)
{
    (void)e;
    side_event(owner, event);
}

static void on_write_act(struct event *event)
{
    step((struct side *)(void *)((char *)event - offsetof(struct side, write_act)));
}

static void on_read_act(struct event *event)
{
    step((struct side *)(void *)((char *)event - offsetof(struct side, read_act)));
}

/* Promise: a tunnel through which nothing moves is ended in time. And nobody waits for somebody who has vanished. */
static void on_look(struct event *event)
{
    struct side *t = (struct side *)(void *)((char *)event - offsetof(struct side, look));
    if (end_is_cut(t->e) && t->fin && !t->out->ended) {
        lose(t);
        return;
    }
    uint64_t quiet = sim_now() - last_move(t->r, t->s);
    bool alive = process_alive() && t->r->life == world.deaths && t->r->deaths == world.deaths;
    /* A close behind a FIN is silent: who has nothing to say does not notice. */
    bool closed = end_is_alone(t->e);
    if (alive && !closed && !event_pending(&t->read_act) && quiet > world.set.tunnel + network_slack() + 2 * S)
        sim_fail("stuck", "request %u: nothing has moved through its tunnel for %" PRIu64 " ms", t->r->id, quiet / MS);
    if (t->in->left && sim_now() - t->in->left_at > (calm ? S : 4 * S)) {
        side_leave(t, LEAVES_BY_RESET);
        return;
    }
    event_set_in(event, LOOK);
}

/* ---- begin ---- */

static void draw(struct side *t, bool may_leave)
{
    struct rng *g = &t->rng;
    uint64_t length = t->out->length;
    t->piece = rng_chance(g, 500) ? 65536 : rng_spread(g, 1, 20000);
    if (t->piece * 300 < length)
        t->piece = length / 300 + 1;
    t->pause = rng_chance(g, 600) ? 0 : rng_spread(g, 1, 20 * MS);
    t->rest_at = rng_below(g, length + 1);
    t->rest = rng_chance(g, 300) ? rng_spread(g, MS, rng_chance(g, 200) ? 4 * S : 300 * MS) : 0;
    /* Rather towards the end, where both sides may have said already that it has come. */
    uint64_t before = rng_spread(g, 1, 200000), all = t->in->length;
    t->stop_at = rng_chance(g, 500) ? rng_spread(g, 0, 100000) : before < all ? all - before : 0;
    t->stop = rng_chance(g, 300) ? rng_spread(g, MS, rng_chance(g, 300) ? 4 * S : 500 * MS) : 0;
    t->sip = rng_chance(g, 150) && !world.gentle ? rng_spread(g, 500, 8000) : 0;
    t->sip_pause = rng_spread(g, MS, 30 * MS);
    t->slow_until = sim_now() + rng_spread(g, 100 * MS, 2 * S);
    t->leaves_at = rng_below(g, length + 1);
    t->leaves =
        may_leave && rng_chance(g, 120) ? (enum leaving)rng_between(g, LEAVES_BY_RESET, LEAVES_BY_CLOSE) : LEAVES_NOT;
    t->ends_last = t->client == t->r->ends_last;
    /* One stops when both sides may have said all, but more is left than the kernel takes, and for longer than whoever
     * has that in hand may wait. */
    if (rng_chance(g, 300) && world.set.tunnel_short && !world.gentle && all > 30000) {
        t->stop_at = rng_below(g, all / 2);
        t->stop = 10 * S;
        t->sip = 0;
        t->ends_last = false;
    }
}

/* What one is told to do that serves a client with a watch (timing.c). */
static void follow_manner(struct side *t)
{
    t->stop = t->rest = t->sip = 0;
    t->leaves = LEAVES_NOT;
    t->silent = true;
    if (t->r->manner == TUNNEL_TICKS) {
        t->ticks = t->out->length - t->out->sent;
        t->pause = world.set.tunnel / 3;
    }
}

void side_begin(struct side *t, struct end *e, struct request *r, struct served *s, bool client, bool may_leave)
{
    struct bytes *unsent = t->unsent;
    void (*done)(struct side * t, const char *how) = t->done;
    *t = (struct side){.on = true, .client = client, .r = r, .s = s, .e = e, .unsent = unsent, .done = done};
    t->out = client ? &r->up : &s->down;
    t->in = client ? &s->down : &r->up;
    t->rng =
        rng_of(client ? "tunnel client" : "tunnel backend", (uint64_t)r->id * SERVED_MAX + (uint64_t)(s - r->served));
    t->out->sent_at = t->in->taken_at = sim_now();
    t->in->sink = e;
    t->in->before = end_taken(e);
    event_init(&t->write_act, on_write_act);
    event_init(&t->read_act, on_read_act);
    event_init(&t->look, on_look);
    draw(t, may_leave && !calm && !world.gentle);
    if (calm)
        side_calm(t);
    if (!client && r->manner != TUNNEL_AS_DRAWN)
        follow_manner(t);
    trace("tunnel-begins id client length", r->id, client, (int64_t)t->out->length);
    tally.tunnels += client;
    end_own(e, on_end, t);
    event_set_in(&t->look, LOOK);
    event_set_in(&t->write_act, 0);
}

void side_calm(struct side *t)
{
    t->rest = t->stop = t->pause = t->sip = 0;
    t->leaves = LEAVES_NOT;
    if (event_pending(&t->read_act))
        event_set_in(&t->read_act, 0);
    event_set_in(&t->write_act, 0);
}

void tunnels_begin(void)
{
    calm = false;
}

void tunnels_calm(void)
{
    calm = true;
}
