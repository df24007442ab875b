/* Something that can happen many times a second, and is worth a line of the log: the first time at once, then at most
 * one an interval, with how often it has happened since the line before. What comes behind a line is not kept until it
 * happens again: a timer says it. */
#ifndef LB_EVENT_NOTICE_H
#define LB_EVENT_NOTICE_H

#include "event/loop.h"

struct notice;
typedef void notice_fn(struct notice *n, uint64_t count); /* writes the line */

struct notice { /* embedded */
    struct loop *loop;
    notice_fn *say;
    uint64_t interval; /* ns */
    uint64_t count;    /* since the last line */
    struct timer timer;
};

void notice_init(struct notice *n, struct loop *l, uint64_t interval, notice_fn *say);

/* It has happened once more. May call `say`. */
void notice_count(struct notice *n);

/* Says at once what has not been said yet, if there is any: for the end, behind which no line comes. */
void notice_flush(struct notice *n);

/* Says nothing any more. Harmless for one that is all zeros. */
void notice_fini(struct notice *n);

#endif
