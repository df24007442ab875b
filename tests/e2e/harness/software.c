/* Real programs around the daemon. */
#include "harness/software.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define RUN_SECONDS              60
#define RUN_SECONDS_INSTRUMENTED 180

void software_environment(void)
{
    static const char *const names[] = {"http_proxy", "https_proxy",     "all_proxy",    "no_proxy",
                                        "HTTP_PROXY", "HTTPS_PROXY",     "ALL_PROXY",    "NO_PROXY",
                                        "CURL_HOME",  "XDG_CONFIG_HOME", "PYTHONSTARTUP"};

    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        unsetenv(names[i]);
    setenv("HOME", "/nonexistent", 1);
    setenv("LC_ALL", "C.UTF-8", 1);
    setenv("PYTHONDONTWRITEBYTECODE", "1", 1);
}

void run_ok(struct world *w, const char *const argv[], struct bytes *out)
{
    int status = world_run(w, argv, is_instrumented() ? RUN_SECONDS_INSTRUMENTED : RUN_SECONDS, out);

    CHECK(status == 0, "%s ended with %d", argv[0], status);
}

void run_prints(struct world *w, const char *expected, const char *const argv[])
{
    struct bytes out;

    run_ok(w, argv, &out);
    assert_string_equal(out.p, expected);
    bytes_free(&out);
}

const char *url_at(int port, const char *path)
{
    static char text[8][200];
    static unsigned next;
    char *out = text[next++ % 8];

    snprintf(out, sizeof text[0], "http://127.0.0.1:%d%s", port, path);
    return out;
}

const char *url(const struct world *w, const char *path)
{
    return url_at(w->port, path);
}

void make_file(const struct world *w, const char *name, size_t size)
{
    static char piece[65536];
    FILE *f = fopen(world_path(w, name), "we");

    CHECK(f, "cannot write %s", name);
    for (size_t at = 0; at < size; at += sizeof piece) {
        size_t n = size - at < sizeof piece ? size - at : sizeof piece;

        pattern_fill(piece, n, at);
        assert_int_equal(fwrite(piece, 1, n, f), n);
    }
    assert_int_equal(fclose(f), 0);
}

void expect_same_files(const struct world *w, const char *a, const char *b)
{
    struct bytes first, second;

    CHECK(access(world_path(w, a), R_OK) == 0, "there is no file %s", a);
    CHECK(access(world_path(w, b), R_OK) == 0, "there is no file %s", b);
    first = file_content(world_path(w, a));
    second = file_content(world_path(w, b));
    CHECK(first.n == second.n, "%s has %zu bytes, %s has %zu", a, first.n, b, second.n);
    CHECK(memcmp(first.p, second.p, first.n) == 0, "%s and %s differ", a, b);
    bytes_free(&first);
    bytes_free(&second);
}

void expect_in_head(struct origin *o, unsigned request, const char *line, bool is_there)
{
    const char *head = origin_head(o, request);

    CHECK(head, "request %u did not come", request);
    CHECK((strcasestr(head, line) != NULL) == is_there, "\"%s\" in: %s", line, head);
}

static void add_backend(struct world *w, const char *name, int port)
{
    char address[32], member[40];

    snprintf(address, sizeof address, "127.0.0.1:%d", port);
    snprintf(member, sizeof member, "\"name\": \"%s\"", name);
    world_backend(w, address, member);
}

void three_demos(struct world *w, int ports[3])
{
    for (int i = 0; i < 3; i++) {
        char name[24];

        snprintf(name, sizeof name, "backend-%d", i + 1);
        ports[i] = world_demo(w, name, NULL);
        add_backend(w, name, ports[i]);
    }
}

