/* What is in memory only goes over to another process as lines of text. To one that takes words:
 *
 *   time 31 5000 17645     zero of the buckets' time; a moment in it, and on the wall clock: what saved_at is held to
 *   policy 46 46           the words' capacity and rate: doubles, bit by bit
 *   hash 12 34 65536 56    whose overflow bucket is which, see anon_table.h
 *   prefix 64              how IPv6 addresses are counted there
 *   unix 77                the bucket of the peers on unix sockets
 *   192.0.2.1 78           a bucket; ones that are full are not told
 *   * 4711 79              an overflow bucket
 *
 * Words mean there what they mean here, so that nobody gains or loses by it, however long it takes. To a process of a
 * version that knows no words, and from one:
 *
 *   prefix 64
 *   unix 104857600         tokens in units of 2^-20, rounded down; they gain nothing on the way
 *   192.0.2.1 1048576
 *   * 0                    last: what newcomers have at least been charged, if overflow buckets are in use
 *
 * Nobody has more than before in either. */
#include "limiter_impl.h"
#include "store_impl.h"

#include <assert.h>
#include <string.h>

#define UNITS (double)(1u << ANON_TOKEN_BITS)

typedef unsigned long long ull;

static ull bits_of(double v)
{
    uint64_t bits;
    memcpy(&bits, &v, sizeof bits);
    return bits;
}

/* What words mean. */
static bool export_terms(const struct limiter *lim, struct buf *out)
{
    struct limiter_time t = limiter_time(lim);
    struct anon_places places = anon_table_places(&lim->anon);
    const struct bucket_policy *p = &lim->anon.policy;
    return buf_printf(out, "time %llu %llu %llu\n", (ull)t.zero, (ull)t.dated.now, (ull)t.dated.wall_ns) &&
           buf_printf(out, "policy %llu %llu\n", bits_of(p->capacity), bits_of(p->rate)) &&
           buf_printf(out, "hash %llu %llu %llu %llu\n", (ull)places.key.k0, (ull)places.key.k1, (ull)places.count,
                      (ull)places.sample);
}

static bool export_begin(const struct limiter *lim, bool words, bool *told, struct buf *out)
{
    const struct bucket_policy *p = &lim->anon.policy;
    uint64_t now = limiter_now(lim);
    if ((words && !export_terms(lim, out)) || !buf_printf(out, "prefix %u\n", lim->anon.ipv6_prefix))
        return false;
    if (bucket_is_full(p, lim->unix_word, now))
        return true;
    *told = true;
    double tokens = bucket_tokens(p, lim->unix_word, now) * UNITS;
    return buf_printf(out, "unix %llu\n", words ? (ull)lim->unix_word : tokens > 0 ? (ull)tokens : 0);
}

bool limiter_export(const struct limiter *lim, struct limiter_export *e, size_t most, struct buf *out)
{
    if (!e->begun && !export_begin(lim, e->buckets.words, &e->told, out))
        return false;
    e->begun = true;
    size_t before = out->len;
    bool ok = anon_table_export(&lim->anon, limiter_now(lim), &e->buckets, most, out);
    e->told |= out->len > before;
    return ok;
}

/* ---- the other side ---- */

struct import {
    struct limiter *lim;
    uint64_t now;
    uint64_t wall;               /* read before that, or what passes between would count twice */
    bool kept;                   /* it comes from a file, */
    uint64_t boot;               /* written in that boot of the machine, */
    struct instant stopped;      /* at that moment; */
    uint64_t then;               /* on its time line it is now */
    bool ended;                  /* it is whole */
    bool damaged;                /* there are words in it that no bucket can have had */
    bool words;                  /* numbers are words under `policy`, not tokens */
    struct bucket_policy policy; /* of there */
    bool same_places;            /* overflow buckets are those of there, one by one */
    bool other_networks;         /* IPv6 addresses were counted otherwise, */
    bool wide;                   /* by networks that have, or had, members in many overflow buckets */
    uint64_t highest;            /* word that each overflow bucket is to have at least */
};

