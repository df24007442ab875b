/* Addresses: strict spellings, one canonical form, prefixes, endpoints as users write them. */
#include "net/addr.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static struct ip ip_of(const char *text)
{
    struct ip ip;
    if (!ip_parse(str_of(text), &ip))
        fail_msg("%s is an address", text);
    return ip;
}

static struct cidr cidr_of(const char *text)
{
    struct cidr c;
    if (!cidr_parse(str_of(text), &c))
        fail_msg("%s is a network", text);
    return c;
}

static void test_ip_canonical(void **state)
{
    (void)state;
    static const struct {
        const char *in, *out;
    } cases[] = {
        {"1.2.3.4", "1.2.3.4"},
        {"0.0.0.0", "0.0.0.0"},
        {"255.255.255.255", "255.255.255.255"},
        {"::ffff:1.2.3.4", "1.2.3.4"},
        {"::FFFF:102:304", "1.2.3.4"},
        {"0:0:0:0:0:ffff:1.2.3.4", "1.2.3.4"},
        {"::", "::"},
        {"::1", "::1"},
        {"2001:DB8:0:0:1:0:0:1", "2001:db8::1:0:0:1"},
        {"2001:0db8:0000:0000:0000:0000:0000:0001", "2001:db8::1"},
        {"2001:db8:0:1:1:1:1:1", "2001:db8:0:1:1:1:1:1"},
        {"fe80::1", "fe80::1"},
        {"ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[IP_TEXT_SIZE];
        struct ip ip = ip_of(cases[i].in);
        assert_int_equal(ip_format(&ip, text), strlen(cases[i].out));
        assert_string_equal(text, cases[i].out);
    }
    struct ip a = ip_of("::ffff:1.2.3.4"), b = ip_of("1.2.3.4"), c = ip_of("1.2.3.5");
    assert_true(ip_eq(&a, &b));
    assert_false(ip_eq(&a, &c));
    assert_true(ip_is_v4(&a));
    struct ip v6 = ip_of("::1.2.3.4");
    assert_false(ip_is_v4(&v6));
}

static void test_ip_refused(void **state)
{
    (void)state;
    static const char *const cases[] = {
        "",
        "1",
        "1.2.3",
        "127.1",
        "01.2.3.4",
        "1.2.3.04",
        "1.2.3.256",
        "1.2.3.4 ",
        " 1.2.3.4",
        "1.2.3.4.5",
        "1.2.3.",
        "0x7f.0.0.1",
        "1.2.3.4/8",
        "1.2.3.4:80",
        "::1%lo",
        "[::1]",
        "fe80::1%eth0",
        ":::",
        "1::2::3",
        "12345::",
        "g::",
        "::1 ",
        "1:2:3:4:5:6:7:8:9",
        ":1",
        "::ffff:1.2.3.256",
        "::ffff:1.2.3",
        "::ffff:01.2.3.4",
        "+1.2.3.4",
        "1.2.3.-4",
        "localhost",
        "::1/128",
        "0000000000000000000000000000000000000000000000001.2.3.4",
    };
    struct ip ip;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (ip_parse(str_of(cases[i]), &ip))
            fail_msg("\"%s\" was taken", cases[i]);
    }
    assert_false(ip_parse(STR("1.2.3.4\0"), &ip));
    assert_false(ip_parse((struct str){0}, &ip));
    /* Only the slice counts, not what stands behind it. */
    assert_true(ip_parse(str_make("1.2.3.45", 7), &ip));
    struct ip four = ip_of("1.2.3.4");
    assert_true(ip_eq(&ip, &four));
}

static void test_ip_round_trip(void **state)
{
    (void)state;
    srand(7);
    for (int i = 0; i < 20000; i++) {
        struct ip ip, back;
        char text[IP_TEXT_SIZE];
        for (size_t k = 0; k < sizeof ip.b; k++)
            ip.b[k] = rand() % 2 ? (uint8_t)rand() : 0;
        if (i % 4 == 0)
            memcpy(ip.b, "\0\0\0\0\0\0\0\0\0\0\377\377", 12);
        size_t n = ip_format(&ip, text);
        assert_true(n < IP_TEXT_SIZE);
        assert_true(ip_parse(str_make(text, n), &back));
        assert_true(ip_eq(&ip, &back));
    }
}

static void test_mask(void **state)
{
    (void)state;
    struct ip ones;
    memset(&ones, 0xff, sizeof ones);
    for (unsigned bits = 0; bits <= 128; bits++) {
        struct ip m = ip_mask(&ones, bits);
        for (unsigned i = 0; i < 128; i++)
            assert_int_equal(m.b[i / 8] >> (7 - i % 8) & 1, i < bits);
    }
}

