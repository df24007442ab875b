/* The clients: keep-alive, pipelining, uploading, slow, half-closing, vanishing, sending garbage, stalling. Each opens
 * one connection after another, sends a batch of requests on each, and judges byte by byte what comes back.
 *
 *   REST --> DIAL --> TALK: requests out, up to `depth` ahead of the answers in --> REST ... --> DONE               */
#include "world.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define PENDING_MAX  16u
#define LINGER_BYTES (200u * 1024u) /* a little less than the daemon reads of content that it has refused */

enum kind {
    PLAIN,
    SLOW_READER,
    SLOW_SENDER,
    VANISHING,    /* closes or resets when it likes */
    HALF_CLOSING, /* FIN behind its last request; the answers must come all the same */
    GARBAGE_SENDER,
    OLD,     /* HTTP/1.0 */
    STALLER, /* stops in mid-request: it must be told, and in time */
    IDLER,   /* opens a connection and says nothing */
    KINDS
};
static const char *const kind_names[] = {"plain",   "slow reader", "slow sender", "vanishing", "half-closing",
                                         "garbage", "old",         "staller",     "idler"};

struct client {
    unsigned index;
    enum kind kind;
    struct rng rng;
    struct sim_addr addr;
    char name[16]; /* what it is registered as, "" when it is not */
    bool polite;   /* asks no faster than its rate */
    bool verifier; /* in the end: all of its requests must succeed */

    unsigned batches, left, depth;
    struct end *e;
    bool connected, fin_sent, closing, want_close; /* closing: the last answer said that the connection ends */
    unsigned deaths, life;                         /* world.deaths when it was begun, and when it was there */
    uint64_t opened, last_move, may_ask, quiet_since, last_answer;
    uint64_t stalled_at;
    unsigned conn_count, sent_on_conn;

    struct bytes out;
    struct request *pending[PENDING_MAX];
    unsigned pending_count;
    struct request *upload; /* the one whose content is being sent */
    uint64_t uploaded;
    bool held; /* waits for 100 (Continue) */
    bool stop; /* sends no more on this connection */

    struct message in;
    struct served *source; /* of the answer being received; NULL: the daemon's own */
    bool own, closed_by_it;
    struct bytes own_body;
    /* A connection over the limit is refused unread, with content whatever the method; it was a HEAD, so what follows
     * the head is not looked at. */
    bool deaf;
    bool after_early; /* the last answer came before all of a large content: the daemon need not read the rest */
    struct side tunnel;

    struct event act;
    bool done;
    unsigned verified;
};

static struct client clients[CLIENTS_MAX + 1];
static unsigned client_count;
static bool calm;

static void next_step(struct client *c);
static void rest(struct client *c, uint64_t ns);

const char *client_identity(unsigned i)
{
    return clients[i].name;
}

/* ---- the end of a connection ---- */

/* Is it the client's own doing that an answer may be missing? */
static bool own_fault(const struct client *c)
{
    return c->kind == VANISHING || c->kind == GARBAGE_SENDER || c->kind == STALLER || c->kind == IDLER;
}

static void forget_conn(struct client *c)
{
    c->e = NULL;
    c->deaf = c->after_early = c->connected = c->fin_sent = c->closing = c->want_close = c->held = c->stop = false;
    c->upload = NULL;
    c->pending_count = 0;
    bytes_clear(&c->out);
    side_forget(&c->tunnel);
    message_next(&c->in);
    c->in.state = MESSAGE_HEAD;
    c->source = NULL;
    bytes_clear(&c->own_body);
    event_cancel(&c->act);
}

/* Has a backend cut one of the answers, or may one have been refused with more content to come than the daemon throws
 * away? The reset that follows takes the answers before it along that are still on their way. */
static bool any_cut(const struct client *c)
{
    for (unsigned i = 0; i < c->pending_count; i++) {
        const struct request *r = c->pending[i];
        const struct served *s = r->served_count ? &r->served[r->served_count - 1] : NULL;
        bool answered_early = !s || s->early || !s->whole;
        if (request_was_cut(r) || (answered_early && r->length > LINGER_BYTES))
            return true;
    }
    return false;
}

