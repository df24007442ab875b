/* What a scenario stands in: three demo backends, a proxy before them and the load on it, all new; what the scenario
 * has done to them and when; and the promises, as they were found. */
#ifndef CHAOS_STAGE_H
#define CHAOS_STAGE_H

#include "clock.h"
#include "process.h"
#include "proxy.h"

#define ALL_BACKENDS ((1u << BACKENDS) - 1)
#define PROMISES_MAX 16

struct promise {
    const char *name;
    char found[160];
    bool kept;
};

struct stage {
    const struct proxy *proxy;
    const struct pace *pace;
    const char *scenario;
    char dir[200];
    int port, backend_ports[BACKENDS];
    struct process balancer, backends[BACKENDS];
    struct watch watch;
    struct load *load;
    const char *label[BACKENDS]; /* for the picture: what is done to it now */
    uint64_t begun, drawn;

    /* Told by the scenario. */
    uint64_t fault_at, fault_end;         /* the fault's; 0: there was none */
    uint64_t excused_from, excused_until; /* in between requests may fail */
    uint64_t even_from;                   /* from here on shares are counted; 0: not */
    uint64_t down_us, back_us;            /* time to take it out, to take it in again; 0: not seen */

    struct promise promises[PROMISES_MAX];
    unsigned promise_count;
};

/* Starts everything, and the load; returns when `pace->warm` requests have been answered. False, with a line on stderr,
 * when something does not start. `ports`: the proxy's, then the backends'. */
bool stage_open(struct stage *s, const struct proxy *proxy, const struct pace *pace, const char *scenario,
                const int ports[BACKENDS + 1]);
/* Ends all; keeps the folder, and says where it is, when `keep`. */
void stage_close(struct stage *s, bool keep);

/* Looks at the log, draws the picture, rests a moment. */
void stage_turn(struct stage *s);
/* Waits for a condition, at most that long. Whether it came true is asked again afterwards. */
#define AWAIT(s, us, condition)                                                                                        \
    for (uint64_t until_ = now_us() + (us); !(condition) && now_us() < until_;)                                        \
    stage_turn(s)

/* Writes the config for the backends whose bit is set. */
void stage_configure(struct stage *s, unsigned mask);
bool stage_start_balancer(struct stage *s);
/* Starts a backend, and waits until its port is open. */
bool stage_start_backend(struct stage *s, int i);
/* Begins an outage of a demo backend; `health_ok`: its /health is spared. False when it does not answer. */
bool stage_outage(struct stage *s, int i, const char *mode, unsigned ms, bool health_ok);

/* One request to the proxy on a connection of its own; its status, or -1. Content in *body (to be freed) if not NULL.
 */
int stage_ask(const struct stage *s, const char *method, const char *target, const char *fields, const char *content,
              struct bytes *body);

/* Writes down a promise and what was found. */
void stage_promise(struct stage *s, const char *name, bool kept, const char *found, ...)
    __attribute__((format(printf, 4, 5)));

/* What a bound in time may be missed by because of the machine and the measuring: twice the worst lateness of our own
 * requests in this scenario (the proxy and the judge are held up alike), two turns of watching, and the time between
 * two requests that a backend gets. */
uint64_t stage_slack(const struct stage *s);
/* fall x interval + timeout; rise x interval. */
uint64_t stage_fall_bound(const struct stage *s);
uint64_t stage_rise_bound(const struct stage *s);

#endif
