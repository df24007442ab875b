/* nginx and Apache as backends: what they serve comes through byte for byte, by every way that they frame it. */
#include "harness/software.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define LARGE (16u << 20)

/* Sizes around those of buffers, and none at all. */
static const size_t sizes[] = {0, 1, 2, 100, 4095, 4096, 4097, 16383, 16384, 16385, 65535, 65536, 65537, 300000};
#define SIZES (sizeof sizes / sizeof *sizes)

static void expect_no_backend_down(struct world *w)
{
    assert_int_equal(daemon_count_events(&w->daemon, 0, "backend_down", NULL), 0);
}

/* All files by one curl, over one connection, each compared whole. */
static void fetch_files(struct world *w)
{
    char names[SIZES][16], got[SIZES][24];
    const char *argv[6 + 3 * SIZES] = {CURL, "-sSf", "-w", "%{num_connects} %{http_code} %{size_download}\n"};
    struct bytes expected = {0};
    size_t n = 4;

    for (size_t i = 0; i < SIZES; i++) {
        snprintf(names[i], sizeof names[i], "/file-%zu", sizes[i]);
        snprintf(got[i], sizeof got[i], "got-%zu", sizes[i]);
        make_file(w, names[i] + 1, sizes[i]);
    }
    for (size_t i = 0; i < SIZES; i++) {
        static char urls[SIZES][64];

        snprintf(urls[i], sizeof urls[i], "%s", url(w, names[i]));
        argv[n++] = "-o";
        argv[n++] = got[i];
        argv[n++] = urls[i];
        bytes_addf(&expected, "%d 200 %zu\n", i == 0, sizes[i]);
    }
    run_prints(w, expected.p, argv);
    bytes_free(&expected);
    for (size_t i = 0; i < SIZES; i++)
        if (sizes[i] > 0) /* curl makes no file of nothing */
            expect_same_files(w, names[i] + 1, got[i]);
}

static void expect_large_files(struct world *w)
{
    make_file(w, "large", LARGE);
    RUN_PRINTS(w, "1\n0\n", CURL, "-sSf", "-w", "%{num_connects}\n", "-o", "large-1", "-o", "large-2", url(w, "/large"),
               url(w, "/large"));
    expect_same_files(w, "large", "large-1");
    expect_same_files(w, "large", "large-2");
}

static void test_nginx_files(void **state)
{
    struct world *w = *state;

    need_program(CURL);
    need_program(NGINX);
    nginx_backend(w, NULL);
    world_start(w, "\"health_check\": {\"interval\": \"100ms\"}");
    fetch_files(w);
    expect_large_files(w);
    RUN_PRINTS(w, "404", CURL, "-s", "-o", "/dev/null", "-w", "%{http_code}", url(w, "/absent"));
    RUN_PRINTS(w, "405", CURL, "-s", "-o", "/dev/null", "-w", "%{http_code}", "-d", "x", url(w, "/large"));
    expect_no_backend_down(w);
    world_finish(w);
}

/* nginx compresses on the fly, which it sends chunked. */
static void test_nginx_compressed(void **state)
{
    struct world *w = *state;
    struct bytes text = {0}, head;

    need_program(CURL);
    need_program(NGINX);
    for (int i = 0; i < 20000; i++)
        bytes_addf(&text, "line %d of what nginx serves\n", i);
    file_put(world_path(w, "page.txt"), text.p);
    nginx_backend(w, NULL);
    world_start(w, NULL);
    RUN(w, NULL, CURL, "-sSf", "--compressed", "-D", "head", "-o", "got", url(w, "/page.txt"));
    expect_same_files(w, "page.txt", "got");
    head = file_content(world_path(w, "head"));
    assert_non_null(strstr(head.p, "Content-Encoding: gzip\r\n"));
    assert_non_null(strstr(head.p, "Transfer-Encoding: chunked\r\n"));
    bytes_free(&head);
    /* HTTP/1.0 knows no chunks: the same content ends with the connection. */
    RUN(w, NULL, CURL, "-sSf0", "--compressed", "-D", "head", "-o", "got-1.0", url(w, "/page.txt"));
    expect_same_files(w, "page.txt", "got-1.0");
    head = file_content(world_path(w, "head"));
    assert_null(strstr(head.p, "Transfer-Encoding"));
    bytes_free(&head);
    bytes_free(&text);
    world_finish(w);
}

