/* Files: replacing that leaves the old or the new, whatever call fails; appending, locking, and writing without
 * waiting. The system calls that can fail are replaced by ones that fail to order. */
#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pty.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

/* What the replaced calls do: the call number `at` (from 1; 0: none) of that kind fails with `error`. */
struct fault {
    int at, error, calls;
};

static struct fault fsync_fault, rename_fault, write_fault, fallocate_fault, fchown_fault;
static size_t write_most; /* a write takes at most so much; 0: all */
static char folder[64], path[128], rescue[160], temp[160];

static bool fails(struct fault *f)
{
    if (++f->calls != f->at)
        return false;
    errno = f->error;
    return true;
}

int fsync(int fd)
{
    return fails(&fsync_fault) ? -1 : (int)syscall(SYS_fsync, fd);
}

int rename(const char *from, const char *to)
{
    return fails(&rename_fault) ? -1 : renameat(AT_FDCWD, from, AT_FDCWD, to);
}

ssize_t write(int fd, const void *p, size_t n)
{
    if (fails(&write_fault))
        return -1;
    return syscall(SYS_write, fd, p, write_most && n > write_most ? write_most : n);
}

int posix_fallocate(int fd, off_t offset, off_t n)
{
    if (fails(&fallocate_fault))
        return errno;
    return syscall(SYS_fallocate, fd, 0, offset, n) < 0 ? errno : 0;
}

/* Where that is not NULL, it is a mount point. */
static const char *mount_point;

int statx(int at, const char *restrict name, int flags, unsigned mask, struct statx *restrict st)
{
    int r = (int)syscall(SYS_statx, at, name, flags, mask, st);
    if (r == 0 && mount_point && strcmp(name, mount_point) == 0)
        st->stx_attributes |= STATX_ATTR_MOUNT_ROOT;
    return r;
}

int fchown(int fd, uid_t uid, gid_t gid)
{
    return fails(&fchown_fault) ? -1 : (int)syscall(SYS_fchown, fd, uid, gid);
}

static void no_faults(void)
{
    fsync_fault = rename_fault = write_fault = fallocate_fault = fchown_fault = (struct fault){0};
    write_most = 0;
}

static int set_up(void **state)
{
    (void)state;
    no_faults();
    strcpy(folder, "/tmp/test_file.XXXXXX");
    if (!mkdtemp(folder))
        return -1;
    snprintf(path, sizeof(path), "%s/clients.json", folder);
    snprintf(temp, sizeof(temp), "%s.tmp", path);
    snprintf(rescue, sizeof(rescue), "%s.rescue", path);
    return 0;
}

static int tear_down(void **state)
{
    char command[128];
    (void)state;
    no_faults();
    snprintf(command, sizeof(command), "rm -rf '%s'", folder);
    return system(command) == 0 ? 0 : -1;
}

static void assert_content(const char *file, const char *wanted)
{
    struct buf b = BUF_INIT;
    assert_int_equal(file_read(file, 1 << 20, &b), 0);
    assert_true(str_eq(buf_str(&b), str_of(wanted)));
    buf_fini(&b);
}

static void assert_missing(const char *file)
{
    assert_int_equal(access(file, F_OK), -1);
}

static mode_t mode_of(const char *file)
{
    struct stat st;
    assert_int_equal(stat(file, &st), 0);
    return st.st_mode & 07777;
}

static void test_read(void **state)
{
    (void)state;
    struct buf b = BUF_INIT;
    assert_int_equal(file_read(path, 100, &b), -ENOENT);
    assert_int_equal(file_open_to_read(path), -ENOENT);
    assert_int_equal(file_read(folder, 100, &b), -EISDIR);
    assert_int_equal(file_replace(path, STR("12345")), 0);
    assert_true(buf_append(&b, "0", 1));
    assert_int_equal(file_read(path, 4, &b), -EFBIG);
    assert_true(str_eq(buf_str(&b), STR("0")));
    assert_int_equal(file_read(path, 5, &b), 0);
    assert_true(str_eq(buf_str(&b), STR("012345")));
    buf_fini(&b);
    assert_int_equal(file_replace(path, STR("")), 0);
    assert_int_equal(file_read(path, 0, &b), 0);
    assert_int_equal(b.len, 0);
    buf_fini(&b);
}

/* The size that the file system tells is not trusted. */
static void test_read_without_size(void **state)
{
    (void)state;
    struct buf b = BUF_INIT;
    assert_int_equal(file_read("/proc/self/stat", 1 << 16, &b), 0);
    assert_true(b.len > 10);
    buf_fini(&b);
    assert_int_equal(file_read_stream("/dev/zero", 1 << 20, &b), -EFBIG);
    assert_int_equal(b.len, 0);
    buf_fini(&b);
}

