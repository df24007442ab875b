/* A small strict reader of HTTP/1.1 messages. */
#include "harness/message.h"

#include <ctype.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#define HEAD_MAX (256u * 1024u)

const char *read_result_name(enum read_result r)
{
    static const char *const names[] = {"ok", "end of stream", "cut off", "reset", "nothing in time", "malformed"};

    return names[r];
}

void stream_init(struct stream *s, int fd)
{
    *s = (struct stream){.fd = fd};
    bytes_add(&s->in, "", 0);
}

void stream_fini(struct stream *s)
{
    bytes_free(&s->in);
}

enum read_result stream_fill(struct stream *s, uint64_t deadline)
{
    struct pollfd p = {.fd = s->fd, .events = POLLIN};
    char piece[65536];
    ssize_t n;

    if (s->ended != READ_OK)
        return s->ended;
    if (poll(&p, 1, left_ms(deadline)) <= 0)
        return READ_TIMEOUT;
    n = recv(s->fd, piece, sizeof piece, 0);
    if (n <= 0) {
        s->ended = n == 0 ? READ_EOF : READ_RESET;
        return s->ended;
    }
    bytes_add(&s->in, piece, (size_t)n);
    if (s->on_bytes)
        s->on_bytes(s->arg, piece, (size_t)n);
    return READ_OK;
}

static enum read_result malformed(struct stream *s, const char *fault)
{
    s->fault = fault;
    return READ_MALFORMED;
}

/* A clean end in the middle of something is a cut. */
static enum read_result fill_inside(struct stream *s, uint64_t deadline)
{
    enum read_result r = stream_fill(s, deadline);

    return r == READ_EOF ? READ_CUT : r;
}

static bool is_token(const char *s)
{
    if (!*s)
        return false;
    for (; *s; s++)
        if (!isalnum((unsigned char)*s) && !strchr("!#$%&'*+-.^_`|~", *s))
            return false;
    return true;
}

/* Every line must end in CRLF, and hold no other control byte but HTAB. */
static bool bytes_are_clean(const char *p, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)p[i];

        if (c == '\r' && p[i + 1] == '\n') {
            i++;
            continue;
        }
        if (c == 127 || (c < 32 && c != '\t'))
            return false;
    }
    return true;
}

static const char *trim(char *s)
{
    size_t n;

    s += strspn(s, " \t");
    n = strlen(s);
    while (n > 0 && (s[n - 1] == ' ' || s[n - 1] == '\t'))
        s[--n] = '\0';
    return s;
}

static const char *take_field(struct message *m, char *line)
{
    char *colon = strchr(line, ':');

    if (!colon)
        return "a field line without colon";
    *colon = '\0';
    if (!is_token(line))
        return "a field name that is no token";
    if (m->field_count == MESSAGE_FIELDS_MAX)
        return "too many fields";
    m->fields[m->field_count].name = line;
    m->fields[m->field_count].value = trim(colon + 1);
    m->field_count++;
    return NULL;
}

/* Cuts the copy of the head into lines; *start is the first. */
static const char *take_lines(struct message *m, size_t n, char **start)
{
    char *line = m->text, *end = m->text + n - 2;

    *start = line;
    for (bool first = true; line < end; first = false) {
        char *cr = strstr(line, "\r\n");
        const char *fault;

        *cr = '\0';
        fault = first ? NULL : take_field(m, line);
        if (fault)
            return fault;
        line = cr + 2;
    }
    return NULL;
}

static enum read_result read_head(struct stream *s, struct message *m, char **start, uint64_t deadline)
{
    const char *end, *fault;
    size_t n;

    while (!(end = strstr(s->in.p, "\r\n\r\n"))) {
        enum read_result r;

        if (s->in.n > HEAD_MAX || memchr(s->in.p, 0, s->in.n))
            return malformed(s, "no end of head");
        r = s->in.n == 0 ? stream_fill(s, deadline) : fill_inside(s, deadline);
        if (r != READ_OK)
            return r;
    }
    n = (size_t)(end - s->in.p) + 4;
    free(m->head);
    free(m->text);
    m->head = strndup(s->in.p, n);
    m->text = strndup(s->in.p, n);
    m->field_count = 0;
    if (!m->head || !m->text)
        abort();
    bytes_drop(&s->in, n);
    if (!bytes_are_clean(m->head, n))
        return malformed(s, "a control byte in the head");
    fault = take_lines(m, n, start);
    return fault ? malformed(s, fault) : READ_OK;
}

const char *message_field(const struct message *m, const char *name)
{
    for (unsigned i = 0; i < m->field_count; i++)
        if (strcasecmp(m->fields[i].name, name) == 0)
            return m->fields[i].value;
    return NULL;
}

