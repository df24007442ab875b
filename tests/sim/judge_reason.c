/* The judge of answers, cuts and tunnels: an answer of the daemon's own, and an end before its time, has a reason. See
 * judge_impl.h. */
#include "judge_impl.h"

#include <inttypes.h>
#include <string.h>

/* So long an idle connection stays open for one more request once SIGTERM has come. */
#define LAST_CALL S

/* ---- answers ---- */

/* Has anything been wrong, while the request was under way, that a backend could not be reached for? */
static bool was_in_trouble(const struct request *r)
{
    if (fault_since(SHOWN_HEAP | SHOWN_DESCRIPTORS | SHOWN_EPOLL | SHOWN_CONNECT, r->sent_at))
        return true;
    for (unsigned i = 0; i < r->served_count; i++)
        if (!r->served[i].whole || r->served[i].doubtful)
            return true;
    return backends_unwell_since(r->sent_at);
}

/* What is kept of a request's content for another attempt, and no more. */
#define KEPT_MAX 65536u

/* Has it lost its connection, perhaps, to a backend (BACKENDS_MAX: any) that closed it at that moment? What may be sent
 * twice, and has been kept, is given a fresh one then, unless that same backend is down by now, for what others met
 * there. */
static bool met_close(const struct request *r, unsigned backend)
{
    bool kept = r->idempotent && r->length <= KEPT_MAX;
    for (unsigned i = 0; i < world.set.backends; i++)
        if ((backend == i || backend == BACKENDS_MAX) && backend_closed_kept_since(i, r->sent_at) &&
            (!kept || judge_was_unavailable(i, r->sent_at)))
            return true;
    return false;
}

bool stalled_since(uint64_t since)
{
    return fault_since(SHOWN_STALL, since > 200 * MS ? since - 200 * MS : 0);
}

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* Has it taken longer to come than a time-out of the client's, or than there was in a drain? A first head's time runs
 * from the connection's begin. (What begins in a turn of the loop that is held up for HELD_UP or more is not ended
 * early by that: for connections the loop remembers such turns. In others it counts from the turn's begin.) */
#define HELD_UP (50 * MS) /* LOOP_HELD_UP */
static bool was_slow(const struct request *r)
{
    const struct settings *s = &world.set;
    const struct life *l = judge_life(r->life);
    bool whole = r->sent_whole && r->whole_at > 0;
    uint64_t arrived = whole ? least(sim_now(), r->whole_at + network_slack()) : sim_now();
    uint64_t counted_to = whole ? arrived : arrived + HELD_UP;
    bool drained = l->drain_begun > 0 && arrived >= l->drain_begun + LAST_CALL;
    bool late = counted_to >= r->quiet_from + s->client_header || arrived >= r->head_sent_at + s->client_body ||
                (r->trickles && arrived >= r->sent_at + PACE_SPAN - S);
    return (drained || late) && (!whole || !world.gentle);
}

/* Has its last attempt that is known of waited for an answer as long as backend_response has it? The daemon's clock is
 * that of its turn's begin. */
static bool was_unanswered(const struct request *r)
{
    uint64_t since = r->last_attempt_at > r->sent_at ? r->last_attempt_at : r->sent_at;
    return (sim_now() + 10 * MS >= since + world.set.backend_response && !world.gentle) || stalled_since(since);
}

/* Were there more connections than there may be when its connection was taken, so that it was refused unread? */
static bool was_crowded(const struct request *r)
{
    return r->deliveries == 0 && net_crowded_at() >= r->quiet_from && net_crowded_at() > 0;
}

/* May the daemon have said this of its own, as things are? */
static bool is_excused(const struct request *r, unsigned status)
{
    const struct settings *s = &world.set;
    switch (status) {
    case 429: return judge_may_refuse(r);
    case 408: return was_slow(r);
    case 500: return fault_since(SHOWN_HEAP, r->sent_at);
    case 502: return was_in_trouble(r) || stalled_since(r->sent_at) || met_close(r, BACKENDS_MAX);
    case 504: return was_unanswered(r);
    case 503: return s->capped || judge_none_available(r) || was_crowded(r) || was_in_trouble(r);
    default: return false;
    }
}

/* Was no backend known to be available, for a moment? The answer may have overtaken the line that says so. */
static bool was_left_alone(const struct request *r)
{
    return r->then.none || judge_none_available(r);
}

/* Promise: what may be sent again is, to its last attempt, while some backend is available and the budget allows it. Of
 * heads over the limit two are enough. */
static bool was_given_up_early(const struct request *r)
{
    unsigned huge = 0;
    for (unsigned i = 0; i < r->served_count; i++)
        huge += r->served[i].huge_head;
    return r->idempotent && r->length <= KEPT_MAX && r->attempts < world.set.attempts + 1 && !r->over_budget &&
           huge < 2 && !was_left_alone(r) && !r->then.hindered;
}

/* How many requests besides that one may have waited while it was under way? The daemon may learn late, or not at all,
 * that a client has gone. */
