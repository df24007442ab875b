/* clients.json.journal as text: one change a line, each a JSON object that ends in a checksum of what stands before it.
 * A line says what holds after the change, so that replaying it twice does no harm. Pure functions of text and
 * table. */
#ifndef LB_LIMIT_JOURNAL_H
#define LB_LIMIT_JOURNAL_H

#include "limit/client_json.h"
#include "limit/snapshot.h"

enum journal_op { JOURNAL_REGISTER, JOURNAL_UPDATE, JOURNAL_DELETE };

/* Appends the line of one change made at `wall_ns`: for a deletion only the id of `v` counts. */
bool journal_append(struct buf *out, enum journal_op op, const struct client_view *v, uint64_t wall_ns)
    __attribute__((warn_unused_result));

enum journal_end {
    JOURNAL_WHOLE, /* every line was good */
    JOURNAL_TORN,  /* the last one was cut off in writing, and is to be dropped */
    JOURNAL_BAD    /* *fault says what and where */
};

/* Makes the changes of `text` in a table that holds a snapshot saved at `saved_wall_ns`. A change older than the
 * snapshot leaves the tokens that the snapshot knows. *good is the length of the good lines. A torn line is the last
 * one, without an end or with zero bytes in it, which no line that was written whole has. */
enum journal_end journal_replay(struct str text, struct client_table *t, const struct instant *at,
                                uint64_t saved_wall_ns, size_t *good, struct text_fault *fault)
    __attribute__((warn_unused_result));

#endif
