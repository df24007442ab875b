/* What a service manager is told (sd_notify(3)): datagrams to the socket that NOTIFY_SOCKET names. Without one, nothing
 * happens. */
#ifndef LB_NOTIFY_H
#define LB_NOTIFY_H

#include "event/loop.h"

#include <sys/types.h>

/* READY=1, also at the end of a reload; RELOADING=1 with the monotonic clock; STOPPING=1. */
void notify_ready(void);
void notify_reloading(void);
void notify_stopping(void);

/* Another process is the service's main one from now on. */
void notify_main_process(pid_t pid);

/* WATCHDOG=1, each half of WATCHDOG_USEC, as long as the loop runs: if that is asked for, and of this process
 * (WATCHDOG_PID), or of the one that `inherited` it to us. */
struct watchdog { /* embedded */
    struct timer timer;
    struct loop *loop;
    uint64_t every;
};
void watchdog_start(struct watchdog *w, struct loop *l, bool inherited);
void watchdog_stop(struct watchdog *w);

#endif
