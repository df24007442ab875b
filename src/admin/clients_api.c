/* The client API: six calls under /clients/. Who may call and what is called is decided from the head alone; what is
 * asked, once the whole content is there. Changes are answered when they are on disk. */
#include "admin/clients_api.h"

#include "base/list.h"
#include "base/mem.h"
#include "clients_asked.h"
#include "clients_page.h"
#include "limit/check.h"

#include <inttypes.h>
#include <stdio.h>

#define PREFIX STR("/clients/")

/* Why the last one was refused that was, with its address. */
#define REFUSAL_MAX 160u

struct clients_api {
    struct loop *loop;
    struct config *config;
    struct limiter *lim; /* NULL: limiting is off */
    struct local_handler handler;
    char refusal[REFUSAL_MAX];
};

/* What is not answered at once; the state of its exchange. */
struct pending {
    void (*cancel)(struct clients_api *api, struct pending *p);
};

/* A change that waits for the disk. */
struct call {
    struct pending pending;
    struct client_change change;
    struct local_exchange *x;
    unsigned status; /* of success */
    struct buf body; /* with room for the answer: a change that has come about is not to be answered with a failure */
};

/* A page that is being built. */
struct listing {
    struct pending pending;
    struct posted next;
    struct page page;
    uint64_t limit;
    struct clients_api *api;
    struct local_exchange *x;
};

/* A client as JSON with its id escaped throughout, and the line's end. */
#define CLIENT_JSON_MAX 1024u

/* ---- answers ---- */

static void refuse(struct local_exchange *x, enum err e, const char *detail)
{
    local_answer_err(x, e, STR(""), detail);
}

static void answer_json_with(struct local_exchange *x, unsigned status, struct str fields, struct str body)
{
    struct local_answer a = {
        .status = status, .content_type = STR("application/json"), .fields = fields, .body = body, .reason = ""};
    local_answer(x, &a);
}

static void answer_json(struct local_exchange *x, unsigned status, struct str body)
{
    answer_json_with(x, status, STR(""), body);
}

/* Builds the answer in `body`, which it empties. */
static void answer_client(struct local_exchange *x, unsigned status, const struct client_view *v, struct buf *body)
{
    if (client_view_json(body, v) && buf_append_str(body, STR("\n")))
        answer_json(x, status, buf_str(body));
    else
        refuse(x, ERR_INTERNAL, NULL);
    buf_fini(body);
}

/* ---- changes ---- */

static void call_free(struct call *call)
{
    buf_fini(&call->body);
    mem_free(call);
}

static void on_changed(struct client_change *change, enum err e)
{
    struct call *call = container_of(change, struct call, change);
    struct local_exchange *x = call->x;
    if (e == ERR_OK)
        answer_client(x, call->status, &change->view, &call->body);
    else
        refuse(x, e, NULL);
    call_free(call);
}

static void cancel_call(struct clients_api *api, struct pending *p)
{
    struct call *call = container_of(p, struct call, pending);
    clients_cancel(api->lim, &call->change);
    call_free(call);
}

static struct call *call_new(const struct asked *a, unsigned status)
{
    struct call *call = mem_try_alloc(sizeof *call);
    if (!call || !buf_reserve(&call->body, CLIENT_JSON_MAX)) {
        mem_free(call);
        refuse(a->x, ERR_INTERNAL, NULL);
        return NULL;
    }
    call->pending.cancel = cancel_call;
    call->change.done = on_changed;
    call->x = a->x;
    call->status = status;
    return call;
}

/* The change has been begun, or not. */
static void call_begun(const struct asked *a, struct call *call, enum err e)
{
    if (e == ERR_OK) {
        *a->state = &call->pending;
        return;
    }
    call_free(call);
    refuse(a->x, e, NULL);
}

static void on_register(const struct asked *a)
{
    struct client_fields f;
    if (!asked_need_client(a, CLIENT_ID | CLIENT_CAPACITY | CLIENT_RATE, CLIENT_MODE, &f))
        return;
    struct call *call = call_new(a, 201);
    if (call)
        call_begun(a, call, clients_register(a->api->lim, &f, &call->change));
}

static void on_update(const struct asked *a)
{
    struct client_fields f;
    if (!asked_need_client(a, CLIENT_ID, CLIENT_CAPACITY | CLIENT_RATE | CLIENT_MODE, &f))
        return;
    if (f.given == CLIENT_ID) {
        asked_refuse_content(a, "it must give capacity, rate_per_sec or mode");
        return;
    }
    struct call *call = call_new(a, 200);
    if (call)
        call_begun(a, call, clients_update(a->api->lim, &f, &call->change));
}

static void on_delete(const struct asked *a)
{
    char id[CLIENT_ID_MAX + 1];
    if (!asked_need_id(a, id))
        return;
    struct call *call = call_new(a, 200);
    if (call)
        call_begun(a, call, clients_delete(a->api->lim, id, &call->change));
}

