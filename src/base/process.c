/* Starting another program: posix_spawn(), which does not copy our memory's page tables, as fork() would. */
#include "base/process.h"

#include "base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/wait.h>
#include <unistd.h>

#define FIRST_FD  3
#define OUT_OF_IT 64 /* copies are made from here on, out of the way of those that the program gets */

extern char **environ;

/* Is it "NAME=..." of the same NAME as `setting`, or something that was meant for us alone? */
static bool is_replaced(const char *variable, const char *setting)
{
    size_t n = strcspn(setting, "=") + 1;
    return strncmp(variable, setting, n) == 0 || strncmp(variable, "LISTEN_", 7) == 0;
}

/* The strings stay the environment's; the array is to be freed. */
static char **environment_with(const char *setting)
{
    size_t n = 0, kept = 0;
    while (environ[n])
        n++;
    char **out = mem_try_alloc((n + 2) * sizeof(char *));
    if (!out)
        return NULL;
    for (size_t i = 0; i < n; i++)
        if (!is_replaced(environ[i], setting))
            out[kept++] = environ[i];
    out[kept] = (char *)setting; /* posix_spawn() writes to none of them; its type is older than const */
    return out;
}

static void close_all(const int *fds, int n)
{
    for (int i = 0; i < n; i++)
        close(fds[i]);
}

static int prepare(posix_spawn_file_actions_t *actions, posix_spawnattr_t *attr, const int *copies, int n)
{
    sigset_t none, defaults;
    sigemptyset(&none);
    sigemptyset(&defaults);
    sigaddset(&defaults, SIGPIPE);
    int rc = posix_spawnattr_setsigmask(attr, &none);
    if (rc == 0)
        rc = posix_spawnattr_setsigdefault(attr, &defaults);
    if (rc == 0)
        rc = posix_spawnattr_setflags(attr, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    for (int i = 0; i < n && rc == 0; i++)
        rc = posix_spawn_file_actions_adddup2(actions, copies[i], FIRST_FD + i);
    return rc;
}

static pid_t spawn(const char *path, char *const argv[], char *const env[], const int *copies, int n)
{
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attr;
    pid_t pid;
    int rc = posix_spawn_file_actions_init(&actions);
    if (rc != 0)
        return -rc;
    rc = posix_spawnattr_init(&attr);
    if (rc == 0) {
        rc = prepare(&actions, &attr, copies, n);
        if (rc == 0)
            rc = posix_spawn(&pid, path, &actions, &attr, argv, env);
        posix_spawnattr_destroy(&attr);
    }
    posix_spawn_file_actions_destroy(&actions);
    return rc == 0 ? pid : -rc;
}

pid_t process_start(const char *path, char *const argv[], const int *fds, int n, const char *setting)
{
    int copies[PROCESS_FDS_MAX];
    for (int i = 0; i < n; i++) {
        copies[i] = fcntl(fds[i], F_DUPFD_CLOEXEC, OUT_OF_IT);
        if (copies[i] >= 0)
            continue;
        int error = errno;
        close_all(copies, i);
        return -error;
    }
    char **env = environment_with(setting);
    pid_t pid = env ? spawn(path, argv, env, copies, n) : -ENOMEM;
    mem_free(env);
    close_all(copies, n);
    return pid;
}

void process_kill(pid_t pid)
{
    kill(pid, SIGKILL);
}

bool process_has_ended(pid_t pid, int *status)
{
    int raw = 0;
    pid_t ended = waitpid(pid, &raw, WNOHANG);
    if (ended != pid)
        return ended < 0 && errno == ECHILD;
    *status = WIFEXITED(raw) ? WEXITSTATUS(raw) : 128 + WTERMSIG(raw);
    return true;
}

_Noreturn void process_exit(int status)
{
    _exit(status);
}

pid_t process_self(void)
{
    return getpid();
}

bool process_is_first(void)
{
    return getpid() == 1;
}

/* As fexecve(3) names it: not to be opened later, or for ever the same file. */
static bool names_a_descriptor(const char *path)
{
    return strncmp(path, "/dev/fd/", strlen("/dev/fd/")) == 0;
}

bool process_path(char *out, size_t size)
{
    const char *given = (const char *)getauxval(AT_EXECFN);
    if (given && !names_a_descriptor(given))
        return snprintf(out, size, "%s", given) < (int)size;
    ssize_t n = readlink("/proc/self/exe", out, size - 1);
    if (n <= 0 || (size_t)n == size - 1)
        return false;
    out[n] = '\0';
    return true;
}
