/* Authentication that counts for a connection instead of a request (NTLM, Negotiate): nobody else is given it. */
#include "harness/world.h"

#include <stdio.h>
#include <string.h>

/* Takes all that comes behind an Authorization on the same connection for that user's, as such servers do; /challenge
 * is refused by a challenge. The answer says whose the request was. */
static void script(struct origin_conn *c)
{
    char user[80] = "nobody";

    while (origin_read(c)) {
        const char *authorization = message_field(&c->request, "Authorization");

        if (authorization)
            snprintf(user, sizeof user, "%s", authorization);
        if (strcmp(c->request.target, "/challenge") == 0
                ? !origin_send(c, "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"a\", negotiate b\r\n"
                                  "Content-Length: 0\r\n\r\n")
                : !origin_answer(c, user))
            return;
    }
}

static const char *ask(struct client *c, const char *field)
{
    client_sendf(c, "GET / HTTP/1.1\r\nHost: h\r\n%s\r\n", field);
    return client_expect(c, 200)->body.p;
}

/* What goes to the backend behind it, whoever's it is, goes on another connection. */
static void test_a_user_is_nobody_else(void **state)
{
    static const char *const schemes[] = {"NTLM", "ntlm", "Negotiate", "NEGOTIATE"};
    struct world *w = *state;
    struct client user, stranger;
    char field[80];

    struct origin *o = world_origin(w, script, NULL, NULL);
    world_start(w, NULL);
    client_open(&user, w->port);
    client_open(&stranger, w->port);
    for (size_t i = 0; i < sizeof schemes / sizeof *schemes; i++) {
        snprintf(field, sizeof field, "Authorization: %s\r\n", schemes[i]);
        assert_string_equal(ask(&user, field), schemes[i]);
        assert_string_equal(ask(&stranger, ""), "nobody");
    }
    /* Others count for a request, and their connections for everybody. */
    unsigned before = origin_connections(o);
    ask(&user, "Authorization: Basic abc\r\n");
    ask(&user, "Authorization: Bearer abc\r\n");
    assert_int_equal(origin_connections(o), before);
    client_close(&user);
    client_close(&stranger);
    world_finish(w);
}

static void test_a_challenge_ends_its_connection(void **state)
{
    struct world *w = *state;
    struct client c;

    struct origin *o = world_origin(w, script, NULL, NULL);
    world_start(w, NULL);
    client_open(&c, w->port);
    for (unsigned i = 1; i <= 3; i++) {
        client_send(&c, "GET /challenge HTTP/1.1\r\nHost: h\r\n\r\n");
        client_expect(&c, 401);
        assert_int_equal(origin_connections(o), i);
    }
    client_close(&c);
    world_finish(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WORLD_TEST(test_a_user_is_nobody_else),
        WORLD_TEST(test_a_challenge_ends_its_connection),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
