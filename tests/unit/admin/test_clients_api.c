/* Unit tests of admin/clients_api.c: every call with every status, through the handler that the proxy is given. The
 * proxy's side is played here. */
#include "admin/clients_api.h"

#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

/* What became of an exchange. */
struct local_exchange {
    unsigned answers, status;
    char type[64], fields[64], body[20480];
};

static void note(char *to, size_t size, struct str s)
{
    assert_true(s.n < size);
    memcpy(to, s.p, s.n);
    to[s.n] = '\0';
}

void local_answer(struct local_exchange *x, const struct local_answer *a)
{
    x->answers++;
    x->status = a->status;
    note(x->type, sizeof x->type, a->content_type);
    note(x->fields, sizeof x->fields, a->fields);
    note(x->body, sizeof x->body, a->body);
}

void local_answer_err(struct local_exchange *x, enum err e, struct str fields, const char *detail)
{
    x->answers++;
    x->status = (unsigned)err_status(e);
    note(x->fields, sizeof x->fields, fields);
    note(x->body, sizeof x->body, str_of(detail ? detail : err_detail(e)));
}

struct world {
    char folder[32];
    struct loop *loop;
    struct worker *worker;
    struct config *config;
    struct limiter *lim;
    struct clients_api *api;
    const struct local_handler *h;
    struct peer peer;
    const char *authorization, *origin, *site[2];
    unsigned authorizations;
};

static void open_world(struct world *w, const char *admin, bool limited)
{
    char text[512], error[256];
    enum store_outcome outcome;
    struct buf errors = BUF_INIT;
    *w = (struct world){.authorizations = 1};
    strcpy(w->folder, "/tmp/lb-api-XXXXXX");
    assert_non_null(mkdtemp(w->folder));
    snprintf(text, sizeof text,
             "{\"backends\":[{\"address\":\"127.0.0.1:1\"}],\"admin\":%s,"
             "\"rate_limit\":{\"clients_file\":\"%s/clients.json\"}}",
             admin, w->folder);
    w->config = config_parse(str_of(text), "test", NULL, &errors);
    if (!w->config)
        fail_msg("%.*s", STR_ARG(buf_str(&errors)));
    buf_fini(&errors);
    w->loop = loop_new();
    w->worker = worker_new(w->loop, "test");
    if (limited)
        w->lim = limiter_new(w->loop, w->worker, w->config, error, sizeof error, &outcome);
    w->api = clients_api_new(w->loop, w->config, w->lim);
    assert_non_null(w->api);
    w->h = clients_api_handler(w->api);
    assert_true(ip_parse(STR("127.0.0.1"), &w->peer.ip));
}

static void open_plain(struct world *w)
{
    open_world(w, "{}", true);
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *ftw)
{
    (void)st;
    (void)kind;
    (void)ftw;
    return remove(path);
}

static void close_world(struct world *w)
{
    clients_api_free(w->api);
    worker_free(w->worker);
    limiter_free(w->lim);
    loop_free(w->loop);
    config_put(w->config);
    nftw(w->folder, remove_one, 8, FTW_DEPTH);
}

/* Plays the proxy up to the answer, or up to where the change is under way. */
static void begin(struct world *w, enum method method, const char *target, struct str body, struct local_exchange *x,
                  void **state)
{
    struct field fields[5];
    struct request request = {.method = method, .target = str_of(target), .headers = {.v = fields, .max = 5}};
    struct str more = STR("");
    const char *detail = NULL;
    for (unsigned i = 0; w->authorization && i < w->authorizations; i++)
        fields[request.headers.n++] =
            (struct field){STR("Authorization"), str_of(w->authorization), FIELD_AUTHORIZATION};
    request.headers.present = request.headers.n ? 1u << FIELD_AUTHORIZATION : 0;
    if (w->origin)
        fields[request.headers.n++] = (struct field){STR("Origin"), str_of(w->origin), FIELD_OTHER};
    for (unsigned i = 0; i < 2 && w->site[i]; i++)
        fields[request.headers.n++] = (struct field){STR("sec-fetch-site"), str_of(w->site[i]), FIELD_OTHER};
    struct local_request r = {
        .peer = &w->peer, .request = &request, .target = request.target, .body = STR(""), .method = method};
    *x = (struct local_exchange){0};
    assert_true(w->h->is_mine(w->h->arg, &request));
    enum err e = w->h->admit(w->h->arg, &r, &more, &detail);
    if (e != ERR_OK) {
        local_answer_err(x, e, more, detail);
        return;
    }
    r.request = NULL;
    r.body = body;
    w->h->start(w->h->arg, &r, x, state);
}

static struct local_exchange x;

