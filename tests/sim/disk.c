/* A disk in memory. Every file and every folder has two sides, the cache and the platter, and the same code changes
 * either; what separates them is a bit for each dirty block, a range of sizes, and each folder's log of changes. */
#include "disk.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum side { CACHE, PLATTER, SIDES };

/* The cache's side is zeros from `size` to `cap`. The platter's may hold bytes beyond its size, when a sync that failed
 * wrote a block but not the size. */
struct content {
    char *p;
    uint64_t size, cap; /* cap: whole blocks */
};

struct entry {
    char *name;
    struct inode *f;
};

struct names {
    struct entry *at;
    size_t n, cap;
};

/* One operation on a folder, which happens whole or not at all: `name` becomes f's, or nobody's when f is NULL, and
 * `gone` (of a rename; else NULL) is removed. */
struct change {
    char *name, *gone;
    struct inode *f;
};

struct inode {
    uint64_t ino;
    mode_t mode;
    unsigned refs, links[SIDES], pending; /* pending: changes that name it; all zero: it goes */
    const void *owner;                    /* of the lock */

    /* A file. */
    struct content data[SIDES];
    unsigned char *dirty; /* one for each block of data[CACHE].cap */
    bool size_dirty;
    uint64_t low, high; /* when size_dirty: all sizes it has had since the last sync lie between */

    /* A folder. */
    struct names names[SIDES];
    struct change *log; /* what the platter does not have yet, oldest first */
    size_t logged, log_cap;
};

/* The place that a path names: `f` is what is there, or NULL. */
struct spot {
    struct inode *folder, *f; /* folder: NULL for "/" */
    char name[NAME_MAX + 1];
};

struct mount {
    struct inode *folder;
    char *name;
};

static struct {
    struct rng rng;
    uint64_t room, last_ino;
    struct inode **inodes; /* in the order of their creation; the first is "/" */
    size_t count, cap;
    struct mount *mounts;
    size_t mounted, mounts_cap;
} disk;

/* ---- memory ---- */

static void *must(void *p)
{
    if (!p)
        abort();
    return p;
}

/* Makes room for an element after `n` others. */
static void *grow(void *p, size_t n, size_t *cap, size_t element)
{
    if (n < *cap)
        return p;
    *cap = *cap ? 2 * *cap : 8;
    return must(realloc(p, *cap * element));
}

static struct inode *inode_new(mode_t mode)
{
    struct inode *f = must(calloc(1, sizeof *f));
    f->ino = ++disk.last_ino;
    f->mode = mode;
    disk.inodes = grow(disk.inodes, disk.count, &disk.cap, sizeof(struct inode *));
    disk.inodes[disk.count++] = f;
    return f;
}

static bool is_folder(const struct inode *f)
{
    return S_ISDIR(f->mode);
}

static void change_free(struct change *c)
{
    free(c->name);
    free(c->gone);
}

static void inode_free(struct inode *f)
{
    for (enum side side = CACHE; side < SIDES; side++) {
        for (size_t i = 0; i < f->names[side].n; i++)
            free(f->names[side].at[i].name);
        free(f->names[side].at);
        free(f->data[side].p);
    }
    for (size_t i = 0; i < f->logged; i++)
        change_free(&f->log[i]);
    free(f->log);
    free(f->dirty);
    free(f);
}

/* Frees the files that nothing leads to. Folders stay: nothing removes one. */
static void sweep(void)
{
    size_t kept = 1;
    for (size_t i = 1; i < disk.count; i++) {
        struct inode *f = disk.inodes[i];
        if (f->refs || f->links[CACHE] || f->links[PLATTER] || f->pending)
            disk.inodes[kept++] = f;
        else
            inode_free(f);
    }
    disk.count = kept;
}

/* ---- names ---- */

static size_t name_find(const struct names *t, const char *name)
{
    size_t i = 0;
    while (i < t->n && strcmp(t->at[i].name, name) != 0)
        i++;
    return i;
}

