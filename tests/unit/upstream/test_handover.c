/* What one process knows of its backends, and another goes on with; and text that says no such thing. */
#include "base/clock.h"
#include "base/log.h"
#include "base/metrics.h"
#include "net/sock.h"
#include "upstream/backend.h"
#include "upstream/health.h"
#include "upstream/resolve.h"
#include "upstream/upstream.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define CHECKED                                                                                                        \
    "\"health_check\":{\"interval\":\"1h\",\"fall\":3,\"rise\":2},"                                                    \
    "\"passive_check\":{\"failures\":5,\"ejection\":\"10s\",\"max_ejection\":\"1m\"}"

struct process {
    struct loop *loop;
    struct upstream *upstream;
};

static void begin_at(struct process *p, unsigned port, const char *more)
{
    char text[1024];
    int n = snprintf(text, sizeof text,
                     "{\"backends\":[{\"address\":\"127.0.0.1:%u\"},{\"address\":\"unix:/tmp/a \\\"b\\\"\"},"
                     "{\"address\":\"127.0.0.1:3\"}],%s}",
                     port, more);
    struct buf errors = BUF_INIT;
    struct config *c = config_parse(str_make(text, (size_t)n), "test", NULL, &errors);
    assert_non_null(c);
    buf_fini(&errors);
    p->loop = loop_new();
    assert_non_null(p->loop);
    p->upstream = upstream_new(p->loop, c);
    assert_non_null(p->upstream);
    config_put(c);
}

static void begin(struct process *p, const char *more)
{
    begin_at(p, 1, more);
}

static void end(struct process *p)
{
    upstream_free(p->upstream);
    loop_free(p->loop);
}

static struct backend *at(struct process *p, unsigned i)
{
    return upstream_backend(p->upstream, i);
}

static void fail_at(struct backend *be, unsigned times)
{
    while (times-- > 0) {
        struct place p = {.epoch = be->passive.epoch, .on_trial = be->passive.on_trial};
        backend_failed(be, &p, "test");
    }
}

static void go_over(struct process *from, struct process *to)
{
    struct buf text = BUF_INIT;
    for (unsigned i = 0; i < upstream_count(from->upstream);)
        assert_true(upstream_export(from->upstream, &i, 1, &text));
    upstream_import(to->upstream, buf_str(&text));
    buf_fini(&text);
}

/* The text about one backend. */
static void assert_told(struct process *p, unsigned i, const char *expected)
{
    struct buf text = BUF_INIT;
    assert_true(upstream_export(p->upstream, &i, 1, &text));
    assert_true(buf_append(&text, "", 1));
    const char *from = strstr(buf_bytes(&text), ",\"up\""), *passive = strstr(buf_bytes(&text), ",\"failures\"");
    if (!strstr(from ? from : passive ? passive : buf_bytes(&text), expected))
        fail_msg("%s is not in %s", expected, buf_bytes(&text));
    buf_fini(&text);
}

static void checks_go_over(void **state)
{
    (void)state;
    struct process old, fresh, third;
    begin(&old, CHECKED);
    begin(&fresh, CHECKED);
    begin(&third, "\"health_check\":{\"interval\":\"1h\",\"fall\":2,\"rise\":1}");
    struct health_known down = {false, 1}, shaky = {true, 2};
    health_take(at(&old, 0), &down);
    health_take(at(&old, 1), &shaky);
    assert_false(backend_is_available(at(&old, 0)));
    assert_true(backend_is_available(at(&old, 1)));
    go_over(&old, &fresh);
    assert_false(backend_is_available(at(&fresh, 0)));
    assert_true(backend_is_available(at(&fresh, 1)) && backend_is_available(at(&fresh, 2)));
    assert_told(&fresh, 0, "\"up\":false,\"checks_in_a_row\":1,");
    assert_told(&fresh, 1, "\"up\":true,\"checks_in_a_row\":2,");
    assert_told(&fresh, 2, "\"up\":true,\"checks_in_a_row\":0,");

    /* Where fewer make a change, one is missing at least. */
    go_over(&fresh, &third);
    assert_told(&third, 0, "\"up\":false,\"checks_in_a_row\":0,");
    assert_told(&third, 1, "\"up\":true,\"checks_in_a_row\":1,");
    end(&third);

    /* Without checks there is nothing to take over, and nothing to tell. */
    begin(&third, "\"health_check\":null,\"passive_check\":null");
    go_over(&fresh, &third);
    assert_true(backend_is_available(at(&third, 0)));
    go_over(&third, &fresh);
    assert_false(backend_is_available(at(&fresh, 0)));
    end(&third);
    end(&fresh);
    end(&old);
}

