/* What a request may ask for besides its answer: another protocol, and trailers; and what the other side must see of
 * it. */
#include "world.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

/* ---- another protocol ---- */

/* What a client writes, and what of it is an offer. */
static const struct offer {
    const char *fields, *seen;
} offers[] = {
    {"Connection: Upgrade\r\nUpgrade: sim/1\r\n", "sim/1"},
    {"Connection: upgrade\r\nUpgrade: sim/2, sim/1\r\n", "sim/2, sim/1"},
    {"Upgrade: sim/2\r\nConnection: upgrade\r\nUpgrade: sim\r\n", "sim/2, sim"},
    {"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: sim/1, h2c\r\nHTTP2-Settings: AAMA\r\n", "sim/1"},
    {"Connection: upgrade, http2-settings\r\nHTTP2-Settings: AAMA\r\nUpgrade: h2c,sim/1\r\n", "sim/1"},
    {"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMA\r\n", NULL},
    {"Upgrade: sim/1\r\n", NULL}, /* Connection does not speak of it */
    {"Connection: upgrade\r\nUpgrade: sim one\r\n", NULL},
};
#define OFFERS (sizeof offers / sizeof offers[0])
#define GOOD   5u /* of them are offers */

void offer_draw(struct request *r, struct rng *g)
{
    r->offer = 1 + (unsigned)(rng_chance(g, 850) ? rng_below(g, GOOD) : rng_between(g, GOOD, OFFERS - 1));
    r->upgrade = r->http10 ? NULL : offers[r->offer - 1].seen;
}

bool names_fields(const struct request *r)
{
    return r->offer > 0 && strcasestr(offers[r->offer - 1].fields, ", http2-settings");
}

/* It says that trailers will follow, whether or not they do; where they cannot, that must not go on. */
static bool says_trailer(const struct request *r)
{
    return r->id % 4 == 0;
}

void wishes_add(struct bytes *out, const struct request *r, bool close)
{
    if (close)
        bytes_add_text(out, "Connection: close\r\n");
    if (r->offer > 0)
        bytes_add_text(out, "%s", offers[r->offer - 1].fields);
    if (says_trailer(r))
        bytes_add_text(out, "Trailer: x-sum\r\n");
    if (r->says_te)
        bytes_add_text(out, "%s", r->id % 2 ? "TE: trailers\r\nConnection: TE\r\n" : "te: Trailers, deflate;q=0.5\r\n");
}

/* Do all fields `name` together list exactly these, "a, b"? */
static bool lists(const struct message *m, const char *name, const char *wanted)
{
    char all[256] = "";
    for (unsigned i = 0; i < m->field_count; i++) {
        if (strcasecmp(m->fields[i].name, name) != 0)
            continue;
        if (strlen(all) + strlen(m->fields[i].value) + 3 > sizeof all)
            return false;
        strcat(all, *all ? ", " : "");
        strcat(all, m->fields[i].value);
    }
    return strcasecmp(all, wanted) == 0;
}

const char *wishes_wrong(const struct message *m, const struct request *r)
{
    bool upgrade = r->upgrade != NULL, te = r->takes_trailers;
    if (!lists(m, "Connection", upgrade && te ? "upgrade, TE" : upgrade ? "upgrade" : te ? "TE" : ""))
        return "Connection";
    if (!lists(m, "Upgrade", upgrade ? r->upgrade : ""))
        return "Upgrade";
    if (!lists(m, "TE", te ? "trailers" : ""))
        return "TE";
    if (!lists(m, "Trailer", r->chunked && says_trailer(r) ? "x-sum" : ""))
        return "Trailer";
    if (message_field(m, "HTTP2-Settings", NULL))
        return "HTTP2-Settings";
    return NULL;
}

const char *offer_choose(const struct request *r, struct rng *g)
{
    bool first = rng_chance(g, 500);
    if (strcmp(r->upgrade, "sim/2, sim/1") == 0)
        return first ? "sim/2" : "sim/1";
    if (strcmp(r->upgrade, "sim/2, sim") == 0)
        return first ? "sim/2" : "SIM";
    return "sim/1";
}

/* ---- trailers ---- */

static const struct trailer {
    const char *name;
    bool to_backend, to_client;
} trailers[] = {
    {"X-Sum", true, true},
    {"Server-Timing", true, true},
    {"x-checked-by", true, true},
    {"X_Odd", false, true}, /* some servers would read X-Odd */
    {"Host", false, false},
    {"Content-Length", false, false},
    {"Transfer-Encoding", false, false},
    {"X-Forwarded-For", false, false},
    {"X-Forwarded-Nonsense", false, false},
    {"Authorization", false, false},
    {"Set-Cookie", false, false},
    {"X-Request-ID", false, false},
};
#define TRAILERS (sizeof trailers / sizeof trailers[0])

unsigned trailers_draw(struct rng *g)
{
    unsigned set = 0;
    for (uint64_t n = rng_spread(g, 1, 6); n > 0; n--)
        set |= 1u << (rng_chance(g, 500) ? rng_below(g, 3) : rng_below(g, TRAILERS));
    return set;
}

static void value_of(char out[32], unsigned i, uint32_t id)
{
    snprintf(out, 32, "%u of %u", i, id);
}

void trailers_add(struct bytes *out, unsigned set, uint32_t id)
{
    for (unsigned i = 0; i < TRAILERS; i++) {
        char value[32];
        value_of(value, i, id);
        if (set & 1u << i)
            bytes_add_text(out, (id + i) % 3 ? "%s: %s\r\n" : "%s:%s \r\n", trailers[i].name, value);
    }
}

const char *trailers_wrong(const struct message *m, unsigned set, uint32_t id, bool to_backend)
{
    unsigned next = 0;
    for (unsigned i = 0; i < TRAILERS; i++) {
        char value[32];
        value_of(value, i, id);
        if (!(set & 1u << i) || !(to_backend ? trailers[i].to_backend : trailers[i].to_client))
            continue;
        if (next == m->trailer_count || strcmp(m->trailers[next].name, trailers[i].name) != 0)
            return "one is missing, or out of order";
        if (strcmp(m->trailers[next++].value, value) != 0)
            return "one has another value";
    }
    return next < m->trailer_count ? m->trailers[next].name : NULL;
}
