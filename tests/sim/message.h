/* HTTP/1.x as the simulation's clients and backends speak and judge it: a strict parser of one message after another
 * from a stream of bytes, and content that can be checked byte by byte wherever it turns up. Written apart from src/:
 * a judge must not share the accused's mistakes. */
#ifndef LB_SIM_MESSAGE_H
#define LB_SIM_MESSAGE_H

#include "bytes.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum message_kind { MESSAGE_REQUEST, MESSAGE_RESPONSE };

/* How content is framed. */
enum message_framing { FRAME_NONE, FRAME_LENGTH, FRAME_CHUNKED, FRAME_CLOSE };

enum message_state {
    MESSAGE_HEAD,    /* the head is not whole yet */
    MESSAGE_CONTENT, /* the head is there, content follows */
    MESSAGE_WHOLE,   /* complete; message_next() goes on behind it */
    MESSAGE_BROKEN   /* malformed: `broken` says how */
};

#define MESSAGE_FIELDS_MAX   64u
#define MESSAGE_TRAILERS_MAX 16u

struct message_field {
    char *name, *value; /* zero-terminated, in `text` */
};

struct message {
    enum message_kind kind;
    enum message_state state;
    const char *broken;

    char *text;            /* the head, owned, chopped up */
    char *method, *target; /* of a request */
    unsigned status;       /* of a response */
    unsigned minor;        /* HTTP/1.minor */
    struct message_field fields[MESSAGE_FIELDS_MAX];
    unsigned field_count;
    struct message_field trailers[MESSAGE_TRAILERS_MAX]; /* behind chunked content; each a block of its own */
    unsigned trailer_count;

    enum message_framing framing;
    uint64_t length;   /* of FRAME_LENGTH */
    uint64_t received; /* content bytes so far, decoded */

    /* of the decoder; not to be looked at */
    uint64_t chunk_left;
    int chunk_step;
};

void message_init(struct message *m, enum message_kind kind);
void message_free(struct message *m);
/* Ready for the next message. */
void message_next(struct message *m);

/* Called with each piece of decoded content, which m->received does not count yet. */
typedef void message_content_fn(void *arg, const char *p, size_t n);

/* Takes what it can from the front of `in`: stops behind the end of the head (state MESSAGE_CONTENT or MESSAGE_WHOLE,
 * so that the caller can look at it before content comes; call again to go on), and behind the end of the message.
 * Returns true when the state changed or bytes were taken. For a response, `to_head` says that it answers HEAD; 1xx
 * (but 101), 204 and 304 have no content. */
bool message_take(struct message *m, struct bytes *in, bool to_head, message_content_fn *fn, void *arg);

/* The stream has ended: FRAME_CLOSE content is whole then. Returns whether the message is whole, or none has begun. */
bool message_end(struct message *m, const struct bytes *in);

/* The value of a field by name (case-insensitive), NULL when there is none; `count` (may be NULL) how many there are.
 */
const char *message_field(const struct message *m, const char *name, unsigned *count);

/* ---- content ---- */

/* Byte number `at` of the content called `key`: a keyed pattern, so that a byte of one content in another, or in
 * another place of its own, is found. */
char pattern_byte(uint64_t key, uint64_t at);
/* Appends `n` bytes of it from `at`. */
void pattern_add(struct bytes *out, uint64_t key, uint64_t at, size_t n);
/* Are the `n` bytes at `p` those from `at` on? */
bool pattern_matches(uint64_t key, uint64_t at, const char *p, size_t n);

#endif
