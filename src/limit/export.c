/* What is in memory only goes over to another process as lines of text:
 *
 *   prefix 64             how IPv6 addresses are counted there
 *   unix 104857600        the bucket of the peers on unix sockets: tokens in units of 2^-20
 *   192.0.2.1 1048576     a bucket; ones that are full are not told
 *   * 0                   last: what newcomers have at least been charged, if overflow buckets are in use
 *
 * Tokens are rounded down, and gain nothing on the way: nobody has more than before. */
#include "limiter_impl.h"

#include <assert.h>

#define UNITS (double)(1u << ANON_TOKEN_BITS)

static bool export_begin(const struct limiter *lim, struct buf *out)
{
    const struct bucket_policy *p = &lim->anon.policy;
    uint64_t now = limiter_now(lim);
    if (!buf_printf(out, "prefix %u\n", lim->anon.ipv6_prefix))
        return false;
    if (bucket_is_full(p, lim->unix_word, now))
        return true;
    double tokens = bucket_tokens(p, lim->unix_word, now) * UNITS;
    return buf_printf(out, "unix %llu\n", tokens > 0 ? (unsigned long long)tokens : 0);
}

static bool export_end(const struct limiter *lim, struct buf *out)
{
    uint64_t tokens = anon_table_overflow_tokens(&lim->anon, limiter_now(lim));
    return tokens == UINT64_MAX || buf_printf(out, "* %llu\n", (unsigned long long)tokens);
}

bool limiter_export(const struct limiter *lim, size_t *at, size_t most, struct buf *out, bool *no_memory)
{
    *no_memory = *at == 0 && !export_begin(lim, out);
    if (*no_memory)
        return false;
    if (anon_table_export(&lim->anon, limiter_now(lim), at, most, out, no_memory))
        return true;
    *no_memory = *no_memory || !export_end(lim, out);
    return false;
}

/* ---- the other side ---- */

struct import {
    struct limiter *lim;
    uint64_t now;
    bool other_networks; /* IPv6 addresses were counted otherwise: */
    uint64_t least;      /* nobody of them is to have more than the emptiest had */
};

static bool import_address(struct import *im, struct str name, uint64_t tokens)
{
    struct anon_table *t = &im->lim->anon;
    struct ip ip;
    if (!ip_parse(name, &ip))
        return false;
    if (im->other_networks && !ip_is_v4(&ip)) {
        im->least = tokens < im->least ? tokens : im->least;
        return true;
    }
    anon_table_join(t, &ip, bucket_word(&t->policy, (double)tokens / UNITS, im->now), im->now);
    return true;
}

static bool import_line(struct import *im, struct str line)
{
    size_t space = str_find(line, ' ');
    struct str name = str_make(line.p, space);
    uint64_t number;
    if (space == line.n || !str_parse_u64(str_make(line.p + space + 1, line.n - space - 1), &number))
        return false;
    if (str_eq(name, STR("prefix")))
        im->other_networks = number != im->lim->anon.ipv6_prefix;
    else if (str_eq(name, STR("unix")))
        im->lim->unix_word = bucket_word(&im->lim->anon.policy, (double)number / UNITS, im->now);
    else if (str_eq(name, STR("*")))
        im->least = number < im->least ? number : im->least;
    else
        return import_address(im, name, number);
    return true;
}

bool limiter_import(struct limiter *lim, struct str text)
{
    struct import im = {.lim = lim, .now = limiter_now(lim), .least = UINT64_MAX};
    while (text.n > 0) {
        size_t end = str_find(text, '\n');
        if (end == text.n || !import_line(&im, str_make(text.p, end)))
            return false;
        text = str_make(text.p + end + 1, text.n - end - 1);
    }
    if (im.least != UINT64_MAX)
        anon_table_limit_overflow(&lim->anon, im.least, im.now);
    return true;
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
            same->limited = c->limited;
        }
    }
}
