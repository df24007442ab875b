/* What a backend answers: draws how each answer goes and writes it piece by piece, right or wrong; what becomes of the
 * connection behind it; and the 101s. */
#include "backend_impl.h"

/* ---- answers ---- */

static enum misdeed draw_misdeed(struct bconn *c)
{
    unsigned chance = c->be->health == FLAKY ? 400 : 40;
    if (!rng_chance(&c->rng, chance) || !c->be->misbehaves || backends_are_calm)
        return RIGHT;
    return (enum misdeed)rng_between(&c->rng, 1, MISDEEDS - 1);
}

/* Of a request that offers to switch. */
static void draw_switch(struct bconn *c)
{
    struct plan *p = &c->plan;
    struct request *r = c->r;
    struct rng g = rng_of("switch", (uint64_t)r->id * SERVED_MAX + r->served_count);
    const char *to = offer_choose(r, &g);
    bool errs = rng_chance(&g, 120) && c->be->misbehaves && !backends_are_calm;
    if (r->manner != TUNNEL_AS_DRAWN)
        p->protocol = to;
    else if (errs)
        p->misdeed = r->length == 0 || rng_chance(&g, 300) ? SWITCH_AMISS : SWITCH_EARLY;
    else if (p->misdeed == RIGHT && rng_chance(&g, 700))
        p->protocol = to;
    if (p->misdeed == SWITCH_EARLY)
        p->protocol = to;
    if (p->protocol) {
        p->early = p->misdeed == SWITCH_EARLY;
        p->framing = FRAME_NONE;
        p->length = 0;
    }
}

static unsigned draw_status(struct rng *r)
{
    static const unsigned statuses[] = {200, 200, 200, 200, 200, 200, 201, 204, 304, 404, 500, 301};
    return statuses[rng_below(r, sizeof statuses / sizeof statuses[0])];
}

static uint64_t draw_length(struct rng *r)
{
    return rng_chance(r, 4)    ? rng_between(r, 1500000, 5000000)
           : rng_chance(r, 30) ? rng_spread(r, 0, 1500000)
                               : rng_spread(r, 0, 30000);
}

/* What a client that looks at the clock waits for. */
static void plan_as_asked(struct bconn *c)
{
    if (c->r->manner == ANSWER_LARGE)
        c->plan = (struct plan){.status = 200, .framing = FRAME_LENGTH, .length = 1500000, .piece = 65536};
    else if (c->r->manner == ANSWER_NEVER)
        c->plan.misdeed = HANGS;
}

void backend_draw_plan(struct bconn *c)
{
    struct plan *p = &c->plan;
    struct rng *r = &c->rng;
    *p = (struct plan){.misdeed = draw_misdeed(c), .status = draw_status(r), .length = draw_length(r)};
    p->framing = rng_chance(r, 600) ? FRAME_LENGTH : rng_chance(r, 700) ? FRAME_CHUNKED : FRAME_CLOSE;
    p->delay = rng_chance(r, 300) ? rng_spread(r, 1, backends_are_calm ? 5 * MS : 200 * MS) : 0;
    p->piece = rng_chance(r, 700) ? 65536 : rng_spread(r, 1, 20000);
    if (p->piece * 300 < p->length)
        p->piece = p->length / 300 + 1;
    p->pause = rng_chance(r, 700) ? 0 : rng_spread(r, 1, 20 * MS);
    p->early = rng_chance(r, 100);
    p->close = rng_chance(r, 150) || p->framing == FRAME_CLOSE;
    p->interims = rng_chance(r, 80) ? (unsigned)rng_between(r, 1, 4) : 0;
    p->old = rng_chance(r, 60) && p->framing != FRAME_CHUNKED;
    p->close |= p->old;
    if (world.phase == PHASE_VERIFY)
        p->status = 200;
    bool bare = p->status == 204 || p->status == 304;
    if (bare)
        p->length = 0;
    if (bare && p->framing != FRAME_LENGTH)
        p->framing = FRAME_NONE;
    p->cut_at = p->length ? rng_below(r, p->length) : 0;
    bool mid_body = p->misdeed >= CUT_FIN && p->misdeed <= BAD_CHUNK;
    if (mid_body && (p->length < 2 || c->r->head || (p->misdeed == BAD_CHUNK && p->framing != FRAME_CHUNKED) ||
                     (p->framing == FRAME_CLOSE && p->misdeed == CUT_FIN)))
        p->misdeed = RIGHT; /* there is nothing to spoil */
    if (p->misdeed == JUNK_BEHIND && p->framing == FRAME_CLOSE)
        p->misdeed = RIGHT; /* there is no behind */
    if (p->misdeed == SWITCH_EARLY)
        p->misdeed = RIGHT; /* nobody asks */
    if (c->r->upgrade)
        draw_switch(c);
    struct rng g = rng_of("trailers", (uint64_t)c->r->id * SERVED_MAX + c->r->served_count);
    if (p->framing == FRAME_CHUNKED && !p->protocol && rng_chance(&g, 400))
        p->trailers = trailers_draw(&g);
    plan_as_asked(c);
}

