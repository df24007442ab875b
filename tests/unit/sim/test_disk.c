/* Unit tests of the simulated disk: what a power cut may leave and what not, over many seeds, so that each outcome is
 * seen to happen; and the calls as processes see them. */
#include "disk.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define SEEDS 400u
#define BIG   4096u

static void begin(uint64_t seed)
{
    disk_begin((struct rng){seed});
}

static struct inode *open_file(const char *path, int flags)
{
    int error = 0;
    struct inode *f = disk_open(path, flags, 0640, &error);
    assert_non_null(f);
    assert_int_equal(error, 0);
    return f;
}

static int open_error(const char *path, int flags)
{
    int error = 0;
    assert_null(disk_open(path, flags, 0640, &error));
    return error;
}

/* `n` times the byte `c`. */
static void fill(struct inode *f, uint64_t offset, char c, size_t n)
{
    char text[BIG];
    assert_true(n <= sizeof text);
    memset(text, c, n);
    assert_int_equal(disk_write(f, offset, text, n), n);
}

static void put(const char *path, char c, size_t n)
{
    char text[BIG];
    assert_true(n <= sizeof text);
    memset(text, c, n);
    disk_put(path, text, n);
}

static void sync_folder(const char *path)
{
    struct inode *f = open_file(path, O_RDONLY | O_DIRECTORY);
    assert_int_equal(disk_sync(f, false), 0);
    disk_release(f);
}

/* A new file, or an old one written from its begin. */
static void write_file(const char *path, char c, size_t n, bool sync)
{
    struct inode *f = open_file(path, O_RDWR | O_CREAT);
    fill(f, 0, c, n);
    if (sync)
        assert_int_equal(disk_sync(f, false), 0);
    disk_release(f);
}

/* How many bytes from `at` on are `c`, up to `end`. */
static size_t run_of(const struct bytes *b, size_t at, size_t end, char c)
{
    size_t n = 0;
    while (at + n < end && at + n < b->len && bytes_at(b)[at + n] == c)
        n++;
    return n;
}

static bool is_all(const char *path, char c, size_t n)
{
    struct bytes b = {0};
    assert_true(disk_get(path, &b));
    bool all = b.len == n && run_of(&b, 0, n, c) == n;
    bytes_free(&b);
    return all;
}

static uint64_t size_of(const char *path)
{
    struct stat st;
    assert_int_equal(disk_stat(path, &st), 0);
    return (uint64_t)st.st_size;
}

/* ---- power cuts ---- */

static void what_is_synced_survives(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        begin(seed);
        disk_make_folder("data");
        write_file("data/a", 'a', 1500, true);
        sync_folder("data");
        write_file("data/b", 'b', 1500, false);
        disk_power_cut();
        assert_true(is_all("data/a", 'a', 1500));
        write_file("data/a", 'c', 1500, true); /* the name is on the platter already */
        disk_power_cut();
        disk_power_cut();
        assert_true(is_all("/data/a", 'c', 1500));
        disk_end();
    }
}

static void names_without_a_sync_may_go(void **state)
{
    unsigned gone = 0, empty = 0, whole = 0, other = 0;
    (void)state;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        begin(seed);
        write_file("a", 'a', 1500, false);
        disk_power_cut();
        if (!disk_exists("a"))
            gone++;
        else if (size_of("a") == 0)
            empty++;
        else if (is_all("a", 'a', 1500))
            whole++;
        else
            other++;
        disk_end();
    }
    assert_true(gone > 0 && empty > 0 && whole > 0 && other > 0);
}

/* The fsync of a file says nothing of its name. */
static void a_synced_file_may_lose_its_name(void **state)
{
    unsigned gone = 0, whole = 0;
    (void)state;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        begin(seed);
        write_file("a", 'a', 1500, true);
        disk_power_cut();
        if (!disk_exists("a")) {
            gone++;
        } else {
            assert_true(is_all("a", 'a', 1500));
            whole++;
        }
        disk_end();
    }
    assert_true(gone > 0 && whole > 0);
}

