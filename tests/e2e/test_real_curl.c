/* curl, in the ways that it speaks HTTP/1: ranges, conditions, HTTP/1.0, proxy mode, kept connections. */
#include "harness/software.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* ---- ranges and conditions, of nginx ---- */

static void test_ranges(void **state)
{
    struct world *w = *state;
    struct bytes head;

    need_program(CURL);
    need_program(NGINX);
    file_put(world_path(w, "digits.txt"), "0123456789abcdefghij");
    make_file(w, "large", 1u << 20);
    nginx_backend(w, NULL);
    world_start(w, NULL);
    RUN_PRINTS(w, "345 206", CURL, "-sSf", "-D", "head", "-r", "3-5", "-w", " %{http_code}", url(w, "/digits.txt"));
    head = file_content(world_path(w, "head"));
    assert_non_null(strstr(head.p, "\r\nContent-Range: bytes 3-5/20\r\n"));
    bytes_free(&head);
    RUN_PRINTS(w, "ij", CURL, "-sSf", "-r", "-2", url(w, "/digits.txt"));
    RUN_PRINTS(w, "fghij", CURL, "-sSf", "-r", "15-", url(w, "/digits.txt"));
    RUN_PRINTS(w, "416", CURL, "-sS", "-D", "head", "-r", "99-", "-o", "/dev/null", "-w", "%{http_code}",
               url(w, "/digits.txt"));
    head = file_content(world_path(w, "head"));
    assert_non_null(strstr(head.p, "\r\nContent-Range: bytes */20\r\n"));
    bytes_free(&head);
    /* A download that was broken off goes on where it was. */
    RUN(w, NULL, CURL, "-sSf", "-r", "0-333332", "-o", "got", url(w, "/large"));
    RUN_PRINTS(w, "206 715243", CURL, "-sSf", "-C", "-", "-o", "got", "-w", "%{http_code} %{size_download}",
               url(w, "/large"));
    expect_same_files(w, "large", "got");
    world_finish(w);
}

static void test_several_ranges(void **state)
{
    struct world *w = *state;
    struct bytes out, head, expected = {0};
    char boundary[80];
    const char *type;

    need_program(CURL);
    need_program(NGINX);
    file_put(world_path(w, "digits.txt"), "0123456789abcdefghij");
    nginx_backend(w, NULL);
    world_start(w, NULL);
    RUN(w, &out, CURL, "-sSf", "-D", "head", "-r", "0-2,9-10,-1", url(w, "/digits.txt"));
    head = file_content(world_path(w, "head"));
    assert_true(strncmp(head.p, "HTTP/1.1 206 ", 13) == 0);
    type = strstr(head.p, "\r\nContent-Type: multipart/byteranges; boundary=");
    assert_non_null(type);
    assert_int_equal(sscanf(type, "%*[^=]=%79[0-9A-Za-z]\r\n", boundary), 1);
    for (const char *const *part = (const char *const[]){"0-2", "012", "9-10", "9a", "19-19", "j", NULL}; *part;
         part += 2)
        bytes_addf(&expected, "\r\n--%s\r\nContent-Type: text/plain\r\nContent-Range: bytes %s/20\r\n\r\n%s", boundary,
                   part[0], part[1]);
    bytes_addf(&expected, "\r\n--%s--\r\n", boundary);
    assert_string_equal(out.p, expected.p);
    bytes_free(&expected);
    bytes_free(&head);
    bytes_free(&out);
    world_finish(w);
}

/* A 304 has no content, whatever it says of its length; the connection goes on. */
static void test_not_modified(void **state)
{
    struct world *w = *state;
    char condition[100];
    struct bytes etag;

    need_program(CURL);
    need_program(NGINX);
    make_file(w, "page", 30000);
    nginx_backend(w, NULL);
    world_start(w, NULL);
    RUN_PRINTS(w, "200 30000", CURL, "-sSf", "--etag-save", "etag", "-o", "got", "-w", "%{http_code} %{size_download}",
               url(w, "/page"));
    expect_same_files(w, "page", "got");
    RUN_PRINTS(w, "304 0", CURL, "-sSf", "--etag-compare", "etag", "-w", "%{http_code} %{size_download}",
               url(w, "/page"));
    etag = file_content(world_path(w, "etag"));
    snprintf(condition, sizeof condition, "If-None-Match: %.*s", (int)strcspn(etag.p, "\n"), etag.p);
    bytes_free(&etag);
    RUN_PRINTS(w, "304 0 1\n304 0 0\n", CURL, "-sSf", "-H", condition, "-w",
               "%{http_code} %{size_download} %{num_connects}\n", url(w, "/page"), url(w, "/page"));
    RUN_PRINTS(w, "304 0", CURL, "-sSf", "-z", "got", "-w", "%{http_code} %{size_download}", url(w, "/page"));
    world_finish(w);
}

