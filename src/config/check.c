/* The forms of the config's strings: names, paths, tokens, lists of statuses. Pure functions of their text; what HTTP
 * says of bytes comes from http/chars.h. */
#include "config/check.h"

#include "http/chars.h"
#include "http/target.h"

/* All bytes are of that class of HTTP's grammar. */
static bool is_all(struct str s, unsigned class)
{
    for (size_t i = 0; i < s.n; i++)
        if (!char_is(s.p[i], class))
            return false;
    return true;
}

bool check_backend_name(struct str s)
{
    return s.n >= 1 && s.n <= 128 && is_all(s, CHAR_VISIBLE);
}

bool check_target_path(struct str s)
{
    return s.n >= 1 && s.n <= 1024 && s.p[0] == '/' && is_all(s, CHAR_VISIBLE) && str_find(s, '#') == s.n;
}

bool check_host(struct str s)
{
    return s.n <= 261 && host_is_valid(s); /* a name of 255 and a port */
}

bool check_file_path(struct str s)
{
    return s.n >= 1 && s.n <= 4000;
}

bool check_token(struct str s)
{
    return s.n >= 1 && s.n <= 1024 && is_all(s, CHAR_VISIBLE);
}

bool check_field_name(struct str s)
{
    return s.n <= 64 && is_token(s);
}

static bool parse_status(struct str s, uint64_t *status)
{
    return s.n == 3 && str_parse_u64(s, status) && *status >= 100 && *status <= 599;
}

/* Adds "200" or "200-399" to the set. */
static bool add_range(struct str s, uint8_t set[75])
{
    uint64_t first, last;
    size_t dash = str_find(s, '-');
    if (!parse_status(str_make(s.p, dash), &first))
        return false;
    last = first;
    if (dash < s.n && !parse_status(str_make(s.p + dash + 1, s.n - dash - 1), &last))
        return false;
    for (uint64_t status = first; status <= last; status++)
        set[status / 8] = (uint8_t)(set[status / 8] | 1u << status % 8);
    return first <= last;
}

bool check_statuses(struct str s, uint8_t set[75])
{
    uint8_t found[75] = {0};
    for (;;) {
        size_t comma = str_find(s, ',');
        if (!add_range(str_trim_ows(str_make(s.p, comma)), found))
            return false;
        if (comma == s.n)
            break;
        s = str_make(s.p + comma + 1, s.n - comma - 1);
    }
    memcpy(set, found, sizeof(found));
    return true;
}
