/* Message heads: bytes to structures. A strict scan of the raw head comes first (it alone decides what a line is), then
 * http-parser takes it apart. Pure functions of bytes; slices point into the bytes given. */
#ifndef LB_HTTP_PARSE_H
#define LB_HTTP_PARSE_H

#include "base/err.h"
#include "http/framing.h"
#include "http/headers.h"
#include "http/target.h"

#include <stdbool.h>
#include <stddef.h>

struct head_limits {
    size_t head_bytes;   /* the whole head, its empty line included */
    size_t target_bytes; /* the request target */
    unsigned fields;     /* field lines */
};

/* Where a scan stands: resumable, each byte is looked at once. Zero-initialised for a new head. */
struct head_scan {
    size_t at;          /* bytes of the data already scanned */
    size_t skip;        /* empty lines (CRLF) in front of the head, not part of it: requests only */
    size_t mark;        /* where the part being scanned begins */
    unsigned lines;     /* complete lines so far, start line included */
    unsigned char part; /* what the next byte belongs to: the scan's own */
};

enum scan_status {
    SCAN_MORE, /* no end of head yet */
    SCAN_DONE, /* head is data[skip .. at), its empty line included */
    SCAN_BAD   /* *e says why */
};

/* Is there more than empty lines (RFC 9112 section 2.2)? */
bool head_has_begun(const struct head_scan *s);

enum head_kind { HEAD_REQUEST, HEAD_RESPONSE };

/* Looks on from s->at over `data`, which begins where the first scan of this head began and has grown since. Refuses
 * bare CR, bare LF, NUL, controls but HTAB in field lines (in the start line of a request HTAB too, and 8-bit bytes),
 * obs-fold, white space before the first field, field names that are no tokens, no colon, white space before the colon;
 * and as soon as it is known: a head over `head_bytes` or `fields` (ERR_HEAD_TOO_LARGE), a target over `target_bytes`
 * or still going on at `head_bytes` (ERR_TARGET_TOO_LONG), a method over 32 bytes (ERR_NOT_IMPLEMENTED, RFC 9112
 * section 3). Of responses every fault is ERR_BAD_RESPONSE or ERR_RESPONSE_HEAD_TOO_LARGE. At most 4 empty lines before
 * a request are skipped; they count towards head_bytes. A first line that cannot be HTTP is refused as early as it
 * shows. The verdict does not depend on how the bytes were split between calls: the first fault in their order counts.
 */
enum scan_status head_scan(struct head_scan *s, enum head_kind kind, struct str data, const struct head_limits *limits,
                           enum err *e) __attribute__((warn_unused_result));

enum method {
    METHOD_OTHER, /* known to http-parser, with no rule of its own here */
    METHOD_GET,
    METHOD_HEAD,
    METHOD_POST,
    METHOD_PUT,
    METHOD_DELETE,
    METHOD_OPTIONS,
    METHOD_PATCH,
    METHOD_TRACE,
    METHOD_CONNECT
};

/* Idempotent by RFC 9110 section 9.2.2 (GET, HEAD, OPTIONS, TRACE, PUT, DELETE). */
bool method_is_idempotent(enum method m);

struct request {
    enum method method;
    struct str method_text;
    /* As it is sent on: origin-form or "*"; an absolute-form has become its path and query, "/" when it has neither.
     * Where it has a query and no path ("http://h?q"), `target` is "?q" and the prefix, else empty, is "/". */
    struct str target_prefix, target;
    struct str host; /* host[:port]: of an absolute-form target, else of Host; "" when there is none (HTTP/1.0) */
    unsigned minor;  /* HTTP/1.minor: 0 or 1 (1.2 to 1.9 count as 1.1) */
    struct headers headers;
    struct framing framing;
    bool keep_alive;      /* may the connection carry another request (RFC 9112 section 9.3) */
    bool expect_continue; /* Expect: 100-continue from an HTTP/1.1 client */
    bool takes_trailers;  /* TE: trailers, likewise (RFC 9110 section 10.1.4) */
    bool nominates;       /* Connection names fields of the message's own (RFC 9110 section 7.6.1) */
    bool names_user;      /* of the whole connection: headers_name_user_of_connection() */
    bool upgrade;         /* it asks, likewise, for a protocol that may be switched to (rules_write_protocols()) */
};

/* Options that Connection may list: each costs a comparison with each field (rules.h), and nobody needs so many. */
#define CONNECTION_OPTIONS_MAX 64u

/* Takes a whole head (as found by head_scan) apart and checks it: request line with exactly one space between its
 * parts, method known (501: ERR_NOT_IMPLEMENTED; ERR_BAD_REQUEST_LINE when it is no token), version HTTP/1.x
 * (ERR_VERSION_NOT_SUPPORTED for another HTTP/n.m, ERR_BAD_REQUEST_LINE for no version), target in origin-, absolute-
 * (http, https) or, for OPTIONS, asterisk-form without fragment (ERR_BAD_TARGET), CONNECT ERR_NOT_IMPLEMENTED, TRACE
 * ERR_METHOD_NOT_ALLOWED, Host once and well formed (ERR_BAD_HOST; may be missing in 1.0), framing (framing.h), Expect
 * (ERR_EXPECTATION_FAILED for any but 100-continue, from HTTP/1.1), more than CONNECTION_OPTIONS_MAX options in
 * Connection or more fields than there is room for (ERR_HEAD_TOO_LARGE). `out->headers.v` and `.max` are the caller's
 * to set. On an error the method, target and fields parsed so far may still be read for the log. */
enum err parse_request(struct str head, struct request *out) __attribute__((warn_unused_result));

/* Of a head in `data` that head_scan() has refused: sets out->method, method_text and target as far as they came before
 * the fault, else leaves them as they are. */
void parse_refused(const struct head_scan *s, struct str data, struct request *out);

struct response {
    unsigned status; /* 100 to 599 */
    struct str reason;
    unsigned minor;
    struct headers headers;
    struct framing framing;
    bool keep_alive; /* may the connection be used again, as far as the head tells, and by anybody: false also where it
                        names a user of the connection (headers_name_user_of_connection()) */
    bool nominates;  /* as of a request */
};

/* Likewise for a response to a request; `to_head`: that was a HEAD. 101 is ERR_BAD_RESPONSE unless `to_upgrade`, and
 * without the option `upgrade` in Connection (RFC 9110 section 7.8).
 * ERR_BAD_RESPONSE for every fault. */
enum err parse_response(struct str head, bool to_head, bool to_upgrade, struct response *out)
    __attribute__((warn_unused_result));

#endif
