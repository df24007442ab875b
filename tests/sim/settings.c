/* What a run is made of: which parts take part in it, and the daemon's config.json, as the seed chose it. */
#include "disk.h"
#include "world.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* ---- parts that can be left out ---- */

static char without[4096];
static char asked[4096]; /* parts that the run has asked for */

void world_without(const char *list)
{
    snprintf(without, sizeof without, ",%s,", list);
}

static bool listed(const char *list, const char *name)
{
    char wanted[80];
    snprintf(wanted, sizeof wanted, ",%s,", name);
    return strstr(list, wanted) != NULL;
}

bool world_has(const char *kind, unsigned index)
{
    char name[64];
    snprintf(name, sizeof name, "%s%u", kind, index);
    if (!listed(asked, name) && strlen(asked) + strlen(name) + 2 < sizeof asked) {
        strcat(asked, name);
        strcat(asked, ",");
    }
    return !listed(without, name);
}

void world_forget_parts(void)
{
    strcpy(asked, ",");
}

void world_each_part(void (*fn)(void *arg, const char *name), void *arg)
{
    char copy[sizeof asked], *save = NULL;
    strcpy(copy, asked);
    for (char *name = strtok_r(copy, ",", &save); name; name = strtok_r(NULL, ",", &save))
        fn(arg, name);
}

/* ---- settings ---- */

static uint64_t ms_between(struct rng *r, uint64_t low, uint64_t high)
{
    return rng_spread(r, low, high) * MS;
}

static void draw_backends(struct settings *s, struct rng *r)
{
    s->backends = (unsigned)rng_between(r, 1, BACKENDS_MAX);
    for (unsigned i = 0; i < s->backends; i++) {
        s->backend[i].weight = rng_chance(r, 700) ? 1 : (unsigned)rng_between(r, 1, 5);
        s->backend[i].backup = i > 0 && rng_chance(r, 100);
        s->backend[i].unix_socket = rng_chance(r, 100);
        s->backend[i].named = !s->backend[i].unix_socket && rng_chance(r, 80) && !world.gentle;
    }
}

static void draw_timeouts(struct settings *s, struct rng *r)
{
    /* A time-out shorter than some rounds on this network would make faults of what is none. */
    uint64_t least = 40 * kernel.latency / MS * MS;
    s->client_header = ms_between(r, 300, 3000) + least;
    s->client_idle = ms_between(r, 300, 4000) + least;
    s->client_body = ms_between(r, 300, 3000) + least;
    s->client_write = ms_between(r, 300, 3000) + least;
    s->connect = ms_between(r, 100, 1000) + least;
    s->backend_response = ms_between(r, 200, 3000) + least;
    s->backend_idle = ms_between(r, 100, 4000);
    s->shutdown = ms_between(r, 100, 4000);
    s->tunnel_short = rng_chance(r, 400) && !world.gentle;
    s->tunnel = s->tunnel_short ? ms_between(r, 300, 3000) + least : 3600 * S;
}

static void draw_limits(struct settings *s, struct rng *r)
{
    bool tight = rng_chance(r, 500) && !s->unix_listen;
    static const char *const headers[] = {"always", "limited", "off"};
    s->limiter_on = rng_chance(r, 900);
    s->max_tracked = rng_chance(r, 100) ? (unsigned)rng_between(r, 1, 8) : 1000000;
    s->rate_headers = headers[rng_below(r, 3)];
    s->capacity = tight ? (double)rng_spread(r, 1, 40) : 1e6;
    s->rate = tight ? (double)rng_spread(r, 1, 200) : 1e6;
    for (unsigned i = 0; i < NAMED_MAX; i++) {
        s->named_capacity[i] = rng_chance(r, 500) ? (double)rng_spread(r, 1, 30) : 100000;
        s->named_rate[i] = (double)rng_spread(r, 2, 100);
    }
}

/* An address that is registered, and no caller's. Apart from the rest, with numbers of its own. */
static void draw_registered(struct settings *s)
{
    struct rng r = rng_of("registered address", 0);
    bool any = rng_chance(&r, 300) && s->limiter_on && !s->unix_listen;
    s->registered = any ? (unsigned)rng_between(&r, CALLERS_MAX, CLIENTS_MAX - 2) : CLIENTS_MAX;
    s->registered_capacity = (double)rng_spread(&r, 1, 30);
    s->registered_rate = (double)rng_spread(&r, 2, 100);
}

/* What a turn of the daemon's loop fetches: often so little that it has a backlog. Apart from the rest, with numbers of
 * its own. */
static void draw_batch(struct settings *s)
{
    struct rng r = rng_of("batch", 0);
    s->batch = rng_chance(&r, 500) ? 1 : 64;
}