/* PUT, DELETE, MKCOL and MOVE of nginx' WebDAV module: methods beyond GET and POST, answers 201 and 204. */
static void test_nginx_dav(void **state)
{
    struct world *w = *state;
    char destination[64];

    need_program(CURL);
    need_program(NGINX);
    make_file(w, "up", 5u << 20);
    nginx_backend(w, "dav_methods PUT DELETE MKCOL MOVE; create_full_put_path on;");
    world_start(w, NULL);
    RUN_PRINTS(w, "201 1", CURL, "-sSf", "-T", "up", "-w", "%{http_code} %{num_connects}", url(w, "/stored/one"));
    expect_same_files(w, "up", "stored/one");
    RUN_PRINTS(w, "204", CURL, "-sSf", "-T", "up", "-H", "Transfer-Encoding: chunked", "-w", "%{http_code}",
               url(w, "/stored/one"));
    expect_same_files(w, "up", "stored/one");
    RUN_PRINTS(w, "201", CURL, "-sSf", "-X", "MKCOL", "-w", "%{http_code}", url(w, "/stored/more/"));
    snprintf(destination, sizeof destination, "Destination: %s", url(w, "/stored/more/two"));
    RUN_PRINTS(w, "204", CURL, "-sSf", "-X", "MOVE", "-H", destination, "-w", "%{http_code}", url(w, "/stored/one"));
    expect_same_files(w, "up", "stored/more/two");
    RUN_PRINTS(w, "204", CURL, "-sSf", "-X", "DELETE", "-w", "%{http_code}", url(w, "/stored/more/two"));
    assert_int_not_equal(access(world_path(w, "stored/more/two"), F_OK), 0);
    world_finish(w);
}

static void test_apache_files(void **state)
{
    struct world *w = *state;

    need_program(CURL);
    need_program(APACHE);
    apache_backend(w, NULL);
    world_start(w, "\"health_check\": {\"interval\": \"100ms\", \"path\": \"/status\"}");
    fetch_files(w);
    expect_large_files(w);
    RUN_PRINTS(w, "404", CURL, "-s", "-o", "/dev/null", "-w", "%{http_code}", url(w, "/absent"));
    RUN_PRINTS(w, "206 100", CURL, "-sSf", "-r", "100-199", "-o", "part", "-w", "%{http_code} %{size_download}",
               url(w, "/large"));
    expect_no_backend_down(w);
    world_finish(w);
}

/* A page that Apache makes itself, compressed and not. */
static void test_apache_status_page(void **state)
{
    struct world *w = *state;
    struct bytes out;

    need_program(CURL);
    need_program(APACHE);
    apache_backend(w, NULL);
    world_start(w, NULL);
    RUN(w, &out, CURL, "-sSf", "--compressed", "-D", "head", url(w, "/status?auto"));
    assert_non_null(strstr(out.p, "\nServerMPM: event\n"));
    assert_non_null(strstr(out.p, "\nScoreboard: "));
    bytes_free(&out);
    out = file_content(world_path(w, "head"));
    assert_non_null(strstr(out.p, "Content-Encoding: gzip\r\n"));
    bytes_free(&out);
    RUN(w, &out, CURL, "-sSf", url(w, "/status"));
    assert_non_null(strstr(out.p, "<title>Apache Status</title>"));
    assert_non_null(strstr(out.p, "</html>"));
    bytes_free(&out);
    world_finish(w);
}

/* mod_cgi hands over all of the input before it reads any output. */
static const char cgi_echo[] = "#!/bin/sh\n"
                               "set -e\n"
                               "content=$(mktemp)\n"
                               "trap 'rm \"$content\"' EXIT\n"
                               "cat >\"$content\"\n"
                               "printf 'Content-Type: application/octet-stream\\r\\n'\n"
                               "printf 'X-Seen: %s %s %s\\r\\n\\r\\n' \"$REQUEST_METHOD\" \"$QUERY_STRING\" "
                               "\"${CONTENT_LENGTH:-none}\"\n"
                               "cat \"$content\"\n";

