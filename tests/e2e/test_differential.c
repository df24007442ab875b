/* Thousands of generated requests, sound, unsound and damaged, and the reference reader's word on each held against
 * what the proxy does with it. On one connection go a generated piece and a marker behind it. What the reader takes for
 * requests must reach the backend, each as it was sent, the marker last; from the first that it refuses on nothing may,
 * and the client gets an error with a status that fits, and the connection's end.
 *
 * LB_SEED, LB_COUNT and LB_FIRST choose which: a disagreement is printed with its seed and index, and
 * LB_SEED=... LB_FIRST=index LB_COUNT=1 runs it alone. */
#include "harness/generate.h"
#include "harness/recorder.h"
#include "harness/world.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define DEFAULT_SEED   20240607u
#define DEFAULT_COUNT  30000u
#define SLOW_COUNT     10000u /* under a sanitizer */
#define MESSAGES_MAX   24
#define SHARE_MIN      30 /* percent that must be forwarded, and refused */
#define REASONS_MAX    64
#define REASONS_WANTED 25u

static const struct reference_limits limits = {4096, 1024, 40, "X-Client-ID", false};
#define LIMITS "\"limits\": {\"header_bytes\": 4096, \"target_bytes\": 1024, \"header_fields\": 40}"

/* What goes over a connection, and what the reference reader makes of it. */
struct plan {
    struct bytes stream;
    size_t piece; /* where it is split for sending */
    struct reference said[MESSAGES_MAX];
    unsigned count;     /* of them; the last is the only one that is not to be forwarded */
    unsigned forwarded; /* that are */
};

enum ending { STAYS_OPEN, ENDS_AFTER_ANSWER, ENDS_REFUSED, ENDS_INCOMPLETE };

struct run {
    uint64_t seed;
    unsigned index;
    struct plan plan;
    struct recorder *recorder;
    struct client client;
    bool connected;
    unsigned arrived, answered; /* of this plan */
    unsigned before;            /* messages that had arrived before it */
    bool refused, ended;
    unsigned *cuttable, cuttable_count; /* indexes whose last request may have arrived in part */
    unsigned firsts[3];                 /* verdicts on the first request of each plan */
    const char *reasons[REASONS_MAX];
    unsigned reason_counts[REASONS_MAX], connections, messages, cuts;
};

/* ---- plans ---- */

static void plan_make(struct plan *p, uint64_t seed, unsigned index)
{
    struct rng g = rng_of(seed, index);
    size_t at = 0;

    bytes_free(&p->stream);
    bytes_add(&p->stream, "", 0);
    generate(&g, &p->stream);
    bytes_addf(&p->stream, "GET /marker-%u HTTP/1.1\r\nHost: marker\r\n\r\n", index);
    p->piece = rng_chance(&g, 50) ? p->stream.n : rng_below(&g, (unsigned)p->stream.n);
    p->count = p->forwarded = 0;
    do {
        struct reference *r = &p->said[p->count++];

        CHECK(p->count < MESSAGES_MAX, "seed %llu, index %u: too many requests in one piece", (unsigned long long)seed,
              index);
        reference_read(r, p->stream.p + at, p->stream.n - at, &limits);
        if (r->verdict != REFERENCE_FORWARD)
            return;
        p->forwarded++;
        at += r->used;
        if (r->last)
            return;
    } while (at < p->stream.n);
}

static void plan_drop(struct plan *p)
{
    while (p->count > 0)
        reference_free(&p->said[--p->count]);
}

static enum ending plan_ending(const struct plan *p)
{
    const struct reference *last = &p->said[p->count - 1];

    if (last->verdict == REFERENCE_REFUSE)
        return ENDS_REFUSED;
    if (last->verdict == REFERENCE_INCOMPLETE)
        return ENDS_INCOMPLETE;
    return last->last ? ENDS_AFTER_ANSWER : STAYS_OPEN;
}

/* ---- disagreement ---- */

static void print_bytes(const char *what, const char *p, size_t n)
{
    print_error("%s, %zu bytes:\n  ", what, n);
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)p[i];

        if (c == '\r' || c == '\n' || c == '\t')
            print_error("\\%c", c == '\r' ? 'r' : c == '\n' ? 'n' : 't');
        else if (c < 0x20 || c > 0x7e || c == '\\')
            print_error("\\x%02x", (unsigned)c);
        else
            print_error("%c", c);
        if (c == '\n')
            print_error("\n  ");
    }
    print_error("\n");
}

