/* What whoever runs the daemon does by hand or by script: how it is started, what it is asked while something is amiss,
 * and what the test of a config finds. */
#include "harness/world.h"

#include <dirent.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- versions ---- */

/* Makes DIR/NAME, a copy of the daemon's program. */
static void install(struct world *w, const char *name)
{
    char from[300];

    snprintf(from, sizeof from, "%s/loadbalancer", build_dir());
    assert_int_equal(mkdir(world_path(w, name), 0755), 0);
    assert_int_equal(world_run(w, (const char *const[]){"/bin/cp", from, name, NULL}, 10, NULL), 0);
}

static void point_to(struct world *w, const char *link, const char *target)
{
    assert_int_equal(symlink(target, world_path(w, "link.new")), 0);
    assert_int_equal(rename(world_path(w, "link.new"), world_path(w, link)), 0);
}

static void expect_program(const struct world *w, pid_t pid, const char *name)
{
    char link[64], target[400] = "", real[4200];

    snprintf(link, sizeof link, "/proc/%d/exe", (int)pid);
    assert_true(readlink(link, target, sizeof target - 1) > 0);
    assert_non_null(realpath(world_path(w, name), real));
    assert_string_equal(target, real);
}

/* Goes over to the binary that is there now; the new process is w->daemon's then. */
static void upgrade_to(struct world *w, const char *expected, const char *path)
{
    size_t mark = daemon_mark(&w->daemon);

    daemon_signal(&w->daemon, SIGUSR2);
    const cJSON *line = daemon_expect_event(&w->daemon, mark, "upgrade", NULL);
    pid_t pid = (pid_t)log_number(line, "pid");
    assert_string_equal(log_field(line, "program"), path);
    assert_int_equal(daemon_wait(&w->daemon), 0);
    w->daemon.pid = pid;
    expect_program(w, pid, expected);
}

/* The way versions are kept side by side: found by its name in PATH, through a link that is turned. */
static void test_an_upgrade_follows_the_link_in_path(void **state)
{
    struct world *w = *state;
    char path[300];

    world_origin(w, origin_answer_all, NULL, NULL);
    world_config(w, NULL);
    install(w, "v1");
    install(w, "v2");
    point_to(w, "current", "v1");
    snprintf(path, sizeof path, "%s", world_path(w, "current/loadbalancer"));
    const char *const argv[] = {"/bin/sh", "-c", "PATH=$PWD/current:$PATH; exec loadbalancer -c config.json", NULL};
    daemon_start(&w->daemon, w->dir, "loadbalancer", argv);
    daemon_expect_event(&w->daemon, 0, "listening", NULL);
    expect_program(w, w->daemon.pid, "v1/loadbalancer");
    point_to(w, "current", "v2");
    upgrade_to(w, "v2/loadbalancer", path);
    point_to(w, "current", "v1");
    upgrade_to(w, "v1/loadbalancer", path);
    world_finish(w);
}

/* ---- what is no file ---- */

/* Ends with that status, and says that on stderr. */
static void expect_refused(struct world *w, const char *const argv[], int status, const char *message)
{
    struct daemon d = {0};

    int ended = daemon_run(&d, w->dir, "refused", argv);
    struct bytes said = daemon_stderr(&d);
    CHECK(strstr(said.p ? said.p : "", message), "it says \"%s\" instead of \"%s\"", said.p, message);
    assert_int_equal(ended, status);
    bytes_free(&said);
    daemon_fini(&d);
}

static const char *const start_it[] = {"loadbalancer", NULL};

static void make_fifo(const struct world *w, const char *name)
{
    assert_int_equal(mkfifo(world_path(w, name), 0600), 0);
}

static void test_a_log_that_nobody_reads(void **state)
{
    struct world *w = *state;

    world_origin(w, origin_answer_all, NULL, NULL);
    make_fifo(w, "pipe");
    world_config(w, "\"log\": {\"file\": \"pipe\"}");
    expect_refused(w, start_it, 1, "cannot write the log to pipe: nobody reads from it");
    world_config(w, "\"log\": {\"format\": \"json\", \"file\": \"lb.log\"}");
    daemon_start(&w->daemon, w->dir, "loadbalancer", start_it);
    snprintf(w->daemon.out, sizeof w->daemon.out, "%s", world_path(w, "lb.log"));
    daemon_expect_event(&w->daemon, 0, "listening", NULL);
    world_config(w, "\"log\": {\"format\": \"json\", \"file\": \"pipe\"}");
    daemon_signal(&w->daemon, SIGHUP);
    const char *cause = log_field(daemon_expect_event(&w->daemon, 0, "reload_failed", NULL), "cause");
    CHECK(strstr(cause, "log.file: pipe cannot be opened: nobody reads from it"), "%s", cause);
    world_finish(w);
}