/* Each block is old, new, or new up to a point and old from there. */
static void blocks_are_old_new_or_torn(void **state)
{
    enum { BLOCKS = 8, SIZE = BLOCKS * DISK_BLOCK };
    unsigned old[BLOCKS] = {0}, new[BLOCKS] = {0}, torn[BLOCKS] = {0}, all_old = 0, all_new = 0;
    (void)state;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        struct bytes b = {0};
        begin(seed);
        put("a", 'o', SIZE);
        write_file("a", 'n', SIZE, false);
        disk_power_cut();
        assert_true(disk_get("a", &b));
        assert_int_equal(b.len, SIZE);
        for (unsigned i = 0; i < BLOCKS; i++) {
            size_t at = i * DISK_BLOCK, end = at + DISK_BLOCK, n = run_of(&b, at, end, 'n');
            assert_int_equal(n + run_of(&b, at + n, end, 'o'), DISK_BLOCK);
            (n == 0 ? old : n == DISK_BLOCK ? new : torn)[i]++;
        }
        all_old += is_all("a", 'o', SIZE);
        all_new += is_all("a", 'n', SIZE);
        bytes_free(&b);
        disk_end();
    }
    for (unsigned i = 0; i < BLOCKS; i++)
        assert_true(old[i] > 0 && new[i] > 0 && torn[i] > 0);
    assert_true(all_old > 0 && all_new > 0);
}

static void only_dirty_blocks_change(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        struct bytes b = {0};
        begin(seed);
        put("a", 'o', 4 * DISK_BLOCK);
        struct inode *f = open_file("a", O_WRONLY);
        fill(f, DISK_BLOCK + 100, 'n', DISK_BLOCK); /* in the second and the third */
        disk_release(f);
        disk_power_cut();
        assert_true(disk_get("a", &b));
        assert_int_equal(b.len, 4 * DISK_BLOCK);
        assert_int_equal(run_of(&b, 0, b.len, 'o') >= DISK_BLOCK + 100, true);
        assert_int_equal(run_of(&b, 2 * DISK_BLOCK + 100, b.len, 'o'), 2 * DISK_BLOCK - 100);
        bytes_free(&b);
        disk_end();
    }
}

struct sizes {
    unsigned old, new, between;
};

static void count_size(struct sizes *seen, uint64_t size, uint64_t old, uint64_t new)
{
    uint64_t low = old < new ? old : new, high = old < new ? new : old;
    assert_in_range(size, low, high);
    seen->old += size == old;
    seen->new += size == new;
    seen->between += size != old && size != new;
}

static void sizes_in_between_when_it_grew(void **state)
{
    struct sizes seen = {0};
    (void)state;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        struct bytes b = {0};
        begin(seed);
        put("a", 'o', 1000);
        struct inode *f = open_file("a", O_WRONLY);
        fill(f, 1000, 'n', 2000);
        disk_release(f);
        disk_power_cut();
        assert_true(disk_get("a", &b));
        count_size(&seen, b.len, 1000, 3000);
        assert_int_equal(run_of(&b, 0, 1000, 'o'), 1000);
        for (size_t i = 1000; i < b.len; i++)
            assert_true(bytes_at(&b)[i] == 'n' || bytes_at(&b)[i] == '\0');
        bytes_free(&b);
        disk_end();
    }
    assert_true(seen.old > 0 && seen.new > 0 && seen.between > 0);
}

static void sizes_in_between_when_it_shrank(void **state)
{
    struct sizes seen = {0};
    (void)state;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        begin(seed);
        put("a", 'o', 3000);
        struct inode *f = open_file("a", O_WRONLY);
        assert_int_equal(disk_truncate(f, 1000), 0);
        disk_release(f);
        disk_power_cut();
        uint64_t size = size_of("a");
        count_size(&seen, size, 3000, 1000);
        assert_true(is_all("a", 'o', size));
        disk_end();
    }
    assert_true(seen.old > 0 && seen.new > 0 && seen.between > 0);
}

/* The size is the same before and after, but not meanwhile: the file may be found empty. */
static void a_file_cut_and_rewritten_may_be_empty(void **state)
{
    unsigned empty = 0, between = 0, new = 0, old = 0;
    (void)state;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        begin(seed);
        put("a", 'o', 1000);
        struct inode *f = open_file("a", O_WRONLY | O_TRUNC);
        fill(f, 0, 'n', 1000);
        disk_release(f);
        disk_power_cut();
        uint64_t size = size_of("a");
        assert_true(size <= 1000);
        empty += size == 0;
        between += size > 0 && size < 1000;
        new += is_all("a", 'n', 1000);
        old += is_all("a", 'o', 1000);
        disk_end();
    }
    assert_true(empty > 0 && between > 0 && new > 0 && old > 0);
}