static void write_head(struct bconn *c)
{
    const struct plan *p = &c->plan;
    struct bytes *o = &c->out;
    unsigned serial = (unsigned)(c->s - c->r->served);
    for (unsigned i = 0; i < p->interims && c->r->http10 == false; i++)
        bytes_add_text(o, "HTTP/1.1 %u Early\r\nX-Sim: %u/%u\r\n\r\n", i % 2 ? 102u : 103u, c->r->id, serial);
    bytes_add_text(o, "HTTP/1.%u %u %s\r\nX-Sim: %u/%u\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n", !p->old, p->status,
                   p->status == 200 ? "OK" : "Other", c->r->id, serial);
    if (p->misdeed == DOUBLE_FRAMING)
        bytes_add_text(o, rng_chance(&c->rng, 500) ? "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"
                                                   : "Content-Length: 5\r\nContent-Length: 6\r\n");
    else if (p->framing == FRAME_LENGTH && p->status != 204)
        bytes_add_text(o, "Content-Length: %llu\r\n", (unsigned long long)p->length);
    else if (p->framing == FRAME_CHUNKED)
        bytes_add_text(o, "Transfer-Encoding: chunked\r\n");
    if (p->misdeed == HUGE_HEAD)
        for (unsigned i = 0; i < 300; i++)
            bytes_add_text(o, "X-Fill-%u: %0500u\r\n", i, i);
    if (p->trailers && p->length % 3 == 0)
        bytes_add_text(o, "Trailer: x-sum\r\n");
    /* An old one need not say what its version says. */
    bytes_add_text(o, "%s\r\n", p->close && !(p->old && p->length % 2) ? "Connection: close\r\n" : "");
}

/* The response is written: what becomes of the connection? */
static void response_written(struct bconn *c)
{
    c->answered = true;
    if (c->plan.misdeed == JUNK_BEHIND) {
        bytes_add_text(&c->out, "junk\r\n");
        c->be->unwell_at = sim_now();
        /* Where it surely arrives together with the response, nobody may use this connection again. */
        c->poisoned = kernel.chunk == 0 && kernel.faults.short_read == 0 && c->plan.length + c->out.len < 2000 &&
                      c->written == c->plan.length && c->plan.pause == 0;
    }
}

bool backend_has_content(const struct bconn *c)
{
    return c->plan.length > 0 && !c->r->head && c->plan.status != 204 && c->plan.status != 304;
}

static void write_last_chunk(struct bconn *c)
{
    bytes_add_text(&c->out, "0\r\n");
    trailers_add(&c->out, c->plan.trailers, c->r->id);
    bytes_add_text(&c->out, "\r\n");
    tally.trailers += c->plan.trailers > 0;
}