static void test_replace(void **state)
{
    (void)state;
    umask(077);
    assert_int_equal(file_replace(path, STR("one")), 0);
    umask(022);
    assert_content(path, "one");
    assert_int_equal(mode_of(path), 0600);
    assert_int_equal(fsync_fault.calls, 2); /* the file and its folder */
    assert_int_equal(unlink(path), 0);
    assert_int_equal(file_replace(path, STR("one")), 0);
    assert_int_equal(mode_of(path), 0640);
    assert_int_equal(chmod(path, 0604), 0);
    assert_int_equal(file_replace(path, STR("two, longer")), 0);
    assert_content(path, "two, longer");
    assert_int_equal(mode_of(path), 0604);
    assert_missing(temp);
}

static void test_replace_relative(void **state)
{
    (void)state;
    int here = open(".", O_RDONLY | O_DIRECTORY);
    assert_int_equal(chdir(folder), 0);
    assert_int_equal(file_replace("plain", STR("1")), 0);
    assert_content("plain", "1");
    assert_int_equal(file_replace("./plain", STR("2")), 0);
    assert_content("plain", "2");
    assert_int_equal(file_remove("plain"), 0);
    assert_missing("plain");
    assert_int_equal(fchdir(here), 0);
    close(here);
}

static void test_replace_keeps_owner(void **state)
{
    (void)state;
    struct stat st;
    if (geteuid() != 0)
        skip();
    assert_int_equal(file_replace(path, STR("one")), 0);
    assert_int_equal(chown(path, 12, 34), 0);
    assert_int_equal(file_replace(path, STR("two")), 0);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_uid, 12);
    assert_int_equal(st.st_gid, 34);
}

/* A save makes its temporary in the folder; where the file is a mount point, it is written itself, too. */
static void test_may_replace(void **state)
{
    (void)state;
    bool root = getuid() == 0;
    assert_int_equal(file_may_replace(path), 0); /* there is none */
    assert_int_equal(file_replace(path, STR("one")), 0);
    assert_int_equal(chmod(path, 0444), 0);
    assert_int_equal(chmod(folder, 0777), 0);
    assert_true(!root || seteuid(65534) == 0);
    assert_int_equal(file_may_replace(path), 0);
    mount_point = path;
    assert_int_equal(file_may_replace(path), -EACCES);
    mount_point = NULL;
    assert_true(!root || seteuid(0) == 0);
    assert_int_equal(chmod(folder, 0555), 0);
    assert_true(!root || seteuid(65534) == 0);
    assert_int_equal(file_may_replace(path), -EACCES);
    assert_true(!root || seteuid(0) == 0);
    assert_int_equal(chmod(folder, 0700), 0);
}

static void test_absolute(void **state)
{
    (void)state;
    char here[FILE_NAME_MAX], want[FILE_NAME_MAX + 8], is[FILE_NAME_MAX];
    assert_non_null(getcwd(here, sizeof here));
    file_absolute("/a/b", is);
    assert_string_equal(is, "/a/b");
    file_absolute("a/b", is);
    snprintf(want, sizeof want, "%s/a/b", here);
    assert_string_equal(is, want);
    assert_int_equal(chdir("/"), 0);
    file_absolute("a", is);
    assert_string_equal(is, "/a");
    assert_int_equal(chdir(here), 0);
}

/* EPERM: we are not privileged; EINVAL: in a user namespace that has no number for the owner. */
static void test_replace_without_owner(void **state)
{
    (void)state;
    static const int errors[] = {EPERM, EINVAL};
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(file_replace(path, STR("one")), 0);
        assert_int_equal(chmod(path, 0600), 0);
        fchown_fault = (struct fault){.at = 1, .error = errors[i]};
        assert_int_equal(file_replace(path, STR("two")), 0);
        assert_int_equal(fchown_fault.calls, 1);
        assert_content(path, "two");
        assert_int_equal(mode_of(path), 0600);
        fchown_fault = (struct fault){.at = 1, .error = EIO};
        assert_int_equal(file_replace(path, STR("three")), -EIO);
        no_faults();
        assert_content(path, "two");
        assert_missing(temp);
    }
}