static unsigned open_beside(const struct request *r)
{
    unsigned n = 0;
    for (uint32_t id = 1; id <= request_count(); id++) {
        const struct request *o = request_find(id);
        uint64_t until = o->outcome == OUTCOME_OPEN       ? UINT64_MAX
                         : o->outcome == OUTCOME_ANSWERED ? o->ended_at
                                                          : o->ended_at + world.set.queue_timeout + network_slack();
        n += o != r && o->sent_at > 0 && o->life == r->life && until >= r->sent_at;
    }
    return n;
}

/* Was there a cause for the reason that the log has for its 503? */
static bool is_refused_rightly(const struct request *r)
{
    const struct settings *s = &world.set;
    if (strcmp(r->reason, "queue_timeout") == 0)
        return s->capped && (r->queued_ms + 1) * MS >= s->queue_timeout;
    if (strcmp(r->reason, "queue_full") == 0)
        return s->capped && (r->then.open >= s->queue_size || r->then.hindered);
    return strcmp(r->reason, "no_backend") == 0 && was_left_alone(r);
}

/* The same once more, when both the answer has come and the log's line: does what that says fit? */
void judge_check_reason(const struct request *r)
{
    if (r->outcome != OUTCOME_ANSWERED || !r->own_answer || r->logged == 0 || r->logged_status != r->status)
        return;
    if (r->status == 502 && !r->then.trouble && !met_close(r, r->logged_backend))
        sim_fail("answers", "%s request %u got 502, and backend %u was well", r->method, r->id, r->logged_backend);
    if (r->status == 503 && !is_refused_rightly(r))
        sim_fail("answers", "%s request %u got 503 for %s, and there was no cause for that", r->method, r->id,
                 r->reason);
    if (r->status == 502 && was_given_up_early(r))
        sim_fail("retries", "%s request %u got 502 after %u attempts of %u, and there was no reason for it", r->method,
                 r->id, r->attempts, world.set.attempts + 1);
}

void judge_answer(struct request *r, unsigned status, bool own)
{
    if (r->outcome != OUTCOME_OPEN)
        sim_fail("responses", "request %u got a second answer", r->id);
    r->outcome = OUTCOME_ANSWERED;
    r->ended_at = sim_now();
    r->status = status;
    r->own_answer = own;
    tally.answered++;
    *(own ? &tally.own : &tally.forwarded) += 1;
    if (!own && r->served_count > 0)
        judge_backend_answered(r->served[r->served_count - 1].backend, r->last_attempt_at);
    if (own && !is_excused(r, status))
        sim_fail("answers", "%s request %u got %u, and there was no reason for it", r->method, r->id, status);
    r->then.crowded = was_crowded(r);
    r->then.open = status == 503 ? open_beside(r) : 0;
    r->then.none = judge_none_available(r);
    r->then.trouble = was_in_trouble(r) || stalled_since(r->sent_at);
    r->then.hindered = fault_since(SHOWN_HEAP | SHOWN_DESCRIPTORS | SHOWN_EPOLL | SHOWN_CONNECT, r->sent_at);
    judge_check_reason(r);
}

/* Did it perhaps come too late for a process that was told to end? A connection has a second for a last request. */
static bool missed_last_call(const struct request *r)
{
    return r->deliveries == 0 &&
           (r->may_stall || r->head_sent_at + network_slack() > judge_life(r->life)->drain_begun + LAST_CALL);
}

/* Was it perhaps still on its way when the connection was ended? Then nobody knew of it. */
static bool is_unread(const struct request *r)
{
    return r->deliveries == 0 && r->head_sent_at + network_slack() > sim_now();
}

/* Was its process told to end, so that it may have been cut off? Whoever is served when SIGTERM comes, or asks in time
 * behind it, is served to the end, or to the deadline. */
static bool drain_excuses(struct request *r)
{
    const struct life *l = judge_life(r->life);
    if (l->drain_begun == 0)
        return false;
    if (missed_last_call(r))
        return true;
    if (sim_now() + 10 * MS < l->drain_begun + world.set.shutdown && !l->hurried && !stalled_since(l->drain_begun))
        return false;
    r->cut_up = !is_unread(r);
    return true;
}

/* May the daemon have lost patience with a client that is not always in time: because it took nothing of its answer, or
 * sent nothing more of its request, for as long as the time-outs have it, or went below the pace? */
static bool was_waited_for(const struct request *r)
{
    const struct settings *s = &world.set;
    uint64_t by = sim_now() + network_slack(), write = s->client_write;
    for (unsigned i = 0; i < r->served_count; i++)
        if (r->served[i].protocol) /* a tunnel already, to all but the client */
            write = least(write, s->tunnel);
    bool untaken = r->fed_at >= r->sent_at && by >= r->fed_at + write;
    bool unsent = !r->sent_whole && by >= r->last_sent + s->client_body;
    uint64_t longest = s->client_write > s->client_body ? s->client_write : s->client_body;
    bool slow = by >= r->sent_at + (longest > PACE_SPAN ? longest : PACE_SPAN);
    return r->may_stall && (untaken || unsent || slow || stalled_since(r->sent_at));
}

