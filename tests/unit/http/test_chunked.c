/* The chunked coding: what is taken, what is refused, splitting, and a comparison with a slow reading of the grammar.
 */
#include "http/chunked.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#define BODY_MAX 32768

struct outcome {
    enum chunked_status status;
    size_t consumed, length;
    char content[BODY_MAX];
};

/* Decodes `coded` in pieces: `first` bytes, then `step` at a time. */
static void decode_split(struct str coded, size_t first, size_t step, struct outcome *o)
{
    struct chunked c = {0};
    char work[BODY_MAX];
    size_t at = 0, n = first;

    o->consumed = o->length = 0;
    do {
        size_t decoded, consumed;
        memcpy(work, coded.p + at, n);
        char *content = work;
        o->status = chunked_decode(&c, &content, n, &decoded, &consumed);
        assert_true(decoded <= consumed && consumed <= n);
        assert_true(content >= work && content + decoded <= work + consumed);
        assert_true(consumed == n || o->status != CHUNKED_MORE);
        assert_memory_equal(work + consumed, coded.p + at + consumed, n - consumed);
        memcpy(o->content + o->length, content, decoded);
        o->length += decoded;
        o->consumed += consumed;
        at += n;
        n = step < coded.n - at ? step : coded.n - at;
    } while (o->status == CHUNKED_MORE && n > 0);
}

static void assert_same(const struct outcome *a, const struct outcome *b)
{
    assert_int_equal(a->status, b->status);
    assert_int_equal(a->consumed, b->consumed);
    assert_int_equal(a->length, b->length);
    assert_memory_equal(a->content, b->content, a->length);
}

/* Decodes `coded`, having seen that splitting it anywhere gives the same. */
static const struct outcome *decode(struct str coded)
{
    static struct outcome whole, split;

    decode_split(coded, coded.n, 1, &whole);
    for (size_t first = 0; first < coded.n && coded.n < 2000; first++) {
        decode_split(coded, first, coded.n, &split);
        assert_same(&whole, &split);
    }
    decode_split(coded, 0, 1, &split);
    assert_same(&whole, &split);
    return &whole;
}

static void assert_content(struct str coded, size_t consumed, const char *content)
{
    const struct outcome *o = decode(coded);

    assert_int_equal(o->status, CHUNKED_END);
    assert_int_equal(o->consumed, consumed);
    assert_int_equal(o->length, strlen(content));
    assert_memory_equal(o->content, content, o->length);
}

#define ASSERT_CONTENT(lit, content) assert_content(STR(lit "GET /next"), sizeof(lit) - 1, content)
#define ASSERT_STATUS(lit, s)        assert_int_equal(decode(STR(lit))->status, CHUNKED_##s)
#define ASSERT_BAD(lit)              ASSERT_STATUS(lit, BAD)

static void content_is_what_stands_in_the_chunks(void **state)
{
    (void)state;
    ASSERT_CONTENT("0\r\n\r\n", "");
    ASSERT_CONTENT("000\r\n\r\n", "");
    ASSERT_CONTENT("5\r\nhello\r\n0\r\n\r\n", "hello");
    ASSERT_CONTENT("5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n", "hello world");
    ASSERT_CONTENT("A\r\n0123456789\r\n1\r\n!\r\n0\r\n\r\n", "0123456789!");
    ASSERT_CONTENT("00000000000000a\r\n\r\n0\r\n\r\n\r\n0\r\n0\r\n\r\n", "\r\n0\r\n\r\n\r\n0");
    ASSERT_CONTENT("0000000000000001\r\nx\r\n0\r\n\r\n", "x");
    ASSERT_CONTENT("1;a\r\nx\r\n0\r\n\r\n", "x");
    ASSERT_STATUS("5\r\nhel", MORE);
    ASSERT_STATUS("5\r\nhello\r\n0\r\n", MORE);
    ASSERT_STATUS("5\r\nhello\r\n0\r\n\r", MORE);
    ASSERT_STATUS("", MORE);
}

