/* Answers made here: who serves a request that is not forwarded. The client API hangs in through this interface, so
 * that the proxy does not know it. */
#ifndef LB_PROXY_LOCAL_H
#define LB_PROXY_LOCAL_H

#include "base/arena.h"
#include "base/err.h"
#include "http/parse.h"
#include "net/addr.h"

#define LOCAL_BODY_MAX (64u * 1024u)

/* A request as the handler gets it, body whole. Slices live until the answer. */
struct local_request {
    const struct peer *peer;
    const struct request *request; /* valid in admit() only; NULL in start() */
    struct str target, body;
    enum method method;
};

/* An answer to be sent: body bytes are copied by local_answer(). */
struct local_answer {
    unsigned status;
    struct str content_type; /* "" with an empty body */
    struct str fields; /* complete further field lines with CRLF (Allow, WWW-Authenticate, Retry-After); may be empty */
    struct str body;
    const char *reason; /* for the log; "" for none */
};

/* One local exchange under way; the proxy's side embeds it. */
struct local_exchange;

/* Sends the answer; exactly once for each start() unless cancelled. May be called from inside start() or later. */
void local_answer(struct local_exchange *x, const struct local_answer *a);

/* The problem document (RFC 9457) of `e` as an answer; `detail` NULL takes the catalogue's. */
void local_answer_err(struct local_exchange *x, enum err e, struct str fields, const char *detail);

struct local_handler {
    /* Is this request the handler's own? Asked for every request, by its path. */
    bool (*is_mine)(void *arg, const struct request *r);
    /* The Allow line, complete with CRLF, of what this target stands for, where that is the handler's own; else "". For
     * a method that nothing here allows, which is refused before anybody is asked. */
    struct str (*allowed)(void *arg, struct str target);
    /* Asked when the head is there: ERR_OK to go on and read the body (up to LOCAL_BODY_MAX), or the error to answer at
     * once; `fields` and `detail` may then be set, and stay as they are until the next call. */
    enum err (*admit)(void *arg, const struct local_request *r, struct str *fields, const char **detail);
    /* The whole request is there. `*state` is the handler's own, for cancel. */
    void (*start)(void *arg, const struct local_request *r, struct local_exchange *x, void **state);
    /* The client has gone before the answer: let go of `x`. */
    void (*cancel)(void *arg, void *state);
    void *arg;
};

#endif
