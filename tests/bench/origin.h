/* An origin server for benchmarks, of the thread that calls it: bench_backend is no more than that, and bench_load may
 * have it beside its load.
 *
 *   GET /         128 bytes of content       GET /chunked/N   N bytes, chunked
 *   GET /N        N bytes, at most 1 MiB     POST /           2 bytes, when Content-Length bytes have come
 *
 * It understands what its load generators send, and no more: heads end with an empty line, and one request follows
 * another only in the same form. */
#ifndef ORIGIN_H
#define ORIGIN_H

#include <stdbool.h>
#include <stdint.h>

/* To be called first, once; there is one in a process, till its end. Raises the limit of descriptors to what it can
 * use. False when there is no memory or no descriptor for it. */
bool origin_start(void);

/* Listens on one more port of 127.0.0.1. 0, or -1 with errno, upon which the process is to end. */
int origin_listen(uint16_t port);

/* A descriptor that epoll says is readable when origin_serve() has something to do. */
int origin_fd(void);

/* Waits for at most `timeout` milliseconds (-1: without end) for something to do, and does it. */
void origin_serve(int timeout);

#endif