/* A link stays a link: what it leads to is replaced. */
static void test_replace_behind_link(void **state)
{
    (void)state;
    char real[128], link[128];
    struct stat st;
    snprintf(real, sizeof(real), "%s/real", folder);
    snprintf(link, sizeof(link), "%s/link", folder);
    assert_int_equal(file_replace(real, STR("one")), 0);
    assert_int_equal(symlink("real", link), 0);
    assert_int_equal(file_replace(link, STR("two")), 0);
    assert_content(real, "two");
    assert_int_equal(lstat(link, &st), 0);
    assert_true(S_ISLNK(st.st_mode));
}

/* So it does when there is nothing there yet: a chain of links, relative ones among them, leads to where it is made. */
static void test_replace_behind_dangling_link(void **state)
{
    (void)state;
    char volume[128], real[160], link[128], middle[160], out[FILE_NAME_MAX];
    struct stat st;
    snprintf(volume, sizeof(volume), "%s/volume", folder);
    snprintf(real, sizeof(real), "%s/real", volume);
    snprintf(middle, sizeof(middle), "%s/middle", volume);
    snprintf(link, sizeof(link), "%s/link", folder);
    assert_int_equal(symlink("volume/middle", link), 0);
    assert_int_equal(file_replace(link, STR("one")), -ENOENT); /* no folder to make it in */
    assert_int_equal(mkdir(volume, 0755), 0);
    assert_int_equal(symlink("../volume/real", middle), 0);
    assert_int_equal(file_replace(link, STR("one")), 0);
    assert_content(real, "one");
    assert_int_equal(file_replace(link, STR("two")), 0);
    assert_content(real, "two");
    assert_int_equal(lstat(link, &st), 0);
    assert_true(S_ISLNK(st.st_mode));
    assert_int_equal(lstat(middle, &st), 0);
    assert_true(S_ISLNK(st.st_mode));
    assert_int_equal(unlink(middle), 0);
    assert_int_equal(symlink(real, middle), 0); /* an absolute one */
    assert_int_equal(file_resolve(link, out), 0);
    assert_string_equal(out, real);
}

static void test_replace_behind_endless_links(void **state)
{
    (void)state;
    char link[128], out[FILE_NAME_MAX];
    struct stat st;
    snprintf(link, sizeof(link), "%s/link", folder);
    assert_int_equal(symlink("link", link), 0);
    assert_int_equal(file_resolve(link, out), -ELOOP);
    assert_int_equal(file_replace(link, STR("one")), -ELOOP);
    assert_int_equal(lstat(link, &st), 0);
    assert_true(S_ISLNK(st.st_mode));
}

/* What a crash has left is not in the way, and not written into. */
static void test_replace_with_stale_temporary(void **state)
{
    (void)state;
    char victim[128];
    snprintf(victim, sizeof(victim), "%s/victim", folder);
    assert_int_equal(file_replace(victim, STR("untouched")), 0);
    assert_int_equal(symlink(victim, temp), 0);
    assert_int_equal(file_replace(path, STR("new")), 0);
    assert_content(path, "new");
    assert_content(victim, "untouched");
    assert_missing(temp);
}

static void test_replace_in_steps(void **state)
{
    (void)state;
    assert_int_equal(file_replace(path, STR("old")), 0);
    int fd = file_replace_begin(path);
    assert_true(fd >= 0);
    assert_int_equal(access(temp, F_OK), 0);
    assert_int_equal(file_write_all(fd, STR("a")), 0);
    file_replace_abort(path, fd);
    assert_content(path, "old");
    assert_missing(temp);
    fd = file_replace_begin(path);
    assert_int_equal(file_write_all(fd, STR("a")), 0);
    assert_int_equal(file_write_all(fd, STR("b")), 0);
    assert_content(path, "old");
    assert_int_equal(file_replace_commit(path, fd), 0);
    assert_content(path, "ab");
    assert_int_equal(fcntl(fd, F_GETFD), -1);
}

static void assert_replace_fails(int error, const char *left)
{
    assert_int_equal(file_replace(path, STR("the new content")), -error);
    no_faults();
    assert_content(path, left);
    assert_missing(temp);
}

static void test_replace_failures(void **state)
{
    (void)state;
    assert_int_equal(file_replace(path, STR("old")), 0);
    no_faults();
    write_fault = (struct fault){.at = 1, .error = ENOSPC};
    assert_replace_fails(ENOSPC, "old");
    write_most = 4;
    write_fault = (struct fault){.at = 3, .error = EIO};
    assert_replace_fails(EIO, "old");
    fsync_fault = (struct fault){.at = 1, .error = EIO};
    assert_replace_fails(EIO, "old");
    rename_fault = (struct fault){.at = 1, .error = EACCES};
    assert_replace_fails(EACCES, "old");
    /* renamed, but the folder's sync failed: the new content stands, and the caller knows that it may not last */
    fsync_fault = (struct fault){.at = 2, .error = EIO};
    assert_replace_fails(EIO, "the new content");
}

