/* What file.c (system calls) does for file_replace.c (the steps of a replacement). Results: as in base/file.h. */
#ifndef LB_BASE_FILE_IMPL_H
#define LB_BASE_FILE_IMPL_H

#include "base/file.h"

/* open(2), closed on exec and never a controlling terminal. A descriptor, or -errno. */
int file_open(const char *path, int flags, mode_t mode) __attribute__((warn_unused_result));

/* fsync(2). */
int file_sync(int fd) __attribute__((warn_unused_result));

/* Makes the file `temp`, which is to replace `target`: with its owner and mode, or with 0640 less the umask where there
 * is none; and less what `with` (NULL: nothing) does not give to the group and to others. */
int file_make_temp(const char *temp, const char *target, const char *with) __attribute__((warn_unused_result));

/* Copies all of one file to the front of another. */
int file_copy_content(int from, int to) __attribute__((warn_unused_result));

/* Takes the name away; nothing is synced. */
int file_unlink(const char *path);

#endif