static void print_plan(const struct run *x)
{
    static const char *const verdicts[] = {"forward", "refuse", "incomplete"};

    print_error("seed %llu, index %u (LB_SEED=%llu LB_FIRST=%u LB_COUNT=1)\n", (unsigned long long)x->seed, x->index,
                (unsigned long long)x->seed, x->index);
    print_bytes("sent", x->plan.stream.p, x->plan.stream.n);
    for (unsigned i = 0; i < x->plan.count; i++) {
        const struct reference *r = &x->plan.said[i];

        print_error("reference, request %u: %s%s%s%s\n", i + 1, verdicts[r->verdict], *r->why ? ": " : "", r->why,
                    r->last ? ", then the connection ends" : "");
    }
    print_error("proxy: %u reached the backend, %u answered%s%s\n", x->arrived, x->answered,
                x->refused ? ", one refused" : "", x->ended ? ", the connection has ended" : "");
}

#define DISAGREE(x, ...)                                                                                               \
    do {                                                                                                               \
        print_plan(x);                                                                                                 \
        FAIL(__VA_ARGS__);                                                                                             \
    } while (0)

/* ---- at the backend ---- */

static void on_message(void *arg, const struct reference *got, const char *p, size_t n, unsigned number)
{
    struct run *x = arg;
    const char *fault = x->arrived < x->plan.forwarded
                            ? reference_compare(&x->plan.said[x->arrived], got, "127.0.0.1", false)
                            : "the backend got a request that it should not have got";

    if (fault)
        print_bytes("the backend got", p, n);
    x->arrived++;
    x->messages = number;
    if (fault)
        DISAGREE(x, "%s", fault);
}

/* Is that the beginning of the last request of that plan? */
static bool is_cut_of(const struct run *x, unsigned index, const struct reference *got)
{
    static struct plan plan;

    plan_make(&plan, x->seed, index);
    bool same = reference_compare(&plan.said[plan.count - 1], got, "127.0.0.1", true) == NULL;
    plan_drop(&plan);
    return same;
}

/* Content may turn out to be malformed, or to be cut off, when its head has been sent on: then the backend sees a part
 * of a request, and the end of the connection. */
static void on_rest(void *arg, const struct reference *got, const char *p, size_t n)
{
    struct run *x = arg;

    for (unsigned i = x->cuttable_count; got->verdict == REFERENCE_INCOMPLETE && got->head_whole && i-- > 0;) {
        if (!is_cut_of(x, x->cuttable[i], got))
            continue;
        memmove(x->cuttable + i, x->cuttable + i + 1, (x->cuttable_count - i - 1) * sizeof *x->cuttable);
        x->cuttable_count--;
        x->cuts++;
        return;
    }
    print_bytes("the backend got", p, n);
    DISAGREE(x, "the backend got what is no request, nor the part of one that was cut off (%s)", got->why);
}

/* ---- at the client ---- */

/* Takes a response off the front of what has come. 0 when there is none yet; `*number` 0 when it is the proxy's own. */
static int take_response(struct run *x, bool to_head, unsigned *number)
{
    struct bytes *in = &x->client.in.in;
    const char *end = strstr(in->p, "\r\n\r\n"), *field;
    size_t n = end ? (size_t)(end - in->p) + 4 : 0, length;

    *number = 0;
    if (!end)
        return 0;
    field = strstr(in->p, "\r\nContent-Length: ");
    if (memcmp(in->p, "HTTP/1.1 ", 9) != 0 || !field || field > end)
        DISAGREE(x, "the client got what is no response: %.300s", in->p);
    length = strtoul(field + 18, NULL, 10);
    int status = atoi(in->p + 9);
    field = strstr(in->p, "\r\nX-Number: ");
    if (field && field < end)
        *number = (unsigned)strtoul(field + 12, NULL, 10);
    /* A refused HEAD may not have been seen to be one: whether content follows shows at the end. */
    if (in->n - n < length && !(to_head && (*number > 0 || x->ended)))
        return 0;
    bytes_drop(in, to_head && in->n - n < length ? n : n + length);
    return status;
}

