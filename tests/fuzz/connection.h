/* Inside of fuzz_connection.c: what one input is and what has come of it, shared with the files that play the backend
 * and check the outcome. */
#ifndef FUZZ_CONNECTION_H
#define FUZZ_CONNECTION_H

#include "harness/reference.h"

#include "base/buf.h"

#include <stdio.h>
#include <stdlib.h>

#define SPLIT    0x1f
#define RECORD   0x1e
#define GROUP    0x1d
#define FILE_SEP 0x1c

#define REQUESTS_MAX 24
#define CONNS_MAX    64
#define MESSAGES_MAX 128
#define SPLITS_MAX   48
#define SESSIONS_MAX 3
#define TURNS_MAX    3000
#define CLIENT_IP    "192.0.2.7"

/* Aborts, saying what did not hold. */
#define CHECK(what)                                                                                                    \
    do {                                                                                                               \
        if (!(what)) {                                                                                                 \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #what);                                                 \
            abort();                                                                                                   \
        }                                                                                                              \
    } while (0)

/* The same for what gives a reason, or NULL. */
#define CHECK_NO(fault)                                                                                                \
    do {                                                                                                               \
        const char *reason_ = (fault);                                                                                 \
        if (reason_) {                                                                                                 \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, reason_);                                               \
            abort();                                                                                                   \
        }                                                                                                              \
    } while (0)

/* The reference's limits for what comes out of the proxy. */
extern const struct reference_limits wide;

/* A client's connection. */
struct session {
    struct buf bytes; /* all that it sends */
    size_t splits[SPLITS_MAX];
    unsigned split_count;
    bool fin;
    unsigned said_at, said_end; /* the reference's word on its requests; only the last may be a bad one */
    int fd;
    struct buf in;
    bool eof;
};

/* A message that reached the backend, whole or (the last of a connection) in part. */
struct message {
    unsigned conn;
    size_t at, n;
    size_t heard_at; /* bytes that the backend had said when this began to arrive */
    unsigned said;   /* of a whole one: which request it is, the first that it can be */
    bool whole, to_head;
};

struct conn {
    int fd; /* -1: closed */
    struct buf in, out;
    size_t taken;    /* of `in`: whole messages */
    size_t heard_at; /* see struct message */
    bool ended;      /* closed from here */
};

struct input {
    struct session sessions[SESSIONS_MAX];
    unsigned session_count, session; /* that there are; the one under way */
    bool tunnel;                     /* there may be one, in which bytes are no messages */
    const uint8_t *script;           /* what the backend does */
    size_t script_n, script_at;

    struct reference said[REQUESTS_MAX];
    unsigned said_count;

    struct conn conns[CONNS_MAX];
    unsigned conn_count, current;
    struct message messages[MESSAGES_MAX];
    unsigned message_count, waits, next; /* `next`: the first request that has not reached the backend */
    bool resent;                         /* the one before it has come twice */
};

extern struct input input;

/* All that waits at a descriptor, without blocking. False at its end; *progress is set when anything happened. */
bool read_all(int fd, struct buf *to, bool *progress);
void keep(struct buf *b, const void *p, size_t n);
void clear(struct buf *b);

/* The backend's turn: takes connections from `listen_fd`, reads, checks each message that is whole, and goes on with
 * the script. True when anything moved. */
bool backend_step(int listen_fd);
void conn_close(struct conn *c);
/* Notes a message that has come on a connection, behind those taken. */
void note_message(unsigned conn, const struct reference *got, size_t n, bool whole);

/* At the end: what came in part to the backend; what the clients got. */
void check_partial(unsigned conn);
void check_client(const struct session *s);
/* When nothing moves any more: a response that the backend has given whole is with its client. */
void check_progress(const struct session *s);

#endif
