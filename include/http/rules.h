/* What RFC 9110 asks of a gateway, as pure functions of messages: which fields go on, which end here, which are written
 * anew. */
#ifndef LB_HTTP_RULES_H
#define LB_HTTP_RULES_H

#include "http/parse.h"
#include "http/write.h"

/* The pseudonym under which the balancer signs Via (RFC 9110 section 7.6.3). */
#define RULES_VIA_PSEUDONYM "loadbalancer"
#define RULES_MAX_LOOPS     5u /* more Via entries of ours than that in a request: a loop */

/* What the balancer adds to a request. Slices must be clean field values. */
struct forward {
    struct str client_ip; /* the TCP peer's address as text, appended to or written as X-Forwarded-For; "" for a unix
                             peer: then what a trusted one says stays as it is, and "unknown" is written elsewhere */
    bool trusted; /* is the peer in trusted_proxies: then its Forwarded and X-Forwarded-* stay, and the address is
                     appended */
    struct str request_id;     /* X-Request-ID to send */
    struct str client_id_name; /* rate_limit.client_id_header: may not be nominated away by Connection; "" when there is
                                  none */
    struct str upgrade;        /* what rules_write_protocols() has written, or "": then it is no offer */
};

/* True when the client's X-Request-ID is to be kept: one field, 1 to 128 of the characters A-Z a-z 0-9 . _ - : = + / */
bool rules_request_id_is_sane(struct str value);

/* ERR_LOOP_DETECTED when the request has come by more than RULES_MAX_LOOPS times, else ERR_OK. */
enum err rules_check_loop(const struct request *r);

/* How many times more a request may be forwarded: OPTIONS may say that (RFC 9110 section 7.6.2). False for others, and
 * where it says it more than once or not as a number. At 0 it is for us to answer; rules_write_request() counts down.
 */
bool rules_max_forwards(const struct request *r, uint64_t *left);

/* Upper bound of the bytes that rules_write_request() needs. */
size_t rules_request_bound(const struct request *r, struct str head, const struct forward *f);

/* Writes the head that goes to a backend: request line in HTTP/1.1; Host first ("Host: " with r->host, also when it is
 * empty); the client's fields in their order and spelling, without hop-by-hop fields (Connection and what it nominates,
 * Keep-Alive, Proxy-Connection, Proxy-Authenticate, Proxy-Authorization, TE, Trailer, Transfer-Encoding, Upgrade),
 * without Host, Content-Length, Trailer (unless the content is chunked, and trailers can follow), Expect (unless
 * r->expect_continue: then "Expect: 100-continue" goes on), names that hold '_', X-Request-ID, and, from a peer that is
 * not trusted, Forwarded and X-Forwarded-*; nominations of Host, Content-Length, Transfer-Encoding, Authorization,
 * Cookie, Via, Forwarded, X-Forwarded-*, X-Request-ID, Content-Type, Expect, Date and the client id field are ignored,
 * and so are those of fields in which proxies in front say who the client is (X-Real-IP, X-Client-*, True-Client-IP,
 * CF-Connecting-IP, X-Remote-User*, X-Auth-*, X-SSL-*); then X-Forwarded-For, X-Forwarded-Proto ("http"),
 * X-Forwarded-Host (from a trusted peer the last two only if it sent none), X-Request-ID, Via ("1.1 loadbalancer",
 * appended as a field line of its own after the client's; "1.0" when that was the version received), framing
 * (Content-Length, or Transfer-Encoding: chunked), the empty line. TE: trailers goes on, and so does the offer of
 * f->upgrade, each with its option in Connection; else there is no Connection field: HTTP/1.1 connections persist. */
void rules_write_request(struct head_writer *w, const struct request *r, const struct forward *f);

/* How a response goes to the client. */
struct reply {
    bool to_head;    /* the request was a HEAD */
    unsigned minor;  /* the client's HTTP/1 minor version */
    bool keep_alive; /* the connection to the client stays open: else "Connection: close"; for a 1.0 client that stays:
                        "Connection: keep-alive" */
    struct framing
        framing;      /* as the body is sent to the client; FRAMING_CLOSE writes neither length nor coding.
                         FRAMING_NONE leaves a Content-Length of the backend's only in responses to HEAD and in 304 */
    bool trailers;    /* the client is sent trailers: then Trailer goes on */
    struct str extra; /* complete field lines of the balancer's own (RateLimit), each with CRLF; may be empty */
};

/* Upper bound of the bytes that rules_write_response() and rules_write_interim() need. */
size_t rules_response_bound(const struct response *r, struct str head, const struct reply *reply);

/* Writes the head that goes to the client: status line in HTTP/1.1 with the backend's status and reason, its fields
 * without hop-by-hop ones, Content-Length and Transfer-Encoding, then Via, framing, `extra`, Connection where needed.
 */
void rules_write_response(struct head_writer *w, const struct response *r, const struct reply *reply);

/* An interim response (1xx) as it is passed on: status line, fields without hop-by-hop and framing ones, the empty
 * line. */
void rules_write_interim(struct head_writer *w, const struct response *r);

/* The protocols that Upgrade offers or names, as a list to send on (protocols_read()); not longer than the values of
 * the fields with 2 bytes for each protocol. */
void rules_write_protocols(struct head_writer *w, const struct headers *h);

/* Does the head of a 101 name protocols, and all of them of those in the list `offer` (RFC 9110 section 7.8)? */
bool rules_is_offered(const struct headers *h, struct str offer);

/* A 101 as it goes to the client: status line, fields without hop-by-hop and framing ones, Via, Connection, Upgrade
 * with the protocols that the backend has named, `extra`, the empty line. Within rules_response_bound(). */
void rules_write_switch(struct head_writer *w, const struct response *r, struct str extra);

/* The field lines of a trailer section (struct chunked) that go on: not those that a recipient must know before the
 * content or that decide about framing, routing, authentication or forwarding (RFC 9110 section 6.5.1), nor
 * `client_id_name`, nor, on their way to a backend, names that hold '_'. Needs at most twice the section's length. */
void rules_write_trailers(struct head_writer *w, struct str section, bool to_backend, struct str client_id_name);

#endif