/* Blocks behind the new end are not written any more, so with the old size the old content is back. */
static void what_is_cut_off_is_as_before(void **state)
{
    unsigned back = 0;
    (void)state;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        struct bytes b = {0};
        begin(seed);
        put("a", 'o', 3000);
        struct inode *f = open_file("a", O_WRONLY);
        fill(f, 0, 'n', 3000);
        assert_int_equal(disk_truncate(f, 1000), 0);
        disk_release(f);
        disk_power_cut();
        assert_true(disk_get("a", &b));
        for (size_t i = 2 * DISK_BLOCK; i < b.len; i++)
            assert_int_equal(bytes_at(&b)[i], 'o');
        back += b.len == 3000;
        bytes_free(&b);
        disk_end();
    }
    assert_true(back > 0);
}

/* What was cut off never comes back once that is synced. */
static void what_is_cut_off_stays_off(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        struct bytes b = {0};
        begin(seed);
        put("a", 'o', 3000);
        struct inode *f = open_file("a", O_WRONLY);
        assert_int_equal(disk_truncate(f, 100), 0);
        assert_int_equal(disk_sync(f, seed % 2 == 0), seed % 2 == 0 ? -EIO : 0);
        assert_int_equal(disk_truncate(f, 3000), 0);
        assert_int_equal(disk_sync(f, false), 0);
        disk_release(f);
        disk_power_cut();
        assert_true(disk_get("a", &b));
        assert_int_equal(b.len, 3000);
        assert_int_equal(run_of(&b, 0, b.len, 'o'), 100);
        assert_int_equal(run_of(&b, 100, b.len, '\0'), 2900);
        bytes_free(&b);
        disk_end();
    }
}

static void a_kill_loses_nothing(void **state)
{
    (void)state;
    begin(1);
    put("b", 'o', 100);
    struct inode *f = open_file("a", O_RDWR | O_CREAT | O_EXCL);
    fill(f, 0, 'a', 1500);
    disk_release(f);
    assert_int_equal(disk_rename("a", "b"), 0);
    assert_false(disk_exists("a"));
    assert_true(is_all("b", 'a', 1500));
    write_file("c", 'c', 10, false);
    assert_int_equal(disk_unlink("c"), 0);
    assert_false(disk_exists("c"));
    disk_end();
}

/* ---- names ---- */

static void a_rename_is_atomic(void **state)
{
    unsigned old = 0, new = 0, temp = 0;
    (void)state;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        begin(seed);
        put("data/a", 'o', 1500);
        write_file("data/a.tmp", 'n', 1200, true);
        assert_int_equal(disk_rename("data/a.tmp", "data/a"), 0);
        disk_power_cut();
        if (is_all("data/a", 'n', 1200)) {
            assert_false(disk_exists("data/a.tmp"));
            new ++;
        } else {
            assert_true(is_all("data/a", 'o', 1500));
            temp += disk_exists("data/a.tmp");
            old++;
        }
        disk_end();
    }
    assert_true(old > temp && new > 0 && temp > 0);
}

static void a_rename_and_a_sync_of_the_folder_last(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        begin(seed);
        put("data/a", 'o', 1500);
        write_file("data/a.tmp", 'n', 1200, true);
        assert_int_equal(disk_rename("data/a.tmp", "data/a"), 0);
        sync_folder("data");
        disk_power_cut();
        assert_true(is_all("data/a", 'n', 1200));
        assert_false(disk_exists("data/a.tmp"));
        disk_end();
    }
}

/* The classic mistake: the name is there, the content is not. */
static void a_rename_without_a_sync_of_the_file_may_tear_it(void **state)
{
    unsigned whole = 0, torn = 0;
    (void)state;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        begin(seed);
        put("a", 'o', 1500);
        write_file("a.tmp", 'n', 1200, false);
        assert_int_equal(disk_rename("a.tmp", "a"), 0);
        sync_folder(".");
        disk_power_cut();
        assert_false(is_all("a", 'o', 1500));
        bool is_whole = is_all("a", 'n', 1200);
        whole += is_whole;
        torn += !is_whole;
        disk_end();
    }
    assert_true(whole > 0 && torn > 0);
}

/* Names are lost from the last one on, never one amid others. */
static void names_are_those_after_a_prefix(void **state)
{
    unsigned seen[6] = {0};
    (void)state;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        char path[] = "0";
        unsigned n = 0;
        begin(seed);
        for (; path[0] < '5'; path[0]++)
            write_file(path, 'a', 1, true);
        disk_power_cut();
        for (path[0] = '0'; path[0] < '5' && disk_exists(path); path[0]++)
            n++;
        for (; path[0] < '5'; path[0]++)
            assert_false(disk_exists(path));
        seen[n]++;
        disk_end();
    }
    for (unsigned i = 0; i < 6; i++)
        assert_true(seen[i] > 0);
}

