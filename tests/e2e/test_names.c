/* Backends given by name, while the name server is slow, or says nothing: at the start, at a reload and at an upgrade.
 */
#include "harness/world.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* A view of the mounts of our own, where we may change them: it goes with this process and those it starts. */
static bool mounts_allowed;

static void leave_the_others(void)
{
    mounts_allowed = unshare(CLONE_NEWNS) == 0 && mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0;
}

/* ---- a name server ---- */

/* Every name leads to 127.0.0.1, but to questions about those that begin with "dead" it says nothing. */
struct name_server {
    pthread_t thread;
    int fd;
    char address[32];
    atomic_int delay_ms; /* before each answer */
    atomic_bool silent, ends;
    atomic_int dead; /* the last digit of the greatest "deadN" that has been asked for */
};

#define HEADER 12

/* The length of the question, or 0 where it is none to be answered. */
static size_t question_length(struct name_server *ns, const unsigned char *q, size_t n)
{
    size_t i = HEADER;

    if (n < HEADER + 6)
        return 0;
    if (memcmp(q + HEADER + 1, "dead", 4) == 0) {
        int number = q[HEADER + 5] - '0';
        if (number > ns->dead)
            ns->dead = number;
        return 0;
    }
    while (i < n && q[i])
        i += q[i] + 1u;
    return i + 5 <= n ? i + 5 : 0;
}

static void answer(const struct name_server *ns, const unsigned char *q, size_t n, const struct sockaddr_in *to)
{
    static const unsigned char address[] = {0xc0, HEADER, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4, 127, 0, 0, 1};
    static const unsigned char flags[] = {0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0};
    unsigned char out[512 + sizeof address];
    bool v4 = q[n - 3] == 1; /* type A; there are no others but the address' */

    memcpy(out, q, n);
    memcpy(out + 2, flags, sizeof flags);
    out[7] = v4;
    if (v4)
        memcpy(out + n, address, sizeof address);
    sendto(ns->fd, out, n + (v4 ? sizeof address : 0), 0, (const struct sockaddr *)to, sizeof *to);
}

static void *serve_names(void *arg)
{
    struct name_server *ns = arg;

    while (!ns->ends) {
        struct pollfd p = {.fd = ns->fd, .events = POLLIN};
        struct sockaddr_in from;
        socklen_t length = sizeof from;
        unsigned char q[512];
        if (poll(&p, 1, 20) != 1)
            continue;
        ssize_t got = recvfrom(ns->fd, q, sizeof q, 0, (struct sockaddr *)&from, &length);
        size_t n = got > 0 ? question_length(ns, q, (size_t)got) : 0;
        if (n == 0 || ns->silent)
            continue;
        struct timespec delay = {.tv_nsec = ns->delay_ms * 1000000L};
        nanosleep(&delay, NULL);
        answer(ns, q, n, &from);
    }
    return NULL;
}

/* Resolvers know one port only, so the server has an address that no other test's has. Skips where that, or mounting,
 * is not permitted. */
static void begin_names(struct world *w, struct name_server *ns)
{
    unsigned pid = (unsigned)getpid();
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(53)};
    const char *resolv = world_path(w, "resolv.conf");
    char text[64];

    *ns = (struct name_server){.fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)};
    snprintf(ns->address, sizeof ns->address, "127.53.%u.%u", pid >> 8 & 255, pid & 255);
    inet_pton(AF_INET, ns->address, &at.sin_addr);
    snprintf(text, sizeof text, "nameserver %s\n", ns->address);
    file_put(resolv, text);
    if (!mounts_allowed || bind(ns->fd, (const struct sockaddr *)&at, sizeof at) != 0 ||
        mount(resolv, "/etc/resolv.conf", NULL, MS_BIND, NULL) != 0) {
        print_message("a name server is not permitted here\n");
        close(ns->fd);
        w->finished = true;
        skip();
    }
    assert_int_equal(pthread_create(&ns->thread, NULL, serve_names, ns), 0);
}

static void end_names(struct name_server *ns)
{
    ns->ends = true;
    pthread_join(ns->thread, NULL);
    close(ns->fd);
    umount2("/etc/resolv.conf", MNT_DETACH);
}

