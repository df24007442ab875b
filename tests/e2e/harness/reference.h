/* A second opinion: what one HTTP/1.x request in a byte stream is, and what of it a backend has to get. Written from
 * RFC 9110, RFC 9112, RFC 3986 and the contract, apart from src/http, so that the two can be held against each other.
 * It favours plainness over speed: bytes are looked at as often as is convenient, each rule where it is stated.
 *
 * Where the contract leaves a choice of statuses, or a request has several faults, every status that fits one of them
 * is acceptable. Whether a request is forwarded at all is never left open, but for what `may_refuse` says. */
#ifndef HARNESS_REFERENCE_H
#define HARNESS_REFERENCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct span {
    const char *p;
    size_t n;
};

#define REFERENCE_FIELDS_MAX   160
#define REFERENCE_OPTIONS_MAX  64
#define REFERENCE_EMPTY_LINES  4     /* that are skipped in front of a request */
#define REFERENCE_METHOD_MAX   32    /* bytes; a longer token is a method that nobody implements */
#define REFERENCE_EXTENSIONS   16384 /* bytes of chunk extensions in one body, less 16 and twice its size a chunk */
#define REFERENCE_TRAILER_MAX  8192  /* bytes of a trailer section */
#define REFERENCE_LINE_UNKNOWN "its lines cannot be told apart"

enum reference_verdict {
    REFERENCE_FORWARD,   /* a whole and faultless request */
    REFERENCE_REFUSE,    /* answered with an error, and the connection closes */
    REFERENCE_INCOMPLETE /* more bytes are needed */
};

enum reference_framing {
    REFERENCE_NO_CONTENT,
    REFERENCE_LENGTH,
    REFERENCE_CHUNKED,
    REFERENCE_CLOSE /* to the connection's end: responses only */
};

/* Statuses as a set: one bit each. */
enum reference_status {
    REFERENCE_400 = 1,
    REFERENCE_405 = 2,
    REFERENCE_408 = 4,
    REFERENCE_414 = 8,
    REFERENCE_417 = 16,
    REFERENCE_431 = 32,
    REFERENCE_501 = 64,
    REFERENCE_505 = 128,
    REFERENCE_508 = 256
};

struct reference_limits {
    size_t head_bytes, target_bytes; /* the first counts empty lines before the request, too */
    unsigned fields;
    const char *client_id; /* the field that names a client: never repeated nor named away; NULL: none */
    bool behind;           /* these are the proxy's own bytes: it may have signed them once more than it takes */
};

struct reference_field {
    struct span name, value; /* the value without the white space around it */
};

/* Spans point into the bytes read. */
struct reference {
    enum reference_verdict verdict;
    unsigned statuses;   /* of a refusal: those that are acceptable; of an incomplete one: faults seen so far */
    unsigned may_refuse; /* of a request to be forwarded: statuses with which it may be refused all the same */
    const char *why;     /* the first fault, or "" */
    bool head_whole;     /* the head has no fault: a backend may have got it, whatever follows */
    bool last;           /* the connection ends with this request */
    size_t used;         /* bytes of a request to be forwarded, or of one in a loop, behind which more may come */

    struct span method;
    struct span prefix, target; /* together the target as a backend gets it */
    struct span host;           /* likewise; empty when there is none */
    int minor;                  /* 0, or 1 for 1.1 to 1.9 */
    int status;                 /* of a response */
    struct reference_field fields[REFERENCE_FIELDS_MAX];
    unsigned field_count;
    struct span options[REFERENCE_OPTIONS_MAX]; /* what Connection lists */
    unsigned option_count;
    bool expects;          /* 100-continue */
    const char *client_id; /* of the limits, likewise */
    bool behind;
    enum reference_framing framing;
    uint64_t length; /* of REFERENCE_LENGTH */

    char *content; /* decoded, as far as it is there */
    size_t content_n, content_cap;
    struct reference_field trailers[REFERENCE_FIELDS_MAX];
    unsigned trailer_count;
};

/* Reads the request at the front of p[0..n). `*r` is overwritten; its content goes with reference_free(). */
void reference_read(struct reference *r, const char *p, size_t n, const struct reference_limits *limits);
/* Likewise a response, interim ones each by itself; REFERENCE_FORWARD is a whole one, REFERENCE_REFUSE none at all.
 * `to_head`: it answers a HEAD. `ended`: the connection has ended behind these bytes. */
void reference_read_response(struct reference *r, const char *p, size_t n, bool to_head, bool ended,
                             const struct reference_limits *limits);
void reference_free(struct reference *r);

/* Is that status one with which the request may be refused? */
bool reference_accepts(const struct reference *r, int status);

/* Holds what a backend received against what a client sent. NULL when they are the same message as the contract has it,
 * else what is wrong. `got` may lack content and trailers at its end when `cut`. */
const char *reference_compare(const struct reference *sent, const struct reference *got, const char *client_ip,
                              bool cut);

bool span_is(struct span s, const char *text);        /* byte for byte */
bool span_is_nocase(struct span s, const char *text); /* letters of either case */
bool span_eq(struct span a, struct span b);
bool span_eq_nocase(struct span a, struct span b);

#endif
