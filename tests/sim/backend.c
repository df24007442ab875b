/* The backends: origin servers that are right, slow, dying, hanging, that reset in mid-body, close idle connections,
 * frame wrongly, and whose health goes up and down.
 *
 *   HEALTHY --(by the seed)--> SICK: /health says 503 | DEAD: connections are refused or die | SILENT: nobody answers
 *      ^                       FLAKY: healthy, but requests go wrong more often
 *      +----------------------- after a while, and for good when the calm begins                                  */
#include "world.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum health { HEALTHY, SICK, DEAD, SILENT, FLAKY, HEALTHS };
static const char *const health_names[] = {"healthy", "sick", "dead", "silent", "flaky"};

/* How one answer goes. */
enum misdeed {
    RIGHT,
    NO_ANSWER,      /* the connection is closed instead */
    RESET_INSTEAD,  /* ... or reset */
    HANGS,          /* nothing comes, until somebody gives up */
    GARBAGE,        /* no HTTP */
    DOUBLE_FRAMING, /* Content-Length and Transfer-Encoding, or two lengths */
    HUGE_HEAD,
    CUT_FIN, /* in the middle of the content */
    CUT_RESET,
    STALLS,    /* in the middle of the content, for good */
    BAD_CHUNK, /* in the middle */
    JUNK_BEHIND,
    SWITCH_AMISS, /* 101 to what was not offered, or to nothing, or where nobody asked */
    SWITCH_EARLY, /* 101 to what was offered, before the request is whole */
    MISDEEDS
};

struct plan {
    enum misdeed misdeed;
    unsigned status, interims;
    enum message_framing framing;
    uint64_t length, cut_at, delay;
    uint64_t piece, pause; /* content is written in such pieces, so long apart */
    unsigned trailers;     /* behind chunked content */
    const char *protocol;  /* what it switches to; NULL: it does not */
    bool early;            /* before the request's content has come */
    bool close;
    bool old; /* HTTP/1.0 */
};

struct backend;
struct bconn { /* a connection from the daemon */
    struct bconn *next, *prev;
    struct backend *be;
    struct end *end;
    struct message in;
    uint64_t taken;        /* bytes of the stream so far */
    uint64_t head_at;      /* where the present message began */
    unsigned served_count; /* messages taken before the present one */
    struct request *r;
    struct served *s, *last; /* the answer under way, and the one before */
    struct plan plan;
    struct bytes out;
    uint64_t written; /* content of the response so far */
    bool probe, busy, headed, answered, request_whole, finishing, poisoned;
    bool gone;   /* closed: its memory stays until nobody up the stack can be looking at it */
    bool barred; /* after a 101 amiss: no tunnel may come of it */
    struct side tunnel;
    struct event act;
    struct rng rng;
};

struct backend {
    unsigned index;
    struct host host;
    struct rng rng;
    enum health health;
    struct event change;
    struct bconn conns;
    unsigned counted;
    uint64_t conn_count;
    uint64_t idle_patience; /* it closes idle connections after that; 0: never */
    bool closes_idle;       /* ... or did so before the calm */
    bool misbehaves;        /* now and then */
    uint64_t unwell_at;     /* when it was last out of order */
    /* Answers to probes in a row; broken: something else than an answer may have befallen a probe since the last good
     * one. */
    unsigned good_probes, bad_probes, probes_in_life;
    bool broken;
    uint64_t good_at;
};

static struct backend backends[BACKENDS_MAX];
static struct rng name_stream;
static bool calm;

static void on_end(void *owner, struct end *e, enum end_event event);
static void pump(struct bconn *c);

struct sim_addr backend_addr(unsigned i)
{
    char path[32];
    snprintf(path, sizeof path, "/run/b%u.sock", i);
    return world.set.backend[i].unix_socket ? sim_addr_unix(path) : sim_addr_v4(0x0a000001 + i, 9000);
}

