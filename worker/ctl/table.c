#include "table.h"

#include <stdarg.h>

#define COLUMNS_MAX 16
#define LAST_COLUMNS_MIN 8

struct cell {
	char *text;
	const char *colour;
	size_t columns;
};

struct table {
	char *heads;
	const char *names[COLUMNS_MAX];
	bool is_right[COLUMNS_MAX], is_spare[COLUMNS_MAX];
	size_t n_columns;
	struct cell *cells;
	size_t n, room;
};

struct table *table_new(const char *heads)
{
	struct table *table = xcalloc(1, sizeof(*table));
	char *at, *word;

	at = table->heads = xstrdup(heads);
	while ((word = strsep(&at, " ")) != NULL) {
		assert(table->n_columns < COLUMNS_MAX);
		table->is_spare[table->n_columns] = *word == '?';
		word += *word == '?';
		table->is_right[table->n_columns] = *word == '>';
		table->names[table->n_columns++] = word + (*word == '>');
	}
	return table;
}

void table_free(struct table *table)
{
	if (!table)
		return;
	for (size_t i = 0; i < table->n; i++)
		free(table->cells[i].text);
	free(table->cells);
	free(table->heads);
	free(table);
}

void table_cell(struct table *table, const char *colour, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	char *text = xvasprintf(fmt, ap);
	va_end(ap);
	if (table->n == table->room) {
		table->room = table->room ? 2 * table->room : 64;
		table->cells = xrealloc(table->cells, table->room * sizeof(table->cells[0]));
	}
	struct cell *cell = &table->cells[table->n++];
	cell->text = print_clean(span_str(text), 0);
	cell->columns = print_columns(cell->text);
	cell->colour = colour;
	free(text);
}

static size_t width_of(const struct table *table, size_t column)
{
	size_t width = strlen(table->names[column]);

	for (size_t i = column; i < table->n; i += table->n_columns)
		width = MAX(width, table->cells[i].columns);
	return width;
}

/* room 0 = as it is; else cut to it. */
static void print_cell(const struct printer *printer, const struct cell *cell, size_t width, bool is_right, bool is_last,
		       size_t room)
{
	char *cut = room && cell->columns > room ? print_clean(span_str(cell->text), room) : NULL;
	int pad = (int)width - (int)cell->columns;
	bool is_coloured = printer->has_colour && cell->colour && *cell->text;

	fprintf(printer->out, "%*s%s%s%s%*s", is_right ? pad : 0, "", is_coloured ? cell->colour : "",
		cut ? cut : cell->text, is_coloured ? "\033[0m" : "", is_right || is_last ? 0 : pad, "");
	fputs(is_last ? "\n" : "  ", printer->out);
	free(cut);
}

/* widths[i] = 0: left out. */
static void print_row(const struct table *table, const struct printer *printer, const struct cell *row, const size_t *widths)
{
	size_t used = 0, last = table->n_columns - 1;

	/* No blanks at the end. */
	while (last && (!widths[last] || !row[last].columns))
		last--;
	for (size_t i = 0; i <= last; i++) {
		size_t room = i == last && printer->width && !table->is_right[i]
				  ? MAX(printer->width, used + LAST_COLUMNS_MIN) - used
				  : 0;

		if (!widths[i])
			continue;
		print_cell(printer, &row[i], widths[i], table->is_right[i], i == last, room);
		used += widths[i] + 2;
	}
}

/* What a row takes at least: the last column may be cut, but for its head. */
static size_t columns_of(const struct table *table, const size_t *widths)
{
	size_t used = 0, last = 0;

	for (size_t i = 0; i < table->n_columns; i++) {
		used += widths[i] ? widths[i] + 2 : 0;
		last = widths[i] ? i : last;
	}
	size_t least = MAX(strlen(table->names[last]), LAST_COLUMNS_MIN);
	return used - 2 - (table->is_right[last] || widths[last] < least ? 0 : widths[last] - least);
}

/* Spare columns go, from the right, until the rest fits. */
static void fit(const struct table *table, const struct printer *printer, size_t *widths)
{
	for (size_t i = table->n_columns; i-- && printer->width && columns_of(table, widths) > printer->width;)
		if (table->is_spare[i])
			widths[i] = 0;
}

void table_print(const struct table *table, const struct printer *printer)
{
	size_t widths[COLUMNS_MAX];
	struct cell heads[COLUMNS_MAX];

	for (size_t i = 0; i < table->n_columns; i++) {
		/* A view of the name: nothing of it is changed. */
		heads[i] = (struct cell){(char *)(uintptr_t)table->names[i], TABLE_BOLD, strlen(table->names[i])};
		widths[i] = width_of(table, i);
	}
	fit(table, printer, widths);
	print_row(table, printer, heads, widths);
	for (size_t i = 0; i + table->n_columns <= table->n; i += table->n_columns)
		print_row(table, printer, &table->cells[i], widths);
}

const char *table_age(int64_t ms, char *buf, size_t size)
{
	long long s = ms / 1000;

	if (ms < 0)
		snprintf(buf, size, "-");
	else if (ms < 1000)
		snprintf(buf, size, "%lldms", (long long)ms);
	else if (s < 60)
		snprintf(buf, size, "%llds", s);
	else if (s < 3600)
		snprintf(buf, size, "%lldm%02llds", s / 60, s % 60);
	else if (s < 86400)
		snprintf(buf, size, "%lldh%02lldm", s / 3600, s / 60 % 60);
	else
		snprintf(buf, size, "%lldd%02lldh", s / 86400, s / 3600 % 24);
	return buf;
}
