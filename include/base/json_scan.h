/* The scan that json_parse() begins with. Used by base/json.c only. */
#ifndef LB_BASE_JSON_SCAN_H
#define LB_BASE_JSON_SCAN_H

#include "base/json.h"

/* Where a value, and its key if it is a member, begin. */
struct json_position {
    size_t value, key; /* key: the text's length when there is none */
};

/* Documents of a few values, the usual case, need no second block. */
#define JSON_POSITIONS_INLINE 12u

/* The positions of all values in the order of the document, each before what it holds. It points into itself: not to be
 * copied. */
struct json_positions {
    struct json_position *v;
    size_t count, cap;
    struct json_position small[JSON_POSITIONS_INLINE];
};

void json_positions_init(struct json_positions *p);
void json_positions_fini(struct json_positions *p);

struct json_scan {
    struct str text;
    size_t at;
    unsigned depth;
    struct json_positions *positions;
    struct json_error *e;
};

/* Checks the whole text and fills the positions. False with *e filled. */
bool json_scan(struct json_scan *s) __attribute__((warn_unused_result));

/* Fills *e, with the path of what is at `offset`, and returns false. */
bool json_scan_fail(struct json_scan *s, size_t offset, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
bool json_scan_no_memory(struct json_scan *s);

/* Copies what can be printed of `text`, cut at the end of a character; terminated. */
void json_printable(char *out, size_t size, struct str text);

/* The path of what is at `offset` of a text that is well-formed up to there, keys as the text has them. */
void json_path_at(struct str text, size_t offset, char out[JSON_PATH_SIZE]);

/* The length of the well-formed UTF-8 character (RFC 3629 section 4) that begins `s`, or 0. */
size_t json_utf8_length(struct str s);

#endif