static void an_unlink_without_a_sync_may_be_undone(void **state)
{
    unsigned back = 0, gone = 0;
    (void)state;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        begin(seed);
        put("a", 'a', 700);
        assert_int_equal(disk_unlink("a"), 0);
        disk_power_cut();
        if (disk_exists("a")) {
            assert_true(is_all("a", 'a', 700));
            back++;
        } else {
            gone++;
        }
        disk_end();
    }
    assert_true(back > 0 && gone > 0);
}

static void a_failing_sync_of_a_folder_leaves_its_names_pending(void **state)
{
    unsigned gone = 0;
    (void)state;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        begin(seed);
        write_file("a", 'a', 700, true);
        struct inode *folder = open_file("/", O_RDONLY);
        assert_int_equal(disk_sync(folder, true), -EIO);
        if (seed % 2 == 0)
            assert_int_equal(disk_sync(folder, false), 0);
        disk_release(folder);
        disk_power_cut();
        assert_true(disk_exists("a") || seed % 2 == 1);
        gone += !disk_exists("a");
        disk_end();
    }
    assert_true(gone > 0);
}

/* ---- syncs that fail ---- */

static void a_good_sync_does_not_mend_a_failed_one(void **state)
{
    unsigned lost = 0, kept = 0, mixed = 0;
    (void)state;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        begin(seed);
        put("a", 'o', 2 * DISK_BLOCK);
        struct inode *f = open_file("a", O_WRONLY);
        fill(f, 0, 'n', 2 * DISK_BLOCK);
        assert_int_equal(disk_sync(f, true), -EIO);
        assert_true(is_all("a", 'n', 2 * DISK_BLOCK)); /* as processes see it */
        assert_int_equal(disk_sync(f, false), 0);
        disk_release(f);
        disk_power_cut();
        bool is_old = is_all("a", 'o', 2 * DISK_BLOCK), is_new = is_all("a", 'n', 2 * DISK_BLOCK);
        lost += is_old;
        kept += is_new;
        mixed += !is_old && !is_new;
        disk_end();
    }
    assert_true(lost > 0 && kept > 0 && mixed > 0);
}

static void what_is_written_anew_is_durable(void **state)
{
    unsigned lost = 0;
    (void)state;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        struct bytes b = {0};
        begin(seed);
        put("a", 'o', 2 * DISK_BLOCK);
        struct inode *f = open_file("a", O_WRONLY);
        fill(f, 0, 'n', 2 * DISK_BLOCK);
        assert_int_equal(disk_sync(f, true), -EIO);
        fill(f, DISK_BLOCK + 7, 'N', 1); /* the second block, and nothing of the first */
        assert_int_equal(disk_sync(f, false), 0);
        disk_release(f);
        disk_power_cut();
        assert_true(disk_get("a", &b));
        lost += run_of(&b, 0, DISK_BLOCK, 'o') == DISK_BLOCK;
        assert_int_equal(run_of(&b, DISK_BLOCK, b.len, 'n'), 7);
        assert_int_equal(bytes_at(&b)[DISK_BLOCK + 7], 'N');
        assert_int_equal(run_of(&b, DISK_BLOCK + 8, b.len, 'n'), DISK_BLOCK - 8);
        bytes_free(&b);
        disk_end();
    }
    assert_true(lost > 0);
}

static void a_size_that_failed_goes_with_the_last_bytes(void **state)
{
    unsigned lost = 0, kept = 0;
    (void)state;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        begin(seed);
        put("a", 'a', 10);
        struct inode *f = open_file("a", O_WRONLY);
        fill(f, 10, 'a', 10);
        assert_int_equal(disk_sync(f, true), -EIO);
        /* Dirty again, up to the end or not. */
        fill(f, 0, 'a', seed % 2 == 0 ? 20 : 19);
        assert_int_equal(disk_sync(f, false), 0);
        disk_release(f);
        disk_power_cut();
        uint64_t size = size_of("a");
        assert_true(is_all("a", 'a', size));
        assert_true(seed % 2 == 0 ? size == 20 : size == 10 || size == 20);
        lost += size == 10;
        kept += seed % 2 != 0 && size == 20;
        disk_end();
    }
    assert_true(lost > 0 && kept > 0);
}

/* ---- writeback ---- */

static void write_back(unsigned times)
{
    while (times-- > 0)
        (void)disk_writeback();
}

