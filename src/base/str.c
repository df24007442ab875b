/* Slices: comparison, splitting, and checked parsing of numbers with and without a unit.
 * Everything is ASCII and independent of the locale. */
#include "base/str.h"

#include "base/clock.h"

#include <endian.h>

struct unit {
    struct str name;
    uint64_t factor;
};

static const struct unit durations[] = {{STR_INIT("ms"), NS_PER_MS},
                                        {STR_INIT("s"), NS_PER_S},
                                        {STR_INIT("m"), 60 * NS_PER_S},
                                        {STR_INIT("h"), 3600 * NS_PER_S},
                                        {{NULL, 0}, 0}};

static const struct unit sizes[] = {{STR_INIT(""), 1},
                                    {STR_INIT("KiB"), UINT64_C(1) << 10},
                                    {STR_INIT("MiB"), UINT64_C(1) << 20},
                                    {STR_INIT("GiB"), UINT64_C(1) << 30},
                                    {{NULL, 0}, 0}};

bool str_eq_nocase(struct str a, struct str b)
{
    if (a.n != b.n)
        return false;
    if (a.n > 0 && memcmp(a.p, b.p, a.n) == 0) /* as a rule they are spelled alike */
        return true;
    for (size_t i = 0; i < a.n; i++)
        if (ascii_lower((unsigned char)a.p[i]) != ascii_lower((unsigned char)b.p[i]))
            return false;
    return true;
}

bool str_starts_with(struct str s, struct str prefix)
{
    return s.n >= prefix.n && str_eq(str_make(s.p, prefix.n), prefix);
}

size_t str_find(struct str s, char c)
{
    const char *at = s.n ? memchr(s.p, c, s.n) : NULL;
    return at ? (size_t)(at - s.p) : s.n;
}

static bool is_ows(char c)
{
    return c == ' ' || c == '\t';
}

struct str str_trim_ows(struct str s)
{
    while (s.n && is_ows(s.p[0]))
        s = str_make(s.p + 1, s.n - 1);
    while (s.n && is_ows(s.p[s.n - 1]))
        s.n--;
    return s;
}

bool str_next_element(struct str *list, struct str *element)
{
    while (list->n) {
        size_t comma = str_find(*list, ',');
        struct str first = str_trim_ows(str_make(list->p, comma));
        size_t taken = comma < list->n ? comma + 1 : comma;
        *list = str_make(list->p + taken, list->n - taken);
        if (first.n) {
            *element = first;
            return true;
        }
    }
    return false;
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

bool str_parse_u64(struct str s, uint64_t *out)
{
    uint64_t v = 0;

    if (s.n == 0)
        return false;
    for (size_t i = 0; i < s.n; i++) {
        if (!is_digit(s.p[i]) || __builtin_mul_overflow(v, 10u, &v) ||
            __builtin_add_overflow(v, (uint64_t)(s.p[i] - '0'), &v))
            return false;
    }
    *out = v;
    return true;
}

static int hex_digit(char c)
{
    unsigned char lower = ascii_lower((unsigned char)c);

    if (is_digit(c))
        return c - '0';
    return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

bool str_parse_hex(struct str s, uint64_t *out)
{
    uint64_t v = 0;

    if (s.n == 0 || s.n > 16)
        return false;
    for (size_t i = 0; i < s.n; i++) {
        int d = hex_digit(s.p[i]);
        if (d < 0)
            return false;
        v = v << 4 | (uint64_t)d;
    }
    *out = v;
    return true;
}

/* Eight digits at once, a byte of `x` each: a request needs 32, and one by one they took 2 % of its instructions. */
static void write_hex32(uint32_t v, char *out)
{
    uint64_t x = __builtin_bswap32(v);
    x = (x | x << 16) & UINT64_C(0x0000ffff0000ffff);
    x = (x | x << 8) & UINT64_C(0x00ff00ff00ff00ff);
    x = (x >> 4 | x << 8) & UINT64_C(0x0f0f0f0f0f0f0f0f); /* the high half of each byte first */
    uint64_t letters = ((x + UINT64_C(0x0606060606060606)) >> 4) & UINT64_C(0x0101010101010101);
    x += UINT64_C(0x3030303030303030) + letters * ('a' - '0' - 10);
    x = htole64(x);
    memcpy(out, &x, sizeof x);
}

void str_write_hex(uint64_t v, char out[16])
{
    write_hex32((uint32_t)(v >> 32), out);
    write_hex32((uint32_t)v, out + 8);
}

/* Digits and then exactly one of the units of the table, which ends in a factor of 0. */
static bool parse_with_unit(struct str s, const struct unit *units, uint64_t *out)
{
    size_t digits = 0;
    uint64_t v;

    while (digits < s.n && is_digit(s.p[digits]))
        digits++;
    struct str unit = str_make(s.p + digits, s.n - digits);
    if (!str_parse_u64(str_make(s.p, digits), &v))
        return false;
    while (units->factor && !str_eq(units->name, unit))
        units++;
    if (!units->factor || __builtin_mul_overflow(v, units->factor, &v) || v > INT64_MAX)
        return false;
    *out = v;
    return true;
}

bool str_parse_duration(struct str s, uint64_t *ns)
{
    return parse_with_unit(s, durations, ns);
}

bool str_parse_size(struct str s, uint64_t *bytes)
{
    return parse_with_unit(s, sizes, bytes);
}

#define DISTANCE_MAX 64u

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* Fills row `i` of the distance matrix from the two rows above it. */
static void distance_row(struct str a, struct str b, size_t i, size_t row[3][DISTANCE_MAX + 1])
{
    size_t *now = row[i % 3], *above = row[(i + 2) % 3], *above2 = row[(i + 1) % 3];

    now[0] = i;
    for (size_t j = 1; j <= b.n; j++) {
        size_t differ = a.p[i - 1] != b.p[j - 1];
        now[j] = least(least(above[j], now[j - 1]) + 1, above[j - 1] + differ);
        if (i > 1 && j > 1 && a.p[i - 1] == b.p[j - 2] && a.p[i - 2] == b.p[j - 1])
            now[j] = least(now[j], above2[j - 2] + 1);
    }
}

size_t str_distance(struct str a, struct str b)
{
    size_t row[3][DISTANCE_MAX + 1];

    if (a.n > DISTANCE_MAX || b.n > DISTANCE_MAX)
        return SIZE_MAX;
    for (size_t j = 0; j <= b.n; j++)
        row[0][j] = j;
    for (size_t i = 1; i <= a.n; i++)
        distance_row(a, b, i, row);
    return row[a.n % 3][b.n];
}

bool str_eq_constant_time(struct str a, struct str b)
{
    volatile unsigned char differ = 0;

    if (a.n != b.n)
        return false;
    for (size_t i = 0; i < a.n; i++)
        differ = (unsigned char)(differ | ((unsigned char)a.p[i] ^ (unsigned char)b.p[i]));
    return differ == 0;
}
