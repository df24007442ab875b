/* Fuzzing of a whole connection: a client's bytes go into the front, through an exchange and an attempt to a backend
 * that is played here, and its bytes come back; all on the real loop, over unix sockets, in this thread. What the
 * backend got must be whole, well-framed messages, each one of those that the reference reader finds in the client's
 * bytes, in their order; what the client got must be well-framed responses, each the one that the backend gave to that
 * request, or the balancer's own error; and nothing of the connection may be left over.
 *
 * The input: the client's bytes, RS (1e), the backend's. In both, US (1f) lets what has come be handled before more
 * comes, and GS (1d) ends the sending: the client's for good, the backend's connection. In the backend's, FS (1c) waits
 * for another whole request. */
#include "harness/reference.h"

#include "base/buf.h"
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

#define SPLIT    0x1f
#define RECORD   0x1e
#define GROUP    0x1d
#define FILE_SEP 0x1c

#define REQUESTS_MAX 24
#define CONNS_MAX    64
#define MESSAGES_MAX 128
#define SPLITS_MAX   48
#define TURNS_MAX    3000
#define CLIENT_IP    "192.0.2.7"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Aborts, saying what did not hold. */
#define CHECK(what)                                                                                                    \
    do {                                                                                                               \
        if (!(what)) {                                                                                                 \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #what);                                                 \
            abort();                                                                                                   \
        }                                                                                                              \
    } while (0)

/* The same for what gives a reason, or NULL. */
#define CHECK_NO(fault)                                                                                                \
    do {                                                                                                               \
        const char *reason_ = (fault);                                                                                 \
        if (reason_) {                                                                                                 \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, reason_);                                               \
            abort();                                                                                                   \
        }                                                                                                              \
    } while (0)

static const struct reference_limits limits = {2048, 512, 24};
static const struct reference_limits wide = {1u << 20, 1u << 20, REFERENCE_FIELDS_MAX};

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

/* A message that reached the backend, whole or (the last of a connection) in part. */
struct message {
    unsigned conn;
    size_t at, n;
    bool whole, to_head;
};

struct conn {
    int fd; /* -1: closed */
    struct buf in, out;
    size_t taken; /* of `in`: whole messages */
    bool ended;   /* closed from here */
};

static struct {
    struct buf bytes; /* all that the client sends */
    size_t splits[SPLITS_MAX];
    unsigned split_count;
    bool fin;
    bool tunnel;           /* there may be one, in which bytes are no messages */
    const uint8_t *script; /* what the backend does */
    size_t script_n, script_at;

    struct reference said[REQUESTS_MAX]; /* about the client's requests; only the last may be a bad one */
    unsigned said_count;

    int client_fd;
    struct buf client_in;
    bool client_eof;

    struct conn conns[CONNS_MAX];
    unsigned conn_count, current;
    struct message messages[MESSAGES_MAX];
    unsigned message_count, waits, next; /* `next`: the first request that has not reached the backend */
    bool resent;                         /* the one before it has come twice */
} in;

static void free_buffers(void)
{
    buf_fini(&in.bytes);
    buf_fini(&in.client_in);
    for (unsigned i = 0; i < CONNS_MAX; i++) {
        buf_fini(&in.conns[i].in);
        buf_fini(&in.conns[i].out);
    }
}

static void keep(struct buf *b, const void *p, size_t n)
{
    CHECK(buf_append(b, p, n));
}

static void clear(struct buf *b)
{
    b->start = b->len = 0;
}

/* Takes the client's half apart; what stands behind GS is not sent. */
static void read_input(const uint8_t *data, size_t size)
{
    const uint8_t *end = memchr(data, RECORD, size);
    size_t n = end ? (size_t)(end - data) : size;

    clear(&in.bytes);
    in.split_count = 0;
    in.fin = false;
    for (size_t i = 0; i < n && !in.fin; i++) {
        if (data[i] == GROUP)
            in.fin = true;
        else if (data[i] != SPLIT)
            keep(&in.bytes, data + i, 1);
        else if (in.split_count < SPLITS_MAX)
            in.splits[in.split_count++] = in.bytes.len;
    }
    in.script = end ? end + 1 : data + size;
    in.script_n = end ? size - n - 1 : 0;
    in.script_at = 0;
}

