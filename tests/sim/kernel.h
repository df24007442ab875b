/* The simulated kernel: one process with its descriptors, memory and threads; sockets, epoll and its kin; and the
 * faults that the seed makes it show. The daemon's own object files call it instead of libc (syscalls.map says which
 * name goes where); actors, who stand for other machines, use the functions here. */
#ifndef LB_SIM_KERNEL_H
#define LB_SIM_KERNEL_H

#include "bytes.h"
#include "engine.h"

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/types.h>

/* Zeroed memory of the simulation's own. */
static inline void *zalloc(size_t n)
{
    void *p = calloc(1, n);
    if (!p)
        abort();
    return p;
}

/* ---- faults: chances in 1000 at each call, 0 for never ---- */

struct faults {
    unsigned short_read, short_write;   /* fewer bytes than there are, or than there is room for */
    unsigned eintr, eagain;             /* of calls that may say so */
    unsigned spurious;                  /* epoll says ready what is not; a condition wakes up unasked */
    unsigned delay;                     /* a thread loses the processor for a while */
    unsigned emfile, enfile;            /* of calls that make a descriptor */
    unsigned enobufs;                   /* of socket() and accept() */
    unsigned accept_error;              /* accept() hands on an error of the connection: ECONNABORTED, EPERM ... */
    unsigned connect_fail;              /* connect() fails at once: ENETUNREACH, EADDRNOTAVAIL ... */
    unsigned epoll_enomem, heap_enomem; /* of epoll_ctl(ADD), of malloc() and kin */
    unsigned disk_full, disk_error;     /* ENOSPC or EDQUOT, EIO */
    unsigned sync_error;                /* fsync() fails */
    unsigned slow_disk;                 /* a disk call takes up to a second */
    unsigned start;                     /* before the daemon serves: no thread, no address to listen on */
    unsigned few_fds;                   /* no chance: so many descriptors may be open, 0 for no bound of this kind */
};

/* Kinds of what befalls the process: the faults, in their order, and the kernel's own whims. */
enum {
    FAULT_SLOW_DISK = offsetof(struct faults, slow_disk) / sizeof(unsigned),
    FAULT_FEW_FDS = offsetof(struct faults, few_fds) / sizeof(unsigned),
    FAULT_PIPE_BROKEN = sizeof(struct faults) / sizeof(unsigned), /* a write to a log that nobody reads any more */
    FAULT_YIELD,                                                  /* a thread has lost the processor at a call */
    FAULT_WRITEBACK, /* something is on the platter that nobody asked for */
    FAULT_KINDS
};
const char *fault_name(unsigned kind);

/* How often this run has shown what judges must know of. */
struct fault_counts {
    unsigned heap, descriptors, epoll, connect, disk, sync, start, stall;
};

struct kernel {
    struct faults faults;
    struct fault_counts shown;
    uint64_t kinds[FAULT_KINDS]; /* how often each has happened in this run */
    unsigned chunk;              /* network: 0 whole pieces, 1 random cuts, 2 a few bytes at a time */
    uint64_t latency;            /* of a connection, typical */
    uint64_t slow_at;            /* when the last slow call of the disk ends, or has ended */
    uint64_t boot;               /* sim_now() at the last boot: zero of the clocks that count from it, */
    uint64_t slept;              /* and what the machine has slept since, which the monotonic one does not count */
    int64_t wall_offset;         /* of the wall clock */
    unsigned fd_hard_limit;
    void (*named)(void); /* or NULL: told when the process has made or renamed a name on the disk */
};
extern struct kernel kernel;

void kernel_begin(void);
void kernel_end(void);

/* Draws from the faults' own stream, and counts what it shows; for a member of kernel.faults. */
#define fault(chance) fault_drawn(&(chance))
bool fault_drawn(const unsigned *chance);
/* The same for what a start needs very often, or cannot do without: until the daemon serves only one in `rarely` of the
 * faults is shown, so that it comes to serve at all. */
bool fault_rarely_at_start(const unsigned *chance, unsigned rarely);
/* Does a call fail that only a start makes? */
bool start_fault(void);
/* -EMFILE or -ENFILE, by chance or since no more may be open; or 0. */
int fd_fault(void);

/* ---- the process ---- */

/* Why it ended. */
enum process_end { PROCESS_RUNS, PROCESS_EXITED, PROCESS_KILLED, PROCESS_ABORTED };

