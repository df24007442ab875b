/* A client as JSON: the object of the client API, of clients.json and of its journal. */
#ifndef LB_LIMIT_CLIENT_JSON_H
#define LB_LIMIT_CLIENT_JSON_H

#include "base/buf.h"
#include "base/json.h"
#include "limit/client_table.h"

/* A client as shown: id canonical, tokens as of some time. */
struct client_view {
    char id[CLIENT_ID_MAX + 1];
    struct client_settings set;
    double tokens;
    uint64_t allowed, limited;
    uint64_t place; /* in the order of registration; 0: not told */
};

/* `tokens` as they are shown and stored: rounded down to a millionth. */
double client_tokens_shown(double tokens);

/* The client with its tokens as of `now`. */
void client_view_of(const struct client_table *t, const struct client *c, uint64_t now, struct client_view *out);

/* "enforce", "shadow", "off" */
const char *client_mode_name(enum client_mode mode);

/* Appends the client as the API shows it:
 * {"client_id":...,"capacity":...,"rate_per_sec":...,"tokens":...,"mode":...,"allowed":...,"limited":...} */
bool client_view_json(struct buf *out, const struct client_view *v) __attribute__((warn_unused_result));

/* Appends the client as files keep it: without the totals, without a mode that is "enforce", and without a place that
 * is 0. */
bool client_stored_json(struct buf *out, const struct client_view *v) __attribute__((warn_unused_result));

/* Appends a number as json_append_number() does; whole ones and those of up to six decimals, which tokens are, at a
 * tenth of the cost. */
bool client_number_json(struct buf *out, double v) __attribute__((warn_unused_result));

enum client_field {
    CLIENT_ID = 1,
    CLIENT_CAPACITY = 2,
    CLIENT_RATE = 4,
    CLIENT_TOKENS = 8,
    CLIENT_MODE = 16,
    CLIENT_PLACE = 32
};

struct client_fields {
    unsigned given; /* set of enum client_field; what is not in it is 0, a mode CLIENT_ENFORCE */
    struct client_view v;
};

struct client_fault {
    const struct json *at; /* the value concerned */
    char what[160];        /* a whole phrase that names the field: "capacity is 0; it must be 1 to 1e9" */
};

/* Reads and checks an object's members: those in `needed` must be there, those in `allowed` too may be, any other is a
 * fault. The id is given in its canonical form. False with *fault filled. */
bool client_fields_read(const struct json *object, unsigned needed, unsigned allowed, struct client_fields *out,
                        struct client_fault *fault) __attribute__((warn_unused_result));

/* Reads the client at the front of `text` where it stands there as client_stored_json() writes it, byte for byte but
 * for the digits of its numbers: its length, and *out as client_fields_read() would give it, at a thirtieth of the
 * cost. 0: nothing is said. It may be a client in another form, or none. */
size_t client_stored_read(struct str text, struct client_fields *out) __attribute__((warn_unused_result));

#endif
