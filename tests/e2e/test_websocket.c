/* A WebSocket server and client as people use them (Debian's python3-websockets), through a tunnel of the balancer; and
 * what becomes of the tunnel when the balancer stops. The scripts are in websocket/. */
#include "harness/software.h"

#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define SCRIPTS "tests/e2e/websocket/"

static const char *script(const char *name)
{
    static char paths[2][PATH_MAX];
    static unsigned next;
    char relative[64], *out = paths[next++ % 2];

    snprintf(relative, sizeof relative, SCRIPTS "%s.py", name);
    CHECK(realpath(relative, out), "no %s: run this in the root of the repository", relative);
    return out;
}

static const char *port_text(int port)
{
    static char text[2][16];
    static unsigned next;
    char *out = text[next++ % 2];

    snprintf(out, sizeof text[0], "%d", port);
    return out;
}

/* Starts the server as a backend; returns it. */
static struct daemon *websocket_server(struct world *w, int *port)
{
    struct daemon *server;
    char address[32];

    need_program(PYTHON);
    if (access(WEBSOCKETS, R_OK) != 0) {
        print_message("python3-websockets is not installed\n");
        skip();
    }
    *port = port_reserve();
    server = world_helper(w, (const char *const[]){PYTHON, script("server"), port_text(*port), NULL});
    wait_for_port(*port);
    snprintf(address, sizeof address, "127.0.0.1:%d", *port);
    world_backend(w, address, "\"name\": \"websockets\"");
    return server;
}

/* Waits until `text` is in what a helper has printed. */
static void wait_for_output(const struct daemon *d, const char *text)
{
    uint64_t deadline = deadline_in(patience_ms());
    struct bytes out = daemon_stdout(d);

    while (!strstr(out.p, text)) {
        CHECK(left_ms(deadline) > 0, "no \"%s\" came, but: %s", text, out.p);
        rest();
        bytes_free(&out);
        out = daemon_stdout(d);
    }
    bytes_free(&out);
}

static void talk(struct world *w, const char *mode, int port, const char *expected)
{
    RUN_PRINTS(w, expected, PYTHON, script("client"), mode, port_text(port));
}

struct conversation {
    const char *mode;
    const char *client, *server; /* what each must print */
    const char *logged;          /* the balancer's line */
};

static const struct conversation conversations[] = {
    {"stream", "received 1000 first closed 1000 all said\n", "/stream received 1000 closed 1000 all said\n",
     "status=101 target=/stream method=GET backend=websockets attempts=1"},
    {"large", "received 17 closed 1000\n", "/echo received 17 closed 1000 \n", "status=101 target=/echo"},
    {"plain", "received 17 closed 1000\n", "/echo received 17 closed 1000 \n", "status=101 target=/echo"},
    {"many", "50 talks\n", "/echo received 20 closed 1000 \n", "status=101 target=/echo"},
    {"bye", "closed 4001 the server says so\n", "/bye received 1 closed 4001 the server says so\n",
     "status=101 target=/bye"},
    {"refused", "status 403 asked for\n", "", "status=403 target=/refused"},
};
#define CONVERSATIONS (sizeof conversations / sizeof *conversations)

/* The two understand each other with nobody between: what fails below is not theirs. */
static void test_without_a_balancer(void **state)
{
    struct world *w = *state;
    struct daemon *server;
    int port;

    server = websocket_server(w, &port);
    for (size_t i = 0; i < CONVERSATIONS; i++) {
        talk(w, conversations[i].mode, port, conversations[i].client);
        wait_for_output(server, conversations[i].server);
    }
    world_finish(w);
}

static void through_the_balancer(struct world *w, const struct conversation *c)
{
    struct daemon *server;
    int port;

    server = websocket_server(w, &port);
    world_start(w, NULL);
    talk(w, c->mode, w->port, c->client);
    wait_for_output(server, c->server);
    daemon_expect_event(&w->daemon, 0, "request", c->logged);
    world_finish(w);
}

static void test_messages_each_way(void **state)
{
    through_the_balancer(*state, &conversations[0]);
}

/* A proxy before the balancer tunnels, too. */
static void test_behind_nginx(void **state)
{
    struct world *w = *state;
    struct daemon *server;
    int port, front;

    need_program(NGINX);
    server = websocket_server(w, &port);
    world_start(w, NULL);
    front = nginx_in_front(w);
    for (size_t i = 0; i < CONVERSATIONS; i++) {
        talk(w, conversations[i].mode, front, conversations[i].client);
        wait_for_output(server, conversations[i].server);
        daemon_expect_event(&w->daemon, 0, "request", conversations[i].logged);
    }
    world_finish(w);
}

static void test_large_frames(void **state)
{
    through_the_balancer(*state, &conversations[1]);
}

/* The tunnel's bytes are counted: 17 MiB each way and the frames' heads. */
static void test_large_frames_uncompressed(void **state)
{
    struct world *w = *state;
    const cJSON *line;
    int port;

    websocket_server(w, &port);
    world_start(w, NULL);
    talk(w, conversations[2].mode, w->port, conversations[2].client);
    line = daemon_expect_event(&w->daemon, 0, "request", conversations[2].logged);
    assert_in_range(log_number(line, "bytes_in"), 17u << 20, (17u << 20) + 20000u);
    assert_in_range(log_number(line, "bytes_out"), 17u << 20, (17u << 20) + 20000u);
    world_finish(w);
}

static void test_many_tunnels(void **state)
{
    struct world *w = *state;
    uint64_t deadline = deadline_in(patience_ms());
    int port;

    websocket_server(w, &port);
    world_start(w, NULL);
    talk(w, conversations[3].mode, w->port, conversations[3].client);
    while (daemon_count_events(&w->daemon, 0, "request", conversations[3].logged) < 50 && left_ms(deadline) > 0)
        rest();
    assert_int_equal(daemon_count_events(&w->daemon, 0, "request", conversations[3].logged), 50);
    world_finish(w);
}