unsigned message_field_count(const struct message *m, const char *name)
{
    unsigned count = 0;

    for (unsigned i = 0; i < m->field_count; i++)
        count += strcasecmp(m->fields[i].name, name) == 0;
    return count;
}

static bool list_has_token(const char *list, const char *token)
{
    size_t n = strlen(token);

    while (*list) {
        size_t piece;

        list += strspn(list, " \t,");
        piece = strcspn(list, " \t,");
        if (piece == n && strncasecmp(list, token, n) == 0)
            return true;
        list += piece;
    }
    return false;
}

bool message_has_token(const struct message *m, const char *name, const char *token)
{
    for (unsigned i = 0; i < m->field_count; i++)
        if (strcasecmp(m->fields[i].name, name) == 0 && list_has_token(m->fields[i].value, token))
            return true;
    return false;
}

/* One Content-Length of digits, or chunked alone, or none of both. */
static const char *take_framing(struct message *m)
{
    const char *length = message_field(m, "Content-Length"), *coding = message_field(m, "Transfer-Encoding");

    m->body_kind = BODY_NONE;
    m->body_bytes = 0;
    if (message_field_count(m, "Content-Length") > 1 || message_field_count(m, "Transfer-Encoding") > 1)
        return "framed twice";
    if (length && coding)
        return "both Content-Length and Transfer-Encoding";
    if (coding) {
        m->body_kind = BODY_CHUNKED;
        return strcasecmp(coding, "chunked") == 0 ? NULL : "a coding other than chunked";
    }
    if (length) {
        m->body_kind = BODY_LENGTH;
        m->body_bytes = strtoull(length, NULL, 10);
        return *length && strspn(length, "0123456789") == strlen(length) ? NULL : "a bad Content-Length";
    }
    return NULL;
}

static const char *take_version(const char *version, int *minor)
{
    if (strcmp(version, "HTTP/1.1") != 0 && strcmp(version, "HTTP/1.0") != 0)
        return "no HTTP/1.x";
    *minor = version[7] - '0';
    return NULL;
}

static const char *take_request_line(struct message *m, char *line)
{
    char *target = strchr(line, ' '), *version = target ? strchr(target + 1, ' ') : NULL;

    if (!version)
        return "a bad request line";
    *target++ = '\0';
    *version++ = '\0';
    m->method = line;
    m->target = target;
    if (!is_token(line) || !*target)
        return "a bad request line";
    return take_version(version, &m->minor);
}

static const char *take_status_line(struct message *m, char *line)
{
    const char *fault;

    if (strlen(line) < 13 || line[8] != ' ' || line[12] != ' ' || strspn(line + 9, "0123456789") != 3)
        return "a bad status line";
    line[8] = '\0';
    fault = take_version(line, &m->minor);
    m->status = atoi(line + 9);
    m->reason = line + 13;
    return fault ? fault : m->status < 100 ? "a bad status" : NULL;
}

enum read_result message_read_request_head(struct stream *s, struct message *m, uint64_t deadline)
{
    char *start;
    enum read_result r = read_head(s, m, &start, deadline);
    const char *fault;

    if (r != READ_OK)
        return r;
    fault = take_request_line(m, start);
    if (!fault)
        fault = take_framing(m);
    return fault ? malformed(s, fault) : READ_OK;
}

static const char *take_response(struct message *m, char *start, bool to_head)
{
    const char *fault = take_status_line(m, start);

    if (!fault)
        fault = take_framing(m);
    if (fault)
        return fault;
    if (m->status < 200 || m->status == 204 || m->status == 304 || to_head) {
        if (m->body_kind == BODY_CHUNKED && !to_head)
            return "Transfer-Encoding where no content can be";
        m->body_kind = BODY_NONE;
        m->body_bytes = 0;
    } else if (m->body_kind == BODY_NONE) {
        m->body_kind = BODY_CLOSE;
    }
    return NULL;
}

enum read_result message_read_response_head(struct stream *s, struct message *m, bool to_head, uint64_t deadline)
{
    m->interim_count = 0;
    for (;;) {
        char *start;
        enum read_result r = read_head(s, m, &start, deadline);
        const char *fault;

        if (r != READ_OK)
            return r;
        fault = take_response(m, start, to_head);
        if (fault)
            return malformed(s, fault);
        if (m->status >= 200 || m->status == 101)
            return READ_OK;
        if (m->interim_count == MESSAGE_INTERIM_MAX)
            return malformed(s, "too many interim responses");
        m->interim[m->interim_count++] = m->status;
    }
}

/* Passes up to `n` buffered bytes on; returns how many. */
static uint64_t give(struct stream *s, struct message *m, uint64_t n, sink_fn *sink, void *arg)
{
    size_t piece = n < s->in.n ? (size_t)n : s->in.n;

    if (sink)
        sink(arg, s->in.p, piece);
    else
        bytes_add(&m->body, s->in.p, piece);
    bytes_drop(&s->in, piece);
    return piece;
}

