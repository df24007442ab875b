/* What came of an input of fuzz_connection.c, held against the reference's word on it. */
#include "connection.h"

#include <string.h>

/* The beginning of a message at the end of what a connection has received is the beginning of one of the client's.
 * Where nothing was received at all, one may have been on its way when the backend closed, and was answered all the
 * same. */
void check_partial(unsigned c)
{
    static struct reference got;
    struct str rest = buf_str(&input.conns[c].in);
    const char *fault = "a part of a request that the client has not sent";

    if (rest.n == 0)
        input.messages[input.message_count++] = (struct message){.conn = c};
    if (input.conns[c].taken == rest.n)
        return;
    reference_read(&got, rest.p + input.conns[c].taken, rest.n - input.conns[c].taken, &wide);
    CHECK(got.verdict == REFERENCE_INCOMPLETE && got.head_whole); /* a head leaves in one piece */
    for (unsigned i = 0; i < input.said_count && fault; i++)
        if (input.said[i].head_whole)
            fault = reference_compare(&input.said[i], &got, CLIENT_IP, true);
    CHECK_NO(fault);
    note_message(c, &got, rest.n - input.conns[c].taken, false);
    reference_free(&got);
}

/* Reads what the backend said to a message: the final response. What it said before it heard of the message is none,
 * but for the first on a connection. */
static void read_answer(struct reference *r, const struct message *m)
{
    struct str out = buf_str(&input.conns[m->conn].out);
    size_t at = 0;

    for (const struct message *before = input.messages; before <= m; before++) {
        if (before->conn != m->conn)
            continue;
        bool early = before->at > 0 && at < before->heard_at;
        do { /* past the interim ones */
            reference_read_response(r, out.p + at, out.n - at, before->to_head, input.conns[m->conn].ended, &wide);
            at += r->used;
            if (before != m || r->status < 200)
                reference_free(r);
        } while (r->verdict == REFERENCE_FORWARD && r->status < 200);
        r->head_whole &= !early;
        if (r->verdict != REFERENCE_FORWARD) {
            r->head_whole &= before == m;
            return;
        }
    }
}

/* Is `got` what the backend said, or (`cut`) the beginning of it? */
static bool is_answer(const struct message *m, const struct reference *got, bool cut)
{
    static struct reference said;

    said.content = NULL;
    read_answer(&said, m);
    bool same = said.head_whole && said.status == got->status && got->content_n <= said.content_n &&
                (got->content_n == 0 || memcmp(got->content, said.content, got->content_n) == 0) &&
                (cut || (said.verdict == REFERENCE_FORWARD && got->content_n == said.content_n));
    reference_free(&said);
    return same;
}

static bool is_message_of(const struct message *m, const struct reference *said)
{
    static struct reference got;

    if (m->n == 0)
        return true;
    reference_read(&got, buf_str(&input.conns[m->conn].in).p + m->at, m->n, &wide);
    bool same = reference_compare(said, &got, CLIENT_IP, !m->whole) == NULL;
    reference_free(&got);
    return same;
}

static bool is_relayed(const struct reference *said, const struct reference *got, bool cut)
{
    for (unsigned i = 0; i < input.message_count; i++) {
        if (input.messages[i].n == 0)
            input.messages[i].to_head = span_is(said->method, "HEAD");
        if (is_message_of(&input.messages[i], said) && is_answer(&input.messages[i], got, cut))
            return true;
    }
    return false;
}

/* Is that an error that the balancer may answer by itself? A backend may fail whenever it has got the head. */
static bool fits(const struct reference *said, int status)
{
    if (said->head_whole && (status == 502 || status == 504))
        return true;
    if (said->verdict == REFERENCE_INCOMPLETE) /* what is there so far may show it already */
        return (status >= 400 && status < 500) || (!said->head_whole && (status == 501 || status == 505));
    return reference_accepts(said, status);
}

/* An error of the balancer's own, or the backend's response to that very request. */
static void check_final(const struct reference *said, const struct reference *got, bool cut)
{
    bool own = true;

    for (unsigned i = 0; i < got->field_count; i++)
        own &= !span_is_nocase(got->fields[i].name, "Via");
    /* A client of 1.1 is always told how long a response is. */
    CHECK(said->minor == 0 || got->framing != REFERENCE_CLOSE);
    if (own)
        CHECK(fits(said, got->status));
    else /* where only the end of the connection tells the end, over a unix socket it does not tell why */
        CHECK(said->head_whole && is_relayed(said, got, cut || got->framing == REFERENCE_CLOSE));
}

/* Reads one response of the client's; a refused HEAD may or may not have been seen to be one. */
static void read_response(struct reference *r, struct str rest, const struct reference *said, bool eof)
{
    bool to_head = span_is(said->method, "HEAD");

    if (to_head && !said->head_whole) {
        reference_read_response(r, rest.p, rest.n, false, eof, &wide);
        if (r->verdict == REFERENCE_FORWARD)
            return;
        reference_free(r);
    }
    reference_read_response(r, rest.p, rest.n, to_head, eof, &wide);
}

void check_client(const struct session *s)
{
    static struct reference r;
    struct str rest = buf_str(&s->in);
    unsigned k = s->said_at;

    while (rest.n > 0) {
        CHECK(k < s->said_end);
        const struct reference *said = &input.said[k];
        read_response(&r, rest, said, s->eof);
        if (r.verdict == REFERENCE_REFUSE)
            CHECK_NO(r.why);
        bool whole = r.verdict == REFERENCE_FORWARD, final = r.status >= 200;
        CHECK(final || said->minor > 0);
        if (final && r.head_whole)
            check_final(said, &r, !whole);
        rest = str_make(rest.p + r.used, rest.n - r.used);
        reference_free(&r);
        k += final;
        if (!whole)
            return;
    }
}

/* How many of a client's requests have been answered, as far as it has been read. */
static unsigned answered(const struct session *s)
{
    static struct reference r;
    struct str rest = buf_str(&s->in);
    unsigned k = s->said_at;

    while (rest.n > 0 && k < s->said_end) {
        read_response(&r, rest, &input.said[k], s->eof);
        k += r.verdict == REFERENCE_FORWARD && r.status >= 200;
        rest = str_make(rest.p + r.used, rest.n - r.used);
        reference_free(&r);
        if (r.verdict != REFERENCE_FORWARD)
            break;
    }
    return k;
}

void check_progress(const struct session *s)
{
    static struct reference said;
    unsigned k = answered(s);

    if (s->eof)
        return;
    /* Where a kept connection was closed, one request may have come twice, and it is not sure which is which. */
    for (unsigned i = 0; i < input.conn_count; i++)
        if (input.conns[i].ended)
            return;
    for (unsigned i = 0; i < input.message_count; i++) {
        const struct message *m = &input.messages[i];
        if (m->said != k || k == s->said_end)
            continue;
        said.content = NULL;
        read_answer(&said, m);
        CHECK(!(said.head_whole && said.verdict == REFERENCE_FORWARD));
        reference_free(&said);
    }
}