static void what_was_written_over_may_be_what_is_left(void **state)
{
    unsigned old = 0, between = 0, new = 0;
    (void)state;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        begin(seed);
        put("a", 'o', DISK_BLOCK);
        struct inode *f = open_file("a", O_WRONLY);
        fill(f, 0, 'm', DISK_BLOCK);
        write_back(3);
        fill(f, 0, 'n', DISK_BLOCK);
        disk_release(f);
        disk_power_cut();
        old += is_all("a", 'o', DISK_BLOCK);
        between += is_all("a", 'm', DISK_BLOCK);
        new += is_all("a", 'n', DISK_BLOCK);
        disk_end();
    }
    assert_true(old > 0 && between > 0 && new > 0);
}

static void a_size_of_a_while_ago_may_be_what_is_left(void **state)
{
    unsigned empty = 0, kept = 0;
    (void)state;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        begin(seed);
        put("a", 'o', 1000);
        struct inode *f = open_file("a", O_WRONLY | O_TRUNC);
        write_back(3);
        fill(f, 0, 'n', 1000);
        assert_int_equal(disk_sync(f, seed % 2 == 0), seed % 2 == 0 ? -EIO : 0);
        disk_release(f);
        disk_power_cut();
        empty += size_of("a") == 0;
        kept += is_all("a", 'n', 1000);
        assert_true(seed % 2 == 0 || is_all("a", 'n', 1000));
        disk_end();
    }
    assert_true(empty > 0 && kept >= SEEDS / 2);
}

static void names_may_reach_the_platter_unasked(void **state)
{
    unsigned renamed = 0;
    (void)state;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        begin(seed);
        write_file("a", 'a', 10, true);
        sync_folder("/");
        assert_int_equal(disk_rename("a", "b"), 0);
        write_back(40); /* by now it has */
        assert_int_equal(disk_rename("b", "c"), 0);
        disk_power_cut();
        assert_true(!disk_exists("a") && disk_exists("b") + disk_exists("c") == 1);
        renamed += disk_exists("c");
        disk_end();
    }
    assert_true(renamed > 0 && renamed < SEEDS);
}

/* ---- calls ---- */

static void locks(void **state)
{
    int a, b;
    (void)state;
    begin(1);
    struct inode *f = open_file("a", O_RDWR | O_CREAT);
    sync_folder("/");
    assert_true(disk_lock(f, &a));
    assert_true(disk_lock(f, &a));
    assert_false(disk_lock(f, &b));
    disk_unlock(f, &b);
    assert_false(disk_lock(f, &b));
    disk_unlock(f, &a);
    assert_true(disk_lock(f, &b));
    disk_release(f);
    disk_power_cut();
    f = open_file("a", O_RDWR);
    assert_true(disk_lock(f, &a));
    disk_release(f);
    disk_end();
}

static void a_full_disk(void **state)
{
    char text[64] = {0};
    (void)state;
    begin(1);
    put("a", 'a', 100);
    disk_set_room(150);
    struct inode *f = open_file("b", O_RDWR | O_CREAT);
    assert_int_equal(disk_write(f, 0, text, 64), 50);
    assert_int_equal(disk_write(f, 50, text, 1), -ENOSPC);
    assert_int_equal(disk_write(f, 90, text, 1), -ENOSPC);
    assert_int_equal(disk_size(f), 50);
    assert_int_equal(disk_write(f, 0, text, 50), 50); /* what is there needs no room */
    assert_int_equal(disk_write(f, 40, text, 64), 10);
    assert_int_equal(disk_truncate(f, 51), -ENOSPC);
    assert_int_equal(open_error("c", O_RDWR | O_CREAT), ENOSPC);
    disk_release(open_file("a", O_RDWR | O_CREAT)); /* not a new name */
    assert_int_equal(disk_truncate(f, 20), 0);
    assert_int_equal(disk_truncate(f, 50), 0);
    assert_int_equal(disk_unlink("a"), 0); /* gives its room back at once */
    assert_int_equal(disk_write(f, 50, text, 64), 64);
    assert_int_equal(disk_write(f, 140, text, 64), 10); /* the gap needs room, too */
    assert_int_equal(disk_unlink("b"), 0);
    assert_int_equal(open_error("c", O_RDWR | O_CREAT), ENOSPC); /* b is open yet */
    disk_release(f);
    disk_release(open_file("c", O_RDWR | O_CREAT));
    disk_set_room(0);
    assert_int_equal(open_error("d", O_RDWR | O_CREAT), ENOSPC);
    disk_set_room(UINT64_MAX);
    disk_release(open_file("d", O_RDWR | O_CREAT));
    disk_end();
}

