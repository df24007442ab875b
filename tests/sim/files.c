/* Descriptors of files on the simulated disk, and of standard output; the calls that take paths. Each call on the disk
 * takes its time, in which other threads run. */
#include "calls.h"
#include "disk.h"
#include "kernel.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>

#define LOG_FILE "lb.log"

void (*log_sink)(const char *p, size_t n);

static void disk_time(uint64_t low, uint64_t high)
{
    uint64_t ns = low + call_draw(high - low);
    if (fault(kernel.faults.slow_disk)) {
        ns += call_draw(S);
        kernel.slow_at = sim_now() + ns;
    }
    helper_enters_disk(true);
    thread_sleep(ns);
    helper_enters_disk(false);
}

static void disk_call(const char *name, int64_t a, int64_t b)
{
    syscall_begin(name, a, b);
    disk_time(2 * US, 60 * US);
}

/* The error that a disk call shows by the seed, or 0. */
static int disk_fault(void)
{
    if (!fault(kernel.faults.disk_error))
        return 0;
    kernel.shown.disk++;
    return -EIO;
}

static int full_fault(void)
{
    if (!fault(kernel.faults.disk_full))
        return disk_fault();
    kernel.shown.disk++;
    return call_draw(2) ? -ENOSPC : -EDQUOT;
}

/* ---- writing back, unasked ---- */

static struct {
    struct event event;
    struct rng rng;
    uint64_t pause; /* typical */
} writeback;

static void on_writeback(struct event *e)
{
    kernel.kinds[FAULT_WRITEBACK] += disk_writeback();
    event_set_in(e, 1 + rng_below(&writeback.rng, 2 * writeback.pause));
}

void writeback_begin(void)
{
    writeback.rng = rng_of("writeback", 0);
    writeback.pause = rng_spread(&writeback.rng, 500 * US, 10 * S);
    event_init(&writeback.event, on_writeback);
    event_set_in(&writeback.event, 1 + rng_below(&writeback.rng, 2 * writeback.pause));
}

/* ---- regular files and folders ---- */

struct disk_file {
    struct file file;
    struct inode *inode;
    uint64_t offset;
    bool is_log;
};

static ssize_t disk_file_read(struct file *f, void *p, size_t n)
{
    struct disk_file *d = (struct disk_file *)f;
    disk_time(2 * US, 30 * US);
    if (n > 1 && fault(kernel.faults.short_read))
        n = 1 + call_draw(n - 1);
    int e = disk_fault();
    ssize_t got = e ? e : disk_read(d->inode, d->offset, p, n);
    if (got > 0) {
        d->offset += (uint64_t)got;
        syscall_progress();
    }
    return got;
}

static ssize_t disk_file_write(struct file *f, const void *p, size_t n)
{
    struct disk_file *d = (struct disk_file *)f;
    disk_time(2 * US, 100 * US);
    int e = full_fault();
    if (e)
        return e;
    if (n > 1 && fault(kernel.faults.short_write))
        n = 1 + call_draw(n - 1);
    if (f->flags & O_APPEND)
        d->offset = disk_size(d->inode);
    ssize_t put = disk_write(d->inode, d->offset, p, n);
    if (put > 0) {
        d->offset += (uint64_t)put;
        syscall_progress();
    }
    if (put > 0 && d->is_log && log_sink)
        log_sink(p, (size_t)put);
    return put;
}

static void disk_file_close(struct file *f)
{
    struct disk_file *d = (struct disk_file *)f;
    disk_unlock(d->inode, d);
    disk_release(d->inode);
    free(d);
}

/* Without `ready`: epoll takes no regular files. */
static const struct file_ops disk_file_ops = {"file", NULL, disk_file_read, disk_file_write, disk_file_close};

/* ---- standard output: a pipe ---- */

#define PIPE_ROOM 65536u

static struct {
    size_t len;
    bool stalled, broken;
    struct event reader;
    bool reader_ready;
} pipe_state;

static size_t pipe_room(void)
{
    return PIPE_ROOM - pipe_state.len;
}

static uint32_t pipe_ready(struct file *f)
{
    (void)f;
    return (pipe_room() >= PIPE_BUF ? (uint32_t)EPOLLOUT : 0) | (pipe_state.broken ? (uint32_t)EPOLLERR : 0);
}

/* Each open() of it is a description of its own. */
static void pipe_changed(void)
{
    for (int fd = 0; fd < FDS_MAX; fd++) {
        struct file *f = fd_file(fd);
        if (f && f->ops->ready == pipe_ready)
            file_changed(f);
    }
}

static void on_reader(struct event *e)
{
    (void)e;
    pipe_state.len = 0;
    pipe_changed();
}

