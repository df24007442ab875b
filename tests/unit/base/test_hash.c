/* SipHash against its published vectors, and the table against an array while it grows and empties. */
#include "base/hash.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const struct hash_key reference_key = {UINT64_C(0x0706050403020100), UINT64_C(0x0f0e0d0c0b0a0908)};

static void assert_vector(size_t n, const unsigned char want[8])
{
    unsigned char input[64];
    uint64_t number = 0;

    for (size_t i = 0; i < sizeof(input); i++)
        input[i] = (unsigned char)i;
    for (size_t i = 8; i-- > 0;)
        number = number << 8 | want[i];
    assert_true(hash_siphash24(&reference_key, input, n) == number);
}

static void test_reference_vectors(void **state)
{
    (void)state;
    assert_vector(0, (unsigned char[]){0x31, 0x0e, 0x0e, 0xdd, 0x47, 0xdb, 0x6f, 0x72});
    assert_vector(1, (unsigned char[]){0xfd, 0x67, 0xdc, 0x93, 0xc5, 0x39, 0xf8, 0x74});
    assert_vector(2, (unsigned char[]){0x5a, 0x4f, 0xa9, 0xd9, 0x09, 0x80, 0x6c, 0x0d});
    assert_vector(3, (unsigned char[]){0x2d, 0x7e, 0xfb, 0xd7, 0x96, 0x66, 0x67, 0x85});
    /* 15 bytes: the example of the paper's appendix A. */
    assert_vector(15, (unsigned char[]){0xe5, 0x45, 0xbe, 0x49, 0x61, 0xca, 0x29, 0xa1});
}

static void test_key_and_length_matter(void **state)
{
    const char zeros[16] = {0};
    struct hash_key changed = reference_key;

    (void)state;
    changed.k1 ^= 1;
    assert_true(hash_bytes(&reference_key, "abc", 3) != hash_bytes(&changed, "abc", 3));
    for (size_t n = 0; n < sizeof(zeros); n++)
        assert_true(hash_bytes(&reference_key, zeros, n) != hash_bytes(&reference_key, zeros, n + 1));
    assert_true(hash_bytes(&reference_key, "abcdefgh", 8) != hash_siphash24(&reference_key, "abcdefgh", 8));
}

struct entry {
    unsigned key;
    bool in;
    struct hash_node node;
};

static bool key_is(const struct hash_node *node, const void *wanted)
{
    const struct entry *e = (const void *)((const char *)node - offsetof(struct entry, node));
    return e->key == *(const unsigned *)wanted;
}

static uint64_t hash_key_number(unsigned key)
{
    return hash_bytes(&reference_key, &key, sizeof(key));
}

static struct hash_node *find(const struct hash_table *t, unsigned key)
{
    return hash_table_find(t, hash_key_number(key), key_is, &key);
}

static void toggle(struct hash_table *t, struct entry *e)
{
    if (e->in)
        hash_table_remove(t, &e->node);
    else
        assert_true(hash_table_insert(t, &e->node, hash_key_number(e->key)));
    e->in = !e->in;
}

static void test_empty_table(void **state)
{
    struct hash_table t;

    (void)state;
    hash_table_init(&t);
    assert_null(find(&t, 1));
    assert_null(t.segments);
    hash_table_fini(&t);
}

static void test_everything_is_found_while_it_grows(void **state)
{
    enum { N = 3000 };
    static struct entry entries[N];
    struct hash_table t;

    (void)state;
    hash_table_init(&t);
    for (unsigned i = 0; i < N; i++) {
        entries[i].key = i;
        toggle(&t, &entries[i]);
        for (unsigned j = i % 7; j <= i; j += 7)
            assert_ptr_equal(find(&t, j), &entries[j].node);
        assert_null(find(&t, i + 1));
    }
    assert_int_equal(t.count, N);
    assert_int_equal(t.slots, N);
    hash_table_fini(&t);
}

static void test_like_the_model(void **state)
{
    enum { N = 5000, STEPS = 60000 };
    static struct entry entries[N];
    struct hash_table t;
    size_t count = 0;

    (void)state;
    srandom(99);
    hash_table_init(&t);
    for (unsigned i = 0; i < N; i++)
        entries[i] = (struct entry){.key = i};
    for (unsigned step = 0; step < STEPS; step++) {
        /* The range widens, so that removals meet every stage of a growth. */
        struct entry *e = &entries[(unsigned)random() % (1 + step * (N - 1) / STEPS)];
        toggle(&t, e);
        count = e->in ? count + 1 : count - 1;
        assert_int_equal(t.count, count);
        assert_ptr_equal(find(&t, e->key), e->in ? &e->node : NULL);
    }
    for (unsigned i = 0; i < N; i++)
        assert_ptr_equal(find(&t, i), entries[i].in ? &entries[i].node : NULL);
    hash_table_fini(&t);
}

/* Segments that the table has. */
static size_t segments(const struct hash_table *t)
{
    size_t n = 0;

    while (n < t->room && t->segments[n])
        n++;
    return n;
}

/* As many slots as entries, at any number, and where some have gone up to an eighth of the slots over; and in each call
 * only two more or fewer. */
static void test_as_many_slots_as_entries(void **state)
{
    enum { N = 100000 };
    struct entry *entries = calloc(N, sizeof(*entries));
    struct hash_table t;

    (void)state;
    assert_non_null(entries);
    hash_table_init(&t);
    for (unsigned i = 0; i < 2 * N; i++) {
        size_t slots = t.slots;
        entries[i % N].key = i % N;
        toggle(&t, &entries[i % N]);
        assert_true(t.slots + 2 >= slots && (slots == 0 || t.slots <= slots + 2));
        assert_true(t.slots <= HASH_SLOTS_FIRST || (t.slots >= t.count && t.slots - t.slots / 8 <= t.count + 1));
        assert_int_equal(segments(&t), (t.slots + HASH_SEGMENT - 1) / HASH_SEGMENT);
    }
    assert_int_equal(t.count, 0);
    assert_int_equal(t.slots, HASH_SLOTS_FIRST);
    hash_table_fini(&t);
    free(entries);
}

