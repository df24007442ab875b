/* Stands before libc in the daemon, see disk_shim.h. What is not told to fail or to be slow is as it ever was. */
#include "disk_shim.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define PATH_SIZE 4096

static struct disk_shim *disk;

__attribute__((constructor)) static void find_disk(void)
{
    const char *path = getenv(DISK_SHIM_VARIABLE);
    int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    void *shared = fd < 0 ? MAP_FAILED : mmap(NULL, sizeof *disk, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

    if (shared == MAP_FAILED)
        abort();
    close(fd);
    disk = shared;
}

static bool name_ends(int fd, const char *suffix)
{
    char link[64], name[PATH_SIZE];
    size_t suffix_n = strlen(suffix);
    ssize_t n;

    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    n = readlink(link, name, sizeof name);
    return n >= (ssize_t)suffix_n && memcmp(name + n - suffix_n, suffix, suffix_n) == 0;
}

static bool fails(bool is_journal, int fd)
{
    return atomic_load(&disk->all_fails) || (is_journal && atomic_load(&disk->journal_fails)) ||
           (atomic_load(&disk->temporaries_fail) && name_ends(fd, ".tmp"));
}

static int sync_with(const char *name, int fd)
{
    int (*real)(int) = (int (*)(int))(uintptr_t)dlsym(RTLD_NEXT, name);
    bool is_journal = name_ends(fd, ".journal");

    atomic_fetch_add(&disk->syncs, 1);
    if (is_journal) {
        unsigned ms = atomic_load(&disk->slow_ms);
        nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L}, NULL);
        atomic_fetch_add(&disk->journal_syncs, 1);
    }
    if (!fails(is_journal, fd))
        return real(fd);
    errno = EIO;
    return -1;
}

int fsync(int fd)
{
    return sync_with("fsync", fd);
}

int fdatasync(int fd)
{
    return sync_with("fdatasync", fd);
}
