/* The simulated process: its globals and descriptors; what all system calls share; its start and its two ends, exit and
 * kill.
 *
 * The daemon's globals lie in sections of their own (tests.mk renames .data and .bss of its object files): a start
 * puts them back to what they were when the simulation was loaded. */
#include "calls.h"
#include "kernel.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct kernel kernel;
struct process process;

static struct rng fault_stream, call_stream, yield_stream;
static unsigned yield_chance; /* in 1000 */
static struct file *fds[FDS_MAX];
static int fd_limit;

const char *fault_name(unsigned kind)
{
    static const char *const names[] = {
        "short-read", "short-write", "eintr",      "eagain",       "spurious",     "delay",
        "emfile",     "enfile",      "enobufs",    "accept-error", "connect-fail", "epoll-nomem",
        "heap-nomem", "disk-full",   "disk-error", "sync-error",   "slow-disk",    "start",
        "few-fds",    "pipe-broken", "yield",      "writeback",
    };
    _Static_assert(sizeof names / sizeof names[0] == FAULT_KINDS, "each kind has a name");
    return names[kind];
}

bool fault_drawn(const unsigned *chance)
{
    if (*chance == 0 || !rng_chance(&fault_stream, *chance))
        return false;
    kernel.kinds[chance - (const unsigned *)&kernel.faults]++;
    return true;
}

bool fault_rarely_at_start(const unsigned *chance, unsigned rarely)
{
    if (*chance == 0 || (!process.serving && rng_below(&fault_stream, rarely) != 0))
        return false;
    return fault_drawn(chance);
}

bool start_fault(void)
{
    bool fails = !process.serving && fault(kernel.faults.start);
    kernel.shown.start += fails;
    return fails;
}

static bool fds_spent(void)
{
    return kernel.faults.few_fds > 0 && process.open_fds >= kernel.faults.few_fds;
}

int fd_fault(void)
{
    bool spent = fds_spent();
    int e = spent                                             ? -EMFILE
            : fault_rarely_at_start(&kernel.faults.emfile, 8) ? -EMFILE
            : fault_rarely_at_start(&kernel.faults.enfile, 8) ? -ENFILE
                                                              : 0;
    kernel.shown.descriptors += e != 0;
    kernel.kinds[FAULT_FEW_FDS] += spent;
    return e;
}

void kernel_begin(void)
{
    kernel = (struct kernel){.latency = 100 * US, .fd_hard_limit = 1024};
    process = (struct process){.end = PROCESS_KILLED};
    fault_stream = rng_of("faults", 0);
    call_stream = rng_of("calls", 0);
    yield_stream = rng_of("yield", 0);
    yield_chance = (unsigned)rng_below(&yield_stream, 101);
    writeback_begin();
    pipes_begin();
}

/* ---- globals ---- */

/* The linker gives the bounds of sections whose names are identifiers. */
#define BOUNDS(section)                                                                                                \
    extern char __start_##section[] __attribute__((weak));                                                             \
    extern char __stop_##section[] __attribute__((weak));
BOUNDS(daemon_data)
BOUNDS(daemon_data_rel)
BOUNDS(daemon_bss)

/* By hand and a byte at a time: the address sanitizer's red zones between the globals go along. */
__attribute__((no_sanitize("address"))) static void copy_globals(volatile char *to, const volatile char *from, size_t n)
{
    for (size_t i = 0; i < n; i++)
        to[i] = from[i];
}

static void reset_section(char *begin, const char *end, char **saved)
{
    if (!begin || begin == end)
        return;
    size_t n = (size_t)(end - begin);
    if (*saved) {
        copy_globals(begin, *saved, n);
        return;
    }
    *saved = malloc(n);
    if (!*saved)
        abort();
    copy_globals(*saved, begin, n);
}

/* The first call keeps the globals as they are, later ones bring that back. */
static void reset_globals(void)
{
    static char *saved[3];
    reset_section(__start_daemon_data, __stop_daemon_data, &saved[0]);
    reset_section(__start_daemon_data_rel, __stop_daemon_data_rel, &saved[1]);
    reset_section(__start_daemon_bss, __stop_daemon_bss, &saved[2]);
}

/* ---- descriptors ---- */

