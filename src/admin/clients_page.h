/* A page of the list of clients, built in slices. */
#ifndef LB_ADMIN_CLIENTS_PAGE_H
#define LB_ADMIN_CLIENTS_PAGE_H

#include "limit/clients.h"

struct page {
    uint64_t place; /* of the last client in it, in the order of registration */
    size_t left;    /* clients that it has room for */
    struct buf body;
    bool failed; /* there was no memory */
    bool more;   /* clients follow it */
    char last[CLIENT_ID_MAX + 1];
    /* The last client in it whose id stands for its place, and the length of the body up to it; 0: there is none. */
    struct page_end {
        size_t len;
        uint64_t place;
        char id[CLIENT_ID_MAX + 1];
    } end;
};

/* A page of at most `limit` clients behind that place (0: from the start). */
void page_init(struct page *p, uint64_t place, size_t limit);
void page_fini(struct page *p);

/* Adds the next clients, so few that it takes some tenths of a millisecond whatever their ids are. True when that was
 * all: `body` is the answer then, or it has failed. */
bool page_step(struct page *p, struct limiter *lim) __attribute__((warn_unused_result));

#endif
