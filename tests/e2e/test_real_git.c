/* git over HTTP through the proxy: as plain files (nginx), and with git's own server behind Apache, both ways. */
#include "harness/software.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define GIT_HTTP_BACKEND "/usr/lib/git-core/git-http-backend"

/* git asks for nothing and heeds nobody's settings; its commits are the same each time; it does not wait for the disk;
 * and it serves what belongs to another user, which Apache may make of it. */
static void git_environment(void)
{
    static const char *const gone[] = {"GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX", "GIT_SSH"};
    static const char *const set[][2] = {
        {"GIT_CONFIG_NOSYSTEM", "1"},
        {"GIT_CONFIG_GLOBAL", "/dev/null"},
        {"GIT_CONFIG_COUNT", "2"},
        {"GIT_CONFIG_KEY_0", "core.fsync"},
        {"GIT_CONFIG_VALUE_0", "none"},
        {"GIT_CONFIG_KEY_1", "safe.directory"},
        {"GIT_CONFIG_VALUE_1", "*"},
        {"GIT_TERMINAL_PROMPT", "0"},
        {"GIT_AUTHOR_NAME", "Somebody"},
        {"GIT_AUTHOR_EMAIL", "s@example.org"},
        {"GIT_AUTHOR_DATE", "@1700000000 +0000"},
        {"GIT_COMMITTER_NAME", "Somebody"},
        {"GIT_COMMITTER_EMAIL", "s@example.org"},
        {"GIT_COMMITTER_DATE", "@1700000000 +0000"},
    };

    for (size_t i = 0; i < sizeof gone / sizeof *gone; i++)
        unsetenv(gone[i]);
    for (size_t i = 0; i < sizeof set / sizeof *set; i++)
        setenv(set[i][0], set[i][1], 1);
}

static void shell(struct world *w, const char *script)
{
    RUN(w, NULL, SH, "-euc", script);
}

static void add_data(struct bytes *stream, const char *path, const void *p, size_t n)
{
    bytes_addf(stream, "M 100644 inline %s\ndata %zu\n", path, n);
    bytes_add(stream, p, n);
    bytes_addf(stream, "\n");
}

/* One commit in the form of git fast-import, with a tag "vN"; every tenth brings 1 MiB that does not compress. */
static void add_commit(const struct world *w, struct bytes *stream, unsigned number, bool goes_on)
{
    struct bytes text = {0};
    char path[32];

    bytes_addf(stream, "commit refs/heads/main\ncommitter Somebody <s@example.org> %u +0000\ndata 5\nmore\n\n",
               1700000000 + number);
    if (goes_on) /* from where the branch is; within a stream that is implied */
        bytes_addf(stream, "from refs/heads/main^0\n");
    for (unsigned i = 0; i < number * 20; i++)
        bytes_addf(&text, "line %u of %u\n", i * number, number);
    snprintf(path, sizeof path, "a/b/file-%u", number % 7);
    add_data(stream, path, text.p, text.n);
    bytes_free(&text);
    if (number % 10 == 0) {
        text = file_content(world_path(w, "blob"));
        snprintf(path, sizeof path, "large-%u", number);
        add_data(stream, path, text.p + number, text.n - number);
        bytes_free(&text);
    }
    bytes_addf(stream, "reset refs/tags/v%u\nfrom refs/heads/main\n\n", number);
}

/* Commits `first` to `last` for repo.git, what is served: as a pack or as loose objects. */
static void add_commits(struct world *w, unsigned first, unsigned last, bool packed)
{
    struct bytes stream = {0};
    char command[200];
    FILE *f = fopen(world_path(w, "stream"), "we");

    for (unsigned i = first; i <= last; i++)
        add_commit(w, &stream, i, i == first && i > 1);
    assert_non_null(f);
    assert_int_equal(fwrite(stream.p, 1, stream.n, f), stream.n);
    assert_int_equal(fclose(f), 0);
    bytes_free(&stream);
    snprintf(command, sizeof command,
             "git -C repo.git -c fastimport.unpackLimit=%d fast-import --quiet <stream\n"
             "git -C repo.git update-server-info\nchmod -R a+rwX repo.git\n", /* Apache may be somebody else */
             packed ? 1 : 1000);
    shell(w, command);
}

static void make_repository(struct world *w)
{
    make_file(w, "blob", 1u << 20);
    shell(w, "git init -q --bare -b main repo.git\n"
             "git -C repo.git config http.receivepack true\n"
             "git -C repo.git config core.sharedRepository 0777\n");
    add_commits(w, 1, 20, true);
    add_commits(w, 21, 40, false);
}

/* Whole by its own account, and of the same commits and files as the repository that is served. */
static void expect_same_repository(struct world *w, const char *copy)
{
    struct bytes ours, theirs;
    char path[300];

    snprintf(path, sizeof path, "%s", world_path(w, copy));
    RUN(w, NULL, GIT, "-C", path, "fsck", "--full", "--strict");
    RUN(w, &theirs, GIT, "-C", world_path(w, "repo.git"), "rev-parse", "main", "main^{tree}", "v1", "v20", "v40");
    RUN(w, &ours, GIT, "-C", path, "rev-parse", "origin/main", "origin/main^{tree}", "v1", "v20", "v40");
    assert_int_equal(theirs.n, 5 * 41);
    assert_string_equal(ours.p, theirs.p);
    bytes_free(&ours);
    RUN(w, &ours, GIT, "-C", path, "rev-parse", "HEAD");
    assert_memory_equal(ours.p, theirs.p, 41);
    bytes_free(&ours);
    bytes_free(&theirs);
}