/* A whole exchange; its answer is left in `x`. */
static unsigned call(struct world *w, enum method method, const char *target, const char *body)
{
    void *state = NULL;
    begin(w, method, target, str_of(body), &x, &state);
    while (x.answers == 0)
        loop_turn(w->loop, TIMER_NEVER);
    assert_int_equal(x.answers, 1);
    if (x.status < 300) {
        assert_string_equal(x.type, "application/json");
        assert_ptr_equal(strchr(x.body, '\n'), x.body + strlen(x.body) - 1);
    }
    return x.status;
}

static unsigned do_register(struct world *w, const char *body)
{
    return call(w, METHOD_POST, "/clients/register", body);
}

static unsigned update(struct world *w, const char *body)
{
    return call(w, METHOD_PUT, "/clients/update", body);
}

static unsigned get(struct world *w, const char *target)
{
    return call(w, METHOD_GET, target, "");
}

static void expect_body(const char *text)
{
    assert_string_equal(x.body, text);
}

static void expect_said(const char *text)
{
    if (!strstr(x.body, text))
        fail_msg("\"%s\" does not say \"%s\"", x.body, text);
}

static void whose_is_it(void **state)
{
    (void)state;
    static const struct {
        const char *target;
        bool mine;
    } cases[] = {{"/clients/register", true},    {"/clients/", true}, {"/clients/x", true}, {"/clients/../x", true},
                 {"/clients//list", true},       {"/clients", false}, {"/clientsX", false}, {"//clients/list", false},
                 {"/%63lients/list", false},     {"/", false},        {"*", false},         {"/Clients/list", false},
                 {"/clients?x=/clients/", false}};
    struct world w;
    open_plain(&w);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct request r = {.target = str_of(cases[i].target)};
        assert_int_equal(w.h->is_mine(w.h->arg, &r), cases[i].mine);
    }
    close_world(&w);
}

#define TOTALS ",\"mode\":\"enforce\",\"allowed\":0,\"limited\":0"

static void the_five_calls(void **state)
{
    (void)state;
    struct world w;
    open_plain(&w);
    assert_int_equal(do_register(&w, "{\"client_id\":\"user1\",\"capacity\":10,\"rate_per_sec\":1}"), 201);
    expect_body("{\"client_id\":\"user1\",\"capacity\":10,\"rate_per_sec\":1,\"tokens\":10" TOTALS "}\n");
    assert_int_equal(do_register(&w, "{\"client_id\":\"user1\",\"capacity\":10,\"rate_per_sec\":1}"), 409);
    assert_int_equal(update(&w, "{\"client_id\":\"user1\",\"capacity\":5.5}"), 200);
    expect_body("{\"client_id\":\"user1\",\"capacity\":5.5,\"rate_per_sec\":1,\"tokens\":5.5" TOTALS "}\n");
    assert_int_equal(update(&w, "{\"client_id\":\"user1\",\"rate_per_sec\":0.001,\"capacity\":3}"), 200);
    expect_body("{\"client_id\":\"user1\",\"capacity\":3,\"rate_per_sec\":0.001,\"tokens\":3" TOTALS "}\n");
    assert_int_equal(update(&w, "{\"client_id\":\"user2\",\"capacity\":3}"), 404);
    assert_int_equal(get(&w, "/clients/get?id=user1"), 200);
    expect_body("{\"client_id\":\"user1\",\"capacity\":3,\"rate_per_sec\":0.001,\"tokens\":3" TOTALS "}\n");
    assert_int_equal(get(&w, "/clients/get?id=user2"), 404);
    assert_int_equal(get(&w, "/clients/list"), 200);
    expect_body("{\"clients\":[{\"client_id\":\"user1\",\"capacity\":3,\"rate_per_sec\":0.001,\"tokens\":3" TOTALS "}],"
                "\"total\":1,\"next\":null}\n");
    assert_int_equal(call(&w, METHOD_DELETE, "/clients/delete?id=user1", ""), 200);
    expect_body("{\"client_id\":\"user1\",\"capacity\":3,\"rate_per_sec\":0.001,\"tokens\":3" TOTALS "}\n");
    assert_int_equal(call(&w, METHOD_DELETE, "/clients/delete?id=user1", ""), 404);
    assert_int_equal(get(&w, "/clients/list"), 200);
    expect_body("{\"clients\":[],\"total\":0,\"next\":null}\n");
    close_world(&w);
}

static void modes(void **state)
{
    (void)state;
    struct world w;
    open_plain(&w);
    assert_int_equal(do_register(&w, "{\"client_id\":\"a\",\"capacity\":1,\"rate_per_sec\":1,\"mode\":\"shadow\"}"),
                     201);
    expect_said("\"mode\":\"shadow\"");
    assert_int_equal(update(&w, "{\"client_id\":\"a\",\"mode\":\"off\"}"), 200);
    expect_body("{\"client_id\":\"a\",\"capacity\":1,\"rate_per_sec\":1,\"tokens\":1,\"mode\":\"off\",\"allowed\":0,"
                "\"limited\":0}\n");
    assert_int_equal(update(&w, "{\"client_id\":\"a\",\"mode\":\"none\"}"), 400);
    expect_said("mode is \"none\"; it must be \"enforce\", \"shadow\" or \"off\"");
    assert_int_equal(update(&w, "{\"client_id\":\"a\",\"mode\":null}"), 400);
    close_world(&w);
}

