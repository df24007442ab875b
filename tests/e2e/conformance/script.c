/* What one side of a case sends, and how it is cut into pieces. */
#include "conformance/script.h"

#include <stdlib.h>
#include <string.h>

const char *const split_names[SPLITS] = {"whole", "one byte at a time", "split at random"};

static struct bytes *step_of(struct script *s, enum step_kind kind)
{
    if (kind == STEP_SEND && s->count > 0 && s->steps[s->count - 1].kind == STEP_SEND)
        return &s->steps[s->count - 1].bytes;
    if (s->count == SCRIPT_STEPS_MAX)
        abort();
    s->steps[s->count].kind = kind;
    return &s->steps[s->count++].bytes;
}

/* "pattern*count", "client:text" or "origin:text". */
static void add_order(struct script *s, const char *p, size_t n)
{
    const char *star = memrchr(p, '*', n);

    if (n > 7 && (memcmp(p, "client:", 7) == 0 || memcmp(p, "origin:", 7) == 0)) {
        bytes_add(step_of(s, *p == 'c' ? STEP_AWAIT_CLIENT : STEP_AWAIT_ORIGIN), p + 7, n - 7);
        return;
    }
    if (!star)
        abort();
    for (long count = strtol(star + 1, NULL, 10); count > 0; count--)
        bytes_add(step_of(s, STEP_SEND), p, (size_t)(star - p));
}

void script_add(struct script *s, struct text t)
{
    while (t.n > 0) {
        const char *open = memmem(t.p, t.n, "{{", 2);
        size_t n = open ? (size_t)(open - t.p) : t.n;

        if (n > 0)
            bytes_add(step_of(s, STEP_SEND), t.p, n);
        t = (struct text){t.p + n, t.n - n};
        if (!open)
            break;
        const char *close = memmem(t.p, t.n, "}}", 2);
        if (!close)
            abort();
        n = (size_t)(close - t.p);
        add_order(s, t.p + 2, n - 2);
        t = (struct text){t.p + n + 2, t.n - n - 2};
    }
}

void script_free(struct script *s)
{
    for (unsigned i = 0; i < s->count; i++)
        bytes_free(&s->steps[i].bytes);
    *s = (struct script){0};
}

bool script_is_over(const struct script *s)
{
    return s->step == s->count;
}

const struct step *script_awaits(const struct script *s)
{
    return script_is_over(s) || s->steps[s->step].kind == STEP_SEND ? NULL : &s->steps[s->step];
}

void script_go_on(struct script *s)
{
    s->step++;
    s->at = 0;
}

struct text script_piece(const struct script *s, enum split split, uint32_t *random)
{
    const struct bytes *b = &s->steps[s->step].bytes;
    size_t left = b->n - s->at, n = left;

    if (split == SPLIT_BYTES)
        n = 1;
    if (split == SPLIT_RANDOM) {
        *random = *random * 1664525u + 1013904223u;
        n = 1 + (*random >> 16) % (left < 64 ? left : 64);
    }
    return (struct text){b->p + s->at, n};
}

void script_sent(struct script *s, size_t n)
{
    s->at += n;
    if (s->at == s->steps[s->step].bytes.n)
        script_go_on(s);
}