/* Loose objects and packs are fetched file by file, the missing ones among them: many small answers, 404s, and a large
 * one. */
static void test_git_as_plain_files(void **state)
{
    struct world *w = *state;

    need_program(GIT);
    need_program(NGINX);
    make_repository(w);
    nginx_backend(w, NULL);
    world_start(w, NULL);
    RUN(w, NULL, GIT, "clone", "-q", url(w, "/repo.git"), "copy");
    expect_same_repository(w, "copy");
    add_commits(w, 41, 45, false);
    RUN(w, NULL, GIT, "-C", world_path(w, "copy"), "pull", "-q", "--ff-only");
    expect_same_repository(w, "copy");
    assert_true(daemon_count_events(&w->daemon, 0, "request", "status=200") > 60); /* objects, most of them alone */
    assert_true(daemon_count_events(&w->daemon, 0, "request", "status=404") > 0);
    assert_int_equal(daemon_count_events(&w->daemon, 0, "request", NULL),
                     daemon_count_events(&w->daemon, 0, "request", "status=200") +
                         daemon_count_events(&w->daemon, 0, "request", "status=404"));
    world_finish(w);
}

static void git_server(struct world *w)
{
    char directives[800];

    need_program(GIT);
    need_program(GIT_HTTP_BACKEND);
    need_program(APACHE);
    make_repository(w);
    snprintf(directives, sizeof directives,
             "ScriptAlias /git/ %s/\nSetEnv GIT_PROJECT_ROOT \"%s\"\nSetEnv GIT_HTTP_EXPORT_ALL 1\n"
             "PassEnv GIT_CONFIG_NOSYSTEM GIT_CONFIG_GLOBAL GIT_CONFIG_COUNT GIT_CONFIG_KEY_0 GIT_CONFIG_VALUE_0 "
             "GIT_CONFIG_KEY_1 GIT_CONFIG_VALUE_1 HOME\n",
             GIT_HTTP_BACKEND, w->dir);
    apache_backend(w, directives);
    world_start(w, NULL);
}

static void expect_in_access_log(struct world *w, const char *line)
{
    struct bytes log = file_content(world_path(w, "apache-access.log"));

    CHECK(strstr(log.p, line), "no \"%s\" in:\n%s", line, log.p);
    bytes_free(&log);
}

static void expect_all_answered(struct world *w)
{
    size_t all = daemon_count_events(&w->daemon, 0, "request", NULL);

    assert_true(all > 3);
    assert_int_equal(daemon_count_events(&w->daemon, 0, "request", "status=200 attempts=1"), all);
}

/* A clone that asks for so many commits that git compresses the question; then a fetch that negotiates. */
static void test_git_clone_and_fetch(void **state)
{
    struct world *w = *state;

    git_server(w);
    RUN(w, NULL, GIT, "clone", "-q", url(w, "/git/repo.git"), "copy");
    expect_same_repository(w, "copy");
    expect_in_access_log(w, "POST /git/repo.git/git-upload-pack 200 gzip -\n");
    add_commits(w, 41, 80, true);
    RUN(w, NULL, GIT, "-C", world_path(w, "copy"), "pull", "-q", "--ff-only");
    expect_same_repository(w, "copy");
    expect_all_answered(w);
    world_finish(w);
}

/* A small push by length, and one over git's buffer of 1 MiB, which it sends in chunks; another clone gets both. */
static void test_git_push(void **state)
{
    struct world *w = *state;

    git_server(w);
    RUN(w, NULL, GIT, "clone", "-q", url(w, "/git/repo.git"), "copy");
    shell(w, "cd copy\n"
             "echo small >small\n"
             "git add small\n"
             "git commit -qm small\n"
             "git push -q origin main\n"
             "tail -c 800000 ../blob >large\n"
             "tail -c 790000 ../blob >larger\n"
             "git add large larger\n"
             "git commit -qm large\n"
             "git -c pack.window=0 push -q origin main\n");
    RUN(w, NULL, GIT, "-C", world_path(w, "repo.git"), "fsck", "--full", "--strict");
    expect_in_access_log(w, "POST /git/repo.git/git-receive-pack 200 - -\n");
    expect_in_access_log(w, "POST /git/repo.git/git-receive-pack 200 - chunked\n");
    expect_same_repository(w, "copy");
    RUN(w, NULL, GIT, "clone", "-q", url(w, "/git/repo.git"), "second");
    expect_same_repository(w, "second");
    shell(w, "cmp copy/large second/large\ncmp copy/small second/small\n");
    expect_all_answered(w);
    world_finish(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WORLD_TEST(test_git_as_plain_files),
        WORLD_TEST(test_git_clone_and_fetch),
        WORLD_TEST(test_git_push),
    };

    software_environment();
    git_environment();
    return cmocka_run_group_tests_name("real_git", tests, NULL, NULL);
}
