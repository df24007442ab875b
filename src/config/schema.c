/* The table of config.json's keys, in the order of the README, and look-ups in it. What the rows say is all that the
 * loader knows of a key. */
#include "config/schema.h"

#include "base/clock.h"
#include "config/check.h"
#include "config/config.h"

#include <assert.h>
#include <float.h>
#include <stdio.h>

#define KIB           1024.0
#define MIB           (1024.0 * KIB)
#define MS            ((double)NS_PER_MS)
#define HOUR          (3600.0 * (double)NS_PER_S)
#define IN_CONFIG(m)  .offset = offsetof(struct config, m)
#define IN_BACKEND(m) .offset = offsetof(struct config_backend, m)

#define UINT(lo, hi)  .type = SCHEMA_UINT, .min = lo, .max = hi, .allowed = "a whole number from " #lo " to " #hi
#define COUNT(lo, hi) .type = SCHEMA_COUNT, .min = lo, .max = hi, .allowed = "a whole number from " #lo " to " #hi
#define SIZE(lo, hi, text)                                                                                             \
    .type = SCHEMA_SIZE, .min = lo, .max = hi, .allowed = text ", as a number of bytes or a string such as \"64KiB\""
#define DURATION                                                                                                       \
    .type = SCHEMA_DURATION, .min = MS, .max = 24 * HOUR,                                                              \
    .allowed = "a duration from \"1ms\" to \"24h\", such as \"250ms\", \"2s\" or \"1m\""
#define DURATION_OR_ZERO                                                                                               \
    .type = SCHEMA_DURATION, .min = 0, .max = 24 * HOUR,                                                               \
    .allowed = "a duration from \"0s\" to \"24h\", such as \"250ms\", \"2s\" or \"1m\""
#define BOOL     .type = SCHEMA_BOOL, .allowed = "true or false"
#define NETWORKS .type = SCHEMA_NETWORKS, .allowed = "an array of at most 10000 strings, each " SCHEMA_NETWORK_FORM

static const char *const balance_words[] = {"round_robin", "least_conn", "random_two", "hash", NULL};
static const char *const unknown_words[] = {"limit", "allow", "reject", NULL};
static const char *const headers_words[] = {"always", "limited", "off", NULL};
static const char *const level_words[] = {"debug", "info", "warn", "error", NULL};
static const char *const format_words[] = {"text", "json", NULL};

static_assert(BALANCE_HASH == 3 && UNKNOWN_REJECT == 2 && RATELIMIT_OFF == 2 && LOG_ERROR == 3 && LOG_JSON == 1,
              "words stand in the order of their enum");
static_assert(CONFIG_BACKENDS_MAX == 1024 && CONFIG_NETWORKS_MAX == 10000, "as the table, and load.c, say");

