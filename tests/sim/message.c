/* The simulation's own HTTP/1.x: a parser that takes nothing but what RFC 9112 lets a sender generate, and content that
 * betrays where it comes from. What is wrong is found at the first byte that shows it, however the stream was cut up.
 */
#include "message.h"

#include <endian.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define HEAD_MAX         65536u
#define LENGTH_MAX       ((uint64_t)INT64_MAX)
#define CHUNK_DIGITS_MAX 16u

/* What the chunked decoder expects next. */
enum chunk_step { CHUNK_SIZE, CHUNK_DATA, CHUNK_DATA_END, CHUNK_TRAILER };

static bool breaks(struct message *m, const char *why)
{
    m->state = MESSAGE_BROKEN;
    m->broken = why;
    return false;
}

void message_init(struct message *m, enum message_kind kind)
{
    *m = (struct message){.kind = kind};
}

void message_free(struct message *m)
{
    free(m->text);
    for (unsigned i = 0; i < m->trailer_count; i++)
        free(m->trailers[i].name);
    message_init(m, m->kind);
}

void message_next(struct message *m)
{
    message_free(m);
}

const char *message_field(const struct message *m, const char *name, unsigned *count)
{
    const char *value = NULL;
    unsigned n = 0;
    for (unsigned i = 0; i < m->field_count; i++) {
        if (strcasecmp(m->fields[i].name, name) != 0)
            continue;
        if (n++ == 0)
            value = m->fields[i].value;
    }
    if (count)
        *count = n;
    return value;
}

/* ---- kinds of bytes ---- */

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_ows(char c)
{
    return c == ' ' || c == '\t';
}

static bool is_tchar(char c)
{
    return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c && strchr("!#$%&'*+-.^_`|~", c));
}

static bool is_token(const char *p, const char *end)
{
    if (p == end)
        return false;
    while (p < end && is_tchar(*p))
        p++;
    return p == end;
}

static bool is_visible(char c)
{
    return c > ' ' && c < 0x7f;
}

/* Visible ASCII only: anything else in a target must be percent-encoded. */
static bool is_target(const char *p, const char *end)
{
    if (p == end)
        return false;
    while (p < end && is_visible(*p))
        p++;
    return p == end;
}

/* Bytes from 0x80 on are obs-text, which a recipient has to bear. */
static bool is_text(const char *p, const char *end)
{
    while (p < end) {
        unsigned char c = (unsigned char)*p++;
        if ((c < ' ' && c != '\t') || c == 0x7f)
            return false;
    }
    return true;
}

/* ---- the head ---- */

/* Is HTTP/1.0 or HTTP/1.1 at `p`, eight bytes? */
static bool parse_version(struct message *m, const char *p)
{
    if (memcmp(p, "HTTP/1.", 7) != 0 || (p[7] != '0' && p[7] != '1'))
        return breaks(m, "the version is not HTTP/1.0 or HTTP/1.1");
    m->minor = (unsigned)(p[7] - '0');
    return true;
}

static bool parse_request_line(struct message *m, char *line, char *end)
{
    char *method_end = memchr(line, ' ', (size_t)(end - line));
    char *target = method_end ? method_end + 1 : NULL;
    char *target_end = target ? memchr(target, ' ', (size_t)(end - target)) : NULL;

    if (!target_end)
        return breaks(m, "the request line has not three parts");
    if (!is_token(line, method_end))
        return breaks(m, "the method is not a token");
    if (!is_target(target, target_end))
        return breaks(m, "the target is empty or has a byte that is not visible ASCII");
    if (end - target_end != 9)
        return breaks(m, "the version is not HTTP/1.0 or HTTP/1.1");
    *method_end = *target_end = '\0';
    m->method = line;
    m->target = target;
    return parse_version(m, target_end + 1);
}

/* The space behind the status must be there even when no reason follows. */
static bool parse_status_line(struct message *m, const char *line, const char *end)
{
    if (end - line < 13 || line[8] != ' ' || line[12] != ' ')
        return breaks(m, "the status line is not of the form version, status, reason");
    if (!parse_version(m, line))
        return false;
    if (!is_digit(line[9]) || !is_digit(line[10]) || !is_digit(line[11]))
        return breaks(m, "the status is not three digits");
    if (!is_text(line + 13, end))
        return breaks(m, "a control byte in the reason");
    m->status = (unsigned)((line[9] - '0') * 100 + (line[10] - '0') * 10 + (line[11] - '0'));
    return true;
}

