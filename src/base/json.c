/* JSON: a strict scan that records positions, then cJSON for the tree. A node's `valueint` holds its ordinal in
 * document order, the index of its positions; only `valuedouble` is read for numbers. */
#include "base/json.h"

#include <assert.h>
#include <cjson/cJSON.h>
#include <float.h>
#include <limits.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

/* cJSON cuts off a number behind this many characters. */
#define NUMBER_CHARS_MAX 63u

struct position {
    size_t value, key;
};

/* Documents of a few values, the usual case, need no second block. */
#define POSITIONS_INLINE 12u

struct json_doc {
    cJSON *root;
    struct position *positions;
    size_t count, cap;
    struct position small[POSITIONS_INLINE];
};

struct scan {
    struct str text;
    size_t at;
    size_t key; /* where the innermost key begins; text.n when there is none */
    unsigned depth;
    struct json_doc *doc;
    struct json_error *e;
};

static bool scan_value(struct scan *s, size_t key);

/* Copies what can be printed of `text`, cut at the end of a character. */
static void copy_printable(char *out, size_t size, struct str text)
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

__attribute__((format(printf, 3, 4))) static bool fail(struct scan *s, size_t offset, const char *fmt, ...)
{
    va_list args;
    s->e->offset = offset;
    va_start(args, fmt);
    vsnprintf(s->e->what, sizeof(s->e->what), fmt, args);
    va_end(args);
    return false;
}

static bool no_memory(struct scan *s)
{
    return fail(s, s->at, "there is no memory to parse the text");
}

static bool at_end(const struct scan *s)
{
    return s->at == s->text.n;
}

/* The byte at the cursor, or -1 at the end. */
static int next_byte(const struct scan *s)
{
    return at_end(s) ? -1 : (unsigned char)s->text.p[s->at];
}

static bool is_digit(int c)
{
    return c >= '0' && c <= '9';
}

/* The length of the well-formed UTF-8 character (RFC 3629 section 4) that begins `s`, or 0. */
static size_t utf8_length(struct str s)
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
static bool fail_expected(struct scan *s, const char *wanted)
{
    size_t n = utf8_length(str_make(s->text.p + s->at, s->text.n - s->at));
    if (at_end(s))
        return fail(s, s->at, "the text ends where %s belongs", wanted);
    if (n == 0 || next_byte(s) < 0x20 || next_byte(s) == 0x7f)
        return fail(s, s->at, "found the byte 0x%02x where %s belongs", (unsigned)next_byte(s), wanted);
    return fail(s, s->at, "found '%.*s' where %s belongs", (int)n, s->text.p + s->at, wanted);
}

static void skip_space(struct scan *s)
{
    for (int c = next_byte(s); c == ' ' || c == '\t' || c == '\n' || c == '\r'; c = next_byte(s))
        s->at++;
}

static bool add_position(struct scan *s, size_t value, size_t key)
{
    struct json_doc *d = s->doc;
    if (d->count == d->cap) {
        size_t cap = d->cap * 2;
        bool is_small = d->positions == d->small;
        struct position *p = realloc(is_small ? NULL : d->positions, cap * sizeof(*p));
        if (!p)
            return no_memory(s);
        if (is_small)
            memcpy(p, d->small, sizeof(d->small));
        d->positions = p;
        d->cap = cap;
    }
    d->positions[d->count++] = (struct position){value, key};
    return true;
}

/* Four hexadecimal digits at the cursor. */
static bool scan_hex4(struct scan *s, uint64_t *code)
{
    if (s->text.n - s->at < 4 || !str_parse_hex(str_make(s->text.p + s->at, 4), code))
        return false;
    s->at += 4;
    return true;
}

/* What follows "\u". */
static bool scan_unicode_escape(struct scan *s, size_t begin)
{
    uint64_t code, low;
    if (!scan_hex4(s, &code))
        return fail(s, begin, "a \\u escape has no four hexadecimal digits");
    if (code == 0)
        return fail(s, begin, "a string holds \\u0000");
    if (code < 0xd800 || code > 0xdfff)
        return true;
    if (code < 0xdc00 && s->text.n - s->at >= 2 && memcmp(s->text.p + s->at, "\\u", 2) == 0) {
        s->at += 2;
        if (scan_hex4(s, &low) && low >= 0xdc00 && low <= 0xdfff)
            return true;
    }
    return fail(s, begin, "a \\u escape is half of a surrogate pair");
}

