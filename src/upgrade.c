/* The side of an upgrade that gives. The other one is in successor.c; upgrade.h has the picture of both. */
#include "upgrade.h"

#include "base/buf.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/process.h"
#include "inherited.h"
#include "net/listener.h"
#include "net/sock.h"
#include "notify.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#define LOOK_EVERY (5 * NS_PER_MS) /* whether the new process has ended, or there is room for more connections */
#define END_GRACE  (1 * NS_PER_S)  /* for one that is ending by itself, so that its exit status is its own */

enum upgrade_state {
    UPGRADE_NONE,
    UPGRADE_STARTED, /* until it is prepared */
    UPGRADE_SAVING,
    UPGRADE_GIVEN,  /* the files are its; until it is ready */
    UPGRADE_ENDING, /* it has failed: until it has ended */
    UPGRADE_PASSING
};

struct upgrade {
    struct upgrade_setup parts;
    enum upgrade_state state;
    struct watch control;
    struct timer timer;
    pid_t pid;
    uint64_t begun, failed;
    bool frozen, given;             /* what is to be undone */
    bool takes_words;               /* the new process does */
    unsigned backends;              /* how far what is known of them is on its way, */
    struct limiter_export exported; /* and the buckets; */
    bool all_told;                  /* and that the new process may go on */
    bool told;                      /* that the listening socket is left */
    char cause[160];                /* of UPGRADE_ENDING */
    bool by_itself;                 /* likewise: its exit status says more */
    const char *stop;               /* the signal that ends this process after it; NULL: none */
    const char *second;             /* the one behind that; or NULL */
    struct buf message;
};

static void upgrade_enter(struct upgrade *u, enum upgrade_state to)
{
    static const uint8_t legal[] = {
        [UPGRADE_NONE] = 1 << UPGRADE_STARTED,
        [UPGRADE_STARTED] = 1 << UPGRADE_SAVING | 1 << UPGRADE_ENDING,
        [UPGRADE_SAVING] = 1 << UPGRADE_GIVEN | 1 << UPGRADE_ENDING,
        [UPGRADE_GIVEN] = 1 << UPGRADE_PASSING | 1 << UPGRADE_ENDING,
        [UPGRADE_ENDING] = 1 << UPGRADE_NONE,
        [UPGRADE_PASSING] = 0,
    };
    assert(legal[u->state] >> to & 1);
    (void)legal;
    u->state = to;
}

static void log_failed(const char *cause)
{
    log_begin(LOG_ERROR, "upgrade_failed");
    log_z("cause", cause);
    log_end();
}

static void close_control(struct upgrade *u)
{
    if (u->control.fd < 0)
        return;
    loop_unwatch(u->parts.loop, &u->control);
    sock_close(u->control.fd);
    u->control.fd = -1;
}

/* ---- when it fails ---- */

static void goes_on(struct upgrade *u)
{
    struct lifecycle *lc = u->parts.lifecycle;
    upgrade_enter(u, UPGRADE_NONE);
    log_failed(u->cause);
    reload_forbid(u->parts.reload, NULL);
    bool good = !u->given || u->parts.restart_limiter(u->parts.arg);
    u->given = false;
    if (!good) {
        lifecycle_give_up(lc);
        return;
    }
    if (u->frozen) {
        proxy_thaw(u->parts.proxy);
        listener_resume(lc->listener);
        u->frozen = false;
    }
    if (u->stop)
        lifecycle_stop(lc, u->stop);
    if (u->second)
        lifecycle_stop(lc, u->second);
}

/* Its files may be needed again: it has to have ended before this process goes on. */
static void look_for_end(struct upgrade *u)
{
    int status = 0;
    if (loop_now(u->parts.loop) - u->failed > END_GRACE)
        process_kill(u->pid);
    if (process_has_ended(u->pid, &status)) {
        size_t n = strlen(u->cause);
        if (u->by_itself)
            snprintf(u->cause + n, sizeof u->cause - n, " (exit status %d)", status);
        goes_on(u);
    } else if (!loop_arm(u->parts.loop, &u->timer, loop_now(u->parts.loop) + LOOK_EVERY)) {
        goes_on(u); /* without memory for a timer there will be none for another upgrade */
    }
}

/* Waits for the new process's end, and then goes on. */
static void end_it(struct upgrade *u)
{
    upgrade_enter(u, UPGRADE_ENDING);
    u->failed = loop_now(u->parts.loop);
    look_for_end(u);
}

enum failure {
    IT_HAS_ENDED, /* the new process is gone, or going; its exit status is added to the cause */
    IT_IS_ENDED   /* it is made to end */
};

/* Notes why, and lets go of the new process. */
static void let_go(struct upgrade *u, enum failure how, const char *cause)
{
    snprintf(u->cause, sizeof u->cause, "%s", cause);
    u->by_itself = how == IT_HAS_ENDED;
    if (how == IT_IS_ENDED)
        process_kill(u->pid); /* first: by the end of the connection it would believe that its turn has come */
    close_control(u);
}

