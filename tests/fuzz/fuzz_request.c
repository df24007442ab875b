/* Fuzz target: a request head. What is accepted and written for a backend is accepted again, and means the same;
 * how the bytes are split changes nothing. */
#include "http/rules.h"

#include <stdio.h>
#include <stdlib.h>

#define FIELDS_MAX 100
#define ROOM       65536

static const struct head_limits limits = {.head_bytes = 8192, .target_bytes = 1024, .fields = FIELDS_MAX};
static const struct head_limits wide = {.head_bytes = ROOM, .target_bytes = ROOM, .fields = 2 * FIELDS_MAX};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Aborts, saying what did not hold. */
#define CHECK(what)                                                                                                    \
    do {                                                                                                               \
        if (!(what)) {                                                                                                 \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #what);                                                 \
            abort();                                                                                                   \
        }                                                                                                              \
    } while (0)

/* Scans with the bytes coming `step` at a time. */
static enum scan_status scan(struct head_scan *s, struct str data, size_t step, enum err *e)
{
    enum scan_status status = SCAN_MORE;

    *s = (struct head_scan){0};
    *e = ERR_OK;
    for (size_t n = 0; n < data.n && status == SCAN_MORE;) {
        n = step < data.n - n ? n + step : data.n;
        status = head_scan(s, HEAD_REQUEST, str_make(data.p, n), &limits, e);
    }
    return status;
}

/* Of what concerns one connection there is only our own: no more than one field of a kind, no option but ours. */
static void check_connection(const struct request *r)
{
    const struct headers *h = &r->headers;
    unsigned connections, te, upgrades;
    const struct field *connection = headers_find(h, FIELD_CONNECTION, &connections);
    const struct field *asked = headers_find(h, FIELD_TE, &te);

    headers_find(h, FIELD_UPGRADE, &upgrades);
    CHECK(connections == (r->upgrade || r->takes_trailers) && te == r->takes_trailers && upgrades == r->upgrade);
    CHECK(te == 0 || str_eq(asked->value, STR("trailers")));
    CHECK(connections == 0 || str_eq(connection->value, !r->upgrade         ? STR("TE")
                                                        : r->takes_trailers ? STR("upgrade, TE")
                                                                            : STR("upgrade")));
    CHECK(!headers_find(h, FIELD_TRAILER, NULL) || r->framing.kind == FRAMING_CHUNKED);
}

static void check_forwarded_fields(const struct headers *h)
{
    static const enum field_id ended_here[] = {FIELD_KEEP_ALIVE, FIELD_PROXY_CONNECTION, FIELD_PROXY_AUTHENTICATE,
                                               FIELD_PROXY_AUTHORIZATION};
    unsigned count;

    for (size_t i = 0; i < sizeof ended_here / sizeof ended_here[0]; i++)
        CHECK(!headers_find(h, ended_here[i], NULL));
    CHECK(headers_find(h, FIELD_HOST, &count) && count == 1);
    CHECK(headers_find(h, FIELD_X_FORWARDED_FOR, &count) && count == 1);
    CHECK(headers_find(h, FIELD_X_REQUEST_ID, &count) && count == 1);
    CHECK(headers_find(h, FIELD_VIA, NULL));
    for (unsigned i = 0; i < h->n; i++)
        CHECK(!memchr(h->v[i].name.p, '_', h->v[i].name.n));
}

static bool target_is_kept(const struct request *before, const struct request *after)
{
    size_t n = before->target_prefix.n;

    return after->target_prefix.n == 0 && after->target.n == n + before->target.n &&
           memcmp(after->target.p, before->target_prefix.p, n) == 0 &&
           memcmp(after->target.p + n, before->target.p, before->target.n) == 0;
}

static void check_forwarding(struct str head, const struct request *r, bool trusted)
{
    static char room[ROOM];
    static struct field fields[2 * FIELDS_MAX];
    static char protocols[ROOM];
    struct forward f = {.client_ip = STR("192.0.2.1"),
                        .trusted = trusted,
                        .request_id = STR("0123456789abcdef"),
                        .client_id_name = STR("X-Client-ID"),
                        .upgrade = STR("")};
    struct head_writer offer = head_writer_on(protocols, head.n + 2 * PROTOCOLS_MAX);

    if (r->upgrade) {
        rules_write_protocols(&offer, &r->headers);
        CHECK(!offer.full && offer.n > 0);
        f.upgrade = head_writer_str(&offer);
    }
    struct head_writer w = head_writer_on(room, rules_request_bound(r, head, &f));
    struct request again = {.headers = {.v = fields, .max = 2 * FIELDS_MAX}};
    struct head_scan s = {0};
    enum err e;

    CHECK(w.cap <= ROOM);
    rules_write_request(&w, r, &f);
    CHECK(!w.full);
    CHECK(head_scan(&s, HEAD_REQUEST, head_writer_str(&w), &wide, &e) == SCAN_DONE);
    CHECK(s.at == w.n && s.skip == 0);
    CHECK(parse_request(head_writer_str(&w), &again) == ERR_OK);
    CHECK(str_eq(again.method_text, r->method_text) && again.method == r->method);
    CHECK(target_is_kept(r, &again));
    CHECK(str_eq(again.host, r->host));
    CHECK(again.minor == 1 && again.keep_alive);
    CHECK(again.framing.kind == r->framing.kind && again.framing.length == r->framing.length);
    CHECK(again.expect_continue == r->expect_continue);
    CHECK(again.takes_trailers == r->takes_trailers && again.upgrade == r->upgrade);
    check_connection(&again);
    check_forwarded_fields(&again.headers);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct field fields[FIELDS_MAX];
    struct str bytes = str_make((const char *)data, size);
    struct head_scan s, split;
    enum err e, split_e;

    enum scan_status status = scan(&s, bytes, size, &e);
    for (size_t step = 1; step < 12; step += 5) {
        CHECK(scan(&split, bytes, step, &split_e) == status && split_e == e);
        CHECK(status != SCAN_DONE || (split.at == s.at && split.skip == s.skip));
    }
    if (status != SCAN_DONE)
        return 0;

    struct str head = str_make(bytes.p + s.skip, s.at - s.skip);
    struct request r = {.headers = {.v = fields, .max = FIELDS_MAX}};
    e = parse_request(head, &r);
    CHECK(e == ERR_OK || (err_status(e) >= 400 && err_status(e) < 506));
    if (e != ERR_OK)
        return 0;
    (void)rules_check_loop(&r);
    check_forwarding(head, &r, false);
    check_forwarding(head, &r, true);
    return 0;
}
