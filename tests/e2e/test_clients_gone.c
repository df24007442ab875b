/* Clients and backends that vanish, at every point of an exchange: it costs that exchange and nothing else. */
#include "harness/world.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define MIB (1024u * 1024u)

/* Pooled connections do not stay, so that the descriptors can be counted. */
#define NO_POOL "\"timeouts\": {\"backend_idle\": \"50ms\"}, \"retry\": {\"attempts\": 0}"

static void echo_script(struct origin_conn *c)
{
    while (origin_read(c))
        if (!origin_answer(c, c->request.body.p))
            return;
}

/* The daemon still serves, and holds what it held before: `fds` descriptors. */
static void expect_unharmed(struct world *w, int fds)
{
    assert_int_equal(http_get(w->port, "/", NULL), 200);
    world_wait_fds(w, fds);
}

enum way { WAY_CLOSE, WAY_RESET };

static void leave(struct client *c, enum way way)
{
    if (way == WAY_RESET)
        client_reset(c);
    else
        client_close(c);
}

/* Leaves after each byte of `text` in each way. */
static void leave_after_each_byte(struct world *w, const char *text)
{
    for (size_t n = 0; n < strlen(text); n++) {
        for (enum way way = WAY_CLOSE; way <= WAY_RESET; way++) {
            struct client c;

            client_open(&c, w->port);
            client_send_bytes(&c, text, n);
            leave(&c, way);
        }
    }
}

static void test_client_leaves_at_each_byte(void **state)
{
    struct world *w = *state;
    int fds;

    world_origin(w, echo_script, NULL, NULL);
    world_start(w, NO_POOL);
    fds = proc_fds(w->daemon.pid);
    leave_after_each_byte(w, "POST /gone?x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
                             "5\r\nhello\r\n10;a=b\r\n0123456789abcdef\r\n0\r\nT: x\r\n\r\n");
    leave_after_each_byte(w, "PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\n0123456789");
    leave_after_each_byte(w, "POST /clients/register HTTP/1.1\r\nHost: h\r\nContent-Length: 48\r\n\r\n"
                             "{\"client_id\":\"b\",\"capacity\":10,\"rate_per_sec\":1}");
    leave_after_each_byte(w, "GET /1 HTTP/1.1\r\nHost: h\r\n\r\nGET /2 HTTP/1.1\r\nHost: h\r\n\r\n");
    expect_unharmed(w, fds);
    assert_int_equal(http_get(w->port, "/clients/get?id=b", NULL), 404);
    world_finish(w);
}

/* A client that says it sends no more in the middle of a request gets a 400 or the end, never a hang. */
static void test_client_half_closes_at_each_byte(void **state)
{
    static const char text[] = "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello";
    struct world *w = *state;
    int fds;

    world_origin(w, echo_script, NULL, NULL);
    world_start(w, NO_POOL);
    fds = proc_fds(w->daemon.pid);
    for (size_t n = 0, whole = strlen(text); n <= whole; n++) {
        struct client c;
        enum read_result r;

        client_open(&c, w->port);
        client_send_bytes(&c, text, n);
        client_half_close(&c);
        r = client_read(&c, false);
        CHECK(n == whole ? r == READ_OK && c.response.status == 200
                         : r == READ_EOF || r == READ_RESET || (r == READ_OK && c.response.status == 400),
              "after %zu bytes: %s %d", n, read_result_name(r), c.response.status);
        client_close(&c);
    }
    expect_unharmed(w, fds);
    world_finish(w);
}

