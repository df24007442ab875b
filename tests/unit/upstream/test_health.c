/* When checks go out. Time is the kernel's; what is asserted is the order of what is due, which holds on a slow
 * machine, too: timers fire in the order of their deadlines. */
#include "base/clock.h"
#include "net/sock.h"
#include "upstream/backend.h"
#include "upstream/health.h"
#include "upstream/resolve.h"
#include "upstream/upstream.h"

#include <errno.h>
#include <netdb.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define INTERVAL (100 * NS_PER_MS)
#define WAIT     (10 * NS_PER_S)

struct world {
    struct loop *loop;
    struct upstream *upstream;
    struct config *config;
    int listeners[2]; /* of backends that accept, and say nothing */
    struct timer marker;
    bool marked;
    struct backend *falls; /* at the marker */
    uint64_t begun;        /* no check is older */
};

static void on_marker(struct timer *t)
{
    struct world *w = container_of(t, struct world, marker);
    w->marked = true;
    if (w->falls)
        backend_set_up(w->falls, false, "test");
}

static struct config *parse(struct str text)
{
    struct buf errors = BUF_INIT;
    struct config *c = config_parse(text, "test", NULL, &errors);
    assert_non_null(c);
    return c;
}

/* With the config `text`, to be ended by close_world(). */
static void start(struct world *w, struct str text)
{
    w->config = parse(text);
    w->loop = loop_new();
    assert_non_null(w->loop);
    w->begun = loop_now(w->loop);
    w->upstream = upstream_new(w->loop, w->config);
    assert_non_null(w->upstream);
    timer_init(&w->marker, on_marker);
}

/* Opens a backend's listener; its port. */
static unsigned listen_as(struct world *w, int backend)
{
    struct addr at;
    struct endpoint e;
    const char *why;
    assert_true(endpoint_parse(STR("127.0.0.1:0"), true, &e, &why));
    w->listeners[backend] = sock_listen(&e.addr, 16);
    assert_true(w->listeners[backend] >= 0);
    assert_int_equal(sock_local_addr(w->listeners[backend], &at), 0);
    return peer_from_addr(&at).port;
}

static void open_world(struct world *w)
{
    unsigned ports[2];
    *w = (struct world){0};
    for (int i = 0; i < 2; i++)
        ports[i] = listen_as(w, i);
    char text[400];
    int n = snprintf(text, sizeof text,
                     "{\"backends\":[{\"address\":\"127.0.0.1:%u\"},{\"address\":\"127.0.0.1:%u\"}],"
                     "\"health_check\":{\"interval\":\"100ms\",\"timeout\":\"1h\"}}",
                     ports[0], ports[1]);
    start(w, str_make(text, (size_t)n));
}

static void close_world(struct world *w)
{
    loop_cancel(w->loop, &w->marker);
    upstream_free(w->upstream);
    loop_free(w->loop);
    config_put(w->config);
    for (int i = 0; i < 2; i++)
        if (w->listeners[i] > 0)
            sock_close(w->listeners[i]);
}

/* The next check's connection, or an error that says that there is none yet. */
static int take_check(struct world *w, int backend)
{
    struct addr from;
    return sock_accept(w->listeners[backend], &from);
}

static int wait_for_check(struct world *w, int backend)
{
    int fd;
    uint64_t deadline = clock_monotonic() + WAIT;
    while ((fd = take_check(w, backend)) < 0) {
        assert_true(clock_monotonic() < deadline);
        loop_turn(w->loop, NS_PER_MS);
    }
    return fd;
}

static void run_to_marker(struct world *w, uint64_t when)
{
    w->marked = false;
    assert_true(loop_arm(w->loop, &w->marker, when));
    while (!w->marked)
        loop_turn(w->loop, TIMER_NEVER);
}

static void wait_available(struct world *w, int backend, bool available)
{
    uint64_t deadline = clock_monotonic() + WAIT;
    while (backend_is_available(upstream_backend(w->upstream, (unsigned)backend)) != available) {
        assert_true(clock_monotonic() < deadline);
        loop_turn(w->loop, NS_PER_MS);
    }
}

