/* Log lines in both forms, escaping of hostile bytes, levels, and the bound on what waits. */
#include "base/log.h"

#include "base/metrics.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static struct buf taken;

static int setup(void **state)
{
    (void)state;
    buf_consume(&taken, taken.len);
    log_take(&taken);
    log_set_backlog(0);
    log_configure(LOG_INFO, LOG_TEXT);
    return 0;
}

static int free_taken(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        buf_fini(&taken);
        log_take(&taken);
    }
    return 0;
}

/* The lines so far, zero-terminated. */
static const char *take(void)
{
    buf_consume(&taken, taken.len);
    log_take(&taken);
    assert_true(buf_reserve(&taken, 1));
    *buf_tail(&taken) = '\0';
    return buf_str(&taken).p;
}

/* What stands behind the time stamp, whose form is checked. */
static const char *after_stamp(const char *line)
{
    const char *pattern = "0000-00-00T00:00:00.000Z";

    for (; *pattern; pattern++, line++) {
        if (*pattern == '0')
            assert_in_range(*line, '0', '9');
        else
            assert_int_equal(*line, *pattern);
    }
    return line;
}

static void one_field(const char *key, struct str value)
{
    log_begin(LOG_INFO, "e");
    log_str(key, value);
    log_end();
}

static void assert_text_field(struct str value, const char *want)
{
    char line[256];

    one_field("k", value);
    snprintf(line, sizeof(line), " info  e k=%s\n", want);
    assert_string_equal(after_stamp(take()), line);
}

static void assert_json_field(struct str value, const char *want)
{
    char line[256];

    one_field("k", value);
    snprintf(line, sizeof(line), "\",\"level\":\"info\",\"event\":\"e\",\"k\":%s}\n", want);
    assert_string_equal(after_stamp(take() + 7), line);
}

static void test_text_line(void **state)
{
    (void)state;
    log_begin(LOG_INFO, "backend_down");
    log_z("backend", "backend-1");
    log_z("cause", "connect refused");
    log_u64("status", 502);
    log_digits("rate_per_sec", STR("0.5"));
    log_ms("duration_ms", 1234567);
    log_end();
    assert_string_equal(after_stamp(take()),
                        " info  backend_down backend=backend-1 cause=\"connect refused\" status=502 "
                        "rate_per_sec=0.5 duration_ms=1.234\n");
}

static void test_json_line(void **state)
{
    const char *line;

    (void)state;
    log_configure(LOG_INFO, LOG_JSON);
    log_begin(LOG_ERROR, "stop");
    log_z("backend", "backend-1");
    log_u64("status", 502);
    log_digits("rate_per_sec", STR("0.5"));
    log_ms("duration_ms", 1234567);
    log_end();
    line = take();
    assert_memory_equal(line, "{\"ts\":\"", 7);
    assert_string_equal(after_stamp(line + 7), "\",\"level\":\"error\",\"event\":\"stop\",\"backend\":\"backend-1\","
                                               "\"status\":502,\"rate_per_sec\":0.5,\"duration_ms\":1.234}\n");
}

static void test_text_quoting(void **state)
{
    (void)state;
    assert_text_field(STR("plain/path?x&y;z:~"), "plain/path?x&y;z:~");
    assert_text_field(STR(""), "\"\"");
    assert_text_field(str_make(NULL, 0), "\"\"");
    assert_text_field(STR("a b"), "\"a b\"");
    assert_text_field(STR("a=b"), "\"a=b\"");
    assert_text_field(STR("a\"b"), "\"a\\\"b\"");
    assert_text_field(STR("a\\b"), "\"a\\\\b\"");
    assert_text_field(STR("a\nb\r\t\x1b[31m"), "\"a\\x0ab\\x0d\\x09\\x1b[31m\"");
    assert_text_field(STR("\x7f\x80\xff"), "\"\\x7f\\x80\\xff\"");
    assert_text_field(str_make("a\0b", 3), "\"a\\x00b\"");
}

static void test_json_escaping(void **state)
{
    (void)state;
    log_configure(LOG_INFO, LOG_JSON);
    assert_json_field(STR("plain = fine"), "\"plain = fine\"");
    assert_json_field(STR(""), "\"\"");
    assert_json_field(STR("a\"\\b"), "\"a\\\"\\\\b\"");
    assert_json_field(STR("\n\x1b\x7f\xe4"), "\"\\u000a\\u001b\\u007f\\u00e4\"");
    assert_json_field(str_make("a\0b", 3), "\"a\\u0000b\"");
}

