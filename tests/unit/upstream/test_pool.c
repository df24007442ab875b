/* How many idle connections to backends are kept, and which are closed first. The backends are unix sockets of this
 * program: each lease is answered by hand. */
#include "base/clock.h"
#include "net/sock.h"
#include "upstream/back_h1.h"
#include "upstream/backend.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
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

/* The backends from `first` on. */
static struct config *config_of(unsigned first, unsigned connections)
{
    char list[512] = "", text[1024];
    size_t len = 0;
    for (unsigned i = first; i < BACKENDS; i++)
        len += (size_t)snprintf(list + len, sizeof list - len, "%s{\"address\":\"unix:/tmp/test_pool.%d.%u\"}",
                                i > first ? "," : "", (int)getpid(), i);
    int n = snprintf(text, sizeof text, "{\"backends\":[%s],\"health_check\":null,\"limits\":{\"connections\":%u}}",
                     list, connections);
    struct buf errors = BUF_INIT;
    struct config *c = config_parse(str_make(text, (size_t)n), "test", NULL, &errors);
    assert_non_null(c);
    buf_fini(&errors);
    return c;
}

static void open_world(struct world *w, unsigned connections)
{
    struct config *config = config_of(0, connections);
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

static void reload(struct world *w, unsigned first, unsigned connections)
{
    struct config *config = config_of(first, connections);
    struct upstream_change *c = upstream_stage(w->upstream, config, NULL);
    assert_non_null(c);
    config_put(config);
    assert_int_equal(upstream_commit(c).removed, first);
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

static void accepted(struct world *w, unsigned at)
{
    struct addr from;
    int fd = sock_accept(w->listeners[at], &from);
    assert_true(fd >= 0);
    assert_true(w->accepted < CONNECTIONS);
    w->fds[w->accepted++] = fd;
}

static bool takes_request(int fd)
{
    char request[100];
    return sock_recv(fd, request, sizeof request) > 0;
}

/* A request to that backend, on a kept connection if one may be had, else on a fresh one. */
static void begin(struct world *w, struct lease *l, unsigned at, bool sure)
{
    *l = (struct lease){.world = w, .fd = -1};
    l->conn = pool_get(w->backends[at], sure, &events, l);
    if (!l->conn) {
        l->conn = back_open(w->backends[at], NS_PER_S, &events, l);
        assert_non_null(l->conn);
        turn_until(w, &l->ready);
        accepted(w, at);
    }
    struct back_request r = {.head = STR("GET / HTTP/1.1\r\n\r\n"), .method = METHOD_GET};
    back_send_head(l->conn, &r, false);
    loop_turn(w->loop, 0); /* short messages leave in its passes */
    for (unsigned i = 0; i < w->accepted && l->fd < 0; i++)
        l->fd = takes_request(w->fds[i]) ? w->fds[i] : -1;
    assert_true(l->fd >= 0);
}

/* ... is answered. */
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

/* So many are idle at each, and all together that many connections there are; the list of all has just those. */
static void check_idle(const struct world *w, unsigned a, unsigned b, unsigned c, unsigned open)
{
    unsigned n = 0;
    LIST_EACH (it, &w->upstream->idle) {
        n++;
    }
    assert_int_equal(w->backends[0]->idle_count, a);
    assert_int_equal(w->backends[1]->idle_count, b);
    assert_int_equal(w->backends[2]->idle_count, c);
    assert_int_equal(n, a + b + c);
    assert_int_equal(w->upstream->open_count, open);
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
        check_idle(&w, 2, 0, 0, 2);
    }
    begin(&w, &l, 0, false); /* what may be sent twice goes on a kept one */
    check_idle(&w, 1, 0, 0, 2);
    back_release(l.conn);
    close_world(&w);
}

/* The peaks of the backends are more together than limits.connections: who was used last stays. */
static void the_longest_idle_goes_first(void **state)
{
    (void)state;
    struct world w;
    open_world(&w, 4);
    keep(&w, 0, 3);
    check_idle(&w, 3, 0, 0, 3);
    keep(&w, 1, 2);
    check_idle(&w, 2, 2, 0, 4);
    keep(&w, 0, 2); /* on kept ones: now those of the other one have been idle for longer */
    assert_int_equal(w.accepted, 5);
    keep(&w, 2, 1);
    check_idle(&w, 2, 1, 1, 4);
    keep(&w, 2, 3);
    check_idle(&w, 1, 0, 3, 4);
    close_world(&w);
}

static void what_is_in_use_stays(void **state)
{
    (void)state;
    struct world w;
    struct lease l[3];
    open_world(&w, 2);
    for (unsigned i = 0; i < 3; i++)
        begin(&w, &l[i], i, false);
    check_idle(&w, 0, 0, 0, 3);
    for (unsigned i = 0; i < 3; i++)
        end(&l[i]);
    check_idle(&w, 0, 1, 1, 2);
    close_world(&w);
}

static void a_reload_keeps_the_list_right(void **state)
{
    (void)state;
    struct world w;
    struct lease l;
    open_world(&w, 100);
    keep(&w, 0, 3);
    keep(&w, 1, 3);
    keep(&w, 2, 3);
    check_idle(&w, 3, 3, 3, 9);
    reload(&w, 0, 5);
    check_idle(&w, 0, 2, 3, 5);
    keep(&w, 0, 1);
    check_idle(&w, 1, 1, 3, 5);
    begin(&w, &l, 0, false);
    struct backend *removed = backend_get(w.backends[0]);
    reload(&w, 1, 100);
    check_idle(&w, 0, 1, 3, 5);
    end(&l); /* on a connection to one that is no longer there */
    check_idle(&w, 0, 1, 3, 4);
    keep(&w, 1, 2);
    check_idle(&w, 0, 2, 3, 5);
    backend_put(removed);
    close_world(&w);
}

/* From now on no descriptor is to be had. */
static struct rlimit take_descriptors(void)
{
    struct rlimit old;
    int lowest = dup(0);
    assert_true(lowest > 0);
    close(lowest);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
    struct rlimit none_left = {.rlim_cur = (rlim_t)lowest, .rlim_max = old.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none_left), 0);
    return old;
}

