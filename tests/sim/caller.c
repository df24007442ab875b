/* Callers of the client API. Each owns some ids, changes them one call after another, and keeps, for each, the states
 * that it may be in: one when the last answer told, more when a call was cut off. Whatever the daemon says or its files
 * hold must be one of them: what was acknowledged is there after any crash, what failed changed nothing.
 *
 * Besides, they update the clients that carry traffic with the settings that these have, and register and delete
 * addresses that do: neither may give anybody a token. */
#include "disk.h"
#include "world.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define IDS_MAX    4u
#define STATES_MAX 100u
#define LATENT_MAX 16u

#define VERIFY_STEPS 3u /* for each id */

enum op { REGISTER, UPDATE, DELETE, GET, LIST, OPS };
static const char *const op_names[] = {"register", "update", "delete", "get", "list"};

struct state {
    bool exists;
    double capacity, rate;
};

struct model {
    char id[48];
    bool address, fixed; /* fixed: it exists, and its settings never change */
    struct state may[STATES_MAX];
    unsigned may_count;
    struct state ghosts[STATES_MAX]; /* of failed calls: not in force, but perhaps on disk */
    unsigned ghost_count;
    /* A call whose connection ended, whoever ended it, may come about at any time, even behind later ones, as long as
     * its process lives; what that answered may still be on its way when it does no more. */
    struct latent {
        unsigned life;
        enum op op;
        struct state to;
    } latent[LATENT_MAX];
    unsigned latent_count;
};

struct caller {
    unsigned index;
    struct rng rng;
    struct end *e;
    struct message in;
    struct bytes out, body;
    struct model ids[IDS_MAX + 2];
    unsigned id_count;
    bool busy, connected, done, reads_file;
    enum op op;
    struct model *on;
    struct state to;
    unsigned deaths, life, conn_count; /* world.deaths when the connection was begun, and when it was there */
    uint64_t asked_at;
    unsigned verify_step; /* in the end: each id is asked for, changed, asked for again */
    bool hangs_up;        /* in the middle of this call */
    bool bad;             /* this call's JSON is cut off: it must change nothing */
    struct event act;
};

static struct caller callers[CALLERS_MAX];
static unsigned caller_count;
static uint64_t pace; /* the longest pause between two calls */
static bool calm;

/* ---- what may be ---- */

static bool state_eq(const struct state *a, const struct state *b)
{
    return a->exists == b->exists && (!a->exists || (a->capacity == b->capacity && a->rate == b->rate));
}

static void add_state(struct state *set, unsigned *n, struct state s)
{
    for (unsigned i = 0; i < *n; i++)
        if (state_eq(&set[i], &s))
            return;
    if (*n == STATES_MAX)
        sim_fail("simulation", "too many states of a client are possible");
    set[(*n)++] = s;
}

/* The call may have come about or not. */
static void unknown_outcome(struct model *m, enum op op, struct state to)
{
    unsigned n = m->may_count;
    for (unsigned i = 0; i < n; i++) {
        if (op == REGISTER && !m->may[i].exists)
            add_state(m->may, &m->may_count, to);
        if (op == UPDATE && m->may[i].exists)
            add_state(m->may, &m->may_count, to);
        if (op == DELETE && m->may[i].exists)
            add_state(m->may, &m->may_count, (struct state){0});
    }
}

static bool has_latent(const struct caller *c, const struct model *m)
{
    for (unsigned i = 0; i < m->latent_count; i++)
        if (m->latent[i].life == c->life)
            return true;
    return false;
}

/* Their order is not known: as often as there are of them each may follow the others. */
static void add_latent(const struct caller *c, struct model *m)
{
    for (unsigned round = 0; round < m->latent_count; round++)
        for (unsigned i = 0; i < m->latent_count; i++)
            if (m->latent[i].life == c->life)
                unknown_outcome(m, m->latent[i].op, m->latent[i].to);
}

