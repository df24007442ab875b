/* Clients that change at random while the daemon is killed again and again, at any moment: what it has acknowledged is
 * there after each restart, what it has not is there whole or not at all, in the order in which it was asked for, and
 * no tokens have come back. The simulation does the same on a disk that it can cut between any two writes; here it is
 * the real process on the real one. */
#include "harness/world.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#define ASK "GET / HTTP/1.1\r\nHost: h\r\nX-Client-ID: counted\r\n\r\n"

#define CALLERS   4u /* each changes its own clients only, so that it knows in which order */
#define OWN       3u
#define AHEAD_MAX 12u /* changes that a caller may have asked for and not read the answers to */

/* What a client is like: its capacity, and 0 where there is no such client. The rate goes with it, so that half a
 * change would show. */
typedef unsigned settings;

struct change {
    unsigned id;
    settings to;
    int status; /* of the answer that it must have */
};

struct caller {
    struct client client;
    settings acknowledged[OWN], asked[OWN];
    struct change ahead[AHEAD_MAX];
    unsigned ahead_count;
};

struct model {
    struct world *world;
    struct caller callers[CALLERS];
    uint64_t random;
    unsigned sent;          /* requests of the client whose tokens are counted */
    unsigned changes, lost; /* acknowledged; how often some of those that were not did not come about */
};

static unsigned draw(struct model *m, unsigned below)
{
    m->random ^= m->random << 13;
    m->random ^= m->random >> 7;
    m->random ^= m->random << 17;
    return (unsigned)(m->random >> 33) % below;
}

/* Not a wait for anything: the moment of a kill is drawn, too. */
static void pause_up_to(struct model *m, unsigned ms)
{
    nanosleep(&(struct timespec){.tv_nsec = draw(m, ms * 1000000)}, NULL);
}

static double rate_with(settings s)
{
    return s / 8.0;
}

static void ask_for_change(struct model *m, struct caller *c)
{
    unsigned caller = (unsigned)(c - m->callers), id = draw(m, OWN), kind = draw(m, 3);
    settings is = c->asked[id], to = kind == 2 ? 0 : 1 + draw(m, 1000000);
    char body[128] = "", target[64] = "/clients/register";
    static const char *const methods[] = {"POST", "PUT", "DELETE"};

    if (kind == 1)
        snprintf(target, sizeof target, "/clients/update");
    if (kind == 2)
        snprintf(target, sizeof target, "/clients/delete?id=k%u-%u", caller, id);
    else
        snprintf(body, sizeof body, "{\"client_id\":\"k%u-%u\",\"capacity\":%u,\"rate_per_sec\":%.3f}", caller, id, to,
                 rate_with(to));
    client_sendf(&c->client, "%s %s HTTP/1.1\r\nHost: h\r\nContent-Length: %zu\r\n\r\n%s", methods[kind], target,
                 strlen(body), body);
    bool done = kind == 0 ? is == 0 : is != 0;
    int status = kind == 0 ? (done ? 201 : 409) : done ? 200 : 404;
    c->asked[id] = done ? to : is;
    c->ahead[c->ahead_count++] = (struct change){id, c->asked[id], status};
}

/* The answer to the first of the changes asked for has come. */
static void acknowledge(struct model *m, struct caller *c)
{
    struct change *first = &c->ahead[0];

    CHECK(c->client.response.status == first->status, "%d instead of %d: %s", c->client.response.status, first->status,
          c->client.response.body.p);
    c->acknowledged[first->id] = first->to;
    memmove(first, first + 1, --c->ahead_count * sizeof *first);
    m->changes++;
}

/* Is that what was acknowledged, with the first so many of the other changes, and none behind them? */
static bool is_prefix(const struct caller *c, unsigned changes, const settings restored[OWN])
{
    settings then[OWN];
    memcpy(then, c->acknowledged, sizeof then);
    for (unsigned i = 0; i < changes; i++)
        then[c->ahead[i].id] = c->ahead[i].to;
    return memcmp(then, restored, sizeof then) == 0;
}

static bool may_be(const struct caller *c, const settings restored[OWN])
{
    bool may = false;
    for (unsigned changes = 0; changes <= c->ahead_count; changes++)
        may |= is_prefix(c, changes, restored);
    return may;
}

/* What the restarted daemon has for a client: settings, checked to be whole. */
static settings restored(const cJSON *list, const char *name)
{
    const cJSON *client;
    cJSON_ArrayForEach(client, cJSON_GetObjectItem(list, "clients"))
    {
        if (strcmp(log_field(client, "client_id"), name) != 0)
            continue;
        double capacity = log_number(client, "capacity"), rate = log_number(client, "rate_per_sec");
        CHECK(rate == rate_with((settings)capacity), "%s has capacity %f and rate %f", name, capacity, rate);
        return (settings)capacity;
    }
    return 0;
}

static cJSON *list_all(struct world *w)
{
    struct bytes body = {0};
    assert_int_equal(http_get(w->port, "/clients/list?limit=1000", &body), 200);
    cJSON *list = cJSON_Parse(body.p);
    assert_non_null(list);
    bytes_free(&body);
    return list;
}

