/* The simulated kernel's sockets against the real one's: each script is run on both, and what the calls said must be
 * the same. A script is a list of words. The peer's begin with p: a socket of its own, or an actor.
 *
 *   pconnect psend pfin pclose preset    the peer: connects, sends "abc", sends FIN, closes, closes with SO_LINGER 0
 *   listen accept full-accept unlink     the subject: accept() as it is, and with no descriptor left
 *   connect                              to the peer's listener
 *   refused missing                      to where nobody listens; to a path that is not there
 *   send send0 recv shut reset error     "x", nothing; SHUT_WR; SO_LINGER 0; SO_ERROR
 *   epoll                                what epoll says of it
 *
 * The simulation goes first: the real kernel is then given time to come to what epoll said there, so that nothing hangs
 * on how fast it is. For that, an `epoll` follows whatever the peer does. */
#include "calls.h"
#include "disk.h"
#include "kernel.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

struct script {
    bool local; /* over a unix socket */
    const char *words;
};

/* Is the peer the one who connects? Then the script begins with `listen`. */
#define IN "listen pconnect accept "
static const struct script scripts[] = {
    {false, IN "epoll recv send0"},
    {false, IN "psend pfin epoll recv epoll recv send epoll shut epoll recv send epoll"},
    {false, IN "psend pclose epoll recv epoll recv send"},
    {false, IN "psend preset epoll recv epoll recv epoll recv send epoll"},
    {false, IN "psend preset epoll send epoll recv epoll recv send"},
    {false, IN "preset epoll error epoll recv send error"},
    {false, IN "preset epoll shut recv shut epoll"},
    {false, IN "send psend pclose epoll recv epoll recv epoll recv send epoll"},
    {false, IN "send psend pfin epoll pclose epoll recv epoll recv error send epoll"},
    {false, IN "shut epoll send recv pfin epoll recv send shut epoll"},
    {false, IN "shut pclose epoll send recv error"},
    {false, IN "send shut pclose epoll send recv error"},
    {false, IN "shut psend preset epoll recv epoll recv epoll send"},
    {false, "listen pconnect psend preset accept epoll recv epoll recv epoll recv send"},
    {false, "listen accept full-accept pconnect full-accept accept epoll"},
    {false, "connect epoll error send epoll pclose epoll recv"},
    {false, "connect epoll error pfin epoll recv shut epoll"},
    {false, "refused epoll error epoll recv send shut error epoll"},
    {false, "refused epoll recv recv send error epoll"},
    {false, "refused epoll send recv send error epoll"},
    {true, IN "epoll recv send0"},
    {true, IN "psend pfin epoll recv epoll recv send epoll shut epoll recv send epoll"},
    {true, IN "psend pclose epoll recv epoll recv send epoll error shut epoll"},
    {true, IN "psend pclose epoll send epoll recv recv send"},
    {true, IN "psend preset epoll recv epoll recv epoll recv send epoll"},
    {true, IN "send psend pclose epoll recv epoll recv epoll recv send epoll"},
    {true, IN "send psend pclose epoll send epoll recv epoll recv send epoll"},
    {true, IN "send psend pfin epoll pclose epoll recv epoll recv epoll recv error send epoll"},
    {true, IN "shut epoll send recv pfin epoll recv send shut epoll"},
    {true, IN "shut pclose epoll send recv shut error"},
    {true, IN "send shut pclose epoll send recv error"},
    {true, "listen pconnect psend pclose accept epoll recv recv send"},
    {true, "listen unlink pconnect"},
    {true, "listen accept full-accept pconnect full-accept accept epoll"},
    {true, "connect epoll error send pclose epoll recv epoll recv send"},
    {true, "connect epoll psend pclose epoll recv recv send"},
    {true, "missing"},
};

/* ---- two kernels ---- */

