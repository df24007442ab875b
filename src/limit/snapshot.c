/* clients.json: written a client at a time, and read likewise, so that a file of any size needs no tree of its own.
 * A small scanner cuts the text into the objects of the array; each that is not just as it would be written is then
 * parsed strictly. */
#include "limit/snapshot.h"

#include "base/clock.h"
#include "base/json.h"
#include "limit/client_json.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* The id stands behind it. */
struct note {
    struct client_settings set;
    double tokens;
    uint64_t place;
    size_t id_len;
};

bool snapshot_note_client(struct buf *notes, const struct client_table *t, const struct client *c,
                          const struct instant *at)
{
    struct str id = client_id(c);
    struct note n = {{c->policy.capacity, c->policy.rate, (enum client_mode)c->mode},
                     bucket_tokens(&c->policy, *client_word(t, c), at->now),
                     c->seq,
                     id.n};
    return buf_append(notes, &n, sizeof n) && buf_append_str(notes, id);
}

/* Takes a client from the front of the notes. */
static void take_note(struct str *notes, struct client_view *out)
{
    struct note n;
    memcpy(&n, notes->p, sizeof n);
    memcpy(out->id, notes->p + sizeof n, n.id_len);
    out->id[n.id_len] = '\0';
    out->set = n.set;
    out->tokens = client_tokens_shown(n.tokens);
    out->place = n.place;
    *notes = str_make(notes->p + sizeof n + n.id_len, notes->n - sizeof n - n.id_len);
}

bool snapshot_append_clients(struct buf *out, struct str notes, uint64_t *last)
{
    struct client_view v = {.id = ""};
    while (notes.n > 0) {
        take_note(&notes, &v);
        uint64_t before = *last;
        *last = v.place;
        if (v.place == before + 1)
            v.place = 0;
        if (!buf_append_str(out, before == 0 ? STR("\n") : STR(",\n")) || !client_stored_json(out, &v))
            return false;
    }
    return true;
}

bool snapshot_append_end(struct buf *out, const struct instant *at, const struct boot_clock *clock)
{
    char when[CLOCK_RFC3339_SIZE];
    clock_format_rfc3339(at->wall_ns, when);
    bool ok = buf_printf(out, "\n],\"saved_at\":\"%s\"", when);
    if (ok && clock->boot != 0)
        ok = buf_printf(out, ",\"boot\":\"%" PRIu64 " %" PRIu64 "\"", clock->boot, at->now + clock->zero);
    return ok && buf_append_str(out, STR("}\n"));
}

/* ---- the scanner ---- */

/* A text that is read piece by piece is at hand from what is still needed of it on. Places are those in the whole. */
struct scan {
    struct str text; /* what is at hand */
    size_t at;       /* in that */
    size_t held;     /* from where on it is still needed, if that is before `at`; NOTHING: it is not */
    size_t before;   /* bytes of the whole before what is at hand */
    const struct snapshot_source *source; /* NULL: there is no more */
    struct buf piece;
    struct client_table *table;
    const struct instant *now;
    const struct boot_clock *clock;
    uint64_t saved_wall_ns;
    uint64_t boot, boottime; /* in which it was saved, and the reading of its clock */
    bool seen_clients, seen_saved_at, seen_boot;
    struct text_fault *fault;
};

#define NOTHING SIZE_MAX

/* What is asked for at a time. */
#define PIECE ((size_t)128 * 1024)

/* No client is longer as it is written here: its id has 128 bytes, a number 25. */
#define STORED_MAX 512u

/* Gets more of the text, and lets go of what is not needed any more. False at its end. */
static bool more(struct scan *s)
{
    if (!s->source)
        return false;
    size_t over = s->held < s->at ? s->held : s->at;
    buf_consume(&s->piece, over);
    s->at -= over;
    s->held -= s->held == NOTHING ? 0 : over;
    s->before += over;
    bool room = buf_reserve(&s->piece, PIECE);
    ssize_t n = room ? s->source->read(s->source->arg, buf_tail(&s->piece), PIECE) : 0;
    s->fault->no_memory |= !room;
    s->fault->unreadable = n < 0 ? (int)n : 0;
    if (n > 0)
        buf_added(&s->piece, (size_t)n);
    else
        s->source = NULL;
    s->text = buf_str(&s->piece);
    return n > 0;
}

static bool at_end(struct scan *s)
{
    return s->at == s->text.n && !more(s);
}

/* The scan's place in the whole text. */
static size_t place(const struct scan *s)
{
    return s->before + s->at;
}

/* The same; from there on all stays at hand, up to parse_piece(). */
static size_t hold(struct scan *s)
{
    s->held = s->at;
    return place(s);
}

static bool fail(struct scan *s, size_t offset, const char *what)
{
    s->fault->offset = offset;
    snprintf(s->fault->what, sizeof s->fault->what, "%s", what);
    return false;
}

/* What must stand at `offset` does not; where that was looked for up to the end, the file is not whole. */
static bool missing(struct scan *s, size_t offset, const char *what)
{
    return fail(s, offset, at_end(s) ? "the file ends too early: it is cut off" : what);
}

