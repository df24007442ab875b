/* Files: reading whole, appending, mapping, locking; writing to pipes and terminals without waiting for their readers;
 * and the calls that file_replace.c needs. */
#include "base/mem.h"
#include "file_impl.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define MODE_NEW   0640
#define BLOCK_SIZE (64u * 1024u)
#define LINKS_MAX  40u /* as the kernel */

int file_open(const char *path, int flags, mode_t mode)
{
    int fd;
    do
        fd = open(path, flags | O_CLOEXEC | O_NOCTTY, mode);
    while (fd < 0 && errno == EINTR);
    return fd < 0 ? -errno : fd;
}

/* A FIFO does not keep us until somebody opens its other end: -ENXIO, where that is to read. Where another holds a
 * lease on the file, which this takes from it, that is waited for. */
static int open_at_once(const char *path, int flags)
{
    int fd = file_open(path, flags | O_NONBLOCK, 0);
    return fd == -EWOULDBLOCK ? file_open(path, flags, 0) : fd;
}

ssize_t file_read_some(int fd, char *p, size_t n)
{
    ssize_t got;
    do
        got = read(fd, p, n);
    while (got < 0 && errno == EINTR);
    return got < 0 ? -errno : got;
}

static ssize_t write_some(int fd, struct str s)
{
    ssize_t sent;
    do
        sent = write(fd, s.p, s.n);
    while (sent < 0 && errno == EINTR);
    return sent < 0 ? -errno : sent;
}

int file_sync(int fd)
{
    int r;
    do
        r = fsync(fd);
    while (r < 0 && errno == EINTR);
    return r < 0 ? -errno : 0;
}

void file_close(int fd)
{
    /* On Linux the descriptor is gone even when close() fails, and what must be on disk was synced before. */
    if (fd >= 0)
        (void)close(fd);
}

static int folder_of(const char *path, char folder[PATH_MAX])
{
    const char *slash = strrchr(path, '/');
    size_t n = slash ? (size_t)(slash - path) : 0;
    if (n >= PATH_MAX)
        return -ENAMETOOLONG;
    strcpy(folder, ".");
    if (slash) {
        memcpy(folder, path, n ? n : 1);
        folder[n ? n : 1] = '\0';
    }
    return 0;
}

int file_sync_folder(const char *path)
{
    char folder[PATH_MAX];
    int r = folder_of(path, folder);
    int fd = r < 0 ? r : file_open(folder, O_RDONLY | O_DIRECTORY, 0);
    if (fd < 0)
        return fd;
    r = file_sync(fd);
    file_close(fd);
    /* EINVAL: the file system has no way to sync a folder, and nothing that could be waited for. */
    return r == -EINVAL ? 0 : r;
}

static bool is_stream(const struct stat *st)
{
    return !S_ISREG(st->st_mode) && !S_ISDIR(st->st_mode);
}

/* Reads to the end; -EFBIG as soon as there are more than `max` bytes. */
static int read_all(int fd, size_t max, bool streams, struct buf *out)
{
    size_t total = 0, step = BLOCK_SIZE;
    struct stat st;
    bool known = fstat(fd, &st) == 0;
    if (known && !streams && is_stream(&st))
        return -ESPIPE;
    if (known && S_ISREG(st.st_mode) && (uint64_t)st.st_size <= max)
        step = (size_t)st.st_size + 1; /* the one byte more tells the end */
    for (;;) {
        if (!buf_reserve(out, step))
            return -ENOMEM;
        ssize_t n = file_read_some(fd, buf_tail(out), step);
        if (n <= 0)
            return (int)n;
        total += (size_t)n;
        if (total > max)
            return -EFBIG;
        buf_added(out, (size_t)n);
        step = BLOCK_SIZE;
    }
}

static int read_and_close(int fd, size_t max, bool streams, struct buf *out)
{
    size_t before = out->len;
    if (fd < 0)
        return fd;
    int r = read_all(fd, max, streams, out);
    file_close(fd);
    if (r < 0)
        out->len = before;
    return r;
}

int file_open_to_read(const char *path)
{
    int fd = open_at_once(path, O_RDONLY);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) < 0 || !is_stream(&st))
        return fd;
    file_close(fd);
    return -ESPIPE;
}