/* EPIPE, with the signal that comes before it. */
static ssize_t no_reader(void)
{
    if (!signals_ignored(SIGPIPE) && !signals_blocked(SIGPIPE))
        sim_fail("signals", "a write to a pipe without a reader, and SIGPIPE kills the process");
    kernel.kinds[FAULT_PIPE_BROKEN]++;
    return -EPIPE;
}

static ssize_t pipe_write(struct file *f, const void *p, size_t n)
{
    size_t room = pipe_room();
    if (pipe_state.broken)
        return no_reader();
    if (n <= PIPE_BUF && room < n)
        room = 0; /* short writes are atomic: pipe(7) */
    if (room < n && !(f->flags & O_NONBLOCK))
        sim_fail("blocking", "%s writes %zu bytes to a pipe that has room for %zu, and would wait for its reader",
                 thread_name(thread_self()), n, room);
    if (room == 0)
        return -EAGAIN;
    size_t take = n < room ? n : room;
    if (take > PIPE_BUF && fault(kernel.faults.short_write))
        take = 1 + call_draw(take - 1);
    pipe_state.len += take;
    syscall_progress();
    if (log_sink)
        log_sink(p, take);
    if (!pipe_state.stalled && !event_pending(&pipe_state.reader))
        event_set_in(&pipe_state.reader, 1 + call_draw(2 * MS));
    return (ssize_t)take;
}

static ssize_t pipe_read(struct file *f, void *p, size_t n)
{
    (void)f;
    (void)p;
    (void)n;
    return -EBADF;
}

static void pipe_close(struct file *f)
{
    free(f);
}

static const struct file_ops pipe_ops = {"pipe", pipe_ready, pipe_read, pipe_write, pipe_close};

static struct file *pipe_description(int flags)
{
    struct file *f = zalloc(sizeof *f);
    file_init(f, &pipe_ops, O_WRONLY | flags);
    return f;
}

void pipe_stdout_make(void)
{
    if (!pipe_state.reader_ready)
        event_init(&pipe_state.reader, on_reader);
    pipe_state.reader_ready = true;
    event_cancel(&pipe_state.reader);
    pipe_state.len = 0;
    pipe_state.stalled = pipe_state.broken = false;
    fd_install(pipe_description(0)); /* 0: nobody reads from it */
    fd_install(pipe_description(0)); /* 1 */
}

void pipe_stall(bool stalled)
{
    pipe_state.stalled = stalled;
    if (stalled)
        event_cancel(&pipe_state.reader);
    else if (!pipe_state.broken)
        event_set_in(&pipe_state.reader, call_draw(2 * MS));
}

bool pipe_is_stalled(void)
{
    return pipe_state.stalled;
}

void pipe_break(void)
{
    pipe_state.broken = true;
    event_cancel(&pipe_state.reader);
    pipe_changed();
}

/* ---- open, close, read, write ---- */

static int open_stdout(int flags)
{
    int e = fd_fault();
    if (e || fault(kernel.faults.disk_error))
        return e ? e : -EACCES;
    if (pipe_state.broken)
        return -ENXIO;
    return fd_install(pipe_description(flags & O_NONBLOCK));
}

static int open_on_disk(const char *path, int flags, mode_t mode)
{
    /* As Linux: no file is made or emptied for which there is no descriptor. */
    int error = fd_fault();
    if (error == 0 && !fd_free())
        error = -EMFILE;
    kernel.shown.disk += error != 0;
    if (error == 0)
        error = disk_fault();
    if (error)
        return error;
    if ((flags & O_CREAT) && !disk_exists(path) && (error = full_fault()))
        return error;
    bool made = (flags & O_CREAT) && !disk_exists(path);
    struct inode *inode = disk_open(path, flags, mode, &error);
    if (!inode)
        return -error;
    if (made && kernel.named)
        kernel.named();
    struct disk_file *d = zalloc(sizeof *d);
    file_init(&d->file, &disk_file_ops, flags);
    d->inode = inode;
    d->is_log = strcmp(path, LOG_FILE) == 0;
    if (d->is_log && disk_size(inode) == 0 && log_sink)
        log_sink(NULL, 0);
    return fd_install(&d->file);
}

int sim_open(const char *path, int flags, ...)
{
    va_list ap;
    va_start(ap, flags);
    mode_t mode = flags & O_CREAT ? va_arg(ap, mode_t) : 0;
    va_end(ap);
    disk_call("open", flags, mode);
    trace_text("path %s", path);
    fd_check_flags("open", flags);
    int r = fault(kernel.faults.eintr)                 ? -EINTR
            : strncmp(path, "/proc/self/fd/", 14) == 0 ? open_stdout(flags)
                                                       : open_on_disk(path, flags, mode);
    return (int)syscall_end("open", r);
}

int sim_close(int fd)
{
    syscall_begin("close", fd, 0);
    return (int)syscall_end("close", fd_close(fd));
}

