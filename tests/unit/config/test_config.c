/* The config: defaults, every key's good, edge and bad values, and the exact lines that faults are reported in. */
#include "base/clock.h"
#include "config/config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#define MS NS_PER_MS
#define S  NS_PER_S

static const char *environment(const char *name)
{
    static const char *const vars[][2] = {
        {"HOST", "10.0.0.1"}, {"PORT", "81"},       {"EMPTY", ""},  {"DOLLAR", "$HOST ${HOST}"},
        {"BAD", "nowhere"},   {"SIZE", "4KiB"},     {"_x1", "2s"},  {"NET", "10.0.0.0/8"},
        {"WORD", "json"},     {"SECRET", "a\"b\n"}, {"NAME", "n1"}, {"DIRTY", "\xff\x01"},
    };
    for (size_t i = 0; i < sizeof(vars) / sizeof(vars[0]); i++)
        if (strcmp(vars[i][0], name) == 0)
            return vars[i][1];
    return NULL;
}

static struct config *parse(const char *text, struct buf *errors)
{
    return config_parse(str_of(text), "c.json", environment, errors);
}

/* A config that must be good and give no warning. */
static struct config *good(const char *text)
{
    struct buf errors = BUF_INIT;
    struct config *c = parse(text, &errors);
    if (!c || errors.len > 0)
        fail_msg("%s: %.*s", text, STR_ARG(buf_str(&errors)));
    buf_fini(&errors);
    return c;
}

/* The text with `member` beside a good list of backends. */
static const char *with(const char *member)
{
    static char text[4096];
    snprintf(text, sizeof(text), "{\"backends\":[{\"address\":\"a:1\"}],%s}", member);
    return text;
}

static struct config *good_with(const char *member)
{
    return good(with(member));
}

static void assert_lines(const char *text, const char *wanted, bool is_good)
{
    struct buf errors = BUF_INIT;
    struct config *c = parse(text, &errors);
    if ((c != NULL) != is_good || !str_eq(buf_str(&errors), str_of(wanted)))
        fail_msg("%s\ngave:   %.*swanted: %s", text, STR_ARG(buf_str(&errors)), wanted);
    buf_fini(&errors);
    config_put(c);
}

static void test_defaults(void **state)
{
    (void)state;
    struct config *c = good("{\"backends\":[{\"address\":\"a:1\"}]}");
    assert_string_equal(c->path, "c.json");
    assert_string_equal(c->listen_text, ":8080");
    assert_int_equal(c->listen.kind, ENDPOINT_ANY);
    assert_int_equal(c->listen.port, 8080);
    assert_int_equal(c->backend_count, 1);
    assert_string_equal(c->backends[0].name, "a:1");
    assert_string_equal(c->backends[0].address, "a:1");
    assert_int_equal(c->backends[0].endpoint.kind, ENDPOINT_NAME);
    assert_int_equal(c->backends[0].weight, 1);
    assert_int_equal(c->backends[0].max_connections, 0);
    assert_false(c->backends[0].backup);
    assert_int_equal(c->balance, BALANCE_ROUND_ROBIN);
    assert_int_equal(c->hash_key, HASH_KEY_NONE);
    assert_null(c->hash_key_name);
    assert_true(c->health.on);
    assert_string_equal(c->health.path, "/health");
    assert_int_equal(c->health.interval, 2 * S);
    assert_int_equal(c->health.timeout, 1 * S);
    assert_int_equal(c->health.fall, 3);
    assert_int_equal(c->health.rise, 2);
    for (unsigned status = 0; status < 700; status++)
        assert_int_equal(config_status_expected(c, status), status >= 200 && status <= 399);
    assert_true(c->passive.on);
    assert_int_equal(c->passive.failures, 5);
    assert_int_equal(c->passive.ejection, 10 * S);
    assert_int_equal(c->passive.max_ejection, 300 * S);
    assert_int_equal(c->slow_start, 0);
    assert_int_equal(c->retry.attempts, 2);
    assert_int_equal(c->retry.budget_percent, 20);
    assert_int_equal(c->queue.size, 1024);
    assert_int_equal(c->queue.timeout, 5 * S);
    config_put(c);
}

static void test_more_defaults(void **state)
{
    (void)state;
    struct config *c = good("{\"backends\":[{\"address\":\"a:1\"}]}");
    assert_int_equal(c->timeouts.client_header, 10 * S);
    assert_int_equal(c->timeouts.client_idle, 60 * S);
    assert_int_equal(c->timeouts.client_body, 30 * S);
    assert_int_equal(c->timeouts.client_write, 30 * S);
    assert_int_equal(c->timeouts.connect, 2 * S);
    assert_int_equal(c->timeouts.backend_response, 30 * S);
    assert_int_equal(c->timeouts.backend_idle, 60 * S);
    assert_int_equal(c->timeouts.tunnel, 3600 * S);
    assert_int_equal(c->timeouts.shutdown, 30 * S);
    assert_int_equal(c->limits.connections, 10000);
    assert_int_equal(c->limits.header_bytes, 16384);
    assert_int_equal(c->limits.header_fields, 100);
    assert_int_equal(c->limits.target_bytes, 8192);
    assert_int_equal(c->limits.body_bytes, 0);
    assert_true(c->rate_limit.on);
    assert_string_equal(c->rate_limit.clients_file, "clients.json");
    assert_string_equal(c->rate_limit.client_id_header, "X-Client-ID");
    assert_true(c->rate_limit.default_capacity == 100);
    assert_true(c->rate_limit.default_rate == 50);
    assert_int_equal(c->rate_limit.unknown, UNKNOWN_LIMIT);
    assert_int_equal(c->rate_limit.max_tracked, 1000000);
    assert_int_equal(c->rate_limit.ipv6_prefix, 64);
    assert_int_equal(c->rate_limit.exempt.n, 0);
    assert_int_equal(c->rate_limit.headers, RATELIMIT_ALWAYS);
    assert_int_equal(c->rate_limit.save_interval, 10 * S);
    assert_int_equal(c->trusted_proxies.n, 0);
    assert_false(c->trusted_proxies.unix_peers);
    assert_int_equal(c->admin.allow.n, 2);
    assert_int_equal(c->admin.allow.v[0].bits, 104);
    assert_int_equal(c->admin.allow.v[1].bits, 128);
    assert_false(c->admin.allow.unix_peers);
    assert_null(c->admin.token);
    assert_int_equal(c->log.level, LOG_INFO);
    assert_true(c->log.access);
    assert_int_equal(c->log.format, LOG_TEXT);
    assert_null(c->log.file);
    config_put(c);
}

