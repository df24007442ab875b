/* Fuzzing of clients.json, its journal, and a client's JSON object: any text is taken whole or refused with a place in
 * it; what was taken keeps the bounds that the limiter relies on, and comes back the same when it is written. */
#include "base/clock.h"
#include "base/json.h"
#include "limit/client_json.h"
#include "limit/journal.h"
#include "limit/snapshot.h"

#include <stdlib.h>

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition))                                                                                              \
            abort();                                                                                                   \
    } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct hash_key key = {1, 2};
static const struct instant now = {10 * NS_PER_S, UINT64_C(1769860800) * NS_PER_S};
static const struct boot_clock boot = {17, 5 * NS_PER_S};

static void check_view(const struct client_view *v)
{
    char id[CLIENT_ID_MAX + 1];
    CHECK(client_id_canonical(str_of(v->id), id) && str_eq(str_of(id), str_of(v->id)));
    CHECK(bucket_capacity_is_valid(v->set.capacity) && bucket_rate_is_valid(v->set.rate));
    CHECK(v->tokens <= v->set.capacity);
    CHECK((unsigned)v->set.mode < CLIENT_MODES);
}

static void check_table(const struct client_table *t, struct buf *written)
{
    size_t n = 0;
    uint64_t last = 0;
    struct buf notes = BUF_INIT;
    for (const struct client *c = client_table_after(t, 0); c; c = client_table_next(c), n++) {
        struct client_view v;
        client_view_of(t, c, now.now, &v);
        check_view(&v);
        CHECK(client_table_find(t, client_id(c)) == c);
        CHECK(snapshot_note_client(&notes, t, c, &now));
    }
    CHECK(buf_append_str(written, SNAPSHOT_BEGIN));
    CHECK(snapshot_append_clients(written, buf_str(&notes), &last));
    buf_fini(&notes);
    CHECK(snapshot_append_end(written, &now, &boot));
    CHECK(n == t->shown);
}

/* A few bytes at a time. */
static ssize_t read_some(void *arg, char *p, size_t n)
{
    struct str *rest = arg;
    n = n < 5 ? n : 5;
    n = n < rest->n ? n : rest->n;
    if (n > 0)
        memcpy(p, rest->p, n);
    *rest = str_make(rest->p + n, rest->n - n);
    return (ssize_t)n;
}

/* In pieces it is the same text. */
static void try_pieces(struct str text, bool taken, const struct client_table *t, const struct text_fault *fault)
{
    struct client_table again;
    struct text_fault now_fault;
    uint64_t saved;
    client_table_init(&again, &key);
    CHECK(snapshot_read(&(struct snapshot_source){read_some, &text}, &again, &now, &boot, &saved, &now_fault) == taken);
    CHECK(again.shown == t->shown);
    CHECK(taken || (now_fault.offset == fault->offset && strcmp(now_fault.what, fault->what) == 0));
    client_table_fini(&again);
}

static void try_snapshot(struct str text)
{
    struct client_table t, again;
    struct text_fault fault;
    struct buf written = BUF_INIT;
    uint64_t saved;
    client_table_init(&t, &key);
    client_table_init(&again, &key);
    bool taken = snapshot_parse(text, &t, &now, &boot, &saved, &fault);
    try_pieces(text, taken, &t, &fault);
    if (taken) {
        check_table(&t, &written);
        CHECK(snapshot_parse(buf_str(&written), &again, &now, &boot, &saved, &fault));
        CHECK(again.shown == t.shown && saved == now.wall_ns);
    } else {
        CHECK(fault.offset <= text.n && fault.what[0] != '\0');
    }
    client_table_fini(&t);
    client_table_fini(&again);
    buf_fini(&written);
}

static void try_journal(struct str text)
{
    struct client_table t;
    struct text_fault fault = {0};
    struct buf written = BUF_INIT;
    size_t good = 0;
    client_table_init(&t, &key);
    enum journal_end end = journal_replay(text, &t, &now, now.wall_ns - NS_PER_S, &good, &fault);
    CHECK(good <= text.n && (end != JOURNAL_WHOLE || good == text.n));
    CHECK(end != JOURNAL_BAD || (fault.offset <= text.n && fault.what[0] != '\0'));
    check_table(&t, &written);
    client_table_fini(&t);
    buf_fini(&written);
}

/* An object that is a client, through a line of the journal and back. */
static void try_client(struct str text)
{
    struct json_error e;
    struct client_fields f;
    struct client_fault fault;
    struct buf line = BUF_INIT;
    struct json_doc *d = json_parse(text, false, &e);
    if (!d)
        return;
    if (client_fields_read(json_root(d), CLIENT_ID | CLIENT_CAPACITY | CLIENT_RATE,
                           CLIENT_TOKENS | CLIENT_MODE | CLIENT_PLACE, &f, &fault)) {
        CHECK(journal_append(&line, JOURNAL_REGISTER, &f.v, now.wall_ns));
        CHECK(journal_append(&line, JOURNAL_UPDATE, &f.v, now.wall_ns));
        CHECK(journal_append(&line, JOURNAL_DELETE, &f.v, now.wall_ns));
        try_journal(buf_str(&line));
    } else {
        CHECK(fault.what[0] != '\0');
    }
    json_free(d);
    buf_fini(&line);
}

/* What the short way takes for a client is one, the same, by the long way. */
static void try_stored(struct str text)
{
    struct json_error e;
    struct client_fields is, parsed;
    struct client_fault fault;
    size_t n = client_stored_read(text, &is);
    if (n == 0)
        return;
    CHECK(n <= text.n);
    struct json_doc *d = json_parse(str_make(text.p, n), false, &e);
    CHECK(d && client_fields_read(json_root(d), CLIENT_ID | CLIENT_CAPACITY | CLIENT_RATE,
                                  CLIENT_TOKENS | CLIENT_MODE | CLIENT_PLACE, &parsed, &fault));
    CHECK(is.given == parsed.given && strcmp(is.v.id, parsed.v.id) == 0 && is.v.tokens == parsed.v.tokens);
    CHECK(is.v.set.capacity == parsed.v.set.capacity && is.v.set.rate == parsed.v.set.rate &&
          is.v.set.mode == parsed.v.set.mode && is.v.place == parsed.v.place);
    json_free(d);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct str text = str_make((const char *)data, size);
    try_snapshot(text);
    try_journal(text);
    try_client(text);
    try_stored(text);
    return 0;
}
