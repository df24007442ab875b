/* The clients: the ends of their connections, what they do next, and all of them: begin, calm, verify, who is stuck.
 * See client_impl.h. */
#include "client_impl.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define LINGER       (5 * S)
#define LINGER_BYTES (200u * 1024u) /* a little less than the daemon reads of content that it has refused */

static const char *const kind_names[] = {"plain",   "slow reader", "slow sender", "vanishing", "half-closing",
                                         "garbage", "old",         "staller",     "idler"};

static struct client clients[CLIENTS_MAX + 1];
static unsigned client_count;
bool clients_are_calm;

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

/* May one of the requests have been refused with more content to come than the daemon throws away, or be a tunnel that
 * has been cut? The reset that follows takes the answers before it along that are still on their way. (An answer that
 * its backend has cut takes none along: who pipelines can see that it is cut, so that there need be no reset.) */
static bool may_be_reset(const struct client *c)
{
    for (unsigned i = 0; i < c->pending_count; i++) {
        const struct request *r = c->pending[i];
        const struct served *s = r->served_count ? &r->served[r->served_count - 1] : NULL;
        bool answered_early = !s || s->early || !s->whole;
        if ((r->upgrade && request_was_cut(r, NULL)) || (answered_early && r->length > LINGER_BYTES))
            return true;
    }
    return false;
}

/* Is there a tunnel, behind an answer that is still being taken, in which nothing has moved for its time? The reset
 * that ends it takes from the kernel what is left of the answer, too. */
static bool tunnel_behind_is_over(const struct client *c)
{
    for (unsigned i = 1; i < c->pending_count; i++) {
        const struct request *r = c->pending[i];
        if (r->served_count > 0 && r->served[r->served_count - 1].protocol)
            return sim_now() + network_slack() >= c->fed_at + world.set.tunnel;
    }
    return false;
}

/* Has the daemon's kernel taken less of the answer that is being received than there is? */
static bool is_unwritten(const struct client *c)
{
    return c->source && c->fed - c->taken < c->source->length - c->in.received;
}

/* What was not answered never will be. */
static void give_up_pending(struct client *c, const char *how, bool fault)
{
    /* Who ends while it waits for a place has gone, for all that can be known. */
    bool left_queue = c->fin_sent && world.set.capped;
    fault |= c->after_early || may_be_reset(c) || tunnel_behind_is_over(c);
    for (unsigned i = 0; i < c->pending_count; i++) {
        struct request *r = c->pending[i];
        /* Behind an answer that ended the connection nothing may have been looked at. */
        if (c->closing && r->deliveries > 0 && c->deaths == world.deaths && r->sent_at > c->quiet_since)
            sim_fail("closing", "request %u was delivered although the answer before it ended the connection", r->id);
        r->last_sent = c->last_sent;
        r->fed_at = c->fed_at;
        r->unwritten = i == 0 && is_unwritten(c);
        judge_cut(r, i == 0 ? c->source : NULL, fault || c->closing || i > 0 || left_queue, how);
        r->up.left = true; /* should there be a tunnel yet */
    }
}

/* A little slower than the rate allows, whatever the network did to the last request. */
void client_wait_politely(struct client *c)
{
    if (c->polite)
        c->may_ask = sim_now() + (uint64_t)(1.01e9 / world.set.named_rate[c->index % NAMED_MAX]);
}

static void rest(struct client *c, uint64_t ns)
{
    if (c->verifier && c->verified < 60)
        sim_fail("recovery", "all is well again, and the connection of the last client ended after %u answers",
                 c->verified);
    event_set_in(&c->act, ns);
}