/* clang-format off */
const struct schema_key schema[] = {
    {"listen", .type = SCHEMA_LISTEN, IN_CONFIG(listen_text), .fallback = "\":8080\"",
     .allowed = "an address: \"ip:port\", \":port\", \"[ipv6]:port\" or \"unix:/path\"",
     .doc = "where clients connect; :port is any address, IPv6 and IPv4"},

    {"backends", .type = SCHEMA_BACKENDS, .flags = SCHEMA_REQUIRED, IN_CONFIG(backends),
     .allowed = "an array of 1 to 1024 backends",
     .doc = "the origin servers"},
    {"backends[].address", .type = SCHEMA_BACKEND, .flags = SCHEMA_REQUIRED, IN_BACKEND(address),
     .allowed = "an address: \"host:port\", \"[ipv6]:port\" or \"unix:/path\"",
     .doc = "the host may be a name"},
    {"backends[].name", .type = SCHEMA_STRING, IN_BACKEND(name), .check = check_backend_name,
     .allowed = "1 to 128 visible ASCII characters",
     .doc = "shown in the log; defaults to the address; unique"},
    {"backends[].weight", UINT(1, 256), IN_BACKEND(weight), .fallback = "1",
     .doc = "its share of the requests, relative to the others'"},
    {"backends[].max_connections", UINT(0, 1000000), IN_BACKEND(max_connections), .fallback = "0",
     .doc = "concurrent requests at most; 0: no cap"},
    {"backends[].backup", BOOL, IN_BACKEND(backup), .fallback = "false",
     .doc = "used only when no other backend can be"},

    {"balance", .type = SCHEMA_WORD, IN_CONFIG(balance), .fallback = "\"round_robin\"",
     .words = balance_words, .allowed = "\"round_robin\", \"least_conn\", \"random_two\" or \"hash\"",
     .doc = "how a backend is picked"},
    {"hash_key", .type = SCHEMA_HASH_KEY, .offset = 0,
     .allowed = "\"ip\", \"target\", \"header:NAME\" or \"cookie:NAME\"",
     .doc = "what is hashed; with \"balance\": \"hash\" only, and required there"},

    {"health_check", .type = SCHEMA_OBJECT, .flags = SCHEMA_NULLABLE, IN_CONFIG(health.on), .allowed = "an object, or null",
     .doc = "active checks; null turns them off"},
    {"health_check.path", .type = SCHEMA_STRING, IN_CONFIG(health.path), .fallback = "\"/health\"",
     .check = check_target_path,
     .allowed = "a path that begins with \"/\", of at most 1024 visible ASCII characters without \"#\"",
     .doc = "target of the GET that is sent to each backend"},
    {"health_check.host", .type = SCHEMA_STRING, .flags = SCHEMA_NULLABLE, IN_CONFIG(health.host), .fallback = "null",
     .check = check_host, .allowed = "host or host:port, or null",
     .doc = "of its Host field; null: the backend's name"},
    {"health_check.interval", DURATION, IN_CONFIG(health.interval), .fallback = "\"2s\"",
     .doc = "between two checks of a backend"},
    {"health_check.timeout", DURATION, IN_CONFIG(health.timeout), .fallback = "\"1s\"",
     .doc = "for a whole check, connection included"},
    {"health_check.fall", UINT(1, 100), IN_CONFIG(health.fall), .fallback = "3",
     .doc = "failures in a row that take a backend down"},
    {"health_check.rise", UINT(1, 100), IN_CONFIG(health.rise), .fallback = "2",
     .doc = "successes in a row that bring it back"},
    {"health_check.expect_status", .type = SCHEMA_STATUSES, IN_CONFIG(health.expect), .fallback = "\"200-399\"",
     .allowed = "a string of statuses and ranges from 100 to 599, such as \"200\", \"200-399\" or \"200,204,300-399\"",
     .doc = "the statuses that count as success"},

    {"passive_check", .type = SCHEMA_OBJECT, .flags = SCHEMA_NULLABLE, IN_CONFIG(passive.on),
     .allowed = "an object, or null",
     .doc = "ejection after failures of real requests; null turns it off"},
    {"passive_check.failures", UINT(1, 1000), IN_CONFIG(passive.failures), .fallback = "5",
     .doc = "failures in a row that eject a backend"},
    {"passive_check.ejection", DURATION, IN_CONFIG(passive.ejection), .fallback = "\"10s\"",
     .doc = "length of the first ejection; each further one is twice as long"},
    {"passive_check.max_ejection", DURATION, IN_CONFIG(passive.max_ejection), .fallback = "\"5m\"",
     .doc = "length of an ejection at most"},

    {"slow_start", DURATION_OR_ZERO, IN_CONFIG(slow_start), .fallback = "\"0s\"",
     .doc = "how long a returning backend takes to its full share"},

    {"retry", .type = SCHEMA_OBJECT, .allowed = "an object", .doc = "further attempts, each at another backend"},
    {"retry.attempts", UINT(0, 100), IN_CONFIG(retry.attempts), .fallback = "2",
     .doc = "attempts after the first"},
    {"retry.budget_percent", UINT(0, 100), IN_CONFIG(retry.budget_percent), .fallback = "20",
     .doc = "retries at most, in percent of the requests of the last 10 s; 3 a second are always allowed"},

    {"queue", .type = SCHEMA_OBJECT, .allowed = "an object",
     .doc = "requests that wait for a backend below its max_connections"},
    {"queue.size", UINT(0, 1000000), IN_CONFIG(queue.size), .fallback = "1024",
     .doc = "requests that may wait"},
    {"queue.timeout", DURATION, IN_CONFIG(queue.timeout), .fallback = "\"5s\"",
     .doc = "how long one may wait"},

    {"timeouts", .type = SCHEMA_OBJECT, .allowed = "an object", .doc = "how long the balancer waits"},
    {"timeouts.client_header", DURATION, IN_CONFIG(timeouts.client_header), .fallback = "\"10s\"",
     .doc = "for a whole request head"},
    {"timeouts.client_idle", DURATION, IN_CONFIG(timeouts.client_idle), .fallback = "\"60s\"",
     .doc = "for the next request on a connection"},
    {"timeouts.client_body", DURATION, IN_CONFIG(timeouts.client_body), .fallback = "\"30s\"",
     .doc = "between bytes of a request's content"},
    {"timeouts.client_write", DURATION, IN_CONFIG(timeouts.client_write), .fallback = "\"30s\"",
     .doc = "between bytes that a client takes"},
    {"timeouts.connect", DURATION, IN_CONFIG(timeouts.connect), .fallback = "\"2s\"",
     .doc = "for a connection to a backend"},
    {"timeouts.backend_response", DURATION, IN_CONFIG(timeouts.backend_response), .fallback = "\"30s\"",
     .doc = "from the request's end to the response head, then between bytes of the content"},
    {"timeouts.backend_idle", DURATION, IN_CONFIG(timeouts.backend_idle), .fallback = "\"60s\"",
     .doc = "how long an unused connection to a backend is kept"},
    {"timeouts.tunnel", DURATION, IN_CONFIG(timeouts.tunnel), .fallback = "\"1h\"",
     .doc = "between bytes on an upgraded connection"},
    {"timeouts.shutdown", DURATION_OR_ZERO, IN_CONFIG(timeouts.shutdown), .fallback = "\"30s\"",
     .doc = "for requests in flight to finish when the balancer stops"},

    {"limits", .type = SCHEMA_OBJECT, .allowed = "an object", .doc = "what a client may ask for"},
    {"limits.connections", UINT(1, 1000000), IN_CONFIG(limits.connections), .fallback = "10000",
     .doc = "client connections at once"},
    {"limits.connections_per_client", UINT(0, 1000000), IN_CONFIG(limits.connections_per_client), .fallback = "0",
     .doc = "of one address; 0: a tenth of limits.connections"},
    {"limits.header_bytes", SIZE(KIB, MIB, "a size from 1KiB to 1MiB"), IN_CONFIG(limits.header_bytes),
     .fallback = "\"16KiB\"", .doc = "bytes of a request or response head"},
    {"limits.header_fields", UINT(1, 1000), IN_CONFIG(limits.header_fields), .fallback = "100",
     .doc = "fields of a head"},
    {"limits.target_bytes", SIZE(64, MIB, "a size from 64 to limits.header_bytes"), IN_CONFIG(limits.target_bytes),
     .fallback = "\"8KiB\"", .doc = "bytes of a request target; the default shrinks to header_bytes"},
    {"limits.body_bytes", SIZE(0, 1024.0 * 1024.0 * 1024.0 * MIB, "0 (no limit) or a size up to 1048576GiB"),
     IN_CONFIG(limits.body_bytes), .fallback = "0", .doc = "bytes of a request's content; 0: no limit"},

    {"rate_limit", .type = SCHEMA_OBJECT, .flags = SCHEMA_NULLABLE | SCHEMA_FIXED, IN_CONFIG(rate_limit.on), .allowed = "an object, or null",
     .doc = "token buckets; null turns limiting and the client API off"},
    {"rate_limit.clients_file", .type = SCHEMA_STRING, .flags = SCHEMA_FIXED, IN_CONFIG(rate_limit.clients_file),
     .fallback = "\"clients.json\"", .check = check_file_path, .allowed = "a path of 1 to 4000 bytes",
     .doc = "where registered clients are kept"},
    {"rate_limit.client_id_header", .type = SCHEMA_STRING, .flags = SCHEMA_NULLABLE, IN_CONFIG(rate_limit.client_id_header),
     .fallback = "\"X-Client-ID\"", .check = check_field_name,
     .allowed = "a field name of 1 to 64 characters, or null",
     .doc = "the field that names a registered client; null: none does"},
    {"rate_limit.default", .type = SCHEMA_OBJECT, .allowed = "an object", .doc = "the bucket of unregistered clients"},
    {"rate_limit.default.capacity", .type = SCHEMA_NUMBER, IN_CONFIG(rate_limit.default_capacity), .fallback = "100",
     .min = 1, .max = 1e9, .allowed = "a number from 1 to 1000000000", .doc = "tokens it holds"},
    {"rate_limit.default.rate_per_sec", .type = SCHEMA_NUMBER, IN_CONFIG(rate_limit.default_rate), .fallback = "50",
     .min = DBL_TRUE_MIN, .max = 1e9, .allowed = "a number above 0, at most 1000000000",
     .doc = "tokens that it gains a second"},
    {"rate_limit.unknown_clients", .type = SCHEMA_WORD, IN_CONFIG(rate_limit.unknown), .fallback = "\"limit\"",
     .words = unknown_words, .allowed = "\"limit\", \"allow\" or \"reject\"",
     .doc = "unregistered clients: a bucket each, no limit, or 403"},
    {"rate_limit.max_tracked", COUNT(1, 100000000), IN_CONFIG(rate_limit.max_tracked), .fallback = "1000000",
     .doc = "unregistered clients with a bucket of their own"},
    {"rate_limit.ipv6_prefix", UINT(1, 128), IN_CONFIG(rate_limit.ipv6_prefix), .fallback = "64",
     .doc = "bits of an IPv6 address that make one client"},
    {"rate_limit.exempt", NETWORKS, IN_CONFIG(rate_limit.exempt), .fallback = "[]",
     .doc = "clients that are never limited"},
    {"rate_limit.headers", .type = SCHEMA_WORD, IN_CONFIG(rate_limit.headers), .fallback = "\"always\"",
     .words = headers_words, .allowed = "\"always\", \"limited\" or \"off\"",
     .doc = "RateLimit fields on every response, on 429 only, or nowhere"},
    {"rate_limit.save_interval", DURATION, IN_CONFIG(rate_limit.save_interval), .fallback = "\"10s\"",
     .doc = "between two saves of the tokens"},

    {"trusted_proxies", NETWORKS, IN_CONFIG(trusted_proxies), .fallback = "[]",
     .doc = "peers whose X-Forwarded-For is believed"},

    {"admin", .type = SCHEMA_OBJECT, .allowed = "an object", .doc = "who may use /clients/*"},
    {"admin.allow", NETWORKS, IN_CONFIG(admin.allow), .fallback = "[\"127.0.0.0/8\", \"::1/128\"]",
     .doc = "matched against the TCP peer"},
    {"admin.token", .type = SCHEMA_STRING, .flags = SCHEMA_NULLABLE | SCHEMA_SECRET, IN_CONFIG(admin.token), .fallback = "null",
     .check = check_token, .allowed = "1 to 1024 visible ASCII characters, or null",
     .doc = "asked for as a bearer token; null: none is"},

    {"log", .type = SCHEMA_OBJECT, .allowed = "an object", .doc = "one line an event"},
    {"log.level", .type = SCHEMA_WORD, IN_CONFIG(log.level), .fallback = "\"info\"", .words = level_words,
     .allowed = "\"debug\", \"info\", \"warn\" or \"error\"", .doc = "the least that is logged"},
    {"log.access", BOOL, IN_CONFIG(log.access), .fallback = "true", .doc = "a line for each request"},
    {"log.format", .type = SCHEMA_WORD, IN_CONFIG(log.format), .fallback = "\"text\"", .words = format_words,
     .allowed = "\"text\" or \"json\"", .doc = "for people or for machines"},
    {"log.file", .type = SCHEMA_STRING, .flags = SCHEMA_NULLABLE | SCHEMA_FIXED_NULL, IN_CONFIG(log.file), .fallback = "null",
     .check = check_file_path, .allowed = "a path of 1 to 4000 bytes, or null", .doc = "null: stdout"},
};
/* clang-format on */

