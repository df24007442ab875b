/* bench_backend PORT...: an origin server for benchmarks, as origin.h says, on each of these ports of 127.0.0.1. One
 * thread, epoll. */
#include "origin.h"

#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv)
{
    if (!origin_start())
        return 1;
    for (int i = 1; i < argc; i++) {
        if (origin_listen((uint16_t)atoi(argv[i])) != 0) {
            perror(argv[i]);
            return 1;
        }
    }
    for (;;)
        origin_serve(-1);
}