ssize_t sim_read(int fd, void *p, size_t n)
{
    syscall_begin("read", fd, (int64_t)n);
    struct file *f = fd_need(fd, "read");
    f->users++;
    ssize_t r = fault(kernel.faults.eintr) ? -EINTR : f->ops->read(f, p, n);
    f->users--;
    if (r > 0)
        trace_bytes(p, (size_t)r);
    return syscall_end("read", r);
}

ssize_t sim_write(int fd, const void *p, size_t n)
{
    syscall_begin("write", fd, (int64_t)n);
    trace_bytes(p, n);
    struct file *f = fd_need(fd, "write");
    f->users++;
    ssize_t r = fault(kernel.faults.eintr) ? -EINTR : f->ops->write(f, p, n);
    f->users--;
    return syscall_end("write", r);
}

static struct disk_file *need_disk_file(int fd, const char *call)
{
    struct file *f = fd_need(fd, call);
    if (f->ops != &disk_file_ops)
        sim_fail("kernel", "%s on %d, which is a %s", call, fd, f->ops->name);
    return (struct disk_file *)f;
}

struct inode *file_inode(int fd, const char *call)
{
    return need_disk_file(fd, call)->inode;
}

/* The begin and the end of a call on an open file that takes its time. */
static struct disk_file *file_call(const char *name, int fd, int64_t b)
{
    syscall_begin(name, fd, b);
    struct disk_file *d = need_disk_file(fd, name);
    d->file.users++;
    disk_time(2 * US, 60 * US);
    return d;
}

static ssize_t file_end(struct disk_file *d, const char *name, ssize_t result)
{
    d->file.users--;
    return syscall_end(name, result);
}

ssize_t sim_pread(int fd, void *p, size_t n, off_t offset)
{
    struct disk_file *d = file_call("pread", fd, offset);
    return file_end(d, "pread", disk_read(d->inode, (uint64_t)offset, p, n));
}

off_t sim_lseek(int fd, off_t offset, int whence)
{
    syscall_begin("lseek", fd, offset);
    if (whence != SEEK_SET)
        sim_fail("kernel", "a use of lseek that is not simulated");
    need_disk_file(fd, "lseek")->offset = (uint64_t)offset;
    return syscall_end("lseek", offset);
}

/* ---- syncing ---- */

static int sync_fd(const char *name, int fd)
{
    syscall_begin(name, fd, 0);
    struct disk_file *d = need_disk_file(fd, name);
    if (fault(kernel.faults.eintr))
        return (int)syscall_end(name, -EINTR);
    d->file.users++;
    disk_time(50 * US, 5 * MS);
    bool fails = fault(kernel.faults.sync_error);
    int e = disk_sync(d->inode, fails);
    if (fails) {
        static const int errors[] = {-EIO, -ENOSPC, -EDQUOT};
        kernel.shown.sync++;
        e = errors[call_draw(3)];
    }
    return (int)file_end(d, name, e);
}

int sim_fsync(int fd)
{
    return sync_fd("fsync", fd);
}

int sim_fdatasync(int fd)
{
    return sync_fd("fdatasync", fd);
}

/* ---- the rest ---- */

int sim_ftruncate(int fd, off_t size)
{
    struct disk_file *d = file_call("ftruncate", fd, size);
    int e = fault(kernel.faults.eintr) ? -EINTR : disk_fault();
    return (int)file_end(d, "ftruncate", e ? e : disk_truncate(d->inode, (uint64_t)size));
}

/* It may do nothing: what is written goes to the disk at any time, with the writeback. */
int sim_sync_file_range(int fd, off_t offset, off_t n, unsigned flags)
{
    (void)offset, (void)n;
    if (flags != SYNC_FILE_RANGE_WRITE)
        sim_fail("kernel", "a use of sync_file_range that is not simulated");
    (void)need_disk_file(fd, "sync_file_range");
    return 0;
}

int sim_posix_fallocate(int fd, off_t offset, off_t n)
{
    struct disk_file *d = file_call("posix_fallocate", fd, n);
    int e = full_fault(), saved = errno;
    if (e == 0 && (uint64_t)(offset + n) > disk_size(d->inode))
        e = disk_truncate(d->inode, (uint64_t)(offset + n));
    file_end(d, "posix_fallocate", e);
    errno = saved; /* it returns the error, and leaves errno as it is */
    return -e;
}

int sim_fstat(int fd, struct stat *st)
{
    syscall_begin("fstat", fd, 0);
    struct file *f = fd_need(fd, "fstat");
    *st = (struct stat){.st_mode = f->ops == &pipe_ops ? S_IFIFO | 0600 : S_IFSOCK | 0600};
    if (f->ops == &disk_file_ops)
        disk_fstat(((struct disk_file *)f)->inode, st);
    return (int)syscall_end("fstat", 0);
}

