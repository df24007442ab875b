/* Where in a JSON text a fault is, in the reader's terms: found by going through the text again, which only a fault
 * costs. */
#include "base/json_scan.h"

#include <stdio.h>

/* An object or array that is open at a place, and where in it that place is. */
struct level {
    bool is_array, key_is_due;
    size_t index;   /* of the element */
    struct str key; /* of the member, as the text has it; none before the first */
};

struct walk {
    struct level levels[JSON_DEPTH_MAX];
    unsigned depth;
    struct level root; /* stands in where no level is open */
};

/* Where the closing quote of the string at `at` is; the text's length when there is none. */
static size_t closing_quote(struct str text, size_t at)
{
    for (at++; at < text.n && text.p[at] != '"'; at++)
        if (text.p[at] == '\\')
            at++;
    return at < text.n ? at : text.n;
}

/* A string from behind its opening quote to `end`. */
static void on_string(struct level *l, struct str text, size_t begin, size_t end)
{
    if (!l->key_is_due || end == text.n)
        return;
    l->key = str_make(text.p + begin, end - begin);
    l->key_is_due = false;
}

static void on_mark(struct walk *w, struct level *l, char c)
{
    bool opens = c == '{' || c == '[', closes = c == '}' || c == ']';
    if (opens && w->depth < JSON_DEPTH_MAX)
        w->levels[w->depth++] = (struct level){.is_array = c == '[', .key_is_due = c == '{'};
    if (closes && w->depth > 0)
        w->depth--;
    if (c != ',')
        return;
    l->index++;
    l->key_is_due = !l->is_array;
    l->key = (struct str){0};
}

static void walk_through(struct walk *w, struct str text)
{
    for (size_t at = 0; at < text.n; at++) {
        struct level *l = w->depth > 0 ? &w->levels[w->depth - 1] : &w->root;
        if (text.p[at] != '"') {
            on_mark(w, l, text.p[at]);
            continue;
        }
        size_t end = closing_quote(text, at);
        on_string(l, text, at + 1, end);
        at = end;
    }
}

/* Appends what can be printed of `part`, cut at the end of a character. */
static size_t append(char *out, size_t n, struct str part)
{
    json_printable(out + n, JSON_PATH_SIZE - n, part);
    return n + strlen(out + n);
}

void json_path_at(struct str text, size_t offset, char out[JSON_PATH_SIZE])
{
    struct walk w = {.depth = 0};
    size_t n = 0;
    out[0] = '\0';
    walk_through(&w, str_make(text.p, offset < text.n ? offset : text.n));
    for (unsigned i = 0; i < w.depth; i++) {
        const struct level *l = &w.levels[i];
        char index[32];
        snprintf(index, sizeof(index), "[%zu]", l->index);
        if (!l->is_array && !l->key.p)
            continue;
        if (!l->is_array && n > 0)
            n = append(out, n, STR("."));
        n = append(out, n, l->is_array ? str_of(index) : l->key);
    }
}
