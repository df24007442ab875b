/* The side of an upgrade that takes: this process was started to go on in another's place (upgrade.h has the picture).
 */
#ifndef LB_SUCCESSOR_H
#define LB_SUCCESSOR_H

#include "base/clock.h"
#include "event/loop.h"
#include "lifecycle.h"
#include "proxy/proxy.h"
#include "upstream/upstream.h"

struct successor;

/* `control` is the connection to the process before, which is taken over. NULL, with errno, on failure. */
struct successor *successor_new(struct loop *l, int control) __attribute__((warn_unused_result));

/* How long the first answers about the backends' names are waited for: the process before may not know them. */
#define SUCCESSOR_NAMES_PATIENCE (5 * NS_PER_S)

/* Lets the first checks of `u` go out and its names be asked for, says that all is prepared but for the files, and runs
 * the loop until those are free: the process before has left them, or has ended. False when *stop becomes true first,
 * or memory runs out. */
bool successor_wait(struct successor *s, const struct upstream *u, const bool *stop)
    __attribute__((warn_unused_result));

/* What the process before knew of unregistered clients (limiter_export()). */
struct str successor_buckets(const struct successor *s);

/* What it knew of the backends (upstream_export()). */
struct str successor_health(const struct successor *s);

/* Says that this process serves, and takes over the connections that come to lc->proxy. Once the process before has
 * left its listening socket, lc->before is closed; at once where that process has ended already. Until it has,
 * lc->follows is set. */
void successor_serve(struct successor *s, struct lifecycle *lc);

/* NULL is fine. */
void successor_free(struct successor *s);

#endif
