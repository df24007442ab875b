/* The log's way out: files, rotation, a full disk, and pipes whose readers stall or leave. */
#include "event/log_writer.h"

#include "base/buf.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

static struct loop *loop;
static struct log_writer *writer;
static char folder[] = "/tmp/test_log_writer.XXXXXX";
static char path[128], rotated[128];
static int stdout_saved = -1;

/* Takes what the last test left in the log, a notice of dropped lines included. */
static void empty_log(void)
{
    struct buf rest = BUF_INIT;

    log_begin(LOG_INFO, "between_tests");
    log_end();
    for (int i = 0; i < 2; i++) {
        log_take(&rest);
        buf_fini(&rest);
    }
}

static int setup(void **state)
{
    (void)state;
    empty_log();
    unlink(path);
    unlink(rotated);
    loop = loop_new();
    return loop ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    log_writer_free(writer);
    writer = NULL;
    loop_free(loop);
    return 0;
}

static int make_folder(void **state)
{
    (void)state;
    signal(SIGPIPE, SIG_IGN);
    if (!mkdtemp(folder))
        return -1;
    snprintf(path, sizeof(path), "%s/log", folder);
    snprintf(rotated, sizeof(rotated), "%s/log.1", folder);
    return 0;
}

static int remove_folder(void **state)
{
    (void)state;
    empty_log();
    unlink(path);
    unlink(rotated);
    return rmdir(folder);
}

/* Makes `fd` stdout while a writer is made; the writer may keep using it until stdout_restore(). */
static void stdout_replace(int fd)
{
    fflush(stdout);
    stdout_saved = dup(STDOUT_FILENO);
    assert_true(stdout_saved >= 0);
    assert_true(dup2(fd, STDOUT_FILENO) >= 0);
    close(fd);
}

static void stdout_restore(void)
{
    assert_true(dup2(stdout_saved, STDOUT_FILENO) >= 0);
    close(stdout_saved);
}

static void line(unsigned number)
{
    log_begin(LOG_INFO, "line");
    log_u64("number", number);
    log_end();
}

/* Goes on until the log has nothing left to write and nothing on its way. */
static void settle(void)
{
    do
        loop_turn(loop, 30 * NS_PER_MS);
    while (!log_writer_is_idle(writer));
}

/* Checks that `content` holds the lines from..to-1, each whole, and nothing else. */
static void assert_lines(struct str content, unsigned from, unsigned to)
{
    for (unsigned i = from; i < to; i++) {
        char want[64];
        size_t end = str_find(content, '\n');
        int n = snprintf(want, sizeof(want), " info  line number=%u", i);
        assert_true(end < content.n);
        assert_int_equal(end, CLOCK_RFC3339_SIZE - 1 + n);
        assert_memory_equal(content.p + CLOCK_RFC3339_SIZE - 1, want, (size_t)n);
        content = str_make(content.p + end + 1, content.n - end - 1);
    }
    assert_int_equal(content.n, 0);
}

static void assert_file(const char *name, unsigned from, unsigned to)
{
    struct buf content = BUF_INIT;

    assert_int_equal(file_read(name, 1 << 24, &content), 0);
    assert_lines(buf_str(&content), from, to);
    buf_fini(&content);
}

static void open_path(void)
{
    writer = log_writer_new(loop, path);
    assert_non_null(writer);
}

static void test_a_file(void **state)
{
    struct stat st;

    (void)state;
    open_path();
    for (unsigned i = 0; i < 1000; i++) {
        line(i);
        if (i % 10 == 0)
            loop_turn(loop, 0);
    }
    settle();
    assert_file(path, 0, 1000);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0137, 0);
}

static void test_free_writes_the_rest(void **state)
{
    (void)state;
    open_path();
    line(0);
    loop_turn(loop, 0);
    line(1);
    line(2);
    log_writer_free(writer);
    assert_file(path, 0, 3);
    open_path();
    line(3);
    log_writer_free(writer);
    writer = NULL;
    assert_file(path, 0, 4);
}

