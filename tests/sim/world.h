/* The world around the daemon: its config, clients, backends, callers of its API, and whoever operates it; each a small
 * state machine that draws from a random stream of its own. And the judge, who knows of each request what was asked,
 * who got it, and what was answered. */
#ifndef LB_SIM_WORLD_H
#define LB_SIM_WORLD_H

#include "bytes.h"
#include "engine.h"
#include "kernel.h"
#include "message.h"

#define BACKENDS_MAX 6u
#define CLIENTS_MAX  16u
#define CALLERS_MAX  8u
#define NAMED_MAX    3u
#define SERVED_MAX   12u

/* The daemon's pace: less than 100 bytes a second are not waited for beyond so long, or their time-out where that is
 * longer. */
#define PACE_SPAN (10 * S)

/* ---- what a run is made of ---- */

enum phase {
    PHASE_CHAOS,  /* faults and outages */
    PHASE_CALM,   /* everything is well again, and has time to be noticed */
    PHASE_VERIFY, /* now everything must work */
    PHASE_TIMING, /* do the time-outs come when they should? */
    PHASE_QUIET,  /* nobody asks anything: what is still held? */
    PHASE_STOP    /* SIGTERM */
};

struct settings { /* config.json, as the seed chose it */
    unsigned backends;
    struct {
        bool backup, unix_socket, named;
        unsigned weight, max_connections;
    } backend[BACKENDS_MAX];
    bool unix_listen, limiter_on, checks_on, passive_on, log_to_file;
    uint64_t interval, check_timeout, ejection, max_ejection, save_interval;
    unsigned fall, rise, failures, attempts, budget_percent;
    uint64_t client_header, client_idle, client_body, client_write, connect, backend_response, backend_idle, tunnel,
        shutdown;
    bool tunnel_short; /* short enough to be waited for */
    unsigned connections, max_tracked;
    const char *rate_headers, *balance;
    bool by_turn; /* it gives each its exact share */
    bool capped;  /* a backend has max_connections: requests may wait, and be refused for it */
    unsigned queue_size;
    uint64_t queue_timeout, slow_start;
    int batch;
    double capacity, rate; /* the default policy, until a reload changes it */
    double named_capacity[NAMED_MAX], named_rate[NAMED_MAX];
    unsigned registered; /* the client whose address is registered from the begin on; CLIENTS_MAX: none */
    double registered_capacity, registered_rate;
};

struct world {
    struct settings set;
    struct sim_addr listen;
    enum phase phase;
    bool gentle; /* no faults but those that nobody may notice, backends that are right: nothing may go wrong */
    bool delays; /* threads may lose the processor for a while */
    bool kill_next_start; /* soon after it; */
    bool cut_next_start;  /* likewise the power */
    bool mounted;         /* clients.json is a mount point, as containers have it: it cannot be renamed over */
    bool faulty_backends;
    uint64_t chaos_end;                                         /* when the chaos ends */
    unsigned deaths;                                            /* of the process, however it ended */
    unsigned kills, power_cuts, wall_steps, stops, lossy_stops; /* lossy: the last save failed */
    unsigned clean_stops, unsure_starts; /* exit status 0; in whose life calls have failed that a start makes */
    bool draining;                       /* SIGTERM was sent to the present process */
    uint64_t drain_begun;
    unsigned double_signals;
    bool varied;                 /* a reload has changed the config of some process */
    unsigned changes;            /* how often */
    bool restored;               /* ... and after the chaos it is what it was */
    bool disk_full, log_stalled; /* log_stalled: at least once in the life of this process */
};
extern struct world world;

/* False when the run is to do without this one (--without). */
bool world_has(const char *kind, unsigned index);
/* Replaces the list: names such as "client3", separated by commas. */
void world_without(const char *list);
/* Calls fn for each part that the present run has asked for by world_has(). */
void world_each_part(void (*fn)(void *arg, const char *name), void *arg);

/* For the begin of a run. */
void world_forget_parts(void);

/* Fills world.set, and what else of `world` and `kernel` a run has from its begin on. */
void settings_draw(void);
/* Writes config.json to the simulated disk. */
void settings_write(void);
/* The same with something changed that a reload is to take over: weights, time-outs, the limits of unregistered
 * clients, how often is saved, and whether the backend that comes and goes is there. */
void settings_write_changed(struct rng *r);
/* That backend's number; BACKENDS_MAX when none does. */
unsigned settings_wanderer(void);
/* Plans all that is to befall the daemon. */
void operator_plan(void);
/* The machine starts: its clock is at zero, its boot has a name of its own. */
void operator_boot(void);
void operator_cut_power(void);
/* What befalls the clocks while nobody runs, for so long. */
void operator_turns_clocks(uint64_t ns);
/* SIGHUP. */
void operator_reload(void);
/* SIGTERM or SIGINT, of which it is noted that an end is due. */
void world_stop_daemon(void);

