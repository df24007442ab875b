/* A file of more than 4 GiB: every counter on its way holds more than 32 bits. Parts of it in every run, all of it,
 * both ways, where it is asked for: LB_E2E_4GIB=1, as .ci/run does. It takes 5 to 15 s a way. */
#include "harness/software.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define GIB       (1ull << 30)
#define SIZE      (4 * GIB + 123457)
#define SIZE_TEXT "4295090753"
#define BLOCK     20011u

/* Holes, but for blocks of the pattern at both ends, across 2^31 and 2^32, and between. */
static const uint64_t blocks[] = {0, GIB + 5, 2 * GIB - 9999, 3 * GIB + 77, 4 * GIB - 10000, SIZE - BLOCK};

static void make_large_file(const struct world *w)
{
    char block[BLOCK];
    int fd = open(world_path(w, "large"), O_RDWR | O_CREAT | O_CLOEXEC, 0644);

    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, SIZE), 0);
    for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++) {
        pattern_fill(block, sizeof block, blocks[i]);
        assert_int_equal(pwrite(fd, block, sizeof block, (off_t)blocks[i]), sizeof block);
    }
    close(fd);
}

/* The bytes from `at` on, by a range, against the file's own. */
static void expect_range(struct world *w, uint64_t at, size_t n)
{
    char range[64], *expected = malloc(n);
    struct bytes got;
    int fd = open(world_path(w, "large"), O_RDONLY | O_CLOEXEC);

    assert_true(expected && fd >= 0);
    assert_int_equal(pread(fd, expected, n, (off_t)at), n);
    close(fd);
    snprintf(range, sizeof range, "%llu-%llu", (unsigned long long)at, (unsigned long long)(at + n - 1));
    RUN(w, &got, CURL, "-sSf", "-r", range, url(w, "/large"));
    assert_int_equal(got.n, n);
    assert_memory_equal(got.p, expected, n);
    bytes_free(&got);
    free(expected);
}

static void test_parts_of_a_large_file(void **state)
{
    struct world *w = *state;

    need_program(CURL);
    need_program(NGINX);
    make_large_file(w);
    nginx_backend(w, NULL);
    world_start(w, NULL);
    RUN_PRINTS(w, SIZE_TEXT, CURL, "-sSfI", "-o", "/dev/null", "-w", "%header{content-length}", url(w, "/large"));
    for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++)
        expect_range(w, blocks[i], BLOCK);
    expect_range(w, 4 * GIB - 1, 2);
    RUN_PRINTS(w, "bytes 4294967296-4295090752/" SIZE_TEXT " 123457", CURL, "-sSf", "-r", "4294967296-", "-o",
               "/dev/null", "-w", "%header{content-range} %header{content-length}", url(w, "/large"));
    world_finish(w);
}

/* ---- all of it ---- */

#define SECONDS 180

static void need_4gib_run(void)
{
    if (getenv("LB_E2E_4GIB") && !is_instrumented())
        return;
    print_message("4 GiB are moved where LB_E2E_4GIB=1 asks for it\n");
    skip();
}

static void test_large_download(void **state)
{
    struct world *w = *state;
    const cJSON *line;
    char command[400];

    need_4gib_run();
    need_program(CURL);
    need_program(NGINX);
    make_large_file(w);
    nginx_backend(w, NULL);
    world_start(w, NULL);
    snprintf(command, sizeof command, "set -o pipefail; %s -sSf %s | cmp - large", CURL, url(w, "/large"));
    assert_int_equal(world_run(w, (const char *const[]){BASH, "-c", command, NULL}, SECONDS, NULL), 0);
    line = daemon_expect_event(&w->daemon, 0, "request", "status=200 target=/large");
    assert_true(log_number(line, "bytes_out") > (double)SIZE);
    world_finish(w);
}

/* What the origin compares an upload with. */
struct upload {
    int fd;
    uint64_t at;
    bool differs;
};

static void compare(void *arg, const void *p, size_t n)
{
    static char expected[1u << 20];
    struct upload *u = arg;

    for (const char *got = p; n > 0 && !u->differs;) {
        size_t piece = n < sizeof expected ? n : sizeof expected;

        u->differs = pread(u->fd, expected, piece, (off_t)u->at) != (ssize_t)piece || memcmp(expected, got, piece) != 0;
        got += piece;
        n -= piece;
        u->at += piece;
    }
}

static void take_upload(struct origin_conn *c)
{
    struct upload *u = origin_arg(c->origin);

    if (!origin_read_head(c))
        return;
    u->at = 0;
    u->differs = false;
    origin_answer(c, origin_read_body(c, compare, u) && !u->differs && u->at == SIZE ? "whole" : "damaged");
}

static void expect_upload(struct world *w, const char *field, const char *path)
{
    struct bytes out;
    int status = world_run(
        w, (const char *const[]){CURL, "-sSf", "-H", "Expect:", "-H", field, "-T", "large", url(w, path), NULL},
        SECONDS, &out);
    const cJSON *line;
    char match[80];

    assert_int_equal(status, 0);
    assert_string_equal(out.p, "whole");
    bytes_free(&out);
    snprintf(match, sizeof match, "status=200 target=%s", path);
    line = daemon_expect_event(&w->daemon, 0, "request", match);
    assert_true(log_number(line, "bytes_in") > (double)SIZE);
}

static void test_large_upload(void **state)
{
    struct world *w = *state;
    struct upload upload = {.fd = -1};

    need_4gib_run();
    need_program(CURL);
    make_large_file(w);
    upload.fd = open(world_path(w, "large"), O_RDONLY | O_CLOEXEC);
    assert_true(upload.fd >= 0);
    world_origin(w, take_upload, &upload, NULL);
    world_start(w, NULL);
    expect_upload(w, "X-Framing: length", "/length");
    expect_upload(w, "Transfer-Encoding: chunked", "/chunked");
    close(upload.fd);
    world_finish(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WORLD_TEST(test_parts_of_a_large_file),
        WORLD_TEST(test_large_download),
        WORLD_TEST(test_large_upload),
    };

    software_environment();
    return cmocka_run_group_tests_name("real_large", tests, NULL, NULL);
}