static void name_remove(struct inode *folder, enum side side, const char *name)
{
    struct names *t = &folder->names[side];
    size_t i = name_find(t, name);
    if (i == t->n)
        return;
    t->at[i].f->links[side]--;
    free(t->at[i].name);
    t->n--;
    memmove(&t->at[i], &t->at[i + 1], (t->n - i) * sizeof *t->at);
}

static void name_set(struct inode *folder, enum side side, const char *name, struct inode *f)
{
    struct names *t = &folder->names[side];
    size_t i = name_find(t, name);
    f->links[side]++;
    if (i < t->n) {
        t->at[i].f->links[side]--;
    } else {
        t->at = grow(t->at, t->n, &t->cap, sizeof *t->at);
        t->at[t->n++].name = must(strdup(name));
    }
    t->at[i].f = f;
}

static void change_apply(struct inode *folder, enum side side, const struct change *c)
{
    if (c->f)
        name_set(folder, side, c->name, c->f);
    else
        name_remove(folder, side, c->name);
    if (c->gone)
        name_remove(folder, side, c->gone);
}

/* Changes what processes see, and notes it for the platter. */
static void change(struct inode *folder, const char *name, struct inode *f, const char *gone)
{
    assert(folder); /* "/" is a folder already, whatever is to be put there */
    struct change c = {.name = must(strdup(name)), .gone = gone ? must(strdup(gone)) : NULL, .f = f};
    if (f)
        f->pending++;
    change_apply(folder, CACHE, &c);
    folder->log = grow(folder->log, folder->logged, &folder->log_cap, sizeof *folder->log);
    folder->log[folder->logged++] = c;
}

/* Takes the first `n` changes out of the log, by way of the platter or not. */
static void log_take(struct inode *folder, size_t n, bool apply)
{
    for (size_t i = 0; i < n; i++) {
        struct change *c = &folder->log[i];
        if (apply)
            change_apply(folder, PLATTER, c);
        if (c->f)
            c->f->pending--;
        change_free(c);
    }
    folder->logged -= n;
    if (n > 0)
        memmove(folder->log, folder->log + n, folder->logged * sizeof *folder->log);
}

/* ---- paths ---- */

/* Takes the first name off *path: 1, 0 when there is none, or -ENAMETOOLONG. */
static int next_name(const char **path, char name[NAME_MAX + 1])
{
    size_t n;
    do {
        *path += strspn(*path, "/");
        n = strcspn(*path, "/");
        if (n > NAME_MAX)
            return -ENAMETOOLONG;
        memcpy(name, *path, n);
        name[n] = '\0';
        *path += n;
    } while (strcmp(name, ".") == 0);
    return n > 0;
}

/* Steps into what `s` stands at: to the file called `name` there, or to the place for one. */
static void step(struct spot *s, const char *name)
{
    const struct names *t = &s->f->names[CACHE];
    size_t i = name_find(t, name);
    s->folder = s->f;
    s->f = i < t->n ? t->at[i].f : NULL;
    strcpy(s->name, name);
}

static int locate(const char *path, struct spot *s)
{
    char name[NAME_MAX + 1];
    int r = *path ? 1 : -ENOENT;
    *s = (struct spot){.f = disk.inodes[0]};
    while (r > 0 && (r = next_name(&path, name)) > 0) {
        if (!s->f || !is_folder(s->f))
            return s->f ? -ENOTDIR : -ENOENT;
        step(s, name);
    }
    return r;
}

/* For what is there: -ENOENT also when just the last name is missing. */
static int locate_existing(const char *path, struct spot *s)
{
    int r = locate(path, s);
    return r < 0 || s->f ? r : -ENOENT;
}

static bool is_mount(const struct spot *s)
{
    for (size_t i = 0; i < disk.mounted; i++) {
        if (disk.mounts[i].folder == s->folder && strcmp(disk.mounts[i].name, s->name) == 0)
            return true;
    }
    return false;
}

/* ---- room ---- */

/* What a process cannot reach any more takes no room, though it may be on the platter yet. */
static uint64_t room_left(void)
{
    uint64_t used = 0;
    if (disk.room == UINT64_MAX)
        return UINT64_MAX;
    for (size_t i = 0; i < disk.count; i++) {
        const struct inode *f = disk.inodes[i];
        if (f->refs || f->links[CACHE])
            used += f->data[CACHE].size;
    }
    return used < disk.room ? disk.room - used : 0;
}

