/* A disk that a test can tell what to do: a library that is loaded before the daemon's libc (LD_PRELOAD), and takes the
 * place of fsync() and fdatasync(). What both sides share is a file, which the environment names. */
#ifndef DISK_SHIM_H
#define DISK_SHIM_H

#include <stdatomic.h>

#define DISK_SHIM_VARIABLE "LB_TEST_DISK"

struct disk_shim {
    atomic_uint slow_ms;          /* what each sync of the journal takes */
    atomic_uint syncs;            /* how many there have been, failed ones, too, */
    atomic_uint journal_syncs;    /* and of the journal */
    atomic_bool journal_fails;    /* EIO for each sync of the journal ... */
    atomic_bool temporaries_fail; /* ... of a file that is to replace another ... */
    atomic_bool all_fails;        /* ... and for each sync there is */
};

#endif