/* False when there are more requests in it than there is room for. */
static bool read_requests(void)
{
    size_t at = 0;
    struct str all = buf_str(&in.bytes);

    in.said_count = 0;
    while (at < all.n) {
        if (in.said_count == REQUESTS_MAX)
            return false;
        struct reference *r = &in.said[in.said_count++];
        reference_read(r, all.p + at, all.n - at, &limits);
        if (r->verdict != REFERENCE_FORWARD || r->last)
            break;
        at += r->used;
    }
    return true;
}

/* ---- the backend ---- */

static bool is_idempotent(struct span method)
{
    static const char *const names[] = {"GET", "HEAD", "OPTIONS", "PUT", "DELETE"};

    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (span_is(method, names[i]))
            return true;
    return false;
}

/* Which request of the client's is it? They come in their order; some may be missing, answered with an error or given
 * up before they were whole. One may come twice where a kept connection was found closed, if its method allows that. */
static void place_message(const struct reference *got)
{
    const char *fault = "a request that the client has not sent";

    for (unsigned i = in.next; i < in.said_count && in.said[i].verdict == REFERENCE_FORWARD; i++) {
        const char *f = reference_compare(&in.said[i], got, CLIENT_IP, false);
        if (!f) {
            in.next = i + 1;
            in.resent = false;
            return;
        }
        fault = i == in.next ? f : fault;
    }
    if (in.next > 0 && !in.resent && is_idempotent(got->method) &&
        !reference_compare(&in.said[in.next - 1], got, CLIENT_IP, false)) {
        in.resent = true;
        return;
    }
    CHECK_NO(fault);
}

static void note_message(unsigned c, const struct reference *got, size_t n, bool whole)
{
    CHECK(in.message_count < (whole ? MESSAGES_MAX - CONNS_MAX : MESSAGES_MAX));
    in.messages[in.message_count++] = (struct message){c, in.conns[c].taken, n, whole, span_is(got->method, "HEAD")};
}

/* Looks for whole messages in what a connection has received. */
static void take_messages(unsigned c)
{
    static struct reference got;
    struct conn *conn = &in.conns[c];

    while (conn->taken < conn->in.len && !in.tunnel) {
        struct str rest = buf_str(&conn->in);
        reference_read(&got, rest.p + conn->taken, rest.n - conn->taken, &wide);
        if (got.verdict == REFERENCE_REFUSE)
            CHECK_NO(got.why);
        bool whole = got.verdict == REFERENCE_FORWARD;
        if (whole) {
            place_message(&got);
            note_message(c, &got, got.used, true);
            conn->taken += got.used;
            in.current = c;
        }
        reference_free(&got);
        if (!whole)
            return;
    }
}

static void conn_close(struct conn *c)
{
    if (c->fd >= 0)
        close(c->fd);
    c->fd = -1;
}

/* All that waits at a descriptor. False at its end. */
static bool read_all(int fd, struct buf *to, bool *progress)
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

static bool accept_conns(void)
{
    bool progress = false;
    int fd;

    while ((fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC)) >= 0) {
        CHECK(in.conn_count < CONNS_MAX);
        struct conn *c = &in.conns[in.conn_count];
        clear(&c->in);
        clear(&c->out);
        c->fd = fd;
        c->taken = 0;
        c->ended = false;
        in.current = in.conn_count++;
        progress = true;
    }
    return progress;
}

