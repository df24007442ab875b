/* What the exchanges share, the count of connections, and the drain. */
#include "proxy/proxy.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/metrics.h"
#include "http/rules.h"
#include "net/io.h"
#include "proxy/front_h1.h"
#include "proxy_impl.h"

static void tell_drained(struct posted *p)
{
    struct proxy *px = container_of(p, struct proxy, drained_post);
    px->drained(px->drained_arg);
}

/* A connection that is passed on leaves the list. */
static void pass_all(struct posted *p)
{
    struct proxy *px = container_of(p, struct proxy, pass_post);
    LIST_EACH (it, &px->fronts)
        if (!front_h1_pass(front_h1_of(it)))
            return;
}

/* What an address counts for: of IPv6 its network, as the limiter counts. */
static struct ip counted_ip(const struct proxy *px, const struct ip *ip)
{
    return ip_is_v4(ip) ? *ip : ip_mask(ip, px->config->rate_limit.ipv6_prefix);
}

/* ---- connections over a limit, in the log: a line a second for either, for a flood is one event ---- */

static void log_full(struct notice *n, uint64_t refused)
{
    const struct proxy *px = container_of(n, struct proxy, full);
    log_begin(LOG_WARN, "limit_connections");
    log_u64("connections", px->connections);
    log_u64("refused", refused);
    log_end();
}

static void log_crowded(struct notice *n, uint64_t refused)
{
    const struct proxy *px = container_of(n, struct proxy, crowded);
    char text[IP_TEXT_SIZE];
    log_begin(LOG_WARN, "limit_connections");
    log_str("client", str_make(text, ip_format(&px->crowded_by, text)));
    log_u64("connections", px->connections);
    log_u64("refused", refused - px->crowded_others);
    if (px->crowded_others > 0)
        log_u64("others", px->crowded_others);
    log_end();
}

/* The line names one address, the first since the line before, and what it counts as that one's is no other's. */
static void count_crowded(struct proxy *px, const struct ip *ip)
{
    struct ip own = counted_ip(px, ip), named = counted_ip(px, &px->crowded_by);
    if (px->crowded.count == 0) {
        px->crowded_by = *ip;
        px->crowded_others = 0;
    } else if (!ip_eq(&own, &named)) {
        px->crowded_others++;
    }
    notice_count(&px->crowded);
}

static void flush_notices(struct proxy *px)
{
    notice_flush(&px->full);
    notice_flush(&px->crowded);
}

struct proxy *proxy_new(const struct proxy_setup *setup)
{
    struct proxy *px = mem_try_alloc(sizeof *px);
    if (!px)
        return NULL;
    px->loop = setup->loop;
    px->config = config_get(setup->config);
    px->upstream = setup->upstream;
    px->limiter = setup->limiter;
    px->local = setup->local;
    list_init(&px->fronts);
    list_init(&px->closing);
    crowd_init(&px->crowd);
    posted_init(&px->drained_post, tell_drained);
    posted_init(&px->pass_post, pass_all);
    clock_random(&px->id_key, sizeof px->id_key);
    notice_init(&px->full, px->loop, NS_PER_S, log_full);
    notice_init(&px->crowded, px->loop, NS_PER_S, log_crowded);
    if (proxy_stage(px, px->config))
        return px;
    proxy_free(px);
    return NULL;
}

bool proxy_stage(struct proxy *px, const struct config *fresh)
{
    unsigned room = fresh->limits.header_fields;
    if (room <= px->field_room)
        return true;
    struct field *fields = mem_try_alloc(room * sizeof *fields);
    if (!fields)
        return false;
    mem_free(px->fields); /* nothing stays in it from one callback to the next */
    px->fields = fields;
    px->field_room = room;
    return true;
}

void proxy_commit(struct proxy *px, struct config *fresh)
{
    struct config *old = px->config;
    px->config = config_get(fresh);
    config_put(old);
}

void proxy_free(struct proxy *px)
{
    if (!px)
        return;
    loop_unpost(px->loop, &px->drained_post);
    loop_unpost(px->loop, &px->pass_post);
    notice_fini(&px->full);
    notice_fini(&px->crowded);
    config_put(px->config);
    crowd_fini(&px->crowd);
    mem_free(px->fields);
    buf_fini(&px->head);
    mem_free(px);
}

struct head_writer proxy_head_writer(struct proxy *px, size_t n)
{
    px->head.start = px->head.len = 0;
    if (buf_reserve(&px->head, n))
        return head_writer_on(buf_tail(&px->head), n);
    struct head_writer none = head_writer_on(NULL, 0);
    none.full = true;
    return none;
}

bool proxy_write_trailers(struct proxy *px, struct str section, bool to_backend, struct str *out)
{
    const struct config *config = px->config;
    bool identified = to_backend && config->rate_limit.on;
    struct head_writer w = proxy_head_writer(px, 2 * section.n);
    rules_write_trailers(&w, section, to_backend, identified ? str_of(config->rate_limit.client_id_header) : STR(""));
    *out = head_writer_str(&w);
    return !w.full;
}

struct str proxy_date(struct proxy *px)
{
    uint64_t wall = clock_wall();
    if (wall / NS_PER_S != px->date_second) {
        px->date_second = wall / NS_PER_S;
        clock_format_http_date(wall, px->date);
    }
    return str_make(px->date, CLOCK_HTTP_DATE_SIZE - 1);
}

/* ---- connections ---- */

/* Local peers are the balancer's own side, such as a proxy in front of it that speaks TLS: unless it is set for them,
 * too, their connections are many clients'. */