static void test_replace_impossible(void **state)
{
    (void)state;
    char inside[160], *far = malloc(8192);
    snprintf(inside, sizeof(inside), "%s/none/file", folder);
    assert_int_equal(file_replace(inside, STR("x")), -ENOENT);
    assert_int_equal(file_replace(folder, STR("x")), -EISDIR);
    snprintf(inside, sizeof(inside), "%s.tmp", folder);
    assert_missing(inside);
    memset(far, 'a', 8191);
    far[8191] = '\0';
    assert_int_equal(file_replace(far, STR("x")), -ENAMETOOLONG);
    free(far);
}

/* A call that a signal interrupts is made again; a write that takes a part is continued. */
static void test_interrupted_and_short(void **state)
{
    (void)state;
    write_most = 1;
    write_fault = (struct fault){.at = 2, .error = EINTR};
    fsync_fault = (struct fault){.at = 1, .error = EINTR};
    assert_int_equal(file_replace(path, STR("abc")), 0);
    assert_int_equal(write_fault.calls, 4);
    assert_content(path, "abc");
}

static void busy(void)
{
    no_faults();
    rename_fault = (struct fault){.at = 1, .error = EBUSY};
}

static void test_mount_point(void **state)
{
    (void)state;
    struct stat before, after;
    assert_int_equal(file_replace(path, STR("old content, long")), 0);
    assert_int_equal(stat(path, &before), 0);
    busy();
    assert_int_equal(file_replace(path, STR("short")), 0);
    assert_content(path, "short");
    busy();
    assert_int_equal(file_replace(path, STR("now very much longer")), 0);
    assert_content(path, "now very much longer");
    assert_int_equal(stat(path, &after), 0);
    assert_int_equal(before.st_ino, after.st_ino);
    assert_missing(temp);
}

/* Without room for it, the file is not begun to be overwritten. */
static void test_mount_point_full(void **state)
{
    (void)state;
    assert_int_equal(file_replace(path, STR("old")), 0);
    busy();
    fallocate_fault = (struct fault){.at = 1, .error = ENOSPC};
    assert_replace_fails(ENOSPC, "old");
    busy();
    fsync_fault = (struct fault){.at = 2, .error = EIO}; /* the folder's, before the first byte */
    assert_replace_fails(EIO, "old");
}

/* From before the file is touched, the synced copy is kept until all is well. */
static void test_mount_point_torn(void **state)
{
    (void)state;
    assert_int_equal(file_replace(path, STR("old")), 0);
    busy();
    write_fault = (struct fault){.at = 2, .error = EIO};
    assert_int_equal(file_replace(path, STR("the new content")), -EIO);
    assert_content(rescue, "the new content");
    busy();
    fsync_fault = (struct fault){.at = 3, .error = EIO};
    assert_int_equal(file_replace(path, STR("another content")), -EIO);
    assert_content(rescue, "another content");
    /* It is not touched before there is another that is whole. */
    busy();
    write_fault = (struct fault){.at = 1, .error = EIO};
    assert_int_equal(file_replace(path, STR("never written")), -EIO);
    assert_content(rescue, "another content");
    busy();
    fsync_fault = (struct fault){.at = 1, .error = EIO};
    assert_int_equal(file_replace(path, STR("never synced")), -EIO);
    assert_content(rescue, "another content");
    busy();
    fallocate_fault = (struct fault){.at = 1, .error = ENOSPC};
    assert_int_equal(file_replace(path, STR("without room, but whole itself, and long")), -ENOSPC);
    assert_content(rescue, "without room, but whole itself, and long");
    no_faults();
    assert_int_equal(file_replace(path, STR("well again")), 0);
    assert_content(path, "well again");
    assert_missing(temp);
    assert_missing(rescue);
}

static void test_name_beside(void **state)
{
    (void)state;
    char out[FILE_NAME_MAX], link[128], longest[FILE_NAME_MAX + 1];
    assert_int_equal(file_name_beside(path, ".x", out), 0); /* not there yet */
    assert_string_equal(out + strlen(path), ".x");
    assert_int_equal(file_replace(path, STR("a")), 0);
    snprintf(link, sizeof(link), "%s/link", folder);
    assert_int_equal(symlink("clients.json", link), 0);
    assert_int_equal(file_name_beside(link, ".x", out), 0);
    assert_string_equal(out + strlen(out) - 14, "clients.json.x");
    assert_int_equal(unlink(path), 0);
    assert_int_equal(file_name_beside(link, ".x", out), 0);
    assert_string_equal(out + strlen(out) - 14, "clients.json.x");
    memset(longest, 'x', sizeof(longest) - 1);
    longest[sizeof(longest) - 1] = '\0';
    assert_int_equal(file_name_beside(longest, ".x", out), -ENAMETOOLONG);
}

