/* The pool of the buckets' words, what a killed process leaves of it, and the file that it is left in. */
#include "base/clock.h"
#include "base/file.h"
#include "limit/words.h"
#include "limit/words_file.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const struct hash_key key = {1, 2};
static char folder[64], clients[96], path[128], temp[160];

static struct bucket_policy policy(double capacity, double rate)
{
    struct bucket_policy p;
    bucket_policy_init(&p, capacity, rate);
    return p;
}

static int make_folder(void **state)
{
    (void)state;
    strcpy(folder, "/tmp/lb-words-XXXXXX");
    assert_non_null(mkdtemp(folder));
    snprintf(clients, sizeof clients, "%s/clients.json", folder);
    snprintf(path, sizeof path, "%s.tokens", clients);
    snprintf(temp, sizeof temp, "%s.tmp", path);
    return 0;
}

static int remove_folder(void **state)
{
    (void)state;
    unlink(path);
    unlink(temp);
    return rmdir(folder);
}

/* ---- the pool ---- */

static void slots_are_taken_and_given(void **state)
{
    struct words w;
    static uint32_t slots[100000];
    static struct word_slot *at[100000];
    (void)state;
    words_init(&w, &key);
    for (unsigned i = 0; i < 100000; i++) {
        slots[i] = words_take(&w);
        assert_true(slots[i] > 0);
        at[i] = words_at(&w, slots[i]);
        assert_int_equal(at[i]->tag, 0);
        at[i]->word = i;
        at[i]->tag = 1;
    }
    assert_true(w.unkept);
    for (unsigned i = 0; i < 100000; i++) { /* no two are the same, and each stays where it was */
        assert_ptr_equal(words_at(&w, slots[i]), at[i]);
        assert_int_equal(at[i]->word, i);
    }
    size_t room = w.room;
    words_give(&w, slots[7]);
    assert_int_equal(at[7]->tag, 0);
    assert_int_equal(w.room, room + 1);
    assert_int_equal(words_take(&w), slots[7]);
    assert_int_equal(w.room, room);
    words_fini(&w);
}

/* The pool's calls come here: see the Makefile. */
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t n, size_t size);
void *__real_malloc(size_t size);
void *__real_calloc(size_t n, size_t size);

static size_t largest; /* of the blocks asked for */
static bool no_memory;

static bool look_at(size_t size)
{
    largest = size > largest ? size : largest;
    return !no_memory;
}

void *__wrap_malloc(size_t size)
{
    return look_at(size) ? __real_malloc(size) : NULL;
}

void *__wrap_calloc(size_t n, size_t size)
{
    return look_at(n * size) ? __real_calloc(n, size) : NULL;
}

/* However many are given back, no single one is more work than another: nothing is copied elsewhere. */
static void giving_many_back_is_no_pause(void **state)
{
    enum { N = 100000 };
    static uint32_t slots[N];
    static bool again[5 * N];
    struct words w;
    (void)state;
    words_init(&w, &key);
    for (unsigned i = 0; i < N; i++)
        slots[i] = words_take(&w);
    size_t room = w.room;
    largest = 0;
    for (unsigned i = 0; i < N; i++)
        words_give(&w, slots[i]);
    assert_in_range(largest, 1, 4096);
    assert_int_equal(w.room, room + N);
    for (unsigned i = 0; i < N; i++) {
        uint32_t slot = words_take(&w);
        assert_in_range(slot, WORDS_CHUNK, 5 * N - 1);
        assert_false(again[slot]);
        again[slot] = true;
    }
    assert_int_equal(w.room, room);
    words_fini(&w);
}

/* One that cannot be remembered is lost, and no other. */
static void giving_back_without_memory(void **state)
{
    struct words w;
    (void)state;
    words_init(&w, &key);
    uint32_t first = words_take(&w), second = words_take(&w);
    size_t room = w.room;
    no_memory = true;
    words_give(&w, first);
    no_memory = false;
    assert_int_equal(words_at(&w, first)->tag, 0);
    assert_int_equal(w.room, room);
    words_give(&w, second);
    assert_int_equal(w.room, room + 1);
    assert_int_equal(words_take(&w), second);
    assert_int_not_equal(words_take(&w), first);
    words_fini(&w);
}