int sim_stat(const char *path, struct stat *st)
{
    disk_call("stat", 0, 0);
    *st = (struct stat){.st_mode = S_IFSOCK | 0777};
    return (int)syscall_end("stat", unix_file_exists(path) ? 0 : disk_stat(path, st));
}

int sim_lstat(const char *path, struct stat *st)
{
    return sim_stat(path, st);
}

int sim_fchmod(int fd, mode_t mode)
{
    struct disk_file *d = file_call("fchmod", fd, mode);
    disk_chmod(d->inode, mode);
    return (int)file_end(d, "fchmod", 0);
}

int sim_fchown(int fd, uid_t uid, gid_t gid)
{
    (void)gid;
    struct disk_file *d = file_call("fchown", fd, uid);
    static const int results[] = {0, 0, -EPERM, -EINVAL};
    return (int)file_end(d, "fchown", results[call_draw(4)]);
}

/* Mount points are found by rename's EBUSY alone, and all belongs to us. */
int sim_statx(int folder, const char *path, int flags, unsigned mask, struct statx *st)
{
    (void)folder, (void)flags, (void)mask;
    disk_call("statx", 0, 0);
    *st = (struct statx){0};
    return (int)syscall_end("statx", disk_exists(path) ? 0 : -ENOENT);
}

int sim_faccessat(int folder, const char *path, int what, int flags)
{
    (void)folder, (void)path, (void)what, (void)flags;
    disk_call("faccessat", 0, 0);
    return (int)syscall_end("faccessat", 0);
}

char *sim_getcwd(char *out, size_t size)
{
    snprintf(out, size, "/");
    return out;
}

char *sim_getcwd_chk(char *out, size_t size, size_t room)
{
    return sim_getcwd(out, size < room ? size : room);
}

uid_t sim_geteuid(void)
{
    return 0;
}

int sim_unlink(const char *path)
{
    disk_call("unlink", 0, 0);
    trace_text("path %s", path);
    if (unix_file_remove(path))
        return (int)syscall_end("unlink", 0);
    int e = disk_fault();
    return (int)syscall_end("unlink", e ? e : disk_unlink(path));
}

int sim_rename(const char *from, const char *to)
{
    disk_call("rename", 0, 0);
    trace_text("%s to %s", from, to);
    int e = disk_fault();
    if (e == 0)
        e = disk_rename(from, to);
    if (e == 0 && kernel.named)
        kernel.named();
    return (int)syscall_end("rename", e);
}

/* The disk has no symbolic links; nor has it /proc/self/exe, which an upgrade would ask for. */
ssize_t sim_readlink(const char *path, char *out, size_t size)
{
    (void)out, (void)size;
    disk_call("readlink", 0, 0);
    trace_text("path %s", path);
    int e = disk_fault();
    return syscall_end("readlink", e ? e : disk_exists(path) ? -EINVAL : -ENOENT);
}

ssize_t sim_readlink_chk(const char *path, char *out, size_t size, size_t room)
{
    (void)room;
    return sim_readlink(path, out, size);
}

int sim_flock(int fd, int op)
{
    struct disk_file *d = file_call("flock", fd, op);
    int r = fault(kernel.faults.eintr) ? -EINTR : disk_lock(d->inode, d) ? 0 : -EWOULDBLOCK;
    return (int)file_end(d, "flock", r);
}

int sim_fcntl(int fd, int op, ...)
{
    if (op == F_GETFD && fd <= STDERR_FILENO) /* whoever starts this process leaves them open */
        return 0;
    if (op == F_SETFL) /* O_NONBLOCK off, which says nothing of a regular file */
        return 0;
    syscall_begin("fcntl", fd, op);
    if (op != F_SETPIPE_SZ)
        sim_fail("kernel", "a use of fcntl that is not simulated");
    va_list ap;
    va_start(ap, op);
    int size = va_arg(ap, int);
    va_end(ap);
    return (int)syscall_end("fcntl", pipe_set_size(fd, size));
}

int sim_isatty(int fd)
{
    fd_need(fd, "isatty");
    errno = ENOTTY;
    return 0;
}

int sim_poll(struct pollfd *fds, nfds_t n, int timeout)
{
    syscall_begin("poll", fds[0].fd, timeout);
    if (n != 1 || timeout != 0 || fds[0].events != POLLOUT)
        sim_fail("kernel", "a use of poll that is not simulated");
    struct file *f = fd_need(fds[0].fd, "poll");
    /* Regular files are always ready. */
    uint32_t ready = f->ops->ready ? f->ops->ready(f) : (uint32_t)EPOLLOUT;
    fds[0].revents = (short)(ready & (EPOLLOUT | EPOLLERR | EPOLLHUP)); /* of the same values */
    return (int)syscall_end("poll", fds[0].revents != 0);
}