struct line {
    struct str name;
    uint64_t v[4];
    unsigned n;
};

static bool split(struct str text, struct line *out)
{
    size_t end = str_find(text, ' ');
    out->name = str_make(text.p, end);
    for (out->n = 0; end < text.n && out->n < 4; out->n++) {
        text = str_make(text.p + end + 1, text.n - end - 1);
        end = str_find(text, ' ');
        if (!str_parse_u64(str_make(text.p, end), &out->v[out->n]))
            return false;
    }
    return out->n > 0 && end == text.n;
}

static bool read_time(const struct line *l, struct limiter_time *out)
{
    *out = (struct limiter_time){l->v[0], {l->v[1], l->v[2]}};
    uint64_t boottime = clock_boottime();
    return l->n == 3 && out->zero <= boottime && out->dated.now <= boottime - out->zero;
}

bool limiter_exported_time(struct str text, struct limiter_time *out)
{
    struct line l;
    return split(str_make(text.p, str_find(text, '\n')), &l) && str_eq(l.name, STR("time")) && read_time(&l, out);
}

static bool import_stopped(struct import *im, const struct line *l)
{
    im->boot = l->v[0];
    im->stopped = (struct instant){l->v[1], l->v[2]};
    return im->kept && l->n == 3;
}

/* What has passed since the stop is known to the nanosecond in the same boot, else to the wall clock. */
static uint64_t now_there(const struct import *im, uint64_t zero)
{
    uint64_t boottime = im->now + im->lim->zero, wall = im->wall, gone = im->stopped.wall_ns;
    bool same = im->boot != 0 && im->boot == im->lim->store->clock.boot;
    if (same && zero <= boottime && im->stopped.now <= boottime - zero)
        return boottime - zero;
    return im->stopped.now + (wall > gone ? wall - gone : 0);
}

static bool import_time(struct import *im, const struct line *l)
{
    struct limiter_time t;
    im->words = true;
    if (!im->kept)
        return read_time(l, &t) && t.zero == im->lim->zero;
    im->then = now_there(im, l->v[0]);
    return l->n == 3 && im->stopped.wall_ns > 0;
}

static bool import_end(struct import *im, const struct line *l)
{
    im->ended = true;
    return im->kept && l->n == 1;
}

static bool import_policy(struct import *im, const struct line *l)
{
    double v[2];
    memcpy(v, l->v, sizeof v);
    if (l->n != 2 || !bucket_capacity_is_valid(v[0]) || !bucket_rate_is_valid(v[1]))
        return false;
    bucket_policy_init(&im->policy, v[0], v[1]);
    return true;
}

static bool import_places(struct import *im, const struct line *l)
{
    struct anon_places places = {{l->v[0], l->v[1]}, l->v[2], l->v[3]};
    if (l->n != 4 || im->lim->anon.count > 0)
        return false;
    im->same_places = anon_table_adopt_places(&im->lim->anon, &places);
    return true;
}

static bool import_prefix(struct import *im, const struct line *l)
{
    unsigned own = im->lim->anon.ipv6_prefix;
    if (l->n != 1 || l->v[0] < 1 || l->v[0] > 128)
        return false;
    im->other_networks = l->v[0] != own;
    im->wide = im->other_networks && (anon_prefix_is_wide(own) || anon_prefix_is_wide((unsigned)l->v[0]));
    return true;
}

/* A file may be damaged. A word that keeps its client out for years counts as that of an empty bucket; if it counted
 * for nothing, the bucket would be full. */
static uint64_t kept_word(struct import *im, uint64_t word)
{
    uint64_t credible = bucket_credible(&im->policy, word, im->then);
    im->damaged |= credible != word;
    return bucket_carried(&im->policy, credible, im->then, im->now);
}

