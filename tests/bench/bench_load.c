/* A load generator for what wrk cannot do: an exact number of requests, uploads, a connection for each request, and a
 * fixed rate. One thread, epoll, against 127.0.0.1.
 *
 *   bench_load OPTIONS PORT
 *     -c CONNECTIONS   -n REQUESTS or -d SECONDS   -t TARGET   -u UPLOAD_BYTES   -r RATE
 *     -C               a connection for each request
 *     -w               waits until somebody listens
 *     -s               at a fixed rate: sleeps until something is due, where others are to have the core, too
 *     -h SECONDS       holds its connections for so long at the end
 *     -W SECONDS       at a fixed rate: has asked for so long before anything counts
 *     -b PORT[-LAST]   is a backend on that port, or on all from that to LAST, as well
 *     -p PID           prints what that process takes of the CPU, too
 *
 * With -p and no rate it counts only from when there were two answers for each connection. With -b, which may be given
 * several times, load and backends are one thread: where they share a core there is no scheduler between them then,
 * whose slices are longer than what a proxy takes. It sleeps then with -s alone, and -h does not go with it.
 *
 * At a fixed rate request number i is due at i / RATE, whatever became of those before it, and its latency counts from
 * then: a proxy that stalls is charged for all that had to wait (no coordinated omission). Without a rate each
 * connection asks again as soon as it has been answered. Prints one line: requests, seconds, errors, latencies in us.
 */
#include "origin.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define BATCH      256
#define SERVED_MAX 16
#define LATENCIES  (8u * 1024u * 1024u)
#define HEAD_MAX   4096u
#define UPLOAD_MAX (16u * 1024u * 1024u)

struct conn {
    int fd;
    bool busy, headed, chunked;
    uint64_t due;       /* when its request should have begun */
    size_t unsent;      /* of the request */
    uint64_t left;      /* of a response's content */
    unsigned head_len;  /* of the response's */
    unsigned last_five; /* matched of what ends a chunked body */
    char head[HEAD_MAX];
};

static struct {
    uint16_t port;
    unsigned connections;
    uint64_t requests, seconds;
    const char *target;
    size_t upload;
    double rate;
    bool close_each, waits, sleeps;
    unsigned hold, warm_up, served;
    struct {
        uint16_t first, last;
    } serve[SERVED_MAX]; /* ports of its own */
    int pid;
} opt = {.connections = 1, .target = "/"};

static int epoll_fd;
static struct conn *conns;
static char *request;
static size_t request_len;
static uint64_t begun, started, finished, errors, cpu_before;
static bool warming;
static uint32_t *latencies;

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void make_request(void)
{
    request = malloc(HEAD_MAX + opt.upload);
    if (!request)
        exit(1);
    int n = snprintf(request, HEAD_MAX, "%s %s HTTP/1.1\r\nHost: bench\r\n%s", opt.upload ? "POST" : "GET", opt.target,
                     opt.close_each ? "Connection: close\r\n" : "");
    if (opt.upload)
        n += snprintf(request + n, HEAD_MAX - (size_t)n, "Content-Length: %zu\r\n", opt.upload);
    n += snprintf(request + n, HEAD_MAX - (size_t)n, "\r\n");
    memset(request + n, 'x', opt.upload);
    request_len = (size_t)n + opt.upload;
}

static void watch(int op, struct conn *c, uint32_t events)
{
    struct epoll_event e = {.events = events, .data.ptr = c};
    epoll_ctl(epoll_fd, op, c->fd, &e);
}

