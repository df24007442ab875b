/* The limit of descriptors. */
#include "descriptors.h"

#include "base/log.h"
#include "net/sock.h"

#include <stdio.h>

#define SPARE_DESCRIPTORS 64 /* beside the connections' and the checks': log, store, epoll */
#define CHECKS_IN_SPARE   32 /* of which so many checks find one at need */

static unsigned checks_of(const struct config *config)
{
    return config->health.on ? config->backend_count : 0;
}

/* Each connection may need a second descriptor, towards a backend, and each backend one for its check, all of them at
 * the same moment where they hang; connections to backends that are idle are only kept while all of those are not more
 * than the connections' second half. What must be there is one for each: with fewer than two, idle
 * ones are closed as descriptors run out, and when none is left, requests that find no descriptor are answered 502 and
 * new connections wait to be accepted, but only at a load that many never see. */
static uint64_t wanted(const struct config *config)
{
    return 2 * (uint64_t)config->limits.connections + checks_of(config) + SPARE_DESCRIPTORS;
}

/* A few less are not worth a word: 20000, which some systems allow, for the 20067 of the default settings. */
static uint64_t enough(const struct config *config)
{
    unsigned checks = checks_of(config);
    return 2 * (uint64_t)config->limits.connections + (checks > CHECKS_IN_SPARE ? checks - CHECKS_IN_SPARE : 0);
}

bool descriptors_wanted_alike(const struct config *a, const struct config *b)
{
    return wanted(a) == wanted(b);
}

bool descriptors_raise(const struct config *config, char *why, size_t n)
{
    uint64_t connections = config->limits.connections;
    uint64_t got = sock_raise_fd_limit(wanted(config));
    if (got >= connections + SPARE_DESCRIPTORS)
        return true;
    uint64_t possible = got > SPARE_DESCRIPTORS ? got - SPARE_DESCRIPTORS : 0;
    snprintf(why, n,
             "%s: limits.connections: %u connections need %llu descriptors, but RLIMIT_NOFILE can be raised only to "
             "%llu: at most %llu connections are possible",
             config->path, config->limits.connections, (unsigned long long)connections + SPARE_DESCRIPTORS,
             (unsigned long long)got, (unsigned long long)possible);
    return false;
}

void descriptors_report(const struct config *config)
{
    uint64_t got = sock_raise_fd_limit(wanted(config)); /* what it has come to before */
    if (got >= enough(config))
        return;
    log_begin(LOG_WARN, "descriptors_short");
    log_u64("possible", got);
    log_u64("wanted", wanted(config));
    log_end();
}
