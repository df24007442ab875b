/* A program under test as a process: started in a folder, its output caught in files there, waited for with deadlines.
 * What goes wrong fails the running test. */
#ifndef HARNESS_DAEMON_H
#define HARNESS_DAEMON_H

#include "harness/util.h"

#include <cjson/cJSON.h>

struct daemon {
    pid_t pid; /* 0 when none runs */
    char out[256], err[256];
    size_t parsed; /* bytes of `out` that are in `lines` */
    cJSON **lines; /* its log so far, one object a line; lines that are no JSON are left out */
    size_t line_count;
};

/* Starts `argv` (argv[0] a path, or a name in the build folder) with `dir` as working folder, stdout to dir/NAME.out
 * and stderr to dir/NAME.err. Signals a process of its own group. */
void daemon_start(struct daemon *d, const char *dir, const char *name, const char *const argv[]);

/* The exit status (128 + n when signal n ended it) as soon as it ends; a deadline passes otherwise. */
int daemon_wait(struct daemon *d);
int daemon_wait_for(struct daemon *d, int ms);
bool daemon_is_running(struct daemon *d);
void daemon_signal(const struct daemon *d, int signo);
/* kill -9, and waits. */
void daemon_kill(struct daemon *d);

/* Starts, waits, and gives the exit status; output stays readable. */
int daemon_run(struct daemon *d, const char *dir, const char *name, const char *const argv[]);

struct bytes daemon_stdout(const struct daemon *d);
struct bytes daemon_stderr(const struct daemon *d);
/* Nothing is in stderr: no complaint of a sanitizer or of valgrind. */
void daemon_expect_clean_stderr(const struct daemon *d);

/* Lines of its JSON log so far: a mark to look from. */
size_t daemon_mark(struct daemon *d);

/* The first line from `mark` on with that event, and with the fields in `match`: "key=value key=value", values as they
 * print, "key=*" for any; NULL matches all. Waits for it. The object is the daemon's. */
const cJSON *daemon_expect_event(struct daemon *d, size_t mark, const char *event, const char *match);
/* How many such lines there are now. */
size_t daemon_count_events(struct daemon *d, size_t mark, const char *event, const char *match);
/* A field of a line, as text; NULL when it has none. Valid until the next call. */
const char *log_field(const cJSON *line, const char *key);
/* A field of a line that must be a number. */
double log_number(const cJSON *line, const char *key);

/* Prints all its output, for a test that failed. */
void daemon_dump(const struct daemon *d);
void daemon_fini(struct daemon *d);

#endif
