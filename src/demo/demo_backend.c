/* demo-backend: an origin server for demos and tests that shows requests and simulates outages. Arguments, start, stop.
 */
#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "event/log_writer.h"
#include "event/signals.h"
#include "net/io.h"
#include "net/sock.h"
#include "server.h"

#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#define NAME_MAX_BYTES 128u
#define FD_LIMIT       16384u

enum exit_status { EXIT_DONE = 0, EXIT_RUNTIME = 1, EXIT_USAGE = 2 };

static const char usage_text[] =
    "Usage: demo-backend --listen ADDRESS [options]\n"
    "\n"
    "An origin server that shows requests as JSON and simulates outages.\n"
    "\n"
    "  --listen ADDRESS     host:port, :port, [v6]:port or unix:/path\n"
    "  --name NAME          its name in answers and in the log (default: the address)\n"
    "  --delay TIME         wait before each answer, such as 5ms\n"
    "  --outage-every TIME  begin an outage each TIME\n"
    "  --outage-for TIME    how long each lasts; less than --outage-every\n"
    "  --outage-mode MODE   refuse (default), hang, 500, reset, drop, cut, bad, reuse, slow or sick\n"
    "  --outage-offset TIME begin the first one after TIME (default: --outage-every), to stagger several backends\n"
    "  --ledger FILE        append a line for each POST that arrives: its X-Request-ID\n"
    "  -h, --help           this text\n"
    "\n"
    "Paths: /health; POST /_outage {\"mode\":\"refuse\",\"for\":\"10s\"} (mode none ends it); POST /echo;\n"
    "/bytes/N, /chunked/N (N bytes); /status/NNN; any other shows the request.\n";

static int usage_error(const char *what, const char *value, const char *why)
{
    fprintf(stderr, "demo-backend: %s%s%s %s\nTry demo-backend --help.\n", what, value ? " " : "", value ? value : "",
            why);
    return EXIT_USAGE;
}

enum option_id { OPT_LISTEN = 256, OPT_NAME, OPT_DELAY, OPT_EVERY, OPT_FOR, OPT_MODE, OPT_OFFSET, OPT_LEDGER };

static const struct option long_options[] = {
    {"listen", required_argument, NULL, OPT_LISTEN},
    {"name", required_argument, NULL, OPT_NAME},
    {"delay", required_argument, NULL, OPT_DELAY},
    {"outage-every", required_argument, NULL, OPT_EVERY},
    {"outage-for", required_argument, NULL, OPT_FOR},
    {"outage-mode", required_argument, NULL, OPT_MODE},
    {"outage-offset", required_argument, NULL, OPT_OFFSET},
    {"ledger", required_argument, NULL, OPT_LEDGER},
    {"help", no_argument, NULL, 'h'},
    {NULL, 0, NULL, 0},
};

static bool take_duration(const char *text, uint64_t *ns, const char **why)
{
    *why = "is no duration such as 5ms, 20s or 1m";
    return str_parse_duration(str_of(text), ns) && *ns <= 1000 * 3600 * NS_PER_S;
}

static bool take_listen(struct demo_options *o, const char *text, const char **why)
{
    if (!endpoint_parse(str_of(text), true, &o->listen, why))
        return false;
    *why = "is no address of this host (names are not resolved here)";
    return o->listen.kind != ENDPOINT_NAME;
}

static bool take_mode(struct demo_options *o, const char *text, const char **why)
{
    *why = "must be refuse, hang, 500, reset, drop, cut, bad, reuse, slow or sick";
    return outage_mode_parse(str_of(text), &o->outage_mode);
}

static bool take_option(struct demo_options *o, int id, const char *text, const char **why)
{
    switch (id) {
    case OPT_LISTEN: return take_listen(o, text, why);
    case OPT_NAME: o->name = text; return true;
    case OPT_DELAY: return take_duration(text, &o->delay, why);
    case OPT_EVERY: return take_duration(text, &o->outage_every, why);
    case OPT_FOR: return take_duration(text, &o->outage_for, why);
    case OPT_MODE: return take_mode(o, text, why);
    case OPT_LEDGER: o->ledger = text; return true;
    default: return take_duration(text, &o->outage_offset, why);
    }
}

