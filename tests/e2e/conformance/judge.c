/* Runs one case of the conformance suite on a stage, and judges it.
 * Each case ends with a fence: one more request on a connection of its own. When its answer is there, whatever the
 * proxy had to say to the origin before is there, too; and a connection to the origin that was left in disorder gives
 * the fence a wrong answer. */
#include "conformance/judge.h"

#include <stdio.h>
#include <string.h>

#define BEHIND       "GET /behind HTTP/1.1\r\nHost: behind\r\n\r\n"
#define BEHIND_LINE  "GET /behind HTTP/1.1"
#define FENCE        "GET /fence HTTP/1.1\r\nHost: fence\r\nConnection: close\r\n\r\n"
#define REPLIES_MAX  16
#define ESCAPED_MAX  1200
#define COUNT(array) (sizeof(array) / sizeof *(array))

struct replies {
    struct wire_message final[REPLIES_MAX];
    unsigned count; /* whole ones */
    struct bytes interim;
    bool part; /* something that is not whole follows */
    const char *fault;
};

/* ---- what is expected ---- */

static bool sends_behind(const struct conformance *c)
{
    return !c->alone && !c->half_close && c->end != CUT;
}

static bool behind_is_served(const struct conformance *c)
{
    return sends_behind(c) && (c->refused ? c->survives : c->end == STAYS);
}

/* The request line number `i`, NULL behind the last. */
static const char *line_of(const struct conformance *c, unsigned i)
{
    unsigned own = 0;

    while (own < COUNT(c->more) && c->more[own])
        own++;
    if (c->refused || !c->line)
        return i == 0 && behind_is_served(c) ? BEHIND_LINE : NULL;
    if (i <= own)
        return i == 0 ? c->line : c->more[i - 1];
    return i == own + 1 && behind_is_served(c) ? BEHIND_LINE : NULL;
}

static unsigned lines_of(const struct conformance *c)
{
    unsigned n = 0;

    while (line_of(c, n))
        n++;
    return n;
}

static unsigned replies_of(const struct conformance *c)
{
    return lines_of(c) + (c->refused != 0);
}

static bool is_to_head(const struct conformance *c, unsigned reply)
{
    const char *line;

    if (c->refused && reply == 0)
        return c->sent.n > 5 && memcmp(c->sent.p, "HEAD ", 5) == 0;
    line = line_of(c, reply - (c->refused != 0));
    return line && strncmp(line, "HEAD ", 5) == 0;
}

/* ---- what has come ---- */

static void replies_free(struct replies *r)
{
    for (unsigned i = 0; i < REPLIES_MAX; i++)
        wire_free(&r->final[i]);
    bytes_free(&r->interim);
    *r = (struct replies){0};
}

/* Takes all responses apart that the client has. */
static void replies_read(struct replies *r, const struct conformance *c, const struct stage_client *from)
{
    struct text in = {from->got.p, from->got.n};

    replies_free(r);
    bytes_add(&r->interim, "", 0);
    while (in.n > 0 && r->count < REPLIES_MAX) {
        struct wire_message *m = &r->final[r->count];
        enum wire_result w = wire_read(m, in, WIRE_RESPONSE, is_to_head(c, r->count), from->ended && !from->reset);

        r->fault = w == WIRE_BAD ? m->fault : NULL;
        r->part = w == WIRE_MORE;
        if (w != WIRE_OK)
            return;
        in = (struct text){in.p + m->used, in.n - m->used};
        if (m->status >= 200 || m->status == 101)
            r->count++;
        else
            bytes_addf(&r->interim, "%s%u", r->interim.n > 0 ? " " : "", m->status);
    }
}

static bool client_is_done(struct stage *s, const void *arg)
{
    static struct replies r;
    const struct conformance *c = arg;

    if (s->client.ended)
        return true;
    if (c->end == CLOSES || (c->refused ? !c->survives : !c->line) || !script_is_over(&s->client.out))
        return false;
    replies_read(&r, c, &s->client);
    bool done = r.fault || r.count >= replies_of(c);
    replies_free(&r);
    return done;
}

static bool fence_is_done(struct stage *s, const void *arg)
{
    (void)arg;
    return s->client.ended;
}

static bool is_unkept(struct stage *s, const void *arg)
{
    (void)arg;
    return !stage_kept(s);
}

static bool is_clear(struct stage *s, const void *arg)
{
    (void)arg;
    for (unsigned i = 0; i < s->conn_count; i++)
        if (!s->conns[i].ended && s->conns[i].in.n > s->conns[i].parsed)
            return false;
    return true;
}