/* ---- HEAD, HTTP/1.0, kept connections ---- */

static void test_head(void **state)
{
    struct world *w = *state;
    int ports[3];

    need_program(CURL);
    three_demos(w, ports);
    world_start(w, NULL);
    RUN_PRINTS(w, "200 0 1\n200 0 0\n404 0 0\n204 0 0\n", CURL, "-sSI", "-o", "h1", "-o", "h2", "-o", "h3", "-o", "h4",
               "-w", "%{http_code} %{size_download} %{num_connects}\n", url(w, "/bytes/100000"),
               url(w, "/chunked/100000"), url(w, "/status/404"), url(w, "/status/204"));
    RUN_PRINTS(w, "100000", CURL, "-sSfI", "-o", "/dev/null", "-w", "%header{content-length}", url(w, "/bytes/100000"));
    world_finish(w);
}

/* All sorts of answers one behind the other: each ends where it ends, and the connection is used again. */
static void test_kept_connection(void **state)
{
    static const char *const paths[] = {"/bytes/70000", "/chunked/70000", "/status/404", "/status/204",
                                        "/bytes/0",     "/status/500",    "/status/304", "/chunked/1"};
    static const int statuses[] = {200, 200, 404, 204, 200, 500, 304, 200};
    enum { PATHS = sizeof paths / sizeof *paths };
    const char *argv[6 + 3 * PATHS] = {CURL, "-sS", "--http1.1", "-w", "%{http_code} %{num_connects}\n"};
    struct world *w = *state;
    struct bytes expected = {0};
    int ports[3], n = 5;

    need_program(CURL);
    three_demos(w, ports);
    world_start(w, NULL);
    for (int i = 0; i < PATHS; i++) {
        static char names[PATHS][24];

        snprintf(names[i], sizeof names[i], "got-%d", i);
        argv[n++] = "-o";
        argv[n++] = names[i];
        argv[n++] = url(w, paths[i]);
        bytes_addf(&expected, "%d %d\n", statuses[i], i == 0);
    }
    run_prints(w, expected.p, argv);
    bytes_free(&expected);
    expect_same_files(w, "got-0", "got-1");
    world_finish(w);
}

/* Several at a time, over connections of their own. */
static void test_parallel(void **state)
{
    struct world *w = *state;
    int ports[3];

    need_program(CURL);
    three_demos(w, ports);
    world_start(w, NULL);
    RUN(w, NULL, CURL, "-sSfZ", "-o", "p1", "-o", "p2", "-o", "p3", url(w, "/bytes/100000"), url(w, "/chunked/100000"),
        url(w, "/bytes/100000"));
    expect_same_files(w, "p1", "p2");
    expect_same_files(w, "p1", "p3");
    world_finish(w);
}

static void test_http_1_0(void **state)
{
    struct world *w = *state;
    int ports[3];

    need_program(CURL);
    three_demos(w, ports);
    world_start(w, NULL);
    RUN(w, NULL, CURL, "-sSf", "-o", "expected", url(w, "/bytes/1000000"));
    RUN_PRINTS(w, "200 1000000 1\n200 1000000 1\n", CURL, "-sSf0", "-o", "length", "-o", "chunked", "-w",
               "%{http_code} %{size_download} %{num_connects}\n", url(w, "/bytes/1000000"), url(w, "/chunked/1000000"));
    expect_same_files(w, "expected", "length");
    expect_same_files(w, "expected", "chunked");
    /* Kept when asked for and the length is known; what came in chunks ends with the connection. */
    RUN_PRINTS(w, "200 100 1\n200 200 0\n200 300 0\n200 100 1\n", CURL, "-sSf0", "-H", "Connection: keep-alive", "-o",
               "k1", "-o", "k2", "-o", "k3", "-o", "k4", "-w", "%{http_code} %{size_download} %{num_connects}\n",
               url(w, "/bytes/100"), url(w, "/bytes/200"), url(w, "/chunked/300"), url(w, "/bytes/100"));
    world_finish(w);
}

