/* A small strict reader of HTTP/1.1 messages, written apart from src/http so that one cannot share the other's
 * mistakes. Blocking, with deadlines; nothing here fails a test by itself: results say what happened, so that it serves
 * in origin threads too. */
#ifndef HARNESS_MESSAGE_H
#define HARNESS_MESSAGE_H

#include "harness/util.h"

enum read_result {
    READ_OK,
    READ_EOF,      /* the stream ended cleanly before the first byte */
    READ_CUT,      /* it ended in the middle */
    READ_RESET,    /* it was reset */
    READ_TIMEOUT,  /* nothing came in time */
    READ_MALFORMED /* no HTTP; stream->fault says why */
};
const char *read_result_name(enum read_result r);

/* A descriptor with what was read from it and not yet used. */
struct stream {
    int fd;
    struct bytes in;
    enum read_result ended; /* READ_OK while it goes on */
    const char *fault;
    /* Told of every byte that arrives; may be NULL. */
    void (*on_bytes)(void *arg, const void *p, size_t n);
    void *arg;
};

void stream_init(struct stream *s, int fd);
/* Frees what is buffered; the descriptor is the caller's. */
void stream_fini(struct stream *s);
/* Waits for more bytes. READ_OK when some came. */
enum read_result stream_fill(struct stream *s, uint64_t deadline);

#define MESSAGE_FIELDS_MAX  256
#define MESSAGE_INTERIM_MAX 8
enum body_kind { BODY_NONE, BODY_LENGTH, BODY_CHUNKED, BODY_CLOSE };

struct message {
    char *head; /* the raw head as received, its empty line included */
    char *text; /* a copy that the strings below point into */
    struct {
        const char *name, *value;
    } fields[MESSAGE_FIELDS_MAX];
    unsigned field_count;
    const char *method, *target; /* of a request */
    int status;                  /* of a response */
    const char *reason;
    int minor; /* HTTP/1.minor */
    enum body_kind body_kind;
    struct bytes body; /* content, decoded; empty where a sink took it */
    uint64_t body_bytes;
    unsigned chunks;                  /* of a chunked body, the last one not counted */
    struct bytes trailers;            /* its trailer section, field lines as received */
    int interim[MESSAGE_INTERIM_MAX]; /* statuses of the 1xx that came before */
    unsigned interim_count;
};

typedef void sink_fn(void *arg, const void *p, size_t n);

/* Heads. A response that is 1xx (but 101) is noted in `interim` and the next one is read. `to_head`: the request was a
 * HEAD. */
enum read_result message_read_request_head(struct stream *s, struct message *m, uint64_t deadline);
enum read_result message_read_response_head(struct stream *s, struct message *m, bool to_head, uint64_t deadline);

/* The body behind a head that was read; `sink` NULL keeps it in m->body. `patience` ms is for each piece. */
enum read_result message_read_body(struct stream *s, struct message *m, sink_fn *sink, void *arg, int patience);

/* The value of the first field of that name (case does not matter), or NULL; how many there are; is `token` in the list
 * in all of them. */
const char *message_field(const struct message *m, const char *name);
unsigned message_field_count(const struct message *m, const char *name);
bool message_has_token(const struct message *m, const char *name, const char *token);

void message_free(struct message *m);

/* Sends everything, waiting at most `patience` ms for each piece; false when the connection breaks or stalls. */
bool send_all(int fd, const void *p, size_t n, int patience);

#endif