struct process {
    enum process_end end;
    bool started;   /* since the run's begin at least once */
    bool serving;   /* it has waited in epoll */
    int status;     /* of exit */
    bool abrupt;    /* it ended itself by _exit(), */
    bool on_disk;   /* while a helper thread was in a call of the disk */
    bool log_cut;   /* the last lines of its log did not get to the file in time */
    uint64_t begun; /* sim_now() at its start */
    uint64_t turns; /* calls of epoll_wait */
    size_t heap_bytes, heap_blocks, heap_peak;
    unsigned open_fds;
    struct bytes stderr_text;
    void (*on_end)(void);  /* called when it has ended, after its descriptors were closed */
    void (*on_turn)(void); /* called when it waits in epoll, before it blocks */
};
extern struct process process;

/* Starts the daemon's main() with `-c config.json`, its globals as at the begin. */
void process_start(void);
/* kill -9. Safe from any event. */
void process_kill(void);
/* Sends a signal. */
void process_signal(int signo);
bool process_alive(void);
/* Heap blocks and descriptors that are left, for messages. */
void process_describe_leaks(struct bytes *out);

/* ---- files behind descriptors ---- */

struct file;
struct file_ops {
    const char *name;
    uint32_t (*ready)(struct file *f); /* EPOLLIN, EPOLLOUT, EPOLLERR, EPOLLHUP as they stand */
    ssize_t (*read)(struct file *f, void *p, size_t n);
    ssize_t (*write)(struct file *f, const void *p, size_t n);
    void (*last_close)(struct file *f); /* the description goes: frees it */
};
struct epoll_item;
struct file { /* an open file description; first in each kind of it */
    const struct file_ops *ops;
    unsigned refs;
    unsigned users; /* threads that are in the middle of a call on it, and sleep there */
    int flags;      /* O_NONBLOCK, O_APPEND, access mode */
    struct epoll_item *items;
};

void file_init(struct file *f, const struct file_ops *ops, int flags);
/* Is there one? */
bool fd_free(void);
/* The lowest free descriptor; takes the reference. -EMFILE, when there is none. */
int fd_install(struct file *f);
#define FDS_MAX 4096
struct file *fd_file(int fd); /* NULL when it is not open */
/* The description of a call's descriptor: one that is not open is a finding. */
struct file *fd_need(int fd, const char *call);
/* O_CLOEXEC, by whatever name, must be among the flags of a call that makes a descriptor. */
void fd_check_flags(const char *call, int flags);
int fd_close(int fd);
/* What it is ready for has changed. */
void file_changed(struct file *f);
/* All items of a description leave their epoll sets. */
void epoll_forget(struct file *f);

/* At the begin of each system call: time passes, the world goes on, and another thread may get ahead. */
void syscall_begin(const char *name, int64_t a, int64_t b);
/* At its end: notes the result, sets errno. */
ssize_t syscall_end(const char *name, ssize_t result);
/* Something has moved: bytes, a connection come or gone, a job taken or done, a signal read, a wait that slept, a timer
 * that was set for later and expired. Turns of the loop in which nothing does are counted: see process.c. */
void syscall_progress(void);
/* All that the turn is told of is spurious: that nothing moves in it is not the daemon's fault. */
void syscall_turn_for_nothing(void);

/* ---- special files ---- */

/* Standard output: a new pipe, with a reader that takes what is there within some milliseconds. */
void pipe_stdout_make(void);
/* The reader takes nothing, or goes on. */
void pipe_stall(bool stalled);
bool pipe_is_stalled(void);
/* The reader is gone: until the next start nobody reads the log. */
void pipe_break(void);
/* What the process writes to its log, pipe or file, as it is written; NULL when a file begins. */
extern void (*log_sink)(const char *p, size_t n);

/* Was signal() told so? */
bool signals_ignored(int signo);
bool signals_blocked(int signo);
void signal_arrived(int signo);

/* Ends of pipes that the process has made. */
unsigned pipe_ends_open(void);

/* ---- the network ---- */

/* Where somebody listens, and who. */
struct sim_addr {
    int family; /* AF_INET, AF_INET6, AF_UNIX */
    uint8_t ip[16];
    uint16_t port;
    char path[64];
};
struct sim_addr sim_addr_v4(uint32_t ip, uint16_t port);
struct sim_addr sim_addr_unix(const char *path);
bool sim_addr_eq(const struct sim_addr *a, const struct sim_addr *b);

struct end; /* one end of a stream connection */

