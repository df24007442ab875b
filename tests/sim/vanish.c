/* Machines that are gone without a word: an actor's (end_vanish()), or the daemon's own (net_power_cut()). Nothing that
 * was on its way arrives, nobody sends FIN, and what the other side learns of it, it learns from its own sending: from
 * a reset, where a machine is there that has forgotten the connection, or from no answer. */
#include "net_impl.h"

#include <errno.h>
#include <string.h>

static bool is_actors(const struct end *e)
{
    return e->fn != NULL;
}

static bool is_owed_an_answer(const struct end *e)
{
    return e->tx.len > 0 || (e->fin_sent && !e->fin_gone);
}

/* The daemon sends to an actor that is gone: again and again, until its kernel gives up. */
static void wait_in_vain(struct end *e)
{
    struct rng *r = &e->conn->rng;
    if (!is_owed_an_answer(e))
        return;
    if (!e->giving_up) {
        e->giving_up = true;
        event_set_in(&e->deliver, rng_spread(r, S, 60 * S));
        return;
    }
    trace("gives-up conn", (int64_t)e->conn->id, 0, 0);
    break_end(e, rng_chance(r, 500) ? ETIMEDOUT : EHOSTUNREACH);
}

void meet_nobody(struct end *e)
{
    struct rng *r = &e->conn->rng;
    if (e->closed || e->reset_in) {
        e->fin_gone = true;
        conn_free_if_done(e->conn);
    } else if (!is_actors(e)) {
        wait_in_vain(e);
    } else if (machine_is_down()) {
        event_set_in(&e->deliver, rng_between(r, 200 * MS, S));
    } else {
        trace("forgotten conn", (int64_t)e->conn->id, 0, 0);
        break_end(e, ECONNRESET);
    }
}

/* From now on nobody is at that end. */
static void drop_end(struct end *e)
{
    e->closed = e->vanished = true;
    e->fin_sent = e->reset_out = false;
    e->sock = NULL;
    event_cancel(&e->tell);
    bytes_clear(&e->tx);
    bytes_clear(&e->rx);
}

void end_vanish(struct end *e)
{
    struct conn *c = e->conn;
    if (e->closed)
        return;
    if (c->local || !c->connected || c->waits) {
        close_end(e, false);
        return;
    }
    trace("vanishes conn end", (int64_t)c->id, e == &c->end[1], 0);
    drop_end(e);
    event_cancel(&e->deliver);
    if (is_owed_an_answer(other(e)))
        want_delivery(other(e));
    conn_free_if_done(c);
}

/* ---- the daemon's machine ---- */

static void forget_sock(struct end *e)
{
    struct sock *s = e->sock;
    if (!s)
        return;
    if (s->accepted)
        net.accepted_open--;
    else
        net.made_open--;
    s->end = NULL;
    e->sock = NULL;
}

static void cut_off(struct conn *c)
{
    bool from_actor = is_actors(&c->end[0]);
    struct end *mine = &c->end[from_actor], *its = other(mine);
    if (from_actor && (!c->connected || c->waits))
        return; /* it has not come here yet */
    forget_sock(mine);
    if (c->local) { /* whoever has a unix socket is on this machine, too: it begins anew */
        bytes_clear(&mine->tx);
        close_end(mine, true);
        return;
    }
    drop_end(mine);
    event_cancel(&mine->deliver);
    if (!is_actors(its))
        its->closed = true; /* a connect that was under way */
    if (!its->closed && !event_pending(&its->deliver)) {
        its->probing = true;
        event_set_in(&its->deliver, rng_spread(&c->rng, 500 * MS, 5 * S));
    }
    conn_free_if_done(c);
}

void net_power_cut(void)
{
    trace("power-cut", 0, 0, 0);
    net.down = true;
    for (struct sock *s = net.listeners; s; s = s->next)
        s->queue.count = 0;
    for (struct conn *c = net.conns.next, *next; c != &net.conns; c = next) {
        next = c->next;
        cut_off(c);
    }
    memset(net.unix_files, 0, sizeof net.unix_files);
}
