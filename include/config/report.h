/* The faults of one config file, gathered in any order and written in the order of their places. Used inside the config
 * layer. */
#ifndef LB_CONFIG_REPORT_H
#define LB_CONFIG_REPORT_H

#include "base/buf.h"
#include "base/str.h"

#include <stdbool.h>
#include <stddef.h>

/* Bytes of one message at most; a longer one is cut. */
#define REPORT_MESSAGE_MAX 1024u

struct report_line {
    size_t offset;        /* its place in the file */
    size_t start, length; /* its message in `messages` */
};

struct report {
    struct report_line *lines;
    size_t count, cap;
    size_t unshown; /* beyond CONFIG_FAULTS_MAX */
    struct buf messages;
    bool no_memory; /* something is missing from the report or from what it reports on */
};

/* Adds a message about the byte at `offset` of the file. */
void report_add(struct report *r, size_t offset, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* True when there is nothing to report. */
bool report_empty(const struct report *r);

/* Writes "name:line:column: message\n" for each, ordered by place. `text` is the file's content. */
void report_write(struct report *r, const char *name, struct str text, struct buf *out);

void report_fini(struct report *r);

#endif
