/* The table: a row for each scenario and proxy. */
#ifndef CHAOS_REPORT_H
#define CHAOS_REPORT_H

#include "judge.h"

/* Prints the line for the terminal, below it the promises that were broken (`verbose`: all), and appends the table's
 * row. True when all were kept. */
bool report_add(struct bytes *table, const struct stage *s, const struct counts *n, bool verbose);
/* A scenario that could not be played. */
void report_failed(struct bytes *table, const struct stage *s);
void report_head(struct bytes *table);

#endif