static void added_slots_come_first(void **state)
{
    struct word_slot own[4] = {{0, 0}};
    struct words w;
    (void)state;
    words_init(&w, &key);
    assert_true(words_add(&w, own, 4));
    for (unsigned i = 0; i < 4; i++) {
        struct word_slot *s = words_at(&w, words_take(&w));
        assert_true(s >= own && s < own + 4);
    }
    assert_false(w.unkept);
    assert_true(words_take(&w) > 0);
    assert_true(w.unkept);
    words_fini(&w);
}

/* What a file holds comes before what is left of our own memory, which still is taken behind it. */
static void slots_added_later_come_first(void **state)
{
    static struct word_slot more[WORDS_CHUNK];
    struct words w;
    (void)state;
    words_init(&w, &key);
    uint32_t first = words_take(&w);
    size_t left = w.room;
    assert_true(left > 0);
    assert_true(words_add(&w, more, WORDS_CHUNK));
    for (size_t i = 0; i < WORDS_CHUNK; i++) {
        struct word_slot *s = words_at(&w, words_take(&w));
        assert_true(s >= more && s < more + WORDS_CHUNK);
        assert_int_equal(s->tag, 0);
        s->tag = 1;
    }
    for (; left > 0; left--) {
        uint32_t slot = words_take(&w);
        assert_true(slot > 0 && slot != first);
        assert_true(words_at(&w, slot) < more || words_at(&w, slot) >= more + WORDS_CHUNK);
    }
    assert_int_equal(w.room, 0);
    words_fini(&w);
}

/* Where the numbers end: nothing is added, and what there is stays. */
static void more_slots_than_numbers_are_refused(void **state)
{
    static struct word_slot one;
    struct words w;
    (void)state;
    words_init(&w, &key);
    for (uint32_t i = 0; i < WORDS_CHUNKS; i++)
        if (!words_add(&w, &one, 1))
            fail();
    assert_false(words_add(&w, &one, 1));
    assert_int_equal(w.room, WORDS_CHUNKS);
    for (uint32_t i = 0; i < WORDS_CHUNKS; i++)
        if (words_at(&w, words_take(&w)) != &one)
            fail();
    assert_int_equal(words_take(&w), 0);
    words_fini(&w);
}

static bool give_more(void *arg)
{
    static struct word_slot more[2];
    struct words *w = arg;
    w->extend = NULL;
    return words_add(w, more, 2);
}

static void an_empty_pool_asks_first(void **state)
{
    struct words w;
    (void)state;
    words_init(&w, &key);
    w.extend = give_more;
    w.extend_arg = &w;
    assert_true(words_take(&w) > 0);
    assert_false(w.unkept);
    words_fini(&w);
}

/* ---- what was left ---- */

static void tags_tell_clients_and_settings_apart(void **state)
{
    struct bucket_policy a = policy(10, 1), b = policy(10, 2), c = policy(11, 1);
    struct hash_key other = {1, 3};
    (void)state;
    uint64_t tag = words_tag(&key, STR("x"), &a);
    assert_int_equal(tag, words_tag(&key, STR("x"), &a));
    assert_int_not_equal(tag, words_tag(&key, STR("y"), &a));
    assert_int_not_equal(tag, words_tag(&key, STR("x"), &b));
    assert_int_not_equal(tag, words_tag(&key, STR("x"), &c));
    assert_int_not_equal(tag, words_tag(&other, STR("x"), &a));
}

