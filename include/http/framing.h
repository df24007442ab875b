/* How long is this body: decided from the head alone (RFC 9112 section 6.3). Ambiguity is an error, not a guess. */
#ifndef LB_HTTP_FRAMING_H
#define LB_HTTP_FRAMING_H

#include "base/err.h"
#include "http/headers.h"

#include <stdbool.h>
#include <stdint.h>

enum framing_kind {
    FRAMING_NONE,    /* no body */
    FRAMING_LENGTH,  /* exactly `length` bytes */
    FRAMING_CHUNKED, /* chunked transfer coding */
    FRAMING_CLOSE    /* until the connection ends (responses only) */
};

struct framing {
    enum framing_kind kind;
    uint64_t length; /* of FRAMING_LENGTH; may be 0 */
};

/* Does anything follow the head, be it only a last chunk or the connection's end? */
static inline bool framing_has_content(const struct framing *f)
{
    return f->kind == FRAMING_LENGTH ? f->length > 0 : f->kind != FRAMING_NONE;
}

/* A request's framing. `minor` is the HTTP/1 minor version. ERR_BAD_CONTENT_LENGTH for one that is repeated, signed, a
 * list, empty or over INT64_MAX; ERR_BAD_TRANSFER_ENCODING with Content-Length, in HTTP/1.0, repeated, or where chunked
 * is not the final coding or stands there twice (so for "gzip" alone: RFC 9112 section 6.3 asks for 400);
 * ERR_CODING_NOT_IMPLEMENTED for other codings before a final chunked. */
enum err framing_of_request(const struct headers *h, unsigned minor, struct framing *out)
    __attribute__((warn_unused_result));

/* A response's framing: none for HEAD, 1xx, 204, 304 whatever its fields say (they are still checked). ERR_BAD_RESPONSE
 * for the same faults as above. */
enum err framing_of_response(const struct headers *h, unsigned minor, unsigned status, bool to_head,
                             struct framing *out) __attribute__((warn_unused_result));

#endif