static void an_idle_one_gives_its_descriptor(void **state)
{
    (void)state;
    struct world w;
    struct lease l = {.world = &w}, more = {.world = &w};
    open_world(&w, 100);
    keep(&w, 0, 1);
    struct rlimit old = take_descriptors();
    static const struct back_events of_a_check = {.yields = true};
    assert_null(back_open(w.backends[1], NS_PER_S, &of_a_check, &more));
    assert_int_equal(errno, EMFILE);
    check_idle(&w, 1, 0, 0, 1);
    l.conn = back_open(w.backends[1], NS_PER_S, &events, &l);
    assert_non_null(l.conn);
    check_idle(&w, 0, 0, 0, 1);
    errno = 0;
    assert_null(back_open(w.backends[1], NS_PER_S, &events, &more)); /* now there is none left */
    assert_int_equal(errno, EMFILE);
    assert_false(upstream_spare(w.upstream));
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
    back_release(l.conn);
    keep(&w, 2, 2);
    assert_true(upstream_spare(w.upstream));
    check_idle(&w, 0, 0, 1, 1);
    assert_false(upstream_spare(w.upstream)); /* a client's request would find none */
    check_idle(&w, 0, 0, 1, 1);
    close_world(&w);
}

/* How long the backend keeps connections is learned from its closing them, not from ours. */
static void our_own_time_out_teaches_nothing(void **state)
{
    (void)state;
    struct world w;
    struct pool_known known;
    open_world(&w, 100);
    struct backend *be = w.backends[0];
    be->snapshot->timeouts.backend_idle = 110 * NS_PER_MS;
    for (int i = 0; i < 2; i++) {
        keep(&w, 0, 1);
        for (uint64_t end = clock_monotonic() + 5 * NS_PER_S; be->idle_count > 0;) {
            assert_true(clock_monotonic() < end);
            loop_turn(w.loop, 20 * NS_PER_MS);
        }
        assert_int_equal(w.accepted, i + 1);
        assert_int_equal(be->keep.seen, 0);
    }
    assert_false(pool_tell(be, &known));
    close_world(&w);
}

static void pass(struct world *w, uint64_t ns)
{
    uint64_t end = clock_monotonic() + ns;
    do
        loop_turn(w->loop, 10 * NS_PER_MS);
    while (loop_now(w->loop) < end);
}

/* The backend closes two connections that have been idle for so long, one after the other. */
static void close_two(struct world *w, struct backend *be, uint64_t idle)
{
    pool_learn(be, idle);
    pass(w, 110 * NS_PER_MS);
    pool_learn(be, idle);
}

/* Where others have been used after they had been idle for longer, or still stand, it was no time-out that closed two.
 */