static bool scan_escape(struct scan *s)
{
    size_t begin = s->at++;
    int c = next_byte(s);
    if (c < 0)
        return fail(s, begin, "the text ends inside a string");
    s->at++;
    if (c == 'u')
        return scan_unicode_escape(s, begin);
    if (c == 0 || !strchr("\"\\/bfnrt", c))
        return fail(s, begin, "a string holds an escape that JSON does not know");
    return true;
}

/* A string at the cursor, which stands on its opening quote. */
static bool scan_string(struct scan *s)
{
    size_t begin = s->at++;
    for (int c = next_byte(s); c != '"'; c = next_byte(s)) {
        if (c < 0)
            return fail(s, begin, "the text ends inside a string");
        if (c < 0x20)
            return fail(s, s->at, "a string holds the raw control character 0x%02x", (unsigned)c);
        if (c == '\\') {
            if (!scan_escape(s))
                return false;
            continue;
        }
        size_t n = utf8_length(str_make(s->text.p + s->at, s->text.n - s->at));
        if (n == 0)
            return fail(s, s->at, "a string holds invalid UTF-8");
        s->at += n;
    }
    s->at++;
    return true;
}

static size_t skip_digits(struct scan *s)
{
    size_t begin = s->at;
    while (is_digit(next_byte(s)))
        s->at++;
    return s->at - begin;
}

static bool scan_number(struct scan *s)
{
    size_t begin = s->at;
    if (next_byte(s) == '-')
        s->at++;
    bool zero = next_byte(s) == '0';
    size_t digits = skip_digits(s);
    if (digits == 0)
        return fail_expected(s, "a digit");
    if (zero && digits > 1)
        return fail(s, begin, "a number has a leading zero");
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
        return fail(s, begin, "a number has over %u characters", NUMBER_CHARS_MAX);
    return true;
}

static bool scan_word(struct scan *s)
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
static bool scan_separator(struct scan *s, char close, bool *more)
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
static bool scan_open(struct scan *s, char close, bool *more)
{
    if (++s->depth > JSON_DEPTH_MAX)
        return fail(s, s->at, "values are nested deeper than %u", JSON_DEPTH_MAX);
    s->at++;
    skip_space(s);
    *more = next_byte(s) != close;
    if (!*more)
        s->at++;
    return true;
}

static bool scan_array(struct scan *s)
{
    bool more;
    if (!scan_open(s, ']', &more))
        return false;
    while (more)
        if (!scan_value(s, s->text.n) || !scan_separator(s, ']', &more))
            return false;
    s->depth--;
    return true;
}

/* A member, whose key becomes the innermost one. */
static bool scan_member(struct scan *s)
{
    skip_space(s);
    size_t key = s->at;
    if (next_byte(s) != '"')
        return fail_expected(s, "a key in double quotes");
    if (!scan_string(s))
        return false;
    s->key = key;
    skip_space(s);
    if (next_byte(s) != ':')
        return fail_expected(s, "':'");
    s->at++;
    return scan_value(s, key);
}

static bool scan_object(struct scan *s)
{
    size_t outer = s->key;
    bool more;
    if (!scan_open(s, '}', &more))
        return false;
    while (more)
        if (!scan_member(s) || !scan_separator(s, '}', &more))
            return false;
    s->depth--;
    s->key = outer;
    return true;
}

static bool scan_value(struct scan *s, size_t key)
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

static bool scan_document(struct scan *s)
{
    skip_space(s);
    if (at_end(s))
        return fail(s, 0, "the text is empty");
    if (str_starts_with(s->text, STR("\xef\xbb\xbf")))
        return fail(s, 0, "the text begins with a byte order mark");
    if (s->text.n > INT_MAX)
        return fail(s, 0, "the text is over 2 GiB");
    if (!scan_value(s, s->text.n))
        return false;
    skip_space(s);
    return at_end(s) || fail_expected(s, "the end of the text");
}

/* Numbers the nodes in document order, as the scan numbered their positions, and refuses what no double can hold. */
static bool number_nodes(struct scan *s, cJSON *node, size_t *ordinal)
{
    size_t outer = s->key;
    for (; node; node = node->next) {
        const struct position *pos = &s->doc->positions[*ordinal];
        assert(*ordinal < s->doc->count);
        node->valueint = (int)(*ordinal)++;
        s->key = pos->key < s->text.n ? pos->key : outer;
        if (cJSON_IsNumber(node) && !isfinite(node->valuedouble))
            return fail(s, pos->value, "a number is too large");
        if (!number_nodes(s, node->child, ordinal))
            return false;
    }
    s->key = outer;
    return true;
}