static enum read_result read_exactly(struct stream *s, struct message *m, uint64_t n, sink_fn *sink, void *arg,
                                     int patience)
{
    while (n > 0) {
        enum read_result r = s->in.n > 0 ? READ_OK : fill_inside(s, deadline_in(patience));

        if (r != READ_OK)
            return r;
        n -= give(s, m, n, sink, arg);
    }
    return READ_OK;
}

/* One line without its CRLF into `line`. */
static enum read_result read_line(struct stream *s, char *line, size_t size, int patience)
{
    const char *end;
    size_t n;

    while (!(end = strstr(s->in.p, "\r\n"))) {
        enum read_result r;

        if (s->in.n >= size)
            return malformed(s, "a chunk line too long");
        r = fill_inside(s, deadline_in(patience));
        if (r != READ_OK)
            return r;
    }
    n = (size_t)(end - s->in.p);
    if (n >= size)
        return malformed(s, "a chunk line too long");
    memcpy(line, s->in.p, n);
    line[n] = '\0';
    bytes_drop(&s->in, n + 2);
    return READ_OK;
}

static enum read_result read_chunk(struct stream *s, struct message *m, sink_fn *sink, void *arg, int patience,
                                   uint64_t *size)
{
    char line[64];
    enum read_result r = read_line(s, line, sizeof line, patience);

    if (r != READ_OK)
        return r;
    if (!*line || strspn(line, "0123456789abcdefABCDEF") != strlen(line) || strlen(line) > 16)
        return malformed(s, "a bad chunk size");
    *size = strtoull(line, NULL, 16);
    if (*size == 0)
        return READ_OK;
    m->chunks++;
    m->body_bytes += *size;
    r = read_exactly(s, m, *size, sink, arg, patience);
    if (r == READ_OK)
        r = read_line(s, line, sizeof line, patience);
    return r == READ_OK && *line ? malformed(s, "a chunk longer than its size") : r;
}

/* Field lines, up to the empty one. */
static enum read_result read_trailers(struct stream *s, struct message *m, int patience)
{
    char line[1024];

    for (;;) {
        enum read_result r = read_line(s, line, sizeof line, patience);

        if (r != READ_OK || !*line)
            return r;
        if (*line == ':' || !strchr(line, ':') || strcspn(line, " \t") < strcspn(line, ":"))
            return malformed(s, "a trailer");
        bytes_addf(&m->trailers, "%s\r\n", line);
    }
}

static enum read_result read_chunked(struct stream *s, struct message *m, sink_fn *sink, void *arg, int patience)
{
    uint64_t size;
    enum read_result r;

    m->chunks = 0;
    do {
        r = read_chunk(s, m, sink, arg, patience, &size);
        if (r != READ_OK)
            return r;
    } while (size > 0);
    return read_trailers(s, m, patience);
}

static enum read_result read_to_close(struct stream *s, struct message *m, sink_fn *sink, void *arg, int patience)
{
    for (;;) {
        enum read_result r;

        m->body_bytes += give(s, m, UINT64_MAX, sink, arg);
        r = stream_fill(s, deadline_in(patience));
        if (r != READ_OK)
            return r == READ_EOF ? READ_OK : r;
    }
}

enum read_result message_read_body(struct stream *s, struct message *m, sink_fn *sink, void *arg, int patience)
{
    bytes_free(&m->body);
    bytes_free(&m->trailers);
    bytes_add(&m->body, "", 0);
    bytes_add(&m->trailers, "", 0);
    switch (m->body_kind) {
    case BODY_LENGTH: return read_exactly(s, m, m->body_bytes, sink, arg, patience);
    case BODY_CHUNKED: return read_chunked(s, m, sink, arg, patience);
    case BODY_CLOSE: return read_to_close(s, m, sink, arg, patience);
    case BODY_NONE: break;
    }
    return READ_OK;
}

void message_free(struct message *m)
{
    free(m->head);
    free(m->text);
    bytes_free(&m->body);
    bytes_free(&m->trailers);
    *m = (struct message){0};
}

bool send_all(int fd, const void *p, size_t n, int patience)
{
    const char *at = p;

    while (n > 0) {
        struct pollfd pfd = {.fd = fd, .events = POLLOUT};
        ssize_t sent;

        if (poll(&pfd, 1, patience) <= 0)
            return false;
        sent = send(fd, at, n, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0 && errno != EAGAIN && errno != EINTR)
            return false;
        if (sent > 0) {
            at += sent;
            n -= (size_t)sent;
        }
    }
    return true;
}