static void mount_points(void **state)
{
    (void)state;
    begin(1);
    put("data/a", 'o', 10);
    disk_mount("/data/a");
    write_file("data/b", 'n', 10, false);
    assert_int_equal(disk_rename("data/b", "data/a"), -EBUSY);
    assert_int_equal(disk_rename("data/a", "data/b"), -EBUSY);
    assert_int_equal(disk_unlink("data/a"), -EBUSY);
    assert_true(is_all("data/a", 'o', 10) && is_all("data/b", 'n', 10));
    write_file("a", 'n', 10, false);
    assert_int_equal(disk_rename("a", "b"), 0); /* another folder */
    struct inode *f = open_file("data/a", O_RDONLY);
    uint64_t ino = disk_ino(f);
    put("data/a", 'p', 20);
    assert_int_equal(disk_size(f), 20);
    disk_release(f);
    f = open_file("data/a", O_RDONLY);
    assert_int_equal(disk_ino(f), ino);
    disk_release(f);
    disk_power_cut();
    write_file("data/b", 'n', 10, false);
    assert_int_equal(disk_rename("data/b", "data/a"), -EBUSY);
    disk_end();
}

static void errors_of_open(void **state)
{
    (void)state;
    begin(1);
    put("data/a", 'a', 10);
    assert_int_equal(open_error("b", O_RDWR), ENOENT);
    assert_int_equal(open_error("", O_RDWR | O_CREAT), ENOENT);
    assert_int_equal(open_error("none/b", O_RDWR | O_CREAT), ENOENT);
    assert_int_equal(open_error("data/a/b", O_RDWR | O_CREAT), ENOTDIR);
    assert_int_equal(open_error("data/a", O_RDWR | O_CREAT | O_EXCL), EEXIST);
    assert_int_equal(open_error("data", O_RDONLY | O_CREAT | O_EXCL), EEXIST);
    assert_int_equal(open_error("data", O_RDWR), EISDIR);
    assert_int_equal(open_error("data", O_WRONLY), EISDIR);
    assert_int_equal(open_error("data", O_RDONLY | O_CREAT), EISDIR);
    assert_int_equal(open_error("data/a", O_RDONLY | O_DIRECTORY), ENOTDIR);
    disk_release(open_file("b", O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY));
    disk_release(open_file("data", O_RDONLY | O_DIRECTORY));
    disk_release(open_file(".", O_RDONLY | O_DIRECTORY));
    assert_int_equal(size_of("data/a"), 10);
    disk_release(open_file("data/a", O_WRONLY | O_TRUNC));
    assert_int_equal(size_of("data/a"), 0);
    disk_end();
}

static void errors_of_names(void **state)
{
    struct stat st;
    char name[300];
    (void)state;
    memset(name, 'x', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    begin(1);
    put("data/a", 'a', 10);
    assert_int_equal(disk_unlink("none"), -ENOENT);
    assert_int_equal(disk_unlink("data"), -EISDIR);
    assert_int_equal(disk_unlink("/"), -EISDIR);
    assert_int_equal(disk_stat("none", &st), -ENOENT);
    assert_int_equal(disk_stat("data/a/b", &st), -ENOTDIR);
    assert_int_equal(disk_stat(name, &st), -ENAMETOOLONG);
    assert_int_equal(disk_rename("none", "data/a"), -ENOENT);
    assert_int_equal(disk_rename("data/a", "none/a"), -ENOENT);
    assert_int_equal(disk_rename("data/a", "a"), -EXDEV);
    assert_int_equal(disk_rename("data", "b"), -EISDIR);
    assert_int_equal(disk_rename("data/a", "data/a"), 0);
    assert_true(is_all("data/a", 'a', 10));
    disk_end();
}

static void a_file_without_a_name_lives_while_it_is_open(void **state)
{
    char text[8] = {0};
    struct stat st;
    (void)state;
    begin(1);
    struct inode *f = open_file("a", O_RDWR | O_CREAT);
    fill(f, 0, 'a', 5);
    disk_fstat(f, &st);
    assert_int_equal(st.st_nlink, 1);
    assert_int_equal(disk_unlink("a"), 0);
    sync_folder("/");
    write_file("a", 'b', 3, false);
    assert_int_equal(disk_read(f, 0, text, sizeof text), 5);
    assert_string_equal(text, "aaaaa");
    assert_int_equal(disk_read(f, 3, text, sizeof text), 2);
    assert_int_equal(disk_read(f, 5, text, sizeof text), 0);
    assert_int_equal(disk_read(f, 500, text, sizeof text), 0);
    disk_fstat(f, &st);
    assert_int_equal(st.st_nlink, 0);
    fill(f, 5, 'a', 5);
    assert_int_equal(disk_sync(f, false), 0);
    assert_int_equal(disk_size(f), 10);
    disk_release(f);
    assert_true(is_all("a", 'b', 3));
    disk_end();
}

static void what_stat_says(void **state)
{
    struct stat st;
    (void)state;
    begin(1);
    put("data/deep/a", 'a', 10);
    assert_int_equal(disk_stat("data/deep", &st), 0);
    assert_true(S_ISDIR(st.st_mode));
    struct inode *f = open_file("/data/deep/b", O_RDWR | O_CREAT);
    fill(f, 600, 'b', 2); /* a gap before it */
    disk_fstat(f, &st);
    assert_int_equal(st.st_mode, S_IFREG | 0640);
    assert_int_equal(st.st_size, 602);
    assert_int_equal(st.st_ino, disk_ino(f));
    disk_chmod(f, 0600);
    disk_release(f);
    assert_int_equal(disk_rename("data/deep/b", "data/deep/a"), 0);
    assert_int_equal(disk_stat("data/deep/a", &st), 0);
    assert_int_equal(st.st_mode, S_IFREG | 0600);
    struct bytes b = {0};
    assert_true(disk_get("data/deep/a", &b));
    assert_int_equal(run_of(&b, 0, b.len, '\0'), 600);
    bytes_free(&b);
    disk_end();
}

/* ---- for whoever runs the simulation ---- */

static void note(void *arg, const char *path)
{
    bytes_add_text(arg, "%s ", path);
}

static void put_replaces_at_once(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        begin(seed);
        put("data/a", 'a', 1000);
        struct inode *f = open_file("data/a", O_RDWR);
        fill(f, 0, 'b', 2000);
        disk_chmod(f, 0600);
        put("data/a", 'c', 500);
        assert_int_equal(disk_size(f), 2000); /* whoever has it open keeps what it was */
        disk_release(f);
        disk_power_cut();
        assert_true(is_all("data/a", 'c', 500));
        struct stat st;
        assert_int_equal(disk_stat("data/a", &st), 0);
        assert_int_equal(st.st_mode, S_IFREG | 0600);
        disk_end();
    }
}

