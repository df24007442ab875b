/* What a client receives: it judges the answers byte by byte, against what the backends have sent; and goes over to a
 * tunnel behind a 101. */
#include "client_impl.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

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
    client_conn_ended(c, how, true);
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
    r->tunnel_cut |= s->tunnel_cut;
    client_wait_politely(c);
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
void client_on_whole(struct client *c)
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
    client_wait_politely(c);
    c->last_answer = c->e ? end_fed_at(c->e) : sim_now();
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

void client_receive(struct client *c)
{
    struct bytes *in = end_data(c->e);
    if (c->deaf)
        bytes_drop(in, in->len);
    while (c->e && c->in.state != MESSAGE_BROKEN) {
        enum message_state was = c->in.state;
        bool head = c->pending_count && c->pending[0]->head;
        size_t before = in->len;
        bool took = message_take(&c->in, in, head, on_content, c);
        c->taken += before - in->len;
        if (!took)
            break;
        c->last_move = sim_now();
        if (c->in.state == MESSAGE_BROKEN)
            break;
        if (was == MESSAGE_HEAD && c->in.state != MESSAGE_HEAD)
            on_head(c);
        if (c->in.state == MESSAGE_WHOLE)
            client_on_whole(c);
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