static void take_answer(struct run *x, int status, unsigned number)
{
    if (status != 200 || x->answered >= x->arrived || number != x->before + x->answered + 1)
        DISAGREE(x, "the client got an answer that is not its own: status %d, number %u", status, number);
    x->answered++;
}

/* An error of the proxy's own. */
static void take_refusal(struct run *x, int status)
{
    const struct reference *said = &x->plan.said[x->answered < x->plan.count ? x->answered : x->plan.count - 1];

    if (x->answered == x->plan.count)
        DISAGREE(x, "status %d to nothing", status);
    if (said->verdict == REFERENCE_INCOMPLETE ? status < 400 || (status >= 500 && status != 501 && status != 505)
                                              : !reference_accepts(said, status))
        DISAGREE(x, "status %d to request %u does not fit", status, x->answered + 1);
    x->refused = true;
}

static void take_responses(struct run *x)
{
    unsigned number;
    int status;

    while (!x->refused) {
        const struct plan *p = &x->plan;
        const struct reference *said = &p->said[x->answered < p->count ? x->answered : p->count - 1];
        status = take_response(x, span_is(said->method, "HEAD"), &number);

        if (status == 0)
            return;
        if (number > 0)
            take_answer(x, status, number);
        else
            take_refusal(x, status);
    }
    if (x->client.in.in.n > 0)
        DISAGREE(x, "the client got more behind a refusal: %.300s", x->client.in.in.p);
}

static void client_take(struct run *x)
{
    char piece[16384];
    ssize_t n = recv(x->client.in.fd, piece, sizeof piece, MSG_DONTWAIT);

    if (n < 0 && errno == EAGAIN)
        return;
    x->ended = n <= 0;
    if (n > 0)
        bytes_add(&x->client.in.in, piece, (size_t)n);
    take_responses(x);
}

/* ---- one plan ---- */

static bool is_settled(const struct run *x)
{
    return x->ended || (plan_ending(&x->plan) == STAYS_OPEN && x->answered == x->plan.count);
}

static void send_plan(struct run *x)
{
    const struct plan *p = &x->plan;

    /* A proxy that has refused already may have closed: what it said is still there to be read. */
    (void)!send(x->client.in.fd, p->stream.p, p->piece, MSG_NOSIGNAL);
    if (p->piece < p->stream.n) {
        recorder_serve(x->recorder, -1, 0);
        (void)!send(x->client.in.fd, p->stream.p + p->piece, p->stream.n - p->piece, MSG_NOSIGNAL);
    }
    if (plan_ending(p) == ENDS_INCOMPLETE)
        shutdown(x->client.in.fd, SHUT_WR);
}

static void check_ending(const struct run *x)
{
    enum ending ending = plan_ending(&x->plan);
    const struct reference *said = &x->plan.said[x->answered < x->plan.count ? x->answered : x->plan.count - 1];

    if (x->client.in.in.n > 0)
        DISAGREE(x, "the client got more than it should: %.300s", x->client.in.in.p);
    if (x->refused && !x->ended)
        DISAGREE(x, "the connection goes on behind a refusal");
    if (x->arrived != x->answered)
        DISAGREE(x, "a request reached the backend and was not answered");
    if (x->refused && said->verdict == REFERENCE_FORWARD)
        return; /* one that may be refused */
    if (x->answered != x->plan.forwarded)
        DISAGREE(x, "a request was not forwarded");
    if (ending == ENDS_REFUSED && !x->refused)
        DISAGREE(x, "a request was not answered with an error");
}

static void count_plan(struct run *x)
{
    const struct reference *first = &x->plan.said[0], *last = &x->plan.said[x->plan.count - 1];

    x->firsts[first->verdict]++;
    if (last->verdict != REFERENCE_FORWARD && last->head_whole)
        x->cuttable[x->cuttable_count++] = x->index;
    for (unsigned i = 0; i < REASONS_MAX && *last->why; i++) {
        if (x->reasons[i] && strcmp(x->reasons[i], last->why) != 0)
            continue;
        x->reasons[i] = last->why;
        x->reason_counts[i]++;
        return;
    }
}

