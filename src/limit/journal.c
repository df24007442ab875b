/* The journal's lines: {"op":"register","at":"...","back":0,"client":{...},"sum":"0123456789abcdef"}
 * `back` is how many bytes before this line its group begins, the lines that were written and synced together. The sum
 * is SipHash-2-4 under a fixed key: it finds damage, not forgery. */
#include "limit/journal.h"

#include "base/clock.h"
#include "base/hash.h"

#include <stdio.h>

static const char *const op_names[] = {"register", "update", "delete"};

/* The least that a disk writes whole. */
#define SECTOR 512u

/* What a double holds to the byte. */
#define BACK_MAX 9007199254740992.0

static const struct hash_key sum_key = {UINT64_C(0x6a6f75726e616c20), UINT64_C(0x6f6620636c69656e)};

/* What follows the summed part of a line: ,"sum":"0123456789abcdef"} */
#define SUM_BEGIN STR(",\"sum\":\"")
#define SUM_SIZE  (8u + 16u + 2u)

static void format_sum(struct str summed, char out[SUM_SIZE + 1])
{
    uint64_t sum = hash_siphash24(&sum_key, summed.p, summed.n);
    snprintf(out, SUM_SIZE + 1, "%s%016llx\"}", SUM_BEGIN.p, (unsigned long long)sum);
}

static bool append_client(struct buf *out, enum journal_op op, const struct client_view *v)
{
    if (op != JOURNAL_DELETE)
        return client_stored_json(out, v);
    return buf_append_str(out, STR("{\"client_id\":")) && json_append_string(out, str_of(v->id)) &&
           buf_append_str(out, STR("}"));
}

bool journal_append(struct buf *group, enum journal_op op, const struct client_view *v, uint64_t wall_ns)
{
    size_t back = group->len;
    char when[CLOCK_RFC3339_SIZE], sum[SUM_SIZE + 1];
    clock_format_rfc3339(wall_ns, when);
    if (!buf_printf(group, "{\"op\":\"%s\",\"at\":\"%s\",\"back\":%zu,\"client\":", op_names[op], when, back) ||
        !append_client(group, op, v))
        goto fail;
    struct str all = buf_str(group);
    format_sum(str_make(all.p + back, all.n - back), sum);
    if (buf_append(group, sum, SUM_SIZE) && buf_append_str(group, STR("\n")))
        return true;
fail:
    group->len = back; /* no half lines */
    return false;
}

/* ---- replay ---- */

struct change {
    enum journal_op op;
    uint64_t wall_ns;
    size_t back;
    struct client_view v;
};

static bool fail(struct text_fault *fault, size_t offset, const char *what)
{
    fault->offset = offset;
    snprintf(fault->what, sizeof fault->what, "%s", what);
    return false;
}

static bool sum_is_right(struct str line)
{
    if (line.n <= SUM_SIZE)
        return false;
    char sum[SUM_SIZE + 1];
    struct str summed = str_make(line.p, line.n - SUM_SIZE);
    format_sum(summed, sum);
    return memcmp(line.p + summed.n, sum, SUM_SIZE) == 0;
}

static bool is_string(const struct json *v)
{
    return v && json_type(v) == JSON_STRING;
}

static bool read_op(const struct json *v, enum journal_op *op)
{
    for (unsigned i = 0; is_string(v) && i < sizeof op_names / sizeof op_names[0]; i++)
        if (strcmp(json_string(v), op_names[i]) == 0) {
            *op = (enum journal_op)i;
            return true;
        }
    return false;
}

static bool read_time(const struct json *v, uint64_t *wall_ns)
{
    if (!is_string(v))
        return false;
    struct str when = str_of(json_string(v));
    return clock_parse_rfc3339(when.p, when.n, wall_ns) == 0;
}

/* A line without it is a group of its own. */
static bool read_back(const struct json *v, size_t *back)
{
    *back = 0;
    if (!v)
        return true;
    double n = json_type(v) == JSON_NUMBER ? json_number(v) : -1;
    if (n < 0 || n > BACK_MAX || n != (double)(size_t)n)
        return false;
    *back = (size_t)n;
    return true;
}

static bool read_change(const struct json_doc *d, struct change *c, struct text_fault *fault)
{
    const struct json *root = json_root(d), *client = json_type(root) == JSON_OBJECT ? json_get(root, "client") : NULL;
    if (!client || !read_op(json_get(root, "op"), &c->op) || !read_time(json_get(root, "at"), &c->wall_ns) ||
        !read_back(json_get(root, "back"), &c->back))
        return fail(fault, 0, "this is no line of the journal");
    struct client_fields f;
    struct client_fault what;
    bool set = c->op != JOURNAL_DELETE;
    unsigned needed = set ? CLIENT_ID | CLIENT_CAPACITY | CLIENT_RATE | CLIENT_TOKENS : CLIENT_ID;
    if (!client_fields_read(client, needed, set ? CLIENT_MODE | CLIENT_PLACE : 0, &f, &what))
        return fail(fault, json_offset(d, what.at), what.what);
    c->v = f.v;
    return true;
}