static void test_cidr(void **state)
{
    (void)state;
    struct cidr ten = cidr_of("10.0.0.0/8"), mapped = cidr_of("::ffff:10.0.0.0/104");
    assert_int_equal(ten.bits, 104);
    assert_int_equal(mapped.bits, 104);
    assert_true(ip_eq(&ten.net, &mapped.net));
    assert_int_equal(cidr_of("0.0.0.0/0").bits, 96);
    assert_int_equal(cidr_of("::/0").bits, 0);
    assert_int_equal(cidr_of("1.2.3.4").bits, 128);
    assert_int_equal(cidr_of("1.2.3.4/32").bits, 128);
    assert_int_equal(cidr_of("::1").bits, 128);
    assert_int_equal(cidr_of("fe80::/10").bits, 10);

    static const struct {
        const char *net, *ip;
        bool in;
    } cases[] = {
        {"10.0.0.0/8", "10.255.255.255", true},
        {"10.0.0.0/8", "11.0.0.0", false},
        {"10.0.0.0/8", "9.255.255.255", false},
        {"10.0.0.0/8", "::ffff:10.1.1.1", true},
        {"0.0.0.0/0", "255.0.0.1", true},
        {"0.0.0.0/0", "::1", false},
        {"0.0.0.0/0", "::1.2.3.4", false},
        {"::/0", "1.2.3.4", true},
        {"::/0", "2001:db8::1", true},
        {"1.2.3.4", "1.2.3.4", true},
        {"1.2.3.4", "1.2.3.5", false},
        {"fe80::/10", "febf::1", true},
        {"fe80::/10", "fec0::1", false},
        {"192.168.0.0/31", "192.168.0.1", true},
        {"192.168.0.0/31", "192.168.0.2", false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct cidr c = cidr_of(cases[i].net);
        struct ip ip = ip_of(cases[i].ip);
        if (cidr_contains(&c, &ip) != cases[i].in)
            fail_msg("%s in %s", cases[i].ip, cases[i].net);
    }
}

static void test_cidr_refused(void **state)
{
    (void)state;
    static const char *const cases[] = {
        "",
        "/8",
        "10.0.0.0/",
        "10.0.0.0/33",
        "10.0.0.0/-1",
        "10.0.0.0/08",
        "10.0.0.0/8 ",
        "10.0.0.1/8",
        "10.0.0/8",
        "::1/129",
        "::1/127",
        "::1/",
        "10.0.0.0/8/8",
        "10.0.0.0/8x",
        "10.0.0.0/+8",
        "10.0.0.0/255.0.0.0",
        "::ffff:10.0.0.0/8",
        "host/8",
        "[::1]/128",
        "10.0.0.0/99999999999999999999",
    };
    struct cidr c;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (cidr_parse(str_of(cases[i]), &c))
            fail_msg("\"%s\" was taken", cases[i]);
    }
}

static void test_cidr_set(void **state)
{
    (void)state;
    struct cidr v[] = {cidr_of("10.0.0.0/8"), cidr_of("::1")};
    struct cidr_set set = {.v = v, .n = 2}, none = {0}, only_unix = {.unix_peers = true};
    struct ip in = ip_of("10.9.8.7"), out = ip_of("127.0.0.1"), v6 = ip_of("::1");
    assert_true(cidr_set_contains_ip(&set, &in));
    assert_true(cidr_set_contains_ip(&set, &v6));
    assert_false(cidr_set_contains_ip(&set, &out));
    assert_false(cidr_set_contains_ip(&none, &in));

    struct peer tcp = {.ip = in}, local = {.is_unix = true};
    assert_true(cidr_set_contains_peer(&set, &tcp));
    assert_false(cidr_set_contains_peer(&set, &local));
    assert_true(cidr_set_contains_peer(&only_unix, &local));
    assert_false(cidr_set_contains_peer(&only_unix, &tcp));

    /* A unix peer has no address: not even a set of all networks holds it. */
    struct cidr everything[] = {cidr_of("::/0")};
    struct cidr_set networks = {.v = everything, .n = 1};
    assert_false(cidr_set_contains_peer(&networks, &local));
}

