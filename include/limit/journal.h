/* clients.json.journal as text: one change a line, each a JSON object that ends in a checksum of what stands before it.
 * A line says what holds after the change, so that replaying it twice does no harm. Pure functions of text and
 * table. */
#ifndef LB_LIMIT_JOURNAL_H
#define LB_LIMIT_JOURNAL_H

#include "limit/client_json.h"
#include "limit/snapshot.h"

enum journal_op { JOURNAL_REGISTER, JOURNAL_UPDATE, JOURNAL_DELETE };

/* Appends the line of one change made at `wall_ns` to its group, the lines that go to disk together: `group` begins
 * with the first of them. For a deletion only the id of `v` counts. */
bool journal_append(struct buf *group, enum journal_op op, const struct client_view *v, uint64_t wall_ns)
    __attribute__((warn_unused_result));

enum journal_end {
    JOURNAL_WHOLE, /* every line was good */
    JOURNAL_TORN,  /* the last group was cut off in writing: what follows the good lines is to be dropped */
    JOURNAL_BAD    /* damaged, or memory ran out: *fault says what and where */
};

/* Makes the changes of `text` in a table that holds a snapshot saved at `saved_wall_ns`. A change older than the
 * snapshot leaves the tokens that the snapshot knows. *good is the length of the good lines.
 *
 * A crash in the middle of a write leaves the last line without an end, or, at a power cut, zero bytes where a sector
 * of the group did not reach the disk, whatever of it stands behind them. Such a hole goes on to the end of a sector;
 * no line that was written whole has a zero byte. Each line says how far before it its group begins: a hole that lies
 * before the group of any later whole line is in lines that had been synced, and so is damage. */
enum journal_end journal_replay(struct str text, struct client_table *t, const struct instant *at,
                                uint64_t saved_wall_ns, size_t *good, struct text_fault *fault)
    __attribute__((warn_unused_result));

#endif