static void note_latent(const struct caller *c, struct model *m)
{
    bool full = m->latent_count == LATENT_MAX;
    unsigned kept = 0;
    for (unsigned i = full; i < m->latent_count; i++) /* those of lives before, and the oldest, have had their time */
        if (m->latent[i].life == c->life)
            m->latent[kept++] = m->latent[i];
    m->latent[kept] = (struct latent){c->life, c->op, c->to};
    m->latent_count = kept + 1;
}

static void settle(const struct caller *c, struct model *m, struct state s)
{
    m->may[0] = s;
    m->may_count = 1;
    add_latent(c, m);
}

/* Keeps the states that exist, or those that do not; with none left, somebody has lied. */
static void narrow(struct caller *c, struct model *m, bool exists, const char *said)
{
    unsigned kept = 0;
    for (unsigned i = 0; i < m->may_count; i++)
        if (m->may[i].exists == exists)
            m->may[kept++] = m->may[i];
    if (kept == 0)
        sim_fail("store", "caller %u: %s of %s was answered %s, but the client must %sbe there", c->index,
                 op_names[c->op], m->id, said, exists ? "not " : "");
    m->may_count = kept;
    add_latent(c, m);
}

static void settle_on(struct caller *c, struct model *m, struct state s)
{
    for (unsigned i = 0; i < m->may_count; i++)
        if (state_eq(&m->may[i], &s)) {
            settle(c, m, s);
            return;
        }
    sim_fail("store", "caller %u: %s is shown with capacity %g, rate %g; it should be %s %g, %g", c->index, m->id,
             s.capacity, s.rate, m->may[0].exists ? "there with" : "gone, last", m->may[0].capacity, m->may[0].rate);
}

/* ---- answers ---- */

static bool json_number(const char *text, const char *key, double *out)
{
    char name[32];
    snprintf(name, sizeof name, "\"%s\":", key);
    const char *p = strstr(text, name);
    if (p)
        *out = strtod(p + strlen(name), NULL);
    return p != NULL;
}

static struct state read_client(struct caller *c, const char *text)
{
    struct state s = {.exists = true};
    double tokens = 0;
    char id[64];
    snprintf(id, sizeof id, "\"client_id\":\"%s\"", c->on->id);
    if (!strstr(text, id) || !json_number(text, "capacity", &s.capacity) ||
        !json_number(text, "rate_per_sec", &s.rate) || !json_number(text, "tokens", &tokens))
        sim_fail("api", "caller %u: no client in the answer: %s", c->index, text);
    /* The file holds tokens as of the save's begin: who was charged after that may owe some. */
    if (tokens > s.capacity || (tokens < 0 && !c->reads_file))
        sim_fail("api", "caller %u: %s has %g tokens of %g", c->index, c->on->id, tokens, s.capacity);
    if (c->op == REGISTER && !c->on->address && tokens != s.capacity)
        sim_fail("api", "caller %u: %s begins with %g tokens of %g", c->index, c->on->id, tokens, s.capacity);
    return s;
}

/* The store tries again a second after a failure, and in between changes fail at once; what it tries may fail for want
 * of memory. */
static bool store_may_fail(const struct caller *c)
{
    uint64_t after = 1500 * MS + (kernel.kinds[FAULT_SLOW_DISK] > 0 ? 40 * S : 0);
    uint64_t since = c->asked_at > after ? c->asked_at - after : 0;
    bool failed = fault_since(SHOWN_DISK | SHOWN_SYNC, since) ||
                  (fault_since(SHOWN_DISK | SHOWN_SYNC, process.begun) && fault_since(SHOWN_HEAP, since));
    bool disk = c->op <= DELETE && failed;
    return world.phase < PHASE_VERIFY && (disk || fault_since(SHOWN_HEAP, c->asked_at) || world.draining);
}

/* What a file or a list says about a client; NULL: nothing. */
static const char *find_line(const char *text, const char *id)
{
    char name[64];
    snprintf(name, sizeof name, "\"client_id\":\"%s\"", id);
    return strstr(text, name);
}

/* Looks at a client as a file or a list shows it. On copies: what the caller knows it is to learn from answers about
 * one client, some of which may be on their way. */
