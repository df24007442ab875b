/* Files: one of the five files that make system calls. All of these may block: they belong to start-up, shutdown and
 * the helper thread. Results: 0 or a count or descriptor, or -errno. EINTR is restarted, short writes are continued. */
#ifndef LB_BASE_FILE_H
#define LB_BASE_FILE_H

#include "base/buf.h"
#include "base/str.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* Reads the whole file, at most `max` bytes (-EFBIG above), behind the content of `out`. -ENOENT when there is none;
 * -ESPIPE for what could keep us until somebody writes to it: a FIFO, a device. */
int file_read(const char *path, size_t max, struct buf *out) __attribute__((warn_unused_result));
/* The same, and waits for whoever writes. */
int file_read_stream(const char *path, size_t max, struct buf *out) __attribute__((warn_unused_result));
/* Opens a file to be read piece by piece: the descriptor, or -errno as file_read() has it. */
int file_open_to_read(const char *path) __attribute__((warn_unused_result));
/* Up to `n` bytes: how many, 0 at the end, or -errno. */
ssize_t file_read_some(int fd, char *p, size_t n) __attribute__((warn_unused_result));
/* What a result of these says, for people. */
const char *file_why(int result);

/* Replaces `path` by `content` so that after a crash at any point either the old or the new content is there whole:
 * writes path.tmp (mode as the old file's, else 0640 less the umask), fsync, rename, fsync of the folder. Where rename
 * says EBUSY (a mount point) the synced copy becomes path.rescue, `path` is rewritten in place and synced, and the copy
 * is removed: as long as there is a path.rescue it is whole and counts, whatever `path` holds. A failure may leave it.
 * A symbolic link stays: all that is true for the file that it leads to, be it there yet or not. */
int file_replace(const char *path, struct str content) __attribute__((warn_unused_result));
/* The same for a file that goes with the file `with`, and tells as much: the group and others may do nothing with it
 * that they may not do with that one, as long as there is that one. */
int file_replace_with(const char *path, const char *with, struct str content) __attribute__((warn_unused_result));

/* `path` with `suffix` behind it, as it stands; the caller's to mem_free(). NULL without memory. */
char *file_path_with(const char *path, const char *suffix) __attribute__((warn_unused_result));

/* The name of the file that `path` stands for: where its last part is a symbolic link, what that leads to, whether it
 * is there yet or not. -ENAMETOOLONG, -ELOOP, or why the kernel would not follow a link. */
#define FILE_SUFFIX_MAX 8u
#define FILE_NAME_MAX   (4096u + FILE_SUFFIX_MAX)
int file_resolve(const char *path, char out[FILE_NAME_MAX]) __attribute__((warn_unused_result));

/* That name and `suffix` (up to FILE_SUFFIX_MAX bytes). */
int file_name_beside(const char *path, const char *suffix, char out[FILE_NAME_MAX]) __attribute__((warn_unused_result));

/* file_replace() in steps, for content that is made in pieces. file_replace_begin() gives the descriptor of the
 * temporary; commit syncs and renames and closes it; abort removes it. */
int file_replace_begin(const char *path) __attribute__((warn_unused_result));
int file_replace_begin_with(const char *path, const char *with) __attribute__((warn_unused_result));
int file_replace_commit(const char *path, int fd) __attribute__((warn_unused_result));
void file_replace_abort(const char *path, int fd);

/* Opens for appending, creating with mode 0640 less the umask (and syncing the folder when it was created); the second
 * as file_replace_with(), whether it is there or not. -ENXIO, at once, for a FIFO that nobody reads. */
int file_open_append(const char *path) __attribute__((warn_unused_result));
int file_open_append_with(const char *path, const char *with) __attribute__((warn_unused_result));
/* Takes from the file what file_replace_with() would not give. Where that cannot be, because the file is another's or
 * its file system has no modes, it stays. */
void file_narrow(int fd, const char *with);
/* Makes the names in the folder of `path` durable: fsync(2) of a file does not reach the name that it is found by. */
int file_sync_folder(const char *path) __attribute__((warn_unused_result));
int file_write_all(int fd, struct str s) __attribute__((warn_unused_result));
/* Has the disk begin with what was written so far. What is synced all at once keeps the thread in the kernel for
 * milliseconds, and so others on its processor. It only hints: what fails is told by the sync to come. */
void file_start_sync(int fd);
int file_sync_data(int fd) __attribute__((warn_unused_result));
int file_truncate(int fd, uint64_t size) __attribute__((warn_unused_result));
int64_t file_size(int fd) __attribute__((warn_unused_result));
/* Is the file behind `fd` still the one that `path` names? 0; -ENOENT when nothing has that name any more, -ESTALE when
 * another file has it. What is written to it then is not found again. */
