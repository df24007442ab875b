/* The limiter's inside, shared by limiter.c (requests), clients.c (changes), check.c (questions), export.c (upgrades)
 * and unregistered.c (stops and starts). */
#ifndef LB_LIMIT_LIMITER_IMPL_H
#define LB_LIMIT_LIMITER_IMPL_H

#include "base/clock.h"
#include "base/list.h"
#include "event/notice.h"
#include "limit/anon_table.h"
#include "limit/client_table.h"
#include "limit/clients.h"
#include "limit/limiter.h"
#include "limit/store.h"

/* Changes of registered clients on their way to disk. */
struct changes {
    struct list waiting, group; /* of struct change; the group is with the store */
    size_t waiting_count, group_count;
    struct posted flush;
    bool closing;
    void (*closed)(void *arg, bool ok);
    void *closed_arg;
};

#define POLICY_TEXT_BITS 4

/* The RateLimit fields of a policy for registered clients, up to the tokens: what depends on its numbers alone. */
struct policy_text {
    double capacity, rate; /* 0: nothing is here yet */
    size_t n;
    char text[96];
};

/* The file of the unregistered clients' buckets: unregistered.c. */
struct kept {
    struct job job;
    const struct store *store;
    char *path, *temp;
    struct limiter_export at;
    struct buf piece;
    int fd; /* of the temporary; -1: there is none */
    int result;
    bool last;
    bool found; /* at the start */
};

struct limiter {
    struct loop *loop;
    struct worker *worker;
    struct config *config;
    uint64_t zero; /* clock_boottime() at the buckets' time 0 */
    struct str id_header;
    struct client_table clients;
    struct anon_table anon;
    uint64_t unix_word;      /* the bucket of the peers on unix sockets */
    char default_fields[96]; /* of the default policy, up to the tokens */
    size_t default_fields_len;
    struct policy_text texts[1 << POLICY_TEXT_BITS]; /* of the policies in use lately */
    struct changes changes;
    struct store *store;
    struct kept kept;
    void (*stopped)(void *arg, bool ok); /* of limiter_stop() */
    void *stopped_arg;
    bool closed_well;
    struct timer sweep;
    struct notice overflow_shared, shadow_limited;
};

/* The buckets' time: the clock's, not the turn's. In a turn that is held up, requests are read that came behind its
 * begin; counted from there, they would leave the bucket what it gains since, once more. And the clock that goes on
 * while the machine sleeps, as its clients do. */
static inline uint64_t limiter_now(const struct limiter *lim)
{
    return clock_boottime() - lim->zero;
}

/* What the peers on unix sockets are, all together; it may be registered, too. */
#define UNIX_CLIENT STR("unix:")

/* ---- limiter.c ---- */

bool limiter_is_exempt(const struct limiter *lim, const struct ip *ip); /* NULL: a peer on a unix socket */

/* Writes what an address that is not registered counts for, with a zero: itself, or its network. Returns the length. */
size_t limiter_network_text(const struct limiter *lim, const struct ip *ip, char *out, size_t size);

/* Retry-After of a request that found too little in the bucket. */
uint64_t limiter_retry_after(const struct bucket_policy *p, uint64_t word, uint64_t now);

/* ---- clients.c ---- */

void changes_init(struct limiter *lim);
void changes_fini(struct limiter *lim);

/* The store's answer to a group. */
void changes_appended(void *arg, bool ok);

/* Takes no more changes, and calls store_close() when those under way have ended. */
void changes_close(struct limiter *lim, void (*done)(void *arg, bool ok), void *arg);
void changes_reopen(struct limiter *lim);

/* ---- unregistered.c ---- */

/* False without memory: kept_fini() is still due. `st` stays as long. */
bool kept_init(struct kept *k, const struct store *st) __attribute__((warn_unused_result));
void kept_fini(struct kept *k);

/* ---- export.c ---- */

/* limiter_import() of what was kept over a stop: the time line is another one, perhaps of another boot. NULL, or why
 * not all of it could be taken. */
const char *limiter_import_kept(struct limiter *lim, struct str text) __attribute__((warn_unused_result));

#endif