/* Sends a request on a connection of its own, and gives whether the origin's own answer to it came back. */
static bool send_fence(struct stage *s)
{
    static struct wire_message m;
    bool ok = stage_client_open(s, SPLIT_NOT);

    script_add(&s->client.out, (struct text){FENCE, sizeof FENCE - 1});
    ok = ok && stage_run(s, fence_is_done, NULL) &&
         wire_read(&m, (struct text){s->client.got.p, s->client.got.n}, WIRE_RESPONSE, false, true) == WIRE_OK &&
         m.status == 200 && text_is((struct text){m.content.p, m.content.n}, "/fence");
    wire_free(&m);
    return ok;
}

/* ---- judging ---- */

/* Notes the first thing that differs. */
#define DIFFERS(v, ...)                                                                                                \
    do {                                                                                                               \
        if ((v)->why.n == 0)                                                                                           \
            bytes_addf(&(v)->why, __VA_ARGS__);                                                                        \
    } while (0)

static void judge_lists(struct verdict *v, const struct wire_fields *f, const char *const *has, size_t has_max,
                        const char *const *lacks, size_t lacks_max, const char *where)
{
    for (size_t i = 0; i < has_max && has[i]; i++)
        if (!wire_agrees(f, has[i]))
            DIFFERS(v, "%s has not \"%s\"", where, has[i]);
    for (size_t i = 0; i < lacks_max && lacks[i]; i++)
        if (wire_count(f, lacks[i], strlen(lacks[i])) > 0)
            DIFFERS(v, "%s has a field \"%s\"", where, lacks[i]);
}

static void judge_trailers(struct verdict *v, const struct wire_fields *f, const char *const *wanted, size_t max,
                           const char *where)
{
    size_t lines = 0;

    for (size_t n = 0; n < max && wanted[n]; n++) {
        if (!wire_agrees(f, wanted[n]))
            DIFFERS(v, "the trailers of %s have not \"%s\"", where, wanted[n]);
        lines++;
        for (const char *p = wanted[n]; (p = strstr(p, " | ")); p++)
            lines++;
    }
    if (f->n != lines)
        DIFFERS(v, "%s has %u trailers instead of %zu", where, f->n, lines);
}

static void judge_content(struct verdict *v, const struct bytes *got, struct text wanted, const char *where)
{
    if (got->n != wanted.n || (wanted.n > 0 && memcmp(got->p, wanted.p, wanted.n) != 0))
        DIFFERS(v, "the content of %s is %zu bytes, \"%.80s\"", where, got->n, got->n > 0 ? got->p : "");
}

/* The content that the case wants, its {{...}} carried out. */
static void judge_expanded(struct verdict *v, const struct bytes *got, struct text wanted, const char *where)
{
    struct script s = {0};

    script_add(&s, wanted);
    struct text t = {s.count > 0 ? s.steps[0].bytes.p : "", s.count > 0 ? s.steps[0].bytes.n : 0};
    judge_content(v, got, t, where);
    script_free(&s);
}

static void judge_request(struct verdict *v, const struct conformance *c, const struct wire_message *m)
{
    judge_lists(v, &m->fields, c->has, COUNT(c->has), c->lacks, COUNT(c->lacks), "the request at the origin");
    judge_expanded(v, &m->content, c->content, "the request at the origin");
    judge_trailers(v, &m->trailers, c->trailers, COUNT(c->trailers), "the request at the origin");
    if (c->raw && !text_has(m->head, c->raw))
        DIFFERS(v, "the head at the origin does not hold \"%s\"", c->raw);
    if (m->extensions)
        DIFFERS(v, "chunk extensions reached the origin");
    if (wire_count(&m->fields, "Host", 4) != 1)
        DIFFERS(v, "the request at the origin has not one Host");
}

/* A request that must not have become whole, and what there is of it. Where the case names its line, some must be. */
static void judge_incomplete(struct verdict *v, const struct conformance *c, const struct stage_conn *left)
{
    if (!left && c->line)
        DIFFERS(v, "the origin got no part of a request");
    else if (c->line && (left->in.n - left->parsed < strlen(c->line) ||
                         memcmp(left->in.p + left->parsed, c->line, strlen(c->line)) != 0))
        DIFFERS(v, "the part of a request at the origin does not begin with \"%s\"", c->line);
}

/* A line of the case may hold {{...}}. */
static bool line_agrees(const struct wire_message *m, const char *line)
{
    struct script s = {0};

    script_add(&s, (struct text){line, strlen(line)});
    bool same = text_is(m->line, s.steps[0].bytes.p);
    script_free(&s);
    return same;
}

