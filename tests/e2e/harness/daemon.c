/* A program under test as a process. */
#include "harness/daemon.h"

#include "harness/check.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define ARGS_MAX   64
#define DUMP_MAX   20000u
#define DUMP_PIECE 512 /* cmocka cuts a message off at 1 KiB */

/* What stands in front of a program of ours under LB_VALGRIND=1. What a thread holds that is left behind at the end, in
 * a resolver that hangs, counts as possibly lost. */
static const char *const valgrind[] = {"valgrind",
                                       "-q",
                                       "--leak-check=full",
                                       "--show-leak-kinds=definite,indirect",
                                       "--errors-for-leak-kinds=definite,indirect",
                                       "--error-exitcode=99"};
#define VALGRIND_WORDS (sizeof valgrind / sizeof *valgrind)

static void redirect(const char *path, int fd)
{
    int file = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);

    if (file < 0 || dup2(file, fd) < 0)
        _exit(127);
}

/* In the child: becomes the program. */
static void become(const struct daemon *d, const char *dir, const char *const given[])
{
    const char *argv[ARGS_MAX + 1] = {0};
    char program[512];
    bool ours = !strchr(given[0], '/');
    size_t n = 0;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (; ours && is_valgrind_run() && n < VALGRIND_WORDS; n++)
        argv[n] = valgrind[n];
    snprintf(program, sizeof program, ours ? "%s/%s" : "%s%s", ours ? build_dir() : "", given[0]);
    argv[n++] = program;
    for (size_t i = 1; given[i] && n < ARGS_MAX; i++)
        argv[n++] = given[i];
    redirect(d->out, STDOUT_FILENO);
    redirect(d->err, STDERR_FILENO);
    if (chdir(dir) != 0)
        _exit(127);
    execvp(argv[0], (char *const *)(uintptr_t)argv);
    _exit(127);
}

void daemon_start(struct daemon *d, const char *dir, const char *name, const char *const argv[])
{
    daemon_fini(d);
    snprintf(d->out, sizeof d->out, "%s/%s.out", dir, name);
    snprintf(d->err, sizeof d->err, "%s/%s.err", dir, name);
    unlink(d->out);
    unlink(d->err);
    d->pid = fork();
    CHECK(d->pid >= 0, "fork: %s", strerror(errno));
    if (d->pid == 0)
        become(d, dir, argv);
}