/* A word is carried to another time line without a token more, and hardly one less, and is found by its settings. */
static void words_are_found_again(void **state)
{
    struct bucket_policy p = policy(10, 0.3), q = policy(10, 0.4);
    struct past_words past = {.key = key};
    struct word_slot *slots = calloc(3, sizeof *slots);
    uint64_t then = 77 * NS_PER_S, now = 5 * NS_PER_S, word;
    (void)state;
    assert_non_null(slots);
    for (unsigned i = 0; i < 3; i++) { /* a free one, and two of the same client: the emptier counts */
        slots[i].word = bucket_word(&p, i == 1 ? 2.5 : 4, then);
        slots[i].tag = i == 0 ? 0 : words_tag(&key, STR("x"), &p);
    }
    past_words_init(&past, slots, 3);
    assert_int_equal(past.n, 2);
    assert_true(past_words_find(&past, STR("x"), &p, then, now, &word));
    double tokens = bucket_tokens(&p, word, now);
    assert_true(tokens <= 2.5 && tokens > 2.499999);
    assert_true(past_words_find(&past, STR("x"), &p, then + 10 * NS_PER_S, now, &word));
    tokens = bucket_tokens(&p, word, now);
    assert_true(tokens <= 5.5 && tokens > 5.499999);
    assert_true(past_words_find(&past, STR("x"), &p, then + 100 * NS_PER_S, now, &word));
    assert_int_equal(word, 0); /* full */
    assert_false(past_words_find(&past, STR("x"), &q, then, now, &word));
    assert_false(past_words_find(&past, STR("y"), &p, then, now, &word));
    assert_false(past_words_find(NULL, STR("x"), &p, then, now, &word));
    past_words_fini(&past);
}

/* One that no bucket can have had is not found, for it may say that its bucket fills in years. */
static void damaged_words_are_not_found(void **state)
{
    struct bucket_policy p = policy(10, 0.3);
    struct past_words past = {.key = key};
    struct word_slot *slots = calloc(3, sizeof *slots);
    uint64_t then = 77 * NS_PER_S, now = 5 * NS_PER_S, word = 17;
    (void)state;
    assert_non_null(slots);
    slots[0] = (struct word_slot){words_tag(&key, STR("x"), &p), bucket_word(&p, 4, then) | UINT64_C(1) << 60};
    slots[1] = (struct word_slot){words_tag(&key, STR("y"), &p), bucket_word(&p, 3, then) | UINT64_C(1) << 60};
    slots[2] = (struct word_slot){words_tag(&key, STR("y"), &p), bucket_word(&p, 0, then) + 1};
    past_words_init(&past, slots, 3);
    assert_false(past_words_find(&past, STR("z"), &p, then, now, &word));
    assert_false(past.damaged);
    assert_false(past_words_find(&past, STR("x"), &p, then, now, &word));
    assert_true(past.damaged);
    assert_int_equal(word, 17);
    assert_true(past_words_find(&past, STR("y"), &p, then, now, &word)); /* the other one */
    double tokens = bucket_tokens(&p, word, now);
    assert_true(tokens <= 0 && tokens > -1e-6);
    past_words_fini(&past);
}

/* Whatever the two clocks were rounded to: never a token more. */
static void carrying_gives_nothing(void **state)
{
    uint64_t seed = 1;
    (void)state;
    for (unsigned i = 0; i < 200000; i++) {
        seed = seed * UINT64_C(6364136223846793005) + 1442695040888963407;
        struct bucket_policy p = policy(1 + (double)(seed >> 60), 1e-3 + (double)(seed % 1000) / 7);
        uint64_t then = (seed >> 8) % (1000 * NS_PER_S), now = (seed >> 20) % (1000 * NS_PER_S);
        uint64_t word = bucket_clock(&p, then) + (seed >> 16) % (UINT64_C(1) << (p.frac < 62 ? p.frac : 61));
        uint64_t carried = bucket_carried(&p, word, then, now);
        for (uint64_t later = 0; later < NS_PER_S; later += NS_PER_S / 3)
            assert_true(bucket_tokens(&p, carried, now + later) <= bucket_tokens(&p, word, then + later));
    }
}

/* ---- the file ---- */

static void begin(struct words_file *f, struct words *w, uint64_t zero)
{
    struct word_slot *slots;
    size_t n;
    assert_true(words_file_init(f, clients));
    words_init(w, &key);
    assert_int_equal(words_file_begin(f, &w->key, zero, &slots, &n), 0);
    assert_true(words_add(w, slots, n));
}

