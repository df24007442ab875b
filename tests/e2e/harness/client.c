/* A raw client. */
#include "harness/client.h"

#include "harness/check.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static struct sockaddr_in loopback(const char *ip, int port)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};

    inet_pton(AF_INET, ip, &at.sin_addr);
    return at;
}

/* `receive_buffer`: of so many bytes; 0: as it is. */
static int connect_from(const char *source_ip, int port, int receive_buffer)
{
    struct sockaddr_in from = loopback(source_ip, 0), to = loopback("127.0.0.1", port);
    int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    CHECK(fd >= 0, "socket: %s", strerror(errno));
    setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (receive_buffer > 0) /* before the window is told */
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof receive_buffer);
    if (bind(fd, (struct sockaddr *)&from, sizeof from) == 0 && connect(fd, (struct sockaddr *)&to, sizeof to) == 0)
        return fd;
    close(fd);
    return -1;
}

static void client_begin(struct client *c, int fd)
{
    *c = (struct client){0};
    stream_init(&c->in, fd);
}

static void open_from(struct client *c, const char *source_ip, int port, int receive_buffer)
{
    int fd = connect_from(source_ip, port, receive_buffer);

    CHECK(fd >= 0, "connect from %s to port %d: %s", source_ip, port, strerror(errno));
    client_begin(c, fd);
}

void client_open_from(struct client *c, const char *source_ip, int port)
{
    open_from(c, source_ip, port, 0);
}

void client_open_narrow(struct client *c, int port, int receive_buffer)
{
    open_from(c, "127.0.0.1", port, receive_buffer);
}

void client_open(struct client *c, int port)
{
    client_open_from(c, "127.0.0.1", port);
}

void client_open_unix(struct client *c, const char *path)
{
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    snprintf(to.sun_path, sizeof to.sun_path, "%s", path);
    CHECK(fd >= 0 && connect(fd, (struct sockaddr *)&to, sizeof to) == 0, "connect to %s: %s", path, strerror(errno));
    client_begin(c, fd);
}

bool client_try_open(struct client *c, int port)
{
    int fd = connect_from("127.0.0.1", port, 0);

    if (fd >= 0)
        client_begin(c, fd);
    return fd >= 0;
}

bool client_can_connect(int port)
{
    int fd = connect_from("127.0.0.1", port, 0);

    if (fd >= 0)
        close(fd);
    return fd >= 0;
}

void client_close(struct client *c)
{
    close(c->in.fd);
    stream_fini(&c->in);
    message_free(&c->response);
}

void client_reset(struct client *c)
{
    setsockopt(c->in.fd, SOL_SOCKET, SO_LINGER, &(struct linger){1, 0}, sizeof(struct linger));
    client_close(c);
}

void client_half_close(struct client *c)
{
    shutdown(c->in.fd, SHUT_WR);
}

bool client_try_send(struct client *c, const void *p, size_t n)
{
    return send_all(c->in.fd, p, n, patience_ms());
}

void client_send_bytes(struct client *c, const void *p, size_t n)
{
    CHECK(client_try_send(c, p, n), "sending %zu bytes: %s", n, strerror(errno));
}

void client_send(struct client *c, const char *text)
{
    client_send_bytes(c, text, strlen(text));
}

void client_sendf(struct client *c, const char *fmt, ...)
{
    va_list args;
    char *text;
    int n;

    va_start(args, fmt);
    n = vasprintf(&text, fmt, args);
    va_end(args);
    CHECK(n >= 0, "out of memory");
    client_send_bytes(c, text, (size_t)n);
    free(text);
}

void client_send_bytewise(struct client *c, const char *text)
{
    for (; *text; text++)
        client_send_bytes(c, text, 1);
}

static void complain(const struct client *c, const char *what, enum read_result r)
{
    FAIL("%s: %s%s%s; buffered: \"%.300s\"", what, read_result_name(r), r == READ_MALFORMED ? ": " : "",
         r == READ_MALFORMED ? c->in.fault : "", c->in.in.p);
}

static void expect_status(const struct client *c, int status)
{
    CHECK(status == 0 || c->response.status == status, "expected status %d, got:\n%s%.500s", status, c->response.head,
          c->response.body.p ? c->response.body.p : "");
}

static void read_response_head(struct client *c, bool to_head)
{
    enum read_result r = message_read_response_head(&c->in, &c->response, to_head, deadline_in(patience_ms()));

    if (r != READ_OK)
        complain(c, "waiting for a response", r);
}

const struct message *client_expect_into(struct client *c, int status, sink_fn *sink, void *arg)
{
    enum read_result r;

    read_response_head(c, false);
    r = client_read_body(c, c->response.status == status ? sink : NULL, arg);
    if (r != READ_OK)
        complain(c, "reading the content of a response", r);
    expect_status(c, status);
    return &c->response;
}

const struct message *client_expect(struct client *c, int status)
{
    return client_expect_into(c, status, NULL, NULL);
}

const struct message *client_expect_head_response(struct client *c, int status)
{
    read_response_head(c, true);
    expect_status(c, status);
    return &c->response;
}

const struct message *client_expect_head(struct client *c, int status)
{
    read_response_head(c, false);
    expect_status(c, status);
    return &c->response;
}

enum read_result client_read_body(struct client *c, sink_fn *sink, void *arg)
{
    return message_read_body(&c->in, &c->response, sink, arg, patience_ms());
}

enum read_result client_read(struct client *c, bool to_head)
{
    enum read_result r = message_read_response_head(&c->in, &c->response, to_head, deadline_in(patience_ms()));

    return r == READ_OK ? client_read_body(c, NULL, NULL) : r;
}

static enum read_result read_to_end(struct client *c)
{
    enum read_result r;

    do
        r = c->in.in.n > 0 ? READ_OK : stream_fill(&c->in, deadline_in(patience_ms()));
    while (r == READ_OK && c->in.in.n == 0);
    return r;
}

void client_expect_end(struct client *c)
{
    enum read_result r = read_to_end(c);

    if (r != READ_EOF)
        complain(c, "expected the end of the connection", r);
}

void client_expect_end_or_reset(struct client *c)
{
    enum read_result r = read_to_end(c);

    if (r != READ_EOF && r != READ_RESET)
        complain(c, "expected the end of the connection or a reset", r);
}

void client_expect_silence(struct client *c, int ms)
{
    enum read_result r = c->in.in.n > 0 ? READ_OK : stream_fill(&c->in, deadline_in(ms));

    if (r != READ_TIMEOUT)
        complain(c, "expected silence", r);
}

int http_request(int port, const char *method, const char *target, const char *fields, const char *content,
                 struct bytes *body)
{
    struct client c;
    int status;

    client_open(&c, port);
    client_sendf(&c, "%s %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n%s", method, target, fields);
    if (content)
        client_sendf(&c, "Content-Length: %zu\r\n\r\n%s", strlen(content), content);
    else
        client_send(&c, "\r\n");
    status = client_expect(&c, 0)->status;
    if (body)
        *body = c.response.body;
    if (body)
        c.response.body = (struct bytes){0};
    client_close(&c);
    return status;
}

int http_get(int port, const char *target, struct bytes *body)
{
    return http_request(port, "GET", target, "", NULL, body);
}
