/* Disks that are full, over their quota, or read-only, for real: file systems of the test's own, mounted where nobody
 * else sees them. What cannot be kept is answered 503 and changes nothing, traffic goes on, the log says it, and when
 * the disk is well again all goes on by itself. Nothing that was acknowledged is lost. */
#include "harness/software.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#define RATE_LIMIT                                                                                                     \
    "\"rate_limit\": {\"default\": {\"capacity\": 1000, \"rate_per_sec\": 0.01}, \"save_interval\": \"200ms\", "       \
    "\"clients_file\": \"data/clients.json\"}"
#define CLIENTS_MAX 1000

/* What may be mounted here: nothing, with the error that says why; what has no device; anything. */
static enum { MOUNTS_NONE, MOUNTS_WITHOUT_DEVICE, MOUNTS_ALL } mounts;
static int mounts_error;

static bool put(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    bool done = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);

    if (fd >= 0)
        close(fd);
    return done;
}

static bool put_map(const char *path, unsigned inside, unsigned outside)
{
    char map[64];

    snprintf(map, sizeof map, "%u %u 1", inside, outside);
    return put(path, map);
}

/* Where the kernel lets anybody be root in a namespace of users of their own. */
static bool become_root_of_our_own(void)
{
    unsigned user = getuid(), group = getgid();

    return unshare(CLONE_NEWUSER | CLONE_NEWNS) == 0 && put("/proc/self/setgroups", "deny") &&
           put_map("/proc/self/uid_map", 0, user) && put_map("/proc/self/gid_map", 0, group);
}

/* A view of the mounts of our own, where we may change them: it goes with this process and those it starts. */
static void leave_the_others(void)
{
    bool all = unshare(CLONE_NEWNS) == 0;

    if ((all || become_root_of_our_own()) && mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0)
        mounts = all ? MOUNTS_ALL : MOUNTS_WITHOUT_DEVICE;
    else
        mounts_error = errno;
}

static void need_mounts(void)
{
    if (mounts != MOUNTS_NONE)
        return;
    print_message("mounting is not permitted here, nor in a namespace of users of our own: %s\n",
                  strerror(mounts_error));
    skip();
}

static void need_mounts_of_devices(void)
{
    need_mounts();
    if (mounts == MOUNTS_ALL)
        return;
    print_message("mounting a device is not permitted in a namespace of users\n");
    skip();
}

static int setup(void **state)
{
    int r = world_setup(state);
    struct world *w = *state;

    return r == 0 ? mkdir(world_path(w, "data"), 0755) : r;
}

static int teardown(void **state)
{
    struct world *w = *state;

    if (w->daemon.pid > 0 && !w->finished)
        daemon_signal(&w->daemon, 9);
    while (umount2(world_path(w, "data"), MNT_DETACH) == 0)
        ;
    (void)umount2(world_path(w, "top"), MNT_DETACH);
    return world_teardown(state);
}

static void start(struct world *w)
{
    world_origin(w, origin_answer_all, NULL, NULL);
    world_start(w, RATE_LIMIT);
}

/* ---- clients ---- */

/* The numbers of clients whose registration was acknowledged, and the one that was refused first. */
struct clients {
    unsigned n, refused;
};

static int register_client(struct world *w, unsigned n, struct bytes *body)
{
    char json[100];

    snprintf(json, sizeof json, "{\"client_id\":\"user%u\",\"capacity\":%u,\"rate_per_sec\":1e-6}", n, 10 + n);
    return http_request(w->port, "POST", "/clients/register", "", json, body);
}

static int request_as(struct world *w, unsigned n)
{
    char field[64];

    snprintf(field, sizeof field, "X-Client-ID: user%u\r\n", n);
    return http_request(w->port, "GET", "/", field, NULL, NULL);
}