/* The byte at the scan's place, or 0 at the end: a NUL in the text is refused like any byte that fits nowhere. */
static char here(struct scan *s)
{
    return at_end(s) ? '\0' : s->text.p[s->at];
}

static void skip_space(struct scan *s)
{
    while (here(s) == ' ' || here(s) == '\n' || here(s) == '\r' || here(s) == '\t')
        s->at++;
}

/* Goes over `c` with white space before it; false when something else is there. */
static bool take(struct scan *s, char c)
{
    skip_space(s);
    if (at_end(s) || here(s) != c)
        return false;
    s->at++;
    return true;
}

static bool expect(struct scan *s, char c, const char *what)
{
    return take(s, c) || missing(s, place(s), what);
}

/* Goes over a string, from its opening quote on. False when it does not end. */
static bool skip_string(struct scan *s)
{
    bool escaped = false;
    for (s->at++; !at_end(s); s->at++) {
        if (escaped)
            escaped = false;
        else if (here(s) == '\\')
            escaped = true;
        else if (here(s) == '"') {
            s->at++;
            return true;
        }
    }
    return false;
}

/* Goes over an object, from its opening brace on. */
static bool skip_object(struct scan *s)
{
    size_t depth = 0;
    while (!at_end(s)) {
        char c = here(s);
        if (c == '"') {
            if (!skip_string(s))
                return false;
            continue;
        }
        s->at++;
        depth += c == '{';
        depth -= c == '}';
        if (depth == 0)
            return true;
    }
    return false;
}

/* Parses what is held, from `start` to the scan's place; NULL with the fault filled. */
static struct json_doc *parse_piece(struct scan *s, size_t start)
{
    struct json_error e;
    struct json_doc *d = json_parse(str_make(s->text.p + (start - s->before), place(s) - start), false, &e);
    s->held = NOTHING;
    if (!d)
        fail(s, start + e.offset, e.what);
    s->fault->no_memory |= !d && e.no_memory;
    return d;
}

/* ---- its pieces ---- */

/* The order is that of the file; what a place says beyond that is which numbers were left out. */
static uint64_t place_behind(const struct client_table *t, uint64_t place)
{
    return place > t->last_seq && place <= CLIENT_PLACE_MAX / 2 ? place : 0;
}

static bool add_client(struct scan *s, const struct client_fields *f, size_t start)
{
    struct str id = str_of(f->v.id);
    if (client_table_find(s->table, id)) {
        fail(s, start, "");
        snprintf(s->fault->what, sizeof s->fault->what, "the client \"%s\" stands in the file twice", f->v.id);
        return false;
    }
    struct client *c = client_table_add_at(s->table, id, &f->v.set, place_behind(s->table, f->v.place));
    if (!c) {
        s->fault->no_memory = true;
        return fail(s, start, "there is no memory for so many clients");
    }
    if (f->given & CLIENT_TOKENS)
        *client_word(s->table, c) = bucket_word(&c->policy, f->v.tokens, s->now->now);
    client_table_show(s->table, c);
    return true;
}

/* In whatever form JSON allows. */
static bool read_any_client(struct scan *s)
{
    size_t start = hold(s);
    if (!skip_object(s))
        return fail(s, start, "this object does not end: the file is cut off");
    struct json_doc *d = parse_piece(s, start);
    if (!d)
        return false;
    struct client_fields f;
    struct client_fault fault;
    bool ok = client_fields_read(json_root(d), CLIENT_ID | CLIENT_CAPACITY | CLIENT_RATE,
                                 CLIENT_TOKENS | CLIENT_MODE | CLIENT_PLACE, &f, &fault);
    if (ok)
        ok = add_client(s, &f, start);
    else
        fail(s, start + json_offset(d, fault.at), fault.what);
    json_free(d);
    return ok;
}

/* Nearly all are as they were written here, and a start is waited for. */
static bool read_client(struct scan *s)
{
    while (s->text.n - s->at < STORED_MAX && more(s))
        ;
    size_t start = place(s);
    struct client_fields f;
    size_t n = client_stored_read(str_make(s->text.p + s->at, s->text.n - s->at), &f);
    s->at += n;
    return n > 0 ? add_client(s, &f, start) : read_any_client(s);
}

static bool read_clients(struct scan *s)
{
    if (!expect(s, '[', "clients must be an array"))
        return false;
    if (take(s, ']'))
        return true;
    do {
        skip_space(s);
        if (here(s) != '{')
            return missing(s, place(s),
                           here(s) == ']' ? "no client follows the comma before this" : "a client must be an object");
        if (!read_client(s))
            return false;
    } while (take(s, ','));
    return expect(s, ']', "the array of clients must go on with a comma or end here");
}

/* A string at the scan's place, parsed. */
static struct json_doc *read_string(struct scan *s, const char *otherwise)
{
    skip_space(s);
    size_t start = hold(s);
    if (here(s) == '"' && skip_string(s))
        return parse_piece(s, start);
    (void)missing(s, start, otherwise);
    return NULL;
}

