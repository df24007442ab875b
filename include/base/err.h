/* Everything that can go wrong with a request, in one catalogue: the name, the status that answers it (RFC 9110 section
 * 15; 0: no answer, the connection just ends), the word in the log's `reason`, and the detail a person reads in the
 * problem document. */
#ifndef LB_BASE_ERR_H
#define LB_BASE_ERR_H

#include <stdbool.h>

/* clang-format off */

/* The client's request, which cannot be read to its end, or is not to be: nobody could tell where the next one begins,
 * so the connection closes behind the answer. */
#define ERR_CLOSING(X) \
    X(BAD_REQUEST_LINE,       400, "bad_request_line",          "The request line is malformed.") \
    X(BAD_LINE_END,           400, "bad_line_end",              "A line of the request head does not end in CRLF.") \
    X(BAD_FIELD,              400, "bad_field",                 "A header field is malformed.") \
    X(BAD_TARGET,             400, "bad_target",                "The request target is malformed.") \
    X(BAD_HOST,               400, "bad_host",                  "The Host field is missing, repeated or malformed.") \
    X(BAD_CONTENT_LENGTH,     400, "bad_content_length",        "The Content-Length field is malformed or repeated.") \
    X(BAD_TRANSFER_ENCODING,  400, "bad_transfer_encoding",     "The Transfer-Encoding field is not allowed here.") \
    X(BAD_CHUNK,              400, "bad_chunk",                 "The chunked content is malformed, or its extensions or trailers are too large.") \
    X(BAD_CLIENT_ID,          400, "bad_client_id",             "The client id field is given more than once.") \
    X(HEAD_TIMEOUT,           408, "client_header_timeout",     "The request head did not arrive in time.") \
    X(BODY_TIMEOUT,           408, "client_body_timeout",       "The request content did not arrive in time.") \
    X(BODY_TOO_LARGE,         413, "body_too_large",            "The request content is larger than allowed.") \
    X(TARGET_TOO_LONG,        414, "target_too_long",           "The request target is longer than allowed.") \
    X(EXPECTATION_FAILED,     417, "expectation_failed",        "The expectation is not known.") \
    X(HEAD_TOO_LARGE,         431, "head_too_large",            "The request head is larger than allowed.") \
    X(NOT_IMPLEMENTED,        501, "not_implemented",           "The method is not implemented.") \
    X(CODING_NOT_IMPLEMENTED, 501, "coding_not_implemented",    "The transfer coding is not implemented.") \
    X(VERSION_NOT_SUPPORTED,  505, "version_not_supported",     "This version of HTTP is not supported.")

/* All others: the connection stays. (But not behind what is refused from its head alone, such as TRACE, a
 * METHOD_NOT_ALLOWED; and TOO_MANY_CONNECTIONS is answered unread.) */
#define ERR_STAYING(X) \
    /* the client's request, which is in order but may not pass */ \
    X(METHOD_NOT_ALLOWED,     405, "method_not_allowed",        "The method is not allowed here.") \
    X(UNKNOWN_CLIENT,         403, "unknown_client",            "Only registered clients are served.") \
    X(RATE_LIMITED,           429, "rate_limited",              "The rate limit is exhausted.") \
    X(LOOP_DETECTED,          508, "loop_detected",             "The request has passed through this load balancer too often.") \
    /* a call of the client API */ \
    X(BAD_API_REQUEST,        400, "bad_api_request",           "The call is malformed.") \
    X(UNAUTHORIZED,           401, "unauthorized",              "This call needs the admin token as a bearer token.") \
    X(FORBIDDEN,              403, "forbidden",                 "This address may not use the client API.") \
    X(NO_SUCH_CALL,           404, "no_such_call",              "There is no such call of the client API.") \
    X(NO_SUCH_CLIENT,         404, "no_such_client",            "No client is registered under this id.") \
    X(CLIENT_EXISTS,          409, "client_exists",             "A client is registered under this id already.") \
    X(STORE_FAILED,           503, "store_failed",              "The change could not be written to disk; nothing was changed.") \
    /* the balancer's own want of something */ \
    X(INTERNAL,               500, "internal",                  "The load balancer ran out of memory for this request.") \
    X(TOO_MANY_CONNECTIONS,   503, "too_many_connections",      "The load balancer has as many connections as it may have.") \
    X(QUEUE_FULL,             503, "queue_full",                "Too many requests are waiting for a backend.") \
    X(QUEUE_TIMEOUT,          503, "queue_timeout",             "No backend became free in time.") \
    /* the backends' */ \
    X(NO_BACKEND,             503, "no_backend",                "No backend is available.") \
    X(CONNECT_FAILED,         502, "connect_failed",            "No backend could be connected to.") \
    X(CONNECT_TIMEOUT,        502, "connect_timeout",           "The backend did not accept a connection in time.") \
    X(BACKEND_RESET,          502, "backend_reset",             "The backend ended the connection before its response was complete.") \
    X(BAD_RESPONSE,           502, "bad_response",              "The backend's response is malformed.") \
    X(RESPONSE_HEAD_TOO_LARGE,502, "response_head_too_large",   "The backend's response head is larger than allowed.") \
    X(RESPONSE_TIMEOUT,       504, "response_timeout",          "The backend did not answer in time.") \
    /* no answer can be given: the client's fault, the backend's, and nobody's */ \
    X(CLIENT_GONE,              0, "client_gone",               "The client ended the connection.") \
    X(CLIENT_WRITE_TIMEOUT,     0, "client_write_timeout",      "The client did not take its response in time.") \
    X(BACKEND_CUT,              0, "backend_cut",               "The backend cut its response off.") \
    X(BACKEND_STALLED,          0, "backend_stalled",           "The backend stopped sending its response.") \
    X(TUNNEL_TIMEOUT,           0, "tunnel_timeout",            "Nothing moved through the tunnel for too long.") \
    X(SHUTDOWN,                 0, "shutdown",                  "The load balancer was stopped.")

#define ERR_CATALOGUE(X) \
    X(OK,                       0, "",                          "") \
    ERR_CLOSING(X) \
    ERR_STAYING(X)
/* clang-format on */

enum err {
#define X(name, status, reason, detail) ERR_##name,
    ERR_CATALOGUE(X)
#undef X
        ERR_COUNT
};

/* The HTTP status that answers `e`, or 0 when nothing is answered. */
int err_status(enum err e);

/* Is the connection to be closed behind the answer to `e`, for it may be out of step? */
bool err_closes(enum err e);

/* The word for the log, such as "connect_failed"; "" for ERR_OK. */
const char *err_reason(enum err e);

/* One sentence for the problem document. */
const char *err_detail(enum err e);

#endif