static void say(struct conn *c, const uint8_t *p, size_t n)
{
    keep(&c->out, p, n);
    (void)!send(c->fd, p, n, MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* Does the next thing in the script. False when that has to wait, or is nothing. What would be said on a connection
 * that is closed waits for another. */
static bool act(void)
{
    static const char stops[] = {SPLIT, RECORD, GROUP, FILE_SEP};
    const uint8_t *p = in.script + in.script_at;
    size_t left = in.script_n - in.script_at, n = 0;
    struct conn *c = &in.conns[in.current];

    while (n < left && !memchr(stops, p[n], sizeof stops))
        n++;
    if (left == 0 || in.conn_count == 0 || (n > 0 && c->fd < 0))
        return false;
    if (*p == FILE_SEP && in.waits >= in.message_count && !in.tunnel)
        return false;
    in.waits += *p == FILE_SEP;
    if (*p == GROUP) {
        c->ended |= c->fd >= 0;
        conn_close(c);
    }
    if (n > 0)
        say(c, p, n);
    in.script_at += n > 0 ? n : 1;
    return true;
}

/* Does what can be done up to the next split. */
static bool act_on(void)
{
    bool progress = false, split = false;

    while (!split) {
        split = in.script_at < in.script_n && in.script[in.script_at] == SPLIT;
        if (!act())
            break;
        progress = true;
    }
    return progress;
}

static bool backend_step(void)
{
    bool progress = accept_conns();

    for (unsigned i = 0; i < in.conn_count; i++) {
        struct conn *c = &in.conns[i];
        if (c->fd < 0)
            continue;
        bool open = read_all(c->fd, &c->in, &progress);
        take_messages(i);
        if (!open)
            conn_close(c);
    }
    return act_on() || progress;
}

/* ---- the run ---- */

static bool client_step(void)
{
    bool progress = false;

    if (!in.client_eof)
        in.client_eof = !read_all(in.client_fd, &in.client_in, &progress);
    return progress;
}

/* Turns until nothing moves any more. */
static void settle(void)
{
    unsigned idle = 0, turns = 0;

    while (idle < 2) {
        CHECK(++turns < TURNS_MAX);
        loop_turn(loop, 0);
        bool moved = backend_step();
        moved |= client_step();
        idle = moved ? 0 : idle + 1;
    }
}

static void begin(void)
{
    struct peer peer = {0};
    int fds[2];

    CHECK(ip_parse(STR(CLIENT_IP), &peer.ip));
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds) == 0);
    in.client_fd = fds[0];
    in.client_eof = in.resent = false;
    clear(&in.client_in);
    in.conn_count = in.current = in.message_count = in.waits = in.next = 0;
    proxy_accept(proxy, fds[1], &peer);
}

