/* Inside of the judge: shared by judge.c (requests, the log, deliveries, the end), judge_reason.c (answers, cuts,
 * tunnels) and judge_limit.c (the limiter).
 *
 * What it knows it has from the actors, from the network and from the log; most is judged when it happens, and what
 * takes both the answer and its line in the log, when the later of them comes. */
#ifndef LB_SIM_JUDGE_IMPL_H
#define LB_SIM_JUDGE_IMPL_H

#include "world.h"

/* One process, from its start to its end, and what its log and its clients say of it. */
#define STATUS_MAX 600u
struct life {
    enum { LIFE_RUNS, LIFE_EXITED, LIFE_KILLED } end;
    bool lossy;     /* its log may lack lines that are not counted */
    bool powerless; /* the power was cut when it was there or after: what it left to the kernel is gone */
    uint64_t drain_begun;
    bool hurried;   /* by a second signal */
    int status;     /* of its exit */
    bool said_stop; /* its log has the `stop` line, and by that */
    uint64_t cut;   /* so many exchanges were cut off, */
    bool unsaved;   /* the clients are not saved */
    uint64_t dropped /* lines, it says */;
    unsigned reasons[STATUS_MAX], own[STATUS_MAX]; /* by status: lines with a reason, answers of its own */
};

/* The process that was there after so many deaths; it stays where it is until another is asked for. */
struct life *judge_life(unsigned deaths);
uint32_t request_count(void);

/* Has its process, or the kernel that was still to bring what a process had written, come to a sudden end? */
bool judge_is_killed(const struct request *r);
/* Was there a moment, while it was under way, in which no backend was known to be available? */
bool judge_none_available(const struct request *r);
/* Was there a moment since then in which that backend (BACKENDS_MAX: any) was known not to be available? */
bool judge_was_unavailable(unsigned backend, uint64_t since);
/* Has the loop stood still in mid-turn, longer than a time-out can be? Some 200 ms before `since` count, too: the turn
 * that it stood still in was to go on. */
bool stalled_since(uint64_t since);

/* An answer of that backend has reached its client: to a request that it had at that time. */
void judge_backend_answered(unsigned backend, uint64_t delivered_at);

/* Does what the log says of its answer fit? Only once both are there. */
void judge_check_reason(const struct request *r);
/* May the limiter have refused it? */
bool judge_may_refuse(const struct request *r);

/* Have both sides ended its tunnel in order? */
bool judge_tunnel_is_whole(const struct request *r);
/* At the end of the run. */
void judge_check_tunnel(const struct request *r);
void judge_check_limits(void);

#endif
