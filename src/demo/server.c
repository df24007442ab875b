/* The demo backend's listener and its outages. */
#include "server.h"

#include "base/clock.h"
#include "base/list.h"
#include "base/log.h"
#include "conn.h"
#include "ledger.h"

#include <errno.h>

#define LISTEN_AGAIN_AFTER (100 * NS_PER_MS)

static const char *const mode_names[] = {
    [OUTAGE_NONE] = "none",   [OUTAGE_REFUSE] = "refuse", [OUTAGE_HANG] = "hang", [OUTAGE_500] = "500",
    [OUTAGE_RESET] = "reset", [OUTAGE_DROP] = "drop",     [OUTAGE_CUT] = "cut",   [OUTAGE_BAD] = "bad",
    [OUTAGE_REUSE] = "reuse", [OUTAGE_SLOW] = "slow",     [OUTAGE_SICK] = "sick",
};

bool outage_mode_parse(struct str s, enum outage_mode *out)
{
    for (enum outage_mode m = OUTAGE_REFUSE; m < OUTAGE_MODES; m++) {
        if (str_eq(s, str_of(mode_names[m]))) {
            *out = m;
            return true;
        }
    }
    return false;
}

const char *outage_mode_name(enum outage_mode mode)
{
    return mode_names[mode];
}

static void on_accept(void *arg, int fd, const struct peer *peer)
{
    (void)peer;
    conn_accept(arg, fd);
}

static bool server_listen(struct demo_server *s, int *error)
{
    char text[ADDR_TEXT_SIZE];

    s->listener = listener_new(s->loop, &s->at, on_accept, s, error);
    if (!s->listener)
        return false;
    s->at = *listener_addr(s->listener);
    addr_format(&s->at, text);
    log_begin(LOG_INFO, "listening");
    log_z("name", s->options->name);
    log_z("address", text);
    log_end();
    return true;
}

static bool arm_in(struct demo_server *s, struct timer *t, uint64_t ns)
{
    return loop_arm(s->loop, t, loop_now(s->loop) + ns);
}

static void reset_all(struct demo_server *s)
{
    LIST_EACH (link, &s->conns)
        conn_reset(conn_of_link(link));
}

static void wake_all(struct demo_server *s)
{
    LIST_EACH (link, &s->conns)
        conn_wake(conn_of_link(link));
}

static void listen_again(struct timer *t)
{
    struct demo_server *s = container_of(t, struct demo_server, listen_again);
    int error;

    if (server_listen(s, &error))
        return;
    log_begin(LOG_WARN, "listen_failed");
    log_z("name", s->options->name);
    log_u64("errno", (uint64_t)error);
    log_end();
    if (!arm_in(s, t, LISTEN_AGAIN_AFTER))
        loop_stop(s->loop);
}

static void outage_end(struct demo_server *s)
{
    enum outage_mode ended = s->outage;

    if (ended == OUTAGE_NONE)
        return;
    s->outage = OUTAGE_NONE;
    loop_cancel(s->loop, &s->outage_end);
    log_begin(LOG_INFO, "outage_end");
    log_z("name", s->options->name);
    log_z("mode", outage_mode_name(ended));
    log_end();
    if (ended == OUTAGE_REFUSE)
        listen_again(&s->listen_again);
    else if (ended == OUTAGE_HANG)
        wake_all(s);
}

static void on_outage_end(struct timer *t)
{
    outage_end(container_of(t, struct demo_server, outage_end));
}

static void outage_begin(struct demo_server *s, const struct outage *o)
{
    enum outage_mode mode = o->mode;

    if (!arm_in(s, &s->outage_end, o->ns))
        return;
    s->outage = mode;
    s->health_ok = o->health_ok;
    log_begin(LOG_INFO, "outage_begin");
    log_z("name", s->options->name);
    log_z("mode", outage_mode_name(mode));
    log_ms("for_ms", o->ns);
    log_end();
    if (mode == OUTAGE_REFUSE) {
        loop_cancel(s->loop, &s->listen_again);
        listener_close(s->listener);
        s->listener = NULL;
    }
    if (mode == OUTAGE_REFUSE || mode == OUTAGE_RESET)
        reset_all(s);
    else if (mode == OUTAGE_HANG)
        wake_all(s);
}

void demo_server_outage(struct demo_server *s, const struct outage *o)
{
    outage_end(s);
    if (o->mode != OUTAGE_NONE)
        outage_begin(s, o);
}

static void on_outage_next(struct timer *t)
{
    struct demo_server *s = container_of(t, struct demo_server, outage_next);
    const struct demo_options *o = s->options;

    while (s->next_at <= loop_now(s->loop))
        s->next_at += o->outage_every;
    demo_server_outage(s, &(struct outage){.mode = o->outage_mode, .ns = o->outage_for});
    if (!loop_arm(s->loop, t, s->next_at))
        loop_stop(s->loop);
}

bool demo_server_init(struct demo_server *s, struct loop *l, const struct demo_options *options, int *error)
{
    *s = (struct demo_server){
        .loop = l, .options = options, .at = options->listen.addr, .outage = OUTAGE_NONE, .ledger = -1};
    list_init(&s->conns);
    timer_init(&s->outage_end, on_outage_end);
    timer_init(&s->outage_next, on_outage_next);
    timer_init(&s->listen_again, listen_again);
    if (!ledger_open(s, error) || !server_listen(s, error))
        return false;
    s->next_at = loop_now(l) + (options->outage_offset ? options->outage_offset : options->outage_every);
    if (options->outage_every && !loop_arm(l, &s->outage_next, s->next_at)) {
        *error = ENOMEM;
        demo_server_fini(s);
        return false;
    }
    return true;
}

void demo_server_fini(struct demo_server *s)
{
    loop_cancel(s->loop, &s->outage_end);
    loop_cancel(s->loop, &s->outage_next);
    loop_cancel(s->loop, &s->listen_again);
    listener_close(s->listener);
    s->listener = NULL;
    reset_all(s);
    ledger_close(s);
}