int file_read(const char *path, size_t max, struct buf *out)
{
    return read_and_close(open_at_once(path, O_RDONLY), max, false, out);
}

int file_read_stream(const char *path, size_t max, struct buf *out)
{
    return read_and_close(file_open(path, O_RDONLY, 0), max, true, out);
}

const char *file_why(int result)
{
    switch (-result) {
    case ENXIO: return "nobody reads from it";
    case ESPIPE: return "it is no regular file";
    default: return strerrordesc_np(-result);
    }
}

char *file_path_with(const char *path, const char *suffix)
{
    size_t n = strlen(path), more = strlen(suffix) + 1;
    char *out = mem_try_alloc(n + more);
    if (out) {
        memcpy(out, path, n);
        memcpy(out + n, suffix, more);
    }
    return out;
}

/* Where `path` is a symbolic link, puts what it leads to in its place: 1, or 0 when it is none, or -errno. */
static int follow_link(char path[PATH_MAX])
{
    char to[PATH_MAX] = "";
    ssize_t n = readlink(path, to, sizeof(to));
    if (n < 0)
        return errno == EINVAL || errno == ENOENT ? 0 : -errno;
    const char *slash = strrchr(path, '/');
    size_t folder = to[0] == '/' || !slash ? 0 : (size_t)(slash - path) + 1;
    if (folder + (size_t)n >= PATH_MAX)
        return -ENAMETOOLONG;
    memcpy(path + folder, to, (size_t)n);
    path[folder + (size_t)n] = '\0';
    return 1;
}

/* By hand, for realpath() gives nothing where the file is not there yet. */
int file_resolve(const char *path, char out[FILE_NAME_MAX])
{
    _Static_assert(FILE_NAME_MAX >= PATH_MAX + FILE_SUFFIX_MAX, "a name and a suffix");
    struct stat st;
    int r;
    if (strlen(path) >= PATH_MAX)
        return -ENAMETOOLONG;
    strcpy(out, path);
    for (unsigned links = 0; (r = follow_link(out)) > 0; links++) {
        /* What the kernel would not follow is not followed: a link of another's in a folder that all may write to. */
        if (links == 0 && stat(path, &st) < 0 && errno != ENOENT)
            return -errno;
        if (links == LINKS_MAX)
            return -ELOOP;
    }
    return r;
}

int file_name_beside(const char *path, const char *suffix, char out[FILE_NAME_MAX])
{
    assert(strlen(suffix) <= FILE_SUFFIX_MAX);
    int r = file_resolve(path, out);
    if (r == 0)
        memcpy(out + strlen(out), suffix, strlen(suffix) + 1);
    return r;
}

/* What a file may give that goes with `with`: all to its owner, no more than that one to others. */
static mode_t allowed_with(const char *with)
{
    struct stat st;
    return with && stat(with, &st) == 0 ? S_IRWXU | (st.st_mode & (S_IRWXG | S_IRWXO)) : 0777;
}

void file_narrow(int fd, const char *with)
{
    struct stat st;
    mode_t allowed = allowed_with(with);
    if (fstat(fd, &st) == 0 && (st.st_mode & 0777 & ~allowed))
        (void)!fchmod(fd, st.st_mode & allowed);
}

static int copy_owner_and_mode(const struct stat *from, mode_t allowed, int fd)
{
    /* Only a privileged process may give files away; for others the new file is simply theirs. EINVAL: the owner has no
     * number in our user namespace, and the one that stat() shows cannot be given. */
    if (fchown(fd, from->st_uid, from->st_gid) < 0 && errno != EPERM && errno != EINVAL)
        return -errno;
    return fchmod(fd, from->st_mode & allowed) < 0 ? -errno : 0;
}

int file_make_temp(const char *temp, const char *target, const char *with)
{
    struct stat st;
    bool is_new = stat(target, &st) < 0;
    mode_t allowed = allowed_with(with);
    int fd = file_open(temp, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW, is_new ? MODE_NEW & allowed : S_IRUSR | S_IWUSR);
    if (fd < 0 || is_new)
        return fd;
    int r = copy_owner_and_mode(&st, allowed, fd);
    if (r == 0)
        return fd;
    file_close(fd);
    (void)file_unlink(temp);
    return r;
}

