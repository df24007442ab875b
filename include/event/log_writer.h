/* Takes the log's lines once an iteration and brings them to stdout or a file without ever stalling the loop. A regular
 * file is written by the helper thread; a pipe, terminal or socket is written without blocking, and what it does not
 * take waits, within LOG_BUFFER_MAX. */
#ifndef LB_EVENT_LOG_WRITER_H
#define LB_EVENT_LOG_WRITER_H

#include "event/loop.h"
#include "event/worker.h"

struct log_writer;

/* `path` NULL means stdout, else the file is opened for appending and created with mode 0640. NULL, with errno, when it
 * cannot be opened. */
struct log_writer *log_writer_new(struct loop *l, struct worker *w, const char *path);

/* Opens the file anew by its path (SIGUSR1, after a rotation), on the helper thread: lines so far go to the old one. On
 * failure the old one stays in use, and `log_reopen_failed` in it says why. Without a path, or where that is no regular
 * file, there is nothing to do. */
void log_writer_reopen(struct log_writer *lw);

/* Goes on in the file that `fd`, which is taken over, has open at `path`: lines so far go to the old one. A second call
 * before that has happened takes the place of the first. Both must be regular files (log_writer_can_move() and
 * file_kind()). Cannot fail but for memory: then nothing is changed, and `fd` is closed. */
bool log_writer_move(struct log_writer *lw, int fd, const char *path) __attribute__((warn_unused_result));
bool log_writer_can_move(const struct log_writer *lw);

/* Writes what is left (for a stalled pipe at most 200 ms are waited) and closes. NULL is fine. To be called before
 * worker_free(). */
void log_writer_free(struct log_writer *lw);

#endif