static void fail(struct upgrade *u, enum failure how, const char *cause)
{
    let_go(u, how, cause);
    if (u->state == UPGRADE_SAVING)
        return; /* the save ends first, and goes on from there */
    end_it(u);
}

/* ---- step by step ---- */

/* The next part of what is known of the backends, then of the buckets, or, behind the last, that the new process may go
 * on. */
static bool fill_message(struct upgrade *u)
{
    bool health = u->backends < upstream_count(u->parts.upstream);
    bool buckets = u->parts.lifecycle->limiter && !u->exported.buckets.ended;
    const char type = health ? UPGRADE_HEALTH : buckets ? UPGRADE_BUCKETS : UPGRADE_GO;
    if (!buf_append(&u->message, &type, 1))
        return false;
    if (health)
        return upstream_export(u->parts.upstream, &u->backends, UPGRADE_MESSAGE_MAX / 2, &u->message);
    return !buckets || limiter_export(u->parts.lifecycle->limiter, &u->exported, UPGRADE_MESSAGE_MAX / 2, &u->message);
}

/* Sends as much as the socket takes; what it does not waits until there is room. */
static void send_on(struct upgrade *u)
{
    int rc = 0;
    while (!u->all_told && rc == 0) {
        if (u->message.len == 0 && !fill_message(u))
            rc = -ENOMEM;
        if (rc == 0)
            rc = sock_send_fd(u->control.fd, -1, buf_bytes(&u->message), u->message.len);
        if (rc == 0) {
            u->all_told = buf_bytes(&u->message)[0] == UPGRADE_GO;
            buf_consume(&u->message, u->message.len);
        }
    }
    loop_rewatch(u->parts.loop, &u->control, rc == -EAGAIN ? LOOP_READ | LOOP_WRITE : LOOP_READ);
    if (rc < 0 && rc != -EAGAIN)
        fail(u, IT_IS_ENDED, "the new process cannot be told to go on");
}

static void give(struct upgrade *u)
{
    upgrade_enter(u, UPGRADE_GIVEN);
    u->backends = 0;
    u->exported = (struct limiter_export){.buckets.words = u->takes_words};
    u->all_told = false;
    buf_consume(&u->message, u->message.len);
    if (!loop_arm(u->parts.loop, &u->timer, loop_now(u->parts.loop) + UPGRADE_PATIENCE))
        fail(u, IT_IS_ENDED, "out of memory");
    else
        send_on(u);
}

static void on_saved(void *arg, bool ok)
{
    struct upgrade *u = arg;
    u->given = ok;
    (ok ? limiter_leave : limiter_reopen)(u->parts.lifecycle->limiter);
    if (ok && u->control.fd >= 0 && !u->stop) {
        give(u);
        return;
    }
    if (!ok)
        let_go(u, IT_IS_ENDED, "the clients cannot be saved");
    end_it(u); /* or it has failed meanwhile */
}

static void on_prepared(struct upgrade *u, struct str takes)
{
    struct lifecycle *lc = u->parts.lifecycle;
    loop_cancel(u->parts.loop, &u->timer);
    lifecycle_close_before(lc);
    listener_pause(lc->listener);
    proxy_freeze(u->parts.proxy);
    u->frozen = true;
    u->takes_words = str_find(takes, UPGRADE_TAKES_WORDS) < takes.n;
    upgrade_enter(u, UPGRADE_SAVING);
    if (lc->limiter)
        limiter_close(lc->limiter, on_saved, u);
    else
        give(u);
}

/* False when it has to be tried again. */
static bool send_now(struct upgrade *u, int fd, const void *p, size_t n)
{
    int rc = sock_send_fd(u->control.fd, fd, p, n);
    if (rc != -EAGAIN && rc != -ENOBUFS && rc != -ETOOMANYREFS && rc != -ENOMEM)
        return true;
    return !loop_arm(u->parts.loop, &u->timer, loop_now(u->parts.loop) + LOOK_EVERY);
}

/* In case that no connection goes over for long, which would say the same. */
static void tell_left(struct upgrade *u)
{
    const char type = UPGRADE_LEFT;
    if (!u->told && u->control.fd >= 0)
        u->told = send_now(u, -1, &type, 1);
}

static bool pass(void *arg, int fd, struct str bytes)
{
    struct upgrade *u = arg;
    char type = UPGRADE_CONNECTION;
    buf_consume(&u->message, u->message.len);
    if (bytes.n >= UPGRADE_MESSAGE_MAX || u->control.fd < 0 || !buf_append(&u->message, &type, 1) ||
        !buf_append_str(&u->message, bytes))
        return true; /* it cannot be had there: it ends */
    return send_now(u, fd, buf_bytes(&u->message), u->message.len);
}

