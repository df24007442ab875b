/* Inside of the reference reader, shared by its files. */
#ifndef HARNESS_REFERENCE_IMPL_H
#define HARNESS_REFERENCE_IMPL_H

#include "harness/reference.h"

/* The bytes at hand, and how far they have been read. */
struct reader {
    const char *p;
    size_t n, at;
};

enum line_result {
    LINE_WHOLE,
    LINE_MORE, /* no end of line yet, and no fault so far */
    LINE_BAD   /* a control byte, or a CR or LF that is no part of CRLF */
};

/* Takes a line without its CRLF. */
enum line_result reference_line(struct reader *in, struct span *line);

/* Takes a field line apart. False when it is none. */
bool reference_field_line(struct span line, struct reference_field *out);

/* Notes a fault: the first one's reason stays. */
void reference_fault(struct reference *r, unsigned statuses, const char *why);

/* What the head means: everything but its lines and limits. `target` as it came. */
void reference_head(struct reference *r, struct span target);
/* The same of a response. */
void reference_response_head(struct reference *r, bool to_head);

/* The content behind the head; sets the verdict. */
void reference_content(struct reference *r, struct reader *in);

/* Takes the next element that is not empty off the front of a comma-separated list. */
bool reference_element(struct span *list, struct span *element);

/* How often a field occurs; *value is the first one's. */
unsigned reference_find(const struct reference *r, const char *name, struct span *value);

bool reference_is_token(struct span s);
bool reference_is_tchar(char c);
struct span reference_trim(struct span s);

static inline struct span span_from(struct span s, size_t at)
{
    return (struct span){s.p + at, s.n - at};
}

static inline bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static inline bool is_hex(char c)
{
    return is_digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

static inline bool is_alpha(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

#endif