static void asking_first(void **state)
{
    (void)state;
    struct world w;
    open_plain(&w);
    assert_int_equal(do_register(&w, "{\"client_id\":\"a\",\"capacity\":5,\"rate_per_sec\":1}"), 201);
    assert_int_equal(get(&w, "/clients/check?id=a"), 200);
    expect_said("{\"client_id\":\"a\",\"registered\":true,\"verdict\":\"allow\",\"status\":null,"
                "\"reason\":\"within_limit\",\"mode\":\"enforce\",\"capacity\":5,\"rate_per_sec\":1,\"tokens\":5,"
                "\"retry_after\":null,\"full_in\":0,\"full_at\":\"20");
    assert_int_equal(get(&w, "/clients/check?id=127.0.0.1"), 200);
    expect_said("\"registered\":false,\"verdict\":\"allow\"");
    assert_int_equal(get(&w, "/clients/check?id=b"), 404);
    assert_int_equal(get(&w, "/clients/check"), 400);
    assert_int_equal(get(&w, "/clients/check?id=a&id=a"), 400);
    close_world(&w);
}

static void addresses_have_one_spelling(void **state)
{
    (void)state;
    struct world w;
    open_plain(&w);
    assert_int_equal(do_register(&w, "{\"client_id\":\"2001:DB8:0:0::1\",\"capacity\":1,\"rate_per_sec\":1}"), 201);
    expect_said("\"2001:db8::1\"");
    assert_int_equal(do_register(&w, "{\"client_id\":\"2001:db8::0:1\",\"capacity\":1,\"rate_per_sec\":1}"), 409);
    assert_int_equal(get(&w, "/clients/get?id=2001:db8:0::1"), 200);
    assert_int_equal(get(&w, "/clients/get?id=2001%3Adb8%3a%3A1"), 200);
    close_world(&w);
}

/* Deeper than may be. */
#define EIGHT_DEEP "[[[[[[[["
#define NESTED     EIGHT_DEEP EIGHT_DEEP EIGHT_DEEP EIGHT_DEEP "1]"

static void bad_bodies_name_the_field(void **state)
{
    (void)state;
    static const struct {
        const char *body, *said;
    } cases[] = {
        {"", "the text"},
        {"[]", "must be an object"},
        {"{\"client_id\":\"a\",\"capacity\":10}", "rate_per_sec is missing"},
        {"{\"client_id\":\"a\",\"capacity\":0.9,\"rate_per_sec\":1}", "capacity is 0.9"},
        {"{\"client_id\":\"a\",\"capacity\":1e400,\"rate_per_sec\":1}",
         ": capacity: a number is too large (at byte 28)."},
        {"{\"client_id\":\"a\",\"capacity\":1,\"rate_per_sec\":-1e400}",
         ": rate_per_sec: a number is too large (at byte 45)."},
        {"{\"client_id\":\"a\",\"capacity\":NaN,\"rate_per_sec\":1}", ": capacity: found 'N' where a value belongs ("},
        {"{\"client_id\":\"a\",\"capacity\":1,\"rate_per_sec\":0}", "rate_per_sec is 0"},
        {"{\"client_id\":\"a\",\"capacity\":true,\"rate_per_sec\":1}", "capacity is "},
        {"{\"client_id\":\"\",\"capacity\":1,\"rate_per_sec\":1}", "client_id is \"\"; it must be"},
        {"{\"client_id\":\"a\\u0000\",\"capacity\":1,\"rate_per_sec\":1}",
         ": client_id: a string holds \\u0000 (at byte 15)."},
        {"{\"client_id\":\"a\\ud800\",\"capacity\":1,\"rate_per_sec\":1}", ": client_id: a \\u escape is half of a"},
        {"{\"client_id\":\"\xff\",\"capacity\":1,\"rate_per_sec\":1}", ": client_id: a string holds invalid UTF-8"},
        {"{\"client_id\":\"a\",\"capacity\":" NESTED ",\"rate_per_sec\":1}", ": capacity[0][0][0]"},
        {"{\"client_id\":\"a\",\"capacity\":" NESTED ",\"rate_per_sec\":1}", "[0]: values are nested deeper than 32"},
        {"{\"client_id\":\"a\",\"capacity\":1,\"capacity\":1,\"rate_per_sec\":1}", "\"capacity\""},
        {"{\"client_id\":\"a\",\"capacity\":1,\"rate_per_sec\":1,\"tokens\":5}", "\"tokens\""},
        {"{\"client_id\":\"a\",\"capacity\":1,\"rate_per_sec\":1} x",
         ": found 'x' where the end of the text belongs (at byte 48)."},
    };
    struct world w;
    open_plain(&w);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        if (do_register(&w, cases[i].body) != 400)
            fail_msg("taken: %s", cases[i].body);
        expect_said(cases[i].said);
    }
    assert_int_equal(update(&w, "{\"client_id\":\"a\"}"), 400);
    expect_said("capacity, rate_per_sec or mode");
    assert_int_equal(update(&w, "{\"capacity\":1}"), 400);
    expect_said("client_id is missing");
    close_world(&w);
}