static void test_append(void **state)
{
    (void)state;
    int fd = file_open_append(path);
    assert_true(fd >= 0);
    assert_int_equal(fsync_fault.calls, 1); /* the folder that has a new file */
    assert_int_equal(mode_of(path), 0640);
    assert_int_equal(file_write_all(fd, STR("one\n")), 0);
    file_close(fd);
    fd = file_open_append(path);
    assert_int_equal(fsync_fault.calls, 1);
    assert_int_equal(file_size(fd), 4);
    assert_int_equal(file_write_all(fd, STR("two\n")), 0);
    assert_int_equal(file_sync_data(fd), 0);
    assert_content(path, "one\ntwo\n");
    assert_int_equal(file_truncate(fd, 4), 0);
    assert_int_equal(file_write_all(fd, STR("three\n")), 0);
    assert_content(path, "one\nthree\n");
    file_close(fd);
    assert_int_equal(file_open_append(folder), -EISDIR);
}

/* What could wait for somebody's other end is waited for only where that is wanted. */
static void test_a_fifo_keeps_nobody(void **state)
{
    (void)state;
    struct buf b = BUF_INIT;
    char name[32];
    int ends[2];
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_int_equal(file_read(path, 100, &b), -ESPIPE);
    assert_int_equal(file_read("/dev/zero", 100, &b), -ESPIPE);
    assert_int_equal(file_open_to_read(path), -ESPIPE);
    assert_int_equal(file_open_to_read("/dev/zero"), -ESPIPE);
    assert_int_equal(file_open_append(path), -ENXIO);
    int reader = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC), fd = file_open_append(path);
    assert_true(fd >= 0);
    assert_false(fcntl(fd, F_GETFL) & O_NONBLOCK); /* once it is open, its reader is waited for */
    file_close(fd);
    close(reader);
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    assert_int_equal(file_write_all(ends[1], STR("text")), 0);
    close(ends[1]);
    snprintf(name, sizeof name, "/dev/fd/%d", ends[0]);
    assert_int_equal(file_read_stream(name, 100, &b), 0);
    assert_int_equal(b.len, 4);
    close(ends[0]);
    buf_fini(&b);
    assert_string_equal(file_why(-ENXIO), "nobody reads from it");
    assert_string_equal(file_why(-ESPIPE), "it is no regular file");
    assert_string_equal(file_why(-ENOENT), "No such file or directory");
}

/* Who may not read a file may not read what goes with it, be that new or not. */
static void test_modes_of_what_goes_with(void **state)
{
    (void)state;
    static const struct {
        mode_t mode, beside;
    } cases[] = {{0600, 0600}, {0640, 0640}, {0666, 0640}, {0404, 0600}, {0000, 0600}, {0660, 0640}};
    char with[128];
    snprintf(with, sizeof(with), "%s/with", folder);
    assert_int_equal(file_replace(with, STR("")), 0);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_int_equal(chmod(with, cases[i].mode), 0);
        file_close(file_open_append_with(path, with));
        assert_int_equal(mode_of(path), cases[i].beside);
        assert_int_equal(chmod(path, 0777), 0);
        assert_int_equal(file_replace_with(path, with, STR("x")), 0);
        assert_int_equal(mode_of(path), 0700 | (cases[i].mode & 077));
        assert_int_equal(chmod(path, 0777), 0);
        file_close(file_open_append_with(path, with));
        assert_int_equal(mode_of(path), 0700 | (cases[i].mode & 077));
        assert_int_equal(unlink(path), 0);
        assert_int_equal(file_replace_with(path, with, STR("x")), 0);
        assert_int_equal(mode_of(path), cases[i].beside);
        file_close(file_create(path, with));
        assert_int_equal(mode_of(path), cases[i].beside);
        assert_int_equal(unlink(path), 0);
    }
    assert_int_equal(unlink(with), 0);
    file_close(file_create(path, with));
    assert_int_equal(mode_of(path), 0640);
}

static void test_append_folder_not_synced(void **state)
{
    (void)state;
    fsync_fault = (struct fault){.at = 1, .error = EIO};
    assert_int_equal(file_open_append(path), -EIO);
}

