/* SIGUSR2: another process takes over, and nobody notices; and what service managers hand over and are told. */
#include "harness/world.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define CLIENTS 8
#define GET     "GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
#define QUIET   "\"log\": {\"format\": \"json\", \"access\": false}"

static void count(void *arg, const void *p, size_t n)
{
    (void)p;
    *(uint64_t *)arg += n;
}

static void echo(struct origin_conn *c)
{
    for (;;) {
        if (c->in.in.n > 0) {
            bool ok = origin_send_bytes(c, c->in.in.p, c->in.in.n);
            bytes_drop(&c->in.in, c->in.in.n);
            if (!ok)
                return;
        } else if (stream_fill(&c->in, deadline_in(patience_ms())) != READ_OK) {
            return;
        }
    }
}

/* Answers with the size of the content; echoes behind an upgrade. */
static void script(struct origin_conn *c)
{
    while (origin_read_head(c)) {
        uint64_t size = 0;
        char text[32];

        if (strcmp(c->request.target, "/tunnel") == 0) {
            if (origin_send(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n"))
                echo(c);
            return;
        }
        if (!origin_read_body(c, count, &size))
            return;
        snprintf(text, sizeof text, "%llu", (unsigned long long)size);
        if (!origin_answer(c, text))
            return;
    }
}

/* ---- clients that ask all the time ---- */

struct asker {
    pthread_t thread;
    int port;
    const char *fields;
    unsigned answered, limited, failed;
    char what[64];
    atomic_bool *stop;
};

static void *ask_all_the_time(void *arg)
{
    struct asker *a = arg;
    struct client c = {0};
    char request[128];
    int n = snprintf(request, sizeof request, "GET / HTTP/1.1\r\nHost: h\r\n%s\r\n", a->fields);

    if (!client_try_open(&c, a->port)) {
        a->failed++;
        return NULL;
    }
    while (!*a->stop && !a->failed) {
        enum read_result r = client_try_send(&c, request, (size_t)n) ? client_read(&c, false) : READ_CUT;
        int status = r == READ_OK ? c.response.status : 0;

        a->answered += status == 200;
        a->limited += status == 429;
        a->failed += status != 200 && status != 429;
        if (a->failed)
            snprintf(a->what, sizeof a->what, "%s, status %d", read_result_name(r), c.response.status);
    }
    client_close(&c);
    return NULL;
}

static void begin_asking(struct world *w, struct asker *askers, const char *fields, atomic_bool *stop)
{
    *stop = false;
    for (int i = 0; i < CLIENTS; i++) {
        askers[i] = (struct asker){.port = w->port, .fields = fields, .stop = stop};
        assert_int_equal(pthread_create(&askers[i].thread, NULL, ask_all_the_time, &askers[i]), 0);
    }
}

/* Returns how many were answered 200; nothing else than that and 429 may have come. */
static unsigned end_asking(struct asker *askers, atomic_bool *stop)
{
    unsigned answered = 0, failed = 0;

    *stop = true;
    for (int i = 0; i < CLIENTS; i++) {
        pthread_join(askers[i].thread, NULL);
        if (askers[i].failed)
            print_error("client %d after %u answers: %s\n", i, askers[i].answered, askers[i].what);
        failed += askers[i].failed;
        answered += askers[i].answered;
    }
    assert_int_equal(failed, 0);
    return answered;
}

/* ---- upgrades ---- */

/* The new process serves; returns its pid. The one before is w->daemon still. */
static pid_t upgrade(struct world *w)
{
    size_t mark = daemon_mark(&w->daemon);

    daemon_signal(&w->daemon, SIGUSR2);
    return (pid_t)log_number(daemon_expect_event(&w->daemon, mark, "upgrade", "duration_ms=*"), "pid");
}

/* The one before ends by itself, and well; the new one is our child then, for we are its subreaper. */
static void go_on_with(struct world *w, pid_t pid)
{
    int status = daemon_wait(&w->daemon);

    CHECK(status == 0, "the process before ended with %d", status);
    w->daemon.pid = pid;
}

static void test_nothing_fails(void **state)
{
    struct world *w = *state;
    struct asker askers[CLIENTS];
    struct client upload, tunnel;
    atomic_bool stop;

    world_origin(w, script, NULL, NULL);
    world_origin(w, script, NULL, NULL);
    world_start(w, QUIET);
    client_open(&tunnel, w->port);
    client_send(&tunnel, "GET /tunnel HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n");
    client_expect_head(&tunnel, 101);
    client_open(&upload, w->port);
    client_send(&upload, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\n01234");
    begin_asking(w, askers, "", &stop);
    rest();
    pid_t fresh = upgrade(w);
    daemon_expect_event(&w->daemon, 0, "drain", "signal=SIGUSR2");
    client_send(&tunnel, "ping");
    assert_int_equal(stream_fill(&tunnel.in, deadline_in(patience_ms())), READ_OK);
    assert_memory_equal(tunnel.in.in.p, "ping", 4);
    client_send(&upload, "56789");
    assert_string_equal(client_expect(&upload, 200)->body.p, "10");
    client_close(&tunnel);
    go_on_with(w, fresh);

    /* The upload's connection has gone over behind its response, and is used on. */
    client_send(&upload, "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    client_expect(&upload, 200);
    for (int i = 0; i < 5; i++)
        go_on_with(w, upgrade(w));
    unsigned answered = end_asking(askers, &stop);
    client_send(&upload, "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    client_expect(&upload, 200);
    client_close(&upload);
    print_message("%u requests were answered during six upgrades\n", answered);
    assert_int_equal(daemon_count_events(&w->daemon, 0, "retry", NULL), 0);
    world_finish(w);
}

/* What has come of a head, and requests that wait behind one, go over with their connection. */
static void test_bytes_go_over(void **state)
{
    struct world *w = *state;
    struct client head, behind;

    world_origin(w, script, NULL, NULL);
    world_start(w, NULL);
    client_open(&head, w->port);
    client_send(&head, "GET / HTTP/1.1\r\nHo");
    client_open(&behind, w->port);
    client_send(&behind, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\n1");
    origin_wait_requests(w->origins[0], 1);
    pid_t fresh = upgrade(w);
    client_send(&behind, "23GET / HTTP/1.1\r\nHost: h\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_string_equal(client_expect(&behind, 200)->body.p, "3");
    assert_string_equal(client_expect(&behind, 200)->body.p, "0");
    assert_string_equal(client_expect(&behind, 200)->body.p, "0");
    client_send(&head, "st: h\r\n\r\n");
    client_expect(&head, 200);
    go_on_with(w, fresh);
    client_close(&head);
    client_close(&behind);
    world_finish(w);
}

static void test_tokens_are_exact(void **state)
{
    struct world *w = *state;
    struct asker askers[CLIENTS];
    atomic_bool stop;
    struct bytes list = {0};

    world_origin(w, script, NULL, NULL);
    world_start(w, QUIET);
    for (int i = 0; i < 3; i++) {
        char json[96];
        snprintf(json, sizeof json, "{\"client_id\":\"u%d\",\"capacity\":1000,\"rate_per_sec\":0.0001}", i);
        assert_int_equal(http_request(w->port, "POST", "/clients/register", "", json, NULL), 201);
    }
    for (int i = 0; i < 3; i++) {
        char field[32];
        snprintf(field, sizeof field, "X-Client-ID: u%d\r\n", i);
        begin_asking(w, askers, field, &stop);
        for (int j = 0; j < 4; j++)
            go_on_with(w, upgrade(w));
        uint64_t deadline = deadline_in(patience_ms());
        unsigned passed = 0;
        for (; http_request(w->port, "GET", "/", field, NULL, NULL) != 429; passed++)
            CHECK(left_ms(deadline) > 0, "the tokens do not end");
        passed += end_asking(askers, &stop);
        CHECK(passed == 1000, "%u requests passed", passed);
        unsigned counted = origin_requests(w->origins[0]) - 1000 * (unsigned)i;
        CHECK(counted == 1000, "%u requests of 1000 tokens reached the backend", counted);
    }
    assert_int_equal(http_get(w->port, "/clients/list", &list), 200);
    assert_non_null(strstr(list.p, "\"total\":3"));
    bytes_free(&list);
    world_finish(w);
}

/* A page's link leads on in the new process, though its last client has gone and come back. */
static void test_a_walk_goes_on(void **state)
{
    struct world *w = *state;
    struct client c;
    char next[64];

    world_origin(w, script, NULL, NULL);
    world_start(w, QUIET);
    for (int i = 0; i < 6; i++) {
        char json[96];
        snprintf(json, sizeof json, "{\"client_id\":\"u%d\",\"capacity\":1,\"rate_per_sec\":1}", i % 5);
        if (i == 5) /* u0 once more, behind the others */
            assert_int_equal(http_request(w->port, "DELETE", "/clients/delete?id=u0", "", NULL, NULL), 200);
        assert_int_equal(http_request(w->port, "POST", "/clients/register", "", json, NULL), 201);
    }
    client_open(&c, w->port);
    client_send(&c, "GET /clients/list?limit=3 HTTP/1.1\r\nHost: h\r\n\r\n");
    const struct message *page = client_expect(&c, 200);
    assert_non_null(strstr(page->body.p, "\"next\":\"u3\""));
    assert_non_null(message_field(page, "Link"));
    assert_int_equal(sscanf(message_field(page, "Link"), "<%63[^>]>; rel=\"next\"", next), 1);
    client_close(&c);
    assert_int_equal(http_request(w->port, "DELETE", "/clients/delete?id=u3", "", NULL, NULL), 200);
    go_on_with(w, upgrade(w));
    client_open(&c, w->port);
    client_sendf(&c, "GET %s HTTP/1.1\r\nHost: h\r\n\r\n", next);
    page = client_expect(&c, 200);
    assert_memory_equal(page->body.p, "{\"clients\":[{\"client_id\":\"u4\",", 30);
    assert_non_null(strstr(page->body.p, "{\"client_id\":\"u0\","));
    assert_non_null(strstr(page->body.p, "],\"total\":4,\"next\":null}"));
    client_close(&c);
    world_finish(w);
}

static int get_from(struct world *w, const char *source_ip)
{
    struct client c;

    client_open_from(&c, source_ip, w->port);
    client_send(&c, "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    int status = client_expect(&c, 0)->status;
    client_close(&c);
    return status;
}

/* Who is not registered goes on with what is left, too; the overflow bucket's share, too. */
static void test_buckets_go_over(void **state)
{
    struct world *w = *state;
    char ip[32];

    world_origin(w, script, NULL, NULL);
    world_start(w, "\"rate_limit\": {\"default\": {\"capacity\": 3, \"rate_per_sec\": 0.0001}, \"max_tracked\": 50}");
    for (int i = 1; i <= 60; i++) {
        snprintf(ip, sizeof ip, "127.0.%d.1", i);
        int status = get_from(w, ip);
        CHECK(status == (i <= 53 ? 200 : 429), "%s: %d", ip, status); /* from 51 on they share three tokens */
    }
    for (int i = 0; i < 2; i++) {
        go_on_with(w, upgrade(w));
        for (int j = 1; j <= 50; j++) {
            snprintf(ip, sizeof ip, "127.0.%d.1", j);
            assert_int_equal(get_from(w, ip), 200);
        }
    }
    go_on_with(w, upgrade(w));
    for (int j = 1; j <= 60; j++) {
        snprintf(ip, sizeof ip, "127.0.%d.1", j);
        assert_int_equal(get_from(w, ip), 429);
    }
    assert_int_equal(get_from(w, "127.1.0.1"), 200); /* of another network */
    world_finish(w);
}

/* A unix socket keeps its file through an upgrade, and loses it at the stop. */
static void test_unix_socket(void **state)
{
    struct world *w = *state;
    char extra[300];
    struct client c;

    world_origin(w, script, NULL, NULL);
    snprintf(extra, sizeof extra, "\"listen\": \"unix:%s\"", world_path(w, "s"));
    world_start(w, extra);
    for (int i = 0; i < 3; i++) {
        go_on_with(w, upgrade(w));
        client_open_unix(&c, world_path(w, "s"));
        client_send(&c, "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
        client_expect(&c, 200);
        client_close(&c);
    }
    world_stop(w);
    assert_int_not_equal(access(world_path(w, "s"), F_OK), 0);
    w->finished = true;
}

/* Connects anew for each request, until nobody listens any more. */
static void *knock(void *arg)
{
    struct asker *a = arg;
    struct client c = {0};

    while (!a->failed && client_try_open(&c, a->port)) {
        bool sent = client_try_send(&c, GET, strlen(GET));
        a->failed += !sent || client_read(&c, false) != READ_OK || c.response.status != 200;
        a->answered += !a->failed;
        client_close(&c);
    }
    return NULL;
}

/* The new process listens elsewhere: who waits at the old address while nobody accepts is served by it, too. */
static void test_another_address(void **state)
{
    struct world *w = *state;
    struct asker askers[CLIENTS];
    unsigned failed = 0;

    world_origin(w, script, NULL, NULL);
    world_start(w, QUIET);
    for (int i = 0; i < CLIENTS; i++) {
        askers[i] = (struct asker){.port = w->port};
        assert_int_equal(pthread_create(&askers[i].thread, NULL, knock, &askers[i]), 0);
    }
    rest();
    w->port = port_reserve();
    world_config(w, QUIET);
    go_on_with(w, upgrade(w));
    for (int i = 0; i < CLIENTS; i++) {
        pthread_join(askers[i].thread, NULL);
        failed += askers[i].failed;
    }
    assert_true(failed < CLIENTS / 2); /* each waited; only who came in the instant of the closing may be lost */
    assert_int_equal(http_get(w->port, "/", NULL), 200);
    world_finish(w);
}

/* ... and it has told that it knows of the end of the one before. */
static void take_over(struct world *w)
{
    size_t mark = daemon_mark(&w->daemon);

    go_on_with(w, upgrade(w));
    daemon_expect_event(&w->daemon, mark, "taken_over", NULL);
}

/* The same port for all hosts, and back; the file of a unix socket is removed by the one that leaves it. */
static void test_another_host(void **state)
{
    struct world *w = *state;
    char extra[400];

    world_origin(w, script, NULL, NULL);
    world_start(w, NULL);
    snprintf(extra, sizeof extra, "\"listen\": \":%d\"", w->port);
    world_config(w, extra);
    take_over(w);
    assert_int_equal(http_get(w->port, "/", NULL), 200);
    snprintf(extra, sizeof extra, "\"listen\": \"unix:%s\"", world_path(w, "s"));
    world_config(w, extra);
    take_over(w);
    assert_false(client_can_connect(w->port));
    assert_int_equal(access(world_path(w, "s"), F_OK), 0);
    world_config(w, NULL);
    take_over(w);
    assert_int_not_equal(access(world_path(w, "s"), F_OK), 0);
    assert_int_equal(http_get(w->port, "/", NULL), 200);
    world_finish(w);
}

/* ---- what is known of backends goes over ---- */

enum { SOUND, SICK, IN_DENIAL };

/* Says how it is, which is its mode. Other requests are counted; sick, it cuts them off, and in denial, too. */
static void patient(struct origin_conn *c)
{
    while (origin_read(c)) {
        bool sick = origin_mode(c) == SICK;

        if (strncmp(c->request.target, "/health", 7) == 0) {
            if (!origin_sendf(c, "HTTP/1.1 %s\r\nContent-Length: 0\r\n\r\n", sick ? "503 Sick" : "200 OK"))
                return;
            continue;
        }
        atomic_fetch_add((atomic_uint *)origin_arg(c->origin), 1);
        if (origin_mode(c) != SOUND || !origin_answer(c, "ok"))
            return;
    }
}

static void ask_often(struct world *w)
{
    for (int i = 0; i < 20; i++)
        assert_int_equal(http_get(w->port, "/", NULL), 200);
}

#define CHECKS(path) "\"health_check\": {\"interval\": \"1h\", \"rise\": 3, \"path\": \"" path "\"}"

/* A backend that is down gets nothing after an upgrade, until its checks say so: `rise` of them, not the first. */
static void test_a_downed_backend_stays_down(void **state)
{
    struct world *w = *state;
    atomic_uint served = 0;

    origin_set_mode(world_origin(w, patient, &served, NULL), SICK);
    world_origin(w, script, NULL, NULL);
    world_start(w, CHECKS("/health"));
    daemon_expect_event(&w->daemon, 0, "backend_down", "backend=b1");
    origin_set_mode(w->origins[0], SOUND);
    for (unsigned i = 2; i < 4; i++) {
        go_on_with(w, upgrade(w));
        origin_wait_requests(w->origins[0], i); /* the new one's first check, which succeeds */
        ask_often(w);
        assert_int_equal(served, 0);
    }
    size_t mark = daemon_mark(&w->daemon);
    world_config(w, CHECKS("/health2")); /* asked at once: the third success */
    daemon_signal(&w->daemon, SIGHUP);
    daemon_expect_event(&w->daemon, mark, "backend_up", "backend=b1");
    ask_often(w);
    assert_int_equal(served, 10);
    world_finish(w);
}

static void test_an_ejection_goes_on(void **state)
{
    struct world *w = *state;
    atomic_uint served = 0;

    origin_set_mode(world_origin(w, patient, &served, NULL), SICK);
    world_origin(w, script, NULL, NULL);
    world_start(w, "\"passive_check\": {\"failures\": 1, \"ejection\": \"1h\", \"max_ejection\": \"2h\"}");
    ask_often(w);
    assert_int_equal(served, 1);
    origin_set_mode(w->origins[0], SOUND);
    for (int i = 0; i < 2; i++) {
        go_on_with(w, upgrade(w));
        ask_often(w);
    }
    assert_int_equal(served, 1);
    world_finish(w);
}

/* One is down before and after it, the other ejected, and sick by then: that is no news, whenever the first checks of
 * the new process end. */
static void test_what_was_down_is_no_news(void **state)
{
    struct world *w = *state;
    atomic_uint served = 0;

    origin_set_mode(world_origin(w, patient, &served, NULL), SICK);
    origin_set_mode(world_origin(w, patient, &served, NULL), IN_DENIAL);
    world_origin(w, script, NULL, NULL);
    world_start(w, CHECKS("/health") ", \"passive_check\": {\"failures\": 1, \"ejection\": \"1h\", "
                                     "\"max_ejection\": \"2h\"}");
    daemon_expect_event(&w->daemon, 0, "backend_down", "backend=b1");
    ask_often(w);
    daemon_expect_event(&w->daemon, 0, "backend_down", "backend=b2");
    assert_int_equal(served, 1);
    origin_set_mode(w->origins[1], SICK);
    for (unsigned i = 0; i < 3; i++) {
        size_t mark = daemon_mark(&w->daemon);
        take_over(w);
        origin_wait_requests(w->origins[0], 2 + i);
        origin_wait_requests(w->origins[1], 3 + i);
        ask_often(w);
        assert_int_equal(daemon_count_events(&w->daemon, mark, "backend_down", NULL), 0);
        assert_int_equal(daemon_count_events(&w->daemon, mark, "backend_up", NULL), 0);
    }
    assert_int_equal(served, 1);
    world_finish(w);
}

enum { CLOSES, KEEPS };

/* Closes each connection that has been idle for 800 ms, and counts those; or leaves that to the other side. */
static void closing_script(struct origin_conn *c)
{
    for (;;) {
        struct pollfd p = {.fd = c->in.fd, .events = POLLIN};
        if (poll(&p, 1, origin_mode(c) == CLOSES ? 800 : -1) == 0) {
            atomic_fetch_add((atomic_uint *)origin_arg(c->origin), 1);
            return;
        }
        if (!origin_read(c) || !origin_answer(c, "here"))
            return;
    }
}

/* Asks once on a connection of its own, and waits until the backend's has been closed. */
static void ask_and_wait(struct world *w)
{
    assert_int_equal(http_get(w->port, "/", NULL), 200);
    origin_wait_closed(w->origins[0]);
}

/* How long the backend keeps idle connections need not be found out anew: they are closed before, though it would not
 * have done so. */
static void test_the_keep_time_goes_over(void **state)
{
    struct world *w = *state;
    atomic_uint closed = 0;
    unsigned rounds = 0;

    world_origin(w, closing_script, &closed, NULL);
    world_start(w, "\"timeouts\": {\"backend_idle\": \"1h\"}");
    while (closed == rounds) { /* a busy machine may need more than two that agree */
        assert_true(++rounds <= 10);
        ask_and_wait(w);
    }
    assert_true(rounds >= 3);
    origin_set_mode(w->origins[0], KEEPS);
    size_t mark = daemon_mark(&w->daemon);
    world_config(w, "\"timeouts\": {\"backend_idle\": \"2h\"}");
    daemon_signal(&w->daemon, SIGHUP);
    daemon_expect_event(&w->daemon, mark, "reload", NULL);
    ask_and_wait(w);
    for (int i = 0; i < 2; i++) {
        take_over(w);
        ask_and_wait(w);
    }
    world_finish(w);
}

static void wait_for_file(struct world *w, const char *name)
{
    uint64_t deadline = deadline_in(patience_ms());

    for (; access(world_path(w, name), F_OK) != 0; rest())
        CHECK(left_ms(deadline) > 0, "there is no %s", name);
}

static void expect_failure(struct world *w, const char *cause)
{
    size_t mark = daemon_mark(&w->daemon);

    daemon_signal(&w->daemon, SIGUSR2);
    const char *said = log_field(daemon_expect_event(&w->daemon, mark, "upgrade_failed", NULL), "cause");
    CHECK(strstr(said, cause), "the cause is \"%s\" instead of \"%s\"", said, cause);
}

static void test_failures_change_nothing(void **state)
{
    struct world *w = *state;
    struct asker askers[CLIENTS];
    atomic_bool stop;
    char extra[128], binary[300];

    world_origin(w, script, NULL, NULL);
    world_config(w, QUIET);
    snprintf(binary, sizeof binary, "%s", world_path(w, "lb"));
    const char *const copy[] = {"/bin/sh", "-c", "cp \"$0\" lb", NULL, NULL};
    const char *argv[5];
    char from[300];
    snprintf(from, sizeof from, "%s/loadbalancer", build_dir());
    memcpy(argv, copy, sizeof argv);
    argv[3] = from;
    assert_int_equal(world_run(w, argv, 10, NULL), 0);
    daemon_start(&w->daemon, w->dir, "loadbalancer", (const char *const[]){binary, NULL});
    daemon_expect_event(&w->daemon, 0, "listening", NULL);
    assert_int_equal(http_request(w->port, "POST", "/clients/register", "",
                                  "{\"client_id\":\"u\",\"capacity\":300,\"rate_per_sec\":0.0001}", NULL),
                     201);
    begin_asking(w, askers, "X-Client-ID: u\r\n", &stop);

    /* A config that is not good; an address that is taken, which is found out when the files are given away. */
    struct bytes good = file_content(world_path(w, "config.json"));
    file_put(world_path(w, "config.json"), "{");
    expect_failure(w, "the new process ended before it was ready (exit status 2)");
    snprintf(extra, sizeof extra, QUIET ", \"listen\": \"127.0.0.1:%d\"", world_taken_port(w));
    for (int i = 0; i < 3; i++) {
        world_config(w, extra);
        expect_failure(w, "the new process ended before it was ready (exit status 1)");
    }
    file_put(world_path(w, "config.json"), good.p);
    bytes_free(&good);

    /* What could not be done has left nothing forbidden. */
    size_t mark = daemon_mark(&w->daemon);
    daemon_signal(&w->daemon, SIGHUP);
    daemon_expect_event(&w->daemon, mark, "reload", NULL);
    assert_int_equal(daemon_count_events(&w->daemon, mark, "reload_failed", NULL), 0);

    /* No program, and one that never gets ready. */
    assert_int_equal(unlink(binary), 0);
    expect_failure(w, "cannot be started: No such file or directory");
    file_put(binary, "#!/bin/sh\n: >begun\nexec sleep 300\n");
    assert_int_equal(chmod(binary, 0755), 0);
    daemon_signal(&w->daemon, SIGUSR2);
    wait_for_file(w, "begun"); /* two signals at once would be one */
    expect_failure(w, "an upgrade is under way");
    mark = daemon_mark(&w->daemon);
    daemon_signal(&w->daemon, SIGHUP);
    const cJSON *line = daemon_expect_event(&w->daemon, mark, "reload_failed", NULL);
    assert_string_equal(log_field(line, "cause"), "an upgrade is under way");
    assert_int_equal(http_get(w->port, "/", NULL), 200);
    end_asking(askers, &stop);
    while (http_request(w->port, "GET", "/", "X-Client-ID: u\r\n", NULL, NULL) == 200)
        ;
    assert_int_equal(origin_requests(w->origins[0]), 301);
    struct bytes u = {0};
    assert_int_equal(http_get(w->port, "/clients/get?id=u", &u), 200);
    CHECK(strstr(u.p, "\"allowed\":300,"), "%s", u.p); /* the totals have gone on, too */
    bytes_free(&u);
    daemon_signal(&w->daemon, SIGTERM);
    line = daemon_expect_event(&w->daemon, mark, "upgrade_failed", NULL);
    assert_string_equal(log_field(line, "cause"), "the balancer is stopping");
    assert_int_equal(daemon_wait(&w->daemon), 0);
    w->finished = true;
}

/* The daemon's program, as one of the test's own. */
static void copy_program(struct world *w)
{
    char from[300];

    snprintf(from, sizeof from, "%s/loadbalancer", build_dir());
    assert_int_equal(world_run(w, (const char *const[]){"/bin/cp", from, "lb", NULL}, 10, NULL), 0);
}

/* A program that never gets ready is started as the new process. */
static void begin_an_upgrade_without_end(struct world *w, const char *extra)
{
    char binary[300];

    world_origin(w, script, NULL, NULL);
    world_config(w, extra);
    snprintf(binary, sizeof binary, "%s", world_path(w, "lb"));
    copy_program(w);
    daemon_start(&w->daemon, w->dir, "loadbalancer", (const char *const[]){binary, NULL});
    daemon_expect_event(&w->daemon, 0, "listening", NULL);
    assert_int_equal(unlink(binary), 0);
    file_put(binary, "#!/bin/sh\n: >begun\nexec sleep 300\n");
    assert_int_equal(chmod(binary, 0755), 0);
    daemon_signal(&w->daemon, SIGUSR2);
    wait_for_file(w, "begun");
}

/* The upgrade is given up by the first; the second finds the drain that follows, or goes before it. */
static void test_two_signals_during_an_upgrade(void **state)
{
    struct world *w = *state;
    char extra[300];

    snprintf(extra, sizeof extra, "\"listen\": \"unix:%s\"", world_path(w, "s"));
    begin_an_upgrade_without_end(w, extra);
    daemon_signal(&w->daemon, SIGINT);
    daemon_signal(&w->daemon, SIGTERM);
    assert_int_equal(daemon_wait(&w->daemon), 0);
    daemon_expect_event(&w->daemon, 0, "upgrade_failed", NULL);
    daemon_expect_event(&w->daemon, 0, "drain", "signal=SIGINT");
    daemon_expect_event(&w->daemon, 0, "stop", "cut=0 saved=yes");
    daemon_expect_clean_stderr(&w->daemon);
    assert_int_not_equal(access(world_path(w, "s"), F_OK), 0);
    w->finished = true;
}

/* The second cuts off what is in flight, as ever. */
static void test_a_second_signal_is_not_lost_in_an_upgrade(void **state)
{
    struct world *w = *state;
    struct client tunnel;

    begin_an_upgrade_without_end(w, NULL);
    client_open(&tunnel, w->port);
    client_send(&tunnel, "GET /tunnel HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n");
    client_expect_head(&tunnel, 101);
    daemon_signal(&w->daemon, SIGINT);
    daemon_signal(&w->daemon, SIGTERM);
    assert_int_equal(daemon_wait(&w->daemon), 3);
    daemon_expect_event(&w->daemon, 0, "stop", "cut=1 saved=yes");
    client_close(&tunnel);
    w->finished = true;
}

static void open_tunnel(struct client *tunnel, const struct world *w)
{
    client_open(tunnel, w->port);
    client_send(tunnel, "GET /tunnel HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n");
    client_expect_head(tunnel, 101);
}

static void expect_echo(struct client *tunnel, const char *text)
{
    client_send(tunnel, text);
    while (tunnel->in.in.n < strlen(text))
        assert_int_equal(stream_fill(&tunnel->in, deadline_in(patience_ms())), READ_OK);
    assert_memory_equal(tunnel->in.in.p, text, strlen(text));
    bytes_drop(&tunnel->in.in, strlen(text));
}

/* To the process before, which only goes on with what it has under way: it begins nothing any more. A first signal asks
 * for what it does already; a second one cuts off. The new one has nothing to do with it. */
static void signals_behind_an_upgrade(struct world *w, int signals)
{
    struct client tunnel;

    world_origin(w, script, NULL, NULL);
    world_start(w, NULL);
    open_tunnel(&tunnel, w);
    pid_t fresh = upgrade(w);
    expect_failure(w, "the balancer is stopping");
    size_t mark = daemon_mark(&w->daemon);
    daemon_signal(&w->daemon, SIGHUP);
    const cJSON *line = daemon_expect_event(&w->daemon, mark, "reload_failed", NULL);
    assert_string_equal(log_field(line, "cause"), "an upgrade is under way");
    daemon_signal(&w->daemon, SIGTERM);
    daemon_expect_event(&w->daemon, mark, "drain", "signal=SIGTERM exchanges=1");
    expect_echo(&tunnel, "still here");
    if (signals == 2) {
        daemon_signal(&w->daemon, SIGTERM);
        assert_int_equal(daemon_wait(&w->daemon), 3);
        daemon_expect_event(&w->daemon, mark, "stop", "cut=1");
        client_close(&tunnel);
    } else {
        client_close(&tunnel);
        assert_int_equal(daemon_wait(&w->daemon), 0);
        daemon_expect_event(&w->daemon, mark, "stop", "cut=0");
    }
    w->daemon.pid = fresh;
    assert_int_equal(http_get(w->port, "/", NULL), 200);
    world_finish(w);
}

static void test_one_signal_behind_an_upgrade(void **state)
{
    signals_behind_an_upgrade(*state, 1);
}

static void test_two_signals_behind_an_upgrade(void **state)
{
    signals_behind_an_upgrade(*state, 2);
}

static void begin_upload(struct client *c, const struct world *w)
{
    client_open(c, w->port);
    client_send(c, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\n1");
}

/* What is under way in the process before is a part of the service, which has stopped when the new one has ended: that
 * waits, and serves what still goes over. */
static void test_a_stop_waits_for_the_process_before(void **state)
{
    struct world *w = *state;
    struct client tunnel, upload;

    world_origin(w, script, NULL, NULL);
    world_start(w, NULL);
    open_tunnel(&tunnel, w);
    begin_upload(&upload, w);
    origin_wait_requests(w->origins[0], 2);
    size_t mark = daemon_mark(&w->daemon);
    pid_t fresh = upgrade(w);
    assert_int_equal(kill(fresh, SIGTERM), 0);
    daemon_expect_event(&w->daemon, mark, "drain", "signal=SIGTERM");
    for (int i = 0; i < 50; i++, rest())
        expect_echo(&tunnel, "still here");
    client_send(&upload, "23GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_string_equal(client_expect(&upload, 200)->body.p, "3");
    assert_string_equal(client_expect(&upload, 200)->body.p, "0");
    client_expect_end(&upload);
    expect_echo(&tunnel, "still here");
    client_close(&upload);
    client_close(&tunnel);
    go_on_with(w, fresh);
    assert_int_equal(daemon_wait(&w->daemon), 0);
    daemon_expect_event(&w->daemon, mark, "taken_over", "connections=1");
    w->finished = true;
}

/* Whoever does not want to wait for it says so. */
static void test_a_hurried_stop_waits_for_no_process_before(void **state)
{
    struct world *w = *state;
    struct client tunnel;

    world_origin(w, script, NULL, NULL);
    world_start(w, NULL);
    open_tunnel(&tunnel, w);
    size_t mark = daemon_mark(&w->daemon);
    pid_t fresh = upgrade(w);
    assert_int_equal(kill(fresh, SIGTERM), 0);
    daemon_expect_event(&w->daemon, mark, "drain", "signal=SIGTERM");
    assert_int_equal(kill(fresh, SIGINT), 0);
    daemon_expect_event(&w->daemon, mark, "stop", "cut=0 saved=yes");
    expect_echo(&tunnel, "still here");
    client_close(&tunnel);
    go_on_with(w, fresh);
    assert_int_equal(daemon_wait(&w->daemon), 0);
    w->finished = true;
}

/* Nor does the process before wait longer for a connection that is only being closed, whatever still comes on it. */
static void test_an_upgrade_does_not_wait_for_closing_connections(void **state)
{
    struct world *w = *state;
    struct client closing;

    world_origin(w, script, NULL, NULL);
    world_start(w, NULL);
    client_open(&closing, w->port);
    client_send(&closing, "nonsense\r\n\r\n");
    client_expect(&closing, 400);
    pid_t fresh = upgrade(w);
    for (int i = 0; i < 150 && daemon_is_running(&w->daemon); i++) { /* it would be heard out for 300 */
        client_try_send(&closing, "x", 1);
        usleep(100 * 1000);
    }
    CHECK(!daemon_is_running(&w->daemon), "the process before still hears it out");
    client_close(&closing);
    go_on_with(w, fresh);
    world_finish(w);
}

/* A second upgrade while the first process still has something under way: its connection goes on through both. */
static void test_two_upgrades_in_a_row(void **state)
{
    struct world *w = *state;
    struct client upload;

    world_origin(w, script, NULL, NULL);
    world_start(w, NULL);
    begin_upload(&upload, w);
    origin_wait_requests(w->origins[0], 1);
    pid_t second = upgrade(w);
    size_t mark = daemon_mark(&w->daemon);
    assert_int_equal(kill(second, SIGUSR2), 0);
    pid_t third = (pid_t)log_number(daemon_expect_event(&w->daemon, mark, "upgrade", "duration_ms=*"), "pid");
    client_send(&upload, "23GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_string_equal(client_expect(&upload, 200)->body.p, "3");
    assert_string_equal(client_expect(&upload, 200)->body.p, "0");
    go_on_with(w, second);
    go_on_with(w, third);
    client_send(&upload, "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    client_expect(&upload, 200);
    client_close(&upload);
    world_finish(w);
}

/* No file may grow beyond that. The log stays below. */
static void limit_file_size(const struct world *w, rlim_t size)
{
    struct rlimit limit = {size, RLIM_INFINITY};

    assert_int_equal(prlimit(w->daemon.pid, RLIMIT_FSIZE, &limit, NULL), 0);
}

static int use_token(struct world *w)
{
    return http_request(w->port, "GET", "/", "X-Client-ID: u\r\n", NULL, NULL);
}

/* The old process cannot save what the new one would have to load: it goes on, with the tokens as they were. */
static void test_a_full_disk(void **state)
{
    struct world *w = *state;
    struct bytes clients = {0};

    signal(SIGXFSZ, SIG_IGN); /* the daemon inherits it: its writes fail with EFBIG */
    for (int i = 0; i < 100; i++)
        bytes_addf(&clients, "%s{\"client_id\":\"client-%0100d\",\"capacity\":1,\"rate_per_sec\":1}",
                   i ? ",\n"
                     : "{\"clients\":[\n{\"client_id\":\"u\",\"capacity\":5,\"rate_per_sec\":0.0001},\n{\"client_id\":"
                       "\"other\",\"capacity\":5,\"rate_per_sec\":1},\n",
                   i);
    bytes_addf(&clients, "\n]}\n");
    file_put(world_path(w, "clients.json"), clients.p);
    bytes_free(&clients);
    world_origin(w, script, NULL, NULL);
    world_start(w, QUIET);
    assert_int_equal(use_token(w), 200);
    limit_file_size(w, 8192);
    for (int i = 0; i < 2; i++) {
        expect_failure(w, "the clients cannot be saved");
        assert_int_equal(use_token(w), 200);
    }
    limit_file_size(w, RLIM_INFINITY);
    assert_int_equal(http_request(w->port, "DELETE", "/clients/delete?id=other", "", NULL, NULL), 200);
    go_on_with(w, upgrade(w));
    assert_int_equal(use_token(w), 200);
    assert_int_equal(use_token(w), 200);
    assert_int_equal(use_token(w), 429);
    world_finish(w);
}

/* What only the old process knew is not forgotten when the new one fails after its files were given away. */
static void test_buckets_come_back(void **state)
{
    struct world *w = *state;
    static const char *const limit =
        "\"rate_limit\": {\"default\": {\"capacity\": 3, \"rate_per_sec\": 0.0001}, \"max_tracked\": 1}";
    char extra[300];

    world_origin(w, script, NULL, NULL);
    world_start(w, limit);
    assert_int_equal(get_from(w, "127.0.0.9"), 200);
    for (int i = 0; i < 3; i++)
        assert_int_equal(get_from(w, "127.1.0.1"), 200); /* by its network's overflow bucket */
    snprintf(extra, sizeof extra, "%s, \"listen\": \"127.0.0.1:%d\"", limit, world_taken_port(w));
    world_config(w, extra);
    for (int i = 0; i < 2; i++) {
        expect_failure(w, "the new process ended before it was ready (exit status 1)");
        assert_int_equal(get_from(w, "127.0.0.9"), 200);
    }
    assert_int_equal(get_from(w, "127.0.0.9"), 429);
    assert_int_equal(get_from(w, "127.1.0.2"), 429);
    assert_int_equal(get_from(w, "127.2.0.1"), 200);
    daemon_signal(&w->daemon, SIGTERM);
    assert_int_equal(daemon_wait(&w->daemon), 0);
    w->finished = true;
}

/* The new process fails after the files were given away, and they are damaged when they come back. That is a failure,
 * whatever it cuts off: nobody was in haste. */
static void test_files_that_come_back_damaged(void **state)
{
    struct world *w = *state;
    struct client tunnel;
    char binary[300], extra[128];

    world_origin(w, script, NULL, NULL);
    world_config(w, QUIET);
    snprintf(binary, sizeof binary, "%s", world_path(w, "lb"));
    copy_program(w);
    daemon_start(&w->daemon, w->dir, "loadbalancer", (const char *const[]){binary, NULL});
    daemon_expect_event(&w->daemon, 0, "listening", NULL);
    client_open(&tunnel, w->port);
    client_send(&tunnel, "GET /tunnel HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n");
    client_expect_head(&tunnel, 101);
    snprintf(extra, sizeof extra, QUIET ", \"listen\": \"127.0.0.1:%d\"", world_taken_port(w));
    world_config(w, extra);
    assert_int_equal(rename(binary, world_path(w, "lb-before")), 0);
    file_put(binary, "#!/bin/sh\n./lb-before\nstatus=$?\necho '{' >clients.json\nexit $status\n");
    assert_int_equal(chmod(binary, 0755), 0);
    daemon_signal(&w->daemon, SIGUSR2);
    assert_int_equal(daemon_wait(&w->daemon), 1);
    daemon_expect_event(&w->daemon, 0, "upgrade_failed", NULL);
    daemon_expect_event(&w->daemon, 0, "stop", "level=error finished=0 cut=1 saved=no");
    client_close(&tunnel);
    w->finished = true;
}

/* ---- service managers ---- */

static int bound(int port)
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1;

    in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one), 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&in, sizeof in), 0);
    assert_int_equal(listen(fd, 16), 0);
    return fd;
}

static void start_with(struct world *w, int fd)
{
    char command[400];

    snprintf(command, sizeof command, "LISTEN_PID=$$ LISTEN_FDS=1 exec %s/loadbalancer 3<&%d", build_dir(), fd);
    daemon_start(&w->daemon, w->dir, "loadbalancer", (const char *const[]){"/bin/bash", "-c", command, NULL});
}

static void test_socket_activation(void **state)
{
    struct world *w = *state;
    int fd = bound(w->port);

    world_origin(w, script, NULL, NULL);
    world_config(w, NULL);
    start_with(w, fd);
    daemon_expect_event(&w->daemon, 0, "listening", NULL);
    close(fd);
    assert_int_equal(http_get(w->port, "/", NULL), 200);
    go_on_with(w, upgrade(w));
    assert_int_equal(http_get(w->port, "/", NULL), 200);
    world_stop(w);
    fd = bound(port_reserve());
    start_with(w, fd);
    close(fd);
    assert_int_equal(daemon_wait(&w->daemon), 1);
    struct bytes said = daemon_stderr(&w->daemon);
    assert_non_null(strstr(said.p, "none of the sockets in LISTEN_FDS listens on 127.0.0.1"));
    bytes_free(&said);
    w->finished = true;
}

/* ---- the process before, played by the test: one that ends early, and one of a version that says less ---- */

static int moved_up(int fd)
{
    int up = fcntl(fd, F_DUPFD, 50); /* out of the way of the numbers that a shell gives */

    assert_true(up >= 0);
    close(fd);
    return up;
}

/* Waits until the one that takes over says that. */
static void expect_letter(int control, char letter)
{
    struct pollfd p = {.fd = control, .events = POLLIN};
    char got = 0;

    CHECK(poll(&p, 1, patience_ms()) == 1, "'%c' is not said", letter);
    assert_int_equal(recv(control, &got, 1, 0), 1);
    assert_int_equal(got, letter);
}

/* Starts a process that is to take the place of one that listens at `port`. Returns our end of the connection to it
 * once it has said that it is prepared. */
static int begin_successor(struct world *w, int port)
{
    char command[400];
    int ends[2], fd = moved_up(bound(port));

    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, ends), 0);
    assert_int_equal(fcntl(ends[0], F_SETFD, FD_CLOEXEC), 0);
    ends[1] = moved_up(ends[1]);
    snprintf(command, sizeof command, "LOADBALANCER_UPGRADE=3,4,0 exec %s/loadbalancer 3<&%d %d<&- 4<&%d %d<&-",
             build_dir(), ends[1], ends[1], fd, fd);
    daemon_start(&w->daemon, w->dir, "loadbalancer", (const char *const[]){"/bin/bash", "-c", command, NULL});
    close(ends[1]);
    close(fd);
    expect_letter(ends[0], 'p');
    return ends[0];
}

static void expect_nobody_at(int port)
{
    uint64_t deadline = deadline_in(patience_ms());

    for (; client_can_connect(port); rest())
        CHECK(left_ms(deadline) > 0, "port %d is still served", port);
}

/* One that has ended before it could say that its files are free leaves no address behind. */
static void test_the_end_before_its_time(void **state)
{
    struct world *w = *state;
    int old = w->port;

    world_origin(w, script, NULL, NULL);
    w->port = port_reserve();
    world_config(w, NULL);
    int control = begin_successor(w, old);
    assert_int_equal(close(control), 0);
    daemon_expect_event(&w->daemon, 0, "taken_over", "connections=0");
    expect_nobody_at(old);
    assert_int_equal(http_get(w->port, "/", NULL), 200);
    world_finish(w);
}

/* With many backends that takes its time, and from then on requests wait. */
static void test_checks_leave_before_it_is_prepared(void **state)
{
    struct world *w = *state;
    char config[256];
    int old = w->port, port = port_reserve(), backend = bound(port);

    w->port = port_reserve();
    snprintf(config, sizeof config,
             "{\"listen\": \"127.0.0.1:%d\", \"log\": {\"format\": \"json\"}, "
             "\"backends\": [{\"address\": \"127.0.0.1:%d\"}], \"health_check\": {\"interval\": \"1h\"}}",
             w->port, port);
    file_put(world_path(w, "config.json"), config);
    int control = begin_successor(w, old);
    struct pollfd p = {.fd = backend, .events = POLLIN};
    daemon_signal(&w->daemon, SIGSTOP); /* what it has not begun by now, it does not */
    CHECK(poll(&p, 1, patience_ms()) == 1, "it is prepared, and has asked no backend");
    daemon_signal(&w->daemon, SIGCONT);
    assert_int_equal(close(control), 0);
    daemon_expect_event(&w->daemon, 0, "taken_over", NULL);
    close(backend);
    world_finish(w);
}

/* Back to the address of the one before, of which it has not said that it has left it. */
static void test_back_to_an_address_not_left(void **state)
{
    struct world *w = *state;
    int old = w->port, fresh = port_reserve();

    world_origin(w, script, NULL, NULL);
    w->port = fresh;
    world_config(w, NULL);
    int control = begin_successor(w, old);
    assert_int_equal(send(control, "g", 1, 0), 1);
    expect_letter(control, 'r');
    w->port = old;
    world_config(w, NULL);
    size_t mark = daemon_mark(&w->daemon);
    daemon_signal(&w->daemon, SIGHUP);
    daemon_expect_event(&w->daemon, mark, "reload", NULL);
    daemon_expect_event(&w->daemon, mark, "listening", NULL);
    expect_nobody_at(fresh);
    assert_int_equal(http_get(old, "/", NULL), 200);
    assert_int_equal(close(control), 0);
    daemon_expect_event(&w->daemon, mark, "taken_over", NULL);
    assert_int_equal(http_get(old, "/", NULL), 200);
    world_finish(w);
}

/* An older version tells buckets as tokens, and of overflow buckets the emptiest. */
static void test_buckets_of_an_older_version(void **state)
{
    static const char buckets[] = "bprefix 64\n127.0.0.9 2097152\n* 1048576\n";
    struct world *w = *state;
    int old = w->port;

    world_origin(w, script, NULL, NULL);
    w->port = port_reserve();
    world_config(w, "\"rate_limit\": {\"default\": {\"capacity\": 3, \"rate_per_sec\": 0.0001}}");
    int control = begin_successor(w, old);
    assert_int_equal(send(control, buckets, strlen(buckets), 0), strlen(buckets));
    assert_int_equal(send(control, "g", 1, 0), 1);
    expect_letter(control, 'r');
    assert_int_equal(close(control), 0);
    daemon_expect_event(&w->daemon, 0, "taken_over", NULL);
    for (int i = 0; i < 3; i++)
        assert_int_equal(get_from(w, "127.0.0.9"), i < 2 ? 200 : 429);
    for (int i = 0; i < 2; i++)
        assert_int_equal(get_from(w, "127.1.0.1"), i < 1 ? 200 : 429);
    world_finish(w);
}

/* The old address is free as soon as the new process serves, however long the old one has something under way. */
static void test_the_old_address_is_left_at_once(void **state)
{
    struct world *w = *state;
    struct client tunnel;
    int old = w->port;

    world_origin(w, script, NULL, NULL);
    world_start(w, NULL);
    client_open(&tunnel, w->port);
    client_send(&tunnel, "GET /tunnel HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n");
    client_expect_head(&tunnel, 101);
    w->port = port_reserve();
    world_config(w, NULL);
    size_t mark = daemon_mark(&w->daemon);
    pid_t fresh = upgrade(w);
    expect_nobody_at(old);
    assert_int_equal(http_get(w->port, "/", NULL), 200);
    assert_int_equal(daemon_count_events(&w->daemon, mark, "taken_over", NULL), 0);
    client_close(&tunnel);
    go_on_with(w, fresh);
    daemon_expect_event(&w->daemon, mark, "taken_over", NULL);
    world_finish(w);
}

#define WATCHDOG_MS 200

/* Waits until a datagram begins so; others are passed over. */
static void expect_told(int fd, const char *text)
{
    char got[256];
    uint64_t deadline = deadline_in(patience_ms());

    for (;;) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        CHECK(poll(&p, 1, left_ms(deadline)) == 1, "\"%s\" is not told", text);
        ssize_t n = recv(fd, got, sizeof got - 1, 0);
        assert_true(n > 0);
        got[n] = '\0';
        if (strncmp(got, text, strlen(text)) == 0)
            return;
    }
}

/* Whole milliseconds between two datagrams of the watchdog's that come one behind the other. */
static uint64_t between_pings(int fd)
{
    char got[256];

    while (recv(fd, got, sizeof got, MSG_DONTWAIT) > 0)
        ; /* what lies there says nothing of when it came */
    expect_told(fd, "WATCHDOG=1");
    uint64_t last = now_ms();
    expect_told(fd, "WATCHDOG=1");
    return now_ms() - last;
}

static void test_notify(void **state)
{
    struct world *w = *state;
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_DGRAM, 0);
    char expected[64], whole[32];

    snprintf(un.sun_path, sizeof un.sun_path, "%s", world_path(w, "notify"));
    assert_int_equal(bind(fd, (struct sockaddr *)&un, sizeof un), 0);
    setenv("NOTIFY_SOCKET", un.sun_path, 1);
    snprintf(whole, sizeof whole, "%d", WATCHDOG_MS * 1000);
    setenv("WATCHDOG_USEC", whole, 1);
    world_origin(w, script, NULL, NULL);
    world_start(w, NULL);
    unsetenv("NOTIFY_SOCKET");
    unsetenv("WATCHDOG_USEC");
    expect_told(fd, "READY=1");
    /* Twice in the time: a busy machine may hold some up, but not for ever. */
    uint64_t deadline = deadline_in(patience_ms());
    while (between_pings(fd) > 3 * WATCHDOG_MS / 4)
        CHECK(left_ms(deadline) > 0, "the watchdog is not told in time");
    struct bytes good = file_content(world_path(w, "config.json"));
    for (int bad = 0; bad < 2; bad++) { /* it is ready again, whatever came of it */
        file_put(world_path(w, "config.json"), bad ? "{" : good.p);
        daemon_signal(&w->daemon, SIGHUP);
        expect_told(fd, "RELOADING=1\nMONOTONIC_USEC=");
        expect_told(fd, "READY=1");
        daemon_expect_event(&w->daemon, 0, bad ? "reload_failed" : "reload", NULL);
    }
    file_put(world_path(w, "config.json"), good.p);
    bytes_free(&good);
    pid_t fresh = upgrade(w);
    snprintf(expected, sizeof expected, "MAINPID=%d", (int)fresh);
    expect_told(fd, expected);
    go_on_with(w, fresh);
    for (int i = 0; i < 3; i++)
        expect_told(fd, "WATCHDOG=1");
    daemon_signal(&w->daemon, SIGTERM);
    expect_told(fd, "STOPPING=1");
    assert_int_equal(daemon_wait(&w->daemon), 0);
    close(fd);
    w->finished = true;
}

/* The first process of a container takes all others along when it ends: it does not begin. */
static void test_the_first_of_its_namespace(void **state)
{
    struct world *w = *state;
    char address[32];
    struct client c;

    snprintf(address, sizeof address, "127.0.0.1:%d", port_reserve());
    world_backend(w, address, NULL);
    int own = open("/proc/self/ns/pid", O_RDONLY | O_CLOEXEC);
    if (own < 0 || unshare(CLONE_NEWPID) != 0)
        skip(); /* not allowed here */
    world_start(w, NULL);
    assert_int_equal(setns(own, CLONE_NEWPID), 0);
    close(own);
    daemon_signal(&w->daemon, SIGUSR2);
    const char *cause = log_field(daemon_expect_event(&w->daemon, 0, "upgrade_failed", NULL), "cause");
    CHECK(strstr(cause, "the first process of its container"), "%s", cause);
    assert_int_equal(daemon_count_events(&w->daemon, 0, "start", NULL), 1);
    client_open(&c, w->port);
    client_send(&c, GET);
    client_expect(&c, 502);
    client_close(&c);
    world_finish(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WORLD_TEST(test_nothing_fails),
        WORLD_TEST(test_bytes_go_over),
        WORLD_TEST(test_tokens_are_exact),
        WORLD_TEST(test_a_walk_goes_on),
        WORLD_TEST(test_buckets_go_over),
        WORLD_TEST(test_unix_socket),
        WORLD_TEST(test_another_address),
        WORLD_TEST(test_another_host),
        WORLD_TEST(test_a_downed_backend_stays_down),
        WORLD_TEST(test_an_ejection_goes_on),
        WORLD_TEST(test_what_was_down_is_no_news),
        WORLD_TEST(test_the_keep_time_goes_over),
        WORLD_TEST(test_failures_change_nothing),
        WORLD_TEST(test_two_signals_during_an_upgrade),
        WORLD_TEST(test_a_second_signal_is_not_lost_in_an_upgrade),
        WORLD_TEST(test_one_signal_behind_an_upgrade),
        WORLD_TEST(test_two_signals_behind_an_upgrade),
        WORLD_TEST(test_a_stop_waits_for_the_process_before),
        WORLD_TEST(test_a_hurried_stop_waits_for_no_process_before),
        WORLD_TEST(test_an_upgrade_does_not_wait_for_closing_connections),
        WORLD_TEST(test_two_upgrades_in_a_row),
        WORLD_TEST(test_a_full_disk),
        WORLD_TEST(test_buckets_come_back),
        WORLD_TEST(test_files_that_come_back_damaged),
        WORLD_TEST(test_socket_activation),
        WORLD_TEST(test_the_end_before_its_time),
        WORLD_TEST(test_checks_leave_before_it_is_prepared),
        WORLD_TEST(test_back_to_an_address_not_left),
        WORLD_TEST(test_buckets_of_an_older_version),
        WORLD_TEST(test_the_old_address_is_left_at_once),
        WORLD_TEST(test_notify),
        WORLD_TEST(test_the_first_of_its_namespace),
    };
    prctl(PR_SET_CHILD_SUBREAPER, 1); /* a process whose parent has ended is ours then */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
