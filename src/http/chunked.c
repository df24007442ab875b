/* The chunked coding: what stands between the data goes through a table, one byte a step; data is moved in runs.
 * The table is the grammar of RFC 9112 section 7.1, and what is not in it is malformed. */
#include "http/chunked.h"

#include "http/chars.h"

#include <assert.h>

enum state {
    START, /* of a body; nothing leads back here */
    SIZE,  /* no digit yet */
    SIZE_MORE,
    SPACE, /* white space that an extension has to follow */
    EXT,   /* behind the semicolon */
    EXT_NAME,
    EXT_NAME_SPACE,
    EXT_EQUALS, /* behind the equals sign */
    EXT_TOKEN,
    EXT_QUOTED,
    EXT_ESCAPED,
    EXT_QUOTED_END,
    SIZE_LF,
    DATA,
    DATA_CR,
    DATA_LF,
    TRAILER, /* the first byte of a trailer line or of the empty line */
    TRAILER_NAME,
    TRAILER_VALUE,
    TRAILER_LF,
    LAST_LF,
    END,
    BAD,
    TRAILERS_TOO_LARGE
};

/* Kinds of bytes, as far as the grammar tells them apart. */
enum kind { CONTROL, BLANK, CR, LF, HEX, TOKEN, SEMICOLON, EQUALS, QUOTE, BACKSLASH, COLON, REST, KINDS };

/* clang-format off */
/* The state behind each kind of byte; what is left out is malformed. */
static const unsigned char next_state[END][KINDS] = {
    [START]          = {[HEX] = SIZE_MORE},
    [SIZE]           = {[HEX] = SIZE_MORE},
    [SIZE_MORE]      = {[HEX] = SIZE_MORE, [BLANK] = SPACE, [SEMICOLON] = EXT, [CR] = SIZE_LF},
    [SPACE]          = {[BLANK] = SPACE, [SEMICOLON] = EXT},
    [EXT]            = {[BLANK] = EXT, [HEX] = EXT_NAME, [TOKEN] = EXT_NAME},
    [EXT_NAME]       = {[HEX] = EXT_NAME, [TOKEN] = EXT_NAME, [BLANK] = EXT_NAME_SPACE, [EQUALS] = EXT_EQUALS,
                        [SEMICOLON] = EXT, [CR] = SIZE_LF},
    [EXT_NAME_SPACE] = {[BLANK] = EXT_NAME_SPACE, [EQUALS] = EXT_EQUALS, [SEMICOLON] = EXT},
    [EXT_EQUALS]     = {[BLANK] = EXT_EQUALS, [HEX] = EXT_TOKEN, [TOKEN] = EXT_TOKEN, [QUOTE] = EXT_QUOTED},
    [EXT_TOKEN]      = {[HEX] = EXT_TOKEN, [TOKEN] = EXT_TOKEN, [BLANK] = SPACE, [SEMICOLON] = EXT, [CR] = SIZE_LF},
    [EXT_QUOTED]     = {[BLANK] = EXT_QUOTED, [HEX] = EXT_QUOTED, [TOKEN] = EXT_QUOTED, [SEMICOLON] = EXT_QUOTED,
                        [EQUALS] = EXT_QUOTED, [COLON] = EXT_QUOTED, [REST] = EXT_QUOTED,
                        [BACKSLASH] = EXT_ESCAPED, [QUOTE] = EXT_QUOTED_END},
    [EXT_ESCAPED]    = {[BLANK] = EXT_QUOTED, [HEX] = EXT_QUOTED, [TOKEN] = EXT_QUOTED, [SEMICOLON] = EXT_QUOTED,
                        [EQUALS] = EXT_QUOTED, [COLON] = EXT_QUOTED, [REST] = EXT_QUOTED,
                        [BACKSLASH] = EXT_QUOTED, [QUOTE] = EXT_QUOTED},
    [EXT_QUOTED_END] = {[BLANK] = SPACE, [SEMICOLON] = EXT, [CR] = SIZE_LF},
    [SIZE_LF]        = {[LF] = DATA},
    [DATA_CR]        = {[CR] = DATA_LF},
    [DATA_LF]        = {[LF] = SIZE},
    [TRAILER]        = {[HEX] = TRAILER_NAME, [TOKEN] = TRAILER_NAME, [CR] = LAST_LF},
    [TRAILER_NAME]   = {[HEX] = TRAILER_NAME, [TOKEN] = TRAILER_NAME, [COLON] = TRAILER_VALUE},
    [TRAILER_VALUE]  = {[BLANK] = TRAILER_VALUE, [HEX] = TRAILER_VALUE, [TOKEN] = TRAILER_VALUE,
                        [SEMICOLON] = TRAILER_VALUE, [EQUALS] = TRAILER_VALUE, [QUOTE] = TRAILER_VALUE,
                        [BACKSLASH] = TRAILER_VALUE, [COLON] = TRAILER_VALUE, [REST] = TRAILER_VALUE,
                        [CR] = TRAILER_LF},
    [TRAILER_LF]     = {[LF] = TRAILER},
    [LAST_LF]        = {[LF] = END},
};
/* clang-format on */

static enum kind kind_of(char c)
{
    switch (c) {
    case ' ':
    case '\t': return BLANK;
    case '\r': return CR;
    case '\n': return LF;
    case ';': return SEMICOLON;
    case '=': return EQUALS;
    case '"': return QUOTE;
    case '\\': return BACKSLASH;
    case ':': return COLON;
    default: break;
    }
    if (char_is(c, CHAR_HEX))
        return HEX;
    if (char_is(c, CHAR_TOKEN))
        return TOKEN;
    return char_is(c, CHAR_FIELD) ? REST : CONTROL;
}