static void test_clients_that_are_no_file(void **state)
{
    static const char *const names[] = {"clients.json", "clients.json.journal", "clients.json.rescue"};
    struct world *w = *state;
    char message[80];

    world_origin(w, origin_answer_all, NULL, NULL);
    world_config(w, NULL);
    for (unsigned i = 0; i < sizeof names / sizeof *names; i++) {
        make_fifo(w, names[i]);
        snprintf(message, sizeof message, "%s: it is no regular file", names[i]);
        expect_refused(w, start_it, 1, message);
        assert_int_equal(unlink(world_path(w, names[i])), 0);
    }
    make_fifo(w, "clients.json.tokens"); /* what they hold is only ever better than nothing */
    make_fifo(w, "clients.json.unregistered");
    world_restart(w);
    assert_int_equal(daemon_count_events(&w->daemon, 0, "tokens_ignored", NULL), 2);
    world_finish(w);
}

/* As `-c <(...)` is: whoever writes it is waited for. */
static void test_a_config_from_a_pipe(void **state)
{
    struct world *w = *state;

    world_origin(w, origin_answer_all, NULL, NULL);
    world_config(w, NULL);
    const char *const argv[] = {"/bin/sh", "-c", "(sleep 0.2; cat config.json) | \"$0\" -t -c /dev/stdin", NULL, NULL};
    const char *filled[5];
    char program[300];
    memcpy(filled, argv, sizeof argv);
    snprintf(program, sizeof program, "%s/loadbalancer", build_dir());
    filled[3] = program;
    assert_int_equal(world_run(w, filled, 10, NULL), 0);
    world_finish(w);
}

/* ---- the test of a config ---- */

static const char *const test_it[] = {"loadbalancer", "-t", NULL}, *const start_nothing[] = {"loadbalancer", "-v",
                                                                                             NULL};

static void expect_valid(struct world *w)
{
    struct bytes said = {0};

    assert_int_equal(world_run(w, test_it, 10, &said), 0);
    assert_string_equal(said.p, "config.json: the configuration is valid\n");
    bytes_free(&said);
}

static unsigned count_files(const struct world *w)
{
    DIR *all = opendir(w->dir);
    unsigned n = 0;

    assert_non_null(all);
    while (readdir(all))
        n++;
    closedir(all);
    return n;
}

static void put_clients(const struct world *w, const char *clients, const char *journal)
{
    file_put(world_path(w, "clients.json"), clients);
    file_put(world_path(w, "clients.json.journal"), journal);
}

/* What the start would say, with its exit status, and nothing is touched. */
static void test_the_test_looks_at_the_clients(void **state)
{
    static const struct {
        const char *clients, *journal, *message;
    } cases[] = {{"{\"clients\":[]", "", "clients.json:1:14: "},
                 {"", "", "clients.json:1:1: "},
                 {"{\"clients\":[]}", "nonsense\n", "clients.json.journal:1:1: "}};
    struct world *w = *state;

    world_origin(w, origin_answer_all, NULL, NULL);
    world_config(w, NULL);
    expect_valid(w);
    put_clients(w, "{\"clients\":[]}", "");
    expect_valid(w);
    expect_refused(w, start_nothing, 0, ""); /* whose output stays */
    unsigned before = count_files(w);
    for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
        put_clients(w, cases[i].clients, cases[i].journal);
        expect_refused(w, test_it, 2, cases[i].message);
    }
    assert_int_equal(count_files(w), before);
    expect_refused(w, start_it, 2, "clients.json.journal:1:1: ");
    world_config(w, "\"rate_limit\": {\"clients_file\": \"nowhere/clients.json\"}");
    expect_refused(w, test_it, 1, "nowhere does not exist");
    expect_refused(w, start_it, 1, "nowhere does not exist");
    world_config(w, "\"rate_limit\": null");
    expect_valid(w);
    world_finish(w);
}