/* How backends are chosen. Apart from the rest, with numbers of its own. */
static void draw_balance(struct settings *s)
{
    static const char *const balances[] = {"\"round_robin\"", "\"least_conn\"", "\"random_two\"",
                                           "\"hash\",\"hash_key\":\"ip\"", "\"hash\",\"hash_key\":\"target\""};
    struct rng r = rng_of("balance", 0);
    uint64_t balance = rng_chance(&r, 400) ? 0 : rng_below(&r, 5);
    s->balance = balances[balance];
    s->by_turn = balance < 2;
    s->slow_start = rng_chance(&r, 300) ? ms_between(&r, 50, 3000) : 0;
    s->capped = !world.gentle && rng_chance(&r, 250);
    s->queue_size = rng_chance(&r, 200) ? 0 : (unsigned)rng_spread(&r, 1, 100);
    s->queue_timeout = ms_between(&r, 20, 3000);
    for (unsigned i = 0; i < s->backends; i++)
        s->backend[i].max_connections = s->capped && rng_chance(&r, 700) ? (unsigned)rng_between(&r, 1, 4) : 0;
}

void settings_draw(void)
{
    struct rng r = rng_of("settings", 0);
    struct settings *s = &world.set;
    world.gentle = rng_chance(&r, 120);
    world.faulty_backends = !world.gentle && rng_chance(&r, 800);
    kernel.chunk = (unsigned)rng_below(&r, 3);
    kernel.latency = rng_spread(&r, 20 * US, world.gentle ? 2 * MS : 20 * MS);
    draw_backends(s, &r);
    draw_balance(s);
    draw_timeouts(s, &r);
    s->unix_listen = rng_chance(&r, 60);
    draw_limits(s, &r);
    draw_registered(s);
    draw_batch(s);
    s->log_to_file = rng_chance(&r, 200);
    s->checks_on = rng_chance(&r, 900);
    s->passive_on = rng_chance(&r, 800);
    s->interval = ms_between(&r, 50, 1000);
    s->check_timeout = ms_between(&r, 30, 500) + 40 * kernel.latency / MS * MS;
    s->fall = (unsigned)rng_between(&r, 1, 4);
    s->rise = (unsigned)rng_between(&r, 1, 3);
    s->failures = (unsigned)rng_between(&r, 1, 6);
    s->ejection = ms_between(&r, 100, 2000);
    s->max_ejection = s->ejection * rng_between(&r, 1, 4);
    s->attempts = (unsigned)rng_below(&r, 4);
    s->budget_percent = (unsigned)rng_spread(&r, 0, 100);
    s->save_interval = ms_between(&r, 100, 3000);
    s->connections = !world.gentle && rng_chance(&r, 150) ? (unsigned)rng_between(&r, 12, 16) : 1000;
    if (world.gentle) {
        /* Long enough for whatever the machine's own delays do. */
        s->client_header = s->client_idle = s->client_body = s->client_write = s->backend_response = 20 * S;
        s->connect = 10 * S;
        s->check_timeout = 5 * S;
    }
    world.listen = s->unix_listen ? sim_addr_unix("/run/lb.sock") : sim_addr_v4(0, 8080);
}

static void add_duration(struct bytes *o, const char *key, uint64_t ns)
{
    bytes_add_text(o, "\"%s\":\"%" PRIu64 "ms\",", key, ns / MS);
}

/* What is different from the settings. */
struct change {
    bool absent; /* the wanderer */
    unsigned weight[BACKENDS_MAX];
    uint64_t longer; /* each time-out that may be */
    double capacity, rate;
    uint64_t save_interval;
};

unsigned settings_wanderer(void)
{
    return world.set.backends > 1 ? world.set.backends - 1 : BACKENDS_MAX;
}

static void add_backends(struct bytes *o, const struct change *c)
{
    bytes_add_text(o, "\"backends\":[");
    for (unsigned i = 0; i < world.set.backends; i++) {
        char address[40];
        if (c->absent && i == settings_wanderer())
            continue;
        snprintf(address, sizeof address, "10.0.0.%u:9000", i + 1);
        if (world.set.backend[i].unix_socket)
            snprintf(address, sizeof address, "unix:/run/b%u.sock", i);
        else if (world.set.backend[i].named)
            snprintf(address, sizeof address, "b%u.example:9000", i);
        bytes_add_text(o, "%s{\"address\":\"%s\",\"name\":\"b%u\",\"weight\":%u,\"max_connections\":%u,\"backup\":%s}",
                       i ? "," : "", address, i, c->weight[i], world.set.backend[i].max_connections,
                       world.set.backend[i].backup ? "true" : "false");
    }
    bytes_add_text(o, "],\"balance\":%s,\"slow_start\":\"%" PRIu64 "ms\",", world.set.balance,
                   world.set.slow_start / MS);
    bytes_add_text(o, "\"queue\":{\"size\":%u,\"timeout\":\"%" PRIu64 "ms\"},", world.set.queue_size,
                   world.set.queue_timeout / MS);
}