static bool read_saved_at(struct scan *s)
{
    skip_space(s);
    size_t start = place(s);
    static const char must_be[] = "saved_at must be a time such as \"2026-01-31T12:34:56.789Z\"";
    struct json_doc *d = read_string(s, must_be);
    if (!d)
        return false;
    struct str when = str_of(json_string(json_root(d)));
    bool ok = clock_parse_rfc3339(when.p, when.n, &s->saved_wall_ns) == 0;
    json_free(d);
    return ok || fail(s, start, must_be);
}

static bool read_boot(struct scan *s)
{
    skip_space(s);
    size_t start = place(s);
    static const char must_be[] = "boot must be two numbers such as \"17 5000\", or be left out";
    struct json_doc *d = read_string(s, must_be);
    if (!d)
        return false;
    struct str text = str_of(json_string(json_root(d)));
    size_t space = str_find(text, ' ');
    bool ok = space < text.n && str_parse_u64(str_make(text.p, space), &s->boot) &&
              str_parse_u64(str_make(text.p + space + 1, text.n - space - 1), &s->boottime);
    json_free(d);
    return ok || fail(s, start, must_be);
}

static bool read_member(struct scan *s)
{
    const struct member {
        struct str name;
        bool *seen;
        bool (*read)(struct scan *s);
    } members[] = {{STR("clients"), &s->seen_clients, read_clients},
                   {STR("saved_at"), &s->seen_saved_at, read_saved_at},
                   {STR("boot"), &s->seen_boot, read_boot}};
    const struct member *m = members, *end = members + sizeof members / sizeof *members;
    skip_space(s);
    size_t start = place(s);
    struct json_doc *d = read_string(s, "a key is missing: \"clients\", \"saved_at\" or \"boot\"");
    if (!d)
        return false;
    while (m < end && !str_eq(str_of(json_string(json_root(d))), m->name))
        m++;
    json_free(d);
    if (m == end)
        return fail(s, start, "this key is not known; known are \"clients\", \"saved_at\" and \"boot\"");
    if (*m->seen)
        return fail(s, start, "this key is repeated");
    *m->seen = true;
    return expect(s, ':', "a colon is missing") && m->read(s);
}

static bool read_all(struct scan *s)
{
    skip_space(s);
    if (at_end(s))
        return fail(s, place(s), "the file is empty");
    while (s->text.n - s->at < 3 && more(s))
        ;
    if (place(s) == 0 && str_starts_with(s->text, STR("\xef\xbb\xbf")))
        return fail(s, 0, "the file begins with a byte order mark");
    if (!expect(s, '{', "the file must hold an object"))
        return false;
    do {
        if (!read_member(s))
            return false;
    } while (take(s, ','));
    if (!expect(s, '}', "the object must go on with a comma or end here"))
        return false;
    skip_space(s);
    if (!at_end(s))
        return fail(s, place(s), "something follows the end of the object");
    return s->seen_clients || fail(s, place(s), "\"clients\" is missing");
}

/* A wall clock that has stepped back since counts as no time. */
static uint64_t time_away(const struct scan *s)
{
    uint64_t boottime = s->now->now + s->clock->zero, wall = s->now->wall_ns;
    if (s->seen_boot && s->boot != 0 && s->boot == s->clock->boot && s->boottime <= boottime)
        return boottime - s->boottime;
    return wall > s->saved_wall_ns ? wall - s->saved_wall_ns : 0;
}

static bool read_snapshot(struct scan *s, uint64_t *saved_wall_ns)
{
    *s->fault = (struct text_fault){0};
    bool ok = read_all(s) && s->fault->unreadable == 0 && !s->fault->no_memory;
    buf_fini(&s->piece);
    if (!ok)
        return false;
    uint64_t away = time_away(s);
    for (struct client *c = client_table_after(s->table, 0); c; c = client_table_next(c))
        *client_word(s->table, c) = bucket_refilled(&c->policy, *client_word(s->table, c), s->now->now, away);
    *saved_wall_ns = s->seen_saved_at ? s->saved_wall_ns : 0;
    return true;
}

static struct scan scan_into(struct client_table *t, const struct instant *at, const struct boot_clock *clock,
                             struct text_fault *fault)
{
    return (struct scan){
        .held = NOTHING, .table = t, .now = at, .clock = clock, .saved_wall_ns = at->wall_ns, .fault = fault};
}

bool snapshot_parse(struct str text, struct client_table *t, const struct instant *at, const struct boot_clock *clock,
                    uint64_t *saved_wall_ns, struct text_fault *fault)
{
    struct scan s = scan_into(t, at, clock, fault);
    s.text = text;
    return read_snapshot(&s, saved_wall_ns);
}

bool snapshot_read(const struct snapshot_source *source, struct client_table *t, const struct instant *at,
                   const struct boot_clock *clock, uint64_t *saved_wall_ns, struct text_fault *fault)
{
    struct scan s = scan_into(t, at, clock, fault);
    s.source = source;
    return read_snapshot(&s, saved_wall_ns);
}