static void judge_origin(struct verdict *v, struct stage *s, const struct conformance *c)
{
    unsigned n = c->incomplete && c->line, wanted = lines_of(c);
    const struct stage_conn *left = stage_leftover(s);

    if (c->incomplete)
        judge_incomplete(v, c, left);
    for (unsigned i = 0; i < s->record_count; i++) {
        const struct wire_message *m = &s->records[i].m;
        const char *line = line_of(c, n);

        if (text_is(m->target, "/fence"))
            continue;
        n++;
        if (!line || !line_agrees(m, line))
            DIFFERS(v, "the origin got \"%.*s\" %s%s", (int)m->line.n, m->line.p, line ? "instead of " : "unwanted",
                    line ? line : "");
        if (n == 1 && !c->incomplete && !c->refused && c->line)
            judge_request(v, c, m);
    }
    if (n < wanted)
        DIFFERS(v, "%u requests reached the origin instead of %u", n, wanted);
    if (left && left->fault)
        DIFFERS(v, "the origin got what is no request: %s", left->fault);
    if (left && !c->partial && !c->incomplete)
        DIFFERS(v, "the origin got a part of a request");
    if (left && !left->ended)
        DIFFERS(v, "the origin's connection was left in the middle of a request");
}

static void judge_refusal(struct verdict *v, const struct replies *r, const struct conformance *c,
                          const struct stage_client *from)
{
    const struct wire_message *m = &r->final[0];

    if (r->count == 0)
        DIFFERS(v, "no response came");
    else if (m->status != c->refused && m->status != c->or_refused)
        DIFFERS(v, "the status is %u instead of %u", m->status, c->refused);
    judge_lists(v, &m->fields, c->reply_has, COUNT(c->reply_has), c->reply_lacks, COUNT(c->reply_lacks),
                "the response");
    if (c->survives)
        return;
    if (!wire_has_token(&m->fields, "Connection", "close"))
        DIFFERS(v, "the refusal does not say \"Connection: close\"");
    if (!from->ended)
        DIFFERS(v, "the connection was not closed");
    if (r->count > 1)
        DIFFERS(v, "what came behind was answered, too");
}

static void judge_cut(struct verdict *v, const struct replies *r, const struct conformance *c,
                      const struct stage_client *from)
{
    if (r->count == 1 && r->final[0].status == 502 && c->status == 0)
        return; /* and the connection may stay */
    if (r->count > 0)
        DIFFERS(v, "a response was passed off as whole");
    if (!from->ended)
        DIFFERS(v, "the connection was not closed");
    if (c->reset && !from->reset)
        DIFFERS(v, "the connection was not reset");
    if (c->status && r->final[0].status != c->status)
        DIFFERS(v, "the status is %u instead of %u", r->final[0].status, c->status);
}

static struct text reply_content(const struct conformance *c, unsigned i)
{
    const char *line = line_of(c, i), *target = strchr(line, ' ') + 1;

    if (is_to_head(c, i))
        return (struct text){"", 0};
    if (c->answer.p && line != NULL && strcmp(line, BEHIND_LINE) != 0)
        return c->reply;
    return (struct text){target, strcspn(target, " ")};
}

static void judge_first_reply(struct verdict *v, const struct wire_message *m, const struct conformance *c)
{
    unsigned status = c->status ? c->status : 200;

    if (m->status != status)
        DIFFERS(v, "the status is %u instead of %u", m->status, status);
    judge_lists(v, &m->fields, c->reply_has, COUNT(c->reply_has), c->reply_lacks, COUNT(c->reply_lacks),
                "the response");
    judge_trailers(v, &m->trailers, c->reply_trailers, COUNT(c->reply_trailers), "the response");
    if (c->reply_raw && !text_has(m->head, c->reply_raw))
        DIFFERS(v, "the response's head does not hold \"%s\"", c->reply_raw);
    if (c->framing && m->framing != c->framing)
        DIFFERS(v, "the response is framed as %c instead of %c", m->framing, c->framing);
    if (m->extensions)
        DIFFERS(v, "chunk extensions reached the client");
}

static void judge_replies(struct verdict *v, const struct replies *r, const struct conformance *c,
                          const struct stage_client *from)
{
    for (unsigned i = 0; i < r->count && line_of(c, i); i++) {
        const struct wire_message *m = &r->final[i];
        bool problem = i == 0 && c->status >= 500 && c->reply.n == 0; /* the proxy's own words */

        if (i == 0)
            judge_first_reply(v, m, c);
        if (!problem)
            judge_expanded(v, &m->content, reply_content(c, i), i == 0 ? "the response" : "a later response");
    }
    if (strcmp(r->interim.p, c->interim ? c->interim : "") != 0)
        DIFFERS(v, "interim responses are \"%s\"", r->interim.p);
    if (r->count != lines_of(c))
        DIFFERS(v, "%u responses came instead of %u", r->count, lines_of(c));
    if (r->part)
        DIFFERS(v, "a response is not whole");
    if (c->end == CLOSES && !from->ended)
        DIFFERS(v, "the connection was not closed");
    if (c->end == STAYS && !sends_behind(c) && !c->half_close && from->ended)
        DIFFERS(v, "the connection was closed");
}

