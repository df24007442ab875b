/* Fuzzing of a whole connection: a client's bytes go into the front, through an exchange and an attempt to a backend
 * that is played here, and its bytes come back; all on the real loop, over unix sockets, in this thread. What the
 * backend got must be whole, well-framed messages, each one of those that the reference reader finds in the client's
 * bytes, in their order; what the client got must be well-framed responses, each the one that the backend gave to that
 * request, or the balancer's own error; and nothing of the connection may be left over.
 *
 * The input: the client's bytes, RS (1e), the backend's. In both, US (1f) lets what has come be handled before more
 * comes. In the client's, GS (1d) ends its sending, and FS (1c) hangs up, for another connection to be opened. In the
 * backend's, GS closes its connection, and FS waits for another whole request. */
#include "connection.h"

#include "base/log.h"
#include "net/io.h"
#include "net/sock.h"
#include "proxy/front_h1.h"
#include "proxy/proxy.h"
#include "upstream/back_h1.h"
#include "upstream/backend.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct reference_limits limits = {2048, 512, 24, NULL, false};
const struct reference_limits wide = {1u << 20, 1u << 20, REFERENCE_FIELDS_MAX, NULL, true};

/* ---- the world: built once ---- */

static struct loop *loop;
static struct config *config;
static struct upstream *upstream;
static struct proxy *proxy;
static int listen_fd;
static char folder[64], socket_path[96];

static void free_buffers(void);

static void tear_down(void)
{
    proxy_free(proxy);
    upstream_free(upstream);
    loop_free(loop);
    config_put(config);
    close(listen_fd);
    unlink(socket_path);
    rmdir(folder);
    log_fini();
    free_buffers();
}

static void set_up(void)
{
    char text[512];
    struct buf errors = BUF_INIT;

    snprintf(folder, sizeof folder, "%s/lb-fuzz-XXXXXX", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    CHECK(mkdtemp(folder));
    snprintf(socket_path, sizeof socket_path, "%s/backend", folder);
    snprintf(text, sizeof text,
             "{\"backends\":[{\"address\":\"unix:%s\"}],\"health_check\":null,\"passive_check\":null,"
             "\"rate_limit\":null,\"retry\":{\"attempts\":0},\"log\":{\"access\":false},"
             "\"limits\":{\"header_bytes\":2048,\"target_bytes\":512,\"header_fields\":24}}",
             socket_path);
    log_configure(LOG_ERROR, LOG_TEXT);
    config = config_parse(str_of(text), "fuzz", NULL, &errors);
    loop = loop_new();
    CHECK(config && loop);
    upstream = upstream_new(loop, config);
    CHECK(upstream);
    proxy = proxy_new(&(struct proxy_setup){.loop = loop, .config = config, .upstream = upstream});
    CHECK(proxy);
    listen_fd = sock_listen(&config->backends[0].endpoint.addr, CONNS_MAX);
    CHECK(listen_fd >= 0);
    buf_fini(&errors);
    atexit(tear_down);
}

/* ---- one input ---- */

struct input input;

static void free_buffers(void)
{
    for (unsigned i = 0; i < SESSIONS_MAX; i++) {
        buf_fini(&input.sessions[i].bytes);
        buf_fini(&input.sessions[i].in);
    }
    for (unsigned i = 0; i < CONNS_MAX; i++) {
        buf_fini(&input.conns[i].in);
        buf_fini(&input.conns[i].out);
    }
}

void keep(struct buf *b, const void *p, size_t n)
{
    CHECK(buf_append(b, p, n));
}

void clear(struct buf *b)
{
    b->start = b->len = 0;
}

/* Reads the bytes of one connection; returns how many there were. What stands behind GS is not sent. */
static size_t read_session(struct session *s, const uint8_t *data, size_t n)
{
    size_t i = 0;

    clear(&s->bytes);
    clear(&s->in);
    s->split_count = 0;
    s->fin = s->eof = false;
    for (; i < n && data[i] != FILE_SEP; i++) {
        s->fin |= data[i] == GROUP;
        if (s->fin)
            continue;
        if (data[i] != SPLIT)
            keep(&s->bytes, data + i, 1);
        else if (s->split_count < SPLITS_MAX)
            s->splits[s->split_count++] = s->bytes.len;
    }
    return i < n ? i + 1 : n;
}

static void read_input(const uint8_t *data, size_t size)
{
    const uint8_t *end = memchr(data, RECORD, size);
    size_t n = end ? (size_t)(end - data) : size, at = 0;

    input.session_count = 0;
    do
        at += read_session(&input.sessions[input.session_count++], data + at, n - at);
    while (at < n && input.session_count < SESSIONS_MAX);
    input.script = end ? end + 1 : data + size;
    input.script_n = end ? size - n - 1 : 0;
    input.script_at = 0;
}

/* False when there are more requests in it than there is room for. */
static bool read_requests(struct session *s)
{
    size_t at = 0;
    struct str all = buf_str(&s->bytes);

    s->said_at = input.said_count;
    while (at < all.n) {
        if (input.said_count == REQUESTS_MAX)
            return false;
        struct reference *r = &input.said[input.said_count++];
        reference_read(r, all.p + at, all.n - at, &limits);
        if (r->used == 0 || r->last)
            break;
        at += r->used;
    }
    s->said_end = input.said_count;
    return true;
}

static bool read_all_requests(void)
{
    bool fits = true;

    input.said_count = 0;
    for (unsigned i = 0; i < input.session_count && fits; i++)
        fits = read_requests(&input.sessions[i]);
    return fits;
}

/* ---- the run ---- */

/* All that waits at a descriptor. False at its end. */
bool read_all(int fd, struct buf *to, bool *progress)
{
    char piece[8192];
    ssize_t n;

    while ((n = recv(fd, piece, sizeof piece, MSG_DONTWAIT)) > 0) {
        keep(to, piece, (size_t)n);
        *progress = true;
    }
    *progress |= n == 0 || errno != EAGAIN;
    return n < 0 && errno == EAGAIN;
}

static bool client_step(void)
{
    struct session *s = &input.sessions[input.session];
    bool progress = false;

    if (!s->eof)
        s->eof = !read_all(s->fd, &s->in, &progress);
    return progress;
}

/* Turns until nothing moves any more. */
static void settle(void)
{
    unsigned idle = 0, turns = 0;

    while (idle < 2) {
        CHECK(++turns < TURNS_MAX);
        loop_turn(loop, 0);
        bool moved = backend_step(listen_fd);
        moved |= client_step();
        idle = moved ? 0 : idle + 1;
    }
}

static void session_open(struct session *s)
{
    struct peer peer = {0};
    int fds[2];

    CHECK(ip_parse(STR(CLIENT_IP), &peer.ip));
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds) == 0);
    s->fd = fds[0];
    proxy_accept(proxy, fds[1], &peer);
}

