/* The tables of cases. */
#ifndef CONFORMANCE_TABLES_H
#define CONFORMANCE_TABLES_H

#include "conformance/case.h"

extern const struct conformance_table request_line_table, host_table, fields_table, length_table, coding_table,
    chunked_table, hops_table, exchange_table, answers_table, bad_answers_table, switches_table;

/* All, up to NULL. */
extern const struct conformance_table *const conformance_tables[];

#endif