/* Every key set to its default gives the same as no key at all, and no warning. */
static void test_written_defaults(void **state)
{
    (void)state;
    config_put(good(
        "{\"listen\":\":8080\",\"backends\":[{\"address\":\"${BACKEND_1:-127.0.0.1:9001}\",\"name\":\"backend-1\","
        "\"weight\":1,\"max_connections\":0,\"backup\":false}],\"balance\":\"round_robin\",\"health_check\":{\"path\":"
        "\"/health\",\"interval\":\"2s\",\"timeout\":\"1s\",\"fall\":3,\"rise\":2,\"expect_status\":\"200-399\"},"
        "\"passive_check\":{\"failures\":5,\"ejection\":\"10s\",\"max_ejection\":\"5m\"},\"slow_start\":\"0s\","
        "\"retry\":{\"attempts\":2,\"budget_percent\":20},\"queue\":{\"size\":1024,\"timeout\":\"5s\"},\"timeouts\":{"
        "\"client_header\":\"10s\",\"client_idle\":\"60s\",\"client_body\":\"30s\",\"client_write\":\"30s\","
        "\"connect\":\"2s\",\"backend_response\":\"30s\",\"backend_idle\":\"60s\",\"tunnel\":\"60m\","
        "\"shutdown\":\"30s\"},\"limits\":{\"connections\":10000,\"header_bytes\":\"16KiB\",\"header_fields\":100,"
        "\"target_bytes\":\"8KiB\",\"body_bytes\":0},\"rate_limit\":{\"clients_file\":\"clients.json\","
        "\"client_id_header\":\"X-Client-ID\",\"default\":{\"capacity\":100,\"rate_per_sec\":50},\"unknown_clients\":"
        "\"limit\",\"max_tracked\":1000000,\"ipv6_prefix\":64,\"exempt\":[],\"headers\":\"always\",\"save_interval\":"
        "\"10s\"},\"trusted_proxies\":[],\"admin\":{\"allow\":[\"127.0.0.0/8\",\"::1/128\"],\"token\":null},\"log\":{"
        "\"level\":\"info\",\"access\":true,\"format\":\"text\",\"file\":null}}"));
}

static void test_backends(void **state)
{
    (void)state;
    struct config *c = good("{\"backends\":[{\"address\":\"${HOST}:${PORT}\",\"weight\":256},"
                            "{\"backup\":true,\"name\":\"spare\",\"address\":\"[2001:DB8::1]:9\"},"
                            "{\"address\":\"unix:/run/a.sock\"},{\"address\":\"web-1.example:65535\"}]}");
    assert_int_equal(c->backend_count, 4);
    assert_string_equal(c->backends[0].name, "10.0.0.1:81");
    assert_string_equal(c->backends[0].address, "10.0.0.1:81");
    assert_int_equal(c->backends[0].endpoint.kind, ENDPOINT_IP);
    assert_int_equal(c->backends[0].endpoint.port, 81);
    assert_int_equal(c->backends[0].weight, 256);
    assert_string_equal(c->backends[1].name, "spare");
    assert_string_equal(c->backends[1].address, "[2001:DB8::1]:9");
    assert_string_equal(c->backends[1].endpoint.host, "2001:db8::1");
    assert_true(c->backends[1].backup);
    assert_int_equal(c->backends[1].weight, 1);
    assert_int_equal(c->backends[2].endpoint.kind, ENDPOINT_UNIX);
    assert_int_equal(c->backends[3].endpoint.kind, ENDPOINT_NAME);
    assert_string_equal(c->backends[3].endpoint.host, "web-1.example");
    config_put(c);
}

static void test_listen(void **state)
{
    (void)state;
    struct config *c = good_with("\"listen\":\"127.0.0.1:0\"");
    assert_int_equal(c->listen.kind, ENDPOINT_IP);
    assert_int_equal(c->listen.port, 0);
    config_put(c);
    c = good_with("\"listen\":\"unix:/run/lb.sock\"");
    assert_int_equal(c->listen.kind, ENDPOINT_UNIX);
    assert_string_equal(c->listen_text, "unix:/run/lb.sock");
    config_put(c);
    c = good_with("\"listen\":\"[::1]:80\"");
    assert_string_equal(c->listen.host, "::1");
    config_put(c);
}

static void test_nulls(void **state)
{
    (void)state;
    struct config *c = good_with("\"health_check\":null,\"rate_limit\":null,\"admin\":{\"token\":null},"
                                 "\"log\":{\"file\":null}");
    assert_false(c->health.on);
    assert_false(c->rate_limit.on);
    /* what is off has sane values all the same */
    assert_int_equal(c->health.interval, 2 * S);
    assert_string_equal(c->rate_limit.clients_file, "clients.json");
    config_put(c);
    c = good_with("\"rate_limit\":{\"client_id_header\":null}");
    assert_true(c->rate_limit.on);
    assert_null(c->rate_limit.client_id_header);
    config_put(c);
}

static void test_networks(void **state)
{
    (void)state;
    struct config *c = good_with("\"admin\":{\"allow\":[\"unix\",\"10.0.0.0/8\",\"2001:db8::/32\",\"192.0.2.1\"]},"
                                 "\"trusted_proxies\":[\"${NET}\"],\"rate_limit\":{\"exempt\":[\"::/0\"]}");
    struct ip ip;
    assert_int_equal(c->admin.allow.n, 3);
    assert_true(c->admin.allow.unix_peers);
    assert_true(ip_parse(STR("192.0.2.1"), &ip));
    assert_true(cidr_set_contains_ip(&c->admin.allow, &ip));
    assert_false(cidr_set_contains_ip(&c->trusted_proxies, &ip));
    assert_true(ip_parse(STR("10.255.0.1"), &ip));
    assert_true(cidr_set_contains_ip(&c->trusted_proxies, &ip));
    assert_int_equal(c->rate_limit.exempt.n, 1);
    config_put(c);
    c = good_with("\"admin\":{\"allow\":[]}");
    assert_int_equal(c->admin.allow.n, 0);
    assert_false(c->admin.allow.unix_peers);
    config_put(c);
}

static void test_statuses(void **state)
{
    (void)state;
    struct config *c = good_with("\"health_check\":{\"expect_status\":\"200, 204,300-399,599\"}");
    for (unsigned status = 0; status < 700; status++)
        assert_int_equal(config_status_expected(c, status),
                         status == 200 || status == 204 || (status >= 300 && status <= 399) || status == 599);
    config_put(c);
    c = good_with("\"health_check\":{\"expect_status\":\"100\"}");
    assert_true(config_status_expected(c, 100));
    assert_false(config_status_expected(c, 200));
    config_put(c);
}

