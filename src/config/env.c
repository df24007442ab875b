/* Expansion of ${NAME}, ${NAME:-default} and $$, once from left to right: what comes out of a reference is never looked
 * at again. */
#include "config/env.h"

#include <stdbool.h>

static enum env_result append(struct buf *out, struct str s)
{
    if (s.n > ENV_EXPANDED_MAX || out->len > ENV_EXPANDED_MAX - s.n)
        return ENV_TOO_LONG;
    return buf_append_str(out, s) ? ENV_OK : ENV_NO_MEMORY;
}

static bool is_name_char(char c, bool first)
{
    char lower = (char)ascii_lower((unsigned char)c);
    return (lower >= 'a' && lower <= 'z') || c == '_' || (!first && c >= '0' && c <= '9');
}

/* Copies the name at the front of `inside` into `name`; returns its length, 0 when there is none. */
static size_t take_name(struct str inside, char name[ENV_NAME_MAX + 1])
{
    size_t n = 0;
    while (n < inside.n && n < ENV_NAME_MAX && is_name_char(inside.p[n], n == 0)) {
        name[n] = inside.p[n];
        n++;
    }
    name[n] = '\0';
    return n;
}

/* What stands between the braces. */
static enum env_result expand_reference(struct str inside, env_get_fn *get, struct buf *out,
                                        char name[ENV_NAME_MAX + 1])
{
    size_t n = take_name(inside, name);
    struct str rest = str_make(inside.p + n, inside.n - n);
    bool has_default = str_starts_with(rest, STR(":-"));
    if (n == 0 || (rest.n > 0 && !has_default))
        return ENV_MALFORMED;
    const char *value = get(name);
    if (has_default && (!value || !*value))
        return append(out, str_make(rest.p + 2, rest.n - 2));
    return value ? append(out, str_of(value)) : ENV_UNSET;
}

/* What begins with the dollar that `*text` stands on; steps over it. */
static enum env_result expand_dollar(struct str *text, env_get_fn *get, struct buf *out, char name[ENV_NAME_MAX + 1])
{
    size_t end;
    enum env_result r;
    if (str_starts_with(*text, STR("$$"))) {
        end = 2;
        r = append(out, STR("$"));
    } else {
        end = str_find(*text, '}') + 1;
        if (!str_starts_with(*text, STR("${")) || end > text->n)
            return ENV_MALFORMED;
        r = expand_reference(str_make(text->p + 2, end - 3), get, out, name);
    }
    *text = str_make(text->p + end, text->n - end);
    return r;
}

enum env_result env_expand(struct str text, env_get_fn *get, struct buf *out, char name[ENV_NAME_MAX + 1])
{
    enum env_result r = ENV_OK;
    while (r == ENV_OK && text.n > 0) {
        size_t plain = str_find(text, '$');
        r = append(out, str_make(text.p, plain));
        text = str_make(text.p + plain, text.n - plain);
        if (r == ENV_OK && text.n > 0)
            r = expand_dollar(&text, get, out, name);
    }
    return r;
}