static const char cgi_forms[] = "#!/bin/sh\n"
                                "cat >/dev/null\n"
                                "case $QUERY_STRING in\n"
                                "redirect) printf 'Status: 303 See Other\\nLocation: /page.txt\\n\\n' ;;\n"
                                "teapot) printf 'Status: 418 I am a teapot\\nContent-Type: text/plain\\n\\nshort' ;;\n"
                                "cookies) printf 'Set-Cookie: a=1\\nSet-Cookie: b=2\\n'\n"
                                "   printf 'Content-Type: text/x\\n\\n'\n"
                                "   case $HTTP_COOKIE in\n"
                                "   'a=1; b=2' | 'b=2; a=1') echo both ;;\n"
                                "   *) echo \"<$HTTP_COOKIE>\" ;;\n"
                                "   esac ;;\n"
                                "esac\n";

/* A script's output has no known length: Apache sends it chunked; its input comes by length and by chunks. */
static void test_apache_cgi(void **state)
{
    struct world *w = *state;
    struct bytes head;

    need_program(CURL);
    need_program(APACHE);
    make_script(w, "echo.cgi", cgi_echo);
    make_file(w, "up", 3u << 20);
    apache_backend(w, NULL);
    world_start(w, NULL);
    RUN(w, NULL, CURL, "-sSf", "--data-binary", "@up", "-D", "head", "-o", "down", url(w, "/cgi/echo.cgi?a=b&c"));
    expect_same_files(w, "up", "down");
    head = file_content(world_path(w, "head"));
    assert_non_null(strstr(head.p, "\r\nX-Seen: POST a=b&c 3145728\r\n"));
    assert_non_null(strstr(head.p, "\r\nTransfer-Encoding: chunked\r\n"));
    bytes_free(&head);
    RUN(w, NULL, CURL, "-sSf", "-T", "up", "-H", "Transfer-Encoding: chunked", "-D", "head", "-o", "down-2",
        url(w, "/cgi/echo.cgi"));
    expect_same_files(w, "up", "down-2");
    head = file_content(world_path(w, "head"));
    assert_non_null(strstr(head.p, "\r\nX-Seen: PUT  none\r\n"));
    bytes_free(&head);
    world_finish(w);
}

/* As old servers do, the end of the connection is the end of the content: a client of HTTP/1.1 gets chunks, and keeps
 * its connection. */
static void test_apache_ends_by_closing(void **state)
{
    struct world *w = *state;
    struct bytes head;

    need_program(CURL);
    need_program(APACHE);
    make_script(w, "echo.cgi", cgi_echo);
    make_file(w, "up", 1u << 20);
    apache_backend(w, "SetEnvIf Request_URI ^/cgi/ downgrade-1.0 force-response-1.0 nokeepalive");
    world_start(w, NULL);
    RUN_PRINTS(w, "200 1\n200 0\n", CURL, "-sSf", "-H", "Expect:", "--data-binary", "@up", "-D", "head", "-o", "down-1",
               "-o", "down-2", "-w", "%{http_code} %{num_connects}\n", url(w, "/cgi/echo.cgi"),
               url(w, "/cgi/echo.cgi"));
    expect_same_files(w, "up", "down-1");
    expect_same_files(w, "up", "down-2");
    head = file_content(world_path(w, "head"));
    assert_non_null(strstr(head.p, "\r\nTransfer-Encoding: chunked\r\n"));
    bytes_free(&head);
    RUN(w, NULL, CURL, "-sSf0", "-H", "Connection: keep-alive", "--data-binary", "@up", "-D", "head", "-o", "down-3",
        url(w, "/cgi/echo.cgi"));
    expect_same_files(w, "up", "down-3");
    head = file_content(world_path(w, "head"));
    assert_null(strstr(head.p, "Transfer-Encoding"));
    assert_null(strstr(head.p, "Content-Length"));
    bytes_free(&head);
    world_finish(w);
}

