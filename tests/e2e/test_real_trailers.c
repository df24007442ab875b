/* Trailers that nginx sends behind its chunks: curl gets them where it says that it can take them, and no others. */
#include "harness/software.h"

#include <stdio.h>
#include <string.h>

static void serve_with_trailers(struct world *w)
{
    struct bytes text = {0};

    need_program(CURL);
    need_program(NGINX);
    for (int i = 0; i < 5000; i++)
        bytes_addf(&text, "line %d of a page with trailers\n", i);
    file_put(world_path(w, "page.txt"), text.p);
    bytes_free(&text);
    nginx_backend(w, "add_trailer X-Checksum abc; add_trailer X-Second def;\n"
                     "add_trailer Content-Length 1; add_trailer X-Forwarded-For 192.0.2.1;");
    world_start(w, NULL);
}

/* The head and the trailers, as curl saves both. */
static struct bytes fetch(struct world *w, const char *field)
{
    RUN(w, NULL, CURL, "-sSf", "-D", "fields", "-o", "got", "-H", field, "-H", "Connection: TE", url(w, "/page.txt"));
    expect_same_files(w, "page.txt", "got");
    return file_content(world_path(w, "fields"));
}

/* Those that may not be trailers, for framing or routing hangs on them, are left out. */
static void test_trailers_go_on(void **state)
{
    struct world *w = *state;
    struct bytes fields;
    const char *trailers;

    serve_with_trailers(w);
    fields = fetch(w, "TE: trailers");
    assert_non_null(strstr(fields.p, "\r\nTransfer-Encoding: chunked\r\n"));
    trailers = strstr(fields.p, "\r\n\r\n");
    assert_non_null(trailers);
    assert_string_equal(trailers, "\r\n\r\nX-Checksum: abc\r\nX-Second: def\r\n");
    bytes_free(&fields);
    world_finish(w);
}

static void test_trailers_are_dropped(void **state)
{
    struct world *w = *state;
    struct bytes fields;

    serve_with_trailers(w);
    fields = fetch(w, "X-Other: trailers");
    assert_non_null(strstr(fields.p, "\r\nTransfer-Encoding: chunked\r\n"));
    assert_null(strstr(fields.p, "X-Checksum"));
    bytes_free(&fields);
    /* HTTP/1.0 has none. */
    RUN(w, NULL, CURL, "-sSf0", "-D", "fields", "-o", "got", "-H", "TE: trailers", "-H", "Connection: TE",
        url(w, "/page.txt"));
    expect_same_files(w, "page.txt", "got");
    fields = file_content(world_path(w, "fields"));
    assert_null(strstr(fields.p, "X-Checksum"));
    bytes_free(&fields);
    world_finish(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WORLD_TEST(test_trailers_go_on),
        WORLD_TEST(test_trailers_are_dropped),
    };

    software_environment();
    return cmocka_run_group_tests_name("real_trailers", tests, NULL, NULL);
}