static int exit_code(int status)
{
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int daemon_wait_for(struct daemon *d, int ms)
{
    uint64_t deadline = deadline_in(ms);
    int status;

    while (waitpid(d->pid, &status, WNOHANG) == 0) {
        CHECK(left_ms(deadline) > 0, "process %d has not ended in %d ms", (int)d->pid, ms);
        rest();
    }
    d->pid = 0;
    return exit_code(status);
}

int daemon_wait(struct daemon *d)
{
    return daemon_wait_for(d, patience_ms());
}

bool daemon_is_running(struct daemon *d)
{
    siginfo_t info = {0};

    return d->pid > 0 && waitid(P_PID, (id_t)d->pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid == 0;
}

void daemon_signal(const struct daemon *d, int signo)
{
    CHECK(d->pid > 0 && kill(d->pid, signo) == 0, "signal %d to a process that does not run", signo);
}

void daemon_kill(struct daemon *d)
{
    if (d->pid > 0) {
        kill(d->pid, SIGKILL);
        waitpid(d->pid, NULL, 0);
        d->pid = 0;
    }
}

int daemon_run(struct daemon *d, const char *dir, const char *name, const char *const argv[])
{
    daemon_start(d, dir, name, argv);
    return daemon_wait(d);
}

struct bytes daemon_stdout(const struct daemon *d)
{
    return file_content(d->out);
}

struct bytes daemon_stderr(const struct daemon *d)
{
    return file_content(d->err);
}

void daemon_expect_clean_stderr(const struct daemon *d)
{
    struct bytes b = daemon_stderr(d);

    CHECK(b.n == 0, "the daemon wrote to stderr:\n%.4000s", b.p);
    bytes_free(&b);
}

static void take_line(struct daemon *d, const char *line, size_t n)
{
    cJSON *object = cJSON_ParseWithLength(line, n);

    if (!object)
        return;
    d->lines = realloc(d->lines, (d->line_count + 1) * sizeof(cJSON *));
    if (!d->lines)
        abort();
    d->lines[d->line_count++] = object;
}

/* Takes the whole lines that have come since the last look. */
static void read_log(struct daemon *d)
{
    struct bytes b = file_content(d->out);
    const char *end;

    while (d->parsed < b.n && (end = memchr(b.p + d->parsed, '\n', b.n - d->parsed))) {
        size_t n = (size_t)(end - (b.p + d->parsed));

        take_line(d, b.p + d->parsed, n);
        d->parsed += n + 1;
    }
    bytes_free(&b);
}

size_t daemon_mark(struct daemon *d)
{
    read_log(d);
    return d->line_count;
}

const char *log_field(const cJSON *line, const char *key)
{
    static char text[64];
    const cJSON *v = cJSON_GetObjectItemCaseSensitive(line, key);

    if (cJSON_IsString(v))
        return v->valuestring;
    if (cJSON_IsBool(v))
        return cJSON_IsTrue(v) ? "true" : "false";
    if (!cJSON_IsNumber(v))
        return NULL;
    snprintf(text, sizeof text, "%.15g", v->valuedouble);
    return text;
}

double log_number(const cJSON *line, const char *key)
{
    const cJSON *v = cJSON_GetObjectItemCaseSensitive(line, key);

    CHECK(cJSON_IsNumber(v), "no number \"%s\" in a log line", key);
    return v->valuedouble;
}

static bool has_field(const cJSON *line, const char *pair, size_t n)
{
    char key[64];
    size_t key_n = strcspn(pair, "="), value_n = n - key_n - 1;
    const char *value;

    snprintf(key, sizeof key, "%.*s", (int)key_n, pair);
    value = log_field(line, key);
    if (!value)
        return false;
    return (value_n == 1 && pair[key_n + 1] == '*') ||
           (strlen(value) == value_n && memcmp(value, pair + key_n + 1, value_n) == 0);
}

static bool line_matches(const cJSON *line, const char *event, const char *match)
{
    const char *name = log_field(line, "event");

    if (!name || strcmp(name, event) != 0)
        return false;
    for (const char *at = match ? match : ""; *at;) {
        size_t n = strcspn(at, " ");

        if (!has_field(line, at, n))
            return false;
        at += n + strspn(at + n, " ");
    }
    return true;
}

const cJSON *daemon_expect_event(struct daemon *d, size_t mark, const char *event, const char *match)
{
    uint64_t deadline = deadline_in(patience_ms());

    for (;;) {
        read_log(d);
        for (; mark < d->line_count; mark++)
            if (line_matches(d->lines[mark], event, match))
                return d->lines[mark];
        CHECK(left_ms(deadline) > 0, "no log line \"%s\" with %s came", event, match ? match : "anything");
        CHECK(daemon_is_running(d) || left_ms(deadline) <= patience_ms() - 200,
              "the daemon ended before a log line \"%s\"", event);
        rest();
    }
}

size_t daemon_count_events(struct daemon *d, size_t mark, const char *event, const char *match)
{
    size_t count = 0;

    read_log(d);
    for (; mark < d->line_count; mark++)
        count += line_matches(d->lines[mark], event, match);
    return count;
}

static void dump(const char *path)
{
    struct bytes b = file_content(path);
    size_t at = b.n > DUMP_MAX ? b.n - DUMP_MAX : 0;

    print_message("---- %s (%zu bytes)\n", path, b.n);
    for (; at < b.n; at += DUMP_PIECE)
        print_message("%.*s", b.n - at < DUMP_PIECE ? (int)(b.n - at) : DUMP_PIECE, b.p + at);
    print_message("\n");
    bytes_free(&b);
}

void daemon_dump(const struct daemon *d)
{
    if (d->out[0])
        dump(d->out);
    if (d->err[0])
        dump(d->err);
}

void daemon_fini(struct daemon *d)
{
    daemon_kill(d);
    for (size_t i = 0; i < d->line_count; i++)
        cJSON_Delete(d->lines[i]);
    free(d->lines);
    *d = (struct daemon){0};
}
