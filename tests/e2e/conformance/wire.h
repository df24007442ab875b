/* HTTP/1.1 messages taken apart from bytes at hand: a third reader, beside the proxy's and the harness' blocking one,
 * strict, for the judge must see every byte that another reader might take differently. */
#ifndef CONFORMANCE_WIRE_H
#define CONFORMANCE_WIRE_H

#include "conformance/case.h"
#include "harness/util.h"

enum wire_result { WIRE_OK, WIRE_MORE, WIRE_BAD };
enum wire_kind { WIRE_REQUEST, WIRE_RESPONSE };

#define WIRE_FIELDS_MAX   256
#define WIRE_TRAILERS_MAX 32

struct wire_field {
    struct text name, value;
};

struct wire_fields {
    struct wire_field v[WIRE_FIELDS_MAX];
    unsigned n;
};

struct wire_message {
    struct text head, line; /* raw; the start line without its CRLF */
    struct text target;     /* of a request */
    unsigned status;        /* of a response */
    struct wire_fields fields, trailers;
    char framing;     /* 'L', 'C', 'E', 'N' as in case.h */
    bool extensions;  /* a chunk had some */
    bool head_whole;  /* the rest may still be missing */
    size_t head_size; /* bytes of the input up to the content */
    size_t used;      /* bytes of the input that the message took */
    struct bytes content;
    const char *fault; /* with WIRE_BAD */
};

bool text_is(struct text t, const char *s);
bool text_is_nocase(struct text t, const char *s, size_t n);
bool text_has(struct text t, const char *s);

/* Reads one message off the front of `in`. `to_head`: a response to HEAD. `ended`: no more bytes will follow. What was
 * read before is freed. Slices point into `in`. */
enum wire_result wire_read(struct wire_message *m, struct text in, enum wire_kind kind, bool to_head, bool ended);
void wire_free(struct wire_message *m);

/* Compares fields with an entry of `has`; false when they differ. */
bool wire_agrees(const struct wire_fields *f, const char *wanted);
unsigned wire_count(const struct wire_fields *f, const char *name, size_t n);
/* Is `token` in the lists of all fields of that name? */
bool wire_has_token(const struct wire_fields *f, const char *name, const char *token);

/* Appends `t` as it can be printed: "\r\n" and other bytes escaped, cut at `max` bytes. */
void bytes_add_escaped(struct bytes *b, struct text t, size_t max);

#endif
