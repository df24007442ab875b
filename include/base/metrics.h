/* Counters of the process, one catalogue: the log's `totals` has them at the end. Loop thread only. */
#ifndef LB_BASE_METRICS_H
#define LB_BASE_METRICS_H

#include <stdint.h>

/* clang-format off */
#define METRICS_CATALOGUE(X) \
    X(connections_accepted,   "client connections accepted") \
    X(connections_refused,    "client connections answered 503 because of limits.connections or connections_per_client") \
    X(accept_errors,          "accept calls that failed") \
    X(requests,               "requests begun") \
    X(responses_own,          "responses made by the balancer itself") \
    X(tunnels,                "connections that switched to another protocol") \
    X(exchanges_cut,          "exchanges cut off before their response was complete") \
    X(rate_limited,           "requests refused with 429") \
    X(shadow_limited,         "requests passed that found too little in the bucket of a client in shadow mode") \
    X(overflow_shared,        "requests decided on an overflow bucket") \
    X(attempts,               "attempts at backends begun") \
    X(retries,                "attempts after the first") \
    X(retries_denied,         "retries not made because of the budget") \
    X(stale_replaced,         "pooled connections found closed and replaced") \
    X(backend_connects,       "connections to backends opened") \
    X(backend_reuses,         "pooled connections used again") \
    X(backend_evictions,      "pooled connections closed because of limits.connections or for want of descriptors") \
    X(backend_failures,       "attempts that failed") \
    X(gateway_errors,         "responses of backends with status 502, 503 or 504") \
    X(ejections,              "backends ejected by passive checks") \
    X(queued,                 "requests that waited for a place at a backend") \
    X(queue_full,             "requests refused because the queue was full") \
    X(queue_timeouts,         "requests that no backend had a place for in time") \
    X(health_probes,          "health checks sent") \
    X(health_failures,        "health checks failed") \
    X(bytes_in,               "bytes received from clients") \
    X(bytes_out,              "bytes sent to clients") \
    X(clients_registered,     "clients registered") \
    X(clients_updated,        "clients updated") \
    X(clients_deleted,        "clients deleted") \
    X(store_saves,            "snapshots of clients.json written") \
    X(store_syncs,            "groups of changes made durable") \
    X(store_failures,         "writes to the clients' files that failed") \
    X(log_lines_dropped,      "log lines dropped because the reader stalled") \
    X(out_of_memory,          "connections lost for want of memory")
/* clang-format on */

struct metrics {
#define X(name, help) uint64_t name;
    METRICS_CATALOGUE(X)
#undef X
};

extern struct metrics metrics;

/* Calls fn(arg, name, help, value) for each counter, in the catalogue's order. */
void metrics_each(void (*fn)(void *arg, const char *name, const char *help, uint64_t value), void *arg);

#endif