static int compare_keys(const void *a, const void *b)
{
    const cJSON *const *x = a, *const *y = b;
    int order = strcmp((*x)->string, (*y)->string);
    return order ? order : (*x)->valueint - (*y)->valueint;
}

/* The member that first repeats an earlier one's key, or NULL; `members` is sorted on the way. */
static const cJSON *find_repeat(const cJSON **members, size_t n)
{
    const cJSON *first = NULL;
    qsort(members, n, sizeof(const cJSON *), compare_keys);
    for (size_t i = 1; i < n; i++)
        if (strcmp(members[i - 1]->string, members[i]->string) == 0)
            if (!first || members[i]->valueint < first->valueint)
                first = members[i];
    return first;
}

static bool fail_repeat(struct scan *s, const cJSON *member)
{
    copy_printable(s->e->key, sizeof(s->e->key), str_of(member->string));
    s->key = s->text.n;
    return fail(s, s->doc->positions[member->valueint].key, "a key is repeated: \"%s\"", s->e->key);
}

/* Sorting keeps an object of many keys from costing their square. */
static bool check_members(struct scan *s, const cJSON *object)
{
    const cJSON *small[16], **members = small;
    size_t n = 0, i = 0;
    for (const cJSON *m = object->child; m; m = m->next)
        n++;
    if (n < 2)
        return true;
    if (n > sizeof(small) / sizeof(small[0]) && !(members = calloc(n, sizeof(const cJSON *))))
        return no_memory(s);
    for (const cJSON *m = object->child; m; m = m->next)
        members[i++] = m;
    const cJSON *repeat = find_repeat(members, n);
    if (members != small)
        free(members);
    return !repeat || fail_repeat(s, repeat);
}

static bool check_repeats(struct scan *s, const cJSON *node)
{
    if (cJSON_IsObject(node) && !check_members(s, node))
        return false;
    for (const cJSON *c = node->child; c; c = c->next)
        if (c->child && !check_repeats(s, c))
            return false;
    return true;
}

static bool build(struct scan *s, bool allow_repeats)
{
    size_t ordinal = 0;
    s->key = s->text.n;
    s->doc->root = cJSON_ParseWithLength(s->text.p, s->text.n);
    if (!s->doc->root)
        return no_memory(s);
    if (!number_nodes(s, s->doc->root, &ordinal))
        return false;
    assert(ordinal == s->doc->count);
    return allow_repeats || check_repeats(s, s->doc->root);
}

/* Fills e->key from the text where the failure has not done so. */
static void name_key(struct scan *s)
{
    if (s->key >= s->text.n)
        return;
    struct scan key = {.text = s->text, .at = s->key, .e = &(struct json_error){0}};
    size_t begin = s->key + 1;
    bool whole = scan_string(&key);
    size_t n = (whole ? key.at - 1 : s->text.n) - begin;
    copy_printable(s->e->key, sizeof(s->e->key), str_make(s->text.p + begin, n));
}

struct json_doc *json_parse(struct str text, bool allow_repeats, struct json_error *e)
{
    struct json_doc *d = malloc(sizeof(*d));
    struct scan s = {.text = text, .key = text.n, .doc = d, .e = e};
    *e = (struct json_error){0};
    if (!d) {
        (void)no_memory(&s);
        return NULL;
    }
    d->root = NULL;
    d->positions = d->small;
    d->count = 0;
    d->cap = POSITIONS_INLINE;
    if (scan_document(&s) && build(&s, allow_repeats))
        return d;
    name_key(&s);
    json_free(d);
    return NULL;
}

void json_free(struct json_doc *d)
{
    if (!d)
        return;
    cJSON_Delete(d->root);
    if (d->positions != d->small)
        free(d->positions);
    free(d);
}

/* `struct json` is cJSON's node under a name of our own. */
static const cJSON *node_of(const struct json *v)
{
    return (const cJSON *)(const void *)v;
}

static const struct json *json_of(const cJSON *node)
{
    return (const struct json *)(const void *)node;
}

const struct json *json_root(const struct json_doc *d)
{
    return json_of(d->root);
}