static void check_shown(const struct caller *c, struct model m, const char *line)
{
    struct caller copy = *c;
    copy.on = &m;
    copy.op = GET;
    copy.reads_file = true;
    if (line)
        settle_on(&copy, &m, read_client(&copy, line - 1));
    else
        narrow(&copy, &m, false, "by its absence from the file or list");
}

/* Promise: the list holds whoever exists, with the settings that each has. */
static void check_list(struct caller *c, const char *text)
{
    for (unsigned i = 0; i < c->id_count; i++)
        check_shown(c, c->ids[i], find_line(text, c->ids[i].id));
}

static void on_success(struct caller *c, const char *text)
{
    struct model *m = c->on;
    tally.api_changes += c->op <= DELETE;
    if (c->op <= DELETE)
        m->ghost_count = 0; /* what is acknowledged is on disk behind whatever failed before */
    switch (c->op) {
    case REGISTER:
        narrow(c, m, false, "201");
        settle(c, m, read_client(c, text));
        break;
    case UPDATE:
        narrow(c, m, true, "200");
        settle(c, m, read_client(c, text));
        break;
    case DELETE:
        narrow(c, m, true, "200");
        settle(c, m, (struct state){0});
        return;
    case GET: settle_on(c, m, read_client(c, text)); return;
    default: check_list(c, text); return;
    }
    if (!state_eq(&m->may[0], &c->to))
        sim_fail("api", "caller %u: %s of %s came out with capacity %g, rate %g instead of %g, %g", c->index,
                 op_names[c->op], m->id, m->may[0].capacity, m->may[0].rate, c->to.capacity, c->to.rate);
}

static void on_answer(struct caller *c)
{
    unsigned status = c->in.status;
    char said[8];
    snprintf(said, sizeof said, "%u", status);
    bytes_add(&c->body, "", 1);
    const char *text = bytes_at(&c->body);
    if (status >= 400)
        judge_own_answer(c->life, status);
    trace("api-answer caller call status", c->index, c->op, status);
    trace_text("caller %u: %s %s: %u", c->index, op_names[c->op], c->on ? c->on->id : "", status);
    if (status == 503 && strstr(text, "as many connections")) {
        if (world.set.connections > 100)
            sim_fail("api", "caller %u was refused as one too many", c->index);
    } else if (status == 503 || status == 500) {
        if (!store_may_fail(c))
            sim_fail("api", "caller %u: %s was answered %u without a reason", c->index, op_names[c->op], status);
        if (c->on && c->op <= DELETE && c->deaths != world.deaths)
            unknown_outcome(c->on, c->op, c->to); /* what there was on disk counts since the crash */
        else if (c->on && c->op <= DELETE)
            add_state(c->on->ghosts, &c->on->ghost_count, c->op == DELETE ? (struct state){0} : c->to);
    } else if (c->deaths != world.deaths && (status >= 400 || c->op >= GET)) {
        /* Said by a process that was killed since: it knew nothing of what the crash has left. */
        if (c->on)
            unknown_outcome(c->on, c->op, c->to);
    } else if (c->bad) {
        if (status != 400)
            sim_fail("api", "caller %u: JSON that is cut off was answered %u: %s", c->index, status, text);
    } else if (status == (c->op == REGISTER ? 201 : 200)) {
        on_success(c, text);
    } else if (status == 409 && c->op == REGISTER) {
        narrow(c, c->on, true, said);
    } else if (status == 404 && c->on) {
        narrow(c, c->on, false, said);
    } else {
        sim_fail("api", "caller %u: %s was answered %u: %s", c->index, op_names[c->op], status, text);
    }
    c->busy = false;
    c->verify_step++;
}

/* ---- calls ---- */

static struct state draw_settings(struct caller *c, const struct model *m)
{
    struct state s = {.exists = true, .capacity = world.set.capacity, .rate = world.set.rate};
    if (m->fixed)
        return m->may[0];
    if (m->address)
        return s;
    /* Of few kinds, so that the states that are possible stay few. */
    s.capacity = (double)(1 + 125 * rng_below(&c->rng, 8));
    s.rate = (double)rng_between(&c->rng, 1, 8) / 4;
    return s;
}