/* One whole run; returns when it is over. A finding does not return. */
void world_run(uint64_t seed);
/* Only sets a run up, so that world_each_part() knows its parts. For a process that ends then. */
void world_learn(uint64_t seed);
/* What the run did, in one line. */
void world_summary(struct bytes *out);
/* Part of the sum: something that counts towards the summary. */
struct tally {
    uint64_t requests, answered, forwarded, own, cut, api_calls, api_changes, deliveries, runs, sim_ns, retries;
    uint64_t starts, kills, power_cuts, faults, tunnels, trailers, stale_replaced;
};
extern struct tally tally;

/* ---- requests ---- */

/* One direction of a tunnel, as its source and its sink know it. */
struct flow {
    uint64_t key, length;       /* what is to be sent */
    uint64_t sent, received;    /* so far */
    uint64_t sent_at, taken_at; /* when last */
    struct end *sink;           /* where it comes out; NULL: nowhere yet, or no more */
    uint64_t before;            /* so many bytes came out there before it */
    uint64_t fed_at, fed;       /* when the daemon last wrote of it, and how much in all, as of when the sink went */
    bool ended;                 /* its source has sent FIN behind it all; */
    bool seen;                  /* its sink has that, and all before it */
    bool left;                  /* its source has gone out of order, of its own accord */
    uint64_t left_at;
};

/* One answer of a backend to one delivery of a request. */
struct served {
    unsigned backend, status;
    uint64_t key, length; /* of its content */
    enum message_framing framing;
    bool early;           /* written without waiting for the request's content */
    bool huge_head;       /* above the limit */
    bool begun;           /* a byte of it has been written */
    bool whole;           /* written to its end, as its framing has it */
    bool doubtful;        /* its connection was reset behind it: perhaps it never arrived */
    unsigned trailers;    /* a set of trailers_add() */
    const char *protocol; /* a 101 that is right: to what; else NULL */
    bool tunnel_cut;      /* its backend's end, while the client did not have the 101 yet */
    struct flow down;
};

enum outcome { OUTCOME_OPEN, OUTCOME_ANSWERED, OUTCOME_CUT };

struct request {
    uint32_t id;
    unsigned client;
    const char *method;
    bool idempotent, chunked, expects, head, http10;
    uint64_t length; /* of its content */
    uint64_t key;
    unsigned trailers;   /* behind its content, a set of trailers_add() */
    bool says_te;        /* that it takes trailers; */
    bool takes_trailers; /* and that counts: it is HTTP/1.1 */
    unsigned offer;      /* of another protocol, as offer_draw() has it; 0: none */
    const char *upgrade; /* the protocols that a backend is to see offered, as the field's value; NULL: none */
    uint64_t early;      /* bytes for the tunnel sent behind it at once */
    bool ends_last;      /* in a tunnel its client waits for the backend's end before its own */
    enum manner {
        TUNNEL_AS_DRAWN,
        TUNNEL_IDLE,  /* a backend switches, and then says nothing */
        TUNNEL_TICKS, /* ... or a byte now and then, for a while */
        ANSWER_LARGE, /* more than all buffers hold */
        ANSWER_NEVER, /* the backend hangs */
    } manner;
    struct flow up;
    struct served *switched; /* the 101 that its client has got */
    struct served *taker;    /* who has got bytes of `up` */
    bool tunnel_cut;         /* at least one of its ends */
    uint64_t sent_at;        /* its first byte; */
    uint64_t head_sent_at;   /* the head's last */
    uint64_t quiet_from;     /* when its connection was last given something for its client: an answer, or its begin */
    bool sent_whole;
    uint64_t whole_at; /* when its client's kernel had all of it; 0: not yet */
    /* world.deaths when its connection was begun, and when it was there: it may have been begun at a process that was
     * dead when the packet came, and be the next one's. */
    unsigned deaths, life;
    unsigned deliveries;
    uint64_t first_delivery;
    uint64_t last_attempt_at; /* when the daemon began to write what was delivered last */
    struct served served[SERVED_MAX];
    unsigned served_count;
    enum outcome outcome;
    uint64_t ended_at;
    unsigned status;
    bool own_answer;            /* the daemon's */
    bool trickles;              /* its content comes below the pace that is asked for */
    bool may_stall;             /* its client does not always send or read in time */
    uint64_t last_sent, fed_at; /* when the client of such a one, and the daemon, last wrote on its connection */
    bool unwritten;             /* it was cut when a part of its answer was not with the kernel yet */
    bool cut_up;                /* it was cut when its process had come to the end of its drain */
    unsigned logged;            /* `request` lines for it */
    unsigned logged_status;
    bool logged_reason, logged_in_drain;
    unsigned logged_backend; /* of its last attempt; BACKENDS_MAX: none */
    unsigned failed_at;      /* at these backends (a bit each) an attempt has failed before another, says the log */
    unsigned attempts;       /* at so many backends, says the log; */
    bool over_budget;        /* and that there would have been more, but for the budget; */
    uint64_t queued_ms;      /* so long it has waited for a place; */
    char reason[32];         /* why it was answered by the daemon */
    /* What was known when its answer came. */
    struct {
        bool none;     /* no backend was known to be available for a while */
        bool hindered; /* a call has failed that an attempt needs */
        bool trouble;  /* that, or something was wrong with a backend */
        bool crowded;  /* there were more connections than there may be, when its own was begun or after */
        unsigned open; /* requests besides, as far as the daemon can have known */
    } then;
};

