/* The simulated process's heap: counted, failing where the seed says so, and poisoned. What is freed is overwritten and
 * waits a while before its memory is used again: who reads it crashes or goes astray, who writes to it is found. Behind
 * each block lies a canary, which is looked at when the block is given back, and at the process's end. */
#include "asan.h"
#include "calls.h"
#include "kernel.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK_LIVE UINT64_C(0x6576696c6b636c62)
#define BLOCK_DEAD UINT64_C(0x646165646b636c62)
#define POISON     0xdb
#define FILL_MAX   (128u * 1024u)
#define CANARY     16u

struct block { /* in front of what the daemon gets */
    struct block *next, *prev;
    size_t size;
    uint64_t state;
};
_Static_assert(sizeof(struct block) % 16 == 0, "blocks stay aligned");

/* The last blocks freed wait here, poisoned, before their memory is used again. */
#define QUARANTINE 128u
static struct block live = {.next = &live, .prev = &live};
static struct block *dead[QUARANTINE];
static unsigned dead_at;

static char *content(struct block *b)
{
    return (char *)(b + 1);
}

static size_t filled(const struct block *b)
{
    return b->size < FILL_MAX ? b->size : FILL_MAX;
}

static const char canary[CANARY + 1] = "\xc5\x5a\xc6\x6a\xc7\x7a\xc8\x8a\xc9\x9a\xca\xaa\xcb\xba\xcc\xca";

/* Nobody has written past the block's end. */
static void check_canary(struct block *b)
{
    char *behind = content(b) + b->size;
    ASAN_UNPOISON_MEMORY_REGION(behind, CANARY);
    if (memcmp(behind, canary, CANARY) != 0)
        sim_fail("memory", "something was written past the end of a block of %zu bytes", b->size);
    ASAN_POISON_MEMORY_REGION(behind, CANARY);
}

static void give_back(struct block *b)
{
    check_canary(b);
    ASAN_UNPOISON_MEMORY_REGION(content(b), b->size + CANARY);
    free(b);
}

static void release(struct block *b)
{
    if (!b)
        return;
    ASAN_UNPOISON_MEMORY_REGION(content(b), b->size);
    /* All bytes are the poison when the first is and each is like the one before it. */
    size_t n = filled(b);
    const char *p = content(b);
    if (n > 0 && ((unsigned char)p[0] != POISON || memcmp(p, p + 1, n - 1) != 0))
        sim_fail("memory", "a block of %zu bytes was written to after it was freed", b->size);
    give_back(b);
}

static void *no_memory(void)
{
    errno = ENOMEM;
    return NULL;
}

static void *allocate(size_t n, bool zeroed)
{
    if (fault_rarely_at_start(&kernel.faults.heap_enomem, 50)) {
        kernel.shown.heap++;
        return no_memory();
    }
    if (n > PTRDIFF_MAX - sizeof(struct block) - CANARY)
        return no_memory();
    size_t all = sizeof(struct block) + n + CANARY;
    struct block *b = zeroed ? calloc(1, all) : malloc(all);
    if (!b)
        abort();
    *b = (struct block){.next = live.next, .prev = &live, .size = n, .state = BLOCK_LIVE};
    live.next->prev = b;
    live.next = b;
    if (!zeroed)
        memset(content(b), 0xa5, filled(b));
    memcpy(content(b) + n, canary, CANARY);
    ASAN_POISON_MEMORY_REGION(content(b) + n, CANARY);
    process.heap_bytes += n;
    process.heap_blocks++;
    if (process.heap_bytes > process.heap_peak)
        process.heap_peak = process.heap_bytes;
    return content(b);
}

static struct block *block_of(void *p, const char *call)
{
    struct block *b = (struct block *)p - 1;
    if (b->state != BLOCK_LIVE)
        sim_fail("memory", "%s of a block that is %s", call, b->state == BLOCK_DEAD ? "free already" : "none");
    check_canary(b);
    return b;
}

void *sim_malloc(size_t n)
{
    return allocate(n, false);
}

void *sim_calloc(size_t n, size_t size)
{
    size_t all;
    return __builtin_mul_overflow(n, size, &all) ? no_memory() : allocate(all, true);
}

void sim_free(void *p)
{
    if (!p)
        return;
    struct block *b = block_of(p, "free");
    b->next->prev = b->prev;
    b->prev->next = b->next;
    b->state = BLOCK_DEAD;
    process.heap_bytes -= b->size;
    process.heap_blocks--;
    memset(p, POISON, filled(b));
    ASAN_POISON_MEMORY_REGION(p, b->size);
    release(dead[dead_at]);
    dead[dead_at] = b;
    dead_at = (dead_at + 1) % QUARANTINE;
}

void *sim_realloc(void *p, size_t n)
{
    void *moved = allocate(n, false);
    if (!p || !moved)
        return moved;
    size_t old = block_of(p, "realloc")->size;
    memcpy(moved, p, old < n ? old : n);
    sim_free(p);
    return moved;
}

void *sim_reallocarray(void *p, size_t n, size_t size)
{
    size_t all;
    return __builtin_mul_overflow(n, size, &all) ? no_memory() : sim_realloc(p, all);
}

char *sim_strdup(const char *s)
{
    char *copy = allocate(strlen(s) + 1, false);
    return copy ? strcpy(copy, s) : NULL;
}

int sim_malloc_trim(size_t pad)
{
    (void)pad;
    return 1;
}

int sim_mallopt(int what, int value)
{
    (void)what;
    (void)value;
    return 1;
}

void heap_free(void)
{
    for (unsigned i = 0; i < QUARANTINE; i++) {
        release(dead[i]);
        dead[i] = NULL;
    }
    while (live.next != &live) {
        struct block *b = live.next;
        live.next = b->next;
        give_back(b);
    }
    live.prev = &live;
    process.heap_bytes = process.heap_blocks = 0;
}

void heap_describe(struct bytes *out)
{
    unsigned n = 0;
    for (struct block *b = live.next; b != &live && n < 40; b = b->next, n++)
        bytes_add_text(out, " %zu", b->size);
}
