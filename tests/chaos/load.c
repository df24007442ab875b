/* The load: one thread, one epoll set, edge-triggered; a slot for each connection. */
#include "load.h"

#include "clock.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define SLOTS       2048
#define KEPT_MAX    32
#define LATE_AFTER  (8 * S) /* more than two attempts and a connection may take */
#define SWEEP_EVERY (50 * MS)

enum slot_state { SLOT_FREE, SLOT_CONNECTING, SLOT_BUSY, SLOT_IDLE };

struct slot {
    enum slot_state state;
    int fd;
    size_t record;
    enum call_kind kind;
    bool kept; /* it goes on after this request */
    uint64_t deadline;
    struct bytes out, in;
};

struct load {
    int port, epoll;
    uint64_t period, next, swept;
    unsigned serial, under_way;
    struct slot slots[SLOTS];
    unsigned idle[KEPT_MAX], idle_count;
    pthread_t thread;
    atomic_bool stop;
    pthread_mutex_t lock; /* of what follows */
    struct record *records;
    size_t count, cap;
    uint64_t lateness;
};

/* ---- records ---- */

static size_t record_begin(struct load *l, enum call_kind kind, uint64_t now, uint64_t late)
{
    pthread_mutex_lock(&l->lock);
    if (l->count == l->cap) {
        l->cap = l->cap ? 2 * l->cap : 4096;
        l->records = realloc(l->records, l->cap * sizeof *l->records);
        if (!l->records)
            abort();
    }
    l->records[l->count] = (struct record){.begun = now, .kind = kind, .outcome = CALL_PENDING, .backend = -1};
    if (late > l->lateness)
        l->lateness = late;
    pthread_mutex_unlock(&l->lock);
    l->under_way++;
    return l->count++;
}

static void record_end(struct load *l, size_t i, enum outcome outcome, int backend)
{
    pthread_mutex_lock(&l->lock);
    l->records[i].ended = now_us();
    l->records[i].outcome = outcome;
    l->records[i].backend = backend;
    pthread_mutex_unlock(&l->lock);
    l->under_way--;
}

const struct record *load_lock(struct load *l, size_t *count)
{
    pthread_mutex_lock(&l->lock);
    *count = l->count;
    return l->records;
}

void load_unlock(struct load *l)
{
    pthread_mutex_unlock(&l->lock);
}

uint64_t load_lateness(struct load *l)
{
    uint64_t late;

    pthread_mutex_lock(&l->lock);
    late = l->lateness;
    pthread_mutex_unlock(&l->lock);
    return late;
}

/* ---- slots ---- */

static void slot_close(struct load *l, unsigned i)
{
    struct slot *c = &l->slots[i];

    for (unsigned k = 0; k < l->idle_count; k++)
        if (l->idle[k] == i)
            l->idle[k] = l->idle[--l->idle_count];
    close(c->fd);
    bytes_free(&c->in);
    bytes_free(&c->out);
    *c = (struct slot){.state = SLOT_FREE};
}

static void slot_end(struct load *l, unsigned i, enum outcome outcome, int backend)
{
    record_end(l, l->slots[i].record, outcome, backend);
    slot_close(l, i);
}

/* The answer is whole; the connection may serve again. */
static void slot_done(struct load *l, unsigned i, const struct answer *a)
{
    struct slot *c = &l->slots[i];

    if (a->last || !c->kept || a->outcome == CALL_WRONG || l->idle_count == KEPT_MAX) {
        slot_end(l, i, a->outcome, a->backend);
        return;
    }
    record_end(l, c->record, a->outcome, a->backend);
    c->state = SLOT_IDLE;
    bytes_free(&c->in);
    l->idle[l->idle_count++] = i;
}

/* Reads what there is; true when the connection has ended. */
static bool slot_fill(struct slot *c, bool *reset)
{
    char piece[16384];
    ssize_t n;

    while ((n = recv(c->fd, piece, sizeof piece, 0)) > 0)
        bytes_add(&c->in, piece, (size_t)n);
    *reset = n < 0 && errno != EAGAIN;
    return n == 0 || *reset;
}

static void slot_read(struct load *l, unsigned i)
{
    struct slot *c = &l->slots[i];
    bool reset, ended = slot_fill(c, &reset);

    if (c->state == SLOT_IDLE) {
        if (ended || c->in.n > 0)
            slot_close(l, i);
        return;
    }
    struct answer a = call_judge(c->kind, &c->in, ended, reset);
    a.last |= ended;
    if (a.outcome != CALL_PENDING)
        slot_done(l, i, &a);
}

