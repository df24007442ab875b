/* Fuzzing of config.json: any text is either taken whole, with at most warnings, or refused with a line that says where
 * and why; and what was taken keeps the bounds that the rest of the daemon relies on. */
#include "config/config.h"

#include <stdlib.h>

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition))                                                                                              \
            abort();                                                                                                   \
    } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *environment(const char *name)
{
    if (str_eq(str_of(name), STR("HOST")))
        return "10.0.0.1:80";
    if (str_eq(str_of(name), STR("EMPTY")))
        return "";
    return str_eq(str_of(name), STR("DIRTY")) ? "\xff\"\n$${HOST}" : NULL;
}

static bool ends_with(struct str s, struct str end)
{
    return s.n >= end.n && str_eq(str_make(s.p + s.n - end.n, end.n), end);
}

/* Every line is "fuzz.json:LINE:COLUMN: message", or "fuzz.json: message" for what has no place. */
static void check_lines(struct str lines, bool warnings_only)
{
    static const struct str name = {"fuzz.json:", sizeof("fuzz.json:") - 1};
    while (lines.n > 0) {
        size_t end = str_find(lines, '\n');
        struct str line = str_make(lines.p, end);
        CHECK(end < lines.n);
        CHECK(str_starts_with(line, name) && line.n > name.n + 2);
        CHECK(!ends_with(line, STR(": there is no memory to check it")));
        CHECK(!ends_with(line, STR(": there is no memory to parse the text")));
        CHECK(!warnings_only || memmem(line.p, line.n, ": warning: ", 11));
        lines = str_make(lines.p + end + 1, lines.n - end - 1);
    }
}

static void check_backends(const struct config *c)
{
    CHECK(c->backend_count >= 1 && c->backend_count <= CONFIG_BACKENDS_MAX);
    for (unsigned i = 0; i < c->backend_count; i++) {
        const struct config_backend *b = &c->backends[i];
        CHECK(b->name && b->address && b->weight >= 1 && b->weight <= 256 && b->endpoint.kind != ENDPOINT_ANY);
        for (unsigned j = 0; j < i; j++)
            CHECK(!str_eq(str_of(b->name), str_of(c->backends[j].name)));
    }
}

static void check_config(const struct config *c)
{
    check_backends(c);
    CHECK(c->refs == 1 && c->path && c->listen_text && c->listen.kind != ENDPOINT_NAME && c->listen.addr.len > 0);
    CHECK((c->balance == BALANCE_HASH) == (c->hash_key != HASH_KEY_NONE));
    CHECK((c->hash_key >= HASH_KEY_HEADER) == (c->hash_key_name != NULL));
    CHECK(c->health.path[0] == '/' && c->health.interval > 0 && c->health.timeout > 0);
    CHECK(c->health.fall >= 1 && c->health.rise >= 1);
    CHECK(c->limits.target_bytes >= 64 && c->limits.target_bytes <= c->limits.header_bytes);
    CHECK(c->rate_limit.default_capacity >= 1 && c->rate_limit.default_capacity <= 1e9);
    CHECK(c->rate_limit.default_rate > 0 && c->rate_limit.default_rate <= 1e9);
    CHECK(*c->rate_limit.clients_file && c->rate_limit.max_tracked >= 1);
    CHECK(!c->admin.token || *c->admin.token);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct buf errors = BUF_INIT;
    struct config *c = config_parse(str_make((const char *)data, size), "fuzz.json", environment, &errors);
    check_lines(buf_str(&errors), c != NULL);
    if (c)
        check_config(c);
    else
        CHECK(errors.len > 0);
    config_put(c);
    buf_fini(&errors);
    return 0;
}