/* In the end, for each id: what is it? Then a change, which must come about; and then, is it what it should be? */
static void draw_verifying_call(struct caller *c)
{
    struct model *m = c->on = &c->ids[c->verify_step / VERIFY_STEPS];
    c->op = GET;
    if (c->verify_step % VERIFY_STEPS != 1)
        return;
    c->op = !m->may[0].exists ? REGISTER : m->fixed ? UPDATE : m->address || rng_chance(&c->rng, 300) ? DELETE : UPDATE;
    c->to = draw_settings(c, m);
}

static void draw_call(struct caller *c)
{
    c->hangs_up = c->bad = false;
    c->on = &c->ids[rng_below(&c->rng, c->id_count)];
    c->op = (enum op)rng_below(&c->rng, OPS);
    if (c->on->fixed && c->op != GET && c->op != LIST)
        c->op = UPDATE;
    c->to = draw_settings(c, c->on);
    if (c->on->address && c->op == UPDATE)
        c->op = GET;
    if (world.phase >= PHASE_VERIFY)
        draw_verifying_call(c);
    if (c->op == LIST)
        c->on = NULL;
    if (world.phase < PHASE_CALM && !world.gentle) {
        c->hangs_up = rng_chance(&c->rng, 20) && !(c->on && has_latent(c, c->on));
        c->bad = rng_chance(&c->rng, 20) && (c->op == REGISTER || c->op == UPDATE);
    }
}

static void write_call(struct caller *c)
{
    static const char *const methods[] = {"POST", "PUT", "DELETE", "GET", "GET"};
    char content[256] = "";
    const char *query = c->op == DELETE || c->op == GET ? "?id=" : c->op == LIST ? "?limit=1000" : "";
    const char *id = c->op == DELETE || c->op == GET ? c->on->id : "";
    if (c->op == REGISTER || c->op == UPDATE)
        snprintf(content, sizeof content, "{\"client_id\":\"%s\",\"capacity\":%.17g,\"rate_per_sec\":%.17g}", c->on->id,
                 c->to.capacity, c->to.rate);
    if (c->bad)
        content[strlen(content) / 2] = '\0';
    bytes_clear(&c->out);
    bytes_add_text(&c->out, "%s /clients/%s%s%s HTTP/1.1\r\nHost: lb\r\n", methods[c->op], op_names[c->op], query, id);
    if (*content)
        bytes_add_text(&c->out, "Content-Length: %zu\r\n", strlen(content));
    bytes_add_text(&c->out, "\r\n%s", content);
}

static void send_out(struct caller *c)
{
    if (c->connected)
        bytes_drop(&c->out, end_write(c->e, bytes_at(&c->out), c->out.len));
}

static bool has_verified(const struct caller *c)
{
    return world.phase >= PHASE_VERIFY && c->verify_step >= VERIFY_STEPS * c->id_count;
}

static void call(struct caller *c)
{
    draw_call(c);
    write_call(c);
    c->busy = true;
    c->asked_at = sim_now();
    tally.api_calls++;
    trace("api-call caller call", c->index, c->op, 0);
    trace_text("caller %u: %s %s capacity %g rate %g", c->index, op_names[c->op], c->on ? c->on->id : "",
               c->to.capacity, c->to.rate);
    send_out(c);
    if (c->hangs_up)
        event_set_in(&c->act, rng_spread(&c->rng, 1, 50 * MS));
}

static void disconnected(struct caller *c)
{
    c->e = NULL;
    c->connected = false;
    message_next(&c->in);
    bytes_clear(&c->out);
    bytes_clear(&c->body);
    if (c->busy && c->on && !c->bad) {
        unknown_outcome(c->on, c->op, c->to);
        if (c->op <= DELETE)
            note_latent(c, c->on);
    }
    c->busy = false;
    event_set_in(&c->act, rng_spread(&c->rng, 1, calm ? 20 * MS : 300 * MS));
}

static void on_content(void *arg, const char *p, size_t n)
{
    struct caller *c = arg;
    bytes_add(&c->body, p, n);
}

