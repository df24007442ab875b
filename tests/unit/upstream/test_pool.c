/* How many idle connections to backends are kept, and which are closed first. The backends are unix sockets of this
 * program: each lease is answered by hand. */
#include "base/clock.h"
#include "net/sock.h"
#include "upstream/back_h1.h"
#include "upstream/backend.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#define BACKENDS    3u
#define CONNECTIONS 32u /* of all tests' worlds, at most */

struct world {
    struct loop *loop;
    struct upstream *upstream;
    struct backend *backends[BACKENDS];
    struct addr addrs[BACKENDS];
    int listeners[BACKENDS];
    int fds[CONNECTIONS]; /* the backends' sides, in the order in which they were accepted */
    unsigned accepted;
};

/* A request under way. */
struct lease {
    struct world *world;
    struct back_conn *conn;
    int fd; /* the backend's side */
    bool ready, ended;
};

static void on_ready(void *arg)
{
    ((struct lease *)arg)->ready = true;
}

static void on_head(void *arg, const struct response *r, struct str head, bool more)
{
    (void)arg, (void)head, (void)more;
    assert_int_equal(r->status, 204);
}

static void on_body(void *arg, char *p, size_t n, bool end, struct str trailers)
{
    (void)p, (void)n, (void)trailers;
    struct lease *l = arg;
    l->ended = end;
    l->conn = NULL;
}

static void on_drained(void *arg)
{
    (void)arg;
}

static void on_fail(void *arg, const struct back_failure *f)
{
    (void)arg;
    fail_msg("%s", f->cause);
}

static const struct back_events events = {
    .on_ready = on_ready, .on_head = on_head, .on_body = on_body, .on_drained = on_drained, .on_fail = on_fail};

static void turn_until(struct world *w, const bool *flag)
{
    for (uint64_t end = clock_monotonic() + 5 * NS_PER_S; !*flag;) {
        assert_true(clock_monotonic() < end);
        loop_turn(w->loop, 20 * NS_PER_MS);
    }
}

static struct config *config_of(unsigned connections)
{
    char text[1024];
    int n = snprintf(text, sizeof text,
                     "{\"backends\":[{\"address\":\"unix:/tmp/test_pool.%d.0\"},{\"address\":\"unix:/tmp/test_pool.%d."
                     "1\"},{\"address\":\"unix:/tmp/test_pool.%d.2\"}],\"health_check\":null,\"limits\":{"
                     "\"connections\":%u}}",
                     (int)getpid(), (int)getpid(), (int)getpid(), connections);
    struct buf errors = BUF_INIT;
    struct config *c = config_parse(str_make(text, (size_t)n), "test", NULL, &errors);
    assert_non_null(c);
    buf_fini(&errors);
    return c;
}

static void open_world(struct world *w, unsigned connections)
{
    struct config *config = config_of(connections);
    *w = (struct world){.loop = loop_new()};
    assert_non_null(w->loop);
    w->upstream = upstream_new(w->loop, config);
    assert_non_null(w->upstream);
    for (unsigned i = 0; i < BACKENDS; i++) {
        w->backends[i] = upstream_backend(w->upstream, i);
        w->addrs[i] = config->backends[i].endpoint.addr;
        w->listeners[i] = sock_listen(&w->addrs[i], 8);
        assert_true(w->listeners[i] >= 0);
    }
    config_put(config);
}

static void close_world(struct world *w)
{
    upstream_free(w->upstream);
    loop_free(w->loop);
    for (unsigned i = 0; i < w->accepted; i++)
        sock_close(w->fds[i]);
    for (unsigned i = 0; i < BACKENDS; i++) {
        sock_close(w->listeners[i]);
        sock_unlink(&w->addrs[i]);
    }
}

static int accepted(struct world *w, unsigned at)
{
    struct addr from;
    int fd = sock_accept(w->listeners[at], &from);
    assert_true(fd >= 0);
    assert_true(w->accepted < CONNECTIONS);
    w->fds[w->accepted++] = fd;
    return fd;
}

/* A request to that backend, on a kept connection if one may be had, else on a fresh one. */
static void begin(struct world *w, struct lease *l, unsigned at, bool sure)
{
    struct backend *be = w->backends[at];
    *l = (struct lease){.world = w, .fd = -1};
    l->conn = pool_get(be, sure, &events, l);
    if (!l->conn) {
        l->conn = back_open(be, NS_PER_S, &events, l);
        assert_non_null(l->conn);
        turn_until(w, &l->ready);
        l->fd = accepted(w, at);
    }
    struct back_request r = {.head = STR("GET / HTTP/1.1\r\n\r\n"), .method = METHOD_GET};
    back_send_head(l->conn, &r, false);
}

/* ... is answered, on a connection that was fresh. */
static void end(struct lease *l)
{
    static const char answer[] = "HTTP/1.1 204 No Content\r\n\r\n";
    assert_int_equal(write(l->fd, answer, sizeof answer - 1), (ssize_t)sizeof answer - 1);
    turn_until(l->world, &l->ended);
}

/* `n` requests at once, so that as many connections are kept. */
static void keep(struct world *w, unsigned at, unsigned n)
{
    struct lease l[CONNECTIONS];
    for (unsigned i = 0; i < n; i++)
        begin(w, &l[i], at, false);
    for (unsigned i = 0; i < n; i++)
        end(&l[i]);
}

static unsigned idle_at(const struct world *w, unsigned at)
{
    return w->backends[at]->idle_count;
}

/* A kept connection was found closed at its reuse: what may not be sent twice gets a fresh one each time, and that does
 * not leave one more each time. */
static void fresh_ones_take_the_place_of_kept_ones(void **state)
{
    (void)state;
    struct world w;
    struct lease l;
    open_world(&w, 100);
    keep(&w, 0, 2);
    pool_warn(w.backends[0], 0);
    for (unsigned i = 0; i < 10; i++) {
        begin(&w, &l, 0, true);
        assert_int_equal(w.accepted, 2 + i + 1);
        end(&l);
        assert_int_equal(idle_at(&w, 0), 2);
        assert_int_equal(w.backends[0]->open_count, 2);
    }
    begin(&w, &l, 0, false); /* what may be sent twice goes on a kept one */
    assert_int_equal(l.fd, -1);
    back_release(l.conn);
    close_world(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fresh_ones_take_the_place_of_kept_ones),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
