/* Endpoints left to themselves (io_close_lingering()): an owner of its own kind, which finishes sending, sends FIN, and
 * throws away what still comes. */
#include "net/io.h"

#include "base/list.h"
#include "base/mem.h"

struct lingerer {
    struct list link;
    struct dead dead;
    struct io *io;
    uint64_t ns;   /* from FIN to the end */
    uint64_t left; /* bytes that may still be thrown away; what comes then is left where it is */
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

static void end(struct lingerer *g)
{
    struct loop *l = io_loop(g->io);
    list_remove(&g->link);
    end_io(g->io);
    loop_reclaim(l, &g->dead, reclaim);
}

/* Everything is with the kernel: FIN, and then only the other end's close is awaited, if it is still to come. */
static void finish(struct lingerer *g)
{
    io_shutdown_write(g->io);
    if (io_is_eof(g->io) || g->ns == 0)
        end(g);
    else
        io_set_read_timeout(g->io, IO_BY, g->ns);
}

/* True when more may be thrown away. */
static bool discard(struct lingerer *g)
{
    size_t n = io_unread(g->io);
    io_consume(g->io, n);
    g->left -= n < g->left ? n : g->left;
    return g->left > 0;
}

static void on_event(void *owner, struct io *io, enum io_event event)
{
    struct lingerer *g = owner;
    bool sending = io_unsent(io) > 0;
    switch (event) {
    case IO_READABLE:
        /* To close now would be a reset, which could destroy the response before the other end has read it. That comes
         * to a stop with its sending, and has the rest of the time to look for what there is to read. */
        if (!discard(g))
            io_pause(io);
        break;
    case IO_WAITING:
    case IO_HANGUP: break;
    case IO_EOF:
        if (!sending)
            end(g);
        break;
    case IO_CONNECTED:
        if (!sending)
            finish(g);
        break;
    case IO_DRAINED: finish(g); break;
    case IO_TIMEOUT_READ:
    case IO_TIMEOUT_WRITE:
    case IO_ERROR: end(g); break;
    }
}

void io_close_lingering(struct io *io, uint64_t linger_ns, uint64_t max_bytes)
{
    struct lingerer *g = io_errno(io) == 0 ? mem_try_alloc(sizeof *g) : NULL;
    if (!g) {
        end_io(io);
        return;
    }
    g->io = io;
    g->ns = linger_ns;
    g->left = max_bytes;
    list_push_back(&all, &g->link);
    io_set_owner(io, on_event, g);
    io_set_read_timeout(io, IO_BY, 0);
    if (discard(g))
        io_resume(io);
    else
        io_pause(io);
    if (io_flush(io) && io_unsent(io) == 0)
        finish(g);
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

size_t io_lingering(const struct loop *l)
{
    size_t n = 0;
    LIST_EACH (it, &all) {
        n += io_loop(container_of(it, struct lingerer, link)->io) == l;
    }
    return n;
}
