/* The conformance suite (docs/conformance.md): every case of the tables in conformance/, three times: its sender's
 * bytes whole, one at a time, and split at random points. One daemon and one origin serve them all. */
#include "conformance/judge.h"
#include "conformance/tables.h"
#include "harness/world.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static struct stage stage;

/* A stage with the daemon between its two ends. */
static void open_stage(struct world *w)
{
    int port = port_reserve();
    char address[32];

    CHECK(stage_open(&stage, port, w->port, patience_ms()), "listening on port %d: %s", port, strerror(errno));
    snprintf(address, sizeof address, "127.0.0.1:%d", port);
    world_backend(w, address, NULL);
    /* Heads that go one byte at a time take long on a busy machine. */
    world_start(w, "\"retry\": {\"attempts\": 0}, \"timeouts\": {\"client_header\": \"2m\"}");
    CHECK(judge_is_alive(&stage), "%s", "the daemon does not forward an ordinary request");
}

static bool run_case(const struct conformance *c, enum split split)
{
    struct verdict v = judge_case(&stage, c, split);
    bool pass = v.pass;

    if (!pass)
        print_error("%s (%s), %s: %s\n", c->name, c->section, split_names[split], v.why.p);
    verdict_free(&v);
    return pass;
}

static void run_table(struct world *w, const struct conformance_table *t)
{
    unsigned failed = 0;

    open_stage(w);
    for (size_t i = 0; i < t->count; i++)
        for (int split = 0; split < SPLITS; split++)
            failed += !run_case(&t->cases[i], (enum split)split);
    stage_close(&stage);
    CHECK(failed == 0, "%u of %zu runs of table %s failed", failed, t->count * SPLITS, t->name);
    world_finish(w);
}

#define TABLE_TEST(table)                                                                                              \
    static void test_##table(void **state)                                                                             \
    {                                                                                                                  \
        run_table(*state, &table##_table);                                                                             \
    }

TABLE_TEST(request_line)
TABLE_TEST(host)
TABLE_TEST(fields)
TABLE_TEST(length)
TABLE_TEST(coding)
TABLE_TEST(chunked)
TABLE_TEST(hops)
TABLE_TEST(exchange)
TABLE_TEST(answers)
TABLE_TEST(bad_answers)
TABLE_TEST(switches)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WORLD_TEST(test_request_line), WORLD_TEST(test_host),     WORLD_TEST(test_fields),
        WORLD_TEST(test_length),       WORLD_TEST(test_coding),   WORLD_TEST(test_chunked),
        WORLD_TEST(test_hops),         WORLD_TEST(test_exchange), WORLD_TEST(test_answers),
        WORLD_TEST(test_bad_answers),  WORLD_TEST(test_switches),
    };

    return cmocka_run_group_tests_name("conformance", tests, NULL, NULL);
}
