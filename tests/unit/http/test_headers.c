/* Field names told apart, and questions about the fields of a head. */
#include "http/headers.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static const struct str names[FIELD_ID_COUNT] = {{"", 0},
#define X(id, name) {name, sizeof(name) - 1},
                                                 FIELD_CATALOGUE(X)
#undef X
};

/* A head's fields from pairs of name and value, ended by NULL. */
static struct headers make(struct field *room, const char *const *pairs)
{
    struct headers h = {.v = room};

    for (; pairs[0]; pairs += 2) {
        struct str name = str_of(pairs[0]);
        h.v[h.n++] = (struct field){name, str_of(pairs[1]), field_id_of(name)};
        h.present |= UINT32_C(1) << field_id_of(name);
    }
    h.max = h.n;
    return h;
}

static void every_name_is_known_in_any_case(void **state)
{
    (void)state;
    for (unsigned id = 1; id < FIELD_ID_COUNT; id++) {
        if (names[id].n == 0)
            continue;
        char text[32];
        for (unsigned mask = 0; mask < 4; mask++) {
            for (size_t i = 0; i < names[id].n; i++) {
                char c = names[id].p[i];
                text[i] = (char)((mask >> (i & 1) & 1) && c >= 'a' ? c - 32 : c);
            }
            assert_int_equal(field_id_of(str_make(text, names[id].n)), id);
        }
    }
}

static void names_that_differ_in_one_byte_are_not_known(void **state)
{
    (void)state;
    for (unsigned id = 1; id < FIELD_ID_COUNT; id++) {
        char text[32];
        for (size_t i = 0; i < names[id].n; i++) {
            memcpy(text, names[id].p, names[id].n);
            text[i] = '~';
            enum field_id got = field_id_of(str_make(text, names[id].n));
            assert_true(got == FIELD_OTHER || got == FIELD_X_FORWARDED_OTHER);
        }
        memcpy(text, names[id].p, names[id].n);
        text[names[id].n] = 's';
        enum field_id longer = field_id_of(str_make(text, names[id].n + 1));
        assert_true(longer == FIELD_OTHER || longer == FIELD_X_FORWARDED_OTHER);
    }
    assert_int_equal(field_id_of(STR("")), FIELD_OTHER);
    assert_int_equal(field_id_of(STR("accept")), FIELD_OTHER);
    /* '@' and '`' differ from letters' cases by the same bit that tells 'A' from 'a'. */
    assert_int_equal(field_id_of(STR("proxy\rconnection")), FIELD_OTHER);
}

static void x_forwarded_fields_are_told_by_their_prefix(void **state)
{
    (void)state;
    assert_int_equal(field_id_of(STR("X-Forwarded-Port")), FIELD_X_FORWARDED_OTHER);
    assert_int_equal(field_id_of(STR("x-forwarded-PREFIX")), FIELD_X_FORWARDED_OTHER);
    assert_int_equal(field_id_of(STR("X-Forwarded-A")), FIELD_X_FORWARDED_OTHER);
    assert_int_equal(field_id_of(STR("X-Forwarded-")), FIELD_X_FORWARDED_OTHER);
    assert_int_equal(field_id_of(STR("X-Forwarded")), FIELD_OTHER);
    assert_int_equal(field_id_of(STR("X-Forwarded-Foo")), FIELD_X_FORWARDED_OTHER);
    assert_int_equal(field_id_of(STR("X-Forwarded")), FIELD_OTHER);
}

static void the_first_is_found_and_all_are_counted(void **state)
{
    (void)state;
    struct field room[8];
    const char *pairs[] = {"Host", "a", "X-Thing", "1", "HOST", "b", "x-thing", "2", "Via", "1.1 x", NULL};
    struct headers h = make(room, pairs);
    unsigned count;

    assert_string_equal(headers_find(&h, FIELD_HOST, &count)->value.p, "a");
    assert_int_equal(count, 2);
    assert_ptr_equal(headers_find(&h, FIELD_VIA, NULL), &h.v[4]);
    assert_null(headers_find(&h, FIELD_TE, &count));
    assert_int_equal(count, 0);
    assert_ptr_equal(headers_find_name(&h, STR("X-THING"), &count), &h.v[1]);
    assert_int_equal(count, 2);
    assert_null(headers_find_name(&h, STR("X-Thin"), &count));
    assert_int_equal(count, 0);
}

static void tokens_are_found_in_all_lists_together(void **state)
{
    (void)state;
    struct field room[8];
    const char *pairs[] = {"Connection", "foo , ,Close", "Other", "bar", "connection", "\tupgrade,baz\t", NULL};
    struct headers h = make(room, pairs);

    assert_true(headers_has_token(&h, FIELD_CONNECTION, STR("close")));
    assert_true(headers_has_token(&h, FIELD_CONNECTION, STR("FOO")));
    assert_true(headers_has_token(&h, FIELD_CONNECTION, STR("baz")));
    assert_true(headers_has_token(&h, FIELD_CONNECTION, STR("Upgrade")));
    assert_false(headers_has_token(&h, FIELD_CONNECTION, STR("bar")));
    assert_false(headers_has_token(&h, FIELD_CONNECTION, STR("clos")));
    assert_false(headers_has_token(&h, FIELD_CONNECTION, STR("")));
    assert_false(headers_has_token(&h, FIELD_TE, STR("foo")));
}

static void schemes_that_name_the_user_of_a_connection(void **state)
{
    (void)state;
    static const struct {
        const char *pairs[5];
        bool named;
    } cases[] = {
        {{"Authorization", "NTLM abc", NULL}, true},
        {{"authorization", "negotiate abc", NULL}, true},
        {{"WWW-Authenticate", "NTLM", NULL}, true},
        {{"www-authenticate", "Basic realm=\"a\" , Negotiate", NULL}, true},
        {{"Authorization", "Negotiate\tYII=", NULL}, true},
        {{"WWW-Authenticate", "Basic", "WWW-Authenticate", "ntlm", NULL}, true},
        {{"Authorization", "Basic abc", NULL}, false},
        {{"Authorization", "Digest username=\"ntlm\"", NULL}, false},
        {{"Authorization", "NTLMs abc", NULL}, false},
        {{"Proxy-Authenticate", "NTLM", "Other", "Negotiate", NULL}, false},
        {{"WWW-Authenticate", "", NULL}, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct field room[2];
        struct headers h = make(room, cases[i].pairs);
        assert_int_equal(headers_name_user_of_connection(&h), cases[i].named);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_name_is_known_in_any_case),
        cmocka_unit_test(names_that_differ_in_one_byte_are_not_known),
        cmocka_unit_test(x_forwarded_fields_are_told_by_their_prefix),
        cmocka_unit_test(the_first_is_found_and_all_are_counted),
        cmocka_unit_test(tokens_are_found_in_all_lists_together),
        cmocka_unit_test(schemes_that_name_the_user_of_a_connection),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
