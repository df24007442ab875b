/* Writing of JSON's strings and numbers: any bytes give a valid string, any finite double a number that reads back the
 * same. */
#include "base/json.h"
#include "base/json_scan.h"

#include <assert.h>
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

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
    *used = json_utf8_length(s);
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