static void write_piece(struct bconn *c)
{
    struct plan *p = &c->plan;
    uint64_t end = p->misdeed >= CUT_FIN && p->misdeed <= BAD_CHUNK ? p->cut_at : p->length;
    uint64_t n = end - c->written < p->piece ? end - c->written : p->piece;
    if (n > 0 && p->framing == FRAME_CHUNKED)
        bytes_add_text(&c->out, "%llx\r\n", (unsigned long long)n);
    pattern_add(&c->out, c->s->key, c->written, (size_t)n);
    c->written += n;
    if (n > 0 && p->framing == FRAME_CHUNKED)
        bytes_add_text(&c->out, "\r\n");
    if (c->written == p->length && p->framing == FRAME_CHUNKED)
        write_last_chunk(c);
}

static bool content_done(const struct bconn *c)
{
    const struct plan *p = &c->plan;
    bool cut = p->misdeed >= CUT_FIN && p->misdeed <= BAD_CHUNK;
    return !backend_has_content(c) || c->written >= (cut ? p->cut_at : p->length);
}

/* Puts the next part of the response into `out`. */
static void produce(struct bconn *c)
{
    if (!c->headed) {
        c->headed = true;
        c->s->begun = true;
        write_head(c);
        if (backend_has_content(c) && content_done(c))
            return; /* cut right behind the head */
        if (!backend_has_content(c)) {
            if (c->plan.framing == FRAME_CHUNKED && !c->r->head)
                write_last_chunk(c);
            response_written(c);
            return;
        }
    }
    if (!content_done(c))
        write_piece(c);
    if (c->plan.misdeed == BAD_CHUNK && content_done(c))
        bytes_add_text(&c->out, "zz\r\n");
    if (content_done(c))
        response_written(c);
}

/* Writes out what there is. True when all of it is with the kernel. */
bool backend_flush(struct bconn *c)
{
    while (c->out.len > 0) {
        size_t n = end_write(c->end, bytes_at(&c->out), c->out.len);
        if (n == 0)
            return false;
        bytes_drop(&c->out, n);
    }
    return true;
}

static void next_request(struct bconn *c)
{
    message_next(&c->in);
    c->served_count++;
    /* A longer one may still be on its way to the daemon for a while. */
    c->idle_since = world.phase >= PHASE_VERIFY && c->written < 1500 ? sim_now() : 0;
    c->busy = c->headed = c->answered = c->request_whole = c->probe = false;
    c->r = NULL;
    c->last = c->s;
    c->s = NULL;
    c->written = 0;
    if (c->be->idle_patience > 0)
        event_set_in(&c->act, c->be->idle_patience);
}

/* The response has left. */
void backend_settle(struct bconn *c)
{
    if (c->s->protocol)
        return; /* the request is not whole yet */
    if (c->plan.misdeed == RIGHT || c->plan.misdeed == JUNK_BEHIND)
        c->s->whole = true;
    switch (c->plan.misdeed) {
    case CUT_FIN: backend_conn_close(c, false); return;
    case CUT_RESET: backend_conn_close(c, true); return;
    case STALLS: return;
    default: break;
    }
    if (c->plan.close || c->plan.misdeed == BAD_CHUNK || c->plan.misdeed == DOUBLE_FRAMING) {
        /* Whoever closes with bytes unread resets, and may so destroy its own answer: it waits for the other's end. */
        if (!c->finishing)
            end_finish(c->end);
        c->finishing = true;
        if (c->request_whole)
            backend_conn_close(c, false);
        return;
    }
    if (c->request_whole) {
        next_request(c);
        backend_take(c);
    }
}

static void misbehave_at_once(struct bconn *c)
{
    switch (c->plan.misdeed) {
    case NO_ANSWER: backend_conn_close(c, false); break;
    case RESET_INSTEAD: backend_conn_close(c, true); break;
    case GARBAGE:
        c->s->begun = true;
        bytes_add_text(&c->out, rng_chance(&c->rng, 500) ? "\x16\x03\x01 what is this?\r\n\r\n"
                                                         : "HTTP/1.1 20x OK\r\nContent-Length: 0\r\n\r\n");
        backend_flush(c);
        c->plan.misdeed = STALLS;
        c->answered = true;
        break;
    default: break; /* HANGS */
    }
}

/* ---- 101 ---- */

