/* A page of the list of clients. A thousand of them with the longest ids, all to be escaped, are 400 KB and take some
 * milliseconds: so it is built in slices, with other work between them. Each begins behind the place where the one
 * before it ended, as pages do.
 *
 * The last id is the cursor of the next page. One that was deleted and registered anew still stands for where it was,
 * for a walk may have got it there: so a page that would end with such a one ends before it, if it can. */
#include "clients_page.h"

#include "base/json.h"
#include "base/str.h"

#include <string.h>

#define SLICE 64u

struct step {
    struct page *page;
    const struct limiter *lim;
};

void page_init(struct page *p, uint64_t place, size_t limit)
{
    *p = (struct page){.place = place, .left = limit, .body = BUF_INIT};
    p->failed = !buf_append_str(&p->body, STR("{\"clients\":["));
}

void page_fini(struct page *p)
{
    buf_fini(&p->body);
}

static void add_client(void *arg, const struct client_view *v)
{
    const struct step *step = arg;
    struct page *p = step->page;
    bool first = p->last[0] == '\0';
    if (!p->failed)
        p->failed = !((first || buf_append_str(&p->body, STR(","))) && client_view_json(&p->body, v));
    memcpy(p->last, v->id, sizeof p->last);
    if (clients_place(step->lim, v->id) != v->place)
        return;
    p->end.len = p->body.len;
    p->end.place = v->place;
    memcpy(p->end.id, v->id, sizeof p->end.id);
}

/* More clients follow: the page ends with a cursor. */
static void cut_to_cursor(struct page *p, struct limiter *lim)
{
    if (p->end.len == 0) {
        clients_hand_out(lim, p->last);
        return;
    }
    p->body.len = p->end.len;
    p->place = p->end.place;
    memcpy(p->last, p->end.id, sizeof p->last);
}

static bool append_end(struct page *p, const struct limiter *lim)
{
    return buf_printf(&p->body, "],\"total\":%zu,\"next\":", clients_total(lim)) &&
           (p->more ? json_append_string(&p->body, str_of(p->last)) : buf_append_str(&p->body, STR("null"))) &&
           buf_append_str(&p->body, STR("}\n"));
}

bool page_step(struct page *p, struct limiter *lim)
{
    struct step step = {p, lim};
    size_t n = clients_list(lim, &p->place, p->left < SLICE ? p->left : SLICE, add_client, &step, &p->more);
    p->left -= n;
    if (p->more && p->left > 0 && !p->failed)
        return false;
    if (p->more && !p->failed)
        cut_to_cursor(p, lim);
    p->failed = p->failed || !append_end(p, lim);
    return true;
}
