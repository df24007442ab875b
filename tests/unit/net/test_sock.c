/* Sockets against the real kernel: what listeners and connections are made with, and what is said when they fail. */
#undef _FORTIFY_SOURCE /* its inline functions cannot be replaced */
#include "net/sock.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#define WAIT_MS 5000

/* The kernel, made to misbehave. */
static struct {
    bool interrupts; /* the next call is interrupted */
    bool no_ipv6;
    int fail_chmod; /* fchmodat() fails with it */
} kernel;

static bool interrupted(void)
{
    bool yes = kernel.interrupts;
    kernel.interrupts = false;
    errno = EINTR;
    return yes;
}

int socket(int family, int type, int protocol)
{
    if (family == AF_INET6 && kernel.no_ipv6) {
        errno = EAFNOSUPPORT;
        return -1;
    }
    return (int)syscall(SYS_socket, family, type, protocol);
}

int accept4(int fd, __SOCKADDR_ARG from, socklen_t *len, int flags)
{
    return interrupted() ? -1 : (int)syscall(SYS_accept4, fd, from.__sockaddr__, len, flags);
}

ssize_t recv(int fd, void *p, size_t n, int flags)
{
    return interrupted() ? -1 : syscall(SYS_recvfrom, fd, p, n, flags, NULL, NULL);
}

ssize_t sendmsg(int fd, const struct msghdr *m, int flags)
{
    return interrupted() ? -1 : syscall(SYS_sendmsg, fd, m, flags);
}

ssize_t send(int fd, const void *p, size_t n, int flags)
{
    return interrupted() ? -1 : syscall(SYS_sendto, fd, p, n, flags, NULL, 0);
}

int fchmodat(int at, const char *path, mode_t mode, int flags)
{
    if (kernel.fail_chmod || flags != AT_SYMLINK_NOFOLLOW) {
        errno = kernel.fail_chmod ? kernel.fail_chmod : EINVAL;
        return -1;
    }
    return (int)syscall(SYS_fchmodat, at, path, mode);
}

static char folder[] = "/tmp/test_sock.XXXXXX";

static struct addr addr_of(const char *text)
{
    struct endpoint e;
    const char *why;
    if (!endpoint_parse(str_of(text), true, &e, &why))
        fail_msg("%s %s", text, why);
    return e.addr;
}

static struct addr unix_addr(const char *name)
{
    char text[128];
    snprintf(text, sizeof text, "unix:%s/%s", folder, name);
    return addr_of(text);
}

static int listen_on(const struct addr *at, struct addr *bound)
{
    int fd = sock_listen(at, 16);
    assert_true(fd >= 0);
    assert_int_equal(sock_local_addr(fd, bound), 0);
    return fd;
}

static void wait_for(int fd, short events)
{
    struct pollfd p = {.fd = fd, .events = events};
    assert_int_equal(poll(&p, 1, WAIT_MS), 1);
}

static int connect_to(const struct addr *to)
{
    bool in_progress = false;
    int fd = sock_connect(to, &in_progress);
    assert_true(fd >= 0);
    if (in_progress)
        wait_for(fd, POLLOUT);
    assert_int_equal(sock_connect_result(fd), 0);
    return fd;
}

static int accept_from(int listener, struct addr *from)
{
    wait_for(listener, POLLIN);
    int fd = sock_accept(listener, from);
    assert_true(fd >= 0);
    return fd;
}

/* A connected pair over TCP. */
static void tcp_pair(int pair[2])
{
    struct addr at = addr_of("127.0.0.1:0"), bound, from;
    int listener = listen_on(&at, &bound);
    pair[0] = connect_to(&bound);
    pair[1] = accept_from(listener, &from);
    sock_close(listener);
}

static int option(int fd, int level, int name)
{
    int value = 0;
    socklen_t len = sizeof value;
    assert_int_equal(getsockopt(fd, level, name, &value, &len), 0);
    return value;
}