static void ids_in_queries(void **state)
{
    (void)state;
    struct world w;
    char long_id[160] = "/clients/get?id=";
    open_plain(&w);
    assert_int_equal(do_register(&w, "{\"client_id\":\"a+b&c=%\",\"capacity\":1,\"rate_per_sec\":1}"), 201);
    assert_int_equal(get(&w, "/clients/get?id=a+b%26c=%25"), 200);
    assert_int_equal(get(&w, "/clients/get?x=%zz&%69d=a%2Bb%26c%3d%25&y"), 200);
    static const char *const bad[] = {"/clients/get",          "/clients/get?",          "/clients/get?id",
                                      "/clients/get?id=",      "/clients/get?id=a&id=a", "/clients/get?id=%",
                                      "/clients/get?id=%4",    "/clients/get?id=%zz",    "/clients/get?id=%00",
                                      "/clients/get?id=a%20b", "/clients/get?id=%c3%a9", "/clients/get?ID=a"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        if (get(&w, bad[i]) != 400)
            fail_msg("taken: %s", bad[i]);
        expect_said("id");
        bool is_encoded_badly = strcmp(bad[i] + 12, "?id=%") == 0 || strcmp(bad[i] + 12, "?id=%4") == 0 ||
                                strcmp(bad[i] + 12, "?id=%zz") == 0;
        assert_int_equal(!!strstr(x.body, "The parameter id has a malformed percent-encoding."), is_encoded_badly);
    }
    assert_int_equal(call(&w, METHOD_DELETE, "/clients/delete", ""), 400);
    memset(long_id + 16, 'x', 129);
    assert_int_equal(get(&w, long_id), 400);
    long_id[16 + 128] = '\0';
    assert_int_equal(get(&w, long_id), 404);
    close_world(&w);
}

static void pages(void **state)
{
    (void)state;
    struct world w;
    open_plain(&w);
    for (int i = 0; i < 5; i++) {
        char body[80];
        snprintf(body, sizeof body, "{\"client_id\":\"c%d\",\"capacity\":1,\"rate_per_sec\":1}", i);
        assert_int_equal(do_register(&w, body), 201);
    }
    assert_int_equal(get(&w, "/clients/list?limit=2"), 200);
    expect_said("\"c0\"");
    expect_said("],\"total\":5,\"next\":\"c1\"}");
    assert_int_equal(get(&w, "/clients/list?limit=3&after=c1"), 200);
    expect_said("[{\"client_id\":\"c2\"");
    expect_said("\"total\":5,\"next\":null}");
    assert_int_equal(get(&w, "/clients/list?after=c4"), 200);
    expect_body("{\"clients\":[],\"total\":5,\"next\":null}\n");
    assert_int_equal(get(&w, "/clients/list?limit=1000&after=never"), 200);
    expect_said("[{\"client_id\":\"c0\"");
    static const char *const bad[] = {"limit=0",         "limit=1001",      "limit=",   "limit=x",
                                      "limit=-1",        "limit",           "after=",   "after",
                                      "limit=1&limit=1", "after=a&after=a", "after=%20"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        char target[64];
        snprintf(target, sizeof target, "/clients/list?%s", bad[i]);
        assert_int_equal(get(&w, target), 400);
    }
    close_world(&w);
}

/* ---- walks while clients come and go ---- */

/* c0 to c9, in that order. */
static void register_ten(struct world *w)
{
    for (int i = 0; i < 10; i++) {
        char body[80];
        snprintf(body, sizeof body, "{\"client_id\":\"c%d\",\"capacity\":1,\"rate_per_sec\":1}", i);
        assert_int_equal(do_register(w, body), 201);
    }
}

static void come_back(struct world *w, const char *id)
{
    char text[80];
    snprintf(text, sizeof text, "/clients/delete?id=%s", id);
    assert_int_equal(call(w, METHOD_DELETE, text, ""), 200);
    snprintf(text, sizeof text, "{\"client_id\":\"%s\",\"capacity\":1,\"rate_per_sec\":1}", id);
    assert_int_equal(do_register(w, text), 201);
}