const size_t schema_count = sizeof(schema) / sizeof(schema[0]);
static_assert(sizeof(schema) / sizeof(schema[0]) <= SCHEMA_KEYS_MAX, "loaders keep an array of that size");

const char *schema_name(const struct schema_key *key)
{
    const char *dot = strrchr(key->path, '.');
    return dot ? dot + 1 : key->path;
}

bool schema_is_member(const struct schema_key *key, const char *parent)
{
    size_t n = strlen(parent), before_name = (size_t)(schema_name(key) - key->path);
    if (n == 0)
        return before_name == 0;
    return before_name == n + 1 && memcmp(key->path, parent, n) == 0;
}

const struct schema_key *schema_find(const char *path)
{
    size_t i = 0;
    while (strcmp(schema[i].path, path) != 0) {
        i++;
        assert(i < schema_count);
    }
    return &schema[i];
}

const struct schema_key *schema_member(const char *parent, const char *name)
{
    for (size_t i = 0; i < schema_count; i++)
        if (schema_is_member(&schema[i], parent) && strcmp(schema_name(&schema[i]), name) == 0)
            return &schema[i];
    return NULL;
}

/* How many edits away a name may be to pass for a slip of the fingers. */
static size_t slip_max(struct str s)
{
    size_t n = s.n / 3;
    return n < 1 ? 1 : n > 3 ? 3 : n;
}

