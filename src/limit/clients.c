/* Changes of registered clients: they gather while a group of them is being written, and are put in force when their
 * group is on disk.
 *
 *   begin -> waiting -> (checked against the table) -> group -> journal -> in force -> done()
 *
 * Of one id at most one change is in a group; the others wait behind it. A client being registered is in the table
 * already, not shown, so that putting it in force cannot fail. */
#include "limit/clients.h"

#include "base/log.h"
#include "base/mem.h"
#include "base/metrics.h"
#include "limit/journal.h"
#include "limiter_impl.h"

#include <assert.h>

/* Changes put in force in one turn of the loop. */
#define GROUP_MAX 256u

struct change {
    struct list link;
    enum journal_op op;
    struct client_change *waiter; /* NULL: nobody any more */
    struct client *client;        /* while in a group */
    unsigned given;               /* of an update: set of enum client_field, what `set` changes */
    struct client_settings set;
    struct settling to; /* of an update in a group: what it leads to */
    char id[];          /* with a zero */
};

static void flush(struct posted *p);

void changes_init(struct limiter *lim)
{
    list_init(&lim->changes.waiting);
    list_init(&lim->changes.group);
    posted_init(&lim->changes.flush, flush);
}

static void free_all(struct list *changes)
{
    struct list *e;
    while ((e = list_pop_front(changes)))
        mem_free(container_of(e, struct change, link));
}

void changes_fini(struct limiter *lim)
{
    loop_unpost(lim->loop, &lim->changes.flush);
    free_all(&lim->changes.waiting);
    free_all(&lim->changes.group);
}

/* ---- beginning ---- */

static enum err begin(struct limiter *lim, enum journal_op op, const char *id, const struct client_fields *f,
                      struct client_change *waiter)
{
    struct changes *cs = &lim->changes;
    size_t n = strlen(id) + 1;
    if (cs->closing || cs->waiting_count >= CLIENT_CHANGES_MAX)
        return ERR_STORE_FAILED;
    struct change *c = mem_try_alloc(sizeof *c + n);
    if (!c)
        return ERR_INTERNAL;
    c->op = op;
    if (f) {
        c->given = f->given;
        c->set = f->v.set;
    }
    memcpy(c->id, id, n);
    c->waiter = waiter;
    waiter->change = c;
    list_push_back(&cs->waiting, &c->link);
    cs->waiting_count++;
    loop_post(lim->loop, &cs->flush);
    return ERR_OK;
}

enum err clients_register(struct limiter *lim, const struct client_fields *f, struct client_change *c)
{
    return begin(lim, JOURNAL_REGISTER, f->v.id, f, c);
}

enum err clients_update(struct limiter *lim, const struct client_fields *f, struct client_change *c)
{
    return begin(lim, JOURNAL_UPDATE, f->v.id, f, c);
}

enum err clients_delete(struct limiter *lim, const char *id, struct client_change *c)
{
    return begin(lim, JOURNAL_DELETE, id, NULL, c);
}

void clients_cancel(struct limiter *lim, struct client_change *c)
{
    (void)lim;
    if (c->change)
        c->change->waiter = NULL;
    c->change = NULL;
}

/* ---- ending ---- */

static void finish(struct change *c, enum err e, const struct client_view *view)
{
    struct client_change *waiter = c->waiter;
    list_remove(&c->link);
    mem_free(c);
    if (!waiter)
        return;
    waiter->change = NULL;
    if (view)
        waiter->view = *view;
    waiter->done(waiter, e);
}

static void log_setting(const char *key, double value)
{
    struct buf text = BUF_INIT;
    if (client_number_json(&text, value))
        log_digits(key, buf_str(&text));
    buf_fini(&text);
}

static void log_change(const char *event, const struct client_view *v)
{
    log_begin(LOG_INFO, event);
    log_z("client_id", v->id);
    log_setting("capacity", v->set.capacity);
    log_setting("rate_per_sec", v->set.rate);
    if (v->set.mode != CLIENT_ENFORCE)
        log_z("mode", client_mode_name(v->set.mode));
    log_end();
}

/* ---- putting in force ---- */

static struct ip address_of(const struct client *c)
{
    struct ip ip = {{0}};
    bool ok = ip_parse(client_id(c), &ip);
    assert(ok && c->is_address);
    (void)ok;
    return ip;
}

static bool is_unix(const struct client *c)
{
    return str_eq(client_id(c), UNIX_CLIENT);
}

/* The word with which an address is registered, whose anonymous bucket has `anon`: the tokens go along. A full bucket
 * holds no information, so the address counts as never seen, and begins full like a name. */