static void put_makes_no_other_name_durable(void **state)
{
    unsigned lost = 0, kept = 0;
    (void)state;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        begin(seed);
        put("a", 'o', 10);
        write_file("b", 'b', 10, true);
        put("a", 'n', 10);
        disk_power_cut();
        assert_true(is_all("a", 'n', 10));
        lost += !disk_exists("b");
        kept += disk_exists("b");
        disk_end();
    }
    assert_true(lost > 0 && kept > 0);
}

static void put_outlasts_what_was_pending(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        begin(seed);
        write_file("a", 'o', 10, true);
        assert_int_equal(disk_rename("a", "b"), 0);
        write_file("c", 'c', 10, true);
        assert_int_equal(disk_rename("c", "a"), 0);
        assert_int_equal(disk_unlink("a"), 0);
        put("a", 'n', 10);
        if (seed % 2 == 0)
            sync_folder("/");
        disk_power_cut();
        assert_true(is_all("a", 'n', 10));
        assert_true(seed % 2 || (is_all("b", 'o', 10) && !disk_exists("c")));
        disk_end();
    }
}

static void each_file_once(void **state)
{
    struct bytes b = {0};
    (void)state;
    begin(1);
    put("config.json", 'a', 1);
    disk_put("data/deep/a", NULL, 0);
    disk_make_folder("data/empty");
    disk_make_folder("data/empty");
    put("z", 'a', 1);
    assert_int_equal(disk_unlink("z"), 0);
    disk_each(note, &b);
    bytes_add(&b, "", 1);
    assert_string_equal(bytes_at(&b), "/config.json /data/deep/a ");
    bytes_clear(&b);
    assert_true(disk_get("data/deep/a", &b));
    assert_int_equal(b.len, 0);
    assert_false(disk_get("data/deep", &b));
    assert_false(disk_get("none", &b));
    assert_true(disk_exists("data/empty") && disk_exists("/") && disk_exists(".") && !disk_exists("data/none"));
    bytes_free(&b);
    disk_end();
}

/* ---- anything, in any order ---- */

static void note_all(void *arg, const char *path)
{
    struct stat st;
    assert_int_equal(disk_stat(path, &st), 0);
    bytes_add_text(arg, "%s %o %llu ", path, st.st_mode, (unsigned long long)st.st_ino);
    assert_true(disk_get(path, arg));
}