static bool is_counted(const struct config *config, const struct peer *peer)
{
    if (peer->is_unix || cidr_set_contains_peer(&config->trusted_proxies, peer))
        return false;
    return config->limits.connections_per_client > 0 || !ip_is_loopback(&peer->ip);
}

/* The group of the peer's address. False, and no group, when it is full: one that is only being closed has made room.
 */
static bool enter_crowd(struct proxy *px, const struct peer *peer, struct crowd_group **group)
{
    const struct config *config = px->config;
    *group = NULL;
    if (!is_counted(config, peer))
        return true;
    struct ip ip = counted_ip(px, &peer->ip);
    unsigned max = config_connections_per_client(config);
    bool entered = crowd_enter(&px->crowd, &ip, max, group);
    if (!entered && !list_empty(&(*group)->closing)) {
        front_h1_end_closing_of(*group);
        entered = crowd_enter(&px->crowd, &ip, max, group);
    }
    if (!entered)
        *group = NULL;
    return entered;
}

/* Those that are only being closed make room for one that is to be served. */
static bool has_room(struct proxy *px)
{
    while (px->connections >= px->config->limits.connections && !list_empty(&px->closing))
        front_h1_end_closing(&px->closing);
    return px->connections < px->config->limits.connections;
}

/* `peer`: it has as many as it may have; NULL: all together have. */
static void refuse(struct proxy *px, int fd, const struct peer *peer)
{
    metrics.connections_refused++;
    if (peer)
        count_crowded(px, &peer->ip);
    else
        notice_count(&px->full);
    front_h1_refuse(px, fd, peer != NULL);
}

void proxy_accept(void *arg, int fd, const struct peer *peer)
{
    struct proxy *px = arg;
    struct crowd_group *group;
    metrics.connections_accepted++;
    if (!enter_crowd(px, peer, &group)) {
        refuse(px, fd, peer);
    } else if (!has_room(px)) {
        crowd_leave(&px->crowd, group);
        refuse(px, fd, NULL);
    } else {
        front_h1_accept(px, fd, peer, group);
    }
    if (px->connections > px->peak)
        px->peak = px->connections;
}

static bool is_drained(const struct proxy *px)
{
    return px->connections == px->lingering;
}

static void one_less(struct proxy *px)
{
    if ((px->draining || px->pass) && is_drained(px))
        loop_post(px->loop, &px->drained_post);
}

void proxy_connection_ended(struct proxy *px, struct crowd_group *group)
{
    crowd_leave(&px->crowd, group);
    px->connections--;
    one_less(px);
}

void proxy_connection_closing(struct proxy *px)
{
    px->lingering++;
    one_less(px);
}

void proxy_connection_closed(struct proxy *px, struct crowd_group *group)
{
    crowd_leave(&px->crowd, group);
    px->connections--;
    px->lingering--;
}

/* ---- another process takes over ---- */

void proxy_freeze(struct proxy *px)
{
    px->frozen = true;
    LIST_EACH (it, &px->fronts)
        front_h1_freeze(front_h1_of(it));
}

void proxy_thaw(struct proxy *px)
{
    px->frozen = false;
    LIST_EACH (it, &px->fronts)
        front_h1_thaw(front_h1_of(it));
}

static void hurry(struct proxy *px)
{
    LIST_EACH (it, &px->fronts)
        front_h1_hurry(front_h1_of(it));
    io_hurry_lingering(px->loop, FRONT_LINGER_SHORT);
}

void proxy_pass_on(struct proxy *px, proxy_pass_fn *pass, void *pass_arg, void (*drained)(void *arg), void *arg)
{
    flush_notices(px);
    if (!px->pass)
        hurry(px);
    px->pass = pass;
    px->pass_arg = pass_arg;
    px->drained = drained;
    px->drained_arg = arg;
    loop_post(px->loop, !is_drained(px) ? &px->pass_post : &px->drained_post);
}

void proxy_take_over(struct proxy *px, int fd, const struct peer *peer, struct str bytes)
{
    struct crowd_group *group;
    metrics.connections_accepted++;
    (void)!enter_crowd(px, peer, &group); /* one too many is served all the same: it was there before */
    front_h1_take_over(px, fd, peer, group, bytes);
    if (px->connections > px->peak)
        px->peak = px->connections;
}

void proxy_set_limiter(struct proxy *px, struct limiter *limiter)
{
    px->limiter = limiter;
}

/* ---- the end ---- */

void proxy_drain(struct proxy *px, void (*drained)(void *arg), void *arg)
{
    px->draining = true;
    px->drained = drained;
    px->drained_arg = arg;
    flush_notices(px);
    LIST_EACH (it, &px->fronts)
        front_h1_drain(front_h1_of(it));
    io_hurry_lingering(px->loop, FRONT_LINGER_SHORT);
    one_less(px);
}

size_t proxy_cut(struct proxy *px)
{
    size_t cut = 0;
    flush_notices(px);
    LIST_EACH (it, &px->fronts)
        cut += front_h1_cut(front_h1_of(it));
    return cut;
}

size_t proxy_connections(const struct proxy *px)
{
    return px->connections - px->lingering;
}

size_t proxy_take_peak(struct proxy *px)
{
    size_t peak = px->peak;
    px->peak = px->connections;
    return peak;
}

size_t proxy_exchanges(const struct proxy *px)
{
    return px->exchanges;
}

uint64_t proxy_finished(const struct proxy *px)
{
    return px->finished;
}
