/* The backend of fuzz_connection.c, played. */
#include "connection.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static bool is_idempotent(struct span method)
{
    static const char *const names[] = {"GET", "HEAD", "OPTIONS", "PUT", "DELETE"};

    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (span_is(method, names[i]))
            return true;
    return false;
}

/* Which request of the client's is it? They come in their order; some may be missing, answered with an error or given
 * up before they were whole. One may come twice where a kept connection was found closed, if its method allows that. */
static void place_message(const struct reference *got)
{
    const char *fault = "a request that the client has not sent";

    for (unsigned i = input.next; i < input.sessions[input.session].said_end; i++) {
        if (input.said[i].verdict != REFERENCE_FORWARD)
            continue;
        const char *f = reference_compare(&input.said[i], got, CLIENT_IP, false);
        if (!f) {
            input.next = i + 1;
            input.resent = false;
            return;
        }
        fault = i == input.next ? f : fault;
    }
    if (input.next > 0 && !input.resent && is_idempotent(got->method) &&
        !reference_compare(&input.said[input.next - 1], got, CLIENT_IP, false)) {
        input.resent = true;
        return;
    }
    CHECK_NO(fault);
}

void note_message(unsigned c, const struct reference *got, size_t n, bool whole)
{
    const struct conn *conn = &input.conns[c];

    CHECK(input.message_count < (whole ? MESSAGES_MAX - CONNS_MAX : MESSAGES_MAX));
    input.messages[input.message_count++] = (struct message){.conn = c,
                                                             .at = conn->taken,
                                                             .n = n,
                                                             .heard_at = conn->heard_at,
                                                             .said = whole ? input.next - 1 : 0,
                                                             .whole = whole,
                                                             .to_head = span_is(got->method, "HEAD")};
}

/* Looks for whole messages in what a connection has received. */
static void take_messages(unsigned c)
{
    static struct reference got;
    struct conn *conn = &input.conns[c];

    while (conn->taken < conn->in.len && !input.tunnel) {
        struct str rest = buf_str(&conn->in);
        reference_read(&got, rest.p + conn->taken, rest.n - conn->taken, &wide);
        if (got.verdict == REFERENCE_REFUSE)
            CHECK_NO(got.why);
        bool whole = got.verdict == REFERENCE_FORWARD;
        if (whole) {
            place_message(&got);
            note_message(c, &got, got.used, true);
            conn->taken += got.used;
            input.current = c;
        }
        reference_free(&got);
        if (!whole)
            return;
    }
}

void conn_close(struct conn *c)
{
    if (c->fd >= 0)
        close(c->fd);
    c->fd = -1;
}

static bool accept_conns(int listen_fd)
{
    bool progress = false;
    int fd;

    while ((fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC)) >= 0) {
        CHECK(input.conn_count < CONNS_MAX);
        struct conn *c = &input.conns[input.conn_count];
        clear(&c->in);
        clear(&c->out);
        c->fd = fd;
        c->taken = c->heard_at = 0;
        c->ended = false;
        input.current = input.conn_count++;
        progress = true;
    }
    return progress;
}

static void say(struct conn *c, const uint8_t *p, size_t n)
{
    keep(&c->out, p, n);
    (void)!send(c->fd, p, n, MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* Does the next thing in the script. False when that has to wait, or is nothing. What would be said on a connection
 * that is closed waits for another. */
static bool act(void)
{
    static const char stops[] = {SPLIT, RECORD, GROUP, FILE_SEP};
    const uint8_t *p = input.script + input.script_at;
    size_t left = input.script_n - input.script_at, n = 0;
    struct conn *c = &input.conns[input.current];

    while (n < left && !memchr(stops, p[n], sizeof stops))
        n++;
    if (left == 0 || input.conn_count == 0 || (n > 0 && c->fd < 0))
        return false;
    if (*p == FILE_SEP && input.waits >= input.message_count && !input.tunnel)
        return false;
    input.waits += *p == FILE_SEP;
    if (*p == GROUP) {
        c->ended |= c->fd >= 0;
        conn_close(c);
    }
    if (n > 0)
        say(c, p, n);
    input.script_at += n > 0 ? n : 1;
    return true;
}

/* Does what can be done up to the next split. */
static bool act_on(void)
{
    bool progress = false, split = false;

    while (!split) {
        split = input.script_at < input.script_n && input.script[input.script_at] == SPLIT;
        if (!act())
            break;
        progress = true;
    }
    return progress;
}

bool backend_step(int listen_fd)
{
    bool progress = accept_conns(listen_fd);

    for (unsigned i = 0; i < input.conn_count; i++) {
        struct conn *c = &input.conns[i];
        if (c->fd < 0)
            continue;
        if (c->taken == c->in.len)
            c->heard_at = c->out.len;
        bool open = read_all(c->fd, &c->in, &progress);
        take_messages(i);
        if (!open)
            conn_close(c);
    }
    return act_on() || progress;
}