unsigned backends_resolve(const char *name, struct sim_addr out[8], uint64_t *delay)
{
    struct rng *r = &name_stream;
    *delay = rng_spread(r, 100 * US, calm ? 20 * MS : 800 * MS);
    unsigned i = (unsigned)(name[1] - '0');
    if (name[0] != 'b' || i >= world.set.backends || (!calm && !world.gentle && rng_chance(r, 200)))
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

static void bconn_free(struct bconn *c)
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

static void bconn_close(struct bconn *c, bool reset)
{
    if (c->tunnel.on) {
        side_leave(&c->tunnel, reset ? LEAVES_BY_RESET : LEAVES_BY_CLOSE);
        return;
    }
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
    bconn_free(c);
}

/* ---- answers ---- */

static enum misdeed draw_misdeed(struct bconn *c)
{
    unsigned chance = c->be->health == FLAKY ? 400 : 40;
    if (!rng_chance(&c->rng, chance) || !c->be->misbehaves || calm)
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
    bool errs = rng_chance(&g, 120) && c->be->misbehaves && !calm;
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

static void draw_plan(struct bconn *c)
{
    struct plan *p = &c->plan;
    struct rng *r = &c->rng;
    *p = (struct plan){.misdeed = draw_misdeed(c), .status = draw_status(r), .length = draw_length(r)};
    p->framing = rng_chance(r, 600) ? FRAME_LENGTH : rng_chance(r, 700) ? FRAME_CHUNKED : FRAME_CLOSE;
    p->delay = rng_chance(r, 300) ? rng_spread(r, 1, calm ? 5 * MS : 200 * MS) : 0;
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

static bool has_content(const struct bconn *c)
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
    return !has_content(c) || c->written >= (cut ? p->cut_at : p->length);
}

/* Puts the next part of the response into `out`. */
static void produce(struct bconn *c)
{
    if (!c->headed) {
        c->headed = true;
        c->s->begun = true;
        write_head(c);
        if (has_content(c) && content_done(c))
            return; /* cut right behind the head */
        if (!has_content(c)) {
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
static bool flush(struct bconn *c)
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
    c->busy = c->headed = c->answered = c->request_whole = c->probe = false;
    c->r = NULL;
    c->last = c->s;
    c->s = NULL;
    c->written = 0;
    if (c->be->idle_patience > 0)
        event_set_in(&c->act, c->be->idle_patience);
}

/* The response has left. */
static void settle(struct bconn *c)
{
    if (c->s->protocol)
        return; /* the request is not whole yet */
    if (c->plan.misdeed == RIGHT || c->plan.misdeed == JUNK_BEHIND)
        c->s->whole = true;
    switch (c->plan.misdeed) {
    case CUT_FIN: bconn_close(c, false); return;
    case CUT_RESET: bconn_close(c, true); return;
    case STALLS: return;
    default: break;
    }
    if (c->plan.close || c->plan.misdeed == BAD_CHUNK || c->plan.misdeed == DOUBLE_FRAMING) {
        /* Whoever closes with bytes unread resets, and may so destroy its own answer: it waits for the other's end. */
        if (!c->finishing)
            end_finish(c->end);
        c->finishing = true;
        if (c->request_whole)
            bconn_close(c, false);
        return;
    }
    if (c->request_whole) {
        next_request(c);
        on_end(c, c->end, END_READABLE);
    }
}

static void misbehave_at_once(struct bconn *c)
{
    switch (c->plan.misdeed) {
    case NO_ANSWER: bconn_close(c, false); break;
    case RESET_INSTEAD: bconn_close(c, true); break;
    case GARBAGE:
        c->s->begun = true;
        bytes_add_text(&c->out, rng_chance(&c->rng, 500) ? "\x16\x03\x01 what is this?\r\n\r\n"
                                                         : "HTTP/1.1 20x OK\r\nContent-Length: 0\r\n\r\n");
        flush(c);
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
    bconn_free(c);
}

static void begin_tunnel(struct bconn *c)
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
    flush(c);
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
        begin_tunnel(c);
    else
        flush(c);
}

static void pump(struct bconn *c)
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
    while (!c->answered && flush(c)) {
        bool first = !c->headed;
        produce(c);
        if (!flush(c))
            break;
        if (!first && !c->answered && c->plan.pause > 0) {
            event_set_in(&c->act, calm ? 1 : c->plan.pause);
            return;
        }
    }
    if (c->answered && flush(c))
        settle(c);
}

static void on_act(struct event *event)
{
    struct bconn *c = (struct bconn *)(void *)((char *)event - offsetof(struct bconn, act));
    if (c->busy)
        pump(c);
    else if (c->in.state == MESSAGE_HEAD && end_data(c->end)->len == 0)
        bconn_close(c, false); /* it was idle long enough */
}

/* ---- requests ---- */

static void count_probe(struct bconn *c, bool well)
{
    struct backend *be = c->be;
    trace_text("backend %u answers a probe: %s", be->index, well ? "well" : "not well");
    be->probes_in_life++;
    be->good_probes = well ? be->good_probes + 1 : 0;
    be->bad_probes = well ? 0 : be->bad_probes + 1;
    if (!well)
        return;
    be->good_at = sim_now();
    /* One that was sent before it was well again may have failed at the other end; and as long as connects are slow,
     * the next one may fail. */
    if (end_begun(c->end) >= be->unwell_at && be->host.slow == 0)
        be->broken = false;
}

static void answer_probe(struct bconn *c)
{
    bool well = c->be->health == HEALTHY || c->be->health == FLAKY;
    count_probe(c, well);
    bytes_add_text(&c->out, "HTTP/1.1 %s\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok",
                   well ? "200 OK" : "503 Unwell");
    flush(c);
    bconn_close(c, false);
}

/* The one value that a request must have; NULL is a finding. */
static const char *one_field(struct bconn *c, const char *name)
{
    unsigned count;
    const char *v = message_field(&c->in, name, &count);
    if (!v || count != 1)
        sim_fail("forwarding", "backend %u got %u fields %s in %s %s", c->be->index, count, name, c->in.method,
                 c->in.target);
    return v;
}

/* Promise: it is the client's address, whatever the client says of itself. */
static void check_forwarded_for(const char *value, const struct request *r)
{
    char address[32];
    unsigned host = client_host(r->client);
    snprintf(address, sizeof address, "10.1.%u.%u", host >> 8, host & 255);
    if (!world.set.unix_listen && strcmp(value, address) != 0)
        sim_fail("forwarding", "request %u has X-Forwarded-For %s instead of %s", r->id, value, address);
}

static struct request *find_request(struct bconn *c)
{
    unsigned id = 0;
    if (sscanf(c->in.target, "/r/%u", &id) != 1)
        sim_fail("forwarding", "backend %u got a request that nobody sent: %s %s", c->be->index, c->in.method,
                 c->in.target);
    struct request *r = request_find(id);
    if (!r || strcmp(r->method, c->in.method) != 0)
        sim_fail("forwarding", "backend %u got %s %s, which nobody sent", c->be->index, c->in.method, c->in.target);
    if ((unsigned)atoi(one_field(c, "X-Sim-Request")) != id)
        sim_fail("forwarding", "the fields of request %u came with another's target", id);
    one_field(c, "Host");
    one_field(c, "X-Request-ID");
    check_forwarded_for(one_field(c, "X-Forwarded-For"), r);
    one_field(c, "Via");
    const char *wrong = wishes_wrong(&c->in, r);
    if (wrong)
        sim_fail("forwarding", "request %u reached backend %u with another %s than it should", r->id, c->be->index,
                 wrong);
    return r;
}

static void on_request_head(struct bconn *c)
{
    c->busy = true;
    event_cancel(&c->act);
    if (strcmp(c->in.target, "/health") == 0 && !message_field(&c->in, "X-Sim-Request", NULL)) {
        c->probe = true;
        return;
    }
    if (c->poisoned)
        sim_fail("pool", "backend %u got a request on a connection on which bytes lay behind the last response",
                 c->be->index);
    struct request *r = find_request(c);
    uint64_t turn = c->served_count == 0 ? end_begun_turn(c->end) : end_turn_of(c->end, c->head_at);
    /* What a process sent before it was killed may arrive when the next one is there. */
    bool own_time = process_alive() && end_begun(c->end) >= process.begun;
    judge_delivery(r, c->be->index, own_time ? turn : UINT64_MAX);
    c->be->counted++;
    if (r->served_count == SERVED_MAX)
        sim_fail("retries", "request %u was delivered %u times", r->id, SERVED_MAX + 1);
    c->r = r;
    c->s = &r->served[r->served_count++];
    c->rng = rng_of("answer", (uint64_t)r->id * SERVED_MAX + r->served_count);
    *c->s = (struct served){.backend = c->be->index, .key = rng_next(&c->rng)};
    draw_plan(c);
    c->s->status = c->plan.protocol ? 101 : c->plan.status;
    c->s->trailers = c->plan.trailers;
    c->s->length = has_content(c) ? c->plan.length : 0;
    c->s->framing = c->plan.framing;
    c->s->early = c->plan.early;
    if (r->expects && c->in.framing != FRAME_NONE && !c->plan.early)
        bytes_add_text(&c->out, "HTTP/1.1 100 Continue\r\nX-Sim: %u/%u\r\n\r\n", r->id, r->served_count - 1);
    if (c->plan.delay > 0)
        event_set_in(&c->act, c->plan.delay);
    flush(c);
}

static void on_content(void *arg, const char *p, size_t n)
{
    struct bconn *c = arg;
    if (c->probe)
        return;
    if (c->in.received + n > c->r->length || !pattern_matches(c->r->key, c->in.received, p, n))
        sim_fail("content", "request %u reached backend %u with other content than was sent, at or behind byte %llu",
                 c->r->id, c->be->index, (unsigned long long)c->in.received);
}

static void on_request_whole(struct bconn *c)
{
    c->request_whole = true;
    if (c->probe) {
        answer_probe(c);
        return;
    }
    if (c->in.received != c->r->length)
        sim_fail("content", "request %u reached backend %u as whole with %llu of %llu bytes", c->r->id, c->be->index,
                 (unsigned long long)c->in.received, (unsigned long long)c->r->length);
    if (!c->r->sent_whole)
        sim_fail("content", "request %u is whole at backend %u before its client has sent it", c->r->id, c->be->index);
    const char *wrong = trailers_wrong(&c->in, names_fields(c->r) ? 0 : c->r->trailers, c->r->id, true);
    if (wrong)
        sim_fail("trailers", "request %u at backend %u: %s", c->r->id, c->be->index, wrong);
    if (c->s->protocol) {
        begin_tunnel(c);
        return;
    }
    if (c->answered && c->out.len == 0)
        settle(c);
    else
        pump(c);
}

/* Takes one step of the stream; false when it made none. The connection may be gone afterwards. */
static bool take_step(struct bconn *c)
{
    struct bytes *in = end_data(c->end);
    size_t before = in->len;
    enum message_state was = c->in.state;
    if (!message_take(&c->in, in, false, on_content, c))
        return false;
    if (was == MESSAGE_HEAD && c->in.state != MESSAGE_HEAD)
        c->head_at = c->taken;
    c->taken += before - in->len;
    end_took(c->end);
    if (c->in.state == MESSAGE_BROKEN)
        sim_fail("forwarding", "backend %u got a malformed request: %s", c->be->index, c->in.broken);
    if (was == MESSAGE_HEAD)
        on_request_head(c);
    if (c->in.state == MESSAGE_WHOLE)
        on_request_whole(c);
    else
        pump(c);
    return true;
}

static void take(struct bconn *c)
{
    if (c->barred && c->in.state == MESSAGE_WHOLE && end_data(c->end)->len > 0)
        sim_fail("tunnel", "request %u: backend %u has no tunnel, and got bytes for it", c->r->id, c->be->index);
    while (!c->gone && !c->tunnel.on && c->in.state != MESSAGE_WHOLE && end_data(c->end)->len > 0 && take_step(c))
        ;
}

static void on_end(void *owner, struct end *e, enum end_event event)
{
    struct bconn *c = owner;
    (void)e;
    switch (event) {
    case END_READABLE: take(c); break;
    case END_ROOM:
        if (c->answered && c->out.len > 0 && flush(c))
            settle(c);
        else
            pump(c);
        break;
    case END_FIN:
        if (c->tunnel.on)
            side_event(&c->tunnel, END_FIN);
        else
            bconn_close(c, false);
        break;
    case END_RESET:
        c->end = NULL;
        bconn_free(c);
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
        bconn_close(c, rng_chance(&be->rng, 500));
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
    if (calm)
        return;
    set_health(be, be->health != HEALTHY || rng_chance(&be->rng, 300) ? HEALTHY
                                                                      : (enum health)rng_below(&be->rng, HEALTHS));
    event_set_in(&be->change, rng_spread(&be->rng, 50 * MS, 2 * S));
}

void backends_begin(void)
{
    calm = false;
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
        be->closes_idle = be->idle_patience > 0;
    }
}

void backends_calm(void)
{
    calm = true;
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

bool backends_unwell_since(uint64_t since)
{
    for (unsigned i = 0; i < world.set.backends; i++) {
        const struct backend *be = &backends[i];
        uint64_t heard_of = be->unwell_at + 50 * MS + 30 * kernel.latency;
        if (be->health != HEALTHY || (be->unwell_at > 0 && heard_of >= since) || be->closes_idle)
            return true;
    }
    return false;
}

void backend_check_count(unsigned i, bool up)
{
    const struct backend *be = &backends[i];
    unsigned n = up ? be->good_probes : be->bad_probes, least = up ? world.set.rise : world.set.fall;
    /* The first one of a process decides at once, and where threads are held up an answer may come too late. */
    if (be->broken || world.delays ||
        fault_since(SHOWN_HEAP | SHOWN_DESCRIPTORS | SHOWN_EPOLL | SHOWN_CONNECT, be->good_at) ||
        world.set.backend[i].named || be->probes_in_life <= least || n >= least)
        return;
    sim_fail("health", "backend %u is %s after %u probes in a row; it takes %u", i, up ? "up" : "down", n, least);
}

void backends_new_process(void)
{
    for (unsigned i = 0; i < world.set.backends; i++) {
        struct backend *be = &backends[i];
        be->good_probes = be->bad_probes = be->probes_in_life = 0;
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
            bconn_free(backends[i].conns.next);
    bury_dead();
}
