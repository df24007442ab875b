/* What only an upgrade to another binary and a service manager ask for: the simulation has neither, so these calls are
 * there for the linker, and fail. */
#include "calls.h"

#include <errno.h>

char *sim_no_environment[] = {NULL};
char **sim_environ = sim_no_environment;

static int refused(void)
{
    errno = ENOSYS;
    return -1;
}

unsigned long sim_getauxval(unsigned long type)
{
    (void)type;
    return 0;
}

int sim_posix_spawn(pid_t *pid, const char *path, const posix_spawn_file_actions_t *actions,
                    const posix_spawnattr_t *attr, char *const argv[], char *const env[])
{
    (void)pid, (void)path, (void)actions, (void)attr, (void)argv, (void)env;
    return ENOSYS;
}

int sim_posix_spawn_file_actions_init(posix_spawn_file_actions_t *actions)
{
    (void)actions;
    return 0;
}

int sim_posix_spawn_file_actions_destroy(posix_spawn_file_actions_t *actions)
{
    (void)actions;
    return 0;
}

int sim_posix_spawn_file_actions_adddup2(posix_spawn_file_actions_t *actions, int fd, int as)
{
    (void)actions, (void)fd, (void)as;
    return 0;
}

int sim_posix_spawnattr_init(posix_spawnattr_t *attr)
{
    (void)attr;
    return 0;
}

int sim_posix_spawnattr_destroy(posix_spawnattr_t *attr)
{
    (void)attr;
    return 0;
}

int sim_posix_spawnattr_setflags(posix_spawnattr_t *attr, short flags)
{
    (void)attr, (void)flags;
    return 0;
}

int sim_posix_spawnattr_setsigmask(posix_spawnattr_t *attr, const sigset_t *set)
{
    (void)attr, (void)set;
    return 0;
}

int sim_posix_spawnattr_setsigdefault(posix_spawnattr_t *attr, const sigset_t *set)
{
    (void)attr, (void)set;
    return 0;
}

int sim_kill(pid_t pid, int signo)
{
    (void)pid, (void)signo;
    return refused();
}

pid_t sim_waitpid(pid_t pid, int *status, int options)
{
    (void)pid, (void)status, (void)options;
    return refused();
}

int sim_socketpair(int family, int type, int protocol, int ends[2])
{
    (void)family, (void)type, (void)protocol, (void)ends;
    return refused();
}

ssize_t sim_recvmsg(int fd, struct msghdr *m, int flags)
{
    (void)fd, (void)m, (void)flags;
    return refused();
}

int sim_getpeername(int fd, struct sockaddr *addr, socklen_t *len)
{
    (void)fd, (void)addr, (void)len;
    return refused();
}