void disk_set_room(uint64_t bytes)
{
    disk.room = bytes;
}

/* ---- content ---- */

static void content_reserve(struct inode *f, enum side side, uint64_t size)
{
    struct content *d = &f->data[side];
    uint64_t cap = d->cap ? d->cap : DISK_BLOCK;
    if (size <= d->cap)
        return;
    while (cap < size)
        cap *= 2;
    d->p = must(realloc(d->p, cap));
    memset(d->p + d->cap, 0, cap - d->cap);
    if (side == CACHE) {
        size_t before = d->cap / DISK_BLOCK, after = cap / DISK_BLOCK;
        f->dirty = must(realloc(f->dirty, after));
        memset(f->dirty + before, 0, after - before);
    }
    d->cap = cap;
}

/* Zeros come after the end, be it the old one or the new one. */
static void content_resize(struct inode *f, enum side side, uint64_t size)
{
    struct content *d = &f->data[side];
    content_reserve(f, side, size);
    if (size < d->cap)
        memset(d->p + size, 0, d->cap - size);
    d->size = size;
}

/* Marks the blocks that have a byte between `from` and `to`. */
static void mark(struct inode *f, uint64_t from, uint64_t to, bool dirty)
{
    if (from >= to)
        return;
    size_t first = from / DISK_BLOCK, end = (to - 1) / DISK_BLOCK + 1;
    memset(f->dirty + first, dirty, end - first);
}

static void note_size(struct inode *f, uint64_t size)
{
    if (!f->size_dirty)
        f->low = f->high = f->data[PLATTER].size;
    f->size_dirty = true;
    f->low = size < f->low ? size : f->low;
    f->high = size > f->high ? size : f->high;
}

static void cache_resize(struct inode *f, uint64_t size)
{
    struct content *d = &f->data[CACHE];
    uint64_t before = d->size, block_end = (size + DISK_BLOCK - 1) / DISK_BLOCK * DISK_BLOCK;
    if (size == before)
        return;
    note_size(f, size);
    if (size < before)
        content_resize(f, CACHE, size);
    else
        content_reserve(f, CACHE, size);
    d->size = size;
    mark(f, before, size, true);       /* it grew: zeros, which must take the place of whatever the platter has there */
    mark(f, block_end, before, false); /* it shrank: blocks that are no more */
}

ssize_t disk_read(const struct inode *f, uint64_t offset, void *p, size_t n)
{
    const struct content *d = &f->data[CACHE];
    if (is_folder(f))
        return -EISDIR;
    if (offset >= d->size || n == 0)
        return 0;
    if (n > d->size - offset)
        n = d->size - offset;
    memcpy(p, d->p + offset, n);
    return (ssize_t)n;
}

ssize_t disk_write(struct inode *f, uint64_t offset, const void *p, size_t n)
{
    uint64_t size = f->data[CACHE].size, end = offset + n;
    if (n == 0)
        return 0;
    if (end > size) {
        uint64_t left = room_left();
        if (end - size > left)
            end = size + left;
        if (end <= offset)
            return -ENOSPC;
        if (end > size)
            cache_resize(f, end);
    }
    memcpy(f->data[CACHE].p + offset, p, end - offset);
    mark(f, offset, end, true);
    /* A size that a sync has failed to write goes along with the bytes that reach to it: XFS sets it when those are on
     * the disk, ext4 before. */
    if (end == f->data[CACHE].size && end != f->data[PLATTER].size)
        note_size(f, end);
    return (ssize_t)(end - offset);
}

int disk_truncate(struct inode *f, uint64_t size)
{
    uint64_t before = f->data[CACHE].size;
    if (size > before && size - before > room_left())
        return -ENOSPC;
    cache_resize(f, size);
    return 0;
}

/* ---- from the cache to the platter ---- */

/* The first `n` bytes of a block. */
static void block_write(struct inode *f, size_t block, size_t n)
{
    uint64_t at = (uint64_t)block * DISK_BLOCK;
    content_reserve(f, PLATTER, at + DISK_BLOCK);
    memcpy(f->data[PLATTER].p + at, f->data[CACHE].p + at, n);
}