/* Values at the ends of their ranges, in each of their forms. */
static void test_edges(void **state)
{
    (void)state;
    struct config *c = good_with(
        "\"health_check\":{\"interval\":\"1ms\",\"timeout\":\"24h\",\"fall\":1,\"rise\":100,\"path\":\"/\"},"
        "\"retry\":{\"attempts\":0,\"budget_percent\":100},\"timeouts\":{\"shutdown\":\"0s\",\"connect\":\"250ms\"},"
        "\"limits\":{\"connections\":1e6,\"header_bytes\":1048576,\"header_fields\":1.0,\"target_bytes\":64,"
        "\"body_bytes\":\"1048576GiB\"},\"rate_limit\":{\"default\":{\"capacity\":1e9,\"rate_per_sec\":0.001},"
        "\"max_tracked\":100000000,\"ipv6_prefix\":128,\"headers\":\"off\",\"unknown_clients\":\"reject\"},"
        "\"log\":{\"level\":\"error\",\"format\":\"${WORD}\",\"access\":false,\"file\":\"./a b.log\"},"
        "\"admin\":{\"token\":\"!~\"}");
    assert_int_equal(c->health.interval, 1 * MS);
    assert_int_equal(c->health.timeout, 86400 * S);
    assert_int_equal(c->health.rise, 100);
    assert_int_equal(c->retry.attempts, 0);
    assert_int_equal(c->timeouts.shutdown, 0);
    assert_int_equal(c->timeouts.connect, 250 * MS);
    assert_int_equal(c->limits.connections, 1000000);
    assert_int_equal(c->limits.header_bytes, 1048576);
    assert_int_equal(c->limits.header_fields, 1);
    assert_int_equal(c->limits.target_bytes, 64);
    assert_int_equal(c->limits.body_bytes, UINT64_C(1) << 50);
    assert_true(c->rate_limit.default_capacity == 1e9);
    assert_true(c->rate_limit.default_rate == 0.001);
    assert_int_equal(c->rate_limit.max_tracked, 100000000);
    assert_int_equal(c->rate_limit.headers, RATELIMIT_OFF);
    assert_int_equal(c->rate_limit.unknown, UNKNOWN_REJECT);
    assert_int_equal(c->log.level, LOG_ERROR);
    assert_int_equal(c->log.format, LOG_JSON);
    assert_false(c->log.access);
    assert_string_equal(c->log.file, "./a b.log");
    assert_string_equal(c->admin.token, "!~");
    config_put(c);
}

/* A default target limit is never over the head's. */
static void test_target_follows_header(void **state)
{
    (void)state;
    struct config *c = good_with("\"limits\":{\"header_bytes\":\"4KiB\"}");
    assert_int_equal(c->limits.target_bytes, 4096);
    config_put(c);
    c = good_with("\"limits\":{\"target_bytes\":\"${SIZE}\",\"header_bytes\":4096}");
    assert_int_equal(c->limits.target_bytes, 4096);
    config_put(c);
}

static void assert_file(const char *written, const char *wanted)
{
    char member[512];
    snprintf(member, sizeof(member), "\"log\":{\"file\":\"%s\"}", written);
    struct config *c = good_with(member);
    assert_string_equal(c->log.file, wanted);
    config_put(c);
}

static void test_expansion(void **state)
{
    (void)state;
    assert_file("a${HOST}b", "a10.0.0.1b");
    assert_file("${HOST}${PORT}", "10.0.0.181");
    assert_file("x${EMPTY}", "x");
    assert_file("${NONE:-def}", "def");
    assert_file("${EMPTY:-def}", "def");
    assert_file("${HOST:-def}", "10.0.0.1");
    assert_file("x${NONE:-}", "x");
    assert_file("${NONE:-a$b${c}", "a$b${c");
    assert_file("${NONE:-a:-b}", "a:-b");
    assert_file("$$", "$");
    assert_file("$$HOST $${HOST}", "$HOST ${HOST}");
    assert_file("${NONE:-$$}", "$$");
    assert_file("${DOLLAR}", "$HOST ${HOST}");
    assert_file("\\u0024{HOST}", "10.0.0.1");
    struct config *c = good_with("\"timeouts\":{\"connect\":\"${_x1}\"}");
    assert_int_equal(c->timeouts.connect, 2 * S);
    config_put(c);
}

#define UNKNOWN_RATE_LIMIT                                                                                             \
    "clients_file, client_id_header, default, unknown_clients, max_tracked, ipv6_prefix, exempt, headers, "            \
    "save_interval"
#define UNKNOWN_TOP                                                                                                    \
    "listen, backends, balance, hash_key, health_check, passive_check, slow_start, retry, queue, timeouts, limits, "   \
    "rate_limit, trusted_proxies, admin, log"
#define DURATIONS      "a duration from \"1ms\" to \"24h\", such as \"250ms\", \"2s\" or \"1m\""
#define DURATIONS_FROM "a duration from \"0s\" to \"24h\", such as \"250ms\", \"2s\" or \"1m\""
#define STATUSES       "a string of statuses and ranges from 100 to 599, such as \"200\", \"200-399\" or \"200,204,300-399\""
#define NETWORK        "an IP address, a network such as \"10.0.0.0/8\" with no bit set behind its prefix, or \"unix\""
#define LISTEN         "an address: \"ip:port\", \":port\", \"[ipv6]:port\" or \"unix:/path\""
#define BACKEND        "an address: \"host:port\", \"[ipv6]:port\" or \"unix:/path\""
#define REFERENCES     "${NAME}, ${NAME:-default}, or $$ for a dollar"
#define UNIQUE         "names and addresses that no other backend has"

struct bad {
    const char *text, *lines;
};

