/* Other processes: the fifth file that makes system calls, and what it does is start a program, end it and hear of its
 * end. Results: 0 or a pid, or -errno. */
#ifndef LB_BASE_PROCESS_H
#define LB_BASE_PROCESS_H

#include <stdbool.h>
#include <sys/types.h>

#define PROCESS_FDS_MAX 4

/* Starts the program at `path` with `argv`, no signal blocked, and this process's environment with `setting`
 * ("NAME=value") in it, but without what service managers hand to one process alone (LISTEN_*). Of the descriptors it
 * gets those that are not close-on-exec, and fds[0..n) as 3, 4, ... Returns its pid. */
pid_t process_start(const char *path, char *const argv[], const int *fds, int n, const char *setting)
    __attribute__((warn_unused_result));

/* kill -9. */
void process_kill(pid_t pid);

/* True when the child has ended, with its exit status in *status (128 + n: by signal n); it is gone then. *status stays
 * as it is where that is not known, because somebody else has waited for it. Never waits. */
bool process_has_ended(pid_t pid, int *status) __attribute__((warn_unused_result));

/* Ends this process at once, as kill -9 would, but with an exit status: nobody is waited for, nothing is given back. */
_Noreturn void process_exit(int status);

pid_t process_self(void);

/* Is this the first process of its PID namespace, with which all others end, and which inherits their children? */
bool process_is_first(void);

/* Where the running program is: the path that exec was given, which whoever started it by its name has found in PATH,
 * with its links not followed, for they may be set anew; relative to the working folder where that was. Where it was
 * given none, the path of the file as it was at the start of the process. False when there is no telling. To be asked
 * early: the file may be replaced later. */
bool process_path(char *out, size_t size) __attribute__((warn_unused_result));

#endif
