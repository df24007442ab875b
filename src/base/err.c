/* The catalogue of errors as tables.
 * What belongs in it is in the header. */
#include "base/err.h"

#include <assert.h>

static const struct {
    int status;
    const char *reason, *detail;
} catalogue[ERR_COUNT] = {
#define X(name, status, reason, detail) {status, reason, detail},
    ERR_CATALOGUE(X)
#undef X
};

static const bool closing[ERR_COUNT] = {
#define X(name, ...) [ERR_##name] = true,
    ERR_CLOSING(X)
#undef X
};

int err_status(enum err e)
{
    assert((unsigned)e < ERR_COUNT);
    return catalogue[e].status;
}

bool err_closes(enum err e)
{
    assert((unsigned)e < ERR_COUNT);
    return closing[e];
}

const char *err_reason(enum err e)
{
    assert((unsigned)e < ERR_COUNT);
    return catalogue[e].reason;
}

const char *err_detail(enum err e)
{
    assert((unsigned)e < ERR_COUNT);
    return catalogue[e].detail;
}
