/* clients.json.tokens: a file whose mapping holds the words of the registered clients' buckets, so that they outlive
 * kill -9, in the page cache, without a system call on the data path. A power cut may leave anything of it; what it
 * holds counts only within the boot that wrote it.
 *
 *   | magic, zero, key, boot, sum | snapshots | slots ... |  slots ...  |  slots ...
 *   |<--------------- a piece of WORDS_PIECE bytes ------>|<- a piece ->|
 *
 * The file is made anew by each process, beside the one before it, and takes that one's name when every client's word
 * is in it. All calls but words_file_note() may block: they belong to start, end and the helper thread. Results: 0 or
 * -errno. */
#ifndef LB_LIMIT_WORDS_FILE_H
#define LB_LIMIT_WORDS_FILE_H

#include "limit/words.h"

#define WORDS_PIECE 65536u

struct words_header {
    char magic[8];
    uint64_t zero; /* clock_boottime() at the words' time 0 */
    struct hash_key key;
    uint64_t boot; /* that wrote it, as words_boot() has it */
    uint64_t sum;  /* of all before it */
    /* Which clients.json it goes with, by the time of its saved_at (0: it has none, or is not there): the one that is
     * known to be there, and those of the last saves since, one of which may be there although it failed. */
    uint64_t snapshots[WORDS_SNAPSHOTS];
};

struct words_file {
    char *path, *temp, *clients; /* owned; NULL without memory */
    int fd;                      /* -1: there is no file, and the words are not kept */
    struct words_header *header;
    void **pieces; /* mapped; the first begins with the header */
    size_t count, cap;
    bool installed; /* `temp` has become `path` */
};

/* For the clients in that file, beside it. False when there is no memory: then words_file_fini() is still due. */
bool words_file_init(struct words_file *f, const char *clients_path) __attribute__((warn_unused_result));
/* Unmaps: the words must not be used any more. The file stays as it is; one that was not installed goes. */
void words_file_fini(struct words_file *f);

/* Begins the new file, with its first piece, whose slots it gives to *slots and *n. */
int words_file_begin(struct words_file *f, const struct hash_key *key, uint64_t zero, struct word_slot **slots,
                     size_t *n) __attribute__((warn_unused_result));
/* Adds a piece, for use in the pool. */
int words_file_extend(struct words_file *f, struct word_slot **slots, size_t *n) __attribute__((warn_unused_result));
/* All words are in it: it counts from now on, with that snapshot. */
int words_file_install(struct words_file *f, uint64_t snapshot) __attribute__((warn_unused_result));
/* A snapshot is about to be put in place (`done` false), or has been. */
void words_file_note(struct words_file *f, uint64_t snapshot, bool done);
/* It is no longer kept up: whoever reads it from now on finds it damaged. */
void words_file_spoil(struct words_file *f);
/* The words are all in clients.json. */
int words_file_remove(struct words_file *f) __attribute__((warn_unused_result));

enum words_fate {
    WORDS_FOUND,
    WORDS_NONE,       /* there is no file */
    WORDS_UNREADABLE, /* *error says why */
    WORDS_DAMAGED,    /* what a power cut has left, or something else entirely */
    WORDS_OTHER_BOOT  /* the machine has been started anew since */
};

/* Reads what the process before has left; `now` is clock_boottime(). With WORDS_FOUND *past is to be freed by
 * past_words_fini(). Whether it goes with the clients.json that is there is the caller's to see. */
enum words_fate words_file_read(const struct words_file *f, uint64_t now, struct past_words *past, int *error)
    __attribute__((warn_unused_result));

/* What tells this boot from all others, under `key`; 0 when the system does not say. */
uint64_t words_boot(const struct hash_key *key);

#endif