/* The seats are those of who is up, whatever order the lines come in. */
static void seats_are_of_who_is_up(void **state)
{
    (void)state;
    struct process p;
    const struct tier *primary;
    begin(&p, CHECKED);
    primary = &p.upstream->tiers[TIER_PRIMARY];
    upstream_import(p.upstream, STR("{\"address\":\"127.0.0.1:3\",\"up\":false}\n"
                                    "{\"address\":\"127.0.0.1:1\",\"up\":false}\n"));
    assert_int_equal(primary->count, 1);
    assert_ptr_equal(primary->seats[0].backend, at(&p, 1));
    upstream_import(p.upstream, STR("{\"address\":\"unix:/tmp/a \\\"b\\\"\",\"up\":false}\n"));
    assert_false(upstream_has_available(p.upstream));
    upstream_import(p.upstream, STR("{\"address\":\"127.0.0.1:3\",\"up\":true}\n"));
    assert_int_equal(primary->count, 1);
    assert_ptr_equal(primary->seats[0].backend, at(&p, 2));
    end(&p);
}

static void ejections_go_over(void **state)
{
    (void)state;
    struct process old, fresh;
    begin(&old, CHECKED);
    begin(&fresh, CHECKED);
    at(&old, 0)->passive.ejection = 10 * NS_PER_S;
    fail_at(at(&old, 0), 5);
    fail_at(at(&old, 1), 4);
    at(&old, 2)->passive.on_trial = true;
    uint64_t ends = at(&old, 0)->passive.timer.deadline;
    go_over(&old, &fresh);

    /* It ends when it was to end, and the next one is longer by as much; but a millisecond that the text leaves out. */
    struct backend *be = at(&fresh, 0);
    assert_true(be->ejected && !backend_is_available(be));
    assert_int_equal(be->passive.ejection, 20 * NS_PER_S);
    assert_in_range(be->passive.timer.deadline, ends - NS_PER_MS, ends + loop_now(fresh.loop) - loop_now(old.loop));
    assert_true(backend_is_available(at(&fresh, 1)));
    fail_at(at(&fresh, 1), 1);
    assert_false(backend_is_available(at(&fresh, 1)));
    assert_true(at(&fresh, 2)->passive.on_trial);
    end(&fresh);

    begin(&fresh, "\"health_check\":null,\"passive_check\":{\"failures\":2,\"max_ejection\":\"15s\"}");
    go_over(&old, &fresh);
    assert_int_equal(at(&fresh, 0)->passive.ejection, 15 * NS_PER_S);
    assert_true(backend_is_available(at(&fresh, 1))); /* one more */
    fail_at(at(&fresh, 1), 1);
    assert_false(backend_is_available(at(&fresh, 1)));
    end(&fresh);

    begin(&fresh, "\"health_check\":null,\"passive_check\":null");
    go_over(&old, &fresh);
    assert_true(backend_is_available(at(&fresh, 0)));
    end(&fresh);
    end(&old);
}

