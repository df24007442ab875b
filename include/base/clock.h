/* Time and randomness from the kernel: one of the five files that make system calls. Everything else takes time as a
 * parameter or from the loop's cached clock. */
#ifndef LB_BASE_CLOCK_H
#define LB_BASE_CLOCK_H

#include <stddef.h>
#include <stdint.h>

#define NS_PER_US UINT64_C(1000)
#define NS_PER_MS UINT64_C(1000000)
#define NS_PER_S  UINT64_C(1000000000)

/* Monotonic time in nanoseconds (CLOCK_MONOTONIC): never steps back; its zero means nothing. */
uint64_t clock_monotonic(void);

/* The same, but it goes on while the machine sleeps (CLOCK_BOOTTIME). No system call either since Linux 5.3, on x86 and
 * arm64. */
uint64_t clock_boottime(void);

/* Wall-clock time in nanoseconds since 1970-01-01T00:00:00Z; may step. */
uint64_t clock_wall(void);

/* Fills `p` with random bytes that nobody can guess (getrandom(2)); aborts when the kernel has none to give. */
void clock_random(void *p, size_t n);

/* Writes `wall_ns` as RFC 3339 in UTC with milliseconds, "2026-01-31T12:34:56.789Z", 24 bytes and a zero. */
#define CLOCK_RFC3339_SIZE 25
void clock_format_rfc3339(uint64_t wall_ns, char out[CLOCK_RFC3339_SIZE]);

/* Parses that form (with or without a fraction of 1 to 9 digits; only "Z") back. Returns 0, or -1 when malformed. */
int clock_parse_rfc3339(const char *p, size_t n, uint64_t *wall_ns) __attribute__((warn_unused_result));

/* Writes `wall_ns` as an HTTP date, "Sat, 31 Jan 2026 12:34:56 GMT" (IMF-fixdate, RFC 9110 section 5.6.7), 29 bytes and
 * a zero. */
#define CLOCK_HTTP_DATE_SIZE 30
void clock_format_http_date(uint64_t wall_ns, char out[CLOCK_HTTP_DATE_SIZE]);

#endif
