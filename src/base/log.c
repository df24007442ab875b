/* Log lines, built in place at the end of the buffer that the writer takes.
 * A field reserves room for its worst case once and is then written without further checks. */
#include "base/log.h"

#include "base/clock.h"
#include "base/metrics.h"

#include <assert.h>

#define U64_DIGITS 20u
#define NOTICE     STR("log_dropped") /* the event that says that lines were dropped before it */
/* A block that a burst has made larger than this is not kept for the lines that follow. */
#define KEPT_BLOCK (256u * 1024u)

static struct {
    enum log_level least;
    enum log_format format;
    struct buf lines; /* whole lines, and behind them the one that is being built */
    size_t line;      /* where that one begins, with the notice of dropped lines that may precede it */
    bool open, broken;
    uint64_t announced; /* lines that the notice speaks of */
    uint64_t dropped, unannounced;
    size_t backlog;
    uint64_t stamp_second; /* what `stamp` is made for */
    char stamp[CLOCK_RFC3339_SIZE];
} log_state = {.least = LOG_INFO, .format = LOG_TEXT, .stamp_second = UINT64_MAX};

static const struct {
    struct str text, json;
} levels[] = {[LOG_DEBUG] = {STR_INIT(" debug "), STR_INIT("\",\"level\":\"debug\",\"event\":\"")},
              [LOG_INFO] = {STR_INIT(" info  "), STR_INIT("\",\"level\":\"info\",\"event\":\"")},
              [LOG_WARN] = {STR_INIT(" warn  "), STR_INIT("\",\"level\":\"warn\",\"event\":\"")},
              [LOG_ERROR] = {STR_INIT(" error "), STR_INIT("\",\"level\":\"error\",\"event\":\"")}};

/* What a byte asks for: nothing, quotes around a text value, or an escape. JSON always has the quotes. */
enum { PLAIN, QUOTED, BACKSLASH, CODE };

static inline int kind_of(unsigned char c)
{
    if (c < 0x20 || c > 0x7e)
        return CODE;
    if (c == '"' || c == '\\')
        return BACKSLASH;
    return c == ' ' || c == '=' ? QUOTED : PLAIN;
}

void log_configure(enum log_level least, enum log_format format)
{
    log_state.least = least;
    log_state.format = format;
}

bool log_enabled(enum log_level level)
{
    return level >= log_state.least;
}

/* Room for `n` bytes at the end of the line; NULL, and the line is given up, when there is no memory. */
static char *room(size_t n)
{
    if (log_state.broken)
        return NULL;
    if (!buf_reserve(&log_state.lines, n)) {
        log_state.broken = true;
        return NULL;
    }
    return buf_tail(&log_state.lines);
}

/* Says where the bytes that were written to the room end. */
static void written(const char *end)
{
    buf_added(&log_state.lines, (size_t)(end - buf_tail(&log_state.lines)));
}

static char *put(char *at, struct str s)
{
    return (char *)mempcpy(at, s.p, s.n);
}

static char *put_u64(char *at, uint64_t v)
{
    char digits[U64_DIGITS], *p = digits + U64_DIGITS;

    do {
        *--p = (char)('0' + v % 10);
        v /= 10;
    } while (v);
    return put(at, str_make(p, (size_t)(digits + U64_DIGITS - p)));
}

/* The time with its date formatted once a second, and only the milliseconds each time. */
static char *put_stamp(char *at, uint64_t wall_ns)
{
    uint64_t ms = wall_ns / NS_PER_MS % 1000;

    if (wall_ns / NS_PER_S != log_state.stamp_second) {
        clock_format_rfc3339(wall_ns, log_state.stamp);
        log_state.stamp_second = wall_ns / NS_PER_S;
    }
    log_state.stamp[20] = (char)('0' + ms / 100);
    log_state.stamp[21] = (char)('0' + ms / 10 % 10);
    log_state.stamp[22] = (char)('0' + ms % 10);
    return put(at, str_make(log_state.stamp, CLOCK_RFC3339_SIZE - 1));
}

static void begin_line(enum log_level level, struct str event)
{
    char *at = room(64 + CLOCK_RFC3339_SIZE + event.n);

    if (!at)
        return;
    if (log_state.format == LOG_JSON) {
        at = put(at, STR("{\"ts\":\""));
        at = put_stamp(at, clock_wall());
        at = put(at, levels[level].json);
        at = put(at, event);
        *at++ = '"';
    } else {
        at = put_stamp(at, clock_wall());
        at = put(at, levels[level].text);
        at = put(at, event);
    }
    written(at);
}

static void end_line(void)
{
    char *at = room(2);

    if (!at)
        return;
    if (log_state.format == LOG_JSON)
        *at++ = '}';
    *at++ = '\n';
    written(at);
}

void log_begin(enum log_level level, const char *event)
{
    assert(!log_state.open);
    if (!log_enabled(level))
        return;
    log_state.open = true;
    log_state.broken = false;
    log_state.line = log_state.lines.len;
    log_state.announced = log_state.unannounced;
    if (log_state.announced) {
        begin_line(LOG_WARN, NOTICE);
        log_u64("lines", log_state.announced);
        end_line();
    }
    begin_line(level, str_of(event));
}

/* Starts a field whose value takes at most `n` bytes; NULL when the line is off or given up. */
static char *begin_field(const char *key, size_t n)
{
    struct str k = str_of(key);
    char *at = log_state.open ? room(k.n + n + 4) : NULL;

    if (!at)
        return NULL;
    if (log_state.format == LOG_JSON) {
        at = put(at, STR(",\""));
        at = put(at, k);
        return put(at, STR("\":"));
    }
    *at++ = ' ';
    at = put(at, k);
    *at++ = '=';
    return at;
}

