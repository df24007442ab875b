/* Takes the log's lines once an iteration and brings them to stdout or a file without ever stalling the loop. A pipe,
 * terminal or socket, a stream, is written without blocking; all else, a device too, is taken for a file, and written
 * by a helper thread of its own, so that nobody else waits for a slow one. What is not taken waits, within
 * LOG_BUFFER_MAX. That a file cannot be written, or opened anew, is told on stderr, once, and so is the end of that. */
#ifndef LB_EVENT_LOG_WRITER_H
#define LB_EVENT_LOG_WRITER_H

#include "event/loop.h"

struct log_writer;

/* `path` NULL means stdout, else the file is opened for appending and created with mode 0640. To be called behind
 * signals_new(): for a file a thread is started. NULL, with errno, when it cannot be opened, or there is no thread. */
struct log_writer *log_writer_new(struct loop *l, const char *path);

/* Nothing waits to be written, and nothing is on its way. */
bool log_writer_is_idle(const struct log_writer *lw);

/* Opens the file anew by its path (SIGUSR1, after a rotation), on the helper thread: lines so far go to the old one. On
 * failure the old one stays in use, and `log_reopen_failed` in it says why, as stderr does; it is tried again each
 * second, until it succeeds, which `log_reopened` tells, or log_writer_move() takes its place. Without a path, or where
 * that is a stream's, there is nothing to do. */
void log_writer_reopen(struct log_writer *lw);

/* Goes on in the file that `fd`, which is taken over, has open at `path`: lines so far, and no later one, go to the old
 * one. A second call before that has happened takes the place of the first, and lines so far are those before it.
 * Neither may be a stream (log_writer_can_move() and file_kind()). Cannot fail but for memory: then nothing is changed,
 * and `fd` is closed. */
bool log_writer_move(struct log_writer *lw, int fd, const char *path) __attribute__((warn_unused_result));
bool log_writer_can_move(const struct log_writer *lw);

/* The process is to end at once: log_writer_free(), be it under way or not, is not to wait for a file for longer than
 * 200 ms from now on. */
void log_writer_hurry(struct log_writer *lw);

/* Writes what is left, closes, and ends the thread. For a stalled pipe at most 200 ms are waited, for a file two
 * seconds, during which the loop is turned: its thread hangs then, and is left to the end of the process with what it
 * has in hand. NULL is fine. */
void log_writer_free(struct log_writer *lw);

#endif
