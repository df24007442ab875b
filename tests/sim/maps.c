/* Shared mappings of files. What the process writes there is in the page cache, so it outlives a kill; here it is
 * copied into the file when the mapping goes, for nobody looks at the file before. */
#include "calls.h"
#include "disk.h"
#include "kernel.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

struct mapping {
    struct mapping *next;
    struct inode *inode;
    uint64_t offset;
    size_t n;
    char *p, *before; /* before: what the file has */
};
static struct mapping *mappings;

void *sim_mmap(void *at, size_t n, int protection, int flags, int fd, off_t offset)
{
    syscall_begin("mmap", fd, (int64_t)n);
    if (at || protection != (PROT_READ | PROT_WRITE) || flags != MAP_SHARED || offset % 4096 != 0)
        sim_fail("mmap", "a mapping of a kind that is not simulated");
    struct inode *inode = file_inode(fd, "mmap");
    if ((uint64_t)offset + n > disk_size(inode))
        sim_fail("mmap", "a mapping reaches beyond the file's end: whoever writes there gets SIGBUS");
    if (fault_rarely_at_start(&kernel.faults.heap_enomem, 8)) {
        kernel.shown.disk++;
        syscall_end("mmap", -ENOMEM);
        return MAP_FAILED;
    }
    struct mapping *m = calloc(1, sizeof *m);
    char *both = calloc(2, n);
    if (!m || !both)
        abort();
    *m = (struct mapping){mappings, disk_hold(inode), (uint64_t)offset, n, both, both + n};
    mappings = m;
    if (disk_read(inode, m->offset, m->p, n) != (ssize_t)n)
        abort();
    memcpy(m->before, m->p, n);
    syscall_end("mmap", 0);
    return m->p;
}

/* Only the blocks that have changed are dirty. */
static void write_back(struct mapping *m)
{
    for (size_t at = 0; at < m->n; at += DISK_BLOCK) {
        size_t n = m->n - at < DISK_BLOCK ? m->n - at : DISK_BLOCK;
        if (memcmp(m->p + at, m->before + at, n) != 0 && disk_write(m->inode, m->offset + at, m->p + at, n) < 0)
            abort();
    }
}

/* No file is cut short here. */
int sim_sigaction(int signo, const struct sigaction *action, struct sigaction *before)
{
    syscall_begin("sigaction", signo, 0);
    if (signo != SIGBUS || !(action->sa_flags & SA_SIGINFO) || before)
        sim_fail("kernel", "a use of sigaction that is not simulated");
    return (int)syscall_end("sigaction", 0);
}

long sim_sysconf(int name)
{
    if (name != _SC_PAGESIZE)
        sim_fail("kernel", "a use of sysconf that is not simulated");
    return 4096;
}

static void drop(struct mapping **link)
{
    struct mapping *m = *link;
    *link = m->next;
    write_back(m);
    disk_release(m->inode);
    free(m->p);
    free(m);
}

int sim_munmap(void *p, size_t n)
{
    struct mapping **link = &mappings;
    syscall_begin("munmap", (int64_t)n, 0);
    while (*link && (*link)->p != p)
        link = &(*link)->next;
    if (!*link || (*link)->n != n)
        sim_fail("mmap", "munmap of what is not mapped");
    drop(link);
    return (int)syscall_end("munmap", 0);
}

bool maps_left(void)
{
    return mappings != NULL;
}

void maps_drop(void)
{
    while (mappings)
        drop(&mappings);
}
