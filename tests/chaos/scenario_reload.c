/* SIGHUP under load: a backend leaves the config and returns to it, time and again. */
#include "harness/client.h"
#include "scenario.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

#define LEAVER (BACKENDS - 1)

static void reload(struct stage *s, unsigned mask)
{
    s->label[LEAVER] = mask == ALL_BACKENDS ? "" : "not in config";
    stage_configure(s, mask);
    process_signal(&s->balancer, SIGHUP);
}

/* The last 200 ms' requests have been answered, and none by the one that left. */
static bool leaver_is_left_alone(struct stage *s)
{
    uint64_t since = now_us() - 200 * MS;

    return load_answered_since(s->load, -1, since) >= 20 && load_answered_since(s->load, LEAVER, since) == 0;
}

/* ---- slow uploads ---- */

/* Some POSTs whose content comes piece by piece while the config changes: one of them, at least, is likely to be with
 * the backend that leaves. */
#define UPLOADS 6
#define PIECE   "0123456789"

static bool upload_begin(struct client *c, const struct stage *s)
{
    char head[200];

    if (!client_try_open(c, s->port))
        return false;
    snprintf(head, sizeof head, "POST / HTTP/1.1\r\nHost: chaos\r\nContent-Length: %zu\r\n\r\n",
             (size_t)s->pace->reloads * strlen(PIECE));
    return client_try_send(c, head, strlen(head));
}

/* One that has failed fails again at its end. */
static void uploads_go_on(struct client uploads[UPLOADS])
{
    for (int i = 0; i < UPLOADS; i++)
        (void)!client_try_send(&uploads[i], PIECE, strlen(PIECE));
}

/* The backend says how much content it has got. */
static bool upload_end(struct client *c, const struct stage *s)
{
    char shown[40];
    bool whole;

    snprintf(shown, sizeof shown, "\"body_bytes\":%zu,", (size_t)s->pace->reloads * strlen(PIECE));
    whole = client_read(c, false) == READ_OK && c->response.status == 200 && strstr(c->response.body.p, shown);
    client_close(c);
    return whole;
}

static void uploads_end(struct stage *s, struct client uploads[UPLOADS])
{
    int whole = 0;

    for (int i = 0; i < UPLOADS; i++)
        whole += upload_end(&uploads[i], s);
    stage_promise(s, "slow uploads go on", whole == UPLOADS, "%d of %d arrived whole", whole, UPLOADS);
}

/* ---- the scenario ---- */

bool play_reload(struct stage *s, const struct scenario *c)
{
    struct client uploads[UPLOADS];
    bool left = false;

    (void)c;
    for (int i = 0; i < UPLOADS; i++)
        if (!upload_begin(&uploads[i], s))
            return false;
    uploads_go_on(uploads);
    s->fault_at = now_us();
    reload(s, ALL_BACKENDS & ~(1u << LEAVER));
    AWAIT(s, 3 * S, (left = leaver_is_left_alone(s)));
    for (unsigned i = 1; i < s->pace->reloads; i++) {
        uint64_t at = now_us();

        uploads_go_on(uploads);
        reload(s, i % 2 == 0 ? ALL_BACKENDS & ~(1u << LEAVER) : ALL_BACKENDS);
        AWAIT(s, LIMIT, load_ended_since(s->load, at) >= 20);
    }
    s->fault_end = now_us();
    reload(s, ALL_BACKENDS);
    uploads_end(s, uploads);
    stage_promise(s, "a reload acts", left, "%s",
                  left ? "it did" : "the backend that left the config still got requests");
    if (play_return(s, LEAVER))
        play_even(s);
    return true;
}