static void test_a_hint_changes_nothing(void **state)
{
    (void)state;
    file_start_sync(-1);
    int fd = file_replace_begin(path);
    assert_true(fd >= 0);
    file_start_sync(fd);
    assert_int_equal(file_write_all(fd, STR("con")), 0);
    file_start_sync(fd);
    assert_int_equal(file_write_all(fd, STR("tent")), 0);
    assert_int_equal(file_replace_commit(path, fd), 0);
    assert_content(path, "content");
}

static void test_bad_descriptors(void **state)
{
    (void)state;
    file_close(-1);
    assert_int_equal(file_size(-1), -EBADF);
    assert_int_equal(file_sync_data(-1), -EBADF);
    assert_int_equal(file_truncate(-1, 0), -EBADF);
    assert_int_equal(file_truncate(0, UINT64_MAX), -EFBIG);
    assert_int_equal(file_write_all(-1, STR("x")), -EBADF);
    assert_int_equal(file_write_all(-1, STR("")), 0);
    assert_int_equal(file_write_now(-1, FILE_STREAM_OWN, STR("x")), -EBADF);
    assert_int_equal(file_kind(-1), FILE_OTHER);
    assert_int_equal(file_reopen_nonblocking(-1), -ENOENT);
}

static void test_remove(void **state)
{
    (void)state;
    assert_int_equal(file_replace(path, STR("x")), 0);
    assert_int_equal(file_remove(path), 0);
    assert_missing(path);
    assert_int_equal(file_remove(path), 0);
    assert_int_equal(file_remove(folder), -EISDIR);
}

static void test_lock(void **state)
{
    (void)state;
    char pid[16];
    int holder;
    int fd = file_lock(path, &holder);
    assert_true(fd >= 0);
    snprintf(pid, sizeof(pid), "%d\n", (int)getpid());
    assert_content(path, pid);
    assert_int_equal(file_lock(path, &holder), -EWOULDBLOCK);
    assert_int_equal(holder, getpid());
    file_close(fd);
    /* what an earlier, longer pid left behind is gone */
    assert_int_equal(file_replace(path, STR("1234567890123\n")), 0);
    fd = file_lock(path, &holder);
    assert_true(fd >= 0);
    assert_content(path, pid);
    file_close(fd);
    assert_int_equal(file_lock(folder, &holder), -EISDIR);
}

static void test_still_at(void **state)
{
    (void)state;
    assert_int_equal(file_replace(path, STR("a")), 0);
    int fd = file_open_append(path);
    assert_true(fd >= 0);
    assert_int_equal(file_still_at(fd, path), 0);
    assert_int_equal(file_replace(path, STR("a")), 0);
    assert_int_equal(file_still_at(fd, path), -ESTALE);
    assert_int_equal(file_remove(path), 0);
    assert_int_equal(file_still_at(fd, path), -ENOENT);
    file_close(fd);
}

/* Each change shows; that nothing is there is a mark of its own. */
static void test_mark(void **state)
{
    (void)state;
    struct file_mark before, after;
    struct timespec earlier[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = 1000}};
    char inside[160];
    assert_int_equal(file_mark(path, &before), 0);
    assert_int_equal(file_mark(path, &after), 0);
    assert_true(file_mark_eq(&before, &after));
    assert_int_equal(file_replace(path, STR("a")), 0);
    assert_int_equal(file_mark(path, &after), 0);
    assert_false(file_mark_eq(&before, &after));
    before = after;
    assert_int_equal(utimensat(AT_FDCWD, path, earlier, 0), 0);
    assert_int_equal(file_mark(path, &after), 0);
    assert_false(file_mark_eq(&before, &after));
    before = after;
    assert_int_equal(truncate(path, 0), 0);
    assert_int_equal(utimensat(AT_FDCWD, path, earlier, 0), 0);
    assert_int_equal(file_mark(path, &after), 0);
    assert_false(file_mark_eq(&before, &after)); /* the size */
    before = after;
    assert_int_equal(chmod(path, 0600), 0);
    assert_int_equal(file_mark(path, &after), 0);
    assert_true(file_mark_eq(&before, &after));
    snprintf(inside, sizeof inside, "%s/x", path);
    assert_int_equal(file_mark(inside, &after), -ENOTDIR);
}

static void test_lock_of_unknown_holder(void **state)
{
    (void)state;
    int holder = 1;
    assert_int_equal(file_replace(path, STR("nobody")), 0);
    int fd = open(path, O_RDWR);
    assert_int_equal(flock(fd, LOCK_EX), 0);
    assert_int_equal(file_lock(path, &holder), -EWOULDBLOCK);
    assert_int_equal(holder, 0);
    close(fd);
}