/* What was not answered never will be. */
static void give_up_pending(struct client *c, const char *how, bool fault)
{
    fault |= c->after_early || any_cut(c);
    for (unsigned i = 0; i < c->pending_count; i++) {
        struct request *r = c->pending[i];
        /* Behind an answer that ended the connection nothing may have been looked at. */
        if (c->closing && r->deliveries > 0 && c->deaths == world.deaths && r->sent_at > c->quiet_since)
            sim_fail("closing", "request %u was delivered although the answer before it ended the connection", r->id);
        judge_cut(r, fault || c->closing || i > 0, how);
        r->up.left = true; /* should there be a tunnel yet */
    }
}

/* A little slower than the rate allows, whatever the network did to the last request. */
static void wait_politely(struct client *c)
{
    if (c->polite)
        c->may_ask = sim_now() + (uint64_t)(1.01e9 / world.set.named_rate[c->index % NAMED_MAX]);
}

static void conn_ended(struct client *c, const char *how, bool fault)
{
    wait_politely(c);
    trace_text("client %u: connection ended: %s", c->index, how);
    give_up_pending(c, how, fault);
    forget_conn(c);
    rest(c, rng_spread(&c->rng, MS / 2, calm ? 20 * MS : 400 * MS));
}

static void hang_up(struct client *c, bool reset)
{
    struct end *e = c->e;
    c->e = NULL;
    if (reset)
        end_reset(e);
    else
        end_close(e);
}

/* ---- sending ---- */

static const char *draw_method(struct rng *r)
{
    static const char *const methods[] = {"GET", "GET", "GET", "POST", "POST", "PUT", "DELETE", "HEAD", "PATCH"};
    return methods[rng_below(r, sizeof methods / sizeof methods[0])];
}

/* Does it ask for another protocol besides? Not who stops in mid-request, or does not know what it says. */
static void draw_wishes(struct client *c, struct request *r)
{
    struct rng g = rng_of("wishes", r->id);
    bool may_switch = !c->verifier && c->kind != STALLER && c->kind != GARBAGE_SENDER;
    if (may_switch && rng_chance(&g, 70)) {
        offer_draw(r, &g);
        r->early = rng_chance(&g, 250) ? rng_spread(&g, 1, 3000) : 0;
        r->up = (struct flow){.key = rng_next(&g), .length = tunnel_length(&g)};
        r->early = r->early < r->up.length ? r->early : r->up.length;
        r->early = r->upgrade ? r->early : 0;
        r->ends_last = rng_chance(&g, 500);
        if (rng_chance(&g, 750) || r->method[0] == 'H')
            r->method = "GET";
    }
    r->says_te = rng_chance(&g, 300);
    r->takes_trailers = r->says_te && c->kind != OLD;
    r->trailers = rng_chance(&g, 400) ? trailers_draw(&g) : 0;
}

static struct request *draw_request(struct client *c)
{
    struct rng *g = &c->rng;
    struct request *r = request_new(c->index);
    r->method = c->verifier ? "GET" : draw_method(g);
    /* Whoever stops in mid-head is answered as if for a GET: the daemon cannot know. */
    if (c->kind == STALLER && r->method[0] == 'H')
        r->method = "GET";
    r->http10 = c->kind == OLD;
    draw_wishes(c, r);
    r->head = strcmp(r->method, "HEAD") == 0;
    r->idempotent = strcmp(r->method, "POST") != 0 && strcmp(r->method, "PATCH") != 0;
    bool content = r->method[0] == 'P';
    r->length = !content            ? 0
                : rng_chance(g, 6)  ? rng_between(g, 1000000, 4000000)
                : rng_chance(g, 60) ? rng_spread(g, 0, 400000)
                                    : rng_spread(g, 0, 20000);
    r->chunked = content && !r->http10 && rng_chance(g, 400);
    r->expects = r->length > 0 && !r->http10 && rng_chance(g, 80);
    r->key = rng_next(g);
    if (!r->chunked)
        r->trailers = 0;
    r->may_stall = c->kind != PLAIN && c->kind != HALF_CLOSING && c->kind != OLD;
    return r;
}