static void sizes_have_one_form(void **state)
{
    (void)state;
    ASSERT_BAD("\r\n");
    ASSERT_BAD(" 5\r\nhello\r\n0\r\n\r\n");
    ASSERT_BAD("5 \r\nhello\r\n0\r\n\r\n");
    ASSERT_BAD("+5\r\nhello\r\n0\r\n\r\n");
    ASSERT_BAD("-5\r\nhello\r\n0\r\n\r\n");
    ASSERT_BAD("0x5\r\nhello\r\n0\r\n\r\n");
    ASSERT_BAD("g\r\n");
    ASSERT_BAD("5g\r\n");
    ASSERT_BAD("5_0\r\n");
    ASSERT_BAD(";a\r\nx");
    ASSERT_BAD("00000000000000001\r\nx\r\n0\r\n\r\n");
    ASSERT_BAD("8000000000000000\r\n");
    ASSERT_BAD("ffffffffffffffff\r\n");
    ASSERT_BAD("10000000000000000\r\n");
    ASSERT_STATUS("7fffffffffffffff\r\nabc", MORE);
}

static void lines_end_in_crlf(void **state)
{
    (void)state;
    ASSERT_BAD("5\nhello\r\n0\r\n\r\n");
    ASSERT_BAD("5\rhello\r\n0\r\n\r\n");
    ASSERT_BAD("5\r\nhello\n0\r\n\r\n");
    ASSERT_BAD("5\r\nhello0\r\n\r\n");
    ASSERT_BAD("5\r\nhelloX\r\n0\r\n\r\n");
    ASSERT_BAD("5\r\nhello\rX0\r\n\r\n");
    ASSERT_BAD("5\r\nhello\r\n0\n\n");
    ASSERT_BAD("0\r\n\n");
    ASSERT_BAD("0\r\n\rX");
    ASSERT_BAD("5\r\nhello\r\n\r\n0\r\n\r\n");
    ASSERT_BAD("5\r\r\nhello\r\n0\r\n\r\n");
}

static void extensions_are_dropped_when_well_formed(void **state)
{
    (void)state;
    ASSERT_CONTENT("5;a=b;c=\"d;\\\"e\\\\ \xff\";f\r\nhello\r\n0;last\r\n\r\n", "hello");
    ASSERT_CONTENT("5 \t; a = b ;c\r\nhello\r\n0\r\n\r\n", "hello");
    ASSERT_CONTENT("5;a=\"\";b=\"=:,()\"\r\nhello\r\n0\r\n\r\n", "hello");
    ASSERT_BAD("5;\r\nhello\r\n0\r\n\r\n");
    ASSERT_BAD("5;a=\r\nhello\r\n0\r\n\r\n");
    ASSERT_BAD("5;a b\r\nhello\r\n0\r\n\r\n");
    ASSERT_BAD("5;a=b c\r\nhello\r\n0\r\n\r\n");
    ASSERT_BAD("5;a=\"b\r\nhello\r\n0\r\n\r\n");
    ASSERT_BAD("5;a=\"b\"c\r\nhello\r\n0\r\n\r\n");
    ASSERT_BAD("5;a=\"\\\r\"\r\nhello\r\n0\r\n\r\n");
    ASSERT_BAD("5;a\nhello\r\n0\r\n\r\n");
    ASSERT_BAD("5;a=\"\n\"\r\nhello\r\n0\r\n\r\n");
    ASSERT_BAD("5;a\rb\r\nhello\r\n0\r\n\r\n");
    ASSERT_BAD("5;a\0b\r\nhello\r\n0\r\n\r\n");
    ASSERT_BAD("5;a\x7f\r\nhello\r\n0\r\n\r\n");
    ASSERT_BAD("5;a \r\nhello\r\n0\r\n\r\n");
}

static void trailers_are_dropped_when_well_formed(void **state)
{
    (void)state;
    ASSERT_CONTENT("0\r\nA: b\r\nX-Sum:\r\nC: \t\xe9\"\\;=:\r\n\r\n", "");
    ASSERT_BAD("0\r\nA\r\n\r\n");
    ASSERT_BAD("0\r\nA : b\r\n\r\n");
    ASSERT_BAD("0\r\n A: b\r\n\r\n");
    ASSERT_BAD("0\r\nA: b\r\n c\r\n\r\n");
    ASSERT_BAD("0\r\nA: b\n\r\n");
    ASSERT_BAD("0\r\nA: b\rC: d\r\n\r\n");
    ASSERT_BAD("0\r\nA: \0\r\n\r\n");
    ASSERT_BAD("0\r\n: b\r\n\r\n");
    ASSERT_BAD("0\r\nGET / HTTP/1.1\r\n\r\n");
}

