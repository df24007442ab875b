/* Fuzz target: a response head. What is accepted and written for a client is accepted again, with the framing that was
 * asked for; how the bytes are split changes nothing. */
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
        status = head_scan(s, HEAD_RESPONSE, str_make(data.p, n), &limits, e);
    }
    return status;
}

/* How a body that came as `from` goes to a client of HTTP/1.`minor`. */
static struct framing framing_for(struct framing from, unsigned minor)
{
    if (from.kind == FRAMING_CHUNKED || from.kind == FRAMING_CLOSE)
        return (struct framing){minor > 0 ? FRAMING_CHUNKED : FRAMING_CLOSE, 0};
    return from;
}

static struct response read_again(struct str head, bool to_head)
{
    static struct field fields[2 * FIELDS_MAX];
    struct response r = {.headers = {.v = fields, .max = 2 * FIELDS_MAX}};
    struct head_scan s = {0};
    enum err e;

    CHECK(head_scan(&s, HEAD_RESPONSE, head, &wide, &e) == SCAN_DONE && s.at == head.n);
    CHECK(parse_response(head, to_head, true, &r) == ERR_OK);
    return r;
}

static void check_reply(struct str head, const struct response *r, bool to_head, unsigned minor)
{
    static char room[ROOM];
    struct framing framing = framing_for(r->framing, minor);
    struct reply how = {.to_head = to_head,
                        .minor = minor,
                        .keep_alive = framing.kind != FRAMING_CLOSE,
                        .framing = framing,
                        .extra = STR("RateLimit: \"client\";r=9;t=1\r\n")};
    struct head_writer w = head_writer_on(room, rules_response_bound(r, head, &how));

    CHECK(w.cap <= ROOM);
    rules_write_response(&w, r, &how);
    CHECK(!w.full);
    struct response again = read_again(head_writer_str(&w), to_head);
    CHECK(again.status == r->status);
    CHECK(r->reason.n == 0 || str_eq(again.reason, r->reason));
    CHECK(again.framing.kind == framing.kind && again.framing.length == framing.length);
    CHECK(again.keep_alive == how.keep_alive);
    CHECK(!headers_find(&again.headers, FIELD_UPGRADE, NULL) && !headers_find(&again.headers, FIELD_KEEP_ALIVE, NULL));
}

static void check_interim(struct str head, const struct response *r)
{
    static char room[ROOM];
    struct reply how = {.extra = STR("")};
    struct head_writer w = head_writer_on(room, rules_response_bound(r, head, &how));

    if (r->status == 101)
        rules_write_switch(&w, r, how.extra);
    else
        rules_write_interim(&w, r);
    CHECK(!w.full);
    struct response again = read_again(head_writer_str(&w), false);
    CHECK(again.status == r->status && again.framing.kind == FRAMING_NONE);
}

static void check_head(struct str head, bool to_head, bool to_upgrade)
{
    static struct field fields[FIELDS_MAX];
    struct response r = {.headers = {.v = fields, .max = FIELDS_MAX}};
    enum err e = parse_response(head, to_head, to_upgrade, &r);

    CHECK(e == ERR_OK || e == ERR_BAD_RESPONSE);
    if (e != ERR_OK)
        return;
    if (r.status < 200) {
        check_interim(head, &r);
        return;
    }
    check_reply(head, &r, to_head, 0);
    check_reply(head, &r, to_head, 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct str bytes = str_make((const char *)data, size);
    struct head_scan s, split;
    enum err e, split_e;

    enum scan_status status = scan(&s, bytes, size, &e);
    for (size_t step = 1; step < 12; step += 5) {
        CHECK(scan(&split, bytes, step, &split_e) == status && split_e == e);
        CHECK(status != SCAN_DONE || split.at == s.at);
    }
    CHECK(e == ERR_OK || e == ERR_BAD_RESPONSE || e == ERR_RESPONSE_HEAD_TOO_LARGE);
    if (status != SCAN_DONE)
        return 0;
    for (unsigned how = 0; how < 4; how++)
        check_head(str_make(bytes.p, s.at), how & 1, how & 2);
    return 0;
}