static void times_go_over(void **state)
{
    (void)state;
    struct process old, fresh;
    begin(&old, CHECKED ",\"slow_start\":\"1h\"");
    begin(&fresh, CHECKED ",\"slow_start\":\"1h\"");
    uint64_t now = loop_now(old.loop), room = loop_now(fresh.loop) - now + NS_PER_MS;
    at(&old, 0)->since = now - 5 * NS_PER_S;
    at(&old, 1)->warm = now - 3 * NS_PER_S;
    go_over(&old, &fresh);
    assert_in_range(at(&fresh, 0)->since, at(&old, 0)->since, at(&old, 0)->since + room);
    assert_in_range(at(&fresh, 1)->warm, at(&old, 1)->warm, at(&old, 1)->warm + room);
    assert_int_equal(at(&fresh, 2)->warm, 0);
    end(&fresh);
    end(&old);
}

/* How long a backend keeps idle connections, and since when that is known; unless that is long ago. */
static void keep_times_go_over(void **state)
{
    (void)state;
    struct process old, fresh;
    begin(&old, CHECKED);
    begin(&fresh, CHECKED);
    uint64_t now = loop_now(old.loop), room = loop_now(fresh.loop) - now + NS_PER_MS;
    at(&old, 0)->keep.bound = 1400 * NS_PER_MS;
    at(&old, 0)->keep.since = now - 5 * NS_PER_S;
    at(&old, 1)->keep.bound = 1400 * NS_PER_MS;
    at(&old, 1)->keep.since = now - 3600 * NS_PER_S;
    go_over(&old, &fresh);
    assert_int_equal(at(&fresh, 0)->keep.bound, 1400 * NS_PER_MS);
    assert_in_range(at(&fresh, 0)->keep.since, at(&old, 0)->keep.since, at(&old, 0)->keep.since + room);
    assert_int_equal(at(&fresh, 1)->keep.bound, 0);
    assert_int_equal(at(&fresh, 2)->keep.bound, 0);

    /* An older process does not tell, and one that was down may come back as another. */
    upstream_import(fresh.upstream, STR("{\"address\":\"127.0.0.1:1\",\"up\":true}\n"
                                        "{\"address\":\"127.0.0.1:3\",\"up\":true,\"keeps_idle_ms\":900}\n"));
    assert_int_equal(at(&fresh, 0)->keep.bound, 1400 * NS_PER_MS);
    assert_int_equal(at(&fresh, 2)->keep.bound, 900 * NS_PER_MS);
    upstream_import(fresh.upstream, STR("{\"address\":\"127.0.0.1:3\",\"available\":false,\"up\":true,"
                                        "\"keeps_idle_ms\":800}\n"
                                        "{\"address\":\"127.0.0.1:1\",\"up\":true,\"keeps_idle_ms\":0}\n"));
    assert_int_equal(at(&fresh, 2)->keep.bound, 900 * NS_PER_MS);
    assert_int_equal(at(&fresh, 0)->keep.bound, 1400 * NS_PER_MS);
    end(&fresh);
    end(&old);
}

static int listen_anywhere(unsigned *port)
{
    struct endpoint e;
    struct addr bound;
    const char *why;
    assert_true(endpoint_parse(STR("127.0.0.1:0"), true, &e, &why));
    int fd = sock_listen(&e.addr, 16);
    assert_true(fd >= 0);
    assert_int_equal(sock_local_addr(fd, &bound), 0);
    *port = peer_from_addr(&bound).port;
    return fd;
}

/* The first check of the first backend comes, and is answered with that status. */
static void answer_check(struct process *p, int listener, unsigned status)
{
    char answer[64];
    int length = snprintf(answer, sizeof answer, "HTTP/1.1 %u X\r\nContent-Length: 0\r\n\r\n", status);
    struct addr from;
    int fd;
    uint64_t deadline = clock_monotonic() + 10 * NS_PER_S;
    for (; (fd = sock_accept(listener, &from)) < 0; loop_turn(p->loop, NS_PER_MS))
        assert_true(clock_monotonic() < deadline);
    assert_int_equal(write(fd, answer, (size_t)length), length);
    for (; at(p, 0)->open_count > 0; loop_turn(p->loop, NS_PER_MS))
        assert_true(clock_monotonic() < deadline);
    sock_close(fd);
}