static void assert_flags(int fd)
{
    assert_true(fcntl(fd, F_GETFL) & O_NONBLOCK);
    assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
}

static void test_tcp(void **state)
{
    (void)state;
    struct addr at = addr_of("127.0.0.1:0"), bound, from, local;
    int listener = listen_on(&at, &bound);
    assert_int_not_equal(peer_from_addr(&bound).port, 0);
    assert_int_equal(sock_accept(listener, &from), -EAGAIN);

    int client = connect_to(&bound), server = accept_from(listener, &from);
    assert_flags(listener);
    assert_flags(client);
    assert_flags(server);
    assert_true(option(client, IPPROTO_TCP, TCP_NODELAY));
    assert_true(option(server, IPPROTO_TCP, TCP_NODELAY)); /* inherited */
    assert_in_range(option(client, IPPROTO_TCP, TCP_NOTSENT_LOWAT), 1, 1 << 20);
    assert_in_range(option(server, IPPROTO_TCP, TCP_NOTSENT_LOWAT), 1, 1 << 20);
    assert_int_equal(sock_local_addr(client, &local), 0);
    assert_int_equal(peer_from_addr(&from).port, peer_from_addr(&local).port);
    sock_close(client);
    sock_close(server);
    sock_close(listener);
}

static void test_dual_stack(void **state)
{
    (void)state;
    struct addr at = addr_of(":0"), bound, from;
    int listener = listen_on(&at, &bound);
    uint16_t port = peer_from_addr(&bound).port;
    static const char *const hosts[] = {"127.0.0.1", "::1"};
    for (size_t i = 0; i < 2; i++) {
        struct ip ip;
        assert_true(ip_parse(str_of(hosts[i]), &ip));
        if (bound.sa.sa_family != AF_INET6 && !ip_is_v4(&ip))
            continue; /* a host without IPv6 */
        struct addr to = addr_of_ip(&ip, port);
        int client = connect_to(&to), server = accept_from(listener, &from);
        struct peer peer = peer_from_addr(&from);
        assert_true(ip_eq(&peer.ip, &ip));
        sock_close(client);
        sock_close(server);
    }
    sock_close(listener);
}

static void test_no_ipv6(void **state)
{
    (void)state;
    struct addr any = addr_of(":0"), one = addr_of("[::1]:0"), bound;
    kernel.no_ipv6 = true;
    int listener = listen_on(&any, &bound);
    assert_int_equal(bound.sa.sa_family, AF_INET);
    assert_int_equal(sock_listen(&one, 16), -EAFNOSUPPORT); /* that one was asked for by name */
    bool in_progress;
    assert_int_equal(sock_connect(&one, &in_progress), -EAFNOSUPPORT);
    kernel.no_ipv6 = false;
    sock_close(listener);
}

static void test_interrupted(void **state)
{
    (void)state;
    struct addr at = addr_of("127.0.0.1:0"), bound, from;
    int listener = listen_on(&at, &bound), client = connect_to(&bound);
    char got[4];
    struct iovec iov = {"x", 1};
    wait_for(listener, POLLIN);
    kernel.interrupts = true;
    int server = sock_accept(listener, &from);
    assert_true(server >= 0);
    kernel.interrupts = true;
    assert_int_equal(sock_send(client, &iov, 1, false), 1);
    struct iovec pieces[] = {{"y", 1}, {"z", 1}};
    kernel.interrupts = true;
    assert_int_equal(sock_send(client, pieces, 2, false), 2);
    wait_for(server, POLLIN);
    kernel.interrupts = true;
    assert_false(sock_is_quiet(server));
    kernel.interrupts = true;
    assert_int_equal(sock_recv(server, got, sizeof got), 3);
    kernel.interrupts = true;
    assert_true(sock_is_quiet(server));
    sock_close(client);
    sock_close(server);
    sock_close(listener);
}

