/* The limit of descriptors. */
#include "descriptors.h"

#include "net/sock.h"

#include <stdio.h>

#define SPARE_DESCRIPTORS 64 /* beside the connections': log, store, epoll, checks */

/* Each connection may need a second descriptor, towards a backend; one that finds none then is answered 502 or waits
 * for a pooled connection, so what must be there is one for each. */
bool descriptors_raise(const struct config *config, char *why, size_t n)
{
    uint64_t connections = config->limits.connections;
    uint64_t got = sock_raise_fd_limit(2 * connections + SPARE_DESCRIPTORS);
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
