/* clients.json as text: {"clients":[ one object a line ],"saved_at":"...","boot":"17 5000"}. Pure functions of text and
 * table. */
#ifndef LB_LIMIT_SNAPSHOT_H
#define LB_LIMIT_SNAPSHOT_H

#include "base/buf.h"
#include "limit/client_table.h"

#include <sys/types.h>

/* One moment on both clocks: the buckets' and the wall's, the latter to the millisecond, as it is stored. */
struct instant {
    uint64_t now;
    uint64_t wall_ns;
};

/* What the buckets' time is counted on: the clock that runs from the machine's start on, whatever the wall clock does.
 */
struct boot_clock {
    uint64_t boot; /* which start that was, as words_boot() has it; 0: nobody knows */
    uint64_t zero; /* clock_boottime() at the buckets' time 0 */
};

/* What is wrong with a file's text, and where. */
struct text_fault {
    size_t offset;
    bool no_memory; /* nothing is wrong with the text: memory ran out */
    int unreadable; /* likewise: it could not be read, -errno */
    char what[224];
};

#define SNAPSHOT_BEGIN STR("{\"clients\":[")

/* Writing goes in two steps, for numbers take long to write: the thread that has the table notes what is to be said of
 * its clients, and the one that writes the file makes text of that. */

/* Appends a note of the client with its tokens as of `at`; negative when it has used more since than it had then. */
bool snapshot_note_client(struct buf *notes, const struct client_table *t, const struct client *c,
                          const struct instant *at) __attribute__((warn_unused_result));
/* Appends the clients of such notes; *last is the place of the last one written, 0 at first. Places are written where
 * they do not follow from the one before. */
bool snapshot_append_clients(struct buf *out, struct str notes, uint64_t *last) __attribute__((warn_unused_result));
bool snapshot_append_end(struct buf *out, const struct instant *at, const struct boot_clock *clock)
    __attribute__((warn_unused_result));

/* Adds the clients of a snapshot to an empty table, their buckets refilled for the time since it was saved: as `clock`
 * has it, where the snapshot says its reading in the same boot, else by the wall clock. Any layout that is valid JSON
 * is taken; tokens default to the capacity, saved_at to `at`, and a place to the next one, as does one that is not
 * behind the place before. *saved_wall_ns is saved_at, 0 where there is none. False with *fault filled when it is
 * damaged, or memory ran out: the table is then half filled. */
bool snapshot_parse(struct str text, struct client_table *t, const struct instant *at, const struct boot_clock *clock,
                    uint64_t *saved_wall_ns, struct text_fault *fault) __attribute__((warn_unused_result));

/* Gives up to `n` more bytes of a text: how many, 0 at its end, or -errno. */
struct snapshot_source {
    ssize_t (*read)(void *arg, char *p, size_t n);
    void *arg;
};

/* The same of a text that comes piece by piece: no more of it is kept than a piece, and a client that is longer. */
bool snapshot_read(const struct snapshot_source *source, struct client_table *t, const struct instant *at,
                   const struct boot_clock *clock, uint64_t *saved_wall_ns, struct text_fault *fault)
    __attribute__((warn_unused_result));

#endif
