/* Request targets and hosts, checked and taken apart.
 * Nothing is decoded or normalised: what is sent on is a piece of what came in. */
#include "http/target.h"

#include "http/chars.h"

#include <arpa/inet.h>
#include <netinet/in.h>

static struct str from(struct str s, size_t at)
{
    return str_make(s.p + at, s.n - at);
}

/* What may stand behind the host: nothing, or a colon and a port (RFC 3986 section 3.2.3 allows an empty one). */
static bool port_is_valid(struct str s)
{
    unsigned port = 0;

    if (s.n == 0)
        return true;
    if (s.p[0] != ':' || s.n > sizeof ":65535" - 1)
        return false;
    for (size_t i = 1; i < s.n; i++) {
        if (!char_is(s.p[i], CHAR_DIGIT))
            return false;
        port = port * 10 + (unsigned)(s.p[i] - '0');
    }
    return port <= UINT16_MAX;
}

/* `s` begins with '['. */
static bool literal_is_valid(struct str s)
{
    char text[INET6_ADDRSTRLEN];
    struct in6_addr ignored;
    size_t close = str_find(s, ']');

    if (close == s.n || close > sizeof text)
        return false;
    memcpy(text, s.p + 1, close - 1);
    text[close - 1] = 0;
    return memchr(text, 0, sizeof text) == text + close - 1 && inet_pton(AF_INET6, text, &ignored) == 1 &&
           port_is_valid(from(s, close + 1));
}

/* The length of the reg-name that `s` begins with. */
static size_t reg_name_length(struct str s)
{
    size_t i = 0;

    while (i < s.n) {
        if (char_is(s.p[i], CHAR_REG_NAME))
            i++;
        else if (s.p[i] == '%' && s.n - i > 2 && char_is(s.p[i + 1], CHAR_HEX) && char_is(s.p[i + 2], CHAR_HEX))
            i += 3;
        else
            break;
    }
    return i;
}

bool host_is_valid(struct str s)
{
    if (s.n == 0)
        return true;
    if (s.p[0] == '[')
        return literal_is_valid(s);
    size_t n = reg_name_length(s);
    return n > 0 && port_is_valid(from(s, n));
}

/* The length of "http://" or "https://" in front of `s`, or 0. */
static size_t scheme_length(struct str s)
{
    struct str http = STR("http://"), https = STR("https://");

    if (s.n >= http.n && str_eq_nocase(str_make(s.p, http.n), http))
        return http.n;
    if (s.n >= https.n && str_eq_nocase(str_make(s.p, https.n), https))
        return https.n;
    return 0;
}

static enum err split_absolute(struct str s, bool asterisk, struct target *out)
{
    size_t scheme = scheme_length(s);
    if (scheme == 0)
        return ERR_BAD_TARGET;
    s = from(s, scheme);

    size_t n = 0;
    while (n < s.n && s.p[n] != '/' && s.p[n] != '?')
        n++;
    out->authority = str_make(s.p, n);
    if (n == 0 || !host_is_valid(out->authority))
        return ERR_BAD_TARGET;

    out->rest = from(s, n);
    if (out->rest.n == 0)
        out->rest = asterisk ? STR("*") : STR("/");
    else if (out->rest.p[0] == '?')
        out->prefix = STR("/");
    return ERR_OK;
}

enum err target_split(struct str s, bool asterisk, struct target *out)
{
    *out = (struct target){STR(""), s, STR("")};
    if (s.n == 0 || memchr(s.p, '#', s.n))
        return ERR_BAD_TARGET;
    if (s.p[0] == '/' || (asterisk && str_eq(s, STR("*"))))
        return ERR_OK;
    return split_absolute(s, asterisk, out);
}
