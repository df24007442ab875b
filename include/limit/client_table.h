/* The registered clients: found by id, walked in order of registration. A client that is being registered is in the
 * table, so that its id is taken and its memory is there, but not shown until its registration is on disk. */
#ifndef LB_LIMIT_CLIENT_TABLE_H
#define LB_LIMIT_CLIENT_TABLE_H

#include "base/hash.h"
#include "base/list.h"
#include "base/str.h"
#include "limit/bucket.h"
#include "limit/words.h"

#define CLIENT_ID_MAX 128u

/* Places in the order are numbers that files keep, exact in JSON. The largest that a file can have the table go on from
 * leaves as many. */
#define CLIENT_PLACE_MAX  (UINT64_C(1) << 53)
#define CLIENT_PLACE_BITS 54

/* Deleted clients whose place in the order is remembered, so that their ids still work as cursors. */
#define CLIENTS_GONE_MAX 65536u

/* The order is a skip list (Pugh 1990) with a quarter of the nodes on each next level. */
#define CLIENT_LEVELS 12

/* Whether a client's limit is kept, only watched, or not there. */
enum client_mode { CLIENT_ENFORCE, CLIENT_SHADOW, CLIENT_OFF };
#define CLIENT_MODES 3u

/* What a client is given. */
struct client_settings {
    double capacity, rate;
    enum client_mode mode;
};

struct client {                  /* of variable size: client_table.c knows what stands behind it */
    struct hash_node node;       /* with the slot of its bucket's word: client_word() */
    struct bucket_policy policy; /* with the requests that found too little in the bucket: client_limited() */
    uint64_t levels : 4;
    uint64_t mode : 2;                            /* enum client_mode */
    uint64_t shown : 1, busy : 1, is_address : 1; /* busy: a change of it is on its way to disk */
    uint64_t exact : 1;                           /* while loading: its word is what a killed process had */
    uint64_t seq : CLIENT_PLACE_BITS;             /* its place in the order: the number of its registration, from 1 */
    uint64_t id_len : 8;
    uint64_t allowed : 56; /* requests since the start that were passed on: a million a second for 2000 years */
};
_Static_assert(sizeof(struct client) == 64, "a million of them");

struct client_table {
    struct hash_key key;
    struct hash_table by_id;
    struct client *first[CLIENT_LEVELS], *last[CLIENT_LEVELS];
    uint64_t last_seq;
    size_t shown;     /* clients that are shown */
    size_t addresses; /* clients whose id is an IP address */
    struct hash_table gone;
    struct list gone_order;
    struct words words;
    /* While loading: what a killed process has left of the words, and the moment on their time line; else NULL. */
    struct past_words *past;
    uint64_t past_now;
};

void client_table_init(struct client_table *t, const struct hash_key *key);
void client_table_fini(struct client_table *t);

struct str client_id(const struct client *c);

/* The word of the client's bucket, see bucket.h; its slot is tagged once the client is shown. */
static inline uint64_t *client_word(const struct client_table *t, const struct client *c)
{
    return &words_at(&t->words, c->node.rest)->word;
}

/* Requests since the start that found too little in the bucket. */
static inline uint64_t client_limited(const struct client *c)
{
    return c->policy.rest;
}

/* Checks an id (1 to 128 visible ASCII characters) and writes its canonical form with a zero (addresses in canonical
 * spelling). */
bool client_id_canonical(struct str id, char out[CLIENT_ID_MAX + 1]) __attribute__((warn_unused_result));

/* By canonical id; shown or not. NULL when there is none. Never allocates. */
struct client *client_table_find(const struct client_table *t, struct str id);

/* Adds a client, not shown, with a full bucket, at the end of the order; the caller has seen that the canonical id is
 * free. NULL when there is no memory. */
struct client *client_table_add(struct client_table *t, struct str id, const struct client_settings *s)
    __attribute__((warn_unused_result));
/* The same at that place in the order, or at the end where another client has it, or it is 0. */
struct client *client_table_add_at(struct client_table *t, struct str id, const struct client_settings *s,
                                   uint64_t place) __attribute__((warn_unused_result));
void client_table_show(struct client_table *t, struct client *c);

/* What other settings of a client need, got beforehand, so that putting them in force cannot fail. */
struct settling {
    struct bucket_policy policy;
    uint32_t slot; /* 0: nothing is held */
    enum client_mode mode;
};

/* False when there is no memory. */
bool client_table_prepare(struct client_table *t, const struct client_settings *s, struct settling *out)
    __attribute__((warn_unused_result));
void client_table_unprepare(struct client_table *t, struct settling *ch);

/* Gives a client that is shown the settings, which are taken over, and the word, in another slot than before: so the
 * old word stands under the old settings until the new one does under the new. */
void client_table_settle(struct client_table *t, struct client *c, struct settling *ch, uint64_t word);

/* While loading: the word that a killed process had for the client under those settings, as of `now`. */
bool client_table_recall(const struct client_table *t, const struct client *c, const struct bucket_policy *p,
                         uint64_t now, uint64_t *word) __attribute__((warn_unused_result));

/* Moves a client to that place, or to the end where another one has it, or it is 0. */
void client_table_move(struct client_table *t, struct client *c, uint64_t place);

/* Takes out and frees a client; the place of one that was shown is remembered for cursors. */
void client_table_remove(struct client_table *t, struct client *c);

/* The place that an id stands for as a cursor: that of the first client deleted under it that is remembered, else that
 * of the client, else 0, the start, so that whoever walks on from there misses nobody. */
uint64_t client_table_place(const struct client_table *t, struct str id);

/* Forgets that a client of this id was deleted: from now on the id stands for the place of the one that has it. */
void client_table_forget_gone(struct client_table *t, struct str id);

/* The first client shown whose seq is over `seq`, NULL at the end; in a logarithmic number of steps. */
struct client *client_table_after(const struct client_table *t, uint64_t seq);
/* The next one shown. */
struct client *client_table_next(const struct client *c);

#endif
