/* The daemon: everything built in order, run, and destroyed in reverse. */
#ifndef LB_SERVER_H
#define LB_SERVER_H

#include "config/config.h"

/* Serves by `config` until it is stopped. `argv` is what the process was started with: an upgrade starts the next one
 * with the same. Returns the exit status (lifecycle.h); what keeps it from starting is told on
 * stderr. */
int server_run(struct config *config, char *const argv[]);

#endif
