/* The log: one line an event, built field by field into one bounded buffer. Nothing here writes to a file:
 * event/log_writer.h takes the buffer once an iteration. A line that does not fit is dropped and counted. One log for
 * the process, used by the loop's thread only (the one global of its kind: a log that has to be handed to every
 * function is handed to none). */
#ifndef LB_BASE_LOG_H
#define LB_BASE_LOG_H

#include "base/buf.h"
#include "base/str.h"

#include <stdbool.h>
#include <stdint.h>

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR };
enum log_format { LOG_TEXT, LOG_JSON };

/* Bytes of lines that may wait to be written; a line over it is dropped. */
#define LOG_BUFFER_MAX (1024u * 1024u)

/* Sets the least level and the form of the lines that follow. Before the first call: info, text. */
void log_configure(enum log_level least, enum log_format format);

/* True when a line of that level would be written: ask before costly preparations. */
bool log_enabled(enum log_level level);

/* Starts a line: `ts` (wall clock, RFC 3339, ms, UTC), `level`, `event`. Fields follow, then log_end(). Lines do not
 * nest. When the level is off, the calls up to log_end() do nothing. */
void log_begin(enum log_level level, const char *event);

/* One field each. Keys are literals of [a-z_]. In text, a value with spaces, quotes, '=' or nothing in it is quoted;
 * control bytes, DEL and bytes over 0x7e are escaped (\xNN in text; in JSON \u00NN, so that any bytes give a valid
 * line). */
void log_str(const char *key, struct str value);
void log_z(const char *key, const char *value);
void log_u64(const char *key, uint64_t value);
/* A number whose digits are given as JSON has them: "10", "0.5", "1e+21". */
void log_digits(const char *key, struct str digits);
/* A duration in milliseconds with three decimals, given in nanoseconds: `duration_ms=1.234`. */
void log_ms(const char *key, uint64_t ns);

/* Ends the line. */
void log_end(void);

/* Bytes waiting to be written. */
size_t log_pending(void);

/* Moves all waiting lines to `out`, which must be empty; the block that it may own is used for the lines that follow.
 */
void log_take(struct buf *out);

/* Tells the log how many bytes its taker still holds unwritten: they count against LOG_BUFFER_MAX. */
void log_set_backlog(size_t bytes);

/* What goes with a text that the taker could not bring anywhere. */
struct log_loss {
    uint64_t lines;     /* but for notices of dropped lines: */
    uint64_t announced; /* lines that those spoke of, which must be spoken of again */
};

/* Of a text of log lines, as they were taken. Looks at the text alone: any thread may ask. */
struct log_loss log_loss_of(struct str text);

/* Counts a loss: as if the lines had been dropped here, and the notices not been given. */
void log_count_loss(struct log_loss loss);

/* Says how many lines were dropped of which no line has spoken yet, if there are any, in a line of its own, which may
 * go beyond the bound: for the end, behind which no other comes. */
void log_announce(void);

/* Gives the log's memory back, with what is waiting: for the end of the process. */
void log_fini(void);

/* Lines dropped so far. After lines were dropped, the next one that fits is preceded by `log_dropped lines=N`. */
uint64_t log_dropped(void);

#endif