static void test_server_closes(void **state)
{
    through_the_balancer(*state, &conversations[4]);
}

static void test_server_refuses(void **state)
{
    through_the_balancer(*state, &conversations[5]);
}

/* ---- tunnels that stay open for a while ---- */

/* A tunnel that is open, with the client as a process that goes on. */
static struct daemon *open_tunnel(struct world *w, const char *mode, const char *config)
{
    struct daemon *client;
    int port;

    websocket_server(w, &port);
    world_start(w, config);
    client = world_helper(w, (const char *const[]){PYTHON, script("client"), mode, port_text(w->port), NULL});
    wait_for_output(client, "open\n");
    return client;
}

static void expect_client_end(struct daemon *client, const char *expected)
{
    struct bytes out;

    assert_int_equal(daemon_wait(client), 0);
    out = daemon_stdout(client);
    assert_string_equal(out.p, expected);
    bytes_free(&out);
}

/* The client reads nothing, so the server is stopped in the end; the balancer holds little of the 64 MiB meanwhile. */
static void test_stalled_reader(void **state)
{
    struct world *w = *state;
    struct daemon *client = open_tunnel(w, "stall", NULL);

    wait_for_output(&w->helpers[0], "/flood blocked\n");
    if (!is_instrumented())
        assert_in_range(proc_kib(w->daemon.pid, "VmHWM"), 1, 16 * 1024);
    daemon_signal(client, SIGUSR1);
    expect_client_end(client, "open\nreceived 64 closed 1000\n");
    world_finish(w);
}

/* After SIGTERM the tunnel goes on until its peers end it: nothing was cut off. */
static void test_stop_waits_for_a_tunnel(void **state)
{
    struct world *w = *state;
    struct daemon *client = open_tunnel(w, "hold", NULL);

    daemon_signal(&w->daemon, SIGTERM);
    daemon_expect_event(&w->daemon, 0, "drain", "exchanges=1");
    assert_false(client_can_connect(w->port));
    daemon_signal(client, SIGUSR1);
    expect_client_end(client, "open\nclosed 1000\n");
    assert_int_equal(daemon_wait(&w->daemon), 0);
    daemon_expect_event(&w->daemon, 0, "request", "status=101 target=/echo");
    daemon_expect_event(&w->daemon, 0, "stop", "cut=0");
    daemon_expect_clean_stderr(&w->daemon);
    world_finish(w);
}

static void expect_cut(struct world *w, struct daemon *client)
{
    assert_int_equal(daemon_wait(&w->daemon), 3);
    expect_client_end(client, "open\nclosed 1006\n"); /* without a close handshake */
    daemon_expect_event(&w->daemon, 0, "request", "status=101 target=/echo reason=shutdown");
    daemon_expect_event(&w->daemon, 0, "stop", "cut=1");
    daemon_expect_clean_stderr(&w->daemon);
    world_finish(w);
}

static void test_stop_cuts_a_tunnel(void **state)
{
    struct world *w = *state;
    struct daemon *client = open_tunnel(w, "hold", "\"timeouts\": {\"shutdown\": \"700ms\"}");
    uint64_t begin = now_ms();

    daemon_signal(&w->daemon, SIGTERM);
    daemon_expect_event(&w->daemon, 0, "drain", "exchanges=1");
    expect_cut(w, client);
    assert_true(now_ms() - begin >= 700);
}

static void test_second_signal_cuts_a_tunnel(void **state)
{
    struct world *w = *state;
    struct daemon *client = open_tunnel(w, "hold", NULL);

    daemon_signal(&w->daemon, SIGTERM);
    daemon_expect_event(&w->daemon, 0, "drain", "exchanges=1");
    daemon_signal(&w->daemon, SIGTERM);
    expect_cut(w, client);
}

/* timeouts.tunnel is between bytes: a quiet tunnel ends, one with a ping now and then lives. */
static void test_quiet_tunnel(void **state)
{
    struct world *w = *state;
    struct daemon *client = open_tunnel(w, "quiet", "\"timeouts\": {\"tunnel\": \"700ms\"}");

    expect_client_end(client, "open\nclosed 1006\n");
    daemon_expect_event(&w->daemon, 0, "request", "status=101 target=/echo");
    world_finish(w);
}

static void test_busy_tunnel(void **state)
{
    struct world *w = *state;
    struct daemon *client = open_tunnel(w, "busy", "\"timeouts\": {\"tunnel\": \"1s\", \"client_idle\": \"300ms\"}");

    expect_client_end(client, "open\nclosed 1000\n");
    daemon_expect_event(&w->daemon, 0, "request", "status=101 target=/echo");
    world_finish(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WORLD_TEST(test_without_a_balancer), WORLD_TEST(test_messages_each_way),
        WORLD_TEST(test_large_frames),       WORLD_TEST(test_large_frames_uncompressed),
        WORLD_TEST(test_many_tunnels),       WORLD_TEST(test_server_closes),
        WORLD_TEST(test_server_refuses),     WORLD_TEST(test_behind_nginx),
        WORLD_TEST(test_stalled_reader),     WORLD_TEST(test_stop_waits_for_a_tunnel),
        WORLD_TEST(test_stop_cuts_a_tunnel), WORLD_TEST(test_second_signal_cuts_a_tunnel),
        WORLD_TEST(test_quiet_tunnel),       WORLD_TEST(test_busy_tunnel),
    };

    software_environment();
    return cmocka_run_group_tests_name("websocket", tests, NULL, NULL);
}