/* It was down before, and a check of the new process is enough to bring it back: that is a return, and begins slowly.
 */
static void a_return_at_once_begins_slowly(void **state)
{
    (void)state;
    static const char more[] = "\"health_check\":{\"interval\":\"1h\",\"rise\":1},\"slow_start\":\"1h\"";
    struct process old, fresh;
    unsigned port;
    int listener = listen_anywhere(&port);
    begin_at(&old, port, more);
    begin_at(&fresh, port, more);
    struct health_known down = {false, 0};
    health_take(at(&old, 0), &down);
    answer_check(&fresh, listener, 200);
    go_over(&old, &fresh);
    assert_true(backend_is_available(at(&fresh, 0)));
    assert_int_equal(at(&fresh, 0)->warm, loop_now(fresh.loop));
    assert_true(fresh.upstream->warming);

    /* What was up before has no start, slow or not. */
    go_over(&fresh, &old);
    assert_true(backend_is_available(at(&old, 0)));
    at(&fresh, 0)->warm = 0;
    go_over(&fresh, &old);
    assert_int_equal(at(&old, 0)->warm, 0);
    end(&fresh);
    end(&old);
    sock_close(listener);
}

/* ---- what is logged ---- */

/* Takes the log: it is one line that holds that, or with NULL none. */
static void assert_logged(const char *expected)
{
    struct buf lines = BUF_INIT;
    log_take(&lines);
    assert_true(buf_append(&lines, "", 1));
    const char *text = buf_bytes(&lines), *first_end = strchr(text, '\n');
    bool good = expected ? first_end && !first_end[1] && strstr(text, expected) : !first_end;
    if (!good)
        fail_msg("the log is \"%s\" instead of \"%s\"", text, expected ? expected : "");
    buf_fini(&lines);
}

static void forget_log(void)
{
    struct buf lines = BUF_INIT;
    log_take(&lines);
    buf_fini(&lines);
}

/* The first backend: what the process before knows of it, the first check of this one, and what the log says of it
 * behind the line of that one. */
static void what_has_changed_is_logged_once(void **state)
{
    (void)state;
    static const char checked[] = "\"health_check\":{\"interval\":\"1h\",\"fall\":3,\"rise\":2},"
                                  "\"passive_check\":{\"failures\":1,\"ejection\":\"10s\",\"max_ejection\":\"1m\"}";
    static const char passive_off[] = "\"health_check\":{\"interval\":\"1h\"},\"passive_check\":null";
    static const char all_off[] = "\"health_check\":null,\"passive_check\":null";
    static const struct {
        const char *known; /* behind the address */
        unsigned status;   /* of the first check; 0: it does not end before */
        const char *config, *said;
    } cases[] = {
        {"\"up\":true", 200, checked, NULL},
        {"\"up\":true", 503, checked, NULL},
        {"\"up\":true", 0, checked, NULL},
        {"\"up\":true,\"checks_in_a_row\":2,\"available_ms\":7000", 503, checked,
         "backend_down backend=BACKEND cause=\"status 503\" up_ms=7000"},
        {"\"up\":false", 503, checked, NULL},
        {"\"up\":false", 200, checked, NULL},
        {"\"up\":false", 0, checked, NULL},
        {"\"up\":false,\"checks_in_a_row\":1,\"available_ms\":9000", 200, checked,
         "backend_up backend=BACKEND cause=\"status 200\" down_ms=9000"},
        {"\"up\":true,\"failures\":1,\"ejected_ms\":5000", 503, checked, NULL},
        {"\"up\":true,\"failures\":1,\"ejected_ms\":5000", 200, checked, NULL},
        {"\"up\":false,\"checks_in_a_row\":1,\"failures\":1,\"ejected_ms\":5000", 200, checked, NULL},
        {"\"up\":true,\"failures\":1,\"ejected_ms\":5000", 200, passive_off,
         "backend_up backend=BACKEND cause=\"passive checks are off\""},
        {"\"up\":false", 0, all_off, "backend_up backend=BACKEND cause=\"health checks are off\""},
        {"\"failures\":0", 503, checked, "backend_down backend=BACKEND cause=\"status 503\""},
        {"\"available\":false,\"up\":true", 0, checked, "backend_up"}, /* it says itself what it has said */
        {NULL, 200, checked, NULL},                                    /* a backend that it does not know */
        {NULL, 503, checked, "backend_down backend=BACKEND cause=\"status 503\""},
    };
    forget_log();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct process p;
        struct buf line = BUF_INIT, said = BUF_INIT;
        unsigned port;
        int listener = listen_anywhere(&port);
        begin_at(&p, port, cases[i].config);
        upstream_await(p.upstream);
        health_stop(at(&p, 1));
        health_stop(at(&p, 2));
        if (cases[i].status > 0)
            answer_check(&p, listener, cases[i].status);
        assert_logged(NULL);
        assert_true(!cases[i].known || buf_printf(&line, "{\"address\":\"127.0.0.1:%u\",%s}\n", port, cases[i].known));
        upstream_import(p.upstream, buf_str(&line));
        for (const char *c = cases[i].said; c && *c; c++)
            if (strncmp(c, "BACKEND", 7) == 0)
                assert_true(buf_printf(&said, "127.0.0.1:%u", port) && (c += 6) != NULL);
            else
                assert_true(buf_append(&said, c, 1));
        assert_true(buf_append(&said, "", 1));
        assert_logged(cases[i].said ? buf_bytes(&said) : NULL);
        buf_fini(&line);
        buf_fini(&said);
        end(&p);
        sock_close(listener);
    }
}

