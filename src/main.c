/* Arguments, config, run, exit status. */
#include "config/config.h"
#include "dry_run.h"
#include "lifecycle.h"
#include "server.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>

static const char usage_text[] =
    "usage: loadbalancer [-c FILE] [-t] [-v] [-h]\n"
    "\n"
    "  -c, --config FILE   read the configuration from FILE (default: config.json)\n"
    "  -t, --test          check the configuration and the files it names, and exit\n"
    "  -v, --version       print the version and exit\n"
    "  -h, --help          print this and exit\n"
    "\n"
    "Signals: SIGTERM, SIGINT stop gracefully (a second one at once); SIGHUP reloads the configuration;\n"
    "SIGUSR1 reopens the log file; SIGUSR2 goes over to the binary that is on disk now.\n"
    "Exit status: 0 done, 1 run-time failure, 2 bad usage, config or data, 3 stopped with work cut off.\n";

struct options {
    const char *config;
    bool test;
};

/* The exit status when all that there was to do was to print, and it was printed. */
static int printed(void)
{
    if (fflush(stdout) == 0 && !ferror(stdout))
        return EXIT_DONE;
    fprintf(stderr, "loadbalancer: stdout: %s\n", strerror(errno));
    return EXIT_RUNTIME;
}

/* Returns -1 to go on, else the exit status. */
static int parse_options(int argc, char **argv, struct options *o)
{
    static const struct option longs[] = {
        {"config", required_argument, NULL, 'c'},
        {"test", no_argument, NULL, 't'},
        {"version", no_argument, NULL, 'v'},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    int c;
    while ((c = getopt_long(argc, argv, "c:tvh", longs, NULL)) != -1) {
        switch (c) {
        case 'c': o->config = optarg; break;
        case 't': o->test = true; break;
        case 'v': puts("loadbalancer " LB_VERSION); return printed();
        case 'h': fputs(usage_text, stdout); return printed();
        default: fputs(usage_text, stderr); return EXIT_USAGE;
        }
    }
    if (optind == argc)
        return -1;
    fprintf(stderr, "loadbalancer: unexpected argument: %s\n%s", argv[optind], usage_text);
    return EXIT_USAGE;
}

static int test(const struct options *o, const struct config *config)
{
    int status = dry_run(config);
    if (status != EXIT_DONE)
        return status;
    printf("%s: the configuration is valid\n", o->config);
    return printed();
}

int main(int argc, char **argv)
{
    struct options o = {.config = "config.json"};
    int status = parse_options(argc, argv, &o);
    if (status >= 0)
        return status;
    struct buf messages = BUF_INIT;
    bool no_memory;
    struct config *config = config_load(o.config, &messages, &no_memory);
    fprintf(stderr, "%.*s", STR_ARG(buf_str(&messages)));
    if (!config && messages.len == 0) { /* not even for a message */
        fprintf(stderr, "%s: there is no memory to check it\n", o.config);
        no_memory = true;
    }
    buf_fini(&messages);
    if (!config)
        return no_memory ? EXIT_RUNTIME : EXIT_USAGE;
    status = o.test ? test(&o, config) : server_run(config, argv);
    config_put(config);
    return status;
}