static void test_a_file_that_cannot_be_opened(void **state)
{
    char missing[160];

    (void)state;
    snprintf(missing, sizeof(missing), "%s/none/log", folder);
    errno = 0;
    assert_null(log_writer_new(loop, missing));
    assert_int_equal(errno, ENOENT);
}

static void test_rotation(void **state)
{
    (void)state;
    open_path();
    line(0);
    settle();
    assert_int_equal(rename(path, rotated), 0);
    line(1);
    log_writer_reopen(writer);
    settle();
    line(2);
    settle();
    assert_file(rotated, 0, 2);
    assert_file(path, 2, 3);
}

static void test_rotation_that_fails_keeps_the_old_file(void **state)
{
    struct buf content = BUF_INIT;

    (void)state;
    open_path();
    line(0);
    settle();
    assert_int_equal(rename(path, rotated), 0);
    assert_int_equal(mkdir(path, 0700), 0);
    log_writer_reopen(writer);
    settle();
    assert_int_equal(rmdir(path), 0);
    line(1);
    settle();
    assert_int_equal(file_read(rotated, 1 << 20, &content), 0);
    assert_true(buf_append(&content, "", 1));
    assert_non_null(strstr(buf_str(&content).p, "error log_reopen_failed file="));
    assert_non_null(strstr(buf_str(&content).p, "line number=1\n"));
    buf_fini(&content);
}

/* Makes a pipe stderr; its end to be read does not block. */
static int stderr_saved = -1;

static int stderr_catch(void)
{
    int fds[2];

    assert_int_equal(pipe2(fds, O_CLOEXEC | O_NONBLOCK), 0);
    stderr_saved = dup(STDERR_FILENO);
    assert_true(stderr_saved >= 0);
    assert_true(dup2(fds[1], STDERR_FILENO) >= 0);
    close(fds[1]);
    return fds[0];
}

static void stderr_expect(int caught, const char *form)
{
    char want[600], got[1000];

    assert_true(dup2(stderr_saved, STDERR_FILENO) >= 0);
    close(stderr_saved);
    ssize_t n = read(caught, got, sizeof(got) - 1);
    got[n > 0 ? n : 0] = '\0';
    close(caught);
    char *at = want;
    for (const char *c = form; *c; c++) /* @ is the path */
        at += *c == '@' ? sprintf(at, "%s", path) : sprintf(at, "%c", *c);
    assert_string_equal(got, want);
}

/* Goes on until there is something at the path, which brings it about by itself. */
static bool settle_until_reopened(void)
{
    uint64_t until = clock_monotonic() + 10 * NS_PER_S;

    while (!file_exists(path) && clock_monotonic() < until)
        loop_turn(loop, 50 * NS_PER_MS);
    settle();
    return file_exists(path);
}

static unsigned count(const char *name, const char *what)
{
    struct buf content = BUF_INIT;
    unsigned n = 0;

    assert_int_equal(file_read(name, 1 << 20, &content), 0);
    assert_true(buf_append(&content, "", 1));
    for (const char *at = buf_str(&content).p; (at = strstr(at, what)); at++)
        n++;
    buf_fini(&content);
    return n;
}

/* Whoever rotates logs asks once, and deletes the old file later. */
static void test_a_rotation_that_fails_is_tried_again(void **state)
{
    (void)state;
    open_path();
    line(0);
    settle();
    assert_int_equal(rename(path, rotated), 0);
    assert_int_equal(mkdir(path, 0700), 0);
    log_writer_reopen(writer);
    for (uint64_t until = clock_monotonic() + 1500 * NS_PER_MS; clock_monotonic() < until;)
        settle(); /* it fails more than once */
    assert_int_equal(rmdir(path), 0);
    assert_true(settle_until_reopened());
    line(1);
    settle();
    assert_int_equal(count(rotated, "log_reopen_failed"), 1);
    assert_int_equal(count(path, " info  log_reopened file="), 1);
    assert_int_equal(count(path, "line number=1\n"), 1);
}