/* The first backend's check fails, and it has been down for an hour: its next check is put off. */
static void put_off(struct world *w)
{
    struct backend *be = upstream_backend(w->upstream, 0);
    sock_close(wait_for_check(w, 0));
    wait_available(w, 0, false);
    be->since -= 3600 * NS_PER_S;
    health_hurry(be); /* works out anew when it is due: in four and a half intervals at least */
}

static void what_is_long_down_is_checked_seldom(void **state)
{
    (void)state;
    struct world w;
    open_world(&w);
    put_off(&w);
    run_to_marker(&w, w.begun + 3 * INTERVAL);
    assert_int_equal(take_check(&w, 0), -EAGAIN);
    sock_close(wait_for_check(&w, 0)); /* it comes */
    close_world(&w);
}

static void the_last_one_to_fall_hurries_the_others(void **state)
{
    (void)state;
    struct world w;
    open_world(&w);
    put_off(&w);
    w.falls = upstream_backend(w.upstream, 1);
    run_to_marker(&w, w.begun + 2 * INTERVAL);
    w.falls = NULL;
    run_to_marker(&w, loop_now(w.loop) + INTERVAL);
    int fd = take_check(&w, 0);
    assert_true(fd >= 0);
    sock_close(fd);
    close_world(&w);
}

/* As after a reload to `text`, a config with the same backends or others. */
static void change_to(struct world *w, struct str text)
{
    struct config *fresh = parse(text);
    struct upstream_change *change = upstream_stage(w->upstream, fresh, NULL);
    assert_non_null(change);
    upstream_commit(change);
    config_put(fresh);
}

/* What a check finds is an answer to its question: after a reload that asks another, it says nothing. */
static void an_answer_to_an_old_question(void **state)
{
    (void)state;
    static const char answer[] = "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n";
    struct world w;
    char text[400];
    open_world(&w);
    int old = wait_for_check(&w, 0);
    unsigned ports[2];
    for (unsigned i = 0; i < 2; i++)
        ports[i] = upstream_backend(w.upstream, i)->config->endpoint.port;
    int n = snprintf(text, sizeof text,
                     "{\"backends\":[{\"address\":\"127.0.0.1:%u\"},{\"address\":\"127.0.0.1:%u\"}],"
                     "\"health_check\":{\"interval\":\"100ms\",\"timeout\":\"1h\",\"path\":\"/other\"}}",
                     ports[0], ports[1]);
    change_to(&w, str_make(text, (size_t)n));
    assert_int_equal(write(old, answer, sizeof answer - 1), sizeof answer - 1);
    int fresh = wait_for_check(&w, 0);
    run_to_marker(&w, loop_now(w.loop) + INTERVAL / 10);
    assert_true(backend_is_available(upstream_backend(w.upstream, 0)));
    sock_close(fresh);
    sock_close(old);
    wait_available(&w, 0, false);
    close_world(&w);
}

/* A server that hangs leaves the connections to its unix socket where they are, until its backlog is full. */
static void a_full_backlog_takes_a_backend_down(void **state)
{
    (void)state;
    struct world w = {0};
    char text[400];
    struct endpoint e;
    const char *why;
    int in_backlog[4], count = 0;
    bool in_progress;
    int n = snprintf(text, sizeof text, "unix:/tmp/test_health.%d", (int)getpid());
    assert_true(endpoint_parse(str_make(text, (size_t)n), false, &e, &why));
    w.listeners[0] = sock_listen(&e.addr, 1);
    assert_true(w.listeners[0] >= 0);
    do
        in_backlog[count] = sock_connect(&e.addr, &in_progress);
    while (in_backlog[count] >= 0 && ++count < 4);
    assert_true(count < 4 && in_backlog[count] == -EAGAIN);

    n = snprintf(text, sizeof text,
                 "{\"backends\":[{\"address\":\"unix:/tmp/test_health.%d\"}],"
                 "\"health_check\":{\"interval\":\"100ms\",\"timeout\":\"1h\"}}",
                 (int)getpid());
    start(&w, str_make(text, (size_t)n));
    wait_available(&w, 0, false);
    assert_string_equal(health_cause(upstream_backend(w.upstream, 0)), "backlog full");
    while (count > 0)
        sock_close(in_backlog[--count]);
    close_world(&w);
    sock_unlink(&e.addr);
}

/* ---- names ---- */

