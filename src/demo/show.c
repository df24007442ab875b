/* The answer that shows the request. */
#include "show.h"

#include "base/json.h"

static bool show_field(struct buf *out, const struct field *f, bool first)
{
    struct buf line = BUF_INIT;
    bool ok = buf_printf(&line, "%.*s: %.*s", STR_ARG(f->name), STR_ARG(f->value)) &&
              buf_append_str(out, first ? STR("") : STR(",")) && json_append_string(out, buf_str(&line));

    buf_fini(&line);
    return ok;
}

bool show_begin(struct buf *out, const char *name, const struct request *r)
{
    if (!buf_append_str(out, STR("{\"backend\":")) || !json_append_string(out, str_of(name)) ||
        !buf_append_str(out, STR(",\"method\":")) || !json_append_string(out, r->method_text) ||
        !buf_append_str(out, STR(",\"target\":")) || !json_append_string(out, r->target) ||
        !buf_append_str(out, STR(",\"fields\":[")))
        return false;
    for (unsigned i = 0; i < r->headers.n; i++)
        if (!show_field(out, &r->headers.v[i], i == 0))
            return false;
    return buf_append_str(out, STR("]"));
}

bool show_end(struct buf *out, uint64_t body_bytes, uint64_t served)
{
    return buf_printf(out, ",\"body_bytes\":%llu,\"served\":%llu}\n", (unsigned long long)body_bytes,
                      (unsigned long long)served);
}
