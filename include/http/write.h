/* Writing message heads into room that the caller measured beforehand. A writer that runs out of room remembers it and
 * writes no more. */
#ifndef LB_HTTP_WRITE_H
#define LB_HTTP_WRITE_H

#include "base/str.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

struct head_writer {
    char *p;
    size_t n, cap;
    bool full; /* something did not fit: what is there must not be sent */
};

static inline struct head_writer head_writer_on(char *p, size_t cap)
{
    return (struct head_writer){p, 0, cap, false};
}

static inline struct str head_writer_str(const struct head_writer *w)
{
    return (struct str){w->p, w->n};
}

/* In place, because most of what is written has a length that the compiler knows, and is two or three stores then. */
__attribute__((always_inline)) static inline void write_str(struct head_writer *w, struct str s)
{
    if (w->full || w->cap - w->n < s.n) {
        w->full = true;
        return;
    }
    if (s.n > 0)
        memcpy(w->p + w->n, s.p, s.n);
    w->n += s.n;
}

void write_u64(struct head_writer *w, uint64_t v);

/* "Name: value\r\n" */
void write_field(struct head_writer *w, struct str name, struct str value);
void write_field_u64(struct head_writer *w, struct str name, uint64_t value);

/* "HTTP/1.1 404 Not Found\r\n" with the reason given, or the status' own (RFC 9110 section 15) when `reason` is empty.
 */
void write_status_line(struct head_writer *w, unsigned status, struct str reason);

/* "METHOD target HTTP/1.1\r\n" */
void write_request_line(struct head_writer *w, struct str method, struct str target);

/* The empty line. */
void write_end(struct head_writer *w);

/* The standard reason phrase; "Unknown" for a status without one. */
struct str status_reason(unsigned status);

#endif
