/* Fuzz target: chunked content. How the bytes are split changes nothing; what was decoded, coded anew, decodes to the
 * same. */
#include "http/chunked.h"
#include "http/rules.h"

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
    struct buf trailers;
};

/* Decodes with the bytes coming `step` at a time. */
static void decode(struct str coded, size_t step, struct outcome *o)
{
    static char work[ROOM];
    struct chunked c = {.trailers = &o->trailers};

    buf_fini(&o->trailers);
    o->status = CHUNKED_MORE;
    o->length = o->consumed = 0;
    for (size_t at = 0; at < coded.n && o->status == CHUNKED_MORE; at += step) {
        size_t decoded, consumed, n = step < coded.n - at ? step : coded.n - at;
        memcpy(work, coded.p + at, n);
        char *content = work;
        o->status = chunked_decode(&c, &content, n, &decoded, &consumed);
        CHECK(decoded <= consumed && consumed <= n);
        CHECK(content >= work && content + decoded <= work + consumed);
        CHECK(consumed == n || o->status != CHUNKED_MORE);
        CHECK(memcmp(work + consumed, coded.p + at + consumed, n - consumed) == 0);
        memcpy(o->content + o->length, content, decoded);
        o->length += decoded;
        o->consumed += consumed;
    }
}

static void check_same_content(const struct outcome *a, const struct outcome *b)
{
    CHECK(a->status == b->status && a->length == b->length);
    CHECK(memcmp(a->content, b->content, a->length) == 0);
    CHECK(a->status != CHUNKED_END || str_eq(buf_str(&a->trailers), buf_str(&b->trailers)));
}

/* Content and the trailers that go on, coded and decoded again, are the same; and of those all go on. A section just
 * within the bound may be over it when it goes on, for there is a space behind each colon then: a decoder of the same
 * bound refuses it. */
static void check_coded_anew(struct outcome *o)
{
    static char room[2 * ROOM], kept[ROOM], kept_again[ROOM], line[CHUNK_LINE_MAX];
    static struct outcome again;
    struct head_writer w = head_writer_on(kept, 2 * o->trailers.len), w2;
    struct iovec iov[CHUNKED_PIECES];
    size_t n = 0;

    rules_write_trailers(&w, buf_str(&o->trailers), true, STR("X-Client-ID"));
    CHECK(!w.full);
    int k = chunked_pieces(iov, line, str_make(o->content, o->length), true, head_writer_str(&w));
    for (int i = 0; i < k; i++) {
        memcpy(room + n, iov[i].iov_base, iov[i].iov_len);
        n += iov[i].iov_len;
    }
    decode(str_make(room, n), sizeof room, &again);
    if (w.n + 2 > CHUNKED_TRAILER_MAX) { /* its empty line counts, too */
        CHECK(again.status == CHUNKED_CONTENT_END);
        return;
    }
    CHECK(again.status == CHUNKED_END && again.length == o->length);
    CHECK(memcmp(again.content, o->content, o->length) == 0);
    CHECK(str_eq(buf_str(&again.trailers), head_writer_str(&w)));
    w2 = head_writer_on(kept_again, 2 * again.trailers.len);
    rules_write_trailers(&w2, buf_str(&again.trailers), true, STR("X-Client-ID"));
    CHECK(str_eq(head_writer_str(&w2), head_writer_str(&w)));
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