static void on_ready(struct upgrade *u)
{
    loop_cancel(u->parts.loop, &u->timer);
    upgrade_enter(u, UPGRADE_PASSING);
    notify_main_process(u->pid);
    log_begin(LOG_INFO, "upgrade");
    log_u64("pid", (uint64_t)u->pid);
    log_z("program", u->parts.path);
    log_ms("duration_ms", clock_monotonic() - u->begun);
    log_end();
    lifecycle_hand_over(u->parts.lifecycle, pass, u);
    tell_left(u);
}

static void on_timer(struct timer *t)
{
    struct upgrade *u = container_of(t, struct upgrade, timer);
    switch (u->state) {
    case UPGRADE_STARTED:
    case UPGRADE_GIVEN: fail(u, IT_IS_ENDED, "the new process was not ready in time"); break;
    case UPGRADE_ENDING: look_for_end(u); break;
    case UPGRADE_PASSING:
        tell_left(u);
        lifecycle_pass_more(u->parts.lifecycle, pass, u);
        break;
    default: break;
    }
}

static void on_control(struct watch *w, unsigned ready)
{
    struct upgrade *u = container_of(w, struct upgrade, control);
    char message[16] = {0};
    int fd;
    if (ready & LOOP_WRITE && u->state == UPGRADE_GIVEN)
        send_on(u);
    if (u->control.fd < 0)
        return;
    ssize_t n = sock_recv_fd(w->fd, message, sizeof message, &fd);
    if (fd >= 0)
        sock_close(fd);
    if (n == -EAGAIN)
        return;
    const char type = message[0];
    if (u->state == UPGRADE_PASSING)
        close_control(u); /* it has gone, and with it whoever was passed on */
    else if (n >= 1 && type == UPGRADE_PREPARED && u->state == UPGRADE_STARTED)
        on_prepared(u, str_make(message + 1, (size_t)n - 1));
    else if (n >= 1 && type == UPGRADE_READY && u->state == UPGRADE_GIVEN)
        on_ready(u);
    else
        fail(u, IT_HAS_ENDED, "the new process ended before it was ready");
}

/* ---- begin ---- */

static int start_process(struct upgrade *u)
{
    const struct listener *ls = u->parts.lifecycle->listener;
    int ends[2], rc = sock_pair(ends);
    if (rc < 0)
        return rc;
    char setting[64];
    snprintf(setting, sizeof setting, INHERITED_SETTING "=3,4,%d", listener_owns_file(ls));
    int fds[] = {ends[1], listener_descriptor(ls)};
    pid_t pid = process_start(u->parts.path, u->parts.argv, fds, 2, setting);
    sock_close(ends[1]);
    if (pid < 0) {
        sock_close(ends[0]);
        return pid;
    }
    u->pid = pid;
    u->control.fd = ends[0];
    return 0;
}

static const char *forbidden(const struct upgrade *u)
{
    if (process_is_first()) /* the kernel would end the new process with this one */
        return "the balancer is the first process of its container, which would end with it";
    if (u->parts.lifecycle->state != LIFECYCLE_RUNNING)
        return "the balancer is stopping";
    if (u->state != UPGRADE_NONE)
        return "an upgrade is under way";
    return reload_under_way(u->parts.reload) ? "a reload is under way" : NULL;
}

void upgrade_begin(struct upgrade *u)
{
    const char *why = forbidden(u);
    if (why) {
        log_failed(why);
        return;
    }
    u->begun = clock_monotonic();
    int rc = start_process(u);
    if (rc < 0) {
        char cause[160];
        snprintf(cause, sizeof cause, "%s cannot be started: %s", u->parts.path, strerrordesc_np(-rc));
        log_failed(cause);
        return;
    }
    upgrade_enter(u, UPGRADE_STARTED);
    reload_forbid(u->parts.reload, "an upgrade is under way");
    watch_init(&u->control, u->control.fd, on_control);
    if (!loop_watch(u->parts.loop, &u->control, LOOP_READ) ||
        !loop_arm(u->parts.loop, &u->timer, loop_now(u->parts.loop) + UPGRADE_PATIENCE))
        fail(u, IT_IS_ENDED, "out of memory");
}

bool upgrade_stop(struct upgrade *u, const char *signal_name)
{
    if (u->state == UPGRADE_NONE || u->state == UPGRADE_PASSING)
        return false;
    *(u->stop ? &u->second : &u->stop) = signal_name;
    if (u->state != UPGRADE_ENDING)
        fail(u, IT_IS_ENDED, "the balancer is stopping");
    return true;
}

struct upgrade *upgrade_new(const struct upgrade_setup *setup)
{
    struct upgrade *u = mem_try_alloc(sizeof *u);
    if (!u)
        return NULL;
    u->parts = *setup;
    u->control.fd = -1;
    timer_init(&u->timer, on_timer);
    return u;
}

void upgrade_free(struct upgrade *u)
{
    if (!u)
        return;
    close_control(u);
    loop_cancel(u->parts.loop, &u->timer);
    buf_fini(&u->message);
    mem_free(u);
}