static void write_request_head(struct client *c, struct request *r)
{
    struct bytes *o = &c->out;
    bool last = c->want_close && rng_chance(&c->rng, 500);
    bytes_add_text(o, "%s /r/%u HTTP/1.%d\r\nHost: sim.example\r\nX-Sim-Request: %u\r\n", r->method, r->id,
                   r->http10 ? 0 : 1, r->id);
    if (c->name[0])
        bytes_add_text(o, "X-Client-ID: %s\r\n", c->name);
    else if (rng_chance(&c->rng, 100))
        bytes_add_text(o, "X-Client-ID: invented-%u\r\n", r->id);
    if (r->http10 && rng_chance(&c->rng, 500))
        bytes_add_text(o, "Connection: keep-alive\r\n");
    else if (r->http10)
        c->stop = true;
    wishes_add(o, r, last && !r->http10);
    if (last)
        r->early = 0; /* who says that nothing more comes lets nothing more come */
    if (r->expects)
        bytes_add_text(o, "Expect: 100-continue\r\n");
    if (r->chunked)
        bytes_add_text(o, "Transfer-Encoding: chunked\r\n");
    else if (r->length > 0 || strcmp(r->method, "POST") == 0)
        bytes_add_text(o, "Content-Length: %" PRIu64 "\r\n", r->length);
    for (unsigned n = rng_chance(&c->rng, 30) ? (unsigned)rng_spread(&c->rng, 1, 4) : 0; n > 0; n--)
        bytes_add_text(o, "X-Fill: %0300u\r\n", r->id);
    bytes_add_text(o, "\r\n");
    if (last)
        c->stop = true;
}

static void write_garbage(struct client *c)
{
    static const char *const garbage[] = {
        "GET /g HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        "GET /g HTTP/1.1\nHost: a\n\n",
        "POST /g HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST /g HTTP/1.1\r\nHost: a\r\nContent-Length: +4\r\n\r\nabcd",
        "GET  /g HTTP/1.1\r\nHost: a\r\n\r\n",
        "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        "GET /g HTTP/2.0\r\nHost: a\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "GET /g HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n",
        "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n",
        "GET /g HTTP/1.1\r\n\r\n",
    };
    unsigned i = (unsigned)rng_below(&c->rng, sizeof garbage / sizeof garbage[0]);
    bytes_add(&c->out, garbage[i], strlen(garbage[i]));
    c->stop = true;
    c->left = 0;
}

/* All of it is written; behind it, perhaps, what is for the tunnel, if there will be one. Over a connection whose end
 * it has said already, that is all. */
static void request_is_out(struct client *c, struct request *r)
{
    r->sent_whole = true;
    if (!r->upgrade)
        return;
    if (c->kind == HALF_CLOSING && c->left == 0)
        r->up.length = r->early;
    pattern_add(&c->out, r->up.key, 0, r->early);
    r->up.sent = r->early;
}

static uint64_t piece_of(struct client *c)
{
    if (c->upload->length > 500000)
        return rng_spread(&c->rng, 4000, 40000);
    return c->kind == SLOW_SENDER && !calm ? rng_spread(&c->rng, 1, 3000) : rng_spread(&c->rng, 500, 40000);
}

/* More of the content that is being uploaded. */
static void write_content(struct client *c)
{
    struct request *r = c->upload;
    uint64_t n = piece_of(c);
    n = r->length - c->uploaded < n ? r->length - c->uploaded : n;
    if (n > 0 && r->chunked)
        bytes_add_text(&c->out, rng_chance(&c->rng, 500) ? "%" PRIx64 "\r\n" : "%04" PRIX64 "\r\n", n);
    pattern_add(&c->out, r->key, c->uploaded, (size_t)n);
    c->uploaded += n;
    if (n > 0 && r->chunked)
        bytes_add_text(&c->out, "\r\n");
    if (c->uploaded < r->length)
        return;
    if (r->chunked) {
        bytes_add_text(&c->out, "0\r\n");
        trailers_add(&c->out, r->trailers, r->id);
        bytes_add_text(&c->out, "\r\n");
        tally.trailers += r->trailers > 0;
    }
    request_is_out(c, r);
    c->upload = NULL;
}

static bool may_begin(const struct client *c)
{
    if (c->left == 0 || c->stop || c->closing || c->upload || c->pending_count >= c->depth)
        return false;
    if (c->pending_count > 0 && c->pending[c->pending_count - 1]->upgrade)
        return false; /* what it sends now would be for the tunnel */
    return !c->polite || sim_now() >= c->may_ask;
}