/* The word of our own that a number stands for. */
static bool import_word(struct import *im, uint64_t number, uint64_t *word)
{
    const struct bucket_policy *own = &im->lim->anon.policy, *there = &im->policy;
    if (number > INT64_MAX || (im->words && !there->mult) || (im->kept && !im->words))
        return false;
    if (im->kept)
        number = kept_word(im, number);
    if (!im->words)
        *word = bucket_word(own, (double)number / UNITS, im->now);
    else if (there->capacity == own->capacity && there->rate == own->rate)
        *word = number;
    else
        *word = bucket_converted(there, own, number, im->now);
    return true;
}

static bool import_unix(struct import *im, const struct line *l)
{
    return l->n == 1 && import_word(im, l->v[0], &im->lim->unix_word);
}

static void raise_all(struct import *im, uint64_t word)
{
    im->highest = word > im->highest ? word : im->highest;
}

static bool import_overflow(struct import *im, const struct line *l)
{
    uint64_t word, place = im->words ? l->v[0] : 0;
    if (l->n != (im->words ? 2 : 1) || !import_word(im, l->v[l->n - 1], &word))
        return false;
    if (!im->same_places || im->wide || place >= ANON_OVERFLOWS)
        raise_all(im, word);
    else
        anon_table_raise_place(&im->lim->anon, place, word);
    return true;
}

/* Networks of another size are other clients, which may have been charged in any of those that they overlap: they begin
 * with no more than the emptiest, as at a reload (anon_change.c). */
static bool import_address(struct import *im, const struct line *l)
{
    struct anon_table *t = &im->lim->anon;
    struct ip ip;
    uint64_t word;
    if (l->n != 1 || !ip_parse(l->name, &ip) || !import_word(im, l->v[0], &word))
        return false;
    if (!im->other_networks || ip_is_v4(&ip))
        anon_table_restore(t, &ip, word, im->now);
    else if (im->wide)
        raise_all(im, word);
    else
        anon_table_raise_network(t, &ip, word);
    return true;
}

static bool import_line(struct import *im, struct str text)
{
    static const struct {
        struct str name;
        bool (*import)(struct import *im, const struct line *l);
    } kinds[] = {
        {STR_INIT("stopped"), import_stopped}, {STR_INIT("time"), import_time},     {STR_INIT("policy"), import_policy},
        {STR_INIT("hash"), import_places},     {STR_INIT("prefix"), import_prefix}, {STR_INIT("unix"), import_unix},
        {STR_INIT("*"), import_overflow},      {STR_INIT("end"), import_end},
    };
    struct line l;
    if (im->ended || !split(text, &l))
        return false;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (str_eq(l.name, kinds[i].name))
            return kinds[i].import(im, &l);
    return import_address(im, &l);
}

static bool import_lines(struct import *im, struct str text)
{
    bool ok = true;
    while (ok && text.n > 0) {
        size_t end = str_find(text, '\n');
        ok = end < text.n && import_line(im, str_make(text.p, end));
        if (ok)
            text = str_make(text.p + end + 1, text.n - end - 1);
    }
    anon_table_raise_all(&im->lim->anon, im->highest); /* what was read of it counts in any case */
    return ok;
}

bool limiter_import(struct limiter *lim, struct str text)
{
    struct import im = {.lim = lim, .now = limiter_now(lim)};
    return import_lines(&im, text);
}

const char *limiter_import_kept(struct limiter *lim, struct str text)
{
    struct import im = {.lim = lim, .wall = clock_wall(), .kept = true};
    im.now = limiter_now(lim);
    if (!import_lines(&im, text) || !im.ended)
        return "damaged";
    return im.damaged ? "some of the words in it are damaged" : NULL;
}

/* ---- in one process ---- */

void limiter_inherit(struct limiter *lim, struct limiter *from)
{
    assert(lim->zero == from->zero);
    struct anon_table own = lim->anon;
    lim->anon = from->anon;
    from->anon = own;
    lim->unix_word = from->unix_word;
    for (const struct client *c = client_table_after(&from->clients, 0); c; c = client_table_next(c)) {
        struct client *same = client_table_find(&lim->clients, client_id(c));
        if (same) {
            same->allowed = c->allowed;
            same->policy.rest = c->policy.rest;
        }
    }
}