static uint64_t word_of_registration(const struct limiter *lim, const struct bucket_policy *p, uint64_t anon)
{
    uint64_t now = limiter_now(lim);
    bool unseen = bucket_is_full(&lim->anon.policy, anon, now);
    return unseen ? 0 : bucket_converted(&lim->anon.policy, p, anon, now);
}

static void put_registration_in_force(struct limiter *lim, struct client *c)
{
    if (c->is_address) {
        struct ip ip = address_of(c);
        *client_word(&lim->clients, c) = word_of_registration(lim, &c->policy, anon_table_leave(&lim->anon, &ip));
    } else if (is_unix(c)) {
        *client_word(&lim->clients, c) = word_of_registration(lim, &c->policy, lim->unix_word);
    }
    client_table_show(&lim->clients, c);
    metrics.clients_registered++;
}

static void put_update_in_force(struct limiter *lim, struct change *change)
{
    struct client *c = change->client;
    uint64_t word = bucket_converted(&c->policy, &change->to.policy, *client_word(&lim->clients, c), limiter_now(lim));
    client_table_settle(&lim->clients, c, &change->to, word);
    metrics.clients_updated++;
}

static void put_deletion_in_force(struct limiter *lim, struct client *c)
{
    uint64_t now = limiter_now(lim);
    uint64_t word = bucket_converted(&c->policy, &lim->anon.policy, *client_word(&lim->clients, c), now);
    if (c->is_address) {
        struct ip ip = address_of(c);
        anon_table_join(&lim->anon, &ip, word, now);
    } else if (is_unix(c) && word > lim->unix_word) {
        lim->unix_word = word; /* the one from before the registration has stayed */
    }
    client_table_remove(&lim->clients, c);
    metrics.clients_deleted++;
}

static void put_in_force(struct limiter *lim, struct change *change)
{
    struct client *c = change->client;
    struct client_view view;
    c->busy = false;
    if (change->op == JOURNAL_REGISTER)
        put_registration_in_force(lim, c);
    else if (change->op == JOURNAL_UPDATE)
        put_update_in_force(lim, change);
    client_view_of(&lim->clients, c, limiter_now(lim), &view);
    if (change->op == JOURNAL_DELETE)
        put_deletion_in_force(lim, c);
    log_change(change->op == JOURNAL_REGISTER ? "client_registered"
               : change->op == JOURNAL_UPDATE ? "client_updated"
                                              : "client_deleted",
               &view);
    finish(change, ERR_OK, &view);
}

/* The change has not come about. */
static void take_back(struct limiter *lim, struct change *change, enum err e)
{
    if (change->op == JOURNAL_REGISTER)
        client_table_remove(&lim->clients, change->client);
    else
        change->client->busy = false;
    client_table_unprepare(&lim->clients, &change->to);
    finish(change, e, NULL);
}

void changes_appended(void *arg, bool ok)
{
    struct limiter *lim = arg;
    struct list *group = &lim->changes.group;
    /* Each ending takes its change out of the group. */
    while (!list_empty(group)) {
        struct change *c = container_of(group->next, struct change, link);
        if (ok)
            put_in_force(lim, c);
        else
            take_back(lim, c, ERR_STORE_FAILED);
    }
    loop_post(lim->loop, &lim->changes.flush);
}

/* ---- forming a group ---- */

/* The client as it will be, with its tokens as of `at`, for the journal. */
static void view_after(const struct limiter *lim, const struct change *change, const struct instant *at,
                       struct client_view *v)
{
    const struct client *c = change->client;
    bool updated = change->op == JOURNAL_UPDATE;
    const struct bucket_policy *to = updated ? &change->to.policy : &c->policy;
    uint64_t word = bucket_converted(&c->policy, to, *client_word(&lim->clients, c), limiter_now(lim));
    if (change->op == JOURNAL_REGISTER && c->is_address) {
        struct ip ip = address_of(c);
        word = word_of_registration(lim, to, anon_table_peek(&lim->anon, &ip));
    } else if (change->op == JOURNAL_REGISTER && is_unix(c)) {
        word = word_of_registration(lim, to, lim->unix_word);
    }
    client_view_of(&lim->clients, c, at->now, v);
    if (updated)
        v->set = change->set;
    v->tokens = client_tokens_shown(bucket_tokens(to, word, at->now));
}

/* What an update does not give stays as it is. */
static void complete(struct change *c)
{
    const struct client *now = c->client;
    if (!(c->given & CLIENT_CAPACITY))
        c->set.capacity = now->policy.capacity;
    if (!(c->given & CLIENT_RATE))
        c->set.rate = now->policy.rate;
    if (!(c->given & CLIENT_MODE))
        c->set.mode = (enum client_mode)now->mode;
}

