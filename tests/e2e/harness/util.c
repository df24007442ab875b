/* Small things that every end-to-end test needs. */
#include "harness/util.h"

#include "harness/check.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define PATIENCE_MS              10000
#define PATIENCE_INSTRUMENTED_MS 60000
#define PORT_FIRST               10000
#define PORT_COUNT               20000

static bool is_set(const char *variable)
{
    const char *value = getenv(variable);

    return value && strcmp(value, "1") == 0;
}

bool is_valgrind_run(void)
{
    return is_set("LB_VALGRIND");
}

/* What the daemon was compiled with stands in a file beside it; where there is none, it was installed. */
static bool is_built_instrumented(void)
{
    char path[PATH_MAX + sizeof "/flags"], line[16384];
    snprintf(path, sizeof path, "%s/flags", build_dir());
    FILE *f = fopen(path, "re");
    bool is = false;

    if (!f)
        return false;
    while (!is && fgets(line, sizeof line, f))
        is = strstr(line, " -fsanitize=") || strstr(line, " --coverage");
    fclose(f);
    return is;
}

bool is_instrumented(void)
{
    static enum { UNKNOWN, NO, YES } is;

    if (is == UNKNOWN)
        is = is_built_instrumented() ? YES : NO;
    return is == YES || is_valgrind_run();
}

bool is_big_run(void)
{
    return is_set("LB_E2E_BIG");
}

int patience_ms(void)
{
    return is_instrumented() ? PATIENCE_INSTRUMENTED_MS : PATIENCE_MS;
}

uint64_t now_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000u + (uint64_t)t.tv_nsec / 1000000u;
}

uint64_t deadline_in(int ms)
{
    return now_ms() + (uint64_t)ms;
}

int left_ms(uint64_t deadline)
{
    uint64_t now = now_ms();

    return now >= deadline ? 0 : (int)(deadline - now);
}

void rest(void)
{
    nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
}

void bytes_add(struct bytes *b, const void *p, size_t n)
{
    if (b->n + n + 1 > b->cap) {
        b->cap = (b->n + n + 1) * 2;
        b->p = realloc(b->p, b->cap);
        if (!b->p)
            abort();
    }
    if (n > 0)
        memcpy(b->p + b->n, p, n);
    b->n += n;
    b->p[b->n] = '\0';
}

void bytes_addf(struct bytes *b, const char *fmt, ...)
{
    va_list args;
    char *text;
    int n;

    va_start(args, fmt);
    n = vasprintf(&text, fmt, args);
    va_end(args);
    if (n < 0)
        abort();
    bytes_add(b, text, (size_t)n);
    free(text);
}

void bytes_drop(struct bytes *b, size_t n)
{
    memmove(b->p, b->p + n, b->n - n + 1);
    b->n -= n;
}

void bytes_free(struct bytes *b)
{
    free(b->p);
    *b = (struct bytes){0};
}

/* Claims the port among all test programs: an abstract unix socket of that name lives exactly as long as its process.
 */
static bool port_claim(int port)
{
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0)
        return false;
    snprintf(name.sun_path + 1, sizeof name.sun_path - 1, "loadbalancer-test-port-%d", port);
    if (bind(fd, (struct sockaddr *)&name, sizeof name) == 0)
        return true; /* the descriptor stays open for the life of the process: that is the claim */
    close(fd);
    return false;
}

static bool port_is_free(int port)
{
    struct sockaddr_in at = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool ok = fd >= 0 && bind(fd, (struct sockaddr *)&at, sizeof at) == 0;

    if (fd >= 0)
        close(fd);
    return ok;
}

int port_reserve(void)
{
    static int next = -1;

    if (next < 0)
        next = (int)((unsigned)getpid() * 37u % PORT_COUNT);
    for (int tries = 0; tries < PORT_COUNT; tries++) {
        int port = PORT_FIRST + next;

        next = (next + 1) % PORT_COUNT;
        if (port_is_free(port) && port_claim(port))
            return port;
    }
    FAIL("no free port");
}

const char *build_dir(void)
{
    static char dir[PATH_MAX];
    const char *given = getenv("LB_BUILD");
    ssize_t n;

    if (given)
        return given;
    n = readlink("/proc/self/exe", dir, sizeof dir - 1);
    CHECK(n > 0, "readlink /proc/self/exe: %s", strerror(errno));
    dir[n] = '\0';
    for (int up = 0; up < 2; up++)
        *strrchr(dir, '/') = '\0';
    return dir;
}

void dir_make(char *out, size_t size)
{
    const char *base = getenv("TMPDIR");

    snprintf(out, size, "%s/loadbalancer-e2e-XXXXXX", base ? base : "/tmp");
    CHECK(mkdtemp(out), "mkdtemp %s: %s", out, strerror(errno));
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *where)
{
    (void)st;
    (void)type;
    (void)where;
    return remove(path);
}

