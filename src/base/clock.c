/* Clocks and randomness from the kernel, and the two ways in which points of time are written.
 * Dates are put together by hand: strftime() depends on the locale and costs more. */
#include "base/clock.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

static uint64_t read_clock(clockid_t id)
{
    struct timespec ts;

    if (clock_gettime(id, &ts) != 0)
        abort();
    return (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
}

uint64_t clock_monotonic(void)
{
    return read_clock(CLOCK_MONOTONIC);
}

uint64_t clock_boottime(void)
{
    return read_clock(CLOCK_BOOTTIME);
}

uint64_t clock_wall(void)
{
    return read_clock(CLOCK_REALTIME);
}

void clock_random(void *p, size_t n)
{
    char *at = p;

    while (n) {
        ssize_t got = getrandom(at, n, 0);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0) {
            fputs("loadbalancer: the kernel has no random bytes\n", stderr);
            abort();
        }
        at += got;
        n -= (size_t)got;
    }
}

/* Writes `v` as exactly `width` digits and returns the place behind them. */
static char *put_digits(char *at, unsigned v, unsigned width)
{
    for (unsigned i = width; i-- > 0; v /= 10)
        at[i] = (char)('0' + v % 10);
    return at + width;
}

static char *put_hms(char *at, const struct tm *tm)
{
    at = put_digits(at, (unsigned)tm->tm_hour, 2);
    *at++ = ':';
    at = put_digits(at, (unsigned)tm->tm_min, 2);
    *at++ = ':';
    return put_digits(at, (unsigned)tm->tm_sec, 2);
}

static struct tm utc(uint64_t wall_ns)
{
    time_t seconds = (time_t)(wall_ns / NS_PER_S);
    struct tm tm = {0};

    gmtime_r(&seconds, &tm);
    return tm;
}

void clock_format_rfc3339(uint64_t wall_ns, char out[CLOCK_RFC3339_SIZE])
{
    struct tm tm = utc(wall_ns);
    char *at = put_digits(out, (unsigned)tm.tm_year + 1900, 4);

    *at++ = '-';
    at = put_digits(at, (unsigned)tm.tm_mon + 1, 2);
    *at++ = '-';
    at = put_digits(at, (unsigned)tm.tm_mday, 2);
    *at++ = 'T';
    at = put_hms(at, &tm);
    *at++ = '.';
    at = put_digits(at, (unsigned)(wall_ns / NS_PER_MS % 1000), 3);
    *at++ = 'Z';
    *at = '\0';
}

void clock_format_http_date(uint64_t wall_ns, char out[CLOCK_HTTP_DATE_SIZE])
{
    static const char days[] = "SunMonTueWedThuFriSat";
    static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    struct tm tm = utc(wall_ns);
    char *at = out;

    at = mempcpy(at, days + 3 * tm.tm_wday, 3);
    at = mempcpy(at, ", ", 2);
    at = put_digits(at, (unsigned)tm.tm_mday, 2);
    *at++ = ' ';
    at = mempcpy(at, months + 3 * tm.tm_mon, 3);
    *at++ = ' ';
    at = put_digits(at, (unsigned)tm.tm_year + 1900, 4);
    *at++ = ' ';
    at = put_hms(at, &tm);
    memcpy(at, " GMT", 5);
}

/* Checks `p` against a pattern in which '0' stands for a digit and everything else for itself. */
static bool has_form(const char *p, const char *pattern)
{
    for (; *pattern; p++, pattern++) {
        bool digit = *p >= '0' && *p <= '9';
        if (*pattern == '0' ? !digit : *p != *pattern)
            return false;
    }
    return true;
}

static int digits(const char *p, size_t n)
{
    int v = 0;

    for (size_t i = 0; i < n; i++)
        v = v * 10 + (p[i] - '0');
    return v;
}

static int days_in_month(int year, int month)
{
    static const char days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;

    return month == 2 && leap ? 29 : days[month - 1];
}

/* ".789Z", or "Z" alone, as nanoseconds. */
static bool parse_fraction(const char *p, size_t n, uint64_t *ns)
{
    uint64_t scale = NS_PER_S, v = 0;

    if (n < 1 || p[n - 1] != 'Z')
        return false;
    n--;
    if (n == 1 || n > 10 || (n > 1 && p[0] != '.'))
        return false;
    for (size_t i = 1; i < n; i++) {
        if (p[i] < '0' || p[i] > '9')
            return false;
        scale /= 10;
        v += (uint64_t)(p[i] - '0') * scale;
    }
    *ns = v;
    return true;
}

int clock_parse_rfc3339(const char *p, size_t n, uint64_t *wall_ns)
{
    const size_t head = sizeof("0000-00-00T00:00:00") - 1;
    uint64_t fraction, ns;
    struct tm tm = {0};

    if (n <= head || !has_form(p, "0000-00-00T00:00:00") || !parse_fraction(p + head, n - head, &fraction))
        return -1;
    int year = digits(p, 4), month = digits(p + 5, 2);
    tm.tm_year = year - 1900;
    tm.tm_mon = month - 1;
    tm.tm_mday = digits(p + 8, 2);
    tm.tm_hour = digits(p + 11, 2);
    tm.tm_min = digits(p + 14, 2);
    tm.tm_sec = digits(p + 17, 2);
    if (year < 1970 || month < 1 || month > 12 || tm.tm_mday < 1 || tm.tm_mday > days_in_month(year, month))
        return -1;
    /* 60 is a leap second, which runs into the next minute. */
    if (tm.tm_hour > 23 || tm.tm_min > 59 || tm.tm_sec > 60)
        return -1;
    if (__builtin_mul_overflow((uint64_t)timegm(&tm), NS_PER_S, &ns) || __builtin_add_overflow(ns, fraction, &ns))
        return -1;
    *wall_ns = ns;
    return 0;
}