static void add_limiter(struct bytes *o, const struct change *c)
{
    const struct settings *s = &world.set;
    if (!s->limiter_on) {
        bytes_add_text(o, "\"rate_limit\":null,");
        return;
    }
    bytes_add_text(
        o,
        "\"rate_limit\":{\"clients_file\":\"clients.json\",\"default\":{\"capacity\":%g,\"rate_per_sec\":%g},"
        "\"exempt\":[\"10.1.0.200\"],\"max_tracked\":%u,\"headers\":\"%s\",\"save_interval\":\"%" PRIu64 "ms\"},",
        c->capacity, c->rate, s->max_tracked, s->rate_headers, c->save_interval / MS);
    limits_written(c->capacity, c->rate);
}

static void add_checks(struct bytes *o)
{
    const struct settings *s = &world.set;
    if (s->checks_on)
        bytes_add_text(o,
                       "\"health_check\":{\"interval\":\"%" PRIu64 "ms\",\"timeout\":\"%" PRIu64
                       "ms\",\"fall\":%u,\"rise\":%u},",
                       s->interval / MS, s->check_timeout / MS, s->fall, s->rise);
    else
        bytes_add_text(o, "\"health_check\":null,");
    if (s->passive_on)
        bytes_add_text(
            o, "\"passive_check\":{\"failures\":%u,\"ejection\":\"%" PRIu64 "ms\",\"max_ejection\":\"%" PRIu64 "ms\"},",
            s->failures, s->ejection / MS, s->max_ejection / MS);
    else
        bytes_add_text(o, "\"passive_check\":null,");
}

static void write_config(const struct change *c)
{
    const struct settings *s = &world.set;
    struct bytes o = {0};
    bytes_add_text(&o, "{\"listen\":\"%s\",", s->unix_listen ? "unix:/run/lb.sock" : ":8080");
    add_backends(&o, c);
    add_checks(&o);
    add_limiter(&o, c);
    bytes_add_text(&o, "\"retry\":{\"attempts\":%u,\"budget_percent\":%u},\"timeouts\":{", s->attempts,
                   s->budget_percent);
    add_duration(&o, "client_header", s->client_header + c->longer);
    add_duration(&o, "client_idle", s->client_idle + c->longer);
    add_duration(&o, "client_body", s->client_body + c->longer);
    add_duration(&o, "client_write", s->client_write + c->longer);
    add_duration(&o, "connect", s->connect + c->longer);
    add_duration(&o, "backend_response", s->backend_response + c->longer);
    add_duration(&o, "backend_idle", s->backend_idle + c->longer);
    add_duration(&o, "tunnel", s->tunnel);
    bytes_add_text(&o, "\"shutdown\":\"%" PRIu64 "ms\"},", s->shutdown / MS);
    bytes_add_text(&o, "\"limits\":{\"connections\":%u,\"connections_per_client\":%u},", s->connections,
                   s->connections);
    bytes_add_text(&o, "\"admin\":{\"allow\":[\"127.0.0.0/8\",\"unix\"]},");
    bytes_add_text(&o, "\"log\":{\"format\":\"json\",\"file\":%s}}\n", s->log_to_file ? "\"lb.log\"" : "null");
    trace_text("config: %.*s", (int)o.len, bytes_at(&o));
    disk_put("config.json", bytes_at(&o), o.len);
    bytes_free(&o);
}

void settings_write(void)
{
    struct change none = {
        .capacity = world.set.capacity, .rate = world.set.rate, .save_interval = world.set.save_interval};
    for (unsigned i = 0; i < world.set.backends; i++)
        none.weight[i] = world.set.backend[i].weight;
    write_config(&none);
}

/* Limits that are met stay such, and those that nobody meets, too. With numbers of its own. */
static void draw_other_limits(struct change *c)
{
    struct rng r = rng_of("limit change", world.changes);
    const struct settings *s = &world.set;
    bool other = rng_chance(&r, 700) && s->capacity < 1e6;
    c->capacity = other ? (double)rng_spread(&r, 1, 40) : s->capacity;
    c->rate = other ? (double)rng_spread(&r, 1, 200) : s->rate;
    c->save_interval = rng_chance(&r, 500) ? ms_between(&r, 100, 3000) : s->save_interval;
}

void settings_write_changed(struct rng *r)
{
    struct change c = {.absent = rng_chance(r, 500), .longer = ms_between(r, 0, 2000)};
    draw_other_limits(&c);
    for (unsigned i = 0; i < world.set.backends; i++)
        c.weight[i] = (unsigned)rng_between(r, 1, 5);
    world.varied = true;
    world.changes++;
    write_config(&c);
}
