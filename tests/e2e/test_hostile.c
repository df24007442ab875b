/* Peers that are slow, silent or gone, by the thousand; and a daemon that has run out of descriptors. Everybody else is
 * served as if nothing were, memory stays within what the README says, and the loop never spins. */
#include "harness/world.h"

#include <arpa/inet.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define SLOW_HEADS   2000 /* that send a byte of their head now and then */
#define SLOW_READERS 50   /* that ask for a large body and do not take it */
#define LARGE        (4u * 1024 * 1024)
#define ASKED        400  /* requests of which the times are compared */
#define HEAD_BYTES   4096 /* of memory for a head that is not whole, with the connection's own */
#define EXCHANGE_KIB 320  /* for an exchange: see "Bounds" in docs/architecture.md */
#define SPARE_KIB    4096

static void large_script(struct origin_conn *c)
{
    static const char piece[65536];

    while (origin_read(c)) {
        if (strcmp(c->request.target, "/large") != 0) {
            if (!origin_answer(c, "ok"))
                return;
            continue;
        }
        if (!origin_sendf(c, "HTTP/1.1 200 OK\r\nContent-Length: %u\r\n\r\n", LARGE))
            return;
        for (unsigned n = 0; n < LARGE; n += sizeof piece)
            if (!origin_send_bytes(c, piece, sizeof piece))
                return;
    }
}

/* ---- how long the others wait ---- */

static int compare_times(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

static uint64_t now_us(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static uint64_t ask_us(struct client *c)
{
    uint64_t begin = now_us();

    client_send(c, "GET /small HTTP/1.1\r\nHost: h\r\n\r\n");
    client_expect(c, 200);
    return now_us() - begin;
}

/* The time, in us, within which 99 of 100 requests are answered: through the daemon, and in turn with those by the
 * backend itself, which shows how busy the machine is meanwhile. */
struct p99 {
    uint64_t through, past;
};

static struct p99 ask_both(struct client *through, struct client *past)
{
    uint64_t a[ASKED], b[ASKED];

    for (int i = 0; i < ASKED; i++) {
        a[i] = ask_us(through);
        b[i] = ask_us(past);
    }
    qsort(a, ASKED, sizeof *a, compare_times);
    qsort(b, ASKED, sizeof *b, compare_times);
    return (struct p99){a[ASKED * 99 / 100], b[ASKED * 99 / 100]};
}

/* Half as long again as alone, or as twice what a request without the daemon takes now, is no longer than need be; nor
 * is what nobody notices. */
static bool is_as_ever(struct p99 now, uint64_t alone)
{
    uint64_t usual = alone > 2000 ? alone : 2000;

    return now.through <= (usual > 2 * now.past ? usual : 2 * now.past) * 3 / 2;
}

/* ---- those who are up to no good ---- */

struct crowd {
    int port;
    int slow[SLOW_HEADS], readers[SLOW_READERS];
    int slow_count;
    atomic_bool over;
};

static int open_fd(int port)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&a, sizeof a) == 0)
        return fd;
    if (fd >= 0)
        close(fd);
    return -1;
}

