/* What the daemon's object files call in libc's place (syscalls.map): the same prototypes, the same meanings. Also what
 * the kernel's files say only to each other. */
#ifndef LB_SIM_CALLS_H
#define LB_SIM_CALLS_H

#include "engine.h"

#include <getopt.h>
#include <netdb.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <time.h>

int daemon_main(int argc, char **argv);

/* heap.c */
void *sim_malloc(size_t n);
void *sim_calloc(size_t n, size_t size);
void *sim_realloc(void *p, size_t n);
void *sim_reallocarray(void *p, size_t n, size_t size);
void sim_free(void *p);
char *sim_strdup(const char *s);
int sim_malloc_trim(size_t pad);
int sim_mallopt(int what, int value);
void heap_free(void);
struct bytes;
void heap_describe(struct bytes *out); /* appends the sizes of some blocks that are left */

/* spawn.c */
extern char **sim_environ;
unsigned long sim_getauxval(unsigned long type);
int sim_posix_spawn(pid_t *pid, const char *path, const posix_spawn_file_actions_t *actions,
                    const posix_spawnattr_t *attr, char *const argv[], char *const env[]);
int sim_posix_spawn_file_actions_init(posix_spawn_file_actions_t *actions);
int sim_posix_spawn_file_actions_destroy(posix_spawn_file_actions_t *actions);
int sim_posix_spawn_file_actions_adddup2(posix_spawn_file_actions_t *actions, int fd, int as);
int sim_posix_spawnattr_init(posix_spawnattr_t *attr);
int sim_posix_spawnattr_destroy(posix_spawnattr_t *attr);
int sim_posix_spawnattr_setflags(posix_spawnattr_t *attr, short flags);
int sim_posix_spawnattr_setsigmask(posix_spawnattr_t *attr, const sigset_t *set);
int sim_posix_spawnattr_setsigdefault(posix_spawnattr_t *attr, const sigset_t *set);
int sim_kill(pid_t pid, int signo);
pid_t sim_waitpid(pid_t pid, int *status, int options);
int sim_socketpair(int family, int type, int protocol, int ends[2]);
ssize_t sim_recvmsg(int fd, struct msghdr *m, int flags);
int sim_getpeername(int fd, struct sockaddr *addr, socklen_t *len);

/* threads.c */
int sim_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*fn)(void *), void *arg);
int sim_pthread_join(pthread_t thread, void **result);
int sim_pthread_detach(pthread_t thread);
int sim_pthread_setname_np(pthread_t thread, const char *name);
int sim_pthread_mutex_init(pthread_mutex_t *m, const pthread_mutexattr_t *attr);
int sim_pthread_mutex_destroy(pthread_mutex_t *m);
int sim_pthread_mutex_lock(pthread_mutex_t *m);
int sim_pthread_mutex_unlock(pthread_mutex_t *m);
int sim_pthread_cond_init(pthread_cond_t *c, const pthread_condattr_t *attr);
int sim_pthread_cond_destroy(pthread_cond_t *c);
int sim_pthread_cond_wait(pthread_cond_t *c, pthread_mutex_t *m);
int sim_pthread_cond_signal(pthread_cond_t *c);
int sim_pthread_attr_init(pthread_attr_t *attr);
int sim_pthread_attr_destroy(pthread_attr_t *attr);
int sim_pthread_attr_setstacksize(pthread_attr_t *attr, size_t n);
void helpers_forget(void);
void helper_enters_disk(bool enters);    /* the calling thread, if it is one, enters or leaves a call of the disk */
bool helpers_on_disk(void);              /* is one in such a call? */
bool helper_abandoned(const char *name); /* has the one of that name been detached? */

