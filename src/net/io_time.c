/* The time of an endpoint: its two deadlines, which share a timer, and the pace that bytes must keep. What makes that
 * cheap is in io.c's essay. */
#include "base/clock.h"
#include "io_impl.h"

#include <errno.h>

static_assert(IO_RATE_SPAN_MAX * IO_RATE_MIN <= UINT16_MAX, "what the pace asks for must be counted");

static uint64_t due(const struct deadline *d)
{
    return d->span == 0 || d->span > TIMER_NEVER - d->since ? TIMER_NEVER : d->since + d->span;
}

bool io_reread_is_due(const struct io *io)
{
    return io->reread && io->in.len > 0 && !io->paused;
}

bool io_eof_is_due(const struct io *io)
{
    return io->eof && !io->eof_told && !io->paused && !io_reread_is_due(io);
}

static uint64_t read_due(const struct io *io)
{
    /* What a late turn finds beside a deadline came before it was over, or may have: it is told first. */
    if (io_reread_is_due(io) || io_eof_is_due(io))
        return TIMER_NEVER;
    return io->read_progress && io->paused ? TIMER_NEVER : due(&io->read);
}

static uint64_t write_due(const struct io *io)
{
    return io->blocked ? due(&io->write) : TIMER_NEVER;
}

/* The tenths of a second wrap around; they are compared by their difference. */
static uint16_t tenths(const struct io *io)
{
    return (uint16_t)(loop_now(io->loop) / (NS_PER_S / 10));
}

void io_start_pace(const struct io *io, struct pace *p)
{
    *p = (struct pace){.since = tenths(io)};
}

static void count_moved(struct pace *p, size_t n)
{
    p->moved = n < (size_t)(UINT16_MAX - p->moved) ? (uint16_t)(p->moved + n) : UINT16_MAX;
}

/* Over how many tenths of a second the pace is taken: who may rest for longer must be able to catch up, as far as bytes
 * are counted. (That is far below where the tenths wrap around.) */
static unsigned pace_span(uint64_t progress)
{
    const unsigned least = IO_RATE_SPAN * 10, most = IO_RATE_SPAN_MAX * 10;
    uint64_t span = progress / (NS_PER_S / 10);
    return span <= least ? least : span < most ? (unsigned)span : most;
}

bool io_keep_pace(const struct io *io, struct pace *p, uint64_t progress, uint64_t rest, size_t n)
{
    unsigned span = (uint16_t)(tenths(io) - p->since);

    if (rest > IO_RATE_SPAN_MAX * NS_PER_S) /* the deadline allows it, and nobody could catch up */
        io_start_pace(io, p);
    count_moved(p, n);
    if (rest > IO_RATE_SPAN_MAX * NS_PER_S || span < pace_span(progress))
        return true;
    bool judged = loop_now(io->loop) - loop_went_on(io->loop) > span * (NS_PER_S / 10);
    bool kept = !judged || p->moved >= span * IO_RATE_MIN / 10 || p->moved == UINT16_MAX;
    io_start_pace(io, p);
    return kept || !io->paced;
}

/* The timer runs out no later than `next`. */
static void expect_by(struct io *io, uint64_t next)
{
    if (io->broken || next == TIMER_NEVER || (timer_armed(&io->timer) && io->timer.deadline <= next))
        return;
    if (!loop_arm(io->loop, &io->timer, next))
        io_fail(io, ENOMEM);
}

void io_set_timer(struct io *io)
{
    uint64_t r = read_due(io), w = write_due(io);
    expect_by(io, r < w ? r : w);
}

void io_on_timer(struct timer *t)
{
    struct io *io = container_of(t, struct io, timer);
    uint64_t now = loop_heard(io->loop);
    io->read.since = loop_noted(io->loop, io->read.since);
    io->write.since = loop_noted(io->loop, io->write.since);
    bool read_expired = read_due(io) <= now, write_expired = !read_expired && write_due(io) <= now;
    if (read_expired)
        io->read.span = 0;
    if (write_expired)
        io->write.span = 0;
    io_set_timer(io);
    if (read_expired)
        io->fn(io->owner, io, IO_TIMEOUT_READ);
    else if (write_expired)
        io->fn(io->owner, io, IO_TIMEOUT_WRITE);
}

/* --- what the owner sets ---------------------------------------------------------------------------------------- */

void io_set_read_timeout(struct io *io, enum io_deadline kind, uint64_t ns)
{
    io->read = (struct deadline){.since = loop_now(io->loop), .span = ns};
    io->read_progress = kind == IO_PROGRESS;
    io->late = false;
    io_start_pace(io, &io->read_pace);
    count_moved(&io->read_pace, io->in.len); /* what is here already, has come */
    expect_by(io, read_due(io));
}

void io_set_write_timeout(struct io *io, uint64_t ns)
{
    io->write = (struct deadline){.since = loop_now(io->loop), .span = ns};
    expect_by(io, write_due(io));
}

void io_set_min_rate(struct io *io, bool on)
{
    io->paced = on;
    io_start_pace(io, &io->read_pace);
    io_start_pace(io, &io->write_pace);
}
