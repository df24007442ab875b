/* Clients that look at the clock. When all else is quiet, each brings about one time-out of the daemon's: it must come,
 * in the way that it should, neither early nor late.                                                                */
#include "world.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum what {
    SILENT,        /* connects and says nothing */
    HALF_HEAD,     /* stops in its first head */
    IDLE,          /* has had an answer, and says no more */
    HALF_SECOND,   /* ... and stops in its second head, before the idle time is over */
    HALF_BODY,     /* stops in its content */
    TRICKLE,       /* sends its content, but too slowly */
    IN_TUNNEL,     /* is in a tunnel through which nothing moves */
    UP_TUNNEL,     /* ... which it sends something into for a while, and nothing comes */
    DOWN_TUNNEL,   /* ... out of which something comes for a while, and it sends nothing */
    TAKES_NOTHING, /* of a large answer */
    UNANSWERED,    /* its backend hangs, and what it asks for may not be asked for twice */
    WHATS
};
static const char *const what_names[] = {"silent",
                                         "half a head",
                                         "idle",
                                         "half a second head",
                                         "half a body",
                                         "a trickle",
                                         "an idle tunnel",
                                         "a tunnel upwards",
                                         "a tunnel downwards",
                                         "takes nothing",
                                         "a backend that hangs"};
#define IS_TUNNEL(what) ((what) >= IN_TUNNEL && (what) <= DOWN_TUNNEL)

#define PACE_GAP (100 * MS)

struct waiter {
    enum what what;
    struct rng rng;
    struct end *e;
    struct message in;
    struct event act;
    struct request *r;
    unsigned life;
    uint64_t since, due; /* when the time began to run, and how long it is; due 0: it does not run yet */
    uint64_t earliest;   /* not before that, whatever was on its way when */
    uint64_t first_byte; /* of its answer */
    uint64_t idle_end;   /* HALF_SECOND: when its idle time may have been over, by the first byte that it got */
    bool answered, told, done;
    unsigned ticks; /* bytes still to be sent one by one */
};

static struct waiter waiters[WHATS];
static unsigned waiter_count;

static uint64_t pace_span(void)
{
    return world.set.client_body > PACE_SPAN ? world.set.client_body : PACE_SPAN;
}

static uint64_t slack(void)
{
    return network_slack();
}

static void run_clock(struct waiter *w, uint64_t due)
{
    w->since = sim_now();
    w->due = due;
    w->earliest = (w->answered && w->first_byte ? w->first_byte : w->since) + due;
}

static void say(struct waiter *w, const char *text)
{
    if (end_write(w->e, text, strlen(text)) != strlen(text))
        sim_fail("simulation", "a waiting client cannot write");
}

static enum manner manner_of(enum what what)
{
    switch (what) {
    case DOWN_TUNNEL: return TUNNEL_TICKS;
    case IN_TUNNEL:
    case UP_TUNNEL: return TUNNEL_IDLE;
    case TAKES_NOTHING: return ANSWER_LARGE;
    case UNANSWERED: return ANSWER_NEVER;
    default: return TUNNEL_AS_DRAWN;
    }
}

static void ask(struct waiter *w, const char *method)
{
    char text[256];
    struct request *r = w->r = request_new(CLIENTS_MAX);
    r->method = method;
    r->idempotent = w->what != UNANSWERED;
    r->may_stall = true;
    r->length = strcmp(method, "PUT") == 0 ? 5000 : 0;
    r->manner = manner_of(w->what);
    r->upgrade = IS_TUNNEL(w->what) ? "sim/1" : NULL;
    r->sent_whole = r->length == 0;
    r->key = rng_next(&w->rng);
    r->sent_at = r->head_sent_at = r->quiet_from = sim_now();
    r->whole_at = r->sent_whole ? r->sent_at : 0;
    r->deaths = r->life = world.deaths;
    tally.requests++;
    snprintf(text, sizeof text, "%s /r/%u HTTP/1.1\r\nHost: sim.example\r\nX-Sim-Request: %u\r\n", method, r->id,
             r->id);
    say(w, text);
    if (r->id % 4 == 0)
        say(w, "Trailer: x-sum\r\n");
    if (r->upgrade)
        say(w, "Connection: upgrade\r\nUpgrade: sim/1\r\n");
    if (r->length > 0)
        snprintf(text, sizeof text, "Content-Length: %" PRIu64 "\r\n\r\n", r->length);
    say(w, r->length > 0 ? text : "\r\n");
}