struct request *request_new(unsigned client);
struct request *request_find(uint32_t id); /* NULL when there is none */
/* Has a backend left an answer to it unfinished, as far as the daemon can have seen? `from`: the one whose head has
 * reached its client; NULL: none has, and it may be any. */
bool request_was_cut(const struct request *r, const struct served *from);

/* ---- what a request may ask for besides ---- */

/* Another protocol: draws which to offer, and with what else that is to be ignored. */
void offer_draw(struct request *r, struct rng *g);
/* Does it name fields in Connection? Then none of its trailers goes on, for they might be among them. */
bool names_fields(const struct request *r);
/* Connection, Upgrade and TE of a request, which closes its connection with `close`. */
void wishes_add(struct bytes *out, const struct request *r, bool close);
/* What is wrong with them at a backend; NULL: nothing. */
const char *wishes_wrong(const struct message *m, const struct request *r);
/* One of the offered protocols. */
const char *offer_choose(const struct request *r, struct rng *g);

/* Trailers: a set of them, some of which must not go on. */
unsigned trailers_draw(struct rng *g);
/* Appends the field lines, whose values speak of `id`. */
void trailers_add(struct bytes *out, unsigned set, uint32_t id);
/* The message's trailers must be those of `set` that go on in that direction, and no other: what is wrong, or NULL. */
const char *trailers_wrong(const struct message *m, unsigned set, uint32_t id, bool to_backend);

/* ---- tunnels ---- */

enum leaving { LEAVES_NOT, LEAVES_BY_RESET, LEAVES_BY_CLOSE, LEAVES_BY_VANISHING };

/* One end of a tunnel, embedded in its client or in the backend's connection: sends its pattern in pieces, rests, stops
 * reading for a while, half-closes, leaves before the end; and looks at each byte that comes. */
struct side {
    bool on, client;
    struct request *r;
    struct served *s;
    struct flow *out, *in;
    struct end *e;
    struct bytes *unsent; /* its owner's; what is in it at first is sent first */
    struct rng rng;
    uint64_t piece, pause;               /* writes such pieces, so long apart */
    uint64_t rest_at, rest;              /* sends nothing for so long after so many bytes */
    uint64_t stop_at, stop;              /* reads nothing for so long after so many bytes */
    uint64_t sip, sip_pause, slow_until; /* reads such pieces, so long apart, until then; 0: all there is */
    uint64_t ticks;                      /* so many bytes one by one, `pause` apart */
    bool ends_last;                      /* its FIN comes behind the other's */
    bool silent;                         /* sends nothing, not even FIN before the other's */
    bool fin;                            /* the other's has arrived, perhaps behind bytes that wait to be read */
    enum leaving leaves;                 /* of its own accord, after `leaves_at` bytes sent */
    uint64_t leaves_at;
    struct event write_act, read_act, look;
    void (*done)(struct side *t, const char *how); /* the end is gone */
};

/* From now on the end is the tunnel's. `may_leave`: before its time. */
void side_begin(struct side *t, struct end *e, struct request *r, struct served *s, bool client, bool may_leave);
/* The source of `f` goes out of order, with so many bytes of it, or of what stands before it, unsent. */
void flow_leave(struct flow *f, const struct served *s, size_t unsent, enum leaving how);
/* Leaves in the middle; `done` is called. */
void side_leave(struct side *t, enum leaving how);
/* Hands on an event that came to its owner. */
void side_event(struct side *t, enum end_event event);
/* For its owner's end. */
void side_forget(struct side *t);
/* No more rests. */
void side_calm(struct side *t);
/* How long a tunnel is that a client or backend draws. */
uint64_t tunnel_length(struct rng *g);
void tunnels_begin(void);
void tunnels_calm(void);

/* ---- the judge ---- */

void judge_begin(void);
void judge_end(void);
/* Lines of the log, as they are written; p NULL when a file of it begins. */
void judge_log(const char *p, size_t n);
/* A process is started; it is told to end, or to hurry with it; it has ended. */
void judge_start(void);
void judge_drain(bool hurried);
void judge_end_of_life(bool killed, int status);
/* Have calls failed, since the process began, that its start needs to find what was kept of buckets? */
bool judge_start_is_unsure(void);
void judge_power_cut(void);
bool judge_was_killed(unsigned in_life);
/* A request's head has reached a backend on a connection on which the choice was made in `turn` (UINT64_MAX: by a
 * process that is no more); it was written at `at`, 0: nobody knows. */
