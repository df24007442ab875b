/* Classes of bytes that HTTP's grammar tells apart (RFC 9110 section 5.6, RFC 3986 section 2), in one table. */
#ifndef LB_HTTP_CHARS_H
#define LB_HTTP_CHARS_H

#include <stdbool.h>

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

#endif
