/* The threads that ask for names. Each is taken by one name at a time, and for many seconds by one whose name server
 * says nothing; so there are some of them. Where there are more names, those that were not answered the last time get
 * what the others leave, though never less than one thread, nor all of them. */
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
    unsigned count, names;                 /* threads, and the most names that they have been there for */
    struct list waiting, unheard;          /* ... those that were not answered the last time apart */
    unsigned unheard_asked;                /* of these, how many are being asked */
    unsigned forgotten; /* of what is being asked, that of which nobody waits for the answer any more */
};

/* NULL when memory runs out. No thread is started yet. */
struct names *names_new(struct loop *l) __attribute__((warn_unused_result));

/* So many names may be asked for at a time from now on: starts the threads that are missing for that. False, with
 * errno, when not even one can be started. */
bool names_start(struct names *n, unsigned names) __attribute__((warn_unused_result));

/* Asks as soon as there is a thread for it. There must be one at all. */
void names_ask(struct names *n, struct resolve *r);

/* Its answer is not told any more. In a thread's hands it goes on there, as one of the unheard. */
void names_forget(struct names *n, struct resolve *r);

/* Waits for no answer; none is told any more. NULL is fine. */
void names_free(struct names *n);

#endif