int file_copy_content(int from, int to)
{
    char *block = malloc(BLOCK_SIZE);
    ssize_t n = block ? 0 : -ENOMEM;
    if (block && (lseek(from, 0, SEEK_SET) < 0 || lseek(to, 0, SEEK_SET) < 0))
        n = -errno;
    while (n >= 0 && (n = file_read_some(from, block, BLOCK_SIZE)) > 0) {
        int r = file_write_all(to, str_make(block, (size_t)n));
        if (r < 0)
            n = r;
    }
    free(block);
    return (int)n;
}

int file_reserve(int fd, uint64_t size)
{
    int64_t old = file_size(fd);
    if (old < 0 || (uint64_t)old >= size)
        return old < 0 ? (int)old : 0;
    int e = size <= INT64_MAX ? posix_fallocate(fd, (off_t)old, (off_t)(size - (uint64_t)old)) : EFBIG;
    if (e == 0)
        return 0;
    int r = file_truncate(fd, (uint64_t)old);
    return r < 0 ? r : -e;
}

int file_create(const char *path, const char *with)
{
    /* Another's data is never written into. */
    if (unlink(path) < 0 && errno != ENOENT)
        return -errno;
    return file_open(path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW, MODE_NEW & allowed_with(with));
}

int file_unlink(const char *path)
{
    return unlink(path) < 0 ? -errno : 0;
}

int file_rename(const char *from, const char *to)
{
    return rename(from, to) < 0 ? -errno : 0;
}

/* ---- mappings ---- */

/* What is mapped, for the handler of SIGBUS: a list that only grows at its front, but for file_unmap(). */
struct mapping {
    struct mapping *next;
    char *p;
    size_t n;
    int fd;
    off_t offset;
};
static struct mapping *_Atomic mappings;
static volatile sig_atomic_t mapping_lost;
static size_t page_size;

/* Only calls that a handler may make. Where the page could not be written to, for its file system gives each write a
 * new place and has none, it can still be read: so what it held is not lost. */
static bool replace_page(char *at)
{
    const struct mapping *m = mappings;
    while (m && (at < m->p || at >= m->p + m->n))
        m = m->next;
    if (!m)
        return false;
    size_t behind = (size_t)(at - m->p) / page_size * page_size;
    int flags = MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS;
    if (mmap(m->p + behind, page_size, PROT_READ | PROT_WRITE, flags, -1, 0) == MAP_FAILED)
        return false;
    (void)!pread(m->fd, m->p + behind, page_size, m->offset + (off_t)behind);
    return true;
}

static void on_sigbus(int signo, siginfo_t *info, void *context)
{
    int saved = errno;
    (void)context;
    if (replace_page(info->si_addr))
        mapping_lost = 1;
    else
        signal(signo, SIG_DFL); /* the access that brought it comes again, and ends the process */
    errno = saved;
}

static int guard_mappings(void)
{
    struct sigaction action = {.sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO};
    if (page_size > 0)
        return 0;
    sigemptyset(&action.sa_mask);
    if (sigaction(SIGBUS, &action, NULL) < 0)
        return -errno;
    page_size = (size_t)sysconf(_SC_PAGESIZE);
    return 0;
}

bool file_map_is_lost(void)
{
    return mapping_lost != 0;
}

int file_map(int fd, uint64_t offset, size_t n, void **out)
{
    int r = guard_mappings();
    struct mapping *m = r == 0 ? malloc(sizeof *m) : NULL;
    if (!m)
        return r < 0 ? r : -ENOMEM;
    void *p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)offset);
    if (p == MAP_FAILED) {
        r = -errno;
        free(m);
        return r;
    }
    *m = (struct mapping){.next = mappings, .p = p, .n = n, .fd = fd, .offset = (off_t)offset};
    mappings = m;
    *out = p;
    return 0;
}

void file_unmap(void *p, size_t n)
{
    struct mapping *m = mappings, *before = NULL;
    while (m && m->p != p) {
        before = m;
        m = m->next;
    }
    if (m && before)
        before->next = m->next;
    else if (m)
        mappings = m->next;
    (void)munmap(p, n);
    free(m);
}

/* Once it is open, whoever writes waits as ever, be it for the reader of a FIFO. */
static int append_to_old(const char *path)
{
    int fd = open_at_once(path, O_WRONLY | O_APPEND);
    if (fd >= 0)
        (void)!fcntl(fd, F_SETFL, O_APPEND);
    return fd;
}

