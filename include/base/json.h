/* JSON (RFC 8259), strictly, with positions. The one user of cJSON: our own scan comes first and refuses what cJSON
 * would let pass, and remembers where each value stands; cJSON then builds the tree. */
#ifndef LB_BASE_JSON_H
#define LB_BASE_JSON_H

#include "base/buf.h"
#include "base/str.h"

#include <stdbool.h>
#include <stddef.h>

#define JSON_DEPTH_MAX 32u

struct json_doc; /* a parsed text, owning its tree */
struct json;     /* a value in it */

enum json_type { JSON_NULL, JSON_BOOL, JSON_NUMBER, JSON_STRING, JSON_ARRAY, JSON_OBJECT };

/* Room for a path; a longer one is cut. */
#define JSON_PATH_SIZE 160u

struct json_error {
    size_t offset;             /* byte in the text */
    char what[160];            /* what is wrong, a phrase: "a key is repeated: \"capacity\"" */
    char path[JSON_PATH_SIZE]; /* of the value concerned, printable: "backends[1].weight"; "" for the whole text */
    bool no_memory;            /* nothing is wrong with the text: memory ran out */
};

/* Parses `text` (need not be terminated). Refused: anything but one value with white space around it, depth over
 * JSON_DEPTH_MAX, invalid UTF-8, \u0000 and lone surrogates, raw controls in strings, numbers that are no finite
 * double, and, unless `allow_repeats`, a key that stands twice in one object. NULL on failure with *e filled. */
struct json_doc *json_parse(struct str text, bool allow_repeats, struct json_error *e)
    __attribute__((warn_unused_result));
void json_free(struct json_doc *d);

const struct json *json_root(const struct json_doc *d);
enum json_type json_type(const struct json *v);
const char *json_type_name(enum json_type t); /* "an object", "a string", ... for messages */
bool json_bool(const struct json *v);
double json_number(const struct json *v);
const char *json_string(const struct json *v); /* zero-terminated UTF-8, valid as long as the document */

/* Children of an array or object in order: first, next (NULL at the end); an object's member has a key. */
const struct json *json_first(const struct json *v);
const struct json *json_next(const struct json *v);
const char *json_key(const struct json *v);
/* The (first) member of that name, or NULL. */
const struct json *json_get(const struct json *object, const char *key);

/* Where a value, and a member's key, begin in the text. */
size_t json_offset(const struct json_doc *d, const struct json *v);
size_t json_key_offset(const struct json_doc *d, const struct json *v);

/* Line and column of an offset, both from 1; columns count characters (UTF-8 code points). */
void json_line_column(struct str text, size_t offset, unsigned *line, unsigned *column);

/* Appends a JSON string with its quotes; invalid UTF-8 is replaced by U+FFFD. */
bool json_append_string(struct buf *out, struct str s) __attribute__((warn_unused_result));
/* Appends a number in the shortest form that reads back the same ("10", "0.5", "1e+21"). */
bool json_append_number(struct buf *out, double v) __attribute__((warn_unused_result));

#endif