void judge_delivery(struct request *r, unsigned backend, uint64_t turn, uint64_t at);
/* A client has its answer, or will never have it. */
void judge_answer(struct request *r, unsigned status, bool own);
/* Somebody has got an error that process number `in_life` must have logged. */
void judge_own_answer(unsigned in_life, unsigned status);
void judge_cut(struct request *r, const struct served *from, bool own_fault, const char *how);
/* An end of its tunnel, at the client or the backend, was ended before its time. */
void judge_tunnel_cut(struct request *r, struct served *s, bool client, const char *how);
/* What the network may take, there and back, with every piece cut up. */
uint64_t network_slack(void);
/* At the end of the run. */
void judge_sum_up(void);
/* From now on lines may be late. */
void judge_note_lag(void);

/* ---- the limits of unregistered clients ---- */

void limits_begin(void);
/* A process is started, with those of world.set. */
void limits_started(void);
/* A config.json with other limits is there; a reload is asked for; it has been logged, or its failure has. */
void limits_written(double capacity, double rate);
void limits_asked(void);
void limits_reloaded(bool ok);
/* The least capacity there was in the run, and the least rate. */
double limits_least_capacity(void);
double limits_least_rate(void);
/* The greatest capacity that may have been in force at some time in between, and the tokens made until then at the
 * greatest rate that may have been. `or_first`: those of world.set may have been at any time. */
double limits_capacity(uint64_t from, uint64_t to, bool or_first);
double limits_made(uint64_t until, bool or_first);

/* ---- faults that have been shown ---- */

enum shown_kind {
    SHOWN_HEAP = 1,
    SHOWN_DESCRIPTORS = 2,
    SHOWN_EPOLL = 4,
    SHOWN_CONNECT = 8,
    SHOWN_DISK = 16, /* writing; a full disk is one as long as it is full */
    SHOWN_SYNC = 32,
    SHOWN_START = 64, /* of a start's own calls */
    SHOWN_STALL = 128 /* no failure: a thread stood still in the middle of a turn, whose clock does not know that */
};

/* Has a call failed, of the kinds in `kinds`, since `since`? */
bool fault_since(unsigned kinds, uint64_t since);
/* Looks at what the kernel has counted: to be called often enough to know when. */
void faults_look(void);

/* ---- actors ---- */

void backends_begin(void);
void backends_calm(void);
void backends_end(void);
struct sim_addr backend_addr(unsigned i);
/* Requests that backend `i` was sent since backends_count_from_here(). */
void backends_count_from_here(void);
/* Has any backend been out of order since then? */
bool backends_unwell_since(uint64_t since);
/* Has backend `i` (BACKENDS_MAX: any) closed a kept connection since then, as far as the daemon can have known? */
bool backend_closed_kept_since(unsigned i, uint64_t since);
/* Those who answer probes begin to count. */
void backends_new_process(void);
/* The daemon says that backend `i` is up or down because of its answers to probes: were there enough of them? */
void backend_check_count(unsigned i, bool up);
unsigned backend_counted(unsigned i);
unsigned backends_resolve(const char *name, struct sim_addr out[8], uint64_t *delay);

void clients_begin(void);
void clients_calm(void);
void clients_verify(void); /* starts the client whose every request must succeed */
bool clients_done(void);
bool clients_verified(void);
void clients_check_stuck(void);
/* Who is not done, as text. */
void clients_describe(struct bytes *out);
void clients_end(void);
/* Client `i` asks no faster than its rate. */
bool client_is_polite(unsigned i);
/* ... and is not limited. */
bool client_is_exempt(unsigned i);
/* Its address is 10.1.x.y: 256 * x + y. */
unsigned client_host(unsigned i);
/* The name that client `i` is registered under and sends, or "". */
const char *client_identity(unsigned i);

/* Clients that wait for one time-out each, and look at the clock: when all else is quiet. */
void timing_begin(void);
bool timing_done(void);
void timing_describe(struct bytes *out);
void timing_end(void);

void callers_begin(void);
void callers_calm(void);
void callers_verify(void);
void callers_crashed(void); /* kill -9 or power cut */
bool callers_done(void);
/* Does one of them register the address of that client, and delete it again? */
bool callers_register(unsigned client);
/* Who is not done, as text with a zero. */
void callers_describe(struct bytes *out);
void callers_end(void);
/* After a graceful stop: the files hold what they should. */
void callers_check_files(void);
/* The text of the first clients.json. */
void callers_first_file(struct bytes *out);

#endif