/* Whole files. */
static void test_bad_files(void **state)
{
    (void)state;
    static const struct bad bad[] = {
        {"", "c.json:1:1: not valid JSON: the text is empty\n"},
        {"{", "c.json:1:2: not valid JSON: the text ends where a key in double quotes belongs\n"},
        {"{\"listen\":\n  tru}", "c.json:2:3: listen: not valid JSON: found 't' where a value belongs\n"},
        {"{\"a\":1,}", "c.json:1:8: not valid JSON: found '}' where a key in double quotes belongs\n"},
        {"{\"backends\":[{\"address\":\"a:1\"},\n {\"address\":\"a,]:[}:2\",\"weight\":01}]}",
         "c.json:2:33: backends[1].weight: not valid JSON: a number has a leading zero\n"},
        {"{\"rate_limit\":{\"default\":{\"capacity\":1,\"rate_per_sec\":1e999}}}",
         "c.json:1:55: rate_limit.default.rate_per_sec: not valid JSON: a number is too large\n"},
        {"{\"backends\":[{\"address\":\"a:1\"} {}]}",
         "c.json:1:32: backends[0]: not valid JSON: found '{' where ',' or ']' belongs\n"},
        {"[]", "c.json:1:1: found an array; allowed: an object\n"},
        {" 1", "c.json:1:2: found a number; allowed: an object\n"},
        {"null", "c.json:1:1: found null; allowed: an object\n"},
        {"{}", "c.json:1:1: backends: found nothing; allowed: an array of 1 to 1024 backends\n"},
        {"{\"backends\":[]}",
         "c.json:1:13: backends: found an array of none; allowed: an array of 1 to 1024 backends\n"},
        {"{\"backends\":{}}", "c.json:1:13: backends: found an object; allowed: an array of 1 to 1024 backends\n"},
        {"{\"backends\":null}", "c.json:1:13: backends: found null; allowed: an array of 1 to 1024 backends\n"},
        {"{\"backends\":[\"a:1\"]}", "c.json:1:14: backends[0]: found the string \"a:1\"; allowed: an object\n"},
        {"{\"backends\":[null]}", "c.json:1:14: backends[0]: found null; allowed: an object\n"},
        {"{\"backends\":[{}]}", "c.json:1:14: backends[0].address: found nothing; allowed: " BACKEND "\n"},
        {"{\"backends\":[{\"address\":80}]}", "c.json:1:25: backends[0].address: found 80; allowed: " BACKEND "\n"},
        {"{\"backends\":[{\"address\":\"\"}]}",
         "c.json:1:25: backends[0].address: found the string \"\", which has no port; allowed: " BACKEND "\n"},
        {"{\"backends\":[{\"address\":\"host\"}]}",
         "c.json:1:25: backends[0].address: found the string \"host\", which has no port; allowed: " BACKEND "\n"},
        {"{\"backends\":[{\"address\":\":80\"}]}",
         "c.json:1:25: backends[0].address: found the string \":80\", which has no host; allowed: " BACKEND "\n"},
        {"{\"backends\":[{\"address\":\"${BAD}\"}]}", "c.json:1:25: backends[0].address: found the string \"${BAD}\" "
                                                      "(here \"nowhere\"), which has no port; allowed: "
                                                      "" BACKEND "\n"},
        {"{\"backends\":[{\"address\":\"${NONE}\"}]}",
         "c.json:1:25: backends[0].address: found the string \"${NONE}\", whose variable NONE is not set; allowed: a "
         "variable that is set, or ${NONE:-default}\n"},
        {"{\"backends\":[{\"address\":\"a:1\"},{\"address\":\"A:1\"}]}",
         "c.json:1:43: backends[1].address: found the string \"A:1\", which backends[0] has too; allowed: " UNIQUE
         "\n"},
        {"{\"backends\":[{\"address\":\"[::1]:1\"},{\"address\":\"b:1\"},{\"address\":\"[0:0::1]:1\"}]}",
         "c.json:1:65: backends[2].address: found the string \"[0:0::1]:1\", which backends[0] has too; "
         "allowed: " UNIQUE "\n"},
        {"{\"backends\":[{\"address\":\"unix:/a\"},{\"address\":\"unix:/b\"},{\"address\":\"unix:/a\"}]}",
         "c.json:1:69: backends[2].address: found the string \"unix:/a\", which backends[0] has too; allowed: " UNIQUE
         "\n"},
        {"{\"listen\":\"127.0.0.1:80\",\"backends\":[{\"address\":\"a:1\"},{\"address\":\"127.0.0.1:80\"}]}",
         "c.json:1:67: backends[1].address: found the string \"127.0.0.1:80\", where the balancer itself listens; "
         "allowed: another address than that of listen\n"},
        {"{\"listen\":\"unix:/s\",\"backends\":[{\"address\":\"unix:/s\"}]}",
         "c.json:1:44: backends[0].address: found the string \"unix:/s\", where the balancer itself listens; "
         "allowed: another address than that of listen\n"},
        {"{\"backends\":[{\"address\":\"a:1\",\"name\":\"n1\"},{\"address\":\"b:1\",\"name\":\"${NAME}\"}]}",
         "c.json:1:68: backends[1].name: found the string \"${NAME}\" (here \"n1\"), which backends[0] has too; "
         "allowed: " UNIQUE "\n"},
        {"{\"backends\":[{\"address\":\"a:1\",\"name\":\"b:1\"},{\"address\":\"b:1\"}]}",
         "c.json:1:38: backends[0].name: found the string \"b:1\", which backends[1] has too; allowed: " UNIQUE "\n"},
        {"{\"backends\":[{\"address\":\"a:1\"}],\"backends\":[{\"address\":\"b:1\"}]}",
         "c.json:1:33: backends: found the key again; allowed: once in an object\n"},
        {"{\"backends\":[{\"address\":\"a:1\",\"address\":\"b:1\"}]}",
         "c.json:1:31: backends[0].address: found the key again; allowed: once in an object\n"},
        {"{\"backends\":[{\"address\":\"a:1\",\"adress\":\"b:1\"}]}",
         "c.json:1:31: backends[0].adress: found an unknown key; allowed: address, name, weight, max_connections, "
         "backup; did you mean \"address\"?\n"},
        {"{\"backends\":[{\"address\":\"a:1\",\"weight\":0,\"backup\":0}]}",
         "c.json:1:40: backends[0].weight: found 0; allowed: a whole number from 1 to 256\n"
         "c.json:1:51: backends[0].backup: found 0; allowed: true or false\n"},
        {"{\"backends\":[{\"address\":\"a:1\",\"weight\":\"1\",\"name\":\"\"}]}",
         "c.json:1:40: backends[0].weight: found the string \"1\"; allowed: a whole number from 1 to 256\n"
         "c.json:1:51: backends[0].name: found the string \"\"; allowed: 1 to 128 visible ASCII characters\n"},
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_lines(bad[i].text, bad[i].lines, false);
}

/* Members beside a good list of backends, which ends in column 32; what follows "c.json:1:". */
static void assert_bad_members(const struct bad *bad, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        char wanted[1024];
        snprintf(wanted, sizeof(wanted), "c.json:1:%s\n", bad[i].lines);
        assert_lines(with(bad[i].text), wanted, false);
    }
}

