/* The backends as a whole: which there are, which are up, whose turn it is.
 *
 * A backend is UP or DOWN. It begins UP (a name: as soon as it resolves), its first probe may take it down at once, and
 * from then on `fall` failures and `rise` successes in a row change it (see health.h). */
#ifndef LB_UPSTREAM_UPSTREAM_H
#define LB_UPSTREAM_UPSTREAM_H

#include "base/buf.h"
#include "base/clock.h"
#include "base/err.h"
#include "config/config.h"
#include "event/loop.h"

#include <stdbool.h>

struct upstream;
struct backend;

#define UPSTREAM_TRIED_MAX 16u /* backends that one request remembers to have tried */

/* What a choice depends on. */
struct pick {
    struct backend *tried[UPSTREAM_TRIED_MAX]; /* not to be chosen again while another is eligible. Whoever keeps them
                                                  over turns holds them: a reload may remove one, and another could
                                                  come to stand in its place */
    unsigned tried_count;
    bool keyed;   /* `key` counts: else, and with other policies than `hash`, the request goes to anyone */
    uint64_t key; /* what `hash_key` names, hashed by upstream_hash() */
};

/* Builds the backends of `config` (a reference is kept) and starts checking them. NULL, with errno, when memory runs
 * out or a thread that resolves names cannot be started. */
struct upstream *upstream_new(struct loop *l, struct config *config) __attribute__((warn_unused_result));

/* ---- a reload ---- */

struct upstream_change;
struct upstream_lookup;

/* How long answers about the names that a reload brings are waited for, in all. */
#define UPSTREAM_LOOKUP_PATIENCE (5 * NS_PER_S)

typedef void upstream_lookup_fn(void *arg);

/* Asks for the names of `fresh` that are no backend's yet, but for those that lead where another backend's of the same
 * host does. fn(arg) is called once from the loop when all have been answered, or UPSTREAM_LOOKUP_PATIENCE is over; not
 * where there are none: upstream_lookup_is_over() then. It may free the lookup, which goes before the set. NULL when
 * memory runs out or a thread cannot be started. */
struct upstream_lookup *upstream_look_up(struct upstream *u, const struct config *fresh, upstream_lookup_fn *fn,
                                         void *arg) __attribute__((warn_unused_result));
bool upstream_lookup_is_over(const struct upstream_lookup *l);
/* fn() is not called any more. NULL is fine. */
void upstream_lookup_free(struct upstream_lookup *l);

struct upstream_tally { /* backends that a reload ... */
    unsigned added, removed, kept;
};

/* Gets everything ready that can fail to put `fresh` (a reference is kept) in the place of the config. `found`, which
 * may be NULL, is what has been asked for: a name that has been found begins like an address, another one as down.
 * NULL, with errno, when memory runs out or a thread cannot be started: nothing was changed. To be followed in the same
 * turn by one of the two below. */
struct upstream_change *upstream_stage(struct upstream *u, struct config *fresh, const struct upstream_lookup *found)
    __attribute__((warn_unused_result));

/* Puts it in force and frees the change. Backends are the same if their addresses are: those keep their health, what
 * passive checks know, their connections, requests and turn. A removed one gets nothing new and lives until what is
 * under way there has ended. A new one begins as at the start. */
struct upstream_tally upstream_commit(struct upstream_change *c);

/* As if nothing had been staged. NULL is fine. */
void upstream_rollback(struct upstream_change *c);

/* ---- another process goes on ---- */

/* What is known of the backends by their checks and requests, as lines of text that another version understands, too, a
 * part at a time: appends about `most` bytes to `out`. *at is 0 at first, then the backend to go on from, and
 * upstream_count() when all is told. False when memory runs out. */
bool upstream_export(const struct upstream *u, unsigned *at, size_t most, struct buf *out)
    __attribute__((warn_unused_result));

/* Is it known of each name where it leads, or that it leads nowhere just now? At the start it is not. */
bool upstream_names_are_known(const struct upstream *u);

/* Another process serves, and logs how the backends are: this one keeps to itself what its checks find until
 * upstream_import(), and nothing may be chosen until then. */
void upstream_await(struct upstream *u);

/* Goes on from that, and logs of each backend whether it is available where that differs from what the other process
 * has said last. Backends that are not told of, or that no longer are, begin as ever; so do those of lines that
 * cannot be read, which are logged. */
void upstream_import(struct upstream *u, struct str text);

