/* The programs under test. */
#include "process.h"

#include "clock.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define GROUPS_MAX 16

/* The groups that run, for whoever ends this program. */
static volatile pid_t groups[GROUPS_MAX];

static bool group_enter(pid_t pid)
{
    for (int i = 0; i < GROUPS_MAX; i++) {
        if (groups[i] == 0) {
            groups[i] = pid;
            return true;
        }
    }
    return false;
}

static void group_leave(pid_t pid)
{
    for (int i = 0; i < GROUPS_MAX; i++)
        if (groups[i] == pid)
            groups[i] = 0;
}

void process_kill_all(void)
{
    for (int i = 0; i < GROUPS_MAX; i++)
        if (groups[i] > 0)
            kill(-groups[i], SIGKILL);
}

/* In the child: becomes the program. */
static void become(const char *dir, const char *log, const char *const argv[])
{
    int file = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    setpgid(0, 0);
    if (file < 0 || dup2(file, STDOUT_FILENO) < 0 || dup2(file, STDERR_FILENO) < 0 || chdir(dir) != 0)
        _exit(127);
    execv(argv[0], (char *const *)(uintptr_t)argv);
    _exit(127);
}

bool process_start(struct process *p, const char *dir, const char *log, const char *const argv[])
{
    p->pid = fork();
    if (p->pid == 0)
        become(dir, log, argv);
    if (p->pid < 0) {
        p->pid = 0;
        return false;
    }
    setpgid(p->pid, p->pid); /* here too: whoever is first */
    if (group_enter(p->pid))
        return true;
    process_kill(p);
    return false;
}

bool process_is_running(const struct process *p)
{
    siginfo_t info = {0};

    return p->pid > 0 && waitid(P_PID, (id_t)p->pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid == 0;
}

void process_signal(const struct process *p, int signo)
{
    if (p->pid > 0)
        kill(p->pid, signo);
}

void process_kill(struct process *p)
{
    if (p->pid <= 0)
        return;
    kill(-p->pid, SIGKILL);
    while (waitpid(p->pid, NULL, 0) < 0 && errno == EINTR)
        ;
    group_leave(p->pid);
    p->pid = 0;
}

bool process_stop(struct process *p, unsigned ms)
{
    uint64_t until = now_us() + (uint64_t)ms * MS;
    bool ended;

    process_signal(p, SIGTERM);
    while (process_is_running(p) && now_us() < until)
        rest_us(2 * MS);
    ended = !process_is_running(p);
    process_kill(p);
    return ended;
}