static void session_send(struct session *s)
{
    struct str all = buf_str(&s->bytes);
    size_t at = 0;

    for (unsigned i = 0; i <= s->split_count; i++) {
        size_t to = i < s->split_count ? s->splits[i] : all.n;
        (void)!send(s->fd, all.p + at, to - at, MSG_NOSIGNAL);
        at = to;
        if (i == s->split_count && s->fin)
            shutdown(s->fd, SHUT_WR);
        settle();
    }
}

/* Hangs up, and lets that be noticed. */
static void session_close(struct session *s)
{
    close(s->fd);
    s->eof = true; /* nothing more is read from it */
    settle();
}

/* Connections that nobody has taken are not for the next input. */
static void refuse_conns(void)
{
    int fd;

    while ((fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC)) >= 0)
        close(fd);
}

/* Everybody hangs up: nothing of it may be left. */
static void end(void)
{
    for (unsigned i = 0; i < input.conn_count; i++)
        conn_close(&input.conns[i]);
    loop_turn(loop, 0);
    loop_turn(loop, 0);
    proxy_cut(proxy);
    io_end_lingering(loop);
    pool_flush(upstream_backend(upstream, 0));
    loop_turn(loop, 0);
    refuse_conns();
    CHECK(proxy_connections(proxy) == 0 && proxy_exchanges(proxy) == 0 && io_count() == 0);
    CHECK(upstream_backend(upstream, 0)->open_count == 0 && upstream_backend(upstream, 0)->idle_count == 0);
}

/* From a 101 on, bytes are no messages. */
static bool is_tunnel(void)
{
    bool asked = false, given = false;

    for (unsigned i = 0; i < input.said_count; i++)
        for (unsigned f = 0; f < input.said[i].field_count; f++)
            asked |= span_is_nocase(input.said[i].fields[f].name, "Upgrade");
    for (size_t i = 0; i + 3 <= input.script_n; i++)
        given |= memcmp(input.script + i, "101", 3) == 0;
    return asked && given;
}

static void run(void)
{
    input.conn_count = input.current = input.message_count = input.waits = input.next = 0;
    input.resent = false;
    for (input.session = 0; input.session < input.session_count; input.session++) {
        session_open(&input.sessions[input.session]);
        session_send(&input.sessions[input.session]);
        if (!input.tunnel)
            check_progress(&input.sessions[input.session]);
        session_close(&input.sessions[input.session]);
    }
    for (unsigned i = 0; i < input.conn_count && !input.tunnel; i++)
        check_partial(i);
    for (unsigned i = 0; i < input.session_count && !input.tunnel; i++)
        check_client(&input.sessions[i]);
    end();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!loop)
        set_up();
    read_input(data, size);
    bool fits = read_all_requests();
    input.tunnel = is_tunnel();
    if (fits)
        run();
    for (unsigned i = 0; i < input.said_count; i++)
        reference_free(&input.said[i]);
    return 0;
}
