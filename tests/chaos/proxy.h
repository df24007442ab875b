/* The proxies under test: how each is configured, started and told to reload. */
#ifndef CHAOS_PROXY_H
#define CHAOS_PROXY_H

#include "watch.h"

/* The pace of a run: the intervals that all proxies get, as far as they have them, and how long things are looked at.
 */
struct pace {
    unsigned interval_ms, timeout_ms, response_ms; /* of checks; of a check; of an answer */
    unsigned rate;                                 /* requests a second */
    unsigned warm, even;                           /* requests before the fault; over which shares are counted */
    unsigned reloads;
};

#define FALL          3
#define RISE          2
#define FAILURES      20 /* in a row that eject: many, so that many requests meet a fault */
#define EJECTION      2  /* intervals; doubled up to ... */
#define EJECTION_MOST 4

struct proxy_world {
    const char *dir;
    int port;
    const int *backend_ports;
};

struct proxy {
    const char *name, *program; /* the program's path; ours is found in the build folder when this is NULL */
    struct watch_words words;
    /* Writes its config for the backends whose bit is set. */
    void (*configure)(const struct proxy_world *w, const struct pace *p, unsigned mask);
    const char *arguments[8]; /* "@" stands for the folder */
};

extern const struct proxy proxies[];
extern const unsigned proxy_count;

static inline bool proxy_is_ours(const struct proxy *p)
{
    return p->program == NULL;
}

#endif
