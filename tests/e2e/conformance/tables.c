/* All tables, in the order in which they run. */
#include "conformance/tables.h"

const struct conformance_table *const conformance_tables[] = {
    &request_line_table, &host_table,     &fields_table,  &length_table,      &coding_table,   &chunked_table,
    &hops_table,         &exchange_table, &answers_table, &bad_answers_table, &switches_table, NULL,
};