int file_still_at(int fd, const char *path) __attribute__((warn_unused_result));
/* What tells a file, as it is, from another and from itself changed; all of it 0 where nothing has that name. */
struct file_mark {
    uint64_t device, inode;
    int64_t size, changed_s, changed_ns;
};
int file_mark(const char *path, struct file_mark *out) __attribute__((warn_unused_result));
bool file_mark_eq(const struct file_mark *a, const struct file_mark *b);
bool file_exists(const char *path);
void file_close(int fd);
/* Would file_replace() be permitted to do its work, be there a file or not? 0, or the -errno that it would end with. It
 * only looks, as the user that we act as, and so cannot know all: a full disk, say. */
int file_may_replace(const char *path) __attribute__((warn_unused_result));
/* The same of file_open_append(), which neither opens nor makes anything: whether somebody reads a FIFO is not asked.
 */
int file_may_append(const char *path) __attribute__((warn_unused_result));
/* `path` as it is called from anywhere, for messages: behind the working folder where it is relative. */
void file_absolute(const char *path, char out[FILE_NAME_MAX]);
/* Who writes to files: the number of the user that we act as. */
unsigned file_user(void);
/* Removes a file and syncs its folder; -ENOENT is 0. */
int file_remove(const char *path) __attribute__((warn_unused_result));

/* A new, empty file to be read and written, in the place of whatever has that name; its mode is that of a new file of
 * file_replace_with(). NULL: it goes with none. */
int file_create(const char *path, const char *with) __attribute__((warn_unused_result));
/* Puts the file called `from` in the place of `to`, in the same folder. Nothing is synced. */
int file_rename(const char *from, const char *to) __attribute__((warn_unused_result));

/* Lengthens the file to `size` bytes with room on the disk for all of them, so that writing to a mapping of them cannot
 * find the disk full; a longer one stays as it is. */
int file_reserve(int fd, uint64_t size) __attribute__((warn_unused_result));
/* Maps `n` bytes at `offset` (both multiples of FILE_MAP_UNIT), to be read and written, shared with the file: what is
 * there is the file's content even after the process has been killed. `fd` stays open as long. */
#define FILE_MAP_UNIT 65536u
int file_map(int fd, uint64_t offset, size_t n, void **out) __attribute__((warn_unused_result));
void file_unmap(void *p, size_t n);
/* Has a mapped page been taken away: by whoever cut the file short, by a disk that cannot read it any more, or by a
 * file system that cannot write to it (one that copies on write and is full, one that is read-only after an error)?
 * That does not end the process (SIGBUS): the page belongs to no file then, and holds what can still be read of it, and
 * zeros else. */
bool file_map_is_lost(void);

/* Takes an exclusive lock on `path` (created if missing) for the life of the descriptor that is returned, and writes
 * our pid into it, if there is room on the disk. -EWOULDBLOCK, with the holder's pid in *holder (0: unknown), when
 * another process has it. */
int file_lock(const char *path, int *holder) __attribute__((warn_unused_result));

/* What kind of thing is behind a descriptor, for the log. */
enum file_kind { FILE_REGULAR, FILE_PIPE, FILE_TERMINAL, FILE_SOCKET, FILE_OTHER };
enum file_kind file_kind(int fd);

/* Opens /dev/null for each of stdin, stdout and stderr that whoever started us has left closed: else the next files and
 * sockets would get those numbers, and what is meant for stdout or stderr would go there. */
int file_hold_standard(void) __attribute__((warn_unused_result));

/* A second, non-blocking description of an open pipe or terminal (through /proc/self/fd), so that others who share it
 * are not affected; or -errno. */
int file_reopen_nonblocking(int fd) __attribute__((warn_unused_result));

/* What it takes to write to a stream without waiting for its reader. */
enum file_stream {
    FILE_STREAM_SOCKET, /* nothing: each call says that it may not block */
    FILE_STREAM_OWN,    /* nothing: the descriptor is file_reopen_nonblocking()'s, which nobody else can make block */
    FILE_STREAM_SHARED  /* poll, then at most PIPE_BUF bytes a step: others decide whether the description blocks */
};

/* Writes what a pipe, terminal or socket takes now; never waits. A count, 0 when it takes nothing, or -errno. */
ssize_t file_write_now(int fd, enum file_stream how, struct str s) __attribute__((warn_unused_result));

#endif
