/* Inside of the proxy, shared by the files of this folder. */
#ifndef LB_PROXY_IMPL_H
#define LB_PROXY_IMPL_H

#include "base/buf.h"
#include "base/clock.h"
#include "base/hash.h"
#include "base/list.h"
#include "event/notice.h"
#include "http/write.h"
#include "proxy/budget.h"
#include "proxy/crowd.h"
#include "proxy/proxy.h"

struct proxy {
    struct loop *loop;
    struct config *config;
    struct upstream *upstream;
    struct limiter *limiter;
    const struct local_handler *local;

    struct list fronts;  /* every connection that is served */
    struct list closing; /* those that are only being closed (they linger), the oldest first */
    struct crowd crowd;  /* all of them by address */
    size_t connections;  /* in both lists */
    size_t lingering;    /* in `closing` */
    size_t peak;         /* the most `connections` since proxy_take_peak() */
    size_t refusing;     /* in no list: over a limit, answered unread, and lingering */
    size_t exchanges;    /* under way */
    uint64_t finished;   /* exchanges, so far */

    struct notice full, crowded; /* connections over limits.connections, and over connections_per_client: */
    struct ip crowded_by;        /* the first of those that its next line counts, */
    uint64_t crowded_others;     /* and how many of them are of other addresses */

    struct field *fields; /* room to parse one request head into, of so many fields at least as the config allows */
    unsigned field_room;
    struct buf head; /* room to write one head into */
    struct retry_budget budget;
    struct hash_key id_key; /* request ids are a keyed hash of a counter: unique and not to be guessed */
    uint64_t id_counter;

    char date[CLOCK_HTTP_DATE_SIZE]; /* the present second as an HTTP date */
    uint64_t date_second;

    bool frozen;         /* no request is begun */
    proxy_pass_fn *pass; /* connections go to another process; NULL: they stay */
    void *pass_arg;
    struct posted pass_post;

    bool draining;
    struct posted drained_post;
    void (*drained)(void *arg);
    void *drained_arg;
};

/* A connection has ended, which counted for `group`. */
void proxy_connection_ended(struct proxy *px, struct crowd_group *group);

/* One is only being closed from now on: it counts on, but is not waited for. And: it is no more. */
void proxy_connection_closing(struct proxy *px);
void proxy_connection_closed(struct proxy *px, struct crowd_group *group);

/* A writer with room for `n` bytes, valid until the next call; full from the begin when there is no memory. */
struct head_writer proxy_head_writer(struct proxy *px, size_t n) __attribute__((warn_unused_result));

/* What of a trailer section may go on, to a backend or to the client, valid like the writer's; false when there is no
 * memory. */
bool proxy_write_trailers(struct proxy *px, struct str section, bool to_backend, struct str *out)
    __attribute__((warn_unused_result));

/* Now, as an HTTP date (RFC 9110 section 5.6.7). */
struct str proxy_date(struct proxy *px);

/* The whole 503 for a connection over limits.connections or, for `one_client`, limits.connections_per_client. */
struct str local_refusal(bool one_client);

#endif