/* nginx in a folder of its own below the test's, with `http` in its http block; waits for its port. */
static void start_nginx(struct world *w, const char *name, int port, const char *http)
{
    struct bytes text = {0};
    char dir[300], conf[320];

    snprintf(dir, sizeof dir, "%s", world_path(w, name));
    snprintf(conf, sizeof conf, "%s/conf", dir);
    assert_int_equal(mkdir(dir, 0755), 0);
    bytes_addf(&text,
               "daemon off; master_process off; pid pid; worker_processes 1;\n"
               "events { worker_connections 1024; }\n"
               "http { access_log off; client_body_temp_path body; proxy_temp_path proxy;\n"
               "fastcgi_temp_path f; uwsgi_temp_path u; scgi_temp_path s;\n"
               "sendfile on; keepalive_requests 1000000; default_type text/plain; client_max_body_size 0;\n"
               "%s\n}\n",
               http);
    file_put(conf, text.p);
    bytes_free(&text);
    world_helper(w, (const char *const[]){NGINX, "-p", dir, "-c", conf, "-e", "stderr", NULL});
    wait_for_port(port);
}

int nginx_backend(struct world *w, const char *directives)
{
    int port = port_reserve();
    struct bytes http = {0};

    bytes_addf(&http,
               "gzip on; gzip_min_length 1; gzip_types text/plain; gzip_proxied any;\n"
               "server { listen 127.0.0.1:%d; root %s; location = /health { return 200; }\n%s\n}",
               port, w->dir, directives ? directives : "");
    start_nginx(w, "nginx", port, http.p);
    bytes_free(&http);
    add_backend(w, "nginx", port);
    return port;
}

int nginx_in_front(struct world *w)
{
    int port = port_reserve();
    struct bytes http = {0};

    bytes_addf(&http,
               "upstream balancer { server 127.0.0.1:%d; keepalive 8; }\n"
               "map $http_upgrade $option { default upgrade; '' ''; }\n"
               "server { listen 127.0.0.1:%d; location / { proxy_pass http://balancer; proxy_http_version 1.1;\n"
               "proxy_request_buffering off; proxy_buffering off; proxy_set_header Host $http_host;\n"
               "proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $option; } }",
               w->port, port);
    start_nginx(w, "front", port, http.p);
    bytes_free(&http);
    return port;
}

static void apache_modules(struct bytes *text)
{
    static const char *const names[] = {"mpm_event", "authz_core", "mime",   "env",     "alias",
                                        "cgi",       "status",     "filter", "deflate", "setenvif"};

    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        bytes_addf(text, "LoadModule %s_module /usr/lib/apache2/modules/mod_%s.so\n", names[i], names[i]);
}

int apache_backend(struct world *w, const char *directives)
{
    int port = port_reserve();
    struct bytes text = {0};
    char conf[300];

    snprintf(conf, sizeof conf, "%s", world_path(w, "apache.conf"));
    apache_modules(&text);
    bytes_addf(&text,
               "ServerRoot \"%s\"\nDefaultRuntimeDir \"%s\"\nDocumentRoot \"%s\"\nPidFile apache.pid\n"
               "ServerName localhost\nListen 127.0.0.1:%d\nUser #65534\nGroup #65534\n",
               w->dir, w->dir, w->dir, port);
    bytes_addf(&text, "StartServers 1\nServerLimit 1\nThreadsPerChild 32\nMaxRequestWorkers 32\n"
                      "MaxKeepAliveRequests 0\nTimeout 30\nTypesConfig /dev/null\nAddType text/plain .txt\n"
                      "ErrorLog /dev/stderr\nLogLevel warn\n"
                      "LogFormat \"%%m %%U %%>s %%{Content-Encoding}i %%{Transfer-Encoding}i\" short\n"
                      "CustomLog apache-access.log short\n"
                      "AddOutputFilterByType DEFLATE text/plain\n"
                      "<Location /status>\nSetHandler server-status\n</Location>\n");
    bytes_addf(&text, "ScriptAlias /cgi/ \"%s/\"\n%s\n", w->dir, directives ? directives : "");
    file_put(conf, text.p);
    bytes_free(&text);
    assert_int_equal(chmod(w->dir, 0755), 0); /* Apache may be somebody else than the test */
    world_helper(w, (const char *const[]){APACHE, "-X", "-d", w->dir, "-f", conf, NULL});
    wait_for_port(port);
    add_backend(w, "apache", port);
    return port;
}

void make_script(const struct world *w, const char *name, const char *content)
{
    file_put(world_path(w, name), content);
    assert_int_equal(chmod(world_path(w, name), 0755), 0);
}