static void begin_to_wait(struct waiter *w)
{
    const struct settings *s = &world.set;
    struct bytes content = {0};
    switch (w->what) {
    case SILENT: run_clock(w, s->client_header); return;
    case HALF_HEAD:
        say(w, "GET /t HTTP/1.1\r\nHo");
        run_clock(w, s->client_header);
        return;
    case HALF_BODY:
        ask(w, "PUT");
        pattern_add(&content, w->r->key, 0, 10);
        end_write(w->e, bytes_at(&content), content.len);
        bytes_free(&content);
        run_clock(w, s->client_body);
        return;
    case TRICKLE:
        ask(w, "PUT");
        w->r->trickles = true;
        w->ticks = (unsigned)(2 * pace_span() / PACE_GAP);
        run_clock(w, pace_span() - S / 5); /* the daemon reckons in tenths */
        event_set_in(&w->act, PACE_GAP);
        return;
    case TAKES_NOTHING:
        end_set_window(w->e, 0);
        ask(w, "GET");
        run_clock(w, s->client_write);
        return;
    case UNANSWERED:
        ask(w, "POST");
        run_clock(w, s->backend_response);
        return;
    default: ask(w, "GET"); return;
    }
}

static void on_event(void *owner, struct end *e, enum end_event event);

static void dial(struct waiter *w)
{
    unsigned i = (unsigned)(w - waiters);
    struct sim_addr from = world.set.unix_listen ? sim_addr_unix("") : sim_addr_v4(0x0a0100c8, (uint16_t)(900 + i));
    w->life = world.deaths;
    w->since = sim_now();
    w->e = end_connect(&world.listen, &from, rng_of("waiter conn", i), on_event, w);
}

/* The next few bytes of content that trickles, or of a tunnel. */
static void tick(struct waiter *w)
{
    struct flow *f = &w->r->up;
    struct bytes piece = {0};
    size_t n = w->what == TRICKLE ? 1 + (size_t)rng_below(&w->rng, 8) : 1;
    pattern_add(&piece, w->what == TRICKLE ? w->r->key : f->key, f->sent, n);
    size_t written = end_write(w->e, bytes_at(&piece), n);
    bytes_free(&piece);
    f->sent += written;
    f->sent_at = sim_now();
    w->ticks--;
    if (w->what == UP_TUNNEL)
        run_clock(w, world.set.tunnel);
    if (w->ticks > 0)
        event_set_in(&w->act, w->what == TRICKLE ? PACE_GAP : world.set.tunnel / 3);
}

static void on_act(struct event *event)
{
    struct waiter *w = (struct waiter *)(void *)((char *)event - offsetof(struct waiter, act));
    if (!w->e) {
        dial(w);
        return;
    }
    if (w->ticks > 0) {
        tick(w);
        return;
    }
    say(w, "GET /t HTTP/1.1\r\nHo");
    w->idle_end = w->earliest;
    w->first_byte = 0;
    run_clock(w, world.set.client_header);
}

/* Promise: a backend has `backend_response` for its answer. */
static void check_gave_up(const struct waiter *w)
{
    uint64_t took = sim_now() - w->since;
    if (w->in.status != 504 || sim_now() < w->earliest || took > w->due + slack())
        sim_fail("timing", "a client that waits (%s) got %u after %" PRIu64 " ms, not 504 after %" PRIu64,
                 what_names[w->what], w->in.status, took / MS, w->due / MS);
    judge_own_answer(w->life, w->in.status);
}

