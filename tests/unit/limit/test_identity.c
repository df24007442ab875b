/* Unit tests of limit/identity.c: whose address counts, whatever is forged. */
#include "limit/limiter.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#define TRUSTED "[\"10.0.0.0/8\", \"2001:db8::/32\", \"unix\"]"

static struct config *config_with(const char *trusted)
{
    char text[256];
    struct buf errors = BUF_INIT;
    snprintf(text, sizeof text, "{\"backends\":[{\"address\":\"127.0.0.1:1\"}],\"trusted_proxies\":%s}", trusted);
    struct config *c = config_parse(str_of(text), "test", NULL, &errors);
    assert_non_null(c);
    buf_fini(&errors);
    return c;
}

/* The address of a request from `from` ("" for a unix peer) with these X-Forwarded-For lines, as text; "none" when
 * nothing is known. */
static const char *address(const char *trusted, const char *from, const char *const lines[], unsigned n)
{
    static char text[IP_TEXT_SIZE];
    struct field fields[8];
    struct headers h = {.v = fields, .n = n, .max = 8, .present = n ? 1u << FIELD_X_FORWARDED_FOR : 0};
    struct peer peer = {.is_unix = from[0] == '\0'};
    struct ip ip;
    for (unsigned i = 0; i < n; i++)
        fields[i] = (struct field){STR("X-Forwarded-For"), str_of(lines[i]), FIELD_X_FORWARDED_FOR};
    if (from[0])
        assert_true(ip_parse(str_of(from), &peer.ip));
    struct config *c = config_with(trusted);
    if (identity_address(c, &peer, &h, &ip))
        ip_format(&ip, text);
    else
        snprintf(text, sizeof text, "none");
    config_put(c);
    return text;
}

static const char *from_proxy(const char *line)
{
    return address(TRUSTED, "10.0.0.1", &line, 1);
}

static void untrusted_peers_are_themselves(void **state)
{
    (void)state;
    const char *line = "1.2.3.4";
    assert_string_equal(address(TRUSTED, "9.9.9.9", &line, 1), "9.9.9.9");
    assert_string_equal(address("[]", "10.0.0.1", &line, 1), "10.0.0.1");
    assert_string_equal(address("[]", "", &line, 1), "none");
    assert_string_equal(address(TRUSTED, "10.0.0.1", NULL, 0), "10.0.0.1");
    assert_string_equal(address(TRUSTED, "", NULL, 0), "none");
}

static void right_most_untrusted_counts(void **state)
{
    (void)state;
    assert_string_equal(from_proxy("1.2.3.4"), "1.2.3.4");
    assert_string_equal(from_proxy("6.6.6.6, 1.2.3.4"), "1.2.3.4");
    assert_string_equal(from_proxy("6.6.6.6, 1.2.3.4, 10.1.1.1"), "1.2.3.4");
    assert_string_equal(from_proxy("6.6.6.6,1.2.3.4,10.1.1.1,\t2001:db8::5 "), "1.2.3.4");
    assert_string_equal(from_proxy("10.3.3.3, 10.2.2.2"), "10.3.3.3");
    assert_string_equal(from_proxy("6.6.6.6, , 1.2.3.4,, 10.1.1.1,"), "1.2.3.4");
    assert_string_equal(from_proxy(""), "10.0.0.1");
    const char *line = "1.2.3.4";
    assert_string_equal(address(TRUSTED, "", &line, 1), "1.2.3.4");
    assert_string_equal(address(TRUSTED, "2001:db8::9", &line, 1), "1.2.3.4");
}

static void several_lines_are_one_list(void **state)
{
    (void)state;
    const char *lines[] = {"6.6.6.6", "1.2.3.4, 10.1.1.1", "10.2.2.2"};
    assert_string_equal(address(TRUSTED, "10.0.0.1", lines, 3), "1.2.3.4");
    const char *ends[] = {"6.6.6.6", "junk", "10.2.2.2"};
    assert_string_equal(address(TRUSTED, "10.0.0.1", ends, 3), "10.2.2.2");
}

static void ports_and_brackets_are_stripped(void **state)
{
    (void)state;
    assert_string_equal(from_proxy("1.2.3.4:5678"), "1.2.3.4");
    assert_string_equal(from_proxy("[fe80::1]:80"), "fe80::1");
    assert_string_equal(from_proxy("[fe80::1]"), "fe80::1");
    assert_string_equal(from_proxy("fe80::1"), "fe80::1");
    assert_string_equal(from_proxy("::ffff:1.2.3.4"), "1.2.3.4");
    assert_string_equal(from_proxy("[::ffff:1.2.3.4]:9"), "1.2.3.4");
    assert_string_equal(from_proxy("6.6.6.6, ::ffff:10.1.1.1"), "6.6.6.6");
}

static void what_is_no_address_ends_the_walk(void **state)
{
    (void)state;
    static const char *const bad[] = {"unknown",       "1.2.3",       "01.2.3.4",    "1.2.3.4:",  "1.2.3.4:x",
                                      "1.2.3.4:99999", "[1.2.3.4]",   "[1.2.3.4]:1", "[::1",      "::1]",
                                      "[::1]80",       "[::1]:",      "[]",          "[",         "fe80::1%eth0",
                                      "[fe80::1%2]",   "\"1.2.3.4\"", "1.2.3.4 5",   "1.2.3.4/8", ":80"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        char line[64];
        assert_string_equal(from_proxy(bad[i]), "10.0.0.1");
        snprintf(line, sizeof line, "6.6.6.6, %s, 10.1.1.1", bad[i]);
        assert_string_equal(from_proxy(line), "10.1.1.1");
    }
}

static void a_thousand_hops(void **state)
{
    (void)state;
    char *line = malloc(16 + 1000 * 10);
    assert_non_null(line);
    strcpy(line, "1.2.3.4");
    size_t n = strlen(line);
    for (int i = 0; i < 1000; i++, n += 10)
        memcpy(line + n, ", 10.0.0.7", 11);
    assert_string_equal(from_proxy(line), "1.2.3.4");
    free(line);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(untrusted_peers_are_themselves),   cmocka_unit_test(right_most_untrusted_counts),
        cmocka_unit_test(several_lines_are_one_list),       cmocka_unit_test(ports_and_brackets_are_stripped),
        cmocka_unit_test(what_is_no_address_ends_the_walk), cmocka_unit_test(a_thousand_hops),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