/* Closes the longest idle connection to a backend, for the sake of a client's or of a check's. Not the last one: who is
 * accepted will want one, too, and is better off waiting than with a 502. False: there are not two. Fits
 * listener_spare_fn with the set as its argument. */
bool upstream_spare(void *upstream) __attribute__((warn_unused_result));

/* Stops the checks and closes idle connections; no connection may be leased any more. NULL is fine. */
void upstream_free(struct upstream *u);

/* A request's place at a backend. */
struct place {
    uint32_t epoch;   /* of the backend's ejections, when it was taken */
    uint32_t answers; /* of the backend's until then */
    bool on_trial;
};

/* Chooses the backend for a request by the `balance` of the config, among those that are available and not tried; when
 * all were, among those that are ejected, but up, and not tried; else among those that are available; a backup only
 * when no other can be. The request has a place there until backend_leave(); how it goes there is told with `place`.
 * NULL when none is up, or, with `*full`, when those that are have no place left or others wait already:
 * upstream_wait(). */
struct backend *upstream_pick(struct upstream *u, const struct pick *p, struct place *place, bool *full)
    __attribute__((warn_unused_result));

/* Would that find anything, a backend or the queue before one? Moves no turn. */
bool upstream_has_any(const struct upstream *u) __attribute__((warn_unused_result));

/* Gives the place back. */
void backend_leave(struct backend *be, const struct place *p);

/* The hash of a key, the same in each process, so that several balancers agree. */
uint64_t upstream_hash(struct str key);

/* ---- the queue: requests for which there is no place ---- */

struct waiter;

/* The wait is over: `be` has a place for the request (w->place), or is NULL, and `e` says why: ERR_NO_BACKEND,
 * ERR_QUEUE_TIMEOUT. */
typedef void waiter_fn(struct waiter *w, struct backend *be, enum err e);

struct waiter { /* embedded; set up by waiter_init() */
    struct list link;
    struct timer deadline;
    struct upstream *upstream;
    const struct pick *pick; /* the request's */
    struct place place;
    uint64_t since; /* when the wait began */
    waiter_fn *fn;
};

void waiter_init(struct waiter *w, const struct pick *p, waiter_fn *fn);

/* Waits, first come first served, for at most queue.timeout; fn() is called from the loop. False when queue.size wait
 * already, or memory has run out. */
bool upstream_wait(struct upstream *u, struct waiter *w) __attribute__((warn_unused_result));

/* Waits no longer. Harmless when it does not wait. */
void upstream_unwait(struct waiter *w);

/* How many wait. */
unsigned upstream_waiting(const struct upstream *u);

/* Backends in the config's order. */
unsigned upstream_count(const struct upstream *u);
struct backend *upstream_backend(struct upstream *u, unsigned i);

struct str backend_name(const struct backend *be);

/* A backend that a reload has removed lives until the last reference goes. backend_put() of NULL is fine. */
struct backend *backend_get(struct backend *be);
void backend_put(struct backend *be);

/* Can it be chosen: up by its active checks, and not ejected by passive ones. */
bool backend_is_available(const struct backend *be);

/* Passive checks: how a real request went. After passive_check.failures failures in a row the backend is ejected for
 * passive_check.ejection, twice as long each time until a request succeeds, unless it is the last one available. When
 * it comes back, one more failure ejects it again. An answer to a request that has gone there all the same ends the
 * ejection. `cause` is for the log. */
void backend_succeeded(struct backend *be, const struct place *p);
void backend_failed(struct backend *be, const struct place *p, const char *cause);

/* A real request has failed there in a way that says nothing about others: counted in the totals, and for no more. */
void backend_count_failure(struct backend *be);

/* An attempt begins there, in the place that upstream_pick() has given. */
void backend_count_attempt(struct backend *be);

/* It has answered with 502, 503 or 504: counted apart, for that is no failure of its own, perhaps. */
void backend_count_gateway_error(struct backend *be);

/* Logs what each backend has had to do: backend_totals; also of those removed at which requests have been under way. */
void upstream_log_totals(struct upstream *u);

/* The request has an answer, the end of which is still to come: that ends a trial or an ejection, and no more. */
void backend_answered(struct backend *be, const struct place *p);

/* Has the backend answered another request, or passed a check, since the place was taken? Then it is not one that
 * answers nobody. */
bool backend_has_answered_since(const struct backend *be, const struct place *p) __attribute__((warn_unused_result));

#endif