static void mark_clean(struct inode *f)
{
    mark(f, 0, f->data[CACHE].cap, false);
    f->size_dirty = false;
}

static void file_sync(struct inode *f, bool fails)
{
    for (size_t i = 0; i < f->data[CACHE].cap / DISK_BLOCK; i++) {
        if (f->dirty[i] && (!fails || rng_chance(&disk.rng, 500)))
            block_write(f, i, DISK_BLOCK);
    }
    if (f->size_dirty && (!fails || rng_chance(&disk.rng, 500)))
        content_resize(f, PLATTER, f->data[CACHE].size);
    mark_clean(f);
}

int disk_sync(struct inode *f, bool fails)
{
    if (!is_folder(f)) {
        file_sync(f, fails);
    } else {
        log_take(f, fails ? rng_below(&disk.rng, f->logged + 1) : f->logged, true);
        sweep();
    }
    return fails ? -EIO : 0;
}

/* Some of the dirty blocks, and perhaps the size. */
static bool file_writeback(struct inode *f)
{
    bool any = false;
    unsigned share = (unsigned)rng_between(&disk.rng, 1, 1000);
    for (size_t i = 0; i < f->data[CACHE].cap / DISK_BLOCK; i++) {
        if (!f->dirty[i] || !rng_chance(&disk.rng, share))
            continue;
        block_write(f, i, DISK_BLOCK);
        f->dirty[i] = false;
        any = true;
    }
    if (f->size_dirty && rng_chance(&disk.rng, 500)) {
        content_resize(f, PLATTER, f->data[CACHE].size);
        f->size_dirty = false;
        any = true;
    }
    return any;
}

bool disk_writeback(void)
{
    if (disk.count == 0)
        return false; /* a test without a disk */
    struct inode *f = disk.inodes[rng_below(&disk.rng, disk.count)];
    if (!is_folder(f))
        return file_writeback(f);
    size_t n = rng_below(&disk.rng, f->logged + 1);
    log_take(f, n, true);
    sweep();
    return n > 0;
}

static uint64_t size_after_cut(const struct inode *f)
{
    const uint64_t sizes[] = {f->data[PLATTER].size, f->data[CACHE].size, f->low, f->high};
    if (!f->size_dirty)
        return f->data[PLATTER].size;
    uint64_t i = rng_below(&disk.rng, 6);
    return i < 4 ? sizes[i] : rng_between(&disk.rng, f->low, f->high);
}

/* Large files would never be seen all old or all new if each block were left to chance, so some files are. */
static void file_power_cut(struct inode *f)
{
    enum { ALL_OLD, ALL_NEW, EACH };
    enum { OLD, NEW, TORN, OUTCOMES };
    uint64_t size = size_after_cut(f), fate = rng_below(&disk.rng, 2 * EACH);
    for (size_t i = 0; i < f->data[CACHE].cap / DISK_BLOCK; i++) {
        if (!f->dirty[i])
            continue;
        uint64_t outcome = fate == ALL_OLD ? OLD : fate == ALL_NEW ? NEW : rng_below(&disk.rng, OUTCOMES);
        if (outcome != OLD)
            block_write(f, i, outcome == NEW ? DISK_BLOCK : rng_between(&disk.rng, 1, DISK_BLOCK - 1));
    }
    content_resize(f, PLATTER, size);
    content_resize(f, CACHE, size);
    if (size > 0)
        memcpy(f->data[CACHE].p, f->data[PLATTER].p, size);
    mark_clean(f);
}

static void folder_power_cut(struct inode *folder)
{
    log_take(folder, rng_below(&disk.rng, folder->logged + 1), true);
    log_take(folder, folder->logged, false);
    while (folder->names[CACHE].n > 0)
        name_remove(folder, CACHE, folder->names[CACHE].at[folder->names[CACHE].n - 1].name);
    for (size_t i = 0; i < folder->names[PLATTER].n; i++)
        name_set(folder, CACHE, folder->names[PLATTER].at[i].name, folder->names[PLATTER].at[i].f);
}

