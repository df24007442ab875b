/* An upgrade of the running program (SIGUSR2): the binary as it is on disk now is started, and takes over the listening
 * socket, the clients' files and, one by one, the connections.
 *
 *      this process                                        the new one
 *      SIGUSR2: start it, with a copy of the socket ---->  config, backends, first checks
 *      freeze: no request is begun             <-- p ----  prepared
 *      save clients.json, give the files away
 *      what is known of the backends           --- h --->
 *      the unregistered clients' buckets       --- b --->
 *      that was all                            --- g --->  load clients.json, listen
 *      drain                                   <-- r ----  ready: accepts
 *      the listening socket is left            --- l --->  an address that is not its own is closed
 *      each connection, when it is free        --- c --->  goes on with it
 *      nothing left: exit
 *
 * Between the freeze and `r` requests wait, in the sockets. No request is ever decided by one process after the other
 * has begun to: so all tokens are exact. From the save to `r` the files are nobody's, or the new process's. Whatever
 * fails up to `r` ends that, and this process goes on: with the files loaded anew, where it had given them away. */
#ifndef LB_UPGRADE_H
#define LB_UPGRADE_H

#include "lifecycle.h"
#include "limit/limiter.h"
#include "proxy/proxy.h"
#include "reload.h"

struct upgrade;

struct upgrade_setup {
    struct loop *loop;
    struct lifecycle *lifecycle;
    struct proxy *proxy;
    struct upstream *upstream;
    struct reload *reload;
    const char *path;  /* of the program */
    char *const *argv; /* what it is started with: as this process was */
    /* The files have been given away, and nobody took them: loads them anew into another limiter, which goes on with
     * all that the one before had in memory only. False when that fails; logged. */
    bool (*restart_limiter)(void *arg);
    void *arg;
};

/* One byte in front of each message; connections have their unused bytes behind it, buckets the lines of
 * limiter_export(), health those of upstream_export(), and `prepared` a letter for each thing that the new process can
 * take over and older ones cannot. Others are ignored: an older process does not know them all. */
#define UPGRADE_PREPARED    'p'
#define UPGRADE_HEALTH      'h'
#define UPGRADE_BUCKETS     'b'
#define UPGRADE_GO          'g'
#define UPGRADE_READY       'r'
#define UPGRADE_LEFT        'l'
#define UPGRADE_CONNECTION  'c'
#define UPGRADE_TAKES_WORDS 'w' /* buckets may be told as words */
#define UPGRADE_MESSAGE_MAX (96u * 1024u)

/* How long the new process may take to get prepared, and then ready. */
#define UPGRADE_PATIENCE (30 * NS_PER_S)

/* NULL when memory runs out. What is in `setup` outlives it. */
struct upgrade *upgrade_new(const struct upgrade_setup *setup) __attribute__((warn_unused_result));

/* Begins an upgrade. Logs `upgrade` when the new process has taken over (this one drains then), or `upgrade_failed`
 * with the cause: this one goes on. The first process of a PID namespace cannot be upgraded. */
void upgrade_begin(struct upgrade *u);

/* SIGTERM or SIGINT during an upgrade: true when that is taken care of: it is given up, and the process stops then; a
 * second one is passed on as such, once that has begun. False when there is none, or it is over: the process may be
 * stopped as ever. */
bool upgrade_stop(struct upgrade *u, const char *signal_name);

/* NULL is fine. */
void upgrade_free(struct upgrade *u);

#endif
