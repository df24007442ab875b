/* The strict scan of JSON: what RFC 8259 allows and nothing else, depth-first, with a position noted for each value. */
#include "base/json_scan.h"

#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

/* cJSON cuts off a number behind this many characters. */
#define NUMBER_CHARS_MAX 63u

static bool scan_value(struct json_scan *s, size_t key);

void json_positions_init(struct json_positions *p)
{
    p->v = p->small;
    p->count = 0;
    p->cap = JSON_POSITIONS_INLINE;
}

void json_positions_fini(struct json_positions *p)
{
    if (p->v != p->small)
        free(p->v);
}

static bool grow(struct json_positions *p)
{
    bool is_small = p->v == p->small;
    struct json_position *v = realloc(is_small ? NULL : p->v, p->cap * 2 * sizeof(*v));
    if (!v)
        return false;
    if (is_small)
        memcpy(v, p->small, sizeof(p->small));
    p->v = v;
    p->cap *= 2;
    return true;
}

void json_printable(char *out, size_t size, struct str text)
{
    size_t n = text.n < size - 1 ? text.n : size - 1;
    if (n < text.n)
        while (n > 0 && ((unsigned char)text.p[n] & 0xc0) == 0x80)
            n--;
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)text.p[i];
        out[i] = c < 0x20 || c == 0x7f ? '?' : text.p[i];
    }
    out[n] = '\0';
}

bool json_scan_fail(struct json_scan *s, size_t offset, const char *fmt, ...)
{
    va_list args;
    s->e->offset = offset;
    va_start(args, fmt);
    vsnprintf(s->e->what, sizeof(s->e->what), fmt, args);
    va_end(args);
    json_path_at(s->text, offset, s->e->path);
    return false;
}

bool json_scan_no_memory(struct json_scan *s)
{
    s->e->no_memory = true;
    return json_scan_fail(s, s->at, "there is no memory to parse the text");
}

static bool at_end(const struct json_scan *s)
{
    return s->at == s->text.n;
}

/* The byte at the cursor, or -1 at the end. */
static int next_byte(const struct json_scan *s)
{
    return at_end(s) ? -1 : (unsigned char)s->text.p[s->at];
}

static bool is_digit(int c)
{
    return c >= '0' && c <= '9';
}

size_t json_utf8_length(struct str s)
{
    const unsigned char *p = (const unsigned char *)s.p;
    if (s.n == 0)
        return 0;
    if (p[0] < 0x80)
        return 1;
    size_t n = p[0] >= 0xf0 ? 4 : p[0] >= 0xe0 ? 3 : 2;
    if (p[0] < 0xc2 || p[0] > 0xf4 || s.n < n)
        return 0;
    /* The second byte's range excludes overlong forms, surrogates and what lies over U+10FFFF. */
    unsigned least = p[0] == 0xe0 ? 0xa0 : p[0] == 0xf0 ? 0x90 : 0x80;
    unsigned most = p[0] == 0xed ? 0x9f : p[0] == 0xf4 ? 0x8f : 0xbf;
    if (p[1] < least || p[1] > most)
        return 0;
    for (size_t i = 2; i < n; i++)
        if ((p[i] & 0xc0) != 0x80)
            return 0;
    return n;
}

/* Says what stands at the cursor where `wanted` belongs. */
static bool fail_expected(struct json_scan *s, const char *wanted)
{
    size_t n = json_utf8_length(str_make(s->text.p + s->at, s->text.n - s->at));
    if (at_end(s))
        return json_scan_fail(s, s->at, "the text ends where %s belongs", wanted);
    if (n == 0 || next_byte(s) < 0x20 || next_byte(s) == 0x7f)
        return json_scan_fail(s, s->at, "found the byte 0x%02x where %s belongs", (unsigned)next_byte(s), wanted);
    return json_scan_fail(s, s->at, "found '%.*s' where %s belongs", (int)n, s->text.p + s->at, wanted);
}

static void skip_space(struct json_scan *s)
{
    for (int c = next_byte(s); c == ' ' || c == '\t' || c == '\n' || c == '\r'; c = next_byte(s))
        s->at++;
}

static bool add_position(struct json_scan *s, size_t value, size_t key)
{
    struct json_positions *p = s->positions;
    if (p->count == p->cap && !grow(p))
        return json_scan_no_memory(s);
    p->v[p->count++] = (struct json_position){value, key};
    return true;
}

/* Four hexadecimal digits at the cursor. */
static bool scan_hex4(struct json_scan *s, uint64_t *code)
{
    if (s->text.n - s->at < 4 || !str_parse_hex(str_make(s->text.p + s->at, 4), code))
        return false;
    s->at += 4;
    return true;
}

/* What follows "\u". */
static bool scan_unicode_escape(struct json_scan *s, size_t begin)
{
    uint64_t code, low;
    if (!scan_hex4(s, &code))
        return json_scan_fail(s, begin, "a \\u escape has no four hexadecimal digits");
    if (code == 0)
        return json_scan_fail(s, begin, "a string holds \\u0000");
    if (code < 0xd800 || code > 0xdfff)
        return true;
    if (code < 0xdc00 && s->text.n - s->at >= 2 && memcmp(s->text.p + s->at, "\\u", 2) == 0) {
        s->at += 2;
        if (scan_hex4(s, &low) && low >= 0xdc00 && low <= 0xdfff)
            return true;
    }
    return json_scan_fail(s, begin, "a \\u escape is half of a surrogate pair");
}