static void test_bad_values(void **state)
{
    (void)state;
    static const struct bad bad[] = {
        {"\"listen\":80", "42: listen: found 80; allowed: " LISTEN},
        {"\"listen\":null", "42: listen: found null; allowed: " LISTEN},
        {"\"listen\":\"localhost:80\"",
         "42: listen: found the string \"localhost:80\", which has a host that is no IP address; allowed: " LISTEN},
        {"\"balance\":\"robin\"", "43: balance: found the string \"robin\"; allowed: \"round_robin\", \"least_conn\", "
                                  "\"random_two\" or \"hash\""},
        {"\"balance\":\"least-conn\"",
         "43: balance: found the string \"least-conn\"; allowed: \"round_robin\", \"least_conn\", "
         "\"random_two\" or \"hash\"; did you mean \"least_conn\"?"},
        {"\"balance\":1", "43: balance: found 1; allowed: \"round_robin\", \"least_conn\", \"random_two\" or \"hash\""},
        {"\"balance\":\"hash\"",
         "43: hash_key: found nothing, with \"balance\": \"hash\"; allowed: \"ip\", \"target\", "
         "\"header:NAME\" or \"cookie:NAME\""},
        {"\"hash_key\":\"ip\"",
         "44: hash_key: found the string \"ip\", without \"balance\": \"hash\"; allowed: no hash_key"},
        {"\"balance\":\"hash\",\"hash_key\":\"header:\"",
         "61: hash_key: found the string \"header:\"; allowed: \"ip\", \"target\", \"header:NAME\" or \"cookie:NAME\""},
        {"\"balance\":\"hash\",\"hash_key\":\"ip:x\"",
         "61: hash_key: found the string \"ip:x\"; allowed: \"ip\", \"target\", \"header:NAME\" or \"cookie:NAME\""},
        {"\"health_check\":true", "48: health_check: found true; allowed: an object, or null"},
        {"\"health_check\":{\"path\":\"health\"}",
         "56: health_check.path: found the string \"health\"; allowed: a path that begins with \"/\", of at most 1024 "
         "visible ASCII characters without \"#\""},
        {"\"health_check\":{\"path\":\"/a b\"}",
         "56: health_check.path: found the string \"/a b\"; allowed: a path that begins with \"/\", of at most 1024 "
         "visible ASCII characters without \"#\""},
        {"\"health_check\":{\"interval\":2}",
         "60: health_check.interval: found 2, which has no unit; allowed: " DURATIONS},
        {"\"health_check\":{\"interval\":\"2\"}",
         "60: health_check.interval: found the string \"2\"; allowed: " DURATIONS},
        {"\"health_check\":{\"interval\":\"2 s\"}",
         "60: health_check.interval: found the string \"2 s\"; allowed: " DURATIONS},
        {"\"health_check\":{\"interval\":\"1.5s\"}",
         "60: health_check.interval: found the string \"1.5s\"; allowed: " DURATIONS},
        {"\"health_check\":{\"interval\":\"0s\"}",
         "60: health_check.interval: found the string \"0s\"; allowed: " DURATIONS},
        {"\"health_check\":{\"timeout\":\"25h\"}",
         "59: health_check.timeout: found the string \"25h\"; allowed: " DURATIONS},
        {"\"health_check\":{\"timeout\":\"-1s\"}",
         "59: health_check.timeout: found the string \"-1s\"; allowed: " DURATIONS},
        {"\"health_check\":{\"fall\":0}", "56: health_check.fall: found 0; allowed: a whole number from 1 to 100"},
        {"\"health_check\":{\"rise\":101}", "56: health_check.rise: found 101; allowed: a whole number from 1 to 100"},
        {"\"health_check\":{\"rise\":1.5}", "56: health_check.rise: found 1.5; allowed: a whole number from 1 to 100"},
        {"\"health_check\":{\"rise\":-1}", "56: health_check.rise: found -1; allowed: a whole number from 1 to 100"},
        {"\"health_check\":{\"rise\":1e300}",
         "56: health_check.rise: found 1e+300; allowed: a whole number from 1 to 100"},
        {"\"health_check\":{\"rise\":null}",
         "56: health_check.rise: found null; allowed: a whole number from 1 to 100"},
        {"\"health_check\":{\"expect_status\":200}", "65: health_check.expect_status: found 200; allowed: " STATUSES},
        {"\"health_check\":{\"expect_status\":\"\"}",
         "65: health_check.expect_status: found the string \"\"; allowed: " STATUSES},
        {"\"health_check\":{\"expect_status\":\"399-200\"}",
         "65: health_check.expect_status: found the string \"399-200\"; allowed: " STATUSES},
        {"\"health_check\":{\"expect_status\":\"200,\"}",
         "65: health_check.expect_status: found the string \"200,\"; allowed: " STATUSES},
        {"\"health_check\":{\"expect_status\":\"200-\"}",
         "65: health_check.expect_status: found the string \"200-\"; allowed: " STATUSES},
        {"\"health_check\":{\"expect_status\":\"99\"}",
         "65: health_check.expect_status: found the string \"99\"; allowed: " STATUSES},
        {"\"health_check\":{\"expect_status\":\"600\"}",
         "65: health_check.expect_status: found the string \"600\"; allowed: " STATUSES},
        {"\"health_check\":{\"expect_status\":\"2xx\"}",
         "65: health_check.expect_status: found the string \"2xx\"; allowed: " STATUSES},
        {"\"passive_check\":{\"failures\":0}",
         "61: passive_check.failures: found 0; allowed: a whole number from 1 to 1000"},
        {"\"slow_start\":0", "46: slow_start: found 0, which has no unit; allowed: " DURATIONS_FROM},
        {"\"retry\":null", "41: retry: found null; allowed: an object"},
        {"\"retry\":{\"attempts\":101}", "53: retry.attempts: found 101; allowed: a whole number from 0 to 100"},
        {"\"retry\":{\"budget_percent\":101}",
         "59: retry.budget_percent: found 101; allowed: a whole number from 0 to 100"},
        {"\"queue\":[]", "41: queue: found an array; allowed: an object"},
        {"\"timeouts\":{\"connect\":\"0s\"}", "55: timeouts.connect: found the string \"0s\"; allowed: " DURATIONS},
        {"\"timeouts\":{\"connect\":\"${PORT}\"}",
         "55: timeouts.connect: found the string \"${PORT}\" (here \"81\"); allowed: " DURATIONS},
        {"\"limits\":{\"connections\":0}",
         "57: limits.connections: found 0; allowed: a whole number from 1 to 1000000"},
        {"\"limits\":{\"header_fields\":1001}",
         "59: limits.header_fields: found 1001; allowed: a whole number from 1 to 1000"},
        {"\"limits\":{\"header_bytes\":1023}",
         "58: limits.header_bytes: found 1023; allowed: a size from 1KiB to 1MiB, "
         "as a number of bytes or a string such as \"64KiB\""},
        {"\"limits\":{\"header_bytes\":\"2MiB\"}",
         "58: limits.header_bytes: found the string \"2MiB\"; allowed: a size from 1KiB to 1MiB, as a number of bytes "
         "or a string such as \"64KiB\""},
        {"\"limits\":{\"header_bytes\":\"4KB\"}",
         "58: limits.header_bytes: found the string \"4KB\", which has a unit other than KiB, MiB and GiB; allowed: a "
         "size from 1KiB to 1MiB, as a number of bytes or a string such as \"64KiB\""},
        {"\"limits\":{\"target_bytes\":63}", "58: limits.target_bytes: found 63; allowed: a size from 64 to "
                                             "limits.header_bytes, as a number of bytes or a string such as \"64KiB\""},
        {"\"limits\":{\"target_bytes\":\"32KiB\"}",
         "58: limits.target_bytes: found the string \"32KiB\" (32768 bytes, of a head of 16384); allowed: a size from "
         "64 to limits.header_bytes, as a number of bytes or a string such as \"64KiB\""},
        {"\"limits\":{\"body_bytes\":-1}", "56: limits.body_bytes: found -1; allowed: 0 (no limit) or a size up to "
                                           "1048576GiB, as a number of bytes or a string such as \"64KiB\""},
    };
    assert_bad_members(bad, sizeof(bad) / sizeof(bad[0]));
}