/* The ids on the last page that was answered, a blank behind each, then what it says of the next one. */
static void expect_page(const char *ids, const char *end)
{
    char found[256] = "";
    for (const char *at = x.body; (at = strstr(at, "\"client_id\":\"")); at++)
        sscanf(at + 13, "%15[^\"]", found + strlen(found)), strcat(found, " ");
    assert_string_equal(found, ids);
    expect_said(end);
}

/* An id that went and came back, and went again, still stands for where the walk got it. */
static void cursor_that_goes_twice(void **state)
{
    (void)state;
    struct world w;
    open_plain(&w);
    register_ten(&w);
    assert_int_equal(get(&w, "/clients/list?limit=4"), 200);
    expect_page("c0 c1 c2 c3 ", "\"next\":\"c3\"}");
    come_back(&w, "c3");
    assert_int_equal(call(&w, METHOD_DELETE, "/clients/delete?id=c3", ""), 200);
    assert_int_equal(get(&w, "/clients/list?after=c3"), 200);
    expect_page("c4 c5 c6 c7 c8 c9 ", "\"next\":null}");
    close_world(&w);
}

/* Two walks at once: the id that one has got is not given to the other for another place. */
static void two_walks(void **state)
{
    (void)state;
    struct world w;
    open_plain(&w);
    register_ten(&w);
    assert_int_equal(get(&w, "/clients/list?limit=4"), 200);
    expect_page("c0 c1 c2 c3 ", "\"next\":\"c3\"}");
    come_back(&w, "c3");
    assert_int_equal(do_register(&w, "{\"client_id\":\"d\",\"capacity\":1,\"rate_per_sec\":1}"), 201);
    assert_int_equal(get(&w, "/clients/list?limit=10"), 200);
    expect_page("c0 c1 c2 c4 c5 c6 c7 c8 c9 ", "\"next\":\"c9\"}");
    assert_int_equal(get(&w, "/clients/list?after=c3"), 200);
    expect_page("c4 c5 c6 c7 c8 c9 c3 d ", "\"next\":null}");
    assert_int_equal(get(&w, "/clients/list?after=c9"), 200);
    expect_page("c3 d ", "\"next\":null}");
    close_world(&w);
}

/* A page of clients that have all come back has no other id to end with: walks go on all the same. */
static void walk_over_those_who_came_back(void **state)
{
    (void)state;
    struct world w;
    open_plain(&w);
    register_ten(&w);
    for (int i = 0; i < 10; i++)
        come_back(&w, (char[]){'c', (char)('0' + i), '\0'});
    assert_int_equal(get(&w, "/clients/list?limit=1"), 200);
    expect_page("c0 ", "\"next\":\"c0\"}");
    assert_int_equal(get(&w, "/clients/list?limit=3&after=c0"), 200);
    expect_page("c1 c2 c3 ", "\"next\":\"c3\"}");
    assert_int_equal(get(&w, "/clients/list?after=c3"), 200);
    expect_page("c4 c5 c6 c7 c8 c9 ", "\"next\":null}");
    close_world(&w);
}

/* ---- places ---- */

static void expect_link(const char *target)
{
    char link[64];
    snprintf(link, sizeof link, "Link: <%s>; rel=\"next\"\r\n", target);
    assert_string_equal(x.fields, link);
}

/* The link goes on from a place, whatever its client's id stands for. */
static void links_go_on_from_a_place(void **state)
{
    (void)state;
    struct world w;
    char target[64] = "/clients/list?limit=1";
    open_plain(&w);
    register_ten(&w);
    assert_int_equal(get(&w, "/clients/list?limit=4"), 200);
    expect_link("/clients/list?limit=4&place=4");
    for (int i = 0; i < 10; i++)
        come_back(&w, (char[]){'c', (char)('0' + i), '\0'});
    for (int i = 0; i < 10; i++) {
        char id[16];
        snprintf(id, sizeof id, "c%d ", i);
        assert_int_equal(get(&w, target), 200);
        expect_page(id, "\"total\":10,");
        if (i == 9)
            break;
        snprintf(target, sizeof target, "/clients/list?limit=1&place=%d", 11 + i);
        expect_link(target);
    }
    assert_string_equal(x.fields, "");
    assert_int_equal(get(&w, "/clients/list?limit=2&place=4"), 200);
    expect_page("c0 c1 ", "\"total\":10,");
    assert_int_equal(get(&w, "/clients/list?place=0"), 200);
    expect_page("c0 c1 c2 c3 c4 c5 c6 c7 c8 c9 ", "\"next\":null}");
    assert_int_equal(get(&w, "/clients/list?place=18446744073709551615"), 200);
    expect_page("", "\"next\":null}");
    close_world(&w);
}