/* ---- backends by name ---- */

static struct origin *an_origin(struct world *w)
{
    struct origin *o = origin_start("named", origin_answer_all, NULL);

    w->origins[w->origin_count++] = o;
    return o;
}

/* The config has these backends from now on, and no others. */
static void set_backends(struct world *w, const struct origin *o, const char *const names[])
{
    w->backends[0] = '\0';
    for (size_t i = 0; names[i]; i++) {
        char address[80];
        snprintf(address, sizeof address, "%s:%d", names[i], origin_port(o));
        world_backend(w, address, NULL);
    }
}

static void wait_until_served(struct world *w)
{
    uint64_t deadline = deadline_in(patience_ms());

    while (http_get(w->port, "/", NULL) != 200) {
        CHECK(left_ms(deadline) > 0, "no backend by name has come up");
        rest();
    }
}

/* ---- somebody who asks all the time ---- */

struct asker {
    pthread_t thread;
    int port;
    unsigned answered, failed;
    int status;
    atomic_bool stop;
};

static void *ask_all_the_time(void *arg)
{
    struct asker *a = arg;

    while (!a->stop) {
        struct client c;
        static const char request[] = "GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
        bool whole = client_try_open(&c, a->port) && client_try_send(&c, request, sizeof request - 1) &&
                     client_read(&c, false) == READ_OK;
        a->status = whole ? c.response.status : 0;
        a->answered += a->status == 200;
        a->failed += a->status != 200;
        client_close(&c);
        if (a->failed)
            break;
    }
    return NULL;
}

static void begin_asking(struct world *w, struct asker *a)
{
    *a = (struct asker){.port = w->port};
    assert_int_equal(pthread_create(&a->thread, NULL, ask_all_the_time, a), 0);
}

static void end_asking(struct asker *a)
{
    a->stop = true;
    pthread_join(a->thread, NULL);
    CHECK(a->failed == 0, "status %d after %u answers", a->status, a->answered);
}

/* ---- the start ---- */

/* A name server that is silent about some names holds up no other: while it is waited for, the others are served. */
static void test_silence_about_others(void **state)
{
    struct world *w = *state;
    struct name_server ns;

    begin_names(w, &ns);
    set_backends(w, an_origin(w),
                 (const char *const[]){"dead1.lb.test", "dead2.lb.test", "dead3.lb.test", "a.lb.test", NULL});
    world_start(w, NULL);
    daemon_expect_event(&w->daemon, 0, "backend_up", NULL);
    assert_int_equal(http_get(w->port, "/", NULL), 200);
    assert_int_equal(daemon_count_events(&w->daemon, 0, "backend_down", NULL), 0);
    end_names(&ns);
    world_finish(w);
}

/* ---- a reload ---- */

static void reload(struct world *w)
{
    size_t mark = daemon_mark(&w->daemon);

    world_config(w, NULL);
    daemon_signal(&w->daemon, SIGHUP);
    daemon_expect_event(&w->daemon, mark, "reload", NULL);
}

/* The new names are asked for before the old ones go. */
static void test_reload_to_another_name(void **state)
{
    struct world *w = *state;
    struct name_server ns;
    struct asker a;
    struct origin *o = an_origin(w);

    begin_names(w, &ns);
    ns.delay_ms = 100;
    set_backends(w, o, (const char *const[]){"a.lb.test", NULL});
    world_start(w, NULL);
    wait_until_served(w);
    begin_asking(w, &a);
    set_backends(w, o, (const char *const[]){"b.lb.test", "c.lb.test", NULL});
    reload(w);
    end_asking(&a);
    end_names(&ns);
    world_finish(w);
}

/* A name that is known need not be asked for, whatever the name server does. */
static void test_reload_to_another_port(void **state)
{
    struct world *w = *state;
    struct name_server ns;
    struct asker a;
    struct origin *from = an_origin(w), *to = an_origin(w);

    begin_names(w, &ns);
    set_backends(w, from, (const char *const[]){"a.lb.test", NULL});
    world_start(w, NULL);
    wait_until_served(w);
    ns.silent = true;
    begin_asking(w, &a);
    set_backends(w, to, (const char *const[]){"a.lb.test", NULL});
    reload(w);
    origin_wait_requests(to, 20);
    end_asking(&a);
    end_names(&ns);
    world_finish(w);
}