void dir_remove(const char *dir)
{
    nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

struct bytes file_content(const char *path)
{
    struct bytes b = {0};
    char piece[65536];
    ssize_t n;
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    bytes_add(&b, "", 0);
    if (fd < 0)
        return b;
    while ((n = read(fd, piece, sizeof piece)) > 0)
        bytes_add(&b, piece, (size_t)n);
    close(fd);
    return b;
}

void file_put(const char *path, const char *content)
{
    FILE *f = fopen(path, "we");

    CHECK(f, "%s: %s", path, strerror(errno));
    fputs(content, f);
    CHECK(fclose(f) == 0, "%s: %s", path, strerror(errno));
}

long proc_kib(pid_t pid, const char *key)
{
    char path[64], wanted[32];
    struct bytes text;
    const char *line;
    long kib;

    snprintf(path, sizeof path, "/proc/%d/status", (int)pid);
    snprintf(wanted, sizeof wanted, "\n%s:", key);
    text = file_content(path);
    line = strstr(text.p, wanted);
    kib = line ? strtol(line + strlen(wanted), NULL, 10) : -1;
    bytes_free(&text);
    return kib;
}

int proc_fds(pid_t pid)
{
    char path[64];
    int count = 0;
    DIR *d;

    snprintf(path, sizeof path, "/proc/%d/fd", (int)pid);
    d = opendir(path);
    CHECK(d, "%s: %s", path, strerror(errno));
    for (const struct dirent *e; (e = readdir(d));)
        count += e->d_name[0] != '.';
    closedir(d);
    return count;
}

uint64_t proc_cpu_ns(pid_t pid)
{
    char path[64];
    struct bytes text;
    uint64_t ns;

    snprintf(path, sizeof path, "/proc/%d/schedstat", (int)pid);
    text = file_content(path);
    ns = strtoull(text.p, NULL, 10);
    bytes_free(&text);
    return ns;
}

unsigned proc_cpu_ms(pid_t pid)
{
    char path[64];
    struct bytes text;
    const char *behind_name;
    unsigned long user = 0, kernel = 0;

    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    text = file_content(path);
    behind_name = strrchr(text.p, ')');
    CHECK(behind_name &&
              sscanf(behind_name, ") %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &kernel) == 2,
          "%s: %s", path, text.p);
    bytes_free(&text);
    return (unsigned)((user + kernel) * 1000 / (unsigned long)sysconf(_SC_CLK_TCK));
}

bool proc_forget_peak(pid_t pid)
{
    char path[64];
    int fd;
    bool done;

    snprintf(path, sizeof path, "/proc/%d/clear_refs", (int)pid);
    fd = open(path, O_WRONLY | O_CLOEXEC);
    done = fd >= 0 && write(fd, "5", 1) == 1;
    if (fd >= 0)
        close(fd);
    return done;
}

struct digest {
    EVP_MD_CTX *ctx;
};

struct digest *digest_new(void)
{
    struct digest *d = malloc(sizeof *d);

    if (!d || !(d->ctx = EVP_MD_CTX_new()) || !EVP_DigestInit_ex(d->ctx, EVP_sha256(), NULL))
        abort();
    return d;
}

void digest_add(void *digest, const void *p, size_t n)
{
    struct digest *d = digest;

    EVP_DigestUpdate(d->ctx, p, n);
}

void digest_end(struct digest *d, char out[DIGEST_TEXT])
{
    unsigned char sum[EVP_MAX_MD_SIZE];
    unsigned n = 0;

    EVP_DigestFinal_ex(d->ctx, sum, &n);
    for (unsigned i = 0; i < n && 2 * i + 2 < DIGEST_TEXT; i++)
        snprintf(out + 2 * i, 3, "%02x", (unsigned)sum[i]);
    EVP_MD_CTX_free(d->ctx);
    free(d);
}

static unsigned char pattern_table[65536];

/* Numerical Recipes' 32-bit generator: cheap, and the same on every machine. */
static void pattern_table_make(void)
{
    uint32_t x = 1;

    for (size_t i = 0; i < sizeof pattern_table; i++) {
        x = x * 1664525u + 1013904223u;
        pattern_table[i] = (unsigned char)(x >> 24);
    }
}

void pattern_fill(void *p, size_t n, uint64_t at)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    unsigned char *out = p;

    pthread_once(&once, pattern_table_make);
    while (n > 0) {
        size_t from = (size_t)(at % sizeof pattern_table), piece = sizeof pattern_table - from;
        unsigned char mark = (unsigned char)(at / sizeof pattern_table % 251u);

        if (piece > n)
            piece = n;
        memcpy(out, pattern_table + from, piece);
        if (from == 0)
            out[0] = mark; /* each block differs from its neighbours: none can be lost or swapped unseen */
        out += piece;
        at += piece;
        n -= piece;
    }
}

long raise_fd_limit(long wanted)
{
    struct rlimit r;

    if (getrlimit(RLIMIT_NOFILE, &r) != 0)
        return -1;
    if (r.rlim_cur < (rlim_t)wanted) {
        r.rlim_cur = r.rlim_max < (rlim_t)wanted ? r.rlim_max : (rlim_t)wanted;
        setrlimit(RLIMIT_NOFILE, &r);
        getrlimit(RLIMIT_NOFILE, &r);
    }
    return (long)r.rlim_cur;
}
