/* The demo backend: an origin server that shows what it was asked, and fails and recovers on schedule or on demand. */
#ifndef LB_DEMO_SERVER_H
#define LB_DEMO_SERVER_H

#include "base/clock.h"
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
    OUTAGE_RESET,  /* every connection is reset, new ones as soon as they send something */
    OUTAGE_DROP,   /* every request is taken whole, and its connection reset instead of an answer */
    OUTAGE_CUT,    /* an answer stops in the middle of its content: by turns with a reset and with an orderly end */
    OUTAGE_BAD,    /* every answer is no HTTP, in a few ways */
    OUTAGE_REUSE,  /* a connection is reset at its second request */
    OUTAGE_SLOW,   /* every answer but that of /health comes DEMO_SLOW later */
    OUTAGE_SICK,   /* /health answers 503, all else goes well */
    OUTAGE_MODES
};

#define DEMO_SLOW (500 * NS_PER_MS)

struct outage {
    enum outage_mode mode;
    uint64_t ns;    /* how long */
    bool health_ok; /* /health answers 200 meanwhile, whatever the mode does to the rest */
};

/* One of the modes by its name; false when `s` is none of them. */
bool outage_mode_parse(struct str s, enum outage_mode *out) __attribute__((warn_unused_result));
const char *outage_mode_name(enum outage_mode mode);

struct demo_options {
    const char *name;
    struct endpoint listen;
    uint64_t delay; /* ns before each answer, but those of /health, /_outage and /echo */
    /* ns; `every` 0: no schedule. The first outage begins after `offset`, or after `every` where that is 0. */
    uint64_t outage_every, outage_for, outage_offset;
    enum outage_mode outage_mode;
    const char *ledger; /* file for a line for each POST, see ledger.h; NULL: none */
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
    bool health_ok;  /* of that outage */
    unsigned spoilt; /* answers cut or made bad so far: they take turns */
    int ledger;      /* its descriptor, or -1 */
    struct timer outage_end, outage_next, listen_again;
    uint64_t next_at;                     /* when the next scheduled outage begins */
    struct field fields[DEMO_FIELDS_MAX]; /* scratch for parsing */
};

/* Opens the ledger, listens and arms the schedule. `options` must outlive the server. False with `*error` = errno. */
bool demo_server_init(struct demo_server *s, struct loop *l, const struct demo_options *options, int *error)
    __attribute__((warn_unused_result));

/* Closes the listener and every connection; the loop reclaims them. */
void demo_server_fini(struct demo_server *s);

/* Begins an outage (one that is on ends first), or with OUTAGE_NONE ends the one that is on. */
void demo_server_outage(struct demo_server *s, const struct outage *o);

#endif