static void begin_request(struct client *c)
{
    struct request *r = draw_request(c);
    c->left--;
    c->sent_on_conn++;
    c->want_close = c->left == 0;
    r->deaths = c->deaths;
    r->life = c->life;
    r->sent_at = sim_now();
    r->quiet_from = c->last_answer;
    write_request_head(c, r);
    r->head_sent_at = sim_now();
    c->pending[c->pending_count++] = r;
    c->upload = r->length > 0 || r->chunked ? r : NULL;
    c->uploaded = 0;
    c->held = r->expects;
    if (!c->upload)
        request_is_out(c, r);
    c->quiet_since = sim_now();
    tally.requests++;
    trace("request client id content", c->index, r->id, (int64_t)r->length);
}

/* Puts the next thing to say into `out`; false when there is nothing now. */
static bool produce(struct client *c)
{
    if (c->stalled_at)
        return false;
    if (c->kind == STALLER && c->sent_on_conn > 0 && c->left == 0 && (c->upload || c->out.len > 0))
        return false;
    if (c->upload && !c->held) {
        write_content(c);
        return true;
    }
    if (!may_begin(c))
        return false;
    if (c->kind == GARBAGE_SENDER && rng_chance(&c->rng, 400))
        write_garbage(c);
    else
        begin_request(c);
    return true;
}

/* Stops somewhere in the last request. */
static bool stall(struct client *c)
{
    if (c->kind != STALLER || c->stalled_at || c->left > 0 || c->out.len < 2 || c->sent_on_conn == 0)
        return false;
    size_t n = 1 + rng_below(&c->rng, c->out.len - 1);
    end_write(c->e, bytes_at(&c->out), n);
    bytes_clear(&c->out);
    c->stalled_at = c->last_move = sim_now();
    c->stop = true;
    if (c->pending_count > 0)
        c->pending[c->pending_count - 1]->sent_whole = false;
    trace_text("client %u stalls", c->index);
    return true;
}

static void send_out(struct client *c)
{
    if (!c->connected || stall(c))
        return;
    while (c->out.len > 0 || produce(c)) {
        if (stall(c))
            return;
        size_t n =
            end_write(c->e, bytes_at(&c->out), c->kind == SLOW_SENDER && !calm && c->out.len > 700 ? 700 : c->out.len);
        if (n > 0)
            c->last_move = sim_now();
        bytes_drop(&c->out, n);
        if (c->out.len > 0 && n == 0)
            return; /* END_ROOM comes */
        if (c->kind == SLOW_SENDER && !calm) {
            event_set_in(&c->act, rng_spread(&c->rng, 1, 60 * MS));
            return;
        }
    }
    if (c->kind == HALF_CLOSING && c->left == 0 && !c->upload && !c->fin_sent && c->sent_on_conn > 0) {
        c->fin_sent = true;
        if (c->pending_count > 0)
            c->pending[c->pending_count - 1]->up.ended = true;
        end_finish(c->e);
    }
    if (c->polite && c->left > 0 && c->pending_count < c->depth && c->may_ask > sim_now())
        event_set(&c->act, c->may_ask);
}

/* ---- receiving ---- */

static void on_head(struct client *c)
{
    struct message *m = &c->in;
    trace_text("client %u: head of a %u, framing %d, length %" PRIu64, c->index, m->status, m->framing, m->length);
    if (c->pending_count == 0 && c->kind != GARBAGE_SENDER && !c->stalled_at && m->status != 408 && m->status != 503)
        sim_fail("responses", "client %u got %u, and had asked for nothing", c->index, m->status);
    struct request *r = c->pending_count ? c->pending[0] : NULL;
    const char *mark = message_field(m, "X-Sim", NULL);
    unsigned id = 0, serial = 0;
    c->source = NULL;
    c->own = !mark;
    c->closed_by_it = false;
    const char *connection = message_field(m, "Connection", NULL);
    if (m->status >= 200)
        c->closed_by_it = connection ? strcasecmp(connection, "close") == 0 : m->minor == 0 || (r && r->http10);
    if (m->status == 101 && (!mark || !r || !r->upgrade))
        sim_fail("tunnel", "client %u got a 101 that it has not asked for", c->index);
    if (!mark)
        return;
    if (!r || sscanf(mark, "%u/%u", &id, &serial) != 2 || id != r->id)
        sim_fail("responses", "client %u waits for request %u and got the answer to %s", c->index, r ? r->id : 0, mark);
    if (serial >= r->served_count || !r->served[serial].begun)
        if (m->status >= 200)
            sim_fail("responses", "request %u got an answer that no backend has given: %s", r->id, mark);
    if (m->status < 200 && r->http10)
        sim_fail("responses", "request %u is HTTP/1.0 and got a %u", r->id, m->status);
    if (m->status < 200 && m->status != 101)
        return;
    c->source = &r->served[serial];
    if (c->source->status != m->status)
        sim_fail("responses", "request %u got %u; the backend had said %u", r->id, m->status, c->source->status);
    if (m->framing == FRAME_LENGTH && c->source->framing == FRAME_LENGTH && !r->head && m->length != c->source->length)
        sim_fail("content", "request %u: Content-Length is %" PRIu64 " instead of %" PRIu64, r->id, m->length,
                 c->source->length);
}