/* The answer to its request is there. */
static void answered(struct waiter *w)
{
    bool own = !message_field(&w->in, "X-Sim", NULL);
    if (w->what == UNANSWERED)
        check_gave_up(w);
    w->answered = true;
    judge_answer(w->r, w->in.status, own);
    if (w->what == HALF_BODY || w->what == TRICKLE) {
        w->due = 0; /* one that came early: nobody waits for the content any more */
        return;
    }
    run_clock(w, world.set.client_idle);
    if (w->what == HALF_SECOND)
        event_set_in(&w->act, rng_below(&w->rng, world.set.client_idle / 2));
}

/* It is a tunnel from now on. Promise: it is ended when nothing has moved for `tunnel`, and not as long as something
 * does in one of its directions. */
static void switched(struct waiter *w)
{
    struct request *r = w->r;
    unsigned id = 0, serial = 0;
    const char *mark = message_field(&w->in, "X-Sim", NULL);
    if (!IS_TUNNEL(w->what) || !mark || sscanf(mark, "%u/%u", &id, &serial) != 2 || id != r->id ||
        serial >= r->served_count)
        sim_fail("timing", "a client that waits (%s) got a 101", what_names[w->what]);
    w->answered = true;
    judge_answer(r, 101, false);
    r->switched = &r->served[serial];
    r->up.key = rng_next(&w->rng);
    w->first_byte = 0;
    run_clock(w, world.set.tunnel);
    w->ticks = w->what == UP_TUNNEL ? 8 : 0;
    if (w->ticks > 0)
        event_set_in(&w->act, world.set.tunnel / 3);
}

static void on_response(struct waiter *w)
{
    unsigned status = w->in.status;
    if (status == 101)
        switched(w);
    if (status < 200)
        return;
    if (w->r && !w->answered && status != 408) {
        answered(w);
        return;
    }
    if (status != 408 || w->what == IDLE || w->told)
        sim_fail("timing", "a client that waits (%s) got %u", what_names[w->what], status);
    w->told = true;
    judge_own_answer(w->life, status);
    if (w->r && !w->answered)
        judge_answer(w->r, status, true);
}

static void on_content(void *arg, const char *p, size_t n)
{
    (void)arg;
    (void)p;
    (void)n;
}

static void receive_tunnel(struct waiter *w)
{
    struct bytes *in = end_data(w->e);
    struct flow *f = &w->r->switched->down;
    if (in->len == 0)
        return;
    if (f->received + in->len > f->sent || !pattern_matches(f->key, f->received, bytes_at(in), in->len))
        sim_fail("tunnel", "a client that waits (%s) gets what was not sent", what_names[w->what]);
    f->received += in->len;
    f->taken_at = sim_now();
    bytes_drop(in, in->len);
    run_clock(w, world.set.tunnel);
}

static void receive(struct waiter *w)
{
    if (!w->first_byte)
        w->first_byte = sim_now();
    while (!(w->r && w->r->switched) && message_take(&w->in, end_data(w->e), false, on_content, w)) {
        if (w->in.state == MESSAGE_BROKEN)
            sim_fail("responses", "a client that waits got a malformed response: %s", w->in.broken);
        if (w->in.state != MESSAGE_WHOLE)
            continue;
        on_response(w);
        message_next(&w->in);
    }
    if (w->r && w->r->switched)
        receive_tunnel(w);
    end_took(w->e);
}

/* Promise: time-outs come when they should, with a 408 for who is in the middle of a request, silently for who is not.
 */
