/* Pieces of heads written into measured room. */
#include "http/write.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void assert_written(const struct head_writer *w, const char *text)
{
    assert_false(w->full);
    assert_int_equal(w->n, strlen(text));
    assert_memory_equal(head_writer_str(w).p, text, w->n);
}

static void write_all(struct head_writer *w)
{
    write_request_line(w, STR("GET"), STR("/a?b"));
    write_field(w, STR("Name"), STR("value"));
    write_field(w, STR("Empty"), (struct str){NULL, 0});
    write_field_u64(w, STR("Zero"), 0);
    write_field_u64(w, STR("Most"), UINT64_MAX);
    write_str(w, (struct str){NULL, 0});
    write_u64(w, 1234567890);
    write_end(w);
}

#define ALL "GET /a?b HTTP/1.1\r\nName: value\r\nEmpty: \r\nZero: 0\r\nMost: 18446744073709551615\r\n1234567890\r\n"

static void pieces_follow_one_another(void **state)
{
    (void)state;
    char room[256];
    struct head_writer w = head_writer_on(room, sizeof room);

    write_all(&w);
    assert_written(&w, ALL);
}

static void a_full_writer_remembers_it_and_keeps_within_its_room(void **state)
{
    (void)state;
    char room[256];

    for (size_t cap = 0; cap < sizeof ALL - 1; cap++) {
        memset(room, '#', sizeof room);
        struct head_writer w = head_writer_on(room, cap);
        write_all(&w);
        assert_true(w.full);
        assert_true(w.n <= cap);
        for (size_t i = cap; i < sizeof room; i++)
            assert_int_equal(room[i], '#');
        size_t n = w.n;
        write_str(&w, STR("")); /* would fit */
        assert_int_equal(w.n, n);
    }
    struct head_writer exact = head_writer_on(room, sizeof ALL - 1);
    write_all(&exact);
    assert_written(&exact, ALL);
}

static void a_status_line_has_the_given_reason_or_its_own(void **state)
{
    (void)state;
    char room[128];
    struct head_writer w = head_writer_on(room, sizeof room);

    write_status_line(&w, 404, STR(""));
    assert_written(&w, "HTTP/1.1 404 Not Found\r\n");
    w = head_writer_on(room, sizeof room);
    write_status_line(&w, 200, STR("Fine \xfc"));
    assert_written(&w, "HTTP/1.1 200 Fine \xfc\r\n");
    w = head_writer_on(room, sizeof room);
    write_status_line(&w, 599, STR(""));
    assert_written(&w, "HTTP/1.1 599 Unknown\r\n");
}

static void every_status_of_our_own_has_a_reason(void **state)
{
    (void)state;
    static const unsigned statuses[] = {200, 201, 400, 401, 403, 404, 405, 408, 409, 413, 414,
                                        417, 429, 431, 500, 501, 502, 503, 504, 505, 508};

    for (size_t i = 0; i < sizeof statuses / sizeof statuses[0]; i++)
        assert_false(str_eq(status_reason(statuses[i]), STR("Unknown")));
    assert_true(str_eq(status_reason(429), STR("Too Many Requests")));
    assert_true(str_eq(status_reason(299), STR("Unknown")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pieces_follow_one_another),
        cmocka_unit_test(a_full_writer_remembers_it_and_keeps_within_its_room),
        cmocka_unit_test(a_status_line_has_the_given_reason_or_its_own),
        cmocka_unit_test(every_status_of_our_own_has_a_reason),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
