/* What one side of a case sends, and how it is cut into pieces. */
#ifndef CONFORMANCE_SCRIPT_H
#define CONFORMANCE_SCRIPT_H

#include "conformance/case.h"
#include "harness/util.h"

enum step_kind { STEP_SEND, STEP_AWAIT_CLIENT, STEP_AWAIT_ORIGIN };

struct step {
    enum step_kind kind;
    struct bytes bytes; /* to send, or to wait for */
};

#define SCRIPT_STEPS_MAX 16

struct script {
    struct step steps[SCRIPT_STEPS_MAX];
    unsigned count;
    unsigned step; /* where it stands, and in that */
    size_t at;
};

enum split { SPLIT_NOT, SPLIT_BYTES, SPLIT_RANDOM };
#define SPLITS 3
extern const char *const split_names[SPLITS];

/* Appends what `t` says, its {{...}} carried out. Several texts may follow each other. */
void script_add(struct script *s, struct text t);
void script_free(struct script *s);
bool script_is_over(const struct script *s);
/* The step that waits, passed by script_go_on(), or NULL when something is to be sent (or nothing is left). */
const struct step *script_awaits(const struct script *s);
void script_go_on(struct script *s);
/* The next piece to be sent; script_sent() takes it off. */
struct text script_piece(const struct script *s, enum split split, uint32_t *random);
void script_sent(struct script *s, size_t n);

#endif
