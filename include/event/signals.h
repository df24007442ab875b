/* Signals as events: blocked for the process and read from a signalfd on the loop. */
#ifndef LB_EVENT_SIGNALS_H
#define LB_EVENT_SIGNALS_H

#include "event/loop.h"

struct signals;
typedef void signals_fn(void *arg, int signo);

/* Blocks SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2 (and ignores SIGPIPE, and in the first process of a PID namespace
 * SIGCHLD) and calls fn(arg, signo) on the loop for each that arrives. To be called before any thread is started. NULL,
 * with errno, on failure. */
struct signals *signals_new(struct loop *l, signals_fn *fn, void *arg);

/* Ends the reports; not to be called by `fn`. The signals stay blocked, so that a late one does not cut the end of the
 * program short. NULL is fine. */
void signals_free(struct signals *s);

#endif
