/* Runs a fuzz target once over each file named, without libFuzzer: seeds and regressions are part of `make test` with
 * any compiler. */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int replay(const char *path)
{
    FILE *f = fopen(path, "rb");
    if (!f) {
        perror(path);
        return 1;
    }
    size_t cap = 1 << 20;
    uint8_t *data = malloc(cap);
    size_t n = data ? fread(data, 1, cap, f) : 0;
    int failed = !data || ferror(f);
    fclose(f);
    /* A block of exactly the input's size, so that reading one byte too many is seen. */
    uint8_t *exact = failed ? NULL : realloc(data, n ? n : 1);
    if (exact)
        LLVMFuzzerTestOneInput(exact, n);
    free(exact ? exact : data);
    return failed || !exact;
}

int main(int argc, char **argv)
{
    int failed = 0;
    for (int i = 1; i < argc; i++)
        failed += replay(argv[i]);
    printf("%s: %d inputs replayed, %d unreadable\n", argv[0], argc - 1, failed);
    return failed > 0 || argc < 2;
}