/* Whatever is logged, a line is printable ASCII and one line. */
static void test_any_bytes_give_one_clean_line(void **state)
{
    (void)state;
    srandom(5);
    for (int i = 0; i < 2000; i++) {
        char value[64];
        size_t n = (size_t)random() % sizeof(value);
        for (size_t j = 0; j < n; j++)
            value[j] = (char)random();
        log_configure(LOG_INFO, i % 2 ? LOG_TEXT : LOG_JSON);
        one_field("k", str_make(value, n));
        const char *line = take();
        assert_int_equal(strcspn(line, "\n"), taken.len - 1);
        for (size_t j = 0; j + 1 < taken.len; j++)
            assert_in_range(line[j], 0x20, 0x7e);
    }
}

static void test_numbers(void **state)
{
    (void)state;
    log_begin(LOG_INFO, "e");
    log_u64("a", 0);
    log_u64("b", UINT64_MAX);
    log_ms("c", 0);
    log_ms("d", 999);
    log_ms("e", 1000);
    log_ms("f", UINT64_MAX);
    log_end();
    assert_string_equal(after_stamp(take()),
                        " info  e a=0 b=18446744073709551615 c=0.000 d=0.000 e=0.001 f=18446744073709.551\n");
}

static void test_levels(void **state)
{
    (void)state;
    log_configure(LOG_WARN, LOG_TEXT);
    assert_false(log_enabled(LOG_INFO));
    assert_true(log_enabled(LOG_WARN));
    one_field("k", STR("off"));
    assert_int_equal(log_pending(), 0);
    log_begin(LOG_WARN, "w");
    log_end();
    log_begin(LOG_ERROR, "x");
    log_end();
    const char *lines = take();
    const char *second = strchr(lines, '\n') + 1;
    assert_memory_equal(after_stamp(lines), " warn  w\n", 9);
    assert_string_equal(after_stamp(second), " error x\n");
    log_configure(LOG_DEBUG, LOG_TEXT);
    log_begin(LOG_DEBUG, "d");
    log_end();
    assert_string_equal(after_stamp(take()), " debug d\n");
}

static void test_over_the_bound_lines_are_dropped_and_announced(void **state)
{
    uint64_t dropped = log_dropped(), counted = metrics.log_lines_dropped;

    (void)state;
    one_field("k", STR("kept"));
    size_t before = log_pending();
    log_set_backlog(LOG_BUFFER_MAX - before);
    one_field("k", STR("lost"));
    one_field("k", STR("lost too"));
    assert_int_equal(log_pending(), before);
    assert_int_equal(log_dropped(), dropped + 2);
    assert_int_equal(metrics.log_lines_dropped, counted + 2);
    take();
    log_set_backlog(0);
    one_field("k", STR("next"));
    one_field("k", STR("last"));
    const char *lines = after_stamp(take());
    assert_memory_equal(lines, " warn  log_dropped lines=2\n", 27);
    lines = after_stamp(lines + 27);
    assert_memory_equal(lines, " info  e k=next\n", 16);
    assert_string_equal(after_stamp(lines + 16), " info  e k=last\n");
}

/* Where no line comes any more, it is one itself, and does not ask for room. */
static void test_dropped_lines_are_announced_at_the_end(void **state)
{
    (void)state;
    log_announce();
    assert_int_equal(log_pending(), 0);
    log_set_backlog(LOG_BUFFER_MAX);
    one_field("k", STR("lost"));
    one_field("k", STR("lost too"));
    assert_int_equal(log_pending(), 0);
    log_announce();
    log_announce(); /* once */
    log_set_backlog(0);
    assert_string_equal(after_stamp(take()), " warn  log_dropped lines=2\n");
    one_field("k", STR("next"));
    assert_string_equal(after_stamp(take()), " info  e k=next\n");
}

/* The notice goes with the line that fits, or not at all. */
static void test_notice_does_not_push_itself_in(void **state)
{
    (void)state;
    uint64_t dropped = log_dropped();
    log_set_backlog(LOG_BUFFER_MAX - 60);
    one_field("k", STR("a value too long for the sixty bytes that are left of the bound"));
    one_field("k", STR("short, but not with the notice"));
    assert_int_equal(log_pending(), 0);
    assert_int_equal(log_dropped(), dropped + 2);
    log_set_backlog(0);
    one_field("k", STR("x"));
    assert_non_null(strstr(take(), "log_dropped lines=2\n"));
}

