/* What else of libc reaches outside: standard error, the environment, abort(). */
#include "calls.h"
#include "kernel.h"

#include <string.h>

static void to_stderr(const char *p, size_t n)
{
    bytes_add(&process.stderr_text, p, n);
    trace_text("stderr: %.*s", (int)n, p);
}

int sim_fputs(const char *s, FILE *f)
{
    (void)f;
    to_stderr(s, strlen(s));
    return 0;
}

int sim_puts(const char *s)
{
    sim_fputs(s, NULL);
    return sim_fputs("\n", NULL);
}

int sim_fputc(int c, FILE *f)
{
    (void)f;
    char byte = (char)c;
    to_stderr(&byte, 1);
    return c;
}

int sim_fflush(FILE *f)
{
    (void)f;
    return 0;
}

int sim_ferror(FILE *f)
{
    (void)f;
    return 0;
}

size_t sim_fwrite(const void *p, size_t size, size_t n, FILE *f)
{
    (void)f;
    to_stderr(p, size * n);
    return n;
}

int sim_vfprintf(FILE *f, const char *fmt, va_list ap)
{
    char text[4096];
    (void)f;
    int n = vsnprintf(text, sizeof text, fmt, ap);
    if (n > 0)
        to_stderr(text, (size_t)n < sizeof text ? (size_t)n : sizeof text - 1);
    return n;
}

int sim_vfprintf_chk(FILE *f, int flag, const char *fmt, va_list ap)
{
    (void)flag;
    return sim_vfprintf(f, fmt, ap);
}

int sim_fprintf(FILE *f, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int n = sim_vfprintf(f, fmt, ap);
    va_end(ap);
    return n;
}

int sim_fprintf_chk(FILE *f, int flag, const char *fmt, ...)
{
    (void)flag;
    va_list ap;
    va_start(ap, fmt);
    int n = sim_vfprintf(f, fmt, ap);
    va_end(ap);
    return n;
}

int sim_printf(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int n = sim_vfprintf(NULL, fmt, ap);
    va_end(ap);
    return n;
}

int sim_printf_chk(int flag, const char *fmt, ...)
{
    (void)flag;
    va_list ap;
    va_start(ap, fmt);
    int n = sim_vfprintf(NULL, fmt, ap);
    va_end(ap);
    return n;
}

_Noreturn void sim_abort(void)
{
    sim_fail("abort", "the daemon called abort(): %.*s", (int)process.stderr_text.len, bytes_at(&process.stderr_text));
}

_Noreturn void sim_assert_fail(const char *what, const char *file, unsigned line, const char *function)
{
    sim_fail("assert", "%s:%u: %s: %s", file, line, function, what);
}

char *sim_getenv(const char *name)
{
    (void)name;
    return NULL;
}

pid_t sim_getpid(void)
{
    return 4711;
}
