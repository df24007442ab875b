/* One request of the load: what is sent, and what its answer must be. Nothing here reads or writes a socket. */
#ifndef CHAOS_CALL_H
#define CHAOS_CALL_H

#include "harness/util.h"

enum call_kind {
    CALL_SHOW,    /* GET: JSON that shows the request */
    CALL_BYTES,   /* GET: CALL_CONTENT bytes by Content-Length */
    CALL_CHUNKED, /* GET: as many, chunked */
    CALL_PUT,     /* with a content: idempotent, and has to be kept for another attempt */
    CALL_POST     /* with a content and an id: never delivered twice */
};

#define CALL_CONTENT 20000u

enum outcome {
    CALL_PENDING,
    CALL_OK,
    CALL_502,
    CALL_503,
    CALL_504,
    CALL_OTHER,     /* another status than 200 */
    CALL_REFUSED,   /* no connection */
    CALL_NO_ANSWER, /* the connection ended before a whole head */
    CALL_CUT,       /* the answer ended before its end, and could be seen to */
    CALL_LATE,      /* no answer in time */
    CALL_WRONG,     /* an answer that claims to be whole and is not what was asked for, or no HTTP */
    CALL_OUTCOMES
};
const char *outcome_name(enum outcome o);

bool call_is_idempotent(enum call_kind kind);

/* Appends the request. `close`: it ends its connection. */
void call_write(struct bytes *out, enum call_kind kind, unsigned serial, bool close);

struct answer {
    enum outcome outcome; /* CALL_PENDING: more bytes are needed */
    int backend;          /* 0, 1, ... by its X-Backend "b1", "b2", ...; -1: not known */
    bool last;            /* the connection ends with it */
};

/* What the bytes so far are; `ended`: no more will come, `reset`: and that was no orderly end. */
struct answer call_judge(enum call_kind kind, const struct bytes *in, bool ended, bool reset);

#endif