static void what_outlives_it_is_no_time_out(void **state)
{
    (void)state;
    struct world w;
    struct pool_known known;
    open_world(&w, 100);
    struct backend *be = w.backends[0];

    keep(&w, 0, 1);
    pass(&w, 200 * NS_PER_MS);
    close_two(&w, be, 150 * NS_PER_MS);
    assert_false(pool_tell(be, &known)); /* one stands */
    keep(&w, 0, 1);
    assert_int_equal(w.accepted, 1);
    close_two(&w, be, 150 * NS_PER_MS);
    assert_false(pool_tell(be, &known)); /* it was used */
    close_two(&w, be, 10 * NS_PER_S);
    assert_true(pool_tell(be, &known));
    close_world(&w);

    open_world(&w, 100); /* it had been closed twice, and then one is used that is older */
    be = w.backends[0];
    keep(&w, 0, 1);
    close_two(&w, be, NS_PER_S);
    assert_true(pool_tell(be, &known));
    pass(&w, NS_PER_S);
    keep(&w, 0, 1);
    assert_int_equal(w.accepted, 1);
    assert_false(pool_tell(be, &known));
    close_world(&w);
}

struct taker {
    struct watch watch;
    struct world *world;
    struct lease lease;
    bool taken;
};

static void take_one(struct watch *watch, unsigned ready)
{
    struct taker *t = container_of(watch, struct taker, watch);
    (void)ready;
    loop_unwatch(t->world->loop, watch);
    t->lease = (struct lease){.world = t->world, .fd = -1};
    t->lease.conn = pool_get(t->world->backends[0], false, &events, &t->lease);
    t->taken = true;
}

/* What an idle connection says has been received in this turn, and is told later in it: its bytes are no answer to a
 * request that is sent in between. */
static void one_that_stirs_is_not_given(void **state)
{
    (void)state;
    struct world w;
    struct lease l[2];
    struct taker t = {.world = &w};
    open_world(&w, 100);
    for (unsigned i = 0; i < 2; i++)
        begin(&w, &l[i], 0, false);
    for (unsigned i = 0; i < 2; i++)
        end(&l[i]);
    check_idle(&w, 2, 0, 0, 2);
    int pair[2];
    assert_int_equal(pipe(pair), 0);
    watch_init(&t.watch, pair[0], take_one);
    assert_true(loop_watch(w.loop, &t.watch, LOOP_READ));
    assert_int_equal(write(l[1].fd, "stray", 5), 5); /* the one that would be next */
    assert_int_equal(write(pair[1], "x", 1), 1);
    turn_until(&w, &t.taken);
    assert_non_null(t.lease.conn);
    check_idle(&w, 0, 0, 0, 1);
    struct back_request r = {.head = STR("GET / HTTP/1.1\r\n\r\n"), .method = METHOD_GET};
    back_send_head(t.lease.conn, &r, false);
    loop_turn(w.loop, 0);
    assert_true(takes_request(l[0].fd));
    back_release(t.lease.conn);
    close(pair[0]);
    close(pair[1]);
    close_world(&w);
}

/* The look says nothing of what comes later: where it is taken, the request leaves right behind it, other requests with
 * those of the same turn. */
static void what_is_looked_at_is_sent_at_once(void **state)
{
    (void)state;
    struct world w;
    open_world(&w, 100);
    enum { PLAIN, SURE, LONG_IDLE, KINDS };
    for (int kind = PLAIN; kind < KINDS; kind++) {
        struct lease l;
        begin(&w, &l, 0, false);
        end(&l);
        int fd = l.fd;
        uint64_t until = loop_now(w.loop) + (kind == LONG_IDLE ? NS_PER_S + NS_PER_MS : 0);
        while (loop_now(w.loop) < until)
            loop_turn(w.loop, NS_PER_MS);
        l = (struct lease){.world = &w, .fd = fd};
        l.conn = pool_get(w.backends[0], kind == SURE, &events, &l);
        assert_non_null(l.conn);
        struct back_request r = {.head = STR("GET / HTTP/1.1\r\n\r\n"), .method = METHOD_GET};
        back_send_head(l.conn, &r, false);
        assert_int_equal(back_unsent(l.conn) == 0, kind != PLAIN);
        assert_int_equal(takes_request(fd), kind != PLAIN);
        loop_turn(w.loop, 0);
        assert_int_equal(takes_request(fd), kind == PLAIN);
        end(&l);
    }
    close_world(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fresh_ones_take_the_place_of_kept_ones),
        cmocka_unit_test(the_longest_idle_goes_first),
        cmocka_unit_test(what_is_in_use_stays),
        cmocka_unit_test(a_reload_keeps_the_list_right),
        cmocka_unit_test(one_that_stirs_is_not_given),
        cmocka_unit_test(what_is_looked_at_is_sent_at_once),
        cmocka_unit_test(an_idle_one_gives_its_descriptor),
        cmocka_unit_test(our_own_time_out_teaches_nothing),
        cmocka_unit_test(what_outlives_it_is_no_time_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