/* `before`, `n` times `c`, `after`. */
static struct str stretched(char *room, const char *before, size_t n, char c, const char *after)
{
    size_t at = strlen(before);

    memcpy(room, before, at);
    memset(room + at, c, n);
    memcpy(room + at + n, after, strlen(after));
    return str_make(room, at + n + strlen(after));
}

static void extensions_and_trailers_are_bounded(void **state)
{
    (void)state;
    char room[BODY_MAX];

    /* The semicolon counts, too. */
    struct str coded = stretched(room, "0;", CHUNKED_EXTENSIONS_MAX - 1, 'a', "\r\n\r\n");
    assert_int_equal(decode(coded)->status, CHUNKED_END);
    coded = stretched(room, "0;", CHUNKED_EXTENSIONS_MAX, 'a', "\r\n\r\n");
    assert_int_equal(decode(coded)->status, CHUNKED_BAD);
    /* White space counts as well. */
    coded = stretched(room, "0", CHUNKED_EXTENSIONS_MAX, ' ', ";a\r\n\r\n");
    assert_int_equal(decode(coded)->status, CHUNKED_BAD);

    coded = stretched(room, "0\r\nA:", CHUNKED_TRAILER_MAX - 6, 'b', "\r\n\r\n");
    assert_int_equal(decode(coded)->status, CHUNKED_END);
    coded = stretched(room, "1\r\nx\r\n0\r\nA:", CHUNKED_TRAILER_MAX - 5, 'b', "\r\n\r\n");
    assert_int_equal(decode(coded)->status, CHUNKED_CONTENT_END);
    assert_int_equal(decode(coded)->length, 1);
}

/* `times` chunks of one byte, each with `n` bytes of extensions, one behind the other. */
static enum chunked_status decode_stream(unsigned times, size_t n)
{
    struct chunked c = {0};
    enum chunked_status status = CHUNKED_MORE;

    for (unsigned i = 0; i < times && status == CHUNKED_MORE; i++) {
        char room[100];
        struct str chunk = stretched(room, "1;", n - 1, 'a', "\r\nx\r\n");
        char *content = room;
        size_t decoded, consumed;

        status = chunked_decode(&c, &content, chunk.n, &decoded, &consumed);
        assert_true(status != CHUNKED_MORE || decoded == 1);
    }
    return status;
}

/* A stream may have some with each chunk, without end; what is beyond that adds up. */
static void extensions_are_bounded_by_what_they_stand_beside(void **state)
{
    (void)state;
    size_t allowed = CHUNKED_EXTENSIONS_CHUNK + 2;

    assert_int_equal(decode_stream(100000, allowed), CHUNKED_MORE);
    /* The last line counts whole, before its chunk allows it anything. */
    unsigned last = (unsigned)(CHUNKED_EXTENSIONS_MAX - allowed);
    assert_int_equal(decode_stream(last, allowed + 1), CHUNKED_MORE);
    assert_int_equal(decode_stream(last + 1, allowed + 1), CHUNKED_BAD);

    /* Nobody saves up: the first chunk allows more than it needs. */
    char room[BODY_MAX];
    struct str coded = stretched(room, "10\r\n0123456789abcdef\r\n0;", CHUNKED_EXTENSIONS_MAX, 'a', "\r\n\r\n");
    assert_int_equal(decode(coded)->status, CHUNKED_BAD);
}

static void the_end_and_a_fault_stay(void **state)
{
    (void)state;
    struct chunked c = {0};
    char text[] = "0\r\n\r\n5\r\n", *end = text, bad_text[] = "x", *bad = bad_text, more_text[] = "0\r\n\r\n";
    char *more = more_text;
    size_t decoded, consumed;

    assert_int_equal(chunked_decode(&c, &end, sizeof text - 1, &decoded, &consumed), CHUNKED_END);
    assert_int_equal(consumed, 5);
    assert_int_equal(chunked_decode(&c, &more, 5, &decoded, &consumed), CHUNKED_END);
    assert_int_equal(consumed, 0);
    c = (struct chunked){0};
    assert_int_equal(chunked_decode(&c, &bad, 1, &decoded, &consumed), CHUNKED_BAD);
    assert_int_equal(chunked_decode(&c, &more, 5, &decoded, &consumed), CHUNKED_BAD);
    assert_int_equal(consumed, 0);
}

