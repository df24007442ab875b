/* Endpoints left to themselves (io_close_lingering()): an owner of its own kind, which finishes sending, sends FIN, and
 * throws away what still comes. */
#include "net/io.h"

#include "base/list.h"
#include "base/mem.h"

struct lingerer {
    struct list link;
    struct dead dead;
    struct io *io;
    struct io_lingering how;
    uint64_t until; /* since the FIN: when it ends; 0 before */
};

/* Those that exist, for the drain of the process: there is one loop in it, but each entry is asked for its own. */
static struct list all = {&all, &all};

static void reclaim(struct dead *d)
{
    mem_free(container_of(d, struct lingerer, dead));
}

/* A FIN could pass off as whole what is there only in part; also where the rest has been lost, for want of memory. */
static void end_io(struct io *io)
{
    if (io_unsent(io) > 0 || io_errno(io) != 0)
        io_abort(io);
    else
        io_close(io);
}

void lingerer_end(struct lingerer *g)
{
    struct loop *l = io_loop(g->io);
    list_remove(&g->link);
    end_io(g->io);
    loop_reclaim(l, &g->dead, reclaim);
}

static void end(struct lingerer *g)
{
    lingerer_end(g);
    if (g->how.ended)
        g->how.ended(g->how.arg);
}

/* Waits for more, or for the end. False when there is no time for it. */
static bool await(struct lingerer *g)
{
    uint64_t now = loop_now(io_loop(g->io)), left = g->until > now ? g->until - now : 0;
    if (left > 0)
        io_set_read_timeout(g->io, IO_BY, g->how.idle_ns < left ? g->how.idle_ns : left);
    return left > 0;
}

/* Everything is with the kernel: FIN, and then only the other end's close is awaited, if it is still to come. False
 * when that was all. */
static bool finish(struct lingerer *g)
{
    io_shutdown_write(g->io);
    g->until = loop_now(io_loop(g->io)) + g->how.total_ns;
    return !io_is_eof(g->io) && await(g);
}

/* To close now would be a reset, which could destroy the response before the other end has read it. One receive is all
 * that there is for each in a turn of the loop. */
static void discard(struct lingerer *g)
{
    io_consume(g->io, io_unread(g->io));
    if (g->until > 0 && !await(g))
        end(g);
}

static void on_event(void *owner, struct io *io, enum io_event event)
{
    struct lingerer *g = owner;
    bool sending = io_unsent(io) > 0;
    switch (event) {
    case IO_READABLE: discard(g); break;
    case IO_WAITING:
    case IO_HANGUP: break;
    case IO_EOF:
        if (!sending)
            end(g);
        break;
    case IO_CONNECTED:
        if (!sending && !finish(g))
            end(g);
        break;
    case IO_DRAINED:
        if (!finish(g))
            end(g);
        break;
    case IO_TIMEOUT_READ:
    case IO_TIMEOUT_WRITE:
    case IO_ERROR: end(g); break;
    }
}

struct lingerer *io_close_lingering(struct io *io, const struct io_lingering *how)
{
    struct lingerer *g = io_errno(io) == 0 ? mem_try_alloc(sizeof *g) : NULL;
    if (!g) {
        end_io(io);
        return NULL;
    }
    g->io = io;
    g->how = *how;
    g->until = 0;
    list_push_back(&all, &g->link);
    io_set_owner(io, on_event, g);
    io_set_read_timeout(io, IO_BY, 0);
    io_consume(io, io_unread(io));
    io_resume(io);
    if (!io_flush(io) || io_unsent(io) > 0 || finish(g))
        return g;
    lingerer_end(g);
    return NULL;
}

size_t io_end_lingering(struct loop *l)
{
    size_t cut = 0;
    LIST_EACH (it, &all) {
        struct lingerer *g = container_of(it, struct lingerer, link);
        if (io_loop(g->io) != l)
            continue;
        cut += io_unsent(g->io) > 0;
        end(g);
    }
    return cut;
}

void io_hurry_lingering(struct loop *l, uint64_t ns)
{
    uint64_t by = loop_now(l) + ns;
    LIST_EACH (it, &all) {
        struct lingerer *g = container_of(it, struct lingerer, link);
        if (io_loop(g->io) != l)
            continue;
        g->how.total_ns = g->how.total_ns < ns ? g->how.total_ns : ns;
        if (g->until <= by)
            continue;
        g->until = by;
        (void)await(g);
    }
}

size_t io_lingering(const struct loop *l)
{
    size_t n = 0;
    LIST_EACH (it, &all) {
        n += io_loop(container_of(it, struct lingerer, link)->io) == l;
    }
    return n;
}
