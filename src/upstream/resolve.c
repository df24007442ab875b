/* Asking for a name, and what follows when it has moved. A connection knows by a number which address it goes to: each
 * time that an address comes to a backend it gets another one. */
#include "upstream/resolve.h"

#include "base/log.h"
#include "base/mem.h"

#include <netdb.h>
#include <string.h>

/* ---- asking ---- */

struct resolve *resolve_begin(struct names *n, const struct endpoint *at, bool unheard, resolve_fn *fn, void *arg)
{
    struct resolve *r = mem_try_alloc(sizeof *r);
    if (!r)
        return NULL;
    r->fn = fn;
    r->arg = arg;
    r->unheard = unheard;
    memcpy(r->host, at->host, sizeof r->host);
    r->port = at->port;
    names_ask(n, r);
    return r;
}

void resolve_forget(struct resolve *r)
{
    if (r)
        names_forget(r->names, r);
}

/* By the text, for that is all that sock_resolve() tells. */
bool resolve_says_no_such_name(const struct resolve *r)
{
    return r->count <= 0 &&
           (strcmp(r->why, gai_strerror(EAI_NONAME)) == 0 || strcmp(r->why, gai_strerror(EAI_NODATA)) == 0);
}

bool resolve_is_unheard(const struct resolve *r)
{
    return r->count <= 0 && !resolve_says_no_such_name(r);
}

/* ---- the addresses ---- */

int backend_address_at(const struct backend *be, unsigned id)
{
    for (int i = 0; i < be->addr_count; i++)
        if (be->addr_ids[i] == id)
            return i;
    return -1;
}

static bool is_among(const struct addr *at, const struct addr *v, int n)
{
    for (int i = 0; i < n; i++)
        if (v[i].len == at->len && memcmp(&v[i].ss, &at->ss, at->len) == 0)
            return true;
    return false;
}

static void log_addresses(const struct backend *be)
{
    char text[BACKEND_ADDRS_MAX * (ADDR_TEXT_SIZE + 1)];
    size_t n = 0;
    for (int i = 0; i < be->addr_count; i++) {
        if (i > 0)
            text[n++] = ',';
        n += addr_format(&be->addrs[i], text + n);
    }
    log_begin(LOG_INFO, "backend_address");
    log_str("backend", backend_name(be));
    log_str("addresses", str_make(text, n));
    log_end();
}

/* Takes out those that are not among the `count` told. */
static bool drop_addresses(struct backend *be, const struct addr *told, int count)
{
    int before = be->addr_count, n = 0;
    for (int i = 0; i < before; i++) {
        if (!is_among(&be->addrs[i], told, count))
            continue;
        be->addrs[n] = be->addrs[i];
        be->addr_ids[n++] = be->addr_ids[i];
    }
    be->addr_count = n;
    return n < before;
}

static bool add_addresses(struct backend *be, const struct addr *told, int count)
{
    int before = be->addr_count;
    for (int i = 0; i < count && be->addr_count < BACKEND_ADDRS_MAX; i++) {
        if (is_among(&told[i], be->addrs, be->addr_count))
            continue;
        be->addrs[be->addr_count] = told[i];
        be->addr_ids[be->addr_count++] = ++be->addr_id_last;
    }
    return be->addr_count > before;
}

void backend_take_addresses(struct backend *be, const struct addr *told, int count)
{
    bool first = be->addr_id_last == 0;
    unsigned used = be->addr_ids[be->addr_at];
    bool dropped = drop_addresses(be, told, count), added = add_addresses(be, told, count);
    int at = backend_address_at(be, used);
    be->addr_at = at > 0 ? at : 0;
    be->addr_changes += dropped || added;
    if (first || (!dropped && !added))
        return;
    log_addresses(be);
    pool_flush_strays(be);
    if (at < 0)
        pool_forget(be); /* what answers there may be another */
}

void backend_drop_addresses(struct backend *be)
{
    be->addr_count = be->addr_at = 0;
    be->addr_changes++;
    pool_flush_strays(be);
}