/* A connection whose answer is written, while its request is still coming, or what was meant for a tunnel that it does
 * not become, only waits for that; where there are as many as there may be it makes room for a new one, and what comes
 * then destroys the answer. */
static bool made_room(const struct request *r)
{
    const struct served *s = r->served_count > 0 ? &r->served[r->served_count - 1] : NULL;
    bool more = s && ((s->early && r->length > 0) || (r->early > 0 && !s->protocol));
    return more && s->whole && net_crowded_at() >= r->first_delivery;
}

void judge_cut(struct request *r, const struct served *from, bool own_fault, const char *how)
{
    if (r->outcome != OUTCOME_OPEN)
        return;
    r->outcome = OUTCOME_CUT;
    r->ended_at = sim_now();
    tally.cut++;
    uint64_t on_its_way = 10 * MS + 30 * kernel.latency; /* what it heard last, in pieces */
    /* The connection may have been given up when the answer before this one had just been written. */
    uint64_t since = r->quiet_from > on_its_way ? r->quiet_from - on_its_way : 0;
    if (own_fault || request_was_cut(r, from) || was_waited_for(r) || judge_is_killed(r) ||
        fault_since(SHOWN_HEAP | SHOWN_DESCRIPTORS | SHOWN_EPOLL, since) || drain_excuses(r))
        return;
    /* Whoever is late may find the connection closed for idleness or out of time, or be one too many. */
    const struct settings *s = &world.set;
    uint64_t patience = least(s->client_idle, least(s->client_header, s->client_body));
    if (r->served_count == 0 && (sim_now() - r->quiet_from + on_its_way >= patience || s->connections < 100))
        return;
    if (made_room(r))
        return;
    sim_fail("cut", "%s request %u: the connection was ended (%s) without its answer", r->method, r->id, how);
}

/* ---- tunnels ---- */

uint64_t network_slack(void)
{
    return 100 * MS + 30 * kernel.latency;
}

/* When the daemon last wrote of it. */
static uint64_t fed_at(const struct flow *f)
{
    return f->sink ? end_fed_at(f->sink) : f->fed_at;
}

/* Has the daemon perhaps been unable to write more of it, for as long as it tries? */
static bool is_untaken(const struct flow *f)
{
    return f->sent > f->received && sim_now() + MS >= fed_at(f) + world.set.tunnel;
}

/* May the daemon have cut the tunnel, as things are? */
static bool tunnel_is_excused(struct request *r, const struct served *s)
{
    uint64_t up = fed_at(&r->up), down = fed_at(&s->down), moved = up > down ? up : down;
    if (r->up.left || s->down.left || judge_is_killed(r) ||
        fault_since(SHOWN_HEAP | SHOWN_DESCRIPTORS | SHOWN_EPOLL, r->sent_at))
        return true;
    /* The daemon's clock is that of its turn's begin, a little before it wrote. */
    bool out_of_time = sim_now() + MS >= moved + world.set.tunnel;
    return out_of_time || is_untaken(&r->up) || is_untaken(&s->down) || stalled_since(moved) || drain_excuses(r);
}

/* Promise: a tunnel is open until both sides have ended it, each having got all that the other sent; what is cut has a
 * cause, and is seen to be cut: by a reset, where there are resets. */
void judge_tunnel_cut(struct request *r, struct served *s, bool client, const char *how)
{
    const struct flow *in = client ? &s->down : &r->up;
    bool local = client ? world.set.unix_listen : world.set.backend[s->backend].unix_socket;
    bool killed = judge_is_killed(r);
    /* A backend's 101 may come too late, when nobody waits for it any more. If the client gets it all the same, its own
     * end will be judged. */
    if (!client && r->switched != s) {
        s->tunnel_cut = true;
        return;
    }
    r->tunnel_cut = true;
    r->unwritten |= in->sent > in->fed;
    if (strcmp(how, "FIN") == 0 && !local && !killed)
        sim_fail("tunnel", "request %u: its %s gets FIN behind %" PRIu64 " of %" PRIu64 " bytes%s", r->id,
                 client ? "client" : "backend", in->received, in->sent,
                 in->ended ? "" : ", and the other side has not ended");
    if (!tunnel_is_excused(r, s))
        sim_fail("tunnel", "request %u: its %s's end of the tunnel was cut (%s), and there was no reason for it", r->id,
                 client ? "client" : "backend", how);
}

bool judge_tunnel_is_whole(const struct request *r)
{
    return r->switched && r->up.ended && r->switched->down.ended && !r->up.left && !r->switched->down.left;
}

void judge_check_tunnel(const struct request *r)
{
    bool killed = judge_is_killed(r);
    if (judge_tunnel_is_whole(r) && !r->tunnel_cut && !killed && !(r->up.seen && r->switched->down.seen))
        sim_fail("tunnel", "request %u: both sides have ended its tunnel, and one does not know", r->id);
}
