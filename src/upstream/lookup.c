/* Where the names lead that a reload brings: asked for before the new set is put in force, so that its backends need
 * not begin as down in the place of some that are up. */
#include "base/clock.h"
#include "base/mem.h"
#include "upstream/backend.h"
#include "upstream/resolve.h"

#include <string.h>

/* One name. */
struct asked {
    struct upstream_lookup *lookup;
    unsigned index;            /* of the backend, in the new config */
    struct resolve *resolving; /* NULL: it has been answered */
    struct addr addrs[BACKEND_ADDRS_MAX];
    int count; /* 0: it leads nowhere, as far as is known */
};

struct upstream_lookup {
    struct upstream *upstream;
    upstream_lookup_fn *fn;
    void *arg;
    struct timer deadline;
    struct asked *asked;
    unsigned count, waiting; /* how many names, and those of them that have not been answered */
};

/* ---- what is known without asking ---- */

/* A backend whose host is the same: only the port is another, or both are in the set for a while. */
static const struct backend *namesake(const struct upstream *u, const struct endpoint *at)
{
    for (unsigned i = 0; i < u->count; i++) {
        const struct backend *be = u->backends[i];
        const struct endpoint *e = &be->config->endpoint;
        if (e->kind == ENDPOINT_NAME && be->addr_count > 0 && str_eq_nocase(str_of(e->host), str_of(at->host)))
            return be;
    }
    return NULL;
}

static bool is_to_be_asked_for(const struct upstream *u, const struct endpoint *at, unsigned i)
{
    return at->kind == ENDPOINT_NAME && !upstream_find(u, at, i) && !namesake(u, at);
}

static int addresses_of(const struct backend *be, uint16_t port, struct addr out[BACKEND_ADDRS_MAX])
{
    for (int i = 0; i < be->addr_count; i++)
        out[i] = addr_with_port(&be->addrs[(be->addr_at + i) % be->addr_count], port);
    return be->addr_count;
}

static const struct asked *asked_for(const struct upstream_lookup *l, unsigned i)
{
    for (unsigned k = 0; l && k < l->count; k++)
        if (l->asked[k].index == i)
            return &l->asked[k];
    return NULL;
}

int upstream_found(const struct upstream *u, const struct upstream_lookup *l, unsigned i, const struct endpoint *at,
                   struct addr out[BACKEND_ADDRS_MAX])
{
    const struct asked *a = asked_for(l, i);
    const struct backend *be = namesake(u, at);
    if (a && a->count > 0)
        memcpy(out, a->addrs, (size_t)a->count * sizeof *out);
    else if (be)
        return addresses_of(be, at->port, out);
    return !a ? 0 : a->count > 0 ? a->count : -1;
}

/* ---- asking ---- */

static void forget_all(struct upstream_lookup *l)
{
    for (unsigned i = 0; i < l->count; i++) {
        resolve_forget(l->asked[i].resolving);
        l->asked[i].resolving = NULL;
    }
    l->waiting = 0;
    loop_cancel(l->upstream->loop, &l->deadline);
}

static void on_answer(void *arg, const struct resolve *r)
{
    struct asked *a = arg;
    struct upstream_lookup *l = a->lookup;
    a->resolving = NULL;
    a->count = r->count < 0 ? 0 : r->count < BACKEND_ADDRS_MAX ? r->count : BACKEND_ADDRS_MAX;
    memcpy(a->addrs, r->addrs, (size_t)a->count * sizeof *a->addrs);
    if (--l->waiting > 0)
        return;
    loop_cancel(l->upstream->loop, &l->deadline);
    l->fn(l->arg);
}

static void on_deadline(struct timer *t)
{
    struct upstream_lookup *l = container_of(t, struct upstream_lookup, deadline);
    forget_all(l);
    l->fn(l->arg);
}

static bool ask(struct upstream_lookup *l, const struct endpoint *at, unsigned i)
{
    struct asked *a = &l->asked[l->count];
    *a = (struct asked){.lookup = l, .index = i};
    a->resolving = resolve_begin(l->upstream->names, at, false, on_answer, a);
    l->count += a->resolving != NULL;
    return a->resolving != NULL;
}

static bool ask_for_all(struct upstream_lookup *l, const struct config *fresh)
{
    struct upstream *u = l->upstream;
    unsigned names = 0;
    for (unsigned i = 0; i < fresh->backend_count; i++)
        names += is_to_be_asked_for(u, &fresh->backends[i].endpoint, i);
    if (names == 0)
        return true;
    l->asked = mem_try_alloc(names * sizeof *l->asked);
    if (!l->asked || !upstream_start_names(u, upstream_names_in(u->config) + names) ||
        !loop_arm(u->loop, &l->deadline, loop_now(u->loop) + UPSTREAM_LOOKUP_PATIENCE))
        return false;
    for (unsigned i = 0; i < fresh->backend_count; i++) {
        const struct endpoint *at = &fresh->backends[i].endpoint;
        if (is_to_be_asked_for(u, at, i) && !ask(l, at, i))
            return false;
    }
    l->waiting = l->count;
    return true;
}

struct upstream_lookup *upstream_look_up(struct upstream *u, const struct config *fresh, upstream_lookup_fn *fn,
                                         void *arg)
{
    struct upstream_lookup *l = mem_try_alloc(sizeof *l);
    if (!l)
        return NULL;
    l->upstream = u;
    l->fn = fn;
    l->arg = arg;
    timer_init(&l->deadline, on_deadline);
    if (ask_for_all(l, fresh))
        return l;
    upstream_lookup_free(l);
    return NULL;
}

bool upstream_lookup_is_over(const struct upstream_lookup *l)
{
    return l->waiting == 0;
}

void upstream_lookup_free(struct upstream_lookup *l)
{
    if (!l)
        return;
    forget_all(l);
    mem_free(l->asked);
    mem_free(l);
}
