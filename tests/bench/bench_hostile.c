/* Peers that are up to no good, at a bounded rate, so that they measure the proxy and not the core that they run on:
 *
 *   bench_hostile KIND[,KIND...] PORT
 *     slow     2000 connections that never finish a head: a byte a second each, and opened anew when they are closed
 *     readers  200 that ask for a mebibyte and take 4 KiB of it a second each
 *     vanish   500 a second that connect and close: every other one in the middle of a head
 *     reset    500 a second that connect and reset: before any byte, in the middle of a head, behind a whole request
 *     gone     peers that vanish without a word, in the middle of a head or behind a whole request: 1000, then 100 a
 *              second, about as many as a time-out of 10 s ends
 *
 * They come from addresses of their own, 127.66.0.1 to 127.66.0.40, against 127.0.0.1. A socket in TCP_REPAIR ends
 * without a FIN, which takes CAP_NET_ADMIN; without that the gone ones are silent instead. Prints "ready" when those
 * that stand are there, and at SIGTERM what was done, in all and for each second. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define STANDING_MAX 2000
#define OPENED_A_MS  1 /* so fast are those opened that are to stand */
#define ADDRESSES    40u
#define READ_AT_ONCE 4096

#define PIECE "GET / HTTP/1.1\r\nHost: h\r\nX-Sl"
#define WHOLE "GET /65536 HTTP/1.1\r\nHost: h\r\n\r\n"
#define LARGE "GET /1048576 HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"

struct crowd;

struct kind {
    const char *name;
    unsigned standing, first, a_second;     /* that stand; of those that do not at once; of those afterwards */
    const char *opening;                    /* what one that stands sends first */
    void (*turn)(struct crowd *k, int *fd); /* of one that stands: each has one a second */
    void (*once)(struct crowd *k, unsigned i);
};

struct crowd {
    const struct kind *kind;
    int fds[STANDING_MAX]; /* -1: to be opened */
    unsigned cursor, opened;
    uint64_t turns, done, lost; /* lost: could not be opened, or had been closed by the other side */
};

static struct sockaddr_in to;
static volatile sig_atomic_t over;
static bool can_vanish = true;

static uint64_t now_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000u + (uint64_t)t.tv_nsec / 1000000u;
}

/* -1: nobody took it at once. */
static int open_one(int receive_buffer)
{
    static uint32_t next;
    struct sockaddr_in from = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(0x7f420001u + next++ % ADDRESSES)};
    int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (fd < 0)
        return -1;
    setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (receive_buffer > 0)
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof receive_buffer);
    if (bind(fd, (struct sockaddr *)&from, sizeof from) == 0 &&
        (connect(fd, (struct sockaddr *)&to, sizeof to) == 0 || errno == EINPROGRESS))
        return fd;
    close(fd);
    return -1;
}

static bool say(int fd, const char *text)
{
    return send(fd, text, strlen(text), MSG_NOSIGNAL) == (ssize_t)strlen(text);
}

static void reset(int fd)
{
    struct linger at_once = {.l_onoff = 1};

    setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    close(fd);
}

/* ---- those that stand ---- */

static void close_it(struct crowd *k, int *fd)
{
    close(*fd);
    *fd = -1;
    k->opened--;
}

static void lose(struct crowd *k, int *fd)
{
    close_it(k, fd);
    k->lost++;
}

static void drip(struct crowd *k, int *fd)
{
    char in[512];
    ssize_t n = recv(*fd, in, sizeof in, 0);

    if (n >= 0 || errno != EAGAIN || !say(*fd, "a"))
        lose(k, fd);
    else
        k->done++;
}

static void sip(struct crowd *k, int *fd)
{
    char in[READ_AT_ONCE];
    ssize_t n = recv(*fd, in, sizeof in, 0);

    if (n == 0)
        close_it(k, fd); /* it has all */
    else if (n < 0 && errno != EAGAIN)
        lose(k, fd);
    else
        k->done++;
}

static void open_standing(struct crowd *k, int *fd)
{
    *fd = open_one(k->kind->turn == sip ? READ_AT_ONCE : 0);
    if (*fd < 0) {
        k->lost++;
        return;
    }
    k->opened++;
    if (!say(*fd, k->kind->opening))
        lose(k, fd);
}

/* ---- those that do not ---- */

static void vanish(struct crowd *k, unsigned i)
{
    int fd = open_one(0);

    if (fd < 0) {
        k->lost++;
        return;
    }
    k->lost += i % 2 && !say(fd, PIECE);
    close(fd);
}

