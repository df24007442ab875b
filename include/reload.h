/* A reload of the config (SIGHUP): read and checked on a helper thread, staged and put in force in one turn of the
 * loop, whole or not at all. */
#ifndef LB_RELOAD_H
#define LB_RELOAD_H

#include "admin/clients_api.h"
#include "config/config.h"
#include "event/log_writer.h"
#include "lifecycle.h"
#include "limit/limiter.h"
#include "proxy/proxy.h"
#include "upstream/upstream.h"

/* What a reload changes; all of it outlives the reload. */
struct reload_setup {
    struct loop *loop;
    struct log_writer *log_writer;
    struct upstream *upstream;
    struct limiter *limiter; /* may be NULL */
    struct clients_api *api;
    struct proxy *proxy;
    struct lifecycle *lifecycle;
};

struct reload;

/* `config` is what is in force now; a reference is kept. NULL when memory runs out. */
struct reload *reload_new(const struct reload_setup *setup, struct config *config) __attribute__((warn_unused_result));

/* Begins a reload from the file that the config came from. Logs `reload` when the new config is in force, or a
 * `reload_failed` for each thing that is wrong: then nothing has changed. A file that has not been read after 10 s is
 * not waited for any longer. One that is asked for during another is made after it, for the file may have changed
 * meanwhile; during a stop none is made. */
void reload_begin(struct reload *r);

/* Is one under way? */
bool reload_under_way(const struct reload *r);

/* What is in force. */
struct config *reload_config(const struct reload *r);

/* Another limiter in the place of the one that was given. */
void reload_set_limiter(struct reload *r, struct limiter *limiter);

/* From now on none is made, for the reason `why` (a literal); NULL: they are again. */
void reload_forbid(struct reload *r, const char *why);

/* A reload that is under way comes to nothing, and is not waited for. NULL is fine. */
void reload_free(struct reload *r);

#endif