static void send_text(int fd, const char *text)
{
    if (send(fd, text, strlen(text), MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
        CHECK(errno == EAGAIN || errno == EPIPE || errno == ECONNRESET, "send: %s", strerror(errno));
}

/* Each slow head gets a byte in its turn, about 2,000 bytes a second in all; besides, connections come only to vanish:
 * with a reset in the middle of a head, with one before any byte, with a FIN. */
static void *pester(void *arg)
{
    struct crowd *k = arg;

    for (unsigned turn = 0; !k->over; turn++) {
        for (int i = 0; i < 20; i++)
            send(k->slow[(turn * 20 + (unsigned)i) % (unsigned)k->slow_count], "a", 1, MSG_NOSIGNAL | MSG_DONTWAIT);
        for (int i = 0; i < 6; i++) {
            int fd = open_fd(k->port);
            struct linger reset = {.l_onoff = 1};

            if (fd < 0)
                continue;
            if (i % 3 == 1)
                send(fd, "GET / HTTP/1.1\r\nHo", 18, MSG_NOSIGNAL);
            if (i % 3 != 2)
                setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
            close(fd);
        }
        usleep(10000);
    }
    return NULL;
}

static void open_crowd(struct crowd *k, int port)
{
    k->port = port;
    k->slow_count = raise_fd_limit(SLOW_HEADS + 500) >= SLOW_HEADS + 400 ? SLOW_HEADS : 500;
    for (int i = 0; i < k->slow_count; i++) {
        k->slow[i] = open_fd(port);
        CHECK(k->slow[i] >= 0, "connection %d: %s", i, strerror(errno));
        send_text(k->slow[i], "GET / HTTP/1.1\r\nHost: h\r\nX-Slow: ");
    }
    for (int i = 0; i < SLOW_READERS; i++) {
        k->readers[i] = open_fd(port);
        CHECK(k->readers[i] >= 0, "reader %d: %s", i, strerror(errno));
        send_text(k->readers[i], "GET /large HTTP/1.1\r\nHost: h\r\n\r\n");
    }
}

static void close_crowd(struct crowd *k)
{
    for (int i = 0; i < k->slow_count; i++)
        close(k->slow[i]);
    for (int i = 0; i < SLOW_READERS; i++)
        close(k->readers[i]);
}

static void test_slow_and_vanishing_peers(void **state)
{
    struct world *w = *state;
    struct client c, past;
    struct crowd *k = calloc(1, sizeof *k);
    pthread_t thread;
    struct origin *o = world_origin(w, large_script, NULL, NULL);

    world_start(w, "\"log\": {\"format\": \"json\", \"access\": false}, \"timeouts\": {\"client_header\": \"2m\"}");
    client_open(&c, w->port);
    client_open(&past, origin_port(o));
    assert_int_equal(http_get(w->port, "/large", NULL), 200); /* splice has its pipe from now on */
    ask_both(&c, &past);                                      /* warm */
    uint64_t alone = ask_both(&c, &past).through;
    int fds = proc_fds(w->daemon.pid);
    long rss = proc_kib(w->daemon.pid, "VmRSS");

    open_crowd(k, w->port);
    origin_wait_requests(o, 1 + SLOW_READERS + 4 * ASKED);
    assert_int_equal(pthread_create(&thread, NULL, pester, k), 0);
    struct p99 beside = ask_both(&c, &past);
    for (int tries = 1; tries < 5 && !is_as_ever(beside, alone); tries++) /* the machine has its own moods */
        beside = ask_both(&c, &past);
    long more = proc_kib(w->daemon.pid, "VmRSS") - rss;
    print_message(
        "p99 %llu us alone, %llu us (%llu us by the backend itself) beside %d slow heads, %d slow readers and a "
        "storm; %ld KiB more\n",
        (unsigned long long)alone, (unsigned long long)beside.through, (unsigned long long)beside.past, k->slow_count,
        SLOW_READERS, more);
    assert_true(is_instrumented() || is_as_ever(beside, alone));
    assert_true(is_instrumented() ||
                more < k->slow_count * HEAD_BYTES / 1024 + SLOW_READERS * EXCHANGE_KIB + SPARE_KIB);
    k->over = true;
    pthread_join(thread, NULL);
    close_crowd(k);
    world_wait_fds(w, fds);
    client_send(&c, "GET /small HTTP/1.1\r\nHost: h\r\n\r\n");
    client_expect(&c, 200);
    client_close(&c);
    client_close(&past);
    free(k);
    world_finish(w);
}

/* ---- no descriptors left ---- */

/* The lowest number that its next descriptor can have. */
static int next_fd(const struct world *w)
{
    char path[64], target[64];

    for (int fd = 0;; fd++) {
        snprintf(path, sizeof path, "/proc/%d/fd/%d", (int)w->daemon.pid, fd);
        if (readlink(path, target, sizeof target) < 0)
            return fd;
    }
}

static void limit_fds(const struct world *w, rlim_t soft)
{
    struct rlimit l;

    assert_int_equal(prlimit(w->daemon.pid, RLIMIT_NOFILE, NULL, &l), 0);
    l.rlim_cur = soft;
    assert_int_equal(prlimit(w->daemon.pid, RLIMIT_NOFILE, &l, NULL), 0);
}

/* The daemon may open nothing more: who is connected is served as before over the connections that there are, who
 * comes waits, which the log says, the loop sleeps; and when there are descriptors again, all goes on by itself. */
static void test_out_of_descriptors(void **state)
{
    struct world *w = *state;
    struct client c, late[20];

    world_origin(w, origin_answer_all, NULL, NULL);
    world_start(w, "\"health_check\": {\"interval\": \"100ms\"}");
    client_open(&c, w->port);
    client_send(&c, "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    client_expect(&c, 200);
    int fds = next_fd(w);
    for (int i = 0; i < 100; i++, usleep(2000)) /* without a probe that is under way */
        fds = next_fd(w) < fds ? next_fd(w) : fds;
    limit_fds(w, (rlim_t)fds);
    for (int i = 0; i < 20; i++) {
        client_open(&late[i], w->port); /* into the backlog */
        client_send(&late[i], "GET /late HTTP/1.1\r\nHost: h\r\n\r\n");
    }
    uint64_t cpu = proc_cpu_ns(w->daemon.pid), began = now_ms(), end = deadline_in(1000);
    unsigned served = 0;
    while (left_ms(end) > 0) {
        client_send(&c, "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
        client_expect(&c, 200);
        served++;
        usleep(20000);
    }
    cpu = proc_cpu_ns(w->daemon.pid) - cpu;
    print_message("%u requests served without a descriptor to spare, in %.0f ms of CPU time\n", served,
                  (double)cpu / 1e6);
    assert_true(is_instrumented() || cpu < 200 * 1000000ull); /* one second's spinning would be 1000 ms */
    assert_int_equal(daemon_count_events(&w->daemon, 0, "backend_down", NULL), 0); /* ours says nothing about theirs */
    const cJSON *line = daemon_expect_event(&w->daemon, 0, "accept_paused", "cause=* times=1");
    assert_string_equal(log_field(line, "cause"), "Too many open files");
    unsigned lines = (unsigned)daemon_count_events(&w->daemon, 0, "accept_paused", NULL);
    CHECK(lines <= (now_ms() - began) / 1000 + 2, "%u lines", lines);
    limit_fds(w, 1000);
    for (int i = 0; i < 20; i++) {
        client_expect(&late[i], 200);
        client_close(&late[i]);
    }
    client_close(&c);
    world_finish(w);
}

/* ---- a machine that stands still ---- */

#define PATIENT 600 /* more than the loop is told of at once */

/* The process is stopped, as that of a virtual machine is when it moves; meanwhile everybody sends a request, and the
 * time in which they had to is over when it goes on. They have been in time. */
static void test_stopped_process(void **state)
{
    struct world *w = *state;
    struct client *c = calloc(PATIENT, sizeof *c);

    CHECK(c, "no memory");
    raise_fd_limit(2 * PATIENT + 200);
    world_origin(w, origin_answer_all, NULL, NULL);
    world_start(w, "\"timeouts\": {\"client_idle\": \"3s\", \"client_header\": \"3s\", \"backend_response\": \"3s\"}");
    for (int i = 0; i < PATIENT; i++) {
        client_open(&c[i], w->port);
        client_send(&c[i], "GET /first HTTP/1.1\r\nHost: h\r\n\r\n");
        client_expect(&c[i], 200);
    }
    daemon_signal(&w->daemon, SIGSTOP);
    uint64_t over = deadline_in(3200);
    for (int i = 0; i < PATIENT; i++)
        client_send(&c[i], "GET /second HTTP/1.1\r\nHost: h\r\n\r\n");
    while (left_ms(over) > 0)
        usleep(10000);
    daemon_signal(&w->daemon, SIGCONT);
    for (int i = 0; i < PATIENT; i++) {
        client_expect(&c[i], 200);
        client_close(&c[i]);
    }
    free(c);
    world_finish(w);
}

/* ---- somebody who looks ---- */

/* Takes copies of all the daemon's sockets, as whoever reads /proc/PID/fd does for a moment. Their number. */
static int copy_sockets(const struct world *w, int *copies, int room)
{
    int pidfd = (int)syscall(SYS_pidfd_open, w->daemon.pid, 0), count = 0;
    struct stat st;

    CHECK(pidfd >= 0, "pidfd_open: %s", strerror(errno));
    for (int fd = 0; fd < 200 && count < room; fd++) {
        int copy = (int)syscall(SYS_pidfd_getfd, pidfd, fd, 0);

        if (copy >= 0 && fstat(copy, &st) == 0 && S_ISSOCK(st.st_mode))
            copies[count++] = copy;
        else if (copy >= 0)
            close(copy);
        else if (errno == EPERM)
            skip(); /* the system lets nobody do that */
    }
    close(pidfd);
    return count;
}

/* As long as there is a copy of a descriptor, closing it does not take it out of epoll: what epoll goes on to tell of
 * it must not find a connection that is no more. (Reading /proc/PID/fd, as monitors do, is enough for that.) */
static void test_descriptors_that_others_hold(void **state)
{
    struct world *w = *state;
    struct client c[20];
    int copies[100], count;

    world_origin(w, origin_answer_all, NULL, NULL);
    world_start(w, NULL);
    for (int i = 0; i < 20; i++) {
        client_open(&c[i], w->port);
        client_send(&c[i], "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
        client_expect(&c[i], 200);
    }
    count = copy_sockets(w, copies, 100);
    assert_true(count >= 20);
    int fds = proc_fds(w->daemon.pid);
    for (int i = 0; i < 20; i++)
        client_close(&c[i]);
    world_wait_fds(w, fds - 20);
    uint64_t cpu = proc_cpu_ns(w->daemon.pid), end = deadline_in(500);
    while (left_ms(end) > 0) {
        assert_int_equal(http_get(w->port, "/", NULL), 200);
        usleep(10000);
    }
    cpu = proc_cpu_ns(w->daemon.pid) - cpu;
    assert_true(is_instrumented() || cpu < 200 * 1000000ull); /* nor does the loop spin for it */
    for (int i = 0; i < count; i++)
        close(copies[i]);
    world_finish(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WORLD_TEST(test_slow_and_vanishing_peers),
        WORLD_TEST(test_out_of_descriptors),
        WORLD_TEST(test_stopped_process),
        WORLD_TEST(test_descriptors_that_others_hold),
    };

    return cmocka_run_group_tests_name("hostile", tests, NULL, NULL);
}
