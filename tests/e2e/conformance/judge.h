/* Runs one case of the conformance suite on a stage, and judges it. */
#ifndef CONFORMANCE_JUDGE_H
#define CONFORMANCE_JUDGE_H

#include "conformance/stage.h"

struct verdict {
    bool pass;
    /* Of a case that was to be refused and failed: the origin got it; it was refused in another way. */
    bool let_through, refused_otherwise;
    struct bytes why;  /* what differs, and what both sides saw; empty when it passed */
    struct bytes seen; /* in a few words */
};

/* The case with its sender's bytes cut in that way: the client's, or, where the origin answers with a text of its own,
 * the origin's. To be freed. */
struct verdict judge_case(struct stage *s, const struct conformance *c, enum split split);
void verdict_free(struct verdict *v);

/* An ordinary request, answered by the origin: the proxy is there. */
bool judge_is_alive(struct stage *s);

#endif