struct calls {
    int (*socket)(int, int, int);
    int (*bind)(int, const struct sockaddr *, socklen_t);
    int (*listen)(int, int);
    int (*accept)(int, struct sockaddr *, socklen_t *, int);
    int (*connect)(int, const struct sockaddr *, socklen_t);
    ssize_t (*recv)(int, void *, size_t, int);
    ssize_t (*send)(int, const void *, size_t, int);
    int (*shutdown)(int, int);
    int (*getsockopt)(int, int, int, void *, socklen_t *);
    int (*epoll_create)(int);
    int (*epoll_ctl)(int, int, int, struct epoll_event *);
    int (*epoll_wait)(int, struct epoll_event *, int, int);
    int (*unlink)(const char *);
    int (*close)(int);
    int (*limit)(int highest); /* descriptors up to that number may be open; the number before */
    bool (*peer)(const char *word);
    void (*settle)(void);
};

static struct run {
    const struct calls *k;
    bool local;
    int listener, fd, peer, peer_listener; /* -1: not there; the peer's are of the real kernel only */
    struct sockaddr_storage at, peer_at;
    socklen_t at_size, peer_at_size;
    struct end *end; /* the simulated peer */
    char *said;      /* what the calls have said */
    const char *expected;
} run;

static char folder[] = "/tmp/lb-sockets-XXXXXX";

static void say(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static void say(const char *fmt, ...)
{
    size_t n = strlen(run.said);
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(run.said + n, 4096 - n, fmt, ap);
    va_end(ap);
}

static void say_result(const char *word, ssize_t r)
{
    if (r < 0)
        say(" %s=%s", word, strerrorname_np(errno));
    else
        say(" %s=%zd", word, r);
}

static struct sockaddr_un unix_address(const char *name)
{
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    snprintf(un.sun_path, sizeof un.sun_path, "%.40s/%s", folder, name);
    return un;
}

static socklen_t address(struct sockaddr_storage *ss, bool local, const char *name, uint16_t port)
{
    struct sockaddr_un un = unix_address(name);
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(0x7f000001)};
    memset(ss, 0, sizeof *ss);
    if (local)
        memcpy(ss, &un, sizeof un);
    else
        memcpy(ss, &in, sizeof in);
    return local ? sizeof un : sizeof in;
}

/* ---- the peer on the real kernel ---- */