static int append_to_new(const char *path, mode_t mode)
{
    int fd = file_open(path, O_WRONLY | O_APPEND | O_CREAT, mode);
    if (fd < 0)
        return fd;
    int r = file_sync_folder(path);
    if (r < 0) {
        file_close(fd);
        return r;
    }
    return fd;
}

int file_open_append_with(const char *path, const char *with)
{
    int fd = append_to_old(path);
    if (fd == -ENOENT)
        return append_to_new(path, MODE_NEW & allowed_with(with));
    if (fd >= 0 && with)
        file_narrow(fd, with);
    return fd;
}

int file_open_append(const char *path)
{
    return file_open_append_with(path, NULL);
}

int file_write_all(int fd, struct str s)
{
    while (s.n > 0) {
        ssize_t n = write_some(fd, s);
        if (n <= 0)
            return n < 0 ? (int)n : -EIO;
        s = str_make(s.p + n, s.n - (size_t)n);
    }
    return 0;
}

void file_start_sync(int fd)
{
    (void)sync_file_range(fd, 0, 0, SYNC_FILE_RANGE_WRITE);
}

int file_sync_data(int fd)
{
    int r;
    do
        r = fdatasync(fd);
    while (r < 0 && errno == EINTR);
    return r < 0 ? -errno : 0;
}

int file_truncate(int fd, uint64_t size)
{
    int r;
    if (size > INT64_MAX)
        return -EFBIG;
    do
        r = ftruncate(fd, (off_t)size);
    while (r < 0 && errno == EINTR);
    return r < 0 ? -errno : 0;
}

int64_t file_size(int fd)
{
    struct stat st;
    return fstat(fd, &st) < 0 ? -errno : st.st_size;
}

int file_still_at(int fd, const char *path)
{
    struct stat mine, there;
    if (fstat(fd, &mine) < 0 || stat(path, &there) < 0)
        return -errno;
    return mine.st_dev == there.st_dev && mine.st_ino == there.st_ino ? 0 : -ESTALE;
}

int file_mark(const char *path, struct file_mark *out)
{
    struct stat st;
    *out = (struct file_mark){0};
    if (stat(path, &st) < 0)
        return errno == ENOENT ? 0 : -errno;
    *out = (struct file_mark){st.st_dev, st.st_ino, st.st_size, st.st_mtim.tv_sec, st.st_mtim.tv_nsec};
    return 0;
}

bool file_mark_eq(const struct file_mark *a, const struct file_mark *b)
{
    return a->device == b->device && a->inode == b->inode && a->size == b->size && a->changed_s == b->changed_s &&
           a->changed_ns == b->changed_ns;
}

bool file_exists(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0;
}

static int may(const char *path, int what)
{
    return faccessat(AT_FDCWD, path, what, AT_EACCESS) < 0 ? -errno : 0;
}

/* One that the kernel does not tell of is taken for none. */
static bool is_mount_point(const char *path)
{
    struct statx st = {0};
    return statx(AT_FDCWD, path, AT_SYMLINK_NOFOLLOW, 0, &st) == 0 && (st.stx_attributes & STATX_ATTR_MOUNT_ROOT);
}

int file_may_replace(const char *path)
{
    char name[FILE_NAME_MAX], folder[PATH_MAX];
    int r = file_resolve(path, name);
    if (r == 0)
        r = folder_of(name, folder);
    if (r == 0)
        r = may(folder, W_OK | X_OK); /* the temporary is made there in any case */
    return r == 0 && is_mount_point(name) ? may(name, W_OK) : r;
}

int file_may_append(const char *path)
{
    char name[FILE_NAME_MAX], folder[PATH_MAX];
    struct stat st;
    if (stat(path, &st) == 0)
        return S_ISDIR(st.st_mode) ? -EISDIR : may(path, W_OK);
    if (errno != ENOENT)
        return -errno;
    int r = file_resolve(path, name);
    if (r == 0)
        r = folder_of(name, folder);
    return r == 0 ? may(folder, W_OK | X_OK) : r;
}

void file_absolute(const char *path, char out[FILE_NAME_MAX])
{
    char folder[PATH_MAX] = "";
    size_t n;
    if (*path != '/' && !getcwd(folder, sizeof(folder)))
        folder[0] = '\0';
    n = strlen(folder);
    snprintf(out, FILE_NAME_MAX, "%s%s%s", folder, n > 0 && folder[n - 1] != '/' ? "/" : "", path);
}