/* Chops a line up into `out`. */
static bool parse_field(struct message *m, char *line, char *end, struct message_field *out)
{
    char *colon = memchr(line, ':', (size_t)(end - line)), *value;

    if (is_ows(*line))
        return breaks(m, "a folded line, or one that begins with white space");
    if (!colon)
        return breaks(m, "a field line without a colon");
    if (colon > line && is_ows(colon[-1]))
        return breaks(m, "white space before the colon");
    if (!is_token(line, colon))
        return breaks(m, "a field name is not a token");
    for (value = colon + 1; value < end && is_ows(*value); value++)
        ;
    while (end > value && is_ows(end[-1]))
        end--;
    if (!is_text(value, end))
        return breaks(m, "a control byte in a field value");
    *colon = *end = '\0';
    *out = (struct message_field){.name = line, .value = value};
    return true;
}

static bool add_field(struct message *m, char *line, char *end)
{
    struct message_field field;
    if (!parse_field(m, line, end, &field))
        return false;
    if (m->field_count == MESSAGE_FIELDS_MAX)
        return breaks(m, "too many fields");
    m->fields[m->field_count++] = field;
    return true;
}

/* Takes the lines up to `end` apart, each of which ends with CRLF. */
static bool parse_lines(struct message *m, char *end)
{
    for (char *line = m->text, *next; line < end; line = next) {
        char *line_end = memmem(line, (size_t)(end - line), "\r\n", 2);
        bool ok;
        next = line_end + 2;
        if (line > m->text)
            ok = add_field(m, line, line_end);
        else if (m->kind == MESSAGE_REQUEST)
            ok = parse_request_line(m, line, line_end);
        else
            ok = parse_status_line(m, line, line_end);
        if (!ok)
            return false;
    }
    return true;
}

static bool parse_length(struct message *m, const char *digits)
{
    uint64_t n = 0;
    const char *p = digits;
    for (; is_digit(*p); p++) {
        unsigned digit = (unsigned)(*p - '0');
        if (n > (LENGTH_MAX - digit) / 10)
            return breaks(m, "Content-Length is too large");
        n = n * 10 + digit;
    }
    if (p == digits || *p)
        return breaks(m, "Content-Length is not a number");
    m->framing = FRAME_LENGTH;
    m->length = n;
    return true;
}

/* What the fields say of the framing. */
static bool parse_framing(struct message *m)
{
    unsigned lengths, codings;
    const char *length = message_field(m, "Content-Length", &lengths);
    const char *coding = message_field(m, "Transfer-Encoding", &codings);

    if (coding && length)
        return breaks(m, "both Content-Length and Transfer-Encoding");
    if (lengths > 1)
        return breaks(m, "more than one Content-Length");
    if (codings > 1)
        return breaks(m, "more than one Transfer-Encoding");
    if (length)
        return parse_length(m, length);
    if (!coding)
        return true;
    if (m->minor == 0)
        return breaks(m, "Transfer-Encoding in HTTP/1.0");
    if (strcasecmp(coding, "chunked") != 0)
        return breaks(m, "Transfer-Encoding is not just chunked");
    m->framing = FRAME_CHUNKED;
    return true;
}

/* RFC 9112 section 6.3: some responses have no content whatever their fields say, and without fields others end with
 * the stream. */
static void frame_response(struct message *m, bool to_head)
{
    if (to_head || m->status / 100 == 1 || m->status == 204 || m->status == 304) {
        m->framing = FRAME_NONE;
        m->length = 0;
    } else if (m->framing == FRAME_NONE) {
        m->framing = FRAME_CLOSE;
    }
}

/* The size of the head with its empty line; 0 when it is not whole yet, or broken. A LF alone is looked for here and
 * not where lines are parsed, for a head that ends its lines so would otherwise never be seen to end. */
static size_t head_size(struct message *m, const char *p, size_t n)
{
    const char *end = p + (n < HEAD_MAX ? n : HEAD_MAX), *line = p, *lf;

    for (; (lf = memchr(line, '\n', (size_t)(end - line))); line = lf + 1) {
        if (lf == line || lf[-1] != '\r') {
            breaks(m, "a line ends with LF alone");
            return 0;
        }
        if (lf - line > 1)
            continue;
        if (line > p)
            return (size_t)(lf + 1 - p);
        breaks(m, "an empty line before the start line");
        return 0;
    }
    if (n >= HEAD_MAX)
        breaks(m, "the head is over 64 KiB");
    return 0;
}