/* Of another's file nothing is left, and nothing is written through a link. */
static void test_create(void **state)
{
    (void)state;
    char link[sizeof path + 8];
    snprintf(link, sizeof link, "%s.link", path);
    assert_int_equal(file_replace(path, STR("others")), 0);
    assert_int_equal(symlink(path, link), 0);
    int fd = file_create(link, NULL);
    assert_true(fd >= 0);
    assert_int_equal(file_write_all(fd, STR("ours")), 0);
    file_close(fd);
    assert_content(path, "others");
    assert_content(link, "ours");
    assert_int_equal(file_rename(link, path), 0);
    assert_content(path, "ours");
    assert_int_equal(file_rename(link, path), -ENOENT);
    assert_int_equal(file_create(folder, NULL), -EISDIR);
}

static void test_reserve(void **state)
{
    (void)state;
    struct stat st;
    int fd = file_create(path, NULL);
    assert_true(fd >= 0);
    assert_int_equal(file_reserve(fd, FILE_MAP_UNIT), 0);
    assert_int_equal(fstat(fd, &st), 0);
    assert_int_equal(st.st_size, FILE_MAP_UNIT);
    assert_true(st.st_blocks * 512 >= FILE_MAP_UNIT); /* no hole */
    assert_int_equal(file_reserve(fd, 10), 0);
    assert_int_equal(file_size(fd), FILE_MAP_UNIT);
    assert_int_equal(file_reserve(fd, UINT64_MAX), -EFBIG);
    assert_int_equal(file_size(fd), FILE_MAP_UNIT);
    file_close(fd);
    assert_int_equal(file_reserve(-1, 10), -EBADF);
}

/* A page that cannot be written to any more, but read: played by another file under the same descriptor. */
static void expect_map_to_keep_what_can_be_read(void)
{
    void *map;
    struct buf page = BUF_INIT;
    int fd = file_create(path, NULL), readable = file_create(temp, NULL);
    assert_true(fd >= 0 && readable >= 0);
    assert_int_equal(file_reserve(fd, 2 * FILE_MAP_UNIT), 0);
    assert_int_equal(file_map(fd, FILE_MAP_UNIT, FILE_MAP_UNIT, &map), 0);
    for (unsigned i = 0; i < 2 * FILE_MAP_UNIT; i++)
        assert_true(buf_append(&page, i < FILE_MAP_UNIT ? "-" : "x", 1));
    assert_int_equal(file_write_all(readable, buf_str(&page)), 0);
    assert_int_equal(truncate(path, 0), 0);
    assert_int_equal(dup2(readable, fd), fd);
    volatile char *p = map;
    p[FILE_MAP_UNIT - 1] = 'y';
    assert_int_equal(p[FILE_MAP_UNIT - 1], 'y');
    assert_int_equal(p[FILE_MAP_UNIT - 2], 'x');
    assert_true(file_map_is_lost());
    file_unmap(map, FILE_MAP_UNIT);
    buf_fini(&page);
    file_close(readable);
    file_close(fd);
}

/* A mapping is the file's content; when the file is cut short, it goes on as a page of zeros. */
static void test_map(void **state)
{
    (void)state;
    void *map;
    char byte;
    int fd = file_create(path, NULL);
    assert_true(fd >= 0);
    assert_int_equal(file_reserve(fd, 2 * FILE_MAP_UNIT), 0);
    assert_int_equal(file_map(fd, FILE_MAP_UNIT, FILE_MAP_UNIT, &map), 0);
    volatile char *p = map;
    p[5] = 'x';
    assert_int_equal(pread(fd, &byte, 1, FILE_MAP_UNIT + 5), 1);
    assert_int_equal(byte, 'x');
    assert_false(file_map_is_lost());
    assert_int_equal(ftruncate(fd, 0), 0);
    assert_int_equal(p[5], 0);
    assert_true(file_map_is_lost());
    p[5] = 'y';
    assert_int_equal(p[5], 'y');
    file_unmap(map, FILE_MAP_UNIT);
    assert_int_equal(file_map(-1, 0, FILE_MAP_UNIT, &map), -EBADF);
    file_close(fd);
    expect_map_to_keep_what_can_be_read(); /* in this test, for cmocka takes SIGBUS back behind each */
}

