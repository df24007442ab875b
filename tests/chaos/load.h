/* The load: requests at a fixed rate whatever becomes of them, from one thread on one epoll set, over kept connections
 * and fresh ones. Each leaves a record, in the order in which they were begun. */
#ifndef CHAOS_LOAD_H
#define CHAOS_LOAD_H

#include "call.h"

#define BACKENDS 3

struct record {
    uint64_t begun, ended; /* us; ended 0: under way */
    enum call_kind kind;
    enum outcome outcome;
    int backend;
};

struct load;

/* Begins to send `rate` requests a second to 127.0.0.1:port. NULL when it cannot. */
struct load *load_start(int port, unsigned rate);
/* Sends no more, and returns when each request has an outcome. Records stay readable. */
void load_stop(struct load *l);
void load_free(struct load *l);

/* The records, which stand still until load_unlock(). */
const struct record *load_lock(struct load *l, size_t *count);
void load_unlock(struct load *l);

/* How late a request was sent at worst, in us: how badly the machine has held everybody up. */
uint64_t load_lateness(struct load *l);

/* Requests begun since then that have ended; of them those that this backend (-1: any) has answered well. */
unsigned load_ended_since(struct load *l, uint64_t since);
unsigned load_answered_since(struct load *l, int backend, uint64_t since);
/* When the first request that was begun since then and that this backend has answered well had ended; 0: none yet. */
uint64_t load_first_answer(struct load *l, int backend, uint64_t since);
/* When the last one of any age was answered by it. */
uint64_t load_last_answer(struct load *l, int backend);

#endif
