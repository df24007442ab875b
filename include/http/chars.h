/* Classes of bytes that HTTP's grammar tells apart (RFC 9110 section 5.6, RFC 3986 section 2), in one table. */
#ifndef LB_HTTP_CHARS_H
#define LB_HTTP_CHARS_H

#include "base/str.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum char_class {
    CHAR_TOKEN = 1,    /* tchar */
    CHAR_FIELD = 2,    /* in field values and reason phrases: HTAB, SP, VCHAR, obs-text */
    CHAR_VISIBLE = 4,  /* VCHAR */
    CHAR_REG_NAME = 8, /* in a host name: unreserved and sub-delims, but the comma and '%' */
    CHAR_DIGIT = 16,
    CHAR_HEX = 32,
    CHAR_QUOTED = 64 /* qdtext of a quoted string */
};

extern const unsigned char http_chars[256];

/* True when `c` is of one of the classes. */
static inline bool char_is(char c, unsigned classes)
{
    return (http_chars[(unsigned char)c] & classes) != 0;
}

/* Is it a token (RFC 9110 section 5.6.2)? The empty slice is none. */
bool is_token(struct str s);

/* Are the eight bytes at `p` all of `least` (32 or 33) to 126? In one 64-bit word: a byte under `least` borrows from
 * its highest bit, 127 carries into it, and higher ones have it set. */
static inline bool chars_are_plain(const char *p, unsigned least)
{
    const uint64_t ones = UINT64_C(0x0101010101010101);
    uint64_t word;

    memcpy(&word, p, sizeof word);
    return ((word | (word - ones * least) | (word + ones)) & ones << 7) == 0;
}

/* Are the four bytes at `p` all of the class, which is one? */
static inline bool chars_are_four(const char *p, enum char_class class)
{
    return (http_chars[(unsigned char)p[0]] & http_chars[(unsigned char)p[1]] & http_chars[(unsigned char)p[2]] &
            http_chars[(unsigned char)p[3]] & class) != 0;
}

/* How many of the `n` bytes from `p` on are of the class, which is one: up to the first that is not. */
__attribute__((always_inline)) static inline size_t chars_run(const char *p, size_t n, enum char_class class)
{
    size_t at = 0;

    if (class == CHAR_FIELD || class == CHAR_VISIBLE)
        while (n - at >= sizeof(uint64_t) && chars_are_plain(p + at, class == CHAR_FIELD ? ' ' : ' ' + 1))
            at += sizeof(uint64_t);
    else
        while (n - at >= 4 && chars_are_four(p + at, class))
            at += 4;
    while (at < n && char_is(p[at], class))
        at++;
    return at;
}

#endif
