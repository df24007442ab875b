/* What a proxy says about its backends. */
#include "watch.h"

#include "clock.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

void watch_init(struct watch *w, const char *path, const struct watch_words *words, const int *ports)
{
    *w = (struct watch){.words = words, .ports = ports};
    snprintf(w->path, sizeof w->path, "%s", path);
}

static void take_event(struct watch *w, int backend, bool down)
{
    w->is_down[backend] = down;
    if (w->count == WATCH_EVENTS)
        return;
    w->events[w->count].seen = now_us();
    w->events[w->count].backend = backend;
    w->events[w->count].down = down;
    w->count++;
}

static bool is_about(const struct watch *w, const char *line, int backend)
{
    char who[64];
    const char *at = strchr(w->words->who, '@');

    snprintf(who, sizeof who, "%.*s%d%s", (int)(at - w->words->who), w->words->who,
             w->words->by_port ? w->ports[backend] : backend + 1, at + 1);
    return strstr(line, who) != NULL;
}

static void take_line(struct watch *w, const char *line)
{
    bool down = w->words->down && strstr(line, w->words->down), up = w->words->up && strstr(line, w->words->up);

    for (int i = 0; (down || up) && i < BACKENDS; i++)
        if (is_about(w, line, i))
            take_event(w, i, down);
}

/* Only whole lines are taken. */
static size_t take_lines(struct watch *w, char *text)
{
    char *line = text;

    for (char *end; (end = strchr(line, '\n')); line = end + 1) {
        *end = '\0';
        take_line(w, line);
    }
    return (size_t)(line - text);
}

void watch_poll(struct watch *w)
{
    char text[65536];
    int fd = open(w->path, O_RDONLY | O_CLOEXEC);
    ssize_t n;

    if (fd < 0)
        return;
    while ((n = pread(fd, text, sizeof text - 1, (off_t)w->at)) > 0) {
        size_t taken;

        text[n] = '\0';
        taken = take_lines(w, text);
        w->at += taken;
        if (taken == 0)
            break;
    }
    close(fd);
}

uint64_t watch_down_since(const struct watch *w, int backend, uint64_t since)
{
    for (unsigned i = 0; i < w->count; i++)
        if (w->events[i].backend == backend && w->events[i].down && w->events[i].seen >= since)
            return w->events[i].seen;
    return 0;
}