/* Nobody waits for the reader of a FIFO that has come into the file's place. */
static void test_a_fifo_that_nobody_reads_is_no_file(void **state)
{
    (void)state;
    open_path();
    line(0);
    settle();
    assert_int_equal(rename(path, rotated), 0);
    assert_int_equal(mkfifo(path, 0600), 0);
    int caught = stderr_catch();
    log_writer_reopen(writer);
    settle();
    line(1);
    settle();
    stderr_expect(caught, "@: the log cannot be opened anew: nobody reads from it; the old file stays in use\n");
    assert_int_equal(count(rotated, "cause=\"nobody reads from it\""), 1);
    assert_int_equal(count(rotated, "line number=1\n"), 1);
    assert_null(log_writer_new(loop, path));
    assert_int_equal(errno, ENXIO);
}

/* Another file, to which the log moves meanwhile, is not left for it. */
static void test_a_move_takes_the_place_of_a_rotation_that_fails(void **state)
{
    (void)state;
    open_path();
    assert_int_equal(unlink(path), 0);
    assert_int_equal(mkdir(path, 0700), 0);
    log_writer_reopen(writer);
    settle();
    int fd = file_open_append(rotated);
    assert_true(fd >= 0 && log_writer_move(writer, fd, rotated));
    settle();
    assert_int_equal(unlink(rotated), 0);
    for (uint64_t until = clock_monotonic() + 1500 * NS_PER_MS; clock_monotonic() < until;)
        settle();
    assert_false(file_exists(rotated));
    assert_int_equal(rmdir(path), 0);
}

/* Puts a FIFO in the file's place that is full, and whose reader does not read: it hangs whoever writes to it. */
static void make_full_fifo(void)
{
    static const char filler[4096];
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_true(open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC) >= 0); /* to the end of the process */
    int fd = open(path, O_WRONLY | O_NONBLOCK | O_CLOEXEC);
    assert_true(fd >= 0);
    while (write(fd, filler, sizeof(filler)) > 0)
        ;
    close(fd);
}

/* A thread that hangs in the file at the end is not waited for longer than was promised; the process ends with it. */
static void end_with_a_file_that_hangs(bool in_haste, uint64_t least, uint64_t most)
{
    open_path();
    line(0);
    settle();
    assert_int_equal(rename(path, rotated), 0);
    make_full_fifo();
    log_writer_reopen(writer);
    settle();
    line(1);
    if (in_haste)
        log_writer_hurry(writer);
    uint64_t started = clock_monotonic();
    log_writer_free(writer);
    writer = NULL;
    assert_in_range(clock_monotonic() - started, least, most);
    assert_file(rotated, 0, 1);
}

static void test_free_does_not_wait_long_for_a_file_that_hangs(void **state)
{
    (void)state;
    end_with_a_file_that_hangs(false, 1500 * NS_PER_MS, 5 * NS_PER_S);
}

static void test_in_haste_it_waits_hardly_at_all(void **state)
{
    (void)state;
    end_with_a_file_that_hangs(true, 150 * NS_PER_MS, 1500 * NS_PER_MS);
}