void disk_power_cut(void)
{
    for (size_t i = 0; i < disk.count; i++) {
        struct inode *f = disk.inodes[i];
        assert(f->refs == 0);
        f->owner = NULL;
        if (is_folder(f))
            folder_power_cut(f);
    }
    sweep(); /* what has lost its name is not worth a draw */
    for (size_t i = 0; i < disk.count; i++) {
        if (!is_folder(disk.inodes[i]))
            file_power_cut(disk.inodes[i]);
    }
}

/* ---- calls ---- */

static int check_open(const struct inode *f, int flags)
{
    if ((flags & O_CREAT) && (flags & O_EXCL))
        return -EEXIST;
    if (is_folder(f) && ((flags & O_ACCMODE) != O_RDONLY || (flags & (O_CREAT | O_TRUNC))))
        return -EISDIR;
    return (flags & O_DIRECTORY) && !is_folder(f) ? -ENOTDIR : 0;
}

static int create(struct spot *s, int flags, mode_t mode)
{
    if (!(flags & O_CREAT))
        return -ENOENT;
    if (room_left() == 0)
        return -ENOSPC;
    s->f = inode_new(S_IFREG | (mode & 07777));
    change(s->folder, s->name, s->f, NULL);
    return 0;
}

struct inode *disk_open(const char *path, int flags, mode_t mode, int *error)
{
    struct spot s;
    int r = locate(path, &s);
    if (r == 0)
        r = s.f ? check_open(s.f, flags) : create(&s, flags, mode);
    if (r < 0) {
        *error = -r;
        return NULL;
    }
    if (flags & O_TRUNC)
        cache_resize(s.f, 0);
    s.f->refs++;
    return s.f;
}

struct inode *disk_hold(struct inode *f)
{
    f->refs++;
    return f;
}

void disk_release(struct inode *f)
{
    assert(f->refs > 0);
    if (--f->refs == 0)
        sweep();
}

int disk_unlink(const char *path)
{
    struct spot s;
    int r = locate_existing(path, &s);
    if (r < 0)
        return r;
    if (is_folder(s.f))
        return -EISDIR;
    if (is_mount(&s))
        return -EBUSY;
    change(s.folder, s.name, NULL, NULL);
    return 0;
}

/* Files only, and within one folder: more would need logs that several folders share. */
int disk_rename(const char *from, const char *to)
{
    struct spot a = {0}, b = {0};
    int r = locate_existing(from, &a);
    if (r == 0)
        r = locate(to, &b);
    if (r < 0)
        return r;
    if (is_folder(a.f) || (b.f && is_folder(b.f)))
        return -EISDIR;
    if (a.folder != b.folder)
        return -EXDEV;
    if (a.f == b.f)
        return 0;
    if (is_mount(&a) || is_mount(&b))
        return -EBUSY;
    change(b.folder, b.name, a.f, a.name);
    return 0;
}

void disk_fstat(const struct inode *f, struct stat *st)
{
    memset(st, 0, sizeof *st);
    st->st_mode = f->mode;
    st->st_size = (off_t)f->data[CACHE].size;
    st->st_ino = f->ino;
    st->st_nlink = is_folder(f) ? 2 : f->links[CACHE];
}

int disk_stat(const char *path, struct stat *st)
{
    struct spot s;
    int r = locate_existing(path, &s);
    if (r == 0)
        disk_fstat(s.f, st);
    return r;
}

void disk_chmod(struct inode *f, mode_t mode)
{
    f->mode = (f->mode & S_IFMT) | (mode & 07777);
}

uint64_t disk_size(const struct inode *f)
{
    return f->data[CACHE].size;
}

uint64_t disk_ino(const struct inode *f)
{
    return f->ino;
}

bool disk_lock(struct inode *f, const void *owner)
{
    if (!f->owner)
        f->owner = owner;
    return f->owner == owner;
}

void disk_unlock(struct inode *f, const void *owner)
{
    if (f->owner == owner)
        f->owner = NULL;
}

/* ---- for whoever runs the simulation ---- */

