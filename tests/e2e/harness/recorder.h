/* An origin server without a thread: it is served by whoever waits for something else. Reads what comes with the
 * reference reader, tells of each message, and answers it with a 200 that carries the message's number. */
#ifndef HARNESS_RECORDER_H
#define HARNESS_RECORDER_H

#include "harness/reference.h"
#include "harness/util.h"

struct recorder_events {
    /* A whole message, the `number`th (from 1) over all connections; p[0..n) are its bytes. */
    void (*on_message)(void *arg, const struct reference *got, const char *p, size_t n, unsigned number);
    /* Bytes that are no message, or the part of one behind which the connection ended (`got` says which). */
    void (*on_rest)(void *arg, const struct reference *got, const char *p, size_t n);
    void *arg;
};

struct recorder;

struct recorder *recorder_start(const struct recorder_events *events);
void recorder_stop(struct recorder *r);
int recorder_port(const struct recorder *r);
/* Connections that are open now, and those there have been. */
unsigned recorder_open(const struct recorder *r);
unsigned recorder_connections(const struct recorder *r);

/* Serves until `fd` (-1: none) is readable, something has been served, or `ms` have passed. True when `fd` is readable.
 */
bool recorder_serve(struct recorder *r, int fd, int ms);

#endif
