/* Damage: what a faulty or hostile sender might make of a request. */
#include "harness/generate.h"

#include <string.h>

/* Bytes that the grammar gives a meaning. */
static const char special[] = "\r\n\r\n\0\t  ::,;=\"\\#_/-%[]@()0123456789abcxABCX\x01\x7f\x80\xff";

static char special_byte(struct rng *g)
{
    return special[rng_below(g, sizeof special - 1)];
}

static void replace(struct bytes *b, size_t at, size_t n, const char *p, size_t with)
{
    struct bytes out = {0};

    bytes_add(&out, b->p, at);
    bytes_add(&out, p, with);
    bytes_add(&out, b->p + at + n, b->n - at - n);
    bytes_free(b);
    *b = out;
}

/* A place among the bytes; more often in their first part, where the heads are. */
static size_t place(struct rng *g, const struct bytes *b)
{
    size_t n = rng_chance(g, 30) && b->n > 60 ? 60 : b->n;

    return rng_below(g, (unsigned)n);
}

static void delete_piece(struct rng *g, struct bytes *b)
{
    size_t at = place(g, b), n = rng_chance(g, 80) ? 1 : 1 + rng_below(g, 12);

    replace(b, at, n < b->n - at ? n : b->n - at, "", 0);
}

static void double_piece(struct rng *g, struct bytes *b)
{
    size_t at = place(g, b), n = rng_chance(g, 70) ? 1 : 1 + rng_below(g, 20);
    struct bytes piece = {0};

    bytes_add(&piece, b->p + at, n < b->n - at ? n : b->n - at);
    replace(b, at, 0, piece.p, piece.n);
    bytes_free(&piece);
}

static void change_byte(struct rng *g, struct bytes *b)
{
    size_t at = place(g, b);

    if (rng_chance(g, 30))
        b->p[at] = (char)((unsigned char)b->p[at] ^ 1u << rng_below(g, 8));
    else
        b->p[at] = special_byte(g);
}

static void insert_byte(struct rng *g, struct bytes *b)
{
    char c = special_byte(g);

    replace(b, rng_below(g, (unsigned)b->n + 1), 0, &c, 1);
}

/* The line that begins at or behind a random place: its first byte, and its length with its LF. */
static size_t some_line(struct rng *g, const struct bytes *b, size_t *n)
{
    size_t at = place(g, b);
    const char *end;

    while (at > 0 && b->p[at - 1] != '\n')
        at--;
    end = memchr(b->p + at, '\n', b->n - at);
    *n = end ? (size_t)(end - b->p) + 1 - at : b->n - at;
    return at;
}

static void change_lines(struct rng *g, struct bytes *b)
{
    size_t n, to_n, at = some_line(g, b, &n), to = some_line(g, b, &to_n);
    struct bytes line = {0};

    bytes_add(&line, b->p + at, n);
    switch (rng_below(g, 3)) {
    case 0: replace(b, to, 0, line.p, line.n); break;
    case 1: replace(b, at, n, "", 0); break;
    default: /* moved: the same as swapped, where the two are neighbours */
        replace(b, at, n, "", 0);
        replace(b, to > at ? to - n : to, 0, line.p, line.n);
        break;
    }
    bytes_free(&line);
}

static void splice(struct rng *g, struct bytes *b, const struct bytes *other)
{
    size_t at = rng_below(g, (unsigned)b->n + 1), from = rng_below(g, (unsigned)other->n + 1);

    replace(b, at, b->n - at, other->p + from, other->n - from);
}

void mutate(struct rng *g, struct bytes *b, const struct bytes *other)
{
    if (b->n == 0)
        return;
    switch (rng_below(g, 16)) {
    case 0:
    case 1: delete_piece(g, b); break;
    case 2:
    case 3: double_piece(g, b); break;
    case 4:
    case 5:
    case 6:
    case 7: change_byte(g, b); break;
    case 8:
    case 9:
    case 10: insert_byte(g, b); break;
    case 11:
    case 12:
    case 13: change_lines(g, b); break;
    default: splice(g, b, other); break;
    }
}