/* ---- questions ---- */

static void on_get(const struct asked *a)
{
    char id[CLIENT_ID_MAX + 1];
    struct client_view v;
    if (!asked_need_id(a, id))
        return;
    struct buf body = BUF_INIT;
    enum err e = clients_get(a->api->lim, id, &v);
    if (e == ERR_OK)
        answer_client(a->x, 200, &v, &body);
    else
        refuse(a->x, e, NULL);
}

static void on_check(const struct asked *a)
{
    char id[CLIENT_ID_MAX + 1];
    struct client_check check;
    if (!asked_need_id(a, id))
        return;
    enum err e = clients_check(a->api->lim, id, &check);
    if (e != ERR_OK) {
        refuse(a->x, e, NULL);
        return;
    }
    struct buf body = BUF_INIT;
    if (client_check_json(&body, &check) && buf_append_str(&body, STR("\n")))
        answer_json(a->x, 200, buf_str(&body));
    else
        refuse(a->x, ERR_INTERNAL, NULL);
    buf_fini(&body);
}

/* ---- the list ---- */

static void listing_free(struct listing *l)
{
    page_fini(&l->page);
    mem_free(l);
}

static void cancel_listing(struct clients_api *api, struct pending *p)
{
    struct listing *l = container_of(p, struct listing, pending);
    loop_unpost(api->loop, &l->next);
    listing_free(l);
}

/* What follows a page is told by its place (RFC 8288): an id may come to be another client's, or be forgotten. */
static void answer_page(const struct listing *l)
{
    char link[96] = "";
    if (l->page.more)
        snprintf(link, sizeof link, "Link: </clients/list?limit=%" PRIu64 "&place=%" PRIu64 ">; rel=\"next\"\r\n",
                 l->limit, l->page.place);
    answer_json_with(l->x, 200, str_of(link), buf_str(&l->page.body));
}

/* True when it has been answered. Where the clients have been loaded anew meanwhile, places are what they were. */
static bool listing_step(struct listing *l)
{
    if (!page_step(&l->page, l->api->lim))
        return false;
    if (l->page.failed)
        refuse(l->x, ERR_INTERNAL, NULL);
    else
        answer_page(l);
    listing_free(l);
    return true;
}

static void on_next_slice(struct posted *p)
{
    struct listing *l = container_of(p, struct listing, next);
    struct clients_api *api = l->api;
    if (!listing_step(l))
        loop_post(api->loop, &l->next);
}

static void on_list(const struct asked *a)
{
    char after[CLIENT_ID_MAX + 1];
    uint64_t limit, place;
    if (!asked_limit(a, &limit) || !asked_start(a, after, &place))
        return;
    struct listing *l = mem_try_alloc(sizeof *l);
    if (!l) {
        refuse(a->x, ERR_INTERNAL, NULL);
        return;
    }
    *l = (struct listing){.pending = {cancel_listing}, .limit = limit, .api = a->api, .x = a->x};
    posted_init(&l->next, on_next_slice);
    page_init(&l->page, after[0] ? clients_place(a->api->lim, after) : place, (size_t)limit);
    if (listing_step(l))
        return;
    *a->state = &l->pending;
    loop_post(a->api->loop, &l->next);
}

/* ---- the calls ---- */

static const struct call_type {
    struct str path;
    enum method method;
    struct str allow;
    void (*run)(const struct asked *a);
} call_types[] = {
    {{"/clients/register", 17}, METHOD_POST, {"Allow: POST\r\n", 13}, on_register},
    {{"/clients/update", 15}, METHOD_PUT, {"Allow: PUT\r\n", 12}, on_update},
    {{"/clients/delete", 15}, METHOD_DELETE, {"Allow: DELETE\r\n", 15}, on_delete},
    {{"/clients/get", 12}, METHOD_GET, {"Allow: GET\r\n", 12}, on_get},
    {{"/clients/list", 13}, METHOD_GET, {"Allow: GET\r\n", 12}, on_list},
    {{"/clients/check", 14}, METHOD_GET, {"Allow: GET\r\n", 12}, on_check},
};

static struct str path_of(struct str target)
{
    return str_make(target.p, str_find(target, '?'));
}

static const struct call_type *find_call(struct str target)
{
    for (size_t i = 0; i < sizeof call_types / sizeof call_types[0]; i++)
        if (str_eq(path_of(target), call_types[i].path))
            return &call_types[i];
    return NULL;
}

/* ---- who may call ---- */

/* Is this value "Bearer" and the token (RFC 6750 section 2.1)? */
static bool bears_token(struct str value, const char *token)
{
    size_t end = str_find(value, ' ');
    struct str given = str_trim_ows(str_make(value.p + end, value.n - end));
    return str_eq_nocase(str_make(value.p, end), STR("Bearer")) && str_eq_constant_time(given, str_of(token));
}