static void on_tunnel_done(struct side *t, const char *how)
{
    struct bconn *c = (struct bconn *)(void *)((char *)t - offsetof(struct bconn, tunnel));
    (void)how;
    c->end = NULL;
    backend_conn_free(c);
}

void backend_begin_tunnel(struct bconn *c)
{
    c->tunnel.unsent = &c->out;
    c->tunnel.done = on_tunnel_done;
    side_begin(&c->tunnel, c->end, c->r, c->s, false, c->be->misbehaves);
}

/* To what was not offered, or without a word of what, or where nothing was. */
static void switch_amiss(struct bconn *c)
{
    static const char *const fields[] = {"Connection: upgrade\r\nUpgrade: sim/3\r\n",
                                         "Connection: upgrade\r\nUpgrade: h2c\r\n",
                                         "Connection: upgrade\r\nUpgrade: sim/1, sim/3\r\n", "Connection: upgrade\r\n",
                                         "Connection: upgrade\r\nUpgrade: sim/1\r\n"};
    uint64_t which = rng_below(&c->rng, c->r->upgrade ? 4 : 5);
    c->s->begun = c->barred = c->answered = true;
    c->plan.misdeed = STALLS;
    bytes_add_text(&c->out, "HTTP/1.1 101 Switching Protocols\r\nX-Sim: %u/%u\r\n%s\r\n", c->r->id,
                   (unsigned)(c->s - c->r->served), fields[which]);
    backend_flush(c);
}

static void switch_over(struct bconn *c)
{
    struct rng g = rng_of("tunnel down", (uint64_t)c->r->id * SERVED_MAX + c->r->served_count);
    struct flow *f = &c->s->down;
    bool idle = c->r->manner != TUNNEL_AS_DRAWN;
    if (c->request_whole && end_data(c->end)->len > 0)
        sim_fail("tunnel", "request %u: backend %u got bytes behind it before there was a tunnel", c->r->id,
                 c->be->index);
    c->s->begun = c->s->whole = c->headed = c->answered = true;
    c->s->doubtful = c->plan.misdeed == SWITCH_EARLY; /* it may be refused */
    c->s->protocol = c->plan.protocol;
    *f = (struct flow){.key = c->s->key, .length = idle ? 8 * (c->r->manner == TUNNEL_TICKS) : tunnel_length(&g)};
    f->sent = idle || !rng_chance(&g, 300) ? 0 : rng_spread(&g, 0, 5000);
    f->sent = f->sent < f->length ? f->sent : f->length;
    bytes_add_text(&c->out, "HTTP/1.1 101 Switching Protocols\r\nX-Sim: %u/%u\r\nConnection: %s\r\nUpgrade: %s\r\n\r\n",
                   c->r->id, (unsigned)(c->s - c->r->served), f->length % 2 ? "Upgrade" : "upgrade, x-nominated",
                   c->s->protocol);
    pattern_add(&c->out, f->key, 0, (size_t)f->sent);
    if (c->request_whole)
        backend_begin_tunnel(c);
    else
        backend_flush(c);
}

void backend_pump(struct bconn *c)
{
    if (!c->r || c->answered || event_pending(&c->act))
        return;
    if (!c->request_whole && !c->plan.early)
        return;
    if (c->plan.misdeed == SWITCH_AMISS) {
        switch_amiss(c);
        return;
    }
    if (c->plan.protocol && (c->plan.misdeed == RIGHT || c->plan.misdeed == SWITCH_EARLY)) {
        switch_over(c);
        return;
    }
    if (c->plan.misdeed >= NO_ANSWER && c->plan.misdeed <= GARBAGE) {
        misbehave_at_once(c);
        return;
    }
    while (!c->answered && backend_flush(c)) {
        bool first = !c->headed;
        produce(c);
        if (!backend_flush(c))
            break;
        if (!first && !c->answered && c->plan.pause > 0) {
            event_set_in(&c->act, backends_are_calm ? 1 : c->plan.pause);
            return;
        }
    }
    if (c->answered && backend_flush(c))
        backend_settle(c);
}
