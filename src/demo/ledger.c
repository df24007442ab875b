/* The ledger of POSTs. */
#include "ledger.h"

#include "base/buf.h"
#include "base/file.h"

bool ledger_open(struct demo_server *s, int *error)
{
    int fd;

    if (!s->options->ledger)
        return true;
    fd = file_open_append(s->options->ledger);
    if (fd < 0) {
        *error = -fd;
        return false;
    }
    s->ledger = fd;
    return true;
}

void ledger_close(struct demo_server *s)
{
    if (s->ledger >= 0)
        file_close(s->ledger);
    s->ledger = -1;
}

void ledger_enter(const struct demo_server *s, const struct request *r)
{
    const struct field *id = headers_find_name(&r->headers, STR("X-Request-ID"), NULL);
    struct buf line = BUF_INIT;

    if (s->ledger < 0 || r->method != METHOD_POST || !id)
        return;
    /* One write: lines of several backends in one file do not mix. */
    if (buf_printf(&line, "%.*s\n", STR_ARG(id->value)))
        (void)!file_write_all(s->ledger, buf_str(&line));
    buf_fini(&line);
}