static void test_bad_limiter_values(void **state)
{
    (void)state;
    static const struct bad bad[] = {
        {"\"rate_limit\":false", "46: rate_limit: found false; allowed: an object, or null"},
        {"\"rate_limit\":{\"clients_file\":null}",
         "62: rate_limit.clients_file: found null; allowed: a path of 1 to 4000 bytes"},
        {"\"rate_limit\":{\"clients_file\":\"${EMPTY}\"}",
         "62: rate_limit.clients_file: found the string \"${EMPTY}\" (here \"\"); allowed: a path of 1 to 4000 bytes"},
        {"\"rate_limit\":{\"client_id_header\":\"X Client\"}",
         "66: rate_limit.client_id_header: found the string \"X Client\"; allowed: a field name of 1 to 64 characters, "
         "or null"},
        {"\"rate_limit\":{\"default\":null}", "57: rate_limit.default: found null; allowed: an object"},
        {"\"rate_limit\":{\"default\":{\"capacity\":0.5}}",
         "69: rate_limit.default.capacity: found 0.5; allowed: a number from 1 to 1000000000"},
        {"\"rate_limit\":{\"default\":{\"capacity\":1e10}}",
         "69: rate_limit.default.capacity: found 10000000000; allowed: a number from 1 to 1000000000"},
        {"\"rate_limit\":{\"default\":{\"rate_per_sec\":0}}",
         "73: rate_limit.default.rate_per_sec: found 0; allowed: a number above 0, at most 1000000000"},
        {"\"rate_limit\":{\"default\":{\"rate_per_sec\":-1}}",
         "73: rate_limit.default.rate_per_sec: found -1; allowed: a number above 0, at most 1000000000"},
        {"\"rate_limit\":{\"default\":{\"capasity\":10}}",
         "58: rate_limit.default.capasity: found an unknown key; allowed: capacity, rate_per_sec; did you mean "
         "\"capacity\"?"},
        {"\"rate_limit\":{\"unknown_clients\":\"deny\"}", "65: rate_limit.unknown_clients: found the string \"deny\"; "
                                                          "allowed: \"limit\", \"allow\" or \"reject\""},
        {"\"rate_limit\":{\"max_tracked\":0}",
         "61: rate_limit.max_tracked: found 0; allowed: a whole number from 1 to 100000000"},
        {"\"rate_limit\":{\"ipv6_prefix\":129}",
         "61: rate_limit.ipv6_prefix: found 129; allowed: a whole number from 1 to 128"},
        {"\"rate_limit\":{\"headers\":true}",
         "57: rate_limit.headers: found true; allowed: \"always\", \"limited\" or \"off\""},
        {"\"rate_limit\":{\"exempt\":\"10.0.0.0/8\"}", "56: rate_limit.exempt: found the string \"10.0.0.0/8\"; "
                                                       "allowed: an array of at most 10000 strings, each " NETWORK},
        {"\"trusted_proxies\":[\"10.0.0.0/8\",\"10.0.0.1/8\"]",
         "65: trusted_proxies[1]: found the string \"10.0.0.1/8\"; allowed: " NETWORK},
        {"\"trusted_proxies\":[\"10.1/16\"]",
         "52: trusted_proxies[0]: found the string \"10.1/16\"; allowed: " NETWORK},
        {"\"trusted_proxies\":[null]", "52: trusted_proxies[0]: found null; allowed: " NETWORK},
        {"\"admin\":{\"allow\":[\"::1/129\"]}", "51: admin.allow[0]: found the string \"::1/129\"; allowed: " NETWORK},
        {"\"admin\":{\"token\":\"\"}",
         "50: admin.token: found a string (not shown); allowed: 1 to 1024 visible ASCII characters, or null"},
        {"\"admin\":{\"token\":12345678}",
         "50: admin.token: found a number (not shown); allowed: 1 to 1024 visible ASCII characters, or null"},
        {"\"admin\":{\"token\":\"${SECRET}\"}",
         "50: admin.token: found a string (not shown); allowed: 1 to 1024 visible ASCII characters, or null"},
        {"\"admin\":{\"token\":\"${TOKEN}\"}",
         "50: admin.token: found a string (not shown), whose variable TOKEN is not set; allowed: a variable that is "
         "set, or ${TOKEN:-default}"},
        {"\"log\":{\"level\":\"warning\"}",
         "48: log.level: found the string \"warning\"; allowed: \"debug\", \"info\", "
         "\"warn\" or \"error\""},
        {"\"log\":{\"format\":\"jsn\"}",
         "49: log.format: found the string \"jsn\"; allowed: \"text\" or \"json\"; did you mean \"json\"?"},
        {"\"log\":{\"format\":\"JSON\"}",
         "49: log.format: found the string \"JSON\"; allowed: \"text\" or \"json\"; did you mean \"json\"?"},
        {"\"log\":{\"access\":\"true\"}", "49: log.access: found the string \"true\"; allowed: true or false"},
        {"\"log\":{\"file\":\"\"}", "47: log.file: found the string \"\"; allowed: a path of 1 to 4000 bytes, or null"},
        {"\"log\":{\"file\":true}", "47: log.file: found true; allowed: a path of 1 to 4000 bytes, or null"},
    };
    assert_bad_members(bad, sizeof(bad) / sizeof(bad[0]));
}

static void test_bad_references(void **state)
{
    (void)state;
    static const char *const bad[] = {"$",      "a$b",        "${",         "${HOST",     "${}",
                                      "${:-x}", "${1X}",      "${HOST-x}",  "${HOST:=x}", "${HO ST}",
                                      "$$$",    "${${HOST}}", "${\xc3\xa9}"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        char member[128], wanted[256];
        snprintf(member, sizeof(member), "\"log\":{\"file\":\"%s\"}", bad[i]);
        snprintf(wanted, sizeof(wanted),
                 "c.json:1:47: log.file: found the string \"%s\", with a \"$\" that begins no reference; "
                 "allowed: " REFERENCES "\n",
                 bad[i]);
        assert_lines(with(member), wanted, false);
    }
    /* numbers hold no references, and their strings are not looked into */
    assert_lines(with("\"limits\":{\"connections\":\"${NONE}\"}"),
                 "c.json:1:57: limits.connections: found the string \"${NONE}\", which stays a string: the environment "
                 "makes strings only; allowed: a whole number from 1 to 1000000\n",
                 false);
}

static void test_unknown_keys(void **state)
{
    (void)state;
    assert_lines(with("\"listn\":1"),
                 "c.json:1:33: listn: found an unknown key; allowed: " UNKNOWN_TOP "; did you mean \"listen\"?\n",
                 false);
    assert_lines(with("\"Listen\":1"),
                 "c.json:1:33: Listen: found an unknown key; allowed: " UNKNOWN_TOP "; did you mean \"listen\"?\n",
                 false);
    assert_lines(with("\"healthCheck\":{}"),
                 "c.json:1:33: healthCheck: found an unknown key; allowed: " UNKNOWN_TOP
                 "; did you mean \"health_check\"?\n",
                 false);
    assert_lines(with("\"interval\":\"1s\""),
                 "c.json:1:33: interval: found an unknown key; allowed: " UNKNOWN_TOP
                 "; did you mean \"health_check.interval\"?\n",
                 false);
    assert_lines(with("\"queue\":{\"weight\":1}"),
                 "c.json:1:42: queue.weight: found an unknown key; allowed: size, timeout\n", false);
    assert_lines(with("\"retry\":{\"queue\":1},\"rate_limit\":{\"rate_per_sec\":1}"),
                 "c.json:1:42: retry.queue: found an unknown key; allowed: attempts, budget_percent; did you mean "
                 "\"queue\"?\n"
                 "c.json:1:67: rate_limit.rate_per_sec: found an unknown key; allowed: " UNKNOWN_RATE_LIMIT
                 "; did you mean \"rate_limit.default.rate_per_sec\"?\n",
                 false);
    static const char *const addresses[] = {"host", "port", "server", "url"};
    for (size_t i = 0; i < sizeof(addresses) / sizeof(addresses[0]); i++) {
        char text[128], wanted[256];
        snprintf(text, sizeof(text), "{\"backends\":[{\"address\":\"a:1\",\"%s\":\"b\"}]}", addresses[i]);
        snprintf(wanted, sizeof(wanted),
                 "c.json:1:31: backends[0].%s: found an unknown key; allowed: address, name, weight, max_connections, "
                 "backup; did you mean \"address\"?\n",
                 addresses[i]);
        assert_lines(text, wanted, false);
    }
    assert_lines(with("\"\":1"), "c.json:1:33: : found an unknown key; allowed: " UNKNOWN_TOP "\n", false);
    assert_lines(with("\"xyzzy.\\u0001\\u00e9\":1"),
                 "c.json:1:33: xyzzy.?\xc3\xa9: found an unknown key; allowed: " UNKNOWN_TOP "\n", false);
    /* names with a dot are no paths */
    assert_lines(with("\"log.level\":\"info\""),
                 "c.json:1:33: log.level: found an unknown key; allowed: " UNKNOWN_TOP "\n", false);
}