/* ---- what curl asks for besides ---- */

/* As curl's HTTP proxy: the target comes whole, and goes on as origin-form; what is for the proxy ends there. */
static void test_proxy_mode(void **state)
{
    struct world *w = *state;
    struct origin *o;
    char proxy[64];

    need_program(CURL);
    o = world_origin(w, origin_answer_all, NULL, NULL);
    world_start(w, NULL);
    snprintf(proxy, sizeof proxy, "%s", url(w, ""));
    RUN_PRINTS(w, "b1b1", CURL, "-sSf", "-x", proxy, "-U", "user:secret", "http://shop.example/a/b?c=d",
               "http://shop.example:81/second");
    assert_int_equal(origin_requests(o), 2);
    expect_in_head(o, 0, "GET /a/b?c=d HTTP/1.1\r\n", true);
    expect_in_head(o, 0, "\r\nHost: shop.example\r\n", true);
    expect_in_head(o, 0, "Proxy-", false);
    expect_in_head(o, 1, "GET /second HTTP/1.1\r\n", true);
    expect_in_head(o, 1, "\r\nHost: shop.example:81\r\n", true);
    /* A tunnel is refused, and curl says so (5xx to CONNECT is its error 56). */
    assert_int_equal(world_run(w,
                               (const char *const[]){CURL, "-s", "-p", "-x", proxy, "-w", "%{http_connect}",
                                                     "http://shop.example/", NULL},
                               60, NULL),
                     56);
    daemon_expect_event(&w->daemon, 0, "request", "method=CONNECT status=501");
    assert_int_equal(origin_requests(o), 2);
    world_finish(w);
}

/* Offers to change the protocol are ours to decline: the request is answered in HTTP/1.1, and the backend hears nothing
 * of them. */
static void test_offers(void **state)
{
    struct world *w = *state;
    struct origin *o;

    need_program(CURL);
    o = world_origin(w, origin_answer_all, NULL, NULL);
    world_start(w, NULL);
    RUN_PRINTS(w, "b1 200 1.1", CURL, "-sSf", "--http2", "-w", " %{http_code} %{http_version}", url(w, "/h2c"));
    expect_in_head(o, 0, "h2c HTTP/1.1\r\n", true);
    expect_in_head(o, 0, "\r\nUpgrade:", false);
    expect_in_head(o, 0, "\r\nHTTP2-Settings:", false);
    expect_in_head(o, 0, "\r\nConnection:", false);
    RUN_PRINTS(w, "b1", CURL, "-sSf", "--tr-encoding", url(w, "/te"));
    expect_in_head(o, 1, "\r\nTE:", false);
    /* curl finds no HTTP/2 in the answer to its preface. */
    assert_int_not_equal(
        world_run(w, (const char *const[]){CURL, "-s", "--http2-prior-knowledge", url(w, "/"), NULL}, 60, NULL), 0);
    daemon_expect_event(&w->daemon, 0, "request", "status=505");
    RUN_PRINTS(w, "b1", CURL, "-sSf", "-X", "OPTIONS", "--request-target", "*", url(w, "/"));
    expect_in_head(o, 2, "OPTIONS * HTTP/1.1\r\n", true);
    assert_int_equal(origin_requests(o), 3);
    world_finish(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WORLD_TEST(test_ranges),   WORLD_TEST(test_several_ranges),  WORLD_TEST(test_not_modified),
        WORLD_TEST(test_head),     WORLD_TEST(test_kept_connection), WORLD_TEST(test_parallel),
        WORLD_TEST(test_http_1_0), WORLD_TEST(test_proxy_mode),      WORLD_TEST(test_offers),
    };

    software_environment();
    return cmocka_run_group_tests_name("real_curl", tests, NULL, NULL);
}