/* A head that breaks the message stays in `in`, for who wants to show it. */
static void take_head(struct message *m, struct bytes *in, bool to_head)
{
    size_t n = head_size(m, bytes_at(in), in->len);
    if (n == 0)
        return;
    size_t lines = n - 2;
    m->text = malloc(lines + 1);
    if (!m->text)
        abort();
    memcpy(m->text, bytes_at(in), lines);
    m->text[lines] = '\0';
    if (!parse_lines(m, m->text + lines) || !parse_framing(m))
        return;
    if (m->kind == MESSAGE_RESPONSE)
        frame_response(m, to_head);
    bool empty = m->framing == FRAME_NONE || (m->framing == FRAME_LENGTH && m->length == 0);
    m->state = empty ? MESSAGE_WHOLE : MESSAGE_CONTENT;
    bytes_drop(in, n);
}

/* ---- content ---- */

/* Passes on what there is, at most `max` bytes; returns how many. */
static size_t pass(struct message *m, struct bytes *in, uint64_t max, message_content_fn *fn, void *arg)
{
    size_t n = in->len < max ? in->len : (size_t)max;
    if (n == 0)
        return 0;
    if (fn)
        fn(arg, bytes_at(in), n);
    m->received += n;
    bytes_drop(in, n);
    return n;
}

/* Takes CRLF if it is all there; `otherwise` says what else the first byte would be. */
static bool take_crlf(struct message *m, struct bytes *in, const char *otherwise)
{
    const char *p = bytes_at(in);
    if (in->len > 0 && p[0] != '\r')
        return breaks(m, otherwise);
    if (in->len < 2)
        return false;
    if (p[1] != '\n')
        return breaks(m, "CR without LF in the chunked framing");
    bytes_drop(in, 2);
    return true;
}