/* The client is there with that many whole tokens, or (-1) not there. */
static void expect_tokens(struct world *w, unsigned n, int tokens)
{
    char target[64];
    struct bytes body = {0};

    snprintf(target, sizeof target, "/clients/get?id=user%u", n);
    int status = http_request(w->port, "GET", target, "", NULL, &body);
    CHECK(status == (tokens < 0 ? 404 : 200), "user%u: %d %s", n, status, body.p);
    if (tokens >= 0) {
        cJSON *doc = cJSON_Parse(body.p);
        CHECK((int)(log_number(doc, "tokens") + 0.01) == tokens, "user%u has not %d tokens: %s", n, tokens, body.p);
        cJSON_Delete(doc);
    }
    bytes_free(&body);
}

static void expect_all(struct world *w, const struct clients *c)
{
    for (unsigned i = 0; i < c->n; i++)
        expect_tokens(w, i, 9 + (int)i); /* each has had one request */
    expect_tokens(w, c->refused, -1);
}

static void expect_503(struct world *w, const char *method, const char *target, const char *content)
{
    struct bytes body = {0};
    int status = http_request(w->port, method, target, "", content, &body);

    CHECK(status == 503 && strstr(body.p, "\"status\":503"), "%s %s: %d %s", method, target, status, body.p);
    bytes_free(&body);
}

/* One more client, with one request; whatever the disk has room for it may. */
static void add_client(struct world *w, struct clients *c)
{
    CHECK(register_client(w, c->n, NULL) == 201, "user%u is not registered", c->n);
    assert_int_equal(request_as(w, c->n), 200);
    c->n++;
}

/* Registers until the disk takes no more. */
static void add_until_refused(struct world *w, struct clients *c)
{
    int status;

    while ((status = register_client(w, c->n, NULL)) == 201) {
        assert_int_equal(request_as(w, c->n), 200);
        c->n++;
        CHECK(c->n < CLIENTS_MAX, "the disk is never full");
    }
    assert_int_equal(status, 503);
    c->refused = c->n;
}

static bool has_failed(struct daemon *d, const char *what, const char *error)
{
    size_t n = daemon_mark(d);

    for (size_t i = 0; i < n; i++) {
        const char *event = log_field(d->lines[i], "event");
        if (!event || strcmp(event, "store_failed") != 0)
            continue;
        if ((!what || strcmp(log_field(d->lines[i], "what"), what) == 0) &&
            strcmp(log_field(d->lines[i], "error"), error) == 0)
            return true;
    }
    return false;
}

/* The log says that this has failed (NULL: anything), and why. */
static void expect_failure(struct world *w, const char *what, const char *error)
{
    for (uint64_t deadline = deadline_in(patience_ms()); !has_failed(&w->daemon, what, error); rest())
        CHECK(left_ms(deadline) > 0, "the log does not say: %s", error);
}

/* What a client of the API, and any client, sees while nothing can be kept. */
static void expect_trouble(struct world *w, const struct clients *c, const char *error)
{
    expect_failure(w, NULL, error);
    expect_503(w, "POST", "/clients/register", "{\"client_id\":\"more\",\"capacity\":1,\"rate_per_sec\":1}");
    expect_503(w, "PUT", "/clients/update", "{\"client_id\":\"user0\",\"capacity\":5}");
    expect_503(w, "DELETE", "/clients/delete?id=user0", NULL);
    expect_all(w, c);
    assert_int_equal(http_get(w->port, "/", NULL), 200);
}

/* Waits until clients.json has the last client, its request counted. */
static void wait_until_saved(struct world *w, const struct clients *c)
{
    uint64_t deadline = deadline_in(patience_ms());
    char wanted[100];

    snprintf(wanted, sizeof wanted, "{\"client_id\":\"user%u\",\"capacity\":%u,\"rate_per_sec\":1e-06,\"tokens\":%u",
             c->n - 1, 9 + c->n, 8 + c->n);
    for (bool saved = false; !saved; rest()) {
        struct bytes file = file_content(world_path(w, "data/clients.json"));
        saved = strstr(file.p, wanted) != NULL;
        bytes_free(&file);
        CHECK(left_ms(deadline) > 0, "it is never saved");
    }
}