static char *put_escaped(char *at, unsigned char c)
{
    static const char hex[] = "0123456789abcdef";

    switch (kind_of(c)) {
    case CODE:
        at = put(at, log_state.format == LOG_JSON ? STR("\\u00") : STR("\\x"));
        *at++ = hex[c >> 4];
        *at++ = hex[c & 15];
        return at;
    case BACKSLASH: *at++ = '\\'; break;
    default: break;
    }
    *at++ = (char)c;
    return at;
}

/* The most that any byte of a value asks for. */
static int kind_of_value(struct str value)
{
    int most = PLAIN;

    for (size_t i = 0; i < value.n; i++) {
        int kind = kind_of((unsigned char)value.p[i]);
        most = kind > most ? kind : most;
    }
    return most;
}

static char *put_value(char *at, struct str value)
{
    int kind = kind_of_value(value);
    bool quotes = log_state.format == LOG_JSON || kind != PLAIN || value.n == 0;

    if (quotes)
        *at++ = '"';
    if (kind <= QUOTED && value.n)
        at = put(at, value);
    else
        for (size_t i = 0; i < value.n; i++)
            at = put_escaped(at, (unsigned char)value.p[i]);
    if (quotes)
        *at++ = '"';
    return at;
}

void log_str(const char *key, struct str value)
{
    const size_t longest_escape = sizeof("\\u0000") - 1;
    char *at;

    /* A value that could not fit in any case is not worth the memory to find out. */
    if (value.n > LOG_BUFFER_MAX) {
        log_state.broken = true;
        return;
    }
    at = begin_field(key, longest_escape * value.n + 2);
    if (at)
        written(put_value(at, value));
}

void log_z(const char *key, const char *value)
{
    log_str(key, str_of(value));
}

void log_u64(const char *key, uint64_t value)
{
    char *at = begin_field(key, U64_DIGITS);

    if (at)
        written(put_u64(at, value));
}

void log_digits(const char *key, struct str digits)
{
    char *at = begin_field(key, digits.n);

    if (at)
        written(put(at, digits));
}

void log_ms(const char *key, uint64_t ns)
{
    uint64_t us = ns / NS_PER_US;
    char *at = begin_field(key, U64_DIGITS + 4);

    if (!at)
        return;
    at = put_u64(at, us / 1000);
    *at++ = '.';
    *at++ = (char)('0' + us / 100 % 10);
    *at++ = (char)('0' + us / 10 % 10);
    *at++ = (char)('0' + us % 10);
    written(at);
}

/* Of how many dropped lines does this line speak? 0: it is no notice. */
static uint64_t notice_of(struct str line)
{
    bool json = line.n > 0 && line.p[0] == '{';
    struct str level = json ? levels[LOG_WARN].json : levels[LOG_WARN].text;
    struct str key = json ? STR("\",\"lines\":") : STR(" lines=");
    struct str parts[] = {level, NOTICE, key};
    size_t at = (json ? STR("{\"ts\":\"").n : 0) + CLOCK_RFC3339_SIZE - 1;
    uint64_t n = 0;

    for (unsigned i = 0; i < 3; at += parts[i++].n)
        if (line.n < at + parts[i].n || memcmp(line.p + at, parts[i].p, parts[i].n) != 0)
            return 0;
    for (; at < line.n && line.p[at] >= '0' && line.p[at] <= '9'; at++)
        n = 10 * n + (uint64_t)(line.p[at] - '0');
    return n;
}

struct log_loss log_loss_of(struct str text)
{
    struct log_loss loss = {0};

    for (size_t end; (end = str_find(text, '\n')) < text.n;) {
        uint64_t announced = notice_of(str_make(text.p, end));
        loss.announced += announced;
        loss.lines += announced == 0;
        text = str_make(text.p + end + 1, text.n - end - 1);
    }
    return loss;
}

static void count_dropped(uint64_t lines)
{
    log_state.dropped += lines;
    log_state.unannounced += lines;
    metrics.log_lines_dropped += lines;
}

void log_count_loss(struct log_loss loss)
{
    count_dropped(loss.lines);
    log_state.unannounced += loss.announced;
}

void log_end(void)
{
    if (!log_state.open)
        return;
    end_line();
    log_state.open = false;
    if (log_state.broken || log_state.lines.len + log_state.backlog > LOG_BUFFER_MAX) {
        log_state.lines.len = log_state.line;
        count_dropped(1);
    } else {
        log_state.unannounced -= log_state.announced;
    }
}

void log_announce(void)
{
    size_t line = log_state.lines.len;
    uint64_t n = log_state.unannounced;

    if (n == 0)
        return;
    log_state.open = true;
    log_state.broken = false;
    begin_line(LOG_WARN, NOTICE);
    log_u64("lines", n);
    end_line();
    log_state.open = false;
    if (log_state.broken)
        log_state.lines.len = line;
    else
        log_state.unannounced = 0;
}

size_t log_pending(void)
{
    return log_state.lines.len;
}

void log_take(struct buf *out)
{
    struct buf spare = *out;

    assert(spare.len == 0 && !log_state.open);
    if (spare.cap > KEPT_BLOCK)
        buf_fini(&spare);
    *out = log_state.lines;
    log_state.lines = spare;
}

void log_set_backlog(size_t bytes)
{
    log_state.backlog = bytes;
}

void log_fini(void)
{
    buf_fini(&log_state.lines);
}

uint64_t log_dropped(void)
{
    return log_state.dropped;
}