/* A config with one backend at localhost. */
static struct str named_config(char text[400], unsigned port, const char *interval, const char *path)
{
    int n = snprintf(text, 400,
                     "{\"backends\":[{\"address\":\"localhost:%u\"}],\"health_check\":"
                     "{\"interval\":\"%s\",\"timeout\":\"1h\",\"path\":\"%s\",\"fall\":3,\"rise\":2}}",
                     port, interval, path);
    return str_make(text, (size_t)n);
}

/* Its port. */
static unsigned open_named(struct world *w, const char *interval)
{
    char text[400];
    *w = (struct world){0};
    unsigned port = listen_as(w, 0);
    start(w, named_config(text, port, interval, "/"));
    return port;
}

/* Answers to a check that has come. */
static bool answer_check(struct world *w)
{
    static const char answer[] = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    char request[1024];
    uint64_t deadline = clock_monotonic() + WAIT;
    int fd = take_check(w, 0);
    if (fd < 0)
        return false;
    while (sock_recv(fd, request, sizeof request) == -EAGAIN) {
        assert_true(clock_monotonic() < deadline);
        loop_turn(w->loop, NS_PER_MS);
    }
    assert_int_equal(write(fd, answer, sizeof answer - 1), sizeof answer - 1);
    sock_close(fd);
    return true;
}

/* Waits for that, and answers to checks. The number of those. */
static unsigned serve_until(struct world *w, bool available)
{
    unsigned n = 0;
    uint64_t deadline = clock_monotonic() + WAIT;
    while (backend_is_available(upstream_backend(w->upstream, 0)) != available) {
        assert_true(clock_monotonic() < deadline);
        loop_turn(w->loop, NS_PER_MS);
        n += answer_check(w);
    }
    return n;
}

static void rename_to(struct world *w, const char *name)
{
    struct endpoint *e = &w->config->backends[0].endpoint;
    snprintf(e->host, sizeof e->host, "%s", name);
}

/* The answer that there is no such name counts like a failed check, though the server that it led to still answers;
 * and when it leads there again, that counts like ever. */
static void a_name_that_is_gone(void **state)
{
    (void)state;
    struct world w;
    open_named(&w, "20ms");
    struct backend *be = upstream_backend(w.upstream, 0);
    serve_until(&w, true);
    rename_to(&w, "no..such..name");
    assert_in_range(serve_until(&w, false), 2, 1000); /* one goes with each time of asking */
    assert_non_null(strstr(health_cause(be), "name does not resolve: "));
    while (answer_check(&w)) /* what was under way */
        ;
    run_to_marker(&w, loop_now(w.loop) + INTERVAL);
    assert_false(answer_check(&w)); /* there is nowhere to go */
    assert_false(backend_is_available(be));
    rename_to(&w, "localhost");
    assert_in_range(serve_until(&w, true), 2, 1000);
    assert_string_equal(health_cause(be), "status 200");
    close_world(&w);
}

/* ---- a question at a time ---- */

/* What is handed to the only resolver behind a question: that has been answered when this has been. */
struct behind {
    struct job job;
    sem_t answered;
    bool told;
};

static void on_behind_work(struct job *j)
{
    sem_post(&container_of(j, struct behind, job)->answered);
}

static void on_behind_done(struct job *j)
{
    container_of(j, struct behind, job)->told = true;
}

/* Waits for the answer to what has been asked. The loop is not turned: it is told later. */
static void wait_for_answer(struct world *w, struct behind *b)
{
    b->told = false;
    assert_int_equal(sem_init(&b->answered, 0, 0), 0);
    worker_submit(w->upstream->names->workers[0], &b->job, on_behind_work, on_behind_done);
    while (sem_wait(&b->answered) != 0)
        assert_int_equal(errno, EINTR);
    sem_destroy(&b->answered);
}

static void turn_until_told(struct world *w, const struct behind *b)
{
    uint64_t deadline = clock_monotonic() + WAIT;
    while (!b->told) {
        assert_true(clock_monotonic() < deadline);
        loop_turn(w->loop, NS_PER_MS);
    }
}

/* The name is asked for, and the answer told. */
static void ask(struct world *w)
{
    struct behind b;
    loop_turn(w->loop, 0);
    wait_for_answer(w, &b);
    turn_until_told(w, &b);
}

