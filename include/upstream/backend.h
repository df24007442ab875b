/* One backend, as the files of this layer see it; the layers above use upstream.h. */
#ifndef LB_UPSTREAM_BACKEND_H
#define LB_UPSTREAM_BACKEND_H

#include "base/list.h"
#include "config/config.h"
#include "event/loop.h"
#include "event/worker.h"
#include "http/headers.h"
#include "upstream/upstream.h"

#define BACKEND_ADDRS_MAX 8

struct health_check;

/* Failures of real requests, see passive.c. */
struct passive_check {
    unsigned in_a_row;
    uint64_t ejection;  /* the last one's length, 0 when a request has succeeded since */
    struct timer timer; /* the end of the ejection */
};

struct backend {
    struct upstream *upstream;
    const struct config_backend *config;

    struct addr addrs[BACKEND_ADDRS_MAX]; /* where it is; more than one only for a name */
    int addr_count;                       /* 0: a name that has not been resolved yet */
    int addr_at;                          /* the one that answered last */

    bool up;        /* as far as active checks know */
    bool ejected;   /* by passive ones */
    bool available; /* up and not ejected, as the log knows it */
    bool announced; /* the log knows it */
    uint64_t since; /* when `available` last changed, monotonic ns */
    int turn;       /* smooth weighted round robin: the current weight */

    struct list idle; /* pooled connections, the newest first */
    unsigned idle_count, open_count;

    struct health_check *health;
    struct passive_check passive;
};

struct upstream {
    struct loop *loop;
    struct config *config;
    struct worker *names; /* resolves; NULL when every backend is an address */
    struct backend *backends;
    unsigned count;
    struct field *fields; /* room to parse one response head into */
};

/* Says what active checks have found; logs backend_up or backend_down with the cause when that changes whether the
 * backend is available. Becoming unavailable closes the pooled connections. */
void backend_set_up(struct backend *be, bool up, const char *cause);

/* Logs and acts on a change of `up` or `ejected`. */
void backend_update(struct backend *be, const char *cause);

void passive_init(struct backend *be);
void passive_fini(struct backend *be);

/* Smooth weighted round robin (the method of nginx's ngx_http_upstream_round_robin.c): each eligible backend's turn
 * grows by its weight, the largest is chosen and pays the sum. */
struct backend *round_robin_pick(struct upstream *u, bool (*eligible)(const struct backend *be, const struct pick *p),
                                 const struct pick *p);

#endif