static void on_content(void *arg, const char *p, size_t n)
{
    struct client *c = arg;
    if (!c->source) {
        bytes_add(&c->own_body, p, n);
        return;
    }
    if (c->in.received + n > c->source->length || !pattern_matches(c->source->key, c->in.received, p, n))
        sim_fail("content", "the answer to request %u is not what the backend sent, at or behind byte %" PRIu64,
                 c->pending[0]->id, c->in.received);
}

static void pop_pending(struct client *c)
{
    if (c->pending_count == 0)
        return;
    memmove(c->pending, c->pending + 1, --c->pending_count * sizeof c->pending[0]);
}

static void on_tunnel_done(struct side *t, const char *how)
{
    struct client *c = (struct client *)(void *)((char *)t - offsetof(struct client, tunnel));
    c->e = NULL;
    conn_ended(c, how, true);
}

/* The 101. Promise: only a backend that was asked has said so, to what was offered, once all of the request was sent.
 */
static void switch_over(struct client *c)
{
    struct request *r = c->pending[0];
    struct served *s = c->source;
    unsigned n;
    const char *to = message_field(&c->in, "Upgrade", &n), *connection = message_field(&c->in, "Connection", NULL);
    if (!s->protocol || n != 1 || strcmp(to, s->protocol) != 0)
        sim_fail("tunnel", "request %u got a 101 to %s; the backend had said %s", r->id, to ? to : "nothing",
                 s->protocol ? s->protocol : "what was not offered");
    if (!connection || strcasecmp(connection, "upgrade") != 0)
        sim_fail("tunnel", "request %u got a 101 without Connection: upgrade", r->id);
    if (!r->sent_whole)
        sim_fail("tunnel", "request %u got a 101 before it was sent", r->id);
    judge_answer(r, 101, false);
    r->switched = s;
    wait_politely(c);
    c->source = NULL;
    c->pending_count = 0;
    message_next(&c->in);
    event_cancel(&c->act);
    if (c->kind == VANISHING)
        event_set_in(&c->act, rng_spread(&c->rng, 100 * US, 500 * MS));
    c->tunnel.unsent = &c->out;
    c->tunnel.done = on_tunnel_done;
    side_begin(&c->tunnel, c->e, r, s, true, true);
}

/* The trailers of a whole answer. */
static void check_trailers(const struct client *c, const struct request *r)
{
    bool takes = c->source && r->takes_trailers && !r->head;
    const char *wrong = trailers_wrong(&c->in, takes ? c->source->trailers : 0, r ? r->id : 0, false);
    if (wrong)
        sim_fail("trailers", "client %u, request %u: %s", c->index, r ? r->id : 0, wrong);
}