/* Long and strange strings are shown cut and escaped. */
static void test_shown_strings(void **state)
{
    (void)state;
    char shown[64] = "", text[256], wanted[512];
    for (unsigned i = 0; i < 29; i++)
        strcat(shown, "\xc3\xa9");
    /* 60 bytes would end inside the last character */
    snprintf(text, sizeof(text), "\"listen\":\"%sa\xc3\xa9zzz\"", shown);
    snprintf(wanted, sizeof(wanted),
             "c.json:1:42: listen: found the string \"%sa...\", which has no port; allowed: %s\n", shown, LISTEN);
    assert_lines(with(text), wanted, false);
    assert_lines(
        with("\"listen\":\"${DIRTY}\\n\""),
        "c.json:1:42: listen: found the string \"${DIRTY}\\n\" (here \"\xef\xbf\xbd\\u0001\\n\"), which has no "
        "port; allowed: " LISTEN "\n",
        false);
}

/* Everything that is wrong, in one run and in order of place; lines and columns count characters. */
static void test_all_in_one_run(void **state)
{
    (void)state;
    assert_lines(
        "{\r\n"
        "\t\"listen\": \"x\",\r\n"
        "\t\"log\": { \"\xc3\xa9\xe2\x82\xac\": 1, \"level\": 5 },\r\n"
        "\t\"log\": {},\n"
        "\n"
        "  \"limits\": { \"target_bytes\": \"4KiB\", \"header_bytes\": \"2KiB\" },\n"
        "  \"hash_key\": \"target\",\n"
        "  \"backends\": [\n"
        "    { \"address\": \"a:1\", \"name\": \"b:1\" }, {},\n"
        "    { \"address\": \"b:1\", \"weight\": 999 }\n"
        "  ] }\n",
        "c.json:2:12: listen: found the string \"x\", which has no port; allowed: " LISTEN "\n"
        "c.json:3:11: log.\xc3\xa9\xe2\x82\xac: found an unknown key; allowed: level, access, format, file\n"
        "c.json:3:29: log.level: found 5; allowed: \"debug\", \"info\", \"warn\" or \"error\"\n"
        "c.json:4:2: log: found the key again; allowed: once in an object\n"
        "c.json:6:31: limits.target_bytes: found the string \"4KiB\" (4096 bytes, of a head of 2048); allowed: "
        "a size from 64 to limits.header_bytes, as a number of bytes or a string such as \"64KiB\"\n"
        "c.json:7:15: hash_key: found the string \"target\", without \"balance\": \"hash\"; allowed: no "
        "hash_key\n"
        "c.json:9:33: backends[0].name: found the string \"b:1\", which backends[2] has too; allowed: " UNIQUE "\n"
        "c.json:9:42: backends[1].address: found nothing; allowed: " BACKEND "\n"
        "c.json:10:35: backends[2].weight: found 999; allowed: a whole number from 1 to 256\n",
        false);
}

static void test_hash_keys(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        enum hash_key_kind kind;
        const char *name;
    } keys[] = {
        {"ip", HASH_KEY_IP, NULL},
        {"target", HASH_KEY_TARGET, NULL},
        {"header:X-User", HASH_KEY_HEADER, "X-User"},
        {"cookie:sid", HASH_KEY_COOKIE, "sid"},
    };
    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
        char member[128];
        struct buf errors = BUF_INIT;
        snprintf(member, sizeof(member), "\"balance\":\"hash\",\"hash_key\":\"%s\"", keys[i].text);
        struct config *c = parse(with(member), &errors);
        assert_non_null(c);
        assert_int_equal(c->balance, BALANCE_HASH);
        assert_int_equal(c->hash_key, keys[i].kind);
        if (keys[i].name)
            assert_string_equal(c->hash_key_name, keys[i].name);
        else
            assert_null(c->hash_key_name);
        config_put(c);
        buf_fini(&errors);
    }
}

static size_t count_lines(struct str s)
{
    size_t n = 0;
    for (size_t i = 0; i < s.n; i++)
        n += s.p[i] == '\n';
    return n;
}

static void append_times(struct buf *out, const char *s, unsigned times)
{
    for (unsigned i = 0; i < times; i++)
        assert_true(buf_append_str(out, str_of(s)));
}

/* Faults beyond a bound are counted, not kept. */
static void test_many_faults(void **state)
{
    (void)state;
    struct buf text = BUF_INIT, errors = BUF_INIT;
    append_times(&text, "{\"backends\":[{\"address\":\"a:1\"}]", 1);
    append_times(&text, ",\"x\":1", CONFIG_FAULTS_MAX + 7);
    append_times(&text, "}", 1);
    assert_null(config_parse(buf_str(&text), "c.json", environment, &errors));
    assert_int_equal(count_lines(buf_str(&errors)), CONFIG_FAULTS_MAX + 1);
    struct str last = STR("\nc.json: 7 more faults are not shown\n"), all = buf_str(&errors);
    assert_true(all.n > last.n && str_eq(str_make(all.p + all.n - last.n, last.n), last));
    buf_fini(&text);
    buf_fini(&errors);
}

static void test_many_backends(void **state)
{
    (void)state;
    struct buf text = BUF_INIT, errors = BUF_INIT;
    append_times(&text, "{\"backends\":[{\"address\":\"a:1\"}", 1);
    for (unsigned i = 2; i <= CONFIG_BACKENDS_MAX; i++)
        assert_true(buf_printf(&text, ",{\"address\":\"a:%u\"}", i));
    size_t full = text.len;
    append_times(&text, "]}", 1);
    struct config *c = config_parse(buf_str(&text), "c.json", environment, &errors);
    assert_non_null(c);
    assert_int_equal(c->backend_count, CONFIG_BACKENDS_MAX);
    config_put(c);
    text.len = full;
    append_times(&text, ",{}]}", 1);
    assert_null(config_parse(buf_str(&text), "c.json", environment, &errors));
    assert_true(str_eq(
        buf_str(&errors),
        STR("c.json:1:13: backends: found an array of more than 1024; allowed: an array of 1 to 1024 backends\n")));
    buf_fini(&text);
    buf_fini(&errors);
}