static void receive(struct caller *c)
{
    while (c->e && message_take(&c->in, end_data(c->e), false, on_content, c)) {
        if (c->in.state == MESSAGE_BROKEN)
            sim_fail("api", "caller %u got a malformed response: %s", c->index, c->in.broken);
        if (c->in.state != MESSAGE_WHOLE)
            continue;
        bool closes = message_field(&c->in, "Connection", NULL) != NULL;
        if (c->busy)
            on_answer(c);
        else if (c->in.status != 408 && c->in.status != 503)
            sim_fail("api", "caller %u got %u, and had asked for nothing", c->index, c->in.status);
        message_next(&c->in);
        bytes_clear(&c->body);
        if (closes) {
            end_close(c->e);
            disconnected(c);
            return;
        }
        if (!event_pending(&c->act))
            event_set_in(&c->act, rng_spread(&c->rng, 1, pace));
    }
    if (c->e)
        end_took(c->e);
}

static void on_event(void *owner, struct end *e, enum end_event event)
{
    struct caller *c = owner;
    switch (event) {
    case END_CONNECTED:
        c->connected = true;
        c->life = world.deaths;
        call(c);
        break;
    case END_READABLE: receive(c); break;
    case END_ROOM: send_out(c); break;
    case END_FIN:
        receive(c);
        if (c->e) {
            end_close(e);
            disconnected(c);
        }
        break;
    case END_REFUSED:
    case END_RESET: disconnected(c); break;
    }
}

static void on_act(struct event *event)
{
    struct caller *c = (struct caller *)(void *)((char *)event - offsetof(struct caller, act));
    if (world.phase == PHASE_CALM) {
        event_set_in(&c->act, 50 * MS); /* it comes back in the end */
        return;
    }
    if (has_verified(c)) {
        c->done = true;
        if (c->e)
            end_close(c->e);
        c->e = NULL;
        return;
    }
    if (c->done)
        return;
    if (c->e && c->connected && !c->busy) {
        call(c);
        return;
    }
    if (c->e && c->busy && c->hangs_up) {
        trace_text("caller %u hangs up", c->index);
        if (rng_chance(&c->rng, 500))
            end_reset(c->e);
        else
            end_close(c->e);
        disconnected(c);
        return;
    }
    if (c->e)
        return;
    /* From where the defaults of admin.allow let call. */
    struct sim_addr from =
        world.set.unix_listen ? sim_addr_unix("") : sim_addr_v4(0x7f000001, (uint16_t)(2000 + c->index));
    c->deaths = world.deaths;
    c->e = end_connect(&world.listen, &from, rng_of("caller conn", (uint64_t)c->index << 32 | c->conn_count++),
                       on_event, c);
}

/* ---- all of them ---- */

static struct model *add_id(struct caller *c, struct state s)
{
    struct model *m = &c->ids[c->id_count++];
    *m = (struct model){0};
    settle(c, m, s);
    return m;
}

static void caller_begin(struct caller *c, unsigned i)
{
    *c = (struct caller){.index = i, .rng = rng_of("caller", i)};
    message_init(&c->in, MESSAGE_RESPONSE);
    event_init(&c->act, on_act);
    for (unsigned k = 0; k < IDS_MAX; k++)
        snprintf(add_id(c, (struct state){0})->id, sizeof c->ids[0].id, "dyn%u-%u", i, k);
    if (i < NAMED_MAX) {
        struct model *m = add_id(c, (struct state){true, world.set.named_capacity[i], world.set.named_rate[i]});
        snprintf(m->id, sizeof m->id, "named%u", i);
        m->fixed = true;
    }
    if (!world.set.unix_listen) {
        struct model *m = add_id(c, (struct state){0});
        snprintf(m->id, sizeof m->id, "10.1.0.%u", i);
        m->address = true;
    }
    if (world.set.limiter_on && world_has("caller", i))
        event_set_in(&c->act, rng_spread(&c->rng, 1, 500 * MS));
    else
        c->done = true;
}

