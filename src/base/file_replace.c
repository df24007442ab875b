/* Files are replaced so that a crash leaves the old content or the new, whole. The steps stand here, the system calls
 * that they take in file.c. */
#include "file_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>

/* The file that is replaced, behind symbolic links, and its temporary beside it. */
struct names {
    char target[FILE_NAME_MAX], temp[FILE_NAME_MAX], rescue[FILE_NAME_MAX];
};

static int find_names(const char *path, struct names *names)
{
    int r = file_name_beside(path, "", names->target);
    if (r < 0)
        return r;
    snprintf(names->temp, sizeof(names->temp), "%.*s.tmp", PATH_MAX, names->target);
    snprintf(names->rescue, sizeof(names->rescue), "%.*s.rescue", PATH_MAX, names->target);
    return 0;
}

static int begin(const char *path, const char *with)
{
    struct names names;
    int r = find_names(path, &names);
    if (r < 0)
        return r;
    /* Left by a crash: another's data is never written into. */
    r = file_unlink(names.temp);
    if (r < 0 && r != -ENOENT)
        return r;
    return file_make_temp(names.temp, names.target, with);
}

int file_replace_begin(const char *path)
{
    return begin(path, NULL);
}

int file_replace_begin_with(const char *path, const char *with)
{
    return begin(path, with);
}

void file_replace_abort(const char *path, int fd)
{
    struct names names;
    file_close(fd);
    if (find_names(path, &names) == 0)
        (void)file_unlink(names.temp);
}

static int overwrite(int from, const char *target)
{
    int64_t size = file_size(from);
    int to = size < 0 ? (int)size : file_open(target, O_WRONLY, 0);
    if (to < 0)
        return to;
    int r = file_reserve(to, (uint64_t)size);
    if (r == 0)
        r = file_copy_content(from, to);
    if (r == 0)
        r = file_truncate(to, (uint64_t)size);
    if (r == 0)
        r = file_sync(to);
    file_close(to);
    return r;
}

/* Writes the synced temporary `fd` over the target, which cannot be renamed over. Under its other name it is the whole
 * content that counts, from before the target is touched until all of that is synced: a failure leaves it, and the next
 * attempt puts its own, whole, in its place. */
static int rewrite_in_place(const struct names *names, int fd)
{
    int r = file_rename(names->temp, names->rescue);
    if (r < 0) {
        (void)file_unlink(names->temp);
        return r;
    }
    r = file_sync_folder(names->target);
    if (r == 0)
        r = overwrite(fd, names->target);
    if (r == 0)
        r = file_unlink(names->rescue);
    return r < 0 ? r : file_sync_folder(names->target);
}

/* The target has been renamed over and is whole: should it have been a mount point before, then what that left counts
 * no more. */
static int remove_rescue(const struct names *names)
{
    int r = file_unlink(names->rescue);
    if (r == 0)
        return file_sync_folder(names->target);
    return r == -ENOENT ? 0 : r;
}

/* Puts the synced temporary in the target's place. */
static int install(const struct names *names, int fd)
{
    int r = file_rename(names->temp, names->target);
    if (r == 0) {
        r = file_sync_folder(names->target);
        return r < 0 ? r : remove_rescue(names);
    }
    if (r == -EBUSY)
        return rewrite_in_place(names, fd);
    (void)file_unlink(names->temp);
    return r;
}

int file_replace_commit(const char *path, int fd)
{
    struct names names;
    int r = find_names(path, &names);
    if (r == 0)
        r = file_sync(fd);
    if (r < 0) {
        file_replace_abort(path, fd);
        return r;
    }
    r = install(&names, fd);
    file_close(fd);
    return r;
}

int file_replace_with(const char *path, const char *with, struct str content)
{
    int fd = begin(path, with);
    if (fd < 0)
        return fd;
    int r = file_write_all(fd, content);
    if (r < 0) {
        file_replace_abort(path, fd);
        return r;
    }
    return file_replace_commit(path, fd);
}

int file_replace(const char *path, struct str content)
{
    return file_replace_with(path, NULL, content);
}