static void test_many_networks(void **state)
{
    (void)state;
    struct buf text = BUF_INIT, errors = BUF_INIT;
    append_times(&text, "{\"backends\":[{\"address\":\"a:1\"}],\"trusted_proxies\":[\"unix\"", 1);
    append_times(&text, ",\"::1\"", CONFIG_NETWORKS_MAX);
    append_times(&text, "]}", 1);
    assert_null(config_parse(buf_str(&text), "c.json", environment, &errors));
    assert_true(str_eq(buf_str(&errors), STR("c.json:1:51: trusted_proxies: found an array of over 10000; allowed: an "
                                             "array of at most 10000 strings, each " NETWORK "\n")));
    buf_fini(&text);
    buf_fini(&errors);
}

/* References cannot make much of little. */
static void test_long_expansion(void **state)
{
    (void)state;
    struct buf text = BUF_INIT, errors = BUF_INIT;
    append_times(&text, "{\"backends\":[{\"address\":\"a:1\"}],\"log\":{\"file\":\"", 1);
    append_times(&text, "${HOST}", 10000);
    append_times(&text, "\"}}", 1);
    assert_null(config_parse(buf_str(&text), "c.json", environment, &errors));
    assert_non_null(memmem(buf_str(&errors).p, errors.len, ", which expands to over 65536 bytes;", 36));
    buf_fini(&text);
    buf_fini(&errors);
}

static void test_references(void **state)
{
    (void)state;
    struct config *c = good_with("\"listen\":\":1\"");
    assert_ptr_equal(config_get(c), c);
    config_put(c);
    assert_int_equal(c->listen.port, 1);
    config_put(c);
    config_put(NULL);
}

static void test_load(void **state)
{
    bool no_memory;
    (void)state;
    char path[] = "/tmp/test_config.XXXXXX", wanted[256];
    static const char text[] = "{\"backends\":[{\"address\":\"${TEST_CONFIG_HOST}:1\"}]}";
    struct buf errors = BUF_INIT;
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, sizeof(text) - 1), sizeof(text) - 1);
    assert_int_equal(setenv("TEST_CONFIG_HOST", "h", 1), 0);
    struct config *c = config_load(path, &errors, &no_memory);
    assert_non_null(c);
    assert_false(no_memory);
    assert_string_equal(c->path, path);
    assert_string_equal(c->backends[0].address, "h:1");
    config_put(c);
    assert_int_equal(ftruncate(fd, CONFIG_FILE_MAX + 1), 0);
    assert_null(config_load(path, &errors, &no_memory));
    snprintf(wanted, sizeof(wanted), "%s: is larger than 1 MiB\n", path);
    assert_true(str_eq(buf_str(&errors), str_of(wanted)));
    close(fd);
    unlink(path);
    buf_fini(&errors);
    assert_null(config_load(path, &errors, &no_memory));
    snprintf(wanted, sizeof(wanted), "%s: cannot be read: No such file or directory\n", path);
    assert_true(str_eq(buf_str(&errors), str_of(wanted)));
    buf_fini(&errors);
    assert_null(config_load("/tmp", &errors, &no_memory));
    assert_true(str_eq(buf_str(&errors), STR("/tmp: cannot be read: Is a directory\n")));
    buf_fini(&errors);
}

/* Writes `text` to a file and loads it over what `running` says. */
static struct config *load_over(const char *running, const char *text, struct buf *errors)
{
    char name[] = "/tmp/test_config.XXXXXX";
    bool no_memory;
    int fd = mkstemp(name);
    struct config *old = good(running);
    assert_true(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
    close(fd);
    struct config *c = config_load_over(name, old, errors, &no_memory);
    unlink(name);
    config_put(old);
    return c;
}

static void reload_good(const char *running, const char *member)
{
    struct buf errors = BUF_INIT;
    char before[4096];
    snprintf(before, sizeof before, "%s", with(running));
    struct config *c = load_over(before, with(member), &errors);
    if (!c)
        fail_msg("%s -> %s: %.*s", running, member, STR_ARG(buf_str(&errors)));
    config_put(c);
    buf_fini(&errors);
}

static void reload_bad(const char *running, const char *member, const char *fault)
{
    struct buf errors = BUF_INIT;
    char before[4096];
    snprintf(before, sizeof before, "%s", with(running));
    assert_null(load_over(before, with(member), &errors));
    assert_true(buf_append(&errors, "", 1));
    if (!strstr(buf_str(&errors).p, fault))
        fail_msg("%s -> %s: %s", running, member, buf_str(&errors).p);
    buf_fini(&errors);
}

static void test_what_a_reload_cannot_change(void **state)
{
    (void)state;
    reload_good("\"slow_start\":\"1s\"", "\"slow_start\":\"2s\"");
    reload_good("\"log\":{\"file\":\"a\"}", "\"log\":{\"file\":\"b\"}");
    reload_bad("\"log\":{\"file\":\"a\"}", "\"log\":{}", "log.file: found nothing; allowed: a path");
    reload_bad("\"log\":{\"file\":\"a\"}", "\"log\":{\"file\":null}",
               ":1:47: log.file: found null; allowed: a path, as it is now; only a restart can change that\n");
    reload_bad("\"log\":{}", "\"log\":{\"file\":\"a\"}",
               "log.file: found the string \"a\"; allowed: null, as it is now; only a restart can change that\n");
    reload_bad("\"rate_limit\":{}", "\"rate_limit\":null",
               "rate_limit: found null; allowed: an object, as it is now; only a restart can change that\n");
    reload_bad("\"rate_limit\":null", "\"slow_start\":\"1s\"",
               "rate_limit: found nothing; allowed: null, as it is now; only a restart can change that\n");
    reload_bad(
        "\"rate_limit\":{}", "\"rate_limit\":{\"clients_file\":\"x\"}",
        "rate_limit.clients_file: found the string \"x\"; allowed: clients.json, as it is now; only a restart can "
        "change that\n");
    /* All faults at once. */
    reload_bad("\"rate_limit\":{}", "\"rate_limit\":{\"clients_file\":\"x\"},\"blance\":1", ": blance: ");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_what_a_reload_cannot_change),
        cmocka_unit_test(test_more_defaults),
        cmocka_unit_test(test_written_defaults),
        cmocka_unit_test(test_backends),
        cmocka_unit_test(test_listen),
        cmocka_unit_test(test_nulls),
        cmocka_unit_test(test_networks),
        cmocka_unit_test(test_statuses),
        cmocka_unit_test(test_edges),
        cmocka_unit_test(test_target_follows_header),
        cmocka_unit_test(test_expansion),
        cmocka_unit_test(test_bad_files),
        cmocka_unit_test(test_bad_values),
        cmocka_unit_test(test_bad_limiter_values),
        cmocka_unit_test(test_bad_references),
        cmocka_unit_test(test_unknown_keys),
        cmocka_unit_test(test_shown_strings),
        cmocka_unit_test(test_all_in_one_run),
        cmocka_unit_test(test_hash_keys),
        cmocka_unit_test(test_many_faults),
        cmocka_unit_test(test_many_backends),
        cmocka_unit_test(test_many_networks),
        cmocka_unit_test(test_long_expansion),
        cmocka_unit_test(test_references),
        cmocka_unit_test(test_load),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