static void test_exactly_the_bound_fits(void **state)
{
    (void)state;
    one_field("k", STR("x"));
    size_t n = log_pending();
    take();
    log_set_backlog(LOG_BUFFER_MAX - n);
    one_field("k", STR("x"));
    assert_int_equal(log_pending(), n);
    take();
    log_set_backlog(LOG_BUFFER_MAX - n + 1);
    one_field("k", STR("x"));
    assert_int_equal(log_pending(), 0);
    log_set_backlog(0);
    one_field("k", STR("x"));
    take();
}

static void test_huge_value(void **state)
{
    char *huge = malloc(LOG_BUFFER_MAX + 1);
    uint64_t dropped = log_dropped();

    (void)state;
    assert_non_null(huge);
    memset(huge, 'x', LOG_BUFFER_MAX + 1);
    one_field("k", str_make(huge, LOG_BUFFER_MAX + 1));
    one_field("k", str_make(huge, LOG_BUFFER_MAX));
    assert_int_equal(log_dropped(), dropped + 2);
    assert_int_equal(log_pending(), 0);
    free(huge);
}

static void test_lines_lost_by_the_taker_are_announced(void **state)
{
    (void)state;
    one_field("k", STR("x"));
    take();
    uint64_t counted = metrics.log_lines_dropped;
    log_count_loss((struct log_loss){.lines = 3});
    assert_int_equal(metrics.log_lines_dropped, counted + 3);
    one_field("k", STR("x"));
    assert_non_null(strstr(take(), "log_dropped lines=3\n"));
}

/* A notice that is lost itself is given again, with what was lost besides, and counts nothing twice. */
static void lost_notices_are_given_again(enum log_format format, const char *again)
{
    log_configure(LOG_INFO, format);
    one_field("k", STR("x"));
    take();
    uint64_t counted = metrics.log_lines_dropped;
    log_count_loss((struct log_loss){.lines = 12});
    for (unsigned i = 0; i < 3; i++) {
        one_field("k", STR("log_dropped lines=7 \"lines\":7"));
        struct log_loss loss = log_loss_of(str_of(take()));
        assert_int_equal(loss.announced, 12 + i);
        assert_int_equal(loss.lines, 1);
        log_count_loss(loss);
    }
    one_field("k", STR("x"));
    assert_non_null(strstr(take(), again));
    assert_int_equal(metrics.log_lines_dropped, counted + 15);
    one_field("k", STR("x"));
    assert_null(strstr(take(), "dropped"));
}

static void test_lost_notices_are_given_again(void **state)
{
    (void)state;
    lost_notices_are_given_again(LOG_TEXT, " warn  log_dropped lines=15\n");
    lost_notices_are_given_again(LOG_JSON, "\"event\":\"log_dropped\",\"lines\":15}\n");
    struct log_loss loss = log_loss_of(str_of("\n{\n2026-01-31T12:33:51.622Z warn  log_dropped lines=\nx"));
    assert_int_equal(loss.lines, 3);
    assert_int_equal(loss.announced, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_text_line, setup),
        cmocka_unit_test_setup(test_json_line, setup),
        cmocka_unit_test_setup(test_text_quoting, setup),
        cmocka_unit_test_setup(test_json_escaping, setup),
        cmocka_unit_test_setup(test_any_bytes_give_one_clean_line, setup),
        cmocka_unit_test_setup(test_numbers, setup),
        cmocka_unit_test_setup(test_levels, setup),
        cmocka_unit_test_setup(test_over_the_bound_lines_are_dropped_and_announced, setup),
        cmocka_unit_test_setup(test_dropped_lines_are_announced_at_the_end, setup),
        cmocka_unit_test_setup(test_notice_does_not_push_itself_in, setup),
        cmocka_unit_test_setup(test_exactly_the_bound_fits, setup),
        cmocka_unit_test_setup(test_huge_value, setup),
        cmocka_unit_test_setup(test_lines_lost_by_the_taker_are_announced, setup),
        cmocka_unit_test_setup(test_lost_notices_are_given_again, setup),
    };
    return cmocka_run_group_tests(tests, NULL, free_taken);
}
