/* What a call of the client API is given. */
#ifndef LB_ADMIN_CLIENTS_ASKED_H
#define LB_ADMIN_CLIENTS_ASKED_H

#include "limit/clients.h"
#include "proxy/local.h"

struct clients_api;

/* A request being answered. */
struct asked {
    struct clients_api *api;
    const struct local_request *r;
    struct str query;
    struct local_exchange *x;
    void **state;
};

/* Each of these returns false when what is asked was refused: the exchange has been answered then. */

/* The client id that parameter `name` gives, canonical; "" when it is not there. */
bool asked_id(const struct asked *a, const char *name, char id[CLIENT_ID_MAX + 1]) __attribute__((warn_unused_result));

/* The id that get, check and delete need. */
bool asked_need_id(const struct asked *a, char id[CLIENT_ID_MAX + 1]) __attribute__((warn_unused_result));

/* Where a page is to begin: `after` as asked_id() has it, or, where that is "", behind *place. */
bool asked_start(const struct asked *a, char after[CLIENT_ID_MAX + 1], uint64_t *place)
    __attribute__((warn_unused_result));

/* The page size. */
bool asked_limit(const struct asked *a, uint64_t *limit) __attribute__((warn_unused_result));

/* Reads the client in the content: client_fields_read() says what `needed` and `allowed` are. */
bool asked_need_client(const struct asked *a, unsigned needed, unsigned allowed, struct client_fields *f)
    __attribute__((warn_unused_result));

/* Refuses the content for what is wrong with it; false, for the caller to return. */
bool asked_refuse_content(const struct asked *a, const char *what);

#endif
