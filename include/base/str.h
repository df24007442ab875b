/* Slices: a pointer and a length into somebody else's bytes, and checked parsing of numbers, sizes and durations from
 * them. A slice owns nothing and is not terminated by a zero. */
#ifndef LB_BASE_STR_H
#define LB_BASE_STR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct str {
    const char *p;
    size_t n;
};

/* A slice of a string literal; str_of() of a zero-terminated string (NULL gives the empty slice). */
#define STR(lit) ((struct str){(lit), sizeof(lit) - 1})

/* clang-format off */
/* The same as an initialiser, for tables. */
#define STR_INIT(lit) {(lit), sizeof(lit) - 1}
/* clang-format on */

static inline struct str str_of(const char *z)
{
    return (struct str){z ? z : "", z ? strlen(z) : 0};
}

static inline struct str str_make(const char *p, size_t n)
{
    return (struct str){p, n};
}

static inline bool str_eq(struct str a, struct str b)
{
    return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

/* For printf's "%.*s": STR_ARG(s) gives length and pointer. */
#define STR_ARG(s) (int)(s).n, (s).p

/* Lower-cases one ASCII letter; other bytes as they are. Independent of the locale. */
static inline unsigned char ascii_lower(unsigned char c)
{
    return (unsigned char)(c >= 'A' && c <= 'Z' ? c | 0x20 : c);
}

/* Equality with ASCII letters compared without regard to case (field names, RFC 9110 section 5.1). */
bool str_eq_nocase(struct str a, struct str b);

bool str_starts_with(struct str s, struct str prefix);

/* Position of byte `c` in `s`, or s.n when it is not there. */
size_t str_find(struct str s, char c);

/* `s` without leading and trailing SP and HTAB (OWS, RFC 9110 section 5.6.3). */
struct str str_trim_ows(struct str s);

/* Takes the next element of a comma-separated list (RFC 9110 section 5.6.1) off the front of `*list` into `*element`,
 * trimmed of OWS; empty elements are skipped. False when there is none left. Quoted strings are not understood: for
 * lists of tokens. */
bool str_next_element(struct str *list, struct str *element);

/* A decimal number of one or more digits and nothing else. False, and *out untouched, when it is no such number or over
 * UINT64_MAX. */
bool str_parse_u64(struct str s, uint64_t *out) __attribute__((warn_unused_result));

/* A hexadecimal number of 1 to 16 digits and nothing else; likewise. */
bool str_parse_hex(struct str s, uint64_t *out) __attribute__((warn_unused_result));

/* The 16 digits of v, lower-case, without a zero behind them. */
void str_write_hex(uint64_t v, char out[16]);

/* A duration such as "250ms", "2s", "1m", "1h", "0s": digits and one of the units ms, s, m, h. *ns is in nanoseconds.
 * False when malformed or over INT64_MAX nanoseconds. */
bool str_parse_duration(struct str s, uint64_t *ns) __attribute__((warn_unused_result));

/* A size such as "512", "64KiB", "1MiB", "2GiB": digits and an optional unit. False when malformed or over INT64_MAX.
 */
bool str_parse_size(struct str s, uint64_t *bytes) __attribute__((warn_unused_result));

/* Edit distance of Damerau and Levenshtein (restricted), for "did you mean". Strings longer than 64 count as unlike:
 * returns SIZE_MAX. */
size_t str_distance(struct str a, struct str b);

/* Compares secrets of equal length without a branch on their bytes; unequal lengths differ at once. */
bool str_eq_constant_time(struct str a, struct str b);

#endif
