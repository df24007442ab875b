/* Who frees the last of many blocks does not wait until all of them have gone back to the kernel. */
#include "base/mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define BLOCKS 4000u
#define BLOCK  8192u

static unsigned long resident_pages(void)
{
    unsigned long all, resident = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    assert_non_null(f);
    assert_int_equal(fscanf(f, "%lu %lu", &all, &resident), 2);
    fclose(f);
    return resident;
}

static void test_kept_until_given_back(void **state)
{
    static void *blocks[BLOCKS];
    unsigned long much = (unsigned long)BLOCKS * BLOCK / (unsigned long)sysconf(_SC_PAGESIZE) / 2;

    (void)state;
    mem_keep();
    unsigned long before = resident_pages();
    for (unsigned i = 0; i < BLOCKS; i++) {
        blocks[i] = mem_try_alloc_room(BLOCK, BLOCK);
        assert_non_null(blocks[i]);
    }
    for (unsigned i = 0; i < BLOCKS; i++)
        mem_free(blocks[i]);
    assert_true(resident_pages() > before + much);
    mem_give_back();
    assert_true(resident_pages() < before + much);
}

/* A large one is a mapping of its own, which goes when it is freed. */
static void test_large_ones_go_at_once(void **state)
{
    const size_t size = 32u * 1024 * 1024;

    (void)state;
    mem_keep();
    unsigned long before = resident_pages(), much = size / (unsigned long)sysconf(_SC_PAGESIZE) / 2;
    void *block = mem_try_alloc_room(size, size);
    assert_non_null(block);
    assert_true(resident_pages() > before + much);
    mem_free(block);
    assert_true(resident_pages() < before + much);
}

int main(void)
{
#ifdef __SANITIZE_ADDRESS__
    puts("test_mem: with the sanitizer the memory is its own"); /* and so is what it keeps */
    return 0;
#endif
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kept_until_given_back),
        cmocka_unit_test(test_large_ones_go_at_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
