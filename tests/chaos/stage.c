/* What a scenario stands in. */
#include "stage.h"

#include "harness/client.h"
#include "picture.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TURN_US     (3 * MS)
#define START_LIMIT (20 * S)

void stage_turn(struct stage *s)
{
    watch_poll(&s->watch);
    picture_draw(s);
    rest_us(TURN_US);
}

uint64_t stage_slack(const struct stage *s)
{
    return 2 * load_lateness(s->load) + 2 * TURN_US + 4 * MS + BACKENDS * S / s->pace->rate;
}

uint64_t stage_fall_bound(const struct stage *s)
{
    return (FALL * s->pace->interval_ms + s->pace->timeout_ms) * (uint64_t)MS;
}

uint64_t stage_rise_bound(const struct stage *s)
{
    return RISE * s->pace->interval_ms * (uint64_t)MS;
}

void stage_promise(struct stage *s, const char *name, bool kept, const char *found, ...)
{
    struct promise *p = &s->promises[s->promise_count];
    va_list args;

    if (s->promise_count == PROMISES_MAX)
        abort();
    s->promise_count++;
    p->name = name;
    p->kept = kept;
    va_start(args, found);
    vsnprintf(p->found, sizeof p->found, found, args);
    va_end(args);
}

/* ---- asking ---- */

static int ask(int port, const char *request, struct bytes *body)
{
    struct client c;
    int status = -1;

    if (!client_try_open(&c, port))
        return -1;
    if (client_try_send(&c, request, strlen(request)) && client_read(&c, false) == READ_OK) {
        status = c.response.status;
        if (body)
            bytes_add(body, c.response.body.p, c.response.body.n);
    }
    client_close(&c);
    return status;
}

static int ask_with(int port, const char *method, const char *target, const char *fields, const char *content,
                    struct bytes *body)
{
    struct bytes request = {0};
    int status;

    bytes_addf(&request, "%s %s HTTP/1.1\r\nHost: chaos\r\nConnection: close\r\nContent-Length: %zu\r\n%s\r\n%s",
               method, target, strlen(content), fields, content);
    status = ask(port, request.p, body);
    bytes_free(&request);
    return status;
}

int stage_ask(const struct stage *s, const char *method, const char *target, const char *fields, const char *content,
              struct bytes *body)
{
    return ask_with(s->port, method, target, fields, content, body);
}

bool stage_outage(struct stage *s, int i, const char *mode, unsigned ms, bool health_ok)
{
    char json[120];
    int status = -1;

    snprintf(json, sizeof json, "{\"mode\":\"%s\",\"for\":\"%ums\"%s}", mode, ms,
             health_ok ? ",\"health\":\"ok\"" : "");
    AWAIT(s, 5 * S, (status = ask_with(s->backend_ports[i], "POST", "/_outage", "", json, NULL)) == 200);
    s->label[i] = mode;
    return status == 200;
}

/* ---- starting ---- */

static void path_of(char *out, size_t size, const struct stage *s, const char *name)
{
    snprintf(out, size, "%s/%s", s->dir, name);
}

bool stage_start_backend(struct stage *s, int i)
{
    char program[512], listen[32], name[16], log[300];
    const char *argv[] = {program, "--listen", listen, "--name", name, "--ledger", "ledger", NULL};

    snprintf(program, sizeof program, "%s/demo-backend", build_dir());
    snprintf(listen, sizeof listen, "127.0.0.1:%d", s->backend_ports[i]);
    snprintf(name, sizeof name, "b%d", i + 1);
    path_of(log, sizeof log, s, name);
    if (!process_start(&s->backends[i], s->dir, log, argv))
        return false;
    AWAIT(s, START_LIMIT, client_can_connect(s->backend_ports[i]));
    s->label[i] = "";
    return client_can_connect(s->backend_ports[i]);
}

/* The proxy's arguments, "@" replaced by the folder. */
static void spell(char out[8][300], const char *argv[10], const struct stage *s)
{
    for (int i = 0; i < 8 && s->proxy->arguments[i]; i++) {
        const char *given = s->proxy->arguments[i];

        snprintf(out[i], 300, "%s%s", given[0] == '@' ? s->dir : "", given[0] == '@' ? given + 1 : given);
        argv[i + 1] = out[i];
    }
}

bool stage_start_balancer(struct stage *s)
{
    char program[512], arguments[8][300], log[300];
    const char *argv[10] = {program};

    snprintf(program, sizeof program, "%s/loadbalancer", build_dir());
    if (!proxy_is_ours(s->proxy))
        argv[0] = s->proxy->program;
    spell(arguments, argv, s);
    path_of(log, sizeof log, s, "proxy.log");
    return process_start(&s->balancer, s->dir, log, argv);
}

void stage_configure(struct stage *s, unsigned mask)
{
    struct proxy_world w = {.dir = s->dir, .port = s->port, .backend_ports = s->backend_ports};

    s->proxy->configure(&w, s->pace, mask);
}

static bool start_all(struct stage *s)
{
    for (int i = 0; i < BACKENDS; i++)
        if (!stage_start_backend(s, i))
            return false;
    stage_configure(s, ALL_BACKENDS);
    if (!stage_start_balancer(s))
        return false;
    AWAIT(s, START_LIMIT, !process_is_running(&s->balancer) || stage_ask(s, "GET", "/", "", "", NULL) == 200);
    if (!process_is_running(&s->balancer))
        return false;
    s->load = load_start(s->port, s->pace->rate);
    if (!s->load)
        return false;
    AWAIT(s, START_LIMIT, load_answered_since(s->load, -1, s->begun) >= s->pace->warm);
    return load_answered_since(s->load, -1, s->begun) >= s->pace->warm;
}

bool stage_open(struct stage *s, const struct proxy *proxy, const struct pace *pace, const char *scenario,
                const int ports[BACKENDS + 1])
{
    char log[300];

    *s = (struct stage){.proxy = proxy, .pace = pace, .scenario = scenario, .port = ports[0], .begun = now_us()};
    for (int i = 0; i < BACKENDS; i++) {
        s->backend_ports[i] = ports[i + 1];
        s->label[i] = "";
    }
    dir_make(s->dir, sizeof s->dir);
    path_of(log, sizeof log, s, "proxy.log");
    watch_init(&s->watch, log, &proxy->words, s->backend_ports);
    if (start_all(s))
        return true;
    fprintf(stderr, "chaos: %s does not start with its backends, see %s\n", proxy->name, s->dir);
    return false;
}

void stage_close(struct stage *s, bool keep)
{
    process_kill(&s->balancer);
    for (int i = 0; i < BACKENDS; i++)
        process_kill(&s->backends[i]);
    load_free(s->load);
    if (keep)
        printf("  kept: %s\n", s->dir);
    else
        dir_remove(s->dir);
}
