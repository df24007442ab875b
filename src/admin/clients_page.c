/* A page of the list of clients. A thousand of them with the longest ids, all to be escaped, are 400 KB and take some
 * milliseconds: so it is built in slices, with other work between them. Each begins behind the place where the one
 * before it ended, as pages do. */
#include "clients_page.h"

#include "base/json.h"
#include "base/str.h"

#include <string.h>

#define SLICE 64u

void page_init(struct page *p, const struct limiter *lim, const char *after, size_t limit)
{
    *p = (struct page){.place = clients_place(lim, after), .left = limit, .body = BUF_INIT};
    p->failed = !buf_append_str(&p->body, STR("{\"clients\":["));
}

void page_fini(struct page *p)
{
    buf_fini(&p->body);
}

static void add_client(void *arg, const struct client_view *v)
{
    struct page *p = arg;
    bool first = p->last[0] == '\0';
    if (!p->failed)
        p->failed = !((first || buf_append_str(&p->body, STR(","))) && client_view_json(&p->body, v));
    memcpy(p->last, v->id, sizeof p->last);
}

static bool append_end(struct page *p, const struct limiter *lim, bool more)
{
    return buf_printf(&p->body, "],\"total\":%zu,\"next\":", clients_total(lim)) &&
           (more ? json_append_string(&p->body, str_of(p->last)) : buf_append_str(&p->body, STR("null"))) &&
           buf_append_str(&p->body, STR("}\n"));
}

bool page_step(struct page *p, struct limiter *lim)
{
    bool more;
    size_t n = clients_list(lim, &p->place, p->left < SLICE ? p->left : SLICE, add_client, p, &more);
    p->left -= n;
    if (more && p->left > 0 && !p->failed)
        return false;
    /* On the last page the last one met is no cursor: its id may be that of another walk. */
    if (more)
        clients_hand_out(lim, p->last);
    p->failed = p->failed || !append_end(p, lim, more);
    return true;
}
