/* Taking over: waits for its turn, then receives connections with what was read from them. */
#include "successor.h"

#include "base/log.h"
#include "base/mem.h"
#include "net/sock.h"
#include "upgrade.h"

#include <errno.h>

#define BATCH 64 /* messages a turn */

struct successor {
    struct loop *loop;
    struct watch control;
    struct lifecycle *lifecycle; /* NULL: not yet */
    bool go, failed;
    size_t taken;
    struct buf buckets, health; /* what has come of them */
    char message[UPGRADE_MESSAGE_MAX];
};

static void close_control(struct successor *s)
{
    if (s->control.fd < 0)
        return;
    loop_unwatch(s->loop, &s->control);
    sock_close(s->control.fd);
    s->control.fd = -1;
}

static void taken_over(struct successor *s)
{
    log_begin(LOG_INFO, "taken_over");
    log_u64("connections", s->taken);
    log_end();
}

/* The process before has no more for us, or has ended: if that was before its time, its files are free all the same. */
static void on_end(struct successor *s)
{
    close_control(s);
    s->go = true;
    if (!s->lifecycle)
        return;
    s->lifecycle->follows = false;
    taken_over(s);
}

static void take(struct successor *s, int fd, struct str bytes)
{
    struct addr at;
    sock_adopt(fd);
    if (!s->lifecycle || sock_remote_addr(fd, &at) < 0) { /* its client has gone meanwhile */
        sock_close(fd);
        return;
    }
    struct peer peer = peer_from_addr(&at);
    s->taken++;
    proxy_take_over(s->lifecycle->proxy, fd, &peer, bytes);
}

static void keep(struct successor *s, struct buf *to, size_t n)
{
    if (!buf_append(to, s->message + 1, n - 1))
        s->failed = true; /* without memory for them: the process before goes on */
}

/* False when nothing more is there. */
static bool receive(struct successor *s)
{
    int fd;
    ssize_t n = sock_recv_fd(s->control.fd, s->message, sizeof s->message, &fd);
    if (n == -EAGAIN)
        return false;
    if (s->lifecycle)
        lifecycle_close_before(s->lifecycle); /* UPGRADE_LEFT, or whatever else an older one says first after it */
    if (n <= 0) {
        on_end(s);
        return false;
    }
    if (s->message[0] == UPGRADE_GO)
        s->go = true;
    else if (s->message[0] == UPGRADE_BUCKETS)
        keep(s, &s->buckets, (size_t)n);
    else if (s->message[0] == UPGRADE_HEALTH)
        keep(s, &s->health, (size_t)n);
    if (fd >= 0)
        take(s, fd, str_make(s->message + 1, (size_t)n - 1));
    return true;
}

static void on_control(struct watch *w, unsigned ready)
{
    struct successor *s = container_of(w, struct successor, control);
    (void)ready;
    for (int i = 0; i < BATCH && receive(s); i++)
        ;
}

static void say(struct successor *s, struct str what)
{
    if (s->control.fd >= 0)
        (void)!sock_send_fd(s->control.fd, -1, what.p, what.n); /* if it has ended, that is seen by itself */
}

static bool is_over(const struct successor *s, const bool *stop)
{
    return s->go || s->failed || *stop;
}

/* The process before serves meanwhile. Those that it knows need not be waited for, but it has not told which they are.
 */
static void wait_for_names(struct successor *s, const struct upstream *u, const bool *stop)
{
    uint64_t now = loop_now(s->loop), until = now + SUCCESSOR_NAMES_PATIENCE;
    for (; now < until && !upstream_names_are_known(u) && !is_over(s, stop); now = loop_now(s->loop))
        loop_turn(s->loop, until - now);
}

bool successor_wait(struct successor *s, const struct upstream *u, const bool *stop)
{
    loop_turn(s->loop, 0); /* the first checks of all backends leave while nobody waits for this process */
    wait_for_names(s, u, stop);
    static const char prepared[] = {UPGRADE_PREPARED, UPGRADE_TAKES_WORDS};
    say(s, str_make(prepared, sizeof prepared));
    while (!is_over(s, stop))
        loop_turn(s->loop, TIMER_NEVER);
    return s->go && !s->failed && !*stop;
}

struct str successor_buckets(const struct successor *s)
{
    return buf_str(&s->buckets);
}

struct str successor_health(const struct successor *s)
{
    return buf_str(&s->health);
}

void successor_serve(struct successor *s, struct lifecycle *lc)
{
    s->lifecycle = lc;
    buf_fini(&s->buckets);
    buf_fini(&s->health);
    static const char ready[] = {UPGRADE_READY};
    say(s, str_make(ready, sizeof ready));
    lc->follows = s->control.fd >= 0;
    if (lc->follows)
        return;
    lifecycle_close_before(lc); /* nobody is left to say that it is left */
    taken_over(s);
}

struct successor *successor_new(struct loop *l, int control)
{
    struct successor *s = mem_try_alloc(sizeof *s);
    if (!s) {
        sock_close(control);
        errno = ENOMEM;
        return NULL;
    }
    s->loop = l;
    watch_init(&s->control, control, on_control);
    if (loop_watch(l, &s->control, LOOP_READ))
        return s;
    int error = errno;
    sock_close(control);
    mem_free(s);
    errno = error;
    return NULL;
}

void successor_free(struct successor *s)
{
    if (!s)
        return;
    close_control(s);
    buf_fini(&s->buckets);
    buf_fini(&s->health);
    mem_free(s);
}
