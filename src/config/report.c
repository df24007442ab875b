/* Gathering and ordering of messages about places in a file. Their number is bounded, and running out of memory here is
 * itself reported. */
#include "config/report.h"

#include "base/json.h"
#include "config/config.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

static bool grow(struct report *r)
{
    if (r->count < r->cap)
        return true;
    size_t cap = r->cap ? r->cap * 2 : 16;
    struct report_line *lines = realloc(r->lines, cap * sizeof(*lines));
    if (!lines)
        return false;
    r->lines = lines;
    r->cap = cap;
    return true;
}

void report_add(struct report *r, size_t offset, const char *fmt, ...)
{
    char message[REPORT_MESSAGE_MAX];
    va_list args;
    if (r->count == CONFIG_FAULTS_MAX) {
        r->unshown++;
        return;
    }
    va_start(args, fmt);
    int n = vsnprintf(message, sizeof(message), fmt, args);
    va_end(args);
    size_t length = n < 0 ? 0 : (size_t)n < sizeof(message) ? (size_t)n : sizeof(message) - 1;
    size_t start = r->messages.len;
    if (!grow(r) || !buf_append(&r->messages, message, length)) {
        r->no_memory = true;
        return;
    }
    r->lines[r->count++] = (struct report_line){offset, start, length};
}

bool report_empty(const struct report *r)
{
    return r->count == 0 && !r->no_memory;
}

/* By place, and at one place in the order of adding. */
static int compare_lines(const void *a, const void *b)
{
    const struct report_line *x = a, *y = b;
    if (x->offset != y->offset)
        return x->offset < y->offset ? -1 : 1;
    return x->start < y->start ? -1 : x->start > y->start;
}

static bool write_line(const struct report *r, const struct report_line *l, const char *name, struct str text,
                       struct buf *out)
{
    unsigned line, column;
    json_line_column(text, l->offset, &line, &column);
    return buf_printf(out, "%s:%u:%u: ", name, line, column) &&
           buf_append(out, buf_str(&r->messages).p + l->start, l->length) && buf_append(out, "\n", 1);
}

void report_write(struct report *r, const char *name, struct str text, struct buf *out)
{
    bool written = true;
    if (r->count > 0)
        qsort(r->lines, r->count, sizeof(*r->lines), compare_lines);
    for (size_t i = 0; i < r->count && written; i++)
        written = write_line(r, &r->lines[i], name, text, out);
    if (written && r->unshown > 0)
        written = buf_printf(out, "%s: %zu more faults are not shown\n", name, r->unshown);
    if (!written || r->no_memory)
        (void)!buf_printf(out, "%s: there is no memory to check it\n", name);
}

void report_fini(struct report *r)
{
    free(r->lines);
    buf_fini(&r->messages);
    *r = (struct report){0};
}