/* Beside a daemon that uses the files, and has a change that is in the journal only. */
static void test_the_test_minds_nobody(void **state)
{
    struct world *w = *state;

    world_origin(w, origin_answer_all, NULL, NULL);
    world_start(w, NULL);
    assert_int_equal(http_request(w->port, "POST", "/clients/register", "",
                                  "{\"client_id\":\"u\",\"capacity\":10,\"rate_per_sec\":1}", NULL),
                     201);
    expect_valid(w);
    assert_int_equal(http_get(w->port, "/clients/get?id=u", NULL), 200);
    world_finish(w);
}

static void test_the_test_looks_at_the_log(void **state)
{
    struct world *w = *state;

    world_origin(w, origin_answer_all, NULL, NULL);
    world_config(w, "\"log\": {\"file\": \"none/lb.log\"}");
    expect_refused(w, test_it, 1, "cannot write the log to none/lb.log: No such file or directory");
    world_config(w, "\"log\": {\"file\": \".\"}");
    expect_refused(w, test_it, 1, "cannot write the log to .: Is a directory");
    world_config(w, "\"log\": {\"file\": \"lb.log\"}");
    expect_valid(w);
    assert_int_not_equal(access(world_path(w, "lb.log"), F_OK), 0);
    file_put(world_path(w, "lb.log"), "old\n");
    expect_valid(w);
    world_finish(w);
}

/* ---- the first process of a container ---- */

static pid_t parent_of(const char *pid)
{
    char path[300];

    snprintf(path, sizeof path, "/proc/%s/status", pid);
    struct bytes status = file_content(path);
    const char *line = status.p ? strstr(status.p, "\nPPid:") : NULL;
    pid_t parent = line ? (pid_t)strtol(line + strlen("\nPPid:"), NULL, 10) : 0;
    bytes_free(&status);
    return parent;
}

/* Those that have ended are among them until their parent has asked how. */
static unsigned count_children(pid_t parent)
{
    DIR *all = opendir("/proc");
    unsigned n = 0;

    assert_non_null(all);
    for (struct dirent *e; (e = readdir(all));)
        n += e->d_name[0] >= '1' && e->d_name[0] <= '9' && parent_of(e->d_name) == parent;
    closedir(all);
    return n;
}

/* Starts a process whose parent ends, as `docker exec` leaves them; it ends when what is returned is closed. */
static int leave_an_orphan(void)
{
    int ends[2], status;
    char byte;

    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    pid_t pid = fork();
    if (pid == 0) {
        close(ends[1]);
        if (fork() == 0)
            (void)!read(ends[0], &byte, 1);
        _exit(0);
    }
    assert_true(pid > 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    close(ends[0]);
    return ends[1];
}

static void wait_for_children(pid_t parent, unsigned n)
{
    uint64_t deadline = deadline_in(patience_ms());

    for (; count_children(parent) != n; rest())
        CHECK(left_ms(deadline) > 0, "the daemon has %u children instead of %u", count_children(parent), n);
}

static void test_orphans_are_let_go(void **state)
{
    struct world *w = *state;

    world_origin(w, origin_answer_all, NULL, NULL);
    int own = open("/proc/self/ns/pid", O_RDONLY | O_CLOEXEC);
    if (own < 0 || unshare(CLONE_NEWPID) != 0)
        skip(); /* not allowed here */
    world_start(w, NULL);
    int orphan = leave_an_orphan();
    assert_int_equal(setns(own, CLONE_NEWPID), 0);
    close(own);
    wait_for_children(w->daemon.pid, 1);
    close(orphan);
    wait_for_children(w->daemon.pid, 0);
    world_finish(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WORLD_TEST(test_an_upgrade_follows_the_link_in_path),
        WORLD_TEST(test_a_log_that_nobody_reads),
        WORLD_TEST(test_clients_that_are_no_file),
        WORLD_TEST(test_a_config_from_a_pipe),
        WORLD_TEST(test_the_test_looks_at_the_clients),
        WORLD_TEST(test_the_test_minds_nobody),
        WORLD_TEST(test_the_test_looks_at_the_log),
        WORLD_TEST(test_orphans_are_let_go),
    };
    prctl(PR_SET_CHILD_SUBREAPER, 1); /* a process whose parent has ended is ours then */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