static void bad_places(void **state)
{
    (void)state;
    static const char *const bad[] = {"place=",          "place",
                                      "place=x",         "place=-1",
                                      "place=1.5",       "place=18446744073709551616",
                                      "place=1&place=1", "place=1&after=c1",
                                      "after=c1&place=1"};
    struct world w;
    open_plain(&w);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        char target[64];
        snprintf(target, sizeof target, "/clients/list?%s", bad[i]);
        assert_int_equal(get(&w, target), 400);
        expect_said("The parameter place ");
    }
    close_world(&w);
}

/* ---- pages in slices ---- */

#define MANY 130u

/* All at once, so that they share their syncs. */
static void register_many(struct world *w)
{
    static struct local_exchange all[MANY];
    static void *states[MANY];
    char bodies[MANY][80];
    for (unsigned i = 0; i < MANY; i++) {
        snprintf(bodies[i], sizeof bodies[i], "{\"client_id\":\"c%u\",\"capacity\":1,\"rate_per_sec\":1}", i);
        begin(w, METHOD_POST, "/clients/register", str_of(bodies[i]), &all[i], &states[i]);
    }
    for (unsigned i = 0; i < MANY; i++) {
        while (all[i].answers == 0)
            loop_turn(w->loop, TIMER_NEVER);
        assert_int_equal(all[i].status, 201);
    }
}

static unsigned times_listed(const char *body, const char *id)
{
    char wanted[32];
    unsigned n = 0;
    snprintf(wanted, sizeof wanted, "{\"client_id\":\"%s\",", id);
    for (const char *at = body; (at = strstr(at, wanted)); at++)
        n++;
    return n;
}

/* A large page is not built at once. Who comes and goes meanwhile is in it or not; who stays is, once. */
static void large_pages_come_in_slices(void **state)
{
    (void)state;
    static struct local_exchange page;
    struct world w;
    void *listing = NULL;
    unsigned turns = 0;
    open_plain(&w);
    register_many(&w);
    begin(&w, METHOD_GET, "/clients/list?limit=1000", STR(""), &page, &listing);
    assert_int_equal(page.answers, 0);
    assert_non_null(listing);
    /* the 64th is the last of the first slice */
    assert_int_equal(call(&w, METHOD_DELETE, "/clients/delete?id=c63", ""), 200);
    assert_int_equal(do_register(&w, "{\"client_id\":\"c63\",\"capacity\":2,\"rate_per_sec\":1}"), 201);
    for (; page.answers == 0; turns++)
        loop_turn(w.loop, 0);
    assert_true(turns <= MANY);
    assert_int_equal(page.answers, 1);
    assert_int_equal(page.status, 200);
    for (unsigned i = 0; i < MANY; i++) {
        char id[16];
        snprintf(id, sizeof id, "c%u", i);
        unsigned times = times_listed(page.body, id);
        if (times != 1 && i != 63)
            fail_msg("%s is listed %u times", id, times);
    }
    assert_non_null(strstr(page.body, "],\"total\":130,\"next\":null}\n"));
    close_world(&w);
}

static void pages_of_those_who_leave(void **state)
{
    (void)state;
    static struct local_exchange page;
    struct world w;
    void *listing = NULL;
    open_plain(&w);
    register_many(&w);
    begin(&w, METHOD_GET, "/clients/list?limit=1000", STR(""), &page, &listing);
    assert_non_null(listing);
    w.h->cancel(w.h->arg, listing);
    for (unsigned i = 0; i < 10; i++)
        loop_turn(w.loop, 0);
    assert_int_equal(page.answers, 0);
    close_world(&w);
}

/* Places in one limiter mean nothing in the next one. */
static void closed(void *arg, bool ok)
{
    assert_true(ok);
    *(bool *)arg = true;
}

/* As an upgrade does that fails later. */
static void let_go(struct world *w)
{
    bool ended = false;
    limiter_close(w->lim, closed, &ended);
    while (!ended)
        loop_turn(w->loop, TIMER_NEVER);
}

static void load_anew(struct world *w)
{
    char error[256];
    enum store_outcome outcome;
    limiter_free(w->lim);
    w->lim = limiter_new(w->loop, w->worker, w->config, error, sizeof error, &outcome);
    assert_non_null(w->lim);
    clients_api_set_limiter(w->api, w->lim);
}

/* It goes on where it was. */
static void pages_of_another_limiter(void **state)
{
    (void)state;
    static struct local_exchange page;
    struct world w;
    void *listing = NULL;
    open_plain(&w);
    register_many(&w);
    let_go(&w);
    begin(&w, METHOD_GET, "/clients/list?limit=1000", STR(""), &page, &listing);
    load_anew(&w);
    assert_int_equal(page.answers, 0);
    while (page.answers == 0)
        loop_turn(w.loop, 0);
    assert_int_equal(page.status, 200);
    for (unsigned i = 0; i < MANY; i++) {
        char id[16];
        snprintf(id, sizeof id, "c%u", i);
        assert_int_equal(times_listed(page.body, id), 1);
    }
    close_world(&w);
}

