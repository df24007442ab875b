/* The configuration: an immutable snapshot, checked whole. Durations are nanoseconds, sizes bytes. docs: README,
 * "config.json". */
#ifndef LB_CONFIG_CONFIG_H
#define LB_CONFIG_CONFIG_H

#include "base/buf.h"
#include "base/log.h"
#include "net/addr.h"

#include <stdbool.h>
#include <stdint.h>

enum balance { BALANCE_ROUND_ROBIN, BALANCE_LEAST_CONN, BALANCE_RANDOM_TWO, BALANCE_HASH };
enum hash_key_kind { HASH_KEY_NONE, HASH_KEY_IP, HASH_KEY_TARGET, HASH_KEY_HEADER, HASH_KEY_COOKIE };
enum unknown_clients { UNKNOWN_LIMIT, UNKNOWN_ALLOW, UNKNOWN_REJECT };
enum ratelimit_headers { RATELIMIT_ALWAYS, RATELIMIT_LIMITED, RATELIMIT_OFF };

struct config_backend {
    char *name; /* defaults to the address as written */
    char *address;
    struct endpoint endpoint;
    unsigned weight;          /* 1 to 256 */
    unsigned max_connections; /* 0: no cap */
    bool backup;
};

struct config {
    _Atomic unsigned refs; /* a reading that a reload has given up on lets go of its own on its own thread */
    char *path;            /* the file it was read from */

    char *listen_text;
    struct endpoint listen;
    struct config_backend *backends;
    unsigned backend_count; /* at least 1 */

    enum balance balance;
    enum hash_key_kind hash_key;
    char *hash_key_name; /* of the header or cookie, or NULL */

    struct {
        bool on; /* false: health_check is null */
        char *path;
        char *host; /* of the Host field; NULL: the backend's own name */
        uint64_t interval, timeout;
        unsigned fall, rise;
        uint8_t expect[75]; /* bit set of the statuses that count as success; see config_status_expected() */
    } health;
    struct {
        bool on;
        unsigned failures;
        uint64_t ejection, max_ejection;
    } passive;
    uint64_t slow_start;
    struct {
        unsigned attempts, budget_percent;
    } retry;
    struct {
        unsigned size;
        uint64_t timeout;
    } queue;
    struct {
        uint64_t client_header, client_idle, client_body, client_write, connect, backend_response, backend_idle, tunnel,
            shutdown;
    } timeouts;
    struct {
        unsigned connections;
        unsigned connections_per_client; /* 0: see config_connections_per_client() */
        size_t header_bytes;
        unsigned header_fields;
        size_t target_bytes;
        uint64_t body_bytes; /* 0: no limit */
    } limits;
    struct {
        bool on;
        char *clients_file;
        char *client_id_header; /* a token; NULL when null: the header is not looked at */
        double default_capacity, default_rate;
        enum unknown_clients unknown;
        uint64_t max_tracked;
        unsigned ipv6_prefix; /* 1 to 128 */
        struct cidr_set exempt;
        enum ratelimit_headers headers;
        uint64_t save_interval;
    } rate_limit;
    struct cidr_set trusted_proxies;
    struct {
        struct cidr_set allow;
        char *token; /* NULL: none */
    } admin;
    struct {
        enum log_level level;
        bool access;
        enum log_format format;
        char *file; /* NULL: stdout */
    } log;
};

/* Bytes a config file may have, backends it may list, networks each of its lists may have, and faults that are shown
 * before the rest is only counted. */
#define CONFIG_FILE_MAX     (1024u * 1024u)
#define CONFIG_BACKENDS_MAX 1024u
#define CONFIG_NETWORKS_MAX 10000u
#define CONFIG_FAULTS_MAX   500u

/* Reads and checks `path`. NULL when anything is wrong: then `errors` holds one line for each fault, "file:line:column:
 * key.path: what was found; what is allowed" with '\n' at the end. *no_memory: memory ran out (of what `errors` holds
 * then some may be missing), which says nothing about the file. */
struct config *config_load(const char *path, struct buf *errors, bool *no_memory) __attribute__((warn_unused_result));

/* The same from text, `name` standing for the file in messages. `getenv_fn` gives the environment (NULL: the process's
 * own).
 *
 * Strings may hold ${NAME}, ${NAME:-default} (taken when NAME is unset or empty, as in a shell) and $$; any other
 * dollar is a fault. Only strings' values are expanded, and never twice. */
struct config *config_parse(struct str text, const char *name, const char *(*getenv_fn)(const char *name),
                            struct buf *errors) __attribute__((warn_unused_result));

/* The same for a reload: what `running`, the snapshot in force, has and only a restart can change is a fault, too. May
 * be called on a helper thread; `running` is only read. */
struct config *config_load_over(const char *path, const struct config *running, struct buf *errors, bool *no_memory)
    __attribute__((warn_unused_result));

/* Do both stand for the same place? Names are compared without regard to case. */
bool config_same_endpoint(const struct endpoint *a, const struct endpoint *b);

struct config *config_get(struct config *c);
void config_put(struct config *c);

/* Connections that one address may have: unless set, a tenth of all, rounded up. */
static inline unsigned config_connections_per_client(const struct config *c)
{
    return c->limits.connections_per_client ? c->limits.connections_per_client : (c->limits.connections + 9) / 10;
}

static inline bool config_status_expected(const struct config *c, unsigned status)
{
    return status < 600 && (c->health.expect[status / 8] >> (status % 8) & 1);
}

#endif