static void test_apache_cgi_statuses(void **state)
{
    struct world *w = *state;

    need_program(CURL);
    need_program(APACHE);
    make_script(w, "forms.cgi", cgi_forms);
    file_put(world_path(w, "page.txt"), "where it leads\n");
    apache_backend(w, NULL);
    world_start(w, NULL);
    RUN_PRINTS(w, "where it leads\n200 1 1", CURL, "-sSfL", "-w", "%{http_code} %{num_redirects} %{num_connects}", "-d",
               "field=value", url(w, "/cgi/forms.cgi?redirect"));
    RUN_PRINTS(w, "short 418", CURL, "-sS", "-w", " %{http_code}", url(w, "/cgi/forms.cgi?teapot"));
    RUN_PRINTS(w, "<>\nboth\n", CURL, "-sSf", "-c", "jar", "-b", "jar", url(w, "/cgi/forms.cgi?cookies"),
               url(w, "/cgi/forms.cgi?cookies"));
    world_finish(w);
}

/* ---- others ---- */

/* Python's own server speaks HTTP/1.0: every answer ends its connection. */
static void test_an_http_1_0_backend(void **state)
{
    struct world *w = *state;
    int port = port_reserve();
    char number[16], address[32];
    struct bytes out;

    need_program(CURL);
    need_program(PYTHON);
    snprintf(number, sizeof number, "%d", port);
    snprintf(address, sizeof address, "127.0.0.1:%d", port);
    world_helper(w,
                 (const char *const[]){PYTHON, "-m", "http.server", "--bind", "127.0.0.1", "-d", w->dir, number, NULL});
    wait_for_port(port);
    world_backend(w, address, "\"name\": \"python\"");
    world_start(w, NULL);
    fetch_files(w); /* over one connection of the client's all the same */
    RUN(w, &out, CURL, "-sSf", url(w, "/"));
    assert_non_null(strstr(out.p, "<a href=\"file-65537\">"));
    bytes_free(&out);
    RUN_PRINTS(w, "404 501", CURL, "-s", "-o", "/dev/null", "-w", "%{http_code} ", url(w, "/absent"), "--next", "-s",
               "-o", "/dev/null", "-w", "%{http_code}", "-d", "x", url(w, "/"));
    world_finish(w);
}

/* curl, nginx, the balancer, Apache: two proxies one behind the other, in all framings. */
static void test_behind_nginx(void **state)
{
    struct world *w = *state;
    int front;

    need_program(CURL);
    need_program(NGINX);
    need_program(APACHE);
    make_script(w, "echo.cgi", cgi_echo);
    make_file(w, "up", 3u << 20);
    apache_backend(w, NULL);
    world_start(w, NULL);
    front = nginx_in_front(w);
    RUN_PRINTS(w, "200 1\n200 0\n", CURL, "-sSf", "-o", "down-1", "-o", "down-2", "-w",
               "%{http_code} %{num_connects}\n", url_at(front, "/up"), url_at(front, "/up"));
    expect_same_files(w, "up", "down-1");
    expect_same_files(w, "up", "down-2");
    RUN(w, NULL, CURL, "-sSf", "-T", "up", "-o", "echo-1", url_at(front, "/cgi/echo.cgi"));
    expect_same_files(w, "up", "echo-1");
    RUN(w, NULL, CURL, "-sSf", "-T", "up", "-H", "Transfer-Encoding: chunked", "-o", "echo-2",
        url_at(front, "/cgi/echo.cgi"));
    expect_same_files(w, "up", "echo-2");
    RUN(w, NULL, CURL, "-sSf0", "-o", "down-3", url_at(front, "/up"));
    expect_same_files(w, "up", "down-3");
    assert_int_equal(daemon_count_events(&w->daemon, 0, "request", "status=200 attempts=1"), 5);
    world_finish(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WORLD_TEST(test_nginx_files),         WORLD_TEST(test_nginx_compressed),
        WORLD_TEST(test_nginx_dav),           WORLD_TEST(test_apache_files),
        WORLD_TEST(test_apache_status_page),  WORLD_TEST(test_apache_cgi),
        WORLD_TEST(test_apache_cgi_statuses), WORLD_TEST(test_apache_ends_by_closing),
        WORLD_TEST(test_an_http_1_0_backend), WORLD_TEST(test_behind_nginx),
    };

    software_environment();
    return cmocka_run_group_tests_name("real_servers", tests, NULL, NULL);
}
