/* getaddrinfo() of the simulated process: asks the actor who stands for the name servers. */
#include "net_impl.h"

#include <errno.h>
#include <stdlib.h>

unsigned (*name_resolver)(const char *name, struct sim_addr out[8], uint64_t *delay);

/* Why a name has no address is not always known. */
static int no_name(void)
{
    static const int reasons[] = {EAI_NONAME, EAI_AGAIN, EAI_FAIL, EAI_SYSTEM};
    int why = reasons[call_draw(4)];
    if (why == EAI_SYSTEM)
        errno = call_draw(2) ? EIO : ENFILE;
    return why;
}

int sim_getaddrinfo(const char *host, const char *service, const struct addrinfo *hints, struct addrinfo **out)
{
    struct sim_addr found[8];
    uint64_t delay = 0;
    (void)hints;
    syscall_begin("getaddrinfo", 0, 0);
    unsigned n = name_resolver ? name_resolver(host, found, &delay) : 0;
    thread_sleep(delay);
    *out = NULL;
    for (unsigned i = n; i-- > 0;) {
        struct sockaddr_storage *ss = zalloc(sizeof *ss);
        struct addrinfo *a = zalloc(sizeof *a);
        found[i].port = (uint16_t)atoi(service);
        to_kernel(&found[i], (struct sockaddr *)ss, &a->ai_addrlen);
        a->ai_family = found[i].family;
        a->ai_addr = (struct sockaddr *)ss;
        a->ai_next = *out;
        *out = a;
    }
    trace("=", n, 0, 0);
    return n > 0 ? 0 : no_name();
}

void sim_freeaddrinfo(struct addrinfo *list)
{
    while (list) {
        struct addrinfo *next = list->ai_next;
        free(list->ai_addr);
        free(list);
        list = next;
    }
}