static void run_plan(struct run *x, int port)
{
    uint64_t deadline = deadline_in(patience_ms());

    x->before = x->messages;
    x->arrived = x->answered = 0;
    x->refused = x->ended = false;
    plan_make(&x->plan, x->seed, x->index);
    count_plan(x);
    if (!x->connected)
        client_open(&x->client, port);
    x->connections += !x->connected;
    x->connected = true;
    send_plan(x);
    while (!is_settled(x)) {
        if (recorder_serve(x->recorder, x->client.in.fd, 100))
            client_take(x);
        if (left_ms(deadline) == 0)
            DISAGREE(x, "nothing more comes");
    }
    check_ending(x);
    if (x->ended)
        client_close(&x->client);
    x->connected = !x->ended;
    plan_drop(&x->plan);
}

/* ---- all of them ---- */

static unsigned number_of(const char *variable, unsigned otherwise)
{
    const char *given = getenv(variable);

    return given ? (unsigned)strtoul(given, NULL, 10) : otherwise;
}

static void print_mix(const struct run *x, unsigned count)
{
    print_message("%u generated: %u forwarded, %u refused, %u incomplete; %u connections, %u messages at the backend, "
                  "%u cut off, over %u connections\n",
                  count, x->firsts[REFERENCE_FORWARD], x->firsts[REFERENCE_REFUSE], x->firsts[REFERENCE_INCOMPLETE],
                  x->connections, x->messages, x->cuts, recorder_connections(x->recorder));
    for (unsigned i = 0; i < REASONS_MAX && x->reasons[i]; i++)
        print_message("  %6u  %s\n", x->reason_counts[i], x->reasons[i]);
}

/* A check that forwards all, or refuses all, or refuses all for the same reason, sees nothing. */
static void check_mix(const struct run *x, unsigned count)
{
    unsigned reasons = 0;

    while (reasons < REASONS_MAX && x->reasons[reasons])
        reasons++;
    if (count < 1000)
        return;
    CHECK(x->firsts[REFERENCE_FORWARD] * 100u >= count * SHARE_MIN, "too few are forwarded");
    CHECK(x->firsts[REFERENCE_REFUSE] * 100u >= count * SHARE_MIN, "too few are refused");
    CHECK(reasons >= REASONS_WANTED, "only %u reasons to refuse came up", reasons);
}

/* The daemon has gone: what is still on its way to the backend arrives, and must be nothing unexpected. */
static void settle(struct run *x)
{
    uint64_t deadline = deadline_in(patience_ms());

    if (x->connected)
        client_close(&x->client);
    while (recorder_open(x->recorder) > 0) {
        recorder_serve(x->recorder, -1, 100);
        CHECK(left_ms(deadline) > 0, "connections to the backend stay open");
    }
}

static void test_reference_and_proxy_agree(void **state)
{
    static struct run x;
    struct world *w = *state;
    unsigned first = number_of("LB_FIRST", 0);
    unsigned usual = is_valgrind_run() ? SLOW_COUNT / 10 : is_instrumented() ? SLOW_COUNT : DEFAULT_COUNT;
    unsigned count = number_of("LB_COUNT", usual);
    char address[32];

    x.seed = number_of("LB_SEED", DEFAULT_SEED);
    x.cuttable = calloc(count + 1, sizeof *x.cuttable);
    x.recorder = recorder_start(&(struct recorder_events){on_message, on_rest, &x});
    snprintf(address, sizeof address, "127.0.0.1:%d", recorder_port(x.recorder));
    world_backend(w, address, NULL);
    world_start(w, LIMITS ", \"retry\": {\"attempts\": 0}, \"log\": {\"format\": \"json\", \"access\": false}");
    for (unsigned i = 0; i < count; i++) {
        x.index = first + i;
        run_plan(&x, w->port);
    }
    if (x.connected)
        client_close(&x.client);
    x.connected = false;
    world_stop(w);
    settle(&x);
    print_mix(&x, count);
    check_mix(&x, count);
    recorder_stop(x.recorder);
    bytes_free(&x.plan.stream);
    free(x.cuttable);
    world_finish(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {WORLD_TEST(test_reference_and_proxy_agree)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