static void limit_file_size(rlim_t bytes)
{
    struct rlimit limit;

    assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
    limit.rlim_cur = bytes;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

/* A limit on the file's size stands for the full disk: the write that meets it stops in the middle of a line. */
static void test_a_full_disk_costs_lines_and_is_survived(void **state)
{
    uint64_t dropped = log_dropped();
    struct buf content = BUF_INIT;

    (void)state;
    signal(SIGXFSZ, SIG_IGN);
    open_path();
    line(0);
    settle();
    limit_file_size(100); /* room for one line more, and a bit of the next */
    line(1);
    line(2);
    line(3);
    settle();
    limit_file_size(RLIM_INFINITY);
    assert_int_equal(log_dropped(), dropped + 2);
    line(4);
    settle();
    assert_int_equal(file_read(path, 1 << 20, &content), 0);
    assert_true(buf_append(&content, "", 1));
    const char *rest = buf_str(&content).p + 100;
    assert_int_equal(*rest, '\n'); /* the torn line is ended */
    assert_non_null(strstr(rest, " warn  log_dropped lines=2\n"));
    assert_non_null(strstr(rest, " info  line number=4\n"));
    buf_fini(&content);
}

static void test_a_full_disk_is_told_once_on_stderr(void **state)
{
    (void)state;
    signal(SIGXFSZ, SIG_IGN);
    open_path();
    line(0);
    settle();
    int caught = stderr_catch();
    limit_file_size(1);
    for (unsigned i = 1; i < 4; i++) {
        line(i);
        settle();
    }
    limit_file_size(RLIM_INFINITY);
    for (unsigned i = 4; i < 6; i++) {
        line(i);
        settle();
    }
    stderr_expect(caught, "@: the log cannot be written: File too large; lines are lost\n"
                          "@: the log is written again; 3 lines were lost\n");
}

/* What the batch in flight loses is known when that has ended, and the file takes lines again. */
static void test_a_loss_of_the_last_but_one_batch_is_announced(void **state)
{
    struct buf content = BUF_INIT;

    (void)state;
    signal(SIGXFSZ, SIG_IGN);
    open_path();
    line(0);
    settle();
    int caught = stderr_catch();
    limit_file_size(1);
    line(1);
    loop_turn(loop, 30 * NS_PER_MS); /* when the pause is over, the line is handed over, */
    struct pollfd told = {.fd = caught, .events = POLLIN};
    assert_int_equal(poll(&told, 1, 10000), 1); /* and its write has failed */
    limit_file_size(RLIM_INFINITY);
    log_writer_free(writer);
    writer = NULL;
    stderr_expect(caught, "@: the log cannot be written: File too large; lines are lost\n"
                          "@: the log is written again; 1 lines were lost\n");
    assert_int_equal(file_read(path, 1 << 20, &content), 0);
    assert_true(buf_append(&content, "", 1));
    assert_non_null(strstr(buf_str(&content).p, " warn  log_dropped lines=1\n"));
    buf_fini(&content);
}

/* What the old file has not taken as the log moves is counted, too. */
static void test_a_loss_on_the_way_to_another_file_is_told(void **state)
{
    (void)state;
    open_path();
    line(0);
    settle();
    int caught = stderr_catch(), full = open("/dev/full", O_WRONLY | O_CLOEXEC);
    assert_true(full >= 0 && log_writer_move(writer, full, "/dev/full"));
    line(1);
    settle();
    line(2);
    int fd = file_open_append(path);
    assert_true(fd >= 0 && log_writer_move(writer, fd, path));
    line(3);
    settle();
    stderr_expect(caught, "/dev/full: the log cannot be written: No space left on device; lines are lost\n"
                          "@: the log is written again; 2 lines were lost\n");
}

static void test_a_rotation_that_fails_is_told_once_on_stderr(void **state)
{
    (void)state;
    open_path();
    line(0);
    settle();
    assert_int_equal(rename(path, rotated), 0);
    assert_int_equal(mkdir(path, 0700), 0);
    int caught = stderr_catch();
    for (int i = 0; i < 4; i++) {
        if (i == 2)
            assert_int_equal(rmdir(path), 0);
        log_writer_reopen(writer);
        settle();
    }
    stderr_expect(caught, "@: the log cannot be opened anew: Is a directory; the old file stays in use\n"
                          "@: the log has been opened anew\n");
}

static size_t read_all_there_is(int fd, struct buf *out)
{
    size_t total = 0;
    ssize_t n;

    do {
        assert_true(buf_reserve(out, 65536));
        n = read(fd, buf_tail(out), 65536);
        if (n > 0) {
            buf_added(out, (size_t)n);
            total += (size_t)n;
        }
    } while (n > 0);
    return total;
}

/* A writer to stdout that is a pipe or socket; the reading end does not block. */
static int open_stream(bool is_socket)
{
    int fds[2];

    if (is_socket)
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    else
        assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    assert_int_equal(fcntl(fds[0], F_SETFL, O_NONBLOCK), 0);
    stdout_replace(fds[1]);
    writer = log_writer_new(loop, NULL);
    return fds[0];
}

static void close_stream(int reader)
{
    log_writer_free(writer);
    writer = NULL;
    stdout_restore();
    close(reader);
}

static void test_a_pipe_is_written_at_once(void **state)
{
    struct buf got = BUF_INIT;
    int reader;

    (void)state;
    reader = open_stream(false);
    line(0);
    line(1);
    loop_turn(loop, 0);
    read_all_there_is(reader, &got);
    close_stream(reader);
    assert_lines(buf_str(&got), 0, 2);
    buf_fini(&got);
}

static void stall_and_go_on(bool is_socket)
{
    struct buf got = BUF_INIT;
    uint64_t dropped = log_dropped();
    unsigned n = 0;
    int reader = open_stream(is_socket);

    while (log_dropped() == dropped) {
        line(n++);
        loop_turn(loop, 0);
    }
    uint64_t started = clock_monotonic();
    for (int i = 0; i < 3; i++)
        loop_turn(loop, 5 * NS_PER_MS);
    bool waited = clock_monotonic() - started >= 10 * NS_PER_MS;
    while (read_all_there_is(reader, &got))
        loop_turn(loop, 50 * NS_PER_MS);
    bool all_written = log_pending() == 0;
    line(n);
    loop_turn(loop, 0);
    read_all_there_is(reader, &got);
    close_stream(reader);
    assert_true(waited); /* it did not spin */
    assert_true(all_written);
    assert_true(got.len > LOG_BUFFER_MAX);
    assert_true(buf_append(&got, "", 1));
    assert_non_null(strstr(buf_bytes(&got), "log_dropped lines=1\n"));
    buf_fini(&got);
}

static void test_a_pipe_that_stalls(void **state)
{
    (void)state;
    stall_and_go_on(false);
}

static void test_a_socket_that_stalls(void **state)
{
    (void)state;
    stall_and_go_on(true);
}

static void test_a_reader_that_leaves(void **state)
{
    uint64_t dropped = log_dropped();
    int reader, lost;

    (void)state;
    reader = open_stream(false);
    line(0);
    loop_turn(loop, 0);
    close(reader);
    line(1);
    line(2);
    loop_turn(loop, 0);
    lost = (int)(log_dropped() - dropped);
    uint64_t started = clock_monotonic();
    loop_turn(loop, 5 * NS_PER_MS);
    bool waited = clock_monotonic() - started >= 4 * NS_PER_MS;
    close_stream(-1);
    assert_int_equal(lost, 2);
    assert_true(waited);
}

/* Its reader leaves while the pipe is full and waited for: that ends the waiting, and nothing turns round and round. */
static void test_a_reader_that_leaves_a_full_pipe(void **state)
{
    uint64_t dropped = log_dropped();
    int reader;

    (void)state;
    reader = open_stream(false);
    for (unsigned i = 0; i < 3000; i++)
        line(i);
    loop_turn(loop, 0);
    close(reader);
    loop_turn(loop, 50 * NS_PER_MS);
    bool given_up = log_dropped() > dropped && log_pending() == 0;
    uint64_t started = clock_monotonic();
    loop_turn(loop, 5 * NS_PER_MS);
    bool waited = clock_monotonic() - started >= 4 * NS_PER_MS;
    close_stream(-1);
    assert_true(given_up);
    assert_true(waited);
}

static void test_free_does_not_wait_long_for_a_stalled_pipe(void **state)
{
    int reader;

    (void)state;
    reader = open_stream(false);
    for (unsigned i = 0; i < 3000; i++)
        line(i);
    uint64_t started = clock_monotonic();
    close_stream(reader);
    uint64_t took = clock_monotonic() - started;
    assert_in_range(took, 150 * NS_PER_MS, 2 * NS_PER_S);
}

static void test_others_who_share_the_pipe_are_not_affected(void **state)
{
    int reader, flags;

    (void)state;
    reader = open_stream(false);
    flags = fcntl(STDOUT_FILENO, F_GETFL);
    close_stream(reader);
    assert_int_equal(flags & O_NONBLOCK, 0);
}

/* Lines so far go to the old file, later ones to the new one, in whatever moment it is asked for. */
static void test_moving(void **state)
{
    (void)state;
    char line[32];
    writer = log_writer_new(loop, path);
    assert_non_null(writer);
    assert_true(log_writer_can_move(writer));
    for (int i = 0; i < 60; i++) {
        snprintf(line, sizeof line, "line_%d", i);
        log_begin(LOG_INFO, line);
        log_end();
        if (i % 10 == 5) {
            int fd = file_open_append(i % 20 == 5 ? rotated : path);
            assert_true(fd >= 0 && log_writer_move(writer, fd, i % 20 == 5 ? rotated : path));
        }
        if (i % 3 == 0)
            loop_turn(loop, 0);
    }
    log_writer_free(writer);
    writer = NULL;
    struct buf one = BUF_INIT, two = BUF_INIT;
    assert_int_equal(file_read(path, 1 << 20, &one), 0);
    assert_int_equal(file_read(rotated, 1 << 20, &two), 0);
    assert_true(buf_append(&one, "", 1) && buf_append(&two, "", 1));
    for (int i = 0; i < 60; i++) {
        snprintf(line, sizeof line, " line_%d\n", i);
        assert_int_equal(!!strstr(buf_str(&one).p, line) + !!strstr(buf_str(&two).p, line), 1);
    }
    buf_fini(&one);
    buf_fini(&two);
}

/* Lines before the move are in the old file, those behind it in the new one, be a batch on its way at that time or not,
 * and though the writer ends before any turn of the loop. */
static void test_moving_splits_at_the_call(void **state)
{
    (void)state;
    for (int on_its_way = 0; on_its_way < 2; on_its_way++) {
        struct buf before = BUF_INIT, after = BUF_INIT;
        unlink(path);
        unlink(rotated);
        writer = log_writer_new(loop, path);
        assert_non_null(writer);
        line(0);
        if (on_its_way)
            loop_turn(loop, 0);
        line(1);
        int fd = file_open_append(rotated);
        assert_true(fd >= 0 && log_writer_move(writer, fd, rotated));
        line(2);
        log_writer_free(writer);
        writer = NULL;
        assert_int_equal(file_read(path, 1 << 20, &before), 0);
        assert_int_equal(file_read(rotated, 1 << 20, &after), 0);
        assert_lines(buf_str(&before), 0, 2);
        assert_lines(buf_str(&after), 2, 3);
        buf_fini(&before);
        buf_fini(&after);
    }
}

#define WRITER_TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WRITER_TEST(test_a_file),
        WRITER_TEST(test_moving),
        WRITER_TEST(test_moving_splits_at_the_call),
        WRITER_TEST(test_free_writes_the_rest),
        WRITER_TEST(test_a_file_that_cannot_be_opened),
        WRITER_TEST(test_rotation),
        WRITER_TEST(test_rotation_that_fails_keeps_the_old_file),
        WRITER_TEST(test_a_rotation_that_fails_is_tried_again),
        WRITER_TEST(test_a_fifo_that_nobody_reads_is_no_file),
        WRITER_TEST(test_a_move_takes_the_place_of_a_rotation_that_fails),
        WRITER_TEST(test_free_does_not_wait_long_for_a_file_that_hangs),
        WRITER_TEST(test_in_haste_it_waits_hardly_at_all),
        WRITER_TEST(test_a_full_disk_costs_lines_and_is_survived),
        WRITER_TEST(test_a_full_disk_is_told_once_on_stderr),
        WRITER_TEST(test_a_loss_of_the_last_but_one_batch_is_announced),
        WRITER_TEST(test_a_loss_on_the_way_to_another_file_is_told),
        WRITER_TEST(test_a_rotation_that_fails_is_told_once_on_stderr),
        WRITER_TEST(test_a_pipe_is_written_at_once),
        WRITER_TEST(test_a_pipe_that_stalls),
        WRITER_TEST(test_a_socket_that_stalls),
        WRITER_TEST(test_a_reader_that_leaves),
        WRITER_TEST(test_a_reader_that_leaves_a_full_pipe),
        WRITER_TEST(test_free_does_not_wait_long_for_a_stalled_pipe),
        WRITER_TEST(test_others_who_share_the_pipe_are_not_affected),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