static void content_before_a_fault_is_told(void **state)
{
    (void)state;
    const struct outcome *o = decode(STR("5\r\nhello\r\n3\r\nabcX"));

    assert_int_equal(o->status, CHUNKED_BAD);
    assert_int_equal(o->length, 8);
    assert_memory_equal(o->content, "helloabc", 8);
}

/* The first run stays where it lies; what follows it joins it. */
static void no_more_is_moved_than_must(void **state)
{
    (void)state;
    struct chunked c = {0};
    char text[] = "5;x\r\nhello\r\n3\r\nabc\r\n", *content = text;
    size_t decoded, consumed;

    assert_int_equal(chunked_decode(&c, &content, sizeof text - 1, &decoded, &consumed), CHUNKED_MORE);
    assert_ptr_equal(content, text + 5);
    assert_int_equal(decoded, 8);
    assert_memory_equal(content, "helloabc", 8);
}

static void lines_that_start_chunks_read_back(void **state)
{
    (void)state;
    static const struct {
        uint64_t size;
        const char *line;
    } cases[] = {{1, "1\r\n"},
                 {9, "9\r\n"},
                 {10, "a\r\n"},
                 {15, "f\r\n"},
                 {16, "10\r\n"},
                 {0x1a2b, "1a2b\r\n"},
                 {65536, "10000\r\n"},
                 {UINT32_MAX, "ffffffff\r\n"},
                 {INT64_MAX, "7fffffffffffffff\r\n"},
                 {UINT64_MAX, "ffffffffffffffff\r\n"}};

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char line[CHUNK_LINE_MAX];
        size_t n = chunked_line(cases[i].size, line);
        assert_int_equal(n, strlen(cases[i].line));
        assert_memory_equal(line, cases[i].line, n);
    }
    assert_content(CHUNKED_LAST, CHUNKED_LAST.n, "");
}

/* A slow reading of the grammar, without extensions and trailers, on a whole body. */
static enum chunked_status reference(struct str s, char *content, size_t *length)
{
    *length = 0;
    for (;;) {
        size_t line = 0;
        while (line + 1 < s.n && !(s.p[line] == '\r' && s.p[line + 1] == '\n'))
            line++;
        uint64_t size;
        if (line + 1 >= s.n || !str_parse_hex(str_make(s.p, line), &size) || size > INT64_MAX)
            return CHUNKED_BAD;
        s = str_make(s.p + line + 2, s.n - line - 2);
        if (size > s.n || s.n - size < 2 || memcmp(s.p + size, "\r\n", 2) != 0)
            return CHUNKED_BAD;
        memcpy(content + *length, s.p, (size_t)size);
        *length += (size_t)size;
        s = str_make(s.p + size + 2, s.n - (size_t)size - 2);
        if (size == 0)
            return CHUNKED_END;
    }
}

static unsigned random_below(uint64_t *seed, unsigned n)
{
    *seed = *seed * 6364136223846793005u + 1442695040888963407u;
    return (unsigned)(*seed >> 33) % n;
}

/* A body of random chunks; one in three has a byte changed. */
static struct str random_body(uint64_t *seed, char *room)
{
    size_t n = 0;

    for (unsigned chunks = random_below(seed, 5); chunks > 0; chunks--) {
        unsigned size = 1 + random_below(seed, 20);
        n += chunked_line(size, room + n);
        while (size-- > 0)
            room[n++] = "ab\r\n0;"[random_below(seed, 6)];
        memcpy(room + n, "\r\n", 2);
        n += 2;
    }
    memcpy(room + n, "0\r\n\r\n", 5);
    n += 5;
    if (random_below(seed, 3) == 0)
        room[random_below(seed, (unsigned)n)] = "01aF\r\n-x"[random_below(seed, 8)];
    return str_make(room, n);
}