static int hex_value(char c)
{
    if (is_digit(c))
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* Takes a line with the size of a chunk if it is all there. */
static bool take_chunk_size(struct message *m, struct bytes *in)
{
    const char *p = bytes_at(in);
    uint64_t size = 0;
    size_t n = 0;

    for (; n < in->len && hex_value(p[n]) >= 0; n++) {
        if (n == CHUNK_DIGITS_MAX || size > LENGTH_MAX / 16)
            return breaks(m, "a chunk's size is too large or has too many digits");
        size = size * 16 + (uint64_t)hex_value(p[n]);
    }
    if (n == in->len)
        return false;
    if (n == 0)
        return breaks(m, "a chunk without a size");
    if (p[n] == ';' || is_ows(p[n]))
        return breaks(m, "a chunk extension, or white space behind the size of a chunk");
    if (p[n] != '\r')
        return breaks(m, "a chunk's size is not hexadecimal or does not end with CRLF");
    if (in->len - n < 2)
        return false;
    if (p[n + 1] != '\n')
        return breaks(m, "CR without LF in the chunked framing");
    bytes_drop(in, n + 2);
    m->chunk_left = size;
    m->chunk_step = size > 0 ? CHUNK_DATA : CHUNK_TRAILER;
    return true;
}

/* Takes a line of the trailer section if it is all there; the empty one ends the message. */
static bool take_trailer(struct message *m, struct bytes *in)
{
    const char *p = bytes_at(in), *lf = memchr(p, '\n', in->len);

    if (!lf && in->len >= HEAD_MAX)
        return breaks(m, "a trailer line is over 64 KiB");
    if (!lf)
        return in->len > 1 && p[0] == '\r' ? breaks(m, "CR without LF in the chunked framing") : false;
    if (lf == p || lf[-1] != '\r')
        return breaks(m, "a trailer line ends with LF alone");
    size_t n = (size_t)(lf - 1 - p);
    if (n == 0) {
        bytes_drop(in, 2);
        m->state = MESSAGE_WHOLE;
        return false;
    }
    if (m->trailer_count == MESSAGE_TRAILERS_MAX)
        return breaks(m, "too many trailers");
    char *line = strndup(p, n);
    if (!line)
        abort();
    if (strlen(line) != n || !parse_field(m, line, line + n, &m->trailers[m->trailer_count])) {
        free(line);
        return breaks(m, m->broken ? m->broken : "a zero byte in a trailer line");
    }
    m->trailer_count++;
    bytes_drop(in, n + 2);
    return true;
}

/* One step of the decoder; returns whether it came further. */
static bool take_chunk_step(struct message *m, struct bytes *in, message_content_fn *fn, void *arg)
{
    size_t n;
    switch ((enum chunk_step)m->chunk_step) {
    case CHUNK_SIZE: return take_chunk_size(m, in);
    case CHUNK_DATA:
        n = pass(m, in, m->chunk_left, fn, arg);
        m->chunk_left -= n;
        if (m->chunk_left == 0)
            m->chunk_step = CHUNK_DATA_END;
        return n > 0;
    case CHUNK_DATA_END:
        if (!take_crlf(m, in, "a chunk's data are longer than its size"))
            return false;
        m->chunk_step = CHUNK_SIZE;
        return true;
    case CHUNK_TRAILER: return take_trailer(m, in);
    }
    return false;
}

static void take_content(struct message *m, struct bytes *in, message_content_fn *fn, void *arg)
{
    switch (m->framing) {
    case FRAME_NONE: break;
    case FRAME_LENGTH:
        pass(m, in, m->length - m->received, fn, arg);
        if (m->received == m->length)
            m->state = MESSAGE_WHOLE;
        break;
    case FRAME_CHUNKED:
        while (take_chunk_step(m, in, fn, arg))
            ;
        break;
    case FRAME_CLOSE: pass(m, in, UINT64_MAX, fn, arg); break;
    }
}

bool message_take(struct message *m, struct bytes *in, bool to_head, message_content_fn *fn, void *arg)
{
    enum message_state state = m->state;
    size_t len = in->len;

    if (state == MESSAGE_HEAD)
        take_head(m, in, to_head);
    else if (state == MESSAGE_CONTENT)
        take_content(m, in, fn, arg);
    return m->state != state || in->len != len;
}

/* A message that is cut short is not malformed: its state stays, to show how far it came. */
bool message_end(struct message *m, const struct bytes *in)
{
    if (m->state == MESSAGE_HEAD)
        return in->len == 0;
    if (m->state == MESSAGE_CONTENT && m->framing == FRAME_CLOSE && in->len == 0)
        m->state = MESSAGE_WHOLE;
    return m->state == MESSAGE_WHOLE;
}

/* ---- the pattern ---- */

#define GOLDEN       UINT64_C(0x9e3779b97f4a7c15)
#define PATTERN_PART 256u /* words */

/* Word number `block`, its first byte lowest: the finisher of SplitMix64 over key and number. */
static uint64_t pattern_word(uint64_t key, uint64_t block)
{
    uint64_t x = key ^ (block + 1) * GOLDEN;
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

char pattern_byte(uint64_t key, uint64_t at)
{
    unsigned char c = (unsigned char)(pattern_word(key, at >> 3) >> (8 * (at & 7)));
    return (char)c;
}

/* Fills `words` from the one with byte `at` on, enough for `n` bytes. Returns how many of those are there, from byte
 * at & 7 of `words`. */
static size_t pattern_part(uint64_t words[static PATTERN_PART], uint64_t key, uint64_t at, size_t n)
{
    size_t skip = at & 7, room = 8 * PATTERN_PART - skip;
    size_t part = n < room ? n : room;
    for (size_t i = 0; 8 * i < skip + part; i++)
        words[i] = htole64(pattern_word(key, (at >> 3) + i));
    return part;
}

void pattern_add(struct bytes *out, uint64_t key, uint64_t at, size_t n)
{
    uint64_t words[PATTERN_PART];
    for (size_t part; n > 0; at += part, n -= part) {
        part = pattern_part(words, key, at, n);
        bytes_add(out, (const char *)words + (at & 7), part);
    }
}

bool pattern_matches(uint64_t key, uint64_t at, const char *p, size_t n)
{
    uint64_t words[PATTERN_PART];
    for (size_t part; n > 0; at += part, p += part, n -= part) {
        part = pattern_part(words, key, at, n);
        if (memcmp(p, (const char *)words + (at & 7), part) != 0)
            return false;
    }
    return true;
}
