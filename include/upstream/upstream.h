/* The backends as a whole: which there are, which are up, whose turn it is.
 *
 * A backend is UP or DOWN. It begins UP (a name: as soon as it resolves), its first probe may take it down at once, and
 * from then on `fall` failures and `rise` successes in a row change it (see health.h). */
#ifndef LB_UPSTREAM_UPSTREAM_H
#define LB_UPSTREAM_UPSTREAM_H

#include "config/config.h"
#include "event/loop.h"

#include <stdbool.h>

struct upstream;
struct backend;

#define UPSTREAM_TRIED_MAX 16u /* backends that one request remembers to have tried */

/* What a choice depends on. */
struct pick {
    struct backend *tried[UPSTREAM_TRIED_MAX]; /* not to be chosen again while another is eligible */
    unsigned tried_count;
};

/* Builds the backends of `config` (a reference is kept) and starts checking them. NULL, with errno, when memory runs
 * out or the thread that resolves names cannot be started. */
struct upstream *upstream_new(struct loop *l, struct config *config) __attribute__((warn_unused_result));

/* Stops the checks and closes idle connections; no connection may be leased any more. NULL is fine. */
void upstream_free(struct upstream *u);

/* The backend whose turn it is, among those that are up and not tried; else among those that are up; a backup only when
 * no other can be. NULL when none is up. */
struct backend *upstream_pick(struct upstream *u, const struct pick *p);

/* Backends in the config's order. */
unsigned upstream_count(const struct upstream *u);
struct backend *upstream_backend(struct upstream *u, unsigned i);

struct str backend_name(const struct backend *be);

/* Can it be chosen: up by its active checks, and not ejected by passive ones. */
bool backend_is_available(const struct backend *be);

/* Passive checks: how a real request went. After passive_check.failures failures in a row the backend is ejected for
 * passive_check.ejection, twice as long each time until a request succeeds, unless it is the last one available. When
 * it comes back, one more failure ejects it again. `cause` is for the log. */
void backend_succeeded(struct backend *be);
void backend_failed(struct backend *be, const char *cause);

#endif
