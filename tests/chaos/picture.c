/* The live picture. */
#include "picture.h"

#include <stdio.h>
#include <unistd.h>

#define DRAW_EVERY_TTY (200 * MS)
#define DRAW_EVERY     (10 * S)

static void draw_backend(struct bytes *out, const struct stage *s, int i, uint64_t second_ago)
{
    const char *label = s->label[i];

    bytes_addf(out, "  b%d %3u/s%s%s%s", i + 1, s->load ? load_answered_since(s->load, i, second_ago) : 0,
               label[0] ? " " : "", label, s->watch.is_down[i] ? " (out)" : "");
}

static unsigned failed_since(struct load *l, uint64_t since)
{
    return load_ended_since(l, since) - load_answered_since(l, -1, since);
}

void picture_draw(struct stage *s)
{
    bool tty = isatty(STDERR_FILENO);
    uint64_t now = now_us(), ago = now > S ? now - S : 0;
    struct bytes line = {0};

    if (now < s->drawn + (tty ? DRAW_EVERY_TTY : DRAW_EVERY) || (!tty && s->drawn == 0 && now < s->begun + S))
        return;
    s->drawn = now;
    bytes_addf(&line, "%-15s %-12s %5.1f s", s->scenario, s->proxy->name, (double)(now - s->begun) / S);
    for (int i = 0; i < BACKENDS; i++)
        draw_backend(&line, s, i, ago);
    if (s->load)
        bytes_addf(&line, "  | %3u requests/s, %u failed of all", load_ended_since(s->load, ago),
                   failed_since(s->load, s->begun));
    fprintf(stderr, tty ? "\r%.160s\033[K" : "  %.160s\n", line.p);
    bytes_free(&line);
}

void picture_clear(void)
{
    if (isatty(STDERR_FILENO))
        fprintf(stderr, "\r\033[K");
}