static int real_stream(void)
{
    int fd = socket(run.local ? AF_UNIX : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    return fd;
}

static bool real_connect(void)
{
    run.peer = real_stream();
    return connect(run.peer, (struct sockaddr *)&run.at, run.at_size) == 0;
}

static bool real_peer(const char *word)
{
    struct linger at_once = {.l_onoff = 1, .l_linger = 0};
    if (strcmp(word, "pconnect") == 0)
        return real_connect();
    if (run.peer < 0)
        run.peer = accept(run.peer_listener, NULL, NULL);
    if (strcmp(word, "psend") == 0)
        return send(run.peer, "abc", 3, MSG_NOSIGNAL) == 3;
    if (strcmp(word, "pfin") == 0)
        return shutdown(run.peer, SHUT_WR) == 0;
    if (strcmp(word, "preset") == 0)
        setsockopt(run.peer, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    int fd = run.peer;
    run.peer = -1;
    return close(fd) == 0;
}

static void real_settle(void)
{
}

static int real_limit(int highest)
{
    struct rlimit l;
    getrlimit(RLIMIT_NOFILE, &l);
    int before = (int)l.rlim_cur;
    l.rlim_cur = (rlim_t)highest;
    setrlimit(RLIMIT_NOFILE, &l);
    return before;
}

static int real_accept(int fd, struct sockaddr *a, socklen_t *n, int flags)
{
    return accept4(fd, a, n, flags);
}

static const struct calls real = {.socket = socket,
                                  .bind = bind,
                                  .listen = listen,
                                  .accept = real_accept,
                                  .connect = connect,
                                  .recv = recv,
                                  .send = send,
                                  .shutdown = shutdown,
                                  .getsockopt = getsockopt,
                                  .epoll_create = epoll_create1,
                                  .epoll_ctl = epoll_ctl,
                                  .epoll_wait = epoll_wait,
                                  .unlink = unlink,
                                  .close = close,
                                  .limit = real_limit,
                                  .peer = real_peer,
                                  .settle = real_settle};

/* ---- the peer in the simulation: an actor that leaves everything unread ---- */

static bool sim_connected;

static void on_peer(void *owner, struct end *e, enum end_event event)
{
    (void)owner;
    (void)e;
    sim_connected |= event == END_CONNECTED;
    if (event == END_RESET || event == END_REFUSED)
        run.end = NULL;
}

static void on_accept(void *owner, struct end *e)
{
    run.end = e;
    end_own(e, on_peer, owner);
}

static struct sim_addr sim_address(const struct sockaddr_storage *ss)
{
    struct sockaddr_un un;
    memcpy(&un, ss, sizeof un);
    return run.local ? sim_addr_unix(un.sun_path) : sim_addr_v4(0x7f000001, 8080);
}

static void sim_settle(void)
{
    thread_sleep(5 * MS);
}

static bool sim_peer(const char *word)
{
    struct sim_addr from = run.local ? sim_addr_unix("") : sim_addr_v4(0x7f000001, 2000), to = sim_address(&run.at);
    struct end *e = run.end;
    if (strcmp(word, "pconnect") == 0) {
        sim_connected = false;
        run.end = end_connect(&to, &from, rng_of("test", 0), on_peer, NULL);
        sim_settle();
        return sim_connected;
    }
    assert_non_null(e);
    if (strcmp(word, "psend") == 0)
        return end_write(e, "abc", 3) == 3;
    if (strcmp(word, "pfin") == 0) {
        end_finish(e);
        return true;
    }
    run.end = NULL;
    if (strcmp(word, "preset") == 0)
        end_reset(e);
    else
        end_close(e);
    return true;
}

static int sim_limit(int highest)
{
    struct rlimit l;
    sim_getrlimit(RLIMIT_NOFILE, &l);
    int before = (int)l.rlim_cur;
    l.rlim_cur = (rlim_t)highest;
    sim_setrlimit(RLIMIT_NOFILE, &l);
    return before;
}

static const struct calls simulated = {.socket = sim_socket,
                                       .bind = sim_bind,
                                       .listen = sim_listen,
                                       .accept = sim_accept4,
                                       .connect = sim_connect,
                                       .recv = sim_recv,
                                       .send = sim_send,
                                       .shutdown = sim_shutdown,
                                       .getsockopt = sim_getsockopt,
                                       .epoll_create = sim_epoll_create1,
                                       .epoll_ctl = sim_epoll_ctl,
                                       .epoll_wait = sim_epoll_wait,
                                       .unlink = sim_unlink,
                                       .close = sim_close,
                                       .limit = sim_limit,
                                       .peer = sim_peer,
                                       .settle = sim_settle};

/* ---- the subject ---- */

#define FLAGS (SOCK_NONBLOCK | SOCK_CLOEXEC)

static int new_socket(void)
{
    int fd = run.k->socket(run.local ? AF_UNIX : AF_INET, SOCK_STREAM | FLAGS, 0);
    assert_true(fd >= 0);
    return fd;
}

static bool as_expected(const char *text)
{
    size_t at = strlen(run.said), n = strlen(text);
    return !run.expected || (strncmp(run.expected, run.said, at) == 0 && strncmp(run.expected + at, text, n) == 0 &&
                             (run.expected[at + n] == ' ' || run.expected[at + n] == '\0'));
}

static void do_listen(void)
{
    run.at_size = address(&run.at, run.local, "lb", run.k == &real ? 0 : 8080);
    run.listener = new_socket();
    assert_int_equal(run.k->bind(run.listener, (struct sockaddr *)&run.at, run.at_size), 0);
    assert_int_equal(run.k->listen(run.listener, 16), 0);
    if (run.k == &real && !run.local)
        getsockname(run.listener, (struct sockaddr *)&run.at, &run.at_size);
}

static void do_accept(const char *word)
{
    struct sockaddr_storage from;
    socklen_t n = sizeof from;
    struct pollfd wait = {.fd = run.listener, .events = POLLIN};
    if (run.k == &real && as_expected(" accept=0"))
        poll(&wait, 1, 2000);
    int fd = run.k->accept(run.listener, (struct sockaddr *)&from, &n, FLAGS), error = errno;
    if (fd >= 0)
        run.fd = fd;
    errno = error;
    say_result(word, fd < 0 ? fd : 0);
}

static void do_full_accept(void)
{
    int next = new_socket(); /* the lowest number that is free */
    run.k->close(next);
    int before = run.k->limit(next);
    do_accept("full-accept");
    run.k->limit(before);
}

static void do_connect(const char *word)
{
    struct sockaddr_storage to = run.peer_at;
    socklen_t n = run.peer_at_size;
    if (strcmp(word, "missing") == 0)
        n = address(&to, run.local, "missing", 1);
    if (strcmp(word, "refused") == 0 && run.k == &real) {
        /* A port that is bound, and on which nobody listens. */
        close(run.peer_listener);
        run.peer_listener = real_stream();
        assert_int_equal(bind(run.peer_listener, (struct sockaddr *)&to, n), 0);
    } else if (strcmp(word, "refused") == 0) {
        n = address(&to, run.local, "", 1);
        ((struct sockaddr_in *)&to)->sin_addr.s_addr = htonl(0x7f000002);
    }
    run.fd = new_socket();
    say_result(word, run.k->connect(run.fd, (struct sockaddr *)&to, n));
}

static uint32_t ask_epoll(void)
{
    struct epoll_event e = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP}, got = {0};
    int ep = run.k->epoll_create(EPOLL_CLOEXEC);
    assert_int_equal(run.k->epoll_ctl(ep, EPOLL_CTL_ADD, run.fd, &e), 0);
    int n = run.k->epoll_wait(ep, &got, 1, 0);
    run.k->close(ep);
    return n > 0 ? got.events : 0;
}

static void write_flags(char *out, size_t size, uint32_t flags)
{
    snprintf(out, size, " epoll=%s%s%s%s%s", flags & EPOLLIN ? "IN," : "", flags & EPOLLOUT ? "OUT," : "",
             flags & EPOLLERR ? "ERR," : "", flags & EPOLLHUP ? "HUP," : "", flags & EPOLLRDHUP ? "RDHUP," : "");
}

/* On the real kernel: waits until it comes to what is expected, two seconds at most. */
static void do_epoll(void)
{
    char text[64];
    for (int i = 0; i < 2000; i++) {
        write_flags(text, sizeof text, ask_epoll());
        if (as_expected(text))
            break;
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
    say("%s", text);
}

static void do_recv(void)
{
    char got[16];
    say_result("recv", run.k->recv(run.fd, got, sizeof got, 0));
}

static void do_error(void)
{
    int error = 0;
    socklen_t n = sizeof error;
    assert_int_equal(run.k->getsockopt(run.fd, SOL_SOCKET, SO_ERROR, &error, &n), 0);
    say(" error=%s", strerrorname_np(error));
}

static void do_unlink(void)
{
    struct sockaddr_un un = unix_address("lb");
    say_result("unlink", run.k->unlink(un.sun_path));
}

static void do_word(const char *word)
{
    if (word[0] == 'p')
        say(" %s=%s", word, run.k->peer(word) ? "done" : "failed");
    else if (strcmp(word, "listen") == 0)
        do_listen();
    else if (strcmp(word, "accept") == 0)
        do_accept(word);
    else if (strcmp(word, "full-accept") == 0)
        do_full_accept();
    else if (strcmp(word, "epoll") == 0)
        do_epoll();
    else if (strcmp(word, "recv") == 0)
        do_recv();
    else if (strcmp(word, "send") == 0 || strcmp(word, "send0") == 0)
        say_result(word, run.k->send(run.fd, "x", word[4] == '0' ? 0 : 1, MSG_NOSIGNAL));
    else if (strcmp(word, "shut") == 0)
        say_result(word, run.k->shutdown(run.fd, SHUT_WR));
    else if (strcmp(word, "error") == 0)
        do_error();
    else if (strcmp(word, "unlink") == 0)
        do_unlink();
    else
        do_connect(word);
    run.k->settle();
}

static void do_script(const struct script *s)
{
    char words[256], *save = NULL;
    snprintf(words, sizeof words, "%s", s->words);
    for (char *w = strtok_r(words, " ", &save); w; w = strtok_r(NULL, " ", &save))
        do_word(w);
    if (run.fd >= 0)
        run.k->close(run.fd);
    if (run.listener >= 0)
        run.k->close(run.listener);
}

/* ---- both ---- */

static const struct script *current;

/* The simulated process runs the script. */
int daemon_main(int argc, char **argv);
int daemon_main(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    do_script(current);
    /* As a daemon that ends in order; the script may have removed it already. */
    if (run.listener >= 0 && run.local)
        (void)run.k->unlink(((const struct sockaddr_un *)(const void *)&run.at)->sun_path);
    return 0;
}

static void on_fail(const char *invariant, const char *text)
{
    fprintf(stderr, "%s: %s\n", invariant, text);
}

static void simulate(char *said)
{
    struct host host = {.mode = HOST_ACCEPTS, .on_accept = on_accept};
    run = (struct run){.k = &simulated, .local = current->local, .listener = -1, .fd = -1, .said = said};
    run.peer_at_size = address(&run.peer_at, run.local, "peer", 8080);
    engine_begin(1);
    kernel_begin();
    disk_begin(rng_of("disk", 0));
    net_begin();
    sim_on_fail = on_fail;
    process.on_end = engine_stop;
    host.at = sim_address(&run.peer_at);
    host_add(&host);
    process_start();
    engine_run();
    if (run.end)
        end_close(run.end);
    kernel_end();
    net_end();
    disk_end();
    engine_end();
}

static void really(char *said, const char *expected)
{
    run = (struct run){.k = &real, .local = current->local, .listener = -1, .fd = -1, .peer = -1, .said = said};
    run.expected = expected;
    run.peer_at_size = address(&run.peer_at, run.local, "peer", 0);
    run.peer_listener = real_stream();
    assert_int_equal(bind(run.peer_listener, (struct sockaddr *)&run.peer_at, run.peer_at_size), 0);
    assert_int_equal(listen(run.peer_listener, 16), 0);
    if (!run.local)
        getsockname(run.peer_listener, (struct sockaddr *)&run.peer_at, &run.peer_at_size);
    do_script(current);
    if (run.peer >= 0)
        close(run.peer);
    close(run.peer_listener);
    for (unsigned i = 0; i < 2; i++) {
        struct sockaddr_un un = unix_address(i ? "lb" : "peer");
        unlink(un.sun_path);
    }
}

static void test_scripts(void **state)
{
    (void)state;
    assert_non_null(mkdtemp(folder));
    unsigned different = 0;
    for (size_t i = 0; i < sizeof scripts / sizeof scripts[0]; i++) {
        char here[4096] = "", there[4096] = "";
        current = &scripts[i];
        simulate(here);
        really(there, here);
        if (strcmp(here, there) != 0) {
            print_error("%s: %s\n  simulated:%s\n  real:     %s\n", current->local ? "unix" : "tcp", current->words,
                        here, there);
            different++;
        }
    }
    rmdir(folder);
    assert_int_equal(different, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_scripts)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