static void ended(struct waiter *w, const char *how)
{
    uint64_t took = sim_now() - w->since;
    trace_text("waiting client (%s): %s after %" PRIu64 " ms", what_names[w->what], how, took / MS);
    w->done = true;
    event_cancel(&w->act);
    if (w->r && !w->answered && !w->told)
        judge_cut(w->r, NULL, false, how);
    /* In the middle of an early answer there is no way to say it. */
    if (w->due == 0 || w->in.state == MESSAGE_CONTENT)
        return;
    bool in_request = w->what == HALF_HEAD || w->what == HALF_BODY || w->what == TRICKLE;
    if (w->what == HALF_SECOND) {
        /* An answer may be longer on its way than the idle time, which runs from when it was written. */
        if (w->idle_end > 0 && w->since + slack() >= w->idle_end)
            return;
        in_request = w->idle_end > 0;
    }
    if (in_request && !w->told)
        sim_fail("timing", "a client that waits (%s) was not told why its connection ended (%s)", what_names[w->what],
                 how);
    if (w->ticks > 0 && w->what != TRICKLE)
        sim_fail("timing", "a client that waits (%s) was ended (%s) while it was sending", what_names[w->what], how);
    /* The next bytes find out that those before were too slow. */
    uint64_t late = w->what == TRICKLE ? S : 0;
    if (sim_now() + slack() / 2 < w->earliest || took > w->due + slack() + late)
        sim_fail("timing", "a client that waits (%s) was ended (%s) after %" PRIu64 " ms instead of %" PRIu64,
                 what_names[w->what], how, took / MS, w->due / MS);
}

/* The time of one that takes nothing runs from when the daemon could write last. */
static void count_from_last_write(struct waiter *w, const struct end *e)
{
    w->since = w->r->fed_at = end_fed_at(e);
    w->earliest = w->since + w->due;
}

static void on_event(void *owner, struct end *e, enum end_event event)
{
    struct waiter *w = owner;
    switch (event) {
    case END_CONNECTED: begin_to_wait(w); break;
    case END_READABLE: receive(w); break;
    case END_ROOM: break;
    case END_FIN:
        receive(w);
        e = w->e;
        w->e = NULL;
        end_close(e);
        ended(w, "FIN");
        break;
    case END_REFUSED:
    case END_RESET:
        if (w->what == TAKES_NOTHING && w->r)
            count_from_last_write(w, e);
        w->e = NULL;
        ended(w, event == END_RESET ? "reset" : "refused");
        break;
    }
}

/* Those whose time is long wait in some of the runs only. */
static bool takes_part(enum what what)
{
    struct rng r = rng_of("waits", what);
    if (what == TAKES_NOTHING || what == UNANSWERED) /* they must not have to wait for a place */
        return !world.set.capped && (what == TAKES_NOTHING || !world.gentle);
    return what == TRICKLE ? rng_chance(&r, 250) : !IS_TUNNEL(what) || world.set.tunnel_short;
}

void timing_begin(void)
{
    waiter_count = WHATS;
    for (unsigned i = 0; i < WHATS; i++) {
        struct waiter *w = &waiters[i];
        *w = (struct waiter){.what = (enum what)i, .rng = rng_of("waiter", i)};
        message_init(&w->in, MESSAGE_RESPONSE);
        event_init(&w->act, on_act);
        w->done = !takes_part(w->what);
        if (w->done)
            continue;
        /* One after the other: whoever has to wait in a short queue to be accepted has its time from then on. */
        event_set_in(&w->act, i * slack());
    }
}

bool timing_done(void)
{
    for (unsigned i = 0; i < waiter_count; i++)
        if (!waiters[i].done)
            return false;
    return true;
}

void timing_describe(struct bytes *out)
{
    for (unsigned i = 0; i < waiter_count; i++)
        if (!waiters[i].done)
            bytes_add_text(out, " waiting client (%s)", what_names[i]);
}

void timing_end(void)
{
    for (unsigned i = 0; i < waiter_count; i++)
        message_free(&waiters[i].in);
    waiter_count = 0;
}