static void other_calls_and_methods(void **state)
{
    (void)state;
    static const struct {
        const char *target;
        enum method method;
        const char *allow;
    } cases[] = {{"/clients/register", METHOD_GET, "Allow: POST\r\n"},
                 {"/clients/update?x=1", METHOD_POST, "Allow: PUT\r\n"},
                 {"/clients/delete?id=a", METHOD_GET, "Allow: DELETE\r\n"},
                 {"/clients/get?id=a", METHOD_HEAD, "Allow: GET\r\n"},
                 {"/clients/list", METHOD_OTHER, "Allow: GET\r\n"},
                 {"/clients/check?id=a", METHOD_POST, "Allow: GET\r\n"}};
    struct world w;
    open_plain(&w);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_int_equal(call(&w, cases[i].method, cases[i].target, ""), 405);
        assert_string_equal(x.fields, cases[i].allow);
    }
    assert_int_equal(get(&w, "/clients/"), 404);
    assert_int_equal(get(&w, "/clients/list/"), 404);
    assert_int_equal(get(&w, "/clients//list"), 404);
    assert_int_equal(get(&w, "/clients/../x"), 404);
    close_world(&w);
}

static void only_admins_may_call(void **state)
{
    (void)state;
    struct world w;
    open_world(&w, "{\"allow\":[\"127.0.0.1\"],\"token\":\"s3cret\"}", true);
    static const char *const wrong[] = {"Bearer",       "Bearer ", "Bearer s3cre", "Bearer s3crett",
                                        "Basic s3cret", "s3cret",  "Bearers3cret", ""};
    assert_int_equal(get(&w, "/clients/list"), 401);
    assert_string_equal(x.fields, "WWW-Authenticate: Bearer realm=\"clients\"\r\n");
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        w.authorization = wrong[i];
        assert_int_equal(get(&w, "/clients/list"), 401);
    }
    w.authorization = "Bearer s3cret";
    assert_int_equal(get(&w, "/clients/list"), 200);
    w.authorization = "bearer  s3cret";
    assert_int_equal(get(&w, "/clients/list"), 200);
    w.authorizations = 2;
    assert_int_equal(get(&w, "/clients/list"), 401);
    w.authorizations = 1;
    assert_true(ip_parse(STR("127.0.0.2"), &w.peer.ip));
    assert_int_equal(get(&w, "/clients/list"), 403);
    expect_said("127.0.0.2 is not in admin.allow");
    assert_int_equal(get(&w, "/clients/none"), 403);
    w.peer = (struct peer){.is_unix = true};
    assert_int_equal(get(&w, "/clients/list"), 403);
    expect_said("unix is not in admin.allow");
    close_world(&w);
    open_world(&w, "{\"allow\":[\"unix\"]}", true);
    assert_int_equal(get(&w, "/clients/list"), 403);
    w.peer = (struct peer){.is_unix = true};
    assert_int_equal(get(&w, "/clients/list"), 200);
    close_world(&w);
}

/* A page that is open in a browser on an allowed machine asks from its address. */
static void web_pages_need_a_token(void **state)
{
    (void)state;
    struct world w;
    open_world(&w, "{\"allow\":[\"127.0.0.1\"]}", true);
    w.origin = "http://evil.example";
    assert_int_equal(do_register(&w, "{\"client_id\":\"a\",\"capacity\":3,\"rate_per_sec\":1}"), 403);
    assert_non_null(strstr(x.body, "admin.token"));
    w.origin = NULL;
    assert_int_equal(get(&w, "/clients/get?id=a"), 404);
    assert_int_equal(do_register(&w, "{\"client_id\":\"a\",\"capacity\":3,\"rate_per_sec\":1}"), 201);
    close_world(&w);
    open_world(&w, "{\"allow\":[\"127.0.0.1\"],\"token\":\"s3cret\"}", true);
    w.origin = "http://tools.example";
    assert_int_equal(get(&w, "/clients/list"), 401);
    w.authorization = "Bearer s3cret";
    assert_int_equal(get(&w, "/clients/list"), 200);
    close_world(&w);
}