/* A name that resolves is no news where the process before had it resolved, too. */
static void a_name_that_has_resolved_is_no_news(void **state)
{
    (void)state;
    static const char *const known[] = {"{\"address\":\"localhost:1\",\"available\":true}",
                                        "{\"address\":\"localhost:1\",\"available\":false}",
                                        "{\"address\":\"localhost:1\"}"};
    forget_log();
    for (size_t i = 0; i < 6; i++) {
        static const char text[] = "{\"backends\":[{\"address\":\"localhost:1\"}],\"health_check\":null}";
        struct process p = {.loop = loop_new()};
        struct buf errors = BUF_INIT;
        struct config *c = config_parse(STR(text), "test", NULL, &errors);
        assert_true(p.loop && c);
        p.upstream = upstream_new(p.loop, c);
        assert_non_null(p.upstream);
        upstream_await(p.upstream);
        if (i < 3)
            upstream_import(p.upstream, str_of(known[i % 3]));
        uint64_t deadline = clock_monotonic() + 10 * NS_PER_S;
        for (; !backend_is_available(at(&p, 0)); loop_turn(p.loop, NS_PER_MS))
            assert_true(clock_monotonic() < deadline);
        if (i >= 3) {
            assert_logged(NULL);
            upstream_import(p.upstream, str_of(known[i % 3]));
        }
        assert_logged(i % 3 == 0 ? NULL : "backend_up backend=localhost:1 cause=\"name resolved\"");
        config_put(c);
        buf_fini(&errors);
        end(&p);
    }
}

/* ---- where a name leads ---- */

static void begin_named(struct process *p, const char *more)
{
    char text[256];
    int n = snprintf(text, sizeof text, "{\"backends\":[{\"address\":\"localhost:1\"}],%s}", more);
    struct buf errors = BUF_INIT;
    struct config *c = config_parse(str_make(text, (size_t)n), "test", NULL, &errors);
    assert_non_null(c);
    p->loop = loop_new();
    assert_non_null(p->loop);
    p->upstream = upstream_new(p->loop, c);
    assert_non_null(p->upstream);
    upstream_await(p->upstream);
    config_put(c);
    buf_fini(&errors);
}