static void cut(struct crowd *k, unsigned i)
{
    int fd = open_one(0);

    if (fd < 0) {
        k->lost++;
        return;
    }
    k->lost += i % 3 > 0 && !say(fd, i % 3 == 1 ? PIECE : WHOLE);
    reset(fd);
}

static void leave_silently(struct crowd *k, unsigned i)
{
    int fd = open_one(0), on = 1, *kept = &k->fds[i % 1000];

    if (fd < 0) {
        k->lost++;
        return;
    }
    k->lost += !say(fd, i % 4 > 0 ? PIECE : WHOLE);
    can_vanish = can_vanish && setsockopt(fd, IPPROTO_TCP, TCP_REPAIR, &on, sizeof on) == 0;
    if (can_vanish) {
        close(fd);
        return;
    }
    if (*kept >= 0)
        close(*kept);
    *kept = fd;
}

/* ---- the clock ---- */

static const struct kind kinds[] = {
    {"slow", 2000, 0, 0, PIECE, drip, NULL},
    {"readers", 200, 0, 0, LARGE, sip, NULL},
    {"vanish", 0, 0, 500, NULL, NULL, vanish},
    {"reset", 0, 0, 500, NULL, NULL, cut},
    {"gone", 0, 1000, 100, NULL, NULL, leave_silently},
};
#define KINDS (sizeof kinds / sizeof *kinds)

/* What a crowd is to have done `ms` behind its begin; true when those that are to be there at once are there. */
static bool tick(struct crowd *k, uint64_t ms)
{
    const struct kind *d = k->kind;
    uint64_t turns = ms * d->standing / 1000,
             done = ms < d->first ? ms : d->first + (ms - d->first) * d->a_second / 1000;
    unsigned may_open = OPENED_A_MS;

    for (; k->turns < turns; k->turns++, k->cursor = (k->cursor + 1) % d->standing)
        if (k->fds[k->cursor] >= 0)
            d->turn(k, &k->fds[k->cursor]);
    for (unsigned i = 0; i < d->standing && may_open > 0 && k->opened < d->standing; i++)
        if (k->fds[i] < 0) {
            open_standing(k, &k->fds[i]);
            may_open--;
        }
    for (; d->once && k->done < done; k->done++)
        d->once(k, (unsigned)k->done);
    return k->opened >= d->standing * 9 / 10 && ms >= d->first;
}

static struct crowd *crowd_new(const char *name)
{
    for (size_t i = 0; i < KINDS; i++) {
        struct crowd *k = strcmp(name, kinds[i].name) == 0 ? calloc(1, sizeof *k) : NULL;
        if (!k)
            continue;
        k->kind = &kinds[i];
        for (size_t j = 0; j < STANDING_MAX; j++)
            k->fds[j] = -1;
        return k;
    }
    return NULL;
}

static void end(int signo)
{
    (void)signo;
    over = 1;
}

static void report(struct crowd *const crowds[], unsigned count, double seconds)
{
    for (unsigned i = 0; i < count; i++)
        printf("%s: %llu in %.1f s, %.0f/s, %llu lost, %u stand%s\n", crowds[i]->kind->name,
               (unsigned long long)crowds[i]->done, seconds, (double)crowds[i]->done / seconds,
               (unsigned long long)crowds[i]->lost, crowds[i]->opened,
               crowds[i]->kind->once == leave_silently && !can_vanish ? ", silent ones" : "");
    fflush(stdout);
}

int main(int argc, char **argv)
{
    struct crowd *crowds[KINDS];
    struct rlimit limit;
    unsigned count = 0;
    bool told = false;

    if (argc != 3)
        return 2;
    to = (struct sockaddr_in){
        .sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[2])), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    for (char *name = strtok(argv[1], ","); name && count < KINDS; name = strtok(NULL, ","))
        if (!(crowds[count++] = crowd_new(name)))
            return 2;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    signal(SIGTERM, end);
    prctl(PR_SET_TIMERSLACK, 1000ul);
    for (uint64_t begun = now_ms(), ms = 0; !over; ms = now_ms() - begun) {
        bool ready = true;
        for (unsigned i = 0; i < count; i++)
            ready = tick(crowds[i], ms) && ready;
        if (ready && !told) {
            told = true;
            printf("ready\n");
            fflush(stdout);
        }
        if (now_ms() - begun == ms)
            usleep(1000);
        if (over)
            report(crowds, count, (double)(now_ms() - begun) / 1000);
    }
    return 0;
}