/* It is well again by itself, and a killed process has lost nothing. */
static void expect_recovery(struct world *w, struct clients *c)
{
    daemon_expect_event(&w->daemon, 0, "store_recovered", NULL);
    expect_all(w, c);
    add_client(w, c);
    c->refused = CLIENTS_MAX;
    wait_until_saved(w, c);
    daemon_kill(&w->daemon);
    world_restart(w);
    expect_all(w, c);
    world_stop(w);
    world_restart(w);
    expect_all(w, c);
    world_finish(w);
}

/* ---- full ---- */

static void mount_tmpfs(struct world *w)
{
    need_mounts();
    assert_int_equal(mount("none", world_path(w, "data"), "tmpfs", 0, "size=256k,mode=755"), 0);
}

/* A file that takes all the room that there is. */
static void fill(struct world *w)
{
    static char piece[4096];
    int fd = open(world_path(w, "data/ballast"), O_WRONLY | O_CREAT | O_CLOEXEC, 0644);

    assert_true(fd >= 0);
    while (write(fd, piece, sizeof piece) > 0)
        ;
    assert_int_equal(errno, ENOSPC);
    close(fd);
}

static void test_full(void **state)
{
    struct world *w = *state;
    struct clients c = {0};

    mount_tmpfs(w);
    start(w);
    add_client(w, &c);
    fill(w);
    add_until_refused(w, &c);
    expect_trouble(w, &c, "No space left on device");
    assert_int_equal(unlink(world_path(w, "data/ballast")), 0);
    expect_recovery(w, &c);
}

/* Registers, without a request, until the disk takes no more. */
static void add_unused_until_refused(struct world *w, const struct clients *c, unsigned *unused)
{
    while (register_client(w, c->n + *unused, NULL) == 201)
        ++*unused;
    expect_503(w, "DELETE", "/clients/delete?id=user0", NULL);
}

static void expect_unused(struct world *w, const struct clients *c, unsigned unused)
{
    for (unsigned i = c->n; i < c->n + unused; i++)
        expect_tokens(w, i, 10 + (int)i);
    expect_tokens(w, c->n + unused, -1);
}

/* What is on a full disk can be read, and the next process lives with it as the one before did: one that is killed
 * there comes back, as often as that happens. */
static void test_start_on_a_full_one(void **state)
{
    struct world *w = *state;
    struct clients c = {0};
    unsigned unused = 0;

    mount_tmpfs(w);
    start(w);
    add_client(w, &c);
    fill(w);
    add_until_refused(w, &c);
    c.refused = CLIENTS_MAX;
    for (unsigned kills = 0; kills < 2; kills++) {
        daemon_kill(&w->daemon);
        world_restart(w);
        expect_failure(w, "clients_file", "No space left on device");
        expect_all(w, &c);
        expect_unused(w, &c, unused);
        add_unused_until_refused(w, &c, &unused);
        assert_int_equal(http_get(w->port, "/", NULL), 200);
    }
    daemon_kill(&w->daemon);
    world_restart(w);
    assert_int_equal(unlink(world_path(w, "data/ballast")), 0);
    expect_all(w, &c);
    expect_unused(w, &c, unused);
    wait_until_saved(w, &c);
    world_stop(w);
    world_restart(w);
    expect_all(w, &c);
    expect_unused(w, &c, unused);
    world_finish(w);
}

/* ---- read-only ---- */

static void mount_read_only_above(struct world *w)
{
    const char *data = world_path(w, "data");

    assert_int_equal(mount(data, data, NULL, MS_BIND, NULL), 0);
    assert_int_equal(mount(NULL, data, NULL, MS_REMOUNT | MS_BIND | MS_RDONLY, NULL), 0);
}

/* What is open is appended to; what must be made anew cannot. */
static void test_saves_on_what_is_read_only(void **state)
{
    struct world *w = *state;
    struct clients c = {.refused = CLIENTS_MAX};

    mount_tmpfs(w);
    start(w);
    mount_read_only_above(w);
    add_client(w, &c);
    expect_failure(w, "clients_file", "Read-only file system");
    add_client(w, &c);
    assert_int_equal(umount2(world_path(w, "data"), 0), 0);
    wait_until_saved(w, &c);
    daemon_expect_event(&w->daemon, 0, "store_recovered", NULL);
    daemon_kill(&w->daemon);
    world_restart(w);
    expect_all(w, &c);
    world_finish(w);
}

