/* The chunked transfer coding (RFC 9112 section 7.1): a strict decoder that works in place, and the pieces of an
 * encoder. */
#ifndef LB_HTTP_CHUNKED_H
#define LB_HTTP_CHUNKED_H

#include "base/buf.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

/* Bytes of chunk extensions in a body, beyond those that its chunks may have: each a few, and twice its size. */
#define CHUNKED_EXTENSIONS_MAX   16384u
#define CHUNKED_EXTENSIONS_CHUNK 16u
#define CHUNKED_TRAILER_MAX      8192u /* bytes of its trailer section */

struct chunked {              /* zero-initialised for a new body */
    uint64_t left;            /* of the chunk being read */
    struct buf *trailers;     /* where the trailer section's field lines go, the caller's; NULL: nowhere */
    uint32_t extension_bytes; /* beyond what the chunks so far may have */
    uint32_t trailer_bytes;
    uint8_t state, digits;
};

enum chunked_status {
    CHUNKED_MORE,        /* all was consumed, the body goes on */
    CHUNKED_END,         /* the last chunk and trailer section have been consumed */
    CHUNKED_BAD,         /* malformed, or its extensions over their bound */
    CHUNKED_CONTENT_END, /* all of the content has come, but its trailer section is over the bound, and is not read to
                            its end; what c->trailers holds is a part of it */
    CHUNKED_NO_MEMORY    /* for the trailers: the body cannot be told whole */
};

/* Decodes the `n` bytes at *data in place. On return *data, moved on to where the first content lies, is *decoded bytes
 * of content, *consumed bytes of the input have been used up (all of them if CHUNKED_MORE), and what stands behind
 * those is untouched. On CHUNKED_BAD the content found
 * before the fault is still told in *decoded, and is not to be passed on as a whole body. CRLF is demanded after size,
 * data and trailer lines; sizes are 1 to 16 hex digits without overflow past INT64_MAX; extensions and trailers are
 * bounded (the former in proportion, for a stream of small chunks may have one with each) and checked against their
 * grammar (RFC 9112 sections 7.1.1 and 5). Extensions are dropped; trailers are appended to c->trailers, whole lines
 * with their CRLF, without the empty line at the end (rules.h says which of them go on). After CHUNKED_END, CHUNKED_BAD
 * and CHUNKED_CONTENT_END the answer stays the same and nothing more is consumed. The content does not depend on how
 * the bytes were split between calls. */
enum chunked_status chunked_decode(struct chunked *c, char **data, size_t n, size_t *decoded, size_t *consumed)
    __attribute__((warn_unused_result));

/* Writes the line that starts a chunk of `size` bytes (not 0: that would be the last), "1a2b\r\n"; returns its length.
 * The chunk's data is followed by CRLF. */
#define CHUNK_LINE_MAX 18u
size_t chunked_line(uint64_t size, char out[CHUNK_LINE_MAX]);

#define CHUNKED_LAST STR("0\r\n\r\n")

/* The pieces of `content` as one chunk (none when it is empty) and, with `end`, of the last chunk with `trailers`,
 * whole field lines, behind it; returns how many. They point into `content`, `trailers` and `line`. */
#define CHUNKED_PIECES 6
int chunked_pieces(struct iovec iov[CHUNKED_PIECES], char line[CHUNK_LINE_MAX], struct str content, bool end,
                   struct str trailers);

#endif