static void end(struct words_file *f, struct words *w)
{
    words_fini(w);
    words_file_fini(f);
}

static void a_file_outlives_its_process(void **state)
{
    struct bucket_policy p = policy(10, 1);
    struct words_file f;
    struct words w;
    struct past_words past;
    uint64_t word;
    int error;
    (void)state;
    begin(&f, &w, 1000);
    uint32_t a = words_take(&w), b = words_take(&w);
    words_set(&w, a, STR("a"), &p, bucket_word(&p, 3, 5 * NS_PER_S));
    words_set(&w, b, STR("b"), &p, bucket_word(&p, 4, 5 * NS_PER_S));
    words_give(&w, b);
    assert_int_equal(words_file_read(&f, NS_PER_S, &past, &error), WORDS_NONE); /* it does not count yet */
    assert_int_equal(words_file_install(&f, 42), 0);
    words_file_note(&f, 41, false);
    words_file_note(&f, 42, true);
    words_file_note(&f, 43, false);
    words_file_note(&f, 44, false);
    assert_true(
        bucket_take(&p, &words_at(&w, a)->word, 5 * NS_PER_S)); /* after it was installed, and without another word */
    end(&f, &w);

    assert_true(words_file_init(&f, clients));
    assert_int_equal(words_file_read(&f, NS_PER_S, &past, &error), WORDS_FOUND);
    assert_int_equal(past.zero, 1000);
    for (unsigned i = 0; i < WORDS_SNAPSHOTS; i++)
        assert_int_equal(past.snapshots[i], i == 1 ? 44 : i == 2 ? 43 : 42);
    assert_true(past_words_find(&past, STR("a"), &p, 5 * NS_PER_S, 9 * NS_PER_S, &word));
    double tokens = bucket_tokens(&p, word, 9 * NS_PER_S);
    assert_true(tokens <= 2 && tokens > 1.999999);
    assert_false(past_words_find(&past, STR("b"), &p, 5 * NS_PER_S, 9 * NS_PER_S, &word));
    past_words_fini(&past);
    assert_int_equal(words_file_remove(&f), 0);
    assert_int_equal(words_file_read(&f, NS_PER_S, &past, &error), WORDS_NONE);
    words_file_fini(&f);
}