void callers_begin(void)
{
    struct rng r = rng_of("callers", 0);
    calm = false;
    caller_count = rng_chance(&r, 100) ? 0 : (unsigned)rng_spread(&r, 1, CALLERS_MAX);
    pace = rng_spread(&r, 2 * MS, 200 * MS);
    for (unsigned i = 0; i < caller_count; i++)
        caller_begin(&callers[i], i);
}

bool callers_register(unsigned client)
{
    return client < caller_count;
}

void callers_calm(void)
{
    calm = true;
    for (unsigned i = 0; i < caller_count; i++)
        callers[i].verify_step = 0;
}

void callers_crashed(void)
{
    for (unsigned i = 0; i < caller_count; i++)
        for (unsigned k = 0; k < callers[i].id_count; k++) {
            struct model *m = &callers[i].ids[k];
            for (unsigned g = 0; g < m->ghost_count; g++)
                add_state(m->may, &m->may_count, m->ghosts[g]);
            m->ghost_count = 0;
        }
}

void callers_verify(void)
{
    for (unsigned i = 0; i < caller_count; i++)
        for (unsigned k = 0; k < callers[i].id_count; k++)
            callers[i].ids[k].latent_count = 0; /* they have had their time */
}

bool callers_done(void)
{
    for (unsigned i = 0; i < caller_count; i++)
        if (!callers[i].done)
            return false;
    return true;
}

void callers_first_file(struct bytes *out)
{
    bytes_add_text(out, "{\"clients\":[\n");
    for (unsigned i = 0; i < NAMED_MAX; i++)
        bytes_add_text(out,
                       "{\"client_id\":\"named%u\",\"capacity\":%.17g,\"rate_per_sec\":%.17g,\"tokens\":%.17g}%s\n", i,
                       world.set.named_capacity[i], world.set.named_rate[i], world.set.named_capacity[i],
                       i + 1 < NAMED_MAX || world.set.registered < CLIENTS_MAX ? "," : "");
    if (world.set.registered < CLIENTS_MAX)
        bytes_add_text(out, "{\"client_id\":\"10.1.0.%u\",\"capacity\":%.17g,\"rate_per_sec\":%.17g}\n",
                       world.set.registered, world.set.registered_capacity, world.set.registered_rate);
    bytes_add_text(out, "],\"saved_at\":\"2026-01-01T00:00:00.000Z\"}\n");
}

void callers_check_files(void)
{
    struct bytes text = {0};
    if (!world.set.limiter_on)
        return;
    if (!disk_get("clients.json", &text))
        sim_fail("store", "after a graceful stop there is no clients.json");
    bool removed = !fault_since(SHOWN_DISK | SHOWN_SYNC, process.begun);
    bool tokens = disk_exists("clients.json.tokens");
    if (disk_exists("clients.json.journal") || (removed && (tokens || disk_exists("clients.json.tmp"))))
        sim_fail("store", "after a graceful stop clients.json is not alone");
    bytes_add(&text, "", 1);
    for (unsigned i = 0; i < caller_count; i++)
        for (unsigned k = 0; k < callers[i].id_count; k++) {
            struct model *m = &callers[i].ids[k];
            struct model copy = *m;
            /* An answer to it may be on its way. */
            if (callers[i].busy && callers[i].on == m && !callers[i].bad)
                unknown_outcome(&copy, callers[i].op, callers[i].to);
            check_shown(&callers[i], copy, find_line(bytes_at(&text), m->id));
        }
    bytes_free(&text);
}

void callers_describe(struct bytes *out)
{
    for (unsigned i = 0; i < caller_count; i++)
        if (!callers[i].done)
            bytes_add_text(out, " caller %u (%s, %s%s)", i,
                           !callers[i].e          ? "between connections"
                           : callers[i].connected ? "connected"
                                                  : "connecting",
                           callers[i].busy ? "waits for " : "idle", callers[i].busy ? op_names[callers[i].op] : "");
    bytes_add(out, "", 1);
}

void callers_end(void)
{
    for (unsigned i = 0; i < caller_count; i++) {
        message_free(&callers[i].in);
        bytes_free(&callers[i].out);
        bytes_free(&callers[i].body);
    }
    caller_count = 0;
}