static void random_bodies_decode_as_the_reference_says(void **state)
{
    (void)state;
    uint64_t seed = 7;
    char room[512], content[512];
    unsigned ended = 0;

    for (unsigned round = 0; round < 20000; round++) {
        struct str coded = random_body(&seed, room);
        size_t length;
        enum chunked_status expected = reference(coded, content, &length);
        static struct outcome o;
        decode_split(coded, random_below(&seed, (unsigned)coded.n), 1 + random_below(&seed, 9), &o);
        if (expected == CHUNKED_END) {
            ended++;
            assert_int_equal(o.status, CHUNKED_END);
            assert_int_equal(o.length, length);
            assert_memory_equal(o.content, content, length);
        } else {
            assert_int_not_equal(o.status, CHUNKED_END);
        }
    }
    assert_true(ended > 10000 && ended < 20000);
}

/* Trailers go where the caller says, in any cut; nothing is allocated when there are none. */
static void trailers_are_kept(void **state)
{
    (void)state;
    static const char coded[] = "3\r\nabc\r\n0\r\nA: b\r\nC:d \r\n\r\nGET /next", none[] = "1\r\nx\r\n0\r\n\r\n";
    for (size_t step = 1; step < sizeof coded; step++) {
        struct buf trailers = BUF_INIT;
        struct chunked c = {.trailers = &trailers};
        char work[sizeof coded];
        enum chunked_status status = CHUNKED_MORE;
        for (size_t at = 0; status == CHUNKED_MORE; at += step) {
            size_t decoded, consumed, n = step < sizeof coded - 1 - at ? step : sizeof coded - 1 - at;
            memcpy(work, coded + at, n);
            char *content = work;
            status = chunked_decode(&c, &content, n, &decoded, &consumed);
        }
        assert_int_equal(status, CHUNKED_END);
        assert_true(str_eq(buf_str(&trailers), STR("A: b\r\nC:d \r\n")));
        buf_fini(&trailers);
    }
    struct buf trailers = BUF_INIT;
    for (size_t step = 1; step < sizeof none; step++) {
        struct chunked c = {.trailers = &trailers};
        for (size_t at = 0; at < sizeof none - 1; at += step) {
            char work[sizeof none];
            size_t decoded, consumed, n = step < sizeof none - 1 - at ? step : sizeof none - 1 - at;
            memcpy(work, none + at, n);
            char *content = work;
            assert_int_not_equal(chunked_decode(&c, &content, n, &decoded, &consumed), CHUNKED_BAD);
        }
        assert_null(trailers.block);
    }
}

static void assert_pieces(struct str content, bool end, struct str trailers, const char *wanted)
{
    struct iovec iov[CHUNKED_PIECES];
    char line[CHUNK_LINE_MAX], got[100];
    size_t n = 0;
    int k = chunked_pieces(iov, line, content, end, trailers);

    for (int i = 0; i < k; i++) {
        memcpy(got + n, iov[i].iov_base, iov[i].iov_len);
        n += iov[i].iov_len;
    }
    assert_int_equal(n, strlen(wanted));
    assert_memory_equal(got, wanted, n);
}

static void content_is_coded_in_pieces(void **state)
{
    (void)state;
    assert_pieces(STR("hello"), false, STR(""), "5\r\nhello\r\n");
    assert_pieces(STR("hello"), true, STR(""), "5\r\nhello\r\n0\r\n\r\n");
    assert_pieces(STR("hello"), true, STR("A: b\r\n"), "5\r\nhello\r\n0\r\nA: b\r\n\r\n");
    assert_pieces(STR(""), true, STR(""), "0\r\n\r\n");
    assert_pieces(STR(""), true, STR("A: b\r\n"), "0\r\nA: b\r\n\r\n");
    assert_pieces(STR(""), false, STR(""), "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(content_is_what_stands_in_the_chunks),
        cmocka_unit_test(sizes_have_one_form),
        cmocka_unit_test(lines_end_in_crlf),
        cmocka_unit_test(extensions_are_dropped_when_well_formed),
        cmocka_unit_test(trailers_are_dropped_when_well_formed),
        cmocka_unit_test(extensions_and_trailers_are_bounded),
        cmocka_unit_test(extensions_are_bounded_by_what_they_stand_beside),
        cmocka_unit_test(the_end_and_a_fault_stay),
        cmocka_unit_test(content_before_a_fault_is_told),
        cmocka_unit_test(no_more_is_moved_than_must),
        cmocka_unit_test(trailers_are_kept),
        cmocka_unit_test(content_is_coded_in_pieces),
        cmocka_unit_test(lines_that_start_chunks_read_back),
        cmocka_unit_test(random_bodies_decode_as_the_reference_says),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