static enum err reserve(struct limiter *lim, struct change *c)
{
    switch (c->op) {
    case JOURNAL_REGISTER:
        if (c->client)
            return ERR_CLIENT_EXISTS;
        c->client = client_table_add(&lim->clients, str_of(c->id), &c->set);
        return c->client ? ERR_OK : ERR_INTERNAL;
    case JOURNAL_UPDATE:
        if (!c->client)
            return ERR_NO_SUCH_CLIENT;
        complete(c);
        return client_table_prepare(&lim->clients, &c->set, &c->to) ? ERR_OK : ERR_INTERNAL;
    default: return c->client ? ERR_OK : ERR_NO_SUCH_CLIENT;
    }
}

/* Checks a waiting change, and moves it to the group with its line in `lines`, or ends it; or leaves it waiting behind
 * another one of the same id. */
static void admit(struct limiter *lim, struct change *c, const struct instant *at, struct buf *lines)
{
    c->client = client_table_find(&lim->clients, str_of(c->id));
    if (c->client && c->client->busy)
        return;
    lim->changes.waiting_count--;
    enum err e = reserve(lim, c);
    if (e != ERR_OK) {
        finish(c, e, NULL);
        return;
    }
    struct client_view view;
    view_after(lim, c, at, &view);
    if (!journal_append(lines, c->op, &view, at->wall_ns)) {
        take_back(lim, c, ERR_INTERNAL);
        return;
    }
    c->client->busy = true;
    list_remove(&c->link);
    list_push_back(&lim->changes.group, &c->link);
    lim->changes.group_count++;
}

static void close_when_idle(struct limiter *lim)
{
    struct changes *cs = &lim->changes;
    if (!cs->closing || !list_empty(&cs->waiting) || !list_empty(&cs->group))
        return;
    void (*closed)(void *arg, bool ok) = cs->closed;
    cs->closed = NULL;
    if (closed)
        store_close(lim->store, closed, cs->closed_arg);
}

static void flush(struct posted *p)
{
    struct limiter *lim = container_of(p, struct limiter, changes.flush);
    struct changes *cs = &lim->changes;
    if (!list_empty(&cs->group))
        return; /* its end posts this again */
    struct buf lines = BUF_INIT;
    struct instant at = store_instant(lim->store);
    cs->group_count = 0;
    /* An answer may begin further changes: they come last, and have their turn next time. */
    size_t left = cs->waiting_count;
    for (struct list *e = cs->waiting.next, *next; left > 0 && cs->group_count < GROUP_MAX; e = next, left--) {
        next = e->next;
        admit(lim, container_of(e, struct change, link), &at, &lines);
    }
    if (cs->group_count > 0)
        store_append(lim->store, &lines, cs->group_count);
    buf_fini(&lines);
    close_when_idle(lim);
}

void changes_close(struct limiter *lim, void (*done)(void *arg, bool ok), void *arg)
{
    lim->changes.closing = true;
    lim->changes.closed = done;
    lim->changes.closed_arg = arg;
    loop_post(lim->loop, &lim->changes.flush);
}

void changes_reopen(struct limiter *lim)
{
    lim->changes.closing = false;
}

/* ---- asking ---- */

enum err clients_get(struct limiter *lim, const char *id, struct client_view *out)
{
    const struct client *c = client_table_find(&lim->clients, str_of(id));
    if (!c || !c->shown)
        return ERR_NO_SUCH_CLIENT;
    client_view_of(&lim->clients, c, limiter_now(lim), out);
    return ERR_OK;
}

uint64_t clients_place(const struct limiter *lim, const char *after)
{
    return after ? client_table_place(&lim->clients, str_of(after)) : 0;
}

size_t clients_list(const struct limiter *lim, uint64_t *place, size_t limit,
                    void (*fn)(void *arg, const struct client_view *v), void *arg, bool *more)
{
    const struct client *c = client_table_after(&lim->clients, *place);
    size_t n = 0;
    for (; c && n < limit; c = client_table_next(c), n++) {
        struct client_view v;
        client_view_of(&lim->clients, c, limiter_now(lim), &v);
        fn(arg, &v);
        *place = c->seq;
    }
    *more = c != NULL;
    return n;
}

void clients_hand_out(struct limiter *lim, const char *id)
{
    client_table_forget_gone(&lim->clients, str_of(id));
}

size_t clients_total(const struct limiter *lim)
{
    return lim->clients.shown;
}