/* Where there is no token, the address decides alone, and a web page that is open in a browser there could ask as well
 * as its owner. Browsers say so: whatever is not a plain GET has Origin (Fetch standard, section 3.2), and to hosts
 * that they trust, as those of their own machine, any request has Sec-Fetch-Site, which is "none" only for what no page
 * has asked for (Fetch Metadata, section 2.3). A GET by a page that has the balancer's address under a name of its own,
 * over HTTP, shows nothing of the kind. */
static bool is_from_a_page(const struct request *r)
{
    unsigned count = 0;
    const struct field *site = headers_find_name(&r->headers, STR("Sec-Fetch-Site"), &count);
    bool asked_by_page = site && !(count == 1 && str_eq(site->value, STR("none")));
    return asked_by_page || headers_find_name(&r->headers, STR("Origin"), NULL) != NULL;
}

/* Behind a proxy, or in a container, that address is not the one that one thinks of, nor the log's `client`. */
static const char *not_allowed(struct clients_api *api, const struct peer *peer)
{
    char address[IP_TEXT_SIZE] = "unix";
    if (!peer->is_unix)
        ip_format(&peer->ip, address);
    snprintf(api->refusal, sizeof api->refusal,
             "%s is not in admin.allow, which is about the connection's own address, not X-Forwarded-For.", address);
    return api->refusal;
}

static enum err authorize(struct clients_api *api, const struct local_request *r, const char **detail)
{
    unsigned count = 0;
    if (!cidr_set_contains_peer(&api->config->admin.allow, r->peer)) {
        *detail = not_allowed(api, r->peer);
        return ERR_FORBIDDEN;
    }
    if (!api->config->admin.token && is_from_a_page(r->request)) {
        *detail = "A web page may call the client API only with a token, and admin.token is not set.";
        return ERR_FORBIDDEN;
    }
    if (!api->config->admin.token)
        return ERR_OK;
    const struct field *f = headers_find(&r->request->headers, FIELD_AUTHORIZATION, &count);
    return f && count == 1 && bears_token(f->value, api->config->admin.token) ? ERR_OK : ERR_UNAUTHORIZED;
}

/* ---- the handler ---- */

static bool is_mine(void *arg, const struct request *r)
{
    (void)arg;
    return str_starts_with(r->target, PREFIX);
}

static struct str allowed(void *arg, struct str target)
{
    const struct clients_api *api = arg;
    const struct call_type *type = api->lim ? find_call(target) : NULL;
    return type ? type->allow : STR("");
}

static enum err admit(void *arg, const struct local_request *r, struct str *fields, const char **detail)
{
    struct clients_api *api = arg;
    if (!api->lim) {
        *detail = "Rate limiting is off: there is no client API.";
        return ERR_NO_SUCH_CALL;
    }
    enum err e = authorize(api, r, detail);
    if (e == ERR_UNAUTHORIZED) /* the scheme and a parameter (RFC 6750 section 3) */
        *fields = STR("WWW-Authenticate: Bearer realm=\"clients\"\r\n");
    if (e != ERR_OK)
        return e;
    const struct call_type *type = find_call(r->target);
    if (!type)
        return ERR_NO_SUCH_CALL;
    if (r->method == type->method)
        return ERR_OK;
    *fields = type->allow;
    return ERR_METHOD_NOT_ALLOWED;
}

static void start(void *arg, const struct local_request *r, struct local_exchange *x, void **state)
{
    size_t path_end = path_of(r->target).n;
    struct asked a = {.api = arg,
                      .r = r,
                      .query = path_end < r->target.n ? str_make(r->target.p + path_end + 1, r->target.n - path_end - 1)
                                                      : STR(""),
                      .x = x,
                      .state = state};
    *state = NULL;
    find_call(r->target)->run(&a);
}

static void cancel(void *arg, void *state)
{
    struct pending *p = state;
    if (p)
        p->cancel(arg, p);
}

struct clients_api *clients_api_new(struct loop *l, struct config *config, struct limiter *lim)
{
    struct clients_api *api = mem_try_alloc(sizeof *api);
    if (!api)
        return NULL;
    api->loop = l;
    api->config = config_get(config);
    api->lim = lim;
    api->handler = (struct local_handler){
        .is_mine = is_mine, .allowed = allowed, .admit = admit, .start = start, .cancel = cancel, .arg = api};
    return api;
}

void clients_api_free(struct clients_api *api)
{
    if (!api)
        return;
    config_put(api->config);
    mem_free(api);
}

void clients_api_set_config(struct clients_api *api, struct config *config)
{
    struct config *old = api->config;
    api->config = config_get(config);
    config_put(old);
}

void clients_api_set_limiter(struct clients_api *api, struct limiter *lim)
{
    api->lim = lim;
}

const struct local_handler *clients_api_handler(const struct clients_api *api)
{
    return &api->handler;
}