/* Every call asks who sent it, whatever its method: what only reads as well as what changes. */
static void no_call_is_open_to_pages(void **state)
{
    (void)state;
    static const struct {
        enum method method;
        const char *target, *body;
    } calls[] = {
        {METHOD_POST, "/clients/register", "{\"client_id\":\"b\",\"capacity\":3,\"rate_per_sec\":1}"},
        {METHOD_PUT, "/clients/update", "{\"client_id\":\"a\",\"capacity\":9}"},
        {METHOD_DELETE, "/clients/delete?id=a", ""},
        {METHOD_GET, "/clients/get?id=a", ""},
        {METHOD_GET, "/clients/list", ""},
        {METHOD_GET, "/clients/check?id=a", ""},
    };
    struct world w;
    open_plain(&w);
    assert_int_equal(do_register(&w, "{\"client_id\":\"a\",\"capacity\":3,\"rate_per_sec\":1}"), 201);
    for (size_t i = 0; i < sizeof calls / sizeof calls[0]; i++) {
        for (int site = 0; site < 2; site++) {
            w.origin = site ? NULL : "http://evil.example";
            w.site[0] = site ? "cross-site" : NULL;
            if (call(&w, calls[i].method, calls[i].target, calls[i].body) != 403)
                fail_msg("%s with %s: %u", calls[i].target, site ? "Sec-Fetch-Site" : "Origin", x.status);
            expect_said("admin.token");
        }
    }
    w.site[0] = NULL;
    assert_int_equal(get(&w, "/clients/list"), 200);
    expect_body("{\"clients\":[{\"client_id\":\"a\",\"capacity\":3,\"rate_per_sec\":1,\"tokens\":3" TOTALS "}],"
                "\"total\":1,\"next\":null}\n");
    close_world(&w);
}

/* Of a GET they may say no more than that a page asks, or that none does. */
static void pages_that_only_read_need_a_token(void **state)
{
    (void)state;
    static const struct {
        const char *site[2];
        unsigned status;
    } cases[] = {
        {{NULL}, 200},   {{"none"}, 200}, {{"same-origin"}, 403},  {{"same-site"}, 403},    {{"cross-site"}, 403},
        {{"None"}, 403}, {{""}, 403},     {{"none", "none"}, 403}, {{"none", "same"}, 403}, {{"x", "none"}, 403}};
    struct world w;
    open_world(&w, "{\"allow\":[\"127.0.0.1\"]}", true);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        memcpy(w.site, cases[i].site, sizeof w.site);
        assert_int_equal(get(&w, "/clients/list"), cases[i].status);
        if (cases[i].status == 403)
            expect_said("admin.token");
    }
    close_world(&w);
    open_world(&w, "{\"allow\":[\"127.0.0.1\"],\"token\":\"s3cret\"}", true);
    w.authorization = "Bearer s3cret";
    w.site[0] = "same-origin";
    assert_int_equal(get(&w, "/clients/list"), 200);
    close_world(&w);
}

static void without_a_limiter_there_is_nothing(void **state)
{
    (void)state;
    struct world w;
    open_world(&w, "{}", false);
    assert_int_equal(get(&w, "/clients/list"), 404);
    assert_int_equal(do_register(&w, "{}"), 404);
    close_world(&w);
}

/* The client hangs up before its change is on disk: nobody is answered, the change is made. */
static void cancelled_exchanges_are_left_alone(void **state)
{
    (void)state;
    struct world w;
    struct local_exchange gone;
    void *call_state = NULL;
    open_plain(&w);
    begin(&w, METHOD_POST, "/clients/register", STR("{\"client_id\":\"a\",\"capacity\":1,\"rate_per_sec\":1}"), &gone,
          &call_state);
    assert_non_null(call_state);
    w.h->cancel(w.h->arg, call_state);
    while (get(&w, "/clients/get?id=a") != 200)
        loop_turn(w.loop, TIMER_NEVER);
    assert_int_equal(gone.answers, 0);
    close_world(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whose_is_it),
        cmocka_unit_test(the_five_calls),
        cmocka_unit_test(modes),
        cmocka_unit_test(asking_first),
        cmocka_unit_test(addresses_have_one_spelling),
        cmocka_unit_test(bad_bodies_name_the_field),
        cmocka_unit_test(ids_in_queries),
        cmocka_unit_test(pages),
        cmocka_unit_test(cursor_that_goes_twice),
        cmocka_unit_test(two_walks),
        cmocka_unit_test(walk_over_those_who_came_back),
        cmocka_unit_test(links_go_on_from_a_place),
        cmocka_unit_test(bad_places),
        cmocka_unit_test(large_pages_come_in_slices),
        cmocka_unit_test(pages_of_those_who_leave),
        cmocka_unit_test(pages_of_another_limiter),
        cmocka_unit_test(other_calls_and_methods),
        cmocka_unit_test(only_admins_may_call),
        cmocka_unit_test(web_pages_need_a_token),
        cmocka_unit_test(no_call_is_open_to_pages),
        cmocka_unit_test(pages_that_only_read_need_a_token),
        cmocka_unit_test(without_a_limiter_there_is_nothing),
        cmocka_unit_test(cancelled_exchanges_are_left_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
