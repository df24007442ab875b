/* The threads that ask for names. Each is taken by one name at a time, and for many seconds by one whose name server
 * says nothing; so there are some of them, and the names that were not answered the last time get what the others
 * leave, though never less than one, nor all of them. */
#ifndef LB_UPSTREAM_NAMES_H
#define LB_UPSTREAM_NAMES_H

#include "base/list.h"
#include "event/loop.h"
#include "event/worker.h"

#define NAMES_THREADS 4u

struct resolve;

struct names {
    struct loop *loop;
    struct worker *workers[NAMES_THREADS]; /* each has one question at most: the others wait here, */
    unsigned count;
    struct list waiting, unheard; /* ... those that were not answered the last time apart */
    unsigned unheard_asked;       /* of these, how many are being asked */
};

/* NULL when memory runs out. No thread is started yet. */
struct names *names_new(struct loop *l) __attribute__((warn_unused_result));

/* Starts what is missing to the threads that so many names can use. False, with errno, when one cannot be started. */
bool names_start(struct names *n, unsigned names) __attribute__((warn_unused_result));

/* Asks as soon as there is a thread for it. There must be one at all. */
void names_ask(struct names *n, struct resolve *r);

/* Waits for no answer; none is told any more. NULL is fine. */
void names_free(struct names *n);

#endif