/* A name that does not resolve holds a reload up for some seconds, and stops it no more than a start. The end of the
 * process waits for neither. */
static void test_reload_to_a_dead_name(void **state)
{
    struct world *w = *state;
    struct name_server ns;
    struct asker a;
    struct origin *o = an_origin(w);

    begin_names(w, &ns);
    set_backends(w, o, (const char *const[]){"a.lb.test", NULL});
    world_start(w, NULL);
    wait_until_served(w);
    begin_asking(w, &a);
    set_backends(w, o, (const char *const[]){"dead1.lb.test", "b.lb.test", NULL});
    reload(w);
    end_asking(&a);
    set_backends(w, o, (const char *const[]){"dead2.lb.test", "b.lb.test", NULL});
    world_config(w, NULL);
    daemon_signal(&w->daemon, SIGHUP);
    uint64_t deadline = deadline_in(patience_ms());
    for (; ns.dead < 2; rest())
        CHECK(left_ms(deadline) > 0, "the second reload has not begun");
    world_stop(w);
    assert_int_equal(daemon_count_events(&w->daemon, 0, "reload", NULL), 1);
    end_names(&ns);
    world_finish(w);
}

/* ---- an upgrade ---- */

static void upgrade(struct world *w)
{
    size_t mark = daemon_mark(&w->daemon);
    daemon_signal(&w->daemon, SIGUSR2);
    pid_t pid = (pid_t)log_number(daemon_expect_event(&w->daemon, mark, "upgrade", NULL), "pid");
    assert_int_equal(daemon_wait(&w->daemon), 0);
    w->daemon.pid = pid;
    daemon_expect_event(&w->daemon, mark, "taken_over", NULL);
}

/* What the process before knows is enough, whatever the name server does. */
static void test_upgrade_with_a_silent_name_server(void **state)
{
    struct world *w = *state;
    struct name_server ns;
    struct asker a;

    begin_names(w, &ns);
    set_backends(w, an_origin(w), (const char *const[]){"a.lb.test", NULL});
    world_start(w, "\"health_check\": {\"interval\": \"100ms\"}");
    wait_until_served(w);
    daemon_expect_event(&w->daemon, 0, "backend_up", NULL);
    size_t mark = daemon_mark(&w->daemon);
    ns.silent = true;
    begin_asking(w, &a);
    upgrade(w);
    for (int i = 0; i < 20; i++)
        assert_int_equal(http_get(w->port, "/", NULL), 200);
    end_asking(&a);
    assert_int_equal(daemon_count_events(&w->daemon, mark, "backend_down", NULL), 0);
    assert_int_equal(daemon_count_events(&w->daemon, mark, "backend_up", NULL), 0);
    end_names(&ns);
    world_finish(w);
}

/* A name that the process before does not have is waited for. */
static void test_upgrade_to_another_name(void **state)
{
    struct world *w = *state;
    struct name_server ns;
    struct asker a;
    struct origin *o = an_origin(w);

    begin_names(w, &ns);
    ns.delay_ms = 100;
    set_backends(w, o, (const char *const[]){"a.lb.test", NULL});
    world_start(w, NULL);
    wait_until_served(w);
    set_backends(w, o, (const char *const[]){"b.lb.test", NULL});
    world_config(w, NULL);
    begin_asking(w, &a);
    upgrade(w);
    end_asking(&a);
    end_names(&ns);
    world_finish(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WORLD_TEST(test_silence_about_others),
        WORLD_TEST(test_reload_to_another_name),
        WORLD_TEST(test_reload_to_another_port),
        WORLD_TEST(test_reload_to_a_dead_name),
        WORLD_TEST(test_upgrade_with_a_silent_name_server),
        WORLD_TEST(test_upgrade_to_another_name),
    };

    leave_the_others();
    prctl(PR_SET_CHILD_SUBREAPER, 1); /* who takes over is a child's child */
    return cmocka_run_group_tests_name("names", tests, NULL, NULL);
}