static void judge_client(struct verdict *v, const struct replies *r, const struct conformance *c,
                         const struct stage_client *from)
{
    if (r->fault)
        DIFFERS(v, "the response is malformed: %s", r->fault);
    if (c->refused)
        judge_refusal(v, r, c, from);
    else if (c->end == CUT)
        judge_cut(v, r, c, from);
    else if (c->line)
        judge_replies(v, r, c, from);
    else if (!from->ended)
        DIFFERS(v, "the connection was not closed");
}

/* In a few words: "400 closed", "200, 200; GET / HTTP/1.1". */
static void say_seen(struct verdict *v, const struct stage *s, const struct replies *r, const struct stage_client *from)
{
    unsigned n = 0;

    for (unsigned i = 0; i < r->count; i++)
        bytes_addf(&v->seen, "%s%u", i > 0 ? "," : "", r->final[i].status);
    if (r->count == 0)
        bytes_addf(&v->seen, "%s", r->fault ? "malformed response" : r->part ? "part of a response" : "no response");
    bytes_addf(&v->seen, "%s", from->reset ? " reset" : from->ended ? " closed" : "");
    for (unsigned i = 0; i < s->record_count; i++)
        n += !text_is(s->records[i].m.target, "/fence");
    bytes_addf(&v->seen, ", %u forwarded", n);
    const struct stage_conn *left = stage_leftover(s);
    if (left)
        bytes_addf(&v->seen, "%s", left->fault ? ", garbage to origin" : ", part to origin");
}

/* Everything that both sides saw, for the reader of a failure. */
static void say_all(struct verdict *v, const struct stage *s, const struct stage_client *from)
{
    bytes_addf(&v->why, "\n  client got (%s): ",
               from->reset   ? "then a reset"
               : from->ended ? "then the end"
                             : "still open");
    bytes_add_escaped(&v->why, (struct text){from->got.p, from->got.n}, ESCAPED_MAX);
    for (unsigned i = 0; i < s->conn_count; i++) {
        bytes_addf(&v->why, "\n  origin got on connection %u (%s): ", s->conns[i].index,
                   s->conns[i].ended ? "ended" : "still open");
        bytes_add_escaped(&v->why, (struct text){s->conns[i].in.p, s->conns[i].in.n}, ESCAPED_MAX);
    }
}

static bool play(struct stage *s, const struct conformance *c, enum split split)
{
    stage_begin(s, c, c->answer.p && !c->in_one ? split : SPLIT_NOT);
    if (!stage_client_open(s, c->answer.p ? SPLIT_NOT : split))
        return false;
    script_add(&s->client.out, c->sent);
    if (sends_behind(c))
        script_add(&s->client.out, (struct text){BEHIND, sizeof BEHIND - 1});
    s->client.half_close = c->half_close;
    stage_run(s, client_is_done, c);
    stage_client_close(s);
    return true;
}

/* What a case that failed came to, where it should have been refused. */
static void classify(struct verdict *v, const struct stage *s, const struct conformance *c, const struct replies *r)
{
    const struct stage_conn *left = stage_leftover(s);
    unsigned n = 0;

    if (!c->refused)
        return;
    for (unsigned i = 0; i < s->record_count; i++)
        n += !text_is(s->records[i].m.target, "/fence");
    v->let_through = n > lines_of(c) || (left && (left->fault || !c->partial));
    v->refused_otherwise = !v->let_through && r->count > 0 && r->final[0].status >= 400;
}

struct verdict judge_case(struct stage *s, const struct conformance *c, enum split split)
{
    static struct replies r;
    struct verdict v = {0};
    bool played = play(s, c, split);
    struct stage_client first = s->client;

    s->client = (struct stage_client){.fd = -1};
    if (!played)
        DIFFERS(&v, "the proxy does not accept connections");
    bool fenced = send_fence(s);
    stage_run(s, is_clear, NULL);
    if (c->origin_closed)
        stage_run(s, is_unkept, NULL);

    replies_read(&r, c, &first);
    judge_origin(&v, s, c);
    judge_client(&v, &r, c, &first);
    if (!fenced)
        DIFFERS(&v, "an ordinary request after this one was not served as it should");
    if (c->origin_closed && stage_kept(s))
        DIFFERS(&v, "the connection to the origin was kept");
    v.pass = v.why.n == 0;
    say_seen(&v, s, &r, &first);
    if (!v.pass)
        classify(&v, s, c, &r);
    if (!v.pass)
        say_all(&v, s, &first);
    if (!v.pass)
        stage_reset(s);
    replies_free(&r);
    stage_client_free(&first);
    return v;
}

void verdict_free(struct verdict *v)
{
    bytes_free(&v->why);
    bytes_free(&v->seen);
}

bool judge_is_alive(struct stage *s)
{
    stage_begin(s, NULL, SPLIT_NOT);
    return send_fence(s);
}