static bool parse_line(struct str line, struct change *c, struct text_fault *fault)
{
    if (!sum_is_right(line))
        return fail(fault, 0, "the checksum of this line is wrong");
    struct json_error e;
    struct json_doc *d = json_parse(line, false, &e);
    if (!d) {
        fault->no_memory = e.no_memory;
        return fail(fault, e.offset, e.what);
    }
    bool ok = read_change(d, c, fault);
    json_free(d);
    return ok;
}

/* Registering a client that is there happens when the snapshot was begun before, and ended after it was registered. It
 * has the place that the line tells. Of a line that tells none it moves to the end, where all the registrations since
 * come in their order. One that is changed and is not there was deleted before the snapshot came to it, as a line to
 * come says; until then it has its place, not that of another one who comes between. */
static struct client *place_client(struct client_table *t, const struct change *change)
{
    uint64_t place = change->v.place;
    struct client *c = client_table_find(t, str_of(change->v.id));
    if (c && change->op == JOURNAL_REGISTER && c->seq != place)
        client_table_move(t, c, place);
    if (c)
        return c;
    c = client_table_add_at(t, str_of(change->v.id), &change->v.set, place);
    if (c)
        client_table_show(t, c);
    return c;
}

static bool apply_setting(struct client_table *t, const struct change *change, const struct instant *at,
                          uint64_t saved_wall_ns)
{
    struct settling to;
    uint64_t word;
    size_t before = t->shown;
    struct client *c = place_client(t, change);
    if (!c || !client_table_prepare(t, &change->v.set, &to))
        return false;
    bool older = t->shown == before && change->wall_ns < saved_wall_ns;
    if (client_table_recall(t, c, &to.policy, at->now, &word)) {
        c->exact = true;
    } else if (c->exact || older) {
        word = bucket_converted(&c->policy, &to.policy, *client_word(t, c), at->now);
    } else {
        uint64_t away = at->wall_ns > change->wall_ns ? at->wall_ns - change->wall_ns : 0;
        word = bucket_refilled(&to.policy, bucket_word(&to.policy, change->v.tokens, at->now), at->now, away);
    }
    client_table_settle(t, c, &to, word);
    return true;
}

static bool apply(struct client_table *t, const struct change *change, const struct instant *at, uint64_t saved_wall_ns)
{
    if (change->op != JOURNAL_DELETE)
        return apply_setting(t, change, at, saved_wall_ns);
    struct client *c = client_table_find(t, str_of(change->v.id));
    if (c)
        client_table_remove(t, c);
    return true;
}

/* A line of the text and where it begins. */
struct line {
    struct str text;
    size_t at;
    bool ended;
};

static bool next_line(struct str text, size_t *at, struct line *l)
{
    if (*at >= text.n)
        return false;
    struct str rest = str_make(text.p + *at, text.n - *at);
    size_t length = str_find(rest, '\n');
    *l = (struct line){.text = str_make(rest.p, length), .at = *at, .ended = length < rest.n};
    *at += l->ended ? length + 1 : length;
    return true;
}

/* Where the run of zero bytes that begins at `from` ends. */
static size_t zeros_end(struct str text, size_t from)
{
    while (from < text.n && text.p[from] == '\0')
        from++;
    return from;
}

/* Does this look like what a crash leaves of lines that were being written? */
static bool has_hole(struct str text, const struct line *l)
{
    size_t end = l->at + l->text.n;
    bool holes = false;
    if (!l->ended)
        return true;
    for (size_t at = l->at; at < end; at++) {
        const char *zero = memchr(text.p + at, '\0', end - at);
        if (!zero)
            break;
        at = zeros_end(text, (size_t)(zero - text.p));
        if (at % SECTOR != 0)
            return false;
        holes = true;
    }
    return holes;
}

static bool parse(const struct line *l, struct change *c, struct text_fault *fault)
{
    if (parse_line(l->text, c, fault))
        return true;
    fault->offset += l->at;
    return false;
}

/* Is what follows `hole` of its group, as far as it is there? Only the last group can be torn. */
static enum journal_end judge_hole(struct str text, const struct line *hole, struct text_fault *fault)
{
    struct line l;
    struct change change;
    for (size_t at = hole->at + hole->text.n + 1; next_line(text, &at, &l);) {
        if (has_hole(text, &l))
            continue;
        if (!parse(&l, &change, fault))
            return JOURNAL_BAD;
        if (change.back < l.at - hole->at) {
            fail(fault, hole->at, "the checksum of this line is wrong");
            return JOURNAL_BAD;
        }
    }
    return JOURNAL_TORN;
}

enum journal_end journal_replay(struct str text, struct client_table *t, const struct instant *at,
                                uint64_t saved_wall_ns, size_t *good, struct text_fault *fault)
{
    struct line l;
    *good = 0;
    fault->unreadable = 0;
    fault->no_memory = false;
    for (size_t next = 0; next_line(text, &next, &l); *good = next) {
        struct change change;
        if (has_hole(text, &l))
            return judge_hole(text, &l, fault);
        if (!parse(&l, &change, fault))
            return JOURNAL_BAD;
        if (!apply(t, &change, at, saved_wall_ns)) {
            fault->no_memory = true;
            fail(fault, l.at, "there is no memory for so many clients");
            return JOURNAL_BAD;
        }
    }
    return JOURNAL_WHOLE;
}