static struct addr addr_at(const char *text, uint16_t port)
{
    struct ip ip;
    assert_true(ip_parse(str_of(text), &ip));
    return addr_of_ip(&ip, port);
}

static void assert_leads_to(const struct backend *be, int i, const char *ip)
{
    struct addr expected = addr_at(ip, 1);
    assert_true(i < be->addr_count);
    assert_int_equal(be->addrs[i].len, expected.len);
    assert_memory_equal(&be->addrs[i].ss, &expected.ss, expected.len);
}

/* The process before has it resolved: the new one begins with that, whatever its name server does. (No loop is turned
 * here, so nothing has been answered.) The one that answered last comes first. */
static void addresses_of_names_go_over(void **state)
{
    (void)state;
    struct process old, fresh;
    const struct addr told[] = {addr_at("10.0.0.1", 1), addr_at("10.0.0.2", 1), addr_at("2001:db8::1", 1)};
    begin_named(&old, CHECKED);
    begin_named(&fresh, CHECKED);
    backend_take_addresses(at(&old, 0), told, 3);
    at(&old, 0)->addr_at = 1;
    backend_set_up(at(&old, 0), true, "test");
    assert_false(upstream_names_are_known(fresh.upstream));
    forget_log();
    go_over(&old, &fresh);
    assert_true(upstream_names_are_known(fresh.upstream));
    assert_true(backend_is_available(at(&fresh, 0)));
    assert_int_equal(at(&fresh, 0)->addr_count, 3);
    assert_leads_to(at(&fresh, 0), 0, "10.0.0.2");
    assert_leads_to(at(&fresh, 0), 1, "2001:db8::1");
    assert_leads_to(at(&fresh, 0), 2, "10.0.0.1");
    assert_logged(NULL);

    /* What has been found out here is newer. */
    backend_take_addresses(at(&old, 0), told, 1);
    go_over(&old, &fresh);
    assert_int_equal(at(&fresh, 0)->addr_count, 3);
    end(&fresh);
    end(&old);
}

/* With checks or without, up or down. */
static void addresses_and_checks(void **state)
{
    (void)state;
    static const struct {
        const char *config, *known;
        bool available;
        int count;
    } cases[] = {
        {CHECKED, "\"available\":true,\"up\":true,\"addresses\":[\"10.0.0.1\"]", true, 1},
        {CHECKED, "\"available\":false,\"up\":false,\"addresses\":[\"10.0.0.1\"]", false, 1},
        {CHECKED, "\"available\":true,\"addresses\":[\"10.0.0.1\"]", true, 1},
        {CHECKED, "\"available\":true,\"up\":true", false, 0}, /* of an older one: it is up when it has resolved */
        {CHECKED, "\"available\":true,\"up\":true,\"addresses\":[]", false, 0},
        {CHECKED, "\"available\":true,\"up\":true,\"addresses\":\"10.0.0.1\"", false, 0},
        {CHECKED, "\"available\":true,\"up\":true,\"addresses\":[\"elsewhere\"]", false, 0},
        {CHECKED, "\"available\":true,\"up\":true,\"addresses\":[1]", false, 0},
        {"\"health_check\":null", "\"available\":true,\"addresses\":[\"10.0.0.1\",\"::2\"]", true, 2},
        {"\"health_check\":null",
         "\"addresses\":[\"::1\",\"::2\",\"::3\",\"::4\",\"::5\",\"::6\",\"::7\",\"::8\",\"::9\"]", true,
         BACKEND_ADDRS_MAX},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct process p;
        char line[256];
        begin_named(&p, cases[i].config);
        int n = snprintf(line, sizeof line, "{\"address\":\"localhost:1\",%s}\n", cases[i].known);
        upstream_import(p.upstream, str_make(line, (size_t)n));
        assert_int_equal(at(&p, 0)->addr_count, cases[i].count);
        assert_int_equal(backend_is_available(at(&p, 0)), cases[i].available);
        end(&p);
    }
}

