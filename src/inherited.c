/* Inherited descriptors. They begin with 3, and the environment says what they are. */
#include "inherited.h"

#include "base/process.h"
#include "base/str.h"
#include "net/sock.h"

#include <stdlib.h>
#include <string.h>

#define FIRST_FD 3
#define FDS_MAX  64

static bool take_number(struct str *list, uint64_t *out)
{
    size_t end = str_find(*list, ',');
    if (!str_parse_u64(str_make(list->p, end), out))
        return false;
    size_t next = end < list->n ? end + 1 : end;
    *list = str_make(list->p + next, list->n - next);
    return true;
}

static bool find_before(struct inherited *in, const char *text)
{
    struct str list = str_of(text);
    uint64_t control, listener, owned;
    if (!take_number(&list, &control) || !take_number(&list, &listener) || !take_number(&list, &owned) || list.n > 0 ||
        control > FDS_MAX || listener > FDS_MAX)
        return false;
    in->control = (int)control;
    in->listeners = (int)listener;
    in->count = 1;
    in->owns_file = owned == 1;
    sock_adopt(in->control);
    return true;
}

bool inherited_find(struct inherited *in)
{
    const char *before = getenv(INHERITED_SETTING), *pid = getenv("LISTEN_PID"), *fds = getenv("LISTEN_FDS");
    uint64_t whose, n;
    *in = (struct inherited){.control = -1};
    if (before)
        return find_before(in, before);
    if (!pid || !fds)
        return true;
    if (!str_parse_u64(str_of(pid), &whose) || !str_parse_u64(str_of(fds), &n) || n > FDS_MAX)
        return false;
    if (whose != (uint64_t)process_self())
        return true; /* meant for another one */
    in->listeners = FIRST_FD;
    in->count = (int)n;
    return true;
}

bool inherited_is_at(const struct addr *at, const struct endpoint *wanted)
{
    struct peer a = peer_from_addr(at), b = peer_from_addr(&wanted->addr);
    if (a.is_unix || b.is_unix)
        return sock_is_same_file(at, &wanted->addr);
    static const struct ip any;
    bool is_any = wanted->kind == ENDPOINT_ANY || ip_eq(&b.ip, &any);
    struct ip v4_any = {{[10] = 0xff, [11] = 0xff}};
    return (wanted->port == 0 || a.port == wanted->port) && (ip_eq(&a.ip, &b.ip) || (is_any && ip_eq(&a.ip, &v4_any)));
}

int inherited_listener(struct inherited *in, const struct config *config)
{
    int found = -1;
    for (int fd = in->listeners; fd < in->listeners + in->count; fd++) {
        struct addr at;
        if (found < 0 && sock_local_addr(fd, &at) == 0 && inherited_is_at(&at, &config->listen))
            found = fd;
        else if (in->control < 0)
            sock_close(fd);
    }
    if (found >= 0 || in->control < 0)
        in->count = 0;
    return found;
}