static struct sockaddr_in address(void)
{
    return (struct sockaddr_in){
        .sin_family = AF_INET, .sin_port = htons(opt.port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

static void wait_for_listener(void)
{
    struct sockaddr_in to = address();
    for (bool there = false; !there; usleep(200)) {
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        there = connect(fd, (const struct sockaddr *)&to, sizeof to) == 0;
        close(fd);
    }
}

/* Connections that end by the thousand leave as many in TIME_WAIT; a run that met those of the one before would wait
 * for the kernel now and then. So each run comes from an address of its own, 127.128.0.0 and on. */
static int from_own_address(int fd)
{
    struct sockaddr_in from = {.sin_family = AF_INET,
                               .sin_addr.s_addr = htonl(0x7f800000u | ((uint32_t)getpid() & 0x7fffffu))};
    int on = 1;

    setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
    return bind(fd, (const struct sockaddr *)&from, sizeof from);
}

static void open_conn(struct conn *c)
{
    struct sockaddr_in to = address();
    int on = 1;

    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (c->fd < 0 || (opt.close_each && from_own_address(c->fd) < 0) ||
        (connect(c->fd, (const struct sockaddr *)&to, sizeof to) < 0 && errno != EINPROGRESS)) {
        perror("bench_load: connect");
        exit(1);
    }
    watch(EPOLL_CTL_ADD, c, EPOLLIN);
}

static void send_on(struct conn *c)
{
    ssize_t n = send(c->fd, request + request_len - c->unsent, c->unsent, MSG_NOSIGNAL);

    if (n > 0)
        c->unsent -= (size_t)n;
    watch(EPOLL_CTL_MOD, c, c->unsent > 0 ? EPOLLIN | EPOLLOUT : EPOLLIN);
}

/* Of all threads of the process, in ns. */
static uint64_t cpu_of(int pid)
{
    char path[300];
    uint64_t sum = 0;
    snprintf(path, sizeof path, "/proc/%d/task", pid);
    DIR *d = opendir(path);
    for (const struct dirent *e; d && (e = readdir(d));) {
        unsigned long long ns = 0;
        snprintf(path, sizeof path, "/proc/%d/task/%.20s/schedstat", pid, e->d_name);
        FILE *f = e->d_name[0] == '.' ? NULL : fopen(path, "r");
        if (f && fscanf(f, "%llu", &ns) == 1)
            sum += ns;
        if (f)
            fclose(f);
    }
    if (d)
        closedir(d);
    return sum;
}

/* From here on it counts. */
static void begin(void)
{
    warming = false;
    started -= finished;
    finished = errors = 0;
    cpu_before = opt.pid ? cpu_of(opt.pid) : 0;
    begun = now_ns();
}

static bool more_to_start(void)
{
    if (warming)
        return true;
    if (opt.requests > 0)
        return started < opt.requests;
    return now_ns() - begun < opt.seconds * 1000000000u;
}

static void start(struct conn *c, uint64_t due)
{
    if (c->fd < 0)
        open_conn(c);
    c->busy = true;
    c->headed = c->chunked = false;
    c->head_len = c->last_five = 0;
    c->due = due;
    c->unsent = request_len;
    started++;
    ssize_t n = send(c->fd, request, request_len, MSG_NOSIGNAL);
    if (n > 0)
        c->unsent -= (size_t)n;
    if (c->unsent > 0)
        watch(EPOLL_CTL_MOD, c, EPOLLIN | EPOLLOUT);
}

static void close_conn(struct conn *c)
{
    close(c->fd);
    c->fd = -1;
}

static void finish(struct conn *c, bool good)
{
    if (finished < LATENCIES)
        latencies[finished] = (uint32_t)((now_ns() - c->due) / 1000);
    finished++;
    errors += !good;
    c->busy = false;
    if (warming && finished == 2 * (uint64_t)opt.connections)
        begin();
    if (!good || opt.close_each)
        close_conn(c);
    if (opt.rate == 0 && more_to_start())
        start(c, now_ns());
}

static const char *field(const char *head, const char *name)
{
    const char *p = strcasestr(head, name);
    return p ? p + strlen(name) : NULL;
}

/* Takes the head's bytes; returns how many those were. */
static size_t take_head(struct conn *c, const char *p, size_t n)
{
    size_t i = 0;
    while (i < n && !c->headed && c->head_len < HEAD_MAX - 1) {
        c->head[c->head_len++] = p[i++];
        c->headed = c->head_len >= 4 && memcmp(c->head + c->head_len - 4, "\r\n\r\n", 4) == 0;
    }
    if (!c->headed)
        return i;
    c->head[c->head_len] = '\0';
    const char *length = field(c->head, "\r\nContent-Length: ");
    c->chunked = field(c->head, "\r\nTransfer-Encoding: chunked") != NULL;
    c->left = length ? strtoull(length, NULL, 10) : 0;
    return i;
}

/* True when the response is whole. */
static bool take_content(struct conn *c, const char *p, size_t n)
{
    static const char end[] = "0\r\n\r\n";
    if (!c->chunked) {
        c->left -= n < c->left ? n : c->left;
        return c->left == 0;
    }
    for (size_t i = n > 5 ? n - 5 : 0; i < n; i++)
        c->last_five = p[i] == end[c->last_five] ? c->last_five + 1 : p[i] == '0';
    return c->last_five == 5;
}

static void on_readable(struct conn *c)
{
    static char in[262144];
    ssize_t n = recv(c->fd, in, sizeof in, 0);
    size_t used = 0;

    if (n < 0 && errno == EAGAIN)
        return;
    if (n <= 0) {
        if (c->busy)
            finish(c, false);
        else
            close_conn(c);
        return;
    }
    if (!c->busy)
        return;
    if (!c->headed)
        used = take_head(c, in, (size_t)n);
    if (c->headed && take_content(c, in + used, (size_t)n - used))
        finish(c, strncmp(c->head, "HTTP/1.1 200", 12) == 0);
}

/* At a fixed rate: begins what is due, as long as a connection is free. */
static void start_due(void)
{
    static unsigned next;
    for (;;) {
        uint64_t due = begun + (uint64_t)((double)started * 1e9 / opt.rate);
        unsigned tries = 0;
        if (due > now_ns() || !more_to_start())
            return;
        while (conns[next].busy && tries++ < opt.connections)
            next = (next + 1) % opt.connections;
        if (conns[next].busy)
            return;
        start(&conns[next], due);
        next = (next + 1) % opt.connections;
    }
}

/* At a fixed rate it does not sleep, unless told to: that the core wakes up late would be measured as latency. Neither
 * does who is a backend as well. */
static struct timespec pause_now(void)
{
    if (opt.served > 0 && !opt.sleeps)
        return (struct timespec){0};
    if (opt.rate == 0)
        return (struct timespec){.tv_sec = 1};
    uint64_t due = begun + (uint64_t)((double)started * 1e9 / opt.rate), now = now_ns();
    uint64_t left = opt.sleeps && due > now ? due - now : 0;
    return (struct timespec){.tv_sec = (time_t)(left / 1000000000u), .tv_nsec = (long)(left % 1000000000u)};
}

static void serve_events(void)
{
    struct epoll_event events[BATCH];
    struct timespec pause = pause_now();
    int n = epoll_pwait2(epoll_fd, events, BATCH, &pause, NULL); /* since Linux 5.11 */

    if (n < 0 && errno != EINTR) {
        perror("bench_load: epoll_pwait2");
        exit(1);
    }
    for (int i = 0; i < n; i++) {
        struct conn *c = events[i].data.ptr;
        if (!c) /* the backend's, which run() serves */
            continue;
        if (c->fd >= 0 && (events[i].events & EPOLLOUT) && c->unsent > 0)
            send_on(c);
        if (c->fd >= 0 && (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)))
            on_readable(c);
    }
}

/* Until all that was to be asked for has been answered. */
static void run(void)
{
    while (finished < started || more_to_start()) {
        if (opt.rate > 0)
            start_due();
        serve_events();
        if (opt.served > 0)
            origin_serve(0);
    }
}

/* Backends that were not there a moment ago, and connections, are found: what fails meanwhile does not count either. */
static void warm_up(void)
{
    uint64_t seconds = opt.seconds;

    opt.seconds = opt.warm_up;
    run();
    opt.seconds = seconds;
    begin();
}

static int compare(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

static void report(void)
{
    size_t n = finished < LATENCIES ? (size_t)finished : LATENCIES;
    double seconds = (double)(now_ns() - begun) / 1e9;

    qsort(latencies, n, sizeof *latencies, compare);
    printf("requests %llu seconds %.3f errors %llu", (unsigned long long)finished, seconds, (unsigned long long)errors);
    if (n > 0)
        printf(" p50 %u p99 %u p999 %u max %u", latencies[n / 2], latencies[n - 1 - n / 100],
               latencies[n - 1 - n / 1000], latencies[n - 1]);
    if (opt.pid)
        printf(" cpu %.3f", (double)(cpu_of(opt.pid) - cpu_before) / 1000 / (double)finished);
    printf("\n");
}

static bool serve(void)
{
    if (opt.served > 0 && !origin_start())
        return false;
    for (unsigned i = 0; i < opt.served; i++) {
        for (unsigned port = opt.serve[i].first; port <= opt.serve[i].last; port++) {
            if (origin_listen((uint16_t)port) != 0) {
                perror("bench_load: -b");
                return false;
            }
        }
    }
    if (opt.served > 0 && opt.sleeps) {
        struct epoll_event e = {.events = EPOLLIN};
        return epoll_ctl(epoll_fd, EPOLL_CTL_ADD, origin_fd(), &e) == 0;
    }
    return true;
}

static bool parse(int argc, char **argv)
{
    int o;
    while ((o = getopt(argc, argv, "c:n:d:t:u:r:h:p:b:W:Cws")) != -1) {
        switch (o) {
        case 'c': opt.connections = (unsigned)atoi(optarg); break;
        case 'n': opt.requests = strtoull(optarg, NULL, 10); break;
        case 'd': opt.seconds = strtoull(optarg, NULL, 10); break;
        case 't': opt.target = optarg; break;
        case 'u': opt.upload = strtoul(optarg, NULL, 10); break;
        case 'r': opt.rate = atof(optarg); break;
        case 'h': opt.hold = (unsigned)atoi(optarg); break;
        case 'p': opt.pid = atoi(optarg); break;
        case 'b':
            if (opt.served == SERVED_MAX)
                return false;
            opt.serve[opt.served].first = (uint16_t)atoi(optarg);
            opt.serve[opt.served++].last = (uint16_t)atoi(strchr(optarg, '-') ? strchr(optarg, '-') + 1 : optarg);
            break;
        case 'W': opt.warm_up = (unsigned)atoi(optarg); break;
        case 'w': opt.waits = true; break;
        case 's': opt.sleeps = true; break;
        case 'C': opt.close_each = true; break;
        default: return false;
        }
    }
    if (optind != argc - 1 || (opt.requests == 0) == (opt.seconds == 0) || opt.connections == 0)
        return false;
    if ((opt.warm_up > 0 && (opt.rate == 0 || opt.seconds == 0)) || (opt.served > 0 && opt.hold > 0) ||
        (opt.sleeps && opt.rate == 0))
        return false;
    opt.port = (uint16_t)atoi(argv[optind]);
    return opt.upload <= UPLOAD_MAX && strlen(opt.target) < HEAD_MAX / 2;
}

int main(int argc, char **argv)
{
    struct rlimit limit;

    if (!parse(argc, argv)) {
        fprintf(stderr, "usage: bench_load OPTIONS PORT; the source says which\n");
        return 2;
    }
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    make_request();
    conns = calloc(opt.connections, sizeof *conns);
    latencies = malloc(LATENCIES * sizeof *latencies);
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (!conns || !latencies || epoll_fd < 0 || !serve())
        return 1;
    for (unsigned i = 0; i < opt.connections; i++)
        conns[i].fd = -1;
    if (opt.sleeps)
        prctl(PR_SET_TIMERSLACK, 1000ul);
    if (opt.waits)
        wait_for_listener();
    begin();
    warming = opt.pid && opt.rate == 0 && opt.seconds > 0;
    for (unsigned i = 0; i < opt.connections && opt.rate == 0 && more_to_start(); i++)
        start(&conns[i], now_ns());
    if (opt.warm_up > 0)
        warm_up();
    run();
    report();
    fflush(stdout);
    sleep(opt.hold);
    return errors > 0;
}