/* A full disk that is read-only when there is room on it again, and then is not. */
static void test_recovery_waits_for_the_read_only(void **state)
{
    struct world *w = *state;
    struct clients c = {0};

    mount_tmpfs(w);
    start(w);
    add_client(w, &c);
    int folder = open(world_path(w, "data"), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_true(folder >= 0);
    fill(w);
    add_until_refused(w, &c);
    mount_read_only_above(w);
    assert_int_equal(unlinkat(folder, "ballast", 0), 0);
    close(folder);
    expect_trouble(w, &c, "Read-only file system");
    assert_int_equal(daemon_count_events(&w->daemon, 0, "store_recovered", NULL), 0);
    assert_int_equal(umount2(world_path(w, "data"), 0), 0);
    expect_recovery(w, &c);
}

/* ---- file systems in a file ---- */

/* Makes one of `size` bytes and mounts it on `folder`. */
static void mount_image(struct world *w, const char *mkfs, off_t size, const char *folder)
{
    need_mounts_of_devices();
    need_program(mkfs);
    need_program("/bin/mount");
    if (access("/dev/loop-control", R_OK | W_OK) != 0) {
        print_message("there are no loop devices\n");
        skip();
    }
    make_file(w, "image", 0);
    assert_int_equal(truncate(world_path(w, "image"), size), 0);
    RUN(w, NULL, mkfs, "-q", "image");
    RUN(w, NULL, "/bin/mount", "-o", "loop", "image", folder);
}

/* A file system that has made itself read-only because of an error, journal and all, and is then taken away: in the
 * folder that is left all is written anew. */
static void test_file_system_with_an_error(void **state)
{
    struct world *w = *state;
    struct clients c = {0};

    mount_image(w, "/sbin/mkfs.ext4", 8 * 1024 * 1024, "data");
    start(w);
    add_client(w, &c);
    RUN(w, NULL, "/bin/sync", "-f", "data"); /* the words' pages are clean: the next store has to ask the file system */
    RUN(w, NULL, "/bin/mount", "-o", "remount,abort", "data");
    add_until_refused(w, &c);
    expect_trouble(w, &c, "Read-only file system");
    assert_int_equal(umount2(world_path(w, "data"), MNT_DETACH), 0);
    expect_recovery(w, &c);
}

/* ---- over the quota ---- */

#define BTRFS   "/bin/btrfs"
#define LIMITED "0/256" /* the first subvolume that is made */

/* A file system that writes nothing where it stood before, so that a store to a mapped page needs room, too. */
static void test_over_quota(void **state)
{
    struct world *w = *state;
    struct clients c = {0};

    need_program(BTRFS);
    assert_int_equal(mkdir(world_path(w, "top"), 0755), 0);
    mount_image(w, "/sbin/mkfs.btrfs", 128 * 1024 * 1024, "top");
    RUN(w, NULL, BTRFS, "quota", "enable", "top");
    RUN(w, NULL, BTRFS, "subvolume", "create", "top/limited");
    assert_int_equal(mount(world_path(w, "top/limited"), world_path(w, "data"), NULL, MS_BIND, NULL), 0);
    start(w);
    add_client(w, &c);
    RUN(w, NULL, "/bin/sync", "-f", "data");
    RUN(w, NULL, BTRFS, "qgroup", "limit", "1", LIMITED, "top");
    add_until_refused(w, &c);
    expect_trouble(w, &c, "Disk quota exceeded");
    RUN(w, NULL, BTRFS, "qgroup", "limit", "none", LIMITED, "top");
    expect_recovery(w, &c);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_full),
        TEST(test_start_on_a_full_one),
        TEST(test_saves_on_what_is_read_only),
        TEST(test_recovery_waits_for_the_read_only),
        TEST(test_file_system_with_an_error),
        TEST(test_over_quota),
    };

    leave_the_others();
    return cmocka_run_group_tests_name("disk_trouble", tests, NULL, NULL);
}
