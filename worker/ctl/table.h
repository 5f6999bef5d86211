/* table - aligned columns, as wide as their cells; the last one is cut to the terminal. Colours only where the printer has them.
 * Layer 5. */
#ifndef GATHERD_CTL_TABLE_H
#define GATHERD_CTL_TABLE_H

#include "ctl.h"

#define TABLE_RED "\033[31m"
#define TABLE_GREEN "\033[32m"
#define TABLE_YELLOW "\033[33m"
#define TABLE_DIM "\033[2m"
#define TABLE_BOLD "\033[1m"

struct table;

/* heads: "TOPIC >PARTITION ?>START NOTE": words; > = to the right, ? before it = spare: left out, the rightmost first, where the terminal
 * is too narrow for all. */
struct table *table_new(const char *heads);
/* The next cell, row by row. colour may be NULL; what a terminal would obey is replaced. */
void table_cell(struct table *table, const char *colour, const char *fmt, ...) PRINTF_LIKE(3, 4);
void table_print(const struct table *table, const struct printer *printer);
void table_free(struct table *table);

/* "850ms", "12s", "3m20s", "5h10m", "2d4h"; "-" when negative. In buf. */
const char *table_age(int64_t ms, char *buf, size_t size);

#endif
