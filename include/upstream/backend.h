/* One backend and the set of them, as the files of this layer see them; the layers above use upstream.h. */
#ifndef LB_UPSTREAM_BACKEND_H
#define LB_UPSTREAM_BACKEND_H

#include "base/list.h"
#include "config/config.h"
#include "event/loop.h"
#include "event/notice.h"
#include "event/worker.h"
#include "http/headers.h"
#include "upstream/policy.h"
#include "upstream/upstream.h"

#define BACKEND_ADDRS_MAX 8

struct health_check;
struct names;

/* Failures of real requests, see passive.c. */
struct passive_check {
    unsigned in_a_row;
    bool on_trial;      /* back from an ejection: one request at a time, until one is answered */
    unsigned trials;    /* requests that are under way there on trial, or have begun in the ejection */
    uint64_t trial_at;  /* when the last of those began */
    uint32_t epoch;     /* how often it has been ejected: what began before says nothing about what is after */
    uint32_t answers;   /* to requests and checks: whether there are more than before is all that is asked of it */
    uint64_t ejection;  /* the last one's length, 0 when a request has succeeded since */
    struct timer timer; /* the end of the ejection */
};

/* What they know, on its way to another process. */
struct passive_known {
    unsigned in_a_row;
    bool on_trial;
    uint64_t ejection, left; /* the last one's length, and what is left of one that goes on */
};

/* What users know of a backend. One given by address is up unless something else is said. */
enum said { SAID_NOTHING, SAID_UP, SAID_DOWN };

struct backend {
    unsigned refs; /* the set, its connections, and exchanges that name it in the log */
    struct upstream *upstream;
    struct config *snapshot;             /* counted; what `config` is a part of */
    const struct config_backend *config; /* a reload changes both, unless it removes the backend */

    struct addr addrs[BACKEND_ADDRS_MAX]; /* where it is; more than one only for a name */
    int addr_count;                       /* 0: a name that has not been resolved yet */
    int addr_at;                          /* the one that answered last */
    unsigned addr_ids[BACKEND_ADDRS_MAX]; /* of a name's: each is given once */
    unsigned addr_id_last;
    unsigned addr_changes; /* how often they have become others */
    bool unheard;          /* its name had no answer the last time */

    bool up;           /* as far as active checks know */
    bool ejected;      /* by passive ones */
    bool available;    /* up and not ejected */
    bool announced;    /* that is known: a name has resolved, or has not */
    enum said said;    /* what the log has said of it last */
    bool removed;      /* by a reload: what is under way there ends, nothing begins */
    uint64_t since;    /* when what the log says became so, monotonic ns */
    uint64_t warm;     /* when its slow start began, 0: it has its full share */
    unsigned active;   /* requests that have a place there */
    int turn;          /* smooth weighted round robin: the current weight, while it has no seat */
    uint64_t identity; /* what its name hashes to, the same in each process */

    struct list idle; /* pooled connections, the newest first */
    struct {
        uint64_t seen;       /* how long the last connection had been idle when the backend closed it, 0: none was */
        uint64_t seen_at;    /* when that was */
        uint64_t held;       /* how long the longest idle of those had been that were answered on */
        uint64_t held_at;    /* when that was */
        uint64_t bound;      /* what follows from two that agree: not kept for longer; 0: nothing is known */
        uint64_t since;      /* when that was found out */
        uint64_t shy_until;  /* a reuse has failed lately: until then none for what must not be sent twice */
        uint64_t bare_until; /* bytes have come behind a response: until then none behind one without content is kept */
        struct notice stray; /* says so */
    } keep;
    unsigned idle_count, open_count;
    unsigned standing; /* of those open: connected ones */
    uint64_t stood_at; /* when one has last come to stand, or ended */
    struct {
        uint64_t attempts, failures, gateway_errors;
    } totals; /* since it is there */

    struct health_check *health;
    struct passive_check passive;

    struct list ending;  /* in the set's list of those whose totals are to be logged yet */
    struct posted ended; /* ... which they are behind all that this turn still counts */
};

struct upstream {
    struct loop *loop;
    struct config *config;
    struct names *names; /* who resolves; NULL when every backend is an address */
    struct backend **backends;
    unsigned count;
    struct field *fields; /* room to parse one response head into, */
    unsigned field_room;  /* for that many: never less than a connection's snapshot may allow */

    struct tier tiers[TIER_COUNT];
    bool importing;     /* until all is known that another process knows they are not built, lest each of many backends
                           has all looked at, and the log is that one's */
    bool warming;       /* a backend is in its slow start ... */
    uint64_t warm_next; /* ... and weights are due then */
    uint64_t random;    /* the state of upstream_random() */

    struct list ending; /* of removed backends at which requests are under way; each is counted for that */

    struct list idle;    /* pooled connections of all backends, the longest idle first */
    unsigned open_count; /* connections to all backends, in use or idle; checks' and removed backends' too */