/* The answer that comes then is an answer as any later one, and the checks go on. */
static void the_first_answer_corrects(void **state)
{
    (void)state;
    struct process p;
    begin_named(&p, "\"health_check\":{\"interval\":\"20ms\",\"fall\":100}");
    upstream_import(p.upstream, STR("{\"address\":\"localhost:1\",\"up\":true,\"addresses\":[\"127.0.0.9\"]}\n"));
    uint64_t deadline = clock_monotonic() + 10 * NS_PER_S, probes = metrics.health_probes;
    struct addr there = addr_at("127.0.0.9", 1);
    while (memcmp(&at(&p, 0)->addrs[0].ss, &there.ss, there.len) == 0 || metrics.health_probes < probes + 5) {
        assert_true(clock_monotonic() < deadline);
        loop_turn(p.loop, NS_PER_MS);
    }
    assert_true(backend_is_available(at(&p, 0)));
    end(&p);
}

static void nonsense_is_ignored(void **state)
{
    (void)state;
    static const char *const lines[] = {
        "",
        "x",
        "[]",
        "{}",
        "{\"address\":1}",
        "{\"address\":\"nowhere\"}",
        "{\"address\":\"127.0.0.1:1\",\"up\":0}",
        "{\"address\":\"127.0.0.1:1\",\"up\":false,\"checks_in_a_row\":-1}",
        "{\"address\":\"127.0.0.1:1\",\"up\":false,\"checks_in_a_row\":\"2\"}",
        "{\"address\":\"127.0.0.1:1\",\"up\":false,\"available_ms\":null}",
        "{\"address\":\"127.0.0.1:1\",\"failures\":1,\"ejected_ms\":[]}",
        "{\"address\":\"127.0.0.1:1\",\"up\":false,\"keeps_idle_ms\":\"1s\"}",
        "{\"address\":\"127.0.0.1:1\",\"up\":false,\"available\":1}",
        "{\"address\":\"127.0.0.1:1\",\"up\":false",
        "\xff",
    };
    struct process p;
    begin(&p, CHECKED);
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        upstream_import(p.upstream, str_of(lines[i]));
        assert_true(backend_is_available(at(&p, 0)));
    }
    upstream_import(p.upstream, STR("\n\n{\n{\"address\":\"127.0.0.1:9\",\"up\":false}\n"));
    for (unsigned i = 0; i < 3; i++)
        assert_true(backend_is_available(at(&p, i)));

    /* What is not known yet does not matter, nor do numbers that nobody can mean. */
    upstream_import(p.upstream,
                    STR("{\"address\":\"127.0.0.1:1\",\"load\":{\"a\":[1]},\"up\":false,\"checks_in_a_row\":"
                        "1e300,\"available_ms\":1e300,\"failures\":1e9,\"ejection_ms\":1e18,"
                        "\"ejected_ms\":1e18,\"warm_ms\":1e300}\n{\"address\":\"127.0.0.1:3\",\"up\":false}"));
    assert_false(backend_is_available(at(&p, 0)) || backend_is_available(at(&p, 2)));
    assert_told(&p, 0, "\"up\":false,\"checks_in_a_row\":1,\"failures\":4,\"ejection_ms\":60000,\"ejected_ms\":60000");
    end(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(checks_go_over),
        cmocka_unit_test(seats_are_of_who_is_up),
        cmocka_unit_test(ejections_go_over),
        cmocka_unit_test(times_go_over),
        cmocka_unit_test(keep_times_go_over),
        cmocka_unit_test(nonsense_is_ignored),
        cmocka_unit_test(a_return_at_once_begins_slowly),
        cmocka_unit_test(what_has_changed_is_logged_once),
        cmocka_unit_test(a_name_that_has_resolved_is_no_news),
        cmocka_unit_test(addresses_of_names_go_over),
        cmocka_unit_test(addresses_and_checks),
        cmocka_unit_test(the_first_answer_corrects),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