unsigned file_user(void)
{
    return geteuid();
}

int file_remove(const char *path)
{
    if (unlink(path) < 0)
        return errno == ENOENT ? 0 : -errno;
    return file_sync_folder(path);
}

/* The number that the lock's holder has written, or 0. */
static int read_pid(int fd)
{
    char text[16];
    uint64_t pid;
    ssize_t n = pread(fd, text, sizeof(text), 0);
    struct str line = str_make(text, n > 0 ? (size_t)n : 0);
    line.n = str_find(line, '\n');
    return str_parse_u64(line, &pid) && pid <= INT_MAX ? (int)pid : 0;
}

static int write_pid(int fd)
{
    char text[16];
    int n = snprintf(text, sizeof(text), "%d\n", (int)getpid());
    int r = file_truncate(fd, 0);
    return r < 0 ? r : file_write_all(fd, str_make(text, (size_t)n));
}

static int lock_exclusive(int fd)
{
    int r;
    do
        r = flock(fd, LOCK_EX | LOCK_NB);
    while (r < 0 && errno == EINTR);
    return r < 0 ? -errno : 0;
}

int file_lock(const char *path, int *holder)
{
    *holder = 0;
    int fd = file_open(path, O_RDWR | O_CREAT, MODE_NEW);
    if (fd < 0)
        return fd;
    int r = lock_exclusive(fd);
    if (r == -EWOULDBLOCK)
        *holder = read_pid(fd);
    if (r < 0) {
        file_close(fd);
        return r;
    }
    /* That is for people, and for who comes second: on a full disk the lock holds without it. */
    (void)!write_pid(fd);
    return fd;
}

enum file_kind file_kind(int fd)
{
    struct stat st;
    if (fstat(fd, &st) < 0)
        return FILE_OTHER;
    if (S_ISREG(st.st_mode))
        return FILE_REGULAR;
    if (S_ISFIFO(st.st_mode))
        return FILE_PIPE;
    if (S_ISSOCK(st.st_mode))
        return FILE_SOCKET;
    return isatty(fd) ? FILE_TERMINAL : FILE_OTHER;
}

int file_hold_standard(void)
{
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++) {
        /* The least number that is free is the one that is missing: those below it are open by now. */
        int r = fcntl(fd, F_GETFD) >= 0 ? fd : file_open("/dev/null", O_RDWR, 0);
        if (r < 0)
            return r;
    }
    return 0;
}

int file_reopen_nonblocking(int fd)
{
    char path[32];
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    return file_open(path, O_WRONLY | O_NONBLOCK, 0);
}

/* What a socket takes now. */
static ssize_t send_now(int fd, struct str s)
{
    ssize_t n;
    do
        n = send(fd, s.p, s.n, MSG_DONTWAIT | MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : n;
}

/* One step on a descriptor that may block: a pipe that polls writable takes PIPE_BUF bytes at once. (Unless another
 * writer is quicker than we: that one fills it then, and both wait for the reader.) O_NONBLOCK is not looked for, for
 * whoever shares the description may take it away at any time. */
static ssize_t poll_and_write(int fd, struct str s)
{
    struct pollfd p = {.fd = fd, .events = POLLOUT};
    if (poll(&p, 1, 0) <= 0)
        return 0;
    return write_some(fd, str_make(s.p, s.n < PIPE_BUF ? s.n : PIPE_BUF));
}

static ssize_t write_step(int fd, enum file_stream how, struct str s)
{
    switch (how) {
    case FILE_STREAM_SOCKET: return send_now(fd, s);
    case FILE_STREAM_OWN: return write_some(fd, s);
    case FILE_STREAM_SHARED: break;
    }
    return poll_and_write(fd, s);
}

ssize_t file_write_now(int fd, enum file_stream how, struct str s)
{
    size_t done = 0;
    ssize_t n = 1;
    while (n > 0 && done < s.n) {
        n = write_step(fd, how, str_make(s.p + done, s.n - done));
        if (n > 0)
            done += (size_t)n;
    }
    bool failed = n < 0 && n != -EAGAIN && done == 0;
    return failed ? n : (ssize_t)done;
}
