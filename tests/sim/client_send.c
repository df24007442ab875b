/* What a client sends: draws requests of each kind, garbage among them, writes them and their content piece by piece,
 * and stops, half-closes or waits as its kind does. */
#include "client_impl.h"

#include <inttypes.h>
#include <string.h>

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
    return c->kind == SLOW_SENDER && !clients_are_calm ? rng_spread(&c->rng, 1, 3000) : rng_spread(&c->rng, 500, 40000);
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

/* Its kernel has all that there was to say. */
static void note_sent(struct client *c)
{
    struct request *r = c->pending_count ? c->pending[c->pending_count - 1] : NULL;
    if (r && r->sent_whole && !r->whole_at)
        r->whole_at = sim_now();
}

void client_send_out(struct client *c)
{
    if (!c->connected || stall(c))
        return;
    while (c->out.len > 0 || produce(c)) {
        if (stall(c))
            return;
        size_t n = end_write(c->e, bytes_at(&c->out),
                             c->kind == SLOW_SENDER && !clients_are_calm && c->out.len > 700 ? 700 : c->out.len);
        if (n > 0)
            c->last_move = c->last_sent = sim_now();
        bytes_drop(&c->out, n);
        if (c->out.len > 0 && n == 0)
            return; /* END_ROOM comes */
        if (c->out.len == 0)
            note_sent(c);
        if (c->kind == SLOW_SENDER && !clients_are_calm) {
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
