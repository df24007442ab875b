/* Checks that say what they found. cmocka reports the place; these add the circumstances. */
#ifndef HARNESS_CHECK_H
#define HARNESS_CHECK_H

/* cmocka.h wants these first. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>

/* Fails the running test with a printf-like message. Main thread of a test only. */
#define FAIL(...)                                                                                                      \
    do {                                                                                                               \
        print_error(__VA_ARGS__);                                                                                      \
        print_error("\n");                                                                                             \
        _fail(__FILE__, __LINE__);                                                                                     \
        abort(); /* tells the compiler that _fail() does not return */                                                 \
    } while (0)

#define CHECK(condition, ...)                                                                                          \
    do {                                                                                                               \
        if (!(condition))                                                                                              \
            FAIL(__VA_ARGS__);                                                                                         \
    } while (0)

#endif