/* The response is whole: is it right? */
static void on_whole(struct client *c)
{
    struct message *m = &c->in;
    struct request *r = c->pending_count ? c->pending[0] : NULL;
    if (m->status == 101) {
        switch_over(c);
        return;
    }
    if (m->status < 200) {
        if (m->status == 100)
            c->held = false;
        message_next(m);
        return;
    }
    bool cut = c->source && !r->head && (m->received != c->source->length || !c->source->whole);
    bool killed = c->deaths != c->life || judge_was_killed(c->life);
    /* A process that was killed cannot tell its clients so, and over a unix socket nobody can. */
    if (c->source && m->framing == FRAME_CLOSE && (killed || (cut && world.set.unix_listen)))
        return;
    if (cut)
        sim_fail("content", "request %u got %" PRIu64 " of %" PRIu64 " bytes passed off as the whole answer%s", r->id,
                 m->received, c->source->length, c->source->whole ? "" : " that the backend never finished");
    if (!c->source && m->status >= 400 && !(r && r->head) && !strstr(bytes_at(&c->own_body), "\"status\":") &&
        kernel.shown.heap == 0)
        sim_fail("responses", "client %u got %u without a problem document", c->index, m->status);
    check_trailers(c, r);
    trace("answer client id status", c->index, r ? r->id : 0, m->status);
    if (c->own && m->status >= 400)
        judge_own_answer(c->life, m->status);
    if (r)
        judge_answer(r, m->status, c->own);
    if (c->verifier) {
        if (m->status != 200)
            sim_fail("recovery", "all is well again, and request %u got %u", r->id, m->status);
        c->verified++;
    }
    if (c->upload == r) { /* an early answer: the rest is not worth sending */
        c->upload = NULL;
        if (r && !r->sent_whole)
            c->stop = true;
    }
    wait_politely(c);
    c->last_answer = sim_now();
    c->after_early = r && r->length > 40000 && (c->own || c->source->early);
    pop_pending(c);
    bytes_clear(&c->own_body);
    if (r && r->early > 0) { /* there is no tunnel, and what was for it cannot be taken back */
        c->deaf = c->stop = true;
        bytes_clear(&c->out);
    }
    c->closing |= c->closed_by_it;
    c->source = NULL;
    message_next(m);
}

static void receive(struct client *c)
{
    struct bytes *in = end_data(c->e);
    if (c->deaf)
        bytes_drop(in, in->len);
    while (c->e && c->in.state != MESSAGE_BROKEN) {
        enum message_state was = c->in.state;
        bool head = c->pending_count && c->pending[0]->head;
        if (!message_take(&c->in, in, head, on_content, c))
            break;
        c->last_move = sim_now();
        if (c->in.state == MESSAGE_BROKEN)
            break;
        if (was == MESSAGE_HEAD && c->in.state != MESSAGE_HEAD)
            on_head(c);
        if (c->in.state == MESSAGE_WHOLE)
            on_whole(c);
        if (c->tunnel.on)
            return;
        c->deaf |= head && c->own && c->closing;
        if (c->deaf)
            bytes_drop(in, in->len);
    }
    if (c->in.state == MESSAGE_BROKEN)
        sim_fail("responses", "client %u got a malformed response: %s", c->index, c->in.broken);
    if (c->e)
        end_took(c->e);
}

/* Everything asked for has been answered, or nothing more will be. */
static bool finished(const struct client *c)
{
    bool sent = c->pending_count == 0 && !c->upload && c->out.len == 0;
    return c->connected && !c->stalled_at && c->kind != IDLER && sent && (c->left == 0 || c->closing || c->stop) &&
           c->kind != GARBAGE_SENDER;
}

static void on_fin(struct client *c)
{
    if (c->in.state == MESSAGE_CONTENT && c->in.framing == FRAME_CLOSE && message_end(&c->in, end_data(c->e)))
        on_whole(c);
    hang_up(c, false);
    conn_ended(c, "FIN", own_fault(c));
}

static void on_event(void *owner, struct end *e, enum end_event event)
{
    struct client *c = owner;
    (void)e;
    switch (event) {
    case END_CONNECTED:
        c->connected = true;
        c->life = world.deaths;
        c->last_move = sim_now();
        send_out(c);
        break;
    case END_READABLE:
        if (c->kind == SLOW_READER && !calm) {
            if (!event_pending(&c->act))
                event_set_in(&c->act, rng_spread(&c->rng, 1, 30 * MS));
            return;
        }
        receive(c);
        next_step(c);
        break;
    case END_ROOM: send_out(c); break;
    case END_FIN:
        receive(c);
        if (c->tunnel.on)
            side_event(&c->tunnel, END_FIN);
        else
            on_fin(c);
        break;
    case END_REFUSED:
    case END_RESET:
        c->e = NULL;
        c->batches += event == END_REFUSED; /* nothing came of it: it tries again */
        conn_ended(c, event == END_RESET ? "reset" : "refused", own_fault(c));
        break;
    }
}

/* ---- what it does next ---- */

static void next_step(struct client *c)
{
    if (!c->e || c->tunnel.on)
        return;
    if (!finished(c)) {
        send_out(c);
        return;
    }
    if (!c->closing && rng_chance(&c->rng, 300) && !calm) {
        /* It stays a little, as browsers do, and lets the daemon think that more may come. */
        c->stop = true;
        if (!event_pending(&c->act))
            event_set_in(&c->act, rng_spread(&c->rng, 1, 2 * S));
        return;
    }
    hang_up(c, rng_chance(&c->rng, 50));
    conn_ended(c, "done", false);
}