static bool is_within(const char *path, const char *object)
{
    size_t n = strlen(object);
    return strncmp(path, object, n) == 0 && (n == 0 || path[n] == '.' || path[n] == '\0');
}

/* A key of that very name further in or further out: one that only stands in another object is another thing. */
static const struct schema_key *find_around(const char *parent, const char *name)
{
    for (size_t i = 0; i < schema_count; i++) {
        char object[64];
        const struct schema_key *key = &schema[i];
        size_t n = (size_t)(schema_name(key) - key->path);
        snprintf(object, sizeof(object), "%.*s", n > 0 ? (int)n - 1 : 0, key->path);
        if (strcmp(schema_name(key), name) == 0 && (is_within(object, parent) || is_within(parent, object)))
            return key;
    }
    return NULL;
}

/* What other programs' files call a thing, where no spelling would lead to our name for it. */
static const struct schema_key *find_by_other_name(const char *parent, const char *name)
{
    static const struct {
        const char *parent, *name, *ours;
    } others[] = {{"backends[]", "host", "address"},
                  {"backends[]", "port", "address"},
                  {"backends[]", "server", "address"},
                  {"backends[]", "url", "address"}};
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++)
        if (strcmp(others[i].parent, parent) == 0 && strcmp(others[i].name, name) == 0)
            return schema_member(parent, others[i].ours);
    return NULL;
}

const struct schema_key *schema_nearest(const char *parent, const char *name)
{
    const struct schema_key *nearest = NULL;
    size_t least = slip_max(str_of(name)) + 1;
    for (size_t i = 0; i < schema_count; i++) {
        if (!schema_is_member(&schema[i], parent))
            continue;
        size_t distance = str_distance(str_of(name), str_of(schema_name(&schema[i])));
        if (distance < least) {
            least = distance;
            nearest = &schema[i];
        }
    }
    if (!nearest)
        nearest = find_by_other_name(parent, name);
    return nearest ? nearest : find_around(parent, name);
}

const char *schema_nearest_word(const char *const *words, struct str s)
{
    const char *nearest = NULL;
    size_t least = slip_max(s) + 1;
    for (; *words; words++) {
        bool same = str_eq_nocase(s, str_of(*words));
        size_t distance = same ? 0 : str_distance(s, str_of(*words));
        if (distance < least) {
            least = distance;
            nearest = *words;
        }
    }
    return nearest;
}