static void test_endpoint(void **state)
{
    (void)state;
    static const struct {
        const char *in;
        enum endpoint_kind kind;
        const char *host;
        unsigned port;
        const char *addr;
    } cases[] = {
        {"127.0.0.1:9001", ENDPOINT_IP, "127.0.0.1", 9001, "127.0.0.1:9001"},
        {"[::1]:80", ENDPOINT_IP, "::1", 80, "[::1]:80"},
        {"[2001:DB8::0:1]:65535", ENDPOINT_IP, "2001:db8::1", 65535, "[2001:db8::1]:65535"},
        {"[::ffff:1.2.3.4]:1", ENDPOINT_IP, "1.2.3.4", 1, "1.2.3.4:1"},
        {"[::]:8080", ENDPOINT_IP, "::", 8080, "[::]:8080"},
        {":8080", ENDPOINT_ANY, "", 8080, "[::]:8080"},
        {"0.0.0.0:8080", ENDPOINT_IP, "0.0.0.0", 8080, "0.0.0.0:8080"},
        {"localhost:1", ENDPOINT_NAME, "localhost", 1, NULL},
        {"back-end_1.Example.com:80", ENDPOINT_NAME, "back-end_1.Example.com", 80, NULL},
        {"example.com.:80", ENDPOINT_NAME, "example.com.", 80, NULL},
        {"3com.com:80", ENDPOINT_NAME, "3com.com", 80, NULL},
        {"unix:/run/lb.sock", ENDPOINT_UNIX, "", 0, "unix:/run/lb.sock"},
        {"unix:./lb:1.sock", ENDPOINT_UNIX, "", 0, "unix:./lb:1.sock"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct endpoint e;
        const char *why = "";
        char text[ADDR_TEXT_SIZE];
        if (!endpoint_parse(str_of(cases[i].in), false, &e, &why))
            fail_msg("\"%s\" %s", cases[i].in, why);
        assert_int_equal(e.kind, cases[i].kind);
        assert_string_equal(e.host, cases[i].host);
        assert_int_equal(e.port, cases[i].port);
        if (!cases[i].addr) {
            assert_int_equal(e.addr.len, 0);
            continue;
        }
        assert_int_equal(addr_format(&e.addr, text), strlen(cases[i].addr));
        assert_string_equal(text, cases[i].addr);
    }
}

static void test_endpoint_refused(void **state)
{
    (void)state;
    static const struct {
        const char *in, *why;
    } cases[] = {
        {"", "no port"},
        {"localhost", "no port"},
        {"1.2.3.4", "no port"},
        {"[::1]", "no port"},
        {"::1", "without brackets"},
        {"::1:80", "without brackets"},
        {"localhost:", "1 to 65535"},
        {"localhost:0", "1 to 65535"},
        {"localhost:65536", "1 to 65535"},
        {"localhost:http", "1 to 65535"},
        {"localhost:080", "1 to 65535"},
        {"localhost:+80", "1 to 65535"},
        {"localhost: 80", "1 to 65535"},
        {"[::1%lo]:80", "brackets"},
        {"[1.2.3.4]:80", "brackets"},
        {"[]:80", "brackets"},
        {"[:80", "neither"},
        {"127.1:80", "malformed IPv4"},
        {"1.2.3.256:80", "malformed IPv4"},
        {"01.2.3.4:80", "malformed IPv4"},
        {"0x7f000001:80", "malformed IPv4"},
        {"2130706433:80", "malformed IPv4"},
        {"a..b:80", "neither"},
        {".a:80", "neither"},
        {".:80", "neither"},
        {"-a.b:80", "neither"},
        {"a-.b:80", "neither"},
        {"a b:80", "neither"},
        {"http://a:80", "is a URL"},
        {"http://a", "is a URL"},
        {"https://[::1]:80/", "is a URL"},
        {"unix:", "no path"},
        {"unix:9000", "no path"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct endpoint e;
        const char *why = "";
        if (endpoint_parse(str_of(cases[i].in), false, &e, &why))
            fail_msg("\"%s\" was taken", cases[i].in);
        if (!strstr(why, cases[i].why))
            fail_msg("\"%s\" %s", cases[i].in, why);
    }
}

static void test_endpoint_bounds(void **state)
{
    (void)state;
    struct endpoint e;
    const char *why;
    assert_true(endpoint_parse(STR(":0"), true, &e, &why));
    assert_int_equal(e.kind, ENDPOINT_ANY);
    assert_false(endpoint_parse(STR(":65536"), true, &e, &why));
    assert_non_null(strstr(why, "0 to 65535"));

    char text[400];
    memset(text, 'a', sizeof text);
    memcpy(text, "unix:/", 6);
    assert_true(endpoint_parse(str_make(text, 5 + 107), false, &e, &why));
    assert_false(endpoint_parse(str_make(text, 5 + 108), false, &e, &why));
    assert_non_null(strstr(why, "too long"));
    text[20] = '\0';
    assert_false(endpoint_parse(str_make(text, 30), false, &e, &why));

    /* Labels of up to 63, names of up to 253. */
    for (size_t i = 0; i < sizeof text; i++)
        text[i] = i % 64 == 63 ? '.' : 'b';
    memcpy(text + 253, ":80", 3);
    assert_true(endpoint_parse(str_make(text, 256), false, &e, &why));
    assert_int_equal(strlen(e.host), 253);
    memcpy(text + 253, ".:80", 4);
    assert_true(endpoint_parse(str_make(text, 257), false, &e, &why));
    memcpy(text + 253, "b:80", 4);
    assert_false(endpoint_parse(str_make(text, 257), false, &e, &why));
    memset(text, 'c', sizeof text);
    memcpy(text + 64, ":80", 3);
    assert_false(endpoint_parse(str_make(text, 67), false, &e, &why));
    assert_true(endpoint_parse(str_make(text + 1, 66), false, &e, &why));
}

static void another_port(void **state)
{
    (void)state;
    static const char *const texts[] = {"1.2.3.4", "2001:db8::1"};
    for (size_t i = 0; i < 2; i++) {
        struct ip ip = ip_of(texts[i]);
        struct addr a = addr_of_ip(&ip, 80), expected = addr_of_ip(&ip, 443), with = addr_with_port(&a, 443);
        assert_int_equal(with.len, expected.len);
        assert_memory_equal(&with.ss, &expected.ss, expected.len);
    }
}

static void test_peer(void **state)
{
    (void)state;
    struct ip v4 = ip_of("1.2.3.4"), v6 = ip_of("2001:db8::1");
    struct addr a = addr_of_ip(&v4, 80);
    assert_int_equal(a.sa.sa_family, AF_INET);
    struct peer p = peer_from_addr(&a);
    assert_true(ip_eq(&p.ip, &v4));
    assert_int_equal(p.port, 80);
    assert_false(p.is_unix);

    a = addr_of_ip(&v6, 443);
    assert_int_equal(a.sa.sa_family, AF_INET6);
    p = peer_from_addr(&a);
    assert_true(ip_eq(&p.ip, &v6));
    assert_int_equal(p.port, 443);

    /* An IPv4 client of a dual-stack listener comes as an IPv4-mapped address. */
    struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_port = htons(8)};
    memcpy(&in6.sin6_addr, v4.b, sizeof v4.b);
    a = (struct addr){.len = sizeof in6};
    memcpy(&a.ss, &in6, sizeof in6);
    p = peer_from_addr(&a);
    char text[ADDR_TEXT_SIZE];
    assert_true(ip_eq(&p.ip, &v4));
    addr_format(&a, text);
    assert_string_equal(text, "1.2.3.4:8");

    /* An unnamed unix socket. */
    a = (struct addr){.len = sizeof(sa_family_t)};
    a.sa.sa_family = AF_UNIX;
    p = peer_from_addr(&a);
    assert_true(p.is_unix);
    assert_int_equal(p.port, 0);
    assert_int_equal(addr_format(&a, text), 5);
    assert_string_equal(text, "unix:");

    /* A path without its zero, as long as it can be. */
    a.len = sizeof a.un;
    memset(a.un.sun_path, 'x', sizeof a.un.sun_path);
    assert_int_equal(addr_format(&a, text), 5 + sizeof a.un.sun_path);
}

static void every_octet_is_formatted(void **state)
{
    (void)state;
    for (unsigned v = 0; v < 256; v++) {
        char wanted[IP_TEXT_SIZE], got[IP_TEXT_SIZE];
        struct ip ip;
        snprintf(wanted, sizeof wanted, "%u.%u.%u.%u", v, 255 - v, v / 2, v * 7 % 256);
        assert_true(ip_parse(str_of(wanted), &ip));
        assert_int_equal(ip_format(&ip, got), strlen(wanted));
        assert_string_equal(got, wanted);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_octet_is_formatted),
        cmocka_unit_test(test_ip_canonical),
        cmocka_unit_test(test_ip_refused),
        cmocka_unit_test(test_ip_round_trip),
        cmocka_unit_test(test_mask),
        cmocka_unit_test(test_cidr),
        cmocka_unit_test(test_cidr_refused),
        cmocka_unit_test(test_cidr_set),
        cmocka_unit_test(test_endpoint),
        cmocka_unit_test(test_endpoint_refused),
        cmocka_unit_test(test_endpoint_bounds),
        cmocka_unit_test(another_port),
        cmocka_unit_test(test_peer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
