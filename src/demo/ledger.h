/* The ledger: a file with a line for each POST whose head has arrived, its X-Request-ID, written before the request is
 * looked at. It outlives a killed process, and backends may share one. */
#ifndef LB_DEMO_LEDGER_H
#define LB_DEMO_LEDGER_H

#include "http/parse.h"
#include "server.h"

/* Opens the file that the options name, if they do. False with `*error` = errno. */
bool ledger_open(struct demo_server *s, int *error) __attribute__((warn_unused_result));
void ledger_close(struct demo_server *s);

/* Enters the request, if it is a POST with an id. A full disk is not noticed: it is the reader who counts. */
void ledger_enter(const struct demo_server *s, const struct request *r);

#endif
