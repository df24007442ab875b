/* What a proxy says about its backends: its log is read as it grows. */
#ifndef CHAOS_WATCH_H
#define CHAOS_WATCH_H

#include "load.h"

/* How one proxy's log speaks of a backend: a line is about one that holds `who` with the backend's number (1, 2, ...)
 * or port in it, and says that it is out or back when it holds `down` or `up` (NULL: it never says so). */
struct watch_words {
    const char *down, *up;
    const char *who;
    bool by_port;
};

#define WATCH_EVENTS 256

struct watch {
    const struct watch_words *words;
    char path[256];
    const int *ports;
    size_t at; /* bytes read */
    struct {
        uint64_t seen;
        int backend;
        bool down;
    } events[WATCH_EVENTS];
    unsigned count;
    bool is_down[BACKENDS];
};

void watch_init(struct watch *w, const char *path, const struct watch_words *words, const int *ports);
/* Reads what is new; what it says happened now. */
void watch_poll(struct watch *w);
/* When this backend was first said to be out since then; 0: it was not. */
uint64_t watch_down_since(const struct watch *w, int backend, uint64_t since);

#endif