static void test_kind(void **state)
{
    (void)state;
    int p[2], s[2], master, slave;
    assert_int_equal(pipe(p), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, s), 0);
    assert_int_equal(openpty(&master, &slave, NULL, NULL, NULL), 0);
    int regular = file_open_append(path), null = open("/dev/null", O_WRONLY);
    assert_int_equal(file_kind(p[1]), FILE_PIPE);
    assert_int_equal(file_kind(s[0]), FILE_SOCKET);
    assert_int_equal(file_kind(slave), FILE_TERMINAL);
    assert_int_equal(file_kind(regular), FILE_REGULAR);
    assert_int_equal(file_kind(null), FILE_OTHER);
    int all[] = {p[0], p[1], s[0], s[1], master, slave, regular, null};
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        close(all[i]);
}

/* Writes until nothing is taken; the alarm ends a test that blocks. */
static size_t fill(int fd, enum file_stream how)
{
    static char block[100000];
    size_t total = 0;
    ssize_t n;
    alarm(20);
    while ((n = file_write_now(fd, how, str_make(block, sizeof(block)))) > 0)
        total += (size_t)n;
    alarm(0);
    assert_int_equal(n, 0);
    return total;
}

static void test_write_now_pipe(void **state)
{
    (void)state;
    char drained[PIPE_BUF];
    int p[2];
    assert_int_equal(pipe(p), 0);
    assert_int_equal(fill(p[1], FILE_STREAM_SHARED), 65536);
    assert_int_equal(read(p[0], drained, sizeof(drained)), sizeof(drained));
    assert_int_equal(fill(p[1], FILE_STREAM_SHARED), sizeof(drained));
    assert_int_equal(file_write_now(p[1], FILE_STREAM_SHARED, STR("")), 0);
    /* a description of our own, which does not make the others' non-blocking */
    int own = file_reopen_nonblocking(p[1]);
    assert_true(own >= 0);
    assert_false(fcntl(p[1], F_GETFL) & O_NONBLOCK);
    assert_int_equal(fill(own, FILE_STREAM_OWN), 0);
    assert_int_equal(read(p[0], drained, sizeof(drained)), sizeof(drained));
    assert_int_equal(fill(own, FILE_STREAM_OWN), sizeof(drained));
    close(p[0]);
    assert_int_equal(file_write_now(p[1], FILE_STREAM_SHARED, STR("x")), -EPIPE);
    assert_int_equal(file_write_now(own, FILE_STREAM_OWN, STR("x")), -EPIPE);
    close(own);
    close(p[1]);
}

static void test_write_now_socket(void **state)
{
    (void)state;
    int s[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, s), 0);
    assert_true(fill(s[0], FILE_STREAM_SOCKET) > 0);
    assert_int_equal(file_write_now(s[0], FILE_STREAM_SOCKET, STR("x")), 0);
    close(s[1]);
    assert_int_equal(file_write_now(s[0], FILE_STREAM_SOCKET, STR("x")), -EPIPE);
    close(s[0]);
}

static void test_write_now_terminal(void **state)
{
    (void)state;
    int master, slave;
    assert_int_equal(openpty(&master, &slave, NULL, NULL, NULL), 0);
    int own = file_reopen_nonblocking(slave);
    assert_true(own >= 0);
    assert_false(fcntl(slave, F_GETFL) & O_NONBLOCK);
    assert_true(fill(own, FILE_STREAM_OWN) > 0);
    close(own);
    close(slave);
    close(master);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_read),
        TEST(test_read_without_size),
        TEST(test_replace),
        TEST(test_replace_relative),
        TEST(test_may_replace),
        TEST(test_absolute),
        TEST(test_replace_keeps_owner),
        TEST(test_replace_without_owner),
        TEST(test_replace_behind_link),
        TEST(test_replace_behind_dangling_link),
        TEST(test_replace_behind_endless_links),
        TEST(test_replace_with_stale_temporary),
        TEST(test_replace_in_steps),
        TEST(test_replace_failures),
        TEST(test_replace_impossible),
        TEST(test_interrupted_and_short),
        TEST(test_mount_point),
        TEST(test_mount_point_full),
        TEST(test_mount_point_torn),
        TEST(test_name_beside),
        TEST(test_append),
        TEST(test_a_fifo_keeps_nobody),
        TEST(test_modes_of_what_goes_with),
        TEST(test_append_folder_not_synced),
        TEST(test_a_hint_changes_nothing),
        TEST(test_bad_descriptors),
        TEST(test_remove),
        TEST(test_create),
        TEST(test_reserve),
        TEST(test_map),
        TEST(test_lock),
        TEST(test_still_at),
        TEST(test_mark),
        TEST(test_lock_of_unknown_holder),
        TEST(test_kind),
        TEST(test_write_now_pipe),
        TEST(test_write_now_socket),
        TEST(test_write_now_terminal),
    };
    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
