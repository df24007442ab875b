/* A raw client: sends whatever bytes it is told to, reads strictly. What goes wrong fails the running test. */
#ifndef HARNESS_CLIENT_H
#define HARNESS_CLIENT_H

#include "harness/message.h"

struct client {
    struct stream in;
    struct message response; /* the last one read */
};

/* Connects to 127.0.0.1:port; from another loopback address; to a unix socket. */
void client_open(struct client *c, int port);
void client_open_from(struct client *c, const char *source_ip, int port);
/* With a receive buffer of about so many bytes: more waits on the other side. */
void client_open_narrow(struct client *c, int port, int receive_buffer);
void client_open_unix(struct client *c, const char *path);
/* Without failing the test when nobody accepts. */
bool client_try_open(struct client *c, int port);
/* Whether a connection could be made, closed again at once. */
bool client_can_connect(int port);

void client_close(struct client *c);
/* Closes so that the other end sees a reset. */
void client_reset(struct client *c);
/* Sends FIN; reading goes on. */
void client_half_close(struct client *c);

void client_send(struct client *c, const char *text);
void client_send_bytes(struct client *c, const void *p, size_t n);
void client_sendf(struct client *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Each byte in a segment of its own. */
void client_send_bytewise(struct client *c, const char *text);
/* Sends without failing the test when the connection breaks. */
bool client_try_send(struct client *c, const void *p, size_t n);

/* Reads the next response whole and checks its status (0: any); it stays valid until the next read. */
const struct message *client_expect(struct client *c, int status);
const struct message *client_expect_head_response(struct client *c, int status); /* to a HEAD */
/* The same with the content handed to `sink`. */
const struct message *client_expect_into(struct client *c, int status, sink_fn *sink, void *arg);
/* Reads the head only; the content follows through client_read_body() or stays unread. */
const struct message *client_expect_head(struct client *c, int status);
enum read_result client_read_body(struct client *c, sink_fn *sink, void *arg);
/* Reads a response if there is one; says what happened. */
enum read_result client_read(struct client *c, bool to_head);

/* The connection ends within the deadline and nothing more comes: cleanly, or (maybe_reset) by a reset. */
void client_expect_end(struct client *c);
void client_expect_end_or_reset(struct client *c);
/* Nothing comes for `ms`, and the connection stands. */
void client_expect_silence(struct client *c, int ms);

/* One request on a connection of its own, "Connection: close"; returns its status, and its content in *body (to be
 * freed) where that is not NULL. */
int http_get(int port, const char *target, struct bytes *body);
int http_request(int port, const char *method, const char *target, const char *fields, const char *content,
                 struct bytes *body);

#endif