/* A request is small, and its socket's buffer empty: it is taken whole or not at all. False when the connection is
 * broken. */
static bool slot_send(struct slot *c)
{
    ssize_t n = send(c->fd, c->out.p, c->out.n, MSG_NOSIGNAL);
    bool ok = n == (ssize_t)c->out.n;

    bytes_free(&c->out);
    c->state = SLOT_BUSY;
    return ok;
}

static void slot_connected(struct load *l, unsigned i)
{
    struct slot *c = &l->slots[i];
    int error = 0;
    socklen_t n = sizeof error;

    if (getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &n) != 0 || error != 0)
        slot_end(l, i, CALL_REFUSED, -1);
    else if (!slot_send(c))
        slot_end(l, i, CALL_NO_ANSWER, -1);
}

static void on_event(struct load *l, unsigned i, uint32_t events)
{
    if (l->slots[i].state == SLOT_CONNECTING && (events & (EPOLLOUT | EPOLLERR | EPOLLHUP)))
        slot_connected(l, i);
    if ((l->slots[i].state == SLOT_BUSY || l->slots[i].state == SLOT_IDLE) &&
        (events & (EPOLLIN | EPOLLRDHUP | EPOLLERR | EPOLLHUP)))
        slot_read(l, i);
}

/* ---- requests ---- */

/* 3 in 20 are POSTs, 2 PUTs, the rest GETs of three sorts. */
static enum call_kind kind_of(unsigned serial)
{
    static const enum call_kind kinds[] = {
        CALL_SHOW, CALL_POST, CALL_BYTES, CALL_SHOW, CALL_SHOW, CALL_CHUNKED, CALL_PUT,
        CALL_SHOW, CALL_POST, CALL_SHOW,  CALL_SHOW, CALL_SHOW, CALL_CHUNKED, CALL_PUT,
        CALL_SHOW, CALL_POST, CALL_BYTES, CALL_SHOW, CALL_SHOW, CALL_SHOW,
    };

    return kinds[serial % (sizeof kinds / sizeof *kinds)];
}

static unsigned slot_free_one(const struct load *l)
{
    unsigned i = 0;

    while (i < SLOTS && l->slots[i].state != SLOT_FREE)
        i++;
    return i;
}

static bool connect_to(int fd, int port)
{
    struct sockaddr_in to = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int on = 1;

    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    return connect(fd, (struct sockaddr *)&to, sizeof to) == 0 || errno == EINPROGRESS;
}

/* A slot whose connection is on its way; SLOTS when there is none. */
static unsigned slot_open(struct load *l)
{
    unsigned i = slot_free_one(l);
    struct epoll_event e = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.u32 = i};
    int fd = i < SLOTS ? socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0) : -1;

    if (fd < 0)
        return SLOTS;
    if (!connect_to(fd, l->port) || epoll_ctl(l->epoll, EPOLL_CTL_ADD, fd, &e) != 0) {
        close(fd);
        return SLOTS;
    }
    l->slots[i] = (struct slot){.state = SLOT_CONNECTING, .fd = fd};
    return i;
}

/* A kept connection that takes the request; false when there is none. */
static bool send_on_kept(struct load *l, const struct slot *request)
{
    while (l->idle_count > 0) {
        unsigned i = l->idle[l->idle_count - 1];
        struct slot *c = &l->slots[i];

        c->record = request->record;
        c->kind = request->kind;
        c->kept = true;
        c->deadline = request->deadline;
        bytes_add(&c->out, request->out.p, request->out.n);
        if (slot_send(c)) {
            l->idle_count--;
            return true;
        }
        slot_close(l, i); /* nothing was sent: any client would open another */
    }
    return false;
}

static void send_on_fresh(struct load *l, const struct slot *request)
{
    unsigned i = slot_open(l);
    struct slot *c;

    if (i == SLOTS) {
        record_end(l, request->record, CALL_REFUSED, -1);
        return;
    }
    c = &l->slots[i];
    c->record = request->record;
    c->kind = request->kind;
    c->kept = request->kept;
    c->deadline = request->deadline;
    bytes_add(&c->out, request->out.p, request->out.n);
}