static void dial(struct client *c)
{
    c->deaths = world.deaths;
    c->opened = c->last_move = c->last_answer = sim_now();
    c->sent_on_conn = 0;
    c->stalled_at = 0;
    c->closing = false;
    /* Without keep-alive nobody sends a second request on a connection, and who asks for it waits for the yes. */
    c->depth = c->verifier || c->polite || c->kind == OLD ? 1
               : rng_chance(&c->rng, 600)                 ? 1
                                                          : (unsigned)rng_between(&c->rng, 1, PENDING_MAX);
    c->left = c->verifier ? 60 : (unsigned)rng_spread(&c->rng, 1, calm ? 3 : 14);
    if (c->kind == IDLER)
        c->left = 0;
    struct sim_addr from = c->addr;
    from.port = (uint16_t)(1024 + c->conn_count);
    c->e =
        end_connect(&world.listen, &from, rng_of("client conn", (uint64_t)c->index << 32 | c->conn_count), on_event, c);
    c->conn_count++;
    if (c->kind == SLOW_READER && !calm)
        end_set_window(c->e, rng_spread(&c->rng, 200, 8000));
    if (c->verifier) /* what takes its time on the way counts as idle to the daemon */
        end_set_window(c->e, 512 * 1024);
    if (c->kind == VANISHING)
        event_set_in(&c->act, rng_spread(&c->rng, 100 * US, 500 * MS));
}

static void on_act(struct event *event)
{
    struct client *c = (struct client *)(void *)((char *)event - offsetof(struct client, act));
    if (!c->e) {
        if (calm && !c->verifier)
            c->batches = 0;
        if (c->batches == 0) {
            c->done = true;
            return;
        }
        c->batches--;
        dial(c);
        return;
    }
    if (c->tunnel.on) {
        if (c->kind == VANISHING)
            side_leave(&c->tunnel,
                       (enum leaving)rng_between(&c->rng, LEAVES_BY_RESET,
                                                 world.set.tunnel_short ? LEAVES_BY_VANISHING : LEAVES_BY_CLOSE));
        return;
    }
    if (c->kind == VANISHING) {
        bool by_reset = c->pending_count > 0 && c->pending[c->pending_count - 1]->upgrade && !world.set.tunnel_short;
        if (rng_chance(&c->rng, 300) && !by_reset) {
            end_vanish(c->e); /* its machine is gone, and says nothing */
            c->e = NULL;
        } else {
            hang_up(c, rng_chance(&c->rng, 500));
        }
        conn_ended(c, "vanished", true);
        return;
    }
    if (c->kind == SLOW_READER && end_data(c->e)->len > 0)
        receive(c);
    if (c->tunnel.on)
        return;
    if (c->stop && finished(c)) {
        hang_up(c, false);
        conn_ended(c, "done", false);
        return;
    }
    next_step(c);
}

static void rest(struct client *c, uint64_t ns)
{
    if (c->verifier && c->verified < 60)
        sim_fail("recovery", "all is well again, and the connection of the last client ended after %u answers",
                 c->verified);
    event_set_in(&c->act, ns);
}

/* ---- all of them ---- */

static void client_begin(struct client *c, unsigned index, enum kind kind)
{
    *c = (struct client){.index = index, .kind = kind, .rng = rng_of("client", index)};
    c->addr = world.set.unix_listen ? sim_addr_unix("") : sim_addr_v4(0x0a010000 + index, 0);
    message_init(&c->in, MESSAGE_RESPONSE);
    event_init(&c->act, on_act);
}