/* libc.c */
int sim_fputs(const char *s, FILE *f);
int sim_puts(const char *s);
int sim_fputc(int c, FILE *f);
int sim_fflush(FILE *f);
int sim_ferror(FILE *f);
size_t sim_fwrite(const void *p, size_t size, size_t n, FILE *f);
int sim_vfprintf(FILE *f, const char *fmt, va_list ap) __attribute__((format(printf, 2, 0)));
int sim_vfprintf_chk(FILE *f, int flag, const char *fmt, va_list ap) __attribute__((format(printf, 3, 0)));
int sim_fprintf(FILE *f, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
int sim_fprintf_chk(FILE *f, int flag, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
int sim_printf(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
int sim_printf_chk(int flag, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
_Noreturn void sim_abort(void);
_Noreturn void sim_assert_fail(const char *what, const char *file, unsigned line, const char *function);
char *sim_getenv(const char *name);
pid_t sim_getpid(void);

/* process.c */
_Noreturn void sim_exit(int status);
uint64_t call_draw(uint64_t n);
void syscall_turn(void);
void syscall_give_way(void);
void fd_set_limit(unsigned long limit);
unsigned long fd_get_limit(void);

/* maps.c */
void *sim_mmap(void *at, size_t n, int protection, int flags, int fd, off_t offset);
int sim_munmap(void *p, size_t n);
int sim_sigaction(int signo, const struct sigaction *action, struct sigaction *before);
long sim_sysconf(int name);
bool maps_left(void);
/* The process has ended: all that it has written is in the page cache. */
void maps_drop(void);

/* files.c */
void writeback_begin(void);
int sim_open(const char *path, int flags, ...);
int sim_close(int fd);
ssize_t sim_read(int fd, void *p, size_t n);
ssize_t sim_write(int fd, const void *p, size_t n);
ssize_t sim_pread(int fd, void *p, size_t n, off_t offset);
off_t sim_lseek(int fd, off_t offset, int whence);
int sim_fsync(int fd);
int sim_fdatasync(int fd);
int sim_ftruncate(int fd, off_t size);
int sim_posix_fallocate(int fd, off_t offset, off_t n);
int sim_sync_file_range(int fd, off_t offset, off_t n, unsigned flags);
/* What is open as a file on the disk. */
struct inode *file_inode(int fd, const char *call);
int sim_fstat(int fd, struct stat *st);
int sim_stat(const char *path, struct stat *st);
int sim_lstat(const char *path, struct stat *st);
int sim_statx(int folder, const char *path, int flags, unsigned mask, struct statx *st);
int sim_faccessat(int folder, const char *path, int what, int flags);
char *sim_getcwd(char *out, size_t size);
char *sim_getcwd_chk(char *out, size_t size, size_t room);
uid_t sim_geteuid(void);
int sim_fchmod(int fd, mode_t mode);
int sim_fchmodat(int at, const char *path, mode_t mode, int flags);
int sim_fchown(int fd, uid_t uid, gid_t gid);
int sim_unlink(const char *path);
int sim_rename(const char *from, const char *to);
ssize_t sim_readlink(const char *path, char *out, size_t size);
ssize_t sim_readlink_chk(const char *path, char *out, size_t size, size_t room);
int sim_flock(int fd, int op);
int sim_fcntl(int fd, int op, ...);
int sim_isatty(int fd);
int sim_poll(struct pollfd *fds, nfds_t n, int timeout);

/* events.c */
int sim_epoll_create1(int flags);
int sim_epoll_ctl(int epfd, int op, int fd, struct epoll_event *e);
int sim_epoll_wait(int epfd, struct epoll_event *events, int max, int timeout);
int sim_eventfd(unsigned count, int flags);
int sim_timerfd_create(int clock, int flags);
int sim_timerfd_settime(int fd, int flags, const struct itimerspec *spec, struct itimerspec *old);
int sim_signalfd(int fd, const sigset_t *mask, int flags);
int sim_sigprocmask(int how, const sigset_t *set, sigset_t *old);
int sim_pthread_sigmask(int how, const sigset_t *set, sigset_t *old);
__sighandler_t sim_signal(int signo, __sighandler_t handler);
int sim_clock_gettime(clockid_t id, struct timespec *ts);
ssize_t sim_getrandom(void *p, size_t n, unsigned flags);
int sim_getrlimit(int what, struct rlimit *limit);
int sim_setrlimit(int what, const struct rlimit *limit);
void signals_reset(void);

/* sockets.c */
int sim_socket(int family, int type, int protocol);
int sim_bind(int fd, const struct sockaddr *a, socklen_t n);
int sim_listen(int fd, int backlog);
int sim_accept4(int fd, struct sockaddr *a, socklen_t *n, int flags);
int sim_connect(int fd, const struct sockaddr *a, socklen_t n);
ssize_t sim_recv(int fd, void *p, size_t n, int flags);
ssize_t sim_send(int fd, const void *p, size_t n, int flags);
ssize_t sim_sendmsg(int fd, const struct msghdr *m, int flags);
int sim_shutdown(int fd, int how);
int sim_setsockopt(int fd, int level, int option, const void *value, socklen_t n);
int sim_ioctl(int fd, unsigned long request, ...);
int sim_getsockopt(int fd, int level, int option, void *value, socklen_t *n);
int sim_getsockname(int fd, struct sockaddr *a, socklen_t *n);

/* What splice() does to a connected socket: as recv() and send(). */
ssize_t stream_receive(int fd, void *p, size_t n);
ssize_t stream_send(int fd, const void *p, size_t n);

/* pipes.c */
void pipes_begin(void);
int sim_pipe2(int fds[2], int flags);
ssize_t sim_splice(int from, off_t *from_at, int to, off_t *to_at, size_t n, unsigned flags);
/* F_SETPIPE_SZ. */
int pipe_set_size(int fd, int size);

/* names.c */
int sim_getaddrinfo(const char *host, const char *service, const struct addrinfo *hints, struct addrinfo **out);
void sim_freeaddrinfo(struct addrinfo *list);

/* sockets.c */
/* Files of unix sockets, which stay when their process is gone. */
bool unix_file_exists(const char *path);
bool unix_file_remove(const char *path);
unsigned unix_files(void); /* how many there are */

#endif