static void what_is_not_installed_goes(void **state)
{
    struct words_file f;
    struct words w;
    struct stat st;
    (void)state;
    begin(&f, &w, 0);
    assert_int_equal(stat(temp, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0640);
    end(&f, &w);
    assert_int_equal(stat(temp, &st), -1);
}

static void a_file_grows(void **state)
{
    struct bucket_policy p = policy(10, 1);
    struct words_file f;
    struct words w;
    struct past_words past;
    uint64_t word;
    int error;
    (void)state;
    begin(&f, &w, 0);
    for (unsigned i = 0; i < 20000; i++) {
        char id[16];
        struct word_slot *slots;
        size_t n;
        if (w.room == 0) {
            assert_int_equal(words_file_extend(&f, &slots, &n), 0);
            assert_true(words_add(&w, slots, n));
        }
        snprintf(id, sizeof id, "c%u", i);
        words_set(&w, words_take(&w), str_of(id), &p, bucket_word(&p, i % 9, 0));
    }
    assert_false(w.unkept);
    assert_int_equal(words_file_install(&f, 0), 0);
    end(&f, &w);
    assert_true(words_file_init(&f, clients));
    assert_int_equal(words_file_read(&f, NS_PER_S, &past, &error), WORDS_FOUND);
    assert_int_equal(past.n, 20000);
    for (unsigned i = 0; i < 20000; i++) {
        char id[16];
        snprintf(id, sizeof id, "c%u", i);
        assert_true(past_words_find(&past, str_of(id), &p, 0, 0, &word));
        assert_true(bucket_tokens(&p, word, 0) <= i % 9 && bucket_tokens(&p, word, 0) > i % 9 - 1e-6);
    }
    past_words_fini(&past);
    words_file_fini(&f);
}

static enum words_fate fate_of(void (*spoil)(char *p, size_t *n))
{
    static char all[2 * WORDS_PIECE];
    struct words_file f;
    struct words w;
    struct past_words past;
    int error;
    begin(&f, &w, 5);
    assert_int_equal(words_file_install(&f, 0), 0);
    end(&f, &w);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    size_t n = fread(all, 1, sizeof all, file);
    fclose(file);
    assert_int_equal(n, WORDS_PIECE);
    spoil(all, &n);
    file = fopen(path, "w");
    assert_non_null(file);
    assert_int_equal(fwrite(all, 1, n, file), n);
    fclose(file);
    assert_true(words_file_init(&f, clients));
    enum words_fate fate = words_file_read(&f, 5, &past, &error);
    if (fate == WORDS_FOUND)
        past_words_fini(&past);
    words_file_fini(&f);
    return fate;
}

static void as_it_is(char *p, size_t *n)
{
    (void)p;
    (void)n;
}

static void empty_it(char *p, size_t *n)
{
    (void)p;
    *n = 0;
}

static void cut_it(char *p, size_t *n)
{
    (void)p;
    *n -= 512;
}

static void zero_it(char *p, size_t *n)
{
    memset(p, 0, *n);
}

static void change_the_key(char *p, size_t *n)
{
    (void)n;
    p[offsetof(struct words_header, key)] ^= 1;
}

/* Another boot's, in all order. */
static void change_the_boot(char *p, size_t *n)
{
    struct words_header h;
    (void)n;
    memcpy(&h, p, sizeof h);
    h.boot++;
    h.sum = hash_siphash24(&h.key, &h, offsetof(struct words_header, sum));
    memcpy(p, &h, sizeof h);
}

static void come_from_the_future(char *p, size_t *n)
{
    struct words_header h;
    (void)n;
    memcpy(&h, p, sizeof h);
    h.zero = 6;
    h.sum = hash_siphash24(&h.key, &h, offsetof(struct words_header, sum));
    memcpy(p, &h, sizeof h);
}

static void what_does_not_fit_is_ignored(void **state)
{
    (void)state;
    assert_int_equal(fate_of(as_it_is), WORDS_FOUND);
    assert_int_equal(fate_of(empty_it), WORDS_DAMAGED);
    assert_int_equal(fate_of(cut_it), WORDS_DAMAGED);
    assert_int_equal(fate_of(zero_it), WORDS_DAMAGED);
    assert_int_equal(fate_of(change_the_key), WORDS_DAMAGED);
    assert_int_equal(fate_of(change_the_boot), WORDS_OTHER_BOOT);
    assert_int_equal(fate_of(come_from_the_future), WORDS_OTHER_BOOT);
}

static void an_unreadable_file_says_so(void **state)
{
    struct words_file f;
    struct past_words past;
    int error;
    (void)state;
    assert_int_equal(mkdir(path, 0700), 0);
    assert_true(words_file_init(&f, clients));
    assert_int_equal(words_file_read(&f, 0, &past, &error), WORDS_UNREADABLE);
    assert_int_equal(error, -EISDIR);
    words_file_fini(&f);
    assert_int_equal(rmdir(path), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(slots_are_taken_and_given),
        cmocka_unit_test(giving_many_back_is_no_pause),
        cmocka_unit_test(giving_back_without_memory),
        cmocka_unit_test(added_slots_come_first),
        cmocka_unit_test(slots_added_later_come_first),
        cmocka_unit_test(more_slots_than_numbers_are_refused),
        cmocka_unit_test(an_empty_pool_asks_first),
        cmocka_unit_test(tags_tell_clients_and_settings_apart),
        cmocka_unit_test(words_are_found_again),
        cmocka_unit_test(damaged_words_are_not_found),
        cmocka_unit_test(carrying_gives_nothing),
        cmocka_unit_test_setup_teardown(a_file_outlives_its_process, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(what_is_not_installed_goes, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(a_file_grows, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(what_does_not_fit_is_ignored, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(an_unreadable_file_says_so, make_folder, remove_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
