/* What a start by a config would stumble over, looked at without starting. */
#include "dry_run.h"

#include "base/file.h"
#include "base/log.h"
#include "lifecycle.h"
#include "limit/store.h"

#include <stdio.h>

static int look_at_clients(const struct config *config)
{
    char why[1024];
    if (!config->rate_limit.on)
        return EXIT_DONE;
    enum store_outcome outcome = store_check(config->rate_limit.clients_file, why, sizeof why);
    log_fini(); /* what a start would have logged of it */
    if (outcome == STORE_OPENED)
        return EXIT_DONE;
    fprintf(stderr, "loadbalancer: %s\n", why);
    return outcome == STORE_DAMAGED ? EXIT_USAGE : EXIT_RUNTIME;
}

static int look_at_log(const struct config *config)
{
    int r = config->log.file ? file_may_append(config->log.file) : 0;
    if (r == 0)
        return EXIT_DONE;
    fprintf(stderr, "loadbalancer: cannot write the log to %s: %s\n", config->log.file, file_why(r));
    return EXIT_RUNTIME;
}

int dry_run(const struct config *config)
{
    int log = look_at_log(config), clients = look_at_clients(config);
    return clients > log ? clients : log;
}
