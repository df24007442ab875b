/* The table behind http/chars.h, and the question about tokens.
 * The compiler works it out from the grammar's own terms: each row is 16 bytes of it. */
#include "http/chars.h"

#define IN(c, low, high) ((c) >= (low) && (c) <= (high))
#define IS_DIGIT(c)      IN(c, '0', '9')
#define IS_HEX(c)        (IS_DIGIT(c) || IN(c, 'a', 'f') || IN(c, 'A', 'F'))
#define IS_ALNUM(c)      (IS_DIGIT(c) || IN(c, 'a', 'z') || IN(c, 'A', 'Z'))
#define IS_TOKEN_MARK(c)                                                                                               \
    ((c) == '!' || IN(c, '#', '\'') || (c) == '*' || (c) == '+' || (c) == '-' || (c) == '.' || (c) == '^' ||           \
     (c) == '_' || (c) == '`' || (c) == '|' || (c) == '~')
#define IS_HOST_MARK(c)                                                                                                \
    ((c) == '-' || (c) == '.' || (c) == '_' || (c) == '~' || (c) == '!' || (c) == '$' || IN(c, '&', '+') ||            \
     (c) == ';' || (c) == '=')
#define IS_VISIBLE(c) IN(c, 0x21, 0x7e)
#define IS_FIELD(c)   ((c) == '\t' || (c) == ' ' || IS_VISIBLE(c) || (c) >= 0x80)

#define CLASS(c)                                                                                                       \
    ((IS_ALNUM(c) || IS_TOKEN_MARK(c) ? CHAR_TOKEN : 0) | (IS_FIELD(c) ? CHAR_FIELD : 0) |                             \
     (IS_VISIBLE(c) ? CHAR_VISIBLE : 0) | (IS_ALNUM(c) || IS_HOST_MARK(c) ? CHAR_REG_NAME : 0) |                       \
     (IS_DIGIT(c) ? CHAR_DIGIT : 0) | (IS_HEX(c) ? CHAR_HEX : 0) |                                                     \
     (IS_FIELD(c) && (c) != '"' && (c) != '\\' ? CHAR_QUOTED : 0))
#define FOUR(c) CLASS(c), CLASS((c) + 1), CLASS((c) + 2), CLASS((c) + 3)
#define ROW(c)  FOUR(c), FOUR((c) + 4), FOUR((c) + 8), FOUR((c) + 12)

const unsigned char http_chars[256] = {ROW(0x00), ROW(0x10), ROW(0x20), ROW(0x30), ROW(0x40), ROW(0x50),
                                       ROW(0x60), ROW(0x70), ROW(0x80), ROW(0x90), ROW(0xa0), ROW(0xb0),
                                       ROW(0xc0), ROW(0xd0), ROW(0xe0), ROW(0xf0)};

bool is_token(struct str s)
{
    for (size_t i = 0; i < s.n; i++)
        if (!char_is(s.p[i], CHAR_TOKEN))
            return false;
    return s.n > 0;
}