    struct list queue;      /* of struct waiter, the longest first */
    unsigned waiting;       /* how many they are */
    unsigned waiting_fresh; /* ... that have not tried any backend yet */
    struct posted serve;    /* looks whether the queue can move */
};

/* The backend of that address, or NULL. Sets mostly differ in a place or two, so the search begins at `guess`. */
struct backend *upstream_find(const struct upstream *u, const struct endpoint *at, unsigned guess);

/* Is any backend available? */
bool upstream_has_available(const struct upstream *u);

/* A random number below `n`, which is not 0; for choices and jitter, not for secrets. */
uint32_t upstream_random(struct upstream *u, uint32_t n);
/* A backend of the set, up if it is an address; `config` is a part of `snapshot`, which is counted. NULL without
 * memory.
 */
struct backend *backend_new(struct upstream *u, struct config *snapshot, const struct config_backend *config)
    __attribute__((warn_unused_result));

/* Ends all that it does by itself, and the set's reference; what is under way there goes on. */
void backend_quit(struct backend *be);

/* How many backends are given by name. */
unsigned upstream_names_in(const struct config *config);

/* So many names may have to be resolved at a time: starts the threads that are missing for that. False, with errno, on
 * failure. */
bool upstream_start_names(struct upstream *u, unsigned names) __attribute__((warn_unused_result));

/* Where a name leads that backend `i` of a new config is at: what `l` (may be NULL) has found, else what a backend of
 * that host has. The number of addresses; 0 where that is not known, below that where `l` has asked for it, too. */
int upstream_found(const struct upstream *u, const struct upstream_lookup *l, unsigned i, const struct endpoint *at,
                   struct addr out[BACKEND_ADDRS_MAX]);

/* It has been removed: logs backend_totals, all there is to say of it at its end, when nobody has a place there any
 * more. */
void backend_log_totals_at_end(struct backend *be);

/* Says what active checks have found; logs backend_up or backend_down with the cause when that changes whether the
 * backend is available. Becoming unavailable closes the pooled connections. */
void backend_set_up(struct backend *be, bool up, const char *cause);

/* Acts on a change of `up` or `ejected`, and logs it, unless another process does. */
void backend_update(struct backend *be, const char *cause);

/* Logs whether it is available, unless that was said last. */
void backend_say(struct backend *be, const char *cause);

/* Where among its addresses the one of that number is, or below 0: it has gone. */
int backend_address_at(const struct backend *be, unsigned id);

/* Closes the idle connections to addresses that have gone. */
void pool_flush_strays(struct backend *be);

/* Closes the longest idle connection of all backends. False: none is idle. */
bool pool_close_oldest(struct upstream *u) __attribute__((warn_unused_result));

/* Closes as many of the longest idle as there are connections to backends above limits.connections. */
void pool_trim(struct upstream *u);

/* The backend has closed a connection that had been idle for so long: see pool.c. */
void pool_learn(struct backend *be, uint64_t idle);
/* ... or has answered on it. */
void pool_held(struct backend *be, uint64_t idle);
/* ... or has reset it as soon as it was used again. */
void pool_warn(struct backend *be, uint64_t idle);
void pool_forget(struct backend *be);

/* Bytes have come from the backend that belong to no response. */
void pool_stray_bytes(struct backend *be);
/* Begins and ends the telling of that. */
void pool_init(struct backend *be);
void pool_fini(struct backend *be);

/* How long it keeps idle connections, on its way to another process. */
struct pool_known {
    uint64_t bound, age; /* ours are not kept for longer; when that was found out */
};
/* False: that is not known. */
bool pool_tell(const struct backend *be, struct pool_known *out) __attribute__((warn_unused_result));
/* Another process knew that. */
void pool_take(struct backend *be, const struct pool_known *k);

/* A request takes and leaves a place there. */
void passive_place(struct backend *be, struct place *p);
void passive_leave(struct backend *be, const struct place *p);

/* It has passed a check. That ends no ejection; it only shows that it answers. */
void passive_heard(struct backend *be);

void passive_init(struct backend *be);
void passive_fini(struct backend *be);

/* The backend has another snapshot now. Without passive checks in it an ejection is over. */
void passive_change(struct backend *be);

/* False: there are none. */
bool passive_tell(const struct backend *be, struct passive_known *out) __attribute__((warn_unused_result));
/* Another process knew that: it counts, as far as the config allows. `ejected`: an ejection goes on. */
void passive_take(struct backend *be, const struct passive_known *k, bool ejected);

/* Chooses without regard to those who wait: for the queue itself. See upstream_pick(). */
struct backend *upstream_choose(struct upstream *u, const struct pick *p, struct place *place, bool *full);

/* Has the queue looked at soon, if anybody waits: a place may be free. */
void queue_look(struct upstream *u);

void queue_init(struct upstream *u);
void queue_fini(struct upstream *u);

#endif