/* It goes into a header field and into the log. */
static bool name_is_valid(const char *name)
{
    size_t n = strlen(name);

    for (size_t i = 0; i < n; i++)
        if (name[i] <= ' ' || name[i] > '~')
            return false;
    return n >= 1 && n <= NAME_MAX_BYTES;
}

static int check_options(struct demo_options *o, const char *listen_text)
{
    if (!listen_text)
        return usage_error("--listen", NULL, "is missing");
    if (!o->name)
        o->name = listen_text;
    if (!name_is_valid(o->name))
        return usage_error("--name", NULL, "must be 1 to 128 visible ASCII characters without spaces");
    if (o->outage_every == 0 && (o->outage_for || o->outage_offset))
        return usage_error("--outage-for and --outage-offset", NULL, "need --outage-every");
    if (o->outage_every && (o->outage_for == 0 || o->outage_for >= o->outage_every))
        return usage_error("--outage-for", NULL, "must be given, above 0 and below --outage-every");
    return EXIT_DONE;
}

/* EXIT_DONE when the options are complete; *help when only help was asked for. */
static int parse_options(int argc, char **argv, struct demo_options *o, bool *help)
{
    const char *listen_text = NULL;
    int id, index = 0;

    while ((id = getopt_long(argc, argv, "h", long_options, &index)) != -1) {
        const char *why;

        if (id == 'h') {
            *help = true;
            return EXIT_DONE;
        }
        if (id == '?')
            return EXIT_USAGE; /* getopt_long() has said what is wrong */
        if (!take_option(o, id, optarg, &why))
            return usage_error(long_options[index].name, optarg, why);
        if (id == OPT_LISTEN)
            listen_text = optarg;
    }
    if (optind < argc)
        return usage_error(argv[optind], NULL, "is not understood");
    return check_options(o, listen_text);
}

static void on_signal(void *arg, int signo)
{
    if (signo == SIGTERM || signo == SIGINT)
        loop_stop(arg);
}

/* Everything that runs, in the order of its making. */
struct world {
    struct loop *loop;
    struct signals *signals;
    struct log_writer *log;
    struct demo_server server;
};

static int start_failed(const char *what, int error)
{
    fprintf(stderr, "demo-backend: %s: %s\n", what, strerror(error));
    return EXIT_RUNTIME;
}

static int serve(struct world *w, const struct demo_options *o)
{
    char text[ADDR_TEXT_SIZE];
    int error = 0;

    if (!demo_server_init(&w->server, w->loop, o, &error)) {
        addr_format(&o->listen.addr, text);
        return start_failed(text, error);
    }
    loop_turn(w->loop, 0); /* the log's first line leaves before the first wait */
    loop_run(w->loop);
    demo_server_fini(&w->server);
    io_end_lingering(w->loop);
    return EXIT_DONE;
}

static int run(struct world *w, const struct demo_options *o)
{
    int r = file_hold_standard();

    if (r < 0)
        return start_failed("/dev/null", -r);
    if (!(w->loop = loop_new()) || !(w->signals = signals_new(w->loop, on_signal, w->loop)) ||
        !(w->log = log_writer_new(w->loop, NULL)))
        return start_failed("start", errno);
    sock_raise_fd_limit(FD_LIMIT);
    return serve(w, o);
}

static void world_fini(struct world *w)
{
    log_writer_free(w->log);
    signals_free(w->signals);
    loop_free(w->loop);
}

int main(int argc, char **argv)
{
    struct demo_options options = {.outage_mode = OUTAGE_REFUSE};
    struct world world = {0};
    bool help = false;
    int status = parse_options(argc, argv, &options, &help);

    if (status != EXIT_DONE)
        return status;
    if (help) {
        fputs(usage_text, stdout);
        return EXIT_DONE;
    }
    status = run(&world, &options);
    world_fini(&world);
    return status;
}