void clients_begin(void)
{
    struct rng r = rng_of("clients", 0);
    calm = false;
    client_count = (unsigned)rng_between(&r, 1, CLIENTS_MAX - 1);
    for (unsigned i = 0; i < client_count; i++) {
        struct client *c = &clients[i];
        enum kind kind = rng_chance(&r, 450) ? PLAIN : (enum kind)rng_below(&r, KINDS);
        uint64_t named = rng_below(&r, 1000), batches = rng_spread(&r, 1, 12), first = rng_spread(&r, 1, S);
        if (world.gentle && (kind == VANISHING || kind == GARBAGE_SENDER || kind == STALLER || kind == IDLER))
            kind = PLAIN;
        client_begin(c, i, kind);
        if (named < 400 && world.set.limiter_on)
            snprintf(c->name, sizeof c->name, "named%u", i % NAMED_MAX);
        c->polite = named < 80 && i < NAMED_MAX && world.set.limiter_on;
        c->batches = world_has("client", i) ? (unsigned)batches : 0;
        c->done = c->batches == 0;
        if (!c->done)
            event_set_in(&c->act, first);
        trace_text("client %u is %s%s%s", i, kind_names[kind], c->name[0] ? ", " : "", c->name);
    }
    /* One that asks slowly must have its bucket for itself. */
    for (unsigned i = 0; i < client_count; i++)
        for (unsigned k = 0; k < client_count; k++)
            if (i != k && clients[i].polite && strcmp(clients[i].name, clients[k].name) == 0)
                clients[k].name[0] = '\0';
}

unsigned client_host(unsigned i)
{
    return i == CLIENTS_MAX || clients[i].verifier ? 200 : i; /* CLIENTS_MAX: who waits in the end */
}

bool client_is_polite(unsigned i)
{
    return clients[i].polite;
}

bool client_is_exempt(unsigned i)
{
    return clients[i].verifier;
}

void clients_calm(void)
{
    calm = true;
    for (unsigned i = 0; i < client_count; i++) {
        struct client *c = &clients[i];
        if (!c->e)
            continue;
        end_set_window(c->e, 65536);
        if (c->tunnel.on) {
            side_calm(&c->tunnel);
            continue;
        }
        if (!c->stalled_at && c->kind != IDLER && !event_pending(&c->act))
            event_set_in(&c->act, 0);
    }
}

void clients_verify(void)
{
    struct client *c = &clients[client_count];
    client_begin(c, client_count, PLAIN);
    c->verifier = true;
    if (!world.set.unix_listen)
        c->addr = sim_addr_v4(0x0a0100c8, 0); /* 10.1.0.200, which is exempt */
    c->batches = 1;
    client_count++;
    event_set_in(&c->act, 0);
}

bool clients_done(void)
{
    for (unsigned i = 0; i < client_count; i++)
        if (!clients[i].done)
            return false;
    return true;
}

bool clients_verified(void)
{
    const struct client *c = &clients[client_count - 1];
    return c->verifier && c->verified == 60;
}

/* Nobody may be left waiting: after that time without a byte either way, a time-out of the daemon's must have come. */
static uint64_t patience_for(const struct client *c)
{
    const struct settings *s = &world.set;
    uint64_t attempts = s->attempts + 2;
    if (c->kind == IDLER || c->stalled_at)
        return (s->client_header > s->client_body ? s->client_header : s->client_body) + s->client_idle;
    return attempts * (s->connect + s->backend_response) + s->client_body + s->client_idle + s->client_write;
}

void clients_check_stuck(void)
{
    for (unsigned i = 0; i < client_count; i++) {
        struct client *c = &clients[i];
        if (!c->e || !c->connected || c->deaths != world.deaths || c->tunnel.on)
            continue;
        if (end_waits(c->e))
            c->last_move = sim_now(); /* the daemon cannot know of it yet */
        uint64_t quiet = sim_now() - c->last_move;
        /* Two seconds more than the time-outs, for a machine under the delays of this run. */
        uint64_t patience = patience_for(c) + 2 * S;
        /* For a part of that time nobody may have accepted it. */
        if (quiet > patience && !fault_since(SHOWN_DESCRIPTORS, sim_now() - patience))
            sim_fail("stuck", "client %u (%s) has waited %" PRIu64 " ms, %u requests are unanswered, the first is %u",
                     i, kind_names[c->kind], quiet / MS, c->pending_count, c->pending_count ? c->pending[0]->id : 0);
    }
}

void clients_describe(struct bytes *out)
{
    for (unsigned i = 0; i < client_count; i++)
        if (!clients[i].done)
            bytes_add_text(out, " client %u (%s, %s, %u waiting, %u left)", i, kind_names[clients[i].kind],
                           !clients[i].e          ? "between connections"
                           : clients[i].connected ? "connected"
                                                  : "connecting",
                           clients[i].pending_count, clients[i].left);
}

void clients_end(void)
{
    for (unsigned i = 0; i < client_count; i++) {
        message_free(&clients[i].in);
        bytes_free(&clients[i].out);
        bytes_free(&clients[i].own_body);
    }
    client_count = 0;
}