static void test_in_use(void **state)
{
    (void)state;
    struct addr at = addr_of("127.0.0.1:0"), bound;
    int listener = listen_on(&at, &bound);
    assert_int_equal(sock_listen(&bound, 16), -EADDRINUSE);
    sock_close(listener);
    struct addr far = addr_of("192.0.2.1:1"); /* TEST-NET-1: no address of ours */
    assert_int_equal(sock_listen(&far, 16), -EADDRNOTAVAIL);
}

/* Where the port is and where it is wanted: hosts that Linux does not let listen beside each other. */
static const char *const overlaps[][2] = {
    {"127.0.0.1", ""},        {"", "127.0.0.1"}, {"0.0.0.0", ""}, {"", "0.0.0.0"}, {"0.0.0.0", "127.0.0.1"},
    {"127.0.0.1", "0.0.0.0"}, {"[::]", ""},      {"[::1]", ""},   {"", "[::1]"},
};

static struct addr at_port(const char *host, unsigned port)
{
    char text[64];
    snprintf(text, sizeof text, "%s:%u", host, port);
    return addr_of(text);
}

static void check_beside(const char *host, const char *wanted)
{
    struct addr at = at_port(host, 0), bound, from;
    int before = listen_on(&at, &bound);
    at = at_port(wanted, peer_from_addr(&bound).port);
    assert_int_equal(sock_listen(&at, 16), -EADDRINUSE);
    int fd = sock_listen_beside(&at, 16, before);
    assert_true(fd >= 0);
    assert_false(option(before, SOL_SOCKET, SO_REUSEPORT) || option(fd, SOL_SOCKET, SO_REUSEPORT));
    assert_int_equal(sock_listen(&at, 16), -EADDRINUSE); /* a third finds it taken */
    sock_close(before);
    assert_int_equal(sock_listen(&at, 16), -EADDRINUSE);
    struct addr to = at_port(strcmp(wanted, "[::1]") == 0 ? wanted : "127.0.0.1", peer_from_addr(&at).port);
    int client = connect_to(&to);
    sock_close(accept_from(fd, &from));
    sock_close(client);
    sock_close(fd);
}

static void test_beside(void **state)
{
    (void)state;
    struct addr at = addr_of("127.0.0.1:0"), bound, second;
    for (size_t i = 0; i < sizeof overlaps / sizeof *overlaps; i++)
        check_beside(overlaps[i][0], overlaps[i][1]);

    /* That of another port opens nothing, nor does a unix socket: who has the port does not let anybody in. */
    int holder = listen_on(&at, &bound), other = listen_on(&at, &second);
    assert_int_equal(sock_listen_beside(&bound, 16, other), -EADDRINUSE);
    assert_false(option(other, SOL_SOCKET, SO_REUSEPORT));
    struct addr local = unix_addr("beside");
    int unix_listener = listen_on(&local, &second);
    assert_int_equal(sock_listen_beside(&bound, 16, unix_listener), -EADDRINUSE);
    assert_int_equal(sock_listen_beside(&local, 16, unix_listener), -EADDRINUSE);
    sock_close(unix_listener);
    sock_unlink(&local);
    sock_close(other);

    /* Two processes that have one host each: neither gets the port for all hosts. */
    struct addr neighbour = at_port("127.0.0.2", peer_from_addr(&bound).port);
    struct addr any = at_port("", peer_from_addr(&bound).port);
    int fd = listen_on(&neighbour, &second);
    assert_int_equal(sock_listen_beside(&any, 16, fd), -EADDRINUSE);
    assert_false(option(fd, SOL_SOCKET, SO_REUSEPORT));
    assert_int_equal(sock_listen_beside(&bound, 16, fd), -EADDRINUSE);
    sock_close(fd);
    sock_close(holder);
}