void disk_begin(struct rng r)
{
    memset(&disk, 0, sizeof disk);
    disk.rng = r;
    disk.room = UINT64_MAX;
    inode_new(S_IFDIR | 0755);
}

void disk_end(void)
{
    for (size_t i = 0; i < disk.count; i++)
        inode_free(disk.inodes[i]);
    for (size_t i = 0; i < disk.mounted; i++)
        free(disk.mounts[i].name);
    free(disk.inodes);
    free(disk.mounts);
    memset(&disk, 0, sizeof disk);
}

/* Takes `name` out of what the platter does not have yet: that came before what is put there now. */
static void log_forget(struct inode *folder, const char *name)
{
    size_t kept = 0;
    for (size_t i = 0; i < folder->logged; i++) {
        struct change c = folder->log[i];
        if (c.gone && strcmp(c.gone, name) == 0) {
            free(c.gone);
            c.gone = NULL;
        }
        if (strcmp(c.name, name) == 0) {
            if (c.f)
                c.f->pending--;
            free(c.name);
            c = (struct change){.name = c.gone}; /* of a rename it remains that the old name goes */
        }
        if (c.name)
            folder->log[kept++] = c;
    }
    folder->logged = kept;
}

/* Gives `name` to `f` on both sides. What else is pending in the folder stays so: whoever puts a file there does not
 * sync for the process. */
static void name_put(struct inode *folder, const char *name, struct inode *f)
{
    log_forget(folder, name);
    for (enum side side = CACHE; side < SIDES; side++)
        name_set(folder, side, name, f);
    sweep();
}

/* The place of `path`, with the folders above it made. */
static struct spot make_spot(const char *path)
{
    struct spot s = {.f = disk.inodes[0]};
    char name[NAME_MAX + 1];
    while (next_name(&path, name) > 0) {
        if (!s.f) {
            s.f = inode_new(S_IFDIR | 0755);
            name_put(s.folder, s.name, s.f);
        }
        assert(is_folder(s.f));
        step(&s, name);
    }
    return s;
}

void disk_mount(const char *path)
{
    struct spot s = make_spot(path);
    disk.mounts = grow(disk.mounts, disk.mounted, &disk.mounts_cap, sizeof *disk.mounts);
    disk.mounts[disk.mounted++] = (struct mount){.folder = s.folder, .name = must(strdup(s.name))};
}

void disk_make_folder(const char *path)
{
    struct spot s = make_spot(path);
    if (!s.f)
        name_put(s.folder, s.name, inode_new(S_IFDIR | 0755));
}

/* A file that is replaced lives on for those who have it open, except at a mount point, which always shows the same. */
void disk_put(const char *path, const void *p, size_t n)
{
    struct spot s = make_spot(path);
    assert(!s.f || !is_folder(s.f));
    struct inode *f = s.f && is_mount(&s) ? s.f : inode_new(s.f ? s.f->mode : S_IFREG | 0644);
    name_put(s.folder, s.name, f);
    for (enum side side = CACHE; side < SIDES; side++) {
        content_resize(f, side, 0);
        content_resize(f, side, n);
        if (n > 0)
            memcpy(f->data[side].p, p, n);
    }
    mark_clean(f);
}

bool disk_exists(const char *path)
{
    struct spot s;
    return locate_existing(path, &s) == 0;
}

bool disk_get(const char *path, struct bytes *out)
{
    struct spot s;
    if (locate_existing(path, &s) < 0 || is_folder(s.f))
        return false;
    bytes_add(out, s.f->data[CACHE].p, s.f->data[CACHE].size);
    return true;
}

static void each_in(const struct inode *folder, const char *above, void (*fn)(void *arg, const char *path), void *arg)
{
    const struct names *t = &folder->names[CACHE];
    for (size_t i = 0; i < t->n; i++) {
        char *path;
        if (asprintf(&path, "%s/%s", above, t->at[i].name) < 0)
            abort();
        if (is_folder(t->at[i].f))
            each_in(t->at[i].f, path, fn, arg);
        else
            fn(arg, path);
        free(path);
    }
}

void disk_each(void (*fn)(void *arg, const char *path), void *arg)
{
    each_in(disk.inodes[0], "", fn, arg);
}
