/* Fuzz target: chunked content. How the bytes are split changes nothing; what was decoded, coded anew, decodes to the
 * same. */
#include "http/chunked.h"

#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Aborts, saying what did not hold. */
#define CHECK(what)                                                                                                    \
    do {                                                                                                               \
        if (!(what)) {                                                                                                 \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #what);                                                 \
            abort();                                                                                                   \
        }                                                                                                              \
    } while (0)

#define ROOM 65536

struct outcome {
    enum chunked_status status;
    size_t length, consumed;
    char content[ROOM];
};

/* Decodes with the bytes coming `step` at a time. */
static void decode(struct str coded, size_t step, struct outcome *o)
{
    static char work[ROOM];
    struct chunked c = {0};

    o->status = CHUNKED_MORE;
    o->length = o->consumed = 0;
    for (size_t at = 0; at < coded.n && o->status == CHUNKED_MORE; at += step) {
        size_t decoded, consumed, n = step < coded.n - at ? step : coded.n - at;
        memcpy(work, coded.p + at, n);
        o->status = chunked_decode(&c, work, n, &decoded, &consumed);
        CHECK(decoded <= consumed && consumed <= n);
        CHECK(consumed == n || o->status != CHUNKED_MORE);
        CHECK(memcmp(work + consumed, coded.p + at + consumed, n - consumed) == 0);
        memcpy(o->content + o->length, work, decoded);
        o->length += decoded;
        o->consumed += consumed;
    }
}

static void check_same_content(const struct outcome *a, const struct outcome *b)
{
    CHECK(a->status == b->status && a->length == b->length);
    CHECK(memcmp(a->content, b->content, a->length) == 0);
}

static void check_coded_anew(const struct outcome *o)
{
    static char room[ROOM + 64];
    static struct outcome again;
    size_t n = 0;

    if (o->length > 0) {
        n = chunked_line(o->length, room);
        memcpy(room + n, o->content, o->length);
        n += o->length;
        memcpy(room + n, "\r\n", 2);
        n += 2;
    }
    memcpy(room + n, CHUNKED_LAST.p, CHUNKED_LAST.n);
    decode(str_make(room, n + CHUNKED_LAST.n), sizeof room, &again);
    check_same_content(o, &again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct outcome whole, split;
    struct str coded = str_make((const char *)data, size);

    if (size > ROOM / 2)
        return 0;
    decode(coded, size ? size : 1, &whole);
    for (size_t step = 1; step < 12; step += 5) {
        decode(coded, step, &split);
        check_same_content(&whole, &split);
        CHECK(whole.consumed == split.consumed);
    }
    if (whole.status == CHUNKED_END)
        check_coded_anew(&whole);
    return 0;
}