void file_init(struct file *f, const struct file_ops *ops, int flags)
{
    *f = (struct file){.ops = ops, .refs = 1, .flags = flags};
}

static void file_put(struct file *f)
{
    if (--f->refs > 0)
        return;
    epoll_forget(f);
    f->ops->last_close(f);
}

bool fd_free(void)
{
    for (int fd = 0; fd < fd_limit; fd++)
        if (!fds[fd])
            return true;
    return false;
}

int fd_install(struct file *f)
{
    for (int fd = 0; fd < fd_limit; fd++)
        if (!fds[fd]) {
            fds[fd] = f;
            process.open_fds++;
            return fd;
        }
    kernel.shown.descriptors++;
    file_put(f);
    return -EMFILE;
}

struct file *fd_file(int fd)
{
    return fd >= 0 && fd < FDS_MAX ? fds[fd] : NULL;
}

void fd_check_flags(const char *call, int flags)
{
    if (!(flags & O_CLOEXEC))
        sim_fail("descriptors", "%s makes a descriptor that programs would inherit", call);
}

struct file *fd_need(int fd, const char *call)
{
    struct file *f = fd_file(fd);
    if (!f)
        sim_fail("descriptors", "%s on %d, which is not open", call, fd);
    return f;
}

int fd_close(int fd)
{
    struct file *f = fd_need(fd, "close");
    if (f->users > 0)
        sim_fail("descriptors", "%s closes %d, a %s, while another thread is in a call on it",
                 thread_name(thread_self()), fd, f->ops->name);
    fds[fd] = NULL;
    process.open_fds--;
    file_put(f);
    return 0;
}

static void close_all(void)
{
    for (int fd = 0; fd < FDS_MAX; fd++) {
        if (!fds[fd])
            continue;
        fds[fd]->users = 0; /* the threads are no more */
        fd_close(fd);
    }
}

uint64_t call_draw(uint64_t n)
{
    return rng_below(&call_stream, n);
}

void fd_set_limit(unsigned long limit)
{
    fd_limit = limit < FDS_MAX ? (int)limit : FDS_MAX;
}

unsigned long fd_get_limit(void)
{
    return (unsigned long)fd_limit;
}

/* ---- system calls in general ---- */

/* Turns since anything has moved; and those of the present second, with its number. */
static uint64_t idle_turns, second, second_turns;

/* A thread may lose the processor at any call, whether or not that waits for anything. */
void syscall_give_way(void)
{
    if (!thread_rivalled() || !rng_chance(&yield_stream, yield_chance))
        return;
    kernel.kinds[FAULT_YIELD]++;
    thread_yield();
}

void syscall_begin(const char *name, int64_t a, int64_t b)
{
    trace(name, a, b, 0);
    trace_text("%s(%" PRId64 ", %" PRId64 ")", name, a, b);
    uint64_t cost = 300 + call_draw(1500);
    if (fault(kernel.faults.delay)) {
        kernel.shown.stall++;
        thread_sleep(rng_spread(&fault_stream, 10 * US, 200 * MS));
    }
    thread_spend(cost);
    syscall_give_way();
}

ssize_t syscall_end(const char *name, ssize_t result)
{
    trace("=", result, 0, 0);
    if (result >= 0) {
        trace_text("%s = %zd", name, result);
        return result;
    }
    errno = (int)-result;
    trace_text("%s = %s", name, strerrorname_np(errno));
    return -1;
}

void syscall_progress(void)
{
    idle_turns = 0;
}

void syscall_turn_for_nothing(void)
{
    idle_turns -= idle_turns > 0;
}

/* Four and three times what was measured where all was well: 55 and 57 thousand in 500 seeds. */
#define IDLE_TURNS_MAX   200u
#define SECOND_TURNS_MAX 150000u

/* Called for each turn of the loop: many of them in which nothing has moved are a spin, and so are very many in a
 * second, whatever they moved. */
void syscall_turn(void)
{
    process.turns++;
    if (sim_now() / S != second)
        second_turns = 0;
    second = sim_now() / S;
    if (++idle_turns > IDLE_TURNS_MAX)
        sim_fail("spin", "%" PRIu64 " turns of the loop without progress", idle_turns);
    if (++second_turns > SECOND_TURNS_MAX)
        sim_fail("spin", "%" PRIu64 " turns of the loop within one second", second_turns);
}

