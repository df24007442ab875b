/* Fuzzing of the client API: a request "METHOD target\n" and its content, given to the handler as the proxy does. Each
 * is answered exactly once, with a status of the contract and JSON that is valid. The answers' side is played here. */
#include "admin/clients_api.h"
#include "base/json.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition))                                                                                              \
            abort();                                                                                                   \
    } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct local_exchange {
    unsigned answers;
};

static void check_status(unsigned status)
{
    static const unsigned known[] = {200, 201, 400, 404, 405, 409};
    bool found = false;
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        found |= known[i] == status;
    CHECK(found);
}

void local_answer(struct local_exchange *x, const struct local_answer *a)
{
    struct json_error e;
    struct json_doc *d = json_parse(a->body, false, &e);
    check_status(a->status);
    CHECK(d && json_type(json_root(d)) == JSON_OBJECT);
    json_free(d);
    x->answers++;
}

void local_answer_err(struct local_exchange *x, enum err e, struct str fields, const char *detail)
{
    check_status((unsigned)err_status(e));
    CHECK((fields.n > 0) == (e == ERR_METHOD_NOT_ALLOWED));
    for (const unsigned char *p = (const unsigned char *)detail; p && *p; p++)
        CHECK(*p >= 0x20 && *p != 0x7f);
    x->answers++;
}

static struct loop *loop;
static struct limiter *limiter;
static struct worker *worker;
static struct config *config;
static struct clients_api *api;

/* In memory where there is a file system for that: every change is synced. */
static void make_folder(char folder[64])
{
    snprintf(folder, 64, "%s/lb-fuzz-XXXXXX", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    CHECK(mkdtemp(folder));
}

static void tear_down(void)
{
    static const char *const suffixes[] = {"", ".journal", ".lock", ".tmp"};
    char path[256];
    snprintf(path, sizeof path, "%s", config->rate_limit.clients_file);
    clients_api_free(api);
    worker_free(worker);
    limiter_free(limiter);
    loop_free(loop);
    config_put(config);
    for (size_t i = 0; i < sizeof suffixes / sizeof suffixes[0]; i++) {
        char file[300];
        snprintf(file, sizeof file, "%s%s", path, suffixes[i]);
        remove(file);
    }
    *strrchr(path, '/') = '\0';
    remove(path);
}

static void set_up(void)
{
    char folder[64], text[256], error[256];
    enum store_outcome outcome;
    struct buf errors = BUF_INIT;
    make_folder(folder);
    snprintf(text, sizeof text,
             "{\"backends\":[{\"address\":\"127.0.0.1:1\"}],\"rate_limit\":{\"clients_file\":\"%s/clients.json\"}}",
             folder);
    log_configure(LOG_ERROR, LOG_TEXT);
    config = config_parse(str_of(text), "fuzz", NULL, &errors);
    loop = loop_new();
    CHECK(config && loop);
    worker = worker_new(loop, "fuzz");
    CHECK(worker);
    limiter = limiter_new(loop, worker, config, error, sizeof error, &outcome);
    CHECK(limiter);
    api = clients_api_new(loop, config, limiter);
    CHECK(api);
    buf_fini(&errors);
    atexit(tear_down);
}

static enum method method_of(struct str text)
{
    static const struct {
        struct str name;
        enum method method;
    } methods[] = {
        {{"GET", 3}, METHOD_GET}, {{"POST", 4}, METHOD_POST}, {{"PUT", 3}, METHOD_PUT}, {{"DELETE", 6}, METHOD_DELETE}};
    for (size_t i = 0; i < sizeof methods / sizeof methods[0]; i++)
        if (str_eq(methods[i].name, text))
            return methods[i].method;
    return METHOD_OTHER;
}

static void exchange(struct request *request, struct str body)
{
    const struct local_handler *h = clients_api_handler(api);
    struct peer peer = {0};
    struct local_exchange x = {0};
    struct str fields = STR("");
    const char *detail = NULL;
    void *state = NULL;
    CHECK(ip_parse(STR("127.0.0.1"), &peer.ip));
    struct local_request r = {.peer = &peer, .request = request, .target = request->target, .method = request->method};
    enum err e = h->admit(h->arg, &r, &fields, &detail);
    if (e != ERR_OK) {
        local_answer_err(&x, e, fields, detail);
        return;
    }
    r.request = NULL;
    r.body = body;
    h->start(h->arg, &r, &x, &state);
    while (x.answers == 0)
        loop_turn(loop, TIMER_NEVER);
    CHECK(x.answers == 1);
}

/* Takes the first line's method and target off `text`. */
static struct request read_request(struct str *text)
{
    size_t end = str_find(*text, '\n');
    struct str line = str_make(text->p, end);
    *text = end < text->n ? str_make(text->p + end + 1, text->n - end - 1) : STR("");
    size_t space = str_find(line, ' ');
    return (struct request){
        .method = method_of(str_make(line.p, space)),
        .target = space < line.n ? str_make(line.p + space + 1, line.n - space - 1) : STR(""),
    };
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!api)
        set_up();
    struct str text = str_make((const char *)data, size);
    struct request request = read_request(&text);
    const struct local_handler *h = clients_api_handler(api);
    if (h->is_mine(h->arg, &request))
        exchange(&request, text);
    return 0;
}