enum end_event {
    END_CONNECTED, /* of end_connect() */
    END_REFUSED,   /* of end_connect(): the end is gone */
    END_READABLE,
    END_ROOM, /* bytes may be written again */
    END_FIN,  /* the other end sends no more; all its bytes have been told, whether or not they were taken */
    END_RESET /* the connection is gone; so is the end */
};
typedef void end_fn(void *owner, struct end *e, enum end_event event);

/* Connects to whoever listens at `to`, which sees `from` as its address. `r` decides the connection's delays and cuts.
 */
struct end *end_connect(const struct sim_addr *to, const struct sim_addr *from, struct rng r, end_fn *fn, void *owner);
void end_own(struct end *e, end_fn *fn, void *owner);
/* Bytes that have arrived; take them with bytes_drop() by end_took(). */
struct bytes *end_data(struct end *e);
/* After bytes were dropped from end_data(): there is room again for the sender. */
void end_took(struct end *e);
size_t end_write(struct end *e, const void *p, size_t n); /* how many were taken */
void end_finish(struct end *e);                           /* FIN */
void end_close(struct end *e);                            /* as close(2): a reset when bytes were not read */
void end_reset(struct end *e);
/* The actor's machine is gone, without a word: no FIN. Who sends to it gives up in the end (ETIMEDOUT, EHOSTUNREACH);
 * who does not never learns. Over a unix socket it is a close. The end is gone, too. */
void end_vanish(struct end *e);
/* Holds deliveries to this end back: a machine that is there but does not read. */
void end_set_window(struct end *e, size_t bytes);
/* Over a unix socket: the other side has closed, and what is written now goes nowhere (EPIPE). */
bool end_is_cut(const struct end *e);
/* It takes itself for connected, and there is no room for it yet in the listener's queue. */
bool end_waits(const struct end *e);
/* It came to a listener at `since` or later, which was closed before anyone accepted it. */
bool end_was_left(const struct end *e, uint64_t since);
/* Has the other side closed, whether that has been told here or not? */
bool end_is_alone(const struct end *e);
uint64_t end_id(const struct end *e);
/* When the other side last wrote bytes for it, and how many so far. */
uint64_t end_fed_at(const struct end *e);
uint64_t end_fed(const struct end *e);
/* How many of those were taken from it, as long as nothing has broken. */
uint64_t end_taken(const struct end *e);
/* When the daemon began to connect, for an end that a host was given; and the turn. */
uint64_t end_begun(const struct end *e);
uint64_t end_begun_turn(const struct end *e);
/* The turn of the daemon's loop in which it wrote byte number `offset` of what this end receives; UINT64_MAX when that
 * is not known any more. */
uint64_t end_turn_of(const struct end *e, uint64_t offset);
/* The time of that turn's first write to it; 0 when that is not known any more. */
uint64_t end_time_of(const struct end *e, uint64_t offset);

enum host_mode {
    HOST_ACCEPTS,
    HOST_REFUSES, /* resets at once */
    HOST_SILENT,  /* no answer to a connect: it times out at the caller's patience */
    HOST_UNREACHABLE
};
struct host { /* an address at which an actor listens */
    struct sim_addr at;
    enum host_mode mode;
    uint64_t slow;                                 /* a connect takes that much longer */
    void (*on_accept)(void *owner, struct end *e); /* to end_own() it */
    void *owner;
    struct host *next;
};
void host_add(struct host *h);
/* The daemon's listener is open at `at`. */
bool net_listens(const struct sim_addr *at);
void net_begin(void);
void net_end(void);
/* The daemon's machine loses power: what it has not sent yet is lost, and it says no goodbye. While it is down it does
 * not answer; once the daemon runs again, whoever speaks on an old connection is reset, and who says nothing finds out
 * in some seconds, as by a time-out of its own. The files of unix sockets are gone (/run). process_kill() follows. */
void net_power_cut(void);
/* Connections of the daemon that exist, accepted and made. */
unsigned net_accepted_open(void);
/* When a connection was last accepted that made them more than `connections`; 0: never. */
void net_watch_crowd(unsigned connections);
uint64_t net_crowded_at(void);
unsigned net_made_open(void);
/* The age of the oldest that the daemon has made; 0 when there is none. */
uint64_t net_oldest_made(void);

/* ---- names ---- */

/* Answers getaddrinfo(): at most 8 addresses; 0: the name does not resolve. Takes `*delay`. */
extern unsigned (*name_resolver)(const char *name, struct sim_addr out[8], uint64_t *delay);

#endif