/* What is written last is also kept in `model`, for one file that nothing else touches. */
static void random_step(struct rng *r, char model[BIG])
{
    static const char *const paths[] = {"a", "b", "c"};
    const char *path = paths[rng_below(r, 3)], *other = paths[rng_below(r, 3)];
    struct inode *f = open_file(path, O_RDWR | O_CREAT), *kept = open_file("kept", O_RDWR | O_CREAT);
    uint64_t at = rng_below(r, BIG), n = rng_below(r, BIG - at) + 1;
    char c = (char)rng_between(r, 'a', 'z');
    switch (rng_below(r, 8)) {
    case 0: fill(f, at, c, n); break;
    case 1: assert_int_equal(disk_truncate(f, at), 0); break;
    case 2: assert_int_equal(disk_sync(f, true), -EIO); break;
    case 3: assert_int_equal(disk_sync(f, false), 0); break;
    case 4: assert_int_equal(disk_rename(path, other), 0); break;
    case 5: assert_int_equal(disk_unlink(path), 0); break;
    case 6: (void)disk_writeback(); break;
    default: sync_folder("/"); break;
    }
    fill(kept, at, c, n);
    memset(model + at, c, n);
    disk_release(kept);
    disk_release(f);
}

static void random_life(uint64_t seed, struct bytes *out)
{
    struct rng r = {~seed};
    begin(seed);
    for (unsigned lives = 0; lives < 3; lives++) {
        struct bytes kept = {0}, again = {0};
        char model[BIG] = {0};
        put("kept", 'k', 0);
        for (uint64_t steps = rng_below(&r, 40) + 1; steps > 0; steps--)
            random_step(&r, model);
        assert_true(disk_get("kept", &kept));
        assert_memory_equal(bytes_at(&kept), model, kept.len);
        disk_power_cut();
        bytes_clear(out);
        disk_each(note_all, out);
        disk_power_cut(); /* all that is seen is on the platter: nothing is left to chance */
        disk_each(note_all, &again);
        assert_int_equal(again.len, out->len);
        assert_memory_equal(bytes_at(&again), bytes_at(out), out->len);
        bytes_free(&again);
        bytes_free(&kept);
    }
    disk_end();
}

static void the_seed_decides_all(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        struct bytes a = {0}, b = {0};
        random_life(seed, &a);
        random_life(seed, &b);
        assert_int_equal(a.len, b.len);
        assert_memory_equal(bytes_at(&a), bytes_at(&b), a.len);
        bytes_free(&a);
        bytes_free(&b);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_synced_survives),
        cmocka_unit_test(names_without_a_sync_may_go),
        cmocka_unit_test(a_synced_file_may_lose_its_name),
        cmocka_unit_test(blocks_are_old_new_or_torn),
        cmocka_unit_test(only_dirty_blocks_change),
        cmocka_unit_test(sizes_in_between_when_it_grew),
        cmocka_unit_test(sizes_in_between_when_it_shrank),
        cmocka_unit_test(a_file_cut_and_rewritten_may_be_empty),
        cmocka_unit_test(what_is_cut_off_is_as_before),
        cmocka_unit_test(what_is_cut_off_stays_off),
        cmocka_unit_test(a_kill_loses_nothing),
        cmocka_unit_test(a_rename_is_atomic),
        cmocka_unit_test(a_rename_and_a_sync_of_the_folder_last),
        cmocka_unit_test(a_rename_without_a_sync_of_the_file_may_tear_it),
        cmocka_unit_test(names_are_those_after_a_prefix),
        cmocka_unit_test(an_unlink_without_a_sync_may_be_undone),
        cmocka_unit_test(a_failing_sync_of_a_folder_leaves_its_names_pending),
        cmocka_unit_test(a_good_sync_does_not_mend_a_failed_one),
        cmocka_unit_test(what_is_written_anew_is_durable),
        cmocka_unit_test(a_size_that_failed_goes_with_the_last_bytes),
        cmocka_unit_test(what_was_written_over_may_be_what_is_left),
        cmocka_unit_test(a_size_of_a_while_ago_may_be_what_is_left),
        cmocka_unit_test(names_may_reach_the_platter_unasked),
        cmocka_unit_test(locks),
        cmocka_unit_test(a_full_disk),
        cmocka_unit_test(mount_points),
        cmocka_unit_test(errors_of_open),
        cmocka_unit_test(errors_of_names),
        cmocka_unit_test(a_file_without_a_name_lives_while_it_is_open),
        cmocka_unit_test(what_stat_says),
        cmocka_unit_test(put_replaces_at_once),
        cmocka_unit_test(put_makes_no_other_name_durable),
        cmocka_unit_test(put_outlasts_what_was_pending),
        cmocka_unit_test(each_file_once),
        cmocka_unit_test(the_seed_decides_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