/* Every fourth request has a connection of its own. */
static void begin(struct load *l, uint64_t now, uint64_t late)
{
    unsigned serial = l->serial++;
    struct slot r = {.kind = kind_of(serial), .kept = serial % 4 != 3, .deadline = now + LATE_AFTER};

    r.record = record_begin(l, r.kind, now, late);
    call_write(&r.out, r.kind, serial, !r.kept);
    if (!r.kept || !send_on_kept(l, &r))
        send_on_fresh(l, &r);
    bytes_free(&r.out);
}

/* ---- the thread ---- */

static void sweep(struct load *l, uint64_t now)
{
    l->swept = now;
    for (unsigned i = 0; i < SLOTS; i++)
        if ((l->slots[i].state == SLOT_BUSY || l->slots[i].state == SLOT_CONNECTING) && now >= l->slots[i].deadline)
            slot_end(l, i, CALL_LATE, -1);
}

static int wait_ms(const struct load *l, uint64_t now)
{
    uint64_t at = atomic_load(&l->stop) || l->next > now + 10 * MS ? now + 10 * MS : l->next;

    return at <= now ? 0 : (int)((at - now + MS - 1) / MS);
}

static void turn(struct load *l)
{
    struct epoll_event events[64];
    uint64_t now = now_us();
    int n;

    while (!atomic_load(&l->stop) && l->next <= now) {
        begin(l, now, now - l->next);
        l->next += l->period;
    }
    n = epoll_wait(l->epoll, events, 64, wait_ms(l, now));
    for (int i = 0; i < n; i++)
        on_event(l, events[i].data.u32, events[i].events);
    if (now >= l->swept + SWEEP_EVERY)
        sweep(l, now);
}

static void *run(void *arg)
{
    struct load *l = arg;

    while (!atomic_load(&l->stop) || l->under_way > 0)
        turn(l);
    return NULL;
}

struct load *load_start(int port, unsigned rate)
{
    struct load *l = calloc(1, sizeof *l);

    if (!l)
        return NULL;
    l->port = port;
    l->period = S / rate;
    l->next = now_us();
    pthread_mutex_init(&l->lock, NULL);
    l->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (l->epoll >= 0 && pthread_create(&l->thread, NULL, run, l) == 0)
        return l;
    if (l->epoll >= 0)
        close(l->epoll);
    free(l);
    return NULL;
}

void load_stop(struct load *l)
{
    atomic_store(&l->stop, true);
    pthread_join(l->thread, NULL);
    for (unsigned i = 0; i < SLOTS; i++)
        if (l->slots[i].state != SLOT_FREE)
            slot_close(l, i);
    close(l->epoll);
}

void load_free(struct load *l)
{
    if (!l)
        return;
    pthread_mutex_destroy(&l->lock);
    free(l->records);
    free(l);
}

/* ---- questions ---- */

unsigned load_ended_since(struct load *l, uint64_t since)
{
    unsigned n = 0;

    pthread_mutex_lock(&l->lock);
    for (size_t i = l->count; i > 0 && l->records[i - 1].begun >= since; i--)
        n += l->records[i - 1].ended != 0;
    pthread_mutex_unlock(&l->lock);
    return n;
}

static bool is_answer_of(const struct record *r, int backend)
{
    return r->outcome == CALL_OK && (backend < 0 || r->backend == backend);
}

unsigned load_answered_since(struct load *l, int backend, uint64_t since)
{
    unsigned n = 0;

    pthread_mutex_lock(&l->lock);
    for (size_t i = l->count; i > 0 && l->records[i - 1].begun >= since; i--)
        n += is_answer_of(&l->records[i - 1], backend);
    pthread_mutex_unlock(&l->lock);
    return n;
}

uint64_t load_first_answer(struct load *l, int backend, uint64_t since)
{
    uint64_t first = 0;

    pthread_mutex_lock(&l->lock);
    for (size_t i = l->count; i > 0 && l->records[i - 1].begun >= since; i--)
        if (is_answer_of(&l->records[i - 1], backend) && (first == 0 || l->records[i - 1].ended < first))
            first = l->records[i - 1].ended;
    pthread_mutex_unlock(&l->lock);
    return first;
}

uint64_t load_last_answer(struct load *l, int backend)
{
    uint64_t last = 0;

    pthread_mutex_lock(&l->lock);
    for (size_t i = 0; i < l->count; i++)
        if (is_answer_of(&l->records[i], backend) && l->records[i].ended > last)
            last = l->records[i].ended;
    pthread_mutex_unlock(&l->lock);
    return last;
}