static void send_all(void)
{
    struct str all = buf_str(&in.bytes);
    size_t at = 0;

    for (unsigned i = 0; i <= in.split_count; i++) {
        size_t to = i < in.split_count ? in.splits[i] : all.n;
        (void)!send(in.client_fd, all.p + at, to - at, MSG_NOSIGNAL);
        at = to;
        if (i == in.split_count && in.fin)
            shutdown(in.client_fd, SHUT_WR);
        settle();
    }
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
    close(in.client_fd);
    for (unsigned i = 0; i < in.conn_count; i++)
        conn_close(&in.conns[i]);
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

/* ---- what has come of it ---- */

/* The beginning of a message at the end of what a connection has received is the beginning of one of the client's.
 * Where there is nothing, one may have been on its way when the connection was closed: it has no bytes, and may have
 * been answered all the same. */
static void check_partial(unsigned c)
{
    static struct reference got;
    struct str rest = buf_str(&in.conns[c].in);
    const char *fault = "a part of a request that the client has not sent";

    if (in.conns[c].taken == rest.n) {
        in.messages[in.message_count++] = (struct message){.conn = c};
        return;
    }
    reference_read(&got, rest.p + in.conns[c].taken, rest.n - in.conns[c].taken, &wide);
    CHECK(got.verdict == REFERENCE_INCOMPLETE && got.head_whole); /* a head leaves in one piece */
    for (unsigned i = 0; i < in.said_count && fault; i++)
        if (in.said[i].head_whole)
            fault = reference_compare(&in.said[i], &got, CLIENT_IP, true);
    CHECK_NO(fault);
    note_message(c, &got, rest.n - in.conns[c].taken, false);
    reference_free(&got);
}

/* Reads what the backend said to a message: the final response. */
static void read_answer(struct reference *r, const struct message *m)
{
    struct str out = buf_str(&in.conns[m->conn].out);
    size_t at = 0;

    for (const struct message *before = in.messages; before <= m; before++) {
        if (before->conn != m->conn)
            continue;
        do { /* past the interim ones */
            reference_read_response(r, out.p + at, out.n - at, before->to_head, in.conns[m->conn].ended, &wide);
            at += r->used;
            if (before != m || r->status < 200)
                reference_free(r);
        } while (r->verdict == REFERENCE_FORWARD && r->status < 200);
        if (r->verdict != REFERENCE_FORWARD) {
            r->head_whole &= before == m;
            return;
        }
    }
}

/* Is `got` what the backend said, or (`cut`) the beginning of it? */
static bool is_answer(const struct message *m, const struct reference *got, bool cut)
{
    static struct reference said;

    said.content = NULL;
    read_answer(&said, m);
    bool same = said.head_whole && said.status == got->status && got->content_n <= said.content_n &&
                (got->content_n == 0 || memcmp(got->content, said.content, got->content_n) == 0) &&
                (cut || (said.verdict == REFERENCE_FORWARD && got->content_n == said.content_n));
    reference_free(&said);
    return same;
}

static bool is_message_of(const struct message *m, const struct reference *said)
{
    static struct reference got;

    if (m->n == 0)
        return true;
    reference_read(&got, buf_str(&in.conns[m->conn].in).p + m->at, m->n, &wide);
    bool same = reference_compare(said, &got, CLIENT_IP, !m->whole) == NULL;
    reference_free(&got);
    return same;
}

static bool is_relayed(const struct reference *said, const struct reference *got, bool cut)
{
    for (unsigned i = 0; i < in.message_count; i++) {
        if (in.messages[i].n == 0)
            in.messages[i].to_head = span_is(said->method, "HEAD");
        if (is_message_of(&in.messages[i], said) && is_answer(&in.messages[i], got, cut))
            return true;
    }
    return false;
}

/* http-parser takes any name that begins with Transfer-Encoding for that field where Content-Length is there, too: a
 * sound request is refused. */
static bool is_refused_by_mistake(const struct reference *said, int status)
{
    for (unsigned i = 0; i < said->field_count; i++)
        if (said->fields[i].name.n > 17 &&
            span_is_nocase((struct span){said->fields[i].name.p, 17}, "Transfer-Encoding"))
            return status == 400;
    return false;
}

/* Is that an error that the balancer may answer by itself? A backend may fail whenever it has got the head. */
static bool fits(const struct reference *said, int status)
{
    if (said->head_whole && (status == 502 || status == 504))
        return true;
    if (said->verdict == REFERENCE_INCOMPLETE) /* what is there so far may show it already */
        return (status >= 400 && status < 500) || (!said->head_whole && (status == 501 || status == 505));
    return reference_accepts(said, status) || is_refused_by_mistake(said, status);
}

/* An error of the balancer's own, or the backend's response to that very request. */
static void check_final(const struct reference *said, const struct reference *got, bool cut)
{
    bool own = true;

    for (unsigned i = 0; i < got->field_count; i++)
        own &= !span_is_nocase(got->fields[i].name, "Via");
    if (own)
        CHECK(fits(said, got->status));
    else /* where only the end of the connection tells the end, over a unix socket it does not tell why */
        CHECK(said->head_whole && is_relayed(said, got, cut || got->framing == REFERENCE_CLOSE));
}

/* Reads one response of the client's; a refused HEAD may or may not have been seen to be one. */
static void read_response(struct reference *r, struct str rest, const struct reference *said)
{
    bool to_head = span_is(said->method, "HEAD");

    if (to_head && said->verdict != REFERENCE_FORWARD) {
        reference_read_response(r, rest.p, rest.n, false, in.client_eof, &wide);
        if (r->verdict == REFERENCE_FORWARD)
            return;
        reference_free(r);
    }
    reference_read_response(r, rest.p, rest.n, to_head, in.client_eof, &wide);
}

static void check_client(void)
{
    static struct reference r;
    struct str rest = buf_str(&in.client_in);
    unsigned k = 0;

    while (rest.n > 0) {
        CHECK(k < in.said_count);
        const struct reference *said = &in.said[k];
        read_response(&r, rest, said);
        if (r.verdict == REFERENCE_REFUSE)
            CHECK_NO(r.why);
        bool whole = r.verdict == REFERENCE_FORWARD, final = r.status >= 200, tunnel = whole && r.status == 101;
        CHECK(final || said->minor > 0);
        if (final && r.head_whole)
            check_final(said, &r, !whole);
        rest = str_make(rest.p + r.used, rest.n - r.used);
        reference_free(&r);
        k += final;
        if (tunnel || !whole)
            return;
    }
}

/* From a 101 on, bytes are no messages. */
static bool is_tunnel(void)
{
    bool asked = false, given = false;

    for (unsigned i = 0; i < in.said_count; i++)
        for (unsigned f = 0; f < in.said[i].field_count; f++)
            asked |= span_is_nocase(in.said[i].fields[f].name, "Upgrade");
    for (size_t i = 0; i + 3 <= in.script_n; i++)
        given |= memcmp(in.script + i, "101", 3) == 0;
    return asked && given;
}

static void run(void)
{
    begin();
    send_all();
    for (unsigned i = 0; i < in.conn_count && !in.tunnel; i++)
        check_partial(i);
    if (!in.tunnel)
        check_client();
    end();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!loop)
        set_up();
    read_input(data, size);
    bool fits = read_requests();
    in.tunnel = is_tunnel();
    if (fits)
        run();
    for (unsigned i = 0; i < in.said_count; i++)
        reference_free(&in.said[i]);
    return 0;
}