enum json_type json_type(const struct json *v)
{
    const cJSON *n = node_of(v);
    if (cJSON_IsObject(n))
        return JSON_OBJECT;
    if (cJSON_IsArray(n))
        return JSON_ARRAY;
    if (cJSON_IsString(n))
        return JSON_STRING;
    if (cJSON_IsNumber(n))
        return JSON_NUMBER;
    return cJSON_IsBool(n) ? JSON_BOOL : JSON_NULL;
}

const char *json_type_name(enum json_type t)
{
    static const char *const names[] = {
        [JSON_NULL] = "null",       [JSON_BOOL] = "a boolean", [JSON_NUMBER] = "a number",
        [JSON_STRING] = "a string", [JSON_ARRAY] = "an array", [JSON_OBJECT] = "an object",
    };
    return names[t];
}

bool json_bool(const struct json *v)
{
    assert(json_type(v) == JSON_BOOL);
    return cJSON_IsTrue(node_of(v));
}

double json_number(const struct json *v)
{
    assert(json_type(v) == JSON_NUMBER);
    return node_of(v)->valuedouble;
}

const char *json_string(const struct json *v)
{
    assert(json_type(v) == JSON_STRING);
    return node_of(v)->valuestring;
}

const struct json *json_first(const struct json *v)
{
    return json_of(node_of(v)->child);
}

const struct json *json_next(const struct json *v)
{
    return json_of(node_of(v)->next);
}

const char *json_key(const struct json *v)
{
    return node_of(v)->string;
}

const struct json *json_get(const struct json *object, const char *key)
{
    return json_of(cJSON_GetObjectItemCaseSensitive(node_of(object), key));
}

size_t json_offset(const struct json_doc *d, const struct json *v)
{
    return d->positions[node_of(v)->valueint].value;
}

size_t json_key_offset(const struct json_doc *d, const struct json *v)
{
    return d->positions[node_of(v)->valueint].key;
}

void json_line_column(struct str text, size_t offset, unsigned *line, unsigned *column)
{
    *line = *column = 1;
    for (size_t i = 0; i < offset && i < text.n; i++) {
        if (text.p[i] == '\n') {
            ++*line;
            *column = 0;
        }
        /* A character counts where it begins: continuation bytes do not. */
        if (((unsigned char)text.p[i] & 0xc0) != 0x80)
            ++*column;
    }
}

/* The two-character escape of `c`, or NULL. */
static const char *short_escape(char c)
{
    switch (c) {
    case '"': return "\\\"";
    case '\\': return "\\\\";
    case '\b': return "\\b";
    case '\f': return "\\f";
    case '\n': return "\\n";
    case '\r': return "\\r";
    case '\t': return "\\t";
    default: return NULL;
    }
}

/* Appends the first character of `s`, and says in *used how many bytes it had. */
static bool append_character(struct buf *out, struct str s, size_t *used)
{
    *used = utf8_length(s);
    if (*used == 0) {
        *used = 1;
        return buf_append(out, "\xef\xbf\xbd", 3);
    }
    const char *escape = short_escape(s.p[0]);
    if (escape)
        return buf_append(out, escape, 2);
    if ((unsigned char)s.p[0] < 0x20)
        return buf_printf(out, "\\u%04x", (unsigned)(unsigned char)s.p[0]);
    return buf_append(out, s.p, *used);
}

/* How many bytes at the front of `s` stand for themselves, one each. */
static size_t plain_prefix(struct str s)
{
    size_t n = 0;
    while (n < s.n && s.p[n] >= 0x20 && s.p[n] < 0x7f && s.p[n] != '"' && s.p[n] != '\\')
        n++;
    return n;
}

bool json_append_string(struct buf *out, struct str s)
{
    if (!buf_append(out, "\"", 1))
        return false;
    while (s.n > 0) {
        size_t n = plain_prefix(s);
        bool done = n > 0 ? buf_append(out, s.p, n) : append_character(out, s, &n);
        if (!done)
            return false;
        s = str_make(s.p + n, s.n - n);
    }
    return buf_append(out, "\"", 1);
}

bool json_append_number(struct buf *out, double v)
{
    char text[32];
    /* Any decimal of up to 15 digits survives the way through a normal double, so fewer need not be tried. */
    int digits = fabs(v) < DBL_MIN ? 1 : DBL_DIG, n;
    assert(isfinite(v));
    do
        n = snprintf(text, sizeof(text), "%.*g", digits, v);
    while (strtod(text, NULL) != v && digits++ < DBL_DECIMAL_DIG);
    return buf_append(out, text, (size_t)n);
}
