/* clients.json.tokens, the mapped file that the words of the registered clients' buckets live in. */
#include "limit/words_file.h"

#include "base/file.h"
#include "base/mem.h"

#include <errno.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#define MAGIC "LBWORDS1"
/* Slots that the header takes the place of. */
#define HEADER_SLOTS (sizeof(struct words_header) / sizeof(struct word_slot))
#define PIECE_SLOTS  (WORDS_PIECE / sizeof(struct word_slot))
#define FILE_MAX     ((size_t)1 << 36)

_Static_assert(sizeof(struct words_header) % sizeof(struct word_slot) == 0, "slots begin behind the header");
_Static_assert(WORDS_PIECE % FILE_MAP_UNIT == 0, "a piece can be mapped");
_Static_assert(PIECE_SLOTS <= WORDS_CHUNK, "a piece is a chunk of the pool");

/* One for each boot of a Linux kernel, see random(4). Containers see the kernel's, but where something of their own is
 * mounted over it, as systemd-nspawn does at each of their starts: then words count within one start of the container,
 * and from outside it not at all. */
#define BOOT_ID "/proc/sys/kernel/random/boot_id"

uint64_t words_boot(const struct hash_key *key)
{
    struct buf id = BUF_INIT;
    uint64_t boot = 0;
    if (file_read(BOOT_ID, 256, &id) == 0 && id.len > 0)
        boot = hash_siphash24(key, buf_bytes(&id), id.len);
    buf_fini(&id);
    return boot;
}

static uint64_t sum_of(const struct words_header *h)
{
    return hash_siphash24(&h->key, h, offsetof(struct words_header, sum));
}

bool words_file_init(struct words_file *f, const char *clients_path)
{
    *f = (struct words_file){.fd = -1,
                             .path = file_path_with(clients_path, ".tokens"),
                             .temp = file_path_with(clients_path, ".tokens.tmp"),
                             .clients = file_path_with(clients_path, "")};
    return f->path && f->temp && f->clients;
}

static void forget(struct words_file *f)
{
    if (f->fd >= 0 && !f->installed)
        (void)!file_remove(f->temp);
    for (size_t i = 0; i < f->count; i++)
        file_unmap(f->pieces[i], WORDS_PIECE);
    mem_free(f->pieces);
    file_close(f->fd);
    f->fd = -1;
    f->pieces = NULL;
    f->header = NULL;
    f->count = f->cap = 0;
}

void words_file_fini(struct words_file *f)
{
    forget(f);
    mem_free(f->path);
    mem_free(f->temp);
    mem_free(f->clients);
    f->path = f->temp = f->clients = NULL;
}

/* ---- writing ---- */

/* Room to note one piece more. */
static bool reserve_note(struct words_file *f)
{
    if (f->count < f->cap)
        return true;
    size_t cap = f->cap ? 2 * f->cap : 16;
    void **more = mem_try_alloc(cap * sizeof *more);
    if (!more)
        return false;
    if (f->count > 0)
        memcpy(more, f->pieces, f->count * sizeof *more);
    mem_free(f->pieces);
    f->pieces = more;
    f->cap = cap;
    return true;
}

static int map_piece(struct words_file *f)
{
    uint64_t at = (uint64_t)f->count * WORDS_PIECE;
    if (!reserve_note(f))
        return -ENOMEM;
    int r = file_reserve(f->fd, at + WORDS_PIECE);
    if (r == 0)
        r = file_map(f->fd, at, WORDS_PIECE, &f->pieces[f->count]);
    if (r == 0)
        f->count++;
    return r;
}

int words_file_extend(struct words_file *f, struct word_slot **slots, size_t *n)
{
    int r = f->fd < 0 ? -EBADF : map_piece(f);
    if (r < 0)
        return r;
    *slots = f->pieces[f->count - 1];
    *n = PIECE_SLOTS;
    return 0;
}

int words_file_begin(struct words_file *f, const struct hash_key *key, uint64_t zero, struct word_slot **slots,
                     size_t *n)
{
    uint64_t boot = words_boot(key);
    if (boot == 0)
        return -ENOSYS;
    f->fd = file_create(f->temp, f->clients);
    int r = f->fd < 0 ? f->fd : words_file_extend(f, slots, n);
    if (r < 0) {
        forget(f);
        return r;
    }
    f->header = f->pieces[0];
    *f->header = (struct words_header){.magic = MAGIC, .zero = zero, .key = *key, .boot = boot};
    f->header->sum = sum_of(f->header);
    *slots += HEADER_SLOTS;
    *n -= HEADER_SLOTS;
    return 0;
}

static void store_id(uint64_t *at, uint64_t id)
{
    *at = id;
    atomic_signal_fence(memory_order_seq_cst);
}

int words_file_install(struct words_file *f, uint64_t snapshot)
{
    words_file_note(f, snapshot, true);
    int r = file_rename(f->temp, f->path);
    f->installed = r == 0;
    return r;
}

void words_file_note(struct words_file *f, uint64_t snapshot, bool done)
{
    if (!f->header)
        return;
    uint64_t *all = f->header->snapshots;
    /* Whenever the process is killed: what counted before goes only when the new one is there. */
    for (unsigned i = WORDS_SNAPSHOTS - 1; !done && i > 1; i--)
        store_id(&all[i], all[i - 1]);
    for (unsigned i = 0; done && i < WORDS_SNAPSHOTS; i++)
        store_id(&all[i], snapshot);
    store_id(&all[1], snapshot);
}

void words_file_spoil(struct words_file *f)
{
    if (f->header)
        f->header->sum++;
}

int words_file_remove(struct words_file *f)
{
    return file_remove(f->path);
}

/* ---- reading ---- */

static enum words_fate judge(const struct words_header *h, size_t size, uint64_t now)
{
    /* A piece may have been on its way; what there is of it has no tags yet. */
    if (size < WORDS_PIECE || memcmp(h->magic, MAGIC, sizeof h->magic) != 0 || h->sum != sum_of(h))
        return WORDS_DAMAGED;
    return h->boot == words_boot(&h->key) && h->zero <= now ? WORDS_FOUND : WORDS_OTHER_BOOT;
}

static bool take_slots(const struct words_header *h, const char *p, size_t n, struct past_words *past)
{
    n -= n % sizeof(struct word_slot);
    struct word_slot *slots = mem_try_alloc(n);
    if (!slots)
        return false;
    memcpy(slots, p, n);
    *past = (struct past_words){
        .key = h->key,
        .zero = h->zero,
    };
    _Static_assert(sizeof past->snapshots == sizeof h->snapshots, "all that it goes with");
    memcpy(past->snapshots, h->snapshots, sizeof h->snapshots);
    past_words_init(past, slots, n / sizeof *slots);
    return true;
}

enum words_fate words_file_read(const struct words_file *f, uint64_t now, struct past_words *past, int *error)
{
    struct buf all = BUF_INIT;
    struct words_header h = {.zero = 0};
    *error = file_read(f->path, FILE_MAX, &all);
    enum words_fate fate = *error == -ENOENT ? WORDS_NONE : *error < 0 ? WORDS_UNREADABLE : WORDS_DAMAGED;
    if (*error == 0 && all.len >= sizeof h) {
        memcpy(&h, buf_bytes(&all), sizeof h);
        fate = judge(&h, all.len, now);
    }
    if (fate == WORDS_FOUND && !take_slots(&h, buf_bytes(&all) + sizeof h, all.len - sizeof h, past)) {
        *error = -ENOMEM;
        fate = WORDS_UNREADABLE;
    }
    buf_fini(&all);
    return fate;
}
