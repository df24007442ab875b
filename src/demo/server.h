/* The demo backend: an origin server that shows what it was asked, and fails and recovers on schedule or on demand. */
#ifndef LB_DEMO_SERVER_H
#define LB_DEMO_SERVER_H

#include "event/loop.h"
#include "http/headers.h"
#include "net/addr.h"
#include "net/listener.h"

#include <stdbool.h>
#include <stdint.h>

/* What an outage looks like from outside. */
enum outage_mode {
    OUTAGE_NONE,
    OUTAGE_REFUSE, /* the listener is closed and every connection reset */
    OUTAGE_HANG,   /* connections are accepted, nothing is read or answered; goes on where it stood when it ends */
    OUTAGE_500,    /* every answer is a 500, that of /health a 503 */
    OUTAGE_RESET   /* every connection is reset, new ones as soon as they send something */
};

/* "refuse", "hang", "500", "reset"; false when `s` is none of them. */
bool outage_mode_parse(struct str s, enum outage_mode *out) __attribute__((warn_unused_result));
const char *outage_mode_name(enum outage_mode mode);

struct demo_options {
    const char *name;
    struct endpoint listen;
    uint64_t delay; /* ns before each answer, but those of /health, /_outage and /echo */
    /* ns; `every` 0: no schedule. The first outage begins after `offset`, or after `every` where that is 0. */
    uint64_t outage_every, outage_for, outage_offset;
    enum outage_mode outage_mode;
};

#define DEMO_FIELDS_MAX 256u

struct demo_server {
    struct loop *loop;
    const struct demo_options *options;
    struct listener *listener; /* NULL in a refuse outage */
    struct addr at;            /* the address it listens on, port resolved */
    struct list conns;
    uint64_t served; /* requests answered; /health and /_outage do not count */
    enum outage_mode outage;
    struct timer outage_end, outage_next, listen_again;
    uint64_t next_at;                     /* when the next scheduled outage begins */
    struct field fields[DEMO_FIELDS_MAX]; /* scratch for parsing */
};

/* Listens and arms the schedule. `options` must outlive the server. False with `*error` = errno. */
bool demo_server_init(struct demo_server *s, struct loop *l, const struct demo_options *options, int *error)
    __attribute__((warn_unused_result));

/* Closes the listener and every connection; the loop reclaims them. */
void demo_server_fini(struct demo_server *s);

/* Begins an outage of that many ns (one that is on ends first), or with OUTAGE_NONE ends the one that is on. */
void demo_server_outage(struct demo_server *s, enum outage_mode mode, uint64_t ns);

#endif
