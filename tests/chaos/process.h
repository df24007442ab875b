/* The programs under test: each in a process group of its own, ended with all its children whatever happens here. */
#ifndef CHAOS_PROCESS_H
#define CHAOS_PROCESS_H

#include <stdbool.h>
#include <sys/types.h>

struct process {
    pid_t pid; /* 0: none runs */
};

/* Starts argv[0], a path, in the folder `dir`, its output appended to the file `log`. False when it cannot. */
bool process_start(struct process *p, const char *dir, const char *log, const char *const argv[]);
bool process_is_running(const struct process *p);
void process_signal(const struct process *p, int signo);
/* kill -9 to the whole group, and waits. */
void process_kill(struct process *p);
/* SIGTERM, and waits at most `ms`; then kills. True when it has ended by itself. */
bool process_stop(struct process *p, unsigned ms);
/* Kills all that still run; safe in a signal handler. */
void process_kill_all(void);

#endif
