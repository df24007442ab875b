/* The simulated disk: a tree of folders and regular files with two states each, what processes see (the page cache)
 * and what is on the platter. A kill -9 loses nothing of the first; a power cut leaves the second, and of everything
 * written since the last sync a random part: blocks old, new or torn, sizes in between, names as after any prefix of
 * the operations on their folder.
 *
 * Errors are returned as -errno. Faults (EIO, ENOSPC, a failing sync) are asked for by the caller, who decides by the
 * seed; only a full disk (disk_set_room) fails by itself. Nothing here takes simulated time. */
#ifndef LB_SIM_DISK_H
#define LB_SIM_DISK_H

#include "bytes.h"
#include "engine.h"

#include <sys/stat.h>
#include <sys/types.h>

#define DISK_BLOCK 512u

struct inode;

/* An empty disk with the folder "/"; the random part of power cuts is drawn from `r`. */
void disk_begin(struct rng r);
void disk_end(void);

/* ---- by path. A relative path starts at "/". Neither "." nor ".." occurs inside one, but "." alone is "/". ---- */

/* open(2) with O_CREAT, O_EXCL, O_TRUNC, O_DIRECTORY, O_RDONLY, O_WRONLY, O_RDWR; other flags are ignored here. Returns
 * the file with a reference taken, or NULL with *error (ENOENT, EEXIST, EISDIR, ENOTDIR, ENOSPC when a name is to be
 * made on a full disk). */
struct inode *disk_open(const char *path, int flags, mode_t mode, int *error);
int disk_unlink(const char *path);
/* EBUSY when `to` is a mount point. Replaces `to` atomically. */
int disk_rename(const char *from, const char *to);
/* Fills st_mode (with type), st_size, st_ino, st_nlink; -ENOENT. */
int disk_stat(const char *path, struct stat *st);

/* ---- by file ---- */

/* One reference more. */
struct inode *disk_hold(struct inode *f);
/* Gives a reference back. A file without a name lives until its last reference has gone. */
void disk_release(struct inode *f);
void disk_fstat(const struct inode *f, struct stat *st);
void disk_chmod(struct inode *f, mode_t mode);
uint64_t disk_size(const struct inode *f);
uint64_t disk_ino(const struct inode *f);
/* A count; 0 at the end. */
ssize_t disk_read(const struct inode *f, uint64_t offset, void *p, size_t n);
/* Writes to the page cache, as much as there is room for: a count, or -ENOSPC when not one byte fits. A gap before
 * `offset` is filled with zeros. */
ssize_t disk_write(struct inode *f, uint64_t offset, const void *p, size_t n);
/* Grows with zeros or shrinks; not yet on the platter. */
int disk_truncate(struct inode *f, uint64_t size);
/* fsync() of a file (content and size) or of a folder (its names). With `fails` it returns -EIO and, as on Linux, what
 * was dirty counts as clean from then on although only a random part of it has reached the platter: a later sync that
 * succeeds does not write it. Of a folder's names a failing sync brings some to the platter, in their order, and the
 * others stay pending: they are metadata, which ext4, XFS and Btrfs write by way of a log, and when that cannot be
 * written they let nothing be written any more. So no sync that succeeds later leaves them out. */
int disk_sync(struct inode *f, bool fails);
/* flock(LOCK_EX|LOCK_NB) by one open file description: true when it holds the lock now. */
bool disk_lock(struct inode *f, const void *owner);
/* Gives the lock back if `owner` has it. */
void disk_unlock(struct inode *f, const void *owner);

/* ---- what befalls it ---- */

/* The kernel writes back as it likes: of one file or folder, drawn, something that is dirty now reaches the platter,
 * and outlasts what is written over it later unless that is synced. True when something was written. */
bool disk_writeback(void);
/* Bytes that all files together may have from now on (UINT64_MAX: no bound). */
void disk_set_room(uint64_t bytes);
/* Makes a path a mount point: it cannot be renamed over. */
void disk_mount(const char *path);
/* The power goes: locks are gone, and each file and folder is what the platter and chance make of it. All references
 * must have been released before. What is seen afterwards is on the platter. */
void disk_power_cut(void);

/* ---- for whoever runs the simulation ---- */

/* Creates or replaces a file, on the platter at once, folders above it included. Other names in its folder are as
 * durable as before. */
void disk_put(const char *path, const void *p, size_t n);
void disk_make_folder(const char *path);
bool disk_exists(const char *path);
/* Appends the whole content of a file to `out`; false when there is none. */
bool disk_get(const char *path, struct bytes *out);
/* Calls fn with the path of every file. */
void disk_each(void (*fn)(void *arg, const char *path), void *arg);

#endif
