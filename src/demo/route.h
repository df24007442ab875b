/* What the demo backend does with a request, by its method and path; and the bytes that it serves. */
#ifndef LB_DEMO_ROUTE_H
#define LB_DEMO_ROUTE_H

#include "http/parse.h"
#include "server.h"

enum route_kind {
    ROUTE_SHOW,    /* any other path: JSON that shows the request */
    ROUTE_HEALTH,  /* /health */
    ROUTE_OUTAGE,  /* POST /_outage */
    ROUTE_BYTES,   /* /bytes/N: N bytes by Content-Length */
    ROUTE_CHUNKED, /* /chunked/N: N bytes, chunked */
    ROUTE_STATUS,  /* /status/NNN: shows the request under that status, 200 to 599 */
    ROUTE_ECHO     /* POST /echo: the content comes back, framed as it came */
};

struct route {
    enum route_kind kind;
    uint64_t number; /* of BYTES, CHUNKED, STATUS */
};

/* A path with a number that is malformed or out of range shows the request like any other. */
struct route route_of(const struct request *r);

/* Reads the body of POST /_outage, {"mode":"refuse","for":"10s"}; mode "none", without `for`, ends an outage;
 * "health":"ok" beside them sets health_ok. False when it is wrong, `*why` says how. */
bool route_parse_outage(struct str body, struct outage *o, const char **why) __attribute__((warn_unused_result));

/* The bytes of /bytes and /chunked from offset `at` on: a piece of at most ROUTE_PIECE of them. Byte i is '!' + i % 89.
 */
#define ROUTE_PIECE 16376u
struct str route_bytes(uint64_t at, uint64_t left);

#endif