static void test_refused(void **state)
{
    (void)state;
    struct addr at = addr_of("127.0.0.1:0"), bound;
    sock_close(listen_on(&at, &bound));
    bool in_progress = false;
    int fd = sock_connect(&bound, &in_progress);
    if (fd >= 0) {
        wait_for(fd, POLLOUT);
        assert_int_equal(sock_connect_result(fd), -ECONNREFUSED);
        sock_close(fd);
    } else {
        assert_int_equal(fd, -ECONNREFUSED);
    }
    struct addr nobody = unix_addr("nobody");
    assert_int_equal(sock_connect(&nobody, &in_progress), -ENOENT);
}

static void test_unix(void **state)
{
    (void)state;
    struct addr at = unix_addr("live"), bound, from;
    mode_t before = umask(0027);
    int listener = listen_on(&at, &bound);
    umask(before);
    struct stat st;
    assert_int_equal(stat(at.un.sun_path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0666); /* whatever the umask is: who may reach it may connect */
    assert_string_equal(bound.un.sun_path, at.un.sun_path);

    int client = connect_to(&at), server = accept_from(listener, &from);
    assert_true(peer_from_addr(&from).is_unix);
    assert_flags(client);
    assert_flags(server);
    sock_close(client);
    sock_close(server);

    assert_int_equal(sock_listen(&at, 16), -EADDRINUSE); /* somebody accepts there */
    assert_int_equal(access(at.un.sun_path, F_OK), 0);
    sock_close(listener);

    listener = listen_on(&at, &bound); /* the file is stale now */
    client = connect_to(&at);
    sock_close(client);
    sock_unlink(&bound);
    assert_int_equal(access(at.un.sun_path, F_OK), -1);
    sock_close(listener);
}

/* A mode that cannot be had is an error, and leaves no file; where there is no /proc to set it by, it stays as it is.
 */
static void test_unix_mode(void **state)
{
    (void)state;
    struct addr at = unix_addr("mode"), bound;
    struct stat st;
    kernel.fail_chmod = EPERM;
    assert_int_equal(sock_listen(&at, 16), -EPERM);
    assert_int_equal(access(at.un.sun_path, F_OK), -1);
    kernel.fail_chmod = EOPNOTSUPP;
    mode_t before = umask(0022);
    int listener = listen_on(&at, &bound);
    umask(before);
    kernel.fail_chmod = 0;
    assert_int_equal(stat(at.un.sun_path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0755);
    assert_int_equal(chmod(at.un.sun_path, 0600), 0);
    assert_true(sock_adopt_listener(listener)); /* what was handed over is somebody else's to set */
    assert_int_equal(stat(at.un.sun_path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    sock_unlink(&at);
    sock_close(listener);
}

static void test_unix_spares_files(void **state)
{
    (void)state;
    struct addr at = unix_addr("file");
    int fd = open(at.un.sun_path, O_CREAT | O_WRONLY, 0600);
    assert_true(fd >= 0);
    close(fd);
    assert_int_equal(sock_listen(&at, 16), -EADDRINUSE);
    assert_int_equal(access(at.un.sun_path, F_OK), 0);
    unlink(at.un.sun_path);

    struct addr nowhere = unix_addr("no/such");
    assert_int_equal(sock_listen(&nowhere, 16), -ENOENT);
    struct addr tcp = addr_of("127.0.0.1:1");
    sock_unlink(&tcp);
}

static void test_send_and_receive(void **state)
{
    (void)state;
    int pair[2];
    char got[16];
    tcp_pair(pair);
    struct iovec iov[] = {{"he", 2}, {"", 0}, {"llo", 3}};
    assert_int_equal(sock_recv(pair[1], got, sizeof got), -EAGAIN);
    assert_true(sock_is_quiet(pair[1]));
    assert_false(sock_has_unacked(pair[0]));
    assert_int_equal(sock_send(pair[0], iov, 3, false), 5);
    wait_for(pair[1], POLLIN);
    assert_false(sock_is_quiet(pair[1]));
    assert_int_equal(sock_recv(pair[1], got, sizeof got), 5);
    assert_memory_equal(got, "hello", 5);
    assert_true(sock_is_quiet(pair[1]));

    assert_int_equal(sock_shutdown_write(pair[0]), 0);
    wait_for(pair[1], POLLIN);
    assert_false(sock_is_quiet(pair[1]));
    assert_int_equal(sock_recv(pair[1], got, sizeof got), 0);
    assert_int_equal(sock_send(pair[0], iov, 1, false), -EPIPE); /* an error, not a signal */
    sock_close(pair[0]);
    sock_close(pair[1]);
}

static void test_full(void **state)
{
    (void)state;
    int pair[2];
    static char block[65536];
    tcp_pair(pair);
    struct iovec iov = {block, sizeof block};
    ssize_t n;
    while ((n = sock_send(pair[0], &iov, 1, false)) > 0)
        ;
    assert_int_equal(n, -EAGAIN);
    assert_true(sock_has_unacked(pair[0])); /* there is more than the other side has room for */
    sock_close(pair[0]);
    sock_close(pair[1]);
}

static void test_reset(void **state)
{
    (void)state;
    int pair[2];
    char got[4];
    tcp_pair(pair);
    sock_reset(pair[0]);
    wait_for(pair[1], POLLIN);
    assert_int_equal(sock_recv(pair[1], got, sizeof got), -ECONNRESET);
    sock_close(pair[1]);

    tcp_pair(pair);
    sock_reset(pair[0]);
    wait_for(pair[1], POLLIN);
    assert_false(sock_is_quiet(pair[1]));
    sock_close(pair[1]);
}

static void test_bad_descriptor(void **state)
{
    (void)state;
    struct addr a;
    char byte = 0;
    struct iovec iov = {&byte, 1};
    assert_false(sock_has_unacked(-1));
    assert_int_equal(sock_accept(-1, &a), -EBADF);
    assert_int_equal(sock_recv(-1, &byte, 1), -EBADF);
    assert_int_equal(sock_send(-1, &iov, 1, false), -EBADF);
    assert_int_equal(sock_connect_result(-1), -EBADF);
    assert_int_equal(sock_local_addr(-1, &a), -EBADF);
    assert_int_equal(sock_shutdown_write(-1), -EBADF);
    assert_false(sock_is_quiet(-1));
}

static void test_fd_limit(void **state)
{
    (void)state;
    struct rlimit old, now;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
    struct rlimit low = {.rlim_cur = 64, .rlim_max = old.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
    assert_int_equal(sock_raise_fd_limit(32), 64); /* never lowered */
    assert_int_equal(sock_raise_fd_limit(100), 100);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &now), 0);
    assert_int_equal(now.rlim_cur, 100);
    assert_int_equal(now.rlim_max, old.rlim_max);
    assert_int_equal(sock_raise_fd_limit(UINT64_MAX - 1), old.rlim_max);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
}

static void test_resolve(void **state)
{
    (void)state;
    struct addr a[4];
    const char *why = NULL;
    char text[ADDR_TEXT_SIZE];
    int n = sock_resolve("localhost", 8080, a, 4, &why);
    assert_true(n >= 1);
    for (int i = 0; i < n; i++) {
        struct peer p = peer_from_addr(&a[i]);
        assert_int_equal(p.port, 8080);
        assert_false(p.is_unix);
    }
    assert_int_equal(sock_resolve("127.0.0.1", 65535, a, 1, &why), 1);
    addr_format(&a[0], text);
    assert_string_equal(text, "127.0.0.1:65535");
    assert_int_equal(sock_resolve("no..such..name", 80, a, 4, &why), -1);
    assert_non_null(why);
    assert_true(strlen(why) > 0);
}

static int make_folder(void **state)
{
    (void)state;
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
    (void)state;
    return rmdir(folder);
}

/* A descriptor goes over to the other end with its message, and is another one for the same thing. */
static void test_descriptors_go_over(void **state)
{
    (void)state;
    int ends[2], pipes[2], fd = 0;
    char got[16];
    assert_int_equal(sock_pair(ends), 0);
    assert_int_equal(pipe(pipes), 0);
    assert_int_equal(sock_recv_fd(ends[1], got, sizeof got, &fd), -EAGAIN);
    assert_int_equal(fd, -1);
    assert_int_equal(sock_send_fd(ends[0], pipes[1], "one", 3), 0);
    assert_int_equal(sock_send_fd(ends[0], -1, "two", 3), 0);
    assert_int_equal(sock_recv_fd(ends[1], got, sizeof got, &fd), 3); /* messages stay apart */
    assert_memory_equal(got, "one", 3);
    assert_true(fd >= 0 && fd != pipes[1] && fcntl(fd, F_GETFD) == FD_CLOEXEC);
    assert_int_equal(write(fd, "x", 1), 1);
    assert_int_equal(read(pipes[0], got, 1), 1);
    sock_close(fd);
    assert_int_equal(sock_recv_fd(ends[1], got, sizeof got, &fd), 3);
    assert_int_equal(fd, -1);
    sock_close(ends[0]);
    assert_int_equal(sock_recv_fd(ends[1], got, sizeof got, &fd), 0);
    assert_int_equal(sock_send_fd(ends[1], -1, "x", 1), -EPIPE);
    sock_close(ends[1]);
    close(pipes[0]);
    close(pipes[1]);
}

static void test_adopting(void **state)
{
    (void)state;
    struct sockaddr_in in = {.sin_family = AF_INET};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_false(sock_adopt_listener(fd)); /* it does not listen */
    assert_int_equal(bind(fd, (struct sockaddr *)&in, sizeof in), 0);
    assert_int_equal(listen(fd, 1), 0);
    assert_true(sock_adopt_listener(fd));
    assert_int_equal(fcntl(fd, F_GETFD), FD_CLOEXEC);
    assert_true(fcntl(fd, F_GETFL) & O_NONBLOCK);
    sock_close(fd);
    assert_false(sock_adopt_listener(fd));
}

static void test_telling(void **state)
{
    (void)state;
    struct sockaddr_un un = {.sun_family = AF_UNIX, .sun_path = "\0lb-test-telling"};
    int fd = socket(AF_UNIX, SOCK_DGRAM, 0);
    char got[16];
    socklen_t len = (socklen_t)(sizeof(sa_family_t) + strlen("@lb-test-telling"));
    assert_int_equal(sock_tell("@lb-test-telling", STR("x")), -ECONNREFUSED);
    assert_int_equal(bind(fd, (struct sockaddr *)&un, len), 0);
    assert_int_equal(sock_tell("@lb-test-telling", STR("READY=1")), 0);
    assert_int_equal(recv(fd, got, sizeof got, 0), 7);
    assert_int_equal(sock_tell("/no/such/socket", STR("x")), -ENOENT);
    assert_int_equal(sock_tell("", STR("x")), -EINVAL);
    close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tcp),
        cmocka_unit_test(test_dual_stack),
        cmocka_unit_test(test_no_ipv6),
        cmocka_unit_test(test_interrupted),
        cmocka_unit_test(test_in_use),
        cmocka_unit_test(test_beside),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_unix),
        cmocka_unit_test(test_unix_mode),
        cmocka_unit_test(test_unix_spares_files),
        cmocka_unit_test(test_send_and_receive),
        cmocka_unit_test(test_full),
        cmocka_unit_test(test_reset),
        cmocka_unit_test(test_bad_descriptor),
        cmocka_unit_test(test_fd_limit),
        cmocka_unit_test(test_resolve),
        cmocka_unit_test(test_descriptors_go_over),
        cmocka_unit_test(test_adopting),
        cmocka_unit_test(test_telling),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