static bool add_digit(struct chunked *c, char digit)
{
    unsigned value = char_is(digit, CHAR_DIGIT) ? (unsigned)(digit - '0') : (unsigned)(digit | 0x20) - 'a' + 10;

    if (c->digits == 16 || c->left > (uint64_t)INT64_MAX >> 4)
        return false;
    c->digits++;
    c->left = c->left << 4 | value;
    return true;
}

/* Counts a byte that leads to `state` against its bound. */
static bool count(struct chunked *c, enum state state)
{
    if (state >= SPACE && state <= EXT_QUOTED_END)
        return ++c->extension_bytes <= CHUNKED_EXTENSIONS_MAX;
    if (c->state >= TRAILER)
        return ++c->trailer_bytes <= CHUNKED_TRAILER_MAX;
    return true;
}

/* A chunk begins, with extensions of its own or not: what it may have of them counts no longer. */
static void allow_extensions(struct chunked *c)
{
    uint64_t size = c->left < CHUNKED_EXTENSIONS_MAX ? c->left : CHUNKED_EXTENSIONS_MAX;
    uint64_t allowed = CHUNKED_EXTENSIONS_CHUNK + 2 * size;
    c->extension_bytes -= c->extension_bytes < allowed ? c->extension_bytes : (uint32_t)allowed;
}

/* Consumes a byte that is not data; returns the state behind it. */
static enum state step(struct chunked *c, char byte)
{
    enum state next = next_state[c->state][kind_of(byte)];

    if (next == START || (next == SIZE_MORE && !add_digit(c, byte)))
        return BAD;
    if (!count(c, next))
        return c->state >= TRAILER ? TRAILERS_TOO_LARGE : BAD;
    if (next == SIZE)
        c->digits = 0;
    if (next == DATA)
        allow_extensions(c);
    return next == DATA && c->left == 0 ? TRAILER : next;
}

/* Keeps of data[from .. to), the bytes of the trailer section that were taken now, what is not its empty line. */
static bool keep_trailers(struct chunked *c, const char *data, size_t from, size_t to)
{
    size_t empty_line = c->state == END ? 2 : c->state == LAST_LF ? 1 : 0;

    if (!c->trailers || to - from <= empty_line)
        return true;
    return buf_append(c->trailers, data + from, to - from - empty_line);
}

/* Puts data[from .. from + n) behind the content, which begins where the first of it lies: in a large chunk that is
 * all of it, and nothing moves. */
static void add_content(char *data, struct iovec *content, size_t from, size_t n)
{
    if (content->iov_len == 0)
        content->iov_base = data + from;
    else
        memmove((char *)content->iov_base + content->iov_len, data + from, n);
    content->iov_len += n;
}

enum chunked_status chunked_decode(struct chunked *c, char **data, size_t n, size_t *decoded, size_t *consumed)
{
    struct iovec content = {*data, 0};
    char *bytes = *data;
    size_t in = 0, trailers = c->state < TRAILER ? n : 0;

    while (in < n && c->state < END) {
        if (c->state != DATA) {
            c->state = (uint8_t)step(c, bytes[in]);
            in += c->state < BAD;
            if (c->state == TRAILER && trailers > in)
                trailers = in; /* it begins here */
            continue;
        }
        size_t take = c->left < n - in ? (size_t)c->left : n - in;
        add_content(bytes, &content, in, take);
        in += take;
        c->left -= take;
        if (c->left == 0)
            c->state = DATA_CR;
    }
    *data = content.iov_base;
    *decoded = content.iov_len;
    *consumed = in;
    if (c->state == BAD)
        return CHUNKED_BAD;
    if (c->state == TRAILERS_TOO_LARGE)
        return CHUNKED_CONTENT_END;
    if (trailers < in && !keep_trailers(c, bytes, trailers, in))
        return CHUNKED_NO_MEMORY;
    return c->state == END ? CHUNKED_END : CHUNKED_MORE;
}

size_t chunked_line(uint64_t size, char out[CHUNK_LINE_MAX])
{
    unsigned digits = 1;
    size_t n = 0;

    assert(size > 0);
    while (digits < 16 && size >> (4 * digits))
        digits++;
    while (digits-- > 0)
        out[n++] = "0123456789abcdef"[size >> (4 * digits) & 0xf];
    out[n++] = '\r';
    out[n++] = '\n';
    return n;
}

static struct iovec piece(struct str s)
{
    return (struct iovec){(void *)(uintptr_t)s.p, s.n};
}

int chunked_pieces(struct iovec iov[CHUNKED_PIECES], char line[CHUNK_LINE_MAX], struct str content, bool end,
                   struct str trailers)
{
    int k = 0;

    if (content.n > 0) {
        iov[k++] = (struct iovec){line, chunked_line(content.n, line)};
        iov[k++] = piece(content);
        iov[k++] = piece(STR("\r\n"));
    }
    if (end && trailers.n == 0) {
        iov[k++] = piece(CHUNKED_LAST);
    } else if (end) {
        iov[k++] = piece(STR("0\r\n"));
        iov[k++] = piece(trailers);
        iov[k++] = piece(STR("\r\n"));
    }
    return k;
}
