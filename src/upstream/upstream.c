/* The set of backends: built from the config, chosen from for each request, torn down at the end.
 * What a backend is to its connections stands in back_h1.c and pool.c, what it is to its checks in health.c. */
#include "upstream/upstream.h"

#include "base/log.h"
#include "base/mem.h"
#include "upstream/back_h1.h"
#include "upstream/backend.h"
#include "upstream/health.h"

#include <errno.h>

static void backend_init(struct backend *be, struct upstream *u, const struct config_backend *config)
{
    be->upstream = u;
    be->config = config;
    be->since = loop_now(u->loop);
    list_init(&be->idle);
    passive_init(be);
    if (config->endpoint.kind != ENDPOINT_NAME) {
        be->addrs[0] = config->endpoint.addr;
        be->addr_count = 1;
        be->up = be->available = be->announced = true;
    }
}

static bool start_names(struct upstream *u)
{
    for (unsigned i = 0; i < u->count && !u->names; i++) {
        if (u->config->backends[i].endpoint.kind != ENDPOINT_NAME)
            continue;
        /* A thread apart from the disk's: a name server that does not answer must not hold up an fsync. */
        u->names = worker_new(u->loop, "names");
        if (!u->names)
            return false;
    }
    return true;
}

struct upstream *upstream_new(struct loop *l, struct config *config)
{
    struct upstream *u = mem_try_alloc(sizeof *u);
    if (!u)
        return NULL;
    u->loop = l;
    u->config = config_get(config);
    u->count = config->backend_count;
    u->backends = mem_try_alloc(u->count * sizeof *u->backends);
    u->fields = mem_try_alloc(config->limits.header_fields * sizeof *u->fields);
    if (!u->backends || !u->fields)
        goto fail;
    for (unsigned i = 0; i < u->count; i++)
        backend_init(&u->backends[i], u, &config->backends[i]);
    if (!start_names(u))
        goto fail;
    for (unsigned i = 0; i < u->count; i++)
        if (!health_start(&u->backends[i]))
            goto fail;
    return u;
fail:;
    int e = errno ? errno : ENOMEM;
    upstream_free(u);
    errno = e;
    return NULL;
}

void upstream_free(struct upstream *u)
{
    if (!u)
        return;
    for (unsigned i = 0; u->backends && i < u->count; i++) {
        if (!u->backends[i].upstream)
            continue; /* half built */
        health_stop(&u->backends[i]);
        passive_fini(&u->backends[i]);
        pool_flush(&u->backends[i]);
    }
    worker_abandon(u->names);
    config_put(u->config);
    mem_free(u->backends);
    mem_free(u->fields);
    mem_free(u);
}

static bool was_tried(const struct backend *be, const struct pick *p)
{
    for (unsigned i = 0; i < p->tried_count; i++)
        if (p->tried[i] == be)
            return true;
    return false;
}

static bool is_first_choice(const struct backend *be, const struct pick *p)
{
    return be->available && !be->config->backup && !was_tried(be, p);
}

static bool is_backup_choice(const struct backend *be, const struct pick *p)
{
    return be->available && be->config->backup && !was_tried(be, p);
}

static bool is_any_choice(const struct backend *be, const struct pick *p)
{
    (void)p;
    return be->available;
}

/* Ejected, with all others down since: better than nothing. */
static bool is_last_choice(const struct backend *be, const struct pick *p)
{
    (void)p;
    return be->up;
}

struct backend *upstream_pick(struct upstream *u, const struct pick *p)
{
    struct backend *be = round_robin_pick(u, is_first_choice, p);
    if (!be)
        be = round_robin_pick(u, is_backup_choice, p);
    if (!be)
        be = round_robin_pick(u, is_any_choice, p);
    if (!be)
        be = round_robin_pick(u, is_last_choice, p);
    return be;
}

unsigned upstream_count(const struct upstream *u)
{
    return u->count;
}

struct backend *upstream_backend(struct upstream *u, unsigned i)
{
    return &u->backends[i];
}

struct str backend_name(const struct backend *be)
{
    return str_of(be->config->name);
}

bool backend_is_available(const struct backend *be)
{
    return be->available;
}

void backend_update(struct backend *be, const char *cause)
{
    bool available = be->up && !be->ejected;
    if (be->available == available && be->announced)
        return;
    uint64_t now = loop_now(be->upstream->loop);
    log_begin(available ? LOG_INFO : LOG_WARN, available ? "backend_up" : "backend_down");
    log_str("backend", backend_name(be));
    log_z("cause", cause);
    log_ms(available ? "down_ms" : "up_ms", now - be->since);
    log_end();
    be->available = available;
    be->announced = true;
    be->since = now;
    be->turn = 0; /* no debt or credit from before: it starts level with the others */
    if (!available)
        pool_flush(be);
}

void backend_set_up(struct backend *be, bool up, const char *cause)
{
    be->up = up;
    backend_update(be, cause);
}