void client_conn_ended(struct client *c, const char *how, bool fault)
{
    client_wait_politely(c);
    trace_text("client %u: connection ended: %s", c->index, how);
    give_up_pending(c, how, fault);
    forget_conn(c);
    rest(c, rng_spread(&c->rng, MS / 2, clients_are_calm ? 20 * MS : 400 * MS));
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

/* ---- what it does next ---- */

/* Everything asked for has been answered, or nothing more will be. */
static bool finished(const struct client *c)
{
    bool sent = c->pending_count == 0 && !c->upload && c->out.len == 0;
    return c->connected && !c->stalled_at && c->kind != IDLER && sent && (c->left == 0 || c->closing || c->stop) &&
           c->kind != GARBAGE_SENDER;
}

static void next_step(struct client *c)
{
    if (!c->e || c->tunnel.on)
        return;
    if (!finished(c)) {
        client_send_out(c);
        return;
    }
    if (!c->closing && rng_chance(&c->rng, 300) && !clients_are_calm) {
        /* It stays a little, as browsers do, and lets the daemon think that more may come. */
        c->stop = true;
        if (!event_pending(&c->act))
            event_set_in(&c->act, rng_spread(&c->rng, 1, 2 * S));
        return;
    }
    hang_up(c, rng_chance(&c->rng, 50));
    client_conn_ended(c, "done", false);
}

static void on_fin(struct client *c)
{
    if (c->in.state == MESSAGE_CONTENT && c->in.framing == FRAME_CLOSE && message_end(&c->in, end_data(c->e)))
        client_on_whole(c);
    hang_up(c, false);
    client_conn_ended(c, "FIN", own_fault(c));
}

/* Who waits to be accepted is turned away when the listener goes; so is whoever comes between the last look into its
 * queue, when the process has been told to end, and its close. */
static bool was_turned_away(const struct end *e)
{
    return end_waits(e) || (world.drain_begun > 0 && end_was_left(e, world.drain_begun));
}

static void on_event(void *owner, struct end *e, enum end_event event)
{
    struct client *c = owner;
    c->fed_at = end_fed_at(e);
    c->fed = end_fed(e);
    switch (event) {
    case END_CONNECTED:
        c->connected = true;
        c->life = world.deaths;
        c->last_move = sim_now();
        client_send_out(c);
        break;
    case END_READABLE:
        if (c->kind == SLOW_READER && !clients_are_calm) {
            if (!event_pending(&c->act))
                event_set_in(&c->act, rng_spread(&c->rng, 1, 30 * MS));
            return;
        }
        client_receive(c);
        next_step(c);
        break;
    case END_ROOM: client_send_out(c); break;
    case END_FIN:
        client_receive(c);
        if (c->tunnel.on)
            side_event(&c->tunnel, END_FIN);
        else
            on_fin(c);
        break;
    case END_REFUSED:
    case END_RESET:
        c->e = NULL;
        c->batches += event == END_REFUSED; /* nothing came of it: it tries again */
        client_conn_ended(c, event == END_RESET ? "reset" : "refused", own_fault(c) || was_turned_away(e));
        break;
    }
}

static void dial(struct client *c)
{
    c->deaths = world.deaths;
    c->opened = c->last_move = c->last_answer = c->last_sent = sim_now();
    c->fed_at = c->fed = c->taken = 0;
    c->sent_on_conn = 0;
    c->stalled_at = 0;
    c->closing = false;
    /* Without keep-alive nobody sends a second request on a connection, and who asks for it waits for the yes. */
    c->depth = c->verifier || c->polite || c->kind == OLD ? 1
               : rng_chance(&c->rng, 600)                 ? 1
                                                          : (unsigned)rng_between(&c->rng, 1, PENDING_MAX);
    c->left = c->verifier ? 60 : (unsigned)rng_spread(&c->rng, 1, clients_are_calm ? 3 : 14);
    if (c->kind == IDLER)
        c->left = 0;
    struct sim_addr from = c->addr;
    from.port = (uint16_t)(1024 + c->conn_count);
    c->e =
        end_connect(&world.listen, &from, rng_of("client conn", (uint64_t)c->index << 32 | c->conn_count), on_event, c);
    c->conn_count++;
    if (c->kind == SLOW_READER && !clients_are_calm)
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
        if (clients_are_calm && !c->verifier)
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
        client_conn_ended(c, "vanished", true);
        return;
    }
    if (c->kind == SLOW_READER && end_data(c->e)->len > 0)
        client_receive(c);
    if (c->tunnel.on)
        return;
    if (c->stop && finished(c)) {
        hang_up(c, false);
        client_conn_ended(c, "done", false);
        return;
    }
    next_step(c);
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
    clients_are_calm = false;
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

const char *client_identity(unsigned i)
{
    return clients[i].name;
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
    clients_are_calm = true;
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
    /* Behind what it has not sent to its end nothing is asked for; before it, answers may still be waited for. */
    if (c->kind == IDLER || (c->stalled_at && c->pending_count <= 1))
        return (s->client_header > s->client_body ? s->client_header : s->client_body) + s->client_idle;
    uint64_t all = attempts * (s->connect + s->backend_response) + s->client_body + s->client_idle + s->client_write;
    /* What is left of content that has been answered early is awaited for as long as a closed connection lingers. */
    return all > LINGER ? all : LINGER;
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