/* Takes over what the restarted daemon has, which must be what a caller may expect. */
static void check_restored(struct model *m, unsigned life)
{
    cJSON *list = list_all(m->world);
    unsigned there = 0;

    for (unsigned i = 0; i < CALLERS; i++) {
        struct caller *c = &m->callers[i];
        settings is[OWN];
        for (unsigned id = 0; id < OWN; id++) {
            char name[16];
            snprintf(name, sizeof name, "k%u-%u", i, id);
            is[id] = restored(list, name);
            there += is[id] != 0;
        }
        CHECK(may_be(c, is),
              "after kill %u the clients of caller %u have capacities %u, %u, %u; acknowledged were %u, %u, %u, and %u "
              "changes were not",
              life, i, is[0], is[1], is[2], c->acknowledged[0], c->acknowledged[1], c->acknowledged[2], c->ahead_count);
        m->lost += memcmp(is, c->asked, sizeof is) != 0;
        memcpy(c->acknowledged, is, sizeof is);
        memcpy(c->asked, is, sizeof is);
        c->ahead_count = 0;
    }
    CHECK(log_number(list, "total") == there + 1, "%f clients after kill %u instead of %u", log_number(list, "total"),
          life, there + 1);
    cJSON_Delete(list);
}

static void take_one_answer(struct model *m, struct caller *c)
{
    client_expect(&c->client, 0);
    acknowledge(m, c);
}

/* One life of the daemon: changes, and requests of a client whose tokens are counted, most with no answer waited for.
 */
static void live(struct model *m)
{
    struct client traffic;
    unsigned steps = 1 + draw(m, 60);

    client_open(&traffic, m->world->port);
    client_send(&traffic, ASK);
    client_expect(&traffic, 200);
    m->sent++;
    for (unsigned i = 0; i < CALLERS; i++)
        client_open(&m->callers[i].client, m->world->port);
    for (unsigned i = 0; i < steps; i++) {
        unsigned kind = draw(m, 8);
        struct caller *c = &m->callers[draw(m, CALLERS)];
        if (kind == 0) {
            client_send(&traffic, ASK);
            m->sent++;
        } else if (c->ahead_count == AHEAD_MAX || (kind < 4 && c->ahead_count > 0)) {
            take_one_answer(m, c);
        } else {
            ask_for_change(m, c);
        }
    }
    /* Each is in the middle of something. */
    for (unsigned i = 0; i < CALLERS; i++)
        while (m->callers[i].ahead_count < 3)
            ask_for_change(m, &m->callers[i]);
    pause_up_to(m, 2);
    daemon_kill(&m->world->daemon);
    /* What it had answered by then was acknowledged. */
    for (unsigned i = 0; i < CALLERS; i++) {
        struct caller *c = &m->callers[i];
        while (c->ahead_count > 0 && client_read(&c->client, false) == READ_OK)
            acknowledge(m, c);
        client_close(&c->client);
    }
    client_close(&traffic);
}

/* Some of the next processes are killed before they listen: while they load, or save what they have loaded. */
static void come_back(struct model *m)
{
    const char *const argv[] = {"loadbalancer", NULL};

    while (draw(m, 4) == 0) {
        daemon_start(&m->world->daemon, m->world->dir, "loadbalancer", argv);
        pause_up_to(m, 8);
        daemon_kill(&m->world->daemon);
    }
    world_restart(m->world);
}

static double tokens_left(struct world *w)
{
    struct bytes body = {0};
    assert_int_equal(http_get(w->port, "/clients/get?id=counted", &body), 200);
    cJSON *client = cJSON_Parse(body.p);
    double tokens = log_number(client, "tokens");
    cJSON_Delete(client);
    bytes_free(&body);
    return tokens;
}

static void test_killed_at_any_moment(void **state)
{
    struct model m = {.world = *state, .random = UINT64_C(88172645463325252)};
    unsigned kills = is_instrumented() ? 20 : 200;
    static const char counted[] = "{\"client_id\":\"counted\",\"capacity\":100000,\"rate_per_sec\":0.000001}";

    struct origin *o = world_origin(m.world, origin_answer_all, NULL, NULL);
    world_start(m.world,
                "\"rate_limit\": {\"save_interval\": \"20ms\"}, \"log\": {\"format\": \"json\", \"access\": false}");
    assert_int_equal(http_request(m.world->port, "POST", "/clients/register", "", counted, NULL), 201);
    for (unsigned life = 0; life < kills; life++) {
        live(&m);
        come_back(&m);
        check_restored(&m, life);
        double left = tokens_left(m.world);
        unsigned delivered = origin_requests(o);
        CHECK(left <= 100000.01 - delivered, "%f tokens are left after %u requests", left, delivered);
        CHECK(left >= 100000.0 - m.sent, "%f tokens are left after %u requests", left, m.sent);
    }
    /* Some changes fell to a kill. */
    CHECK(m.lost > 0, "%u changes were acknowledged, and none was lost", m.changes);
    world_finish(m.world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {WORLD_TEST(test_killed_at_any_moment)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