static bool scan_escape(struct json_scan *s)
{
    size_t begin = s->at++;
    int c = next_byte(s);
    if (c < 0)
        return json_scan_fail(s, begin, "the text ends inside a string");
    s->at++;
    if (c == 'u')
        return scan_unicode_escape(s, begin);
    if (c == 0 || !strchr("\"\\/bfnrt", c))
        return json_scan_fail(s, begin, "a string holds an escape that JSON does not know");
    return true;
}

/* A string at the cursor, which stands on its opening quote. */
static bool scan_string(struct json_scan *s)
{
    size_t begin = s->at++;
    for (int c = next_byte(s); c != '"'; c = next_byte(s)) {
        if (c < 0)
            return json_scan_fail(s, begin, "the text ends inside a string");
        if (c < 0x20)
            return json_scan_fail(s, s->at, "a string holds the raw control character 0x%02x", (unsigned)c);
        if (c == '\\') {
            if (!scan_escape(s))
                return false;
            continue;
        }
        size_t n = json_utf8_length(str_make(s->text.p + s->at, s->text.n - s->at));
        if (n == 0)
            return json_scan_fail(s, s->at, "a string holds invalid UTF-8");
        s->at += n;
    }
    s->at++;
    return true;
}

static size_t skip_digits(struct json_scan *s)
{
    size_t begin = s->at;
    while (is_digit(next_byte(s)))
        s->at++;
    return s->at - begin;
}

static bool scan_number(struct json_scan *s)
{
    size_t begin = s->at;
    if (next_byte(s) == '-')
        s->at++;
    bool zero = next_byte(s) == '0';
    size_t digits = skip_digits(s);
    if (digits == 0)
        return fail_expected(s, "a digit");
    if (zero && digits > 1)
        return json_scan_fail(s, begin, "a number has a leading zero");
    if (next_byte(s) == '.') {
        s->at++;
        if (skip_digits(s) == 0)
            return fail_expected(s, "a digit");
    }
    if (next_byte(s) == 'e' || next_byte(s) == 'E') {
        s->at++;
        if (next_byte(s) == '+' || next_byte(s) == '-')
            s->at++;
        if (skip_digits(s) == 0)
            return fail_expected(s, "a digit");
    }
    if (s->at - begin > NUMBER_CHARS_MAX)
        return json_scan_fail(s, begin, "a number has over %u characters", NUMBER_CHARS_MAX);
    return true;
}

static bool scan_word(struct json_scan *s)
{
    static const char *const words[] = {"true", "false", "null"};
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        size_t n = strlen(words[i]);
        if (s->text.n - s->at >= n && memcmp(s->text.p + s->at, words[i], n) == 0) {
            s->at += n;
            return true;
        }
    }
    return fail_expected(s, "a value");
}

/* Behind an element: steps over ',' (*more) or over `close`. */
static bool scan_separator(struct json_scan *s, char close, bool *more)
{
    skip_space(s);
    int c = next_byte(s);
    *more = c == ',';
    if (c != ',' && c != close)
        return fail_expected(s, close == '}' ? "',' or '}'" : "',' or ']'");
    s->at++;
    return true;
}

/* Steps over the opening bracket; *more tells whether anything stands before `close`. */
static bool scan_open(struct json_scan *s, char close, bool *more)
{
    if (++s->depth > JSON_DEPTH_MAX)
        return json_scan_fail(s, s->at, "values are nested deeper than %u", JSON_DEPTH_MAX);
    s->at++;
    skip_space(s);
    *more = next_byte(s) != close;
    if (!*more)
        s->at++;
    return true;
}

static bool scan_array(struct json_scan *s)
{
    bool more = false;
    if (!scan_open(s, ']', &more))
        return false;
    while (more)
        if (!scan_value(s, s->text.n) || !scan_separator(s, ']', &more))
            return false;
    s->depth--;
    return true;
}

static bool scan_member(struct json_scan *s)
{
    skip_space(s);
    size_t key = s->at;
    if (next_byte(s) != '"')
        return fail_expected(s, "a key in double quotes");
    if (!scan_string(s))
        return false;
    skip_space(s);
    if (next_byte(s) != ':')
        return fail_expected(s, "':'");
    s->at++;
    return scan_value(s, key);
}

static bool scan_object(struct json_scan *s)
{
    bool more = false;
    if (!scan_open(s, '}', &more))
        return false;
    while (more)
        if (!scan_member(s) || !scan_separator(s, '}', &more))
            return false;
    s->depth--;
    return true;
}

static bool scan_value(struct json_scan *s, size_t key)
{
    skip_space(s);
    if (!add_position(s, s->at, key))
        return false;
    int c = next_byte(s);
    if (c == '{')
        return scan_object(s);
    if (c == '[')
        return scan_array(s);
    if (c == '"')
        return scan_string(s);
    if (c == '-' || is_digit(c))
        return scan_number(s);
    return scan_word(s);
}

bool json_scan(struct json_scan *s)
{
    skip_space(s);
    if (at_end(s))
        return json_scan_fail(s, 0, "the text is empty");
    if (str_starts_with(s->text, STR("\xef\xbb\xbf")))
        return json_scan_fail(s, 0, "the text begins with a byte order mark");
    if (s->text.n > INT_MAX)
        return json_scan_fail(s, 0, "the text is over 2 GiB");
    if (!scan_value(s, s->text.n))
        return false;
    skip_space(s);
    return at_end(s) || fail_expected(s, "the end of the text");
}
