/* What the process was started with: the socket it is to listen on, from a service manager (sd_listen_fds(3)) or from
 * the process whose place it is to take, and the connection to that one. */
#ifndef LB_INHERITED_H
#define LB_INHERITED_H

#include "config/config.h"
#include "net/listener.h"

#include <stdbool.h>

#define INHERITED_SETTING "LOADBALANCER_UPGRADE" /* "CONTROL,LISTENER,OWNED" */

struct inherited {
    int control;          /* to the process before; -1: there was none */
    int listeners, count; /* the first descriptor of sockets that listen already, and how many; 0: none */
    bool owns_file;       /* that of a unix socket is ours to remove */
};

/* Reads the environment. False when it is malformed. */
bool inherited_find(struct inherited *in) __attribute__((warn_unused_result));

/* Does a socket at `at` listen where the config says `wanted`? A path may have another name there. A host without IPv6
 * listens at 0.0.0.0 instead of [::], and port 0 is any. */
bool inherited_is_at(const struct addr *at, const struct endpoint *wanted);

/* The inherited socket that listens where `config` says, or -1. Closes the others, but for that of the process before:
 * who waits at it is still to be served. */
int inherited_listener(struct inherited *in, const struct config *config);

#endif
