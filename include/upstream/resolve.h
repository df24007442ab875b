/* Where a backend that is given by name is: its addresses are asked for on a thread for names, and it goes over to
 * them. */
#ifndef LB_UPSTREAM_RESOLVE_H
#define LB_UPSTREAM_RESOLVE_H

#include "event/worker.h"
#include "upstream/backend.h"
#include "upstream/names.h"

/* More than a backend uses, for of a long list, which mostly comes in another order each time, it goes on with those
 * that it has. */
#define RESOLVE_MAX 32

struct resolve;
typedef void resolve_fn(void *arg, const struct resolve *r);

struct resolve {
    struct job job;
    struct names *names;
    bool unheard; /* it had no answer the last time */
    bool asked;   /* it is in a thread's hands: before that it waits for one */
    resolve_fn *fn;
    void *arg;
    char host[256];
    uint16_t port;
    struct addr addrs[RESOLVE_MAX];
    int count; /* of addresses, or below 1, and why */
    const char *why;
};

/* Asks for the name in `at`; `fn` is told the answer from the loop. `unheard`: there was none the last time
 * (resolve_is_unheard()), so others go before it. NULL without memory. */
struct resolve *resolve_begin(struct names *n, const struct endpoint *at, bool unheard, resolve_fn *fn, void *arg)
    __attribute__((warn_unused_result));

/* `fn` is not called any more. NULL is fine. */
void resolve_forget(struct resolve *r);

/* The answer is that there is no such name, or that it has no address; any other that brings none is trouble of the
 * name servers, or of getting there. */
bool resolve_says_no_such_name(const struct resolve *r);
/* It is that trouble, which may have taken its time. */
bool resolve_is_unheard(const struct resolve *r);

/* Goes over to the `count` addresses told, which is at least 1. Those that it has and that are among them stay, in
 * their order; behind them come the others, up to BACKEND_ADDRS_MAX. When that is another set, not for the first time,
 * the log has backend_address; and idle connections to an address that has gone are closed. */
void backend_take_addresses(struct backend *be, const struct addr *told, int count);

/* Forgets them all, as of a name that has not been resolved yet. */
void backend_drop_addresses(struct backend *be);

#endif