/* ---- life ---- */

static void end_process(enum process_end how)
{
    process.end = how;
    process.serving = false;
    process.log_cut = helper_abandoned("log");
    threads_drop();
    helpers_forget();
    maps_drop();
    close_all();
    heap_free();
    if (process.on_end)
        process.on_end();
}

/* Everything that a stopped daemon should have given back. A resolver that was abandoned, perhaps in the middle of a
 * call, keeps its own and what it was asked; the reader of a config its file, and two snapshots at most; the writer of
 * a log its lines, and three files. */
static void check_leaks(void)
{
    size_t blocks = 0, bytes = 0;
    unsigned descriptors = 2;
    if (helper_abandoned("names")) {
        blocks += 8;
        bytes += 24576; /* four threads, each with a question and room for the answer */
    }
    if (helper_abandoned("reload")) {
        blocks += 128;
        bytes += 262144; /* the file, too, as it is read */
        descriptors++;
    }
    if (helper_abandoned("log")) {
        blocks += 8;
        bytes += 4u * 1024 * 1024;
        descriptors += 3;
    }
    if (maps_left())
        sim_fail("leaks", "at exit a mapping is left");
    if (process.heap_blocks <= blocks && process.heap_bytes <= bytes && process.open_fds <= descriptors)
        return;
    struct bytes left = {0};
    process_describe_leaks(&left);
    sim_fail("leaks", "at exit %zu blocks, %zu bytes and %u descriptors are left:%s", process.heap_blocks,
             process.heap_bytes, process.open_fds, bytes_at(&left));
}

void process_describe_leaks(struct bytes *out)
{
    heap_describe(out);
    for (int fd = 0; fd < FDS_MAX; fd++)
        if (fds[fd])
            bytes_add_text(out, " fd%d=%s", fd, fds[fd]->ops->name);
    bytes_add(out, "", 1);
}

static void main_thread(void *arg)
{
    static char name[] = "loadbalancer", option[] = "-c", file[] = "config.json";
    char *argv[] = {name, option, file, NULL};
    (void)arg;
    unsigned files = unix_files();
    int status = daemon_main(3, argv);
    trace("exit status", status, 0, 0);
    process.status = status;
    check_leaks();
    if (unix_files() > files)
        sim_fail("leaks", "at exit with status %d the file of a unix socket is left", status);
    end_process(PROCESS_EXITED);
}

/* From any thread, whatever the others are at. */
_Noreturn void sim_exit(int status)
{
    syscall_begin("_exit", status, 0);
    process.status = status;
    process.abrupt = true;
    process.on_disk = helpers_on_disk();
    end_process(PROCESS_EXITED);
    thread_exit();
}

void process_start(void)
{
    reset_globals();
    void (*on_end)(void) = process.on_end, (*on_turn)(void) = process.on_turn;
    bytes_clear(&process.stderr_text);
    struct bytes text = process.stderr_text;
    process = (struct process){
        .started = true, .begun = sim_now(), .on_end = on_end, .on_turn = on_turn, .stderr_text = text};
    fd_limit = kernel.fd_hard_limit < 256 ? (int)kernel.fd_hard_limit : 256;
    idle_turns = second_turns = 0;
    optind = 0;
    signals_reset();
    /* A library of the daemon's, linked with its own calls of malloc(). */
    cJSON_InitHooks(&(cJSON_Hooks){sim_malloc, sim_free});
    pipe_stdout_make();
    trace("start", 0, 0, 0);
    thread_start("loop", main_thread, NULL);
}

void process_kill(void)
{
    if (process_alive())
        end_process(PROCESS_KILLED);
}

bool process_alive(void)
{
    return process.end == PROCESS_RUNS && process.started;
}

void process_signal(int signo)
{
    if (!process_alive())
        return;
    trace("signal number", signo, 0, 0);
    if (signals_ignored(signo))
        return;
    if (!signals_blocked(signo))
        process_kill(); /* the default of all that are sent here */
    else
        signal_arrived(signo);
}

void kernel_end(void)
{
    threads_drop();
    process.on_end = NULL;
    maps_drop();
    close_all();
    heap_free();
    bytes_free(&process.stderr_text);
    process = (struct process){0};
    helpers_forget();
}
