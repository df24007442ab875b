/* The proxies under test. Each is set up as a good operator would for these backends: a request whose method is
 * idempotent goes on to another backend for whatever reason it has failed, others only while they have not left; three
 * attempts; checks and time-outs of the same length where there are any. */
#include "proxy.h"

#include <stdio.h>
#include <unistd.h>

static void write_file(const struct proxy_world *w, const char *name, const struct bytes *text)
{
    char path[300];

    snprintf(path, sizeof path, "%s/%s", w->dir, name);
    file_put(path, text->p);
}

static void add_backends(struct bytes *out, const struct proxy_world *w, unsigned mask, const char *format,
                         const char *between)
{
    bool first = true;

    for (int i = 0; i < BACKENDS; i++) {
        char number[8], port[8];

        if (!(mask & 1u << i))
            continue;
        snprintf(number, sizeof number, "%d", i + 1);
        snprintf(port, sizeof port, "%d", w->backend_ports[i]);
        bytes_addf(out, "%s", first ? "" : between);
        for (const char *p = format; *p; p++)
            bytes_addf(out, "%.*s", *p == '#' || *p == '@' ? 8 : 1, *p == '#' ? number : *p == '@' ? port : p);
        first = false;
    }
}

static void configure_ours(const struct proxy_world *w, const struct pace *p, unsigned mask)
{
    struct bytes t = {0};
    unsigned i = p->interval_ms;

    bytes_addf(&t, "{ \"listen\": \"127.0.0.1:%d\",\n  \"backends\": [ ", w->port);
    add_backends(&t, w, mask, "{ \"address\": \"127.0.0.1:@\", \"name\": \"b#\" }", ", ");
    bytes_addf(
        &t,
        " ],\n  \"health_check\": { \"interval\": \"%ums\", \"timeout\": \"%ums\", \"fall\": %d, \"rise\": %d },\n"
        "  \"passive_check\": { \"failures\": %d, \"ejection\": \"%ums\", \"max_ejection\": \"%ums\" },\n"
        "  \"retry\": { \"attempts\": 2 },\n"
        "  \"timeouts\": { \"connect\": \"%ums\", \"backend_response\": \"%ums\" },\n",
        i, p->timeout_ms, FALL, RISE, FAILURES, i * EJECTION, i * EJECTION_MOST, p->response_ms, p->response_ms);
    bytes_addf(&t, "  \"rate_limit\": { \"default\": { \"capacity\": 1000000, \"rate_per_sec\": 1000000 } },\n"
                   "  \"log\": { \"format\": \"json\" } }\n");
    write_file(w, "config.json", &t);
    bytes_free(&t);
}

static void configure_haproxy(const struct proxy_world *w, const struct pace *p, unsigned mask)
{
    struct bytes t = {0};

    bytes_addf(
        &t,
        "global\n    nbthread 1\n    maxconn 4096\n    hard-stop-after 10s\n"
        "defaults\n    mode http\n    option forwardfor\n    timeout client 60s\n    timeout http-keep-alive 60s\n");
    bytes_addf(&t,
               "    timeout connect %ums\n    timeout queue %ums\n    timeout server %ums\n    timeout check %ums\n",
               p->response_ms, p->response_ms, p->response_ms, p->timeout_ms);
    bytes_addf(&t, "frontend front\n    bind 127.0.0.1:%d\n    default_backend backends\n", w->port);
    bytes_addf(&t,
               "backend backends\n    balance roundrobin\n    option httpchk GET /health\n    retries 2\n"
               "    option redispatch 1\n    retry-on all-retryable-errors\n"
               "    http-request disable-l7-retry if METH_POST\n"
               "    default-server check inter %ums fall %d rise %d observe layer7 error-limit %d on-error mark-down\n",
               p->interval_ms, FALL, RISE, FAILURES);
    add_backends(&t, w, mask, "    server b# 127.0.0.1:@\n", "");
    write_file(w, "haproxy.cfg", &t);
    bytes_free(&t);
}

static void nginx_paths(struct bytes *t, const char *dir)
{
    static const char *const keys[] = {"client_body", "proxy", "fastcgi", "uwsgi", "scgi"};

    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        bytes_addf(t, "    %s_temp_path %s/nginx-%s;\n", keys[i], dir, keys[i]);
}

static void configure_nginx(const struct proxy_world *w, const struct pace *p, unsigned mask)
{
    struct bytes t = {0};
    char server[120];

    snprintf(server, sizeof server, "server 127.0.0.1:@ max_fails=%d fail_timeout=%us;", FAILURES,
             (p->interval_ms * EJECTION + 999) / 1000); /* it knows whole seconds only */
    if (geteuid() == 0)
        bytes_addf(&t, "user root;\n"); /* the folder is nobody else's */
    bytes_addf(&t, "daemon off; worker_processes 1; pid %s/nginx.pid; error_log %s/proxy.log warn;\n", w->dir, w->dir);
    bytes_addf(&t, "events { worker_connections 4096; }\nhttp {\n    access_log off; keepalive_requests 1000000;\n");
    nginx_paths(&t, w->dir);
    bytes_addf(&t, "    upstream backends { ");
    add_backends(&t, w, mask, server, " ");
    bytes_addf(&t, " keepalive 64; keepalive_requests 1000000; }\n    server {\n        listen 127.0.0.1:%d;\n",
               w->port);
    bytes_addf(&t, "        location / {\n            proxy_pass http://backends; proxy_http_version 1.1; "
                   "proxy_set_header Connection \"\";\n");
    bytes_addf(&t, "            proxy_next_upstream error timeout invalid_header http_502 http_503 http_504; "
                   "proxy_next_upstream_tries 3;\n");
    bytes_addf(&t,
               "            proxy_connect_timeout %ums; proxy_read_timeout %ums; proxy_send_timeout %ums;\n        }\n"
               "    }\n}\n",
               p->response_ms, p->response_ms, p->response_ms);
    write_file(w, "nginx.conf", &t);
    bytes_free(&t);
}

const struct proxy proxies[] = {
    {.name = "loadbalancer",
     .words = {.down = "\"event\":\"backend_down\"", .up = "\"event\":\"backend_up\"", .who = "\"backend\":\"b@\""},
     .configure = configure_ours,
     .arguments = {"-c", "@/config.json"}},
    {.name = "HAProxy",
     .program = "/usr/sbin/haproxy",
     .words = {.down = " is DOWN", .up = " is UP", .who = "backends/b@ "},
     .configure = configure_haproxy,
     .arguments = {"-W", "-f", "@/haproxy.cfg"}},
    {.name = "nginx",
     .program = "/usr/sbin/nginx",
     .words = {.down = "temporarily disabled", .who = "127.0.0.1:@/", .by_port = true},
     .configure = configure_nginx,
     .arguments = {"-c", "@/nginx.conf", "-e", "@/proxy.log"}},
};
const unsigned proxy_count = sizeof proxies / sizeof *proxies;
