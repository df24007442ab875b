/* The daemon: everything built in order, run, and destroyed in reverse. */
#ifndef LB_SERVER_H
#define LB_SERVER_H

#include "config/config.h"

/* Serves by `config` until it is stopped. Returns the exit status (lifecycle.h); what keeps it from starting is told on
 * stderr. */
int server_run(struct config *config);

#endif