/* A reload, for another path is asked for at once: as `name`, which localhost has become meanwhile. */
static void ask_again(struct world *w, unsigned port, const char *name)
{
    static unsigned paths;
    char text[400], path[20];
    snprintf(path, sizeof path, "/%u", paths++);
    struct config *fresh = parse(named_config(text, port, "1h", path));
    rename_to(w, "localhost"); /* that it is the same backend */
    struct upstream_change *change = upstream_stage(w->upstream, fresh, NULL);
    assert_non_null(change);
    upstream_commit(change);
    config_put(w->config);
    w->config = fresh;
    rename_to(w, name);
    ask(w);
}

/* It is the `fall`-th answer in a row that counts: another one between begins anew. A check that is under way ends with
 * the name. */
static void answers_in_a_row(void **state)
{
    (void)state;
    struct world w;
    unsigned port = open_named(&w, "1h");
    struct backend *be = upstream_backend(w.upstream, 0);
    ask(&w);
    assert_true(backend_is_available(be));
    static const char none[] = "no..such..name";
    static const char *const names[] = {none, none, "localhost", none, none};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        ask_again(&w, port, names[i]);
        assert_true(backend_is_available(be));
        assert_int_equal(be->open_count, 1);
    }
    ask_again(&w, port, none);
    assert_false(backend_is_available(be));
    assert_int_equal(be->open_count, 0);
    close_world(&w);
}

/* The first answer about a name, which lets a check go out, and a reload that has one go out at once, in one turn. */
static void one_check_at_a_time(void **state)
{
    (void)state;
    struct world w;
    char text[400];
    unsigned port = open_named(&w, "1h");
    struct config *fresh = parse(named_config(text, port, "1h", "/other"));
    struct backend *be = upstream_backend(w.upstream, 0);
    struct behind b;
    loop_turn(w.loop, 0);    /* asks for the name */
    wait_for_answer(&w, &b); /* which is told in the next turn */
    struct upstream_change *change = upstream_stage(w.upstream, fresh, NULL);
    assert_non_null(change);
    upstream_commit(change);
    config_put(fresh);
    uint64_t deadline = clock_monotonic() + WAIT;
    for (unsigned more = 5; more > 0; more -= be->open_count > 0) {
        assert_true(clock_monotonic() < deadline);
        loop_turn(w.loop, NS_PER_MS);
        assert_in_range(be->open_count, 0, 1);
    }
    turn_until_told(&w, &b);
    close_world(&w);
}

/* A reload removes a backend whose name has been asked for: nobody is told the answer. */
static void a_name_that_nobody_asks_for_any_more(void **state)
{
    (void)state;
    struct world w;
    struct behind b;
    open_named(&w, "1h");
    loop_turn(w.loop, 0); /* asks */
    wait_for_answer(&w, &b);
    change_to(&w, STR("{\"backends\":[{\"address\":\"localhost:1\"}],\"health_check\":{\"interval\":\"1h\"}}"));
    turn_until_told(&w, &b);
    close_world(&w);
}

/* That a name server has trouble says nothing. */
static void which_answers_say_no(void **state)
{
    (void)state;
    static const struct {
        int code;
        bool no;
    } cases[] = {{EAI_NONAME, true}, {EAI_NODATA, true}, {EAI_AGAIN, false}, {EAI_FAIL, false}, {EAI_MEMORY, false}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct resolve r = {.count = -1, .why = gai_strerror(cases[i].code)};
        assert_int_equal(resolve_says_no_such_name(&r), cases[i].no);
    }
    struct resolve trouble = {.count = -1, .why = strerror(EMFILE)}, good = {.count = 1};
    assert_false(resolve_says_no_such_name(&trouble));
    assert_false(resolve_says_no_such_name(&good));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_long_down_is_checked_seldom),
        cmocka_unit_test(the_last_one_to_fall_hurries_the_others),
        cmocka_unit_test(an_answer_to_an_old_question),
        cmocka_unit_test(a_full_backlog_takes_a_backend_down),
        cmocka_unit_test(a_name_that_is_gone),
        cmocka_unit_test(which_answers_say_no),
        cmocka_unit_test(answers_in_a_row),
        cmocka_unit_test(one_check_at_a_time),
        cmocka_unit_test(a_name_that_nobody_asks_for_any_more),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
