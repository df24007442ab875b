/* A connection of the demo backend: reads requests, answers them in order. */
#ifndef LB_DEMO_CONN_H
#define LB_DEMO_CONN_H

#include "server.h"

struct conn;

/* Serves a new connection; takes `fd`. Out of memory closes it. */
void conn_accept(struct demo_server *s, int fd);

/* Walks the server's connections. */
struct conn *conn_of_link(struct list *link);

/* Ends the connection with a reset. */
void conn_reset(struct conn *c);

/* Goes on after a hang has ended. */
void conn_wake(struct conn *c);

#endif
