/* The client API: /clients/register, update, delete, get, list, check (interface: README, "Client API"). */
#ifndef LB_ADMIN_CLIENTS_API_H
#define LB_ADMIN_CLIENTS_API_H

#include "config/config.h"
#include "limit/clients.h"
#include "proxy/local.h"

struct clients_api;

/* `lim` NULL: limiting is off, and every path under /clients/ is 404. Keeps a reference to the config. NULL when there
 * is no memory. */
struct clients_api *clients_api_new(struct loop *l, struct config *config, struct limiter *lim)
    __attribute__((warn_unused_result));
void clients_api_free(struct clients_api *api);

/* From now on who may call is as `config`, of which a reference is kept, has it. */
void clients_api_set_config(struct clients_api *api, struct config *config);

/* Another limiter in the place of the one that was given, which has no change under way. */
void clients_api_set_limiter(struct clients_api *api, struct limiter *lim);

/* The handler to be given to the proxy; valid as long as the api. */
const struct local_handler *clients_api_handler(const struct clients_api *api);

#endif
