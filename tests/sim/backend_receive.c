/* What a backend receives: it judges whether requests are what their clients sent, whole and as they should be passed
 * on; and answers probes. */
#include "backend_impl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void count_probe(struct bconn *c, bool well)
{
    struct backend *be = c->be;
    trace_text("backend %u answers a probe: %s", be->index, well ? "well" : "not well");
    be->probes_in_life++;
    if (well ? be->good_probes == 0 : be->bad_probes == 0)
        be->turned_at = be->answered_at;
    be->answered_at = sim_now();
    be->good_probes = well ? be->good_probes + 1 : 0;
    be->bad_probes = well ? 0 : be->bad_probes + 1;
    if (!well)
        return;
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
    backend_flush(c);
    backend_conn_close(c, false);
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

/* Promise: a backend is probed once an interval, when all is well. */
static void check_probe_gap(struct backend *be)
{
    uint64_t gap = sim_now() - be->probed_at;
    if (be->probed_at > 0 && gap > world.set.interval + network_slack())
        sim_fail("timing", "backend %u was probed after %llu ms instead of %llu", be->index,
                 (unsigned long long)(gap / MS), (unsigned long long)(world.set.interval / MS));
    be->probed_at = world.phase >= PHASE_VERIFY ? sim_now() : 0;
}

static void on_request_head(struct bconn *c)
{
    c->busy = true;
    event_cancel(&c->act);
    if (strcmp(c->in.target, "/health") == 0 && !message_field(&c->in, "X-Sim-Request", NULL)) {
        c->probe = true;
        check_probe_gap(c->be);
        return;
    }
    if (c->poisoned)
        sim_fail("pool", "backend %u got a request on a connection on which bytes lay behind the last response",
                 c->be->index);
    struct request *r = find_request(c);
    uint64_t turn = c->served_count == 0 ? end_begun_turn(c->end) : end_turn_of(c->end, c->head_at);
    /* What a process sent before it was killed may arrive when the next one is there. */
    bool own_time = process_alive() && end_begun(c->end) >= process.begun;
    judge_delivery(r, c->be->index, own_time ? turn : UINT64_MAX, end_time_of(c->end, c->head_at));
    c->be->counted++;
    if (r->served_count == SERVED_MAX)
        sim_fail("retries", "request %u was delivered %u times", r->id, SERVED_MAX + 1);
    c->r = r;
    c->s = &r->served[r->served_count++];
    c->rng = rng_of("answer", (uint64_t)r->id * SERVED_MAX + r->served_count);
    *c->s = (struct served){.backend = c->be->index, .key = rng_next(&c->rng)};
    backend_draw_plan(c);
    c->s->status = c->plan.protocol ? 101 : c->plan.status;
    c->s->trailers = c->plan.trailers;
    c->s->length = backend_has_content(c) ? c->plan.length : 0;
    c->s->framing = c->plan.framing;
    c->s->early = c->plan.early;
    c->s->huge_head = c->plan.misdeed == HUGE_HEAD;
    if (r->expects && c->in.framing != FRAME_NONE && !c->plan.early)
        bytes_add_text(&c->out, "HTTP/1.1 100 Continue\r\nX-Sim: %u/%u\r\n\r\n", r->id, r->served_count - 1);
    if (c->plan.delay > 0)
        event_set_in(&c->act, c->plan.delay);
    backend_flush(c);
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
        backend_begin_tunnel(c);
        return;
    }
    if (c->answered && c->out.len == 0)
        backend_settle(c);
    else
        backend_pump(c);
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
        backend_pump(c);
    return true;
}

void backend_take(struct bconn *c)
{
    if (c->barred && c->in.state == MESSAGE_WHOLE && end_data(c->end)->len > 0)
        sim_fail("tunnel", "request %u: backend %u has no tunnel, and got bytes for it", c->r->id, c->be->index);
    while (!c->gone && !c->tunnel.on && c->in.state != MESSAGE_WHOLE && end_data(c->end)->len > 0 && take_step(c))
        ;
}