/* One that comes and goes, over and over, moves no chain. */
static void test_no_to_and_fro(void **state)
{
    enum { N = 2 * HASH_SEGMENT };
    static struct entry entries[N + 1];
    struct hash_table t;

    (void)state;
    hash_table_init(&t);
    for (unsigned i = 0; i <= N; i++) {
        entries[i].key = i;
        toggle(&t, &entries[i]);
        if (i < 2 * HASH_SLOTS_FIRST)
            continue;
        size_t slots = t.slots;
        for (unsigned times = 0; times < 4; times++)
            toggle(&t, &entries[i]);
        assert_int_equal(t.slots, slots);
    }
    hash_table_fini(&t);
}

static unsigned cleared;

static void count_cleared(struct hash_node *node)
{
    memset(node, 0xee, sizeof(*node)); /* as if it were freed */
    cleared++;
}

static void test_clear_meets_each(void **state)
{
    enum { N = 3 * HASH_SEGMENT };
    static struct entry entries[N];
    struct hash_table t;

    (void)state;
    hash_table_init(&t);
    hash_table_clear(&t, count_cleared);
    for (unsigned i = 0; i < N; i++) {
        entries[i].key = i;
        toggle(&t, &entries[i]);
    }
    hash_table_clear(&t, count_cleared);
    assert_int_equal(cleared, N);
    assert_int_equal(t.count, 0);
    assert_null(t.segments);
}

/* The table's calls come here: see the Makefile. */
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *p, size_t size);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t size);

static bool no_memory;

void *__wrap_calloc(size_t n, size_t size)
{
    return no_memory ? NULL : __real_calloc(n, size);
}

void *__wrap_realloc(void *p, size_t size)
{
    return no_memory ? NULL : __real_realloc(p, size);
}

static void test_no_memory_at_first(void **state)
{
    struct entry entry = {.key = 1};
    struct hash_table t;

    (void)state;
    hash_table_init(&t);
    no_memory = true;
    assert_false(hash_table_insert(&t, &entry.node, hash_key_number(1)));
    no_memory = false;
    assert_int_equal(t.count, 0);
    assert_null(find(&t, 1));
    toggle(&t, &entry);
    assert_ptr_equal(find(&t, 1), &entry.node);
    hash_table_fini(&t);
}

/* Then chains become longer, and each insert that follows when there is memory again makes good for one without. */
static void test_no_memory_for_more(void **state)
{
    enum { N = 16 * HASH_SEGMENT };
    static struct entry entries[N];
    struct hash_table t;

    (void)state;
    hash_table_init(&t);
    for (unsigned i = 0; i < N; i++) {
        entries[i].key = i;
        no_memory = i >= N / 4 && i < N / 2;
        toggle(&t, &entries[i]);
        if (no_memory)
            assert_int_equal(t.slots, N / 4);
    }
    assert_int_equal(t.slots, N);
    for (unsigned i = 0; i < N; i++)
        assert_ptr_equal(find(&t, i), &entries[i].node);
    hash_table_fini(&t);
}

static void test_equal_hashes(void **state)
{
    struct entry entries[40] = {0};
    struct hash_table t;

    (void)state;
    hash_table_init(&t);
    for (unsigned i = 0; i < 40; i++) {
        entries[i].key = i;
        assert_true(hash_table_insert(&t, &entries[i].node, 42));
    }
    for (unsigned i = 0; i < 40; i += 2)
        hash_table_remove(&t, &entries[i].node);
    for (unsigned i = 0; i < 40; i++)
        assert_ptr_equal(hash_table_find(&t, 42, key_is, &i), i % 2 ? &entries[i].node : NULL);
    hash_table_fini(&t);
}

/* Hashes that differ in the high half only are one to the table, and what is the entry's own stays the entry's. */
static void test_half_a_hash(void **state)
{
    enum { N = 1000 };
    static struct entry entries[N];
    struct hash_table t;

    (void)state;
    hash_table_init(&t);
    for (unsigned i = 0; i < N; i++) {
        entries[i].key = i;
        entries[i].node.rest = ~i;
        assert_true(hash_table_insert(&t, &entries[i].node, (uint64_t)i << 32 | i / 2));
    }
    for (unsigned i = 0; i < N; i++) {
        assert_ptr_equal(hash_table_find(&t, (uint64_t)i << 32 | i / 2, key_is, &i), &entries[i].node);
        assert_int_equal(entries[i].node.rest, ~i);
    }
    for (unsigned i = 0; i < N; i++)
        hash_table_remove(&t, &entries[i].node);
    assert_int_equal(t.count, 0);
    hash_table_fini(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reference_vectors),
        cmocka_unit_test(test_key_and_length_matter),
        cmocka_unit_test(test_empty_table),
        cmocka_unit_test(test_everything_is_found_while_it_grows),
        cmocka_unit_test(test_like_the_model),
        cmocka_unit_test(test_no_to_and_fro),
        cmocka_unit_test(test_as_many_slots_as_entries),
        cmocka_unit_test(test_clear_meets_each),
        cmocka_unit_test(test_no_memory_at_first),
        cmocka_unit_test(test_no_memory_for_more),
        cmocka_unit_test(test_equal_hashes),
        cmocka_unit_test(test_half_a_hash),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
