/* What one test stands in. */
#include "harness/world.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

struct config_default {
    const char *key, *member;
};

static const struct config_default defaults[] = {
    {"\"log\"", "\"log\": {\"format\": \"json\"}"},
    {"\"health_check\"", "\"health_check\": null"},
    {"\"passive_check\"", "\"passive_check\": null"},
    {"\"rate_limit\"", "\"rate_limit\": {\"default\": {\"capacity\": 1000000, \"rate_per_sec\": 1000000}}"},
};

int world_setup(void **state)
{
    struct world *w = calloc(1, sizeof *w);

    if (!w)
        return -1;
    signal(SIGPIPE, SIG_IGN);
    dir_make(w->dir, sizeof w->dir);
    w->port = port_reserve();
    *state = w;
    return 0;
}

int world_teardown(void **state)
{
    struct world *w = *state;

    if (!w->finished) {
        daemon_dump(&w->daemon);
        for (unsigned i = 0; i < w->helper_count; i++)
            daemon_dump(&w->helpers[i]);
    }
    daemon_fini(&w->daemon);
    for (unsigned i = 0; i < w->helper_count; i++)
        daemon_fini(&w->helpers[i]);
    for (unsigned i = 0; i < w->origin_count; i++)
        origin_stop(w->origins[i]);
    dir_remove(w->dir);
    free(w);
    return 0;
}

void world_backend(struct world *w, const char *address, const char *extra)
{
    size_t n = strlen(w->backends);

    snprintf(w->backends + n, sizeof w->backends - n, "%s{\"address\": \"%s\"%s%s}", n ? ", " : "", address,
             extra ? ", " : "", extra ? extra : "");
}

struct origin *world_origin(struct world *w, origin_script *script, void *arg, const char *extra)
{
    char name[16], address[32], members[256];
    struct origin *o;

    CHECK(w->origin_count < WORLD_BACKENDS, "too many origins");
    snprintf(name, sizeof name, "b%u", w->origin_count + 1);
    o = origin_start(name, script, arg);
    w->origins[w->origin_count++] = o;
    snprintf(address, sizeof address, "127.0.0.1:%d", origin_port(o));
    snprintf(members, sizeof members, "\"name\": \"%s\"%s%s", name, extra ? ", " : "", extra ? extra : "");
    world_backend(w, address, members);
    return o;
}

int world_taken_port(struct world *w)
{
    CHECK(w->origin_count < WORLD_BACKENDS, "too many origins");
    struct origin *o = origin_start("other", origin_answer_all, NULL);
    w->origins[w->origin_count++] = o;
    return origin_port(o);
}

const char *world_path(const struct world *w, const char *name)
{
    static char paths[8][300];
    static unsigned next;
    char *path = paths[next++ % 8];

    snprintf(path, sizeof paths[0], "%s/%s", w->dir, name);
    return path;
}

void world_config(struct world *w, const char *extra)
{
    struct bytes text = {0};

    bytes_addf(&text, "{\"backends\": [%s]", w->backends);
    if (!extra || !strstr(extra, "\"listen\""))
        bytes_addf(&text, ",\n \"listen\": \"127.0.0.1:%d\"", w->port);
    for (size_t i = 0; i < sizeof defaults / sizeof *defaults; i++)
        if (!extra || !strstr(extra, defaults[i].key))
            bytes_addf(&text, ",\n %s", defaults[i].member);
    if (extra)
        bytes_addf(&text, ",\n %s", extra);
    bytes_addf(&text, "}\n");
    file_put(world_path(w, "config.json"), text.p);
    bytes_free(&text);
}

void world_restart(struct world *w)
{
    daemon_start(&w->daemon, w->dir, "loadbalancer", (const char *const[]){"loadbalancer", NULL});
    daemon_expect_event(&w->daemon, 0, "listening", NULL);
}

void world_start(struct world *w, const char *extra)
{
    world_config(w, extra);
    world_restart(w);
}

struct daemon *world_helper(struct world *w, const char *const argv[])
{
    struct daemon *d = &w->helpers[w->helper_count];
    char name[16];

    CHECK(w->helper_count < WORLD_HELPERS, "too many helpers");
    snprintf(name, sizeof name, "helper-%u", w->helper_count);
    w->helper_count++;
    daemon_start(d, w->dir, name, argv);
    return d;
}

int world_run(struct world *w, const char *const argv[], int seconds, struct bytes *out)
{
    struct daemon *d = world_helper(w, argv);
    int status = daemon_wait_for(d, seconds * 1000);

    if (out)
        *out = daemon_stdout(d);
    if (status == 0) {
        daemon_fini(d); /* its place may be taken again; one that failed stays for the report */
        w->helper_count--;
    }
    return status;
}

void need_program(const char *path)
{
    if (access(path, X_OK) == 0)
        return;
    print_message("%s is not installed\n", path);
    skip();
}

void wait_for_port(int port)
{
    uint64_t deadline = deadline_in(patience_ms());

    while (!client_can_connect(port)) {
        CHECK(left_ms(deadline) > 0, "nobody listens on port %d", port);
        rest();
    }
}

int world_demo(struct world *w, const char *name, const char *const options[])
{
    int port = port_reserve();
    char listen[32];
    const char *argv[16] = {"demo-backend", "--listen", listen, "--name", name};

    snprintf(listen, sizeof listen, "127.0.0.1:%d", port);
    for (size_t i = 0; options && options[i] && i < 10; i++)
        argv[5 + i] = options[i];
    world_helper(w, argv);
    wait_for_port(port);
    return port;
}

void world_stop(struct world *w)
{
    int status;

    daemon_signal(&w->daemon, SIGTERM);
    status = daemon_wait(&w->daemon);
    CHECK(status == 0, "the daemon ended with %d instead of 0", status);
    daemon_expect_clean_stderr(&w->daemon);
}

void world_wait_fds(struct world *w, int n)
{
    uint64_t deadline = deadline_in(patience_ms());
    int now;

    while ((now = proc_fds(w->daemon.pid)) != n) {
        CHECK(left_ms(deadline) > 0, "the daemon has %d descriptors open instead of %d", now, n);
        rest();
    }
}

void world_finish(struct world *w)
{
    if (w->daemon.pid > 0)
        world_stop(w);
    w->finished = true;
}
