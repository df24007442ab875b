/* Small things that every end-to-end test needs: deadlines, growing byte strings, ports, folders, files, /proc. What
 * fails here fails the running test, unless its comment says otherwise. */
#ifndef HARNESS_UTIL_H
#define HARNESS_UTIL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* How long anything may take that ought to happen at once, in ms: generous, and more so under a sanitizer or
 * valgrind. */
int patience_ms(void);

/* True when the programs under test run under valgrind (LB_VALGRIND=1). */
bool is_valgrind_run(void);

/* True where memory and speed mean nothing: under a sanitizer, valgrind, or where coverage is counted. */
bool is_instrumented(void);

/* True when the long variants of tests are asked for (LB_E2E_BIG=1). */
bool is_big_run(void);

/* A monotonic point in time in ms; 0 is never one. */
uint64_t now_ms(void);
uint64_t deadline_in(int ms);
/* What is left of it, for poll(2): 0 when it has passed. */
int left_ms(uint64_t deadline);
/* A short rest inside a loop that looks for a condition. */
void rest(void);

/* A growing byte string; always terminated by a zero behind its end. Zero-initialised it is empty. */
struct bytes {
    char *p;
    size_t n, cap;
};
void bytes_add(struct bytes *b, const void *p, size_t n);
void bytes_addf(struct bytes *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Drops `n` bytes from the front. */
void bytes_drop(struct bytes *b, size_t n);
void bytes_free(struct bytes *b);

/* A TCP port of 127.0.0.1 that nobody listens on, and that no other test program gets as long as this one lives. */
int port_reserve(void);

/* The folder of the programs under test: LB_BUILD, or the folder above this program's own. */
const char *build_dir(void);

/* A new folder under TMPDIR, and its removal with all that is in it. */
void dir_make(char *out, size_t size);
void dir_remove(const char *dir);

/* A file's whole content (empty when there is no such file), and its replacement. */
struct bytes file_content(const char *path);
void file_put(const char *path, const char *content);

/* Of a process: a line of /proc/PID/status in KiB ("VmRSS", "VmHWM"), its open descriptors, the CPU time of its first
 * thread in ns, and of all its threads in ms, to the kernel's tick. */
long proc_kib(pid_t pid, const char *key);
int proc_fds(pid_t pid);
uint64_t proc_cpu_ns(pid_t pid);
unsigned proc_cpu_ms(pid_t pid);
/* From now on its VmHWM is that of the time from now on. False where that may not be asked for. */
bool proc_forget_peak(pid_t pid);

/* SHA-256, fed piece by piece; the result as hexadecimal text. */
struct digest;
struct digest *digest_new(void);
void digest_add(void *digest, const void *p, size_t n);
#define DIGEST_TEXT 65
void digest_end(struct digest *d, char out[DIGEST_TEXT]);

/* Bytes made from a seed, the same each time: `n` bytes from offset `at` of an endless stream of period 2^16 * 251. */
void pattern_fill(void *p, size_t n, uint64_t at);

/* Raises RLIMIT_NOFILE of this process (and those it starts) to `wanted` or as far as it goes; returns what it is. */
long raise_fd_limit(long wanted);

#endif
