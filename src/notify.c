/* The protocol of sd_notify(3), which is small enough to be spoken without a library. */
#include "notify.h"

#include "base/clock.h"
#include "base/process.h"
#include "base/str.h"
#include "net/sock.h"

#include <stdio.h>
#include <stdlib.h>

static void tell(const char *text)
{
    const char *path = getenv("NOTIFY_SOCKET");
    if (path)
        (void)!sock_tell(path, str_of(text)); /* whoever does not listen does not want to know */
}

void notify_ready(void)
{
    tell("READY=1");
}

void notify_reloading(void)
{
    char text[64];
    snprintf(text, sizeof text, "RELOADING=1\nMONOTONIC_USEC=%llu",
             (unsigned long long)(clock_monotonic() / NS_PER_US));
    tell(text);
}

void notify_stopping(void)
{
    tell("STOPPING=1");
}

void notify_main_process(pid_t pid)
{
    char text[64];
    snprintf(text, sizeof text, "MAINPID=%d", (int)pid);
    tell(text);
}

static void on_watchdog(struct timer *t)
{
    struct watchdog *w = container_of(t, struct watchdog, timer);
    tell("WATCHDOG=1");
    (void)!loop_arm(w->loop, t, loop_now(w->loop) + w->every); /* it has just left the heap: there is room */
}

static bool number_in(const char *name, uint64_t *out)
{
    const char *text = getenv(name);
    return text && str_parse_u64(str_of(text), out);
}

void watchdog_start(struct watchdog *w, struct loop *l, bool inherited)
{
    uint64_t us, pid;
    timer_init(&w->timer, on_watchdog);
    w->loop = l;
    if (!number_in("WATCHDOG_USEC", &us) || us == 0 || us > UINT64_MAX / NS_PER_US)
        return;
    if (number_in("WATCHDOG_PID", &pid) && pid != (uint64_t)process_self() && !inherited)
        return;
    w->every = us * NS_PER_US / 2;
    (void)!loop_arm(l, &w->timer, loop_now(l));
}

void watchdog_stop(struct watchdog *w)
{
    if (w->loop)
        loop_cancel(w->loop, &w->timer);
}
