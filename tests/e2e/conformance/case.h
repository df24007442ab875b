/* What a case of the conformance suite says: the bytes that one side sends, and what the other must see of them. The
 * tables that hold the cases are data only; judge.c decides. */
#ifndef CONFORMANCE_CASE_H
#define CONFORMANCE_CASE_H

#include <stdbool.h>
#include <stddef.h>

struct text {
    const char *p;
    size_t n;
};
/* A literal, zero bytes included. */
#define T(literal)                                                                                                     \
    {                                                                                                                  \
        literal, sizeof(literal) - 1                                                                                   \
    }

enum end {
    STAYS,  /* the client's connection goes on: the request sent behind is served, too */
    CLOSES, /* it ends after a whole response, and what was sent behind is not served */
    CUT     /* the response is not passed off as whole: a 502, or a part of it and then the connection's end */
};

enum origin_end { ORIGIN_KEEPS, ORIGIN_CLOSES, ORIGIN_RESETS };

/* Names in lists and values: "Name: value" asks for exactly one field of that name with that value, "Name: a | b" for
 * two, in that order, "Name: *" for one with any value. Texts that are sent may hold "{{x*100}}" (x, a hundred times),
 * "{{client:t}}" and "{{origin:t}}" (waits until that side has received t). */
struct conformance {
    const char *name;
    const char *section; /* of the RFC, or of the issue that asks for more than the RFC */
    struct text sent; /* by the client; where `alone` does not say otherwise, a second, valid request follows at once */
    bool alone;       /* nothing is sent behind */
    bool half_close;  /* then the client sends FIN; nothing is sent behind */

    /* Refused: this status, then (unless `survives`) the end of the connection. The origin gets nothing, or (`partial`)
     * no more than a part of a request on a connection that is then closed. */
    unsigned refused, or_refused; /* one or the other, where the RFC leaves it open */
    bool survives, partial;

    /* Forwarded: what the origin must get. Content and trailers must be exactly these. */
    const char *line;     /* the request line */
    const char *more[9];  /* the lines of the requests behind it */
    const char *has[8];   /* fields */
    const char *lacks[8]; /* names of fields that must not be there */
    const char *raw;      /* stands in the head as it is */
    struct text content;
    const char *trailers[4];
    bool incomplete; /* the (first) request never becomes whole, and the origin's connection ends */

    /* What the origin answers: by default a 200 with the request's target as content. */
    struct text answer;
    bool early;  /* behind the request's head, not its end */
    bool in_one; /* never cut: what comes behind the answer must come with it */
    enum origin_end then;

    /* What the client must get. */
    enum end end;
    unsigned status;     /* 0: 200 */
    const char *interim; /* statuses of the 1xx before it, "103 100" */
    const char *reply_has[6];
    const char *reply_lacks[6];
    const char *reply_raw;
    struct text reply; /* content; by default the target */
    const char *reply_trailers[3];
    char framing;       /* 'L' by length, 'C' chunked, 'E' to the end of the connection, 'N' none; 0: any */
    bool reset;         /* CUT by a reset */
    bool origin_closed; /* the proxy must not keep the origin's connection */
};

struct conformance_table {
    const char *name;
    const struct conformance *cases;
    size_t count;
};

/* Shorthands for the commonest cases: refused and nothing forwarded; refused behind a good head; forwarded. Further
 * members may follow in the latter. */
#define REFUSED(name, section, status, bytes)                                                                          \
    {                                                                                                                  \
        name, section, T(bytes), .refused = status                                                                     \
    }
#define BAD_BODY(name, section, bytes)                                                                                 \
    {                                                                                                                  \
        name, section, T(bytes), .refused = 400, .partial = true                                                       \
    }
#define PASSES(name, section, bytes, ...)                                                                              \
    {                                                                                                                  \
        name, section, T(bytes), __VA_ARGS__                                                                           \
    }

#define TABLE(name)                                                                                                    \
    const struct conformance_table name##_table = {#name, name##_cases, sizeof name##_cases / sizeof *name##_cases}

#endif
