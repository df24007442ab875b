/* The test of a config (-t): what else a start by it would stumble over. */
#ifndef LB_DRY_RUN_H
#define LB_DRY_RUN_H

#include "config/config.h"

/* Looks at the files that the config names, changes none of them, and minds nobody who uses them: can the clients' be
 * read, and are they whole, if they are there, or is there a folder for them; could the log be written? What is wrong
 * is told on stderr. Returns the exit status that a start would have (lifecycle.h). */
int dry_run(const struct config *config);

#endif