static void held_script(struct origin_conn *c)
{
    if (!origin_read_head(c))
        return;
    if (strcmp(c->request.target, "/") == 0) {
        origin_answer(c, "ok");
        return;
    }
    if (strcmp(c->request.target, "/half") == 0)
        origin_send(c, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf");
    if (strcmp(c->request.target, "/interim") == 0)
        origin_send(c, "HTTP/1.1 103 Early Hints\r\n\r\n");
    origin_drain(c);
}

/* A client that leaves while its backend works: the backend's connection is closed too, and the log says why. (One that
 * has sent its whole request and closes cannot be told from one that waits for its response with its own direction
 * closed: it is not taken for gone.) */
static void test_client_leaves_while_waiting(void **state)
{
    static const char *const targets[] = {"/wait", "/half", "/interim", "/upload"};
    struct world *w = *state;
    int fds;
    unsigned n = 0;

    world_origin(w, held_script, NULL, NULL);
    world_start(w, NO_POOL);
    fds = proc_fds(w->daemon.pid);
    for (size_t i = 0; i < sizeof targets / sizeof *targets; i++) {
        bool whole = strcmp(targets[i], "/upload") != 0;

        for (enum way way = whole ? WAY_RESET : WAY_CLOSE; way <= WAY_RESET; way++) {
            struct client c;
            char match[100];
            size_t mark = daemon_mark(&w->daemon);

            client_open(&c, w->port);
            client_sendf(&c, "%s %s HTTP/1.1\r\nHost: h\r\n%s\r\n", whole ? "GET" : "POST", targets[i],
                         whole ? "" : "Content-Length: 1000\r\n");
            origin_wait_requests(w->origins[0], ++n);
            if (strcmp(targets[i], "/half") == 0)
                client_expect_head(&c, 200);
            leave(&c, way);
            origin_wait_closed(w->origins[0]);
            snprintf(match, sizeof match, "target=%s reason=client_gone backend=b1", targets[i]);
            daemon_expect_event(&w->daemon, mark, "request", match);
        }
    }
    expect_unharmed(w, fds);
    world_finish(w);
}

static void endless_script(struct origin_conn *c)
{
    static char piece[65536];

    if (!origin_read(c))
        return;
    if (strcmp(c->request.target, "/endless") != 0) {
        origin_answer(c, "ok");
        return;
    }
    origin_sendf(c, "HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n");
    while (origin_send_bytes(c, piece, sizeof piece))
        ;
}

static void test_client_leaves_during_a_download(void **state)
{
    struct world *w = *state;
    int fds;

    world_origin(w, endless_script, NULL, NULL);
    world_start(w, NO_POOL);
    fds = proc_fds(w->daemon.pid);
    for (enum way way = WAY_CLOSE; way <= WAY_RESET; way++) {
        for (unsigned read = 0; read < 3; read++) {
            struct client c;
            size_t count = 0;

            client_open(&c, w->port);
            client_send(&c, "GET /endless HTTP/1.1\r\nHost: h\r\n\r\n");
            client_expect_head(&c, 200);
            while (count < read * (size_t)MIB && stream_fill(&c.in, deadline_in(patience_ms())) == READ_OK) {
                count += c.in.in.n;
                bytes_drop(&c.in.in, c.in.in.n);
            }
            leave(&c, way);
            origin_wait_closed(w->origins[0]);
        }
    }
    expect_unharmed(w, fds);
    world_finish(w);
}

static void test_client_leaves_during_an_upload(void **state)
{
    static char piece[MIB];
    struct world *w = *state;
    int fds;

    world_origin(w, echo_script, NULL, NULL);
    world_start(w, NO_POOL);
    fds = proc_fds(w->daemon.pid);
    for (int chunked = 0; chunked < 2; chunked++) {
        for (enum way way = WAY_CLOSE; way <= WAY_RESET; way++) {
            struct client c;

            client_open(&c, w->port);
            client_sendf(&c, "POST / HTTP/1.1\r\nHost: h\r\n%s\r\n\r\n%s",
                         chunked ? "Transfer-Encoding: chunked" : "Content-Length: 99999999999",
                         chunked ? "FFFFFFFF\r\n" : "");
            client_send_bytes(&c, piece, sizeof piece);
            leave(&c, way);
            origin_wait_closed(w->origins[0]);
        }
    }
    expect_unharmed(w, fds);
    /* what was cut off was never passed off as whole */
    assert_int_equal(daemon_count_events(&w->daemon, 0, "request", "method=POST status=200"), 0);
    world_finish(w);
}

static void unread_script(struct origin_conn *c)
{
    if (!origin_read_head(c))
        return;
    if (strcmp(c->request.method, "GET") == 0) {
        origin_answer(c, "ok");
        return;
    }
    origin_hold(c);
}

/* Sends until nobody takes more. */
static void send_till_held_back(struct client *c)
{
    static char piece[65536];

    for (unsigned refused = 0; refused < 20;) {
        if (send(c->in.fd, piece, sizeof piece, MSG_DONTWAIT | MSG_NOSIGNAL) > 0) {
            refused = 0;
        } else {
            refused++;
            usleep(10 * 1000);
        }
    }
}

/* The backend reads none of an upload, which so is held back; its client resets it. That is no fault of the backend's,
 * and its place is free at once. */
static void test_client_leaves_while_its_upload_is_held_back(void **state)
{
    struct world *w = *state;
    struct client c;

    world_origin(w, unread_script, NULL, "\"max_connections\": 1");
    world_start(w, NULL);
    client_open(&c, w->port);
    client_send(&c, "PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 99999999999\r\n\r\n");
    send_till_held_back(&c);
    client_reset(&c);
    daemon_expect_event(&w->daemon, 0, "request", "method=PUT reason=client_gone backend=b1");
    assert_int_equal(http_get(w->port, "/", NULL), 200);
    origin_release(w->origins[0]);
    world_finish(w);
}

static int listen_at(const char *path)
{
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    snprintf(un.sun_path, sizeof un.sun_path, "%s", path);
    assert_int_equal(bind(fd, (struct sockaddr *)&un, sizeof un), 0);
    assert_int_equal(listen(fd, 8), 0);
    return fd;
}

/* How many bytes a unix socket takes that nobody reads. */
static size_t room_of_a_socket(void)
{
    static const char piece[65536];
    size_t room = 0;
    int ends[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    for (ssize_t n; (n = send(ends[0], piece, sizeof piece, MSG_DONTWAIT)) > 0;)
        room += (size_t)n;
    close(ends[0]);
    close(ends[1]);
    return room;
}

/* Without waiting for POLLOUT, which a unix socket has only when its reader has left little. */
static void send_as_room_comes(struct client *c, const char *p, size_t n)
{
    uint64_t deadline = deadline_in(patience_ms());

    for (size_t at = 0; at < n;) {
        ssize_t sent = send(c->in.fd, p + at, n - at, MSG_DONTWAIT | MSG_NOSIGNAL);
        at += sent > 0 ? (size_t)sent : 0;
        if (sent < 0)
            rest();
        CHECK(left_ms(deadline) > 0, "only %zu of %zu bytes are taken", at, n);
    }
}

/* Reads from who connects until the end. Returns how many bytes came behind the head. */
static size_t read_content(int listening)
{
    struct stream s = {.fd = accept(listening, NULL, NULL)};
    size_t content = 0;

    assert_true(s.fd >= 0);
    for (bool head = true; stream_fill(&s, deadline_in(patience_ms())) == READ_OK;) {
        const char *end = head ? strstr(s.in.p, "\r\n\r\n") : s.in.p;
        if (!end)
            continue;
        content += (size_t)(s.in.p + s.in.n - end) - (head ? 4 : 0);
        head = false;
        bytes_drop(&s.in, s.in.n);
    }
    bytes_free(&s.in);
    close(s.fd);
    return content;
}

/* One that has sent all of its upload, and closes while that is held back, has not cut it off: over a unix socket its
 * close looks like a reset, but what it sent is there, and goes on. */
static void test_client_on_a_unix_socket_leaves_behind_its_upload(void **state)
{
    struct world *w = *state;
    char address[300], extra[300];
    struct client c;
    int listening = listen_at(world_path(w, "b"));
    /* More than the daemon takes before the backend reads, by half of what its client's socket takes then. */
    size_t size = room_of_a_socket() + 300 * 1024;
    char *content = calloc(1, size);

    assert_non_null(content);
    snprintf(address, sizeof address, "unix:%s", world_path(w, "b"));
    world_backend(w, address, NULL);
    snprintf(extra, sizeof extra, "\"listen\": \"unix:%s\"", world_path(w, "s"));
    world_start(w, extra);
    client_open_unix(&c, world_path(w, "s"));
    int wide = 208 * 1024;
    assert_int_equal(setsockopt(c.in.fd, SOL_SOCKET, SO_SNDBUF, &wide, sizeof wide), 0);
    client_sendf(&c, "PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: %zu\r\n\r\n", size);
    send_as_room_comes(&c, content, size);
    client_close(&c);
    size_t came = read_content(listening);
    CHECK(came == size, "%zu of %zu bytes came", came, size);
    close(listening);
    free(content);
    world_finish(w);
}

/* The script's argument: a response of which only the first `mode` bytes are sent. */
static void cut_script(struct origin_conn *c)
{
    const char *text = origin_arg(c->origin);
    int n = origin_mode(c);

    if (!origin_read(c))
        return;
    if (strcmp(c->request.target, "/") == 0) {
        origin_answer(c, "ok");
        return;
    }
    origin_send_bytes(c, text, (size_t)(n < 0 ? -n : n));
    if (n < 0)
        origin_reset(c);
}

/* For each length n: what the client is told is the truth. `head` is the length of the head, `whole` that of the
 * response. A reset may overtake bytes that were sent before it. */
static void expect_truth(struct client *c, int n, size_t head, size_t whole)
{
    size_t sent = (size_t)(n < 0 ? -n : n);
    enum read_result r = client_read(c, false);

    if (r == READ_OK && c->response.status == 200)
        CHECK(sent == whole, "%d bytes of the response were passed off as the whole", n);
    else if (r == READ_OK)
        CHECK(c->response.status == 502 && (n < 0 || sent < head), "after %d bytes: %d", n, c->response.status);
    else
        CHECK((r == READ_CUT || r == READ_RESET) && sent >= head, "after %d bytes: %s", n, read_result_name(r));
    if (n > 0 && sent == whole)
        assert_true(r == READ_OK && c->response.status == 200);
}

static void backend_leaves_at_each_byte(struct world *w, const char *text)
{
    int fds, whole = (int)strlen(text);
    size_t head = (size_t)(strstr(text, "\r\n\r\n") - text) + 4;
    struct origin *o = world_origin(w, cut_script, (void *)(uintptr_t)text, NULL);

    world_start(w, NO_POOL);
    fds = proc_fds(w->daemon.pid);
    for (int n = -whole; n <= whole; n++) {
        struct client c;

        origin_set_mode(o, n);
        client_open(&c, w->port);
        client_send(&c, "GET /cut HTTP/1.1\r\nHost: h\r\n\r\n");
        expect_truth(&c, n, head, (size_t)whole);
        client_close(&c);
    }
    expect_unharmed(w, fds);
    world_finish(w);
}

static void test_backend_leaves_at_each_byte_of_a_length(void **state)
{
    backend_leaves_at_each_byte(*state, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\nX-A: b\r\n\r\n0123456789");
}

static void test_backend_leaves_at_each_byte_of_chunks(void **state)
{
    backend_leaves_at_each_byte(*state, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
                                        "5\r\nhello\r\n7;x=y\r\n, world\r\n0\r\nT: r\r\n\r\n");
}

static void interim_script(struct origin_conn *c)
{
    if (!origin_read(c))
        return;
    if (strcmp(c->request.target, "/") == 0)
        origin_answer(c, "ok");
    else
        origin_send(c, "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n");
}

static void test_backend_leaves_behind_an_interim_response(void **state)
{
    struct world *w = *state;
    struct client c;
    int fds;

    world_origin(w, interim_script, NULL, NULL);
    world_start(w, NO_POOL);
    fds = proc_fds(w->daemon.pid);
    client_open(&c, w->port);
    client_send(&c, "GET /cut HTTP/1.1\r\nHost: h\r\n\r\n");
    client_expect(&c, 502);
    assert_int_equal(c.response.interim_count, 1);
    client_close(&c);
    expect_unharmed(w, fds);
    world_finish(w);
}

/* Many at once: half of the clients leave, the others are served. */
static void test_half_of_the_clients_leave(void **state)
{
    enum { CLIENTS = 200 };
    static struct client c[CLIENTS];
    struct world *w = *state;
    int fds;

    world_origin(w, echo_script, NULL, NULL);
    world_start(w, NO_POOL);
    fds = proc_fds(w->daemon.pid);
    for (int i = 0; i < CLIENTS; i++) {
        client_open(&c[i], w->port);
        client_sendf(&c[i], "POST /%d HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\n01234", i);
    }
    for (int i = 0; i < CLIENTS; i += 2)
        leave(&c[i], i % 4 ? WAY_CLOSE : WAY_RESET);
    for (int i = 1; i < CLIENTS; i += 2) {
        client_send(&c[i], "56789");
        assert_string_equal(client_expect(&c[i], 200)->body.p, "0123456789");
        client_close(&c[i]);
    }
    expect_unharmed(w, fds);
    world_finish(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WORLD_TEST(test_client_leaves_at_each_byte),
        WORLD_TEST(test_client_half_closes_at_each_byte),
        WORLD_TEST(test_client_leaves_while_waiting),
        WORLD_TEST(test_client_leaves_during_a_download),
        WORLD_TEST(test_client_leaves_during_an_upload),
        WORLD_TEST(test_client_leaves_while_its_upload_is_held_back),
        WORLD_TEST(test_client_on_a_unix_socket_leaves_behind_its_upload),
        WORLD_TEST(test_backend_leaves_at_each_byte_of_a_length),
        WORLD_TEST(test_backend_leaves_at_each_byte_of_chunks),
        WORLD_TEST(test_backend_leaves_behind_an_interim_response),
        WORLD_TEST(test_half_of_the_clients_leave),
    };

    return cmocka_run_group_tests_name("clients_gone", tests, NULL, NULL);
}
