/* Which name is asked for next, and by which thread. */
#include "upstream/names.h"

#include "base/mem.h"
#include "net/sock.h"
#include "upstream/resolve.h"

#include <assert.h>

static void go_on(struct names *n);

/* ---- one question ---- */

static void on_work(struct job *j)
{
    struct resolve *r = container_of(j, struct resolve, job);
    r->count = sock_resolve(r->host, r->port, r->addrs, RESOLVE_MAX, &r->why);
}

static void on_done(struct job *j)
{
    struct resolve *r = container_of(j, struct resolve, job);
    struct names *n = r->names;
    n->unheard_asked -= r->unheard;
    n->forgotten -= r->fn == NULL;
    go_on(n); /* first: what is told may take its time */
    if (r->fn)
        r->fn(r->arg, r);
    mem_free(r);
}

static void on_dropped(struct job *j)
{
    mem_free(container_of(j, struct resolve, job));
}

/* ---- whose turn it is ---- */

static struct worker *idle_worker(const struct names *n)
{
    for (unsigned i = 0; i < n->count; i++)
        if (worker_pending(n->workers[i]) == 0)
            return n->workers[i];
    return NULL;
}

static struct resolve *take(struct list *from)
{
    struct list *e = list_pop_front(from);
    return e ? container_of(e, struct resolve, job.link) : NULL;
}

/* One thread is the unheard ones' as long as there are any, lest they be never asked again; all but one can be, or all
 * where nobody else can want one. */
static struct resolve *next_question(struct names *n)
{
    bool first = n->unheard_asked == 0, enough = n->names + n->forgotten <= n->count;
    bool may = first || enough || n->unheard_asked + 1 < n->count;
    if (may && !list_empty(&n->unheard) && (first || list_empty(&n->waiting)))
        return take(&n->unheard);
    return take(&n->waiting);
}

static void go_on(struct names *n)
{
    struct worker *w;
    struct resolve *r;
    while ((w = idle_worker(n)) && (r = next_question(n))) {
        n->unheard_asked += r->unheard;
        r->asked = true;
        worker_submit_own(w, &r->job, on_work, on_done, on_dropped);
    }
}

void names_ask(struct names *n, struct resolve *r)
{
    assert(n->count > 0);
    r->names = n;
    list_push_back(r->unheard ? &n->unheard : &n->waiting, &r->job.link);
    go_on(n);
}

void names_forget(struct names *n, struct resolve *r)
{
    if (!r->asked) {
        list_remove(&r->job.link);
        mem_free(r);
        return;
    }
    r->fn = NULL; /* it is freed when it comes back, or is dropped */
    n->unheard_asked += !r->unheard;
    r->unheard = true;
    n->forgotten++;
}

/* ---- begin and end ---- */

bool names_start(struct names *n, unsigned names)
{
    n->names = names > n->names ? names : n->names;
    while (n->count < names && n->count < NAMES_THREADS) {
        /* Apart from the disk's: a name server that does not answer must not hold up an fsync. */
        struct worker *w = worker_new(n->loop, "names");
        if (!w)
            break;
        n->workers[n->count++] = w;
    }
    go_on(n);
    return names == 0 || n->count > 0;
}

struct names *names_new(struct loop *l)
{
    struct names *n = mem_try_alloc(sizeof *n);
    if (!n)
        return NULL;
    n->loop = l;
    list_init(&n->waiting);
    list_init(&n->unheard);
    return n;
}

static void drop_all(struct list *questions)
{
    for (struct resolve *r; (r = take(questions));)
        mem_free(r);
}

void names_free(struct names *n)
{
    if (!n)
        return;
    for (unsigned i = 0; i < n->count; i++)
        worker_abandon(n->workers[i]);
    drop_all(&n->waiting);
    drop_all(&n->unheard);
    mem_free(n);
}
